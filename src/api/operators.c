/* operators.c - the doors of created reduction operators. */
#include "api/comm_handle.h"
#include "api/door.h"
#include "core/gpu_rank.h"
#include "core/redop.h"

#define CREATE "ncclRedOpCreatePreMulSum"

static enum rail_result create(ncclRedOp_t *op, const void *scalar, int type, int residence, struct comm *comm)
{
    RAIL_TRY(comm_check(comm, CREATE));
    if (!op || !scalar) return rail_fail(RAIL_E_ARGUMENT, CREATE ": %s is NULL", op ? "scalar" : "op");
    if (type < 0 || type >= RAIL_TYPES)
        return rail_fail(RAIL_E_ARGUMENT, CREATE ": datatype %d: valid are 0 (ncclInt8) to %d (ncclFloat8e5m2)", type,
                         RAIL_TYPES - 1);
    if (residence != ncclScalarDevice && residence != ncclScalarHostImmediate)
        return rail_fail(RAIL_E_ARGUMENT, CREATE ": residence %d: valid are ncclScalarDevice and ncclScalarHostImmediate",
                         residence);
    int handle;
    comm_settle(comm); /* calls on streams may still look theirs up */
    RAIL_TRY(comm->gpu && residence == ncclScalarDevice
                 ? gpu_rank_scalar(comm, CREATE, (enum rail_type)type, scalar, &handle)
                 : redop_create(&comm->redops, (enum rail_type)type, scalar, &handle));
    *op = (ncclRedOp_t)handle;
    return RAIL_OK;
}

RAIL_DOOR(ncclRedOpCreatePreMulSum)
ncclResult_t pncclRedOpCreatePreMulSum(ncclRedOp_t *op, void *scalar, ncclDataType_t datatype,
                                       ncclScalarResidence_t residence, ncclComm_t comm)
{
    struct door door = door_open();
    return door_close(door, create(op, scalar, (int)datatype, (int)residence, comm_of(comm)));
}

static enum rail_result destroy(int op, struct comm *comm)
{
    RAIL_TRY(comm_check(comm, "ncclRedOpDestroy"));
    comm_settle(comm);
    return redop_destroy(&comm->redops, op);
}

RAIL_DOOR(ncclRedOpDestroy)
ncclResult_t pncclRedOpDestroy(ncclRedOp_t op, ncclComm_t comm)
{
    struct door door = door_open();
    return door_close(door, destroy((int)op, comm_of(comm)));
}
