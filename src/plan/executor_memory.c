/* executor_memory.c - the memory of the symbolic executor: user buffers, windows and scratch, cell by cell (one cell is
 * one piece), and the rules about who may touch what when. */
#include "plan/executor.h"

#include "plan/collective.h"

static bool racing(struct executor *x, const struct strand *s, bool write, const char *what, uint32_t owner,
                   uint32_t piece, const struct order_access *other)
{
    if (other->clock == 0) return executor_fail(x, s, PLAN_UNCHECKED, "out of memory");
    uint32_t lanes = x->max_strands + 1;
    return executor_fail(x, s, PLAN_RACE, "%s %s[%u] of rank %u, unordered with the %s by rank %u strand %u step %u",
                   write ? "writes" : "reads", what, piece, owner, other->write ? "write" : "read",
                   other->thread / lanes, other->thread % lanes, other->step);
}

bool executor_cell_read(struct executor *x, const struct strand *s, struct order_cell *cell, const char *what,
                      uint32_t owner, uint32_t piece, value_id *out)
{
    struct order_access other, mine = {s->thread, order_clock(&x->order, s->thread)[s->thread], s->step, false};
    if (!order_read(&x->order, cell, mine, &other)) return racing(x, s, false, what, owner, piece, &other);
    *out = cell->value;
    return true;
}

bool executor_cell_write(struct executor *x, const struct strand *s, struct order_cell *cell, const char *what,
                       uint32_t owner, uint32_t piece, value_id value)
{
    struct order_access other, mine = {s->thread, order_clock(&x->order, s->thread)[s->thread], s->step, true};
    if (!order_write(&x->order, cell, mine, &other)) return racing(x, s, true, what, owner, piece, &other);
    cell->value = value;
    return true;
}

struct order_cell *executor_user_cell(const struct executor *x, uint32_t call, uint32_t owner, bool output,
                                    uint32_t round, uint32_t piece)
{
    const struct plan_check_call *c = &x->check->calls[call];
    if (c->in_place && c->in_place[owner]) output = false;
    size_t per_buffer = (size_t)c->rounds * c->plans[0].n_pieces;
    return &x->user[x->first_cell[call] + ((size_t)owner * 2 + output) * per_buffer +
                    (size_t)round * c->plans[0].n_pieces + piece];
}

/* The owner's call has begun, as far as this strand can know, and has not returned. */
static bool user_open(struct executor *x, const struct strand *s, uint32_t owner, const char *what, uint32_t piece)
{
    uint32_t call = x->ranks[s->rank].call;
    uint32_t began = x->began[(size_t)call * x->n_ranks + owner];
    if (began == 0 || order_clock(&x->order, s->thread)[x->ranks[owner].thread] < began)
        return executor_fail(x, s, PLAN_RACE, "touches %s[%u] of rank %u, which may not be in the call yet", what,
                             piece, owner);
    if (x->ranks[owner].call > call)
        return executor_fail(x, s, PLAN_RACE, "touches %s[%u] of rank %u, whose call has returned", what, piece, owner);
    return true;
}

bool executor_input_read(struct executor *x, const struct strand *s, uint32_t owner, uint32_t piece, value_id *out)
{
    const char *what = owner == s->rank ? "input" : "peer-input";
    uint32_t call = x->ranks[s->rank].call;
    value_id raw;
    if (!user_open(x, s, owner, what, piece)) return false;
    if (!plan_gives(&call_of(x, s->rank)->plans[owner], piece))
        return executor_fail(x, s, PLAN_WRONG_PIECE, "reads %s[%u] of rank %u, which has no such input", what, piece,
                             owner);
    if (!executor_cell_read(x, s, executor_user_cell(x, call, owner, false, s->round, piece), what, owner, piece, &raw))
        return false;
    if (raw != VALUE_RAW)
        return executor_fail(x, s, PLAN_WRONG_VALUE, "reads %s[%u] of rank %u after it was overwritten in place", what,
                             piece, owner);
    *out = values_input(x->values, (struct value_part){call, s->round, piece}, owner);
    return *out != VALUE_NONE || executor_fail(x, s, PLAN_UNCHECKED, "out of memory");
}

bool executor_output_write(struct executor *x, const struct strand *s, uint32_t owner, uint32_t piece, value_id value)
{
    const char *what = owner == s->rank ? "output" : "peer-output";
    uint32_t call = x->ranks[s->rank].call;
    if (!user_open(x, s, owner, what, piece)) return false;
    if (!plan_gets(&call_of(x, s->rank)->plans[owner], piece))
        return executor_fail(x, s, PLAN_WRONG_PIECE, "writes %s[%u] of rank %u, which has no such output", what, piece,
                             owner);
    return executor_cell_write(x, s, executor_user_cell(x, call, owner, true, s->round, piece), what, owner, piece,
                               value);
}

static const char *const window_words[WINDOWS] = {"in-window", "out-window"};

static struct window *window_of(const struct executor *x, const struct strand *s, uint32_t owner, int which,
                                uint64_t number)
{
    size_t rank = (size_t)plan_of(x, s->rank)->channel * x->n_ranks + owner;
    return &x->windows[(rank * WINDOWS + (uint32_t)which) * PLAN_WINDOW_DEPTH + number % PLAN_WINDOW_DEPTH];
}

bool executor_window_read(struct executor *x, const struct strand *s, uint32_t owner, int which, uint32_t piece,
                        value_id *out)
{
    uint64_t number = window_number(x, s);
    struct window *w = window_of(x, s, owner, which, number);
    if (w->number > number + 1)
        return executor_fail(x, s, PLAN_RACE, "reads %s[%u] of rank %u, which a later round overwrote",
                             window_words[which], piece, owner);
    if (w->number < number + 1)
        return executor_fail(x, s, PLAN_RACE, "reads %s[%u] of rank %u before anything was put there",
                             window_words[which], piece, owner);
    return executor_cell_read(x, s, &w->cells[piece], window_words[which], owner, piece, out);
}

bool executor_window_write(struct executor *x, const struct strand *s, int which, uint32_t piece, value_id value)
{
    uint64_t number = window_number(x, s);
    struct window *w = window_of(x, s, s->rank, which, number);
    if (w->number != number + 1) {
        struct order_access other;
        for (uint32_t k = 0; k < x->max_pieces; k++) {
            if (!order_settled(&x->order, &w->cells[k], s->thread, &other))
                return racing(x, s, true, window_words[which], s->rank, k, &other);
            order_forget(&x->order, &w->cells[k]);
        }
        w->number = number + 1;
    }
    if (x->counts) x->counts[s->rank].window_writes++;
    return executor_cell_write(x, s, &w->cells[piece], window_words[which], s->rank, piece, value);
}
