/* net_link.c - one end of a link over the network.
 *
 *   sender    owner:  acquire -- fill -- publish ......................... acquire again when credited
 *             driver:                  cut into chunks -> lanes      <- credit
 *   receiver  driver: chunks -> slot memory, bitmap -> arrived      credit sent ->
 *             owner:                                    wait -- read -- release
 *
 * Owner and driver meet in four counters, each with one writer: published, released (the owner's), arrived, credited (the
 * driver's). A counter is stored with release order after what it announces, and loaded with acquire order before. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/memory.h"
#include "transport/link/net_state.h"

static inline struct net_link *of(struct link *link) { return (struct net_link *)(void *)link; }

/* The owner hears of a failure as often as it asks; the log once. */
__attribute__((cold)) static enum rail_result failure(struct net_link *l)
{
    enum rail_result r = (enum rail_result)atomic_load_explicit(&l->failed, memory_order_acquire);
    if (l->told) return rail_fail_quietly(r, "%s", l->why);
    l->told = true;
    return rail_fail(r, "%s", l->why);
}

enum rail_result link_failure(struct net_link *l)
{
    return atomic_load_explicit(&l->failed, memory_order_relaxed) == 0 ? RAIL_NOT_YET : failure(l);
}

__attribute__((cold)) static enum rail_result abandoned(void)
{
    return rail_fail_quietly(RAIL_E_USAGE, "a communicator made before fork() was used in the child: "
                             "create a new one after fork()");
}

static inline bool is_abandoned(const struct net_link *l)
{
    return atomic_load_explicit(&l->net->abandoned, memory_order_relaxed);
}

enum rail_result link_memory(struct net_link *l)
{
    size_t bytes = l->stride_bytes * l->base.n_slots;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return rail_fail(RAIL_E_SYSTEM, "mmap of %zu bytes for the %u slots of link %u -> %u, channel %u: %s; lower "
                         "NCCL_BUFFSIZE or the number of channels", bytes, l->base.n_slots, l->base.from, l->base.to,
                         l->base.channel, strerror(errno));
    l->memory = p;
    l->registered.base = p;
    l->registered.bytes = bytes;
    return RAIL_OK;
}

static enum rail_result net_acquire(struct link *link, void **slot)
{
    struct net_link *l = of(link);
    if (__builtin_expect(is_abandoned(l), 0)) return abandoned();
    if (__builtin_expect(atomic_load_explicit(&l->failed, memory_order_relaxed) != 0, 0)) return failure(l);
    uint64_t credited = atomic_load_explicit(&l->credited, memory_order_acquire);
    if (link->sequence - credited >= link->n_slots) return RAIL_NOT_YET;
    if (__builtin_expect(!l->memory, 0)) {
        if (!atomic_load_explicit(&l->accepted, memory_order_acquire)) return RAIL_NOT_YET;
        RAIL_TRY(link_memory(l));
    } else if (!atomic_load_explicit(&l->accepted, memory_order_relaxed)) {
        return RAIL_NOT_YET;
    }
    *slot = l->memory + (link->sequence % link->n_slots) * l->stride_bytes;
    return RAIL_OK;
}

static void net_publish(struct link *link, size_t bytes, uint64_t signature)
{
    struct net_link *l = of(link);
    if (is_abandoned(l)) return;
    struct net_slot *s = &l->slots[link->sequence % link->n_slots];
    s->bytes = (uint32_t)bytes;
    s->signature = signature;
    s->lent.at = NULL;
    s->prompt = false;
    link->sequence++;
    atomic_store_explicit(&l->published, link->sequence, memory_order_release);
    net_submit(l, true);
}

static enum rail_result net_wait(struct link *link, const void **slot, size_t *bytes, uint64_t *signature)
{
    struct net_link *l = of(link);
    if (__builtin_expect(is_abandoned(l), 0)) return abandoned();
    if (atomic_load_explicit(&l->arrived, memory_order_acquire) == link->sequence) {
        /* What has arrived is delivered before the news that nothing more will. */
        if (__builtin_expect(atomic_load_explicit(&l->failed, memory_order_acquire) != 0, 0) &&
            atomic_load_explicit(&l->arrived, memory_order_acquire) == link->sequence)
            return failure(l);
        return RAIL_NOT_YET;
    }
    const struct net_slot *s = &l->slots[link->sequence % link->n_slots];
    *slot = s->at;
    *bytes = s->bytes;
    *signature = s->signature;
    return RAIL_OK;
}

static void net_release(struct link *link)
{
    struct net_link *l = of(link);
    if (is_abandoned(l)) return;
    bool prompt = l->slots[link->sequence % link->n_slots].prompt;
    link->sequence++;
    if (prompt) atomic_store_explicit(&l->prompted, link->sequence, memory_order_relaxed);
    atomic_store_explicit(&l->released, link->sequence, memory_order_release);
    uint64_t pending = link->sequence - atomic_load_explicit(&l->credit_sent, memory_order_relaxed);
    net_submit(l, prompt || 2 * pending >= link->n_slots);
}

static bool net_drained(struct link *link)
{
    struct net_link *l = of(link);
    /* Of a failed link nothing more will be credited: nobody should wait for it. */
    if (is_abandoned(l) || atomic_load_explicit(&l->failed, memory_order_relaxed) != 0) return true;
    return atomic_load_explicit(&l->credited, memory_order_acquire) == link->sequence;
}

/* What a device has registered stays with it, whatever the mapping shows: it must not outlive the pages. */
void link_give_pages_back(struct net_link *l)
{
    lane_memory_forget(&l->registered);
    madvise(l->memory, l->stride_bytes * l->base.n_slots, MADV_DONTNEED);
}

/* The mapping stays, so that neither owner nor driver needs to know. What devices of the far end may write into is asked
 * back first, and goes when they have answered. */
static void net_trim(struct link *link)
{
    struct net_link *l = of(link);
    if (is_abandoned(l)) return;
    pthread_mutex_lock(&l->net->lock);
    bool idle = l->sender ? atomic_load(&l->credited) == link->sequence && l->frames_out == 0
                          : atomic_load(&l->arrived) == link->sequence && direct_trims(l);
    if (l->memory && idle) link_give_pages_back(l);
    net_unlock(l->net);
}

static size_t net_resident(const struct link *link)
{
    const struct net_link *l = (const struct net_link *)(const void *)link;
    return l->memory ? rail_memory_resident(l->memory, l->stride_bytes * link->n_slots) : 0;
}

void link_close(struct net_link *l)
{
    struct net *net = l->net;
    net_drive_inbox(net); /* afterwards the link is in nobody's list but the peer's */
    struct net_peer *peer = l->peer;
    l->closed = true;
    l->wake = NULL;
    direct_closed(l);
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        struct net_lane *lane = peer->lanes[i];
        if (!lane || lane->lane.in_owner != l) continue;
        lane->lane.in_owner = NULL;
        lane->lane.in_to = NULL;
        lane->skip = true;
    }
    /* The far end has to hear of it if it can know of this one: it got our OPEN, or we its. */
    bool known = l->remote != 0 || (l->sender && !l->wants_open);
    l->wants_open = l->wants_accept = l->wants_refuse = false;
    l->wants_close = known && (peer->n_up > 0 || peer->repair.alone_ns) && !peer->leaving && l->remote_finished == UINT64_MAX;
    if (l->wants_close) {
        peer_ring(l);
    } else if (link_free_if_done(l)) {
        return;
    }
    net_touch(net);
    atomic_store(&net->kicked, true); /* send it on the way out */
}

static void net_close(struct link *link)
{
    struct net_link *l = of(link);
    if (is_abandoned(l)) return; /* a child's copy: its memory is the parent's business */
    struct net *net = l->net;
    pthread_mutex_lock(&net->lock);
    link_close(l);
    net_unlock(net);
}

static const struct link_ops net_link_ops = {
    .name = "tcp",
    .acquire = net_acquire,
    .publish = net_publish,
    .wait = net_wait,
    .release = net_release,
    .drained = net_drained,
    .trim = net_trim,
    .resident = net_resident,
    .lending = &net_lending,
    .close = net_close,
};

/* ---- the driver's side ---- */

bool link_has_data(const struct net_link *l)
{
    return l->sender && !l->closed && l->remote != 0 && l->remote_finished == UINT64_MAX &&
           atomic_load_explicit(&l->failed, memory_order_relaxed) == 0 &&
           (l->assigned < atomic_load_explicit(&l->published, memory_order_acquire) || l->n_again > 0);
}

void link_wake(struct net_link *l)
{
    if (l->wake) l->wake(l->owner);
}

void link_look(struct net_link *l)
{
    if (atomic_load_explicit(&l->failed, memory_order_relaxed) != 0) return;
    if (l->sender) {
        if (link_has_data(l)) peer_ring(l);
        return;
    }
    uint64_t pending = direct_credit(l, atomic_load_explicit(&l->released, memory_order_acquire)) -
                       atomic_load_explicit(&l->credit_sent, memory_order_relaxed);
    bool prompt = atomic_load_explicit(&l->prompted, memory_order_relaxed) >
                  atomic_load_explicit(&l->credit_sent, memory_order_relaxed);
    if (pending > 0) peer_owe(l, prompt || 2 * pending >= l->base.n_slots);
}

void link_fail(struct net_link *l, enum rail_result result, const char *why)
{
    if (atomic_load_explicit(&l->failed, memory_order_relaxed) != 0) return;
    snprintf(l->why, sizeof l->why, "link %u -> %u, channel %u: %s", l->base.from, l->base.to, l->base.channel, why);
    atomic_store_explicit(&l->failed, result, memory_order_release);
    if (l->acceptor && l->acceptor->ended) l->acceptor->ended(l->acceptor->owner, l->base.from);
    link_wake(l);
}

void link_matched(struct net_link *l, const struct frame_open *open, uint32_t number)
{
    l->remote = number;
    if (open->slot_bytes != l->base.slot_bytes || open->n_slots != l->base.n_slots) {
        char why[160];
        snprintf(why, sizeof why, "the sender has %u slots of %llu bytes, the receiver %u of %zu: set NCCL_BUFFSIZE "
                 "and the channels alike on every rank", open->n_slots, (unsigned long long)open->slot_bytes,
                 l->base.n_slots, l->base.slot_bytes);
        link_fail(l, RAIL_E_REMOTE, why);
        l->wants_refuse = true;
    } else {
        l->grain_bytes = open->grain_bytes;
        l->n_grains = (uint32_t)((open->slot_bytes + open->grain_bytes - 1) / open->grain_bytes);
        l->wants_accept = true;
    }
    peer_ring(l);
}

void link_free(struct net_link *l)
{
    lane_memory_unmap(&l->registered);
    if (l->direct.fresh) munmap(l->direct.fresh, l->stride_bytes * l->base.n_slots);
    free(l->slots);
    free(l->bitmaps);
    free(l->carriers);
    free(l);
}

bool link_free_if_done(struct net_link *l)
{
    if (!l->closed || l->wants_close || l->frames_out > 0 || l->direct.granted || l->direct.held) return false;
    peer_link_remove(l);
    link_free(l);
    return true;
}

/* By an end that is closed from the start and lives until it has said so. */
void link_refuse(struct net_peer *peer, const struct frame_open *open, uint32_t number)
{
    struct net_link *l = aligned_alloc(64, (sizeof *l + 63) / 64 * 64);
    if (!l) return; /* the far end waits on, as it would without our answer */
    memset(l, 0, sizeof *l);
    l->base = (struct link){.ops = &net_link_ops, .from = open->from, .to = open->to, .channel = open->channel};
    l->net = peer->net;
    l->comm_key = open->comm_key;
    l->remote = number;
    l->remote_finished = 0;
    l->closed = true;
    l->wants_refuse = true;
    snprintf(l->why, sizeof l->why, "rank %u has closed its communicator", open->to);
    l->peer = peer;
    if (peer_link_add(peer, l) == RAIL_OK)
        peer_ring(l);
    else
        link_free(l);
}

/* The largest grain that keeps the bitmap bounded; small enough that chunks can shrink. */
static uint32_t grain_for(const struct net *net, size_t slot_bytes)
{
    uint32_t grain_bytes = 16384;
    while (grain_bytes > net->config.chunk_bytes && grain_bytes > NET_GRAIN_BYTES_MIN) grain_bytes /= 2;
    while ((slot_bytes + grain_bytes - 1) / grain_bytes > NET_GRAINS_MAX) grain_bytes *= 2;
    return grain_bytes;
}

/* A grain must fit into a frame, and a frame into a ring (verbs.h). */
#define NET_SLOT_BYTES_MAX_RDMA ((size_t)NET_GRAINS_MAX * (VERBS_RING_BYTES / 4))

static enum rail_result check_request(const struct net *net, const struct net_link_request *q)
{
    bool rdma = false;
    for (uint32_t i = 0; i < net->config.n_rails; i++) rdma |= net->config.rails[i].device[0] != '\0';
    if (rdma && q->slot_bytes > NET_SLOT_BYTES_MAX_RDMA)
        return rail_fail(RAIL_E_ARGUMENT, "net_link_open: slot_bytes is %zu, over RDMA at most %zu: lower NCCL_BUFFSIZE, or set "
                         "NCCL_IB_DISABLE=1", q->slot_bytes, NET_SLOT_BYTES_MAX_RDMA);
    if (q->n_slots < 1 || q->n_slots > NET_SLOTS_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "net_link_open: n_slots is %u, must be 1..%d", q->n_slots, NET_SLOTS_MAX);
    if (q->slot_bytes < 1 || q->slot_bytes > NET_SLOT_BYTES_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "net_link_open: slot_bytes is %zu, must be 1..%zu", q->slot_bytes,
                         NET_SLOT_BYTES_MAX);
    if (q->peer->n_rails > NET_MAX_RAILS)
        return rail_fail(RAIL_E_ARGUMENT, "net_link_open: the peer's address names %u rails, at most %d are possible",
                         q->peer->n_rails, NET_MAX_RAILS);
    return RAIL_OK;
}

struct net_link *link_make(struct net *net, const struct net_link_request *q)
{
    struct net_link *l = aligned_alloc(64, (sizeof *l + 63) / 64 * 64);
    if (!l) return NULL;
    memset(l, 0, sizeof *l);
    l->base = (struct link){.ops = &net_link_ops, .from = q->from, .to = q->to, .channel = q->channel,
                            .n_slots = q->n_slots, .slot_bytes = q->slot_bytes};
    l->net = net;
    l->comm_key = q->comm_key;
    l->home = q->home;
    l->home_when_busy = q->home_when_busy;
    l->sender = q->sender;
    l->grain_bytes = grain_for(net, q->slot_bytes);
    l->stride_bytes = (q->slot_bytes + 63) / 64 * 64;
    l->wake = q->wake;
    l->owner = q->owner;
    l->remote_finished = UINT64_MAX;
    l->direct.credit_most = UINT64_MAX;
    l->words_per_slot = (uint32_t)((q->slot_bytes + NET_GRAIN_BYTES_MIN - 1) / NET_GRAIN_BYTES_MIN + 63) / 64;
    if (l->words_per_slot > NET_GRAINS_MAX / 64) l->words_per_slot = NET_GRAINS_MAX / 64;
    l->slots = calloc(q->n_slots, sizeof *l->slots);
    l->n_grains = (uint32_t)((q->slot_bytes + l->grain_bytes - 1) / l->grain_bytes);
    if (q->sender && net->config.repairs)
        l->carriers = calloc((size_t)q->n_slots * l->n_grains, sizeof *l->carriers);
    if (!q->sender) l->bitmaps = calloc((size_t)q->n_slots * l->words_per_slot, sizeof *l->bitmaps);
    if (!l->slots || (!q->sender && !l->bitmaps) || (q->sender && net->config.repairs && !l->carriers)) {
        link_free(l);
        return NULL;
    }
    return l;
}

static bool same_link(const struct net_link *a, const struct net_link_request *q)
{
    return a && !a->closed && a->comm_key == q->comm_key && a->base.from == q->from && a->base.to == q->to &&
           a->base.channel == q->channel && a->sender == q->sender;
}

/* A receiving end takes the OPEN that came before it. */
static void take_early(struct net_link *l)
{
    struct net_peer *peer = l->peer;
    for (uint32_t i = 0; i < peer->n_early; i++) {
        struct net_early early = peer->early[i];
        if (early.open.comm_key != l->comm_key || early.open.from != l->base.from || early.open.to != l->base.to ||
            early.open.channel != l->base.channel)
            continue;
        peer->early[i] = peer->early[--peer->n_early];
        link_matched(l, &early.open, early.number);
        return;
    }
}

static enum rail_result open_locked(struct net *net, const struct net_link_request *q, struct net_link *l)
{
    bool self = memcmp(q->peer->process, net->process, NET_PROCESS_ID_BYTES) == 0;
    struct net_peer *peer = peer_get(net, q->peer->process, self && !q->sender, true);
    if (!peer) return rail_fail(RAIL_E_SYSTEM, "net_link_open: out of memory");
    if (peer->lost) return rail_fail(RAIL_E_REMOTE, "net_link_open %u -> %u: %s", q->from, q->to, peer->why);
    for (uint32_t i = 0; i < peer->n_places; i++)
        if (same_link(peer->places[i].link, q))
            return rail_fail(RAIL_E_INTERNAL, "net_link_open: link %u -> %u, channel %u is open already", q->from,
                             q->to, q->channel);
    if (q->peer->n_rails > 0) peer_address(peer, q->peer, q->self);
    peer->rings |= q->sender && q->to_acceptor;
    l->peer = peer;
    RAIL_TRY(peer_link_add(peer, l));
    if (l->sender) {
        l->wants_open = true;
        peer_ring(l);
    } else {
        take_early(l);
    }
    net_connect_peer(peer);
    return RAIL_OK;
}

enum rail_result net_link_open_on(struct net *net, const struct net_link_request *q, struct link **out)
{
    RAIL_TRY(check_request(net, q));
    struct net_link *l = link_make(net, q);
    if (!l) return rail_fail(RAIL_E_SYSTEM, "net_link_open: out of memory for the slot table of %u slots", q->n_slots);
    pthread_mutex_lock(&net->lock);
    enum rail_result r = net_listen(net);
    if (r == RAIL_OK) r = open_locked(net, q, l);
    net_touch(net);
    atomic_store(&net->kicked, true); /* send OPEN on the way out */
    net_unlock(net);
    if (r != RAIL_OK) {
        link_free(l);
        return r;
    }
    *out = &l->base;
    return RAIL_OK;
}
