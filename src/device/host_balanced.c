/* host_balanced.c - floats of 16 and 8 bits combined as a balanced tree, each inner node rounded.
 *
 * Block by block: a node's two children go to two blocks of its level, then both are combined into the block of the level
 * above, and at the top into the destinations. Nothing is written to a destination before all sources of the block have
 * been read, so a destination may be one of the sources. Rounding and widening again is what this costs; done in registers
 * (as f32 and f64 are, host_kernels.h) it took the same time, and twice the code. */
#include "device/host_paths.h"

/* The blocks of all levels stay in L1 (2 x 6 x 1 KiB for 64 sources) beside the lines of the sources. */
enum { BLOCK_BYTES = 1024, LEVELS = 6 };

struct balanced {
    const struct rail_combine *how;
    const void *const *src;
    uint64_t scale_mask;
    size_t element;       /* bytes */
    size_t first, count;  /* elements of this block */
    _Alignas(64) unsigned char block[LEVELS][2][BLOCK_BYTES];
};

/* Where a subtree's value lies, and whether it is a source still to be scaled. */
struct operand {
    const void *at;
    bool scaled;
};

static int split_of(int n)
{
    int p = 1;
    while (p * 2 < n) p *= 2;
    return p;
}

static struct operand subtree(struct balanced *b, int first, int n, int level, int side);

/* Both children of n >= 2 sources into `dst`. */
static void node(struct balanced *b, int first, int n, int level, void *const *dst, int n_dst, struct rail_stores stores)
{
    int left = split_of(n);
    struct operand a = subtree(b, first, left, level, 0), c = subtree(b, first + left, n - left, level, 1);
    const void *const src[2] = {a.at, c.at};
    rail_combine_to(b->how, dst, n_dst, src, 2, (uint64_t)a.scaled | (uint64_t)c.scaled << 1, true, b->count, stores);
}

static struct operand subtree(struct balanced *b, int first, int n, int level, int side)
{
    if (n == 1)
        return (struct operand){(const unsigned char *)b->src[first] + b->first * b->element, b->scale_mask >> first & 1};
    void *const dst[1] = {b->block[level][side]};
    node(b, first, n, level + 1, dst, 1, (struct rail_stores){0, 0});
    return (struct operand){dst[0], false};
}

void rail_combine_rounded(const struct rail_combine *how, void *const *dst, int n_dst, const void *const *src, int n_src,
                          uint64_t scale_mask, size_t count, struct rail_stores stores)
{
    struct balanced b;
    b.how = how;
    b.src = src;
    b.scale_mask = how->scaled ? scale_mask : 0;
    b.element = rail_type_bytes(how->type);
    size_t most = BLOCK_BYTES / b.element;
    for (b.first = 0; b.first < count; b.first += b.count) {
        void *to[RAIL_COMBINE_MAX];
        b.count = count - b.first < most ? count - b.first : most;
        for (int d = 0; d < n_dst; d++) to[d] = (unsigned char *)dst[d] + b.first * b.element;
        node(&b, 0, n_src, 0, to, n_dst, stores);
    }
}
