/* tree.h - who is whose parent: the ranks as a heap of fan-out BOOTSTRAP_FANOUT, rank 0 on top.
 *
 *                 0
 *      1     2   ...   8            children of r: 8r + 1 ... 8r + 8, parent of r: (r - 1) / 8
 *    9..16 17..24     65..72
 *
 * The fan-out: a message to k children costs a hop's latency L and k sends of cost c each, over log_k(n) levels:
 * (L + k c) / ln k is least where k (ln k - 1) = L / c. A hop between processes takes some 40 us (wake-up included), a
 * send some 4 us: k (ln k - 1) = 10 at k = 8.6. */
#ifndef RAIL_BOOTSTRAP_TREE_H
#define RAIL_BOOTSTRAP_TREE_H

#include <stdint.h>

enum { BOOTSTRAP_FANOUT = 8 };

static inline uint32_t tree_parent(uint32_t rank) { return rank ? (rank - 1) / BOOTSTRAP_FANOUT : 0; }

static inline uint32_t tree_first_child(uint32_t rank) { return rank * BOOTSTRAP_FANOUT + 1; }

/* Children are tree_first_child(rank) and those that follow. */
uint32_t tree_n_children(uint32_t rank, uint32_t n_ranks);
/* Ranks in the subtree below and including `rank`. */
uint32_t tree_size(uint32_t rank, uint32_t n_ranks);
/* Writes the subtree's ranks, each before its children, children in order: the order of gathered data. Returns how
 * many: tree_size(). */
uint32_t tree_order(uint32_t rank, uint32_t n_ranks, uint32_t *out);

#endif
