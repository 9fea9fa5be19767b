/* shape.h - the plain data that planners read: who sits with whom, and in which order. No pointers to machines,
 * transports or clocks. topo/ fills it in; algos/ and plan/ only read. */
#ifndef RAIL_TOPO_SHAPE_H
#define RAIL_TOPO_SHAPE_H

#include <stdint.h>

struct shape {
    uint32_t n_ranks;
    uint32_t n_nodes;
    uint32_t n_rails;    /* NICs per host that every host has, >= 1 */
    uint32_t *node_of;   /* [n_ranks] node of a rank */
    uint32_t *peer_of;   /* [n_ranks] index of a rank inside its node, in rank order */
    uint32_t *order;     /* [n_ranks] the rank at each position of a ring; ranks of a node stand side by side */
    uint32_t *position;  /* [n_ranks] the inverse of order */
    uint32_t *node_start;/* [n_nodes + 1] position of each node's first rank */
    uint32_t *rail_of;   /* [n_ranks] home rail: that of the NIC nearest to a rank (core/homes.h); 0 until it is known */
};

/* Builds the shape of ranks that carry the given node keys (equal keys = same node; nodes are numbered by first
 * appearance, ranks of a node in rank order). Returns 0, or -1 when out of memory. shape_clear frees. */
int shape_build(struct shape *out, uint32_t n_ranks, const uint64_t *node_key, uint32_t n_rails);
/* Numbers the nodes anew: order[i] becomes node i. `order` names each node once. Ranks keep their numbers, and their order
 * inside a node. Returns 0, or -1 with nothing changed when out of memory. */
int shape_reorder(struct shape *shape, const uint32_t *order);
void shape_clear(struct shape *shape);

#endif
