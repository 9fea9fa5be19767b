/* express.c - a few loads, one line stored, poll, combine in rank order, return (idea in express.h). */
#include "engine/express.h"

#include <string.h>

#include "engine/calls.h"

/* Writes my line of this round, with what I give, and tells the sleepers. */
static void post(struct host_node *node, const struct express_call *call, uint64_t round)
{
    struct shm_express *line = &node->segment.controls[node->self].express[round % SHM_DEPTH];
    bool gives = !call->kind.root_gives || node->ranks[node->self] == call->root;
    size_t count = call->count * (call->kind.input_blocks ? node->segment.geometry.n_peers : 1);
    if (gives && call->how.scaled) {
        void *const dst[1] = {line->data};
        const void *const src[1] = {call->input};
        rail_combine(&call->how, dst, 1, src, 1, 1, false, count);
    } else if (gives) {
        memcpy(line->data, call->input, count * rail_type_bytes(call->how.type));
    }
    line->signature = call->signature;
    atomic_store_explicit(&line->sequence, round + 1, memory_order_release);
    shm_notify_all(&node->segment);
}

static enum rail_result await(struct host_node *node, struct wait_policy *policy, const _Atomic uint32_t *stop,
                              const struct shm_express *line, uint64_t sequence)
{
    struct waiter w = {0};
    while (atomic_load_explicit(&line->sequence, memory_order_acquire) < sequence) {
        if (__builtin_expect(atomic_load_explicit(stop, memory_order_relaxed) != 0, 0)) {
            wait_end(&w, policy, &node->segment, node->self);
            return RAIL_E_ABORTED;
        }
        wait_pause(&w, policy, &node->segment, node->self);
        if (__builtin_expect(wait_is_long(&w), 0)) RAIL_TRY(node->suspect ? node->suspect(node->owner) : calls_compare_node(node));
    }
    wait_end(&w, policy, &node->segment, node->self);
    return RAIL_OK;
}

/* The commonest call without the detour through the general kernel, which pays from a line on: same order, same rounding. */
enum { FEW = SHM_LINE / sizeof(float) };

static bool combine_two_floats(const struct rail_combine *how, const void *const *src, int n, void *output,
                               size_t count)
{
    if (how->type != RAIL_F32 || how->op != RAIL_SUM || n != 2 || count > FEW) return false;
    float sum[FEW], other[FEW];
    memcpy(sum, src[0], count * sizeof(float));
    memcpy(other, src[1], count * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        sum[i] += other[i];
        if (__builtin_isnan(sum[i])) return false; /* canonical NaNs are the general kernel's business */
    }
    memcpy(output, sum, count * sizeof(float));
    return true;
}

/* A peer's line of this round is there: whether it is of the same call. */
static inline enum rail_result compare(struct host_node *node, uint32_t peer, const struct shm_express *line, uint64_t signature)
{
    if (__builtin_expect(line->signature == signature, 1)) return RAIL_OK;
    return calls_differ(node, node->ranks[peer], line->signature, signature);
}

/* What this rank is to get, from everybody's lines. */
static void get(const struct host_node *node, const struct express_call *call, uint64_t round)
{
    uint32_t n = node->segment.geometry.n_peers, rank = node->ranks[node->self];
    size_t block = call->count * rail_type_bytes(call->how.type), mine = call->kind.input_blocks ? rank * block : 0;
    const void *src[EXPRESS_MAX_PEERS];
    void *const dst[1] = {call->output};
    if (call->kind.root_gets && rank != call->root) return;
    for (uint32_t p = 0; p < n; p++) src[p] = node->segment.controls[p].express[round % SHM_DEPTH].data + mine;
    if (call->kind.reduces) {
        if (combine_two_floats(&call->how, src, (int)n, call->output, call->count)) return;
        (call->balanced ? rail_combine_balanced : rail_combine)(&call->how, dst, 1, src, (int)n, 0, true, call->count);
        return;
    }
    for (uint32_t p = 0; p < n; p++) {
        size_t at = call->kind.output_blocks ? node->ranks[p] * block : 0;
        if (call->kind.root_gives && node->ranks[p] != call->root) continue;
        memcpy((unsigned char *)call->output + at, src[p], block);
    }
}

void express_begin(struct host_node *node, const struct express_call *call, struct express_op *op)
{
    *op = (struct express_op){.call = *call, .round = node->express_round++, .running = true};
    post(node, call, op->round);
}

enum rail_result express_progress(struct host_node *node, struct express_op *op)
{
    for (; op->seen < node->segment.geometry.n_peers; op->seen++) {
        const struct shm_express *line = &node->segment.controls[op->seen].express[op->round % SHM_DEPTH];
        if (op->seen == node->self) continue;
        if (atomic_load_explicit(&line->sequence, memory_order_acquire) < op->round + 1) return RAIL_NOT_YET;
        RAIL_TRY(compare(node, op->seen, line, op->call.signature));
    }
    op->running = false;
    get(node, &op->call, op->round);
    return RAIL_OK;
}

/* Until everybody's line of the round is there. */
static inline enum rail_result meet(struct host_node *node, struct wait_policy *policy, const _Atomic uint32_t *stop,
                                    uint64_t round, uint64_t signature)
{
    for (uint32_t p = 0; p < node->segment.geometry.n_peers; p++) {
        const struct shm_express *line = &node->segment.controls[p].express[round % SHM_DEPTH];
        if (p == node->self) continue;
        RAIL_TRY(await(node, policy, stop, line, round + 1));
        RAIL_TRY(compare(node, p, line, signature));
    }
    return RAIL_OK;
}

enum rail_result express_collective(struct host_node *node, struct wait_policy *policy, const _Atomic uint32_t *stop,
                                    const struct express_call *call)
{
    uint64_t round = node->express_round++;
    post(node, call, round);
    RAIL_TRY(meet(node, policy, stop, round, call->signature));
    get(node, call, round);
    return RAIL_OK;
}
