/* derive.c - the doors of communicators made from communicators: split, shrink, grow, and the revocation that precedes
 * them. */
#include <stdlib.h>
#include <string.h>

#include "api/comm_handle.h"
#include "api/config.h"
#include "api/door.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* not provided yet: nothing looks at the arguments */

#define BY_ID "make the new communicator with ncclGetUniqueId and ncclCommInitRank among its members"

/* What all of them have in common. A failed communicator is admitted: shrinking is for those. */
static enum rail_result begin(struct making *m, struct comm *parent, ncclComm_t *out, const ncclConfig_t *config)
{
    RAIL_TRY(comm_check(parent, m->call));
    if (!out) return rail_fail(RAIL_E_ARGUMENT, "%s: newcomm is NULL", m->call);
    if (parent->finalized)
        return rail_fail(RAIL_E_USAGE, "%s: the communicator was finalized; no calls may follow", m->call);
    RAIL_TRY(config_read(m->call, config, &parent->config, &m->config));
    m->parent = parent;
    m->device = parent->device;
    m->out = (struct comm **)(void *)out;
    return RAIL_OK;
}

static enum rail_result split(struct comm *comm, int color, int key, ncclComm_t *out, const ncclConfig_t *config)
{
    struct making m = {.call = "ncclCommSplit", .kind = MAKING_SPLIT, .color = color, .key = key};
    RAIL_TRY(begin(&m, comm, out, config));
    if (color < 0 && color != NCCL_SPLIT_NOCOLOR)
        return rail_fail(RAIL_E_ARGUMENT, "%s: color %d: must be 0 or more, or NCCL_SPLIT_NOCOLOR (%d)", m.call, color,
                         NCCL_SPLIT_NOCOLOR);
    return new_comm(&m);
}

RAIL_DOOR(ncclCommSplit)
ncclResult_t pncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t *newcomm, ncclConfig_t *config)
{
    struct door door = door_open();
    return door_close(door, group_noted(split(comm_of(comm), color, key, newcomm, config)));
}

/* ---- shrink ---- */

static enum rail_result list_check(const struct comm *comm, const char *call, const int *list, int n)
{
    if (n < 0 || (n > 0 && !list))
        return rail_fail(RAIL_E_ARGUMENT, "%s: excludeRanksCount %d, excludeRanksList %p", call, n, (const void *)list);
    if ((uint32_t)n >= comm->n_ranks)
        return rail_fail(RAIL_E_ARGUMENT, "%s: excludeRanksCount %d: at least one of the %u ranks must stay", call, n,
                         comm->n_ranks);
    for (int i = 0; i < n; i++) {
        if (list[i] < 0 || (uint32_t)list[i] >= comm->n_ranks)
            return rail_fail(RAIL_E_ARGUMENT, "%s: excludeRanksList[%d] is %d: valid are 0 to %u", call, i, list[i],
                             comm->n_ranks - 1);
        if ((uint32_t)list[i] == comm->rank)
            return rail_fail(RAIL_E_ARGUMENT,
                             "%s: excludeRanksList[%d] is %d, this rank itself: excluded ranks do not call", call, i,
                             list[i]);
        for (int k = 0; k < i; k++)
            if (list[k] == list[i])
                return rail_fail(RAIL_E_ARGUMENT, "%s: rank %d stands twice in excludeRanksList (at %d and %d)", call,
                                 list[i], k, i);
    }
    return RAIL_OK;
}

static enum rail_result members_keep(struct making *m, const int *excluded, int n)
{
    uint32_t old = m->parent->n_ranks;
    m->members = calloc(old, sizeof *m->members);
    if (!m->members) return rail_fail(RAIL_E_SYSTEM, "%s: %u ranks: out of memory", m->call, old);
    for (uint32_t r = 0; r < old; r++) {
        bool out = false;
        for (int i = 0; i < n && !out; i++) out = (uint32_t)excluded[i] == r;
        if (out) continue;
        if (r == m->parent->rank) m->rank = m->n_ranks;
        m->members[m->n_ranks++] = r;
    }
    return RAIL_OK;
}

static enum rail_result shrink(struct comm *comm, const int *excluded, int n, ncclComm_t *out,
                               const ncclConfig_t *config, int flags)
{
    struct making m = {.call = "ncclCommShrink", .kind = MAKING_SHRINK};
    RAIL_TRY(begin(&m, comm, out, config));
    RAIL_TRY(list_check(comm, m.call, excluded, n));
    if (flags != NCCL_SHRINK_DEFAULT && flags != NCCL_SHRINK_ABORT)
        return rail_fail(RAIL_E_ARGUMENT, "%s: shrinkFlags %#x: must be NCCL_SHRINK_DEFAULT or NCCL_SHRINK_ABORT", m.call,
                         (unsigned)flags);
    RAIL_TRY(members_keep(&m, excluded, n));
    if (flags == NCCL_SHRINK_ABORT) comm_stop(comm, "called ncclCommShrink with NCCL_SHRINK_ABORT");
    return new_comm(&m);
}

RAIL_DOOR(ncclCommShrink)
ncclResult_t pncclCommShrink(ncclComm_t comm, int *excludeRanksList, int excludeRanksCount, ncclComm_t *newcomm,
                             ncclConfig_t *config, int shrinkFlags)
{
    struct door door = door_open();
    return door_close(door, group_noted(shrink(comm_of(comm), excludeRanksList, excludeRanksCount, newcomm, config,
                                               shrinkFlags)));
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
