/* tree_rooted.c - Broadcast and Reduce on two binary trees, half of the channels on each.
 *
 * The trees stand over the n - 1 ranks that are not the root, in the order of positions after it, and are those of
 * tree.c; the root hangs above them:
 *
 *              root                       Broadcast  root:   input -> output, slot-out
 *               |                                    others: slot-in(parent) -> output, slot-out(left), slot-out(right)
 *               4                         Reduce     others: slot-in(left) + input + slot-in(right) -> slot-out(parent)
 *             /   \                                  root:   slot-in + input -> output                           FINAL
 *            2     6
 *           / \   /                       Whoever works inside one tree is a leaf of the other; over both, each with
 *          1   3 5                        half of the data, a rank sends at most S, and so does the root.
 *
 * (Sanders, Speck, Traeff: "Two-tree algorithms for full bandwidth broadcast, reduction and scan", Parallel Computing
 * 35, 2009.) Steps: at most 1 + floor(log2(n-1)). One piece per round; rounds follow each other down, or up. One slot is
 * enough: data moves one way only. */
#include "algos/begin.h"
#include "algos/family.h"

/* A rank's relatives, as ranks; -1: none. */
struct relatives {
    int64_t parent, left, right;
};

static int64_t rank_of(const struct shape *shape, uint32_t root, uint32_t channel, uint32_t label)
{
    uint32_t n = shape->n_ranks;
    if (label == 0) return -1;
    return shape->order[(shape->position[root] + 1 + position_of(label, n - 1, channel)) % n];
}

static struct relatives relatives_of(const struct shape *shape, uint32_t rank, uint32_t root, uint32_t channel)
{
    uint32_t n = shape->n_ranks, d = (shape->position[rank] + n - shape->position[root]) % n;
    struct relatives r = {-1, -1, -1};
    if (d == 0) { /* its only child is the label without a parent: the highest power of two */
        uint32_t top = 1;
        while (top <= (n - 1) / 2) top *= 2;
        r.left = rank_of(shape, root, channel, top);
        return r;
    }
    struct family family = family_of(label_of(d - 1, n - 1, channel), n - 1);
    r.parent = family.parent ? rank_of(shape, root, channel, family.parent) : (int64_t)root;
    r.left = rank_of(shape, root, channel, family.left);
    r.right = rank_of(shape, root, channel, family.right);
    return r;
}

static struct plan_operand slot_of(struct plan *out, int64_t rank, bool in)
{
    uint16_t link = plan_add_link(out, (uint32_t)rank, in ? PLAN_LINK_IN : PLAN_LINK_OUT);
    return plan_slot(in ? PLAN_SLOT_IN : PLAN_SLOT_OUT, link, plan_constant(0));
}

bool tree_broadcast(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    if (!fits_links(shape)) return false;
    struct relatives r = relatives_of(shape, rank, root, channel);
    struct plan_index whole = plan_constant(0);
    begin_links(out, PLAN_BROADCAST, PLAN_TREE, shape, rank, channel, root);
    plan_add_strand(out);
    struct plan_operands down = {.n_src = 1, .n_dst = 1, .dst = {plan_own(PLAN_OUTPUT, whole)}};
    down.src[0] = rank == root ? plan_own(PLAN_INPUT, whole) : slot_of(out, r.parent, true);
    if (r.left >= 0) down.dst[down.n_dst++] = slot_of(out, r.left, false);
    if (r.right >= 0) down.dst[down.n_dst++] = slot_of(out, r.right, false);
    plan_add_move(out, 0, &down);
    return true;
}

bool tree_reduce(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    if (!fits_links(shape)) return false;
    struct relatives r = relatives_of(shape, rank, root, channel);
    struct plan_index whole = plan_constant(0);
    begin_links(out, PLAN_REDUCE, PLAN_TREE, shape, rank, channel, root);
    plan_add_strand(out);
    struct plan_operands up = {.n_dst = 1};
    if (r.left >= 0) up.src[up.n_src++] = slot_of(out, r.left, true);
    up.src[up.n_src++] = plan_own(PLAN_INPUT, whole);
    if (r.right >= 0) up.src[up.n_src++] = slot_of(out, r.right, true);
    up.dst[0] = rank == root ? plan_own(PLAN_OUTPUT, whole) : slot_of(out, r.parent, false);
    plan_add_move(out, rank == root ? PLAN_FINAL : 0, &up);
    return true;
}
