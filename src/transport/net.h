/* net.h - network links between processes, over lanes.
 *
 * Lanes belong to (process, peer process, rail, route) and are shared by all links and communicators between the two.
 * A lane joins two NICs of one rail (topo/rails.h), whatever their names and order. They are connected on first use by the
 * process with the smaller id; the other accepts. A link opened here is striped
 * over the lanes of its peer process chunk by chunk: a lane takes the next chunk when it has room (pull scheduling).
 *
 * Threads: everything here may be called from any thread; lanes are driven by whoever calls net_progress() and, when no
 * caller is inside (net_enter/net_leave), by the service thread. */
#ifndef RAIL_TRANSPORT_NET_H
#define RAIL_TRANSPORT_NET_H

#include <stdatomic.h>

#include "base/clock.h"
#include "base/result.h"
#include "topo/rails.h"
#include "transport/link.h"

enum { NET_MAX_RAILS = 16, NET_PROCESS_ID_BYTES = 16 };

/* One NIC of a process as its peers see it. */
struct net_rail_address {
    uint8_t family;     /* 4, 6, 0 = none */
    uint8_t prefix_bits;/* of its subnet, 0 = unknown */
    uint16_t port;      /* host order; the process's listener on that NIC */
    uint32_t scope;     /* IPv6 link-local scope is local to a host: 0 on the wire */
    uint8_t address[16];
    uint32_t mbit_per_s;/* 0 = unknown */
    char name[16];      /* "eth0" */
    uint16_t mtu;       /* bytes, 65535 = that or more, 0 = unknown */
    uint16_t number;    /* among the process's NICs: those that are gone are not listed (link/presence.c) */
    uint64_t rail;      /* topo/rails.h: equal on NICs of one rail, 0 = unknown */
    struct rail_facts facts; /* what its own host knows of its rail */
};

/* What a process tells the others at init (all-gathered by the bootstrap). Plain bytes. */
struct net_address {
    uint8_t process[NET_PROCESS_ID_BYTES]; /* random, one per process */
    uint32_t n_rails;
    uint32_t reserved;
    struct net_rail_address rails[NET_MAX_RAILS];
};

/* Starts this process's listeners on first use (one per rail) and describes them. The id is the same for every call in
 * a process (a forked child gets its own). */
enum rail_result net_describe(struct net_address *out);
/* The process id alone, without starting anything. */
void net_process_id(uint8_t out[NET_PROCESS_ID_BYTES]);

/* What a probe found of this process's NICs, keys[i] (0: nothing), and that there was one: net_describe tells it from now
 * on. */
void net_rails_probed(const uint64_t keys[NET_MAX_RAILS]);

/* Makes a communicator known to the listeners: connections must prove `secret`. net_comm_remove drops it. */
enum rail_result net_comm_add(uint64_t comm_key, const uint8_t secret[32]);
void net_comm_remove(uint64_t comm_key);

struct net_link_request {
    uint64_t comm_key; /* same on all ranks, unique per communicator (derived from its secret) */
    uint32_t from, to, channel;
    bool sender;                    /* which end this is */
    bool to_acceptor;               /* sender: the far end is a net_acceptor's, so nobody there opens a link to us */
    uint32_t n_slots;
    size_t slot_bytes;
    const struct net_address *peer; /* of the far end's process; copied */
    const struct net_address *self; /* our own beside it: rails as all hosts agreed. NULL: as net_describe told */
    uint64_t home;                  /* sender: the rail (its key) whose lanes come first while they keep up; 0: none */
    bool home_when_busy;            /* only while the other rails have work, too: other links are at home there */
    /* Called (from any thread) when the link may have made progress while its owner sleeps. */
    void (*wake)(void *owner);
    void *owner;
};

/* Opens one end; returns at once. The ends find each other by (comm_key, from, to, channel). Memory for slots is
 * allocated when the end is used first. */
enum rail_result net_link_open(const struct net_link_request *request, struct link **out);

/* Links that the far ends open and that nobody here waits for: what comes on them is delivered as it arrives, by whoever
 * drives the lanes, so that a rank is a target without being inside a call. */
struct net_acceptor {
    uint64_t comm_key;
    uint32_t to, channel;  /* takes every link to this rank, on this channel, whoever it comes from */
    uint32_t n_slots;
    size_t slot_bytes;
    const struct net_address *peers; /* [n_peers], alive as long as this: of each rank: who it may come from */
    uint32_t n_peers;
    const struct net_address *self; /* as in net_link_request */
    /* Both are called with the drive lock held, from any thread, one at a time: they must not block and not call anything
     * of this header. Slots come in the order in which their sender published them; a slot is free again when deliver
     * returns. Its failure (with a text of rail_fail's) ends the link. */
    enum rail_result (*deliver)(void *owner, uint32_t from, const void *slot, size_t bytes);
    /* Nothing more will be delivered from this rank: it closed its end, or the link broke. */
    void (*ended)(void *owner, uint32_t from);
    void *owner;
    struct net *net;            /* net.h's own, as what follows */
    struct net_acceptor *next;
    struct net_link *links;
};

/* `acceptor` stays the caller's, alive until net_accept_end, which closes the links; deliver does not run any more when
 * that returns. net_accept_end does nothing for a zeroed acceptor. */
enum rail_result net_accept(struct net_acceptor *acceptor);
void net_accept_end(struct net_acceptor *acceptor);

/* Memory of the program's that stays mapped until it is ended: what lies there may be lent to links (link.h). Returns its number;
 * 0: it is not known, and everything is copied. Ending: nothing is read there by address any more when it returns, and what devices
 * still read keeps its pages until they are through. 0 is nothing. Any thread, not from callbacks of this header. */
uint64_t net_memory_add(const void *base, size_t bytes);
void net_memory_end(uint64_t number);
/* Whether the bytes lie in such memory. */
bool net_memory_known(const void *at, size_t bytes);

/* Drives every lane of the process once, without blocking; returns at once if another thread is doing it. True if
 * anything moved. */
bool net_progress(void);
/* A caller is inside an operation and will call net_progress() itself; while any is, the service thread keeps away. */
void net_enter(void);
void net_leave(void);
/* Like net_leave, for a caller that goes to sleep until its wake(): the service thread takes over at once (one system
 * call) instead of at its next tick, milliseconds later. Come back with net_enter. */
void net_leave_to_sleep(void);

enum { NET_TROUBLE_BYTES = 256 };

/* What is wrong with the way to one peer process. */
struct net_trouble {
    uint8_t process[NET_PROCESS_ID_BYTES];
    bool unreachable;  /* no lane to it is up; else one lane of several is down */
    uint32_t rail;     /* our NIC of that lane, by its number in net_describe's list; of an unreachable peer: of one of them */
    uint64_t since_ns; /* on the monotonic clock */
    char text[NET_TROUBLE_BYTES]; /* "rail 2 (eth2) 10.0.2.1:4711 - 10.0.2.3:4712: the NIC has no carrier" */
};
/* Of the peers that the communicator has open links with that go on; peers that cannot be reached first. Writes up to
 * `room`, returns how many there are. Any thread; waits for the drive lock, some microseconds. */
uint32_t net_troubles(uint64_t comm_key, struct net_trouble *out, uint32_t room);

/* When the kernel of this process's host last acknowledged anything on a lane that is up, on the monotonic clock; 0: there is no such
 * lane, or nobody knows (RDMA). Any thread; waits for the drive lock. */
uint64_t net_answered_ns(const uint8_t process[NET_PROCESS_ID_BYTES]);

/* All ends to `process` fail with RAIL_E_REMOTE and `why` from now on (bootstrap learned that it died). */
void net_peer_lost(const uint8_t process[NET_PROCESS_ID_BYTES], const char *why);

#endif
