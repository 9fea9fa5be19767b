/* posted.h - calls that run later, on streams.
 *
 * A communicator counts what was posted to it and what of that has run; both grow in the order of the calls, whatever the
 * streams. What runs next on a communicator waits for what was posted to it before, and so does, at comm_settle, whoever
 * works for it by himself. Streams' work was posted in one order (stream.h), so that these waits end. */
#ifndef RAIL_CORE_POSTED_H
#define RAIL_CORE_POSTED_H

#include "core/queue.h"
#include "core/stream.h"

/* Runs `queues` on these streams later, and frees them then; on failure they stay the caller's. What fails later becomes
 * the fault of its communicators. `queues` is not empty and was checked. */
enum rail_result queues_post(struct queue *queues, struct stream *const *streams, int n);

#endif
