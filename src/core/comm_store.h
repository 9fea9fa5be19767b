/* comm_store.h - memory of communicators, never given back to malloc: a handle that was destroyed can still be read, so
 * that using it is an error with a name and not a crash. */
#ifndef RAIL_CORE_COMM_STORE_H
#define RAIL_CORE_COMM_STORE_H

#include <stdbool.h>

#include "core/comm.h"

/* Zeroed; NULL when out of memory. */
struct comm *comm_store_take(void);
/* `comm->magic` is 0 already. */
void comm_store_give(struct comm *comm);
/* All that were ever taken, linked by next_ever; nothing leaves this list. */
struct comm *comm_store_ever(void);
/* The same list, while no other thread changes it: visit() is called with a lock held, until it returns false. It may only
 * read what other threads may read at any time. */
void comm_store_each(bool (*visit)(const struct comm *comm, void *owner), void *owner);
/* Between these its memory is no other communicator's, even if it is given back. Any thread. */
void comm_store_keep(struct comm *comm);
void comm_store_drop(struct comm *comm);

#endif
