/* The rail plans are proven right over several nodes: even and uneven, ranks in any order, by address, through windows and
 * mixed, in place, on several channels whose windows follow each other; their hops and what each node sends are those of
 * algos/rails.c; and damaged ones are refused, each for its reason. */
#include "plan/plans.h"

#include <stdio.h>

#include "plan/collective.h"

enum { N_MAX = 64 };

/* Who is direct. */
enum mode { STAGED, DIRECT, FIRST_DIRECT, EVEN_DIRECT, MODES };
static void mode_fill(enum mode mode, bool direct[N_MAX])
{
    for (uint32_t r = 0; r < N_MAX; r++)
        direct[r] = mode == DIRECT || (mode == FIRST_DIRECT && r == 0) || (mode == EVEN_DIRECT && r % 2 == 0);
}

/* RAILCCL_TEST_LONG runs the full product; otherwise n > 17 gets modes, places and schedules in turn. */
static bool is_long(void) { return getenv("RAILCCL_TEST_LONG") != NULL; }

static const enum plan_collective all_three[] = {PLAN_ALLREDUCE, PLAN_REDUCESCATTER, PLAN_ALLGATHER};

/* ---- right, and as cheap as promised ---- */

/* Pieces of a round that this node's ranks send, and the hops of all of it. */
static void promises_hold(enum plan_collective collective, const struct shape *shape,
                          const struct plan_check_report *report, const struct plan_check_count *counts)
{
    uint32_t m = shape->n_nodes, k = rails_rings(shape), ways = collective == PLAN_ALLREDUCE ? 2 : 1;
    for (uint32_t v = 0; v < m; v++) {
        uint64_t sent = 0;
        for (uint32_t p = shape->node_start[v]; p < shape->node_start[v + 1]; p++) sent += counts[shape->order[p]].slots_sent;
        assert_int_equal(sent, ways * k * (m - 1)); /* AllReduce: of m k pieces, so 2 S (m-1)/m */
    }
    assert_in_range(report->steps, ways * (m - 1), ways * (m - 1) + 2); /* an exchange before, one after */
}

static void prove(enum plan_collective collective, const struct shape *shape, uint32_t channel, uint32_t rounds)
{
    uint32_t n = shape->n_ranks;
    struct plan *plans = collective_plans(collective, shape, PLAN_RAILS, channel, 0);
    assert_non_null(plans);
    assert_int_equal(plans[0].flags, PLAN_WINDOWS | PLAN_DIRECT_IN_PLACE);
    for (uint32_t mode = STAGED; mode < MODES; mode++)
        for (uint32_t place = 0; place < 3; place++) { /* nobody, everybody, every third in place */
            if (!is_long() && n > 9 && (mode + place) % 4 != (n + rounds) % 4) continue;
            bool direct[N_MAX], in_place[N_MAX];
            mode_fill((enum mode)mode, direct);
            for (uint32_t r = 0; r < N_MAX; r++) in_place[r] = place == 1 || (place == 2 && r % 3 == 0);
            struct plan_check_call call = {plans, rounds, direct, in_place};
            uint64_t values = 0;
            for (uint32_t schedule = PLAN_CHECK_FORWARD; schedule <= PLAN_CHECK_RANDOM; schedule++) {
                if (!is_long() && n > 9 && schedule != (n + mode) % 4) continue;
                struct plan_check check = {.calls = &call, .n_calls = 1, .schedule = (enum plan_check_schedule)schedule, .seed = n};
                struct plan_check_report report;
                struct plan_check_count counts[N_MAX];
                if (plan_check_run(&check, &report, counts) != PLAN_RIGHT)
                    fail_msg("%s of %u ranks on %u nodes, channel %u, %u rounds, mode %u, place %u, schedule %u: %s",
                             collective_name(collective), n, shape->n_nodes, channel, rounds, mode, place, schedule, report.why);
                if (values) assert_int_equal(values, report.values);
                values = report.values;
                if (rounds == 1) promises_hold(collective, shape, &report, counts);
            }
        }
    free(plans);
}

static void prove_shape(const uint32_t *sizes, uint32_t channel)
{
    for (int dealt = 0; dealt < 2; dealt++) {
        struct shape shape = shape_of_nodes(sizes, dealt);
        for (size_t c = 0; c < 3; c++)
            for (uint32_t rounds = 1; rounds <= 4; rounds++) {
                if (!is_long() && shape.n_ranks > 9 && rounds != 1 && rounds != 3) continue;
                if (c > 0 && !rails_fit_blocks(&shape)) continue;
                prove(all_three[c], &shape, channel, rounds);
            }
        shape_clear(&shape);
    }
}

static void even_nodes_of_2_to_64_ranks(void **state)
{
    (void)state;
    for (uint32_t m = 2; m <= 32; m++)
        for (uint32_t k = 2; m * k <= N_MAX; k++) {
            uint32_t sizes[33] = {0};
            for (uint32_t v = 0; v < m; v++) sizes[v] = k;
            if (is_long() || m * k <= 12 || (m * k <= 36 && (m + k) % 4 == 0) || (m == 8 && k == 8)) prove_shape(sizes, m % 3);
        }
}

static void uneven_nodes_give_the_smallest_nodes_number_of_rings(void **state)
{
    (void)state;
    static const uint32_t shapes[][18] = {
        {2, 1}, {1, 2}, {1, 7}, {3, 5, 1}, {2, 3}, {3, 2, 2}, {2, 4}, {4, 2, 3}, {5, 3, 9, 4, 2}, {13, 11, 7, 3}, {31, 33},
        {1, 1, 1, 2}, {2, 1, 1, 1, 1, 1, 1, 1, 1}, {3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, {2, 60}, {1, 63}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) prove_shape(shapes[s], (uint32_t)(s % 4));
}

static void shapes_that_do_not_fit_are_refused_and_the_plan_left_alone(void **state)
{
    (void)state;
    static const uint32_t shapes[][6] = {{1}, {8}, {1, 1}, {1, 1, 1, 1}, {64, 2}, {2, 2, 65}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        struct shape shape = shape_of_nodes(shapes[s], false);
        struct plan before, after;
        memset(&before, 0x5a, sizeof before);
        after = before;
        for (size_t c = 0; c < 3; c++) assert_false(plan_write(all_three[c], PLAN_RAILS, &shape, 0, 0, 0, &after));
        assert_memory_equal(&after, &before, sizeof after);
        shape_clear(&shape);
    }
    struct shape uneven = shape_of_nodes((const uint32_t[]){2, 3, 0}, false);
    struct plan plan;
    assert_true(rails_allreduce(&uneven, 0, 0, &plan));
    assert_false(rails_allgather(&uneven, 0, 0, &plan)); /* a block per rank needs a ring per rank */
    assert_false(rails_reducescatter(&uneven, 0, 0, &plan));
    shape_clear(&uneven);
}

/* Windows, and the counters of their rounds, are a channel's: a lagging wait finds the round of its own channel. */
static void calls_on_several_channels_follow_each_other(void **state)
{
    (void)state;
    enum { CALLS = 12 };
    static const uint32_t shapes[][6] = {{2, 2}, {3, 2}, {2, 2, 2}, {4, 4}, {1, 3, 2}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (uint32_t variant = 0; variant < 12; variant++) {
            struct shape shape = shape_of_nodes(shapes[s], variant % 2);
            struct plan_check_call calls[CALLS];
            bool direct[CALLS][N_MAX], in_place[CALLS][N_MAX];
            for (uint32_t k = 0; k < CALLS; k++) {
                enum plan_collective c = rails_fit_blocks(&shape) ? all_three[(k + variant) % 3] : PLAN_ALLREDUCE;
                enum plan_algorithm a = (k + variant) % 5 == 4 ? PLAN_RING : PLAN_RAILS;
                mode_fill((enum mode)((k * 7 + variant) % MODES), direct[k]);
                for (uint32_t r = 0; r < N_MAX; r++) in_place[k][r] = (k + variant + r) % 3 == 0;
                calls[k] = (struct plan_check_call){collective_plans(c, &shape, a, k * k % 3, 0), 1 + (k + variant) % 3,
                                                    direct[k], in_place[k]};
            }
            for (int schedule = PLAN_CHECK_FORWARD; schedule <= PLAN_CHECK_RANDOM; schedule++) {
                struct plan_check check = {.calls = calls, .n_calls = CALLS, .schedule = (enum plan_check_schedule)schedule,
                                           .seed = variant};
                struct plan_check_report report;
                if (plan_check_run(&check, &report, NULL) != PLAN_RIGHT) fail_msg("shape %zu, variant %u: %s", s, variant, report.why);
            }
            for (uint32_t k = 0; k < CALLS; k++) free((void *)(uintptr_t)calls[k].plans);
            shape_clear(&shape);
        }
}

static void a_rank_of_rails_sends_to_its_number_in_the_next_node_alone(void **state)
{
    (void)state;
    struct shape shape = shape_of_nodes((const uint32_t[]){3, 5, 4, 0}, true);
    for (uint32_t rank = 0; rank < shape.n_ranks; rank++) {
        struct plan plan;
        assert_true(rails_allreduce(&shape, rank, 2, &plan));
        assert_int_equal(plan.n_links, shape.peer_of[rank] < 3 ? 4 : 0); /* what reduces, and what spreads */
        for (uint32_t l = 0; l < plan.n_links; l++) {
            assert_int_equal(shape.peer_of[plan.links[l].peer], shape.peer_of[rank]);
            uint32_t step = plan.links[l].direction == PLAN_LINK_OUT ? 1 : 2;
            assert_int_equal(shape.node_of[plan.links[l].peer], (shape.node_of[rank] + step) % 3);
        }
    }
    shape_clear(&shape);
}

static void rings_are_at_home_on_rails_in_turn(void **state)
{
    (void)state;
    struct shape shape = shape_of_nodes((const uint32_t[]){4, 4, 0}, false);
    for (uint32_t rank = 0; rank < 8; rank++) shape.rail_of[rank] = shape.peer_of[rank]; /* nearest NICs */
    shape.n_rails = 8; /* rings 0 to 3 of channel 0 and of channel 1 share them out */
    for (uint32_t rank = 0; rank < 8; rank++)
        for (uint32_t channel = 0; channel < 4; channel++)
            assert_int_equal(rails_home(&shape, rank, channel), (rank % 4 + 4 * channel) % 8);
    shape.n_rails = 4;
    for (uint32_t channel = 0; channel < 4; channel++) assert_int_equal(rails_home(&shape, 6, channel), 2);
    shape.rail_of[6] = 1; /* GPUs and NICs that are not numbered alike */
    assert_int_equal(rails_home(&shape, 6, 3), 1);
    shape_clear(&shape);
}

/* ---- damaged ---- */

/* The steps of a rank with a ring, AllReduce on nodes of the same size: stage 0 wait DONE, 1 loop 2 stage, 3 signal STAGED;
 * reduce 4 wait STAGED, 5 send, 6 loop 7 combine on, 8 complete, 9 signal REDUCED; spread 10 wait my REDUCED, 11 send,
 * 12 loop 13 pass on, 14 last, 15 signal DELIVERED; fetch 16 wait DELIVERED, 17 loop 18 fetch, 19 signal DONE.
 * ReduceScatter: 8 complete, 9 signal DELIVERED; fetch 10 wait DELIVERED, 11 signal DONE. */

static void step_remove(struct plan *p, uint32_t at)
{
    memmove(&p->steps[at], &p->steps[at + 1], (p->n_steps - at - 1u) * sizeof p->steps[0]);
    p->n_steps--;
    for (uint32_t k = 0; k < p->n_strands; k++) {
        struct plan_strand *s = &p->strands[k];
        if (s->first > at) s->first--;
        else if (at < (uint32_t)s->first + s->n_steps) s->n_steps--;
    }
    for (uint32_t k = 0; k < at; k++)
        if (p->steps[k].verb == PLAN_LOOP && k + p->steps[k].body >= at) p->steps[k].body--;
}

static struct plan_operand *operand(struct plan *p, uint32_t step, uint32_t k) { return &p->operands[p->steps[step].first + k]; }

static void everywhere(struct plan *p, void (*apply)(struct plan *one))
{
    for (uint32_t r = 0; r < p[0].n_ranks; r++) apply(&p[r]);
}

static void drop_0(struct plan *p) { step_remove(p, 0); }
static void drop_3(struct plan *p) { step_remove(&p[1], 3); }
static void drop_4(struct plan *p) { step_remove(&p[1], 4); }
static void drop_10(struct plan *p) { step_remove(&p[1], 10); }
static void drop_15(struct plan *p) { step_remove(&p[1], 15); }
static void drop_9(struct plan *p) { step_remove(&p[1], 9); }
static void drop_16(struct plan *p) { step_remove(&p[1], 16); }
static void drop_19(struct plan *p) { step_remove(&p[1], 19); }
static void lagging_wait_lost(struct plan *p) { everywhere(p, drop_0); }
static void wait_for_fewer_staged(struct plan *p) { operand(&p[1], 4, 0)->span--, operand(&p[1], 4, 0)->which.b = 1; }
static void wait_for_fewer_delivered(struct plan *p) { operand(&p[1], 16, 0)->span--, operand(&p[1], 16, 0)->which.b = 1; }
static void span_short(struct plan *p) { operand(&p[1], 5, 0)->span--; }
static void complete_short(struct plan *p) { operand(&p[1], 8, 1)->span--; }
static void deliver_to_fewer(struct plan *p) { operand(&p[1], 14, 1)->span--; }
static void fetch_wrong_peer(struct plan *p) { operand(&p[1], 18, 0)->which.b = 1; }
static void fetch_wrong_piece(struct plan *p) { operand(&p[1], 18, 1)->piece.b = 1; }
static void fetch_less(struct plan *p) { p[1].steps[17].times -= 2; }
static void fetch_skips_another(struct plan *p) { p[1].steps[17].skip = 0; }
static void stage_less(struct plan *p) { p[1].steps[1].times -= 2; }
static void stage_skips_another(struct plan *p) { p[1].steps[1].skip = 0; }
static void stage_nothing_left_out(struct plan *p) { p[1].steps[1].period = 1, p[1].steps[1].skip = 0; }
static void stage_skip_outside(struct plan *p) { p[1].steps[1].skip = 2; }
static void stage_for_another(struct plan *p) { operand(&p[1], 2, 1)->which.b = 0; }
static void signal_before_staging(struct plan *p)
{
    struct plan_step kept = p[1].steps[3];
    memmove(&p[1].steps[2], &p[1].steps[1], 2 * sizeof kept);
    p[1].steps[1] = kept;
}
static void final_lost(struct plan *p) { p[1].steps[8].flags = 0; }
static void combine_in_another_order(struct plan *p) { operand(&p[1], 5, 0)->which.b = 1; } /* of one piece, the same everywhere */
static void ring_short(struct plan *p) { p[1].steps[6].times--; }
static void ring_of_another(struct plan *p) { p[1].links[1].peer = 2; }
static void peer_of_another_node(struct plan *p) { p[1].node = 1; }
static void peer_twice(struct plan *p) { p[1].peer = 0, operand(&p[1], 2, 1)->which.b = 0; }
static void peers_too_many(struct plan *p) { p[1].n_peers = 3; }
static void peer_outside(struct plan *p) { operand(&p[1], 5, 0)->which.m = 3; }
static void channel_of_another(struct plan *p) { p[1].channel = 1; }
static void windows_denied(struct plan *p) { p[1].flags &= (uint8_t)~PLAN_WINDOWS; }

enum { S = 0, D = 1, I = 2 }; /* staged, direct, in place */
#define IS(verdict) (1u << (verdict))

static const struct damage {
    const char *name;
    void (*apply)(struct plan *plans);
    enum plan_collective collective;
    uint32_t rounds;
    int mode;
    uint32_t verdicts; /* allowed ones */
    const char *why;   /* contained in every reason */
} damages[] = {
    {"no lagging wait", lagging_wait_lost, PLAN_ALLREDUCE, 4, S, IS(PLAN_RACE), "window"},
    {"no signal STAGED", drop_3, PLAN_ALLREDUCE, 2, S, IS(PLAN_DEADLOCK), "STAGED of rank 1"},
    {"no wait for STAGED", drop_4, PLAN_ALLREDUCE, 1, S, IS(PLAN_RACE), "in-window"},
    {"direct: no wait for STAGED", drop_4, PLAN_ALLREDUCE, 1, D, IS(PLAN_RACE), "may not be in the call yet"},
    {"waits for STAGED of one too few", wait_for_fewer_staged, PLAN_ALLREDUCE, 1, S, IS(PLAN_RACE), "in-window"},
    {"no signal DELIVERED", drop_15, PLAN_ALLREDUCE, 1, S, IS(PLAN_DEADLOCK), "DELIVERED of rank 1"},
    {"no signal REDUCED", drop_9, PLAN_ALLREDUCE, 1, S, IS(PLAN_DEADLOCK), "of rank 1"},
    {"spreads before it is reduced", drop_10, PLAN_ALLREDUCE, 1, S, IS(PLAN_RACE) | IS(PLAN_WRONG_VALUE), "rank 1 strand"},
    {"no wait for DELIVERED", drop_16, PLAN_ALLREDUCE, 1, S, IS(PLAN_RACE), "out-window"},
    {"direct: no wait for DELIVERED", drop_16, PLAN_ALLREDUCE, 1, D, IS(PLAN_RACE), "rank 1 returns while"},
    {"ReduceScatter direct: no wait for DELIVERED", drop_10, PLAN_REDUCESCATTER, 1, D, IS(PLAN_RACE), "rank 1 returns while"},
    {"waits for DELIVERED of one too few", wait_for_fewer_delivered, PLAN_ALLREDUCE, 1, S, IS(PLAN_RACE) | IS(PLAN_WRONG_VALUE), "rank 1 strand 3 step 18"},
    {"no signal DONE", drop_19, PLAN_ALLREDUCE, 3, S, IS(PLAN_DEADLOCK), "DONE of rank 1"},
    {"signals before staging", signal_before_staging, PLAN_ALLREDUCE, 1, S, IS(PLAN_RACE), "in-window"},
    {"an input too few", span_short, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_FINAL), "FINAL on an incomplete"},
    {"an input too few at the last", complete_short, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_FINAL), "FINAL on an incomplete"},
    {"delivers to one too few", deliver_to_fewer, PLAN_ALLREDUCE, 1, D, IS(PLAN_WRONG_VALUE), "never written"},
    {"fetches from the wrong peer", fetch_wrong_peer, PLAN_ALLREDUCE, 1, S, IS(PLAN_RACE) | IS(PLAN_WRONG_VALUE), "rank 1"},
    {"fetches the wrong piece", fetch_wrong_piece, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_PIECE), "another length"},
    {"fetches too few", fetch_less, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_VALUE), "never written"},
    {"fetches its own, not another's", fetch_skips_another, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_VALUE) | IS(PLAN_RACE), "rank 1"},
    {"stages too few", stage_less, PLAN_ALLREDUCE, 1, S, IS(PLAN_RACE) | IS(PLAN_WRONG_VALUE), "rank"},
    {"stages its own, not another's", stage_skips_another, PLAN_ALLREDUCE, 1, S, IS(PLAN_RACE) | IS(PLAN_WRONG_VALUE), "rank"},
    {"a loop that leaves out all", stage_nothing_left_out, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_STRUCTURE), "leaves out 0 of every 1"},
    {"a loop that leaves out what is not there", stage_skip_outside, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_STRUCTURE), "leaves out 2 of every 2"},
    {"writes into another's window", stage_for_another, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_STRUCTURE), "input of another"},
    {"not final", final_lost, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_FINAL), "without FINAL"},
    {"a hop too few", ring_short, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_PIECE), "the slot carries"},
    {"sends to another ring", ring_of_another, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_STRUCTURE), "which has none"},
    {"says it is of another node", peer_of_another_node, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_STRUCTURE), "peer"},
    {"is the peer that another is", peer_twice, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_STRUCTURE), "as another is"},
    {"has more peers than its node", peers_too_many, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_STRUCTURE), "peer"},
    {"reads a peer that is not there", peer_outside, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_STRUCTURE), "spans over 3 peers"},
    {"on another channel than the others", channel_of_another, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_STRUCTURE), "disagrees"},
    {"denies its windows", windows_denied, PLAN_ALLREDUCE, 1, S, IS(PLAN_WRONG_STRUCTURE), "windows"},
    {"another order of one piece's inputs", combine_in_another_order, PLAN_ALLREDUCE, 1, S, IS(PLAN_RIGHT), ""},
};

static void damaged_plans_are_refused_for_their_reason(void **state)
{
    (void)state;
    bool direct[N_MAX], in_place[N_MAX];
    struct shape shape = shape_of_nodes((const uint32_t[]){2, 2, 2, 0}, false);
    for (size_t k = 0; k < sizeof damages / sizeof damages[0]; k++)
        for (int schedule = PLAN_CHECK_FORWARD; schedule <= PLAN_CHECK_RANDOM; schedule++) {
            const struct damage *d = &damages[k];
            struct plan *plans = collective_plans(d->collective, &shape, PLAN_RAILS, 0, 0);
            memset(direct, d->mode & D ? 1 : 0, sizeof direct);
            memset(in_place, d->mode & I ? 1 : 0, sizeof in_place);
            struct plan_check_call call = {plans, d->rounds, direct, in_place};
            struct plan_check check = {.calls = &call, .n_calls = 1, .schedule = (enum plan_check_schedule)schedule, .seed = k};
            struct plan_check_report report;
            assert_int_equal(plan_check_run(&check, &report, NULL), PLAN_RIGHT); /* whole it is right */
            d->apply(plans);
            enum plan_verdict v = plan_check_run(&check, &report, NULL);
            if (!(d->verdicts >> v & 1) || !strstr(report.why, d->why))
                fail_msg("%s, schedule %d: verdict %d, %s", d->name, schedule, v, report.why);
            free(plans);
        }
    shape_clear(&shape);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_that_do_not_fit_are_refused_and_the_plan_left_alone),
        cmocka_unit_test(even_nodes_of_2_to_64_ranks),
        cmocka_unit_test(uneven_nodes_give_the_smallest_nodes_number_of_rings),
        cmocka_unit_test(calls_on_several_channels_follow_each_other),
        cmocka_unit_test(a_rank_of_rails_sends_to_its_number_in_the_next_node_alone),
        cmocka_unit_test(rings_are_at_home_on_rails_in_turn),
        cmocka_unit_test(damaged_plans_are_refused_for_their_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
