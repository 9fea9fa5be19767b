/* doubling.c - AllReduce by recursive doubling: in step k every rank swaps all it has with the one whose position differs
 * in bit k, and both combine the two values in the same order. Fewest hops of all: log2 n, and one for two ranks.
 *
 *     position   0   1   2   3   4   5   6   7
 *     k = 0      0-1     2-3     4-5     6-7        Ranks beyond the largest power of two p fold in: position p + x
 *     k = 1      0---2   1---3   4---6   5---7      first gives its input to x, and last receives the result from x.
 *     k = 2      0-------4   1-------5   ...
 *
 * After step k all ranks of a block of 2^(k+1) positions hold the same bits: each combined (lower half, upper half) of the
 * same two values, and a combination of the same operands in the same order is the same everywhere. (Thakur, Rabenseifner,
 * Gropp: "Optimization of collective communication operations in MPICH", IJHPCA 19, 2005.)
 *
 * Seats are positions: neighbours in memory swap first. In rank order (doubling_in_rank_order) they are dealt by rank
 * number instead, the two of a fold side by side:
 *
 *     seat       0    1    2    3    4..          n = 6: p = 4, two folded
 *     ranks      0 1  2 3  4    5                 the combination is ((0 1) (2 3)) (4 5)
 *
 * which is the balanced tree over rank numbers when n is a power of two, or a difference of two of them (6 = 8 - 2).
 *
 * Steps: log2 p, plus at most 2 when ranks are folded in. Bytes sent per rank and round of S bytes: S log2 p, plus S for each of
 * the two ranks of a fold. One piece per round; one slot is enough, since everybody sends before it waits. */
#include "algos/algos.h"
#include "plan/write.h"

/* A partner is a link in and a link out, two for the fold: all that fits is 2^7 blocks. */
enum { PARTNERS_MAX = PLAN_MAX_LINKS / 2 - 1 };

struct fold {
    uint32_t p;      /* ranks that swap */
    uint32_t steps;  /* log2 p */
    uint32_t extra;  /* ranks folded in */
    bool by_rank;    /* seats are dealt by rank number */
};

static struct fold fold_of(uint32_t n, bool by_rank)
{
    struct fold f = {.p = 1, .by_rank = by_rank};
    while (f.p <= n / 2) {
        f.p *= 2;
        f.steps++;
    }
    f.extra = n - f.p;
    return f;
}

/* Seats 0 .. p-1 swap; seat p + x is folded into seat x. */
static uint32_t rank_at(const struct shape *shape, struct fold f, uint32_t seat)
{
    if (!f.by_rank) return shape->order[seat];
    if (seat >= f.p) return 2 * (seat - f.p) + 1;
    return seat < f.extra ? 2 * seat : seat + f.extra;
}

static uint32_t seat_of(const struct shape *shape, struct fold f, uint32_t rank)
{
    if (!f.by_rank) return shape->position[rank];
    if (rank >= 2 * f.extra) return rank - f.extra;
    return rank % 2 ? f.p + rank / 2 : rank / 2;
}

static uint16_t link_at(const struct shape *shape, struct plan *out, struct fold f, uint32_t seat,
                        enum plan_direction direction)
{
    return plan_add_link(out, rank_at(shape, f, seat), direction);
}

/* The folded rank: gives its input, takes the result. */
static void write_folded(const struct shape *shape, struct plan *out, struct fold f, uint32_t host_seat)
{
    struct plan_index whole = plan_constant(0);
    uint16_t to = link_at(shape, out, f, host_seat, PLAN_LINK_OUT);
    uint16_t from = link_at(shape, out, f, host_seat, PLAN_LINK_IN);
    struct plan_operands give = {.n_src = 1, .n_dst = 1}, take = {.n_src = 1, .n_dst = 1};
    give.src[0] = plan_own(PLAN_INPUT, whole);
    give.dst[0] = plan_slot(PLAN_SLOT_OUT, to, whole);
    take.src[0] = plan_slot(PLAN_SLOT_IN, from, whole);
    take.dst[0] = plan_own(PLAN_OUTPUT, whole);
    plan_add_move(out, 0, &give);
    plan_add_move(out, 0, &take);
}

/* What goes out before the first swap is combined: my input, with the folded rank's added if there is one. */
static void write_first(const struct shape *shape, struct plan *out, uint32_t seat, struct fold f)
{
    struct plan_index whole = plan_constant(0);
    struct plan_operands first = {.n_src = 1};
    first.src[0] = plan_own(PLAN_INPUT, whole);
    if (seat < f.extra) {
        first.src[first.n_src++] = plan_slot(PLAN_SLOT_IN, link_at(shape, out, f, f.p + seat, PLAN_LINK_IN), whole);
        first.dst[first.n_dst++] = plan_own(PLAN_OUTPUT, whole);
    }
    first.dst[first.n_dst++] = plan_slot(PLAN_SLOT_OUT, link_at(shape, out, f, seat ^ 1, PLAN_LINK_OUT), whole);
    plan_add_move(out, 0, &first);
}

/* Combines step k's two halves, lower first, and passes the sum on. */
static void write_swap(const struct shape *shape, struct plan *out, uint32_t seat, struct fold f, uint32_t k)
{
    struct plan_index whole = plan_constant(0);
    bool last = k + 1 == f.steps, lower = (seat >> k & 1) == 0;
    enum plan_place mine = k == 0 && seat >= f.extra ? PLAN_INPUT : PLAN_OUTPUT;
    struct plan_operands swap = {.n_src = 2, .n_dst = 1};
    uint16_t from = link_at(shape, out, f, seat ^ 1u << k, PLAN_LINK_IN);
    swap.src[lower ? 0 : 1] = plan_own(mine, whole);
    swap.src[lower ? 1 : 0] = plan_slot(PLAN_SLOT_IN, from, whole);
    swap.dst[0] = plan_own(PLAN_OUTPUT, whole);
    if (!last || seat < f.extra) {
        uint32_t next = last ? f.p + seat : seat ^ 2u << k;
        swap.dst[swap.n_dst++] = plan_slot(PLAN_SLOT_OUT, link_at(shape, out, f, next, PLAN_LINK_OUT), whole);
    }
    plan_add_move(out, last ? PLAN_FINAL : 0, &swap);
}

static bool write(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out, bool by_rank)
{
    struct fold f = fold_of(shape->n_ranks, by_rank);
    uint32_t node = shape->node_of[rank], seat = seat_of(shape, f, rank);
    if (shape->n_ranks < 2 || f.steps > PARTNERS_MAX) return false;
    plan_begin(out, PLAN_DOUBLING, rank, shape->n_ranks, channel);
    out->peer = shape->peer_of[rank];
    out->n_peers = shape->node_start[node + 1] - shape->node_start[node];
    out->flags = PLAN_DIRECT_IN_PLACE; /* peers never touch my buffers, and what I send is copied before I write */
    plan_add_strand(out);
    if (seat >= f.p) {
        write_folded(shape, out, f, seat - f.p);
        return true;
    }
    write_first(shape, out, seat, f);
    for (uint32_t k = 0; k < f.steps; k++) write_swap(shape, out, seat, f, k);
    return true;
}

bool doubling_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    return write(shape, rank, channel, out, false);
}

bool doubling_fits_rank_order(uint32_t n_ranks)
{
    uint32_t low = n_ranks & -n_ranks, next = n_ranks + low; /* 2^a - 2^b: its ones stand side by side */
    return (next & (next - 1)) == 0;
}

bool doubling_in_rank_order(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    return doubling_fits_rank_order(shape->n_ranks) && write(shape, rank, channel, out, true);
}
