/* measure.c - the timed loop, as nccl-tests does it: a barrier, then the iterations back to back without a barrier
 * between them, then each thread's time divided by its operations; the average over the threads is taken afterwards.
 *
 * The barrier is an AllReduce of the communicator and not a futex: ranks leave it within one hand-over, whereas a sleeper
 * takes some 20 us to wake, which would be the measurement for operations of a microsecond.
 *
 * Unlike nccl-tests, all iterations use the same place in the buffers: small sizes are measured in the cache. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "program.h"

enum { SMALL_BYTES = 1 << 20, WARMUP_SMALL = 20, WARMUP_LARGE = 1 };
static const double adaptive_seconds = 0.05; /* -n 0: 50 ms is 2.5 million clock ticks and many scheduler slices */

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* -G: the iterations as a graph of each rank's stream, launched so often. */
static double loop_graph(struct perf_thread *thread, const struct perf_case *c, uint64_t iterations)
{
    const struct perf_options *o = thread->process->options;
    clockid_t clock = o->cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    for (int r = 0; r < o->ranks_per_thread; r++) perf_gpu_capture_begin(thread->ranks[r].gpu);
    for (uint64_t i = 0; i < iterations; i++) perf_issue(thread, c, o->aggregate);
    for (int r = 0; r < o->ranks_per_thread; r++) perf_gpu_capture_end(thread->ranks[r].gpu);
    perf_threads_meet(thread);
    perf_side_barrier(thread);
    double start = now(clock);
    for (int i = 0; i < o->graphs; i++)
        for (int r = 0; r < o->ranks_per_thread; r++) perf_gpu_graph_launch(thread->ranks[r].gpu);
    perf_finish(thread);
    double seconds = now(clock) - start;
    perf_threads_meet(thread);
    for (int r = 0; r < o->ranks_per_thread; r++) perf_gpu_graph_destroy(thread->ranks[r].gpu);
    perf_threads_meet(thread);
    return seconds / o->graphs;
}

/* Runs `iterations` and returns the seconds this thread took, barriers of -z 3 excluded; `each` may be NULL. */
static double loop(struct perf_thread *thread, const struct perf_case *c, uint64_t iterations, double *each)
{
    const struct perf_options *o = thread->process->options;
    clockid_t clock = o->cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    bool barrier_each = o->blocking == 1, barrier_outside = o->blocking == 3;
    if (o->graphs) return loop_graph(thread, c, iterations);
    perf_side_barrier(thread);
    double start = now(clock), outside = 0;
    for (uint64_t i = 0; i < iterations; i++) {
        double before = each ? now(clock) : 0;
        if (barrier_each) {
            for (int a = 0; a < o->aggregate; a++) {
                perf_issue(thread, c, 1);
                perf_finish(thread);
                perf_side_barrier(thread);
            }
        } else {
            perf_issue(thread, c, o->aggregate);
            if (each) perf_finish(thread);
        }
        if (each) each[i] = (now(clock) - before) / o->aggregate;
        if (barrier_outside) {
            perf_finish(thread);
            double from = now(clock);
            perf_side_barrier(thread);
            outside += now(clock) - from;
        }
    }
    perf_finish(thread);
    return now(clock) - start - outside;
}

/* As many iterations as last adaptive_seconds; all threads see the same maximum, so all agree on the number. */
static double loop_adaptive(struct perf_thread *thread, const struct perf_case *c, uint64_t *iterations)
{
    uint64_t n = 1;
    for (;;) {
        double own = loop(thread, c, n, NULL);
        struct perf_spread spread = perf_side_spread(thread, own);
        if (spread.max >= adaptive_seconds || n >= 1u << 30) return *iterations = n, own;
        double grow = spread.max > 0 ? 1.2 * adaptive_seconds / spread.max : 100;
        n = (uint64_t)ceil((double)n * (grow > 100 ? 100 : grow < 1.2 ? 1.2 : grow));
    }
}

/* Turns this thread's times per iteration into the maximum over all threads, and one row per process. */
static void collect_each(struct perf_thread *thread, struct perf_timing *timing)
{
    size_t n = (size_t)timing->iterations, processes = (size_t)thread->process->launch.nRanks;
    size_t own = (size_t)thread->process->launch.rank;
    timing->per_process = calloc(n * processes, sizeof(double));
    if (!timing->per_process) perf_die(1, "calloc(%zu doubles): out of memory; fewer iterations (-n)", n * processes);
    memcpy(timing->per_process + own * n, timing->each, n * sizeof(double));
    perf_side_reduce(thread, timing->per_process, n * processes, PERF_SIDE_MAX);
    perf_side_reduce(thread, timing->each, n, PERF_SIDE_MAX);
}

struct perf_timing perf_measure(struct perf_thread *thread, const struct perf_case *c)
{
    const struct perf_options *o = thread->process->options;
    struct perf_timing timing = {.iterations = (uint64_t)o->iterations};
    int warmup = o->warmup >= 0 ? o->warmup : c->row_bytes < SMALL_BYTES ? WARMUP_SMALL : WARMUP_LARGE;
    for (int i = 0; i < warmup; i++) perf_issue(thread, c, o->aggregate);
    perf_finish(thread);
    if (o->per_iteration && !(timing.each = calloc(timing.iterations, sizeof(double))))
        perf_die(1, "calloc(%d doubles): out of memory; fewer iterations (-n)", o->iterations);

    double own = o->iterations ? loop(thread, c, timing.iterations, timing.each)
                               : loop_adaptive(thread, c, &timing.iterations);
    struct perf_spread spread =
        perf_side_spread(thread, own / ((double)timing.iterations * o->aggregate));
    switch (o->average) {
    case PERF_RANK0: timing.seconds = spread.first; break;
    case PERF_MEAN: timing.seconds = spread.sum / thread->process->n_threads; break;
    case PERF_FASTEST: timing.seconds = spread.min; break;
    case PERF_SLOWEST: timing.seconds = spread.max; break;
    }
    if (timing.each) collect_each(thread, &timing);
    return timing;
}
