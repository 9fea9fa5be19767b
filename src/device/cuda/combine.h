/* combine.h - n sources combined into m destinations by all threads of a block: rail_combine of device/host.h, the same
 * bits, in a kernel.
 *
 *     [head | quad | quad | quad | ... | tail]     cut where the first destination has multiples of 16 bytes
 *            \____ four per thread ____/           while there are that many for all threads
 *
 * The rest, and what quads are not made for (a balanced order, division, addresses that are not multiples of 4, scaled
 * 8-bit types), goes word by word, a word per thread: a fourth of the code, which matters where every type and operator
 * has its own.
 *
 * Every thread loads what it works on of all sources before it stores any, so a destination may be one of the sources. The
 * life of a quad or word is that of a vector in host_kernels.h: scaled, widened, combined, narrowed, divided.
 *
 * The type is a constant in what is below `combine`, and so are sorting (minimum or maximum) and the number of words; the
 * operator is not: a branch that all threads take alike costs less than twice the code. Plain C subset of CUDA. */
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

/* What is combined: the first words of a quad themselves, or their elements as floats. */
struct combine_part {
    struct quad q;
    float f[16];
};

/* Which of the two. */
KERNEL_FN int in_floats(const uint32_t type, const int sorting) { return number_is_small(type) && !sorting; }

/* Elements in so many words of a quad: 4, or as many as one element needs. */
KERNEL_FN int elements_of(const uint32_t type, const int words) { return 4 * words / (int)number_bytes(type); }
KERNEL_FN int words_of(const uint32_t type) { return number_bytes(type) == 8 ? 2 : 1; }

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

KERNEL_FN void quad_sort(const uint32_t type, const int words, const uint32_t op, struct quad *q, const int undo)
{
    const int bits = 8 * (int)number_bytes(type);
    KERNEL_UNROLL for (int k = 0; k < elements_of(type, words); k++) {
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

KERNEL_FN void part_widen(const uint32_t type, const int words, const int sorting, const uint32_t op, const struct quad *q,
                          struct combine_part *part)
{
    if (in_floats(type, sorting)) {
        KERNEL_UNROLL for (int k = 0; k < elements_of(type, words); k++) part->f[k] = small_widen(type, q, k);
        return;
    }
    part->q = *q;
    if (sorting && number_is_float(type)) quad_sort(type, words, op, &part->q, 0);
}

KERNEL_FN void part_narrow(const uint32_t type, const int words, const int sorting, const uint32_t op, struct combine_part *part, struct quad *q)
{
    const int bits = 8 * (int)number_bytes(type);
    if (in_floats(type, sorting)) {
        struct quad made = {{0, 0, 0, 0}};
        KERNEL_UNROLL for (int k = 0; k < elements_of(type, words); k++)
            made.w[k * bits / 32] |= small_narrow(type, part->f[k]) << k * bits % 32;
        *q = made;
        return;
    }
    *q = part->q;
    if (!number_is_float(type)) return;
    if (sorting) {
        quad_sort(type, words, op, q, 1);
        return;
    }
    KERNEL_UNROLL for (int k = 0; k < elements_of(type, words); k++) {
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
KERNEL_FN void quad_apply(const uint32_t type, const int words, const int sorting, uint32_t op, int is_signed, struct quad *a,
                          const struct quad *b)
{
    const int bits = 8 * (int)number_bytes(type);
    KERNEL_UNROLL for (int k = 0; k < elements_of(type, words); k++) {
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

KERNEL_FN void part_apply(const uint32_t type, const int words, const int sorting, uint32_t op, int is_signed, struct combine_part *a,
                          const struct combine_part *b)
{
    if (!in_floats(type, sorting)) {
        quad_apply(type, words, sorting, op, is_signed, &a->q, &b->q);
        return;
    }
    KERNEL_UNROLL for (int k = 0; k < elements_of(type, words); k++)
        a->f[k] = op == RAIL_SUM ? a->f[k] + b->f[k] : a->f[k] * b->f[k];
}

/* Elements times the scalar, rounded to the element type. */
KERNEL_FN void quad_scale(const uint32_t type, const int words, uint64_t scale, struct quad *q)
{
    const int bits = 8 * (int)number_bytes(type);
    struct quad factor;
    struct combine_part a, b;
    KERNEL_UNROLL for (int k = 0; k < elements_of(type, words); k++) {
        if (bits == 64) quad_set_long(&factor, k, scale);
        else if (bits == 32) factor.w[k] = (uint32_t)scale;
        else if (bits == 16) factor.w[k / 2] = ((uint32_t)scale & 0xffff) * 0x10001u;
        else factor.w[k / 4] = ((uint32_t)scale & 0xff) * 0x1010101u;
    }
    part_widen(type, words, 0, RAIL_PROD, q, &a);
    part_widen(type, words, 0, RAIL_PROD, &factor, &b);
    part_apply(type, words, 0, RAIL_PROD, 0, &a, &b);
    part_narrow(type, words, 0, RAIL_PROD, &a, q);
}

KERNEL_FN void quad_divide(const uint32_t type, const int words, int is_signed, uint64_t by, struct quad *q)
{
    const int bits = 8 * (int)number_bytes(type);
    KERNEL_UNROLL for (int k = 0; k < elements_of(type, words); k++) {
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

/* ---- quads, four per thread, from left to right ------------------------------------------------------------------- */

KERNEL_FN void group_combine(const uint32_t type, const int sorting, const int n, const struct combine_job *job,
                             uint64_t at, uint64_t stride)
{
    const int words = 4, is_signed = number_is_float(type) || number_is_signed(job->type);
    const struct quad none = {{0, 0, 0, 0}};
    struct quad raw[4];
    struct combine_part sum[4], next;
    uint32_t s = 0;
    /* Source 0 replaces it. Left without a value, the sum would hold its registers from the kernel's beginning on, in
     * every branch its own: that spills (960 bytes of stack on sm_90). */
    KERNEL_UNROLL for (int u = 0; u < n; u++) part_widen(type, words, sorting, job->op, &none, &sum[u]);
    KERNEL_NO_UNROLL do {
        quads_load(job->src[s] + at, stride, raw, n);
        if (!(number_bytes(type) == 1 && number_is_float(type)) && job->scale_mask >> s & 1)
            KERNEL_UNROLL for (int u = 0; u < n; u++) quad_scale(type, words, job->scale, &raw[u]);
        KERNEL_UNROLL for (int u = 0; u < n; u++) {
            part_widen(type, words, sorting, job->op, &raw[u], &next);
            if (s == 0) sum[u] = next;
            else part_apply(type, words, sorting, job->op, is_signed, &sum[u], &next);
        }
    } while (++s < job->n_src);
    KERNEL_UNROLL for (int u = 0; u < n; u++) part_narrow(type, words, sorting, job->op, &sum[u], &raw[u]);
    KERNEL_NO_UNROLL for (uint32_t d = 0; d < job->n_dst; d++) quads_store(job->dst[d] + at, stride, raw, n);
}

/* ---- a word, whole or not, in either order ------------------------------------------------------------------------- */

enum { TREE_LEVELS = 7 }; /* of 64 sources, and of none */

/* Values of a tree's nodes whose sibling is still to come, one per level. A level is picked by masks, not by an index: the
 * stack stays in registers. */
struct tree {
    uint64_t node[TREE_LEVELS];
};

KERNEL_FN struct quad tree_get(const struct tree *t, uint32_t level)
{
    struct quad q = {{0, 0, 0, 0}};
    uint64_t v = 0;
    KERNEL_UNROLL for (uint32_t l = 0; l < TREE_LEVELS; l++) v |= t->node[l] & (0 - (uint64_t)(l == level));
    quad_set_long(&q, 0, v);
    return q;
}
KERNEL_FN void tree_set(struct tree *t, uint32_t level, struct quad q)
{
    KERNEL_UNROLL for (uint32_t l = 0; l < TREE_LEVELS; l++) {
        const uint64_t mask = 0 - (uint64_t)(l == level);
        t->node[l] = (t->node[l] & ~mask) | (quad_long(&q, 0) & mask);
    }
}

/* How sources are combined: at each one which levels of the tree it completes. Sources are counted in binary: bit l of
 * their number is a tree of 2^l of them, and adding one carries. What is left is joined from the smallest up, which is the
 * split at the largest power of two below the number:
 *
 *     7 sources   ((0 1) (2 3)) ((4 5) 6)      4 + 2 + 1
 *
 * Source s meets what waits at `level`: 0 = the level is passed by, 1 = it meets it. */
KERNEL_FN int tree_meets(uint32_t s, uint32_t n, uint32_t level)
{
    uint32_t below = (1u << level) - 1;
    if ((s & (2 * below + 1)) == 2 * below + 1) return 1;                 /* carries */
    return s + 1 == n && (n & below) != 0 && (n >> level & 1);            /* the last one: joins */
}

/* Where it waits then, if it is not the last: above its trailing ones. */
KERNEL_FN uint32_t tree_level(uint32_t s)
{
    uint32_t level = 0;
    KERNEL_NO_UNROLL while (s >> level & 1) level++;
    return level;
}

KERNEL_FN struct quad word_combine(const uint32_t type, const int sorting, const struct combine_job *job, uint64_t at,
                                   uint32_t bytes)
{
    const int words = words_of(type), is_signed = number_is_float(type) || number_is_signed(job->type);
    const uint32_t levels = job->balanced && job->n_src > 2 ? TREE_LEVELS : 1;
    struct tree tree = {{0, 0, 0, 0, 0, 0, 0}};
    struct combine_part sum = {{{0, 0, 0, 0}}, {0}}, next; /* as group_combine says */
    struct quad q = {{0, 0, 0, 0}};
    uint32_t s = 0;
    KERNEL_NO_UNROLL do {
        q = word_load(job->src[s] + at, words, bytes);
        if (job->scale_mask >> s & 1) quad_scale(type, words, job->scale, &q);
        part_widen(type, words, sorting, job->op, &q, &next);
        KERNEL_NO_UNROLL for (uint32_t l = 0; l < levels; l++) {
            if (levels > 1) {
                if (!tree_meets(s, job->n_src, l)) continue;
                struct quad waits = tree_get(&tree, l);
                part_widen(type, words, sorting, job->op, &waits, &sum);
            } else if (s == 0) {
                sum = next;
                continue;
            }
            part_apply(type, words, sorting, job->op, is_signed, &sum, &next);
            if (levels == 1) continue;
            part_narrow(type, words, sorting, job->op, &sum, &q);
            part_widen(type, words, sorting, job->op, &q, &next);
        }
        if (levels > 1) tree_set(&tree, tree_level(s), q), sum = next;
    } while (++s < job->n_src);
    part_narrow(type, words, sorting, job->op, &sum, &q);
    return q;
}

/* Bytes from .. to of all, a word per thread at a time. */
KERNEL_FN void words_combine(const uint32_t type, const int sorting, const struct combine_job *job, uint64_t from, uint64_t to,
                             uint32_t thread, uint32_t n_threads)
{
    const int words = words_of(type);
    const uint32_t whole = 4 * (uint32_t)words;
    KERNEL_NO_UNROLL for (uint64_t at = from + (uint64_t)whole * thread; at < to; at += (uint64_t)whole * n_threads) {
        uint32_t bytes = to - at < whole ? (uint32_t)(to - at) : whole;
        struct quad q = word_combine(type, sorting, job, at, bytes);
        if (!number_is_float(type) && job->divide) quad_divide(type, words, number_is_signed(job->type), job->divide, &q);
        KERNEL_NO_UNROLL for (uint32_t d = 0; d < job->n_dst; d++) word_store(job->dst[d] + at, q, words, bytes);
    }
}

/* ---- all of it ------------------------------------------------------------------------------------------------------ */

/* Bytes before the first quad: whole elements, or none where the destination is not even aligned to those. */
KERNEL_FN uint64_t head_of(const struct combine_job *job, uint32_t element)
{
    uint32_t off = (uint32_t)(uintptr_t)job->dst[0] & (QUAD_BYTES - 1);
    uint64_t head = off % element ? 0 : (QUAD_BYTES - off) & (QUAD_BYTES - 1);
    return head < job->bytes ? head : job->bytes;
}

/* From there on all addresses are multiples of 4. */
KERNEL_FN int quads_fit(const struct combine_job *job, uint64_t head)
{
    uint32_t low = 0;
    KERNEL_NO_UNROLL for (uint32_t s = 0; s < job->n_src; s++) low |= (uint32_t)(uintptr_t)job->src[s] + (uint32_t)head;
    KERNEL_NO_UNROLL for (uint32_t d = 0; d < job->n_dst; d++) low |= (uint32_t)(uintptr_t)job->dst[d] + (uint32_t)head;
    return (low & 3) == 0;
}

/* Quads that a thread has in flight. Four of 512 threads are 32 KiB of each source, more than the way to memory holds for
 * one multiprocessor; where elements are many and take many instructions each, one: code and registers are what is scarce
 * then, not bytes in flight. */
KERNEL_FN int group_of(const uint32_t type, const int sorting)
{
    if (number_bytes(type) == 1) return number_is_float(type) ? 1 : sorting ? 2 : 4;
    return sorting && number_is_small(type) ? 1 : 4;
}

KERNEL_FN int in_quads(const uint32_t type, const struct combine_job *job)
{
    if ((job->balanced && job->n_src > 2) || job->divide) return 0;
    return !(number_bytes(type) == 1 && job->scale_mask);
}

KERNEL_FN void combine_as(const uint32_t type, const int sorting, const struct combine_job *job, uint32_t thread,
                             uint32_t n_threads)
{
    const uint64_t stride = (uint64_t)QUAD_BYTES * n_threads, together = stride * (uint64_t)group_of(type, sorting);
    const uint64_t head = head_of(job, number_bytes(type));
    uint64_t at = head;
    if (in_quads(type, job) && quads_fit(job, head))
        KERNEL_NO_UNROLL for (; job->bytes - at >= together; at += together)
            group_combine(type, sorting, group_of(type, sorting), job, at + QUAD_BYTES * thread, stride);
    uint64_t from = at == head ? 0 : at; /* no quads: no head of its own */
    KERNEL_NO_UNROLL for (int rest = at != head && head; rest >= 0; rest--) {
        words_combine(type, sorting, job, rest ? 0 : from, rest ? head : job->bytes, thread, n_threads);
    }
}

/* One source as it is: bytes, whatever they mean. */
KERNEL_FN void combine_copy(const struct combine_job *job, uint32_t thread, uint32_t n_threads)
{
    const uint64_t stride = (uint64_t)QUAD_BYTES * n_threads, head = head_of(job, 1);
    struct quad q[4];
    uint64_t at = head;
    if (quads_fit(job, head))
        KERNEL_NO_UNROLL for (; job->bytes - at >= 4 * stride; at += 4 * stride) {
            uint64_t mine = at + QUAD_BYTES * thread;
            quads_load(job->src[0] + mine, stride, q, 4);
            KERNEL_NO_UNROLL for (uint32_t d = 0; d < job->n_dst; d++) quads_store(job->dst[d] + mine, stride, q, 4);
        }
    if (at == head) at = 0;
    KERNEL_NO_UNROLL for (int rest = at && head; rest >= 0; rest--) {
        uint64_t to = rest ? head : job->bytes;
        KERNEL_NO_UNROLL for (uint64_t k = (rest ? 0 : at) + 4 * thread; k < to; k += 4 * (uint64_t)n_threads) {
            uint32_t bytes = to - k < 4 ? (uint32_t)(to - k) : 4;
            q[0] = word_load(job->src[0] + k, 1, bytes);
            KERNEL_NO_UNROLL for (uint32_t d = 0; d < job->n_dst; d++) word_store(job->dst[d] + k, q[0], 1, bytes);
        }
    }
}

KERNEL_FN int combine_copies(const struct combine_job *job)
{
    return job->n_src == 1 && !(job->scale_mask & 1) && !job->divide;
}

#define DEFINE_COMBINE(type)                                                                                           \
    KERNEL_BRANCH void combine_sum_##type(const struct combine_job *job, uint32_t thread, uint32_t n_threads)          \
    {                                                                                                                  \
        KERNEL_APART(job);                                                                                             \
        combine_as(RAIL_##type, 0, job, thread, n_threads);                                                            \
    }                                                                                                                  \
    KERNEL_BRANCH void combine_sorting_##type(const struct combine_job *job, uint32_t thread, uint32_t n_threads)      \
    {                                                                                                                  \
        KERNEL_APART(job);                                                                                             \
        combine_as(RAIL_##type, 1, job, thread, n_threads);                                                            \
    }
DEFINE_COMBINE(U8)
DEFINE_COMBINE(U32)
DEFINE_COMBINE(U64)
DEFINE_COMBINE(F16)
DEFINE_COMBINE(F32)
DEFINE_COMBINE(F64)
DEFINE_COMBINE(BF16)
DEFINE_COMBINE(F8E4M3)
DEFINE_COMBINE(F8E5M2)
#undef DEFINE_COMBINE

/* dst[j][k] = combine(src[0][k], src[1][k], ...), by threads 0 .. n_threads - 1, all of which call it with the same job.
 * 1 <= n_src, n_dst <= RAIL_COMBINE_MAX; any alignment; a destination equals a source's address or overlaps none. */
KERNEL_FN void combine(const struct combine_job *job, uint32_t thread, uint32_t n_threads)
{
    const int sorting = job->op == RAIL_MAX || job->op == RAIL_MIN;
#define COMBINE_TYPE(type)                                                                                             \
    if (sorting) combine_sorting_##type(job, thread, n_threads);                                                       \
    else combine_sum_##type(job, thread, n_threads);                                                                   \
    return
    if (combine_copies(job)) {
        combine_copy(job, thread, n_threads);
        return;
    }
    switch (job->type) {
    case RAIL_I8: /* signed and unsigned differ in how they compare and divide, of which the job tells */
    case RAIL_U8: COMBINE_TYPE(U8);
    case RAIL_I32:
    case RAIL_U32: COMBINE_TYPE(U32);
    case RAIL_I64:
    case RAIL_U64: COMBINE_TYPE(U64);
    case RAIL_F16: COMBINE_TYPE(F16);
    case RAIL_F32: COMBINE_TYPE(F32);
    case RAIL_F64: COMBINE_TYPE(F64);
    case RAIL_BF16: COMBINE_TYPE(BF16);
    case RAIL_F8E4M3: COMBINE_TYPE(F8E4M3);
    case RAIL_F8E5M2: COMBINE_TYPE(F8E5M2);
    default: return;
    }
#undef COMBINE_TYPE
}

#endif
