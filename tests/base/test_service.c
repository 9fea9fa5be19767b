/* test_service.c - the service thread: timers in order, events, and removal that is final, also under fire. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/service.h"

static void wait_until(atomic_int *what, int value)
{
    struct rail_deadline d = rail_deadline_in_ns(20 * RAIL_NS_PER_S);
    while (atomic_load(what) < value && !rail_deadline_passed(d)) usleep(200);
    assert_in_range(atomic_load(what), value, INT32_MAX);
}

/* ---- timers ---- */

struct my_timer {
    struct service_timer timer; /* first: the callback gets this */
    int number;
    uint64_t due_ns, fired_ns;
};

static int order[256];
static atomic_int n_fired;

static void note(struct service_timer *timer)
{
    struct my_timer *t = (struct my_timer *)timer;
    t->fired_ns = rail_now_ns();
    order[atomic_load(&n_fired) % 256] = t->number;
    atomic_fetch_add(&n_fired, 1);
}

static void timers_fire_in_the_order_of_their_time_and_never_early(void **state)
{
    (void)state;
    enum { N = 200 };
    static struct my_timer t[N];
    n_fired = 0;
    uint64_t begin_ns = rail_now_ns() + 30 * RAIL_NS_PER_MS;
    for (int i = 0; i < N; i++) {
        int place = i * 77 % N; /* 77 and 200 have no common divisor: every place once, scrambled */
        t[place] = (struct my_timer){.timer.fire = note, .number = place};
        t[place].due_ns = begin_ns + (uint64_t)place * 100 * RAIL_NS_PER_US;
        service_timer_set(&t[place].timer, t[place].due_ns);
    }
    wait_until(&n_fired, N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(order[i], i);
        assert_true(t[i].fired_ns >= t[i].due_ns);
    }
}

static void setting_again_moves_and_cancelling_forgets(void **state)
{
    (void)state;
    struct my_timer a = {.timer.fire = note, .number = 1}, b = {.timer.fire = note, .number = 2},
                    c = {.timer.fire = note, .number = 3};
    n_fired = 0;
    uint64_t now = rail_now_ns();
    service_timer_set(&a.timer, now + 3600 * RAIL_NS_PER_S);
    service_timer_set(&b.timer, now + 40 * RAIL_NS_PER_MS);
    service_timer_set(&c.timer, now + 10 * RAIL_NS_PER_MS);
    service_timer_set(&a.timer, now + 20 * RAIL_NS_PER_MS); /* from far to near */
    service_timer_set(&c.timer, now + 30 * RAIL_NS_PER_MS); /* from near to far */
    service_timer_cancel(&b.timer);
    service_timer_cancel(&b.timer); /* twice is fine */
    wait_until(&n_fired, 2);
    usleep(30000);
    assert_int_equal(n_fired, 2);
    assert_int_equal(order[0], 1);
    assert_int_equal(order[1], 3);
    service_timer_cancel(&a.timer); /* fired already */
}

static void times_at_both_ends_of_the_clock_are_fine(void **state)
{
    (void)state;
    struct my_timer past = {.timer.fire = note}, never = {.timer.fire = note};
    n_fired = 0;
    service_timer_set(&never.timer, UINT64_MAX);
    service_timer_set(&past.timer, 0);
    wait_until(&n_fired, 1);
    service_timer_set(&past.timer, 1);
    wait_until(&n_fired, 2);
    service_timer_cancel(&never.timer);
    assert_int_equal(n_fired, 2);
}

static void again(struct service_timer *timer)
{
    if (atomic_fetch_add(&n_fired, 1) < 99) service_timer_set(timer, rail_now_ns());
}

static void a_timer_may_set_itself_again(void **state)
{
    (void)state;
    struct service_timer t = {.fire = again};
    n_fired = 0;
    service_timer_set(&t, rail_now_ns());
    wait_until(&n_fired, 100);
    service_timer_cancel(&t);
    assert_int_equal(n_fired, 100);
}

static void forever(struct service_timer *timer)
{
    service_timer_set(timer, 1);
}

static atomic_int n_ready;
static void count_and_clear(struct service_source *source, uint32_t events)
{
    uint64_t value;
    assert_true(events & EPOLLIN);
    if (read(source->fd, &value, sizeof value) == sizeof value) n_ready++;
}

static void a_timer_that_is_always_due_does_not_starve_descriptors(void **state)
{
    (void)state;
    struct service_timer t = {.fire = forever};
    struct service_source s = {.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = count_and_clear};
    n_ready = 0;
    service_timer_set(&t, 1);
    assert_int_equal(service_add(&s, EPOLLIN), RAIL_OK);
    eventfd_write(s.fd, 1);
    wait_until(&n_ready, 1);
    service_remove(&s);
    service_timer_cancel(&t);
    close(s.fd);
}

static atomic_int inside, left;
static void slow(struct service_timer *timer)
{
    (void)timer;
    inside = 1;
    usleep(30000);
    left = 1;
}

static void cancelling_waits_for_a_callback_that_runs(void **state)
{
    (void)state;
    struct service_timer t = {.fire = slow};
    inside = left = 0;
    service_timer_set(&t, 1);
    wait_until(&inside, 1);
    service_timer_cancel(&t);
    assert_int_equal(left, 1);
}

static void slow_and_again(struct service_timer *timer)
{
    inside = 1;
    usleep(30000);
    service_timer_set(timer, 1);
    n_fired++;
}

static void a_timer_that_sets_itself_again_while_it_is_cancelled_stays_cancelled(void **state)
{
    (void)state;
    struct service_timer t = {.fire = slow_and_again};
    inside = n_fired = 0;
    service_timer_set(&t, 1);
    wait_until(&inside, 1);
    service_timer_cancel(&t);
    int fired = n_fired;
    usleep(80000);
    assert_int_equal(n_fired, fired);
    service_timer_cancel(&t);
}

static void cancel_self_and_free(struct service_timer *timer)
{
    service_timer_set(timer, 1);
    service_timer_cancel(timer);
    free(timer);
    n_fired++;
}

static void a_timer_may_cancel_and_free_itself(void **state)
{
    (void)state;
    n_fired = 0;
    struct service_timer *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->fire = cancel_self_and_free;
    service_timer_set(t, 1);
    wait_until(&n_fired, 1);
    usleep(2000);
    assert_int_equal(n_fired, 1);
}

/* ---- sources ---- */

static sigset_t mask_seen;
static char name_seen[32];
static atomic_int self_seen;
static void look_around(struct service_source *source, uint32_t events)
{
    (void)events;
    uint64_t value;
    if (read(source->fd, &value, sizeof value) != sizeof value) return;
    pthread_sigmask(SIG_SETMASK, NULL, &mask_seen);
    pthread_getname_np(pthread_self(), name_seen, sizeof name_seen);
    self_seen = service_is_self() ? 1 : 2;
}

static void the_thread_has_its_name_and_takes_no_signals(void **state)
{
    (void)state;
    struct service_source s = {.fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK), .ready = look_around};
    assert_false(service_is_self());
    assert_int_equal(service_add(&s, EPOLLIN), RAIL_OK);
    wait_until(&self_seen, 1);
    service_remove(&s);
    close(s.fd);
    assert_int_equal(self_seen, 1);
    static const int signals[] = {SIGINT, SIGTERM, SIGALRM, SIGPIPE, SIGUSR1, SIGCHLD, SIGPROF};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        assert_int_equal(sigismember(&mask_seen, signals[i]), 1);
    assert_string_equal(name_seen, "railccl");
}

static void events_come_until_removed_and_again_after_adding_again(void **state)
{
    (void)state;
    struct service_source s = {.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = count_and_clear};
    n_ready = 0;
    assert_int_equal(service_add(&s, EPOLLIN), RAIL_OK);
    assert_int_equal(service_add(&s, EPOLLIN), RAIL_E_INTERNAL);
    for (int i = 1; i <= 10; i++) {
        eventfd_write(s.fd, 1);
        wait_until(&n_ready, i);
    }
    service_remove(&s);
    service_remove(&s);
    eventfd_write(s.fd, 1);
    usleep(10000);
    assert_int_equal(n_ready, 10);
    assert_int_equal(service_modify(&s, EPOLLIN), RAIL_E_INTERNAL);
    assert_int_equal(service_add(&s, EPOLLIN), RAIL_OK);
    wait_until(&n_ready, 11);
    service_remove(&s);
    close(s.fd);
}

static void one_shot_sources_are_armed_again_by_modify(void **state)
{
    (void)state;
    struct service_source s = {.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = count_and_clear};
    n_ready = 0;
    assert_int_equal(service_add(&s, EPOLLIN | EPOLLONESHOT), RAIL_OK);
    eventfd_write(s.fd, 1);
    wait_until(&n_ready, 1);
    eventfd_write(s.fd, 1);
    usleep(10000);
    assert_int_equal(n_ready, 1);
    assert_int_equal(service_modify(&s, EPOLLIN | EPOLLONESHOT), RAIL_OK);
    wait_until(&n_ready, 2);
    service_remove(&s);
    close(s.fd);
}

static void a_bad_descriptor_is_refused_and_a_closed_one_can_be_removed(void **state)
{
    (void)state;
    struct service_source bad = {.fd = -1, .ready = count_and_clear};
    assert_int_equal(service_add(&bad, EPOLLIN), RAIL_E_SYSTEM);
    service_remove(&bad); /* never added */
    struct service_source s = {.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = count_and_clear};
    assert_int_equal(service_add(&s, EPOLLIN), RAIL_OK);
    close(s.fd);
    errno = ENOTTY;
    service_remove(&s);
    assert_int_equal(errno, ENOTTY);
}

static void remove_self_and_free(struct service_source *source, uint32_t events)
{
    (void)events;
    int fd = source->fd;
    service_remove(source);
    free(source);
    close(fd);
    n_ready++;
}

static void a_source_may_remove_and_free_itself(void **state)
{
    (void)state;
    n_ready = 0;
    for (int i = 0; i < 50; i++) {
        struct service_source *s = calloc(1, sizeof *s);
        assert_non_null(s);
        s->fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
        s->ready = remove_self_and_free;
        assert_int_equal(service_add(s, EPOLLIN), RAIL_OK);
    }
    wait_until(&n_ready, 50);
    usleep(2000);
    assert_int_equal(n_ready, 50);
}

/* Both are ready in one epoll_wait; whoever runs first removes the other. */
static struct service_source pair[2];
static atomic_int n_pair;
static void remove_other(struct service_source *source, uint32_t events)
{
    (void)events;
    service_remove(source == &pair[0] ? &pair[1] : &pair[0]);
    service_remove(source);
    n_pair++;
}

static void a_source_removed_by_another_callback_does_not_run_from_the_same_batch(void **state)
{
    (void)state;
    for (int round = 0; round < 50; round++) {
        struct service_timer block = {.fire = slow};
        n_pair = inside = left = 0;
        for (int i = 0; i < 2; i++)
            pair[i] = (struct service_source){.fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK), .ready = remove_other};
        if (round < 5) { /* surely in one batch: the thread is busy while both are added */
            service_timer_set(&block, 1);
            wait_until(&inside, 1);
        }
        for (int i = 0; i < 2; i++) assert_int_equal(service_add(&pair[i], EPOLLIN), RAIL_OK);
        wait_until(&n_pair, 1);
        service_timer_cancel(&block);
        for (int i = 0; i < 2; i++) service_remove(&pair[i]);
        if (round < 5) assert_int_equal(n_pair, 1);
        for (int i = 0; i < 2; i++) close(pair[i].fd);
    }
}

/* Threads add, fire, and remove sources whose memory they then poison and free: any late callback is a use after free,
 * a failed assertion, or a race for TSan. */
struct shortlived {
    struct service_source source;
    atomic_int alive;
    int plain; /* written by the callback, read after removal: a race unless removal waits */
};
static atomic_int n_late, n_hits;

static void hit(struct service_source *source, uint32_t events)
{
    struct shortlived *s = (struct shortlived *)source;
    (void)events;
    if (!s->alive) n_late++;
    s->plain++;
    n_hits++;
    uint64_t value;
    if (read(source->fd, &value, sizeof value) < 0 && errno != EAGAIN) n_late++;
}

static void *churn(void *seed)
{
    unsigned random = *(unsigned *)seed;
    for (int i = 0; i < 2000; i++) {
        struct shortlived *s = calloc(1, sizeof *s);
        if (!s) abort();
        s->source.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        s->source.ready = hit;
        s->alive = 1;
        if (service_add(&s->source, EPOLLIN) != RAIL_OK) abort();
        eventfd_write(s->source.fd, 1);
        for (unsigned spin = rand_r(&random) % 2000; spin-- > 0;) __asm__ volatile("");
        if (i % 16 == 0) usleep(100);
        service_remove(&s->source);
        s->alive = 0;
        if (s->plain > 1) n_late++;
        close(s->source.fd);
        free(s);
    }
    return NULL;
}

static void removal_is_final_also_while_events_rain(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    unsigned seeds[THREADS] = {1, 2, 3, 4};
    n_late = n_hits = 0;
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, churn, &seeds[i]), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(n_late, 0);
    assert_true(n_hits > 100); /* the race was run at all */
}

struct short_timer {
    struct service_timer timer;
    int plain;
};
static void tick(struct service_timer *timer)
{
    ((struct short_timer *)timer)->plain++;
    n_hits++;
}

static void *churn_timers(void *seed)
{
    unsigned random = *(unsigned *)seed;
    for (int i = 0; i < 4000; i++) {
        struct short_timer *t = calloc(1, sizeof *t);
        if (!t) abort();
        t->timer.fire = tick;
        service_timer_set(&t->timer, rail_now_ns() + rand_r(&random) % 50000);
        if (i % 2) service_timer_set(&t->timer, rail_now_ns() + rand_r(&random) % 50000);
        if (i % 8 == 0) usleep(50);
        service_timer_cancel(&t->timer);
        t->plain++;
        free(t);
    }
    return NULL;
}

static void cancelling_is_final_also_while_timers_rain(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    unsigned seeds[THREADS] = {5, 6, 7, 8};
    n_hits = 0;
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, churn_timers, &seeds[i]), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    assert_true(n_hits > 100);
}

/* The thread's own voluntary context switches, from /proc: it must not wake without a reason. */
static long switches_of_service_thread(void)
{
    char path[64], line[128];
    long n = -1;
    snprintf(path, sizeof path, "/proc/self/task/%d/status", atomic_load(&self_seen));
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) sscanf(line, "voluntary_ctxt_switches: %ld", &n);
    fclose(f);
    assert_true(n >= 0);
    return n;
}

static void tell_tid(struct service_timer *timer)
{
    (void)timer;
    self_seen = gettid();
}

static void without_work_the_thread_stays_asleep(void **state)
{
    (void)state;
    struct service_timer t = {.fire = tell_tid}, far = {.fire = tell_tid};
    self_seen = 0;
    service_timer_set(&t, 1);
    wait_until(&self_seen, 1);
    service_timer_set(&far, rail_now_ns() + 3600 * RAIL_NS_PER_S);
    usleep(20000);
    long before = switches_of_service_thread();
    usleep(300000);
    assert_int_equal(switches_of_service_thread(), before);
    service_timer_cancel(&far);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_in_the_order_of_their_time_and_never_early),
        cmocka_unit_test(setting_again_moves_and_cancelling_forgets),
        cmocka_unit_test(times_at_both_ends_of_the_clock_are_fine),
        cmocka_unit_test(a_timer_may_set_itself_again),
        cmocka_unit_test(a_timer_that_is_always_due_does_not_starve_descriptors),
        cmocka_unit_test(cancelling_waits_for_a_callback_that_runs),
        cmocka_unit_test(a_timer_that_sets_itself_again_while_it_is_cancelled_stays_cancelled),
        cmocka_unit_test(a_timer_may_cancel_and_free_itself),
        cmocka_unit_test(the_thread_has_its_name_and_takes_no_signals),
        cmocka_unit_test(events_come_until_removed_and_again_after_adding_again),
        cmocka_unit_test(one_shot_sources_are_armed_again_by_modify),
        cmocka_unit_test(a_bad_descriptor_is_refused_and_a_closed_one_can_be_removed),
        cmocka_unit_test(a_source_may_remove_and_free_itself),
        cmocka_unit_test(a_source_removed_by_another_callback_does_not_run_from_the_same_batch),
        cmocka_unit_test(removal_is_final_also_while_events_rain),
        cmocka_unit_test(cancelling_is_final_also_while_timers_rain),
        cmocka_unit_test(without_work_the_thread_stays_asleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
