/* operations.h - everything that moves data between ranks, one line each. A new call joins the conformance suite by one
 * more line at the end of the table: what its buffers look like (the collective whose layout it has, plan/collective.h)
 * and how it is called. */
#ifndef TESTS_CONFORMANCE_OPERATIONS_H
#define TESTS_CONFORMANCE_OPERATIONS_H

#include <nccl.h>

#include "device/host.h"
#include "plan/collective.h"
#include "support/job.h"

struct call {
    const struct operation *what;
    int type, op; /* op OP_PREMUL: a created PreMulSum */
    int root;
    bool in_place;
    bool null;    /* ranks that give or get nothing pass NULL */
    size_t count; /* of a block where buffers have a block per rank */
    unsigned misaligned; /* bytes that the buffers stand off a cache line */
    unsigned iteration;
};

enum { OP_AVG = 4, OP_PREMUL = 5, OPERATORS = 6 };

/* What a rank hands over. */
struct hand {
    const void *in;
    void *out;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t op;
    int root, rank, n_ranks;
    ncclComm_t comm;
    cudaStream_t stream;
};

enum in_place { EITHER, ALWAYS, NEVER };

struct operation {
    const char *name;
    enum plan_collective layout;
    ncclResult_t (*make)(const struct hand *h);
    enum in_place in_place;
};

/* Block k of a buffer. */
static inline const void *block_in(const struct hand *h, int k)
{
    return (const char *)h->in + (size_t)k * h->count * rail_type_bytes((enum rail_type)h->type);
}
static inline void *block_out(const struct hand *h, int k)
{
    return (char *)h->out + (size_t)k * h->count * rail_type_bytes((enum rail_type)h->type);
}

/* Both ends of whatever moves, in one group. */
static inline ncclResult_t sends_to_all(const struct hand *h)
{
    ncclResult_t result = ncclGroupStart();
    for (int k = 0; result == ncclSuccess && k < h->n_ranks; k++) result = ncclSend(block_in(h, k), h->count, h->type, k, h->comm, h->stream);
    for (int k = 0; result == ncclSuccess && k < h->n_ranks; k++) result = ncclRecv(block_out(h, k), h->count, h->type, k, h->comm, h->stream);
    ncclResult_t end = ncclGroupEnd();
    return result == ncclSuccess ? end : result;
}

static inline ncclResult_t sends_from_root(const struct hand *h)
{
    ncclResult_t result = ncclGroupStart();
    for (int k = 0; h->rank == h->root && result == ncclSuccess && k < h->n_ranks; k++)
        result = ncclSend(block_in(h, k), h->count, h->type, k, h->comm, h->stream);
    if (result == ncclSuccess) result = ncclRecv(h->out, h->count, h->type, h->root, h->comm, h->stream);
    ncclResult_t end = ncclGroupEnd();
    return result == ncclSuccess ? end : result;
}

static inline ncclResult_t sends_to_root(const struct hand *h)
{
    ncclResult_t result = ncclGroupStart();
    if (result == ncclSuccess) result = ncclSend(h->in, h->count, h->type, h->root, h->comm, h->stream);
    for (int k = 0; h->rank == h->root && result == ncclSuccess && k < h->n_ranks; k++)
        result = ncclRecv(block_out(h, k), h->count, h->type, k, h->comm, h->stream);
    ncclResult_t end = ncclGroupEnd();
    return result == ncclSuccess ? end : result;
}

#define CALL(name, ...)                                                                                                \
    static inline ncclResult_t call_##name(const struct hand *h) { return nccl##name(__VA_ARGS__, h->comm, h->stream); }
CALL(AllReduce, h->in, h->out, h->count, h->type, h->op)
CALL(Broadcast, h->in, h->out, h->count, h->type, h->root)
CALL(Bcast, h->out, h->count, h->type, h->root)
CALL(Reduce, h->in, h->out, h->count, h->type, h->op, h->root)
CALL(AllGather, h->in, h->out, h->count, h->type)
CALL(ReduceScatter, h->in, h->out, h->count, h->type, h->op)
CALL(Gather, h->in, h->out, h->count, h->type, h->root)
CALL(Scatter, h->in, h->out, h->count, h->type, h->root)
CALL(AlltoAll, h->in, h->out, h->count, h->type)
#undef CALL

static const struct operation operations[] = {
    {"ncclAllReduce", PLAN_ALLREDUCE, call_AllReduce, EITHER},
    {"ncclBroadcast", PLAN_BROADCAST, call_Broadcast, EITHER},
    {"ncclBcast", PLAN_BROADCAST, call_Bcast, ALWAYS},
    {"ncclReduce", PLAN_REDUCE, call_Reduce, EITHER},
    {"ncclAllGather", PLAN_ALLGATHER, call_AllGather, EITHER},
    {"ncclReduceScatter", PLAN_REDUCESCATTER, call_ReduceScatter, EITHER},
    {"ncclGather", PLAN_GATHER, call_Gather, EITHER},
    {"ncclScatter", PLAN_SCATTER, call_Scatter, EITHER},
    {"ncclAlltoAll", PLAN_ALLTOALL, call_AlltoAll, NEVER},
    {"ncclSend and ncclRecv, all to all", PLAN_ALLTOALL, sends_to_all, NEVER},
    {"ncclSend and ncclRecv, from the root", PLAN_SCATTER, sends_from_root, NEVER},
    {"ncclSend and ncclRecv, to the root", PLAN_GATHER, sends_to_root, NEVER},
};
enum { N_OPERATIONS = sizeof operations / sizeof *operations };

#endif
