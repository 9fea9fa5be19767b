/* watch_verdict.h - from what ranks told of themselves to one line on who is to blame. Pure: no clock, no lock, no
 * input but the view, so that tests can put any situation before it. */
#ifndef RAIL_CORE_WATCH_VERDICT_H
#define RAIL_CORE_WATCH_VERDICT_H

#include "core/comm.h"

struct watch_view {
    const struct member *members;        /* [n_ranks] */
    const struct net_address *addresses; /* [n_ranks]; NULL within one node */
    const struct watch_note *notes;      /* [n_ranks] */
    uint32_t n_ranks;
    uint64_t number;                     /* the call that somebody waits in; WATCH_UNCOUNTED: a send or the like */
    uint64_t now_ns, asked_ns, first_asked_ns; /* the last question, and the first about this call */
};

/* Asked this long, a service thread has answered, twice, whatever else its machine does; sooner where the kernel
 * says that the process is stopped. Within 3 s of the call's beginning every rank is to know: half a second of
 * patience, this, half a second until the next conclusion. */
#define WATCH_SILENT_NS (1500 * RAIL_NS_PER_MS)
#define WATCH_STOPPED_NS (100 * RAIL_NS_PER_MS)

/* Who is to blame for what. By what is sure first: silent, never called, lanes, then by whom all wait for. */
enum watch_kind {
    WATCH_NOTHING,
    WATCH_SILENT,  /* does not answer */
    WATCH_MISSING, /* has not called, or is in an earlier call */
    WATCH_CROSSED, /* waits in another communicator for one that waits for it here */
    WATCH_LANES,   /* a NIC, a rail, a host, or one lane */
    WATCH_STUCK,   /* has called, waits for nobody, does nothing */
    WATCH_SLOW,    /* moves, and all others wait for it */
    WATCH_RING,    /* all wait for one another */
};

/* False: nobody is to blame, as far as was answered. */
bool watch_conclude(const struct watch_view *view, struct watch_line *out);
/* Nobody waits in view->number any more, as far as was answered. */
bool watch_is_over(const struct watch_view *view);

/* ---- watch_blame.c ---- */

/* What the complaints about lanes have in common: "no lane to host h2 is up since 0.8 s: NIC eth0 (rail 0) of host
 * h2: the NIC has no carrier". `only_unreachable`: leaves out peers that other lanes lead to. False: no complaints. */
bool watch_blame(const struct watch_view *view, bool only_unreachable, char *out, size_t bytes);

/* ---- watch_words.c ---- */

struct words { char *out; size_t bytes, used; };
__attribute__((format(printf, 2, 3))) void watch_say_words(struct words *w, const char *format, ...);
/* "AllReduce #42 of 1000 float32, sum" */
void watch_call_words(uint64_t signature, uint64_t number, char *out, size_t bytes);
/* "rank 3 (host h1, pid 77)" */
void watch_rank_words(struct words *w, const struct member *members, uint32_t rank);
/* What a rank that has not called did last: " (it has made no call yet)". */
void watch_last_call_words(struct words *w, const struct watch_report *last);
uint16_t watch_key(enum watch_kind kind, uint32_t culprit);

#endif
