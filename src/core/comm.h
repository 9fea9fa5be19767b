/* comm.h - the communicator: who takes part, by which wires, and whether it still works. */
#ifndef RAIL_CORE_COMM_H
#define RAIL_CORE_COMM_H

#include <stdint.h>

#include "algos/algos.h"
#include "base/service.h"
#include "bootstrap/bootstrap.h"
#include "core/alltoall.h"
#include "core/config.h"
#include "core/digest.h"
#include "core/fault.h"
#include "core/gpu_watch.h"
#include "core/onesided.h"
#include "core/redop.h"
#include "core/registration.h"
#include "core/table.h"
#include "core/watch.h"
#include "core/window.h"
#include "core/wires.h"
#include "engine/calls.h"
#include "engine/express.h"
#include "engine/host.h"
#include "engine/messages.h"
#include "engine/wait.h"
#include "topo/order.h"
#include "topo/shape.h"

/* What every rank says of itself at init. Plain bytes, all-gathered. */
struct member {
    uint64_t host;           /* machine_host_key() */
    uint64_t machine;        /* machine_key() */
    uint64_t agreed;         /* hash of the settings that must agree */
    uint8_t process[16];     /* net_process_id() */
    int32_t pid;
    int32_t cores;           /* machine_cores() */
    char host_name[32];
    uint8_t fresh[16];       /* random, for this communicator: */
    uint64_t fresh_at;       /* where its process keeps that (readers.h) */
    uint64_t fabric;         /* digest of its fabric file, 0 = none */
    struct place hangs;      /* the switches above its host */
    int32_t gpu;             /* number of its device; -1: a host rank */
    uint32_t tuned;          /* 1: its tuning file has limits for so many ranks */
    struct bootstrap_place place; /* where its process is found by communicators made of this one */
};

/* Private memory for plans that want some; grows, and is kept. */
struct scratch {
    unsigned char *at;
    size_t bytes;
};

/* What ranks called, compared now and then (notes.h); the service thread's but for `watching`. */
enum { COMM_REPORTS = 16 };
struct notes {
    _Atomic bool watching; /* the timer runs: set by the caller, cleared by the service thread */
    uint32_t quiet;        /* looks since the last call */
    uint64_t seen;         /* calls at the last look */
    struct service_timer timer;
    struct calls_history *kept; /* rank 0, [COMM_REPORTS]: the last report of rank r at r modulo that. NULL: none came */
};

struct comm {
    _Atomic uint64_t magic; /* COMM_MAGIC while calls may come; a call may look at it while another thread aborts */
    _Atomic uint32_t ending; /* a thread is destroying or aborting it: that one frees it */
    uint32_t rank, n_ranks;
    struct comm_config config;
    int device;          /* as given to InitAll; -1 on a host rank otherwise */
    struct cuda_device *gpu_device; /* held; NULL: a host rank */
    struct gpu *gpu;     /* NULL: a host rank */
    struct gpu_watched gpu_watched;
    struct shape shape;
    struct member *members; /* [n_ranks] */
    struct bootstrap *bootstrap;
    struct host_node node;
    struct wires wires;
    struct alltoall alltoall;
    struct messages p2p; /* what ncclSend and ncclRecv move; made at first use (p2p.c) */
    struct net_address *addresses; /* [n_ranks], NULL within one node */
    uint8_t *home_nic;   /* [n_ranks] the rank's home among its addresses' NICs (homes.h); NULL within one node */
    bool networked;      /* the listeners know this communicator */
    struct choice_table table;
    struct wait_policy policy;
    struct fault fault;
    struct watch watch;
    struct redops redops;
    struct registrations registrations;
    struct windows windows;
    struct onesided onesided;
    struct digest *digest; /* NULL: not asked for */
    struct scratch scratch; /* of the collective that runs: one at a time */
    bool unrung;         /* a GPU takes part in the node: it rings no doorbells */
    bool direct;         /* all ranks of the node are in this process: peers may use addresses */
    uint64_t share_least;/* bytes given and got by a call from which registered buffers are used where they are */
    uint64_t read_least; /* bytes of a block from which peers read my buffers by the kernel (collective.c); UINT64_MAX: never */
    enum messages_offers offers; /* how a receiver of the node gets at a message where it lies, */
    uint64_t offer_least;        /* and from how many bytes on it does, of AlltoAll's or of a group's that receives, too */
    bool express;        /* the smallest messages take the express path */
    struct express_op express_op; /* the one that runs in steps (of a group) */
    bool finalized;
    bool stopped;        /* by comm_stop, which only this rank knows of */
    _Atomic bool revoked; /* by comm_revoke of this rank */
    _Atomic uint32_t revoking; /* threads that are in comm_revoke: freeing waits for them */
    uint64_t n_splits;   /* so far; the same on all ranks */
    _Atomic uint32_t blamed; /* rank + 1 that the first news named; 0: nobody */
    _Atomic uint32_t dead;   /* the same, where the news is that its process is no more: that is certain */
    _Atomic bool joined; /* the doorbell is there: news may ring it */
    uint64_t next_reach_ns;  /* when it may look for peers that it cannot reach again */
    struct notes notes;
    _Atomic uint32_t posted, ran; /* groups of calls on streams, over its life (posted.h) */
    _Atomic uint32_t inside; /* a thread works in a call: set by that thread, awaited by an abort */
    struct comm *next_ever;    /* comm_store.c's: all that were ever made */
    struct comm *next_retired; /* comm_store.c's, like the next two */
    uint32_t n_keepers;
    bool retired;
    uint64_t magic_end;
};

/* What comm->magic says. Calls are admitted at COMM_MAGIC only; 0 is dead. While a thread of the library's works for
 * the communicator (the next three), only that thread touches it: whoever ends the communicator meanwhile stores 0 and
 * leaves the freeing to it. */
#define COMM_MAGIC 0x7261696c636f6d6dull      /* "railcomm" */
#define COMM_JOINING 0x7261696c6a6f696eull    /* "railjoin": is being made */
#define COMM_DERIVING 0x7261696c64657269ull   /* "railderi": others are being made of it */
#define COMM_FINALIZING 0x7261696c66696e61ull /* "railfina" */
#define COMM_SUSPENDED 0x7261696c73757370ull  /* "railsusp" */
#define COMM_FAILED 0x7261696c6661696cull     /* "railfail": could not be made; holds nothing but its fault */
#define COMM_LEFT 0x7261696c6c656674ull       /* "railleft": the program ends; it has said goodbye */
#define COMM_OF_PARENT 0x7261696c70617265ull  /* "railpare": made before fork(), this is the child; nothing to be touched */
#define COMM_MAGIC_END 0x6d6d6f636c696172ull

/* Memory for a communicator, at COMM_JOINING; it takes one more hold on `gpu` (NULL: a host rank). NULL with an error text that names `call`. */
struct comm *comm_new(const char *call, const struct comm_config *config, int device, struct cuda_device *gpu);
/* The library's thread is done with its work: COMM_MAGIC, or freed if somebody ended the communicator meanwhile. */
void comm_made(struct comm *comm, uint64_t from);
/* It could not be made: frees all but the handle, which remembers why (COMM_FAILED), unless it was ended meanwhile. */
void comm_not_made(struct comm *comm, enum rail_result result);
/* The same, for a handle that nobody has: frees it. */
void comm_free(struct comm *comm);

/* Waits until everything sent has arrived (bounded by RAILCCL_FINALIZE_TIMEOUT_S). Idempotent. Not blocking:
 * RAIL_IN_PROGRESS, and a thread of the library's goes on. */
enum rail_result comm_finalize(struct comm *comm);
/* Waits until everything sent has arrived, as comm_finalize; the communicator works on. */
enum rail_result comm_drain(struct comm *comm, const char *call);
/* Waits for what the library's thread is doing, finalizes if that was not done, says goodbye, frees. */
enum rail_result comm_destroy(struct comm *comm);
/* From any thread, while another may be inside a call: makes that call return, without waiting for peers. Then frees. */
enum rail_result comm_abort(struct comm *comm);

/* Stops its operations and keeps it: what other threads have running in it returns with an error that says "rank N
 * `what`", and so do all later operations. Returns when nobody is inside any more: microseconds, or a sleep's end. */
void comm_stop(struct comm *comm, const char *what);

/* The same on every rank, and told to all: what runs fails with RAIL_E_REVOKED, and so does what comes. A shrink that
 * another thread is in goes on. RAIL_E_ARGUMENT, RAIL_E_USAGE: there is no communicator to revoke (yet). Any thread. */
enum rail_result comm_revoke(struct comm *comm);

/* May calls come? Else RAIL_E_ARGUMENT (no living communicator) or RAIL_E_USAGE (in progress, failed) with a text that
 * names `call`. */
enum rail_result comm_check(const struct comm *comm, const char *call);
/* In a child of fork(), of a communicator that the parent made: there is nothing to end, the handle is forgotten. */
bool comm_forget_parents(struct comm *comm);
/* The same, but a suspended one will do: for questions. */
enum rail_result comm_made_check(const struct comm *comm, const char *call);
/* The same, for what was posted to a stream before: the library's thread waits for that before it begins. */
enum rail_result comm_runs_check(const struct comm *comm, const char *call);
/* Is it one at all, in whatever state? For destroying, aborting and asking how it is. */
enum rail_result comm_known(const struct comm *comm, const char *call);
/* RAIL_IN_PROGRESS, RAIL_OK, or its fault with its text; a revocation is no fault where it was called. Any thread, at any
 * time. */
enum rail_result comm_state(struct comm *comm);

/* Waits until what was posted to streams has run: calls without a stream come after it. */
void comm_settle_slow(const struct comm *comm);
static inline void comm_settle(const struct comm *comm)
{
    uint32_t ran = atomic_load_explicit(&comm->ran, memory_order_acquire);
    if (__builtin_expect(ran != atomic_load_explicit(&comm->posted, memory_order_relaxed), 0)) comm_settle_slow(comm);
}

/* A call that is no operation works for the communicator, as in comm_enter, but drives no network: an abort waits for it.
 * RAIL_E_USAGE when another thread is inside. */
enum rail_result comm_hold(struct comm *comm, const char *call);
void comm_let_go(struct comm *comm);

#endif
