/* topo_fabric.c - where this machine hangs in the fabric: GPU -> NIC -> rail -> leaf, and who says so. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "topo.h"
#include "topo/fabric_show.h"
#include "topo/machine.h"
#include "topo/rails.h"

/* "10.0.0.1/24" as an address and its bits; false for "". */
static bool address_of(const char *text, struct sockaddr_storage *out, uint32_t *bits)
{
    char address[48];
    const char *slash = strchr(text, '/');
    memset(out, 0, sizeof *out);
    if (!slash || (size_t)(slash - text) >= sizeof address) return false;
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = '\0';
    *bits = (uint32_t)strtoul(slash + 1, NULL, 10);
    struct sockaddr_in *in = (void *)out;
    struct sockaddr_in6 *in6 = (void *)out;
    if (inet_pton(AF_INET, address, &in->sin_addr) == 1) out->ss_family = AF_INET;
    else if (inet_pton(AF_INET6, address, &in6->sin6_addr) == 1) out->ss_family = AF_INET6;
    return out->ss_family != 0;
}

/* What this machine's NIC says of itself: NCCL_IB_HCA's label, the switch that it hears by LLDP. */
static bool told_by_nic(const struct topo_view *v, const struct topo_node *n, const struct sockaddr_storage *address,
                        uint32_t bits, char text[160])
{
    struct machine_interface nic = {.address = *address, .prefix_bits = (uint8_t)bits, .up = true};
    struct rail_facts facts = {0};
    if (!v->live || !n->net.netdev[0]) return false;
    snprintf(nic.name, sizeof nic.name, "%.15s", n->net.netdev);
    if (rails_facts(&nic, &facts) != RAIL_OK) {
        snprintf(text, 160, "contradicts itself: %.120s", rail_last_error());
        return true;
    }
    if (facts.label_from == RAILS_BY_HCA) snprintf(text, 160, "rail %s by NCCL_IB_HCA", facts.label_text);
    else if (facts.leaf) snprintf(text, 160, "rail by LLDP: hangs on switch %s", facts.leaf_text);
    return facts.label_from == RAILS_BY_HCA || facts.leaf;
}

const char *topo_rail_key_source(const struct topo_view *v, uint32_t net, char text[160])
{
    const struct topo_node *n = &v->graph->nodes[net];
    struct sockaddr_storage address;
    uint64_t by_name = 0, by_device = 0;
    uint32_t bits = 0;
    bool told = address_of(n->net.address, &address, &bits);
    if (v->fabric &&
        (fabric_rail(v->fabric, v->host_name, n->net.netdev, &address, &by_name) != RAIL_OK ||
         fabric_rail(v->fabric, v->host_name, n->name, &address, &by_device) != RAIL_OK))
        snprintf(text, 160, "contradicts itself: %.120s", rail_last_error());
    else if (by_name || by_device) snprintf(text, 160, "rail by %.120s", fabric_source(v->fabric));
    else if (told_by_nic(v, n, &address, bits, text)) return text;
    else if (told && rails_subnet_key(&address, bits)) snprintf(text, 160, "rail by its subnet, %s", n->net.address);
    else if (told) snprintf(text, 160, "rail unknown: %s says nothing of it", n->net.address);
    else snprintf(text, 160, "rail unknown: no address is known");
    return text;
}

void topo_print_place(const struct topo_view *v, uint32_t host, FILE *out)
{
    const struct topo_map *map = &v->maps[host];
    uint32_t path[PLACE_TIERS], n = fabric_path(v->fabric, v->host_name, path);
    char ways[200] = "", source[160];
    for (uint32_t i = 0; i < n; i++)
        snprintf(ways + strlen(ways), sizeof ways - strlen(ways), "%s%s", i ? " - " : "",
                 fabric_switch_at(v->fabric, path[i]).name);
    fprintf(out, "GPU -> NIC -> rail -> leaf (host %s in %s)\n", v->host_name, fabric_source(v->fabric));
    if (n == 0) fprintf(out, "  wrong  the fabric file does not mention this host: name it with --host, or add it\n");
    for (uint32_t r = 0; r < map->n_rails; r++) {
        bool any = false;
        for (uint32_t b = 0; b < map->n_bindings; b++) {
            if (map->bindings[b].net != map->rails[r].net) continue;
            fprintf(out, "%s%s", any ? ", " : "  ", v->graph->nodes[map->bindings[b].gpu].name), any = true;
        }
        fprintf(out, "%s%-12s -> rail %-3u -> %s  (%s)\n", any ? " -> " : "  ", v->graph->nodes[map->rails[r].net].name,
                map->rails[r].number, n ? ways : "?", topo_rail_key_source(v, map->rails[r].net, source));
    }
}
