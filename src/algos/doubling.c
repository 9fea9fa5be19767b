/* doubling.c - AllReduce by recursive doubling: in step k every rank swaps all it has with the one whose position differs
 * in bit k, and both combine the two values in the same order. Fewest hops of all: log2 n, and one for two ranks.
 *
 *     position   0   1   2   3   4   5   6   7
 *     k = 0      0-1     2-3     4-5     6-7        Ranks beyond the largest power of two p fold in: position p + x
 *     k = 1      0---2   1---3   4---6   5---7      first gives its input to x, and last receives the result from x.
 *     k = 2      0-------4   1-------5   ...
 *
 * After step k all ranks of a block of 2^(k+1) positions hold the same bits: each combined (lower half, upper half) of the
 * same two values, and a combination of the same operands in the same order is the same everywhere. (Thakur, Rabenseifner,
 * Gropp: "Optimization of collective communication operations in MPICH", IJHPCA 19, 2005.)
 *
 * Steps: log2 p, plus at most 2 when ranks are folded in. Bytes sent per rank and round of S bytes: S log2 p, plus S for each of
 * the two ranks of a fold. One piece per round; one slot is enough, since everybody sends before it waits. */
#include "algos/algos.h"
#include "plan/write.h"

/* A partner is a link in and a link out, two for the fold: all that fits is 2^7 blocks. */
enum { PARTNERS_MAX = PLAN_MAX_LINKS / 2 - 1 };

struct fold {
    uint32_t p;      /* ranks that swap */
    uint32_t steps;  /* log2 p */
    uint32_t extra;  /* ranks folded in */
};

static struct fold fold_of(uint32_t n)
{
    struct fold f = {.p = 1};
    while (f.p <= n / 2) {
        f.p *= 2;
        f.steps++;
    }
    f.extra = n - f.p;
    return f;
}

static uint16_t link_at(const struct shape *shape, struct plan *out, uint32_t position, enum plan_direction direction)
{
    return plan_add_link(out, shape->order[position], direction);
}

/* The folded rank: gives its input, takes the result. */
static void write_folded(const struct shape *shape, struct plan *out, uint32_t host_position)
{
    struct plan_index whole = plan_constant(0);
    uint16_t to = link_at(shape, out, host_position, PLAN_LINK_OUT), from = link_at(shape, out, host_position, PLAN_LINK_IN);
    struct plan_operands give = {.n_src = 1, .n_dst = 1}, take = {.n_src = 1, .n_dst = 1};
    give.src[0] = plan_own(PLAN_INPUT, whole);
    give.dst[0] = plan_slot(PLAN_SLOT_OUT, to, whole);
    take.src[0] = plan_slot(PLAN_SLOT_IN, from, whole);
    take.dst[0] = plan_own(PLAN_OUTPUT, whole);
    plan_add_move(out, 0, &give);
    plan_add_move(out, 0, &take);
}

/* What goes out before the first swap is combined: my input, with the folded rank's added if there is one. */
static void write_first(const struct shape *shape, struct plan *out, uint32_t position, struct fold f)
{
    struct plan_index whole = plan_constant(0);
    struct plan_operands first = {.n_src = 1};
    first.src[0] = plan_own(PLAN_INPUT, whole);
    if (position < f.extra) {
        first.src[first.n_src++] = plan_slot(PLAN_SLOT_IN, link_at(shape, out, f.p + position, PLAN_LINK_IN), whole);
        first.dst[first.n_dst++] = plan_own(PLAN_OUTPUT, whole);
    }
    first.dst[first.n_dst++] = plan_slot(PLAN_SLOT_OUT, link_at(shape, out, position ^ 1, PLAN_LINK_OUT), whole);
    plan_add_move(out, 0, &first);
}

/* Combines step k's two halves, lower first, and passes the sum on. */
static void write_swap(const struct shape *shape, struct plan *out, uint32_t position, struct fold f, uint32_t k)
{
    struct plan_index whole = plan_constant(0);
    bool last = k + 1 == f.steps, lower = (position >> k & 1) == 0;
    enum plan_place mine = k == 0 && position >= f.extra ? PLAN_INPUT : PLAN_OUTPUT;
    struct plan_operands swap = {.n_src = 2, .n_dst = 1};
    uint16_t from = link_at(shape, out, position ^ 1u << k, PLAN_LINK_IN);
    swap.src[lower ? 0 : 1] = plan_own(mine, whole);
    swap.src[lower ? 1 : 0] = plan_slot(PLAN_SLOT_IN, from, whole);
    swap.dst[0] = plan_own(PLAN_OUTPUT, whole);
    if (!last || position < f.extra) {
        uint32_t next = last ? f.p + position : position ^ 2u << k;
        swap.dst[swap.n_dst++] = plan_slot(PLAN_SLOT_OUT, link_at(shape, out, next, PLAN_LINK_OUT), whole);
    }
    plan_add_move(out, last ? PLAN_FINAL : 0, &swap);
}

bool doubling_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    struct fold f = fold_of(shape->n_ranks);
    uint32_t node = shape->node_of[rank], position = shape->position[rank];
    if (shape->n_ranks < 2 || f.steps > PARTNERS_MAX) return false;
    plan_begin(out, PLAN_DOUBLING, rank, shape->n_ranks, channel);
    out->peer = shape->peer_of[rank];
    out->n_peers = shape->node_start[node + 1] - shape->node_start[node];
    out->flags = PLAN_DIRECT_IN_PLACE; /* peers never touch my buffers, and what I send is copied before I write */
    plan_add_strand(out);
    if (position >= f.p) {
        write_folded(shape, out, position - f.p);
        return true;
    }
    write_first(shape, out, position, f);
    for (uint32_t k = 0; k < f.steps; k++) write_swap(shape, out, position, f, k);
    return true;
}
