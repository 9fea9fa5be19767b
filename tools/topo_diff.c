/* topo_diff.c - what differs between two machines: each becomes a list of named facts, the lists are merged by name. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "topo.h"

struct fact { char name[96], value[TOPO_TEXT_BYTES]; };
struct facts { struct fact *at; uint32_t n, room; bool failed; };

__attribute__((format(printf, 3, 4))) static void put(struct facts *f, const char *name, const char *format, ...)
{
    if (f->n == f->room) {
        uint32_t room = f->room ? 2 * f->room : 64;
        void *bigger = realloc(f->at, room * sizeof *f->at);
        if (!bigger) { f->failed = true; return; }
        f->at = bigger;
        f->room = room;
    }
    struct fact *new = &f->at[f->n++];
    va_list arguments;
    va_start(arguments, format);
    snprintf(new->name, sizeof new->name, "%s", name);
    vsnprintf(new->value, sizeof new->value, format, arguments);
    va_end(arguments);
}

static void add_counts(struct facts *f, const struct topo_view *v)
{
    for (int kind = 0; kind < TOPO_KINDS; kind++) {
        char name[96];
        snprintf(name, sizeof name, "number of %ss", topo_kind_name((enum topo_kind)kind));
        put(f, name, "%u", topo_graph_of_kind(v->graph, 0, (enum topo_kind)kind, NULL, 0));
    }
}

static void add_gpus(struct facts *f, const struct topo_view *v)
{
    for (uint32_t i = 0; i < v->maps[0].n_bindings; i++) {
        const struct topo_binding *b = &v->maps[0].bindings[i];
        char name[96], bus[24];
        snprintf(name, sizeof name, "%s", v->graph->nodes[b->gpu].name);
        if (!b->first)
            snprintf(name, sizeof name, "%.20s, further port %.50s", v->graph->nodes[b->gpu].name,
                     v->graph->nodes[b->net].name);
        put(f, name, "%s -> %s, rail %u, %s %.1f GB/s, %s", topo_bus_text(v->graph->nodes[b->gpu].bus, bus),
            v->graph->nodes[b->net].name, b->rail, topo_class_name(b->pxn.class), b->pxn.gb_per_s,
            b->direct ? "GPUDirect" : "no GPUDirect");
    }
}

static void add_rails(struct facts *f, const struct topo_view *v)
{
    for (uint32_t i = 0; i < v->maps[0].n_rails; i++) {
        const struct topo_rail *r = &v->maps[0].rails[i];
        const struct topo_node *n = &v->graph->nodes[r->net];
        char name[96], bus[24];
        snprintf(name, sizeof name, "rail %u", r->number);
        put(f, name, "%s %s, %g Gbit/s, MTU %d", n->name, topo_bus_text(n->bus, bus), n->net.mbit_per_s / 1000,
            n->net.mtu);
    }
}

static void add_pci(struct facts *f, const struct topo_view *v)
{
    for (uint32_t i = 0; i < v->graph->n_nodes; i++) {
        const struct topo_node *n = &v->graph->nodes[i];
        char name[96], bus[24];
        if (n->host != 0 || n->bus == TOPO_NO_BUS || n->kind == TOPO_NET) continue;
        snprintf(name, sizeof name, "PCI link of %s", topo_bus_text(n->bus, bus));
        put(f, name, "%g GT/s x %d", n->gt_per_s, n->lanes);
    }
}

static void add_findings(struct facts *f, const struct topo_view *v)
{
    for (uint32_t i = 0; i < v->findings[0].n; i++) {
        char name[96];
        snprintf(name, sizeof name, "%s: %.80s", topo_weight_name(v->findings[0].at[i].weight),
                 v->findings[0].at[i].text);
        put(f, name, "%s", v->findings[0].at[i].text);
    }
}

static const struct fact *find(const struct facts *f, const char *name)
{
    for (uint32_t i = 0; i < f->n; i++)
        if (strcmp(f->at[i].name, name) == 0) return &f->at[i];
    return NULL;
}

static struct facts collect(const struct topo_view *v)
{
    struct facts f = {0};
    add_counts(&f, v);
    add_gpus(&f, v);
    add_rails(&f, v);
    add_pci(&f, v);
    add_findings(&f, v);
    return f;
}

int topo_compare(const struct topo_view *a, const struct topo_view *b, FILE *out)
{
    struct facts x = collect(a), y = collect(b);
    uint32_t differ = 0;
    int status = x.failed || y.failed ? (fprintf(stderr, "railccl topo: out of memory\n"), 2) : 0;
    for (uint32_t i = 0; i < x.n && !status; i++) {
        const struct fact *other = find(&y, x.at[i].name);
        if (other && strcmp(other->value, x.at[i].value) == 0) continue;
        fprintf(out, "%s\n  %s: %s\n  %s: %s\n", x.at[i].name, a->title, x.at[i].value, b->title,
                other ? other->value : "(not there)");
        differ++;
    }
    for (uint32_t i = 0; i < y.n && !status; i++) {
        if (find(&x, y.at[i].name)) continue;
        fprintf(out, "%s\n  %s: (not there)\n  %s: %s\n", y.at[i].name, a->title, b->title, y.at[i].value);
        differ++;
    }
    if (!status && differ) fprintf(out, "%u of %u facts differ\n", differ, x.n);
    else if (!status) fprintf(out, "alike: %u facts compared\n", x.n);
    free(x.at);
    free(y.at);
    return status ? status : differ > 0;
}
