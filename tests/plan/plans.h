/* plans.h - shapes and sets of plans for the tests of plan/ and algos/. */
#ifndef RAIL_TESTS_PLAN_PLANS_H
#define RAIL_TESTS_PLAN_PLANS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "algos/algos.h"
#include "plan/check.h"

/* Nodes of the given sizes, ended by 0; ranks dealt out node by node, or in turn (shuffled) when `dealt`. */
static inline struct shape shape_of_nodes(const uint32_t *size, bool dealt)
{
    uint32_t n = 0, most = 0;
    for (uint32_t k = 0; size[k] > 0; k++) {
        n += size[k];
        most = size[k] > most ? size[k] : most;
    }
    uint64_t *key = calloc(n, sizeof *key);
    uint32_t rank = 0;
    assert_non_null(key);
    if (dealt)
        for (uint32_t turn = 0; turn < most; turn++)
            for (uint32_t k = 0; size[k] > 0; k++) {
                if (turn < size[k]) key[rank++] = 1000 - k;
            }
    else
        for (uint32_t k = 0; size[k] > 0; k++)
            for (uint32_t j = 0; j < size[k]; j++) key[rank++] = 1000 - k;
    struct shape s;
    assert_int_equal(shape_build(&s, n, key, 1), 0);
    free(key);
    return s;
}

static inline struct shape shape_of_one_node(uint32_t n)
{
    return shape_of_nodes((const uint32_t[]){n, 0}, false);
}

/* Nodes of 1 to `ranks` ranks, 1 to `most` of them under one leaf, as many leaves in a pod, and so on for that many tiers,
 * by chance (rand). */
static inline void shape_grow(uint64_t *key, uint32_t (*group)[256], uint32_t level, uint32_t most, uint32_t ranks,
                              uint32_t *n_nodes, uint32_t *n_ranks)
{
    static uint32_t number;
    uint32_t items = 1 + (uint32_t)rand() % most;
    for (uint32_t i = 0; i < items && *n_nodes < 250; i++) {
        uint32_t first = *n_nodes;
        number++;
        if (level > 0) {
            shape_grow(key, group, level - 1, most, ranks, n_nodes, n_ranks);
            for (uint32_t k = first; k < *n_nodes; k++) group[level - 1][k] = number;
            continue;
        }
        for (uint32_t k = 1 + (uint32_t)rand() % ranks; k > 0 && *n_ranks < 1024; k--) key[(*n_ranks)++] = first;
        ++*n_nodes;
    }
}

static inline struct shape shape_of_chance(uint32_t tiers, uint32_t most, uint32_t ranks)
{
    static uint64_t key[1024];
    static uint32_t group[SHAPE_TIERS][256];
    uint32_t n_nodes = 0, n_ranks = 0;
    struct shape s;
    shape_grow(key, group, tiers, most, ranks, &n_nodes, &n_ranks);
    assert_int_equal(shape_build(&s, n_ranks, key, 1), 0);
    for (uint32_t t = 0; t < tiers; t++) assert_int_equal(shape_add_tier(&s, group[t]), 0);
    return s;
}

/* Steps one way that tree.c and tree_rooted.c promise: a tier's heap, and for each tier below another step a right turn;
 * below a root one more for each tier of several. */
static inline uint32_t tree_steps(const struct shape *shape, bool rooted)
{
    uint32_t steps = 0, several = 0;
    for (uint32_t level = 0; level < shape->n_tiers + 2; level++) {
        uint32_t top = level == shape->n_tiers + 1, most = 0, depth = 0;
        uint32_t items = shape->n_tiers ? shape->tiers[shape->n_tiers - 1].n_groups : shape->n_nodes;
        uint32_t groups = top ? 1 : level == 0 ? shape->n_nodes : shape->tiers[level - 1].n_groups;
        const uint32_t whole[] = {0, items};
        const uint32_t *start = top ? whole : level == 0 ? shape->node_start : shape->tiers[level - 1].start;
        for (uint32_t g = 0; g < groups; g++) most = start[g + 1] - start[g] > most ? start[g + 1] - start[g] : most;
        if (most < 2) continue;
        for (uint32_t x = rooted && groups == 1 ? most - 1 : most; x > 1; x /= 2) depth++;
        steps += (1 + several) * depth + rooted;
        several++;
    }
    return steps;
}

/* All ranks' plans; NULL when the algorithm does not fit. free() it. */
static inline struct plan *plans_write(const struct shape *shape, enum plan_algorithm algorithm, uint32_t channel)
{
    struct plan *plans = calloc(shape->n_ranks, sizeof *plans);
    assert_non_null(plans);
    for (uint32_t rank = 0; rank < shape->n_ranks; rank++)
        if (!plan_writers_allreduce[algorithm](shape, rank, channel, &plans[rank])) {
            free(plans);
            return NULL;
        }
    return plans;
}

/* The same for any collective. */
static inline struct plan *collective_plans(enum plan_collective collective, const struct shape *shape,
                                            enum plan_algorithm algorithm, uint32_t channel, uint32_t root)
{
    struct plan *plans = calloc(shape->n_ranks, sizeof *plans);
    assert_non_null(plans);
    for (uint32_t rank = 0; rank < shape->n_ranks; rank++)
        if (!plan_write(collective, algorithm, shape, rank, channel, root, &plans[rank])) {
            free(plans);
            return NULL;
        }
    return plans;
}

/* The next number of ranks to be proven after `n`: all; under a sanitizer, which watches the same code at each, all up to
 * 15, then every seventh up to 64. */
static inline uint32_t plans_next_n(uint32_t n)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return n < 15 ? n + 1 : n + 7;
#else
    return n + 1;
#endif
}

#endif
