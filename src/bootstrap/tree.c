/* tree.c - see tree.h. 64-bit arithmetic, because a child's number may pass 2^32 before it is compared with n. */
#include "bootstrap/tree.h"

uint32_t tree_n_children(uint32_t rank, uint32_t n_ranks)
{
    uint64_t first = (uint64_t)rank * BOOTSTRAP_FANOUT + 1;
    if (first >= n_ranks) return 0;
    uint64_t n = n_ranks - first;
    return n < BOOTSTRAP_FANOUT ? (uint32_t)n : BOOTSTRAP_FANOUT;
}

uint32_t tree_size(uint32_t rank, uint32_t n_ranks)
{
    uint32_t size = 0;
    /* Level by level, a subtree's ranks are consecutive. */
    for (uint64_t first = rank, last = rank; first < n_ranks;
         first = first * BOOTSTRAP_FANOUT + 1, last = last * BOOTSTRAP_FANOUT + BOOTSTRAP_FANOUT)
        size += (uint32_t)((last < n_ranks ? last : (uint64_t)n_ranks - 1) - first + 1);
    return size;
}

uint32_t tree_order(uint32_t rank, uint32_t n_ranks, uint32_t *out)
{
    uint32_t n = 0, children = tree_n_children(rank, n_ranks);
    out[n++] = rank;
    for (uint32_t i = 0; i < children; i++) n += tree_order(tree_first_child(rank) + i, n_ranks, out + n);
    return n;
}
