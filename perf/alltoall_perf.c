/* alltoall_perf.c - AlltoAll: block k of a rank's input goes to rank k, which has one from everybody.
 *
 * Bus bandwidth: of the size, which is that of either buffer, each rank must send, and take in, all but its own block:
 * busbw = algbw * (n - 1) / n. */
#include "collective.h"
#include "values.h"

static struct perf_shape shape(size_t elements, int n_ranks)
{
    size_t block = elements / (size_t)n_ranks, all = block * (size_t)n_ranks;
    return (struct perf_shape){.send = all, .receive = all, .parameter = block};
}

static double bus_factor(int n_ranks) { return (double)(n_ranks - 1) / n_ranks; }

static ncclResult_t call(const struct perf_call *c)
{
    return ncclAlltoAll(c->send, c->receive, c->count, c->type, c->comm, c->stream);
}

static bool expect(size_t elements, int n_ranks, int rank, int root, int index, struct perf_block *out)
{
    (void)root;
    size_t block = elements / (size_t)n_ranks;
    *out = (struct perf_block){
        .offset = block * (size_t)index, .count = block, .source = index, .first = block * (size_t)rank};
    return index < n_ranks;
}

static const struct perf_collective alltoall = {
    .name = "alltoall",
    .no_in_place = true,
    .shape = shape,
    .bus_factor = bus_factor,
    .call = call,
    .expect = expect,
};

int main(int argc, char **argv) { return perf_main(&alltoall, argc, argv); }
