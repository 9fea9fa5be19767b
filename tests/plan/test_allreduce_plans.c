/* Every AllReduce plan is proven right for every number of ranks, in every mode it claims, under several schedules; and
 * its steps and pieces on the wire are what the files in algos/ say. */
#include "plan/plans.h"

#include <stdio.h>

static const struct {
    enum plan_check_schedule schedule;
    uint64_t seed;
} schedules[] = {{PLAN_CHECK_FORWARD, 0}, {PLAN_CHECK_REVERSE, 0}, {PLAN_CHECK_GREEDY, 0},
                 {PLAN_CHECK_RANDOM, 1},  {PLAN_CHECK_RANDOM, 2}};
enum { N_SCHEDULES = sizeof schedules / sizeof schedules[0], N_MAX = 64 };

/* Who is direct. */
enum mode { STAGED, DIRECT, FIRST_DIRECT, EVEN_DIRECT, MODES };
static void mode_fill(enum mode mode, bool direct[N_MAX])
{
    for (uint32_t r = 0; r < N_MAX; r++)
        direct[r] = mode == DIRECT || (mode == FIRST_DIRECT && r == 0) || (mode == EVEN_DIRECT && r % 2 == 0);
}

/* RAILCCL_TEST_LONG runs the full product; otherwise n > 17 gets each schedule, place and number of rounds in turn. */
static bool is_long(void) { return getenv("RAILCCL_TEST_LONG") != NULL; }

static void prove(const struct plan_check *wanted, struct plan_check_report *report, struct plan_check_count *counts,
                  uint32_t n)
{
    uint64_t values = 0;
    uint32_t steps = 0;
    for (int k = 0; k < N_SCHEDULES; k++) {
        if (!is_long() && n > 17 && k != (int)(n % N_SCHEDULES) && k != 0) continue;
        struct plan_check check = *wanted;
        check.schedule = schedules[k].schedule;
        check.seed = schedules[k].seed + n;
        if (plan_check_run(&check, report, counts) != PLAN_RIGHT)
            fail_msg("n = %u, algorithm %d, schedule %d: %s", n, check.calls[0].plans[0].algorithm, k, report->why);
        if (k > 0 && (report->values != values || report->steps != steps))
            fail_msg("n = %u: another schedule, another result", n);
        values = report->values;
        steps = report->steps;
    }
}

/* The formulas of algos/, for one round. */
static uint32_t log2_floor(uint32_t x)
{
    uint32_t k = 0;
    while (x >>= 1) k++;
    return k;
}

static void formulas_hold(enum plan_algorithm algorithm, const struct shape *shape, enum mode mode,
                          const struct plan_check_report *r, const struct plan_check_count *counts)
{
    uint32_t n = shape->n_ranks;
    uint64_t sent = 0;
    for (uint32_t rank = 0; rank < n; rank++) {
        const struct plan_check_count *c = &counts[rank];
        sent += c->slots_sent;
        switch (algorithm) {
        case PLAN_RING:
            assert_int_equal(c->slots_sent, 2 * (n - 1));
            break;
        case PLAN_TREE:
            assert_true(c->slots_sent <= 3);
            break;
        case PLAN_RANK_TREE:
            assert_true(c->slots_sent <= (rank % 2 ? 2 : 4)); /* a leaf's, a node's, two down; odd ranks work lowest nodes */
            break;
        case PLAN_HIERARCHY:
            assert_true(c->slots_sent <= log2_floor(n) + 1 + 2); /* a swap a step, a fold, two down; or one up and two down */
            break;
        case PLAN_DOUBLING:
            assert_true(c->slots_sent <= log2_floor(n) + 1);
            break;
        case PLAN_ONE_SHOT:
            assert_int_equal(c->peer_reads, n - 1);
            assert_int_equal(c->window_writes, mode == STAGED ? 1 : mode == DIRECT ? 0 : c->window_writes);
            break;
        default:
            if (mode == STAGED) {
                assert_int_equal(c->window_writes, n - 1 + 1);
                assert_int_equal(c->peer_reads, 2 * (n - 1));
            } else if (mode == DIRECT) {
                assert_int_equal(c->window_writes, 0);
                assert_int_equal(c->peer_reads, n - 1);
                assert_int_equal(c->peer_writes, n - 1);
            }
        }
    }
    if (algorithm == PLAN_RING) assert_int_equal(r->steps, 2 * (n - 1));
    if (algorithm == PLAN_TREE) {
        assert_int_equal(sent, 2 * (n - 1)); /* every edge once up, once down */
        assert_true(r->steps <= 2 * tree_steps(shape, false) && r->steps >= 2);
    }
    if (algorithm == PLAN_RANK_TREE) {
        uint32_t up = 1 + log2_floor(n - 1);
        assert_int_equal(sent, n / 2 + (n - 2) + (n - 1)); /* leaves, nodes but the top, everybody but the top's */
        assert_true(r->steps <= 2 * up && r->steps >= 2);
    }
    if (algorithm == PLAN_DOUBLING) {
        uint32_t extra = n - (1u << log2_floor(n));
        assert_true(r->steps >= log2_floor(n) + (extra > 0));
        assert_true(r->steps <= log2_floor(n) + (extra ? 2 : 0)); /* the way in and the way out meet when many are folded */
        assert_int_equal(sent, (n - extra) * log2_floor(n) + 2 * extra);
    }
    if (algorithm == PLAN_ONE_SHOT) assert_int_equal(r->steps, mode == STAGED ? 1 : 2);
    if (algorithm == PLAN_TWO_SHOT) assert_int_equal(r->steps, 2);
}

static void prove_modes(const struct shape *shape, enum plan_algorithm algorithm, uint32_t channel, uint32_t rounds)
{
    uint32_t n = shape->n_ranks;
    struct plan *plans = plans_write(shape, algorithm, channel);
    assert_non_null(plans);
    bool windows = plans[0].flags & PLAN_WINDOWS, claims_in_place = plans[0].flags & PLAN_DIRECT_IN_PLACE;
    for (enum mode mode = STAGED; mode < (windows ? MODES : DIRECT); mode++)
        for (uint32_t place = 0; place < 3; place++) { /* nobody, everybody, every third in place */
            if (!is_long() && n > 17 && place != (rounds == 1 ? 0 : n % 3)) continue;
            bool direct[N_MAX], in_place[N_MAX];
            mode_fill(mode, direct);
            for (uint32_t r = 0; r < N_MAX; r++) {
                in_place[r] = place == 1 || (place == 2 && r % 3 == 0);
                if (in_place[r] && !claims_in_place) direct[r] = false; /* as the owner would */
            }
            struct plan_check_call call = {plans, rounds, direct, in_place};
            struct plan_check_report report;
            struct plan_check_count counts[N_MAX];
            prove(&(struct plan_check){.calls = &call, .n_calls = 1}, &report, counts, n);
            if (rounds == 1 && place == 0) formulas_hold(algorithm, shape, mode, &report, counts);
        }
    free(plans);
}

static void prove_all_n(enum plan_algorithm algorithm, uint32_t channel)
{
    for (uint32_t n = 2; n <= N_MAX; n = plans_next_n(n)) {
        struct shape shape = shape_of_one_node(n);
        for (uint32_t rounds = 1; rounds <= 4; rounds++)
            if (is_long() || n <= 17 || rounds == 1 || rounds == 2 + n / 3 % 3) prove_modes(&shape, algorithm, channel, rounds);
        shape_clear(&shape);
    }
}

static void ring_is_an_allreduce_for_2_to_64_ranks(void **state)
{
    (void)state;
    prove_all_n(PLAN_RING, 0);
}
static void tree_is_an_allreduce_for_2_to_64_ranks_on_both_trees(void **state)
{
    (void)state;
    prove_all_n(PLAN_TREE, 0);
    prove_all_n(PLAN_TREE, 1);
}
static void doubling_is_an_allreduce_for_2_to_64_ranks(void **state)
{
    (void)state;
    prove_all_n(PLAN_DOUBLING, 0);
}
static void the_rank_tree_is_an_allreduce_for_2_to_64_ranks(void **state)
{
    (void)state;
    prove_all_n(PLAN_RANK_TREE, 0);
}
static void one_shot_is_an_allreduce_for_2_to_64_ranks(void **state)
{
    (void)state;
    prove_all_n(PLAN_ONE_SHOT, 0);
}
static void two_shot_is_an_allreduce_for_2_to_64_ranks(void **state)
{
    (void)state;
    prove_all_n(PLAN_TWO_SHOT, 0);
}

/* Between nodes each leader sends one slot a step, and two more where nodes fold; nobody else sends any. */
static void a_hierarchy_crosses_nodes_by_one_rank_of_each(void **state)
{
    (void)state;
    for (uint32_t nodes = 2; nodes <= 32; nodes++)
        for (uint32_t channel = 0; channel < 4; channel++) {
            uint32_t size[33] = {0}, crossing = 0, p = 1u << log2_floor(nodes);
            for (uint32_t k = 0; k < nodes; k++) size[k] = 1 + (k * 7 + nodes) % 5;
            size[nodes / 2] = 4;
            struct shape shape = shape_of_nodes(size, true);
            struct plan *plans = plans_write(&shape, PLAN_HIERARCHY, channel);
            for (uint32_t r = 0; r < shape.n_ranks; r++)
                for (uint32_t l = 0; l < plans[r].n_links; l++) {
                    if (plans[r].links[l].direction != PLAN_LINK_OUT) continue;
                    if (shape.node_of[plans[r].links[l].peer] == shape.node_of[r]) continue;
                    assert_int_equal(shape.peer_of[r], channel % size[shape.node_of[r]]);
                    crossing++;
                }
            assert_int_equal(crossing, p * log2_floor(nodes) + 2 * (nodes - p));
            struct plan_check_call call = {plans, 3, NULL, NULL};
            struct plan_check_report report;
            if (shape.n_ranks <= N_MAX) prove(&(struct plan_check){.calls = &call, .n_calls = 1}, &report, NULL, shape.n_ranks);
            free(plans);
            shape_clear(&shape);
        }
}

static void link_plans_are_right_on_many_nodes_of_odd_shapes(void **state)
{
    (void)state;
    static const uint32_t shapes[][18] = {
        {1, 1}, {1, 1, 1}, {2, 1}, {1, 2}, {2, 2}, {3, 5, 1}, {1, 7}, {4, 4}, {2, 2, 2}, {8, 8}, {5, 3, 9, 1, 2},
        {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {16, 16, 16, 16}, {2, 2, 2, 2, 2, 2, 2, 2, 2}, {13, 11, 7, 3}};
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++)
        for (int dealt = 0; dealt < 2; dealt++) {
            struct shape shape = shape_of_nodes(shapes[k], dealt);
            for (uint32_t rounds = 1; rounds <= 3; rounds++)
                for (uint32_t channel = 0; channel < 3; channel++) {
                    prove_modes(&shape, PLAN_RING, channel, rounds);
                    prove_modes(&shape, PLAN_TREE, channel, rounds);
                    prove_modes(&shape, PLAN_DOUBLING, channel, rounds);
                    prove_modes(&shape, PLAN_RANK_TREE, channel, rounds);
                    if (hierarchy_fits(&shape)) prove_modes(&shape, PLAN_HIERARCHY, channel, rounds);
                }
            struct plan none;
            assert_false(one_shot_allreduce(&shape, 0, 0, &none));
            assert_false(two_shot_allreduce(&shape, 0, 0, &none));
            shape_clear(&shape);
        }
}

static void calls_follow_each_other_with_any_algorithms_and_modes(void **state)
{
    (void)state;
    static const enum plan_algorithm series[] = {PLAN_TWO_SHOT, PLAN_ONE_SHOT, PLAN_RING, PLAN_ONE_SHOT, PLAN_TWO_SHOT,
                                                 PLAN_TREE, PLAN_TWO_SHOT, PLAN_TWO_SHOT, PLAN_ONE_SHOT, PLAN_ONE_SHOT};
    enum { N = sizeof series / sizeof series[0] };
    for (uint32_t n = 2; n <= 9; n++)
        for (uint32_t variant = 0; variant < 6; variant++) {
            struct shape shape = shape_of_one_node(n);
            struct plan_check_call calls[N];
            bool direct[N][N_MAX];
            for (uint32_t k = 0; k < N; k++) {
                mode_fill((enum mode)((k * 7 + variant) % MODES), direct[k]);
                calls[k] = (struct plan_check_call){plans_write(&shape, series[k], 0), 1 + (k + variant) % 3, direct[k], NULL};
            }
            struct plan_check_report report;
            prove(&(struct plan_check){.calls = calls, .n_calls = N}, &report, NULL, n);
            for (uint32_t k = 0; k < N; k++) free((void *)(uintptr_t)calls[k].plans);
            shape_clear(&shape);
        }
}

static void more_slots_never_hurt(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= 16; n++)
        for (enum plan_algorithm a = PLAN_RING; a <= PLAN_RANK_TREE; a++)
            for (uint32_t slots = 2; slots <= 9; slots++) {
                struct shape shape = shape_of_one_node(n);
                struct plan_check_call call = {plans_write(&shape, a, n % 2), 3, NULL, NULL};
                struct plan_check_report report;
                prove(&(struct plan_check){.calls = &call, .n_calls = 1, .slots = slots}, &report, NULL, n);
                free((void *)(uintptr_t)call.plans);
                shape_clear(&shape);
            }
}

static void a_ring_deadlocks_with_one_slot_and_a_tree_does_not(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= N_MAX; n = plans_next_n(n)) {
        struct shape shape = shape_of_one_node(n);
        struct plan_check_call ring = {plans_write(&shape, PLAN_RING, 0), 1, NULL, NULL};
        struct plan_check_call tree = {plans_write(&shape, PLAN_TREE, 0), 2, NULL, NULL};
        struct plan_check_report report;
        assert_int_equal(ring.plans[0].slots_min, 2);
        assert_int_equal(tree.plans[0].slots_min, 1);
        struct plan_check with_one = {.calls = &ring, .n_calls = 1, .slots = 1};
        assert_int_equal(plan_check_run(&with_one, &report, NULL), PLAN_DEADLOCK);
        assert_non_null(strstr(report.why, "free slot"));
        with_one.calls = &tree;
        assert_int_equal(plan_check_run(&with_one, &report, NULL), PLAN_RIGHT);
        free((void *)(uintptr_t)ring.plans);
        free((void *)(uintptr_t)tree.plans);
        shape_clear(&shape);
    }
}

static bool works_inside(const struct plan *p) { return p->n_links > 2 || p->n_strands == 1; }

static void no_rank_works_inside_both_trees(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= 300; n++) {
        struct shape shape = shape_of_one_node(n);
        uint64_t inside[2] = {0, 0};
        for (uint32_t rank = 0; rank < n; rank++) {
            struct plan even, odd;
            assert_true(tree_allreduce(&shape, rank, 0, &even));
            assert_true(tree_allreduce(&shape, rank, 1, &odd));
            assert_false(works_inside(&even) && works_inside(&odd));
            inside[0] += works_inside(&even);
            inside[1] += works_inside(&odd);
        }
        assert_int_equal(inside[0], n / 2);
        assert_int_equal(inside[1], n / 2);
        shape_clear(&shape);
    }
}

/* What the check must refuse: the promise that one-shot does not make. */
static void one_shot_does_not_survive_direct_in_place(void **state)
{
    (void)state;
    bool all[N_MAX];
    memset(all, 1, sizeof all);
    for (uint32_t n = 2; n <= 16; n++) {
        struct shape shape = shape_of_one_node(n);
        struct plan_check_call call = {plans_write(&shape, PLAN_ONE_SHOT, 0), 1, all, all};
        assert_false(call.plans[0].flags & PLAN_DIRECT_IN_PLACE);
        for (int k = 0; k < N_SCHEDULES; k++) {
            struct plan_check check = {.calls = &call, .n_calls = 1, .schedule = schedules[k].schedule, .seed = schedules[k].seed};
            struct plan_check_report report;
            enum plan_verdict v = plan_check_run(&check, &report, NULL);
            assert_true(v == PLAN_RACE || v == PLAN_WRONG_VALUE);
        }
        free((void *)(uintptr_t)call.plans);
        shape_clear(&shape);
    }
}

static void planners_refuse_what_does_not_fit_and_leave_the_plan_alone(void **state)
{
    (void)state;
    struct shape one = shape_of_one_node(1), many = shape_of_one_node(65);
    struct plan before, after;
    memset(&before, 0x5a, sizeof before);
    for (int a = 0; a < PLAN_ALGORITHMS; a++) {
        after = before;
        assert_false(plan_writers_allreduce[a](&one, 0, 0, &after));
        assert_memory_equal(&after, &before, sizeof after);
    }
    assert_false(one_shot_allreduce(&many, 0, 0, &after));
    assert_false(two_shot_allreduce(&many, 0, 0, &after));
    assert_memory_equal(&after, &before, sizeof after);
    shape_clear(&one);
    shape_clear(&many);
}

static void a_ring_of_a_million_ranks_fits_in_a_page_and_counts_right(void **state)
{
    (void)state;
    enum { N = 1000000 };
    struct shape shape = shape_of_one_node(N);
    assert_true(sizeof(struct plan) <= 4096);
    static const uint32_t ranks[] = {0, 1, 2, 499999, 999998, 999999};
    for (size_t k = 0; k < sizeof ranks / sizeof ranks[0]; k++) {
        uint64_t p = ranks[k];
        struct plan plan;
        char why[256];
        assert_true(ring_allreduce(&shape, ranks[k], 0, &plan));
        assert_true(plan_validate(&plan, why, sizeof why));
        assert_int_equal(plan.links[0].peer, (p + N - 1) % N);
        assert_int_equal(plan.links[1].peer, (p + 1) % N);
        assert_true(plan.n_steps <= 8);
        const struct plan_operand *partial = &plan.operands[plan.steps[2].first];
        const struct plan_operand *passing = &plan.operands[plan.steps[5].first];
        for (uint64_t i = 0; i < N - 2; i += 12345) { /* i+1 hops from its start, or from completion at p - i - 1 */
            assert_int_equal(plan_index_at(partial->piece, (uint32_t)i), (p + N - 1 - i) % N);
            assert_int_equal(plan_index_at(passing->piece, (uint32_t)i), (p + N - i) % N);
        }
        assert_int_equal(plan_index_at(partial->piece, N - 3), (p + 2) % N);
        assert_true(tree_allreduce(&shape, ranks[k], 1, &plan));
        assert_true(plan_validate(&plan, why, sizeof why));
    }
    shape_clear(&shape);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planners_refuse_what_does_not_fit_and_leave_the_plan_alone),
        cmocka_unit_test(ring_is_an_allreduce_for_2_to_64_ranks),
        cmocka_unit_test(tree_is_an_allreduce_for_2_to_64_ranks_on_both_trees),
        cmocka_unit_test(doubling_is_an_allreduce_for_2_to_64_ranks),
        cmocka_unit_test(the_rank_tree_is_an_allreduce_for_2_to_64_ranks),
        cmocka_unit_test(one_shot_is_an_allreduce_for_2_to_64_ranks),
        cmocka_unit_test(two_shot_is_an_allreduce_for_2_to_64_ranks),
        cmocka_unit_test(a_hierarchy_crosses_nodes_by_one_rank_of_each),
        cmocka_unit_test(link_plans_are_right_on_many_nodes_of_odd_shapes),
        cmocka_unit_test(calls_follow_each_other_with_any_algorithms_and_modes),
        cmocka_unit_test(more_slots_never_hurt),
        cmocka_unit_test(a_ring_deadlocks_with_one_slot_and_a_tree_does_not),
        cmocka_unit_test(no_rank_works_inside_both_trees),
        cmocka_unit_test(one_shot_does_not_survive_direct_in_place),
        cmocka_unit_test(a_ring_of_a_million_ranks_fits_in_a_page_and_counts_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
