/* AllReduce through the public interface, over every way in which ranks can be placed: the same table of cases for
 * threads, processes, processes of several threads, and pretended hosts (TCP, and TCP mixed with shared memory).
 *
 * Inputs are small integers chosen so that every order of combination is exact in every type; the oracle adds in double.
 * Outputs are poisoned and stand between guard bytes. The sample of a normal run is drawn by a printed seed
 * (RAILCCL_TEST_SEED repeats it); RAILCCL_TEST_LONG=1 runs the whole table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "core/values.h"
#include "device/host.h"
#include "support/job.h"

enum { GUARD = 96, PREMUL = 5, OPERATORS = 6, MISALIGNMENTS = 8 };

/* One AllReduce. */
struct call {
    int type, op; /* op PREMUL: a created PreMulSum of scalar 2 */
    bool in_place;
    size_t count;
    unsigned misaligned; /* bytes that the buffers stand off their natural alignment */
    unsigned salt;
};

struct table {
    unsigned seed;
    int n_calls;
    struct call calls[512];
};

static double input_of(const struct call *c, int n, int rank, size_t k)
{
    uint32_t h = ((uint32_t)rank * 2654435761u ^ (uint32_t)k * 2246822519u) + c->salt * 97u;
    h = (h ^ h >> 15) >> 3;
    /* e5m2 has two bits of mantissa: integers are exact up to 8; 8-bit sums wrap before an average divides */
    if ((c->type == ncclFloat8e5m2 || c->type == ncclInt8 || c->type == ncclUint8) && rank >= 4) h = 0;
    if (c->op == ncclProd) return (size_t)rank % 3 == k % 3 && rank < 3 ? 2 : 1;
    if (c->op == ncclAvg) return h % 2 ? n : 0;
    return h % 2;
}

static double expected_of(const struct call *c, int n, size_t k)
{
    double e = input_of(c, n, 0, k);
    for (int r = 1; r < n; r++) {
        double v = input_of(c, n, r, k);
        switch (c->op) {
        case ncclProd: e *= v; break;
        case ncclMax: e = e > v ? e : v; break;
        case ncclMin: e = e < v ? e : v; break;
        default: e += v;
        }
    }
    return c->op == ncclAvg ? e / n : c->op == PREMUL ? 2 * e : e;
}

/* 1/n is not exact in every type for every n: averages of n copies of n/n are checked to a unit of the type instead. */
static bool exact_average(int n) { return (n & (n - 1)) == 0; }

static bool right(const struct call *c, int n, size_t k, const unsigned char *at)
{
    unsigned char want[8];
    double e = expected_of(c, n, k);
    value_put(c->type, want, e);
    if (memcmp(want, at, rail_type_bytes((enum rail_type)c->type)) == 0) return true;
    if (c->op != ncclAvg || exact_average(n) || c->type <= ncclUint64) return false;
    double v = value_get(c->type, at), slack = c->type == ncclFloat32 || c->type == ncclFloat64 ? 1e-5 : 0.3;
    return v >= e - slack * (e + 1) && v <= e + slack * (e + 1);
}

static void one_call(struct job_rank *rank, const struct call *c)
{
    size_t element = rail_type_bytes((enum rail_type)c->type), bytes = c->count * element;
    unsigned char *room[2] = {malloc(bytes + 2 * GUARD + 64), malloc(bytes + 2 * GUARD + 64)};
    unsigned char *out = room[0] + GUARD + c->misaligned, *in = c->in_place ? out : room[1] + GUARD + c->misaligned;
    memset(room[0], 0xa5, bytes + 2 * GUARD + 64);
    for (size_t k = 0; k < c->count; k++) value_put(c->type, in + k * element, input_of(c, rank->n_ranks, rank->rank, k));
    ncclRedOp_t op = (ncclRedOp_t)c->op;
    if (c->op == PREMUL) {
        unsigned char two[8];
        value_put(c->type, two, 2);
        JOB_TRY(ncclRedOpCreatePreMulSum(&op, two, (ncclDataType_t)c->type, ncclScalarHostImmediate, rank->comm));
    }
    JOB_TRY(ncclAllReduce(in, out, c->count, (ncclDataType_t)c->type, op, rank->comm, NULL));
    if (c->op == PREMUL) JOB_TRY(ncclRedOpDestroy(op, rank->comm));
    for (size_t k = 0; k < c->count; k++)
        JOB_EXPECT(right(c, rank->n_ranks, k, out + k * element),
                   "type %d op %d count %zu %s: element %zu is %g, expected %g", c->type, c->op, c->count,
                   c->in_place ? "in place" : "out of place", k, value_get(c->type, out + k * element),
                   expected_of(c, rank->n_ranks, k));
    for (int g = 1; g <= GUARD; g++)
        JOB_EXPECT(out[-g] == 0xa5 && out[bytes + (size_t)g - 1] == 0xa5, "type %d op %d count %zu: guard byte %d written",
                   c->type, c->op, c->count, g);
    free(room[0]);
    free(room[1]);
}

static void all_calls(struct job_rank *rank)
{
    const struct table *t = rank->arg;
    for (int i = 0; i < t->n_calls && !rank->why[0]; i++) one_call(rank, &t->calls[i]);
}

/* ---- the table ---- */

static const size_t counts[] = {0, 1, 2, 3, 10, 64, 1000, 4097, 65537, 300007};

static unsigned next(unsigned *seed) { return (*seed = *seed * 1664525u + 1013904223u) >> 8; }

static struct call draw(unsigned *seed)
{
    struct call c = {.type = (int)(next(seed) % ncclNumTypes), .op = (int)(next(seed) % OPERATORS)};
    c.in_place = next(seed) % 2;
    c.count = counts[next(seed) % (sizeof counts / sizeof *counts)];
    c.misaligned = next(seed) % 3 ? 0 : next(seed) % MISALIGNMENTS;
    c.salt = next(seed);
    return c;
}

/* 2^16 - 1 and the like do not fit in 8 bits: products and sums here stay below 64 for 16 ranks, so all types hold. */
static struct table sample(unsigned seed, int n)
{
    struct table t = {.seed = seed, .n_calls = n};
    for (int i = 0; i < n; i++) t.calls[i] = draw(&seed);
    return t;
}

/* Every type with every operator, in and out of place. */
static struct table product(unsigned seed)
{
    struct table t = {.seed = seed};
    for (int type = 0; type < ncclNumTypes; type++)
        for (int op = 0; op < OPERATORS; op++)
            for (int in_place = 0; in_place < 2; in_place++) {
                struct call c = draw(&seed);
                c.type = type;
                c.op = op;
                c.in_place = in_place;
                if (c.count > 65537) c.count = 1000;
                t.calls[t.n_calls++] = c;
            }
    return t;
}

static bool long_run(void) { return getenv("RAILCCL_TEST_LONG") != NULL; }

static unsigned test_seed(void)
{
    static unsigned seed;
    if (seed) return seed;
    seed = getenv("RAILCCL_TEST_SEED") ? (unsigned)atoi(getenv("RAILCCL_TEST_SEED")) : (unsigned)time(NULL);
    print_message("seed %u (RAILCCL_TEST_SEED)\n", seed);
    return seed;
}

static const int rank_counts[] = {1, 2, 3, 4, 5, 7, 8, 16};

static void placed(int ranks_per_process, int n_hosts, int calls)
{
    for (size_t i = 0; i < sizeof rank_counts / sizeof *rank_counts; i++) {
        int n = rank_counts[i];
        if (n_hosts > 1 && n < 2) continue;
        struct table t = sample(test_seed() + (unsigned)i, long_run() ? 8 * calls : calls);
        struct job job = {.n_ranks = n, .ranks_per_process = ranks_per_process, .n_hosts = n_hosts, .limit_s = 120};
        job_must(&job, all_calls, &t);
    }
}

static void ranks_as_threads(void **state) { (void)state; placed(0, 1, 40); }
static void ranks_as_processes(void **state) { (void)state; placed(1, 1, 40); }
static void processes_of_three_threads(void **state) { (void)state; placed(3, 1, 30); }
static void every_rank_a_host_over_tcp(void **state) { (void)state; placed(1, 16, 16); }
static void two_hosts_shared_memory_and_tcp_mixed(void **state) { (void)state; placed(1, 2, 16); }
static void two_hosts_of_processes_of_two_threads(void **state) { (void)state; placed(2, 2, 16); }

static void every_type_and_operator_in_and_out_of_place(void **state)
{
    (void)state;
    struct table t = product(test_seed());
    static const struct job jobs[] = {
        {.n_ranks = 3}, {.n_ranks = 4, .ranks_per_process = 1}, {.n_ranks = 3, .ranks_per_process = 1, .n_hosts = 3}};
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) job_must(&jobs[i], all_calls, &t);
}

static void every_algorithm_forced(void **state)
{
    (void)state;
    static const char *const forced[][2] = {
        {"RAILCCL_ALGO=oneshot"}, {"RAILCCL_ALGO=twoshot"}, {"RAILCCL_ALGO=ring"}, {"RAILCCL_ALGO=tree"},
        {"RAILCCL_ALGO=doubling"}};
    for (size_t a = 0; a < sizeof forced / sizeof *forced; a++)
        for (int hosts = 1; hosts < 3; hosts++) {
            struct table t = sample(test_seed() + 100 + (unsigned)a, 24);
            struct job job = {.n_ranks = 5, .ranks_per_process = 1, .n_hosts = hosts, .env = forced[a]};
            job_must(&job, all_calls, &t);
        }
}

/* ---- more than 2^31 elements ---- */

static void more_than_two_to_the_31(struct job_rank *rank)
{
    size_t count = ((size_t)1 << 31) + 12345;
    unsigned char *buffer = malloc(count);
    JOB_EXPECT(buffer, "no memory for %zu bytes", count);
    for (size_t k = 0; k < count; k++) buffer[k] = (unsigned char)(k % 61 + (size_t)rank->rank);
    JOB_TRY(ncclAllReduce(buffer, buffer, count, ncclUint8, ncclSum, rank->comm, NULL));
    for (size_t k = 0; k < count; k++)
        JOB_EXPECT(buffer[k] == 2 * (k % 61) + 1, "element %zu is %d", k, buffer[k]);
    free(buffer);
}

static void counts_beyond_two_to_the_31(void **state)
{
    (void)state;
    if (!long_run()) skip(); /* 4 GiB and half a minute */
    struct job job = {.n_ranks = 2, .ranks_per_process = 1, .limit_s = 200};
    job_must(&job, more_than_two_to_the_31, NULL);
    job.n_hosts = 2;
    job_must(&job, more_than_two_to_the_31, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_as_processes),
        cmocka_unit_test(processes_of_three_threads),
        cmocka_unit_test(every_rank_a_host_over_tcp),
        cmocka_unit_test(two_hosts_shared_memory_and_tcp_mixed),
        cmocka_unit_test(two_hosts_of_processes_of_two_threads),
        cmocka_unit_test(every_type_and_operator_in_and_out_of_place),
        cmocka_unit_test(every_algorithm_forced),
        cmocka_unit_test(counts_beyond_two_to_the_31),
        cmocka_unit_test(ranks_as_threads), /* last: forked ranks must not inherit a process that has used the library */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
