/* test_repair.c - lanes that die between two ends, explored exhaustively: whatever the network does and in whichever
 * order, nothing is lost, nothing lands twice, and all lanes come back (docs/REPAIR.md). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define MODEL_LANES 2
#define MODEL_FRAMES 22
#define MODEL_CONTROL 22
#define MODEL_WINDOW 2
#define MODEL_GRAINS 3
typedef uint8_t model_count, model_bits;
#include "base/clock.h"
#include "transport/repair_model.h"

static bool is_long(void) { return getenv("RAILCCL_TEST_LONG") != NULL; }

/* ---- every order of everything ---- */

enum { DEPTH_MAX = 400 };

struct search {
    uint64_t *seen; /* open addressing; 0: free. Of 64-bit hashes: ten million states collide once in 300000 runs */
    uint64_t n_seen, room;
    uint64_t n_steps, n_rests, n_by_faults[8];
    uint32_t deepest;
    struct step path[DEPTH_MAX];
    const struct model_setup *setup;
    bool connected;
};

static void add_word(uint64_t *hash, uint64_t word)
{
    *hash = (*hash ^ word) * 0x9e3779b97f4a7c15ull;
    *hash ^= *hash >> 29;
}

static void add(uint64_t *hash, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint64_t word = 0;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&word, p, 8);
        add_word(hash, word);
    }
    for (word = n; n > 0; n--) word = word << 8 | *p++;
    add_word(hash, word);
}

static void add_lane(uint64_t *hash, const struct repair_lane *l, const struct model_socket *sockets)
{
    uint8_t words[] = {(uint8_t)l->state, l->in_doubt, l->was_up, (uint8_t)l->turn, (uint8_t)l->tried_turn,
                       (uint8_t)l->doubt_turn, (uint8_t)l->said_turns};
    add(hash, words, sizeof words);
    for (uint32_t i = 0; i < BERTHS; i++) {
        const struct model_socket *s = &sockets[i];
        add(hash, s, offsetof(struct model_socket, in));
        add(hash, s->in, s->n * sizeof *s->in);
    }
}

static uint64_t hash_of(const struct model *m, uint32_t faults)
{
    uint64_t hash = 0x243f6a8885a308d3ull + faults;
    for (uint32_t e = 0; e < ENDS; e++) {
        const struct model_end *end = &m->ends[e];
        const struct model_control *c = &end->control;
        add(&hash, &end->crashed, 1);
        if (end->crashed) continue;
        uint8_t words[] = {c->acked, c->next, c->sent, c->taken, (uint8_t)c->place, end->sender.credited,
                           end->receiver.arrived, end->receiver.released, end->receiver.owes, end->receiver.bits};
        add(&hash, words, sizeof words);
        add(&hash, c->kept, (size_t)(c->next - c->acked) * sizeof *c->kept);
        add(&hash, end->sender.grain, sizeof end->sender.grain);
        add(&hash, end->heard_of, sizeof end->heard_of);
        for (uint32_t i = 0; i < m->setup->n_lanes; i++) add_lane(&hash, &end->lanes[i], &end->sockets[i * BERTHS]);
    }
    add(&hash, m->knocks, sizeof m->knocks);
    hash ^= hash >> 32;
    return hash ? hash : 1;
}

static void grow(struct search *s)
{
    uint64_t *old = s->seen, n = s->room;
    s->room = n ? 2 * n : 1 << 16;
    s->seen = calloc(s->room, sizeof *s->seen);
    assert_non_null(s->seen);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = old[i] & (s->room - 1);
        while (old[i] && s->seen[at]) at = (at + 1) & (s->room - 1);
        if (old[i]) s->seen[at] = old[i];
    }
    free(old);
}

/* False: it was seen before. */
static bool is_new(struct search *s, uint64_t hash)
{
    if (2 * s->n_seen >= s->room) grow(s);
    uint64_t at = hash & (s->room - 1);
    for (; s->seen[at]; at = (at + 1) & (s->room - 1))
        if (s->seen[at] == hash) return false;
    s->seen[at] = hash;
    s->n_seen++;
    return true;
}

static void fail_with_schedule(const struct search *s, uint32_t n, const char *why)
{
    struct model m;
    model_begin(&m, s->setup, s->connected);
    fprintf(stderr, "%s, after %u steps from %s:\n", why, n, s->connected ? "both lanes up" : "the first tries");
    for (uint32_t i = 0; i < n; i++) {
        step_print(stderr, &m, s->path[i]);
        step_do(&m, s->path[i]);
    }
    fail_msg("%s", why);
}

static void explore(struct search *s, const struct model *m, uint32_t depth, uint32_t faults);

static bool explore_step(struct search *s, const struct model *m, struct step step, uint32_t depth, uint32_t faults)
{
    if (!step_possible(m, step)) return false;
    struct model next = *m;
    if (depth == DEPTH_MAX) fail_with_schedule(s, depth, "it does not come to rest");
    s->path[depth] = step;
    step_do(&next, step);
    s->n_steps++;
    if (next.wrong) fail_with_schedule(s, depth + 1, next.wrong);
    explore(s, &next, depth + 1, step.kind == S_CRASH ? 0 : faults - (step.kind >= S_FREE));
    return true;
}

static void explore(struct search *s, const struct model *m, uint32_t depth, uint32_t faults)
{
    if (!is_new(s, hash_of(m, faults))) return;
    s->n_by_faults[faults]++;
    if (depth > s->deepest) s->deepest = depth;
    bool any = false;
    uint32_t n_places = m->setup->n_lanes * BERTHS;
    for (uint32_t kind = 0; kind < (faults > 0 ? S_KINDS : S_FREE); kind++)
        for (uint32_t i = 0; i < ENDS * n_places * step_ways(kind); i++) {
            struct step step = {.kind = (uint8_t)kind, .end = i % ENDS, .place = (uint8_t)(i / ENDS % n_places),
                                .which = (uint8_t)(i / ENDS / n_places)};
            bool done = explore_step(s, m, step, depth, faults);
            any |= done && kind < S_FREE;
        }
    if (any) return;
    s->n_rests++;
    if (m->ends[CONNECTER].crashed || m->ends[ACCEPTER].crashed) return;
    const char *missing = model_rest(m);
    if (missing) fail_with_schedule(s, depth, missing);
}

static void explore_all(const struct model_setup *setup, bool connected, uint32_t faults)
{
    struct search s = {.setup = setup, .connected = connected};
    uint64_t begin_ns = rail_now_ns();
    struct model m;
    model_begin(&m, setup, connected);
    explore(&s, &m, 0, faults);
    print_message("%u lanes, %u grains in slots of %u, %u slots, %s sends%s%s, up to %u faults: %llu states, "
                  "%llu steps, %llu ends, depth %u, %.1f s\n",
                  setup->n_lanes, setup->n_grains, setup->slot_grains, setup->window,
                  setup->link_from[0] ? setup->link_from[1] ? "each end" : "the connecter" : "the accepter",
                  connected ? "" : ", from the first tries on", setup->moves ? ", lanes move" : "", faults,
                  (unsigned long long)s.n_seen, (unsigned long long)s.n_steps, (unsigned long long)s.n_rests, s.deepest,
                  (double)(rail_now_ns() - begin_ns) / 1e9);
    free(s.seen);
    assert_true(s.n_rests > 0);
}

/* Slots of two grains and one, in the same memory: a grain that comes late hits the next slot. */
static const struct model_setup connecter_sends = {.link_from = {true, false}, .n_lanes = 2, .n_grains = 3,
                                                   .slot_grains = 2, .window = 1, .turns_max = 20, .thorough = true};
static const struct model_setup accepter_sends = {.link_from = {false, true}, .n_lanes = 2, .n_grains = 3,
                                                  .slot_grains = 2, .window = 1, .turns_max = 20, .thorough = true};

static void nothing_is_lost_or_doubled_when_the_connecter_sends(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    explore_all(&connecter_sends, true, is_long() ? 2 : 1); /* six times slower: two are for the plain build */
#else
    explore_all(&connecter_sends, true, 2);
#endif
}

static void nothing_is_lost_or_doubled_when_the_accepter_sends(void **state)
{
    (void)state;
    explore_all(&accepter_sends, true, is_long() ? 2 : 1);
}

static void faults_while_the_first_tries_are_under_way_change_nothing(void **state)
{
    (void)state;
    explore_all(&connecter_sends, false, is_long() ? 2 : 1);
    explore_all(&accepter_sends, false, is_long() ? 2 : 1);
}

static void the_only_lane_repairs_itself(void **state)
{
    (void)state;
    struct model_setup setup = connecter_sends;
    setup.n_lanes = 1;
    explore_all(&setup, true, is_long() ? 7 : 4);
    setup = accepter_sends;
    setup.n_lanes = 1;
    explore_all(&setup, true, is_long() ? 7 : 4);
}

static void slots_side_by_side_are_told_apart(void **state)
{
    (void)state;
    struct model_setup setup = connecter_sends;
    setup.window = 2;
    explore_all(&setup, true, is_long() ? 2 : 1);
}

static void both_directions_are_repaired_at_once(void **state)
{
    (void)state;
    struct model_setup setup = connecter_sends;
    setup.link_from[ACCEPTER] = true;
    setup.n_grains = is_long() ? 3 : 1;
    explore_all(&setup, true, 1);
}

/* A move counts as a fault, as there would be no end of them: so these are one or two moves, or a move and a fault. */
static void lanes_that_change_their_sockets_are_repaired_as_a_whole(void **state)
{
    (void)state;
    struct model_setup setup = connecter_sends;
    setup.moves = true;
    setup.n_grains = is_long() ? 2 : 1;
    explore_all(&setup, true, 2);
    setup = accepter_sends;
    setup.moves = true;
    setup.n_grains = is_long() ? 2 : 1;
    explore_all(&setup, true, 2);
    setup.n_grains = setup.n_lanes = 1;
    explore_all(&setup, true, is_long() ? 5 : 4);
}

static void three_faults_on_two_lanes(void **state)
{
    (void)state;
    if (!is_long()) skip();
    struct model_setup setup = connecter_sends;
    setup.n_grains = setup.slot_grains = 1;
    explore_all(&setup, true, 3);
    setup = accepter_sends;
    setup.n_grains = setup.slot_grains = 1;
    explore_all(&setup, true, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_or_doubled_when_the_connecter_sends),
        cmocka_unit_test(nothing_is_lost_or_doubled_when_the_accepter_sends),
        cmocka_unit_test(faults_while_the_first_tries_are_under_way_change_nothing),
        cmocka_unit_test(the_only_lane_repairs_itself),
        cmocka_unit_test(slots_side_by_side_are_told_apart),
        cmocka_unit_test(both_directions_are_repaired_at_once),
        cmocka_unit_test(lanes_that_change_their_sockets_are_repaired_as_a_whole),
        cmocka_unit_test(three_faults_on_two_lanes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
