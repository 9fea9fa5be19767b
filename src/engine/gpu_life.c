/* gpu_life.c - what lies on the device for the life of a communicator: plans, links, tables. Handed out from one piece of
 * memory that was taken at the beginning, uploaded on a stream of our own, so that nothing waits but the copy. */
#include <stdlib.h>
#include <string.h>

#include "engine/gpu_state.h"
#include "transport/shm/shm_link.h"

enum { KEEP_ALIGNMENT = 64 };

enum rail_result gpu_keep(struct gpu *g, const void *what, size_t bytes, uint64_t *at_out)
{
    uint32_t at = (g->life_used + KEEP_ALIGNMENT - 1) / KEEP_ALIGNMENT * KEEP_ALIGNMENT;
    if (bytes > GPU_LIFE_BYTES - at)
        return rail_fail(RAIL_E_USAGE, "rank %u: plans and links of this communicator need more than %d KiB on the GPU; use "
                         "fewer roots or channels (NCCL_MAX_NCHANNELS)", g->rank, GPU_LIFE_BYTES >> 10);
    RAIL_TRY(cuda_copy(g->device, "ncclCommInitRank", g->life + at, (uint64_t)(uintptr_t)what, bytes));
    g->life_used = at + (uint32_t)bytes;
    *at_out = g->life + at;
    return RAIL_OK;
}

/* ---- links ---- */

static const struct gpu_link *find(const struct gpu *g, const struct link *link)
{
    for (uint32_t i = 0; i < g->n_links; i++)
        if (g->links[i].link == link) return &g->links[i];
    return NULL;
}

static enum rail_result make_room(struct gpu *g)
{
    if (g->n_links < g->capacity) return RAIL_OK;
    uint32_t capacity = g->capacity ? 2 * g->capacity : 32;
    struct gpu_link *more = realloc(g->links, capacity * sizeof *more);
    if (!more) return rail_fail(RAIL_E_SYSTEM, "links of rank %u: out of memory", g->rank);
    g->links = more;
    g->capacity = capacity;
    return RAIL_OK;
}

static struct kernel_link view_of(const struct link *link)
{
    return (struct kernel_link){.n_slots = link->n_slots, .slot_bytes = (uint32_t)link->slot_bytes, .from = link->from,
                                .to = link->to};
}

/* The receiver of a plan's link has its place; who sends on it finds it when it is there, by its key. */
static struct kernel_link near_link(const struct gpu *g, const struct link *link)
{
    struct shm_link_place p = shm_link_place(link);
    struct kernel_link k = view_of(link);
    k.key = p.key;
    k.places = gpu_in_segment(g, p.places);
    k.slots_base = g->uses_near ? g->peers[p.to_peer].at + gpu_slots_offset(&g->node->segment.geometry)
                                : gpu_in_segment(g, p.sets);
    k.place = p.place ? gpu_in_segment(g, p.place) : 0;
    k.slots = p.place ? k.slots_base + (uint64_t)(p.slots - p.sets) : 0;
    k.n_places = p.n_places;
    return k;
}

/* What the kernel has found out and counted stays; both ends are idle. */
static enum rail_result move_link(struct gpu *g, uint64_t at, uint64_t slots_base)
{
    static const char call[] = "ncclCommResume";
    struct kernel_link k;
    RAIL_TRY(cuda_copy(g->device, call, (uint64_t)(uintptr_t)&k, at, sizeof k));
    if (k.slots) k.slots += slots_base - k.slots_base;
    k.slots_base = slots_base;
    return cuda_copy(g->device, call, at, (uint64_t)(uintptr_t)&k, sizeof k);
}

enum rail_result gpu_move_links(struct gpu *g)
{
    size_t offset = gpu_slots_offset(&g->node->segment.geometry);
    for (uint32_t i = 0; i < g->n_links; i++) {
        const struct gpu_link *l = &g->links[i];
        if (shm_link_is(l->link)) RAIL_TRY(move_link(g, l->at, g->peers[shm_link_place(l->link).to_peer].at + offset));
    }
    return RAIL_OK;
}

/* Of a link over the network the kernel sees our half: a place beside ours in pinned memory. */
static enum rail_result far_link(struct gpu *g, struct link *link, struct kernel_link *out)
{
    uint32_t at = atomic_load_explicit(&g->n_relays, memory_order_relaxed);
    if (at == g->relay_room)
        return rail_fail(RAIL_E_USAGE, "rank %u: more than %u links to ranks of other hosts; use fewer channels "
                         "(NCCL_MAX_NCHANNELS)", g->rank, g->relay_room);
    if (link->n_slots > g->relay_slots || link->slot_bytes > g->relay_slot_bytes)
        return rail_fail(RAIL_E_INTERNAL, "rank %u: a link with %u slots of %zu bytes, relays have %u of %zu", g->rank,
                         link->n_slots, link->slot_bytes, g->relay_slots, g->relay_slot_bytes);
    size_t each = sizeof(struct shm_place) + g->relay_slots * g->relay_slot_bytes;
    struct gpu_relay *r = &g->relays[at];
    *r = (struct gpu_relay){.link = link, .place = (void *)(g->relay_bytes + at * each), .sends = link->from == g->rank};
    r->slots = (unsigned char *)(r->place + 1);
    *out = view_of(link);
    out->place = gpu_in_shared(g, r->place);
    out->slots = gpu_in_shared(g, r->slots);
    atomic_store_explicit(&g->n_relays, at + 1, memory_order_release);
    return RAIL_OK;
}

enum rail_result gpu_link_of(struct gpu *g, struct link *link, uint64_t *at_out)
{
    const struct gpu_link *known = find(g, link);
    struct kernel_link k;
    if (known) {
        *at_out = known->at;
        return RAIL_OK;
    }
    RAIL_TRY(make_room(g));
    if (shm_link_is(link)) k = near_link(g, link);
    else RAIL_TRY(far_link(g, link, &k));
    RAIL_TRY(gpu_keep(g, &k, sizeof k, at_out));
    g->links[g->n_links++] = (struct gpu_link){link, *at_out};
    return RAIL_OK;
}

/* ---- plans ---- */

enum rail_result gpu_channel_of(struct gpu *g, struct instance *instance, struct kernel_channel *out)
{
    uint64_t links[PLAN_MAX_LINKS];
    if (!instance->on_gpu.plan) {
        for (uint32_t l = 0; l < instance->plan.n_links; l++) RAIL_TRY(gpu_link_of(g, instance->links[l], &links[l]));
        RAIL_TRY(gpu_keep(g, links, sizeof links, &instance->on_gpu.links));
        RAIL_TRY(gpu_keep(g, &instance->plan, sizeof instance->plan, &instance->on_gpu.plan)); /* read as a whole */
    }
    *out = (struct kernel_channel){.plan = instance->on_gpu.plan, .links = instance->on_gpu.links,
                                   .n_strands = instance->plan.n_strands};
    return RAIL_OK;
}
