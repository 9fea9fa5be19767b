/* 09_errors.c - when something goes wrong.
 *
 *     railccl run -n 4 build/bin/examples/09_errors
 *
 * A bad argument is refused at once and harms nothing. A rank that never comes is waited for, as everywhere; whoever has
 * waited long enough ends the communicator from another thread, and the waiting call returns. */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "example.h"

static void *give_up(void *comm)
{
    usleep(300 * 1000);
    /* Any thread may ask, and any thread may abort. Nothing has failed so far: everybody is only waiting. */
    ncclResult_t state;
    TRY(ncclCommGetAsyncError(comm, &state));
    MUST(state == ncclSuccess || state == ncclRemoteError); /* unless another rank gave up first */
    TRY(ncclCommAbort(comm)); /* frees it, too */
    return NULL;
}

int main(void)
{
    int rank, n;
    ncclComm_t comm = join(&rank, &n);
    float x = 1;

    /* The text names the call, the value, and what would be right. */
    ncclResult_t result = ncclAllReduce(&x, &x, 1, (ncclDataType_t)99, ncclSum, comm, NULL);
    MUST(result == ncclInvalidArgument && strstr(ncclGetLastError(NULL), "99"));
    if (rank == 0) printf("refused: %s\n", ncclGetLastError(NULL));
    TRY(ncclAllReduce(&x, &x, 1, ncclFloat32, ncclSum, comm, NULL)); /* all is as before */
    MUST(x == (float)n);

    /* The last rank does not come to this one; it goes away with the program's end. */
    if (rank == n - 1) {
        sleep(1);
        return 0;
    }
    pthread_t watcher;
    MUST(pthread_create(&watcher, NULL, give_up, comm) == 0);
    result = ncclAllReduce(&x, &x, 1, ncclFloat32, ncclSum, comm, NULL);
    MUST(result != ncclSuccess || n == 1);
    if (rank == 0) printf("given up: %s: %s\n", ncclGetErrorString(result), ncclGetLastError(NULL));
    pthread_join(watcher, NULL);
    return 0;
}
