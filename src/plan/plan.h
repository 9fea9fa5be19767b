/* plan.h - what one rank does in one round of a collective, as data.
 *
 * A plan is a set of strands: short programs run in order. Strands run concurrently and meet only through links
 * (ordered, one-way, a ring of slots) and monotonic counters, so whether a set of plans deadlocks does not depend on
 * timing (a Kahn network), and plan/check.c can prove it. There is one working verb, MOVE: combine n sources into m
 * destinations.
 *
 * A plan knows pieces, not bytes: a round is cut into n_pieces, and ranges.h maps (count, channel, round, piece) to
 * elements. The plan is run once per round. It does not depend on count, type or operator and is cached by (collective,
 * algorithm, channel, root).
 *
 * Freestanding: this header and ranges.h compile for the host and for the GPU; they include nothing but the two
 * freestanding headers below. collective.h, which says what the collectives are, is of the same kind. */
#ifndef RAIL_PLAN_PLAN_H
#define RAIL_PLAN_PLAN_H

#include <stddef.h>
#include <stdint.h>

/* Functions of the freestanding headers exist on both sides when a CUDA compiler reads them. */
#ifndef PLAN_FN
#if defined(__CUDA__) || defined(__CUDACC__)
#define PLAN_FN __attribute__((host)) __attribute__((device)) static inline
#else
#define PLAN_FN static inline
#endif
#endif

/* index(i) = (a * i + b) mod m, where i is the iteration of the enclosing LOOP (0 outside one). m >= 1; b < m. */
struct plan_index {
    int32_t a;
    uint32_t b;
    uint32_t m;
};

/* (a*i + b) mod m, non-negative for negative a too. Division of 64 bits is a subroutine on a GPU: rarely needed here. */
PLAN_FN uint32_t plan_index_at(struct plan_index x, uint32_t i)
{
    int64_t v = (int64_t)x.a * (int64_t)i + (int64_t)x.b;
    if (v >= 0 && v < (int64_t)x.m) return (uint32_t)v;
    if (v >= 0 && v <= 0xffffffffll) return (uint32_t)v % x.m;
    v %= (int64_t)x.m;
    return (uint32_t)(v < 0 ? v + (int64_t)x.m : v);
}

enum plan_place {
    PLAN_INPUT,       /* source: the caller's send buffer; the pre-operation (scale) is applied as it is read */
    PLAN_OUTPUT,      /* the caller's receive buffer */
    PLAN_SCRATCH,     /* private memory of one round, n_scratch pieces */
    PLAN_SLOT_IN,     /* source: wait for the link's next slot; released when the MOVE is done */
    PLAN_SLOT_OUT,    /* destination: acquire the link's next slot; published when the MOVE is done */
    PLAN_PEER_INPUT,  /* source: input of node peer `which` (spans `span` consecutive peers, modulo which.m).
                         destination (only which == self): make my input readable by peers; a no-op if it is direct */
    PLAN_PEER_OUTPUT, /* destination: deliver into the outputs of `span` node peers (self included: own output).
                         source: what node peer `which` delivered to me; a no-op if my output is direct */
};

/* One operand. For slots `which` is an index into plan.links and `piece` says what travels; for peers `which` is the
 * peer's index in its node (0 .. n_peers-1). */
struct plan_operand {
    uint8_t place; /* enum plan_place */
    uint8_t reserved;
    uint16_t span; /* peers only; 1 elsewhere */
    struct plan_index which;
    struct plan_index piece;
    uint32_t reserved2;
};

enum plan_verb {
    PLAN_MOVE,   /* combine n_src sources, in the order written, into each of n_dst destinations */
    PLAN_SIGNAL, /* my counter `counter` := W + 1, W the life-long number of this window round (release) */
    PLAN_WAIT,   /* until counter `counter` of the operand's peers >= W + 1 - lag (acquire) */
    PLAN_LOOP,   /* run the next `body` steps `times` times with i = 0 .. times-1, some left out (period, skip); loops do
                    not nest */
};

enum plan_step_flag {
    PLAN_FINAL = 1,     /* MOVE: the result is the complete reduction: apply the post-operation (integer average) */
    PLAN_IF_DIRECT = 2, /* run the step only if my own buffers are direct in this operation: peers hold true pointers */
    PLAN_IF_STAGED = 4, /* run the step only if they are staged through my window */
    PLAN_BALANCED = 8,  /* MOVE: combine the sources not from left to right but as a balanced binary tree over their
                           order, split at the largest power of two below their number, every inner node rounded to the type */
};

struct plan_step {
    uint8_t verb;  /* enum plan_verb */
    uint8_t flags; /* enum plan_step_flag */
    uint8_t n_src;
    uint8_t n_dst;
    uint16_t first;   /* first operand: sources, then destinations; WAIT: one operand, its place ignored */
    uint16_t body;    /* LOOP */
    uint32_t times;   /* LOOP; 0 skips the body */
    uint8_t counter;  /* SIGNAL, WAIT: enum plan_counter */
    uint8_t lag;      /* WAIT: 0 = this round, PLAN_WINDOW_DEPTH = the round that last used this window */
    uint8_t period;   /* LOOP: 0, or >= 2: iterations with i mod period == skip are left out */
    uint8_t skip;
};

/* The first iteration of a LOOP from i on that runs; >= times: none does. */
PLAN_FN uint32_t plan_loop_from(const struct plan_step *loop, uint32_t i)
{
    return loop->period && i % loop->period == loop->skip ? i + 1 : i;
}

/* Counters of a rank on the plan's channel, one cache line each, written by it alone, read by its node peers. They
 * count the channel's window rounds over the life of the communicator, whatever plan ran, so a lagging WAIT reaches
 * across calls. A WAIT may name its own rank: strands of one rank meet by counters, too. */
enum plan_counter { PLAN_STAGED, PLAN_DELIVERED, PLAN_DONE, PLAN_REDUCED, PLAN_COUNTERS };

/* Windows per rank: a round may be staged while peers still read the one before. */
#define PLAN_WINDOW_DEPTH 2

enum plan_direction { PLAN_LINK_IN, PLAN_LINK_OUT };

/* A link is named by (from rank, to rank, channel, way): a plan has at most one link to and one from a given peer each
 * way. Way 1 is for data that goes back where other data came from, in a strand of its own: one FIFO for both would
 * make each wait for the other. */
enum { PLAN_WAYS = 2 };
struct plan_link {
    uint32_t peer;      /* rank in the communicator */
    uint16_t direction; /* enum plan_direction */
    uint16_t way;       /* 0 or 1 */
};

struct plan_strand {
    uint16_t first;
    uint16_t n_steps;
};

/* What each is: collective.h. */
enum plan_collective {
    PLAN_ALLREDUCE,
    PLAN_BROADCAST,
    PLAN_REDUCE,
    PLAN_ALLGATHER,
    PLAN_REDUCESCATTER,
    PLAN_GATHER,
    PLAN_SCATTER,
    PLAN_ALLTOALL,
    PLAN_COLLECTIVES
};

enum plan_algorithm {
    PLAN_ONE_SHOT,
    PLAN_TWO_SHOT,
    PLAN_RING,
    PLAN_TREE,
    PLAN_DOUBLING,
    PLAN_RANK_TREE,
    PLAN_HIERARCHY,
    PLAN_RAILS,
    PLAN_ALGORITHMS,
    PLAN_PAIRWISE, /* no plan, which could not name that many links: AlltoAll in the steps of algos/pairwise.h */
};

enum plan_flag {
    PLAN_WINDOWS = 1,         /* uses peer operands, hence its channel's windows in the node and their round number */
    PLAN_DIRECT_IN_PLACE = 2, /* stays right when buffers are direct and input == output */
    PLAN_IN_RANK_ORDER = 4,   /* a promise, which the check proves: every output is the rank tree (value.h) */
};

enum { PLAN_MAX_STRANDS = 4, PLAN_MAX_LINKS = 16, PLAN_MAX_STEPS = 40, PLAN_MAX_OPERANDS = 72 };

struct plan {
    uint32_t rank, n_ranks; /* of the communicator */
    uint32_t peer, n_peers; /* my index in my node, ranks of my node */
    uint32_t position;      /* of my block among those of a round; 0 where buffers have one block */
    uint32_t root;          /* 0 where there is none */
    uint32_t n_pieces;      /* pieces of a round */
    uint32_t n_scratch;     /* pieces of scratch */
    uint16_t algorithm;     /* enum plan_algorithm */
    uint16_t channel;
    uint8_t flags;     /* enum plan_flag */
    uint8_t slots_min; /* slots every link needs for this plan not to deadlock: the check runs with exactly these */
    uint8_t n_strands;
    uint8_t n_links;
    uint16_t n_steps, n_operands;
    uint16_t collective; /* enum plan_collective */
    uint16_t reserved;
    uint32_t node;       /* plans with windows: my node's number; all of a node's peers have it */
    uint32_t reserved2;
    struct plan_strand strands[PLAN_MAX_STRANDS];
    struct plan_link links[PLAN_MAX_LINKS];
    struct plan_step steps[PLAN_MAX_STEPS];
    struct plan_operand operands[PLAN_MAX_OPERANDS];
};

#ifdef __cplusplus
#define PLAN_ASSERT(condition, text) static_assert(condition, text)
#else
#define PLAN_ASSERT(condition, text) _Static_assert(condition, text)
#endif
PLAN_ASSERT(sizeof(struct plan_operand) == 32, "operand layout is shared with the GPU");
PLAN_ASSERT(sizeof(struct plan_step) == 16, "step layout is shared with the GPU");
PLAN_ASSERT(sizeof(struct plan) <= 4096, "a plan stays under a page");

/* No rank uses more slots than every link is sure to have. */
#define PLAN_SLOTS_GUARANTEED 4

#endif
