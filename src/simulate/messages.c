/* messages.c - who sends to whom, and the clock of one sender. */
#include "simulate/messages.h"

#include <stdlib.h>
#include <string.h>

#include "algos/pairwise.h"

enum { NODES_CLOCKED = 256, SLOT_BYTES = 256 << 10 }; /* algos/choose.c, where no table is known */

bool messages_job(const struct job *job) { return job->choice.algorithm == PLAN_PAIRWISE; }

uint32_t messages_steps(const struct job *job) { return job->ask.send_recv ? 1 : job->shape.n_ranks - 1; }

uint32_t messages_to(const struct job *job, uint32_t rank, uint32_t step)
{
    if (job->ask.send_recv) return (rank + job->ask.shift) % job->shape.n_ranks;
    return pairwise_step(&job->shape, rank, step).to;
}

double messages_bytes(const struct job *job)
{
    uint64_t bytes = job->ask.send_recv ? job->ask.bytes : job->ask.bytes / job->shape.n_ranks;
    return (double)(bytes / JOB_ELEMENT_BYTES * JOB_ELEMENT_BYTES);
}

void messages_of_node(const struct job *job, uint32_t node, double *out)
{
    const struct shape *s = &job->shape;
    double bytes = messages_bytes(job);
    memset(out, 0, s->n_nodes * sizeof *out);
    uint32_t first = s->node_start[node], ranks = s->node_start[node + 1] - first, steps = messages_steps(job);
    /* In an AlltoAll each of the node's ranks sends the same to every other rank: one is walked for all. */
    uint32_t walked = job->ask.send_recv ? ranks : 1;
    for (uint32_t k = 0; k < walked; k++)
        for (uint32_t d = 1; d <= steps; d++)
            out[s->node_of[messages_to(job, s->order[first + k], d)]] += bytes * (ranks / walked);
}

/* ---- the clock ---- */

struct sender {
    const struct job *job;
    const struct network *network;
    const double *loads;
    uint32_t rank;
    struct lay_pair_facts *facts; /* [n_nodes]; switches < 0: not asked yet */
    double away;                  /* bytes to other hosts, all steps */
    double core, wire, local;     /* when each is free again */
    double done[PAIRWISE_AHEAD];
};

static enum rail_result facts_of(struct sender *s, uint32_t node, const struct lay_pair_facts **out)
{
    struct lay_pair_facts *f = &s->facts[node];
    *out = f;
    if (f->switches >= 0) return RAIL_OK;
    return lay_pair(s->job, s->network, s->loads, job_host(s->job, s->rank), s->job->host_of_node[node], f);
}

static double later(double a, double b) { return a > b ? a : b; }

static double slot_bytes(const struct job *job)
{
    return job->table.net_slot_bytes ? job->table.net_slot_bytes : SLOT_BYTES;
}

/* The rank puts a message into slots, itself; each leaves by the wire, or by the way to the node's memory, when it is
 * full and those before it have left. */
static enum rail_result send_one(struct sender *s, uint32_t step)
{
    const struct simulate_machine *m = s->job->ask.machine;
    const struct lay_pair_facts *facts;
    uint32_t to = messages_to(s->job, s->rank, step), node = s->job->shape.node_of[to];
    double bytes = messages_bytes(s->job), *done = &s->done[step % PAIRWISE_AHEAD];
    double slot = bytes < slot_bytes(s->job) ? bytes : slot_bytes(s->job), begin = later(s->core, *done) + m->step_ns;
    double full = begin + 2 * slot * m->memory_ns_per_byte, each, *way = &s->local;
    s->core = begin + 2 * bytes * m->memory_ns_per_byte;
    if (node == s->job->shape.node_of[s->rank]) {
        each = m->local_gbyte_s > 0 ? 1 / m->local_gbyte_s : 0;
        *done = m->local_hop_ns;
    } else {
        RAIL_TRY(facts_of(s, node, &facts));
        way = &s->wire, each = facts->ns / s->away;
        *done = m->hop_ns + facts->switches * m->switch_ns;
    }
    *way = later(later(*way, full) + bytes * each, s->core + slot * each);
    *done += *way;
    return RAIL_OK;
}

static enum rail_result clock_rank(struct sender *s, double *ns)
{
    const struct shape *shape = &s->job->shape;
    uint32_t steps = messages_steps(s->job);
    s->core = s->wire = s->local = s->away = 0;
    memset(s->done, 0, sizeof s->done);
    for (uint32_t v = 0; v < shape->n_nodes; v++) s->facts[v] = (struct lay_pair_facts){0, -1};
    for (uint32_t d = 1; d <= steps; d++)
        if (shape->node_of[messages_to(s->job, s->rank, d)] != shape->node_of[s->rank])
            s->away += messages_bytes(s->job);
    for (uint32_t d = 1; d <= steps; d++) RAIL_TRY(send_one(s, d));
    for (int k = 0; k < PAIRWISE_AHEAD; k++) *ns = later(*ns, s->done[k]);
    return RAIL_OK;
}

/* In Send/Recv few ranks of a node send to others: all are asked. */
enum rail_result messages_clock(const struct job *job, const struct network *network, const double *loads,
                                struct clocks_report *out)
{
    const struct shape *shape = &job->shape;
    struct sender s = {.job = job, .network = network, .loads = loads};
    uint32_t every = (shape->n_nodes + NODES_CLOCKED - 1) / NODES_CLOCKED, steps = messages_steps(job);
    enum rail_result r = RAIL_OK;
    s.facts = malloc(shape->n_nodes * sizeof *s.facts);
    if (!s.facts) return rail_fail(RAIL_E_SYSTEM, "messages: out of memory for %u nodes", shape->n_nodes);
    for (uint32_t v = 0; v < shape->n_nodes; v += every)
        for (uint32_t p = shape->node_start[v]; r == RAIL_OK && p < shape->node_start[v + 1]; p++) {
            if (p > shape->node_start[v] && !job->ask.send_recv) break;
            s.rank = shape->order[p];
            r = clock_rank(&s, &out->clock_ns);
            out->ranks++;
        }
    free(s.facts);
    out->chain = (steps + PAIRWISE_AHEAD - 1) / PAIRWISE_AHEAD;
    out->rounds = 1;
    return r;
}
