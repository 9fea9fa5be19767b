/* executor.h - the state of the symbolic executor, shared by its files; nobody else includes it.
 *
 *     check.c            calls, strands, schedules, and what must hold in the end
 *     executor_open.c    setting up, and what plans must agree on
 *     executor_steps.c   what a MOVE, SIGNAL or WAIT does
 *     executor_memory.c  user buffers, windows, scratch
 *     value.h, order.h   expressions, happens-before */
#ifndef RAIL_PLAN_EXECUTOR_H
#define RAIL_PLAN_EXECUTOR_H

#include "plan/check.h"
#include "plan/order.h"
#include "plan/value.h"

/* What a slot or a signal brings to whoever receives it. */
struct news {
    uint64_t number;   /* signal: the counter's value; 0 = never signalled */
    value_id value;    /* slot */
    struct value_part part;
    uint32_t depth;    /* hand-overs on the longest way here */
    uint32_t *clock;
};

struct fifo {
    uint32_t from, to;
    uint64_t published, released;
    struct news *slots; /* [n_slots] */
};

enum { WINDOW_IN, WINDOW_OUT, WINDOWS };

/* One of a rank's windows. Contents belong to one round; pieces of different calls need not line up, so the owner's
 * first write of a round needs all accesses of the older round settled. */
struct window {
    uint64_t number; /* W + 1 of its contents */
    struct order_cell *cells;
};

struct strand {
    uint32_t rank, index, thread;
    uint32_t round, step; /* step counts within the plan */
    uint32_t i, times, loop_first, loop_end; /* times 0: not in a loop */
    uint32_t depth;
    bool done;
};

struct rank {
    uint32_t call;      /* now inside; n_calls: all returned */
    uint32_t n_running; /* strands */
    uint32_t thread;    /* the caller: what happens before and after calls */
    uint32_t depth;
    struct strand *strands;
};

struct executor {
    const struct plan_check *check;
    struct plan_check_report *report;
    struct plan_check_count *counts;
    uint32_t n_ranks, n_slots, max_strands, max_pieces, max_scratch, n_channels;
    uint64_t n_numbers;    /* window rounds of all calls */
    uint64_t *first_number; /* [n_calls] W of a call's round 0, on its channel */
    uint32_t *mates;        /* [n_calls][n_ranks] the ranks, node by node, in the order of peers */
    uint32_t *node_first;   /* [n_calls][n_ranks] where a rank's node begins there */
    size_t *first_cell;     /* [n_calls] of user */
    uint32_t *began;        /* [n_calls][n_ranks] clock of the owner's caller; 0 = not yet */
    struct rank *ranks;
    struct strand *strands;     /* [n_ranks][max_strands] */
    struct order_cell *user;    /* [call][rank][input, output][round][piece] */
    struct order_cell *scratch; /* [rank][piece] */
    struct order_cell *window_cells;
    struct window *windows; /* [channel][rank][in, out][round mod 2] */
    struct news *signals;   /* [channel][rank][counter][W] */
    uint32_t *clocks;       /* of signals, then of slots */
    struct fifo *fifos;
    struct news *slots;
    uint32_t n_fifos;
    uint32_t *fifo_of; /* [from][to][way], 1 + index */
    struct values *values;
    struct order order;
    uint64_t random;
};

/* Records the first reason (with the strand's place when `s` is not NULL) and returns false. */
bool executor_fail(struct executor *x, const struct strand *s, enum plan_verdict verdict, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static inline const struct plan_check_call *call_of(const struct executor *x, uint32_t rank)
{
    return &x->check->calls[x->ranks[rank].call];
}
static inline const struct plan *plan_of(const struct executor *x, uint32_t rank)
{
    return &call_of(x, rank)->plans[rank];
}
static inline bool is_direct(const struct plan_check_call *call, uint32_t rank)
{
    return call->direct && call->direct[rank];
}
static inline uint64_t window_number(const struct executor *x, const struct strand *s)
{
    return x->first_number[x->ranks[s->rank].call] + s->round;
}

/* The rank of a peer of this rank's node. */
static inline uint32_t rank_of_peer(const struct executor *x, uint32_t rank, uint32_t peer)
{
    size_t call = (size_t)x->ranks[rank].call * x->n_ranks;
    return x->mates[call + x->node_first[call + rank] + peer];
}

static inline uint32_t *fifo_index(const struct executor *x, uint32_t from, uint32_t to, uint32_t way)
{
    return &x->fifo_of[((size_t)from * x->n_ranks + to) * PLAN_WAYS + way];
}

/* executor_open.c: in this order; false when it failed. Close whatever happened. */
bool executor_open_calls(struct executor *x);
bool executor_open_memory(struct executor *x);
void executor_fill(struct executor *x);
void executor_close(struct executor *x);

/* executor_memory.c: accesses by a strand, each checked; `what` names the memory in the reason. */
struct order_cell *executor_user_cell(const struct executor *x, uint32_t call, uint32_t owner, bool output,
                                      uint32_t round, uint32_t piece);
bool executor_cell_read(struct executor *x, const struct strand *s, struct order_cell *cell, const char *what,
                        uint32_t owner, uint32_t piece, value_id *out);
bool executor_cell_write(struct executor *x, const struct strand *s, struct order_cell *cell, const char *what,
                         uint32_t owner, uint32_t piece, value_id value);
bool executor_input_read(struct executor *x, const struct strand *s, uint32_t owner, uint32_t piece, value_id *out);
bool executor_output_write(struct executor *x, const struct strand *s, uint32_t owner, uint32_t piece, value_id value);
bool executor_window_read(struct executor *x, const struct strand *s, uint32_t owner, int which, uint32_t piece,
                          value_id *out);
bool executor_window_write(struct executor *x, const struct strand *s, int which, uint32_t piece, value_id value);

/* executor_steps.c */
/* NULL: the MOVE can run; else the link whose slot or credit is missing. */
const struct fifo *executor_move_blocked(const struct executor *x, const struct strand *s,
                                         const struct plan_step *step);
bool executor_move_run(struct executor *x, struct strand *s, const struct plan_step *step);
void executor_signal_run(struct executor *x, const struct strand *s, const struct plan_step *step);
/* UINT32_MAX: the WAIT is over, and (learn) its strand knows what the signallers knew; else the missing peer. */
uint32_t executor_wait_try(struct executor *x, struct strand *s, const struct plan_step *step, bool learn);

#endif
