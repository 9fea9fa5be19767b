/* rails.c - every rank looks at its own NICs against those of one rank of every other node, with the same function that
 * the lanes will be made by: what it finds is what will be. */
#include "core/rails.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "algos/family.h"
#include "base/log.h"
#include "base/params.h"
#include "topo/order.h"
#include "topo/rails.h"

enum { TEXT_BYTES = 600 };

static uint32_t first_of(const struct comm *comm, uint32_t node)
{
    return comm->shape.order[comm->shape.node_start[node]];
}

/* Edges of channel 0's tree (the other channels' have as many) that leave a group of `tier`; `places` by node. */
static uint32_t tree_crossings(const struct shape *shape, const struct place *places, uint32_t tier)
{
    uint32_t crossings = 0;
    for (uint32_t r = 0; r < shape->n_ranks; r++) {
        struct family f = family_of(shape, r, 0);
        if (f.has_parent)
            crossings += place_differs(&places[shape->node_of[r]], &places[shape->node_of[f.parent]], tier);
    }
    return crossings;
}

static uint32_t groups(uint32_t n, const struct place *places, const uint32_t *order, uint32_t tier)
{
    uint32_t borders = 0;
    for (uint32_t i = 1; i < n; i++) borders += place_differs(&places[order[i - 1]], &places[order[i]], tier);
    return borders + 1;
}

/* A line per tier of several groups, and of the leaves always: how often rings and trees leave a group of it, against the
 * least there can be (g groups: g in a ring, g - 1 in a tree) and the order in which ranks name their nodes. The lowest
 * tier that the file names is that of leaves, above it are pods. `places` by the numbers that nodes had, `ordered` by those
 * they have now. */
static void log_crossings(const struct shape *shape, const struct place *places, const uint32_t *order,
                          const struct place *ordered, const uint32_t *as_it_was)
{
    uint32_t n = shape->n_nodes, lowest = 0;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t t = lowest + 1; t < PLACE_TIERS; t++)
            if (places[i].tier[t]) lowest = t;
    for (uint32_t tier = lowest + 1; tier-- > 0;) {
        uint32_t g = groups(n, places, order, tier), up = lowest - tier;
        if (g == 1 && up > 0) continue;
        uint32_t ring = place_crossings(n, places, order, tier), tree = tree_crossings(shape, ordered, tier);
        bool least = ring == (g > 1 ? g : 0) && tree == g - 1;
        char name[24] = "leaf";
        if (up == 1) snprintf(name, sizeof name, "pod");
        if (up > 1) snprintf(name, sizeof name, "tier %u", up + 1);
        RAIL_INFO(RAIL_INIT, "fabric: a ring goes from %s to %s %u times (in rank order %u), a tree %u times; there are "
                  "%u%s", name, name, ring, place_crossings(n, places, as_it_was, tier), tree, g,
                  least ? ", so no other goes less often" : "");
    }
}

static void log_order(const struct comm *comm, const struct place *places, const uint32_t *order)
{
    uint32_t n = comm->shape.n_nodes, *as_it_was = calloc(n, sizeof *as_it_was), unknown = 0;
    struct place *ordered = calloc(n, sizeof *ordered);
    for (uint32_t i = 0; as_it_was && ordered && i < n; i++) {
        as_it_was[i] = i;
        ordered[i] = places[order[i]];
        unknown += places[i].tier[0] == 0;
    }
    if (as_it_was && ordered) {
        RAIL_INFO(RAIL_INIT, "fabric: a ring goes from node to node %u times, a tree %u times; %u nodes are not in the "
                  "file", n, family_crossings(&comm->shape, 0, 0), unknown);
        log_crossings(&comm->shape, places, order, ordered, as_it_was);
    }
    free(as_it_was);
    free(ordered);
}

enum rail_result rails_order(struct comm *comm)
{
    uint32_t n = comm->shape.n_nodes;
    for (uint32_t r = 1; r < comm->n_ranks; r++)
        if (comm->members[r].fabric != comm->members[0].fabric)
            return rail_fail(RAIL_E_USAGE, "RAILCCL_FABRIC: rank 0 (host %s) read %s, rank %u (host %s) read %s: give all "
                             "ranks the same text", comm->members[0].host_name, comm->members[0].fabric ? "a file" : "none", r,
                             comm->members[r].host_name, !comm->members[r].fabric ? "none"
                             : comm->members[0].fabric ? "another one" : "a file");
    bool hangs = false; /* by LLDP, without a file */
    for (uint32_t r = 0; r < comm->n_ranks; r++) hangs |= comm->members[r].hangs.tier[0] != 0;
    if ((comm->members[0].fabric == 0 && !hangs) || n < 2) return RAIL_OK;
    struct place *places = calloc(n, sizeof *places);
    uint32_t *order = calloc(n, sizeof *order);
    for (uint32_t node = 0; places && node < n; node++) places[node] = comm->members[first_of(comm, node)].hangs;
    bool done = places && order && place_order(n, places, order) == 0 && shape_reorder(&comm->shape, order) == 0 &&
                place_tiers(&comm->shape, places, order) == 0;
    if (done && comm->rank == 0 && rail_log_enabled(RAIL_LOG_INFO, RAIL_INIT)) log_order(comm, places, order);
    free(places);
    free(order);
    return done ? RAIL_OK : rail_fail(RAIL_E_SYSTEM, "ordering %u nodes: out of memory", n);
}

static size_t append(char *text, size_t used, size_t bytes, const char *what)
{
    int n = snprintf(text + used, bytes - used, "%s", what);
    return n < 0 ? used : used + (size_t)n < bytes ? used + (size_t)n : bytes - 1;
}

/* "eth0 10.0.0.1/24" */
static void nic_text(const struct net_rail_address *nic, char *out, size_t bytes)
{
    char address[INET6_ADDRSTRLEN] = "?";
    inet_ntop(nic->family == 4 ? AF_INET : AF_INET6, nic->address, address, sizeof address);
    snprintf(out, bytes, "%.15s %s/%u", nic->name, address, nic->prefix_bits);
}

static void nics_text(const struct net_address *a, char *out, size_t bytes)
{
    size_t used = append(out, 0, bytes, a->n_rails ? "" : "none");
    for (uint32_t i = 0; i < a->n_rails; i++) {
        char nic[80];
        nic_text(&a->rails[i], nic, sizeof nic);
        used = append(out, used, bytes, i ? ", " : "");
        used = append(out, used, bytes, nic);
    }
}

static uint32_t match(const struct net_address *here, const struct net_address *there, struct rail_pair *out)
{
    uint64_t a[RAILS_NICS_MAX], b[RAILS_NICS_MAX];
    for (uint32_t i = 0; i < here->n_rails; i++) a[i] = here->rails[i].rail;
    for (uint32_t i = 0; i < there->n_rails; i++) b[i] = there->rails[i].rail;
    enum rails_crossing crossing = (enum rails_crossing)rail_param_int(RAIL_PARAM_NCCL_CROSS_NIC);
    return rails_match(a, here->n_rails, b, there->n_rails, crossing, out);
}

static enum rail_result refuse(const struct comm *comm, uint32_t rank, const char *what, const char *remedy)
{
    char mine[TEXT_BYTES / 2], theirs[TEXT_BYTES / 2];
    nics_text(&comm->addresses[comm->rank], mine, sizeof mine);
    nics_text(&comm->addresses[rank], theirs, sizeof theirs);
    return rail_fail(RAIL_E_USAGE, "rails: %s: rank %u on host %s has %s; rank %u on host %s has %s. %s", what,
                     comm->rank, comm->members[comm->rank].host_name, mine, rank, comm->members[rank].host_name, theirs,
                     remedy);
}

/* "rail 0: node 0 eth0 10.77.0.1/24, node 1 eth3 10.77.0.2/24 (2 of 2 nodes)" for each key, by first appearance. */
static void log_map(const struct comm *comm)
{
    uint32_t n_nodes = comm->shape.n_nodes, number = 0;
    for (uint32_t node = 0; node < n_nodes; node++) {
        const struct net_address *a = &comm->addresses[first_of(comm, node)];
        for (uint32_t i = 0; i < a->n_rails; i++) {
            uint64_t key = a->rails[i].rail;
            bool seen = key == 0 || key == RAILS_LEFT_OUT;
            for (uint32_t k = 0; k < node && !seen; k++) {
                const struct net_address *before = &comm->addresses[first_of(comm, k)];
                for (uint32_t j = 0; j < before->n_rails && !seen; j++) seen = before->rails[j].rail == key;
            }
            for (uint32_t j = 0; j < i && !seen; j++) seen = a->rails[j].rail == key;
            if (seen) continue;
            char text[TEXT_BYTES] = "", nic[80];
            size_t used = 0;
            uint32_t with = 0;
            for (uint32_t k = node; k < n_nodes; k++) {
                const struct net_address *b = &comm->addresses[first_of(comm, k)];
                uint32_t j = 0;
                while (j < b->n_rails && b->rails[j].rail != key) j++;
                if (j == b->n_rails) continue;
                if (with++ >= 8) continue; /* the first eight show the pattern */
                nic_text(&b->rails[j], nic, sizeof nic);
                char part[120];
                snprintf(part, sizeof part, "%snode %u %s", with > 1 ? ", " : "", k, nic);
                used = append(text, used, sizeof text, part);
            }
            RAIL_INFO(RAIL_INIT, "rail %u: %s%s (%u of %u nodes)", number++, text, with > 8 ? " ..." : "", with,
                      n_nodes);
        }
    }
}

/* NICs that may be used at all. */
static uint32_t usable(const struct net_address *a)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < a->n_rails; i++) n += a->rails[i].rail != RAILS_LEFT_OUT;
    return n;
}

static enum rail_result check_node(const struct comm *comm, uint32_t node, bool partner[RAILS_NICS_MAX])
{
    uint32_t rank = first_of(comm, node), common = 0;
    const struct net_address *here = &comm->addresses[comm->rank], *there = &comm->addresses[rank];
    struct rail_pair pairs[RAILS_NICS_MAX];
    uint32_t n = match(here, there, pairs);
    for (uint32_t i = 0; i < n; i++) {
        partner[pairs[i].here] = true;
        common += !pairs[i].crossing;
    }
    if (n == 0)
        return refuse(comm, rank, "no rail in common",
                      "Set NCCL_CROSS_NIC=2 to let NIC r reach NIC r all the same, or put the NICs of a rail into one "
                      "subnet");
    if (!rail_param_bool(RAIL_PARAM_NCCL_IGNORE_NET_MISMATCH) && (n < usable(here) || n < usable(there)))
        return refuse(comm, rank, "not all NICs have a partner and NCCL_IGNORE_NET_MISMATCH=0",
                      "Choose interfaces with NCCL_SOCKET_IFNAME, or set NCCL_IGNORE_NET_MISMATCH=1 to use what they "
                      "share");
    if (common == 0 && here->rails[pairs[0].here].rail != 0)
        RAIL_WARN("rails: node %u and node %u have no rail in common; NIC r takes NIC r, through routers",
                  comm->shape.node_of[comm->rank], node);
    return RAIL_OK;
}

enum rail_result rails_check(const struct comm *comm)
{
    const struct net_address *here = &comm->addresses[comm->rank];
    uint32_t my_node = comm->shape.node_of[comm->rank];
    bool partner[RAILS_NICS_MAX] = {false};
    if (comm->shape.n_nodes < 2) return RAIL_OK;
    for (uint32_t node = 0; node < comm->shape.n_nodes; node++)
        if (node != my_node) RAIL_TRY(check_node(comm, node, partner));
    if (comm->rank == 0) log_map(comm);
    for (uint32_t i = 0; i < here->n_rails && comm->rank == first_of(comm, my_node); i++) {
        char nic[80];
        nic_text(&here->rails[i], nic, sizeof nic);
        if (!partner[i] && here->rails[i].rail != RAILS_LEFT_OUT)
            RAIL_INFO(RAIL_INIT, "rails: node %u %s has no partner on any other node: left out", my_node, nic);
    }
    return RAIL_OK;
}
