/* write.c - see write.h. */
#include "plan/write.h"

#include <assert.h>
#include <string.h>

#include "plan/collective.h"

struct plan_index plan_constant(uint32_t value) { return (struct plan_index){0, value, value + 1}; }

struct plan_index plan_index_mod(int32_t a, uint64_t b, uint32_t m)
{
    return (struct plan_index){a, (uint32_t)(b % m), m};
}

struct plan_operand plan_own(enum plan_place place, struct plan_index piece)
{
    return (struct plan_operand){.place = (uint8_t)place, .span = 1, .which = plan_constant(0), .piece = piece};
}

struct plan_operand plan_slot(enum plan_place place, uint16_t link, struct plan_index piece)
{
    return (struct plan_operand){.place = (uint8_t)place, .span = 1, .which = plan_constant(link), .piece = piece};
}

struct plan_operand plan_peer(enum plan_place place, struct plan_index which, uint16_t span, struct plan_index piece)
{
    return (struct plan_operand){.place = (uint8_t)place, .span = span, .which = which, .piece = piece};
}

void plan_begin(struct plan *plan, enum plan_algorithm algorithm, uint32_t rank, uint32_t n_ranks, uint32_t channel)
{
    memset(plan, 0, sizeof *plan); /* plans are compared and hashed as bytes */
    plan->algorithm = (uint16_t)algorithm;
    plan->rank = rank;
    plan->n_ranks = n_ranks;
    plan->channel = (uint16_t)channel;
    plan->n_pieces = 1;
    plan->slots_min = 1;
}

void plan_begin_collective(struct plan *plan, enum plan_collective collective, enum plan_algorithm algorithm,
                           uint32_t rank, uint32_t n_ranks, uint32_t channel, uint32_t root, uint32_t position)
{
    plan_begin(plan, algorithm, rank, n_ranks, channel);
    plan->collective = (uint16_t)collective;
    plan->root = root;
    plan->position = position;
    plan->n_pieces = collective_blocks(collective, n_ranks);
}

static uint16_t link_add(struct plan *plan, uint32_t peer, enum plan_direction direction, uint16_t way)
{
    assert(plan->n_links < PLAN_MAX_LINKS);
    plan->links[plan->n_links] = (struct plan_link){peer, (uint16_t)direction, way};
    return plan->n_links++;
}

uint16_t plan_add_link(struct plan *plan, uint32_t peer, enum plan_direction direction)
{
    return link_add(plan, peer, direction, 0);
}

uint16_t plan_add_link_back(struct plan *plan, uint32_t peer, enum plan_direction direction)
{
    return link_add(plan, peer, direction, 1);
}

void plan_add_strand(struct plan *plan)
{
    assert(plan->n_strands < PLAN_MAX_STRANDS);
    plan->strands[plan->n_strands++] = (struct plan_strand){.first = plan->n_steps};
}

static struct plan_step *step_add(struct plan *plan, enum plan_verb verb)
{
    assert(plan->n_strands > 0 && plan->n_steps < PLAN_MAX_STEPS);
    plan->strands[plan->n_strands - 1].n_steps++;
    struct plan_step *step = &plan->steps[plan->n_steps++];
    step->verb = (uint8_t)verb;
    step->first = plan->n_operands;
    return step;
}

static void operand_add(struct plan *plan, struct plan_operand operand)
{
    assert(plan->n_operands < PLAN_MAX_OPERANDS);
    plan->operands[plan->n_operands++] = operand;
}

void plan_add_move(struct plan *plan, uint8_t flags, const struct plan_operands *operands)
{
    struct plan_step *step = step_add(plan, PLAN_MOVE);
    step->flags = flags;
    step->n_src = operands->n_src;
    step->n_dst = operands->n_dst;
    for (int k = 0; k < operands->n_src; k++) operand_add(plan, operands->src[k]);
    for (int k = 0; k < operands->n_dst; k++) operand_add(plan, operands->dst[k]);
}

void plan_add_signal(struct plan *plan, enum plan_counter counter)
{
    step_add(plan, PLAN_SIGNAL)->counter = (uint8_t)counter;
}

void plan_add_wait(struct plan *plan, uint8_t flags, enum plan_counter counter, struct plan_index which, uint16_t span,
                   uint8_t lag)
{
    struct plan_step *step = step_add(plan, PLAN_WAIT);
    step->flags = flags;
    step->counter = (uint8_t)counter;
    step->lag = lag;
    step->n_src = 1;
    operand_add(plan, plan_peer(PLAN_PEER_INPUT, which, span, plan_constant(0)));
}

void plan_add_loop(struct plan *plan, uint32_t times, uint16_t body)
{
    struct plan_step *step = step_add(plan, PLAN_LOOP);
    step->times = times;
    step->body = body;
}

void plan_add_loop_except(struct plan *plan, uint32_t times, uint16_t body, uint8_t period, uint8_t skip)
{
    plan_add_loop(plan, times, body);
    plan->steps[plan->n_steps - 1].period = period;
    plan->steps[plan->n_steps - 1].skip = skip;
}

void plan_balance(struct plan *plan)
{
    for (uint32_t k = 0; k < plan->n_steps; k++) {
        struct plan_step *step = &plan->steps[k];
        uint32_t ways = 0;
        for (uint32_t j = 0; step->verb == PLAN_MOVE && j < step->n_src; j++) ways += plan->operands[step->first + j].span;
        if (ways > 1) step->flags |= PLAN_BALANCED;
    }
}
