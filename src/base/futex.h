/* futex.h - sleeping on a 32-bit word that may lie in memory shared between processes. */
#ifndef RAIL_BASE_FUTEX_H
#define RAIL_BASE_FUTEX_H

#include <stdint.h>

/* Sleeps while *word == expected, at most timeout_ns (UINT64_MAX: for ever). Returns 0 when woken or the value
 * differed, ETIMEDOUT, or EINTR. Spurious returns happen; callers look at their condition again. */
int rail_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns);
/* Wakes up to `count` sleepers; returns how many. */
int rail_futex_wake(_Atomic uint32_t *word, int count);

/* The same for several kinds of sleepers on one word: a sleeper is woken by a waker whose bits have one of its own (not 0). */
#define RAIL_FUTEX_ALL UINT32_MAX
int rail_futex_wait_bits(_Atomic uint32_t *word, uint32_t expected, uint32_t bits, uint64_t timeout_ns);
int rail_futex_wake_bits(_Atomic uint32_t *word, int count, uint32_t bits);

#endif
