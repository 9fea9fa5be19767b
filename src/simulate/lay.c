/* lay.c - hosts to hosts, hosts to lanes, lanes to flows, flows to links. */
#include "simulate/lay_lanes.h"

#include <stdlib.h>
#include <string.h>

#include "plan/collective.h"
#include "simulate/messages.h"

/* ---- loads ---- */

struct laying {
    struct job *job;
    const struct network *network;
    double *loads;
    struct lay_report *report;
    uint64_t first;  /* of the host's pairs */
    double *by_node; /* of messages; NULL: there are plans */
};

static enum rail_result lay_one(struct laying *l, const struct job_pair *pair)
{
    struct lanes s;
    RAIL_TRY(lanes_between(&s, l->job, l->network, pair->from, pair->to));
    l->report->sent += pair->bytes;
    for (uint32_t r = 0; r < l->network->n_rails; r++) {
        double each = pair->bytes * s.share[r] / l->job->ask.flows;
        for (uint32_t k = 0; k < l->job->ask.flows && each > 0; k++) {
            struct network_flow flow = lanes_flow(&s, r, k);
            lanes_lay(l->network, &flow, each, l->loads, l->report);
        }
    }
    return RAIL_OK;
}

static enum rail_result add_pair(struct laying *l, uint32_t from, uint32_t to, double bytes)
{
    struct job *job = l->job;
    for (uint64_t k = l->first; k < job->n_pairs; k++)
        if (job->pairs[k].to == to) return job->pairs[k].bytes += bytes, RAIL_OK;
    if (job->n_pairs == job->pairs_room) {
        uint64_t room = job->pairs_room ? 2 * job->pairs_room : 64;
        struct job_pair *more = realloc(job->pairs, room * sizeof *more);
        if (!more) return rail_fail(RAIL_E_SYSTEM, "lay: out of memory for %llu pairs", (unsigned long long)room);
        job->pairs = more;
        job->pairs_room = room;
    }
    job->pairs[job->n_pairs++] = (struct job_pair){from, to, bytes};
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
            else RAIL_TRY(add_pair(l, from, to, (double)t.sent[k]));
        }
    }
    if (local > l->report->local_most) l->report->local_most = local;
    return RAIL_OK;
}

/* Nodes that it sends to are all different: none is looked for. */
static enum rail_result lay_messages(struct laying *l, uint32_t node)
{
    const struct shape *s = &l->job->shape;
    uint32_t from = l->job->host_of_node[node], ranks = s->node_start[node + 1] - s->node_start[node];
    messages_of_node(l->job, node, l->by_node);
    for (uint32_t v = 0; v < s->n_nodes; v++) {
        l->first = l->job->n_pairs;
        if (v != node && l->by_node[v] > 0) RAIL_TRY(add_pair(l, from, l->job->host_of_node[v], l->by_node[v]));
    }
    double local = l->by_node[node] / ranks;
    if (local > l->report->local_most) l->report->local_most = local;
    return RAIL_OK;
}

static enum rail_result lay_node(struct laying *l, uint32_t node)
{
    const struct shape *s = &l->job->shape;
    double sum = 0;
    uint64_t first = l->first = l->job->n_pairs;
    if (l->by_node) RAIL_TRY(lay_messages(l, node));
    for (uint32_t p = s->node_start[node]; !l->by_node && p < s->node_start[node + 1]; p++)
        RAIL_TRY(lay_rank(l, s->order[p]));
    l->first = first;
    for (uint64_t k = l->first; k < l->job->n_pairs; k++) {
        RAIL_TRY(lay_one(l, &l->job->pairs[k]));
        sum += l->job->pairs[k].bytes;
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
    job->n_pairs = 0;
    if (messages_job(job) && !(l.by_node = malloc(job->shape.n_nodes * sizeof *l.by_node)))
        return rail_fail(RAIL_E_SYSTEM, "lay: out of memory for %u nodes", job->shape.n_nodes);
    for (uint32_t v = 0; r == RAIL_OK && v < job->shape.n_nodes; v++) {
        r = lay_node(&l, v);
        if (progress && v % 16 == 15) progress(context, v + 1, job->shape.n_nodes);
    }
    free(l.by_node);
    return r;
}

/* ---- reading loads ---- */

enum rail_result lay_pair(const struct job *job, const struct network *n, const double *loads, uint32_t from,
                          uint32_t to, struct lay_pair_facts *out)
{
    struct lanes s;
    *out = (struct lay_pair_facts){0, 0};
    RAIL_TRY(lanes_between(&s, job, n, from, to));
    for (uint32_t r = 0; r < n->n_rails; r++)
        for (uint32_t k = 0; k < job->ask.flows && s.share[r] > 0; k++) {
            struct network_flow flow = lanes_flow(&s, r, k);
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
