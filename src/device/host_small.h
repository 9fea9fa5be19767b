/* host_small.h - f16, bf16 and the two fp8 formats in vectors: to float and, rounded to nearest even, back.
 *
 * Included by host_kernels.h. widen turns a vector of elements into 2 or 4 vectors of float ("parts"); which element goes
 * to which part is whatever is cheapest, since narrow puts them back. NaN results are canonical. */
#ifndef RAIL_DEVICE_HOST_SMALL_H
#define RAIL_DEVICE_HOST_SMALL_H

#include "device/host.h"
#include "device/host_vectors.h"

/* ---- bf16: the high half of a float ----------------------------------------------------------------------------- */

INLINE void bf16_widen(vu32 raw, vu32 *part)
{
    part[0] = raw << 16;
    part[1] = raw & 0xffff0000;
}

INLINE vu32 bf16_narrow(vu32 *part)
{
    nans_made_canonical_32(part, 2); /* rounding would carry some NaNs into the sign */
    vu32 even = part[0] + 0x7fff + ((part[0] >> 16) & 1);
    vu32 odd = part[1] + 0x7fff + ((part[1] >> 16) & 1);
#if PATH_VECTOR_BYTES == 32 && defined(__AVX2__)
    return (vu32)_mm256_blend_epi16((__m256i)(even >> 16), (__m256i)odd, 0xaa);
#else
    return even >> 16 | (odd & 0xffff0000);
#endif
}

#if defined(PATH_F16C)

/* ---- f16 by instruction, and fp8 by way of f16 ------------------------------------------------------------------ */

/* The conversion instructions know subnormals whatever the thread's settings are. */
#if PATH_VECTOR_BYTES == 64
INLINE void f16_widen(vu32 raw, vu32 *part)
{
    part[0] = (vu32)_mm512_cvtph_ps(_mm512_castsi512_si256((__m512i)raw));
    part[1] = (vu32)_mm512_cvtph_ps(_mm512_extracti64x4_epi64((__m512i)raw, 1));
}

/* The same from memory, where the instruction loads for itself. */
INLINE void f16_widen_from(const uint8_t *p, vu32 *part)
{
    part[0] = (vu32)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
    part[1] = (vu32)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p + 32)));
}

INLINE vu32 f16_narrow_numbers(const vu32 *part)
{
    __m256i low = _mm512_cvtps_ph((__m512)part[0], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256i high = _mm512_cvtps_ph((__m512)part[1], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return (vu32)_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

INLINE vu32 float_min(vu32 a, vu32 b) { return (vu32)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vu32 integer_max(vu32 a, vu32 b) { return (vu32)_mm512_max_epi32((__m512i)a, (__m512i)b); }
#else
INLINE void f16_widen(vu32 raw, vu32 *part)
{
    part[0] = (vu32)_mm256_cvtph_ps(_mm256_castsi256_si128((__m256i)raw));
    part[1] = (vu32)_mm256_cvtph_ps(_mm256_extracti128_si256((__m256i)raw, 1));
}

INLINE void f16_widen_from(const uint8_t *p, vu32 *part)
{
    part[0] = (vu32)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
    part[1] = (vu32)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p + 16)));
}

INLINE vu32 f16_narrow_numbers(const vu32 *part)
{
    __m128i low = _mm256_cvtps_ph((__m256)part[0], _MM_FROUND_TO_NEAREST_INT);
    __m128i high = _mm256_cvtps_ph((__m256)part[1], _MM_FROUND_TO_NEAREST_INT);
    return (vu32)_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

INLINE vu32 float_min(vu32 a, vu32 b) { return (vu32)_mm256_min_ps((__m256)a, (__m256)b); } /* b where one is NaN */
INLINE vu32 integer_max(vu32 a, vu32 b) { return (vu32)_mm256_max_epi32((__m256i)a, (__m256i)b); }
#endif

INLINE vu32 f16_narrow(vu32 *part)
{
    nans_made_canonical_32(part, 2);
    return f16_narrow_numbers(part);
}

/* e5m2 is the high byte of f16. e4m3 has one exponent bit less: shifted right by one it is an f16 of the value / 256,
 * subnormals included; only its NaN must be made one. Even bytes become parts 0 and 1, odd ones 2 and 3. */
INLINE vu16 e4m3_to_half(vu16 high)
{
    vu16 nan = (vu16)((high & 0x7f00) == (vu16){0} + 0x7f00);
    return ((vu16)((vi16)high >> 1) & 0xbf80) | (nan & 0x7c00);
}

INLINE void f8_widen(const enum rail_type type, vu32 raw, vu32 *part)
{
    vu16 even = (vu16)raw << 8, odd = (vu16)raw & 0xff00;
    if (type == RAIL_F8E4M3) even = e4m3_to_half(even), odd = e4m3_to_half(odd);
    f16_widen((vu32)even, part);
    f16_widen((vu32)odd, part + 2);
    if (type == RAIL_F8E4M3)
        for (int k = 0; k < 4; k++) part[k] = (vu32)((vf32)part[k] * 256.0f);
}

/* Rounds floats, staying float, to `fraction` bits of fraction above the smallest normal number 2^lowest and to the
 * same step below, no further out than `top`. Adding the power of two whose last place is that step, and subtracting it
 * again, makes the hardware round. NaNs stay. */
INLINE vu32 float_round(vu32 f, const int fraction, const int lowest, const uint32_t top)
{
    vu32 magnitude = float_min(splat(top), f & 0x7fffffff);
    vu32 rounder = integer_max(magnitude & 0x7f800000, splat((uint32_t)(127 + lowest) << 23)) +
                   ((uint32_t)(23 - fraction) << 23);
    vu32 rounded = (vu32)(((vf32)magnitude + (vf32)rounder) - (vf32)rounder);
    return rounded | (f & 0x80000000);
}

/* f16 bits of numbers that e4m3 has, divided by 256, to their e4m3 in the high byte. */
INLINE vu16 e4m3_of_half(vu16 half)
{
    vu16 nan = (vu16)(half == (vu16){0} + 0x7e00);
    return (half & 0x8000) | ((half << 1) & 0x7f00) | (nan & 0x7f00);
}

INLINE vu32 f8_narrow(const enum rail_type type, vu32 *part)
{
    nans_made_canonical_32(part, 4);
    for (int k = 0; k < 4; k++) {
        if (type == RAIL_F8E5M2) part[k] = float_round(part[k], 2, -14, 0x47600000 /* 57344 */);
        else part[k] = (vu32)((vf32)float_round(part[k], 3, -6, 0x43e00000 /* 448 */) * 0x1p-8f);
    }
    vu16 even = (vu16)f16_narrow_numbers(part), odd = (vu16)f16_narrow_numbers(part + 2);
    if (type == RAIL_F8E4M3) even = e4m3_of_half(even), odd = e4m3_of_half(odd);
    return (vu32)((even >> 8) | (odd & 0xff00));
}

#else

/* ---- f16 and fp8 by integer arithmetic --------------------------------------------------------------------------- */

/* f16, or e5m2 (whose byte is f16's high byte), in the high end of each lane, to float. A subnormal gets the exponent
 * of the smallest normal number as if it had an implied 1, which is subtracted again: no subnormal float is ever an
 * operand, which some CPUs handle in microcode. */
INLINE vu32 half_decode(vu32 high)
{
    vu32 sign = high & 0x80000000;
    vu32 magnitude = (high & 0x7fffffff) >> 3;
    vu32 small = (vu32)((vi32)magnitude < (vi32)splat(1u << 23));
    vu32 special = (vu32)((vi32)magnitude > (vi32)splat((31u << 23) - 1));
    vu32 bits = magnitude + (112u << 23) + (special & (112u << 23)) + (small & (1u << 23));
    return (vu32)((vf32)bits - (vf32)(small & (113u << 23))) | sign;
}

/* e4m3 in the high byte of each lane, to float. */
INLINE vu32 e4m3_decode(vu32 high)
{
    vu32 sign = high & 0x80000000;
    vu32 magnitude = (high & 0x7f000000) >> 4;
    vu32 small = (vu32)((vi32)magnitude < (vi32)splat(1u << 23));
    vu32 nan = (vu32)(magnitude == splat(0x7fu << 20));
    vu32 bits = magnitude + (120u << 23) + (small & (1u << 23));
    return (vu32)((vf32)bits - (vf32)(small & (121u << 23))) | sign | (nan & 0x7fc00000);
}

/* Floats to a format with `fraction` bits of fraction and the given exponent bias, nearest even, in the low end of each
 * lane. `top` is the float that larger magnitudes are taken as: the largest finite number where the format saturates,
 * or the power of two that rounds to infinity. Below the smallest normal number, adding a float whose last place is the
 * format's smallest subnormal makes the hardware round. */
INLINE vu32 small_encode(vu32 f, const int fraction, const int bias, const uint32_t top, const int sign_shift,
                         const uint32_t nan_bits)
{
    const uint32_t smallest_normal = (uint32_t)(127 - bias + 1) << 23;
    const uint32_t rounder = (uint32_t)(127 - bias + 1 + (23 - fraction)) << 23;
    vu32 sign = (f & 0x80000000) >> sign_shift;
    vu32 magnitude = f & 0x7fffffff;
    vu32 nan = (vu32)((vi32)magnitude > (vi32)splat(0x7f800000));
    magnitude = lane_select((vu32)((vi32)magnitude > (vi32)splat(top)), splat(top), magnitude);
    vu32 small = (vu32)((vi32)magnitude < (vi32)splat(smallest_normal));
    vu32 subnormal = (vu32)((vf32)magnitude + (vf32)splat(rounder)) - rounder;
    vu32 odd = (magnitude >> (23 - fraction)) & 1;
    vu32 normal = (magnitude - ((uint32_t)(127 - bias) << 23) + ((1u << (22 - fraction)) - 1) + odd) >> (23 - fraction);
    return lane_select(nan, splat(nan_bits), lane_select(small, subnormal, normal) | sign);
}

INLINE void f16_widen(vu32 raw, vu32 *part)
{
    part[0] = half_decode(raw << 16);
    part[1] = half_decode(raw & 0xffff0000);
}

INLINE void f16_widen_from(const uint8_t *p, vu32 *part) { f16_widen(vector_load(p), part); }

INLINE vu32 half_encode(vu32 f) { return small_encode(f, 10, 15, 0x47800000 /* 65536 */, 16, 0x7e00); }

INLINE vu32 f16_narrow(vu32 *part) { return half_encode(part[0]) | half_encode(part[1]) << 16; }

INLINE vu32 e4m3_encode(vu32 f) { return small_encode(f, 3, 7, 0x43e00000 /* 448 */, 24, 0x7f); }

INLINE vu32 e5m2_encode(vu32 f) { return small_encode(f, 2, 15, 0x47600000 /* 57344 */, 24, 0x7e); }

INLINE void f8_widen(const enum rail_type type, vu32 raw, vu32 *part)
{
    for (int k = 0; k < 4; k++) {
        vu32 high = (raw << (24 - 8 * k)) & 0xff000000;
        part[k] = type == RAIL_F8E4M3 ? e4m3_decode(high) : half_decode(high);
    }
}

INLINE vu32 f8_narrow(const enum rail_type type, vu32 *part)
{
    for (int k = 0; k < 4; k++) part[k] = type == RAIL_F8E4M3 ? e4m3_encode(part[k]) : e5m2_encode(part[k]);
    return part[0] | part[1] << 8 | part[2] << 16 | part[3] << 24;
}

#endif

/* ---- the four formats as one ------------------------------------------------------------------------------------- */

INLINE void small_widen(const enum rail_type type, vu32 raw, vu32 *part)
{
    if (type == RAIL_BF16) bf16_widen(raw, part);
    else if (type == RAIL_F16) f16_widen(raw, part);
    else f8_widen(type, raw, part);
}

/* May change the parts. */
INLINE vu32 small_narrow(const enum rail_type type, vu32 *part)
{
    if (type == RAIL_BF16) return bf16_narrow(part);
    if (type == RAIL_F16) return f16_narrow(part);
    return f8_narrow(type, part);
}

#endif
