/* railccl.h - what railccl offers beyond NCCL's interface: who am I, and how do the ranks get their id.
 *
 *     railLaunch_t launch;
 *     ncclUniqueId id;
 *     ncclComm_t comm;
 *     railLaunchInfo(&launch);
 *     railLaunchUniqueId(&launch, &id);
 *     ncclCommInitRank(&comm, launch.nRanks, id, launch.rank);
 *
 * Errors are NCCL's results, with a text in ncclGetLastError(NULL). */
#ifndef RAILCCL_H_
#define RAILCCL_H_

#include "nccl.h"

#ifdef __cplusplus
extern "C" {
#endif

/* railccl's own version, e.g. "0.1.0"; a constant, not to be freed. Any thread. */
const char *railGetVersion(void);

typedef struct railLaunch {
    int rank, nRanks;      /* 0 <= rank < nRanks, over all hosts */
    int localRank, nLocal; /* the same among the ranks of this host; nLocal is 0 when the launcher does not say */
    char source[32];       /* whose variables these are, e.g. "railccl run", "Open MPI", "none" */
} railLaunch_t;

/* Who am I, from the environment; the first found wins: railccl run, Open MPI, PMI/MPICH, Slurm, torchrun
 * (RANK, WORLD_SIZE, LOCAL_RANK). None of them: rank 0 of 1. *launch is written on success only.
 * ncclInvalidArgument: NULL, or variables that are there and contradict one another (the text names them). */
ncclResult_t railLaunchInfo(railLaunch_t *launch);

/* The id of this launch's ranks: rank 0 makes it, the others receive it the same way the launcher tells them who they
 * are (MASTER_ADDR:MASTER_PORT, PMI, RAILCCL_ROOT). Collective: every rank calls it, the same number of times. Waits
 * for rank 0, with a deadline. ncclRemoteError: rank 0 did not come in time; ncclInvalidUsage: this launcher has no way
 * to carry an id (the text says what to set). */
ncclResult_t railLaunchUniqueId(const railLaunch_t *launch, ncclUniqueId *id);

#ifdef __cplusplus
}
#endif

#endif
