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

/* A neighbour in the tree. */
struct tree_peer {
    struct conn conn; /* first: cast from source */
    struct bootstrap *owner;
    struct wire_person person;
    uint32_t subtree; /* ranks below and including it, for a child */
    bool present;     /* it has shown who it is */
    bool left;        /* it said goodbye */
    bool has_gathered; /* its contribution to the next collective is here: */
    struct blob *gathered; /* NULL when that has no bytes */
    struct wire_awaits awaits; /* n > 0: it is in the next collective, and lacks these below it */
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
void bootstrap_spread_news(struct bootstrap *b, const struct tree_peer *from);
void bootstrap_wake(struct bootstrap *b);
/* Releases the lock at the end of a callback on the service thread, and reports a failure if one is due. */
void bootstrap_leave(struct bootstrap *b);
/* Sleeps, lock not held, until turn is no longer `seen`: RAIL_OK, or RAIL_E_TIMEOUT, RAIL_E_ABORTED without a text. */
enum rail_result bootstrap_sleep(struct bootstrap *b, uint32_t seen, struct rail_deadline deadline);

/* tree.c's neighbours as connections: peers.c */
enum rail_result peer_open(struct bootstrap *b, struct tree_peer *peer, int fd);

/* Lock held: to the children. peers.c */
void word_down(struct bootstrap *b, const struct wire_word *word);

/* Lock held: a step nearer to rank 0. peers.c */
void report_up(struct bootstrap *b, const uint8_t report[BOOTSTRAP_REPORT_BYTES]);

/* join.c: memory, and what does not depend on the way of joining. */
enum rail_result bootstrap_create(const struct bootstrap_config *config, struct bootstrap **out);

/* join_tree.c, lock held: the half of joining that is the same by whatever way a rank learned who its parent is. */
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
