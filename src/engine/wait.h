/* wait.h - how a caller waits: spin, then yield, then sleep on its doorbell.
 *
 * The costs that set the order (two virtual CPUs, measured): a cache line 0.03-0.06 us, sched_yield 1 us when another
 * rank shares the core, waking a sleeper on an idle core about 20 us. So a wait spins as long as waking would cost,
 * unless ranks outnumber cores: then spinning only keeps the others from arriving, and it yields at once. */
#ifndef RAIL_ENGINE_WAIT_H
#define RAIL_ENGINE_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#include "transport/shm/segment.h"

struct wait_policy {
    uint32_t spins;     /* looks at the condition before a yield */
    bool crowded;       /* ranks outnumber cores: after the first yield every look is followed by one */
    uint64_t awake_ns;  /* spinning and yielding before sleeping */
    uint32_t together;  /* waits left that yield early: a peer seems to share this core. The engine's own */
    bool unrung;        /* a GPU takes part in the node, which rings no doorbell: sleeps are short */
    bool network;       /* some peers are reached by lanes: drive them while awake, hand them over before sleeping */
};

/* ranks: those of this host that share `cores`. */
struct wait_policy wait_policy_make(int ranks, int cores, bool network, uint64_t spin_us);

/* Before an early yield: about a cache line's way to and fro (a look and its pause take 50 to 100 ns), and less than a switch
 * costs. 20 over 4, 4 and 8 ranks on 2 cores: Send and Recv of 64 B 1.1 to 1.23, 4 KiB 1.14, 1.07; AllReduce of 2 KiB 1.02 to 1.20, 1.1,
 * 64 KiB 1.05; AllGather of 2 KiB 1.07, 1.1; 4 ranks on 2 emulated hosts, AllReduce of 8 B 1.42. 1, 2 and 10 are not better. */
enum { WAIT_FEW_LOOKS = 4 };
/* Before it says on which core it waits, and asks who else did: some microseconds, longer than hand-overs take that go
 * well. */
enum { WAIT_SHOW_LOOKS = 200 };

/* One wait. Zero it, call wait_pause after each look that found nothing, wait_end when done. */
struct waiter {
    uint32_t looks;
    bool armed;         /* `sleeping` is set: the next pause sleeps */
    bool settled;       /* since then a short sleep has passed: the next is a long one */
    bool sleeper;       /* has slept: goes back to sleep without spinning */
    uint32_t word;      /* the bell's value before the last look */
    bool turn;          /* the last yield took as long as a turn of a peer on this core */
    bool shared;        /* a peer has waited on the very core that I wait on */
    bool late;          /* the last pause ended long after the first */
    uint64_t since_ns;
    uint64_t began_ns;
};

void wait_pause_slow(struct waiter *w, const struct wait_policy *policy, const struct shm_segment *segment,
                     uint32_t self);
void wait_end_slow(struct waiter *w, const struct shm_segment *segment, uint32_t self);
void wait_learn(struct waiter *w, struct wait_policy *policy);
void wait_show_core(struct waiter *w, const struct wait_policy *policy, const struct shm_segment *segment,
                    uint32_t self);

/* True after a sleep once the wait has gone on for so long (100 ms) that something may be wrong. The waiter is awake
 * and disarmed then: leaving without wait_end is fine. */
static inline bool wait_is_long(const struct waiter *w) { return w->late; }

static inline void wait_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline void wait_pause(struct waiter *w, const struct wait_policy *policy, const struct shm_segment *segment,
                              uint32_t self)
{
    bool alone = policy->together == 0 && !w->shared;
    if (__builtin_expect(w->looks == WAIT_SHOW_LOOKS, 0)) wait_show_core(w, policy, segment, self);
    if (w->looks++ < (__builtin_expect(alone, 1) ? policy->spins : WAIT_FEW_LOOKS))
        wait_relax();
    else
        wait_pause_slow(w, policy, segment, self);
}

/* Something moved, though not what we wait for: wait as if anew. */
static inline void wait_restart(struct waiter *w, const struct shm_segment *segment, uint32_t self)
{
    if (__builtin_expect(w->armed, 0)) wait_end_slow(w, segment, self);
    w->looks = 0;
    w->since_ns = 0;
    w->sleeper = false;
    w->shared = false;
}

/* What was waited for is there. */
static inline void wait_end(struct waiter *w, struct wait_policy *policy, const struct shm_segment *segment,
                            uint32_t self)
{
    if (__builtin_expect(w->armed, 0)) wait_end_slow(w, segment, self);
    if (__builtin_expect(w->turn || w->shared || policy->together, 0)) wait_learn(w, policy);
}

/* Part of what is waited for is there, and the rest will come in the same way: the next wait begins. */
static inline void wait_again(struct waiter *w, struct wait_policy *policy, const struct shm_segment *segment,
                              uint32_t self)
{
    wait_end(w, policy, segment, self);
    *w = (struct waiter){0};
}

#endif
