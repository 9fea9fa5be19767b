/* topo.h - the parts of `railccl topo`: what was looked at, and the forms it is shown in. */
#ifndef TOOLS_TOPO_H
#define TOOLS_TOPO_H

#include <stdio.h>

#include "topo/fabric.h"
#include "topo/findings.h"

/* A machine with everything that is derived from it, for its first host or, in files of several, for each. */
struct topo_view {
    struct topo_graph *graph;
    struct topo_map *maps;           /* [graph->n_hosts] */
    struct topo_findings *findings;  /* [graph->n_hosts] */
    char title[TOPO_TEXT_BYTES];
    struct fabric *fabric;           /* NULL: none was named */
    const char *host_name;           /* this machine's in it */
    bool live;                       /* the machine that we run on: its NICs can be asked what they know of their rails */
};

/* Who says which rail a port is on: the fabric file, NCCL_IB_HCA, LLDP, its subnet, nobody. Into `text`; returns it. */
const char *topo_rail_key_source(const struct topo_view *view, uint32_t net, char text[160]);
/* Of one host with a fabric: GPU -> NIC -> rail -> leaf, a line per NIC. */
void topo_print_place(const struct topo_view *view, uint32_t host, FILE *out);

void topo_write_json(const struct topo_view *view, FILE *out);
/* 0, or -1 with a message on stderr. */
int topo_write_svg(const struct topo_view *view, FILE *out);
/* 0: alike, 1: they differ, 2: out of memory. */
int topo_compare(const struct topo_view *a, const struct topo_view *b, FILE *out);

#endif
