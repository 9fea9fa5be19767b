/* test_rdma_options.c - what devices and fabrics can do beyond the least: relaxed ordering, enhanced connections,
 * adaptive routing. They have it or have not, and agree or do not; whatever they answer, lanes work. The devices are
 * fault_verbs.h's. */
#define FIXTURE_RDMA
#include "transport/lane/flow_label.h"
#include "transport/net_flows.h"
#include "transport/net_pair.h"

#ifdef RAIL_HAVE_VERBS

enum { A = 0xa, B = 0xb }; /* vendors */

static struct verbs_port *port_of(int device, uint8_t relaxed_ordering, bool ece)
{
    struct verbs_settings settings = fixture_config(1, 1).verbs;
    struct verbs_port *port = NULL;
    char why[VERBS_WHY_BYTES], name[32];
    uint8_t rail[16] = {[10] = 0xff, 0xff, 127, 0, (uint8_t)(device + 1), 1};
    settings.relaxed_ordering = relaxed_ordering;
    settings.ece = ece;
    snprintf(name, sizeof name, "fault%d", device);
    assert_int_equal(verbs_port_open(name, 1, &settings, rail, 0, &port, why), RAIL_OK);
    return port;
}

/* ---- relaxed ordering ---- */

static void memory_is_registered_for_relaxed_ordering_where_that_can_be(void **state)
{
    static const struct { uint8_t wanted; bool modern; int error, relaxed, asked; } cases[] = {
        {0, true, 0, 0, 0},          {1, true, 0, 4, 4},          {2, true, 0, 4, 4},
        {1, false, 0, 0, 0},         {2, false, 0, 0, 0}, /* the library is too old */
        {1, true, EINVAL, 0, 1},     {2, true, EINVAL, 0, 1}, /* refused once, and not asked for again */
        {2, true, EOPNOTSUPP, 0, 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct verbs_record record;
        char why[VERBS_WHY_BYTES] = "";
        fault_verbs_install();
        fault_verbs_modern(cases[i].modern);
        struct verbs_port *port = port_of(0, cases[i].wanted, false);
        fault_verbs_fail("reg_mr_iova2", 0, cases[i].error ? 1 : 0, cases[i].error);
        struct verbs_connection *one = verbs_connection_begin(port, &record, why);
        struct verbs_connection *two = verbs_connection_begin(port, &record, why);
        assert_non_null(one);
        assert_non_null(two);
        assert_int_equal(fault_verbs_figures().registered, 4); /* a ring and headers each */
        assert_int_equal(fault_verbs_figures().relaxed, cases[i].relaxed);
        assert_int_equal(fault_verbs_calls("reg_mr_iova2"), cases[i].asked);
        verbs_connection_free(one);
        verbs_connection_free(two);
        verbs_port_close(port);
        assert_int_equal(fault_verbs_figures().objects, 0);
    }
}

static void memory_that_cannot_be_registered_is_not_blamed_on_relaxed_ordering(void **state)
{
    struct verbs_record record;
    char why[VERBS_WHY_BYTES] = "";
    (void)state;
    fault_verbs_install();
    struct verbs_port *port = port_of(0, 2, false);
    fault_verbs_fail("reg_mr_iova2", 0, 1, ENOMEM);
    assert_null(verbs_connection_begin(port, &record, why));
    assert_non_null(strstr(why, "locked memory"));
    assert_true(port->relaxed);
    verbs_port_close(port);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

/* ---- enhanced connections ---- */

struct both {
    struct verbs_port *port[2]; /* accepter, connecter */
    struct verbs_connection *connection[2];
    bool ready[2];
    char why[VERBS_WHY_BYTES];
};

/* As the handshake does it. */
static void join(struct both *b)
{
    struct verbs_record offer, answer;
    for (int k = 0; k < 2; k++) {
        b->connection[k] = verbs_connection_begin(b->port[k], k ? &answer : &offer, b->why);
        assert_non_null(b->connection[k]);
    }
    b->ready[1] = verbs_connection_finish(b->connection[1], &offer, true, 0x4001, b->why);
    if (!b->ready[1]) return;
    verbs_connection_answer(b->connection[1], &answer);
    b->ready[0] = verbs_connection_finish(b->connection[0], &answer, false, 0x4001, b->why);
}

static void part(struct both *b)
{
    for (int k = 0; k < 2; k++) verbs_connection_free(b->connection[k]);
    for (int k = 0; k < 2; k++) assert_true(verbs_port_wait(b->port[k], rail_deadline_in_ns(SECONDS(5))));
}

static void end(struct both *b)
{
    for (int k = 0; k < 2; k++) verbs_port_close(b->port[k]);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

/* Both ends are set to the same: to nothing with vendor 0. */
static void assert_set_to(uint32_t vendor, uint32_t options)
{
    struct fault_verbs_qp qps[2];
    assert_int_equal(fault_verbs_qps(qps, 2), 2);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(qps[k].ece_vendor, vendor);
        assert_int_equal(qps[k].ece_options, options);
    }
}

static void both_devices_are_set_to_what_both_know(void **state)
{
    static const struct {
        uint32_t vendor[2], options[2];
        bool wanted[2], modern;
        uint32_t agreed_vendor, agreed_options;
    } cases[] = {
        {{A, A}, {7, 7}, {true, true}, true, A, 7},     {{A, A}, {6, 3}, {true, true}, true, A, 2},
        {{A, A}, {4, 3}, {true, true}, true, A, 0},     {{A, B}, {7, 7}, {true, true}, true, 0, 0},
        {{0, A}, {0, 7}, {true, true}, true, 0, 0},     {{A, 0}, {7, 0}, {true, true}, true, 0, 0},
        {{A, A}, {7, 7}, {false, true}, true, 0, 0},    {{A, A}, {7, 7}, {true, false}, true, 0, 0},
        {{A, A}, {7, 7}, {true, true}, false, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct both b = {0};
        fault_verbs_install();
        fault_verbs_modern(cases[i].modern);
        for (int k = 0; k < 2; k++) {
            fault_verbs_ece(k, cases[i].vendor[k], cases[i].options[k]);
            b.port[k] = port_of(k, 0, cases[i].wanted[k]);
        }
        join(&b);
        assert_true(b.ready[0] && b.ready[1]);
        assert_set_to(cases[i].agreed_vendor, cases[i].agreed_options);
        for (int k = 0; k < 2; k++) {
            bool says_so = strstr(verbs_connection_text(b.connection[k]), "enhanced") != NULL;
            assert_int_equal(says_so, cases[i].agreed_vendor != 0);
        }
        part(&b);
        end(&b);
    }
}

/* Both devices can and want to; of ibv_set_ece `after` calls go well, the connecter's first, and the next fails. */
static struct both joined_though_refused(int after)
{
    struct both b = {0};
    fault_verbs_install();
    for (int k = 0; k < 2; k++) {
        fault_verbs_ece(k, A, 7);
        b.port[k] = port_of(k, 0, true);
    }
    fault_verbs_fail("set_ece", after, 1, EINVAL);
    join(&b);
    return b;
}

static void a_refusal_of_the_connecters_device_leaves_both_without(void **state)
{
    (void)state;
    struct both b = joined_though_refused(0);
    assert_true(b.ready[0] && b.ready[1]);
    assert_set_to(0, 0);
    part(&b);
    end(&b);
}

/* The connecter's end is set by then: one that is and one that is not would misunderstand one another. */
static void a_refusal_of_the_accepters_device_costs_one_connection(void **state)
{
    (void)state;
    struct both b = joined_though_refused(1);
    assert_true(b.ready[1] && !b.ready[0]);
    assert_non_null(strstr(b.why, "ibv_set_ece"));
    part(&b);
    join(&b); /* the next one does without */
    assert_true(b.ready[0] && b.ready[1]);
    assert_set_to(0, 0);
    part(&b);
    end(&b);
}

/* ---- whole lanes ---- */

enum { RAILS = 2, SLOT = 262144, MESSAGES = 40 };

/* How many of the rails are by RDMA in the end; what is sent arrives in any case. `meanwhile`: after each message. */
static uint32_t carry_by(const struct verbs_settings *settings, uint64_t messages, void (*meanwhile)(uint64_t done))
{
    struct pair p;
    struct net_config config = fixture_config(RAILS, 1);
    config.verbs = *settings;
    config.writes_direct = false; /* all of it is about what goes through the rings */
    pair_make(&p, &config);
    struct link *out = open_end(&p, 0, 0, true), *in = open_end(&p, 1, 0, false);
    struct flow flows[2] = {{.link = out, .sender = true}, {.link = in}};
    assert_true(drive_until_ready(&p, out));
    struct side sides[2] = {{.net = p.net[0]}, {.net = p.net[1]}};
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(60));
    while (!(flows[1].done == messages && sockets_up(p.net[0]) == RAILS && sockets_up(p.net[1]) == RAILS) &&
           !rail_deadline_passed(deadline)) {
        for (int k = 0; k < 2; k++) {
            bool moved = false;
            if (flows[k].done < messages) assert_null(flow_step(&sides[k], &flows[k], &moved));
            if (moved && k && meanwhile) meanwhile(flows[k].done);
        }
        drive(&p);
    }
    assert_int_equal(flows[1].done, messages);
    uint32_t rdma = 0;
    for (uint32_t i = 0; i < p.net[0]->n_up; i++) rdma += p.net[0]->up[i]->lane.ops == &lane_verbs_ops;
    out->ops->close(out);
    in->ops->close(in);
    pair_end(&p);
    if (fault_verbs_figures().objects != 0) print_error("%d objects are left\n", fault_verbs_figures().objects);
    assert_int_equal(fault_verbs_figures().objects, 0);
    return rdma;
}

static uint32_t carry(void)
{
    struct net_config config = fixture_config(RAILS, 1);
    return carry_by(&config.verbs, MESSAGES, NULL);
}

static void lanes_work_with_all_of_it(void **state)
{
    (void)state;
    fault_verbs_install();
    for (int i = 0; i < RAILS; i++) fault_verbs_ece(i, A, 7);
    assert_int_equal(carry(), RAILS);
    assert_int_equal(fault_verbs_calls("set_ece"), 2 * RAILS);
}

static void whichever_call_fails_lanes_work_without(void **state)
{
    static const char *const calls[] = {"reg_mr_iova2", "query_ece", "set_ece"};
    static const int errors[] = {EINVAL, EOPNOTSUPP, ENOMEM};
    (void)state;
    uint32_t rdma = 0, runs = 0;
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++)
        for (size_t e = 0; e < sizeof errors / sizeof *errors; e++)
            for (int k = 0; k < 6; k++, runs++) {
                fault_verbs_install();
                for (int i = 0; i < RAILS; i++) fault_verbs_ece(i, A, 7);
                fault_verbs_fail(calls[c], k, 1, errors[e]);
                rdma += carry();
            }
    print_message("%u of %u lanes by RDMA\n", rdma, RAILS * runs);
    /* Only what the far end already counts on costs one, and memory that is not there. */
    assert_true(rdma > RAILS * runs * 3 / 4);
}

/* ---- adaptive routing ---- */

static void ports_split_on_infiniband_and_where_they_are_told_to(void **state)
{
    static const struct { int8_t wanted; bool infiniband; uint32_t split_bytes; } cases[] = {
        {-1, false, UINT32_MAX}, {-1, true, 8192}, {0, true, UINT32_MAX}, {1, false, 8192},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct verbs_settings settings = fixture_config(1, 1).verbs;
        struct verbs_port *port = NULL;
        char why[VERBS_WHY_BYTES];
        settings.adaptive_routing = cases[i].wanted;
        settings.adaptive_bytes = 8192;
        fault_verbs_install();
        fault_verbs_infiniband(0, cases[i].infiniband);
        assert_int_equal(verbs_port_open("fault0", 1, &settings, (uint8_t[16]){0}, 0, &port, why), RAIL_OK);
        assert_int_equal(port->split_bytes, cases[i].split_bytes);
        verbs_port_close(port);
    }
}

static void large_payloads_go_apart_and_small_ones_with_their_headers(void **state)
{
    enum { MANY = 400, LIMIT = 8192 };
    (void)state;
    for (int8_t adaptive = 0; adaptive < 2; adaptive++) {
        struct verbs_settings settings = fixture_config(1, 1).verbs;
        settings.adaptive_routing = adaptive;
        settings.adaptive_bytes = LIMIT;
        fault_verbs_install();
        assert_int_equal(carry_by(&settings, MANY, NULL), RAILS);
        struct fault_verbs_figures f = fault_verbs_figures();
        if (adaptive) assert_in_range(f.immediate_most, LANE_INLINE_BYTES, FRAME_BYTES + LIMIT);
        else assert_true(f.immediate_most > FRAME_BYTES + LIMIT);
        assert_int_equal(f.plain > 0, adaptive == 1);
        assert_int_equal(f.not_ready, 0);
    }
}

static void give_up_now_and_then(uint64_t done)
{
    if (done % 100 == 50) fault_verbs_give_up((int)(done / 100 % RAILS));
}

static void payloads_apart_survive_the_death_of_lanes(void **state)
{
    (void)state;
    struct verbs_settings settings = fixture_config(1, 1).verbs;
    settings.adaptive_routing = 1;
    settings.adaptive_bytes = 0;
    fault_verbs_install();
    assert_int_equal(carry_by(&settings, 500, give_up_now_and_then), RAILS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_registered_for_relaxed_ordering_where_that_can_be),
        cmocka_unit_test(memory_that_cannot_be_registered_is_not_blamed_on_relaxed_ordering),
        cmocka_unit_test(both_devices_are_set_to_what_both_know),
        cmocka_unit_test(a_refusal_of_the_connecters_device_leaves_both_without),
        cmocka_unit_test(a_refusal_of_the_accepters_device_costs_one_connection),
        cmocka_unit_test(lanes_work_with_all_of_it),
        cmocka_unit_test(whichever_call_fails_lanes_work_without),
        cmocka_unit_test(ports_split_on_infiniband_and_where_they_are_told_to),
        cmocka_unit_test(large_payloads_go_apart_and_small_ones_with_their_headers),
        cmocka_unit_test(payloads_apart_survive_the_death_of_lanes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else
int main(void)
{
    FIXTURE_BEGIN;
}
#endif
