/* reception.h - the process's one listener for communicators that are made of others: it stays open, so that every rank
 * can be told once, when a communicator is made, where the others are found later.
 *
 * It also serves neighbours in a tree that have lost their connection, and orphans.
 *
 * Who calls proves the key of the tree that it wants to join and says whose child it is; the reception hands it to the
 * rank that is expecting it. Nobody expected yet: the caller is refused and tries again.
 *
 * Opened by bootstrap_place_here, then kept: one descriptor per interface, at most BOOTSTRAP_PLACE_ENDPOINTS. */
#ifndef RAIL_BOOTSTRAP_RECEPTION_H
#define RAIL_BOOTSTRAP_RECEPTION_H

#include "bootstrap/auth.h"
#include "bootstrap/bootstrap.h"

/* From when b has its tree key on (b->keyed), callers who prove it and want b's rank go to join_child_arrived: its
 * children, also when they lost their connection, and orphans (verdict.c). b->lock not held. */
void reception_expect(struct bootstrap *b);
/* When it returns, nobody will be handed to `b` any more. Does nothing if it was not expecting. b->lock not held. */
void reception_forget(struct bootstrap *b);

/* Whose listener an address of a place is, is asked by this key (alive.c): only the process that the place is of knows it. */
void bootstrap_place_key(const struct bootstrap_place *place, uint8_t key[AUTH_KEY_BYTES]);

#endif
