/* shm_link.h - a link between two ranks of one node: slots and counters in the node's segment, nothing else. */
#ifndef RAIL_TRANSPORT_SHM_LINK_H
#define RAIL_TRANSPORT_SHM_LINK_H

#include "transport/link.h"
#include "transport/shm/segment.h"

struct shm_link_request {
    const struct shm_segment *segment;
    uint32_t from, to;           /* ranks */
    uint32_t from_peer, to_peer; /* their indices in the node */
    uint32_t channel;
    bool sender;
};

/* Opens one end. The receiver takes a place in its part of the segment; the sender finds it when it is there (until
 * then acquire says "not yet"). A pair's link (link.h) has its place, and its slots are there before the receiver. */
enum rail_result shm_link_open(const struct shm_link_request *request, struct link **out);

/* This is such a link, and not another transport's. */
bool shm_link_is(const struct link *link);
/* Sender: the receiver has released everything published. */
bool shm_link_taken(const struct link *link);

#endif
