/* ncclCommAbort from another thread, whatever the rank is waiting in: abort and the call return within 100 ms, the call
 * with an error, and the other ranks hear who it was. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/trouble.h"

/* The promise is 0.1 s on a machine that is not busy; a busy one may take the CPU away for as long again. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ABORT_S 2.0
#else
#define ABORT_S 0.25
#endif

struct wait_case {
    const char *name;
    size_t count;
    bool grouped, two_comms; /* in a group; in a group with a call of another communicator */
    double after_s;          /* the abort comes this long after the call began */
};

static const struct wait_case cases[] = {
    {"small, at once", 2, false, false, 0.0},
    {"small, spinning", 2, false, false, 0.002},
    {"small, asleep", 2, false, false, 0.3},
    {"window, at once", 3000, false, false, 0.0},
    {"window, asleep", 3000, false, false, 0.3},
    {"many rounds, at once", 4000000, false, false, 0.001},
    {"many rounds, asleep", 4000000, false, false, 0.3},
    {"in a group, at once", 2, true, false, 0.001},
    {"in a group, asleep", 3000, true, false, 0.3},
    {"in a group of two communicators", 3000, true, true, 0.3},
};

struct aborter {
    ncclComm_t comm;
    double after_s, took_s, done_s;
    ncclResult_t result;
};

static void *aborts(void *arg)
{
    struct aborter *a = arg;
    trouble_sleep_s(a->after_s);
    double start_s = trouble_now_s();
    a->result = ncclCommAbort(a->comm);
    a->done_s = trouble_now_s();
    a->took_s = a->done_s - start_s;
    return NULL;
}

static ncclResult_t wait_in(const struct wait_case *c, ncclComm_t comm, ncclComm_t other, int n_ranks)
{
    float *more = calloc(c->count, sizeof *more);
    ncclResult_t result;
    if (c->grouped) ncclGroupStart();
    if (c->two_comms) ncclAllReduce(more, more, c->count, ncclFloat32, ncclSum, other, NULL);
    result = c->grouped ? ncclAllReduce(more, more, c->count, ncclFloat32, ncclSum, comm, NULL)
                        : trouble_allreduce(comm, n_ranks, c->count);
    if (c->grouped) result = ncclGroupEnd();
    free(more);
    return result;
}

/* Rank 1 waits for rank 0, which never calls, and is aborted by its other thread. */
static void aborted(struct job_rank *rank, const struct wait_case *c, ncclComm_t comm, ncclComm_t other)
{
    struct aborter a = {.comm = comm, .after_s = c->after_s};
    pthread_t thread;
    pthread_create(&thread, NULL, aborts, &a);
    ncclResult_t result = wait_in(c, comm, other, rank->n_ranks);
    double returned_s = trouble_now_s();
    pthread_join(thread, NULL);
    JOB_EXPECT(a.result == ncclSuccess, "%s: abort: %s", c->name, ncclGetLastError(NULL));
    JOB_EXPECT(a.took_s < ABORT_S, "%s: abort took %.1f ms", c->name, a.took_s * 1e3);
    JOB_EXPECT(returned_s - a.done_s < ABORT_S, "%s: the call returned %.1f ms after the abort", c->name,
               (returned_s - a.done_s) * 1e3);
    JOB_EXPECT(result != ncclSuccess, "%s: the call was successful", c->name);
}

static void hears(struct job_rank *rank, const struct wait_case *c, ncclComm_t comm)
{
    ncclResult_t result = ncclSuccess, async;
    double start_s = trouble_now_s();
    if (rank->rank > 1) result = trouble_allreduce(comm, rank->n_ranks, c->count);
    while (result == ncclSuccess && trouble_now_s() - start_s < 5) {
        usleep(1000);
        JOB_TRY(ncclCommGetAsyncError(comm, &async));
        result = async;
    }
    if (!trouble_says(rank, c->name, result, ncclRemoteError, "rank 1 called ncclCommAbort")) return;
    JOB_EXPECT(trouble_now_s() - start_s < 2, "%s: heard of it after %.1f s", c->name, trouble_now_s() - start_s);
    JOB_TRY(ncclCommAbort(comm));
}

static void all_cases(struct job_rank *rank)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases && !rank->why[0]; i++) {
        ncclComm_t comm, other = NULL;
        JOB_TRY(trouble_second_comm(rank, &comm));
        if (cases[i].two_comms) JOB_TRY(trouble_second_comm(rank, &other));
        JOB_TRY(trouble_allreduce(comm, rank->n_ranks, 3));
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1)); /* a barrier: nobody is still in the call before */
        if (rank->rank == 1)
            aborted(rank, &cases[i], comm, other);
        else
            hears(rank, &cases[i], comm);
        if (other) JOB_TRY(ncclCommAbort(other));
        if (!rank->why[0]) JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
    }
}

static void aborted_on(int n, int ranks_per_process, int n_hosts)
{
    struct job job = {.n_ranks = n, .ranks_per_process = ranks_per_process, .n_hosts = n_hosts, .limit_s = 30};
    job_must(&job, all_cases, NULL);
}

static void two_processes(void **state) { (void)state; aborted_on(2, 1, 1); }
static void four_processes(void **state) { (void)state; aborted_on(4, 1, 1); }
static void three_hosts(void **state) { (void)state; aborted_on(3, 1, 3); }
static void two_hosts_of_two(void **state) { (void)state; aborted_on(4, 1, 2); }

/* ---- at the moment of joining ---- */

static void abort_at_once(struct job_rank *rank)
{
    ncclComm_t comm;
    ncclResult_t result = ncclCommInitRank(&comm, rank->n_ranks, rank->id, rank->rank);
    if (result == ncclSuccess && rank->rank != 1) {
        result = trouble_allreduce(comm, rank->n_ranks, 2);
        JOB_EXPECT(result != ncclSuccess, "an AllReduce without rank 1 was successful");
        trouble_says(rank, "the call", result, ncclRemoteError, "rank 1 called ncclCommAbort");
        JOB_TRY(ncclCommAbort(comm));
    } else if (rank->rank == 1) {
        JOB_TRY(result);
        JOB_TRY(ncclCommAbort(comm));
        trouble_sleep_s(0.2); /* its process must not be taken for dead by those who had not heard it yet */
    } else {
        trouble_says(rank, "joining", result, ncclRemoteError, "rank 1 called ncclCommAbort");
    }
}

static void the_first_thing_after_joining(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        struct job job = {.n_ranks = 12, .ranks_per_process = 1, .n_hosts = i % 3 + 1, .bare = true, .limit_s = 20};
        job_must(&job, abort_at_once, NULL);
    }
}

/* ---- over and over ---- */

static void abort_storm(struct job_rank *rank)
{
    unsigned seed = (unsigned)rank->rank * 7919u;
    for (int i = 0; i < 40 && !rank->why[0]; i++) {
        ncclComm_t comm;
        ncclResult_t result = trouble_second_comm(rank, &comm);
        if (result == ncclRemoteError && strstr(ncclGetLastError(NULL), "called ncclCommAbort")) continue; /* so early */
        JOB_TRY(result);
        struct aborter a = {.comm = comm, .after_s = (double)(rand_r(&seed) % 3000) / 1e6};
        pthread_t thread;
        pthread_create(&thread, NULL, aborts, &a);
        for (int k = 0; result == ncclSuccess; k++) result = trouble_allreduce(comm, rank->n_ranks, k & 3 ? 2 : 20000);
        pthread_join(thread, NULL);
        JOB_EXPECT(a.result == ncclSuccess && a.took_s < ABORT_S, "abort: %d after %.1f ms", a.result, a.took_s * 1e3);
    }
}

static void all_ranks_abort_at_random_moments(void **state)
{
    (void)state;
    for (int hosts = 1; hosts < 3; hosts++) {
        struct job job = {.n_ranks = 3, .ranks_per_process = 1, .n_hosts = hosts, .limit_s = 30};
        job_must(&job, abort_storm, NULL);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_processes),
        cmocka_unit_test(four_processes),
        cmocka_unit_test(three_hosts),
        cmocka_unit_test(two_hosts_of_two),
        cmocka_unit_test(the_first_thing_after_joining),
        cmocka_unit_test(all_ranks_abort_at_random_moments),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
