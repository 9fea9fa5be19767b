/* The kernel's arithmetic, built for the host, gives the bits of rail_combine: every type and operator, random bits with NaNs,
 * infinities and subnormals among them, any number of sources and destinations, scaled, divided, balanced, at any address,
 * by any number of threads, in place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "device/cuda/combine.h"

enum { COUNT_MAX = 700, SOURCES = 9, ROOM = COUNT_MAX * 8 + 64 };

static uint64_t random_state = 88172645463325252ull;

static uint64_t random_bits(void)
{
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1dull;
}
static uint32_t below(uint32_t n) { return (uint32_t)(random_bits() >> 33) % n; }

/* Random bits; often those of a type's special values: exponents all ones or all zeros. */
static void fill(unsigned char *at, enum rail_type type, size_t count)
{
    size_t element = rail_type_bytes(type);
    for (size_t k = 0; k < count; k++) {
        static const uint64_t masks[] = {UINT64_MAX, UINT64_MAX, 0x8000000000000fffull, 0x80000fff, 0x8fff, 0x83, 0};
        static const uint64_t sets[] = {0, 0, 0x7ff0000000000000ull, 0x7f800000, 0x7c007f80, 0x7c787e7c, 0};
        uint64_t v = random_bits();
        if (below(4) == 0) v = (v & masks[below(7)]) | sets[below(7)];
        memcpy(at + k * element, &v, element);
    }
}

struct shape_of_job {
    enum rail_type type;
    enum rail_op op;
    int n_src, n_dst;
    uint32_t threads;
    bool aligned, in_place, balanced;
    struct rail_combine how;
    uint64_t scale_mask;
    size_t count;
};

static unsigned char source[SOURCES][ROOM], got[3][ROOM], want[3][ROOM];

static void compare(const struct shape_of_job *s)
{
    size_t element = rail_type_bytes(s->type), bytes = s->count * element;
    static struct combine_job job;
    const void *src[SOURCES];
    void *dst[3];
    memset(&job, 0, sizeof job);
    for (int k = 0; k < s->n_src; k++) {
        size_t offset = s->aligned ? 0 : below(3) == 0 ? below(17) : element * below((uint32_t)(16 / element));
        fill(source[k] + offset, s->type, s->count);
        job.src[k] = src[k] = source[k] + offset;
    }
    for (int k = 0; k < s->n_dst; k++) {
        size_t offset = s->aligned ? 0 : below(3) == 0 ? below(17) : element * below((uint32_t)(16 / element));
        memset(got[k], 0xa5, ROOM);
        memset(want[k], 0xa5, ROOM);
        job.dst[k] = got[k] + offset;
        dst[k] = want[k] + offset;
    }
    (s->balanced ? rail_combine_balanced : rail_combine_to)(&s->how, dst, s->n_dst, src, s->n_src, s->scale_mask, true, s->count,
                                                            (struct rail_stores){0, 0});
    if (s->in_place) job.dst[0] = source[s->n_src - 1] + ((const unsigned char *)src[s->n_src - 1] - source[s->n_src - 1]);
    job.n_src = (uint32_t)s->n_src;
    job.n_dst = (uint32_t)s->n_dst;
    job.type = s->type;
    job.op = s->op;
    job.scale_mask = s->how.scaled ? s->scale_mask & ((1ull << s->n_src) - 1) : 0;
    job.scale = s->how.scale;
    job.divide = s->type < RAIL_F16 && s->how.divide > 1 ? s->how.divide : 0;
    job.bytes = bytes;
    job.balanced = s->balanced;
    for (uint32_t t = 0; t < s->threads; t++) combine(&job, t, s->threads);
    for (int k = 0; k < s->n_dst; k++) {
        const unsigned char *a = job.dst[k], *b = dst[k];
        for (size_t i = 0; i < bytes; i++)
            if (a[i] != b[i])
                fail_msg("type %d op %d, %d sources, %d destinations, %u threads, count %zu, scaled %d, divide %llu, balanced %d: "
                         "byte %zu is %02x, not %02x", s->type, s->op, s->n_src, s->n_dst, s->threads, s->count, s->how.scaled,
                         (unsigned long long)s->how.divide, s->balanced, i, a[i], b[i]);
        if (s->in_place && k == 0) continue;
        for (size_t i = 0; i < ROOM; i++)
            if ((got[k] + i < job.dst[k] || got[k] + i >= job.dst[k] + bytes) && got[k][i] != 0xa5)
                fail_msg("a byte outside of the destination is written");
    }
}

static void random_jobs(int n, bool scaled, bool divided, bool balanced)
{
    for (int type = 0; type < RAIL_TYPES; type++)
        for (int op = 0; op < RAIL_OPS; op++)
            for (int k = 0; k < n; k++) {
                struct shape_of_job s = {.type = (enum rail_type)type, .op = (enum rail_op)op, .n_src = 1 + (int)below(SOURCES),
                                         .n_dst = 1 + (int)below(3), .threads = 1 + below(5), .aligned = below(2),
                                         .in_place = below(3) == 0, .balanced = balanced, .count = below(COUNT_MAX)};
                s.how = (struct rail_combine){.type = s.type, .op = s.op, .scaled = scaled,
                                              .divide = divided ? below(5) ? 2 + below(300) : random_bits() | 2 : 0};
                if (scaled) fill((unsigned char *)&s.how.scale, s.type, 1);
                s.scale_mask = scaled ? random_bits() : 0;
                compare(&s);
            }
}

static void every_type_and_operator(void **state)
{
    (void)state;
    random_jobs(60, false, false, false);
}
static void scaled_sources(void **state)
{
    (void)state;
    random_jobs(60, true, false, false);
}
static void divided_integers(void **state)
{
    (void)state;
    random_jobs(60, false, true, false);
}
static void balanced_trees(void **state)
{
    (void)state;
    random_jobs(60, false, false, true);
    random_jobs(20, true, true, true);
}

/* Every bit pattern of the types that have few, against the oracle of one value. */
static void all_pairs_of_8_bit_floats(void **state)
{
    (void)state;
    for (int type = RAIL_F8E4M3; type <= RAIL_F8E5M2; type++)
        for (int op = 0; op < RAIL_OPS; op++)
            for (uint32_t a = 0; a < 256; a++) {
                unsigned char x[256], y[256], r[256], w[256];
                memset(x, (int)a, sizeof x);
                for (uint32_t b = 0; b < 256; b++) y[b] = (unsigned char)b;
                struct combine_job job;
                memset(&job, 0, sizeof job);
                job.src[0] = x, job.src[1] = y, job.dst[0] = r;
                job.n_src = 2, job.n_dst = 1, job.type = (uint32_t)type, job.op = (uint32_t)op, job.bytes = 256;
                combine(&job, 0, 1);
                const void *src[2] = {x, y};
                void *dst[1] = {w};
                struct rail_combine how = {.type = (enum rail_type)type, .op = (enum rail_op)op};
                rail_combine(&how, dst, 1, src, 2, 0, false, 256);
                assert_memory_equal(r, w, sizeof w);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_and_operator),
        cmocka_unit_test(scaled_sources),
        cmocka_unit_test(divided_integers),
        cmocka_unit_test(balanced_trees),
        cmocka_unit_test(all_pairs_of_8_bit_floats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
