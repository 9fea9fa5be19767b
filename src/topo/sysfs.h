/* sysfs.h - small files of the kernel's, below a root folder, and the parts of discovery that read them. */
#ifndef RAIL_TOPO_SYSFS_H
#define RAIL_TOPO_SYSFS_H

#include <dirent.h>

#include "topo/graph.h"

enum { SYSFS_PATH = 1024, SYSFS_LINE = 256, SYSFS_MOST_BRIDGES = 40 };

struct sysfs {
    struct topo_graph *graph;
    const char *root;
};

/* First line of root/path/name without its end; false when there is none. */
bool sysfs_read(const struct sysfs *s, char *out, size_t bytes, const char *path, const char *name);
/* A decimal or 0x number; `otherwise` when there is none. */
long sysfs_number(const struct sysfs *s, long otherwise, const char *path, const char *name);
bool sysfs_exists(const struct sysfs *s, const char *path, const char *name);
/* The fact's place, for an origin. */
struct topo_origin sysfs_origin(const struct sysfs *s, const char *path, const char *name);

/* Calls for every entry of a folder but . and .., in order of names; stops at the first result that is not RAIL_OK. */
typedef enum rail_result (*sysfs_visit)(struct sysfs *s, const char *folder, const char *name, void *context);
enum rail_result sysfs_each(struct sysfs *s, const char *folder, sysfs_visit visit, void *context);

/* The PCI devices on the way from the root port to the device behind a path (symbolic link), that included: bus numbers
 * in order. Returns how many; 0: no PCI device. *folder_out is the last one's folder below the root, if not NULL. */
int sysfs_pci_route(const struct sysfs *s, const char *path, uint64_t *out, char folders[][SYSFS_PATH], int max);

/* sysfs_cpu.c: NUMA nodes. sysfs_pci.c: the node of a PCI device, with all switches above it, made when it is not there
 * yet; TOPO_NONE: no PCI device or an error. GPUs. sysfs_net.c: ports. */
enum rail_result sysfs_cpus(struct sysfs *s);
enum rail_result sysfs_pci_device(struct sysfs *s, const char *path, enum topo_kind kind, uint32_t *out);
enum rail_result sysfs_gpus(struct sysfs *s);
enum rail_result sysfs_ports(struct sysfs *s);
/* sysfs does not tell a port's active MTU. Of RoCE the kernel takes the largest of 256 to 4096 that fits into the
 * interface's with 96 bytes of headers. Bytes. */
int32_t sysfs_roce_mtu(int32_t interface_mtu);
/* The NUMA node's CPU in the graph; the first one when there is none of this number. */
uint32_t sysfs_cpu_of(const struct topo_graph *graph, long numa);

#endif
