/* notes.h - ranks compare what they called, also where nobody waits: two ranks that each call themselves the root of a
 * Broadcast are both done at once, and neither would ever know.
 *
 * While calls come, and for a while after the last, the service thread looks every quarter of a second: at the calls of
 * the neighbours in my node (around a node all neighbours agreeing means all agree), and, as the first of a node, by a
 * report to rank 0, which compares nodes. A difference becomes the communicator's fault: both calls in words, on every
 * rank. Whoever waits in vain compares earlier, by itself (engine/calls.h). */
#ifndef RAIL_CORE_NOTES_H
#define RAIL_CORE_NOTES_H

#include "core/comm.h"

/* A call begins. One load while the service thread is looking already. */
void notes_watch_slow(struct comm *comm);
static inline void notes_watch(struct comm *comm)
{
    if (__builtin_expect(!atomic_load_explicit(&comm->notes.watching, memory_order_acquire), 0)) notes_watch_slow(comm);
}

/* The service thread looks no more; before what it looks at goes away. A communicator that never began is fine. */
void notes_stop(struct comm *comm);

/* Frees what it kept, when no more reports come. */
void notes_clear(struct comm *comm);

/* At rank 0, on the service thread: another rank's calls, whether it waits or not. */
void notes_received(struct comm *comm, const struct calls_history *theirs);

#endif
