/* shm_link.c - slots in shared memory. published counts what the sender has finished, released what the receiver has
 * freed; a slot is sequence modulo n_slots. Each side keeps its own sequence and reads the other's counter only when
 * the copy it remembers does not suffice: a cache line moves once per hand-over, not once per look. */
#include "transport/shm/shm_link.h"

#include <stdatomic.h>
#include <stdlib.h>

struct shm_link {
    struct link head;
    const struct shm_segment *segment;
    struct shm_place *place;  /* the sender's is NULL until found */
    unsigned char *slots;
    uint32_t far;             /* the other end */
    uint32_t to_peer;
    uint64_t seen;            /* last value read of the other side's counter */
};

static uint64_t place_key(uint32_t from, uint32_t channel) { return ((uint64_t)from + 1) << 32 | channel; }

static struct shm_link *self(struct link *link) { return (struct shm_link *)(void *)link; }

static unsigned char *slot_at(const struct shm_link *l)
{
    return l->slots + (size_t)(l->head.sequence % l->head.n_slots) * l->head.slot_bytes;
}

static void attach(struct shm_link *l, uint32_t index)
{
    const struct shm_segment *s = l->segment;
    size_t place = (size_t)l->to_peer * shm_places(&s->geometry) + index;
    l->place = &s->places[place];
    l->slots = shm_slots_of(s, l->to_peer, index);
}

static bool find_place(struct shm_link *l)
{
    const struct shm_place *places = &l->segment->places[(size_t)l->to_peer * shm_places(&l->segment->geometry)];
    uint64_t key = place_key(l->head.from, l->head.channel);
    for (uint32_t i = 0; i < shm_places_taken(&l->segment->geometry); i++) {
        if (atomic_load_explicit(&places[i].key, memory_order_acquire) != key) continue;
        attach(l, i);
        return true;
    }
    return false;
}

static enum rail_result take_place(struct shm_link *l)
{
    struct shm_place *places = &l->segment->places[(size_t)l->to_peer * shm_places(&l->segment->geometry)];
    for (uint32_t i = 0; i < shm_places_taken(&l->segment->geometry); i++) {
        if (atomic_load_explicit(&places[i].key, memory_order_relaxed)) continue;
        if (shm_set_of(&l->segment->geometry, i) >= shm_sets(&l->segment->geometry)) break;
        attach(l, i);
        l->place->set = shm_set_of(&l->segment->geometry, i);
        atomic_store_explicit(&places[i].key, place_key(l->head.from, l->head.channel), memory_order_release);
        return RAIL_OK;
    }
    return rail_fail(RAIL_E_USAGE, "rank %u: more than %u links from ranks of its own host; use fewer channels", l->head.to,
                     shm_sets(&l->segment->geometry) - LINK_PAIR_CHANNELS * l->segment->geometry.n_peers);
}

/* The link of a pair: both ends know its place, so the sender need not wait until the receiver has come. */
static void attach_pair(struct shm_link *l, uint32_t from_peer)
{
    const struct shm_geometry *g = &l->segment->geometry;
    attach(l, shm_places_taken(g) + (l->head.channel - LINK_CHANNEL_PAIRS) * g->n_peers + from_peer);
}

static enum rail_result shm_acquire(struct link *link, void **slot)
{
    struct shm_link *l = self(link);
    if (__builtin_expect(!l->place, 0) && !find_place(l)) return RAIL_NOT_YET;
    if (link->sequence - l->seen >= link->n_slots) {
        l->seen = atomic_load_explicit(&l->place->released, memory_order_acquire);
        if (link->sequence - l->seen >= link->n_slots) return RAIL_NOT_YET;
    }
    *slot = slot_at(l);
    return RAIL_OK;
}

static void shm_publish(struct link *link, size_t bytes, uint64_t signature)
{
    struct shm_link *l = self(link);
    l->place->meta[link->sequence % link->n_slots] = (struct shm_slot_meta){bytes, signature};
    atomic_store_explicit(&l->place->published, ++link->sequence, memory_order_release);
    shm_notify(l->segment, l->far);
}

static enum rail_result shm_wait(struct link *link, const void **slot, size_t *bytes, uint64_t *signature)
{
    struct shm_link *l = self(link);
    if (link->sequence >= l->seen) {
        l->seen = atomic_load_explicit(&l->place->published, memory_order_acquire);
        if (link->sequence >= l->seen) return RAIL_NOT_YET;
    }
    __builtin_prefetch(slot_at(l)); /* on its way while meta is */
    struct shm_slot_meta meta = l->place->meta[link->sequence % link->n_slots];
    if (meta.bytes > link->slot_bytes)
        return rail_fail(RAIL_E_INTERNAL, "link %u -> %u: a slot of %llu bytes in slots of %zu", link->from, link->to,
                         (unsigned long long)meta.bytes, link->slot_bytes);
    *slot = slot_at(l);
    *bytes = (size_t)meta.bytes;
    *signature = meta.signature;
    return RAIL_OK;
}

static void shm_release(struct link *link)
{
    struct shm_link *l = self(link);
    atomic_store_explicit(&l->place->released, ++link->sequence, memory_order_release);
    shm_notify(l->segment, l->far);
}

/* What is published stays in the segment for as long as anybody maps it: the sender need not wait for it. */
static bool shm_drained(struct link *link)
{
    (void)link;
    return true;
}

/* The place stays taken: places live as long as the segment, like the links. */
static void shm_close(struct link *link) { free(self(link)); }

static const struct link_ops shm_link_ops = {
    .name = "shm",
    .acquire = shm_acquire,
    .publish = shm_publish,
    .wait = shm_wait,
    .release = shm_release,
    .drained = shm_drained,
    .close = shm_close,
};

bool shm_link_is(const struct link *link) { return link->ops == &shm_link_ops; }

bool shm_link_taken(const struct link *link)
{
    const struct shm_link *l = (const struct shm_link *)(const void *)link;
    return !l->place || atomic_load_explicit(&l->place->released, memory_order_acquire) == link->sequence;
}

struct shm_link_place shm_link_place(const struct link *link)
{
    const struct shm_link *l = (const struct shm_link *)(const void *)link;
    const struct shm_geometry *g = &l->segment->geometry;
    return (struct shm_link_place){
        .place = l->place,
        .slots = l->slots,
        .key = place_key(link->from, link->channel),
        .places = &l->segment->places[(size_t)l->to_peer * shm_places(g)],
        .sets = l->segment->slots + (size_t)l->to_peer * shm_sets(g) * g->n_slots * g->slot_bytes,
        .n_places = shm_places_taken(g),
        .to_peer = l->to_peer,
    };
}

enum rail_result shm_link_open(const struct shm_link_request *r, struct link **out)
{
    const struct shm_segment *s = r->segment;
    struct shm_link *l = calloc(1, sizeof *l);
    if (!l) return rail_fail(RAIL_E_SYSTEM, "link %u -> %u: out of memory", r->from, r->to);
    l->head = (struct link){
        .ops = &shm_link_ops,
        .from = r->from,
        .to = r->to,
        .channel = r->channel,
        .n_slots = s->geometry.n_slots,
        .slot_bytes = s->geometry.slot_bytes,
    };
    l->segment = s;
    l->to_peer = r->to_peer;
    l->far = r->sender ? r->to_peer : r->from_peer;
    bool pair = r->channel >= LINK_CHANNEL_PAIRS;
    if (pair) attach_pair(l, r->from_peer);
    enum rail_result result = r->sender || pair ? RAIL_OK : take_place(l);
    if (result != RAIL_OK) {
        free(l);
        return result;
    }
    *out = &l->head;
    return RAIL_OK;
}
