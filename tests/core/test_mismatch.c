/* Ranks that call different things: every rank returns within seconds, with an error whose text names both calls,
 * whichever paths the two calls take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/trouble.h"

/* What one rank (the odd one) calls while all others call something else. */
struct mismatch {
    const char *name;
    size_t count[2]; /* all others, the odd one */
    int type[2], op[2];
    const char *words;
    bool grouped;
};

static const struct mismatch mismatches[] = {
    {"express, other count", {2, 3}, {7, 7}, {0, 0}, "AllReduce of 2 float32, sum|AllReduce of 3 float32, sum", false},
    {"express, other type", {2, 2}, {7, 2}, {0, 0}, "AllReduce of 2 float32, sum|AllReduce of 2 int32, sum", false},
    {"express, other operator", {2, 2}, {7, 7}, {0, 2}, "of 2 float32, sum|of 2 float32, max", false},
    {"express against a window", {2, 3000}, {7, 7}, {0, 0}, "of 2 float32|of 3000 float32", false},
    {"a window against express", {3000, 2}, {7, 7}, {0, 0}, "of 2 float32|of 3000 float32", false},
    {"express against many rounds", {2, 3000000}, {7, 7}, {0, 0}, "of 2 float32|of 3000000 float32", false},
    {"window, other count", {3000, 3001}, {7, 7}, {0, 0}, "of 3000 float32|of 3001 float32", false},
    {"window, other type", {3000, 3000}, {7, 2}, {0, 0}, "of 3000 float32|of 3000 int32", false},
    {"window, other operator", {3000, 3000}, {7, 7}, {0, 3}, "of 3000 float32, sum|of 3000 float32, min", false},
    {"one-shot against two-shot", {1000, 300000}, {7, 7}, {0, 0}, "of 1000 float32|of 300000 float32", false},
    {"many rounds, other count", {3000000, 2999999}, {7, 7}, {0, 0}, "of 3000000 float32|of 2999999 float32", false},
    {"nothing against express", {2, 0}, {7, 7}, {0, 0}, "of 2 float32|called different things", false},
    {"nothing against a window", {3000, 0}, {7, 7}, {0, 0}, "of 3000 float32|called different things", false},
    {"in groups", {2, 3000}, {7, 7}, {0, 0}, "of 2 float32|of 3000 float32", true},
};

enum { MISMATCHES = sizeof mismatches / sizeof *mismatches };

static void call_it(struct job_rank *rank, const struct mismatch *m, bool odd)
{
    ncclComm_t comm;
    size_t count = m->count[odd];
    float *data = calloc(count + 1, 8);
    ncclResult_t result, async = ncclSuccess;
    double start_s;
    if (trouble_second_comm(rank, &comm) != ncclSuccess) {
        job_fail(rank, "%s: no communicator: %s", m->name, ncclGetLastError(NULL));
        free(data);
        return;
    }
    if (getenv("TROUBLE_SHOW")) fprintf(stderr, "rank %d: %s\n", rank->rank, m->name);
    start_s = trouble_now_s();
    result = trouble_allreduce(comm, rank->n_ranks, 5); /* the first call is one that works */
    if (result == ncclSuccess && m->grouped) result = ncclGroupStart();
    if (result == ncclSuccess)
        result = ncclAllReduce(data, data, count, (ncclDataType_t)m->type[odd], (ncclRedOp_t)m->op[odd], comm, NULL);
    if (result == ncclSuccess && m->grouped) result = ncclGroupEnd();
    if (count == 0 && result == ncclSuccess) result = ncclAllReduce(data, data, 1, ncclInt8, ncclSum, comm, NULL);
    double took_s = trouble_now_s() - start_s;
    if (!trouble_says(rank, m->name, result, ncclInvalidUsage, m->words)) took_s = 0;
    if (took_s > 3) job_fail(rank, "%s: took %.1f s", m->name, took_s);
    if (ncclCommGetAsyncError(comm, &async) != ncclSuccess || async == ncclSuccess)
        job_fail(rank, "%s: the communicator is not broken", m->name);
    if (ncclCommAbort(comm) != ncclSuccess) job_fail(rank, "%s: abort: %s", m->name, ncclGetLastError(NULL));
    free(data);
}

static void all_mismatches(struct job_rank *rank)
{
    for (int i = 0; i < MISMATCHES && !rank->why[0]; i++) {
        call_it(rank, &mismatches[i], rank->rank == i % rank->n_ranks);
        if (!rank->why[0]) JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1)); /* all are out of it */
    }
}

static void ranks_that_call_different_things(int n, int ranks_per_process, int n_hosts)
{
    struct job job = {.n_ranks = n, .ranks_per_process = ranks_per_process, .n_hosts = n_hosts, .limit_s = 12};
    job_must(&job, all_mismatches, NULL);
}

static void two_processes_of_a_host(void **state) { (void)state; ranks_that_call_different_things(2, 1, 1); }
static void five_processes_of_a_host(void **state) { (void)state; ranks_that_call_different_things(5, 1, 1); }
static void three_threads(void **state) { (void)state; ranks_that_call_different_things(3, 3, 1); }
static void two_hosts(void **state) { (void)state; ranks_that_call_different_things(2, 1, 2); }
static void five_hosts(void **state) { (void)state; ranks_that_call_different_things(5, 1, 5); }
static void two_hosts_of_three(void **state) { (void)state; ranks_that_call_different_things(6, 1, 2); }
static void nine_ranks_of_a_host(void **state) { (void)state; ranks_that_call_different_things(9, 3, 1); }

/* ---- whoever it is that errs ---- */

/* Sizes of different algorithms: the two calls use different links, so their data need not meet. */
static const struct mismatch crossed[] = {
    {"2 against 300000", {2, 300000}, {7, 7}, {0, 0}, "of 2 float32|of 300000 float32", false},
    {"300000 against 2", {300000, 2}, {7, 7}, {0, 0}, "of 2 float32|of 300000 float32", false},
    {"20000 against 3000000", {20000, 3000000}, {7, 7}, {0, 0}, "of 20000 float32|of 3000000 float32", false},
    {"3000000 against 2", {3000000, 2}, {7, 7}, {0, 0}, "of 3000000 float32|of 2 float32", false},
};

static void each_rank_errs(struct job_rank *rank)
{
    for (size_t i = 0; i < sizeof crossed / sizeof *crossed; i++)
        for (int odd = 0; odd < rank->n_ranks && !rank->why[0]; odd++) {
            call_it(rank, &crossed[i], rank->rank == odd);
            if (!rank->why[0]) JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
        }
}

static void calls_of_different_algorithms_whoever_errs(void **state)
{
    (void)state;
    static const int placed[][3] = {{3, 1, 3}, {5, 1, 5}, {6, 1, 6}, {7, 1, 7}, {5, 1, 2}, {6, 3, 2}, {7, 1, 3}};
    for (size_t i = 0; i < sizeof placed / sizeof *placed; i++) {
        if (i > 2 && !getenv("RAILCCL_TEST_LONG") && i != 4) continue;
        struct job job = {.n_ranks = placed[i][0], .ranks_per_process = placed[i][1], .n_hosts = placed[i][2],
                          .limit_s = 20};
        job_must(&job, each_rank_errs, NULL);
    }
}

/* ---- one call more than the others ---- */

static void one_call_more(struct job_rank *rank)
{
    ncclComm_t comm;
    size_t count = *(const size_t *)rank->arg;
    JOB_TRY(trouble_second_comm(rank, &comm));
    for (int i = 0; i < 3; i++) JOB_TRY(trouble_allreduce(comm, rank->n_ranks, count));
    if (rank->rank == rank->n_ranks - 1) {
        double start_s = trouble_now_s();
        ncclResult_t result = trouble_allreduce(comm, rank->n_ranks, count);
        JOB_EXPECT(result == ncclInvalidUsage || result == ncclRemoteError, "result %d", result);
        if (!trouble_says(rank, "the call too many", result, result, "closed its|in the same order")) return;
        JOB_EXPECT(trouble_now_s() - start_s < 3, "took %.1f s", trouble_now_s() - start_s);
        JOB_TRY(ncclCommAbort(comm));
    } else {
        JOB_TRY(ncclCommDestroy(comm));
    }
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
}

static void a_call_that_the_others_closed_without(void **state)
{
    (void)state;
    static size_t counts[] = {2, 3000, 3000000};
    for (int hosts = 1; hosts < 4; hosts++)
        for (int i = 0; i < 3; i++) {
            struct job job = {.n_ranks = 3, .ranks_per_process = 1, .n_hosts = hosts, .limit_s = 15};
            job_must(&job, one_call_more, &counts[i]);
        }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_processes_of_a_host),
        cmocka_unit_test(five_processes_of_a_host),
        cmocka_unit_test(three_threads),
        cmocka_unit_test(nine_ranks_of_a_host),
        cmocka_unit_test(two_hosts),
        cmocka_unit_test(five_hosts),
        cmocka_unit_test(two_hosts_of_three),
        cmocka_unit_test(calls_of_different_algorithms_whoever_errs),
        cmocka_unit_test(a_call_that_the_others_closed_without),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
