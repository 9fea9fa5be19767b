/* verbs_state.h - a queue pair and what hangs on it. Private to verbs_*.c. */
#ifndef RAIL_LANE_VERBS_STATE_H
#define RAIL_LANE_VERBS_STATE_H

#include "base/clock.h"
#include "transport/lane/verbs.h"

#ifdef RAIL_HAVE_VERBS

/* A work request from when it is posted until it is known to be done. */
struct verbs_sent {
    void *owner;             /* of its payload's memory; NULL: nobody has to be told */
    uint64_t units, bytes;   /* of the lane up to and with this one */
    uint64_t posted_ns;
};

/* Something that the device is to let go of: a connection, or a registration of somebody's memory. */
struct verbs_leaving {
    struct verbs_leaving *next;
    struct verbs_connection *connection; /* whose member this is; NULL: */
    struct ibv_mr *mr;
    size_t bytes;
};

struct verbs_connection {
    struct verbs_port *port;
    struct lane *lane;       /* once it is one's */
    struct ibv_comp_channel *channel;
    struct ibv_cq *sends, *receives;
    struct ibv_qp *qp;
    struct ibv_mr *ring_mr, *heads_mr;
    uint8_t *memory;         /* the ring, then VERBS_SENDS x VERBS_HEAD_BYTES of headers */
    size_t memory_bytes;
    uint8_t *heads;
    struct gid_candidate offers[GID_OFFER_MAX];
    int n_offers;
    uint8_t mtu;
    uint16_t lid;
    uint32_t inline_bytes;
    struct ibv_ece ece; /* in force; vendor 0: none */
    char text[2 * GID_TEXT_BYTES + 128];
    struct verbs_leaving leaving;
    const struct lane_sink *sink;       /* of the lane that it was, once that has closed it, */
    void *lent[VERBS_SENDS];            /* and whose payloads were out then */
    uint32_t n_lent;
    bool held;                          /* the device does not let go of it */
    struct verbs_connection *next_held;
    char broken[VERBS_WHY_BYTES]; /* why it is of no use any more; "": it is */

    /* Out. Counts run for the life of the connection. */
    uint64_t their_ring;
    uint32_t their_key, their_units, their_receives;
    uint64_t units, requests;             /* posted; of requests all take a receive but the flushes */
    uint64_t messages;                    /* requests that take a receive */
    uint64_t consumed_units, consumed_messages; /* of these, as they say */
    uint64_t completed;                   /* requests */
    uint64_t signalled;                   /* requests up to and with the last one that asked for a completion */
    struct verbs_sent sent[VERBS_SENDS];  /* by request modulo VERBS_SENDS */
    uint64_t acked_request;               /* the first whose bytes are not known to have arrived */
    uint64_t posted_ns;                   /* the last request */

    /* In. */
    uint64_t in_units, in_messages;       /* consumed here */
    uint64_t told_units, told_messages;   /* as we told */
    uint32_t n_repost;                    /* receives consumed and not posted anew */
    bool armed;                           /* the channel tells of the next completion */
    uint64_t came_ns;                     /* something, last */
    uint32_t quiet;                       /* reads in vain */

    /* For lane_figures(). */
    uint64_t acked_bytes, acked_frames, busy_ns, reader_ns, repeats;
    uint64_t busy_since_ns, full_since_ns, starved_since_ns, progress_ns; /* 0: not */
    uint64_t starved_at;                  /* completed then */
    uint64_t round_trip_ns;
    uint64_t measured_bytes, measured_ns; /* for the rate */
};

/* verbs_connection.c: posts n more receives. */
int verbs_post_receives(struct verbs_connection *c, uint32_t n);
/* The same: takes all from the device, which may take its time over it; and the rest of the end, unless it is held. */
void verbs_connection_let_go(struct verbs_connection *c);
void verbs_connection_forget(struct verbs_connection *c);

/* verbs_reaper.c: the item is the port's from here on, a registration's to free(). */
void verbs_reaper_give(struct verbs_port *port, struct verbs_leaving *item);
void verbs_reaper_keep(struct verbs_port *port);    /* closed, though its device is still at it */
void verbs_reaper_abandon(struct verbs_port *port); /* in a forked child */

#endif
#endif
