/* waits.c - looks at the step that each strand stands at, and at the flows that are not through. */
#include "engine/waits.h"

#include "engine/lending.h"

/* Thousandths of a round: a strand's place in its steps. */
#define WHOLE 1000u

static void add(struct waits *out, uint32_t rank, enum waits_kind kind)
{
    for (uint32_t i = 0; i < out->n; i++) {
        if (out->on[i].rank != rank) continue;
        if (kind == WAITS_FOR_DATA) out->on[i].kind = WAITS_FOR_DATA;
        return;
    }
    if (out->n < WAITS_MOST) {
        out->on[out->n++] = (struct waits_on){rank, kind};
        return;
    }
    for (uint32_t i = 0; kind == WAITS_FOR_DATA && i < WAITS_MOST; i++)
        if (out->on[i].kind != WAITS_FOR_DATA) {
            out->on[i] = (struct waits_on){rank, kind};
            return;
        }
}

/* ---- plans ---- */

static bool no_slot(struct link *link)
{
    const void *slot;
    size_t bytes;
    uint64_t signature;
    return link->ops->wait(link, &slot, &bytes, &signature) == RAIL_NOT_YET;
}

static bool no_room(struct link *link)
{
    void *slot;
    return link->ops->acquire(link, &slot) == RAIL_NOT_YET;
}

static void of_move(const struct run *run, const struct plan_step *step, struct waits *out)
{
    const struct plan_operand *operand = &run->instance->plan.operands[step->first];
    for (int k = 0; k < step->n_src + step->n_dst; k++) {
        struct link *link = operand[k].place == PLAN_SLOT_IN || operand[k].place == PLAN_SLOT_OUT
                                ? run->instance->links[plan_index_at(operand[k].which, run->i)]
                                : NULL;
        if (!link) continue;
        if (operand[k].place == PLAN_SLOT_IN && no_slot(link)) add(out, link->from, WAITS_FOR_DATA);
        if (operand[k].place == PLAN_SLOT_OUT && no_room(link)) add(out, link->to, WAITS_FOR_ROOM);
    }
}

/* A counter that I raise myself is none to wait for: some other strand of mine is behind. */
static void of_wait(const struct host_op *op, const struct run *run, const struct plan_step *step, struct waits *out)
{
    const struct plan_operand *operand = &run->instance->plan.operands[step->first];
    uint32_t which = plan_index_at(operand->which, run->i);
    if (run->window + 1 <= step->lag) return;
    for (uint32_t k = run->waited; k < operand->span; k++) {
        uint32_t peer = (which + k) % operand->which.m;
        const struct shm_rounds *theirs = shm_rounds_of(&op->node->segment, peer, run->instance->plan.channel);
        uint64_t value = atomic_load_explicit(&theirs->counter[step->counter].value, memory_order_acquire);
        if (peer != op->node->self && value < run->window + 1 - step->lag)
            add(out, op->node->ranks[peer], WAITS_FOR_DATA);
    }
}

/* Its last step is behind it: it waits for those that still read its buffers. */
static void of_end(const struct host_op *op, const struct run *run, struct waits *out)
{
    for (uint32_t peer = 0; peer < op->node->segment.geometry.n_peers; peer++)
        if (peer != op->node->self && !host_run_done_by(op, run, peer)) add(out, op->node->ranks[peer], WAITS_FOR_DATA);
}

/* How far a strand has come in its round, in thousandths. */
static uint64_t place_of(const struct run *run)
{
    const struct plan *plan = &run->instance->plan;
    for (uint32_t s = 0; s < plan->n_strands; s++) {
        uint32_t first = plan->strands[s].first, n = plan->strands[s].n_steps;
        if (run->end != first + n) continue;
        uint64_t passed = (uint64_t)(run->at - first) * WHOLE;
        if (run->loop != UINT16_MAX && plan->steps[run->loop].times) {
            const struct plan_step *loop = &plan->steps[run->loop];
            passed = (uint64_t)(run->loop - first) * WHOLE +
                     ((uint64_t)run->i * loop->body + (run->at - run->loop - 1)) * WHOLE / loop->times;
        }
        return n ? passed / n : 0;
    }
    return 0;
}

void waits_of_host_op(const struct host_op *op, struct waits *out)
{
    uint64_t done = 0, rounds = 0;
    *out = (struct waits){.total = op->call.split.count * rail_type_bytes(op->call.how.type)};
    for (uint32_t r = 0; r < op->n_runs; r++) {
        const struct run *run = &op->runs[r];
        rounds += run->n_rounds;
        done += run->round * WHOLE;
        if (run->round >= run->n_rounds) continue;
        done += place_of(run);
        if (run->at == run->end) {
            of_end(op, run, out);
            continue;
        }
        const struct plan_step *step = &run->instance->plan.steps[run->at];
        if (step->verb == PLAN_MOVE) of_move(run, step, out);
        if (step->verb == PLAN_WAIT) of_wait(op, run, step, out);
    }
    const struct link *late;
    if (op->n_left == 0 && op->lent && lending_settled(op, &late) == RAIL_NOT_YET) add(out, late->to, WAITS_FOR_ROOM);
    if (rounds) out->done = (uint64_t)((double)out->total * (double)done / ((double)rounds * WHOLE));
}

/* ---- messages ---- */

void waits_of_messages(const struct messages *m, struct waits *out)
{
    *out = (struct waits){.done = m->moved};
    for (int d = MESSAGE_RECEIVE; d >= MESSAGE_SEND; d--)
        for (uint32_t k = 0; k < m->n_busy[d] && k < m->ahead; k++) {
            uint32_t peer = m->busy[(size_t)d * m->n_ranks + k];
            const struct message_flow *f = messages_flow(m, (enum message_direction)d, peer);
            if (!f->link) continue;
            if (d == MESSAGE_RECEIVE && no_slot(f->link)) add(out, peer, WAITS_FOR_DATA);
            if (d == MESSAGE_SEND && (f->offer || f->settling || no_room(f->link))) add(out, peer, WAITS_FOR_ROOM);
        }
}

/* ---- express ---- */

void waits_of_express(const struct host_node *node, const struct express_wait *wait, struct waits *out)
{
    *out = (struct waits){0};
    for (uint32_t p = 0; wait->from >> p; p++) {
        const struct shm_express_line *line = &node->segment.express[p].line[wait->round % SHM_EXPRESS_DEPTH];
        if (wait->from >> p & 1 && atomic_load_explicit(&line->sequence, memory_order_acquire) <= wait->round)
            add(out, node->ranks[p], wait->room ? WAITS_FOR_ROOM : WAITS_FOR_DATA);
    }
}
