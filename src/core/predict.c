/* predict.c - from a call to the plans it would run, and their cost. */
#include "core/predict.h"

#include <stdlib.h>

#include "core/predict_network.h"
#include "core/table.h"
#include "plan/collective.h"
#include "plan/cost.h"
#include "simulate/messages.h"

/* AlltoAll over a network that is not known: everybody with everybody, one after another. */
static double pairwise_ns(const struct comm *comm, uint64_t block_bytes)
{
    struct predict_traffic t = {0};
    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        if (r == comm->rank) continue;
        bool away = comm->shape.node_of[r] != comm->shape.node_of[comm->rank];
        t.messages[away]++;
        t.bytes[away] += block_bytes;
    }
    return predict_messages(comm, &t, &t);
}

static struct plan *plans_of_all(const struct comm *comm, const struct collective *a, enum plan_algorithm algorithm)
{
    struct plan *plans = malloc(comm->n_ranks * sizeof *plans);
    struct collective_kind kind = collective_kind(a->kind);
    bool ordered = comm->table.deterministic && kind.reduces, written = plans != NULL;
    uint32_t root = kind.rooted ? (uint32_t)a->root : 0;
    for (uint32_t r = 0; written && r < comm->n_ranks; r++)
        written = ordered ? plan_write_in_rank_order(a->kind, algorithm, &comm->shape, r, 0, root, &plans[r])
                          : plan_write(a->kind, algorithm, &comm->shape, r, 0, root, &plans[r]);
    if (written) return plans;
    free(plans);
    return NULL;
}

enum rail_result predict_collective(const struct comm *comm, const struct collective *a, double *ns)
{
    size_t element = rail_type_bytes((enum rail_type)a->type);
    struct plan_rates rates = plan_rates_default(&comm->shape);
    *ns = 0;
    if (a->count == 0) return RAIL_OK;
    if (comm->n_ranks == 1) {
        *ns = rates.step_ns + 2.0 * (double)(a->count * element) * rates.memory_ns_per_byte;
        return RAIL_OK;
    }
    struct choice choice = choose_plan(a->kind, &comm->table, &comm->shape, a->count * element);
    bool laid = a->count * element >= JOB_ELEMENT_BYTES && predict_network_known(comm);
    if (choice.algorithm == PLAN_PAIRWISE && comm->shape.n_nodes > MESSAGES_HOSTS_MAX) laid = false;
    if (laid) return predict_network(comm, a, choice, &rates, ns);
    if (choice.algorithm == PLAN_PAIRWISE) return *ns = pairwise_ns(comm, a->count * element), RAIL_OK;
    struct plan *plans = plans_of_all(comm, a, choice.algorithm);
    if (!plans)
        return rail_fail(RAIL_E_SYSTEM, "ncclGroupSimulateEnd: out of memory for the plans of %u ranks", comm->n_ranks);
    struct plan_split split = {.count = a->count,
                               .grain = SHM_LINE / element,
                               .piece_max = choice.piece_bytes / element,
                               .n_channels = choice.n_channels,
                               .n_pieces = plans[0].n_pieces / collective_blocks(a->kind, comm->n_ranks)};
    uint64_t rounds = plan_round_count(&split, 0);
    struct plan_cost_call call = {
        .plans = plans,
        .shape = &comm->shape,
        .rounds = rounds,
        .piece_bytes = (double)(a->count * element) / ((double)split.n_channels * (double)rounds * split.n_pieces),
        .n_channels = split.n_channels,
        .slots = table_slots(comm->shape.n_nodes > 1, comm->unrung),
        .direct = comm->direct,
    };
    *ns = plan_cost_ns(&call, &rates);
    free(plans);
    if (*ns >= 0) return RAIL_OK;
    return rail_fail(RAIL_E_SYSTEM, "ncclGroupSimulateEnd: out of memory for the clocks of %u ranks", comm->n_ranks);
}

double predict_messages(const struct comm *comm, const struct predict_traffic *sent,
                        const struct predict_traffic *received)
{
    struct plan_rates rates = plan_rates_default(&comm->shape);
    const struct predict_traffic *both[2] = {sent, received};
    double memory = 0, wire = 0, hop = 0;
    for (int k = 0; k < 2; k++) {
        double bytes = (double)both[k]->bytes[1] * rates.wire_ns_per_byte;
        wire = bytes > wire ? bytes : wire; /* a wire carries both ways at once */
        for (int away = 0; away < 2; away++) {
            memory += (double)both[k]->messages[away] * rates.step_ns;
            memory += 2.0 * (double)both[k]->bytes[away] * rates.memory_ns_per_byte;
            if (both[k]->messages[away] && rates.hop_ns[away] > hop) hop = rates.hop_ns[away];
        }
    }
    return hop + memory + wire;
}
