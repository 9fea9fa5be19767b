/* watch.h - who is being waited for. A collective whose ranks are alive waits for ever; whoever has waited for long
 * works out why, with the others, and keeps one line of words: after a second for the log (INFO, RAS; again when
 * somebody else is to blame) and for ncclGetLastError, at any time for the text of an abort, after RAILCCL_WATCH_S
 * as a warning, once per stall, and once more when it is over. A healthy run says nothing, and a late rank is no
 * error. docs/WATCH.md has the lines.
 *
 *   watch.c            the thread that waits: looks at its own wait every 50 ms, reports to rank 0, speaks
 *   watch_state.h      what it reports: its last calls, for whom it waits, how far it has come, which lanes are down
 *   watch_notes.c      rank 0: asks all (bootstrap_word), takes down what they answer, tells all the verdict. Answers
 *                      come from service threads, so a rank that never calls answers, too; a stopped process does not
 *   watch_verdict.c    notes --> verdict: a pure function
 *   watch_blame.c      the same of complaints about lanes: the NIC, the rail or the host
 *   watch_words.c      ranks and calls in words
 *   watch_elsewhere.c  threads of this process that wait, by communicator */
#ifndef RAIL_CORE_WATCH_H
#define RAIL_CORE_WATCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/watch_state.h"

struct comm;

enum { WATCH_TEXT = 400, WATCH_STALLS = 8 };

/* What rank 0 knows of a rank. */
struct watch_note {
    struct watch_report last;
    uint64_t at_ns; /* when that came; 0: never */
    uint64_t inside_ns; /* since when it was found in the call that it is in; 0: it is in none */
    bool stopped;   /* its process is on this machine, and the kernel says that it is stopped */
};

/* What to say, and a number that changes when somebody else is to blame, or for something else. */
struct watch_line {
    uint16_t key; /* 0: nothing */
    uint32_t last; /* the rank that all others wait for, if it is a late one; else UINT32_MAX */
    char text[WATCH_TEXT];
};

struct watch {
    uint64_t number;   /* the call that this rank waits in, for long; 0: none. The communicator's thread's, as what
                          follows */
    uint64_t began_ns; /* that wait */
    uint64_t looked_ns, spoke_ns, reported_ns, asked_lanes_ns;
    uint64_t grew_ns, window_ns; /* when `done` last grew; the second that rates are taken over, */
    uint64_t waited_ns, absent_ns; /* what of it was waited, and what the thread was not there for; */
    uint32_t absent[2];            /* that of the two before, in thousandths */
    uint64_t window_done;
    uint16_t said_key;
    uint8_t n_said;
    uint32_t late; /* the rank that was named as late in this stall; else UINT32_MAX */
    bool warned;
    struct { uint32_t rank; double s; } stalls[WATCH_STALLS]; /* the last ones: who came last, after how long */
    uint32_t n_stalls;

    _Atomic uint64_t caller; /* the thread that was inside last (watch_elsewhere.c) */
    _Atomic uint64_t self;   /* watch_rank_hash() of this rank */

    pthread_mutex_t lock;    /* protects the rest */
    uint64_t stalled;        /* = number, for other threads */
    char what[WATCH_TEXT];   /* the call; where that is none, with whom it waits for: "CALL: rank ..." */
    struct watch_line line;  /* "" or " " while nobody is known to be to blame */
    bool by_all;             /* it is rank 0's, who knows more */
    uint64_t heard_ns;       /* rank 0's last word, of whatever kind */
    struct watch_state state;
    uint64_t state_ns;       /* when it was looked at */
    /* Rank 0's. */
    struct watch_note *notes; /* [n_ranks] */
    uint64_t asked_ns, first_asked_ns, concluded_ns;
    uint64_t asked_number;    /* of the call that somebody waits in */
    bool told;                /* the last verdict was one */
};

void watch_init(struct watch *watch);
/* The lock stays: a handle whose communicator could not be made may still be aborted. */
void watch_clear(struct watch *watch);

/* The communicator's thread begins to work for it. A load, and a store by another thread than last time. */
static inline void watch_enter(struct watch *watch)
{
    static _Thread_local char here;
    uint64_t self = (uint64_t)(uintptr_t)&here;
    if (__builtin_expect(atomic_load_explicit(&watch->caller, memory_order_relaxed) != self, 0))
        atomic_store_explicit(&watch->caller, self, memory_order_relaxed);
}

/* The communicator's thread, every now and then while it waits in a call that it began long (100 ms) ago. watch_due
 * says whether the next two are worth their arguments yet (every 40 ms). */
bool watch_due(const struct comm *comm);
void watch_look(struct comm *comm, const struct waits *waits);
/* The same, in a call that is no collective: `text` says whom it waits for, "CALL: rank ...". */
void watch_say(struct comm *comm, const struct waits *waits, const char *text);
/* The same thread leaves the call. */
void watch_over(struct comm *comm);
static inline void watch_end(struct watch *watch, struct comm *comm)
{
    if (__builtin_expect(watch->number != 0, 0)) watch_over(comm);
}

/* Any thread: "" or "; it waited: VERDICT", for the text of an abort. */
void watch_words(struct comm *comm, char *out, size_t bytes);

/* This rank as rank 0 gets to know it: calls, wait, troubles. `waited_ns` is 0 in an answer. Any thread. */
void watch_describe_self(struct comm *comm, uint64_t waited_ns, struct watch_report *out);

/* Service thread: at rank 0, a rank's report or answer; at any rank, rank 0's word. */
void watch_reported(struct comm *comm, const struct watch_report *theirs);
void watch_word(struct comm *comm, uint64_t number, const char *text);

/* The files' own. */

/* Rank 0, any thread: somebody has waited for long in that call: asks all, or concludes from what they answered. */
void watch_inquire(struct comm *comm, uint64_t number);
/* A verdict, at this rank. */
void watch_told(struct comm *comm, uint64_t number, uint16_t key, const char *text);
/* Never 0: the process that a member is in; a rank of a communicator. */
struct member;
uint64_t watch_process_of(const struct member *member);
uint64_t watch_rank_hash(const struct comm *comm, uint32_t rank);
/* The thread that waits in `comm` tells others of its process, and takes it back. */
void watch_elsewhere_set(const struct comm *comm, uint64_t thread, const struct watch_elsewhere *waits);
void watch_elsewhere_drop(const struct comm *comm);
/* Where `thread` waits, but for `comm`. */
struct watch_elsewhere watch_elsewhere_of(const struct comm *comm, uint64_t thread);
/* A process of this machine is stopped (SIGSTOP, a debugger). */
bool watch_is_stopped(int pid);

#endif
