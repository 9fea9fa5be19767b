/* waits.h - for whom an operation waits at this moment, and how far it has come: asked now and then by a caller that
 * has waited for long, never while all is well. */
#ifndef RAIL_ENGINE_WAITS_H
#define RAIL_ENGINE_WAITS_H

#include "engine/host.h"
#include "engine/messages.h"

enum waits_kind {
    WAITS_FOR_DATA, /* a slot, a line or a window that the rank fills */
    WAITS_FOR_ROOM, /* a slot that the rank must release first */
};

/* Plain bytes: it travels. */
struct waits_on {
    uint32_t rank;
    uint32_t kind; /* enum waits_kind */
};

enum { WAITS_MOST = 6 };
struct waits {
    uint32_t n; /* 0: for nobody, it could go on */
    uint32_t reserved;
    struct waits_on on[WAITS_MOST]; /* different ranks, data first; more are left out */
    uint64_t done, total;           /* bytes of the call; total 0: unknown, done only grows */
};

/* The thread that runs the operation. Changes nothing but what host_op_progress would find changed. */
void waits_of_host_op(const struct host_op *op, struct waits *out);
void waits_of_messages(const struct messages *m, struct waits *out);
/* Inside an express call that waits for `wait`. */
void waits_of_express(const struct host_node *node, const struct express_wait *wait, struct waits *out);

#endif
