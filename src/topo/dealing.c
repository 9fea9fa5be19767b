/* dealing.c - a matching: blocks first, then the least used, then chains of moves. */
#include "topo/dealing.h"

#include <stdlib.h>
#include <string.h>

/* Where the port should stand if ports and takers were laid side by side. */
static uint32_t distance(const struct dealing *d, uint32_t taker, uint32_t n)
{
    long want = (long)taker * d->n_ports / d->n_takers, have = (long)n;
    return (uint32_t)labs(want - have);
}

static bool alike(const struct dealing *d, uint32_t a, uint32_t b)
{
    return memcmp(&d->near[a * d->n_ports], &d->near[b * d->n_ports], d->n_ports * sizeof *d->near) == 0;
}

/* Takers by their sets of nearest ports. */
struct groups {
    uint32_t *head; /* [taker] the first taker with the same set */
    uint32_t *size; /* [head] */
    uint32_t *done; /* [head] of it have been dealt theirs */
};

static void find_groups(const struct dealing *d, struct groups *g)
{
    for (uint32_t t = 0; t < d->n_takers; t++) {
        uint32_t h = 0;
        while (h < t && (g->head[h] != h || !alike(d, h, t))) h++;
        g->head[t] = h;
        g->size[h]++;
    }
}

/* Of k takers with the same s nearest ports the p-th gets the p*s/k-th of them: neighbours share a port. DEALING_NONE
 * when no other is alike. */
static uint32_t by_blocks(const struct dealing *d, const struct groups *g, uint32_t t)
{
    uint32_t k = g->size[g->head[t]], p = g->done[g->head[t]]++, s = 0;
    for (uint32_t n = 0; n < d->n_ports; n++) s += d->near[t * d->n_ports + n];
    if (k < 2 || s == 0) return DEALING_NONE;
    for (uint32_t n = 0, want = p * s / k; n < d->n_ports; n++)
        if (d->near[t * d->n_ports + n] && want-- == 0) return n;
    return DEALING_NONE;
}

static uint32_t least_used(const struct dealing *d, uint32_t t)
{
    uint32_t best = DEALING_NONE;
    for (uint32_t n = 0; n < d->n_ports; n++) {
        if (!d->near[t * d->n_ports + n]) continue;
        if (best == DEALING_NONE || d->load[n] < d->load[best] ||
            (d->load[n] == d->load[best] && distance(d, t, n) < distance(d, t, best)))
            best = n;
    }
    return best;
}

static enum rail_result take_ports(const struct dealing *d)
{
    uint32_t *work = calloc(3 * (size_t)d->n_takers + 1, sizeof *work);
    if (!work) return rail_fail(RAIL_E_SYSTEM, "out of memory for dealing out ports");
    struct groups groups = {work, work + d->n_takers, work + 2 * (size_t)d->n_takers};
    find_groups(d, &groups);
    for (uint32_t t = 0; t < d->n_takers; t++) {
        uint32_t port = by_blocks(d, &groups, t);
        if (port == DEALING_NONE) port = least_used(d, t);
        d->port_of[t] = port;
        if (port != DEALING_NONE) d->load[port]++;
    }
    free(work);
    return RAIL_OK;
}

/* Looks for a chain of takers that, each moved to another of its nearest ports, takes one from port `from` and gives one
 * to a port with at least two less. */
static bool shift_one(const struct dealing *d, uint32_t from, uint32_t *queue, uint32_t *came, uint32_t *moved)
{
    uint32_t head = 0, tail = 0;
    for (uint32_t n = 0; n < d->n_ports; n++) came[n] = DEALING_NONE;
    queue[tail++] = from;
    came[from] = from;
    while (head < tail) {
        uint32_t at = queue[head++];
        if (d->load[at] + 2 <= d->load[from]) {
            d->load[from]--;
            d->load[at]++;
            for (; at != from; at = came[at]) d->port_of[moved[at]] = at;
            return true;
        }
        for (uint32_t g = 0; g < d->n_takers; g++)
            for (uint32_t n = 0; n < d->n_ports && d->port_of[g] == at; n++)
                if (d->near[g * d->n_ports + n] && came[n] == DEALING_NONE) came[n] = at, moved[n] = g, queue[tail++] = n;
    }
    return false;
}

static enum rail_result even_out(const struct dealing *d)
{
    uint32_t *work = calloc(3 * (size_t)d->n_ports + 1, sizeof *work);
    if (!work) return rail_fail(RAIL_E_SYSTEM, "out of memory for dealing out ports");
    for (uint32_t n = 0; n < d->n_ports; n++)
        while (shift_one(d, n, work, work + d->n_ports, work + 2 * d->n_ports)) {}
    free(work);
    return RAIL_OK;
}

enum rail_result dealing_run(const struct dealing *d)
{
    RAIL_TRY(take_ports(d));
    return even_out(d);
}
