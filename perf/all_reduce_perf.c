/* all_reduce_perf.c - AllReduce: every rank ends with the combination of all ranks' inputs.
 *
 * Bus bandwidth: each element must leave its rank and the result must come back, n - 1 combinations and n - 1 copies per
 * element over n ranks: 2 (n - 1) / n times the size crosses each rank's wire, so busbw = algbw * 2 (n - 1) / n. */
#include "collective.h"
#include "values.h"

static struct perf_shape shape(size_t elements, int n_ranks)
{
    (void)n_ranks;
    return (struct perf_shape){.send = elements, .receive = elements, .parameter = elements};
}

static double bus_factor(int n_ranks) { return 2.0 * (n_ranks - 1) / n_ranks; }

static ncclResult_t call(const struct perf_call *c)
{
    return ncclAllReduce(c->send, c->receive, c->count, c->type, c->op, c->comm, c->stream);
}

static bool expect(size_t elements, int n_ranks, int rank, int root, int index, struct perf_block *out)
{
    (void)n_ranks, (void)rank, (void)root;
    *out = (struct perf_block){.offset = 0, .count = elements, .source = VALUES_REDUCED, .first = 0};
    return index == 0;
}

static const struct perf_collective all_reduce = {
    .name = "all_reduce",
    .uses_op = true,
    .shape = shape,
    .bus_factor = bus_factor,
    .call = call,
    .expect = expect,
};

int main(int argc, char **argv) { return perf_main(&all_reduce, argc, argv); }
