/* 05_ring.c - from one rank to another: Send and Recv.
 *
 *     railccl run -n 4 build/bin/examples/05_ring
 *
 * Every rank sends to its right neighbour and receives from its left one. Alone, a Send waits for its Recv, and a ring
 * of ranks that all send first would stand still; in one group the two run side by side. After n - 1 such steps every
 * rank has seen every rank's block. */
#include "example.h"

enum { COUNT = 4096 };

int main(void)
{
    int rank, n;
    ncclComm_t comm = join(&rank, &n);
    int right = (rank + 1) % n, left = (rank + n - 1) % n;

    int *holding = malloc(COUNT * sizeof *holding), *arriving = malloc(COUNT * sizeof *arriving);
    for (int i = 0; i < COUNT; i++) holding[i] = rank * 10000 + i;

    for (int step = 1; step < n; step++) {
        TRY(ncclGroupStart());
        TRY(ncclSend(holding, COUNT, ncclInt32, right, comm, NULL));
        TRY(ncclRecv(arriving, COUNT, ncclInt32, left, comm, NULL));
        TRY(ncclGroupEnd());

        int from = (rank + n - step) % n; /* whose block has come round to me */
        for (int i = 0; i < COUNT; i++) MUST(arriving[i] == from * 10000 + i);
        int *seen = holding;
        holding = arriving;
        arriving = seen;
    }

    if (rank == 0) printf("%d blocks went round a ring of %d ranks\n", n, n);
    free(holding);
    free(arriving);
    TRY(ncclCommDestroy(comm));
    return 0;
}
