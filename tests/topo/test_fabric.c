/* Fabric files and topology.conf: what they say is found again, what contradicts itself is refused with both lines, any
 * bytes are survived; and the order of nodes that follows crosses leaf, pod and spine as seldom as any order can. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fuzz/fuzz_fabric.c"
#include "topo/fabric.h"
#include "topo/hostlist.h"
#include "topo/shape.h"

static const char own[] = "# two pods of two leaves\n"
                          "switch podA podB under spine\n"
                          "switch spine\n"
                          "switch leaf1 leaf2 under podA   # comment\n"
                          "switch leaf3 under podB\n"
                          "hosts  n[01-03],x under leaf1\n"
                          "\n"
                          "hosts  n[04-05] under leaf2\n"
                          "hosts  m1.example.org under leaf3\n"
                          "nic    n[01-05]:mlx0 rail 0 plane A\n"
                          "nic    n[01-05]:mlx1 rail 0 plane B\n"
                          "subnet 10.77.1.9/24 rail 1\n"
                          "subnet fd00:1::/64 rail 1\r\n";

static const char tree[] = "# Slurm\n"
                           "SwitchName=s0 Nodes=n[01-02] LinkSpeed=100\n"
                           "switchname=s1 nodes=\\\n"
                           "n[03-04]\n"
                           "SwitchName=s2 Nodes=n05\n"
                           "SwitchName=top Switches=s[0-1]\n"
                           "SwitchName=core Switches=top,s2\n";

static const char block[] = "BlockName=b1 Nodes=n[01-02]\nBlockName=b2 Nodes=n[03-04]\nBlockName=b3 Nodes=n[05-06]\n"
                            "BlockName=b4 Nodes=n07\nBlockName=b5 Nodes=n08\nBlockSizes=2,4,8\n";

static struct fabric *read_text(const char *text)
{
    struct fabric *f = NULL;
    if (fabric_parse(text, strlen(text), "file", &f) != RAIL_OK) fail_msg("%s", rail_own_error());
    return f;
}

/* How many tiers from the top two hosts have in common. */
static int common(const struct fabric *f, const char *a, const char *b)
{
    struct place x = fabric_place(f, a), y = fabric_place(f, b);
    int n = 0;
    while (n < PLACE_TIERS && x.tier[n] && x.tier[n] == y.tier[n]) n++;
    return n;
}

static int depth(const struct fabric *f, const char *host) { return common(f, host, host); }

static uint64_t rail(const struct fabric *f, const char *host, const char *interface, const char *address)
{
    struct sockaddr_storage a = {0};
    uint64_t key = 77;
    if (inet_pton(AF_INET, address, &((struct sockaddr_in *)(void *)&a)->sin_addr) == 1) a.ss_family = AF_INET;
    else if (inet_pton(AF_INET6, address, &((struct sockaddr_in6 *)(void *)&a)->sin6_addr) == 1) a.ss_family = AF_INET6;
    else fail_msg("%s", address);
    if (fabric_rail(f, host, interface, &a, &key) != RAIL_OK) fail_msg("%s", rail_own_error());
    return key;
}

static void our_own_file(void **state)
{
    (void)state;
    struct fabric *f = read_text(own);
    assert_int_equal(depth(f, "n01"), 3);
    assert_int_equal(common(f, "n01", "n03"), 3);
    assert_int_equal(common(f, "n01", "x"), 3);
    assert_int_equal(common(f, "n01", "n04"), 2);
    assert_int_equal(common(f, "n01", "m1.example.org"), 1);
    assert_int_equal(depth(f, "n1"), 0); /* the width counts */
    assert_int_equal(depth(f, "n06"), 0);
    assert_int_equal(depth(f, "n02.cluster.local"), 3);
    assert_true(rail(f, "n01", "mlx0", "10.0.0.1") != 0);
    assert_true(rail(f, "n01", "mlx0", "10.0.0.1") == rail(f, "n05", "mlx0", "10.9.0.1"));
    assert_true(rail(f, "n01", "mlx0", "10.0.0.1") != rail(f, "n01", "mlx1", "10.0.0.1")); /* another plane */
    assert_true(rail(f, "any", "eth7", "10.77.1.200") == rail(f, "other", "ib0", "fd00:1::5"));
    assert_int_equal(rail(f, "any", "eth7", "10.77.2.200"), 0);
    fabric_free(f);
}

static void slurms_tree_and_blocks(void **state)
{
    (void)state;
    struct fabric *f = read_text(tree);
    assert_int_equal(common(f, "n01", "n02"), 3);
    assert_int_equal(common(f, "n01", "n03"), 2);
    assert_int_equal(common(f, "n01", "n05"), 1);
    assert_int_equal(depth(f, "n05"), 2);
    fabric_free(f);
    f = read_text(block);
    assert_int_equal(common(f, "n01", "n02"), 3); /* block, 4 nodes, 8 nodes */
    assert_int_equal(common(f, "n01", "n03"), 2);
    assert_int_equal(common(f, "n01", "n07"), 1);
    assert_int_equal(common(f, "n05", "n07"), 2);
    assert_int_equal(common(f, "n01", "n08"), 0); /* the fifth block is of another eight */
    fabric_free(f);
}

static void what_is_wrong_is_said_with_its_line(void **state)
{
    (void)state;
    static const struct { const char *text, *wanted; } cases[] = {
        {"switch a\nhost n1 under a\n", "file:2: \"host\" is no statement"},
        {"switch\n", "file:1: no name"},
        {"hosts n1 under a\n", "file:1: switch a is mentioned here and declared nowhere"},
        {"switch a\nswitch a\n", "file:2: switch a is there already, in line 1"},
        {"switch a under b\nswitch b under a\n", "is above itself"},
        {"switch a under a\n", "file:1: switch a is above itself"},
        {"switch a b\nhosts n[1-3] under a\nhosts n2 under b\n", "file:3: host n2 is under b here and under a in line 2"},
        {"switch a\nhosts n[3-1] under a\n", "file:2: list of hosts: a range runs backwards"},
        {"switch a\nhosts n[1-3 under a\n", "file:2: list of hosts: a bracket is not closed"},
        {"switch a\nhosts n] under a\n", "a bracket is closed that was not opened"},
        {"switch a\nhosts n[0-9999999] under a\n", "more than 1048576 hosts"},
        {"switch a\nhosts n[1234567890] under a\n", "a number of up to 9 digits is missing"},
        {"switch a\nhosts a,,b under a\n", "a host name is empty"},
        {"nic n1:eth0 rail 0\nnic n[1-2]:eth0 rail 1\n", "file:2: n1:eth0 is on rail 1 here and on rail 0 in line 1"},
        {"nic n1 rail 0\n", "file:1: no interface in \"n1\""},
        {"nic n1:eth0 rial 0\n", "file:1: write: nic"},
        {"nic n1:abcdefghijklmnopq rail 0\n", "at most 15 characters"},
        {"subnet 10.0.0.0 rail 0\n", "is no subnet"},
        {"subnet 10.0.0.0/33 rail 0\n", "is no subnet"},
        {"subnet 10.0.0.0/-1 rail 0\n", "is no subnet"},
        {"subnet 10.0.0.0/8 rail 0\nsubnet 10.1.0.0/16 rail 0\nsubnet 10.2.0.0/16 rail 2\n",
         "file:3: this subnet lies inside that of line 1"},
        {"switch s1 under s2\nswitch s2 under s3\nswitch s3 under s4\nswitch s4 under s5\nswitch s5 under s6\nswitch s6 under "
         "s7\nswitch s7 under s8\nswitch s8 under s9\nswitch s9\n", "switch s1 has too many switches above it"},
        {"SwitchName=a\n", "file:1: SwitchName without Nodes and Switches"},
        {"SwitchName=a Nodes=n1\nSwitchName=b Nodes=n1\n", "file:2: host n1 is under b here and under a in line 1"},
        {"SwitchName=a Nodes=n1\nSwitchName=b Switches=c\n", "file:2: switch c is mentioned here"},
        {"SwitchName=a Nodes=n1\nSwitchName=b Switches=a\nSwitchName=c Switches=a\n",
         "file:3: switch a is under c here and under b in line 2"},
        {"SwitchName=a Switches=b\nSwitchName=b Switches=a\n", "is above itself"},
        {"SwitchName=a Nodes=n1 Speed=3\n", "file:1: \"Speed\" is not known in topology.conf"},
        {"SwitchName=a Nodes=n1 Nodes=n2\n", "Nodes twice"},
        {"SwitchName=a \\\nNodes=n1\nBlockSizes=4,6\nBlockName=b Nodes=n2\n", "file:3: BlockSizes: 6 is no multiple of 4"},
        {"BlockSizes=4\nBlockSizes=4\n", "file:2: BlockSizes a second time, after line 1"},
        {"BlockSizes=99999999999999999999\n", "BlockSizes wants"},
        {"BlockName=b\n", "BlockName without Nodes"},
        {"LinkSpeed=1\n", "a line wants one of"},
        {"SwitchName=\n", "is no KEY=VALUE"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fabric *f = NULL;
        enum rail_result r = fabric_parse(cases[i].text, strlen(cases[i].text), "file", &f);
        if (r == RAIL_OK) fail_msg("accepted: %s", cases[i].text);
        if (f || r != RAIL_E_ARGUMENT || !strstr(rail_own_error(), cases[i].wanted))
            fail_msg("%s: \"%s\" lacks \"%s\"", cases[i].text, rail_own_error(), cases[i].wanted);
    }
    struct fabric *f = NULL;
    assert_int_equal(fabric_parse("switch a\0b\n", 11, "file", &f), RAIL_E_ARGUMENT);
    assert_non_null(strstr(rail_own_error(), "zero byte at offset 8"));
    assert_int_equal(fabric_load("/nonexistent/fabric", &f), RAIL_E_ARGUMENT);
    assert_non_null(strstr(rail_own_error(), "/nonexistent/fabric: No such file"));
    assert_int_equal(fabric_load("/", &f), RAIL_E_ARGUMENT);
    f = read_text("nic n1:eth0 rail 0\nsubnet 10.0.0.0/8 rail 1\n");
    struct sockaddr_storage a = {.ss_family = AF_INET};
    ((struct sockaddr_in *)(void *)&a)->sin_addr.s_addr = htonl(0x0a000001);
    uint64_t key;
    assert_int_equal(fabric_rail(f, "n1", "eth0", &a, &key), RAIL_E_ARGUMENT);
    assert_non_null(strstr(rail_own_error(), "n1:eth0 is on rail 0 here, and its address is in the subnet of line 2, on rail 1"));
    fabric_free(f);
}

struct listed { char text[400]; };
static enum rail_result write_down(void *owner, const char *name)
{
    struct listed *l = owner;
    strncat(l->text, name, sizeof l->text - strlen(l->text) - 2);
    strcat(l->text, " ");
    return RAIL_OK;
}

static void lists_of_hosts(void **state)
{
    (void)state;
    static const struct { const char *list, *hosts; } cases[] = {
        {"a", "a "}, {"a,b", "a b "}, {"n[1-3]", "n1 n2 n3 "}, {"n[08-11]x", "n08x n09x n10x n11x "},
        {"n[1,3-4,007]", "n1 n3 n4 n007 "}, {"r[1-2]n[1-2],z", "r1n1 r1n2 r2n1 r2n2 z "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct listed l = {""};
        char why[HOSTLIST_WHY_BYTES];
        assert_int_equal(hostlist_each(cases[i].list, write_down, &l, why), RAIL_OK);
        assert_string_equal(l.text, cases[i].hosts);
    }
}

/* ---- order ---- */

static uint32_t least[PLACE_TIERS];

static void try_all(const struct place *places, uint32_t n, uint32_t *order, uint32_t fixed, uint32_t tiers)
{
    if (fixed == n) {
        for (uint32_t t = 0; t < tiers; t++) {
            uint32_t c = place_crossings(n, places, order, t);
            if (c < least[t]) least[t] = c;
        }
        return;
    }
    for (uint32_t i = fixed; i < n; i++) {
        uint32_t kept = order[fixed];
        order[fixed] = order[i];
        order[i] = kept;
        try_all(places, n, order, fixed + 1, tiers);
        order[i] = order[fixed];
        order[fixed] = kept;
    }
}

/* At every tier at once: no order crosses any tier less often, not even one that cares for that tier alone. */
static void no_order_crosses_less_often(void **state)
{
    (void)state;
    srand(11);
    for (int round = 0; round < 300; round++) {
        uint32_t n = round < 8 ? 9 : 2 + (uint32_t)rand() % 6, tiers = 1 + (uint32_t)rand() % 3;
        struct place places[9] = {{{0}}};
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t t = 0; t < tiers && rand() % 8; t++) places[i].tier[t] = 1 + (uint64_t)rand() % 3;
        uint32_t order[9], ours[9];
        for (uint32_t i = 0; i < n; i++) order[i] = i;
        memset(least, 0xff, sizeof least);
        try_all(places, n, order, 1, tiers); /* a ring may begin anywhere: the first stays */
        assert_int_equal(place_order(n, places, ours), 0);
        uint32_t seen = 0;
        for (uint32_t i = 0; i < n; i++) seen |= 1u << ours[i];
        assert_int_equal(seen, (1u << n) - 1);
        for (uint32_t t = 0; t < tiers; t++)
            if (place_crossings(n, places, ours, t) != least[t])
                fail_msg("round %d: %u nodes, tier %u: %u crossings, %u are possible", round, n, t,
                         place_crossings(n, places, ours, t), least[t]);
    }
}

static void where_nothing_is_known_the_order_stays(void **state)
{
    (void)state;
    struct place places[1000] = {{{0}}};
    uint32_t order[1000];
    assert_int_equal(place_order(1000, places, order), 0);
    for (uint32_t i = 0; i < 1000; i++) assert_int_equal(order[i], i);
    assert_int_equal(place_order(0, places, order), 0);
}

/* Six ranks on three nodes A B A C B C; the nodes get the order C A B. */
static void a_shape_follows_the_order(void **state)
{
    (void)state;
    static const uint64_t keys[] = {7, 8, 7, 9, 8, 9};
    static const uint32_t order[] = {2, 0, 1}, wanted[] = {3, 5, 0, 2, 1, 4};
    struct shape s;
    assert_int_equal(shape_build(&s, 6, keys, 1), 0);
    assert_int_equal(shape_reorder(&s, order), 0);
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(s.order[i], wanted[i]);
        assert_int_equal(s.position[wanted[i]], i);
        assert_int_equal(s.node_of[wanted[i]], i / 2);
        assert_int_equal(s.peer_of[wanted[i]], i % 2);
    }
    for (uint32_t k = 0; k <= 3; k++) assert_int_equal(s.node_start[k], 2 * k);
    shape_clear(&s);
}

/* Seven nodes: pod P with leaves a (2 nodes), b and c (1 each), pod Q with leaf d (3). All hang under one top, which is no
 * tier, and the tiers below a leaf say nothing. */
static void an_order_gives_a_shape_its_tiers(void **state)
{
    (void)state;
    static const char names[][2] = {"Pa", "Qd", "Pb", "Pa", "Qd", "Pc", "Qd"};
    static const uint32_t leaves[] = {0, 0, 1, 2, 3, 3, 3};
    struct place places[7] = {{{0}}};
    uint64_t keys[7];
    uint32_t order[7];
    struct shape s;
    for (uint32_t i = 0; i < 7; i++) {
        keys[i] = i;
        places[i] = (struct place){{'T', (uint64_t)names[i][0], (uint64_t)names[i][1]}};
    }
    assert_int_equal(shape_build(&s, 7, keys, 1), 0);
    assert_int_equal(s.n_tiers, 0);
    assert_int_equal(place_order(7, places, order), 0);
    assert_int_equal(shape_reorder(&s, order), 0);
    assert_int_equal(place_tiers(&s, places, order), 0);
    assert_int_equal(s.n_tiers, 2);
    assert_int_equal(s.tiers[0].n_groups, 4);
    assert_int_equal(s.tiers[1].n_groups, 2);
    for (uint32_t node = 0; node < 7; node++) {
        assert_int_equal(shape_group(&s, 0, node), leaves[node]);
        assert_int_equal(shape_group(&s, 1, node), node >= 4);
    }
    assert_int_equal(s.tiers[0].start[4], 7);
    assert_int_equal(s.tiers[1].start[1], 3);
    shape_clear(&s);
}

/* Wherever a ring goes from group to group, there are as many groups in the shape; one group, or each node its own, is no
 * tier. */
static void a_shape_has_the_tiers_that_a_ring_crosses(void **state)
{
    (void)state;
    srand(12);
    for (int round = 0; round < 2000; round++) {
        uint32_t n = 1 + (uint32_t)rand() % 40, depth = 1 + (uint32_t)rand() % PLACE_TIERS, order[40], tier = 0;
        uint64_t keys[40];
        struct place places[40] = {{{0}}};
        struct shape s;
        for (uint32_t i = 0; i < n; i++) {
            keys[i] = i;
            for (uint32_t t = 0; t < depth && rand() % 8; t++) places[i].tier[t] = 1 + (uint64_t)rand() % 2;
        }
        assert_int_equal(shape_build(&s, n, keys, 1), 0);
        assert_int_equal(place_order(n, places, order), 0);
        assert_int_equal(shape_reorder(&s, order), 0);
        assert_int_equal(place_tiers(&s, places, order), 0);
        uint32_t below = n;
        for (uint32_t t = PLACE_TIERS; t-- > 0;) {
            uint32_t crossings = place_crossings(n, places, order, t);
            if (crossings < 2 || crossings == below) continue;
            assert_int_equal(s.tiers[tier++].n_groups, crossings);
            below = crossings;
        }
        assert_int_equal(s.n_tiers, tier);
        shape_clear(&s);
    }
}

/* Cut, flipped, doubled, and spliced with one another: nothing crashes, and every refusal names a line. */
static void damaged_files_are_survived(void **state)
{
    (void)state;
    static const char *const seeds[] = {own, tree, block};
    srand(3);
    int rounds = getenv("RAILCCL_TEST_LONG") ? 1000000 : 20000;
    for (int round = 0; round < rounds; round++) {
        char text[2048];
        const char *a = seeds[rand() % 3], *b = seeds[rand() % 3];
        size_t n = (size_t)rand() % (strlen(a) + 1), from = (size_t)rand() % (strlen(b) + 1), rest = strlen(b + from);
        memcpy(text, a, n);
        memcpy(text + n, b + from, rest);
        n += rest;
        for (int k = rand() % 4; k > 0 && n > 0; k--)
            text[(size_t)rand() % n] = (char)(rand() % 3 ? "[]-,=:/ #\n0"[rand() % 11] : rand());
        LLVMFuzzerTestOneInput((const uint8_t *)text, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(our_own_file),
        cmocka_unit_test(slurms_tree_and_blocks),
        cmocka_unit_test(what_is_wrong_is_said_with_its_line),
        cmocka_unit_test(lists_of_hosts),
        cmocka_unit_test(no_order_crosses_less_often),
        cmocka_unit_test(where_nothing_is_known_the_order_stays),
        cmocka_unit_test(a_shape_follows_the_order),
        cmocka_unit_test(an_order_gives_a_shape_its_tiers),
        cmocka_unit_test(a_shape_has_the_tiers_that_a_ring_crosses),
        cmocka_unit_test(damaged_files_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
