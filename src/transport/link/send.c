/* send.c - what goes out on the lanes to a peer process.
 *
 * A lane takes the next chunk of the link whose turn it is when the lane has room (pull scheduling). What links have to say
 * in order goes through control.c. */
#include <stdio.h>
#include <string.h>

#include "transport/link/net_state.h"

static void say_open(struct net_link *l)
{
    struct frame frame = {.type = FRAME_OPEN, .sequence = l->number, .payload_bytes = sizeof(struct frame_open)};
    struct frame_open open = {
        .comm_key = l->comm_key, .from = l->base.from, .to = l->base.to, .channel = l->base.channel,
        .n_slots = l->base.n_slots, .slot_bytes = l->base.slot_bytes, .grain_bytes = l->grain_bytes,
    };
    open = frame_open_swap(open);
    l->wants_open = !control_say(l->peer, &frame, &open);
}

static void say_close(struct net_link *l)
{
    struct frame frame = {.type = FRAME_CLOSE, .link = l->remote, .sequence = l->number};
    if (l->sender)
        frame.slot_bytes = (uint32_t)l->assigned;
    else if (l->remote != 0)
        credit_put(l, &frame);
    l->wants_close = !control_say(l->peer, &frame, NULL);
}

static bool has_wish(const struct net_link *l)
{
    return l->wants_open || l->wants_accept || l->wants_refuse || l->wants_close || direct_wishes(l);
}

/* The first of its wishes. Out of memory it keeps it; the peer is given up then (mend.c). */
static void say_wish(struct net_link *l)
{
    if (l->wants_open) {
        say_open(l);
    } else if (l->wants_accept) {
        struct frame frame = {.type = FRAME_ACCEPT, .link = l->remote, .sequence = l->number,
                              .slot_bytes = l->base.n_slots};
        l->wants_accept = !control_say(l->peer, &frame, NULL);
    } else if (l->wants_refuse) {
        struct frame frame = {.type = FRAME_REFUSE, .link = l->remote};
        frame.payload_bytes = (uint32_t)strnlen(l->why, FRAME_CONTROL_BYTES_MAX);
        l->wants_refuse = !control_say(l->peer, &frame, l->why);
    } else if (l->wants_close) {
        say_close(l);
    } else {
        direct_say(l);
    }
}

static uint32_t chunk_bytes_at_most(const struct net_link *l, uint64_t left_bytes)
{
    uint64_t chunk_bytes = l->net->config.chunk_bytes / l->grain_bytes * l->grain_bytes;
    if (chunk_bytes == 0) chunk_bytes = l->grain_bytes;
    return (uint32_t)(left_bytes < chunk_bytes ? left_bytes : chunk_bytes);
}

/* Full chunks while there is much; towards the end every lane gets a share. */
static uint32_t chunk_bytes_now(const struct net_link *l, uint64_t left_bytes, uint64_t slots_behind)
{
    uint64_t chunk_bytes = chunk_bytes_at_most(l, UINT32_MAX);
    if (l->peer->n_up > 1 && slots_behind == 0 && left_bytes < chunk_bytes * l->peer->n_up) {
        uint64_t share = (left_bytes + l->peer->n_up - 1) / l->peer->n_up;
        share = (share + l->grain_bytes - 1) / l->grain_bytes * l->grain_bytes;
        if (share < chunk_bytes) chunk_bytes = share;
    }
    return (uint32_t)(left_bytes < chunk_bytes ? left_bytes : chunk_bytes);
}

/* A chunk from this size on is worth a question to the kernel per lane (0.3 us each) before it is committed to one. */
enum { LOOK_BYTES = 4096 };

/* Whether the rates of all lanes are known (route.h, move.c): they are while there is work. */
static bool rates_known(const struct net_peer *peer)
{
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        const struct net_lane *lane = peer->lanes[i];
        bool known = net_takes_frames(lane) && lane->route.known && lane->route.rate_bytes_per_s > 0;
        if (net_takes_frames(lane) && !lane->newcomer && !known) return false;
    }
    return true;
}

static uint64_t fastest(const struct net_peer *peer)
{
    uint64_t rate = 0;
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        const struct net_lane *lane = peer->lanes[i];
        if (net_takes_frames(lane) && lane->route.known && lane->route.rate_bytes_per_s > rate)
            rate = lane->route.rate_bytes_per_s;
    }
    return rate;
}

/* How long until a lane has delivered what it holds and `bytes` more; bytes alone where rates are not known (fastest 0). A
 * newcomer of unknown rate always gets a chunk when it is empty, for it is there to be tried. */
static uint64_t wait_of(const struct net_lane *lane, size_t bytes, uint64_t fastest_bytes_per_s)
{
    uint64_t waiting = lane->lane.unacked_bytes + lane->lane.queued_bytes;
    if (fastest_bytes_per_s == 0) return waiting;
    if (!lane->route.known || lane->route.rate_bytes_per_s == 0) return waiting == 0 ? 0 : UINT64_MAX - 1;
    return route_wait_us(&lane->route, waiting + bytes, fastest_bytes_per_s);
}

/* The lane that will have delivered `bytes` first; NULL: none has room. When the work is bounded by slots that wait for
 * their last chunk, a lane that is three times as fast must hold three times as much. What a lane has acknowledged since it
 * was last looked at must be asked for: with old numbers the lane that was asked last looks emptiest and takes everything
 * up to its bound, one lane after the other instead of all at once. */
static struct net_lane *pick_lane(struct net_peer *peer, size_t bytes)
{
    struct net_lane *best = NULL;
    uint64_t best_wait = UINT64_MAX;
    bool look = peer->n_up > 1 && bytes >= LOOK_BYTES;
    uint64_t fastest_bytes_per_s = look && rates_known(peer) ? fastest(peer) : 0;
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        struct net_lane *lane = peer->lanes[i];
        if (!net_takes_frames(lane) || lane_out_full(&lane->lane) || lane->lane.blocked) continue;
        if (look) lane_look(&lane->lane);
        uint64_t wait = wait_of(lane, bytes, fastest_bytes_per_s);
        if (wait >= best_wait || !lane_has_room(&lane->lane, bytes)) continue;
        best = lane;
        best_wait = wait;
    }
    return best;
}

/* A lane with less than this many per cent of the rate of the fastest does not keep up, however little it holds. Rates of
 * equal lanes differ by some 10 % from one window to the next; a NIC at half rate must not pass. */
enum { KEEPS_UP_PERCENT = 67 };

static bool keeps_up(const struct net_lane *lane, uint64_t fastest_bytes_per_s)
{
    return !lane->route.known || lane->route.rate_bytes_per_s >= fastest_bytes_per_s / 100 * KEEPS_UP_PERCENT;
}

/* The least busy lane on the link's home rail, if it keeps up: it holds less than a full chunk. Then a slot travels whole,
 * in one frame instead of one per rail, and links at home on different rails share all of them out. A rail that is slow or
 * busy keeps its lanes full, and others take what it cannot. */
static struct net_lane *home_lane(const struct net_link *l, size_t bytes)
{
    struct net_peer *peer = l->peer;
    struct net_lane *best = NULL;
    uint64_t best_bytes = peer->net->config.chunk_bytes;
    if (l->home == 0 || peer->n_up < 2 || bytes < LOOK_BYTES) return NULL;
    uint64_t fastest_bytes_per_s = fastest(peer);
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        struct net_lane *lane = peer->lanes[i];
        if (!net_takes_frames(lane)) continue;
        lane_look(&lane->lane);
        uint64_t waiting = lane->lane.unacked_bytes + lane->lane.queued_bytes;
        bool at_home = peer->here[lane->rail] == l->home;
        if (!at_home && waiting == 0 && l->home_when_busy) return NULL;
        if (!at_home || lane_out_full(&lane->lane) || lane->lane.blocked || !keeps_up(lane, fastest_bytes_per_s)) continue;
        if (waiting >= best_bytes || !lane_has_room(&lane->lane, bytes)) continue;
        best = lane;
        best_bytes = waiting;
    }
    return best;
}

/* Queues the run of grains from first_grain on as one chunk. */
static void queue_chunk(struct net_link *l, struct net_lane *lane, uint64_t sequence, uint32_t first_grain, uint32_t bytes)
{
    uint32_t n_slots = l->base.n_slots;
    const struct net_slot *slot = &l->slots[sequence % n_slots];
    struct frame frame = {
        .type = FRAME_DATA, .first_grain = (uint16_t)first_grain, .link = l->remote, .sequence = (uint32_t)sequence,
        .payload_bytes = bytes, .slot_bytes = slot->bytes, .signature = slot->signature,
    };
    uint64_t offset = (sequence % n_slots) * l->stride_bytes + (uint64_t)first_grain * l->grain_bytes, to;
    uint32_t key;
    struct lane_memory *lent;
    const uint8_t *payload = lent_payload(l, lane, sequence, bytes, &lent) + (size_t)first_grain * l->grain_bytes;
    bool direct = direct_place(l, lane, bytes, offset, &to, &key);
    frame.flags = (uint8_t)((direct ? FRAME_DIRECT : 0) | (slot->prompt ? FRAME_PROMPT : 0));
    credit_ride(l->peer, &frame);
    if (lane_queue(&lane->lane, &frame, payload, l)) l->frames_out++;
    if (lent) lent_queued(l, &lane->lane, lent);
    if (direct) lane_queue_direct(&lane->lane, to, key);
    carriage_carries(l, sequence, first_grain, link_grains(l, bytes), lane);
    l->turn_bytes += FRAME_BYTES + bytes;
}

/* What a dead lane took along goes first: the receiver waits for it. */
static bool send_again(struct net_link *l, uint64_t sequence, uint32_t first_grain, uint32_t n_grains)
{
    uint32_t slot_bytes = l->slots[sequence % l->base.n_slots].bytes, offset_bytes = first_grain * l->grain_bytes;
    uint64_t left_bytes = (uint64_t)n_grains * l->grain_bytes;
    if (left_bytes > slot_bytes - offset_bytes) left_bytes = slot_bytes - offset_bytes;
    uint32_t bytes = chunk_bytes_at_most(l, left_bytes);
    struct net_lane *lane = pick_lane(l->peer, FRAME_BYTES + bytes);
    if (lane) queue_chunk(l, lane, sequence, first_grain, bytes);
    return lane != NULL;
}

/* Cuts the next chunk of the link and gives it to a lane; false when no lane has room. */
static bool send_chunk(struct net_link *l)
{
    uint64_t sequence;
    uint32_t first_grain, n_grains;
    if (l->n_again > 0 && carriage_next(l, &sequence, &first_grain, &n_grains))
        return send_again(l, sequence, first_grain, n_grains);
    uint64_t published = atomic_load_explicit(&l->published, memory_order_acquire);
    if (l->assigned == published) return true; /* what was to be sent again has been credited */
    const struct net_slot *slot = &l->slots[l->assigned % l->base.n_slots];
    uint64_t left_bytes = slot->bytes - l->assigned_bytes;
    uint32_t bytes = chunk_bytes_at_most(l, left_bytes);
    struct net_lane *lane = home_lane(l, FRAME_BYTES + bytes);
    if (!lane) {
        bytes = chunk_bytes_now(l, left_bytes, published - l->assigned - 1);
        lane = pick_lane(l->peer, FRAME_BYTES + bytes);
    }
    if (!lane) return false;
    queue_chunk(l, lane, l->assigned, l->assigned_bytes / l->grain_bytes, bytes);
    l->assigned_bytes += bytes;
    if (l->assigned_bytes == slot->bytes) {
        l->assigned++;
        l->assigned_bytes = 0;
    }
    return true;
}

/* Credit, or an acknowledgement, that has waited long enough for something to ride on. */
static void send_alone(struct net_peer *peer)
{
    while (peer->n_urgent > 0 || control_owes(peer)) {
        struct net_lane *lane = NULL;
        for (uint32_t i = 0; i < peer->n_lanes && !lane; i++)
            if (net_takes_frames(peer->lanes[i]) && !lane_out_full(&peer->lanes[i]->lane))
                lane = peer->lanes[i];
        if (!lane) break;
        struct frame frame = {.type = FRAME_CREDIT, .signature = control_acknowledge(peer)};
        credit_ride(peer, &frame);
        lane_queue(&lane->lane, &frame, NULL, NULL);
    }
}

/* Fills the lanes' queues with what they have room for. */
static void fill(struct net_peer *peer)
{
    (void)control_send(peer);
    while (peer->ring_first) {
        struct net_link *l = peer->ring_first;
        if (has_wish(l)) {
            say_wish(l);
            if (peer->torn) break;
            (void)control_send(peer);
            continue;
        }
        if (!link_has_data(l)) {
            turn_ended(peer);
            if (l->closed) link_free_if_done(l);
            continue;
        }
        if (!send_chunk(l)) break;
        if (l->turn_bytes >= peer->net->config.chunk_bytes && l->ring_next) {
            turn_ended(peer);
            peer_ring(l);
        }
    }
    send_alone(peer);
}

/* The far end may have said why before it closed. */
static void write_failed(struct net_lane *lane, enum rail_result result)
{
    char why[NET_WHY_BYTES];
    snprintf(why, sizeof why, "%s", rail_own_error());
    while (!lane->said_bye && lane_read(&lane->lane, NET_READ_BYTES) == RAIL_OK) continue;
    if (move_is_left(lane)) {
        peer_lane_left(lane);
        return;
    }
    peer_lane_ended(lane, lane->said_bye ? RAIL_OK : result, why);
}

/* Offers what is queued to the kernel. *left: something stayed. */
static bool flush(struct net_peer *peer, bool *left)
{
    bool moved = false;
    *left = false;
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        struct net_lane *lane = peer->lanes[i];
        if (!lane || lane->state != NET_LANE_UP) continue;
        if (lane->leaving && !move_say_leave(lane)) *left = true;
        if (lane->lane.out_count == 0) continue;
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

static bool has_more(const struct net_peer *peer)
{
    return peer->ring_first || peer->n_urgent > 0 || peer->n_said < peer->n_says;
}

bool peer_send(struct net_peer *peer, bool *more)
{
    bool moved = false, left = false;
    *more = false;
    if (peer->heard_down) mend_look(peer);
    if (peer->leaving || peer->n_up == 0) return false; /* peer_lane_up activates it again */
    /* A queue holds LANE_OUT_FRAMES: many small slots need several fills. Bounded: reading has its turn too. */
    for (int i = 0; i < 8; i++) {
        fill(peer);
        bool sent = flush(peer, &left);
        if (peer->n_up == 0) return true;
        moved |= sent;
        if (!sent || left || !has_more(peer)) break;
    }
    *more = left || has_more(peer);
    return moved;
}
