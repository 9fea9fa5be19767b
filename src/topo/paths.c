/* paths.c - the nearest, then widest path.
 *
 * "Nearest class first, widest second" is no order that a single search can follow: a path that is wider so far may
 * have to be left for a nearer one. So there is one search for the widest path per class, over the links that the class
 * admits, from near to far; the first that reaches a node has its class. */
#include <math.h> /* INFINITY */
#include <stdlib.h>
#include <string.h>

#include "topo/paths.h"

/* fmin() would make libm a dependency of the library. */
static double lesser(double a, double b) { return a < b ? a : b; }

struct label {
    double width;
    uint32_t hops, link, from; /* how one got here */
    bool done;
};

struct search {
    const struct topo_graph *graph;
    uint32_t source;
    enum topo_class class;
    struct label *labels;
    uint32_t *heap, n_heap, room; /* nodes, some of them outdated; the widest on top */
    double *heap_width;
};

static bool is_cpu(const struct search *s, uint32_t node) { return s->graph->nodes[node].kind == TOPO_CPU; }
static bool is_switch(const struct search *s, uint32_t node) { return s->graph->nodes[node].kind == TOPO_PCI; }

/* GPUs are passed through for NVB alone: from a GPU over NVLink, on to a GPU over NVLink. */
static bool through_gpu(const struct search *s, uint32_t u, const struct topo_link *link, uint32_t v)
{
    const struct label *label = &s->labels[u];
    const struct topo_node *nodes = s->graph->nodes;
    return s->class >= PATH_NVB && label->hops == 1 && nodes[s->source].kind == TOPO_GPU && nodes[v].kind == TOPO_GPU &&
           link->kind == TOPO_LINK_NVL && s->graph->links[label->link].kind == TOPO_LINK_NVL;
}

/* Through a CPU for less than PHB: C2C to C2C, and between C2C and PCI. */
static bool through_cpu(const struct search *s, uint32_t u, const struct topo_link *link)
{
    if (s->class >= PATH_PHB) return true;
    bool came_c2c = s->graph->links[s->labels[u].link].kind == TOPO_LINK_C2C, goes_c2c = link->kind == TOPO_LINK_C2C;
    return (came_c2c && goes_c2c) || (s->class >= PATH_P2C && (came_c2c || goes_c2c));
}

static bool has_c2c(const struct search *s, uint32_t node)
{
    for (uint32_t k = s->graph->first[node]; k < s->graph->first[node + 1]; k++)
        if (s->graph->links[s->graph->at[k]].kind == TOPO_LINK_C2C) return true;
    return false;
}

static bool pci_admitted(const struct search *s, uint32_t u, uint32_t v)
{
    if (is_switch(s, u) && is_switch(s, v)) return s->class >= PATH_PXB;
    if (!is_cpu(s, u) && !is_cpu(s, v)) return s->class >= PATH_PIX;
    if (s->class >= PATH_PHB) return true;
    /* P2C: one end has C2C, and the other, which has none, climbs to its CPU over PCI. */
    return s->class >= PATH_P2C && (is_cpu(s, u) || !has_c2c(s, s->source));
}

/* May one go on from u to v over this link? */
static bool admitted(const struct search *s, uint32_t u, const struct topo_link *link, uint32_t v)
{
    if (u != s->source) {
        switch (s->graph->nodes[u].kind) {
        case TOPO_GPU: if (!through_gpu(s, u, link, v)) return false; break;
        case TOPO_NVS: if (link->kind != TOPO_LINK_NVL) return false; break;
        case TOPO_CPU: if (!through_cpu(s, u, link)) return false; break;
        case TOPO_NIC:
            if (link->kind != TOPO_LINK_PORT && s->graph->links[s->labels[u].link].kind != TOPO_LINK_PORT) return false;
            break;
        case TOPO_NET: return false;
        default: break;
        }
    }
    switch (link->kind) {
    case TOPO_LINK_PORT: return true;
    case TOPO_LINK_NVL: return s->class >= PATH_NVL;
    case TOPO_LINK_C2C: return s->class >= PATH_C2C;
    case TOPO_LINK_PCI: return pci_admitted(s, u, v);
    case TOPO_LINK_SYS: return s->class >= PATH_SYS;
    }
    return false;
}

/* --- a heap with outdated entries --------------------------------------------------------------------------------- */

static void swap(struct search *s, uint32_t i, uint32_t k)
{
    uint32_t node = s->heap[i];
    double width = s->heap_width[i];
    s->heap[i] = s->heap[k], s->heap_width[i] = s->heap_width[k];
    s->heap[k] = node, s->heap_width[k] = width;
}

static bool above(const struct search *s, uint32_t i, uint32_t k)
{
    if (s->heap_width[i] != s->heap_width[k]) return s->heap_width[i] > s->heap_width[k];
    return s->labels[s->heap[i]].hops < s->labels[s->heap[k]].hops;
}

static void push(struct search *s, uint32_t node)
{
    uint32_t i = s->n_heap++;
    s->heap[i] = node;
    s->heap_width[i] = s->labels[node].width;
    for (; i > 0 && above(s, i, (i - 1) / 2); i = (i - 1) / 2) swap(s, i, (i - 1) / 2);
}

static uint32_t pop(struct search *s)
{
    uint32_t node = s->heap[0];
    swap(s, 0, --s->n_heap);
    for (uint32_t i = 0;;) {
        uint32_t best = i;
        for (uint32_t child = 2 * i + 1; child <= 2 * i + 2 && child < s->n_heap; child++)
            if (above(s, child, best)) best = child;
        if (best == i) return node;
        swap(s, i, best);
        i = best;
    }
}

/* --- searching ---------------------------------------------------------------------------------------------------- */

static void relax(struct search *s, uint32_t u, uint32_t l)
{
    const struct topo_link *link = &s->graph->links[l];
    uint32_t v = link->a == u ? link->b : link->a;
    struct label *to = &s->labels[v];
    if (to->done || !admitted(s, u, link, v)) return;
    double width = lesser(s->labels[u].width, link->rate.gb_per_s);
    uint32_t hops = s->labels[u].hops + 1;
    if (to->hops && (to->width > width || (to->width == width && to->hops <= hops))) return;
    *to = (struct label){.width = width, .hops = hops, .link = l, .from = u};
    push(s, v);
}

static void run(struct search *s)
{
    memset(s->labels, 0, s->graph->n_nodes * sizeof *s->labels);
    s->labels[s->source].width = INFINITY;
    s->n_heap = 0;
    push(s, s->source);
    while (s->n_heap) {
        uint32_t u = pop(s);
        if (s->labels[u].done) continue;
        s->labels[u].done = true;
        for (uint32_t k = s->graph->first[u]; k < s->graph->first[u + 1]; k++) relax(s, u, s->graph->at[k]);
    }
}

static enum rail_result open_search(struct search *s, const struct topo_graph *graph, uint32_t source)
{
    /* A node is pushed at most once per link that leads to it. */
    uint32_t room = 2 * graph->n_links + 2;
    *s = (struct search){.graph = graph, .source = source, .labels = calloc(graph->n_nodes, sizeof *s->labels),
                         .heap = calloc(room, sizeof *s->heap), .heap_width = calloc(room, sizeof *s->heap_width)};
    if (s->labels && s->heap && s->heap_width) return RAIL_OK;
    return rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's paths");
}

static void close_search(struct search *s)
{
    free(s->labels);
    free(s->heap);
    free(s->heap_width);
}

static uint32_t neck_of(const struct search *s, uint32_t node)
{
    for (uint32_t at = node; at != s->source; at = s->labels[at].from)
        if (s->graph->links[s->labels[at].link].rate.gb_per_s <= s->labels[node].width) return s->labels[at].link;
    return TOPO_NONE;
}

static bool has_port(const struct topo_graph *graph, uint32_t host)
{
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i].kind == TOPO_NET && graph->nodes[i].host == host) return true;
    return false;
}

enum rail_result topo_paths_from(const struct topo_graph *graph, uint32_t from, struct topo_path *out)
{
    struct search s;
    enum rail_result result = open_search(&s, graph, from);
    bool networked = has_port(graph, graph->nodes[from].host);
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        bool net = graph->nodes[i].host != graph->nodes[from].host && networked &&
                   has_port(graph, graph->nodes[i].host);
        out[i] = (struct topo_path){net ? PATH_NET : PATH_DIS, 0, 0, TOPO_NONE, TOPO_NONE};
    }
    for (s.class = PATH_LOC; result == RAIL_OK && s.class <= PATH_SYS; s.class++) {
        if (s.class == PATH_PXN) continue;
        run(&s);
        for (uint32_t i = 0; i < graph->n_nodes; i++) {
            if (!s.labels[i].done || out[i].class < PATH_NET) continue;
            double width = i == from ? 0 : s.labels[i].width;
            out[i] = (struct topo_path){s.class, width, s.labels[i].hops, neck_of(&s, i), TOPO_NONE};
        }
    }
    close_search(&s);
    return result;
}

enum rail_result topo_path(const struct topo_graph *graph, uint32_t from, uint32_t to, struct topo_path *out)
{
    struct topo_path *all = calloc(graph->n_nodes, sizeof *all);
    if (!all) return rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's paths");
    enum rail_result result = topo_paths_from(graph, from, all);
    if (result == RAIL_OK) *out = all[to];
    free(all);
    return result;
}

enum rail_result topo_path_pxn(const struct topo_graph *graph, uint32_t gpu, uint32_t net, struct topo_path *out)
{
    struct topo_path *all = calloc(2 * (size_t)graph->n_nodes, sizeof *all), best;
    if (!all) return rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's paths");
    struct topo_path *back = all + graph->n_nodes;
    enum rail_result result = topo_paths_from(graph, gpu, all);
    if (result == RAIL_OK) result = topo_paths_from(graph, net, back);
    best = all[net];
    for (uint32_t i = 0; result == RAIL_OK && i < graph->n_nodes; i++) {
        if (i == gpu || graph->nodes[i].kind != TOPO_GPU || all[i].class > PATH_NVL || back[i].class > PATH_P2C)
            continue;
        double width = lesser(all[i].gb_per_s, back[i].gb_per_s);
        if (best.class < PATH_PXN || (best.class == PATH_PXN && best.gb_per_s >= width)) continue;
        bool first = all[i].gb_per_s <= back[i].gb_per_s;
        best = (struct topo_path){PATH_PXN, width, all[i].hops + back[i].hops, first ? all[i].neck : back[i].neck, i};
    }
    free(all);
    if (result == RAIL_OK) *out = best;
    return result;
}

uint32_t topo_path_route(const struct topo_graph *graph, uint32_t from, uint32_t to, uint32_t *out, uint32_t max)
{
    struct search s;
    struct topo_path path;
    uint32_t n = 0;
    if (topo_path(graph, from, to, &path) != RAIL_OK || path.class > PATH_SYS) return 0;
    if (open_search(&s, graph, from) == RAIL_OK) {
        s.class = path.class;
        run(&s);
        n = s.labels[to].hops + 1;
        for (uint32_t at = to, i = n; i-- > 0; at = s.labels[at].from)
            if (i < max) out[i] = at;
    }
    close_search(&s);
    return n;
}

bool topo_path_nearer(const struct topo_path *a, const struct topo_path *b)
{
    if (a->class != b->class) return a->class < b->class;
    return a->gb_per_s > b->gb_per_s * 1.1;
}

const char *topo_class_name(enum topo_class class)
{
    static const char *const names[] = {"LOC", "NVL", "NVB", "C2C", "PIX", "PXB",
                                        "P2C", "PXN", "PHB", "SYS", "NET", "DIS"};
    return names[class];
}

const char *topo_class_text(enum topo_class class)
{
    static const char *const texts[] = {
        "the same device",
        "NVLink between them",
        "two NVLinks through another GPU",
        "a coherent link of the CPU",
        "at most one PCI switch between them",
        "PCI switches and no host bridge between them",
        "the CPU's coherent link, then PCI",
        "NVLink to a GPU beside it",
        "the host bridge of one NUMA node between them",
        "another NUMA node's",
        "over the network",
        "no way between them",
    };
    return texts[class];
}
