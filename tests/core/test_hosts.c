/* Hosts that were not set up alike are named, with their values: number of NICs, MTU and rate of one rail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/hosts.h"

enum { NODES = 3, EACH = 2 };

/* Three nodes of two ranks, four NICs each: node h's NIC k is called eth((k + h) mod 4) and is on rail k. */
struct world {
    struct comm comm;
    struct member members[NODES * EACH];
    struct net_address addresses[NODES * EACH];
};

static struct world *make(void)
{
    struct world *w = calloc(1, sizeof *w);
    uint64_t keys[NODES * EACH];
    for (int r = 0; r < NODES * EACH; r++) {
        struct net_address *a = &w->addresses[r];
        keys[r] = (uint64_t)(r / EACH) + 1;
        snprintf(w->members[r].host_name, sizeof w->members[r].host_name, "n%d", r / EACH);
        a->n_rails = 4;
        for (uint32_t k = 0; k < 4; k++) {
            a->rails[k] = (struct net_rail_address){.family = 4, .mtu = 9000, .mbit_per_s = 100000, .rail = 100 + k};
            snprintf(a->rails[k].name, sizeof a->rails[k].name, "eth%u", (k + (uint32_t)(r / EACH)) % 4);
        }
    }
    assert_int_equal(shape_build(&w->comm.shape, NODES * EACH, keys, 1), 0);
    w->comm.n_ranks = NODES * EACH;
    w->comm.members = w->members;
    w->comm.addresses = w->addresses;
    return w;
}

static void destroy(struct world *w)
{
    shape_clear(&w->comm.shape);
    free(w);
}

static struct net_rail_address *nic(struct world *w, int node, int k) { return &w->addresses[node * EACH].rails[k]; }

static void want(struct world *w, enum hosts_difference kind, const char *words)
{
    char text[600];
    hosts_difference_text(&w->comm, kind, text, sizeof text);
    if (words[0] ? !strstr(text, words) : text[0] != '\0') fail_msg("\"%s\", not \"%s\"", text, words);
}

static void alike_is_silence(void **state)
{
    (void)state;
    struct world *w = make();
    for (int kind = 0; kind < HOSTS_DIFFERENCES; kind++) want(w, (enum hosts_difference)kind, "");
    for (int k = 0; k < 4; k++) nic(w, 0, k)->mtu = 1500, nic(w, 1, k)->mtu = 1500, nic(w, 2, k)->mtu = 1500;
    nic(w, 0, 1)->mbit_per_s = nic(w, 1, 1)->mbit_per_s = nic(w, 2, 1)->mbit_per_s = 10000; /* a slower rail, everywhere */
    for (int kind = 0; kind < HOSTS_DIFFERENCES; kind++) want(w, (enum hosts_difference)kind, "");
    destroy(w);
}

static void unknown_values_are_no_difference(void **state)
{
    (void)state;
    struct world *w = make();
    nic(w, 1, 0)->mtu = 0;
    nic(w, 2, 3)->mbit_per_s = 0;
    for (int kind = 0; kind < HOSTS_DIFFERENCES; kind++) want(w, (enum hosts_difference)kind, "");
    destroy(w);
}

static void a_host_that_lacks_a_nic_is_named(void **state)
{
    (void)state;
    struct world *w = make();
    w->addresses[2 * EACH].n_rails = 3;
    want(w, HOSTS_NICS, "node 0 (host n0) has 4, node 2 (host n2) has 3");
    want(w, HOSTS_MTU, "");
    destroy(w);
}

static void mtus_are_compared_on_one_rail_whatever_the_names(void **state)
{
    (void)state;
    struct world *w = make();
    nic(w, 1, 2)->mtu = 1500;
    want(w, HOSTS_MTU, "eth2 of node 0 (host n0) has 9000 bytes, eth3 of node 1 (host n1) has 1500 bytes; set them alike");
    nic(w, 2, 3)->mtu = 4200;
    want(w, HOSTS_MTU, "(and on 1 more)");
    destroy(w);
}

static void rates_are_compared_on_one_rail(void **state)
{
    (void)state;
    struct world *w = make();
    nic(w, 2, 0)->mbit_per_s = 25000;
    want(w, HOSTS_RATE, "eth0 of node 0 (host n0) has 100000 Mbit/s, eth2 of node 2 (host n2) has 25000 Mbit/s");
    destroy(w);
}

static void nics_of_which_no_rail_is_known_are_compared_in_order(void **state)
{
    (void)state;
    struct world *w = make();
    for (int h = 0; h < NODES; h++) nic(w, h, 1)->rail = nic(w, h, 3)->rail = 0;
    nic(w, 1, 3)->mtu = 1500;
    want(w, HOSTS_MTU, "eth3 of node 0 (host n0) has 9000 bytes, eth0 of node 1 (host n1) has 1500 bytes");
    destroy(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alike_is_silence),
        cmocka_unit_test(unknown_values_are_no_difference),
        cmocka_unit_test(a_host_that_lacks_a_nic_is_named),
        cmocka_unit_test(mtus_are_compared_on_one_rail_whatever_the_names),
        cmocka_unit_test(rates_are_compared_on_one_rail),
        cmocka_unit_test(nics_of_which_no_rail_is_known_are_compared_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
