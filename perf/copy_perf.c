/* copy_perf.c - the ceiling: each rank copies its buffer as the machine itself does it, with the GPU driver's copy from
 * device to device, or memcpy in host memory. Beside it, `all_reduce_perf -g 1` is the library's kernel copying.
 *
 * Bus bandwidth: every byte is read and written once: busbw = 2 algbw, what the memory moves. */
#include <string.h>

#include "collective.h"
#include "gpu.h"
#include "types.h"

static struct perf_shape shape(size_t elements, int n_ranks)
{
    (void)n_ranks;
    return (struct perf_shape){.send = elements, .receive = elements, .parameter = elements};
}

static double bus_factor(int n_ranks) { return n_ranks ? 2 : 0; }

static ncclResult_t call(const struct perf_call *c)
{
    size_t bytes = c->count * perf_type_bytes((int)c->type);
    if (c->gpu && bytes) perf_gpu_copy_later(c->gpu, c->receive, c->send, bytes);
    else if (bytes) memcpy(c->receive, c->send, bytes);
    return ncclSuccess;
}

static bool expect(size_t elements, int n_ranks, int rank, int root, int index, struct perf_block *out)
{
    (void)n_ranks, (void)root;
    *out = (struct perf_block){.offset = 0, .count = elements, .source = rank, .first = 0};
    return index == 0;
}

static const struct perf_collective copy = {
    .name = "copy",
    .no_in_place = true,
    .shape = shape,
    .bus_factor = bus_factor,
    .call = call,
    .expect = expect,
};

int main(int argc, char **argv) { return perf_main(&copy, argc, argv); }
