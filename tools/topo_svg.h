/* topo_svg.h - what the parts of the drawing share. */
#ifndef TOOLS_TOPO_SVG_H
#define TOOLS_TOPO_SVG_H

#include "topo.h"

enum { /* in pixels */
    CELL = 98, BOX = 86, GAP = 26, MARGIN = 28, TOP = 84, HEADER = 46, LEVEL = 74, SWITCH_HEIGHT = 30, LEAF_HEIGHT = 62,
    CHIP = 22, ARC = 34, BAR = 30, LINE = 21,
};

struct svg {
    const struct topo_view *view;
    uint32_t host;
    FILE *out;
    double *x, *y, *width; /* [n_nodes] middle of the box, its top, its width */
    uint32_t *cells;       /* [n_nodes] */
    double *order;         /* [n_nodes] where it stands among its siblings */
    int depth;             /* of switches inside one another */
    double top;            /* of the NUMA nodes' boxes */
};

#define CENTRED "text-anchor=\"middle\""

/* Text of at most `most` letters; of longer ones the end, where names differ. */
void svg_text(const struct svg *s, double x, double y, const char *style, size_t most, const char *text);
const char *svg_colour(uint32_t rail);
/* The rail's number; TOPO_NONE: the port is no rail. */
uint32_t svg_rail_of_net(const struct svg *s, uint32_t net);

/* The band above the machine: 0 without a fabric. */
double svg_fabric_height(const struct topo_view *view);
/* When everything has its place and the NUMA nodes are drawn. */
void svg_fabric_draw(const struct svg *s, double width);

#endif
