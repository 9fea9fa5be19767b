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

#endif
