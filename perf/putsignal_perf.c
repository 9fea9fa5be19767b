/* putsignal_perf.c - every rank puts into the next one's window and waits for what the one before puts into its own.
 *
 * Two rounds. First everybody tells the one before that its window may be written (signal 1): what came by the last
 * operation has been looked at. Then everybody puts, with signal 0, and waits for its own. So a small size shows the
 * time of two signals one after the other, a large one the bandwidth of putting.
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

static int rounds(int n_ranks) { return n_ranks ? 2 : 0; }

static ncclResult_t call(const struct perf_call *c)
{
    int next = (c->rank + 1) % c->n_ranks, last = (c->rank + c->n_ranks - 1) % c->n_ranks;
    ncclWaitSignalDesc_t ready = {.opCnt = 1, .peer = next, .sigIdx = 1}, data = {.opCnt = 1, .peer = last};
    ncclResult_t result = c->round == 0 ? ncclSignal(last, 1, 0, 0, c->comm, c->stream)
                                        : ncclPutSignal(c->send, c->count, c->type, next, c->window, 0, 0, 0, 0,
                                                        c->comm,
                                                        c->stream);
    return result == ncclSuccess ? ncclWaitSignal(1, c->round == 0 ? &ready : &data, c->comm, c->stream) : result;
}

static bool expect(size_t elements, int n_ranks, int rank, int root, int index, struct perf_block *out)
{
    (void)root;
    *out = (struct perf_block){.offset = 0, .count = elements, .source = (rank + n_ranks - 1) % n_ranks, .first = 0};
    return index == 0;
}

static const struct perf_collective putsignal = {
    .name = "putsignal",
    .no_in_place = true,
    .one_sided = true,
    .rounds = rounds,
    .shape = shape,
    .bus_factor = bus_factor,
    .call = call,
    .expect = expect,
};

int main(int argc, char **argv) { return perf_main(&putsignal, argc, argv); }
