/* lay_lanes.c - rails by the rates of their NICs, and flows onto links. */
#include "simulate/lay_lanes.h"

struct network_flow lanes_flow(const struct lanes *s, uint32_t rail, uint32_t number)
{
    return (struct network_flow){s->from, rail, s->to, (rail + s->shift) % s->network->n_rails, number};
}

static uint32_t shift_of(const struct job *job, const struct network *n, uint32_t from, uint32_t to)
{
    uint64_t x = ((uint64_t)from << 32 | to) * 0x9e3779b97f4a7c15u;
    return job->ask.unaware ? (uint32_t)((x ^ x >> 29) % n->n_rails) : 0;
}

void lanes_of(struct lanes *s, const struct job *job, const struct network *n, uint32_t from, uint32_t to)
{
    *s = (struct lanes){.job = job, .network = n, .from = from, .to = to, .shift = shift_of(job, n, from, to)};
}

enum rail_result lanes_between(struct lanes *s, const struct job *job, const struct network *n, uint32_t from,
                               uint32_t to)
{
    double sum = 0;
    char a[NETWORK_NAME_BYTES], b[NETWORK_NAME_BYTES];
    lanes_of(s, job, n, from, to);
    for (uint32_t r = 0; r < n->n_rails; r++) {
        struct network_flow flow = lanes_flow(s, r, 0);
        struct network_path path;
        double rate = network_lane_rate(n, &flow);
        s->share[r] = rate > 0 && network_route(n, &flow, &path) ? rate : 0;
        sum += s->share[r];
    }
    for (uint32_t r = 0; r < n->n_rails && sum > 0; r++) s->share[r] /= sum;
    if (sum > 0) return RAIL_OK;
    return rail_fail(RAIL_E_ARGUMENT,
                     "%s does not reach %s: no NIC %s has a way through the switches that are up%s",
                     network_host_name(n, from, a), network_host_name(n, to, b),
                     job->ask.unaware ? "of the one" : "and its fellow on the same rail",
                     n->n_tiers == 1 ? "; with one tier only hosts of one leaf reach each other: --tiers 2" : "");
}

void lanes_lay(const struct network *network, const struct network_flow *flow, double bytes, double *loads,
               struct lay_report *report)
{
    struct network_path path;
    network_route(network, flow, &path);
    for (uint32_t i = 0; i < path.n; i++) loads[path.link[i]] += bytes;
    report->by_switches[path.switches] += bytes;
    if (flow->from_rail != flow->to_rail) report->cross_rail += bytes;
}
