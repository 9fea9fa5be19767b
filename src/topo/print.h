/* print.h - a machine as text: for `railccl topo`, for INIT lines of the log, and for tests. */
#ifndef RAIL_TOPO_PRINT_H
#define RAIL_TOPO_PRINT_H

#include <stdio.h>

#include "topo/findings.h"

/* One host: a summary line, the map GPU -> NIC -> rail with reasons, the rails, what is wrong. */
void topo_print_answer(const struct topo_graph *graph, uint32_t host, const struct topo_map *map,
                       const struct topo_findings *findings, FILE *out);
/* Every device and link of the host, each fact with its source. */
void topo_print_facts(const struct topo_graph *graph, uint32_t host, FILE *out);
/* GPUs and ports against one another: NCCL's class in every cell. */
enum rail_result topo_print_matrix(const struct topo_graph *graph, uint32_t host, FILE *out);

#endif
