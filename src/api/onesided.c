/* onesided.c - the doors of one-sided writes with signals. */
#include "core/onesided.h"

#include "api/comm_handle.h"
#include "api/door.h"
#include "core/gpu_rank.h"
#include "core/group.h"

_Static_assert(sizeof(struct onesided_wait) == sizeof(ncclWaitSignalDesc_t) &&
                   offsetof(struct onesided_wait, count) == offsetof(ncclWaitSignalDesc_t, opCnt) &&
                   offsetof(struct onesided_wait, peer) == offsetof(ncclWaitSignalDesc_t, peer) &&
                   offsetof(struct onesided_wait, signal) == offsetof(ncclWaitSignalDesc_t, sigIdx) &&
                   offsetof(struct onesided_wait, ctx) == offsetof(ncclWaitSignalDesc_t, ctx),
               "a description is handed on as it is");

static enum rail_result usable(struct comm *comm, cudaStream_t stream, const char *call, struct stream **later)
{
    RAIL_TRY(comm_check(comm, call));
    *later = NULL;
    RAIL_TRY(comm->gpu ? gpu_rank_accept(comm, call, stream) : stream_accept(stream, call, later));
    if (!comm->finalized) return RAIL_OK;
    return rail_fail(RAIL_E_USAGE, "%s: the communicator was finalized; no calls may follow", call);
}

/* Takes over what the operation holds. */
static enum rail_result run(struct onesided_op *op, cudaStream_t stream, struct stream *later)
{
    struct comm *comm = op->comm;
    if (!group_open() && !later && !comm->gpu) {
        enum rail_result ran = onesided_run(op);
        onesided_free(op);
        return ran;
    }
    group_start();
    enum rail_result result = comm->gpu ? group_on_gpu_stream(comm, (cu_stream)(void *)stream) : group_on_stream(later);
    if (result == RAIL_OK) result = group_add_onesided(op);
    else onesided_free(op);
    enum rail_result ended = group_end(); /* of an outer group: nothing yet */
    return result != RAIL_OK ? result : ended;
}

static enum rail_result put(struct comm *comm, struct onesided_put args, ncclWindow_t win, cudaStream_t stream)
{
    struct onesided_op op;
    struct stream *later;
    RAIL_TRY(usable(comm, stream, args.call, &later));
    RAIL_TRY(window_find(comm, (uintptr_t)win, args.call, &args.window));
    RAIL_TRY(onesided_put_make(comm, &args, &op));
    return run(&op, stream, later);
}

RAIL_DOOR(ncclPutSignal)
ncclResult_t pncclPutSignal(const void *localbuff, size_t count, ncclDataType_t datatype, int peer,
                            ncclWindow_t peerWin, size_t peerWinOffset, int sigIdx, int ctx, unsigned int flags,
                            ncclComm_t comm, cudaStream_t stream)
{
    struct door door = door_open();
    const struct onesided_put args = {.call = "ncclPutSignal", .data = localbuff, .count = count, .type = (int)datatype,
                                      .peer = peer, .offset = peerWinOffset, .signal = sigIdx, .ctx = ctx,
                                      .flags = flags};
    return door_close(door, group_noted(put(comm_of(comm), args, peerWin, stream)));
}

static enum rail_result signal_peer(struct comm *comm, struct onesided_put args, cudaStream_t stream)
{
    struct onesided_op op;
    struct stream *later;
    RAIL_TRY(usable(comm, stream, args.call, &later));
    RAIL_TRY(onesided_put_make(comm, &args, &op));
    return run(&op, stream, later);
}

RAIL_DOOR(ncclSignal)
ncclResult_t pncclSignal(int peer, int sigIdx, int ctx, unsigned int flags, ncclComm_t comm, cudaStream_t stream)
{
    struct door door = door_open();
    const struct onesided_put args = {.call = "ncclSignal", .peer = peer, .signal = sigIdx, .ctx = ctx, .flags = flags};
    return door_close(door, group_noted(signal_peer(comm_of(comm), args, stream)));
}

static enum rail_result wait_for(struct comm *comm, const struct onesided_wait *waits, int n, cudaStream_t stream)
{
    static const char call[] = "ncclWaitSignal";
    struct onesided_op op;
    struct stream *later;
    RAIL_TRY(usable(comm, stream, call, &later));
    RAIL_TRY(onesided_wait_make(comm, waits, n, &op));
    return run(&op, stream, later);
}

RAIL_DOOR(ncclWaitSignal)
ncclResult_t pncclWaitSignal(int nDesc, ncclWaitSignalDesc_t *signalDescs, ncclComm_t comm, cudaStream_t stream)
{
    struct door door = door_open();
    const struct onesided_wait *waits = (const struct onesided_wait *)(const void *)signalDescs;
    return door_close(door, group_noted(wait_for(comm_of(comm), waits, nDesc, stream)));
}
