/* homes.c - looking, telling, and dealing out: no rank decides about another, all compute the same. */
#include "core/homes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/params.h"
#include "topo/here.h"

enum { LINES = 8, RAILS_MAX = 4 * NET_MAX_RAILS };

/* The first rank of its host looks. */
static bool leads(const struct comm *comm)
{
    for (uint32_t k = 0; k < comm->rank; k++)
        if (comm->members[k].host == comm->members[comm->rank].host) return false;
    return true;
}

/* ---- looking ---- */

static enum rail_result only_look(const struct topo_graph *graph, void *context)
{
    (void)graph, (void)context;
    return RAIL_OK;
}

enum rail_result homes_asked(const struct comm *comm)
{
    const char *file = rail_param_str(RAIL_PARAM_NCCL_TOPO_FILE), *dump = rail_param_str(RAIL_PARAM_NCCL_TOPO_DUMP_FILE);
    if (!rail_param_bool(RAIL_PARAM_TOPO)) return RAIL_OK;
    if (file && file[0] && leads(comm)) RAIL_TRY(topo_here(only_look, NULL));
    if (!dump || !dump[0] || rail_param_int(RAIL_PARAM_NCCL_TOPO_DUMP_FILE_RANK) != (int64_t)comm->rank) return RAIL_OK;
    /* As with NCCL a description that cannot be written stops nobody; rail_fail has logged it. */
    if (topo_here_dump(dump) == RAIL_OK) RAIL_INFO(RAIL_INIT, "machine: written to %s (NCCL_TOPO_DUMP_FILE)", dump);
    return RAIL_OK;
}

struct looking {
    uint32_t n;
    char names[NET_MAX_RAILS][HOME_NAME_BYTES];
    uint64_t buses[NET_MAX_RAILS];
    struct home_view *view;
};

static enum rail_result look(const struct topo_graph *graph, void *context)
{
    struct looking *l = context;
    return home_look(graph, l->n, (const char(*)[HOME_NAME_BYTES])l->names, l->buses, l->view);
}

enum rail_result homes_introduce(const struct comm *comm, const struct net_address *here, struct homes_record *out)
{
    _Static_assert((int)NET_MAX_RAILS <= (int)HOME_NICS_MAX && HOME_NAME_BYTES == sizeof here->rails[0].name, "a bit each");
    struct looking l = {.n = here->n_rails, .view = &out->view};
    memset(out, 0, sizeof *out);
    if (comm->shape.n_nodes < 2 || !rail_param_bool(RAIL_PARAM_TOPO)) return RAIL_OK;
    out->place = home_here(""); /* host memory; a rank whose buffers are a GPU's says home_gpu(its bus) here */
    if (!leads(comm)) return RAIL_OK;
    for (uint32_t i = 0; i < l.n; i++) {
        memcpy(l.names[i], here->rails[i].name, HOME_NAME_BYTES);
        l.names[i][HOME_NAME_BYTES - 1] = '\0';
        l.buses[i] = home_bus_of("", l.names[i]);
    }
    enum rail_result result = topo_here(look, &l);
    const char *file = rail_param_str(RAIL_PARAM_NCCL_TOPO_FILE);
    if (result == RAIL_OK || (file && file[0])) return result;
    /* Nobody asked for this: a description that an agent left, or a sysfs that we do not understand, stops no job. */
    RAIL_INFO(RAIL_INIT, "machine: not understood (%s): ranks take NICs in turn", rail_own_error());
    memset(&out->view, 0, sizeof out->view);
    return RAIL_OK;
}

/* ---- numbers of rails ---- */

struct numbering { uint64_t key[RAILS_MAX]; uint32_t n; };

static uint32_t number_of_key(const struct numbering *all, uint64_t key)
{
    uint32_t i = 0;
    while (i < all->n && all->key[i] != key) i++;
    return i;
}

/* More rails than RAILS_MAX have hosts only that share none: what is beyond has the next number, all of it. */
static void number_rails(const struct comm *comm, struct numbering *all)
{
    all->n = 0;
    for (uint32_t i = 0; i < comm->n_ranks; i++) {
        const struct net_address *a = &comm->addresses[comm->shape.order[i]];
        for (uint32_t k = 0; k < a->n_rails; k++)
            if (a->rails[k].rail && all->n < RAILS_MAX && number_of_key(all, a->rails[k].rail) == all->n)
                all->key[all->n++] = a->rails[k].rail;
    }
}

/* Rails on which the first rank of every node has a NIC: those that channels take turns on. */
static void find_common(struct comm *comm, const struct numbering *all)
{
    struct wires *w = &comm->wires;
    w->n_common = 0;
    for (uint32_t i = 0; i < all->n && w->n_common < NET_MAX_RAILS; i++) {
        bool everywhere = true;
        for (uint32_t node = 0; node < comm->shape.n_nodes && everywhere; node++) {
            const struct net_address *a = &comm->addresses[comm->shape.order[comm->shape.node_start[node]]];
            everywhere = false;
            for (uint32_t k = 0; k < a->n_rails; k++) everywhere |= a->rails[k].rail == all->key[i];
        }
        if (everywhere) w->common[w->n_common++] = all->key[i];
    }
    comm->shape.n_rails = w->n_common ? w->n_common : 1;
}

static uint32_t number_of(const struct numbering *all, const struct net_address *a, uint32_t nic)
{
    uint32_t unknown = 0;
    if (nic >= a->n_rails) return 0;
    if (a->rails[nic].rail) return number_of_key(all, a->rails[nic].rail);
    for (uint32_t k = 0; k < nic; k++) unknown += a->rails[k].rail == 0;
    return all->n + unknown;
}

/* ---- dealing out ---- */

/* Whether some other node has a NIC on the same rail. */
static bool has_partner(const struct comm *comm, const struct net_rail_address *nic, uint32_t node)
{
    for (uint32_t other = 0; other < comm->shape.n_nodes; other++) {
        const struct net_address *a = &comm->addresses[comm->shape.order[comm->shape.node_start[other]]];
        for (uint32_t k = 0; k < a->n_rails && other != node; k++)
            if (a->rails[k].rail == nic->rail) return true;
    }
    return false;
}

/* NICs of a leader's that lanes use: where hosts may cross between rails all of them. */
static uint16_t usable(const struct comm *comm, const struct net_address *leader, uint32_t node)
{
    uint16_t bits = 0;
    if (rail_param_int(RAIL_PARAM_NCCL_CROSS_NIC) == 1) return UINT16_MAX;
    for (uint32_t k = 0; k < leader->n_rails; k++)
        if (has_partner(comm, &leader->rails[k], node)) bits = (uint16_t)(bits | 1u << k);
    return bits;
}

/* The leader's NIC among a rank's own: processes of a node may use different ones. */
static uint32_t own_nic(const struct net_address *leader, uint32_t nic, const struct net_address *own, uint32_t peer)
{
    for (uint32_t i = 0; nic < leader->n_rails && i < own->n_rails; i++)
        if (strncmp(own->rails[i].name, leader->rails[nic].name, sizeof own->rails[i].name) == 0) return i;
    return own->n_rails ? peer % own->n_rails : 0;
}

static void log_homes(const struct comm *comm, const struct homes_record *leader, const struct homes_record *records,
                      const struct home *homes, const uint32_t *ranks, uint32_t n)
{
    char place[48], why[128];
    for (uint32_t i = 0; i < n && i < LINES; i++) {
        const struct net_address *a = &comm->addresses[ranks[i]];
        uint32_t nic = comm->home_nic[ranks[i]];
        RAIL_INFO(RAIL_INIT, "rank %u: %s, home rail %u (%.15s), %s", ranks[i],
                  home_place_text(records[ranks[i]].place, place), comm->shape.rail_of[ranks[i]],
                  nic < a->n_rails ? a->rails[nic].name : "no NIC", home_why_text(&leader->view, &homes[i], why));
    }
    if (n > LINES) RAIL_INFO(RAIL_INIT, "... and %u more ranks of this host", n - LINES);
}

static enum rail_result settle_host(struct comm *comm, const struct homes_record *records, const struct numbering *all,
                                    const uint32_t *ranks, uint32_t n)
{
    const struct homes_record *leader = &records[ranks[0]];
    struct home_place *places = calloc(n, sizeof *places);
    struct home *homes = calloc(n, sizeof *homes);
    enum rail_result result = places && homes ? RAIL_OK
                                              : rail_fail(RAIL_E_SYSTEM, "home NICs of %u ranks: out of memory", n);
    for (uint32_t i = 0; i < n && result == RAIL_OK; i++) places[i] = records[ranks[i]].place;
    uint16_t nics = usable(comm, &comm->addresses[ranks[0]], comm->shape.node_of[ranks[0]]);
    if (result == RAIL_OK) result = home_deal(&leader->view, nics, n, places, homes);
    for (uint32_t i = 0; i < n && result == RAIL_OK; i++) {
        const struct net_address *own = &comm->addresses[ranks[i]];
        uint32_t nic = homes[i].nic;
        if (leader->view.n_nics == 0) nic = own->n_rails ? i % own->n_rails : 0; /* nobody looked: in turn */
        else nic = own_nic(&comm->addresses[ranks[0]], nic, own, i);
        comm->home_nic[ranks[i]] = (uint8_t)nic;
        comm->shape.rail_of[ranks[i]] = number_of(all, own, nic);
    }
    if (result == RAIL_OK && comm->rank == ranks[0]) log_homes(comm, leader, records, homes, ranks, n);
    free(places);
    free(homes);
    return result;
}

/* The ranks of rank r's host in rank order, if r is their first; else none. A host may be several nodes (NCCL_SHM_DISABLE),
 * whose ranks share its NICs all the same. */
static uint32_t host_of_first(const struct comm *comm, uint32_t r, uint32_t *ranks)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < r; k++)
        if (comm->members[k].host == comm->members[r].host) return 0;
    for (uint32_t k = r; k < comm->n_ranks; k++)
        if (comm->members[k].host == comm->members[r].host) ranks[n++] = k;
    return n;
}

enum rail_result homes_settle(struct comm *comm, const struct homes_record *records)
{
    struct numbering all;
    if (comm->shape.n_nodes < 2) return RAIL_OK;
    comm->home_nic = calloc(comm->n_ranks, sizeof *comm->home_nic);
    uint32_t *ranks = calloc(comm->n_ranks, sizeof *ranks);
    enum rail_result result = comm->home_nic && ranks ? RAIL_OK
                                                      : rail_fail(RAIL_E_SYSTEM, "home NICs of %u ranks: out of memory",
                                                                  comm->n_ranks);
    if (result == RAIL_OK) number_rails(comm, &all);
    for (uint32_t r = 0; r < comm->n_ranks && result == RAIL_OK; r++) {
        uint32_t n = host_of_first(comm, r, ranks);
        if (n) result = settle_host(comm, records, &all, ranks, n);
    }
    if (result == RAIL_OK) find_common(comm, &all);
    free(ranks);
    return result;
}

uint64_t homes_hash(const struct comm *comm)
{
    return rail_hash64(comm->shape.rail_of, comm->n_ranks * sizeof *comm->shape.rail_of, 23);
}
