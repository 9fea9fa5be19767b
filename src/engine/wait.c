/* wait.c - the slow half of waiting: yields, then sleep, without losing a wake-up.
 *
 * Sleeping takes three pauses: the first sets `sleeping` and lets the caller look once more, the second sleeps for a moment
 * and lets him look again, the third sleeps; both only if the node's bell is still what it was. Whoever publishes stores
 * first and looks at `sleeping` then, without a fence between the two (segment.h): he may have looked before `sleeping` was
 * set, and his store be seen only after the sleeper's look. Then it is seen by the look after the short sleep, which lasts
 * far longer than a store waits in its core. So one of the two sees the other. The sleep is bounded all the same: the stop
 * word and dead peers are looked at after it. */
#include "engine/wait.h"

#include <sched.h>

#include "base/clock.h"
#include "base/futex.h"
#include "transport/net.h"

/* Longest sleep: bounds how late an abort or a peer's death is seen even if nobody rings. */
#define SLEEP_NS (50 * RAIL_NS_PER_MS)
/* The short sleep before it: a store leaves its core within a microsecond, or with the next interrupt. */
#define SETTLE_NS (50 * RAIL_NS_PER_US)
/* Where a GPU takes part nobody may ring: a sixteenth of what was waited so far, between half of what a launch takes and
 * what a core can be woken for all the time. */
#define UNRUNG_LEAST_NS (20 * RAIL_NS_PER_US)
#define UNRUNG_MOST_NS RAIL_NS_PER_MS
/* Yielding goes on for this long before the first sleep: some 50 wake-ups' worth, so that only a late rank is slept for. */
#define AWAKE_NS (1 * RAIL_NS_PER_MS)
/* Twice the longest sleep: nothing is compared for a rank that is merely late by a scheduler's turn. */
#define LONG_NS (2 * SLEEP_NS)
/* A peer's turn: two switches of the core, 1 us and more, until it has sent what it had and waits itself. A yield that
 * finds nobody takes 0.2 to 0.3 us, one that a foreign program fills takes milliseconds. */
#define TURN_LEAST_NS 600
#define TURN_MOST_NS (100 * RAIL_NS_PER_US)
/* Peers whose core is compared with one's own: each look is a cache line. */
#define NEIGHBOURS 8
/* Long enough not to spin in vain every few calls, short enough to notice within microseconds that the scheduler has
 * given the ranks a core each. */
#define TOGETHER_WAITS 64
/* A look costs about 20 ns with its pause. */
#define LOOKS_PER_US 40

struct wait_policy wait_policy_make(int ranks, int cores, bool network, uint64_t spin_us)
{
    struct wait_policy policy = {.crowded = ranks > cores, .network = network};
    policy.spins = ranks > cores ? WAIT_FEW_LOOKS : (uint32_t)(spin_us * LOOKS_PER_US);
    if (network && ranks <= cores) policy.spins = (uint32_t)(2 * spin_us); /* a look at a socket costs some 0.5 us */
    policy.awake_ns = AWAKE_NS + 2 * spin_us * RAIL_NS_PER_US;
    return policy;
}

static void arm(struct waiter *w, const struct shm_segment *segment, uint32_t self)
{
    w->word = atomic_load_explicit(&segment->header->bell, memory_order_acquire);
    atomic_store_explicit(&segment->controls[self].door.sleeping, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&segment->header->sleepers, 1, memory_order_seq_cst);
    w->armed = true;
    w->settled = false;
}

static void disarm(struct waiter *w, const struct shm_segment *segment, uint32_t self)
{
    atomic_store_explicit(&segment->controls[self].door.sleeping, 0, memory_order_relaxed);
    atomic_fetch_sub_explicit(&segment->header->sleepers, 1, memory_order_relaxed);
    w->armed = false;
}

/* A peer that has not waited lately may have moved since: that costs a few early yields in vain. */
void wait_show_core(struct waiter *w, const struct wait_policy *policy, const struct shm_segment *segment,
                    uint32_t self)
{
    uint32_t n = segment->geometry.n_peers, most = n - 1 < NEIGHBOURS ? n - 1 : NEIGHBOURS;
    int core = policy->crowded ? -1 : sched_getcpu();
    if (core < 0) return;
    atomic_store_explicit(&segment->controls[self].door.core, (uint32_t)core + 1, memory_order_relaxed);
    w->shared = false;
    for (uint32_t k = 1; k <= most && !w->shared; k++) {
        struct doorbell *door = &segment->controls[(self + k) % n].door;
        w->shared = atomic_load_explicit(&door->core, memory_order_relaxed) == (uint32_t)core + 1;
    }
}

static uint64_t unrung_sleep(const struct waiter *w)
{
    uint64_t ns = (rail_now_ns() - w->began_ns) / 16;
    return ns < UNRUNG_LEAST_NS ? UNRUNG_LEAST_NS : ns > UNRUNG_MOST_NS ? UNRUNG_MOST_NS : ns;
}

void wait_pause_slow(struct waiter *w, const struct wait_policy *policy, const struct shm_segment *segment,
                     uint32_t self)
{
    if (w->armed) {
        bool settles = !w->settled && !policy->unrung;
        uint64_t ns = policy->unrung ? unrung_sleep(w) : settles ? SETTLE_NS : SLEEP_NS;
        if (policy->network) net_leave_to_sleep();
        rail_futex_wait_bits(&segment->header->bell, w->word, shm_bell_bit(self), ns);
        if (policy->network) net_enter();
        w->settled = true;
        if (settles) return; /* still armed */
        disarm(w, segment, self);
        w->sleeper = true;
        w->late = rail_now_ns() - w->began_ns >= LONG_NS;
        return;
    }
    uint64_t now = rail_now_ns();
    if (!w->since_ns) w->since_ns = now;
    if (!w->began_ns) w->began_ns = now;
    w->late = false;
    if (w->sleeper || now - w->since_ns >= policy->awake_ns)
        arm(w, segment, self);
    else {
        if (w->shared || policy->together) wait_show_core(w, policy, segment, self);
        sched_yield();
        if (policy->crowded) return; /* nothing is to be learnt from how long it took */
        uint64_t away_ns = rail_now_ns() - now;
        w->turn = away_ns >= TURN_LEAST_NS && away_ns < TURN_MOST_NS;
        if (!policy->crowded && !policy->together && !w->shared) w->looks = 0;
    }
}

/* Two ranks that the scheduler put on one core wait in vain for as long as the other one spins. It shows: both say that
 * they have waited on that core; or a yield comes back soon and what we waited for is there. The next waits then yield
 * early, until it stops showing. (When both spin, a yield takes as long as the other one's spinning, which looks like the time
 * slice of a foreign program: so without the first sign two ranks could go on like that for good, 1 ms a call.) */
void wait_learn(struct waiter *w, struct wait_policy *policy)
{
    if (policy->crowded) return;
    if (w->shared || (w->turn && (policy->together || w->looks <= 1)))
        policy->together = TOGETHER_WAITS;
    else if (policy->together)
        policy->together--;
}

void wait_end_slow(struct waiter *w, const struct shm_segment *segment, uint32_t self) { disarm(w, segment, self); }
