/* order.h - the order in which a ring walks nodes, so that it leaves each leaf, each pod, each tier once; and the tiers of
 * a shape in that order, for trees. */
#ifndef RAIL_TOPO_ORDER_H
#define RAIL_TOPO_ORDER_H

#include <stdint.h>

#include "topo/shape.h"

enum { PLACE_TIERS = SHAPE_TIERS };

/* Where a node hangs: names (hashes) of the switches above it, the topmost first; 0 where there are no more. A node of
 * which nothing is known has all 0. */
struct place { uint64_t tier[PLACE_TIERS]; };

/* order[i] := the node at place i. Groups stand together at every tier, groups and nodes by first appearance, so where
 * nothing is known the order stays as it is. A ring in this order crosses each tier as often as there are groups in it
 * (never, if there is one), which no order can beat. Returns 0, or -1 when out of memory. */
int place_order(uint32_t n_nodes, const struct place *places, uint32_t *order);

/* Whether two places differ in tier `tier` or above: whoever goes from one to the other leaves a group of that tier. */
int place_differs(const struct place *a, const struct place *b, uint32_t tier);

/* Edges of the ring order[0] .. order[n-1] .. order[0] whose ends differ in tier `tier` or above. */
uint32_t place_crossings(uint32_t n_nodes, const struct place *places, const uint32_t *order, uint32_t tier);

/* Gives the shape, whose nodes already stand in `order`, the tiers of their places. Returns 0, or -1 when out of memory. */
int place_tiers(struct shape *shape, const struct place *places, const uint32_t *order);

#endif
