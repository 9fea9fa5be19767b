/* findings.c - one function per thing that may be wrong. */
#include <arpa/inet.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "topo/findings.h"
#include "topo/machine.h"

struct look {
    const struct topo_graph *graph;
    uint32_t host;
    const struct topo_map *map;
    struct topo_findings *found;
    bool failed;
};

__attribute__((format(printf, 3, 4))) static void say(struct look *l, enum topo_weight weight, const char *format, ...)
{
    struct topo_findings *f = l->found;
    char *text = NULL;
    va_list arguments;
    if (f->n == f->room) {
        uint32_t room = f->room ? 2 * f->room : 16;
        void *bigger = realloc(f->at, room * sizeof *f->at);
        if (!bigger) { l->failed = true; return; }
        f->at = bigger;
        f->room = room;
    }
    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0) l->failed = true;
    else f->at[f->n++] = (struct topo_finding){weight, text};
    va_end(arguments);
}

static const struct topo_node *node(const struct look *l, uint32_t i) { return &l->graph->nodes[i]; }
static const char *name(const struct look *l, uint32_t i) { return l->graph->nodes[i].name; }

static const char *link_text(const struct look *l, uint32_t link, char *out, size_t bytes)
{
    const struct topo_link *k = &l->graph->links[link];
    const struct topo_node *a = node(l, k->a);
    int n = snprintf(out, bytes, "the %s link %s - %s", topo_link_name(k->kind), a->name, name(l, k->b));
    if (k->kind == TOPO_LINK_PCI && a->gt_per_s > 0 && n < (int)bytes)
        snprintf(out + n, bytes - (size_t)n, " (%g GT/s x %d)", a->gt_per_s, a->lanes);
    return out;
}

static void hidden_tree(struct look *l)
{
    if (l->graph->flat)
        say(l, TOPO_WRONG,
            "the PCI tree is hidden, as in virtual machines and containers: which NIC is near which GPU cannot "
            "be seen, ports were dealt out in order; give the instance type's description as NCCL_TOPO_FILE");
}

/* Bindings that have the same to say are said together: "GPU 2, GPU 3". False when an earlier one spoke for this. */
static bool speaks(const struct look *l, uint32_t i, char *gpus, size_t bytes)
{
    const struct topo_binding *b = &l->map->bindings[i];
    size_t n = 0;
    for (uint32_t k = 0; k < l->map->n_bindings; k++) {
        const struct topo_binding *o = &l->map->bindings[k];
        bool alike = o->first && o->net == b->net && o->path.class == b->path.class && o->pxn.via == b->pxn.via &&
                     o->pxn.gb_per_s == b->pxn.gb_per_s && node(l, o->gpu)->gpu.gdr == node(l, b->gpu)->gpu.gdr;
        if (!alike) continue;
        if (k < i) return false;
        int got = n < bytes ? snprintf(gpus + n, bytes - n, "%s%s", n ? ", " : "", name(l, o->gpu)) : 0;
        n += (size_t)got;
    }
    return b->first;
}

static void far_nics(struct look *l)
{
    char gpus[512];
    for (uint32_t i = 0; i < l->map->n_bindings && !l->graph->flat; i++) {
        const struct topo_binding *b = &l->map->bindings[i];
        const char *class = topo_class_name(b->path.class);
        if (b->path.class <= PATH_P2C || !speaks(l, i, gpus, sizeof gpus)) continue;
        if (b->pxn.class == PATH_PXN)
            say(l, TOPO_ODD, "%s: no NIC of %s own; the nearest is %s (%s), better reached over NVLink and %s", gpus,
                strchr(gpus, ',') ? "their" : "its", name(l, b->net), class, name(l, b->pxn.via));
        else
            say(l, b->path.class >= PATH_SYS ? TOPO_WRONG : TOPO_ODD, "%s: far from the nearest NIC, %s (%s)%s", gpus,
                name(l, b->net), class,
                b->direct ? "" : ": GPUDirect is not used; a slot below the same PCI switch would allow it");
    }
}

static void narrow_ways(struct look *l)
{
    for (uint32_t i = 0; i < l->map->n_bindings; i++) {
        const struct topo_binding *b = &l->map->bindings[i];
        double wire = node(l, b->net)->net.mbit_per_s / 8000;
        char link[320], gpus[512];
        if (b->pxn.neck == TOPO_NONE || b->pxn.gb_per_s >= 0.95 * wire) continue;
        if (l->graph->links[b->pxn.neck].rate.origin.how == TOPO_ASSUMED || !speaks(l, i, gpus, sizeof gpus)) continue;
        say(l, TOPO_ODD, "%s: at most %.1f of %s's %.1f GB/s, as %s is that narrow", gpus, b->pxn.gb_per_s,
            name(l, b->net), wire, link_text(l, b->pxn.neck, link, sizeof link));
    }
}

static void direct_refused(struct look *l)
{
    char gpus[512];
    for (uint32_t i = 0; i < l->map->n_bindings; i++) {
        const struct topo_binding *b = &l->map->bindings[i];
        bool refused = node(l, b->gpu)->gpu.gdr == TOPO_NO || node(l, b->net)->net.gdr == TOPO_NO;
        if (!refused || !speaks(l, i, gpus, sizeof gpus)) continue;
        say(l, TOPO_WRONG,
            "%s: GPUDirect to %s is impossible: %s; load nvidia_peermem, or use a driver and kernel with dma-buf", gpus,
            name(l, b->net), b->why_not);
    }
}

static bool one_card(const struct topo_node *a, const struct topo_node *b)
{
    return a->kind == TOPO_NIC && b->kind == TOPO_NIC && a->parent == b->parent && a->bus >> 8 == b->bus >> 8;
}

/* A card's ports share its slot, whether they are functions of their own or not. */
static void narrow_slots(struct look *l)
{
    for (uint32_t i = 0; i < l->graph->n_nodes; i++) {
        const struct topo_node *n = node(l, i);
        double wire = 0;
        uint32_t ports = 0, first = TOPO_NONE;
        if (n->kind != TOPO_NIC || n->host != l->host || n->bus == TOPO_NO_BUS) continue;
        for (uint32_t k = 0; k < l->map->n_rails; k++) {
            const struct topo_node *net = node(l, l->map->rails[k].net);
            if (!one_card(node(l, net->parent), n)) continue;
            if (first == TOPO_NONE || net->parent < first) first = net->parent;
            wire += net->net.mbit_per_s / 8000;
            ports++;
        }
        const struct topo_link *up = topo_graph_up(l->graph, i);
        if (first != i || !up || up->rate.origin.how == TOPO_ASSUMED || up->rate.gb_per_s >= 0.95 * wire) continue;
        char link[320];
        say(l, TOPO_WRONG, "the card %s has %u port%s of %.1f GB/s%s and a slot of %.1f GB/s: %s", n->name, ports,
            ports == 1 ? "" : "s", wire, ports == 1 ? "" : " together", up->rate.gb_per_s,
            link_text(l, (uint32_t)(up - l->graph->links), link, sizeof link));
    }
}

static void degraded_links(struct look *l)
{
    for (uint32_t i = 0; i < l->graph->n_nodes; i++) {
        const struct topo_node *n = node(l, i);
        if (n->host != l->host || n->kind == TOPO_CPU || n->kind == TOPO_NET || n->kind == TOPO_NVS) continue;
        bool lanes = n->max_lanes > n->lanes && n->lanes > 0, speed = n->max_gt_per_s > n->gt_per_s && n->gt_per_s > 0;
        /* GPUs slow their link down when they idle; lanes they keep. */
        if (lanes || (speed && n->kind == TOPO_NIC))
            say(l, TOPO_ODD,
                "the PCI link of %s runs at %g GT/s x %d and could do %g GT/s x %d: reseat the card, or look for "
                "a narrow slot",
                n->name, n->gt_per_s, n->lanes, n->max_gt_per_s, n->max_lanes);
    }
}

static void mixed_rates(struct look *l)
{
    double low = 0, high = 0;
    uint32_t slow = 0, fast = 0;
    for (uint32_t k = 0; k < l->map->n_rails; k++) {
        double rate = node(l, l->map->rails[k].net)->net.mbit_per_s;
        if (rate <= 0) continue;
        if (high == 0 || rate > high) high = rate, fast = l->map->rails[k].net;
        if (low == 0 || rate < low) low = rate, slow = l->map->rails[k].net;
    }
    if (low < high)
        say(l, TOPO_WRONG, "rails of different rates: %s has %g Gbit/s, %s %g", name(l, fast), high / 1000,
            name(l, slow), low / 1000);
}

static void mixed_mtus(struct look *l)
{
    const struct topo_node *first = NULL;
    for (uint32_t k = 0; k < l->map->n_rails; k++) {
        const struct topo_node *n = node(l, l->map->rails[k].net);
        if (n->net.mtu <= 0) continue;
        if (!first) first = n;
        if (n->net.mtu == first->net.mtu) continue;
        say(l, TOPO_WRONG, "rails of different MTU: %s has %d bytes, %s %d; set them alike", first->name,
            first->net.mtu, n->name, n->net.mtu);
        return;
    }
}

static void missing_rails(struct look *l)
{
    for (uint32_t r = 0; r < l->map->n_numbers; r++) {
        bool there = false;
        for (uint32_t k = 0; k < l->map->n_rails; k++) there |= l->map->rails[k].number == r;
        if (!there)
            say(l, TOPO_WRONG,
                "rail %u is missing here: no NIC where the others have one (its GPUs share a neighbour's)", r);
    }
}

static void uneven_rails(struct look *l)
{
    uint32_t low = UINT32_MAX, high = 0, least = 0, most = 0;
    for (uint32_t k = 0; k < l->map->n_rails; k++) {
        uint32_t n = l->map->rails[k].n_gpus;
        if (n < low) low = n, least = l->map->rails[k].net;
        if (n > high) high = n, most = l->map->rails[k].net;
    }
    if (l->map->n_rails && high > low + 1)
        say(l, TOPO_ODD, "rails are used unevenly: %s serves %u GPUs, %s %u", name(l, most), high, name(l, least), low);
    else if (l->map->n_rails && high > 1 && high != low)
        say(l, TOPO_SAID, "%s serves %u GPUs, %s %u", name(l, most), high, name(l, least), low);
}

/* "10.1.2.3/24" or "fd00::1/64": the address as bytes, and the length of its network's prefix, which is 0 for nonsense.
 */
static int parse_address(const char *text, uint8_t out[16], int *family)
{
    char address[48];
    const char *slash = strchr(text, '/');
    if (!slash || (size_t)(slash - text) >= sizeof address) return 0;
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = '\0';
    *family = strchr(address, ':') ? AF_INET6 : AF_INET;
    return inet_pton(*family, address, out) == 1 ? atoi(slash + 1) : 0;
}

/* A prefix of the whole length is one host's, no network. */
static bool same_subnet(const char *a, const char *b)
{
    uint8_t x[16] = {0}, y[16] = {0};
    int p, q, n = parse_address(a, x, &p), m = parse_address(b, y, &q);
    if (n <= 0 || n != m || p != q || n >= (p == AF_INET ? 32 : 128)) return false;
    for (int i = 0; i < n; i++)
        if ((x[i / 8] ^ y[i / 8]) & 0x80 >> i % 8) return false;
    return true;
}

/* Rules per source address are there, and hold. */
static bool leaves_by_itself(const struct topo_node *n)
{
    return n->net.leaves_by[0] && strcmp(n->net.leaves_by, n->net.netdev) == 0;
}

/* Of a port with such an address, if this machine has it; a machine from a file has not. */
static enum machine_egress egress_of(const struct topo_node *n, const char **why)
{
    struct machine_interface nic = {.up = true};
    uint8_t bytes[16] = {0};
    int family;
    *why = "";
    nic.prefix_bits = (uint8_t)parse_address(n->net.address, bytes, &family);
    if (nic.prefix_bits == 0) return MACHINE_EGRESS_UNKNOWN;
    memcpy(nic.name, n->net.netdev, sizeof nic.name);
    nic.address.ss_family = (sa_family_t)family;
    if (family == AF_INET) memcpy(&((struct sockaddr_in *)(void *)&nic.address)->sin_addr, bytes, 4);
    else memcpy(&((struct sockaddr_in6 *)(void *)&nic.address)->sin6_addr, bytes, 16);
    return machine_subnet_egress(&nic, why);
}

/* Two ports in one subnet: fine with a rule per address; else one of them sends what is the other's. */
static void say_one_subnet(struct look *l, const struct topo_node *a, const struct topo_node *b)
{
    const char *why_a, *why_b;
    enum machine_egress x = egress_of(a, &why_a), y = egress_of(b, &why_b);
    const struct topo_node *stray = y == MACHINE_EGRESS_STRAYS ? b : a;
    if (x == MACHINE_EGRESS_OWN && y == MACHINE_EGRESS_OWN) return;
    if (x == MACHINE_EGRESS_STRAYS || y == MACHINE_EGRESS_STRAYS)
        say(l, TOPO_WRONG,
            "%s (%s) and %s (%s) are in one subnet, and what %s should send leaves by another port (%s): give each rail "
            "a subnet of its own, or a rule and table per address, or set arp_ignore=1, arp_announce=2 and rp_filter=2",
            a->name, a->net.address, b->name, b->net.address, stray->name, stray == b ? why_b : why_a);
    else if (x == MACHINE_EGRESS_BIND || y == MACHINE_EGRESS_BIND)
        say(l, TOPO_SAID,
            "%s (%s) and %s (%s) are in one subnet: railccl binds its sockets to their devices, other programs send "
            "out of one port", a->name, a->net.address, b->name, b->net.address);
    else
        say(l, TOPO_WRONG,
            "%s (%s) and %s (%s) are in one subnet: the kernel sends everything for it out of one port; give "
            "each rail a subnet of its own, or a rule and table per address",
            a->name, a->net.address, b->name, b->net.address);
}

static void one_subnet(struct look *l)
{
    for (uint32_t k = 0; k < l->map->n_rails; k++)
        for (uint32_t i = 0; i < k; i++) {
            const struct topo_node *a = node(l, l->map->rails[i].net), *b = node(l, l->map->rails[k].net);
            if (!same_subnet(a->net.address, b->net.address) || (leaves_by_itself(a) && leaves_by_itself(b))) continue;
            say_one_subnet(l, a, b);
            return;
        }
}

static void unroutable_ports(struct look *l)
{
    for (uint32_t k = 0; k < l->map->n_rails; k++) {
        const struct topo_node *n = node(l, l->map->rails[k].net);
        if (!n->net.verbs || n->net.type != TOPO_NET_ETHERNET || n->net.n_gids == 0 || topo_gid_routable(&n->net)) continue;
        say(l, TOPO_ODD,
            "%s has no RoCE v2 GID with an address that is routed: RDMA would stay in its Ethernet segment; give its "
            "interface%s%s an address", n->name, n->net.netdev[0] ? " " : "", n->net.netdev);
    }
}

static void unused_ports(struct look *l)
{
    for (uint32_t k = 0; k < l->map->n_unused; k++) {
        const struct topo_node *n = node(l, l->map->unused[k]);
        if (n->net.up == TOPO_NO) say(l, TOPO_ODD, "port %s is down: it is no rail", n->name);
        else if (n->net.virtual_function) say(l, TOPO_SAID, "%s is a virtual function: it is no rail", n->name);
        else if (!n->net.verbs && l->map->n_rails && node(l, l->map->rails[0].net)->net.verbs)
            say(l, TOPO_SAID, "%s has no verbs, as other ports have: it is no rail", n->name);
        else say(l, TOPO_SAID, "%s has %g Gbit/s, less than a quarter of the fastest port: it is no rail", n->name,
                 n->net.mbit_per_s / 1000);
    }
    if (l->map->n_rails == 0) say(l, TOPO_WRONG, "no port that could be a rail");
}

static void assumed_rates(struct look *l)
{
    uint32_t assumed = 0, pci = 0, example = 0;
    for (uint32_t i = 0; i < l->graph->n_links; i++) {
        const struct topo_link *k = &l->graph->links[i];
        if (k->kind != TOPO_LINK_PCI || node(l, k->a)->host != l->host || node(l, k->a)->bus == TOPO_NO_BUS) continue;
        pci++;
        if (k->rate.origin.how == TOPO_ASSUMED && assumed++ == 0) example = i;
    }
    if (assumed)
        say(l, TOPO_SAID, "%u of %u PCI links have no speed or width: %s is taken as %.1f GB/s", assumed, pci,
            name(l, l->graph->links[example].a), l->graph->links[example].rate.gb_per_s);
}

static void remarks(struct look *l)
{
    for (uint32_t i = 0; i < l->graph->n_remarks; i++) say(l, TOPO_SAID, "%s", l->graph->remarks[i]);
    if (l->graph->n_remarks_lost) say(l, TOPO_SAID, "%u more remarks like these", l->graph->n_remarks_lost);
}

/* Stable: equal weights keep their order. */
static void sort(struct topo_findings *f)
{
    for (uint32_t i = 1; i < f->n; i++)
        for (uint32_t k = i; k > 0 && f->at[k - 1].weight > f->at[k].weight; k--) {
            struct topo_finding swapped = f->at[k];
            f->at[k] = f->at[k - 1];
            f->at[k - 1] = swapped;
        }
}

enum rail_result topo_findings_collect(const struct topo_graph *graph, uint32_t host, const struct topo_map *map,
                                       struct topo_findings *out)
{
    static void (*const looks[])(struct look *) = {
        hidden_tree,  missing_rails, mixed_rates,    mixed_mtus,   one_subnet,   far_nics,      direct_refused,
        narrow_slots, narrow_ways,   degraded_links, uneven_rails, unroutable_ports, unused_ports, assumed_rates, remarks,
    };
    *out = (struct topo_findings){0};
    struct look l = {.graph = graph, .host = host, .map = map, .found = out};
    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++) looks[i](&l);
    sort(out);
    if (!l.failed) return RAIL_OK;
    topo_findings_clear(out);
    return rail_fail(RAIL_E_SYSTEM, "out of memory for what is wrong with the machine");
}

void topo_findings_clear(struct topo_findings *findings)
{
    for (uint32_t i = 0; i < findings->n; i++) free(findings->at[i].text);
    free(findings->at);
    *findings = (struct topo_findings){0};
}

const char *topo_weight_name(enum topo_weight weight)
{
    static const char *const names[] = {"wrong", "odd", "note"};
    return names[weight];
}
