/* state.h - the inside of a struct bootstrap: shared by the files that make it up (join.c, collect.c, bootstrap.c).
 *
 * Who does what: connections are opened, read and closed on the service thread only. Callers may queue and flush output
 * (that saves a hop), then they sleep on `turn` until the service thread has brought what they wait for. `lock`
 * protects everything that is not written once before the first callback. */
#ifndef RAIL_BOOTSTRAP_STATE_H
#define RAIL_BOOTSTRAP_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "bootstrap/acceptor.h"
#include "bootstrap/bootstrap.h"
#include "bootstrap/conn.h"
#include "bootstrap/dialer.h"
#include "bootstrap/id.h"
#include "bootstrap/tree.h"
#include "topo/machine.h"

enum bootstrap_phase {
    PHASE_DIALING_ROOT,    /* waits for a proven connection to the root */
    PHASE_WAITING_WELCOME, /* has said hello; waits for all other ranks */
    PHASE_JOINING_TREE,    /* knows its parent; waits for it and for its own children */
    PHASE_OPEN,
};

/* A neighbour in the tree; also an orphan that appealed, and the judge that an orphan appealed to (verdict.c). */
struct tree_peer {
    struct conn conn; /* first: cast from source */
    struct bootstrap *owner;
    struct wire_person person;
    uint32_t subtree; /* ranks below and including it, for a child */
    bool present;     /* it has shown who it is */
    bool left;        /* it said goodbye */
    bool appeal;      /* no neighbour in the tree: verdict.c */
    bool has_gathered; /* its contribution to the next collective is here: */
    struct blob *gathered; /* NULL when that has no bytes */
    struct wire_awaits awaits; /* n > 0: it is in the next collective, and lacks these below it */

    /* session.c: frames over all its connections */
    struct kept *kept_first, *kept_last; /* sent, or to be sent, and not known to have arrived */
    uint64_t sent, received, told;       /* told: of `received`, in the last BEAT */
    uint64_t untold_bytes;
    uint32_t number;                     /* of the present connection; of a child: as it says */
    bool holding;                        /* what it has got is not known yet: frames are kept only */

    /* pulse.c, redial.c */
    uint64_t host_key;
    struct wire_place place;
    bool remote;       /* on another host: silence is looked for */
    bool lost;         /* found dead or unreachable */
    bool switching;    /* parent: CHILD went over a new connection, so the end of the old one means nothing */
    bool suspected;
    bool quiet;        /* it has said nothing for long: not beaten at */
    uint64_t spoke_ns; /* its last frame */
    uint64_t heard_ns;
    uint64_t elsewhere_ns; /* suspected: its host was heard of by other ways than the tree (bootstrap_hear) */
    int unacked_bytes; /* at the last look, as the next one */
    uint64_t acked_bytes;
    struct redial *redial; /* NULL: not */

    struct tree_peer *next_stray;
};

enum { PARENT = 0, FIRST_CHILD = 1, PEERS_MAX = 1 + BOOTSTRAP_FANOUT, INTERFACES_MAX = 16, REPORTS_MAX = 64, WORDS_MAX = 4 };

/* The collective that a caller is inside of. */
struct collective {
    bool active, sent_up, done;
    bool noted; /* it has told its parent whom it lacks, and passes on what it hears later */
    bool said;  /* rank 0: who is missing, as a warning */
    const char *name; /* "all-gather" */
    size_t bytes_each;
    struct blob *own, *table; /* table: all ranks' bytes, when done; both NULL when bytes_each is 0 */
};

struct bootstrap {
    pthread_mutex_t lock;
    _Atomic uint32_t turn; /* futex: changes whenever a sleeping caller may go on */
    pid_t pid;
    uint32_t rank, n_ranks, n_children, subtree;
    const _Atomic uint32_t *stop;
    struct unique_id id;
    struct rail_deadline join_deadline;
    enum rail_result (*in_vain)(void *owner); /* bootstrap_config's */
    void *in_vain_owner;
    uint64_t opened_ns;
    uint8_t secret[BOOTSTRAP_SECRET_BYTES], tree_key[AUTH_KEY_BYTES], tree_key_id[AUTH_ID_BYTES];

    enum bootstrap_phase phase;
    struct machine_interface interfaces[INTERFACES_MAX];
    int n_interfaces;
    struct dialer dialer; /* to the root, then to the parent */
    struct acceptor door; /* for the children */
    struct conn root;
    struct tree_peer peers[PEERS_MAX];

    struct collective collective;
    uint32_t n_collectives; /* done by the tree; also the sequence number of the last */

    bool failed, failed_here; /* here: told by the owner itself */
    struct wire_news verdict;
    struct bootstrap_watch watch;
    bool reported;

    uint8_t (*reports)[BOOTSTRAP_REPORT_BYTES]; /* rank 0, [REPORTS_MAX]: to be handed over at the end of the callback; NULL:
                                                   none came yet */
    uint32_t n_reports;

    struct bootstrap *next_expecting; /* reception.c's */

    struct wire_word words[WORDS_MAX]; /* others: to be handed over, as above */
    uint32_t n_words;

    struct service_timer pulse; /* pulse.c: from OPEN on */
    uint64_t pulse_due_ns;
    uint32_t pulses;
    _Atomic bool keyed;         /* the reception may look at tree_key and its id */
    struct wire_place place;    /* this process's */
    bool (*who)(void *owner, uint32_t rank, struct bootstrap_who *out);
    void *who_owner;
    uint64_t (*heard)(void *owner, uint32_t rank);
    void *heard_owner;
    struct court *court;        /* verdict.c; NULL: nothing was found yet */
    struct tree_peer *strays;   /* orphans that appealed to this rank */

    struct service_timer kick; /* runs closing and late reports on the service thread */
    bool closing, said_goodbye, torn_down;
    uint64_t close_until_ns;
};

static inline struct bootstrap *bootstrap_of_root_conn(struct conn *conn)
{
    return (struct bootstrap *)(void *)((char *)conn - offsetof(struct bootstrap, root));
}

/* Lock held. Records the first failure, sends the news to all neighbours but `from`, wakes callers. */
void bootstrap_fail(struct bootstrap *b, uint32_t culprit, enum rail_result result, const char *text,
                    const struct tree_peer *from);
/* Its two halves: keeping the failure, and sending it on. */
void bootstrap_record(struct bootstrap *b, uint32_t culprit, enum rail_result result, const char *text);
/* As bootstrap_fail, of a process that is gone for certain. */
void bootstrap_fail_gone(struct bootstrap *b, uint32_t culprit, const char *text, const struct tree_peer *from);
void bootstrap_spread_news(struct bootstrap *b, const struct tree_peer *from);
void bootstrap_wake(struct bootstrap *b);
/* Releases the lock at the end of a callback on the service thread, and reports a failure if one is due. */
void bootstrap_leave(struct bootstrap *b);
/* Sleeps, lock not held, until turn is no longer `seen`: RAIL_OK, or RAIL_E_TIMEOUT, RAIL_E_ABORTED without a text. */
enum rail_result bootstrap_sleep(struct bootstrap *b, uint32_t seen, struct rail_deadline deadline);

/* tree.c's neighbours as connections: peers.c */
enum rail_result peer_open(struct bootstrap *b, struct tree_peer *peer, int fd);
/* A present neighbour's process is gone for certain. */
void peer_died(struct bootstrap *b, struct tree_peer *peer);
/* Nothing of its host answered for BOOTSTRAP_LOST_MS. */
void peer_unreachable(struct bootstrap *b, struct tree_peer *peer);
/* It lives, and the new connection to it is of no use: `why` in some words. */
void peer_cut_off(struct bootstrap *b, struct tree_peer *peer, const char *why);

/* session.c, lock held: counted frames. RAIL_E_SYSTEM when out of memory. */
enum rail_result peer_queue(struct tree_peer *peer, enum frame_type type, uint32_t sequence, struct blob *payload);
enum rail_result peer_queue_copy(struct tree_peer *peer, enum frame_type type, uint32_t sequence, const void *bytes,
                                 size_t n);
/* A counted frame came: acknowledges at once what would be much to keep. */
void session_took(struct tree_peer *peer, const struct frame_head *head);
bool session_is_counted(uint32_t type);
void session_beat(struct tree_peer *peer);
/* The far end has so many of our frames: false, that cannot be. */
bool session_acked(struct tree_peer *peer, uint64_t received);
/* Over a new connection: sends again what it has not got. */
bool session_resume(struct tree_peer *peer, uint64_t received);
void session_drop(struct tree_peer *peer);

/* A connection on which nothing was acknowledged for so long is silent, where the kernels ask once a second. */
#define PULSE_IDLE_NS (1300 * RAIL_NS_PER_MS)
/* pulse.c, lock held. The tree is open: looks after its neighbours from now on. */
void pulse_start(struct bootstrap *b);
/* Also where all neighbours are on this host: one has lost its way. */
void pulse_arm(struct bootstrap *b);
/* Something of it answered just now. */
void pulse_heard(struct tree_peer *peer);
/* When the far kernel acknowledged something on this socket last; 0: not known. */
uint64_t pulse_last_answer(int fd, uint64_t now_ns);

/* redial.c, lock held, service thread. To all addresses of the neighbour at once. A parent gets CHILD over the first
 * that answers; a child is only knocked at: it dials us. */
void redial_start(struct bootstrap *b, struct tree_peer *peer);
/* Now and then while it goes on: attempts without an answer begin anew; false: a host refuses, the process is gone. */
bool redial_look(struct bootstrap *b, struct tree_peer *peer, uint64_t now_ns);
void redial_end(struct tree_peer *peer);

/* verdict.c, lock held. */
void verdict_find(struct bootstrap *b, const struct wire_finding *finding);
void verdict_found(struct bootstrap *b, enum finding_kind kind, uint32_t culprit, const struct tree_peer *peer,
                   const char *text);
/* The parent is lost: somebody else decides, or this rank. */
void verdict_orphaned(struct bootstrap *b);
/* The parent said goodbye. */
void verdict_parent_left(struct bootstrap *b);
/* An orphan appeals to this rank. Takes over `fd`. */
void verdict_appealed(struct bootstrap *b, int fd, const struct wire_child *child);
/* A connection of an appeal, either end, has gone. */
void verdict_conn_gone(struct bootstrap *b, struct tree_peer *peer);
/* The judge has taken this rank's appeal. Takes over `fd`. */
void verdict_adopted(struct bootstrap *b, int fd);
void verdict_spread(struct bootstrap *b, const struct tree_peer *from);
void verdict_close(struct bootstrap *b);
void verdict_free(struct bootstrap *b);

/* Lock held: to the children. peers.c */
void word_down(struct bootstrap *b, const struct wire_word *word);

/* Lock held: a step nearer to rank 0. peers.c */
void report_up(struct bootstrap *b, const uint8_t report[BOOTSTRAP_REPORT_BYTES]);

/* join.c: memory, and what does not depend on the way of joining. */
enum rail_result bootstrap_create(const struct bootstrap_config *config, struct bootstrap **out);

/* join_tree.c, lock held: how this rank introduces itself to a parent. */
void join_introduce(const struct bootstrap *b, struct wire_child *out);
/* The half of joining that is the same by whatever way a rank learned who its parent is. */
void join_person(const struct bootstrap *b, struct wire_person *out);
void join_fail(struct bootstrap *b, enum rail_result result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int join_scopes(const struct bootstrap *b, uint32_t out[DIALER_SCOPES_MAX]);
/* b->secret is there: what the tree's connections prove. */
void join_tree_keys(struct bootstrap *b);
void join_dial_parent(struct bootstrap *b, const struct endpoint *endpoints, uint32_t n_endpoints);
/* Somebody has proven the tree's key; takes over `fd` and `payload` (struct wire_child). */
void join_child_arrived(struct bootstrap *b, int fd, struct blob *payload);
/* OPEN if nobody is missing any more. */
void join_check(struct bootstrap *b);
/* The caller's side: sleeps until this rank has its place, or cannot have it. `started`: how starting went. */
enum rail_result join_wait(struct bootstrap *b, enum rail_result started);
/* On the service thread. */
void join_adopted(struct bootstrap *b);
/* The parent's connection broke before it adopted us: it was not the parent. */
void join_wrong_parent(struct bootstrap *b);

/* collect.c: lock held. Moves the present collective on as far as it goes. */
void collect_advance(struct bootstrap *b);
bool collect_admits(struct bootstrap *b, const struct tree_peer *peer, const struct frame_head *head);
void collect_receive(struct bootstrap *b, struct tree_peer *peer, struct frame *frame);

#endif
