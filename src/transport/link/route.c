/* route.c - which lanes of a rail are on a bad route (route.h). Pure: evidence in, indices out. */
#include "transport/link/route.h"

#include "base/clock.h"

/* The first tries follow one another at once: a free route of four is found by four tries in two of three rounds, so six
 * rounds miss it once in a thousand times. Then the pause doubles: what six rounds did not find is hardly there. */
enum { ROUNDS_AT_ONCE = 6, TRIES_AT_ONCE = 3 };
#define ROUND_PAUSE_NS (500 * RAIL_NS_PER_MS)
#define ROUND_PAUSE_MAX_NS (60 * RAIL_NS_PER_S)
#define TRY_PAUSE_NS (125 * RAIL_NS_PER_MS)
#define TRY_PAUSE_MAX_NS (30 * RAIL_NS_PER_S)

/* Doubled for every failure beyond those that are free, bounded, and between 3/4 and 5/4 of that, so that the two ends of
 * a lane, and hosts that began together, do not move in lockstep. */
static uint64_t pause(uint64_t first_ns, uint64_t most_ns, uint32_t failures, uint32_t free, uint64_t random)
{
    if (failures <= free) return 0;
    uint32_t doublings = failures - free - 1;
    uint64_t ns = doublings < 16 ? first_ns << doublings : most_ns;
    if (ns > most_ns) ns = most_ns;
    return ns * 3 / 4 + random % (ns / 2 + 1);
}

void route_vain(struct route_lane *lane, uint64_t now_ns, uint64_t random)
{
    if (lane->vain_tries < UINT32_MAX) lane->vain_tries++;
    lane->slow_windows = 0; /* the evidence must come again */
    lane->hold_until_ns = now_ns + pause(TRY_PAUSE_NS, TRY_PAUSE_MAX_NS, lane->vain_tries, TRIES_AT_ONCE, random);
}

void route_round(struct route_pace *pace, bool found, uint64_t now_ns, uint64_t random)
{
    pace->vain_rounds = found ? 0 : pace->vain_rounds + (pace->vain_rounds < UINT32_MAX);
    pace->search_at_ns =
        now_ns + pause(ROUND_PAUSE_NS, ROUND_PAUSE_MAX_NS, pace->vain_rounds, ROUNDS_AT_ONCE - 1, random);
}

void route_work(struct route_lane *lane, const struct route_work *work, uint32_t chunk_bytes)
{
    uint64_t busy_us = work->busy_us < work->window_us ? work->busy_us : work->window_us;
    lane->busy_percent = work->window_us ? (uint32_t)(busy_us * 100 / work->window_us) : 0;
    bool enough = lane->busy_percent >= ROUTE_SOME_PERCENT && work->bytes >= 2ull * chunk_bytes;
    if (enough || lane->busy_percent >= ROUTE_ALWAYS_PERCENT) {
        uint64_t rate = work->bytes * 1000000 / busy_us;
        lane->rate_bytes_per_s = lane->known ? (lane->rate_bytes_per_s + rate) / 2 : rate;
        lane->known = true;
        lane->age_windows = 0;
    } else if (lane->known && ++lane->age_windows > ROUTE_MEMORY_WINDOWS) {
        lane->known = false;
    }
}

uint64_t route_wait_us(const struct route_lane *lane, uint64_t bytes, uint64_t fastest_bytes_per_s)
{
    /* not thirds of each: rates of 1 and 2 bytes per second, of lanes that are stuck, would become 0 */
    return bytes * 1000000 / ((2 * lane->rate_bytes_per_s + fastest_bytes_per_s) / 3);
}

static bool counts(const struct route_lane *lane) { return lane->known && !lane->leaving; }

/* Of all that count but `without`; 0: there are none. */
static uint64_t mean_rate(struct route_lane *const lanes[], uint32_t n_lanes, const struct route_lane *without)
{
    uint64_t sum = 0, n = 0;
    for (uint32_t i = 0; i < n_lanes; i++) {
        if (lanes[i] == without || !counts(lanes[i])) continue;
        sum += lanes[i]->rate_bytes_per_s;
        n++;
    }
    return n ? sum / n : 0;
}

/* In per cent of what its siblings get; 100 when nothing can be said. */
static uint64_t share(struct route_lane *const lanes[], uint32_t n_lanes, const struct route_lane *lane)
{
    uint64_t mean = mean_rate(lanes, n_lanes, lane);
    return counts(lane) && mean ? lane->rate_bytes_per_s * 100 / mean : 100;
}

void route_window(struct route_lane *const lanes[], uint32_t n_lanes)
{
    for (uint32_t i = 0; i < n_lanes; i++) {
        struct route_lane *l = lanes[i];
        bool always = l->age_windows == 0 && l->busy_percent >= ROUTE_ALWAYS_PERCENT;
        uint64_t percent = always && !l->newcomer ? share(lanes, n_lanes, l) : 100;
        if (percent >= ROUTE_SLOW_PERCENT)
            l->slow_windows = 0;
        else
            l->slow_windows += percent < ROUTE_DEAD_PERCENT ? ROUTE_SLOW_WINDOWS : 1;
    }
}

uint32_t route_tries_max(uint32_t n_lanes) { return n_lanes > 1 ? n_lanes / 2 : 1; }
uint32_t route_moves_max(uint32_t n_lanes) { return n_lanes > 4 ? n_lanes / 4 : 1; }

/* Those of `candidates` that get least come first; equals in an order that `random` gives. */
static void slowest_first(struct route_lane *const lanes[], uint32_t *candidates, uint32_t n, uint64_t random)
{
    for (uint32_t i = 0; i + 1 < n; i++) { /* shuffle */
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        uint32_t j = i + (uint32_t)((random >> 33) % (n - i)), k = candidates[i];
        candidates[i] = candidates[j];
        candidates[j] = k;
    }
    for (uint32_t i = 1; i < n; i++) { /* and sort, keeping the order of equals */
        uint32_t k = candidates[i], j = i;
        for (; j > 0 && lanes[k]->rate_bytes_per_s < lanes[candidates[j - 1]]->rate_bytes_per_s; j--)
            candidates[j] = candidates[j - 1];
        candidates[j] = k;
    }
}

static uint32_t choose_slow(struct route_lane *const lanes[], uint32_t n_lanes, uint64_t now_ns, uint64_t random,
                            uint32_t chosen[ROUTE_LANES_MAX])
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_lanes; i++)
        if (lanes[i]->slow_windows >= ROUTE_SLOW_WINDOWS && !lanes[i]->leaving && now_ns >= lanes[i]->hold_until_ns)
            chosen[n++] = i;
    slowest_first(lanes, chosen, n, random);
    return n;
}

static uint32_t choose_search(struct route_lane *const lanes[], uint32_t n_lanes, uint64_t random,
                              uint32_t chosen[ROUTE_LANES_MAX])
{
    uint32_t n = 0;
    uint64_t busy_percent = 0, mean = mean_rate(lanes, n_lanes, NULL);
    for (uint32_t i = 0; i < n_lanes; i++) {
        if (lanes[i]->leaving) continue;
        if (!lanes[i]->known || lanes[i]->slow_windows > 0) return 0; /* first see what that is */
        busy_percent += lanes[i]->busy_percent;
        chosen[n++] = i;
    }
    if (n < 2 || busy_percent < (uint64_t)n * ROUTE_FULL_PERCENT) return 0;
    slowest_first(lanes, chosen, n, random);
    uint32_t wanted = route_tries_max(n);
    while (wanted > 0 && lanes[chosen[wanted - 1]]->rate_bytes_per_s * 100 >= mean * ROUTE_ALONE_PERCENT) wanted--;
    return wanted;
}

uint32_t route_choose(struct route_lane *const lanes[], uint32_t n_lanes, const struct route_pace *pace,
                      uint64_t now_ns, uint64_t random, uint32_t chosen[ROUTE_LANES_MAX])
{
    uint32_t n_counting = 0;
    for (uint32_t i = 0; i < n_lanes; i++) {
        if (lanes[i]->newcomer || lanes[i]->tried) return 0;
        n_counting += counts(lanes[i]);
    }
    if (n_counting < 2) return 0;
    uint32_t n = choose_slow(lanes, n_lanes, now_ns, random, chosen);
    if (n == 0 && now_ns >= pace->search_at_ns) n = choose_search(lanes, n_lanes, random, chosen);
    uint32_t most = route_tries_max(n_counting);
    return n < most ? n : most;
}

enum route_opinion route_judge(struct route_lane *const lanes[], uint32_t n_lanes, const struct route_lane *newcomer,
                               const struct route_lane *old)
{
    if (!newcomer->known || newcomer->age_windows > 0 || !old->known) return ROUTE_UNDECIDED;
    uint64_t rate = newcomer->rate_bytes_per_s * 100, mean = mean_rate(lanes, n_lanes, NULL);
    if (rate >= mean * ROUTE_ALONE_PERCENT) return ROUTE_BETTER;
    if (old->was_slow && rate >= old->rate_bytes_per_s * ROUTE_BETTER_PERCENT &&
        rate >= old->before_bytes_per_s * ROUTE_BETTER_PERCENT)
        return ROUTE_BETTER;
    if (old->rate_bytes_per_s * 100 >= mean * ROUTE_ALONE_PERCENT && newcomer->rate_bytes_per_s < old->rate_bytes_per_s)
        return ROUTE_WORSE; /* nobody else may be on that route */
    return ROUTE_INDIFFERENT;
}
