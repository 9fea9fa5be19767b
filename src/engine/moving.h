/* moving.h - what one MOVE of a plan reads and writes, resolved to addresses (host.c), and how it is carried out where some of
 * it lies in other processes (host_read.c) or goes out from where it lies (lending.c). */
#ifndef RAIL_ENGINE_MOVING_H
#define RAIL_ENGINE_MOVING_H

#include "engine/host.h"

struct moving {
    const void *src[RAIL_COMBINE_MAX];
    void *dst[RAIL_COMBINE_MAX];
    int n_src, n_dst;
    uint64_t scale_mask;
    struct rail_stores stores;
    uint64_t count; /* elements */
    bool direct;    /* some of it is a peer's own buffer */
    uint64_t far;   /* sources that are addresses of another process, a bit each, */
    uint32_t far_peer[RAIL_COMBINE_MAX]; /* and of which peer's */
    struct link *in[PLAN_MAX_LINKS], *out[PLAN_MAX_LINKS];
    void *slot[PLAN_MAX_LINKS]; /* of each link out */
    int n_in, n_out;
    const void *lent; /* where the content of the slots lies that are not among the destinations (lending.h); NULL: all are */
};

static inline size_t moving_element_bytes(const struct host_op *op) { return rail_type_bytes(op->call.how.type); }

/* My buffers are lent to peers, or theirs are to me: see host.c. touch_begin: false when somebody has withdrawn. */
bool host_touch_begin(const struct host_node *node);
void host_touch_end(const struct host_node *node);

/* Combines `count` elements from `first` on; of far sources they have been brought to where src says. */
void moving_combine(const struct host_op *op, const struct plan_step *step, const struct moving *m, uint64_t first, uint64_t count);

/* Carries out a move with far sources. RAIL_NOT_YET: somebody withdrew, and the news of why is on its way. RAIL_E_REMOTE: the
 * peer's process is gone. RAIL_E_SYSTEM: the kernel does not read that memory. */
enum rail_result moving_read(const struct host_op *op, const struct plan_step *step, struct moving *m);

#endif
