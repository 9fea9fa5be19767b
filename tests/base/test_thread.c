/* test_thread.c - threads of the library's own: named, and started whether or not they have ended by the time we look. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/thread.h"

static _Atomic int ended;

static void *end_at_once(void *argument)
{
    (void)argument;
    atomic_fetch_add(&ended, 1);
    return NULL;
}

static void until_ended(int n)
{
    while (atomic_load(&ended) < n) nanosleep(&(struct timespec){0, 100000}, NULL);
}

/* Not more at a time than a sanitizer has room for. */
enum { STARTERS = 8, ALIVE_MOST = 200 };
static _Atomic int begun;

/* Stacks of threads that have ended are kept for the next ones up to 40 MiB, so that more than a handful must be ending for one
 * to be unmapped under a starter that is slow. */
static void *start_some(void *argument)
{
    int *started = argument;
    for (int i = 0; i < 4000; i++) {
        until_ended(atomic_load(&begun) - ALIVE_MOST);
        bool is_on = rail_thread_start("a test", end_at_once, NULL, NULL) == RAIL_OK;
        *started += is_on;
        atomic_fetch_add(&begun, is_on);
    }
    return NULL;
}

static void a_thread_that_nobody_joins_may_end_before_its_start_returns(void **state)
{
    pthread_t starters[STARTERS];
    int started[STARTERS] = {0}, all = 0;
    (void)state;
    for (int i = 0; i < STARTERS; i++) assert_int_equal(pthread_create(&starters[i], NULL, start_some, &started[i]), 0);
    for (int i = 0; i < STARTERS; i++) {
        pthread_join(starters[i], NULL);
        all += started[i];
    }
    assert_true(all > 0); /* a limit of threads may refuse some */
    until_ended(all);
}

static void *own_name(void *out)
{
    nanosleep(&(struct timespec){0, 50000000}, NULL);
    pthread_getname_np(pthread_self(), out, 16);
    return NULL;
}

static void it_is_named_and_can_be_joined(void **state)
{
    char name[16] = "";
    pthread_t thread;
    (void)state;
    assert_int_equal(rail_thread_start("a test", own_name, name, &thread), RAIL_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(name, "railccl");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_that_nobody_joins_may_end_before_its_start_returns),
        cmocka_unit_test(it_is_named_and_can_be_joined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
