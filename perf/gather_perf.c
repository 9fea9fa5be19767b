/* gather_perf.c - Gather: the root ends with all ranks' inputs, one after the other.
 *
 * Bus bandwidth: of the size, which is that of the root's output, the root must take in all but its own part: busbw =
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
    return ncclGather(c->send, c->receive, c->count, c->type, c->root, c->comm, c->stream);
}

static bool expect(size_t elements, int n_ranks, int rank, int root, int index, struct perf_block *out)
{
    size_t block = elements / (size_t)n_ranks;
    *out = (struct perf_block){.offset = block * (size_t)index, .count = block, .source = index, .first = 0};
    return index < n_ranks && rank == root;
}

static const struct perf_collective gather = {
    .name = "gather",
    .uses_root = true,
    .shape = shape,
    .bus_factor = bus_factor,
    .call = call,
    .expect = expect,
};

int main(int argc, char **argv) { return perf_main(&gather, argc, argv); }
