/* 10_nonblocking.c - calls that return at once.
 *
 *     railccl run -n 4 build/bin/examples/10_nonblocking
 *
 * With blocking = 0 making a communicator returns ncclInProgress; the program does other things and asks now and then
 * with ncclCommGetAsyncError. A thread that must not hang, or that has a window to draw, works like this. */
#include <time.h>

#include "example.h"

/* Works on something else until the communicator is ready; returns how often it asked. */
static int until_ready(ncclComm_t comm)
{
    ncclResult_t state = ncclInProgress;
    int asked = 0;
    for (; state == ncclInProgress; asked++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL); /* something else */
        TRY(ncclCommGetAsyncError(comm, &state));
    }
    if (state != ncclSuccess) {
        fprintf(stderr, "%s: %s\n", ncclGetErrorString(state), ncclGetLastError(comm));
        exit(1);
    }
    return asked;
}

static void started(ncclResult_t result) { MUST(result == ncclSuccess || result == ncclInProgress); }

int main(void)
{
    railLaunch_t launch;
    ncclUniqueId id;
    TRY(railLaunchInfo(&launch));
    TRY(railLaunchUniqueId(&launch, &id));

    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t comm;
    started(ncclCommInitRankConfig(&comm, launch.nRanks, id, launch.rank, &config));
    int asked = until_ready(comm);
    if (launch.rank == 0) printf("joined after asking %d times\n", asked);

    int value = launch.rank, sum = 0;
    started(ncclAllReduce(&value, &sum, 1, ncclInt32, ncclSum, comm, NULL));
    until_ready(comm);
    MUST(sum == launch.nRanks * (launch.nRanks - 1) / 2);

    started(ncclCommFinalize(comm)); /* so that Destroy has nothing left to wait for */
    until_ready(comm);
    TRY(ncclCommDestroy(comm));
    if (launch.rank == 0) printf("%d ranks never waited inside a call\n", launch.nRanks);
    return 0;
}
