/* graph.c - building the graph of the machine, and finding one's way in it. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "topo/graph.h"
#include "topo/rates.h"

struct topo_strings {
    struct topo_strings *next;
    char text[];
};

enum { MAX_REMARKS = 64 };

struct topo_graph *topo_graph_create(void) { return calloc(1, sizeof(struct topo_graph)); }

void topo_graph_destroy(struct topo_graph *graph)
{
    if (!graph) return;
    for (struct topo_strings *s = graph->strings, *next; s; s = next) {
        next = s->next;
        free(s);
    }
    for (uint32_t i = 0; i < graph->n_remarks; i++) free(graph->remarks[i]);
    free(graph->remarks);
    free(graph->nodes);
    free(graph->links);
    free(graph->first);
    free(graph->at);
    free(graph);
}

const char *topo_graph_text(struct topo_graph *graph, const char *text)
{
    for (struct topo_strings *s = graph->strings; s; s = s->next)
        if (strcmp(s->text, text) == 0) return s->text;
    size_t bytes = strlen(text) + 1;
    struct topo_strings *s = malloc(sizeof *s + bytes);
    if (!s) return "";
    memcpy(s->text, text, bytes);
    s->next = graph->strings;
    graph->strings = s;
    return s->text;
}

void topo_graph_remark(struct topo_graph *graph, const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int n = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (n < 0) return;
    for (uint32_t i = 0; i < graph->n_remarks; i++)
        if (strcmp(graph->remarks[i], text) == 0) return free(text);
    if (!graph->remarks) graph->remarks = calloc(MAX_REMARKS, sizeof *graph->remarks);
    if (graph->remarks && graph->n_remarks < MAX_REMARKS) graph->remarks[graph->n_remarks++] = text;
    else graph->n_remarks_lost++, free(text);
}

static bool grow(void **array, uint32_t *room, uint32_t n, size_t bytes)
{
    if (n < *room) return true;
    uint32_t more = *room ? 2 * *room : 64;
    void *bigger = realloc(*array, more * bytes);
    if (!bigger) return rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's graph"), false;
    *array = bigger;
    *room = more;
    return true;
}

static void node_reset(struct topo_node *node)
{
    switch (node->kind) {
    case TOPO_CPU: node->cpu = (struct topo_cpu){.numa = -1, .package = -1, .affinity = ""}; break;
    case TOPO_GPU: node->gpu = (struct topo_gpu){.dev = -1, .sm = -1, .rank = -1, .minor = -1, .gdr = TOPO_MAYBE}; break;
    case TOPO_NET:
        node->net = (struct topo_net){.dev = -1, .port = 1, .gdr = TOPO_MAYBE, .up = TOPO_MAYBE};
        break;
    default: break;
    }
}

static const char *place(struct topo_origin origin, char *text, size_t bytes)
{
    if (origin.line) snprintf(text, bytes, "%s:%u", origin.where, origin.line);
    else snprintf(text, bytes, "%s", origin.where ? origin.where : "?");
    return text;
}

static bool too_many(const struct topo_graph *graph, enum topo_kind kind, struct topo_origin origin)
{
    uint32_t n = 0, most = kind == TOPO_CPU ? TOPO_MAX_CPUS : TOPO_MAX_OF_A_KIND;
    for (uint32_t i = 0; i < graph->n_nodes; i++) n += graph->nodes[i].kind == kind;
    char text[TOPO_TEXT_BYTES];
    if (n < most) return false;
    return rail_fail(RAIL_E_ARGUMENT, "%s: more than %u %ss; describe one machine per file",
                     place(origin, text, sizeof text), most, topo_kind_name(kind)),
           true;
}

uint32_t topo_graph_add(struct topo_graph *graph, enum topo_kind kind, uint32_t parent, struct topo_origin origin)
{
    void *nodes = graph->nodes;
    if (too_many(graph, kind, origin)) return TOPO_NONE;
    if (!grow(&nodes, &graph->room_nodes, graph->n_nodes, sizeof *graph->nodes)) return TOPO_NONE;
    graph->nodes = nodes;
    struct topo_node *node = &graph->nodes[graph->n_nodes];
    memset(node, 0, sizeof *node);
    *node = (struct topo_node){.kind = kind, .parent = parent, .bus = TOPO_NO_BUS, .origin = origin,
                               .host = parent == TOPO_NONE ? 0 : graph->nodes[parent].host};
    node_reset(node);
    if (node->host >= graph->n_hosts) graph->n_hosts = node->host + 1;
    return graph->n_nodes++;
}

void topo_graph_become(struct topo_graph *graph, uint32_t node, enum topo_kind kind)
{
    graph->nodes[node].kind = kind;
    node_reset(&graph->nodes[node]);
}

enum rail_result topo_graph_link(struct topo_graph *graph, struct topo_link link)
{
    void *links = graph->links;
    if (graph->n_links >= TOPO_MAX_LINKS)
        return rail_fail(RAIL_E_ARGUMENT, "more than %d links in one machine; describe one machine per file",
                         TOPO_MAX_LINKS);
    if (!grow(&links, &graph->room_links, graph->n_links, sizeof *graph->links)) return RAIL_E_SYSTEM;
    graph->links = links;
    graph->links[graph->n_links++] = link;
    return RAIL_OK;
}

/* --- finishing ---------------------------------------------------------------------------------------------------- */

static enum rail_result link_tree(struct topo_graph *graph)
{
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const struct topo_node *node = &graph->nodes[i];
        struct topo_link link = {.a = i, .b = node->parent};
        if (node->parent == TOPO_NONE) continue;
        if (node->kind == TOPO_NET) {
            link.kind = TOPO_LINK_PORT;
            link.rate = (struct topo_rate){node->net.mbit_per_s / 8000, node->net.rate_origin};
            const struct topo_node *nic = &graph->nodes[node->parent];
            if (node->net.bare)
                link.rate = (struct topo_rate){
                    topo_rate_pci(nic->gt_per_s, nic->lanes, nic->pci_origin).gb_per_s,
                    {TOPO_ASSUMED, 0, "as much as its slot, as nothing is told of the port"}};
            else if (node->net.mbit_per_s <= 0)
                link.rate = (struct topo_rate){1.25, {TOPO_ASSUMED, 0, "10 Gbit/s, as the port's rate is not told"}};
        } else {
            link.kind = TOPO_LINK_PCI;
            link.count = node->lanes > 0 ? (uint32_t)node->lanes : 0;
            link.rate = topo_rate_pci(node->gt_per_s, node->lanes, node->pci_origin);
        }
        RAIL_TRY(topo_graph_link(graph, link));
    }
    return RAIL_OK;
}

static enum rail_result link_cpus(struct topo_graph *graph)
{
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        for (uint32_t k = i + 1; k < graph->n_nodes && graph->nodes[i].kind == TOPO_CPU; k++) {
            if (graph->nodes[k].kind != TOPO_CPU || graph->nodes[k].host != graph->nodes[i].host) continue;
            struct topo_link link = {.kind = TOPO_LINK_SYS, .a = i, .b = k,
                                     .rate = topo_rate_between_cpus(&graph->nodes[i].cpu)};
            RAIL_TRY(topo_graph_link(graph, link));
        }
    return RAIL_OK;
}

static enum rail_result list_links(struct topo_graph *graph)
{
    graph->first = calloc(graph->n_nodes + 2, sizeof *graph->first);
    graph->at = calloc(2 * (size_t)graph->n_links + 1, sizeof *graph->at);
    if (!graph->first || !graph->at) return rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's graph");
    uint32_t *first = graph->first;
    for (uint32_t l = 0; l < graph->n_links; l++) first[graph->links[l].a + 2]++, first[graph->links[l].b + 2]++;
    for (uint32_t i = 2; i < graph->n_nodes + 2; i++) first[i] += first[i - 1];
    for (uint32_t l = 0; l < graph->n_links; l++) {
        graph->at[first[graph->links[l].a + 1]++] = l;
        graph->at[first[graph->links[l].b + 1]++] = l;
    }
    return RAIL_OK;
}

/* Order of numbers: by what the driver says, then by bus, then as they came. */
static bool before(const struct topo_node *a, const struct topo_node *b)
{
    int32_t x = -1, y = -1;
    if (a->kind == TOPO_GPU) x = a->gpu.dev, y = b->gpu.dev;
    if (a->kind == TOPO_NET) x = a->net.dev, y = b->net.dev;
    if (a->kind == TOPO_CPU) x = a->cpu.numa, y = b->cpu.numa;
    if (x >= 0 && y >= 0 && x != y) return x < y;
    return a->bus < b->bus;
}

static void number_nodes(struct topo_graph *graph)
{
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        struct topo_node *node = &graph->nodes[i];
        node->number = 0;
        for (uint32_t k = 0; k < graph->n_nodes; k++) {
            const struct topo_node *other = &graph->nodes[k];
            if (k == i || other->kind != node->kind || other->host != node->host) continue;
            node->number += before(other, node) || (k < i && !before(node, other));
        }
    }
}

/* Ports without a driver's number and without a bus would keep the order of the file; a NIC's port has its NIC's bus.
 */
static void give_ports_their_bus(struct topo_graph *graph)
{
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i].kind == TOPO_NET && graph->nodes[i].bus == TOPO_NO_BUS)
            graph->nodes[i].bus = graph->nodes[graph->nodes[i].parent].bus;
}

static void name_nodes(struct topo_graph *graph)
{
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        struct topo_node *node = &graph->nodes[i];
        char bus[24];
        if (node->kind == TOPO_GPU) snprintf(node->name, sizeof node->name, "GPU %u", node->number);
        if (node->name[0]) continue;
        if (node->kind == TOPO_CPU)
            snprintf(node->name, sizeof node->name, "NUMA %d",
                     node->cpu.numa >= 0 ? node->cpu.numa : (int)node->number);
        else if (node->kind == TOPO_NVS) snprintf(node->name, sizeof node->name, "NVSwitch");
        else if (node->bus != TOPO_NO_BUS) snprintf(node->name, sizeof node->name, "%s", topo_bus_text(node->bus, bus));
        else snprintf(node->name, sizeof node->name, "%s %u", topo_kind_name(node->kind), node->number);
    }
}

static bool same_twice(const struct topo_node *a, const struct topo_node *b)
{
    if (a->host != b->host || a->kind != b->kind) return false;
    switch (a->kind) {
    case TOPO_GPU: return a->gpu.dev >= 0 && a->gpu.dev == b->gpu.dev;
    case TOPO_CPU: return a->cpu.numa >= 0 && a->cpu.numa == b->cpu.numa;
    case TOPO_NET: return a->net.dev >= 0 && a->net.dev == b->net.dev && strcmp(a->name, b->name) == 0 &&
                          a->net.port == b->net.port;
    default: return false;
    }
}

static enum rail_result look_for_contradictions(const struct topo_graph *graph)
{
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        for (uint32_t k = 0; k < i; k++) {
            const struct topo_node *a = &graph->nodes[k], *b = &graph->nodes[i];
            bool bus = a->host == b->host && a->bus != TOPO_NO_BUS && a->bus == b->bus && a->kind != TOPO_NET &&
                       b->kind != TOPO_NET;
            if (!bus && !same_twice(a, b)) continue;
            char first[TOPO_TEXT_BYTES], second[TOPO_TEXT_BYTES], name[24];
            place(a->origin, first, sizeof first);
            place(b->origin, second, sizeof second);
            if (bus)
                return rail_fail(RAIL_E_ARGUMENT,
                                 "%s: bus %s was already given to another device at %s; every device has "
                                 "a bus number of its own",
                                 second, topo_bus_text(b->bus, name), first);
            return rail_fail(RAIL_E_ARGUMENT,
                             "%s: this %s has the same number as the one at %s; number them differently "
                             "or remove one",
                             second, topo_kind_name(b->kind), first);
        }
    return RAIL_OK;
}

/* A machine whose GPUs and NICs all hang on host bridges has either very few of them or hides its switches. */
static void judge_flatness(struct topo_graph *graph)
{
    uint32_t devices = 0, below = 0, told = 0;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const struct topo_node *node = &graph->nodes[i];
        if (node->kind == TOPO_PCI) return;
        if (node->kind != TOPO_GPU && node->kind != TOPO_NIC) continue;
        devices++;
        told += node->gt_per_s > 0 && node->lanes > 0;
        below += node->parent != TOPO_NONE && node->bus != TOPO_NO_BUS;
    }
    graph->flat = devices >= 2 && below == devices && told < devices;
}

enum rail_result topo_graph_finish(struct topo_graph *graph)
{
    if (graph->n_hosts == 0) graph->n_hosts = 1;
    RAIL_TRY(look_for_contradictions(graph));
    give_ports_their_bus(graph);
    number_nodes(graph);
    name_nodes(graph);
    judge_flatness(graph);
    RAIL_TRY(link_tree(graph));
    RAIL_TRY(link_cpus(graph));
    return list_links(graph);
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

uint32_t topo_graph_by_bus(const struct topo_graph *graph, uint32_t host, uint64_t bus)
{
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i].host == host && graph->nodes[i].bus == bus && graph->nodes[i].kind != TOPO_NET) return i;
    return TOPO_NONE;
}

uint32_t topo_graph_above(const struct topo_graph *graph, uint32_t node, enum topo_kind kind)
{
    while (node != TOPO_NONE && graph->nodes[node].kind != kind) node = graph->nodes[node].parent;
    return node;
}

uint32_t topo_graph_of_kind(const struct topo_graph *graph, uint32_t host, enum topo_kind kind, uint32_t *out,
                            uint32_t max)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        if (graph->nodes[i].kind != kind || graph->nodes[i].host != host) continue;
        if (graph->nodes[i].number < max) out[graph->nodes[i].number] = i;
        n++;
    }
    return n;
}

const struct topo_link *topo_graph_up(const struct topo_graph *graph, uint32_t node)
{
    for (uint32_t k = graph->first[node]; k < graph->first[node + 1]; k++) {
        const struct topo_link *link = &graph->links[graph->at[k]];
        bool tree = link->kind == TOPO_LINK_PCI || link->kind == TOPO_LINK_PORT;
        if (tree && link->a == node && link->b == graph->nodes[node].parent) return link;
    }
    return NULL;
}

const char *topo_bus_text(uint64_t bus, char *text)
{
    if (bus == TOPO_NO_BUS) strcpy(text, "-");
    else snprintf(text, 24, "%04x:%02x:%02x.%x", (unsigned)(bus >> 24), (unsigned)(bus >> 16 & 0xff),
                  (unsigned)(bus >> 8 & 0xff), (unsigned)(bus & 0xff));
    return text;
}

bool topo_bus_parse(const char *text, uint64_t *out)
{
    unsigned domain = 0, bus, device, function;
    int used = 0;
    if (strlen(text) > 20 || strspn(text, "0123456789abcdefABCDEF:.") != strlen(text)) return false;
    bool full = sscanf(text, "%8x:%2x:%2x.%1x%n", &domain, &bus, &device, &function, &used) == 4 && text[used] == '\0';
    if (!full) {
        domain = 0;
        if (sscanf(text, "%2x:%2x.%1x%n", &bus, &device, &function, &used) != 3 || text[used] != '\0') return false;
    }
    if (device > 0x1f || function > 7) return false;
    *out = (uint64_t)domain << 24 | bus << 16 | device << 8 | function;
    return true;
}

const char *topo_origin_text(struct topo_origin origin, char *text, size_t bytes)
{
    char at[TOPO_TEXT_BYTES];
    place(origin, at, sizeof at);
    switch (origin.how) {
    case TOPO_UNKNOWN: snprintf(text, bytes, "not told"); break;
    case TOPO_TABLE: snprintf(text, bytes, "known figure: %s", at); break;
    case TOPO_ASSUMED: snprintf(text, bytes, "assumed: %s", at); break;
    case TOPO_HWLOC: snprintf(text, bytes, "hwloc: %s", at); break;
    case TOPO_NVML: snprintf(text, bytes, "NVML: %s", at); break;
    default: snprintf(text, bytes, "%s", at); break;
    }
    return text;
}

const char *topo_how_name(enum topo_how how)
{
    static const char *const names[] = {"unknown", "file", "sysfs", "hwloc", "nvml", "kernel", "table", "assumed"};
    return names[how];
}

const char *topo_gid_text(const struct topo_gid *gid, char *text)
{
    static const char *const names[] = {"IB", "RoCE v1", "RoCE v2"};
    char address[INET6_ADDRSTRLEN] = "?";
    inet_ntop(AF_INET6, gid->raw, address, sizeof address);
    snprintf(text, 64, "%s %s", names[gid->type <= TOPO_GID_ROCE_2 ? gid->type : 0], address);
    return text;
}

const struct topo_gid *topo_gid_routable(const struct topo_net *net)
{
    const struct topo_gid *routed = NULL;
    for (uint32_t i = 0; i < net->n_gids && i < TOPO_GIDS_KEPT; i++) {
        const struct in6_addr *address = (const void *)net->gids[i].raw;
        if (net->gids[i].type != TOPO_GID_ROCE_2) continue;
        if (IN6_IS_ADDR_V4MAPPED(address)) return &net->gids[i];
        if (!routed && !IN6_IS_ADDR_LINKLOCAL(address)) routed = &net->gids[i];
    }
    return routed;
}

const char *topo_kind_name(enum topo_kind kind)
{
    static const char *const names[] = {"NUMA node", "PCI switch", "GPU", "NIC", "port", "NVSwitch"};
    return kind < TOPO_KINDS ? names[kind] : "?";
}

const char *topo_link_name(enum topo_link_kind kind)
{
    static const char *const names[] = {"NVLink", "C2C", "PCIe", "SYS", "port"};
    return names[kind];
}
