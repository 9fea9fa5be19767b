/* version.c - versions, the texts of results, and the log's restart. */
#include "api/door.h"
#include "base/log.h"
#include "railccl.h"

RAIL_DOOR(ncclGetVersion)
ncclResult_t pncclGetVersion(int *version)
{
    struct door door = door_open();
    if (version == NULL)
        return door_close(door, rail_fail(RAIL_E_ARGUMENT, "ncclGetVersion: version NULL; pass the address of an int"));
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

RAIL_OWN_DOOR(railGetVersion)
const char *railGetVersion(void)
{
    return RAILCCL_VERSION;
}

/* Scripts look for these words in logs: they are NCCL's, letter by letter. */
RAIL_DOOR(ncclGetErrorString)
const char *pncclGetErrorString(ncclResult_t result)
{
    switch ((int)result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    case ncclSystemError: return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    case ncclInternalError: return "internal error - please report this issue to the NCCL developers";
    case ncclInvalidArgument: return "invalid argument (run with NCCL_DEBUG=WARN for details)";
    case ncclInvalidUsage: return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
    case ncclTimeout: return "timeout";
    default: return "unknown result code";
    }
}

RAIL_DOOR(ncclGetLastError)
const char *pncclGetLastError(ncclComm_t comm)
{
    (void)comm; /* one text per process, as in NCCL; programs pass NULL */
    struct door door = door_open();
    const char *text = rail_last_error();
    (void)door_close(door, RAIL_OK);
    return text;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
RAIL_DOOR(ncclResetDebugInit)
void pncclResetDebugInit(void)
{
    struct door door = door_open();
    rail_log_restart();
    (void)door_close(door, RAIL_OK);
}
#pragma GCC diagnostic pop
