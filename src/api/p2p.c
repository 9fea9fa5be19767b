/* p2p.c - send, receive, and one-sided writes with signals. */
#include "api/door.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* not provided yet: nothing looks at the arguments */

#define BY_ALLREDUCE "ncclAllReduce is the operation that works"
#define NO_P2P "does not send between two ranks yet"
#define NO_ONE_SIDED "has no one-sided operations yet"

RAIL_DOOR(ncclSend)
ncclResult_t pncclSend(const void *sendbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm,
                       cudaStream_t stream)
{
    return door_not_provided("ncclSend", NO_P2P, BY_ALLREDUCE);
}

RAIL_DOOR(ncclRecv)
ncclResult_t pncclRecv(void *recvbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm,
                       cudaStream_t stream)
{
    return door_not_provided("ncclRecv", NO_P2P, BY_ALLREDUCE);
}

RAIL_DOOR(ncclPutSignal)
ncclResult_t pncclPutSignal(const void *localbuff, size_t count, ncclDataType_t datatype, int peer,
                            ncclWindow_t peerWin, size_t peerWinOffset, int sigIdx, int ctx, unsigned int flags,
                            ncclComm_t comm, cudaStream_t stream)
{
    return door_not_provided("ncclPutSignal", NO_ONE_SIDED, BY_ALLREDUCE);
}

RAIL_DOOR(ncclSignal)
ncclResult_t pncclSignal(int peer, int sigIdx, int ctx, unsigned int flags, ncclComm_t comm, cudaStream_t stream)
{
    return door_not_provided("ncclSignal", NO_ONE_SIDED, BY_ALLREDUCE);
}

RAIL_DOOR(ncclWaitSignal)
ncclResult_t pncclWaitSignal(int nDesc, ncclWaitSignalDesc_t *signalDescs, ncclComm_t comm, cudaStream_t stream)
{
    return door_not_provided("ncclWaitSignal", NO_ONE_SIDED, BY_ALLREDUCE);
}
