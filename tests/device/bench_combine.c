/* bench_combine - how fast rail_combine is, beside memcpy in the same run. Not a test; `make bench-combine` runs it.
 *
 *   bench_combine [-a]      -a: also prod and max
 *
 * Figures are GB/s of payload: bytes of one array over the time of a call, minimum of many batches. One thread. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/clock.h"
#include "device/host.h"

enum { SOURCES = 8, DESTINATIONS = 2, BATCHES = 25 };

static const size_t sizes[] = {16 << 10, 256 << 10, 4 << 20};
enum { SIZES = sizeof sizes / sizeof *sizes };

static uint8_t *source[SOURCES], *destination[DESTINATIONS];

struct shape { int n_src, n_dst; };

/* The plainest d = a + b of floats, as far as the compiler takes it. */
static void plain_sum(float *restrict d, const float *a, const float *b, size_t count)
{
    for (size_t k = 0; k < count; k++) d[k] = a[k] + b[k];
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void plain_sum_avx2(float *d, const float *a, const float *b, size_t count)
{
    for (size_t k = 0; k + 8 <= count; k += 8)
        _mm256_storeu_ps(d + k, _mm256_add_ps(_mm256_loadu_ps(a + k), _mm256_loadu_ps(b + k)));
}

__attribute__((target("avx512f"))) static void plain_sum_avx512(float *d, const float *a, const float *b, size_t count)
{
    for (size_t k = 0; k + 16 <= count; k += 16)
        _mm512_storeu_ps(d + k, _mm512_add_ps(_mm512_loadu_ps(a + k), _mm512_loadu_ps(b + k)));
}
#endif

enum plain { LIBC_COPY, PLAIN_SUM };

static void plain_call(enum plain what, size_t bytes)
{
    void *d = destination[0];
    const void *a = source[0], *b = source[1];
    if (what == LIBC_COPY) memcpy(d, a, bytes);
#if defined(__x86_64__)
    else if (__builtin_cpu_supports("avx512f")) plain_sum_avx512(d, a, b, bytes / 4);
    else if (__builtin_cpu_supports("avx2")) plain_sum_avx2(d, a, b, bytes / 4);
#endif
    else plain_sum(d, a, b, bytes / 4);
}

static void call(const struct rail_combine *how, struct shape shape, size_t bytes)
{
    if (!how) plain_call(shape.n_src == 1 ? LIBC_COPY : PLAIN_SUM, bytes);
    else
        rail_combine(how, (void *const *)destination, shape.n_dst, (const void *const *)source, shape.n_src, 0, false,
                     bytes / rail_type_bytes(how->type));
    __asm__ volatile("" ::: "memory");
}

/* Batches of about 200 us; the fastest counts, for anything slower was disturbed. */
static double measure(const struct rail_combine *how, struct shape shape, size_t bytes)
{
    uint64_t best_ns = UINT64_MAX;
    int calls = 1;
    for (int batch = 0; batch < BATCHES; batch++) {
        uint64_t start_ns = rail_now_ns();
        for (int k = 0; k < calls; k++) call(how, shape, bytes);
        uint64_t ns = rail_now_ns() - start_ns;
        if (batch == 0) {
            calls = ns < 200000 ? (int)(200000 / (ns + 1)) + 1 : 1;
            continue;
        }
        if (ns / (uint64_t)calls < best_ns) best_ns = ns / (uint64_t)calls;
    }
    return (double)bytes / (double)best_ns;
}

static void row(const char *path, const char *type, const char *op, const struct rail_combine *how, struct shape shape)
{
    printf("%-9s %-5s %-5s %d->%d ", path, type, op, shape.n_src, shape.n_dst);
    for (int k = 0; k < SIZES; k++) printf(" %8.1f", measure(how, shape, sizes[k]));
    printf("\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const struct { enum rail_type type; const char *name; } types[] = {
        {RAIL_F32, "f32"}, {RAIL_BF16, "bf16"}, {RAIL_F16, "f16"}, {RAIL_F8E4M3, "e4m3"}, {RAIL_F8E5M2, "e5m2"},
        {RAIL_I8, "i8"}, {RAIL_F64, "f64"}, {RAIL_I64, "i64"}};
    static const char *const ops[] = {"sum", "prod", "max"};
    static const struct shape shapes[] = {{2, 1}, {2, 2}, {4, 1}, {8, 1}};
    int n_ops = argc > 1 && !strcmp(argv[1], "-a") ? 3 : 1;
    size_t most = sizes[SIZES - 1];
    for (int k = 0; k < SOURCES + DESTINATIONS; k++) {
        uint8_t *p = aligned_alloc(4096, most + 4096 * 16);
        if (!p) return 1;
        p += 4096 + 320 * k; /* not all on one set of the cache */
        for (size_t b = 0; b < most; b++) p[b] = (uint8_t)(0x30 + b % 8);
        if (k < SOURCES) source[k] = p;
        else destination[k - SOURCES] = p;
    }
    printf("GB/s of one array%14s %8s %8s\n", "16 KiB", "256 KiB", "4 MiB");
    row("libc", "-", "copy", NULL, (struct shape){1, 1});
    row("loop", "f32", "d=a+b", NULL, (struct shape){2, 1});
    for (const char *const *path = rail_combine_paths(); *path; path++) {
        rail_combine_force(*path);
        for (size_t t = 0; t < sizeof types / sizeof *types; t++)
            for (int op = 0; op < n_ops; op++)
                for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
                    struct rail_combine how = {.type = types[t].type, .op = (enum rail_op)op};
                    row(*path, types[t].name, ops[op], &how, shapes[s]);
                }
    }
    row("libc", "-", "copy", NULL, (struct shape){1, 1});
    row("loop", "f32", "d=a+b", NULL, (struct shape){2, 1});
    return 0;
}
