/* Scalar conversions of the 16- and 8-bit float formats, every code and every rounding boundary. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "device/host_oracle.h"

static const enum rail_type small_types[4] = {RAIL_F16, RAIL_BF16, RAIL_F8E4M3, RAIL_F8E5M2};
static const char *const small_names[4] = {"f16", "bf16", "e4m3", "e5m2"};

static uint32_t float_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

static float bits_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static void check_encode(int t, float f)
{
    uint64_t got = rail_from_float(small_types[t], f), want = oracle_encode(small_types[t], (double)f);
    if (got != want)
        fail_msg("%s from %a: got 0x%llx, want 0x%llx", small_names[t], (double)f, (unsigned long long)got,
                 (unsigned long long)want);
}

static void every_code_decodes_to_its_value_and_back(void **state)
{
    (void)state;
    for (int t = 0; t < 4; t++) {
        uint32_t codes = 1u << (8 * rail_type_bytes(small_types[t]));
        for (uint32_t code = 0; code < codes; code++) {
            double want = oracle_decode(small_types[t], code);
            float got = rail_to_float(small_types[t], code);
            uint32_t want_bits = isnan(want) ? 0x7fc00000 : float_bits((float)want);
            if (float_bits(got) != want_bits)
                fail_msg("%s 0x%x: got %a, want %a", small_names[t], code, (double)got, want);
            check_encode(t, got);
            if (!isnan(want) && !isinf(want)) assert_int_equal(rail_from_float(small_types[t], got), code);
        }
    }
}

static void every_boundary_between_two_codes_rounds_to_the_nearer_and_to_even(void **state)
{
    (void)state;
    for (int t = 0; t < 4; t++) {
        const struct oracle_format *f = oracle_format(small_types[t]);
        for (uint32_t m = 0; m < f->numbers; m++) {
            float middle = (float)((f->value[m] + f->value[m + 1]) / 2); /* exact but for bf16's smallest */
            for (int step = -2; step <= 2; step++) {
                float x = bits_float((uint32_t)((int64_t)float_bits(middle) + step) & 0x7fffffff);
                check_encode(t, x);
                check_encode(t, -x);
            }
        }
    }
}

static void any_float_rounds_as_the_table_says(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int k = 0; k < 2000000; k++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint32_t bits = (uint32_t)(seed >> 32);
        if (k % 2) bits = (bits & 0x807fffff) | (127 - 30 + (bits >> 23) % 60) << 23; /* near their ranges */
        check_encode(k % 4, bits_float(bits));
        check_encode((k + 1) % 4, bits_float(bits));
    }
}

static void infinities_and_nans_and_the_largest_follow_the_rules(void **state)
{
    (void)state;
    static const struct { enum rail_type type; float x; uint32_t bits; } cases[] = {
        {RAIL_F16, INFINITY, 0x7c00}, {RAIL_F16, -65520.0f, 0xfc00}, {RAIL_F16, 65519.0f, 0x7bff},
        {RAIL_F16, NAN, 0x7e00}, {RAIL_F16, -NAN, 0x7e00}, {RAIL_F16, -0.0f, 0x8000},
        {RAIL_BF16, INFINITY, 0x7f80}, {RAIL_BF16, 3.4e38f, 0x7f80}, {RAIL_BF16, NAN, 0x7fc0},
        {RAIL_F8E4M3, 448.0f, 0x7e}, {RAIL_F8E4M3, 1e9f, 0x7e}, {RAIL_F8E4M3, -INFINITY, 0xfe},
        {RAIL_F8E4M3, -NAN, 0x7f}, {RAIL_F8E4M3, 0x1p-9f, 0x01}, {RAIL_F8E4M3, 0x1p-10f, 0x00},
        {RAIL_F8E4M3, 0x1.8p-9f, 0x02}, {RAIL_F8E5M2, INFINITY, 0x7b}, {RAIL_F8E5M2, 1e9f, 0x7b},
        {RAIL_F8E5M2, NAN, 0x7e}, {RAIL_F8E5M2, 57344.0f, 0x7b}, {RAIL_F8E5M2, 0x1p-16f, 0x01},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        assert_int_equal(rail_from_float(cases[k].type, cases[k].x), cases[k].bits);
    assert_true(isinf(rail_to_float(RAIL_F8E5M2, 0x7c)));
    assert_true(isnan(rail_to_float(RAIL_F8E4M3, 0xff)));
    assert_true(rail_to_float(RAIL_F8E4M3, 0x7e) == 448.0f);
}

static void a_reciprocal_is_rounded_by_way_of_float_as_nccl_does(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 20000; n++) {
        float single = 1.0f / (float)n;
        double twice = 1.0 / (double)n;
        assert_int_equal(rail_reciprocal_bits(RAIL_F32, n), float_bits(single));
        assert_memory_equal(&(uint64_t){rail_reciprocal_bits(RAIL_F64, n)}, &twice, 8);
        for (int t = 0; t < 4; t++) {
            uint64_t got = rail_reciprocal_bits(small_types[t], n);
            assert_int_equal(got, oracle_encode(small_types[t], (double)single));
            if (n <= 256) assert_int_equal(got, oracle_encode(small_types[t], twice));
        }
    }
    assert_int_equal(rail_reciprocal_bits(RAIL_F8E4M3, 4), 0x28);
}

int main(void)
{
    oracle_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_decodes_to_its_value_and_back),
        cmocka_unit_test(every_boundary_between_two_codes_rounds_to_the_nearer_and_to_even),
        cmocka_unit_test(any_float_rounds_as_the_table_says),
        cmocka_unit_test(infinities_and_nans_and_the_largest_follow_the_rules),
        cmocka_unit_test(a_reciprocal_is_rounded_by_way_of_float_as_nccl_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
