/* numbers.h - one element at a time, as the host's arithmetic has it (device/host.h says the rules): the 16- and 8-bit
 * floats to float and back, floats as integers that sort as they do, integers divided. Plain C subset of CUDA. */
#ifndef RAIL_DEVICE_CUDA_NUMBERS_H
#define RAIL_DEVICE_CUDA_NUMBERS_H

#include "device/cuda/quad.h"
#include "device/host.h"
#include "device/number_facts.h"

union float_bits {
    uint32_t u;
    float f;
};
union double_bits {
    uint64_t u;
    double d;
};

KERNEL_FN float float_of(uint32_t bits)
{
    union float_bits x;
    x.u = bits;
    return x.f;
}
KERNEL_FN uint32_t bits_of(float value)
{
    union float_bits x;
    x.f = value;
    return x.u;
}
KERNEL_FN double double_of(uint64_t bits)
{
    union double_bits x;
    x.u = bits;
    return x.d;
}
KERNEL_FN uint64_t bits_of_double(double value)
{
    union double_bits x;
    x.d = value;
    return x.u;
}

/* ---- facts about types: all take constants ----------------------------------------------------------------------- */

KERNEL_FN uint32_t number_bytes(uint32_t type)
{
    switch (type) {
    case RAIL_I8: case RAIL_U8: case RAIL_F8E4M3: case RAIL_F8E5M2: return 1;
    case RAIL_F16: case RAIL_BF16: return 2;
    case RAIL_I32: case RAIL_U32: case RAIL_F32: return 4;
    default: return 8;
    }
}
KERNEL_FN int number_is_float(uint32_t type) { return type >= RAIL_F16; }
KERNEL_FN int number_is_signed(uint32_t type) { return type == RAIL_I8 || type == RAIL_I32 || type == RAIL_I64; }
/* Sums and products of these are made in float. */
KERNEL_FN int number_is_small(uint32_t type) { return number_is_float(type) && type != RAIL_F32 && type != RAIL_F64; }

NUMBER_FACTS(KERNEL_FN)

/* ---- small floats to float ---------------------------------------------------------------------------------------- */

/* e4m3 (fraction 3, bias 7) or e5m2 (2, 15) in the high byte. A subnormal gets the exponent of the smallest normal number
 * as if it had an implied 1, which is subtracted again. */
KERNEL_FN float f8_widen_high(const int e4m3, uint32_t high)
{
    const uint32_t bias = (e4m3 ? 120u : 112u) << 23;
    uint32_t sign = high & 0x80000000, magnitude = (high & 0x7f000000) >> (e4m3 ? 4 : 3);
    int is_small = magnitude < 1u << 23;
    uint32_t bits = magnitude + bias + (is_small ? 1u << 23 : 0);
    if (!e4m3 && magnitude >= 31u << 23) bits += bias;
    float value = float_of(bits) - float_of(is_small ? bias + (1u << 23) : 0);
    if (e4m3 && magnitude == 0x7fu << 20) return float_of(0x7fc00000);
    return float_of(bits_of(value) | sign);
}

KERNEL_FN float f16_widen_low(uint32_t bits)
{
#if KERNEL_CUDA
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"((uint16_t)bits));
    return value;
#else
    uint32_t sign = (bits & 0x8000) << 16, magnitude = (bits & 0x7fff) << 13;
    int is_small = magnitude < 1u << 23;
    uint32_t wide = magnitude + (112u << 23) + (is_small ? 1u << 23 : 0);
    if (magnitude >= 31u << 23) wide += 112u << 23;
    return float_of(bits_of(float_of(wide) - float_of(is_small ? 113u << 23 : 0)) | sign);
#endif
}

/* Element k of a quad, of a type made in float. */
KERNEL_FN float small_widen(const uint32_t type, const struct quad *q, const int k)
{
    switch (type) {
    case RAIL_BF16: return float_of(k % 2 ? q->w[k / 2] & 0xffff0000 : q->w[k / 2] << 16);
    case RAIL_F16: return f16_widen_low(q->w[k / 2] >> 16 * (k % 2) & 0xffff);
    default: return f8_widen_high(type == RAIL_F8E4M3, q->w[k / 4] << (24 - 8 * (k % 4)) & 0xff000000);
    }
}

/* ---- and back, rounded to nearest even ----------------------------------------------------------------------------- */

/* To a format with `fraction` bits of fraction and the given bias. `top` is the float that larger magnitudes are taken
 * as: the largest finite number where the format saturates, or the power of two that rounds to infinity. Below the
 * smallest normal number, adding a float whose last place is the format's smallest subnormal makes the hardware round. */
KERNEL_FN uint32_t small_encode(float value, const int fraction, const int bias, const uint32_t top, const int sign_shift,
                                const uint32_t nan)
{
    const uint32_t smallest_normal = (uint32_t)(127 - bias + 1) << 23;
    const uint32_t rounder = (uint32_t)(127 - bias + 1 + (23 - fraction)) << 23;
    uint32_t bits = bits_of(value), sign = (bits & 0x80000000) >> sign_shift, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return nan;
    if (magnitude > top) magnitude = top;
    if (magnitude < smallest_normal) return (bits_of(float_of(magnitude) + float_of(rounder)) - rounder) | sign;
    uint32_t odd = magnitude >> (23 - fraction) & 1;
    return (magnitude - ((uint32_t)(127 - bias) << 23) + ((1u << (22 - fraction)) - 1) + odd) >> (23 - fraction) | sign;
}

KERNEL_FN uint32_t f16_narrow(float value)
{
#if KERNEL_CUDA
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return value == value ? bits : 0x7e00;
#else
    return small_encode(value, 10, 15, 0x47800000 /* 65536 */, 16, 0x7e00);
#endif
}

KERNEL_FN uint32_t bf16_narrow(float value)
{
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

KERNEL_FN uint32_t small_narrow(const uint32_t type, float value)
{
    switch (type) {
    case RAIL_BF16: return bf16_narrow(value);
    case RAIL_F16: return f16_narrow(value);
    case RAIL_F8E4M3: return small_encode(value, 3, 7, 0x43e00000 /* 448 */, 24, 0x7f);
    default: return small_encode(value, 2, 15, 0x47600000 /* 57344 */, 24, 0x7e);
    }
}

/* ---- minimum and maximum: floats as integers that sort as they do, -0 below +0 -------------------------------------- */

/* `v` is the element's bits, sign extended; `most` the largest integer of its width. Magnitudes of negative numbers are
 * turned over. A NaN sorts last in the direction of the operator, so that it wins only among NaNs: one sign of it does
 * already, the other is moved there. sort_undo turns back; of e5m2 it makes infinities the largest finite number. */
#define DEFINE_SORT(lane)                                                                                              \
    KERNEL_FN lane sort_key_##lane(const uint32_t type, const uint32_t op, lane v, const lane most)                    \
    {                                                                                                                  \
        const lane largest = (lane)number_largest(type);                                                               \
        if (v < 0) v ^= most;                                                                                          \
        if (op == RAIL_MAX) return v > largest ? (lane)~most : v;                                                      \
        return v < (lane)~largest ? most : v;                                                                          \
    }                                                                                                                  \
    KERNEL_FN lane sort_undo_##lane(const uint32_t type, const uint32_t op, lane v, const lane most)                   \
    {                                                                                                                  \
        const lane largest = (lane)number_largest(type);                                                               \
        if (type == RAIL_F8E5M2) v += (v == (lane)~largest) - (v == largest);                                          \
        if (op == RAIL_MAX ? v < (lane)~largest : v > largest) return (lane)number_nan(type);                          \
        return v < 0 ? v ^ most : v;                                                                                   \
    }
DEFINE_SORT(int32_t)
DEFINE_SORT(int64_t)
#undef DEFINE_SORT

/* ---- integers divided, towards zero --------------------------------------------------------------------------------- */

/* Up to 32 bits, sign extended where there is one: the magnitude is divided, in half the time that 64 bits take. */
KERNEL_FN uint32_t divided_short(int is_signed, uint32_t x, uint64_t by)
{
    int negative = is_signed && x >> 31;
    uint32_t magnitude = negative ? 0u - x : x, quotient = by > 0xffffffffull ? 0 : magnitude / (uint32_t)by;
    return negative ? 0u - quotient : quotient;
}

KERNEL_FN int64_t divided_signed(int64_t x, uint64_t by)
{
    if (by <= 0x7fffffffffffffffull) return x / (int64_t)by;
    return (uint64_t)x == 0x8000000000000000ull && by == 0x8000000000000000ull ? -1 : 0;
}

#endif
