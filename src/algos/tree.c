/* tree.c - AllReduce on a double tree: reduce up, broadcast down, half of the channels on each of two trees. What trees
 * they are, family.c says: binary, with the fewest edges there can be between nodes, leaves, pods.
 *
 * One piece per round; rounds pipeline because up and down are two strands:
 *     up:    slot-in(first) + input + slot-in(second) -> slot-out(parent)
 *     down:  slot-in(parent) -> output, slot-out(first), slot-out(second)
 *     root:  slot-in(first) + input + slot-in(second) -> output, slot-out(first), slot-out(second)    FINAL
 *
 * Steps, up and as many down: in one node, or among nodes of one rank under one leaf, floor(log2 n), the depth of a heap.
 * With tiers (ranks of a node, nodes of a leaf, ...; only those count that have several items somewhere), g_t the most
 * items of a group in tier t = 0, 1, ...: at most the sum of (1 + t) floor(log2 g_t), since a right turn costs a step in
 * each tier below, and a left one none.
 * Bytes sent per rank and round of S bytes: S up unless root, S down per child (0, 1 or 2). Over both trees, each with
 * half of the data, a rank, and a node to other nodes, sends at most (2 S + 2 S) / 2 = 2 S: for each parent it has in one
 * of them, and for each child (together at most 2). (Two trees: Sanders, Speck, Traeff: "Two-tree algorithms for full
 * bandwidth broadcast, reduction and scan", Parallel Computing 35, 2009.)
 * The root's value is copied to everybody. One slot is enough: up never waits for down except at the root, and nobody
 * below the root waits for both. */
#include "algos/begin.h"
#include "algos/family.h"

/* first + own + second: the same order at every call. */
static void up_sources(struct plan_operands *o, const uint16_t *from_children, uint32_t n_children)
{
    struct plan_index whole = plan_constant(0);
    if (n_children > 0) o->src[o->n_src++] = plan_slot(PLAN_SLOT_IN, from_children[0], whole);
    o->src[o->n_src++] = plan_own(PLAN_INPUT, whole);
    if (n_children > 1) o->src[o->n_src++] = plan_slot(PLAN_SLOT_IN, from_children[1], whole);
}

static void down_destinations(struct plan_operands *o, const uint16_t *to_children, uint32_t n_children)
{
    struct plan_index whole = plan_constant(0);
    o->dst[o->n_dst++] = plan_own(PLAN_OUTPUT, whole);
    for (uint32_t k = 0; k < n_children; k++) o->dst[o->n_dst++] = plan_slot(PLAN_SLOT_OUT, to_children[k], whole);
}

bool tree_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    if (!fits_links(shape)) return false;
    struct family f = family_of(shape, rank, channel);
    uint16_t from_children[FAMILY_CHILDREN], to_children[FAMILY_CHILDREN];
    struct plan_operands up = {0}, down = {0};
    begin_links(out, PLAN_ALLREDUCE, PLAN_TREE, shape, rank, channel, 0);
    /* in place: peers never touch my buffers, and a round comes down only after it went up */
    uint16_t from_parent = f.has_parent ? plan_add_link(out, f.parent, PLAN_LINK_IN) : 0;
    uint16_t to_parent = f.has_parent ? plan_add_link(out, f.parent, PLAN_LINK_OUT) : 0;
    for (uint32_t k = 0; k < f.n_children; k++) {
        from_children[k] = plan_add_link(out, f.child[k], PLAN_LINK_IN);
        to_children[k] = plan_add_link(out, f.child[k], PLAN_LINK_OUT);
    }
    up_sources(&up, from_children, f.n_children);
    down_destinations(f.has_parent ? &down : &up, to_children, f.n_children); /* the root turns around in one move */
    plan_add_strand(out);
    if (!f.has_parent) {
        plan_add_move(out, PLAN_FINAL, &up);
        return true;
    }
    up.dst[up.n_dst++] = plan_slot(PLAN_SLOT_OUT, to_parent, plan_constant(0));
    plan_add_move(out, 0, &up);
    plan_add_strand(out);
    down.src[down.n_src++] = plan_slot(PLAN_SLOT_IN, from_parent, plan_constant(0));
    plan_add_move(out, 0, &down);
    return true;
}
