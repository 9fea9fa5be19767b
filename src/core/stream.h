/* stream.h - streams of host memory: work runs later, in order, on a thread of the stream's own.
 *
 * What is posted to several streams at once is one piece of work: it runs when all of them have come to it, and none goes
 * on before it is done. Posting is atomic over all streams of the process, so two threads that post to the same streams
 * cannot make them wait for each other. */
#ifndef RAIL_CORE_STREAM_H
#define RAIL_CORE_STREAM_H

#include <stdbool.h>

#include "base/result.h"

struct stream;

/* Work for streams. Embedded in whoever posts it. */
struct stream_work {
    void (*run)(struct stream_work *work); /* on a stream's thread; frees it, last thing */
};

/* Starts its thread (all signals blocked). */
enum rail_result stream_create(struct stream **out);
/* Waits for its work, then ends its thread. Errors name `call`; only a stream that lives. */
enum rail_result stream_destroy(struct stream *stream);
/* Waits until everything posted before has been run. */
enum rail_result stream_synchronize(struct stream *stream);
/* RAIL_OK when nothing is left to run, else RAIL_IN_PROGRESS. */
enum rail_result stream_query(struct stream *stream);
/* Is it a stream that lives, of this process? Any pointer. */
bool stream_lives(const void *stream);

/* Runs `work` once on each-others'-waiting streams[0 .. n-1], without repetition. On failure nothing was posted. */
enum rail_result streams_post(struct stream *const *streams, int n, struct stream_work *work);

#endif
