/* redop.c - operators as combine rules. An average is a sum of inputs scaled by 1/n (floats: a sum of halves would
 * overflow otherwise) or divided at the end (integers). */
#include "core/redop.h"

#include <stdlib.h>
#include <string.h>

struct redop_created {
    uint64_t scale; /* bits of the scalar */
    uint64_t at;    /* 0, or where it stands in a GPU's memory */
    uint8_t type;
    uint8_t used;
};

static bool is_integer(enum rail_type type) { return type <= RAIL_U64; }

static enum rail_result grow(struct redops *ops)
{
    uint32_t capacity = ops->capacity ? ops->capacity * 2 : 8;
    if (capacity > REDOP_MAX_CREATED)
        return rail_fail(RAIL_E_USAGE,
                         "ncclRedOpCreatePreMulSum: %d operators are alive on this communicator; free those no longer "
                         "needed with ncclRedOpDestroy",
                         REDOP_MAX_CREATED);
    struct redop_created *more = realloc(ops->created, capacity * sizeof *more);
    if (!more) return rail_fail(RAIL_E_SYSTEM, "ncclRedOpCreatePreMulSum: out of memory");
    memset(more + ops->capacity, 0, (capacity - ops->capacity) * sizeof *more);
    ops->created = more;
    ops->capacity = capacity;
    return RAIL_OK;
}

enum rail_result redop_create(struct redops *ops, enum rail_type type, const void *scalar, int *handle_out)
{
    uint32_t at = 0;
    while (at < ops->capacity && ops->created[at].used) at++;
    if (at == ops->capacity) RAIL_TRY(grow(ops));
    struct redop_created *op = &ops->created[at];
    *op = (struct redop_created){.type = (uint8_t)type, .used = 1};
    memcpy(&op->scale, scalar, rail_type_bytes(type)); /* low bytes first: we build for little-endian CPUs only */
    *handle_out = (int)at + REDOP_FIRST_CREATED;
    return RAIL_OK;
}

enum rail_result redop_create_at(struct redops *ops, enum rail_type type, uint64_t address, int *handle_out)
{
    static const uint64_t unknown = 0;
    RAIL_TRY(redop_create(ops, type, &unknown, handle_out));
    ops->created[*handle_out - REDOP_FIRST_CREATED].at = address;
    return RAIL_OK;
}

static struct redop_created *find(const struct redops *ops, int handle)
{
    uint32_t at = (uint32_t)handle - REDOP_FIRST_CREATED;
    if (handle < REDOP_FIRST_CREATED || at >= ops->capacity || !ops->created[at].used) return NULL;
    return &ops->created[at];
}

uint64_t redop_scalar_at(const struct redops *ops, int op)
{
    const struct redop_created *created = find(ops, op);
    return created ? created->at : 0;
}

enum rail_result redop_destroy(struct redops *ops, int handle)
{
    struct redop_created *op = find(ops, handle);
    if (!op)
        return rail_fail(RAIL_E_ARGUMENT,
                         "ncclRedOpDestroy: operator %d was not created on this communicator, or was destroyed before",
                         handle);
    op->used = 0;
    return RAIL_OK;
}

void redops_clear(struct redops *ops)
{
    free(ops->created);
    *ops = (struct redops){0};
}

static enum rail_result resolve_average(enum rail_type type, uint32_t n_ranks, struct rail_combine *out)
{
    if (is_integer(type)) {
        out->divide = n_ranks;
    } else {
        out->scaled = true;
        out->scale = rail_reciprocal_bits(type, n_ranks);
    }
    return RAIL_OK;
}

enum rail_result redop_resolve(const struct redops *ops, const char *call, int op, int type, uint32_t n_ranks,
                               struct rail_combine *out)
{
    if (type < 0 || type >= RAIL_TYPES)
        return rail_fail(RAIL_E_ARGUMENT, "%s: datatype %d: valid are 0 (ncclInt8) to %d (ncclFloat8e5m2)", call, type,
                         RAIL_TYPES - 1);
    *out = (struct rail_combine){.type = (enum rail_type)type, .op = RAIL_SUM};
    if (op >= 0 && op < REDOP_AVG) {
        out->op = (enum rail_op)op;
        return RAIL_OK;
    }
    if (op == REDOP_AVG) return resolve_average(out->type, n_ranks, out);
    const struct redop_created *created = find(ops, op);
    if (!created)
        return rail_fail(RAIL_E_ARGUMENT,
                         "%s: operator %d: valid are 0 (ncclSum) to 4 (ncclAvg) and those from ncclRedOpCreatePreMulSum on "
                         "this communicator that were not destroyed",
                         call, op);
    if (created->type != type)
        return rail_fail(RAIL_E_ARGUMENT, "%s: operator %d was created for datatype %d and is used with %d", call, op,
                         created->type, type);
    out->scaled = true;
    out->scale = created->scale;
    return RAIL_OK;
}
