/* All collectives through the public interface, over every way in which ranks can be placed (test_allreduce.c has the
 * finer points of AllReduce): one table of cases for threads, processes, processes of several threads, and pretended
 * hosts.
 *
 * What is copied is random bytes, compared to the bit; what is combined is small integers, exact in every type in any
 * order. Outputs are poisoned and stand between guard bytes; a rank that gets nothing must find its output untouched,
 * and may pass NULL, as may a rank that gives nothing; inputs must not change. The sample of a normal run is drawn by a
 * printed seed (RAILCCL_TEST_SEED repeats it); RAILCCL_TEST_LONG=1 draws eight times as much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/params.h"
#include "core/values.h"
#include "plan/collective.h"
#include "support/job.h"

enum { GUARD = 96, PREMUL = 5, OPERATORS = 6, MISALIGNMENTS = 8, POISON = 0xa5 };

struct call {
    enum plan_collective collective;
    int type, op; /* op PREMUL: a created PreMulSum of scalar 2 */
    int root;
    bool in_place;
    bool bcast; /* the other name of an in-place Broadcast */
    bool null;  /* ranks that give or get nothing pass NULL */
    size_t count;
    unsigned misaligned, salt;
};

struct table {
    int n_calls;
    bool grouped; /* the calls of the table in groups of three */
    struct call calls[512];
};

/* ---- the oracle ---- */

static uint32_t hash_of(const struct call *c, int rank, size_t k)
{
    uint32_t h = ((uint32_t)rank * 2654435761u ^ (uint32_t)k * 2246822519u) + c->salt * 97u;
    h = (h ^ h >> 15) * 2654435769u;
    return (h ^ h >> 13) >> 3;
}

static double input_of(const struct call *c, int n, int rank, size_t k)
{
    uint32_t h = hash_of(c, rank, k);
    /* e5m2 has two bits of mantissa: integers are exact up to 8; 8-bit sums wrap before an average divides */
    if ((c->type == ncclFloat8e5m2 || c->type == ncclInt8 || c->type == ncclUint8) && rank >= 4) h = 0;
    if (c->op == ncclProd) return (size_t)rank % 3 == k % 3 && rank < 3 ? 2 : 1;
    if (c->op == ncclAvg) return h % 2 ? n : 0;
    return h % 2;
}

static double combined(const struct call *c, int n, size_t k)
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

/* Element k of a rank's input. */
static void input_put(const struct call *c, int n, int rank, size_t k, unsigned char *at)
{
    size_t element = rail_type_bytes((enum rail_type)c->type);
    if (collective_kind(c->collective).reduces) {
        value_put(c->type, at, input_of(c, n, rank, k));
        return;
    }
    uint64_t bits = (uint64_t)hash_of(c, rank, k) * 0x9e3779b97f4a7c15u;
    memcpy(at, (unsigned char *)&bits + 8 - element, element);
}

/* Element k of a rank's output: whose input, which element; for a combination, which element of everybody's. */
static size_t origin_of(const struct call *c, int rank, size_t k, int *giver)
{
    struct collective_kind kind = collective_kind(c->collective);
    *giver = c->root;
    if (c->collective == PLAN_ALLTOALL) {
        *giver = (int)(k / c->count);
        return (size_t)rank * c->count + k % c->count;
    }
    if (kind.output_blocks) {
        *giver = (int)(k / c->count);
        return k % c->count;
    }
    return kind.input_blocks ? (size_t)rank * c->count + k : k;
}

static bool right(const struct call *c, int n, int rank, size_t k, const unsigned char *at)
{
    unsigned char want[8];
    int giver;
    size_t origin = origin_of(c, rank, k, &giver), element = rail_type_bytes((enum rail_type)c->type);
    bool reduces = collective_kind(c->collective).reduces;
    if (reduces) value_put(c->type, want, combined(c, n, origin));
    else input_put(c, n, giver, origin, want);
    if (memcmp(want, at, element) == 0) return true;
    /* 1/n is not exact in every type for every n: such averages are right to a unit of the type */
    if (!reduces || c->op != ncclAvg || (n & (n - 1)) == 0 || c->type <= ncclUint64) return false;
    double e = combined(c, n, origin), v = value_get(c->type, at);
    double slack = c->type == ncclFloat32 || c->type == ncclFloat64 ? 1e-5 : 0.3;
    return v >= e - slack * (e + 1) && v <= e + slack * (e + 1);
}

/* ---- one call at one rank ---- */

struct buffers {
    unsigned char *room[2];
    unsigned char *in, *out; /* in place: inside one another */
    size_t n_in, n_out;      /* elements; 0: none */
};

static struct buffers buffers_make(const struct call *c, int n, int rank)
{
    struct collective_kind kind = collective_kind(c->collective);
    size_t element = rail_type_bytes((enum rail_type)c->type), block = c->count * element;
    size_t bytes = block * (size_t)n + 2 * GUARD + 64, mine = block * (size_t)rank;
    struct buffers b = {.room = {malloc(bytes), malloc(bytes)}};
    for (int k = 0; k < 2; k++) memset(b.room[k], POISON, bytes);
    bool gives = !kind.root_gives || rank == c->root, gets = !kind.root_gets || rank == c->root;
    if (gives) b.n_in = c->count * (kind.input_blocks ? (size_t)n : 1);
    if (gets) b.n_out = c->count * (kind.output_blocks ? (size_t)n : 1);
    b.out = b.room[0] + GUARD + c->misaligned;
    b.in = b.room[1] + GUARD + c->misaligned;
    if (c->in_place && kind.input_blocks) b.in = b.out, b.out += gets && gives ? mine : 0;
    else if (c->in_place) b.in = b.out + (kind.output_blocks && gets && gives ? mine : 0);
    for (size_t k = 0; k < b.n_in; k++) input_put(c, n, rank, k, b.in + k * element);
    return b;
}

static ncclResult_t call_make(const struct call *c, struct job_rank *rank, const struct buffers *b, ncclRedOp_t op)
{
    const void *in = b->n_in == 0 && c->null ? NULL : b->in;
    void *out = b->n_out == 0 && c->null ? NULL : b->out;
    ncclDataType_t type = (ncclDataType_t)c->type;
    switch (c->collective) {
    case PLAN_ALLREDUCE: return ncclAllReduce(in, out, c->count, type, op, rank->comm, NULL);
    case PLAN_BROADCAST:
        if (c->bcast) return ncclBcast(out, c->count, type, c->root, rank->comm, NULL);
        return ncclBroadcast(in, out, c->count, type, c->root, rank->comm, NULL);
    case PLAN_REDUCE: return ncclReduce(in, out, c->count, type, op, c->root, rank->comm, NULL);
    case PLAN_ALLGATHER: return ncclAllGather(in, out, c->count, type, rank->comm, NULL);
    case PLAN_REDUCESCATTER: return ncclReduceScatter(in, out, c->count, type, op, rank->comm, NULL);
    case PLAN_GATHER: return ncclGather(in, out, c->count, type, c->root, rank->comm, NULL);
    case PLAN_ALLTOALL: return ncclAlltoAll(in, out, c->count, type, rank->comm, NULL);
    default: return ncclScatter(in, out, c->count, type, c->root, rank->comm, NULL);
    }
}

static const char *words_of(const struct call *c)
{
    static _Thread_local char words[160];
    snprintf(words, sizeof words, "%s type %d op %d root %d count %zu %s, misaligned %u", collective_name(c->collective),
             c->type, c->op, c->root, c->count, c->in_place ? "in place" : "out of place", c->misaligned);
    return words;
}

static void buffers_check(const struct call *c, struct job_rank *rank, const struct buffers *b)
{
    size_t element = rail_type_bytes((enum rail_type)c->type);
    unsigned char want[8];
    for (size_t k = 0; k < b->n_out; k++)
        JOB_EXPECT(right(c, rank->n_ranks, rank->rank, k, b->out + k * element), "%s: output element %zu of %zu is %g",
                   words_of(c), k, b->n_out, value_get(c->type, b->out + k * element));
    for (size_t k = 0; k < b->n_in; k++) { /* in place, what the output did not overwrite */
        unsigned char *at = b->in + k * element;
        if (at >= b->out && at < b->out + b->n_out * element) continue;
        input_put(c, rank->n_ranks, rank->rank, k, want);
        JOB_EXPECT(memcmp(want, at, element) == 0, "%s: input element %zu was changed", words_of(c), k);
    }
    size_t bytes = c->count * element * (size_t)rank->n_ranks + 2 * GUARD + 64;
    for (int r = 0; r < 2; r++)
        for (unsigned char *at = b->room[r]; at < b->room[r] + bytes; at++) {
            if (at >= b->out && at < b->out + b->n_out * element) continue;
            if (at >= b->in && at < b->in + b->n_in * element) continue;
            JOB_EXPECT(*at == POISON, "%s: byte %td from the output was written", words_of(c), at - b->out);
        }
}

static void some_calls(struct job_rank *rank, const struct call *calls, int n, bool grouped)
{
    struct buffers b[3] = {0};
    ncclRedOp_t op[3];
    for (int i = 0; i < n; i++) {
        unsigned char two[8];
        b[i] = buffers_make(&calls[i], rank->n_ranks, rank->rank);
        op[i] = (ncclRedOp_t)calls[i].op;
        if (calls[i].op != PREMUL) continue;
        value_put(calls[i].type, two, 2);
        JOB_TRY(ncclRedOpCreatePreMulSum(&op[i], two, (ncclDataType_t)calls[i].type, ncclScalarHostImmediate, rank->comm));
    }
    if (grouped) JOB_TRY(ncclGroupStart());
    for (int i = 0; i < n; i++) JOB_TRY(call_make(&calls[i], rank, &b[i], op[i]));
    if (grouped) JOB_TRY(ncclGroupEnd());
    for (int i = 0; i < n; i++) {
        if (calls[i].op == PREMUL) JOB_TRY(ncclRedOpDestroy(op[i], rank->comm));
        if (!rank->why[0]) buffers_check(&calls[i], rank, &b[i]);
        free(b[i].room[0]);
        free(b[i].room[1]);
    }
}

static void all_calls(struct job_rank *rank)
{
    const struct table *t = rank->arg;
    int step = t->grouped ? 3 : 1;
    for (int i = 0; i < t->n_calls && !rank->why[0]; i += step)
        some_calls(rank, &t->calls[i], t->n_calls - i < step ? t->n_calls - i : step, t->grouped);
}

/* ---- the table ---- */

static unsigned next(unsigned *seed) { return (*seed = *seed * 1664525u + 1013904223u) >> 8; }

/* Counts of a block: the buffers hold n of them. */
static const size_t counts[] = {0, 1, 2, 3, 10, 64, 1000, 4097};

static struct call draw(unsigned *seed, enum plan_collective collective, int n)
{
    struct call c = {.collective = collective, .type = (int)(next(seed) % ncclNumTypes)};
    c.op = collective_kind(collective).reduces ? (int)(next(seed) % OPERATORS) : 0;
    c.root = collective_kind(collective).rooted ? (int)(next(seed) % (unsigned)n) : 0;
    c.in_place = next(seed) % 2 && collective != PLAN_ALLTOALL;
    c.bcast = collective == PLAN_BROADCAST && c.in_place && next(seed) % 2;
    c.null = !c.in_place && next(seed) % 2;
    c.count = counts[next(seed) % (sizeof counts / sizeof *counts)];
    if (next(seed) % 8 == 0) c.count = 150001 / (collective_blocks(collective, (uint32_t)n));
    c.misaligned = next(seed) % 3 ? 0 : next(seed) % MISALIGNMENTS;
    c.salt = next(seed);
    return c;
}

static struct table sample(unsigned seed, int n, int per_collective)
{
    struct table t = {.grouped = seed % 4 == 0};
    for (int i = 0; i < per_collective; i++)
        for (int c = 0; c < PLAN_COLLECTIVES; c++)
            if (t.n_calls < 512) t.calls[t.n_calls++] = draw(&seed, (enum plan_collective)c, n);
    return t;
}

/* Every type with every operator, in and out of place. */
static struct table product(unsigned seed, enum plan_collective collective, int n)
{
    struct table t = {0};
    bool reduces = collective_kind(collective).reduces;
    for (int type = 0; type < ncclNumTypes; type++)
        for (int op = 0; op < (reduces ? OPERATORS : 1); op++)
            for (int in_place = 0; in_place < 2; in_place++) {
                struct call c = draw(&seed, collective, n);
                c.type = type;
                c.op = op;
                c.in_place = in_place && collective != PLAN_ALLTOALL;
                c.bcast = c.null = false;
                if (c.count > 5000) c.count = 777;
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

static void placed(int ranks_per_process, int n_hosts, int per_collective)
{
    for (size_t i = 0; i < sizeof rank_counts / sizeof *rank_counts; i++) {
        int n = rank_counts[i];
        if (n_hosts > 1 && n < 2) continue;
        struct table t = sample(test_seed() + (unsigned)i, n, long_run() ? 8 * per_collective : per_collective);
        struct job job = {.n_ranks = n, .ranks_per_process = ranks_per_process, .n_hosts = n_hosts, .limit_s = 120};
        job_must(&job, all_calls, &t);
    }
}

static void ranks_as_threads(void **state) { (void)state; placed(0, 1, 8); }
static void ranks_as_processes(void **state) { (void)state; placed(1, 1, 8); }
static void processes_of_three_threads(void **state) { (void)state; placed(3, 1, 6); }
static void every_rank_a_host_over_tcp(void **state) { (void)state; placed(1, 16, 4); }
static void two_hosts_shared_memory_and_tcp_mixed(void **state) { (void)state; placed(1, 2, 4); }
static void two_hosts_of_processes_of_two_threads(void **state) { (void)state; placed(2, 2, 4); }

static void every_type_and_operator_in_and_out_of_place(void **state)
{
    (void)state;
    static const struct job jobs[] = {{.n_ranks = 4, .ranks_per_process = 1},
                                      {.n_ranks = 3, .ranks_per_process = 1, .n_hosts = 3}};
    for (int c = PLAN_ALLREDUCE + 1; c < PLAN_COLLECTIVES; c++)
        for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
            struct table t = product(test_seed() + (unsigned)c, (enum plan_collective)c, jobs[i].n_ranks);
            job_must(&jobs[i], all_calls, &t);
        }
}

static void every_type_and_operator_on_threads(void **state)
{
    (void)state;
    struct job job = {.n_ranks = 3};
    for (int c = PLAN_ALLREDUCE + 1; c < PLAN_COLLECTIVES; c++) {
        struct table t = product(test_seed() + (unsigned)c, (enum plan_collective)c, job.n_ranks);
        job_must(&job, all_calls, &t);
    }
}

static void every_root_in_turn_again_and_again(void **state)
{
    (void)state;
    for (int hosts = 1; hosts < 4; hosts += 2) {
        struct table t = {0};
        struct job job = {.n_ranks = 6, .ranks_per_process = 1, .n_hosts = hosts};
        unsigned seed = test_seed();
        for (int k = 0; k < 120; k++) {
            static const enum plan_collective rooted[] = {PLAN_BROADCAST, PLAN_REDUCE, PLAN_GATHER, PLAN_SCATTER};
            struct call c = draw(&seed, rooted[k % 4], job.n_ranks);
            c.root = k / 4 % job.n_ranks;
            if (c.count > 4097) c.count = 130; /* trees, between hosts */
            t.calls[t.n_calls++] = c;
        }
        job_must(&job, all_calls, &t);
    }
}

static void every_algorithm_forced(void **state)
{
    (void)state;
    static const char *const forced[][2] = {
        {"RAILCCL_ALGO=oneshot"}, {"RAILCCL_ALGO=twoshot"}, {"RAILCCL_ALGO=ring"}, {"RAILCCL_ALGO=tree"},
        {"RAILCCL_TWOSHOT_MAX_BYTES=0"}}; /* no windows: links inside the node, too, and AlltoAll pairwise */
    for (size_t a = 0; a < sizeof forced / sizeof *forced; a++)
        for (int hosts = 1; hosts < 3; hosts++) {
            struct table t = sample(test_seed() + 100 + (unsigned)a, 5, 4);
            struct job job = {.n_ranks = 5, .ranks_per_process = 1, .n_hosts = hosts, .env = forced[a]};
            job_must(&job, all_calls, &t);
        }
}

static void small_windows_and_slots_take_many_rounds(void **state)
{
    (void)state;
    static const char *const env[] = {"RAILCCL_WINDOW_BYTES=1024", "RAILCCL_SHM_SLOT_BYTES=256", "RAILCCL_NET_SLOT_BYTES=256",
                                      NULL};
    for (int hosts = 1; hosts < 3; hosts++) {
        struct table t = sample(test_seed() + 200, 4, 5);
        struct job job = {.n_ranks = 4, .ranks_per_process = 1, .n_hosts = hosts, .env = env};
        for (int i = 0; i < t.n_calls; i++)
            if (t.calls[i].count > 4097) t.calls[i].count = 4097;
        job_must(&job, all_calls, &t);
    }
}

/* Ranks dealt to hosts in turn: neighbours on the ring are not neighbours in number, and blocks are where ranks say. */
static void on_hosts_in_turn(struct job_rank *rank)
{
    char host[32];
    snprintf(host, sizeof host, "turn-%d", rank->rank % 3);
    setenv("NCCL_HOSTID", host, 1);
    rail_params_reload();
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    all_calls(rank);
    if (rank->why[0]) ncclCommAbort(rank->comm);
    else JOB_TRY(ncclCommDestroy(rank->comm));
}

static void ranks_dealt_to_three_hosts_in_turn(void **state)
{
    (void)state;
    static const int sizes[] = {4, 7, 8};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct table t = sample(test_seed() + 300 + (unsigned)i, sizes[i], long_run() ? 40 : 6);
        struct job job = {.n_ranks = sizes[i], .ranks_per_process = 1, .bare = true};
        job_must(&job, on_hosts_in_turn, &t);
    }
}

/* ---- ranks that call different things ---- */

/* The others may be through with their calls, and told, before this rank has joined. */
static void one_differs(struct job_rank *rank)
{
    const struct call *calls = rank->arg; /* rank 1's, everybody else's */
    const struct call *mine = &calls[rank->rank != 1];
    ncclResult_t result = ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank);
    bool joined = result == ncclSuccess;
    struct buffers b = buffers_make(mine, rank->n_ranks, rank->rank);
    /* who gives may be through before others look: it hears of it in the next call */
    for (int k = 0; k < 4 && result == ncclSuccess; k++) result = call_make(mine, rank, &b, ncclSum);
    free(b.room[0]);
    free(b.room[1]);
    JOB_EXPECT(result == ncclInvalidUsage || result == ncclRemoteError, "result %d", (int)result);
    JOB_EXPECT(strstr(ncclGetLastError(NULL), "called different things") &&
                   strstr(ncclGetLastError(NULL), collective_name(calls[0].collective)) &&
                   strstr(ncclGetLastError(NULL), collective_name(calls[1].collective)),
               "says: %s", ncclGetLastError(NULL));
    if (joined) ncclCommAbort(rank->comm);
}

static void ranks_that_call_different_things_are_told_both(void **state)
{
    (void)state;
    static const struct call pairs[][2] = {
        {{.collective = PLAN_ALLGATHER, .type = ncclInt32, .count = 100}, {.collective = PLAN_REDUCESCATTER, .type = ncclInt32, .count = 100}},
        {{.collective = PLAN_ALLGATHER, .type = ncclInt32, .count = 100}, {.collective = PLAN_ALLGATHER, .type = ncclInt32, .count = 101}},
        {{.collective = PLAN_REDUCE, .type = ncclFloat32, .count = 50}, {.collective = PLAN_ALLREDUCE, .type = ncclFloat32, .count = 50}},
        {{.collective = PLAN_ALLTOALL, .type = ncclInt32, .count = 100}, {.collective = PLAN_ALLTOALL, .type = ncclInt32, .count = 101}},
        {{.collective = PLAN_ALLTOALL, .type = ncclInt8, .count = 5}, {.collective = PLAN_ALLGATHER, .type = ncclInt8, .count = 5}},
        {{.collective = PLAN_BROADCAST, .root = 2, .count = 10}, {.collective = PLAN_BROADCAST, .root = 0, .count = 10}},
    };
    for (size_t k = 0; k < sizeof pairs / sizeof *pairs; k++) {
        struct call calls[2] = {pairs[k][0], pairs[k][1]};
        /* between hosts a root may be through with all its calls before anybody looks (ARCHITECTURE.md, 6) */
        for (int hosts = 1; hosts < (calls[0].collective == PLAN_ALLTOALL ? 4 : 2); hosts++) {
            struct job job = {.n_ranks = 3, .ranks_per_process = 1, .n_hosts = hosts, .bare = true, .limit_s = 20};
            job_must(&job, one_differs, calls);
        }
    }
}

/* ---- what a caller can get wrong ---- */

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

static void wrong_arguments_are_named_and_harmless(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1}, wrong_arguments, NULL);
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
        cmocka_unit_test(every_root_in_turn_again_and_again),
        cmocka_unit_test(every_algorithm_forced),
        cmocka_unit_test(small_windows_and_slots_take_many_rounds),
        cmocka_unit_test(ranks_dealt_to_three_hosts_in_turn),
        cmocka_unit_test(ranks_that_call_different_things_are_told_both),
        cmocka_unit_test(wrong_arguments_are_named_and_harmless),
        cmocka_unit_test(ranks_as_threads), /* last: forked ranks must not inherit a process that has used the library */
        cmocka_unit_test(every_type_and_operator_on_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
