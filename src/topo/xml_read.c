/* xml_read.c - NCCL's XML to a graph. Elements are taken as they come; links name devices that may stand further down,
 * so they are kept and resolved at the end. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "foreign/expat.h"
#include "topo/nvlink.h"
#include "topo/rates.h"
#include "topo/xml.h"

/* One element that is open: what it is, and the node that its children hang on. */
enum element { IN_NOTHING, IN_SYSTEM, IN_CPU, IN_PCI, IN_GPU, IN_NIC, IN_LEAF, IN_UNKNOWN };

struct frame { enum element element; uint32_t node; };

struct pending {
    enum { PENDING_NVLINK, PENDING_C2C, PENDING_PCILINK } what;
    uint32_t from, line;
    uint64_t target;
    long count, target_class;
    double mb_per_s;
};

enum { MOST_PENDING = 16384 };

struct reader {
    struct topo_graph *graph;
    const char *file;
    struct frame stack[XML_MOST_DEPTH + 1];
    int depth, pci_depth;
    struct pending *pending;
    uint32_t n_pending;
    uint64_t hosts[64];
    uint32_t n_hosts;
};

/* An element while it is read. */
struct tag {
    struct reader *r;
    const char *name, **attributes;
    uint32_t line;
};

static struct topo_origin here(const struct tag *t)
{
    return (struct topo_origin){TOPO_FILE, t->line, t->r->file};
}

#define REFUSE(t, ...) refuse((t)->r->file, (t)->line, __VA_ARGS__)
__attribute__((format(printf, 3, 4))) static enum rail_result refuse(const char *file, uint32_t line,
                                                                     const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return rail_fail(RAIL_E_ARGUMENT, "%s:%u: %s", file, line, text);
}

static const char *get(const struct tag *t, const char *name)
{
    for (int i = 0; t->attributes[i]; i += 2)
        if (strcmp(t->attributes[i], name) == 0) return t->attributes[i + 1];
    return NULL;
}

/* Leaves *out alone when the attribute is missing or empty. */
static enum rail_result get_int(const struct tag *t, const char *name, long low, long high, long *out)
{
    const char *text = get(t, name);
    if (!text || text[strspn(text, " ")] == '\0') return RAIL_OK;
    char *end;
    errno = 0;
    long value = strtol(text, &end, 0);
    if (*end != '\0' && strspn(text, "0123456789") >= 1) value = strtol(text, &end, 10); /* "08" */
    if (end == text || end[strspn(end, " ")] != '\0')
        return REFUSE(t, "%s=\"%.40s\" of <%s> is no whole number", name, text, t->name);
    if (errno == ERANGE || value < low || value > high)
        return REFUSE(t, "%s=\"%.40s\" of <%s> is out of range; %ld to %ld is possible", name, text, t->name, low,
                      high);
    *out = value;
    return RAIL_OK;
}

static enum rail_result get_real(const struct tag *t, const char *name, double high, double *out)
{
    const char *text = get(t, name);
    if (!text || text[strspn(text, " ")] == '\0') return RAIL_OK;
    char *end;
    double value = strtod(text, &end);
    if (end == text || end[strspn(end, " ")] != '\0')
        return REFUSE(t, "%s=\"%.40s\" of <%s> is no number", name, text, t->name);
    if (!(value >= -1 && value <= high))
        return REFUSE(t, "%s=\"%.40s\" of <%s> is out of range; up to %g is possible", name, text, t->name, high);
    *out = value > 0 ? value : 0;
    return RAIL_OK;
}

static enum rail_result get_hex(const struct tag *t, const char *name, uint64_t *out)
{
    const char *text = get(t, name);
    if (!text || !*text) return RAIL_OK;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, strncmp(text, "0x", 2) == 0 ? 16 : 0);
    if (errno || *end) return REFUSE(t, "%s=\"%.40s\" of <%s> is no number of at most 64 bits", name, text, t->name);
    *out = value;
    return RAIL_OK;
}

static enum rail_result get_text(const struct tag *t, const char *name, char *out, size_t bytes)
{
    const char *text = get(t, name);
    if (!text) return RAIL_OK;
    if (strlen(text) >= bytes)
        return REFUSE(t, "%s of <%s> has %zu bytes; at most %zu are possible", name, t->name, strlen(text), bytes - 1);
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return REFUSE(t, "%s of <%s> holds a control character; remove it", name, t->name);
    strcpy(out, text);
    return RAIL_OK;
}

/* "0x0300" and, as some write, "0x030000": class numbers have 24 bits, vendors and devices 16. */
static enum rail_result get_pci_number(const struct tag *t, const char *name, uint32_t *out)
{
    uint64_t value = 0;
    RAIL_TRY(get_hex(t, name, &value));
    if (value > 0xffffff) return REFUSE(t, "%s=\"%s\" of <%s> is no PCI number", name, get(t, name), t->name);
    *out = (uint32_t)value;
    return RAIL_OK;
}

static void remark_unknown(const struct tag *t, const char *const *known)
{
    for (int i = 0; t->attributes[i]; i += 2) {
        int k = 0;
        while (known[k] && strcmp(known[k], t->attributes[i]) != 0) k++;
        if (!known[k])
            topo_graph_remark(t->r->graph, "attribute \"%.40s\" of <%s> is not known and was skipped", t->attributes[i],
                              t->name);
    }
}

static enum rail_result tri(const struct tag *t, const char *name, enum topo_tri *out)
{
    long value = -1;
    RAIL_TRY(get_int(t, name, -1, 1, &value));
    *out = (enum topo_tri)value;
    return RAIL_OK;
}

/* --- elements ----------------------------------------------------------------------------------------------------- */

static struct topo_node *node_of(struct tag *t, uint32_t node) { return &t->r->graph->nodes[node]; }

static enum rail_result on_system(struct tag *t, uint32_t parent, uint32_t *out)
{
    static const char *const known[] = {"version", NULL};
    long version = 1;
    (void)parent;
    RAIL_TRY(get_int(t, "version", 0, 1 << 20, &version));
    if (version != 1)
        topo_graph_remark(t->r->graph, "the file has version %ld of NCCL's format; it was read as version 1", version);
    remark_unknown(t, known);
    *out = TOPO_NONE;
    return RAIL_OK;
}

static enum rail_result host_number(struct tag *t, uint64_t hash, uint32_t *out)
{
    struct reader *r = t->r;
    uint32_t most = sizeof r->hosts / sizeof *r->hosts;
    for (*out = 0; *out < r->n_hosts; (*out)++)
        if (r->hosts[*out] == hash) return RAIL_OK;
    if (r->n_hosts == most) return REFUSE(t, "more than %u hosts; describe one machine per file", most);
    r->hosts[r->n_hosts++] = hash;
    return RAIL_OK;
}

static enum rail_result on_cpu(struct tag *t, uint32_t parent, uint32_t *out)
{
    static const char *const known[] = {"numaid", "host_hash", "affinity", "arch",
                                        "vendor", "familyid",  "modelid",  NULL};
    long numa = -1, family = 0, model = 0;
    uint64_t hash = 0;
    uint32_t host;
    RAIL_TRY(get_int(t, "numaid", -1, 1 << 16, &numa));
    RAIL_TRY(get_int(t, "familyid", -1, INT32_MAX, &family));
    RAIL_TRY(get_int(t, "modelid", -1, INT32_MAX, &model));
    RAIL_TRY(get_hex(t, "host_hash", &hash));
    RAIL_TRY(host_number(t, hash, &host));
    uint32_t node = topo_graph_add(t->r->graph, TOPO_CPU, parent, here(t));
    if (node == TOPO_NONE) return RAIL_E_ARGUMENT;
    struct topo_node *n = node_of(t, node);
    n->host = host;
    if (host >= t->r->graph->n_hosts) t->r->graph->n_hosts = host + 1;
    n->cpu.numa = (int32_t)numa;
    n->cpu.family = (int32_t)family;
    n->cpu.model = (int32_t)model;
    n->cpu.host_hash = hash;
    char cores[4096] = "";
    RAIL_TRY(get_text(t, "affinity", cores, sizeof cores));
    n->cpu.affinity = topo_graph_text(t->r->graph, cores);
    RAIL_TRY(get_text(t, "arch", n->cpu.arch, sizeof n->cpu.arch));
    RAIL_TRY(get_text(t, "vendor", n->cpu.vendor, sizeof n->cpu.vendor));
    remark_unknown(t, known);
    *out = node;
    return RAIL_OK;
}

static enum rail_result read_pci_link(struct tag *t, struct topo_node *n)
{
    const char *speed = get(t, "link_speed");
    long width = 0;
    double gt = topo_rate_parse_gt(speed ? speed : "");
    if (gt < 0) return REFUSE(t, "link_speed=\"%.40s\" is not like \"16.0 GT/s PCIe\"", speed);
    RAIL_TRY(get_int(t, "link_width", 0, 255, &width));
    if (width == 255 || width == 63) width = 0; /* how the kernel writes "not known" */
    if (width > 32) return REFUSE(t, "link_width=\"%ld\" is out of range; a PCI link has up to 32 lanes", width);
    n->gt_per_s = gt;
    n->lanes = (int32_t)width;
    if (gt > 0 || width > 0) n->pci_origin = here(t);
    return RAIL_OK;
}

static enum rail_result on_pci(struct tag *t, uint32_t parent, uint32_t *out)
{
    static const char *const known[] = {"busid", "class", "vendor", "device", "subsystem_vendor", "subsystem_device",
                                        "link_speed", "link_width", NULL};
    const char *bus = get(t, "busid");
    uint32_t node = topo_graph_add(t->r->graph, TOPO_PCI, parent, here(t));
    if (node == TOPO_NONE) return RAIL_E_ARGUMENT;
    struct topo_node *n = node_of(t, node);
    if (!bus) return REFUSE(t, "<pci> without busid; give it one like 0000:17:00.0");
    if (!topo_bus_parse(bus, &n->bus)) return REFUSE(t, "busid=\"%.40s\" is not like 0000:17:00.0", bus);
    RAIL_TRY(get_pci_number(t, "class", &n->class));
    RAIL_TRY(get_pci_number(t, "vendor", &n->vendor));
    RAIL_TRY(get_pci_number(t, "device", &n->device));
    RAIL_TRY(get_pci_number(t, "subsystem_vendor", &n->subsystem_vendor));
    RAIL_TRY(get_pci_number(t, "subsystem_device", &n->subsystem_device));
    RAIL_TRY(read_pci_link(t, n));
    remark_unknown(t, known);
    *out = node;
    return RAIL_OK;
}

static enum rail_result on_gpu(struct tag *t, uint32_t parent, uint32_t *out)
{
    static const char *const known[] = {"dev", "sm", "rank", "gdr", NULL};
    long dev = -1, sm = -1, rank = -1;
    if (node_of(t, parent)->kind != TOPO_PCI)
        return REFUSE(t, "a second device on one <pci>; give each a <pci> of its own");
    topo_graph_become(t->r->graph, parent, TOPO_GPU);
    struct topo_node *n = node_of(t, parent);
    RAIL_TRY(get_int(t, "dev", -1, 1 << 20, &dev));
    RAIL_TRY(get_int(t, "sm", -1, 10000, &sm));
    RAIL_TRY(get_int(t, "rank", -1, INT32_MAX, &rank));
    RAIL_TRY(tri(t, "gdr", &n->gpu.gdr));
    n->gpu.dev = (int32_t)dev;
    n->gpu.sm = (int32_t)sm;
    n->gpu.rank = (int32_t)rank;
    remark_unknown(t, known);
    *out = parent;
    return RAIL_OK;
}

/* A NIC is the PCI device it stands in; directly below a CPU it is one without a place on the bus. */
static enum rail_result on_nic(struct tag *t, uint32_t parent, uint32_t *out)
{
    if (node_of(t, parent)->kind == TOPO_PCI) {
        topo_graph_become(t->r->graph, parent, TOPO_NIC);
        *out = parent;
        return RAIL_OK;
    }
    if (node_of(t, parent)->kind != TOPO_CPU)
        return REFUSE(t, "a second device on one <pci>; give each a <pci> of its own");
    uint32_t node = topo_graph_add(t->r->graph, TOPO_NIC, parent, here(t));
    if (node == TOPO_NONE) return RAIL_E_ARGUMENT;
    *out = node;
    return RAIL_OK;
}

static enum rail_result read_net(struct tag *t, struct topo_node *n)
{
    long dev = -1, port = 1, maxconn = 0, keep = 0;
    RAIL_TRY(get_text(t, "name", n->name, sizeof n->name));
    RAIL_TRY(get_int(t, "dev", -1, 1 << 20, &dev));
    RAIL_TRY(get_int(t, "port", 0, 255, &port));
    RAIL_TRY(get_int(t, "maxconn", -1, INT32_MAX, &maxconn));
    RAIL_TRY(get_int(t, "keep", -1, 1, &keep));
    RAIL_TRY(get_hex(t, "guid", &n->net.guid));
    RAIL_TRY(tri(t, "gdr", &n->net.gdr));
    RAIL_TRY(get_real(t, "latency", 1e6, &n->net.latency_us));
    RAIL_TRY(get_real(t, "speed", 1e8, &n->net.mbit_per_s)); /* 100 Tbit/s: a hundred times today's fastest port */
    n->net.dev = (int32_t)dev;
    n->net.port = (int32_t)port;
    n->net.max_connections = (int32_t)maxconn;
    n->net.keep = keep == 1;
    return RAIL_OK;
}

static enum rail_result on_net(struct tag *t, uint32_t parent, uint32_t *out)
{
    static const char *const known[] = {"name", "dev",     "port",  "maxconn", "keep", "guid",
                                        "gdr",  "latency", "speed", "coll",    NULL};
    if (node_of(t, parent)->kind != TOPO_NIC) RAIL_TRY(on_nic(t, parent, &parent)); /* some leave the <nic> out */
    uint32_t node = topo_graph_add(t->r->graph, TOPO_NET, parent, here(t));
    if (node == TOPO_NONE) return RAIL_E_ARGUMENT;
    RAIL_TRY(read_net(t, node_of(t, node)));
    struct topo_node *n = node_of(t, node);
    if (n->net.mbit_per_s > 0) n->net.rate_origin = here(t);
    else topo_graph_remark(t->r->graph, "port %.40s (line %u) has no speed: 10 Gbit/s is assumed", n->name, t->line);
    if (n->net.gdr != TOPO_MAYBE) n->net.gdr_origin = here(t);
    /* IB devices have a bond of their ports in their name, as the driver gives it. */
    if (strstr(n->name, "bond")) n->net.slaves = 2;
    remark_unknown(t, known);
    *out = node;
    return RAIL_OK;
}

static enum rail_result keep_pending(struct tag *t, struct pending p)
{
    struct reader *r = t->r;
    if (r->n_pending == MOST_PENDING) return REFUSE(t, "more than %d links between devices", MOST_PENDING);
    if (!r->pending) r->pending = calloc(MOST_PENDING, sizeof *r->pending);
    if (!r->pending) return rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's links");
    p.line = t->line;
    r->pending[r->n_pending++] = p;
    return RAIL_OK;
}

static enum rail_result on_nvlink(struct tag *t, uint32_t parent, uint32_t *out)
{
    struct pending p = {.what = PENDING_NVLINK, .from = parent, .count = 1, .target = TOPO_NO_BUS};
    const char *target = get(t, "target");
    RAIL_TRY(get_int(t, "count", 0, 1024, &p.count));
    RAIL_TRY(get_int(t, "tclass", 0, 0xffffff, &p.target_class));
    if (target && !topo_bus_parse(target, &p.target))
        p.target = TOPO_NO_BUS; /* NVSwitches are written as fffffff:ffff:ff */
    *out = parent;
    return p.count > 0 ? keep_pending(t, p) : RAIL_OK;
}

static enum rail_result on_c2c(struct tag *t, uint32_t parent, uint32_t *out)
{
    struct pending p = {.what = PENDING_C2C, .from = parent, .count = 1};
    RAIL_TRY(get_int(t, "count", 0, 1024, &p.count));
    RAIL_TRY(get_real(t, "bw", 1e8, &p.mb_per_s));
    *out = parent;
    return p.count > 0 ? keep_pending(t, p) : RAIL_OK;
}

static enum rail_result on_pcilink(struct tag *t, uint32_t parent, uint32_t *out)
{
    struct pending p = {.what = PENDING_PCILINK, .from = parent};
    const char *target = get(t, "target");
    if (!target || !topo_bus_parse(target, &p.target))
        return REFUSE(t, "target=\"%.40s\" of <pcilink> is not like 0000:17:00.0", target ? target : "");
    *out = parent;
    return keep_pending(t, p);
}

/* Which element may stand where. */
static const struct {
    const char *name;
    enum element is;
    unsigned in; /* bits of enum element */
    enum rail_result (*read)(struct tag *tag, uint32_t parent, uint32_t *node_out);
} elements[] = {
    {"system", IN_SYSTEM, 1u << IN_NOTHING, on_system},
    {"cpu", IN_CPU, 1u << IN_SYSTEM, on_cpu},
    {"pci", IN_PCI, 1u << IN_CPU | 1u << IN_PCI, on_pci},
    {"gpu", IN_GPU, 1u << IN_PCI, on_gpu},
    {"nic", IN_NIC, 1u << IN_CPU | 1u << IN_PCI, on_nic},
    {"net", IN_LEAF, 1u << IN_NIC | 1u << IN_PCI | 1u << IN_CPU, on_net},
    {"nvlink", IN_LEAF, 1u << IN_GPU, on_nvlink},
    {"xgmi", IN_LEAF, 1u << IN_GPU, on_nvlink}, /* AMD's GPUs, in RCCL's files */
    {"c2c", IN_LEAF, 1u << IN_GPU, on_c2c},
    {"pcilink", IN_LEAF, 1u << IN_PCI, on_pcilink},
};
enum { N_ELEMENTS = sizeof elements / sizeof *elements };

static enum rail_result misplaced(const struct tag *t, const char *outer)
{
    if (strcmp(outer, "the file") == 0)
        return REFUSE(t, "<%.40s> at the top; a machine in NCCL's XML begins with <system>", t->name);
    return REFUSE(t, "<%s> may not stand inside of %s", t->name, outer);
}

static const char *element_name(enum element element)
{
    static const char *const names[] = {
        "the file", "<system>", "<cpu>", "<pci>", "<gpu>", "<nic>", "an element that holds none", "an unknown element"};
    return names[element];
}

static enum rail_result on_begin(void *context, const char *name, const char **attributes, uint32_t line)
{
    struct reader *r = context;
    struct tag t = {r, name, attributes, line};
    struct frame outer = r->stack[r->depth], inner = {IN_UNKNOWN, TOPO_NONE};
    int e = 0;
    while (e < N_ELEMENTS && strcmp(elements[e].name, name) != 0) e++;
    if (outer.element == IN_NOTHING && (e == N_ELEMENTS || elements[e].is != IN_SYSTEM))
        return misplaced(&t, "the file");
    if (outer.element == IN_UNKNOWN) {
        /* skipped with all that is in it */
    } else if (e == N_ELEMENTS) {
        topo_graph_remark(r->graph, "element <%.40s> is not known and was skipped with all that is in it", name);
    } else if (!(elements[e].in & 1u << outer.element)) {
        return misplaced(&t, element_name(outer.element));
    } else {
        inner.element = elements[e].is;
        r->pci_depth += inner.element == IN_PCI;
        if (r->pci_depth > TOPO_MAX_DEPTH)
            return REFUSE(&t, "more than %d PCI switches inside one another", TOPO_MAX_DEPTH);
        RAIL_TRY(elements[e].read(&t, outer.node, &inner.node));
    }
    r->stack[++r->depth] = inner;
    return RAIL_OK;
}

static enum rail_result on_end(void *context, const char *name)
{
    struct reader *r = context;
    (void)name;
    r->pci_depth -= r->stack[r->depth].element == IN_PCI;
    r->depth--;
    return RAIL_OK;
}

/* --- links -------------------------------------------------------------------------------------------------------- */

static struct topo_link *link_between(struct topo_graph *graph, enum topo_link_kind kind, uint32_t a, uint32_t b)
{
    for (uint32_t l = 0; l < graph->n_links; l++) {
        struct topo_link *link = &graph->links[l];
        if (link->kind == kind && ((link->a == a && link->b == b) || (link->a == b && link->b == a))) return link;
    }
    return NULL;
}

static enum rail_result add_nvlinks(struct reader *r, const struct pending *p, uint32_t to)
{
    char where[24];
    snprintf(where, sizeof where, "line %u", p->line);
    return nvlink_add(r->graph, p->from, to, (uint32_t)p->count, where);
}

static enum rail_result resolve_nvlink(struct reader *r, const struct pending *p)
{
    struct topo_graph *graph = r->graph;
    uint32_t host = graph->nodes[p->from].host, to = TOPO_NONE;
    struct topo_origin origin = {TOPO_FILE, p->line, r->file};
    if (p->target != TOPO_NO_BUS) to = topo_graph_by_bus(graph, host, p->target);
    if (to == p->from) return refuse(r->file, p->line, "an NVLink from a GPU to itself; name the GPU at its other end");
    if (p->target_class == 0x068001) {
        topo_graph_remark(graph, "line %u: an NVLink between a GPU and a CPU is not known here and was skipped",
                          p->line);
        return RAIL_OK;
    }
    bool to_gpu = to != TOPO_NONE && graph->nodes[to].kind == TOPO_GPU;
    if (to_gpu) return add_nvlinks(r, p, to);
    if (p->target_class >> 16 == 0x03) {
        char bus[24];
        topo_graph_remark(graph,
                          "line %u: the GPU %s at the other end of an NVLink is not in the file; the link was skipped",
                          p->line, topo_bus_text(p->target, bus));
        return RAIL_OK;
    }
    to = nvlink_switch(graph, host, origin);
    return to == TOPO_NONE ? RAIL_E_ARGUMENT : add_nvlinks(r, p, to);
}

static enum rail_result resolve_c2c(struct reader *r, const struct pending *p)
{
    struct topo_link link = {.kind = TOPO_LINK_C2C, .a = p->from, .count = (uint32_t)p->count};
    link.b = topo_graph_above(r->graph, p->from, TOPO_CPU);
    link.rate = (struct topo_rate){p->mb_per_s * (double)p->count / 1000, {TOPO_FILE, p->line, r->file}};
    if (p->mb_per_s <= 0) {
        link.rate = (struct topo_rate){400, {TOPO_ASSUMED, 0, "400 GB/s, as the C2C link's rate is not told"}};
        topo_graph_remark(r->graph, "line %u: a C2C link without a rate: 400 GB/s are assumed", p->line);
    }
    return topo_graph_link(r->graph, link);
}

static enum rail_result resolve_pcilink(struct reader *r, const struct pending *p)
{
    struct topo_graph *graph = r->graph;
    uint32_t to = topo_graph_by_bus(graph, graph->nodes[p->from].host, p->target);
    char bus[24];
    if (to == p->from)
        return refuse(r->file, p->line, "a PCI link from a switch to itself; name the switch at its other end");
    if (to == TOPO_NONE || graph->nodes[to].kind != TOPO_PCI || graph->nodes[p->from].kind != TOPO_PCI) {
        topo_graph_remark(graph, "line %u: no switch %s at the other end of a PCI link; the link was skipped", p->line,
                          topo_bus_text(p->target, bus));
        return RAIL_OK;
    }
    if (link_between(graph, TOPO_LINK_PCI, p->from, to)) return RAIL_OK;
    const struct topo_node *from = &graph->nodes[p->from];
    struct topo_link link = {.kind = TOPO_LINK_PCI, .a = p->from, .b = to,
                             .rate = topo_rate_pci(from->gt_per_s, from->lanes, from->pci_origin)};
    return topo_graph_link(graph, link);
}

/* --- the whole ---------------------------------------------------------------------------------------------------- */

/* 0x030200, or 0x0302 as some write. */
static enum topo_kind kind_by_class(uint32_t class)
{
    uint32_t base = class > 0xffff ? class >> 8 : class;
    if (base == 0x0300 || base == 0x0302 || base == 0x0380 || base == 0x1200) return TOPO_GPU;
    return base == 0x0200 || base == 0x0207 || base == 0x0280 || base == 0x0c06 ? TOPO_NIC : TOPO_PCI;
}

static bool has_child(const struct topo_graph *graph, uint32_t node)
{
    for (uint32_t i = node + 1; i < graph->n_nodes; i++)
        if (graph->nodes[i].parent == node) return true;
    return false;
}

/* Clouds describe places only, <pci> without <gpu> or <nic> in it: then the class says what stands there. */
static enum rail_result name_bare_devices(struct reader *r)
{
    struct topo_graph *graph = r->graph;
    for (uint32_t i = 0, n = graph->n_nodes; i < n; i++) {
        enum topo_kind kind = graph->nodes[i].kind == TOPO_PCI ? kind_by_class(graph->nodes[i].class) : TOPO_PCI;
        char bus[24];
        if (kind == TOPO_PCI || has_child(graph, i)) continue;
        topo_graph_remark(graph,
                          "the file has <pci> without <gpu> or <nic> in it: what stands there was told by its class");
        topo_graph_become(graph, i, kind);
        if (kind == TOPO_GPU) continue;
        uint32_t net = topo_graph_add(graph, TOPO_NET, i, graph->nodes[i].origin);
        if (net == TOPO_NONE) return RAIL_E_ARGUMENT;
        graph->nodes[net].net.bare = true;
        snprintf(graph->nodes[net].name, TOPO_NAME_BYTES, "%s", topo_bus_text(graph->nodes[i].bus, bus));
    }
    return RAIL_OK;
}

static enum rail_result finish(struct reader *r)
{
    RAIL_TRY(name_bare_devices(r));
    for (uint32_t i = 0; i < r->n_pending; i++) {
        const struct pending *p = &r->pending[i];
        RAIL_TRY(p->what == PENDING_NVLINK ? resolve_nvlink(r, p) : p->what == PENDING_C2C ? resolve_c2c(r, p)
                                                                                          : resolve_pcilink(r, p));
    }
    if (r->graph->n_nodes == 0)
        return rail_fail(RAIL_E_ARGUMENT, "%s: no <cpu> in it: this describes no machine", r->file);
    return topo_graph_finish(r->graph);
}

static enum rail_result read_with(const char *path, const char *text, size_t bytes, const char *name,
                                  struct topo_graph **out)
{
    struct reader *r = calloc(1, sizeof *r);
    struct topo_graph *graph = topo_graph_create();
    enum rail_result result = RAIL_E_SYSTEM;
    if (!r || !graph) {
        rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's graph");
        goto undo;
    }
    r->graph = graph;
    r->file = topo_graph_text(graph, name);
    snprintf(graph->source, sizeof graph->source, "NCCL's XML in %.200s", name);
    struct xml_handler handler = {on_begin, on_end, r};
    result = path ? xml_read_file(path, &handler) : xml_read_text(text, bytes, name, &handler);
    if (result == RAIL_OK) result = finish(r);
    if (result == RAIL_OK) *out = graph, graph = NULL;

undo:
    if (r) free(r->pending);
    free(r);
    topo_graph_destroy(graph);
    return result;
}

enum rail_result topo_xml_read_file(const char *path, struct topo_graph **out)
{
    return read_with(path, NULL, 0, path, out);
}

enum rail_result topo_xml_read_text(const char *text, size_t bytes, const char *name, struct topo_graph **out)
{
    return read_with(NULL, text, bytes, name, out);
}
