/* sysfs_net.c - the ports: those of verbs devices under their own name, other network interfaces under theirs.
 *
 * A verbs device's interfaces are not listed again. Ports bonded into one are one port, with the rates of all together.
 * Interfaces without a PCI device (bridges, tunnels, loopback) are no ports, unless there is nothing else, as in a
 * container: then those that are up and lead somewhere. */
#include <ifaddrs.h>
#include <arpa/inet.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "topo/machine.h"
#include "topo/sysfs.h"

static void read_link_state(struct sysfs *s, struct topo_node *n, const char *folder)
{
    char state[SYSFS_LINE];
    long mtu = sysfs_number(s, 0, folder, "mtu");
    sysfs_read(s, state, sizeof state, folder, "operstate");
    /* "unknown" is what drivers without carrier detection say of a port that works. */
    if (state[0]) n->net.up = strcmp(state, "up") == 0 || strcmp(state, "unknown") == 0 ? TOPO_YES : TOPO_NO;
    if (mtu > 0) {
        n->net.mtu = (int32_t)mtu;
        n->net.mtu_origin = sysfs_origin(s, folder, "mtu");
    }
}

static void set_rate(struct sysfs *s, struct topo_node *n, double mbit_per_s, const char *folder, const char *name)
{
    if (mbit_per_s <= 0) return;
    n->net.mbit_per_s = mbit_per_s;
    n->net.rate_origin = sysfs_origin(s, folder, name);
}

/* The name of the bond that an interface belongs to: the link `master` leads to its folder, where uevent tells it. */
static void bond_name(const struct sysfs *s, const char *folder, char out[16])
{
    char path[SYSFS_PATH + 64], line[SYSFS_LINE];
    int n = snprintf(path, sizeof path, "%s%s/master/uevent", s->root, folder);
    FILE *f = n < (int)sizeof path ? fopen(path, "re") : NULL;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "INTERFACE=%15s", out) == 1) break;
    if (f) fclose(f);
}

/* --- verbs -------------------------------------------------------------------------------------------------------- */

/* The interface of a verbs device's port, and how many of the device's interfaces are in one bond. Interfaces that say
 * whose port they are (dev_port, from 0) are taken at their word; else the first will do. */
struct interfaces { char first[16]; int bonded; long port; bool sure; };

static enum rail_result see_interface(struct sysfs *s, const char *folder, const char *name, void *context)
{
    struct interfaces *seen = context;
    char path[SYSFS_PATH];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    bool mine = sysfs_number(s, -1, path, "dev_port") == seen->port - 1;
    if (strlen(name) < sizeof seen->first && (!seen->first[0] || (mine && !seen->sure))) {
        strcpy(seen->first, name);
        seen->sure = mine;
    }
    seen->bonded += sysfs_exists(s, path, "master");
    return RAIL_OK;
}

/* "b859:9f03:00ab:cdef" */
static uint64_t read_guid(const struct sysfs *s, const char *folder)
{
    char text[SYSFS_LINE], digits[20] = "";
    size_t n = 0;
    sysfs_read(s, text, sizeof text, folder, "node_guid");
    for (const char *c = text; *c && n < 16; c++)
        if (*c != ':') digits[n++] = *c;
    digits[n] = '\0';
    return strtoull(digits, NULL, 16);
}

/* "fe80:0000:...:0001" as 16 bytes; false for an empty entry. */
static bool read_gid(const struct sysfs *s, const char *folder, const char *name, uint8_t raw[16])
{
    char text[SYSFS_LINE];
    static const uint8_t empty[16];
    return sysfs_read(s, text, sizeof text, folder, name) && inet_pton(AF_INET6, text, raw) == 1 &&
           memcmp(raw, empty, 16) != 0;
}

struct gid_context { uint32_t node; const char *types; };

static enum rail_result add_gid(struct sysfs *s, const char *folder, const char *name, void *context)
{
    const struct gid_context *c = context;
    struct topo_net *net = &s->graph->nodes[c->node].net;
    char type[SYSFS_LINE], *end;
    struct topo_gid gid;
    unsigned long index = strtoul(name, &end, 10);
    if (*end || index > UINT16_MAX || !read_gid(s, folder, name, gid.raw)) return RAIL_OK;
    gid.index = (uint16_t)index;
    sysfs_read(s, type, sizeof type, c->types, name); /* "IB/RoCE v1", "RoCE v2" */
    gid.type = strstr(type, "v2") ? TOPO_GID_ROCE_2 : net->type == TOPO_NET_INFINIBAND ? TOPO_GID_IB : TOPO_GID_ROCE_1;
    if (net->n_gids < TOPO_GIDS_KEPT) net->gids[net->n_gids] = gid;
    net->n_gids++;
    return RAIL_OK;
}

static enum rail_result read_gids(struct sysfs *s, uint32_t node, const char *port)
{
    char folder[SYSFS_PATH + 32], types[SYSFS_PATH + 32];
    struct gid_context c = {node, types};
    snprintf(folder, sizeof folder, "%s/gids", port);
    snprintf(types, sizeof types, "%s/gid_attrs/types", port);
    s->graph->nodes[node].net.gids_origin = sysfs_origin(s, folder, NULL);
    return sysfs_each(s, folder, add_gid, &c);
}

/* The kernel's iboe_get_mtu: GRH 40, UDP 8, BTH 12, XRC 4, atomic 28, ICRC 4. */
int32_t sysfs_roce_mtu(int32_t interface_mtu)
{
    int32_t mtu = 4096;
    while (mtu > 256 && mtu > interface_mtu - 96) mtu /= 2;
    return mtu;
}

static void derive_mtu(struct topo_net *net)
{
    if (net->type != TOPO_NET_ETHERNET || net->mtu <= 0) return;
    net->verbs_mtu = sysfs_roce_mtu(net->mtu);
    net->verbs_mtu_origin = (struct topo_origin){TOPO_KERNEL, 0, "as the kernel derives it from the interface's MTU"};
}

struct port_context { const char *device, *device_folder; };

static void describe_port(struct sysfs *s, struct topo_node *n, const char *path, const char *name,
                          const struct port_context *c)
{
    char text[SYSFS_LINE];
    n->net.verbs = true;
    n->net.port = atoi(name);
    n->net.guid = read_guid(s, c->device_folder);
    snprintf(n->name, sizeof n->name, "%.50s", c->device);
    if (n->net.port > 1) snprintf(n->name, sizeof n->name, "%.50s:%d", c->device, n->net.port);
    sysfs_read(s, text, sizeof text, path, "rate"); /* "400 Gb/sec (4X NDR)" */
    set_rate(s, n, atof(text) * 1000, path, "rate");
    sysfs_read(s, text, sizeof text, path, "state"); /* "4: ACTIVE" */
    if (text[0]) n->net.up = atoi(text) == 4 ? TOPO_YES : TOPO_NO;
    sysfs_read(s, text, sizeof text, path, "link_layer");
    n->net.type = strcmp(text, "InfiniBand") == 0 ? TOPO_NET_INFINIBAND : TOPO_NET_ETHERNET;
}

/* The interface that sends under the port's addresses: the bond, where there is one. */
static enum rail_result find_interface(struct sysfs *s, uint32_t node, const char *path, const struct port_context *c)
{
    struct interfaces seen = {.port = s->graph->nodes[node].net.port};
    char nets[SYSFS_PATH + 32], text[SYSFS_LINE];
    snprintf(nets, sizeof nets, "%s/device/net", c->device_folder);
    RAIL_TRY(sysfs_each(s, nets, see_interface, &seen));
    struct topo_node *n = &s->graph->nodes[node];
    snprintf(nets, sizeof nets, "%s/gid_attrs/ndevs", path);
    if (!seen.sure && sysfs_read(s, text, sizeof text, nets, "0") && text[0] && strlen(text) < sizeof seen.first)
        strcpy(seen.first, text);
    if (seen.bonded > 1 || strstr(c->device, "bond")) n->net.slaves = seen.bonded > 1 ? seen.bonded : 2;
    strcpy(n->net.netdev, seen.first);
    if (!seen.first[0]) return RAIL_OK;
    snprintf(nets, sizeof nets, "/sys/class/net/%.15s", seen.first);
    if (n->net.slaves > 1) bond_name(s, nets, n->net.netdev);
    long mtu = sysfs_number(s, 0, nets, "mtu");
    if (mtu > 0) n->net.mtu = (int32_t)mtu, n->net.mtu_origin = sysfs_origin(s, nets, "mtu");
    return RAIL_OK;
}

static enum rail_result add_verbs_port(struct sysfs *s, const char *folder, const char *name, void *context)
{
    const struct port_context *c = context;
    char path[SYSFS_PATH], device[SYSFS_PATH];
    uint32_t nic, node;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(device, sizeof device, "%s/device", c->device_folder);
    RAIL_TRY(sysfs_pci_device(s, device, TOPO_NIC, &nic));
    if (nic == TOPO_NONE) { /* a software device (rxe, siw) */
        topo_graph_remark(s->graph, "verbs device %s has no PCI device and is left out", c->device);
        return RAIL_OK;
    }
    node = topo_graph_add(s->graph, TOPO_NET, nic, sysfs_origin(s, path, NULL));
    if (node == TOPO_NONE) return RAIL_E_ARGUMENT;
    describe_port(s, &s->graph->nodes[node], path, name, c);
    s->graph->nodes[node].net.virtual_function = sysfs_exists(s, device, "physfn");
    RAIL_TRY(find_interface(s, node, path, c));
    derive_mtu(&s->graph->nodes[node].net);
    return read_gids(s, node, path);
}

static enum rail_result visit_verbs(struct sysfs *s, const char *folder, const char *name, void *context)
{
    char device[SYSFS_PATH], ports[SYSFS_PATH];
    struct port_context c = {name, device};
    ++*(uint32_t *)context;
    snprintf(device, sizeof device, "%s/%s", folder, name);
    snprintf(ports, sizeof ports, "%s/%s/ports", folder, name);
    return sysfs_each(s, ports, add_verbs_port, &c);
}

/* --- interfaces --------------------------------------------------------------------------------------------------- */

static enum rail_result count_master(struct sysfs *s, const char *folder, const char *name, void *context)
{
    (void)s, (void)folder;
    *(int *)context += strncmp(name, "lower_", 6) == 0 || strncmp(name, "slave_", 6) == 0;
    return RAIL_OK;
}

/* Whether a verbs device stands for this interface: then its PCI device has an `infiniband` folder. */
static bool is_verbs(const struct sysfs *s, const char *folder) { return sysfs_exists(s, folder, "device/infiniband"); }

static enum rail_result add_interface(struct sysfs *s, uint32_t nic, const char *name, const char *folder)
{
    char path[SYSFS_PATH];
    uint32_t node = topo_graph_add(s->graph, TOPO_NET, nic, sysfs_origin(s, folder, NULL));
    if (node == TOPO_NONE) return RAIL_E_ARGUMENT;
    struct topo_node *n = &s->graph->nodes[node];
    snprintf(n->name, sizeof n->name, "%.60s", name);
    snprintf(n->net.netdev, sizeof n->net.netdev, "%.15s", name);
    n->net.type = TOPO_NET_ETHERNET;
    n->net.gdr = TOPO_NO;
    n->net.gdr_origin = (struct topo_origin){TOPO_KERNEL, 0, "an interface without verbs"};
    n->net.virtual_function = sysfs_exists(s, folder, "device/physfn");
    set_rate(s, n, (double)sysfs_number(s, 0, folder, "speed"), folder, "speed");
    read_link_state(s, n, folder);
    snprintf(path, sizeof path, "%s/master/bonding", folder);
    if (!sysfs_exists(s, path, NULL)) return RAIL_OK;
    /* The first member stands for the bond; the others find it by its name and go away. */
    char master[SYSFS_PATH], bond[16] = "bond";
    int members = 0;
    snprintf(master, sizeof master, "%s/master", folder);
    RAIL_TRY(sysfs_each(s, master, count_master, &members));
    n = &s->graph->nodes[node];
    bond_name(s, folder, bond);
    strcpy(n->name, bond);
    snprintf(n->net.netdev, sizeof n->net.netdev, "%.15s", bond);
    n->net.slaves = members;
    set_rate(s, n, (double)sysfs_number(s, 0, master, "speed"), master, "speed");
    read_link_state(s, n, master);
    return RAIL_OK;
}

static bool bond_is_there(const struct sysfs *s, const char *folder)
{
    char bond[16] = "";
    bond_name(s, folder, bond);
    for (uint32_t i = 0; bond[0] && i < s->graph->n_nodes; i++)
        if (s->graph->nodes[i].kind == TOPO_NET && strcmp(s->graph->nodes[i].name, bond) == 0) return true;
    return false;
}

static enum rail_result visit_interface(struct sysfs *s, const char *folder, const char *name, void *context)
{
    char path[SYSFS_PATH], device[SYSFS_PATH];
    uint32_t nic;
    (void)context;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(device, sizeof device, "%s/%s/device", folder, name);
    if (!sysfs_exists(s, device, NULL) || is_verbs(s, path) || bond_is_there(s, path)) return RAIL_OK;
    RAIL_TRY(sysfs_pci_device(s, device, TOPO_NIC, &nic));
    if (nic == TOPO_NONE) return RAIL_OK;
    return add_interface(s, nic, name, path);
}

/* Without any PCI port: what is up and no bridge, no port of one, no loopback. */
static enum rail_result visit_virtual(struct sysfs *s, const char *folder, const char *name, void *context)
{
    char path[SYSFS_PATH], state[SYSFS_LINE];
    (void)context;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    sysfs_read(s, state, sizeof state, path, "operstate");
    if (sysfs_number(s, 0, path, "type") != 1 || strcmp(state, "up") != 0) return RAIL_OK;
    if (sysfs_exists(s, path, "bridge") || sysfs_exists(s, path, "brport") || strncmp(name, "docker", 6) == 0)
        return RAIL_OK;
    uint32_t nic = topo_graph_add(s->graph, TOPO_NIC, sysfs_cpu_of(s->graph, 0), sysfs_origin(s, path, NULL));
    if (nic == TOPO_NONE) return RAIL_E_ARGUMENT;
    topo_graph_remark(s->graph, "%s has no PCI device, as in a container: how near it is to GPUs cannot be seen", name);
    return add_interface(s, nic, name, path);
}

/* --- the rest ----------------------------------------------------------------------------------------------------- */

static struct topo_node *port_named(struct sysfs *s, const char *netdev)
{
    for (uint32_t i = 0; i < s->graph->n_nodes; i++)
        if (s->graph->nodes[i].kind == TOPO_NET && strcmp(s->graph->nodes[i].net.netdev, netdev) == 0)
            return &s->graph->nodes[i];
    return NULL;
}

static int prefix_length(const struct sockaddr *mask)
{
    const uint8_t *bytes = mask->sa_family == AF_INET
                               ? (const uint8_t *)&((const struct sockaddr_in *)(const void *)mask)->sin_addr
                               : (const uint8_t *)&((const struct sockaddr_in6 *)(const void *)mask)->sin6_addr;
    int bits = 0, most = mask->sa_family == AF_INET ? 32 : 128;
    while (bits < most && bytes[bits / 8] & 0x80 >> bits % 8) bits++;
    return bits;
}

/* IPv4 first, else a global IPv6 address. */
static void read_addresses(struct sysfs *s)
{
    struct ifaddrs *all;
    if (getifaddrs(&all) != 0) return;
    for (const struct ifaddrs *a = all; a; a = a->ifa_next) {
        struct topo_node *n = a->ifa_addr && a->ifa_netmask ? port_named(s, a->ifa_name) : NULL;
        char text[INET6_ADDRSTRLEN];
        if (!n) continue;
        bool four = a->ifa_addr->sa_family == AF_INET, six = a->ifa_addr->sa_family == AF_INET6;
        if ((!four && !six) || (six && n->net.address[0]) || (four && strchr(n->net.address, '.'))) continue;
        const void *raw = four ? (const void *)&((const struct sockaddr_in *)(const void *)a->ifa_addr)->sin_addr
                               : (const void *)&((const struct sockaddr_in6 *)(const void *)a->ifa_addr)->sin6_addr;
        if (six && IN6_IS_ADDR_LINKLOCAL((const struct in6_addr *)raw)) continue;
        if (inet_ntop(a->ifa_addr->sa_family, raw, text, sizeof text))
            snprintf(n->net.address, sizeof n->net.address, "%.39s/%d", text, prefix_length(a->ifa_netmask));
        if (!four) continue;
        struct machine_interface nic = {.prefix_bits = (uint8_t)prefix_length(a->ifa_netmask)};
        memcpy(&nic.address, a->ifa_addr, sizeof(struct sockaddr_in));
        (void)machine_subnet_device(&nic, n->net.leaves_by);
    }
    freeifaddrs(all);
}

/* In a container that was given virtual functions alone they are the ports. */
static void accept_virtual_functions(struct sysfs *s)
{
    uint32_t whole = 0, virtual = 0;
    for (uint32_t i = 0; i < s->graph->n_nodes; i++) {
        const struct topo_node *n = &s->graph->nodes[i];
        if (n->kind == TOPO_NET) virtual += n->net.virtual_function, whole += !n->net.virtual_function;
    }
    if (!virtual || whole) return;
    for (uint32_t i = 0; i < s->graph->n_nodes; i++)
        if (s->graph->nodes[i].kind == TOPO_NET) s->graph->nodes[i].net.virtual_function = false;
    topo_graph_remark(
        s->graph, "all ports are virtual functions: they are taken as whole ones, though they share cards and wires");
}

enum rail_result sysfs_ports(struct sysfs *s)
{
    uint32_t n_verbs = 0;
    RAIL_TRY(sysfs_each(s, "/sys/class/infiniband", visit_verbs, &n_verbs));
    if (n_verbs == 0)
        topo_graph_remark(s->graph, "no RDMA device: looked in %s/sys/class/infiniband", s->root);
    RAIL_TRY(sysfs_each(s, "/sys/class/net", visit_interface, NULL));
    if (topo_graph_of_kind(s->graph, 0, TOPO_NET, NULL, 0) == 0)
        RAIL_TRY(sysfs_each(s, "/sys/class/net", visit_virtual, NULL));
    if (s->root[0] == '\0') read_addresses(s);
    accept_virtual_functions(s);
    return RAIL_OK;
}
