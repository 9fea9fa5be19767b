/* alltoallv_perf.c - everybody sends to everybody, more to some than to others, by Send and Recv in one group.
 *
 * The rank d places on gets w(d) units: two for oneself, then by turns 0 and 4, 1 and 3, and two for a last one without
 * a partner. That is two on average, so every rank sends and receives 2n units, of which a share of 1/n is its own, as in
 * an even AlltoAll: busbw = algbw * (n - 1) / n. "count" is that average. */
#include "collective.h"
#include "types.h"
#include "values.h"

static size_t weight(int from, int to, int n)
{
    static const size_t weights[4] = {0, 4, 1, 3};
    int d = (to - from + n) % n;
    if (d == 0 || (d == n - 1 && n % 2 == 0)) return 2;
    return weights[(d - 1) % 4];
}

/* Units that stand before what `from` sends to `to`, in the sender's buffer and in the receiver's. */
static size_t before_sent(int from, int to, int n)
{
    size_t units = 0;
    for (int k = 0; k < to; k++) units += weight(from, k, n);
    return units;
}
static size_t before_received(int from, int to, int n)
{
    size_t units = 0;
    for (int k = 0; k < from; k++) units += weight(k, to, n);
    return units;
}

static size_t unit_of(size_t elements, int n_ranks) { return elements / (size_t)(2 * n_ranks); }

static struct perf_shape shape(size_t elements, int n_ranks)
{
    size_t unit = unit_of(elements, n_ranks), all = unit * 2 * (size_t)n_ranks;
    return (struct perf_shape){.send = all, .receive = all, .parameter = 2 * unit};
}

static double bus_factor(int n_ranks) { return (double)(n_ranks - 1) / n_ranks; }

static ncclResult_t call(const struct perf_call *c)
{
    size_t unit = c->count / 2, sent = 0, received = 0;
    size_t unit_bytes = unit * perf_type_bytes((int)c->type);
    ncclResult_t result = ncclSuccess;
    for (int peer = 0; peer < c->n_ranks && result == ncclSuccess; peer++) {
        size_t out = weight(c->rank, peer, c->n_ranks), in = weight(peer, c->rank, c->n_ranks);
        result = ncclSend((const char *)c->send + sent * unit_bytes, out * unit, c->type, peer, c->comm, c->stream);
        if (result == ncclSuccess)
            result = ncclRecv((char *)c->receive + received * unit_bytes, in * unit, c->type, peer, c->comm, c->stream);
        sent += out;
        received += in;
    }
    return result;
}

static bool expect(size_t elements, int n_ranks, int rank, int root, int index, struct perf_block *out)
{
    (void)root;
    size_t unit = unit_of(elements, n_ranks);
    if (index >= n_ranks) return false;
    *out = (struct perf_block){.offset = unit * before_received(index, rank, n_ranks),
                               .count = unit * weight(index, rank, n_ranks),
                               .source = index,
                               .first = unit * before_sent(index, rank, n_ranks)};
    return true;
}

static const struct perf_collective alltoallv = {
    .name = "alltoallv",
    .no_in_place = true,
    .several = true,
    .shape = shape,
    .bus_factor = bus_factor,
    .call = call,
    .expect = expect,
};

int main(int argc, char **argv) { return perf_main(&alltoallv, argc, argv); }
