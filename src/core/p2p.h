/* p2p.h - ncclSend and ncclRecv: from the caller's arguments to messages between pairs of ranks (engine/messages.h).
 *
 * The calls of a group progress together, in posting order per peer and direction, peers in rank-relative rounds (round
 * d: send to rank + d, receive from rank - d), so that no rank is everybody's first. Links are opened at first use. A
 * send and the receive to oneself of a group are one copy. */
#ifndef RAIL_CORE_P2P_H
#define RAIL_CORE_P2P_H

#include "core/comm.h"
#include "engine/messages.h"

/* One call, as the caller gave it. */
struct p2p_call {
    const char *call; /* "ncclSend": for messages */
    enum message_direction direction;
    void *buffer;     /* only read when it is sent */
    size_t count;
    int type, peer;
};

/* The calls of one communicator in one group. Zeroed to begin with. */
struct p2p_batch {
    struct p2p_block *first, *last; /* in posting order; some 56 bytes per call */
    bool started;
};

/* One of them, in posting order; the next after `walk`, which begins as {batch->first, 0}. NULL: no more. */
struct p2p_post {
    struct message message;
    uint32_t peer;
    uint32_t direction; /* enum message_direction */
};
struct p2p_walk {
    struct p2p_block *block;
    uint32_t at;
};
struct p2p_post *p2p_walk_on(struct p2p_walk *walk);
/* What the communicator has of messages; the link of a flow: opened at first use. */
enum rail_result p2p_open(struct comm *comm);
enum rail_result p2p_flow_open(struct comm *comm, enum message_direction direction, uint32_t peer);

/* Checks everything but the pairing with oneself; called at once also inside a group. */
enum rail_result p2p_check(const struct comm *comm, const struct p2p_call *args);

/* Runs one call to its end. To oneself it is refused: only a group has the other half. */
enum rail_result p2p_run(struct comm *comm, const struct p2p_call *args);

enum rail_result p2p_batch_add(struct p2p_batch *batch, const struct p2p_call *args);
/* Before anything of the group is started: what is sent to oneself is received, too. Quietly true for no calls. */
enum rail_result p2p_batch_check(const struct comm *comm, const struct p2p_batch *batch);
/* Starts it at the first call. RAIL_OK: all done. */
enum rail_result p2p_batch_progress(struct comm *comm, struct p2p_batch *batch);
/* While the communicator is still this thread's: nothing of the batch is under way any more. */
void p2p_batch_stop(struct comm *comm, struct p2p_batch *batch);
void p2p_batch_free(struct p2p_batch *batch);
/* What it would take, by predict.h; 0 for no calls. */
double p2p_batch_predict(const struct comm *comm, const struct p2p_batch *batch);

/* Pieces moved so far: whether anything has happened since the last look. */
uint64_t p2p_moved(const struct comm *comm);
/* For who has waited for long in a batch or call; `alone`: for nothing else of this communicator. */
enum rail_result p2p_suspect(struct comm *comm, bool alone);

/* With the communicator. */
void p2p_free(struct comm *comm);

#endif
