/* Streams of host memory: calls return once they are queued, run in order, meet where groups name several of them, and
 * tell their failures through the communicator. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <railccl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/job.h"

enum { N = 1000 };

static void fill(float *x, float value)
{
    for (int i = 0; i < N; i++) x[i] = value;
}

static bool holds(const float *x, float value)
{
    for (int i = 0; i < N; i++)
        if (x[i] != value) return false;
    return true;
}

/* Three AllReduces in place: each needs the one before. */
static void in_order(struct job_rank *rank)
{
    float x[N], n = (float)rank->n_ranks;
    cudaStream_t s;
    fill(x, 1);
    JOB_TRY(railStreamCreate(&s));
    for (int k = 0; k < 3; k++) JOB_TRY(ncclAllReduce(x, x, N, ncclFloat32, ncclSum, rank->comm, s));
    JOB_TRY(railStreamSynchronize(s));
    JOB_EXPECT(holds(x, n * n * n), "rank %d: %g after three sums", rank->rank, (double)x[0]);
    JOB_TRY(railStreamQuery(s));
    JOB_TRY(railStreamDestroy(s));
}

static const struct job placements[] = {
    {.n_ranks = 3, .ranks_per_process = 0},
    {.n_ranks = 3, .ranks_per_process = 1},
    {.n_ranks = 4, .ranks_per_process = 2, .n_hosts = 2},
};

static void calls_on_a_stream_run_in_order(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof placements / sizeof placements[0]; k++) job_must(&placements[k], in_order, NULL);
}

/* Rank 1 sleeps before its call: rank 0's returns all the same, and is not done. */
static void does_not_wait(struct job_rank *rank)
{
    float x[N];
    cudaStream_t s;
    fill(x, 1);
    JOB_TRY(railStreamCreate(&s));
    int32_t *flag = rank->arg;
    if (rank->rank == 1)
        while (!__atomic_load_n(flag, __ATOMIC_ACQUIRE)) usleep(1000);
    JOB_TRY(ncclAllReduce(x, x, N, ncclFloat32, ncclSum, rank->comm, s));
    if (rank->rank == 0) {
        ncclResult_t busy = railStreamQuery(s);
        __atomic_store_n(flag, 1, __ATOMIC_RELEASE);
        JOB_EXPECT(busy == ncclInProgress, "the stream says %d before rank 1 has called", (int)busy);
    }
    JOB_TRY(railStreamSynchronize(s));
    JOB_EXPECT(holds(x, 2), "rank %d: %g", rank->rank, (double)x[0]);
    JOB_TRY(railStreamDestroy(s));
}

static void a_call_returns_before_its_peers_have_come(void **state)
{
    (void)state;
    int32_t flag = 0;
    const struct job threads = {.n_ranks = 2};
    job_must(&threads, does_not_wait, &flag);
}

/* Two streams, one communicator: call order counts. Then a call without a stream sees what came before. */
static void across_streams(struct job_rank *rank)
{
    float x[N], n = (float)rank->n_ranks;
    cudaStream_t a, b;
    fill(x, 1);
    JOB_TRY(railStreamCreate(&a));
    JOB_TRY(railStreamCreate(&b));
    for (int k = 0; k < 20; k++) {
        JOB_TRY(ncclAllReduce(x, x, N, ncclFloat32, ncclSum, rank->comm, k % 2 ? a : b));
        JOB_TRY(ncclAllReduce(x, x, N, ncclFloat32, ncclMax, rank->comm, k % 3 ? a : b));
        JOB_TRY(ncclAllReduce(x, x, N, ncclFloat32, ncclAvg, rank->comm, NULL));
        JOB_EXPECT(holds(x, n), "rank %d, turn %d: %g", rank->rank, k, (double)x[0]);
        fill(x, 1);
    }
    JOB_TRY(railStreamDestroy(b));
    JOB_TRY(railStreamDestroy(a));
}

static void calls_of_one_communicator_keep_their_order_across_streams(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof placements / sizeof placements[0]; k++) job_must(&placements[k], across_streams, NULL);
}

/* A ring of sends on one stream and a sum on another, in one group; both streams wait for all of it. */
static void one_group_two_streams(struct job_rank *rank)
{
    int n = rank->n_ranks, next = (rank->rank + 1) % n, before = (rank->rank + n - 1) % n;
    float mine[N], theirs[N], x[N], y[N];
    cudaStream_t a, b;
    JOB_TRY(railStreamCreate(&a));
    JOB_TRY(railStreamCreate(&b));
    for (int k = 0; k < 10; k++) {
        fill(mine, (float)rank->rank);
        fill(theirs, -1);
        fill(x, 1);
        JOB_TRY(ncclGroupStart());
        JOB_TRY(ncclSend(mine, N, ncclFloat32, next, rank->comm, a));
        JOB_TRY(ncclRecv(theirs, N, ncclFloat32, before, rank->comm, a));
        JOB_TRY(ncclAllReduce(x, y, N, ncclFloat32, ncclSum, rank->comm, b));
        JOB_TRY(ncclGroupEnd());
        JOB_TRY(railStreamSynchronize(k % 2 ? a : b));
        JOB_EXPECT(holds(theirs, (float)before), "rank %d, turn %d: received %g", rank->rank, k, (double)theirs[0]);
        JOB_EXPECT(holds(y, (float)n), "rank %d, turn %d: summed %g", rank->rank, k, (double)y[0]);
    }
    /* with a call that names no stream the group's end waits */
    fill(x, 2);
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclAllReduce(x, x, N, ncclFloat32, ncclSum, rank->comm, b));
    JOB_TRY(ncclAllReduce(x, y, N, ncclFloat32, ncclSum, rank->comm, NULL));
    JOB_TRY(ncclGroupEnd());
    JOB_EXPECT(holds(y, 2.0f * (float)n * (float)n), "rank %d: %g", rank->rank, (double)y[0]);
    JOB_TRY(railStreamDestroy(a));
    JOB_TRY(railStreamDestroy(b));
}

static void a_group_on_several_streams_is_one_piece_of_work(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof placements / sizeof placements[0]; k++)
        job_must(&placements[k], one_group_two_streams, NULL);
}

/* Two communicators over the same ranks, each on a stream of its own, posted in opposite orders by odd and even ranks. */
static void two_communicators(struct job_rank *rank)
{
    ncclComm_t second;
    float x[N], y[N], n = (float)rank->n_ranks;
    cudaStream_t a, b;
    JOB_TRY(ncclCommSplit(rank->comm, 0, rank->rank, &second, NULL));
    JOB_TRY(railStreamCreate(&a));
    JOB_TRY(railStreamCreate(&b));
    fill(x, 1);
    fill(y, 2);
    for (int k = 0; k < 2; k++)
        if ((rank->rank + k) % 2)
            JOB_TRY(ncclAllReduce(x, x, N, ncclFloat32, ncclSum, rank->comm, a));
        else
            JOB_TRY(ncclAllReduce(y, y, N, ncclFloat32, ncclSum, second, b));
    JOB_TRY(railStreamSynchronize(b));
    JOB_TRY(railStreamSynchronize(a));
    JOB_EXPECT(holds(x, n) && holds(y, 2 * n), "rank %d: %g, %g", rank->rank, (double)x[0], (double)y[0]);
    JOB_TRY(railStreamDestroy(a));
    JOB_TRY(ncclAllReduce(y, y, N, ncclFloat32, ncclSum, second, b));
    JOB_TRY(ncclCommDestroy(second)); /* waits for what is on streams */
    JOB_EXPECT(holds(y, 2 * n * n), "rank %d: %g", rank->rank, (double)y[0]);
    JOB_TRY(railStreamDestroy(b));
}

static void streams_of_two_communicators_do_not_wait_for_each_other(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof placements / sizeof placements[0]; k++) job_must(&placements[k], two_communicators, NULL);
}

/* Rank 0 queues what its peer never calls, and aborts: the stream is free again, whatever was queued behind. */
static void aborted(struct job_rank *rank)
{
    float x[N], y[N];
    cudaStream_t s;
    ncclComm_t alone;
    ncclUniqueId id;
    int32_t *flag = rank->arg;
    fill(x, 1);
    fill(y, 3);
    JOB_TRY(ncclAllReduce(x, x, 1, ncclFloat32, ncclMax, rank->comm, NULL)); /* both have joined */
    if (rank->rank == 1) {
        while (!__atomic_load_n(flag, __ATOMIC_ACQUIRE)) usleep(1000);
        JOB_TRY(ncclCommAbort(rank->comm));
        rank->comm = NULL;
        return;
    }
    JOB_TRY(railStreamCreate(&s));
    JOB_TRY(ncclGetUniqueId(&id));
    JOB_TRY(ncclCommInitRank(&alone, 1, id, 0));
    for (int k = 0; k < 3; k++) JOB_TRY(ncclAllReduce(x, x, N, ncclFloat32, ncclSum, rank->comm, s));
    JOB_TRY(ncclAllReduce(y, y, N, ncclFloat32, ncclSum, alone, s));
    JOB_TRY(ncclCommAbort(rank->comm));
    rank->comm = NULL;
    JOB_TRY(railStreamSynchronize(s));
    JOB_EXPECT(holds(x, 1) && holds(y, 3), "%g, %g", (double)x[0], (double)y[0]);
    JOB_TRY(railStreamDestroy(s));
    JOB_TRY(ncclCommDestroy(alone));
    __atomic_store_n(flag, 1, __ATOMIC_RELEASE);
}

static void an_abort_ends_what_is_queued(void **state)
{
    (void)state;
    const struct job threads = {.n_ranks = 2};
    for (int k = 0; k < 20; k++) {
        int32_t flag = 0;
        job_must(&threads, aborted, &flag);
    }
}

/* What goes wrong on a stream is the communicator's: the call that queued it is long gone. */
static void failing(struct job_rank *rank)
{
    float x[N];
    cudaStream_t s;
    ncclResult_t later = ncclSuccess;
    JOB_TRY(railStreamCreate(&s));
    JOB_TRY(ncclAllReduce(x, x, rank->rank ? N : N / 2, ncclFloat32, ncclSum, rank->comm, s));
    JOB_TRY(railStreamSynchronize(s));
    JOB_TRY(ncclCommGetAsyncError(rank->comm, &later));
    JOB_EXPECT(later == ncclInvalidUsage, "asynchronous error %d", (int)later);
    JOB_EXPECT(strstr(ncclGetLastError(NULL), "AllReduce of"), "%s", ncclGetLastError(NULL));
    JOB_EXPECT(ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, rank->comm, s) == ncclSuccess, "queued all the same");
    JOB_TRY(railStreamDestroy(s));
    JOB_TRY(ncclCommAbort(rank->comm));
    rank->comm = NULL;
}

static void a_failure_on_a_stream_is_an_asynchronous_error(void **state)
{
    (void)state;
    const struct job processes = {.n_ranks = 2, .ranks_per_process = 1};
    job_must(&processes, failing, NULL);
}

static void *ended(void *argument)
{
    cudaStream_t s = argument;
    assert_int_equal(railStreamDestroy(s), ncclSuccess);
    return NULL;
}

static void what_is_no_stream_is_named(void **state)
{
    (void)state;
    cudaStream_t s;
    pthread_t thread;
    float x[1] = {0};
    ncclComm_t comm;
    ncclUniqueId id;
    assert_int_equal(railStreamCreate(NULL), ncclInvalidArgument);
    assert_int_equal(railStreamSynchronize(NULL), ncclInvalidArgument);
    assert_non_null(strstr(ncclGetLastError(NULL), "railStreamSynchronize: "));
    assert_int_equal(railStreamCreate(&s), ncclSuccess);
    assert_int_equal(pthread_create(&thread, NULL, ended, s), 0);
    pthread_join(thread, NULL);
    assert_int_equal(railStreamDestroy(s), ncclInvalidArgument);
    assert_int_equal(railStreamQuery(s), ncclInvalidArgument);
    assert_int_equal(ncclGetUniqueId(&id), ncclSuccess);
    assert_int_equal(ncclCommInitRank(&comm, 1, id, 0), ncclSuccess);
    assert_int_equal(ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, comm, s), ncclInvalidArgument);
    assert_non_null(strstr(ncclGetLastError(NULL), "railStreamCreate"));
    assert_int_equal(ncclCommDestroy(comm), ncclSuccess);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_on_a_stream_run_in_order),
        cmocka_unit_test(a_call_returns_before_its_peers_have_come),
        cmocka_unit_test(calls_of_one_communicator_keep_their_order_across_streams),
        cmocka_unit_test(a_group_on_several_streams_is_one_piece_of_work),
        cmocka_unit_test(streams_of_two_communicators_do_not_wait_for_each_other),
        cmocka_unit_test(an_abort_ends_what_is_queued),
        cmocka_unit_test(a_failure_on_a_stream_is_an_asynchronous_error),
        cmocka_unit_test(what_is_no_stream_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
