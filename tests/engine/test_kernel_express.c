/* Small collectives by the kernel built for the host: what they do to one another, call after call. Late ranks, numbers that
 * begin again, lines that are longer than the call before, calls that differ in any way, ranks that never come. That results
 * are a plan's, to the bit, shows test_interpreter. */
#include "engine/kernel_ranks.h"

#include "base/clock.h"

enum { MOST = SMALL_MOST / 4 }; /* elements */

/* Ranks, each of which does what the test's body says. */
struct world {
    struct ranks all;
    uint32_t n, threads;
    void (*body)(struct kernel_rank *me, uint32_t *in, uint32_t *out);
};
struct one {
    struct world *world;
    uint32_t rank;
    struct kernel_rank k;
};

static void *one_main(void *arg)
{
    struct one *me = arg;
    kernel_rank_open(&me->k, &me->world->all, me->rank, me->world->threads);
    uint32_t *in = (void *)ranks_take(&me->world->all, RANKS_MAX * SMALL_MOST);
    uint32_t *out = (void *)ranks_take(&me->world->all, RANKS_MAX * SMALL_MOST + 4);
    pthread_barrier_wait(&me->world->all.together);
    me->world->body(&me->k, in, out);
    kernel_rank_close(&me->k);
    return NULL;
}

static void everywhere(uint32_t n, uint32_t threads, void (*body)(struct kernel_rank *, uint32_t *, uint32_t *))
{
    struct world world = {.n = n, .threads = threads, .body = body};
    struct one ones[RANKS_MAX];
    pthread_t running[RANKS_MAX];
    ranks_open(&world.all, n, 64 * 64, 1024, 1);
    for (uint32_t r = 0; r < n; r++) {
        ones[r] = (struct one){.world = &world, .rank = r};
        assert_int_equal(pthread_create(&running[r], NULL, one_main, &ones[r]), 0);
    }
    for (uint32_t r = 0; r < n; r++) pthread_join(running[r], NULL);
    ranks_close(&world.all);
}

static struct kernel_call call_of(struct kernel_rank *me, enum plan_collective c, const uint32_t *in, uint32_t *out, size_t count)
{
    struct host_call host = {.input = in, .output = out, .how = {.type = RAIL_U32, .op = RAIL_SUM}, .signature = 1000 + count,
                             .split = {.count = count}};
    return kernel_express(me, &host, c, 0, false);
}

static void run(struct kernel_rank *me, const struct kernel_call *call) { launch(&me->all->device, call, me->threads); }

static struct kernel_node *node_of(struct kernel_rank *me) { return real_of(me, me->kernel_node); }
static uint32_t *at(struct kernel_rank *me, uint32_t *seen) { return real_of(me, (uint64_t)(uintptr_t)seen); }

/* A word of rank r's for rank q in a turn. */
static uint32_t value(uint32_t turn, uint32_t r, uint32_t q, size_t k) { return turn * 7919 + r * 31 + q * 1009 + (uint32_t)k * 3; }

static void sum_in_turn(struct kernel_rank *me, uint32_t *in, uint32_t *out, uint32_t turn, size_t count)
{
    struct kernel_call call = call_of(me, PLAN_ALLREDUCE, in, out, count);
    for (size_t k = 0; k < count; k++) at(me, in)[k] = value(turn, me->rank, 0, k);
    at(me, out)[count] = 0xa5a5a5a5;
    run(me, &call);
    assert_int_equal(me->report->trouble, KERNEL_FINE);
    for (size_t k = 0; k < count; k++) {
        uint32_t wanted = 0;
        for (uint32_t r = 0; r < me->all->n; r++) wanted += value(turn, r, 0, k);
        if (at(me, out)[k] != wanted)
            fail_msg("turn %u, rank %u, element %zu of %zu: %u, not %u", turn, me->rank, k, count, at(me, out)[k], wanted);
    }
    assert_int_equal(at(me, out)[count], 0xa5a5a5a5);
}

/* ---- call after call --------------------------------------------------------------------------------------------------------- */

static const size_t lengths[] = {1, MOST, 2, 3, 700, 1, 16, MOST - 1};

static void lengths_in_turn(struct kernel_rank *me, uint32_t *in, uint32_t *out)
{
    for (uint32_t turn = 0; turn < 400; turn++) sum_in_turn(me, in, out, turn, lengths[turn % 8]);
    assert_int_equal(node_of(me)->express, 400);
    assert_int_equal(node_of(me)->call_number, 400);
    assert_int_equal(me->report->finished, 400);
    assert_int_equal(atomic_load(&me->node.segment.controls[me->node.self].calls.number), 400);
}

static void long_ones_and_short_ones_take_turns(void **state)
{
    (void)state;
    everywhere(2, 1, lengths_in_turn);
    everywhere(3, 3, lengths_in_turn);
}

/* Each turn another rank comes late, when the others have been waiting. */
static void one_is_late(struct kernel_rank *me, uint32_t *in, uint32_t *out)
{
    struct timespec late = {.tv_nsec = 3000000};
    for (uint32_t turn = 0; turn < 12; turn++) {
        if (turn % me->all->n == me->rank) nanosleep(&late, NULL);
        sum_in_turn(me, in, out, turn, lengths[turn % 8]);
    }
}

static void ranks_may_be_late(void **state)
{
    (void)state;
    everywhere(4, 2, one_is_late);
}

/* The number passes 2^31, where flags begin again, while the end of a line still holds what was written a life of numbers ago.
 * Numbers are set forward to there, odd after even, since lines alternate. */
static void numbers_begin_again(struct kernel_rank *me, uint32_t *in, uint32_t *out)
{
    struct kernel_node *node = node_of(me);
    for (uint32_t turn = 0; turn < 4; turn++) sum_in_turn(me, in, out, turn, MOST); /* numbers 1 to 4 */
    node->express = (UINT64_C(1) << 30) - 4;
    for (uint32_t turn = 0; turn < 5; turn++) sum_in_turn(me, in, out, 100 + turn, 1);
    node->express = (UINT64_C(1) << 31) - 3;
    for (uint32_t turn = 0; turn < 5; turn++) sum_in_turn(me, in, out, 200 + turn, 1);
    assert_int_equal(node->express, (UINT64_C(1) << 31) + 2);
    for (uint32_t turn = 0; turn < 4; turn++) { /* the first two look like 3 and 4 */
        struct timespec late = {.tv_nsec = 2000000};
        if (turn % 2 == me->rank) nanosleep(&late, NULL);
        sum_in_turn(me, in, out, 1000 + turn, MOST);
    }
}

static void a_flag_that_comes_again_is_not_mistaken(void **state)
{
    (void)state;
    everywhere(2, 2, numbers_begin_again);
}

static void all_to_all(struct kernel_rank *me, uint32_t *in, uint32_t *out)
{
    for (uint32_t turn = 0; turn < 30; turn++) {
        size_t count = lengths[turn % 8];
        struct kernel_call call = call_of(me, PLAN_ALLTOALL, in, out, count);
        for (uint32_t q = 0; q < me->all->n; q++)
            for (size_t k = 0; k < count; k++) at(me, in)[q * count + k] = value(turn, me->rank, q, k);
        run(me, &call);
        for (uint32_t r = 0; r < me->all->n; r++)
            for (size_t k = 0; k < count; k++) assert_int_equal(at(me, out)[r * count + k], value(turn, r, me->rank, k));
    }
}

static void all_to_all_gives_each_its_block(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= RANKS_MAX; n += 3) everywhere(n, 2, all_to_all);
}

/* A plan's call, small ones, a plan's call: each finds its own counters. */
static void between_plans(struct kernel_rank *me, uint32_t *in, uint32_t *out)
{
    struct choice choice = {.algorithm = PLAN_ONE_SHOT, .n_channels = 1, .piece_bytes = 1024};
    struct instance *const *instances;
    assert_int_equal(wires_instances(&me->wires, PLAN_ALLREDUCE, 0, &choice, &instances), RAIL_OK);
    struct host_call host = {.input = in, .output = out, .how = {.type = RAIL_U32, .op = RAIL_SUM}, .signature = 9,
                             .split = {700, 16, 256, 1, instances[0]->plan.n_pieces}};
    struct kernel_call by_plan = kernel_collective(me, &host, instances);
    for (uint32_t turn = 0; turn < 60; turn++) {
        if (turn % 3) {
            sum_in_turn(me, in, out, turn, lengths[turn % 8]);
            continue;
        }
        for (size_t k = 0; k < 700; k++) at(me, in)[k] = value(turn, me->rank, 0, k);
        run(me, &by_plan);
        for (size_t k = 0; k < 700; k++) {
            uint32_t wanted = 0;
            for (uint32_t r = 0; r < me->all->n; r++) wanted += value(turn, r, 0, k);
            assert_int_equal(at(me, out)[k], wanted);
        }
    }
    assert_int_equal(node_of(me)->express, 40);
    assert_int_equal(node_of(me)->call_number, 60);
}

static void they_stand_between_calls_of_plans(void **state)
{
    (void)state;
    everywhere(3, 2, between_plans);
}

/* ---- trouble ------------------------------------------------------------------------------------------------------------------ */

static size_t count_of[2];
static uint64_t signature_of[2];

static void differing(struct kernel_rank *me, uint32_t *in, uint32_t *out)
{
    struct kernel_call call = call_of(me, PLAN_ALLREDUCE, in, out, count_of[me->rank]);
    call.signature = signature_of[me->rank];
    run(me, &call);
    assert_int_equal(me->report->trouble, KERNEL_SIGNATURE_PEER);
    assert_int_equal(me->report->who, 1 - me->rank);
    assert_int_equal(me->report->mine, signature_of[me->rank]);
    assert_int_equal(me->report->theirs, signature_of[1 - me->rank]);
    run(me, &call); /* after trouble: ends at once */
    assert_int_equal(me->report->finished, 2);
}

static void calls_that_differ_are_found_by_both(void **state)
{
    (void)state;
    static const size_t counts[][2] = {{1, 1}, {1, MOST}, {MOST, 1}, {700, 701}};
    static const uint64_t signatures[][2] = {{1, 2}, {UINT64_C(1) << 40 | 1, UINT64_C(2) << 40 | 1}, {0, UINT64_C(3) << 32 | 5}};
    for (int c = 0; c < 4; c++)
        for (int s = 0; s < 3; s++)
            for (uint32_t threads = 1; threads <= 3; threads += 2) {
                memcpy(count_of, counts[c], sizeof count_of);
                memcpy(signature_of, signatures[s], sizeof signature_of);
                everywhere(2, threads, differing);
            }
}

static void *stopping(void *arg)
{
    struct timespec while_it_waits = {.tv_nsec = 20000000};
    nanosleep(&while_it_waits, NULL);
    __atomic_store_n((uint32_t *)arg, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* Of three, the last never comes. */
static void waiting(struct kernel_rank *me, uint32_t *in, uint32_t *out)
{
    pthread_t stopper;
    struct kernel_call call = call_of(me, PLAN_ALLREDUCE, in, out, MOST);
    if (me->rank == 2) return;
    assert_int_equal(pthread_create(&stopper, NULL, stopping, me->stop), 0);
    run(me, &call);
    pthread_join(stopper, NULL);
    assert_int_equal(me->report->finished, 1);
    assert_int_equal(me->report->trouble, KERNEL_FINE);
}

static void a_wait_ends_when_it_is_told_to(void **state)
{
    (void)state;
    everywhere(3, 1, waiting);
    everywhere(3, 3, waiting);
}

/* A rank that is stopped before it begins stores nothing: its peers' memory may be gone. */
static void stopped(struct kernel_rank *me, uint32_t *in, uint32_t *out)
{
    struct kernel_call call = call_of(me, PLAN_ALLREDUCE, in, out, 5);
    *me->stop = 1;
    run(me, &call);
    pthread_barrier_wait(&me->all->together);
    const struct shm_segment *s = &me->node.segment;
    for (size_t k = 0; k < me->all->n * shm_lines_bytes(&s->geometry); k++) assert_int_equal(s->lines[k], 0);
    assert_int_equal(me->report->finished, 1);
}

static void who_is_stopped_stores_nothing(void **state)
{
    (void)state;
    everywhere(2, 2, stopped);
}

/* More than a line holds, or more ranks: nothing is written behind it. */
static void too_much(struct kernel_rank *me, uint32_t *in, uint32_t *out)
{
    size_t room = (shm_line_words(&me->node.segment.geometry) - KERNEL_EXPRESS_HEAD) + 1;
    struct kernel_call call = call_of(me, PLAN_ALLREDUCE, in, out, room);
    run(me, &call);
    assert_int_equal(me->report->trouble, KERNEL_PLAN);
}

static void what_no_line_holds_is_refused(void **state)
{
    (void)state;
    everywhere(2, 2, too_much);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(long_ones_and_short_ones_take_turns),
        cmocka_unit_test(ranks_may_be_late),
        cmocka_unit_test(a_flag_that_comes_again_is_not_mistaken),
        cmocka_unit_test(all_to_all_gives_each_its_block),
        cmocka_unit_test(they_stand_between_calls_of_plans),
        cmocka_unit_test(calls_that_differ_are_found_by_both),
        cmocka_unit_test(a_wait_ends_when_it_is_told_to),
        cmocka_unit_test(who_is_stopped_stores_nothing),
        cmocka_unit_test(what_no_line_holds_is_refused),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
