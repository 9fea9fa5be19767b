/* lay_lanes.h - the lanes between two hosts: their flows, and what each takes of the bytes by its NICs alone. */
#ifndef RAIL_SIMULATE_LAY_LANES_H
#define RAIL_SIMULATE_LAY_LANES_H

#include "simulate/job.h"
#include "simulate/lay.h"

struct lanes {
    const struct job *job;
    const struct network *network;
    uint32_t from, to;
    uint32_t shift;                  /* of rails, at the other end */
    double share[NETWORK_RAILS_MAX]; /* by rail of the sender; together 1 */
};

/* Without shares. */
void lanes_of(struct lanes *out, const struct job *job, const struct network *network, uint32_t from, uint32_t to);
/* RAIL_E_ARGUMENT: the hosts do not reach each other. */
enum rail_result lanes_between(struct lanes *out, const struct job *job, const struct network *network, uint32_t from,
                               uint32_t to);
struct network_flow lanes_flow(const struct lanes *lanes, uint32_t rail, uint32_t number);
/* Puts that many bytes on every link of a flow's way, and into the report's sums. */
void lanes_lay(const struct network *network, const struct network_flow *flow, double bytes, double *loads,
               struct lay_report *report);

#endif
