/* Rank order: what deterministic mode admits is exactly what the symbolic check proves to be the balanced tree over rank
 * numbers. The promise of a plan that does not keep it is refused; a plan that keeps it without a promise is none that the
 * chooser overlooks, but for those that keep it by chance, for some roots or channels: of two and three ranks, and a
 * hierarchy of nodes of two ranks on every second channel. */
#include "plan/plans.h"

#include <stdio.h>

#include "plan/collective.h"
#include "plan/value.h"
#include "plan/write.h"

static const enum plan_collective reducing[] = {PLAN_ALLREDUCE, PLAN_REDUCE, PLAN_REDUCESCATTER};
enum { N_REDUCING = sizeof reducing / sizeof reducing[0] };

struct subject {
    const struct shape *shape;
    enum plan_collective collective;
    enum plan_algorithm algorithm;
    uint32_t channel, root;
};

/* All ranks' plans in rank order, or NULL. free() it. */
static struct plan *ordered_plans(const struct subject *s)
{
    struct plan *plans = calloc(s->shape->n_ranks, sizeof *plans);
    assert_non_null(plans);
    for (uint32_t r = 0; r < s->shape->n_ranks; r++)
        if (!plan_write_in_rank_order(s->collective, s->algorithm, s->shape, r, s->channel, s->root, &plans[r])) {
            assert_int_equal(r, 0);
            free(plans);
            return NULL;
        }
    for (uint32_t r = 0; r < s->shape->n_ranks; r++) assert_int_equal(plans[r].collective, s->collective);
    return plans;
}

static enum plan_verdict judge(const struct plan *plans, struct plan_check_report *report)
{
    struct plan_check_call call = {plans, 2, NULL, NULL};
    return plan_check_run(&(struct plan_check){.calls = &call, .n_calls = 1, .schedule = PLAN_CHECK_GREEDY}, report, NULL);
}

/* The plan's value when every move that combines is balanced, which no planner outside of windows asks for. */
static bool keeps_it_balanced(const struct subject *s)
{
    struct plan_check_report report;
    struct plan *plans = collective_plans(s->collective, s->shape, s->algorithm, s->channel, s->root);
    if (plans == NULL) return false;
    for (uint32_t r = 0; r < s->shape->n_ranks; r++) plan_balance(&plans[r]);
    assert_int_equal(judge(plans, &report), PLAN_RIGHT);
    free(plans);
    return report.in_rank_order;
}

static void admission_is_proven(const struct subject *s)
{
    struct plan_check_report report;
    uint32_t n = s->shape->n_ranks;
    struct plan *plans = ordered_plans(s);
    if (plans != NULL) {
        assert_int_equal(plans[0].collective, s->collective);
        assert_true(plans[0].flags & PLAN_IN_RANK_ORDER);
        if (judge(plans, &report) != PLAN_RIGHT || !report.in_rank_order)
            fail_msg("%s by %s, n = %u, root %u: %s", collective_name(s->collective), plan_algorithm_names[s->algorithm], n,
                     s->root, report.why);
        free(plans);
    } else if (n > 3 && !(s->algorithm == PLAN_HIERARCHY && s->channel == 0) && keeps_it_balanced(s)) {
        fail_msg("%s by %s, n = %u, root %u, channel %u is in rank order and not admitted", collective_name(s->collective),
                 plan_algorithm_names[s->algorithm], n, s->root, s->channel);
    }
}

static void prove_shape(const struct shape *shape)
{
    uint32_t n = shape->n_ranks;
    for (int c = 0; c < N_REDUCING; c++)
        for (int a = 0; a < PLAN_ALGORITHMS; a++)
            for (uint32_t channel = 0; channel < 2; channel++)
                for (uint32_t root = 0; root < n; root++) {
                    bool rooted = collective_kind(reducing[c]).rooted;
                    if (rooted ? n > 9 && root != 0 && root != n - 1 && root != n / 3 : root > 0) continue;
                    admission_is_proven(&(struct subject){shape, reducing[c], (enum plan_algorithm)a, channel, root});
                }
}

static void what_is_admitted_is_what_is_proven_for_2_to_64_ranks_of_one_node(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= 64; n++) {
        if (n > 20 && n % 8 > 1 && n % 8 != 7 && !getenv("RAILCCL_TEST_LONG")) continue;
        struct shape shape = shape_of_one_node(n);
        prove_shape(&shape);
        shape_clear(&shape);
    }
}

static void what_is_admitted_is_what_is_proven_on_many_nodes(void **state)
{
    (void)state;
    static const uint32_t shapes[][18] = {{1, 1}, {2, 1}, {1, 2}, {2, 2}, {3, 5, 1}, {1, 7}, {4, 4}, {8, 8}, {5, 3, 9, 1, 2},
                                          {2, 2, 2, 2}, {1, 1, 1, 1, 1, 1, 1, 1}, {13, 11, 7, 3}, {70}};
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++)
        for (int dealt = 0; dealt < 2; dealt++) {
            struct shape shape = shape_of_nodes(shapes[k], dealt);
            prove_shape(&shape);
            shape_clear(&shape);
        }
}

/* Whatever the size and the shape, the chooser in deterministic mode takes a plan in rank order, forced or not. */
static void the_deterministic_chooser_takes_nothing_else(void **state)
{
    (void)state;
    static const uint32_t shapes[][6] = {{2}, {3}, {7}, {64}, {65}, {1, 1}, {2, 1}, {4, 4}, {8, 8, 8}, {40, 40}};
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++)
        for (int dealt = 0; dealt < 2; dealt++) {
            struct shape shape = shape_of_nodes(shapes[k], dealt);
            struct choice_table table;
            choice_table_default(&table, &shape);
            table.deterministic = 1;
            for (int c = 0; c < N_REDUCING; c++)
                for (table.forced_algorithm = -1; table.forced_algorithm < PLAN_ALGORITHMS; table.forced_algorithm++)
                    for (uint64_t bytes = 1; bytes < (uint64_t)1 << 40; bytes = bytes * 9 + 3) {
                        struct choice choice = choose_plan(reducing[c], &table, &shape, bytes);
                        struct plan plan;
                        assert_true(plan_write_in_rank_order(reducing[c], choice.algorithm, &shape, shape.n_ranks - 1,
                                                             choice.n_channels - 1, 0, &plan));
                    }
            shape_clear(&shape);
        }
}

/* ---- promises that are not kept ---- */

static void a_false_promise_is_refused(void **state)
{
    (void)state;
    for (uint32_t n = 4; n <= 9; n++)
        for (int c = 0; c < N_REDUCING; c++)
            for (int a = 0; a < PLAN_ALGORITHMS; a++) {
                bool windows = a == PLAN_ONE_SHOT || a == PLAN_TWO_SHOT;
                struct shape shape = windows ? shape_of_one_node(n) : shape_of_nodes((const uint32_t[]){n - 1, 1, 0}, true);
                struct plan *plans = collective_plans(reducing[c], &shape, (enum plan_algorithm)a, 0, 1);
                struct plan_check_report report;
                for (uint32_t r = 0; plans && r < n; r++) plans[r].flags |= PLAN_IN_RANK_ORDER;
                if (plans && judge(plans, &report) != (a == PLAN_RANK_TREE ? PLAN_RIGHT : PLAN_WRONG_ORDER))
                    fail_msg("n = %u, %s by %s: %d, %s", n, collective_name(reducing[c]), plan_algorithm_names[a],
                             report.verdict, report.why);
                if (plans && a != PLAN_RANK_TREE) assert_non_null(strstr(report.why, "balanced tree over rank numbers"));
                free(plans);
                shape_clear(&shape);
            }
}

/* Two children exchanged: the same inputs, each once, the same on all ranks; only the order tells. */
static void exchanged_children_are_refused(void **state)
{
    (void)state;
    for (uint32_t n = 3; n <= 17; n++)
        for (uint32_t rank = 1; rank < n; rank++)
            for (int c = 0; c < N_REDUCING; c++) {
                struct shape shape = shape_of_one_node(n);
                struct plan_check_report report;
                struct plan *plans = ordered_plans(&(struct subject){&shape, reducing[c], PLAN_RANK_TREE, 0, n / 2});
                for (uint32_t k = 0; k < plans[rank].n_steps; k++) {
                    struct plan_step *step = &plans[rank].steps[k];
                    struct plan_operand *o = &plans[rank].operands[step->first], left = o[0];
                    if (step->verb != PLAN_MOVE || step->n_src != 2) continue;
                    o[0] = o[1];
                    o[1] = left;
                }
                assert_int_equal(judge(plans, &report), PLAN_WRONG_ORDER);
                free(plans);
                shape_clear(&shape);
            }
}

static void links_back_are_told_from_links_there(void **state)
{
    (void)state;
    struct shape shape = shape_of_one_node(7);
    struct plan_check_report report;
    struct plan *plans = ordered_plans(&(struct subject){&shape, PLAN_ALLREDUCE, PLAN_RANK_TREE, 0, 0});
    uint32_t back = 0;
    while (!plans[6].links[back].way) back++;
    plans[6].links[back].way = 0; /* the link from rank 4 that rank 4 says is the way back */
    assert_int_equal(judge(plans, &report), PLAN_WRONG_STRUCTURE);
    assert_non_null(strstr(report.why, "which has none"));
    plans[6].links[back].way = PLAN_WAYS;
    assert_int_equal(judge(plans, &report), PLAN_WRONG_STRUCTURE);
    assert_non_null(strstr(report.why, "way 2"));
    free(plans);
    shape_clear(&shape);
}

/* ---- the expression itself ---- */

static void the_rank_tree_splits_at_the_largest_power_of_two_below(void **state)
{
    (void)state;
    struct values *v = values_open(7);
    struct value_part part = {0, 0, 0};
    const char *problem = NULL;
    value_id in[7], all[2];
    for (uint32_t r = 0; r < 7; r++) in[r] = values_input(v, part, r);
#define PAIR(a, b) values_combine(v, (value_id[]){a, b}, 2, &problem)
    all[0] = PAIR(PAIR(PAIR(in[0], in[1]), PAIR(in[2], in[3])), PAIR(PAIR(in[4], in[5]), in[6]));
    assert_int_equal(values_finish(v, all[0], &problem), values_rank_tree(v, part));
    assert_int_equal(values_balance(v, in, 7, &problem), all[0]);
    all[1] = PAIR(PAIR(PAIR(PAIR(PAIR(PAIR(in[0], in[1]), in[2]), in[3]), in[4]), in[5]), in[6]);
    assert_int_not_equal(all[1], all[0]);
    assert_int_not_equal(values_combine(v, in, 7, &problem), all[1]); /* one rounding is another value than six */
    assert_null(problem);
    values_close(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rank_tree_splits_at_the_largest_power_of_two_below),
        cmocka_unit_test(what_is_admitted_is_what_is_proven_for_2_to_64_ranks_of_one_node),
        cmocka_unit_test(what_is_admitted_is_what_is_proven_on_many_nodes),
        cmocka_unit_test(the_deterministic_chooser_takes_nothing_else),
        cmocka_unit_test(a_false_promise_is_refused),
        cmocka_unit_test(exchanged_children_are_refused),
        cmocka_unit_test(links_back_are_told_from_links_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
