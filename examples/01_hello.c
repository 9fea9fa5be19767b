/* 01_hello.c - the first idea: n processes, one sum.
 *
 *     railccl run -n 4 build/bin/examples/01_hello      (or mpirun, srun, torchrun)
 *
 * Every rank brings its number; after AllReduce every rank has the sum of all. */
#include "example.h"

int main(void)
{
    /* Who am I? The launcher has said so in the environment. */
    railLaunch_t launch;
    TRY(railLaunchInfo(&launch));

    /* How do we find one another? Rank 0 makes an id and the launcher's way carries it to the others. A program that
     * has its own way (a file, a socket, MPI) calls ncclGetUniqueId on rank 0 and sends the 128 bytes along. */
    ncclUniqueId id;
    TRY(railLaunchUniqueId(&launch, &id));

    /* Join: returns when all ranks are there. */
    ncclComm_t comm;
    TRY(ncclCommInitRank(&comm, launch.nRanks, id, launch.rank));

    float mine = (float)launch.rank, sum = -1;
    TRY(ncclAllReduce(&mine, &sum, 1, ncclFloat32, ncclSum, comm, NULL));

    /* Stream NULL: complete when the call has returned. */
    MUST(sum == (float)(launch.nRanks * (launch.nRanks - 1) / 2));
    if (launch.rank == 0) printf("the sum of 0 .. %d is %g, and every rank knows\n", launch.nRanks - 1, sum);

    TRY(ncclCommDestroy(comm));
    return 0;
}
