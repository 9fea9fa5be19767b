/* test_lay.c - loads on tiny networks as they are worked out by hand; what is conserved on any; classes against all
 * plans. */
#include "simulate/simulate.h"

#include "plan/collective.h"

enum { S = 1 << 20 };

static struct job_request ring_of(const uint32_t *hosts, uint32_t n, uint32_t gpus)
{
    return (struct job_request){.hosts = hosts,
                                .n_hosts = n,
                                .gpus = gpus,
                                .collective = PLAN_ALLREDUCE,
                                .algorithm = PLAN_RING,
                                .bytes = S,
                                .machine = &plain};
}

static double load(const struct laid *l, const struct network *n, enum network_tier tier, uint64_t k)
{
    return l->loads[n->first[tier] + k];
}

/* 4 hosts of one rank and 2 NICs, 2 hosts a leaf. Every rank sends 1.5 S to the next one, over both rails alike: 0.75
 * S by each NIC. Two of the four edges stay under a leaf, two climb: each leaf sends 0.75 S up. */
static void a_ring_by_hand(void **state)
{
    (void)state;
    struct network n = network_with(
        &(struct network_request){.hosts = 4, .rails = 2, .tiers = 2, .hosts_per_leaf = 2, .spines = 1});
    uint32_t *hosts = all_hosts(4);
    struct job_request ask = ring_of(hosts, 4, 1);
    struct laid l = lay_must(&n, &ask);
    for (uint32_t nic = 0; nic < 8; nic++) {
        assert_true(load(&l, &n, NETWORK_NIC_UP, nic) == 0.75 * S);
        assert_true(load(&l, &n, NETWORK_NIC_DOWN, nic) == 0.75 * S);
    }
    for (uint32_t leaf = 0; leaf < 4; leaf++) {
        assert_true(load(&l, &n, NETWORK_LEAF_UP, leaf) == 0.75 * S);
        assert_true(load(&l, &n, NETWORK_LEAF_DOWN, leaf) == 0.75 * S);
    }
    assert_true(l.report.sent == 6.0 * S && l.report.cross_rail == 0);
    assert_true(l.report.by_switches[1] == 3.0 * S && l.report.by_switches[3] == 3.0 * S);
    assert_int_equal(l.clocks.chain, 2 * 3);
    assert_true(near(l.clocks.link_ns, 0.75 * S, 1e-6)); /* 1 byte/ns */
    assert_true(l.clocks.ns >= l.clocks.link_ns);
    laid_clear(&l);
    free(hosts);
    network_clear(&n);
}

/* 3 hosts of 2 ranks, rails: each host sends 2 S (m-1)/m; inside it, ranks read and write one another's buffers. */
static void rails_by_hand(void **state)
{
    (void)state;
    struct network n = network_with(&(struct network_request){.hosts = 3, .rails = 2, .tiers = 1});
    uint32_t *hosts = all_hosts(3);
    struct job_request ask = ring_of(hosts, 3, 2);
    ask.algorithm = PLAN_RAILS;
    ask.bytes = 3 << 20;
    struct laid l = lay_must(&n, &ask);
    for (uint32_t nic = 0; nic < 6; nic++)
        assert_true(near(load(&l, &n, NETWORK_NIC_UP, nic), 2 * (3 << 20) * (2.0 / 3) / 2, 1e-3));
    assert_true(l.report.cross_rail == 0 && l.report.by_switches[1] == l.report.sent);
    assert_true(l.report.local_most > 0);
    laid_clear(&l);
    free(hosts);
    network_clear(&n);
}

/* Hops alone: a ring of 4 hosts has 6, each of 1000 ns and 100 for its switch; every other one may have three. */
static void hops_and_switches_by_hand(void **state)
{
    (void)state;
    uint32_t *hosts = all_hosts(4);
    struct simulate_machine slow = plain;
    struct job_request ask = ring_of(hosts, 4, 1);
    slow.hop_ns = 1000, slow.switch_ns = 100;
    ask.machine = &slow, ask.bytes = 4 * 64;
    struct network_request fast = {.hosts = 4, .rails = 1, .tiers = 1, .nic_gbit = 1e6, .hosts_per_leaf = 4};
    struct network n = network_with(&fast);
    struct laid l = lay_must(&n, &ask);
    assert_int_equal(l.clocks.chain, 6);
    assert_true(near(l.clocks.ns, 6 * 1100, 1e-3)); /* 64 bytes at 125 bytes/ns are not seen */
    laid_clear(&l);
    network_clear(&n);
    fast.tiers = 2, fast.hosts_per_leaf = 2;
    n = network_with(&fast);
    l = lay_must(&n, &ask);
    assert_true(near(l.clocks.ns, 3 * 1100 + 3 * 1300, 1e-3)); /* a piece takes 6 edges in a row */
    laid_clear(&l);
    free(hosts);
    network_clear(&n);
}

/* A NIC that is down gives its bytes to the others of the two pairs that it is in; one at half rate takes half. */
static void lanes_take_bytes_by_their_rates(void **state)
{
    (void)state;
    uint32_t *hosts = all_hosts(4);
    struct job_request ask = ring_of(hosts, 4, 1);
    struct network n = network_with(&(struct network_request){.hosts = 4, .rails = 2, .tiers = 2, .hosts_per_leaf = 4});
    assert_int_equal(network_fault(&n, "nic:host1.0", 0), RAIL_OK);
    struct laid l = lay_must(&n, &ask);
    assert_true(load(&l, &n, NETWORK_NIC_UP, network_nic(&n, 0, 0, 0)) == 0);       /* 0 -> 1 by rail 1 alone */
    assert_true(load(&l, &n, NETWORK_NIC_UP, network_nic(&n, 0, 1, 0)) == 1.5 * S);
    assert_true(load(&l, &n, NETWORK_NIC_UP, network_nic(&n, 2, 0, 0)) == 0.75 * S);
    assert_true(near(l.clocks.link_ns, 1.5 * S, 1e-6));
    laid_clear(&l);
    network_clear(&n);
    n = network_with(&(struct network_request){.hosts = 4, .rails = 2, .tiers = 2, .hosts_per_leaf = 4});
    assert_int_equal(network_fault(&n, "nic:host1.0", 0.5), RAIL_OK);
    l = lay_must(&n, &ask);
    assert_true(near(load(&l, &n, NETWORK_NIC_UP, network_nic(&n, 1, 0, 0)), 0.5 * S, 1e-6));
    assert_true(near(load(&l, &n, NETWORK_NIC_UP, network_nic(&n, 1, 1, 0)), 1.0 * S, 1e-6));
    assert_true(near(l.clocks.link_ns, 1.0 * S, 1e-6)); /* 1.5 S at 1.5 bytes/ns */
    laid_clear(&l);
    network_clear(&n);
    free(hosts);
}

/* Every collective, kind and algorithm: what NICs send is what NICs get and what plans send; aligned bytes stay on
 * their rail. */
static void bytes_are_conserved(void **state)
{
    (void)state;
    uint32_t *hosts = all_hosts(12);
    int seen = 0;
    for (int kind = 0; kind < NETWORK_KINDS; kind++) {
        struct network n = network_with(&(struct network_request){.kind = (enum network_kind)kind,
                                                                  .hosts = 12,
                                                                  .rails = 4,
                                                                  .tiers = 3,
                                                                  .hosts_per_leaf = 2,
                                                                  .units_per_pod = 2});
        for (int c = 0; c < PLAN_COLLECTIVES; c++)
            for (int a = 0; a < PLAN_ALGORITHMS; a++)
                for (int unaware = 0; unaware < 2; unaware++) {
                    struct job_request ask = ring_of(hosts, 12, 4);
                    struct laid l;
                    ask.collective = (enum plan_collective)c, ask.algorithm = a, ask.unaware = unaware,
                    ask.bytes = 48 * 4096;
                    if (lay_try(&l, &n, &ask) == RAIL_OK) {
                        const struct lay_tier *t = l.summary.tiers;
                        assert_true(near(t[NETWORK_NIC_UP].bytes, l.report.sent, 1e-9));
                        assert_true(near(t[NETWORK_NIC_DOWN].bytes, l.report.sent, 1e-9));
                        assert_true(near(t[NETWORK_LEAF_UP].bytes, t[NETWORK_LEAF_DOWN].bytes, 1e-9));
                        assert_true(
                            near(t[NETWORK_LEAF_UP].bytes, l.report.by_switches[3] + l.report.by_switches[5], 1e-9));
                        assert_true(near(t[NETWORK_SPINE_UP].bytes, l.report.by_switches[5], 1e-9));
                        if (!unaware) assert_true(l.report.cross_rail == 0);
                        if (unaware) assert_true(l.report.cross_rail > 0);
                        assert_true(l.clocks.ns >= l.clocks.link_ns);
                        seen++;
                    }
                    laid_clear(&l);
                }
        network_clear(&n);
    }
    free(hosts);
    assert_true(seen > 80);
}

/* Hosts of two leaves, given in turn: as given every edge climbs, in our order two do. */
static void our_order_leaves_each_leaf_once(void **state)
{
    (void)state;
    static const uint32_t hosts[] = {0, 4, 1, 5, 2, 6, 3, 7};
    struct network n = network_with(&(struct network_request){.hosts = 8, .rails = 1, .tiers = 2, .hosts_per_leaf = 4});
    struct job_request ask = ring_of(hosts, 8, 1);
    struct laid ours = lay_must(&n, &ask);
    ask.as_given = true;
    struct laid given = lay_must(&n, &ask);
    assert_true(near(ours.report.by_switches[3], ours.report.sent / 4, 1e-9));
    assert_true(near(given.report.by_switches[3], given.report.sent, 1e-9));
    laid_clear(&ours);
    laid_clear(&given);
    network_clear(&n);
}

/* A ring of 4 hosts that climbs at every edge, 2 rails of 2 spines, a flow a lane: the two hosts of a leaf share one of
 * its two cables in half of the draws. Where that happens to one rail of a direction, the other carries two thirds, S
 * where each would carry 3/4 S; where to both, all goes at half the rate, as it does for good when a spine is
 * dead. Other draws are as good as none shared. */
static void bytes_leave_flows_that_share_a_cable(void **state)
{
    (void)state;
    static const uint32_t hosts[] = {0, 2, 1, 3};
    int shared[3] = {0};
    for (uint32_t hash = 0; hash < 64; hash++) {
        struct network_request q = {
            .hosts = 4, .rails = 2, .tiers = 2, .hosts_per_leaf = 2, .spines = 2, .hash = hash};
        struct network n = network_with(&q);
        struct job_request ask = ring_of(hosts, 4, 1);
        ask.as_given = true, ask.flows = 1;
        struct laid l = lay_must(&n, &ask);
        int rails = near(l.clocks.link_ns, 0.75 * S, 1e-3) ? 0 : near(l.clocks.link_ns, S, 1e-3) ? 1 : 2;
        if (rails == 2) assert_true(near(l.clocks.link_ns, 1.5 * S, 1e-3));
        shared[rails]++;
        assert_true(near(l.report.by_switches[3], l.report.sent, 1e-9));
        laid_clear(&l);
        assert_int_equal(network_fault(&n, "spine:0", 0), RAIL_OK);
        l = lay_must(&n, &ask);
        assert_true(near(l.clocks.link_ns, 1.5 * S, 1e-3));
        laid_clear(&l);
        network_clear(&n);
    }
    if (shared[0] < 1 || shared[1] < 20 || shared[2] < 15) /* of 64: 4, 32 and 28 are to be expected */
        fail_msg("of 64 draws %d share nothing, %d one rail, %d both", shared[0], shared[1], shared[2]);
}

/* Each rank of 4 hosts of 2 sends an eighth of S to every other: a host 2 x 6/8 S to others, 3/8 of it to each of the
 * other leaf's two. */
static void alltoall_by_hand(void **state)
{
    (void)state;
    struct network n = network_with(
        &(struct network_request){.hosts = 4, .rails = 2, .tiers = 2, .hosts_per_leaf = 2, .spines = 1});
    uint32_t *hosts = all_hosts(4);
    struct job_request ask = ring_of(hosts, 4, 2);
    ask.collective = PLAN_ALLTOALL, ask.algorithm = -1;
    struct laid l = lay_must(&n, &ask);
    for (uint32_t nic = 0; nic < 8; nic++) assert_true(near(load(&l, &n, NETWORK_NIC_UP, nic), 0.75 * S, 1e-9));
    for (uint32_t leaf = 0; leaf < 4; leaf++) /* two hosts, 2 x 4/8 S each, half of it by each rail */
        assert_true(near(load(&l, &n, NETWORK_LEAF_UP, leaf), 1.0 * S, 1e-9));
    assert_true(near(l.report.sent, 6.0 * S, 1e-9) && l.report.cross_rail == 0);
    assert_true(near(l.report.local_most, S / 8.0, 1e-9));
    assert_int_equal(l.clocks.chain, 2); /* 7 steps, 4 ahead */
    assert_true(l.clocks.ns >= l.clocks.link_ns && l.clocks.ns < 1.35 * l.clocks.link_ns);
    laid_clear(&l);
    free(hosts);
    network_clear(&n);
}

/* Hops alone: of 15 steps every fourth waits for the one four before it. */
static void steps_of_alltoall_wait_for_those_ahead(void **state)
{
    (void)state;
    struct network_request fast = {.hosts = 16, .rails = 1, .tiers = 1, .nic_gbit = 1e6, .hosts_per_leaf = 16};
    struct network n = network_with(&fast);
    uint32_t *hosts = all_hosts(16);
    struct simulate_machine slow = plain;
    struct job_request ask = ring_of(hosts, 16, 1);
    slow.hop_ns = 1000, slow.switch_ns = 100;
    ask.machine = &slow, ask.collective = PLAN_ALLTOALL, ask.algorithm = -1, ask.bytes = 16 * 64;
    struct laid l = lay_must(&n, &ask);
    assert_true(near(l.clocks.ns, 4 * 1100, 2e-3));
    laid_clear(&l);
    free(hosts);
    network_clear(&n);
}

/* To the next rank: the last of each host sends to another one. To the one 2 on, of 2 a host: every rank. */
static void send_recv_by_hand(void **state)
{
    (void)state;
    struct network n = network_with(&(struct network_request){.hosts = 4, .rails = 2, .tiers = 2, .hosts_per_leaf = 4});
    uint32_t *hosts = all_hosts(4);
    struct job_request ask = ring_of(hosts, 4, 2);
    ask.send_recv = true, ask.algorithm = -1;
    for (ask.shift = 1; ask.shift <= 2; ask.shift++) {
        struct laid l = lay_must(&n, &ask);
        for (uint32_t nic = 0; nic < 8; nic++)
            assert_true(near(load(&l, &n, NETWORK_NIC_UP, nic), ask.shift * S / 2.0, 1e-9));
        assert_true(near(l.report.sent, 4.0 * ask.shift * S, 1e-9));
        assert_true(near(l.clocks.ns, ask.shift * S / 2.0, 0.3));
        laid_clear(&l);
    }
    struct job job;
    ask.shift = 8;
    assert_int_equal(job_make(&job, &n, &ask), RAIL_E_ARGUMENT);
    assert_non_null(strstr(rail_last_error(), "1 to 7"));
    free(hosts);
    network_clear(&n);
}

/* Every host to every other: the bytes of a thousand ranks' steps, one by one. */
static void alltoall_of_nodes_is_that_of_ranks(void **state)
{
    (void)state;
    struct network n = network_with(&(struct network_request){.hosts = 24, .rails = 2, .tiers = 2});
    static const uint32_t hosts[] = {5, 3, 17, 0, 21, 9, 2};
    struct job_request ask = ring_of(hosts, 7, 5);
    struct job job;
    double sent[7][7] = {{0}}, by_node[7];
    ask.collective = PLAN_ALLTOALL, ask.algorithm = -1;
    assert_int_equal(job_make(&job, &n, &ask), RAIL_OK);
    for (uint32_t r = 0; r < 35; r++)
        for (uint32_t d = 1; d < 35; d++)
            sent[job.shape.node_of[r]][job.shape.node_of[messages_to(&job, r, d)]] += messages_bytes(&job);
    for (uint32_t v = 0; v < 7; v++) {
        messages_of_node(&job, v, by_node);
        for (uint32_t w = 0; w < 7; w++) assert_true(near(by_node[w], sent[v][w], 1e-9));
    }
    job_clear(&job);
    network_clear(&n);
}

static void jobs_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    uint32_t *hosts = all_hosts(8);
    struct network n = network_with(&(struct network_request){.hosts = 4, .rails = 2, .tiers = 1, .hosts_per_leaf = 2});
    static const struct {
        uint32_t hosts, gpus, channels;
        int algorithm;
        uint64_t bytes;
        enum plan_collective collective;
        const char *says;
    } cases[] = {
        {8, 1, 0, PLAN_RING, S, PLAN_ALLREDUCE, "8 hosts, and the fabric has 4"},
        {0, 1, 0, PLAN_RING, S, PLAN_ALLREDUCE, "0 hosts"},
        {1, 1, 0, PLAN_RING, S, PLAN_ALLREDUCE, "2 to"},
        {4, 1u << 30, 0, PLAN_RING, S, PLAN_ALLREDUCE, "can be planned"},
        {4, 1, 0, PLAN_RING, 0, PLAN_ALLREDUCE, "0 bytes"},
        {4, 1, 0, PLAN_RING, UINT64_MAX, PLAN_ALLREDUCE, "1 PiB"},
        {4, 1, 0, PLAN_RING, 8, PLAN_ALLGATHER, "an element for each"},
        {4, 1, 0, PLAN_RAILS, S, PLAN_ALLREDUCE, "does not fit"},
        {4, 1, 0, PLAN_RING, S, PLAN_ALLTOALL, "pairwise"},
        {4, 1, 65, PLAN_RING, S, PLAN_ALLREDUCE, "65 channels"},
        {4, 1, 0, PLAN_RING, S, PLAN_ALLREDUCE, "does not reach"}, /* two leaves and no spine */
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        struct job_request ask = ring_of(hosts, cases[k].hosts, cases[k].gpus);
        struct laid l;
        ask.algorithm = cases[k].algorithm, ask.bytes = cases[k].bytes, ask.collective = cases[k].collective;
        ask.channels = cases[k].channels;
        assert_int_equal(lay_try(&l, &n, &ask), RAIL_E_ARGUMENT);
        if (!strstr(rail_last_error(), cases[k].says))
            fail_msg("\"%s\" does not say %s", rail_last_error(), cases[k].says);
        laid_clear(&l);
    }
    free(hosts);
    network_clear(&n);
}

/* ---- classes ---- */

/* 1024 ranks: every link's load and the time, by one node's plans and by all ranks'. */
static void classes_agree_with_all_plans(void **state)
{
    (void)state;
    static const int algorithms[] = {PLAN_RING, PLAN_RAILS};
    static const enum plan_collective collectives[] = {PLAN_ALLREDUCE, PLAN_ALLGATHER, PLAN_REDUCESCATTER};
    struct network n = network_with(&(struct network_request){.hosts = 128, .rails = 8, .tiers = 3, .hosts_per_leaf = 8,
                                                              .units_per_pod = 4, .oversubscription = {2, 1}});
    uint32_t *hosts = all_hosts(128);
    for (uint32_t k = 0; k < 128; k++) hosts[k] = k * 37 % 128; /* fragments of one host */
    for (int k = 0; k < 6; k++) {
        struct job_request ask = ring_of(hosts, 128, 8);
        ask.algorithm = algorithms[k % 2], ask.collective = collectives[k / 2], ask.bytes = 256 << 20,
        ask.as_given = k % 3 == 0;
        ask.machine = simulate_machine_named("h100");
        ask.method = JOB_ALL;
        struct laid all = lay_must(&n, &ask);
        ask.method = JOB_CLASSES;
        struct laid few = lay_must(&n, &ask);
        assert_int_equal(few.job.n_checked, 1000);
        assert_true(few.report.by_classes && !all.report.by_classes);
        assert_int_equal(few.clocks.ranks, 8);
        assert_int_equal(all.clocks.ranks, 1024);
        for (uint64_t link = 0; link < n.n_links; link++)
            if (!near(all.loads[link], few.loads[link], 0.01))
                fail_msg("case %d, link %llu: %g bytes, by classes %g", k, (unsigned long long)link, all.loads[link],
                         few.loads[link]);
        if (!near(all.clocks.ns, few.clocks.ns, 0.01))
            fail_msg("case %d: %g ns, by classes %g", k, all.clocks.ns, few.clocks.ns);
        assert_int_equal(all.clocks.chain, few.clocks.chain);
        laid_clear(&all);
        laid_clear(&few);
    }
    free(hosts);
    network_clear(&n);
}

/* Trees are no circle: the comparison with built plans says so. And one that is says so when a plan is not as its
 * class. */
static void a_rank_unlike_its_class_is_an_error(void **state)
{
    (void)state;
    struct network n = network_with(&(struct network_request){.hosts = 16, .rails = 2, .tiers = 2});
    uint32_t *hosts = all_hosts(16);
    struct job_request ask = ring_of(hosts, 16, 2);
    struct job job;
    struct plan plan;
    ask.method = JOB_CLASSES, ask.algorithm = PLAN_TREE;
    assert_int_equal(job_make(&job, &n, &ask), RAIL_E_INTERNAL);
    assert_non_null(strstr(rail_last_error(), "class"));
    ask.algorithm = PLAN_RING;
    assert_int_equal(job_make(&job, &n, &ask), RAIL_OK);
    assert_true(job_plan_build(&job, 9, 0, &plan));
    assert_int_equal(classes_check(&job, 9, 0, &plan), RAIL_OK);
    plan.links[1].peer ^= 1;
    assert_int_equal(classes_check(&job, 9, 0, &plan), RAIL_E_INTERNAL);
    plan.links[1].peer ^= 1;
    for (uint32_t k = 0; k < plan.n_steps; k++) plan.steps[k].times -= plan.steps[k].verb == PLAN_LOOP;
    assert_int_equal(classes_check(&job, 9, 0, &plan), RAIL_E_INTERNAL);
    job_clear(&job);
    free(hosts);
    network_clear(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ring_by_hand),
        cmocka_unit_test(rails_by_hand),
        cmocka_unit_test(hops_and_switches_by_hand),
        cmocka_unit_test(lanes_take_bytes_by_their_rates),
        cmocka_unit_test(bytes_are_conserved),
        cmocka_unit_test(our_order_leaves_each_leaf_once),
        cmocka_unit_test(bytes_leave_flows_that_share_a_cable),
        cmocka_unit_test(alltoall_by_hand),
        cmocka_unit_test(steps_of_alltoall_wait_for_those_ahead),
        cmocka_unit_test(send_recv_by_hand),
        cmocka_unit_test(alltoall_of_nodes_is_that_of_ranks),
        cmocka_unit_test(jobs_that_do_not_fit_are_refused),
        cmocka_unit_test(classes_agree_with_all_plans),
        cmocka_unit_test(a_rank_unlike_its_class_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
