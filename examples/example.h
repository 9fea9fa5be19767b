/* example.h - what the examples would otherwise all repeat: stop with the library's words, and join the others. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <stdio.h>
#include <stdlib.h>

#include <nccl.h>
#include <railccl.h>

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        ncclResult_t result_ = (call);                                                                                 \
        if (result_ != ncclSuccess) {                                                                                  \
            fprintf(stderr, #call ": %s: %s\n", ncclGetErrorString(result_), ncclGetLastError(NULL));                  \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* Every example knows what must come out. */
#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                    \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The ranks of this launch as one communicator: see 01_hello.c, which says it step by step. */
static inline ncclComm_t join(int *rank, int *n)
{
    railLaunch_t launch;
    ncclUniqueId id;
    ncclComm_t comm;
    TRY(railLaunchInfo(&launch));
    TRY(railLaunchUniqueId(&launch, &id));
    TRY(ncclCommInitRank(&comm, launch.nRanks, id, launch.rank));
    *rank = launch.rank;
    *n = launch.nRanks;
    return comm;
}

#endif
