/* family.h - the in-order binary tree over labels 1 .. n and its mirror or shift, which tree.c explains. */
#ifndef RAIL_ALGOS_FAMILY_H
#define RAIL_ALGOS_FAMILY_H

#include <stdint.h>

/* Labels; 0 = none. */
struct family {
    uint32_t parent, left, right;
};

static inline struct family family_of(uint32_t v, uint32_t n)
{
    uint32_t bit = v & -v;
    struct family f = {0};
    uint64_t up = ((uint64_t)v ^ bit) | ((uint64_t)bit << 1);
    f.parent = up <= n ? (uint32_t)up : v ^ bit; /* no label so high: then we are somebody's right child */
    if (bit == 1) return f;
    f.left = v - bit / 2;
    for (uint32_t step = bit / 2; step > 0 && f.right == 0; step /= 2)
        if ((uint64_t)v + step <= n) f.right = v + step;
    return f;
}

static inline uint32_t label_of(uint32_t position, uint32_t n, uint32_t channel)
{
    if (channel % 2 == 0) return position + 1;
    return n % 2 == 0 ? n - position : (position + 1) % n + 1;
}

static inline uint32_t position_of(uint32_t label, uint32_t n, uint32_t channel)
{
    if (channel % 2 == 0) return label - 1;
    return n % 2 == 0 ? n - label : (label + n - 2) % n;
}

#endif
