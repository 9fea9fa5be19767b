/* verbs.h - the other wire: frames by RDMA write into a ring of the far end's memory, over one reliable queue pair.
 *
 *   sender                                                                   receiver
 *   frame --WRITE_WITH_IMM { header, payload straight from its slot } -->  ring: [frame|frame|   ]  --copied--> slot
 *           <---------- immediate: how much of the ring was consumed -----
 *
 * Where the fabric routes packets adaptively a large payload is a plain write of its own, whose packets may overtake
 * one another, and the header follows with the immediate.
 *
 *   verbs_port        a port of a device, opened: protection domain, wishes           verbs_port.c
 *   verbs_connection  queue pair, queues, ring; the state machine by hand             verbs_connection.c
 *   ...               or by librdmacm, where the fabric needs it or the user asks     verbs_cm.c, verbs_cm_port.c
 *   lane_verbs_ops    the wire                                                        verbs_wire.c
 *   ...               what a device is to let go of is asked back by a thread         verbs_reaper.c
 *
 * Layouts, credits and the exchange that sets it up: docs/WIRE.md. Without infiniband/verbs.h at build time no port opens.
 *
 * Thread rules: those of lane.h. */
#ifndef RAIL_LANE_VERBS_H
#define RAIL_LANE_VERBS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "foreign/ibverbs.h"
#include "transport/lane/gid_choice.h"
#include "transport/lane/lane.h"

enum {
    VERBS_UNIT_BYTES = 64,          /* frames begin at multiples of it in the ring */
    VERBS_RING_BYTES = 1 << 20,     /* eight chunks; 100 Gbit/s x 80 us. Counted in 16 bits of units: < 4 MiB */
    VERBS_RECEIVES = 256,           /* posted receives: each write with immediate takes one */
    VERBS_RESERVE = 32,             /* of them, for counts alone: at most 12 are out at a time (docs/WIRE.md) */
    VERBS_SENDS = 128,              /* work requests out at a time */
    VERBS_SIGNAL_EVERY = 5,         /* one in so many asks for a completion; with those after stalls, one in four */
    VERBS_INLINE_BYTES = 128,       /* copied into the work request, where the device can: a small frame */
    VERBS_HEAD_BYTES = (FRAME_BYTES + LANE_INLINE_BYTES + VERBS_UNIT_BYTES - 1) / VERBS_UNIT_BYTES * VERBS_UNIT_BYTES,
    VERBS_TOKEN_BYTES = 16,
    VERBS_NAME_BYTES = 64,
    VERBS_WHY_BYTES = 200,
};

/* NCCL_IB_...; docs/ENVIRONMENT.md. */
struct verbs_settings {
    struct gid_wish gid;
    uint8_t timeout;       /* 4.096 us x 2^timeout until a packet goes again */
    uint8_t retries;       /* 7: for ever on Soft-RoCE; a lane is found dead by silence before that */
    uint8_t service_level, traffic_class;
    uint16_t pkey_index;
    uint8_t relaxed_ordering; /* 0 no; 1 yes, and a warning where it cannot be; 2 where it can be */
    bool ece;              /* enhanced connection establishment, where both devices have it */
    int8_t adaptive_routing;  /* 1, 0; -1: on InfiniBand */
    uint32_t adaptive_bytes;  /* payloads of more go apart then */
    bool cm;                  /* connections by librdmacm, where both ends can */
};

struct verbs_port {
    const struct ibverbs *f;
    struct ibv_context *context;
    struct ibv_pd *pd;
    char name[VERBS_NAME_BYTES]; /* of the device */
    uint8_t port;
    uint32_t place;              /* which of struct lane_memory's registrations are ours */
    struct verbs_settings settings;
    uint8_t rail[16];            /* the rail's own address */
    bool is_ethernet;
    bool is_iwarp;               /* connects by librdmacm alone */
    int event_fd;                /* readable: verbs_port_event() */
    struct verbs_manager *manager; /* verbs_cm_port.c; NULL: not needed so far, or manager_why */
    char manager_why[VERBS_WHY_BYTES]; /* why there will be none; "": there may be */
    int manager_fd;              /* readable: verbs_port_manage(); -1: no manager */
    bool by_hand_told;           /* that the user asked for librdmacm in vain was said */
    bool relaxed;                /* registers memory for relaxed ordering */
    bool lends;                  /* may register memory of the program's (lane_memory_lend) */
    bool ece;                    /* asks for enhanced connections */
    uint32_t split_bytes;        /* larger payloads have a write of their own; UINT32_MAX: none has */
    bool down, fatal;            /* by events: the port; the device, for good */
    bool useless;                /* it does not register memory: no new lanes */
    bool complained;             /* what has to be said about falling back to TCP was said at WARN */
    /* verbs_reaper.c */
    struct verbs_leaving *leaving, *leaving_last; /* to be let go of, */
    struct verbs_leaving *gone;                   /* and let go of: their payloads' owners are to be told */
    bool reaping;                /* its thread runs */
    _Atomic uint64_t at_it_since_ns; /* that the device was asked to let go of the present one; 0: it was not */
    int gone_fd;                 /* readable: verbs_port_collect() */
    struct verbs_port *next_kept;
    /* Telemetry. */
    uint64_t n_requests, n_signalled, n_connections, n_registrations;
};

/* Opens NAME's port; `why`, VERBS_WHY_BYTES, when it fails: with the remedy. The caller's until verbs_port_close(), after
 * the last of its connections and registrations. Closing waits for what is to be let go of, 5 s at most: then it is
 * kept, with all that the device still has, until the process ends. */
enum rail_result verbs_port_open(const char *name, int port, const struct verbs_settings *settings, const uint8_t rail[16],
                                 uint32_t place, struct verbs_port **out, char *why);
void verbs_port_close(struct verbs_port *port);

/* Registers memory with it, as the settings want it; NULL with errno. */
struct ibv_mr *verbs_port_register(struct verbs_port *port, void *base, size_t bytes, int access);

/* What one asynchronous event means for lanes. */
enum verbs_news {
    VERBS_NO_NEWS,     /* nothing (more) has happened */
    VERBS_NOTHING,     /* something, which is nothing to lanes */
    VERBS_PORT_DOWN,   /* every lane of the port is dead; why says it in words */
    VERBS_PORT_UP,
    VERBS_FATAL,       /* the device is gone for good, every lane of it is dead */
    VERBS_LANE_DEAD,   /* `lane`; NULL: its connection is none's any more, or not yet */
};
struct verbs_connection;
enum verbs_news verbs_port_event(struct verbs_port *port, struct lane **lane, char *why);
/* What the connection manager tells: afterwards the handshakes that wait for it are to be stepped. VERBS_FATAL with `why`;
 * else VERBS_NOTHING. */
enum verbs_news verbs_port_manage(struct verbs_port *port, char *why);

/* Connections and registrations that were given up are taken from the device by a thread of the port: none of the calls
 * here waits for the device. Tells the owners of payloads that lay in connections which are gone by now. */
void verbs_port_collect(struct verbs_port *port);
/* How long the device has been busy with letting go of one of them; 0: it is not. Any thread. */
uint64_t verbs_port_at_it_ns(struct verbs_port *port);
/* Until it has let go of all; false: not in time. */
bool verbs_port_wait(struct verbs_port *port, struct rail_deadline deadline);
/* Around fork(), inside of whoever's locks call us. */
void verbs_reaper_fork_prepare(void);
void verbs_reaper_fork_parent(void);
void verbs_reaper_fork_child(void);

/* ---- memory that payloads lie in ---- */

enum { VERBS_PLACES = 16 }; /* = NET_MAX_RAILS (asserted there) */

/* Of one owner: frames' payloads lie in it, or come into it. Registered with each port on first use. All zero: nothing is
 * registered. */
struct lane_memory {
    void *base;
    size_t bytes;
    struct ibv_mr *at[VERBS_PLACES];
    struct verbs_port *port[VERBS_PLACES];
};
/* Before the memory is unmapped or given back: no frame that lies in it may be on its way. The registrations end a
 * little later, and keep the pages until then: nothing is read or written through them any more. */
void lane_memory_forget(struct lane_memory *memory);
/* The same, and the mapping goes with it (munmap), when no device can reach it any more; at once if none ever could. Where
 * a device does not let go of it, it stays until the process ends. */
void lane_memory_unmap(struct lane_memory *memory);
/* The far end of lanes by that port may write into it, with *key, until it is forgotten. False, with errno, when the device
 * does not register it. */
bool lane_memory_offer(struct lane_memory *memory, struct verbs_port *port, uint32_t *key);
/* Memory of the program's: that port sends from there, and nothing is written. False, with errno, likewise. */
bool lane_memory_lend(struct lane_memory *memory, struct verbs_port *port);

/* ---- connections ---- */

/* What an end tells the other, little endian. */
struct verbs_record {
    uint32_t version;          /* 1 */
    uint32_t declines;         /* 1: no verbs on this lane; `why` in words. Nothing else counts */
    uint32_t queue_pair, packet;
    uint64_t ring_address;
    uint32_t ring_key, ring_bytes;
    uint32_t n_receives;
    uint16_t lid;
    uint8_t mtu;               /* enum ibv_mtu */
    uint8_t is_ethernet;
    uint32_t n_gids;
    struct { uint8_t raw[16]; uint16_t index; uint8_t kind, is_rails; } gids[GID_OFFER_MAX];
    char why[72];
    uint32_t ece_vendor, ece_options, ece_mask; /* struct ibv_ece; vendor 0: none */
    uint16_t cm_port;          /* accepter: its connection manager listens there; 0: by hand */
    uint8_t is_iwarp;
    uint8_t by_cm;             /* connecter: 1: comes to that port; 0: by hand */
    uint32_t reserved;         /* 0 */
    uint8_t token[VERBS_TOKEN_BYTES]; /* with either: what the other end must show there */
};
_Static_assert(sizeof(struct verbs_record) == 312, "the record has no padding");

/* A queue pair in INIT with all receives posted, and what to tell. NULL with `why`. The caller's. */
struct verbs_connection *verbs_connection_begin(struct verbs_port *port, struct verbs_record *ours, char *why);
/* To RTS. `first`: we connect; flow_label: flow_label.h. False with `why`: declined, or they do not go together. */
bool verbs_connection_finish(struct verbs_connection *connection, const struct verbs_record *theirs, bool first,
                             uint32_t flow_label, char *why);
/* After finish, where `ours` is sent after it: with what the device has accepted of what theirs offered. */
void verbs_connection_answer(const struct verbs_connection *connection, struct verbs_record *ours);

/* The same by librdmacm, instead of finish. The accepter's record has a port and a token, the connecter's answers with its
 * own; then the connecter's manager comes to that port and shows the token, and is shown the other (docs/WIRE.md).
 *
 * Whether it should be so as far as this port goes, and can: the first time that asks for it loads the library. */
bool verbs_port_wants_manager(const struct verbs_port *port);
bool verbs_port_has_manager(struct verbs_port *port);
/* It is not to be, though an end wants it: said once per port, at WARN where it is the user's wish here. */
void verbs_port_by_hand(struct verbs_port *port, const char *why);
/* Accepter: listens beside `here`, the local address of the lane's socket, and says so in `ours`; awaits the connecter until
 * the deadline. False with `why`. */
bool verbs_manager_offer(struct verbs_connection *connection, const struct sockaddr *here, struct rail_deadline deadline,
                         struct verbs_record *ours, char *why);
/* Accepter: their record, which says by_cm. False with `why`. */
bool verbs_manager_accept(struct verbs_connection *connection, const struct verbs_record *theirs, uint32_t flow_label,
                          char *why);
/* Connecter: on its way from `here` to `there`, the addresses of the lane's socket, until the deadline. `ours` says so.
 * False with `why`. */
bool verbs_manager_connect(struct verbs_connection *connection, const struct sockaddr *here, const struct sockaddr *there,
                           const struct verbs_record *theirs, uint32_t flow_label, struct rail_deadline deadline,
                           struct verbs_record *ours, char *why);
/* RAIL_OK: it is ready to send. RAIL_NOT_YET: verbs_port_manage(), or the deadline, will move it. Else failed with `why`. */
enum rail_result verbs_manager_step(struct verbs_connection *connection, char *why);
bool verbs_manager_is_late(const struct verbs_connection *connection, uint64_t now_ns);

/* Given up: nothing that comes by it is looked at any more. The port's thread puts the queue pair into error and
 * destroys it: afterwards nothing of it can touch memory, and verbs_port_collect() tells the owners of what was out.
 * Memory that the device may still reach because it refused is never given back. NULL is nothing. */
void verbs_connection_free(struct verbs_connection *connection);
/* Before that, of one that is no lane's: sink->gone(watcher) when it is gone (lane.h). */
void verbs_connection_watch(struct verbs_connection *connection, const struct lane_sink *sink, void *watcher);
/* In a forked child: the descriptors are closed, everything else is the parent's. */
void verbs_port_abandon(struct verbs_port *port);
void verbs_connection_abandon(struct verbs_connection *connection);
/* "10.0.0.1 (RoCE v2, index 3) - 10.0.0.2 (...), flow label 0x1234 (UDP source port 49999), enhanced (...)" */
const char *verbs_connection_text(const struct verbs_connection *connection);
int verbs_connection_event_fd(const struct verbs_connection *connection);
void verbs_record_decline(struct verbs_record *out, const char *why);
void verbs_record_declined(const struct verbs_record *theirs, char *why); /* what it says, printable */

/* From memory to the wire, and back: its own inverse. */
void verbs_record_swap(struct verbs_record *record);

/* The lane becomes one over `connection`, which is its own from here on; like lane_start(). The socket only says by its end
 * that the far process has closed the lane, or has ended. */
void lane_start_verbs(struct lane *lane, struct verbs_connection *connection);
extern const struct lane_ops lane_verbs_ops;

#endif
