/* p2p.c - send and receive. */
#include "api/comm_handle.h"
#include "api/door.h"
#include "core/gpu_rank.h"
#include "core/group.h"
#include "core/p2p.h"

static enum rail_result enqueue(struct comm *comm, const struct p2p_call *args, cudaStream_t stream)
{
    struct stream *later = NULL;
    RAIL_TRY(comm_check(comm, args->call));
    RAIL_TRY(comm->gpu ? gpu_rank_accept(comm, args->call, stream) : stream_accept(stream, args->call, &later));
    RAIL_TRY(p2p_check(comm, args));
    if (comm->gpu) RAIL_TRY(gpu_rank_p2p_check(comm, args));
    if (comm->finalized)
        return rail_fail(RAIL_E_USAGE, "%s: the communicator was finalized; no calls may follow", args->call);
    if (!group_open() && !later && !comm->gpu) {
        comm_settle(comm);
        return p2p_run(comm, args);
    }
    group_start();
    enum rail_result result = comm->gpu ? group_on_gpu_stream(comm, stream) : group_on_stream(later);
    if (result == RAIL_OK) result = group_add_p2p(comm, args);
    enum rail_result ended = group_end(); /* of an outer group: nothing yet */
    return result != RAIL_OK ? result : ended;
}

RAIL_DOOR(ncclSend)
ncclResult_t pncclSend(const void *sendbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm,
                       cudaStream_t stream)
{
    struct door door = door_open();
    const struct p2p_call args = {.call = "ncclSend", .direction = MESSAGE_SEND, .buffer = (void *)(uintptr_t)sendbuff,
                                  .count = count, .type = (int)datatype, .peer = peer};
    return door_close(door, group_noted(enqueue(comm_of(comm), &args, stream)));
}

RAIL_DOOR(ncclRecv)
ncclResult_t pncclRecv(void *recvbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm,
                       cudaStream_t stream)
{
    struct door door = door_open();
    const struct p2p_call args = {.call = "ncclRecv", .direction = MESSAGE_RECEIVE, .buffer = recvbuff, .count = count,
                                  .type = (int)datatype, .peer = peer};
    return door_close(door, group_noted(enqueue(comm_of(comm), &args, stream)));
}
