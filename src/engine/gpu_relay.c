/* gpu_relay.c - links over the network: from the kernel's places to lanes, and back.
 *
 *     kernel --> place, slots --> gpu_progress --> slot of the link --> lanes        sends
 *     kernel <-- place, slots <-- gpu_progress <-- slot of the link <-- lanes        receives
 *
 * Staged through pinned memory: one copy by this thread at either end. */
#include <string.h>

#include "engine/gpu_state.h"

/* Slots of one relay before the others get their turn. */
enum { TURN = 4 };

static unsigned char *slot_of(const struct gpu_relay *r)
{
    return r->slots + (size_t)(r->moved % r->link->n_slots) * r->link->slot_bytes;
}

/* The kernel has published; the link takes it when it has credit. */
static enum rail_result send_one(struct gpu_relay *r)
{
    void *slot;
    if (atomic_load_explicit(&r->place->published, memory_order_acquire) == r->moved) return RAIL_NOT_YET;
    struct shm_slot_meta meta = r->place->meta[r->moved % r->link->n_slots];
    if (meta.bytes > r->link->slot_bytes)
        return rail_fail(RAIL_E_INTERNAL, "link %u -> %u: a slot of %llu bytes in slots of %zu", r->link->from,
                         r->link->to, (unsigned long long)meta.bytes, r->link->slot_bytes);
    RAIL_TRY(r->link->ops->acquire(r->link, &slot));
    memcpy(slot, slot_of(r), (size_t)meta.bytes);
    r->link->ops->publish(r->link, (size_t)meta.bytes, meta.signature);
    atomic_store_explicit(&r->place->released, ++r->moved, memory_order_release);
    return RAIL_OK;
}

/* A slot of the link has come whole; the kernel's place takes it when it has room. */
static enum rail_result receive_one(struct gpu_relay *r)
{
    const void *slot;
    size_t bytes;
    uint64_t signature;
    if (r->moved - atomic_load_explicit(&r->place->released, memory_order_acquire) >= r->link->n_slots) return RAIL_NOT_YET;
    RAIL_TRY(r->link->ops->wait(r->link, &slot, &bytes, &signature));
    memcpy(slot_of(r), slot, bytes);
    r->place->meta[r->moved % r->link->n_slots] = (struct shm_slot_meta){bytes, signature};
    atomic_store_explicit(&r->place->published, ++r->moved, memory_order_release);
    r->link->ops->release(r->link);
    return RAIL_OK;
}

bool gpu_progress(struct gpu *g, enum rail_result *failed)
{
    uint32_t n = atomic_load_explicit(&g->n_relays, memory_order_acquire);
    bool moved = false;
    for (uint32_t i = 0; i < n; i++) {
        struct gpu_relay *r = &g->relays[i];
        enum rail_result result = RAIL_OK;
        for (int turn = 0; turn < TURN && result == RAIL_OK; turn++) {
            result = r->sends ? send_one(r) : receive_one(r);
            moved |= result == RAIL_OK;
        }
        if (result != RAIL_OK && result != RAIL_NOT_YET && *failed == RAIL_OK) *failed = result;
    }
    return moved;
}

bool gpu_drained(struct gpu *g)
{
    uint32_t n = atomic_load_explicit(&g->n_relays, memory_order_acquire);
    for (uint32_t i = 0; i < n; i++) {
        const struct gpu_relay *r = &g->relays[i];
        if (r->sends && atomic_load_explicit(&r->place->published, memory_order_acquire) !=
                            atomic_load_explicit(&r->place->released, memory_order_acquire))
            return false;
    }
    return gpu_all_read(g, false);
}
