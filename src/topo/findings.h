/* findings.h - what is wrong with a machine, in sentences, the worst first. */
#ifndef RAIL_TOPO_FINDINGS_H
#define RAIL_TOPO_FINDINGS_H

#include "topo/binding.h"

enum topo_weight {
    TOPO_WRONG, /* costs bandwidth or breaks a job */
    TOPO_ODD,   /* deserves a look */
    TOPO_SAID,  /* good to know */
};

struct topo_finding {
    enum topo_weight weight;
    char *text;
};

struct topo_findings {
    struct topo_finding *at;
    uint32_t n, room;
};

enum rail_result topo_findings_collect(const struct topo_graph *graph, uint32_t host, const struct topo_map *map,
                                       struct topo_findings *out);
void topo_findings_clear(struct topo_findings *findings);
const char *topo_weight_name(enum topo_weight weight);

#endif
