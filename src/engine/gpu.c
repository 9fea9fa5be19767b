/* gpu.c - opening and closing: everything that can synchronise the context happens here (gpu.h, the golden rule). */
#include "engine/gpu.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "engine/calls.h"
#include "engine/express.h"
#include "engine/messages.h"
#include "engine/gpu_state.h"

/* What the kernel believes of the segment is what segment.h says. */
_Static_assert((int)KERNEL_MAX_CHANNELS == (int)HOST_MAX_CHANNELS, "channels");
_Static_assert((int)KERNEL_LINE == (int)SHM_LINE && (int)KERNEL_DEPTH == (int)SHM_DEPTH, "lines and windows");
_Static_assert((int)KERNEL_CALLS == (int)SHM_CALLS, "calls");
_Static_assert(sizeof(struct shm_place) == KERNEL_PLACE_BYTES, "places");
_Static_assert(offsetof(struct shm_place, key) == KERNEL_PLACE_KEY, "places");
_Static_assert(offsetof(struct shm_place, set) == KERNEL_PLACE_SET, "places");
_Static_assert(offsetof(struct shm_place, published) == KERNEL_PLACE_PUBLISHED, "places");
_Static_assert(offsetof(struct shm_place, released) == KERNEL_PLACE_RELEASED, "places");
_Static_assert(offsetof(struct shm_place, meta) == KERNEL_PLACE_META, "places");
_Static_assert(sizeof(struct shm_rounds) == KERNEL_ROUNDS_BYTES, "rounds");
_Static_assert(offsetof(struct shm_rounds, counter) == KERNEL_ROUNDS_COUNTER, "rounds");
_Static_assert(offsetof(struct shm_rounds, exposure) == KERNEL_ROUNDS_EXPOSURE, "rounds");
_Static_assert(sizeof(struct shm_exposure) == KERNEL_LINE && offsetof(struct shm_exposure, signature) == 16 &&
                   offsetof(struct shm_exposure, direct) == 24,
               "exposures");
_Static_assert(offsetof(struct shm_calls, number) == KERNEL_CALLS_NUMBER, "calls");
_Static_assert(offsetof(struct shm_calls, left_ns) == KERNEL_CALLS_LEFT_NS, "calls");
_Static_assert(offsetof(struct shm_calls, signature) == KERNEL_CALLS_SIGNATURE, "calls");

_Static_assert((int)KERNEL_EXPRESS_WORD == (int)SHM_WORD && (int)KERNEL_EXPRESS_DATA == (int)SHM_WORD_DATA &&
                   (int)KERNEL_EXPRESS_HEAD == (int)SHM_WORDS_BEFORE, "words");
_Static_assert((int)KERNEL_EXPRESS_RANKS == (int)EXPRESS_MAX_PEERS, "as many as on host memory");

#define CALL "ncclCommInitRank"

/* ---- small collectives ---- */

size_t gpu_express_bytes(const struct gpu *g) { return g->segment.geometry.small_bytes; }

static uint32_t staging_bytes(const struct gpu *g)
{
    const uint32_t quad = 16; /* what a thread takes at once */
    return ((uint32_t)gpu_express_bytes(g) + quad - 1) / quad * quad;
}

/* All of it, behind what lives as long. */
static size_t staging_room(const struct gpu *g) { return 2 * (size_t)g->n_peers * staging_bytes(g); }

/* ---- opening ---- */

static size_t relay_bytes(const struct gpu_request *r)
{
    return r->relay_links * (sizeof(struct shm_place) + (size_t)r->relay_slots * r->relay_slot_bytes);
}

static enum rail_result pin_shared(struct gpu *g, const struct gpu_request *r)
{
    void *at;
    uint64_t address;
    g->shared_bytes = sizeof(struct gpu_shared) + GPU_RING_BYTES + GPU_KEPT_BYTES + relay_bytes(r);
    RAIL_TRY(cuda_pinned_alloc(g->device, CALL, g->shared_bytes, &at, &address));
    g->shared = at;
    g->shared_shift = (ptrdiff_t)(address - (uint64_t)(uintptr_t)at);
    g->ring_bytes = (unsigned char *)(g->shared + 1);
    g->kept_bytes = g->ring_bytes + GPU_RING_BYTES;
    g->relay_bytes = g->kept_bytes + GPU_KEPT_BYTES;
    g->relay_room = r->relay_links;
    g->relay_slots = r->relay_slots;
    g->relay_slot_bytes = r->relay_slot_bytes;
    g->relays = calloc(r->relay_links ? r->relay_links : 1, sizeof *g->relays);
    return g->relays ? RAIL_OK : rail_fail(RAIL_E_SYSTEM, CALL ": relays of rank %u: out of memory", g->rank);
}

static enum rail_result pin_segment(struct gpu *g)
{
    const struct shm_segment *s = &g->segment;
    uint64_t address;
    RAIL_TRY(cuda_register(g->device, CALL, s->header, shm_segment_bytes(&s->geometry), &address));
    g->pinned = true;
    g->segment_shift = (ptrdiff_t)(address - (uint64_t)(uintptr_t)s->header);
    return RAIL_OK;
}

/* The communicator on the device: struct kernel_node of each track, then the table that they name; gpu_use_near tells the
 * windows. */
static enum rail_result settle(struct gpu *g, const struct gpu_request *r)
{
    const struct shm_segment *s = &g->segment;
    g->life_used = GPU_TRACKS * sizeof(struct kernel_node);
    RAIL_TRY(gpu_keep(g, r->order, r->n_ranks * sizeof *r->order, &g->order));
    for (int t = 0; t < GPU_TRACKS; t++) {
        struct kernel_node node = {
            .stop = gpu_in_shared(g, &g->shared->stop),
            .report = gpu_in_shared(g, &g->shared->track[t].report),
            .calls = gpu_in_segment(g, &s->controls[g->node->self].calls),
            .rounds = gpu_in_segment(g, s->rounds),
            .window_bytes = s->geometry.window_bytes,
            .n_peers = s->geometry.n_peers,
            .self = g->node->self,
            .window_channels = (uint32_t)s->geometry.window_channels,
            .rank = g->rank,
            .staging = g->life + GPU_LIFE_BYTES,
            .staging_bytes = staging_bytes(g),
            .line_words = shm_line_words(&s->geometry),
        };
        for (uint32_t p = 0; p < g->n_peers && p < KERNEL_EXPRESS_RANKS; p++) node.ranks[p] = g->node->ranks[p];
        g->track[t].node = g->life + (uint64_t)t * sizeof node;
        RAIL_TRY(cuda_copy(g->device, CALL, g->track[t].node, (uint64_t)(uintptr_t)&node, sizeof node));
    }
    return RAIL_OK;
}

static enum rail_result open_within(struct gpu *g, const struct gpu_request *r)
{
    RAIL_TRY(cuda_kernel_get(g->device, CALL, KERNEL_NAME, KERNEL_THREADS, &g->kernel));
    RAIL_TRY(pin_shared(g, r));
    RAIL_TRY(pin_segment(g));
    RAIL_TRY(cuda_alloc(g->device, CALL, GPU_LIFE_BYTES + staging_room(g), &g->life));
    if (r->scratch_bytes) RAIL_TRY(cuda_alloc(g->device, CALL, r->scratch_bytes, &g->scratch));
    g->scratch_bytes = r->scratch_bytes;
    RAIL_TRY(cuda_stream_make(g->device, CALL, false, &g->side));
    RAIL_TRY(cuda_stream_make(g->device, CALL, false, &g->apart));
    RAIL_TRY(cuda_events_prepare(g->device, CALL, 8));
    RAIL_TRY(cuda_event_take(g->device, CALL, &g->done));
    return settle(g, r);
}

enum rail_result gpu_open(const struct gpu_request *r, struct gpu **out)
{
    struct cuda_scope scope;
    struct gpu *g = calloc(1, sizeof *g);
    if (!g) return rail_fail(RAIL_E_SYSTEM, CALL ": rank %u on a GPU: out of memory", r->rank);
    g->device = r->device;
    g->node = r->node;
    g->rank = r->rank;
    g->n_ranks = r->n_ranks;
    g->n_peers = r->node->segment.geometry.n_peers;
    g->self = r->node->self;
    pthread_mutex_init(&g->beside.lock, NULL);
    g->peers = calloc(g->n_peers, sizeof *g->peers);
    if (!g->peers) {
        free(g);
        return rail_fail(RAIL_E_SYSTEM, CALL ": rank %u on a GPU: out of memory", r->rank);
    }
    g->segment = shm_segment_hold(&r->node->segment);
    cuda_device_hold(g->device);
    gpu_reap();
    enum rail_result result = cuda_enter(g->device, CALL, &scope);
    if (result == RAIL_OK) {
        result = open_within(g, r);
        cuda_leave(&scope);
    }
    if (result != RAIL_OK) {
        gpu_bury(g);
        return result;
    }
    gpu_count_in(g);
    RAIL_INFO(RAIL_INIT, "rank %u on GPU %d (%s, %s): %zu KiB of its memory, %zu KiB of pinned host memory beside the "
              "node's %zu KiB; kernel resident, loaded in %.0f ms", g->rank, g->device->ordinal, g->device->name,
              g->device->bus_id, gpu_device_bytes(g) >> 10, gpu_pinned_bytes(g) >> 10,
              shm_segment_bytes(&g->node->segment.geometry) >> 10, g->kernel->load_ms);
    *out = g;
    return RAIL_OK;
}

void gpu_close(struct gpu *gpu)
{
    if (!gpu) return;
    atomic_store(&gpu->segment.header->lines_end, 1);
    gpu->gave_up = !gpu->shared || atomic_exchange(&gpu->shared->stop, GPU_STOPPED);
    if (gpu->shared) gpu_release_waits(gpu);
    gpu_bury(gpu);
}

_Atomic uint32_t *gpu_stop_word(struct gpu *gpu) { return &gpu->shared->stop; }

void gpu_look(const struct gpu *g, struct gpu_state *out)
{
    *out = (struct gpu_state){0};
    for (int t = 0; g->shared && t < GPU_TRACKS; t++) {
        const struct kernel_report *r = &g->shared->track[t].report;
        /* In this order: what began after it was launched, and ended after it began, is seen as under way, never as more. */
        uint64_t ended = __atomic_load_n(&r->ended, __ATOMIC_ACQUIRE);
        uint64_t finished = __atomic_load_n(&r->finished, __ATOMIC_ACQUIRE);
        out->inside |= __atomic_load_n(&r->begun, __ATOMIC_ACQUIRE) != finished;
        out->waiting |= atomic_load(&g->track[t].launched) != ended;
        out->moved += __atomic_load_n(&r->moved, __ATOMIC_RELAXED);
    }
    out->waiting |= gpu_beside_waits(g);
    out->graphs = atomic_load(&g->graphs);
    out->busy = out->graphs || out->inside || out->waiting;
}

bool gpu_has_graphs(const struct gpu *g) { return atomic_load(&g->graphs) != 0; }

/* ---- what the kernel found wrong ---- */

static enum rail_result say(const struct gpu *g, const struct kernel_report *r)
{
    switch (r->trouble) {
    case KERNEL_SIGNATURE_LINK: return calls_differ(g->node, r->link_from, r->theirs, r->mine);
    case KERNEL_SIGNATURE_PEER: return calls_differ(g->node, g->node->ranks[r->who], r->theirs, r->mine);
    case KERNEL_SIGNATURE_MESSAGE: return messages_differ(g->rank, r->link_from, r->theirs, r->mine, r->count + 1);
    case KERNEL_BYTES:
        return rail_fail(RAIL_E_INTERNAL, "link %u -> %u: a slot holds %llu bytes, the plan expects %llu", r->link_from,
                         r->link_to, (unsigned long long)r->theirs, (unsigned long long)r->mine);
    default:
        return rail_fail(RAIL_E_INTERNAL, "rank %u: the kernel cannot run a plan (trouble %u at step %llu)", g->rank,
                         r->trouble, (unsigned long long)r->theirs);
    }
}

enum rail_result gpu_trouble(struct gpu *g)
{
    for (int t = 0; t < GPU_TRACKS; t++) {
        const struct kernel_report *r = &g->shared->track[t].report;
        if (g->track[t].told || __atomic_load_n(&r->trouble, __ATOMIC_ACQUIRE) == KERNEL_FINE) continue;
        g->track[t].told = true;
        return say(g, r);
    }
    return RAIL_OK;
}

size_t gpu_idle_bytes(const struct gpu *g) { return (g->scratch ? g->scratch_bytes : 0) + g->near_bytes; }
size_t gpu_device_bytes(const struct gpu *g) { return GPU_LIFE_BYTES + staging_room(g) + gpu_idle_bytes(g); }
size_t gpu_pinned_bytes(const struct gpu *g) { return g->shared_bytes; }
