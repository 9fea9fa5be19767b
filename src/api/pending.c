/* pending.c - the calls whose own file does not have them yet. Each leaves here when its body arrives there. */
#include "api/door.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* not provided yet: nothing looks at the arguments */

RAIL_DOOR(ncclGroupSimulateEnd)
ncclResult_t pncclGroupSimulateEnd(ncclSimInfo_t *simInfo)
{
    return door_not_provided("ncclGroupSimulateEnd", "does not predict times yet",
                             "end the group with ncclGroupEnd and measure it");
}
