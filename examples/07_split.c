/* 07_split.c - communicators out of a communicator: the ranks as a grid, with one communicator per row and per column.
 *
 *     railccl run -n 4 build/bin/examples/07_split
 *
 * Ranks that pass the same color to ncclCommSplit come together, ordered by key. */
#include "example.h"

int main(void)
{
    int rank, n;
    ncclComm_t world = join(&rank, &n);

    int columns = n % 2 == 0 ? 2 : 1, row = rank / columns, column = rank % columns;
    ncclComm_t my_row, my_column;
    TRY(ncclCommSplit(world, row, column, &my_row, NULL));
    TRY(ncclCommSplit(world, column, row, &my_column, NULL));

    int in_row, rows;
    TRY(ncclCommUserRank(my_row, &in_row));
    TRY(ncclCommCount(my_column, &rows));
    MUST(in_row == column && rows == n / columns);

    /* Sums over my row, then over my column: together the sum over everybody. */
    double value = rank, across = 0, down = 0;
    TRY(ncclAllReduce(&value, &across, 1, ncclFloat64, ncclSum, my_row, NULL));
    TRY(ncclAllReduce(&across, &down, 1, ncclFloat64, ncclSum, my_column, NULL));
    MUST(down == (double)n * (n - 1) / 2);

    /* Who wants to be in no part takes part all the same, and gets none. */
    ncclComm_t leaders;
    TRY(ncclCommSplit(world, column == 0 ? 0 : NCCL_SPLIT_NOCOLOR, rank, &leaders, NULL));
    MUST((leaders != NULL) == (column == 0));

    if (rank == 0) printf("%d ranks as %d rows of %d\n", n, rows, columns);
    TRY(ncclCommDestroy(leaders)); /* NULL is fine */
    TRY(ncclCommDestroy(my_column));
    TRY(ncclCommDestroy(my_row));
    TRY(ncclCommDestroy(world));
    return 0;
}
