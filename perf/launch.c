/* launch.c - who am I among the processes, and the communicators: ranks = processes x threads x ranks per thread. */
#include <stdio.h>

#include "program.h"

void perf_launch(struct perf_process *process)
{
    const struct perf_options *o = process->options;
    perf_must(NULL, "railLaunchInfo", railLaunchInfo(&process->launch));
    int here = o->threads * o->ranks_per_thread;
    process->n_ranks = process->launch.nRanks * here;
    process->n_threads = process->launch.nRanks * o->threads;
    process->first_rank = process->launch.rank * here;
    process->printer = process->launch.rank == 0;
    perf_must(NULL, "railLaunchUniqueId", railLaunchUniqueId(&process->launch, &process->id));
}

/* Starts the communicators of threads first .. first + n_threads - 1 as one group. */
void perf_communicators_create(struct perf_process *process, struct perf_thread *threads, int first, int n_threads)
{
    int each = process->options->ranks_per_thread;
    bool grouped = each * n_threads > 1;
    if (grouped) perf_must(NULL, "ncclGroupStart", ncclGroupStart());
    for (int t = first; t < first + n_threads; t++) {
        for (int r = 0; r < each; r++) {
            struct perf_rank *rank = &threads[t].ranks[r];
            rank->rank = process->first_rank + t * each + r;
            rank->gpu = perf_gpu_open((process->launch.localRank * process->options->threads + t) * each + r);
            if (rank->gpu) rank->stream = perf_gpu_stream(rank->gpu);
            perf_must(rank, "ncclCommInitRank", ncclCommInitRank(&rank->comm, process->n_ranks, process->id, rank->rank));
        }
    }
    if (grouped) perf_must(NULL, "ncclGroupEnd (ncclCommInitRank)", ncclGroupEnd());
}

void perf_communicators_destroy(struct perf_thread *thread)
{
    int n = thread->process->options->ranks_per_thread;
    if (n > 1) perf_must(&thread->ranks[0], "ncclGroupStart", ncclGroupStart());
    for (int r = 0; r < n; r++)
        perf_must(&thread->ranks[r], "ncclCommDestroy", ncclCommDestroy(thread->ranks[r].comm));
    if (n > 1) perf_must(&thread->ranks[0], "ncclGroupEnd", ncclGroupEnd());
    for (int r = 0; r < n; r++) perf_gpu_close(thread->ranks[r].gpu);
}
