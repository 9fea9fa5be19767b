/* quad.h - 16 bytes of memory at a time: what each thread of a kernel loads, combines and stores.
 *
 * One access of 16 bytes where the address allows, else four, which a warp's neighbours complete to whole lines all the
 * same, else byte by byte. They are ordinary (weak) accesses: who needs an order says so
 * with engine/kernel_memory.h. Plain C subset of CUDA; also built for the host. */
#ifndef RAIL_DEVICE_CUDA_QUAD_H
#define RAIL_DEVICE_CUDA_QUAD_H

#include <stdint.h>

#if defined(__CUDA__) || defined(__CUDACC__)
#define KERNEL_CUDA 1
#define KERNEL_FN static inline __attribute__((device)) __attribute__((always_inline))
#define KERNEL_UNROLL _Pragma("unroll")
#define KERNEL_NO_UNROLL _Pragma("unroll 1")
#else
#define KERNEL_CUDA 0
#define KERNEL_FN static inline __attribute__((always_inline))
#define KERNEL_UNROLL
#define KERNEL_NO_UNROLL
#include <string.h>
#endif

/* One of many large branches, a function of its own: inlined, they make the compilers three times as slow, the driver's
 * too. A call costs little beside a MOVE. */
#if KERNEL_CUDA
#define KERNEL_BRANCH static __attribute__((device)) __attribute__((noinline))
#define KERNEL_APART(p) asm volatile("" : "+l"(p))
#else
#define KERNEL_BRANCH static __attribute__((noinline))
#define KERNEL_APART(p) (void)(p)
#endif

enum { QUAD_BYTES = 16 };

struct quad {
    uint32_t w[4];
};

#if KERNEL_CUDA
/* Memory that kernels are given is global: of this device, of a peer, or pinned memory of the host. Saying so spares the
 * hardware the look whether an address is shared or local. `volatile` keeps the order that the code has: all loads of a
 * group before its stores. */
#define QUAD_LOAD(type_, suffix, letter)                                                                               \
    KERNEL_FN type_ load_##suffix(const unsigned char *at)                                                             \
    {                                                                                                                  \
        type_ value;                                                                                                   \
        asm volatile("{ .reg .u64 g; cvta.to.global.u64 g, %1; ld.global." #suffix " %0, [g]; }"                       \
                     : "=" letter(value) : "l"(at));                                                                   \
        return value;                                                                                                  \
    }                                                                                                                  \
    KERNEL_FN void store_##suffix(unsigned char *at, type_ value)                                                      \
    {                                                                                                                  \
        asm volatile("{ .reg .u64 g; cvta.to.global.u64 g, %0; st.global." #suffix " [g], %1; }"                       \
                     ::"l"(at), letter(value) : "memory");                                                             \
    }
QUAD_LOAD(uint64_t, u64, "l")
QUAD_LOAD(uint32_t, u32, "r")
#undef QUAD_LOAD

/* A register of 8 bits is none that asm knows. */
KERNEL_FN uint32_t load_u8(const unsigned char *at)
{
    uint32_t value;
    asm volatile("{ .reg .u64 g; cvta.to.global.u64 g, %1; ld.global.u8 %0, [g]; }" : "=r"(value) : "l"(at));
    return value;
}
KERNEL_FN void store_u8(unsigned char *at, uint32_t value)
{
    asm volatile("{ .reg .u64 g; cvta.to.global.u64 g, %0; st.global.u8 [g], %1; }" ::"l"(at), "r"(value) : "memory");
}
KERNEL_FN struct quad load_whole(const unsigned char *at)
{
    struct quad q;
    asm volatile("{ .reg .u64 g; cvta.to.global.u64 g, %4; ld.global.v4.u32 {%0, %1, %2, %3}, [g]; }"
                 : "=r"(q.w[0]), "=r"(q.w[1]), "=r"(q.w[2]), "=r"(q.w[3]) : "l"(at));
    return q;
}
KERNEL_FN void store_whole(unsigned char *at, struct quad q)
{
    asm volatile("{ .reg .u64 g; cvta.to.global.u64 g, %0; st.global.v4.u32 [g], {%1, %2, %3, %4}; }"
                 ::"l"(at), "r"(q.w[0]), "r"(q.w[1]), "r"(q.w[2]), "r"(q.w[3]) : "memory");
}
#else
#define QUAD_LOAD(type_, suffix)                                                                                       \
    KERNEL_FN type_ load_##suffix(const unsigned char *at)                                                             \
    {                                                                                                                  \
        type_ value;                                                                                                   \
        memcpy(&value, at, sizeof value);                                                                              \
        return value;                                                                                                  \
    }                                                                                                                  \
    KERNEL_FN void store_##suffix(unsigned char *at, type_ value) { memcpy(at, &value, sizeof value); }
QUAD_LOAD(uint64_t, u64)
QUAD_LOAD(uint32_t, u32)
#undef QUAD_LOAD
KERNEL_FN uint32_t load_u8(const unsigned char *at) { return *at; }
KERNEL_FN void store_u8(unsigned char *at, uint32_t value) { *at = (unsigned char)value; }
KERNEL_FN struct quad load_whole(const unsigned char *at)
{
    struct quad q;
    memcpy(&q, at, sizeof q);
    return q;
}
KERNEL_FN void store_whole(unsigned char *at, struct quad q) { memcpy(at, &q, sizeof q); }
#endif

/* The widest access, in bytes, that an address allows: 16, 4 or 1. */
KERNEL_FN uint32_t quad_width(const unsigned char *at)
{
    uint32_t low = (uint32_t)(uintptr_t)at;
    return low & 3 ? 1 : low & 15 ? 4 : 16;
}

/* n quads, `stride` bytes apart, whose addresses are multiples of 4: n is a constant. */
KERNEL_FN void quads_load(const unsigned char *at, uint64_t stride, struct quad *q, const int n)
{
    if (quad_width(at) == QUAD_BYTES) {
        KERNEL_UNROLL for (int u = 0; u < n; u++) q[u] = load_whole(at + stride * (uint64_t)u);
    } else {
        KERNEL_UNROLL for (int u = 0; u < n; u++)
            KERNEL_UNROLL for (int k = 0; k < 4; k++) q[u].w[k] = load_u32(at + stride * (uint64_t)u + 4 * k);
    }
}

KERNEL_FN void quads_store(unsigned char *at, uint64_t stride, const struct quad *q, const int n)
{
    if (quad_width(at) == QUAD_BYTES) {
        KERNEL_UNROLL for (int u = 0; u < n; u++) store_whole(at + stride * (uint64_t)u, q[u]);
    } else {
        KERNEL_UNROLL for (int u = 0; u < n; u++)
            KERNEL_UNROLL for (int k = 0; k < 4; k++) store_u32(at + stride * (uint64_t)u + 4 * k, q[u].w[k]);
    }
}

/* A word of which only so many bytes are there; the others are 0 and go nowhere. */
KERNEL_FN uint32_t bytes_load(const unsigned char *at, uint32_t bytes)
{
    uint32_t w = 0;
    KERNEL_UNROLL for (uint32_t k = 0; k < 4; k++)
        if (k < bytes) w |= load_u8(at + k) << 8 * k;
    return w;
}
KERNEL_FN void bytes_store(unsigned char *at, uint32_t w, uint32_t bytes)
{
    KERNEL_UNROLL for (uint32_t k = 0; k < 4; k++)
        if (k < bytes) store_u8(at + k, w >> 8 * k & 0xff);
}

/* One word or two, of which `bytes` are there, at any address. */
KERNEL_FN struct quad word_load(const unsigned char *at, const int words, uint32_t bytes)
{
    struct quad q = {{0, 0, 0, 0}};
    if (bytes == 4 * (uint32_t)words && quad_width(at) > 1) {
        q.w[0] = load_u32(at);
        if (words == 2) q.w[1] = load_u32(at + 4);
    } else {
        q.w[0] = bytes_load(at, bytes);
        if (words == 2) q.w[1] = bytes_load(at + 4, bytes > 4 ? bytes - 4 : 0);
    }
    return q;
}

KERNEL_FN void word_store(unsigned char *at, struct quad q, const int words, uint32_t bytes)
{
    if (bytes == 4 * (uint32_t)words && quad_width(at) > 1) {
        store_u32(at, q.w[0]);
        if (words == 2) store_u32(at + 4, q.w[1]);
    } else {
        bytes_store(at, q.w[0], bytes);
        if (words == 2) bytes_store(at + 4, q.w[1], bytes > 4 ? bytes - 4 : 0);
    }
}

#endif
