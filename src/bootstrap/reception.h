/* reception.h - the process's one listener for communicators that are made of others: it stays open, so that every rank
 * can be told once, when a communicator is made, where the others are found later.
 *
 * Who calls proves the key of the tree that it wants to join and says whose child it is; the reception hands it to the
 * rank that is expecting it. Nobody expected yet: the caller is refused and tries again.
 *
 * Opened by bootstrap_place_here, then kept: up to ENDPOINTS_MAX descriptors of the process. */
#ifndef RAIL_BOOTSTRAP_RECEPTION_H
#define RAIL_BOOTSTRAP_RECEPTION_H

#include "bootstrap/bootstrap.h"

/* From now on callers with b's tree key who want b's rank go to join_child_arrived. b->lock not held. */
void reception_expect(struct bootstrap *b);
/* When it returns, nobody will be handed to `b` any more. Does nothing if it was not expecting. b->lock not held. */
void reception_forget(struct bootstrap *b);

#endif
