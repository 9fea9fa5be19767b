/* lent.c - slots whose content is not in them but in memory of the program's that is known (known.c): the program lends it
 * until the slot is credited, and chunks go out from there, without a copy.
 *
 *   owner    acquire -- lend ............................................ settled: credited, the memory is the program's again
 *   driver               chunks from known memory, by whichever lane        <- credit; of the last at once (FRAME_PROMPT)
 *
 * The slot keeps its place and its credit. Retention is the known memory; what must go again is read there again. RDMA devices
 * read through a registration of theirs, made at the first chunk and kept as a *region*: NET_REGIONS_MAX of them, then the one
 * that was not used for longest goes, among those that no device is reading. Where a device registers nothing the slot is filled
 * after all.
 *
 * Who gives up before (a call that fails, an abort) takes back what it has lent: what is not credited is copied into its slot,
 * which from there on is one like others; what devices are still reading is waited for, and a lane that keeps it is ended. Memory
 * that is ended is taken back likewise, but nobody waits: its pages stay pinned until the device is through. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "transport/link/net_state.h"

enum { NET_REGIONS_MAX = 64 };

/* A range of known memory as this process's devices know it. Under the drive lock. */
struct net_region {
    struct net_region *next;
    uint64_t number;     /* known.c's */
    uint64_t used;       /* when, in turns of net->regions_turn */
    uint32_t frames;     /* queued for devices, or theirs */
    uint32_t refused;    /* by rail: that device does not register it */
    bool ended;          /* goes with its last frame */
    struct lane_memory registered;
};

static struct net_link *of(struct link *link) { return (struct net_link *)(void *)link; }

/* ---- the owner ---- */

static bool lends(struct link *link, size_t bytes)
{
    const struct net_link *l = of(link);
    return bytes >= l->net->config.lend_least && atomic_load_explicit(&l->peer->lends, memory_order_relaxed) &&
           !atomic_load_explicit(&l->net->abandoned, memory_order_relaxed);
}

/* Under known.c's lock until it is published: who ends that memory finds it. */
static bool lend(struct link *link, const void *at, size_t bytes, uint64_t signature, bool last)
{
    struct net_link *l = of(link);
    struct net_slot *s = &l->slots[link->sequence % link->n_slots];
    if (!lends(link, bytes) || !known_lock(at, bytes, &s->lent)) return false;
    s->prompt = last;
    s->bytes = (uint32_t)bytes;
    s->signature = signature;
    l->lent_until = ++link->sequence;
    atomic_store_explicit(&l->published, link->sequence, memory_order_release);
    known_unlock();
    atomic_fetch_add_explicit(&l->net->lent_slots, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&l->net->lent_bytes, bytes, memory_order_relaxed);
    net_submit(l, true);
    return true;
}

static enum rail_result settled(struct link *link)
{
    struct net_link *l = of(link);
    if (atomic_load_explicit(&l->credited, memory_order_acquire) >= l->lent_until) return RAIL_OK;
    return link_failure(l);
}

/* ---- regions ---- */

static struct net_region *region_of(struct lane_memory *memory)
{
    return (struct net_region *)(void *)((char *)memory - offsetof(struct net_region, registered));
}

static void region_free(struct net *net, struct net_region *region)
{
    struct net_region **at = &net->regions;
    while (*at != region) at = &(*at)->next;
    *at = region->next;
    net->n_regions--;
    lane_memory_forget(&region->registered);
    free(region);
}

static struct net_region *idle_longest(struct net *net)
{
    struct net_region *found = NULL;
    for (struct net_region *r = net->regions; r; r = r->next)
        if (r->frames == 0 && (!found || r->used < found->used)) found = r;
    return found;
}

static struct net_region *region_get(struct net *net, const struct net_lent *lent)
{
    struct net_region *r = net->regions;
    while (r && r->number != lent->number) r = r->next;
    if (!r) {
        struct net_region *oldest = net->n_regions < NET_REGIONS_MAX ? NULL : idle_longest(net);
        if (oldest) region_free(net, oldest);
        if (net->n_regions == NET_REGIONS_MAX || !(r = calloc(1, sizeof *r))) return NULL;
        *r = (struct net_region){.next = net->regions, .number = lent->number,
                                 .registered = {.base = (void *)lent->base, .bytes = lent->bytes}};
        net->regions = r;
        net->n_regions++;
    }
    r->used = ++net->regions_turn;
    return r;
}

static void refused(struct net *net, struct net_region *r, const struct net_rail *rail)
{
    int error = errno;
    r->refused |= 1u << rail->device_of.port->place;
    if (net->lend_refused) return;
    net->lend_refused = true;
    RAIL_INFO(RAIL_NET, "%s does not read %zu bytes of the program's where they lie, so they are copied: ibv_reg_mr: %s; raise the "
              "limit of locked memory (ulimit -l unlimited)", rail->device_of.port->name, r->registered.bytes, strerror(error));
}

/* NULL: that lane's device does not read it. */
static struct net_region *region_for(struct net_link *l, const struct net_lent *lent, const struct net_lane *lane)
{
    const struct net_rail *rail = &l->net->rails[lane->rail];
    struct net_region *r = rail->device_of.port->lends ? region_get(l->net, lent) : NULL;
    if (!r || r->refused >> rail->device_of.port->place & 1) return NULL;
    if (lane_memory_lend(&r->registered, rail->device_of.port)) return r;
    refused(l->net, r, rail);
    return NULL;
}

void lent_sent(struct net_link *l, struct lane_memory *memory)
{
    struct net_region *r = region_of(memory);
    l->lent_out--;
    if (--r->frames == 0 && r->ended) region_free(l->net, r);
}

void lent_clear(struct net *net)
{
    while (net->regions) region_free(net, net->regions);
}

/* ---- the driver: out ---- */

static uint8_t *slot_memory(const struct net_link *l, uint64_t sequence)
{
    return l->memory + (sequence % l->base.n_slots) * l->stride_bytes;
}

static void fill(struct net_link *l, uint64_t sequence)
{
    struct net_slot *s = &l->slots[sequence % l->base.n_slots];
    memcpy(slot_memory(l, sequence), s->lent.at, s->bytes);
    s->lent.at = NULL;
}

const uint8_t *lent_payload(struct net_link *l, const struct net_lane *lane, uint64_t sequence, uint32_t bytes,
                            struct lane_memory **memory)
{
    struct net_slot *s = &l->slots[sequence % l->base.n_slots];
    *memory = NULL;
    if (s->lent.at && lane->lane.ops == &lane_verbs_ops && bytes > LANE_INLINE_BYTES) {
        struct net_region *r = region_for(l, &s->lent, lane);
        if (r) *memory = &r->registered;
        else fill(l, sequence);
    }
    return s->lent.at ? s->lent.at : slot_memory(l, sequence);
}

void lent_queued(struct net_link *l, struct lane *lane, struct lane_memory *memory)
{
    lane_queue_lent(lane, memory);
    region_of(memory)->frames++;
    l->lent_out++;
}

/* ---- taking back ---- */

/* Frames that no wire has taken yet, of slots that are filled: from there instead. */
static void requeue(struct net_link *l, struct lane *lane)
{
    for (uint32_t k = 0; k < lane->out_count; k++) {
        struct lane_out *out = &lane->out[(lane->out_first + k) % LANE_OUT_FRAMES];
        struct frame f;
        frame_decode(&f, out->head);
        if (out->owner != l || out->payload_bytes == 0 || l->slots[f.sequence % l->base.n_slots].lent.at) continue;
        uint8_t *slot = slot_memory(l, f.sequence % l->base.n_slots);
        out->payload = slot + (size_t)f.first_grain * l->grain_bytes;
        if (!out->lent) continue;
        struct lane_memory *memory = out->lent;
        out->lent = NULL;
        lent_sent(l, memory);
    }
}

/* What is not credited; number 0: of all memory. */
static void take_back(struct net_link *l, uint64_t number)
{
    uint64_t published = atomic_load_explicit(&l->published, memory_order_acquire);
    if (!l->memory) return; /* nothing was published */
    for (uint64_t s = atomic_load_explicit(&l->credited, memory_order_relaxed); s < published; s++) {
        const struct net_lent *lent = &l->slots[s % l->base.n_slots].lent;
        if (!lent->at || (number && lent->number != number)) continue;
        fill(l, s);
    }
    for (uint32_t i = 0; i < l->peer->n_lanes; i++)
        if (l->peer->lanes[i] && l->peer->lanes[i]->state == NET_LANE_UP) requeue(l, &l->peer->lanes[i]->lane);
}

void lent_end(struct net *net, uint64_t number)
{
    pthread_mutex_lock(&net->lock);
    for (struct net_peer *p = net->peers; p; p = p->next)
        for (uint32_t i = 0; i < p->n_places; i++)
            if (p->places[i].link && p->places[i].link->sender) take_back(p->places[i].link, number);
    struct net_region *r = net->regions;
    while (r && r->number != number) r = r->next;
    if (r && r->frames == 0) region_free(net, r);
    else if (r) r->ended = true;
    net_unlock(net);
}

/* A device that works needs a round trip; a queue pair that works is gone within 0.1 s of its lane's end (verbs_connection.c). */
#define READ_NS (300 * RAIL_NS_PER_MS)
#define GONE_NS (2 * RAIL_NS_PER_S)

static void end_lanes(struct net_link *l)
{
    for (uint32_t i = 0; i < l->peer->n_lanes; i++) {
        struct net_lane *lane = l->peer->lanes[i];
        if (!lane || lane->state != NET_LANE_UP || lane->lane.lent == 0) continue;
        char why[NET_WHY_BYTES];
        snprintf(why, sizeof why, "%.140s: its device has not read all of a buffer that is taken back", lane->lane.text);
        peer_lane_ended(lane, RAIL_E_REMOTE, why);
    }
}

/* Until no device reads any more of what the link has lent; the lock is held before and after. */
static void await_devices(struct net_link *l, uint64_t began_ns)
{
    struct net *net = l->net;
    bool ended = false;
    while (l->lent_out > 0 && rail_now_ns() - began_ns < GONE_NS) {
        if (!ended && rail_now_ns() - began_ns > READ_NS) {
            ended = true;
            end_lanes(l);
        }
        net_touch(net);
        net_unlock(net);
        if (!net_progress_on(net)) nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
        pthread_mutex_lock(&net->lock);
    }
    if (l->lent_out > 0)
        RAIL_WARN("link %u -> %u, channel %u: a device has not let go of a buffer for %d s; the buffer's pages stay pinned, and what "
                  "it sends of them is dropped by the receiver, or is what the program writes there: look at dmesg", l->base.from,
                  l->base.to, l->base.channel, (int)(GONE_NS / RAIL_NS_PER_S));
}

static void recall(struct link *link, uint64_t began_ns)
{
    struct net_link *l = of(link);
    if (atomic_load_explicit(&l->net->abandoned, memory_order_relaxed) || l->lent_until == 0) return;
    pthread_mutex_lock(&l->net->lock);
    take_back(l, 0);
    await_devices(l, began_ns);
    l->lent_until = 0;
    net_unlock(l->net);
}

const struct link_lending net_lending = {.lends = lends, .lend = lend, .settled = settled, .recall = recall};
