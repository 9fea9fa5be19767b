/* host_read.c - moves whose sources lie in other processes and are read by the kernel.
 *
 *   one source, copied      far ──kernel──► destination ──► further destinations
 *   several, combined       far ──kernel──► a part of the bench ─┐
 *                           at hand ─────────────────────────────┴──► destinations         bench by bench
 *
 * The bench stays in the cache, so what is combined costs no more memory traffic than sources at hand; it is no destination,
 * for that may be a source as well (in place). */
#include <errno.h>
#include <string.h>

#include "engine/moving.h"

/* A peer that withdraws while it is read may have let go of its buffer: what was read then counts for nothing. */
static bool withdrawn(const struct host_node *node)
{
    return atomic_load_explicit(&node->segment.header->withdrawn, memory_order_seq_cst) != 0;
}

__attribute__((cold)) static enum rail_result unread(const struct host_op *op, uint32_t peer, size_t bytes)
{
    int why = errno;
    const struct host_node *node = op->node;
    uint32_t rank = node->ranks[peer];
    enum rail_result result = why == ESRCH ? RAIL_E_REMOTE : RAIL_E_SYSTEM;
    rail_fail_quietly(result, "rank %u: %zu bytes of rank %u's buffer cannot be read where they lie (process_vm_readv of pid %d: %s); "
                      "with RAILCCL_READ_MIN_BYTES=0 at rank %u they are copied instead", node->ranks[node->self], bytes, rank,
                      node->owners[peer].pid, strerror(why), rank);
    return result == RAIL_E_REMOTE ? rail_blame((int)rank, result) : result;
}

static enum rail_result read_far(const struct host_op *op, uint32_t peer, void *to, const void *from, size_t bytes)
{
    bool whole = peer_memory_read(&op->node->owners[peer], to, (uintptr_t)from, bytes);
    if (withdrawn(op->node)) return RAIL_NOT_YET;
    return whole ? RAIL_OK : unread(op, peer, bytes);
}

static enum rail_result copy_far(const struct host_op *op, struct moving *m)
{
    size_t bytes = (size_t)m->count * moving_element_bytes(op);
    RAIL_TRY(read_far(op, m->far_peer[0], m->dst[0], m->src[0], bytes));
    for (int k = 1; k < m->n_dst; k++) memcpy(m->dst[k], m->dst[0], bytes);
    return RAIL_OK;
}

static enum rail_result fill_bench(const struct host_op *op, const struct moving *m, struct moving *near, size_t part, uint64_t first,
                                   uint64_t count)
{
    size_t element = moving_element_bytes(op);
    unsigned char *bench = op->node->bench;
    for (int k = 0; k < m->n_src; k++) {
        if (!(m->far >> k & 1)) continue;
        RAIL_TRY(read_far(op, m->far_peer[k], bench, (const unsigned char *)m->src[k] + first * element, (size_t)count * element));
        near->src[k] = bench;
        bench += part;
    }
    return RAIL_OK;
}

static enum rail_result combine_far(const struct host_op *op, const struct plan_step *step, const struct moving *m)
{
    struct moving near = *m;
    size_t part = HOST_BENCH_BYTES / (size_t)__builtin_popcountll(m->far) / SHM_LINE * SHM_LINE;
    uint64_t most = part / moving_element_bytes(op), count;
    for (uint64_t first = 0; first < m->count; first += count) {
        count = m->count - first < most ? m->count - first : most;
        RAIL_TRY(fill_bench(op, m, &near, part, first, count));
        moving_combine(op, step, &near, first, count);
    }
    return RAIL_OK;
}

enum rail_result moving_read(const struct host_op *op, const struct plan_step *step, struct moving *m)
{
    bool copies = m->n_src == 1 && m->n_dst > 0;
    if (!m->count) return RAIL_OK;
    if (!op->node->owners) return rail_fail(RAIL_E_INTERNAL, "rank %u: a peer's buffer is to be read by the kernel, which it was agreed "
                                            "not to be", op->node->ranks[op->node->self]);
    if (!host_touch_begin(op->node)) return RAIL_NOT_YET;
    enum rail_result result = copies ? copy_far(op, m) : combine_far(op, step, m);
    host_touch_end(op->node);
    return result;
}
