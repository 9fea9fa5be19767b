/* check.h - proof that a set of plans is the collective they say they are: a symbolic executor.
 *
 * It runs all strands of all ranks with expressions in place of data, bounded slots, and vector clocks, and shows:
 *  - nothing waits for ever, with exactly the slots that the plans ask for;
 *  - in a collective that reduces, every piece of every output ends as the combination of every rank's scaled input,
 *    each once, finished once, and is the same expression on all ranks that have it; in another it ends as the copy of
 *    the one input it should be;
 *  - a plan that promises rank order (PLAN_IN_RANK_ORDER) gives the rank tree of value.h, to the last inner node;
 *  - nobody reads an input that its owner was not asked for, or writes an output that its owner did not ask for
 *    (collective.h says who has what);
 *  - the result does not depend on timing: links are FIFOs with one strand at each end, and every two accesses to one
 *    piece of memory (user buffers, windows, scratch; input and output are one buffer when in place) are ordered by
 *    messages or signals. Returning credit does not count as order, so more slots never hurt;
 *  - nobody touches a user buffer before its owner's call began or after it returned;
 *  - every slot carries what its receiver expects, and nothing is left over.
 *
 * The model: each rank runs its calls in order. In a call, each strand runs its steps once per round, rounds in order,
 * without waiting for the rank's other strands. A call has returned when all of the rank's strands are through. */
#ifndef RAIL_PLAN_CHECK_H
#define RAIL_PLAN_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plan/plan.h"

/* One collective call on one channel. */
struct plan_check_call {
    const struct plan *plans; /* [n_ranks], in rank order */
    uint32_t rounds;
    const bool *direct;   /* [n_ranks] buffers that peers reach directly; NULL: all staged */
    const bool *in_place; /* [n_ranks] input == output; NULL: none */
};

enum plan_check_schedule {
    PLAN_CHECK_FORWARD, /* strands take turns, one step each */
    PLAN_CHECK_REVERSE, /* the same, last strand first */
    PLAN_CHECK_GREEDY,  /* each strand runs until it is blocked */
    PLAN_CHECK_RANDOM,  /* by seed */
};

struct plan_check {
    const struct plan_check_call *calls;
    uint32_t n_calls;
    uint32_t slots; /* of every link; 0: what the plans ask for (slots_min) */
    enum plan_check_schedule schedule;
    uint64_t seed;
};

enum plan_verdict {
    PLAN_RIGHT,
    PLAN_WRONG_STRUCTURE, /* not a plan: out of range, misplaced operand, unpaired link, plans that disagree */
    PLAN_WRONG_PIECE,     /* a slot or operand of another piece than expected */
    PLAN_WRONG_VALUE,     /* an input missing, counted twice, or not scaled; garbage read */
    PLAN_WRONG_FINAL,     /* finished not exactly once */
    PLAN_WRONG_RANKS,     /* ranks end with different expressions */
    PLAN_WRONG_ORDER,     /* promised in rank order, and combined in another */
    PLAN_DEADLOCK,
    PLAN_LEFT_OVER, /* slots nobody took */
    PLAN_RACE,      /* unordered accesses, or a user buffer touched outside its owner's call */
    PLAN_UNCHECKED, /* out of memory, or more than PLAN_CHECK_MAX_RANKS */
};
enum { PLAN_CHECK_MAX_RANKS = 4096 };

/* What one rank moved, in pieces. */
struct plan_check_count {
    uint64_t slots_sent;
    uint64_t peer_reads;    /* of another rank's input, or of its windows */
    uint64_t peer_writes;   /* into another rank's output */
    uint64_t window_writes; /* into my own windows */
};

struct plan_check_report {
    enum plan_verdict verdict;
    char why[256];   /* rank, strand, step and piece; "" when right */
    uint32_t steps;  /* longest chain of hand-overs (slots and signals) */
    uint64_t values; /* hash of all outputs' expressions: equal for equal results */
    bool in_rank_order; /* every output is a combination, and the rank tree */
};

/* Runs everything. `counts` is [n_ranks] or NULL. Returns report->verdict. */
enum plan_verdict plan_check_run(const struct plan_check *check, struct plan_check_report *report,
                                 struct plan_check_count *counts);

/* One plan by itself: everything in range, everything in its place. */
bool plan_validate(const struct plan *plan, char *why, size_t why_bytes);

#endif
