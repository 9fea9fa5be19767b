/* traffic.h - what a plan sends, in bytes over a whole operation: read off the plan's steps. */
#ifndef RAIL_SIMULATE_TRAFFIC_H
#define RAIL_SIMULATE_TRAFFIC_H

#include <stdbool.h>

#include "simulate/pieces.h"

struct traffic {
    uint64_t sent[PLAN_MAX_LINKS]; /* by each of the plan's links; 0 for links in */
    uint64_t received[PLAN_MAX_LINKS];
    uint64_t peers; /* read from and written to other ranks' buffers in the node */
};

/* `direct`: buffers that peers reach directly. Bytes of slots and peers, whatever becomes of them. */
void traffic_of_plan(const struct plan *plan, struct pieces *pieces, bool direct, struct traffic *out);

#endif
