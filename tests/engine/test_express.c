/* The ring of express lines: whoever gets nothing is through at once and may be a ring ahead, never further; whatever order
 * rooted calls and calls in which all meet come in, and however late a rank is, everybody gets what was meant for it;
 * and calls that differ show, even where each rank alone would have been content.
 *
 * Ranks are threads that share one segment. Inputs are hashed from (round, rank, byte), so a line that is read too late or
 * written too early gives a wrong byte. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/memory.h"
#include "engine/calls.h"
#include "engine/express.h"
#include "engine/signature.h"

static const uint32_t identity[EXPRESS_MAX_PEERS] = {0, 1, 2, 3, 4, 5, 6, 7};

struct world {
    uint32_t n;
    uint8_t key[32];
    void *(*body)(void *rank);
    unsigned seed;
    pthread_barrier_t ready;
    _Atomic uint32_t ahead, go, stop; /* what a test needs */
};

struct rank {
    struct world *world;
    struct host_node node;
    struct wait_policy policy;
    unsigned char *in, *out;
    char why[300]; /* "" while all is well */
};

#define EXPECT(rank, condition, ...)                                                                                          \
    do {                                                                                                                      \
        if (!(condition) && !(rank)->why[0]) snprintf((rank)->why, sizeof (rank)->why, __VA_ARGS__);                          \
    } while (0)

static void *rank_main(void *arg)
{
    struct rank *me = arg;
    struct shm_request request = {.geometry = {.n_peers = me->world->n, .n_slots = 2, .slot_bytes = 1024, .window_channels = 1,
                                               .express = 1},
                                  .leader = me->node.self == 0, .first_of_process = me->node.self == 0, .n_processes = 1,
                                  .deadline = rail_deadline_in_ns(20 * RAIL_NS_PER_S)};
    memcpy(request.key, me->world->key, 32);
    pthread_barrier_wait(&me->world->ready);
    if (shm_segment_open(&request, &me->node.segment) != RAIL_OK) {
        snprintf(me->why, sizeof me->why, "segment: %s", rail_last_error());
        return NULL;
    }
    me->world->body(me);
    pthread_barrier_wait(&me->world->ready); /* nobody unmaps before all are done */
    shm_segment_close(&me->node.segment);
    return NULL;
}

static void run(uint32_t n, void *(*body)(void *), unsigned seed)
{
    static struct rank ranks[EXPRESS_MAX_PEERS];
    static unsigned char in[EXPRESS_MAX_PEERS][SHM_EXPRESS_BYTES];
    static unsigned char out[EXPRESS_MAX_PEERS][EXPRESS_MAX_PEERS * SHM_EXPRESS_BYTES];
    struct world world = {.n = n, .body = body, .seed = seed};
    pthread_t threads[EXPRESS_MAX_PEERS];
    rail_random(world.key, sizeof world.key);
    pthread_barrier_init(&world.ready, NULL, n);
    for (uint32_t r = 0; r < n; r++) {
        ranks[r] = (struct rank){.world = &world, .node = {.self = r, .ranks = identity}, .in = in[r], .out = out[r],
                                 .policy = wait_policy_make((int)n, 2, false, 20)};
        pthread_create(&threads[r], NULL, rank_main, &ranks[r]);
    }
    for (uint32_t r = 0; r < n; r++) pthread_join(threads[r], NULL);
    pthread_barrier_destroy(&world.ready);
    for (uint32_t r = 0; r < n; r++)
        if (ranks[r].why[0]) fail_msg("%u ranks, rank %u: %s", n, r, ranks[r].why);
}

/* ---- calls of bytes ---- */

static unsigned char byte_of(uint64_t round, uint32_t rank, size_t k)
{
    return (unsigned char)((round * 2654435761u + rank * 40503u + k * 97u) >> 5);
}

static struct express_call call_of(const struct rank *me, enum plan_collective kind, size_t count, uint32_t root)
{
    return (struct express_call){.kind = collective_kind(kind), .how = {.type = RAIL_U8, .op = RAIL_SUM}, .input = me->in,
                                 .output = me->out, .count = count, .root = root};
}

static void fill(struct rank *me, uint64_t round, size_t bytes)
{
    for (size_t k = 0; k < bytes; k++) me->in[k] = byte_of(round, me->node.self, k);
}

static void begin(struct rank *me, enum plan_collective kind, size_t count, uint32_t root)
{
    calls_begin(&me->node, signature_make(signature_collective(kind), RAIL_U8, 0, root, count));
}

static enum rail_result call(struct rank *me, enum plan_collective kind, size_t count, uint32_t root)
{
    struct express_call c = call_of(me, kind, count, root);
    begin(me, kind, count, root);
    return express_collective(&me->node, &me->policy, &me->world->stop, &c);
}

/* What byte k of rank's output is after the call. */
static unsigned char wanted(enum plan_collective kind, uint64_t round, uint32_t n, uint32_t rank, size_t count,
                            uint32_t root, size_t k)
{
    unsigned char sum = 0;
    switch (kind) {
    case PLAN_BROADCAST: return byte_of(round, root, k);
    case PLAN_SCATTER: return byte_of(round, root, rank * count + k);
    case PLAN_GATHER:
    case PLAN_ALLGATHER: return byte_of(round, (uint32_t)(k / count), k % count);
    case PLAN_ALLTOALL: return byte_of(round, (uint32_t)(k / count), rank * count + k % count);
    case PLAN_REDUCESCATTER: k += rank * count; break;
    default: break;
    }
    for (uint32_t r = 0; r < n; r++) sum = (unsigned char)(sum + byte_of(round, r, k));
    return sum;
}

static void check(struct rank *me, enum plan_collective kind, uint64_t round, size_t count, uint32_t root)
{
    struct collective_kind k = collective_kind(kind);
    size_t bytes = count * (k.output_blocks ? me->world->n : 1);
    if (k.root_gets && me->node.self != root) return;
    for (size_t i = 0; i < bytes && !me->why[0]; i++)
        EXPECT(me, me->out[i] == wanted(kind, round, me->world->n, me->node.self, count, root, i),
               "round %llu, %s of %zu, root %u: byte %zu is %u", (unsigned long long)round, collective_name(kind), count,
               root, i, me->out[i]);
}

static void nap_ns(uint64_t ns)
{
    struct timespec t = {(time_t)(ns / RAIL_NS_PER_S), (long)(ns % RAIL_NS_PER_S)};
    nanosleep(&t, NULL);
}

static void await(_Atomic uint32_t *word, uint32_t least)
{
    while (atomic_load(word) < least) nap_ns(100000);
}

/* ---- being ahead ---- */

enum { ROUNDS = 3 * SHM_EXPRESS_DEPTH + 5 };

/* Before its call `round` a reader waits until the root can go no further. */
static void let_the_root_run(struct rank *me, uint64_t round)
{
    nap_ns(10 * RAIL_NS_PER_MS);
    uint32_t made = atomic_load(&me->world->ahead);
    EXPECT(me, made <= round + SHM_EXPRESS_DEPTH, "the root made %u calls, a reader %llu: the ring has %d", made,
           (unsigned long long)round, SHM_EXPRESS_DEPTH);
}

/* Rank 0 gives, or ranks 0 and 1 do in turn, for half a ring each. All others come when rank 0 stands before a full ring, and
 * stop now and then. */
static void *root_first(void *arg)
{
    struct rank *me = arg;
    uint32_t self = me->node.self, in_turn = me->world->seed;
    bool late = self > in_turn;
    if (late) await(&me->world->ahead, SHM_EXPRESS_DEPTH);
    for (uint64_t round = 0; round < ROUNDS && !me->why[0]; round++) {
        uint32_t root = in_turn ? round / (SHM_EXPRESS_DEPTH / 2) % 2 : 0;
        size_t count = round % 3 ? 40 + round : 1000; /* beside the flag, and apart from it */
        if (late && round % 9 == 0) let_the_root_run(me, round);
        if (self == root) fill(me, round, count);
        EXPECT(me, call(me, PLAN_BROADCAST, count, root) == RAIL_OK, "%s", rail_last_error());
        check(me, PLAN_BROADCAST, round, count, root);
        if (self == 0) atomic_fetch_add(&me->world->ahead, 1);
    }
    return NULL;
}

static void a_root_is_a_ring_ahead_of_late_readers_and_no_further(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= EXPRESS_MAX_PEERS; n += 3) run(n, root_first, 0);
}

static void roots_in_turn_remember_what_they_gave_before(void **state)
{
    (void)state;
    run(3, root_first, 1);
}

static void *givers_first(void *arg)
{
    struct rank *me = arg;
    bool root = me->node.self == 0;
    if (root) await(&me->world->ahead, (me->world->n - 1) * SHM_EXPRESS_DEPTH);
    for (uint64_t round = 0; round < ROUNDS && !me->why[0]; round++) {
        fill(me, round, 300);
        EXPECT(me, call(me, PLAN_REDUCE, 300, 0) == RAIL_OK, "%s", rail_last_error());
        check(me, PLAN_REDUCE, round, 300, 0);
        if (!root) atomic_fetch_add(&me->world->ahead, 1);
    }
    return NULL;
}

static void all_givers_of_a_reduce_are_a_ring_ahead_of_a_late_root(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= EXPRESS_MAX_PEERS; n += 3) run(n, givers_first, 0);
}

/* ---- any order ---- */

static unsigned next(unsigned *seed) { return (*seed = *seed * 1664525u + 1013904223u) >> 8; }

/* All draw the same calls and roots, each its own delays; every other call in steps. */
static void *any_order(void *arg)
{
    static const size_t most[] = {8, SHM_EXPRESS_LINE + 8, SHM_EXPRESS_BYTES};
    struct rank *me = arg;
    uint32_t n = me->world->n;
    unsigned seed = me->world->seed, own = seed + 7919 * me->node.self;
    for (uint64_t round = 0; round < 400 && !me->why[0]; round++) {
        enum plan_collective kind = (enum plan_collective)(next(&seed) % PLAN_COLLECTIVES);
        uint32_t root = next(&seed) % n;
        size_t blocks = collective_kind(kind).input_blocks ? n : 1, count = 1 + next(&seed) % (most[next(&seed) % 3] / blocks);
        if (next(&seed) % 4) kind = next(&seed) % 2 ? PLAN_BROADCAST : PLAN_REDUCE, count = 1 + count % (SHM_EXPRESS_BYTES / n);
        bool in_steps = next(&seed) % 2;
        if (next(&own) % 40 == 0) nap_ns(next(&own) % (2 * RAIL_NS_PER_MS));
        fill(me, round, count * blocks <= SHM_EXPRESS_BYTES ? count * blocks : count);
        if (in_steps) {
            struct express_call c = call_of(me, kind, count, root);
            struct express_op op;
            enum rail_result result;
            begin(me, kind, count, root);
            express_begin(&me->node, &c, &op);
            while ((result = express_progress(&me->node, &op)) == RAIL_NOT_YET) sched_yield();
            EXPECT(me, result == RAIL_OK, "%s", rail_last_error());
        } else {
            EXPECT(me, call(me, kind, count, root) == RAIL_OK, "%s", rail_last_error());
        }
        check(me, kind, round, count, root);
    }
    return NULL;
}

static void any_sequence_with_any_delays_gives_everybody_its_own(void **state)
{
    (void)state;
    unsigned seed = getenv("RAILCCL_TEST_SEED") ? (unsigned)atoi(getenv("RAILCCL_TEST_SEED")) : (unsigned)time(NULL);
    print_message("seed %u (RAILCCL_TEST_SEED)\n", seed);
    for (uint32_t n = 2; n <= EXPRESS_MAX_PEERS; n++)
        for (unsigned k = 0; k < 3; k++) run(n, any_order, seed + 100 * n + k);
}

/* ---- steps, stopping ---- */

static void *steps_without_room(void *arg)
{
    struct rank *me = arg;
    struct express_call c = call_of(me, PLAN_BROADCAST, 8, 0);
    struct express_op op;
    if (me->node.self) {
        await(&me->world->go, 1);
    } else {
        for (uint64_t round = 0; round < SHM_EXPRESS_DEPTH; round++) {
            fill(me, round, 8);
            EXPECT(me, call(me, PLAN_BROADCAST, 8, 0) == RAIL_OK, "%s", rail_last_error());
        }
        fill(me, SHM_EXPRESS_DEPTH, 8);
        begin(me, PLAN_BROADCAST, 8, 0);
        express_begin(&me->node, &c, &op);
        EXPECT(me, express_progress(&me->node, &op) == RAIL_NOT_YET && !op.posted, "there was room for a round too many");
        struct express_wait wait = express_wait(&me->node, &op);
        EXPECT(me, wait.room && wait.from == 2, "waits for %x", wait.from);
        atomic_store(&me->world->go, 1);
        while (express_progress(&me->node, &op) == RAIL_NOT_YET) sched_yield();
        EXPECT(me, !op.running, "%s", rail_last_error());
        return NULL;
    }
    for (uint64_t round = 0; round <= SHM_EXPRESS_DEPTH; round++) {
        EXPECT(me, call(me, PLAN_BROADCAST, 8, 0) == RAIL_OK, "%s", rail_last_error());
        check(me, PLAN_BROADCAST, round, 8, 0);
    }
    return NULL;
}

static void a_call_in_steps_finds_no_room_until_the_reader_has_moved(void **state)
{
    (void)state;
    run(2, steps_without_room, 0);
}

static void *stopped(void *arg)
{
    struct rank *me = arg;
    if (me->node.self) {
        await(&me->world->ahead, SHM_EXPRESS_DEPTH);
        nap_ns(5 * RAIL_NS_PER_MS);
        atomic_store(&me->world->stop, 1);
        return NULL;
    }
    for (uint64_t round = 0; round < SHM_EXPRESS_DEPTH; round++) {
        EXPECT(me, call(me, PLAN_BROADCAST, 8, 0) == RAIL_OK, "%s", rail_last_error());
        atomic_fetch_add(&me->world->ahead, 1);
    }
    EXPECT(me, call(me, PLAN_BROADCAST, 8, 0) == RAIL_E_ABORTED, "an abort did not end the wait for room");
    return NULL;
}

static void an_abort_ends_the_wait_for_room(void **state)
{
    (void)state;
    run(2, stopped, 0);
}

/* ---- calls that differ ---- */

static bool says(const char *a, const char *b) { return strstr(rail_last_error(), a) && strstr(rail_last_error(), b); }

/* Both are roots of the first Broadcast, and through with it at once. Who has failed stops the others, as a communicator
 * does. */
static void *two_roots(void *arg)
{
    struct rank *me = arg;
    enum rail_result result = call(me, PLAN_BROADCAST, 8, me->node.self);
    unsigned calls = 0;
    EXPECT(me, result == RAIL_OK, "%s", rail_last_error());
    for (; result == RAIL_OK && calls < 2 * SHM_EXPRESS_DEPTH; calls++)
        result = call(me, me->world->seed ? PLAN_ALLREDUCE : PLAN_BROADCAST, 8, me->world->seed ? 0 : me->node.self);
    EXPECT(me, result == RAIL_E_USAGE || result == RAIL_E_ABORTED, "%u calls passed, result %d", calls, result);
    EXPECT(me, calls <= (me->world->seed ? 1 : SHM_EXPRESS_DEPTH), "it took %u calls to find out", calls);
    if (result == RAIL_E_USAGE) EXPECT(me, says("root 0", "root 1") && says("call 1 ", "Broadcast"), "%s", rail_last_error());
    if (result == RAIL_E_USAGE) atomic_store(&me->world->stop, 1);
    return NULL;
}

static void two_roots_of_one_broadcast_learn_it_where_they_meet_next(void **state)
{
    (void)state;
    run(2, two_roots, 1);
}

static void two_roots_of_one_broadcast_learn_it_when_the_ring_is_full(void **state)
{
    (void)state;
    run(2, two_roots, 0);
}

/* Longer ago than calls are remembered: many that stand in no line (of no elements) come between. */
static void *long_ago(void *arg)
{
    struct rank *me = arg;
    EXPECT(me, call(me, PLAN_BROADCAST, 8, me->node.self) == RAIL_OK, "%s", rail_last_error());
    for (int k = 0; k < 2 * SHM_CALLS; k++) begin(me, PLAN_ALLREDUCE, 0, 0);
    enum rail_result result = call(me, PLAN_ALLREDUCE, 8, 0);
    EXPECT(me, result == RAIL_E_USAGE || result == RAIL_E_ABORTED, "result %d", result);
    if (result == RAIL_E_USAGE) EXPECT(me, says("called different things", "calls before call"), "%s", rail_last_error());
    if (result == RAIL_E_USAGE) atomic_store(&me->world->stop, 1);
    return NULL;
}

static void what_differed_longer_ago_than_is_remembered_still_shows(void **state)
{
    (void)state;
    run(2, long_ago, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_root_is_a_ring_ahead_of_late_readers_and_no_further),
        cmocka_unit_test(roots_in_turn_remember_what_they_gave_before),
        cmocka_unit_test(all_givers_of_a_reduce_are_a_ring_ahead_of_a_late_root),
        cmocka_unit_test(any_sequence_with_any_delays_gives_everybody_its_own),
        cmocka_unit_test(a_call_in_steps_finds_no_room_until_the_reader_has_moved),
        cmocka_unit_test(an_abort_ends_the_wait_for_room),
        cmocka_unit_test(two_roots_of_one_broadcast_learn_it_where_they_meet_next),
        cmocka_unit_test(two_roots_of_one_broadcast_learn_it_when_the_ring_is_full),
        cmocka_unit_test(what_differed_longer_ago_than_is_remembered_still_shows),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
