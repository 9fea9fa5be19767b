/* gpu_watch.h - the thread that stands in for callers of GPU ranks, who do not wait: one per process, while there are any.
 *
 * It moves what waits at relays, turns what kernels report into faults, and where a launch does not get on compares calls
 * and looks for who is out of reach, as a caller inside a call does on host memory. With nothing under way it sleeps; while
 * a graph lives that may be launched at any time it naps: 200 us with links over the network, 50 ms without. */
#ifndef RAIL_CORE_GPU_WATCH_H
#define RAIL_CORE_GPU_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/result.h"

struct comm;

/* What it keeps of a communicator; its own. */
struct gpu_watched {
    struct comm *next; /* in the thread's list */
    uint64_t moved, moved_ns, looked_ns;
    uint64_t failed_ns; /* a link broke then: better news may come */
    enum rail_result failed;
    char why[512];
    bool busy;
};

enum rail_result gpu_watch_add(struct comm *comm);
/* When it returns the thread does not look at the communicator any more. */
void gpu_watch_drop(struct comm *comm);
/* Before a launch. A load and, if it sleeps, a system call. */
void gpu_watch_wake(void);

#endif
