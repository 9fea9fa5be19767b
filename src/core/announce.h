/* announce.h - what the library says of itself when a process makes its first communicator. */
#ifndef RAIL_CORE_ANNOUNCE_H
#define RAIL_CORE_ANNOUNCE_H

/* Once per process: version and own file (VERSION), the variables that are set, those that have no effect here, and a
 * warning when another libnccl is mapped too (a wheel's beside ours: calls may go to either). Any thread. */
void announce(void);

#endif
