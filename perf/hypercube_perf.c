/* hypercube_perf.c - AllGather along the edges of a hypercube: in round k a rank swaps all that it has with the rank
 * whose number differs in bit k, by Send and Recv; after log2(n) rounds it has everything. The number of ranks is a power of
 * two.
 *
 * Bus bandwidth: as nccl-tests gives it, busbw = algbw, of the size of the output. */
#include <string.h>

#include "collective.h"
#include "gpu.h"
#include "types.h"
#include "values.h"

static struct perf_shape shape(size_t elements, int n_ranks)
{
    size_t block = elements / (size_t)n_ranks, all = block * (size_t)n_ranks;
    return (struct perf_shape){.send = block, .receive = all, .parameter = block, .inplace_send_rank = block};
}

static double bus_factor(int n_ranks) { return n_ranks ? 1 : 0; }

static int rounds(int n_ranks)
{
    int k = 0;
    while (n_ranks >> (k + 1)) k++;
    return k ? k : 1; /* one rank: its own block all the same */
}

static const char *unfit(int n_ranks)
{
    return n_ranks & (n_ranks - 1) ? "the number of ranks must be a power of two" : NULL;
}

static ncclResult_t call(const struct perf_call *c)
{
    size_t block_bytes = c->count * perf_type_bytes((int)c->type);
    size_t mine = (size_t)c->rank & ~(((size_t)1 << c->round) - 1);
    char *out = c->receive;
    char *own = out + block_bytes * (size_t)c->rank;
    if (c->round == 0 && own != c->send && block_bytes) {
        if (c->gpu) perf_gpu_copy_later(c->gpu, own, c->send, block_bytes);
        else memcpy(own, c->send, block_bytes);
    }
    int bit = 1 << c->round, peer = c->rank ^ bit;
    if (peer >= c->n_ranks) return ncclSuccess;
    size_t theirs = mine ^ (size_t)bit, count = c->count << c->round;
    ncclResult_t result = ncclSend(out + block_bytes * mine, count, c->type, peer, c->comm, c->stream);
    if (result != ncclSuccess) return result;
    return ncclRecv(out + block_bytes * theirs, count, c->type, peer, c->comm, c->stream);
}

static bool expect(size_t elements, int n_ranks, int rank, int root, int index, struct perf_block *out)
{
    (void)rank, (void)root;
    size_t block = elements / (size_t)n_ranks;
    *out = (struct perf_block){.offset = block * (size_t)index, .count = block, .source = index, .first = 0};
    return index < n_ranks;
}

static const struct perf_collective hypercube = {
    .name = "hypercube",
    .several = true,
    .rounds = rounds,
    .unfit = unfit,
    .shape = shape,
    .bus_factor = bus_factor,
    .call = call,
    .expect = expect,
};

int main(int argc, char **argv) { return perf_main(&hypercube, argc, argv); }
