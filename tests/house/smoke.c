/* smoke.c - two ranks as threads of one process sum a vector through the public interface. Exit status 0: exact. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "nccl.h"
#include "railccl.h"

enum { RANKS = 2, COUNT = 100003 }; /* a prime: no chunking divides it */

struct rank {
    ncclUniqueId id;
    int number;
    int wrong;
    pthread_t thread;
};

static int must(ncclResult_t result, const char *what)
{
    if (result == ncclSuccess) return 0;
    printf("%s: %s: %s\n", what, ncclGetErrorString(result), ncclGetLastError(NULL));
    exit(1);
}

static void *run(void *argument)
{
    struct rank *me = argument;
    ncclComm_t comm;
    int *values = malloc(COUNT * sizeof *values);
    if (values == NULL) exit(1);
    for (int i = 0; i < COUNT; i++) values[i] = i * (me->number + 1);
    must(ncclCommInitRank(&comm, RANKS, me->id, me->number), "ncclCommInitRank");
    must(ncclAllReduce(values, values, COUNT, ncclInt32, ncclSum, comm, NULL), "ncclAllReduce");
    for (int i = 0; i < COUNT; i++) me->wrong += values[i] != i * 3;
    must(ncclCommDestroy(comm), "ncclCommDestroy");
    free(values);
    return NULL;
}

int main(void)
{
    struct rank ranks[RANKS];
    int version, wrong = 0;
    ncclUniqueId id;
    must(ncclGetVersion(&version), "ncclGetVersion");
    must(ncclGetUniqueId(&id), "ncclGetUniqueId");
    for (int r = 0; r < RANKS; r++) {
        ranks[r] = (struct rank){.id = id, .number = r};
        if (pthread_create(&ranks[r].thread, NULL, run, &ranks[r]) != 0) return 1;
    }
    for (int r = 0; r < RANKS; r++) {
        pthread_join(ranks[r].thread, NULL);
        wrong += ranks[r].wrong;
    }
    printf("NCCL interface %d, railccl %s: %d ranks, %d elements, %d wrong\n", version, railGetVersion(), RANKS, COUNT, wrong);
    return wrong != 0;
}
