/* test_timeline.c - parts that die under a call: when it ends, by hand; what the real repair machines make of flapping,
 * silence, a last lane; what can never end is refused. */
#include "simulate/simulate.h"

#include <math.h>

#include "simulate/timeline.h"

#define S ((uint64_t)1 << 30) /* at 1 byte/ns and NIC: a ring of 4 takes 0.8 s on two rails */
#define MS 1e6

struct scene {
    struct network network;
    struct job_request ask;
    uint32_t *hosts;
    double whole_ns; /* of the call */
    struct timeline t;
};

static double alone(const struct scene *s)
{
    struct laid l = lay_must(&s->network, &s->ask);
    double ns = l.clocks.ns;
    laid_clear(&l);
    return ns;
}

/* A ring of 4 hosts of one rank, by rails of one leaf each. */
static struct scene *scene_of(uint32_t rails, uint32_t flows)
{
    struct scene *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->network = network_with(
        &(struct network_request){.hosts = 4, .rails = rails, .tiers = 2, .hosts_per_leaf = 4, .spines = 1});
    s->hosts = all_hosts(4);
    s->ask = (struct job_request){.hosts = s->hosts, .n_hosts = 4, .gpus = 1, .collective = PLAN_ALLREDUCE,
                                  .algorithm = PLAN_RING, .bytes = S, .flows = flows, .machine = &plain};
    s->whole_ns = alone(s);
    return s;
}

static void scene_end(struct scene *s)
{
    network_clear(&s->network);
    free(s->hosts);
    free(s);
}

static void run(struct scene *s, const struct timeline_fault *faults, uint32_t n)
{
    if (timeline_run(&s->network, &s->ask, faults, n, &s->t) != RAIL_OK) fail_msg("%s", rail_last_error());
    double at = 0, done = 0;
    for (uint32_t k = 0; k < s->t.n_stretches; k++) {
        const struct timeline_stretch *x = &s->t.stretches[k];
        assert_true(x->from_ns == at && x->to_ns > at && x->done_from == done && x->done_to >= done);
        assert_true(x->waits ? x->done_to == done && x->rail[0] == 0 : x->done_to > done);
        at = x->to_ns, done = x->done_to;
    }
    if (at != s->t.ns || !near(done, 1, 1e-9)) fail_msg("over at %g ns of %g, with %g done", at, s->t.ns, done);
    assert_true(near(s->t.whole_ns, s->whole_ns, 1e-9));
}

static double told(const struct timeline *t, const char *words, int nth)
{
    for (uint32_t k = 0; k < t->n_events; k++)
        if (strstr(t->events[k].text, words) && nth-- == 0) return t->events[k].ns;
    fail_msg("nothing says \"%s\"", words);
    return 0;
}

/* Half of the call on two rails; a millisecond until the host knows that its NIC has no carrier, and the other end at
 * once, as hops cost nothing; the other half at the pace of the pairs that have one rail. */
static void a_nic_that_dies_under_the_call(void **state)
{
    (void)state;
    struct scene *s = scene_of(2, 1);
    struct timeline_fault f = {"nic:host1.0", 0, false, s->whole_ns / 2, HUGE_VAL};
    run(s, &f, 1);
    assert_int_equal(network_fault(&s->network, "nic:host1.0", 0), RAIL_OK);
    double less_ns = alone(s);
    assert_true(near(less_ns, 2 * s->whole_ns, 1e-3));
    assert_true(near(s->t.ns, s->whole_ns / 2 + MS + less_ns / 2, 1e-9));
    assert_true(s->t.of_host && s->t.host == 1);
    assert_int_equal(s->t.n_stretches, 3);
    assert_true(near(s->t.stretches[0].rail[0], 0.75 * S / s->whole_ns, 1e-3));
    assert_true(s->t.stretches[2].rail[0] == 0 && near(s->t.stretches[2].rail[1], 1, 1e-3));
    assert_int_equal(s->t.counts.ended, 2); /* to both neighbours */
    assert_int_equal(s->t.counts.back, 0);
    assert_true(near(told(&s->t, "host1 sees it: no carrier", 0), s->whole_ns / 2 + MS, 1e-9));
    scene_end(s);
}

/* Back after 300 ms: a millisecond until the host knows, and no rest, for it did not flap before. */
static void it_comes_back(void **state)
{
    (void)state;
    struct scene *s = scene_of(2, 3);
    struct timeline_fault f = {"nic:host1.0", 0, false, 100 * MS, 400 * MS};
    run(s, &f, 1);
    assert_true(near(told(&s->t, "up again", 0), 401 * MS, 1e-9));
    double done = (100 * MS) / s->whole_ns + (300 * MS) / (2 * s->whole_ns); /* from 101 to 401 ms at half the pace */
    assert_true(near(s->t.ns, 401 * MS + (1 - done) * s->whole_ns, 1e-3));
    assert_int_equal(s->t.counts.ended, 6);
    assert_int_equal(s->t.counts.back, 6);
    scene_end(s);
}

/* Dead again 100 ms after it came back: it rests for 500 ms now, whatever the NIC says. */
static void one_that_flaps_rests_longer(void **state)
{
    (void)state;
    struct scene *s = scene_of(2, 1);
    struct timeline_fault f[] = {{"nic:host1.0", 0, false, 100 * MS, 200 * MS},
                                 {"nic:host1.0", 0, false, 300 * MS, 400 * MS}};
    run(s, f, 2);
    assert_true(near(told(&s->t, "up again", 0), 201 * MS, 1e-9));
    double again = told(&s->t, "up again", 1);
    if (again < 801 * MS - 1 || again > 1052 * MS) fail_msg("again up at %g ms", again / MS);
    scene_end(s);
}

/* The carrier stays: the judge of silence wants 250 ms, and two repeats in vain, a probe and TCP's first timeout. */
static void silence_takes_longer(void **state)
{
    (void)state;
    struct scene *s = scene_of(2, 1);
    struct timeline_fault f = {"nic:host1.0", 0, true, 100 * MS, HUGE_VAL};
    run(s, &f, 1);
    double seen = told(&s->t, "by their silence", 0) - 100 * MS;
    if (seen < 250 * MS || seen > 450 * MS) fail_msg("silent for %g ms", seen / MS);
    assert_true(near(s->t.ns, 100 * MS + seen + (s->whole_ns - 100 * MS) * 2, 1e-3));
    scene_end(s);
}

/* One rail: all stands still until the NIC is back. Its host closed the lane and could not say so; the neighbour that
 * connects hears of it by its next repeat, 1400 ms after the death (200, 600, 1400), and the reports go by the socket
 * that it opens then. */
static void the_only_lane(void **state)
{
    (void)state;
    struct scene *s = scene_of(1, 1);
    struct timeline_fault f = {"nic:host2.0", 0, false, 100 * MS, 900 * MS};
    run(s, &f, 1);
    assert_true(near(s->t.ns, s->whole_ns + 1400 * MS, 1e-6));
    assert_int_equal(s->t.counts.back, 2);
    f.until_ns = HUGE_VAL;
    assert_int_equal(timeline_run(&s->network, &s->ask, &f, 1, &s->t), RAIL_E_ARGUMENT);
    assert_non_null(strstr(rail_last_error(), "does not reach"));
    scene_end(s);
}

/* Nothing dies of it: half the rate for a while, and no waiting. */
static void a_slow_part_is_slow_while_it_is(void **state)
{
    (void)state;
    struct scene *s = scene_of(2, 1);
    struct timeline_fault f = {"leaf:1", 0.5, false, 100 * MS, 400 * MS};
    run(s, &f, 1);
    double slow_ns = s->whole_ns * 4 / 3; /* 1.5 rails instead of 2 */
    assert_true(near(s->t.ns, 400 * MS + (1 - 100 * MS / s->whole_ns - 300 * MS / slow_ns) * s->whole_ns, 1e-3));
    assert_int_equal(s->t.counts.ended, 0);
    assert_false(s->t.of_host);
    scene_end(s);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    struct scene *s = scene_of(2, 1);
    const struct { struct timeline_fault fault; const char *says; } cases[] = {
        {{"nic:host9.0", 0, false, 0, HUGE_VAL}, "host9"},
        {{"leaf:7", 0, false, 0, HUGE_VAL}, "counted from 0"},
        {{"nic:host1.0", 0, false, 5, 5}, "after the beginning"},
        {{"nic:host1.0", 0, false, -1, 5}, "after the beginning"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        assert_int_equal(timeline_run(&s->network, &s->ask, &cases[k].fault, 1, &s->t), RAIL_E_ARGUMENT);
        if (!strstr(rail_last_error(), cases[k].says)) fail_msg("\"%s\": %s", rail_last_error(), cases[k].says);
    }
    scene_end(s);
}

/* A few hundred calls with up to four faults each, by a fixed seed: each ends, later than without, in order. */
static void any_faults(void **state)
{
    (void)state;
    struct scene *s = scene_of(3, 2);
    uint64_t x = 7;
    for (int round = 0; round < 300; round++) {
        char what[4][32];
        struct timeline_fault f[4];
        uint32_t n = 1 + (uint32_t)(round % 4);
        for (uint32_t k = 0; k < n; k++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            snprintf(what[k], sizeof what[k], "nic:host%u.%u", (uint32_t)(x >> 60) % 4, (uint32_t)(x >> 50) % 3);
            double at = (double)(x >> 33 & 511) * MS;
            f[k] = (struct timeline_fault){what[k], x >> 20 & 3 ? 0 : 0.5, x >> 22 & 1, at,
                                           at + 1 + (double)(x >> 24 & 255) * MS};
        }
        run(s, f, n);
        assert_true(s->t.ns >= s->whole_ns * (1 - 1e-9));
        assert_true(s->t.ns < 12 * s->whole_ns);
    }
    scene_end(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_nic_that_dies_under_the_call), cmocka_unit_test(it_comes_back),
        cmocka_unit_test(one_that_flaps_rests_longer),    cmocka_unit_test(silence_takes_longer),
        cmocka_unit_test(the_only_lane),                  cmocka_unit_test(a_slow_part_is_slow_while_it_is),
        cmocka_unit_test(what_cannot_be_is_refused),      cmocka_unit_test(any_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
