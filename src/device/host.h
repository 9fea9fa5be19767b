/* host.h - arithmetic on host memory: the 12 element types, 4 operators, pre- and post-operations, N-way.
 *
 * Every path (portable, AVX2, AVX-512) gives the same bits. Rules of value:
 *  - f16, bf16 and fp8 are combined in float and rounded once, to nearest even, at the end of one call; fp8 saturates
 *    to the largest finite value, as CUDA's conversion does, infinities included, also for min and max;
 *  - sources are combined in the order given, left to right;
 *  - a NaN result is the type's canonical quiet NaN (positive, payload 0; fp8 e4m3: 0x7f, e5m2: 0x7e);
 *  - min and max ignore a NaN when the other operand is a number (as NCCL's fminf/fmaxf do), and order -0 below +0;
 *  - integers wrap; no fused multiply-add; subnormals are kept. */
#ifndef RAIL_DEVICE_HOST_H
#define RAIL_DEVICE_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum rail_type { /* values of ncclDataType_t */
    RAIL_I8, RAIL_U8, RAIL_I32, RAIL_U32, RAIL_I64, RAIL_U64, RAIL_F16, RAIL_F32, RAIL_F64, RAIL_BF16, RAIL_F8E4M3,
    RAIL_F8E5M2, RAIL_TYPES
};
/* Values of ncclRedOp_t; averages are SUM with a scale or a divisor. */
enum rail_op { RAIL_SUM, RAIL_PROD, RAIL_MAX, RAIL_MIN, RAIL_OPS };

static inline size_t rail_type_bytes(enum rail_type type)
{
    static const uint8_t bytes[RAIL_TYPES] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
    return bytes[type];
}

/* How values are combined in one operation. `scale` has the element type's own bits (low bytes first) and multiplies
 * the sources whose bit is set in scale_mask; the product is rounded to the element type before combining (an integer
 * product wraps). `divide` > 1 divides the combined integer by it, truncating, when `finish` is passed. */
struct rail_combine {
    enum rail_type type;
    enum rail_op op;
    bool scaled;      /* a scale exists */
    uint64_t scale;   /* bits of the scalar in the element type */
    uint64_t divide;  /* 0 or 1: none */
};

enum { RAIL_COMBINE_MAX = 64 };

/* dst[j][k] = combine(src[0][k], src[1][k], ...) for all k < count, all j < n_dst. 1 <= n_src, n_dst <= 64.
 * A destination either equals a source's address exactly or overlaps none; destinations do not overlap. Any alignment
 * (also of odd addresses). scale_mask bit s: multiply source s by the scale first. finish: apply `divide`.
 * One source that is neither scaled nor divided is a copy: NaNs and infinities keep their bits. The caller's rounding
 * and subnormal settings have no effect. */
void rail_combine(const struct rail_combine *how, void *const *dst, int n_dst, const void *const *src, int n_src,
                  uint64_t scale_mask, bool finish, size_t count);

/* How destinations are best written: bit d of a mask is destination d. What is read by nobody soon and too large for the
 * caches goes past them, where it is aligned to a vector (64 bytes at most): an ordinary store reads the line first. What
 * another core has read lately, and will read next (`shared`), is copied to by the block. */
struct rail_stores { uint64_t streamed, shared; };
void rail_combine_to(const struct rail_combine *how, void *const *dst, int n_dst, const void *const *src, int n_src,
                     uint64_t scale_mask, bool finish, size_t count, struct rail_stores stores);

/* The same combined as a balanced binary tree over the sources' order, split at the largest power of two below their
 * number, and rounded to the element type at every inner node:
 *
 *     ((0 1) (2 3)) ((4 5) 6)          for 7 sources
 *
 * One or two sources, integers, min and max are the same by either order. */
void rail_combine_balanced(const struct rail_combine *how, void *const *dst, int n_dst, const void *const *src, int n_src,
                           uint64_t scale_mask, bool finish, size_t count, struct rail_stores stores);

/* memcpy that uses streaming stores from a size on where the data is not read again soon. */
void rail_copy(void *dst, const void *src, size_t bytes);
/* One source to n_dst <= 64 destinations, in one pass; bit d of `streamed`: destination d goes past the caches. As in
 * rail_combine a destination equals the source's address or overlaps nothing. */
void rail_copy_to(void *const *dst, int n_dst, const void *src, size_t bytes, uint64_t streamed);
/* Whether rail_combine of that would be a copy of its one source. */
bool rail_combine_copies(const struct rail_combine *how, int n_src, uint64_t scale_mask, bool finish);

/* 64 bits of `bytes` bytes: different for any two contents that differ in one 8-byte word, and almost surely for others. */
uint64_t rail_digest(const void *data, size_t bytes);

/* For tests and benchmarks: the names of the paths this CPU can run ("portable", "avx2", "avx512"), NULL-terminated,
 * best last; and forcing one (NULL: automatic). RAILCCL_SIMD does the same from outside. */
const char *const *rail_combine_paths(void);
bool rail_combine_force(const char *path);
/* The name of the path in use. */
const char *rail_combine_path(void);

/* Scalar conversions, exact and to nearest even: for tests, tools, and op creation. */
float rail_to_float(enum rail_type type, uint64_t bits);   /* 16- and 8-bit float types */
uint64_t rail_from_float(enum rail_type type, float value);
/* Bits of 1/n in a floating type; of `n` for integers this is meaningless. */
uint64_t rail_reciprocal_bits(enum rail_type type, uint64_t n);

#endif
