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
/* Where a link's place is, or where it will be found: for whoever speaks the protocol by himself (engine/gpu_life.c). Such
 * an end is not used through its ops any more. */
struct shm_link_place {
    struct shm_place *place;        /* NULL: the sender of a plan's link looks for `key` among `places` */
    unsigned char *slots;           /* of `place` */
    uint64_t key;
    const struct shm_place *places; /* the receiver's, [n_places] that are taken */
    const unsigned char *sets;      /* the receiver's slots: place->set says which */
    uint32_t n_places;
    uint32_t to_peer;
};
struct shm_link_place shm_link_place(const struct link *link);
/* Sender: the receiver has released everything published. */
bool shm_link_taken(const struct link *link);

#endif
