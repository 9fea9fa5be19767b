/* group.c - the doors of groups. */
#include "core/group.h"

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
