/* watch.h - who is being waited for. A collective whose ranks are alive waits for ever; whoever has waited for a second
 * works out which ranks have not called it and keeps one line of words: at once for the log (INFO, RAS), for
 * ncclGetLastError and for the text of an abort, after RAILCCL_WATCH_S as a warning, once per stall, and once more when
 * it is over. A healthy run says nothing, and a late rank is no error.
 *
 *   own node        every rank's last call stands in the shared segment (engine/calls.h)
 *   other nodes     waiting ranks report to rank 0, which asks all (bootstrap_word), takes down what they answer, and
 *                   tells all its verdict. Answers come from service threads, so a rank that never calls answers,
 *                   too; one whose process is stopped does not, and that is said of it */
#ifndef RAIL_CORE_WATCH_H
#define RAIL_CORE_WATCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/calls.h"

struct comm;

enum { WATCH_TEXT = 400 };
#define WATCH_UNCOUNTED UINT64_MAX

/* What rank 0 knows of a rank. */
struct watch_note {
    struct calls_history last;
    uint64_t at_ns; /* when that came; 0: never */
};

struct watch {
    uint64_t number;   /* the call that this rank waits in, for long; 0: none. The communicator's thread's, as what
                          follows. WATCH_UNCOUNTED: no collective */
    uint64_t began_ns; /* that wait */
    uint64_t looked_ns;
    bool warned;

    pthread_mutex_t lock;     /* protects the rest */
    uint64_t stalled;         /* = number, for other threads */
    char verdict[WATCH_TEXT]; /* "" while nobody is known to be missing */
    bool by_all;              /* it is rank 0's, who knows more */
    bool said;                /* as INFO */
    /* Rank 0's. */
    struct watch_note *notes; /* [n_ranks] */
    uint64_t asked_ns, first_asked_ns, concluded_ns;
    uint64_t asked_number;    /* of the call that somebody waits in */
};

void watch_init(struct watch *watch);
/* The lock stays: a handle whose communicator could not be made may still be aborted. */
void watch_clear(struct watch *watch);

/* The communicator's thread, every now and then while it waits in a call that it began long (100 ms) ago. */
void watch_look(struct comm *comm);
/* The same, in a call that is no collective: `text` says whom it waits for, "CALL: rank ...". */
void watch_say(struct comm *comm, const char *text);
/* The same thread leaves the call. */
void watch_over(struct comm *comm);
static inline void watch_end(struct watch *watch, struct comm *comm)
{
    if (__builtin_expect(watch->number != 0, 0)) watch_over(comm);
}

/* Any thread: "" or "; it waited: VERDICT", for the text of an abort. */
void watch_words(struct comm *comm, char *out, size_t bytes);

/* My own history with how long I wait, or since when I am in no call: what travels to rank 0. Any thread. */
void watch_history(struct comm *comm, uint64_t waited_ns, struct calls_history *out);

/* Service thread: at rank 0, a rank's report or answer; at any rank, rank 0's word. */
void watch_reported(struct comm *comm, const struct calls_history *theirs);
void watch_word(struct comm *comm, uint64_t number, const char *text);

#endif
