/* derive.h - who is in a communicator made of another, and what they know in common. */
#ifndef RAIL_CORE_DERIVE_H
#define RAIL_CORE_DERIVE_H

#include "core/join.h"
#include "core/making.h"

/* Each makes m->comm of m->parent on the calling thread, and returns when all members are there. The parent is held. */
enum rail_result derive_split(struct making *m);  /* m->comm NULL: this rank gets none */
enum rail_result derive_shrink(struct making *m); /* needs nothing of the parent but its secret and its members */
enum rail_result derive_grow(struct making *m);

#endif
