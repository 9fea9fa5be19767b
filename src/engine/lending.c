/* lending.c - which moves, and when the call's buffers are the caller's again. */
#include "engine/lending.h"

#include "plan/collective.h"

/* A copy to the bit: the source is what the slot is to hold. */
static bool copies(const struct host_op *op, const struct plan_step *step, const struct moving *m)
{
    const struct rail_combine *how = &op->call.how;
    return m->n_src == 1 && !how->scaled && !((step->flags & PLAN_FINAL) && how->divide > 1);
}

/* Of an AllReduce by ring or tree whatever is written into the output is complete: partial sums travel in slots alone. Others
 * keep theirs in the output until the step that says it is final. */
static bool is_final(const struct run *run, const struct plan_step *step)
{
    const struct plan *plan = &run->instance->plan;
    if (!collective_kind(plan->collective).reduces) return true;
    return (step->flags & PLAN_FINAL) ||
           (plan->collective == PLAN_ALLREDUCE && (plan->algorithm == PLAN_RING || plan->algorithm == PLAN_TREE));
}

/* The caller's own address of what the slots are to hold; NULL: there is none that may be lent. */
static const void *lent_from(const struct host_op *op, const struct run *run, const struct plan_step *step,
                             const struct moving *m)
{
    const struct plan_operand *operand = &run->instance->plan.operands[step->first];
    if (copies(op, step, m) && operand[0].place == PLAN_INPUT && op->call.lends_input) return m->src[0];
    if (!op->call.lends_output || !is_final(run, step)) return NULL;
    if (copies(op, step, m) && operand[0].place == PLAN_OUTPUT) return m->src[0];
    if (m->n_dst != step->n_dst) return NULL; /* a span of peers among them: addresses are not those of operands */
    for (int k = 0; k < step->n_dst; k++)
        if (operand[step->n_src + k].place == PLAN_OUTPUT) return m->dst[k];
    return NULL;
}

static bool is_slot_to_lend(const struct moving *m, const void *at, size_t bytes)
{
    for (int k = 0; k < m->n_out; k++)
        if (m->slot[k] == at) return m->out[k]->ops->lending && m->out[k]->ops->lending->lends(m->out[k], bytes);
    return false;
}

void lending_choose(const struct host_op *op, const struct run *run, const struct plan_step *step, struct moving *m)
{
    if (__builtin_expect((!op->call.lends_input && !op->call.lends_output) || m->n_out == 0 || m->count == 0 || m->far, 1))
        return;
    const void *from = lent_from(op, run, step, m);
    size_t bytes = (size_t)m->count * rail_type_bytes(op->call.how.type);
    struct rail_stores stores = {0, 0};
    int kept = 0;
    for (int k = 0; from && k < m->n_dst; k++) {
        if (is_slot_to_lend(m, m->dst[k], bytes)) {
            m->lent = from;
            continue;
        }
        stores.streamed |= (m->stores.streamed >> k & 1) << kept;
        stores.shared |= (m->stores.shared >> k & 1) << kept;
        m->dst[kept++] = m->dst[k];
    }
    if (!m->lent) return;
    m->n_dst = kept;
    m->stores = stores;
}

bool lending_publish(struct host_op *op, const struct run *run, const struct moving *m, int k)
{
    size_t bytes = (size_t)m->count * rail_type_bytes(op->call.how.type);
    bool last = run->round + 1 == run->n_rounds;
    for (int d = 0; d < m->n_dst; d++)
        if (m->dst[d] == m->slot[k]) return false;
    if (m->out[k]->ops->lending->lend(m->out[k], m->lent, bytes, op->call.signature, last)) return op->lent = true;
    rail_copy(m->slot[k], m->lent, bytes);
    return false;
}

static struct link *link_out(const struct instance *instance, uint32_t l)
{
    struct link *link = instance->links[l];
    return instance->plan.links[l].direction == PLAN_LINK_OUT && link->ops->lending ? link : NULL;
}

enum rail_result lending_settled(const struct host_op *op, const struct link **late)
{
    for (uint32_t r = 0; r < op->n_runs; r++) {
        const struct instance *instance = op->runs[r].instance;
        for (uint32_t l = 0; l < instance->plan.n_links; l++) {
            struct link *link = link_out(instance, l);
            enum rail_result result = link ? link->ops->lending->settled(link) : RAIL_OK;
            if (result == RAIL_OK) continue;
            *late = link;
            return result;
        }
    }
    return RAIL_OK;
}
