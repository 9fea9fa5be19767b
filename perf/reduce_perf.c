/* reduce_perf.c - Reduce: the root ends with the combination of all ranks' inputs.
 *
 * Bus bandwidth: every rank but the root sends each element, its own or a combination, once: busbw = algbw. */
#include "collective.h"
#include "values.h"

static struct perf_shape shape(size_t elements, int n_ranks)
{
    (void)n_ranks;
    return (struct perf_shape){.send = elements, .receive = elements, .parameter = elements};
}

static double bus_factor(int n_ranks)
{
    (void)n_ranks;
    return 1;
}

static ncclResult_t call(const struct perf_call *c)
{
    return ncclReduce(c->send, c->receive, c->count, c->type, c->op, c->root, c->comm, c->stream);
}

static bool expect(size_t elements, int n_ranks, int rank, int root, int index, struct perf_block *out)
{
    (void)n_ranks;
    *out = (struct perf_block){.offset = 0, .count = elements, .source = VALUES_REDUCED, .first = 0};
    return index == 0 && rank == root;
}

static const struct perf_collective reduce = {
    .name = "reduce",
    .uses_op = true,
    .uses_root = true,
    .shape = shape,
    .bus_factor = bus_factor,
    .call = call,
    .expect = expect,
};

int main(int argc, char **argv) { return perf_main(&reduce, argc, argv); }
