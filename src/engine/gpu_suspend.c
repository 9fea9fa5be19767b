/* gpu_suspend.c - a communicator that is not used for a while leaves its part of the device to others.
 *
 *     gpu_suspend        stop word: suspended ── imports closed
 *     gpu_suspend_own    windows, slots, lines, scratch: freed           the others of the node have closed theirs
 *     gpu_resume_own     the same: taken again, at other addresses
 *     gpu_resume         windows' table, links: corrected ── stop word: goes
 *
 * Plans, links, counters and what graphs refer to stay where they are, so graphs can be launched again afterwards. */
#include "engine/gpu_state.h"

#define CALL "ncclCommResume"

static uint64_t launches_ended(const struct gpu *g)
{
    uint64_t n = 0;
    for (int t = 0; t < GPU_TRACKS; t++) n += __atomic_load_n(&g->shared->track[t].report.finished, __ATOMIC_ACQUIRE);
    return n;
}

void gpu_suspend(struct gpu *g)
{
    uint32_t goes = GPU_GOES; /* unless a fault has stopped it */
    g->ran_before = launches_ended(g);
    atomic_compare_exchange_strong(&g->shared->stop, &goes, GPU_SUSPENDED);
    if (g->uses_near) gpu_leave_peers(g);
}

/* As segment.c: links of pairs may carry messages that nobody has asked for yet. */
static bool holds_messages(const struct gpu *g)
{
    const struct shm_geometry *geometry = &g->segment.geometry;
    const struct shm_place *places = &g->segment.places[(size_t)g->self * shm_places(geometry)];
    for (uint32_t i = shm_places_taken(geometry); i < shm_places(geometry); i++)
        if (atomic_load_explicit(&places[i].published, memory_order_acquire) !=
            atomic_load_explicit(&places[i].released, memory_order_acquire))
            return true;
    return false;
}

void gpu_suspend_own(struct gpu *g)
{
    if (!gpu_has_graphs(g)) {
        cuda_free(g->device, g->scratch);
        g->scratch = 0;
    }
    if (!g->uses_near || holds_messages(g)) return;
    cuda_free(g->device, g->near);
    g->near = 0;
    g->near_bytes = 0;
}

enum rail_result gpu_resume_own(struct gpu *g, struct gpu_offer *out)
{
    enum rail_result result = RAIL_OK;
    if (g->scratch_bytes && !g->scratch) result = cuda_alloc(g->device, CALL, g->scratch_bytes, &g->scratch);
    if (result == RAIL_OK && g->uses_near && !g->near) result = gpu_near_take(g, CALL);
    if (result == RAIL_OK && g->uses_near) result = gpu_offer(g, out);
    if (result != RAIL_OK) gpu_suspend_own(g);
    return result;
}

enum rail_result gpu_resume(struct gpu *g, bool near)
{
    uint32_t suspended = GPU_SUSPENDED;
    if (g->uses_near && !near)
        return rail_fail(RAIL_E_CUDA, CALL ": rank %u: ranks of this host do not reach one another's GPUs any more, as they did "
                         "before (NCCL_DEBUG=INFO says which)", g->rank);
    if (g->uses_near) {
        RAIL_TRY(gpu_use_near(g, true));
        RAIL_TRY(gpu_move_links(g));
    }
    if (launches_ended(g) != g->ran_before)
        return rail_fail(RAIL_E_USAGE, CALL ": a captured graph of rank %u was launched while the communicator was "
                         "suspended; it did nothing, and this communicator must be made anew", g->rank);
    atomic_compare_exchange_strong(&g->shared->stop, &suspended, GPU_GOES);
    return RAIL_OK;
}
