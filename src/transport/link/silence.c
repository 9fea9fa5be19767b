/* silence.c - which lanes are dead though nothing says so (silence.h). Pure: looks in, a verdict out. */
#include "transport/link/silence.h"

/* A lane that moves again after that long, and with it the peer, was not alone. Longer than a probe takes; TCP's first
 * timeout is longer. */
#define AWAY_NS (100 * RAIL_NS_PER_MS)
/* The last repeat may still be answered: two round trips, or what a busy kernel needs. */
#define ANSWER_NS (50 * RAIL_NS_PER_MS)
#define ANSWER_ROUND_TRIPS 2
#define HEARD_LATELY_NS (100 * RAIL_NS_PER_MS) /* then there is no need to ask */
#define ASK_AGAIN_NS RAIL_NS_PER_S /* when no answer came: a stopped process must not be buried in questions */

static uint64_t times_round_trip(const struct silence_lane *l, uint32_t n)
{
    return (uint64_t)l->look.round_trip_us * 1000 * n;
}

static uint64_t at_least(uint64_t a, uint64_t b) { return a > b ? a : b; }

static uint64_t limit_ns(const struct silence_lane *l)
{
    uint64_t ns = at_least(times_round_trip(l, SILENCE_ROUND_TRIPS), SILENCE_LEAST_NS);
    return ns < SILENCE_MOST_NS ? ns : SILENCE_MOST_NS;
}

static bool in_flight(const struct silence_look *look)
{
    return look->known && look->in_flight_segments > 0 && !look->closed;
}

static bool held_back(const struct silence_look *look)
{
    return look->known && (look->closed || (look->in_flight_segments == 0 && look->unsent_bytes > 0));
}

static void begin_anew(struct silence_lane *l, uint64_t now_ns)
{
    l->since_ns = l->repeated_ns = l->stuck_ns = l->carries_ns = l->asked_ns = now_ns;
    l->stuck_reader_us = l->look.reader_us;
    l->repeats = 0;
    l->excuse_ns = 0;
}

static void remember_help(struct silence_lane *l, uint32_t repeats, uint64_t now_ns)
{
    if (repeats == 0) return;
    if (now_ns - l->helped_ns > SILENCE_MEMORY_NS || repeats > l->helped) l->helped = repeats;
    l->helped_ns = now_ns;
}

/* What it carries was not heard of; and from when on an answer to the question is due. */
static void enter_carriage(struct silence_lane *l, uint64_t now_ns)
{
    const struct silence_look *a = &l->before, *b = &l->look;
    if (!b->carries || a->received_bytes != b->received_bytes) {
        l->carries_ns = now_ns;
        l->asked = false;
    }
    if (!l->asked || b->outstanding) l->asked_ns = now_ns;
}

/* Enters a look. Returns for how long a lane that moves now had been seen not to, although it had work; a tick that is
 * merely late is no such time. */
static uint64_t enter(struct silence_lane *l, uint64_t last_look_ns, uint64_t now_ns)
{
    const struct silence_look *a = &l->before, *b = &l->look;
    bool moves = a->acked_bytes != b->acked_bytes || (a->known && b->known && a->delivered != b->delivered);
    uint64_t quiet_ns = moves && in_flight(a) && last_look_ns > l->since_ns ? last_look_ns - l->since_ns : 0;
    if (a->received_bytes != b->received_bytes) l->heard_ns = now_ns;
    enter_carriage(l, now_ns);
    if (moves) {
        l->moved_ns = now_ns;
        /* The repeat that helped may be of this tick; those of a lane that hardly paused are not what this is about. */
        bool last = quiet_ns >= AWAY_NS && a->repeats != b->repeats;
        remember_help(l, l->repeats + last, now_ns);
    }
    if (moves || !in_flight(a) || !in_flight(b)) {
        l->since_ns = l->repeated_ns = now_ns;
        l->repeats = 0;
        l->excuse_ns = 0;
    } else if (a->repeats != b->repeats) {
        l->repeated_ns = now_ns;
        l->repeats++;
    }
    if (moves || !held_back(a) || !held_back(b)) {
        l->stuck_ns = now_ns;
        l->stuck_reader_us = b->reader_us;
    }
    l->before = *b;
    return quiet_ns;
}

/* Enters all looks. False: nothing can be said, as they are the first, or come late. */
static bool enter_all(struct silence_peer *peer, struct silence_lane *const lanes[], uint32_t n_lanes, uint64_t now_ns)
{
    bool late = peer->looked_ns == 0 || now_ns - peer->looked_ns > SILENCE_TICK_NS + SILENCE_LATE_NS;
    bool moved = false;
    uint64_t quiet_ns = 0, last_look_ns = peer->looked_ns;
    peer->looked_ns = now_ns;
    for (uint32_t i = 0; i < n_lanes; i++) {
        struct silence_lane *l = lanes[i];
        if (!l->began) {
            l->began = true;
            l->before = l->look;
            begin_anew(l, now_ns);
        }
        quiet_ns = at_least(quiet_ns, enter(l, last_look_ns, now_ns));
        moved |= l->moved_ns == now_ns;
        if (late) begin_anew(l, now_ns);
    }
    uint64_t away_ns = now_ns - peer->moved_ns;
    if (moved || late) peer->moved_ns = now_ns;
    if (late) return false;
    if (quiet_ns < AWAY_NS || away_ns < AWAY_NS) return true;
    for (uint32_t i = 0; i < n_lanes; i++) {
        if (lanes[i]->moved_ns == now_ns) continue;
        begin_anew(lanes[i], now_ns);
        lanes[i]->excuse_ns = away_ns;
    }
    return true;
}

/* ---- silent ---- */

/* Whether a sibling has moved when this one should have: in the second half of its time, and after its last repeat. */
static bool sibling_moved(struct silence_lane *const lanes[], uint32_t n_lanes, const struct silence_lane *l)
{
    uint64_t from_ns = at_least(l->since_ns + limit_ns(l) / 2, l->repeated_ns);
    for (uint32_t i = 0; i < n_lanes; i++)
        if (lanes[i] != l && lanes[i]->moved_ns > from_ns) return true;
    return false;
}

static bool repeated_in_vain(const struct silence_lane *l, uint64_t now_ns)
{
    uint32_t needed = SILENCE_REPEATS;
    if (l->helped_ns != 0 && now_ns - l->helped_ns <= SILENCE_MEMORY_NS) needed += l->helped;
    if (needed > SILENCE_REPEATS_MAX) needed = SILENCE_REPEATS_MAX;
    return l->repeats >= needed &&
           now_ns - l->repeated_ns >= at_least(times_round_trip(l, ANSWER_ROUND_TRIPS), ANSWER_NS);
}

static bool is_silent(struct silence_lane *const lanes[], uint32_t n_lanes, const struct silence_lane *l,
    uint64_t now_ns)
{
    uint64_t quiet_ns = now_ns - l->since_ns;
    if (!in_flight(&l->look) || quiet_ns < limit_ns(l) || !sibling_moved(lanes, n_lanes, l)) return false;
    return repeated_in_vain(l, now_ns) || quiet_ns >= SILENCE_MOST_NS + l->excuse_ns;
}

/* An idle sibling of lane i, on another rail if there is one; the search begins after `last`. n_lanes: none. */
static uint32_t idle_sibling(struct silence_lane *const lanes[], uint32_t n_lanes, uint32_t i, uint32_t last)
{
    uint32_t found = n_lanes;
    for (uint32_t k = 1; k <= n_lanes; k++) {
        uint32_t j = (last + k) % n_lanes;
        if (j == i || lanes[j]->look.outstanding || !lanes[j]->free) continue;
        if (lanes[j]->rail != lanes[i]->rail) return j;
        if (found == n_lanes) found = j;
    }
    return found;
}

static bool wants_probe(struct silence_lane *const lanes[], uint32_t n_lanes, uint32_t i, uint64_t now_ns)
{
    const struct silence_lane *l = lanes[i];
    return in_flight(&l->look) && now_ns - l->since_ns >= limit_ns(l) / 2 && !sibling_moved(lanes, n_lanes, l);
}

/* ---- unread ---- */

static uint64_t heard_elsewhere_ns(struct silence_lane *const lanes[], uint32_t n_lanes, const struct silence_lane *l)
{
    uint64_t ns = 0;
    for (uint32_t i = 0; i < n_lanes; i++)
        if (lanes[i] != l) ns = at_least(ns, lanes[i]->heard_ns);
    return ns;
}

/* The clock of a lane that is held back runs while the process is heard. */
static bool is_unread(struct silence_lane *const lanes[], uint32_t n_lanes, struct silence_lane *l, uint64_t now_ns)
{
    if (!held_back(&l->look)) return false;
    if (now_ns - heard_elsewhere_ns(lanes, n_lanes, l) > SILENCE_HEARD_NS) {
        l->stuck_ns = now_ns;
        l->stuck_reader_us = l->look.reader_us;
    }
    uint64_t stuck_ns = now_ns - l->stuck_ns, reader_ns = (l->look.reader_us - l->stuck_reader_us) * 1000;
    return stuck_ns >= SILENCE_UNREAD_NS && (l->look.closed || reader_ns >= stuck_ns / 2);
}

/* ---- mute ---- */

static bool is_mute(struct silence_lane *const lanes[], uint32_t n_lanes, struct silence_lane *l, uint64_t now_ns)
{
    if (!l->asked) return false;
    if (now_ns - heard_elsewhere_ns(lanes, n_lanes, l) > SILENCE_HEARD_NS) l->asked_ns = now_ns;
    return now_ns - l->asked_ns >= SILENCE_MUTE_NS;
}

/* It alone can say that it is read, so it is the one to be asked. */
static bool wants_question(const struct silence_lane *l, uint64_t now_ns)
{
    return l->look.carries && !l->look.outstanding && l->free && !l->asked && now_ns - l->carries_ns >= SILENCE_QUIET_NS;
}

/* ---- all ---- */

/* Whether the far process runs must be known of a lane that is held back, or was asked. */
static bool wants_answer(const struct silence_peer *peer, struct silence_lane *const lanes[], uint32_t n_lanes,
                         uint32_t i, uint64_t now_ns)
{
    uint64_t heard_ns = heard_elsewhere_ns(lanes, n_lanes, lanes[i]);
    if (!held_back(&lanes[i]->look) && !lanes[i]->asked) return false;
    if (now_ns - heard_ns < HEARD_LATELY_NS) return false;
    return heard_ns > peer->asked_ns || now_ns - peer->asked_ns >= ASK_AGAIN_NS;
}

static bool find_suspect(struct silence_lane *const lanes[], uint32_t n_lanes, uint64_t now_ns,
    struct silence_verdict *out)
{
    for (uint32_t i = 0; i < n_lanes; i++) {
        struct silence_lane *l = lanes[i];
        bool silent = is_silent(lanes, n_lanes, l, now_ns), unread = is_unread(lanes, n_lanes, l, now_ns);
        bool mute = is_mute(lanes, n_lanes, l, now_ns);
        if (!silent && !unread && !mute) continue;
        out->cause = silent ? SILENCE_SILENT : unread ? SILENCE_UNREAD : SILENCE_MUTE;
        out->suspect = i;
        out->quiet_ns = now_ns - (silent ? l->since_ns : unread ? l->stuck_ns : l->asked_ns);
        out->repeats = silent ? l->repeats : 0;
        return true;
    }
    return false;
}

struct silence_verdict silence_judge(struct silence_peer *peer, struct silence_lane *const lanes[], uint32_t n_lanes,
                                     uint64_t now_ns)
{
    struct silence_verdict v = {.cause = SILENCE_NONE};
    if (!enter_all(peer, lanes, n_lanes, now_ns) || n_lanes < 2) return v;
    if (find_suspect(lanes, n_lanes, now_ns, &v)) return v;
    for (uint32_t i = 0; i < n_lanes && v.wish == SILENCE_NOTHING; i++) {
        if (wants_question(lanes[i], now_ns)) {
            lanes[i]->asked = true;
            v.wish = SILENCE_ASK;
            v.on = i;
            break;
        }
        bool probe = wants_probe(lanes, n_lanes, i, now_ns), ask = wants_answer(peer, lanes, n_lanes, i, now_ns);
        if (!probe && !ask) continue;
        v.on = idle_sibling(lanes, n_lanes, i, peer->asked_lane);
        if (v.on == n_lanes) continue;
        v.wish = ask ? SILENCE_ASK : SILENCE_PROBE;
        peer->asked_lane = v.on;
        if (ask) peer->asked_ns = now_ns;
    }
    return v;
}
