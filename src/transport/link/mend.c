/* mend.c - does what repair.c decides about lanes that die: closes them, says what came by them, sends again what was lost,
 * connects them anew. docs/REPAIR.md is the protocol in words. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transport/link/net_state.h"

/* What is read of a socket that is given up, at most: the largest receive buffer that Linux allows by default is 6 MiB, and
 * what is not read is sent again. */
enum { DRAIN_BYTES = 16 << 20 };

/* ---- what came ---- */

static bool say(struct net_peer *peer, const struct net_link *l, uint64_t sequence, const uint64_t *bits,
                uint32_t n_bytes)
{
    uint64_t wire[NET_GRAINS_MAX / 64];
    struct frame frame = {.type = FRAME_BITMAPS, .link = l->remote, .sequence = (uint32_t)sequence,
                          .payload_bytes = n_bytes};
    for (uint32_t i = 0; i < (n_bytes + 7) / 8; i++) wire[i] = htole64(bits[i]);
    return control_say(peer, &frame, wire);
}

static bool report_link(struct net_peer *peer, const struct net_link *l)
{
    uint64_t arrived = atomic_load_explicit(&l->arrived, memory_order_relaxed);
    bool ok = say(peer, l, arrived, NULL, 0);
    for (uint64_t s = arrived; s < arrived + l->base.n_slots && ok; s++) {
        const struct net_slot *slot = &l->slots[s % l->base.n_slots];
        uint32_t grains = link_grains(l, slot->bytes);
        if (slot->complete) {
            uint64_t bits[NET_GRAINS_MAX / 64];
            memset(bits, 0xff, sizeof bits);
            if (grains % 64 != 0) bits[grains / 64] = (1ull << grains % 64) - 1;
            ok = say(peer, l, s, bits, (grains + 7) / 8);
        } else if (slot->started) {
            ok = say(peer, l, s, l->bitmaps + (s % l->base.n_slots) * l->words_per_slot, (grains + 7) / 8);
        }
    }
    return ok;
}

static void report(struct net_peer *peer, uint32_t index, uint16_t turn)
{
    struct frame down = {.type = FRAME_LANE_DOWN, .sequence = index, .slot_bytes = turn};
    for (uint32_t i = 0; i < peer->n_places; i++) {
        const struct net_link *l = peer->places[i].link;
        if (!l || l->sender || l->closed || l->remote == 0 || l->remote_finished == 0) continue;
        if (atomic_load_explicit(&l->failed, memory_order_relaxed) == 0 && !report_link(peer, l)) return;
    }
    (void)control_say(peer, &down, NULL);
    peer_activate(peer);
}

/* ---- closing ---- */

/* Nothing can come by the socket afterwards. Data that is here already need not travel again. */
static void close_socket(struct net_lane *lane)
{
    struct net_peer *peer = lane->peer;
    uint64_t until = lane->lane.received_bytes + DRAIN_BYTES;
    while (lane->lane.received_bytes < until && lane_read(&lane->lane, NET_READ_BYTES) == RAIL_OK) continue;
    peer_lane_off(lane);
    for (uint32_t i = 0; i < peer->n_places; i++) {
        struct net_link *l = peer->places[i].link;
        if (!l || l->closed) continue;
        if (l->sender)
            carriage_doubt(l, lane);
        else if (atomic_load_explicit(&l->credit_sent, memory_order_relaxed) > 0)
            peer_owe(l, true); /* the last may have been on it */
    }
}

static void close_lane(struct net_peer *peer, uint32_t index, uint16_t turn)
{
    for (uint32_t i = 0; i < NET_BERTHS; i++) {
        struct net_lane *lane = peer->lanes[NET_BERTHS * index + i];
        /* Of a lane that dies nothing is left: not what was tried beside it either. */
        bool dies = peer->repair.lanes[index].state != REPAIR_UP && lane && lane->newcomer;
        if (!lane || (lane->turn > turn && !dies)) continue;
        net_connect_drop(lane);
        if (lane->state == NET_LANE_UP) close_socket(lane);
    }
}

/* ---- actions ---- */

static void send_again(struct net_peer *peer, uint32_t index)
{
    uint32_t grains = 0;
    for (uint32_t i = 0; i < peer->n_places; i++) {
        struct net_link *l = peer->places[i].link;
        if (!l || !l->sender || l->closed) continue;
        uint32_t before = l->n_again;
        carriage_again(l, index);
        grains += l->n_again - before;
        if (l->n_again > 0) peer_ring(l);
    }
    RAIL_TRACE(RAIL_NET, "lane %u: both ends have closed it; %u grains go again", index, grains);
}

static void act(struct net_peer *peer, uint32_t index, const struct repair_actions *actions)
{
    if (actions->what & REPAIR_CLOSE) close_lane(peer, index, actions->say_turn);
    if (actions->what & REPAIR_SAY_DOWN) report(peer, index, actions->say_turn);
    if (actions->what & REPAIR_SEND_AGAIN) send_again(peer, index);
    if ((actions->what & REPAIR_CONNECT) && !net_connect_anew(peer, index, actions->try_turn)) {
        struct repair_event failed = {REPAIR_TRY_FAILED, index, (uint16_t)(actions->try_turn - 1), rail_now_ns()};
        (void)repair_step(&peer->repair, &failed);
    }
    net_touch(peer->net);
}

static struct repair_actions step(struct net_peer *peer, enum repair_event_kind kind, uint32_t index, uint16_t turn)
{
    struct repair_event event = {kind, index, turn, rail_now_ns()};
    struct repair_actions actions = repair_step(&peer->repair, &event);
    act(peer, index, &actions);
    return actions;
}

/* ---- events ---- */

void mend_set_begins(struct net_peer *peer)
{
    repair_begin(&peer->repair, peer->connecter, peer->repair.lanes, peer->n_set);
    memset(peer->heard_turns, 0, peer->n_set * sizeof *peer->heard_turns);
    peer->heard_down = peer->torn = false;
    control_reset(peer);
}

void mend_lane_up(struct net_lane *lane)
{
    struct net_peer *peer = lane->peer;
    if (!net_mends(peer)) return;
    if (lane->newcomer) {
        repair_moves(&peer->repair, lane->index, lane->turn);
        return;
    }
    if (lane->anew) {
        RAIL_INFO(RAIL_NET, "lane %u is back: %s", lane->index, lane->lane.text);
        peer->net->rails[lane->rail].hurt = false;
    }
    lane->anew = false;
    (void)step(peer, REPAIR_CONNECTED, lane->index, lane->turn);
}

/* For net_troubles(): of the lane's sockets with turns below `turns`. Without `why`: they have closed it. */
static void note_why(struct net_peer *peer, uint32_t index, uint32_t turns, const char *why)
{
    for (uint32_t i = 0; i < NET_BERTHS; i++) {
        struct net_lane *berth = peer->lanes[NET_BERTHS * index + i];
        if (!berth || berth->state != NET_LANE_UP || berth->turn >= turns) continue;
        berth->down_ns = rail_now_ns();
        if (why) snprintf(berth->down_why, sizeof berth->down_why, "%s", why);
        else snprintf(berth->down_why, sizeof berth->down_why, "%.140s: the other process has closed it", berth->lane.text);
    }
}

void mend_lane_ended(struct net_lane *lane, const char *why)
{
    struct net_peer *peer = lane->peer;
    struct net_rail *rail = &peer->net->rails[lane->rail];
    char counted[NET_COUNTED_BYTES] = "", text[NET_WHY_BYTES + NET_COUNTED_BYTES];
    if (lane->lane.ops == &lane_verbs_ops) net_device_counted(rail, counted);
    snprintf(text, sizeof text, "%s%s", why, counted);
    note_why(peer, lane->index, UINT32_MAX, text);
    if (!rail->hurt)
        RAIL_WARN("%s; %s", text,
                  peer->repair.n_up > 1 ? "the other lanes go on" : "no other lane to that process is up");
    rail->hurt = true;
    RAIL_INFO(RAIL_NET, "lane %u is down: %s; %u others go on", lane->index, text, peer->repair.n_up - 1);
    (void)step(peer, REPAIR_ENDED, lane->index, 0);
}

void mend_make_room(struct net_peer *peer, uint32_t index)
{
    for (uint32_t i = 0; i < NET_BERTHS; i++) {
        struct net_lane *lane = peer->lanes[NET_BERTHS * index + i];
        if (!lane || lane->state != NET_LANE_UP) continue;
        mend_lane_ended(lane, "the other process has closed it and connects it anew");
        return;
    }
}

void mend_try_failed(struct net_lane *lane, const char *why)
{
    struct net_peer *peer = lane->peer;
    uint16_t heard = (uint16_t)(lane->turn - (lane->turn > 0 && !handshake_said_hello(lane->handshake)));
    RAIL_TRACE(RAIL_NET, "%s: %s; trying again", lane->lane.text, why);
    net_connect_drop(lane);
    lane->anew = false;
    (void)step(peer, REPAIR_TRY_FAILED, lane->index, heard);
}

void mend_nic_back(struct net *net, uint32_t rail)
{
    for (struct net_peer *p = net->peers; p; p = p->next)
        for (uint32_t i = 0; net_mends(p) && i < p->n_set; i++) {
            const struct net_lane *lane = p->lanes[NET_BERTHS * i];
            if (lane && lane->rail == rail) (void)step(p, REPAIR_NIC_BACK, i, 0);
        }
    net_touch(net);
}

/* ---- what they say ---- */

enum rail_result mend_heard_bitmaps(struct net_lane *lane, const struct frame *f)
{
    bool late;
    struct net_link *l = peer_link(lane->peer, f->link, &late);
    if (!l && late) return RAIL_OK;
    if (!l || !l->sender) return net_violation(&lane->lane, "BITMAPS for link number %#x, which sends nothing", f->link);
    uint64_t credited = atomic_load_explicit(&l->credited, memory_order_relaxed);
    int32_t ahead = (int32_t)(f->sequence - (uint32_t)credited);
    if (ahead < 0) return RAIL_OK; /* credited meanwhile */
    uint64_t sequence = credited + (uint32_t)ahead;
    if (sequence > l->assigned) return net_violation(&lane->lane, "BITMAPS of slot %u, which was not sent", f->sequence);
    if (f->payload_bytes == 0)
        carriage_landed_before(l, sequence);
    else if (!carriage_landed(l, sequence, lane->control, f->payload_bytes))
        return net_violation(&lane->lane, "BITMAPS of slot %u with what was not sent", f->sequence);
    return RAIL_OK;
}

/* Seen to after reading: closing a lane here would pull the ground from under the one that is being read. */
enum rail_result mend_heard_down(struct net_lane *lane, const struct frame *f)
{
    struct net_peer *peer = lane->peer;
    if (f->sequence >= peer->n_set || f->slot_bytes > UINT16_MAX || f->link != 0)
        return net_violation(&lane->lane, "LANE_DOWN of lane %u, turn %u", f->sequence, f->slot_bytes);
    if (peer->heard_turns[f->sequence] <= f->slot_bytes) peer->heard_turns[f->sequence] = f->slot_bytes + 1;
    peer->heard_down = true;
    return RAIL_OK;
}

/* They have closed the lane's sockets with turns below `turns`. */
static void heard_down(struct net_peer *peer, uint32_t index, uint32_t turns)
{
    char why[NET_WHY_BYTES];
    note_why(peer, index, turns, NULL);
    struct repair_actions actions = step(peer, REPAIR_HEARD_DOWN, index, (uint16_t)(turns - 1));
    if (!(actions.what & REPAIR_WRONG)) return;
    snprintf(why, sizeof why, "protocol error: the other process says that socket %u of lane %u is down, which never was; "
             "its connections are closed", turns - 1, index);
    peer_fail(peer, RAIL_E_REMOTE, why);
}

void mend_look(struct net_peer *peer)
{
    while (peer->heard_down) { /* what is read of a lane that is closed may bring more */
        peer->heard_down = false;
        for (uint32_t i = 0; i < peer->n_set && net_mends(peer); i++) {
            uint32_t turns = peer->heard_turns[i];
            peer->heard_turns[i] = 0;
            if (turns > 0) heard_down(peer, i, turns);
        }
    }
}

/* ---- time ---- */

static void give_up(struct net_peer *peer, uint64_t now_ns)
{
    const struct net_lane *last = NULL;
    char why[NET_WHY_BYTES];
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        const struct net_lane *lane = peer->lanes[i];
        if (lane && lane->down_ns && (!last || lane->down_ns > last->down_ns)) last = lane;
    }
    snprintf(why, sizeof why, "%.170s; no lane to that process has come back in %.1f s",
             last ? last->down_why : "all lanes were lost", (double)(now_ns - peer->repair.alone_ns) / 1e9);
    peer_fail(peer, RAIL_E_REMOTE, why);
}

#define RING_EVERY_NS (100 * RAIL_NS_PER_MS)

/* An accepter that lost all lanes waits to be connected to. By knocking it learns whether anybody is there to do so. */
static void ring(struct net_peer *peer, uint64_t now_ns)
{
    if (peer->connecter || now_ns - peer->rang_ns < RING_EVERY_NS) return;
    peer->rang_ns = now_ns;
    net_connect_ring(peer, peer->n_rings++);
}

static enum net_pace peer_tick(struct net_peer *peer, uint64_t now_ns)
{
    enum net_pace wait = NET_PACE_NONE;
    if (peer->told_number != peer->heard_number) wait = NET_PACE_FAST;
    if (control_owes(peer)) peer_activate(peer);
    if (peer->repair.alone_ns && now_ns - peer->repair.alone_ns >= peer->net->config.alone_timeout_ns) {
        give_up(peer, now_ns);
        return NET_PACE_NONE;
    }
    if (peer->repair.alone_ns) {
        wait = NET_PACE_FAST;
        ring(peer, now_ns);
    }
    for (uint32_t i = 0; i < peer->n_set && net_mends(peer) && peer->connecter; i++) {
        const struct net_lane *lane = peer->lanes[NET_BERTHS * i];
        if (peer->repair.lanes[i].state != REPAIR_RESTING || !lane) continue;
        if (wait == NET_PACE_NONE) wait = NET_PACE_SLOW;
        /* In vain while its NIC is away; where the kernel does not tell when it is back, trying does. */
        if (!peer->net->rails[lane->rail].gone || peer->net->carrier.fd < 0) (void)step(peer, REPAIR_TICK, i, 0);
    }
    return wait;
}

enum net_pace mend_tick(struct net *net, uint64_t now_ns)
{
    enum net_pace most = NET_PACE_NONE;
    for (struct net_peer *p = net->peers; p; p = p->next) {
        if (p->torn) {
            p->torn = false;
            peer_fail(p, RAIL_E_SYSTEM, "out of memory for what has to be said about lanes and links");
        }
        if (!net_mends(p) || p->leaving || (p->n_up == 0 && !p->repair.alone_ns)) continue;
        if (!net_peer_wanted(p)) {
            if (p->repair.alone_ns) peer_fail(p, RAIL_E_REMOTE, "the lanes were lost while nobody needed them");
            continue;
        }
        enum net_pace wait = peer_tick(p, now_ns);
        if (wait > most) most = wait;
    }
    return most;
}
