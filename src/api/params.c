/* params.c - NCCL's calls that read the library's parameters. */
#include "api/door.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* not provided yet: nothing looks at the arguments */

#define NO_PARAMS "does not show its parameters through this interface yet"
#define SEE_ENV "`railccl env` prints them, getenv() reads what was set"

RAIL_DOOR(ncclParamBind)
ncclResult_t pncclParamBind(ncclParamHandle_t *out, const char *key)
{
    return door_not_provided("ncclParamBind", NO_PARAMS, SEE_ENV);
}

RAIL_DOOR(ncclParamGetI8)
ncclResult_t pncclParamGetI8(ncclParamHandle_t h, int8_t *out)
{
    return door_not_provided("ncclParamGetI8", NO_PARAMS, SEE_ENV);
}

RAIL_DOOR(ncclParamGetI16)
ncclResult_t pncclParamGetI16(ncclParamHandle_t h, int16_t *out)
{
    return door_not_provided("ncclParamGetI16", NO_PARAMS, SEE_ENV);
}

RAIL_DOOR(ncclParamGetI32)
ncclResult_t pncclParamGetI32(ncclParamHandle_t h, int32_t *out)
{
    return door_not_provided("ncclParamGetI32", NO_PARAMS, SEE_ENV);
}

RAIL_DOOR(ncclParamGetI64)
ncclResult_t pncclParamGetI64(ncclParamHandle_t h, int64_t *out)
{
    return door_not_provided("ncclParamGetI64", NO_PARAMS, SEE_ENV);
}

RAIL_DOOR(ncclParamGetU8)
ncclResult_t pncclParamGetU8(ncclParamHandle_t h, uint8_t *out)
{
    return door_not_provided("ncclParamGetU8", NO_PARAMS, SEE_ENV);
}

RAIL_DOOR(ncclParamGetU16)
ncclResult_t pncclParamGetU16(ncclParamHandle_t h, uint16_t *out)
{
    return door_not_provided("ncclParamGetU16", NO_PARAMS, SEE_ENV);
}

RAIL_DOOR(ncclParamGetU32)
ncclResult_t pncclParamGetU32(ncclParamHandle_t h, uint32_t *out)
{
    return door_not_provided("ncclParamGetU32", NO_PARAMS, SEE_ENV);
}

RAIL_DOOR(ncclParamGetU64)
ncclResult_t pncclParamGetU64(ncclParamHandle_t h, uint64_t *out)
{
    return door_not_provided("ncclParamGetU64", NO_PARAMS, SEE_ENV);
}

RAIL_DOOR(ncclParamGetStr)
ncclResult_t pncclParamGetStr(ncclParamHandle_t h, const char **out)
{
    return door_not_provided("ncclParamGetStr", NO_PARAMS, SEE_ENV);
}

RAIL_DOOR(ncclParamGet)
ncclResult_t pncclParamGet(ncclParamHandle_t h, void *out, int maxLen, int *len)
{
    return door_not_provided("ncclParamGet", NO_PARAMS, SEE_ENV);
}

RAIL_DOOR(ncclParamGetParameter)
ncclResult_t pncclParamGetParameter(const char *key, const char **value, int *valueLen)
{
    return door_not_provided("ncclParamGetParameter", NO_PARAMS, SEE_ENV);
}

RAIL_DOOR(ncclParamGetAllParameterKeys)
ncclResult_t pncclParamGetAllParameterKeys(const char ***table, int *tableLen)
{
    return door_not_provided("ncclParamGetAllParameterKeys", NO_PARAMS, SEE_ENV);
}

RAIL_DOOR(ncclParamDumpAll)
void pncclParamDumpAll(void)
{
    (void)door_not_provided("ncclParamDumpAll", NO_PARAMS, SEE_ENV);
}
