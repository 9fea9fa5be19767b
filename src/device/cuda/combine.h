/* combine.h - n sources combined into m destinations by all threads of a block: rail_combine of device/host.h, the same
 * bits, in a kernel.
 *
 *     [head | quad | quad | quad | ... | tail]     cut where the first destination has multiples of 16 bytes
 *            \____ four per thread ____/           while there are that many for all threads; then one by one
 *
 * Every thread loads its quads of all sources before it stores any, so a destination may be one of the sources. The life
 * of a quad is that of a vector in host_kernels.h: scaled, widened, combined, narrowed, divided.
 *
 * The type is a constant in what is below `combine`, sorting (minimum or maximum) too; the operator within is not: a branch
 * that all threads take alike costs less than twice the code. Plain C subset of CUDA. */
#ifndef RAIL_DEVICE_CUDA_COMBINE_H
#define RAIL_DEVICE_CUDA_COMBINE_H

#include "device/cuda/numbers.h"

/* Lies in the block's shared memory; addresses can be read and written as they stand. */
struct combine_job {
    const unsigned char *src[RAIL_COMBINE_MAX];
    unsigned char *dst[RAIL_COMBINE_MAX];
    uint32_t n_src, n_dst;
    uint32_t type, op;
    uint64_t scale_mask;  /* sources that are multiplied first */
    uint64_t scale;       /* bits of the scalar in the element type */
    uint64_t divide;      /* 0: nothing is divided */
    uint64_t bytes;       /* of one source: whole elements */
    uint32_t balanced;    /* as a balanced tree, rounded at every node; else from left to right */
};

/* What is combined: the quad itself, or its elements as floats. */
struct combine_part {
    struct quad q;
    float f[16];
};

/* Which of the two, and how many elements a quad has. */
KERNEL_FN int in_floats(const uint32_t type, const int sorting) { return number_is_small(type) && !sorting; }
KERNEL_FN int elements_of(const uint32_t type) { return QUAD_BYTES / (int)number_bytes(type); }

KERNEL_FN uint64_t quad_long(const struct quad *q, const int k) { return (uint64_t)q->w[2 * k + 1] << 32 | q->w[2 * k]; }
KERNEL_FN void quad_set_long(struct quad *q, const int k, uint64_t v)
{
    q->w[2 * k] = (uint32_t)v;
    q->w[2 * k + 1] = (uint32_t)(v >> 32);
}

/* Element k of 1, 2 or 4 bytes, sign extended, and back. */
KERNEL_FN int32_t quad_lane(const struct quad *q, const int bits, const int k)
{
    if (bits == 32) return (int32_t)q->w[k];
    return (int32_t)(q->w[k * bits / 32] << (32 - bits - k * bits % 32)) >> (32 - bits);
}
KERNEL_FN void quad_set_lane(struct quad *q, const int bits, const int k, uint32_t v)
{
    if (bits == 32) {
        q->w[k] = v;
        return;
    }
    const uint32_t mask = (1u << (bits & 31)) - 1u;
    const int shift = k * bits % 32;
    q->w[k * bits / 32] = (q->w[k * bits / 32] & ~(mask << shift)) | (v & mask) << shift;
}

/* ---- the stages ------------------------------------------------------------------------------------------------------ */

KERNEL_FN void quad_sort(const uint32_t type, const uint32_t op, struct quad *q, const int undo)
{
    const int bits = 8 * (int)number_bytes(type);
    KERNEL_UNROLL for (int k = 0; k < elements_of(type); k++) {
        if (bits == 64) {
            const int64_t most = 0x7fffffffffffffff;
            int64_t v = (int64_t)quad_long(q, k);
            v = undo ? sort_undo_int64_t(type, op, v, most) : sort_key_int64_t(type, op, v, most);
            quad_set_long(q, k, (uint64_t)v);
        } else {
            const int32_t most = (int32_t)(0x7fffffffu >> (32 - bits));
            int32_t v = quad_lane(q, bits, k);
            v = undo ? sort_undo_int32_t(type, op, v, most) : sort_key_int32_t(type, op, v, most);
            quad_set_lane(q, bits, k, (uint32_t)v);
        }
    }
}

KERNEL_FN void part_widen(const uint32_t type, const int sorting, const uint32_t op, const struct quad *q,
                          struct combine_part *part)
{
    if (in_floats(type, sorting)) {
        KERNEL_UNROLL for (int k = 0; k < elements_of(type); k++) part->f[k] = small_widen(type, q, k);
        return;
    }
    part->q = *q;
    if (sorting && number_is_float(type)) quad_sort(type, op, &part->q, 0);
}

KERNEL_FN void part_narrow(const uint32_t type, const int sorting, const uint32_t op, struct combine_part *part, struct quad *q)
{
    const int bits = 8 * (int)number_bytes(type);
    if (in_floats(type, sorting)) {
        struct quad made = {{0, 0, 0, 0}};
        KERNEL_UNROLL for (int k = 0; k < elements_of(type); k++)
            made.w[k * bits / 32] |= small_narrow(type, part->f[k]) << k * bits % 32;
        *q = made;
        return;
    }
    *q = part->q;
    if (!number_is_float(type)) return;
    if (sorting) {
        quad_sort(type, op, q, 1);
        return;
    }
    KERNEL_UNROLL for (int k = 0; k < elements_of(type); k++) {
        if (type == RAIL_F32 && (q->w[k] & 0x7fffffff) > 0x7f800000) q->w[k] = 0x7fc00000;
        if (type == RAIL_F64 && (quad_long(q, k) & 0x7fffffffffffffffull) > 0x7ff0000000000000ull)
            quad_set_long(q, k, 0x7ff8000000000000ull);
    }
}

KERNEL_FN uint64_t picked(int is_signed, uint32_t op, uint64_t a, uint64_t b)
{
    int less = is_signed ? (int64_t)a < (int64_t)b : a < b;
    return (op == RAIL_MIN) == less ? a : b;
}

/* a is the combination so far, b the next source. Integers wrap; sorting compares as is_signed says. */
KERNEL_FN void quad_apply(const uint32_t type, const int sorting, uint32_t op, int is_signed, struct quad *a,
                          const struct quad *b)
{
    const int bits = 8 * (int)number_bytes(type);
    KERNEL_UNROLL for (int k = 0; k < elements_of(type); k++) {
        if (type == RAIL_F32 && !sorting) {
            float x = float_of(a->w[k]), y = float_of(b->w[k]);
            a->w[k] = bits_of(op == RAIL_SUM ? x + y : x * y);
        } else if (type == RAIL_F64 && !sorting) {
            double x = double_of(quad_long(a, k)), y = double_of(quad_long(b, k));
            quad_set_long(a, k, bits_of_double(op == RAIL_SUM ? x + y : x * y));
        } else if (bits == 64) {
            uint64_t x = quad_long(a, k), y = quad_long(b, k);
            quad_set_long(a, k, sorting ? picked(is_signed, op, x, y) : op == RAIL_SUM ? x + y : x * y);
        } else {
            uint32_t x = (uint32_t)quad_lane(a, bits, k), y = (uint32_t)quad_lane(b, bits, k), v;
            /* Sign extended alike, two lanes compare as unsigned numbers just as they do without. */
            int less = is_signed ? (int32_t)x < (int32_t)y : x < y;
            if (sorting) v = (op == RAIL_MIN) == less ? x : y;
            else v = op == RAIL_SUM ? x + y : x * y;
            quad_set_lane(a, bits, k, v);
        }
    }
}

KERNEL_FN void part_apply(const uint32_t type, const int sorting, uint32_t op, int is_signed, struct combine_part *a,
                          const struct combine_part *b)
{
    if (!in_floats(type, sorting)) {
        quad_apply(type, sorting, op, is_signed, &a->q, &b->q);
        return;
    }
    KERNEL_UNROLL for (int k = 0; k < elements_of(type); k++)
        a->f[k] = op == RAIL_SUM ? a->f[k] + b->f[k] : a->f[k] * b->f[k];
}

/* Elements times the scalar, rounded to the element type. */
KERNEL_FN void quad_scale(const uint32_t type, uint64_t scale, struct quad *q)
{
    const int bits = 8 * (int)number_bytes(type);
    struct quad factor;
    struct combine_part a, b;
    KERNEL_UNROLL for (int k = 0; k < elements_of(type); k++) {
        if (bits == 64) quad_set_long(&factor, k, scale);
        else if (bits == 32) factor.w[k] = (uint32_t)scale;
        else if (bits == 16) factor.w[k / 2] = ((uint32_t)scale & 0xffff) * 0x10001u;
        else factor.w[k / 4] = ((uint32_t)scale & 0xff) * 0x1010101u;
    }
    part_widen(type, 0, RAIL_PROD, q, &a);
    part_widen(type, 0, RAIL_PROD, &factor, &b);
    part_apply(type, 0, RAIL_PROD, 0, &a, &b);
    part_narrow(type, 0, RAIL_PROD, &a, q);
}

KERNEL_FN void quad_divide(const uint32_t type, int is_signed, uint64_t by, struct quad *q)
{
    const int bits = 8 * (int)number_bytes(type);
    KERNEL_UNROLL for (int k = 0; k < elements_of(type); k++) {
        if (bits == 64) {
            uint64_t v = quad_long(q, k);
            quad_set_long(q, k, is_signed ? (uint64_t)divided_signed((int64_t)v, by) : v / by);
        } else {
            uint32_t v = (uint32_t)quad_lane(q, bits, k);
            if (!is_signed) v &= 0xffffffffu >> (32 - bits);
            quad_set_lane(q, bits, k, divided_short(is_signed, v, by));
        }
    }
}

/* ---- four quads per thread, from left to right ------------------------------------------------------------------------ */

KERNEL_FN void group_combine(const uint32_t type, const int sorting, const int n, const struct combine_job *job, uint64_t at,
                             uint64_t stride)
{
    const int is_signed = number_is_float(type) || number_is_signed(job->type);
    struct quad raw[4];
    struct combine_part sum[4], next;
    uint32_t s = 0;
    KERNEL_NO_UNROLL do {
        quads_load(job->src[s] + at, stride, raw, n);
        if (job->scale_mask >> s & 1) KERNEL_UNROLL for (int u = 0; u < n; u++) quad_scale(type, job->scale, &raw[u]);
        KERNEL_UNROLL for (int u = 0; u < n; u++) {
            part_widen(type, sorting, job->op, &raw[u], &next);
            if (s == 0) sum[u] = next;
            else part_apply(type, sorting, job->op, is_signed, &sum[u], &next);
        }
    } while (++s < job->n_src);
    KERNEL_UNROLL for (int u = 0; u < n; u++) part_narrow(type, sorting, job->op, &sum[u], &raw[u]);
    KERNEL_NO_UNROLL for (uint32_t d = 0; d < job->n_dst; d++) quads_store(job->dst[d] + at, stride, raw, n);
}

/* ---- one quad, whole or not, in either order --------------------------------------------------------------------------- */

enum { TREE_LEVELS = 7 }; /* of 64 sources, and of none */

/* Values of a tree's nodes whose sibling is still to come, one per level. A level is picked by comparing, not by an index:
 * the stack stays in registers. */
struct tree {
    struct quad node[TREE_LEVELS];
};

KERNEL_FN struct quad tree_get(const struct tree *t, uint32_t level)
{
    struct quad q = t->node[0];
    KERNEL_UNROLL for (uint32_t l = 1; l < TREE_LEVELS; l++)
        if (l == level) q = t->node[l];
    return q;
}
KERNEL_FN void tree_set(struct tree *t, uint32_t level, struct quad q)
{
    KERNEL_UNROLL for (uint32_t l = 0; l < TREE_LEVELS; l++)
        if (l == level) t->node[l] = q;
}

KERNEL_FN struct quad source_load(const uint32_t type, const struct combine_job *job, uint32_t s, uint64_t at, uint32_t bytes)
{
    struct quad q = part_load(job->src[s] + at, bytes);
    if (job->scale_mask >> s & 1) quad_scale(type, job->scale, &q);
    return q;
}

/* Sources are counted in binary: bit l of their number is a tree of 2^l of them, and adding one carries. What is left is
 * joined from the smallest up, which is the split at the largest power of two below the number:
 *
 *     7 sources   ((0 1) (2 3)) ((4 5) 6)      4 + 2 + 1 */
KERNEL_FN struct quad quad_balanced(const uint32_t type, const int sorting, const struct combine_job *job, uint64_t at,
                                    uint32_t bytes)
{
    const int is_signed = number_is_float(type) || number_is_signed(job->type);
    struct tree tree = {{{{0, 0, 0, 0}}}};
    struct quad q = {{0, 0, 0, 0}};
    KERNEL_NO_UNROLL for (uint32_t s = 0; s < job->n_src; s++) {
        uint32_t n = s + 1, level = 0;
        q = source_load(type, job, s, at, bytes);
        KERNEL_NO_UNROLL for (uint32_t l = 0; l < TREE_LEVELS; l++) {
            int carries = (s & ((2u << l) - 1)) == (2u << l) - 1;
            int joins = n == job->n_src && !carries && (n & ((1u << l) - 1)) && (n >> l & 1);
            if (carries) level = l + 1;
            if (!carries && !joins) continue;
            struct quad before = tree_get(&tree, l);
            struct combine_part a, b;
            part_widen(type, sorting, job->op, &before, &a);
            part_widen(type, sorting, job->op, &q, &b);
            part_apply(type, sorting, job->op, is_signed, &a, &b);
            part_narrow(type, sorting, job->op, &a, &q);
        }
        tree_set(&tree, level, q);
    }
    return q;
}

KERNEL_FN struct quad quad_left_to_right(const uint32_t type, const int sorting, const struct combine_job *job, uint64_t at,
                                         uint32_t bytes)
{
    const int is_signed = number_is_float(type) || number_is_signed(job->type);
    struct combine_part sum, next;
    struct quad q;
    uint32_t s = 0;
    KERNEL_NO_UNROLL do {
        q = source_load(type, job, s, at, bytes);
        part_widen(type, sorting, job->op, &q, &next);
        if (s == 0) sum = next;
        else part_apply(type, sorting, job->op, is_signed, &sum, &next);
    } while (++s < job->n_src);
    part_narrow(type, sorting, job->op, &sum, &q);
    return q;
}

KERNEL_FN void unit_combine(const uint32_t type, const int sorting, const struct combine_job *job, uint64_t at, uint32_t bytes)
{
    struct quad q = job->balanced && job->n_src > 2 ? quad_balanced(type, sorting, job, at, bytes)
                                                    : quad_left_to_right(type, sorting, job, at, bytes);
    if (!number_is_float(type) && job->divide) quad_divide(type, number_is_signed(job->type), job->divide, &q);
    KERNEL_NO_UNROLL for (uint32_t d = 0; d < job->n_dst; d++) part_store(job->dst[d] + at, q, bytes);
}

/* ---- all of it --------------------------------------------------------------------------------------------------------- */

struct combine_cut {
    uint32_t head, tail; /* bytes before and after the quads */
    uint64_t quads;
};

/* A head is whole elements: a destination that is not even aligned to its elements has none, and narrow accesses. */
KERNEL_FN struct combine_cut combine_cut(const struct combine_job *job, uint32_t element)
{
    struct combine_cut cut;
    uint32_t off = (uint32_t)(uintptr_t)job->dst[0] & (QUAD_BYTES - 1);
    cut.head = off % element ? 0 : (QUAD_BYTES - off) & (QUAD_BYTES - 1);
    if (cut.head > job->bytes) cut.head = (uint32_t)job->bytes;
    cut.quads = (job->bytes - cut.head) / QUAD_BYTES;
    cut.tail = (uint32_t)((job->bytes - cut.head) % QUAD_BYTES);
    return cut;
}

/* All accesses of four quads at a time can be of 4 bytes at least. */
KERNEL_FN int groups_fit(const struct combine_job *job, uint32_t head)
{
    uint32_t low = 0;
    KERNEL_NO_UNROLL for (uint32_t s = 0; s < job->n_src; s++) low |= (uint32_t)(uintptr_t)job->src[s] + head;
    KERNEL_NO_UNROLL for (uint32_t d = 0; d < job->n_dst; d++) low |= (uint32_t)(uintptr_t)job->dst[d] + head;
    return (low & 3) == 0;
}

/* 8-bit floats have 16 parts a quad: two quads at a time fill the registers as four do of others. */
KERNEL_FN int group_of(const uint32_t type, const int sorting)
{
    return in_floats(type, sorting) && number_bytes(type) == 1 ? 2 : 4;
}

KERNEL_FN void combine_typed(const uint32_t type, const int sorting, const struct combine_job *job, uint32_t thread,
                             uint32_t n_threads)
{
    const int n = group_of(type, sorting);
    const struct combine_cut cut = combine_cut(job, number_bytes(type));
    const uint64_t together = (uint64_t)n_threads * (uint64_t)n;
    uint64_t done = 0;
    if (!(job->balanced && job->n_src > 2) && !job->divide && groups_fit(job, cut.head))
        KERNEL_NO_UNROLL for (; cut.quads - done >= together; done += together)
            group_combine(type, sorting, n, job, cut.head + QUAD_BYTES * (done + thread), (uint64_t)QUAD_BYTES * n_threads);
    KERNEL_NO_UNROLL for (uint64_t u = done + thread; u < cut.quads + 2; u += n_threads) {
        uint64_t at = u <= cut.quads ? 0 : cut.head + QUAD_BYTES * cut.quads;
        uint32_t bytes = u == cut.quads ? cut.head : cut.tail;
        if (u < cut.quads) at = cut.head + QUAD_BYTES * u, bytes = QUAD_BYTES;
        if (bytes) unit_combine(type, sorting, job, at, bytes);
    }
}

/* One source as it is: bytes, whatever they mean. */
KERNEL_FN void combine_copy(const struct combine_job *job, uint32_t thread, uint32_t n_threads)
{
    const struct combine_cut cut = combine_cut(job, 1);
    const uint64_t together = (uint64_t)n_threads * 4, stride = (uint64_t)QUAD_BYTES * n_threads;
    uint64_t done = 0;
    struct quad q[4];
    if (groups_fit(job, cut.head)) KERNEL_NO_UNROLL for (; cut.quads - done >= together; done += together) {
        uint64_t at = cut.head + QUAD_BYTES * (done + thread);
        quads_load(job->src[0] + at, stride, q, 4);
        KERNEL_NO_UNROLL for (uint32_t d = 0; d < job->n_dst; d++) quads_store(job->dst[d] + at, stride, q, 4);
    }
    KERNEL_NO_UNROLL for (uint64_t u = done + thread; u < cut.quads + 2; u += n_threads) {
        uint64_t at = u <= cut.quads ? 0 : cut.head + QUAD_BYTES * cut.quads;
        uint32_t bytes = u == cut.quads ? cut.head : cut.tail;
        if (u < cut.quads) at = cut.head + QUAD_BYTES * u, bytes = QUAD_BYTES;
        if (!bytes) continue;
        q[0] = part_load(job->src[0] + at, bytes);
        KERNEL_NO_UNROLL for (uint32_t d = 0; d < job->n_dst; d++) part_store(job->dst[d] + at, q[0], bytes);
    }
}

KERNEL_FN int combine_copies(const struct combine_job *job) { return job->n_src == 1 && !(job->scale_mask & 1) && !job->divide; }

/* dst[j][k] = combine(src[0][k], src[1][k], ...), by threads 0 .. n_threads - 1, all of which call it with the same job.
 * 1 <= n_src, n_dst <= RAIL_COMBINE_MAX; any alignment; a destination equals a source's address or overlaps none. */
KERNEL_FN void combine(const struct combine_job *job, uint32_t thread, uint32_t n_threads)
{
    const int sorting = job->op == RAIL_MAX || job->op == RAIL_MIN;
#define COMBINE_FLOATS(type)                                                                                           \
    case type:                                                                                                         \
        if (sorting) combine_typed(type, 1, job, thread, n_threads);                                                   \
        else combine_typed(type, 0, job, thread, n_threads);                                                           \
        return
#define COMBINE_INTEGERS(signed_, unsigned_)                                                                           \
    case signed_:                                                                                                      \
    case unsigned_:                                                                                                    \
        if (sorting) combine_typed(unsigned_, 1, job, thread, n_threads);                                              \
        else combine_typed(unsigned_, 0, job, thread, n_threads);                                                      \
        return
    if (combine_copies(job)) {
        combine_copy(job, thread, n_threads);
        return;
    }
    switch (job->type) {
        COMBINE_INTEGERS(RAIL_I8, RAIL_U8);
        COMBINE_INTEGERS(RAIL_I32, RAIL_U32);
        COMBINE_INTEGERS(RAIL_I64, RAIL_U64);
        COMBINE_FLOATS(RAIL_F16);
        COMBINE_FLOATS(RAIL_F32);
        COMBINE_FLOATS(RAIL_F64);
        COMBINE_FLOATS(RAIL_BF16);
        COMBINE_FLOATS(RAIL_F8E4M3);
        COMBINE_FLOATS(RAIL_F8E5M2);
    default: return;
    }
#undef COMBINE_FLOATS
#undef COMBINE_INTEGERS
}

#endif
