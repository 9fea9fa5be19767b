/* host_sort.h - min and max of floats as min and max of integers, without a float instruction.
 *
 * Included by host_kernels.h. No instruction set's float minimum treats NaN and signed zeros as the others do. */
#ifndef RAIL_DEVICE_HOST_SORT_H
#define RAIL_DEVICE_HOST_SORT_H

#include "device/host.h"
#include "device/host_vectors.h"
#include "device/number_facts.h"

NUMBER_FACTS(INLINE)

/* Integers that sort as the floats do, -0 below +0: magnitudes of negative numbers are turned over. A NaN sorts last
 * in the direction of the operator, so that it wins only among NaNs. Numbers lie in [~largest, largest]: a negative NaN
 * is last for max, a positive one for min, already; the other sign is moved there. sort_undo turns back. */
#define DEFINE_SORT(bits)                                                                                              \
    INLINE vu32 sort_key_##bits(vu32 raw, const enum rail_op op, const uint##bits##_t largest)                         \
    {                                                                                                                  \
        const vi##bits zero = {0}, high = zero + (int##bits##_t)largest, low = zero + (int##bits##_t)~largest;         \
        vi##bits key = (vi##bits)raw;                                                                                  \
        key ^= (vi##bits)(key < zero) & INT##bits##_MAX;                                                               \
        vu32 nan = op == RAIL_MAX ? (vu32)(key > high) : (vu32)(key < low);                                            \
        vu32 last = (vu32)(zero + (int##bits##_t)(op == RAIL_MAX ? INT##bits##_MIN : INT##bits##_MAX));                \
        return lane_select(nan, last, (vu32)key);                                                                      \
    }                                                                                                                  \
    INLINE vu32 sort_undo_##bits(vu32 sorted, const enum rail_op op, const uint##bits##_t largest,                     \
                                 const uint##bits##_t nan_bits)                                                        \
    {                                                                                                                  \
        const vi##bits zero = {0}, high = zero + (int##bits##_t)largest, low = zero + (int##bits##_t)~largest;         \
        vi##bits key = (vi##bits)sorted;                                                                               \
        vu32 nan = op == RAIL_MAX ? (vu32)(key < low) : (vu32)(key > high);                                            \
        key ^= (vi##bits)(key < zero) & INT##bits##_MAX;                                                               \
        return lane_select(nan, (vu32)(zero + (int##bits##_t)nan_bits), (vu32)key);                                    \
    }
DEFINE_SORT(8)
DEFINE_SORT(16)
DEFINE_SORT(32)
DEFINE_SORT(64)

INLINE vu32 sort_key(const enum rail_type type, const enum rail_op op, vu32 raw)
{
    const uint64_t largest = (uint64_t)number_largest(type);
    switch (8 * rail_type_bytes(type)) {
    case 8: return sort_key_8(raw, op, (uint8_t)largest);
    case 16: return sort_key_16(raw, op, (uint16_t)largest);
    case 32: return sort_key_32(raw, op, (uint32_t)largest);
    default: return sort_key_64(raw, op, largest);
    }
}

/* e5m2 keys with infinity, 0x7c, made the largest finite number on either side: a result is a conversion to fp8, as it
 * is in NCCL. NaNs, beyond infinity, stay. */
INLINE vu32 infinities_saturated(vu32 keys)
{
    const vi8 zero = {0}, key = (vi8)keys;
    return (vu32)(key + (key == zero + 0x7c) - (key == zero + (int8_t)~0x7c)); /* true is -1 */
}

INLINE vu32 sort_undo(const enum rail_type type, const enum rail_op op, vu32 key)
{
    const uint64_t largest = (uint64_t)number_largest(type), nan = (uint64_t)number_nan(type);
    switch (8 * rail_type_bytes(type)) {
    case 8:
        if (type == RAIL_F8E5M2) key = infinities_saturated(key);
        return sort_undo_8(key, op, (uint8_t)largest, (uint8_t)nan);
    case 16: return sort_undo_16(key, op, (uint16_t)largest, (uint16_t)nan);
    case 32: return sort_undo_32(key, op, (uint32_t)largest, (uint32_t)nan);
    default: return sort_undo_64(key, op, largest, nan);
    }
}

#endif
