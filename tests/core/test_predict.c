/* test_predict.c - what ncclGroupSimulateEnd answers between hosts: plans laid over the NICs that the communicator
 * knows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/predict.h"
#include "core/predict_network.h"

enum { NODES = 4, RAILS = 2 };
#define COUNT ((size_t)16 << 20) /* 64 MiB of f32 */

/* Four hosts of one rank, two NICs of 10 Gbit/s and 9000 bytes. Host h counts its NICs from rail h on. */
struct world {
    struct comm comm;
    struct member members[NODES];
    struct net_address addresses[NODES];
};

static struct world *make(void)
{
    struct world *w = calloc(1, sizeof *w);
    uint64_t keys[NODES];
    assert_non_null(w);
    for (int r = 0; r < NODES; r++) {
        keys[r] = (uint64_t)r + 1;
        memset(&w->members[r].host, r + 1, sizeof w->members[r].host);
        w->addresses[r].n_rails = RAILS;
        for (int k = 0; k < RAILS; k++)
            w->addresses[r].rails[(k + r) % RAILS] =
                (struct net_rail_address){.family = 4, .mtu = 9000, .mbit_per_s = 10000, .rail = 100 + (uint64_t)k};
    }
    assert_int_equal(shape_build(&w->comm.shape, NODES, keys, RAILS), 0);
    w->comm.n_ranks = NODES;
    w->comm.members = w->members;
    w->comm.addresses = w->addresses;
    choice_table_default(&w->comm.table, &w->comm.shape);
    w->comm.table.forced_algorithm = PLAN_RING;
    return w;
}

static void destroy(struct world *w)
{
    shape_clear(&w->comm.shape);
    free(w);
}

static struct net_rail_address *nic(struct world *w, int node, int rail)
{
    return &w->addresses[node].rails[(rail + node) % RAILS];
}

static double predicted(const struct world *w, enum plan_collective kind, size_t count)
{
    struct collective a = {.kind = kind, .count = count, .type = RAIL_F32};
    double ns = -1;
    assert_int_equal(predict_collective(&w->comm, &a, &ns), RAIL_OK);
    return ns;
}

static void around(double value, double wanted, double share)
{
    if (value < wanted * (1 - share) || value > wanted * (1 + share)) fail_msg("%g, not %g", value, wanted);
}

/* 1.5 S by 2 NICs of 1.25 bytes/ns, of which 8948 in 9014 are payload. */
static void a_ring_takes_what_its_nics_need(void **state)
{
    (void)state;
    struct world *w = make();
    assert_true(predict_network_known(&w->comm));
    around(predicted(w, PLAN_ALLREDUCE, COUNT), 1.5 * 4 * COUNT / (2 * 1.25 * 8948 / 9014), 0.05);
    around(predicted(w, PLAN_ALLGATHER, COUNT / 4), 0.75 * 4 * COUNT / (2 * 1.25 * 8948 / 9014), 0.05);
    around(predicted(w, PLAN_ALLTOALL, COUNT / 4), 0.75 * 4 * COUNT / (2 * 1.25 * 8948 / 9014), 0.05);
    assert_true(predicted(w, PLAN_ALLREDUCE, 1) >= 6 * 14000); /* hops */
    destroy(w);
}

/* Its host's pairs have three quarters of the rate. */
static void a_nic_at_half_rate_is_seen(void **state)
{
    (void)state;
    struct world *w = make();
    double whole = predicted(w, PLAN_ALLREDUCE, COUNT);
    nic(w, 2, 1)->mbit_per_s = 5000;
    around(predicted(w, PLAN_ALLREDUCE, COUNT), whole * 4 / 3, 0.02);
    destroy(w);
}

static void deterministic_plans_are_laid_too(void **state)
{
    (void)state;
    struct world *w = make();
    double ring = predicted(w, PLAN_ALLREDUCE, COUNT);
    w->comm.table.deterministic = 1;
    assert_true(predicted(w, PLAN_ALLREDUCE, COUNT) > 1.3 * ring); /* a rank sends up to 4 S */
    destroy(w);
}

/* A rate that nobody tells, another number of NICs, two nodes on one host: the answer is that of plain rates. */
static void what_is_not_known_is_not_made_up(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        struct world *w = make();
        if (way == 0) nic(w, 1, 0)->mbit_per_s = 0;
        if (way == 1) w->addresses[3].n_rails = 1;
        if (way == 2) w->members[2].host = w->members[1].host;
        if (way == 3) nic(w, 1, 1)->rail = 777;
        assert_false(predict_network_known(&w->comm));
        assert_true(predicted(w, PLAN_ALLREDUCE, COUNT) > 0);
        destroy(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ring_takes_what_its_nics_need),
        cmocka_unit_test(a_nic_at_half_rate_is_seen),
        cmocka_unit_test(deterministic_plans_are_laid_too),
        cmocka_unit_test(what_is_not_known_is_not_made_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
