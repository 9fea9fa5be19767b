/* 13_side_by_side.c - two communicators at once, each driven by a thread of its own; they share the wires evenly.
 *
 *     railccl run -n 4 build/bin/examples/13_side_by_side [SECONDS=1] [MEGABYTES=4]
 *
 * A communicator is one thread's at a time. Two communicators are independent: each has its own order of calls. */
#include "example.h"

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

struct work {
    ncclComm_t comm;
    size_t count;
    double seconds, mb_per_s;
    int rank, n;
};

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* All ranks must make the same number of calls, so the time is rank 0's, and it travels with the data: the last element
 * of the sum is not zero once rank 0 has had enough. */
static void *sum_for_a_while(void *argument)
{
    struct work *w = argument;
    float *in = calloc(w->count, sizeof *in), *out = calloc(w->count, sizeof *out);
    MUST(in && out);
    double start = now_s();
    long calls = 0;
    for (bool enough = false; !enough; calls++) {
        in[0] = (float)w->rank;
        in[w->count - 1] = w->rank == 0 && now_s() - start > w->seconds;
        TRY(ncclAllReduce(in, out, w->count, ncclFloat32, ncclSum, w->comm, NULL));
        MUST(out[0] == (float)(w->n * (w->n - 1) / 2));
        enough = out[w->count - 1] > 0;
    }
    w->mb_per_s = 1e-6 * (double)calls * (double)w->count * sizeof *in / (now_s() - start);
    free(in);
    free(out);
    return NULL;
}

int main(int argc, char **argv)
{
    int rank, n;
    ncclComm_t world = join(&rank, &n);
    struct work work[2];
    pthread_t thread[2];
    for (int k = 0; k < 2; k++) {
        work[k] = (struct work){.rank = rank, .n = n, .seconds = argc > 1 ? atof(argv[1]) : 1};
        work[k].count = (size_t)((argc > 2 ? atof(argv[2]) : 4) * 1e6) / sizeof(float);
        MUST(work[k].count > 1 && work[k].seconds > 0);
        TRY(ncclCommSplit(world, 0, rank, &work[k].comm, NULL));
    }
    for (int k = 0; k < 2; k++) MUST(pthread_create(&thread[k], NULL, sum_for_a_while, &work[k]) == 0);
    for (int k = 0; k < 2; k++) pthread_join(thread[k], NULL);
    if (rank == 0)
        printf("two communicators of %d ranks summed %.1f and %.1f MB/s side by side\n", n, work[0].mb_per_s, work[1].mb_per_s);
    for (int k = 0; k < 2; k++) TRY(ncclCommDestroy(work[k].comm));
    TRY(ncclCommDestroy(world));
    return 0;
}
