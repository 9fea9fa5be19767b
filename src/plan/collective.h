/* collective.h - the collectives, each described once: who gives and gets what, how buffers follow from count, whether
 * values are combined. Argument checks, planners, the proof, engines, signatures and tests all ask here.
 *
 * A buffer holds one block of count elements, or n blocks, one per rank in rank order. Everything else follows:
 *
 *     collective      input            output           in place
 *     AllReduce       block            block            output == input
 *     Broadcast       block, root's    block            output == input
 *     Reduce          block            block, root's    output == input
 *     AllGather       block            n blocks         input  == output + rank blocks
 *     ReduceScatter   n blocks         block            output == input + rank blocks
 *     Gather          block            n blocks, root's input  == output + rank blocks
 *     Scatter         n blocks, root's block            output == input + rank blocks
 *     AlltoAll        n blocks         n blocks         never
 *
 * In place is one rule: the block that I give of my own to myself stands at the same address in both.
 *
 * A round of a plan has n_pieces pieces. Where a buffer has n blocks, they are divided among the blocks: block k's come
 * first to last before block k+1's, and block k is that of the rank at position k of the shape's order, so that a ring
 * can walk blocks by index. In an AlltoAll block k of the output is what the rank at position k had for me in the block of
 * my position: the one collective in which a piece changes its number on its way. Freestanding. */
#ifndef RAIL_PLAN_COLLECTIVE_H
#define RAIL_PLAN_COLLECTIVE_H

#include "plan/plan.h"

struct collective_kind {
    uint8_t reduces;       /* outputs are combinations of all inputs; else copies of one */
    uint8_t rooted;        /* has a root */
    uint8_t input_blocks;  /* the input is n blocks */
    uint8_t output_blocks; /* the output is n blocks */
    uint8_t root_gives;    /* only the root has an input */
    uint8_t root_gets;     /* only the root has an output */
};

/* Sets of collectives, a bit each. */
enum {
    COLLECTIVES_REDUCE = 1 << PLAN_ALLREDUCE | 1 << PLAN_REDUCE | 1 << PLAN_REDUCESCATTER,
    COLLECTIVES_INPUT_BLOCKS = 1 << PLAN_REDUCESCATTER | 1 << PLAN_SCATTER | 1 << PLAN_ALLTOALL,
    COLLECTIVES_OUTPUT_BLOCKS = 1 << PLAN_ALLGATHER | 1 << PLAN_GATHER | 1 << PLAN_ALLTOALL,
    COLLECTIVES_ROOT_GIVES = 1 << PLAN_BROADCAST | 1 << PLAN_SCATTER,
    COLLECTIVES_ROOT_GETS = 1 << PLAN_REDUCE | 1 << PLAN_GATHER,
};

/* Of a number below PLAN_COLLECTIVES. */
PLAN_FN struct collective_kind collective_kind(uint32_t collective)
{
    struct collective_kind kind;
    kind.reduces = COLLECTIVES_REDUCE >> collective & 1;
    kind.input_blocks = COLLECTIVES_INPUT_BLOCKS >> collective & 1;
    kind.output_blocks = COLLECTIVES_OUTPUT_BLOCKS >> collective & 1;
    kind.root_gives = COLLECTIVES_ROOT_GIVES >> collective & 1;
    kind.root_gets = COLLECTIVES_ROOT_GETS >> collective & 1;
    kind.rooted = kind.root_gives | kind.root_gets;
    return kind;
}

/* Blocks that a round's pieces are divided among. */
PLAN_FN uint32_t collective_blocks(uint32_t collective, uint32_t n_ranks)
{
    struct collective_kind kind = collective_kind(collective);
    return kind.input_blocks || kind.output_blocks ? n_ranks : 1;
}

/* "AllReduce"; NULL for no collective. */
PLAN_FN const char *collective_name(uint32_t collective)
{
    switch (collective) {
    case PLAN_ALLREDUCE: return "AllReduce";
    case PLAN_BROADCAST: return "Broadcast";
    case PLAN_REDUCE: return "Reduce";
    case PLAN_ALLGATHER: return "AllGather";
    case PLAN_REDUCESCATTER: return "ReduceScatter";
    case PLAN_GATHER: return "Gather";
    case PLAN_SCATTER: return "Scatter";
    case PLAN_ALLTOALL: return "AlltoAll";
    default: return 0;
    }
}

/* The block that a piece of this plan's rounds belongs to: the position of the rank that gives or gets it. */
PLAN_FN uint32_t plan_block(const struct plan *plan, uint32_t piece)
{
    uint32_t blocks = collective_blocks(plan->collective, plan->n_ranks);
    return blocks == 1 ? 0 : piece / (plan->n_pieces / blocks);
}

/* Whether the plan's rank has this piece in its input, and in its output. */
PLAN_FN int plan_gives(const struct plan *plan, uint32_t piece)
{
    struct collective_kind kind = collective_kind(plan->collective);
    if (kind.root_gives && plan->rank != plan->root) return 0;
    return kind.input_blocks || !kind.output_blocks || plan_block(plan, piece) == plan->position;
}
PLAN_FN int plan_gets(const struct plan *plan, uint32_t piece)
{
    struct collective_kind kind = collective_kind(plan->collective);
    if (kind.root_gets && plan->rank != plan->root) return 0;
    return kind.output_blocks || !kind.input_blocks || plan_block(plan, piece) == plan->position;
}

/* Pieces that have the same part of their block have the same length. */
PLAN_FN uint32_t plan_part_of_block(const struct plan *plan, uint32_t piece)
{
    return piece % (plan->n_pieces / collective_blocks(plan->collective, plan->n_ranks));
}

/* In a collective that copies: the piece of its giver's input that this piece of my output is. */
PLAN_FN uint32_t plan_piece_given(const struct plan *plan, uint32_t piece)
{
    if (plan->collective != PLAN_ALLTOALL) return piece;
    return plan->position * (plan->n_pieces / plan->n_ranks) + plan_part_of_block(plan, piece);
}

#endif
