/* test_repair_times.c - lanes that die, one event at a time: when a lane is tried again, and what is not believed.
 * What several events come to together is explored by test_repair.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "transport/link/repair.h"

enum { LANES = 2 };
#define MS RAIL_NS_PER_MS
#define S RAIL_NS_PER_S
#define REST_MS 250 /* after the first death */
#define REST_MAX_S 64

struct end {
    struct repair repair;
    struct repair_lane lanes[LANES];
    uint64_t now_ns;
};

static struct repair_actions at(struct end *e, enum repair_event_kind kind, uint32_t lane, uint16_t turn)
{
    struct repair_event event = {.kind = kind, .lane = lane, .turn = turn, .now_ns = e->now_ns};
    return repair_step(&e->repair, &event);
}

static void begin(struct end *e, bool connecter)
{
    repair_begin(&e->repair, connecter, e->lanes, LANES);
    e->now_ns = 1000 * S;
}

/* All lanes are up with their first sockets. */
static void begin_up(struct end *e, bool connecter)
{
    begin(e, connecter);
    for (uint32_t i = 0; i < LANES; i++) assert_int_equal(at(e, REPAIR_CONNECTED, i, 0).what, 0);
}

static bool tries(struct end *e, uint32_t lane) { return at(e, REPAIR_TICK, lane, 0).what == REPAIR_CONNECT; }

/* How long from now until the lane is tried; the try has begun then. Looks once in a millisecond. */
static uint64_t tried_after_ms(struct end *e, uint32_t lane)
{
    uint64_t ms = 0;
    for (; !tries(e, lane); ms++) {
        assert_true(ms < 1000000);
        e->now_ns += MS;
    }
    return ms;
}

static void comes_up(struct end *e, uint32_t lane)
{
    assert_int_equal(at(e, REPAIR_CONNECTED, lane, e->lanes[lane].tried_turn).what, 0);
}

/* The socket dies, the other end says so, too. */
static void dies(struct end *e, uint32_t lane)
{
    uint16_t turn = e->lanes[lane].turn;
    assert_int_equal(at(e, REPAIR_ENDED, lane, 0).what, REPAIR_CLOSE | REPAIR_SAY_DOWN);
    assert_int_equal(at(e, REPAIR_HEARD_DOWN, lane, turn).what, REPAIR_SEND_AGAIN);
}

/* ---- times ---- */

static void a_lane_that_died_once_rests_a_quarter_of_a_second(void **state)
{
    (void)state;
    struct end e;
    begin_up(&e, true);
    dies(&e, 1);
    assert_int_equal(tried_after_ms(&e, 1), REST_MS);
}

static void the_rest_doubles_with_each_death_that_follows_soon_up_to_its_limit(void **state)
{
    (void)state;
    struct end e;
    begin_up(&e, true);
    uint64_t rest_ms = REST_MS;
    for (int i = 0; i < 12; i++) {
        dies(&e, 1);
        assert_int_equal(tried_after_ms(&e, 1), rest_ms);
        comes_up(&e, 1);
        if (rest_ms < REST_MAX_S * 1000) rest_ms *= 2;
        e.now_ns += 100 * MS;
    }
    assert_int_equal(rest_ms, REST_MAX_S * 1000);
}

static void flaps_are_forgotten_after_twenty_rests_without_one(void **state)
{
    (void)state;
    struct end e;
    begin_up(&e, true);
    for (int i = 0; i < 3; i++) { /* rests of 250, 500, 1000 ms */
        dies(&e, 1);
        tried_after_ms(&e, 1);
        comes_up(&e, 1);
    }
    e.now_ns += 20 * S - 1;
    dies(&e, 1);
    assert_int_equal(tried_after_ms(&e, 1), 2000);
    comes_up(&e, 1);
    e.now_ns += 40 * S;
    dies(&e, 1);
    assert_int_equal(tried_after_ms(&e, 1), REST_MS);
}

static void the_last_lane_is_tried_at_once(void **state)
{
    (void)state;
    struct end e;
    begin_up(&e, true);
    dies(&e, 0);
    assert_false(tries(&e, 0));
    assert_int_equal(e.repair.alone_ns, 0);
    dies(&e, 1);
    assert_int_equal(e.repair.alone_ns, e.now_ns);
    assert_true(tries(&e, 1));
    assert_false(tries(&e, 0));
    comes_up(&e, 1);
    assert_int_equal(e.repair.alone_ns, 0);
    for (int i = 0; i < 12; i++) { /* however often it has flapped */
        dies(&e, 1);
        assert_true(tries(&e, 1));
        comes_up(&e, 1);
    }
}

static void a_nic_that_works_again_ends_the_rest_but_not_that_of_a_lane_that_flaps(void **state)
{
    (void)state;
    struct end e;
    begin_up(&e, true);
    dies(&e, 1);
    assert_false(tries(&e, 1));
    at(&e, REPAIR_NIC_BACK, 1, 0);
    assert_true(tries(&e, 1));
    comes_up(&e, 1);
    dies(&e, 1);
    at(&e, REPAIR_NIC_BACK, 1, 0);
    assert_int_equal(tried_after_ms(&e, 1), 2 * REST_MS);
    comes_up(&e, 1);
    at(&e, REPAIR_NIC_BACK, 1, 0);
    assert_int_equal(e.lanes[1].state, REPAIR_UP);
}

static void a_try_that_fails_is_repeated_after_a_pause(void **state)
{
    (void)state;
    struct end e;
    begin_up(&e, true);
    dies(&e, 1);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(tried_after_ms(&e, 1), 250); /* the rest, then the pauses */
        assert_int_equal(at(&e, REPAIR_TRY_FAILED, 1, 0).what, 0);
    }
    assert_true(tried_after_ms(&e, 1) == 250);
    comes_up(&e, 1);
}

static void only_the_connecter_tries_and_only_lanes_that_rest(void **state)
{
    (void)state;
    struct end connecter, accepter;
    begin(&connecter, true);
    connecter.now_ns += 100 * S;
    assert_int_equal(at(&connecter, REPAIR_TICK, 0, 0).what, 0); /* its first try is under way */
    begin_up(&connecter, true);
    begin_up(&accepter, false);
    connecter.now_ns = accepter.now_ns += 100 * S;
    assert_int_equal(at(&connecter, REPAIR_TICK, 0, 0).what, 0);
    dies(&accepter, 0);
    accepter.now_ns += 100 * S;
    assert_int_equal(at(&accepter, REPAIR_TICK, 0, 0).what, 0);
}

/* ---- turns ---- */

static uint16_t turn_of_try(struct end *e, uint32_t lane)
{
    e->now_ns += 100 * S;
    struct repair_actions a = at(e, REPAIR_TICK, lane, 0);
    assert_int_equal(a.what, REPAIR_CONNECT);
    return a.try_turn;
}

static void a_turn_that_was_never_heard_of_is_used_again_and_another_never(void **state)
{
    (void)state;
    struct end e;
    begin_up(&e, true);
    dies(&e, 1);
    for (int i = 0; i < 3; i++) { /* nobody answered the knock */
        assert_int_equal(turn_of_try(&e, 1), 1);
        at(&e, REPAIR_TRY_FAILED, 1, 0);
    }
    assert_int_equal(turn_of_try(&e, 1), 1);
    at(&e, REPAIR_TRY_FAILED, 1, 1); /* HELLO was said */
    assert_int_equal(turn_of_try(&e, 1), 2);
    at(&e, REPAIR_TRY_FAILED, 1, 1);
    assert_int_equal(turn_of_try(&e, 1), 2);
    comes_up(&e, 1);
    dies(&e, 1);
    assert_int_equal(turn_of_try(&e, 1), 3);
    at(&e, REPAIR_TRY_FAILED, 1, 0); /* older than the socket that was up: nonsense, and no turn is given twice */
    assert_true(turn_of_try(&e, 1) > 2);
}

static void a_first_try_that_fails_does_not_end_the_lane(void **state)
{
    (void)state;
    struct end e;
    begin(&e, true);
    at(&e, REPAIR_TRY_FAILED, 0, 0);
    assert_int_equal(turn_of_try(&e, 0), 1);
    comes_up(&e, 0);
    assert_int_equal(e.repair.n_up, 1);
}

static void turns_do_not_wrap(void **state)
{
    (void)state;
    struct end e;
    begin_up(&e, true);
    e.lanes[0].tried_turn = UINT16_MAX - 1;
    dies(&e, 0);
    assert_int_equal(turn_of_try(&e, 0), UINT16_MAX);
    comes_up(&e, 0);
    dies(&e, 0);
    e.now_ns += 1000 * S;
    assert_int_equal(at(&e, REPAIR_TICK, 0, 0).what, 0);
}

static void a_newer_socket_ends_the_one_that_was_believed_up(void **state)
{
    (void)state;
    struct end e;
    begin_up(&e, false);
    struct repair_actions a = at(&e, REPAIR_CONNECTED, 0, 3);
    assert_int_equal(a.what, REPAIR_CLOSE | REPAIR_SAY_DOWN);
    assert_int_equal(a.say_turn, 0);
    assert_int_equal(e.lanes[0].state, REPAIR_UP);
    assert_int_equal(e.lanes[0].turn, 3);
    assert_true(e.lanes[0].in_doubt);
    assert_int_equal(e.repair.n_up, LANES);
    assert_int_equal(at(&e, REPAIR_HEARD_DOWN, 0, 0).what, REPAIR_SEND_AGAIN);
    assert_int_equal(e.lanes[0].state, REPAIR_UP);
}

/* ---- lanes that move: two sockets side by side ---- */

static void a_lane_that_moves_dies_with_both_sockets(void **state)
{
    (void)state;
    struct end e;
    begin_up(&e, true);
    repair_tries(&e.repair, 1, 1);
    repair_moves(&e.repair, 1, 1);
    struct repair_actions a = at(&e, REPAIR_ENDED, 1, 0);
    assert_int_equal(a.what, REPAIR_CLOSE | REPAIR_SAY_DOWN);
    assert_int_equal(a.say_turn, 1);
    assert_int_equal(at(&e, REPAIR_HEARD_DOWN, 1, 0).what, 0); /* they know the older one only, so far */
    assert_int_equal(at(&e, REPAIR_HEARD_DOWN, 1, 1).what, REPAIR_SEND_AGAIN);
    assert_int_equal(turn_of_try(&e, 1), 2);
}

static void the_end_of_the_older_socket_leaves_the_newer_one(void **state)
{
    (void)state;
    struct end e;
    begin_up(&e, false);
    repair_moves(&e.repair, 1, 1);
    struct repair_actions a = at(&e, REPAIR_HEARD_DOWN, 1, 0);
    assert_int_equal(a.what, REPAIR_CLOSE | REPAIR_SAY_DOWN | REPAIR_SEND_AGAIN);
    assert_int_equal(a.say_turn, 0);
    assert_int_equal(e.lanes[1].state, REPAIR_UP);
}

static void a_newcomer_that_is_up_there_alone_ends_with_the_lane(void **state)
{
    (void)state;
    struct end e;
    begin_up(&e, true);
    repair_tries(&e.repair, 1, 1);
    struct repair_actions a = at(&e, REPAIR_HEARD_DOWN, 1, 1);
    assert_int_equal(a.what, REPAIR_CLOSE | REPAIR_SAY_DOWN | REPAIR_SEND_AGAIN);
    assert_int_equal(a.say_turn, 1);
    assert_int_equal(e.lanes[1].state, REPAIR_RESTING);
    assert_int_equal(turn_of_try(&e, 1), 2);
}

/* ---- lies ---- */

static void down_of_a_turn_that_never_was_is_wrong_and_changes_nothing(void **state)
{
    (void)state;
    for (int connecter = 0; connecter < 2; connecter++) {
        struct end e, before;
        begin_up(&e, connecter);
        before = e;
        assert_int_equal(at(&e, REPAIR_HEARD_DOWN, 0, 1).what, REPAIR_WRONG);
        assert_int_equal(at(&e, REPAIR_HEARD_DOWN, 0, UINT16_MAX).what, REPAIR_WRONG);
        assert_memory_equal(e.lanes, before.lanes, sizeof e.lanes);
        assert_int_equal(e.repair.n_up, before.repair.n_up);
    }
}

static void the_accepter_believes_nothing_of_a_lane_that_never_came(void **state)
{
    (void)state;
    struct end e;
    begin(&e, false);
    assert_int_equal(at(&e, REPAIR_HEARD_DOWN, 0, 0).what, REPAIR_WRONG);
    at(&e, REPAIR_CONNECTED, 0, 0);
    assert_int_equal(at(&e, REPAIR_HEARD_DOWN, 0, 0).what, REPAIR_CLOSE | REPAIR_SAY_DOWN | REPAIR_SEND_AGAIN);
}

static void down_said_twice_is_answered_once(void **state)
{
    (void)state;
    for (int connecter = 0; connecter < 2; connecter++) {
        struct end e;
        begin_up(&e, connecter);
        assert_int_equal(at(&e, REPAIR_HEARD_DOWN, 0, 0).what, REPAIR_CLOSE | REPAIR_SAY_DOWN | REPAIR_SEND_AGAIN);
        uint64_t retry_ns = e.lanes[0].retry_ns;
        e.now_ns += 10 * MS;
        for (int i = 0; i < 3; i++) assert_int_equal(at(&e, REPAIR_HEARD_DOWN, 0, 0).what, 0);
        assert_int_equal(e.lanes[0].retry_ns, retry_ns);
    }
}

static void down_of_an_older_turn_touches_neither_socket_nor_doubt_of_a_newer_one(void **state)
{
    (void)state;
    struct end e;
    begin_up(&e, true);
    dies(&e, 0);
    turn_of_try(&e, 0);
    comes_up(&e, 0);
    assert_int_equal(at(&e, REPAIR_HEARD_DOWN, 0, 0).what, 0);
    assert_int_equal(e.lanes[0].state, REPAIR_UP);
    at(&e, REPAIR_ENDED, 0, 0);
    assert_int_equal(at(&e, REPAIR_HEARD_DOWN, 0, 0).what, 0);
    assert_true(e.lanes[0].in_doubt);
}

static void a_socket_with_a_turn_that_was_is_wrong(void **state)
{
    (void)state;
    struct end e;
    begin_up(&e, false);
    assert_int_equal(at(&e, REPAIR_CONNECTED, 0, 0).what, REPAIR_WRONG);
    assert_int_equal(at(&e, REPAIR_CONNECTED, 0, 4).what, REPAIR_CLOSE | REPAIR_SAY_DOWN);
    assert_int_equal(at(&e, REPAIR_CONNECTED, 0, 2).what, REPAIR_WRONG);
    assert_int_equal(e.lanes[0].turn, 4);
    assert_int_equal(e.repair.n_up, LANES);
}

/* They say DOWN of a try whose HELLO they cannot have read. Its turn would come again, and the end of that socket would
 * not be told, as it was: what the socket carried would wait for ever. */
static void down_of_a_try_that_nobody_heard_of_takes_its_turn_away(void **state)
{
    (void)state;
    struct end e;
    begin_up(&e, true);
    dies(&e, 0);
    assert_int_equal(turn_of_try(&e, 0), 1);
    assert_int_equal(at(&e, REPAIR_HEARD_DOWN, 0, 1).what, REPAIR_CLOSE | REPAIR_SAY_DOWN | REPAIR_SEND_AGAIN);
    assert_int_equal(turn_of_try(&e, 0), 2);
    at(&e, REPAIR_TRY_FAILED, 0, 0);
    assert_true(turn_of_try(&e, 0) > 1);
    comes_up(&e, 0);
    assert_int_equal(at(&e, REPAIR_ENDED, 0, 0).what, REPAIR_CLOSE | REPAIR_SAY_DOWN);
}

/* Whatever the other end says: the state stays one that can be, no turn is said DOWN twice, no turn is tried twice. */
static void no_sequence_of_events_leads_out_of_the_states(void **state)
{
    (void)state;
    uint64_t random = 1;
    struct end e = {0};
    uint32_t said[LANES] = {0};
    for (uint32_t i = 0; i < 2000000; i++) {
        if (i % 1000 == 0) {
            begin(&e, i / 1000 % 2);
            for (uint32_t l = 0; l < LANES; l++) said[l] = 0;
        }
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        uint32_t r = (uint32_t)(random >> 33), lane = r % LANES;
        enum repair_event_kind kind = r / LANES % 6;
        uint16_t turn = (uint16_t)(e.lanes[lane].turn + (r >> 8) % 5 - 2);
        e.now_ns += (r >> 12) % 1000 * MS;
        uint16_t tried = e.lanes[lane].tried_turn;
        if (kind == REPAIR_CONNECTED && e.repair.connecter) { /* its own doing, not theirs */
            if (e.lanes[lane].state != REPAIR_TRYING) continue;
            turn = tried;
        }
        struct repair_actions a = at(&e, kind, lane, turn);
        if (a.what & REPAIR_WRONG) assert_int_equal(a.what, REPAIR_WRONG);
        if (a.what & REPAIR_SAY_DOWN) {
            assert_true(a.say_turn >= said[lane]);
            said[lane] = a.say_turn + 1u;
        }
        if (a.what & REPAIR_CONNECT) assert_int_equal(a.try_turn, tried + 1);
        uint32_t n_up = 0;
        for (uint32_t l = 0; l < LANES; l++) {
            n_up += e.lanes[l].state == REPAIR_UP;
            assert_true(e.lanes[l].turn <= e.lanes[l].tried_turn);
            assert_true(e.lanes[l].flaps <= 8);
            if (e.lanes[l].state != REPAIR_UP) continue;
            assert_true(e.lanes[l].was_up && e.lanes[l].said_turns <= e.lanes[l].turn);
        }
        assert_int_equal(n_up, e.repair.n_up);
        if (n_up > 0) assert_int_equal(e.repair.alone_ns, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lane_that_died_once_rests_a_quarter_of_a_second),
        cmocka_unit_test(the_rest_doubles_with_each_death_that_follows_soon_up_to_its_limit),
        cmocka_unit_test(flaps_are_forgotten_after_twenty_rests_without_one),
        cmocka_unit_test(the_last_lane_is_tried_at_once),
        cmocka_unit_test(a_nic_that_works_again_ends_the_rest_but_not_that_of_a_lane_that_flaps),
        cmocka_unit_test(a_try_that_fails_is_repeated_after_a_pause),
        cmocka_unit_test(only_the_connecter_tries_and_only_lanes_that_rest),
        cmocka_unit_test(a_turn_that_was_never_heard_of_is_used_again_and_another_never),
        cmocka_unit_test(a_first_try_that_fails_does_not_end_the_lane),
        cmocka_unit_test(turns_do_not_wrap),
        cmocka_unit_test(a_newer_socket_ends_the_one_that_was_believed_up),
        cmocka_unit_test(a_lane_that_moves_dies_with_both_sockets),
        cmocka_unit_test(the_end_of_the_older_socket_leaves_the_newer_one),
        cmocka_unit_test(a_newcomer_that_is_up_there_alone_ends_with_the_lane),
        cmocka_unit_test(down_of_a_turn_that_never_was_is_wrong_and_changes_nothing),
        cmocka_unit_test(the_accepter_believes_nothing_of_a_lane_that_never_came),
        cmocka_unit_test(down_said_twice_is_answered_once),
        cmocka_unit_test(down_of_an_older_turn_touches_neither_socket_nor_doubt_of_a_newer_one),
        cmocka_unit_test(a_socket_with_a_turn_that_was_is_wrong),
        cmocka_unit_test(down_of_a_try_that_nobody_heard_of_takes_its_turn_away),
        cmocka_unit_test(no_sequence_of_events_leads_out_of_the_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
