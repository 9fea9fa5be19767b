/* silence.h - which lanes to a peer process are to be taken for dead though nothing says so: the decision, without
 * sockets, clocks or locks (suspect.c has those).
 *
 *   every 25 ms, while a lane has something unacknowledged: what the kernel says of each lane to one peer
 *        |
 *   silence_judge   at most one lane to suspect, with the cause; at most one lane to put a small frame on
 *
 * A lane is suspected for one of three causes.
 *
 *   silent   Nothing of what is in flight was acknowledged for max(8 round trips, 250 ms), the kernel has sent it anew
 *            twice in vain, and a sibling has moved since it last did. A sibling that has nothing to move gets an empty
 *            frame: its acknowledgement tells a dead lane from a dead peer.
 *   unread   Nothing may leave, as the far end has no room and does not read: for 1 s in which the far process was
 *            heard on other lanes all the time. It is asked to say something when it has nothing to say.
 *   mute     The far kernel has everything, and what a link gave to this lane does not land: the far process is asked,
 *            on this lane, and says nothing on it for 2 s in which it was heard on other lanes all the time.
 *
 * What must not be taken for any of them:
 *   - Loss. TCP repairs a lost last segment after its timeout, 200 ms and the round trip, and doubles that: with 1 %
 *     loss a lane is quiet for 250 ms and more after every hundredth loss. So time alone does not count, but segments
 *     that were sent anew and lost as well: original and two repeats are 1 in a million at 1 %. A lane that has come
 *     back from repeats lately needs more of them. Where the kernel probes the tail (TLP), two repeats are there after
 *     some 250 to 450 ms, else after 600.
 *   - A slow rail: it delivers little, but not nothing; and what waits in this host's own queue is not sent anew.
 *   - A stopped process: its kernel acknowledges what comes until the buffers are full, on all lanes, and it says
 *     nothing.
 *   - A rank that is late: what it has is not released for as long as it likes, but its process answers.
 *   - A host, or a fabric, that was away: all its lanes stop together. When one moves again the others begin anew, and
 *     get as much longer as they were away, for TCP's pauses have doubled meanwhile.
 *   - This process being away: judgements that come more than 100 ms late begin anew.
 *   - The last lane: there is no sibling, so it is never suspected. */
#ifndef RAIL_LINK_SILENCE_H
#define RAIL_LINK_SILENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

/* Short against the 250 ms, so that a verdict is late by a tenth of them; long against the 2 us that a look costs. */
#define SILENCE_TICK_NS (25 * RAIL_NS_PER_MS)
#define SILENCE_LATE_NS (100 * RAIL_NS_PER_MS)   /* beyond a tick: this process did not run */
#define SILENCE_LEAST_NS (250 * RAIL_NS_PER_MS)  /* TCP's shortest timeout, 200 ms, and the answer to its repeat */
/* A lane that delivers nothing for that long is of no use, whether or not the kernel repeated anything: a NIC that
 * takes packets and sends none keeps them in the host's queue, where they are not sent anew. A queue of 1 MiB, which
 * is 420 ms at 20 Mbit/s, is far from it. */
#define SILENCE_MOST_NS (2 * RAIL_NS_PER_S)
#define SILENCE_UNREAD_NS RAIL_NS_PER_S          /* a process among ten for each core runs every 100 ms */
/* A lane that carries and says nothing is asked after that: once a second and lane, while a rank is late. */
#define SILENCE_QUIET_NS RAIL_NS_PER_S
/* Twice UNREAD: whoever reads the question may have 1 MiB in front of it, and the answer another on its way back. */
#define SILENCE_MUTE_NS (2 * SILENCE_UNREAD_NS)
#define SILENCE_HEARD_NS (250 * RAIL_NS_PER_MS)  /* longer than this between its frames, the process may be stopped */
#define SILENCE_MEMORY_NS (10 * RAIL_NS_PER_S)   /* of repeats that helped */

enum {
    SILENCE_ROUND_TRIPS = 8,
    SILENCE_REPEATS = 2,     /* in vain, and as many more as were needed lately */
    SILENCE_REPEATS_MAX = 4, /* the fifth comes after 3 s at the earliest */
};

/* What is known of a lane now. The first four are always true; the others where the kernel was asked. */
struct silence_look {
    uint64_t acked_bytes;       /* so far */
    uint64_t received_bytes;    /* so far */
    bool carries;               /* a link waits for something that this lane took, since the last look at least */
    bool outstanding;           /* something was handed to the kernel and is not acknowledged */
    bool known;                 /* the kernel was asked, and said: */
    uint32_t in_flight_segments;
    uint32_t unsent_bytes;
    bool closed;                /* the far end has no room: it may drop what is in flight, and acknowledge nothing */
    uint32_t round_trip_us;     /* smoothed */
    uint32_t repeats;           /* segments sent anew, so far */
    uint64_t delivered;         /* segments acknowledged, also out of order, so far */
    uint64_t reader_us;         /* waited for the far end to read, so far */
};

struct silence_lane {
    /* The caller's, set before each judgement. */
    struct silence_look look;
    uint32_t rail;
    bool free;                  /* it could take a small frame at once */
    /* silence.c's. Zeroed when the lane comes up. */
    bool began;
    struct silence_look before;
    uint64_t moved_ns;          /* something was delivered; 0: never */
    uint64_t heard_ns;          /* something was received; 0: never */
    uint64_t since_ns;          /* it has work and delivers nothing */
    uint64_t repeated_ns;       /* of the last repeat since then */
    uint32_t repeats;           /* since then */
    uint64_t excuse_ns;         /* the peer was away for that long */
    uint64_t stuck_ns;          /* nothing in flight, nothing may leave, the process runs */
    uint64_t stuck_reader_us;
    uint64_t carries_ns;        /* it carries, and nothing was received on it */
    bool asked;                 /* since then, on it; */
    uint64_t asked_ns;          /* the far kernel has the question, and the process runs */
    uint32_t helped;            /* most repeats, in one silence, after which it moved again */
    uint64_t helped_ns;
};

struct silence_peer {
    uint64_t looked_ns;         /* 0: nobody had work */
    uint64_t moved_ns;          /* any lane moved */
    uint64_t asked_ns;
    uint32_t asked_lane;
};

enum silence_cause { SILENCE_NONE, SILENCE_SILENT, SILENCE_UNREAD, SILENCE_MUTE };
enum silence_wish {
    SILENCE_NOTHING,
    SILENCE_PROBE, /* any small frame: will it be acknowledged? */
    SILENCE_ASK,   /* one that the far process answers: does it run? */
};

struct silence_verdict {
    enum silence_cause cause;
    uint32_t suspect;     /* the lane, if there is a cause */
    uint64_t quiet_ns;
    uint32_t repeats;
    enum silence_wish wish;
    uint32_t on;          /* the lane to put it on */
};

/* All lanes that are up, to one peer, with their looks. */
struct silence_verdict silence_judge(struct silence_peer *peer, struct silence_lane *const lanes[], uint32_t n_lanes,
                                     uint64_t now_ns);

#endif
