/* host_float.c - one value at a time between float and the 16- and 8-bit formats, by integer arithmetic alone.
 *
 * One description of a format serves all four: sign, exponent and fraction bits, and whether the format has infinities
 * or uses their exponent for numbers (e4m3). */
#include "device/host.h"

#include <string.h>

struct format {
    int fraction_bits;
    int bias;
    uint32_t sign;
    uint32_t largest;   /* magnitude of the largest number; above it are NaNs */
    uint32_t overflow;  /* magnitude given to what is too large */
    uint32_t nan;
};

static struct format format_of(enum rail_type type)
{
    switch (type) {
    case RAIL_F16: return (struct format){10, 15, 0x8000, 0x7c00, 0x7c00, 0x7e00};
    case RAIL_BF16: return (struct format){7, 127, 0x8000, 0x7f80, 0x7f80, 0x7fc0};
    case RAIL_F8E4M3: return (struct format){3, 7, 0x80, 0x7e, 0x7e, 0x7f};
    default: return (struct format){2, 15, 0x80, 0x7c, 0x7b, 0x7e}; /* RAIL_F8E5M2 */
    }
}

static float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

float rail_to_float(enum rail_type type, uint64_t bits)
{
    const struct format format = format_of(type);
    const bool has_infinity = type != RAIL_F8E4M3;
    uint32_t sign = bits & format.sign ? 0x80000000 : 0;
    uint32_t magnitude = (uint32_t)bits & (format.sign - 1);
    if (magnitude > format.largest) return float_of_bits(0x7fc00000);
    if (has_infinity && magnitude == format.largest) return float_of_bits(sign | 0x7f800000);
    int exponent = (int)(magnitude >> format.fraction_bits);
    uint32_t fraction = magnitude & ((1u << format.fraction_bits) - 1);
    if (format.bias == 127) return float_of_bits(sign | magnitude << 16); /* bf16 is half a float, subnormals too */
    if (exponent == 0) {
        if (fraction == 0) return float_of_bits(sign);
        exponent = 1;
        while (!(fraction >> format.fraction_bits)) fraction <<= 1, exponent--;
        fraction &= (1u << format.fraction_bits) - 1;
    }
    uint32_t float_exponent = (uint32_t)(exponent - format.bias + 127);
    return float_of_bits(sign | float_exponent << 23 | fraction << (23 - format.fraction_bits));
}

uint64_t rail_from_float(enum rail_type type, float value)
{
    const struct format format = format_of(type);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = bits >> 31 ? format.sign : 0;
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return format.nan;
    if (magnitude == 0x7f800000) return sign | format.overflow;
    int exponent = (int)(magnitude >> 23);
    uint64_t significand = magnitude & 0x7fffff;
    if (exponent == 0) exponent = 1;
    else significand |= 0x800000;
    /* The value is significand * 2^(exponent - 150); places cut off its end, more of them for a subnormal. */
    int target = exponent - 127 + format.bias;
    int places = 23 - format.fraction_bits;
    if (target < 1) places += 1 - target, target = 1;
    if (places > 40) return sign; /* below a quarter of the smallest subnormal */
    uint64_t kept = significand >> places, rest = significand & ((1ull << places) - 1), half = 1ull << (places - 1);
    if (rest > half || (rest == half && (kept & 1))) kept++;
    /* `kept` holds the implied 1 of a normal number: it carries into the exponent, and so does rounding up. */
    uint64_t result = kept + ((uint64_t)(target - 1) << format.fraction_bits);
    return sign | (result > format.overflow ? format.overflow : (uint32_t)result);
}

uint64_t rail_reciprocal_bits(enum rail_type type, uint64_t n)
{
    /* By way of float, as NCCL makes an average's factor. Rounding twice gives the nearest value while n has no more
     * digits than the type; beyond that (n > 2048 in f16) it may be one place off, as NCCL's is. */
    double exact = 1.0 / (double)n;
    float single = (float)exact;
    uint64_t bits = 0;
    switch (type) {
    case RAIL_F64: memcpy(&bits, &exact, sizeof exact); return bits;
    case RAIL_F32: memcpy(&bits, &single, sizeof single); return bits;
    case RAIL_F16:
    case RAIL_BF16:
    case RAIL_F8E4M3:
    case RAIL_F8E5M2: return rail_from_float(type, single);
    default: return n;
    }
}
