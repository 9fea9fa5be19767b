/* pending.c - the calls whose own file does not have them yet. Each leaves here when its body arrives there. */
#include "api/door.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* not provided yet: nothing looks at the arguments */

#define BY_ALLGATHER "ncclAllGather works and contains every rank's part"

RAIL_DOOR(ncclAlltoAll)
ncclResult_t pncclAlltoAll(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype,
                           ncclComm_t comm, cudaStream_t stream)
{
    return door_not_provided("ncclAlltoAll", "does not exchange between all ranks yet", BY_ALLGATHER);
}

RAIL_DOOR(ncclGroupSimulateEnd)
ncclResult_t pncclGroupSimulateEnd(ncclSimInfo_t *simInfo)
{
    return door_not_provided("ncclGroupSimulateEnd", "does not predict times yet",
                             "end the group with ncclGroupEnd and measure it");
}
