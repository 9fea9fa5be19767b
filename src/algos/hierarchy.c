/* hierarchy.c - AllReduce for several ranks per node: up a tree inside each node, recursive doubling among leaders, one
 * of each node, down the same tree. Only leaders use the network. Channel c's leaders are the c-th ranks of their nodes,
 * in turn, so that channels share the work and the rails. Drawn for channel 0:
 *
 *     node 0            node 1            node 2 ...
 *     0 <-----------> 4 <---------------> 8            swaps among leaders, as in doubling.c, with leaders as seats
 *    / \             / \                 / \
 *   1   2           5   6               9   10         up: children + own input -> parent    down: the result
 *   |               |                   |
 *   3               7                   11
 *
 * Leaders combine (lower half, upper half) of nodes in the same order everywhere, and everybody else gets a copy.
 *
 * m nodes of k ranks: log2 m hops between nodes (two more unless m is a power of two), 2 floor(log2 k) inside. Sent
 * between nodes per node and round of S: S log2 m, where doubling sends that for each of its k ranks. One piece per round;
 * one slot is enough: up and down are strands of their own below the leaders, and leaders send before they wait. */
#include "algos/begin.h"

/* A leader's links: two children, a partner for each step, and a fold, each in and out. */
enum { CHILDREN = 2, STEPS_MAX = PLAN_MAX_LINKS / 2 - CHILDREN - 1 };

struct ranks {
    const struct shape *shape;
    uint32_t node, first, n; /* my node, its first position, its ranks */
    uint32_t channel, me;    /* my number in the node, counted from its leader */
    uint32_t p, steps, extra; /* nodes that swap, a power of two; its logarithm; nodes folded into the first of them */
};

static struct ranks ranks_of(const struct shape *shape, uint32_t rank, uint32_t channel)
{
    struct ranks r = {.shape = shape, .node = shape->node_of[rank], .p = 1, .channel = channel};
    r.first = shape->node_start[r.node];
    r.n = shape->node_start[r.node + 1] - r.first;
    r.me = (shape->peer_of[rank] + r.n - channel % r.n) % r.n;
    while (r.p <= shape->n_nodes / 2) r.p *= 2, r.steps++;
    r.extra = shape->n_nodes - r.p;
    return r;
}

static struct plan_operand slot(struct plan *out, uint32_t rank, enum plan_direction direction)
{
    bool in = direction == PLAN_LINK_IN;
    return plan_slot(in ? PLAN_SLOT_IN : PLAN_SLOT_OUT, plan_add_link(out, rank, direction), plan_constant(0));
}

static struct plan_operand mate_slot(const struct ranks *r, struct plan *out, uint32_t mate,
                                     enum plan_direction direction)
{
    return slot(out, r->shape->order[r->first + (mate + r->channel) % r->n], direction);
}

static struct plan_operand leader_slot(const struct ranks *r, struct plan *out, uint32_t node,
                                       enum plan_direction direction)
{
    uint32_t first = r->shape->node_start[node], n = r->shape->node_start[node + 1] - first;
    return slot(out, r->shape->order[first + r->channel % n], direction);
}

static struct plan_operand own(enum plan_place place) { return plan_own(place, plan_constant(0)); }

/* My input and what comes up to me. */
static struct plan_operands sources(const struct ranks *r, struct plan *out)
{
    struct plan_operands move = {.n_src = 1, .src = {own(PLAN_INPUT)}};
    for (uint32_t child = 2 * r->me + 1; child <= 2 * r->me + CHILDREN && child < r->n; child++)
        move.src[move.n_src++] = mate_slot(r, out, child, PLAN_LINK_IN);
    return move;
}

/* The result, into my output and down. */
static void add_destinations(const struct ranks *r, struct plan *out, struct plan_operands *move)
{
    move->dst[move->n_dst++] = own(PLAN_OUTPUT);
    for (uint32_t child = 2 * r->me + 1; child <= 2 * r->me + CHILDREN && child < r->n; child++)
        move->dst[move->n_dst++] = mate_slot(r, out, child, PLAN_LINK_OUT);
}

static void write_below(const struct ranks *r, struct plan *out)
{
    uint32_t parent = (r->me - 1) / 2;
    struct plan_operands up = sources(r, out), down = {.n_src = 1};
    up.dst[up.n_dst++] = mate_slot(r, out, parent, PLAN_LINK_OUT);
    plan_add_strand(out);
    plan_add_move(out, 0, &up);
    down.src[0] = mate_slot(r, out, parent, PLAN_LINK_IN);
    add_destinations(r, out, &down);
    plan_add_strand(out);
    plan_add_move(out, 0, &down);
}

/* A leader beyond the power of two: gives its node's part, takes the result. */
static void write_folded(const struct ranks *r, struct plan *out)
{
    struct plan_operands give = sources(r, out), take = {.n_src = 1};
    give.dst[give.n_dst++] = leader_slot(r, out, r->node - r->p, PLAN_LINK_OUT);
    plan_add_move(out, 0, &give);
    take.src[0] = leader_slot(r, out, r->node - r->p, PLAN_LINK_IN);
    add_destinations(r, out, &take);
    plan_add_move(out, 0, &take);
}

/* Step k's swap: both halves, lower first, and the sum on. `mine`: where my half is. */
static void write_swap(const struct ranks *r, struct plan *out, uint32_t k, enum plan_place mine)
{
    bool last = k + 1 == r->steps, lower = (r->node >> k & 1) == 0;
    struct plan_operands swap = {.n_src = 2};
    swap.src[lower ? 0 : 1] = own(mine);
    swap.src[lower ? 1 : 0] = leader_slot(r, out, r->node ^ 1u << k, PLAN_LINK_IN);
    if (last) {
        add_destinations(r, out, &swap);
        if (r->node < r->extra) swap.dst[swap.n_dst++] = leader_slot(r, out, r->p + r->node, PLAN_LINK_OUT);
    } else {
        swap.dst[swap.n_dst++] = own(PLAN_OUTPUT);
        swap.dst[swap.n_dst++] = leader_slot(r, out, r->node ^ 2u << k, PLAN_LINK_OUT);
    }
    plan_add_move(out, last ? PLAN_FINAL : 0, &swap);
}

static void write_leader(const struct ranks *r, struct plan *out)
{
    plan_add_strand(out);
    if (r->node >= r->p) {
        write_folded(r, out);
        return;
    }
    struct plan_operands first = sources(r, out);
    if (r->node < r->extra) first.src[first.n_src++] = leader_slot(r, out, r->p + r->node, PLAN_LINK_IN);
    bool several = first.n_src > 1;
    if (several) first.dst[first.n_dst++] = own(PLAN_OUTPUT);
    first.dst[first.n_dst++] = leader_slot(r, out, r->node ^ 1, PLAN_LINK_OUT);
    plan_add_move(out, 0, &first);
    for (uint32_t k = 0; k < r->steps; k++) write_swap(r, out, k, k || several ? PLAN_OUTPUT : PLAN_INPUT);
}

bool hierarchy_fits(const struct shape *shape)
{
    return shape->n_nodes > 1 && shape->n_ranks > shape->n_nodes && shape->n_nodes < 2u << STEPS_MAX;
}

bool hierarchy_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    if (!hierarchy_fits(shape)) return false;
    struct ranks r = ranks_of(shape, rank, channel);
    begin_links(out, PLAN_ALLREDUCE, PLAN_HIERARCHY, shape, rank, channel, 0);
    if (r.me > 0) write_below(&r, out);
    else write_leader(&r, out);
    return true;
}
