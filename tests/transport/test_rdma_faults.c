/* test_rdma_faults.c - RDMA devices that fail in every way: what was sent arrives once, by other lanes or over TCP; nothing
 * hangs; nothing is leaked. The devices are fault_verbs.h's. */
#define FIXTURE_RDMA
#include <signal.h>
#include <sys/wait.h>

#include "transport/net_run.h"

#ifdef RAIL_HAVE_VERBS

/* ---- what it costs ---- */

static void stream_64_mib(int8_t adaptive_routing)
{
    enum { BYTES = 64 << 20 };
    struct pair p;
    struct net_config config = fixture_config(1, 1);
    config.verbs.adaptive_routing = adaptive_routing;
    config.verbs.adaptive_bytes = 8192;
    fault_verbs_install();
    pair_make(&p, &config);
    struct link *out = open_end(&p, 0, 0, true), *in = open_end(&p, 1, 0, false);
    assert_true(drive_until_ready(&p, out));
    struct fault_verbs_figures before = fault_verbs_figures();
    uint64_t came = 0, sent = 0;
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(60));
    while (came < BYTES && !rail_deadline_passed(deadline)) {
        void *slot;
        const void *at;
        size_t bytes;
        uint64_t signature;
        if (sent < BYTES && out->ops->acquire(out, &slot) == RAIL_OK) out->ops->publish(out, SLOT, 1), sent += SLOT;
        if (in->ops->wait(in, &at, &bytes, &signature) == RAIL_OK) in->ops->release(in), came += bytes;
        for (int i = 0; i < 2; i++) net_progress_on(p.net[i]);
    }
    assert_int_equal(came, BYTES);
    struct fault_verbs_figures f = fault_verbs_figures();
    uint64_t requests = f.requests - before.requests, signalled = f.signalled - before.signalled;
    print_message("%.1f work requests per MiB, %.1f %% signalled, payloads %s\n", (double)requests / 64,
                  100.0 * (double)signalled / (double)requests, adaptive_routing ? "apart" : "with their headers");
    assert_true(requests <= 40 * 64);
    assert_true(4 * signalled <= requests); /* though a stall of 20 ms is asked after */
    assert_int_equal(f.not_ready, 0);
    out->ops->close(out);
    in->ops->close(in);
    pair_end(&p);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

static void a_stream_of_64_mib_takes_few_work_requests_and_never_meets_an_empty_queue(void **state)
{
    (void)state;
    stream_64_mib(0);
    stream_64_mib(1);
}

static void slots_given_back_are_registered_anew(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    run_begin(&r, 1);
    /* Until all slots are known to their devices: a receiver's are registered when full chunks have come for it. */
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    int before;
    do {
        before = fault_verbs_calls("reg_mr");
        run_more(&r, 40, NULL);
    } while (fault_verbs_calls("reg_mr") != before && !rail_deadline_passed(deadline));
    assert_int_equal(fault_verbs_calls("reg_mr"), before);
    int given_back = fault_verbs_calls("dereg_mr");
    /* The last frames are asked after in their time; what the far end may write into has to be asked back. */
    deadline = rail_deadline_in_ns(SECONDS(10));
    while (fault_verbs_calls("dereg_mr") < given_back + 2 * FLOWS && !rail_deadline_passed(deadline)) {
        usleep(5000);
        for (int k = 0; k < 2; k++)
            for (int i = 0; i < FLOWS; i++) r.flows[k][i].link->ops->trim(r.flows[k][i].link);
    }
    assert_int_equal(fault_verbs_calls("dereg_mr"), given_back + 2 * FLOWS);
    deadline = rail_deadline_in_ns(SECONDS(10));
    do run_more(&r, 40, NULL);
    while (fault_verbs_calls("reg_mr") < before + 2 * FLOWS && !rail_deadline_passed(deadline));
    assert_int_equal(fault_verbs_calls("reg_mr"), before + 2 * FLOWS);
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

/* ---- calls that fail while lanes are being made ---- */

static void whatever_fails_while_a_lane_is_made_links_work_over_tcp(void **state)
{
    static const char *const calls[] = {"get_device_list", "open_device", "query_port", "alloc_pd", "reg_mr",
                                        "create_comp_channel", "create_cq", "create_qp", "modify_qp", "post_recv",
                                        "req_notify_cq"};
    (void)state;
    int rdma = 0, tcp = 0;
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++) {
        for (int k = 0; k < 8; k++) {
            struct run r;
            fault_verbs_install();
            fault_verbs_fail(calls[c], k, 1, ENOMEM);
            run_begin(&r, 1);
            run_more(&r, 12, NULL);
            rdma += lanes(&r, 0, true) == 1;
            tcp += lanes(&r, 0, false) == 1;
            run_end(&r);
            if (fault_verbs_figures().objects != 0) print_error("%s, call %d fails: %d objects left\n", calls[c], k, fault_verbs_figures().objects);
            assert_int_equal(fault_verbs_figures().objects, 0);
        }
    }
    assert_true(rdma > 20 && tcp > 20); /* some failures came too late to matter, some mattered */
}

static void a_device_that_never_registers_memory_is_left_alone(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    fault_verbs_fail("reg_mr", 0, 1 << 30, ENOMEM);
    run_begin(&r, 2);
    run_more(&r, 40, NULL);
    assert_true(lanes_become(&r, 0, 2));
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

/* The rings are there, the slots are not: no lane can carry what is large, and none is tried by RDMA again. */
static void where_slots_cannot_be_registered_lanes_come_back_over_tcp(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    run_begin(&r, 2);
    assert_true(lanes_become(&r, 2, 0));
    fault_verbs_fail("reg_mr", 0, 1 << 30, ENOMEM);
    run_more(&r, 60, NULL);
    assert_true(lanes_become(&r, 0, 2));
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

static void ports_without_a_common_address_use_tcp(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    fault_verbs_family(0, 0);
    run_begin(&r, 2);
    run_more(&r, 40, NULL);
    assert_true(lanes_become(&r, 1, 1));
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

static void one_end_without_a_device_makes_tcp_lanes(void **state)
{
    (void)state;
    for (int without = 0; without < 2; without++) {
        struct run r;
        struct net_config with = fixture_config(1, 1);
        fault_verbs_install();
        memset(&r, 0, sizeof r);
        pair_make(&r.pair, &with);
        /* Before its first connection: as if it had none. */
        pthread_mutex_lock(&r.pair.net[without]->lock);
        r.pair.net[without]->rails[0].device_of.port->useless = true;
        pthread_mutex_unlock(&r.pair.net[without]->lock);
        struct link *out = open_end(&r.pair, 0, 0, true), *in = open_end(&r.pair, 1, 0, false);
        assert_true(drive_until_ready(&r.pair, out));
        assert_int_equal(lanes(&r, 0, true), 0);
        assert_int_equal(lanes(&r, 1, true), 0);
        out->ops->close(out);
        in->ops->close(in);
        pair_end(&r.pair);
        assert_int_equal(fault_verbs_figures().objects, 0);
    }
}

/* ---- while they work ---- */

static void fail_calls(struct run *r)
{
    static const char *const calls[] = {"post_send", "poll_cq", "post_recv", "req_notify_cq"};
    (void)r;
    for (int i = 0; i < 12; i++) {
        usleep(20000);
        fault_verbs_fail(calls[i % 4], 1 + i, 1, EIO);
    }
}

static void calls_that_fail_under_load_cost_a_lane_and_nothing_else(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    run_begin(&r, 3);
    run_more(&r, 2500, fail_calls);
    fault_verbs_fail(NULL, 0, 0, 0);
    run_more(&r, 40, NULL);
    assert_true(lanes_become(&r, 3, 0));
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

static void give_up(struct run *r)
{
    (void)r;
    usleep(30000);
    fault_verbs_give_up(0);
}

static void give_up_all(struct run *r)
{
    (void)r;
    usleep(30000);
    fault_verbs_give_up(-1);
}

static void queue_pairs_that_give_up_are_replaced(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    run_begin(&r, 2);
    run_more(&r, 1000, give_up);
    assert_true(lanes_become(&r, 2, 0));
    run_more(&r, 1000, give_up_all); /* down to the last lane */
    assert_true(lanes_become(&r, 2, 0));
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

static void hold(struct run *r)
{
    (void)r;
    usleep(20000);
    fault_verbs_hold(1, true);
}

static void a_rail_that_falls_silent_is_found_and_left(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    run_begin(&r, 2);
    assert_true(lanes_become(&r, 2, 0));
    uint64_t before_ns = rail_now_ns();
    run_more(&r, 1000, hold); /* it ends, though what was on that rail never arrives */
    uint64_t took_ns = rail_now_ns() - before_ns;
    print_message("done after %d ms\n", (int)(took_ns / RAIL_NS_PER_MS));
    fault_verbs_hold(1, false);
    assert_true(lanes_become(&r, 2, 0));
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

static void lose(struct run *r)
{
    (void)r;
    usleep(20000);
    fault_verbs_lose_completions(0, true);
}

static void completions_that_are_swallowed_cost_a_lane(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    run_begin(&r, 2);
    assert_true(lanes_become(&r, 2, 0));
    run_more(&r, 1500, lose);
    fault_verbs_lose_completions(0, false);
    run_more(&r, 200, NULL);
    assert_true(lanes_become(&r, 2, 0));
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

static void on_the_only_rail(struct run *r)
{
    usleep(20000);
    fault_verbs_lose_completions(-1, true);
    usleep(200000);
    fault_verbs_lose_completions(-1, false);
    (void)r;
}

static void completions_that_are_swallowed_on_the_only_lane_do_not_hang(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    run_begin(&r, 1);
    run_more(&r, 1500, on_the_only_rail);
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

/* ---- events ---- */

static void port_down(struct run *r)
{
    (void)r;
    usleep(20000);
    fault_verbs_port(0, false);
}

static void a_port_that_goes_down_takes_its_lanes_along_at_once_and_brings_them_back(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    run_begin(&r, 2);
    assert_true(lanes_become(&r, 2, 0));
    run_more(&r, 1000, port_down);
    /* Its Ethernet is up all the while here: meanwhile it is TCP's. */
    assert_int_equal(lanes(&r, 0, true), 1);
    fault_verbs_port(0, true);
    run_more(&r, 100, NULL);
    assert_true(lanes_become(&r, 2, 0));
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

static void device_fatal(struct run *r)
{
    (void)r;
    usleep(20000);
    fault_verbs_event(0, IBV_EVENT_DEVICE_FATAL);
}

static void a_device_that_fails_for_good_is_replaced_by_tcp(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    run_begin(&r, 2);
    run_more(&r, 1000, device_fatal);
    assert_true(lanes_become(&r, 1, 1));
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

static void other_events(struct run *r)
{
    static const enum ibv_event_type types[] = {IBV_EVENT_GID_CHANGE, IBV_EVENT_LID_CHANGE, IBV_EVENT_QP_FATAL,
                                                IBV_EVENT_CLIENT_REREGISTER, IBV_EVENT_SM_CHANGE, IBV_EVENT_QP_FATAL};
    (void)r;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        usleep(20000);
        fault_verbs_event((int)(i / 3), types[i]);
    }
}

static void events_of_queue_pairs_cost_a_lane_and_others_nothing(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    run_begin(&r, 2);
    run_more(&r, 2000, other_events);
    assert_true(lanes_become(&r, 2, 0));
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

/* ---- strangers' words ---- */

static void records_of_random_bytes_are_refused_in_words(void **state)
{
    (void)state;
    struct verbs_settings settings = {.gid = {.index = -1, .roce_version = 2}, .timeout = 14, .retries = 7};
    struct verbs_port *port;
    struct verbs_record good, record;
    char why[VERBS_WHY_BYTES];
    uint8_t rail[16] = {[10] = 0xff, 0xff, 127, 0, 1, 1};
    int accepted = 0;
    fault_verbs_install();
    assert_int_equal(verbs_port_open("fault0", 1, &settings, rail, 0, &port, why), RAIL_OK);
    for (uint64_t k = 0; k < 4000; k++) {
        struct verbs_connection *c = verbs_connection_begin(port, &good, why);
        assert_non_null(c);
        record = good;
        uint8_t *bytes = (uint8_t *)&record;
        for (uint64_t i = 0; i < 1 + k % 5; i++) bytes[mix(k * 11 + i) % sizeof record] = (uint8_t)mix(k * 13 + i);
        if (k % 7 == 0)
            for (size_t i = 0; i < sizeof record; i++) bytes[i] = (uint8_t)mix(k + i * 77);
        why[0] = '\0';
        bool taken = verbs_connection_finish(c, &record, k % 2 == 0, 0x4001, why);
        if (!taken) assert_true(why[0] != '\0');
        accepted += taken;
        verbs_connection_free(c);
    }
    assert_true(accepted > 0); /* some changes are none that could be noticed */
    verbs_port_close(port);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

/* ---- devices that hang while they let go ---- */

static void hang_and_give_up(struct run *r)
{
    (void)r;
    usleep(20000);
    fault_verbs_hang("destroy_qp");
    fault_verbs_give_up(0);
}

static void a_device_that_hangs_while_a_lane_is_closed_holds_nobody_up(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    run_begin(&r, 2);
    assert_true(lanes_become(&r, 2, 0));
    run_more(&r, 1000, hang_and_give_up); /* it ends, though destroy_qp has not returned */
    /* Who hangs with one queue pair is not asked for another. */
    usleep(1500000);
    fault_verbs_give_up(0);
    run_more(&r, 200, NULL);
    assert_true(lanes_become(&r, 1, 1));
    fault_verbs_hang(NULL);
    run_more(&r, 40, NULL);
    assert_true(lanes_become(&r, 2, 0));
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

static void a_device_that_hangs_with_memory_holds_nobody_up(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    run_begin(&r, 1);
    run_more(&r, 40, NULL);
    usleep(100000); /* the last frames are asked after */
    fault_verbs_hang("dereg_mr");
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < FLOWS; i++) r.flows[k][i].link->ops->trim(r.flows[k][i].link);
    run_more(&r, 40, NULL);
    fault_verbs_hang(NULL);
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

static void hold_first(struct run *r)
{
    (void)r;
    usleep(20000);
    fault_verbs_hold(0, true);
}

static void payloads_are_given_back_after_their_queue_pair_and_not_before(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    run_begin(&r, 2);
    assert_true(lanes_become(&r, 2, 0));
    fault_verbs_hang("destroy_qp");
    run_more(&r, 1000, hold_first); /* the lane is found silent, and closed, with payloads out on it */
    /* Links are over, and memory of theirs is still a queue pair's. */
    int given_back = fault_verbs_calls("dereg_mr");
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < FLOWS; i++) r.flows[k][i].link->ops->close(r.flows[k][i].link);
    usleep(100000);
    given_back = fault_verbs_calls("dereg_mr") - given_back;
    print_message("%d of %d registrations given back meanwhile\n", given_back, 2 * FLOWS);
    assert_true(given_back < 2 * FLOWS); /* of each sender one per rail */
    fault_verbs_hold(0, false);
    fault_verbs_hang(NULL);
    pair_end(&r.pair);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

/* What hangs is the parent's business. */
static void a_child_forked_meanwhile_is_free_of_it(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    run_begin(&r, 2);
    assert_true(lanes_become(&r, 2, 0));
    run_more(&r, 400, hang_and_give_up);
    pid_t child = fork();
    if (child == 0) {
        void *slot;
        struct link *link = r.flows[0][0].link;
        bool refused = link->ops->acquire(link, &slot) == RAIL_E_USAGE;
        link->ops->close(link);
        _exit(refused ? 0 : 1);
    }
    int status = -1;
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    while (waitpid(child, &status, WNOHANG) == 0 && !rail_deadline_passed(deadline)) usleep(1000);
    if (status == -1) kill(child, SIGKILL);
    assert_int_equal(status, 0);
    run_more(&r, 400, NULL);
    fault_verbs_hang(NULL);
    run_more(&r, 40, NULL);
    run_end(&r);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

/* Closing for good waits, but not for ever. */
static void a_device_that_hangs_for_good_is_left_behind(void **state)
{
    (void)state;
    struct run r;
    run_begin(&r, 2); /* the devices are those of the case before */
    run_more(&r, 40, NULL);
    fault_verbs_hang("modify_qp");
    fault_verbs_give_up(0);
    uint64_t before_ns = rail_now_ns();
    run_end(&r);
    uint64_t took_ns = rail_now_ns() - before_ns;
    print_message("closed after %d ms\n", (int)(took_ns / RAIL_NS_PER_MS));
    assert_true(took_ns < SECONDS(14)); /* 5 s for each of the two processes, one after the other */
    fault_verbs_hang(NULL);
}

static void a_queue_pair_that_is_not_given_back_keeps_its_memory(void **state)
{
    (void)state;
    struct run r;
    fault_verbs_install();
    run_begin(&r, 1);
    run_more(&r, 40, NULL);
    fault_verbs_fail("destroy_qp", 0, 1, EBUSY);
    fault_verbs_give_up(-1);
    run_more(&r, 40, NULL); /* the lane comes back by another one */
    assert_true(lanes_become(&r, 1, 0));
    run_end(&r);
    assert_true(fault_verbs_figures().objects > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_of_64_mib_takes_few_work_requests_and_never_meets_an_empty_queue),
        cmocka_unit_test(slots_given_back_are_registered_anew),
        cmocka_unit_test(whatever_fails_while_a_lane_is_made_links_work_over_tcp),
        cmocka_unit_test(a_device_that_never_registers_memory_is_left_alone),
        cmocka_unit_test(where_slots_cannot_be_registered_lanes_come_back_over_tcp),
        cmocka_unit_test(ports_without_a_common_address_use_tcp),
        cmocka_unit_test(one_end_without_a_device_makes_tcp_lanes),
        cmocka_unit_test(calls_that_fail_under_load_cost_a_lane_and_nothing_else),
        cmocka_unit_test(queue_pairs_that_give_up_are_replaced),
        cmocka_unit_test(a_rail_that_falls_silent_is_found_and_left),
        cmocka_unit_test(completions_that_are_swallowed_cost_a_lane),
        cmocka_unit_test(completions_that_are_swallowed_on_the_only_lane_do_not_hang),
        cmocka_unit_test(a_port_that_goes_down_takes_its_lanes_along_at_once_and_brings_them_back),
        cmocka_unit_test(a_device_that_fails_for_good_is_replaced_by_tcp),
        cmocka_unit_test(events_of_queue_pairs_cost_a_lane_and_others_nothing),
        cmocka_unit_test(records_of_random_bytes_are_refused_in_words),
        cmocka_unit_test(a_device_that_hangs_while_a_lane_is_closed_holds_nobody_up),
        cmocka_unit_test(a_device_that_hangs_with_memory_holds_nobody_up),
        cmocka_unit_test(payloads_are_given_back_after_their_queue_pair_and_not_before),
        cmocka_unit_test(a_child_forked_meanwhile_is_free_of_it),
        cmocka_unit_test(a_queue_pair_that_is_not_given_back_keeps_its_memory), /* last: they leave something behind */
        cmocka_unit_test(a_device_that_hangs_for_good_is_left_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else
int main(void)
{
    FIXTURE_BEGIN;
}
#endif
