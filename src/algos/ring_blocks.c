/* ring_blocks.c - the two halves of ring.c by themselves: ReduceScatter and AllGather once around, with one block per
 * position.
 *
 * AllGather: position p sends its own block, then passes on what comes (n = ranks, all indices mod n).
 *     input[p]    -> output[p], slot-out      1
 *     slot-in     -> output[p-1-i], slot-out  i = 0 .. n-3
 *     slot-in     -> output[p+1]              1
 *
 * ReduceScatter: the block of position j starts at j + 1 and is complete when it arrives at j.
 *     input[p-1]                  -> slot-out     1
 *     slot-in + input[p-2-i]      -> slot-out     i = 0 .. n-3
 *     slot-in + input[p]          -> output[p]    1, FINAL
 *
 * Steps: n - 1. Bytes sent per rank and round of blocks of B: (n-1) B, the least there can be: as much must arrive.
 * In place, each rank's own block is read in the move that writes it. Two slots per link, for ring.c's reason. */
#include "algos/begin.h"

/* The links of a ring: always to the next position, whatever the collective and root, so that all share them. */
struct ring_links {
    uint16_t from, to;
};

static struct ring_links links_add(const struct shape *shape, struct plan *out)
{
    uint32_t n = shape->n_ranks, p = out->position;
    struct ring_links links;
    links.from = plan_add_link(out, shape->order[(p + n - 1) % n], PLAN_LINK_IN);
    links.to = plan_add_link(out, shape->order[(p + 1) % n], PLAN_LINK_OUT);
    out->slots_min = 2;
    plan_add_strand(out);
    return links;
}

bool ring_allgather(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    if (!fits_links(shape)) return false;
    uint32_t n = shape->n_ranks, p = shape->position[rank];
    begin_links(out, PLAN_ALLGATHER, PLAN_RING, shape, rank, channel, 0);
    struct ring_links links = links_add(shape, out);
    struct plan_index mine = plan_index_mod(0, p, n), last = plan_index_mod(0, (uint64_t)p + 1, n);
    struct plan_index passing = plan_index_mod(-1, (uint64_t)p + n - 1, n);

    plan_add_move(out, 0, &(struct plan_operands){
        1, 2, {plan_own(PLAN_INPUT, mine)},
        {plan_own(PLAN_OUTPUT, mine), plan_slot(PLAN_SLOT_OUT, links.to, mine)}});
    plan_add_loop(out, n - 2, 1);
    plan_add_move(out, 0, &(struct plan_operands){
        1, 2, {plan_slot(PLAN_SLOT_IN, links.from, passing)},
        {plan_own(PLAN_OUTPUT, passing), plan_slot(PLAN_SLOT_OUT, links.to, passing)}});
    plan_add_move(out, 0, &(struct plan_operands){
        1, 1, {plan_slot(PLAN_SLOT_IN, links.from, last)}, {plan_own(PLAN_OUTPUT, last)}});
    return true;
}

bool ring_reducescatter(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    if (!fits_links(shape)) return false;
    uint32_t n = shape->n_ranks, p = shape->position[rank];
    begin_links(out, PLAN_REDUCESCATTER, PLAN_RING, shape, rank, channel, 0);
    struct ring_links links = links_add(shape, out);
    struct plan_index mine = plan_index_mod(0, p, n), start = plan_index_mod(0, (uint64_t)p + n - 1, n);
    struct plan_index partial = plan_index_mod(-1, (uint64_t)p + 2 * (uint64_t)n - 2, n);

    plan_add_move(out, 0, &(struct plan_operands){
        1, 1, {plan_own(PLAN_INPUT, start)}, {plan_slot(PLAN_SLOT_OUT, links.to, start)}});
    plan_add_loop(out, n - 2, 1);
    plan_add_move(out, 0, &(struct plan_operands){
        2, 1, {plan_slot(PLAN_SLOT_IN, links.from, partial), plan_own(PLAN_INPUT, partial)},
        {plan_slot(PLAN_SLOT_OUT, links.to, partial)}});
    plan_add_move(out, PLAN_FINAL, &(struct plan_operands){
        2, 1, {plan_slot(PLAN_SLOT_IN, links.from, mine), plan_own(PLAN_INPUT, mine)},
        {plan_own(PLAN_OUTPUT, mine)}});
    return true;
}
