/* lay.c - hosts to hosts, hosts to lanes, lanes to flows, flows to links. */
#include "simulate/lay.h"

#include <stdlib.h>
#include <string.h>

#include "plan/collective.h"

/* ---- lanes ---- */

struct spread {
    const struct job *job;
    const struct network *network;
    uint32_t from, to;
    uint32_t shift; /* of rails, at the other end */
    double share[NETWORK_RAILS_MAX]; /* by rail of the sender */
};

static struct network_flow lane_flow(const struct spread *s, uint32_t rail, uint32_t number)
{
    return (struct network_flow){s->from, rail, s->to, (rail + s->shift) % s->network->n_rails, number};
}

static uint32_t shift_of(const struct job *job, const struct network *n, uint32_t from, uint32_t to)
{
    uint64_t x = ((uint64_t)from << 32 | to) * 0x9e3779b97f4a7c15u;
    return job->ask.unaware ? (uint32_t)((x ^ x >> 29) % n->n_rails) : 0;
}

static enum rail_result spread_make(struct spread *s, const struct job *job, const struct network *n, uint32_t from,
                                    uint32_t to)
{
    double sum = 0;
    char a[NETWORK_NAME_BYTES], b[NETWORK_NAME_BYTES];
    *s = (struct spread){.job = job, .network = n, .from = from, .to = to, .shift = shift_of(job, n, from, to)};
    for (uint32_t r = 0; r < n->n_rails; r++) {
        struct network_flow flow = lane_flow(s, r, 0);
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

/* ---- loads ---- */

struct pair { uint32_t to; double bytes; };
struct laying {
    struct job *job;
    const struct network *network;
    double *loads;
    struct lay_report *report;
    struct pair *pairs; /* of one host */
    uint32_t n_pairs, room;
};

static enum rail_result lay_one(struct laying *l, uint32_t from, uint32_t to, double bytes)
{
    struct spread s;
    RAIL_TRY(spread_make(&s, l->job, l->network, from, to));
    l->report->sent += bytes;
    for (uint32_t r = 0; r < l->network->n_rails; r++) {
        double each = bytes * s.share[r] / l->job->ask.flows;
        for (uint32_t k = 0; k < l->job->ask.flows && each > 0; k++) {
            struct network_flow flow = lane_flow(&s, r, k);
            struct network_path path;
            network_route(l->network, &flow, &path);
            for (uint32_t i = 0; i < path.n; i++) l->loads[path.link[i]] += each;
            l->report->by_switches[path.switches] += each;
            if (flow.from_rail != flow.to_rail) l->report->cross_rail += each;
        }
    }
    return RAIL_OK;
}

static enum rail_result add_pair(struct laying *l, uint32_t to, double bytes)
{
    for (uint32_t k = 0; k < l->n_pairs; k++)
        if (l->pairs[k].to == to) return l->pairs[k].bytes += bytes, RAIL_OK;
    if (l->n_pairs == l->room) {
        uint32_t room = l->room ? 2 * l->room : 64;
        struct pair *more = realloc(l->pairs, room * sizeof *more);
        if (!more) return rail_fail(RAIL_E_SYSTEM, "lay: out of memory for %u pairs", room);
        l->pairs = more;
        l->room = room;
    }
    l->pairs[l->n_pairs++] = (struct pair){to, bytes};
    return RAIL_OK;
}

static enum rail_result lay_rank(struct laying *l, uint32_t rank)
{
    struct plan plan;
    struct traffic t;
    uint32_t from = job_host(l->job, rank);
    double local = 0;
    for (uint32_t c = 0; c < l->job->choice.n_channels; c++) {
        RAIL_TRY(job_plan(l->job, rank, c, &plan, &t));
        l->report->plans++;
        local += (double)t.peers;
        for (uint32_t k = 0; k < plan.n_links; k++) {
            uint32_t to = job_host(l->job, plan.links[k].peer);
            if (t.sent[k] == 0) continue;
            if (to == from) local += (double)t.sent[k];
            else RAIL_TRY(add_pair(l, to, (double)t.sent[k]));
        }
    }
    if (local > l->report->local_most) l->report->local_most = local;
    return RAIL_OK;
}

static enum rail_result lay_node(struct laying *l, uint32_t node)
{
    const struct shape *s = &l->job->shape;
    double sum = 0;
    l->n_pairs = 0;
    for (uint32_t p = s->node_start[node]; p < s->node_start[node + 1]; p++) RAIL_TRY(lay_rank(l, s->order[p]));
    for (uint32_t k = 0; k < l->n_pairs; k++) {
        RAIL_TRY(lay_one(l, l->job->host_of_node[node], l->pairs[k].to, l->pairs[k].bytes));
        sum += l->pairs[k].bytes;
    }
    if (sum > l->report->host_most) l->report->host_most = sum;
    return RAIL_OK;
}

enum rail_result lay_job(struct job *job, const struct network *network, double *loads, struct lay_report *out,
                         void (*progress)(void *context, uint32_t done, uint32_t all), void *context)
{
    struct laying l = {.job = job, .network = network, .loads = loads, .report = out};
    enum rail_result r = RAIL_OK;
    memset(out, 0, sizeof *out);
    out->by_classes = job->classes != NULL;
    for (uint32_t v = 0; r == RAIL_OK && v < job->shape.n_nodes; v++) {
        r = lay_node(&l, v);
        if (progress && v % 256 == 255) progress(context, v + 1, job->shape.n_nodes);
    }
    free(l.pairs);
    return r;
}

/* ---- reading loads ---- */

enum rail_result lay_pair(const struct job *job, const struct network *n, const double *loads, uint32_t from,
                          uint32_t to, struct lay_pair_facts *out)
{
    struct spread s;
    *out = (struct lay_pair_facts){0, 0};
    RAIL_TRY(spread_make(&s, job, n, from, to));
    for (uint32_t r = 0; r < n->n_rails; r++)
        for (uint32_t k = 0; k < job->ask.flows && s.share[r] > 0; k++) {
            struct network_flow flow = lane_flow(&s, r, k);
            struct network_path path;
            network_route(n, &flow, &path);
            if (path.switches > out->switches) out->switches = path.switches;
            for (uint32_t i = 0; i < path.n; i++) {
                double ns = loads[path.link[i]] / (double)n->rate[path.link[i]];
                if (ns > out->ns) out->ns = ns;
            }
        }
    return RAIL_OK;
}

void lay_summarize(const struct network *n, const double *loads, struct lay_summary *out)
{
    memset(out, 0, sizeof *out);
    for (int t = 0; t < NETWORK_TIERS; t++) {
        struct lay_tier *tier = &out->tiers[t];
        for (uint64_t k = n->first[t]; k < n->first[t + 1]; k++) {
            double ns = loads[k] > 0 ? loads[k] / (double)n->rate[k] : 0;
            tier->links += n->rate[k] > 0;
            tier->used += loads[k] > 0;
            tier->bytes += loads[k];
            if (loads[k] > tier->most) tier->most = loads[k];
            if (ns > tier->busiest_ns) tier->busiest_ns = ns, tier->busiest = k;
        }
        tier->mean = tier->used ? tier->bytes / (double)tier->used : 0;
        if (tier->busiest_ns > out->busiest_ns) out->busiest_ns = tier->busiest_ns, out->busiest = tier->busiest;
    }
}
