/* test_route.c - which lanes of a rail get another key: the decision alone, on fabrics made of numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "transport/link/route.h"

enum { CHUNK_BYTES = 131072, WINDOW_US = 100000, ROUTE_RATE = 12000000, MAX = 32 };

/* A rail of lanes on routes of equal rate, which the lanes of a route share. */
struct fabric {
    struct route_lane lane[MAX], *lanes[MAX];
    uint32_t route[MAX], n;
    uint32_t percent_of[8]; /* of a route's rate; 0 = 100 */
    uint64_t now_ns;
    struct route_pace pace;
    uint64_t random;
};

static uint64_t next_random(struct fabric *f)
{
    return f->random = f->random * 6364136223846793005ull + 1442695040888963407ull;
}

static void add(struct fabric *f, uint32_t route, bool newcomer)
{
    f->lane[f->n] = (struct route_lane){.newcomer = newcomer};
    f->lanes[f->n] = &f->lane[f->n];
    f->route[f->n++] = route;
}

/* "3,3,2,0" */
static void fabric_of(struct fabric *f, const char *loads)
{
    *f = (struct fabric){.random = 1};
    for (uint32_t route = 0; *loads; route++) {
        uint32_t n = (uint32_t)(*loads++ - '0');
        while (n-- > 0) add(f, route, false);
        if (*loads == ',') loads++;
    }
}

static uint64_t rate_of(const struct fabric *f, uint32_t i)
{
    uint32_t sharing = 0, percent = f->percent_of[f->route[i]];
    for (uint32_t j = 0; j < f->n; j++) sharing += f->route[j] == f->route[i];
    return (uint64_t)ROUTE_RATE * (percent ? percent : 100) / 100 / sharing;
}

/* One window in which everybody has work for `busy` per cent of it. */
static void window(struct fabric *f, uint32_t busy)
{
    for (uint32_t i = 0; i < f->n; i++) {
        uint64_t busy_us = (uint64_t)WINDOW_US * busy / 100;
        struct route_work work = {.window_us = WINDOW_US, .busy_us = busy_us, .bytes = rate_of(f, i) * busy_us / 1000000};
        route_work(f->lanes[i], &work, CHUNK_BYTES);
    }
    route_window(f->lanes, f->n);
    f->now_ns += WINDOW_US * 1000ull;
}

static uint32_t choose(struct fabric *f, uint32_t chosen[ROUTE_LANES_MAX])
{
    return route_choose(f->lanes, f->n, &f->pace, f->now_ns, next_random(f), chosen);
}

static void a_lane_below_80_percent_of_its_siblings_is_slow_after_two_windows(void **state)
{
    (void)state;
    struct fabric f;
    fabric_of(&f, "4,2,2");
    f.pace.search_at_ns = UINT64_MAX;
    uint32_t chosen[ROUTE_LANES_MAX];
    window(&f, 100);
    assert_int_equal(choose(&f, chosen), 0);
    window(&f, 100);
    assert_int_equal(choose(&f, chosen), 4); /* half of the lanes at most */
    for (int i = 0; i < 4; i++) assert_int_equal(f.route[chosen[i]], 0);
}

static void a_lane_that_gets_next_to_nothing_is_slow_after_one(void **state)
{
    (void)state;
    struct fabric f;
    fabric_of(&f, "2,2,2,2");
    f.pace.search_at_ns = UINT64_MAX;
    f.percent_of[2] = 5;
    uint32_t chosen[ROUTE_LANES_MAX];
    window(&f, 100);
    assert_int_equal(choose(&f, chosen), 2);
    assert_int_equal(f.route[chosen[0]], 2);
    assert_int_equal(f.route[chosen[1]], 2);
}

static void a_lane_that_delivers_nothing_at_all_is_slow_although_all_others_wait_for_it(void **state)
{
    (void)state;
    struct fabric f;
    fabric_of(&f, "2,2,2,2");
    f.pace.search_at_ns = UINT64_MAX;
    uint32_t chosen[ROUTE_LANES_MAX];
    window(&f, 100);
    for (int w = 0; w < 2; w++) {
        assert_int_equal(choose(&f, chosen), 0);
        for (uint32_t i = 0; i < f.n; i++) { /* the siblings have no work; what they can do is remembered */
            struct route_work work = {.window_us = WINDOW_US, .busy_us = i == 3 ? WINDOW_US : 0};
            route_work(f.lanes[i], &work, CHUNK_BYTES);
        }
        route_window(f.lanes, f.n);
    }
    assert_int_equal(choose(&f, chosen), 1);
    assert_int_equal(chosen[0], 3);
}

static void without_work_there_is_no_evidence(void **state)
{
    (void)state;
    struct fabric f;
    fabric_of(&f, "5,1,1,1");
    uint32_t chosen[ROUTE_LANES_MAX];
    for (int i = 0; i < 50; i++) {
        window(&f, i % 2 ? 5 : 30);
        assert_int_equal(choose(&f, chosen), 0);
    }
    /* A trickle of small messages: always busy by the clock, but never two chunks. */
    struct fabric g;
    fabric_of(&g, "5,1,1,1");
    for (int w = 0; w < 50; w++) {
        for (uint32_t i = 0; i < g.n; i++) {
            struct route_work work = {.window_us = WINDOW_US, .busy_us = WINDOW_US / 2, .bytes = 1000 * (i + 1)};
            route_work(g.lanes[i], &work, CHUNK_BYTES);
        }
        route_window(g.lanes, g.n);
        assert_int_equal(choose(&g, chosen), 0);
    }
}

static void one_lane_has_no_siblings(void **state)
{
    (void)state;
    struct fabric f;
    fabric_of(&f, "1");
    uint32_t chosen[ROUTE_LANES_MAX];
    for (int i = 0; i < 50; i++) {
        window(&f, 100);
        assert_int_equal(choose(&f, chosen), 0);
    }
}

static void lanes_that_are_slow_alike_only_search_and_that_ever_more_rarely(void **state)
{
    (void)state;
    struct fabric f;
    fabric_of(&f, "2,2,2,2");
    for (uint32_t r = 0; r < 4; r++) f.percent_of[r] = 20; /* a slow NIC */
    uint32_t chosen[ROUTE_LANES_MAX], rounds = 0;
    for (int i = 0; i < 6000; i++) { /* ten minutes */
        window(&f, 100);
        for (uint32_t j = 0; j < f.n; j++) assert_int_equal(f.lane[j].slow_windows, 0);
        if (choose(&f, chosen) == 0) continue;
        rounds++;
        route_round(&f.pace, false, f.now_ns, next_random(&f));
    }
    assert_in_range(rounds, 12, 40);
}

static void tries_in_vain_are_held_back_longer_and_longer(void **state)
{
    (void)state;
    struct fabric f;
    fabric_of(&f, "3,2,2,1");
    f.pace.search_at_ns = UINT64_MAX;
    uint32_t chosen[ROUTE_LANES_MAX], tries = 0;
    uint64_t last_ns = 0, longest_ns = 0;
    for (int i = 0; i < 6000; i++) {
        window(&f, 100);
        uint32_t n = choose(&f, chosen);
        for (uint32_t j = 0; j < n; j++) {
            route_vain(f.lanes[chosen[j]], f.now_ns, next_random(&f));
            if (chosen[j] != 0) continue;
            tries++;
            if (f.now_ns - last_ns > longest_ns) longest_ns = f.now_ns - last_ns;
            last_ns = f.now_ns;
        }
    }
    assert_in_range(tries, 10, 40);
    assert_in_range(longest_ns, 20 * RAIL_NS_PER_S, 40 * RAIL_NS_PER_S);
}

static void two_ends_do_not_pause_alike(void **state)
{
    (void)state;
    struct route_lane lane[2] = {{0}};
    struct fabric f = {.random = 7};
    int alike = 0;
    for (int i = 0; i < 20; i++) {
        for (int j = 0; j < 2; j++) route_vain(&lane[j], 0, next_random(&f) >> 20);
        alike += lane[0].hold_until_ns == lane[1].hold_until_ns;
    }
    assert_in_range(alike, 0, 4); /* the first tries do not pause at all */
}

/* ---- a newcomer beside a lane ---- */

static void newcomers_on_a_balanced_rail_never_stay(void **state)
{
    (void)state;
    for (uint32_t where = 0; where < 256; where++) { /* every way in which four newcomers can land */
        struct fabric f;
        fabric_of(&f, "2,2,2,2");
        window(&f, 100);
        for (uint32_t i = 0; i < 4; i++) add(&f, where >> 2 * i & 3, true);
        window(&f, 100);
        for (uint32_t i = 0; i < 4; i++)
            assert_int_not_equal(route_judge(f.lanes, f.n, f.lanes[8 + i], f.lanes[i]), ROUTE_BETTER);
    }
}

static void one_alone_on_a_route_that_nobody_was_on_stays(void **state)
{
    (void)state;
    static const char *const loads[] = {"3,3,2,0", "4,4,0,0", "8,0,0,0", "4,2,2,0"};
    for (int i = 0; i < 4; i++) {
        struct fabric f;
        fabric_of(&f, loads[i]);
        window(&f, 100);
        add(&f, 3, true);
        add(&f, 0, true);
        window(&f, 100);
        assert_int_equal(route_judge(f.lanes, f.n, f.lanes[8], f.lanes[0]), ROUTE_BETTER);
        assert_int_equal(route_judge(f.lanes, f.n, f.lanes[9], f.lanes[1]), ROUTE_INDIFFERENT);
    }
}

static void beside_a_slow_lane_a_quarter_more_is_enough(void **state)
{
    (void)state;
    struct fabric f;
    fabric_of(&f, "2,2,2,2");
    f.percent_of[0] = 50;
    window(&f, 100);
    window(&f, 100);
    f.lane[0].was_slow = true;
    f.lane[0].before_bytes_per_s = f.lane[0].rate_bytes_per_s;
    add(&f, 1, true);
    window(&f, 100);
    assert_int_equal(route_judge(f.lanes, f.n, f.lanes[8], f.lanes[0]), ROUTE_BETTER);
    f.lane[0].was_slow = false;
    assert_int_equal(route_judge(f.lanes, f.n, f.lanes[8], f.lanes[0]), ROUTE_INDIFFERENT);
}

static void a_lane_that_has_a_route_for_itself_is_not_given_up(void **state)
{
    (void)state;
    struct fabric f;
    fabric_of(&f, "1,4,4");
    window(&f, 100);
    add(&f, 1, true);
    window(&f, 100);
    assert_int_equal(route_judge(f.lanes, f.n, f.lanes[9], f.lanes[0]), ROUTE_WORSE);
}

static void what_has_carried_nothing_is_not_judged(void **state)
{
    (void)state;
    struct fabric f;
    fabric_of(&f, "2,2");
    window(&f, 100);
    add(&f, 1, true);
    struct route_work idle = {.window_us = WINDOW_US};
    route_work(f.lanes[4], &idle, CHUNK_BYTES);
    assert_int_equal(route_judge(f.lanes, f.n, f.lanes[4], f.lanes[0]), ROUTE_UNDECIDED);
}

/* ---- from beginning to end ---- */

/* A round: tries, newcomers by chance, a window, the best stay. Returns how many moved. */
static uint32_t play_round(struct fabric *f, uint32_t n_routes)
{
    uint32_t chosen[ROUTE_LANES_MAX], moved = 0, n_lanes = f->n;
    window(f, 100);
    uint32_t n = choose(f, chosen);
    if (n == 0) return 0;
    for (uint32_t i = 0; i < n; i++) {
        struct route_lane *old = f->lanes[chosen[i]];
        old->was_slow = old->slow_windows > 0;
        old->before_bytes_per_s = old->rate_bytes_per_s;
        add(f, (uint32_t)(next_random(f) >> 40) % n_routes, true);
    }
    window(f, 100);
    window(f, 100);
    bool stays[MAX];
    for (uint32_t i = 0; i < n; i++)
        stays[i] = route_judge(f->lanes, f->n, f->lanes[n_lanes + i], f->lanes[chosen[i]]) == ROUTE_BETTER &&
                   moved++ < route_moves_max(n_lanes);
    f->n = n_lanes;
    for (uint32_t i = 0; i < n; i++) {
        if (stays[i]) {
            f->route[chosen[i]] = f->route[n_lanes + i];
            f->lane[chosen[i]] = (struct route_lane){.known = true, .rate_bytes_per_s = f->lane[n_lanes + i].rate_bytes_per_s};
        } else {
            route_vain(f->lanes[chosen[i]], f->now_ns, next_random(f));
        }
    }
    route_round(&f->pace, moved > 0, f->now_ns, next_random(f));
    return moved;
}

static void eight_lanes_find_four_routes_and_then_rest(void **state)
{
    (void)state;
    uint32_t unfound = 0, uneven = 0, late_moves = 0;
    enum { SEEDS = 500 };
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct fabric f = {.random = seed * 0x9e3779b97f4a7c15ull};
        for (int i = 0; i < 8; i++) add(&f, (uint32_t)(next_random(&f) >> 40) % 4, false);
        while (f.now_ns < 30 * RAIL_NS_PER_S) {
            uint32_t moved = play_round(&f, 4);
            if (f.now_ns > 20 * RAIL_NS_PER_S) late_moves += moved;
        }
        uint32_t load[4] = {0}, most = 0, least = 8;
        for (uint32_t i = 0; i < 8; i++) load[f.route[i]]++;
        for (int r = 0; r < 4; r++) {
            most = load[r] > most ? load[r] : most;
            least = load[r] < least ? load[r] : least;
        }
        unfound += least == 0;
        uneven += most > 2;
    }
    print_message("of %d: %u miss a route, %u uneven, %u late moves\n", SEEDS, unfound, uneven, late_moves);
    assert_int_equal(unfound, 0);
    assert_in_range(uneven, 0, SEEDS / 20);
    assert_in_range(late_moves, 0, SEEDS / 20);
}

static void nobody_moves_on_a_balanced_rail(void **state)
{
    (void)state;
    static const char *const loads[] = {"2,2,2,2", "1,1", "4,4", "8"};
    static const uint32_t routes[] = {4, 2, 2, 1};
    for (int i = 0; i < 4; i++) {
        struct fabric f;
        fabric_of(&f, loads[i]);
        while (f.now_ns < 600 * RAIL_NS_PER_S) assert_int_equal(play_round(&f, routes[i]), 0);
    }
}

/* ---- dealing by rates (route_wait_us) ---- */

enum { HELD_BYTES = 1 << 20 };

/* What a process holds on its second lane, of HELD_BYTES in all: chunks go to the lane that would have them delivered first,
 * so in the long run its lanes hold in proportion to the rates that the rule gives them. */
static uint64_t held_on_second(const struct route_lane lane[2])
{
    uint64_t first = lane[0].rate_bytes_per_s, second = lane[1].rate_bytes_per_s, fastest = first > second ? first : second;
    uint64_t wait[2] = {route_wait_us(&lane[0], HELD_BYTES, fastest), route_wait_us(&lane[1], HELD_BYTES, fastest)};
    return HELD_BYTES * wait[0] / (wait[0] + wait[1]);
}

/* Two NICs that two processes share, a lane each on both; percent: rate of the second NIC. A NIC serves what lies in its
 * queue in turn, so that a lane gets of it in proportion to what it holds. Returns what the first process holds on its second
 * lane after so many windows, in per cent. */
static uint32_t held_after(struct route_lane lane[2][2], uint32_t percent, uint32_t windows)
{
    uint64_t rate[2] = {ROUTE_RATE, (uint64_t)ROUTE_RATE * percent / 100};
    for (uint32_t w = 0; w < windows; w++) {
        uint64_t held[2][2];
        for (uint32_t p = 0; p < 2; p++) {
            held[p][1] = held_on_second(lane[p]);
            held[p][0] = HELD_BYTES - held[p][1];
        }
        for (uint32_t p = 0; p < 2; p++)
            for (uint32_t nic = 0; nic < 2; nic++) {
                struct route_work work = {.window_us = WINDOW_US, .busy_us = WINDOW_US};
                work.bytes = rate[nic] / 1000000 * WINDOW_US * held[p][nic] / (held[0][nic] + held[1][nic]);
                route_work(&lane[p][nic], &work, CHUNK_BYTES);
            }
    }
    return (uint32_t)(held_on_second(lane[0]) * 100 / HELD_BYTES);
}

static void lanes_alike(struct route_lane lane[2][2])
{
    for (uint32_t i = 0; i < 4; i++) lane[i / 2][i % 2] = (struct route_lane){.known = true, .rate_bytes_per_s = ROUTE_RATE / 2};
}

static void a_lane_that_was_once_slow_for_no_reason_gets_its_part_of_the_nic_again(void **state)
{
    (void)state;
    struct route_lane lane[2][2];
    lanes_alike(lane);
    lane[0][1].rate_bytes_per_s = ROUTE_RATE / 8; /* one process's, by a pause of that process */
    assert_in_range(held_after(lane, 100, 0), 30, 36); /* believed at first: half of the fastest's, not a quarter */
    assert_in_range(held_after(lane, 100, 30), 49, 50);
}

static void a_nic_at_half_rate_goes_on_getting_less(void **state)
{
    (void)state;
    struct route_lane lane[2][2];
    lanes_alike(lane);
    assert_in_range(held_after(lane, 50, 30), 39, 41); /* 2 to 3; by rates alone it were 1 to 2, 33 */
}

static void lanes_that_hardly_move_can_be_compared(void **state)
{
    (void)state;
    for (uint64_t rate = 1; rate < 8; rate++)
        for (uint64_t fastest = rate; fastest < 8; fastest++) {
            struct route_lane lane = {.known = true, .rate_bytes_per_s = rate};
            assert_true(route_wait_us(&lane, CHUNK_BYTES, fastest) >= CHUNK_BYTES * 1000000ull / fastest);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lane_below_80_percent_of_its_siblings_is_slow_after_two_windows),
        cmocka_unit_test(a_lane_that_gets_next_to_nothing_is_slow_after_one),
        cmocka_unit_test(a_lane_that_delivers_nothing_at_all_is_slow_although_all_others_wait_for_it),
        cmocka_unit_test(without_work_there_is_no_evidence),
        cmocka_unit_test(one_lane_has_no_siblings),
        cmocka_unit_test(lanes_that_are_slow_alike_only_search_and_that_ever_more_rarely),
        cmocka_unit_test(tries_in_vain_are_held_back_longer_and_longer),
        cmocka_unit_test(two_ends_do_not_pause_alike),
        cmocka_unit_test(newcomers_on_a_balanced_rail_never_stay),
        cmocka_unit_test(one_alone_on_a_route_that_nobody_was_on_stays),
        cmocka_unit_test(beside_a_slow_lane_a_quarter_more_is_enough),
        cmocka_unit_test(a_lane_that_has_a_route_for_itself_is_not_given_up),
        cmocka_unit_test(what_has_carried_nothing_is_not_judged),
        cmocka_unit_test(eight_lanes_find_four_routes_and_then_rest),
        cmocka_unit_test(nobody_moves_on_a_balanced_rail),
        cmocka_unit_test(a_lane_that_was_once_slow_for_no_reason_gets_its_part_of_the_nic_again),
        cmocka_unit_test(a_nic_at_half_rate_goes_on_getting_less),
        cmocka_unit_test(lanes_that_hardly_move_can_be_compared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
