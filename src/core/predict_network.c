/* predict_network.c - from addresses to a described network: a host per node, a leaf per rail. */
#include "core/predict_network.h"

#include <stdlib.h>

#include "plan/collective.h"
#include "simulate/clocks.h"

static const struct net_address *address_of(const struct comm *comm, uint32_t node)
{
    return &comm->addresses[comm->shape.order[comm->shape.node_start[node]]];
}

/* The NIC of a node on the same rail as NIC k of node 0; of rails that nobody knows, the k-th. NULL: it has none. */
static const struct net_rail_address *nic_like(const struct comm *comm, uint32_t node, uint32_t k)
{
    const struct net_address *first = address_of(comm, 0), *a = address_of(comm, node);
    uint64_t rail = first->rails[k].rail;
    if (rail == 0) return k < a->n_rails && a->rails[k].rail == 0 ? &a->rails[k] : NULL;
    for (uint32_t i = 0; i < a->n_rails; i++)
        if (a->rails[i].rail == rail) return &a->rails[i];
    return NULL;
}

/* Nodes of one host share its NICs: not this network. */
static bool hosts_apart(const struct comm *comm)
{
    const struct shape *s = &comm->shape;
    for (uint32_t v = 1; v < s->n_nodes; v++)
        for (uint32_t w = 0; w < v; w++)
            if (comm->members[s->order[s->node_start[v]]].host == comm->members[s->order[s->node_start[w]]].host)
                return false;
    return true;
}

bool predict_network_known(const struct comm *comm)
{
    if (comm->shape.n_nodes < 2 || comm->shape.n_nodes > PREDICT_NODES_MAX || !comm->addresses) return false;
    uint32_t n = address_of(comm, 0)->n_rails;
    for (uint32_t v = 0; v < comm->shape.n_nodes; v++) {
        if (address_of(comm, v)->n_rails != n || n == 0) return false;
        for (uint32_t k = 0; k < n; k++) {
            const struct net_rail_address *nic = nic_like(comm, v, k);
            if (!nic || nic->mbit_per_s == 0) return false;
        }
    }
    return hosts_apart(comm);
}

/* Payload in bytes per ns. Of a packet of `mtu` bytes 52 are headers of IP and TCP, and 14 more are sent for
 * Ethernet's. */
static double payload_rate(const struct net_rail_address *nic)
{
    double mtu = nic->mtu ? nic->mtu : 1500;
    return nic->mbit_per_s / 8000.0 * (mtu - 52) / (mtu + 14);
}

static enum rail_result make_network(const struct comm *comm, struct network *out)
{
    uint32_t n = comm->shape.n_nodes, rails = address_of(comm, 0)->n_rails;
    struct network_request q = {
        .kind = NETWORK_RAIL, .hosts = n, .rails = rails, .tiers = 1, .nic_gbit = 1, .hosts_per_leaf = n};
    RAIL_TRY(network_make(out, &q));
    for (uint32_t v = 0; v < n; v++)
        for (uint32_t k = 0; k < rails; k++)
            for (int tier = NETWORK_NIC_UP; tier <= NETWORK_NIC_DOWN; tier++)
                out->rate[out->first[tier] + network_nic(out, v, k, 0)] = (float)payload_rate(nic_like(comm, v, k));
    return RAIL_OK;
}

static enum rail_result lay_and_time(struct job *job, const struct network *network, double *ns)
{
    struct lay_report laid;
    struct lay_summary summary;
    struct clocks_report clocks = {.ns = 0};
    double *loads = calloc(network->n_links, sizeof *loads);
    if (!loads)
        return rail_fail(RAIL_E_SYSTEM, "ncclGroupSimulateEnd: out of memory for %llu links",
                         (unsigned long long)network->n_links);
    enum rail_result r = lay_job(job, network, loads, &laid, NULL, NULL);
    if (r == RAIL_OK) r = lay_settle(job, 1, network, loads, &laid);
    if (r == RAIL_OK) lay_summarize(network, loads, &summary);
    if (r == RAIL_OK) r = clocks_run(job, network, loads, &laid, &summary, &clocks);
    free(loads);
    *ns = clocks.ns;
    return r;
}

enum rail_result predict_network(const struct comm *comm, const struct collective *a, struct choice choice,
                                 const struct plan_rates *rates, double *ns)
{
    size_t element = rail_type_bytes((enum rail_type)a->type);
    struct collective_kind kind = collective_kind(a->kind);
    struct simulate_machine machine = {.name = "here", .source = "plan/cost.c", .hop_ns = rates->hop_ns[1],
                                       .local_hop_ns = rates->hop_ns[0], .step_ns = rates->step_ns,
                                       .memory_ns_per_byte = rates->memory_ns_per_byte, .direct = comm->direct};
    struct job_request ask = {.collective = a->kind, .algorithm = -1, .machine = &machine,
                              .bytes = a->count * element * collective_blocks(a->kind, comm->n_ranks),
                              .root = kind.rooted ? (uint32_t)a->root : 0};
    struct network network;
    struct job job;
    RAIL_TRY(make_network(comm, &network));
    enum rail_result r = job_of_shape(&job, &ask, &comm->shape, choice, comm->table.deterministic && kind.reduces);
    if (r == RAIL_OK) {
        r = lay_and_time(&job, &network, ns);
        job_clear(&job);
    }
    network_clear(&network);
    return r;
}
