/* family.c - trees that leave each node, each leaf, each pod as seldom as any tree: ranks in nodes, nodes under leaves,
 * leaves under pods. At every tier the groups are joined by one tree of their own, so g groups by g - 1 edges.
 *
 * Items of one group (the ranks of a node, the nodes of a leaf, ...) sit in seats 0 .. g-1 of a heap: every seat takes the
 * next two of what is left. Even channels seat them in order, odd ones in reverse, so whoever has children in one tree has
 * none in the other (or, one item of an even g, one in each).
 *
 *     g = 6, even channels    0                  odd channels    5          An item has c children in one tree and c' in
 *                           /   \                              /   \        the other: c + c' <= 2.
 *                          1     2                            4     3
 *                         / \   /                            / \   /
 *                        3   4 5                            2   1 0
 *
 * A group is an item of the tier above, where it has a parent and up to two children itself. Its seats inherit them: the
 * parent is seat 0's, the children come before the group's own items, the first with seat 0, the second with seat 1:
 *
 *           | parent                 A and B stand for groups of children. What is left of the heap begins at seat 2. The
 *           0                        number of children that heap has to give is g - 1 + c, in the other tree
 *         /   \                      g - 1 + c', together at most 2 g: so again no item gets more than two, and by
 *        A     1                     induction over the tiers no rank, node, leaf or pod has more than two children in
 *            /   \                   both trees together, and three edges in one.
 *           B     2
 *               /   \                Over both trees, each with half of the data, no node sends more than (2 + 2) S / 2
 *              3     4               in an AllReduce, however many tiers there are: what a double binary tree sends.
 *
 * To reach the parent from A costs no hop inside the group, from B one (from item 1 to item 0), and one more for each tier
 * of several items below. So the first child is the one with the larger part below it, which a heap's is.
 *
 * With a root, the items beside the root's own sit in the seats, from the one after it on, and the root's own item hangs
 * above seat 0, in both trees; it has one child in each:
 *
 *         root's item        The groups on the way to the root have at most one child in each tree, which seat 0 inherits;
 *             |              one that is alone in its group inherits from that itself. Sent: S by the root, and nobody
 *             0 ...          else more. */
#include "algos/family.h"

enum { LEVELS = SHAPE_TIERS + 2, NONE = UINT32_MAX };

/* Level 0 is of ranks (by position), 1 of nodes, 2 of the groups of tiers[0], and so on; the last level's items are one
 * group. */
struct view {
    const struct shape *shape;
    uint32_t channel, top;
    uint32_t root[LEVELS + 1]; /* the item that holds the root, by level; NONE */
};

struct group {
    uint32_t level, first, n, turn;
    uint32_t above; /* the root's item, which has no seat; NONE */
    bool reversed;
};

/* The item at `level`, seat 0 of it: of children. Whatever seat in it gives its child number `slot`: of a parent. */
struct end {
    uint32_t level, item, slot;
};
struct relatives {
    bool has_parent;
    struct end parent;
    uint32_t n_children;
    struct end child[FAMILY_CHILDREN];
};

/* up[level] := the item that holds the rank. */
static void climb(const struct shape *shape, uint32_t rank, uint32_t *up)
{
    up[0] = shape->position[rank];
    up[1] = shape->node_of[rank];
    for (uint32_t t = 0; t < shape->n_tiers; t++) up[t + 2] = shape->tiers[t].group_of[up[t + 1]];
    up[shape->n_tiers + 2] = 0;
}

static struct view view_of(const struct shape *shape, uint32_t channel)
{
    struct view v = {.shape = shape, .channel = channel, .top = shape->n_tiers + 1};
    for (uint32_t l = 0; l <= LEVELS; l++) v.root[l] = NONE;
    return v;
}

/* The items at `level` of one item of the level above. A node's ranks take turns, from channel to channel, at being seat
 * 0, who talks to other nodes: (0, n-1), (2, 1), (4, 3) ... for channels (0, 1), (2, 3), (4, 5). */
static struct group group_at(const struct view *v, uint32_t level, uint32_t item)
{
    const struct shape *s = v->shape;
    struct group g = {.level = level, .above = NONE, .reversed = v->channel % 2};
    if (level == v->top) {
        g.n = s->n_tiers ? s->tiers[s->n_tiers - 1].n_groups : s->n_nodes;
    } else {
        const uint32_t *start = level == 0 ? s->node_start : s->tiers[level - 1].start;
        g.first = start[item];
        g.n = start[item + 1] - start[item];
    }
    bool holds_root = v->root[level] != NONE && v->root[level + 1] == item;
    if (holds_root && g.n > 1) g.above = v->root[level];
    if (level == 0 && !holds_root) g.turn = (v->channel & ~1u) % g.n;
    return g;
}

static uint32_t seats(const struct group *g) { return g->above == NONE ? g->n : g->n - 1; }

static uint32_t item_at(const struct group *g, uint32_t seat)
{
    uint32_t i = g->reversed ? seats(g) - 1 - seat : seat;
    uint32_t shift = g->above == NONE ? g->turn : g->above - g->first + 1;
    return g->first + (uint32_t)(((uint64_t)i + shift) % g->n);
}

static uint32_t seat_of(const struct group *g, uint32_t item)
{
    uint32_t shift = g->above == NONE ? g->turn : g->above - g->first + 1;
    uint32_t i = (uint32_t)(((uint64_t)(item - g->first) + 2 * (uint64_t)g->n - shift) % g->n);
    return g->reversed ? seats(g) - 1 - i : i;
}

/* The heap deals out places 1, 2, 3 ...; seat s has places 2 s + 1 and 2 s + 2 below it. The first inherited child takes
 * place 1, the second place 3, or 2 when there is but one seat; other seats take the rest in order. */
static uint32_t place_of(uint32_t seat, uint32_t inherited)
{
    return seat + (inherited > 0 && seat > 0) + (inherited > 1 && seat > 1);
}
static uint32_t seat_at(uint32_t place, uint32_t inherited)
{
    return place - (inherited > 0 && place > 1) - (inherited > 1 && place > 3);
}
static uint32_t inherited_at(uint32_t place, uint32_t inherited, uint32_t n_seats)
{
    if (inherited > 0 && place == 1) return 0;
    return inherited > 1 && place == (n_seats > 1 ? 3 : 2) ? 1 : NONE;
}

/* An item's relatives, from its group's and from its seat. */
static struct relatives relatives_of(const struct group *g, uint32_t item, const struct relatives *of_group)
{
    struct relatives r = {.has_parent = true};
    if (item == g->above)
        return (struct relatives){.n_children = 1, .child = {{g->level, item_at(g, 0), 0}}};
    uint32_t n = seats(g), inherited = of_group->n_children, seat = seat_of(g, item);
    uint32_t place = place_of(seat, inherited);
    if (seat > 0) {
        r.parent = (struct end){g->level, item_at(g, (place - 1) / 2), (place - 1) % 2};
    } else if (g->above != NONE) {
        r.parent = (struct end){g->level, g->above, 0};
    } else {
        r.has_parent = of_group->has_parent;
        r.parent = of_group->parent;
    }
    for (uint64_t p = 2 * (uint64_t)seat + 1; p <= 2 * (uint64_t)seat + 2 && p < (uint64_t)n + inherited; p++) {
        uint32_t k = inherited_at((uint32_t)p, inherited, n);
        r.child[r.n_children++] = k != NONE ? of_group->child[k]
                                            : (struct end){g->level, item_at(g, seat_at((uint32_t)p, inherited)), 0};
    }
    return r;
}

/* The rank whose parent lies outside of the item. */
static uint32_t head(const struct view *v, struct end e)
{
    for (; e.level > 0; e.level--) {
        struct group g = group_at(v, e.level - 1, e.item);
        e.item = item_at(&g, 0);
    }
    return v->shape->order[e.item];
}

/* The rank who has the item's child number e.slot. */
static uint32_t giver(const struct view *v, struct end e)
{
    for (; e.level > 0; e.level--) {
        struct group g = group_at(v, e.level - 1, e.item);
        uint32_t seat = e.slot == 1 && seats(&g) > 1;
        if (seat == 1) e.slot = 0;
        e.item = item_at(&g, seat);
    }
    return v->shape->order[e.item];
}

static struct family look(const struct view *v, uint32_t rank)
{
    uint32_t up[LEVELS + 1];
    struct relatives r = {0};
    climb(v->shape, rank, up);
    for (uint32_t level = v->top + 1; level-- > 0;) {
        struct group g = group_at(v, level, up[level + 1]);
        r = relatives_of(&g, up[level], &r);
    }
    struct family f = {.has_parent = r.has_parent, .n_children = r.n_children};
    if (f.has_parent) f.parent = giver(v, r.parent);
    for (uint32_t k = 0; k < r.n_children; k++) f.child[k] = head(v, r.child[k]);
    return f;
}

struct family family_of(const struct shape *shape, uint32_t rank, uint32_t channel)
{
    struct view v = view_of(shape, channel);
    return look(&v, rank);
}

struct family family_below(const struct shape *shape, uint32_t rank, uint32_t root, uint32_t channel)
{
    struct view v = view_of(shape, channel);
    climb(shape, root, v.root);
    return look(&v, rank);
}

uint32_t family_crossings(const struct shape *shape, uint32_t channel, uint32_t tier)
{
    uint32_t crossings = 0, here[LEVELS + 1], there[LEVELS + 1];
    for (uint32_t rank = 0; rank < shape->n_ranks; rank++) {
        struct family f = family_of(shape, rank, channel);
        if (!f.has_parent) continue;
        climb(shape, rank, here);
        climb(shape, f.parent, there);
        crossings += here[tier + 1] != there[tier + 1];
    }
    return crossings;
}
