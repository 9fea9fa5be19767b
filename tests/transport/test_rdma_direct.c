/* test_rdma_direct.c - chunks that devices write straight into the receiver's slots: they do where both ends agree, and none
 * lands in a slot that was given to others meanwhile, in memory that was given back, or on a lane's life. The devices are
 * fault_verbs.h's. */
#define FIXTURE_RDMA
#include "transport/net_run.h"

#ifdef RAIL_HAVE_VERBS

enum { ROUNDS = 60 };

static void run_begin_with(struct run *r, uint32_t n_rails, bool direct)
{
    struct net_config config = fixture_config(n_rails, 1);
    config.alone_timeout_ns = SECONDS(20);
    config.writes_direct = direct;
    fault_verbs_install();
    run_begin_as(r, &config);
}

static uint64_t connections(struct run *r, uint32_t rail)
{
    uint64_t n = 0;
    for (int k = 0; k < 2; k++) {
        pthread_mutex_lock(&r->pair.net[k]->lock);
        n += r->pair.net[k]->rails[rail].device_of.port->n_connections;
        pthread_mutex_unlock(&r->pair.net[k]->lock);
    }
    return n;
}

static struct net_link *of(struct link *link) { return (struct net_link *)(void *)link; }

/* Receivers here whose slots the far end may write into; those that lie in fresh memory. */
static int receivers(struct run *r, bool fresh)
{
    int n = 0;
    for (int k = 0; k < 2; k++) {
        pthread_mutex_lock(&r->pair.net[k]->lock);
        for (int i = 0; i < FLOWS; i++) {
            const struct net_link *l = of(r->flows[k][i].link);
            n += !l->sender && (fresh ? l->direct.fresh != NULL : l->direct.granted);
        }
        pthread_mutex_unlock(&r->pair.net[k]->lock);
    }
    return n;
}

/* ---- where it is done ---- */

static void slots_are_written_straight_where_both_ends_want_it(void **state)
{
    (void)state;
    for (int direct = 0; direct < 2; direct++) {
        struct run r;
        run_begin_with(&r, 2, direct);
        run_more(&r, ROUNDS, NULL);
        assert_int_equal(receivers(&r, false), direct ? FLOWS : 0);
        struct fault_verbs_figures before = fault_verbs_figures();
        run_more(&r, ROUNDS, NULL);
        struct fault_verbs_figures f = fault_verbs_figures();
        if (direct) assert_true(f.plain > before.plain);
        else assert_int_equal(f.plain, 0);
        assert_int_equal(f.not_ready, 0);
        run_end(&r);
        assert_int_equal(fault_verbs_figures().objects, 0);
    }
}

/* One link between two processes, driven by one thread. */
struct one_link { struct run r; struct link *out, *in; };

static void one_link_begin(struct one_link *o, bool receiver_wants)
{
    struct net_config config = fixture_config(1, 1);
    fault_verbs_install();
    memset(o, 0, sizeof *o);
    pair_make(&o->r.pair, &config);
    o->r.pair.net[1]->config.writes_direct = receiver_wants; /* before its first connection */
    o->out = open_end(&o->r.pair, 0, 0, true), o->in = open_end(&o->r.pair, 1, 0, false);
}

/* ROUNDS messages arrive, and none of them straight in a slot. */
static void one_link_carries_by_rings(struct one_link *o)
{
    struct flow flows[2] = {{.link = o->out, .sender = true}, {.link = o->in}};
    struct side sides[2] = {{.net = o->r.pair.net[0]}, {.net = o->r.pair.net[1]}};
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(20));
    while (flows[1].done < ROUNDS && !rail_deadline_passed(deadline)) {
        bool moved;
        for (int k = 0; k < 2; k++)
            if (flows[k].done < ROUNDS) assert_null(flow_step(&sides[k], &flows[k], &moved));
        drive(&o->r.pair);
    }
    assert_int_equal(flows[1].done, ROUNDS);
    assert_int_equal(fault_verbs_figures().plain, 0);
}

static void one_link_end(struct one_link *o)
{
    o->out->ops->close(o->out);
    o->in->ops->close(o->in);
    pair_end(&o->r.pair);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

static void an_end_that_does_not_want_it_is_written_to_through_its_rings(void **state)
{
    (void)state;
    struct one_link o;
    one_link_begin(&o, false);
    one_link_carries_by_rings(&o);
    one_link_end(&o);
}

/* The sender's memory is registered before: its device is no worse for what comes after. */
static void where_the_receiver_cannot_register_its_slots_rings_do(void **state)
{
    (void)state;
    struct one_link o;
    one_link_begin(&o, true);
    assert_true(drive_until_ready(&o.r.pair, o.out));
    fault_verbs_fail("reg_mr", 1, 1 << 30, ENOMEM);
    one_link_carries_by_rings(&o);
    assert_int_equal(connections(&o.r, 0), 2); /* the lane is the first */
    one_link_end(&o);
}

/* ---- lanes that die with something on the wire ---- */

static void put_on_the_wire(struct run *r)
{
    (void)r;
    usleep(5000);
    fault_verbs_delay(0, true);
}

static void let_it_land(struct run *r)
{
    (void)r;
    usleep(5000);
    fault_verbs_delay(0, false);
}

/* Queue pairs of both ends: modify_qp to the error state fails, destroy_qp does not come back. So all that is on the wire
 * lands when it is let go, long after others have brought it, and slots have come round many times. */
static void on_the_wire_and_hanging(struct run *r)
{
    fault_verbs_hang("destroy_qp");
    fault_verbs_fail("modify_qp", 0, 2, EIO);
    put_on_the_wire(r);
}

static void what_lands_late_never_lands_in_a_slot_that_was_given_away(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct run r;
        run_begin_with(&r, 2, true);
        assert_true(lanes_become(&r, 2, 0));
        run_more(&r, ROUNDS, NULL);
        assert_int_equal(receivers(&r, false), FLOWS);
        uint64_t before_ns = rail_now_ns();
        run_more(&r, 400, on_the_wire_and_hanging); /* goes on by the other rail, in fresh memory */
        print_message("went on for %d ms; %d receivers in fresh memory\n",
                      (int)((rail_now_ns() - before_ns) / RAIL_NS_PER_MS), receivers(&r, true));
        assert_true(receivers(&r, true) > 0);
        run_more(&r, 400, let_it_land);
        fault_verbs_hang(NULL);
        run_more(&r, ROUNDS, NULL);
        run_end(&r);
        assert_int_equal(fault_verbs_figures().objects, 0);
    }
}

static void a_lane_that_dies_costs_no_fresh_memory_where_its_queue_pair_is_gone_at_once(void **state)
{
    (void)state;
    struct run r;
    run_begin_with(&r, 2, true);
    assert_true(lanes_become(&r, 2, 0));
    run_more(&r, ROUNDS, NULL);
    run_more(&r, 400, put_on_the_wire);
    assert_int_equal(receivers(&r, true), 0);
    run_more(&r, 400, let_it_land);
    assert_true(lanes_become(&r, 2, 0));
    run_more(&r, ROUNDS, NULL);
    assert_int_equal(receivers(&r, false), FLOWS);
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

/* What is kept is never given back: a credit that waited for it would wait for ever. */
static void a_queue_pair_that_is_never_given_back_holds_nobody_up(void **state)
{
    (void)state;
    struct run r;
    run_begin_with(&r, 1, true);
    run_more(&r, ROUNDS, NULL);
    fault_verbs_fail("destroy_qp", 0, 2, EBUSY);
    fault_verbs_give_up(-1);
    run_more(&r, 200, NULL);
    assert_true(lanes_become(&r, 1, 0));
    run_end(&r);
    assert_true(fault_verbs_figures().objects > 0);
}

/* ---- memory that is given back ---- */

/* Also when the device is slow over what is under way: the lane is others', too. */
static void an_end_that_closes_keeps_its_slots_until_nobody_writes_there(void **state)
{
    (void)state;
    struct run r;
    run_begin_with(&r, 1, true);
    run_more(&r, ROUNDS, NULL);
    assert_int_equal(receivers(&r, false), FLOWS);
    int registered = fault_verbs_figures().registered;
    struct link *out = r.flows[0][0].link, *in = r.flows[1][0].link;
    fault_verbs_hold(0, true);
    for (void *slot; out->ops->acquire(out, &slot) == RAIL_OK;) {
        memset(slot, 7, SLOT);
        out->ops->publish(out, SLOT, 1);
        net_progress_on(r.pair.net[0]);
    }
    in->ops->close(in);
    for (int i = 0; i < 50; i++) drive(&r.pair), usleep(1000);
    assert_int_equal(fault_verbs_figures().registered, registered);
    fault_verbs_hold(0, false);
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    while (fault_verbs_figures().registered == registered && !rail_deadline_passed(deadline)) drive(&r.pair);
    assert_int_equal(fault_verbs_figures().registered, registered - 1);
    out->ops->close(out);
    deadline = rail_deadline_in_ns(SECONDS(10));
    while (fault_verbs_figures().registered > registered - 2 && !rail_deadline_passed(deadline)) drive(&r.pair);
    assert_int_equal(fault_verbs_figures().registered, registered - 2); /* the sender's slots */
    assert_int_equal(connections(&r, 0), 2); /* the lane is the first */
    for (int k = 0; k < 2; k++)
        for (int i = 1; i < FLOWS; i++) r.flows[k][i].link->ops->close(r.flows[k][i].link);
    pair_end(&r.pair);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

/* An idle end gives its pages back when those who may write there have answered, without being asked twice. */
static void slots_that_are_asked_back_are_given_back(void **state)
{
    (void)state;
    struct run r;
    run_begin_with(&r, 1, true);
    for (int i = 0; i < 3; i++) {
        run_more(&r, ROUNDS, NULL);
        assert_int_equal(receivers(&r, false), FLOWS);
        int registered = fault_verbs_figures().registered;
        for (int k = 0; k < 2; k++)
            for (int f = 0; f < FLOWS; f++)
                if (!r.flows[k][f].sender) r.flows[k][f].link->ops->trim(r.flows[k][f].link);
        struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
        while (fault_verbs_figures().registered > registered - FLOWS && !rail_deadline_passed(deadline)) drive(&r.pair);
        assert_int_equal(fault_verbs_figures().registered, registered - FLOWS);
        for (int k = 0; k < 2; k++)
            for (int f = 0; f < FLOWS; f++)
                if (!r.flows[k][f].sender) assert_int_equal(r.flows[k][f].link->ops->resident(r.flows[k][f].link), 0);
    }
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

/* RETURN goes by the first lane, writes that it waits for are on the second. False: the lane was found silent before that. */
static bool closed_with_writes_out(void)
{
    struct run r;
    run_begin_with(&r, 2, true);
    assert_true(lanes_become(&r, 2, 0));
    run_more(&r, ROUNDS, NULL);
    int registered = fault_verbs_figures().registered;
    struct link *out = r.flows[0][0].link, *in = r.flows[1][0].link;
    uint64_t before_ns = rail_now_ns();
    fault_verbs_hold(1, true);
    for (void *slot; out->ops->acquire(out, &slot) == RAIL_OK;) {
        memset(slot, 7, SLOT);
        out->ops->publish(out, SLOT, 1);
        net_progress_on(r.pair.net[0]);
    }
    in->ops->close(in);
    out->ops->close(out);
    for (int i = 0; i < 50; i++) drive(&r.pair), usleep(1000);
    bool in_time = rail_now_ns() - before_ns < 200 * RAIL_NS_PER_MS;
    if (in_time) assert_int_equal(fault_verbs_figures().registered, registered);
    fault_verbs_hold(1, false);
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    while (fault_verbs_figures().registered > registered - 4 && !rail_deadline_passed(deadline)) drive(&r.pair);
    if (in_time) {
        assert_int_equal(fault_verbs_figures().registered, registered - 4); /* of both ends, on both rails */
        assert_int_equal(connections(&r, 1), 2);
    }
    for (int k = 0; k < 2; k++)
        for (int i = 1; i < FLOWS; i++) r.flows[k][i].link->ops->close(r.flows[k][i].link);
    pair_end(&r.pair);
    assert_int_equal(fault_verbs_figures().objects, 0);
    return in_time;
}

static void both_ends_may_close_while_writes_are_out_on_a_slow_lane(void **state)
{
    enum { TRIES = 20 };
    int tries = 0;
    (void)state;
    while (!closed_with_writes_out()) assert_true(++tries < TRIES);
}

/* ---- what is said ---- */

static void grants_that_make_no_sense_break_a_rule(void **state)
{
    (void)state;
    for (int k = 0; k < 5; k++) {
        struct run r;
        run_begin_with(&r, 1, true);
        run_more(&r, ROUNDS, NULL);
        struct net *net = r.pair.net[1];
        struct net_link *sends = of(r.flows[1][1].link), *receives = of(r.flows[1][0].link);
        struct frame_grant grant = {.n_keys = k == 1 ? FRAME_GRANT_KEYS + 1 : k == 2 ? 0 : 1};
        struct frame frame = {.type = FRAME_GRANT, .link = receives->remote, .sequence = 77, .payload_bytes = sizeof grant};
        if (k == 3) frame = (struct frame){.type = FRAME_RETURN, .link = receives->remote}; /* to one that sends */
        if (k == 4) frame = (struct frame){.type = FRAME_WITHDRAW, .link = sends->remote}; /* to one that receives */
        grant = frame_grant_swap(grant);
        pthread_mutex_lock(&net->lock);
        assert_true(control_say(receives->peer, &frame, &grant)); /* a second one, where k is 0 */
        peer_activate(receives->peer);
        net_unlock(net);
        struct net_link *hears = of(r.flows[0][0].link);
        struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
        while (!atomic_load(&hears->failed) && !rail_deadline_passed(deadline)) drive(&r.pair);
        assert_int_equal(atomic_load(&hears->failed), RAIL_E_REMOTE);
        assert_non_null(strstr(hears->why, k == 3 ? "RETURN for link" : k == 4 ? "WITHDRAW for link" : "GRANT for link"));
        run_end(&r);
        assert_int_equal(fault_verbs_figures().objects, 0);
    }
}

static void what_is_written_straight_without_a_grant_breaks_a_rule(void **state)
{
    (void)state;
    struct run r;
    run_begin_with(&r, 1, true);
    run_more(&r, ROUNDS, NULL);
    struct net *net = r.pair.net[1];
    struct net_link *receives = of(r.flows[1][0].link);
    pthread_mutex_lock(&net->lock);
    receives->direct.granted = false; /* as if it had never said so */
    net_unlock(net);
    struct flow *out = &r.flows[0][0];
    struct side side = {.net = r.pair.net[0]};
    bool moved;
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    while (!atomic_load(&receives->failed) && !rail_deadline_passed(deadline)) {
        (void)flow_step(&side, out, &moved);
        drive(&r.pair);
    }
    assert_int_equal(atomic_load(&receives->failed), RAIL_E_REMOTE);
    assert_non_null(strstr(receives->why, "written straight"));
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_are_written_straight_where_both_ends_want_it),
        cmocka_unit_test(an_end_that_does_not_want_it_is_written_to_through_its_rings),
        cmocka_unit_test(where_the_receiver_cannot_register_its_slots_rings_do),
        cmocka_unit_test(a_lane_that_dies_costs_no_fresh_memory_where_its_queue_pair_is_gone_at_once),
        cmocka_unit_test(what_lands_late_never_lands_in_a_slot_that_was_given_away),
        cmocka_unit_test(an_end_that_closes_keeps_its_slots_until_nobody_writes_there),
        cmocka_unit_test(slots_that_are_asked_back_are_given_back),
        cmocka_unit_test(both_ends_may_close_while_writes_are_out_on_a_slow_lane),
        cmocka_unit_test(grants_that_make_no_sense_break_a_rule),
        cmocka_unit_test(what_is_written_straight_without_a_grant_breaks_a_rule),
        cmocka_unit_test(a_queue_pair_that_is_never_given_back_holds_nobody_up), /* last: it leaves something behind */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else
int main(void)
{
    FIXTURE_BEGIN;
}
#endif
