/* shape.h - the plain data that planners read: who sits with whom, and in which order. No pointers to machines,
 * transports or clocks. topo/ fills it in; algos/ and plan/ only read. */
#ifndef RAIL_TOPO_SHAPE_H
#define RAIL_TOPO_SHAPE_H

#include <stdint.h>

enum { SHAPE_TIERS = 8 }; /* as many as a fabric file has: PLACE_TIERS */

/* Groups that stand under one switch: leaves of nodes, pods of leaves and so on. Each is a run of the groups of the tier
 * below it (of nodes, for the lowest). */
struct shape_tier {
    uint32_t n_groups;
    uint32_t *start;    /* [n_groups + 1] the first of the tier below in each group */
    uint32_t *group_of; /* [groups of the tier below] */
};

struct shape {
    uint32_t n_ranks;
    uint32_t n_nodes;
    uint32_t n_rails;    /* NICs per host that every host has, >= 1 */
    uint32_t node_least, node_most; /* ranks of the smallest node, of the largest; 0 without ranks */
    uint32_t n_tiers;    /* above the nodes, of two groups or more; 0: all nodes stand under one switch, or nobody knows */
    uint32_t *node_of;   /* [n_ranks] node of a rank */
    uint32_t *peer_of;   /* [n_ranks] index of a rank inside its node, in rank order */
    uint32_t *order;     /* [n_ranks] the rank at each position of a ring; ranks of a node stand side by side */
    uint32_t *position;  /* [n_ranks] the inverse of order */
    uint32_t *node_start;/* [n_nodes + 1] position of each node's first rank */
    uint32_t *rail_of;   /* [n_ranks] home rail: that of the NIC nearest to a rank (core/homes.h); 0 until it is known */
    struct shape_tier tiers[SHAPE_TIERS]; /* the lowest first */
};

/* Builds the shape of ranks that carry the given node keys (equal keys = same node; nodes are numbered by first
 * appearance, ranks of a node in rank order). Without tiers. Returns 0, or -1 when out of memory. shape_clear frees. */
int shape_build(struct shape *out, uint32_t n_ranks, const uint64_t *node_key, uint32_t n_rails);
/* Numbers the nodes anew: order[i] becomes node i. `order` names each node once. Ranks keep their numbers, and their order
 * inside a node. Before there are tiers. Returns 0, or -1 with nothing changed when out of memory. */
int shape_reorder(struct shape *shape, const uint32_t *order);
/* Adds a tier on top: nodes with equal group[node] are together. They stand side by side, and so do those of each group of
 * the tier below, which no border may cut. What changes nothing is no tier and is left out: one group of everything, or the
 * groups of the tier below. Returns 0, or -1 with nothing changed when out of memory or above SHAPE_TIERS. */
int shape_add_tier(struct shape *shape, const uint32_t *group);
/* The group of `node` in tiers[tier]. */
uint32_t shape_group(const struct shape *shape, uint32_t tier, uint32_t node);
void shape_clear(struct shape *shape);

#endif
