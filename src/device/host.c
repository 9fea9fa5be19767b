/* host.c - the door to arithmetic on host memory: picks the path once, keeps the caller's floating-point settings out
 * of the values, and hands each call to its kernel. */
#include "device/host.h"

#include <stdatomic.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#include "base/log.h"
#include "base/params.h"
#include "device/host_paths.h"

/* ---- which path ----------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
static bool cpu_has_avx2(void)
{
    unsigned a, b, c = 0, d;
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool cpu_has_avx512(void)
{
    return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
#endif

enum { MOST_PATHS = 3 };

/* Fills paths[] best last; returns how many. Cheap and without state, so that any thread may do it at any time. */
static int paths_list(const struct rail_combine_path *paths[MOST_PATHS])
{
    int n = 0;
    paths[n++] = &rail_combine_path_portable;
#if defined(__x86_64__)
    if (cpu_has_avx2()) paths[n++] = &rail_combine_path_avx2;
    if (cpu_has_avx512()) paths[n++] = &rail_combine_path_avx512;
#endif
    return n;
}

const char *const *rail_combine_paths(void)
{
    /* Every prefix of the list of names that a CPU can have. */
    static const char *const names[MOST_PATHS][MOST_PATHS + 1] = {
        {"portable"}, {"portable", "avx2"}, {"portable", "avx2", "avx512"}};
    const struct rail_combine_path *paths[MOST_PATHS];
    return names[paths_list(paths) - 1];
}

static const struct rail_combine_path *path_find(const char *name)
{
    const struct rail_combine_path *paths[MOST_PATHS];
    int n = paths_list(paths);
    for (int k = 0; k < n; k++)
        if (!strcmp(paths[k]->name, name)) return paths[k];
    return NULL;
}

static _Atomic(const struct rail_combine_path *) path_chosen; /* NULL until the first use; all writers write the same */

static const struct rail_combine_path *path_choose(void)
{
    const struct rail_combine_path *paths[MOST_PATHS];
    const struct rail_combine_path *best = paths[paths_list(paths) - 1];
    const char *wanted = rail_param_str(RAIL_PARAM_SIMD);
    const struct rail_combine_path *path = wanted ? path_find(wanted) : NULL;
    if (wanted && !path) RAIL_WARN("RAILCCL_SIMD=%s: this CPU cannot run that path; using %s", wanted, best->name);
    if (!path) path = best;
    atomic_store_explicit(&path_chosen, path, memory_order_release);
    return path;
}

bool rail_combine_force(const char *name)
{
    const struct rail_combine_path *path = name ? path_find(name) : NULL;
    if (name && !path) return false;
    atomic_store_explicit(&path_chosen, path, memory_order_release);
    return true;
}

static const struct rail_combine_path *path_get(void)
{
    const struct rail_combine_path *path = atomic_load_explicit(&path_chosen, memory_order_acquire);
    return __builtin_expect(path != NULL, 1) ? path : path_choose();
}

const char *rail_combine_path(void) { return path_get()->name; }

/* ---- the caller's floating-point settings ---------------------------------------------------------------------- */

/* The thread may belong to a program that flushes subnormals (-ffast-math does so at start-up), rounds in another
 * direction or traps: then values would depend on who calls. Settings other than the default are put aside for the
 * length of a call; reading them costs a nanosecond. */
#if defined(__x86_64__)
enum { FLOAT_FLAGS = 0x3f, FLOAT_DEFAULT = 0x1f80 }; /* MXCSR: sticky flags; all traps masked, nearest even */

static inline uint64_t float_settings_enter(void)
{
    unsigned old = _mm_getcsr();
    if (__builtin_expect((old & ~(unsigned)FLOAT_FLAGS) != FLOAT_DEFAULT, 0)) _mm_setcsr(FLOAT_DEFAULT);
    return old;
}

static inline void float_settings_leave(uint64_t old)
{
    if (__builtin_expect(((unsigned)old & ~(unsigned)FLOAT_FLAGS) != FLOAT_DEFAULT, 0)) _mm_setcsr((unsigned)old);
}
#elif defined(__aarch64__)
static inline uint64_t float_settings_enter(void)
{
    uint64_t old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old)::"memory");
    if (__builtin_expect(old != 0, 0)) __asm__ volatile("msr fpcr, %0" ::"r"((uint64_t)0) : "memory");
    return old;
}

static inline void float_settings_leave(uint64_t old)
{
    if (__builtin_expect(old != 0, 0)) __asm__ volatile("msr fpcr, %0" ::"r"(old) : "memory");
}
#else
static inline uint64_t float_settings_enter(void) { return 0; }
static inline void float_settings_leave(uint64_t old) { (void)old; }
#endif

/* ---- the call --------------------------------------------------------------------------------------------------- */

static bool type_is_float(enum rail_type type) { return type >= RAIL_F16; }

static bool type_is_signed(enum rail_type type) { return type == RAIL_I8 || type == RAIL_I32 || type == RAIL_I64; }

/* The scalar as the kernels want it: see struct rail_combine_job. */
static uint64_t scale_bits(const struct rail_combine *how)
{
    if (!type_is_float(how->type) || how->type == RAIL_F32 || how->type == RAIL_F64) return how->scale;
    float value = rail_to_float(how->type, how->scale);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static bool divides(const struct rail_combine *how, bool finish)
{
    return finish && how->divide > 1 && !type_is_float(how->type);
}

bool rail_combine_copies(const struct rail_combine *how, int n_src, uint64_t scale_mask, bool finish)
{
    return n_src == 1 && !(how->scaled && (scale_mask & 1)) && !divides(how, finish);
}

/* A vector's store to a line that another core has waits until that core has let go of it, and all stores behind it wait, too;
 * the C library's copy of some KiB does not. So block by block the kernel writes the private destinations, and what is shared
 * gets a copy of it while it is in L1. Two cores, 64 KiB, two sources, to private memory and a window: 3.8 us with stores to
 * both, 2.6 so; ranks that share cores gain nothing. */
enum { BLOCK_BYTES = 4096 };

/* The private destinations first; returns how many. */
static int private_first(const struct rail_combine_job *job, uint64_t shared, uint8_t **dst)
{
    int n = 0, last = job->n_dst;
    for (int d = 0; d < job->n_dst; d++) {
        if (shared >> d & 1) dst[--last] = job->dst[d];
        else dst[n++] = job->dst[d];
    }
    return n;
}

static void combine_blocks(const struct rail_combine_job *whole, rail_combine_kernel *kernel, uint64_t shared)
{
    uint8_t *dst[RAIL_COMBINE_MAX];
    const uint8_t *src[RAIL_COMBINE_MAX];
    struct rail_combine_job job = *whole;
    job.n_dst = private_first(whole, shared, dst), job.dst = dst, job.src = src;
    memcpy(src, whole->src, (size_t)whole->n_src * sizeof *src);
    for (size_t left = whole->bytes; left > 0; left -= job.bytes) {
        job.bytes = left < BLOCK_BYTES ? left : BLOCK_BYTES;
        kernel(&job);
        for (int d = job.n_dst; d < whole->n_dst; d++) memcpy(dst[d], dst[0], job.bytes);
        for (int d = 0; d < whole->n_dst; d++) dst[d] += job.bytes;
        for (int s = 0; s < whole->n_src; s++) src[s] += job.bytes;
    }
}

static void combine(const struct rail_combine *how, bool as_tree, void *const *dst, int n_dst, const void *const *src,
                    int n_src, uint64_t scale_mask, bool finish, size_t count, struct rail_stores stores)
{
    const uint64_t used = n_src >= 64 ? UINT64_MAX : (1ull << n_src) - 1;
    struct rail_combine_job job = {
        .dst = (uint8_t *const *)dst,
        .src = (const uint8_t *const *)src,
        .n_dst = n_dst,
        .n_src = n_src,
        .is_signed = type_is_signed(how->type),
        .scale_mask = how->scaled ? scale_mask & used : 0,
        .divide = divides(how, finish) ? how->divide : 0,
        .streamed = stores.streamed,
        .bytes = count * rail_type_bytes(how->type),
    };
    if (job.bytes == 0) return;
    if (rail_combine_copies(how, n_src, scale_mask, finish)) {
        if (n_dst > 1 || stores.streamed) rail_copy_to(dst, n_dst, src[0], job.bytes, stores.streamed);
        else if (dst[0] != src[0]) memcpy(dst[0], src[0], job.bytes);
        return;
    }
    if (job.scale_mask) job.scale = scale_bits(how);
    const struct rail_combine_path *path = path_get();
    rail_combine_kernel *kernel = (as_tree ? path->tree : path->kernel)[how->type][how->op];
    bool any_private = (~stores.shared & (n_dst >= 64 ? UINT64_MAX : (1ull << n_dst) - 1)) != 0;
    uint64_t settings = float_settings_enter();
    if (stores.shared && any_private && !stores.streamed) combine_blocks(&job, kernel, stores.shared);
    else kernel(&job);
    float_settings_leave(settings);
}

void rail_combine_to(const struct rail_combine *how, void *const *dst, int n_dst, const void *const *src, int n_src,
                     uint64_t scale_mask, bool finish, size_t count, struct rail_stores stores)
{
    combine(how, false, dst, n_dst, src, n_src, scale_mask, finish, count, stores);
}

/* Integers wrap, and the least and the greatest are one of the sources: by any order the same. */
static bool order_matters(const struct rail_combine *how)
{
    return type_is_float(how->type) && (how->op == RAIL_SUM || how->op == RAIL_PROD);
}

void rail_combine_balanced(const struct rail_combine *how, void *const *dst, int n_dst, const void *const *src, int n_src,
                           uint64_t scale_mask, bool finish, size_t count, struct rail_stores stores)
{
    bool as_tree = n_src > 2 && order_matters(how);
    if (as_tree && !path_get()->tree[how->type][how->op])
        rail_combine_rounded(how, dst, n_dst, src, n_src, scale_mask, count, stores);
    else
        combine(how, as_tree, dst, n_dst, src, n_src, scale_mask, finish, count, stores);
}

void rail_combine(const struct rail_combine *how, void *const *dst, int n_dst, const void *const *src, int n_src,
                  uint64_t scale_mask, bool finish, size_t count)
{
    rail_combine_to(how, dst, n_dst, src, n_src, scale_mask, finish, count, (struct rail_stores){0, 0});
}
