/* job.c - from a request to shape, choice and pieces: the same functions in the same order as a communicator
 * (core/rails.c, core/table.c) takes. */
#include "simulate/job.h"

#include <stdlib.h>
#include <string.h>

#include "plan/collective.h"
#include "simulate/classes.h"
#include "simulate/messages.h"
#include "topo/order.h"

enum { FLOWS = 4 };

static enum rail_result check(const struct network *n, const struct job_request *q)
{
    if (q->n_hosts < 1 || q->n_hosts > n->n_hosts)
        return rail_fail(RAIL_E_ARGUMENT, "job: %u hosts, and the fabric has %u", q->n_hosts, n->n_hosts);
    if (q->gpus < 1 || (uint64_t)q->n_hosts * q->gpus > JOB_RANKS_MAX || (uint64_t)q->n_hosts * q->gpus < 2)
        return rail_fail(RAIL_E_ARGUMENT, "job: %u hosts of %u ranks; 2 to %u ranks can be planned", q->n_hosts,
                         q->gpus, JOB_RANKS_MAX);
    if (q->bytes < JOB_ELEMENT_BYTES || q->bytes > JOB_BYTES_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "job: a message of %llu bytes; %d to 1 PiB", (unsigned long long)q->bytes,
                         JOB_ELEMENT_BYTES);
    bool everybody = !q->send_recv && q->collective == PLAN_ALLTOALL;
    if (everybody && q->n_hosts > MESSAGES_HOSTS_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "job: AlltoAll of %u hosts, each of which sends to each; at most %d are laid",
                         q->n_hosts, MESSAGES_HOSTS_MAX);
    if (q->send_recv && (q->shift < 1 || q->shift >= q->n_hosts * q->gpus))
        return rail_fail(RAIL_E_ARGUMENT, "job: Send/Recv to the rank %u on, of %u; 1 to %u", q->shift,
                         q->n_hosts * q->gpus, q->n_hosts * q->gpus - 1);
    if (q->root >= q->n_hosts * q->gpus) return rail_fail(RAIL_E_ARGUMENT, "job: no rank %u for a root", q->root);
    if (q->flows > JOB_FLOWS_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "job: %u flows of a lane; at most %d", q->flows, JOB_FLOWS_MAX);
    if (q->channels > JOB_CHANNELS_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "job: %u channels; at most %d", q->channels, JOB_CHANNELS_MAX);
    return RAIL_OK;
}

/* ---- shape ---- */

/* Ranks are numbered host by host in the given order, as launchers do. */
static int shape_given(struct shape *shape, const struct network *n, const struct job_request *q)
{
    uint32_t ranks = q->n_hosts * q->gpus;
    uint64_t *keys = malloc(ranks * sizeof *keys);
    if (!keys) return -1;
    for (uint32_t r = 0; r < ranks; r++) keys[r] = r / q->gpus;
    int failed = shape_build(shape, ranks, keys, n->n_rails);
    free(keys);
    if (failed) return -1;
    for (uint32_t r = 0; r < ranks; r++) shape->rail_of[r] = (uint32_t)((uint64_t)(r % q->gpus) * n->n_rails / q->gpus);
    return 0;
}

static int order_nodes(struct job *job, const struct network *n)
{
    uint32_t nodes = job->shape.n_nodes, *order = malloc(nodes * sizeof *order);
    struct place *places = malloc(nodes * sizeof *places);
    int failed = order && places ? 0 : -1;
    for (uint32_t v = 0; !failed && v < nodes; v++) places[v] = network_place(n, job->ask.hosts[v]);
    if (!failed) failed = place_order(nodes, places, order);
    if (!failed) failed = shape_reorder(&job->shape, order);
    if (!failed) failed = place_tiers(&job->shape, places, order);
    for (uint32_t v = 0; !failed && v < nodes; v++) job->host_of_node[v] = job->ask.hosts[order[v]];
    free(order);
    free(places);
    return failed;
}

static enum rail_result make_shape(struct job *job, const struct network *n)
{
    job->host_of_node = malloc(job->ask.n_hosts * sizeof *job->host_of_node);
    if (!job->host_of_node || shape_given(&job->shape, n, &job->ask) != 0)
        return rail_fail(RAIL_E_SYSTEM, "job: out of memory for %u hosts", job->ask.n_hosts);
    memcpy(job->host_of_node, job->ask.hosts, job->ask.n_hosts * sizeof *job->host_of_node);
    if (!job->ask.as_given && order_nodes(job, n) != 0)
        return rail_fail(RAIL_E_SYSTEM, "job: out of memory for the order of %u hosts", job->ask.n_hosts);
    return RAIL_OK;
}

/* ---- choice ---- */

static enum rail_result choose(struct job *job)
{
    const struct job_request *q = &job->ask;
    uint32_t blocks = q->send_recv ? 1 : collective_blocks(q->collective, job->shape.n_ranks);
    uint64_t block = q->bytes / blocks;
    choice_table_default(&job->table, &job->shape);
    if (q->window_bytes) job->table.window_bytes = q->window_bytes;
    if (q->slot_bytes) job->table.net_slot_bytes = q->slot_bytes;
    job->table.forced_channels = q->channels;
    job->table.forced_algorithm = q->algorithm;
    if (block < JOB_ELEMENT_BYTES)
        return rail_fail(RAIL_E_ARGUMENT, "job: %llu bytes are less than an element for each of %u ranks",
                         (unsigned long long)q->bytes, blocks);
    job->choice = choose_plan(q->collective, &job->table, &job->shape, block);
    if (q->send_recv) job->choice = (struct choice){.algorithm = PLAN_PAIRWISE};
    if (q->algorithm >= 0 && (int)job->choice.algorithm != q->algorithm)
        return rail_fail(RAIL_E_ARGUMENT, "job: %s by %s does not fit %u hosts of %u ranks (the chooser takes %s)%s",
                         job_call_name(q), plan_algorithm_names[q->algorithm], q->n_hosts, q->gpus,
                         job_algorithm_name(job->choice.algorithm),
                         q->algorithm == PLAN_RAILS ? "; windows must hold a cache line for each rank: --window" : "");
    if (job->choice.n_channels > JOB_CHANNELS_MAX) job->choice.n_channels = JOB_CHANNELS_MAX;
    return RAIL_OK;
}

static enum rail_result make_pieces(struct job *job)
{
    const struct job_request *q = &job->ask;
    struct plan plan;
    if (messages_job(job)) return RAIL_OK;
    uint32_t blocks = collective_blocks(q->collective, job->shape.n_ranks);
    if (!job_plan_build(job, 0, 0, &plan))
        return rail_fail(RAIL_E_INTERNAL, "job: %s by %s was chosen, and has no plan", collective_name(q->collective),
                         plan_algorithm_names[job->choice.algorithm]);
    job->split = (struct plan_split){.count = q->bytes / blocks / JOB_ELEMENT_BYTES,
                                     .grain = 64 / JOB_ELEMENT_BYTES,
                                     .piece_max = job->choice.piece_bytes / JOB_ELEMENT_BYTES,
                                     .n_channels = job->choice.n_channels,
                                     .n_pieces = plan.n_pieces / blocks};
    for (uint32_t c = 0; c < job->choice.n_channels; c++)
        RAIL_TRY(pieces_make(&job->pieces[c], &job->split, c, blocks, JOB_ELEMENT_BYTES));
    return RAIL_OK;
}

const char *job_call_name(const struct job_request *q)
{
    return q->send_recv ? "Send/Recv" : collective_name(q->collective);
}

const char *job_algorithm_name(uint32_t algorithm)
{
    return algorithm < PLAN_ALGORITHMS ? plan_algorithm_names[algorithm] : "pairwise";
}

uint64_t job_bytes(uint32_t n_hosts, uint32_t gpus, bool everybody)
{
    uint64_t ranks = (uint64_t)n_hosts * gpus;
    uint64_t shape = ranks * (8 + 5 * 4) + (uint64_t)n_hosts * (sizeof(struct place) + 4 + 100);
    uint64_t pieces = ranks * 8 * 4 * 3;                                     /* some channels, running sums */
    uint64_t clocks = ranks * (sizeof(struct plan) + PLAN_MAX_LINKS * 150 + 700); /* cost.c, all ranks, at most */
    uint64_t pairs = everybody ? (uint64_t)n_hosts * n_hosts * sizeof(struct job_pair) * 2 : 0; /* grown by halves */
    return shape + pieces + clocks + pairs;
}

void job_clear(struct job *job)
{
    if (!job->borrowed) shape_clear(&job->shape);
    for (uint32_t c = 0; c < JOB_CHANNELS_MAX; c++) pieces_clear(&job->pieces[c]);
    free(job->host_of_node);
    free(job->classes);
    free(job->pairs);
    memset(job, 0, sizeof *job);
}

enum rail_result job_make(struct job *out, const struct network *network, const struct job_request *request)
{
    RAIL_TRY(check(network, request));
    memset(out, 0, sizeof *out);
    out->ask = *request;
    if (!out->ask.flows) out->ask.flows = FLOWS;
    enum rail_result r = make_shape(out, network);
    if (r == RAIL_OK) r = choose(out);
    if (r == RAIL_OK) r = make_pieces(out);
    if (r == RAIL_OK) r = classes_make(out);
    if (r != RAIL_OK) job_clear(out);
    return r;
}

enum rail_result job_of_shape(struct job *out, const struct job_request *request, const struct shape *shape,
                              struct choice choice, bool ordered)
{
    memset(out, 0, sizeof *out);
    out->ask = *request;
    out->ask.n_hosts = shape->n_nodes;
    if (!out->ask.flows) out->ask.flows = FLOWS;
    out->shape = *shape;
    out->borrowed = true;
    out->ordered = ordered;
    out->choice = choice;
    if (out->choice.n_channels > JOB_CHANNELS_MAX) out->choice.n_channels = JOB_CHANNELS_MAX;
    out->host_of_node = malloc(shape->n_nodes * sizeof *out->host_of_node);
    for (uint32_t v = 0; out->host_of_node && v < shape->n_nodes; v++) out->host_of_node[v] = v;
    enum rail_result r = out->host_of_node
                             ? make_pieces(out)
                             : rail_fail(RAIL_E_SYSTEM, "job: out of memory for %u hosts", shape->n_nodes);
    if (r == RAIL_OK) r = classes_make(out);
    if (r != RAIL_OK) job_clear(out);
    return r;
}

/* ---- plans ---- */

uint32_t job_host(const struct job *job, uint32_t rank) { return job->host_of_node[job->shape.node_of[rank]]; }

bool job_plan_build(const struct job *job, uint32_t rank, uint32_t channel, struct plan *out)
{
    if (job->ordered)
        return plan_write_in_rank_order(job->ask.collective, job->choice.algorithm, &job->shape, rank, channel,
                                        job->ask.root, out);
    return plan_write(job->ask.collective, job->choice.algorithm, &job->shape, rank, channel, job->ask.root, out);
}

enum rail_result job_plan(struct job *job, uint32_t rank, uint32_t channel, struct plan *plan, struct traffic *traffic)
{
    if (job->classes) {
        classes_plan(job, rank, channel, plan);
    } else if (!job_plan_build(job, rank, channel, plan)) {
        return rail_fail(RAIL_E_INTERNAL, "job: rank %u has no plan", rank);
    }
    traffic_of_plan(plan, &job->pieces[channel], job->ask.machine->direct, traffic);
    return RAIL_OK;
}
