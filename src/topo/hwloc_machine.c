/* hwloc_machine.c - hwloc's tree to ours.
 *
 * hwloc hangs NUMA nodes on the part of the tree that they are local to, and PCI host bridges likewise. Below a host
 * bridge it shows every bridge; a switch is a pair of them (see sysfs_pci.c), and the first is the root port. */
#include <stdlib.h>
#include <string.h>

#include "foreign/hwloc.h"
#include "topo/hwloc_machine.h"

#ifdef RAIL_HAVE_HWLOC

struct walk {
    struct topo_graph *graph;
    const struct hwloc_functions *hwloc;
    struct topo_origin origin;
    int package;             /* the one we are in; -1 */
    uint32_t parent;         /* where PCI devices hang */
    int bridges;             /* since the host bridge */
    int depth;
};

static enum rail_result walk(struct walk w, hwloc_obj_t obj);

static const char *info(hwloc_obj_t obj, const char *name)
{
    for (unsigned i = 0; i < obj->infos_count; i++)
        if (strcmp(obj->infos[i].name, name) == 0) return obj->infos[i].value;
    return NULL;
}

static enum rail_result add_cpu(const struct walk *w, hwloc_obj_t obj)
{
    uint32_t node = topo_graph_add(w->graph, TOPO_CPU, TOPO_NONE, w->origin);
    if (node == TOPO_NONE) return RAIL_E_ARGUMENT;
    struct topo_cpu *cpu = &w->graph->nodes[node].cpu;
    cpu->numa = (int32_t)obj->os_index;
    cpu->package = w->package;
    char cores[4096] = "";
    if (obj->cpuset) w->hwloc->bitmap_snprintf(cores, sizeof cores, obj->cpuset);
    cpu->affinity = topo_graph_text(w->graph, cores);
    return RAIL_OK;
}

static uint32_t cpu_of(const struct walk *w, hwloc_obj_t obj)
{
    while (obj && !obj->nodeset) obj = obj->parent;
    int numa = obj ? w->hwloc->bitmap_first(obj->nodeset) : -1;
    uint32_t first = TOPO_NONE;
    for (uint32_t i = 0; i < w->graph->n_nodes; i++) {
        if (w->graph->nodes[i].kind != TOPO_CPU) continue;
        if (w->graph->nodes[i].cpu.numa == numa) return i;
        if (first == TOPO_NONE) first = i;
    }
    return first;
}

/* hwloc gives a link's whole rate, in GB/s after encoding: which generation and width that is. */
static void set_link(struct topo_node *n, double gb_per_s, struct topo_origin origin)
{
    static const struct {
        double gt, lane;
    } kinds[] = {{2.5, 0.25}, {5, 0.5}, {8, 0.985}, {16, 1.969}, {32, 3.938}, {64, 7.563}};
    static const int widths[] = {16, 8, 4, 2, 1};
    double best = 0.03;
    for (size_t k = 0; gb_per_s > 0 && k < sizeof kinds / sizeof *kinds; k++)
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
            double off = kinds[k].lane * widths[i] / gb_per_s - 1;
            if (off < 0) off = -off;
            if (off >= best) continue;
            best = off - 0.001; /* of equals the widest, which comes first */
            n->gt_per_s = kinds[k].gt;
            n->lanes = widths[i];
            n->pci_origin = origin;
        }
}

static enum rail_result add_pci(const struct walk *w, const struct hwloc_pcidev_attr_s *pci, enum topo_kind kind,
                                uint32_t *out)
{
    *out = topo_graph_add(w->graph, kind, w->parent, w->origin);
    if (*out == TOPO_NONE) return RAIL_E_ARGUMENT;
    struct topo_node *n = &w->graph->nodes[*out];
    n->bus = (uint64_t)pci->domain << 24 | (uint64_t)pci->bus << 16 | (uint64_t)pci->dev << 8 | pci->func;
    n->class = (uint32_t)pci->class_id << 8;
    n->vendor = pci->vendor_id;
    n->device = pci->device_id;
    n->subsystem_vendor = pci->subvendor_id;
    n->subsystem_device = pci->subdevice_id;
    set_link(n, (double)pci->linkspeed, w->origin);
    return RAIL_OK;
}

static bool is_gpu(const struct hwloc_pcidev_attr_s *pci)
{
    bool maker = pci->vendor_id == 0x10de || pci->vendor_id == 0x1002 || pci->vendor_id == 0x1da3;
    unsigned c = pci->class_id;
    return maker && (c == 0x0300 || c == 0x0302 || c == 0x0380 || c == 0x1200);
}

static bool has_osdev(hwloc_obj_t obj, hwloc_obj_osdev_type_t type)
{
    for (hwloc_obj_t child = obj->io_first_child; child; child = child->next_sibling)
        if (child->type == HWLOC_OBJ_OS_DEVICE && child->attr->osdev.type == type) return true;
    return false;
}

static enum rail_result add_port(const struct walk *w, uint32_t nic, hwloc_obj_t os)
{
    uint32_t node = topo_graph_add(w->graph, TOPO_NET, nic, w->origin);
    if (node == TOPO_NONE) return RAIL_E_ARGUMENT;
    struct topo_node *n = &w->graph->nodes[node];
    const char *state = info(os, "Port1State");
    snprintf(n->name, sizeof n->name, "%.60s", os->name ? os->name : "port");
    n->net.verbs = os->attr->osdev.type == HWLOC_OBJ_OSDEV_OPENFABRICS;
    if (state) n->net.up = atoi(state) == 4 ? TOPO_YES : TOPO_NO;
    if (!n->net.verbs) snprintf(n->net.netdev, sizeof n->net.netdev, "%.15s", n->name);
    if (strstr(n->name, "bond")) n->net.slaves = 2;
    return RAIL_OK;
}

static enum rail_result add_device(const struct walk *w, hwloc_obj_t obj)
{
    const struct hwloc_pcidev_attr_s *pci = &obj->attr->pcidev;
    uint32_t node;
    bool verbs = has_osdev(obj, HWLOC_OBJ_OSDEV_OPENFABRICS);
    if (is_gpu(pci)) return add_pci(w, pci, TOPO_GPU, &node);
    if (!verbs && !has_osdev(obj, HWLOC_OBJ_OSDEV_NETWORK)) return RAIL_OK;
    RAIL_TRY(add_pci(w, pci, TOPO_NIC, &node));
    for (hwloc_obj_t child = obj->io_first_child; child; child = child->next_sibling) {
        if (child->type != HWLOC_OBJ_OS_DEVICE) continue;
        hwloc_obj_osdev_type_t want = verbs ? HWLOC_OBJ_OSDEV_OPENFABRICS : HWLOC_OBJ_OSDEV_NETWORK;
        if (child->attr->osdev.type == want) RAIL_TRY(add_port(w, node, child));
    }
    return RAIL_OK;
}

/* Of root port, upstream port, downstream port, upstream port, ... every upstream port is a switch of ours. */
static enum rail_result enter_bridge(struct walk *w, hwloc_obj_t obj)
{
    if (obj->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_HOST) {
        w->parent = cpu_of(w, obj);
        w->bridges = 0;
        return RAIL_OK;
    }
    if (++w->bridges % 2 == 1) return RAIL_OK;
    hwloc_obj_t below = obj->io_first_child; /* a bridge without bridges below is no switch */
    while (below && below->type != HWLOC_OBJ_BRIDGE) below = below->next_sibling;
    return below ? add_pci(w, &obj->attr->bridge.upstream.pci, TOPO_PCI, &w->parent) : RAIL_OK;
}

static enum rail_result walk_siblings(struct walk w, hwloc_obj_t first)
{
    for (hwloc_obj_t obj = first; obj; obj = obj->next_sibling) RAIL_TRY(walk(w, obj));
    return RAIL_OK;
}

/* Twice over the tree: first NUMA nodes, then devices, since a device may stand before its node. */
static enum rail_result walk(struct walk w, hwloc_obj_t obj)
{
    bool devices = w.parent != TOPO_NONE;
    if (++w.depth > 128) return rail_fail(RAIL_E_ARGUMENT, "hwloc's tree is more than 128 levels deep");
    if (obj->type == HWLOC_OBJ_PACKAGE) w.package = (int)obj->os_index;
    if (obj->type == HWLOC_OBJ_NUMANODE && !devices) RAIL_TRY(add_cpu(&w, obj));
    if (obj->type == HWLOC_OBJ_BRIDGE && devices) RAIL_TRY(enter_bridge(&w, obj));
    if (obj->type == HWLOC_OBJ_PCI_DEVICE && devices) RAIL_TRY(add_device(&w, obj));
    RAIL_TRY(walk_siblings(w, obj->memory_first_child));
    RAIL_TRY(walk_siblings(w, obj->first_child));
    return walk_siblings(w, obj->io_first_child);
}

static enum rail_result read_topology(struct topo_graph *graph, const struct hwloc_functions *hwloc,
                                      hwloc_topology_t topology, const char *what)
{
    hwloc_obj_t root = hwloc->get_obj_by_depth(topology, 0, 0);
    struct walk w = {.graph = graph, .hwloc = hwloc, .package = -1, .parent = TOPO_NONE};
    w.origin = (struct topo_origin){TOPO_HWLOC, 0, topo_graph_text(graph, what)};
    if (!root) return rail_fail(RAIL_E_ARGUMENT, "%s: hwloc finds no machine in it", what);
    RAIL_TRY(walk(w, root));
    if (graph->n_nodes == 0) return rail_fail(RAIL_E_ARGUMENT, "%s: no NUMA node in it", what);
    w.parent = 0;
    RAIL_TRY(walk(w, root));
    const char *vendor = info(root, "CPUVendor"), *model = info(root, "CPUModelNumber"),
               *arch = info(root, "Architecture");
    for (hwloc_obj_t p = root->first_child; p && !vendor; p = p->first_child) {
        vendor = info(p, "CPUVendor");
        model = info(p, "CPUModelNumber");
    }
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        struct topo_node *n = &graph->nodes[i];
        if (n->kind != TOPO_CPU) continue;
        if (vendor) snprintf(n->cpu.vendor, sizeof n->cpu.vendor, "%.60s", vendor);
        if (model) n->cpu.model = atoi(model);
        if (arch) snprintf(n->cpu.arch, sizeof n->cpu.arch, "%.15s", arch);
    }
    return RAIL_OK;
}

static enum rail_result load_and_read(struct topo_graph *graph, const struct hwloc_functions *hwloc,
                                      hwloc_topology_t topology, bool is_file, const char *what)
{
    int rc = is_file ? hwloc->topology_set_xml(topology, what) : hwloc->topology_set_synthetic(topology, what);
    if (rc == 0) rc = hwloc->topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    if (rc == 0) rc = hwloc->topology_load(topology);
    if (rc != 0)
        return rail_fail(RAIL_E_ARGUMENT,
                         is_file ? "%s: hwloc cannot read this file; write it by `lstopo --whole-io FILE.xml`"
                                 : "\"%s\": no synthetic text of hwloc's; one is \"numa:2 core:8 pu:2\"",
                         what);
    return read_topology(graph, hwloc, topology, what);
}

enum rail_result hwloc_read(struct topo_graph *graph, bool is_file, const char *what)
{
    const char *why;
    const struct hwloc_functions *hwloc = hwloc_functions(&why);
    hwloc_topology_t topology;
    if (!hwloc) return rail_fail(RAIL_E_USAGE, "%s: hwloc is needed to read this: %s", what, why);
    if (hwloc->topology_init(&topology) != 0) return rail_fail(RAIL_E_SYSTEM, "hwloc_topology_init failed");
    enum rail_result result = load_and_read(graph, hwloc, topology, is_file, what);
    hwloc->topology_destroy(topology);
    return result;
}

static void take_packages(struct topo_graph *graph, const struct hwloc_functions *hwloc, hwloc_topology_t topology)
{
    struct topo_graph *seen = topo_graph_create();
    if (seen && read_topology(seen, hwloc, topology, "this machine") == RAIL_OK)
        for (uint32_t i = 0; i < graph->n_nodes; i++)
            for (uint32_t k = 0; k < seen->n_nodes; k++)
                if (graph->nodes[i].kind == TOPO_CPU && seen->nodes[k].kind == TOPO_CPU &&
                    graph->nodes[i].cpu.package < 0 && graph->nodes[i].cpu.numa == seen->nodes[k].cpu.numa)
                    graph->nodes[i].cpu.package = seen->nodes[k].cpu.package;
    topo_graph_destroy(seen);
}

void hwloc_locate(struct topo_graph *graph)
{
    const char *why;
    const struct hwloc_functions *hwloc = hwloc_functions(&why);
    hwloc_topology_t topology;
    bool open = false;
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        open |= graph->nodes[i].kind == TOPO_CPU && graph->nodes[i].cpu.package < 0;
    if (!open || !hwloc || hwloc->topology_init(&topology) != 0) return;
    if (hwloc->topology_load(topology) == 0) take_packages(graph, hwloc, topology);
    hwloc->topology_destroy(topology);
}

#else

enum rail_result hwloc_read(struct topo_graph *graph, bool is_file, const char *what)
{
    const char *why;
    (void)graph, (void)is_file;
    hwloc_functions(&why);
    return rail_fail(RAIL_E_USAGE, "%s: hwloc is needed to read this: %s", what, why);
}

void hwloc_locate(struct topo_graph *graph) { (void)graph; }

#endif
