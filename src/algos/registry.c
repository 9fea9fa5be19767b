/* registry.c - the planners by number and by name. Adding an algorithm is one new file and one line in each table. */
#include "algos/algos.h"
#include "plan/collective.h"
#include "plan/write.h"

const plan_writer plan_writers_allreduce[PLAN_ALGORITHMS] = {
    [PLAN_ONE_SHOT] = one_shot_allreduce,
    [PLAN_TWO_SHOT] = two_shot_allreduce,
    [PLAN_RING] = ring_allreduce,
    [PLAN_TREE] = tree_allreduce,
    [PLAN_DOUBLING] = doubling_allreduce,
    [PLAN_RANK_TREE] = rank_tree_allreduce,
    [PLAN_HIERARCHY] = hierarchy_allreduce,
    [PLAN_RAILS] = rails_allreduce,
};

const char *const plan_algorithm_names[PLAN_ALGORITHMS] = {
    [PLAN_ONE_SHOT] = "oneshot",
    [PLAN_TWO_SHOT] = "twoshot",
    [PLAN_RING] = "ring",
    [PLAN_TREE] = "tree",
    [PLAN_DOUBLING] = "doubling",
    [PLAN_RANK_TREE] = "ranktree",
    [PLAN_HIERARCHY] = "hierarchy",
    [PLAN_RAILS] = "rails",
};

static const struct {
    plan_writer plain;
    plan_writer_rooted rooted;
} writers[PLAN_COLLECTIVES][PLAN_ALGORITHMS] = {
    [PLAN_BROADCAST] = {[PLAN_ONE_SHOT] = {.rooted = exchange_broadcast},
                        [PLAN_RING] = {.rooted = chain_broadcast},
                        [PLAN_TREE] = {.rooted = tree_broadcast}},
    [PLAN_REDUCE] = {[PLAN_ONE_SHOT] = {.rooted = exchange_reduce},
                     [PLAN_TWO_SHOT] = {.rooted = two_shot_reduce},
                     [PLAN_RING] = {.rooted = chain_reduce},
                     [PLAN_TREE] = {.rooted = tree_reduce},
                     [PLAN_RANK_TREE] = {.rooted = rank_tree_reduce}},
    [PLAN_ALLGATHER] = {[PLAN_ONE_SHOT] = {.plain = exchange_allgather},
                        [PLAN_RING] = {.plain = ring_allgather},
                        [PLAN_DOUBLING] = {.plain = doubling_allgather},
                        [PLAN_RAILS] = {.plain = rails_allgather}},
    [PLAN_REDUCESCATTER] = {[PLAN_ONE_SHOT] = {.plain = exchange_reducescatter},
                            [PLAN_RING] = {.plain = ring_reducescatter},
                            [PLAN_DOUBLING] = {.plain = doubling_reducescatter},
                            [PLAN_RANK_TREE] = {.plain = rank_tree_reducescatter},
                            [PLAN_RAILS] = {.plain = rails_reducescatter}},
    [PLAN_GATHER] = {[PLAN_ONE_SHOT] = {.rooted = exchange_gather}, [PLAN_RING] = {.rooted = chain_gather}},
    [PLAN_SCATTER] = {[PLAN_ONE_SHOT] = {.rooted = exchange_scatter}, [PLAN_RING] = {.rooted = chain_scatter}},
    [PLAN_ALLTOALL] = {[PLAN_ONE_SHOT] = {.plain = exchange_alltoall}},
};

bool plan_exists(enum plan_collective collective, enum plan_algorithm algorithm)
{
    if (collective == PLAN_ALLREDUCE) return plan_writers_allreduce[algorithm] != NULL;
    return writers[collective][algorithm].plain || writers[collective][algorithm].rooted;
}

bool plan_write(enum plan_collective collective, enum plan_algorithm algorithm, const struct shape *shape,
                uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    plan_writer plain = collective == PLAN_ALLREDUCE ? plan_writers_allreduce[algorithm]
                                                     : writers[collective][algorithm].plain;
    if (plain) return plain(shape, rank, channel, out);
    plan_writer_rooted rooted = writers[collective][algorithm].rooted;
    return rooted && rooted(shape, rank, channel, root, out);
}

bool plan_exists_in_rank_order(enum plan_collective collective, enum plan_algorithm algorithm, uint32_t n_ranks)
{
    if (!collective_kind(collective).reduces || !plan_exists(collective, algorithm)) return false;
    if (algorithm == PLAN_DOUBLING) return collective == PLAN_ALLREDUCE && doubling_fits_rank_order(n_ranks);
    /* windows: a node's peers are in rank order */
    return algorithm == PLAN_ONE_SHOT || algorithm == PLAN_TWO_SHOT || algorithm == PLAN_RANK_TREE;
}

bool plan_write_in_rank_order(enum plan_collective collective, enum plan_algorithm algorithm, const struct shape *shape,
                              uint32_t rank, uint32_t channel, uint32_t root, struct plan *out)
{
    if (!plan_exists_in_rank_order(collective, algorithm, shape->n_ranks)) return false;
    bool written = algorithm == PLAN_DOUBLING ? doubling_in_rank_order(shape, rank, channel, out)
                                              : plan_write(collective, algorithm, shape, rank, channel, root, out);
    if (!written) return false;
    out->flags |= PLAN_IN_RANK_ORDER;
    if (out->flags & PLAN_WINDOWS) plan_balance(out);
    return true;
}
