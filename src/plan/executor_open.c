/* executor_open.c - setting the symbolic executor up: plans must be plans, agree with one another, and their links must
 * pair; then memory for all calls at once. */
#include "plan/executor.h"

#include <stdlib.h>

#include "plan/collective.h"

static bool plans_agree(struct executor *x, uint32_t call)
{
    const struct plan *plans = x->check->calls[call].plans;
    for (uint32_t rank = 0; rank < x->n_ranks; rank++) {
        const struct plan *p = &plans[rank], *q = &plans[0];
        if (!plan_validate(p, x->report->why, sizeof x->report->why)) {
            x->report->verdict = PLAN_WRONG_STRUCTURE;
            return false;
        }
        if (p->rank != rank || p->n_ranks != x->n_ranks || p->n_pieces != q->n_pieces || p->algorithm != q->algorithm ||
            p->channel != q->channel || p->collective != q->collective || p->root != q->root || p->flags != q->flags)
            return executor_fail(x, NULL, PLAN_WRONG_STRUCTURE, "rank %u's plan disagrees with rank 0's", rank);
        if (p->slots_min > x->n_slots && x->check->slots == 0) x->n_slots = p->slots_min;
        if (p->n_strands > x->max_strands) x->max_strands = p->n_strands;
        if (p->n_pieces > x->max_pieces) x->max_pieces = p->n_pieces;
        if (p->n_scratch > x->max_scratch) x->max_scratch = p->n_scratch;
    }
    for (uint32_t rank = 0; rank < x->n_ranks && collective_blocks(plans[0].collective, x->n_ranks) > 1; rank++)
        for (uint32_t other = 0; other < rank; other++)
            if (plans[rank].position == plans[other].position)
                return executor_fail(x, NULL, PLAN_WRONG_STRUCTURE, "ranks %u and %u have the same position", other,
                                     rank);
    return true;
}

static bool links_pair(struct executor *x, uint32_t call)
{
    const struct plan *plans = x->check->calls[call].plans;
    for (uint32_t rank = 0; rank < x->n_ranks; rank++)
        for (uint32_t k = 0; k < plans[rank].n_links; k++) {
            const struct plan_link *mine = &plans[rank].links[k];
            const struct plan *far = &plans[mine->peer];
            bool in = mine->direction == PLAN_LINK_IN, found = false;
            for (uint32_t j = 0; j < far->n_links; j++)
                found = found || (far->links[j].peer == rank && far->links[j].direction != mine->direction &&
                                  far->links[j].way == mine->way);
            if (!found)
                return executor_fail(x, NULL, PLAN_WRONG_STRUCTURE,
                                     "rank %u has a link %s rank %u, which has none %s it", rank, in ? "from" : "to",
                                     mine->peer, in ? "to" : "from");
            uint32_t from = in ? mine->peer : rank, to = in ? rank : mine->peer;
            uint32_t *known = fifo_index(x, from, to, mine->way);
            if (*known == 0) *known = ++x->n_fifos;
        }
    return true;
}

/* Where this rank's node begins among x->mates: after those of all nodes that a lower rank is in. */
static uint32_t place_of_node(const struct plan *plans, uint32_t rank, const uint32_t *node_first, uint32_t *n_placed)
{
    for (uint32_t other = 0; other < rank; other++)
        if (plans[other].node == plans[rank].node) return node_first[other];
    uint32_t first = *n_placed;
    *n_placed += plans[rank].n_peers;
    return first;
}

/* Plans with windows say who sits where: each node's peers must be all there, each once. */
static bool nodes_agree(struct executor *x, uint32_t call)
{
    const struct plan *plans = x->check->calls[call].plans;
    uint32_t *mates = x->mates + (size_t)call * x->n_ranks, *node_first = x->node_first + (size_t)call * x->n_ranks;
    uint32_t n_placed = 0;
    if (!(plans[0].flags & PLAN_WINDOWS)) return true;
    for (uint32_t k = 0; k < x->n_ranks; k++) mates[k] = UINT32_MAX;
    for (uint32_t rank = 0; rank < x->n_ranks; rank++) {
        node_first[rank] = place_of_node(plans, rank, node_first, &n_placed);
        uint32_t seat = node_first[rank] + plans[rank].peer;
        if (n_placed > x->n_ranks || seat >= n_placed || mates[seat] != UINT32_MAX)
            return executor_fail(x, NULL, PLAN_WRONG_STRUCTURE,
                                 "rank %u is peer %u of %u of node %u, as another is, or as there is no room for",
                                 rank, plans[rank].peer, plans[rank].n_peers, plans[rank].node);
        mates[seat] = rank;
    }
    for (uint32_t rank = 0; rank < x->n_ranks; rank++) /* all seats are taken: a wrong size would be another's */
        for (uint32_t peer = 0; peer < plans[rank].n_peers; peer++) {
            uint32_t mate = mates[node_first[rank] + peer];
            if (mate == UINT32_MAX || plans[mate].node != plans[rank].node ||
                plans[mate].n_peers != plans[rank].n_peers)
                return executor_fail(x, NULL, PLAN_WRONG_STRUCTURE, "rank %u's node %u has no peer %u of %u", rank,
                                     plans[rank].node, peer, plans[rank].n_peers);
        }
    return true;
}

/* Rounds of the window plans before this call, on its channel. */
static uint64_t rounds_before(const struct executor *x, uint32_t call)
{
    uint64_t rounds = 0;
    for (uint32_t k = 0; k < call; k++) {
        const struct plan *p = &x->check->calls[k].plans[0];
        if ((p->flags & PLAN_WINDOWS) && p->channel == x->check->calls[call].plans[0].channel)
            rounds += x->check->calls[k].rounds;
    }
    return rounds;
}

bool executor_open_calls(struct executor *x)
{
    uint32_t n = x->check->n_calls;
    x->first_number = calloc(n + 1, sizeof *x->first_number);
    x->first_cell = calloc(n + 1, sizeof *x->first_cell);
    x->began = calloc((size_t)n * x->n_ranks, sizeof *x->began);
    x->mates = calloc((size_t)n * x->n_ranks, sizeof *x->mates);
    x->node_first = calloc((size_t)n * x->n_ranks, sizeof *x->node_first);
    x->n_channels = 1;
    x->fifo_of = calloc((size_t)x->n_ranks * x->n_ranks * PLAN_WAYS, sizeof *x->fifo_of);
    if (!x->first_number || !x->first_cell || !x->began || !x->mates || !x->node_first || !x->fifo_of)
        return executor_fail(x, NULL, PLAN_UNCHECKED, "out of memory");
    for (uint32_t k = 0; k < n; k++) {
        const struct plan_check_call *call = &x->check->calls[k];
        if (!plans_agree(x, k) || !nodes_agree(x, k) || !links_pair(x, k)) return false;
        bool windows = call->plans[0].flags & PLAN_WINDOWS;
        x->first_number[k] = rounds_before(x, k);
        uint64_t end = x->first_number[k] + call->rounds;
        if (windows && end > x->n_numbers) x->n_numbers = end;
        if (windows && call->plans[0].channel >= x->n_channels) x->n_channels = call->plans[0].channel + 1u;
        x->first_cell[k + 1] = x->first_cell[k] + (size_t)2 * x->n_ranks * call->rounds * call->plans[0].n_pieces;
    }
    x->n_numbers++;
    return true;
}

bool executor_open_memory(struct executor *x)
{
    size_t n_windows = (size_t)x->n_channels * x->n_ranks * WINDOWS * PLAN_WINDOW_DEPTH;
    uint32_t n_threads = x->n_ranks * (x->max_strands + 1);
    size_t n_signals = (size_t)x->n_channels * x->n_ranks * PLAN_COUNTERS * x->n_numbers;
    size_t n_slots = (size_t)x->n_fifos * x->n_slots;
    x->ranks = calloc(x->n_ranks, sizeof *x->ranks);
    x->strands = calloc((size_t)x->n_ranks * x->max_strands, sizeof *x->strands);
    x->user = calloc(x->first_cell[x->check->n_calls] + 1, sizeof *x->user);
    x->scratch = calloc((size_t)x->n_ranks * x->max_scratch + 1, sizeof *x->scratch);
    x->windows = calloc(n_windows, sizeof *x->windows);
    x->window_cells = calloc(n_windows * x->max_pieces, sizeof *x->window_cells);
    x->signals = calloc(n_signals, sizeof *x->signals);
    x->fifos = calloc(x->n_fifos + 1, sizeof *x->fifos);
    x->slots = calloc(n_slots + 1, sizeof *x->slots);
    x->clocks = calloc((n_signals + n_slots) * n_threads, sizeof *x->clocks);
    x->values = values_open(x->n_ranks);
    bool ordered = order_open(&x->order, n_threads);
    if (!ordered || !x->ranks || !x->strands || !x->user || !x->scratch || !x->windows || !x->window_cells ||
        !x->signals || !x->fifos || !x->slots || !x->clocks || !x->values)
        return executor_fail(x, NULL, PLAN_UNCHECKED, "out of memory");
    for (size_t k = 0; k < n_signals; k++) x->signals[k].clock = x->clocks + k * n_threads;
    for (size_t k = 0; k < n_slots; k++) x->slots[k].clock = x->clocks + (n_signals + k) * n_threads;
    for (size_t k = 0; k < n_windows; k++) x->windows[k].cells = x->window_cells + k * x->max_pieces;
    return true;
}

void executor_fill(struct executor *x)
{
    for (uint32_t from = 0; from < x->n_ranks; from++) {
        x->ranks[from].strands = &x->strands[(size_t)from * x->max_strands];
        x->ranks[from].thread = from * (x->max_strands + 1) + x->max_strands;
        for (uint32_t end = 0; end < x->n_ranks * PLAN_WAYS; end++) {
            uint32_t to = end / PLAN_WAYS, k = *fifo_index(x, from, to, end % PLAN_WAYS);
            if (k > 0)
                x->fifos[k - 1] =
                    (struct fifo){.from = from, .to = to, .slots = x->slots + (size_t)(k - 1) * x->n_slots};
        }
    }
    for (uint32_t k = 0; k < x->check->n_calls; k++)
        for (uint32_t rank = 0; rank < x->n_ranks; rank++)
            for (uint32_t round = 0; round < x->check->calls[k].rounds; round++)
                for (uint32_t p = 0; p < x->check->calls[k].plans[0].n_pieces; p++)
                    if (plan_gives(&x->check->calls[k].plans[rank], p))
                        executor_user_cell(x, k, rank, false, round, p)->value = VALUE_RAW;
}

void executor_close(struct executor *x)
{
    free(x->first_number);
    free(x->first_cell);
    free(x->began);
    free(x->mates);
    free(x->node_first);
    free(x->ranks);
    free(x->strands);
    free(x->user);
    free(x->scratch);
    free(x->window_cells);
    free(x->windows);
    free(x->signals);
    free(x->clocks);
    free(x->fifos);
    free(x->slots);
    free(x->fifo_of);
    values_close(x->values);
    order_close(&x->order);
}
