/* Ranks that call different things: every rank hears of it within a second or so, in words that name both calls, whatever
 * differs (collective, count, type, operator, root, order, one call too many), whichever paths the two calls take, whoever
 * differs, and wherever the ranks are.
 *
 * One table of mismatches, one of placements; a normal run draws cells by a printed seed (RAILCCL_TEST_SEED repeats it),
 * RAILCCL_TEST_LONG=1 runs all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <cmocka.h>

#include "conformance/operations.h"
#include "support/trouble.h"

/* What some ranks (the odd ones, second) call while all others call something else. NULL: ncclAllReduce. */
struct mismatch {
    const char *name;
    const char *call[2];
    size_t count[2];
    int type[2], op[2], root[2];
    const char *words;
    bool grouped;
};

#define F32 {ncclFloat32, ncclFloat32}
static const struct mismatch mismatches[] = {
    {"express, other count", .count = {2, 3}, .type = F32, .words = "AllReduce of 2 float32, sum|AllReduce of 3 float32, sum"},
    {"express, other type", .count = {2, 2}, .type = {7, 2}, .words = "AllReduce of 2 float32, sum|AllReduce of 2 int32, sum"},
    {"express, other operator", .count = {2, 2}, .type = F32, .op = {0, 2}, .words = "of 2 float32, sum|of 2 float32, max"},
    {"express against a window", .count = {2, 3000}, .type = F32, .words = "of 2 float32|of 3000 float32"},
    {"a window against express", .count = {3000, 2}, .type = F32, .words = "of 2 float32|of 3000 float32"},
    {"express against many rounds", .count = {2, 3000000}, .type = F32, .words = "of 2 float32|of 3000000 float32"},
    {"window, other count", .count = {3000, 3001}, .type = F32, .words = "of 3000 float32|of 3001 float32"},
    {"window, other type", .count = {3000, 3000}, .type = {7, 2}, .words = "of 3000 float32|of 3000 int32"},
    {"window, other operator", .count = {3000, 3000}, .type = F32, .op = {0, 3}, .words = "of 3000 float32, sum|of 3000 float32, min"},
    {"one-shot against two-shot", .count = {1000, 300000}, .type = F32, .words = "of 1000 float32|of 300000 float32"},
    {"doubling against ring", .count = {20000, 3000000}, .type = F32, .words = "of 20000 float32|of 3000000 float32"},
    {"many rounds, other count", .count = {3000000, 2999999}, .type = F32, .words = "of 3000000 float32|of 2999999 float32"},
    {"nothing against express", .count = {2, 0}, .type = F32, .words = "of 2 float32|called different things"},
    {"nothing against a window", .count = {3000, 0}, .type = F32, .words = "of 3000 float32|called different things"},
    {"in groups", .count = {2, 3000}, .type = F32, .words = "of 2 float32|of 3000 float32", .grouped = true},
    {"in groups, large", .count = {3000, 3000000}, .type = F32, .words = "of 3000 float32|of 3000000 float32", .grouped = true},
    {"AllGather against ReduceScatter", {"ncclAllGather", "ncclReduceScatter"}, {100, 100}, {2, 2}, .words = "AllGather of 100|ReduceScatter of 100"},
    {"AllGather, other count", {"ncclAllGather", "ncclAllGather"}, {100, 101}, {2, 2}, .words = "AllGather of 100|AllGather of 101"},
    {"ReduceScatter, other operator", {"ncclReduceScatter", "ncclReduceScatter"}, {5000, 5000}, F32, {0, 3}, .words = "of 5000 float32, sum|of 5000 float32, min"},
    {"Reduce against AllReduce", {"ncclReduce", "ncclAllReduce"}, {50, 50}, F32, .words = "Reduce of 50|AllReduce of 50"},
    {"Reduce, other count", {"ncclReduce", "ncclReduce"}, {70000, 70001}, F32, .words = "Reduce of 70000|Reduce of 70001"},
    {"Reduce, other root", {"ncclReduce", "ncclReduce"}, {3000, 3000}, F32, .root = {0, 1}, .words = "root 0|root 1"},
    {"Broadcast, other root", {"ncclBroadcast", "ncclBroadcast"}, {10, 10}, {0, 0}, .root = {1, 0}, .words = "root 0|root 1"},
    {"Broadcast, other type", {"ncclBroadcast", "ncclBroadcast"}, {100000, 100000}, {0, 1}, .words = "100000 int8|100000 uint8"},
    {"Scatter, other root", {"ncclScatter", "ncclScatter"}, {3000, 3000}, F32, .root = {0, 1}, .words = "root 0|root 1"},
    {"Gather against Scatter", {"ncclGather", "ncclScatter"}, {30, 30}, F32, .words = "Gather of 30|Scatter of 30"},
    {"AlltoAll, other count", {"ncclAlltoAll", "ncclAlltoAll"}, {100, 101}, F32, .words = "AlltoAll of 100|AlltoAll of 101"},
    {"AlltoAll against AllGather", {"ncclAlltoAll", "ncclAllGather"}, {5, 5}, {0, 0}, .words = "AlltoAll of 5|AllGather of 5"},
};
enum { MISMATCHES = sizeof mismatches / sizeof *mismatches };

/* Who is odd. */
enum odd { FIRST, SECOND, LAST, FIRST_HALF, EVERY_OTHER, ODDS };
static bool is_odd(enum odd odd, int rank, int n)
{
    switch (odd) {
    case FIRST: return rank == 0;
    case SECOND: return rank == 1;
    case LAST: return rank == n - 1;
    case FIRST_HALF: return rank < n / 2;
    default: return rank % 2;
    }
}

/* A second is promised; a crowded machine may take longer. */
static double limit_s(void) { return getenv("RAILCCL_TEST_STRICT") ? 1 : 4; }

static ncclResult_t make(const char *name, const struct hand *h)
{
    for (int k = 0; k < N_OPERATIONS; k++)
        if (strcmp(operations[k].name, name) == 0) return operations[k].make(h);
    return ncclInvalidArgument;
}

/* Whoever only gives is through at once, and is told although it waits for nothing. Two roots of one call may both be through,
 * and nobody else be there: the next call tells them. */
static ncclResult_t call_and_be_told(const struct mismatch *m, const struct hand *h, bool odd)
{
    double until_s = trouble_now_s() + limit_s() / 2;
    ncclResult_t result = m->grouped ? ncclGroupStart() : ncclSuccess;
    if (result == ncclSuccess) result = make(m->call[odd] ? m->call[odd] : "ncclAllReduce", h);
    if (result == ncclSuccess && m->grouped) result = ncclGroupEnd();
    while (result == ncclSuccess && trouble_now_s() < until_s) {
        trouble_sleep_s(0.005);
        if (ncclCommGetAsyncError(h->comm, &result) != ncclSuccess) return ncclInternalError;
    }
    return result == ncclSuccess ? trouble_allreduce(h->comm, h->n_ranks, 5) : result;
}

static void call_it(struct job_rank *rank, const struct mismatch *m, bool odd)
{
    ncclComm_t comm;
    size_t count = m->count[odd], bytes = (count * (size_t)rank->n_ranks + 1) * 8;
    ncclResult_t async = ncclSuccess;
    if (trouble_second_comm(rank, &comm) != ncclSuccess) {
        job_fail(rank, "%s: no communicator: %s", m->name, ncclGetLastError(NULL));
        return;
    }
    struct hand h = {.in = calloc(1, bytes), .out = calloc(1, bytes), .count = count, .type = (ncclDataType_t)m->type[odd],
                     .op = (ncclRedOp_t)m->op[odd], .root = m->root[odd], .rank = rank->rank, .n_ranks = rank->n_ranks, .comm = comm};
    if (getenv("TROUBLE_SHOW")) fprintf(stderr, "rank %d: %s\n", rank->rank, m->name);
    ncclResult_t result = trouble_allreduce(comm, rank->n_ranks, 5); /* the first call is one that works */
    double start_s = trouble_now_s();
    if (result == ncclSuccess) result = call_and_be_told(m, &h, odd);
    double took_s = trouble_now_s() - start_s;
    if (trouble_says(rank, m->name, result, ncclInvalidUsage, m->words) && took_s > limit_s())
        job_fail(rank, "%s: took %.1f s", m->name, took_s);
    if (ncclCommGetAsyncError(comm, &async) != ncclSuccess || async == ncclSuccess)
        job_fail(rank, "%s: the communicator is not broken", m->name);
    if (ncclCommAbort(comm) != ncclSuccess) job_fail(rank, "%s: abort: %s", m->name, ncclGetLastError(NULL));
    free((void *)(uintptr_t)h.in);
    free(h.out);
}

/* ---- cells ---- */

struct cells {
    unsigned seed;
    int drawn; /* 0: all */
};

static unsigned next(unsigned *seed) { return (*seed = *seed * 1664525u + 1013904223u) >> 8; }

static void one_cell(struct job_rank *rank, int mismatch, enum odd odd)
{
    call_it(rank, &mismatches[mismatch], is_odd(odd, rank->rank, rank->n_ranks));
    if (rank->why[0]) job_fail(rank, "odd %d", (int)odd);
    else JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1)); /* all are out of it */
}

static void some_cells(struct job_rank *rank)
{
    const struct cells *c = rank->arg;
    unsigned seed = c->seed;
    for (int k = 0; k < c->drawn && !rank->why[0]; k++) {
        int mismatch = (int)(next(&seed) % MISMATCHES);
        one_cell(rank, mismatch, (enum odd)(next(&seed) % ODDS));
    }
    for (int k = 0; !c->drawn && k < MISMATCHES * ODDS && !rank->why[0]; k++) one_cell(rank, k / ODDS, (enum odd)(k % ODDS));
}

static unsigned test_seed(void)
{
    static unsigned seed;
    if (seed) return seed;
    seed = getenv("RAILCCL_TEST_SEED") ? (unsigned)atoi(getenv("RAILCCL_TEST_SEED")) : (unsigned)time(NULL);
    print_message("seed %u (RAILCCL_TEST_SEED)\n", seed);
    return seed;
}

static void ranks_that_call_different_things(int ranks_per_process, int n_hosts)
{
    static const int sizes[] = {2, 3, 5, 8};
    for (int i = 0; i < 4; i++) {
        struct cells c = {test_seed() + (unsigned)(100 * i + 10 * n_hosts + ranks_per_process), getenv("RAILCCL_TEST_LONG") ? 0 : 6};
        struct job job = {.n_ranks = sizes[i], .ranks_per_process = ranks_per_process ? ranks_per_process : sizes[i],
                          .n_hosts = n_hosts, .limit_s = c.drawn ? 40 : 600};
        job_must(&job, some_cells, &c);
    }
}

static void processes_of_a_host(void **state) { (void)state; ranks_that_call_different_things(1, 1); }
static void threads(void **state) { (void)state; ranks_that_call_different_things(0, 1); }
static void processes_of_three_threads(void **state) { (void)state; ranks_that_call_different_things(3, 1); }
static void every_rank_a_host(void **state) { (void)state; ranks_that_call_different_things(1, 8); }
static void two_hosts(void **state) { (void)state; ranks_that_call_different_things(1, 2); }

/* ---- who is told goes home ---- */

/* Threads use one another's buffers by address. Whoever fails unmaps its own at once, while others may be at them. */
static void gone_at_once(struct job_rank *rank)
{
    enum { COUNT = 60000 };
    size_t bytes = COUNT * (size_t)rank->n_ranks;
    for (int k = 0; k < 60 && !rank->why[0]; k++) {
        ncclComm_t comm;
        JOB_TRY(trouble_second_comm(rank, &comm));
        JOB_TRY(trouble_allreduce(comm, rank->n_ranks, 5)); /* all are there */
        char *in = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        char *out = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(in, rank->rank, bytes);
        memset(out, rank->rank, bytes);
        bool odd = rank->rank == k % rank->n_ranks;
        ncclResult_t result = k % 2 ? ncclAllGather(in, out, COUNT - odd, ncclInt8, comm, NULL)
                                    : ncclAlltoAll(in, out, COUNT - odd, ncclInt8, comm, NULL);
        munmap(in, bytes);
        munmap(out, bytes);
        if (!trouble_says(rank, "gone at once", result, ncclInvalidUsage, "called different things")) return;
        JOB_TRY(ncclCommAbort(comm));
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
    }
}

static void threads_that_are_told_take_their_buffers_home(void **state)
{
    (void)state;
    struct job job = {.n_ranks = 5, .ranks_per_process = 5, .limit_s = 60};
    job_must(&job, gone_at_once, NULL);
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
        cmocka_unit_test(processes_of_a_host),
        cmocka_unit_test(threads),
        cmocka_unit_test(processes_of_three_threads),
        cmocka_unit_test(every_rank_a_host),
        cmocka_unit_test(two_hosts),
        cmocka_unit_test(threads_that_are_told_take_their_buffers_home),
        cmocka_unit_test(a_call_that_the_others_closed_without),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
