/* reduce_scatter_perf.c - ReduceScatter: rank r ends with part r of the combination of all ranks' inputs.
 *
 * Bus bandwidth: of the size, which is that of the input, each rank must give away all but its own part: busbw =
 * algbw * (n - 1) / n. */
#include "collective.h"
#include "values.h"

static struct perf_shape shape(size_t elements, int n_ranks)
{
    size_t block = elements / (size_t)n_ranks, all = block * (size_t)n_ranks;
    return (struct perf_shape){.send = all, .receive = block, .parameter = block, .inplace_receive_rank = block};
}

static double bus_factor(int n_ranks) { return (double)(n_ranks - 1) / n_ranks; }

static ncclResult_t call(const struct perf_call *c)
{
    return ncclReduceScatter(c->send, c->receive, c->count, c->type, c->op, c->comm, c->stream);
}

static bool expect(size_t elements, int n_ranks, int rank, int root, int index, struct perf_block *out)
{
    (void)root;
    size_t block = elements / (size_t)n_ranks;
    *out = (struct perf_block){.offset = 0, .count = block, .source = VALUES_REDUCED, .first = block * (size_t)rank};
    return index == 0;
}

static const struct perf_collective reduce_scatter = {
    .name = "reduce_scatter",
    .uses_op = true,
    .shape = shape,
    .bus_factor = bus_factor,
    .call = call,
    .expect = expect,
};

int main(int argc, char **argv) { return perf_main(&reduce_scatter, argc, argv); }
