/* collectives.c - the doors of the collectives. */
#include "api/comm_handle.h"
#include "api/door.h"
#include "core/collective.h"
#include "core/gpu_rank.h"
#include "core/group.h"

static enum rail_result enqueue(struct comm *comm, const struct collective *args, cudaStream_t stream)
{
    struct stream *later = NULL;
    RAIL_TRY(comm_check(comm, args->call));
    RAIL_TRY(comm->gpu ? gpu_rank_accept(comm, args->call, stream) : stream_accept(stream, args->call, &later));
    RAIL_TRY(collective_check(comm, args));
    if (comm->finalized)
        return rail_fail(RAIL_E_USAGE, "%s: the communicator was finalized; no calls may follow", args->call);
    if (comm->gpu) RAIL_TRY(gpu_rank_collective_check(comm, args));
    if (!group_open() && !later && !comm->gpu) {
        comm_settle(comm);
        return collective_run(comm, args);
    }
    group_start();
    enum rail_result result = comm->gpu ? group_on_gpu_stream(comm, stream) : group_on_stream(later);
    if (result == RAIL_OK) result = group_add_collective(comm, args);
    enum rail_result ended = group_end(); /* of an outer group: nothing yet */
    return result != RAIL_OK ? result : ended;
}

static enum rail_result collective(struct comm *comm, const struct collective *args, cudaStream_t stream)
{
    return group_noted(enqueue(comm, args, stream));
}

RAIL_DOOR(ncclAllReduce)
ncclResult_t pncclAllReduce(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op,
                            ncclComm_t comm, cudaStream_t stream)
{
    struct door door = door_open();
    const struct collective args = {.call = "ncclAllReduce", .kind = PLAN_ALLREDUCE, .input = sendbuff,
                                    .output = recvbuff, .count = count, .type = (int)datatype, .op = (int)op};
    return door_close(door, collective(comm_of(comm), &args, stream));
}

RAIL_DOOR(ncclBroadcast)
ncclResult_t pncclBroadcast(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root,
                            ncclComm_t comm, cudaStream_t stream)
{
    struct door door = door_open();
    const struct collective args = {.call = "ncclBroadcast", .kind = PLAN_BROADCAST, .input = sendbuff,
                                    .output = recvbuff, .count = count, .type = (int)datatype, .root = root};
    return door_close(door, collective(comm_of(comm), &args, stream));
}

RAIL_DOOR(ncclBcast)
ncclResult_t pncclBcast(void *buff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm,
                        cudaStream_t stream)
{
    struct door door = door_open();
    const struct collective args = {.call = "ncclBcast", .kind = PLAN_BROADCAST, .input = buff, .output = buff,
                                    .count = count, .type = (int)datatype, .root = root};
    return door_close(door, collective(comm_of(comm), &args, stream));
}

RAIL_DOOR(ncclReduce)
ncclResult_t pncclReduce(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op,
                         int root, ncclComm_t comm, cudaStream_t stream)
{
    struct door door = door_open();
    const struct collective args = {.call = "ncclReduce", .kind = PLAN_REDUCE, .input = sendbuff, .output = recvbuff,
                                    .count = count, .type = (int)datatype, .op = (int)op, .root = root};
    return door_close(door, collective(comm_of(comm), &args, stream));
}

RAIL_DOOR(ncclAllGather)
ncclResult_t pncclAllGather(const void *sendbuff, void *recvbuff, size_t sendcount, ncclDataType_t datatype,
                            ncclComm_t comm, cudaStream_t stream)
{
    struct door door = door_open();
    const struct collective args = {.call = "ncclAllGather", .kind = PLAN_ALLGATHER, .input = sendbuff,
                                    .output = recvbuff, .count = sendcount, .type = (int)datatype};
    return door_close(door, collective(comm_of(comm), &args, stream));
}

RAIL_DOOR(ncclReduceScatter)
ncclResult_t pncclReduceScatter(const void *sendbuff, void *recvbuff, size_t recvcount, ncclDataType_t datatype,
                                ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    struct door door = door_open();
    const struct collective args = {.call = "ncclReduceScatter", .kind = PLAN_REDUCESCATTER, .input = sendbuff,
                                    .output = recvbuff, .count = recvcount, .type = (int)datatype, .op = (int)op};
    return door_close(door, collective(comm_of(comm), &args, stream));
}

RAIL_DOOR(ncclGather)
ncclResult_t pncclGather(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root,
                         ncclComm_t comm, cudaStream_t stream)
{
    struct door door = door_open();
    const struct collective args = {.call = "ncclGather", .kind = PLAN_GATHER, .input = sendbuff, .output = recvbuff,
                                    .count = count, .type = (int)datatype, .root = root};
    return door_close(door, collective(comm_of(comm), &args, stream));
}

RAIL_DOOR(ncclScatter)
ncclResult_t pncclScatter(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root,
                          ncclComm_t comm, cudaStream_t stream)
{
    struct door door = door_open();
    const struct collective args = {.call = "ncclScatter", .kind = PLAN_SCATTER, .input = sendbuff, .output = recvbuff,
                                    .count = count, .type = (int)datatype, .root = root};
    return door_close(door, collective(comm_of(comm), &args, stream));
}

RAIL_DOOR(ncclAlltoAll)
ncclResult_t pncclAlltoAll(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclComm_t comm,
                           cudaStream_t stream)
{
    struct door door = door_open();
    const struct collective args = {.call = "ncclAlltoAll", .kind = PLAN_ALLTOALL, .input = sendbuff,
                                    .output = recvbuff, .count = count, .type = (int)datatype};
    return door_close(door, collective(comm_of(comm), &args, stream));
}
