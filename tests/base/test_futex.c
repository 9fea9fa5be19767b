/* test_futex.c - sleeping and waking, also between processes that map the word at different addresses. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/futex.h"
#include "base/memory.h"

static void a_value_that_differs_returns_at_once(void **state)
{
    (void)state;
    _Atomic uint32_t word = 1;
    errno = EXDEV;
    assert_int_equal(rail_futex_wait(&word, 0, UINT64_MAX), 0);
    assert_int_equal(errno, EXDEV);
}

static void without_a_waker_the_time_runs_out(void **state)
{
    (void)state;
    _Atomic uint32_t word = 0;
    uint64_t begun_ns = rail_now_ns();
    assert_int_equal(rail_futex_wait(&word, 0, 0), ETIMEDOUT);
    assert_int_equal(rail_futex_wait(&word, 0, 20 * RAIL_NS_PER_MS), ETIMEDOUT);
    assert_true(rail_now_ns() - begun_ns >= 20 * RAIL_NS_PER_MS);
}

static void waking_nobody_wakes_none(void **state)
{
    (void)state;
    _Atomic uint32_t word = 0;
    assert_int_equal(rail_futex_wake(&word, 1000), 0);
}

static void two_processes_hand_a_word_back_and_forth(void **state)
{
    (void)state;
    enum { ROUNDS = 2000 };
    int fd;
    void *here, *there;
    assert_int_equal(rail_memfd_create("futex", 4096, &fd), RAIL_OK);
    assert_int_equal(rail_memfd_map(fd, 4096, &here), RAIL_OK);
    assert_int_equal(rail_memfd_map(fd, 4096, &there), RAIL_OK);
    assert_ptr_not_equal(here, there);
    pid_t child = fork();
    _Atomic uint32_t *word = child == 0 ? there : here;
    uint32_t mine = child == 0; /* the child waits for odd values and makes them even */
    struct rail_deadline deadline = rail_deadline_in_ns(20 * RAIL_NS_PER_S);
    while (atomic_load(word) < ROUNDS && !rail_deadline_passed(deadline)) {
        uint32_t now = atomic_load(word);
        if (now % 2 == mine) {
            atomic_store(word, now + 1);
            rail_futex_wake(word, 1);
        } else {
            rail_futex_wait(word, now, RAIL_NS_PER_S * 5);
        }
    }
    if (child == 0) _exit(atomic_load(word) >= ROUNDS ? 0 : 1);
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    assert_in_range(atomic_load(word), ROUNDS, ROUNDS + 1);
    rail_memory_unmap(here, 4096);
    rail_memory_unmap(there, 4096);
    close(fd);
}

static _Atomic uint32_t gate;
static atomic_int through, asleep;

static void *wait_at_gate(void *unused)
{
    (void)unused;
    asleep++;
    while (atomic_load(&gate) == 0) rail_futex_wait(&gate, 0, UINT64_MAX);
    through++;
    return NULL;
}

static void one_wake_frees_all_sleepers(void **state)
{
    (void)state;
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, wait_at_gate, NULL), 0);
    while (asleep < THREADS) usleep(100);
    assert_int_equal(through, 0);
    atomic_store(&gate, 1);
    rail_futex_wake(&gate, INT32_MAX);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(through, THREADS);
}

/* Every sleeper has a bit; the ringing thread's bits say who is meant. */
static _Atomic uint32_t bell;
static atomic_int awake[2];

static void *wait_for_my_bit(void *which)
{
    int me = *(int *)which;
    asleep++;
    while (!atomic_load(&awake[me])) {
        uint32_t seen = atomic_load(&bell);
        if (rail_futex_wait_bits(&bell, seen, 1u << me, UINT64_MAX) == 0 && atomic_load(&bell) != seen) awake[me] = 1;
    }
    return NULL;
}

static void only_who_has_the_bit_is_woken(void **state)
{
    (void)state;
    pthread_t threads[2];
    static int number[2] = {0, 1};
    asleep = 0;
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, wait_for_my_bit, &number[i]), 0);
    while (asleep < 2) usleep(100);
    usleep(50000); /* into the sleep itself */
    atomic_store(&bell, 1);
    assert_int_equal(rail_futex_wake_bits(&bell, INT32_MAX, 2), 1);
    pthread_join(threads[1], NULL);
    usleep(20000);
    assert_int_equal(awake[0], 0);
    assert_int_equal(rail_futex_wake(&bell, INT32_MAX), 1); /* all bits */
    pthread_join(threads[0], NULL);
}

static void nothing(int signal_number)
{
    (void)signal_number;
}

static void a_signal_is_reported(void **state)
{
    (void)state;
    _Atomic uint32_t word = 0;
    struct sigaction act = {.sa_handler = nothing};
    sigaction(SIGALRM, &act, NULL);
    ualarm(20000, 0);
    assert_int_equal(rail_futex_wait(&word, 0, 10 * RAIL_NS_PER_S), EINTR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_that_differs_returns_at_once),
        cmocka_unit_test(without_a_waker_the_time_runs_out),
        cmocka_unit_test(waking_nobody_wakes_none),
        cmocka_unit_test(two_processes_hand_a_word_back_and_forth),
        cmocka_unit_test(one_wake_frees_all_sleepers),
        cmocka_unit_test(only_who_has_the_bit_is_woken),
        cmocka_unit_test(a_signal_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
