/* 11_halo.c - one-sided: each rank writes its border into its neighbours' memory and raises a signal there.
 *
 *     railccl run -n 4 build/bin/examples/11_halo
 *
 * Heat spreads along a rod that is cut into n pieces. A piece needs one cell of each neighbour per step: the neighbour
 * puts it there, and nobody has to receive. Two halves of the window take turns, so that a fast neighbour never writes
 * what a slow one still reads. */
#include <stddef.h>

#include "example.h"

enum { CELLS = 64, STEPS = 200 };

/* The window: for each parity of the step, the cell from the left and the cell from the right. */
struct halo { double from_left[2], from_right[2]; };

int main(void)
{
    int rank, n;
    ncclComm_t comm = join(&rank, &n);
    int left = rank - 1, right = rank + 1;

    struct halo *halo;
    ncclWindow_t window;
    TRY(ncclMemAlloc((void **)&halo, sizeof *halo));
    TRY(ncclCommWindowRegister(comm, halo, sizeof *halo, &window, NCCL_WIN_DEFAULT));

    double heat[CELLS + 2] = {0}, next[CELLS + 2] = {0};
    if (rank == 0) heat[1] = 1000; /* all of it in the first cell */

    for (int step = 0; step < STEPS; step++) {
        int half = step % 2;
        ncclWaitSignalDesc_t from[2];
        int waits = 0;
        if (left >= 0) {
            size_t at = offsetof(struct halo, from_right) + (size_t)half * sizeof(double);
            TRY(ncclPutSignal(&heat[1], 1, ncclFloat64, left, window, at, 0, 0, 0, comm, NULL));
            from[waits++] = (ncclWaitSignalDesc_t){.opCnt = 1, .peer = left};
        }
        if (right < n) {
            size_t at = offsetof(struct halo, from_left) + (size_t)half * sizeof(double);
            TRY(ncclPutSignal(&heat[CELLS], 1, ncclFloat64, right, window, at, 0, 0, 0, comm, NULL));
            from[waits++] = (ncclWaitSignalDesc_t){.opCnt = 1, .peer = right};
        }
        if (waits) TRY(ncclWaitSignal(waits, from, comm, NULL));

        heat[0] = left >= 0 ? halo->from_left[half] : heat[1]; /* the rod's ends lose nothing */
        heat[CELLS + 1] = right < n ? halo->from_right[half] : heat[CELLS];
        for (int i = 1; i <= CELLS; i++) next[i] = heat[i] + 0.25 * (heat[i - 1] - 2 * heat[i] + heat[i + 1]);
        for (int i = 1; i <= CELLS; i++) heat[i] = next[i];
    }

    double mine = 0, total = 0;
    for (int i = 1; i <= CELLS; i++) mine += heat[i];
    TRY(ncclAllReduce(&mine, &total, 1, ncclFloat64, ncclSum, comm, NULL));
    MUST(total > 999.999 && total < 1000.001); /* heat moves, and none is lost */
    if (rank == 0) printf("after %d steps %d pieces hold %g together\n", STEPS, n, total);

    TRY(ncclCommWindowDeregister(comm, window));
    TRY(ncclMemFree(halo));
    TRY(ncclCommDestroy(comm));
    return 0;
}
