/* print.c - a machine as text. */
#include <stdlib.h>
#include <string.h>

#include "topo/print.h"

static uint32_t count(const struct topo_graph *graph, uint32_t host, enum topo_kind kind)
{
    return topo_graph_of_kind(graph, host, kind, NULL, 0);
}

static const char *plural(uint32_t n) { return n == 1 ? "" : "s"; }

/* --- the answer --------------------------------------------------------------------------------------------------- */

static void print_summary(const struct topo_graph *g, uint32_t host, FILE *out)
{
    uint32_t cpus = count(g, host, TOPO_CPU), switches = count(g, host, TOPO_PCI), gpus = count(g, host, TOPO_GPU);
    uint32_t nics = count(g, host, TOPO_NIC), ports = count(g, host, TOPO_NET);
    fprintf(out, "%u NUMA node%s, %u PCI switch%s, %u GPU%s, %u NIC%s with %u port%s%s\n", cpus, plural(cpus), switches,
            switches == 1 ? "" : "es", gpus, plural(gpus), nics, plural(nics), ports, plural(ports),
            count(g, host, TOPO_NVS) ? ", NVSwitch" : "");
}

static void print_binding(const struct topo_graph *g, const struct topo_binding *b, FILE *out)
{
    char bus[24], way[96] = "by host";
    const struct topo_path *path = &b->pxn;
    if (path->class == PATH_PXN) snprintf(way, sizeof way, "by %s", g->nodes[path->via].name);
    else if (b->direct) strcpy(way, "GPUDirect");
    fprintf(out, "  %-7s %-13s %-12s rail %-3u %s %6.1f GB/s  %-9s %s\n", b->first ? g->nodes[b->gpu].name : "  and",
            b->first ? topo_bus_text(g->nodes[b->gpu].bus, bus) : "", g->nodes[b->net].name, b->rail,
            topo_class_name(path->class), path->gb_per_s, way, b->why);
}

static void print_rail(const struct topo_graph *g, const struct topo_map *map, const struct topo_rail *rail, FILE *out)
{
    const struct topo_node *net = &g->nodes[rail->net];
    uint32_t cpu = topo_graph_above(g, rail->net, TOPO_CPU);
    char bus[24];
    fprintf(out, "  rail %-3u %-12s %-13s", rail->number, net->name, topo_bus_text(net->bus, bus));
    if (net->net.mbit_per_s > 0) fprintf(out, " %6g Gbit/s", net->net.mbit_per_s / 1000);
    else fprintf(out, " unknown rate");
    if (cpu != TOPO_NONE) fprintf(out, "  %s", g->nodes[cpu].name);
    if (net->net.slaves > 1) fprintf(out, "  bond of %d ports", net->net.slaves);
    if (net->net.address[0]) fprintf(out, "  %s", net->net.address);
    for (uint32_t i = 0, first = 1; i < map->n_bindings; i++)
        if (map->bindings[i].net == rail->net)
            fprintf(out, "%s%s", first ? "  for " : ", ", g->nodes[map->bindings[i].gpu].name), first = 0;
    fputc('\n', out);
}

void topo_print_answer(const struct topo_graph *graph, uint32_t host, const struct topo_map *map,
                       const struct topo_findings *findings, FILE *out)
{
    print_summary(graph, host, out);
    if (map->n_bindings) fprintf(out, "\nGPU -> NIC -> rail\n");
    for (uint32_t i = 0; i < map->n_bindings; i++) print_binding(graph, &map->bindings[i], out);
    if (map->n_rails) fprintf(out, "\nrails, numbered %s\n", map->how);
    for (uint32_t i = 0; i < map->n_rails; i++) print_rail(graph, map, &map->rails[i], out);
    fprintf(out, "\nwhat is wrong\n");
    if (findings->n == 0) fprintf(out, "  nothing was found\n");
    for (uint32_t i = 0; i < findings->n; i++)
        fprintf(out, "  %-5s  %s\n", topo_weight_name(findings->at[i].weight), findings->at[i].text);
}

/* --- facts -------------------------------------------------------------------------------------------------------- */

static void from(struct topo_origin origin, FILE *out)
{
    char text[TOPO_TEXT_BYTES + 64];
    fprintf(out, "  [%s]\n", topo_origin_text(origin, text, sizeof text));
}

static void indent(int depth, FILE *out) { fprintf(out, "%*s", 2 * depth + 2, ""); }

static const char *tri_text(enum topo_tri tri) { return tri == TOPO_YES ? "yes" : tri == TOPO_NO ? "no" : "not told"; }

static void print_net_facts(const struct topo_node *n, int depth, FILE *out)
{
    if (n->net.mbit_per_s > 0)
        indent(depth, out), fprintf(out, "rate %g Gbit/s", n->net.mbit_per_s / 1000), from(n->net.rate_origin, out);
    if (n->net.mtu > 0) indent(depth, out), fprintf(out, "MTU %d bytes", n->net.mtu), from(n->net.mtu_origin, out);
    if (n->net.address[0]) indent(depth, out), fprintf(out, "address %s", n->net.address);
    if (n->net.address[0] && n->net.leaves_by[0]) fprintf(out, ", to whose subnet the kernel sends by %s", n->net.leaves_by);
    if (n->net.address[0]) fputs("  [the kernel]\n", out);
    if (n->net.verbs_mtu > 0)
        indent(depth, out), fprintf(out, "RDMA MTU %d bytes", n->net.verbs_mtu), from(n->net.verbs_mtu_origin, out);
    for (uint32_t i = 0; i < n->net.n_gids && i < TOPO_GIDS_KEPT; i++) {
        char gid[64];
        indent(depth, out), fprintf(out, "GID %u %s", n->net.gids[i].index, topo_gid_text(&n->net.gids[i], gid));
        from(n->net.gids_origin, out);
    }
    if (n->net.n_gids > TOPO_GIDS_KEPT)
        indent(depth, out), fprintf(out, "... and %u GIDs more\n", n->net.n_gids - TOPO_GIDS_KEPT);
    if (n->net.gdr != TOPO_MAYBE)
        indent(depth, out), fprintf(out, "reaches GPU memory: %s", tri_text(n->net.gdr)), from(n->net.gdr_origin, out);
}

static void print_link(const struct topo_graph *g, const struct topo_link *link, uint32_t node, int depth, FILE *out)
{
    uint32_t to = link->a == node ? link->b : link->a;
    indent(depth, out);
    fprintf(out, "%s to %s", topo_link_name(link->kind), g->nodes[to].name);
    if (link->count) fprintf(out, " x %u", link->count);
    fprintf(out, ", %.1f GB/s", link->rate.gb_per_s);
    from(link->rate.origin, out);
}

static void describe(const struct topo_node *n, FILE *out)
{
    char bus[24];
    fprintf(out, "%s %s", topo_kind_name(n->kind), n->name);
    if (n->kind != TOPO_NET && n->bus != TOPO_NO_BUS && strcmp(topo_bus_text(n->bus, bus), n->name) != 0)
        fprintf(out, " %s", topo_bus_text(n->bus, bus));
    if (n->kind == TOPO_CPU && n->cpu.package >= 0) fprintf(out, ", package %d", n->cpu.package);
    if (n->kind == TOPO_CPU && n->cpu.vendor[0]) fprintf(out, ", %s", n->cpu.vendor);
    if (n->kind == TOPO_CPU && n->cpu.affinity[0]) fprintf(out, ", cores %s", n->cpu.affinity);
    if (n->kind == TOPO_GPU && n->gpu.sm >= 0)
        fprintf(out, ", compute capability %d.%d", n->gpu.sm / 10, n->gpu.sm % 10);
    if (n->kind == TOPO_GPU && n->gpu.minor >= 0) fprintf(out, ", /dev/nvidia%d", n->gpu.minor);
    if (n->kind == TOPO_NET && n->net.verbs && n->net.type != TOPO_NET_UNKNOWN)
        fprintf(out, ", %s", n->net.type == TOPO_NET_INFINIBAND ? "InfiniBand" : "RoCE");
    if (n->kind == TOPO_NET && n->net.guid && n->net.verbs)
        fprintf(out, ", GUID %016llx", (unsigned long long)n->net.guid);
    if (n->kind == TOPO_NET && n->net.netdev[0]) fprintf(out, ", interface %s", n->net.netdev);
    if (n->kind == TOPO_NET && n->net.slaves > 1) fprintf(out, ", bond of %d ports", n->net.slaves);
    if (n->kind == TOPO_NET && n->net.up == TOPO_NO) fprintf(out, ", down");
}

static void print_tree(const struct topo_graph *g, uint32_t node, int depth, FILE *out)
{
    const struct topo_node *n = &g->nodes[node];
    indent(depth, out);
    describe(n, out);
    from(n->origin, out);
    if (n->kind == TOPO_NET) print_net_facts(n, depth + 1, out);
    if (n->kind == TOPO_GPU && n->gpu.driver_origin.how != TOPO_UNKNOWN)
        indent(depth + 1, out), fprintf(out, "the driver's number %d", n->gpu.dev), from(n->gpu.driver_origin, out);
    for (uint32_t k = g->first[node]; k < g->first[node + 1]; k++) {
        const struct topo_link *link = &g->links[g->at[k]];
        bool down = (link->kind == TOPO_LINK_PCI || link->kind == TOPO_LINK_PORT) && link->b == node;
        bool port = link->kind == TOPO_LINK_PORT, shown = link->kind == TOPO_LINK_SYS && link->a != node;
        if (!down && !port && !shown) print_link(g, link, node, depth + 1, out);
    }
    for (uint32_t i = node + 1; i < g->n_nodes; i++)
        if (g->nodes[i].parent == node) print_tree(g, i, depth + 1, out);
}

void topo_print_facts(const struct topo_graph *graph, uint32_t host, FILE *out)
{
    fprintf(out, "facts, each with its source (%s)\n", graph->source);
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i].parent == TOPO_NONE && graph->nodes[i].host == host) print_tree(graph, i, 0, out);
}

/* The last 8 letters, where names differ. */
static const char *tail(const char *name) { return strlen(name) > 8 ? name + strlen(name) - 8 : name; }

/* --- the matrix --------------------------------------------------------------------------------------------------- */

enum rail_result topo_print_matrix(const struct topo_graph *graph, uint32_t host, FILE *out)
{
    uint32_t gpus = count(graph, host, TOPO_GPU), ports = count(graph, host, TOPO_NET), n = gpus + ports;
    uint32_t *all = calloc(n + 1, sizeof *all);
    struct topo_path *paths = calloc(graph->n_nodes + 1, sizeof *paths);
    enum rail_result result = all && paths ? RAIL_OK
                                           : rail_fail(RAIL_E_SYSTEM, "out of memory for the matrix of paths");
    if (result == RAIL_OK) {
        topo_graph_of_kind(graph, host, TOPO_GPU, all, gpus);
        topo_graph_of_kind(graph, host, TOPO_NET, all + gpus, ports);
        fprintf(out, "%-12s", "paths");
        for (uint32_t i = 0; i < n; i++) fprintf(out, " %-8s", tail(graph->nodes[all[i]].name));
        fputc('\n', out);
    }
    for (uint32_t i = 0; i < n && result == RAIL_OK; i++) {
        result = topo_paths_from(graph, all[i], paths);
        fprintf(out, "  %-10s", tail(graph->nodes[all[i]].name));
        for (uint32_t k = 0; k < n && result == RAIL_OK; k++) {
            if (i == k) fprintf(out, " %-8s", "-");
            else fprintf(out, " %s %-4.3g", topo_class_name(paths[all[k]].class), paths[all[k]].gb_per_s);
        }
        fputc('\n', out);
    }
    free(all);
    free(paths);
    return result;
}
