/* ceiling_perf.c - what this machine's memory allows a collective inside one host: as many threads as there are cores do the
 * copies and sums of all -n ranks, without ever waiting for one another.
 *
 *     zero-copy   every thread reads its share of all inputs once and writes it to all outputs: buffers that all ranks reach
 *     staged      every input is copied through a window that stays in a cache, every output out of one: plain memory
 *
 * Both with ordinary and with streaming stores; the faster counts. A collective that takes 1.0 of it costs nothing but the
 * bytes; what it takes more is waiting, switching and its plan. The arithmetic is the library's own (device/host.h), so the
 * figures say nothing about that; docs/PERFORMANCE.md has the kernels' speeds. Results are checked at one element per KiB.
 *
 * Sizes are nccl-tests': of one buffer for AllReduce, of all blocks together for AllGather and ReduceScatter. Reaches inside
 * the library, so it is linked with the archive. */
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "device/host.h"
#include "types.h"

enum { RANKS_MAX = 64, THREADS_MAX = 256, ROUNDS = 5, LINE = 64 };
/* A thread's window: half of a usual L2, as inputs and sums share it. */
enum { WINDOW_BYTES = 256 << 10 };
#define TURN_NS (20 * RAIL_NS_PER_MS) /* of one measurement: some time slices of whoever else is there */

enum what { ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, WHATS };
static const char *const names[WHATS] = {"all_reduce", "all_gather", "reduce_scatter"};

struct options { enum what what; int ranks, threads; size_t min_bytes, max_bytes, factor; };

/* One turn of all threads. */
struct job {
    const struct options *o;
    size_t bytes;             /* of a size as printed */
    float *in[RANKS_MAX], *out[RANKS_MAX];
    bool staged, streams;
    long iterations;
    _Atomic int ready;
    _Atomic uint64_t longest_ns;
};
struct worker { struct job *job; int index; pthread_t thread; };

static const char help[] =
    "usage: ceiling_perf [-n RANKS] [-c all_reduce|all_gather|reduce_scatter] [-t THREADS] [-b SIZE] [-e SIZE] [-f FACTOR]\n"
    "  -n        ranks whose work is done (2; 64 at most)\n"
    "  -c        the collective (all_reduce)\n"
    "  -t        threads that do it (the cores that this process may use)\n"
    "  -b -e -f  sizes from -b to -e, times -f (64K 64M 4)\n";

static bool option(struct options *o, int which, char *text)
{
    int factor;
    switch (which) {
    case 'n': return perf_whole_parse(text, 2, RANKS_MAX, &o->ranks);
    case 't': return perf_whole_parse(text, 1, THREADS_MAX, &o->threads);
    case 'b': return perf_size_parse(text, &o->min_bytes) && o->min_bytes > 0;
    case 'e': return perf_size_parse(text, &o->max_bytes);
    case 'f': return perf_whole_parse(text, 2, 1 << 20, &factor) && (o->factor = (size_t)factor);
    case 'c':
        for (int w = 0; w < WHATS; w++)
            if (!strcmp(text, names[w])) return o->what = (enum what)w, true;
        return false;
    default: return false;
    }
}

static int cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static struct options options_parse(int argc, char **argv)
{
    struct options o = {.ranks = 2, .threads = cores(), .min_bytes = 64 << 10, .max_bytes = 64 << 20, .factor = 4};
    for (int c; (c = getopt(argc, argv, "n:c:t:b:e:f:h")) != -1;) {
        if (c == 'h') fputs(help, stdout), exit(0);
        if (c == '?') fputs(help, stderr), exit(2);
        if (option(&o, c, optarg)) continue;
        fprintf(stderr, "-%c %s: not a value that it takes\n%s", c, optarg, help);
        exit(2);
    }
    if (optind == argc && o.max_bytes >= o.min_bytes) return o;
    fprintf(stderr, optind < argc ? "%s: no arguments are taken\n%s" : "%s: -e is below -b\n%s",
            optind < argc ? argv[optind] : "sizes", help);
    exit(2);
}

/* ---- the work of one thread ---- */

/* Elements of each rank's input, and of its output. */
static size_t inputs(const struct options *o, size_t bytes)
{
    return bytes / sizeof(float) / (o->what == ALL_GATHER ? (size_t)o->ranks : 1);
}
static size_t outputs(const struct options *o, size_t bytes)
{
    return bytes / sizeof(float) / (o->what == REDUCE_SCATTER ? (size_t)o->ranks : 1);
}

struct part { size_t first, count; };

/* The share of thread `index`, whole lines. */
static struct part share_of(size_t count, int index, int threads)
{
    size_t lines = (count * sizeof(float) + LINE - 1) / LINE, per = LINE / sizeof(float);
    size_t from = lines * (size_t)index / (size_t)threads * per, to = lines * (size_t)(index + 1) / (size_t)threads * per;
    if (to > count) to = count;
    return (struct part){from, from < to ? to - from : 0};
}

static void move(const struct job *j, float *const *dst, int n_dst, const float *const *src, int n_src, size_t count)
{
    static const struct rail_combine sum = {.type = RAIL_F32, .op = RAIL_SUM};
    rail_combine_to(&sum, (void *const *)dst, n_dst, (const void *const *)src, n_src, 0, true, count,
                    (struct rail_stores){.streamed = j->streams ? UINT64_MAX : 0});
}

/* Sums elements [at, at + count) of all inputs, by the window if staged, and writes them to `n` outputs. */
static void sum_to(const struct job *j, float *window, size_t at, size_t count, float *const *out, int n)
{
    const float *src[RANKS_MAX];
    for (int r = 0; r < j->o->ranks; r++) src[r] = j->in[r] + at;
    if (!j->staged) {
        move(j, out, n, src, j->o->ranks, count);
        return;
    }
    for (int r = 0; r < j->o->ranks; r++) src[r] = memcpy(window + (size_t)r * count, src[r], count * sizeof(float));
    static const struct rail_combine sum = {.type = RAIL_F32, .op = RAIL_SUM};
    float *result = window + (size_t)j->o->ranks * count;
    rail_combine(&sum, (void *[]){result}, 1, (const void *const *)src, j->o->ranks, 0, true, count);
    for (int r = 0; r < n; r++) move(j, &out[r], 1, (const float *const[]){result}, 1, count);
}

static void copy_to(const struct job *j, float *window, const float *from, size_t count, float *const *out, int n)
{
    if (!j->staged) {
        move(j, out, n, &from, 1, count);
        return;
    }
    const float *staged = memcpy(window, from, count * sizeof(float));
    for (int r = 0; r < n; r++) move(j, &out[r], 1, &staged, 1, count);
}

/* What this thread does of one call, in parts that fit into its window. */
static void call(const struct job *j, int index, float *window)
{
    const struct options *o = j->o;
    size_t in = inputs(o, j->bytes), step = WINDOW_BYTES / sizeof(float) / (size_t)(o->ranks + 1) / 16 * 16;
    struct part mine = share_of(in, index, o->threads);
    float *out[RANKS_MAX];
    for (size_t at = mine.first, end = mine.first + mine.count, n; at < end; at += n) {
        n = end - at < step ? end - at : step;
        if (o->what == ALL_GATHER) {
            for (int from = 0; from < o->ranks; from++) {
                for (int r = 0; r < o->ranks; r++) out[r] = j->out[r] + (size_t)from * in + at;
                copy_to(j, window, j->in[from] + at, n, out, o->ranks);
            }
            continue;
        }
        if (o->what == REDUCE_SCATTER) { /* a block belongs to one rank alone; a part may touch two */
            size_t block = outputs(o, j->bytes), owner = at / block, left = (owner + 1) * block - at;
            if (n > left) n = left;
            out[0] = j->out[owner] + at % block;
            sum_to(j, window, at, n, out, 1);
            continue;
        }
        for (int r = 0; r < o->ranks; r++) out[r] = j->out[r] + at;
        sum_to(j, window, at, n, out, o->ranks);
    }
}

static void *work(void *argument)
{
    struct worker *w = argument;
    struct job *j = w->job;
    static _Thread_local float window[WINDOW_BYTES / sizeof(float)] __attribute__((aligned(LINE)));
    cpu_set_t all, one;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof all, &all) == 0)
        for (int c = 0, k = 0; c < CPU_SETSIZE; c++)
            if (CPU_ISSET(c, &all) && k++ == w->index % CPU_COUNT(&all)) CPU_SET(c, &one);
    (void)pthread_setaffinity_np(pthread_self(), sizeof one, &one);
    call(j, w->index, window);
    atomic_fetch_add(&j->ready, 1);
    while (atomic_load(&j->ready) < j->o->threads) sched_yield();
    uint64_t start = rail_now_ns();
    for (long i = 0; i < j->iterations; i++) call(j, w->index, window);
    uint64_t took = rail_now_ns() - start, longest = atomic_load(&j->longest_ns);
    while (took > longest && !atomic_compare_exchange_weak(&j->longest_ns, &longest, took)) continue;
    return NULL;
}

/* ---- turns ---- */

/* Nanoseconds of a call, by the slowest thread. */
static double turn(struct job *j)
{
    struct worker w[THREADS_MAX];
    atomic_store(&j->ready, 0);
    atomic_store(&j->longest_ns, 0);
    for (int t = 0; t < j->o->threads; t++) {
        w[t] = (struct worker){.job = j, .index = t};
        if (pthread_create(&w[t].thread, NULL, work, &w[t])) exit((perror("a thread"), 1));
    }
    for (int t = 0; t < j->o->threads; t++) pthread_join(w[t].thread, NULL);
    return (double)atomic_load(&j->longest_ns) / (double)j->iterations;
}

/* Small whole numbers, so that every sum is exact. */
static float value(int rank, size_t at) { return (float)(rank + 1) * (float)(at % 31); }

static void check(const struct job *j)
{
    const struct options *o = j->o;
    size_t in = inputs(o, j->bytes), out = outputs(o, j->bytes);
    for (int r = 0; r < o->ranks; r++)
        for (size_t at = 0; at < out; at += 256) {
            size_t from = o->what == REDUCE_SCATTER ? (size_t)r * out + at : at;
            float want = o->what == ALL_GATHER ? value((int)(at / in), at % in) : value(o->ranks * (o->ranks + 1) / 2 - 1, from);
            if (j->out[r][at] == want) continue;
            fprintf(stderr, "%s, %zu bytes, rank %d, element %zu: %g, wanted %g\n", names[o->what], j->bytes, r, at,
                    (double)j->out[r][at], (double)want);
            exit(1);
        }
}

/* The faster of both kinds of stores, each the least of ROUNDS turns, in microseconds. */
static double fastest(struct job *j, bool staged)
{
    double best = 1e30;
    j->staged = staged;
    for (int k = 0; k < 2 * ROUNDS; k++) {
        j->streams = k % 2;
        j->iterations = 1;
        double once = turn(j);
        j->iterations = once > TURN_NS ? 1 : (long)(TURN_NS / (once + 1)) + 1;
        double ns = turn(j);
        if (ns < best) best = ns;
    }
    check(j);
    return best / 1e3;
}

static float *memory(size_t elements)
{
    void *at = mmap(NULL, elements * sizeof(float) + LINE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) exit((perror("memory for the buffers"), 1));
    return at;
}

int main(int argc, char **argv)
{
    struct options o = options_parse(argc, argv);
    struct job j = {.o = &o};
    for (int r = 0; r < o.ranks; r++) {
        j.in[r] = memory(inputs(&o, o.max_bytes)), j.out[r] = memory(outputs(&o, o.max_bytes));
        for (size_t k = 0; k < inputs(&o, o.max_bytes); k++) j.in[r][k] = value(r, k);
    }
    printf("# %s, float, sum: the work of %d ranks by %d threads, nothing waited for; microseconds, least of %d turns\n"
           "#      bytes     zero-copy        staged\n", names[o.what], o.ranks, o.threads, ROUNDS);
    /* every rank has whole lines, so that what is compared moves the same */
    for (size_t bytes = o.min_bytes; bytes <= o.max_bytes; bytes *= o.factor) {
        j.bytes = bytes / ((size_t)o.ranks * LINE) * ((size_t)o.ranks * LINE);
        if (!j.bytes) continue;
        double zero_copy = fastest(&j, false), staged = fastest(&j, true);
        printf("%12zu %13.2f %13.2f\n", bytes, zero_copy, staged);
        fflush(stdout);
    }
    return 0;
}
