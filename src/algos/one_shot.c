/* one_shot.c - AllReduce in one exchange, inside one node: everybody reads everybody's input and combines it alone.
 *
 *     input 0 ---+--+--+--->  rank 0: 0+1+2+3 -> output
 *     input 1 ---+--+--+--->  rank 1: 0+1+2+3 -> output       the same sources in the same order (node peers 0 .. n-1),
 *     input 2 ---+--+--+--->  rank 2: 0+1+2+3 -> output       so the same bits, although nobody sends a result
 *     input 3 ---+--+--+--->  rank 3: 0+1+2+3 -> output
 *
 * An owner either lets peers read its buffer (direct) or copies its input into its window first (staged).
 *     WAIT  others DONE, two rounds ago     my window, used two rounds ago, has been read by everybody
 *     input -> peer-input(self)             only if staged
 *     SIGNAL STAGED; WAIT others STAGED
 *     peer-input(0) + ... + peer-input(n-1) -> output     FINAL
 *     SIGNAL DONE
 *     WAIT others DONE                      only if direct: the caller may not have its input back before all read it
 *
 * Steps: 1 exchange (a second half for direct owners). Bytes per rank and round of S: reads n S (of them (n-1) S from
 * peers), writes S, and S more if staged. It wins while S is so small that the exchange costs more than reading.
 *
 * The first wait keeps a promise to the windows whatever plans follow each other. Among these two it never blocks:
 * everybody's STAGED of the round between already says that they left the round before (tests/plan shows it).
 *
 * Not for direct buffers with input == output: a rank would write its result into what peers still read. */
#include "algos/algos.h"
#include "plan/write.h"

/* Sources of one move, all of them spelled by one spanning operand; rail_combine takes 64. */
#define PEERS_MAX 64

bool one_shot_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    uint32_t n = shape->n_ranks;
    if (n < 2 || n > PEERS_MAX || shape->n_nodes != 1) return false;
    uint32_t self = shape->peer_of[rank];
    uint16_t others = (uint16_t)(n - 1);

    plan_begin(out, PLAN_ONE_SHOT, rank, n, channel);
    out->peer = self;
    out->n_peers = n;
    out->flags = PLAN_WINDOWS;
    struct plan_index me = plan_index_mod(0, self, n), next = plan_index_mod(0, self + 1, n);
    struct plan_index first = plan_index_mod(0, 0, n), whole = plan_constant(0);

    plan_add_strand(out);
    plan_add_wait(out, 0, PLAN_DONE, next, others, PLAN_WINDOW_DEPTH);
    plan_add_move(out, PLAN_IF_STAGED, &(struct plan_operands){
        1, 1, {plan_own(PLAN_INPUT, whole)}, {plan_peer(PLAN_PEER_INPUT, me, 1, whole)}});
    plan_add_signal(out, PLAN_STAGED);
    plan_add_wait(out, 0, PLAN_STAGED, next, others, 0);
    plan_add_move(out, PLAN_FINAL, &(struct plan_operands){
        1, 1, {plan_peer(PLAN_PEER_INPUT, first, (uint16_t)n, whole)}, {plan_own(PLAN_OUTPUT, whole)}});
    plan_add_signal(out, PLAN_DONE);
    plan_add_wait(out, PLAN_IF_DIRECT, PLAN_DONE, next, others, 0);
    return true;
}
