/* route.h - which lanes of a rail are on a bad route: the decision, without sockets, clocks or locks (move.c has those).
 *
 *   per window of some 100 ms, for each lane of one rail to one peer: what it delivered while it had work
 *        |
 *   route_window   enters that, and counts for how long a lane has been slower than its siblings
 *   route_choose   the lanes for which another key is worth a try:
 *        |            slow     has work most of the time and stays under 80 % of its siblings' mean
 *        |            search   all have work most of the time and none is slow: is there a route that nobody is on?
 *        |         a newcomer with another key runs beside each of them for two windows, then
 *   route_judge    better: it may replace the old socket (a quarter of the lanes at a time); else it ends, and the next
 *                  try waits longer
 *
 * Siblings are the lanes of one rail to one peer, nothing wider. A slow NIC makes all of them slow alike. Lanes to other
 * peers may cross fewer switches, or share their far NIC with somebody: that they are faster says nothing about a route.
 *
 * Why search: lanes that share routes 3, 3, 2, 0 are all within 80 % of their mean, lanes on 4, 4, 0, 0 all alike, and a
 * lane cannot know of a route that it has not tried. What a try finds is told apart well: with two lanes a route, each
 * newcomer makes three of them somewhere, and gets at most the mean of all; one that is alone on its route gets three
 * times that. The bars between are below. */
#ifndef RAIL_LINK_ROUTE_H
#define RAIL_LINK_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    ROUTE_LANES_MAX = 128,        /* of one rail and peer: two sockets for each of 64 lanes */
    ROUTE_SLOW_PERCENT = 80,      /* of the siblings' mean; below it for ROUTE_SLOW_WINDOWS in a row is slow */
    ROUTE_SLOW_WINDOWS = 2,
    ROUTE_DEAD_PERCENT = 40,      /* below it once is enough: queues of 100 ms do not make that */
    /* Of a window with work. Measured in an AllReduce that a lane's route held up: that lane 80, the fastest 55; rates
     * count while there was work, so that what is between pieces does not matter. */
    ROUTE_ALWAYS_PERCENT = 60,
    ROUTE_FULL_PERCENT = 50,      /* mean over all lanes: the rail is what the work waits for */
    ROUTE_SOME_PERCENT = 10,      /* less work than this says nothing about a route */
    ROUTE_BETTER_PERCENT = 125,   /* of the old socket's, if that was slow. From half a route to one with 3 lanes: 133 */
    ROUTE_ALONE_PERCENT = 140,    /* of the mean: has a route for itself. On a balanced rail 100, on a free route 150 */
    ROUTE_MEMORY_WINDOWS = 20,    /* a rate is remembered when there is no work: siblings wait for the one that is stuck */
};

/* What is known of one socket of a rail. */
struct route_lane {
    uint64_t rate_bytes_per_s;    /* delivered while it had work; half of it from the last window. If known */
    uint64_t before_bytes_per_s;  /* the same when the newcomer beside it came */
    uint32_t busy_percent;        /* of the last window: had work */
    uint32_t age_windows;         /* of the rate */
    uint32_t slow_windows;        /* in a row */
    uint32_t vain_tries;          /* newcomers that were no better, in a row */
    uint64_t hold_until_ns;       /* because of them */
    bool known;
    bool newcomer;                /* on trial */
    bool tried;                   /* there is one beside it */
    bool was_slow;                /* when it came */
    bool leaving;                 /* replaced, draining: counts no more */
};

/* What a lane did in a window. */
struct route_work { uint64_t window_us, busy_us, bytes; };

/* When a rail searches. */
struct route_pace {
    uint64_t search_at_ns;
    uint32_t vain_rounds;         /* in a row */
};

enum route_opinion { ROUTE_UNDECIDED, ROUTE_BETTER, ROUTE_INDIFFERENT, ROUTE_WORSE };

/* Enters a window's work. chunk_bytes: less than two says nothing, unless the lane was at it all the time. */
void route_work(struct route_lane *lane, const struct route_work *work, uint32_t chunk_bytes);
/* All lanes of the rail have their work: counts slow ones. */
void route_window(struct route_lane *const lanes[], uint32_t n_lanes);
/* Indices of lanes to try another key for; returns how many. `random` breaks ties. None while a newcomer is on trial. */
uint32_t route_choose(struct route_lane *const lanes[], uint32_t n_lanes, const struct route_pace *pace,
                      uint64_t now_ns, uint64_t random, uint32_t chosen[ROUTE_LANES_MAX]);
/* How many newcomers may be on trial at a time beside n lanes: half of them, so that a balanced rail stays told from one
 * with a free route (above). */
uint32_t route_tries_max(uint32_t n_lanes);
/* How many of them may stay: more at once would empty the route that they leave. */
uint32_t route_moves_max(uint32_t n_lanes);
/* What this end, which sends on both, thinks of `newcomer` beside `old`. */
enum route_opinion route_judge(struct route_lane *const lanes[], uint32_t n_lanes, const struct route_lane *newcomer,
                               const struct route_lane *old);

/* How long the lane takes for so many bytes, for comparing it with its peer's other lanes: its rate (known, above 0) is taken
 * a third of the way up to the fastest one's. What a lane gets of a NIC that several processes share is in proportion to what
 * it holds, so a lane that was once taken for slower holds less, and is slower. The third undoes that within some windows; a
 * NIC at half rate counts as two thirds, and its lanes hold a third too much. */
uint64_t route_wait_us(const struct route_lane *lane, uint64_t bytes, uint64_t fastest_bytes_per_s);

/* A newcomer was no better: the lane waits. It was: the one that stays begins anew. */
void route_vain(struct route_lane *lane, uint64_t now_ns, uint64_t random);
/* A round of tries is over. */
void route_round(struct route_pace *pace, bool found, uint64_t now_ns, uint64_t random);

#endif
