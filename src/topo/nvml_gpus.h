/* nvml_gpus.h - what NVIDIA's driver knows of its GPUs beyond sysfs. */
#ifndef RAIL_TOPO_NVML_GPUS_H
#define RAIL_TOPO_NVML_GPUS_H

#include "topo/sysfs.h"

/* Gives the GPUs of an unfinished graph their driver numbers, compute capability, NVLinks and C2C links, each with NVML as
 * its origin. What NVML refuses, or says that cannot be, is left out with a remark; without the library there is one INFO
 * line and nothing more. Fails only out of memory. */
enum rail_result nvml_gpus(struct sysfs *s);

#endif
