/* test_flow_label.c - lanes over RDMA go by routes of their own: how many there are, and what switches hash on. The
 * devices are fault_verbs.h's. */
#define FIXTURE_RDMA
#include "base/params.h"
#include "transport/lane/flow_label.h"
#include "transport/net_flows.h"
#include "transport/net_pair.h"

static struct frame_hello hello_of(uint64_t processes, uint64_t session, uint32_t lane, uint32_t turn)
{
    struct frame_hello h = {.session = session, .lane = (uint16_t)lane, .turn = (uint16_t)turn};
    memcpy(h.from, &processes, sizeof processes);
    h.to[15] = 1;
    return h;
}

static void lanes_and_turns_of_a_set_have_ports_of_their_own(void **state)
{
    (void)state;
    for (uint64_t set = 0; set < 8; set++) {
        static uint8_t seen[1 << 16];
        memset(seen, 0, sizeof seen);
        for (uint32_t lane = 0; lane < NET_LANES_MAX; lane++)
            for (uint32_t turn = 0; turn < FLOW_LABEL_TURNS; turn++) {
                struct frame_hello h = hello_of(mix(set), set, lane, turn);
                uint32_t label = flow_label(&h);
                assert_in_range(label, 1, 0xfffff);
                assert_in_range(flow_label_port(label), 0xc000, 0xffff);
                assert_int_equal(seen[flow_label_port(label)]++, 0);
            }
    }
}

static void other_processes_other_sets_and_later_turns_begin_elsewhere(void **state)
{
    (void)state;
    enum { KINDS = 3, SAMPLES = 256 };
    for (int kind = 0; kind < KINDS; kind++) {
        static uint8_t seen[1 << 16];
        int distinct = 0;
        memset(seen, 0, sizeof seen);
        for (uint32_t i = 0; i < SAMPLES; i++) {
            struct frame_hello h = kind == 0   ? hello_of(mix(i), 1, 0, 0)
                                   : kind == 1 ? hello_of(7, i, 0, 0)
                                               : hello_of(7, 1, 0, FLOW_LABEL_TURNS * i);
            distinct += seen[flow_label_port(flow_label(&h))]++ == 0;
        }
        assert_true(distinct > SAMPLES * 9 / 10); /* by chance 254 of 256 */
    }
}

/* Some switches look at few bits: each must tell neighbours apart. */
static void of_sixteen_neighbours_every_bit_of_the_port_is_set_in_some_and_not_in_others(void **state)
{
    (void)state;
    for (uint64_t set = 0; set < 1000; set++)
        for (int bit = 0; bit < 14; bit++) {
            uint32_t ones = 0;
            for (uint32_t lane = 0; lane < 16; lane++) {
                struct frame_hello h = hello_of(mix(set), set, lane, 0);
                ones += flow_label_port(flow_label(&h)) >> bit & 1;
            }
            assert_in_range(ones, 4, 12);
        }
}

static void variables_say_how_many_there_are(void **state)
{
    (void)state;
    static const struct { const char *qps, *threads, *socks, *routes; uint32_t rdma, tcp; } cases[] = {
        {NULL, NULL, NULL, NULL, 1, 1}, {"4", NULL, NULL, NULL, 4, 1}, {"4", "2", "3", NULL, 4, 6},
        {NULL, "2", "3", NULL, 1, 6},   {NULL, NULL, NULL, "4", 8, 8}, {"2", NULL, NULL, "4", 2, 8},
        {"128", NULL, NULL, NULL, 64, 1}, {"1", NULL, NULL, "4", 1, 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *names[] = {"NCCL_IB_QPS_PER_CONNECTION", "NCCL_SOCKET_NTHREADS", "NCCL_NSOCKS_PERTHREAD",
                               "RAILCCL_ROUTES"};
        const char *values[] = {cases[i].qps, cases[i].threads, cases[i].socks, cases[i].routes};
        for (int k = 0; k < 4; k++) setenv(names[k], values[k] ? values[k] : "", 1);
        rail_params_reload();
        assert_int_equal(net_lanes_per_rail(true), cases[i].rdma);
        assert_int_equal(net_lanes_per_rail(false), cases[i].tcp);
        for (int k = 0; k < 4; k++) unsetenv(names[k]);
    }
    rail_params_reload();
}

#ifdef RAIL_HAVE_VERBS

static void ports_are_those_that_verbs_make_of_the_labels(void **state)
{
    (void)state;
    for (uint32_t label = 1; label <= 0xfffff; label += 7)
        assert_int_equal(flow_label_port(label), ibv_flow_label_to_udp_sport(label));
}

enum { RAILS = 2, PER_RAIL = 4, LANES = RAILS * PER_RAIL, SLOT = 262144 };

static bool up(struct pair *p, struct link *out)
{
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    if (!drive_until_ready(p, out)) return false;
    while (!(sockets_up(p->net[0]) == LANES && sockets_up(p->net[1]) == LANES) && !rail_deadline_passed(deadline))
        drive(p);
    return sockets_up(p->net[0]) == LANES && sockets_up(p->net[1]) == LANES;
}

static void stream(struct pair *p, struct link *out, struct link *in, uint64_t bytes)
{
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(60));
    uint64_t sent = 0, came = 0;
    while (came < bytes && !rail_deadline_passed(deadline)) {
        void *slot;
        const void *at;
        size_t n;
        uint64_t signature;
        while (sent < bytes && out->ops->acquire(out, &slot) == RAIL_OK) out->ops->publish(out, SLOT, 1), sent += SLOT;
        if (in->ops->wait(in, &at, &n, &signature) == RAIL_OK) in->ops->release(in), came += n;
        drive(p);
    }
    assert_int_equal(came, bytes);
}

static const struct fault_verbs_qp *find(const struct fault_verbs_qp *qps, int n, uint32_t number)
{
    for (int i = 0; i < n; i++)
        if (qps[i].number == number) return &qps[i];
    return NULL;
}

static void several_queue_pairs_per_rail_all_carry_and_have_labels_of_their_own(void **state)
{
    (void)state;
    struct pair p;
    struct net_config config = fixture_config(RAILS, PER_RAIL);
    config.moves_lanes = false;
    fault_verbs_install();
    pair_make(&p, &config);
    struct link *out = open_end(&p, 0, 0, true), *in = open_end(&p, 1, 0, false);
    assert_true(up(&p, out));
    stream(&p, out, in, 32 << 20);
    struct fault_verbs_qp qps[4 * LANES];
    int n = fault_verbs_qps(qps, 4 * LANES), on_rail[RAILS] = {0}, carried = 0;
    assert_int_equal(n, 2 * LANES);
    for (int i = 0; i < n; i++) {
        const struct fault_verbs_qp *other = find(qps, n, qps[i].peer);
        assert_non_null(other);
        assert_int_equal(other->device, qps[i].device); /* the same rail */
        assert_int_equal(other->flow_label, qps[i].flow_label);
        int same = 0;
        for (int k = 0; k < n; k++) same += flow_label_port(qps[k].flow_label) == flow_label_port(qps[i].flow_label);
        assert_int_equal(same, 2); /* its two ends */
        on_rail[qps[i].device]++;
        carried += qps[i].bytes >= 16384; /* more than counts and credits: chunks */
    }
    for (int rail = 0; rail < RAILS; rail++) assert_int_equal(on_rail[rail], 2 * PER_RAIL);
    assert_int_equal(carried, LANES); /* one end of each sends */
    out->ops->close(out);
    in->ops->close(in);
    pair_end(&p);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

static void a_lane_that_moves_has_another_label(void **state)
{
    (void)state;
    struct pair p;
    struct net_config config = fixture_config(RAILS, PER_RAIL);
    fault_verbs_install();
    pair_make(&p, &config);
    struct link *out = open_end(&p, 0, 0, true), *in = open_end(&p, 1, 0, false);
    assert_true(up(&p, out));
    struct fault_verbs_qp before[4 * LANES], after[4 * LANES];
    int n_before = fault_verbs_qps(before, 4 * LANES), n_after = 0, anew = 0;
    pthread_mutex_lock(&p.net[0]->lock);
    move_lane(p.net[0]->up[0]);
    net_unlock(p.net[0]);
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(20));
    while (!rail_deadline_passed(deadline)) { /* until the new one is alone */
        stream(&p, out, in, 4 << 20);
        n_after = fault_verbs_qps(after, 4 * LANES);
        anew = 0;
        for (int i = 0; i < n_after && i < 4 * LANES; i++) anew += !find(before, n_before, after[i].number);
        if (anew >= 2 && n_after == 2 * LANES) break; /* others may have moved of themselves */
    }
    assert_true(anew >= 2);
    assert_int_equal(n_after, 2 * LANES);
    for (int i = 0; i < n_after; i++)
        for (int k = 0; k < n_before; k++)
            if (!find(before, n_before, after[i].number))
                assert_int_not_equal(after[i].flow_label, before[k].flow_label);
    out->ops->close(out);
    in->ops->close(in);
    pair_end(&p);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_and_turns_of_a_set_have_ports_of_their_own),
        cmocka_unit_test(other_processes_other_sets_and_later_turns_begin_elsewhere),
        cmocka_unit_test(of_sixteen_neighbours_every_bit_of_the_port_is_set_in_some_and_not_in_others),
        cmocka_unit_test(variables_say_how_many_there_are),
#ifdef RAIL_HAVE_VERBS
        cmocka_unit_test(ports_are_those_that_verbs_make_of_the_labels),
        cmocka_unit_test(several_queue_pairs_per_rail_all_carry_and_have_labels_of_their_own),
        cmocka_unit_test(a_lane_that_moves_has_another_label),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
