/* executor_steps.c - what the verbs mean to the symbolic executor: links are FIFOs of expressions that carry their
 * sender's knowledge; a MOVE reads, combines, writes, releases and publishes; counters keep every value with the
 * knowledge of its signaller.
 *
 * A MOVE runs when all its slots are ready and is then one indivisible step. That loses no behaviour: its waits are for
 * things that, once true, stay true until this strand acts, and whether a move overlaps another one in time is decided
 * by happens-before, not by the schedule. */
#include "plan/executor.h"

#include <string.h>

#include "plan/collective.h"

/* Sources of one MOVE with spans counted; validate.c sees to it. */
#define WAYS_MAX 64

/* Links. */

static struct fifo *fifo_for(const struct executor *x, const struct strand *s, const struct plan_operand *o)
{
    const struct plan_link *link = &plan_of(x, s->rank)->links[plan_index_at(o->which, s->i)];
    bool in = link->direction == PLAN_LINK_IN;
    uint32_t from = in ? link->peer : s->rank, to = in ? s->rank : link->peer;
    return &x->fifos[*fifo_index(x, from, to, link->way) - 1];
}

/* A hand-over costs a hop, but not from one strand of a rank to another. */
static void news_learn(struct executor *x, struct strand *s, const struct news *news, uint32_t hop)
{
    order_join(&x->order, s->thread, news->clock);
    if (news->depth + hop > s->depth) s->depth = news->depth + hop;
}

static void news_tell(const struct executor *x, const struct strand *s, struct news *news)
{
    memcpy(news->clock, order_clock(&x->order, s->thread), x->order.n_threads * sizeof *news->clock);
    news->depth = s->depth;
}

static bool slot_read(struct executor *x, struct strand *s, const struct plan_operand *o, uint32_t piece, value_id *out)
{
    struct fifo *f = fifo_for(x, s, o);
    const struct news *slot = &f->slots[f->released % x->n_slots];
    if (slot->part.call != x->ranks[s->rank].call || slot->part.round != s->round || slot->part.piece != piece)
        return executor_fail(x, s, PLAN_WRONG_PIECE,
                             "expects piece %u from rank %u, the slot carries piece %u of round %u", piece, f->from,
                             slot->part.piece, slot->part.round);
    news_learn(x, s, slot, 1);
    *out = slot->value;
    return true;
}

static void slot_write(struct executor *x, const struct strand *s, const struct plan_operand *o, uint32_t piece,
                       value_id value)
{
    struct fifo *f = fifo_for(x, s, o);
    struct news *slot = &f->slots[f->published % x->n_slots];
    slot->value = value;
    slot->part = (struct value_part){x->ranks[s->rank].call, s->round, piece};
    news_tell(x, s, slot);
    f->published++;
    if (x->counts) x->counts[s->rank].slots_sent++;
}

/* MOVE. */

static bool output_there(struct executor *x, const struct strand *s, uint32_t piece)
{
    return plan_gets(plan_of(x, s->rank), piece) ||
           executor_fail(x, s, PLAN_WRONG_PIECE, "reads output[%u], which this rank has not", piece);
}

static bool source_read(struct executor *x, struct strand *s, const struct plan_operand *o, uint32_t peer,
                        uint32_t piece, value_id *out)
{
    const struct plan_check_call *call = call_of(x, s->rank);
    bool other = peer != s->rank;
    if (x->counts && other && (o->place == PLAN_PEER_INPUT || o->place == PLAN_PEER_OUTPUT))
        x->counts[s->rank].peer_reads++;
    switch (o->place) {
    case PLAN_INPUT:
        return executor_input_read(x, s, s->rank, piece, out);
    case PLAN_OUTPUT:
        return output_there(x, s, piece) &&
               executor_cell_read(x, s, executor_user_cell(x, x->ranks[s->rank].call, s->rank, true, s->round, piece),
                                  "output", s->rank, piece, out);
    case PLAN_SCRATCH:
        return executor_cell_read(x, s, &x->scratch[(size_t)s->rank * x->max_scratch + piece], "scratch", s->rank,
                                  piece, out);
    case PLAN_SLOT_IN:
        return slot_read(x, s, o, piece, out);
    case PLAN_PEER_INPUT:
        if (other && !is_direct(call, peer)) return executor_window_read(x, s, peer, WINDOW_IN, piece, out);
        return executor_input_read(x, s, peer, piece, out);
    default: /* PLAN_PEER_OUTPUT: delivered into my output, or fetched from the peer's window */
        if (other && !is_direct(call, s->rank)) return executor_window_read(x, s, peer, WINDOW_OUT, piece, out);
        return output_there(x, s, piece) &&
               executor_cell_read(x, s, executor_user_cell(x, x->ranks[s->rank].call, s->rank, true, s->round, piece),
                                  "output", s->rank, piece, out);
    }
}

/* Into outputs of direct owners and my own, and once into my window when anybody else's is staged. */
static bool peers_deliver(struct executor *x, struct strand *s, const struct plan_operand *o, uint32_t piece,
                          value_id v)
{
    const struct plan_check_call *call = call_of(x, s->rank);
    bool staged = false;
    for (uint32_t k = 0; k < o->span; k++) {
        uint32_t peer = rank_of_peer(x, s->rank, (plan_index_at(o->which, s->i) + k) % o->which.m);
        if (peer != s->rank && !is_direct(call, peer)) {
            staged = true;
            continue;
        }
        if (peer != s->rank && x->counts) x->counts[s->rank].peer_writes++;
        if (!executor_output_write(x, s, peer, piece, v)) return false;
    }
    return !staged || executor_window_write(x, s, WINDOW_OUT, piece, v);
}

static bool destination_write(struct executor *x, struct strand *s, const struct plan_operand *o, uint32_t piece,
                              value_id v)
{
    switch (o->place) {
    case PLAN_OUTPUT:
        return executor_output_write(x, s, s->rank, piece, v);
    case PLAN_SCRATCH:
        return executor_cell_write(x, s, &x->scratch[(size_t)s->rank * x->max_scratch + piece], "scratch", s->rank,
                                   piece, v);
    case PLAN_PEER_INPUT:
        return is_direct(call_of(x, s->rank), s->rank) || executor_window_write(x, s, WINDOW_IN, piece, v);
    case PLAN_PEER_OUTPUT:
        return peers_deliver(x, s, o, piece, v);
    default: /* PLAN_SLOT_OUT, when everything else is done */
        return true;
    }
}

const struct fifo *executor_move_blocked(const struct executor *x, const struct strand *s, const struct plan_step *step)
{
    const struct plan_operand *o = &plan_of(x, s->rank)->operands[step->first];
    for (uint32_t k = 0; k < (uint32_t)step->n_src + step->n_dst; k++) {
        if (o[k].place != PLAN_SLOT_IN && o[k].place != PLAN_SLOT_OUT) continue;
        const struct fifo *f = fifo_for(x, s, &o[k]);
        if (o[k].place == PLAN_SLOT_IN && f->published == f->released) return f;
        if (o[k].place == PLAN_SLOT_OUT && f->published - f->released == x->n_slots) return f;
    }
    return NULL;
}

static bool sources_combine(struct executor *x, struct strand *s, const struct plan_step *step, value_id *out)
{
    const struct plan_operand *o = &plan_of(x, s->rank)->operands[step->first];
    value_id source[WAYS_MAX];
    uint32_t n = 0;
    for (uint32_t k = 0; k < step->n_src; k++)
        for (uint32_t j = 0; j < o[k].span; j++) {
            uint32_t peer = s->rank;
            if (o[k].place == PLAN_PEER_INPUT || o[k].place == PLAN_PEER_OUTPUT)
                peer = rank_of_peer(x, s->rank, (plan_index_at(o[k].which, s->i) + j) % o[k].which.m);
            if (!source_read(x, s, &o[k], peer, plan_index_at(o[k].piece, s->i), &source[n++])) return false;
        }
    const char *problem = NULL;
    value_id v = step->flags & PLAN_BALANCED ? values_balance(x->values, source, n, &problem)
                                             : values_combine(x->values, source, n, &problem);
    if (v == VALUE_NONE) return executor_fail(x, s, PLAN_WRONG_VALUE, "%s", problem);
    if (step->flags & PLAN_FINAL) {
        v = values_finish(x->values, v, &problem);
        if (v == VALUE_NONE) return executor_fail(x, s, PLAN_WRONG_FINAL, "%s", problem);
    } else if (values_complete(x->values, v) && !values_final(x->values, v)) {
        return executor_fail(x, s, PLAN_WRONG_FINAL, "completes the reduction of piece %u without FINAL",
                       values_part(x->values, v).piece);
    }
    *out = v;
    return true;
}

/* Lengths follow from the piece's number, so all operands of a MOVE name the same piece (AlltoAll: the same part of
 * whatever block); scratch takes any. */
static bool pieces_agree(struct executor *x, const struct strand *s, const struct plan_step *step)
{
    const struct plan *plan = plan_of(x, s->rank);
    const struct plan_operand *o = &plan->operands[step->first];
    uint32_t piece = UINT32_MAX;
    for (uint32_t k = 0; k < (uint32_t)step->n_src + step->n_dst; k++) {
        uint32_t p = plan_index_at(o[k].piece, s->i);
        if (o[k].place == PLAN_SCRATCH) continue;
        if (plan->collective == PLAN_ALLTOALL) p = plan_part_of_block(plan, p);
        if (piece != UINT32_MAX && p != piece)
            return executor_fail(x, s, PLAN_WRONG_PIECE, "moves piece %u to piece %u, which has another length", piece,
                                 p);
        piece = p;
    }
    return true;
}

bool executor_move_run(struct executor *x, struct strand *s, const struct plan_step *step)
{
    const struct plan_operand *o = &plan_of(x, s->rank)->operands[step->first];
    uint32_t n = (uint32_t)step->n_src + step->n_dst;
    value_id v;
    if (!pieces_agree(x, s, step) || !sources_combine(x, s, step, &v)) return false;
    for (uint32_t k = step->n_src; k < n; k++)
        if (!destination_write(x, s, &o[k], plan_index_at(o[k].piece, s->i), v)) return false;
    for (uint32_t k = 0; k < n; k++) {
        if (o[k].place == PLAN_SLOT_IN) fifo_for(x, s, &o[k])->released++;
        if (o[k].place == PLAN_SLOT_OUT) slot_write(x, s, &o[k], plan_index_at(o[k].piece, s->i), v);
    }
    order_tick(&x->order, s->thread);
    return true;
}

/* SIGNAL and WAIT. */

static struct news *signal_at(const struct executor *x, uint32_t channel, uint32_t rank, uint32_t counter,
                              uint64_t number)
{
    size_t line = ((size_t)channel * x->n_ranks + rank) * PLAN_COUNTERS + counter;
    return &x->signals[line * x->n_numbers + number];
}

void executor_signal_run(struct executor *x, const struct strand *s, const struct plan_step *step)
{
    uint64_t number = window_number(x, s);
    struct news *news = signal_at(x, plan_of(x, s->rank)->channel, s->rank, step->counter, number);
    if (news->number == 0) { /* repeating it tells nobody anything for sure */
        news_tell(x, s, news);
        news->number = number + 1;
    }
    order_tick(&x->order, s->thread);
}

/* The first value of the counter that lets a wait for `number` + 1 pass: later ones may know more, but nobody can
 * count on having seen them. NULL: not there yet. */
static const struct news *signal_passing(const struct executor *x, uint32_t channel, uint32_t rank, uint32_t counter,
                                         uint64_t number)
{
    for (; number < x->n_numbers; number++) {
        const struct news *news = signal_at(x, channel, rank, counter, number);
        if (news->number > 0) return news;
    }
    return NULL;
}

uint32_t executor_wait_try(struct executor *x, struct strand *s, const struct plan_step *step, bool learn)
{
    const struct plan_operand *o = &plan_of(x, s->rank)->operands[step->first];
    uint64_t number = window_number(x, s);
    if (number < step->lag) return UINT32_MAX;
    for (uint32_t k = 0; k < o->span; k++) {
        uint32_t peer = rank_of_peer(x, s->rank, (plan_index_at(o->which, s->i) + k) % o->which.m);
        const struct news *news =
            signal_passing(x, plan_of(x, s->rank)->channel, peer, step->counter, number - step->lag);
        if (news == NULL) return peer;
        if (learn) news_learn(x, s, news, peer == s->rank ? 0 : 1);
    }
    return UINT32_MAX;
}
