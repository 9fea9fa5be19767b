/* rail_combine against the oracle: every type, operator and path; shapes, counts, alignments, places, pre- and
 * post-operations. Destinations stand between guard bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <cmocka.h>
#include <fenv.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/params.h"
#include "device/host_oracle.h"

enum { MOST = 64, GUARD = 64, SHORT = 131, ROOM = 8 * 1104 + 2 * GUARD + 64 };

static const char *const type_names[RAIL_TYPES] = {"i8",  "u8",  "i32", "u32",  "i64",  "u64",
                                                   "f16", "f32", "f64", "bf16", "e4m3", "e5m2"};
static const char *const op_names[RAIL_OPS] = {"sum", "prod", "max", "min"};

static uint64_t random_state = 42;
static uint64_t random_next(void)
{
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1d;
}

/* Awkward values first: zeros, one, limits, subnormals, infinities, NaNs with payloads and signs; then any bits. */
static uint64_t value_next(enum rail_type type)
{
    static const uint64_t f16[] = {0, 0x8000, 0x3c00, 0xbc00, 1, 0x8001, 0x3ff, 0x400, 0x7bff, 0xfbff, 0x7c00, 0xfc00,
                                   0x7c01, 0xfc01, 0x7e00, 0xffff};
    static const uint64_t bf16[] = {0, 0x8000, 0x3f80, 0xbf80, 1, 0x8001, 0x7f, 0x80, 0x7f7f, 0xff7f, 0x7f80, 0xff80,
                                    0x7f81, 0xff81, 0x7fc0, 0xffff};
    static const uint64_t f32[] = {0, 0x80000000, 0x3f800000, 0xbf800000, 1, 0x80000001, 0x7fffff, 0x800000, 0x7f7fffff,
                                   0xff7fffff, 0x7f800000, 0xff800000, 0x7f800001, 0xff812345, 0x7fc00000, 0xffffffff};
    static const uint64_t f64[] = {0, 1ull << 63, 0x3ff0000000000000, 0xbff0000000000000, 1, 0x8000000000000001,
                                   0xfffffffffffff, 0x10000000000000, 0x7fefffffffffffff, 0xffefffffffffffff,
                                   0x7ff0000000000000, 0xfff0000000000000, 0x7ff0000000000001, 0xfff0000012345678,
                                   0x7ff8000000000000, UINT64_MAX};
    static const uint64_t integers[] = {0, 1, UINT64_MAX, INT64_MAX, (uint64_t)INT64_MIN, INT32_MAX,
                                        (uint64_t)(int64_t)INT32_MIN, 127, 128, 255, 0x80000000, 0xffffffff, 2, 3, 7,
                                        (uint64_t)-7};
    uint64_t r = random_next(), awkward = r >> 60, kind = r >> 32 & 7;
    if (kind < 2) switch (type) {
        case RAIL_F16: return f16[awkward];
        case RAIL_BF16: return bf16[awkward];
        case RAIL_F32: return f32[awkward];
        case RAIL_F64: return f64[awkward];
        case RAIL_F8E4M3:
        case RAIL_F8E5M2: return random_next();
        default: return integers[awkward];
        }
    double near_one = ((double)(random_next() >> 11) * 0x1p-53 - 0.5) * 8;
    if (kind < 6 && oracle_is_float(type)) return oracle_bits(type, type == RAIL_F64 ? near_one : (float)near_one);
    return random_next();
}

static void check(bool same, const struct rail_combine *how, const char *path, int n_src, int n_dst, size_t count)
{
    if (!same)
        fail_msg("%s %s on %s, %d sources, %d destinations, %zu elements%s: differs from the oracle or wrote outside",
                 type_names[how->type], op_names[how->op], path, n_src, n_dst, count, how->scaled ? ", scaled" : "");
}

/* One set of sources at every misalignment, and what they combine to. */
static struct fixture {
    uint8_t source[8][MOST][ROOM];
    uint8_t expected[ROOM];
    _Alignas(64) uint8_t destination[3][ROOM]; /* each a multiple of 64, so that the first may be streamed to */
    struct rail_stores stores;
} fixture;
_Static_assert(ROOM % 64 == 0 && GUARD % 64 == 0, "aligned destinations");

static void fixture_fill(enum rail_type type, size_t count)
{
    size_t size = rail_type_bytes(type);
    for (int s = 0; s < MOST; s++) {
        for (size_t k = 0; k < count; k++) {
            uint64_t bits = value_next(type);
            memcpy(fixture.source[0][s] + k * size, &bits, size);
        }
        for (int shift = 1; shift < 8; shift++)
            memcpy(fixture.source[shift][s] + shift, fixture.source[0][s], count * size);
    }
}

static void fixture_expect(const struct rail_combine *how, int n_src, uint64_t mask, bool finish, size_t count)
{
    size_t size = rail_type_bytes(how->type);
    for (size_t k = 0; k < count; k++) {
        uint64_t x[MOST];
        for (int s = 0; s < n_src; s++) x[s] = oracle_bits_of(fixture.source[0][s] + k * size, size);
        uint64_t bits = oracle_combine(how, x, n_src, mask, finish);
        memcpy(fixture.expected + k * size, &bits, size);
    }
}

static bool all_are(const uint8_t *p, uint8_t value, size_t n)
{
    for (size_t k = 0; k < n; k++)
        if (p[k] != value) return false;
    return true;
}

static void fixture_check(const struct rail_combine *how, const char *path, int n_src, int n_dst, uint64_t mask,
                          bool finish, size_t count, unsigned shift)
{
    const void *src[MOST] = {0};
    void *dst[3] = {0};
    size_t bytes = count * rail_type_bytes(how->type);
    for (int s = 0; s < n_src; s++) {
        unsigned own = (shift + 3 * (unsigned)s) % 8;
        src[s] = fixture.source[own][s] + own;
    }
    for (int d = 0; d < n_dst; d++) {
        dst[d] = fixture.destination[d] + GUARD + (shift / 2 + 5 * (unsigned)d) % 8;
        memset(fixture.destination[d], 0xa5, bytes + 2 * GUARD + 8);
    }
    rail_combine_to(how, dst, n_dst, src, n_src, mask, finish, count, fixture.stores);
    for (int d = 0; d < n_dst; d++) {
        const uint8_t *got = dst[d];
        bool same = !memcmp(got, fixture.expected, bytes) && all_are(got - GUARD, 0xa5, GUARD) &&
                    all_are(got + bytes, 0xa5, GUARD);
        check(same, how, path, n_src, n_dst, count);
    }
}

static const int source_counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 64};
enum { SOURCE_COUNTS = sizeof source_counts / sizeof *source_counts };

static void check_every_shape(enum rail_type type)
{
    fixture_fill(type, SHORT);
    for (int op = 0; op < RAIL_OPS; op++)
        for (int n = 0; n < SOURCE_COUNTS; n++) {
            struct rail_combine how = {.type = type, .op = (enum rail_op)op};
            fixture_expect(&how, source_counts[n], 0, true, SHORT);
            for (const char *const *path = rail_combine_paths(); *path; path++) {
                assert_true(rail_combine_force(*path));
                for (int n_dst = 1; n_dst <= 3; n_dst++)
                    for (size_t count = 0; count < SHORT; count++)
                        fixture_check(&how, *path, source_counts[n], n_dst, 0, n_dst == 2, count,
                                      (unsigned)(count * 7 + (unsigned)n_dst));
            }
        }
}

static void every_type_operator_shape_count_and_alignment_gives_the_oracles_bits(void **state)
{
    (void)state;
    for (int type = 0; type < RAIL_TYPES; type++) check_every_shape((enum rail_type)type);
}

static void long_runs_at_every_alignment_give_the_oracles_bits(void **state)
{
    if (*state) fixture.stores = *(struct rail_stores *)*state;
    static const struct { int n_src, n_dst; } shapes[] = {{1, 2}, {2, 1}, {2, 2}, {3, 1}, {4, 1}, {5, 3}};
    for (int type = 0; type < RAIL_TYPES; type++) {
        fixture_fill((enum rail_type)type, 1099);
        for (int op = 0; op < RAIL_OPS; op++)
            for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
                struct rail_combine how = {.type = (enum rail_type)type, .op = (enum rail_op)op};
                fixture_expect(&how, shapes[k].n_src, 0, false, 1099);
                for (const char *const *path = rail_combine_paths(); *path; path++) {
                    assert_true(rail_combine_force(*path));
                    for (unsigned shift = 0; shift < 16; shift++)
                        for (size_t count = 1088; count < 1100; count++)
                            fixture_check(&how, *path, shapes[k].n_src, shapes[k].n_dst, 0, false, count, shift);
                }
            }
    }
}

/* Past the caches, aligned or not, or by way of the private destinations: the same bits, and nothing outside. */
static void however_results_are_written_they_are_the_same(void **state)
{
    (void)state;
    static struct rail_stores ways[] = {{.streamed = UINT64_MAX}, {.streamed = 2}, {.shared = 1}, {.shared = 6}, {.streamed = 1, .shared = 2}};
    for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
        void *way = &ways[k];
        long_runs_at_every_alignment_give_the_oracles_bits(&way);
    }
    fixture.stores = (struct rail_stores){0, 0};
}

static void destinations_may_be_sources(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 2, 3, 15, 16, 17, 33, 63, 64, 65, 129, 300};
    for (int type = 0; type < RAIL_TYPES; type++) {
        size_t size = rail_type_bytes((enum rail_type)type);
        fixture_fill((enum rail_type)type, 300);
        for (int op = 0; op < RAIL_OPS; op++)
            for (int n_src = 1; n_src <= 5; n_src++) {
                struct rail_combine how = {.type = (enum rail_type)type, .op = (enum rail_op)op};
                fixture_expect(&how, n_src, 0, false, 300);
                for (const char *const *path = rail_combine_paths(); *path; path++)
                    for (int k = 0; k < n_src * 12; k++) {
                        assert_true(rail_combine_force(*path));
                        size_t count = counts[k % 12];
                        int own = k / 12; /* the source written over, and with more than one also the one after it */
                        const void *src[MOST];
                        void *dst[2];
                        for (int s = 0; s < n_src; s++) src[s] = fixture.source[0][s];
                        for (int d = 0; d < 2; d++) {
                            int s = (own + d) % n_src;
                            dst[d] = memcpy(fixture.destination[d] + 1, fixture.source[0][s], count * size);
                            src[s] = dst[d];
                        }
                        rail_combine(&how, dst, n_src > 1 ? 2 : 1, src, n_src, 0, false, count);
                        check(!memcmp(dst[0], fixture.expected, count * size), &how, *path, n_src, 1, count);
                        if (n_src > 1)
                            check(!memcmp(dst[1], fixture.expected, count * size), &how, *path, n_src, 2, count);
                    }
            }
    }
}

static void chosen_sources_are_scaled_and_integers_divided(void **state)
{
    (void)state;
    static const uint64_t divisors[] = {0, 1, 2, 3, 7, 8, 255, 128, 1ull << 31, 1ull << 32, 1ull << 63, UINT64_MAX};
    for (int type = 0; type < RAIL_TYPES; type++) {
        fixture_fill((enum rail_type)type, 100);
        for (int round = 0; round < 150; round++) {
            struct rail_combine how = {.type = (enum rail_type)type, .op = (enum rail_op)(round % RAIL_OPS)};
            int n_src = source_counts[round % SOURCE_COUNTS], n_dst = 1 + round % 3;
            how.scaled = round % 5 != 0;
            how.scale = round % 3 ? value_next(how.type) : rail_reciprocal_bits(how.type, 3);
            how.divide = divisors[random_next() % 12];
            uint64_t mask = round % 7 == 0 ? 0 : round % 7 == 1 ? UINT64_MAX : random_next();
            bool finish = round % 2;
            size_t count = 1 + random_next() % 100;
            fixture_expect(&how, n_src, mask, finish, count);
            for (const char *const *path = rail_combine_paths(); *path; path++) {
                assert_true(rail_combine_force(*path));
                fixture_check(&how, *path, n_src, n_dst, mask, finish, count, (unsigned)round);
            }
        }
    }
}

/* All pairs of the 8-bit formats; of the 16-bit ones every value against a few hundred others. */
static void every_pair_of_small_floats_gives_the_oracles_bits(void **state)
{
    (void)state;
    static const enum rail_type types[] = {RAIL_F8E4M3, RAIL_F8E5M2, RAIL_F16, RAIL_BF16};
    static uint8_t a[2 << 16], b[2 << 16], expected[2 << 16], got[2 << 16];
    for (int t = 0; t < 4; t++)
        for (int op = 0; op < RAIL_OPS; op++)
            for (uint32_t round = 0; round < (t < 2 ? 1 : 6); round++) {
                struct rail_combine how = {.type = types[t], .op = (enum rail_op)op};
                size_t size = rail_type_bytes(types[t]);
                for (uint32_t k = 0; k < 65536; k++) {
                    uint64_t x[2] = {k, t < 2 ? k >> 8 : value_next(types[t]) & 0xffff};
                    memcpy(a + k * size, &x[0], size);
                    memcpy(b + k * size, &x[1], size);
                    x[0] = oracle_bits_of(&x[0], size), x[1] = oracle_bits_of(&x[1], size);
                    uint64_t bits = oracle_combine(&how, x, 2, 0, false);
                    memcpy(expected + k * size, &bits, size);
                }
                for (const char *const *path = rail_combine_paths(); *path; path++) {
                    assert_true(rail_combine_force(*path));
                    rail_combine(&how, (void *[]){got}, 1, (const void *[]){a, b}, 2, 0, false, 65536);
                    for (uint32_t k = 0; k < 65536; k++)
                        if (memcmp(got + k * size, expected + k * size, size))
                            fail_msg("%s %s on %s: 0x%llx with 0x%llx gives 0x%llx, want 0x%llx", type_names[types[t]],
                                     op_names[op], *path, (unsigned long long)oracle_bits_of(a + k * size, size),
                                     (unsigned long long)oracle_bits_of(b + k * size, size),
                                     (unsigned long long)oracle_bits_of(got + k * size, size),
                                     (unsigned long long)oracle_bits_of(expected + k * size, size));
                }
            }
}

/* The balanced tree, by the book: two at a time, each rounded. */
static uint64_t balanced_expect(const struct rail_combine *how, const uint64_t *x, int n, uint64_t mask, bool finish)
{
    uint64_t pair[2] = {x[0], 0};
    if (n == 1) return how->scaled && mask & 1 ? oracle_scaled(how->type, x[0], how->scale) : x[0];
    int left = 1;
    while (left * 2 < n) left *= 2;
    pair[0] = balanced_expect(how, x, left, mask, false);
    pair[1] = balanced_expect(how, x + left, n - left, mask >> left, false);
    return oracle_combine(how, pair, 2, 0, finish);
}

static void balanced_combinations_round_at_every_inner_node(void **state)
{
    (void)state;
    static const int sources[] = {2, 3, 4, 5, 7, 8, 8, 13, 16, 33, 64, 4};
    static const struct rail_stores ways[] = {{0, 0}, {.streamed = 1}, {.shared = 2}, {.streamed = 2, .shared = 1}};
    enum { COUNT = 1100 }; /* several blocks, the last one short */
    for (int type = 0; type < RAIL_TYPES; type++) {
        size_t size = rail_type_bytes((enum rail_type)type);
        fixture_fill((enum rail_type)type, COUNT);
        for (int op = 0; op < RAIL_OPS; op++)
            for (size_t k = 0; k < sizeof sources / sizeof *sources; k++) {
                int n = sources[k];
                struct rail_combine how = {.type = (enum rail_type)type, .op = (enum rail_op)op, .scaled = k % 2, .divide = 3};
                how.scale = oracle_is_float(how.type) ? oracle_bits(how.type, 0.375) : 3;
                uint64_t mask = k % 2 ? 0x5555555555555555u << (k / 2 % 2) : 0;
                for (size_t e = 0; e < COUNT; e++) {
                    uint64_t x[MOST];
                    for (int s = 0; s < n; s++) x[s] = oracle_bits_of(fixture.source[0][s] + e * size, size);
                    uint64_t bits = balanced_expect(&how, x, n, mask, true);
                    memcpy(fixture.expected + e * size, &bits, size);
                }
                for (const char *const *path = rail_combine_paths(); *path; path++) {
                    const void *src[MOST];
                    assert_true(rail_combine_force(*path));
                    for (int s = 0; s < n; s++) src[s] = fixture.source[s % 8][s] + s % 8;
                    memset(fixture.destination, 0xa5, sizeof fixture.destination);
                    uint8_t *dst[3] = {fixture.destination[0] + GUARD, fixture.destination[1] + GUARD + 1, NULL};
                    dst[2] = fixture.source[(n - 1) % 8][n - 1] + (n - 1) % 8; /* in place of the last source */
                    uint8_t kept[ROOM];
                    memcpy(kept, dst[2], COUNT * size);
                    rail_combine_balanced(&how, (void *const *)dst, 3, src, n, mask, true, COUNT, ways[k / 2 % 4]);
                    for (int d = 0; d < 3; d++) check(!memcmp(dst[d], fixture.expected, COUNT * size), &how, *path, n, d + 1, COUNT);
                    memcpy(dst[2], kept, COUNT * size);
                    for (int d = 0; d < 2; d++) check(all_are(dst[d] - GUARD, 0xa5, GUARD) && all_are(dst[d] + COUNT * size, 0xa5, GUARD - 1), &how, *path, n, d + 1, COUNT);
                }
            }
    }
}

static void one_source_is_copied_with_its_nan_payloads(void **state)
{
    (void)state;
    uint32_t signalling = 0xff812345, got = 0;
    struct rail_combine how = {.type = RAIL_F32, .op = RAIL_SUM, .divide = 3};
    rail_combine(&how, (void *[]){&got}, 1, (const void *[]){&signalling}, 1, 0, true, 1);
    assert_int_equal(got, signalling);
    rail_combine(&how, (void *[]){&got}, 1, (const void *[]){&signalling, &signalling}, 2, 0, true, 1);
    assert_int_equal(got, 0x7fc00000);
}

static void the_callers_float_settings_change_nothing_and_come_back(void **state)
{
    (void)state;
    for (const char *const *path = rail_combine_paths(); *path; path++) {
        assert_true(rail_combine_force(*path));
        struct rail_combine how = {.type = RAIL_F32, .op = RAIL_SUM};
        uint32_t a[19], b[19], got[19];
        for (int k = 0; k < 19; k++) a[k] = 0x00000001, b[k] = k % 2 ? 0x00400000 : 0x3f800001;
        fesetround(FE_UPWARD);
#if defined(__x86_64__)
        unsigned before = _mm_getcsr() | 0x8040; /* flush to zero, subnormals are zeros */
        _mm_setcsr(before);
#endif
        rail_combine(&how, (void *[]){got}, 1, (const void *[]){a, b}, 2, 0, false, 19);
#if defined(__x86_64__)
        unsigned after = _mm_getcsr();
        _mm_setcsr(0x1f80);
        assert_int_equal(after & ~0x3fu, before & ~0x3fu);
#else
        assert_int_equal(fegetround(), FE_UPWARD);
#endif
        fesetround(FE_TONEAREST);
        for (int k = 0; k < 19; k++) assert_int_equal(got[k], k % 2 ? 0x00400001 : 0x3f800001);
    }
}

static void paths_can_be_named_and_others_are_refused(void **state)
{
    (void)state;
    const char *const *paths = rail_combine_paths();
    assert_string_equal(paths[0], "portable");
    const char *best = NULL;
    for (int k = 0; paths[k]; k++) {
        assert_true(rail_combine_force(paths[k]));
        assert_string_equal(rail_combine_path(), paths[k]);
        best = paths[k];
    }
    assert_false(rail_combine_force("mmx"));
    assert_string_equal(rail_combine_path(), best);
    setenv("RAILCCL_SIMD", "portable", 1);
    rail_params_reload();
    assert_true(rail_combine_force(NULL));
    assert_string_equal(rail_combine_path(), "portable");
    unsetenv("RAILCCL_SIMD");
    rail_params_reload();
    assert_true(rail_combine_force(NULL));
    assert_string_equal(rail_combine_path(), best);
}

static void copies_of_any_size_and_alignment_are_exact(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 64, 65, 4096, (8 << 20) - 1, 8 << 20, (8 << 20) + 77, 9 << 20};
    size_t most = (9 << 20) + 256;
    uint8_t *src = malloc(most), *dst = malloc(most);
    assert_non_null(src);
    assert_non_null(dst);
    for (size_t k = 0; k < most; k++) src[k] = (uint8_t)(k * 31 + (k >> 8) * 7);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        for (size_t shift = 0; shift < 3; shift++) {
            size_t from = 64 + 5 * shift, to = 64 + 11 * shift;
            memset(dst, 0xa5, sizes[k] + 256);
            rail_copy(dst + to, src + from, sizes[k]);
            assert_true(!memcmp(dst + to, src + from, sizes[k]));
            assert_true(all_are(dst, 0xa5, to) && all_are(dst + to + sizes[k], 0xa5, 64));
        }
    rail_copy(dst, dst, most);
    free(src);
    free(dst);
}

/* Destinations ordinary and past the cache, of which one may be the source itself. */
static void one_source_is_copied_to_several_destinations(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 4095, 4096, 4097, 8192 + 77, 70001};
    enum { LONGEST = 70001 + 256, DESTINATIONS = 3 };
    uint8_t *src = malloc(LONGEST), *room[DESTINATIONS];
    for (int d = 0; d < DESTINATIONS; d++) room[d] = malloc(LONGEST);
    for (size_t k = 0; k < LONGEST; k++) src[k] = (uint8_t)(k * 31 + (k >> 8) * 7);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        for (uint64_t streamed = 0; streamed < 8; streamed++)
            for (int n = 1; n <= DESTINATIONS; n++) {
                void *dst[DESTINATIONS];
                for (int d = 0; d < n; d++) {
                    memset(room[d], 0xa5, sizes[k] + 256);
                    dst[d] = room[d] + 64 + 5 * (size_t)d * streamed;
                }
                const uint8_t *from = src + 5 * k;
                if (streamed == 5) dst[0] = (void *)(uintptr_t)from;
                rail_copy_to(dst, n, from, sizes[k], streamed);
                for (int d = streamed == 5; d < n; d++) {
                    size_t to = (size_t)((uint8_t *)dst[d] - room[d]);
                    assert_true(!memcmp(dst[d], from, sizes[k]));
                    assert_true(all_are(room[d], 0xa5, to) && all_are((uint8_t *)dst[d] + sizes[k], 0xa5, 64));
                }
            }
    for (size_t k = 0; k < LONGEST; k++) assert_int_equal(src[k], (uint8_t)(k * 31 + (k >> 8) * 7));
    for (int d = 0; d < DESTINATIONS; d++) free(room[d]);
    free(src);
}

int main(void)
{
    oracle_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_operator_shape_count_and_alignment_gives_the_oracles_bits),
        cmocka_unit_test(long_runs_at_every_alignment_give_the_oracles_bits),
        cmocka_unit_test(however_results_are_written_they_are_the_same),
        cmocka_unit_test(destinations_may_be_sources),
        cmocka_unit_test(chosen_sources_are_scaled_and_integers_divided),
        cmocka_unit_test(balanced_combinations_round_at_every_inner_node),
        cmocka_unit_test(every_pair_of_small_floats_gives_the_oracles_bits),
        cmocka_unit_test(one_source_is_copied_with_its_nan_payloads),
        cmocka_unit_test(the_callers_float_settings_change_nothing_and_come_back),
        cmocka_unit_test(paths_can_be_named_and_others_are_refused),
        cmocka_unit_test(copies_of_any_size_and_alignment_are_exact),
        cmocka_unit_test(one_source_is_copied_to_several_destinations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
