/* test_mend.c - lanes that die while they are in use: nothing is lost, doubled or out of order, whichever end notices,
 * down to the only lane and while others are being repaired; they come back; and who cannot be repaired is told so. */
#include "transport/net_flows.h"
#include "transport/net_pair.h"

/* ---- breaking ---- */

enum breakage {
    RESET,     /* both directions at once, and what is on its way is gone */
    FINISH,    /* one end's outgoing half: end of file behind all that is on its way */
    SUSPICION, /* nothing is wrong with it, but one end takes it for dead */
    N_BREAKAGES,
};

/* The hold-down is forgotten, or the test would wait for it. */
static void forget_flaps(struct pair *p)
{
    for (int k = 0; k < 2; k++) {
        pthread_mutex_lock(&p->net[k]->lock);
        for (struct net_peer *peer = p->net[k]->peers; peer; peer = peer->next)
            for (uint32_t i = 0; i < peer->n_set; i++) peer->repair.lanes[i].flaps = 0;
        net_unlock(p->net[k]);
    }
}

/* Breaks a socket of one end. */
static void break_one(struct net *net, enum breakage how, uint64_t which)
{
    static const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    pthread_mutex_lock(&net->lock);
    if (net->n_up > 0) {
        struct net_lane *lane = net->up[which % net->n_up];
        if (how == RESET)
            (void)connect(lane->lane.fd, &nowhere, sizeof nowhere);
        else if (how == FINISH)
            shutdown(lane->lane.fd, SHUT_WR);
        else
            peer_lane_ended(lane, RAIL_E_REMOTE, "taken for dead by the test");
    }
    net_unlock(net);
}

struct breaker {
    struct pair *pair;
    _Atomic bool stop;
    _Atomic uint32_t broken;
    bool moves, pairs; /* lanes are moved to other sockets, too; two are broken at a time */
    uint32_t pause_us;
};

static void *breaker_run(void *argument)
{
    struct breaker *b = argument;
    for (uint64_t i = 0; !atomic_load(&b->stop); i++) {
        uint64_t x = mix(i * 7 + b->pause_us);
        struct net *net = b->pair->net[x & 1];
        if (b->moves && (x >> 1) % 3 != 0) {
            pthread_mutex_lock(&net->lock);
            if (net->n_up > 0) move_lane(net->up[(x >> 8) % net->n_up]);
            net_unlock(net);
        } else {
            break_one(net, (enum breakage)((x >> 3) % N_BREAKAGES), x >> 8);
            if (b->pairs) break_one(b->pair->net[x >> 2 & 1], (enum breakage)((x >> 5) % N_BREAKAGES), x >> 20);
            atomic_fetch_add(&b->broken, 1);
        }
        usleep((useconds_t)((x >> 16) % b->pause_us));
        forget_flaps(b->pair);
    }
    return NULL;
}

static void run_breaking(uint32_t n_rails, uint32_t sockets, bool moves, bool pairs, uint32_t times)
{
    struct net_config config = fixture_config(n_rails, sockets);
    config.chunk_bytes = 32768;
    config.alone_timeout_ns = SECONDS(20); /* this machine may be busy */
    struct pair p;
    pair_make(&p, &config);
    enum { FLOWS = 8 };
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
    struct breaker breaker = {.pair = &p, .moves = moves, .pairs = pairs, .pause_us = 60000};
    pthread_t thread, breaking;
    pthread_create(&breaking, NULL, breaker_run, &breaker);
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(60));
    while (atomic_load(&breaker.broken) < times && !sides[0].wrong && !sides[1].wrong && !rail_deadline_passed(deadline)) {
        for (int k = 0; k < 2; k++) sides[k].messages += messages_of(100);
        pthread_create(&thread, NULL, side_run, &sides[1]);
        side_run(&sides[0]);
        pthread_join(thread, NULL);
    }
    atomic_store(&breaker.stop, true);
    pthread_join(breaking, NULL);
    for (int k = 0; k < 2; k++) {
        if (sides[k].wrong) print_error("%u x %u, side %d: %s (%s)\n", n_rails, sockets, k, sides[k].wrong, rail_last_error());
        assert_null(sides[k].wrong);
    }
    assert_true(atomic_load(&breaker.broken) >= times);
    /* All lanes come back without anybody driving. */
    struct rail_deadline back = rail_deadline_in_ns(SECONDS(20));
    while (sockets_up(p.net[0]) + sockets_up(p.net[1]) != 2 * n_rails * sockets && !rail_deadline_passed(back)) usleep(1000);
    assert_int_equal(sockets_up(p.net[0]), n_rails * sockets);
    assert_int_equal(sockets_up(p.net[1]), n_rails * sockets);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(atomic_load(&p.net[k]->duplicate_chunks), 0);
        for (int i = 0; i < FLOWS; i++) flows[k][i].link->ops->close(flows[k][i].link);
    }
    pair_end(&p);
}

static void nothing_is_lost_when_lanes_break(void **state) { (void)state; run_breaking(4, 1, false, false, 30); }
static void nothing_is_lost_when_several_break_at_once(void **state) { (void)state; run_breaking(3, 2, false, true, 30); }
static void nothing_is_lost_when_the_only_lane_breaks(void **state) { (void)state; run_breaking(1, 1, false, false, 15); }
static void nothing_is_lost_when_both_of_two_break(void **state) { (void)state; run_breaking(2, 1, false, true, 20); }
static void nothing_is_lost_when_lanes_break_that_move(void **state) { (void)state; run_breaking(2, 3, true, false, 20); }

/* OPEN, ACCEPT and CLOSE follow one another closely, and the lanes that carry them keep breaking. */
static void links_open_and_close_in_order_while_lanes_break(void **state)
{
    (void)state;
    struct net_config config = fixture_config(2, 1);
    struct pair p;
    config.alone_timeout_ns = SECONDS(20);
    pair_make(&p, &config);
    struct link *keep[2] = {open_end(&p, 0, 1000, true), open_end(&p, 1, 1000, false)};
    assert_true(drive_until_ready(&p, keep[0]));
    struct breaker breaker = {.pair = &p, .pause_us = 20000};
    pthread_t breaking;
    pthread_create(&breaking, NULL, breaker_run, &breaker);
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(40));
    uint32_t rounds = 0;
    for (; (rounds < 300 || atomic_load(&breaker.broken) < 20) && !rail_deadline_passed(deadline); rounds++) {
        struct link *out = open_end(&p, rounds % 2, rounds % 3, true), *in = open_end(&p, !(rounds % 2), rounds % 3, false);
        if (!out || !in) print_error("round %u: %s\n", rounds, rail_last_error());
        assert_non_null(out);
        assert_non_null(in);
        if (rounds % 5 != 4) {
            bool ready = drive_until_ready(&p, out);
            if (!ready) print_error("round %u: %s\n", rounds, rail_last_error());
            assert_true(ready);
        }
        out->ops->close(out);
        in->ops->close(in);
    }
    atomic_store(&breaker.stop, true);
    pthread_join(breaking, NULL);
    assert_true(atomic_load(&breaker.broken) >= 20);
    assert_true(drive_until_ready(&p, keep[0]));
    for (int i = 0; i < 2; i++) keep[i]->ops->close(keep[i]);
    pair_end(&p);
}

/* An idle pair's lane comes back, too, and what is said of it meanwhile is true. */
static void a_lane_comes_back_within_a_second(void **state)
{
    (void)state;
    for (int end = 0; end < 2; end++)
        for (int how = 0; how < N_BREAKAGES; how++) {
            struct net_config config = fixture_config(2, 1);
            struct pair p;
            pair_make(&p, &config);
            struct link *out = open_end(&p, 0, 0, true), *in = open_end(&p, 1, 0, false);
            assert_true(drive_until_ready(&p, out));
            struct rail_deadline both = rail_deadline_in_ns(SECONDS(10));
            while ((sockets_up(p.net[0]) < 2 || sockets_up(p.net[1]) < 2) && !rail_deadline_passed(both)) drive(&p);
            break_one(p.net[end], (enum breakage)how, 0);
            uint64_t began_ns = rail_now_ns(), down_ns = 0;
            while (rail_now_ns() - began_ns < SECONDS(5)) {
                usleep(1000);
                bool all = sockets_up(p.net[0]) == 2 && sockets_up(p.net[1]) == 2;
                if (!all && !down_ns) down_ns = rail_now_ns();
                if (all && down_ns) break;
            }
            assert_true(down_ns != 0);
            assert_true(rail_now_ns() - down_ns < SECONDS(1));
            assert_int_equal(sockets_up(p.net[0]), 2);
            out->ops->close(out);
            in->ops->close(in);
            pair_end(&p);
        }
}

static void where_one_end_does_not_repair_a_broken_lane_fails_the_links(void **state)
{
    (void)state;
    for (int off = 0; off < 2; off++) {
        struct net_config config = fixture_config(2, 1);
        struct pair p;
        pair_make(&p, &config);
        p.net[off]->config.repairs = false;
        struct link *out = open_end(&p, 0, 0, true), *in = open_end(&p, 1, 0, false);
        assert_true(drive_until_ready(&p, out));
        break_one(p.net[0], RESET, 0);
        struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(1));
        const struct net_link *l = (struct net_link *)(void *)in;
        while (!atomic_load(&l->failed) && !rail_deadline_passed(deadline)) drive(&p);
        assert_int_equal(atomic_load(&l->failed), RAIL_E_REMOTE);
        out->ops->close(out);
        in->ops->close(in);
        pair_end(&p);
    }
}

/* ---- what is told ---- */

static uint32_t troubles(struct pair *p, int end, struct net_trouble out[4])
{
    return net_troubles_on(p->net[end], KEY, out, 4);
}

/* Keeps the connecter from making lanes anew. */
static void no_tries(struct pair *p)
{
    pthread_mutex_lock(&p->net[0]->lock);
    struct net_peer *peer = p->net[0]->peers;
    for (uint32_t i = 0; i < peer->n_set; i++) peer->repair.lanes[i].retry_ns = UINT64_MAX;
    net_unlock(p->net[0]);
}

static void drive_until(struct pair *p, uint32_t up)
{
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    while ((sockets_up(p->net[0]) != up || sockets_up(p->net[1]) != up) && !rail_deadline_passed(deadline)) drive(p);
    assert_int_equal(sockets_up(p->net[0]), up);
    assert_int_equal(sockets_up(p->net[1]), up);
}

static void what_is_wrong_is_told_while_it_is(void **state)
{
    (void)state;
    struct net_config config = fixture_config(2, 1);
    struct net_trouble told[4];
    struct pair p;
    pair_make(&p, &config);
    struct link *out = open_end(&p, 0, 0, true), *in = open_end(&p, 1, 0, false);
    assert_true(drive_until_ready(&p, out));
    drive_until(&p, 2);
    assert_int_equal(troubles(&p, 0, told), 0);
    uint64_t before_ns = rail_now_ns();
    break_one(p.net[0], SUSPICION, 0);
    no_tries(&p);
    drive_until(&p, 1);
    for (int end = 0; end < 2; end++) {
        assert_int_equal(troubles(&p, end, told), 1);
        assert_false(told[0].unreachable);
        assert_memory_equal(told[0].process, p.net[!end]->process, NET_PROCESS_ID_BYTES);
        assert_true(told[0].since_ns >= before_ns && told[0].since_ns <= rail_now_ns());
        assert_non_null(strstr(told[0].text, end == 0 ? "taken for dead by the test" : "the other process"));
    }
    assert_int_equal(net_troubles_on(p.net[0], KEY, NULL, 0), 1);
    break_one(p.net[0], SUSPICION, 0);
    no_tries(&p);
    drive_until(&p, 0);
    for (int end = 0; end < 2; end++) {
        assert_int_equal(troubles(&p, end, told), 1);
        assert_true(told[0].unreachable);
    }
    pthread_mutex_lock(&p.net[0]->lock);
    for (int i = 0; i < 2; i++) p.net[0]->peers->repair.lanes[i].retry_ns = 0;
    net_unlock(p.net[0]);
    drive_until(&p, 2);
    for (int end = 0; end < 2; end++) assert_int_equal(troubles(&p, end, told), 0);
    out->ops->close(out);
    in->ops->close(in);
    pair_end(&p);
}

/* A communicator that is made of one that failed must not hear of the other's troubles. */
static void a_new_set_of_lanes_begins_without_troubles(void **state)
{
    (void)state;
    struct net_config config = fixture_config(2, 1);
    struct net_trouble told[4];
    struct pair p;
    pair_make(&p, &config);
    p.net[0]->config.alone_timeout_ns = p.net[1]->config.alone_timeout_ns = SECONDS(1) / 4;
    struct link *ends[2] = {open_end(&p, 0, 0, true), open_end(&p, 1, 0, false)};
    assert_true(drive_until_ready(&p, ends[0]));
    drive_until(&p, 2);
    for (int i = 0; i < 2; i++) {
        break_one(p.net[0], SUSPICION, 0);
        no_tries(&p);
    }
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    for (int i = 0; i < 2; i++)
        while (!atomic_load(&((struct net_link *)(void *)ends[i])->failed) && !rail_deadline_passed(deadline)) drive(&p);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(atomic_load(&((struct net_link *)(void *)ends[i])->failed), RAIL_E_REMOTE);
        ends[i]->ops->close(ends[i]);
    }
    /* The accepter alone wants the next one, and waits for it. */
    ends[1] = open_end(&p, 1, 1, false);
    assert_int_equal(troubles(&p, 1, told), 0);
    ends[0] = open_end(&p, 0, 1, true);
    assert_int_equal(troubles(&p, 0, told), 0);
    assert_true(drive_until_ready(&p, ends[0]));
    for (int i = 0; i < 2; i++) ends[i]->ops->close(ends[i]);
    pair_end(&p);
}

/* ---- what may not be said ---- */

static void hellos_that_contradict_a_set_are_refused(void **state)
{
    (void)state;
    enum { SET = 2, SESSION = 5 };
#define ANEW (FRAME_FEATURE_REPAIR | FRAME_HELLO_ANEW)
#define SAYS(lane_, turn_, features_, set_, session_) \
    {.lane = (lane_), .turn = (turn_), .features = (features_), .n_lanes = (set_), .session = (session_)}
    static const struct { const char *what; struct frame_hello hello; bool let_in, then_closed; } said[] = {
        {"anew before there is a set", SAYS(1, 1, ANEW, SET, SESSION), false, false},
        {"its first lane", SAYS(0, 0, FRAME_FEATURE_REPAIR, SET, SESSION), true, false},
        {"anew without the feature", SAYS(1, 1, FRAME_HELLO_ANEW, SET, SESSION), false, false},
        {"anew in another set", SAYS(1, 1, ANEW, SET, SESSION + 1), false, false},
        {"anew in a set of another size", SAYS(1, 1, ANEW, SET + 1, SESSION), false, false},
        {"anew with the turn that is up", SAYS(0, 0, ANEW, SET, SESSION), false, false},
        {"a lane that never was up, anew", SAYS(1, 3, ANEW, SET, SESSION), true, true},
        {"a lane that was up, but not anew", SAYS(1, 0, FRAME_FEATURE_REPAIR, SET, SESSION), false, false},
        {"a turn that was before", SAYS(1, 3, ANEW, SET, SESSION), false, false},
        {"the next turn", SAYS(1, 4, ANEW, SET, SESSION), true, false},
    };
#undef ANEW
#undef SAYS
    struct net_config config = fixture_config(1, 1);
    struct pair p;
    pair_make(&p, &config);
    int fds[sizeof said / sizeof *said];
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        fds[i] = hello(&p, said[i].hello); /* process id 0: smaller than any */
        if ((fds[i] >= 0) != said[i].let_in) print_error("%s\n", said[i].what);
        assert_int_equal(fds[i] >= 0, said[i].let_in);
        if (!said[i].then_closed) continue;
        uint32_t up = sockets_up(p.net[1]);
        close(fds[i]);
        fds[i] = -1;
        struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(5));
        while (sockets_up(p.net[1]) == up && !rail_deadline_passed(deadline)) net_progress_on(p.net[1]);
        assert_int_equal(sockets_up(p.net[1]), up - 1);
    }
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        if (fds[i] >= 0) close(fds[i]);
    pair_end(&p);
}

/* By the receiver, of what it got: nothing has been sent yet on link 1. */
static void lies_about_what_came_close_the_connection(void **state)
{
    (void)state;
    static const uint8_t bits[16] = {0xff};
    static const struct { const char *what; struct frame frame; } lies[] = {
        {"which was not sent", {.type = FRAME_BITMAPS, .link = 1, .sequence = 1}},
        {"which was not sent", {.type = FRAME_BITMAPS, .link = 1, .sequence = 5, .payload_bytes = 1}},
        {"with what was not sent", {.type = FRAME_BITMAPS, .link = 1, .payload_bytes = 1}},
        {"which sends nothing", {.type = FRAME_BITMAPS, .link = 9}},
        {"bytes in a frame", {.type = FRAME_BITMAPS, .link = 1, .payload_bytes = 129}},
        {"LANE_DOWN", {.type = FRAME_LANE_DOWN, .sequence = 1}},
        {"LANE_DOWN", {.type = FRAME_LANE_DOWN, .slot_bytes = 65536}},
        {"which never was", {.type = FRAME_LANE_DOWN, .slot_bytes = 1}},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct net_config config = fixture_config(1, 1);
        struct pair p;
        pair_make(&p, &config);
        struct link *out = open_end(&p, 0, 0, true), *in = open_end(&p, 1, 0, false);
        assert_true(drive_until_ready(&p, out));
        pthread_mutex_lock(&p.net[1]->lock);
        struct lane *lane = &p.net[1]->up[0]->lane;
        const struct net_peer *peer = p.net[1]->up[0]->peer;
        struct frame f = lies[i].frame;
        static uint8_t payload[256];
        memcpy(payload, bits, sizeof bits);
        f.signature = frame_control(peer->says_number + peer->n_said, 0);
        lane_queue(lane, &f, payload, NULL);
        lane_write(lane);
        pthread_mutex_unlock(&p.net[1]->lock);
        const struct net_link *victim = (struct net_link *)(void *)out;
        struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
        while (!atomic_load(&victim->failed) && !rail_deadline_passed(deadline)) drive(&p);
        if (!strstr(victim->why, lies[i].what)) print_error("lie %d: \"%s\"\n", (int)i, victim->why);
        assert_non_null(strstr(victim->why, lies[i].what));
        out->ops->close(out);
        in->ops->close(in);
        pair_end(&p);
    }
}

/* The other end kept nothing of a lane on which it had no link. */
static void a_lane_that_dies_before_the_other_end_opened_a_link_is_made_anew(void **state)
{
    (void)state;
    struct net_config config = fixture_config(1, 1);
    struct pair p;
    pair_make(&p, &config);
    struct link *out = open_end(&p, 0, 0, true);
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    while ((sockets_up(p.net[0]) == 0 || sockets_up(p.net[1]) == 0) && !rail_deadline_passed(deadline)) drive(&p);
    break_one(p.net[1], SUSPICION, 0);
    while (sockets_up(p.net[0]) > 0 && !rail_deadline_passed(deadline)) drive(&p); /* it has noticed */
    struct link *in = open_end(&p, 1, 0, false);
    assert_true(drive_until_ready(&p, out));
    out->ops->close(out);
    in->ops->close(in);
    pair_end(&p);
}

int main(void)
{
    FIXTURE_BEGIN;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_when_lanes_break),
        cmocka_unit_test(a_lane_that_dies_before_the_other_end_opened_a_link_is_made_anew),
        cmocka_unit_test(nothing_is_lost_when_several_break_at_once),
        cmocka_unit_test(nothing_is_lost_when_the_only_lane_breaks),
        cmocka_unit_test(nothing_is_lost_when_both_of_two_break),
        cmocka_unit_test(nothing_is_lost_when_lanes_break_that_move),
        cmocka_unit_test(links_open_and_close_in_order_while_lanes_break),
        cmocka_unit_test(a_lane_comes_back_within_a_second),
        cmocka_unit_test(what_is_wrong_is_told_while_it_is),
        cmocka_unit_test(a_new_set_of_lanes_begins_without_troubles),
        cmocka_unit_test(hellos_that_contradict_a_set_are_refused),
        cmocka_unit_test(lies_about_what_came_close_the_connection),
        cmocka_unit_test(where_one_end_does_not_repair_a_broken_lane_fails_the_links),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
