/* test_network.c - fabrics in numbers: who hangs where, how fast, which way a flow goes, what is left when parts are
 * down. */
#include "simulate/simulate.h"

#include "topo/fabric.h"

static struct network_path route(const struct network *n, uint32_t from, uint32_t from_rail, uint32_t to,
                                 uint32_t to_rail)
{
    struct network_flow flow = {from, from_rail, to, to_rail, 0};
    struct network_path path = {.switches = 0};
    if (!network_route(n, &flow, &path)) path.switches = 0;
    return path;
}

/* 8 hosts of 2 NICs, 2 hosts a leaf, 2 units a pod: units {0 1} {2 3} | {4 5} {6 7}. */
static const struct network_request three_tiers = {
    .hosts = 8, .rails = 2, .tiers = 3, .hosts_per_leaf = 2, .units_per_pod = 2};

static void a_packet_climbs_as_far_as_it_must(void **state)
{
    (void)state;
    static const uint32_t wanted[NETWORK_KINDS][4] = {{1, 3, 3, 5}, {1, 1, 3, 5}, {1, 3, 3, 5}, {1, 3, 3, 5}};
    for (int k = 0; k < NETWORK_KINDS; k++) {
        struct network_request q = three_tiers;
        q.kind = (enum network_kind)k;
        struct network n = network_with(&q);
        assert_int_equal(route(&n, 0, 1, 1, 1).switches, wanted[k][0]); /* one leaf */
        assert_int_equal(route(&n, 0, 0, 1, 1).switches, wanted[k][1]); /* another rail */
        assert_int_equal(route(&n, 0, 0, 2, 0).switches, wanted[k][2]); /* another unit of the pod */
        assert_int_equal(route(&n, 0, 0, 7, 0).switches, wanted[k][3]); /* another pod */
        network_clear(&n);
    }
}

/* A leaf of 2 NICs of 1 byte/ns and 2:1 has 1 byte/ns up; 4 leaves of a pod and 2:1 again. */
static void rates_follow_oversubscription(void **state)
{
    (void)state;
    struct network_request q = three_tiers;
    q.oversubscription[0] = 2, q.oversubscription[1] = 2, q.spines = 2, q.cores = 4;
    struct network n = network_with(&q);
    assert_int_equal(n.n_leaves, 8);
    assert_int_equal(n.n_links, 2 * (16 + 8 * 2 + 2 * 2 * 4));
    assert_true(n.rate[n.first[NETWORK_NIC_UP]] == 1);
    assert_true(n.rate[n.first[NETWORK_LEAF_UP]] == 0.5f);       /* 1 over 2 spines */
    assert_true(n.rate[n.first[NETWORK_SPINE_UP]] == 0.25f);     /* 4 leaves x 0.5, half of it, over 4 cores */
    network_clear(&n);
    q = three_tiers;
    q.kind = NETWORK_DUAL_TOR;
    n = network_with(&q);
    assert_true(n.rate[n.first[NETWORK_NIC_UP]] == 0.5f); /* each port is half of the NIC */
    assert_true(network_lane_rate(&n, &(struct network_flow){0, 0, 1, 0, 0}) == 1);
    network_clear(&n);
}

static bool uses(const struct network *n, const struct network_path *path, enum network_tier tier, uint64_t k)
{
    for (uint32_t i = 0; i < path->n; i++)
        if (path->link[i] == n->first[tier] + k) return true;
    return false;
}

/* With a spine down all flows take the others; with all of them down there is no way. Planes do not help one another.
 * */
static void what_is_down_is_passed_over(void **state)
{
    (void)state;
    struct network_request q = three_tiers;
    q.tiers = 2, q.spines = 2;
    struct network n = network_with(&q);
    assert_int_equal(network_fault(&n, "spine:1", 0), RAIL_OK);
    for (uint32_t k = 0; k < 64; k++) {
        struct network_flow flow = {0, 0, 2, 0, k};
        struct network_path path;
        assert_true(network_route(&n, &flow, &path));
        assert_true(uses(&n, &path, NETWORK_LEAF_UP, 0) && !uses(&n, &path, NETWORK_LEAF_UP, 1));
    }
    assert_int_equal(network_fault(&n, "spine:0", 0), RAIL_OK);
    assert_int_equal(route(&n, 0, 0, 2, 0).switches, 0);
    assert_int_equal(route(&n, 0, 0, 1, 0).switches, 1);
    assert_int_equal(network_fault(&n, "nic:host1.0", 0), RAIL_OK);
    assert_int_equal(route(&n, 0, 0, 1, 0).switches, 0);
    assert_int_equal(route(&n, 0, 1, 1, 1).switches, 1);
    network_clear(&n);
}

static void a_bond_outlives_a_leaf_and_planes_stay_apart(void **state)
{
    (void)state;
    struct network_request q = three_tiers;
    q.tiers = 2, q.kind = NETWORK_DUAL_TOR;
    struct network n = network_with(&q);
    assert_int_equal(network_fault(&n, "leaf:0", 0), RAIL_OK); /* unit 0, rail 0, port 0 */
    assert_int_equal(route(&n, 0, 0, 1, 0).switches, 1);
    assert_int_equal(route(&n, 0, 0, 2, 0).switches, 3);
    assert_true(network_lane_rate(&n, &(struct network_flow){0, 0, 2, 0, 0}) == 0.5);
    network_clear(&n);
    q.kind = NETWORK_DUAL_PLANE;
    n = network_with(&q);
    assert_int_equal(network_fault(&n, "port:host0.0.0", 0), RAIL_OK);
    assert_int_equal(route(&n, 0, 0, 2, 0).switches, 3); /* by plane 1 */
    assert_int_equal(network_fault(&n, "port:host2.0.1", 0), RAIL_OK);
    assert_int_equal(route(&n, 0, 0, 2, 0).switches, 0); /* one has plane 1, the other plane 0 */
    network_clear(&n);
}

/* Flows of a pair of NICs are hashed apart, the same way every time. */
static void flows_spread_over_spines(void **state)
{
    (void)state;
    struct network_request q = three_tiers;
    q.tiers = 2, q.spines = 4;
    struct network n = network_with(&q);
    uint32_t used[4] = {0};
    for (uint32_t k = 0; k < 400; k++) {
        struct network_flow flow = {0, 0, 2, 0, k};
        struct network_path a, b;
        assert_true(network_route(&n, &flow, &a) && network_route(&n, &flow, &b));
        assert_memory_equal(a.link, b.link, a.n * sizeof a.link[0]);
        for (uint32_t s = 0; s < 4; s++) used[s] += uses(&n, &a, NETWORK_LEAF_UP, s);
    }
    for (uint32_t s = 0; s < 4; s++) assert_in_range(used[s], 60, 140);
    network_clear(&n);
}

static void what_cannot_be_described_is_refused(void **state)
{
    (void)state;
    static const struct { struct network_request ask; const char *says; } cases[] = {
        {{.hosts = 0, .rails = 1, .tiers = 1, .nic_gbit = 1}, "0 hosts"},
        {{.hosts = 2000000, .rails = 1, .tiers = 1, .nic_gbit = 1}, "2000000 hosts"},
        {{.hosts = 2, .rails = 65, .tiers = 1, .nic_gbit = 1}, "65 NICs"},
        {{.hosts = 2, .rails = 1, .tiers = 4, .nic_gbit = 1}, "4 tiers"},
        {{.hosts = 2, .rails = 1, .tiers = 2, .nic_gbit = 0}, "0 Gbit/s"},
        {{.hosts = 2, .rails = 1, .tiers = 2, .nic_gbit = -5}, "-5 Gbit/s"},
        {{.hosts = 2, .rails = 1, .tiers = 2, .nic_gbit = 1, .oversubscription = {-1}}, "oversubscription -1"},
        {{.hosts = 2, .rails = 1, .tiers = 2, .nic_gbit = 1, .spines = 65}, "65 spines"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        struct network n;
        assert_int_equal(network_make(&n, &cases[k].ask), RAIL_E_ARGUMENT);
        if (!strstr(rail_last_error(), cases[k].says))
            fail_msg("\"%s\" does not say %s", rail_last_error(), cases[k].says);
        assert_int_equal(network_bytes(&cases[k].ask), 0);
    }
}

static void parts_that_are_not_there_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"nic:host8.0",    "nic:host0.2", "nic:host0", "nic:.0", "nic:host0.-1",
                                      "port:host0.0.1", "leaf:8",      "leaf:",     "leaf:x", "leaf:99999999999",
                                      "spine:-1",       "core:100",    "cable:1",   ""};
    struct network n = network_with(&three_tiers);
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        if (network_fault(&n, bad[k], 0) != RAIL_E_ARGUMENT) fail_msg("\"%s\" was taken", bad[k]);
    }
    assert_false(n.faulty);
    network_clear(&n);
}

static enum rail_result of_file(const char *text, struct network *out)
{
    struct fabric *fabric;
    struct network_request q = {.rails = 2, .nic_gbit = 8, .tiers = 1};
    assert_int_equal(fabric_parse(text, strlen(text), "a file", &fabric), RAIL_OK);
    enum rail_result r = network_of_fabric(out, fabric, &q);
    char name[NETWORK_NAME_BYTES];
    if (r == RAIL_OK) assert_string_equal(network_host_name(out, 0, name), "n1");
    if (r == RAIL_OK) assert_int_equal(network_fault(out, "nic:n2.1", 0.5), RAIL_OK);
    if (r == RAIL_OK) network_clear(out);
    fabric_free(fabric);
    return r;
}

static void a_fabric_file_gives_units_and_pods(void **state)
{
    (void)state;
    struct network n;
    assert_int_equal(of_file("switch top\nswitch p q under top\nswitch a b under p\nswitch c under q\n"
                             "hosts n[1-2] under a\nhosts n3 under b\nhosts n[4-5] under c\n", &n), RAIL_OK);
    struct fabric *fabric;
    const char text[] = "switch top\nswitch p q under top\nswitch a b under p\nswitch c under q\n"
                        "hosts n[1-2] under a\nhosts n3 under b\nhosts n[4-5] under c\n";
    struct network_request q = {.rails = 2, .nic_gbit = 8, .tiers = 1};
    assert_int_equal(fabric_parse(text, strlen(text), "a file", &fabric), RAIL_OK);
    assert_int_equal(network_of_fabric(&n, fabric, &q), RAIL_OK);
    assert_int_equal(n.n_units, 3);
    assert_int_equal(n.n_pods, 2);
    assert_int_equal(n.n_tiers, 3);
    assert_int_equal(route(&n, 0, 0, 1, 0).switches, 1);
    assert_int_equal(route(&n, 0, 0, 2, 0).switches, 3);
    assert_int_equal(route(&n, 0, 0, 4, 0).switches, 5);
    network_clear(&n);
    fabric_free(fabric);
}

static void files_that_do_not_hang_together_are_refused(void **state)
{
    (void)state;
    static const struct { const char *text, *says;
    } cases[] = {
        {"switch a\n", "names no hosts"},
        {"switch top\nswitch a b under top\nswitch other\nswitch c under other\nhosts n1 under a\nhosts n2 under c\n",
         "no switch joins host n2"},
        {"switch top\nswitch a under top\nhosts n1 under a\nhosts n2 under top\n", "n2 has 1 switches above it"},
        {"switch s\nswitch t under s\nswitch p under t\nswitch a under p\nhosts n1 under a\n", "at most 3"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        struct network n;
        assert_int_equal(of_file(cases[k].text, &n), RAIL_E_ARGUMENT);
        if (!strstr(rail_last_error(), cases[k].says))
            fail_msg("\"%s\" does not say %s", rail_last_error(), cases[k].says);
    }
}

/* Two hosts with 2 NICs of 8 Gbit/s, 1 byte/ns; the third lacks one, and has one at half the rate. */
static void described_hosts_have_the_nics_they_have(void **state)
{
    (void)state;
    const struct network_host hosts[] = {{"a", 4, {8, 8}}, {"b", 4, {8, 8}}, {"c", 4, {0, 4}}};
    double most;
    assert_int_equal(network_hosts_rails(hosts, 3, &most), 2);
    assert_true(most == 8);
    struct network n = network_with(&(struct network_request){.hosts = 3, .rails = 2, .tiers = 1});
    assert_int_equal(network_set_hosts(&n, hosts, 3, 0.5), RAIL_OK);
    assert_true(n.rate[network_nic(&n, 1, 0, 0)] == 0.5f && n.rate[network_nic(&n, 2, 1, 0)] == 0.25f);
    struct network_path path;
    assert_false(network_route(&n, &(struct network_flow){0, 0, 2, 0, 0}, &path));
    assert_true(network_route(&n, &(struct network_flow){0, 1, 2, 1, 0}, &path));
    assert_int_equal(network_fault(&n, "nic:b.1", 0), RAIL_OK);
    assert_true(n.rate[network_nic(&n, 1, 1, 0)] == 0);
    assert_int_equal(network_set_hosts(&n, hosts, 2, 1), RAIL_E_ARGUMENT);
    const struct network_host twice[] = {{"a", 4, {8}}, {"b", 4, {8}}, {"a", 4, {8}}};
    assert_int_equal(network_set_hosts(&n, twice, 3, 1), RAIL_E_ARGUMENT);
    assert_non_null(strstr(rail_last_error(), "twice"));
    network_clear(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_packet_climbs_as_far_as_it_must),
        cmocka_unit_test(rates_follow_oversubscription),
        cmocka_unit_test(what_is_down_is_passed_over),
        cmocka_unit_test(a_bond_outlives_a_leaf_and_planes_stay_apart),
        cmocka_unit_test(flows_spread_over_spines),
        cmocka_unit_test(what_cannot_be_described_is_refused),
        cmocka_unit_test(parts_that_are_not_there_are_refused),
        cmocka_unit_test(a_fabric_file_gives_units_and_pods),
        cmocka_unit_test(files_that_do_not_hang_together_are_refused),
        cmocka_unit_test(described_hosts_have_the_nics_they_have),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
