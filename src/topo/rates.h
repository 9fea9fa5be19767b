/* rates.h - what links carry when nobody has measured them. 10^9 bytes per second and direction. The figures are those
 * by which NCCL plans, so that classes and rates compare with its logs; each is what remains after encoding and packet
 * headers, not the number on the box. */
#ifndef RAIL_TOPO_RATES_H
#define RAIL_TOPO_RATES_H

#include "topo/graph.h"

/* Of a PCI link; gt_per_s or lanes 0: generation 3, 16 lanes are assumed, and the origin says so. */
struct topo_rate topo_rate_pci(double gt_per_s, int lanes, struct topo_origin told);
/* Of one NVLink of a GPU with this compute capability (90: H100). */
struct topo_rate topo_rate_nvlink(int sm);
/* Between two NUMA nodes of such CPUs. */
struct topo_rate topo_rate_between_cpus(const struct topo_cpu *cpu);
/* "16.0 GT/s PCIe", "8 GT/s", "5 GT/s": per lane; 0 for "", "Unknown", and "Unknown speed"; -1 for nonsense. */
double topo_rate_parse_gt(const char *text);

#endif
