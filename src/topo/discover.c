/* discover.c - where a machine's description comes from. */
#include <string.h>
#include <unistd.h>

#include "base/params.h"
#include "topo/discover.h"
#include "topo/hwloc_machine.h"
#include "topo/nvml_gpus.h"
#include "topo/sysfs.h"
#include "topo/xml.h"

/* Where clouds put the description of the instance type. */
static const char agents_file[] = "/var/run/nvidia-topologyd/virtualTopology.xml";

static enum rail_result read_sysfs(struct sysfs *s, enum topo_effort effort)
{
    RAIL_TRY(sysfs_cpus(s));
    if (s->root[0] == '\0') hwloc_locate(s->graph);
    RAIL_TRY(sysfs_gpus(s));
    if (effort == TOPO_WHOLE) RAIL_TRY(nvml_gpus(s));
    RAIL_TRY(sysfs_ports(s));
    return topo_graph_finish(s->graph);
}

enum rail_result topo_discover_under(const char *root, enum topo_effort effort, struct topo_graph **out)
{
    struct sysfs s = {topo_graph_create(), root};
    if (!s.graph) return rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's graph");
    if (root[0]) snprintf(s.graph->source, sizeof s.graph->source, "sysfs below %.200s", root);
    else snprintf(s.graph->source, sizeof s.graph->source, "this machine's sysfs");
    enum rail_result result = RAIL_OK;
    if (root[0] && !sysfs_exists(&s, "/sys", NULL))
        result = rail_fail(RAIL_E_ARGUMENT,
                           "%s/sys: is not there; name the folder into which a machine's /sys was copied", root);
    if (result == RAIL_OK) result = read_sysfs(&s, effort);
    if (result == RAIL_OK) *out = s.graph;
    else topo_graph_destroy(s.graph);
    return result;
}

/* The port of the same place on the bus, with its strings kept by another graph. */
static void adopt_port(struct topo_graph *graph, uint32_t i, const struct topo_node *from)
{
    struct topo_node *to = &graph->nodes[i];
    to->net = from->net; /* no longer bare */
    struct topo_origin *const origins[] = {&to->net.rate_origin, &to->net.gdr_origin, &to->net.mtu_origin};
    for (int k = 0; k < 3; k++)
        if (origins[k]->where) origins[k]->where = topo_graph_text(graph, origins[k]->where);
    memcpy(to->name, from->name, sizeof to->name);
    for (uint32_t l = 0; l < graph->n_links && to->net.mbit_per_s > 0; l++)
        if (graph->links[l].kind == TOPO_LINK_PORT && graph->links[l].a == i)
            graph->links[l].rate = (struct topo_rate){to->net.mbit_per_s / 8000, to->net.rate_origin};
}

/* A file that gives places only: what is in them this machine's sysfs tells. */
static enum rail_result read_and_fill(const char *file, enum topo_effort effort, struct topo_graph **out)
{
    struct topo_graph *here = NULL;
    bool bare = false;
    RAIL_TRY(topo_xml_read_file(file, out));
    for (uint32_t i = 0; i < (*out)->n_nodes; i++)
        bare |= (*out)->nodes[i].kind == TOPO_NET && (*out)->nodes[i].net.bare;
    if (!bare || topo_discover_under("", effort, &here) != RAIL_OK) return RAIL_OK;
    for (uint32_t i = 0; i < (*out)->n_nodes; i++)
        for (uint32_t k = 0; k < here->n_nodes; k++)
            if ((*out)->nodes[i].kind == TOPO_NET && (*out)->nodes[i].net.bare && here->nodes[k].kind == TOPO_NET &&
                here->nodes[k].bus == (*out)->nodes[i].bus)
                adopt_port(*out, i, &here->nodes[k]);
    topo_graph_destroy(here);
    return RAIL_OK;
}

enum rail_result topo_discover(enum topo_effort effort, struct topo_graph **out)
{
    const char *file = rail_param_str(RAIL_PARAM_NCCL_TOPO_FILE);
    if (file && file[0]) return read_and_fill(file, effort, out);
    if (access(agents_file, R_OK) == 0) return read_and_fill(agents_file, effort, out);
    return topo_discover_under("", effort, out);
}

static enum rail_result from_hwloc(bool is_file, const char *what, struct topo_graph **out)
{
    struct topo_graph *graph = topo_graph_create();
    if (!graph) return rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's graph");
    snprintf(graph->source, sizeof graph->source, "hwloc: %.200s", what);
    enum rail_result result = hwloc_read(graph, is_file, what);
    if (result == RAIL_OK) result = topo_graph_finish(graph);
    if (result == RAIL_OK) *out = graph;
    else topo_graph_destroy(graph);
    return result;
}

enum rail_result topo_discover_hwloc_xml(const char *path, struct topo_graph **out)
{
    return from_hwloc(true, path, out);
}
enum rail_result topo_discover_synthetic(const char *text, struct topo_graph **out)
{
    return from_hwloc(false, text, out);
}
