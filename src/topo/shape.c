/* shape.c - from "who has which node key" to the plain data that planners read.
 *
 * Nodes are numbered by first appearance, so a shuffled host list costs nothing: the ring walks node after node, and
 * inside a node rank after rank. Sorting (key, rank) pairs finds the first rank of each key in n log n; that rank leads
 * the node, and one walk in rank order numbers the leaders.
 *
 *     rank      0  1  2  3  4  5          node_key  B  A  B  C  A  B
 *     node_of   0  1  0  2  1  0          peer_of   0  0  1  0  1  2
 *     order     0  2  5 | 1  4 | 3        node_start 0 3 5 6
 *
 * Tiers are the same thing once more, above the nodes: tier 0 groups nodes, tier 1 groups tier 0's groups, and so on.
 *
 *     node             0 1 | 2 | 3 | 4 5 6      leaves a a b c d d d    tiers[0]: start 0 2 3 4 7, group_of 0 0 1 2 3 3 3
 *     pods             P P   P   Q   Q Q Q                              tiers[1]: start 0 2 4,     group_of 0 0 1 1 */
#include "topo/shape.h"

#include <stdlib.h>
#include <string.h>

struct keyed_rank {
    uint64_t key;
    uint32_t rank;
};

static int keyed_rank_compare(const void *a, const void *b)
{
    const struct keyed_rank *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

/* leader[rank] := the lowest rank with the same key. Returns 0, or -1 when out of memory. */
static int leaders_find(uint32_t n_ranks, const uint64_t *node_key, uint32_t *leader)
{
    struct keyed_rank *sorted = malloc(n_ranks * sizeof *sorted);
    if (sorted == NULL) return -1;
    for (uint32_t r = 0; r < n_ranks; r++) sorted[r] = (struct keyed_rank){node_key[r], r};
    qsort(sorted, n_ranks, sizeof *sorted, keyed_rank_compare);
    for (uint32_t i = 0; i < n_ranks; i++) {
        int same = i > 0 && sorted[i].key == sorted[i - 1].key;
        leader[sorted[i].rank] = same ? leader[sorted[i - 1].rank] : sorted[i].rank;
    }
    free(sorted);
    return 0;
}

int shape_build(struct shape *out, uint32_t n_ranks, const uint64_t *node_key, uint32_t n_rails)
{
    struct shape s = {.n_ranks = n_ranks, .n_rails = n_rails};
    size_t n = n_ranks > 0 ? n_ranks : 1; /* calloc(0) may return NULL without being out of memory */
    s.node_of = calloc(n, sizeof(uint32_t));
    s.peer_of = calloc(n, sizeof(uint32_t));
    s.order = calloc(n, sizeof(uint32_t));
    s.position = calloc(n, sizeof(uint32_t));
    s.node_start = calloc(n + 1, sizeof(uint32_t));
    s.rail_of = calloc(n, sizeof(uint32_t));
    if (!s.node_of || !s.peer_of || !s.order || !s.position || !s.node_start || !s.rail_of) goto undo;

    uint32_t *leader = s.order; /* order is not needed yet */
    if (n_ranks > 0 && leaders_find(n_ranks, node_key, leader) != 0) goto undo;
    uint32_t *size = s.node_start + 1; /* sizes first, then their running sum */
    for (uint32_t r = 0; r < n_ranks; r++) {
        uint32_t node = leader[r] == r ? s.n_nodes++ : s.node_of[leader[r]];
        s.node_of[r] = node;
        s.peer_of[r] = size[node]++;
    }
    for (uint32_t k = 0; k < s.n_nodes; k++) {
        if (k == 0 || size[k] < s.node_least) s.node_least = size[k];
        if (size[k] > s.node_most) s.node_most = size[k];
    }
    for (uint32_t k = 0; k < s.n_nodes; k++) s.node_start[k + 1] += s.node_start[k];
    for (uint32_t r = 0; r < n_ranks; r++) s.position[r] = s.node_start[s.node_of[r]] + s.peer_of[r];
    for (uint32_t r = 0; r < n_ranks; r++) s.order[s.position[r]] = r;
    *out = s;
    return 0;

undo:
    shape_clear(&s);
    return -1;
}

int shape_reorder(struct shape *shape, const uint32_t *order)
{
    size_t n = shape->n_nodes + 1u;
    uint32_t *start = calloc(n, sizeof *start), *number = calloc(n, sizeof *number);
    if (!start || !number) {
        free(start);
        free(number);
        return -1;
    }
    for (uint32_t i = 0; i < shape->n_nodes; i++) {
        number[order[i]] = i;
        start[i + 1] = start[i] + shape->node_start[order[i] + 1] - shape->node_start[order[i]];
    }
    for (uint32_t r = 0; r < shape->n_ranks; r++) {
        shape->node_of[r] = number[shape->node_of[r]];
        shape->position[r] = start[shape->node_of[r]] + shape->peer_of[r];
        shape->order[shape->position[r]] = r;
    }
    free(shape->node_start);
    free(number);
    shape->node_start = start;
    return 0;
}

uint32_t shape_group(const struct shape *shape, uint32_t tier, uint32_t node)
{
    uint32_t group = node;
    for (uint32_t t = 0; t <= tier; t++) group = shape->tiers[t].group_of[group];
    return group;
}

/* The first node of group `item` of the tiers that there are; of the node itself where there are none. */
static uint32_t first_node(const struct shape *shape, uint32_t item)
{
    for (uint32_t t = shape->n_tiers; t > 0; t--) item = shape->tiers[t - 1].start[item];
    return item;
}

int shape_add_tier(struct shape *shape, const uint32_t *group)
{
    uint32_t below = shape->n_tiers ? shape->tiers[shape->n_tiers - 1].n_groups : shape->n_nodes, n = 0;
    for (uint32_t i = 0; i < below; i++)
        n += i == 0 || group[first_node(shape, i)] != group[first_node(shape, i - 1)];
    if (n < 2 || n == below) return 0;
    struct shape_tier tier = {.n_groups = 0, .start = calloc(n + 1u, sizeof(uint32_t)),
                              .group_of = calloc(below, sizeof(uint32_t))};
    if (shape->n_tiers == SHAPE_TIERS || !tier.start || !tier.group_of) {
        free(tier.start);
        free(tier.group_of);
        return -1;
    }
    for (uint32_t i = 0; i < below; i++) {
        if (i == 0 || group[first_node(shape, i)] != group[first_node(shape, i - 1)]) tier.start[tier.n_groups++] = i;
        tier.group_of[i] = tier.n_groups - 1;
    }
    tier.start[n] = below;
    shape->tiers[shape->n_tiers++] = tier;
    return 0;
}

void shape_clear(struct shape *shape)
{
    for (uint32_t t = 0; t < shape->n_tiers; t++) {
        free(shape->tiers[t].start);
        free(shape->tiers[t].group_of);
    }
    free(shape->node_of);
    free(shape->peer_of);
    free(shape->order);
    free(shape->position);
    free(shape->node_start);
    free(shape->rail_of);
    memset(shape, 0, sizeof *shape);
}
