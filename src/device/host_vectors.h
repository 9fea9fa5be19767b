/* host_vectors.h - vectors of PATH_VECTOR_BYTES in the compiler's own terms, and the few things those cannot say.
 *
 * Included by host_kernels.h. Every function here has the same result on every path; intrinsics only make it cheaper. */
#ifndef RAIL_DEVICE_HOST_VECTORS_H
#define RAIL_DEVICE_HOST_VECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define VECTOR(lane) lane __attribute__((vector_size(PATH_VECTOR_BYTES)))

enum { VECTOR_BYTES = PATH_VECTOR_BYTES };

typedef VECTOR(uint8_t) vu8;
typedef VECTOR(int8_t) vi8;
typedef VECTOR(uint16_t) vu16;
typedef VECTOR(int16_t) vi16;
typedef VECTOR(uint32_t) vu32;
typedef VECTOR(int32_t) vi32;
typedef VECTOR(uint64_t) vu64;
typedef VECTOR(int64_t) vi64;
typedef VECTOR(float) vf32;
typedef VECTOR(double) vf64;

/* A lane of `mask` is all ones or all zeros. */
INLINE vu32 lane_select(vu32 mask, vu32 yes, vu32 no)
{
#if PATH_VECTOR_BYTES == 32 && defined(__AVX2__)
    return (vu32)_mm256_blendv_epi8((__m256i)no, (__m256i)yes, (__m256i)mask);
#else
    return (mask & yes) | (~mask & no);
#endif
}

INLINE vu32 splat(uint32_t x) { return (vu32){0} + x; }

INLINE vu32 vector_load(const uint8_t *p)
{
    vu32 v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void vector_store(uint8_t *p, vu32 v) { memcpy(p, &v, sizeof v); }

/* Past the caches; p is a multiple of a vector. Not ordered with later stores before stream_fence(). */
INLINE void vector_stream(uint8_t *p, vu32 v)
{
#if PATH_VECTOR_BYTES == 64 && defined(__AVX512F__)
    _mm512_stream_si512((__m512i *)(void *)p, (__m512i)v);
#elif PATH_VECTOR_BYTES == 32 && defined(__AVX2__)
    _mm256_stream_si256((__m256i *)(void *)p, (__m256i)v);
#elif PATH_VECTOR_BYTES == 16 && defined(__SSE2__)
    _mm_stream_si128((__m128i *)(void *)p, (__m128i)v);
#else
    vector_store(p, v);
#endif
}

INLINE void stream_fence(void)
{
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

/* Copies fewer bytes than a vector by pieces that may overlap: cheaper than a call for a handful of bytes. */
static __attribute__((noinline)) void piece_copy(uint8_t *dst, const uint8_t *src, size_t bytes)
{
#if PATH_VECTOR_BYTES > 32
    if (bytes >= 32) {
        memcpy(dst, src, 32);
        uint8_t last[32];
        memcpy(last, src + bytes - 32, 32);
        memcpy(dst + bytes - 32, last, 32);
        return;
    }
#endif
    if (bytes >= 16) {
        uint8_t first[16], last[16];
        memcpy(first, src, 16);
        memcpy(last, src + bytes - 16, 16);
        memcpy(dst, first, 16);
        memcpy(dst + bytes - 16, last, 16);
    } else if (bytes >= 8) {
        uint64_t first, last;
        memcpy(&first, src, 8);
        memcpy(&last, src + bytes - 8, 8);
        memcpy(dst, &first, 8);
        memcpy(dst + bytes - 8, &last, 8);
    } else if (bytes >= 4) {
        uint32_t first, last;
        memcpy(&first, src, 4);
        memcpy(&last, src + bytes - 4, 4);
        memcpy(dst, &first, 4);
        memcpy(dst + bytes - 4, &last, 4);
    } else if (bytes > 0) {
        uint8_t first = src[0], middle = src[bytes / 2], last = src[bytes - 1];
        dst[0] = first;
        dst[bytes / 2] = middle;
        dst[bytes - 1] = last;
    }
}

/* `partial` > 0: only so many bytes are there; the other lanes are 0 and go nowhere. */
INLINE vu32 chunk_load(const uint8_t *p, size_t partial)
{
    if (partial == 0) return vector_load(p);
    uint8_t room[VECTOR_BYTES] = {0};
    piece_copy(room, p, partial);
    return vector_load(room);
}

INLINE void chunk_store(uint8_t *p, vu32 v, size_t partial)
{
    if (partial == 0) {
        vector_store(p, v);
        return;
    }
    uint8_t room[VECTOR_BYTES];
    vector_store(room, v);
    piece_copy(p, room, partial);
}

/* Whether a lane of a or b is NaN; "unordered" of two vectors tells for both at once. Without such an instruction the
 * answer is always yes: what follows repairs, and repairing nothing changes nothing. */
INLINE bool nan_in_32(vu32 a, vu32 b)
{
#if PATH_VECTOR_BYTES == 64 && defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_UNORD_Q) != 0;
#elif PATH_VECTOR_BYTES == 32 && defined(__AVX2__)
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_UNORD_Q)) != 0;
#elif PATH_VECTOR_BYTES == 16 && defined(__SSE2__)
    return _mm_movemask_ps(_mm_cmpunord_ps((__m128)a, (__m128)b)) != 0;
#else
    return (void)a, (void)b, true;
#endif
}

INLINE bool nan_in_64(vu32 a, vu32 b)
{
#if PATH_VECTOR_BYTES == 64 && defined(__AVX512F__)
    return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_UNORD_Q) != 0;
#elif PATH_VECTOR_BYTES == 32 && defined(__AVX2__)
    return _mm256_movemask_pd(_mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_UNORD_Q)) != 0;
#elif PATH_VECTOR_BYTES == 16 && defined(__SSE2__)
    return _mm_movemask_pd(_mm_cmpunord_pd((__m128d)a, (__m128d)b)) != 0;
#else
    return (void)a, (void)b, true;
#endif
}

/* Replaces NaNs by the canonical one in n vectors, n a constant. NaNs are rare: a test and a branch not taken cost less
 * than a choice in every lane. */
INLINE void nans_made_canonical_32(vu32 *f, const int n)
{
    bool found = false;
    for (int k = 0; k < n; k += 2) found |= nan_in_32(f[k], f[n > 1 ? k + 1 : k]);
    if (__builtin_expect(found, 0))
        for (int k = 0; k < n; k++) f[k] = lane_select((vu32)((vf32)f[k] == (vf32)f[k]), f[k], splat(0x7fc00000));
}

INLINE void nans_made_canonical_64(vu32 *f, const int n)
{
    const vu32 nan = (vu32)((vu64){0} + 0x7ff8000000000000);
    bool found = false;
    for (int k = 0; k < n; k += 2) found |= nan_in_64(f[k], f[n > 1 ? k + 1 : k]);
    if (__builtin_expect(found, 0))
        for (int k = 0; k < n; k++) f[k] = lane_select((vu32)((vf64)f[k] == (vf64)f[k]), f[k], nan);
}

#endif
