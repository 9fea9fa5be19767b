/* rail_groups.c - all hosts' NICs sorted into rails.
 *
 *   every NIC a group of its own
 *      equal labels       join, whatever else is known
 *      equal leaf         join \
 *      equal subnet       join  > unless that joined two labels, or two NICs of one host
 *      near by a probe    join /     (an earlier communicator's, then this one's)
 *   what is left           by its subnet or leaf, several to a key: paired in order
 *
 * A group is a list of NICs; each NIC knows its group by the first of them. Joining walks the lists, so a source costs
 * as much as there are NICs. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "topo/rails.h"

#define NONE UINT32_MAX

struct grouping {
    struct rail_nic *nics;
    uint32_t n;
    uint32_t *first, *last, *next; /* [n]: of my group; last by its first; the following member */
    uint64_t *label;               /* [n]: of the group, by its first */
    uint32_t *seat, *turn;         /* [hosts]: who sits there in the group being made, if turn is now's */
    uint32_t now;
    uint32_t *sorted;              /* [n] */
    struct rail_verdict *verdict;
};

static void seat_all(struct grouping *g, uint32_t group)
{
    for (uint32_t i = group; i != NONE; i = g->next[i]) {
        g->seat[g->nics[i].host] = i;
        g->turn[g->nics[i].host] = g->now;
    }
}

/* A NIC of the group whose host has a seat already. */
static uint32_t doubled(const struct grouping *g, uint32_t group)
{
    for (uint32_t i = group; i != NONE; i = g->next[i])
        if (g->turn[g->nics[i].host] == g->now) return i;
    return NONE;
}

static void append(struct grouping *g, uint32_t to, uint32_t group)
{
    for (uint32_t i = group; i != NONE; i = g->next[i]) g->first[i] = to;
    g->next[g->last[to]] = group;
    g->last[to] = g->last[group];
    if (!g->label[to]) g->label[to] = g->label[group];
}

static void object(struct grouping *g, struct rail_conflict conflict)
{
    struct rail_verdict *v = g->verdict;
    if (v->n_conflicts < RAILS_CONFLICTS_MAX) v->conflicts[v->n_conflicts] = conflict;
    v->n_conflicts++;
}

/* The groups of these NICs become one, as far as may be. */
static void join_all(struct grouping *g, const uint32_t *nics, uint32_t n, enum rails_source source)
{
    uint32_t to = g->first[nics[0]];
    g->now++;
    seat_all(g, to);
    for (uint32_t k = 0; k < n; k++) {
        struct rail_nic *nic = &g->nics[nics[k]];
        uint32_t group = g->first[nics[k]], twice = NONE;
        bool labels = g->label[to] && g->label[group] && g->label[to] != g->label[group];
        bool told = source == RAILS_BY_FABRIC || source == RAILS_BY_HCA; /* labels may join two of one host */
        if (group != to && (labels || (!told && (twice = doubled(g, group)) != NONE))) {
            struct rail_conflict c = {source, nics[0], nics[k], NONE, twice};
            if (twice != NONE) c.twin = g->seat[g->nics[twice].host];
            object(g, c);
            continue;
        }
        if (nic->by == RAILS_BY_NOBODY) nic->by = told ? (enum rails_source)nic->label_from : source;
        if (group == to) continue;
        seat_all(g, group);
        append(g, to, group);
    }
}

static uint64_t fact(const struct rail_nic *nic, enum rails_source source)
{
    switch (source) {
    case RAILS_BY_LLDP: return nic->leaf;
    case RAILS_BY_SUBNET: return nic->subnet;
    case RAILS_BY_PROBE: return nic->probed;
    default: return nic->label;
    }
}

/* Sorted by the fact, then by place; ties cannot be, so the result is the same with every sort. */
struct order_key { uint64_t fact; uint32_t nic; };

static int by_fact(const void *a, const void *b)
{
    const struct order_key *x = a, *y = b;
    if (x->fact != y->fact) return x->fact < y->fact ? -1 : 1;
    return x->nic < y->nic ? -1 : 1;
}

/* NICs come in the order of hosts, so two of one host stand side by side. */
static bool tells(const struct grouping *g, const uint32_t *nics, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++)
        if (g->nics[nics[i]].host == g->nics[nics[i - 1]].host) return false;
    return true;
}

static int join_by(struct grouping *g, enum rails_source source)
{
    struct order_key *keys = malloc(g->n * sizeof *keys);
    if (!keys) return -1;
    for (uint32_t i = 0; i < g->n; i++) keys[i] = (struct order_key){fact(&g->nics[i], source), i};
    qsort(keys, g->n, sizeof *keys, by_fact);
    for (uint32_t i = 0; i < g->n; i++) g->sorted[i] = keys[i].nic;
    for (uint32_t from = 0, to; from < g->n; from = to) {
        for (to = from + 1; to < g->n && keys[to].fact == keys[from].fact;) to++;
        bool told = source == RAILS_BY_FABRIC;
        if (keys[from].fact == 0 || (!told && !tells(g, &g->sorted[from], to - from))) continue;
        join_all(g, &g->sorted[from], to - from, source);
    }
    free(keys);
    return 0;
}

/* Two hosts at least hear this switch. */
static bool leaf_is_shared(const struct grouping *g, uint32_t nic)
{
    for (uint32_t i = 0; i < g->n; i++)
        if (g->nics[i].leaf == g->nics[nic].leaf && g->nics[i].host != g->nics[nic].host) return true;
    return false;
}

static uint64_t mixed(uint64_t what, uint64_t seed)
{
    uint64_t key = rail_hash64(&what, sizeof what, seed);
    return key && key != RAILS_LEFT_OUT ? key : 1;
}

static void write_keys(struct grouping *g)
{
    uint32_t silent = 0;
    bool fresh = false;
    for (uint32_t i = 0; i < g->n; i++) {
        struct rail_nic *nic = &g->nics[i];
        if (i == 0 || nic[-1].host != nic->host) silent = fresh = 0;
        if (nic->by != RAILS_BY_NOBODY) {
            uint32_t first = g->first[i];
            nic->key = g->label[first] ? g->label[first] : mixed(first, 41);
            continue;
        }
        nic->by = RAILS_BY_ORDER;
        nic->key = nic->leaf && leaf_is_shared(g, i) ? mixed(nic->leaf, 42) : nic->subnet ? mixed(nic->subnet, 43) : 0;
        fresh |= !nic->tried;
        if (++silent > 1 && fresh) g->verdict->undecided = true;
    }
}

int rails_group(struct rail_nic *nics, uint32_t n, const struct rail_near *near, uint32_t n_near,
                struct rail_verdict *verdict)
{
    struct grouping g = {.nics = nics, .n = n, .verdict = verdict};
    uint32_t hosts = 0;
    int failed = -1;
    memset(verdict, 0, sizeof *verdict);
    for (uint32_t i = 0; i < n; i++) hosts = nics[i].host >= hosts ? nics[i].host + 1 : hosts;
    uint32_t *numbers = malloc(((size_t)4 * n + 2 * hosts + 1) * sizeof *numbers);
    g.label = malloc((n + 1) * sizeof *g.label);
    if (!numbers || !g.label) goto done;
    g.first = numbers;
    g.last = g.first + n;
    g.next = g.last + n;
    g.sorted = g.next + n;
    g.seat = g.sorted + n;
    g.turn = g.seat + hosts;
    memset(g.turn, 0, hosts * sizeof *g.turn);
    for (uint32_t i = 0; i < n; i++) {
        g.first[i] = g.last[i] = i;
        g.next[i] = NONE;
        g.label[i] = nics[i].label;
        nics[i].by = RAILS_BY_NOBODY;
        nics[i].key = 0;
    }
    static const enum rails_source sources[] = {RAILS_BY_FABRIC, RAILS_BY_LLDP, RAILS_BY_SUBNET, RAILS_BY_PROBE};
    for (size_t i = 0; n > 0 && i < sizeof sources / sizeof *sources; i++)
        if (join_by(&g, sources[i]) != 0) goto done;
    for (uint32_t i = 0; i < n_near; i++)
        if (near[i].a < n && near[i].b < n) join_all(&g, (const uint32_t[]){near[i].a, near[i].b}, 2, RAILS_BY_PROBE);
    write_keys(&g);
    failed = 0;
done:
    free(numbers);
    free(g.label);
    return failed;
}
