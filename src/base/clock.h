/* clock.h - the monotonic clock and deadlines. Wall-clock time feeds nothing but log stamps. */
#ifndef RAIL_BASE_CLOCK_H
#define RAIL_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define RAIL_NS_PER_US 1000ull
#define RAIL_NS_PER_MS 1000000ull
#define RAIL_NS_PER_S 1000000000ull

static inline uint64_t rail_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * RAIL_NS_PER_S + (uint64_t)t.tv_nsec;
}

/* The same clock as of the last tick of the kernel's timer, up to 4 ms ago: for a quarter of the price. */
static inline uint64_t rail_now_coarse_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * RAIL_NS_PER_S + (uint64_t)t.tv_nsec;
}

/* A moment on the monotonic clock; at_ns == UINT64_MAX never comes. Passed by value. */
struct rail_deadline { uint64_t at_ns; };

static inline struct rail_deadline rail_deadline_never(void) { return (struct rail_deadline){UINT64_MAX}; }

static inline struct rail_deadline rail_deadline_in_ns(uint64_t ns)
{
    uint64_t now = rail_now_ns();
    return (struct rail_deadline){ns > UINT64_MAX - now ? UINT64_MAX : now + ns};
}

static inline bool rail_deadline_passed(struct rail_deadline d)
{
    return d.at_ns != UINT64_MAX && rail_now_ns() >= d.at_ns;
}

/* Milliseconds left, rounded up, for poll(2): 0 when passed, -1 for never, capped at one hour. */
static inline int rail_deadline_left_ms(struct rail_deadline d)
{
    if (d.at_ns == UINT64_MAX) return -1;
    uint64_t now = rail_now_ns();
    if (now >= d.at_ns) return 0;
    uint64_t ms = (d.at_ns - now + RAIL_NS_PER_MS - 1) / RAIL_NS_PER_MS;
    return ms > 3600000 ? 3600000 : (int)ms;
}

#endif
