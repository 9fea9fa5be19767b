/* test_repair_random.c - lanes that die between two ends, many of them, with much on its way and many faults: schedules
 * drawn at random. RAILCCL_TEST_SEED=n repeats a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define MODEL_LANES 16
#define MODEL_FRAMES 1024
#define MODEL_CONTROL 1000
#define MODEL_WINDOW 8
#define MODEL_GRAINS 8
typedef uint16_t model_count;
typedef uint64_t model_bits;
#include "base/clock.h"
#include "transport/repair_model.h"

enum { STEPS_MAX = 400000, SHOWN = 150, VAIN = 64 };

struct schedule {
    struct model_setup setup;
    struct model model;
    uint64_t seed, random;
    uint32_t number, faults;     /* faults: that may still come */
    uint32_t fault_in;           /* one in so many steps is a fault */
    uint32_t slow;               /* lanes, as bits, that are read rarely */
    bool connected;
    uint32_t n_steps;
    struct step steps[STEPS_MAX];
};

static struct schedule the; /* large */
static uint64_t n_steps_all, n_faults_all, n_lanes_all, n_crashes, n_grains_all;

static uint32_t draw(uint32_t below)
{
    uint64_t x = the.random += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)((x ^ (x >> 31)) % below);
}

static void fail_with_schedule(const char *why)
{
    static struct model m;
    model_begin(&m, &the.setup, the.connected);
    fprintf(stderr, "%s: seed %llu, schedule %u, %u lanes, %u grains in slots of %u, %u slots, after %u steps:\n", why,
            (unsigned long long)the.seed, the.number, the.setup.n_lanes, the.setup.n_grains, the.setup.slot_grains,
            the.setup.window, the.n_steps);
    for (uint32_t i = 0; i < the.n_steps; i++) {
        if (i + SHOWN >= the.n_steps) step_print(stderr, &m, the.steps[i]);
        step_do(&m, the.steps[i]);
    }
    fail_msg("%s; RAILCCL_TEST_SEED=%llu repeats it", why, (unsigned long long)the.seed);
}

static struct step drawn(bool fault)
{
    uint32_t kind = fault ? S_FREE + draw(S_KINDS - S_FREE) : draw(S_FREE);
    return (struct step){.kind = (uint8_t)kind, .end = (uint8_t)draw(ENDS),
                         .place = (uint8_t)draw(the.setup.n_lanes * BERTHS),
                         .which = (uint8_t)draw(step_ways(kind))};
}

/* Rare ones are made rarer than the draw has them. */
static bool rejected(struct step s)
{
    if (s.kind == S_CRASH) return draw(400) != 0;
    if (s.kind == S_CUT_ALL) return draw(20) != 0;
    if (s.kind == S_RESET) return draw(4) != 0;
    if (s.kind == S_DELIVER && the.slow >> s.place / BERTHS & 1) return draw(16) != 0;
    return false;
}

/* False: nothing goes on by itself. */
static bool next_step(struct step *out)
{
    bool fault = the.faults > 0 && draw(the.fault_in) == 0;
    for (uint32_t i = 0; i < VAIN; i++) {
        *out = drawn(fault);
        if (!rejected(*out) && step_possible(&the.model, *out)) return true;
    }
    uint32_t n_places = the.setup.n_lanes * BERTHS;
    for (uint32_t kind = 0; kind < S_FREE; kind++)
        for (uint32_t i = 0; i < ENDS * n_places * step_ways(kind); i++) {
            *out = (struct step){.kind = (uint8_t)kind, .end = i % ENDS,
                                 .place = (uint8_t)(i / ENDS % n_places),
                                 .which = (uint8_t)(i / ENDS / n_places)};
            if (step_possible(&the.model, *out)) return true;
        }
    return false;
}

static void schedule_draw(uint64_t seed, uint32_t number)
{
    uint32_t links;
    the.seed = seed;
    the.number = number;
    the.random = seed + number * 0x100000001b3ull;
    links = 1 + draw(3);
    the.setup = (struct model_setup){
        .link_from = {links & 1, links & 2}, .n_lanes = 1 + draw(MODEL_LANES), .slot_grains = 1 + draw(MODEL_GRAINS),
        .window = 1 + draw(MODEL_WINDOW), .n_grains = 1 + draw(300), .moves = draw(2), .reader_waits = draw(2),
        .turns_max = 10000,
    };
    the.faults = draw(3) == 0 ? draw(4) : draw(60);
    the.fault_in = 1u << draw(8);
    the.slow = draw(2) ? draw(1u << 16) : 0;
    the.connected = draw(2);
    the.n_steps = 0;
    model_begin(&the.model, &the.setup, the.connected);
}

static void schedule_run(void)
{
    struct model *m = &the.model;
    uint32_t after_crash = 2000;
    struct step step;
    while (next_step(&step)) {
        if (the.n_steps == STEPS_MAX) fail_with_schedule("it does not come to rest");
        the.steps[the.n_steps++] = step;
        step_do(m, step);
        if (step.kind >= S_FREE) the.faults--, n_faults_all++;
        if (step.kind == S_CRASH) n_crashes++;
        if (m->wrong) fail_with_schedule(m->wrong);
        if ((m->ends[0].crashed || m->ends[1].crashed) && after_crash-- == 0) return; /* it tries again for ever */
    }
    const char *missing = m->ends[0].crashed || m->ends[1].crashed ? NULL : model_rest(m);
    if (missing) fail_with_schedule(missing);
}

static void whatever_happens_to_many_lanes_nothing_is_lost_or_doubled(void **state)
{
    (void)state;
    const char *given = getenv("RAILCCL_TEST_SEED");
    uint64_t begin_ns = rail_now_ns(), seed = given ? strtoull(given, NULL, 0) : begin_ns;
    uint32_t n = getenv("RAILCCL_TEST_LONG") ? 100000 : 3000;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (uint32_t i = 0; i < n; i++) {
        schedule_draw(seed, i);
        n_lanes_all += the.setup.n_lanes;
        n_grains_all += the.setup.n_grains * (1 + (the.setup.link_from[0] && the.setup.link_from[1]));
        schedule_run();
        n_steps_all += the.n_steps;
    }
    print_message("%u schedules, %llu lanes, %llu grains, %llu faults, %llu crashes, %llu steps, %.1f s\n", n,
                  (unsigned long long)n_lanes_all, (unsigned long long)n_grains_all, (unsigned long long)n_faults_all,
                  (unsigned long long)n_crashes, (unsigned long long)n_steps_all,
                  (double)(rail_now_ns() - begin_ns) / 1e9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_happens_to_many_lanes_nothing_is_lost_or_doubled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
