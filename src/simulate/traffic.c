/* traffic.c - walks a plan's steps once; a loop is one sum. */
#include "simulate/traffic.h"

#include <string.h>

/* Of the span of peers, those that are not myself. */
static uint32_t others(const struct plan *plan, const struct plan_operand *o)
{
    if (o->which.a != 0) return o->span;
    uint32_t from_me = (plan->peer + o->which.m - o->which.b % o->which.m) % o->which.m;
    return o->span - (plan->peer < o->which.m && from_me < o->span);
}

static void add_slot(const struct plan_operand *o, struct pieces *pieces,
                     const struct plan_step *loop, uint64_t *by_link)
{
    if (o->which.a == 0) {
        by_link[plan_index_at(o->which, 0)] += pieces_sum(pieces, o->piece, loop);
        return;
    }
    for (uint32_t i = loop ? plan_loop_from(loop, 0) : 0; i < (loop ? loop->times : 1);
         i = loop ? plan_loop_from(loop, i + 1) : 1)
        by_link[plan_index_at(o->which, i)] += pieces->bytes[plan_index_at(o->piece, i)];
}

static void add_move(const struct plan *plan, const struct plan_step *step, struct pieces *pieces,
                     const struct plan_step *loop, bool direct, struct traffic *out)
{
    const struct plan_operand *o = &plan->operands[step->first];
    if (step->flags & (direct ? PLAN_IF_STAGED : PLAN_IF_DIRECT)) return;
    for (uint32_t k = 0; k < (uint32_t)step->n_src + step->n_dst; k++) {
        bool source = k < step->n_src;
        if (o[k].place == PLAN_SLOT_OUT) add_slot(&o[k], pieces, loop, out->sent);
        if (o[k].place == PLAN_SLOT_IN) add_slot(&o[k], pieces, loop, out->received);
        bool theirs = (o[k].place == PLAN_PEER_INPUT && source) ||
                      (o[k].place == PLAN_PEER_OUTPUT && (!source || !direct));
        if (theirs) out->peers += others(plan, &o[k]) * pieces_sum(pieces, o[k].piece, loop);
    }
}

void traffic_of_plan(const struct plan *plan, struct pieces *pieces, bool direct, struct traffic *out)
{
    memset(out, 0, sizeof *out);
    for (uint32_t s = 0; s < plan->n_strands; s++) {
        const struct plan_step *loop = NULL;
        uint32_t end = (uint32_t)plan->strands[s].first + plan->strands[s].n_steps, body_end = 0;
        for (uint32_t at = plan->strands[s].first; at < end; at++) {
            const struct plan_step *step = &plan->steps[at];
            if (loop && at >= body_end) loop = NULL;
            if (step->verb == PLAN_LOOP) loop = step, body_end = at + 1u + step->body;
            if (step->verb == PLAN_MOVE) add_move(plan, step, pieces, loop, direct, out);
        }
    }
}
