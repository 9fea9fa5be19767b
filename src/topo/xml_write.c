/* xml_write.c - a graph to NCCL's XML. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "topo/xml.h"

struct writer { const struct topo_graph *graph; FILE *out; };

static void indent(const struct writer *w, int depth)
{
    for (int i = 0; i < depth; i++) fputs("  ", w->out);
}

/* A text as an attribute's value. */
static void text(const struct writer *w, const char *name, const char *value)
{
    fprintf(w->out, " %s=\"", name);
    for (; *value; value++) {
        if (*value == '<') fputs("&lt;", w->out);
        else if (*value == '&') fputs("&amp;", w->out);
        else if (*value == '"') fputs("&quot;", w->out);
        else fputc(*value, w->out);
    }
    fputc('"', w->out);
}

static void number(const struct writer *w, const char *name, long value, long not_told)
{
    if (value != not_told) fprintf(w->out, " %s=\"%ld\"", name, value);
}

static void write_link(const struct writer *w, const struct topo_link *link, uint32_t node, uint32_t to, int depth)
{
    const struct topo_graph *g = w->graph;
    char bus[24];
    if (link->kind == TOPO_LINK_NVL) {
        bool is_switch = g->nodes[to].kind == TOPO_NVS;
        indent(w, depth);
        fprintf(w->out, "<nvlink target=\"%s\" count=\"%u\" tclass=\"%s\"/>\n",
                is_switch ? "fffffff:ffff:ff" : topo_bus_text(g->nodes[to].bus, bus), link->count,
                is_switch ? "0x068000" : "0x030200");
    } else if (link->kind == TOPO_LINK_C2C) {
        indent(w, depth);
        fprintf(w->out, "<c2c bw=\"%.17g\" count=\"%u\"/>\n", link->rate.gb_per_s * 1000 / link->count, link->count);
    } else if (link->kind == TOPO_LINK_PCI && link->a == node && to != g->nodes[node].parent &&
               g->nodes[node].kind == TOPO_PCI && g->nodes[to].parent != node) {
        indent(w, depth);
        fprintf(w->out, "<pcilink target=\"%s\"/>\n", topo_bus_text(g->nodes[to].bus, bus));
    }
}

/* In order of what is at the other end, whichever end was read first. */
static void write_links(const struct writer *w, uint32_t node, int depth)
{
    const struct topo_graph *g = w->graph;
    for (uint32_t to = 0; to < g->n_nodes; to++)
        for (uint32_t k = g->first[node]; k < g->first[node + 1]; k++) {
            const struct topo_link *link = &g->links[g->at[k]];
            if ((link->a == node ? link->b : link->a) == to) write_link(w, link, node, to, depth);
        }
}

/* A NIC of which only the place was told is written as its place. */
static bool is_bare(const struct writer *w, uint32_t nic)
{
    for (uint32_t k = nic + 1; k < w->graph->n_nodes; k++)
        if (w->graph->nodes[k].parent == nic && w->graph->nodes[k].kind == TOPO_NET && w->graph->nodes[k].net.bare)
            return true;
    return false;
}

/* As NCCL, which lists the ports that it would use. */
static bool is_written(const struct writer *w, uint32_t i)
{
    const struct topo_node *n = &w->graph->nodes[i];
    if (n->kind == TOPO_NET) return n->net.up != TOPO_NO && !n->net.virtual_function;
    if (n->kind != TOPO_NIC) return true;
    bool has_port = false, written = false;
    for (uint32_t k = i + 1; k < w->graph->n_nodes; k++) {
        if (w->graph->nodes[k].parent != i) continue;
        has_port = true;
        written |= is_written(w, k);
    }
    return written || !has_port;
}

/* The driver's number; where no device of the kind has one, its place, since NCCL wants one. */
static int32_t dev_of(const struct writer *w, const struct topo_node *n)
{
    for (uint32_t i = 0; i < w->graph->n_nodes; i++) {
        const struct topo_node *o = &w->graph->nodes[i];
        if (o->kind == n->kind && o->host == n->host && (n->kind == TOPO_GPU ? o->gpu.dev : o->net.dev) >= 0)
            return n->kind == TOPO_GPU ? n->gpu.dev : n->net.dev;
    }
    return (int32_t)n->number;
}

static void write_net(const struct writer *w, const struct topo_node *n, int depth)
{
    indent(w, depth);
    fputs("<net", w->out);
    text(w, "name", n->name);
    number(w, "dev", dev_of(w, n), -1);
    if (n->net.mbit_per_s > 0) fprintf(w->out, " speed=\"%.17g\"", n->net.mbit_per_s);
    number(w, "port", n->net.port, 1);
    if (n->net.latency_us > 0) fprintf(w->out, " latency=\"%.17g\"", n->net.latency_us);
    if (n->net.guid) fprintf(w->out, " guid=\"0x%llx\"", (unsigned long long)n->net.guid);
    number(w, "maxconn", n->net.max_connections, 0);
    number(w, "gdr", n->net.gdr, TOPO_MAYBE);
    number(w, "keep", n->net.keep, 0);
    fputs("/>\n", w->out);
}

static void write_gpu(const struct writer *w, uint32_t node, int depth)
{
    const struct topo_gpu *gpu = &w->graph->nodes[node].gpu;
    indent(w, depth);
    fputs("<gpu", w->out);
    number(w, "dev", dev_of(w, &w->graph->nodes[node]), -1);
    number(w, "sm", gpu->sm, -1);
    number(w, "rank", gpu->rank, -1);
    number(w, "gdr", gpu->gdr, TOPO_MAYBE);
    fputs(">\n", w->out);
    write_links(w, node, depth + 1);
    indent(w, depth);
    fputs("</gpu>\n", w->out);
}

enum children { PORTS, DEVICES };
static void write_children(const struct writer *w, uint32_t parent, enum children which, int depth);

static void write_nic(const struct writer *w, uint32_t node, int depth)
{
    indent(w, depth);
    fputs("<nic>\n", w->out);
    write_children(w, node, PORTS, depth + 1);
    indent(w, depth);
    fputs("</nic>\n", w->out);
}

static void write_pci(const struct writer *w, uint32_t node, int depth)
{
    const struct topo_node *n = &w->graph->nodes[node];
    char bus[24], speed[32] = "";
    if (n->kind == TOPO_NIC && n->bus == TOPO_NO_BUS) return write_nic(w, node, depth);
    if (n->gt_per_s > 0) snprintf(speed, sizeof speed, "%.1f GT/s PCIe", n->gt_per_s);
    indent(w, depth);
    fprintf(w->out,
            "<pci busid=\"%s\" class=\"0x%06x\" vendor=\"0x%04x\" device=\"0x%04x\" subsystem_vendor=\"0x%04x\" "
            "subsystem_device=\"0x%04x\" link_speed=\"%s\" link_width=\"%d\">\n",
            topo_bus_text(n->bus, bus), n->class, n->vendor, n->device, n->subsystem_vendor, n->subsystem_device, speed,
            n->lanes);
    if (n->kind == TOPO_GPU) write_gpu(w, node, depth + 1);
    else if (n->kind == TOPO_NIC && !is_bare(w, node)) write_nic(w, node, depth + 1);
    if (n->kind == TOPO_PCI) write_links(w, node, depth + 1);
    write_children(w, node, DEVICES, depth + 1);
    indent(w, depth);
    fputs("</pci>\n", w->out);
}

static void write_children(const struct writer *w, uint32_t parent, enum children which, int depth)
{
    for (uint32_t i = parent + 1; i < w->graph->n_nodes; i++) {
        if (w->graph->nodes[i].parent != parent || !is_written(w, i)) continue;
        if ((w->graph->nodes[i].kind == TOPO_NET) != (which == PORTS)) continue;
        if (which == PORTS) write_net(w, &w->graph->nodes[i], depth);
        else write_pci(w, i, depth);
    }
}

static void write_cpu(const struct writer *w, uint32_t node)
{
    const struct topo_cpu *cpu = &w->graph->nodes[node].cpu;
    fputs("  <cpu", w->out);
    if (cpu->host_hash) fprintf(w->out, " host_hash=\"0x%llx\"", (unsigned long long)cpu->host_hash);
    fprintf(w->out, " numaid=\"%d\"", cpu->numa);
    if (cpu->affinity[0]) text(w, "affinity", cpu->affinity);
    if (cpu->arch[0]) text(w, "arch", cpu->arch);
    if (cpu->vendor[0]) text(w, "vendor", cpu->vendor);
    fprintf(w->out, " familyid=\"%d\" modelid=\"%d\">\n", cpu->family, cpu->model);
    write_children(w, node, DEVICES, 2);
    fputs("  </cpu>\n", w->out);
}

enum rail_result topo_xml_write(const struct topo_graph *graph, FILE *out)
{
    struct writer w = {graph, out};
    fputs("<system version=\"1\">\n", out);
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i].kind == TOPO_CPU) write_cpu(&w, i);
    fputs("</system>\n", out);
    if (fflush(out) != 0 || ferror(out))
        return rail_fail(RAIL_E_SYSTEM, "the machine's XML could not be written: %s", strerror(errno));
    return RAIL_OK;
}
