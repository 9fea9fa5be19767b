/* 04_groups.c - one thread that is several ranks.
 *
 *     build/bin/examples/04_groups
 *
 * A call waits for the other ranks, so a thread that calls for rank 0 would wait for ever for the call that it makes
 * next for rank 1. Between GroupStart and GroupEnd calls are only collected; GroupEnd drives them all together. */
#include "example.h"

enum { RANKS = 4 };

int main(void)
{
    ncclComm_t comms[RANKS];
    TRY(ncclCommInitAll(comms, RANKS, NULL));

    int in[RANKS], out[RANKS], all[RANKS][RANKS];
    for (int r = 0; r < RANKS; r++) in[r] = 1 << r;

    /* One operation of all ranks. */
    TRY(ncclGroupStart());
    for (int r = 0; r < RANKS; r++) TRY(ncclAllReduce(&in[r], &out[r], 1, ncclInt32, ncclSum, comms[r], NULL));
    TRY(ncclGroupEnd());
    for (int r = 0; r < RANKS; r++) MUST(out[r] == (1 << RANKS) - 1);

    /* Several operations in one group: those of one communicator run in the order of the calls. */
    TRY(ncclGroupStart());
    for (int r = 0; r < RANKS; r++) {
        TRY(ncclAllGather(&out[r], all[r], 1, ncclInt32, comms[r], NULL));
        TRY(ncclBroadcast(&in[r], &in[r], 1, ncclInt32, RANKS - 1, comms[r], NULL));
    }
    TRY(ncclGroupEnd());
    for (int r = 0; r < RANKS; r++) MUST(in[r] == 1 << (RANKS - 1) && all[r][0] == (1 << RANKS) - 1);

    TRY(ncclGroupStart());
    for (int r = 0; r < RANKS; r++) TRY(ncclCommFinalize(comms[r]));
    TRY(ncclGroupEnd());
    for (int r = 0; r < RANKS; r++) TRY(ncclCommDestroy(comms[r]));
    printf("one thread was %d ranks\n", RANKS);
    return 0;
}
