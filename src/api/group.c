/* group.c - the doors of groups. */
#include "core/group.h"

#include <stddef.h>

#include "api/door.h"

RAIL_DOOR(ncclGroupStart)
ncclResult_t pncclGroupStart(void)
{
    struct door door = door_open();
    group_start();
    return door_close(door, RAIL_OK);
}

RAIL_DOOR(ncclGroupEnd)
ncclResult_t pncclGroupEnd(void)
{
    struct door door = door_open();
    return door_close(door, group_end());
}

/* The structure came with 2.22 and has not changed. */
static enum rail_result check(const ncclSimInfo_t *info)
{
    static const ncclSimInfo_t fresh = NCCL_SIM_INFO_INITIALIZER;
    if (info == NULL)
        return rail_fail(RAIL_E_ARGUMENT, "ncclGroupSimulateEnd: simInfo is NULL; the group is still open");
    if (info->magic != fresh.magic || info->version < NCCL_VERSION(2, 22, 0) ||
        info->size < offsetof(ncclSimInfo_t, estimatedTime) + sizeof info->estimatedTime)
        return rail_fail(RAIL_E_ARGUMENT, "ncclGroupSimulateEnd: simInfo has size %zu, magic %#x, version %u; set it "
                         "to NCCL_SIM_INFO_INITIALIZER; the group is still open", info->size, info->magic,
                         info->version);
    return RAIL_OK;
}

static enum rail_result simulate_end(ncclSimInfo_t *info)
{
    double ns = -1;
    RAIL_TRY(check(info));
    RAIL_TRY(group_simulate_end(&ns));
    if (ns >= 0) info->estimatedTime = (float)(ns / 1000);
    return RAIL_OK;
}

RAIL_DOOR(ncclGroupSimulateEnd)
ncclResult_t pncclGroupSimulateEnd(ncclSimInfo_t *simInfo)
{
    struct door door = door_open();
    return door_close(door, simulate_end(simInfo));
}
