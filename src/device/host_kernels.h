/* host_kernels.h - the kernels of rail_combine, written once in vectors of the compiler and compiled once per path.
 *
 * The including file defines PATH (the name that ends its symbol), PATH_VECTOR_BYTES (16, 32 or 64), and PATH_F16C when
 * the compiler may convert f16 by instruction. Nothing else differs between the paths, which is why they give the same
 * bits: every lane goes through the same IEEE operations in the same order.
 *
 * The life of a vector, for sources a, b, ... of one call:
 *
 *     raw a --scale--> raw a' --widen--> parts --+
 *     raw b --scale--> raw b' --widen--> parts --+--apply--> parts --narrow--> raw --divide--> every destination
 *
 * `raw` is a vector of elements as they lie in memory. `parts` is what is combined: the same vector for integers, f32
 * and f64; 2 vectors of float for f16 and bf16, 4 for fp8; for min and max of floats, integers that sort as the floats
 * do. Accumulators live in registers: each source is read once and each destination written once, chunk by chunk, so
 * that a destination may be one of the sources.
 *
 * All functions are forced inline and take type and operator as constants; the switches vanish. */
#include "device/host_paths.h"
#include "device/host_small.h"
#include "device/host_sort.h"
#include "device/host_vectors.h"

enum { MOST_PARTS = 4 };

/* ---- facts about types ---------------------------------------------------------------------------------------- */

INLINE int lane_bits(const enum rail_type type) { return (int)rail_type_bytes(type) * 8; }

INLINE bool is_float(const enum rail_type type) { return type >= RAIL_F16; }

/* Sums and products of these are made in float. */
INLINE bool is_small(const enum rail_type type) { return is_float(type) && type != RAIL_F32 && type != RAIL_F64; }

INLINE bool is_sorting(const enum rail_op op) { return op == RAIL_MAX || op == RAIL_MIN; }

/* Vectors of parts per vector of elements. */
INLINE int parts_per_vector(const enum rail_type type, const enum rail_op op)
{
    return is_small(type) && !is_sorting(op) ? 32 / lane_bits(type) : 1;
}

/* ---- the stages ----------------------------------------------------------------------------------------------- */

INLINE void widen(const enum rail_type type, const enum rail_op op, vu32 raw, vu32 *part)
{
    if (!is_float(type)) part[0] = raw;
    else if (is_sorting(op)) part[0] = sort_key(type, op, raw);
    else if (is_small(type)) small_widen(type, raw, part);
    else part[0] = raw;
}

/* The parts of `vectors` vectors to as many vectors of elements. Changes the parts. */
INLINE void narrow(const enum rail_type type, const enum rail_op op, vu32 *part, const int vectors, vu32 *raw)
{
    const int per = parts_per_vector(type, op);
    const bool rounds = is_float(type) && !is_sorting(op);
    if (rounds && type == RAIL_F32) nans_made_canonical_32(part, vectors);
    if (rounds && type == RAIL_F64) nans_made_canonical_64(part, vectors);
    for (int v = 0; v < vectors; v++) {
        if (rounds && is_small(type)) raw[v] = small_narrow(type, part + v * per);
        else if (is_float(type) && is_sorting(op)) raw[v] = sort_undo(type, op, part[v]);
        else raw[v] = part[v];
    }
}

#define SORTED(lane, a, b)                                                                                             \
    lane_select(op == RAIL_MAX ? (vu32)((lane)(a) > (lane)(b)) : (vu32)((lane)(a) < (lane)(b)), a, b)

/* The smaller or larger of each pair of lanes, as integers. */
INLINE vu32 sorted_pick(const enum rail_type type, const enum rail_op op, vu32 a, vu32 b)
{
    switch (type) {
    case RAIL_U8: return SORTED(vu8, a, b);
    case RAIL_U32: return SORTED(vu32, a, b);
    case RAIL_U64: return SORTED(vu64, a, b);
    default: break;
    }
    switch (lane_bits(type)) {
    case 8: return SORTED(vi8, a, b);
    case 16: return SORTED(vi16, a, b);
    case 32: return SORTED(vi32, a, b);
    default: return SORTED(vi64, a, b);
    }
}
#undef SORTED

#define ARITHMETIC(lane, a, b) (op == RAIL_SUM ? (vu32)((lane)(a) + (lane)(b)) : (vu32)((lane)(a) * (lane)(b)))

/* a is the combination so far, b the next source. Integers wrap, being unsigned here. */
INLINE vu32 apply(const enum rail_type type, const enum rail_op op, vu32 a, vu32 b)
{
    if (is_sorting(op)) return sorted_pick(type, op, a, b);
    switch (type) {
    case RAIL_I8:
    case RAIL_U8: return ARITHMETIC(vu8, a, b);
    case RAIL_I32:
    case RAIL_U32: return ARITHMETIC(vu32, a, b);
    case RAIL_I64:
    case RAIL_U64: return ARITHMETIC(vu64, a, b);
    case RAIL_F64: return ARITHMETIC(vf64, a, b);
    default: return ARITHMETIC(vf32, a, b);
    }
}
#undef ARITHMETIC

/* The scalar in every lane, as raw_scale wants it. */
INLINE vu32 scale_splat(const enum rail_type type, uint64_t bits)
{
    if (rail_type_bytes(type) == 8) return (vu32)((vu64){0} + bits);
    if (rail_type_bytes(type) == 1 && !is_float(type)) return (vu32)((vu8){0} + (uint8_t)bits);
    return splat((uint32_t)bits);
}

/* Elements times the scalar, rounded to the element type. A product of two floats of 16 or 8 bits is exact in float. */
INLINE vu32 raw_scale(const enum rail_type type, vu32 raw, vu32 scale)
{
    vu32 part[MOST_PARTS];
    const int parts = parts_per_vector(type, RAIL_PROD);
    widen(type, RAIL_PROD, raw, part);
    for (int k = 0; k < parts; k++) part[k] = apply(type, RAIL_PROD, part[k], scale);
    narrow(type, RAIL_PROD, part, 1, &raw);
    return raw;
}

/* Integers divided, towards zero. 8 and 32 bits go by way of double: a quotient x/d that is no integer lies at least
 * 1/d away from one, far more than half a unit in double's last place, so cutting off its fraction is exact. */
#define DIVIDE_LANES(lane, quotient)                                                                                   \
    do {                                                                                                               \
        lane x[VECTOR_BYTES / sizeof(lane)];                                                                           \
        memcpy(x, lanes, sizeof x);                                                                                    \
        for (size_t k = 0; k < VECTOR_BYTES / sizeof(lane); k++) x[k] = (lane)(quotient);                              \
        memcpy(lanes, x, sizeof x);                                                                                    \
    } while (0)

#define DEFINE_DIVIDE(bits)                                                                                            \
    static __attribute__((noinline)) void divide_##bits(uint8_t *lanes, const struct rail_combine_job *job)            \
    {                                                                                                                  \
        const double by = (double)job->divide;                                                                         \
        if (job->is_signed) DIVIDE_LANES(int##bits##_t, (int32_t)(x[k] / by));                                         \
        else DIVIDE_LANES(uint##bits##_t, (int64_t)(x[k] / by));                                                       \
    }
DEFINE_DIVIDE(8)
DEFINE_DIVIDE(32)

static __attribute__((noinline)) void divide_64(uint8_t *lanes, const struct rail_combine_job *job)
{
    const uint64_t by = job->divide;
    if (!job->is_signed) DIVIDE_LANES(uint64_t, x[k] / by);
    else if (by <= INT64_MAX) DIVIDE_LANES(int64_t, x[k] / (int64_t)by);
    else DIVIDE_LANES(int64_t, x[k] == INT64_MIN && by == (uint64_t)INT64_MIN ? -1 : 0);
}

INLINE vu32 raw_divide(const enum rail_type type, vu32 raw, const struct rail_combine_job *job)
{
    uint8_t lanes[VECTOR_BYTES];
    vector_store(lanes, raw);
    if (lane_bits(type) == 8) divide_8(lanes, job);
    else if (lane_bits(type) == 32) divide_32(lanes, job);
    else divide_64(lanes, job);
    return vector_load(lanes);
}
#undef DIVIDE_LANES

/* ---- loops ---------------------------------------------------------------------------------------------------- */

/* One vector of source `index`, ready to be combined. */
INLINE void source_load(const enum rail_type type, const enum rail_op op, const bool plain,
                        const struct rail_combine_job *job, vu32 scale, const uint8_t *src, const int index, size_t at,
                        size_t partial, vu32 *part)
{
    if (plain && type == RAIL_F16 && !is_sorting(op) && partial == 0) {
        f16_widen_from(src + at, part);
        return;
    }
    vu32 raw = chunk_load(src + at, partial);
    if (!plain && (job->scale_mask >> index & 1)) raw = raw_scale(type, raw, scale);
    widen(type, op, raw, part);
}

/* What one pass over the sources has at hand: so many vectors at byte `at` of each; `partial` > 0: the last bytes, fewer
 * than one vector. */
struct place {
    const struct rail_combine_job *job;
    vu32 scale;
    size_t at, partial;
};

INLINE void leaf(const enum rail_type type, const enum rail_op op, const bool plain, const struct place *p, const int source,
                 const int vectors, vu32 *part)
{
    const int per = parts_per_vector(type, op);
    for (int v = 0; v < vectors; v++)
        source_load(type, op, plain, p->job, p->scale, p->job->src[source], source, p->at + (size_t)v * VECTOR_BYTES, p->partial,
                    part + v * per);
}

/* left := left op right. */
INLINE void join(const enum rail_type type, const enum rail_op op, const int vectors, vu32 *left, const vu32 *right)
{
    const int parts = vectors * parts_per_vector(type, op);
    for (int k = 0; k < parts; k++) left[k] = apply(type, op, left[k], right[k]);
}

INLINE void left_to_right(const enum rail_type type, const enum rail_op op, const bool plain, const struct place *p,
                          const int first, const int n, const int vectors, vu32 *sum)
{
    vu32 part[MOST_PARTS];
    leaf(type, op, plain, p, first, vectors, sum);
    for (int s = 1; s < n; s++) {
        leaf(type, op, plain, p, first + s, vectors, part);
        join(type, op, vectors, sum, part);
    }
}

/* (0 1) (2 3), in registers. */
INLINE void four(const enum rail_type type, const enum rail_op op, const bool plain, const struct place *p, const int first,
                 const int vectors, vu32 *sum)
{
    vu32 right[MOST_PARTS];
    left_to_right(type, op, plain, p, first, 2, vectors, sum);
    left_to_right(type, op, plain, p, first + 2, 2, vectors, right);
    join(type, op, vectors, sum, right);
}

INLINE void eight(const enum rail_type type, const enum rail_op op, const bool plain, const struct place *p, const int first,
                  const int vectors, vu32 *sum)
{
    vu32 right[MOST_PARTS];
    four(type, op, plain, p, first, vectors, sum);
    four(type, op, plain, p, first + 4, vectors, right);
    join(type, op, vectors, sum, right);
}

/* As a balanced tree split at the largest power of two, for types that need no rounding in between: a NaN is made canonical
 * at the top, where all that hold one end. By fours: what waits at level l are 4 * 2^l sources that are a whole subtree, as the
 * bits of a counter that carries; then the one, two or three left over, and what still waits, from right to left. n >= 3. */
INLINE void balanced(const enum rail_type type, const enum rail_op op, const bool plain, const struct place *p, const int n,
                     const int vectors, vu32 *sum)
{
    enum { LEVELS = 5 }; /* 64 sources are 16 fours */
    const int fours = n / 4, rest = n % 4;
    const size_t bytes = (size_t)vectors * sizeof *sum;
    vu32 waiting[LEVELS][MOST_PARTS];
    if (fours == 0) {
        left_to_right(type, op, plain, p, 0, rest, vectors, sum);
        return;
    }
    int f = 0;
    do {
        int level = 0;
        four(type, op, plain, p, f * 4, vectors, sum);
        for (; f >> level & 1; level++) {
            join(type, op, vectors, waiting[level], sum);
            memcpy(sum, waiting[level], bytes);
        }
        memcpy(waiting[level], sum, bytes);
    } while (++f < fours);
    int level = 0;
    if (rest) left_to_right(type, op, plain, p, fours * 4, rest, vectors, sum);
    else level = __builtin_ctz((unsigned)fours) + 1; /* that subtree is in sum */
    for (; fours >> level; level++) {
        if (!(fours >> level & 1)) continue;
        join(type, op, vectors, waiting[level], sum);
        memcpy(sum, waiting[level], bytes);
    }
}

/* Combines `vectors` vectors of every source into every destination. `streamed`: destinations that are written past the
 * caches, a bit each. */
INLINE void chunk_combine(const enum rail_type type, const enum rail_op op, const bool plain, const bool as_tree,
                          const struct place *p, const int n_src, uint8_t *const *dst, const int n_dst, const uint64_t streamed,
                          const int vectors)
{
    vu32 sum[MOST_PARTS], raw[MOST_PARTS];
    if (!as_tree) left_to_right(type, op, plain, p, 0, n_src, vectors, sum);
    else if (n_src == 4) four(type, op, plain, p, 0, vectors, sum);
    else if (n_src == 8) eight(type, op, plain, p, 0, vectors, sum);
    else balanced(type, op, plain, p, n_src, vectors, sum);
    narrow(type, op, sum, vectors, raw);
    if (!plain && !is_float(type) && p->job->divide)
        for (int v = 0; v < vectors; v++) raw[v] = raw_divide(type, raw[v], p->job);
    for (int d = 0; d < n_dst; d++) {
        uint8_t *to = dst[d] + p->at;
        if (streamed >> d & 1)
            for (int v = 0; v < vectors; v++) vector_stream(to + (size_t)v * VECTOR_BYTES, raw[v]);
        else
            for (int v = 0; v < vectors; v++) chunk_store(to + (size_t)v * VECTOR_BYTES, raw[v], p->partial);
    }
}

/* Whole chunks of four vectors of parts; returns the bytes done. n_src and n_dst are constants where the shape is worth
 * it, and streamed where nothing is. */
INLINE size_t combine_chunks(const enum rail_type type, const enum rail_op op, const bool as_tree,
                             const struct rail_combine_job *job, const int n_src, const int n_dst, const uint64_t streamed)
{
    const int vectors = MOST_PARTS / parts_per_vector(type, op);
    const size_t chunk_bytes = (size_t)vectors * VECTOR_BYTES, bytes = job->bytes;
    struct place p = {.job = job};
    uint8_t *const *dst = job->dst;
    for (; bytes - p.at >= chunk_bytes; p.at += chunk_bytes)
        chunk_combine(type, op, true, as_tree, &p, n_src, dst, n_dst, streamed, vectors);
    return p.at;
}

/* What chunks leave over, or everything that is scaled or divided: vector by vector. */
INLINE void combine_rest(const enum rail_type type, const enum rail_op op, const bool as_tree,
                         const struct rail_combine_job *job, size_t at)
{
    struct place p = {.job = job, .scale = scale_splat(type, job->scale), .at = at};
    while (p.at < job->bytes) {
        const size_t left = job->bytes - p.at;
        p.partial = left < VECTOR_BYTES ? left : 0;
        chunk_combine(type, op, false, as_tree, &p, job->n_src, job->dst, job->n_dst, 0, 1);
        p.at += p.partial ? p.partial : VECTOR_BYTES;
    }
}

/* Streaming stores want a destination that is a multiple of a vector; buffers and pieces are multiples of a line. */
INLINE uint64_t streamable(const struct rail_combine_job *job)
{
    uint64_t streamed = job->streamed;
    for (int d = 0; d < job->n_dst; d++)
        if ((uintptr_t)job->dst[d] % VECTOR_BYTES) streamed &= ~(1ull << d);
    return streamed;
}

INLINE void combine_any(const enum rail_type type, const enum rail_op op, const bool as_tree,
                        const struct rail_combine_job *job)
{
    size_t done = 0;
    if (!job->scale_mask && !job->divide) {
        if (job->streamed) {
            done = combine_chunks(type, op, as_tree, job, job->n_src, job->n_dst, streamable(job));
            stream_fence();
        } else if (!as_tree && job->n_src == 2 && job->n_dst == 1) {
            done = combine_chunks(type, op, as_tree, job, 2, 1, 0);
        } else {
            done = combine_chunks(type, op, as_tree, job, job->n_src, job->n_dst, 0);
        }
    }
    combine_rest(type, op, as_tree, job, done);
}

#define KERNEL(type, op)                                                                                               \
    static void type##_##op(const struct rail_combine_job *job) { combine_any(RAIL_##type, RAIL_##op, false, job); }
#define TREE_KERNEL(type, op)                                                                                          \
    static void type##_##op##_TREE(const struct rail_combine_job *job) { combine_any(RAIL_##type, RAIL_##op, true, job); }
#define KERNELS(type) KERNEL(type, SUM) KERNEL(type, PROD) KERNEL(type, MAX) KERNEL(type, MIN)
#define SORTING_KERNELS(type) KERNEL(type, MAX) KERNEL(type, MIN)

/* Signed sums and products are the unsigned ones: they wrap, and what divides them reads the job's is_signed. */
SORTING_KERNELS(I8)
SORTING_KERNELS(I32)
SORTING_KERNELS(I64)
KERNELS(U8)
KERNELS(U32)
KERNELS(U64)
KERNELS(F16)
KERNELS(F32)
KERNELS(F64)
KERNELS(BF16)
KERNELS(F8E4M3)
KERNELS(F8E5M2)
TREE_KERNEL(F32, SUM)
TREE_KERNEL(F32, PROD)
TREE_KERNEL(F64, SUM)
TREE_KERNEL(F64, PROD)

#define ROW(type, arithmetic) [RAIL_##type] = {arithmetic##_SUM, arithmetic##_PROD, type##_MAX, type##_MIN}
#define JOINED_(a, b) a##b
#define JOINED(a, b) JOINED_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

const struct rail_combine_path JOINED(rail_combine_path_, PATH) = {
    .name = TEXT(PATH),
    .kernel = {ROW(I8, U8), ROW(U8, U8), ROW(I32, U32), ROW(U32, U32), ROW(I64, U64), ROW(U64, U64), ROW(F16, F16),
               ROW(F32, F32), ROW(F64, F64), ROW(BF16, BF16), ROW(F8E4M3, F8E4M3), ROW(F8E5M2, F8E5M2)},
    .tree = {[RAIL_F32] = {F32_SUM_TREE, F32_PROD_TREE}, [RAIL_F64] = {F64_SUM_TREE, F64_PROD_TREE}},
};
