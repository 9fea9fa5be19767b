/* Every plan of every collective but AllReduce (which has its own page) is proven right: for every number of ranks up to
 * 64, every root where ranks are few, one node and many, direct, staged and mixed, in place and not, under several
 * schedules, with several rounds, with the slots that the plan asks for. */
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

struct subject {
    enum plan_collective collective;
    enum plan_algorithm algorithm;
    const struct shape *shape;
    uint32_t channel, root, rounds;
};

static void prove(const struct subject *s, const struct plan_check_call *call, struct plan_check_count *counts,
                  struct plan_check_report *report)
{
    uint32_t n = s->shape->n_ranks;
    uint64_t values = 0;
    for (int schedule = PLAN_CHECK_FORWARD; schedule <= PLAN_CHECK_RANDOM; schedule++) {
        if (!is_long() && n > 17 && schedule != (int)(n % 4)) continue;
        struct plan_check check = {.calls = call, .n_calls = 1, .schedule = (enum plan_check_schedule)schedule, .seed = n};
        if (plan_check_run(&check, report, counts) != PLAN_RIGHT)
            fail_msg("%s, algorithm %s, n = %u, root %u, channel %u, %u rounds, schedule %d: %s",
                     collective_name(s->collective), plan_algorithm_names[s->algorithm], n, s->root, s->channel, s->rounds,
                     schedule, report->why);
        if (values != 0) assert_int_equal(values, report->values);
        values = report->values;
    }
}

/* What the files in algos/ promise, for one round. */
static void promises_hold(const struct subject *s, enum mode mode, const struct plan_check_report *report,
                          const struct plan_check_count *counts)
{
    uint32_t n = s->shape->n_ranks;
    uint64_t sent = 0, most = 0;
    for (uint32_t rank = 0; rank < n; rank++) {
        sent += counts[rank].slots_sent;
        if (counts[rank].slots_sent > most) most = counts[rank].slots_sent;
        if (s->algorithm == PLAN_ONE_SHOT && mode == DIRECT) assert_int_equal(counts[rank].window_writes, 0);
    }
    bool blocks = s->collective == PLAN_ALLGATHER || s->collective == PLAN_REDUCESCATTER;
    bool pipeline = s->collective == PLAN_BROADCAST || s->collective == PLAN_REDUCE;
    if (s->algorithm == PLAN_RING) {
        assert_int_equal(report->steps, n - 1);
        assert_int_equal(sent, blocks ? (uint64_t)n * (n - 1) : pipeline ? n - 1 : (uint64_t)n * (n - 1) / 2);
        assert_int_equal(most, pipeline ? 1 : n - 1);
    }
    if (s->algorithm == PLAN_TREE) {
        assert_int_equal(sent, n - 1);
        assert_true(most <= 2 && counts[s->root].slots_sent <= 1);
        assert_true(report->steps <= tree_steps(s->shape, true));
    }
    if (s->algorithm == PLAN_DOUBLING) {
        uint32_t hops = 0;
        for (uint32_t d = 1; d < n; d *= 2) hops += ((d < n - d ? d : n - d) + PLAN_SLOTS_GUARANTEED - 1) / PLAN_SLOTS_GUARANTEED;
        assert_int_equal(report->steps, hops);
        assert_int_equal(sent, (uint64_t)n * (n - 1));
        assert_int_equal(most, n - 1);
    }
    if (s->algorithm == PLAN_ONE_SHOT) assert_true(report->steps <= (mode == STAGED ? 1 : 2));
    if (s->algorithm == PLAN_TWO_SHOT) assert_int_equal(report->steps, 2);
}

static void prove_modes(const struct subject *s)
{
    uint32_t n = s->shape->n_ranks;
    struct plan *plans = collective_plans(s->collective, s->shape, s->algorithm, s->channel, s->root);
    assert_non_null(plans);
    bool windows = plans[0].flags & PLAN_WINDOWS, never_in_place = s->collective == PLAN_ALLTOALL;
    assert_int_equal(!(plans[0].flags & PLAN_DIRECT_IN_PLACE), never_in_place); /* all others claim it */
    for (enum mode mode = STAGED; mode < (windows ? MODES : DIRECT); mode++)
        for (uint32_t place = 0; place < (never_in_place ? 1 : 3); place++) { /* nobody, everybody, every third in place */
            if (!is_long() && n > 17 && !never_in_place && (s->rounds == 1 ? place > 0 : place != n % 3)) continue;
            if (!is_long() && n > 17 && mode != STAGED && mode != (enum mode)(1 + n % 3)) continue;
            bool direct[N_MAX], in_place[N_MAX];
            struct plan_check_report report;
            struct plan_check_count counts[N_MAX];
            mode_fill(mode, direct);
            for (uint32_t r = 0; r < N_MAX; r++) in_place[r] = place == 1 || (place == 2 && r % 3 == 0);
            struct plan_check_call call = {plans, s->rounds, direct, in_place};
            prove(s, &call, counts, &report);
            if (s->rounds == 1 && place == 0) promises_hold(s, mode, &report, counts);
        }
    free(plans);
}

/* All roots where ranks are few; else the first, the last, and two that move with n. */
static bool root_is_tried(enum plan_collective collective, uint32_t root, uint32_t n)
{
    if (!collective_kind(collective).rooted) return root == 0;
    if (n <= (is_long() ? 20 : 8)) return true;
    return root == 0 || root == n - 1 || root == n / 3;
}

static void prove_shape(enum plan_collective collective, const struct shape *shape)
{
    uint32_t n = shape->n_ranks;
    for (int algorithm = 0; algorithm < PLAN_ALGORITHMS; algorithm++) {
        bool windows = algorithm == PLAN_ONE_SHOT || algorithm == PLAN_TWO_SHOT;
        if (!plan_exists(collective, (enum plan_algorithm)algorithm) || (windows && shape->n_nodes > 1)) continue;
        if (algorithm == PLAN_RAILS) continue; /* test_rails.c */
        for (uint32_t root = 0; root < n; root++)
            for (uint32_t channel = 0; channel < (algorithm == PLAN_TREE ? 2 : 1); channel++)
                for (uint32_t rounds = 1; rounds <= 4; rounds++) {
                    if (!root_is_tried(collective, root, n)) continue;
                    if (!is_long() && rounds > 1 && rounds != 2 + (n + root) % 3) continue;
                    struct subject s = {collective, (enum plan_algorithm)algorithm, shape, channel, root, rounds};
                    prove_modes(&s);
                }
    }
}

static void prove_all_n(enum plan_collective collective)
{
    for (uint32_t n = 2; n <= N_MAX; n = plans_next_n(n)) {
        struct shape shape = shape_of_one_node(n);
        prove_shape(collective, &shape);
        shape_clear(&shape);
    }
}

static void broadcast_for_2_to_64_ranks(void **state) { (void)state; prove_all_n(PLAN_BROADCAST); }
static void reduce_for_2_to_64_ranks(void **state) { (void)state; prove_all_n(PLAN_REDUCE); }
static void allgather_for_2_to_64_ranks(void **state) { (void)state; prove_all_n(PLAN_ALLGATHER); }
static void reducescatter_for_2_to_64_ranks(void **state) { (void)state; prove_all_n(PLAN_REDUCESCATTER); }
static void gather_for_2_to_64_ranks(void **state) { (void)state; prove_all_n(PLAN_GATHER); }
static void scatter_for_2_to_64_ranks(void **state) { (void)state; prove_all_n(PLAN_SCATTER); }
static void alltoall_for_2_to_64_ranks(void **state) { (void)state; prove_all_n(PLAN_ALLTOALL); }

static const uint32_t odd_shapes[][18] = {
    {1, 1}, {1, 1, 1}, {2, 1}, {1, 2}, {2, 2}, {3, 5, 1}, {1, 7}, {4, 4}, {2, 2, 2}, {5, 3, 9, 1, 2},
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {13, 11, 7, 3}};

static void all_on_many_nodes_of_odd_shapes_in_any_order_of_ranks(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof odd_shapes / sizeof odd_shapes[0]; k++)
        for (int dealt = 0; dealt < 2; dealt++) {
            struct shape shape = shape_of_nodes(odd_shapes[k], dealt);
            for (int c = PLAN_ALLREDUCE + 1; c < PLAN_COLLECTIVES; c++) prove_shape((enum plan_collective)c, &shape);
            shape_clear(&shape);
        }
}

/* Calls of all kinds after one another: windows, counters and links are shared by all of them. */
static void calls_of_all_kinds_follow_each_other(void **state)
{
    (void)state;
    enum { CALLS = 14 };
    uint32_t seed = 1;
    for (uint32_t n = 2; n <= 9; n++)
        for (uint32_t variant = 0; variant < 12; variant++) {
            struct shape shape = shape_of_one_node(n);
            struct plan_check_call calls[CALLS];
            bool direct[CALLS][N_MAX], in_place[CALLS][N_MAX];
            for (uint32_t k = 0; k < CALLS; k++) {
                struct plan *plans = NULL;
                while (plans == NULL) {
                    uint32_t r = (seed = seed * 1664525u + 1013904223u) >> 8;
                    plans = collective_plans((enum plan_collective)(r % PLAN_COLLECTIVES), &shape,
                                             (enum plan_algorithm)(r / 16 % PLAN_ALGORITHMS), 0, r / 256 % n);
                }
                mode_fill((enum mode)((k * 7 + variant) % MODES), direct[k]);
                for (uint32_t r = 0; r < N_MAX; r++) in_place[k][r] = (k + variant) % 3 == 0 && (plans->flags & PLAN_DIRECT_IN_PLACE);
                calls[k] = (struct plan_check_call){plans, 1 + (k + variant) % 3, direct[k], in_place[k]};
            }
            for (int schedule = PLAN_CHECK_FORWARD; schedule <= PLAN_CHECK_RANDOM; schedule++) {
                struct plan_check check = {.calls = calls, .n_calls = CALLS, .schedule = (enum plan_check_schedule)schedule, .seed = variant};
                struct plan_check_report report;
                if (plan_check_run(&check, &report, NULL) != PLAN_RIGHT) fail_msg("n = %u, variant %u: %s", n, variant, report.why);
            }
            for (uint32_t k = 0; k < CALLS; k++) free((void *)(uintptr_t)calls[k].plans);
            shape_clear(&shape);
        }
}

static void whoever_works_inside_one_tree_is_a_leaf_of_the_other(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= 100; n++) {
        struct shape shape = shape_of_one_node(n);
        for (uint32_t rank = 0; rank < n; rank++) {
            struct plan even, odd;
            assert_true(tree_broadcast(&shape, rank, 0, n / 2, &even));
            assert_true(tree_broadcast(&shape, rank, 1, n / 2, &odd));
            if (rank != n / 2) assert_true(even.n_links == 1 || odd.n_links == 1);
        }
        shape_clear(&shape);
    }
}

static void planners_refuse_what_does_not_fit_and_leave_the_plan_alone(void **state)
{
    (void)state;
    struct shape one = shape_of_one_node(1), many = shape_of_one_node(65), two = shape_of_nodes((const uint32_t[]){2, 2, 0}, false);
    struct plan before, after;
    memset(&before, 0x5a, sizeof before);
    after = before;
    for (int c = PLAN_ALLREDUCE + 1; c < PLAN_COLLECTIVES; c++)
        for (int a = 0; a < PLAN_ALGORITHMS; a++) {
            bool windows = a == PLAN_ONE_SHOT || a == PLAN_TWO_SHOT;
            assert_false(plan_write((enum plan_collective)c, (enum plan_algorithm)a, &one, 0, 0, 0, &after));
            if (windows) assert_false(plan_write((enum plan_collective)c, (enum plan_algorithm)a, &many, 0, 0, 0, &after));
            if (windows) assert_false(plan_write((enum plan_collective)c, (enum plan_algorithm)a, &two, 0, 0, 0, &after));
        }
    assert_memory_equal(&after, &before, sizeof after);
    shape_clear(&one);
    shape_clear(&many);
    shape_clear(&two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planners_refuse_what_does_not_fit_and_leave_the_plan_alone),
        cmocka_unit_test(broadcast_for_2_to_64_ranks),
        cmocka_unit_test(reduce_for_2_to_64_ranks),
        cmocka_unit_test(allgather_for_2_to_64_ranks),
        cmocka_unit_test(reducescatter_for_2_to_64_ranks),
        cmocka_unit_test(gather_for_2_to_64_ranks),
        cmocka_unit_test(scatter_for_2_to_64_ranks),
        cmocka_unit_test(alltoall_for_2_to_64_ranks),
        cmocka_unit_test(all_on_many_nodes_of_odd_shapes_in_any_order_of_ranks),
        cmocka_unit_test(calls_of_all_kinds_follow_each_other),
        cmocka_unit_test(whoever_works_inside_one_tree_is_a_leaf_of_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
