/* futex.c - the futex calls. Never FUTEX_PRIVATE: the word may be mapped by several processes at different addresses,
 * and the shared form finds it by its page. */
#include "base/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

_Static_assert(sizeof(_Atomic uint32_t) == 4, "the kernel compares 32 plain bits");

/* The form with bits takes a time of the monotonic clock, not a length. */
int rail_futex_wait_bits(_Atomic uint32_t *word, uint32_t expected, uint32_t bits, uint64_t timeout_ns)
{
    int saved = errno;
    uint64_t end_ns = timeout_ns == UINT64_MAX ? 0 : rail_now_ns() + timeout_ns;
    struct timespec t = {.tv_sec = (time_t)(end_ns / RAIL_NS_PER_S), .tv_nsec = (long)(end_ns % RAIL_NS_PER_S)};
    long rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, timeout_ns == UINT64_MAX ? NULL : &t, NULL, bits);
    int error = rc == 0 ? 0 : errno;
    errno = saved;
    return error == ETIMEDOUT || error == EINTR ? error : 0; /* EAGAIN: the value differed */
}

int rail_futex_wake_bits(_Atomic uint32_t *word, int count, uint32_t bits)
{
    int saved = errno;
    long woken = syscall(SYS_futex, word, FUTEX_WAKE_BITSET, count, NULL, NULL, bits);
    errno = saved;
    return woken < 0 ? 0 : (int)woken;
}

int rail_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
    return rail_futex_wait_bits(word, expected, RAIL_FUTEX_ALL, timeout_ns);
}

int rail_futex_wake(_Atomic uint32_t *word, int count) { return rail_futex_wake_bits(word, count, RAIL_FUTEX_ALL); }
