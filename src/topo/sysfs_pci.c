/* sysfs_pci.c - PCI devices and the switches above them.
 *
 * A way down the tree is  root port / upstream port / downstream port / ... / device : a switch is a pair of ports, and
 * is shown as one node under its upstream port's number, as NCCL does. */
#include <stdlib.h>
#include <string.h>

#include "topo/rates.h"
#include "topo/sysfs.h"

static double speed(const struct sysfs *s, const char *folder, const char *name)
{
    char text[SYSFS_LINE];
    sysfs_read(s, text, sizeof text, folder, name);
    double gt = topo_rate_parse_gt(text);
    return gt > 0 ? gt : 0;
}

/* Width as the kernel gives it; 0, 63 and 255 mean that it does not know. */
static int width(const struct sysfs *s, const char *folder, const char *name)
{
    long lanes = sysfs_number(s, 0, folder, name);
    return lanes > 0 && lanes <= 32 ? (int)lanes : 0;
}

static double less(double a, double b) { return a <= 0 ? b : b <= 0 ? a : a < b ? a : b; }

/* GPUs lower the speed of an idle link, so for them the speed is what both ends can do; for others what they do now. */
static void read_link(struct sysfs *s, struct topo_node *n, const char *folder, const char *port)
{
    n->max_gt_per_s = less(speed(s, folder, "max_link_speed"), port ? speed(s, port, "max_link_speed") : 0);
    n->max_lanes = (int)less(width(s, folder, "max_link_width"), port ? width(s, port, "max_link_width") : 0);
    n->gt_per_s = speed(s, folder, "current_link_speed");
    n->lanes = width(s, folder, "current_link_width");
    if (n->kind == TOPO_GPU || n->gt_per_s <= 0) n->gt_per_s = n->max_gt_per_s;
    if (n->lanes <= 0) n->lanes = n->max_lanes;
    if (n->gt_per_s > 0 || n->lanes > 0) n->pci_origin = sysfs_origin(s, folder, "current_link_speed");
}

static void read_numbers(struct sysfs *s, struct topo_node *n, const char *folder)
{
    n->class = (uint32_t)sysfs_number(s, 0, folder, "class");
    n->vendor = (uint32_t)sysfs_number(s, 0, folder, "vendor");
    n->device = (uint32_t)sysfs_number(s, 0, folder, "device");
    n->subsystem_vendor = (uint32_t)sysfs_number(s, 0, folder, "subsystem_vendor");
    n->subsystem_device = (uint32_t)sysfs_number(s, 0, folder, "subsystem_device");
}

static enum rail_result add(struct sysfs *s, enum topo_kind kind, uint32_t parent, uint64_t bus, const char *folder,
                            const char *port, uint32_t *out)
{
    uint32_t found = topo_graph_by_bus(s->graph, 0, bus);
    if (found == TOPO_NONE) {
        found = topo_graph_add(s->graph, kind, parent, sysfs_origin(s, folder, NULL));
        if (found == TOPO_NONE) return RAIL_E_ARGUMENT;
        struct topo_node *n = &s->graph->nodes[found];
        n->bus = bus;
        read_numbers(s, n, folder);
        read_link(s, n, folder, port);
    }
    *out = found;
    return RAIL_OK;
}

enum rail_result sysfs_pci_device(struct sysfs *s, const char *path, enum topo_kind kind, uint32_t *out)
{
    uint64_t route[SYSFS_MOST_BRIDGES];
    char(*folders)[SYSFS_PATH] = calloc(SYSFS_MOST_BRIDGES, sizeof *folders);
    if (!folders) return rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's PCI tree");
    int n = sysfs_pci_route(s, path, route, folders, SYSFS_MOST_BRIDGES);
    enum rail_result result = RAIL_OK;
    *out = TOPO_NONE;
    if (n > 0) {
        long numa = sysfs_number(s, -1, folders[n - 1], "numa_node");
        uint32_t parent = sysfs_cpu_of(s->graph, numa);
        uint32_t cpus = topo_graph_of_kind(s->graph, 0, TOPO_CPU, NULL, 0);
        char bus[24];
        if (numa < 0 && cpus > 1)
            topo_graph_remark(s->graph, "the kernel does not tell the NUMA node of %s: the first one is assumed",
                              topo_bus_text(route[n - 1], bus));
        /* The upstream ports: every second above the device, without the root port. */
        for (int i = n % 2 ? 2 : 1; i <= n - 3 && result == RAIL_OK; i += 2)
            result = add(s, TOPO_PCI, parent, route[i], folders[i], folders[i - 1], &parent);
        if (result == RAIL_OK)
            result = add(s, kind, parent, route[n - 1], folders[n - 1], n > 1 ? folders[n - 2] : NULL, out);
    }
    free(folders);
    return result;
}

/* Display and compute devices of who makes GPUs; a server's own graphics chip (Aspeed, Matrox) is none. */
static bool is_gpu(long class, long vendor)
{
    bool maker = vendor == 0x10de || vendor == 0x1002 || vendor == 0x1da3;
    long base = class >> 8;
    return maker && (base == 0x0300 || base == 0x0302 || base == 0x0380 || base == 0x1200);
}

/* What GPUDirect needs besides nearness: a module that offers GPU memory to NICs, and an IOMMU that does not translate.
 */
static void judge_direct(struct sysfs *s, uint32_t node, const char *path)
{
    char type[SYSFS_LINE];
    struct topo_node *n = &s->graph->nodes[node];
    bool peermem = sysfs_exists(s, "/sys/module/nvidia_peermem", NULL) ||
                   sysfs_exists(s, "/sys/kernel/mm/memory_peers/nv_mem", NULL);
    if (n->vendor == 0x10de && !sysfs_exists(s, "/sys/module/nvidia", NULL)) {
        n->gpu.gdr = TOPO_NO;
        topo_graph_remark(s->graph, "the nvidia driver is not loaded: its GPUs cannot be used");
    } else if (n->vendor == 0x10de && peermem) {
        n->gpu.gdr = TOPO_YES;
    } else if (n->vendor == 0x10de) {
        topo_graph_remark(
            s->graph, "nvidia_peermem is not loaded: GPUDirect then needs dma-buf (kernel 5.12 and the open driver)");
    }
    sysfs_read(s, type, sizeof type, path, "iommu_group/type");
    if (strncmp(type, "DMA", 3) == 0)
        topo_graph_remark(s->graph,
                          "the IOMMU translates (iommu_group/type is %s): traffic between GPUs and NICs climbs to the "
                          "CPU; boot with iommu=pt",
                          type);
}

static enum rail_result visit(struct sysfs *s, const char *folder, const char *name, void *context)
{
    char path[SYSFS_PATH];
    uint32_t node;
    (void)context;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!is_gpu(sysfs_number(s, 0, path, "class"), sysfs_number(s, 0, path, "vendor"))) return RAIL_OK;
    RAIL_TRY(sysfs_pci_device(s, path, TOPO_GPU, &node));
    if (node == TOPO_NONE) return RAIL_OK;
    judge_direct(s, node, path);
    return RAIL_OK;
}

enum rail_result sysfs_gpus(struct sysfs *s) { return sysfs_each(s, "/sys/bus/pci/devices", visit, NULL); }
