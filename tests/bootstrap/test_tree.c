/* The tree's shape, against the definition walked rank by rank. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bootstrap/tree.h"

static void every_rank_is_the_child_of_its_parent_and_of_nobody_else(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 700; n++) {
        uint32_t children = 0;
        for (uint32_t r = 0; r < n; r++) {
            uint32_t k = tree_n_children(r, n);
            assert_true(k <= BOOTSTRAP_FANOUT);
            for (uint32_t i = 0; i < k; i++) {
                assert_true(tree_first_child(r) + i < n);
                assert_int_equal(tree_parent(tree_first_child(r) + i), r);
            }
            children += k;
        }
        assert_int_equal(children, n - 1); /* with one parent each: all but rank 0 */
    }
}

static void a_subtree_lists_each_of_its_ranks_once_parents_first(void **state)
{
    (void)state;
    uint32_t order[700];
    for (uint32_t n = 1; n <= 700; n += n < 80 ? 1 : 31) {
        for (uint32_t r = 0; r < n; r++) {
            uint8_t seen[700] = {0};
            uint32_t size = tree_order(r, n, order);
            assert_int_equal(size, tree_size(r, n));
            assert_int_equal(order[0], r);
            seen[r] = 1;
            for (uint32_t i = 1; i < size; i++) {
                assert_true(order[i] < n && !seen[order[i]] && seen[tree_parent(order[i])]);
                seen[order[i]] = 1;
            }
        }
    }
}

static void ranks_near_2_to_the_32_do_not_overflow(void **state)
{
    (void)state;
    assert_int_equal(tree_n_children(UINT32_MAX - 1, UINT32_MAX), 0);
    assert_int_equal(tree_size(UINT32_MAX / 8, UINT32_MAX), 7); /* 8 x 536870911 + 1 ... 2^32 - 2 */
    assert_int_equal(tree_size(UINT32_MAX / 8 + 1, UINT32_MAX), 1);
    assert_int_equal(tree_size(0, UINT32_MAX), UINT32_MAX);
    assert_int_equal(tree_n_children(0, 1), 0);
    assert_int_equal(tree_size(0, 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_is_the_child_of_its_parent_and_of_nobody_else),
        cmocka_unit_test(a_subtree_lists_each_of_its_ranks_once_parents_first),
        cmocka_unit_test(ranks_near_2_to_the_32_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
