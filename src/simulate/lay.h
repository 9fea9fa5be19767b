/* lay.h - plans laid over a network: bytes on every link.
 *
 * What a host sends to another is summed over its ranks and channels and spread over lanes. A lane joins NIC r here to
 * NIC r there (unaware: to NIC (r + d) mod R, d a hash of the two hosts: every NIC is still used once, which is kind),
 * by as many flows as it has connections, which switches hash apart. Flows take bytes by the rate of their NICs at
 * first (lay_job), and then by what their routes leave them (lay_settle): transport/link/send.c gives the next chunk to
 * the one that will have delivered it first, by measured rates. A lane whose NICs do not reach each other takes none.
 * Not modelled: lanes that leave a crowded route for another one (transport/link/route.h). */
#ifndef RAIL_SIMULATE_LAY_H
#define RAIL_SIMULATE_LAY_H

#include "simulate/job.h"

enum { LAY_SWITCHES = 6 };

struct lay_report {
    uint64_t plans;       /* whose steps were read */
    bool by_classes;      /* they are their classes' */
    double sent;          /* between hosts, payload */
    double by_switches[LAY_SWITCHES]; /* of it, by the switches that it passes: 1, 3, 5 */
    double cross_rail;    /* of it, from one rail to another */
    double host_most;     /* of one host */
    double local_most;    /* of one rank: through its node's links and peers' buffers */
};

/* Adds the job's bytes to loads, [network->n_links], and keeps its pairs of hosts. `progress` (NULL: nobody asks) is
 * told nodes done, now and then.
 * RAIL_E_ARGUMENT: two hosts do not reach each other. */
enum rail_result lay_job(struct job *job, const struct network *network, double *loads, struct lay_report *out,
                         void (*progress)(void *context, uint32_t done, uint32_t all), void *context);

/* All jobs of the network, after lay_job for each: pairs move bytes from flows on crowded routes to their others until
 * the busiest link does not get better. Where pairs and flows are more than 2^24, loads stay as they are. */
enum rail_result lay_settle(struct job *jobs, uint32_t n_jobs, const struct network *network, double *loads,
                            struct lay_report *reports);

struct lay_pair_facts {
    double ns;       /* the busiest link on any of its lanes: its load by its rate */
    double switches; /* on the longest way */
};
/* Of what one host sends to another, after all jobs were laid. */
enum rail_result lay_pair(const struct job *job, const struct network *network, const double *loads, uint32_t from,
                          uint32_t to, struct lay_pair_facts *out);

struct lay_tier {
    double most, mean, bytes; /* of links that carry anything; all together */
    double busiest_ns;
    uint64_t used, links, busiest; /* links that carry anything, that are up; the busiest, by time */
};
struct lay_summary {
    struct lay_tier tiers[NETWORK_TIERS];
    uint64_t busiest; /* link; by bytes over rate */
    double busiest_ns;
};
void lay_summarize(const struct network *network, const double *loads, struct lay_summary *out);

#endif
