/* futex.c - the two futex calls. Never FUTEX_PRIVATE: the word may be mapped by several processes at different addresses,
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

int rail_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
    int saved = errno;
    struct timespec t = {.tv_sec = (time_t)(timeout_ns / RAIL_NS_PER_S), .tv_nsec = (long)(timeout_ns % RAIL_NS_PER_S)};
    long rc = syscall(SYS_futex, word, FUTEX_WAIT, expected, timeout_ns == UINT64_MAX ? NULL : &t, NULL, 0);
    int error = rc == 0 ? 0 : errno;
    errno = saved;
    return error == ETIMEDOUT || error == EINTR ? error : 0; /* EAGAIN: the value differed */
}

int rail_futex_wake(_Atomic uint32_t *word, int count)
{
    int saved = errno;
    long woken = syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
    errno = saved;
    return woken < 0 ? 0 : (int)woken;
}
