/* door.c - results of the library's inside as the results that NCCL's clients know. */
#include "api/door.h"

ncclResult_t door_result(enum rail_result result)
{
    switch (result) {
    case RAIL_OK: return ncclSuccess;
    case RAIL_E_CUDA: return ncclUnhandledCudaError;
    case RAIL_E_SYSTEM: return ncclSystemError;
    case RAIL_E_ARGUMENT: return ncclInvalidArgument;
    case RAIL_E_USAGE: return ncclInvalidUsage;
    case RAIL_E_REMOTE: return ncclRemoteError;
    case RAIL_E_TIMEOUT: return ncclRemoteError;
    case RAIL_E_REVOKED: return ncclInvalidUsage;
    case RAIL_E_ABORTED: return ncclInvalidUsage;
    case RAIL_IN_PROGRESS: return ncclInProgress;
    case RAIL_NOT_YET: /* somebody forgot to wait */
    case RAIL_E_INTERNAL: return ncclInternalError;
    }
    return ncclInternalError;
}

ncclResult_t door_not_provided(const char *name, const char *missing, const char *instead)
{
    struct door door = door_open();
    return door_close(door, rail_fail(RAIL_E_USAGE, "%s: this release %s; %s", name, missing, instead));
}
