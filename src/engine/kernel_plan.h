/* kernel_plan.h - one strand of one channel's plan, run by the leader of its block: engine/host.c for a kernel.
 *
 * A MOVE waits for its slots one after the other, is resolved to addresses in shared memory, done by all threads, then
 * published and released. What a strand does and in which order is what the host engine does, so ranks on GPUs and on
 * hosts can share a plan. */
#ifndef RAIL_ENGINE_KERNEL_PLAN_H
#define RAIL_ENGINE_KERNEL_PLAN_H

#include "engine/kernel_block.h"

#define NO_LOOP 0xffffu
#define NO_LINK 0xffffffffu

KERNEL_FN uint32_t element_bytes(const struct worker *w) { return number_bytes(w->b->call.how.type); }

KERNEL_FN struct plan_range piece_of(const struct worker *w, const struct strand *s, uint32_t piece)
{
    const struct plan_split *split = &w->b->call.split;
    return plan_part(s->whole, split->n_pieces, piece % split->n_pieces, split->grain);
}

/* ---- addresses ------------------------------------------------------------------------------------------------------- */

/* Of a piece in somebody's buffer, in bytes from its start. */
KERNEL_FN uint64_t in_buffer(const struct worker *w, uint32_t several, uint32_t piece, uint64_t first)
{
    const struct kernel_call *call = &w->b->call;
    struct plan_blocks blocks;
    blocks.order = (const uint32_t *)(const void *)at_address(w, call->order);
    blocks.input = blocks.output = 0;
    return plan_in_buffer(&call->split, &blocks, (int)several, piece, first) * element_bytes(w);
}

/* Of a piece in a window of a peer's: its in-window, or its out-window. */
KERNEL_FN uint64_t in_window(const struct worker *w, const struct strand *s, uint32_t peer, uint32_t out, uint32_t piece,
                             uint64_t first)
{
    const struct block *b = w->b;
    uint32_t several = out ? b->call.output_blocks : b->call.input_blocks;
    uint64_t base = word_at(at_address(w, b->node.windows) + 8 * (uint64_t)peer);
    uint64_t number = ((uint64_t)b->plan.channel * 2 + out) * KERNEL_DEPTH + s->window % KERNEL_DEPTH;
    uint64_t offset = plan_in_window(&b->call.split, s->whole, (int)several, piece, first) * element_bytes(w);
    return base + number * b->node.window_bytes + offset;
}

KERNEL_FN unsigned char *rounds_of(const struct worker *w, uint32_t peer)
{
    const struct block *b = w->b;
    uint64_t index = (uint64_t)b->plan.channel * b->node.n_peers + peer;
    return at_address(w, b->node.rounds + index * KERNEL_ROUNDS_BYTES);
}

/* What a peer tells of its buffers in a window round. */
KERNEL_FN unsigned char *exposure_of(const struct worker *w, const struct strand *s, uint32_t peer)
{
    return rounds_of(w, peer) + KERNEL_ROUNDS_EXPOSURE + KERNEL_LINE * (s->window % KERNEL_DEPTH);
}
enum { EXPOSED_INPUT = 0, EXPOSED_OUTPUT = 8, EXPOSED_SIGNATURE = 16, EXPOSED_DIRECT = 24 };

/* ---- operands -------------------------------------------------------------------------------------------------------- */

/* An operand that is being resolved. */
struct resolving {
    uint32_t place, piece, which;
    uint32_t source; /* else a destination */
    struct plan_range range;
};

KERNEL_FN enum leader plan_trouble(const struct worker *w, uint32_t step)
{
    return trouble_found(w, KERNEL_PLAN, step, 0);
}

KERNEL_FN enum leader add(const struct worker *w, const struct resolving *r, uint64_t address, int scaled)
{
    struct combine_job *job = &w->b->job;
    uint32_t n = r->source ? job->n_src : job->n_dst;
    if (n >= RAIL_COMBINE_MAX) return plan_trouble(w, n);
    if (r->source) {
        if (scaled) job->scale_mask |= 1ull << n;
        job->src[n] = at_address(w, address);
        job->n_src = n + 1;
    } else {
        job->dst[n] = at_address(w, address);
        job->n_dst = n + 1;
    }
    return LEADER_GOES_ON;
}

/* The next slot of a link: to be read, when it is there and is what it should be; to be written, when it is free. */
KERNEL_FN enum leader resolve_slot(const struct worker *w, struct strand *s, const struct resolving *r)
{
    struct link_here *link = &w->b->links[r->which];
    uint32_t looks = 0;
    if (!link->place) {
        s->searched = r->which;
        return link_search(w, link);
    }
    while (!link_is_ready(w, link, r->source))
        if (!keep_waiting(w, &looks)) return LEADER_STOPS;
    if (r->source) {
        uint64_t bytes = word_at(link_meta(w, link)), signature = word_at(link_meta(w, link) + 8);
        uint64_t expected = s->count * element_bytes(w);
        if (signature != w->b->call.signature)
            return trouble_on(w, link, KERNEL_SIGNATURE_LINK, signature, w->b->call.signature);
        if (bytes != expected) return trouble_on(w, link, KERNEL_BYTES, bytes, expected);
        s->in |= 1u << r->which;
    } else {
        s->out |= 1u << r->which;
    }
    return add(w, r, link_slot(link), 0);
}

/* Of a peer's buffers, or windows. A destination that is staged is the out-window of mine, written once: *staged. */
KERNEL_FN enum leader resolve_peer(const struct worker *w, const struct strand *s, const struct resolving *r, uint32_t peer,
                                   int *staged)
{
    const struct block *b = w->b;
    const uint32_t out = r->place == PLAN_PEER_OUTPUT, mine = peer == b->node.self;
    uint64_t base = out ? b->call.output : b->call.input;
    uint32_t direct = mine;
    if (!mine) {
        const unsigned char *theirs = exposure_of(w, s, peer);
        uint64_t signature = word_at(theirs + EXPOSED_SIGNATURE);
        if (signature != b->call.signature) {
            w->b->trouble.who = peer;
            return trouble_found(w, KERNEL_SIGNATURE_PEER, signature, b->call.signature);
        }
        direct = load_u32(theirs + EXPOSED_DIRECT);
        base = word_at(theirs + (out ? EXPOSED_OUTPUT : EXPOSED_INPUT));
    }
    if (r->source ? out : !out) direct = 0; /* what was delivered to me, or what I make readable: windows */
    if (direct)
        return add(w, r, base + in_buffer(w, out ? b->call.output_blocks : b->call.input_blocks, r->piece, r->range.first),
                   mine && !out);
    if (out && !r->source) {
        *staged = 1;
        return LEADER_GOES_ON;
    }
    return add(w, r, in_window(w, s, peer, out, r->piece, r->range.first), 0);
}

KERNEL_FN enum leader resolve_peers(const struct worker *w, const struct strand *s, struct resolving *r, uint32_t span,
                                    uint32_t m)
{
    int staged = 0;
    KERNEL_NO_UNROLL for (uint32_t k = 0; k < span; k++)
        if (resolve_peer(w, s, r, (r->which + k) % m, &staged) != LEADER_GOES_ON) return LEADER_STOPS;
    return staged ? add(w, r, in_window(w, s, w->b->node.self, 1, r->piece, r->range.first), 0) : LEADER_GOES_ON;
}

KERNEL_FN enum leader resolve(const struct worker *w, struct strand *s, const struct plan_operand *operand, uint32_t source)
{
    const struct block *b = w->b;
    struct resolving r;
    r.place = operand->place;
    r.source = source;
    r.piece = plan_index_at(operand->piece, s->i);
    if (r.place == PLAN_SCRATCH) { /* lengths are those of the MOVE's other operands */
        uint64_t index = (uint64_t)b->plan.channel * b->plan.n_scratch + r.piece;
        return add(w, &r, b->call.scratch + index * b->call.scratch_piece_bytes, 0);
    }
    r.range = piece_of(w, s, r.piece);
    r.which = plan_index_at(operand->which, s->i);
    s->count = r.range.count;
    if (r.place == PLAN_INPUT && source)
        return add(w, &r, b->call.input + in_buffer(w, b->call.input_blocks, r.piece, r.range.first), 1);
    if (r.place == PLAN_OUTPUT)
        return add(w, &r, b->call.output + in_buffer(w, b->call.output_blocks, r.piece, r.range.first), 0);
    if (r.place == (source ? PLAN_SLOT_IN : PLAN_SLOT_OUT)) return resolve_slot(w, s, &r);
    if (r.place == PLAN_PEER_INPUT || r.place == PLAN_PEER_OUTPUT)
        return resolve_peers(w, s, &r, operand->span, operand->which.m);
    return plan_trouble(w, s->at);
}

/* ---- steps --------------------------------------------------------------------------------------------------------------- */

/* The job of a resolved MOVE. False: there is nothing to do, a copy of something onto itself. */
KERNEL_FN int job_finish(const struct worker *w, const struct strand *s, const struct plan_step *step)
{
    const struct kernel_combine *how = &w->b->call.how;
    struct combine_job *job = &w->b->job;
    int divides = (step->flags & PLAN_FINAL) && how->divide > 1 && !number_is_float(how->type);
    job->divide = divides ? how->divide : 0;
    job->bytes = s->count * element_bytes(w);
    job->balanced = (step->flags & PLAN_BALANCED) != 0;
    if (!how->scaled) job->scale_mask = 0;
    if (!combine_copies(job)) return 1;
    uint32_t kept = 0;
    KERNEL_NO_UNROLL for (uint32_t d = 0; d < job->n_dst; d++)
        if (job->dst[d] != job->src[0]) job->dst[kept++] = job->dst[d];
    job->n_dst = kept;
    return kept != 0;
}

/* Resolves. LEADER_COMMANDS: all threads are to combine (s->moving), or to search; after a search it is called again. */
KERNEL_FN enum leader step_move(const struct worker *w, struct strand *s, const struct plan_step *step)
{
    struct block *b = w->b;
    b->job.n_src = b->job.n_dst = 0;
    b->job.scale_mask = 0;
    s->in = s->out = 0;
    s->count = 0;
    KERNEL_NO_UNROLL for (uint32_t k = 0; k < (uint32_t)step->n_src + step->n_dst; k++) {
        enum leader to = resolve(w, s, &b->plan.operands[step->first + k], k < step->n_src);
        if (to != LEADER_GOES_ON) return to;
    }
    s->moving = 1;
    if (s->count == 0 || !job_finish(w, s, step)) return LEADER_GOES_ON;
    b->command = BLOCK_COMBINE;
    return LEADER_COMMANDS;
}

/* All threads are done with it. */
KERNEL_FN void move_finish(const struct worker *w, struct strand *s)
{
    struct block *b = w->b;
    s->moving = 0;
    if (!(s->in | s->out)) return; /* what it wrote into windows a SIGNAL will tell */
    KERNEL_NO_UNROLL for (uint32_t l = 0; l < b->plan.n_links; l++)
        if (s->out >> l & 1) link_describe(w, &b->links[l], s->count * element_bytes(w), b->call.signature);
    fence_system();
    KERNEL_NO_UNROLL for (uint32_t l = 0; l < b->plan.n_links; l++) {
        if (s->in >> l & 1) link_release(w, &b->links[l]);
        if (s->out >> l & 1) link_publish(w, &b->links[l]);
    }
}

KERNEL_FN void step_signal(const struct worker *w, const struct strand *s, const struct plan_step *step)
{
    const struct kernel_call *call = &w->b->call;
    unsigned char *mine = rounds_of(w, w->b->node.self);
    if (step->counter == PLAN_STAGED) {
        unsigned char *at = exposure_of(w, s, w->b->node.self);
        word_put(at + EXPOSED_INPUT, call->input);
        word_put(at + EXPOSED_OUTPUT, call->output);
        word_put(at + EXPOSED_SIGNATURE, call->signature);
        store_u32(at + EXPOSED_DIRECT, call->direct);
    }
    fence_system();
    flag_set(mine + KERNEL_ROUNDS_COUNTER + KERNEL_LINE * step->counter, s->window + 1);
}

KERNEL_FN enum leader step_wait(const struct worker *w, const struct strand *s, const struct plan_step *step)
{
    if (s->window + 1 <= step->lag) return LEADER_GOES_ON;
    const struct plan_operand *operand = &w->b->plan.operands[step->first];
    uint64_t value = s->window + 1 - step->lag;
    uint32_t which = plan_index_at(operand->which, s->i);
    KERNEL_NO_UNROLL for (uint32_t k = 0; k < operand->span; k++) {
        const unsigned char *theirs = rounds_of(w, (which + k) % operand->which.m);
        uint32_t looks = 0;
        while (flag_look(theirs + KERNEL_ROUNDS_COUNTER + KERNEL_LINE * step->counter) < value)
            if (!keep_waiting(w, &looks)) return LEADER_STOPS;
    }
    fence_system();
    return LEADER_GOES_ON;
}

KERNEL_FN int skipped(const struct worker *w, const struct plan_step *step)
{
    if (step->flags & PLAN_IF_DIRECT) return !w->b->call.direct;
    if (step->flags & PLAN_IF_STAGED) return w->b->call.direct != 0;
    return 0;
}

KERNEL_FN enum leader step_run(const struct worker *w, struct strand *s, const struct plan_step *step)
{
    if (skipped(w, step)) return LEADER_GOES_ON;
    switch (step->verb) {
    case PLAN_MOVE: return step_move(w, s, step);
    case PLAN_SIGNAL: step_signal(w, s, step); return LEADER_GOES_ON;
    case PLAN_WAIT: return step_wait(w, s, step);
    default: return plan_trouble(w, s->at);
    }
}

/* ---- the strand ----------------------------------------------------------------------------------------------------------- */

KERNEL_FN void round_begin(const struct worker *w, struct strand *s)
{
    const struct plan *plan = &w->b->plan;
    s->at = plan->strands[s->index].first;
    s->end = s->at + plan->strands[s->index].n_steps;
    s->loop = NO_LOOP;
    s->i = 0;
    s->whole = plan_round_range(&w->b->call.split, plan->channel, s->round);
}

/* The plan and the links stand in shared memory. False: nothing to do, or trouble. */
KERNEL_FN int strand_begin(const struct worker *w, struct strand *s, uint32_t index)
{
    const struct block *b = w->b;
    const struct plan *plan = &b->plan;
    int windows = (plan->flags & PLAN_WINDOWS) != 0;
    if (index >= plan->n_strands || plan->n_links > PLAN_MAX_LINKS || (plan->n_scratch && !b->call.scratch) ||
        plan->channel >= KERNEL_MAX_CHANNELS || (windows && plan->channel >= b->node.window_channels)) {
        plan_trouble(w, plan->n_steps);
        return 0;
    }
    s->index = index;
    s->round = 0;
    s->n_rounds = plan_round_count(&b->call.split, plan->channel);
    s->window = windows ? b->node.window_round[plan->channel] : 0;
    s->searched = NO_LINK;
    s->moving = s->searches = 0;
    s->in = s->out = 0;
    s->count = 0;
    if (s->n_rounds) round_begin(w, s);
    return s->n_rounds != 0;
}

/* Into a loop, or past it. */
KERNEL_FN void loop_enter(struct strand *s, const struct plan_step *loop)
{
    uint32_t i = plan_loop_from(loop, 0);
    if (i >= loop->times) {
        s->at += 1u + loop->body;
        return;
    }
    s->loop = s->at++;
    s->i = i;
}

/* To the step after `at`: round the loop again, or out of it. */
KERNEL_FN void step_next(const struct worker *w, struct strand *s)
{
    s->at++;
    if (s->loop == NO_LOOP) return;
    const struct plan_step *loop = &w->b->plan.steps[s->loop];
    if (s->at <= s->loop + loop->body) return;
    s->i = plan_loop_from(loop, s->i + 1);
    if (s->i < loop->times) {
        s->at = s->loop + 1;
        return;
    }
    s->loop = NO_LOOP;
    s->i = 0;
}

/* What was commanded has been done. False: give up. */
KERNEL_FN int strand_resume(const struct worker *w, struct strand *s)
{
    if (s->searched != NO_LINK) {
        int found = link_found(w, &w->b->links[s->searched]);
        s->searched = NO_LINK;
        if (found) s->searches = 0;
        return found || keep_waiting(w, &s->searches); /* the step is resolved again */
    }
    if (!s->moving) return 1;
    move_finish(w, s);
    step_next(w, s);
    return moved_on(w);
}

/* Runs until all threads are needed, or to the end. */
KERNEL_FN enum leader strand_run(const struct worker *w, struct strand *s)
{
    if (!strand_resume(w, s)) return LEADER_STOPS;
    for (;;) {
        while (s->at < s->end) {
            const struct plan_step *step = &w->b->plan.steps[s->at];
            if (step->verb == PLAN_LOOP) {
                loop_enter(s, step);
                continue;
            }
            enum leader to = step_run(w, s, step);
            if (to != LEADER_GOES_ON) return to;
            if (s->moving) move_finish(w, s);
            step_next(w, s);
        }
        if (++s->round >= s->n_rounds) return LEADER_STOPS;
        s->window++;
        if (!moved_on(w)) return LEADER_STOPS;
        round_begin(w, s);
    }
}

#endif
