/* types.c - names and arithmetic of the element types. See types.h. */
#include "types.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* One line per type, in the order of ncclDataType_t. digits: significand bits with the hidden one; min_exp: exponent of
 * the smallest subnormal (its value is 2^min_exp); mantissa: stored fraction bits; bias: of the exponent field. */
static const struct {
    const char *name;
    uint8_t bytes;
    bool is_float, is_signed;
    int digits, min_exp, mantissa, bias;
} types[PERF_TYPES] = {
    {"int8", 1, false, true, 7, 0, 0, 0},
    {"uint8", 1, false, false, 8, 0, 0, 0},
    {"int32", 4, false, true, 31, 0, 0, 0},
    {"uint32", 4, false, false, 32, 0, 0, 0},
    {"int64", 8, false, true, 63, 0, 0, 0},
    {"uint64", 8, false, false, 64, 0, 0, 0},
    {"half", 2, true, true, 11, -24, 10, 15},
    {"float", 4, true, true, 24, -149, 23, 127},
    {"double", 8, true, true, 53, -1074, 52, 1023},
    {"bfloat16", 2, true, true, 8, -133, 7, 127},
    {"f8e4m3", 1, true, true, 4, -9, 3, 7},
    {"f8e5m2", 1, true, true, 3, -16, 2, 15},
};

static const char *const ops[PERF_OPS] = {"sum", "prod", "max", "min", "avg", "mulsum"};

_Static_assert(ncclInt8 == 0 && ncclUint8 == 1 && ncclInt32 == 2 && ncclUint32 == 3 && ncclInt64 == 4 &&
                   ncclUint64 == 5 && ncclFloat16 == 6 && ncclFloat32 == 7 && ncclFloat64 == 8 && ncclBfloat16 == 9 &&
                   ncclFloat8e4m3 == 10 && ncclFloat8e5m2 == 11,
               "the table above follows ncclDataType_t");
_Static_assert((int)ncclSum == PERF_SUM && (int)ncclProd == PERF_PROD && (int)ncclMax == PERF_MAX &&
                   (int)ncclMin == PERF_MIN && (int)ncclAvg == PERF_AVG,
               "enum perf_op follows ncclRedOp_t");

const char *perf_type_name(int type) { return types[type].name; }
const char *perf_op_name(int op) { return ops[op]; }
size_t perf_type_bytes(int type) { return types[type].bytes; }
bool perf_type_is_float(int type) { return types[type].is_float; }
bool perf_type_is_signed(int type) { return types[type].is_signed; }
int perf_type_digits(int type) { return types[type].digits; }

int perf_type_find(const char *name)
{
    for (int i = 0; i < PERF_TYPES; i++)
        if (strcasecmp(name, types[i].name) == 0) return i;
    return -1;
}

int perf_op_find(const char *name)
{
    for (int i = 0; i < PERF_OPS; i++)
        if (strcasecmp(name, ops[i]) == 0) return i;
    return -1;
}

double perf_round(int type, double value)
{
    if (value == 0 || type == ncclFloat64) return value;
    int exponent;
    frexp(value, &exponent); /* 2^(exponent-1) <= |value| < 2^exponent */
    int quantum = exponent - types[type].digits;
    if (quantum < types[type].min_exp) quantum = types[type].min_exp;
    return ldexp(rint(ldexp(value, -quantum)), quantum);
}

uint64_t perf_encode(int type, double value)
{
    if (type == ncclFloat64) {
        uint64_t bits;
        memcpy(&bits, &value, sizeof bits);
        return bits;
    }
    int width = 8 * types[type].bytes, mantissa = types[type].mantissa;
    uint64_t sign = signbit(value) ? 1ull << (width - 1) : 0;
    double magnitude = fabs(value);
    if (magnitude == 0) return sign;
    int exponent;
    frexp(magnitude, &exponent);
    int field = exponent - 1 + types[type].bias;
    if (field < 1) return sign | (uint64_t)ldexp(magnitude, -types[type].min_exp); /* subnormal */
    uint64_t fraction = (uint64_t)ldexp(magnitude, mantissa - (exponent - 1)) - (1ull << mantissa);
    return sign | (uint64_t)field << mantissa | fraction;
}

double perf_decode(int type, uint64_t bits)
{
    if (type == ncclFloat64) {
        double value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    int width = 8 * types[type].bytes, mantissa = types[type].mantissa;
    double sign = bits >> (width - 1) & 1 ? -1 : 1;
    uint64_t fraction = bits & ((1ull << mantissa) - 1);
    int field = (int)(bits >> mantissa & ((1ull << (width - 1 - mantissa)) - 1));
    int top = (1 << (width - 1 - mantissa)) - 1;
    if (type == ncclFloat8e4m3 ? (field == top && fraction == 7) : (field == top && fraction)) return NAN;
    if (type != ncclFloat8e4m3 && field == top) return sign * INFINITY;
    if (field == 0) return sign * ldexp((double)fraction, types[type].min_exp);
    return sign * ldexp((double)(fraction | 1ull << mantissa), field - types[type].bias - mantissa);
}

bool perf_size_parse(const char *text, size_t *bytes)
{
    char *end;
    if (!isdigit((unsigned char)*text) && *text != '.') return false;
    double value = strtod(text, &end), unit = 1;
    if (end == text) return false;
    switch (tolower((unsigned char)*end)) {
    case 'k': unit = 1024, end++; break;
    case 'm': unit = 1024.0 * 1024, end++; break;
    case 'g': unit = 1024.0 * 1024 * 1024, end++; break;
    case 't': unit = 1024.0 * 1024 * 1024 * 1024, end++; break;
    default: break;
    }
    if (tolower((unsigned char)*end) == 'b') end++;
    if (*end || !(value * unit < 9e15)) return false; /* 2^53: beyond it a double skips whole numbers */
    *bytes = (size_t)(value * unit);
    return true;
}

bool perf_whole_parse(const char *text, int least, int most, int *out)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end || errno || value < least || value > most) return false;
    *out = (int)value;
    return true;
}
