/* discover.h - looking at the machine itself, or at what stands in for it. Each returns a finished graph, for the
 * caller to destroy. None of them writes anything, loads a driver or opens a device, but for NVML, which talks to NVIDIA's
 * driver where there is one. */
#ifndef RAIL_TOPO_DISCOVER_H
#define RAIL_TOPO_DISCOVER_H

#include "topo/graph.h"

/* Without NVML nothing is known of NVLinks and C2C, and looking takes a millisecond or two; with it a driver that is not
 * kept awake may take seconds. It is asked for the machine itself, and below a root only if RAILCCL_NVML_LIB names it. */
enum topo_effort { TOPO_WITHOUT_NVML, TOPO_WHOLE };

/* NCCL_TOPO_FILE if it is set; else what a cloud's agent left in /var/run/nvidia-topologyd/virtualTopology.xml; else
 * sysfs, with NUMA nodes of PCI devices by hwloc where sysfs does not tell them. */
enum rail_result topo_discover(enum topo_effort effort, struct topo_graph **out);

/* sysfs and procfs below a folder ("" is the real machine). Addresses of interfaces are known of the real machine only.
 */
enum rail_result topo_discover_under(const char *root, enum topo_effort effort, struct topo_graph **out);

/* hwloc's XML, or its synthetic text; RAIL_E_USAGE when libhwloc is not here, with what to install. */
enum rail_result topo_discover_hwloc_xml(const char *path, struct topo_graph **out);
enum rail_result topo_discover_synthetic(const char *text, struct topo_graph **out);

#endif
