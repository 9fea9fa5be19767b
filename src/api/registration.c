/* registration.c - buffers made known to a communicator beforehand, windows, and giving memory back. */
#include "api/door.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* not provided yet: nothing looks at the arguments */

#define NO_NEED "leave the call out: every operation takes unregistered buffers"

RAIL_DOOR(ncclCommRegister)
ncclResult_t pncclCommRegister(const ncclComm_t comm, void *buff, size_t size, void **handle)
{
    return door_not_provided("ncclCommRegister", "does not register buffers yet", NO_NEED);
}

RAIL_DOOR(ncclCommDeregister)
ncclResult_t pncclCommDeregister(const ncclComm_t comm, void *handle)
{
    return door_not_provided("ncclCommDeregister", "does not register buffers yet, so it gave out no such handle",
                             NO_NEED);
}

RAIL_DOOR(ncclCommWindowRegister)
ncclResult_t pncclCommWindowRegister(ncclComm_t comm, void *buff, size_t size, ncclWindow_t *win, int winFlags)
{
    return door_not_provided("ncclCommWindowRegister", "has no windows yet", NO_NEED);
}

RAIL_DOOR(ncclCommWindowDeregister)
ncclResult_t pncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t win)
{
    return door_not_provided("ncclCommWindowDeregister", "has no windows yet, so it gave out no such handle", NO_NEED);
}

RAIL_DOOR(ncclWinGetUserPtr)
ncclResult_t pncclWinGetUserPtr(ncclComm_t comm, ncclWindow_t win, void **outUserPtr)
{
    return door_not_provided("ncclWinGetUserPtr", "has no windows yet", "keep the address of the buffer yourself");
}

RAIL_DOOR(ncclCommSuspend)
ncclResult_t pncclCommSuspend(ncclComm_t comm, int flags)
{
    return door_not_provided("ncclCommSuspend", "does not give memory back while a communicator lives",
                             "destroy the communicator and make it again later");
}

RAIL_DOOR(ncclCommResume)
ncclResult_t pncclCommResume(ncclComm_t comm)
{
    return door_not_provided("ncclCommResume", "does not suspend communicators", "leave the call out");
}

RAIL_DOOR(ncclCommMemStats)
ncclResult_t pncclCommMemStats(ncclComm_t comm, ncclCommMemStat_t stat, uint64_t *value)
{
    return door_not_provided("ncclCommMemStats", "does not count the GPU memory of a communicator yet",
                             "look at the process's memory in /proc/self/smaps_rollup or nvidia-smi");
}
