/* gpu_peers.c - windows, slots and lines in the memory of GPUs, where all ranks of a node can reach one another's: over NVLink or
 * PCIe, in one process by address, between processes by an IPC handle. Then what is staged never leaves the devices;
 * counters and exposures stay in the node's segment.
 *
 * All of a node's ranks do, or none: a rank on host memory, a device out of reach, or an IPC handle that cannot be opened
 * (containers that do not share what it needs) leaves the node with the pinned segment, which always works. */
#include <string.h>

#include "base/log.h"
#include "engine/gpu_state.h"

#define CALL "ncclCommInitRank"

static size_t windows_bytes(const struct shm_geometry *g) { return g->window_channels * 2 * SHM_DEPTH * g->window_bytes; }

size_t gpu_slots_offset(const struct shm_geometry *g) { return windows_bytes(g); }

size_t gpu_lines_offset(const struct shm_geometry *g)
{
    return windows_bytes(g) + (size_t)shm_sets(g) * g->n_slots * g->slot_bytes;
}

size_t gpu_near_bytes(const struct shm_geometry *g) { return gpu_lines_offset(g) + shm_lines_bytes(g); }

/* No number of a call is 0, and nothing is looked for in windows and slots that was not written there. */
enum rail_result gpu_near_take(struct gpu *g, const char *call)
{
    const struct shm_geometry *geometry = &g->segment.geometry;
    RAIL_TRY(cuda_alloc(g->device, call, gpu_near_bytes(geometry), &g->near));
    g->near_bytes = gpu_near_bytes(geometry);
    return cuda_zero(g->device, call, g->near + gpu_lines_offset(geometry), shm_lines_bytes(geometry));
}

enum rail_result gpu_offer(struct gpu *g, struct gpu_offer *out)
{
    const struct shm_geometry *geometry = &g->node->segment.geometry;
    *out = (struct gpu_offer){.device = (uint64_t)(uintptr_t)g->device, .ordinal = g->device->ordinal};
    if (geometry->n_peers < 2) return RAIL_OK;
    if (!g->near) RAIL_TRY(gpu_near_take(g, CALL));
    out->address = g->near;
    out->exported = cuda_export(g->device, CALL, g->near, &out->handle) == RAIL_OK;
    return RAIL_OK;
}

/* Where peer `p` has its windows, slots and lines, as this device reaches them; 0: it does not. */
static uint64_t reach(struct gpu *g, const struct gpu_offer *theirs, bool same_process, uint64_t *base)
{
    uint64_t at = 0;
    if (!theirs->address) return 0;
    if (!same_process) {
        if (!theirs->exported || cuda_import(g->device, CALL, &theirs->handle, base, &at) != RAIL_OK) return 0;
        return at;
    }
    struct cuda_device *device = (struct cuda_device *)(uintptr_t)theirs->device;
    if (device != g->device && cuda_peer_enable(g->device, CALL, device) != RAIL_OK) return 0;
    return theirs->address;
}

bool gpu_reach(struct gpu *g, const struct gpu_offer *offers, const bool *same_process)
{
    uint32_t n = g->node->segment.geometry.n_peers;
    bool all = n > 1;
    for (uint32_t p = 0; p < n && all; p++) {
        g->peers[p].at = p == g->node->self ? g->near : reach(g, &offers[p], same_process[p], &g->peers[p].import);
        g->peers[p].same = same_process[p];
        all = g->peers[p].at != 0;
        if (!all)
            RAIL_INFO(RAIL_P2P, "rank %u on GPU %d does not reach the memory of rank %u (GPU %d): the node's windows stay in "
                      "pinned host memory", g->rank, g->device->ordinal, g->node->ranks[p], offers[p].ordinal);
    }
    return all;
}

static enum rail_result use_lines(struct gpu *g, bool near)
{
    const struct shm_geometry *geometry = &g->node->segment.geometry;
    uint64_t lines[KERNEL_EXPRESS_RANKS] = {0};
    if (!geometry->small_bytes) return RAIL_OK;
    for (uint32_t p = 0; p < geometry->n_peers; p++)
        lines[p] = near ? g->peers[p].at + gpu_lines_offset(geometry)
                        : gpu_in_segment(g, g->node->segment.lines + p * shm_lines_bytes(geometry));
    return cuda_copy(g->device, CALL, g->track[GPU_COLLECTIVES].node + offsetof(struct kernel_node, lines),
                     (uint64_t)(uintptr_t)lines, sizeof lines);
}

enum rail_result gpu_use_near(struct gpu *g, bool near)
{
    uint32_t n = g->node->segment.geometry.n_peers;
    uint64_t windows[SHM_MAX_PEERS];
    for (uint32_t p = 0; p < n; p++)
        windows[p] = near ? g->peers[p].at : gpu_in_segment(g, shm_window_at(&g->node->segment, p, 0, SHM_WINDOW_IN, 0));
    g->uses_near = near;
    RAIL_TRY(use_lines(g, near));
    if (!near) gpu_leave_near(g);
    if (g->windows) return cuda_copy(g->device, CALL, g->windows, (uint64_t)(uintptr_t)windows, n * sizeof *windows);
    RAIL_TRY(gpu_keep(g, windows, n * sizeof *windows, &g->windows));
    for (int t = 0; t < GPU_TRACKS; t++)
        RAIL_TRY(cuda_copy(g->device, CALL, g->track[t].node + offsetof(struct kernel_node, windows),
                           (uint64_t)(uintptr_t)&g->windows, sizeof g->windows));
    return RAIL_OK;
}

/* Each round of windows ends with DONE of everybody who has read; mine says how many there were. Who gives up reads no
 * more. */
bool gpu_all_read(const struct gpu *g, bool same_process)
{
    const struct shm_geometry *geometry = &g->segment.geometry;
    uint32_t self = g->self;
    bool stopped = g->node ? atomic_load(&g->shared->stop) : g->gave_up; /* closing stops, too */
    if (!g->uses_near || stopped) return true;
    for (uint32_t c = 0; c < geometry->window_channels; c++) {
        const struct shm_rounds *mine = shm_rounds_of(&g->segment, self, c);
        uint64_t rounds = atomic_load_explicit(&mine->counter[PLAN_DONE].value, memory_order_acquire);
        for (uint32_t p = 0; p < geometry->n_peers; p++) {
            const struct shm_rounds *theirs = shm_rounds_of(&g->segment, p, c);
            if (p == self || (g->peers[p].same && !same_process)) continue;
            if (atomic_load_explicit(&theirs->counter[PLAN_DONE].value, memory_order_acquire) < rounds) return false;
        }
    }
    return true;
}

void gpu_leave_peers(struct gpu *g)
{
    for (uint32_t p = 0; g->peers && p < g->n_peers; p++) {
        cuda_import_close(g->device, g->peers[p].import);
        g->peers[p] = (struct gpu_peer){0};
    }
}

void gpu_leave_near(struct gpu *g)
{
    gpu_leave_peers(g);
    cuda_free(g->device, g->near);
    g->near = 0;
    g->near_bytes = 0;
}
