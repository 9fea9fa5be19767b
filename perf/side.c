/* side.c - numbers from thread to thread, over the communicator that is being measured, between the timed parts.
 *
 * This trusts the library that is on trial. So every sum carries along a one from each thread: when the ones do not add
 * up, the run ends with an error. And each process lets its exit status be decided by what it has seen itself. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

/* Memory that grows: pinned where ranks are on GPUs, so that the thread and they reach it. */
static double *side_memory(struct perf_thread *thread, size_t bytes)
{
    struct perf_gpu *gpu = thread->ranks[0].gpu;
    if (bytes <= thread->side_bytes) return thread->side;
    perf_threads_meet(thread); /* every thread has waited for its own, and asks for as much */
    perf_side_free(thread);
    thread->side = gpu ? perf_gpu_pinned_alloc(gpu, bytes) : malloc(bytes);
    if (!thread->side) perf_die(1, "%zu bytes for times: out of memory", bytes);
    thread->side_bytes = bytes;
    perf_threads_meet(thread);
    return thread->side;
}

void perf_side_free(struct perf_thread *thread)
{
    struct perf_gpu *gpu = thread->ranks[0].gpu;
    if (gpu && thread->side) perf_gpu_pinned_free(gpu, thread->side);
    else free(thread->side);
    thread->side = NULL;
    thread->side_bytes = 0;
}

void perf_side_reduce(struct perf_thread *thread, double *value, size_t count, enum perf_side how)
{
    int n = thread->process->options->ranks_per_thread;
    size_t length = count + 1; /* the last one is the canary */
    double *all = side_memory(thread, sizeof *all * length * (size_t)n);
    for (int r = 0; r < n; r++) {
        double *own = all + length * (size_t)r;
        for (size_t i = 0; i < count; i++) own[i] = how == PERF_SIDE_SUM && r > 0 ? 0 : value[i];
        own[count] = how == PERF_SIDE_SUM && r > 0 ? 0 : 1;
    }
    if (n > 1) perf_must(&thread->ranks[0], "ncclGroupStart", ncclGroupStart());
    for (int r = 0; r < n; r++) {
        double *own = all + length * (size_t)r;
        perf_gpu_use(thread->ranks[r].gpu);
        perf_must(&thread->ranks[r], "ncclAllReduce (of times)",
                  ncclAllReduce(own, own, length, ncclFloat64, how == PERF_SIDE_SUM ? ncclSum : ncclMax,
                                thread->ranks[r].comm, thread->ranks[r].stream));
    }
    if (n > 1) perf_must(&thread->ranks[0], "ncclGroupEnd", ncclGroupEnd());
    perf_finish(thread);
    double canary = how == PERF_SIDE_SUM ? thread->process->n_threads : 1;
    if (all[count] != canary)
        perf_die(1, "rank %d: an AllReduce of %zu doubles (%s) gave %g for the last one, expected %g: "
                    "results cannot be collected", thread->ranks[0].rank, length,
                 how == PERF_SIDE_SUM ? "sum of ones" : "maximum of ones", all[count], canary);
    memcpy(value, all, sizeof *value * count);
}

struct perf_spread perf_side_spread(struct perf_thread *thread, double value)
{
    bool first = thread->process->printer && thread->index == 0;
    double sums[2] = {value, first ? value : 0}, extremes[2] = {value, -value};
    perf_side_reduce(thread, sums, 2, PERF_SIDE_SUM);
    perf_side_reduce(thread, extremes, 2, PERF_SIDE_MAX);
    return (struct perf_spread){.sum = sums[0], .first = sums[1], .max = extremes[0], .min = -extremes[1]};
}

void perf_side_barrier(struct perf_thread *thread)
{
    double nothing = 0;
    perf_side_reduce(thread, &nothing, 1, PERF_SIDE_SUM);
}

void perf_side_gather(struct perf_thread *thread, const char *own, size_t bytes, char *all)
{
    /* A byte is a small whole number, and all but one contribution to it are zero. */
    size_t n = thread->process->n_ranks, each = thread->process->options->ranks_per_thread;
    double *wide = calloc(n * bytes, sizeof *wide);
    if (!wide) perf_die(1, "calloc(%zu): out of memory", n * bytes * sizeof *wide);
    for (size_t r = 0; r < each; r++)
        for (size_t i = 0; i < bytes; i++)
            wide[(size_t)thread->ranks[r].rank * bytes + i] = (unsigned char)own[r * bytes + i];
    perf_side_reduce(thread, wide, n * bytes, PERF_SIDE_SUM);
    for (size_t i = 0; i < n * bytes; i++) all[i] = (char)(unsigned char)wide[i];
    free(wide);
}
