/* direct.c - chunks that an RDMA device writes straight into the receiver's slots, instead of through a lane's ring.
 *
 *   receiver                                                     sender
 *   data comes through a ring: registers its slots, GRANT ---->  writes chunks straight there; headers go by the ring
 *   closes, trims, or a device hangs: CLOSE, WITHDRAW ------->   takes no more chunks for it
 *   <------------------------------------------------- RETURN    ... and nothing is out any more on a lane that is up
 *
 * The memory stays registered and mapped until RETURN, or until the set of lanes ends: no write of a lane that works
 * ever finds it gone, which would end the lane and others' work with it.
 *
 * A lane that dies is another matter: its queue pair is taken from the device by a thread (lane/verbs_reaper.c), and may
 * write until then. What it writes is what its sender's slot held, and does no harm as long as slot and grain are the
 * same at both ends: the same bytes that another lane has brought or will bring. So repair goes on at once; what waits
 * is the *credit* for all slots of which something may have been under way (credit_most), as it is credit that lets a
 * slot be used anew. It is given when the queue pair is gone. Where that takes longer than HANGS_NS the grant is
 * withdrawn, and the slots behind the last that may be under way lie in fresh memory, which no device knows
 * (docs/WIRE.md, "Straight into slots"). */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "transport/link/net_state.h"

/* A queue pair that works is gone within a millisecond, one that does not within 0.1 s (verbs_connection.c). */
#define HANGS_NS RAIL_NS_PER_S

static bool is_on(const struct net_peer *peer) { return (peer->features & FRAME_FEATURE_DIRECT) != 0; }

/* ---- the receiver: giving ---- */

void direct_came(struct net_link *l, const struct net_lane *lane, uint32_t bytes)
{
    struct net_direct *d = &l->direct;
    if (!is_on(l->peer) || lane->lane.ops != &lane_verbs_ops || bytes < DIRECT_BYTES_MIN || d->granted || d->barred ||
        l->closed || d->wants_grant)
        return;
    d->wants_grant = true;
    peer_ring(l);
}

/* With every port that lanes of the set are up on. */
static void offer(struct net_link *l, struct frame_grant *grant)
{
    const struct net_peer *peer = l->peer;
    struct frame_key *last = NULL;
    for (uint32_t i = 0; i < peer->n_set; i++) {
        const struct net_lane *lane = peer->lanes[NET_BERTHS * i], *beside = peer->lanes[NET_BERTHS * i + 1];
        if (!lane || lane->state != NET_LANE_UP) lane = beside;
        if (!lane || lane->state != NET_LANE_UP || lane->lane.ops != &lane_verbs_ops) continue;
        uint32_t key;
        if (!lane_memory_offer(&l->registered, peer->net->rails[lane->rail].device_of.port, &key)) {
            RAIL_INFO(RAIL_NET, "link %u -> %u, channel %u: %s does not write straight into its slots: ibv_reg_mr of "
                      "%zu bytes: %s; raise the limit of locked memory (ulimit -l unlimited)", l->base.from, l->base.to,
                      l->base.channel, peer->net->rails[lane->rail].interface.device, l->registered.bytes,
                      strerror(errno));
            l->direct.barred = true; /* not asked again: through the ring it works, too */
            continue;
        }
        if (last && last->key == key && last->first + last->n == i) {
            last->n++;
        } else if (grant->n_keys < FRAME_GRANT_KEYS) {
            last = &grant->keys[grant->n_keys++];
            *last = (struct frame_key){(uint16_t)i, 1, key};
        }
    }
}

static void say_grant(struct net_link *l)
{
    struct net_direct *d = &l->direct;
    struct frame_grant grant = {.address = (uintptr_t)l->memory};
    struct frame frame = {.type = FRAME_GRANT, .link = l->remote, .sequence = l->number, .payload_bytes = sizeof grant};
    d->wants_grant = false;
    if (d->granted || d->barred || !l->memory) return;
    offer(l, &grant);
    if (grant.n_keys == 0) return;
    grant = frame_grant_swap(grant);
    d->granted = control_say(l->peer, &frame, &grant);
}

/* ---- the receiver: taking back ---- */

/* Whether something of its slots may have been written straight that has not been read yet. */
static bool is_exposed(const struct net_link *l)
{
    const struct net_direct *d = &l->direct;
    return d->granted || d->until > atomic_load_explicit(&l->arrived, memory_order_relaxed);
}

static void withdraw(struct net_link *l)
{
    struct net_direct *d = &l->direct;
    if (!d->granted || d->withdrawn || d->wants_withdraw) return;
    d->wants_withdraw = true;
    peer_ring(l);
    net_touch(l->net);
}

/* Nobody writes into it straight, nobody may any more, and nothing has come of a slot that is not whole. */
static bool is_ours_alone(const struct net_link *l)
{
    bool begun = false;
    for (uint32_t i = 0; i < l->base.n_slots; i++) begun |= l->slots[i].started;
    return !begun && !is_exposed(l) && l->direct.credit_most == UINT64_MAX && !l->direct.fresh;
}

bool direct_trims(struct net_link *l)
{
    withdraw(l);
    l->direct.trims = l->direct.granted;
    return is_ours_alone(l);
}

static void say_withdraw(struct net_link *l)
{
    struct frame frame = {.type = FRAME_WITHDRAW, .link = l->remote};
    l->direct.wants_withdraw = !control_say(l->peer, &frame, NULL);
    l->direct.withdrawn = !l->direct.wants_withdraw;
}

/* The slots behind the last that may have been under way on a lane whose device hangs. */
static void renew(struct net_link *l)
{
    struct net_direct *d = &l->direct;
    size_t bytes = l->stride_bytes * l->base.n_slots;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        char why[NET_WHY_BYTES];
        snprintf(why, sizeof why, "mmap of %zu bytes, in the place of slots that a device which hangs may still write "
                 "into: %s", bytes, strerror(errno));
        link_fail(l, RAIL_E_SYSTEM, why);
        return;
    }
    d->fresh = p;
    d->fresh_from = d->credit_most + l->base.n_slots;
    d->credit_most = UINT64_MAX;
    RAIL_INFO(RAIL_NET, "link %u -> %u, channel %u: %zu bytes of slots are replaced: a device has not let go of a lane "
              "that may write there", l->base.from, l->base.to, l->base.channel, bytes);
    link_look(l);
}

uint8_t *direct_slot(const struct net_link *l, uint64_t sequence)
{
    uint8_t *memory = l->direct.fresh && sequence >= l->direct.fresh_from ? l->direct.fresh : l->memory;
    return memory + (sequence % l->base.n_slots) * l->stride_bytes;
}

bool direct_admits(const struct net_link *l, uint64_t sequence)
{
    return l->direct.granted || sequence < l->direct.until;
}

uint64_t direct_credit(const struct net_link *l, uint64_t released)
{
    return released < l->direct.credit_most ? released : l->direct.credit_most;
}

/* ---- the receiver: lanes that end ---- */

/* Until direct_lane_gone(). */
static void hold_credit_back(struct net_peer *peer)
{
    if (peer->n_ghosts++ == 0) peer->ghosts_since_ns = rail_now_ns();
    for (uint32_t i = 0; i < peer->n_places; i++) {
        struct net_link *l = peer->places[i].link;
        if (!l || l->sender || l->closed || l->direct.fresh || !is_exposed(l)) continue;
        uint64_t arrived = atomic_load_explicit(&l->arrived, memory_order_relaxed);
        if (arrived < l->direct.credit_most) l->direct.credit_most = arrived;
    }
}

void direct_lane_ends(struct net_lane *lane)
{
    bool may_write = is_on(lane->peer) && lane->lane.ops == &lane_verbs_ops;
    lane->lane.watcher = may_write ? lane->peer : NULL;
    if (may_write) hold_credit_back(lane->peer);
}

void direct_try_ends(struct net_lane *lane)
{
    struct verbs_connection *c = lane->handshake->verbs;
    if (!c || !is_on(lane->peer)) return;
    verbs_connection_watch(c, &net_sink, lane->peer);
    hold_credit_back(lane->peer);
}

void direct_lane_gone(void *watcher)
{
    struct net_peer *peer = watcher;
    if (--peer->n_ghosts > 0) return;
    for (uint32_t i = 0; i < peer->n_places; i++) {
        struct net_link *l = peer->places[i].link;
        if (!l || l->sender || l->direct.credit_most == UINT64_MAX) continue;
        l->direct.credit_most = UINT64_MAX;
        if (!l->closed) link_look(l);
    }
    net_touch(peer->net); /* credit that was held back goes with the next tick at the latest */
}

bool direct_tick(struct net *net, uint64_t now_ns)
{
    bool waiting = false;
    for (struct net_peer *p = net->peers; p; p = p->next) {
        if (p->n_ghosts == 0) continue;
        bool hangs = now_ns - p->ghosts_since_ns > HANGS_NS;
        for (uint32_t i = 0; i < p->n_places; i++) {
            struct net_link *l = p->places[i].link;
            if (!l || l->sender || l->closed || l->direct.credit_most == UINT64_MAX) continue;
            waiting = true;
            if (!hangs || l->direct.fresh) continue;
            l->direct.barred = true;
            if (l->direct.granted) withdraw(l);
            else renew(l);
        }
    }
    return waiting;
}

/* ---- the sender ---- */

bool direct_place(const struct net_link *l, const struct net_lane *lane, uint32_t bytes, uint64_t offset, uint64_t *to,
                  uint32_t *key)
{
    const struct net_direct *d = &l->direct;
    if (!d->held || d->ended || bytes < DIRECT_BYTES_MIN || lane->lane.ops != &lane_verbs_ops) return false;
    for (uint32_t i = 0; i < d->theirs.n_keys; i++) {
        const struct frame_key *k = &d->theirs.keys[i];
        if (lane->index - k->first >= k->n) continue;
        *to = d->theirs.address + offset;
        *key = k->key;
        return true;
    }
    return false;
}

/* Frames on lanes that are dead do not count: the receiver has heard of their end before, or will, and minds them. */
void direct_look(struct net_link *l)
{
    struct net_direct *d = &l->direct;
    if (!d->held || !d->ended || d->wants_return || l->frames_out > l->frames_left) return;
    d->wants_return = true;
    peer_ring(l);
    net_touch(l->net);
}

void direct_end(struct net_link *l)
{
    struct net_direct *d = &l->direct;
    if (!d->held || d->ended) return;
    d->ended = true;
    d->until = l->assigned + (l->assigned_bytes > 0);
    direct_look(l);
}

static void say_return(struct net_link *l)
{
    struct frame frame = {.type = FRAME_RETURN, .link = l->direct.number, .sequence = (uint32_t)l->direct.until};
    l->direct.wants_return = !control_say(l->peer, &frame, NULL);
    if (!l->direct.wants_return) l->direct.held = l->direct.ended = false;
}

/* ---- both ---- */

bool direct_wishes(const struct net_link *l)
{
    return l->direct.wants_grant || l->direct.wants_withdraw || l->direct.wants_return;
}

void direct_say(struct net_link *l)
{
    if (l->direct.wants_grant) say_grant(l);
    else if (l->direct.wants_withdraw) say_withdraw(l);
    else say_return(l);
}

void direct_closed(struct net_link *l)
{
    l->direct.wants_grant = l->direct.wants_withdraw = false;
    direct_end(l);
}

void direct_set_ended(struct net_link *l)
{
    struct net_direct *d = &l->direct;
    d->granted = d->withdrawn = d->trims = d->held = d->ended = false;
    d->wants_grant = d->wants_withdraw = d->wants_return = false;
    d->until = 0;
}

/* ---- what they say ---- */

enum rail_result direct_heard_grant(struct net_lane *lane, const struct frame *f)
{
    bool late;
    struct net_link *l = peer_link(lane->peer, f->link, &late);
    struct frame_grant grant;
    memcpy(&grant, lane->control, sizeof grant);
    grant = frame_grant_swap(grant);
    if (!l && late) { /* it was closed meanwhile; they wait for an answer */
        struct frame unused = {.type = FRAME_RETURN, .link = f->sequence, .slot_bytes = 1};
        if (control_say(lane->peer, &unused, NULL)) peer_activate(lane->peer);
        return RAIL_OK;
    }
    if (!l || !l->sender || l->remote == 0 || l->direct.held || grant.n_keys == 0 || grant.n_keys > FRAME_GRANT_KEYS)
        return net_violation(&lane->lane, "GRANT for link number %#x", f->link);
    l->direct.theirs = grant;
    l->direct.number = f->sequence;
    l->direct.held = true;
    /* They, or we, are about to close it. */
    if (atomic_load_explicit(&l->failed, memory_order_relaxed) != 0) direct_end(l);
    return RAIL_OK;
}

enum rail_result direct_heard_withdraw(struct net_lane *lane, const struct frame *f)
{
    bool late;
    struct net_link *l = peer_link(lane->peer, f->link, &late);
    if (!l && late) return RAIL_OK; /* its RETURN is under way */
    if (!l || !l->sender) return net_violation(&lane->lane, "WITHDRAW for link number %#x", f->link);
    direct_end(l);
    return RAIL_OK;
}

enum rail_result direct_heard_return(struct net_lane *lane, const struct frame *f)
{
    bool late;
    struct net_link *l = peer_link_or_closed(lane->peer, f->link, &late);
    if (!l && late) return RAIL_OK;
    if (!l || l->sender || !l->direct.granted) return net_violation(&lane->lane, "RETURN for link number %#x", f->link);
    struct net_direct *d = &l->direct;
    uint64_t arrived = atomic_load_explicit(&l->arrived, memory_order_relaxed);
    if (f->slot_bytes == 0) d->until = arrived + (uint64_t)(int64_t)(int32_t)(f->sequence - (uint32_t)arrived);
    if ((int64_t)(d->until - arrived) > (int64_t)l->base.n_slots)
        return net_violation(&lane->lane, "RETURN of link number %#x names slot %u", f->link, f->sequence);
    /* Its owner reads none when it has released all that has arrived. */
    bool idle = atomic_load_explicit(&l->released, memory_order_acquire) == arrived;
    bool trims = d->trims;
    d->granted = d->withdrawn = d->trims = false;
    if (l->closed) (void)link_free_if_done(l);
    else if (trims && idle && is_ours_alone(l)) link_give_pages_back(l);
    return RAIL_OK;
}
