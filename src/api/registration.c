/* registration.c - buffers made known to a communicator beforehand, windows, and giving memory back. */
#include "api/comm_handle.h"
#include "api/door.h"
#include "core/group.h"
#include "core/suspend.h"

static enum rail_result usable(const struct comm *comm, const char *call)
{
    RAIL_TRY(comm_check(comm, call));
    if (!comm->finalized) return RAIL_OK;
    return rail_fail(RAIL_E_USAGE, "%s: the communicator was finalized; no calls may follow", call);
}

static enum rail_result add(struct comm *comm, void *address, size_t bytes, void **handle)
{
    RAIL_TRY(usable(comm, "ncclCommRegister"));
    return registration_add(&comm->registrations, address, bytes, comm->gpu != NULL, handle);
}

RAIL_DOOR(ncclCommRegister)
ncclResult_t pncclCommRegister(const ncclComm_t comm, void *buff, size_t size, void **handle)
{
    struct door door = door_open();
    return door_close(door, group_noted(add(comm_of(comm), buff, size, handle)));
}

static enum rail_result end(struct comm *comm, const void *handle)
{
    RAIL_TRY(comm_check(comm, "ncclCommDeregister"));
    return registration_end(&comm->registrations, handle);
}

RAIL_DOOR(ncclCommDeregister)
ncclResult_t pncclCommDeregister(const ncclComm_t comm, void *handle)
{
    struct door door = door_open();
    return door_close(door, group_noted(end(comm_of(comm), handle)));
}

static enum rail_result window(struct comm *comm, void *address, size_t bytes, ncclWindow_t *win, int flags)
{
    static const char call[] = "ncclCommWindowRegister";
    RAIL_TRY(usable(comm, call));
    if (!win) return rail_fail(RAIL_E_ARGUMENT, "%s: win is NULL", call);
    const struct window_call args = {.comm = comm, .address = address, .bytes = bytes, .flags = flags,
                                     .out = (uintptr_t *)(void *)win};
    RAIL_TRY(window_check(address, bytes, flags));
    RAIL_TRY(window_memory_check(comm, address, bytes));
    return group_open() ? group_add_window(&args) : window_register(comm, address, bytes, flags, args.out);
}

RAIL_DOOR(ncclCommWindowRegister)
ncclResult_t pncclCommWindowRegister(ncclComm_t comm, void *buff, size_t size, ncclWindow_t *win, int winFlags)
{
    struct door door = door_open();
    return door_close(door, group_noted(window(comm_of(comm), buff, size, win, winFlags)));
}

static enum rail_result window_end(struct comm *comm, ncclWindow_t win)
{
    static const char call[] = "ncclCommWindowDeregister";
    RAIL_TRY(comm_check(comm, call));
    if (!win) return RAIL_OK; /* as NCCL: nothing to do */
    struct window *w;
    RAIL_TRY(window_find(comm, (uintptr_t)win, call, &w));
    const struct window_call args = {.comm = comm, .ends = true, .handle = (uintptr_t)win};
    return group_open() ? group_add_window(&args) : window_deregister(comm, (uintptr_t)win);
}

RAIL_DOOR(ncclCommWindowDeregister)
ncclResult_t pncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t win)
{
    struct door door = door_open();
    return door_close(door, group_noted(window_end(comm_of(comm), win)));
}

static enum rail_result user_pointer(struct comm *comm, ncclWindow_t win, void **out)
{
    static const char call[] = "ncclWinGetUserPtr";
    struct window *w;
    RAIL_TRY(comm_check(comm, call));
    if (!out) return rail_fail(RAIL_E_ARGUMENT, "%s: outUserPtr is NULL", call);
    RAIL_TRY(window_find(comm, (uintptr_t)win, call, &w));
    *out = w->own;
    return RAIL_OK;
}

RAIL_DOOR(ncclWinGetUserPtr)
ncclResult_t pncclWinGetUserPtr(ncclComm_t comm, ncclWindow_t win, void **outUserPtr)
{
    struct door door = door_open();
    return door_close(door, user_pointer(comm_of(comm), win, outUserPtr));
}

#pragma GCC diagnostic ignored "-Wunused-parameter" /* not provided yet: nothing looks at the arguments */

/* ---- giving memory back ---- */

static enum rail_result suspend(struct comm *comm, int flags)
{
    RAIL_TRY(comm_check(comm, "ncclCommSuspend"));
    if (flags != NCCL_SUSPEND_MEM)
        return rail_fail(RAIL_E_ARGUMENT, "ncclCommSuspend: flags %#x: must be NCCL_SUSPEND_MEM (%#x)", (unsigned)flags,
                         NCCL_SUSPEND_MEM);
    if (group_open()) return rail_fail(RAIL_E_USAGE, "ncclCommSuspend: not inside a group; end the group first");
    if (comm->finalized) return rail_fail(RAIL_E_USAGE, "ncclCommSuspend: the communicator was finalized");
    return comm_suspend(comm);
}

RAIL_DOOR(ncclCommSuspend)
ncclResult_t pncclCommSuspend(ncclComm_t comm, int flags)
{
    struct door door = door_open();
    return door_close(door, group_noted(suspend(comm_of(comm), flags)));
}

static enum rail_result resume(struct comm *comm)
{
    RAIL_TRY(comm_made_check(comm, "ncclCommResume"));
    return comm_resume(comm);
}

RAIL_DOOR(ncclCommResume)
ncclResult_t pncclCommResume(ncclComm_t comm)
{
    struct door door = door_open();
    return door_close(door, resume(comm_of(comm)));
}

static enum rail_result mem_stats(const struct comm *comm, int stat, uint64_t *value)
{
    static const char call[] = "ncclCommMemStats";
    RAIL_TRY(comm_made_check(comm, call));
    if (!value) return rail_fail(RAIL_E_ARGUMENT, "%s: value is NULL", call);
    struct footprint f = comm_footprint(comm);
    switch (stat) {
    case ncclStatGpuMemSuspend: *value = f.idle; break;
    case ncclStatGpuMemSuspended: *value = atomic_load(&comm->magic) == COMM_SUSPENDED; break;
    case ncclStatGpuMemPersist: *value = f.kept; break;
    case ncclStatGpuMemTotal: *value = f.idle + f.kept; break;
    default: return rail_fail(RAIL_E_ARGUMENT, "%s: stat %d: valid are 0 to %d", call, stat, ncclStatGpuMemTotal);
    }
    return RAIL_OK;
}

RAIL_DOOR(ncclCommMemStats)
ncclResult_t pncclCommMemStats(ncclComm_t comm, ncclCommMemStat_t stat, uint64_t *value)
{
    struct door door = door_open();
    return door_close(door, mem_stats(comm_of(comm), (int)stat, value));
}
