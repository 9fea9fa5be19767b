/* reach.h - peers that no lane of this process reaches any more: told to whoever decides (bootstrap_accuse).
 *
 * The bootstrap's tree hears of a host that nobody reaches by itself. Two hosts that do not reach one another, while
 * all others reach both, are not neighbours in it, mostly: only who waits for the other one knows. */
#ifndef RAIL_CORE_REACH_H
#define RAIL_CORE_REACH_H

#include "core/comm.h"

/* The communicator's thread, every now and then while it waits for long. */
void reach_look(struct comm *comm);

#endif
