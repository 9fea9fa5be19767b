/* Links that the far end opens and nobody here waits for: they come to be when they are opened, before or after the
 * acceptor is there, whichever of the two processes has to connect; slots are delivered in order by whoever drives; a
 * stranger to the communicator is not let in. */
#include "transport/net_fixture.h"

#include <cmocka.h>

enum { KEY = 91, CHANNEL = 7, MESSAGES = 300, SLOT_BYTES = 65536 };

struct target {
    struct net *net;
    struct net_acceptor acceptor;
    struct net_address peers[2];
    _Atomic uint64_t delivered;
    _Atomic int ended;
    const char *wrong;
    uint64_t refuse_at; /* this one is an error; UINT64_MAX: none */
};

static enum rail_result deliver(void *owner, uint32_t from, const void *slot, size_t bytes)
{
    struct target *t = owner;
    uint64_t k = t->delivered;
    if (from != 1) t->wrong = "a slot of a rank that is none";
    if (k == t->refuse_at) return rail_fail_quietly(RAIL_E_REMOTE, "message %llu is refused", (unsigned long long)k);
    if (bytes != message_bytes(1, k, SLOT_BYTES)) t->wrong = "a slot has the wrong size";
    else if (pattern_differs(slot, bytes, k)) t->wrong = "a slot has the wrong content";
    t->delivered = k + 1;
    return RAIL_OK;
}

static void ended(void *owner, uint32_t from)
{
    struct target *t = owner;
    t->ended += from == 1;
}

static void target_listen(struct target *t)
{
    t->acceptor = (struct net_acceptor){.comm_key = KEY, .to = 0, .channel = CHANNEL, .n_slots = 4,
                                        .slot_bytes = SLOT_BYTES,
                                        .peers = t->peers, .n_peers = 2, .deliver = deliver, .ended = ended,
                                        .owner = t};
    assert_int_equal(net_accept_on(t->net, &t->acceptor), RAIL_OK);
}

/* What the service threads do not do by themselves within `seconds` is not done. */
static bool comes(_Atomic uint64_t *counter, uint64_t goal)
{
    struct rail_deadline deadline = rail_deadline_in_ns(30 * RAIL_NS_PER_S);
    while (atomic_load(counter) < goal && !rail_deadline_passed(deadline)) usleep(500);
    return atomic_load(counter) >= goal;
}

static enum rail_result send_all(struct link *link, uint64_t first, uint64_t n)
{
    struct rail_deadline deadline = rail_deadline_in_ns(30 * RAIL_NS_PER_S);
    for (uint64_t k = first; k < first + n;) {
        void *slot;
        enum rail_result r = link->ops->acquire(link, &slot);
        if (r == RAIL_NOT_YET && !rail_deadline_passed(deadline)) {
            usleep(100);
            continue;
        }
        if (r != RAIL_OK) return r;
        size_t bytes = message_bytes(1, k, SLOT_BYTES);
        pattern_fill(slot, bytes, k);
        link->ops->publish(link, bytes, 0);
        k++;
    }
    return RAIL_OK;
}

/* Two networks, the target's the one with the smaller id (it connects, and has to be rung for) or the larger. */
static struct net *make_pair(struct target *t, bool target_connects)
{
    struct net_config config = fixture_config(2, 1);
    struct net *a = fixture_net(&config, KEY, 5), *b = fixture_net(&config, KEY, 5);
    bool a_connects = memcmp(a->process, b->process, NET_PROCESS_ID_BYTES) < 0;
    *t = (struct target){.net = a_connects == target_connects ? a : b, .refuse_at = UINT64_MAX};
    struct net *source = t->net == a ? b : a;
    t->peers[0] = fixture_address(t->net);
    t->peers[1] = fixture_address(source);
    return source;
}

static struct link *open_out(struct net *source, const struct target *t, uint32_t from)
{
    struct net_link_request q = {.comm_key = KEY, .from = from, .to = 0, .channel = CHANNEL, .sender = true,
                                 .to_acceptor = true, .n_slots = 4, .slot_bytes = SLOT_BYTES};
    return fixture_open(source, &t->peers[0], q);
}

static void end(struct target *t, struct net *source, struct link *link)
{
    if (link) link->ops->close(link);
    net_accept_end(&t->acceptor);
    net_comm_remove_on(source, KEY);
    net_comm_remove_on(t->net, KEY);
    net_destroy(source);
    net_destroy(t->net);
}

/* Nobody of the target's calls anything: its service thread does it all. */
static void through(bool target_connects, bool listens_late)
{
    struct target t;
    struct net *source = make_pair(&t, target_connects);
    if (!listens_late) target_listen(&t);
    struct link *link = open_out(source, &t, 1);
    assert_non_null(link);
    if (listens_late) {
        usleep(20000); /* OPEN may be there by now, or not */
        target_listen(&t);
    }
    assert_int_equal(send_all(link, 0, MESSAGES), RAIL_OK);
    assert_true(comes(&t.delivered, MESSAGES));
    assert_null(t.wrong);
    struct rail_deadline deadline = rail_deadline_in_ns(30 * RAIL_NS_PER_S);
    while (!link->ops->drained(link) && !rail_deadline_passed(deadline)) usleep(500);
    assert_true(link->ops->drained(link)); /* the last credits come without further traffic */
    assert_int_equal(t.ended, 0);
    link->ops->close(link);
    while (!t.ended && !rail_deadline_passed(deadline)) usleep(500);
    assert_int_equal(t.ended, 1);
    end(&t, source, NULL);
}

static void the_source_connects(void **state) { (void)state; through(false, false); }
static void the_target_is_rung_for(void **state) { (void)state; through(true, false); }
static void an_acceptor_may_come_late(void **state)
{
    (void)state;
    through(false, true);
    through(true, true);
}

static void a_refused_slot_ends_the_link(void **state)
{
    (void)state;
    struct target t;
    struct net *source = make_pair(&t, true);
    t.refuse_at = 10;
    target_listen(&t);
    struct link *link = open_out(source, &t, 1);
    (void)send_all(link, 0, 12);
    assert_true(comes(&t.delivered, 10));
    usleep(50000);
    assert_int_equal(t.delivered, 10); /* nothing after it */
    assert_int_equal(t.ended, 1);
    end(&t, source, link);
}

/* A process that says it is a rank which it is not gets no link. */
static void a_rank_opens_only_its_own_links(void **state)
{
    (void)state;
    struct target t;
    struct net *source = make_pair(&t, false);
    target_listen(&t);
    struct link *liar = open_out(source, &t, 0), *beyond = open_out(source, &t, 9), *link = open_out(source, &t, 1);
    void *slot;
    assert_int_equal(send_all(link, 0, 20), RAIL_OK);
    assert_true(comes(&t.delivered, 20));
    assert_int_equal(liar->ops->acquire(liar, &slot), RAIL_NOT_YET);
    assert_int_equal(beyond->ops->acquire(beyond, &slot), RAIL_NOT_YET);
    liar->ops->close(liar);
    beyond->ops->close(beyond);
    assert_null(t.wrong);
    end(&t, source, link);
}

/* Ended while slots are on their way: nothing is delivered afterwards. */
static void nothing_comes_after_the_end(void **state)
{
    (void)state;
    struct target t;
    struct net *source = make_pair(&t, true);
    target_listen(&t);
    struct link *link = open_out(source, &t, 1);
    assert_int_equal(send_all(link, 0, 50), RAIL_OK);
    net_accept_end(&t.acceptor);
    uint64_t then = t.delivered;
    usleep(30000);
    assert_int_equal(t.delivered, then);
    end(&t, source, link);
}

int main(void)
{
    FIXTURE_BEGIN;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_source_connects),
        cmocka_unit_test(the_target_is_rung_for),
        cmocka_unit_test(an_acceptor_may_come_late),
        cmocka_unit_test(a_refused_slot_ends_the_link),
        cmocka_unit_test(a_rank_opens_only_its_own_links),
        cmocka_unit_test(nothing_comes_after_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
