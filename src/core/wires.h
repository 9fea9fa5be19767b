/* wires.h - a communicator's links and the plans laid over them: made when an algorithm is first used, then kept. */
#ifndef RAIL_CORE_WIRES_H
#define RAIL_CORE_WIRES_H

#include <stdint.h>

#include "algos/algos.h"
#include "engine/host.h"
#include "transport/net.h"

struct wires {
    const struct shape *shape;
    uint32_t rank;
    bool in_rank_order; /* combinations: only plans that promise it */
    const struct host_node *node;
    const struct net_address *addresses; /* [n_ranks], NULL when the communicator has a single node */
    uint64_t common[NET_MAX_RAILS];      /* keys of the rails that every node has, the same order on all ranks */
    uint32_t n_common;
    uint64_t comm_key;
    uint32_t net_slots;
    size_t net_slot_bytes;
    struct link **links; /* every end this rank has opened */
    uint32_t n_links, capacity;
    struct instance_set **sets[PLAN_COLLECTIVES][PLAN_ALGORITHMS]; /* by root, where there is one; else one set */
};

/* One plan per channel. */
struct instance_set {
    struct instance *instances[HOST_MAX_CHANNELS];
};

/* The instances of `choice`, [n_channels], opening links as needed. The array stays the wires'. Kept for every root that
 * was ever used: at most n_ranks of them, a plan of some 3 KiB per channel each. */
enum rail_result wires_instances(struct wires *wires, enum plan_collective collective, uint32_t root,
                                 const struct choice *choice, struct instance *const **out);

/* This rank's end of the link to or from `peer` on one of link.h's channels of pairs. Stays the wires'. */
enum rail_result wires_pair(struct wires *wires, uint32_t peer, enum plan_direction direction, uint32_t channel,
                            struct link **out);

/* True when every slot that this rank published has been credited. */
bool wires_drained(const struct wires *wires);
/* After a failure: no link reads the caller's buffers any more when it returns (link.h). */
void wires_recall(const struct wires *wires);
/* Of memory, for plans and tables. */
size_t wires_bytes(const struct wires *wires);
void wires_clear(struct wires *wires);

#endif
