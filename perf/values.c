/* values.c - see values.h. */
#include "values.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "types.h"

/* splitmix64's finaliser: every input bit reaches every output bit. */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static uint64_t draw(int pattern, int rank, int which)
{
    return mix(mix((uint64_t)pattern << 40 | (uint64_t)(uint32_t)rank << 8 | (uint64_t)which) + 0x9e3779b97f4a7c15ull);
}

static inline unsigned pattern_of(uint64_t element, uint64_t iteration)
{
    uint64_t x = (element + iteration * 0xd1342543de82ef95ull) * 0x9e3779b97f4a7c15ull;
    x ^= x >> 32;
    x *= 0xda942042e4dd58b5ull;
    return (unsigned)(x >> 54); /* the top 10 bits: 1024 patterns */
}
_Static_assert(VALUES_PATTERNS == 1024, "pattern_of takes 10 bits");

int values_scalar(int rank) { return 1 + (rank & 1); }

uint64_t values_scalar_bits(int type, int rank)
{
    return perf_type_is_float(type) ? perf_encode(type, values_scalar(rank)) : (uint64_t)values_scalar(rank);
}

/* A number in -limit..limit, never 0 when limit > 0 (zeros would hide a lost contribution). */
static int64_t draw_signed(int pattern, int rank, int which, int64_t limit, bool is_signed)
{
    if (limit <= 0) return 0;
    uint64_t h = draw(pattern, rank, which);
    int64_t magnitude = 1 + (int64_t)((h >> 1) % (uint64_t)limit);
    return is_signed && (h & 1) ? -magnitude : magnitude;
}

/* Each rank's fair share of `budget`: when there are more ranks than units, the first `budget` ranks counted from a
 * rank of the pattern's choice get one each. */
static int64_t share(int64_t budget, int n_ranks, int pattern, int rank)
{
    if (budget >= n_ranks) return budget / n_ranks;
    int start = (int)(draw(pattern, -1, 1) % (uint64_t)n_ranks);
    return (rank - start + n_ranks) % n_ranks < budget;
}

/* Small numbers whose sum neither overflows nor leaves a remainder when divided by the number of ranks. */
static void column_integer_average(int type, int n, int pattern, uint64_t *value, uint64_t *reduced)
{
    int digits = perf_type_digits(type);
    int64_t budget = (1ll << (digits > 40 ? 40 : digits)) - 1, sum = 0;
    for (int r = 0; r < n; r++) {
        int64_t v = draw_signed(pattern, r, 0, share(budget, n, pattern, r), perf_type_is_signed(type));
        value[r] = (uint64_t)v;
        sum += v;
    }
    /* Takes the remainder away from values that have the sum's sign: magnitudes only shrink. */
    int64_t rest = sum % n;
    for (int r = 0; r < n && rest; r++) {
        int64_t v = (int64_t)value[r];
        if ((v > 0) != (rest > 0) || v == 0) continue;
        int64_t take = llabs(v) < llabs(rest) ? v : rest;
        value[r] = (uint64_t)(v - take);
        rest -= take;
        sum -= take;
    }
    *reduced = (uint64_t)(sum / n);
}

static bool integer_less(int type, uint64_t a, uint64_t b)
{
    if (!perf_type_is_signed(type)) return a < b;
    int shift = 64 - 8 * (int)perf_type_bytes(type);
    return (int64_t)(a << shift) < (int64_t)(b << shift);
}

static void column_integer(int type, int op, int n, int pattern, uint64_t *value, uint64_t *reduced)
{
    uint64_t mask = ~0ull >> (64 - 8 * perf_type_bytes(type)), total = 0;
    if (op == PERF_AVG) {
        column_integer_average(type, n, pattern, value, reduced);
    } else {
        for (int r = 0; r < n; r++) {
            uint64_t v = (draw(pattern, r, 0) | (op == PERF_PROD)) & mask;
            value[r] = v;
            if (op == PERF_MULSUM) v *= (uint64_t)values_scalar(r);
            if (r == 0) total = v;
            else if (op == PERF_PROD) total *= v;
            else if (op == PERF_MAX) total = integer_less(type, total, v) ? v : total;
            else if (op == PERF_MIN) total = integer_less(type, v, total) ? v : total;
            else total += v;
        }
        *reduced = total;
    }
    for (int r = 0; r < n; r++) value[r] &= mask;
    *reduced &= mask;
}

/* The values before scaling are whole numbers times 2^power; the same power for all ranks keeps every sum exact. */
static int column_power(int pattern) { return (int)(draw(pattern, -1, 2) & 3); }

/* A whole number v with |v| * scalar within the rank's share; returns v and adds to the sum. */
static void column_float_sum(int type, int op, int n, int pattern, double *value, double *reduced)
{
    int64_t budget = 1ll << perf_type_digits(type);
    double total = 0;
    for (int r = 0; r < n; r++) {
        int scalar = op == PERF_MULSUM ? values_scalar(r) : 1;
        int64_t limit = op == PERF_MULSUM ? share(budget / 2, n, pattern, r) : share(budget, n, pattern, r);
        value[r] = ldexp((double)draw_signed(pattern, r, 0, limit, true), column_power(pattern));
        total += value[r] * scalar;
    }
    *reduced = total;
}

/* Floating averages multiply every value by the rounded 1/n first. n*k times that rounds to k for most k; where it never
 * does (8-bit types and odd n), single powers of two are taken, whose product is 1/n's own significand. */
static void column_float_average(int type, int n, int pattern, double *value, double *reduced)
{
    double inverse = perf_round(type, 1.0 / n), unit = 1, total = 0;
    double budget = ldexp(1, perf_type_digits(type));
    int start = (int)(draw(pattern, -1, 1) % (uint64_t)n);
    bool multiples = true;
    for (int i = 0; i < n; i++) {
        int r = (start + i) % n;
        double most = budget / n < 1 ? 1 : floor(budget / n), v = 0, scaled = 0;
        for (int attempt = 0; attempt < 8; attempt++) {
            double k = (double)draw_signed(pattern, r, attempt, (int64_t)(most > 65536 ? 65536 : most), true);
            double candidate = multiples ? k * n : copysign(ldexp(1, (int)(draw(pattern, r, attempt) >> 8 & 1)), k);
            if (perf_round(type, candidate) != candidate) continue;
            double product = perf_round(type, candidate * inverse);
            bool whole = product == rint(product / unit) * unit && product != 0;
            if (!whole || fabs(product) / unit > budget || (multiples && product != k)) continue;
            v = candidate, scaled = product;
            break;
        }
        if (i == 0 && v == 0 && multiples) { /* no luck with n*k: start again with powers of two */
            multiples = false;
            int exponent;
            double significand = frexp(inverse, &exponent);
            while (significand != rint(significand)) significand *= 2, exponent--;
            unit = ldexp(1, exponent);
            i = -1;
            continue;
        }
        value[r] = v;
        budget -= fabs(scaled) / unit;
        total += scaled;
        if (budget < 0) budget = 0;
    }
    *reduced = total;
}

/* One rank holds an odd factor as wide as the significand, another a power of two, a third a sign. */
static void column_float_product(int type, int n, int pattern, double *value, double *reduced)
{
    for (int r = 0; r < n; r++) value[r] = 1;
    uint64_t h = draw(pattern, -1, 3);
    int odd = (int)(h % (uint64_t)n), power = (int)((h >> 16) % (uint64_t)n), sign = (int)((h >> 32) % (uint64_t)n);
    value[odd] *= 1 + (double)(draw(pattern, odd, 4) % ((1ull << perf_type_digits(type)) - 1));
    value[power] *= (double)(1 << (h >> 48 & 1));
    value[sign] *= h >> 50 & 1 ? -1 : 1;
    double total = 1;
    for (int r = 0; r < n; r++) total *= value[r];
    *reduced = total;
}

static void column_float_extreme(int type, int op, int n, int pattern, double *value, double *reduced)
{
    for (int r = 0; r < n; r++) {
        value[r] = ldexp((double)draw_signed(pattern, r, 0, 1ll << perf_type_digits(type), true), column_power(pattern));
        if (r == 0 || (op == PERF_MAX ? value[r] > *reduced : value[r] < *reduced)) *reduced = value[r];
    }
}

void values_column(int type, int op, int n_ranks, int pattern, uint64_t *value, uint64_t *reduced)
{
    if (!perf_type_is_float(type)) {
        column_integer(type, op, n_ranks, pattern, value, reduced);
        return;
    }
    /* The numbers are worked out as doubles in the place of the bits, then encoded in place. */
    double total = 0, *number = malloc(sizeof *number * (size_t)n_ranks);
    if (!number) abort(); /* a few bytes per rank */
    if (op == PERF_PROD) column_float_product(type, n_ranks, pattern, number, &total);
    else if (op == PERF_AVG) column_float_average(type, n_ranks, pattern, number, &total);
    else if (op == PERF_MAX || op == PERF_MIN) column_float_extreme(type, op, n_ranks, pattern, number, &total);
    else column_float_sum(type, op, n_ranks, pattern, number, &total);
    for (int r = 0; r < n_ranks; r++) value[r] = perf_encode(type, number[r]);
    *reduced = perf_encode(type, total);
    free(number);
}

static void table_set(int type, union values_table *table, int pattern, uint64_t bits)
{
    switch (perf_type_bytes(type)) {
    case 1: table->b1[pattern] = (uint8_t)bits; break;
    case 2: table->b2[pattern] = (uint16_t)bits; break;
    case 4: table->b4[pattern] = (uint32_t)bits; break;
    default: table->b8[pattern] = bits; break;
    }
}

int values_tables(int type, int op, int n_ranks, int rank, union values_table *input, union values_table *reduced)
{
    uint64_t total, *value = malloc(sizeof *value * (size_t)n_ranks);
    if (!value) return -1;
    for (int p = 0; p < VALUES_PATTERNS; p++) {
        values_column(type, op, n_ranks, p, value, &total);
        if (input) table_set(type, input, p, value[rank]);
        if (reduced) table_set(type, reduced, p, total);
    }
    free(value);
    return 0;
}

void values_fill(int type, const union values_table *table, struct values_range range, void *to)
{
    uint8_t *out = to; /* may be misaligned: stored by memcpy, which compiles to one store */
    size_t n = range.count;
#define FILL(member, size)                                                                                             \
    for (size_t i = 0; i < n; i++) memcpy(out + i * size, &table->member[pattern_of(range.first + i, range.iteration)], size)
    switch (perf_type_bytes(type)) {
    case 1: FILL(b1, 1); break;
    case 2: FILL(b2, 2); break;
    case 4: FILL(b4, 4); break;
    default: FILL(b8, 8); break;
    }
#undef FILL
}

uint64_t values_at(int type, const union values_table *table, struct values_range range, size_t index)
{
    unsigned p = pattern_of(range.first + index, range.iteration);
    switch (perf_type_bytes(type)) {
    case 1: return table->b1[p];
    case 2: return table->b2[p];
    case 4: return table->b4[p];
    default: return table->b8[p];
    }
}

uint64_t values_check(int type, const union values_table *table, struct values_range range, const void *have,
                      size_t *first_wrong)
{
    const uint8_t *in = have;
    size_t n = range.count;
    uint64_t wrong = 0;
#define CHECK(member, size)                                                                                            \
    for (size_t i = 0; i < n; i++)                                                                                     \
        wrong += memcmp(in + i * size, &table->member[pattern_of(range.first + i, range.iteration)], size) != 0
    size_t bytes = perf_type_bytes(type);
    switch (bytes) {
    case 1: CHECK(b1, 1); break;
    case 2: CHECK(b2, 2); break;
    case 4: CHECK(b4, 4); break;
    default: CHECK(b8, 8); break;
    }
#undef CHECK
    if (!wrong) return 0;
    for (size_t i = 0; i < n; i++) { /* once more for the place: the good case stays a plain loop */
        uint64_t bits = 0, want = values_at(type, table, range, i);
        memcpy(&bits, in + i * bytes, bytes);
        if (bits == want) continue;
        *first_wrong = i;
        break;
    }
    return wrong;
}
