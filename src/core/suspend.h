/* suspend.h - what a communicator holds, and giving back the part that holds nothing between calls: windows and slots. */
#ifndef RAIL_CORE_SUSPEND_H
#define RAIL_CORE_SUSPEND_H

#include "core/comm.h"

/* Bytes of memory behind this rank's communicator, as it is now. Slots and windows that were never touched have none. */
struct footprint {
    uint64_t idle; /* suspending gives it back: this rank's windows, slots of links into it, slots of network links; on a
                      GPU rank those in its memory, and scratch; not what is pinned */
    uint64_t kept; /* the rest: control lines of the shared segment, tables, plans */
};
struct footprint comm_footprint(const struct comm *comm);

/* Collective: waits until all ranks have called it and nothing is under way, gives the memory back, and refuses calls
 * until comm_resume, which is local: a rank that is resumed waits for the others in its next operation, as for any late
 * one. Where a GPU takes part it is collective, and may fail for want of memory with everything as it was. The errors of
 * an exchange over the tree. */
enum rail_result comm_suspend(struct comm *comm);
enum rail_result comm_resume(struct comm *comm);

#endif
