/* all_gather_perf.c - AllGather: every rank ends with all ranks' inputs, one after the other.
 *
 * Bus bandwidth: of the size, which is that of the output, each rank must take in all but its own part: busbw =
 * algbw * (n - 1) / n. */
#include "collective.h"
#include "values.h"

static struct perf_shape shape(size_t elements, int n_ranks)
{
    size_t block = elements / (size_t)n_ranks, all = block * (size_t)n_ranks;
    return (struct perf_shape){.send = block, .receive = all, .parameter = block, .inplace_send_rank = block};
}

static double bus_factor(int n_ranks) { return (double)(n_ranks - 1) / n_ranks; }

static ncclResult_t call(const struct perf_call *c)
{
    return ncclAllGather(c->send, c->receive, c->count, c->type, c->comm, c->stream);
}

static bool expect(size_t elements, int n_ranks, int rank, int root, int index, struct perf_block *out)
{
    (void)rank, (void)root;
    size_t block = elements / (size_t)n_ranks;
    *out = (struct perf_block){.offset = block * (size_t)index, .count = block, .source = index, .first = 0};
    return index < n_ranks;
}

static const struct perf_collective all_gather = {
    .name = "all_gather",
    .shape = shape,
    .bus_factor = bus_factor,
    .call = call,
    .expect = expect,
};

int main(int argc, char **argv) { return perf_main(&all_gather, argc, argv); }
