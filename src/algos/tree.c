/* tree.c - AllReduce on a double binary tree: reduce up, broadcast down, half of the channels on each of two trees.
 *
 * The tree over labels v = 1 .. n is the in-order binary tree: odd labels are leaves, and a label whose lowest set bit
 * is b has its children at v - b/2 and v + b/2 (the right one halved on until it exists). n = 6:
 *
 *                 4                    v:         1  2  3  4  5  6
 *              /     \                 lowest bit 1  2  1  4  1  2
 *             2       6
 *            / \     /                 Even channels take v = position + 1. Odd channels take the mirror image
 *           1   3   5                  v = n - position when n is even, the shift v = position + 2 (n+1 becoming 1)
 *                                      when n is odd.
 *
 * Both turn even labels into odd ones, so a rank that works inside one tree is a leaf of the other (or, one rank of an
 * odd n, a leaf of both): the two trees together load every rank alike. (Sanders, Speck, Traeff: "Two-tree algorithms
 * for full bandwidth broadcast, reduction and scan", Parallel Computing 35, 2009.)
 *
 * One piece per round; rounds pipeline because up and down are two strands:
 *     up:    slot-in(left) + input + slot-in(right) -> slot-out(parent)
 *     down:  slot-in(parent) -> output, slot-out(left), slot-out(right)
 *     root:  slot-in(left) + input + slot-in(right) -> output, slot-out(left), slot-out(right)    FINAL
 *
 * Steps: at most 2 floor(log2 n), the depth of label 1 or n, up and down. Bytes sent per rank and round of S bytes: S
 * up unless root, S down per child (0, 1 or 2). Over both trees, each with half of the data, a rank sends at most
 * (3 S + S) / 2 = 2 S.
 * The root's value is copied to everybody. One slot is enough: up never waits for down except at the root, and nobody
 * below the root waits for both. */
#include "algos/algos.h"
#include "algos/family.h"
#include "plan/write.h"

/* left + own + right: the combination then runs in label order. */
static void up_sources(struct plan_operands *o, const uint16_t *from_left, const uint16_t *from_right)
{
    struct plan_index whole = plan_constant(0);
    if (from_left) o->src[o->n_src++] = plan_slot(PLAN_SLOT_IN, *from_left, whole);
    o->src[o->n_src++] = plan_own(PLAN_INPUT, whole);
    if (from_right) o->src[o->n_src++] = plan_slot(PLAN_SLOT_IN, *from_right, whole);
}

static void down_destinations(struct plan_operands *o, const uint16_t *to_left, const uint16_t *to_right)
{
    struct plan_index whole = plan_constant(0);
    o->dst[o->n_dst++] = plan_own(PLAN_OUTPUT, whole);
    if (to_left) o->dst[o->n_dst++] = plan_slot(PLAN_SLOT_OUT, *to_left, whole);
    if (to_right) o->dst[o->n_dst++] = plan_slot(PLAN_SLOT_OUT, *to_right, whole);
}

/* Links to and from one relative; `pair` is filled and returned, NULL when there is no such relative. */
struct link_pair {
    uint16_t in, out;
};
static const struct link_pair *relative_links(const struct shape *shape, struct plan *out, uint32_t label,
                                              struct link_pair *pair)
{
    if (label == 0) return NULL;
    uint32_t rank = shape->order[position_of(label, shape->n_ranks, out->channel)];
    pair->in = plan_add_link(out, rank, PLAN_LINK_IN);
    pair->out = plan_add_link(out, rank, PLAN_LINK_OUT);
    return pair;
}

bool tree_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    uint32_t n = shape->n_ranks;
    if (n < 2) return false;
    uint32_t node = shape->node_of[rank];
    plan_begin(out, PLAN_TREE, rank, n, channel);
    out->peer = shape->peer_of[rank];
    out->n_peers = shape->node_start[node + 1] - shape->node_start[node];
    out->flags = PLAN_DIRECT_IN_PLACE; /* peers never touch my buffers; a round comes down only after it went up */

    struct family family = family_of(label_of(shape->position[rank], n, channel), n);
    struct link_pair pairs[3];
    const struct link_pair *parent = relative_links(shape, out, family.parent, &pairs[0]);
    const struct link_pair *left = relative_links(shape, out, family.left, &pairs[1]);
    const struct link_pair *right = relative_links(shape, out, family.right, &pairs[2]);

    struct plan_operands up = {0}, down = {0};
    up_sources(&up, left ? &left->in : NULL, right ? &right->in : NULL);
    struct plan_operands *below = parent ? &down : &up; /* the root turns around in one move */
    down_destinations(below, left ? &left->out : NULL, right ? &right->out : NULL);
    plan_add_strand(out);
    if (parent == NULL) {
        plan_add_move(out, PLAN_FINAL, &up);
        return true;
    }
    up.dst[up.n_dst++] = plan_slot(PLAN_SLOT_OUT, parent->out, plan_constant(0));
    plan_add_move(out, 0, &up);
    plan_add_strand(out);
    down.src[down.n_src++] = plan_slot(PLAN_SLOT_IN, parent->in, plan_constant(0));
    plan_add_move(out, 0, &down);
    return true;
}
