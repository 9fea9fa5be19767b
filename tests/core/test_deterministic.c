/* RAILCCL_DETERMINISTIC: AllReduce, Reduce and ReduceScatter give the bits of the balanced tree over rank numbers, for every
 * placement: threads, processes, hosts even and uneven, ranks dealt to hosts in turn, whatever the size, the number of
 * channels, the algorithm forced, the path of arithmetic, in place or not, again and again.
 *
 * Inputs are arbitrary finite numbers with very different magnitudes, so that any other order or rounding shows. The oracle
 * walks the tree two at a time in its own arithmetic (device/host_oracle.h). Without the variable the same inputs must
 * show a difference somewhere: else this test could not fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/params.h"
#include "device/host_oracle.h"
#include "plan/collective.h"
#include "support/job.h"

enum { AVG = 4, PREMUL = 5, OPERATORS = 6, GUARD = 64, POISON = 0xa5 };

struct call {
    enum plan_collective collective;
    int type, op, root;
    bool in_place;
    size_t count;
    unsigned salt;
};

/* ---- inputs and the oracle ---- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 31) * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9u;
    return x ^ x >> 32;
}

/* Floats of either sign from 2^-6 to 2^6, wide enough to lose digits in every type; integers of any bits. */
static uint64_t input_of(const struct call *c, int rank, size_t k)
{
    uint64_t h = mix(mix(k * 64 + (uint64_t)rank) + c->salt);
    if (!oracle_is_float((enum rail_type)c->type)) return h;
    double v = ldexp(1 + (double)(h >> 12) * 0x1p-52, (int)(h % 13) - 6) * (h >> 4 & 1 ? -1 : 1);
    return oracle_bits((enum rail_type)c->type, c->type == ncclFloat64 ? v : (float)v);
}

static struct rail_combine how_of(const struct call *c, int n)
{
    enum rail_type type = (enum rail_type)c->type;
    struct rail_combine how = {.type = type, .op = c->op < AVG ? (enum rail_op)c->op : RAIL_SUM};
    bool is_float = oracle_is_float(type);
    if (c->op == AVG && !is_float) how.divide = (uint64_t)n;
    how.scaled = c->op == PREMUL || (c->op == AVG && is_float);
    if (c->op == AVG) how.scale = rail_reciprocal_bits(type, (uint64_t)n);
    if (c->op == PREMUL) how.scale = is_float ? oracle_bits(type, 0.6875) : 3;
    return how;
}

static uint64_t tree(const struct call *c, const struct rail_combine *how, size_t k, int first, int n, bool finish)
{
    if (n == 1) {
        uint64_t bits = input_of(c, first, k);
        return how->scaled ? oracle_scaled(how->type, bits, how->scale) : bits;
    }
    int left = 1;
    while (left * 2 < n) left *= 2;
    uint64_t pair[2] = {tree(c, how, k, first, left, false), tree(c, how, k, first + left, n - left, false)};
    return oracle_combine(how, pair, 2, 0, finish);
}

/* ---- one call ---- */

struct table {
    int n_calls;
    bool must_differ; /* not deterministic: some element must be another */
    struct call calls[160];
};

static _Thread_local long differences;

static void check(struct job_rank *rank, const struct table *t, const struct call *c, const unsigned char *out)
{
    struct rail_combine how = how_of(c, rank->n_ranks);
    size_t element = rail_type_bytes(how.type);
    size_t first = c->collective == PLAN_REDUCESCATTER ? (size_t)rank->rank * c->count : 0;
    for (size_t k = 0; k < c->count; k++) {
        if (c->count > 5000 && k % 97 && k + 70 < c->count) continue; /* the tail, and a sample */
        uint64_t want = tree(c, &how, first + k, 0, rank->n_ranks, true);
        bool same = memcmp(&want, out + k * element, element) == 0;
        differences += !same;
        JOB_EXPECT(same || t->must_differ, "%s type %d op %d root %d count %zu%s: element %zu is %#llx, the rank tree's is %#llx",
                   collective_name(c->collective), c->type, c->op, c->root, c->count, c->in_place ? " in place" : "", k,
                   (unsigned long long)oracle_bits_of(out + k * element, element), (unsigned long long)want);
    }
}

static ncclResult_t make(const struct call *c, struct job_rank *rank, const void *in, void *out, ncclRedOp_t op)
{
    ncclDataType_t type = (ncclDataType_t)c->type;
    if (c->collective == PLAN_ALLREDUCE) return ncclAllReduce(in, out, c->count, type, op, rank->comm, NULL);
    if (c->collective == PLAN_REDUCE) return ncclReduce(in, out, c->count, type, op, c->root, rank->comm, NULL);
    return ncclReduceScatter(in, out, c->count, type, op, rank->comm, NULL);
}

static void one_call(struct job_rank *rank, const struct table *t, const struct call *c)
{
    size_t element = rail_type_bytes((enum rail_type)c->type), blocks = c->collective == PLAN_REDUCESCATTER ? (size_t)rank->n_ranks : 1;
    size_t bytes = c->count * element * blocks + 2 * GUARD;
    unsigned char *room[2] = {malloc(bytes), malloc(bytes)};
    memset(room[0], POISON, bytes);
    unsigned char *in = room[1] + GUARD, *out = room[0] + GUARD;
    if (c->in_place) in = out, out += blocks > 1 ? (size_t)rank->rank * c->count * element : 0;
    for (size_t k = 0; k < c->count * blocks; k++) {
        uint64_t bits = input_of(c, rank->rank, k);
        memcpy(in + k * element, &bits, element);
    }
    ncclRedOp_t op = (ncclRedOp_t)c->op;
    if (c->op == PREMUL) {
        uint64_t scale = how_of(c, rank->n_ranks).scale;
        JOB_TRY(ncclRedOpCreatePreMulSum(&op, &scale, (ncclDataType_t)c->type, ncclScalarHostImmediate, rank->comm));
    }
    JOB_TRY(make(c, rank, in, out, op));
    if (c->op == PREMUL) JOB_TRY(ncclRedOpDestroy(op, rank->comm));
    if (c->collective != PLAN_REDUCE || c->root == rank->rank) check(rank, t, c, out);
    free(room[0]);
    free(room[1]);
}

static void all_calls(struct job_rank *rank)
{
    const struct table *t = rank->arg;
    differences = 0;
    for (int i = 0; i < t->n_calls && !rank->why[0]; i++) one_call(rank, t, &t->calls[i]);
    if (t->must_differ) JOB_EXPECT(differences > 0, "no other order shows: these inputs prove nothing");
}

/* ---- the table ---- */

static const size_t counts[] = {1, 2, 5, 10, 64, 257, 1000, 4099, 70001};

static unsigned next(unsigned *seed) { return (*seed = *seed * 1664525u + 1013904223u) >> 8; }

/* Every type and operator comes up; sizes, roots and places by chance. */
static struct table sample(unsigned seed, int n_ranks, int n)
{
    static const enum plan_collective kinds[] = {PLAN_ALLREDUCE, PLAN_REDUCE, PLAN_REDUCESCATTER, PLAN_ALLREDUCE};
    struct table t = {.n_calls = n};
    for (int i = 0; i < n; i++) {
        struct call c = {.collective = kinds[i % 4], .op = (int)(next(&seed) % OPERATORS)};
        c.type = (int)((unsigned)i / 4 % ncclNumTypes);
        c.root = (int)(next(&seed) % (unsigned)n_ranks);
        c.in_place = next(&seed) % 2;
        c.count = counts[next(&seed) % (sizeof counts / sizeof *counts)];
        if (c.collective == PLAN_REDUCESCATTER && c.count > 5000) c.count = 3001;
        c.salt = next(&seed);
        t.calls[i] = c;
    }
    return t;
}

static bool long_run(void) { return getenv("RAILCCL_TEST_LONG") != NULL; }

#define ON "RAILCCL_DETERMINISTIC=1"

static void placed(int ranks_per_process, int n_hosts, const char *const *env, int calls)
{
    static const int sizes[] = {2, 3, 4, 5, 6, 7, 8, 11, 16};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (!long_run() && n_hosts > 1 && i % 2 == 0 && sizes[i] > 4) continue;
        struct table t = sample(7 + (unsigned)i, sizes[i], long_run() ? 160 : calls);
        struct job job = {.n_ranks = sizes[i], .ranks_per_process = ranks_per_process, .n_hosts = n_hosts, .env = env, .limit_s = 120};
        job_must(&job, all_calls, &t);
    }
}

static const char *const on[] = {ON, NULL};

static void ranks_as_processes(void **state) { (void)state; placed(1, 1, on, 48); }
static void processes_of_three_threads(void **state) { (void)state; placed(3, 1, on, 48); }
static void every_rank_a_host(void **state) { (void)state; placed(1, 16, on, 32); }
static void two_hosts(void **state) { (void)state; placed(1, 2, on, 32); }
static void three_uneven_hosts_of_processes_of_two_threads(void **state) { (void)state; placed(2, 3, on, 32); }

static void ranks_as_threads(void **state)
{
    (void)state;
    setenv("RAILCCL_DETERMINISTIC", "1", 1);
    rail_params_reload();
    placed(0, 1, NULL, 48);
    unsetenv("RAILCCL_DETERMINISTIC");
    rail_params_reload();
}

static void more_ranks_than_windows_hold(void **state)
{
    (void)state;
    for (int hosts = 1; hosts < 4; hosts += 2) {
        struct table t = sample(120, 67, 12);
        for (int k = 0; k < t.n_calls; k++)
            if (t.calls[k].count > 1000) t.calls[k].count = 300;
        struct job job = {.n_ranks = 67, .ranks_per_process = 12, .n_hosts = hosts, .env = on, .limit_s = 120};
        job_must(&job, all_calls, &t);
    }
}

static void other_algorithms_channels_windows_and_arithmetic_change_nothing(void **state)
{
    (void)state;
    static const char *const settings[][5] = {
        {ON, "RAILCCL_ALGO=ranktree"}, {ON, "RAILCCL_ALGO=doubling"}, {ON, "RAILCCL_ALGO=ring"}, {ON, "RAILCCL_ALGO=oneshot"},
        {ON, "RAILCCL_ALGO=twoshot"}, {ON, "NCCL_MIN_NCHANNELS=3", "NCCL_MAX_NCHANNELS=3"}, {ON, "RAILCCL_SIMD=portable"},
        {ON, "RAILCCL_WINDOW_BYTES=1024", "RAILCCL_SHM_SLOT_BYTES=256", "RAILCCL_NET_SLOT_BYTES=512"}};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        for (int hosts = 1; hosts < 3; hosts++) {
            int n = i % 2 ? 6 : 5;
            struct table t = sample(30, n, 36);
            for (int k = 0; k < t.n_calls; k++)
                if (t.calls[k].count > 5000) t.calls[k].count = 9001;
            struct job job = {.n_ranks = n, .ranks_per_process = 1, .n_hosts = hosts, .env = settings[i], .limit_s = 60};
            job_must(&job, all_calls, &t);
        }
}

/* Neighbours in number are on different hosts. */
static void on_hosts_in_turn(struct job_rank *rank)
{
    char host[32];
    snprintf(host, sizeof host, "turn-%d", rank->rank * 7 % 10 % 3);
    setenv("NCCL_HOSTID", host, 1);
    rail_params_reload();
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    all_calls(rank);
    if (rank->why[0]) ncclCommAbort(rank->comm);
    else JOB_TRY(ncclCommDestroy(rank->comm));
}

static void ranks_dealt_to_uneven_hosts(void **state)
{
    (void)state;
    for (int n = 4; n <= 10; n += 3) {
        struct table t = sample(60 + (unsigned)n, n, 40);
        struct job job = {.n_ranks = n, .ranks_per_process = 1, .bare = true, .env = on};
        job_must(&job, on_hosts_in_turn, &t);
    }
}

static void without_the_variable_the_same_inputs_show_other_orders(void **state)
{
    (void)state;
    for (int hosts = 1; hosts < 3; hosts++) {
        struct table t = sample(90, 6, 48);
        t.must_differ = true;
        for (int k = 0; k < t.n_calls; k++) t.calls[k].collective = PLAN_ALLREDUCE, t.calls[k].op = ncclSum;
        struct job job = {.n_ranks = 6, .ranks_per_process = 1, .n_hosts = hosts};
        job_must(&job, all_calls, &t);
    }
}

static void one_rank_sets_it_alone(struct job_rank *rank)
{
    setenv("RAILCCL_DETERMINISTIC", rank->rank == 1 ? "1" : "0", 1);
    rail_params_reload();
    ncclResult_t result = ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank);
    JOB_EXPECT(result == ncclInvalidUsage && strstr(ncclGetLastError(NULL), "RAILCCL_DETERMINISTIC differs"), "%d: %s",
               (int)result, ncclGetLastError(NULL));
}

static void ranks_that_disagree_about_it_are_told(void **state)
{
    (void)state;
    struct job job = {.n_ranks = 3, .ranks_per_process = 1, .bare = true};
    job_must(&job, one_rank_sets_it_alone, NULL);
}

int main(int argc, char **argv)
{
    oracle_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_as_processes),
        cmocka_unit_test(processes_of_three_threads),
        cmocka_unit_test(every_rank_a_host),
        cmocka_unit_test(two_hosts),
        cmocka_unit_test(three_uneven_hosts_of_processes_of_two_threads),
        cmocka_unit_test(ranks_dealt_to_uneven_hosts),
        cmocka_unit_test(more_ranks_than_windows_hold),
        cmocka_unit_test(other_algorithms_channels_windows_and_arithmetic_change_nothing),
        cmocka_unit_test(without_the_variable_the_same_inputs_show_other_orders),
        cmocka_unit_test(ranks_that_disagree_about_it_are_told),
        cmocka_unit_test(ranks_as_threads), /* last: forked ranks must not inherit a process that has used the library */
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
