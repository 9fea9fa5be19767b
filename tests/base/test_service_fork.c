/* test_service_fork.c - a program that never uses the service has no thread; a forked child starts with none of the
 * parent's sources and can have its own. */
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/service.h"

/* TSan gives up on children that start threads unless told otherwise. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}

static int entries(const char *path)
{
    DIR *d = opendir(path);
    int n = -2; /* . and .. */
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static atomic_int n_ready, n_fired;
static void count(struct service_source *source, uint32_t events)
{
    uint64_t value;
    (void)events;
    if (read(source->fd, &value, sizeof value) == sizeof value) n_ready++;
}
static void fire(struct service_timer *timer)
{
    (void)timer;
    n_fired++;
}

static int wait_for(atomic_int *what, int value)
{
    struct rail_deadline d = rail_deadline_in_ns(10 * RAIL_NS_PER_S);
    while (*what < value && !rail_deadline_passed(d)) usleep(200);
    return *what >= value;
}

static int exit_code(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

static int threads_at_start;

static void without_use_there_is_no_thread(void **state)
{
    (void)state;
    struct service_source s = {.fd = -1, .ready = count};
    struct service_timer t = {.fire = fire};
    service_remove(&s);
    service_timer_cancel(&t);
    assert_false(service_is_self());
    assert_int_equal(entries("/proc/self/task"), threads_at_start);
}

static void use(void)
{
    struct service_source s = {.fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK), .ready = count};
    struct service_timer t = {.fire = fire};
    int ready = n_ready + 1, fired = n_fired + 1;
    if (service_add(&s, EPOLLIN) != RAIL_OK) _exit(20);
    service_timer_set(&t, rail_now_ns() + RAIL_NS_PER_MS);
    if (!wait_for(&n_ready, ready) || !wait_for(&n_fired, fired)) _exit(21);
    service_remove(&s);
    service_timer_cancel(&t);
    close(s.fd);
}

static void a_child_has_no_thread_until_it_wants_one_and_none_of_the_parents_sources(void **state)
{
    (void)state;
    struct service_source s = {.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = count};
    struct service_timer t = {.fire = fire}, far = {.fire = fire};
    assert_int_equal(service_add(&s, EPOLLIN), RAIL_OK);
    service_timer_set(&far, rail_now_ns() + 3600 * RAIL_NS_PER_S);
    service_timer_set(&t, rail_now_ns() + 500 * RAIL_NS_PER_MS); /* after the fork, unless the machine stands still */
    n_ready = n_fired = 0;
    assert_true(entries("/proc/self/task") > threads_at_start);
    int descriptors = entries("/proc/self/fd");
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        n_ready = n_fired = 0;
        if (entries("/proc/self/task") != 1) _exit(1);
        if (entries("/proc/self/fd") != descriptors - 2) _exit(2); /* epoll and timerfd are closed */
        use();
        usleep(600000);
        if (n_ready != 1 || n_fired != 1) _exit(3); /* its own only: not the parent's timer */
        eventfd_write(s.fd, 1);                     /* an object shared with the parent */
        usleep(10000);
        if (n_ready != 1) _exit(4);
        service_remove(&s); /* what the child's copy of a destructor would do */
        service_timer_cancel(&far);
        service_timer_cancel(&t);
        service_timer_set(&far, 1);
        if (!wait_for(&n_fired, 2)) _exit(5);
        if (service_add(&s, EPOLLIN) != RAIL_OK) _exit(6);
        service_remove(&s);
        _exit(0);
    }
    assert_int_equal(exit_code(child), 0);
    assert_true(wait_for(&n_ready, 1)); /* the parent goes on: the child's write woke it */
    assert_true(wait_for(&n_fired, 1));
    eventfd_write(s.fd, 1);
    assert_true(wait_for(&n_ready, 2));
    service_remove(&s);
    service_timer_cancel(&far);
    close(s.fd);
}

static atomic_int stop;
static void *rain(void *unused)
{
    (void)unused;
    struct service_timer t = {.fire = fire};
    while (!stop) {
        service_timer_set(&t, 1);
        service_timer_cancel(&t);
    }
    return NULL;
}

static void forks_in_the_middle_of_everything_give_working_children(void **state)
{
    (void)state;
    pthread_t thread;
    stop = 0;
    assert_int_equal(pthread_create(&thread, NULL, rain, NULL), 0);
    for (int i = 0; i < 30; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            use();
            _exit(0);
        }
        assert_int_equal(exit_code(child), 0);
    }
    stop = 1;
    pthread_join(thread, NULL);
}

static void a_grandchild_works_as_well(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        use();
        pid_t grandchild = fork();
        if (grandchild == 0) {
            use();
            _exit(0);
        }
        int status = 1;
        waitpid(grandchild, &status, 0);
        use();
        _exit(status == 0 ? 0 : 1);
    }
    assert_int_equal(exit_code(child), 0);
}

static _Atomic pid_t forked;
static void fork_inside(struct service_timer *timer)
{
    (void)timer;
    pid_t child = fork();
    if (child == 0) { /* should it go on instead of ending: signals are blocked on this thread */
        sigset_t none;
        sigemptyset(&none);
        pthread_sigmask(SIG_SETMASK, &none, NULL);
        alarm(20);
    }
    if (child == 0 && service_is_self()) _exit(77);
    if (child != 0) forked = child;
}

static void a_child_forked_inside_a_callback_ends_when_the_callback_returns(void **state)
{
    (void)state;
    struct service_timer t = {.fire = fork_inside};
    forked = 0;
    service_timer_set(&t, 1);
    while (!forked) usleep(200);
    assert_int_equal(exit_code(forked), 0);
    service_timer_cancel(&t);
    use(); /* the parent's service still works */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_use_there_is_no_thread),
        cmocka_unit_test(a_child_has_no_thread_until_it_wants_one_and_none_of_the_parents_sources),
        cmocka_unit_test(forks_in_the_middle_of_everything_give_working_children),
        cmocka_unit_test(a_grandchild_works_as_well),
        cmocka_unit_test(a_child_forked_inside_a_callback_ends_when_the_callback_returns),
    };
    threads_at_start = entries("/proc/self/task");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
