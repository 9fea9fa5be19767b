/* exchange_rooted.c - Broadcast, Reduce, Gather and Scatter inside one node: who has something to give makes it
 * readable, who is to get it takes it.
 *
 *     Broadcast   everybody copies the root's input        Gather    the root copies everybody's block
 *     Reduce      the root combines everybody's input      Scatter   everybody copies its block of the root's input
 *
 *     WAIT others DONE, two rounds ago
 *     giver: input -> peer-input(self)                     only if staged
 *     SIGNAL STAGED                                        also by those who give nothing: whoever mistook them for the
 *                                                          root finds their signature there
 *     getter: WAIT giver STAGED; peer-input(giver) -> output
 *     SIGNAL DONE; giver: WAIT getters DONE                the wait only if direct
 *
 * Steps: 1 exchange (a second half for direct givers). A Broadcast's root, and a Scatter's, do not wait for anybody
 * when staged, except for their windows. In place, what the root would write over its own input is written last.
 *
 * A Reduce in one exchange leaves all the combining to the root, S n bytes of reading. Two exchanges share it, as in
 * two_shot.c: rank r combines piece r of everybody and delivers it to the root alone. */
#include "algos/begin.h"

/* What a root does with its own part, when nobody reads its input any more. */
static void own_block_last(struct plan *out, struct plan_index piece)
{
    struct plan_index next = plan_index_mod(0, (uint64_t)out->peer + 1, out->n_peers);
    struct plan_operands own = {1, 1, {plan_own(PLAN_INPUT, piece)}, {plan_own(PLAN_OUTPUT, piece)}};
    plan_add_move(out, PLAN_IF_STAGED, &own);
    plan_add_signal(out, PLAN_DONE);
    plan_add_wait(out, PLAN_IF_DIRECT, PLAN_DONE, next, (uint16_t)(out->n_peers - 1), 0);
    plan_add_move(out, PLAN_IF_DIRECT, &own);
}

bool exchange_broadcast(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    if (!fits_windows(shape)) return false;
    begin_windows(out, PLAN_BROADCAST, PLAN_ONE_SHOT, shape, rank, channel, root);
    struct plan_index from = plan_index_mod(0, shape->peer_of[root], out->n_peers), whole = plan_constant(0);
    if (rank == root) {
        plan_add_move(out, PLAN_IF_STAGED, &(struct plan_operands){
            1, 1, {plan_own(PLAN_INPUT, whole)}, {plan_peer(PLAN_PEER_INPUT, from, 1, whole)}});
        plan_add_signal(out, PLAN_STAGED);
        own_block_last(out, whole);
        return true;
    }
    plan_add_signal(out, PLAN_STAGED);
    plan_add_wait(out, 0, PLAN_STAGED, from, 1, 0);
    plan_add_move(out, 0, &(struct plan_operands){
        1, 1, {plan_peer(PLAN_PEER_INPUT, from, 1, whole)}, {plan_own(PLAN_OUTPUT, whole)}});
    plan_add_signal(out, PLAN_DONE);
    return true;
}

bool exchange_scatter(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    if (!fits_windows(shape)) return false;
    begin_windows(out, PLAN_SCATTER, PLAN_ONE_SHOT, shape, rank, channel, root);
    uint32_t n = out->n_peers, self = out->peer;
    struct plan_index from = plan_index_mod(0, shape->peer_of[root], n), me = plan_index_mod(0, self, n);
    if (rank == root) {
        struct plan_index other = plan_index_mod(1, (uint64_t)self + 1, n);
        plan_add_loop(out, n - 1, 1);
        plan_add_move(out, PLAN_IF_STAGED, &(struct plan_operands){
            1, 1, {plan_own(PLAN_INPUT, other)}, {plan_peer(PLAN_PEER_INPUT, me, 1, other)}});
        plan_add_signal(out, PLAN_STAGED);
        own_block_last(out, me);
        return true;
    }
    plan_add_signal(out, PLAN_STAGED);
    plan_add_wait(out, 0, PLAN_STAGED, from, 1, 0);
    plan_add_move(out, 0, &(struct plan_operands){
        1, 1, {plan_peer(PLAN_PEER_INPUT, from, 1, me)}, {plan_own(PLAN_OUTPUT, me)}});
    plan_add_signal(out, PLAN_DONE);
    return true;
}

/* Who gives to the root: stages its piece, and when direct stays until the root has it. */
static void give_to_root(struct plan *out, struct plan_index root, struct plan_index piece)
{
    plan_add_move(out, PLAN_IF_STAGED, &(struct plan_operands){
        1, 1, {plan_own(PLAN_INPUT, piece)},
        {plan_peer(PLAN_PEER_INPUT, plan_index_mod(0, out->peer, out->n_peers), 1, piece)}});
    plan_add_signal(out, PLAN_STAGED);
    plan_add_signal(out, PLAN_DONE);
    plan_add_wait(out, PLAN_IF_DIRECT, PLAN_DONE, root, 1, 0);
}

bool exchange_gather(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    if (!fits_windows(shape)) return false;
    begin_windows(out, PLAN_GATHER, PLAN_ONE_SHOT, shape, rank, channel, root);
    uint32_t n = out->n_peers, self = out->peer;
    struct plan_index me = plan_index_mod(0, self, n), other = plan_index_mod(1, (uint64_t)self + 1, n);
    if (rank != root) {
        give_to_root(out, plan_index_mod(0, shape->peer_of[root], n), me);
        return true;
    }
    plan_add_signal(out, PLAN_STAGED);
    plan_add_move(out, 0, &(struct plan_operands){1, 1, {plan_own(PLAN_INPUT, me)}, {plan_own(PLAN_OUTPUT, me)}});
    plan_add_loop(out, n - 1, 2);
    plan_add_wait(out, 0, PLAN_STAGED, other, 1, 0);
    plan_add_move(out, 0, &(struct plan_operands){
        1, 1, {plan_peer(PLAN_PEER_INPUT, other, 1, other)}, {plan_own(PLAN_OUTPUT, other)}});
    plan_add_signal(out, PLAN_DONE);
    return true;
}

bool exchange_reduce(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    if (!fits_windows(shape)) return false;
    begin_windows(out, PLAN_REDUCE, PLAN_ONE_SHOT, shape, rank, channel, root);
    uint32_t n = out->n_peers, self = out->peer;
    struct plan_index whole = plan_constant(0);
    if (rank != root) {
        give_to_root(out, plan_index_mod(0, shape->peer_of[root], n), whole);
        return true;
    }
    plan_add_signal(out, PLAN_STAGED);
    plan_add_wait(out, 0, PLAN_STAGED, plan_index_mod(0, (uint64_t)self + 1, n), (uint16_t)(n - 1), 0);
    plan_add_move(out, PLAN_FINAL, &(struct plan_operands){
        1, 1, {plan_peer(PLAN_PEER_INPUT, plan_index_mod(0, 0, n), (uint16_t)n, whole)},
        {plan_own(PLAN_OUTPUT, whole)}});
    plan_add_signal(out, PLAN_DONE);
    return true;
}

bool two_shot_reduce(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    if (!fits_windows(shape)) return false;
    begin_windows(out, PLAN_REDUCE, PLAN_TWO_SHOT, shape, rank, channel, root);
    uint32_t n = out->n_peers, self = out->peer;
    uint16_t others = (uint16_t)(n - 1);
    out->n_pieces = n;
    struct plan_index me = plan_index_mod(0, self, n), next = plan_index_mod(0, (uint64_t)self + 1, n);
    struct plan_index first = plan_index_mod(0, 0, n), other = plan_index_mod(1, (uint64_t)self + 1, n);
    struct plan_index to = plan_index_mod(0, shape->peer_of[root], n);

    plan_add_loop(out, n - 1, 1);
    plan_add_move(out, PLAN_IF_STAGED, &(struct plan_operands){
        1, 1, {plan_own(PLAN_INPUT, other)}, {plan_peer(PLAN_PEER_INPUT, me, 1, other)}});
    plan_add_signal(out, PLAN_STAGED);
    plan_add_wait(out, 0, PLAN_STAGED, next, others, 0);
    plan_add_move(out, PLAN_FINAL, &(struct plan_operands){
        1, 1, {plan_peer(PLAN_PEER_INPUT, first, (uint16_t)n, me)}, {plan_peer(PLAN_PEER_OUTPUT, to, 1, me)}});
    plan_add_signal(out, PLAN_DELIVERED);
    if (rank == root) {
        plan_add_loop(out, n - 1, 2);
        plan_add_wait(out, 0, PLAN_DELIVERED, other, 1, 0);
        plan_add_move(out, PLAN_IF_STAGED, &(struct plan_operands){
            1, 1, {plan_peer(PLAN_PEER_OUTPUT, other, 1, other)}, {plan_own(PLAN_OUTPUT, other)}});
    } else { /* all that read my input have DELIVERED */
        plan_add_wait(out, PLAN_IF_DIRECT, PLAN_DELIVERED, next, others, 0);
    }
    plan_add_signal(out, PLAN_DONE);
    return true;
}
