/* rank_tree.c - AllReduce, Reduce and ReduceScatter whose value depends on nothing but the number of ranks: the
 * balanced binary tree over rank numbers, split at the largest power of two below n, whatever the placement.
 *
 * The tree of [lo, hi) splits at s; its inner node is worked by rank s, so that every rank but 0 works exactly one:
 *
 *              4                      n = 7: ((0 1) (2 3)) ((4 5) 6)
 *            /   \
 *           2     6                   An even rank gives its own input to the odd one after it, which has its own at
 *          / \   / \                  hand: the lowest nodes. The last rank of an odd n is even and has no such
 *         1   3 5   :                 neighbour: its own input is the right half of its own node.
 *        :|  :|:|   :
 *        0 1 2 3 4 5 6
 *
 *     leaf     input                    -> slot-out(the odd rank after me)          even ranks
 *     node     left + right             -> slot-out(parent)                         left, right: slot-in, or my input
 *     top      left + right             -> ...                                      FINAL; rank s of the whole
 * and from the top
 *     AllReduce        down the same tree: to both halves' nodes, and from the lowest nodes to rank 0
 *     Reduce           to the root
 *     ReduceScatter    the nodes walk the blocks one after another; the top sends them along the ring, farthest first
 *
 * Every node combines two values, in order, and rounds: that is the rank tree of plan/value.h, and the check proves it.
 * What comes down or goes round runs on links of its own (way 1), since a link that carried both ways would let each
 * round wait for the one before it.
 *
 * Steps: 1 + floor(log2(n - 1)) up, as many down. Bytes per rank and round of S: an even rank sends S as a leaf, S as a
 * node and up to 2 S down, an odd one S; each receives at most 2 S up and S down. A Reduce adds S at the top. Blocks of
 * B: n B up, (n-1) B round. One slot is enough. */
#include "algos/begin.h"

/* The inner node that a rank works: the range it is made of. Rank 0 works none. */
struct node {
    uint32_t split, lo, hi, parent; /* parent: the rank that works the node above; the split itself at the top */
};

static uint32_t split_below(uint32_t n)
{
    uint32_t p = 1;
    while (p * 2 < n) p *= 2;
    return p;
}

/* Walks down from the whole to the node that splits at `rank`, 0 < rank < n. */
static struct node node_of(uint32_t rank, uint32_t n)
{
    struct node at = {split_below(n), 0, n, split_below(n)};
    while (at.split != rank) {
        at.parent = at.split;
        if (rank < at.split) at.hi = at.split;
        else at.lo = at.split;
        at.split = at.lo + split_below(at.hi - at.lo);
    }
    return at;
}

/* Who has the value of [lo, hi). */
static uint32_t holder_of(uint32_t lo, uint32_t hi)
{
    return hi - lo == 1 ? lo : lo + split_below(hi - lo);
}

static struct plan_operand slot_from(struct plan *out, uint32_t rank, struct plan_index piece)
{
    return plan_slot(PLAN_SLOT_IN, plan_add_link(out, rank, PLAN_LINK_IN), piece);
}
static struct plan_operand slot_to(struct plan *out, uint32_t rank, struct plan_index piece)
{
    return plan_slot(PLAN_SLOT_OUT, plan_add_link(out, rank, PLAN_LINK_OUT), piece);
}
static struct plan_operand slot_back_from(struct plan *out, uint32_t rank, struct plan_index piece)
{
    return plan_slot(PLAN_SLOT_IN, plan_add_link_back(out, rank, PLAN_LINK_IN), piece);
}
static struct plan_operand slot_back_to(struct plan *out, uint32_t rank, struct plan_index piece)
{
    return plan_slot(PLAN_SLOT_OUT, plan_add_link_back(out, rank, PLAN_LINK_OUT), piece);
}

static void move_add(struct plan *out, uint8_t flags, struct plan_operand from, struct plan_operand to)
{
    plan_add_move(out, flags, &(struct plan_operands){1, 1, {from}, {to}});
}

/* The strand of an even rank's input; inside a loop of `times` turns when there are some. */
static void write_leaf(struct plan *out, uint32_t times, struct plan_index piece)
{
    if (out->rank % 2 || out->rank + 1 == out->n_ranks) return;
    plan_add_strand(out);
    if (times) plan_add_loop(out, times, 1);
    move_add(out, 0, plan_own(PLAN_INPUT, piece), slot_to(out, out->rank + 1, piece));
}

/* One half of my node: my own input, or what its holder sends. */
static struct plan_operand half(struct plan *out, uint32_t lo, uint32_t hi, struct plan_index piece)
{
    uint32_t holder = holder_of(lo, hi);
    return holder == out->rank ? plan_own(PLAN_INPUT, piece) : slot_from(out, holder, piece);
}

static struct plan_operands node_sources(struct plan *out, const struct node *node, struct plan_index piece)
{
    struct plan_operands move = {.n_src = 2, .src = {half(out, node->lo, node->split, piece)}};
    move.src[1] = half(out, node->split, node->hi, piece);
    return move;
}

static void begin(struct plan *out, enum plan_collective collective, const struct shape *shape, uint32_t rank,
                  uint32_t channel, uint32_t root)
{
    begin_links(out, collective, PLAN_RANK_TREE, shape, rank, channel, root);
    out->flags |= PLAN_IN_RANK_ORDER;
}

/* The result, kept and sent down: to the nodes of both halves, and to rank 0, which works no node. */
static void down_destinations(struct plan *out, struct plan_operands *move, const struct node *node)
{
    struct plan_index whole = plan_constant(0);
    uint32_t left = holder_of(node->lo, node->split), right = holder_of(node->split, node->hi);
    move->dst[move->n_dst++] = plan_own(PLAN_OUTPUT, whole);
    if (node->split - node->lo > 1 || left == 0) move->dst[move->n_dst++] = slot_back_to(out, left, whole);
    if (right != out->rank) move->dst[move->n_dst++] = slot_back_to(out, right, whole);
}

bool rank_tree_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    if (!fits_links(shape)) return false;
    struct plan_index whole = plan_constant(0);
    begin(out, PLAN_ALLREDUCE, shape, rank, channel, 0);
    write_leaf(out, 0, whole);
    if (rank == 0) {
        plan_add_strand(out);
        move_add(out, 0, slot_back_from(out, 1, whole), plan_own(PLAN_OUTPUT, whole));
        return true;
    }
    struct node node = node_of(rank, shape->n_ranks);
    struct plan_operands up = node_sources(out, &node, whole), down = {.n_src = 1};
    bool top = node.parent == rank;
    plan_add_strand(out);
    if (top) { /* turns around in one move */
        down_destinations(out, &up, &node);
        plan_add_move(out, PLAN_FINAL, &up);
        return true;
    }
    up.dst[up.n_dst++] = slot_to(out, node.parent, whole);
    plan_add_move(out, 0, &up);
    plan_add_strand(out);
    down.src[0] = slot_back_from(out, node.parent, whole);
    down_destinations(out, &down, &node);
    plan_add_move(out, 0, &down);
    return true;
}

bool rank_tree_reduce(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    if (!fits_links(shape)) return false;
    struct plan_index whole = plan_constant(0);
    uint32_t top = split_below(shape->n_ranks);
    begin(out, PLAN_REDUCE, shape, rank, channel, root);
    write_leaf(out, 0, whole);
    if (rank > 0) {
        struct node node = node_of(rank, shape->n_ranks);
        struct plan_operands up = node_sources(out, &node, whole);
        up.n_dst = 1;
        up.dst[0] = rank != top    ? slot_to(out, node.parent, whole)
                    : rank == root ? plan_own(PLAN_OUTPUT, whole)
                                   : slot_back_to(out, root, whole);
        plan_add_strand(out);
        plan_add_move(out, rank == top ? PLAN_FINAL : 0, &up);
    }
    if (rank != root || rank == top) return true;
    plan_add_strand(out);
    move_add(out, 0, slot_back_from(out, top, whole), plan_own(PLAN_OUTPUT, whole));
    return true;
}

/* The blocks in the order in which the top sends them: farthest first, its own last. */
static struct plan_index blocks_of(const struct shape *shape)
{
    uint32_t n = shape->n_ranks;
    return plan_index_mod(-1, (uint64_t)shape->position[split_below(n)] + n - 1, n);
}

/* The strand of what goes round: passes on the blocks of those behind me, then takes mine. */
static void write_round(const struct shape *shape, struct plan *out)
{
    uint32_t n = shape->n_ranks, p = out->position, after = (p + n - shape->position[split_below(n)]) % n;
    struct plan_index mine = plan_index_mod(0, p, n), block = blocks_of(shape);
    struct plan_operand from = slot_back_from(out, shape->order[(p + n - 1) % n], block);
    plan_add_strand(out);
    if (after < n - 1) {
        plan_add_loop(out, n - 1 - after, 1);
        move_add(out, 0, from, slot_back_to(out, shape->order[(p + 1) % n], block));
    }
    from.piece = mine;
    move_add(out, 0, from, plan_own(PLAN_OUTPUT, mine));
}

bool rank_tree_reducescatter(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    if (!fits_links(shape)) return false;
    uint32_t n = shape->n_ranks, top = split_below(n);
    begin(out, PLAN_REDUCESCATTER, shape, rank, channel, 0);
    struct plan_index mine = plan_index_mod(0, out->position, n), block = blocks_of(shape);
    write_leaf(out, n, block);
    if (rank > 0) {
        struct node node = node_of(rank, n);
        struct plan_operands up = node_sources(out, &node, block);
        up.n_dst = 1;
        up.dst[0] = rank != top ? slot_to(out, node.parent, block)
                                : slot_back_to(out, shape->order[(out->position + 1) % n], block);
        plan_add_strand(out);
        plan_add_loop(out, rank == top ? n - 1 : n, 1);
        plan_add_move(out, rank == top ? PLAN_FINAL : 0, &up);
        up.src[0].piece = up.src[1].piece = mine;
        up.dst[0] = plan_own(PLAN_OUTPUT, mine);
        if (rank == top) plan_add_move(out, PLAN_FINAL, &up);
    }
    if (rank != top) write_round(shape, out);
    return true;
}
