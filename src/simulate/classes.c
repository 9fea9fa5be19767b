/* classes.c - representatives, their moves, and the comparison. */
#include "simulate/classes.h"

#include <stdlib.h>
#include <string.h>

#define CLASSES_FROM_PLANS ((uint64_t)1 << 21) /* some seconds of building */

bool classes_wanted(const struct job *job)
{
    bool circle = job->choice.algorithm == PLAN_RING || job->choice.algorithm == PLAN_RAILS;
    bool even = job->shape.node_least == job->shape.node_most;
    if (job->choice.algorithm == PLAN_PAIRWISE) return false; /* one of a node is walked for all (messages.h) */
    if (job->ask.method != JOB_AUTO) return job->ask.method == JOB_CLASSES;
    return circle && even && (uint64_t)job->shape.n_ranks * job->choice.n_channels > CLASSES_FROM_PLANS;
}

static const struct plan *representative(const struct job *job, uint32_t rank, uint32_t channel)
{
    return &job->classes[(uint64_t)channel * job->shape.node_most + job->shape.peer_of[rank]];
}

void classes_plan(const struct job *job, uint32_t rank, uint32_t channel, struct plan *out)
{
    const struct shape *s = &job->shape;
    memcpy(out, representative(job, rank, channel), sizeof *out);
    out->rank = rank;
    for (uint32_t k = 0; k < out->n_links; k++) {
        uint32_t peer = out->links[k].peer, node = (s->node_of[peer] + s->node_of[rank]) % s->n_nodes;
        out->links[k].peer = s->order[s->node_start[node] + s->peer_of[peer]];
    }
}

static bool same_steps(const struct plan *a, const struct plan *b)
{
    if (a->n_links != b->n_links || a->n_strands != b->n_strands || a->n_steps != b->n_steps ||
        a->n_operands != b->n_operands || a->n_pieces != b->n_pieces || a->flags != b->flags ||
        a->algorithm != b->algorithm || memcmp(a->strands, b->strands, a->n_strands * sizeof a->strands[0]) != 0 ||
        memcmp(a->steps, b->steps, a->n_steps * sizeof a->steps[0]) != 0)
        return false;
    for (uint32_t k = 0; k < a->n_operands; k++) /* pieces are those of another node */
        if (a->operands[k].place != b->operands[k].place || a->operands[k].span != b->operands[k].span ||
            memcmp(&a->operands[k].which, &b->operands[k].which, sizeof a->operands[k].which) != 0)
            return false;
    return true;
}

enum rail_result classes_check(struct job *job, uint32_t rank, uint32_t channel, const struct plan *built)
{
    struct plan mine;
    struct traffic expected, found;
    classes_plan(job, rank, channel, &mine);
    if (!same_steps(&mine, built))
        return rail_fail(RAIL_E_INTERNAL,
                         "classes: rank %u does other steps on channel %u than its class; build all plans", rank,
                         channel);
    traffic_of_plan(&mine, &job->pieces[channel], job->ask.machine->direct, &expected);
    traffic_of_plan(built, &job->pieces[channel], job->ask.machine->direct, &found);
    for (uint32_t k = 0; k < mine.n_links; k++) {
        uint64_t a = expected.sent[k], b = found.sent[k], apart = a > b ? a - b : b - a;
        if (memcmp(&mine.links[k], &built->links[k], sizeof mine.links[k]) != 0 || apart > (a > b ? a : b) / 100)
            return rail_fail(
                RAIL_E_INTERNAL,
                "classes: link %u of rank %u, channel %u, is to rank %u with %llu bytes, its class says rank %u and "
                "%llu; build all plans",
                k, rank, channel, built->links[k].peer, (unsigned long long)b, mine.links[k].peer,
                (unsigned long long)a);
    }
    return RAIL_OK;
}

/* Numerical Recipes' 64-bit constants: any fixed sequence will do. */
static uint32_t draw(uint64_t *state, uint32_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 33) % n);
}

enum rail_result classes_make(struct job *job) { return classes_wanted(job) ? classes_build(job) : RAIL_OK; }

enum rail_result classes_build(struct job *job)
{
    const struct shape *s = &job->shape;
    if (job->classes) return RAIL_OK;
    if (s->node_least != s->node_most)
        return rail_fail(RAIL_E_ARGUMENT, "classes: nodes have %u to %u ranks; build all plans", s->node_least,
                         s->node_most);
    job->classes = malloc((uint64_t)job->choice.n_channels * s->node_most * sizeof *job->classes);
    if (!job->classes)
        return rail_fail(RAIL_E_SYSTEM, "classes: out of memory for %u plans", job->choice.n_channels * s->node_most);
    for (uint32_t c = 0; c < job->choice.n_channels; c++)
        for (uint32_t j = 0; j < s->node_most; j++)
            if (!job_plan_build(job, s->order[j], c, &job->classes[(uint64_t)c * s->node_most + j]))
                return rail_fail(RAIL_E_INTERNAL, "classes: rank %u has no plan", s->order[j]);
    uint64_t state = 2024;
    for (uint32_t k = 0; k < JOB_SAMPLES; k++) {
        uint32_t rank = draw(&state, s->n_ranks), channel = draw(&state, job->choice.n_channels);
        struct plan built;
        if (!job_plan_build(job, rank, channel, &built))
            return rail_fail(RAIL_E_INTERNAL, "classes: rank %u has no plan", rank);
        RAIL_TRY(classes_check(job, rank, channel, &built));
        job->n_checked++;
    }
    return RAIL_OK;
}
