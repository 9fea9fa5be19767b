/* begin.h - what the planners of all collectives but AllReduce begin with: who we are in the shape. */
#ifndef RAIL_ALGOS_BEGIN_H
#define RAIL_ALGOS_BEGIN_H

#include "algos/algos.h"
#include "plan/write.h"

/* Sources, or destinations, of one move; rail_combine takes 64. */
#define WINDOW_PEERS_MAX 64

static inline bool fits_links(const struct shape *shape) { return shape->n_ranks >= 2; }
static inline bool fits_windows(const struct shape *shape)
{
    return shape->n_ranks >= 2 && shape->n_ranks <= WINDOW_PEERS_MAX && shape->n_nodes == 1;
}

/* A plan of links. Peers never touch my buffers. */
static inline void begin_links(struct plan *out, enum plan_collective collective, enum plan_algorithm algorithm,
                               const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root)
{
    uint32_t node = shape->node_of[rank];
    plan_begin_collective(out, collective, algorithm, rank, shape->n_ranks, channel, root, shape->position[rank]);
    out->peer = shape->peer_of[rank];
    out->n_peers = shape->node_start[node + 1] - shape->node_start[node];
    out->flags = PLAN_DIRECT_IN_PLACE;
}

/* A plan of windows: a node's peers are its ranks in order, so peer, position and block are one number. It begins as
 * every such plan must: my windows, used two rounds ago, have been read by everybody, and so has what I said of my
 * buffers then. */
static inline void begin_windows(struct plan *out, enum plan_collective collective, enum plan_algorithm algorithm,
                                 const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root)
{
    uint32_t n = shape->n_ranks;
    begin_links(out, collective, algorithm, shape, rank, channel, root);
    out->flags = PLAN_WINDOWS | PLAN_DIRECT_IN_PLACE;
    plan_add_strand(out);
    plan_add_wait(out, 0, PLAN_DONE, plan_index_mod(0, (uint64_t)out->peer + 1, n), (uint16_t)(n - 1),
                  PLAN_WINDOW_DEPTH);
}

#endif
