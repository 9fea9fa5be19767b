/* express.c - a few loads, one line stored, poll, combine in rank order, return (idea in express.h). */
#include "engine/express.h"

#include <string.h>

#include "engine/calls.h"

_Static_assert((SHM_EXPRESS_DEPTH & (SHM_EXPRESS_DEPTH - 1)) == 0, "a place is a round's low bits");
_Static_assert((int)SHM_EXPRESS_DEPTH < (int)SHM_CALLS - 2, "who is ahead by the whole ring can still be compared");

/* ---- lines ---- */

static inline struct shm_express_line *line_of(const struct host_node *node, uint32_t peer, uint64_t round)
{
    return &node->segment.express[peer].line[round % SHM_EXPRESS_DEPTH];
}

/* Where `bytes` of a message stand: the same on all ranks, which know how many it has. */
static inline unsigned char *data_of(const struct host_node *node, uint32_t peer, uint64_t round, size_t bytes)
{
    struct shm_express *of = &node->segment.express[peer];
    uint64_t place = round % SHM_EXPRESS_DEPTH;
    return bytes <= SHM_EXPRESS_LINE ? of->line[place].data : of->body[place].data;
}

static inline bool is_there(const struct shm_express_line *line, uint64_t round)
{
    return atomic_load_explicit(&line->sequence, memory_order_acquire) > round;
}

static inline bool gives(const struct host_node *node, const struct express_call *call)
{
    return !call->kind.root_gives || node->ranks[node->self] == call->root;
}

static inline bool gets(const struct host_node *node, const struct express_call *call)
{
    return !call->kind.root_gets || node->ranks[node->self] == call->root;
}

/* What one rank gives. */
static inline size_t given_bytes(const struct host_node *node, const struct express_call *call)
{
    return call->count * rail_type_bytes(call->how.type) * (call->kind.input_blocks ? node->segment.geometry.n_peers : 1);
}

static inline uint32_t peer_of(const struct host_node *node, uint32_t rank)
{
    uint32_t peer = rank; /* mostly */
    if (__builtin_expect(node->ranks[peer] == rank, 1)) return peer;
    for (peer = 0; node->ranks[peer] != rank;) peer++;
    return peer;
}

/* Peers whose data this rank waits for, a bit each. */
static inline uint32_t awaited(const struct host_node *node, const struct express_call *call)
{
    uint32_t from = (1u << node->segment.geometry.n_peers) - 1;
    if (!gets(node, call)) return 0;
    if (call->kind.root_gives) from = 1u << peer_of(node, call->root);
    return from & ~(1u << node->self);
}

/* A peer's line of this round is there: whether it has called what I have. Where I do not wait for its data it may write the
 * line again, in a round to come: then this one cannot be compared any more, and that one will be. */
static inline enum rail_result compare(const struct host_node *node, uint32_t peer, const struct shm_express_line *line,
                                       uint64_t round, uint64_t history)
{
    if (__builtin_expect(atomic_load_explicit(&line->history, memory_order_acquire) == history, 1)) return RAIL_OK;
    if (atomic_load_explicit(&line->sequence, memory_order_relaxed) != round + 1) return RAIL_OK;
    return calls_diverged(node, node->ranks[peer]);
}

/* ---- giving ---- */

/* Whether all are through with what stands in this round's place: so far as I know; or it is nothing. */
static inline bool has_room(const struct host_node *node, uint64_t round)
{
    return round < node->express.through + SHM_EXPRESS_DEPTH || node->express.given + SHM_EXPRESS_DEPTH <= round;
}

/* The round whose flags of all peers say that half of the ring is free for this one. */
static inline uint64_t half_before(uint64_t round) { return round - SHM_EXPRESS_DEPTH / 2; }

static enum rail_result room_of(const struct host_node *node, uint32_t peer, uint64_t round)
{
    uint64_t half = half_before(round);
    const struct shm_express_line *mine = line_of(node, node->self, half), *line = line_of(node, peer, half);
    if (!is_there(line, half)) return RAIL_NOT_YET;
    return compare(node, peer, line, half, atomic_load_explicit(&mine->history, memory_order_relaxed));
}

static enum rail_result find_room(struct host_node *node, uint64_t round)
{
    for (uint32_t p = 0; p < node->segment.geometry.n_peers; p++)
        if (p != node->self) RAIL_TRY(room_of(node, p, round));
    node->express.through = half_before(round);
    return RAIL_OK;
}

/* Writes my line of this round, with what I give, and tells the sleepers. */
static inline void post(struct host_node *node, const struct express_call *call, uint64_t round, uint64_t history)
{
    struct shm_express_line *line = line_of(node, node->self, round);
    if (gives(node, call)) {
        size_t bytes = given_bytes(node, call);
        void *const dst[1] = {data_of(node, node->self, round, bytes)};
        const void *const src[1] = {call->input};
        if (call->how.scaled)
            rail_combine(&call->how, dst, 1, src, 1, 1, false, bytes / rail_type_bytes(call->how.type));
        else
            memcpy(dst[0], call->input, bytes);
        node->express.given = round + 1;
    }
    atomic_store_explicit(&line->sequence, 0, memory_order_relaxed); /* the history that follows is not the last one's */
    atomic_store_explicit(&line->history, history, memory_order_release);
    atomic_store_explicit(&line->sequence, round + 1, memory_order_release);
    shm_notify_all(&node->segment);
}

/* ---- getting ---- */

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

/* What this rank is to get, from the lines of all who give it something. */
static inline void get(const struct host_node *node, const struct express_call *call, uint64_t round)
{
    uint32_t n = node->segment.geometry.n_peers;
    size_t block = call->count * rail_type_bytes(call->how.type), bytes = given_bytes(node, call);
    size_t mine = call->kind.input_blocks ? node->ranks[node->self] * block : 0;
    const void *src[EXPRESS_MAX_PEERS];
    void *const dst[1] = {call->output};
    if (call->kind.root_gives) {
        bool own = gives(node, call); /* my lines are on their way to the others */
        const unsigned char *from = own ? call->input : data_of(node, peer_of(node, call->root), round, bytes);
        if (from + mine != call->output) memcpy(call->output, from + mine, block);
        return;
    }
    for (uint32_t p = 0; p < n; p++) src[p] = data_of(node, p, round, bytes) + mine;
    if (call->kind.reduces) {
        if (combine_two_floats(&call->how, src, (int)n, call->output, call->count)) return;
        (call->balanced ? rail_combine_balanced : rail_combine_to)(&call->how, dst, 1, src, (int)n, 0, true, call->count,
                                                                   (struct rail_stores){0, 0});
        return;
    }
    for (uint32_t p = 0; p < n; p++)
        memcpy((unsigned char *)call->output + (call->kind.output_blocks ? node->ranks[p] * block : 0), src[p], block);
}

/* All peers have stored their flags of `round`, or it was a round with a root. */
static inline void met(struct host_node *node, const struct express_call *call, uint64_t round)
{
    if (!call->kind.rooted) node->express.through = round;
}

/* ---- in steps ---- */

void express_begin(struct host_node *node, const struct express_call *call, struct express_op *op)
{
    *op = (struct express_op){.call = *call, .round = node->express.round++, .history = node->history, .running = true};
    if (!has_room(node, op->round)) return;
    post(node, call, op->round, op->history);
    op->posted = true;
}

enum rail_result express_progress(struct host_node *node, struct express_op *op)
{
    if (!op->posted) {
        RAIL_TRY(find_room(node, op->round));
        post(node, &op->call, op->round, op->history);
        op->posted = true;
    }
    uint32_t from = awaited(node, &op->call);
    for (; from >> op->seen; op->seen++) {
        const struct shm_express_line *line = line_of(node, op->seen, op->round);
        if (!(from >> op->seen & 1)) continue;
        if (!is_there(line, op->round)) return RAIL_NOT_YET;
        RAIL_TRY(compare(node, op->seen, line, op->round, op->history));
    }
    op->running = false;
    met(node, &op->call, op->round);
    if (gets(node, &op->call)) get(node, &op->call, op->round);
    return RAIL_OK;
}

struct express_wait express_wait(const struct host_node *node, const struct express_op *op)
{
    uint32_t all = (1u << node->segment.geometry.n_peers) - 1;
    if (op->posted) return (struct express_wait){op->round, awaited(node, &op->call), false};
    return (struct express_wait){half_before(op->round), all & ~(1u << node->self), true};
}

/* ---- to the end ---- */

static enum rail_result await_line(struct host_node *node, struct wait_policy *policy, const _Atomic uint32_t *stop,
                                   uint32_t peer, const struct express_wait *wait)
{
    const struct shm_express_line *line = line_of(node, peer, wait->round);
    struct waiter w = {0};
    while (!is_there(line, wait->round)) {
        if (__builtin_expect(atomic_load_explicit(stop, memory_order_relaxed) != 0, 0)) {
            wait_end(&w, policy, &node->segment, node->self);
            return RAIL_E_ABORTED;
        }
        wait_pause(&w, policy, &node->segment, node->self);
        if (__builtin_expect(!wait_is_long(&w), 1)) continue;
        node->express.wait = *wait;
        RAIL_TRY(node->suspect ? node->suspect(node->owner) : calls_compare_node(node));
    }
    wait_end(&w, policy, &node->segment, node->self);
    return RAIL_OK;
}

__attribute__((noinline)) static enum rail_result await_room(struct host_node *node, struct wait_policy *policy,
                                                             const _Atomic uint32_t *stop, uint64_t round)
{
    const struct express_wait wait = express_wait(node, &(struct express_op){.round = round});
    enum rail_result result;
    while ((result = find_room(node, round)) == RAIL_NOT_YET)
        for (uint32_t p = 0; wait.from >> p; p++)
            if (wait.from >> p & 1) RAIL_TRY(await_line(node, policy, stop, p, &wait));
    return result;
}

enum rail_result express_collective(struct host_node *node, struct wait_policy *policy, const _Atomic uint32_t *stop,
                                    const struct express_call *call)
{
    uint64_t round = node->express.round++;
    const struct express_wait wait = {round, awaited(node, call), false};
    if (__builtin_expect(!has_room(node, round), 0)) RAIL_TRY(await_room(node, policy, stop, round));
    post(node, call, round, node->history);
    for (uint32_t p = 0; wait.from >> p; p++) {
        if (!(wait.from >> p & 1)) continue;
        RAIL_TRY(await_line(node, policy, stop, p, &wait));
        RAIL_TRY(compare(node, p, line_of(node, p, round), round, node->history));
    }
    met(node, call, round);
    if (gets(node, call)) get(node, call, round);
    return RAIL_OK;
}
