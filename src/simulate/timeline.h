/* timeline.h - one call while parts die, slow down and come back: how far it is when, and what goes by each rail.
 *
 * The call is a flow: while nothing changes it is at a constant pace, 1 over the time that it takes in all on the
 * network as it is (lay.h, clocks.h). While a pair of hosts waits for its repair (repairs.h) all stand still, for what
 * goes round passes that pair; the few slots that others could fill meanwhile are not counted. A part that died is out
 * of use from then until the last lane that died with it is up again; one that is slow, while it is. What was in doubt
 * and goes again is counted in bytes, not in time. Where switches have another way for a lane they are taken to use it
 * at once. */
#ifndef RAIL_SIMULATE_TIMELINE_H
#define RAIL_SIMULATE_TIMELINE_H

#include "simulate/repairs.h"

enum { TIMELINE_EVENTS_MAX = 128, TIMELINE_STRETCHES_MAX = 256, TIMELINE_TEXT_BYTES = 160 };

struct timeline_fault {
    const char *what;  /* a part, as network_fault takes it */
    double factor;     /* of its rate; 0: it dies */
    bool silent;       /* carriers stay: nothing tells of it */
    double at_ns, until_ns; /* until: HUGE_VAL, for good */
};

struct timeline_event { double ns; char text[TIMELINE_TEXT_BYTES]; };

/* While nothing changes. */
struct timeline_stretch {
    double from_ns, to_ns;
    double done_from, done_to; /* of the call, 0 to 1 */
    bool waits;
    double rail[NETWORK_RAILS_MAX]; /* bytes per ns that the host shown sends by each; of all hosts, where none is */
};

struct timeline {
    double ns, whole_ns;       /* of the call; without any fault */
    bool of_host;
    uint32_t host;             /* shown: the one whose NIC the first fault is, else all */
    uint32_t n_rails, n_events, n_stretches;
    struct repairs_counts counts;
    struct timeline_event events[TIMELINE_EVENTS_MAX];
    struct timeline_stretch stretches[TIMELINE_STRETCHES_MAX];
};

/* RAIL_E_ARGUMENT: a part that is not there, a call that can never end as hosts are apart for good, or too much to
 * tell. `out` is large, and the caller's. */
enum rail_result timeline_run(const struct network *network, const struct job_request *request,
                              const struct timeline_fault *faults, uint32_t n_faults, struct timeline *out);

#endif
