/* test_mend.c - lanes that die while they are in use: nothing is lost, doubled or out of order, whichever end notices,
 * down to the only lane and while others are being repaired; they come back; and who cannot be repaired is told so. */
#include "transport/net_flows.h"

#include <cmocka.h>
#include <sched.h>

enum { KEY = 78 };
#define SECONDS(n) ((n) * RAIL_NS_PER_S)

/* Index 0 connects. */
struct pair {
    struct net *net[2];
    struct net_address address[2];
};

static void pair_make(struct pair *p, const struct net_config *config)
{
    for (int i = 0; i < 2; i++) p->net[i] = fixture_net(config, KEY, 1);
    if (memcmp(p->net[0]->process, p->net[1]->process, NET_PROCESS_ID_BYTES) > 0) {
        struct net *first = p->net[0];
        p->net[0] = p->net[1];
        p->net[1] = first;
    }
    for (int i = 0; i < 2; i++) p->address[i] = fixture_address(p->net[i]);
}

static void pair_end(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        net_comm_remove_on(p->net[i], KEY);
        net_destroy(p->net[i]);
    }
}

static struct link *open_end(struct pair *p, int end, uint32_t channel, bool sender)
{
    struct net_link_request q = {.comm_key = KEY, .from = 0, .to = 1, .channel = channel, .sender = sender};
    return fixture_open(p->net[end], &p->address[!end], q);
}

static void drive(struct pair *p)
{
    for (int i = 0; i < 2; i++) net_progress_on(p->net[i]);
    sched_yield();
}

static bool is_ready(struct link *out)
{
    void *slot;
    return out->ops->acquire(out, &slot) == RAIL_OK;
}

static bool drive_until_ready(struct pair *p, struct link *out, uint64_t ns)
{
    struct rail_deadline deadline = rail_deadline_in_ns(ns);
    while (!is_ready(out) && !rail_deadline_passed(deadline)) drive(p);
    return is_ready(out);
}

static uint32_t sockets_up(const struct net *net)
{
    struct net *n = (struct net *)(uintptr_t)net;
    pthread_mutex_lock(&n->lock);
    uint32_t up = n->n_up;
    pthread_mutex_unlock(&n->lock);
    return up;
}

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
    assert_true(drive_until_ready(&p, keep[0], SECONDS(10)));
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
            bool ready = drive_until_ready(&p, out, SECONDS(20));
            if (!ready) print_error("round %u: %s\n", rounds, rail_last_error());
            assert_true(ready);
        }
        out->ops->close(out);
        in->ops->close(in);
    }
    atomic_store(&breaker.stop, true);
    pthread_join(breaking, NULL);
    assert_true(atomic_load(&breaker.broken) >= 20);
    assert_true(drive_until_ready(&p, keep[0], SECONDS(10)));
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
            assert_true(drive_until_ready(&p, out, SECONDS(10)));
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
        assert_true(drive_until_ready(&p, out, SECONDS(10)));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_when_lanes_break),
        cmocka_unit_test(nothing_is_lost_when_several_break_at_once),
        cmocka_unit_test(nothing_is_lost_when_the_only_lane_breaks),
        cmocka_unit_test(nothing_is_lost_when_both_of_two_break),
        cmocka_unit_test(nothing_is_lost_when_lanes_break_that_move),
        cmocka_unit_test(links_open_and_close_in_order_while_lanes_break),
        cmocka_unit_test(a_lane_comes_back_within_a_second),
        cmocka_unit_test(where_one_end_does_not_repair_a_broken_lane_fails_the_links),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
