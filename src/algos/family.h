/* family.h - a rank's relatives in the trees of tree.c and tree_rooted.c. family.c says what trees they are. */
#ifndef RAIL_ALGOS_FAMILY_H
#define RAIL_ALGOS_FAMILY_H

#include <stdbool.h>
#include <stdint.h>

#include "topo/shape.h"

enum { FAMILY_CHILDREN = 2 };

/* Ranks. */
struct family {
    bool has_parent; /* all but the root */
    uint32_t parent;
    uint32_t n_children;
    uint32_t child[FAMILY_CHILDREN];
};

/* In the tree of a channel: even and odd channels have two trees that load every rank alike. */
struct family family_of(const struct shape *shape, uint32_t rank, uint32_t channel);
/* In such a tree with `root` on top. */
struct family family_below(const struct shape *shape, uint32_t rank, uint32_t root, uint32_t channel);

/* Edges of the channel's tree whose ends stand in different groups of tiers[tier - 1], tier 0: in different nodes. Walks
 * all ranks. */
uint32_t family_crossings(const struct shape *shape, uint32_t channel, uint32_t tier);

#endif
