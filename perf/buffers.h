/* buffers.h - where the data lives: memory, streams and guard bands. The one place that knows what kind of memory it is.
 *
 * A buffer is   | guard | unaligned by u bytes | data ... | guard |   and the second guard begins right behind the last
 * byte in use, whatever the size of the row, so that a store one byte too far is seen. */
#ifndef PERF_BUFFERS_H
#define PERF_BUFFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nccl.h"

enum { PERF_GUARD_BYTES = 128 }; /* two cache lines: more than the widest single store of 64 bytes */

struct perf_buffer {
    uint8_t *memory; /* owned */
    uint8_t *data;   /* first usable byte */
    size_t bytes;    /* usable */
};

/* What a rank computes with: a host thread now; the place for a device when there are GPU buffers. */
struct perf_stream { cudaStream_t handle; };

/* `bytes` usable bytes that start `unalign_bytes` behind a 4096-byte boundary plus the guard. False without memory. */
bool perf_buffer_create(size_t bytes, size_t unalign_bytes, bool from_library, struct perf_buffer *out);
void perf_buffer_destroy(struct perf_buffer *buffer, bool from_library);

/* Fills the first `used` bytes and the guards around them with the poison pattern. */
void perf_buffer_poison(struct perf_buffer *buffer, size_t used);
/* How many guard bytes around the first `used` bytes no longer have the pattern. */
size_t perf_buffer_guard_wrong(const struct perf_buffer *buffer, size_t used);

struct perf_stream perf_stream_create(void);
/* Waits until everything given to the stream is done; nothing to do for a call that is complete on return. */
void perf_stream_wait(struct perf_stream stream);
void perf_stream_destroy(struct perf_stream stream);

#endif
