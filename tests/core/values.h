/* values.h - numbers in and out of the element types. */
#ifndef RAIL_TESTS_CORE_VALUES_H
#define RAIL_TESTS_CORE_VALUES_H

#include <nccl.h>
#include <string.h>

#include "device/host.h"

static inline void value_put(int type, void *at, double v)
{
    uint64_t bits = (uint64_t)(int64_t)v;
    float f = (float)v;
    if (type == ncclFloat32) memcpy(&bits, &f, 4);
    if (type == ncclFloat64) memcpy(&bits, &v, 8);
    if (type == ncclFloat16 || type >= ncclBfloat16) bits = rail_from_float((enum rail_type)type, f);
    memcpy(at, &bits, rail_type_bytes((enum rail_type)type));
}

static inline double value_get(int type, const void *at)
{
    uint64_t bits = 0;
    float f;
    double d;
    memcpy(&bits, at, rail_type_bytes((enum rail_type)type));
    if (type == ncclFloat32) return memcpy(&f, &bits, 4), f;
    if (type == ncclFloat64) return memcpy(&d, &bits, 8), d;
    if (type == ncclFloat16 || type >= ncclBfloat16) return rail_to_float((enum rail_type)type, bits);
    return (double)(int64_t)bits;
}

#endif
