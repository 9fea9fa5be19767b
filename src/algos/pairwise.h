/* pairwise.h - AlltoAll over links, any shape: n - 1 steps in which every rank sends to one and receives from one.
 *
 *     step d = 1 .. n-1, at position p of the shape's order:
 *         my block for the rank at position p + d  -> its link                        (all positions modulo n)
 *         the link of the rank at position p - d   -> its block of my output
 *
 * Each step is a permutation, so no rank is two ranks' receiver at a time; near steps stay inside the node. A rank sends
 * in the order of steps and receives in the order of steps, at most PAIRWISE_AHEAD steps of each begun and not
 * finished, and the two do not wait for one another.
 *
 * It cannot block, with one slot per link or more, however the blocks are cut into pieces: of all halves of steps that
 * are not finished take one of the smallest d, say the way from rank r to rank s. Everything that r sends before it and
 * everything that s receives before it has a smaller d, so both ends have begun it: r fills a slot or s empties one.
 *
 * Steps: n - 1. Bytes sent per rank: (n-1) B for blocks of B, the least there can be. */
#ifndef RAIL_ALGOS_PAIRWISE_H
#define RAIL_ALGOS_PAIRWISE_H

#include "topo/shape.h"

/* Enough that a late rank does not hold up the next, few enough that slots in use stay in the cache. */
#define PAIRWISE_AHEAD 4

/* Ranks. */
struct pairwise_step {
    uint32_t to, from;
};

/* 1 <= step < n_ranks. */
static inline struct pairwise_step pairwise_step(const struct shape *shape, uint32_t rank, uint32_t step)
{
    uint32_t n = shape->n_ranks, p = shape->position[rank];
    return (struct pairwise_step){.to = shape->order[(p + step) % n], .from = shape->order[(p + n - step) % n]};
}

#endif
