/* announce.h - what the library says of itself when a process makes its first communicator. */
#ifndef RAIL_CORE_ANNOUNCE_H
#define RAIL_CORE_ANNOUNCE_H

/* At a process's first communicator: version and own file (VERSION), the variables that are set, those that have no
 * effect here. At any, a second or more after the last look: a warning, once per file, when another libnccl is mapped,
 * too (a wheel's beside ours), with who gets the calls. Any thread. */
void announce(void);

#endif
