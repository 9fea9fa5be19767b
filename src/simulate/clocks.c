/* clocks.c - figures for links, then plan/cost.c. */
#include "simulate/clocks.h"

#include <stdlib.h>
#include <string.h>

#include "plan/cost.h"
#include "simulate/classes.h"
#include "simulate/messages.h"

/* Steps of a round that are run with all ranks; some 50 ns each. */
#define STEPS_OF_ALL_MAX ((uint64_t)1 << 23)
/* Up to here phases follow one another, and a link may have the wire for itself for a while; with more they overlap. */
#define FEW_ROUNDS 6
/* Slots of a link (core/table.c). */
#define SLOTS 4

struct clocks {
    struct job *job;
    const struct network *network;
    const double *loads;
    uint32_t n; /* ranks whose clocks run */
    struct plan *plans;
    double *ns_per_byte, *share_ns, *hop_ns; /* [n][PLAN_MAX_LINKS]; share_ns: per byte, of a share of its own */
    uint32_t *fed_by; /* NULL: all ranks */
    struct shape node; /* of a circle's ranks */
};

static void clocks_clear(struct clocks *c)
{
    free(c->plans), free(c->ns_per_byte), free(c->share_ns), free(c->hop_ns), free(c->fed_by);
    shape_clear(&c->node);
}

/* Adds the figures of one rank's links out. */
static enum rail_result weigh(struct clocks *c, const struct plan *plan, const struct traffic *t, uint32_t at)
{
    const struct simulate_machine *machine = c->job->ask.machine;
    uint32_t from = job_host(c->job, plan->rank);
    double away = 0;
    for (uint32_t k = 0; k < plan->n_links; k++)
        if (job_host(c->job, plan->links[k].peer) != from) away += (double)t->sent[k];
    for (uint32_t k = 0; k < plan->n_links; k++) {
        size_t entry = (size_t)at * PLAN_MAX_LINKS + k;
        uint32_t to = job_host(c->job, plan->links[k].peer);
        struct lay_pair_facts facts = {0, 0};
        if (plan->links[k].direction != PLAN_LINK_OUT) continue;
        if (to != from) RAIL_TRY(lay_pair(c->job, c->network, c->loads, from, to, &facts));
        c->hop_ns[entry] += to != from ? machine->hop_ns + facts.switches * machine->switch_ns : machine->local_hop_ns;
        c->ns_per_byte[entry] += to != from && away > 0 ? facts.ns / away : 0;
        c->share_ns[entry] += to != from && t->sent[k] > 0 ? facts.ns / (double)t->sent[k] : 0;
    }
    return RAIL_OK;
}

static enum rail_result allocate(struct clocks *c, uint32_t n, bool circle)
{
    size_t links = (size_t)n * PLAN_MAX_LINKS;
    c->n = n;
    c->plans = malloc(n * sizeof *c->plans);
    c->ns_per_byte = calloc(links, sizeof *c->ns_per_byte);
    c->share_ns = calloc(links, sizeof *c->share_ns);
    c->hop_ns = calloc(links, sizeof *c->hop_ns);
    if (circle) c->fed_by = calloc(links, sizeof *c->fed_by);
    if (c->plans && c->ns_per_byte && c->share_ns && c->hop_ns && (c->fed_by || !circle)) return RAIL_OK;
    return rail_fail(RAIL_E_SYSTEM, "clocks: out of memory for %u ranks", n);
}

static enum rail_result prepare_all(struct clocks *c)
{
    struct traffic t;
    RAIL_TRY(allocate(c, c->job->shape.n_ranks, false));
    for (uint32_t r = 0; r < c->n; r++) {
        RAIL_TRY(job_plan(c->job, r, 0, &c->plans[r], &t));
        RAIL_TRY(weigh(c, &c->plans[r], &t, r));
    }
    return RAIL_OK;
}

/* ---- a circle: the ranks of the first node ---- */

static enum rail_result feed(struct clocks *c, uint32_t at)
{
    const struct plan *mine = &c->plans[at];
    uint32_t me = mine->rank;
    for (uint32_t k = 0; k < mine->n_links; k++) {
        const struct plan_link *l = &mine->links[k];
        struct plan theirs;
        uint32_t j = 0;
        if (l->direction != PLAN_LINK_IN) continue;
        if (!job_plan_build(c->job, l->peer, 0, &theirs))
            return rail_fail(RAIL_E_INTERNAL, "clocks: rank %u has no plan", l->peer);
        while (j < theirs.n_links && !(theirs.links[j].direction == PLAN_LINK_OUT && theirs.links[j].peer == me &&
                                       theirs.links[j].way == l->way))
            j++;
        if (j == theirs.n_links)
            return rail_fail(RAIL_E_INTERNAL, "clocks: rank %u has no link to rank %u, which has one from it", l->peer,
                             me);
        c->fed_by[at * PLAN_MAX_LINKS + k] = c->job->shape.peer_of[l->peer] * PLAN_MAX_LINKS + j;
    }
    return RAIL_OK;
}

static enum rail_result prepare_circle(struct clocks *c)
{
    const struct shape *s = &c->job->shape;
    uint32_t k = s->node_most;
    uint64_t keys[64] = {0};
    struct plan plan;
    struct traffic t;
    RAIL_TRY(classes_build(c->job)); /* a thousand ranks say that it is a circle */
    RAIL_TRY(allocate(c, k, true));
    if (k > 64 || shape_build(&c->node, k, keys, 1) != 0)
        return rail_fail(RAIL_E_SYSTEM, "clocks: no shape of %u ranks", k);
    for (uint32_t j = 0; j < k; j++)
        if (!job_plan_build(c->job, s->order[j], 0, &c->plans[j]))
            return rail_fail(RAIL_E_INTERNAL, "clocks: rank %u has no plan", s->order[j]);
    for (uint32_t j = 0; j < k; j++) RAIL_TRY(feed(c, j));
    for (uint32_t j = 0; j < k; j++) c->plans[j].rank = j;
    for (uint32_t r = 0; r < s->n_ranks; r++) {
        RAIL_TRY(job_plan(c->job, r, 0, &plan, &t));
        RAIL_TRY(weigh(c, &plan, &t, s->peer_of[r]));
    }
    for (size_t l = 0; l < (size_t)k * PLAN_MAX_LINKS; l++) {
        c->ns_per_byte[l] /= s->n_nodes;
        c->share_ns[l] /= s->n_nodes;
        c->hop_ns[l] /= s->n_nodes;
    }
    return RAIL_OK;
}

/* ---- running ---- */

static double run(const struct clocks *c, bool apart, uint64_t rounds, double piece_bytes,
                  const struct plan_rates *rates)
{
    struct plan_cost_wires wires = {apart ? c->share_ns : c->ns_per_byte, c->hop_ns, apart, c->fed_by};
    struct plan_cost_call call = {.plans = c->plans,
                                  .shape = c->fed_by ? &c->node : &c->job->shape,
                                  .rounds = rounds,
                                  .piece_bytes = piece_bytes,
                                  .n_channels = 1,
                                  .slots = SLOTS,
                                  .direct = c->job->ask.machine->direct,
                                  .wires = &wires};
    return plan_cost_ns(&call, rates);
}

static void scale(double *figures, size_t n, double factor)
{
    for (size_t k = 0; k < n; k++) figures[k] *= factor;
}

/* One channel that finds the wires free: the others are in their hops and moves meanwhile. With C channels a step takes
 * hop + move + wire, or C times the wire alone where that is more; the latter is the busiest link's time. */
static enum rail_result run_both(struct clocks *c, struct clocks_report *out)
{
    const struct simulate_machine *machine = c->job->ask.machine;
    const struct pieces *p = &c->job->pieces[0];
    size_t n = (size_t)c->n * PLAN_MAX_LINKS;
    struct plan_rates rates = {.hop_ns = {machine->local_hop_ns, 0}, .step_ns = machine->step_ns,
                               .memory_ns_per_byte = machine->memory_ns_per_byte};
    struct plan_rates hops = {.hop_ns = {1, 1}};
    double piece = (double)p->total / ((double)p->rounds * p->n);
    scale(c->share_ns, n, 1.0 / c->job->choice.n_channels);
    scale(c->ns_per_byte, n, 1.0 / c->job->choice.n_channels);
    out->clock_ns = run(c, true, p->rounds, piece, &rates);
    double in_turn = p->rounds <= FEW_ROUNDS ? run(c, false, p->rounds, piece, &rates) : out->clock_ns;
    if (in_turn < out->clock_ns) out->clock_ns = in_turn;
    for (size_t k = 0; k < n; k++) c->hop_ns[k] = 1;
    double chain = run(c, true, 1, 0, &hops);
    if (out->clock_ns < 0 || chain < 0)
        return rail_fail(RAIL_E_SYSTEM, "clocks: out of memory for the clocks of %u ranks, or plans that never end",
                         c->n);
    out->chain = (uint32_t)chain;
    out->rounds = p->rounds;
    out->ranks = c->n;
    return RAIL_OK;
}

enum rail_result clocks_run(struct job *job, const struct network *network, const double *loads,
                            const struct lay_report *laid, const struct lay_summary *summary, struct clocks_report *out)
{
    struct clocks c = {.job = job, .network = network, .loads = loads};
    bool circle = job->choice.algorithm == PLAN_RING || job->choice.algorithm == PLAN_RAILS;
    bool even = job->shape.node_least == job->shape.node_most && job->shape.node_most <= 64, calls = messages_job(job);
    bool few = (uint64_t)job->shape.n_ranks * job->pieces[0].n <= STEPS_OF_ALL_MAX;
    memset(out, 0, sizeof *out);
    if (!few && !(circle && even))
        return rail_fail(RAIL_E_ARGUMENT, "%s of %u ranks on hosts of %u to %u ranks is too much to time step by step; ring and rails "
                         "are timed in any number where all hosts have equally many ranks, 64 at most: ask for fewer",
                         plan_algorithm_names[job->choice.algorithm], job->shape.n_ranks, job->shape.node_least,
                         job->shape.node_most);
    bool all = few && job->ask.method != JOB_CLASSES;
    enum rail_result r = calls ? messages_clock(job, network, loads, out) : all ? prepare_all(&c) : prepare_circle(&c);
    if (r == RAIL_OK && !calls) r = run_both(&c, out);
    clocks_clear(&c);
    if (r != RAIL_OK) return r;
    double gbyte_s = job->ask.machine->local_gbyte_s;
    out->link_ns = summary->busiest_ns;
    out->local_ns = gbyte_s > 0 ? laid->local_most / gbyte_s : 0;
    out->ns = out->clock_ns > out->link_ns ? out->clock_ns : out->link_ns;
    if (out->local_ns > out->ns) out->ns = out->local_ns;
    return RAIL_OK;
}
