/* gpu_launch.c - launches, and what they are ordered by.
 *
 * Launches of a communicator never overlap: eager ones follow one another by their stream, or by an event where streams
 * change; those of a captured graph as the graph says. */
#include <string.h>

#include "base/log.h"
#include "engine/gpu_state.h"

#define CALL "ncclGroupEnd"

/* Threads of a block: few for what is short, where a barrier of sixteen warps costs more than it brings. */
enum { SHORT_BYTES = 16 << 10, SHORT_THREADS = 128, MESSAGE_BLOCKS = 16, COPY_BLOCKS = 16 };

/* ---- streams ---- */

static void graph_gone(void *argument)
{
    struct gpu *g = argument;
    atomic_fetch_sub(&g->graphs, 1);
}

/* A graph that launches us keeps what it launches: once per capture. */
static enum rail_result keep_for_graph(struct gpu *g, const struct cuda_capture *capture)
{
    if (g->graph_seen == capture->id) return RAIL_OK;
    if (atomic_fetch_add(&g->graphs, 1) == 0) g->ring.kept = 0; /* no other graph refers to any */
    enum rail_result result = cuda_capture_retain(g->device, CALL, capture->graph, graph_gone, g);
    if (result == RAIL_OK) g->graph_seen = capture->id;
    else atomic_fetch_sub(&g->graphs, 1);
    return result;
}

enum rail_result gpu_begin(struct gpu *g, const cu_stream *streams, uint32_t n, bool apart, cu_stream *launch)
{
    struct cuda_capture capture;
    *launch = apart ? g->apart : streams[0];
    for (uint32_t k = apart ? 0 : 1; k < n; k++) RAIL_TRY(cuda_stream_join(g->device, CALL, *launch, streams[k]));
    RAIL_TRY(cuda_stream_capture(g->device, CALL, *launch, &capture));
    g->capturing = capture.active;
    if (capture.active) return keep_for_graph(g, &capture);
    if (!g->used || g->last == *launch) return RAIL_OK;
    return cuda_stream_after(g->device, CALL, *launch, g->done);
}

enum rail_result gpu_end(struct gpu *g, const cu_stream *streams, uint32_t n, cu_stream launch)
{
    for (uint32_t k = 0; k < n; k++)
        if (streams[k] != launch) RAIL_TRY(cuda_stream_join(g->device, CALL, streams[k], launch));
    if (g->capturing) return RAIL_OK;
    RAIL_TRY(cuda_event_record(g->device, CALL, g->done, launch));
    g->last = launch;
    g->used = true;
    return RAIL_OK;
}

enum rail_result gpu_fork(struct gpu *g, cu_stream stream, cu_stream *side)
{
    *side = g->side;
    return cuda_stream_join(g->device, CALL, g->side, stream);
}

enum rail_result gpu_join(struct gpu *g, cu_stream stream) { return cuda_stream_join(g->device, CALL, stream, g->side); }

/* ---- launching ---- */

/* A small collective stores to peers' lines, which stay while a launch of the process is counted, and may be gone where their
 * rank had closed before: who closes says so, then looks at the counts (gpu_memory.c). */
static bool lines_may_be_gone(const struct gpu *g, const struct kernel_call *call)
{
    return call->work == KERNEL_EXPRESS && atomic_load(&g->segment.header->lines_end);
}

static unsigned threads_for(uint64_t bytes) { return bytes <= SHORT_BYTES ? SHORT_THREADS : KERNEL_THREADS; }

static enum rail_result launch(struct gpu *g, struct gpu_track *track, struct kernel_call *call, uint32_t blocks,
                               unsigned threads, cu_stream stream)
{
    call->node = track->node;
    call->n_blocks = blocks;
    call->number = g->capturing ? 0 : atomic_fetch_add(&track->launched, 1) + 1;
    enum rail_result result = lines_may_be_gone(g, call)
                                  ? RAIL_NOT_YET
                                  : cuda_launch(g->device, CALL, g->kernel, blocks, threads, KERNEL_SHARED_BYTES, stream, call);
    if (result != RAIL_OK && !g->capturing) atomic_fetch_sub(&track->launched, 1);
    return result;
}

static struct kernel_combine combine_of(const struct gpu_collective *c)
{
    const struct rail_combine *how = &c->call.how;
    return (struct kernel_combine){.type = how->type, .op = how->op, .scaled = how->scaled, .scale = how->scale,
                                   .scale_at = c->scale_at, .divide = how->divide};
}

static enum rail_result scratch_for(const struct gpu *g, struct host_call *call, const struct plan *plan)
{
    size_t bytes = host_scratch_bytes(call, plan);
    if (bytes <= g->scratch_bytes) return RAIL_OK;
    return rail_fail(RAIL_E_INTERNAL, "rank %u: a plan wants %zu bytes of scratch, the GPU has %zu", g->rank, bytes,
                     g->scratch_bytes);
}

enum rail_result gpu_collective(struct gpu *g, const struct gpu_collective *c, cu_stream stream)
{
    struct host_call call = c->call;
    uint32_t blocks = 0, n = c->instances ? call.split.n_channels : 0;
    struct kernel_call k = {
        .work = KERNEL_COLLECTIVE,
        .input = (uint64_t)(uintptr_t)call.input,
        .output = (uint64_t)(uintptr_t)call.output,
        .how = combine_of(c),
        .split = call.split,
        .order = call.blocks.order ? g->order : 0,
        .input_blocks = call.blocks.input,
        .output_blocks = call.blocks.output,
        .scratch = g->scratch,
        .signature = call.signature,
        .counts = true,
        .n_channels = n,
    };
    if (n) RAIL_TRY(scratch_for(g, &call, &c->instances[0]->plan));
    k.scratch_piece_bytes = call.scratch_piece_bytes;
    for (uint32_t channel = 0; channel < n; channel++) {
        RAIL_TRY(gpu_channel_of(g, c->instances[channel], &k.channels[channel]));
        k.channels[channel].first_block = blocks;
        blocks += k.channels[channel].n_strands;
    }
    uint64_t bytes = call.split.count * rail_type_bytes(call.how.type);
    return launch(g, &g->track[GPU_COLLECTIVES], &k, blocks ? blocks : 1, threads_for(bytes), stream);
}

/* Words each way for which few threads are enough: four each, all in flight. */
enum { FEW_WORDS = 4 * SHORT_THREADS };

enum rail_result gpu_express(struct gpu *g, const struct gpu_collective *c, cu_stream stream)
{
    struct kernel_call k = {
        .work = KERNEL_EXPRESS,
        .input = (uint64_t)(uintptr_t)c->call.input,
        .output = (uint64_t)(uintptr_t)c->call.output,
        .how = combine_of(c),
        .split = {.count = c->call.split.count},
        .signature = c->call.signature,
        .counts = true,
        .stop = gpu_in_shared(g, &g->shared->stop),
        .collective = c->collective,
        .root = c->root,
        .balanced = c->balanced,
    };
    uint64_t block = c->call.split.count * rail_type_bytes(c->call.how.type);
    uint64_t words = g->n_peers * (KERNEL_EXPRESS_HEAD + block / KERNEL_EXPRESS_DATA);
    return launch(g, &g->track[GPU_COLLECTIVES], &k, 1, words <= FEW_WORDS ? SHORT_THREADS : KERNEL_THREADS, stream);
}

enum rail_result gpu_copy(struct gpu *g, const struct gpu_collective *c, uint64_t count, cu_stream stream)
{
    uint64_t bytes = count * rail_type_bytes(c->call.how.type);
    struct kernel_call k = {
        .work = KERNEL_COPY,
        .input = (uint64_t)(uintptr_t)c->call.input,
        .output = (uint64_t)(uintptr_t)c->call.output,
        .how = combine_of(c),
        .split = {.count = count, .grain = SHM_LINE / rail_type_bytes(c->call.how.type), .n_channels = 1, .n_pieces = 1},
    };
    return launch(g, &g->track[GPU_COLLECTIVES], &k, bytes <= SHORT_BYTES ? 1 : COPY_BLOCKS, threads_for(bytes), stream);
}

/* ---- messages ---- */

static bool has_ended(const struct gpu *g, uint32_t track, uint64_t launch)
{
    return __atomic_load_n(&g->shared->track[track].report.ended, __ATOMIC_ACQUIRE) >= launch;
}

/* Launches that have ended leave their part of the ring. */
static void ring_advance(struct gpu *g)
{
    struct gpu_ring *ring = &g->ring;
    while (ring->n && has_ended(g, ring->launches[ring->first].track, ring->launches[ring->first].launch)) {
        ring->begin = ring->launches[ring->first].end;
        ring->first = (ring->first + 1) % GPU_RING_LAUNCHES;
        ring->n--;
    }
    if (!ring->n) ring->begin = ring->end = 0;
}

/* One piece, not torn: at the end if it fits, else from the start. */
static bool ring_take(struct gpu_ring *ring, uint32_t bytes, uint32_t *at)
{
    if (ring->n == GPU_RING_LAUNCHES) return false;
    bool wrapped = ring->n && ring->end <= ring->begin;
    uint32_t room = wrapped ? ring->begin : GPU_RING_BYTES;
    if (ring->end + bytes <= room) *at = ring->end;
    else if (!wrapped && bytes < ring->begin) *at = 0;
    else return false;
    ring->end = *at + bytes;
    return true;
}

static enum rail_result table_room(struct gpu *g, const struct gpu_track *track, uint64_t bytes, void **at)
{
    struct gpu_ring *ring = &g->ring;
    uint32_t from;
    if (g->capturing) {
        if (bytes > GPU_KEPT_BYTES - ring->kept)
            return rail_fail(RAIL_E_USAGE, "ncclSend, ncclRecv: captured graphs of rank %u hold messages of %d KiB already; "
                             "free graphs that are no longer launched", g->rank, GPU_KEPT_BYTES >> 10);
        *at = g->kept_bytes + ring->kept;
        ring->kept += (uint32_t)bytes;
        return RAIL_OK;
    }
    ring_advance(g);
    if (bytes >= GPU_RING_BYTES || !ring_take(ring, (uint32_t)bytes, &from))
        return rail_fail(RAIL_E_USAGE, "ncclSend, ncclRecv: messages of rank %u that have not run yet fill %d KiB; wait for "
                         "the stream, or use smaller groups (24 bytes a message)", g->rank, GPU_RING_BYTES >> 10);
    *at = g->ring_bytes + from;
    uint32_t entry = (ring->first + ring->n++) % GPU_RING_LAUNCHES;
    ring->launches[entry].end = ring->end;
    ring->launches[entry].track = (uint32_t)(track - g->track);
    ring->launches[entry].launch = atomic_load(&track->launched) + 1;
    return RAIL_OK;
}

static uint64_t round_up(uint64_t bytes) { return (bytes + SHM_LINE - 1) / SHM_LINE * SHM_LINE; }

enum rail_result gpu_messages(struct gpu *g, const struct gpu_batch *b, cu_stream stream)
{
    uint64_t flow_bytes = round_up(b->n_flows * sizeof(struct kernel_flow)), most = 0;
    uint64_t message_bytes = round_up(b->n_messages * sizeof(struct kernel_message));
    void *at = NULL;
    struct gpu_track *track = &g->track[b->counts ? GPU_COLLECTIVES : GPU_MESSAGES];
    RAIL_TRY(table_room(g, track, flow_bytes + message_bytes, &at));
    struct kernel_flow *flows = at;
    struct kernel_message *messages = (void *)((unsigned char *)at + flow_bytes);
    for (uint32_t f = 0; f < b->n_flows; f++) {
        const struct gpu_flow *flow = &b->flows[f];
        flows[f] = (struct kernel_flow){.first = flow->first, .n = flow->n, .receives = flow->receives,
                                        .finished = flow->finished};
        if (flow->link) RAIL_TRY(gpu_link_of(g, flow->link, &flows[f].link));
    }
    for (uint32_t m = 0; m < b->n_messages; m++) {
        messages[m] = (struct kernel_message){(uint64_t)(uintptr_t)b->messages[m].buffer, b->messages[m].bytes,
                                              b->messages[m].signature};
        if (b->messages[m].bytes > most) most = b->messages[m].bytes;
    }
    struct kernel_call k = {
        .work = KERNEL_MESSAGES,
        .signature = b->signature,
        .counts = b->counts,
        .flows = gpu_in_shared(g, flows),
        .messages = gpu_in_shared(g, messages),
        .n_flows = b->n_flows,
    };
    uint32_t blocks = b->n_flows < MESSAGE_BLOCKS ? b->n_flows : MESSAGE_BLOCKS;
    return launch(g, track, &k, blocks ? blocks : 1, threads_for(most), stream);
}
