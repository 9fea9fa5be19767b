/* communicator.c - the doors of a communicator's life and of what it knows of itself. */
#include <stdlib.h>
#include <string.h>

#include "api/comm_handle.h"
#include "api/config.h"
#include "api/door.h"
#include "bootstrap/bootstrap.h"
#include "core/collective.h"
#include "core/gpu_rank.h"
#include "core/group.h"
#include "nccl_device.h"

_Static_assert(sizeof(ncclUniqueId) == BOOTSTRAP_ID_BYTES, "an id is passed by value");

static enum rail_result unique_id(ncclUniqueId *id)
{
    if (!id) return rail_fail(RAIL_E_ARGUMENT, "ncclGetUniqueId: uniqueId is NULL");
    return bootstrap_root_create((uint8_t *)id->internal);
}

RAIL_DOOR(ncclGetUniqueId)
ncclResult_t pncclGetUniqueId(ncclUniqueId *uniqueId)
{
    struct door door = door_open();
    return door_close(door, unique_id(uniqueId));
}

static enum rail_result rank_check(const char *call, ncclComm_t *comm, int n_ranks, int rank)
{
    if (!comm) return rail_fail(RAIL_E_ARGUMENT, "%s: comm is NULL", call);
    if (n_ranks < 1) return rail_fail(RAIL_E_ARGUMENT, "%s: nranks %d: must be 1 or more", call, n_ranks);
    if (rank < 0 || rank >= n_ranks)
        return rail_fail(RAIL_E_ARGUMENT, "%s: rank %d: must be 0 to %d (nranks %d)", call, rank, n_ranks - 1, n_ranks);
    return RAIL_OK;
}

static enum rail_result init_rank(const char *call, ncclComm_t *comm, int n_ranks, const ncclUniqueId *id, int rank,
                                  int device, const ncclConfig_t *config)
{
    struct making m = {.call = call, .kind = MAKING_BY_ID, .device = device, .out = (struct comm **)(void *)comm,
                       .rank = (uint32_t)rank, .n_ranks = (uint32_t)n_ranks};
    RAIL_TRY(rank_check(call, comm, n_ranks, rank));
    RAIL_TRY(config_read(call, config, NULL, &m.config));
    memcpy(m.id, id->internal, sizeof m.id);
    RAIL_TRY(gpu_rank_device(call, device, &m.gpu));
    return new_comm(&m);
}

RAIL_DOOR(ncclCommInitRank)
ncclResult_t pncclCommInitRank(ncclComm_t *comm, int nranks, ncclUniqueId commId, int rank)
{
    struct door door = door_open();
    return door_close(door, group_noted(init_rank("ncclCommInitRank", comm, nranks, &commId, rank, -1, NULL)));
}

RAIL_DOOR(ncclCommInitRankConfig)
ncclResult_t pncclCommInitRankConfig(ncclComm_t *comm, int nranks, ncclUniqueId commId, int rank, ncclConfig_t *config)
{
    struct door door = door_open();
    return door_close(door, group_noted(init_rank("ncclCommInitRankConfig", comm, nranks, &commId, rank, -1, config)));
}

static enum rail_result init_rank_scalable(ncclComm_t *comm, int n_ranks, int rank, int n_ids, const ncclUniqueId *ids,
                                           const ncclConfig_t *config)
{
    static const char call[] = "ncclCommInitRankScalable";
    if (n_ids < 1 || !ids) return rail_fail(RAIL_E_ARGUMENT, "%s: nId %d, commIds %p", call, n_ids, (const void *)ids);
    return init_rank(call, comm, n_ranks, &ids[0], rank, -1, config); /* one root's tree already joins in O(log n) rounds */
}

RAIL_DOOR(ncclCommInitRankScalable)
ncclResult_t pncclCommInitRankScalable(ncclComm_t *newcomm, int nranks, int myrank, int nId, ncclUniqueId *commIds,
                                       ncclConfig_t *config)
{
    struct door door = door_open();
    return door_close(door, group_noted(init_rank_scalable(newcomm, nranks, myrank, nId, commIds, config)));
}

static enum rail_result init_all(ncclComm_t *comms, int n, const int *devices)
{
    if (!comms) return rail_fail(RAIL_E_ARGUMENT, "ncclCommInitAll: comm is NULL");
    if (n < 1) return rail_fail(RAIL_E_ARGUMENT, "ncclCommInitAll: ndev %d: must be 1 or more", n);
    ncclUniqueId id;
    RAIL_TRY(unique_id(&id));
    group_start();
    enum rail_result result = RAIL_OK;
    for (int r = 0; r < n && result == RAIL_OK; r++)
        result = group_noted(init_rank("ncclCommInitAll", &comms[r], n, &id, r, devices ? devices[r] : r, NULL));
    enum rail_result ended = group_end();
    return result != RAIL_OK ? result : ended;
}

RAIL_DOOR(ncclCommInitAll)
ncclResult_t pncclCommInitAll(ncclComm_t *comm, int ndev, const int *devlist)
{
    struct door door = door_open();
    return door_close(door, group_noted(init_all(comm, ndev, devlist)));
}

static enum rail_result finalize(struct comm *comm)
{
    RAIL_TRY(comm_check(comm, "ncclCommFinalize"));
    if (comm->finalized) return rail_fail(RAIL_E_USAGE, "ncclCommFinalize: the communicator was finalized before");
    return comm_finalize(comm);
}

RAIL_DOOR(ncclCommFinalize)
ncclResult_t pncclCommFinalize(ncclComm_t comm)
{
    struct door door = door_open();
    return door_close(door, finalize(comm_of(comm)));
}

static enum rail_result destroy(struct comm *comm)
{
    if (!comm) return RAIL_OK; /* as NCCL: nothing to do */
    if (comm_forget_parents(comm)) return RAIL_OK;
    RAIL_TRY(comm_known(comm, "ncclCommDestroy"));
    return comm_destroy(comm);
}

RAIL_DOOR(ncclCommDestroy)
ncclResult_t pncclCommDestroy(ncclComm_t comm)
{
    struct door door = door_open();
    return door_close(door, destroy(comm_of(comm)));
}

static enum rail_result abort_comm(struct comm *comm)
{
    if (!comm) return RAIL_OK;
    if (comm_forget_parents(comm)) return RAIL_OK;
    RAIL_TRY(comm_known(comm, "ncclCommAbort"));
    return comm_abort(comm);
}

RAIL_DOOR(ncclCommAbort)
ncclResult_t pncclCommAbort(ncclComm_t comm)
{
    struct door door = door_open();
    return door_close(door, abort_comm(comm_of(comm)));
}

static enum rail_result async_error(struct comm *comm, ncclResult_t *out)
{
    RAIL_TRY(comm_known(comm, "ncclCommGetAsyncError"));
    if (!out) return rail_fail(RAIL_E_ARGUMENT, "ncclCommGetAsyncError: asyncError is NULL");
    *out = door_result(comm_state(comm));
    return RAIL_OK;
}

RAIL_DOOR(ncclCommGetAsyncError)
ncclResult_t pncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *asyncError)
{
    struct door door = door_open();
    return door_close(door, async_error(comm_of(comm), asyncError));
}

static enum rail_result tell(const char *call, const struct comm *comm, int *out, int (*what)(const struct comm *))
{
    RAIL_TRY(comm_made_check(comm, call));
    if (!out) return rail_fail(RAIL_E_ARGUMENT, "%s: the pointer for the answer is NULL", call);
    *out = what(comm);
    return RAIL_OK;
}

static int count_of(const struct comm *comm) { return (int)comm->n_ranks; }
static int rank_of(const struct comm *comm) { return (int)comm->rank; }
static int device_of(const struct comm *comm) { return comm->device; }

RAIL_DOOR(ncclCommCount)
ncclResult_t pncclCommCount(const ncclComm_t comm, int *count)
{
    struct door door = door_open();
    return door_close(door, tell("ncclCommCount", comm_of(comm), count, count_of));
}

RAIL_DOOR(ncclCommUserRank)
ncclResult_t pncclCommUserRank(const ncclComm_t comm, int *rank)
{
    struct door door = door_open();
    return door_close(door, tell("ncclCommUserRank", comm_of(comm), rank, rank_of));
}

RAIL_DOOR(ncclCommCuDevice)
ncclResult_t pncclCommCuDevice(const ncclComm_t comm, int *device)
{
    struct door door = door_open();
    return door_close(door, tell("ncclCommCuDevice", comm_of(comm), device, device_of));
}

/* As much of it as the program's generation of the structure has. */
static enum rail_result properties(const struct comm *comm, ncclCommProperties_t *out)
{
    static const char call[] = "ncclCommQueryProperties";
    RAIL_TRY(comm_made_check(comm, call));
    if (!out) return rail_fail(RAIL_E_ARGUMENT, "%s: props is NULL", call);
    if (out->magic != NCCL_API_MAGIC || out->size < offsetof(ncclCommProperties_t, rank) || out->size > 4096)
        return rail_fail(RAIL_E_ARGUMENT, "%s: props->magic is %#x, props->size %zu; initialise the structure with "
                         "NCCL_COMM_PROPERTIES_INITIALIZER", call, out->magic, out->size);
    ncclCommProperties_t all = {
        .size = out->size, .magic = out->magic, .version = out->version, .rank = (int)comm->rank,
        .nRanks = (int)comm->n_ranks, .cudaDev = comm->device, .nvmlDev = -1, .ginType = NCCL_GIN_TYPE_NONE,
        .nLsaTeams = (int)comm->shape.n_nodes, .hostRmaSupport = true, .railedGinType = NCCL_GIN_TYPE_NONE,
    };
    memcpy(out, &all, out->size < sizeof all ? out->size : sizeof all);
    return RAIL_OK;
}

RAIL_DOOR(ncclCommQueryProperties)
ncclResult_t pncclCommQueryProperties(ncclComm_t comm, ncclCommProperties_t *props)
{
    struct door door = door_open();
    return door_close(door, properties(comm_of(comm), props));
}
