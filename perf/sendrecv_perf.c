/* sendrecv_perf.c - every rank sends to the next and receives from the one before, in one group.
 *
 * Bus bandwidth: the size goes out once and comes in once: busbw = algbw. */
#include "collective.h"
#include "values.h"

static struct perf_shape shape(size_t elements, int n_ranks)
{
    (void)n_ranks;
    return (struct perf_shape){.send = elements, .receive = elements, .parameter = elements};
}

static double bus_factor(int n_ranks) { return n_ranks ? 1 : 0; }

static ncclResult_t call(const struct perf_call *c)
{
    int next = (c->rank + 1) % c->n_ranks, last = (c->rank + c->n_ranks - 1) % c->n_ranks;
    ncclResult_t result = ncclSend(c->send, c->count, c->type, next, c->comm, c->stream);
    return result == ncclSuccess ? ncclRecv(c->receive, c->count, c->type, last, c->comm, c->stream) : result;
}

static bool expect(size_t elements, int n_ranks, int rank, int root, int index, struct perf_block *out)
{
    (void)root;
    *out = (struct perf_block){.offset = 0, .count = elements, .source = (rank + n_ranks - 1) % n_ranks, .first = 0};
    return index == 0;
}

static const struct perf_collective sendrecv = {
    .name = "sendrecv",
    .no_in_place = true,
    .several = true,
    .shape = shape,
    .bus_factor = bus_factor,
    .call = call,
    .expect = expect,
};

int main(int argc, char **argv) { return perf_main(&sendrecv, argc, argv); }
