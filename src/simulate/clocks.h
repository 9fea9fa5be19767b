/* clocks.h - how long a laid job takes: its plans against clocks (plan/cost.h), where each link between hosts has the
 * rate that the loads leave it.
 *
 * What a rank sends to other hosts takes, all together, as long as the busiest link on its way needs for everything
 * that all jobs put on it. So congestion anywhere shows, and phases of one call that do not overlap are charged as if
 * they did. Links have fixed shares of their rank's wire; in a message of few rounds, whose phases follow one another,
 * also first come first served, and the better one counts: links really take turns. One channel's clocks run: while it
 * is in a hop the others have the wires, and all together take the busiest link's time or longer.
 *
 * All ranks' plans are run where they are few, or short (trees); in a large circle one node's ranks, each fed by its
 * own class: when all do the same, what one sends is what another one gets. The figures of its links are then the mean
 * of all members': what goes round passes each of them. A busier link bounds the whole, by link_ns. */
#ifndef RAIL_SIMULATE_CLOCKS_H
#define RAIL_SIMULATE_CLOCKS_H

#include "simulate/lay.h"

struct clocks_report {
    double ns;        /* until the last rank is through: the longest of the next three */
    double clock_ns;  /* of a channel by clocks, when the others are in nobody's way */
    double link_ns;   /* the busiest link of the network, all jobs */
    double local_ns;  /* the busiest rank's way to its peers' memory; 0 where that is not a way of its own */
    uint32_t chain;   /* hand-overs, one after another, of one round */
    uint64_t rounds;
    uint32_t ranks;   /* whose clocks ran */
};

/* RAIL_E_ARGUMENT: too much to run, and no circle. */
enum rail_result clocks_run(struct job *job, const struct network *network, const double *loads,
                            const struct lay_report *laid, const struct lay_summary *summary,
                            struct clocks_report *out);

#endif
