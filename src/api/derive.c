/* derive.c - the doors of communicators made from communicators: split, shrink, grow, and the revocation that precedes
 * them. */
#include <stdlib.h>
#include <string.h>

#include "api/comm_handle.h"
#include "api/config.h"
#include "api/door.h"
#include "core/gone.h"
#include "core/gpu_rank.h"
#include "railccl.h"

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

/* ---- grow ---- */

static enum rail_result new_rank(struct making *m, int rank, ncclComm_t *out, const ncclConfig_t *config)
{
    if (!out) return rail_fail(RAIL_E_ARGUMENT, "%s: newcomm is NULL", m->call);
    if (!m->has_id)
        return rail_fail(RAIL_E_ARGUMENT,
                         "%s: uniqueId is NULL: a new rank needs the id that a member made with ncclCommGetUniqueId", m->call);
    if (rank < 0 || (uint32_t)rank >= m->n_ranks)
        return rail_fail(RAIL_E_ARGUMENT, "%s: rank %d of a new rank: must be its number in the new communicator, below "
                         "nRanks %u", m->call, rank, m->n_ranks);
    RAIL_TRY(config_read(m->call, config, NULL, &m->config));
    m->kind = MAKING_BY_ID;
    m->rank = (uint32_t)rank;
    m->device = -1;
    m->out = (struct comm **)(void *)out;
    return gpu_rank_device(m->call, -1, &m->gpu);
}

static enum rail_result old_rank(struct making *m, struct comm *comm, int rank, ncclComm_t *out,
                                 const ncclConfig_t *config)
{
    RAIL_TRY(begin(m, comm, out, config));
    if (rank != -1)
        return rail_fail(RAIL_E_ARGUMENT, "%s: rank %d together with a communicator: members keep their number and pass "
                         "-1", m->call, rank);
    if (m->n_ranks <= comm->n_ranks)
        return rail_fail(RAIL_E_ARGUMENT, "%s: nRanks %u: must be more than the %u ranks that there are", m->call,
                         m->n_ranks, comm->n_ranks);
    return RAIL_OK;
}

static enum rail_result grow(struct comm *comm, int n_ranks, const ncclUniqueId *id, int rank, ncclComm_t *out,
                             const ncclConfig_t *config)
{
    struct making m = {.call = "ncclCommGrow", .kind = MAKING_GROW, .n_ranks = (uint32_t)n_ranks, .has_id = id != NULL};
    if (n_ranks < 1) return rail_fail(RAIL_E_ARGUMENT, "%s: nRanks %d: must be 1 or more", m.call, n_ranks);
    if (id) memcpy(m.id, id->internal, sizeof m.id);
    RAIL_TRY(comm ? old_rank(&m, comm, rank, out, config) : new_rank(&m, rank, out, config));
    return new_comm(&m);
}

RAIL_DOOR(ncclCommGrow)
ncclResult_t pncclCommGrow(ncclComm_t comm, int nRanks, const ncclUniqueId *uniqueId, int rank, ncclComm_t *newcomm,
                           ncclConfig_t *config)
{
    struct door door = door_open();
    return door_close(door, group_noted(grow(comm_of(comm), nRanks, uniqueId, rank, newcomm, config)));
}

static enum rail_result id_for_growing(struct comm *comm, ncclUniqueId *id)
{
    static const char call[] = "ncclCommGetUniqueId";
    RAIL_TRY(comm_check(comm, call));
    if (!id) return rail_fail(RAIL_E_ARGUMENT, "%s: uniqueId is NULL", call);
    if (!fault_is(&comm->fault, RAIL_E_REVOKED)) RAIL_TRY(fault_result(&comm->fault)); /* a revoked one may grow */
    return bootstrap_root_create((uint8_t *)id->internal);
}

RAIL_DOOR(ncclCommGetUniqueId)
ncclResult_t pncclCommGetUniqueId(ncclComm_t comm, ncclUniqueId *uniqueId)
{
    struct door door = door_open();
    return door_close(door, id_for_growing(comm_of(comm), uniqueId));
}

/* ---- revoke ---- */

static enum rail_result revoke(struct comm *comm, int flags)
{
    RAIL_TRY(comm_known(comm, "ncclCommRevoke"));
    if (flags != NCCL_REVOKE_DEFAULT)
        return rail_fail(RAIL_E_ARGUMENT, "ncclCommRevoke: revokeFlags %#x: must be NCCL_REVOKE_DEFAULT (0)",
                         (unsigned)flags);
    return comm_revoke(comm);
}

RAIL_DOOR(ncclCommRevoke)
ncclResult_t pncclCommRevoke(ncclComm_t comm, int revokeFlags)
{
    struct door door = door_open();
    return door_close(door, revoke(comm_of(comm), revokeFlags));
}

/* ---- who is to be left out ---- */

static enum rail_result gone(struct comm *comm, int *ranks, int *n)
{
    static const char call[] = "railCommGone";
    RAIL_TRY(comm_check(comm, call));
    if (!ranks || !n) return rail_fail(RAIL_E_ARGUMENT, "%s: %s is NULL", call, ranks ? "n" : "ranks");
    comm_gone(comm, ranks, n);
    return RAIL_OK;
}

RAIL_OWN_DOOR(railCommGone)
ncclResult_t railCommGone(ncclComm_t comm, int *ranks, int *n)
{
    struct door door = door_open();
    return door_close(door, gone(comm_of(comm), ranks, n));
}
