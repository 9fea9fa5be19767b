/* receive.c - frames that arrive: checked against what the link allows before anything is believed, then entered into
 * the slot's bitmap, or taken as credit or control. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transport/link/net_state.h"

#define REMEDY "; all ranks must make the same calls in the same order"
#define SENDER_CLOSED "the sender has closed its end" REMEDY

#define violation net_violation

enum rail_result net_violation(struct lane *lane, const char *format, ...)
{
    char what[160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    lane->broke_rule = true;
    return rail_fail_quietly(RAIL_E_REMOTE, "%s: protocol error: %s; the connection is closed", lane->text, what);
}

static inline struct net_lane *above(struct lane *lane) { return lane->user; }

/* Marks grains; returns how many of them were marked before. */
static uint32_t mark(uint64_t *bitmap, uint32_t first, uint32_t count, bool only_look)
{
    uint32_t before = 0;
    for (uint32_t i = first; i < first + count; i++) {
        uint64_t bit = 1ull << (i % 64);
        before += (bitmap[i / 64] & bit) != 0;
        if (!only_look) bitmap[i / 64] |= bit;
    }
    return before;
}

/* ---- credit ---- */

static enum rail_result take_credit(struct lane *lane, uint32_t number, uint32_t sequence)
{
    bool late;
    struct net_link *l = peer_link(above(lane)->peer, number, &late);
    if (!l) return late ? RAIL_OK : violation(lane, "credit for link number %#x, which never was", number);
    if (!l->sender) return violation(lane, "credit for link number %#x, which receives", number);
    uint64_t credited = atomic_load_explicit(&l->credited, memory_order_relaxed);
    int32_t more = (int32_t)(sequence - (uint32_t)credited);
    if (more <= 0) return RAIL_OK; /* lanes overtake one another: newer credit came first */
    if ((uint32_t)more > l->assigned - credited)
        return violation(lane, "credit for %d slots of link number %#x, of which %llu are out", more, number,
                         (unsigned long long)(l->assigned - credited));
    atomic_store_explicit(&l->credited, credited + (uint32_t)more, memory_order_release);
    link_wake(l);
    return RAIL_OK;
}

/* ---- data ---- */

static enum rail_result check_chunk(struct lane *lane, const struct net_link *l, const struct frame *f)
{
    uint64_t offset = (uint64_t)f->first_grain * l->grain_bytes;
    if (f->slot_bytes > l->base.slot_bytes)
        return violation(lane, "a slot of %u bytes on a link of %zu", f->slot_bytes, l->base.slot_bytes);
    if (offset + f->payload_bytes > f->slot_bytes)
        return violation(lane, "a chunk of %u bytes at %llu in a slot of %u", f->payload_bytes,
                         (unsigned long long)offset, f->slot_bytes);
    bool last = offset + f->payload_bytes == f->slot_bytes;
    if ((f->payload_bytes % l->grain_bytes != 0 && !last) || (f->payload_bytes == 0 && f->slot_bytes != 0))
        return violation(lane, "a chunk of %u bytes at %llu in a slot of %u is not whole grains of %u",
                         f->payload_bytes, (unsigned long long)offset, f->slot_bytes, l->grain_bytes);
    if (f->sequence - (uint32_t)atomic_load_explicit(&l->credit_sent, memory_order_relaxed) >= l->base.n_slots &&
        (int32_t)(f->sequence - (uint32_t)atomic_load_explicit(&l->arrived, memory_order_relaxed)) >= 0)
        return violation(lane, "slot %u on a link of %u slots that gave credit to %u", f->sequence, l->base.n_slots,
                         (uint32_t)atomic_load_explicit(&l->credit_sent, memory_order_relaxed) + l->base.n_slots - 1);
    return RAIL_OK;
}

static struct net_slot *slot_of(struct net_link *l, const struct frame *f, uint64_t *sequence)
{
    uint64_t arrived = atomic_load_explicit(&l->arrived, memory_order_relaxed);
    *sequence = arrived + (f->sequence - (uint32_t)arrived);
    return &l->slots[*sequence % l->base.n_slots];
}

static enum rail_result begin_data(struct lane *lane, const struct frame *f, void **to)
{
    bool late;
    struct net_link *l = peer_link(above(lane)->peer, f->link, &late);
    above(lane)->skip = true;
    if (!l && late) {
        atomic_fetch_add_explicit(&above(lane)->peer->net->late_frames, 1, memory_order_relaxed);
        return RAIL_OK;
    }
    if (!l) return violation(lane, "data for link number %#x, which never was", f->link);
    if (l->sender || l->remote == 0) return violation(lane, "data for link number %#x, which takes none", f->link);
    if (f->payload_bytes > 0) direct_came(l, above(lane), f->payload_bytes);
    if (atomic_load_explicit(&l->failed, memory_order_relaxed) != 0) return RAIL_OK;
    RAIL_TRY(check_chunk(lane, l, f));
    uint64_t sequence;
    struct net_slot *slot = slot_of(l, f, &sequence);
    bool old = (int32_t)(f->sequence - (uint32_t)atomic_load_explicit(&l->arrived, memory_order_relaxed)) < 0;
    if (!old && (f->flags & FRAME_DIRECT) && !direct_admits(l, sequence))
        return violation(lane, "a chunk of slot %u was written straight into it, which was not granted", f->sequence);
    uint64_t *bitmap = l->bitmaps + (sequence % l->base.n_slots) * l->words_per_slot;
    if (!old && slot->started) {
        if (slot->bytes != f->slot_bytes || slot->signature != f->signature)
            return violation(lane, "chunks of slot %u disagree on its size or signature", f->sequence);
        uint32_t marked = mark(bitmap, f->first_grain, link_grains(l, f->payload_bytes), true);
        old = slot->complete || (marked > 0 && marked == link_grains(l, f->payload_bytes));
        if (marked > 0 && !old) return violation(lane, "chunks of slot %u overlap", f->sequence);
    }
    if (old) {
        atomic_fetch_add_explicit(&above(lane)->peer->net->duplicate_chunks, 1, memory_order_relaxed);
        return RAIL_OK;
    }
    if (!l->memory && link_memory(l) != RAIL_OK) {
        link_fail(l, RAIL_E_SYSTEM, rail_last_error());
        return RAIL_OK;
    }
    if (!slot->started) {
        slot->started = true;
        slot->complete = false;
        slot->bytes = f->slot_bytes;
        slot->signature = f->signature;
        slot->prompt = (f->flags & FRAME_PROMPT) != 0;
        slot->received_bytes = 0;
        slot->at = direct_slot(l, sequence);
        memset(bitmap, 0, l->words_per_slot * sizeof *bitmap);
    }
    above(lane)->skip = false;
    lane->in_owner = l;
    *to = slot->at + (size_t)f->first_grain * l->grain_bytes;
    return RAIL_OK;
}

static void end_data(struct lane *lane, const struct frame *f)
{
    struct net_link *l = lane->in_owner;
    if (above(lane)->skip || !l) return;
    uint64_t sequence;
    struct net_slot *slot = slot_of(l, f, &sequence);
    slot->received_bytes += f->payload_bytes;
    if (slot->received_bytes < slot->bytes) {
        mark(l->bitmaps + (sequence % l->base.n_slots) * l->words_per_slot, f->first_grain,
             link_grains(l, f->payload_bytes), false);
        return;
    }
    slot->complete = true;
    uint64_t arrived = atomic_load_explicit(&l->arrived, memory_order_relaxed);
    if (sequence != arrived) return;
    while (l->slots[arrived % l->base.n_slots].complete) {
        struct net_slot *s = &l->slots[arrived % l->base.n_slots];
        s->started = s->complete = false;
        if (l->acceptor) accept_deliver(l, s, s->at);
        arrived++;
    }
    atomic_store_explicit(&l->arrived, arrived, memory_order_release);
    if (l->acceptor) {
        atomic_store_explicit(&l->released, arrived, memory_order_release);
        link_look(l);
        net_touch(l->net); /* no owner's release will: the credit must not wait for the next news */
    }
    if (l->remote_finished != UINT64_MAX && arrived >= l->remote_finished)
        link_fail(l, RAIL_E_REMOTE, SENDER_CLOSED);
    else
        link_wake(l);
}

/* ---- control ---- */

static enum rail_result end_open(struct lane *lane, const struct frame *f)
{
    struct net_peer *peer = above(lane)->peer;
    struct frame_open open;
    memcpy(&open, above(lane)->control, sizeof open);
    open = frame_open_swap(open);
    uint32_t grain = open.grain_bytes;
    if (f->sequence == 0 || open.n_slots == 0 || open.n_slots > NET_SLOTS_MAX || open.slot_bytes == 0 ||
        open.slot_bytes > NET_SLOT_BYTES_MAX)
        return violation(lane, "OPEN of %u slots of %llu bytes", open.n_slots, (unsigned long long)open.slot_bytes);
    if (grain < NET_GRAIN_BYTES_MIN || (grain & (grain - 1)) != 0 ||
        (open.slot_bytes + grain - 1) / grain > NET_GRAINS_MAX)
        return violation(lane, "OPEN with grains of %u bytes for slots of %llu", grain,
                         (unsigned long long)open.slot_bytes);
    for (uint32_t i = 0; i < peer->n_places; i++) {
        struct net_link *l = peer->places[i].link;
        if (!l || l->sender || l->closed || l->comm_key != open.comm_key || l->base.from != open.from ||
            l->base.to != open.to || l->base.channel != open.channel)
            continue;
        if (l->remote != 0) return violation(lane, "OPEN of a link that is open, %u -> %u", open.from, open.to);
        link_matched(l, &open, f->sequence);
        return RAIL_OK;
    }
    if (net_comm_gone(peer->net, open.comm_key)) {
        link_refuse(peer, &open, f->sequence);
        return RAIL_OK;
    }
    if (accept_open(peer, &open, f->sequence)) return RAIL_OK;
    if (peer->n_early == peer->early_room) {
        uint32_t room = peer->early_room ? 2 * peer->early_room : 16;
        struct net_early *early = room > NET_EARLY_MAX ? NULL : realloc(peer->early, room * sizeof *early);
        if (!early) return violation(lane, "%u OPENs without a receiving end", peer->n_early);
        peer->early = early;
        peer->early_room = room;
    }
    peer->early[peer->n_early++] = (struct net_early){open, f->sequence};
    return RAIL_OK;
}

static enum rail_result end_accept(struct lane *lane, const struct frame *f)
{
    bool late;
    struct net_link *l = peer_link(above(lane)->peer, f->link, &late);
    if (!l && late) return RAIL_OK;
    if (!l || !l->sender || l->remote != 0 || f->sequence == 0)
        return violation(lane, "ACCEPT for link number %#x", f->link);
    if (f->slot_bytes != l->base.n_slots) return violation(lane, "ACCEPT with credit for %u slots", f->slot_bytes);
    l->remote = f->sequence;
    atomic_store_explicit(&l->accepted, true, memory_order_release);
    link_wake(l);
    return RAIL_OK;
}

static enum rail_result end_refuse(struct lane *lane, const struct frame *f)
{
    bool late;
    struct net_link *l = peer_link(above(lane)->peer, f->link, &late);
    if (!l) return late ? RAIL_OK : violation(lane, "REFUSE for link number %#x", f->link);
    char why[FRAME_CONTROL_BYTES_MAX + 1];
    memcpy(why, above(lane)->control, f->payload_bytes);
    why[f->payload_bytes] = '\0';
    for (char *c = why; *c; c++)
        if (*c < ' ' || *c > '~') *c = '?';
    link_fail(l, RAIL_E_REMOTE, why);
    return RAIL_OK;
}

static void far_end_closed(struct net_link *l, const struct frame *f)
{
    if (l->sender) {
        l->remote_finished = 0;
        if (atomic_load(&l->credited) == atomic_load(&l->published))
            link_fail(l, RAIL_E_REMOTE, "the receiver has closed its end" REMEDY);
        else
            link_fail(l, RAIL_E_REMOTE, "the receiver has closed its end before taking all slots");
        direct_end(l);
        return;
    }
    uint64_t arrived = atomic_load_explicit(&l->arrived, memory_order_relaxed);
    int32_t more = (int32_t)(f->slot_bytes - (uint32_t)arrived);
    l->remote_finished = more > 0 ? arrived + (uint32_t)more : arrived;
    if (more <= 0) link_fail(l, RAIL_E_REMOTE, SENDER_CLOSED);
}

static enum rail_result end_close(struct lane *lane, const struct frame *f)
{
    struct net_peer *peer = above(lane)->peer;
    bool late = false;
    struct net_link *l = f->link ? peer_link(peer, f->link, &late) : NULL;
    if (l) {
        far_end_closed(l, f);
        return RAIL_OK;
    }
    if (f->link != 0) return late ? RAIL_OK : violation(lane, "CLOSE for link number %#x, which never was", f->link);
    /* Closed before ACCEPT reached it. */
    for (uint32_t i = 0; i < peer->n_early; i++)
        if (peer->early[i].number == f->sequence) {
            peer->early[i] = peer->early[--peer->n_early];
            return RAIL_OK;
        }
    for (uint32_t i = 0; i < peer->n_places; i++) {
        l = peer->places[i].link;
        if (l && !l->sender && !l->closed && l->remote == f->sequence) far_end_closed(l, f);
    }
    return RAIL_OK;
}

/* ---- the sink ---- */

static const struct { uint32_t least, most; } control_bytes[] = {
    [FRAME_OPEN] = {sizeof(struct frame_open), sizeof(struct frame_open)},
    [FRAME_ACCEPT] = {0, 0},
    [FRAME_REFUSE] = {0, FRAME_CONTROL_BYTES_MAX},
    [FRAME_DATA] = {0, NET_CHUNK_BYTES_MAX},
    [FRAME_CREDIT] = {0, 0},
    [FRAME_CLOSE] = {0, 0},
    [FRAME_BYE] = {0, 0},
    [FRAME_LANE_DOWN] = {0, 0},
    [FRAME_BITMAPS] = {0, NET_GRAINS_MAX / 8},
    [FRAME_ASK] = {0, 0},
    [FRAME_OPINION] = {0, 0},
    [FRAME_LEAVE] = {0, 0},
    [FRAME_GRANT] = {sizeof(struct frame_grant), sizeof(struct frame_grant)},
    [FRAME_WITHDRAW] = {0, 0},
    [FRAME_RETURN] = {0, 0},
};

/* What is reserved, or belongs to a feature that is not in force, is as unknown as any other number. */
static bool is_known(const struct net_peer *peer, uint8_t type)
{
    if (type >= FRAME_ASK && type <= FRAME_LEAVE) return (peer->features & FRAME_FEATURE_ROUTES) != 0;
    if (type == FRAME_LANE_DOWN || type == FRAME_BITMAPS) return net_mends(peer);
    if (type >= FRAME_GRANT && type <= FRAME_RETURN) return (peer->features & FRAME_FEATURE_DIRECT) != 0;
    return type >= FRAME_OPEN && type <= FRAME_BYE;
}

static bool flags_known(struct lane *lane, const struct frame *f)
{
    if (f->flags == 0) return true;
    if (f->type != FRAME_DATA || (f->flags & ~(FRAME_DIRECT | FRAME_PROMPT))) return false;
    if ((f->flags & FRAME_PROMPT) && !(above(lane)->peer->features & FRAME_FEATURE_PROMPT)) return false;
    return !(f->flags & FRAME_DIRECT) || (lane->ops == &lane_verbs_ops && f->payload_bytes > 0);
}

static enum rail_result sink_begin(struct lane *lane, const struct frame *f, void **to)
{
    if (!is_known(above(lane)->peer, f->type) || !flags_known(lane, f))
        return violation(lane, "frame type %u with flags %#x", f->type, f->flags);
    if (above(lane)->heard_leave) return violation(lane, "frame type %u after LEAVE", f->type);
    if (f->payload_bytes < control_bytes[f->type].least || f->payload_bytes > control_bytes[f->type].most)
        return violation(lane, "%u bytes in a frame of type %u", f->payload_bytes, f->type);
    if (f->credit_link != 0) RAIL_TRY(take_credit(lane, f->credit_link, f->credit_sequence));
    if (f->type == FRAME_DATA) return begin_data(lane, f, to);
    *to = above(lane)->control;
    return RAIL_OK;
}

/* What must come in order: whatever a lane that died had brought already comes again on another one, and is skipped. */
static enum rail_result end_control(struct lane *lane, const struct frame *f)
{
    enum rail_result turn = control_admit(lane, f);
    if (turn != RAIL_OK) return turn == RAIL_NOT_YET ? RAIL_OK : turn;
    switch ((enum frame_type)f->type) {
    case FRAME_OPEN: return end_open(lane, f);
    case FRAME_ACCEPT: return end_accept(lane, f);
    case FRAME_REFUSE: return end_refuse(lane, f);
    case FRAME_BITMAPS: return mend_heard_bitmaps(above(lane), f);
    case FRAME_LANE_DOWN: return mend_heard_down(above(lane), f);
    case FRAME_GRANT: return direct_heard_grant(above(lane), f);
    case FRAME_WITHDRAW: return direct_heard_withdraw(above(lane), f);
    case FRAME_RETURN: return direct_heard_return(above(lane), f);
    default: return end_close(lane, f);
    }
}

static enum rail_result sink_end(struct lane *lane, const struct frame *f)
{
    switch ((enum frame_type)f->type) {
    case FRAME_DATA: end_data(lane, f); return RAIL_OK;
    case FRAME_CREDIT: /* the credit was taken with the header */
        RAIL_TRY(control_heard_ack(lane, f));
        return suspect_asked(above(lane), f);
    case FRAME_BYE: above(lane)->said_bye = true; return RAIL_OK;
    case FRAME_ASK: return move_asked(above(lane), f);
    case FRAME_OPINION: return move_opinion(above(lane), f);
    case FRAME_LEAVE: return move_heard_leave(above(lane), f);
    default: return end_control(lane, f);
    }
}

static void sink_sent(struct lane *lane, void *owner, struct lane_memory *lent)
{
    struct net_link *l = owner;
    l->frames_out--;
    if (lent) lent_sent(l, lent);
    if (!lane) l->frames_left--; /* told to sink_left before */
    direct_look(l);
    if (l->closed) link_free_if_done(l);
}

static void sink_left(struct lane *lane, void *owner)
{
    (void)lane;
    struct net_link *l = owner;
    l->frames_left++;
    direct_look(l);
}

static struct lane_memory *sink_memory(struct lane *lane, void *owner)
{
    (void)lane;
    struct net_link *l = owner;
    return &l->registered;
}

const struct lane_sink net_sink = {.begin = sink_begin, .end = sink_end, .sent = sink_sent, .left = sink_left,
                                   .gone = direct_lane_gone, .memory = sink_memory};
