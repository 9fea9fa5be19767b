/* check.c - see check.h: calls and strands of the symbolic executor, the schedules, and what must hold in the end.
 *
 *     plans ---> strands (program counters) ---> MOVE: cells and slots of expressions   (executor_memory.c, value.c)
 *                      |                              every access ordered?              (order.c)
 *                      +----> WAIT / SIGNAL: counters, each value with the knowledge of its writer */
#include "plan/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "plan/collective.h"
#include "plan/executor.h"

bool executor_fail(struct executor *x, const struct strand *s, enum plan_verdict verdict, const char *format, ...)
{
    if (x->report->verdict != PLAN_RIGHT) return false;
    char text[200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    x->report->verdict = verdict;
    if (s != NULL)
        snprintf(x->report->why, sizeof x->report->why, "rank %u strand %u step %u round %u: %s", s->rank, s->index,
                 s->step, s->round, text);
    else
        snprintf(x->report->why, sizeof x->report->why, "%s", text);
    return false;
}

/* Strands and calls. */

static void strand_advance(const struct executor *x, struct strand *s)
{
    const struct plan_strand *range = &plan_of(x, s->rank)->strands[s->index];
    s->step++;
    if (s->times > 0 && s->step == s->loop_end) {
        s->i = plan_loop_from(&plan_of(x, s->rank)->steps[s->loop_first - 1], s->i + 1);
        if (s->i < s->times) s->step = s->loop_first;
        else s->i = s->times = 0;
    }
    if (s->step < (uint32_t)range->first + range->n_steps) return;
    s->step = range->first;
    s->done = ++s->round == call_of(x, s->rank)->rounds;
}

static void loop_enter(const struct executor *x, struct strand *s, const struct plan_step *step)
{
    uint32_t i = plan_loop_from(step, 0);
    bool none = i >= step->times;
    if (none) {
        s->step += step->body; /* at the body's last step: advance leaves it */
    } else {
        s->loop_first = s->step + 1;
        s->loop_end = s->step + 1 + step->body;
    }
    strand_advance(x, s);
    if (none) return;
    s->times = step->times;
    s->i = i;
}

static bool step_runs(const struct executor *x, const struct strand *s, const struct plan_step *step)
{
    bool direct = is_direct(call_of(x, s->rank), s->rank);
    return !((step->flags & PLAN_IF_DIRECT) && !direct) && !((step->flags & PLAN_IF_STAGED) && direct);
}

static void call_begin(struct executor *x, uint32_t rank)
{
    struct rank *r = &x->ranks[rank];
    const struct plan *plan = plan_of(x, rank);
    x->began[(size_t)r->call * x->n_ranks + rank] = order_clock(&x->order, r->thread)[r->thread];
    r->n_running = 0;
    for (uint32_t k = 0; k < plan->n_strands; k++) {
        struct strand *s = &r->strands[k];
        *s = (struct strand){.rank = rank, .index = k, .thread = r->thread - x->max_strands + k,
                             .step = plan->strands[k].first, .depth = r->depth};
        s->done = call_of(x, rank)->rounds == 0;
        r->n_running += !s->done;
        order_join(&x->order, s->thread, order_clock(&x->order, r->thread));
    }
    order_tick(&x->order, r->thread);
}

/* The caller has its buffers back: everything that happened to them must have happened before. */
static bool call_return(struct executor *x, uint32_t rank)
{
    struct rank *r = &x->ranks[rank];
    const struct plan_check_call *call = call_of(x, rank);
    for (uint32_t k = 0; k < plan_of(x, rank)->n_strands; k++) {
        order_join(&x->order, r->thread, order_clock(&x->order, r->strands[k].thread));
        if (r->strands[k].depth > r->depth) r->depth = r->strands[k].depth;
    }
    struct order_access other;
    for (int output = 0; output < 2; output++)
        for (uint32_t round = 0; round < call->rounds; round++)
            for (uint32_t p = 0; p < call->plans[0].n_pieces; p++)
                if (!order_settled(&x->order, executor_user_cell(x, r->call, rank, output, round, p), r->thread,
                                   &other))
                    return executor_fail(
                        x, NULL, PLAN_RACE,
                        "rank %u returns while rank %u strand %u step %u may still touch its %s[%u] of round %u", rank,
                        other.thread / (x->max_strands + 1), other.thread % (x->max_strands + 1), other.step,
                        output ? "output" : "input", p, round);
    if (r->depth > x->report->steps) x->report->steps = r->depth;
    r->call++;
    return true;
}

/* Returns as many calls as are through, and begins the next. */
static bool calls_advance(struct executor *x, uint32_t rank)
{
    struct rank *r = &x->ranks[rank];
    while (r->call < x->check->n_calls && r->n_running == 0) {
        if (!call_return(x, rank)) return false;
        if (r->call < x->check->n_calls) call_begin(x, rank);
    }
    return true;
}

/* Runs one step. Returns false when it is blocked, or something is wrong. */
static bool strand_try(struct executor *x, struct strand *s)
{
    const struct plan_step *step = &plan_of(x, s->rank)->steps[s->step];
    if (step->verb == PLAN_LOOP) {
        loop_enter(x, s, step);
    } else if (!step_runs(x, s, step)) {
        strand_advance(x, s);
    } else {
        if (step->verb == PLAN_MOVE && (executor_move_blocked(x, s, step) || !executor_move_run(x, s, step)))
            return false;
        if (step->verb == PLAN_WAIT && executor_wait_try(x, s, step, true) != UINT32_MAX) return false;
        if (step->verb == PLAN_SIGNAL) executor_signal_run(x, s, step);
        strand_advance(x, s);
    }
    if (!s->done) return true;
    x->ranks[s->rank].n_running--;
    return calls_advance(x, s->rank);
}

/* The schedules. */

static uint32_t random_below(struct executor *x, uint32_t n)
{
    x->random = x->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((x->random >> 33) % n);
}

static bool is_running(const struct executor *x, uint32_t k)
{
    const struct rank *r = &x->ranks[k / x->max_strands];
    if (r->call == x->check->n_calls) return false;
    return k % x->max_strands < plan_of(x, k / x->max_strands)->n_strands && !x->strands[k].done;
}

/* One turn of everybody; returns whether anything moved. A random turn starts anywhere and gives each up to 3 steps. */
static bool sweep(struct executor *x, enum plan_check_schedule schedule)
{
    uint32_t n = x->n_ranks * x->max_strands, start = schedule == PLAN_CHECK_RANDOM ? random_below(x, n) : 0;
    bool moved = false;
    for (uint32_t j = 0; j < n && x->report->verdict == PLAN_RIGHT; j++) {
        uint32_t k = schedule == PLAN_CHECK_REVERSE ? n - 1 - j : (j + start) % n, most = 1;
        if (schedule == PLAN_CHECK_GREEDY) most = UINT32_MAX;
        if (schedule == PLAN_CHECK_RANDOM) most = random_below(x, 4);
        while (most-- > 0 && is_running(x, k) && strand_try(x, &x->strands[k])) moved = true;
    }
    return moved;
}

static const struct strand *first_blocked(const struct executor *x)
{
    for (uint32_t k = 0; k < x->n_ranks * x->max_strands; k++)
        if (is_running(x, k)) return &x->strands[k];
    return NULL;
}

/* Nothing moves: says for what the first strand waits. */
static void deadlock_report(struct executor *x, const struct strand *blocked)
{
    struct strand s = *blocked;
    const struct plan_step *step = &plan_of(x, s.rank)->steps[s.step];
    static const char *const words[PLAN_COUNTERS] = {"STAGED", "DELIVERED", "DONE", "REDUCED"};
    if (step->verb == PLAN_WAIT) {
        executor_fail(x, &s, PLAN_DEADLOCK, "waits for ever for %s of rank %u", words[step->counter],
                      executor_wait_try(x, &s, step, false));
        return;
    }
    const struct fifo *f = executor_move_blocked(x, &s, step);
    executor_fail(x, &s, PLAN_DEADLOCK, "waits for ever for a %s rank %u",
                  f->to == s.rank ? "slot from" : "free slot to", f->to == s.rank ? f->from : f->to);
}

static void run_all(struct executor *x)
{
    for (uint32_t rank = 0; rank < x->n_ranks; rank++) {
        call_begin(x, rank);
        if (!calls_advance(x, rank)) return;
    }
    const struct strand *blocked;
    while ((blocked = first_blocked(x)) != NULL && x->report->verdict == PLAN_RIGHT) {
        bool moved = sweep(x, x->check->schedule) || sweep(x, PLAN_CHECK_FORWARD); /* a random turn may skip all */
        if (!moved && x->report->verdict == PLAN_RIGHT) deadlock_report(x, blocked);
    }
}

/* What is left in the end. */

static bool slots_taken(struct executor *x)
{
    for (uint32_t k = 0; k < x->n_fifos; k++) {
        const struct fifo *f = &x->fifos[k];
        if (f->published != f->released)
            return executor_fail(x, NULL, PLAN_LEFT_OVER,
                                 "rank %u sent rank %u %llu slots that nobody took, the first with piece %u", f->from,
                                 f->to, (unsigned long long)(f->published - f->released),
                                 f->slots[f->released % x->n_slots].part.piece);
    }
    return true;
}

/* Whose input a copied output piece is made of. */
static uint32_t giver_of(const struct plan_check_call *call, uint32_t piece)
{
    const struct plan *plans = call->plans;
    uint32_t giver = 0;
    if (collective_kind(plans[0].collective).root_gives) return plans[0].root;
    while (plans[giver].position != plan_block(&plans[0], piece)) giver++;
    return giver;
}

static bool copy_right(struct executor *x, struct value_part part, uint32_t rank, value_id v)
{
    const struct plan_check_call *call = &x->check->calls[part.call];
    uint32_t giver = giver_of(call, part.piece);
    struct value_part given = {part.call, part.round, plan_piece_given(&call->plans[rank], part.piece)};
    return v == values_input(x->values, given, giver) ||
           executor_fail(x, NULL, PLAN_WRONG_VALUE, "rank %u: output[%u] of round %u is not input[%u] of rank %u", rank,
                         part.piece, part.round, given.piece, giver);
}

/* The same on all ranks that have this piece: on the first of them, to begin with. */
static uint32_t first_getter(const struct executor *x, struct value_part part)
{
    uint32_t rank = 0;
    while (!plan_gets(&x->check->calls[part.call].plans[rank], part.piece)) rank++;
    return rank;
}

/* A promise of rank order is kept; and who promised nothing is seen to keep it all the same. */
static bool order_right(struct executor *x, struct value_part part, uint32_t rank, value_id v)
{
    value_id tree = values_rank_tree(x->values, part);
    if (tree == VALUE_NONE) return executor_fail(x, NULL, PLAN_UNCHECKED, "out of memory");
    x->report->in_rank_order = x->report->in_rank_order && v == tree;
    return v == tree || !(x->check->calls[part.call].plans[rank].flags & PLAN_IN_RANK_ORDER) ||
           executor_fail(x, NULL, PLAN_WRONG_ORDER,
                         "rank %u: output[%u] of round %u is not the balanced tree over rank numbers", rank, part.piece,
                         part.round);
}

static bool combination_right(struct executor *x, struct value_part part, uint32_t rank, value_id v)
{
    if (!values_complete(x->values, v))
        return executor_fail(x, NULL, PLAN_WRONG_VALUE, "rank %u: output[%u] of round %u lacks inputs", rank,
                             part.piece, part.round);
    if (!values_final(x->values, v))
        return executor_fail(x, NULL, PLAN_WRONG_FINAL, "rank %u: output[%u] of round %u is not final", rank,
                             part.piece, part.round);
    uint32_t first = first_getter(x, part);
    if (rank == first) return order_right(x, part, rank, v);
    return v == executor_user_cell(x, part.call, first, true, part.round, part.piece)->value ||
           executor_fail(x, NULL, PLAN_WRONG_RANKS,
                         "rank %u: output[%u] of round %u is combined in another order than on rank 0", rank,
                         part.piece, part.round);
}

static bool output_right(struct executor *x, struct value_part part, uint32_t rank)
{
    value_id v = executor_user_cell(x, part.call, rank, true, part.round, part.piece)->value;
    const struct plan_check_call *call = &x->check->calls[part.call];
    bool in_place = call->in_place && call->in_place[rank];
    if (v == VALUE_NONE || (in_place && v == VALUE_RAW))
        return executor_fail(x, NULL, PLAN_WRONG_VALUE, "rank %u: output[%u] of round %u was never written", rank,
                             part.piece, part.round);
    struct value_part holds = values_part(x->values, v), given = part;
    given.piece = plan_piece_given(&call->plans[rank], part.piece);
    if (memcmp(&holds, &given, sizeof given) != 0)
        return executor_fail(x, NULL, PLAN_WRONG_VALUE, "rank %u: output[%u] of round %u holds piece %u of round %u",
                             rank, part.piece, part.round, holds.piece, holds.round);
    bool reduces = collective_kind(call->plans[rank].collective).reduces;
    if (!reduces) x->report->in_rank_order = false;
    if (!(reduces ? combination_right : copy_right)(x, part, rank, v)) return false;
    x->report->values = (x->report->values ^ values_hash(x->values, v)) * 0x100000001b3u;
    return true;
}

static bool outputs_right(struct executor *x)
{
    for (uint32_t call = 0; call < x->check->n_calls; call++)
        for (uint32_t rank = 0; rank < x->n_ranks; rank++)
            for (uint32_t round = 0; round < x->check->calls[call].rounds; round++)
                for (uint32_t p = 0; p < x->check->calls[call].plans[0].n_pieces; p++)
                    if (plan_gets(&x->check->calls[call].plans[rank], p) &&
                        !output_right(x, (struct value_part){call, round, p}, rank)) return false;
    return true;
}

enum plan_verdict plan_check_run(const struct plan_check *check, struct plan_check_report *report,
                                 struct plan_check_count *counts)
{
    memset(report, 0, sizeof *report);
    struct executor x = {.check = check, .report = report, .counts = counts, .random = check->seed * 2 + 1};
    x.n_ranks = check->n_calls > 0 ? check->calls[0].plans[0].n_ranks : 0;
    x.n_slots = check->slots;
    if (x.n_ranks == 0 || x.n_ranks > PLAN_CHECK_MAX_RANKS) {
        executor_fail(&x, NULL, PLAN_UNCHECKED, "checks 1 to %d ranks, not %u", PLAN_CHECK_MAX_RANKS, x.n_ranks);
        return report->verdict;
    }
    if (counts) memset(counts, 0, x.n_ranks * sizeof *counts);
    if (executor_open_calls(&x) && executor_open_memory(&x)) {
        executor_fill(&x);
        run_all(&x);
        report->in_rank_order = report->verdict == PLAN_RIGHT;
        if (report->verdict == PLAN_RIGHT && slots_taken(&x)) outputs_right(&x);
    }
    executor_close(&x);
    return report->verdict;
}
