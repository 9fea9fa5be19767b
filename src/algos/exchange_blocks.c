/* exchange_blocks.c - AllGather, ReduceScatter and AlltoAll inside one node, in one exchange: everybody makes its input
 * readable, then takes what it needs. (The same trade as one_shot.c; here nothing is read twice, so it serves every size.)
 *
 *     AllGather       input[r] -> everybody's output[r]               each rank copies n - 1 blocks
 *     ReduceScatter   input 0[r] + ... + input n-1[r] -> output[r]    each rank combines its own block
 *     AlltoAll        input[k] -> output[r] of rank k                 each rank copies n - 1 blocks
 *
 *     WAIT  others DONE, two rounds ago
 *     input -> peer-input(self)                                       what others need of it; only if staged
 *     SIGNAL STAGED; WAIT others STAGED
 *     AllGather: peer-input(r+1+i)[r+1+i] -> output[r+1+i]            i = 0 .. n-2, each as soon as that peer STAGED
 *     ReduceScatter: peer-input(0..n-1)[r] -> output[r]               FINAL
 *     AlltoAll: peer-input(r+1+i)[r] -> output[r+1+i]                 as in AllGather
 *     SIGNAL DONE; WAIT others DONE                                   the wait only if direct
 *
 * Steps: 1 exchange (a second half for direct owners). Bytes per rank and round of blocks of B: AllGather reads n B and
 * writes n B, ReduceScatter reads n B and writes B, AlltoAll reads and writes n B; staging adds B, or (n-1) B, twice.
 *
 * Direct and in place: nobody but me reads my block of a ReduceScatter's input. In an AllGather it is what all others
 * read, so the move that would write it into my output runs when they are DONE. */
#include "algos/begin.h"

bool exchange_allgather(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    if (!fits_windows(shape)) return false;
    uint32_t n = shape->n_ranks;
    uint16_t others = (uint16_t)(n - 1);
    begin_windows(out, PLAN_ALLGATHER, PLAN_ONE_SHOT, shape, rank, channel, 0);
    uint32_t self = out->peer;
    struct plan_index me = plan_index_mod(0, self, n), next = plan_index_mod(0, (uint64_t)self + 1, n);
    struct plan_index other = plan_index_mod(1, (uint64_t)self + 1, n);
    struct plan_operands own = {1, 1, {plan_own(PLAN_INPUT, me)}, {plan_own(PLAN_OUTPUT, me)}};

    plan_add_move(out, PLAN_IF_STAGED, &(struct plan_operands){
        1, 1, {plan_own(PLAN_INPUT, me)}, {plan_peer(PLAN_PEER_INPUT, me, 1, me)}});
    plan_add_signal(out, PLAN_STAGED);
    plan_add_move(out, PLAN_IF_STAGED, &own); /* while others arrive */
    plan_add_loop(out, n - 1, 2);
    plan_add_wait(out, 0, PLAN_STAGED, other, 1, 0);
    plan_add_move(out, 0, &(struct plan_operands){
        1, 1, {plan_peer(PLAN_PEER_INPUT, other, 1, other)}, {plan_own(PLAN_OUTPUT, other)}});
    plan_add_signal(out, PLAN_DONE);
    plan_add_wait(out, PLAN_IF_DIRECT, PLAN_DONE, next, others, 0);
    plan_add_move(out, PLAN_IF_DIRECT, &own);
    return true;
}

bool exchange_reducescatter(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    if (!fits_windows(shape)) return false;
    uint32_t n = shape->n_ranks;
    uint16_t others = (uint16_t)(n - 1);
    begin_windows(out, PLAN_REDUCESCATTER, PLAN_ONE_SHOT, shape, rank, channel, 0);
    uint32_t self = out->peer;
    struct plan_index me = plan_index_mod(0, self, n), next = plan_index_mod(0, (uint64_t)self + 1, n);
    struct plan_index first = plan_index_mod(0, 0, n), other = plan_index_mod(1, (uint64_t)self + 1, n);

    plan_add_loop(out, n - 1, 1);
    plan_add_move(out, PLAN_IF_STAGED, &(struct plan_operands){
        1, 1, {plan_own(PLAN_INPUT, other)}, {plan_peer(PLAN_PEER_INPUT, me, 1, other)}});
    plan_add_signal(out, PLAN_STAGED);
    plan_add_wait(out, 0, PLAN_STAGED, next, others, 0);
    plan_add_move(out, PLAN_FINAL, &(struct plan_operands){
        1, 1, {plan_peer(PLAN_PEER_INPUT, first, (uint16_t)n, me)}, {plan_own(PLAN_OUTPUT, me)}});
    plan_add_signal(out, PLAN_DONE);
    plan_add_wait(out, PLAN_IF_DIRECT, PLAN_DONE, next, others, 0);
    return true;
}

bool exchange_alltoall(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    if (!fits_windows(shape)) return false;
    uint32_t n = shape->n_ranks;
    uint16_t others = (uint16_t)(n - 1);
    begin_windows(out, PLAN_ALLTOALL, PLAN_ONE_SHOT, shape, rank, channel, 0);
    out->flags = PLAN_WINDOWS; /* there is no AlltoAll in place */
    uint32_t self = out->peer;
    struct plan_index me = plan_index_mod(0, self, n), next = plan_index_mod(0, (uint64_t)self + 1, n);
    struct plan_index other = plan_index_mod(1, (uint64_t)self + 1, n);

    plan_add_loop(out, n - 1, 1);
    plan_add_move(out, PLAN_IF_STAGED, &(struct plan_operands){
        1, 1, {plan_own(PLAN_INPUT, other)}, {plan_peer(PLAN_PEER_INPUT, me, 1, other)}});
    plan_add_signal(out, PLAN_STAGED);
    plan_add_move(out, 0, &(struct plan_operands){1, 1, {plan_own(PLAN_INPUT, me)}, {plan_own(PLAN_OUTPUT, me)}});
    plan_add_loop(out, n - 1, 2);
    plan_add_wait(out, 0, PLAN_STAGED, other, 1, 0);
    plan_add_move(out, 0, &(struct plan_operands){
        1, 1, {plan_peer(PLAN_PEER_INPUT, other, 1, me)}, {plan_own(PLAN_OUTPUT, other)}});
    plan_add_signal(out, PLAN_DONE);
    plan_add_wait(out, PLAN_IF_DIRECT, PLAN_DONE, next, others, 0);
    return true;
}
