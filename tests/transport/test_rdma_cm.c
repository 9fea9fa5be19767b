/* test_rdma_cm.c - queue pairs connected by librdmacm: where an end asks for it or the fabric needs it; whatever fails on
 * the way, what was sent arrives, nothing hangs and nothing is leaked. Devices and manager are fault_verbs.h's and
 * fault_rdmacm.h's. */
#define FIXTURE_RDMA
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "support/fault_rdmacm.h"
#include "transport/net_flows.h"
#include "transport/net_pair.h"

#ifdef RAIL_HAVE_RDMACM

enum { RAILS = 2, MESSAGES = 40 };

static void install(void)
{
    fault_verbs_install();
    fault_rdmacm_install();
}

static void assert_nothing_left(void)
{
    if (fault_verbs_figures().objects || fault_rdmacm_objects())
        print_error("left: %d of devices, %d of the manager\n", fault_verbs_figures().objects, fault_rdmacm_objects());
    assert_int_equal(fault_verbs_figures().objects, 0);
    assert_int_equal(fault_rdmacm_objects(), 0);
}

/* ---- two ports, joined step by step ---- */

struct both {
    struct verbs_port *port[2]; /* accepter, connecter */
    struct verbs_connection *connection[2];
    struct verbs_record offer, answer;
    char why[2][VERBS_WHY_BYTES];
};

static const struct sockaddr_in rail[2] = {{.sin_family = AF_INET}, {.sin_family = AF_INET}};

static struct sockaddr_in address_of(int end)
{
    struct sockaddr_in in = rail[end];
    in.sin_addr.s_addr = htonl(0x7f000001u + ((uint32_t)(end + 1) << 8));
    return in;
}

/* As the handshake does it: a port that is to be given back with apart(). */
static void ports_open(struct both *b)
{
    memset(b, 0, sizeof *b);
    for (int k = 0; k < 2; k++) {
        struct verbs_settings settings = fixture_config(1, 1).verbs;
        uint8_t address[16] = {[10] = 0xff, 0xff, 127, 0, (uint8_t)(k + 1), 1};
        char name[16];
        settings.cm = true;
        snprintf(name, sizeof name, "fault%d", k);
        assert_int_equal(verbs_port_open(name, 1, &settings, address, 0, &b->port[k], b->why[k]), RAIL_OK);
        assert_true(b->port[k]->manager_fd >= 0);
        b->connection[k] = verbs_connection_begin(b->port[k], k ? &b->answer : &b->offer, b->why[k]);
        assert_non_null(b->connection[k]);
    }
}

static bool offer(struct both *b)
{
    struct sockaddr_in here = address_of(0);
    return verbs_manager_offer(b->connection[0], (struct sockaddr *)&here, rail_deadline_in_ns(SECONDS(5)), &b->offer, b->why[0]);
}

static bool connect_it(struct both *b)
{
    struct sockaddr_in here = address_of(1), there = address_of(0);
    return verbs_manager_connect(b->connection[1], (struct sockaddr *)&here, (struct sockaddr *)&there, &b->offer, 0x4001,
                                 rail_deadline_in_ns(SECONDS(5)), &b->answer, b->why[1]);
}

static bool accept_it(struct both *b) { return verbs_manager_accept(b->connection[0], &b->answer, 0x4001, b->why[0]); }

static enum rail_result step(struct both *b, int end)
{
    assert_int_equal(verbs_port_manage(b->port[end], b->why[end]), VERBS_NOTHING);
    return verbs_manager_step(b->connection[end], b->why[end]);
}

static void apart(struct both *b)
{
    for (int k = 0; k < 2; k++) verbs_connection_free(b->connection[k]);
    for (int k = 0; k < 2; k++) verbs_port_close(b->port[k]);
    assert_nothing_left();
}

/* Until both know how it ends. */
static void settle(struct both *b, enum rail_result out[2])
{
    for (int i = 0; i < 12; i++)
        for (int k = 0; k < 2; k++) out[k] = step(b, k);
}

static void two_ends_come_together_whichever_way_is_faster(void **state)
{
    (void)state;
    for (int record_first = 0; record_first < 2; record_first++) {
        struct both b;
        enum rail_result r[2];
        install();
        ports_open(&b);
        assert_true(offer(&b));
        assert_true(b.offer.cm_port != 0);
        assert_true(connect_it(&b));
        assert_true(b.answer.by_cm);
        if (record_first) assert_true(accept_it(&b));
        for (int i = 0; i < 4 && !record_first; i++)
            for (int k = 0; k < 2; k++) assert_int_equal(step(&b, k), RAIL_NOT_YET);
        if (!record_first) assert_true(accept_it(&b)); /* the request has come before */
        settle(&b, r);
        assert_int_equal(r[0], RAIL_OK);
        assert_int_equal(r[1], RAIL_OK);
        struct fault_verbs_qp qps[2];
        assert_int_equal(fault_verbs_qps(qps, 2), 2);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(qps[k].peer, qps[1 - k].number);
            assert_int_equal(qps[k].flow_label, 0x4001); /* the planned route, not the manager's */
            assert_non_null(strstr(verbs_connection_text(b.connection[k]), "by librdmacm, flow label 0x4001"));
        }
        apart(&b);
    }
}

/* Every call: the end that makes it says so, the other hears that it was given up. */
static void a_call_that_fails_is_named(void **state)
{
    static const struct { const char *call; int after; int end; const char *says; } cases[] = {
        {"create_id", 0, 0, "rdma_create_id"},         {"bind_addr", 0, 0, "rdma_bind_addr"},
        {"listen", 0, 0, "rdma_listen"},               {"create_id", 1, 1, "rdma_create_id"},
        {"resolve_addr", 0, 1, "rdma_resolve_addr"},   {"resolve_route", 0, 1, "rdma_resolve_route"},
        {"connect", 0, 1, "rdma_connect"},             {"init_qp_attr", 0, 0, "rdma_init_qp_attr for RTR"},
        {"init_qp_attr", 1, 0, "rdma_init_qp_attr for RTS"}, {"accept", 0, 0, "rdma_accept"},
        {"init_qp_attr", 2, 1, "rdma_init_qp_attr for RTR"}, {"init_qp_attr", 3, 1, "rdma_init_qp_attr for RTS"},
        {"establish", 0, 1, "rdma_establish"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct both b;
        enum rail_result r[2] = {RAIL_NOT_YET, RAIL_NOT_YET};
        install();
        ports_open(&b);
        fault_rdmacm_fail(cases[i].call, cases[i].after, 1, EPERM);
        if (offer(&b) && connect_it(&b) && accept_it(&b)) {
            settle(&b, r);
            assert_true(r[cases[i].end] == RAIL_E_SYSTEM && r[1 - cases[i].end] != RAIL_OK);
        }
        if (!strstr(b.why[cases[i].end], cases[i].says)) print_error("%s: \"%s\"\n", cases[i].says, b.why[cases[i].end]);
        assert_non_null(strstr(b.why[cases[i].end], cases[i].says));
        assert_non_null(strstr(b.why[cases[i].end], strerror(EPERM)));
        apart(&b);
    }
}

static void an_event_of_trouble_is_told_in_words(void **state)
{
    static const struct { enum rdma_cm_event_type due, comes; int status, end; const char *says; } cases[] = {
        {RDMA_CM_EVENT_ADDR_RESOLVED, RDMA_CM_EVENT_ADDR_ERROR, -ETIMEDOUT, 1, "address cannot be resolved (Connection timed out)"},
        {RDMA_CM_EVENT_ROUTE_RESOLVED, RDMA_CM_EVENT_ROUTE_ERROR, -EHOSTUNREACH, 1, "no route to them"},
        {RDMA_CM_EVENT_CONNECT_RESPONSE, RDMA_CM_EVENT_UNREACHABLE, -ETIMEDOUT, 1, "do not answer"},
        {RDMA_CM_EVENT_CONNECT_RESPONSE, RDMA_CM_EVENT_REJECTED, 28, 1, "refuse (status 28)"},
        {RDMA_CM_EVENT_CONNECT_RESPONSE, RDMA_CM_EVENT_CONNECT_ERROR, -EINVAL, 1, "connecting fails"},
        {RDMA_CM_EVENT_ESTABLISHED, RDMA_CM_EVENT_CONNECT_ERROR, -EINVAL, 0, "connecting fails"},
        {RDMA_CM_EVENT_ESTABLISHED, RDMA_CM_EVENT_DISCONNECTED, 0, 0, "given it up"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct both b;
        enum rail_result r[2];
        install();
        ports_open(&b);
        fault_rdmacm_instead(cases[i].due, cases[i].comes, cases[i].status, 1);
        assert_true(offer(&b) && connect_it(&b) && accept_it(&b));
        settle(&b, r);
        assert_int_equal(r[cases[i].end], RAIL_E_SYSTEM);
        if (!strstr(b.why[cases[i].end], cases[i].says)) print_error("%s: \"%s\"\n", cases[i].says, b.why[cases[i].end]);
        assert_non_null(strstr(b.why[cases[i].end], cases[i].says));
        apart(&b);
    }
}

static void who_shows_another_token_is_refused_at_either_end(void **state)
{
    static const enum rdma_cm_event_type forged[] = {RDMA_CM_EVENT_CONNECT_REQUEST, RDMA_CM_EVENT_CONNECT_RESPONSE};
    (void)state;
    for (int end = 0; end < 2; end++) {
        struct both b;
        enum rail_result r[2];
        install();
        ports_open(&b);
        fault_rdmacm_forge(forged[end], 1);
        assert_true(offer(&b) && connect_it(&b) && accept_it(&b));
        settle(&b, r);
        assert_int_equal(r[1], RAIL_E_SYSTEM);
        assert_int_equal(r[0], RAIL_NOT_YET); /* of a stranger it knows nothing, and he may be none */
        assert_non_null(strstr(b.why[1], end ? "does not show our token" : "refuse"));
        apart(&b);
    }
}

static void strangers_change_nothing(void **state)
{
    (void)state;
    struct both b;
    enum rail_result r[2];
    uint8_t shown[56] = {0};
    install();
    ports_open(&b);
    assert_true(offer(&b));
    for (uint8_t k = 0; k < 40; k++) {
        for (size_t i = 0; i < sizeof shown; i++) shown[i] = (uint8_t)mix((uint64_t)k * 100 + i);
        assert_int_equal(fault_rdmacm_stranger(0, shown, k), 1);
        assert_int_equal(step(&b, 0), RAIL_NOT_YET);
    }
    assert_true(connect_it(&b) && accept_it(&b));
    settle(&b, r);
    assert_true(r[0] == RAIL_OK && r[1] == RAIL_OK);
    /* A token is good for one connection. */
    assert_int_equal(fault_rdmacm_stranger(0, b.offer.token, sizeof b.offer.token), 1);
    settle(&b, r);
    assert_true(r[0] == RAIL_OK && r[1] == RAIL_OK);
    assert_int_equal(fault_rdmacm_calls("reject"), 41);
    apart(&b);
}

/* The token is known to whoever reads the lane's socket; the queue pair must be the record's all the same. */
static void another_queue_pair_than_the_records_is_refused(void **state)
{
    (void)state;
    for (int end = 0; end < 2; end++) {
        struct both b;
        enum rail_result r[2];
        install();
        ports_open(&b);
        assert_true(offer(&b));
        if (end == 1) b.offer.queue_pair ^= 1;
        assert_true(connect_it(&b));
        if (end == 0) b.answer.queue_pair ^= 1;
        assert_true(accept_it(&b));
        settle(&b, r);
        assert_int_equal(r[end], RAIL_E_SYSTEM);
        assert_non_null(strstr(b.why[end], "another queue pair"));
        apart(&b);
    }
}

static void what_was_not_offered_is_not_accepted(void **state)
{
    (void)state;
    struct both b;
    install();
    ports_open(&b);
    b.answer.by_cm = 1;
    assert_false(accept_it(&b));
    assert_non_null(strstr(b.why[0], "not offered"));
    apart(&b);
}

static void records_of_random_bytes_are_refused_in_words(void **state)
{
    (void)state;
    struct both b;
    struct verbs_record good[2];
    install();
    ports_open(&b);
    assert_true(offer(&b));
    good[0] = b.offer, good[1] = b.answer;
    for (uint64_t k = 0; k < 600; k++) {
        for (int end = 0; end < 2; end++) {
            struct verbs_record *record = end ? &b.offer : &b.answer;
            uint8_t *bytes = (uint8_t *)record;
            *record = good[!end];
            for (uint64_t i = 0; i < 1 + k % 5; i++) bytes[mix(k * 11 + i) % sizeof *record] = (uint8_t)mix(k * 13 + i);
            b.why[end][0] = '\0';
            struct verbs_record mine;
            struct verbs_connection *c = verbs_connection_begin(b.port[end], &mine, b.why[end]);
            struct verbs_connection *kept = b.connection[end];
            assert_non_null(c);
            b.connection[end] = c;
            struct sockaddr_in here = address_of(0);
            if (end == 0)
                assert_true(verbs_manager_offer(c, (struct sockaddr *)&here, rail_deadline_in_ns(1), &mine, b.why[0]));
            bool taken = end ? connect_it(&b) : accept_it(&b);
            if (!taken) assert_true(b.why[end][0] != '\0');
            (void)step(&b, end);
            verbs_connection_free(c);
            b.connection[end] = kept;
        }
    }
    apart(&b);
}

static void iwarp_joins_iwarp_and_by_the_manager_alone(void **state)
{
    (void)state;
    struct both b;
    install();
    fault_verbs_iwarp(0, true);
    ports_open(&b);
    assert_true(b.port[0]->is_iwarp && !b.port[1]->is_iwarp);
    assert_true(offer(&b));
    assert_false(connect_it(&b));
    assert_non_null(strstr(b.why[1], "iWARP"));
    assert_false(verbs_connection_finish(b.connection[0], &b.answer, false, 0x4001, b.why[0]));
    assert_non_null(strstr(b.why[0], "iWARP"));
    b.answer.is_iwarp = 1;
    assert_false(verbs_connection_finish(b.connection[0], &b.answer, false, 0x4001, b.why[0]));
    assert_non_null(strstr(b.why[0], "librdmacm alone"));
    apart(&b);
}

static void an_iwarp_port_without_the_manager_does_not_open(void **state)
{
    (void)state;
    struct verbs_settings settings = fixture_config(1, 1).verbs;
    struct verbs_port *port = NULL;
    char why[VERBS_WHY_BYTES] = "";
    install();
    fault_verbs_iwarp(0, true);
    fault_rdmacm_fail("create_event_channel", 0, 1, ENODEV);
    assert_int_equal(verbs_port_open("fault0", 1, &settings, (uint8_t[16]){0}, 0, &port, why), RAIL_E_SYSTEM);
    assert_non_null(strstr(why, "rdma_ucm"));
    assert_nothing_left();
}

/* ---- whole lanes ---- */

/* What each of two processes wants and has. */
/* Connecter, accepter; how long both wait for a lane, 0: as the fixture has it. */
struct ends { bool wants[2], without[2]; uint64_t gives_up_ns; };
struct outcome { uint32_t rdma, managed; };

struct run {
    struct pair pair;
    struct link *out, *in;
    struct flow flows[2];
    uint64_t messages;
};

static void run_begin(struct run *r, const struct ends *ends)
{
    struct net_config config = fixture_config(RAILS, 1);
    config.alone_timeout_ns = SECONDS(20);
    if (ends->gives_up_ns) config.alone_timeout_ns = config.connect_timeout_ns = ends->gives_up_ns;
    memset(r, 0, sizeof *r);
    for (int i = 0; i < 2; i++) r->pair.net[i] = fixture_net(&config, KEY, 1);
    if (memcmp(r->pair.net[0]->process, r->pair.net[1]->process, NET_PROCESS_ID_BYTES) > 0) {
        struct net *first = r->pair.net[0];
        r->pair.net[0] = r->pair.net[1];
        r->pair.net[1] = first;
    }
    for (int i = 0; i < 2; i++) {
        r->pair.net[i]->config.verbs.cm = ends->wants[i] && !ends->without[i];
        r->pair.address[i] = fixture_address(r->pair.net[i]);
        for (int k = 0; k < RAILS && ends->without[i]; k++) { /* as if there were no such library */
            struct verbs_port *port = r->pair.net[i]->rails[k].device_of.port;
            port->settings.cm = ends->wants[i];
            snprintf(port->manager_why, sizeof port->manager_why, "librdmacm.so.1: not here");
        }
    }
    r->out = open_end(&r->pair, 0, 0, true);
    r->in = open_end(&r->pair, 1, 0, false);
    r->flows[0] = (struct flow){.link = r->out, .sender = true};
    r->flows[1] = (struct flow){.link = r->in};
}

static void run_more(struct run *r, uint64_t messages)
{
    struct side sides[2] = {{.net = r->pair.net[0]}, {.net = r->pair.net[1]}};
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(60));
    r->messages += messages;
    while (!(r->flows[1].done == r->messages && sockets_up(r->pair.net[0]) == RAILS && sockets_up(r->pair.net[1]) == RAILS) &&
           !rail_deadline_passed(deadline)) {
        for (int k = 0; k < 2; k++) {
            bool moved = false;
            const char *wrong = r->flows[k].done < r->messages ? flow_step(&sides[k], &r->flows[k], &moved) : NULL;
            if (wrong) print_error("%s: %s\n", wrong, rail_last_error());
            assert_null(wrong);
        }
        drive(&r->pair);
    }
    assert_int_equal(r->flows[1].done, r->messages);
}

static struct outcome look(struct run *r)
{
    struct outcome o = {0};
    struct net *net = r->pair.net[0];
    pthread_mutex_lock(&net->lock);
    for (uint32_t i = 0; i < net->n_up; i++) {
        if (net->up[i]->lane.ops != &lane_verbs_ops) continue;
        o.rdma++;
        o.managed += strstr(verbs_connection_text(net->up[i]->lane.wire), "librdmacm") != NULL;
    }
    pthread_mutex_unlock(&net->lock);
    return o;
}

static void run_end(struct run *r)
{
    r->out->ops->close(r->out);
    r->in->ops->close(r->in);
    pair_end(&r->pair);
    assert_nothing_left();
}

static struct outcome carry(const struct ends *ends)
{
    struct run r;
    run_begin(&r, ends);
    run_more(&r, MESSAGES);
    struct outcome o = look(&r);
    run_end(&r);
    return o;
}

static const struct ends both_want = {.wants = {true, true}};

/* Two processes that want the manager, and have come together by it. */
static void get_going(struct run *r)
{
    install();
    run_begin(r, &both_want);
    run_more(r, MESSAGES);
}

/* Until so many lanes are the manager's, and somebody has connected again since `connected` calls (-1: or not). */
static void assert_managed_soon(struct run *r, uint32_t wanted, int connected)
{
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(20));
    while ((fault_rdmacm_calls("connect") == connected || look(r).managed != wanted) && !rail_deadline_passed(deadline))
        run_more(r, 1);
    assert_int_equal(look(r).managed, wanted);
}

static void lanes_are_made_by_the_manager_where_one_end_wants_it(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        struct ends ends = {.wants = {k & 1, k & 2}};
        install();
        struct outcome o = carry(&ends);
        assert_int_equal(o.rdma, RAILS);
        assert_int_equal(o.managed, k ? RAILS : 0);
        assert_int_equal(fault_rdmacm_calls(NULL) > 0, k != 0); /* nobody asks: it is left alone */
    }
}

static void where_one_end_cannot_lanes_are_made_by_hand(void **state)
{
    (void)state;
    for (int k = 0; k < 16; k++) {
        struct ends ends = {.wants = {k & 1, k & 2}, .without = {k & 4, k & 8}};
        if (!(k & 3) || !(k & 12)) continue;
        install();
        struct outcome o = carry(&ends);
        assert_int_equal(o.rdma, RAILS);
        assert_int_equal(o.managed, 0);
    }
}

static void iwarp_is_connected_by_the_manager_without_being_asked(void **state)
{
    (void)state;
    for (int without = -1; without < 2; without++) {
        struct ends ends = {.without = {without == 0, without == 1}};
        struct run r;
        install();
        for (int i = 0; i < RAILS; i++) fault_verbs_iwarp(i, true);
        if (without < 0) {
            struct outcome o = carry(&ends);
            assert_int_equal(o.managed, RAILS);
            continue;
        }
        /* The manager of one end fails when it is asked to come, or to listen: TCP. */
        ends.without[without] = false;
        run_begin(&r, &ends);
        fault_rdmacm_fail(without ? "bind_addr" : "resolve_addr", 0, 1 << 30, ENODEV);
        run_more(&r, MESSAGES);
        assert_int_equal(look(&r).rdma, 0);
        run_end(&r);
    }
}

/* RFC 7306 came late. */
static void iwarp_devices_without_immediate_data_are_left_for_tcp(void **state)
{
    (void)state;
    struct run r;
    install();
    for (int i = 0; i < RAILS; i++) fault_verbs_iwarp(i, true);
    run_begin(&r, &(struct ends){.gives_up_ns = 0});
    fault_verbs_fail("post_send", 0, 1 << 30, EOPNOTSUPP);
    run_more(&r, MESSAGES);
    assert_int_equal(look(&r).rdma, 0);
    fault_verbs_fail(NULL, 0, 0, 0);
    run_end(&r);
}

static void whichever_call_fails_what_is_sent_arrives(void **state)
{
    static const char *const calls[] = {"create_event_channel", "create_id", "bind_addr", "listen", "resolve_addr",
                                        "resolve_route", "connect", "accept", "reject", "establish", "init_qp_attr",
                                        "get_cm_event"};
    (void)state;
    uint32_t managed = 0, rdma = 0, runs = 0;
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++)
        for (int k = 0; k < 5; k++, runs++) {
            install();
            fault_rdmacm_fail(calls[c], k, 1, ENOMEM);
            struct outcome o = carry(&both_want);
            managed += o.managed, rdma += o.rdma;
        }
    print_message("%u of %u lanes by RDMA, %u of them by librdmacm\n", rdma, RAILS * runs, managed);
    assert_true(managed > RAILS * runs / 2); /* some failures came too late to matter, */
    assert_true(managed < RAILS * runs - 20); /* some mattered, */
    assert_true(rdma > managed);             /* and by hand is better than not at all */
}

static void verbs_that_fail_under_the_manager_cost_a_lane_over_tcp(void **state)
{
    static const char *const calls[] = {"reg_mr", "create_comp_channel", "create_cq", "create_qp", "modify_qp", "post_recv", "query_port"};
    (void)state;
    uint32_t managed = 0;
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++)
        for (int k = 0; k < 12; k += 3) {
            install();
            fault_verbs_fail(calls[c], k, 1, ENOMEM);
            managed += carry(&both_want).managed;
        }
    assert_true(managed > 20);
}

static void an_event_that_is_lost_costs_one_lane_its_time(void **state)
{
    static const enum rdma_cm_event_type types[] = {RDMA_CM_EVENT_ADDR_RESOLVED, RDMA_CM_EVENT_ROUTE_RESOLVED,
                                                    RDMA_CM_EVENT_CONNECT_REQUEST, RDMA_CM_EVENT_CONNECT_RESPONSE,
                                                    RDMA_CM_EVENT_ESTABLISHED};
    (void)state;
    for (int iwarp = 0; iwarp < 2; iwarp++)
        for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
            if (iwarp && types[i] == RDMA_CM_EVENT_CONNECT_RESPONSE) continue; /* it has none */
            install();
            for (int k = 0; k < RAILS && iwarp; k++) fault_verbs_iwarp(k, true);
            fault_rdmacm_lose(types[i], 1);
            uint64_t before_ns = rail_now_ns();
            struct outcome o = carry(&both_want);
            uint64_t took_ns = rail_now_ns() - before_ns;
            print_message("%sevent %d lost: %u by RDMA after %d ms\n", iwarp ? "iWARP, " : "", types[i], o.rdma,
                          (int)(took_ns / RAIL_NS_PER_MS));
            assert_true(o.managed >= RAILS - 1);
            assert_true(took_ns < SECONDS(12));
        }
}

static void events_of_trouble_cost_one_lane(void **state)
{
    static const struct { enum rdma_cm_event_type due, comes; } cases[] = {
        {RDMA_CM_EVENT_ADDR_RESOLVED, RDMA_CM_EVENT_ADDR_ERROR},       {RDMA_CM_EVENT_ROUTE_RESOLVED, RDMA_CM_EVENT_ROUTE_ERROR},
        {RDMA_CM_EVENT_CONNECT_RESPONSE, RDMA_CM_EVENT_UNREACHABLE},   {RDMA_CM_EVENT_CONNECT_RESPONSE, RDMA_CM_EVENT_REJECTED},
        {RDMA_CM_EVENT_ESTABLISHED, RDMA_CM_EVENT_CONNECT_ERROR},      {RDMA_CM_EVENT_ESTABLISHED, RDMA_CM_EVENT_DISCONNECTED},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        install();
        fault_rdmacm_instead(cases[i].due, cases[i].comes, -EHOSTUNREACH, 1);
        struct outcome o = carry(&both_want);
        assert_int_equal(o.managed, RAILS - 1);
        assert_int_equal(o.rdma, RAILS - 1);
    }
}

static void events_that_say_nothing_change_nothing(void **state)
{
    static const enum rdma_cm_event_type types[] = {RDMA_CM_EVENT_ADDR_CHANGE, RDMA_CM_EVENT_TIMEWAIT_EXIT,
                                                    RDMA_CM_EVENT_DISCONNECTED, RDMA_CM_EVENT_ADDR_RESOLVED};
    (void)state;
    struct run r;
    get_going(&r);
    int connected = fault_rdmacm_calls("connect");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        for (int k = 0; k < RAILS; k++) fault_rdmacm_event(k, types[i]);
        run_more(&r, MESSAGES);
    }
    assert_int_equal(look(&r).managed, RAILS);
    assert_int_equal(fault_rdmacm_calls("connect"), connected);
    run_end(&r);
}

static void a_device_that_is_removed_is_replaced_by_tcp(void **state)
{
    (void)state;
    struct run r;
    get_going(&r);
    fault_rdmacm_event(0, RDMA_CM_EVENT_DEVICE_REMOVAL);
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    while (look(&r).rdma == RAILS && !rail_deadline_passed(deadline)) run_more(&r, 1);
    run_more(&r, MESSAGES);
    assert_int_equal(look(&r).managed, RAILS - 1);
    run_end(&r);
}

static void lanes_that_die_come_back_by_the_manager(void **state)
{
    (void)state;
    struct run r;
    get_going(&r);
    for (int k = 0; k < 3; k++) {
        int connected = fault_rdmacm_calls("connect");
        fault_verbs_give_up(k % RAILS);
        assert_managed_soon(&r, RAILS, connected);
    }
    run_end(&r);
}

/* One that comes back has a quarter of a second for it: then it is TCP's, and RDMA is tried beside it. */
static void a_lane_that_came_back_over_tcp_for_want_of_time_gets_rdma_later(void **state)
{
    (void)state;
    for (int end = 0; end < 2; end++) {
        struct run r;
        get_going(&r);
        fault_rdmacm_lose(end ? RDMA_CM_EVENT_ESTABLISHED : RDMA_CM_EVENT_CONNECT_RESPONSE, 1);
        int connected = fault_rdmacm_calls("connect");
        fault_verbs_give_up(0);
        assert_managed_soon(&r, RAILS, connected);
        run_end(&r);
    }
}

static void a_port_that_was_down_gets_its_lane_back_by_the_manager(void **state)
{
    (void)state;
    struct run r;
    get_going(&r);
    fault_verbs_port(0, false);
    assert_managed_soon(&r, RAILS - 1, -1);
    run_more(&r, MESSAGES);
    fault_verbs_port(0, true);
    assert_managed_soon(&r, RAILS, -1);
    run_end(&r);
}

/* Both processes end while their lanes are at any state. */
static void ends_at_any_moment_leave_nothing(void **state)
{
    (void)state;
    for (int iwarp = 0; iwarp < 2; iwarp++)
        for (int rounds = 0; rounds < 24; rounds++) {
            struct run r;
            install();
            for (int k = 0; k < RAILS && iwarp; k++) fault_verbs_iwarp(k, true);
            run_begin(&r, &both_want);
            for (int i = 0; i < rounds; i++) {
                net_progress_on(r.pair.net[i % 2]);
                usleep(100);
            }
            run_end(&r);
        }
}

/* One process ends: the other has an error, soon. */
static void a_peer_that_ends_while_lanes_are_made_is_missed(void **state)
{
    (void)state;
    for (int rounds = 0; rounds < 12; rounds++) {
        struct run r;
        void *slot;
        install();
        struct ends impatient = both_want;
        impatient.gives_up_ns = RAIL_NS_PER_S / 2; /* nobody comes back */
        run_begin(&r, &impatient);
        for (int i = 0; i < rounds; i++) drive(&r.pair);
        r.in->ops->close(r.in);
        net_comm_remove_on(r.pair.net[1], KEY);
        net_destroy(r.pair.net[1]);
        struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(40));
        enum rail_result result = RAIL_NOT_YET;
        while ((result == RAIL_NOT_YET || result == RAIL_OK) && !rail_deadline_passed(deadline)) {
            result = r.out->ops->acquire(r.out, &slot);
            if (result == RAIL_OK) r.out->ops->publish(r.out, 8, 1);
            net_progress_on(r.pair.net[0]);
        }
        assert_true(result != RAIL_NOT_YET && result != RAIL_OK);
        r.out->ops->close(r.out);
        net_comm_remove_on(r.pair.net[0], KEY);
        net_destroy(r.pair.net[0]);
        assert_nothing_left();
    }
}

static void a_manager_that_hangs_while_it_lets_go_holds_nobody_up(void **state)
{
    (void)state;
    struct run r;
    get_going(&r);
    fault_rdmacm_hang("destroy_id");
    uint64_t before_ns = rail_now_ns();
    fault_verbs_give_up(0);
    run_more(&r, MESSAGES);
    assert_true(rail_now_ns() - before_ns < SECONDS(10));
    fault_rdmacm_hang(NULL);
    run_more(&r, MESSAGES);
    run_end(&r);
}

static void a_manager_that_does_not_let_go_keeps_its_connection(void **state)
{
    (void)state;
    struct run r;
    get_going(&r);
    fault_rdmacm_fail("destroy_id", 0, 1, EIO);
    fault_verbs_give_up(0);
    run_more(&r, MESSAGES);
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    while (fault_rdmacm_calls("destroy_id") == 0 && !rail_deadline_passed(deadline)) run_more(&r, 1);
    for (int k = 0; k < RAILS; k++) fault_rdmacm_event(k, RDMA_CM_EVENT_ADDR_CHANGE); /* also to the one that is left */
    run_more(&r, MESSAGES);
    assert_true(look(&r).rdma > 0);
    r.out->ops->close(r.out);
    r.in->ops->close(r.in);
    /* Its channel cannot be closed then: the processes are left as they are. */
}

static void a_forked_child_lets_go_of_the_manager(void **state)
{
    (void)state;
    struct run r;
    get_going(&r);
    int fd = r.pair.net[0]->rails[0].device_of.port->manager_fd;
    pid_t child = fork();
    if (child == 0) {
        void *slot;
        bool refused = r.out->ops->acquire(r.out, &slot) == RAIL_E_USAGE;
        bool closed = fcntl(fd, F_GETFD) < 0;
        r.out->ops->close(r.out);
        _exit(refused && closed ? 0 : 1);
    }
    int status = -1;
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    while (waitpid(child, &status, WNOHANG) == 0 && !rail_deadline_passed(deadline)) usleep(1000);
    if (status == -1) kill(child, SIGKILL);
    assert_int_equal(status, 0);
    run_more(&r, MESSAGES);
    assert_int_equal(look(&r).managed, RAILS);
    run_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_ends_come_together_whichever_way_is_faster),
        cmocka_unit_test(a_call_that_fails_is_named),
        cmocka_unit_test(an_event_of_trouble_is_told_in_words),
        cmocka_unit_test(who_shows_another_token_is_refused_at_either_end),
        cmocka_unit_test(strangers_change_nothing),
        cmocka_unit_test(another_queue_pair_than_the_records_is_refused),
        cmocka_unit_test(what_was_not_offered_is_not_accepted),
        cmocka_unit_test(records_of_random_bytes_are_refused_in_words),
        cmocka_unit_test(iwarp_joins_iwarp_and_by_the_manager_alone),
        cmocka_unit_test(an_iwarp_port_without_the_manager_does_not_open),
        cmocka_unit_test(lanes_are_made_by_the_manager_where_one_end_wants_it),
        cmocka_unit_test(where_one_end_cannot_lanes_are_made_by_hand),
        cmocka_unit_test(iwarp_is_connected_by_the_manager_without_being_asked),
        cmocka_unit_test(iwarp_devices_without_immediate_data_are_left_for_tcp),
        cmocka_unit_test(whichever_call_fails_what_is_sent_arrives),
        cmocka_unit_test(verbs_that_fail_under_the_manager_cost_a_lane_over_tcp),
        cmocka_unit_test(an_event_that_is_lost_costs_one_lane_its_time),
        cmocka_unit_test(events_of_trouble_cost_one_lane),
        cmocka_unit_test(events_that_say_nothing_change_nothing),
        cmocka_unit_test(a_device_that_is_removed_is_replaced_by_tcp),
        cmocka_unit_test(lanes_that_die_come_back_by_the_manager),
        cmocka_unit_test(a_lane_that_came_back_over_tcp_for_want_of_time_gets_rdma_later),
        cmocka_unit_test(a_port_that_was_down_gets_its_lane_back_by_the_manager),
        cmocka_unit_test(ends_at_any_moment_leave_nothing),
        cmocka_unit_test(a_peer_that_ends_while_lanes_are_made_is_missed),
        cmocka_unit_test(a_manager_that_hangs_while_it_lets_go_holds_nobody_up),
        cmocka_unit_test(a_forked_child_lets_go_of_the_manager),
        cmocka_unit_test(a_manager_that_does_not_let_go_keeps_its_connection), /* the last: something is left */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else
int main(void)
{
    FIXTURE_BEGIN;
    return print_message("1..0 # SKIP built without rdma/rdma_cma.h\n"), 77;
}
#endif
