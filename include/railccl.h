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

/* Who is to be left out by ncclCommShrink: writes the numbers of those ranks of `comm` whose processes are no more,
 * ascending, to ranks[0 ..], which has room for ncclCommCount of them, and how many they are to *n. For a communicator that
 * has failed, is revoked, or is well. Local: asks the other processes' listeners, which takes a round trip, and 25 ms for
 * 64 ranks of which some do not answer; up to 0.2 s where the failure was no death. Whom the failure calls dead is gone, whoever
 * has got its ports since. A rank that is late or stopped is not gone, nor is one that aborted its communicator and lives on.
 * Of a host that does not answer at all the rank is gone that the failure names. Ranks that die meanwhile may be in one
 * survivor's list and not in another's: the shrink then fails and says so. ncclInvalidArgument: NULL, or no communicator. */
ncclResult_t railCommGone(ncclComm_t comm, int *ranks, int *n);

/* Communicators that the calling thread makes from now on have host memory, on a machine with GPUs, too (on != 0), or what
 * RAILCCL_DEVICE says (on == 0, as at first). For a library that moves host memory inside a program that uses GPUs. What is
 * made of a communicator (ncclCommSplit ...) is what that one is. Never fails. */
ncclResult_t railUseHostMemory(int on);

/* Streams of host memory. On a host rank the streams NULL, 1 (legacy) and 2 (per thread) mean "done on return"; a call
 * given a stream from here returns once it is queued, and is run later by a thread of the stream, in order with whatever
 * else was put on that stream. A group whose calls name several streams waits for all of them, and all of them wait for
 * it. Calls of one communicator run in the order they were made, whatever their streams; a call without a stream waits for
 * those before it. Buffers must stay until railStreamSynchronize or railStreamQuery says that they are no longer used.
 * What fails then fails the communicator: ncclCommGetAsyncError tells, as on a GPU.
 *
 * Streams belong to the process that made them: a forked child cannot use them. Any thread may call; destroying a stream
 * while another thread uses it is the caller's mistake. ncclInvalidArgument: no such stream. */

/* Starts a thread. ncclSystemError when that cannot be. */
ncclResult_t railStreamCreate(cudaStream_t *stream);
/* Waits until everything put on the stream so far has been run: done, or failed. */
ncclResult_t railStreamSynchronize(cudaStream_t stream);
/* ncclSuccess when nothing is left to run on it, else ncclInProgress. */
ncclResult_t railStreamQuery(cudaStream_t stream);
/* Waits as railStreamSynchronize does, then ends the stream. */
ncclResult_t railStreamDestroy(cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
