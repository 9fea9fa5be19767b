/* test_result.c - the last error's text: process-wide, each thread with its own copy, whole under contention. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/result.h"

static void before_any_failure_the_text_is_empty(void **state)
{
    (void)state;
    assert_string_equal(rail_last_error(), "");
}

static void the_result_is_passed_through_and_the_text_formatted(void **state)
{
    (void)state;
    assert_int_equal(rail_fail(RAIL_E_REMOTE, "rank %d: %s", 3, "gone"), RAIL_E_REMOTE);
    assert_string_equal(rail_last_error(), "rank 3: gone");
    assert_int_equal(rail_fail_quietly(RAIL_E_USAGE, "quiet %u", 7u), RAIL_E_USAGE);
    assert_string_equal(rail_last_error(), "quiet 7");
}

static void errno_is_kept(void **state)
{
    (void)state;
    errno = ENOTTY;
    (void)rail_fail(RAIL_E_SYSTEM, "x");
    assert_int_equal(errno, ENOTTY);
    (void)rail_last_error();
    assert_int_equal(errno, ENOTTY);
}

static void a_long_text_is_cut_and_ends(void **state)
{
    (void)state;
    char big[5000];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = 0;
    (void)rail_fail(RAIL_E_SYSTEM, "%s", big);
    assert_int_equal(strlen(rail_last_error()), 1023);
    (void)rail_fail(RAIL_E_SYSTEM, "short");
    assert_string_equal(rail_last_error(), "short");
}

static void *fail_once(void *unused)
{
    (void)unused;
    (void)rail_fail(RAIL_E_SYSTEM, "from another thread");
    return NULL;
}

static void a_failure_on_another_thread_is_seen_and_leaves_the_copy_alone(void **state)
{
    (void)state;
    (void)rail_fail(RAIL_E_SYSTEM, "mine");
    const char *copy = rail_last_error();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fail_once, NULL), 0);
    pthread_join(thread, NULL);
    assert_string_equal(copy, "mine");
    assert_string_equal(rail_last_error(), "from another thread");
}

/* Many rounds: a reader must be interrupted in the middle of a copy, and the slot be used again, to see anything. */
enum { WRITERS = 3, READERS = 3, ROUNDS = 60000 };
static atomic_int torn, writers_left;

static void *write_many(void *letter)
{
    for (int i = 0; i < ROUNDS; i++) {
        char text[1024];
        int n = 900 + i % 100;
        memset(text, *(char *)letter, (size_t)n);
        text[n] = 0;
        (void)rail_fail_quietly(RAIL_E_SYSTEM, "%s", text);
    }
    writers_left--;
    return NULL;
}

static void *read_many(void *unused)
{
    (void)unused;
    while (writers_left > 0) {
        const char *text = rail_last_error();
        size_t n = strlen(text);
        if (n < 900 || n > 999 || text[0] != text[n - 1]) torn++; /* a torn copy begins old and ends new */
    }
    return NULL;
}

static void texts_are_never_mixed_under_contention(void **state)
{
    (void)state;
    pthread_t threads[WRITERS + READERS];
    char letters[WRITERS] = {'x', 'y', 'z'};
    (void)rail_fail_quietly(RAIL_E_SYSTEM, "%0900d", 0);
    writers_left = WRITERS;
    for (int i = 0; i < WRITERS; i++) assert_int_equal(pthread_create(&threads[i], NULL, write_many, &letters[i]), 0);
    for (int i = WRITERS; i < WRITERS + READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_many, NULL), 0);
    for (int i = 0; i < WRITERS + READERS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(torn, 0);
}

static atomic_int writing;
static void *write_until_told(void *unused)
{
    (void)unused;
    while (writing) (void)rail_fail_quietly(RAIL_E_SYSTEM, "busy");
    return NULL;
}

static void a_child_forked_during_a_failure_can_still_fail(void **state)
{
    (void)state;
    pthread_t thread;
    writing = 1;
    assert_int_equal(pthread_create(&thread, NULL, write_until_told, NULL), 0);
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(5); /* a deadlock ends here */
            (void)rail_fail_quietly(RAIL_E_SYSTEM, "child %d", i);
            char expected[32];
            snprintf(expected, sizeof expected, "child %d", i);
            _exit(strcmp(rail_last_error(), expected) == 0 ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
    writing = 0;
    pthread_join(thread, NULL);
}

static void every_result_has_its_own_word(void **state)
{
    (void)state;
    for (int a = RAIL_OK; a <= RAIL_E_ABORTED; a++) {
        assert_string_not_equal(rail_result_name((enum rail_result)a), "unknown");
        for (int b = RAIL_OK; b < a; b++)
            assert_string_not_equal(rail_result_name((enum rail_result)a), rail_result_name((enum rail_result)b));
    }
    assert_string_equal(rail_result_name((enum rail_result)99), "unknown");
    assert_string_equal(rail_result_name((enum rail_result)-1), "unknown");
}

static void what_fails_behind_a_callers_back_does_not_talk_over_the_verdict(void **state)
{
    (void)state;
    assert_int_equal(rail_fail_quietly(RAIL_E_REMOTE, "rank 2 died"), RAIL_E_REMOTE);
    assert_int_equal(rail_fail_privately(RAIL_E_REMOTE, "rail %d: reset", 0), RAIL_E_REMOTE);
    assert_string_equal(rail_own_error(), "rail 0: reset");
    assert_string_equal(rail_last_error(), "rank 2 died");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_any_failure_the_text_is_empty),
        cmocka_unit_test(the_result_is_passed_through_and_the_text_formatted),
        cmocka_unit_test(errno_is_kept),
        cmocka_unit_test(a_long_text_is_cut_and_ends),
        cmocka_unit_test(a_failure_on_another_thread_is_seen_and_leaves_the_copy_alone),
        cmocka_unit_test(texts_are_never_mixed_under_contention),
        cmocka_unit_test(a_child_forked_during_a_failure_can_still_fail),
        cmocka_unit_test(every_result_has_its_own_word),
        cmocka_unit_test(what_fails_behind_a_callers_back_does_not_talk_over_the_verdict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
