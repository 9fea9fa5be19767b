/* test_cost.c - the predicted time follows the plans: a hop costs what a hop costs, a byte what a byte costs. Nothing
 * is measured here. */
#include <math.h>
#include <stdio.h>

#include "plan/collective.h"
#include "plan/cost.h"
#include "plan/plans.h"

static const uint32_t shapes[][10] = {{2}, {3}, {5}, {8}, {1, 1}, {1, 1, 1}, {2, 2}, {3, 1, 2}, {4, 4},
                                      {1, 1, 1, 1, 1, 1, 1, 1}};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static const struct plan_rates only_hops = {.hop_ns = {1, 1}}, only_wire = {.wire_ns_per_byte = 1},
                               only_memory = {.memory_ns_per_byte = 1};

static double cost(const struct shape *shape, const struct plan *plans, uint64_t rounds, double piece_bytes,
                   const struct plan_rates *rates)
{
    struct plan_cost_call call = {.plans = plans, .shape = shape, .rounds = rounds, .piece_bytes = piece_bytes,
                                  .n_channels = 1, .slots = PLAN_SLOTS_GUARANTEED};
    return plan_cost_ns(&call, rates);
}

/* Calls body for every collective by every algorithm on every shape. */
static void for_all(void (*body)(const struct shape *shape, const struct plan *plans, const char *what))
{
    int seen = 0;
    for (int k = 0; k < N_SHAPES; k++) {
        struct shape shape = shape_of_nodes(shapes[k], false);
        for (int c = 0; c < PLAN_COLLECTIVES; c++)
            for (int a = 0; a < PLAN_ALGORITHMS; a++) {
                struct plan *plans = collective_plans((enum plan_collective)c, &shape, (enum plan_algorithm)a, 0, 0);
                char what[100];
                if (!plans) continue;
                snprintf(what, sizeof what, "%s by %s on shape %d", collective_name((uint32_t)c),
                         plan_algorithm_names[a], k);
                body(&shape, plans, what);
                free(plans);
                seen++;
            }
        shape_clear(&shape);
    }
    assert_true(seen > 100);
}

static void check_hops(const struct shape *shape, const struct plan *plans, const char *what)
{
    struct plan_check_call call = {plans, 1, NULL, NULL};
    struct plan_check_report report;
    assert_int_equal(plan_check_run(&(struct plan_check){.calls = &call, .n_calls = 1}, &report, NULL), PLAN_RIGHT);
    double got = cost(shape, plans, 1, 64, &only_hops);
    if (got != report.steps)
        fail_msg("%s: %g hops predicted, %u hand-overs in the longest chain", what, got, report.steps);
}

/* When only hops take time, the time is the longest chain of hand-overs that the symbolic check finds. */
static void hops_are_the_longest_chain_of_hand_overs(void **state)
{
    (void)state;
    for_all(check_hops);
}

static void check_wire(const struct shape *shape, const struct plan *plans, const char *what)
{
    struct plan_check_count *counts = calloc(shape->n_ranks, sizeof *counts);
    struct plan_check_call call = {plans, 1, NULL, NULL};
    struct plan_check_report report;
    assert_int_equal(plan_check_run(&(struct plan_check){.calls = &call, .n_calls = 1}, &report, counts), PLAN_RIGHT);
    double got = cost(shape, plans, 1, 10, &only_wire), most = 0, chain = 10.0 * report.steps;
    for (uint32_t r = 0; r < shape->n_ranks; r++)
        if (10.0 * (double)counts[r].slots_sent > most) most = 10.0 * (double)counts[r].slots_sent;
    bool each_alone = shape->n_nodes == shape->n_ranks; /* every slot crosses a wire */
    if (each_alone && got < most) fail_msg("%s: %g, but a rank sends for %g", what, got, most);
    most *= shape->n_ranks; /* the ranks of a node share its wires */
    if (got > most * chain / 10 + chain)
        fail_msg("%s: %g, more than %g per hand-over of %u", what, got, most, report.steps);
    if (shape->n_nodes == 1 && got != 0) fail_msg("%s: %g on a wire within one node", what, got);
    free(counts);
}

/* When only wires take time, a rank that sends s pieces needs s times as long, at least; without a wire nobody any. */
static void wires_are_paid_by_the_piece(void **state)
{
    (void)state;
    for_all(check_wire);
}

/* The textbook's figures: a ring of n ranks with a wire each sends 2 (n-1) pieces one after another. */
static void a_ring_costs_two_times_n_less_one_pieces(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= 8; n++) {
        uint32_t sizes[10] = {0};
        for (uint32_t k = 0; k < n; k++) sizes[k] = 1;
        struct shape shape = shape_of_nodes(sizes, false);
        struct plan *plans = plans_write(&shape, PLAN_RING, 0);
        assert_true(cost(&shape, plans, 1, 100, &only_wire) == 200.0 * (n - 1));
        free(plans);
        shape_clear(&shape);
    }
}

static void check_growth(const struct shape *shape, const struct plan *plans, const char *what)
{
    struct plan_rates rates = plan_rates_default(shape);
    double before = 0;
    for (double bytes = 64; bytes < 1e6; bytes *= 4) {
        double now = cost(shape, plans, 3, bytes, &rates);
        if (now < before || now <= 0) fail_msg("%s: %g for more bytes than took %g", what, now, before);
        before = now;
    }
    /* in its stride: rounds 1000 and 2000 apart cost the same again */
    double a = cost(shape, plans, 1000, 4096, &rates), b = cost(shape, plans, 2000, 4096, &rates);
    double c = cost(shape, plans, 3000, 4096, &rates);
    if (fabs((c - b) - (b - a)) > 1e-6 * c || b <= a)
        fail_msg("%s: %g, %g, %g for 1000, 2000, 3000 rounds", what, a, b, c);
    /* a pipeline is at most as slow as its rounds one after another */
    double one = cost(shape, plans, 1, 4096, &rates), six = cost(shape, plans, 6, 4096, &rates);
    if (six > 6 * one * 1.000001) fail_msg("%s: six rounds take %g, one %g", what, six, one);
}

static void time_grows_with_bytes_and_rounds(void **state)
{
    (void)state;
    for_all(check_growth);
}

static void memory_is_paid_by_what_is_touched(void **state)
{
    (void)state;
    struct shape shape = shape_of_one_node(4);
    struct plan *one = plans_write(&shape, PLAN_ONE_SHOT, 0), *two = plans_write(&shape, PLAN_TWO_SHOT, 0);
    /* n = 4 ranks, S bytes each. One-shot: one piece of S; two-shot: n pieces of S / n. */
    double oneshot = cost(&shape, one, 1, 4096, &only_memory), twoshot = cost(&shape, two, 1, 1024, &only_memory);
    assert_true(oneshot >= 4 * 4096);            /* reads everybody's */
    assert_true(twoshot < oneshot);              /* reads and writes its part, and copies the rest */
    assert_true(cost(&shape, one, 1, 8192, &only_memory) == 2 * oneshot);
    struct plan_cost_call direct = {.plans = one, .shape = &shape, .rounds = 1, .piece_bytes = 4096, .n_channels = 1,
                                    .slots = 4, .direct = true};
    assert_true(plan_cost_ns(&direct, &only_memory) < oneshot); /* nothing is staged */
    free(one);
    free(two);
    shape_clear(&shape);
}

/* Where each link has figures of its own, they count, and not the node's. */
static void wires_of_links_are_taken_as_given(void **state)
{
    (void)state;
    enum { N = 4 };
    struct shape shape = shape_of_nodes((const uint32_t[]){1, 1, 1, 1, 0}, false);
    struct plan *plans = plans_write(&shape, PLAN_RING, 0);
    double ns_per_byte[N * PLAN_MAX_LINKS] = {0}, hop_ns[N * PLAN_MAX_LINKS] = {0};
    for (uint32_t k = 0; k < N * PLAN_MAX_LINKS; k++) ns_per_byte[k] = 2;
    struct plan_cost_wires wires = {.ns_per_byte = ns_per_byte, .hop_ns = hop_ns};
    struct plan_cost_call call = {.plans = plans, .shape = &shape, .rounds = 1, .piece_bytes = 100, .n_channels = 3,
                                  .slots = PLAN_SLOTS_GUARANTEED, .wires = &wires};
    assert_true(plan_cost_ns(&call, &only_hops) == 2 * 100 * 2 * (N - 1));
    for (uint32_t k = 0; k < PLAN_MAX_LINKS; k++)
        ns_per_byte[2 * PLAN_MAX_LINKS + k] = 8; /* every piece passes rank 2 */
    assert_true(plan_cost_ns(&call, &only_hops) > 8 * 100 * 2 * (N - 1) - 1);
    for (uint32_t k = 0; k < N * PLAN_MAX_LINKS; k++) ns_per_byte[k] = 0, hop_ns[k] = 5;
    assert_true(plan_cost_ns(&call, &only_hops) == 5 * 2 * (N - 1));
    free(plans);
    shape_clear(&shape);
}

/* Ranks that all do the same need but one: what it sends is what comes to it. */
static void one_rank_of_a_ring_stands_for_all(void **state)
{
    (void)state;
    for (uint32_t n = 3; n <= 9; n++) {
        uint32_t sizes[10] = {0};
        for (uint32_t k = 0; k < n; k++) sizes[k] = 1;
        struct shape shape = shape_of_nodes(sizes, false), alone = shape_of_one_node(1);
        struct plan *plans = plans_write(&shape, PLAN_RING, 0);
        double ns_per_byte[9 * PLAN_MAX_LINKS], hop_ns[9 * PLAN_MAX_LINKS];
        uint32_t fed_by[PLAN_MAX_LINKS] = {0};
        for (uint32_t k = 0; k < n * PLAN_MAX_LINKS; k++) ns_per_byte[k] = 3, hop_ns[k] = 700;
        for (uint32_t k = 0; k < plans[0].n_links; k++)
            if (plans[0].links[k].direction == PLAN_LINK_OUT) fed_by[1 - k] = k;
        struct plan_cost_wires all = {ns_per_byte, hop_ns, false, NULL}, one = {ns_per_byte, hop_ns, false, fed_by};
        struct plan_rates rates = {.step_ns = 11, .memory_ns_per_byte = 0.5};
        struct plan_cost_call call = {.plans = plans, .shape = &shape, .rounds = 9, .piece_bytes = 100, .n_channels = 1,
                                      .slots = PLAN_SLOTS_GUARANTEED, .wires = &all};
        double of_all = plan_cost_ns(&call, &rates);
        call.shape = &alone;
        call.wires = &one;
        assert_true(of_all > 0);
        assert_true(fabs(plan_cost_ns(&call, &rates) - of_all) < 1e-6 * of_all);
        free(plans);
        shape_clear(&shape);
        shape_clear(&alone);
    }
}

static void no_rounds_take_no_time(void **state)
{
    (void)state;
    struct shape shape = shape_of_one_node(2);
    struct plan *plans = plans_write(&shape, PLAN_ONE_SHOT, 0);
    assert_true(cost(&shape, plans, 0, 64, &only_hops) == 0);
    free(plans);
    shape_clear(&shape);
}

/* A receiver whose sender is missing never ends: that is told, not waited for. */
static void plans_that_never_end_are_told(void **state)
{
    (void)state;
    struct shape shape = shape_of_nodes((const uint32_t[]){1, 1, 1, 0}, false);
    struct plan *plans = plans_write(&shape, PLAN_RING, 0);
    for (uint32_t k = 0; k < plans[1].n_strands; k++) plans[1].strands[k].n_steps = 0;
    assert_true(cost(&shape, plans, 1, 64, &only_hops) < 0);
    free(plans);
    shape_clear(&shape);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hops_are_the_longest_chain_of_hand_overs),
        cmocka_unit_test(wires_are_paid_by_the_piece),
        cmocka_unit_test(a_ring_costs_two_times_n_less_one_pieces),
        cmocka_unit_test(time_grows_with_bytes_and_rounds),
        cmocka_unit_test(memory_is_paid_by_what_is_touched),
        cmocka_unit_test(wires_of_links_are_taken_as_given),
        cmocka_unit_test(one_rank_of_a_ring_stands_for_all),
        cmocka_unit_test(no_rounds_take_no_time),
        cmocka_unit_test(plans_that_never_end_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
