/* settle.c - pairs of hosts move their bytes to the flows whose routes have room, as pulled chunks do.
 *
 * A flow's cost is the time that the busiest link on its way needs for all that is on it. In each turn a pair's flows
 * take bytes by what they had over their cost, so that in the end those of one pair are through together. Where two
 * pairs meet on one link and have one each for themselves, a turn brings half, half to a third, two thirds, and stays.
 * Turns of many pairs at once may go too far: what is kept is the best there was. */
#include <stdlib.h>
#include <string.h>

#include "simulate/lay_lanes.h"

enum { TURNS = 8, FLOWS_ALL_MAX = 1 << 24 };
#define WORTH 0.999 /* of the busiest link's time: what is less gain than this leaves all as it was */

struct settling {
    struct job *job;
    uint32_t flows;             /* of a pair: rails times flows of a lane */
    double *share;              /* [n_pairs][flows] */
    struct lay_report report;   /* of the last turn */
};

static enum rail_result begin(struct settling *s, struct job *job, const struct network *n)
{
    uint32_t flows = n->n_rails * job->ask.flows;
    *s = (struct settling){.job = job, .flows = flows, .share = malloc((job->n_pairs * flows + 1) * sizeof(double))};
    if (!s->share) return rail_fail(RAIL_E_SYSTEM, "lay: out of memory for %llu flows",
                                    (unsigned long long)(job->n_pairs * flows));
    for (uint64_t k = 0; k < job->n_pairs; k++) {
        struct lanes lanes;
        RAIL_TRY(lanes_between(&lanes, job, n, job->pairs[k].from, job->pairs[k].to));
        for (uint32_t f = 0; f < flows; f++)
            s->share[k * flows + f] = lanes.share[f / job->ask.flows] / job->ask.flows;
    }
    return RAIL_OK;
}

static double cost(const struct network *n, const struct network_flow *flow, const double *loads)
{
    struct network_path path;
    double most = 0;
    network_route(n, flow, &path);
    for (uint32_t i = 0; i < path.n; i++) {
        double ns = loads[path.link[i]] / (double)n->rate[path.link[i]];
        if (ns > most) most = ns;
    }
    return most;
}

/* A pair's next shares by the loads of the turn before, and their bytes onto `next`. */
static enum rail_result turn_pair(struct settling *s, uint64_t k, const struct network *n, const double *loads,
                                  double *next)
{
    const struct job_pair *pair = &s->job->pairs[k];
    double *share = &s->share[k * s->flows];
    struct lanes lanes;
    double sum = 0;
    RAIL_TRY(lanes_between(&lanes, s->job, n, pair->from, pair->to));
    for (uint32_t f = 0; f < s->flows; f++) {
        struct network_flow flow = lanes_flow(&lanes, f / s->job->ask.flows, f % s->job->ask.flows);
        double ns = share[f] > 0 ? cost(n, &flow, loads) : 0;
        if (ns > 0) share[f] = share[f] / ns;
        sum += share[f];
    }
    for (uint32_t f = 0; f < s->flows; f++) {
        struct network_flow flow = lanes_flow(&lanes, f / s->job->ask.flows, f % s->job->ask.flows);
        if (share[f] <= 0) continue;
        share[f] = share[f] / sum;
        lanes_lay(n, &flow, pair->bytes * share[f], next, &s->report);
    }
    return RAIL_OK;
}

static void clear_report(struct lay_report *report, const struct lay_report *from)
{
    *report = *from;
    memset(report->by_switches, 0, sizeof report->by_switches);
    report->cross_rail = 0;
}

static double busiest(const struct network *n, const double *loads)
{
    double most = 0;
    for (uint64_t k = 0; k < n->n_links; k++)
        if (loads[k] > 0 && loads[k] / (double)n->rate[k] > most) most = loads[k] / (double)n->rate[k];
    return most;
}

static enum rail_result turns(struct settling *all, uint32_t n_jobs, const struct network *n, double *loads,
                              double *last, double *next, struct lay_report *reports)
{
    double best = busiest(n, loads) * WORTH;
    memcpy(last, loads, n->n_links * sizeof *last);
    for (int turn = 0; turn < TURNS; turn++) {
        memset(next, 0, n->n_links * sizeof *next);
        for (uint32_t j = 0; j < n_jobs; j++) {
            clear_report(&all[j].report, &reports[j]);
            for (uint64_t k = 0; k < all[j].job->n_pairs; k++) RAIL_TRY(turn_pair(&all[j], k, n, last, next));
        }
        double now = busiest(n, next);
        memcpy(last, next, n->n_links * sizeof *last);
        if (now < best) {
            memcpy(loads, next, n->n_links * sizeof *loads);
            for (uint32_t j = 0; j < n_jobs; j++) reports[j] = all[j].report;
            best = now * WORTH;
        } else if (turn > 1) {
            break;
        }
    }
    return RAIL_OK;
}

enum rail_result lay_settle(struct job *jobs, uint32_t n_jobs, const struct network *n, double *loads,
                            struct lay_report *reports)
{
    uint64_t flows = 0;
    for (uint32_t j = 0; j < n_jobs; j++) flows += jobs[j].n_pairs * n->n_rails * jobs[j].ask.flows;
    if (flows > FLOWS_ALL_MAX) return RAIL_OK;
    struct settling *all = calloc(n_jobs, sizeof *all);
    double *last = malloc((n->n_links + 1) * sizeof *last), *next = malloc((n->n_links + 1) * sizeof *next);
    enum rail_result r = all && last && next ? RAIL_OK : rail_fail(RAIL_E_SYSTEM, "lay: out of memory for %llu links",
                                                                   (unsigned long long)n->n_links);
    for (uint32_t j = 0; r == RAIL_OK && j < n_jobs; j++) r = begin(&all[j], &jobs[j], n);
    if (r == RAIL_OK) r = turns(all, n_jobs, n, loads, last, next, reports);
    for (uint32_t j = 0; all && j < n_jobs; j++) free(all[j].share);
    free(all), free(last), free(next);
    return r;
}
