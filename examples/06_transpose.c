/* 06_transpose.c - everybody to everybody: a matrix whose rows are spread over the ranks is transposed by AlltoAll.
 *
 *     railccl run -n 4 build/bin/examples/06_transpose
 *
 * Rank r owns TILE rows of an N x N matrix, N = n * TILE. The TILE x TILE block in the columns of rank s travels to
 * rank s; each block is turned at home. */
#include "example.h"

enum { TILE = 32 };

int main(void)
{
    int rank, n;
    ncclComm_t comm = join(&rank, &n);

    size_t block = TILE * TILE;
    float *send = malloc((size_t)n * block * sizeof *send), *receive = malloc((size_t)n * block * sizeof *receive);

    /* a[row][column] = row + column / 4096, cut into blocks, each turned already. */
    for (int s = 0; s < n; s++)
        for (int i = 0; i < TILE; i++)
            for (int j = 0; j < TILE; j++) {
                int row = rank * TILE + i, column = s * TILE + j;
                send[(size_t)s * block + (size_t)(j * TILE + i)] = (float)row + (float)column / 4096;
            }

    /* Block s of `send` goes to rank s; block r of `receive` comes from rank r. */
    TRY(ncclAlltoAll(send, receive, block, ncclFloat32, comm, NULL));

    /* Now I own rows rank * TILE .. of the transposed: what was a column is a row. */
    for (int r = 0; r < n; r++)
        for (int i = 0; i < TILE; i++)
            for (int j = 0; j < TILE; j++) {
                int row = rank * TILE + i, column = r * TILE + j;
                MUST(receive[(size_t)r * block + (size_t)(i * TILE + j)] == (float)column + (float)row / 4096);
            }

    if (rank == 0) printf("a %d x %d matrix was transposed by %d ranks\n", n * TILE, n * TILE, n);
    free(send);
    free(receive);
    TRY(ncclCommDestroy(comm));
    return 0;
}
