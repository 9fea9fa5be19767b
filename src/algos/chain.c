/* chain.c - the rooted collectives along the ring, cut open at the root.
 *
 * Distance d counts positions: after the root for what starts there, before it for what ends there (n = ranks). Both
 * run the ring's way round and on its links, so a change of root opens nothing new.
 *
 *     Broadcast   root:  input -> output, slot-out          d:     slot-in -> output, slot-out       the last: no slot-out
 *     Reduce      n-1:   input -> slot-out                  d:     slot-in + input -> slot-out
 *                                                           root:  slot-in + input -> output                       FINAL
 *     Scatter     root:  the blocks of d = n-1 .. 1 -> slot-out, farthest first; its own -> output
 *                 d:     n-1-d times slot-in -> slot-out; slot-in -> output
 *     Gather      d:     input -> slot-out; n-1-d times slot-in -> slot-out      nearest first
 *                 root:  input -> output; n-1 times slot-in -> output
 *
 * Steps: n - 1; rounds follow each other through the chain, so a long Broadcast or Reduce takes S and no more: every
 * rank sends S at most. Scatter and Gather: the root sends, or gets, (n-1) B in any case, and the others no more.
 * One slot per link is enough: the last in the chain always takes. In place, the root reads its block in the move that
 * writes it. */
#include "algos/begin.h"

static uint32_t before_root(const struct shape *shape, uint32_t rank, uint32_t root)
{
    return (shape->position[root] + shape->n_ranks - shape->position[rank]) % shape->n_ranks;
}
static uint32_t after_root(const struct shape *shape, uint32_t rank, uint32_t root)
{
    return (shape->position[rank] + shape->n_ranks - shape->position[root]) % shape->n_ranks;
}

static uint16_t link_behind(const struct shape *shape, struct plan *out)
{
    uint32_t n = shape->n_ranks, p = shape->position[out->rank];
    return plan_add_link(out, shape->order[(p + n - 1) % n], PLAN_LINK_IN);
}
static uint16_t link_ahead(const struct shape *shape, struct plan *out)
{
    uint32_t n = shape->n_ranks, p = shape->position[out->rank];
    return plan_add_link(out, shape->order[(p + 1) % n], PLAN_LINK_OUT);
}

bool chain_broadcast(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    if (!fits_links(shape)) return false;
    begin_links(out, PLAN_BROADCAST, PLAN_RING, shape, rank, channel, root);
    plan_add_strand(out);
    struct plan_index whole = plan_constant(0);
    struct plan_operands move = {.n_src = 1, .n_dst = 1, .dst = {plan_own(PLAN_OUTPUT, whole)}};
    bool last = after_root(shape, rank, root) == shape->n_ranks - 1;
    move.src[0] = rank == root ? plan_own(PLAN_INPUT, whole)
                               : plan_slot(PLAN_SLOT_IN, link_behind(shape, out), whole);
    if (!last) move.dst[move.n_dst++] = plan_slot(PLAN_SLOT_OUT, link_ahead(shape, out), whole);
    plan_add_move(out, 0, &move);
    return true;
}

bool chain_reduce(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    if (!fits_links(shape)) return false;
    begin_links(out, PLAN_REDUCE, PLAN_RING, shape, rank, channel, root);
    plan_add_strand(out);
    struct plan_index whole = plan_constant(0);
    struct plan_operands move = {.n_dst = 1};
    bool first = before_root(shape, rank, root) == shape->n_ranks - 1;
    if (!first) move.src[move.n_src++] = plan_slot(PLAN_SLOT_IN, link_behind(shape, out), whole);
    move.src[move.n_src++] = plan_own(PLAN_INPUT, whole);
    move.dst[0] = rank == root ? plan_own(PLAN_OUTPUT, whole)
                               : plan_slot(PLAN_SLOT_OUT, link_ahead(shape, out), whole);
    plan_add_move(out, rank == root ? PLAN_FINAL : 0, &move);
    return true;
}

bool chain_scatter(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    if (!fits_links(shape)) return false;
    begin_links(out, PLAN_SCATTER, PLAN_RING, shape, rank, channel, root);
    plan_add_strand(out);
    uint32_t n = shape->n_ranks, d = after_root(shape, rank, root);
    struct plan_index mine = plan_index_mod(0, out->position, n);
    /* the i-th block out of the root is that of the position before it, and so on backwards */
    struct plan_index far = plan_index_mod(-1, (uint64_t)shape->position[root] + n - 1, n);
    uint16_t from = rank == root ? 0 : link_behind(shape, out), to = d == n - 1 ? 0 : link_ahead(shape, out);
    if (d < n - 1) {
        plan_add_loop(out, n - 1 - d, 1);
        plan_add_move(out, 0, &(struct plan_operands){
            1, 1, {rank == root ? plan_own(PLAN_INPUT, far) : plan_slot(PLAN_SLOT_IN, from, far)},
            {plan_slot(PLAN_SLOT_OUT, to, far)}});
    }
    plan_add_move(out, 0, &(struct plan_operands){
        1, 1, {rank == root ? plan_own(PLAN_INPUT, mine) : plan_slot(PLAN_SLOT_IN, from, mine)},
        {plan_own(PLAN_OUTPUT, mine)}});
    return true;
}

bool chain_gather(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    if (!fits_links(shape)) return false;
    begin_links(out, PLAN_GATHER, PLAN_RING, shape, rank, channel, root);
    plan_add_strand(out);
    uint32_t n = shape->n_ranks, d = before_root(shape, rank, root);
    struct plan_index mine = plan_index_mod(0, out->position, n);
    struct plan_index behind = plan_index_mod(-1, (uint64_t)out->position + n - 1, n);
    uint16_t from = d == n - 1 ? 0 : link_behind(shape, out), to = rank == root ? 0 : link_ahead(shape, out);
    plan_add_move(out, 0, &(struct plan_operands){
        1, 1, {plan_own(PLAN_INPUT, mine)},
        {rank == root ? plan_own(PLAN_OUTPUT, mine) : plan_slot(PLAN_SLOT_OUT, to, mine)}});
    if (d == n - 1) return true;
    plan_add_loop(out, n - 1 - d, 1);
    plan_add_move(out, 0, &(struct plan_operands){
        1, 1, {plan_slot(PLAN_SLOT_IN, from, behind)},
        {rank == root ? plan_own(PLAN_OUTPUT, behind) : plan_slot(PLAN_SLOT_OUT, to, behind)}});
    return true;
}
