/* move.c - lanes that move to another route while they are in use.
 *
 * A switch picks the route by its hash of addresses and ports; a new socket has a new port. So a lane has two berths:
 * its socket, and now and then a newcomer beside it, which takes chunks like any other. Only the process that connects can
 * make one; the other asks. Both judge what the newcomer carries for them (route.h), for both send on it, each by a
 * route of its own, and the connecter ends one of the two:
 *
 *   connecter                                                        accepter
 *   route_choose --> connects ---------- HELLO, turn + 1 ----------> newcomer      <---- ASK ---- route_choose
 *   two windows later: route_judge <----------- OPINION ------------ route_judge, two windows later
 *   the one that ends takes no more chunks ------- LEAVE ----------> has everything: takes no more chunks
 *   has everything: closes <---------------------- LEAVE ----------- end of file: closes
 *
 * LEAVE is the last frame on its socket, behind every chunk, so nothing is lost and nothing sent twice; links notice
 * nothing. Who has read LEAVE has read everything, and who sees the answer, or the end of file after its own, knows it.
 *
 * A socket whose route is dead never says its last word: after LEAVE_TIMEOUT_NS that is the failure of a lane. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/memory.h"
#include "transport/link/net_state.h"

#define WINDOW_NS (100 * RAIL_NS_PER_MS)
/* Longer than this without a tick, nothing was going on. */
#define WINDOW_MAX_NS RAIL_NS_PER_S
/* For their opinion, after ours: their window may have begun a window later, and waits behind chunks. */
#define OPINION_TIMEOUT_NS (500 * RAIL_NS_PER_MS)
/* Whether the connecter does what was asked for. */
#define ASKED_NS (500 * RAIL_NS_PER_MS)
#define LEAVE_TIMEOUT_NS (30 * RAIL_NS_PER_S)
/* Full windows that a newcomer carries chunks for. Two, because TCP starts slowly and chance is loud in one: on NICs of
 * 200 to 600 Mbit/s, with ten processes for each core, lanes moved for nothing after one. And those without work. */
enum { TRIAL_WINDOWS = 2, TRIAL_WINDOWS_MAX = 4 };

/* The sockets of one rail that are up. */
struct rail_lanes {
    struct net_lane *lanes[ROUTE_LANES_MAX];
    struct route_lane *routes[ROUTE_LANES_MAX];
    uint32_t n, n_newcomers; /* newcomers: those that are being connected, too */
};

static void collect(const struct net_peer *peer, uint32_t rail, struct rail_lanes *out)
{
    out->n = out->n_newcomers = 0;
    for (uint32_t i = 0; i < peer->n_lanes && out->n < ROUTE_LANES_MAX; i++) {
        struct net_lane *lane = peer->lanes[i];
        if (!lane || lane->rail != rail) continue;
        out->n_newcomers += lane->newcomer;
        if (lane->state != NET_LANE_UP) continue;
        struct net_lane *beside = peer_lane_beside(lane);
        lane->route.newcomer = lane->newcomer;
        lane->route.leaving = lane->leaving;
        lane->route.tried = beside && beside->newcomer;
        out->lanes[out->n] = lane;
        out->routes[out->n++] = &lane->route;
    }
}

static uint64_t random_now(void)
{
    uint64_t x;
    rail_random(&x, sizeof x);
    return x;
}

/* ---- frames ---- */

/* On the lane that will bring it soonest; false when all queues are full. */
static bool say(struct net_peer *peer, struct frame *frame)
{
    struct net_lane *best = NULL;
    uint64_t best_bytes = UINT64_MAX;
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        struct net_lane *lane = peer->lanes[i];
        if (!lane || lane->state != NET_LANE_UP || lane->leaving || lane_out_full(&lane->lane)) continue;
        lane_look(&lane->lane);
        uint64_t bytes = lane->lane.unacked_bytes + lane->lane.queued_bytes;
        if (bytes >= best_bytes) continue;
        best = lane;
        best_bytes = bytes;
    }
    if (!best) return false;
    lane_queue(&best->lane, frame, NULL, NULL);
    peer_activate(peer);
    return true;
}

static bool say_about(const struct net_lane *lane, enum frame_type type, uint16_t opinion)
{
    struct frame frame = {.type = (uint8_t)type, .first_grain = opinion, .sequence = lane->index,
                          .slot_bytes = lane->turn};
    return say(lane->peer, &frame);
}

bool move_say_leave(struct net_lane *lane)
{
    if (lane->said_leave) return true;
    if (lane_out_full(&lane->lane)) return false;
    struct frame frame = {.type = FRAME_LEAVE};
    lane_queue(&lane->lane, &frame, NULL, NULL);
    lane->said_leave = true;
    return true;
}

bool move_is_left(const struct net_lane *lane) { return lane->said_leave && lane->heard_leave; }

/* ---- windows ---- */

static void look(struct net_lane *lane)
{
    lane->seen_valid = lane_figures(&lane->lane, &lane->seen);
}

/* What counts begins now. */
static void window_begin(struct net_peer *peer, uint32_t rail, uint64_t now_ns)
{
    struct rail_lanes set;
    collect(peer, rail, &set);
    for (uint32_t i = 0; i < set.n; i++) look(set.lanes[i]);
    peer->rails[rail].window_ns = now_ns;
}

static void window_take(struct net_lane *lane, uint64_t window_us)
{
    struct lane_figures before = lane->seen;
    bool valid = lane->seen_valid;
    look(lane);
    if (!valid || !lane->seen_valid) return;
    struct route_work work = {.window_us = window_us, .busy_us = lane->seen.busy_us - before.busy_us,
                              .bytes = lane->seen.acked_bytes - before.acked_bytes};
    route_work(&lane->route, &work, lane->lane.chunk_bytes);
    lane->trial_windows += lane->newcomer;
}

/* ---- a newcomer, from beginning to end ---- */

static void leave(struct net_lane *lane)
{
    lane->leaving = true;
    lane->since_ns = rail_now_ns();
    peer_activate(lane->peer);
    net_touch(lane->peer->net);
}

void move_begins(struct net_lane *newcomer)
{
    struct net_lane *old = peer_lane_beside(newcomer);
    newcomer->ours = newcomer->theirs = ROUTE_UNDECIDED;
    newcomer->trial_windows = 0;
    newcomer->insisted |= old->insisted;
    old->insisted = false;
    old->route.was_slow = old->route.slow_windows > 0;
    old->route.before_bytes_per_s = old->route.rate_bytes_per_s;
    window_begin(newcomer->peer, newcomer->rail, rail_now_ns());
    peer_activate(newcomer->peer);
    RAIL_TRACE(RAIL_NET, "lane %u: %s is tried beside %s (%.1f MB/s)", newcomer->index, newcomer->lane.text,
               old->lane.text, (double)old->route.rate_bytes_per_s / 1e6);
}

/* The newcomer stays, or the old socket does. */
static void settle(struct net_lane *newcomer, struct net_lane *old, bool stays)
{
    struct net_peer *peer = newcomer->peer;
    uint64_t now_ns = rail_now_ns();
    newcomer->newcomer = newcomer->insisted = false;
    old->route.was_slow = false;
    if (stays) {
        peer->rails[newcomer->rail].found = true;
        atomic_fetch_add_explicit(&peer->net->lane_moves, 1, memory_order_relaxed);
        RAIL_INFO(RAIL_NET, "lane %u moved: %s (%.1f MB/s) replaces %s (%.1f MB/s)", newcomer->index,
                  newcomer->lane.text, (double)newcomer->route.rate_bytes_per_s / 1e6, old->lane.text,
                  (double)old->route.rate_bytes_per_s / 1e6);
    } else {
        RAIL_TRACE(RAIL_NET, "lane %u stays: %s (%.1f MB/s), not %s (%.1f MB/s)", newcomer->index, old->lane.text,
                   (double)old->route.rate_bytes_per_s / 1e6, newcomer->lane.text,
                   (double)newcomer->route.rate_bytes_per_s / 1e6);
        route_vain(&old->route, now_ns, random_now());
    }
    leave(stays ? old : newcomer);
    window_begin(peer, newcomer->rail, now_ns);
}

void move_failed(struct net_lane *newcomer)
{
    struct net_lane *old = peer_lane_beside(newcomer);
    bool maybe_up = handshake_said_hello(newcomer->handshake); /* at the far end, which may have put something on it */
    net_connect_drop(newcomer);
    newcomer->newcomer = newcomer->insisted = false;
    if (maybe_up && old && old->state == NET_LANE_UP && net_mends(old->peer)) {
        mend_lane_ended(old, "a socket beside it broke while it was being tried");
        return;
    }
    if (old) route_vain(&old->route, rail_now_ns(), random_now());
}

static void judge(const struct rail_lanes *set, uint64_t now_ns)
{
    static const uint16_t on_wire[] = {[ROUTE_BETTER] = FRAME_OPINION_BETTER,
                                       [ROUTE_INDIFFERENT] = FRAME_OPINION_INDIFFERENT,
                                       [ROUTE_WORSE] = FRAME_OPINION_WORSE};
    for (uint32_t i = 0; i < set->n; i++) {
        struct net_lane *newcomer = set->lanes[i];
        if (!newcomer->newcomer || newcomer->ours != ROUTE_UNDECIDED || newcomer->trial_windows < TRIAL_WINDOWS)
            continue;
        const struct net_lane *old = peer_lane_beside(newcomer);
        enum route_opinion opinion = route_judge(set->routes, set->n, &newcomer->route, &old->route);
        if (newcomer->insisted) opinion = ROUTE_BETTER;
        if (opinion == ROUTE_UNDECIDED && newcomer->trial_windows >= TRIAL_WINDOWS_MAX) opinion = ROUTE_INDIFFERENT;
        if (opinion == ROUTE_UNDECIDED) continue;
        if (!newcomer->peer->connecter && !say_about(newcomer, FRAME_OPINION, on_wire[opinion])) continue;
        newcomer->ours = opinion;
        newcomer->since_ns = now_ns;
    }
}

/* How good a newcomer is for both ends; 0: it goes. */
static uint32_t merit(const struct net_lane *newcomer)
{
    if (newcomer->insisted) return 3;
    if (newcomer->ours == ROUTE_WORSE || newcomer->theirs == ROUTE_WORSE) return 0;
    return (newcomer->ours == ROUTE_BETTER) + (newcomer->theirs == ROUTE_BETTER);
}

/* The connecter, when all newcomers have been judged: the best of them stay. */
static void decide(const struct rail_lanes *set, uint64_t now_ns)
{
    struct net_lane *newcomers[ROUTE_LANES_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < set->n; i++) {
        struct net_lane *l = set->lanes[i];
        if (!l->newcomer) continue;
        bool waits = l->theirs == ROUTE_UNDECIDED && !l->insisted && now_ns < l->since_ns + OPINION_TIMEOUT_NS;
        if (l->ours == ROUTE_UNDECIDED || waits) return;
        uint32_t at = n++;
        for (; at > 0 && merit(newcomers[at - 1]) < merit(l); at--) newcomers[at] = newcomers[at - 1];
        newcomers[at] = l;
    }
    uint32_t most = route_moves_max(set->n - set->n_newcomers);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t good = merit(newcomers[i]);
        settle(newcomers[i], peer_lane_beside(newcomers[i]), good > 0 && (i < most || newcomers[i]->insisted));
    }
}

/* ---- what the far end says ---- */

/* The lane that an ASK or OPINION names, by index and turn. False: it breaks a rule; NULL: it is no longer so. */
static bool named(const struct net_peer *peer, const struct frame *f, struct net_lane **out)
{
    uint32_t newest = 0;
    *out = NULL;
    if (f->sequence >= peer->n_set || f->link != 0) return false;
    for (uint32_t i = 0; i < NET_BERTHS; i++) {
        struct net_lane *lane = peer->lanes[NET_BERTHS * f->sequence + i];
        if (!lane) continue;
        if (lane->turn > newest) newest = lane->turn;
        if (lane->state == NET_LANE_UP && lane->turn == f->slot_bytes) *out = lane;
    }
    return f->slot_bytes <= newest;
}

enum rail_result move_asked(struct net_lane *lane, const struct frame *f)
{
    struct net_peer *peer = lane->peer;
    struct net_lane *old;
    if (!peer->connecter || f->first_grain != 0 || !named(peer, f, &old))
        return net_violation(&lane->lane, "ASK for lane %u, turn %u", f->sequence, f->slot_bytes);
    if (!old || old->newcomer || old->leaving || rail_now_ns() < old->route.hold_until_ns) return RAIL_OK;
    struct rail_lanes set;
    collect(peer, old->rail, &set);
    if (set.n_newcomers >= route_tries_max(set.n - set.n_newcomers)) return RAIL_OK;
    if (net_connect_beside(old)) atomic_fetch_add_explicit(&peer->net->lane_tries, 1, memory_order_relaxed);
    return RAIL_OK;
}

enum rail_result move_opinion(struct net_lane *lane, const struct frame *f)
{
    static const enum route_opinion means[] = {[FRAME_OPINION_BETTER] = ROUTE_BETTER,
                                               [FRAME_OPINION_INDIFFERENT] = ROUTE_INDIFFERENT,
                                               [FRAME_OPINION_WORSE] = ROUTE_WORSE};
    struct net_lane *newcomer;
    if (!lane->peer->connecter || f->first_grain < FRAME_OPINION_BETTER || f->first_grain > FRAME_OPINION_WORSE ||
        !named(lane->peer, f, &newcomer))
        return net_violation(&lane->lane, "OPINION %u of lane %u, turn %u", f->first_grain, f->sequence, f->slot_bytes);
    if (newcomer && newcomer->newcomer) newcomer->theirs = means[f->first_grain];
    return RAIL_OK;
}

enum rail_result move_heard_leave(struct net_lane *lane, const struct frame *f)
{
    struct net_lane *beside = peer_lane_beside(lane);
    bool goes_on = beside && beside->state == NET_LANE_UP && !beside->leaving;
    if (f->link != 0 || (lane->peer->connecter ? !lane->said_leave : !goes_on))
        return net_violation(&lane->lane, "LEAVE of lane %u, which has no other socket or was not asked to",
                             lane->index);
    lane->heard_leave = true;
    if (lane->peer->connecter) return RAIL_OK; /* peer_read() closes it */
    if (lane->newcomer)
        settle(lane, beside, false);
    else
        settle(beside, lane, true);
    return RAIL_OK;
}

/* ---- time ---- */

static void begin_tries(struct net_peer *peer, uint32_t rail, const struct rail_lanes *set, uint64_t now_ns)
{
    uint32_t chosen[ROUTE_LANES_MAX];
    struct peer_rail *at = &peer->rails[rail];
    if (at->in_round || set->n_newcomers > 0) return;
    uint32_t n = route_choose(set->routes, set->n, &at->pace, now_ns, random_now(), chosen);
    for (uint32_t i = 0; i < n; i++) {
        struct net_lane *lane = set->lanes[chosen[i]];
        bool began = peer->connecter ? net_connect_beside(lane) : say_about(lane, FRAME_ASK, 0);
        if (!began) continue;
        at->in_round = true;
        at->asked_ns = now_ns;
        atomic_fetch_add_explicit(&peer->net->lane_tries, 1, memory_order_relaxed);
    }
}

static void window_end(struct net_peer *peer, uint32_t rail, const struct rail_lanes *set, uint64_t now_ns)
{
    struct peer_rail *at = &peer->rails[rail];
    uint64_t window_ns = now_ns - at->window_ns; /* rail_tick() saw that it is longer than WINDOW_NS */
    at->window_ns = now_ns;
    if (window_ns > WINDOW_MAX_NS) {
        window_begin(peer, rail, now_ns);
        return;
    }
    for (uint32_t i = 0; i < set->n; i++) window_take(set->lanes[i], window_ns / 1000);
    /* Rates are for send.c, too, which compares them between rails. */
    if (set->n < 2 || !(peer->features & FRAME_FEATURE_ROUTES)) return;
    route_window(set->routes, set->n);
    judge(set, now_ns);
    begin_tries(peer, rail, set, now_ns);
}

static bool rail_tick(struct net_peer *peer, uint32_t rail, uint64_t now_ns)
{
    struct peer_rail *at = &peer->rails[rail];
    struct rail_lanes set;
    collect(peer, rail, &set);
    if (set.n == 0) return false;
    if (now_ns >= at->window_ns + WINDOW_NS) window_end(peer, rail, &set, now_ns);
    if (peer->connecter) decide(&set, now_ns);
    collect(peer, rail, &set);
    if (at->in_round && set.n_newcomers == 0 && (peer->connecter || now_ns >= at->asked_ns + ASKED_NS)) {
        route_round(&at->pace, at->found, now_ns, random_now());
        at->in_round = at->found = false;
    }
    return set.n_newcomers > 0;
}

static bool leaves_tick(struct net_peer *peer, uint64_t now_ns)
{
    bool leaving = false;
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        struct net_lane *lane = peer->lanes[i];
        if (!lane || lane->state != NET_LANE_UP || !lane->leaving) continue;
        leaving = true;
        if (now_ns < lane->since_ns + LEAVE_TIMEOUT_NS) continue;
        char why[NET_WHY_BYTES];
        snprintf(why, sizeof why, "%.140s: was replaced, and what was on its way did not arrive within %d s",
                 lane->lane.text, (int)(LEAVE_TIMEOUT_NS / RAIL_NS_PER_S));
        peer_lane_ended(lane, RAIL_E_REMOTE, why);
        return false;
    }
    return leaving;
}

bool move_tick(struct net *net, uint64_t now_ns)
{
    bool busy = false;
    for (struct net_peer *p = net->peers; p; p = p->next) {
        if (p->n_up < 2 || p->leaving) continue;
        for (uint32_t r = 0; r < net->config.n_rails; r++) busy |= rail_tick(p, r, now_ns);
        busy |= leaves_tick(p, now_ns);
    }
    return busy;
}

void move_lane(struct net_lane *lane)
{
    struct net_lane *beside = peer_lane_beside(lane);
    if (!(lane->peer->features & FRAME_FEATURE_ROUTES) || lane->state != NET_LANE_UP || lane->leaving ||
        lane->newcomer || (beside && (beside->newcomer || beside->state == NET_LANE_UP)))
        return;
    lane->insisted = lane->peer->connecter ? net_connect_beside(lane) : say_about(lane, FRAME_ASK, 0);
    net_touch(lane->peer->net);
}
