/* test_net_move.c - lanes that are replaced by sockets with other keys while they are in use: nothing is lost, doubled or
 * out of order, whoever wants the move; and what a peer may not say about it. */
#include "transport/net_flows.h"
#include "transport/net_pair.h"

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>

static void drive_for(struct pair *p, uint64_t ns)
{
    struct rail_deadline deadline = rail_deadline_in_ns(ns);
    while (!rail_deadline_passed(deadline)) drive(p);
}

/* Wants to move a lane of one end, which may decline because it is at it already. */
static void want_move(struct net *net, uint64_t which)
{
    pthread_mutex_lock(&net->lock);
    if (net->n_up > 0) move_lane(net->up[which % net->n_up]);
    net_unlock(net);
}

static uint64_t moves(const struct pair *p) { return atomic_load(&p->net[0]->lane_moves); }

/* ---- under load ---- */

struct mover {
    struct pair *pair;
    _Atomic bool stop;
    unsigned ends; /* 1: the connecter wants it, 2: the accepter, 3: both */
};

static void *mover_run(void *argument)
{
    struct mover *m = argument;
    for (uint64_t i = 0; !atomic_load(&m->stop); i++) {
        uint64_t x = mix(i);
        int end = m->ends == 3 ? (int)(x & 1) : (int)m->ends - 1;
        want_move(m->pair->net[end], x >> 8);
        usleep((useconds_t)(x >> 16) % 20000);
    }
    return NULL;
}

static void run_moving(uint32_t n_rails, uint32_t sockets, unsigned ends)
{
    struct net_config config = fixture_config(n_rails, sockets);
    config.chunk_bytes = 16384;
    struct pair p;
    pair_make(&p, &config);
    enum { FLOWS = 8, MOVES = 6 };
    struct flow flows[2][FLOWS];
    struct side sides[2];
    for (int me = 0; me < 2; me++) {
        for (uint32_t i = 0; i < FLOWS; i++) {
            bool sender = (i % 2 == 0) == (me == 0);
            struct net_link_request q = {.comm_key = KEY, .from = i % 2, .to = 1 - i % 2, .channel = i / 2, .sender = sender};
            flows[me][i] = (struct flow){.link = fixture_open(p.net[me], &p.address[!me], q), .name = i, .sender = sender};
            assert_non_null(flows[me][i].link);
        }
        sides[me] = (struct side){.net = p.net[me], .flows = flows[me], .n_flows = FLOWS};
    }
    struct mover mover = {.pair = &p, .ends = ends};
    pthread_t thread, moving;
    pthread_create(&moving, NULL, mover_run, &mover);
    struct rail_deadline moved = rail_deadline_in_ns(SECONDS(60));
    while (moves(&p) < MOVES && !sides[0].wrong && !sides[1].wrong && !rail_deadline_passed(moved)) {
        for (int k = 0; k < 2; k++) sides[k].messages += messages_of(100);
        pthread_create(&thread, NULL, side_run, &sides[1]);
        side_run(&sides[0]);
        pthread_join(thread, NULL);
    }
    atomic_store(&mover.stop, true);
    pthread_join(moving, NULL);
    for (int k = 0; k < 2; k++) {
        if (sides[k].wrong) print_error("%u x %u, side %d: %s (%s)\n", n_rails, sockets, k, sides[k].wrong, rail_last_error());
        assert_null(sides[k].wrong);
    }
    if (moves(&p) < MOVES) print_error("%u x %u, ends %u: %d moves\n", n_rails, sockets, ends, (int)moves(&p));
    assert_true(moves(&p) >= MOVES);
    /* What was on trial or leaving comes to its end without anybody driving, and the sets are what they were. */
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    while (sockets_up(p.net[0]) != n_rails * sockets && !rail_deadline_passed(deadline)) usleep(1000);
    assert_int_equal(sockets_up(p.net[0]), n_rails * sockets);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(atomic_load(&p.net[k]->duplicate_chunks), 0);
        for (int i = 0; i < FLOWS; i++) flows[k][i].link->ops->close(flows[k][i].link);
    }
    pair_end(&p);
}

static void nothing_is_lost_when_the_connecter_moves_lanes(void **state) { (void)state; run_moving(1, 4, 1); }
static void nothing_is_lost_when_the_accepter_asks(void **state) { (void)state; run_moving(1, 4, 2); }
static void nothing_is_lost_when_both_want_it(void **state) { (void)state; run_moving(2, 3, 3); }
static void a_rail_of_one_lane_can_move(void **state) { (void)state; run_moving(1, 1, 3); }

/* OPEN, ACCEPT and CLOSE follow one another closely here, and all lanes keep moving: one that overtook another would be
 * a frame for a link that never was, or a link that is open twice. */
static void links_open_and_close_in_order_while_their_lane_moves(void **state)
{
    (void)state;
    struct net_config config = fixture_config(1, 2);
    struct pair p;
    pair_make(&p, &config);
    struct link *keep[2] = {open_end(&p, 0, 1000, true), open_end(&p, 1, 1000, false)};
    assert_true(drive_until_ready(&p, keep[0]));
    struct mover mover = {.pair = &p, .ends = 3};
    pthread_t moving;
    pthread_create(&moving, NULL, mover_run, &mover);
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(30));
    uint32_t rounds = 0;
    for (; (rounds < 300 || moves(&p) < 5) && !rail_deadline_passed(deadline); rounds++) {
        struct link *out = open_end(&p, rounds % 2, rounds % 3, true), *in = open_end(&p, !(rounds % 2), rounds % 3, false);
        if (!out || !in) print_error("round %u: %s\n", rounds, rail_last_error());
        assert_non_null(out);
        assert_non_null(in);
        if (rounds % 5 != 4) {
            if (!drive_until_ready(&p, out)) print_error("round %u: %s\n", rounds, rail_last_error());
            assert_true(drive_until_ready(&p, out));
        }
        out->ops->close(out);
        in->ops->close(in);
    }
    atomic_store(&mover.stop, true);
    pthread_join(moving, NULL);
    assert_true(moves(&p) >= 5);
    assert_true(is_ready(keep[0]));
    for (int i = 0; i < 2; i++) keep[i]->ops->close(keep[i]);
    pair_end(&p);
}

/* Lane 1 was up first and had control frames; lane 0 must not carry the next ones past them. */
static void control_frames_stay_on_the_lane_that_was_up_first(void **state)
{
    (void)state;
    struct net_config config = fixture_config(1, 2);
    struct pair p;
    struct link *out, *in;
    struct net_lane *late = NULL;
    for (;;) { /* until the service thread has not been faster */
        pair_make(&p, &config);
        out = open_end(&p, 0, 0, true);
        in = open_end(&p, 1, 0, false);
        pthread_mutex_lock(&p.net[0]->lock);
        late = p.net[0]->peers->lanes[0];
        bool held = late->state == NET_LANE_CONNECTING && p.net[0]->n_up == 0;
        if (held) {
            net_connect_drop(late);
            late->state = NET_LANE_WAITING;
            late->retry_at_ns = rail_now_ns() + SECONDS(20);
            p.net[0]->n_connecting++;
        }
        net_unlock(p.net[0]);
        if (held) break;
        out->ops->close(out);
        in->ops->close(in);
        pair_end(&p);
    }
    const struct net_peer *peer = late->peer;
    assert_true(drive_until_ready(&p, out));
    assert_ptr_equal(peer->control, peer->lanes[NET_BERTHS]);
    pthread_mutex_lock(&p.net[0]->lock);
    if (late->state == NET_LANE_WAITING) late->retry_at_ns = 0; /* else the far end had it up before it was held, and mended it */
    net_unlock(p.net[0]);
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    while (sockets_up(p.net[0]) < 2 && !rail_deadline_passed(deadline)) drive(&p);
    assert_int_equal(late->state, NET_LANE_UP);
    struct link *next = open_end(&p, 0, 1, true), *next_in = open_end(&p, 1, 1, false);
    assert_true(drive_until_ready(&p, next));
    assert_ptr_equal(peer->control, peer->lanes[NET_BERTHS]);
    struct link *all[] = {out, in, next, next_in};
    for (int i = 0; i < 4; i++) all[i]->ops->close(all[i]);
    pair_end(&p);
}

static void who_keeps_its_keys_is_left_alone(void **state)
{
    (void)state;
    for (int fixed = 0; fixed < 2; fixed++) {
        struct net_config config = fixture_config(1, 2);
        struct pair p;
        pair_make(&p, &config);
        p.net[fixed]->config.moves_lanes = false;
        struct link *out = open_end(&p, 0, 0, true), *in = open_end(&p, 1, 0, false);
        assert_true(drive_until_ready(&p, out));
        for (int i = 0; i < 20; i++) {
            want_move(p.net[0], (uint64_t)i);
            want_move(p.net[1], (uint64_t)i);
            drive_for(&p, SECONDS(1) / 50);
        }
        assert_int_equal(sockets_up(p.net[0]), 2);
        assert_int_equal(moves(&p), 0);
        out->ops->close(out);
        in->ops->close(in);
        pair_end(&p);
    }
}

/* ---- what may not be said ---- */

static void frames_about_moves_are_checked(void **state)
{
    (void)state;
    static const struct { const char *what; int from; struct frame frame; } bad[] = {
        {"ASK", 0, {.type = FRAME_ASK}},                                       /* it could connect */
        {"ASK", 1, {.type = FRAME_ASK, .sequence = 2}},                        /* no such lane */
        {"ASK", 1, {.type = FRAME_ASK, .slot_bytes = 1}},                      /* no such socket */
        {"ASK", 1, {.type = FRAME_ASK, .sequence = 0xffffffff}},
        {"ASK", 1, {.type = FRAME_ASK, .link = 1}},
        {"OPINION", 0, {.type = FRAME_OPINION, .first_grain = 1}},
        {"OPINION", 1, {.type = FRAME_OPINION, .first_grain = 0}},
        {"OPINION", 1, {.type = FRAME_OPINION, .first_grain = 4}},
        {"OPINION", 1, {.type = FRAME_OPINION, .first_grain = 1, .slot_bytes = 9}},
        {"LEAVE", 0, {.type = FRAME_LEAVE}},                                   /* nothing beside it */
        {"LEAVE", 1, {.type = FRAME_LEAVE}},                                   /* not asked to */
        {"bytes in a frame", 1, {.type = FRAME_ASK, .payload_bytes = 8}},
        {"frame type 14", 1, {.type = 14}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct net_config config = fixture_config(1, 2);
        struct pair p;
        pair_make(&p, &config);
        struct link *out = open_end(&p, 0, 0, true), *in = open_end(&p, 1, 0, false);
        assert_true(drive_until_ready(&p, out));
        struct net *from = p.net[bad[i].from];
        static uint8_t zeros[64];
        pthread_mutex_lock(&from->lock);
        struct frame f = bad[i].frame;
        lane_queue(&from->up[0]->lane, &f, zeros, NULL);
        lane_write(&from->up[0]->lane);
        pthread_mutex_unlock(&from->lock);
        struct net_link *victim = (struct net_link *)(void *)(bad[i].from ? out : in);
        struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
        while (!atomic_load(&victim->failed) && !rail_deadline_passed(deadline)) drive(&p);
        if (!strstr(victim->why, bad[i].what)) print_error("case %d: \"%s\"\n", (int)i, victim->why);
        assert_non_null(strstr(victim->why, bad[i].what));
        out->ops->close(out);
        in->ops->close(in);
        pair_end(&p);
    }
}

static void hellos_that_contradict_are_refused(void **state)
{
    (void)state;
    enum { SET = 2, SESSION = 5 };
    static const struct { const char *what; struct frame_hello hello; bool let_in; } said[] = {
        {"its first lane", {.lane = 0, .n_lanes = SET, .features = 1, .session = SESSION}, true},
        {"a turn for a lane that is not up", {.lane = 1, .turn = 1, .n_lanes = SET, .features = 1, .session = SESSION}, false},
        {"another size of the set", {.lane = 1, .n_lanes = SET + 1, .features = 1, .session = SESSION}, false},
        {"other features", {.lane = 1, .n_lanes = SET, .session = SESSION}, false},
        {"its second lane", {.lane = 1, .n_lanes = SET, .features = 1, .session = SESSION}, true},
        {"a lane that is up", {.lane = 0, .n_lanes = SET, .features = 1, .session = SESSION}, false},
        {"a turn without the feature", {.lane = 0, .turn = 1, .n_lanes = SET, .session = SESSION}, false},
        {"a turn of another set", {.lane = 0, .turn = 1, .n_lanes = SET, .features = 1, .session = SESSION + 1}, false},
        {"a turn in a set of another size", {.lane = 0, .turn = 1, .n_lanes = SET + 5, .features = 1, .session = SESSION}, false},
        {"a newcomer", {.lane = 0, .turn = 7, .n_lanes = SET, .features = 1, .session = SESSION}, true},
        {"the same again", {.lane = 0, .turn = 7, .n_lanes = SET, .features = 1, .session = SESSION}, false},
        {"a third socket", {.lane = 0, .turn = 8, .n_lanes = SET, .features = 1, .session = SESSION}, false},
        {"no such lane", {.lane = SET, .turn = 8, .n_lanes = SET, .features = 1, .session = SESSION}, false},
    };
    struct net_config config = fixture_config(1, 1);
    struct pair p;
    pair_make(&p, &config);
    int fds[sizeof said / sizeof *said];
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        fds[i] = hello(&p, said[i].hello); /* process id 0: smaller than any */
        if ((fds[i] >= 0) != said[i].let_in) print_error("%s\n", said[i].what);
        assert_int_equal(fds[i] >= 0, said[i].let_in);
    }
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        if (fds[i] >= 0) close(fds[i]);
    drive_for(&p, SECONDS(1) / 10);
    pair_end(&p);
}

int main(void)
{
    FIXTURE_BEGIN;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_when_the_connecter_moves_lanes),
        cmocka_unit_test(nothing_is_lost_when_the_accepter_asks),
        cmocka_unit_test(nothing_is_lost_when_both_want_it),
        cmocka_unit_test(a_rail_of_one_lane_can_move),
        cmocka_unit_test(links_open_and_close_in_order_while_their_lane_moves),
        cmocka_unit_test(control_frames_stay_on_the_lane_that_was_up_first),
        cmocka_unit_test(who_keeps_its_keys_is_left_alone),
        cmocka_unit_test(frames_about_moves_are_checked),
        cmocka_unit_test(hellos_that_contradict_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
