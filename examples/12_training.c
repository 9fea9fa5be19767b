/* 12_training.c - the last idea: data-parallel training, small enough to read.
 *
 *     railccl run -n 4 build/bin/examples/12_training
 *
 * Every rank has the same model and its own share of the samples. In each step it computes the gradient of its share;
 * the mean over ranks is the gradient of all samples, and all ranks make the same step. Results of AllReduce have the
 * same bits on all ranks, so the models never drift apart. */
#include <math.h>

#include "example.h"

enum { WEIGHTS = 8, SHARE = 256, STEPS = 300 };

/* A reproducible stream of numbers in -1 .. 1. */
static double noise(unsigned *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (double)(*state >> 8) / (1 << 23) - 1;
}

int main(void)
{
    int rank, n;
    ncclComm_t comm = join(&rank, &n);

    /* y = w . x with weights to be found: 1, -2, 3, -4 ... */
    static double x[SHARE][WEIGHTS], y[SHARE];
    unsigned seed = 17u + (unsigned)rank;
    for (int s = 0; s < SHARE; s++)
        for (int k = 0; k < WEIGHTS; k++) {
            x[s][k] = noise(&seed);
            y[s] += x[s][k] * (k % 2 ? -(k + 1) : k + 1);
        }

    /* Everybody starts from rank 0's weights. */
    double w[WEIGHTS];
    for (int k = 0; k < WEIGHTS; k++) w[k] = noise(&seed);
    TRY(ncclBroadcast(w, w, WEIGHTS, ncclFloat64, 0, comm, NULL));

    double loss[1 + WEIGHTS]; /* the loss, and behind it its gradient: one message for both */
    for (int step = 0; step < STEPS; step++) {
        for (int k = 0; k <= WEIGHTS; k++) loss[k] = 0;
        for (int s = 0; s < SHARE; s++) {
            double error = -y[s];
            for (int k = 0; k < WEIGHTS; k++) error += w[k] * x[s][k];
            loss[0] += error * error / SHARE;
            for (int k = 0; k < WEIGHTS; k++) loss[1 + k] += 2 * error * x[s][k] / SHARE;
        }
        TRY(ncclAllReduce(loss, loss, 1 + WEIGHTS, ncclFloat64, ncclAvg, comm, NULL));
        for (int k = 0; k < WEIGHTS; k++) w[k] -= 0.3 * loss[1 + k];
        if (rank == 0 && step % 100 == 0) printf("step %3d: loss %.3g\n", step, loss[0]);
    }

    MUST(loss[0] < 1e-9);
    for (int k = 0; k < WEIGHTS; k++) MUST(fabs(w[k] - (k % 2 ? -(k + 1) : k + 1)) < 1e-4);
    if (rank == 0) printf("%d ranks learned %d weights from %d samples\n", n, WEIGHTS, n * SHARE);
    TRY(ncclCommDestroy(comm));
    return 0;
}
