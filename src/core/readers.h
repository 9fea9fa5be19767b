/* readers.h - whether the ranks of a node may read one another's memory where it lies, by the kernel (shm/peer_memory.h). */
#ifndef RAIL_CORE_READERS_H
#define RAIL_CORE_READERS_H

#include "core/comm.h"

/* Tries every peer once, after members are known, and makes what reading them takes. *reads: all can be read from here; where
 * not, why is in the log. RAIL_E_SYSTEM: out of memory. */
enum rail_result readers_find(struct comm *comm, bool *reads);

/* Some ranks of the node are not read, so nobody is; or the communicator ends. */
void readers_drop(struct comm *comm);

#endif
