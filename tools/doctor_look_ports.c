/* doctor_look_ports.c - RDMA devices and their ports, as /sys/class/infiniband shows them; NICs that could be such
 * devices. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor.h"
#include "topo/sysfs.h"
#include "transport/link/counters.h"

struct look { struct doctor_facts *facts; const char *device, *folder; struct doctor_port *port; const char *types; };

/* Cut, where it is longer: names of devices and interfaces are not. */
static void copy(char *out, size_t bytes, const char *text) { snprintf(out, bytes, "%.*s", (int)bytes - 1, text); }

/* "4: ACTIVE", "5: LinkUp" */
static void read_state(const struct sysfs *s, char *out, size_t bytes, const char *folder, const char *name)
{
    char line[SYSFS_LINE];
    sysfs_read(s, line, sizeof line, folder, name);
    const char *colon = strchr(line, ':');
    copy(out, bytes, colon ? colon + 1 + strspn(colon + 1, " ") : line);
}

/* ---- GIDs ---- */

static bool routable(const struct in6_addr *a)
{
    return !IN6_IS_ADDR_LINKLOCAL(a) && !IN6_IS_ADDR_UNSPECIFIED(a);
}

static enum rail_result see_gid(struct sysfs *s, const char *folder, const char *name, void *context)
{
    struct look *l = context;
    struct doctor_port *p = l->port;
    char text[SYSFS_LINE], type[SYSFS_LINE], shown[INET6_ADDRSTRLEN];
    struct in6_addr gid;
    int index = atoi(name);
    bool filled = sysfs_read(s, text, sizeof text, folder, name) && inet_pton(AF_INET6, text, &gid) == 1 &&
                  !IN6_IS_ADDR_UNSPECIFIED(&gid);
    if (!filled) {
        if (p->gid_hole < 0 || p->gid_hole > index) p->gid_hole = index; /* judged when all are seen */
        return RAIL_OK;
    }
    p->gids++;
    bool infiniband = strcmp(p->layer, "InfiniBand") == 0;
    sysfs_read(s, type, sizeof type, l->types, name); /* "IB/RoCE v1", "RoCE v2" */
    bool v2 = strstr(type, "v2") != NULL, v4 = v2 && IN6_IS_ADDR_V4MAPPED(&gid);
    p->gids_v2 += v2;
    p->gids_v4 += v4;
    p->gids_v6 += v2 && !v4 && routable(&gid);
    bool better = infiniband ? p->gid_first < 0 : v2 && routable(&gid) && (p->gid_first < 0 || (v4 && p->gids_v4 == 1));
    if (!better) return RAIL_OK;
    p->gid_first = index;
    inet_ntop(AF_INET6, &gid, shown, sizeof shown);
    snprintf(p->gid, sizeof p->gid, "%s", shown);
    return RAIL_OK;
}

static void look_at_gids(struct sysfs *s, struct look *l, const char *port)
{
    char folder[SYSFS_PATH + 32], types[SYSFS_PATH + 32];
    struct doctor_port *p = l->port;
    snprintf(folder, sizeof folder, "%s/gids", port);
    snprintf(types, sizeof types, "%s/gid_attrs/types", port);
    p->gid_first = p->gid_hole = DOCTOR_UNKNOWN;
    l->types = types;
    (void)sysfs_each(s, folder, see_gid, l); /* its visitor does not fail */
    if (p->gid_hole >= p->gids) p->gid_hole = DOCTOR_UNKNOWN; /* empty entries after the last one are room */
}

/* ---- the interface below a port ---- */

static enum rail_result first_name(struct sysfs *s, const char *folder, const char *name, void *context)
{
    struct look *l = context;
    if (!l->port->netdev[0] && sysfs_number(s, l->port->number - 1, folder, "dev_port") == l->port->number - 1)
        copy(l->port->netdev, sizeof l->port->netdev, name);
    return RAIL_OK;
}

/* Main routing table, in the kernel's hexadecimal: Iface Destination Gateway Flags RefCnt Use Metric Mask. */
static void look_at_subnet(const struct sysfs *s, struct doctor_port *p)
{
    char path[SYSFS_PATH + 32], line[SYSFS_LINE], name[32];
    unsigned destination, gateway, mask;
    snprintf(path, sizeof path, "%.1000s/proc/net/route", s->root);
    FILE *f = fopen(path, "re");
    while (f && !p->subnet[0] && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%31s %x %x %*x %*d %*d %*d %x", name, &destination, &gateway, &mask) != 4) continue;
        struct in_addr network = {destination};
        char text[INET_ADDRSTRLEN];
        if (strcmp(name, p->netdev) == 0 && gateway == 0 && mask != 0 &&
            inet_ntop(AF_INET, &network, text, sizeof text))
            snprintf(p->subnet, sizeof p->subnet, "%s/%d", text, __builtin_popcount(mask));
    }
    if (f) fclose(f);
}

static void look_at_interface(struct sysfs *s, struct look *l, const char *port)
{
    char folder[SYSFS_PATH + 32], line[SYSFS_LINE] = "";
    struct doctor_port *p = l->port;
    snprintf(folder, sizeof folder, "%s/gid_attrs/ndevs", port);
    if (!sysfs_read(s, line, sizeof line, folder, "0") || !line[0])
        sysfs_read(s, line, sizeof line, l->folder, "parent"); /* a software device's */
    copy(p->netdev, sizeof p->netdev, line);
    snprintf(folder, sizeof folder, "%s/device/net", l->folder);
    if (!p->netdev[0]) (void)sysfs_each(s, folder, first_name, l);
    if (!p->netdev[0]) return;
    snprintf(folder, sizeof folder, "/sys/class/net/%s", p->netdev);
    p->mtu = (int32_t)sysfs_number(s, DOCTOR_UNKNOWN, folder, "mtu");
    if (p->mtu > 0 && strcmp(p->layer, "Ethernet") == 0) p->rdma_mtu = sysfs_roce_mtu(p->mtu);
    look_at_subnet(s, p);
}

/* ---- where the device sits ---- */

/* ACS's control word, in PCI's extended configuration: a list of (id, next); 13 is ACS, and bits 2 and 3 send
 * peer-to-peer requests and completions up to the root. Returns -1 when that is not readable, as for other users than
 * root. */
static int acs_redirects(const struct sysfs *s, const char *device)
{
    char path[2 * SYSFS_PATH + 16];
    unsigned char config[4096];
    snprintf(path, sizeof path, "%s%s/config", s->root, device);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(config, 1, sizeof config, f) : 0;
    if (f) fclose(f);
    if (n < sizeof config) return -1;
    unsigned at = 0x100;
    for (int hop = 0; at >= 0x100 && at <= sizeof config - 8 && hop < 64; hop++) {
        unsigned head = config[at] | config[at + 1] << 8 | config[at + 2] << 16 | (unsigned)config[at + 3] << 24;
        if ((head & 0xffff) == 13) return ((config[at + 6] | config[at + 7] << 8) & 0x0c) != 0;
        at = head >> 20 & ~3u;
    }
    return 0;
}

static void look_at_pci(struct sysfs *s, struct look *l)
{
    enum { DEEP = SYSFS_MOST_BRIDGES };
    struct doctor_port *p = l->port;
    char path[SYSFS_PATH + 16], (*folders)[SYSFS_PATH] = calloc(DEEP, sizeof *folders);
    uint64_t route[DEEP];
    snprintf(path, sizeof path, "%s/device", l->folder);
    int n = folders ? sysfs_pci_route(s, path, route, folders, DEEP) : 0;
    p->software = n == 0;
    p->numa = (int32_t)sysfs_number(s, DOCTOR_UNKNOWN, path, "numa_node");
    snprintf(path, sizeof path, "%s/device/iommu_group", l->folder);
    sysfs_read(s, p->iommu, sizeof p->iommu, path, "type");
    if (n > 0) topo_bus_text(route[n - 1], p->bus);
    for (int i = 0; i < n - 1; i++) {
        int redirects = acs_redirects(s, folders[i]);
        p->acs_seen |= redirects >= 0;
        if (redirects > 0 && !p->acs[0]) topo_bus_text(route[i], p->acs);
    }
    free(folders);
}

static enum rail_result see_verbs(struct sysfs *s, const char *folder, const char *name, void *context)
{
    struct look *l = context;
    char path[SYSFS_PATH + 300], line[SYSFS_LINE];
    struct stat there;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!sysfs_read(s, line, sizeof line, path, "ibdev") || strcmp(line, l->device) != 0) return RAIL_OK;
    copy(l->port->verbs, sizeof l->port->verbs, name);
    snprintf(path, sizeof path, "%.1000s/dev/infiniband/%s", s->root, l->port->verbs);
    l->port->verbs_there = stat(path, &there) == 0;
    l->port->verbs_open = access(path, R_OK | W_OK) == 0;
    l->port->verbs_for_all = l->port->verbs_there && (there.st_mode & 06) == 06;
    return RAIL_OK;
}

static void look_at_counters(const struct sysfs *s, struct doctor_port *p)
{
    struct rdma_counters c;
    rdma_counters_read(s->root, p->device, p->number, &c);
    p->downs = (int64_t)c.n[RDMA_LINK_DOWNS];
    p->symbol_errors = (int64_t)c.n[RDMA_BAD_SYMBOLS];
    p->resent = (int64_t)c.n[RDMA_SENT_AGAIN];
    p->out_of_order = (int64_t)c.n[RDMA_OUT_OF_ORDER];
    p->no_receive = (int64_t)c.n[RDMA_NO_RECEIVE];
    p->gave_up = (int64_t)c.n[RDMA_GAVE_UP];
    p->congestion = (int64_t)c.n[RDMA_CONGESTION];
}

static enum rail_result see_port(struct sysfs *s, const char *folder, const char *name, void *context)
{
    struct look *l = context;
    char path[SYSFS_PATH], line[SYSFS_LINE];
    if (l->facts->n_ports == DOCTOR_PORTS_MOST ||
        snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) {
        l->facts->ports_left_out++;
        return RAIL_OK;
    }
    struct doctor_port *p = l->port = &l->facts->ports[l->facts->n_ports++];
    *p = (struct doctor_port){
        .number = atoi(name), .mtu = DOCTOR_UNKNOWN, .rdma_mtu = DOCTOR_UNKNOWN, .numa_allowed = true};
    copy(p->device, sizeof p->device, l->device);
    read_state(s, p->state, sizeof p->state, path, "state");
    read_state(s, p->physical, sizeof p->physical, path, "phys_state");
    sysfs_read(s, p->layer, sizeof p->layer, path, "link_layer");
    sysfs_read(s, line, sizeof line, path, "rate"); /* "400 Gb/sec (4X NDR)" */
    p->mbit_per_s = atof(line) * 1000;
    p->lid = (int32_t)sysfs_number(s, 0, path, "lid");
    p->sm_lid = (int32_t)sysfs_number(s, 0, path, "sm_lid");
    look_at_gids(s, l, path);
    look_at_interface(s, l, path);
    look_at_pci(s, l);
    look_at_counters(s, p);
    return sysfs_each(s, "/sys/class/infiniband_verbs", see_verbs, l);
}

static enum rail_result see_device(struct sysfs *s, const char *folder, const char *name, void *context)
{
    char device[SYSFS_PATH], ports[SYSFS_PATH + 8];
    struct look l = {.facts = context, .device = name, .folder = device};
    if (snprintf(device, sizeof device, "%s/%s", folder, name) >= (int)sizeof device) return RAIL_OK;
    snprintf(ports, sizeof ports, "%s/ports", device);
    return sysfs_each(s, ports, see_port, &l);
}

/* ---- NICs without an RDMA device ---- */

static enum rail_result see_pci(struct sysfs *s, const char *folder, const char *name, void *context)
{
    static const struct { long vendor; long device, mask; const char *driver; } drivers[] = {
        {0x15b3, 0x1000, 0xfff0, "mlx4_ib"}, /* ConnectX-3 and before */
        {0x15b3, 0, 0, "mlx5_ib"},           /* NVIDIA, Mellanox */
        {0x14e4, 0x16d0, 0xfff0, "bnxt_re"}, /* Broadcom 574xx, 575xx, 576xx */
        {0x14e4, 0x1750, 0xfff0, "bnxt_re"},
        {0x14e4, 0x1760, 0xfff0, "bnxt_re"},
        {0x1d0f, 0xefa0, 0xfff0, "efa"},     /* Amazon */
        {0x8086, 0x1590, 0xfff0, "irdma"},   /* Intel E810 */
        {0x1414, 0x00ba, 0xffff, "mana_ib"}, /* Microsoft */
    };
    struct doctor_facts *facts = context;
    char path[SYSFS_PATH + 300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    long class = sysfs_number(s, 0, path, "class"), vendor = sysfs_number(s, 0, path, "vendor");
    long device = sysfs_number(s, 0, path, "device");
    if (class >> 16 == 3 && (vendor == 0x10de || vendor == 0x1002) && class >> 8 != 0x0300) facts->gpus++;
    else if (class >> 8 == 0x0300 && vendor == 0x10de) facts->gpus++;
    if (class >> 16 != 2 || facts->idle_nic[0] || sysfs_exists(s, path, "infiniband") ||
        sysfs_exists(s, path, "physfn"))
        return RAIL_OK;
    for (size_t i = 0; i < sizeof drivers / sizeof *drivers && !facts->idle_nic[0]; i++) {
        if (vendor != drivers[i].vendor || (device & drivers[i].mask) != drivers[i].device) continue;
        copy(facts->idle_nic, sizeof facts->idle_nic, name);
        copy(facts->idle_driver, sizeof facts->idle_driver, drivers[i].driver);
    }
    return RAIL_OK;
}

void doctor_look_ports(const char *root, struct doctor_facts *facts)
{
    struct sysfs s = {NULL, root};
    (void)sysfs_each(&s, "/sys/class/infiniband", see_device, facts); /* their visitors do not fail */
    (void)sysfs_each(&s, "/sys/bus/pci/devices", see_pci, facts);
}
