/* order.c - two sorts: by names, to find who shares a switch; then by who came first in each group, tier after tier.
 *
 *     node     0   1   2   3   4          sorted by name: P/a: 1 4, P/b: 2, Q/c: 0 3
 *     place   Q/c P/a P/b Q/c P/a         first of tier 0: P 1, Q 0; of tier 1: P/a 1, P/b 2, Q/c 0
 *                                         order by (first, first, node): 0 3 | 1 4 | 2
 *
 * In that order groups are runs, and borders are where neighbours differ: that makes the tiers of a shape. */
#include "topo/order.h"

#include <stdlib.h>
#include <string.h>

struct seat {
    uint32_t node;
    struct place place;
    uint32_t first[PLACE_TIERS]; /* lowest node with the same names down to this tier */
};

static int by_name(const void *a, const void *b)
{
    const struct seat *x = a, *y = b;
    for (uint32_t t = 0; t < PLACE_TIERS; t++)
        if (x->place.tier[t] != y->place.tier[t]) return x->place.tier[t] < y->place.tier[t] ? -1 : 1;
    return x->node < y->node ? -1 : x->node > y->node;
}

static int by_first(const void *a, const void *b)
{
    const struct seat *x = a, *y = b;
    for (uint32_t t = 0; t < PLACE_TIERS; t++)
        if (x->first[t] != y->first[t]) return x->first[t] < y->first[t] ? -1 : 1;
    return x->node < y->node ? -1 : x->node > y->node;
}

int place_differs(const struct place *a, const struct place *b, uint32_t tier)
{
    return memcmp(a->tier, b->tier, (tier + 1) * sizeof a->tier[0]) != 0;
}

static void find_first(struct seat *seats, uint32_t n, uint32_t tier)
{
    for (uint32_t begin = 0, end; begin < n; begin = end) {
        uint32_t first = seats[begin].node;
        for (end = begin + 1; end < n && !place_differs(&seats[begin].place, &seats[end].place, tier); end++)
            if (seats[end].node < first) first = seats[end].node;
        for (uint32_t i = begin; i < end; i++) seats[i].first[tier] = first;
    }
}

int place_order(uint32_t n_nodes, const struct place *places, uint32_t *order)
{
    struct seat *seats = malloc((n_nodes ? n_nodes : 1) * sizeof *seats);
    if (!seats) return -1;
    for (uint32_t i = 0; i < n_nodes; i++) seats[i] = (struct seat){.node = i, .place = places[i]};
    qsort(seats, n_nodes, sizeof *seats, by_name);
    for (uint32_t t = 0; t < PLACE_TIERS; t++) find_first(seats, n_nodes, t);
    qsort(seats, n_nodes, sizeof *seats, by_first);
    for (uint32_t i = 0; i < n_nodes; i++) order[i] = seats[i].node;
    free(seats);
    return 0;
}

uint32_t place_crossings(uint32_t n_nodes, const struct place *places, const uint32_t *order, uint32_t tier)
{
    uint32_t crossings = 0;
    for (uint32_t i = 0; i < n_nodes; i++)
        crossings += place_differs(&places[order[i]], &places[order[(i + 1) % n_nodes]], tier);
    return crossings;
}

/* From the lowest tier up. Two nodes side by side that agree down to a tier are of one group there. */
int place_tiers(struct shape *shape, const struct place *places, const uint32_t *order)
{
    uint32_t n = shape->n_nodes, *group = calloc(n ? n : 1, sizeof *group);
    int failed = group ? 0 : -1;
    for (uint32_t t = PLACE_TIERS; !failed && t > 0; t--) {
        for (uint32_t i = 1; i < n; i++)
            group[i] = group[i - 1] + place_differs(&places[order[i - 1]], &places[order[i]], t - 1);
        failed = shape_add_tier(shape, group);
    }
    free(group);
    return failed;
}
