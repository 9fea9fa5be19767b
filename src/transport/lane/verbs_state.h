/* verbs_state.h - a queue pair and what hangs on it. Private to verbs_*.c. */
#ifndef RAIL_LANE_VERBS_STATE_H
#define RAIL_LANE_VERBS_STATE_H

#include "base/clock.h"
#include "foreign/rdmacm.h"
#include "transport/lane/verbs.h"

#ifdef RAIL_HAVE_VERBS

/* A work request from when it is posted until it is known to be done. */
struct verbs_sent {
    void *owner;             /* of its payload's memory; NULL: nobody has to be told */
    struct lane_memory *lent; /* lane.h */
    uint64_t units, bytes;   /* of the lane up to and with this one */
    uint64_t posted_ns;
};

/* Something that the device is to let go of: a connection, an end of the connection manager's that is no connection's, or a
 * registration of somebody's memory. */
struct verbs_leaving {
    struct verbs_leaving *next;
    struct verbs_connection *connection; /* whose member this is; NULL: */
    struct rdma_cm_id *id;               /* NULL: */
    struct ibv_mr *mr;
    size_t bytes;
    struct verbs_mapping *mapping;       /* of mr: unmapped with the last registration of it; NULL: somebody else's */
};
struct verbs_mapping { _Atomic uint32_t users; void *base; size_t bytes; };

/* verbs_cm.c. The connecter goes from ADDRESS on, the accepter from AWAITED on. */
enum verbs_manager_state {
    VERBS_BY_HAND,
    VERBS_AWAITED,     /* listens: the connecter may come */
    VERBS_REQUESTED,   /* it came, with the right token */
    VERBS_ACCEPTED,    /* ready, and they were told */
    VERBS_ADDRESS,     /* their address is being resolved, */
    VERBS_ROUTE,       /* the route there, */
    VERBS_CONNECTING,  /* they were asked */
    VERBS_ESTABLISHED,
    VERBS_FAILED,      /* `why` says it */
};

struct verbs_managed {
    enum verbs_manager_state state;
    struct rdma_cm_id *id;
    struct verbs_connection *next;     /* of the port's that are under way */
    uint8_t token[VERBS_TOKEN_BYTES];  /* that they have to show */
    struct verbs_record theirs;        /* accepter: version 0 until it is known */
    uint32_t their_queue_pair;         /* as the manager has it */
    uint32_t flow_label;
    struct rail_deadline deadline;
    bool given_up;                     /* what is told of it is nobody's any more */
    char why[VERBS_WHY_BYTES];
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
    struct verbs_managed managed;
    char text[2 * GID_TEXT_BYTES + 128];
    struct verbs_leaving leaving;
    const struct lane_sink *sink;       /* of the lane that it was, once that has closed it, */
    struct verbs_lent { void *owner; struct lane_memory *lent; } lent[VERBS_SENDS]; /* and whose payloads were out then */
    uint32_t n_lent;
    void *watcher;                      /* lane.h; NULL: nobody asks whether it is gone */
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
    uint64_t untold_bytes;                /* in frames consumed since */
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

enum { VERBS_RNR_TIMER_10_MS = 20, VERBS_RNR_FOR_EVER = 7 };

/* verbs_connection.c, for verbs_cm.c: whether the record makes sense, and goes with this port; what it says is
 * noted; the route is chosen and written down behind the connection's text. */
bool verbs_record_fits(const struct verbs_record *theirs, const struct verbs_port *port, char *why);
void verbs_connection_meets(struct verbs_connection *c, const struct verbs_record *theirs);
void verbs_connection_route(struct verbs_connection *c, uint32_t flow_label, struct ibv_ah_attr *out);

/* verbs_cm.c: an event for this connection. */
struct rdma_cm_event;
void verbs_managed_event(struct verbs_connection *c, const struct rdma_cm_event *event);
/* verbs_cm_port.c: its manager, in the port's list from here on. */
const struct rdmacm *verbs_manager_of(const struct verbs_port *port);
void verbs_manager_begin(struct verbs_connection *c);
void verbs_manager_end(struct verbs_connection *c); /* not in the list any more */
int verbs_manager_id(struct verbs_connection *c, struct rdma_cm_id **out); /* as rdma_create_id */
/* The port where requests come in, beside `here`; 0 with `why`. */
uint16_t verbs_manager_listen(struct verbs_port *port, const struct sockaddr *here, char *why);
void verbs_manager_let_go(const struct verbs_port *port, struct rdma_cm_id **id); /* may block; still set: it refused */
void verbs_manager_close(struct verbs_port *port);  /* first what listens, by the reaper, */
void verbs_manager_closed(struct verbs_port *port); /* and when that is gone the rest */
void verbs_manager_abandon(struct verbs_port *port); /* in a forked child */

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
