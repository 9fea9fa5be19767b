/* peer.c - the bundle of lanes to one peer process: how it is found, how lanes join it and leave it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "transport/link/net_state.h"

/* ---- finding ---- */

struct net_peer *peer_get(struct net *net, const uint8_t process[NET_PROCESS_ID_BYTES], bool far, bool create)
{
    for (struct net_peer *p = net->peers; p; p = p->next)
        if (p->far == far && memcmp(p->process, process, NET_PROCESS_ID_BYTES) == 0) return p;
    if (!create) return NULL;
    struct net_peer *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->rails = calloc(net->config.n_rails, sizeof *p->rails);
    if (!p->rails) {
        free(p);
        return NULL;
    }
    p->net = net;
    memcpy(p->process, process, NET_PROCESS_ID_BYTES);
    p->far = far;
    int order = memcmp(net->process, process, NET_PROCESS_ID_BYTES);
    p->connecter = order < 0 || (order == 0 && !far);
    p->next = net->peers;
    net->peers = p;
    return p;
}

static void peer_free(struct net_peer *peer)
{
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        if (peer->lanes[i]) free(peer->lanes[i]->handshake);
        free(peer->lanes[i]);
    }
    free(peer->lanes);
    free(peer->repair.lanes);
    free(peer->heard_turns);
    free(peer->says);
    free(peer->rails);
    free(peer->places);
    free(peer->early);
    free(peer);
}

void peer_free_idle(struct net *net)
{
    for (struct net_peer **at = &net->peers; *at;) {
        struct net_peer *p = *at;
        bool busy = p->n_links > 0 || p->n_up > 0 || p->active || p->n_ghosts > 0;
        busy |= net->n_comms > 0 && (p->called || p->n_early > 0); /* it wants links */
        for (uint32_t i = 0; i < p->n_lanes && !busy; i++)
            busy = p->lanes[i] && (p->lanes[i]->state == NET_LANE_CONNECTING || p->lanes[i]->state == NET_LANE_WAITING);
        if (busy) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        peer_free(p);
    }
}

enum rail_result peer_lanes_resize(struct net_peer *peer, uint32_t n_set)
{
    uint32_t n_lanes = NET_BERTHS * n_set;
    if (n_lanes <= peer->n_lanes) return RAIL_OK;
    struct net_lane **lanes = realloc(peer->lanes, n_lanes * sizeof *lanes);
    if (lanes) peer->lanes = lanes;
    struct repair_lane *repair = realloc(peer->repair.lanes, n_set * sizeof *repair);
    if (repair) peer->repair.lanes = repair;
    uint32_t *heard_turns = realloc(peer->heard_turns, n_set * sizeof *heard_turns);
    if (heard_turns) peer->heard_turns = heard_turns;
    if (!lanes || !repair || !heard_turns)
        return rail_fail(RAIL_E_SYSTEM, "out of memory for the table of %u lanes", n_lanes);
    uint32_t n_before = peer->n_lanes / NET_BERTHS;
    memset(lanes + peer->n_lanes, 0, (n_lanes - peer->n_lanes) * sizeof *lanes);
    memset(repair + n_before, 0, (n_set - n_before) * sizeof *repair);
    memset(heard_turns + n_before, 0, (n_set - n_before) * sizeof *heard_turns);
    peer->n_lanes = n_lanes;
    return RAIL_OK;
}

struct net_lane *peer_lane_beside(const struct net_lane *lane)
{
    struct net_lane *const *berths = lane->peer->lanes + NET_BERTHS * lane->index;
    return berths[berths[0] == lane];
}

struct net_lane *peer_lane(struct net_peer *peer, uint32_t berth, uint32_t rail)
{
    if (peer->lanes[berth]) return peer->lanes[berth];
    struct net_lane *lane = calloc(1, sizeof *lane);
    if (!lane) return NULL;
    lane->watch.kind = NET_WATCH_LANE;
    lane->peer = peer;
    lane->state = NET_LANE_ABSENT;
    lane->rail = rail;
    lane->index = berth / NET_BERTHS;
    lane->lane.fd = -1;
    lane->lane.rail = rail;
    lane->lane.index = lane->index;
    lane->lane.sink = &net_sink;
    lane->lane.user = lane;
    peer->lanes[berth] = lane;
    return lane;
}

/* ---- reading ---- */

bool peer_read(struct net_lane *lane)
{
    enum rail_result r = lane_read(&lane->lane, NET_READ_BYTES);
    if (r == RAIL_NOT_YET) return false;
    if (lane->peer->heard_down) mend_look(lane->peer);
    if (lane->state != NET_LANE_UP) return true; /* they have closed this one, too */
    if (move_is_left(lane) && (r != RAIL_OK || lane->peer->connecter)) /* the accepter waits for the connecter's end */
        peer_lane_left(lane);
    else if (lane->said_bye)
        peer_lane_ended(lane, RAIL_OK, "the other process has finished");
    else if (r != RAIL_OK)
        peer_lane_ended(lane, r, rail_own_error());
    return true;
}

/* ---- beginning and end ---- */

/* The accepter's HELLO goes by the socket also where the lane's frames do not. */
static enum rail_result answer_hello(struct net_lane *lane, const struct handshake *h, const struct frame_hello *answer)
{
    uint8_t hello[HELLO_FRAME_BYTES];
    handshake_hello_encode(answer, hello);
    /* Nothing but a record went before it: it always fits. */
    if (send(h->fd, hello, sizeof hello, MSG_NOSIGNAL) == (ssize_t)sizeof hello) return RAIL_OK;
    return rail_fail_quietly(RAIL_E_SYSTEM, "%s: sending HELLO: %s", lane->lane.text, strerror(errno));
}

static void start(struct net_lane *lane, struct handshake *h, const struct frame_hello *answer)
{
    struct net *net = lane->peer->net;
    lane_start(&lane->lane, h->fd, net->config.chunk_bytes, !answer || h->verbs, true);
    if (h->verbs) {
        lane_start_verbs(&lane->lane, h->verbs);
        atomic_fetch_add(&net->n_armed, 1);
    } else if (answer) {
        struct frame frame = {.type = FRAME_HELLO, .payload_bytes = sizeof *answer};
        struct frame_hello wire = frame_hello_swap(*answer);
        lane_queue(&lane->lane, &frame, &wire, NULL);
    }
    h->fd = -1;
    h->verbs = NULL;
}

static void say_up(const struct net_lane *lane, const struct handshake *h)
{
    struct net_rail *rail = &lane->peer->net->rails[lane->rail];
    if (h->verbs_why[0]) net_device_without(rail, lane->lane.text, h->verbs_why);
    if (h->verbs_why[0] && h->late && lane->anew) net_device_again(rail);
    if (lane->newcomer || lane->anew) return;
    if (lane->lane.ops == &lane_verbs_ops)
        RAIL_INFO(RAIL_NET, "lane %u up: %s, by %s:%u, %s", lane->index, lane->lane.text, rail->device_of.port->name,
                  rail->device_of.port->port, verbs_connection_text(lane->lane.wire));
    else
        RAIL_INFO(RAIL_NET, "lane %u up: %s", lane->index, lane->lane.text);
}

enum rail_result peer_lane_up(struct net_lane *lane, struct handshake *h, const struct frame_hello *answer)
{
    struct net_peer *peer = lane->peer;
    struct net *net = peer->net;
    if (net->n_up == net->up_room) {
        uint32_t room = net->up_room ? 2 * net->up_room : 8;
        struct net_lane **up = realloc(net->up, room * sizeof *up);
        if (!up) return rail_fail(RAIL_E_SYSTEM, "out of memory for the table of %u lanes", room);
        net->up = up;
        net->up_room = room;
    }
    RAIL_TRY(net_lane_watch(net, lane, h->fd, true));
    if (h->verbs) RAIL_TRY(net_lane_watch(net, lane, verbs_connection_event_fd(h->verbs), true));
    if (h->verbs && answer) RAIL_TRY(answer_hello(lane, h, answer));
    start(lane, h, answer);
    lane->state = NET_LANE_UP;
    lane->said_bye = lane->skip = false;
    lane->leaving = lane->said_leave = lane->heard_leave = lane->seen_valid = false;
    lane->route = (struct route_lane){0};
    lane->silence = (struct silence_lane){0};
    lane->quiet = 0;
    lane->down_ns = 0;
    net->up[net->n_up++] = lane;
    peer->n_up++;
    if (lane->lane.ops == &lane_verbs_ops && (peer->features & FRAME_FEATURE_PROMPT))
        atomic_store_explicit(&peer->lends, net->rails[lane->rail].device_of.port->lends, memory_order_relaxed);
    peer->leaving = false;
    net_lane_hot(net, lane);
    peer_activate(peer);
    say_up(lane, h);
    mend_lane_up(lane);
    if (lane->newcomer) move_begins(lane);
    return RAIL_OK;
}

void peer_lane_off(struct net_lane *lane)
{
    struct net_peer *peer = lane->peer;
    struct net *net = peer->net;
    if (lane->state != NET_LANE_UP) return;
    net_lane_unwatch(net, lane);
    for (uint32_t i = 0; i < net->n_up; i++)
        if (net->up[i] == lane) {
            net->up[i] = net->up[--net->n_up];
            break;
        }
    lane->state = NET_LANE_CLOSED;
    lane->newcomer = lane->leaving = false;
    if (peer->control == lane) control_lane_gone(peer);
    peer->n_up--;
    if (lane->lane.ops == &lane_verbs_ops) {
        atomic_fetch_sub(&net->n_armed, 1);
        if (net->service_added) net_touch(net); /* devices.c sees whether the device lets go of it */
    }
    direct_lane_ends(lane);
    lane_close(&lane->lane);
}

/* The connecter knows that the accepter has read all, by its LEAVE. The accepter sees an end of file, be it that the
 * connecter has read all or that it has given up the lane. */
void peer_lane_left(struct net_lane *lane)
{
    struct net_peer *peer = lane->peer;
    const struct net_lane *beside = peer_lane_beside(lane);
    peer_lane_off(lane);
    for (uint32_t i = 0; i < peer->n_places && !peer->connecter && beside; i++) {
        struct net_link *l = peer->places[i].link;
        if (l && l->sender) carriage_inherit(l, lane, beside);
    }
    peer_activate(peer); /* control frames may have waited for that */
}

/* Ends what every link of the peer is waiting for. With result RAIL_OK the far end left in good order: ends that never
 * met their counterpart wait for the next set of lanes, the others are over. */
static void links_ended(struct net_peer *peer, enum rail_result result, const char *why)
{
    for (uint32_t i = 0; i < peer->n_places; i++) {
        struct net_link *l = peer->places[i].link;
        if (!l) continue;
        direct_set_ended(l);
        if (l->closed) {
            l->wants_close = false;
            link_free_if_done(l);
            continue;
        }
        bool met = l->sender ? atomic_load_explicit(&l->accepted, memory_order_relaxed) : l->remote != 0;
        if (result != RAIL_OK || met) {
            if (l->remote_finished == UINT64_MAX) link_fail(l, result == RAIL_OK ? RAIL_E_REMOTE : result, why);
            /* The numbers were of these lanes: on the next ones they mean nothing. */
            l->remote = 0;
            l->remote_finished = 0;
            l->wants_open = l->wants_accept = l->wants_refuse = false;
        } else if (l->sender && !l->wants_open) {
            l->wants_open = true;
            peer_ring(l);
        }
    }
    peer->n_early = 0;
    control_reset(peer);
    for (uint32_t i = 0; i < peer->n_lanes; i++) /* the next set's troubles will be its own */
        if (peer->lanes[i]) peer->lanes[i]->down_ns = 0;
}

void peer_fail(struct net_peer *peer, enum rail_result result, const char *why)
{
    if (!peer->lost) snprintf(peer->why, sizeof peer->why, "%s", why);
    peer->repair.alone_ns = 0;
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        if (!peer->lanes[i]) continue;
        net_connect_drop(peer->lanes[i]);
        peer_lane_off(peer->lanes[i]);
    }
    links_ended(peer, result, why);
}

bool peer_has_met(const struct net_peer *peer)
{
    for (uint32_t i = 0; i < peer->n_places; i++) {
        const struct net_link *l = peer->places[i].link;
        if (l && (l->remote != 0 || atomic_load_explicit(&l->accepted, memory_order_relaxed))) return true;
    }
    return false;
}

void peer_begin_anew(struct net_peer *peer)
{
    peer->repair.alone_ns = 0;
    for (uint32_t i = 0; i < peer->n_lanes; i++)
        if (peer->lanes[i]) net_connect_drop(peer->lanes[i]);
    links_ended(peer, RAIL_OK, "the other process has closed its end");
    net_connect_peer(peer);
}

static uint32_t links_open(const struct net_peer *peer)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < peer->n_places; i++) {
        const struct net_link *l = peer->places[i].link;
        n += l && !l->closed && l->remote_finished == UINT64_MAX;
    }
    return n;
}

/* It is repaired: other lanes go on, or a link waits for one to come back. */
static bool is_repaired(const struct net_lane *lane)
{
    const struct net_peer *peer = lane->peer;
    return net_mends(peer) && !lane->lane.broke_rule && !peer->leaving && (peer->n_up > 1 || links_open(peer) > 0);
}

void peer_lane_ended(struct net_lane *lane, enum rail_result result, const char *why)
{
    struct net_peer *peer = lane->peer;
    char text[NET_WHY_BYTES]; /* `why` may be the last error's text, which what follows may overwrite */
    snprintf(text, sizeof text, "%s", why);
    if (result != RAIL_OK && result != RAIL_E_INTERNAL && is_repaired(lane)) {
        mend_lane_ended(lane, text);
        return;
    }
    peer_lane_off(lane);
    if (result != RAIL_OK) {
        lane->down_ns = rail_now_ns();
        memcpy(lane->down_why, text, sizeof lane->down_why);
    }
    /* Both ends closed every link: whichever process closed the lanes first, nothing is lost. */
    if (result != RAIL_OK && result != RAIL_E_INTERNAL && links_open(peer) == 0) result = RAIL_OK;
    RAIL_INFO(RAIL_NET, "lane %u ended: %s", lane->index, text);
    if (result == RAIL_OK) {
        peer->leaving = true;
        if (peer->n_up > 0) return;
        peer->leaving = false;
        links_ended(peer, RAIL_OK, "the other process has closed its end");
        net_connect_peer(peer);
        return;
    }
    /* What the surviving lanes have brought already still counts: a process that dies sends its last words on all of
     * them. Then the links fail as a whole. */
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        struct net_lane *other = peer->lanes[i];
        while (other && other->state == NET_LANE_UP && lane_read(&other->lane, NET_READ_BYTES) == RAIL_OK) continue;
    }
    peer_fail(peer, result, text); /* each link's owner logs it */
}

void peer_leave(struct net_peer *peer)
{
    bool more;
    peer_send(peer, &more);
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        struct net_lane *lane = peer->lanes[i];
        if (!lane) continue;
        net_connect_drop(lane);
        if (lane->state != NET_LANE_UP) continue;
        if (!lane->leaving && !lane_out_full(&lane->lane)) {
            struct frame frame = {.type = FRAME_BYE};
            lane_queue(&lane->lane, &frame, NULL, NULL);
            (void)lane_write(&lane->lane);
            lane->lane.ops->settle(&lane->lane);
        }
        peer_lane_off(lane);
    }
    links_ended(peer, RAIL_E_USAGE, "the network was closed with the last communicator");
}
