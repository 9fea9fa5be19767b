/* write.h - the pen of the planners: appends links, strands, steps and operands to a plan in the order they are said.
 *
 * A planner's tables are of fixed size and its output does not depend on data, so running over a table's end is a bug
 * of the planner and asserts. */
#ifndef RAIL_PLAN_WRITE_H
#define RAIL_PLAN_WRITE_H

#include "plan/plan.h"

/* Indices: a constant, or (a*i + b) mod m with any b. */
struct plan_index plan_constant(uint32_t value);
struct plan_index plan_index_mod(int32_t a, uint64_t b, uint32_t m);

/* Operands. */
struct plan_operand plan_own(enum plan_place place, struct plan_index piece); /* input, output, scratch */
struct plan_operand plan_slot(enum plan_place place, uint16_t link, struct plan_index piece);
struct plan_operand plan_peer(enum plan_place place, struct plan_index which, uint16_t span, struct plan_index piece);

/* Empties the plan and writes down who we are. */
void plan_begin(struct plan *plan, enum plan_algorithm algorithm, uint32_t rank, uint32_t n_ranks, uint32_t channel);
/* The same for any collective. */
void plan_begin_collective(struct plan *plan, enum plan_collective collective, enum plan_algorithm algorithm,
                           uint32_t rank, uint32_t n_ranks, uint32_t channel, uint32_t root, uint32_t position);
/* Adds a link and returns its index. */
uint16_t plan_add_link(struct plan *plan, uint32_t peer, enum plan_direction direction);
uint16_t plan_add_link_back(struct plan *plan, uint32_t peer, enum plan_direction direction); /* way 1 */
/* Steps that follow belong to a new strand. */
void plan_add_strand(struct plan *plan);

/* Steps go to the strand begun last. */
struct plan_operands {
    uint8_t n_src, n_dst;
    struct plan_operand src[4], dst[4];
};
void plan_add_move(struct plan *plan, uint8_t flags, const struct plan_operands *operands);
void plan_add_signal(struct plan *plan, enum plan_counter counter);
void plan_add_wait(struct plan *plan, uint8_t flags, enum plan_counter counter, struct plan_index which, uint16_t span,
                   uint8_t lag);
void plan_add_loop(struct plan *plan, uint32_t times, uint16_t body);
/* The same without the iterations i with i mod period == skip. */
void plan_add_loop_except(struct plan *plan, uint32_t times, uint16_t body, uint8_t period, uint8_t skip);

/* Every MOVE of this plan that combines does so as a balanced tree. */
void plan_balance(struct plan *plan);

#endif
