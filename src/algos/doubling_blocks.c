/* doubling_blocks.c - AllGather and ReduceScatter by doubling distances, for blocks so short that hops cost more than
 * bytes.
 *
 * AllGather: position p owns blocks p .. p+d-1 before the step of distance d = 1, 2, 4 ..., and sends the first
 * c = min(d, n-d) of them to p-d while as many come from p+d (all positions and blocks mod n):
 *
 *     n = 6, p = 0       own 0   d=1: 1 from 1   d=2: 2 3 from 2   d=4: 4 5 from 4
 *
 * ReduceScatter: the same backwards, d = ..., 4, 2, 1: what came from there goes there, and what went is added up. Before
 * the step of distance d, p holds the partial sums of blocks p .. p+2d-1; those of p+d .. go to p+d, and what comes from
 * p-d is added to p .. p+c-1. Partial sums lie in scratch: block p+k at k. The first step reads the input, and copies the
 * blocks that nothing comes for.
 *
 * A block is a piece, and a piece a slot. Up to LEAD of them go before the first that comes is waited for, then one goes
 * for one that comes: LEAD slots are enough, and a step takes c / LEAD hops and not c.
 *
 * Any n up to 64. Hops: the sum of ceil(c / LEAD) over the steps, hence log2 n while n <= 2 LEAD. Bytes sent per rank and
 * round of blocks of B: (n-1) B, as a ring's, but from any position to any other: between nodes every rank's, where a ring
 * sends one rank's. (J. Bruck et al.: "Efficient algorithms for all-to-all communications in multiport message-passing
 * systems", IEEE TPDS 8, 1997; the backward form is its transpose.) */
#include "algos/begin.h"

enum { LEAD = PLAN_SLOTS_GUARANTEED, RANKS_MAX = 64 };

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

static bool fits(const struct shape *shape) { return fits_links(shape) && shape->n_ranks <= RANKS_MAX; }

/* Block p + k + i of turn i. */
static struct plan_index block(const struct plan *out, uint32_t k)
{
    return plan_index_mod(1, (uint64_t)out->position + k, out->n_ranks);
}

static void move_add(struct plan *out, struct plan_operand from, struct plan_operand to)
{
    plan_add_move(out, 0, &(struct plan_operands){1, 1, {from}, {to}});
}

/* One step: `count` blocks go and as many come. */
struct exchange {
    uint32_t count;
    uint16_t to, from; /* links */
    uint32_t go, come; /* first blocks, counted from my own */
    /* turn i of a loop that begins with block k */
    void (*send)(struct plan *out, const struct exchange *x, uint32_t k);
    void (*receive)(struct plan *out, const struct exchange *x, uint32_t k);
};

/* The position `ahead` of mine gets, the one as far behind gives. */
static struct exchange exchange_with(const struct shape *shape, struct plan *out, uint32_t ahead, uint32_t count)
{
    uint32_t n = shape->n_ranks, p = out->position;
    struct exchange x = {.count = count};
    x.to = plan_add_link(out, shape->order[(p + ahead) % n], PLAN_LINK_OUT);
    x.from = plan_add_link(out, shape->order[(p + n - ahead) % n], PLAN_LINK_IN);
    return x;
}

static void exchange_add(struct plan *out, const struct exchange *x)
{
    uint32_t lead = least(x->count, LEAD), rest = x->count - lead;
    plan_add_loop(out, lead, 1);
    x->send(out, x, x->go);
    if (rest) {
        plan_add_loop(out, rest, 2);
        x->receive(out, x, x->come);
        x->send(out, x, x->go + lead);
    }
    plan_add_loop(out, lead, 1);
    x->receive(out, x, x->come + rest);
}

/* ---- AllGather ---- */

static void send_own(struct plan *out, const struct exchange *x, uint32_t k)
{
    move_add(out, plan_own(PLAN_OUTPUT, block(out, k)), plan_slot(PLAN_SLOT_OUT, x->to, block(out, k)));
}

static void receive_own(struct plan *out, const struct exchange *x, uint32_t k)
{
    move_add(out, plan_slot(PLAN_SLOT_IN, x->from, block(out, k)), plan_own(PLAN_OUTPUT, block(out, k)));
}

bool doubling_allgather(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    if (!fits(shape)) return false;
    uint32_t n = shape->n_ranks;
    begin_links(out, PLAN_ALLGATHER, PLAN_DOUBLING, shape, rank, channel, 0);
    out->slots_min = LEAD;
    plan_add_strand(out);
    move_add(out, plan_own(PLAN_INPUT, block(out, 0)), plan_own(PLAN_OUTPUT, block(out, 0)));
    for (uint32_t d = 1; d < n; d *= 2) {
        struct exchange x = exchange_with(shape, out, n - d, least(d, n - d));
        x.come = d;
        x.send = send_own;
        x.receive = receive_own;
        exchange_add(out, &x);
    }
    return true;
}

/* ---- ReduceScatter ---- */

static struct plan_operand sum(const struct plan *out, uint32_t k)
{
    return plan_own(PLAN_SCRATCH, plan_index_mod(1, k, out->n_scratch));
}

static void send_input(struct plan *out, const struct exchange *x, uint32_t k)
{
    move_add(out, plan_own(PLAN_INPUT, block(out, k)), plan_slot(PLAN_SLOT_OUT, x->to, block(out, k)));
}

static void send_sum(struct plan *out, const struct exchange *x, uint32_t k)
{
    move_add(out, sum(out, k), plan_slot(PLAN_SLOT_OUT, x->to, block(out, k)));
}

static void add_to_input(struct plan *out, const struct exchange *x, uint32_t k)
{
    plan_add_move(out, 0, &(struct plan_operands){
        2, 1, {plan_slot(PLAN_SLOT_IN, x->from, block(out, k)), plan_own(PLAN_INPUT, block(out, k))}, {sum(out, k)}});
}

static void add_to_sum(struct plan *out, const struct exchange *x, uint32_t k)
{
    plan_add_move(out, 0, &(struct plan_operands){
        2, 1, {plan_slot(PLAN_SLOT_IN, x->from, block(out, k)), sum(out, k)}, {sum(out, k)}});
}

/* The last step: my own block is complete. */
static void finish_from_input(struct plan *out, const struct exchange *x, uint32_t k)
{
    plan_add_move(out, PLAN_FINAL, &(struct plan_operands){
        2, 1, {plan_slot(PLAN_SLOT_IN, x->from, block(out, k)), plan_own(PLAN_INPUT, block(out, k))},
        {plan_own(PLAN_OUTPUT, block(out, k))}});
}

static void finish(struct plan *out, const struct exchange *x, uint32_t k)
{
    plan_add_move(out, PLAN_FINAL, &(struct plan_operands){
        2, 1, {plan_slot(PLAN_SLOT_IN, x->from, block(out, k)), sum(out, k)}, {plan_own(PLAN_OUTPUT, block(out, k))}});
}

bool doubling_reducescatter(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    if (!fits(shape)) return false;
    uint32_t n = shape->n_ranks, top = 1;
    while (top * 2 < n) top *= 2;
    begin_links(out, PLAN_REDUCESCATTER, PLAN_DOUBLING, shape, rank, channel, 0);
    out->n_scratch = top > 1 ? top : 0;
    out->slots_min = LEAD;
    plan_add_strand(out);
    for (uint32_t d = top; d > 0; d /= 2) {
        bool first = d == top, last = d == 1;
        struct exchange x = exchange_with(shape, out, d, least(d, n - d));
        x.go = d;
        x.send = first ? send_input : send_sum;
        x.receive = first ? (last ? finish_from_input : add_to_input) : last ? finish : add_to_sum;
        exchange_add(out, &x);
        if (first && x.count < d) {
            plan_add_loop(out, d - x.count, 1);
            move_add(out, plan_own(PLAN_INPUT, block(out, x.count)), sum(out, x.count));
        }
    }
    return true;
}
