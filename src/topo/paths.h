/* paths.h - how near two devices are: NCCL's classes, and what the best way between them carries. */
#ifndef RAIL_TOPO_PATHS_H
#define RAIL_TOPO_PATHS_H

#include "topo/graph.h"

/* From near to far, in NCCL's words and order. */
enum topo_class {
    PATH_LOC, /* the same device, or a NIC and its port */
    PATH_NVL, /* NVLink, directly or through NVSwitch */
    PATH_NVB, /* two NVLinks, through a GPU between */
    PATH_C2C, /* a CPU's coherent link */
    PATH_PIX, /* at most one PCI switch */
    PATH_PXB, /* several PCI switches, no host bridge */
    PATH_P2C, /* a GPU's C2C link to its CPU, PCI from there to a NIC */
    PATH_PXN, /* NVLink to another GPU, which is near the NIC */
    PATH_PHB, /* through a host bridge: the memory of one NUMA node */
    PATH_SYS, /* between NUMA nodes */
    PATH_NET, /* over the network */
    PATH_DIS, /* not at all */
};

struct topo_path {
    enum topo_class class;
    double gb_per_s;  /* of its narrowest link; 0 for NET and DIS, and for LOC on the same device */
    uint32_t hops;    /* links on it */
    uint32_t neck;    /* the narrowest link; TOPO_NONE: no links */
    uint32_t via;     /* PXN: the GPU between; else TOPO_NONE */
};

/* The best path from `from` to every node: the nearest class, in it the widest, of those the shortest. PXN is not
 * considered. `out` has graph->n_nodes entries. */
enum rail_result topo_paths_from(const struct topo_graph *graph, uint32_t from, struct topo_path *out);
enum rail_result topo_path(const struct topo_graph *graph, uint32_t from, uint32_t to, struct topo_path *out);
/* The same from a GPU to a port, where NVLink to another GPU may be better (PXN) than the way of its own. */
enum rail_result topo_path_pxn(const struct topo_graph *graph, uint32_t gpu, uint32_t net, struct topo_path *out);

/* Of a nearer class, or of the same class and by more than a tenth wider. */
bool topo_path_nearer(const struct topo_path *a, const struct topo_path *b);

/* The nodes on the path of topo_path, both ends included: returns how many, and writes the first `max`. 0: no path
 * (NET, DIS), or out of memory. */
uint32_t topo_path_route(const struct topo_graph *graph, uint32_t from, uint32_t to, uint32_t *out, uint32_t max);

const char *topo_class_name(enum topo_class class);
/* What it means, as a phrase: "one PCI switch between them". */
const char *topo_class_text(enum topo_class class);

#endif
