/* 03_threads.c - ranks as threads of one process: no launcher, no id.
 *
 *     build/bin/examples/03_threads
 *
 * ncclCommInitAll makes the communicators of all ranks of this process; each thread then works with its own. */
#include <pthread.h>

#include "example.h"

enum { RANKS = 4, COUNT = 100000 };

static ncclComm_t comms[RANKS];

static void *work(void *arg)
{
    int rank = (int)(size_t)arg;
    double *values = malloc(COUNT * sizeof *values);
    for (int i = 0; i < COUNT; i++) values[i] = rank == i % RANKS ? i : -1;

    TRY(ncclAllReduce(values, values, COUNT, ncclFloat64, ncclMax, comms[rank], NULL));

    for (int i = 0; i < COUNT; i++) MUST(values[i] == i);
    free(values);
    return NULL;
}

int main(void)
{
    TRY(ncclCommInitAll(comms, RANKS, NULL));

    pthread_t threads[RANKS];
    for (int r = 0; r < RANKS; r++) MUST(pthread_create(&threads[r], NULL, work, (void *)(size_t)r) == 0);
    for (int r = 0; r < RANKS; r++) pthread_join(threads[r], NULL);

    /* One thread closes all of them: in a group, because each waits for the others. */
    TRY(ncclGroupStart());
    for (int r = 0; r < RANKS; r++) TRY(ncclCommFinalize(comms[r]));
    TRY(ncclGroupEnd());
    for (int r = 0; r < RANKS; r++) TRY(ncclCommDestroy(comms[r]));
    printf("%d threads put %d numbers together\n", RANKS, COUNT);
    return 0;
}
