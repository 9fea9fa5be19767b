/* binding.h - which NIC is whose: a port for every GPU, and the rail each port is. */
#ifndef RAIL_TOPO_BINDING_H
#define RAIL_TOPO_BINDING_H

#include "topo/paths.h"

/* A GPU and a port that serves it. */
struct topo_binding {
    uint32_t gpu, net;      /* nodes */
    uint32_t rail;          /* the port's */
    bool first;             /* the GPU's first port; it may have more than one where there are more ports than GPUs */
    struct topo_path path;  /* the direct one */
    struct topo_path pxn;   /* with a GPU between if that is nearer; else the same */
    bool direct;            /* the NIC can reach the GPU's memory (GPUDirect) */
    char why_not[160];      /* why it cannot; "" if it can */
    char why[TOPO_TEXT_BYTES]; /* why this port, in words */
};

struct topo_rail {
    uint32_t net;    /* node */
    uint32_t number;
    uint32_t n_gpus; /* whose first port it is */
};

/* Of one host. Bindings in order of GPUs, rails in order of numbers. */
struct topo_map {
    struct topo_binding *bindings;
    struct topo_rail *rails;
    uint32_t *unused;        /* ports that are no rail: down, or much slower than the others */
    uint32_t n_bindings, n_rails, n_unused;
    uint32_t n_numbers;      /* rail numbers there would be if none was missing */
    char how[TOPO_TEXT_BYTES]; /* how rails were numbered, in words */
};

/* NCCL's word for the farthest class at which a NIC may reach a GPU's memory: LOC ... SYS, or 0 to 4 as in
 * NCCL_NET_GDR_LEVEL. NULL, "" and nonsense: the default, P2C. */
enum topo_class topo_gdr_level(const char *text);

/* The ports of a host that are rails, and for every GPU the nearest of them, shared evenly among equals.
 *
 * Near is class first, then rate of the path; a GPU never gets a farther port for the sake of evenness. Ports that no
 * GPU got go to the GPUs nearest to them as further ones. Rails are numbered by the place of the GPU they serve where
 * every port serves the same number of GPUs or as many ports serve each GPU, in order: so a host with a NIC missing
 * keeps the numbers of the others. Elsewhere in order of ports. */
enum rail_result topo_map_build(const struct topo_graph *graph, uint32_t host, enum topo_class gdr_level,
                                struct topo_map *out);
void topo_map_clear(struct topo_map *map);

#endif
