/* express.h - small collectives as one-shot, written out by hand.
 *
 * Every rank stores its data beside its flag in one cache line (more than 48 bytes go into a body of their own; a rank that
 * has nothing to give stores the flag), waits for the lines of those that give it something, and takes what it is to get:
 * combined in rank order, from left to right or as a balanced tree, or copied. One hop, no plan, no window, no second
 * message. Equal by value to the one-shot plan (a test compares them).
 *
 * Whoever gets nothing waits for nobody: a Broadcast's root, all but a Reduce's root. It may be ahead of the others by as many
 * messages as a ring of lines has places (SHM_EXPRESS_DEPTH). A message is numbered by its round, the same on all ranks, for all
 * call the same. A place is written again when all are through with what stands there: a peer that has stored its flag of
 * round r is through with all rounds before r, for its calls are made one after another. So there is no second message here
 * either, and one is looked for only when the ring is full by what I know, and then for half of it: n - 1 cache lines every
 * 16th round. Where all meet in a round, all are through with the one before, and nobody has to look.
 * That never blocks for good: of the ranks that are furthest behind, in round r, each has its flags of r - 1 from all.
 *
 * Beside the flag stands the fold of all calls so far (calls.h). So it shows at the first flag that one rank reads of another,
 * if only to find room, that the two have called different things, even if that was rounds ago: two roots of one
 * Broadcast would both be through with it at once.
 *
 * Why up to 4 KiB: to there a plan's way costs more than the lines do (docs/PERFORMANCE.md, "Learned"). */
#ifndef RAIL_ENGINE_EXPRESS_H
#define RAIL_ENGINE_EXPRESS_H

#include "engine/host.h"
#include "engine/wait.h"
#include "plan/collective.h"

/* Flat up to here: each rank reads n - 1 lines, so the work grows with n; a tree wins above. */
enum { EXPRESS_MAX_PEERS = 8 };
/* What a rank may give where a root gives or gets; and where all meet, which a plan does as well from 4 KiB on: it has two
 * windows, which stay in the fastest cache. */
enum { EXPRESS_ROOTED_BYTES = SHM_EXPRESS_BYTES, EXPRESS_MEETING_BYTES = 2048 };

/* A collective whose input fits into the lines, among all ranks of a node whose segment has lines. */
struct express_call {
    struct collective_kind kind;
    struct rail_combine how;
    const void *input; /* not looked at where this rank gives nothing, nor output where it gets nothing */
    void *output;
    size_t count;      /* elements of a block */
    uint32_t root;     /* where there is one */
    bool balanced;
};
/* Blocks until done, or until *stop becomes non-zero (RAIL_E_ABORTED), or a peer called something else. */
enum rail_result express_collective(struct host_node *node, struct wait_policy *policy, const _Atomic uint32_t *stop,
                                    const struct express_call *call);

/* The same in steps, for a caller that drives several operations at once. One at a time of a node: begin says that I am
 * here if there is room, then progress says RAIL_NOT_YET until everybody is that this rank needs, and never blocks. */
struct express_op {
    struct express_call call;
    uint64_t round;
    uint64_t history; /* of the calls up to this one */
    uint32_t seen;    /* peers whose lines are there */
    bool posted, running;
};
void express_begin(struct host_node *node, const struct express_call *call, struct express_op *op);
enum rail_result express_progress(struct host_node *node, struct express_op *op);
/* For whom a running one waits. */
struct express_wait express_wait(const struct host_node *node, const struct express_op *op);

#endif
