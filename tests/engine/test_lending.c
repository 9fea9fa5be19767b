/* test_lending.c - the host engine lends what links can send from where it lies. Every plan of ranks on different nodes runs over
 * links that read what they were lent late, and at a receiver that reads it later still; credit comes later than that. The oracle is
 * the definition of the collective; and what is lent stays as it is, to the bit, until it is credited. Ranks take turns in an order
 * drawn by a seed, in one thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "algos/algos.h"
#include "engine/host.h"
#include "plan/collective.h"

enum { MOST = 8, SLOTS = 4, SLOT = 1024, LINKS = 512, COUNT = 1777, SIGNATURE = 7 };

/* ---- links ---- */

struct fake {
    struct link out, in;
    unsigned char slot[SLOTS][SLOT];
    const void *at[SLOTS];
    size_t bytes[SLOTS];
    uint64_t hash[SLOTS]; /* of what is lent; 0: it is in the slot */
    uint64_t published, released, credited, lent_until;
    bool refuses;
};
static struct fake fakes[LINKS];
static int n_fakes;
static uint64_t n_lent, n_changed;

static struct fake *of_out(struct link *l) { return (struct fake *)(void *)((char *)l - offsetof(struct fake, out)); }
static struct fake *of_in(struct link *l) { return (struct fake *)(void *)((char *)l - offsetof(struct fake, in)); }

static uint64_t hash_of(const unsigned char *p, size_t bytes)
{
    uint64_t h = 14695981039346656037ull;
    while (bytes--) h = (h ^ *p++) * 1099511628211ull;
    return h | 1;
}

static enum rail_result acquire(struct link *l, void **slot)
{
    struct fake *f = of_out(l);
    if (f->published - f->credited == SLOTS) return RAIL_NOT_YET;
    *slot = f->slot[f->published % SLOTS];
    return RAIL_OK;
}

static void put(struct fake *f, const void *at, size_t bytes, uint64_t hash)
{
    uint64_t k = f->published++ % SLOTS;
    f->at[k] = at, f->bytes[k] = bytes, f->hash[k] = hash;
}

static void publish(struct link *l, size_t bytes, uint64_t signature)
{
    struct fake *f = of_out(l);
    (void)signature;
    put(f, f->slot[f->published % SLOTS], bytes, 0);
}

static enum rail_result wait(struct link *l, const void **slot, size_t *bytes, uint64_t *signature)
{
    struct fake *f = of_in(l);
    if (f->released == f->published) return RAIL_NOT_YET;
    *slot = f->at[f->released % SLOTS], *bytes = f->bytes[f->released % SLOTS], *signature = SIGNATURE;
    return RAIL_OK;
}

static void release(struct link *l) { of_in(l)->released++; }

static bool lends(struct link *l, size_t bytes)
{
    (void)l;
    return bytes >= 256;
}

static bool lend(struct link *l, const void *at, size_t bytes, uint64_t signature, bool last)
{
    struct fake *f = of_out(l);
    (void)signature, (void)last;
    if (f->refuses) return false;
    n_lent++;
    memset(f->slot[f->published % SLOTS], 0xee, SLOT); /* nobody is to look there */
    put(f, at, bytes, hash_of(at, bytes));
    f->lent_until = f->published;
    return true;
}

static enum rail_result settled(struct link *l)
{
    const struct fake *f = of_out(l);
    return f->credited >= f->lent_until ? RAIL_OK : RAIL_NOT_YET;
}

/* A release becomes credit: what was lent until now must be what it was. */
static void credit(struct fake *f)
{
    for (; f->credited < f->released; f->credited++) {
        uint64_t k = f->credited % SLOTS;
        n_changed += f->hash[k] && f->hash[k] != hash_of(f->at[k], f->bytes[k]);
    }
}

static const struct link_lending lending = {.lends = lends, .lend = lend, .settled = settled};
static const struct link_ops ops = {.name = "late", .acquire = acquire, .publish = publish, .wait = wait, .release = release,
                                    .lending = &lending};

static struct link *open_end(uint32_t from, uint32_t to, uint32_t channel, bool sender, bool refuses)
{
    struct fake *f = fakes;
    while (f < fakes + n_fakes && (f->out.from != from || f->out.to != to || f->out.channel != channel)) f++;
    if (f == fakes + n_fakes) {
        assert_true(n_fakes++ < LINKS);
        memset(f, 0, sizeof *f);
        f->out = f->in = (struct link){.ops = &ops, .from = from, .to = to, .channel = channel, .n_slots = SLOTS, .slot_bytes = SLOT};
        f->refuses = refuses;
    }
    return sender ? &f->out : &f->in;
}

/* ---- one collective ---- */

struct job {
    uint32_t n, root;
    enum plan_collective collective;
    enum plan_algorithm algorithm;
    bool in_place, refuses;
};

struct part {
    struct host_node node;
    struct instance instance;
    struct host_op op;
    int32_t *memory, *input, *output; /* output: as in place where it is so */
    unsigned char *scratch;
    size_t bytes;
    bool done;
};

static int32_t value(uint32_t rank, size_t k) { return (int32_t)(rank * 7919 + k * 31 % 1009); }

/* Element k of what `rank` gets. */
static int32_t expected(const struct job *j, uint32_t rank, size_t k)
{
    struct collective_kind kind = collective_kind(j->collective);
    int32_t sum = 0;
    for (uint32_t r = 0; r < j->n; r++) sum += value(r, kind.input_blocks ? rank * (size_t)COUNT + k : k);
    if (kind.reduces) return sum;
    if (kind.root_gives) return value(j->root, kind.input_blocks ? rank * (size_t)COUNT + k : k);
    return value((uint32_t)(k / COUNT), k % COUNT);
}

static size_t elements(const struct job *j, bool blocks) { return blocks ? (size_t)j->n * COUNT : COUNT; }

/* Its buffers, where the collective is in place as collective.h says. */
static void buffers(const struct job *j, uint32_t rank, struct part *p)
{
    struct collective_kind kind = collective_kind(j->collective);
    size_t in = elements(j, kind.input_blocks), out = elements(j, kind.output_blocks);
    p->bytes = (in + out) * sizeof(int32_t);
    p->memory = malloc(p->bytes);
    memset(p->memory, 0xa5, p->bytes);
    p->input = p->memory;
    p->output = p->memory + in;
    if (j->in_place && kind.output_blocks) p->input = p->output + rank * (size_t)COUNT;
    else if (j->in_place) p->output = p->input + (kind.input_blocks ? rank * (size_t)COUNT : 0);
    bool gives = !kind.root_gives || rank == j->root;
    for (size_t k = 0; gives && k < in; k++) p->input[k] = value(rank, k);
}

static bool begin(const struct job *j, const struct shape *shape, uint32_t rank, struct part *p)
{
    struct collective_kind kind = collective_kind(j->collective);
    struct plan *plan = &p->instance.plan;
    memset(p, 0, sizeof *p);
    if (!plan_write(j->collective, j->algorithm, shape, rank, 0, j->root, plan) || (plan->flags & PLAN_WINDOWS)) return false;
    buffers(j, rank, p);
    p->node.ranks = shape->order;
    for (uint32_t l = 0; l < plan->n_links; l++) {
        bool sender = plan->links[l].direction == PLAN_LINK_OUT;
        uint32_t peer = plan->links[l].peer;
        p->instance.links[l] = open_end(sender ? rank : peer, sender ? peer : rank, plan->links[l].way, sender, j->refuses);
    }
    struct host_call call = {.input = p->input, .output = p->output, .how = {.type = RAIL_I32, .op = RAIL_SUM}, .signature = SIGNATURE,
                             .lends_input = !(kind.reduces && j->in_place), .lends_output = true};
    call.split = (struct plan_split){.count = COUNT, .grain = 16, .piece_max = SLOT / 4, .n_channels = 1,
                                     .n_pieces = plan->n_pieces / collective_blocks(j->collective, j->n)};
    call.blocks = (struct plan_blocks){shape->order, kind.input_blocks, kind.output_blocks};
    size_t scratch = host_scratch_bytes(&call, plan);
    if (scratch) call.scratch = p->scratch = aligned_alloc(64, (scratch + 63) / 64 * 64);
    assert_int_equal(host_op_start(&p->op, &p->node, &call, (struct instance *const[]){&p->instance}), RAIL_OK);
    return true;
}

/* The call has returned: the memory is the caller's, who makes something else of it. */
static void finish(const struct job *j, uint32_t rank, struct part *p)
{
    struct collective_kind kind = collective_kind(j->collective);
    bool gets = !kind.root_gets || rank == j->root;
    for (size_t k = 0; gets && k < elements(j, kind.output_blocks); k++)
        if (p->output[k] != expected(j, rank, k))
            fail_msg("%s by %s, %u ranks%s, rank %u: element %zu is %d, not %d", collective_name(j->collective),
                     plan_algorithm_names[j->algorithm], j->n, j->in_place ? " in place" : "", rank, k, p->output[k],
                     expected(j, rank, k));
    memset(p->memory, 0x5a, p->bytes);
    p->done = true;
}

/* False: there is no such plan. */
static bool run(const struct job *j)
{
    static struct part parts[MOST];
    struct shape shape;
    uint64_t keys[MOST];
    uint32_t left = j->n, seed = j->n * 31 + j->root;
    bool there = true;
    n_fakes = 0;
    n_changed = 0;
    for (uint32_t r = 0; r < j->n; r++) keys[r] = r + 1;
    assert_int_equal(shape_build(&shape, j->n, keys, 1), 0);
    for (uint32_t r = 0; r < j->n; r++) there &= begin(j, &shape, r, &parts[r]);
    for (uint32_t turn = 0; there && left > 0; turn++) {
        assert_true(turn < 10000000);
        seed = seed * 1664525 + 1013904223;
        uint32_t r = (seed >> 16) % j->n;
        if (seed >> 8 & 1) credit(&fakes[(seed >> 12) % (uint32_t)n_fakes]);
        if (parts[r].done) continue;
        enum rail_result result = host_op_progress(&parts[r].op);
        if (result == RAIL_OK) finish(j, r, &parts[r]), left--;
        else assert_int_equal(result, RAIL_NOT_YET);
    }
    if (n_changed > 0)
        fail_msg("%s by %s, %u ranks%s: %d slots were lent, and changed", collective_name(j->collective),
                 plan_algorithm_names[j->algorithm], j->n, j->in_place ? " in place" : "", (int)n_changed);
    for (uint32_t r = 0; r < j->n; r++) free(parts[r].memory), free(parts[r].scratch);
    shape_clear(&shape);
    return there;
}

static void every_plan(bool in_place, bool refuses)
{
    static const uint32_t counts[] = {2, 3, 4, 5, 7, 8};
    int plans = 0;
    for (int c = 0; c < PLAN_ALLTOALL; c++)
        for (int a = 0; a < PLAN_ALGORITHMS; a++)
            for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
                for (uint32_t root = 0; root < (collective_kind((uint32_t)c).rooted ? counts[i] : 1); root++)
                    plans += run(&(struct job){counts[i], root, (enum plan_collective)c, (enum plan_algorithm)a, in_place, refuses});
    print_message("%d plans, %d slots lent so far\n", plans, (int)n_lent);
    assert_true(plans > 100);
}

static void what_is_lent_stays_as_it_is_until_it_is_credited(void **state)
{
    (void)state;
    every_plan(false, false);
    assert_true(n_lent > 1000);
}

static void in_place_too(void **state)
{
    (void)state;
    n_lent = 0;
    every_plan(true, false);
    assert_true(n_lent > 1000);
}

/* The memory was ended between the question and the move. */
static void a_slot_that_is_not_taken_as_a_loan_is_filled(void **state)
{
    (void)state;
    n_lent = 0;
    every_plan(false, true);
    assert_int_equal(n_lent, 0);
}

/* A ring AllReduce sends 2(n-1)/n of its data: the first piece from the input, n-1 from the output; n-2 are sums that lie nowhere. */
static void of_a_ring_all_but_partial_sums_is_lent(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= MOST; n++) {
        n_lent = 0;
        assert_true(run(&(struct job){n, 0, PLAN_ALLREDUCE, PLAN_RING, false, false}));
        uint64_t lent = n_lent, sent = 0;
        for (int f = 0; f < n_fakes; f++) sent += fakes[f].published;
        assert_true(lent * (2 * n - 2) <= sent * n); /* pieces of a few bytes are not */
        assert_true(lent * (2 * n - 2) * 10 >= sent * n * 6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_lent_stays_as_it_is_until_it_is_credited),
        cmocka_unit_test(in_place_too),
        cmocka_unit_test(a_slot_that_is_not_taken_as_a_loan_is_filled),
        cmocka_unit_test(of_a_ring_all_but_partial_sums_is_lent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
