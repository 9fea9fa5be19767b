/* alive.h - whether processes are still there, as far as their receptions tell. */
#ifndef RAIL_BOOTSTRAP_ALIVE_H
#define RAIL_BOOTSTRAP_ALIVE_H

#include "bootstrap/bootstrap.h"

enum { ALIVE_AT_ONCE = 64 }; /* as many descriptors for a moment */

struct alive_asked {
    const struct bootstrap_place *place;
    bool same_host; /* its loopback addresses are ours */
    bool gone;      /* the answer: the host is there, and at every address it refuses, or somebody else answers */
    bool silent;    /* nothing answered: neither is known */
};

/* Asks up to ALIVE_AT_ONCE processes side by side, in 25 ms for each address that refuses, and 25 ms more. A reception
 * listens for the life of its process, so who refuses is gone. The ports of the dead are dealt out again: who accepts
 * proves that it knows the key of the place, or is another process. Who does not answer, or takes the connection and says
 * nothing (it is stopped, or busy), may be anything. */
void alive_ask(struct alive_asked *asked, uint32_t n);

#endif
