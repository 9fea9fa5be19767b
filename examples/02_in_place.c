/* 02_in_place.c - blocks: ReduceScatter gives every rank one block of the sum, AllGather gives everybody all blocks.
 *
 *     railccl run -n 4 build/bin/examples/02_in_place
 *
 * One after the other they are an AllReduce, which is how large AllReduces work inside. Both may be done in place, in
 * the rank's own block of the large buffer. */
#include "example.h"

enum { BLOCK = 1000 };

int main(void)
{
    int rank, n;
    ncclComm_t comm = join(&rank, &n);

    size_t count = (size_t)n * BLOCK;
    int *data = malloc(count * sizeof *data), *mine = data + rank * BLOCK;
    for (size_t i = 0; i < count; i++) data[i] = (int)i + rank;

    /* receive == send + rank * count: in place. Only my block is defined afterwards. */
    TRY(ncclReduceScatter(data, mine, BLOCK, ncclInt32, ncclSum, comm, NULL));
    for (int i = 0; i < BLOCK; i++) MUST(mine[i] == n * (rank * BLOCK + i) + n * (n - 1) / 2);

    /* Each works on its own block ... */
    for (int i = 0; i < BLOCK; i++) mine[i] *= 2;

    /* ... and shows it to everybody. send == receive + rank * count: in place again. */
    TRY(ncclAllGather(mine, data, BLOCK, ncclInt32, comm, NULL));
    for (size_t i = 0; i < count; i++) MUST(data[i] == 2 * (n * (int)i + n * (n - 1) / 2));

    if (rank == 0) printf("%d ranks summed %zu numbers, a block of %d each\n", n, count, BLOCK);
    free(data);
    TRY(ncclCommDestroy(comm));
    return 0;
}
