/* here.h - the machine that this process runs on, looked at once. */
#ifndef RAIL_TOPO_HERE_H
#define RAIL_TOPO_HERE_H

#include "topo/graph.h"

/* Calls `use` with the machine (topo_discover's without NVML), which is looked at by the first call of the process, and
 * again when NCCL_TOPO_FILE names another file or looking failed. One thread at a time; the graph is valid during the
 * call. */
typedef enum rail_result (*topo_here_use)(const struct topo_graph *graph, void *context);
enum rail_result topo_here(topo_here_use use, void *context);

/* Looks with NVML and writes the machine in NCCL's XML: beside `path` first, then under that name, so that whoever reads
 * it meets a whole file. */
enum rail_result topo_here_dump(const char *path);

#endif
