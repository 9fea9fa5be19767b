/* broadcast_perf.c - Broadcast: every rank ends with the root's input.
 *
 * Bus bandwidth: the root sends each element at least once, and so does every rank but the last: busbw = algbw. */
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
    return ncclBroadcast(c->send, c->receive, c->count, c->type, c->root, c->comm, c->stream);
}

static bool expect(size_t elements, int n_ranks, int rank, int root, int index, struct perf_block *out)
{
    (void)n_ranks, (void)rank;
    *out = (struct perf_block){.offset = 0, .count = elements, .source = root, .first = 0};
    return index == 0;
}

static const struct perf_collective broadcast = {
    .name = "broadcast",
    .uses_root = true,
    .shape = shape,
    .bus_factor = bus_factor,
    .call = call,
    .expect = expect,
};

int main(int argc, char **argv) { return perf_main(&broadcast, argc, argv); }
