/* test_values.c - the predicted results against plain combination in long double, in several orders, for every type,
 * operator and up to 16 ranks; and that the data would show a mistake. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "device/host.h"
#include "perf/types.h"
#include "perf/values.h"

enum { MOST_RANKS = 300 };

static uint64_t mask_of(int type) { return ~0ull >> (64 - 8 * perf_type_bytes(type)); }

/* Rounds to the type by other means than perf/types.c: the compiler's conversions and the library's. */
static long double to_type(int type, long double v)
{
    if (type == ncclFloat64) return (double)v;
    if (type == ncclFloat32) return (float)v;
    float narrow = (float)v;
    return rail_to_float((enum rail_type)type, rail_from_float((enum rail_type)type, narrow));
}

static long double number_of(int type, uint64_t bits)
{
    if (type == ncclFloat64) {
        double v;
        memcpy(&v, &bits, sizeof v);
        return v;
    }
    if (type == ncclFloat32) {
        float v;
        uint32_t b = (uint32_t)bits;
        memcpy(&v, &b, sizeof v);
        return v;
    }
    return rail_to_float((enum rail_type)type, bits);
}

/* What rank r brings in after its pre-multiplication. */
static long double contribution(int type, int op, int n, int rank, uint64_t bits)
{
    long double v = number_of(type, bits);
    if (op == PERF_AVG) return to_type(type, v * to_type(type, 1.0L / n));
    if (op == PERF_MULSUM) return to_type(type, v * values_scalar(rank));
    return v;
}

static long double combine2(int type, int op, long double a, long double b)
{
    switch (op) {
    case PERF_PROD: return to_type(type, a * b);
    case PERF_MAX: return a > b ? a : b;
    case PERF_MIN: return a < b ? a : b;
    default: return to_type(type, a + b);
    }
}

static long double tree(int type, int op, const long double *v, int n)
{
    if (n == 1) return v[0];
    int half = n / 2;
    return combine2(type, op, tree(type, op, v, half), tree(type, op, v + half, n - half));
}

static void check_float(int type, int op, int n, const uint64_t *value, uint64_t reduced)
{
    static long double v[MOST_RANKS], turned[MOST_RANKS];
    for (int r = 0; r < n; r++) {
        v[r] = contribution(type, op, n, r, value[r]);
        assert_true(isfinite((double)v[r]));
    }
    long double want = number_of(type, reduced);
    for (int turn = 0; turn < n; turn += n > 16 ? 7 : 1) { /* every rank as the first one, forwards and backwards */
        long double forwards = v[turn], backwards = v[turn];
        for (int i = 1; i < n; i++) forwards = combine2(type, op, forwards, v[(turn + i) % n]);
        for (int i = 1; i < n; i++) backwards = combine2(type, op, backwards, v[(turn - i + n) % n]);
        for (int i = 0; i < n; i++) turned[i] = v[(turn + i) % n];
        if (forwards != want || backwards != want || tree(type, op, turned, n) != want)
            fail_msg("%s %s, %d ranks, from rank %d: %Lg %Lg %Lg, predicted %Lg", perf_type_name(type), perf_op_name(op), n,
                     turn, forwards, backwards, tree(type, op, turned, n), want);
    }
}

static __int128 whole_of(int type, uint64_t bits)
{
    int shift = 64 - 8 * (int)perf_type_bytes(type);
    return perf_type_is_signed(type) ? (__int128)((int64_t)(bits << shift) >> shift) : (__int128)(bits & mask_of(type));
}

static void check_whole(int type, int op, int n, const uint64_t *value, uint64_t reduced)
{
    __int128 total = 0;
    for (int r = 0; r < n; r++) {
        __int128 v = whole_of(type, value[r]);
        if (op == PERF_MULSUM) v *= values_scalar(r);
        if (r == 0) total = v;
        else if (op == PERF_PROD) total = whole_of(type, (uint64_t)(total * v));
        else if (op == PERF_MAX) total = v > total ? v : total;
        else if (op == PERF_MIN) total = v < total ? v : total;
        else total += v;
    }
    if (op == PERF_AVG) {
        assert_true(total == whole_of(type, (uint64_t)total)); /* no wrapping before the division */
        assert_true(total % n == 0);
        total /= n;
    }
    assert_true(((uint64_t)total & mask_of(type)) == reduced);
}

static void check_all(int n, int patterns)
{
    static uint64_t value[MOST_RANKS];
    for (int type = 0; type < PERF_TYPES; type++) {
        for (int op = 0; op < PERF_OPS; op++) {
            for (int p = 0; p < patterns; p++) {
                uint64_t reduced;
                values_column(type, op, n, p, value, &reduced);
                assert_true((reduced & ~mask_of(type)) == 0);
                if (perf_type_is_float(type)) check_float(type, op, n, value, reduced);
                else check_whole(type, op, n, value, reduced);
            }
        }
    }
}

static void one_to_sixteen_ranks_in_every_order(void **state)
{
    (void)state;
    for (int n = 1; n <= 16; n++) check_all(n, getenv("RAILCCL_TEST_LONG") ? VALUES_PATTERNS : 64);
}

static void more_ranks_than_a_narrow_type_can_count(void **state)
{
    (void)state;
    static const int counts[] = {17, 31, 64, 100, 129, 300};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) check_all(counts[i], 16);
}

/* A rank whose contribution is lost, or counted twice, must change the result of some pattern. */
static void losing_any_rank_is_visible(void **state)
{
    (void)state;
    uint64_t value[16], reduced;
    for (int type = 0; type < PERF_TYPES; type++) {
        for (int op = 0; op < PERF_OPS; op++) {
            for (int n = 2; n <= 16; n += 7) {
                for (int r = 0; r < n; r++) {
                    int visible = 0;
                    for (int p = 0; p < VALUES_PATTERNS && !visible; p++) {
                        values_column(type, op, n, p, value, &reduced);
                        if (op == PERF_MAX || op == PERF_MIN) visible = value[r] == reduced;
                        else if (op == PERF_PROD) visible = value[r] != (perf_type_is_float(type) ? perf_encode(type, 1) : 1);
                        else visible = value[r] != 0;
                    }
                    if (!visible) fail_msg("%s %s: rank %d of %d never matters", perf_type_name(type), perf_op_name(op), r, n);
                }
            }
        }
    }
}

static void neighbouring_elements_differ(void **state)
{
    (void)state;
    for (int type = 0; type < PERF_TYPES; type++) {
        for (int op = 0; op < PERF_OPS; op++) {
            static union values_table reduced;
            assert_int_equal(values_tables(type, op, 4, 0, NULL, &reduced), 0);
            for (size_t shift = 1; shift <= 64; shift *= 2) {
                int same = 0;
                struct values_range at = {0, 4096, 7}, later = {shift, 4096, 7};
                for (size_t i = 0; i < 4096; i++)
                    same += values_at(type, &reduced, at, i) == values_at(type, &reduced, later, i);
                /* the averages of unsigned bytes and 8-bit floats take few values; a shift still shows in most places */
                if (same > 4096 * 6 / 10)
                    fail_msg("%s %s: %d of 4096 equal when moved by %zu", perf_type_name(type), perf_op_name(op), same, shift);
            }
        }
    }
}

static void iterations_and_ranks_have_data_of_their_own(void **state)
{
    (void)state;
    static union values_table first, second;
    values_tables(ncclFloat32, PERF_SUM, 4, 0, &first, NULL);
    values_tables(ncclFloat32, PERF_SUM, 4, 1, &second, NULL);
    uint32_t a[512], b[512], c[512];
    values_fill(ncclFloat32, &first, (struct values_range){0, 512, 1}, a);
    values_fill(ncclFloat32, &first, (struct values_range){0, 512, 2}, b);
    values_fill(ncclFloat32, &second, (struct values_range){0, 512, 1}, c);
    int same_iteration = 0, same_rank = 0;
    for (int i = 0; i < 512; i++) same_iteration += a[i] == b[i], same_rank += a[i] == c[i];
    assert_true(same_iteration < 8 && same_rank < 8);
}

static void a_check_counts_every_spoiled_element_and_finds_the_first(void **state)
{
    (void)state;
    static union values_table table;
    static uint8_t buffer[8 * 1000 + 1];
    for (int type = 0; type < PERF_TYPES; type++) {
        for (int odd = 0; odd < 2; odd++) {
            struct values_range range = {123456789012, 1000, 3};
            size_t first = 777, bytes = perf_type_bytes(type);
            values_tables(type, PERF_SUM, 3, 2, &table, NULL);
            values_fill(type, &table, range, buffer + odd);
            assert_true(values_check(type, &table, range, buffer + odd, &first) == 0 && first == 777);
            buffer[odd + 999 * bytes] ^= 1;
            buffer[odd + 31 * bytes + bytes - 1] ^= 0x40;
            assert_true(values_check(type, &table, range, buffer + odd, &first) == 2 && first == 31);
            range.count = 0;
            assert_true(values_check(type, &table, range, buffer + odd, &first) == 0);
        }
    }
}

/* A fill in two pieces is the fill of the whole: `first` counts on. */
static void pieces_fit_together(void **state)
{
    (void)state;
    static union values_table table;
    uint16_t whole[100], pieces[100];
    values_tables(ncclBfloat16, PERF_SUM, 5, 4, &table, NULL);
    values_fill(ncclBfloat16, &table, (struct values_range){0, 100, 9}, whole);
    values_fill(ncclBfloat16, &table, (struct values_range){0, 37, 9}, pieces);
    values_fill(ncclBfloat16, &table, (struct values_range){37, 63, 9}, pieces + 37);
    assert_memory_equal(whole, pieces, sizeof whole);
}

static void encoding_and_rounding_agree_with_other_implementations(void **state)
{
    (void)state;
    static const int narrow[] = {ncclFloat16, ncclBfloat16, ncclFloat8e4m3, ncclFloat8e5m2};
    for (int i = 0; i < 4; i++) {
        int type = narrow[i];
        for (uint64_t bits = 0; bits <= mask_of(type); bits++) {
            float v = rail_to_float((enum rail_type)type, bits);
            if (!isfinite(v)) {
                assert_false(isfinite(perf_decode(type, bits)));
                continue;
            }
            assert_true(perf_decode(type, bits) == (double)v);
            assert_true(perf_encode(type, (double)v) == bits);
            float near = v * 1.0099f; /* between two values most of the time; below the largest, where both would differ */
            if (fabsf(near) < 200) assert_true(perf_round(type, (double)near) == (double)to_type(type, (long double)near));
        }
    }
    for (int i = 0; i < 100000; i++) {
        double v = ldexp((double)(i * 7919 % 65536) - 32768, i % 60 - 30) * 1.000001;
        assert_true(perf_round(ncclFloat32, v) == (double)(float)v);
        uint32_t bits;
        float f = (float)v;
        memcpy(&bits, &f, sizeof bits);
        assert_true(perf_encode(ncclFloat32, f) == bits && perf_decode(ncclFloat32, bits) == (double)f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_to_sixteen_ranks_in_every_order),
        cmocka_unit_test(more_ranks_than_a_narrow_type_can_count),
        cmocka_unit_test(losing_any_rank_is_visible),
        cmocka_unit_test(neighbouring_elements_differ),
        cmocka_unit_test(iterations_and_ranks_have_data_of_their_own),
        cmocka_unit_test(a_check_counts_every_spoiled_element_and_finds_the_first),
        cmocka_unit_test(pieces_fit_together),
        cmocka_unit_test(encoding_and_rounding_agree_with_other_implementations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
