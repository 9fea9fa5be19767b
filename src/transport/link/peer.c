/* peer.c - the bundle of lanes to one peer process, and whose turn it is on them.
 *
 * Links that have something to say stand in a ring and take turns by bytes; a lane takes the next chunk of the link
 * whose turn it is when the lane has room (pull scheduling). Control frames (OPEN, ACCEPT, REFUSE, CLOSE) all travel on
 * the first lane, in order. Credit rides on any frame; alone when it is urgent. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transport/link/net_state.h"

/* One visit to a lane reads at most this much: other lanes and our own sending have their turn. */
enum { READ_BUDGET_BYTES = 1 << 20 };

/* ---- finding ---- */

struct net_peer *peer_get(struct net *net, const uint8_t process[NET_PROCESS_ID_BYTES], bool far, bool create)
{
    for (struct net_peer *p = net->peers; p; p = p->next)
        if (p->far == far && memcmp(p->process, process, NET_PROCESS_ID_BYTES) == 0) return p;
    if (!create) return NULL;
    struct net_peer *p = calloc(1, sizeof *p);
    if (!p) return NULL;
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
    free(peer->places);
    free(peer->early);
    free(peer);
}

void peer_free_idle(struct net *net)
{
    for (struct net_peer **at = &net->peers; *at;) {
        struct net_peer *p = *at;
        bool busy = p->n_links > 0 || p->n_up > 0 || p->active;
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

enum rail_result peer_lanes_resize(struct net_peer *peer, uint32_t n_lanes)
{
    if (n_lanes <= peer->n_lanes) return RAIL_OK;
    struct net_lane **lanes = realloc(peer->lanes, n_lanes * sizeof *lanes);
    if (!lanes) return rail_fail(RAIL_E_SYSTEM, "out of memory for the table of %u lanes", n_lanes);
    memset(lanes + peer->n_lanes, 0, (n_lanes - peer->n_lanes) * sizeof *lanes);
    peer->lanes = lanes;
    peer->n_lanes = n_lanes;
    return RAIL_OK;
}

struct net_lane *peer_lane(struct net_peer *peer, uint32_t index, uint32_t rail)
{
    if (peer->lanes[index]) return peer->lanes[index];
    struct net_lane *lane = calloc(1, sizeof *lane);
    if (!lane) return NULL;
    lane->watch.kind = NET_WATCH_LANE;
    lane->peer = peer;
    lane->state = NET_LANE_ABSENT;
    lane->rail = rail;
    lane->index = index;
    lane->lane.fd = -1;
    lane->lane.rail = rail;
    lane->lane.index = index;
    lane->lane.sink = &net_sink;
    lane->lane.user = lane;
    peer->lanes[index] = lane;
    return lane;
}

/* ---- links by number: index in the low 20 bits, generation above, so that a late frame for a link that was closed is
 *      told from one for the link that got its place ---- */

enum { INDEX_BITS = 20, INDEX_MASK = (1 << INDEX_BITS) - 1, GENERATIONS = 1 << (32 - INDEX_BITS) };

enum rail_result peer_link_add(struct net_peer *peer, struct net_link *link)
{
    uint32_t i = 1; /* number 0 means none */
    while (i < peer->n_places && peer->places[i].link) i++;
    if (i >= peer->n_places) {
        uint32_t n = peer->n_places ? 2 * peer->n_places : 16;
        if (n > INDEX_MASK)
            return rail_fail(RAIL_E_SYSTEM, "net_link_open: more than %u links to one process", peer->n_places);
        struct net_link_place *places = realloc(peer->places, n * sizeof *places);
        if (!places) return rail_fail(RAIL_E_SYSTEM, "net_link_open: out of memory for the table of %u links", n);
        memset(places + peer->n_places, 0, (n - peer->n_places) * sizeof *places);
        peer->places = places;
        peer->n_places = n;
    }
    peer->places[i].link = link;
    link->number = (peer->places[i].generation % GENERATIONS) << INDEX_BITS | i;
    peer->n_links++;
    return RAIL_OK;
}

struct net_link *peer_link(struct net_peer *peer, uint32_t number, bool *late)
{
    uint32_t i = number & INDEX_MASK;
    *late = false;
    if (i == 0 || i >= peer->n_places) return NULL;
    struct net_link *l = peer->places[i].link;
    if (l && l->number == number) {
        *late = l->closed;
        return l->closed ? NULL : l;
    }
    /* An earlier generation of this place was a link once. */
    uint32_t behind = (peer->places[i].generation - (number >> INDEX_BITS)) % GENERATIONS;
    *late = behind > 0 && behind < GENERATIONS / 2;
    return NULL;
}

static void list_remove(struct net_link **first, struct net_link **last, struct net_link *l, size_t next_offset)
{
    struct net_link *before = NULL;
    for (struct net_link *i = *first; i;) {
        struct net_link **next = (struct net_link **)(void *)((char *)i + next_offset);
        if (i == l) {
            if (before)
                *(struct net_link **)(void *)((char *)before + next_offset) = *next;
            else
                *first = *next;
            if (*last == l) *last = before;
            *next = NULL;
            return;
        }
        before = i;
        i = *next;
    }
}

void peer_link_remove(struct net_link *l)
{
    struct net_peer *peer = l->peer;
    if (l->ringed) list_remove(&peer->ring_first, &peer->ring_last, l, offsetof(struct net_link, ring_next));
    if (l->owing) {
        list_remove(&peer->owing_first, &peer->owing_last, l, offsetof(struct net_link, owing_next));
        peer->n_urgent -= l->urgent;
    }
    struct net_link_place *place = &peer->places[l->number & INDEX_MASK];
    place->link = NULL;
    place->generation++;
    peer->n_links--;
}

/* ---- who has something to send ---- */

void peer_activate(struct net_peer *peer)
{
    if (peer->active) return;
    peer->active = true;
    peer->next_active = peer->net->active;
    peer->net->active = peer;
}

void peer_ring(struct net_link *l)
{
    struct net_peer *peer = l->peer;
    peer_activate(peer);
    if (l->ringed) return;
    l->ringed = true;
    l->turn_bytes = 0;
    l->ring_next = NULL;
    if (peer->ring_last)
        peer->ring_last->ring_next = l;
    else
        peer->ring_first = l;
    peer->ring_last = l;
}

static void ring_pop(struct net_peer *peer)
{
    struct net_link *l = peer->ring_first;
    peer->ring_first = l->ring_next;
    if (!peer->ring_first) peer->ring_last = NULL;
    l->ring_next = NULL;
    l->ringed = false;
}

void peer_owe(struct net_link *l, bool urgent)
{
    struct net_peer *peer = l->peer;
    if (l->remote == 0 || l->closed) return;
    if (urgent) peer_activate(peer);
    if (l->owing) {
        if (!urgent || l->urgent) return;
        list_remove(&peer->owing_first, &peer->owing_last, l, offsetof(struct net_link, owing_next));
    } else {
        l->owing_tick = peer->net->tick_number;
    }
    l->owing = true;
    l->urgent = urgent;
    peer->n_urgent += urgent;
    if (urgent) {
        l->owing_next = peer->owing_first;
        peer->owing_first = l;
        if (!peer->owing_last) peer->owing_last = l;
        return;
    }
    l->owing_next = NULL;
    if (peer->owing_last)
        peer->owing_last->owing_next = l;
    else
        peer->owing_first = l;
    peer->owing_last = l;
}

static void put_credit(struct net_link *l, struct frame *frame)
{
    uint64_t released = atomic_load_explicit(&l->released, memory_order_acquire);
    frame->credit_link = l->remote;
    frame->credit_sequence = (uint32_t)released;
    atomic_store_explicit(&l->credit_sent, released, memory_order_relaxed);
}

/* Credit for the first link that owes some rides on the frame. */
static void piggyback(struct net_peer *peer, struct frame *frame)
{
    struct net_link *l = peer->owing_first;
    if (!l) return;
    peer->owing_first = l->owing_next;
    if (!peer->owing_first) peer->owing_last = NULL;
    peer->n_urgent -= l->urgent;
    l->owing = l->urgent = false;
    put_credit(l, frame);
}

/* ---- sending ---- */

static struct net_lane *control_lane(const struct net_peer *peer)
{
    for (uint32_t i = 0; i < peer->n_lanes; i++)
        if (peer->lanes[i] && peer->lanes[i]->state == NET_LANE_UP) return peer->lanes[i];
    return NULL;
}

static void queue_control(struct net_peer *peer, struct net_lane *lane, struct frame *frame, const void *payload)
{
    if (frame->credit_link == 0) piggyback(peer, frame);
    lane_queue(&lane->lane, frame, payload, NULL);
}

static void queue_open(struct net_link *l, struct net_lane *lane)
{
    struct frame frame = {.type = FRAME_OPEN, .sequence = l->number, .payload_bytes = sizeof(struct frame_open)};
    struct frame_open open = {
        .comm_key = l->comm_key, .from = l->base.from, .to = l->base.to, .channel = l->base.channel,
        .n_slots = l->base.n_slots, .slot_bytes = l->base.slot_bytes, .grain_bytes = l->grain_bytes,
    };
    open = frame_open_swap(open);
    queue_control(l->peer, lane, &frame, &open);
    l->wants_open = false;
}

static void queue_close(struct net_link *l, struct net_lane *lane)
{
    struct frame frame = {.type = FRAME_CLOSE, .link = l->remote, .sequence = l->number};
    if (l->sender)
        frame.slot_bytes = (uint32_t)l->assigned;
    else if (l->remote != 0)
        put_credit(l, &frame);
    queue_control(l->peer, lane, &frame, NULL);
    l->wants_close = false;
}

/* False when the control lane is full: the link keeps its wish and its place. */
static bool send_control(struct net_link *l)
{
    if (!(l->wants_open || l->wants_accept || l->wants_refuse || l->wants_close)) return true;
    struct net_lane *lane = control_lane(l->peer);
    if (!lane || lane_out_full(&lane->lane)) return false;
    if (l->wants_open) {
        queue_open(l, lane);
    } else if (l->wants_accept) {
        struct frame frame = {.type = FRAME_ACCEPT, .link = l->remote, .sequence = l->number,
                              .slot_bytes = l->base.n_slots};
        queue_control(l->peer, lane, &frame, NULL);
        l->wants_accept = false;
    } else if (l->wants_refuse) {
        struct frame frame = {.type = FRAME_REFUSE, .link = l->remote};
        frame.payload_bytes = (uint32_t)strnlen(l->why, FRAME_CONTROL_BYTES_MAX);
        queue_control(l->peer, lane, &frame, l->why);
        l->wants_refuse = false;
    } else {
        queue_close(l, lane);
    }
    return true;
}

/* Full chunks while there is much; towards the end every lane gets a share. */
static uint32_t chunk_bytes_now(const struct net_link *l, uint64_t left_bytes, uint64_t slots_behind)
{
    uint64_t chunk_bytes = l->net->config.chunk_bytes / l->grain_bytes * l->grain_bytes;
    if (chunk_bytes == 0) chunk_bytes = l->grain_bytes;
    if (l->peer->n_up > 1 && slots_behind == 0 && left_bytes < chunk_bytes * l->peer->n_up) {
        uint64_t share = (left_bytes + l->peer->n_up - 1) / l->peer->n_up;
        share = (share + l->grain_bytes - 1) / l->grain_bytes * l->grain_bytes;
        if (share < chunk_bytes) chunk_bytes = share;
    }
    return (uint32_t)(left_bytes < chunk_bytes ? left_bytes : chunk_bytes);
}

/* A chunk from this size on is worth a question to the kernel per lane (0.3 us each) before it is committed to one. */
enum { LOOK_BYTES = 4096 };

/* The lane that has most room left; NULL: none has room for `bytes`. What a lane has acknowledged since it was last
 * looked at must be asked for: with old numbers the lane that was asked last looks emptiest and takes everything up to
 * its bound, one lane after the other instead of all at once. */
static struct net_lane *pick_lane(struct net_peer *peer, size_t bytes)
{
    struct net_lane *best = NULL;
    uint64_t best_bytes = UINT64_MAX;
    bool look = peer->n_up > 1 && bytes >= LOOK_BYTES;
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        struct net_lane *lane = peer->lanes[i];
        if (!lane || lane->state != NET_LANE_UP || lane_out_full(&lane->lane) || lane->lane.blocked) continue;
        if (look) lane_look(&lane->lane);
        uint64_t waiting = lane->lane.unacked_bytes + lane->lane.queued_bytes;
        if (waiting >= best_bytes || !lane_has_room(&lane->lane, bytes)) continue;
        best = lane;
        best_bytes = lane->lane.unacked_bytes + lane->lane.queued_bytes;
    }
    return best;
}

/* Cuts the next chunk of the link and gives it to a lane; false when no lane has room. */
static bool send_chunk(struct net_link *l)
{
    uint64_t published = atomic_load_explicit(&l->published, memory_order_acquire);
    uint32_t n_slots = l->base.n_slots;
    const struct net_slot *slot = &l->slots[l->assigned % n_slots];
    uint64_t left_bytes = slot->bytes - l->assigned_bytes;
    uint32_t bytes = chunk_bytes_now(l, left_bytes, published - l->assigned - 1);
    struct net_lane *lane = pick_lane(l->peer, FRAME_BYTES + bytes);
    if (!lane) return false;
    struct frame frame = {
        .type = FRAME_DATA, .first_grain = (uint16_t)(l->assigned_bytes / l->grain_bytes), .link = l->remote,
        .sequence = (uint32_t)l->assigned, .payload_bytes = bytes, .slot_bytes = slot->bytes,
        .signature = slot->signature,
    };
    piggyback(l->peer, &frame);
    const uint8_t *payload = l->memory + (l->assigned % n_slots) * l->stride_bytes + l->assigned_bytes;
    if (lane_queue(&lane->lane, &frame, payload, l)) l->frames_out++;
    l->assigned_bytes += bytes;
    l->turn_bytes += FRAME_BYTES + bytes;
    if (l->assigned_bytes == slot->bytes) {
        l->assigned++;
        l->assigned_bytes = 0;
    }
    return true;
}

/* Fills the lanes' queues with what they have room for. */
static void fill(struct net_peer *peer)
{
    while (peer->ring_first) {
        struct net_link *l = peer->ring_first;
        if (!send_control(l)) break;
        if (l->wants_open || l->wants_accept || l->wants_refuse || l->wants_close) continue;
        if (!link_has_data(l)) {
            ring_pop(peer);
            if (l->closed) link_free_if_done(l);
            continue;
        }
        if (!send_chunk(l)) break;
        if (l->turn_bytes >= peer->net->config.chunk_bytes && l->ring_next) {
            ring_pop(peer);
            peer_ring(l);
        }
    }
    while (peer->n_urgent > 0) {
        struct net_lane *lane = NULL;
        for (uint32_t i = 0; i < peer->n_lanes && !lane; i++)
            if (peer->lanes[i] && peer->lanes[i]->state == NET_LANE_UP && !lane_out_full(&peer->lanes[i]->lane))
                lane = peer->lanes[i];
        if (!lane) break;
        struct frame frame = {.type = FRAME_CREDIT};
        piggyback(peer, &frame);
        lane_queue(&lane->lane, &frame, NULL, NULL);
    }
}

/* The far end may have said why before it closed. */
static void write_failed(struct net_lane *lane, enum rail_result result)
{
    char why[NET_WHY_BYTES];
    snprintf(why, sizeof why, "%s", rail_last_error());
    while (!lane->said_bye && lane_read(&lane->lane, READ_BUDGET_BYTES) == RAIL_OK) continue;
    peer_lane_ended(lane, lane->said_bye ? RAIL_OK : result, why);
}

/* Offers what is queued to the kernel. *left: something stayed. */
static bool flush(struct net_peer *peer, bool *left)
{
    bool moved = false;
    *left = false;
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        struct net_lane *lane = peer->lanes[i];
        if (!lane || lane->state != NET_LANE_UP || lane->lane.out_count == 0) continue;
        enum rail_result r = lane_write(&lane->lane);
        if (r == RAIL_OK) moved = true;
        if (r != RAIL_OK && r != RAIL_NOT_YET) {
            write_failed(lane, r);
            return true;
        }
        if (lane->lane.out_count > 0) *left = true;
    }
    return moved;
}

bool peer_send(struct net_peer *peer, bool *more)
{
    bool moved = false, left = false;
    *more = false;
    if (peer->leaving || peer->n_up == 0) return false; /* peer_lane_up activates it again */
    /* A queue holds LANE_OUT_FRAMES: many small slots need several fills. Bounded: reading has its turn too. */
    for (int i = 0; i < 8; i++) {
        fill(peer);
        bool sent = flush(peer, &left);
        if (peer->n_up == 0) return true;
        moved |= sent;
        if (!sent || left || (!peer->ring_first && peer->n_urgent == 0)) break;
    }
    *more = left || peer->ring_first || peer->n_urgent > 0;
    return moved;
}

/* ---- reading ---- */

bool peer_read(struct net_lane *lane)
{
    enum rail_result r = lane_read(&lane->lane, READ_BUDGET_BYTES);
    if (r == RAIL_NOT_YET) return false;
    if (lane->said_bye)
        peer_lane_ended(lane, RAIL_OK, "the other process has finished");
    else if (r != RAIL_OK)
        peer_lane_ended(lane, r, rail_last_error());
    return true;
}

/* ---- beginning and end ---- */

enum rail_result peer_lane_up(struct net_lane *lane, int fd, const struct frame_hello *answer)
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
    RAIL_TRY(net_lane_watch(net, lane, fd, true));
    lane_start(&lane->lane, fd, net->config.chunk_bytes, !answer, true);
    if (answer) {
        struct frame frame = {.type = FRAME_HELLO, .payload_bytes = sizeof *answer};
        struct frame_hello wire = frame_hello_swap(*answer);
        lane_queue(&lane->lane, &frame, &wire, NULL);
    }
    lane->state = NET_LANE_UP;
    lane->said_bye = lane->skip = false;
    lane->quiet = 0;
    net->up[net->n_up++] = lane;
    peer->n_up++;
    peer->leaving = false;
    net_lane_hot(net, lane);
    peer_activate(peer);
    RAIL_INFO(RAIL_NET, "lane %u up: %s", lane->index, lane->lane.text);
    return RAIL_OK;
}

static void lane_down(struct net_lane *lane)
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
    peer->n_up--;
    lane_close(&lane->lane);
}

/* Ends what every link of the peer is waiting for. With result RAIL_OK the far end left in good order: ends that never
 * met their counterpart wait for the next set of lanes, the others are over. */
static void links_ended(struct net_peer *peer, enum rail_result result, const char *why)
{
    for (uint32_t i = 0; i < peer->n_places; i++) {
        struct net_link *l = peer->places[i].link;
        if (!l) continue;
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
}

void peer_fail(struct net_peer *peer, enum rail_result result, const char *why)
{
    if (!peer->lost) snprintf(peer->why, sizeof peer->why, "%s", why);
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        if (!peer->lanes[i]) continue;
        net_connect_drop(peer->lanes[i]);
        lane_down(peer->lanes[i]);
    }
    links_ended(peer, result, why);
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

void peer_lane_ended(struct net_lane *lane, enum rail_result result, const char *why)
{
    struct net_peer *peer = lane->peer;
    char text[NET_WHY_BYTES]; /* `why` may be the last error's text, which what follows may overwrite */
    snprintf(text, sizeof text, "%s", why);
    lane_down(lane);
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
     * them. Then the links fail as a whole; nothing can be repaired yet. */
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        struct net_lane *other = peer->lanes[i];
        while (other && other->state == NET_LANE_UP && lane_read(&other->lane, READ_BUDGET_BYTES) == RAIL_OK) continue;
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
        if (!lane_out_full(&lane->lane)) {
            struct frame frame = {.type = FRAME_BYE};
            lane_queue(&lane->lane, &frame, NULL, NULL);
            (void)lane_write(&lane->lane);
        }
        lane_down(lane);
    }
    links_ended(peer, RAIL_E_USAGE, "the network was closed with the last communicator");
}
