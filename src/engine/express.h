/* express.h - small collectives as one-shot, written out by hand.
 *
 * Every rank stores its data beside its flag in one cache line (more than 48 bytes go on in the lines behind it; a rank
 * that has nothing to give stores the flag), polls the lines of its peers, and takes what it is to get: combined in rank
 * order, from left to right or as a balanced tree, or copied. One hop, no plan, no window, no second message. Equal by
 * value to the one-shot plan (a test compares them). Lines alternate between two: a rank cannot be two messages ahead,
 * because it needs everybody's line of the message before, and whoever stored that line has read the one before it.
 * Why up to 1 KiB: to there a plan's way costs more than the lines do (2 ranks: 64 B 0.24 us, 0.12 here, 1 KiB 0.27, 0.19). */
#ifndef RAIL_ENGINE_EXPRESS_H
#define RAIL_ENGINE_EXPRESS_H

#include "engine/host.h"
#include "engine/wait.h"
#include "plan/collective.h"

/* Flat up to here: each rank reads n - 1 lines, so the work grows with n; a tree wins above. */
enum { EXPRESS_MAX_PEERS = 8 };

static inline bool express_fits(const struct host_node *node, uint32_t n_ranks, size_t bytes)
{
    return bytes <= SHM_EXPRESS_BYTES && n_ranks <= EXPRESS_MAX_PEERS && node->segment.geometry.n_peers == n_ranks;
}

/* A collective whose input fits into the lines. */
struct express_call {
    struct collective_kind kind;
    struct rail_combine how;
    const void *input; /* not looked at where this rank gives nothing, nor output where it gets nothing */
    void *output;
    size_t count;      /* elements of a block */
    uint32_t root;     /* where there is one */
    uint64_t signature;
    bool balanced;
};
/* Blocks until done, or until *stop becomes non-zero (RAIL_E_ABORTED), or a peer called something else. */
enum rail_result express_collective(struct host_node *node, struct wait_policy *policy, const _Atomic uint32_t *stop,
                                    const struct express_call *call);

/* The same in steps, for a caller that drives several operations at once. One at a time of a node: begin says that I am
 * here, then progress says RAIL_NOT_YET until everybody is, and never blocks. */
struct express_op {
    struct express_call call;
    uint64_t round;
    uint32_t seen; /* peers whose lines are there */
    bool running;
};
void express_begin(struct host_node *node, const struct express_call *call, struct express_op *op);
enum rail_result express_progress(struct host_node *node, struct express_op *op);

#endif
