/* The freestanding headers, read by a CUDA compiler without any CUDA header: plan.h and ranges.h must yield device code.
 * A kernel finds its piece exactly as the host does, and would walk a plan by plan_index_at. See ptx.sh. */
#include "plan/plan.h"
#include "plan/ranges.h"

#define KERNEL __attribute__((global))

extern "C" KERNEL void plan_locate(const struct plan *plan, const struct plan_split *split, uint64_t round, uint32_t i,
                                   uint64_t *first_and_count)
{
    const struct plan_operand *o = &plan->operands[plan->steps[0].first];
    struct plan_range r = plan_piece_range(split, plan->channel, round, plan_index_at(o->piece, i));
    first_and_count[0] = r.first;
    first_and_count[1] = r.count;
}
