/* network_hosts.c - NICs of described hosts: their number and the rate of each. */
#include <string.h>

#include "simulate/network.h"
#include "topo/fabric_show.h"

uint32_t network_hosts_rails(const struct network_host *hosts, uint32_t n_hosts, double *most_gbit)
{
    uint32_t rails = 0;
    *most_gbit = 0;
    for (uint32_t h = 0; h < n_hosts; h++)
        for (uint32_t r = 0; r < NETWORK_RAILS_MAX; r++) {
            double gbit = hosts[h].gbit[r];
            if (gbit > 0 && r >= rails) rails = r + 1;
            if (gbit > *most_gbit) *most_gbit = gbit;
        }
    return rails;
}

static const struct network_host *by_name(const struct network_host *hosts, uint32_t n, const char *name)
{
    for (uint32_t h = 0; h < n; h++)
        if (strcmp(hosts[h].name, name) == 0) return &hosts[h];
    return NULL;
}

static void set_host(struct network *n, uint32_t h, const struct network_host *host, double payload)
{
    for (uint32_t r = 0; r < n->n_rails; r++)
        for (uint32_t p = 0; p < n->n_ports; p++)
            for (int tier = NETWORK_NIC_UP; tier <= NETWORK_NIC_DOWN; tier++) {
                float *rate = &n->rate[n->first[tier] + network_nic(n, h, r, p)];
                *rate = (float)(host->gbit[r] * payload / 8 / n->n_ports);
                n->faulty |= *rate <= 0;
            }
}

enum rail_result network_set_hosts(struct network *n, const struct network_host *hosts, uint32_t n_hosts,
                                   double payload)
{
    for (uint32_t h = 0; h < n_hosts; h++)
        if (by_name(hosts, h, hosts[h].name))
            return rail_fail(RAIL_E_ARGUMENT, "host %s is described twice", hosts[h].name);
    if (n_hosts != n->n_hosts)
        return rail_fail(RAIL_E_ARGUMENT, "%u hosts are described, and the fabric has %u", n_hosts, n->n_hosts);
    for (uint32_t h = 0; h < n_hosts; h++) {
        int32_t under;
        const char *name = n->fabric ? fabric_host_at(n->fabric, h, &under) : hosts[h].name;
        const struct network_host *host = by_name(hosts, n_hosts, name);
        if (!host) return rail_fail(RAIL_E_ARGUMENT, "no topology file is host %s's, which the fabric has", name);
        set_host(n, h, host, payload);
    }
    n->named = hosts;
    return RAIL_OK;
}
