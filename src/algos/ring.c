/* ring.c - AllReduce on a ring: reduce-scatter once around, then all-gather once around.
 *
 *        +-----> p=1 -----+        The round has one piece per rank. Piece j starts its way at position j as j's own
 *        |                v        input, picks up one input at every hop and is complete n-1 hops later, at position
 *       p=0 <-- p=3 <--- p=2       j-1; from there it travels n-1 hops more, already final, into every output.
 *
 * What position p does, in order (n = ranks, all indices mod n):
 *     input[p]                                         -> slot-out          1
 *     slot-in + input[p-1-i]                           -> slot-out          i = 0 .. n-3
 *     slot-in + input[p+1]     -> output[p+1], slot-out   FINAL             1
 *     slot-in                  -> output[p-i], slot-out                     i = 0 .. n-3
 *     slot-in                  -> output[p+2]                               1
 *
 * Steps (longest chain of hops): 2(n-1). Bytes sent per rank and round of S bytes: 2(n-1) pieces of S/n each, the least
 * any AllReduce can send when all ranks send alike.
 * A piece's value is computed along one path and then copied, so all ranks end with the same bits.
 *
 * Two slots per link, not one: the fused moves hold their input slot while they wait for a free output slot. After
 * everybody's first send each slot of a one-slot ring is full, and everybody waits for the slot that the next one
 * holds: deadlock. With two, every link has a free slot at that moment, and each move frees one as it fills one. */
#include "algos/algos.h"
#include "plan/write.h"

bool ring_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    uint32_t n = shape->n_ranks;
    if (n < 2) return false;
    uint32_t p = shape->position[rank];
    uint32_t node = shape->node_of[rank];

    plan_begin(out, PLAN_RING, rank, n, channel);
    out->peer = shape->peer_of[rank];
    out->n_peers = shape->node_start[node + 1] - shape->node_start[node];
    out->n_pieces = n;
    out->slots_min = 2;
    out->flags = PLAN_DIRECT_IN_PLACE; /* peers never touch my buffers, and I write a piece after I last read it */
    uint16_t from = plan_add_link(out, shape->order[(p + n - 1) % n], PLAN_LINK_IN);
    uint16_t to = plan_add_link(out, shape->order[(p + 1) % n], PLAN_LINK_OUT);

    struct plan_index mine = plan_index_mod(0, p, n);
    struct plan_index partial = plan_index_mod(-1, (uint64_t)p + n - 1, n);
    struct plan_index complete = plan_index_mod(0, (uint64_t)p + 1, n);
    struct plan_index passing = plan_index_mod(-1, p, n);
    struct plan_index last = plan_index_mod(0, (uint64_t)p + 2, n);

    plan_add_strand(out);
    plan_add_move(out, 0, &(struct plan_operands){
        1, 1, {plan_own(PLAN_INPUT, mine)}, {plan_slot(PLAN_SLOT_OUT, to, mine)}});
    plan_add_loop(out, n - 2, 1);
    plan_add_move(out, 0, &(struct plan_operands){
        2, 1, {plan_slot(PLAN_SLOT_IN, from, partial), plan_own(PLAN_INPUT, partial)},
        {plan_slot(PLAN_SLOT_OUT, to, partial)}});
    plan_add_move(out, PLAN_FINAL, &(struct plan_operands){
        2, 2, {plan_slot(PLAN_SLOT_IN, from, complete), plan_own(PLAN_INPUT, complete)},
        {plan_own(PLAN_OUTPUT, complete), plan_slot(PLAN_SLOT_OUT, to, complete)}});
    plan_add_loop(out, n - 2, 1);
    plan_add_move(out, 0, &(struct plan_operands){
        1, 2, {plan_slot(PLAN_SLOT_IN, from, passing)},
        {plan_own(PLAN_OUTPUT, passing), plan_slot(PLAN_SLOT_OUT, to, passing)}});
    plan_add_move(out, 0, &(struct plan_operands){
        1, 1, {plan_slot(PLAN_SLOT_IN, from, last)}, {plan_own(PLAN_OUTPUT, last)}});
    return true;
}
