/* express.c - a few loads, one line stored, poll, combine in rank order, return (idea in express.h). */
#include "engine/express.h"

#include <string.h>

#include "engine/calls.h"

/* Writes my line of this message and tells the sleepers. */
static void post(struct host_node *node, uint64_t round, const struct rail_combine *how, const void *input,
                 size_t count, uint64_t signature)
{
    struct shm_express *line = &node->segment.controls[node->self].express[round % SHM_DEPTH];
    if (count == 0) {
        /* I have nothing to give: the line says that I am here */
    } else if (how->scaled) {
        void *const dst[1] = {line->data};
        const void *const src[1] = {input};
        rail_combine(how, dst, 1, src, 1, 1, false, count);
    } else {
        memcpy(line->data, input, count * rail_type_bytes(how->type));
    }
    line->signature = signature;
    atomic_store_explicit(&line->sequence, round + 1, memory_order_release);
    shm_notify_all(&node->segment, node->self);
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

/* Everybody's data of this round, from `offset` on. */
static inline enum rail_result meet(struct host_node *node, struct wait_policy *policy, const _Atomic uint32_t *stop,
                                    uint64_t round, uint64_t signature, size_t offset,
                                    const void *src[EXPRESS_MAX_PEERS])
{
    for (uint32_t p = 0; p < node->segment.geometry.n_peers; p++) {
        const struct shm_express *line = &node->segment.controls[p].express[round % SHM_DEPTH];
        if (p != node->self) {
            RAIL_TRY(await(node, policy, stop, line, round + 1));
            if (__builtin_expect(line->signature != signature, 0))
                return calls_differ(node, node->ranks[p], line->signature, signature);
        }
        src[p] = line->data + offset;
    }
    return RAIL_OK;
}

enum rail_result express_collective(struct host_node *node, struct wait_policy *policy, const _Atomic uint32_t *stop,
                                    const struct express_call *call)
{
    uint64_t round = node->express_round++;
    uint32_t n = node->segment.geometry.n_peers, rank = node->ranks[node->self];
    size_t block = call->count * rail_type_bytes(call->how.type);
    bool root = rank == call->root, gives = !call->kind.root_gives || root, gets = !call->kind.root_gets || root;
    const void *src[EXPRESS_MAX_PEERS];
    void *const dst[1] = {call->output};
    size_t given = gives ? call->count * (call->kind.input_blocks ? n : 1) : 0;
    size_t mine = call->kind.input_blocks ? rank * block : 0;
    post(node, round, &call->how, call->input, given, call->signature);
    RAIL_TRY(meet(node, policy, stop, round, call->signature, mine, src));
    if (!gets) return RAIL_OK;
    if (call->kind.reduces) {
        (call->balanced ? rail_combine_balanced : rail_combine)(&call->how, dst, 1, src, (int)n, 0, true, call->count);
        return RAIL_OK;
    }
    for (uint32_t p = 0; p < n; p++) {
        size_t at = call->kind.output_blocks ? node->ranks[p] * block : 0;
        if (!call->kind.root_gives || node->ranks[p] == call->root) memcpy((unsigned char *)call->output + at, src[p], block);
    }
    return RAIL_OK;
}

enum rail_result express_allreduce(struct host_node *node, struct wait_policy *policy,
                                   const _Atomic uint32_t *stop, const struct rail_combine *how, const void *input,
                                   void *output, size_t count, uint64_t signature, bool balanced)
{
    uint64_t round = node->express_round++;
    const void *src[EXPRESS_MAX_PEERS];
    int n = (int)node->segment.geometry.n_peers;
    post(node, round, how, input, count, signature);
    RAIL_TRY(meet(node, policy, stop, round, signature, 0, src));
    if (combine_two_floats(how, src, n, output, count)) return RAIL_OK;
    void *const dst[1] = {output};
    (balanced ? rail_combine_balanced : rail_combine)(how, dst, 1, src, n, 0, true, count);
    return RAIL_OK;
}
