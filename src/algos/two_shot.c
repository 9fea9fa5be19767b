/* two_shot.c - AllReduce in two exchanges, inside one node: rank r combines piece r of everybody, then delivers it to
 * everybody.
 *
 *              piece 0  piece 1  piece 2
 *     input 0     |        |        |          down a column: one rank combines it, in node-peer order
 *     input 1     |        |        |
 *     input 2     v        v        v
 *              rank 0   rank 1   rank 2  --->  along the row: into every output (direct owners), or into its own
 *                                              window, from which staged owners fetch it
 *
 *     WAIT others DONE, two rounds ago           my windows, used two rounds ago, have been read by everybody
 *     input[r+1+i] -> peer-input(self)           i = 0 .. n-2, only if staged; nobody else reads my piece r
 *     SIGNAL STAGED; WAIT others STAGED
 *     peer-input(0..n-1)[r] -> peer-output(0..n-1)[r]     FINAL
 *     SIGNAL DELIVERED
 *     WAIT peer r+1+i DELIVERED; then, if staged, peer-output(r+1+i) -> output[r+1+i]     i = 0 .. n-2
 *     SIGNAL DONE
 *
 * Steps: 2 exchanges. Bytes per rank and round of S: direct: reads S, writes S (n pieces of S/n each way), the fewest
 * there can be. Staged: (n-1)/n S more in, S/n into the window, (n-1)/n S more out.
 *
 * Why no wait is missing. A peer's output is written only after that peer STAGED this round, so it is inside the call.
 * A direct owner leaves only after everybody DELIVERED: by then all have read its input and written its output.
 * A window is written again two rounds later, after everybody's DONE of this round, which follows all their reads.
 * Direct and in place: piece r of any buffer is read by rank r alone, in the very move that overwrites it. */
#include "algos/algos.h"
#include "plan/write.h"

/* Sources, and destinations, of one move; rail_combine takes 64. */
#define PEERS_MAX 64

bool two_shot_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    uint32_t n = shape->n_ranks;
    if (n < 2 || n > PEERS_MAX || shape->n_nodes != 1) return false;
    uint32_t self = shape->peer_of[rank];
    uint16_t all = (uint16_t)n, others = (uint16_t)(n - 1);

    plan_begin(out, PLAN_TWO_SHOT, rank, n, channel);
    out->peer = self;
    out->n_peers = n;
    out->n_pieces = n;
    out->flags = PLAN_WINDOWS | PLAN_DIRECT_IN_PLACE;
    struct plan_index me = plan_index_mod(0, self, n), next = plan_index_mod(0, self + 1, n);
    struct plan_index first = plan_index_mod(0, 0, n), other = plan_index_mod(1, self + 1, n);

    plan_add_strand(out);
    plan_add_wait(out, 0, PLAN_DONE, next, others, PLAN_WINDOW_DEPTH);
    plan_add_loop(out, n - 1, 1);
    plan_add_move(out, PLAN_IF_STAGED, &(struct plan_operands){
        1, 1, {plan_own(PLAN_INPUT, other)}, {plan_peer(PLAN_PEER_INPUT, me, 1, other)}});
    plan_add_signal(out, PLAN_STAGED);
    plan_add_wait(out, 0, PLAN_STAGED, next, others, 0);
    plan_add_move(out, PLAN_FINAL, &(struct plan_operands){
        1, 1, {plan_peer(PLAN_PEER_INPUT, first, all, me)}, {plan_peer(PLAN_PEER_OUTPUT, first, all, me)}});
    plan_add_signal(out, PLAN_DELIVERED);
    plan_add_loop(out, n - 1, 2);
    plan_add_wait(out, 0, PLAN_DELIVERED, other, 1, 0);
    plan_add_move(out, PLAN_IF_STAGED, &(struct plan_operands){
        1, 1, {plan_peer(PLAN_PEER_OUTPUT, other, 1, other)}, {plan_own(PLAN_OUTPUT, other)}});
    plan_add_signal(out, PLAN_DONE);
    return true;
}
