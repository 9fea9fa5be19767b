/* test_rdma_lent.c - slots that are lent: devices send from the program's own memory, which is whole at the receiver whatever dies
 * on the way, is the program's again when it is told so, and is left alone from then on. The devices are fault_verbs.h's. */
#define FIXTURE_RDMA
#include "transport/net_run.h"

#include <sys/mman.h>
#include <sys/wait.h>

#ifdef RAIL_HAVE_VERBS

enum { SLOTS = 4, AGAIN = 40 };

/* One link between two processes, driven by one thread, and memory of the sender's that is known. */
struct lending {
    struct pair pair;
    struct link *out, *in;
    uint8_t *memory;
    uint64_t number;
};

static uint8_t *map_at(uint8_t *at, size_t bytes)
{
    uint8_t *p = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0);
    assert_true(p != MAP_FAILED);
    return p;
}

static void begin(struct lending *t, uint32_t n_rails, size_t least)
{
    struct net_config config = fixture_config(n_rails, 1);
    config.alone_timeout_ns = SECONDS(20);
    config.lend_least = least;
    pair_make(&t->pair, &config);
    t->out = open_end(&t->pair, 0, 0, true);
    t->in = open_end(&t->pair, 1, 0, false);
    assert_true(drive_until_ready(&t->pair, t->out));
    t->memory = map_at(NULL, SLOTS * SLOT);
    t->number = net_memory_add(t->memory, SLOTS * SLOT);
    assert_true(t->number != 0);
}

static void lending_begin(struct lending *t, uint32_t n_rails)
{
    fault_verbs_install();
    begin(t, n_rails, 1);
}

static void lending_end(struct lending *t)
{
    net_memory_end(t->number);
    t->out->ops->close(t->out);
    t->in->ops->close(t->in);
    pair_end(&t->pair);
    munmap(t->memory, SLOTS * SLOT);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

static uint8_t *part(const struct lending *t, int k) { return t->memory + (size_t)k * SLOT; }
static struct net_link *of(struct link *link) { return (struct net_link *)(void *)link; }

/* Message `seed` into the k-th part, and lent from there. */
static bool lend(struct lending *t, int k, uint64_t seed)
{
    void *slot;
    pattern_fill(part(t, k), SLOT, seed);
    assert_true(drive_until_ready(&t->pair, t->out));
    assert_int_equal(t->out->ops->acquire(t->out, &slot), RAIL_OK);
    return t->out->ops->lending->lend(t->out, part(t, k), SLOT, seed, true);
}

/* Until the next message is there; the sender's network may be gone. */
static bool comes(struct lending *t)
{
    const void *slot;
    size_t bytes;
    uint64_t signature;
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(20));
    while (t->in->ops->wait(t->in, &slot, &bytes, &signature) == RAIL_NOT_YET && !rail_deadline_passed(deadline))
        drive(&t->pair);
    return t->in->ops->wait(t->in, &slot, &bytes, &signature) == RAIL_OK;
}

static void takes(struct lending *t, uint64_t seed)
{
    const void *slot;
    size_t bytes;
    uint64_t signature;
    assert_true(comes(t));
    assert_int_equal(t->in->ops->wait(t->in, &slot, &bytes, &signature), RAIL_OK);
    assert_int_equal(bytes, SLOT);
    assert_int_equal(signature, seed);
    assert_false(pattern_differs(slot, bytes, seed));
    t->in->ops->release(t->in);
}

static enum rail_result settled(struct lending *t) { return t->out->ops->lending->settled(t->out); }

static void settles(struct lending *t)
{
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(20));
    while (settled(t) == RAIL_NOT_YET && !rail_deadline_passed(deadline)) drive(&t->pair);
    assert_int_equal(settled(t), RAIL_OK);
}

static void scribble(struct lending *t) { memset(t->memory, 0xee, SLOTS * SLOT); }

static bool becomes_read_only(struct lending *t, int n)
{
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(20));
    while (fault_verbs_figures().read_only != n && !rail_deadline_passed(deadline)) drive(&t->pair);
    return fault_verbs_figures().read_only == n;
}

/* Whether the sender has touched its slots: a page that never was is none. */
static bool was_copied(const struct lending *t) { return t->out->ops->resident(t->out) > 0; }

/* ---- where it is done ---- */

static void devices_send_from_memory_that_is_known_without_a_copy(void **state)
{
    (void)state;
    struct lending t;
    lending_begin(&t, 2);
    for (uint64_t n = 0; n < AGAIN; n++) {
        assert_true(lend(&t, (int)(n % SLOTS), n));
        takes(&t, n);
        settles(&t);
    }
    assert_int_equal(fault_verbs_figures().read_only_bytes, (uint64_t)AGAIN * SLOT);
    assert_true(fault_verbs_figures().read_only <= 2); /* one of each device, made once */
    assert_false(was_copied(&t));
    lending_end(&t);
}

static void memory_that_is_not_known_or_not_all_of_it_is_not_lent(void **state)
{
    (void)state;
    struct lending t;
    void *slot;
    lending_begin(&t, 1);
    uint8_t *other = map_at(NULL, 2 * SLOT);
    assert_int_equal(t.out->ops->acquire(t.out, &slot), RAIL_OK);
    assert_false(t.out->ops->lending->lend(t.out, other, SLOT, 1, true));
    assert_false(t.out->ops->lending->lend(t.out, t.memory + SLOTS * SLOT - 4096, 8192, 1, true));
    assert_false(t.out->ops->lending->lend(t.out, t.memory - 4096, 8192, 1, true));
    assert_true(net_memory_known(t.memory, SLOTS * SLOT));
    net_memory_end(t.number);
    assert_false(net_memory_known(t.memory, 1));
    assert_false(t.out->ops->lending->lend(t.out, t.memory, SLOT, 1, true));
    assert_int_equal(fault_verbs_calls("reg_mr"), fault_verbs_figures().registered); /* none came and went */
    munmap(other, 2 * SLOT);
    lending_end(&t);
}

static void small_pieces_and_where_it_is_switched_off_are_copied(void **state)
{
    (void)state;
    for (int off = 0; off < 2; off++) {
        struct lending t;
        fault_verbs_install();
        begin(&t, 1, off ? SIZE_MAX : SLOT + 1);
        assert_false(t.out->ops->lending->lends(t.out, SLOT));
        assert_false(lend(&t, 0, 1));
        if (!off) assert_true(t.out->ops->lending->lends(t.out, SLOT + 1));
        lending_end(&t);
    }
}

/* Before Linux 5.12 libibverbs takes registered pages away from children. */
static void where_children_would_miss_the_memory_it_is_copied(void **state)
{
    (void)state;
    for (int older = 0; older < 2; older++) {
        struct lending t;
        fault_verbs_install();
        if (older) fault_verbs_modern(false);
        else fault_verbs_forks(false);
        begin(&t, 1, 1);
        assert_false(lend(&t, 0, 1));
        lending_end(&t);
    }
    fault_verbs_modern(true);
}

/* ---- when it is over ---- */

static void it_is_the_programs_again_when_the_receiver_has_released_it_and_not_before(void **state)
{
    (void)state;
    struct lending t;
    lending_begin(&t, 1);
    assert_int_equal(settled(&t), RAIL_OK);
    assert_true(lend(&t, 0, 7));
    assert_true(comes(&t));
    for (int i = 0; i < 100; i++) drive(&t.pair), assert_int_equal(settled(&t), RAIL_NOT_YET);
    takes(&t, 7);
    settles(&t);
    lending_end(&t);
}

/* One slot of four: other credit would wait for something to ride on. */
static void the_last_ones_credit_goes_at_once(void **state)
{
    (void)state;
    struct lending t;
    int at_once = 0;
    lending_begin(&t, 1);
    for (uint64_t n = 0; n < AGAIN; n++) {
        assert_true(lend(&t, 0, n));
        takes(&t, n);
        at_once += atomic_load(&of(t.in)->credit_sent) == n + 1; /* unless the service thread has the lock */
        settles(&t);
    }
    assert_true(at_once > AGAIN / 2);
    lending_end(&t);
}

static void registrations_end_with_the_memory(void **state)
{
    (void)state;
    struct lending t;
    lending_begin(&t, 1);
    for (uint64_t n = 1; n < 4; n++) {
        assert_true(lend(&t, 0, n));
        takes(&t, n);
        settles(&t);
        assert_int_equal(fault_verbs_figures().read_only, 1);
        net_memory_end(t.number);
        assert_true(becomes_read_only(&t, 0));
        t.number = net_memory_add(t.memory, SLOTS * SLOT);
    }
    lending_end(&t);
}

static void other_memory_at_the_same_address_is_other_memory(void **state)
{
    (void)state;
    struct lending t;
    lending_begin(&t, 1);
    for (uint64_t n = 0; n < 5; n++) {
        int calls = fault_verbs_calls("reg_mr");
        assert_true(lend(&t, 1, n));
        takes(&t, n);
        settles(&t);
        assert_true(fault_verbs_calls("reg_mr") > calls); /* the pages of before are not asked */
        net_memory_end(t.number);
        assert_true(becomes_read_only(&t, 0));
        munmap(t.memory, SLOTS * SLOT);
        map_at(t.memory, SLOTS * SLOT);
        t.number = net_memory_add(t.memory, SLOTS * SLOT);
    }
    lending_end(&t);
}

static void registrations_are_bounded_the_one_unused_for_longest_goes(void **state)
{
    (void)state;
    enum { MANY = 150, MOST = 64 };
    struct lending t;
    uint64_t numbers[MANY];
    uint8_t *at[MANY];
    lending_begin(&t, 1);
    for (int i = 0; i < MANY; i++) at[i] = map_at(NULL, 65536), numbers[i] = net_memory_add(at[i], 65536);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < MANY; i++) {
            const void *got;
            void *slot;
            size_t bytes;
            uint64_t signature;
            pattern_fill(at[i], 65536, (uint64_t)i);
            assert_true(drive_until_ready(&t.pair, t.out));
            assert_int_equal(t.out->ops->acquire(t.out, &slot), RAIL_OK);
            assert_true(t.out->ops->lending->lend(t.out, at[i], 65536, 1, true));
            assert_true(comes(&t));
            assert_int_equal(t.in->ops->wait(t.in, &got, &bytes, &signature), RAIL_OK);
            assert_false(pattern_differs(got, bytes, (uint64_t)i));
            t.in->ops->release(t.in);
            settles(&t);
            assert_true(of(t.out)->net->n_regions <= MOST);
        }
    assert_true(fault_verbs_figures().read_only_bytes > (uint64_t)MANY * 65536);
    for (int i = 0; i < MANY; i++) net_memory_end(numbers[i]), munmap(at[i], 65536);
    assert_true(becomes_read_only(&t, 0));
    lending_end(&t);
}

/* ---- what goes wrong ---- */

static void where_the_device_registers_nothing_it_is_copied_and_no_lane_is_lost(void **state)
{
    (void)state;
    struct lending t;
    lending_begin(&t, 1);
    assert_true(lend(&t, 0, 1)); /* the receiver grants its slots, ours are registered */
    takes(&t, 1);
    settles(&t);
    void *slot;
    for (int i = 0; i < 2; i++) {
        assert_true(drive_until_ready(&t.pair, t.out));
        assert_int_equal(t.out->ops->acquire(t.out, &slot), RAIL_OK);
        pattern_fill(slot, SLOT, 2);
        t.out->ops->publish(t.out, SLOT, 2);
        takes(&t, 2);
    }
    net_memory_end(t.number);
    t.number = net_memory_add(t.memory, SLOTS * SLOT);
    uint64_t before = fault_verbs_figures().read_only_bytes;
    fault_verbs_fail("reg_mr", 0, 1 << 30, ENOMEM);
    for (uint64_t n = 3; n < 3 + AGAIN; n++) {
        assert_true(lend(&t, 0, n));
        takes(&t, n);
        settles(&t);
    }
    assert_int_equal(fault_verbs_figures().read_only_bytes, before);
    assert_int_equal(t.pair.net[0]->rails[0].device_of.port->n_connections, 1);
    fault_verbs_fail(NULL, 0, 0, 0);
    lending_end(&t);
}

static void a_lane_that_dies_is_repaired_from_the_same_memory(void **state)
{
    (void)state;
    struct lending t;
    lending_begin(&t, 2);
    for (uint64_t n = 0; n < AGAIN; n += SLOTS) {
        fault_verbs_hold(1, true);
        for (int k = 0; k < SLOTS; k++) assert_true(lend(&t, k, n + (uint64_t)k));
        for (int i = 0; i < 20; i++) drive(&t.pair);
        if (n % 3 == 0) fault_verbs_give_up(1);
        fault_verbs_hold(1, false);
        for (int k = 0; k < SLOTS; k++) takes(&t, n + (uint64_t)k);
        settles(&t);
    }
    assert_false(was_copied(&t));
    lending_end(&t);
}

static void when_the_device_is_lost_tcp_reads_the_same_memory(void **state)
{
    (void)state;
    struct lending t;
    lending_begin(&t, 1);
    fault_verbs_hold(0, true);
    for (int k = 0; k < SLOTS; k++) assert_true(lend(&t, k, 50 + (uint64_t)k));
    for (int i = 0; i < 20; i++) drive(&t.pair);
    fault_verbs_event(0, IBV_EVENT_DEVICE_FATAL);
    for (int k = 0; k < SLOTS; k++) takes(&t, 50 + (uint64_t)k);
    settles(&t);
    assert_false(was_copied(&t));
    fault_verbs_hold(0, false);
    lending_end(&t);
}

static void of_a_receiver_that_dies_the_memory_comes_back_with_an_error(void **state)
{
    (void)state;
    struct lending t;
    lending_begin(&t, 1);
    for (int k = 0; k < SLOTS; k++) assert_true(lend(&t, k, (uint64_t)k));
    t.in->ops->close(t.in);
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(20));
    while (settled(&t) == RAIL_NOT_YET && !rail_deadline_passed(deadline)) drive(&t.pair);
    assert_int_equal(settled(&t), RAIL_E_REMOTE);
    t.out->ops->lending->recall(t.out, rail_now_ns());
    assert_int_equal(of(t.out)->lent_out, 0);
    net_memory_end(t.number);
    assert_true(becomes_read_only(&t, 0));
    munmap(t.memory, SLOTS * SLOT); /* who reads it now, falls */
    for (int i = 0; i < 50; i++) drive(&t.pair);
    t.out->ops->close(t.out);
    pair_end(&t.pair);
    assert_int_equal(fault_verbs_figures().objects, 0);
}

/* ---- taking back ---- */

static void what_is_recalled_goes_on_from_its_slots(void **state)
{
    (void)state;
    struct lending t;
    lending_begin(&t, 2);
    for (uint64_t n = 0; n < AGAIN; n += SLOTS) {
        for (int k = 0; k < SLOTS; k++) assert_true(lend(&t, k, n + (uint64_t)k));
        t.out->ops->lending->recall(t.out, rail_now_ns());
        assert_int_equal(settled(&t), RAIL_OK);
        scribble(&t);
        for (int k = 0; k < SLOTS; k++) takes(&t, n + (uint64_t)k);
    }
    lending_end(&t);
}

/* The lane is given up for it; what was on it goes again, by the other. */
static void what_a_silent_device_keeps_is_fenced(void **state)
{
    (void)state;
    struct lending t;
    lending_begin(&t, 2);
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(20));
    while (sockets_up(t.pair.net[0]) < 2 && !rail_deadline_passed(deadline)) drive(&t.pair);
    fault_verbs_hold(1, true);
    for (int k = 0; k < SLOTS; k++) assert_true(lend(&t, k, 90 + (uint64_t)k));
    for (int i = 0; i < 20; i++) drive(&t.pair);
    uint64_t before_ns = rail_now_ns();
    t.out->ops->lending->recall(t.out, rail_now_ns());
    uint64_t ns = rail_now_ns() - before_ns;
    assert_true(ns > 200 * RAIL_NS_PER_MS && ns < SECONDS(5)); /* it did keep something */
    assert_int_equal(of(t.out)->lent_out, 0);
    scribble(&t);
    fault_verbs_hold(1, false);
    for (int k = 0; k < SLOTS; k++) takes(&t, 90 + (uint64_t)k);
    lending_end(&t);
}

static void memory_that_ends_while_it_is_lent_is_not_read_any_more(void **state)
{
    (void)state;
    struct lending t;
    lending_begin(&t, 1);
    for (uint64_t n = 0; n < AGAIN; n += SLOTS) {
        for (int k = 0; k < SLOTS; k++) assert_true(lend(&t, k, n + (uint64_t)k));
        net_memory_end(t.number);
        assert_true(becomes_read_only(&t, 0)); /* a device's pages would stay; these are in memory only */
        munmap(t.memory, SLOTS * SLOT);
        for (int k = 0; k < SLOTS; k++) takes(&t, n + (uint64_t)k);
        settles(&t);
        map_at(t.memory, SLOTS * SLOT);
        t.number = net_memory_add(t.memory, SLOTS * SLOT);
    }
    lending_end(&t);
}

/* ---- fork ---- */

/* ThreadSanitizer allows no threads after a fork of a process that has some. */
static void a_child_knows_none_of_it_and_its_parent_goes_on(void **state)
{
    (void)state;
    struct lending t;
    int status;
    lending_begin(&t, 1);
    assert_true(lend(&t, 0, 1));
    pid_t child = fork();
    if (child == 0) {
        bool known = net_memory_known(t.memory, 1);
        t.out->ops->lending->recall(t.out, rail_now_ns()); /* no effect */
        net_memory_end(t.number);
        memset(t.memory, 1, SLOTS * SLOT);
        _exit(known);
    }
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    takes(&t, 1);
    settles(&t);
    assert_true(lend(&t, 0, 2));
    takes(&t, 2);
    settles(&t);
    lending_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_send_from_memory_that_is_known_without_a_copy),
        cmocka_unit_test(memory_that_is_not_known_or_not_all_of_it_is_not_lent),
        cmocka_unit_test(small_pieces_and_where_it_is_switched_off_are_copied),
        cmocka_unit_test(where_children_would_miss_the_memory_it_is_copied),
        cmocka_unit_test(it_is_the_programs_again_when_the_receiver_has_released_it_and_not_before),
        cmocka_unit_test(the_last_ones_credit_goes_at_once),
        cmocka_unit_test(registrations_end_with_the_memory),
        cmocka_unit_test(other_memory_at_the_same_address_is_other_memory),
        cmocka_unit_test(registrations_are_bounded_the_one_unused_for_longest_goes),
        cmocka_unit_test(where_the_device_registers_nothing_it_is_copied_and_no_lane_is_lost),
        cmocka_unit_test(a_lane_that_dies_is_repaired_from_the_same_memory),
        cmocka_unit_test(when_the_device_is_lost_tcp_reads_the_same_memory),
        cmocka_unit_test(of_a_receiver_that_dies_the_memory_comes_back_with_an_error),
        cmocka_unit_test(what_is_recalled_goes_on_from_its_slots),
        cmocka_unit_test(what_a_silent_device_keeps_is_fenced),
        cmocka_unit_test(memory_that_ends_while_it_is_lent_is_not_read_any_more),
        cmocka_unit_test(a_child_knows_none_of_it_and_its_parent_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else
int main(void)
{
    FIXTURE_BEGIN;
}
#endif
