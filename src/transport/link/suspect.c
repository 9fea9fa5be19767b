/* suspect.c - looks at the lanes that have work, and ends those which silence.h finds dead.
 *
 *   tick (drive.c) --> each peer with work, every 25 ms --> looks at its lanes --> silence_judge --> peer_lane_ended,
 *                                                                                     or a small frame on a sibling
 *
 * A lane without work costs nothing, one with work a look at its queue and one at TCP_INFO: some 2 us per 25 ms. */
#include <stdio.h>

#include "base/log.h"
#include "transport/link/net_state.h"

enum { LANES_MAX = NET_BERTHS * NET_LANES_MAX };

/* Nothing was said that might be on its way: after BYE or LEAVE a lane ends by itself. */
static bool counts(const struct net_lane *lane) { return lane && lane->state == NET_LANE_UP && !lane->said_bye; }

/* Marks the lanes that took what a link waits for. Of each link only the oldest slot, and only when it is the same as at
 * the last look: whether it merely waits for its reader cannot be told, which is why such a lane is asked. */
static bool mark_carriers(struct net_peer *peer)
{
    bool any = false;
    for (uint32_t i = 0; i < peer->n_lanes; i++)
        if (peer->lanes[i]) peer->lanes[i]->silence.look.carries = false;
    for (uint32_t i = 0; i < peer->n_places; i++) {
        struct net_link *l = peer->places[i].link;
        if (l && l->sender && atomic_load_explicit(&l->failed, memory_order_relaxed) == 0) any |= carriage_stands(l);
    }
    return any;
}

static bool has_work(const struct net_peer *peer)
{
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        struct net_lane *lane = peer->lanes[i];
        if (!counts(lane)) continue;
        lane_look(&lane->lane);
        if (lane->lane.unacked_bytes > 0) return true;
    }
    return false;
}

static void look(struct net_lane *lane)
{
    struct silence_look *to = &lane->silence.look;
    struct lane_figures f;
    lane_look(&lane->lane);
    *to = (struct silence_look){
        .carries = to->carries,
        .acked_bytes = lane->lane.sent_bytes - lane->lane.unacked_bytes,
        .received_bytes = lane->lane.received_bytes,
        .outstanding = lane->lane.unacked_bytes > 0,
    };
    lane->silence.rail = lane->rail;
    lane->silence.free = !lane->leaving && lane->lane.out_count == 0;
    if (!to->outstanding || !lane_figures(&lane->lane, &f)) return;
    to->known = true;
    to->in_flight_segments = f.in_flight_segments;
    to->unsent_bytes = f.unsent_bytes;
    to->closed = f.closed;
    to->round_trip_us = f.round_trip_us;
    to->repeats = f.repeated_segments;
    to->delivered = f.delivered_segments;
    to->reader_us = f.reader_us;
}

static void suspect(struct net_lane *lane, const struct silence_verdict *v)
{
    char why[NET_WHY_BYTES];
    int ms = (int)(v->quiet_ns / RAIL_NS_PER_MS);
    if (v->cause == SILENCE_SILENT)
        snprintf(why, sizeof why, "%.140s: is silent: nothing was acknowledged for %d ms (%u repeats), while other lanes "
                 "moved", lane->lane.text, ms, v->repeats);
    else if (v->cause == SILENCE_UNREAD)
        snprintf(why, sizeof why, "%.140s: is not read: the other process took nothing for %d ms, while it spoke on "
                 "other lanes", lane->lane.text, ms);
    else
        snprintf(why, sizeof why, "%.140s: is not read: the other process did not answer on it for %d ms, while it "
                 "spoke on other lanes", lane->lane.text, ms);
    peer_lane_ended(lane, RAIL_E_REMOTE, why);
}

static void say(struct net_lane *lane, enum frame_question question)
{
    struct frame frame = {.type = FRAME_CREDIT, .sequence = question, .signature = control_acknowledge(lane->peer)};
    credit_ride(lane->peer, &frame);
    lane_queue(&lane->lane, &frame, NULL, NULL);
    peer_activate(lane->peer);
}

static void peer_look(struct net_peer *peer, uint64_t now_ns)
{
    struct net_lane *lanes[LANES_MAX];
    struct silence_lane *looks[LANES_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < peer->n_lanes && n < LANES_MAX; i++) {
        if (!counts(peer->lanes[i])) continue;
        look(peer->lanes[i]);
        lanes[n] = peer->lanes[i];
        looks[n++] = &peer->lanes[i]->silence;
    }
    if (n == 0) return;
    struct silence_verdict v = silence_judge(&peer->silence, looks, n, now_ns);
    if (v.cause != SILENCE_NONE)
        suspect(lanes[v.suspect], &v);
    else if (v.wish != SILENCE_NOTHING)
        say(lanes[v.on], v.wish == SILENCE_ASK ? FRAME_QUESTION_ASKED : FRAME_QUESTION_NONE);
}

/* The NICs of lanes with work. */
static void ask_carriers(struct net *net)
{
    uint64_t asked = 0;
    for (uint32_t i = 0; i < net->n_up; i++) {
        const struct net_lane *lane = net->up[i];
        if (lane->lane.unacked_bytes == 0 || asked >> lane->rail & 1) continue;
        asked |= 1ull << lane->rail;
        uint32_t n_up = net->n_up;
        net_carrier_ask(&net->rails[lane->rail], lane->lane.fd);
        if (net->n_up != n_up) return; /* the table has changed: the others next time */
    }
}

bool suspect_tick(struct net *net, uint64_t now_ns)
{
    bool working = false;
    if (!net->config.repairs) return false;
    if (now_ns - net->carriers_asked_ns >= SILENCE_TICK_NS) {
        net->carriers_asked_ns = now_ns;
        ask_carriers(net);
    }
    for (struct net_peer *p = net->peers; p; p = p->next) {
        if (p->n_up < 2 || p->leaving) continue;
        if (p->silence.looked_ns != 0 && now_ns - p->silence.looked_ns < SILENCE_TICK_NS) {
            working = true;
            continue;
        }
        bool carries = mark_carriers(p);
        if (!has_work(p) && !carries) {
            p->silence.looked_ns = 0;
            continue;
        }
        peer_look(p, now_ns);
        working = true;
    }
    return working;
}

/* Answered where it was asked: that lane is read, for sure. An answer that finds no room is asked for again. */
enum rail_result suspect_asked(struct net_lane *lane, const struct frame *f)
{
    if (f->sequence > FRAME_QUESTION_ANSWERED)
        return net_violation(&lane->lane, "CREDIT with question %u", f->sequence);
    if (f->sequence == FRAME_QUESTION_ASKED && lane->state == NET_LANE_UP && !lane->leaving &&
        !lane_out_full(&lane->lane))
        say(lane, FRAME_QUESTION_ANSWERED);
    return RAIL_OK;
}
