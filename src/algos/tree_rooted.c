/* tree_rooted.c - Broadcast and Reduce on two binary trees with the root on top, half of the channels on each.
 *
 *     Broadcast  root:   input -> output, slot-out          Which trees: family.c. They cross from node to node, leaf to
 *                others: slot-in(parent) -> output,         leaf, pod to pod with the fewest edges there can be.
 *                        slot-out(first), slot-out(second)
 *     Reduce     others: slot-in(first) + input + slot-in(second) -> slot-out(parent)
 *                root:   slot-in + input -> output                                                              FINAL
 *
 * Nobody has more than two children in both trees together, the root one in each: over both, each with half of the data,
 * a rank sends at most S, and so does the root, and a node to other nodes. (Sanders, Speck, Traeff: "Two-tree algorithms
 * for full bandwidth broadcast, reduction and scan", Parallel Computing 35, 2009.) Steps in one node, or among nodes of one
 * rank under one leaf: at most 1 + floor(log2(n-1)); with tiers at most what tree.c says of one way, and one more for each
 * of them. One piece per round; rounds follow each other down, or up. One slot is enough: data moves one way only. */
#include "algos/begin.h"
#include "algos/family.h"

static struct plan_operand slot_of(struct plan *out, uint32_t rank, bool in)
{
    uint16_t link = plan_add_link(out, rank, in ? PLAN_LINK_IN : PLAN_LINK_OUT);
    return plan_slot(in ? PLAN_SLOT_IN : PLAN_SLOT_OUT, link, plan_constant(0));
}

bool tree_broadcast(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    if (!fits_links(shape)) return false;
    struct family f = family_below(shape, rank, root, channel);
    struct plan_index whole = plan_constant(0);
    begin_links(out, PLAN_BROADCAST, PLAN_TREE, shape, rank, channel, root);
    plan_add_strand(out);
    struct plan_operands down = {.n_src = 1, .n_dst = 1, .dst = {plan_own(PLAN_OUTPUT, whole)}};
    down.src[0] = f.has_parent ? slot_of(out, f.parent, true) : plan_own(PLAN_INPUT, whole);
    for (uint32_t k = 0; k < f.n_children; k++) down.dst[down.n_dst++] = slot_of(out, f.child[k], false);
    plan_add_move(out, 0, &down);
    return true;
}

bool tree_reduce(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    if (!fits_links(shape)) return false;
    struct family f = family_below(shape, rank, root, channel);
    struct plan_index whole = plan_constant(0);
    begin_links(out, PLAN_REDUCE, PLAN_TREE, shape, rank, channel, root);
    plan_add_strand(out);
    struct plan_operands up = {.n_dst = 1};
    if (f.n_children > 0) up.src[up.n_src++] = slot_of(out, f.child[0], true);
    up.src[up.n_src++] = plan_own(PLAN_INPUT, whole);
    if (f.n_children > 1) up.src[up.n_src++] = slot_of(out, f.child[1], true);
    up.dst[0] = f.has_parent ? slot_of(out, f.parent, false) : plan_own(PLAN_OUTPUT, whole);
    plan_add_move(out, f.has_parent ? 0 : PLAN_FINAL, &up);
    return true;
}
