/* host_oracle.h - what a combination must give, one element at a time, in the plainest terms.
 *
 * Formats of 16 and 8 bits are tables: every magnitude's value in double, in order. Rounding is a search for the two
 * neighbours of a value and a comparison of distances, all exact in double. Sums and products of floats are taken in
 * double and rounded to float, which is the correctly rounded float result since 53 >= 2 * 24 + 2. Integers are
 * computed in 128 bits and cut. Nothing is shared with src/device/ but host.h. */
#ifndef TESTS_DEVICE_HOST_ORACLE_H
#define TESTS_DEVICE_HOST_ORACLE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "device/host.h"

struct oracle_format {
    int exponent_bits, fraction_bits, bias;
    bool has_infinity;   /* else the last exponent holds numbers and only the last code is NaN */
    bool saturates;
    uint32_t nan;
    uint32_t numbers;    /* magnitudes 0 .. numbers - 1 are finite */
    double value[0x8000];
};

/* Tables for RAIL_F16, RAIL_BF16, RAIL_F8E4M3, RAIL_F8E5M2. */
static struct oracle_format oracle_formats[4];

static inline struct oracle_format *oracle_format(enum rail_type type)
{
    return &oracle_formats[type == RAIL_F16 ? 0 : type == RAIL_BF16 ? 1 : type == RAIL_F8E4M3 ? 2 : 3];
}

static inline bool oracle_is_float(enum rail_type type) { return type >= RAIL_F16; }
static inline bool oracle_is_small(enum rail_type t) { return oracle_is_float(t) && t != RAIL_F32 && t != RAIL_F64; }
static inline bool oracle_is_signed(enum rail_type t) { return t == RAIL_I8 || t == RAIL_I32 || t == RAIL_I64; }

static inline void oracle_start(void)
{
    *oracle_format(RAIL_F16) = (struct oracle_format){5, 10, 15, true, false, 0x7e00, 0, {0}};
    *oracle_format(RAIL_BF16) = (struct oracle_format){8, 7, 127, true, false, 0x7fc0, 0, {0}};
    *oracle_format(RAIL_F8E4M3) = (struct oracle_format){4, 3, 7, false, true, 0x7f, 0, {0}};
    *oracle_format(RAIL_F8E5M2) = (struct oracle_format){5, 2, 15, true, true, 0x7e, 0, {0}};
    for (int k = 0; k < 4; k++) {
        struct oracle_format *f = &oracle_formats[k];
        uint32_t codes = 1u << (f->exponent_bits + f->fraction_bits);
        f->numbers = f->has_infinity ? codes - (1u << f->fraction_bits) : codes - 1;
        for (uint32_t m = 0; m < codes; m++) { /* those past the numbers are where the scale would go on */
            int exponent = (int)(m >> f->fraction_bits);
            double fraction = (double)(m & ((1u << f->fraction_bits) - 1)) / (1 << f->fraction_bits);
            f->value[m] = exponent ? ldexp(1 + fraction, exponent - f->bias) : ldexp(fraction, 1 - f->bias);
        }
    }
}

static inline double oracle_decode(enum rail_type type, uint64_t bits)
{
    const struct oracle_format *f = oracle_format(type);
    uint32_t codes = 1u << (f->exponent_bits + f->fraction_bits), m = (uint32_t)bits & (codes - 1);
    double sign = bits & codes ? -1 : 1;
    if (m < f->numbers) return sign * f->value[m];
    return f->has_infinity && m == f->numbers ? sign * INFINITY : NAN;
}

static inline uint64_t oracle_encode(enum rail_type type, double x)
{
    const struct oracle_format *f = oracle_format(type);
    if (isnan(x)) return f->nan;
    uint64_t sign = signbit(x) ? 1u << (f->exponent_bits + f->fraction_bits) : 0;
    double a = fabs(x);
    /* value[numbers] is the value one step above the largest: from half-way there on, a value overflows. */
    if (a >= f->value[f->numbers]) return sign | (f->saturates ? f->numbers - 1 : f->numbers);
    uint32_t low = 0, high = f->numbers; /* value[low] <= a < value[high] */
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (f->value[middle] <= a) low = middle;
        else high = middle;
    }
    double below = a - f->value[low], above = f->value[high] - a;
    uint32_t m = below < above || (below == above && low % 2 == 0) ? low : high;
    if (m == f->numbers && f->saturates) m--;
    return sign | m;
}

static inline uint64_t oracle_bits_of(const void *p, size_t bytes)
{
    uint64_t bits = 0;
    memcpy(&bits, p, bytes);
    return bits;
}

static inline double oracle_value(enum rail_type type, uint64_t bits)
{
    float f;
    double d;
    if (type == RAIL_F32) return memcpy(&f, &bits, 4), (double)f;
    if (type == RAIL_F64) return memcpy(&d, &bits, 8), d;
    return oracle_decode(type, bits);
}

/* Bits of x, which for all types but f64 went through double exactly or is to be rounded once. */
static inline uint64_t oracle_bits(enum rail_type type, double x)
{
    if (oracle_is_small(type)) return oracle_encode(type, x);
    if (type == RAIL_F64) return isnan(x) ? 0x7ff8000000000000 : oracle_bits_of(&x, 8);
    float f = (float)x;
    return isnan(x) ? 0x7fc00000 : oracle_bits_of(&f, 4);
}

static inline __int128 oracle_integer(enum rail_type type, uint64_t bits)
{
    int width = (int)rail_type_bytes(type) * 8;
    bits = width == 64 ? bits : bits & ((1ull << width) - 1);
    if (oracle_is_signed(type) && bits >> (width - 1)) return (__int128)bits - ((__int128)1 << width);
    return bits;
}

static inline uint64_t oracle_cut(enum rail_type type, __int128 x)
{
    int width = (int)rail_type_bytes(type) * 8;
    return width == 64 ? (uint64_t)x : (uint64_t)x & ((1ull << width) - 1);
}

/* Whether float x comes before y: numbers in order with -0 below +0. Neither is NaN. */
static inline bool oracle_before(double x, double y)
{
    return x < y || (x == 0 && y == 0 && signbit(x) && !signbit(y));
}

static inline uint64_t oracle_scaled(enum rail_type type, uint64_t bits, uint64_t scale)
{
    if (!oracle_is_float(type))
        return oracle_cut(type, (__int128)((unsigned __int128)oracle_integer(type, bits) *
                                           (unsigned __int128)oracle_integer(type, scale)));
    return oracle_bits(type, oracle_value(type, bits) * oracle_value(type, scale));
}

static inline uint64_t oracle_combine_floats(enum rail_type type, enum rail_op op, const uint64_t *x, int n)
{
    double best = NAN, sum = oracle_value(type, x[0]);
    for (int k = 0; k < n; k++) {
        double v = oracle_value(type, x[k]);
        if (!isnan(v) && (isnan(best) || (op == RAIL_MAX ? oracle_before(best, v) : oracle_before(v, best)))) best = v;
        if (k == 0) continue;
        sum = op == RAIL_SUM ? sum + v : sum * v;
        if (type != RAIL_F64) sum = (double)(float)sum;
    }
    return oracle_bits(type, op == RAIL_MAX || op == RAIL_MIN ? best : sum);
}

static inline uint64_t oracle_combine_integers(enum rail_type type, enum rail_op op, const uint64_t *x, int n)
{
    uint64_t r = x[0];
    for (int k = 1; k < n; k++) {
        __int128 a = oracle_integer(type, r), b = oracle_integer(type, x[k]);
        if (op == RAIL_SUM) r = oracle_cut(type, a + b);
        else if (op == RAIL_PROD) r = oracle_cut(type, (__int128)((unsigned __int128)a * (unsigned __int128)b));
        else r = (op == RAIL_MAX ? b > a : b < a) ? x[k] : r;
    }
    return r;
}

/* x: the sources' bits of one element; changed by scaling. */
static inline uint64_t oracle_combine(const struct rail_combine *how, uint64_t *x, int n, uint64_t scale_mask,
                                      bool finish)
{
    enum rail_type type = how->type;
    if (!how->scaled) scale_mask = 0;
    if (n < 64) scale_mask &= (1ull << n) - 1;
    bool divides = finish && how->divide > 1 && !oracle_is_float(type);
    if (n == 1 && !scale_mask && !divides) return x[0];
    for (int k = 0; k < n; k++)
        if (scale_mask >> k & 1) x[k] = oracle_scaled(type, x[k], how->scale);
    if (oracle_is_float(type)) return oracle_combine_floats(type, how->op, x, n);
    uint64_t r = oracle_combine_integers(type, how->op, x, n);
    return divides ? oracle_cut(type, oracle_integer(type, r) / (__int128)how->divide) : r;
}

#endif
