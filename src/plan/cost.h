/* cost.h - how long a collective would take: the plans of all ranks run against clocks instead of data.
 *
 * Every strand has a clock, every slot an arrival time, every counter the time it was raised. A MOVE begins when its
 * slots are there (and, to send, when a slot is free again), and takes a fixed time plus the bytes it touches; what
 * leaves a node queues for the rank's wire. Pipelining, idle ranks and chains of hops follow from the plans themselves.
 * An estimate: it knows nothing of other work on the cores, of congestion, or of caches. Pure: no clock is read. */
#ifndef RAIL_PLAN_COST_H
#define RAIL_PLAN_COST_H

#include <stdbool.h>
#include <stdint.h>

#include "plan/plan.h"
#include "topo/shape.h"

struct plan_rates {
    double hop_ns[2];          /* from publishing a slot or signal to its being seen: within a node, between nodes */
    double step_ns;            /* of a MOVE, whatever its size */
    double memory_ns_per_byte; /* of each operand of a MOVE */
    double wire_ns_per_byte;   /* of what a rank sends to other nodes */
};

/* Derived in cost.c. */
struct plan_rates plan_rates_default(const struct shape *shape);

/* Links on a network that is known better than "one wire per node": entry rank * PLAN_MAX_LINKS + link of the rank's
 * plan. What leaves a rank by links with ns_per_byte > 0 queues for one wire of its own, as it comes; or each link has
 * its share of it for itself (`apart`). Links take turns by bytes, so what really happens is at least as good as fixed
 * shares. */
struct plan_cost_wires {
    const double *ns_per_byte; /* of links out; 0: it leaves no host */
    const double *hop_ns;      /* of links out */
    bool apart;
    const uint32_t *fed_by;   /* of links in: the entry of the link out that feeds it. NULL: by the plans' ranks */
};

struct plan_cost_call {
    const struct plan *plans; /* [n_ranks], in rank order, of one channel */
    const struct shape *shape;
    uint64_t rounds;
    double piece_bytes;       /* mean */
    uint32_t n_channels;      /* that share a rank's memory and wire */
    uint32_t slots;           /* of every link */
    bool direct;              /* buffers that peers reach directly */
    const struct plan_cost_wires *wires; /* NULL: those of the rates, shared by a node's senders */
};

/* Time until the last rank is through; negative: out of memory, or plans that never end. */
double plan_cost_ns(const struct plan_cost_call *call, const struct plan_rates *rates);

#endif
