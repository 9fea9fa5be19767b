/* params.c - NCCL's calls that read the library's parameters: our table of variables under its names.
 *
 * A handle is the address of a variable's place in a table of our own: nothing is allocated, and a handle that is none
 * is told. What a call lends belongs to the calling thread or to the table, as nccl.h says. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/door.h"
#include "base/log.h"
#include "base/params.h"

struct ncclParamHandle { enum rail_param id; };

static struct ncclParamHandle handles[RAIL_PARAM_COUNT] = {
#define RAIL_PARAM_INT(id, name, default_value, low, high, effect, text) {RAIL_PARAM_##id},
#define RAIL_PARAM_BOOL(id, name, default_value, effect, text) {RAIL_PARAM_##id},
#define RAIL_PARAM_STR(id, name, default_value, effect, text) {RAIL_PARAM_##id},
#define RAIL_PARAM_CHOICE(id, name, default_value, choices, effect, text) {RAIL_PARAM_##id},
#include "base/params.def"
#undef RAIL_PARAM_INT
#undef RAIL_PARAM_BOOL
#undef RAIL_PARAM_STR
#undef RAIL_PARAM_CHOICE
};

/* ---- finding ---- */

static enum rail_result find(const char *call, const char *key, enum rail_param *out)
{
    if (key == NULL) return rail_fail(RAIL_E_ARGUMENT, "%s: key NULL; pass the name of a variable", call);
    for (int i = 0; i < RAIL_PARAM_COUNT; i++)
        if (strcmp(rail_param_name((enum rail_param)i), key) == 0) return *out = (enum rail_param)i, RAIL_OK;
    return rail_fail(RAIL_E_ARGUMENT, "%s: there is no parameter %.100s; ncclParamGetAllParameterKeys lists them", call,
                     key);
}

static enum rail_result of_handle(const char *call, ncclParamHandle_t h, const void *out, enum rail_param *id)
{
    if (out == NULL) return rail_fail(RAIL_E_ARGUMENT, "%s: out NULL; pass the address of the result", call);
    uintptr_t first = (uintptr_t)handles, at = (uintptr_t)h;
    if (at < first || at - first >= sizeof handles || (at - first) % sizeof handles[0] != 0)
        return rail_fail(RAIL_E_ARGUMENT, "%s: %p is no handle; ncclParamBind gives one", call, (void *)h);
    *id = h->id;
    return RAIL_OK;
}

/* A text that stays: the table's own, or the number in `room`. */
enum { NUMBER_TEXT_BYTES = 24 };
static const char *text_of(enum rail_param id, char room[NUMBER_TEXT_BYTES])
{
    if (rail_param_is_number(id)) {
        snprintf(room, NUMBER_TEXT_BYTES, "%" PRId64, rail_param_int(id));
        return room;
    }
    const char *word = rail_param_str(id);
    if (id == RAIL_PARAM_SECRET && word != NULL) return "(not shown)";
    return word == NULL ? "" : word;
}

/* ---- by handle ---- */

RAIL_DOOR(ncclParamBind)
ncclResult_t pncclParamBind(ncclParamHandle_t *out, const char *key)
{
    struct door door = door_open();
    enum rail_param id;
    if (out == NULL)
        return door_close(door, rail_fail(RAIL_E_ARGUMENT, "ncclParamBind: out NULL; pass the address of a handle"));
    enum rail_result result = find("ncclParamBind", key, &id);
    if (result == RAIL_OK) *out = &handles[id];
    return door_close(door, result);
}

static enum rail_result number(const char *call, ncclParamHandle_t h, const void *out, int64_t low, int64_t high,
                               int64_t *value)
{
    enum rail_param id;
    RAIL_TRY(of_handle(call, h, out, &id));
    if (!rail_param_is_number(id))
        return rail_fail(RAIL_E_ARGUMENT, "%s: %s is a text; read it with ncclParamGetStr", call, rail_param_name(id));
    int64_t n = rail_param_int(id);
    if (n < low || n > high)
        return rail_fail(RAIL_E_ARGUMENT, "%s: %s is %" PRId64 ", which does not fit; read it with ncclParamGetI64",
                         call, rail_param_name(id), n);
    *value = n;
    return RAIL_OK;
}

#define GET_NUMBER(name, type, low, high)                                                                              \
    RAIL_DOOR(name)                                                                                                    \
    ncclResult_t p##name(ncclParamHandle_t h, type *out)                                                               \
    {                                                                                                                  \
        struct door door = door_open();                                                                                \
        int64_t value;                                                                                                 \
        enum rail_result result = number(#name, h, out, low, high, &value);                                            \
        if (result == RAIL_OK) *out = (type)value;                                                                     \
        return door_close(door, result);                                                                               \
    }

GET_NUMBER(ncclParamGetI8, int8_t, INT8_MIN, INT8_MAX)
GET_NUMBER(ncclParamGetI16, int16_t, INT16_MIN, INT16_MAX)
GET_NUMBER(ncclParamGetI32, int32_t, INT32_MIN, INT32_MAX)
GET_NUMBER(ncclParamGetI64, int64_t, INT64_MIN, INT64_MAX)
GET_NUMBER(ncclParamGetU8, uint8_t, 0, UINT8_MAX)
GET_NUMBER(ncclParamGetU16, uint16_t, 0, UINT16_MAX)
GET_NUMBER(ncclParamGetU32, uint32_t, 0, UINT32_MAX)
GET_NUMBER(ncclParamGetU64, uint64_t, 0, INT64_MAX)

RAIL_DOOR(ncclParamGetStr)
ncclResult_t pncclParamGetStr(ncclParamHandle_t h, const char **out)
{
    static _Thread_local char room[NUMBER_TEXT_BYTES];
    struct door door = door_open();
    enum rail_param id;
    enum rail_result result = of_handle("ncclParamGetStr", h, out, &id);
    if (result == RAIL_OK) *out = text_of(id, room);
    return door_close(door, result);
}

static enum rail_result get_bytes(ncclParamHandle_t h, void *out, int max_bytes, int *bytes)
{
    char room[NUMBER_TEXT_BYTES];
    enum rail_param id;
    RAIL_TRY(of_handle("ncclParamGet", h, out, &id));
    if (bytes == NULL) return rail_fail(RAIL_E_ARGUMENT, "ncclParamGet: len NULL; pass the address of an int");
    int64_t n = rail_param_is_number(id) ? rail_param_int(id) : 0;
    const void *from = rail_param_is_number(id) ? (const void *)&n : text_of(id, room);
    size_t need = rail_param_is_number(id) ? sizeof n : strlen(from) + 1;
    if (max_bytes < 0 || (size_t)max_bytes < need)
        return rail_fail(RAIL_E_ARGUMENT, "ncclParamGet: %s needs %zu bytes, maxLen is %d", rail_param_name(id), need,
                         max_bytes);
    memcpy(out, from, need);
    *bytes = (int)need;
    return RAIL_OK;
}

RAIL_DOOR(ncclParamGet)
ncclResult_t pncclParamGet(ncclParamHandle_t h, void *out, int maxLen, int *len)
{
    struct door door = door_open();
    return door_close(door, get_bytes(h, out, maxLen, len));
}

/* ---- by name ---- */

RAIL_DOOR(ncclParamGetParameter)
ncclResult_t pncclParamGetParameter(const char *key, const char **value, int *valueLen)
{
    static _Thread_local char room[NUMBER_TEXT_BYTES];
    struct door door = door_open();
    enum rail_param id;
    if (value == NULL)
        return door_close(door, rail_fail(RAIL_E_ARGUMENT, "ncclParamGetParameter: value NULL; pass the address of a "
                                                           "pointer"));
    enum rail_result result = find("ncclParamGetParameter", key, &id);
    if (result != RAIL_OK) return door_close(door, result);
    *value = text_of(id, room);
    if (valueLen != NULL) *valueLen = (int)strlen(*value);
    return door_close(door, RAIL_OK);
}

static bool listed(enum rail_param id)
{
    return rail_param_effect_of(id) != RAIL_IGNORED || rail_param_bool(RAIL_PARAM_NCCL_PARAM_DUMP_ALL);
}

RAIL_DOOR(ncclParamGetAllParameterKeys)
ncclResult_t pncclParamGetAllParameterKeys(const char ***table, int *tableLen)
{
    static _Thread_local const char *keys[RAIL_PARAM_COUNT];
    struct door door = door_open();
    if (table == NULL || tableLen == NULL)
        return door_close(door, rail_fail(RAIL_E_ARGUMENT, "ncclParamGetAllParameterKeys: %s NULL; pass both addresses",
                                          table == NULL ? "table" : "tableLen"));
    int n = 0;
    for (int i = 0; i < RAIL_PARAM_COUNT; i++)
        if (listed((enum rail_param)i)) keys[n++] = rail_param_name((enum rail_param)i);
    *table = keys;
    *tableLen = n;
    return door_close(door, RAIL_OK);
}

RAIL_DOOR(ncclParamDumpAll)
void pncclParamDumpAll(void)
{
    struct door door = door_open();
    char room[NUMBER_TEXT_BYTES];
    for (int i = 0; i < RAIL_PARAM_COUNT; i++)
        if (listed((enum rail_param)i))
            rail_log_line(RAIL_LOG_NONE, 0, NULL, 0, "%s=%s", rail_param_name((enum rail_param)i),
                          text_of((enum rail_param)i, room));
    (void)door_close(door, RAIL_OK);
}
