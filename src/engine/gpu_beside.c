/* gpu_beside.c - one-sided operations of a GPU rank: no kernel, the stream's own copies and words.
 *
 *     put     copy to the window ── write the target's counter       in the order of the stream, and of earlier puts there
 *     wait    wait until my counter is there                         the stream's front end waits, no SM is held
 *
 * A counter has one source, so what is written is how many there were, not one more. A word is preceded by a fence of system
 * scope (the driver's default): who sees it sees the data.
 *
 * A group's operations are a batch; the last thing on its stream is to write the batch's number down, so that the host knows
 * what is under way. Waits of a communicator that has failed are let go by the host, which writes the counters: again and
 * again until the batch has ended, since a source may still write an old number over it. */
#include <stdlib.h>

#include "engine/gpu_state.h"

#define CALL "ncclGroupEnd"

/* What went to one peer of the node, in call order. */
struct gpu_out {
    cu_event done; /* after the last put */
    bool used;
    uint64_t sent[SHM_SIGNALS];
};

static bool has_ended(const struct gpu *g, uint32_t slot)
{
    return atomic_load(&g->beside.batch[slot].number) ==
           __atomic_load_n(&g->shared->beside_ended[slot], __ATOMIC_ACQUIRE);
}

bool gpu_beside_waits(const struct gpu *g)
{
    uint32_t n = atomic_load(&g->beside.n_used);
    for (uint32_t s = 0; g->shared && s < n; s++)
        if (!has_ended(g, s)) return true;
    return false;
}

/* ---- batches ---- */

static void goals_free(struct gpu *g, uint32_t slot)
{
    pthread_mutex_lock(&g->beside.lock);
    free(g->beside.batch[slot].goals);
    g->beside.batch[slot].goals = NULL;
    g->beside.batch[slot].n_goals = 0;
    pthread_mutex_unlock(&g->beside.lock);
}

enum rail_result gpu_batch_open(struct gpu *g, uint32_t *slot)
{
    uint32_t s = 0, used = atomic_load(&g->beside.n_used);
    while (s < used && !has_ended(g, s)) s++;
    if (s == GPU_BATCHES)
        return rail_fail(RAIL_E_USAGE, "one-sided operations of rank %u: %d groups of them have not run yet; wait for the stream",
                         g->rank, GPU_BATCHES);
    goals_free(g, s);
    atomic_store(&g->beside.batch[s].number, ++g->beside.number);
    if (s == used) atomic_store(&g->beside.n_used, used + 1);
    *slot = s;
    return RAIL_OK;
}

static uint64_t word_of(const struct gpu *g, uint32_t slot) { return gpu_in_shared(g, &g->shared->beside_ended[slot]); }

enum rail_result gpu_batch_close(struct gpu *g, uint32_t slot, cu_stream stream)
{
    return cuda_stream_write_value(g->device, CALL, stream, word_of(g, slot), atomic_load(&g->beside.batch[slot].number));
}

void gpu_batch_fail(struct gpu *g, uint32_t slot)
{
    goals_free(g, slot);
    __atomic_store_n(&g->shared->beside_ended[slot], atomic_load(&g->beside.batch[slot].number), __ATOMIC_RELEASE);
}

/* ---- puts ---- */

static enum rail_result out_of(struct gpu *g, uint32_t peer, struct gpu_out **out)
{
    if (!g->outs) g->outs = calloc(g->n_peers, sizeof(struct gpu_out *));
    if (g->outs && !g->outs[peer]) g->outs[peer] = calloc(1, sizeof **g->outs);
    if (!g->outs || !g->outs[peer]) return rail_fail(RAIL_E_SYSTEM, "one-sided operations of rank %u: out of memory", g->rank);
    *out = g->outs[peer];
    return (*out)->done ? RAIL_OK : cuda_event_take(g->device, CALL, &(*out)->done);
}

static uint64_t counter_at(const struct gpu *g, uint32_t target, uint32_t source, uint32_t signal)
{
    return gpu_in_segment(g, &shm_signals_at(&g->segment, target, source)[signal]);
}

enum rail_result gpu_put(struct gpu *g, const struct gpu_put *p, cu_stream stream)
{
    struct gpu_out *out = NULL;
    RAIL_TRY(out_of(g, p->peer, &out));
    if (out->used) RAIL_TRY(cuda_stream_after(g->device, CALL, stream, out->done));
    RAIL_TRY(cuda_copy_on(g->device, CALL, p->to, p->from, p->bytes, stream));
    RAIL_TRY(cuda_stream_write_value(g->device, CALL, stream, counter_at(g, p->peer, g->self, p->signal),
                                     ++out->sent[p->signal]));
    RAIL_TRY(cuda_event_record(g->device, CALL, out->done, stream));
    out->used = true;
    return RAIL_OK;
}

/* ---- waits ---- */

enum rail_result gpu_wait_for(struct gpu *g, uint32_t slot, const struct gpu_goal *goals, uint32_t n, cu_stream stream)
{
    struct gpu_batch_under_way *b = &g->beside.batch[slot];
    pthread_mutex_lock(&g->beside.lock);
    struct gpu_goal *more = realloc(b->goals, (b->n_goals + n + 1) * sizeof *more);
    if (more) b->goals = more;
    for (uint32_t k = 0; more && k < n; k++) b->goals[b->n_goals++] = goals[k];
    pthread_mutex_unlock(&g->beside.lock);
    if (!more) return rail_fail(RAIL_E_SYSTEM, "ncclWaitSignal: out of memory for %u signals", n);
    for (uint32_t k = 0; k < n; k++)
        RAIL_TRY(cuda_stream_wait_value(g->device, CALL, stream, counter_at(g, g->self, goals[k].peer, goals[k].signal),
                                        goals[k].value));
    return RAIL_OK;
}

static _Atomic uint64_t *counter_of(const struct gpu *g, const struct gpu_goal *goal)
{
    return &shm_signals_at(&g->segment, g->self, goal->peer)[goal->signal];
}

uint32_t gpu_missing(struct gpu *g, struct gpu_goal *out, uint32_t room)
{
    uint32_t n = 0, used = atomic_load(&g->beside.n_used);
    if (!gpu_beside_waits(g)) return 0;
    pthread_mutex_lock(&g->beside.lock);
    for (uint32_t s = 0; s < used; s++) {
        const struct gpu_batch_under_way *b = &g->beside.batch[s];
        for (uint32_t k = 0; k < b->n_goals && n < room && !has_ended(g, s); k++)
            if (atomic_load_explicit(counter_of(g, &b->goals[k]), memory_order_acquire) < b->goals[k].value)
                out[n++] = b->goals[k];
    }
    pthread_mutex_unlock(&g->beside.lock);
    return n;
}

void gpu_release_waits(struct gpu *g)
{
    struct gpu_goal goal;
    while (gpu_missing(g, &goal, 1)) atomic_store(counter_of(g, &goal), goal.value);
}

/* ---- streams ---- */

enum rail_result gpu_begin_beside(struct gpu *g, const cu_stream *streams, uint32_t n, bool apart, cu_stream *launch)
{
    *launch = apart ? g->apart : streams[0];
    for (uint32_t k = apart ? 0 : 1; k < n; k++) RAIL_TRY(cuda_stream_join(g->device, CALL, *launch, streams[k]));
    return RAIL_OK;
}

enum rail_result gpu_end_beside(struct gpu *g, const cu_stream *streams, uint32_t n, cu_stream launch)
{
    for (uint32_t k = 0; k < n; k++)
        if (streams[k] != launch) RAIL_TRY(cuda_stream_join(g->device, CALL, streams[k], launch));
    return RAIL_OK;
}

void gpu_beside_clear(struct gpu *g)
{
    for (uint32_t s = 0; s < GPU_BATCHES; s++) free(g->beside.batch[s].goals);
    for (uint32_t p = 0; g->outs && p < g->n_peers; p++) {
        if (g->outs[p]) cuda_event_give(g->device, g->outs[p]->done);
        free(g->outs[p]);
    }
    free(g->outs);
    pthread_mutex_destroy(&g->beside.lock);
}
