/* host_paths.h - what the door (host.c) and the compiled paths (host_portable.c, host_avx2.c, host_avx512.c) share.
 *
 * A path is one compilation of host_kernels.h: a name and one kernel per element type and operator. */
#ifndef RAIL_DEVICE_HOST_PATHS_H
#define RAIL_DEVICE_HOST_PATHS_H

#include "device/host.h"

/* One call of rail_combine, checked and unpacked by the door. Lives on the caller's stack. */
struct rail_combine_job {
    uint8_t *const *dst;
    const uint8_t *const *src;
    int n_dst, n_src;
    bool is_signed;       /* of an integer type: how `divide` divides */
    uint64_t scale_mask;  /* 0: nothing is scaled */
    uint64_t scale;       /* in the element type's bits; for the 16- and 8-bit floats the same value as a float's */
    uint64_t divide;      /* 0: nothing is divided */
    uint64_t streamed;    /* destinations that are written past the caches, a bit each */
    size_t bytes;         /* of one source: count * element size */
};

typedef void rail_combine_kernel(const struct rail_combine_job *job);

struct rail_combine_path {
    const char *name;
    rail_combine_kernel *kernel[RAIL_TYPES][RAIL_OPS];
    rail_combine_kernel *tree[RAIL_TYPES][RAIL_OPS]; /* as a balanced tree: f32 and f64, whose nodes are rounded as they are */
};

extern const struct rail_combine_path rail_combine_path_portable;
#if defined(__x86_64__)
extern const struct rail_combine_path rail_combine_path_avx2;
extern const struct rail_combine_path rail_combine_path_avx512;
#endif

/* Sums and products of the floats of 16 and 8 bits as a balanced tree of n_src >= 3, each node rounded: host_balanced.c. */
void rail_combine_rounded(const struct rail_combine *how, void *const *dst, int n_dst, const void *const *src, int n_src,
                          uint64_t scale_mask, size_t count, struct rail_stores stores);

#endif
