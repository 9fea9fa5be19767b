/* Bad calls: the result code, a text with the call, the value and the remedy, and a communicator that works on. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/trouble.h"

static float buffer[64], other[64];

#define SAYS(call, want, words)                                                                                        \
    do {                                                                                                               \
        errno = EXDEV;                                                                                                 \
        ncclResult_t says_ = (call);                                                                                   \
        JOB_EXPECT(errno == EXDEV, #call " changed errno to %d", errno);                                               \
        if (!trouble_says(rank, #call, says_, want, words)) return;                                                    \
    } while (0)

/* ---- one AllReduce with one thing wrong ---- */

struct bad_allreduce {
    const char *name;
    const void *in;
    void *out;
    size_t count;
    int type, op;
    void *stream;
    const char *words;
};

static const struct bad_allreduce bad_allreduces[] = {
    {"type -1", buffer, other, 4, -1, ncclSum, NULL, "ncclAllReduce|datatype -1|valid are"},
    {"type 12", buffer, other, 4, 12, ncclSum, NULL, "ncclAllReduce|datatype 12|valid are"},
    {"type huge", buffer, other, 4, INT32_MAX, ncclSum, NULL, "ncclAllReduce|datatype 2147483647"},
    {"op -1", buffer, other, 4, ncclFloat32, -1, NULL, "ncclAllReduce|operator -1|valid are"},
    {"op 5, never created", buffer, other, 4, ncclFloat32, 5, NULL, "ncclAllReduce|operator 5|ncclRedOpCreatePreMulSum"},
    {"op huge", buffer, other, 4, ncclFloat32, INT32_MAX, NULL, "ncclAllReduce|operator 2147483647"},
    {"count too large", buffer, other, SIZE_MAX, ncclFloat32, ncclSum, NULL, "ncclAllReduce|count|18446744073709551615"},
    {"count * 4 wraps", buffer, other, SIZE_MAX / 4 + 2, ncclFloat32, ncclSum, NULL, "ncclAllReduce|count"},
    {"count beyond the signature", buffer, other, (size_t)1 << 62, ncclUint8, ncclSum, NULL, "ncclAllReduce|count"},
    {"sendbuff NULL", NULL, other, 4, ncclFloat32, ncclSum, NULL, "ncclAllReduce|sendbuff is NULL|count 4"},
    {"recvbuff NULL", buffer, NULL, 4, ncclFloat32, ncclSum, NULL, "ncclAllReduce|recvbuff is NULL|count 4"},
    {"overlap up", buffer, buffer + 2, 4, ncclFloat32, ncclSum, NULL, "ncclAllReduce|overlap|in place"},
    {"overlap down", buffer + 3, buffer, 4, ncclFloat32, ncclSum, NULL, "ncclAllReduce|overlap|in place"},
    {"stream", buffer, other, 4, ncclFloat32, ncclSum, buffer, "ncclAllReduce|stream|pass NULL"},
};

static void allreduces_with_one_thing_wrong(struct job_rank *rank)
{
    for (int grouped = 0; grouped < 2; grouped++)
        for (size_t i = 0; i < sizeof bad_allreduces / sizeof *bad_allreduces; i++) {
            const struct bad_allreduce *b = &bad_allreduces[i];
            if (grouped) JOB_TRY(ncclGroupStart());
            errno = EXDEV;
            ncclResult_t result = ncclAllReduce(b->in, b->out, b->count, (ncclDataType_t)b->type, (ncclRedOp_t)b->op,
                                                rank->comm, b->stream);
            JOB_EXPECT(errno == EXDEV, "%s changed errno to %d", b->name, errno);
            if (!trouble_says(rank, b->name, result, ncclInvalidArgument, b->words)) return;
            if (grouped && !trouble_says(rank, "ncclGroupEnd", ncclGroupEnd(), ncclInvalidArgument, b->words)) return;
            ncclResult_t async = ncclInternalError;
            JOB_TRY(ncclCommGetAsyncError(rank->comm, &async));
            JOB_EXPECT(async == ncclSuccess, "%s: the communicator is broken: %d", b->name, async);
            JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, i & 1 ? 3 : 3000));
        }
}

/* As processes: the last error's text is the process's, and threads would read one another's. */
static void everywhere(void (*body)(struct job_rank *))
{
    static const struct job jobs[] = {
        {.n_ranks = 1, .ranks_per_process = 1},
        {.n_ranks = 2, .ranks_per_process = 1},
        {.n_ranks = 2, .ranks_per_process = 1, .n_hosts = 2},
    };
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) job_must(&jobs[i], body, NULL);
}

static void a_bad_argument_is_named_and_the_communicator_works_on(void **state)
{
    (void)state;
    everywhere(allreduces_with_one_thing_wrong);
    struct job threads = {.n_ranks = 2, .ranks_per_process = 2}; /* in step: both say the same */
    job_must(&threads, allreduces_with_one_thing_wrong, NULL);
}

static void nothing_to_do(struct job_rank *rank)
{
    JOB_TRY(ncclAllReduce(NULL, NULL, 0, ncclFloat32, ncclSum, rank->comm, NULL));
    memset(other, 7, sizeof other);
    memset(buffer, 7, sizeof buffer);
    JOB_TRY(ncclAllReduce(buffer, other, 0, ncclInt8, ncclProd, rank->comm, NULL));
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclAllReduce(buffer, other, 0, ncclInt8, ncclProd, rank->comm, NULL));
    JOB_TRY(ncclGroupEnd());
    for (size_t i = 0; i < sizeof other; i++) JOB_EXPECT(((char *)other)[i] == 7, "byte %zu was written", i);
    SAYS(ncclAllReduce(NULL, NULL, 0, (ncclDataType_t)99, ncclSum, rank->comm, NULL), ncclInvalidArgument, "datatype 99");
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 8));
}

static void no_elements_is_success_and_does_nothing(void **state)
{
    (void)state;
    everywhere(nothing_to_do);
}

/* ---- communicators that are none ---- */

static void no_communicators(struct job_rank *rank)
{
    ncclComm_t destroyed, null = NULL, foreign = calloc(1, 1 << 16);
    int number;
    ncclResult_t async;
    JOB_TRY(trouble_second_comm(rank, &destroyed));
    JOB_TRY(ncclCommDestroy(destroyed));
    struct { ncclComm_t comm; const char *words; } none[] = {
        {null, "NULL"}, {foreign, "not a living communicator"}, {destroyed, "not a living communicator|destroyed"}};
    for (size_t i = 0; i < 3; i++) {
        ncclComm_t c = none[i].comm;
        ncclRedOp_t op;
        float two = 2;
        SAYS(ncclAllReduce(buffer, other, 1, ncclFloat32, ncclSum, c, NULL), ncclInvalidArgument, "ncclAllReduce");
        SAYS(ncclCommCount(c, &number), ncclInvalidArgument, "ncclCommCount");
        SAYS(ncclCommUserRank(c, &number), ncclInvalidArgument, "ncclCommUserRank");
        SAYS(ncclCommCuDevice(c, &number), ncclInvalidArgument, "ncclCommCuDevice");
        SAYS(ncclCommFinalize(c), ncclInvalidArgument, "ncclCommFinalize");
        SAYS(ncclCommGetAsyncError(c, &async), ncclInvalidArgument, "ncclCommGetAsyncError");
        SAYS(ncclRedOpCreatePreMulSum(&op, &two, ncclFloat32, ncclScalarHostImmediate, c), ncclInvalidArgument,
             "ncclRedOpCreatePreMulSum");
        SAYS(ncclRedOpDestroy(ncclSum, c), ncclInvalidArgument, "ncclRedOpDestroy");
        if (!trouble_says(rank, "the text", ncclInvalidArgument, ncclInvalidArgument, none[i].words)) return;
        if (i == 0) continue; /* NULL: nothing to do, as in NCCL */
        SAYS(ncclCommDestroy(c), ncclInvalidArgument, "ncclCommDestroy|not a living communicator");
        SAYS(ncclCommAbort(c), ncclInvalidArgument, "ncclCommAbort|not a living communicator");
    }
    JOB_TRY(ncclCommDestroy(NULL));
    JOB_TRY(ncclCommAbort(NULL));
    SAYS(ncclCommCount(rank->comm, NULL), ncclInvalidArgument, "ncclCommCount|pointer");
    SAYS(ncclCommGetAsyncError(rank->comm, NULL), ncclInvalidArgument, "ncclCommGetAsyncError|NULL");
    free(foreign);
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 8));
}

static void null_destroyed_and_foreign_communicators_are_told_apart_from_living_ones(void **state)
{
    (void)state;
    struct job jobs[] = {{.n_ranks = 1, .ranks_per_process = 1}, {.n_ranks = 2, .ranks_per_process = 1}};
    job_must(&jobs[0], no_communicators, NULL);
    job_must(&jobs[1], no_communicators, NULL);
}

/* ---- operators ---- */

static void operators(struct job_rank *rank)
{
    ncclRedOp_t op, gone;
    float two = 2;
    JOB_TRY(ncclRedOpCreatePreMulSum(&op, &two, ncclFloat32, ncclScalarHostImmediate, rank->comm));
    JOB_TRY(ncclRedOpCreatePreMulSum(&gone, &two, ncclFloat32, ncclScalarHostImmediate, rank->comm));
    JOB_TRY(ncclRedOpDestroy(gone, rank->comm));
    SAYS(ncclAllReduce(buffer, other, 1, ncclFloat32, gone, rank->comm, NULL), ncclInvalidArgument,
         "ncclAllReduce|operator|destroyed");
    SAYS(ncclRedOpDestroy(gone, rank->comm), ncclInvalidArgument, "ncclRedOpDestroy|destroyed before");
    SAYS(ncclRedOpDestroy(ncclSum, rank->comm), ncclInvalidArgument, "ncclRedOpDestroy|operator 0");
    SAYS(ncclAllReduce(buffer, other, 1, ncclInt32, op, rank->comm, NULL), ncclInvalidArgument,
         "ncclAllReduce|created for datatype 7|used with 2");
    SAYS(ncclRedOpCreatePreMulSum(NULL, &two, ncclFloat32, ncclScalarHostImmediate, rank->comm), ncclInvalidArgument,
         "ncclRedOpCreatePreMulSum|op is NULL");
    SAYS(ncclRedOpCreatePreMulSum(&gone, NULL, ncclFloat32, ncclScalarHostImmediate, rank->comm), ncclInvalidArgument,
         "ncclRedOpCreatePreMulSum|scalar is NULL");
    SAYS(ncclRedOpCreatePreMulSum(&gone, &two, (ncclDataType_t)44, ncclScalarHostImmediate, rank->comm),
         ncclInvalidArgument, "ncclRedOpCreatePreMulSum|datatype 44");
    SAYS(ncclRedOpCreatePreMulSum(&gone, &two, ncclFloat32, (ncclScalarResidence_t)9, rank->comm), ncclInvalidArgument,
         "ncclRedOpCreatePreMulSum|residence 9");
    JOB_TRY(ncclRedOpDestroy(op, rank->comm));
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 8));
}

static void operators_destroyed_foreign_or_of_another_type(void **state)
{
    (void)state;
    struct job job = {.n_ranks = 2, .ranks_per_process = 1};
    job_must(&job, operators, NULL);
}

/* ---- groups ---- */

static void one_bad_call_in_a_group(struct job_rank *rank)
{
    float in[3] = {1, 1, 1}, out[3] = {0, 0, 0};
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclAllReduce(in, out, 3, ncclFloat32, ncclSum, rank->comm, NULL));
    SAYS(ncclAllReduce(in, NULL, 3, ncclFloat32, ncclSum, rank->comm, NULL), ncclInvalidArgument, "recvbuff");
    SAYS(ncclAllReduce(in, out, 3, (ncclDataType_t)77, ncclSum, rank->comm, NULL), ncclInvalidArgument, "datatype 77");
    SAYS(ncclGroupEnd(), ncclInvalidArgument, "recvbuff is NULL|none of the group's calls was started"); /* the first */
    JOB_EXPECT(out[0] == 0 && out[2] == 0, "a call of the refused group ran");
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclAllReduce(in, out, 3, ncclFloat32, ncclSum, rank->comm, NULL));
    JOB_TRY(ncclGroupEnd());
    JOB_EXPECT(out[0] == (float)rank->n_ranks, "the next group does not work: %g", (double)out[0]);
    SAYS(ncclGroupEnd(), ncclInvalidUsage, "ncclGroupEnd|ncclGroupStart");
    SAYS(ncclGroupEnd(), ncclInvalidUsage, "ncclGroupEnd|ncclGroupStart");
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 8));
}

static void a_bad_call_refuses_its_group_as_a_whole(void **state)
{
    (void)state;
    everywhere(one_bad_call_in_a_group);
}

static void *leaves_a_group_open(void *arg)
{
    struct job_rank *rank = arg;
    float in[3] = {1, 1, 1};
    ncclGroupStart();
    ncclGroupStart();
    ncclAllReduce(in, in, 3, ncclFloat32, ncclSum, rank->comm, NULL);
    return NULL;
}

static void thread_that_leaves_a_group_open(struct job_rank *rank)
{
    pthread_t thread;
    pthread_create(&thread, NULL, leaves_a_group_open, rank);
    pthread_join(thread, NULL); /* what it queued is forgotten: the leak checker would say so if not */
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 8));
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclGroupEnd());
}

static void a_group_left_open_at_the_end_of_its_thread_is_forgotten(void **state)
{
    (void)state;
    struct job job = {.n_ranks = 2, .ranks_per_process = 1};
    job_must(&job, thread_that_leaves_a_group_open, NULL);
}

static void destroyed_inside_a_group(struct job_rank *rank)
{
    ncclComm_t second;
    float in[3] = {1, 1, 1};
    JOB_TRY(trouble_second_comm(rank, &second));
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclAllReduce(in, in, 3, ncclFloat32, ncclSum, second, NULL));
    JOB_TRY(ncclCommDestroy(second));
    SAYS(ncclGroupEnd(), ncclInvalidArgument, "ncclGroupEnd|not a living communicator");
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 8));
}

static void a_communicator_destroyed_inside_the_group_that_uses_it(void **state)
{
    (void)state;
    struct job job = {.n_ranks = 2, .ranks_per_process = 1};
    job_must(&job, destroyed_inside_a_group, NULL);
}

/* ---- after finalize ---- */

static void after_finalize(struct job_rank *rank)
{
    ncclComm_t second;
    float in[3] = {1, 1, 1};
    JOB_TRY(trouble_second_comm(rank, &second));
    JOB_TRY(trouble_allreduce(second, rank->n_ranks, 1000));
    JOB_TRY(ncclCommFinalize(second));
    SAYS(ncclAllReduce(in, in, 3, ncclFloat32, ncclSum, second, NULL), ncclInvalidUsage, "ncclAllReduce|finalized");
    SAYS(ncclCommFinalize(second), ncclInvalidUsage, "ncclCommFinalize|finalized before");
    JOB_TRY(ncclCommDestroy(second));
}

static void calls_after_finalize_are_refused(void **state)
{
    (void)state;
    everywhere(after_finalize);
}

/* ---- joining wrongly ---- */

static void joining_wrongly(struct job_rank *rank)
{
    ncclComm_t comm = (ncclComm_t)(uintptr_t)1;
    ncclUniqueId zeros = {{0}}, noise;
    memset(&noise, 0x5a, sizeof noise);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    SAYS(ncclCommInitRank(NULL, 1, rank->id, 0), ncclInvalidArgument, "ncclCommInitRank|comm is NULL");
    SAYS(ncclCommInitRank(&comm, 0, rank->id, 0), ncclInvalidArgument, "ncclCommInitRank|nranks 0|1 or more");
    SAYS(ncclCommInitRank(&comm, -1, rank->id, 0), ncclInvalidArgument, "ncclCommInitRank|nranks -1");
    SAYS(ncclCommInitRank(&comm, 2, rank->id, 2), ncclInvalidArgument, "ncclCommInitRank|rank 2|0 to 1");
    SAYS(ncclCommInitRank(&comm, 2, rank->id, -1), ncclInvalidArgument, "ncclCommInitRank|rank -1");
    SAYS(ncclCommInitRank(&comm, 1, zeros, 0), ncclInvalidArgument, "id");
    SAYS(ncclCommInitRank(&comm, 1, noise, 0), ncclInvalidArgument, "id");
    config.magic = 1;
    SAYS(ncclCommInitRankConfig(&comm, 1, rank->id, 0, &config), ncclInvalidArgument,
         "ncclCommInitRankConfig|config->magic|NCCL_CONFIG_INITIALIZER");
    config = (ncclConfig_t)NCCL_CONFIG_INITIALIZER;
    config.minCTAs = -4;
    SAYS(ncclCommInitRankConfig(&comm, 1, rank->id, 0, &config), ncclInvalidArgument, "minCTAs|-4");
    SAYS(ncclCommInitAll(NULL, 1, NULL), ncclInvalidArgument, "ncclCommInitAll|NULL");
    SAYS(ncclCommInitAll(&comm, 0, NULL), ncclInvalidArgument, "ncclCommInitAll|ndev 0");
    SAYS(ncclGetUniqueId(NULL), ncclInvalidArgument, "ncclGetUniqueId|NULL");
    JOB_TRY(ncclGroupStart());
    SAYS(ncclCommInitRank(&comm, 2, rank->id, 7), ncclInvalidArgument, "rank 7");
    SAYS(ncclGroupEnd(), ncclInvalidArgument, "rank 7");
    JOB_EXPECT(comm == NULL || comm == (ncclComm_t)(uintptr_t)1, "a failed call left %p", (void *)comm);
    JOB_TRY(ncclCommInitRank(&comm, 1, rank->id, 0)); /* the id is still good */
    JOB_TRY(trouble_allreduce(comm, 1, 8));
    JOB_TRY(ncclCommDestroy(comm));
}

static void arguments_of_joining(void **state)
{
    (void)state;
    struct job job = {.n_ranks = 1, .ranks_per_process = 1, .bare = true};
    job_must(&job, joining_wrongly, NULL);
}

/* Whoever comes after the root has ended over the other two learns only that it is gone. */
static void expect_refusal(struct job_rank *rank, int n_ranks, int number, const char *words)
{
    ncclComm_t comm;
    double start_s = trouble_now_s();
    ncclResult_t result = ncclCommInitRank(&comm, n_ranks, rank->id, number);
    if (result == ncclRemoteError && strstr(ncclGetLastError(NULL), "has its id been used already")) return;
    if (!trouble_says(rank, "ncclCommInitRank", result, ncclInvalidUsage, words)) return;
    JOB_EXPECT(trouble_now_s() - start_s < 5, "took %.1f s", trouble_now_s() - start_s);
}

static void rank_1_twice(struct job_rank *rank)
{
    expect_refusal(rank, 3, rank->rank > 0 ? 1 : 0, "two processes say they are rank 1");
}

static void other_n_ranks(struct job_rank *rank)
{
    expect_refusal(rank, rank->rank == 1 ? 4 : 3, rank->rank, "says there are|ranks, rank|says");
}

static void two_ranks_of_one_number_and_different_numbers_of_ranks(void **state)
{
    (void)state;
    struct job job = {.n_ranks = 3, .ranks_per_process = 1, .bare = true, .limit_s = 20};
    job_must(&job, rank_1_twice, NULL);
    job_must(&job, other_n_ranks, NULL);
}

/* ---- arguments of the other collectives ---- */

static void expect_refused(struct job_rank *rank, ncclResult_t got, const char *names)
{
    JOB_EXPECT(got == ncclInvalidArgument && strstr(ncclGetLastError(NULL), names), "%d, %s (expected: %s)", (int)got,
               ncclGetLastError(NULL), names);
}

static void wrong_arguments(struct job_rank *rank)
{
    static _Thread_local int in[64], out[64];
    ncclComm_t comm = rank->comm;
    expect_refused(rank, ncclBroadcast(in, out, 4, ncclInt, 2, comm, NULL), "ncclBroadcast: root 2");
    expect_refused(rank, ncclBcast(in, 4, ncclInt, -1, comm, NULL), "ncclBcast: root -1");
    expect_refused(rank, ncclReduce(in, out, 4, ncclInt, (ncclRedOp_t)77, 0, comm, NULL), "ncclReduce: operator 77");
    expect_refused(rank, ncclReduceScatter(in, out, 4, (ncclDataType_t)99, ncclSum, comm, NULL), "ncclReduceScatter: datatype 99");
    expect_refused(rank, ncclAllGather(NULL, out, 4, ncclInt, comm, NULL), "ncclAllGather: sendbuff is NULL");
    expect_refused(rank, ncclAllGather(in, NULL, 4, ncclInt, comm, NULL), "ncclAllGather: recvbuff is NULL");
    expect_refused(rank, ncclAllGather(out + 1, out, 4, ncclInt, comm, NULL), "recvbuff + rank * count");
    expect_refused(rank, ncclReduceScatter(in, in + 5, 4, ncclInt, ncclSum, comm, NULL), "sendbuff + rank * count");
    expect_refused(rank, ncclGather(in, out, SIZE_MAX / 6, ncclInt, 0, comm, NULL), "ncclGather: count");
    expect_refused(rank, ncclScatter(in, out, 4, ncclInt, 0, NULL, NULL), "ncclScatter: the communicator is NULL");
    expect_refused(rank, ncclAlltoAll(in, in, 4, ncclInt, comm, NULL), "ncclAlltoAll: sendbuff");
    expect_refused(rank, ncclAlltoAll(in, in, 4, ncclInt, comm, NULL), "does not work in place; pass separate buffers");
    expect_refused(rank, ncclAlltoAll(in, in + 7, 4, ncclInt, comm, NULL), "overlap");
    expect_refused(rank, ncclAlltoAll(in, out, 4, (ncclDataType_t)-3, comm, NULL), "ncclAlltoAll: datatype -3");
    expect_refused(rank, ncclAlltoAll(NULL, out, 4, ncclInt, comm, NULL), "ncclAlltoAll: sendbuff is NULL");
    if (rank->rank == 0) expect_refused(rank, ncclReduce(in, NULL, 4, ncclInt, ncclSum, 0, comm, NULL), "recvbuff is NULL");
    if (rank->rank == 1) expect_refused(rank, ncclBroadcast(NULL, out, 4, ncclInt, 1, comm, NULL), "sendbuff is NULL");
    /* and the communicator still works */
    JOB_TRY(ncclAllGather(NULL, NULL, 0, ncclInt, comm, NULL));
    in[0] = rank->rank + 1;
    JOB_TRY(ncclAllGather(in, out, 1, ncclInt, comm, NULL));
    JOB_EXPECT(out[0] == 1 && out[1] == 2, "gathered %d, %d", out[0], out[1]);
}

static void wrong_arguments_of_other_collectives_are_named_and_harmless(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1}, wrong_arguments, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_argument_is_named_and_the_communicator_works_on),
        cmocka_unit_test(no_elements_is_success_and_does_nothing),
        cmocka_unit_test(null_destroyed_and_foreign_communicators_are_told_apart_from_living_ones),
        cmocka_unit_test(operators_destroyed_foreign_or_of_another_type),
        cmocka_unit_test(a_bad_call_refuses_its_group_as_a_whole),
        cmocka_unit_test(a_group_left_open_at_the_end_of_its_thread_is_forgotten),
        cmocka_unit_test(a_communicator_destroyed_inside_the_group_that_uses_it),
        cmocka_unit_test(calls_after_finalize_are_refused),
        cmocka_unit_test(arguments_of_joining),
        cmocka_unit_test(wrong_arguments_of_other_collectives_are_named_and_harmless),
        cmocka_unit_test(two_ranks_of_one_number_and_different_numbers_of_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
