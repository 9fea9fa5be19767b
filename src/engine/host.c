/* host.c - runs plans. A strand is a program counter; a step either happens whole or not yet. */
#include "engine/host.h"

#include <sched.h>
#include <stdio.h>

#include "base/clock.h"
#include "engine/calls.h"
#include "engine/lending.h"

#define NO_LOOP UINT16_MAX

_Static_assert((int)PLAN_COUNTERS <= (int)SHM_COUNTERS, "a counter of the plan is a line of the segment");
_Static_assert((int)PLAN_WINDOW_DEPTH == (int)SHM_DEPTH, "windows alternate as the plans say");

static struct plan_range piece_of(const struct host_op *op, const struct run *run, uint32_t piece)
{
    const struct plan_split *split = &op->call.split;
    return plan_part(run->whole, split->n_pieces, piece % split->n_pieces, split->grain);
}

/* A piece of somebody's buffers, in bytes from their start. */
static uint64_t in_input(const struct host_op *op, uint32_t piece, uint64_t first)
{
    return plan_in_buffer(&op->call.split, &op->call.blocks, op->call.blocks.input, piece, first) * moving_element_bytes(op);
}
static uint64_t in_output(const struct host_op *op, uint32_t piece, uint64_t first)
{
    return plan_in_buffer(&op->call.split, &op->call.blocks, op->call.blocks.output, piece, first) * moving_element_bytes(op);
}

/* A piece inside a window: windows hold one round of the buffer that they stand for. */
static unsigned char *in_window(const struct host_op *op, const struct run *run, uint32_t peer, enum shm_window which,
                                uint32_t piece, uint64_t first)
{
    int several = which == SHM_WINDOW_IN ? op->call.blocks.input : op->call.blocks.output;
    return shm_window_at(&op->node->segment, peer, run->instance->plan.channel, which, run->window) +
           plan_in_window(&op->call.split, run->whole, several, piece, first) * moving_element_bytes(op);
}

static const struct shm_exposure *exposure_of(const struct host_op *op, const struct run *run, uint32_t peer)
{
    const struct shm_rounds *rounds = shm_rounds_of(&op->node->segment, peer, run->instance->plan.channel);
    return &rounds->exposure[run->window % SHM_DEPTH];
}

/* Where a peer's own buffer, `at` its address or its offset in memory registered as `number`, lies here. */
static enum rail_result in_peer_buffer(const struct host_op *op, const struct shm_exposure *theirs, uint32_t peer, uint64_t at,
                                       uint32_t number, unsigned char **out)
{
    if (theirs->direct == SHM_BY_ADDRESS) {
        *out = (unsigned char *)(uintptr_t)at; /* of this process */
        return RAIL_OK;
    }
    const struct host_shares *shares = op->node->shares;
    for (uint32_t i = 0; shares && i < shares->n; i++)
        if (shares->of[i].number == number && shares->of[i].at[peer]) {
            *out = shares->of[i].at[peer] + at;
            return RAIL_OK;
        }
    return rail_fail(RAIL_E_INTERNAL, "rank %u offers its window %u, which is not mapped here", op->node->ranks[peer], number);
}

/* A link says what happened to its lanes, not whom it led to. Where news of a death is on its way it will replace this
 * text: the far end may only have closed because of a third. */
__attribute__((cold)) static enum rail_result broken(const struct link *link, uint32_t far, enum rail_result result)
{
    if (result != RAIL_E_REMOTE) return result;
    char why[400];
    snprintf(why, sizeof why, "%s", rail_own_error());
    rail_fail_quietly(result, "link %u -> %u: the connection to rank %u is lost: %s", link->from, link->to, far, why);
    return rail_blame((int)far, result);
}

static enum rail_result source_slot(struct host_op *op, struct moving *m, struct link *link)
{
    const void *slot;
    size_t bytes;
    uint64_t signature;
    enum rail_result result = link->ops->wait(link, &slot, &bytes, &signature);
    if (result != RAIL_OK) return result == RAIL_NOT_YET ? result : broken(link, link->from, result);
    if (signature != op->call.signature) return calls_differ(op->node, link->from, signature, op->call.signature);
    if (bytes != m->count * moving_element_bytes(op))
        return rail_fail(RAIL_E_INTERNAL, "link %u -> %u: slot %llu holds %zu bytes, the plan expects %llu", link->from,
                         link->to, (unsigned long long)link->sequence, bytes,
                         (unsigned long long)(m->count * moving_element_bytes(op)));
    m->src[m->n_src++] = slot;
    m->in[m->n_in++] = link;
    return RAIL_OK;
}

static void source_far(struct moving *m, uint32_t peer, uint64_t at)
{
    m->far |= 1ull << m->n_src;
    m->far_peer[m->n_src] = peer;
    m->src[m->n_src++] = (const void *)(uintptr_t)at;
}

static enum rail_result source_peer_input(struct host_op *op, const struct run *run, struct moving *m, uint32_t peer,
                                          uint32_t piece, uint64_t first)
{
    if (peer == op->node->self) {
        m->scale_mask |= 1ull << m->n_src;
        m->src[m->n_src++] = (const unsigned char *)op->call.input + in_input(op, piece, first);
        return RAIL_OK;
    }
    const struct shm_exposure *theirs = exposure_of(op, run, peer);
    if (theirs->signature != op->call.signature)
        return calls_differ(op->node, op->node->ranks[peer], theirs->signature, op->call.signature);
    unsigned char *buffer;
    if (theirs->direct == SHM_STAGED) {
        m->src[m->n_src++] = in_window(op, run, peer, SHM_WINDOW_IN, piece, first);
        return RAIL_OK;
    }
    if (theirs->direct == SHM_BY_KERNEL) {
        source_far(m, peer, theirs->input + in_input(op, piece, first));
        return RAIL_OK;
    }
    RAIL_TRY(in_peer_buffer(op, theirs, peer, theirs->input, theirs->input_window, &buffer));
    m->direct = true;
    m->src[m->n_src++] = buffer + in_input(op, piece, first);
    return RAIL_OK;
}

static enum rail_result source_peer_output(struct host_op *op, const struct run *run, struct moving *m, uint32_t peer,
                                           uint32_t piece, uint64_t first)
{
    const struct shm_exposure *theirs = exposure_of(op, run, peer);
    if (theirs->signature != op->call.signature)
        return calls_differ(op->node, op->node->ranks[peer], theirs->signature, op->call.signature);
    if (theirs->direct == SHM_BY_KERNEL)
        source_far(m, peer, theirs->output + in_output(op, piece, first));
    else
        m->src[m->n_src++] = in_window(op, run, peer, SHM_WINDOW_OUT, piece, first);
    return RAIL_OK;
}

/* Lengths are those of the move's other operands. */
static unsigned char *in_scratch(const struct host_op *op, const struct run *run, uint32_t piece)
{
    const struct plan *plan = &run->instance->plan;
    return op->call.scratch + ((size_t)plan->channel * plan->n_scratch + piece) * op->call.scratch_piece_bytes;
}

static enum rail_result resolve_source(struct host_op *op, const struct run *run, const struct plan_operand *operand,
                                       struct moving *m)
{
    uint32_t piece = plan_index_at(operand->piece, run->i);
    if (operand->place == PLAN_SCRATCH) {
        m->src[m->n_src++] = in_scratch(op, run, piece);
        return RAIL_OK;
    }
    struct plan_range range = piece_of(op, run, piece);
    uint32_t which = plan_index_at(operand->which, run->i);
    m->count = range.count;
    switch (operand->place) {
    case PLAN_INPUT:
        m->scale_mask |= 1ull << m->n_src;
        m->src[m->n_src++] = (const unsigned char *)op->call.input + in_input(op, piece, range.first);
        return RAIL_OK;
    case PLAN_OUTPUT:
        m->src[m->n_src++] = (const unsigned char *)op->call.output + in_output(op, piece, range.first);
        return RAIL_OK;
    case PLAN_SLOT_IN:
        return source_slot(op, m, run->instance->links[which]);
    case PLAN_PEER_INPUT:
        for (uint32_t k = 0; k < operand->span; k++)
            RAIL_TRY(source_peer_input(op, run, m, (which + k) % operand->which.m, piece, range.first));
        return RAIL_OK;
    case PLAN_PEER_OUTPUT:
        return source_peer_output(op, run, m, which, piece, range.first);
    default:
        return rail_fail(RAIL_E_INTERNAL, "plan: place %u cannot be read", operand->place);
    }
}

static void add_output(const struct host_op *op, struct moving *m, unsigned char *at)
{
    if (op->call.streams) m->stores.streamed |= 1ull << m->n_dst;
    m->dst[m->n_dst++] = at;
}

/* One store serves all peers that fetch it: from my out-window, or from my output where the kernel reads that. */
static enum rail_result destination_peer_outputs(struct host_op *op, const struct run *run,
                                                 const struct plan_operand *operand, struct moving *m, uint32_t which,
                                                 uint32_t piece, uint64_t first)
{
    bool staged = false;
    for (uint32_t k = 0; k < operand->span; k++) {
        uint32_t peer = (which + k) % operand->which.m;
        const struct shm_exposure *theirs = exposure_of(op, run, peer);
        if (peer != op->node->self && theirs->signature != op->call.signature)
            return calls_differ(op->node, op->node->ranks[peer], theirs->signature, op->call.signature);
        unsigned char *buffer = op->call.output;
        if (peer != op->node->self && host_fetches(theirs->direct)) {
            staged = true;
            continue;
        }
        if (peer != op->node->self) {
            RAIL_TRY(in_peer_buffer(op, theirs, peer, theirs->output, theirs->output_window, &buffer));
            m->direct = true;
        }
        add_output(op, m, buffer + in_output(op, piece, first));
    }
    if (!staged || op->call.direct == SHM_BY_KERNEL) return RAIL_OK;
    if (op->call.spread) m->stores.shared |= 1ull << m->n_dst;
    m->dst[m->n_dst++] = in_window(op, run, op->node->self, SHM_WINDOW_OUT, piece, first);
    return RAIL_OK;
}

static enum rail_result resolve_destination(struct host_op *op, const struct run *run,
                                            const struct plan_operand *operand, struct moving *m)
{
    uint32_t piece = plan_index_at(operand->piece, run->i);
    struct plan_range range = piece_of(op, run, piece);
    uint32_t which = plan_index_at(operand->which, run->i);
    m->count = operand->place == PLAN_SCRATCH ? m->count : range.count;
    switch (operand->place) {
    case PLAN_SCRATCH:
        m->dst[m->n_dst++] = in_scratch(op, run, piece);
        return RAIL_OK;
    case PLAN_OUTPUT:
        add_output(op, m, (unsigned char *)op->call.output + in_output(op, piece, range.first));
        return RAIL_OK;
    case PLAN_SLOT_OUT: {
        struct link *link = run->instance->links[which];
        void *slot;
        enum rail_result result = link->ops->acquire(link, &slot);
        if (result != RAIL_OK) return result == RAIL_NOT_YET ? result : broken(link, link->to, result);
        m->slot[m->n_out] = slot;
        m->dst[m->n_dst++] = slot;
        m->out[m->n_out++] = link;
        return RAIL_OK;
    }
    case PLAN_PEER_INPUT:
        m->dst[m->n_dst++] = in_window(op, run, op->node->self, SHM_WINDOW_IN, piece, range.first);
        return RAIL_OK;
    case PLAN_PEER_OUTPUT:
        return destination_peer_outputs(op, run, operand, m, which, piece, range.first);
    default:
        return rail_fail(RAIL_E_INTERNAL, "plan: place %u cannot be written", operand->place);
    }
}

/* A rank that fails goes home with its buffers, and frees them, while others may be at them. So I say first that I am, and
 * look then whether anybody has withdrawn; who withdraws says so first, and looks then. One of the two sees the other. */
bool host_touch_begin(const struct host_node *node)
{
    _Atomic uint32_t *touching = &node->segment.controls[node->self].touching;
    atomic_store_explicit(touching, 1, memory_order_seq_cst);
    if (__builtin_expect(!atomic_load_explicit(&node->segment.header->withdrawn, memory_order_seq_cst), 1)) return true;
    atomic_store_explicit(touching, 0, memory_order_release);
    return false;
}

void host_touch_end(const struct host_node *node)
{
    atomic_store_explicit(&node->segment.controls[node->self].touching, 0, memory_order_release);
}

/* A piece is a window's share, 1 MiB at most by default: below a millisecond, and some time slices without a core. */
#define PIECE_NS (50 * RAIL_NS_PER_MS)

void host_withdraw(const struct host_node *node)
{
    uint64_t near = node->shares ? node->shares->near : 0;
    bool shared = node->owners || (node->shares && node->shares->n > 0); /* peers of other processes may be at my buffers, and
                                                                          may die there */
    atomic_store_explicit(&node->segment.header->withdrawn, 1, memory_order_seq_cst);
    struct rail_deadline patience = rail_deadline_in_ns(PIECE_NS);
    for (uint32_t p = 0; p < node->segment.geometry.n_peers; p++)
        while (p != node->self && atomic_load_explicit(&node->segment.controls[p].touching, memory_order_seq_cst)) {
            if (shared && !(near >> p % 64 & 1) && rail_deadline_passed(patience)) break;
            sched_yield();
        }
}

static void combine(const struct host_op *op, const struct plan_step *step, const struct moving *m)
{
    const struct rail_combine *how = &op->call.how;
    uint64_t scaled = how->scaled ? m->scale_mask : 0;
    bool final = (step->flags & PLAN_FINAL) != 0;
    bool balanced = (step->flags & PLAN_BALANCED) != 0;
    (balanced ? rail_combine_balanced : rail_combine_to)(how, m->dst, m->n_dst, m->src, m->n_src, scaled, final,
                                                         (size_t)m->count, m->stores);
}

void moving_combine(const struct host_op *op, const struct plan_step *step, const struct moving *m, uint64_t first, uint64_t count)
{
    struct moving part = *m;
    size_t at = (size_t)first * moving_element_bytes(op);
    for (int k = 0; k < m->n_src; k++)
        if (!(m->far >> k & 1)) part.src[k] = (const unsigned char *)m->src[k] + at;
    for (int k = 0; k < m->n_dst; k++) part.dst[k] = (unsigned char *)m->dst[k] + at;
    part.count = count;
    combine(op, step, &part);
}

static enum rail_result move_bytes(struct host_op *op, const struct plan_step *step, struct moving *m)
{
    if (m->far) return moving_read(op, step, m);
    if (m->direct && !host_touch_begin(op->node)) return RAIL_NOT_YET; /* the news of why is on its way */
    if (m->count && m->n_dst) combine(op, step, m);
    if (m->direct) host_touch_end(op->node);
    return RAIL_OK;
}

static enum rail_result step_move(struct host_op *op, struct run *run, const struct plan_step *step)
{
    struct moving m;
    m.n_src = m.n_dst = m.n_in = m.n_out = 0;
    m.scale_mask = m.count = 0;
    m.stores = (struct rail_stores){0, 0};
    m.direct = false;
    m.far = 0;
    m.lent = NULL;
    const struct plan_operand *operand = &run->instance->plan.operands[step->first];
    for (int k = 0; k < step->n_src; k++) RAIL_TRY(resolve_source(op, run, &operand[k], &m));
    for (int k = 0; k < step->n_dst; k++) RAIL_TRY(resolve_destination(op, run, &operand[step->n_src + k], &m));
    lending_choose(op, run, step, &m);
    RAIL_TRY(move_bytes(op, step, &m));
    for (int k = 0; k < m.n_in; k++) m.in[k]->ops->release(m.in[k]);
    for (int k = 0; k < m.n_out; k++) {
        if (m.lent && lending_publish(op, run, &m, k)) continue;
        m.out[k]->ops->publish(m.out[k], (size_t)m.count * moving_element_bytes(op), op->call.signature);
    }
    return RAIL_OK;
}

static void step_signal(struct host_op *op, struct run *run, const struct plan_step *step)
{
    struct shm_rounds *mine = shm_rounds_of(&op->node->segment, op->node->self, run->instance->plan.channel);
    if (step->counter == PLAN_STAGED) {
        const struct host_call *call = &op->call;
        bool shared = call->direct == SHM_BY_WINDOW;
        mine->exposure[run->window % SHM_DEPTH] = (struct shm_exposure){
            .input = shared ? call->input_share.offset : (uint64_t)(uintptr_t)call->input,
            .output = shared ? call->output_share.offset : (uint64_t)(uintptr_t)call->output,
            .signature = call->signature,
            .direct = call->direct,
            .input_window = call->input_share.number,
            .output_window = call->output_share.number,
        };
    }
    atomic_store_explicit(&mine->counter[step->counter].value, run->window + 1, memory_order_release);
    op->signalled = true;
    shm_notify_all(&op->node->segment);
}

static enum rail_result step_wait(struct host_op *op, struct run *run, const struct plan_step *step)
{
    if (run->window + 1 <= step->lag) return RAIL_OK;
    uint64_t value = run->window + 1 - step->lag;
    const struct plan_operand *operand = &run->instance->plan.operands[step->first];
    uint32_t which = plan_index_at(operand->which, run->i);
    for (; run->waited < operand->span; run->waited++) {
        uint32_t peer = (which + run->waited) % operand->which.m;
        const struct shm_rounds *theirs = shm_rounds_of(&op->node->segment, peer, run->instance->plan.channel);
        const struct shm_counter *counter = &theirs->counter[step->counter];
        if (atomic_load_explicit(&counter->value, memory_order_acquire) < value) return RAIL_NOT_YET;
    }
    run->waited = 0;
    return RAIL_OK;
}

static bool fills_window(const struct run *run, const struct plan_step *step)
{
    return step->verb == PLAN_MOVE && run->instance->plan.operands[step->first + step->n_src].place == PLAN_PEER_INPUT;
}

/* Who lets the kernel read its buffers goes by the plan as who copies them into its window, but does not copy. */
static bool skipped(const struct host_op *op, const struct run *run, const struct plan_step *step)
{
    bool fetches = host_fetches(op->call.direct);
    if (step->flags & PLAN_IF_DIRECT) return fetches;
    if (step->flags & PLAN_IF_STAGED) return !fetches || (op->call.direct == SHM_BY_KERNEL && fills_window(run, step));
    return false;
}

static enum rail_result step_run(struct host_op *op, struct run *run, const struct plan_step *step)
{
    if (skipped(op, run, step)) return RAIL_OK;
    switch (step->verb) {
    case PLAN_MOVE:
        return step_move(op, run, step);
    case PLAN_SIGNAL:
        step_signal(op, run, step);
        return RAIL_OK;
    case PLAN_WAIT:
        return step_wait(op, run, step);
    default:
        return rail_fail(RAIL_E_INTERNAL, "plan: unknown verb %u", step->verb);
    }
}

static void round_begin(const struct host_op *op, struct run *run, const struct plan_strand *strand)
{
    run->at = strand->first;
    run->end = (uint16_t)(strand->first + strand->n_steps);
    run->loop = NO_LOOP;
    run->i = 0;
    run->whole = plan_round_range(&op->call.split, run->instance->plan.channel, run->round);
}

/* Goes to the step after `at`: into a loop, round it again, out of it. */
static void loop_enter(struct run *run, const struct plan_step *step)
{
    uint32_t i = plan_loop_from(step, 0);
    if (i >= step->times) {
        run->at = (uint16_t)(run->at + 1 + step->body);
        return;
    }
    run->loop = run->at++;
    run->i = i;
}

static void step_next(struct run *run)
{
    run->at++;
    if (run->loop == NO_LOOP) return;
    const struct plan_step *loop = &run->instance->plan.steps[run->loop];
    if (run->at <= run->loop + loop->body) return;
    if ((run->i = plan_loop_from(loop, run->i + 1)) < loop->times) {
        run->at = (uint16_t)(run->loop + 1);
        return;
    }
    run->loop = NO_LOOP;
    run->i = 0;
}

/* What the kernel reads of mine is read when all have said DONE: of the last round, for those before came before. */
bool host_run_released(const struct host_op *op, const struct run *run)
{
    if (op->call.direct != SHM_BY_KERNEL) return true;
    const struct host_node *node = op->node;
    for (uint32_t peer = 0; peer < node->segment.geometry.n_peers; peer++)
        if (peer != node->self && !host_run_done_by(op, run, peer)) return false;
    return true;
}

/* Runs one strand until it blocks or its last round ends. */
static enum rail_result run_progress(struct host_op *op, struct run *run, const struct plan_strand *strand)
{
    for (;;) {
        while (run->at < run->end) {
            const struct plan_step *step = &run->instance->plan.steps[run->at];
            if (step->verb == PLAN_LOOP) {
                loop_enter(run, step);
                continue;
            }
            RAIL_TRY(step_run(op, run, step));
            step_next(run);
        }
        if (run->round + 1 == run->n_rounds && !host_run_released(op, run)) return RAIL_NOT_YET;
        if (++run->round >= run->n_rounds) return RAIL_OK;
        run->window++;
        round_begin(op, run, strand);
    }
}

static const struct plan_strand *strand_of(const struct run *run)
{
    const struct plan *plan = &run->instance->plan;
    for (uint32_t s = 0; s < plan->n_strands; s++)
        if (run->end == plan->strands[s].first + plan->strands[s].n_steps) return &plan->strands[s];
    return &plan->strands[0];
}

size_t host_scratch_bytes(struct host_call *call, const struct plan *plan)
{
    const struct plan_split *s = &call->split;
    uint64_t longest = plan_units(s->count, s->grain) * s->grain;
    if (longest > s->piece_max) longest = s->piece_max;
    call->scratch_piece_bytes = (size_t)longest * rail_type_bytes(call->how.type);
    return (size_t)s->n_channels * plan->n_scratch * call->scratch_piece_bytes;
}

static enum rail_result start_channel(struct host_op *op, const struct instance *instance, uint64_t n_rounds)
{
    const struct plan *plan = &instance->plan;
    if ((plan->n_scratch && !op->call.scratch) || op->n_runs + plan->n_strands > HOST_MAX_RUNS)
        return rail_fail(RAIL_E_INTERNAL, "plan of channel %u: %u strands, %u pieces of scratch", plan->channel,
                         plan->n_strands, plan->n_scratch);
    if ((plan->flags & PLAN_WINDOWS) && plan->channel >= op->node->segment.geometry.window_channels)
        return rail_fail(RAIL_E_INTERNAL, "plan of channel %u: the node has windows for %zu channels", plan->channel,
                         op->node->segment.geometry.window_channels);
    for (uint32_t s = 0; s < plan->n_strands; s++) {
        struct run *run = &op->runs[op->n_runs++];
        *run = (struct run){.instance = instance, .n_rounds = n_rounds};
        if (plan->flags & PLAN_WINDOWS) run->window = op->node->window_round[plan->channel];
        round_begin(op, run, &plan->strands[s]);
    }
    if (plan->flags & PLAN_WINDOWS) op->node->window_round[plan->channel] += n_rounds;
    return RAIL_OK;
}

enum rail_result host_op_start(struct host_op *op, struct host_node *node, const struct host_call *call,
                               struct instance *const *instances)
{
    op->node = node;
    op->call = *call;
    op->n_runs = 0;
    op->lent = false;
    for (uint32_t c = 0; c < call->split.n_channels; c++) {
        uint64_t n_rounds = plan_round_count(&call->split, c);
        if (n_rounds) RAIL_TRY(start_channel(op, instances[c], n_rounds));
    }
    op->n_left = op->n_runs;
    return RAIL_OK;
}

/* Every strand once, as far as it gets. */
static enum rail_result runs_progress(struct host_op *op)
{
    for (uint32_t r = 0; r < op->n_runs; r++) {
        struct run *run = &op->runs[r];
        if (run->round >= run->n_rounds) continue;
        enum rail_result result = run_progress(op, run, strand_of(run));
        if (result == RAIL_OK)
            op->n_left--;
        else if (result != RAIL_NOT_YET)
            return result;
    }
    return op->n_left ? RAIL_NOT_YET : RAIL_OK;
}

/* Nobody wakes a rank for its own signals: it looks itself, until no strand of its has raised any. */
enum rail_result host_op_progress(struct host_op *op)
{
    enum rail_result result;
    do {
        op->signalled = false;
        result = runs_progress(op);
    } while (result == RAIL_NOT_YET && op->signalled);
    if (result != RAIL_OK || !op->lent) return result;
    const struct link *late;
    result = lending_settled(op, &late);
    return result == RAIL_OK || result == RAIL_NOT_YET ? result : broken(late, late->to, result);
}
