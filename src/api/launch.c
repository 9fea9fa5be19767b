/* launch.c - who am I, and how the ranks of a launch get their id: railccl's own calls. */
#include <string.h>

#include "api/door.h"
#include "bootstrap/launch.h"
#include "railccl.h"

_Static_assert(sizeof(ncclUniqueId) == BOOTSTRAP_ID_BYTES, "the id goes through as bytes");
_Static_assert(sizeof ((railLaunch_t *)NULL)->source == LAUNCH_SOURCE_BYTES, "the name goes through whole");

RAIL_OWN_DOOR(railLaunchInfo)
ncclResult_t railLaunchInfo(railLaunch_t *launch)
{
    struct door door = door_open();
    struct launch found;
    if (!launch) return door_close(door, rail_fail(RAIL_E_ARGUMENT, "railLaunchInfo: launch is NULL"));
    enum rail_result result = launch_info(&found);
    if (result != RAIL_OK) return door_close(door, result);
    *launch = (railLaunch_t){.rank = found.rank, .nRanks = found.n_ranks, .localRank = found.local_rank,
                             .nLocal = found.n_local};
    memcpy(launch->source, found.source, sizeof launch->source);
    return door_close(door, RAIL_OK);
}

RAIL_OWN_DOOR(railLaunchUniqueId)
ncclResult_t railLaunchUniqueId(const railLaunch_t *launch, ncclUniqueId *id)
{
    struct door door = door_open();
    if (!launch || !id)
        return door_close(door, rail_fail(RAIL_E_ARGUMENT, "railLaunchUniqueId: %s is NULL", launch ? "id" : "launch"));
    if (launch->nRanks < 1 || launch->rank < 0 || launch->rank >= launch->nRanks)
        return door_close(door, rail_fail(RAIL_E_ARGUMENT, "railLaunchUniqueId: rank %d of %d: pass what railLaunchInfo wrote",
                                          launch->rank, launch->nRanks));
    struct launch inside = {.rank = launch->rank, .n_ranks = launch->nRanks, .local_rank = launch->localRank,
                            .n_local = launch->nLocal};
    memcpy(inside.source, launch->source, sizeof inside.source);
    inside.source[sizeof inside.source - 1] = '\0';
    return door_close(door, launch_unique_id(&inside, (uint8_t *)id->internal));
}
