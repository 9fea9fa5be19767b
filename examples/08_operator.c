/* 08_operator.c - an operator of one's own: every rank's input times a factor, summed. A weighted mean.
 *
 *     railccl run -n 4 build/bin/examples/08_operator
 *
 * Rank r has seen r + 1 samples and knows their mean; the mean of all samples weighs each rank's by its share. */
#include "example.h"

enum { COUNT = 5 };

int main(void)
{
    int rank, n;
    ncclComm_t comm = join(&rank, &n);

    int samples = rank + 1, total = 0;
    TRY(ncclAllReduce(&samples, &total, 1, ncclInt32, ncclSum, comm, NULL));

    double mean[COUNT], weight = (double)samples / total;
    for (int i = 0; i < COUNT; i++) mean[i] = 10 * i + rank;

    /* The factor may differ from rank to rank; HostImmediate: it is read before the call returns. */
    ncclRedOp_t weighted;
    TRY(ncclRedOpCreatePreMulSum(&weighted, &weight, ncclFloat64, ncclScalarHostImmediate, comm));
    TRY(ncclAllReduce(mean, mean, COUNT, ncclFloat64, weighted, comm, NULL));
    TRY(ncclRedOpDestroy(weighted, comm));

    double of_ranks = 0;
    for (int r = 0; r < n; r++) of_ranks += (double)r * (r + 1) / total;
    for (int i = 0; i < COUNT; i++) {
        double error = mean[i] - (10 * i + of_ranks);
        MUST(error < 1e-9 && error > -1e-9);
    }
    if (rank == 0) printf("the mean over %d samples of %d ranks ends in %g\n", total, n, mean[0]);
    TRY(ncclCommDestroy(comm));
    return 0;
}
