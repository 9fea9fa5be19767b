/* derive.c - communicators made from communicators: split, shrink, grow, and the revocation that precedes them. */
#include "api/door.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* not provided yet: nothing looks at the arguments */

#define BY_ID "make the new communicator with ncclGetUniqueId and ncclCommInitRank among its members"

RAIL_DOOR(ncclCommSplit)
ncclResult_t pncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t *newcomm, ncclConfig_t *config)
{
    return door_not_provided("ncclCommSplit", "does not split communicators yet", BY_ID);
}

RAIL_DOOR(ncclCommShrink)
ncclResult_t pncclCommShrink(ncclComm_t comm, int *excludeRanksList, int excludeRanksCount, ncclComm_t *newcomm,
                             ncclConfig_t *config, int shrinkFlags)
{
    return door_not_provided("ncclCommShrink", "does not shrink communicators yet",
                             "end this one with ncclCommAbort, then " BY_ID);
}

RAIL_DOOR(ncclCommGrow)
ncclResult_t pncclCommGrow(ncclComm_t comm, int nRanks, const ncclUniqueId *uniqueId, int rank, ncclComm_t *newcomm,
                           ncclConfig_t *config)
{
    return door_not_provided("ncclCommGrow", "does not add ranks to a communicator yet", BY_ID);
}

RAIL_DOOR(ncclCommGetUniqueId)
ncclResult_t pncclCommGetUniqueId(ncclComm_t comm, ncclUniqueId *uniqueId)
{
    return door_not_provided("ncclCommGetUniqueId", "makes no ids from a communicator yet (they serve ncclCommGrow)",
                             "call ncclGetUniqueId for an id of a communicator of its own");
}

RAIL_DOOR(ncclCommRevoke)
ncclResult_t pncclCommRevoke(ncclComm_t comm, int revokeFlags)
{
    return door_not_provided("ncclCommRevoke", "cannot stop a communicator's operations and keep it yet",
                             "stop and free it with ncclCommAbort");
}
