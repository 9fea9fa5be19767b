/* nvlink.h - NVLinks put into a graph, whoever tells of them. */
#ifndef RAIL_TOPO_NVLINK_H
#define RAIL_TOPO_NVLINK_H

#include "topo/graph.h"

/* `count` NVLinks from a GPU to another GPU or to NVSwitch. Told from both ends of a pair they are the same ones, and where
 * the ends disagree the smaller number counts; told from one end again they are more. `where` begins a remark. */
enum rail_result nvlink_add(struct topo_graph *graph, uint32_t gpu, uint32_t to, uint32_t count, const char *where);

/* The one node that stands for all NVSwitches of a host, made when it is asked for first. TOPO_NONE: rail_fail was
 * called. */
uint32_t nvlink_switch(struct topo_graph *graph, uint32_t host, struct topo_origin origin);

#endif
