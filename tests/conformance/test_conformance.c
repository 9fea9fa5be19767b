/* Everything that moves data, over every way in which ranks can be placed: one table of operation x type x operator x
 * count x in place, and one of placements (threads, processes, hosts even, mixed and shuffled, algorithms forced, windows
 * and slots made small), for 1 to 16 ranks.
 *
 * A normal run draws from the table by a printed seed (RAILCCL_TEST_SEED repeats it). RAILCCL_TEST_LONG=1 runs all of it on
 * threads, processes, both, and hosts of them, and draws ten times as much for placements that force something; with
 * RAILCCL_TEST_LONG=2 these run all of it, too (some hours).
 * An argument names placements ("*hosts*"), and TEST_RANKS_MOST leaves out jobs of more ranks: for machines that are slow.
 * What inputs are, and what is checked, says outcome.h. That the check can fail is shown first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "base/params.h"
#include "conformance/outcome.h"

/* ---- the table of calls ---- */

/* Bytes at which something changes: a cache line, what stands beside an express flag, what express lines take where all
 * meet, and where there is a root (a page), one-shot to two-shot (4 ranks), doubling to tree, a window and a slot
 * between hosts, a slot and a window in a host, several of them; each with a neighbour on both sides. */
static const size_t borders[] = {64, 112, 2048, 4096, 8192, 65536, 262144, 2 * 262144, 4 * 262144, 3 << 20};
static const size_t small[] = {0, 1, 2, 3, 5, 7, 11, 100, 777};
enum { N_BORDERS = sizeof borders / sizeof *borders, N_SMALL = sizeof small / sizeof *small, COUNTS = N_SMALL + 3 * N_BORDERS };

/* Elements of the larger buffer: a block's are fewer. */
static size_t count_number(unsigned k, int type, uint32_t blocks)
{
    if (k < N_SMALL) return small[k];
    size_t elements = borders[(k - N_SMALL) / 3] / rail_type_bytes((enum rail_type)type) / blocks;
    return elements + (k - N_SMALL) % 3 - (elements > 0);
}

enum { CALLS = N_OPERATIONS * RAIL_TYPES * OPERATORS * COUNTS * 2 };

/* Call number `index` of the table for n ranks; what the table leaves open (root, alignment) is drawn from `draw`. False:
 * this place of the table is empty (an operator for what does not combine, in place where there is none). */
static bool call_number(unsigned index, int n, unsigned draw, struct call *c)
{
    const struct operation *what = &operations[index % N_OPERATIONS];
    *c = (struct call){.what = what, .iteration = index};
    c->type = (int)((index /= N_OPERATIONS) % RAIL_TYPES);
    c->op = (int)((index /= RAIL_TYPES) % OPERATORS);
    c->in_place = (index /= OPERATORS) % 2;
    uint32_t blocks = collective_blocks(what->layout, (uint32_t)n);
    c->count = count_number((index / 2) % COUNTS, c->type, blocks);
    c->root = collective_kind(what->layout).rooted ? (int)(draw % (unsigned)n) : 0;
    c->null = !c->in_place && what->make != sends_from_root && what->make != sends_to_root && draw / 64 % 2;
    c->misaligned = draw / 128 % 3 ? 0 : draw / 512 % 8;
    if (!reduces(c) && c->op != 0) return false;
    return what->in_place == EITHER || c->in_place == (what->in_place == ALWAYS);
}

/* ---- at one rank ---- */

struct work {
    unsigned seed;
    int calls;    /* drawn; 0: the whole table */
    bool grouped; /* in groups of three */
    int gpus;     /* devices, dealt to ranks in turn; 0: host memory */
    bool mixed;   /* every third rank on host memory all the same, or in memory that is not registered */
};

enum { TOGETHER = 3 };

static unsigned next(unsigned *seed) { return (*seed = *seed * 1664525u + 1013904223u) >> 8; }

/* Large counts of every second call become small ones: time is better spent on more calls. */
static void next_call(unsigned *seed, int n, struct call *c)
{
    do {
        unsigned index = next(seed) % CALLS;
        while (!call_number(index, n, next(seed), c)) index = next(seed) % CALLS;
    } while (c->count * rail_type_bytes((enum rail_type)c->type) > 100000 && next(seed) % 4);
}

static bool on_gpu(const struct job_rank *rank)
{
    const struct work *w = rank->arg;
    return w->gpus && !(w->mixed && rank->rank % 3 == 1);
}

/* Taken before the communicator is: cuMemAlloc may wait for kernels of the context, which wait for this very rank. */
static _Thread_local unsigned char *memory_of_gpu;

/* Registered: rooms for the calls of a group. */
static _Thread_local unsigned char *memory_registered;

/* Each call of a group on a stream of its own, now and then. */
static void some_calls(struct job_rank *rank, const struct call *calls, int n, bool grouped)
{
    bool gpu = on_gpu(rank);
    cudaStream_t streams[TOGETHER] = {NULL};
    bool shared = gpu && ((const struct work *)rank->arg)->gpus == 1; /* the legacy stream would be everybody's */
    for (int i = 0; gpu && i < n; i++) streams[i] = shared || calls[i].iteration % 2 ? gpu_stream() : streams[0];
    struct buffers b[TOGETHER];
    ncclRedOp_t op[TOGETHER];
    char why[256];
    for (int i = 0; i < n; i++) {
        b[i] = buffers_make(&calls[i], rank->n_ranks, rank->rank, memory_registered ? memory_registered + (size_t)i * 2 * ROOM_MOST : NULL);
        op[i] = (ncclRedOp_t)calls[i].op;
        if (gpu) buffers_upload(&b[i], memory_of_gpu + (size_t)i * 2 * ROOM_MOST, streams[i]);
        if (calls[i].op != OP_PREMUL) continue;
        uint64_t scalar = combine_of(&calls[i], rank->n_ranks).scale;
        JOB_TRY(ncclRedOpCreatePreMulSum(&op[i], &scalar, (ncclDataType_t)calls[i].type, ncclScalarHostImmediate, rank->comm));
    }
    if (grouped) JOB_TRY(ncclGroupStart());
    for (int i = 0; i < n; i++) JOB_TRY(call_make(&calls[i], rank, &b[i], op[i]));
    if (grouped) JOB_TRY(ncclGroupEnd());
    for (int i = 0; i < n; i++) {
        buffers_fetch(&b[i]);
        if (calls[i].op == OP_PREMUL) JOB_TRY(ncclRedOpDestroy(op[i], rank->comm));
        if (outcome_wrong(&calls[i], rank->n_ranks, rank->rank, &b[i], why, sizeof why)) job_fail(rank, "%s", why);
        buffers_free(&b[i]);
    }
    for (int i = 0; gpu && i < n; i++)
        if (streams[i] && (i == 0 || streams[i] != streams[0])) gpu_stream_end(streams[i]);
}

static void drawn_calls(struct job_rank *rank)
{
    const struct work *w = rank->arg;
    unsigned seed = w->seed;
    for (int done = 0; done < w->calls && !rank->why[0]; done += w->grouped ? TOGETHER : 1) {
        struct call calls[TOGETHER];
        for (int i = 0; i < (w->grouped ? TOGETHER : 1); i++) next_call(&seed, rank->n_ranks, &calls[i]);
        some_calls(rank, calls, w->grouped ? TOGETHER : 1, w->grouped);
    }
}

/* Large buffers take one place in sixteen each: every count, type and operator still meets every operation. */
static void all_calls(struct job_rank *rank)
{
    const struct work *w = rank->arg;
    unsigned seed = w->seed;
    struct call c;
    for (unsigned index = 0; index < CALLS && !rank->why[0]; index++) {
        unsigned draw = next(&seed);
        if (!call_number(index, rank->n_ranks, draw, &c)) continue;
        if (c.count * rail_type_bytes((enum rail_type)c.type) > 20000 && index / N_OPERATIONS % 16 != w->seed % 16) continue;
        some_calls(rank, &c, 1, false);
    }
}

static void body(struct job_rank *rank)
{
    const struct work *w = rank->arg;
    (w->calls ? drawn_calls : all_calls)(rank);
}

/* Once more without the window at the end: what was mapped is no longer used. */
static void body_in_registered_memory(struct job_rank *rank)
{
    const struct work *w = rank->arg;
    void *memory;
    ncclWindow_t window;
    size_t bytes = (size_t)TOGETHER * 2 * ROOM_MOST;
    JOB_TRY(ncclMemAlloc(&memory, bytes));
    JOB_TRY(ncclCommWindowRegister(rank->comm, memory, bytes, &window, NCCL_WIN_DEFAULT));
    if (!(w->mixed && rank->rank % 3 == 1)) memory_registered = memory;
    body(rank);
    if (rank->why[0]) return;
    JOB_TRY(ncclCommWindowDeregister(rank->comm, window));
    struct call c = {.what = &operations[0], .count = 100000, .type = ncclFloat32};
    some_calls(rank, &c, 1, false);
    memory_registered = NULL;
    JOB_TRY(ncclMemFree(memory));
}

/* Ranks dealt to hosts in turn: neighbours on a ring are not neighbours in number. */
static void body_on_hosts_in_turn(struct job_rank *rank)
{
    char host[32];
    snprintf(host, sizeof host, "turn-%d", rank->rank % 3);
    setenv("NCCL_HOSTID", host, 1);
    rail_params_reload();
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    body(rank);
    if (rank->why[0]) ncclCommAbort(rank->comm);
    else JOB_TRY(ncclCommDestroy(rank->comm));
}

/* Ranks dealt to devices in turn; those on host memory are other processes, or threads that say so by themselves. */
static void body_on_gpus(struct job_rank *rank)
{
    const char *why;
    if (!on_gpu(rank)) {
        setenv("RAILCCL_DEVICE", "host", 1);
        rail_params_reload();
    } else if (!gpu_set(rank->rank, &why)) {
        job_fail(rank, "%s", why);
        return;
    }
    if (on_gpu(rank)) memory_of_gpu = gpu_alloc((size_t)TOGETHER * 2 * ROOM_MOST);
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    body(rank);
    if (rank->why[0]) ncclCommAbort(rank->comm);
    else JOB_TRY(ncclCommDestroy(rank->comm));
}

/* ---- the table of placements ---- */

struct placement {
    const char *name;
    int ranks_per_process, n_hosts; /* as in struct job */
    int share;                      /* of a normal run: how many calls are drawn */
    bool whole;                     /* a long run makes every call of the table */
    bool dealt;
    int gpus;                       /* devices; 0: host memory */
    bool mixed, registered;
    const char *env[4];
};

/* Registered buffers of any size are used where they are. */
#define IN_PLACE "RAILCCL_SHARE_MIN_BYTES=0"

static const struct placement placements[] = {
    {.name = "processes", .ranks_per_process = 1, .share = 8, .whole = true},
    {.name = "processes of three threads", .ranks_per_process = 3, .share = 8, .whole = true},
    {.name = "every rank a host", .ranks_per_process = 1, .n_hosts = 16, .share = 4, .whole = true},
    {.name = "two hosts", .ranks_per_process = 1, .n_hosts = 2, .share = 4, .whole = true},
    {.name = "three hosts of processes of two threads", .ranks_per_process = 2, .n_hosts = 3, .share = 4, .whole = true},
    {.name = "ranks dealt to three hosts", .ranks_per_process = 1, .dealt = true, .share = 4, .whole = true},
    {.name = "small windows and slots", .ranks_per_process = 1, .share = 4,
     .env = {"RAILCCL_WINDOW_BYTES=1024", "RAILCCL_SHM_SLOT_BYTES=256"}},
    {.name = "small slots between hosts", .ranks_per_process = 1, .n_hosts = 2, .share = 2, .env = {"RAILCCL_NET_SLOT_BYTES=512"}},
    {.name = "one-shot forced", .ranks_per_process = 1, .share = 2, .env = {"RAILCCL_ALGO=oneshot"}},
    {.name = "two-shot forced", .ranks_per_process = 1, .share = 2, .env = {"RAILCCL_ALGO=twoshot"}},
    {.name = "ring forced", .ranks_per_process = 1, .share = 2, .env = {"RAILCCL_ALGO=ring"}},
    {.name = "tree forced", .ranks_per_process = 1, .share = 2, .env = {"RAILCCL_ALGO=tree"}},
    {.name = "tree forced, two hosts", .ranks_per_process = 1, .n_hosts = 2, .share = 2, .env = {"RAILCCL_ALGO=tree"}},
    {.name = "hierarchy forced, three hosts", .ranks_per_process = 1, .n_hosts = 3, .share = 2, .env = {"RAILCCL_ALGO=hierarchy"}},
    {.name = "rails forced, two hosts", .ranks_per_process = 1, .n_hosts = 2, .share = 3, .env = {"RAILCCL_ALGO=rails"}},
    {.name = "rails forced, three hosts", .ranks_per_process = 1, .n_hosts = 3, .share = 2, .env = {"RAILCCL_ALGO=rails"}},
    {.name = "rails forced, small windows, hosts of processes of two threads", .ranks_per_process = 2, .n_hosts = 2, .share = 3,
     .env = {"RAILCCL_ALGO=rails", "RAILCCL_WINDOW_BYTES=2048", "NCCL_MIN_NCHANNELS=8"}},
    {.name = "rails forced, ranks dealt to three hosts", .ranks_per_process = 1, .dealt = true, .share = 2,
     .env = {"RAILCCL_ALGO=rails", "RAILCCL_WINDOW_BYTES=4096"}},
    {.name = "rails forced, hosts of one process of threads", .ranks_per_process = 4, .n_hosts = 2, .share = 3,
     .env = {"RAILCCL_ALGO=rails"}},
    {.name = "no hierarchy, two hosts", .ranks_per_process = 1, .n_hosts = 2, .share = 2, .env = {"RAILCCL_HIERARCHY_MAX_BYTES=0"}},
    {.name = "doubling forced", .ranks_per_process = 1, .share = 2, .env = {"RAILCCL_ALGO=doubling"}},
    {.name = "rank tree forced, two hosts", .ranks_per_process = 1, .n_hosts = 2, .share = 2, .env = {"RAILCCL_ALGO=ranktree"}},
    {.name = "links instead of windows", .ranks_per_process = 1, .share = 2, .env = {"RAILCCL_TWOSHOT_MAX_BYTES=0"}},
    {.name = "deterministic", .ranks_per_process = 1, .n_hosts = 2, .share = 2, .env = {"RAILCCL_DETERMINISTIC=1"}},
    {.name = "sixteen channels, two hosts", .ranks_per_process = 1, .n_hosts = 2, .share = 4, .env = {"NCCL_MIN_NCHANNELS=16"}},
    {.name = "sixteen channels, deterministic", .ranks_per_process = 1, .n_hosts = 2, .share = 4,
     .env = {"NCCL_MIN_NCHANNELS=16", "RAILCCL_DETERMINISTIC=1"}},
    {.name = "no shared memory", .ranks_per_process = 2, .share = 2, .env = {"NCCL_SHM_DISABLE=1"}},
    {.name = "read by the kernel", .ranks_per_process = 1, .share = 3, .env = {"RAILCCL_READ_MIN_BYTES=1"}},
    {.name = "read by the kernel, small windows, processes of two threads", .ranks_per_process = 2, .share = 2,
     .env = {"RAILCCL_READ_MIN_BYTES=1", "RAILCCL_WINDOW_BYTES=1024"}},
    {.name = "registered memory", .ranks_per_process = 1, .share = 4, .registered = true, .env = {IN_PLACE}},
    {.name = "registered memory, processes of two threads", .ranks_per_process = 2, .share = 3, .registered = true},
    {.name = "registered memory, some not", .ranks_per_process = 1, .share = 4, .registered = true, .mixed = true, .env = {IN_PLACE}},
    {.name = "registered memory, small windows, some not", .ranks_per_process = 1, .share = 3, .registered = true, .mixed = true,
     .env = {"RAILCCL_WINDOW_BYTES=1024", IN_PLACE}},
    {.name = "registered memory, one-shot forced", .ranks_per_process = 1, .share = 2, .registered = true,
     .env = {"RAILCCL_ALGO=oneshot", IN_PLACE}},
    {.name = "registered memory, two-shot forced", .ranks_per_process = 1, .share = 2, .registered = true,
     .env = {"RAILCCL_ALGO=twoshot", IN_PLACE}},
    {.name = "registered memory, rails forced, two hosts", .ranks_per_process = 1, .n_hosts = 2, .share = 2, .registered = true,
     .env = {"RAILCCL_ALGO=rails", IN_PLACE}},
    {.name = "registered memory that cannot be mapped", .ranks_per_process = 1, .share = 2, .registered = true,
     .env = {"RAILCCL_WINDOW_WAY=link"}},
    {.name = "GPUs, a process each", .ranks_per_process = 1, .share = 3, .gpus = 16},
    {.name = "GPUs of processes of four threads", .ranks_per_process = 4, .share = 3, .gpus = 16},
    {.name = "GPUs shared by ranks of processes", .ranks_per_process = 1, .share = 2, .gpus = 2},
    {.name = "one GPU shared by all ranks, threads", .ranks_per_process = 16, .share = 2, .gpus = 1},
    {.name = "GPUs without peer access", .ranks_per_process = 1, .share = 2, .gpus = 8, .env = {"NCCL_P2P_DISABLE=1"}},
    {.name = "GPUs of two hosts", .ranks_per_process = 1, .n_hosts = 2, .share = 3, .gpus = 8},
    {.name = "GPUs of three hosts of processes of two threads", .ranks_per_process = 2, .n_hosts = 3, .share = 2, .gpus = 8},
    {.name = "GPUs, rails forced, two hosts", .ranks_per_process = 1, .n_hosts = 2, .share = 2, .gpus = 8, .env = {"RAILCCL_ALGO=rails"}},
    {.name = "GPUs, ring forced", .ranks_per_process = 1, .share = 2, .gpus = 8, .env = {"RAILCCL_ALGO=ring"}},
    {.name = "GPUs, tree forced, two hosts", .ranks_per_process = 1, .n_hosts = 2, .share = 2, .gpus = 8, .env = {"RAILCCL_ALGO=tree"}},
    {.name = "GPUs, deterministic, two hosts", .ranks_per_process = 1, .n_hosts = 2, .share = 2, .gpus = 8, .env = {"RAILCCL_DETERMINISTIC=1"}},
    {.name = "GPUs and host memory", .ranks_per_process = 1, .share = 3, .gpus = 8, .mixed = true},
    {.name = "GPUs and host memory, two hosts", .ranks_per_process = 1, .n_hosts = 2, .share = 2, .gpus = 8, .mixed = true},
    {.name = "threads", .share = 8, .whole = true}, /* last: forked ranks must not inherit a process that has used the library */
};
enum { N_PLACEMENTS = sizeof placements / sizeof *placements };

static unsigned test_seed(void)
{
    static unsigned seed;
    if (seed) return seed;
    seed = getenv("RAILCCL_TEST_SEED") ? (unsigned)atoi(getenv("RAILCCL_TEST_SEED")) : (unsigned)time(NULL);
    print_message("seed %u (RAILCCL_TEST_SEED)\n", seed);
    return seed;
}

static void placed(void **state)
{
    static const int sizes[] = {1, 2, 3, 4, 5, 7, 8, 16};
    const struct placement *p = *state;
    int length = getenv("RAILCCL_TEST_LONG") ? atoi(getenv("RAILCCL_TEST_LONG")) : 0;
    bool all = length > 1 || (length == 1 && p->whole);
    int most = getenv("TEST_RANKS_MOST") ? atoi(getenv("TEST_RANKS_MOST")) : 16;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int n = sizes[i], calls = N_OPERATIONS * p->share * (length ? 100 : 10) / (n + 8);
        if ((n == 1 && p->env[0]) || n > most) continue;
        struct work w = {.seed = test_seed() + (unsigned)(p - placements) * 131 + (unsigned)i, .calls = all ? 0 : calls};
        w.grouped = w.seed % 3 == 0;
        w.gpus = p->gpus;
        w.mixed = p->mixed;
        struct job job = {.n_ranks = n, .ranks_per_process = p->ranks_per_process, .n_hosts = p->n_hosts, .bare = p->dealt || p->gpus,
                          .env = p->gpus ? gpu_environment(p->gpus, p->env) : p->env, .limit_s = length ? 1500 : 120};
        job_must(&job, p->dealt ? body_on_hosts_in_turn : p->gpus ? body_on_gpus
                                                       : p->registered ? body_in_registered_memory : body, &w);
    }
}

/* ---- the check can fail ---- */

static void flip(struct job_rank *rank, const struct call *c, const struct buffers *b, unsigned char *at, const char *where)
{
    char why[256];
    *at ^= 0x10;
    JOB_EXPECT(outcome_wrong(c, rank->n_ranks, rank->rank, b, why, sizeof why), "%s: a flipped byte of the %s passed",
               c->what->name, where);
    *at ^= 0x10;
}

/* One bit of the output, of the input, and of each guard band. */
static void flipped_bytes(struct job_rank *rank)
{
    for (int k = 0; k < N_OPERATIONS && !rank->why[0]; k++)
        for (int type = 0; type < RAIL_TYPES && !rank->why[0]; type++) {
            struct call c = {.what = &operations[k], .type = type, .count = 5000 + (size_t)type, .iteration = (unsigned)type};
            c.in_place = c.what->in_place == ALWAYS;
            struct buffers b = buffers_make(&c, rank->n_ranks, rank->rank, NULL);
            JOB_TRY(call_make(&c, rank, &b, ncclSum));
            size_t out = b.n_out * element_bytes(&c), in = b.n_in * element_bytes(&c), some = hash_of(&c, 1, 1) % 5000;
            char why[256];
            const char *wrong = outcome_wrong(&c, rank->n_ranks, rank->rank, &b, why, sizeof why);
            JOB_EXPECT(!wrong, "%s", why);
            if (out) flip(rank, &c, &b, b.out + some, "output");
            if (out) flip(rank, &c, &b, b.out + out - 1, "output's end");
            if (in && !c.in_place) flip(rank, &c, &b, b.in + some, "input");
            flip(rank, &c, &b, b.room[0] + some % GUARD, "band before the output");
            flip(rank, &c, &b, b.out + out + some % 64, "band behind the output");
            flip(rank, &c, &b, b.room[1], "band before the input");
            flip(rank, &c, &b, b.room[1] + b.room_bytes - 1, "band behind the input");
            buffers_free(&b);
        }
}

static void a_planted_flipped_byte_is_caught(void **state)
{
    (void)state;
    struct job job = {.n_ranks = 3, .ranks_per_process = 3};
    job_must(&job, flipped_bytes, NULL);
}

/* ---- more than 2^31 elements ---- */

static void more_than_two_to_the_31(struct job_rank *rank)
{
    size_t count = ((size_t)1 << 31) + 12345;
    unsigned char *buffer = malloc(count);
    JOB_EXPECT(buffer, "no memory for %zu bytes", count);
    for (size_t k = 0; k < count; k++) buffer[k] = (unsigned char)(k % 61 + (size_t)rank->rank);
    JOB_TRY(ncclAllReduce(buffer, buffer, count, ncclUint8, ncclSum, rank->comm, NULL));
    for (size_t k = 0; k < count; k++) JOB_EXPECT(buffer[k] == 2 * (k % 61) + 1, "element %zu is %d", k, buffer[k]);
    free(buffer);
}

static void counts_beyond_two_to_the_31(void **state)
{
    (void)state;
    if (!getenv("RAILCCL_TEST_LONG")) skip(); /* 4 GiB and half a minute */
    struct job job = {.n_ranks = 2, .ranks_per_process = 1, .limit_s = 200};
    job_must(&job, more_than_two_to_the_31, NULL);
    job.n_hosts = 2;
    job_must(&job, more_than_two_to_the_31, NULL);
}

int main(int argc, char **argv)
{
    struct CMUnitTest tests[N_PLACEMENTS + 2] = {cmocka_unit_test(a_planted_flipped_byte_is_caught),
                                                 cmocka_unit_test(counts_beyond_two_to_the_31)};
    for (int k = 0; k < N_PLACEMENTS; k++)
        tests[k + 2] = (struct CMUnitTest){.name = placements[k].name, .test_func = placed,
                                           .initial_state = (void *)(uintptr_t)&placements[k]};
    oracle_start();
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
