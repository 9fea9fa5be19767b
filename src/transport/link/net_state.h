/* net_state.h - what a process keeps about its network: rails, peers, lanes, links. Private to transport/link/.
 *
 *   struct net ──> net_rail (a NIC: its listener)       x n_rails
 *       │
 *       ├────────> net_peer (a peer process) ──> net_lane (one socket: lane/lane.h)   x rails x sockets per rail x 2 berths
 *       │               └──────────────────────> net_link (one end of a link)         any number
 *       ├────────> net_comm (a communicator's secret)
 *       └────────> net_knock (an accepted socket that has not said who it is)
 *
 * A process has one `struct net`, made at first use; tests make several to be several processes in one.
 *
 * The drive lock (net->lock) protects everything except the words marked "owner" in net_link, which belong to the thread
 * that runs the link's communicator, and the atomics, by which owner and driver meet. Callers on the running path only
 * ever try the lock; whoever holds it does the work of the others as well. */
#ifndef RAIL_LINK_NET_STATE_H
#define RAIL_LINK_NET_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/service.h"
#include "topo/machine.h"
#include "topo/rails.h"
#include "transport/lane/handshake.h"
#include "transport/lane/lane.h"
#include "transport/lane/verbs.h"
#include "transport/link/counters.h"
#include "transport/link/repair.h"
#include "transport/link/route.h"
#include "transport/link/silence.h"
#include "transport/net.h"

enum {
    NET_SOCKETS_PER_RAIL_MAX = 64,             /* NCCL's limit for NTHREADS x NSOCKS */
    NET_LANES_MAX = NET_MAX_RAILS * NET_SOCKETS_PER_RAIL_MAX,
    NET_KNOCKS_MAX = 64,                       /* strangers at the door at a time; the oldest goes first */
    NET_EARLY_MAX = 65536,                     /* OPENs remembered per peer before their receiving end exists */
    NET_GRAIN_BYTES_MIN = 4096,
    NET_GRAINS_MAX = 1024,                     /* per slot: 128 bytes of bitmap */
    NET_CHUNK_BYTES_MAX = 16 << 20,
    NET_SLOTS_MAX = 4096,
    NET_WHY_BYTES = 256,
    NET_COUNTED_BYTES = 352,
    NET_READ_BYTES = 1 << 20,                  /* of one visit to a lane: others, and our own sending, have their turn */
    NET_GONE = 64,                             /* communicators remembered after they were removed */
    NET_BERTHS = 2,                            /* of a lane: for its socket, and for the one that may replace it */
};
#define NET_SLOT_BYTES_MAX ((size_t)1 << 30)
static_assert((int)VERBS_PLACES == (int)NET_MAX_RAILS, "a place for each rail's registrations");

struct net_interface {
    char name[16];
    struct handshake_address address; /* port 0 */
    uint32_t mbit_per_s, mtu;
    uint8_t prefix_bits;
    uint64_t rail;                    /* topo/rails.h */
    struct rail_facts facts;
    char device[VERBS_NAME_BYTES];    /* the RDMA device to use on this rail; "": TCP */
    uint8_t device_port;
};

struct net_config {
    struct net_interface rails[NET_MAX_RAILS];
    uint32_t n_rails;
    uint32_t chunk_bytes;
    uint32_t sockets_per_rail;
    bool writes_direct;          /* over RDMA, into slots (direct.c) */
    size_t lend_least;           /* bytes of a slot from which it is lent (lent.c); SIZE_MAX: never */
    bool moves_lanes;            /* off bad routes (move.c) */
    bool repairs;                /* lanes that die (mend.c) */
    struct verbs_settings verbs;
    enum rails_crossing crossing;
    uint64_t connect_timeout_ns; /* for the first lane to a peer */
    uint64_t knock_timeout_ns;   /* for a stranger to say who he is */
    uint64_t alone_timeout_ns;   /* without any lane to a peer that had some: for the first to come back */
};

/* What an epoll event points to; the first member of what it belongs to. */
enum net_watch_kind { NET_WATCH_LISTENER, NET_WATCH_KNOCK, NET_WATCH_LANE, NET_WATCH_CARRIER, NET_WATCH_DEVICE };
struct net_watch { enum net_watch_kind kind; };

struct net_rail {
    struct net_watch watch;
    struct net *net;
    int fd;            /* listener, -1: none */
    bool deaf;         /* out of descriptors: not watched until hears_again_ns */
    bool complained;
    bool hurt;         /* a lane on it died, which was said; until one is back */
    bool gone;         /* presence.c: neither told nor used until it is back */
    unsigned device;   /* index of the interface that had the address when last looked at; 0: none */
    uint64_t hears_again_ns;
    uint16_t port;
    struct net_interface interface;
    struct net_device {   /* devices.c */
        struct net_watch watch;
        struct net_rail *rail;
        struct verbs_port *port;
        bool stuck;           /* it does not let go of something, which was said */
        bool manager_heard;   /* its connection manager's events come here */
        struct rdma_counters counted; /* at the time */
        struct rdma_reading *reading;
        uint64_t counted_ns;
        uint64_t back_at_ns, back_until_ns; /* the port is up again: when its lanes are moved to it, and how long */
    } device_of;
};

struct net_comm {
    uint64_t key;
    uint32_t uses;
    uint8_t secret[AUTH_KEY_BYTES], key_id[AUTH_ID_BYTES];
};

struct net_knock {
    struct net_watch watch;
    bool used;
    uint32_t rail;
    uint64_t deadline_ns;
    struct handshake handshake;
};

enum net_lane_state {
    NET_LANE_ABSENT,     /* accepter: the connecter has not come; connecter: not tried */
    NET_LANE_WAITING,    /* connecter: the last try failed, the next is at retry_at_ns */
    NET_LANE_CONNECTING, /* connecter: a handshake is under way */
    NET_LANE_UP,
    NET_LANE_CLOSED,     /* ended, in good order or not */
};

struct net_lane {
    struct net_watch watch;
    struct net_peer *peer;
    enum net_lane_state state;
    uint32_t rail, there, index;   /* rail: our NIC; there: theirs */
    struct handshake *handshake;   /* while connecting */
    uint64_t down_ns;              /* since when it is closed that was up; 0: it was not, or is again */
    char down_why[NET_WHY_BYTES];
    uint64_t retry_at_ns, deadline_ns;
    uint32_t tries;
    bool anew;                     /* connecting: in the place of a socket that died (mend.c) */
    bool said_bye;                 /* they */

    /* move.c */
    uint16_t turn;                 /* which socket of its lane this is */
    bool newcomer;                 /* connecting or up beside the lane's socket, on trial */
    bool insisted;                 /* it stays whatever it carries (tests) */
    bool leaving;                  /* replaced: takes nothing more */
    bool said_leave, heard_leave;  /* we, they: nothing comes after it */
    enum route_opinion ours, theirs; /* of a newcomer */
    uint32_t trial_windows;
    uint64_t since_ns;             /* opinion given; or leaving */
    struct lane_figures seen;      /* at the beginning of the window */
    bool seen_valid;
    struct route_lane route;

    struct silence_lane silence;   /* suspect.c */

    bool skip;                     /* the payload under way is not wanted */
    uint32_t quiet;                /* times that it was read in vain since it last had something */
    uint8_t control[FRAME_CONTROL_BYTES_MAX + 1];
    struct lane lane;
};

/* A control frame from when it is said until the far end has it. */
struct net_control { struct frame frame; uint8_t payload[FRAME_CONTROL_BYTES_MAX]; };

struct net_early { struct frame_open open; uint32_t number; };

struct net_link_place { struct net_link *link; uint32_t generation; };

struct net_peer {
    struct net *net;
    struct net_peer *next, *next_active;
    uint8_t process[NET_PROCESS_ID_BYTES];
    bool far;           /* links of a process to itself: the accepting half */
    bool connecter;     /* we connect */
    bool rings;         /* they connect, and have to be asked to */
    bool called;        /* they asked us to connect, for the sake of caller_key's communicator */
    uint64_t caller_key;
    bool active;        /* on net->active: something may be sent */
    bool leaving;       /* they said BYE: nothing more is sent on these lanes */
    bool lost;
    char why[NET_WHY_BYTES]; /* when lost */
    struct net_address address; /* n_rails 0 until a link was opened from here */
    uint64_t here[NET_MAX_RAILS]; /* keys of our NICs that go with its */
    uint64_t session;   /* of the present set of lanes */
    struct net_lane **lanes; /* n_lanes: lane i's berths are entries 2 i and 2 i + 1; entries may be NULL */
    uint32_t n_lanes, n_up;
    uint32_t n_set;     /* lanes in the present set */
    uint64_t features;  /* in force on it */
    struct repair repair;     /* of the present set; only with FRAME_FEATURE_REPAIR */
    bool heard_down;          /* LANE_DOWN came: heard_turns are to be seen to */
    uint64_t rang_ns;         /* accepter without lanes: when it last knocked itself, */
    uint32_t n_rings;         /* and how often it has */
    uint32_t *heard_turns;    /* [n_lanes / NET_BERTHS]: the highest that LANE_DOWN named, + 1; 0: seen to */
    bool torn;                /* out of memory for what had to be said */
    _Atomic bool lends;       /* it has had an RDMA lane, and gives prompt credit: slots may be lent (lent.c) */
    uint32_t n_ghosts;        /* queue pairs of lanes that ended, and may still write into slots (direct.c) */
    uint64_t ghosts_since_ns; /* since when there are any */

    /* control.c */
    struct net_lane *control; /* carries what must stay in order, until it ends */
    struct net_control *says; /* not acknowledged yet */
    uint32_t n_says, says_room, n_said; /* n_said: of them are on `control` */
    uint32_t says_number;     /* of the first of them */
    uint32_t heard_number;    /* of theirs that is due */
    uint32_t told_number;     /* heard_number when we told it last */
    uint32_t told_tick;
    struct peer_rail {  /* of lanes that may move, by our rail */
        uint64_t window_ns, asked_ns;
        bool in_round, found;
        struct route_pace pace;
    } *rails;
    struct silence_peer silence; /* suspect.c */
    struct net_link_place *places; /* by index of link numbers */
    uint32_t n_places, n_links;
    struct net_early *early;
    uint32_t n_early, early_room;
    struct net_link *ring_first, *ring_last;   /* links that have something to say, in turn */
    struct net_link *owing_first, *owing_last; /* links that owe credit; the urgent ones in front */
    uint32_t n_urgent;
};

/* Known memory (known.c) that holds a slot's content instead of the slot. */
struct net_lent {
    const uint8_t *at;         /* NULL: it is in the slot */
    uint64_t number;           /* of the range of known memory, which is: */
    uintptr_t base;
    size_t bytes;
};

/* A sender's slot (written by the owner before it publishes) and a receiver's (written by the driver). */
struct net_slot {
    uint64_t signature;
    uint8_t *at;               /* receiver: where its content is, since its first chunk */
    uint32_t bytes;
    uint32_t received_bytes;
    bool started, complete;
    bool prompt;               /* credit for it is to come, or go, at once */
    struct net_lent lent;      /* sender; by the owner until it is published, then by the driver */
};

/* A chunk written straight is two work requests instead of one. Of a full chunk (the default) that is 16 per MiB; where
 * chunks shrink towards the end of a slot it would be more than 40. */
enum { DIRECT_BYTES_MIN = 131072 };
/* Of one end of a link over RDMA: direct.c. All under the drive lock. */
struct net_direct {
    /* Receiver. */
    bool granted;              /* they may write, until their RETURN */
    bool withdrawn;            /* WITHDRAW was said */
    bool trims;                /* the pages go back with it */
    bool barred;               /* no more grants: memory cannot be registered, or a device hangs */
    uint64_t credit_most;      /* slots credited at most while a dead lane may still write; UINT64_MAX: all */
    uint8_t *fresh;            /* where slots from fresh_from on lie, when `memory` is a hanging device's; NULL: there */
    uint64_t fresh_from;
    /* Sender. */
    bool held;                 /* a grant: number (the receiver's), theirs */
    bool ended;                /* nothing more goes by it; RETURN when nothing is out */
    uint32_t number;
    struct frame_grant theirs;
    /* Both: nothing was written straight of slots from here on. Of the last grant that was given back. */
    uint64_t until;
    bool wants_grant, wants_withdraw, wants_return;
};

struct net_link {
    struct link base;
    struct net *net;
    struct net_peer *peer;
    uint64_t comm_key, home;   /* home: of net_link_request */
    bool home_when_busy;
    bool sender;
    uint32_t grain_bytes, n_grains;
    size_t stride_bytes;
    struct lane_memory registered; /* `memory`, with RDMA devices */
    struct net_direct direct;
    uint8_t *memory;           /* sender: the owner's to allocate; receiver: the driver's. See net_link.c */
    struct net_slot *slots;
    uint64_t *bitmaps;         /* receiver: words_per_slot each */
    uint16_t *carriers;        /* sender: [n_slots][n_grains], who carried each grain (carriage.c) */
    uint32_t n_again;          /* sender: grains that are to be sent again */
    uint64_t stood;            /* sender: slots credited when carriage_stands last looked, + 1 */
    uint32_t words_per_slot;
    void (*wake)(void *owner);
    void *owner;
    uint64_t lent_until;       /* owner: the last slot that it lent, + 1 */
    bool told;                 /* owner: the failure has been logged */

    _Alignas(64) _Atomic uint64_t published; /* sender: slots, by the owner */
    _Atomic uint64_t released;               /* receiver: slots, by the owner */
    _Atomic uint64_t prompted;               /* receiver: of them up to the last that wants prompt credit */
    _Atomic bool listed;                     /* in net->inbox */
    struct net_link *inbox_next;

    _Alignas(64) _Atomic uint64_t credited;  /* sender: slots, by the driver */
    _Atomic uint64_t arrived;                /* receiver: slots complete in order, by the driver */
    _Atomic uint64_t credit_sent;            /* receiver: slots, by the driver */
    _Atomic bool accepted;                   /* sender: the far end is there */
    _Atomic int failed;                      /* enum rail_result; `why` is final when it is set */
    char why[NET_WHY_BYTES];

    /* The driver's. */
    uint32_t number;           /* ours: how frames name it */
    uint32_t remote;           /* theirs, 0: not known */
    uint64_t assigned;         /* sender: slots cut into chunks so far */
    uint32_t assigned_bytes;   /* of the slot being cut */
    uint32_t turn_bytes;       /* sent in its present turn */
    uint32_t frames_out;       /* queued frames that point into memory */
    uint32_t lent_out;         /* of frames_out those for devices that point into known memory */
    uint32_t frames_left;      /* of them with devices, on lanes that are closed */
    uint64_t remote_finished;  /* the far end is closed and finished this many slots; UINT64_MAX: it is open */
    struct net_link *ring_next, *owing_next;
    uint32_t owing_tick;       /* when it began to owe */
    bool ringed, owing, urgent;
    bool wants_open, wants_accept, wants_refuse, wants_close;
    bool closed;               /* by its owner; lives on until nothing refers to it */
    struct net_acceptor *acceptor; /* the far end opened it: slots are delivered as they arrive. The driver's is also
                                      what belongs to the owner otherwise */
    struct net_link *accepted_next;
};

enum { NET_HOT_LANES_MAX = 4 };

/* When the next tick comes: not at all, soon enough to see a lane die, soon enough for credits. */
enum net_pace { NET_PACE_NONE, NET_PACE_SLOW, NET_PACE_FAST };

struct net {
    pthread_mutex_t lock;
    struct net *next;          /* list of all, for fork() */
    _Atomic bool abandoned;    /* in a forked child: not ours */
    struct net_config config;
    uint8_t process[NET_PROCESS_ID_BYTES];
    bool listening;
    struct net_rail rails[NET_MAX_RAILS];
    struct net_comm *comms;
    uint32_t n_comms, comms_room;
    uint64_t gone[NET_GONE];   /* keys; keys are random and never used again */
    uint32_t n_gone;           /* so far: the next goes to n_gone modulo NET_GONE */
    struct net_knock *knocks;  /* NET_KNOCKS_MAX */
    uint32_t n_knocks;
    struct net_peer *peers;
    struct net_acceptor *acceptors;
    struct net_region *regions; /* lent.c */
    uint32_t n_regions;
    uint64_t regions_turn;
    bool lend_refused;         /* which was said */
    struct net_peer *active;   /* that may have something to send */
    uint32_t n_connecting;     /* lanes in WAITING or CONNECTING */
    uint64_t sessions;

    struct net_carrier { struct net_watch watch; int fd; } carrier; /* carrier.c; fd -1: none */
    bool carrier_tried;
    uint64_t carriers_asked_ns;

    int epoll_fd;
    struct net_lane **up;      /* all lanes that are up */
    uint32_t n_up, up_room;
    _Atomic uint32_t n_armed;  /* of them have to be armed before anybody sleeps (lane.h) */
    struct net_lane *hot[NET_HOT_LANES_MAX]; /* had traffic lately: read without asking epoll */
    uint32_t n_hot;
    uint32_t drives_to_epoll;
    bool owes_late;            /* a tick found credits that have waited long enough */
    uint32_t tick_number;

    _Alignas(64) _Atomic(struct net_link *) inbox; /* links whose owners did something */
    _Atomic bool kicked;       /* an owner could not get the lock: whoever has it looks at the inbox again */
    _Atomic uint32_t callers;  /* inside net_enter */
    _Atomic uint32_t caller_drives;
    _Atomic int ticking;       /* enum net_pace that the timer is set for */
    _Atomic bool arms_due;     /* somebody wanted to arm lanes and did not get the lock */
    _Atomic bool looks_due;    /* a tick did not get the lock: whoever has it looks for dead lanes */
    _Atomic uint32_t seen_drives; /* caller_drives at the last tick: unchanged, nobody drives */
    struct service_source source;
    struct service_timer timer;
    bool service_added;

    /* Telemetry. */
    _Atomic uint64_t lent_slots, lent_bytes;
    _Atomic uint64_t knocks_refused, late_frames, duplicate_chunks, lane_tries, lane_moves;
};

/* net.c: the process's instance. */
struct net *net_default(void);
void net_fork_handlers_add(void); /* after the service's own are there */
uint32_t net_lanes_per_rail(bool rdma); /* as the variables want it; rdma: some rail has a device */
enum rail_result net_create(const struct net_config *config, struct net **out);
/* Tests only: everything must be closed. Blocks until the service thread is out. */
void net_destroy(struct net *net);
enum rail_result net_describe_on(struct net *net, struct net_address *out);
/* presence.c, under the lock: marks what is not there any more, or again. */
void net_look_again(struct net *net);
const char *net_flags_trouble(unsigned flags); /* of an interface (IFF_...): why it cannot be used; NULL: it can */
void net_rail_gone(struct net_rail *rail, const char *why);
/* carrier.c, under the lock: NICs that go are heard of at once. */
void net_carrier_open(struct net *net);
void net_carrier_close(struct net *net);
void net_carrier_ready(struct net *net);
void net_carrier_ask(struct net_rail *rail, int fd); /* fd: any socket */
void net_carrier_lost(struct net_rail *rail, const char *why); /* all lanes on that NIC are dead */
/* Each of the process's networks, one after the other, with no lock of theirs held. */
void net_each(void (*visit)(struct net *net, uint64_t number), uint64_t number);
/* devices.c, under the lock: RDMA devices of rails, and what they tell. */
void net_devices_open(struct net *net);
void net_devices_settle(struct net *net); /* waits, some seconds at most, until they have let go of what was lanes' */
void net_devices_close(struct net *net);
/* What the device has counted of its troubles since it was last asked, or opened, for behind a lane's last words: "; rx_0 has
 * counted 12 packets sent again", or "". Reads files, so once a second at most. Writes NET_COUNTED_BYTES. */
void net_device_counted(struct net_rail *rail, char *out);
void net_devices_tell(struct net *net); /* in the log: what they were asked to do so far */
void net_device_ready(struct net_rail *rail);
bool net_devices_tick(struct net *net, uint64_t now_ns); /* true: it wants the next tick */
/* What a handshake on that rail may offer; NULL: TCP only. */
struct verbs_port *net_device_offer(const struct net_rail *rail);
/* A handshake that ended over TCP although a device was there: said once at WARN. */
void net_device_without(struct net_rail *rail, const char *lane, const char *why);
/* For a few seconds its lanes over TCP are tried by RDMA again. */
void net_device_again(struct net_rail *rail);
/* suspect.c, under the lock: lanes that die without a word. True: a lane has work, and must be looked at again. */
bool suspect_tick(struct net *net, uint64_t now_ns);
enum rail_result suspect_asked(struct net_lane *lane, const struct frame *frame);
enum rail_result net_comm_add_on(struct net *net, uint64_t comm_key, const uint8_t secret[32]);
void net_comm_remove_on(struct net *net, uint64_t comm_key);
enum rail_result net_link_open_on(struct net *net, const struct net_link_request *request, struct link **out);
bool net_progress_on(struct net *net);
/* It was known here, and is no longer: who still asks for it will wait for ever. */
bool net_comm_gone(const struct net *net, uint64_t comm_key);
void net_peer_lost_on(struct net *net, const uint8_t process[NET_PROCESS_ID_BYTES], const char *why);

uint64_t net_answered_on(struct net *net, const uint8_t process[NET_PROCESS_ID_BYTES]);
uint32_t net_troubles_on(struct net *net, uint64_t comm_key, struct net_trouble *out, uint32_t room);

/* drive.c: who works when. */
void net_unlock(struct net *net);            /* releases the drive lock and does what was asked for meanwhile */
void net_submit(struct net_link *link, bool now); /* owner: look at this link; now: send if the lock is free */
void net_touch(struct net *net);             /* something is going on: keep the tick running */
void net_drive_inbox(struct net *net);
enum rail_result net_service_start(struct net *net);
void net_service_stop(struct net *net);
void net_hand_over(struct net *net);          /* a caller goes to sleep: the service thread drives from now on */
void net_lane_hot(struct net *net, struct net_lane *lane);
enum rail_result net_lane_watch(struct net *net, struct net_lane *lane, int fd, bool up);
void net_lane_unwatch(struct net *net, struct net_lane *lane);

/* connect.c: listeners, knocks, lanes being connected. */
enum rail_result net_listen(struct net *net);
void net_listener_ready(struct net *net, struct net_rail *rail);
void net_knock_ready(struct net *net, struct net_knock *knock);
void net_connect_peer(struct net_peer *peer);
void net_connect_step(struct net_lane *lane);
void net_connect_drop(struct net_lane *lane);
void net_connect_managed(struct net *net, uint32_t rail); /* librdmacm has told something */
/* One more socket for the lane that `beside` is, with another key. False: not now. */
bool net_connect_beside(struct net_lane *beside);
/* A socket for a lane that has none, with this turn. False: not now. */
bool net_peer_wanted(const struct net_peer *peer); /* a link of it goes on, or they have called */
bool net_connect_anew(struct net_peer *peer, uint32_t index, uint16_t turn);
/* Accepter: knocks at one of their NICs, in turn by `number`; where nobody is at home any more the peer is given up. */
void net_connect_ring(struct net_peer *peer, uint32_t number);
uint64_t net_features(const struct net *net); /* what we say in HELLO */
void net_connect_tick(struct net *net, uint64_t now_ns);

/* peer.c: the bundle of lanes to one process. */
struct net_peer *peer_get(struct net *net, const uint8_t process[NET_PROCESS_ID_BYTES], bool far, bool create);
enum rail_result peer_lanes_resize(struct net_peer *peer, uint32_t n_lanes);
struct net_lane *peer_lane(struct net_peer *peer, uint32_t berth, uint32_t rail);
/* The lane's other berth; NULL when it was never used. */
struct net_lane *peer_lane_beside(const struct net_lane *lane);
/* Takes the socket, and the RDMA connection if there is one, out of the handshake. */
enum rail_result peer_lane_up(struct net_lane *lane, struct handshake *handshake, const struct frame_hello *answer);
void peer_lane_off(struct net_lane *lane);   /* closes its socket; what it carried is the caller's business */
void peer_lane_ended(struct net_lane *lane, enum rail_result result, const char *why);
void peer_lane_left(struct net_lane *lane);  /* both ends have said LEAVE: links go on */
void peer_fail(struct net_peer *peer, enum rail_result result, const char *why);
/* Where it is, and how our NICs are called beside it (net_link_request.self; NULL: as net_describe told). */
void peer_address(struct net_peer *peer, const struct net_address *theirs, const struct net_address *ours);
bool peer_has_met(const struct net_peer *peer); /* some link of it, with its other end */
void peer_begin_anew(struct net_peer *peer); /* of one without lanes that has met nobody: another set of lanes */
void peer_leave(struct net_peer *peer);      /* closes all lanes in good order */
void peer_free_idle(struct net *net);       /* peers without lanes and links */
bool peer_read(struct net_lane *lane);
static inline bool net_takes_frames(const struct net_lane *lane)
{
    return lane && lane->state == NET_LANE_UP && !lane->leaving;
}

/* number.c: its links, by the numbers that frames name them by. */
struct net_link *peer_link(struct net_peer *peer, uint32_t number, bool *late);
struct net_link *peer_link_or_closed(struct net_peer *peer, uint32_t number, bool *late); /* that lives on */
enum rail_result peer_link_add(struct net_peer *peer, struct net_link *link);
void peer_link_remove(struct net_link *link);

/* turn.c: whose turn it is on them. */
void peer_activate(struct net_peer *peer);
void peer_ring(struct net_link *link);       /* it has something to say: at the end of the ring */
void peer_owe(struct net_link *link, bool urgent);
void turn_ended(struct net_peer *peer);      /* of the first link in the ring */
void turn_forget(struct net_link *link);
void credit_put(struct net_link *link, struct frame *frame);
void credit_ride(struct net_peer *peer, struct frame *frame); /* of the first link that owes some */

/* send.c: what goes out. True if anything moved; *more: something is left to send. */
bool peer_send(struct net_peer *peer, bool *more);

/* move.c: lanes on bad routes get other keys. */
bool move_tick(struct net *net, uint64_t now_ns); /* true: something is under way that needs the next tick */
void move_begins(struct net_lane *newcomer);      /* it is up */
void move_failed(struct net_lane *newcomer);      /* it could not be connected */
void move_lane(struct net_lane *lane);            /* now, for good, whatever it carries */
bool move_say_leave(struct net_lane *lane);       /* queues LEAVE when there is room; true when queued */
bool move_is_left(const struct net_lane *lane);   /* both ends have said it */
/* Frames, checked before they are believed. */
enum rail_result move_asked(struct net_lane *lane, const struct frame *frame);
enum rail_result move_opinion(struct net_lane *lane, const struct frame *frame);
enum rail_result move_heard_leave(struct net_lane *lane, const struct frame *frame);

/* control.c: what must arrive in order, once, whichever lanes die. */
bool control_say(struct net_peer *peer, const struct frame *frame, const void *payload); /* false: no memory */
bool control_send(struct net_peer *peer);         /* queues what there is room for; true: something is left */
void control_lane_gone(struct net_peer *peer);    /* what was on it goes on another one */
void control_reset(struct net_peer *peer);        /* a new set of lanes */
uint64_t control_acknowledge(struct net_peer *peer); /* for a frame that carries no number of its own */
bool control_owes(struct net_peer *peer);         /* an acknowledgement that found nothing to ride on */
enum rail_result control_heard_ack(struct lane *lane, const struct frame *frame);
/* RAIL_OK: it is its turn; RAIL_NOT_YET: it came before; else a gap. */
enum rail_result control_admit(struct lane *lane, const struct frame *frame);

/* mend.c: lanes that die. */
static inline bool net_mends(const struct net_peer *peer) { return (peer->features & FRAME_FEATURE_REPAIR) != 0; }
void mend_set_begins(struct net_peer *peer);      /* before its first lane is up */
void mend_lane_up(struct net_lane *lane);
void mend_lane_ended(struct net_lane *lane, const char *why);
void mend_make_room(struct net_peer *peer, uint32_t index); /* they have closed it and connect it anew */
void mend_try_failed(struct net_lane *lane, const char *why);
void mend_nic_back(struct net *net, uint32_t rail);
enum rail_result mend_heard_down(struct net_lane *lane, const struct frame *frame);
enum rail_result mend_heard_bitmaps(struct net_lane *lane, const struct frame *frame);
void mend_look(struct net_peer *peer);            /* after reading: LANE_DOWN has come */
enum net_pace mend_tick(struct net *net, uint64_t now_ns); /* of the next tick that it wants */

/* direct.c: chunks written straight into the receiver's slots. */
void direct_came(struct net_link *link, const struct net_lane *lane, uint32_t bytes); /* receiver: a chunk, so */
uint8_t *direct_slot(const struct net_link *link, uint64_t sequence);   /* receiver: where the slot lies */
bool direct_admits(const struct net_link *link, uint64_t sequence);     /* a chunk of it that says it was written straight */
uint64_t direct_credit(const struct net_link *link, uint64_t released); /* how many of them may be credited */
bool direct_trims(struct net_link *link); /* receiver: nobody can write into it; else its pages go when it is so */
void direct_lane_ends(struct net_lane *lane); /* just before it is closed */
/* A try is given up, likewise: the far end may have thought it up, and may have written by it. */
void direct_try_ends(struct net_lane *lane);
void direct_lane_gone(void *peer);            /* a queue pair of it is */
bool direct_tick(struct net *net, uint64_t now_ns); /* true: it wants the next tick */
/* Sender: where a chunk of `bytes` for `offset` of all slots goes by that lane; false: through its ring. */
bool direct_place(const struct net_link *link, const struct net_lane *lane, uint32_t bytes, uint64_t offset, uint64_t *to,
                  uint32_t *key);
void direct_end(struct net_link *link);      /* sender: takes no more chunks for it; RETURN in time */
void direct_look(struct net_link *link);     /* sender: a frame is not out any more */
bool direct_wishes(const struct net_link *link);
void direct_say(struct net_link *link);      /* the first of them */
void direct_closed(struct net_link *link);   /* by its owner */
void direct_set_ended(struct net_link *link); /* with the set of lanes every grant is over */
enum rail_result direct_heard_grant(struct net_lane *lane, const struct frame *frame);
enum rail_result direct_heard_withdraw(struct net_lane *lane, const struct frame *frame);
enum rail_result direct_heard_return(struct net_lane *lane, const struct frame *frame);

/* known.c: true: the range that holds these bytes, which cannot be ended before known_unlock. */
bool known_lock(const void *at, size_t bytes, struct net_lent *out);
void known_unlock(void);
void known_fork_prepare(void);
void known_fork_parent(void);
void known_fork_child(void);

/* lent.c: slots whose content lies in known memory. */
extern const struct link_lending net_lending;
void lent_end(struct net *net, uint64_t number); /* takes the lock */
void lent_clear(struct net *net);                /* with the last lane gone */
/* Where the slot's content lies for a chunk of `bytes` on that lane; *memory: lent_queued() when it is queued, unless NULL. */
const uint8_t *lent_payload(struct net_link *link, const struct net_lane *lane, uint64_t sequence, uint32_t bytes,
                            struct lane_memory **memory);
void lent_queued(struct net_link *link, struct lane *lane, struct lane_memory *memory);
void lent_sent(struct net_link *link, struct lane_memory *memory); /* such a frame is out of the device's hands */

/* carriage.c: who carried what. All of a link that sends; sequences and grains as frames name them. */
uint32_t link_grains(const struct net_link *link, uint32_t bytes); /* an empty slot has one */
void carriage_carries(struct net_link *link, uint64_t sequence, uint32_t first, uint32_t n, const struct net_lane *lane);
void carriage_doubt(struct net_link *link, const struct net_lane *lane);  /* its socket is closed */
/* Its socket was replaced by the heir's; what it carried shares the lane's fate until it is credited. */
void carriage_inherit(struct net_link *link, const struct net_lane *lane, const struct net_lane *heir);
void carriage_again(struct net_link *link, uint32_t index);               /* what is in doubt of that lane */
/* The oldest slot that is not credited was that one the last time, too, and lanes have some of it: they are marked.
 * False: nothing is out, or it moves. */
bool carriage_stands(struct net_link *link);
void carriage_landed_before(struct net_link *link, uint64_t sequence);
/* False: a bit beyond what was sent of the slot. */
bool carriage_landed(struct net_link *link, uint64_t sequence, const uint8_t *bits, uint32_t n_bytes);
/* The next run of grains to be sent again; false: none. */
bool carriage_next(struct net_link *link, uint64_t *sequence, uint32_t *first, uint32_t *n);

/* net_link.c: one end. */
void link_look(struct net_link *link);       /* the driver: its owner did something */
void link_fail(struct net_link *link, enum rail_result result, const char *why);
enum rail_result link_failure(struct net_link *link); /* for its owner; RAIL_NOT_YET: it has not failed */
void link_wake(struct net_link *link);
bool link_has_data(const struct net_link *link);
void link_matched(struct net_link *link, const struct frame_open *open, uint32_t number); /* receiver: OPEN is here */
/* Answers an OPEN for which there will be no receiving end. */
void link_refuse(struct net_peer *peer, const struct frame_open *open, uint32_t number);
enum rail_result link_memory(struct net_link *link);
void link_give_pages_back(struct net_link *link); /* of one whose slots are all empty */
bool link_free_if_done(struct net_link *link);

struct net_link *link_make(struct net *net, const struct net_link_request *request);
void link_free(struct net_link *link);       /* of one that no peer knows */
void link_close(struct net_link *link);      /* lock held */

/* accept.c: links that the far end opens. */
bool accept_open(struct net_peer *peer, const struct frame_open *open, uint32_t number); /* true: it was taken */
void accept_deliver(struct net_link *link, const struct net_slot *slot, const void *memory);
enum rail_result net_accept_on(struct net *net, struct net_acceptor *acceptor);

/* receive.c: frames that arrive (the sink of all lanes). */
extern const struct lane_sink net_sink;
__attribute__((format(printf, 2, 3), cold)) enum rail_result net_violation(struct lane *lane, const char *format, ...);

#endif
