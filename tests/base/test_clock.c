/* test_clock.c - deadlines: never, passed, rounding up, and no overflow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"

static void never_never_passes(void **state)
{
    (void)state;
    assert_false(rail_deadline_passed(rail_deadline_never()));
    assert_int_equal(rail_deadline_left_ms(rail_deadline_never()), -1);
    assert_int_equal(rail_deadline_left_ms(rail_deadline_in_ns(UINT64_MAX)), -1);
    assert_int_equal(rail_deadline_left_ms(rail_deadline_in_ns(UINT64_MAX - 1)), -1);
}

static void zero_has_passed_at_once(void **state)
{
    (void)state;
    struct rail_deadline d = rail_deadline_in_ns(0);
    assert_true(rail_deadline_passed(d));
    assert_int_equal(rail_deadline_left_ms(d), 0);
    assert_true(rail_deadline_passed((struct rail_deadline){0}));
}

static void what_is_left_is_rounded_up_and_capped_at_an_hour(void **state)
{
    (void)state;
    assert_in_range(rail_deadline_left_ms(rail_deadline_in_ns(500 * RAIL_NS_PER_US)), 0, 1);
    assert_in_range(rail_deadline_left_ms(rail_deadline_in_ns(10 * RAIL_NS_PER_S)), 9000, 10000);
    assert_int_equal(rail_deadline_left_ms(rail_deadline_in_ns(7200 * RAIL_NS_PER_S)), 3600000);
}

static void a_deadline_passes_when_its_time_has_come_and_not_before(void **state)
{
    (void)state;
    uint64_t begun_ns = rail_now_ns();
    struct rail_deadline d = rail_deadline_in_ns(5 * RAIL_NS_PER_MS);
    while (!rail_deadline_passed(d)) {}
    assert_true(rail_now_ns() - begun_ns >= 5 * RAIL_NS_PER_MS);
    assert_int_equal(rail_deadline_left_ms(d), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(never_never_passes),
        cmocka_unit_test(zero_has_passed_at_once),
        cmocka_unit_test(what_is_left_is_rounded_up_and_capped_at_an_hour),
        cmocka_unit_test(a_deadline_passes_when_its_time_has_come_and_not_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
