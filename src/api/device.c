/* device.c - the host half of the device interface. Its other half is compiled into programs' own kernels against
 * NVIDIA's structures, so what can be done here is to load, to refuse, and to say so. */
#include "api/door.h"
#include "nccl_device.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* not provided: nothing looks at the arguments */

#define NO_DEVICE_API "has no device interface (collectives inside one's own kernels)"
#define CALL_HOST "call the collectives from the host"

RAIL_DOOR(ncclDevCommCreate)
ncclResult_t pncclDevCommCreate(ncclComm_t comm, const ncclDevCommRequirements_t *reqs, ncclDevComm_t *outDevComm)
{
    return door_not_provided("ncclDevCommCreate", NO_DEVICE_API, CALL_HOST);
}

RAIL_DOOR(ncclDevCommDestroy)
ncclResult_t pncclDevCommDestroy(ncclComm_t comm, const ncclDevComm_t *devComm)
{
    return door_not_provided("ncclDevCommDestroy", NO_DEVICE_API, CALL_HOST);
}

RAIL_DOOR(ncclGetLsaMultimemDevicePointer)
ncclResult_t pncclGetLsaMultimemDevicePointer(ncclWindow_t window, size_t offset, void **outPtr)
{
    return door_not_provided("ncclGetLsaMultimemDevicePointer", "has no windows that kernels could address", CALL_HOST);
}

RAIL_DOOR(ncclGetMultimemDevicePointer)
ncclResult_t pncclGetMultimemDevicePointer(ncclWindow_t window, size_t offset, ncclMultimemHandle_t multimem, void
                                           **outPtr)
{
    return door_not_provided("ncclGetMultimemDevicePointer", "has no windows that kernels could address", CALL_HOST);
}

RAIL_DOOR(ncclGetLsaDevicePointer)
ncclResult_t pncclGetLsaDevicePointer(ncclWindow_t window, size_t offset, int lsaRank, void **outPtr)
{
    return door_not_provided("ncclGetLsaDevicePointer", "has no windows that kernels could address", CALL_HOST);
}

RAIL_DOOR(ncclGetPeerDevicePointer)
ncclResult_t pncclGetPeerDevicePointer(ncclWindow_t window, size_t offset, int peer, void **outPtr)
{
    return door_not_provided("ncclGetPeerDevicePointer", "has no windows that kernels could address", CALL_HOST);
}

RAIL_DOOR(ncclTeamWorld)
ncclTeam_t pncclTeamWorld(ncclComm_t comm)
{
    (void)door_not_provided("ncclTeamWorld", NO_DEVICE_API, CALL_HOST);
    return (ncclTeam_t){0, 0, 0};
}

RAIL_DOOR(ncclTeamLsa)
ncclTeam_t pncclTeamLsa(ncclComm_t comm)
{
    (void)door_not_provided("ncclTeamLsa", NO_DEVICE_API, CALL_HOST);
    return (ncclTeam_t){0, 0, 0};
}

RAIL_DOOR(ncclTeamRail)
ncclTeam_t pncclTeamRail(ncclComm_t comm)
{
    (void)door_not_provided("ncclTeamRail", NO_DEVICE_API, CALL_HOST);
    return (ncclTeam_t){0, 0, 0};
}

RAIL_DOOR(ncclTeamRankToWorld)
int pncclTeamRankToWorld(ncclComm_t comm, ncclTeam_t team, int rank)
{
    (void)door_not_provided("ncclTeamRankToWorld", NO_DEVICE_API, CALL_HOST);
    return -1;
}

RAIL_DOOR(ncclTeamRankToLsa)
int pncclTeamRankToLsa(ncclComm_t comm, ncclTeam_t team, int rank)
{
    (void)door_not_provided("ncclTeamRankToLsa", NO_DEVICE_API, CALL_HOST);
    return -1;
}

RAIL_DOOR(ncclLsaBarrierCreateRequirement)
ncclResult_t pncclLsaBarrierCreateRequirement(ncclTeam_t team, int nBarriers, ncclLsaBarrierHandle_t *outHandle,
                                              ncclDevResourceRequirements_t *outReq)
{
    return door_not_provided("ncclLsaBarrierCreateRequirement", NO_DEVICE_API, CALL_HOST);
}

RAIL_DOOR(ncclGinBarrierCreateRequirement)
ncclResult_t pncclGinBarrierCreateRequirement(ncclComm_t comm, ncclTeam_t team, int nBarriers, ncclGinBarrierHandle_t
                                              *outHandle, ncclDevResourceRequirements_t *outReq)
{
    return door_not_provided("ncclGinBarrierCreateRequirement", NO_DEVICE_API, CALL_HOST);
}

RAIL_DOOR(ncclGinOutboxCreateRequirement)
ncclResult_t pncclGinOutboxCreateRequirement(int nBlocks, int size_log2, ncclGinOutboxHandle_t *outHandle,
                                             ncclDevResourceRequirements_t *outReq)
{
    return door_not_provided("ncclGinOutboxCreateRequirement", NO_DEVICE_API, CALL_HOST);
}

RAIL_DOOR(ncclGinInboxA2ACreateRequirement)
ncclResult_t pncclGinInboxA2ACreateRequirement(ncclTeam_t peers, int nBlocks, int size_log2, ncclGinInboxA2AHandle_t
                                               *outHandle, ncclDevResourceRequirements_t *outReq)
{
    return door_not_provided("ncclGinInboxA2ACreateRequirement", NO_DEVICE_API, CALL_HOST);
}

RAIL_DOOR(ncclLLA2ACreateRequirement)
ncclResult_t pncclLLA2ACreateRequirement(int nBlocks, int nSlots, ncclLLA2AHandle_t *outHandle,
                                         ncclDevResourceRequirements_t *outReq)
{
    return door_not_provided("ncclLLA2ACreateRequirement", NO_DEVICE_API, CALL_HOST);
}

RAIL_DOOR(ncclLLA2ACalcSlots)
int pncclLLA2ACalcSlots(int maxElts, int maxEltSize)
{
    (void)door_not_provided("ncclLLA2ACalcSlots", NO_DEVICE_API, CALL_HOST);
    return -1;
}
