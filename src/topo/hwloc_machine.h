/* hwloc_machine.h - what hwloc knows of a machine. */
#ifndef RAIL_TOPO_HWLOC_MACHINE_H
#define RAIL_TOPO_HWLOC_MACHINE_H

#include "topo/graph.h"

/* Adds everything in hwloc's XML file or synthetic text to an empty graph. */
enum rail_result hwloc_read(struct topo_graph *graph, bool is_file, const char *what);
/* Of this machine: fills in what sysfs left open of NUMA nodes (which package they are in). Silent without hwloc. */
void hwloc_locate(struct topo_graph *graph);

#endif
