/* discover.c - where a machine's description comes from. */
#include <string.h>
#include <unistd.h>

#include "base/params.h"
#include "topo/discover.h"
#include "topo/hwloc_machine.h"
#include "topo/sysfs.h"
#include "topo/xml.h"

/* Where clouds put the description of the instance type. */
static const char agents_file[] = "/var/run/nvidia-topologyd/virtualTopology.xml";

static enum rail_result read_sysfs(struct sysfs *s)
{
    RAIL_TRY(sysfs_cpus(s));
    if (s->root[0] == '\0') hwloc_locate(s->graph);
    RAIL_TRY(sysfs_gpus(s));
    RAIL_TRY(sysfs_ports(s));
    return topo_graph_finish(s->graph);
}

enum rail_result topo_discover_under(const char *root, struct topo_graph **out)
{
    struct sysfs s = {topo_graph_create(), root};
    if (!s.graph) return rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's graph");
    if (root[0]) snprintf(s.graph->source, sizeof s.graph->source, "sysfs below %.200s", root);
    else snprintf(s.graph->source, sizeof s.graph->source, "this machine's sysfs");
    enum rail_result result = RAIL_OK;
    if (root[0] && !sysfs_exists(&s, "/sys", NULL))
        result = rail_fail(RAIL_E_ARGUMENT,
                           "%s/sys: is not there; name the folder into which a machine's /sys was copied", root);
    if (result == RAIL_OK) result = read_sysfs(&s);
    if (result == RAIL_OK) *out = s.graph;
    else topo_graph_destroy(s.graph);
    return result;
}

enum rail_result topo_discover(struct topo_graph **out)
{
    const char *file = rail_param_str(RAIL_PARAM_NCCL_TOPO_FILE);
    if (file && file[0]) return topo_xml_read_file(file, out);
    if (access(agents_file, R_OK) == 0) return topo_xml_read_file(agents_file, out);
    return topo_discover_under("", out);
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
