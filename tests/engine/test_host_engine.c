/* The host engine runs every AllReduce plan that one node has over shared memory: all algorithms, types and operators, in and out of
 * place, direct and staged, with awkward counts; ranks are threads that share one segment. The oracle adds up, in
 * double or in 64-bit integers, inputs small enough that every order of combination is exact. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "algos/algos.h"
#include "base/memory.h"
#include "core/wires.h"
#include "engine/express.h"
#include "engine/host.h"
#include "engine/signature.h"
#include "engine/wait.h"

enum { MAX_RANKS = 16, GUARD = 64 };

struct setup {
    uint32_t n;
    enum plan_algorithm algorithm;
    uint32_t n_channels;
    bool direct, in_place, express;
    enum rail_type type;
    enum rail_op op;
    bool scaled;
    uint64_t divide;
    size_t count;
    size_t window_bytes, slot_bytes, piece_bytes;
    int repeats;
};

struct world {
    struct setup s;
    struct shape shape;
    uint8_t key[32];
    pthread_barrier_t start;
};

struct rank {
    struct world *world;
    uint32_t rank;
    int wrong;
    char why[200];
};

/* ---- values: 1, 2, 3 or so, exact in every type however they are combined by sum, max or min; 1 or 2 for prod ---- */

static double value_of(const struct setup *s, uint32_t rank, size_t k, int repeat)
{
    uint32_t h = (uint32_t)(rank * 2654435761u + k * 40503u + (unsigned)repeat * 97u) >> 7;
    if (s->op == RAIL_PROD) return (rank % 4 == k % 4 && rank < 4) ? 2 : 1;
    if (s->divide > 1 || s->scaled) return (double)(s->n * (h % 2)); /* divisible */
    return (double)(h % 3);
}

static double expected_of(const struct setup *s, size_t k, int repeat)
{
    double e = value_of(s, 0, k, repeat);
    for (uint32_t r = 1; r < s->n; r++) {
        double v = value_of(s, r, k, repeat);
        e = s->op == RAIL_SUM ? e + v : s->op == RAIL_PROD ? e * v : s->op == RAIL_MAX ? (e > v ? e : v) : (e < v ? e : v);
    }
    if (s->divide > 1 || s->scaled) e /= s->n;
    return e;
}

static void put(enum rail_type type, void *at, double v)
{
    uint64_t bits;
    float f = (float)v;
    switch (type) {
    case RAIL_F32: memcpy(&bits, &f, 4); break;
    case RAIL_F64: memcpy(&bits, &v, 8); break;
    case RAIL_F16: case RAIL_BF16: case RAIL_F8E4M3: case RAIL_F8E5M2: bits = rail_from_float(type, f); break;
    default: bits = (uint64_t)(int64_t)v;
    }
    memcpy(at, &bits, rail_type_bytes(type));
}

/* ---- one rank ---- */

static struct rail_combine how_of(const struct setup *s)
{
    struct rail_combine how = {.type = s->type, .op = s->op, .scaled = s->scaled, .divide = s->divide};
    if (s->scaled) how.scale = rail_reciprocal_bits(s->type, s->n);
    return how;
}

static enum rail_result once(struct rank *me, struct host_node *node, struct wires *wires, unsigned char *in,
                             unsigned char *out)
{
    const struct setup *s = &me->world->s;
    struct wait_policy policy = wait_policy_make((int)s->n, 2, false, 50);
    static _Atomic uint32_t never;
    struct rail_combine how = how_of(s);
    size_t element = rail_type_bytes(s->type);
    if (s->express)
        return express_collective(node, &policy, &never, &(struct express_call){
            .kind = collective_kind(PLAN_ALLREDUCE), .how = how, .input = in, .output = out, .count = s->count});
    struct choice choice = {.algorithm = s->algorithm, .n_channels = s->n_channels, .piece_bytes = s->piece_bytes};
    struct instance *const *instances;
    RAIL_TRY(wires_instances(wires, PLAN_ALLREDUCE, 0, &choice, &instances));
    struct host_call call = {.input = in, .output = out, .how = how, .signature = 7, .direct = s->direct};
    call.split = (struct plan_split){s->count, 64 / element, s->piece_bytes / element, s->n_channels,
                                     instances[0]->plan.n_pieces};
    struct host_op op;
    RAIL_TRY(host_op_start(&op, node, &call, instances));
    struct waiter w = {0};
    enum rail_result result;
    while ((result = host_op_progress(&op)) == RAIL_NOT_YET) wait_pause(&w, &policy, &node->segment, node->self);
    wait_end(&w, &policy, &node->segment, node->self);
    return result;
}

static void check(struct rank *me, const unsigned char *out, int repeat)
{
    const struct setup *s = &me->world->s;
    size_t element = rail_type_bytes(s->type);
    for (size_t k = 0; k < s->count; k++) {
        unsigned char want[8];
        put(s->type, want, expected_of(s, k, repeat));
        if (memcmp(want, out + k * element, element) == 0) continue;
        if (!me->wrong++) snprintf(me->why, sizeof me->why, "rank %u repeat %d element %zu of %zu", me->rank, repeat, k, s->count);
    }
    for (int g = 0; g < GUARD; g++)
        if (out[-1 - g] != 0xa5 || out[s->count * element + g] != 0xa5) {
            if (!me->wrong++) snprintf(me->why, sizeof me->why, "rank %u repeat %d: guard byte %d written", me->rank, repeat, g);
        }
}

static void *rank_main(void *arg)
{
    struct rank *me = arg;
    struct world *world = me->world;
    const struct setup *s = &world->s;
    size_t bytes = s->count * rail_type_bytes(s->type);
    struct host_node node = {.self = me->rank, .ranks = world->shape.order};
    struct shm_request request = {.geometry = {.n_peers = s->n, .n_slots = 4, .window_bytes = s->window_bytes, .slot_bytes = s->slot_bytes,
                                               .window_channels = s->n_channels, .express = s->express},
                                  .leader = me->rank == 0, .first_of_process = me->rank == 0, .n_processes = 1,
                                  .deadline = rail_deadline_in_ns(20 * RAIL_NS_PER_S)};
    memcpy(request.key, world->key, 32);
    pthread_barrier_wait(&world->start); /* the mapping table is shared by the process: rank 0 makes the entry or joins */
    if (shm_segment_open(&request, &node.segment) != RAIL_OK) {
        me->wrong = 1;
        snprintf(me->why, sizeof me->why, "segment: %s", rail_last_error());
        return NULL;
    }
    struct wires wires = {.shape = &world->shape, .rank = me->rank, .node = &node};
    unsigned char *in = malloc(bytes + 2 * GUARD), *out = malloc(bytes + 2 * GUARD);
    for (int repeat = 0; repeat < s->repeats; repeat++) {
        unsigned char *to = out + GUARD, *from = s->in_place ? to : in + GUARD;
        memset(out, 0xa5, bytes + 2 * GUARD);
        for (size_t k = 0; k < s->count; k++)
            put(s->type, from + k * rail_type_bytes(s->type), value_of(s, me->rank, k, repeat));
        enum rail_result result = once(me, &node, &wires, from, to);
        if (result != RAIL_OK && !me->wrong++) snprintf(me->why, sizeof me->why, "rank %u: %s", me->rank, rail_last_error());
        check(me, to, repeat);
    }
    free(in);
    free(out);
    pthread_barrier_wait(&world->start); /* nobody unmaps before all are done */
    wires_clear(&wires);
    shm_segment_close(&node.segment);
    return NULL;
}

static void run(struct setup s)
{
    struct world world = {.s = s};
    uint64_t keys[MAX_RANKS] = {0};
    struct rank ranks[MAX_RANKS];
    pthread_t threads[MAX_RANKS];
    assert_int_equal(shape_build(&world.shape, s.n, keys, 1), 0);
    rail_random(world.key, sizeof world.key);
    pthread_barrier_init(&world.start, NULL, s.n);
    for (uint32_t r = 0; r < s.n; r++) {
        ranks[r] = (struct rank){.world = &world, .rank = r};
        pthread_create(&threads[r], NULL, rank_main, &ranks[r]);
    }
    for (uint32_t r = 0; r < s.n; r++) pthread_join(threads[r], NULL);
    for (uint32_t r = 0; r < s.n; r++)
        if (ranks[r].wrong)
            fail_msg("%d wrong: %s (%s, %u ranks, type %d, op %d, count %zu, %s, %s)", ranks[r].wrong, ranks[r].why,
                     s.express ? "express" : plan_algorithm_names[s.algorithm], s.n, s.type, s.op, s.count,
                     s.direct ? "direct" : "staged", s.in_place ? "in place" : "out of place");
    pthread_barrier_destroy(&world.start);
    shape_clear(&world.shape);
}

static struct setup usual(uint32_t n, enum plan_algorithm a)
{
    struct setup s = {.n = n, .algorithm = a, .n_channels = 1, .type = RAIL_F32, .op = RAIL_SUM, .count = 1000,
                      .window_bytes = 64 * 64, .slot_bytes = 1024, .repeats = 3};
    s.piece_bytes = a == PLAN_ONE_SHOT ? s.window_bytes : a == PLAN_TWO_SHOT ? s.window_bytes / n / 64 * 64 : s.slot_bytes;
    return s;
}

static const uint32_t rank_counts[] = {2, 3, 4, 5, 7, 8, 16};

static void every_algorithm_is_right_for_awkward_counts(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 2, 15, 16, 17, 1000, 20011};
    for (size_t i = 0; i < sizeof rank_counts / sizeof *rank_counts; i++)
        for (int a = 0; a < PLAN_HIERARCHY; a++)
            for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
                struct setup s = usual(rank_counts[i], (enum plan_algorithm)a);
                s.count = counts[c];
                run(s);
            }
}

static void in_place_and_direct_buffers_change_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rank_counts / sizeof *rank_counts; i++)
        for (int a = 0; a < PLAN_HIERARCHY; a++)
            for (int mode = 1; mode < 4; mode++) {
                struct setup s = usual(rank_counts[i], (enum plan_algorithm)a);
                s.in_place = mode & 1;
                s.direct = mode & 2;
                if (a == PLAN_ONE_SHOT && s.direct && s.in_place) continue; /* the plan does not claim it */
                s.count = 5003;
                run(s);
            }
}

static void every_type_and_operator(void **state)
{
    (void)state;
    for (int type = 0; type < RAIL_TYPES; type++)
        for (int op = 0; op < RAIL_OPS; op++)
            for (int a = 0; a < PLAN_HIERARCHY; a++) {
                struct setup s = usual(3, (enum plan_algorithm)a);
                s.type = (enum rail_type)type;
                s.op = (enum rail_op)op;
                s.count = 777;
                run(s);
            }
}

static void averages_scale_floats_before_and_divide_integers_after(void **state)
{
    (void)state;
    for (int type = 0; type < RAIL_TYPES; type++)
        for (int a = 0; a < PLAN_HIERARCHY; a++) {
            struct setup s = usual(4, (enum plan_algorithm)a);
            s.type = (enum rail_type)type;
            s.scaled = type > RAIL_U64;
            s.divide = type > RAIL_U64 ? 0 : 4;
            s.count = 501;
            run(s);
        }
}

static void several_channels_share_the_data(void **state)
{
    (void)state;
    for (uint32_t channels = 2; channels <= 8; channels++) {
        struct setup s = usual(4, channels % 2 ? PLAN_RING : PLAN_TREE);
        s.n_channels = channels;
        s.count = 40009;
        run(s);
    }
}

/* Each channel's rounds have windows, counters and exposures of their own; some run more rounds than others. */
static void channels_with_windows_run_side_by_side(void **state)
{
    (void)state;
    for (uint32_t channels = 2; channels <= 8; channels++)
        for (int mode = 0; mode < 4; mode++) {
            struct setup s = usual(2 + channels % 3, channels % 2 && mode != 3 ? PLAN_ONE_SHOT : PLAN_TWO_SHOT);
            s.n_channels = channels;
            s.in_place = mode & 1;
            s.direct = mode & 2;
            s.count = 60000 + 16 * channels + 1;
            run(s);
        }
}

static void a_channel_without_windows_is_refused(void **state)
{
    (void)state;
    struct setup s = usual(2, PLAN_TWO_SHOT);
    struct shape shape;
    uint64_t keys[2] = {0};
    assert_int_equal(shape_build(&shape, 2, keys, 1), 0);
    struct host_node node = {.ranks = shape.order};
    struct shm_request request = {.geometry = {.n_peers = 2, .n_slots = 4, .window_bytes = s.window_bytes, .slot_bytes = s.slot_bytes,
                                               .window_channels = 1},
                                  .leader = true, .first_of_process = true,
                                  .n_processes = 1, .deadline = rail_deadline_in_ns(20 * RAIL_NS_PER_S)};
    assert_int_equal(shm_segment_open(&request, &node.segment), RAIL_OK);
    struct wires wires = {.shape = &shape, .node = &node};
    struct instance *const *instances;
    const struct choice two = {PLAN_TWO_SHOT, 2, s.piece_bytes};
    assert_int_equal(wires_instances(&wires, PLAN_ALLREDUCE, 0, &two, &instances), RAIL_OK);
    float numbers[64] = {0};
    struct host_call call = {.input = numbers, .output = numbers, .how = how_of(&s),
                             .split = {64, 16, s.piece_bytes / 4, 2, instances[0]->plan.n_pieces}};
    struct host_op op;
    assert_int_equal(host_op_start(&op, &node, &call, instances), RAIL_E_INTERNAL);
    assert_non_null(strstr(rail_last_error(), "channel 1: the node has windows for 1 channels"));
    wires_clear(&wires);
    shm_segment_close(&node.segment);
    shape_clear(&shape);
}

/* What a peer that was killed in the middle of a move leaves behind. */
static void withdrawing_waits_only_so_long_for_a_peer_of_another_process(void **state)
{
    (void)state;
    struct host_shares shares = {.n = 1}; /* and nobody near */
    struct host_node node = {.shares = &shares};
    struct shm_request request = {.geometry = {.n_peers = 2, .n_slots = 4, .window_bytes = 1024, .slot_bytes = 1024, .window_channels = 1},
                                  .leader = true, .first_of_process = true,
                                  .n_processes = 1, .deadline = rail_deadline_in_ns(20 * RAIL_NS_PER_S)};
    assert_int_equal(shm_segment_open(&request, &node.segment), RAIL_OK);
    atomic_store(&node.segment.controls[1].touching, 1);
    uint64_t began_ns = rail_now_ns();
    host_withdraw(&node);
    assert_in_range(rail_now_ns() - began_ns, 20 * RAIL_NS_PER_MS, 2 * RAIL_NS_PER_S);
    assert_int_equal(atomic_load(&node.segment.header->withdrawn), 1);
    shm_segment_close(&node.segment);
}

static void the_express_path_gives_what_the_plans_give(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= EXPRESS_MAX_PEERS; n++)
        for (int type = 0; type < RAIL_TYPES; type++)
            for (int op = 0; op < RAIL_OPS; op++) {
#if defined(__SANITIZE_THREAD__)
                if (op != (type + (int)n) % RAIL_OPS) continue; /* threads meet in the same way whatever the operator */
#endif
                struct setup s = usual(n, PLAN_ONE_SHOT);
                s.express = true;
                s.type = (enum rail_type)type;
                s.op = (enum rail_op)op;
                s.in_place = n % 2;
                s.count = SHM_EXPRESS_BYTES / rail_type_bytes(s.type);
                s.repeats = 20;
                run(s);
            }
}

static void thousands_of_rounds_reuse_windows_and_slots(void **state)
{
    (void)state;
    for (int a = 0; a < PLAN_HIERARCHY; a++) {
        struct setup s = usual(3, (enum plan_algorithm)a);
#if defined(__SANITIZE_THREAD__)
        s.count = 50003; /* still a thousand pieces and more for each rank */
#else
        s.count = 200003;
#endif
        s.repeats = 2;
        s.piece_bytes = 64;
        run(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_algorithm_is_right_for_awkward_counts),
        cmocka_unit_test(in_place_and_direct_buffers_change_nothing),
        cmocka_unit_test(every_type_and_operator),
        cmocka_unit_test(averages_scale_floats_before_and_divide_integers_after),
        cmocka_unit_test(several_channels_share_the_data),
        cmocka_unit_test(channels_with_windows_run_side_by_side),
        cmocka_unit_test(a_channel_without_windows_is_refused),
        cmocka_unit_test(withdrawing_waits_only_so_long_for_a_peer_of_another_process),
        cmocka_unit_test(the_express_path_gives_what_the_plans_give),
        cmocka_unit_test(thousands_of_rounds_reuse_windows_and_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
