/* algos.h - the planners: pure functions from (shape, rank, channel) to a plan. No I/O, no clock, no threads, no
 * allocation. One file per algorithm. */
#ifndef RAIL_ALGOS_ALGOS_H
#define RAIL_ALGOS_ALGOS_H

#include <stdbool.h>
#include <stdint.h>

#include "plan/plan.h"
#include "topo/shape.h"

/* Writes this rank's AllReduce plan. Returns false, with nothing written, when the algorithm does not fit the shape
 * (one-shot and two-shot need a single node of at most 64 ranks, doubling fewer than 256 ranks; every algorithm needs at
 * least 2 ranks). */
typedef bool (*plan_writer)(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);

bool one_shot_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool two_shot_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool ring_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool doubling_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool tree_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out); /* double binary */
bool doubling_in_rank_order(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool doubling_fits_rank_order(uint32_t n_ranks);
bool hierarchy_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool hierarchy_fits(const struct shape *shape); /* 2 to 63 nodes, one of which has several ranks */
bool rank_tree_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool rails_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool rails_fit(const struct shape *shape);        /* nodes of at most 63 ranks, one of which has several */
bool rails_fit_blocks(const struct shape *shape); /* for ReduceScatter, AllGather: and all have the same number */
uint32_t rails_rings(const struct shape *shape);  /* ranks of the smallest node */
/* The rail, of the n_rails that every node has, that a rank's ring on this channel is at home on: that of its nearest NIC
 * (shape.rail_of), and channels take turns where there are more rails than rings. */
uint32_t rails_home(const struct shape *shape, uint32_t rank, uint32_t channel);

/* The other collectives: windows inside one node ("exchange"), the ring and the chain along it, trees. */
bool exchange_allgather(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool exchange_reducescatter(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool exchange_alltoall(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool ring_allgather(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool ring_reducescatter(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool doubling_allgather(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool doubling_reducescatter(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool rank_tree_reducescatter(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool rails_allgather(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);
bool rails_reducescatter(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out);

typedef bool (*plan_writer_rooted)(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root,
                                   struct plan *out);
bool exchange_broadcast(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out);
bool exchange_reduce(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out);
bool exchange_gather(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out);
bool exchange_scatter(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out);
bool two_shot_reduce(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out);
bool chain_broadcast(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out);
bool chain_reduce(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out);
bool chain_gather(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out);
bool chain_scatter(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out);
bool tree_broadcast(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out);
bool tree_reduce(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out);
bool rank_tree_reduce(const struct shape *shape, uint32_t rank, uint32_t channel, uint32_t root, struct plan *out);

/* Any of them. Collectives without a root ignore it. False also when the collective has no such algorithm. */
bool plan_write(enum plan_collective collective, enum plan_algorithm algorithm, const struct shape *shape,
                uint32_t rank, uint32_t channel, uint32_t root, struct plan *out);
bool plan_exists(enum plan_collective collective, enum plan_algorithm algorithm);

/* The same in the form whose value is the rank tree (PLAN_IN_RANK_ORDER): windows combine their sources as a balanced
 * tree, doubling swaps by rank number. False where there is no such form. */
bool plan_write_in_rank_order(enum plan_collective collective, enum plan_algorithm algorithm, const struct shape *shape,
                              uint32_t rank, uint32_t channel, uint32_t root, struct plan *out);
bool plan_exists_in_rank_order(enum plan_collective collective, enum plan_algorithm algorithm, uint32_t n_ranks);

extern const plan_writer plan_writers_allreduce[PLAN_ALGORITHMS];
extern const char *const plan_algorithm_names[PLAN_ALGORITHMS]; /* "oneshot", "twoshot", ... */

/* Channels that have windows of their own where there are several nodes. */
enum { RAILS_CHANNELS_MAX = 8 };

/* Slots of a link inside a host without GPUs. Where processes share cores a rank runs ahead of its neighbour by as many messages, which
 * saves switches. Send and Recv round, 4 slots over 8 of half the size, 4 and 8 ranks on 2 cores: 64 B 1.12, 1.08, 4 KiB 1.06, 1.04. */
enum { HOST_LINK_SLOTS = 8 };

/* What every rank of a communicator agrees on at init: all chooser inputs that are not arguments of the call. Plain
 * data, same bytes on every rank, compared by hash. */
struct choice_table {
    uint64_t one_shot_max_bytes;  /* single node, AllReduce: one-shot up to here */
    uint64_t one_shot_reduce_max_bytes; /* single node, Reduce: the same */
    uint64_t two_shot_max_bytes;  /* single node: two-shot up to here, ring above (UINT64_MAX: always) */
    uint64_t doubling_max_bytes;  /* several nodes: doubling up to here, then tree */
    uint64_t tree_max_bytes;      /* several nodes: tree up to here, ring above */
    uint64_t hierarchy_max_bytes; /* several nodes, several ranks in some: hierarchy up to here, instead of all three */
    uint64_t rails_min_bytes;     /* several nodes, several ranks in some: rails from here on, where hierarchy ends */
    uint64_t blocks_doubling_max_bytes; /* several nodes, AllGather and ReduceScatter: doubling for blocks up to here */
    uint32_t window_bytes;        /* bytes of one window of one rank and channel (a round of one-shot, two-shot, rails) */
    uint32_t shm_slot_bytes;      /* bytes of one slot, links in shared memory */
    uint32_t net_slot_bytes;      /* bytes of one slot when any link of the communicator is a network link */
    uint32_t net_channels;        /* channels when any link is a network link */
    int32_t forced_algorithm;     /* enum plan_algorithm, or -1 */
    uint32_t forced_channels;     /* 0 = not forced */
    uint64_t deterministic;       /* 1: combinations take only plans in rank order; 0: any */
};

struct choice {
    enum plan_algorithm algorithm;
    uint32_t n_channels;  /* 0, as the next: PLAN_PAIRWISE */
    uint64_t piece_bytes; /* longest piece */
};

/* First proposals for a shape, each derived in choose.c; measured values replace them. */
void choice_table_default(struct choice_table *out, const struct shape *shape);
/* For one node whose ranks copy what they give into windows; `crowded`: they outnumber its cores. */
void choice_table_staged(struct choice_table *table, const struct shape *shape, bool crowded);
/* The same node once its ranks have registered buffers, which are used where they are. */
void choice_table_shared(struct choice_table *table, const struct shape *shape);
/* For one node whose ranks read one another's buffers where they are. */
void choice_table_direct(struct choice_table *table);
/* Of the values, field by field: the same on every byte order and padding. */
uint64_t choice_table_hash(const struct choice_table *table);

/* Pure: the same answer on every rank. `bytes` is count * element bytes. */
struct choice choose_allreduce(const struct choice_table *table, const struct shape *shape, uint64_t bytes);
struct choice choose_plan(enum plan_collective collective, const struct choice_table *table, const struct shape *shape,
                          uint64_t bytes);

#endif
