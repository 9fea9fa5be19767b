/* rails.c - every rank looks at its own NICs against those of one rank of every other node, with the same function that
 * the lanes will be made by: what it finds is what will be. */
#include "core/rails.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/params.h"
#include "topo/rails.h"

enum { TEXT_BYTES = 600 };

static uint32_t first_of(const struct comm *comm, uint32_t node)
{
    return comm->shape.order[comm->shape.node_start[node]];
}

/* What the order saves against the one in which ranks name their nodes. */
static void log_order(uint32_t n, const struct place *places, const uint32_t *order, uint32_t unknown)
{
    uint32_t *by_rank = calloc(n, sizeof *by_rank);
    for (uint32_t i = 0; by_rank && i < n; i++) by_rank[i] = i;
    if (by_rank)
        RAIL_INFO(RAIL_INIT, "fabric: a ring over %u nodes goes from leaf to leaf %u times (in rank order %u), from top "
                  "to top %u times (%u); %u nodes are not in the file", n, place_crossings(n, places, order, PLACE_TIERS - 1),
                  place_crossings(n, places, by_rank, PLACE_TIERS - 1), place_crossings(n, places, order, 0),
                  place_crossings(n, places, by_rank, 0), unknown);
    free(by_rank);
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
    if (comm->members[0].fabric == 0 || n < 2) return RAIL_OK;
    struct place *places = calloc(n, sizeof *places);
    uint32_t *order = calloc(n, sizeof *order);
    uint32_t unknown = 0;
    for (uint32_t node = 0; places && node < n; node++) {
        places[node] = comm->members[first_of(comm, node)].hangs;
        unknown += places[node].tier[0] == 0;
    }
    bool done = places && order && place_order(n, places, order) == 0;
    if (done && comm->rank == 0)
        log_order(n, places, order, unknown);
    done = done && shape_reorder(&comm->shape, order) == 0;
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
            bool seen = key == 0;
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
    if (!rail_param_bool(RAIL_PARAM_NCCL_IGNORE_NET_MISMATCH) && (n < here->n_rails || n < there->n_rails))
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
        if (!partner[i])
            RAIL_INFO(RAIL_INIT, "rails: node %u %s has no partner on any other node: left out", my_node, nic);
    }
    return RAIL_OK;
}
