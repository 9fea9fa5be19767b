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

struct perf_gpu;

/* On a GPU the data is in its memory, and what the program writes and checks is a copy of it on the host, of the same
 * layout: perf_buffer_push carries it over before an operation, perf_buffer_pull back behind it. */
struct perf_buffer {
    struct perf_gpu *gpu; /* NULL: host memory, and `seen` is the data itself */
    uint8_t *memory;      /* owned */
    uint8_t *data;        /* first usable byte: what calls are given */
    uint8_t *copy;        /* owned; NULL in host memory */
    uint8_t *seen;        /* the byte of the copy that stands for data[0] */
    size_t bytes;         /* usable */
};

/* `bytes` usable bytes that start `unalign_bytes` behind a 4096-byte boundary plus the guard. False without memory. */
bool perf_buffer_create(struct perf_gpu *gpu, size_t bytes, size_t unalign_bytes, bool from_library,
                        struct perf_buffer *out);
void perf_buffer_destroy(struct perf_buffer *buffer, bool from_library);

/* The first `used` bytes and the guards around them; nothing to do in host memory. */
void perf_buffer_push(struct perf_buffer *buffer, size_t used);
void perf_buffer_pull(struct perf_buffer *buffer, size_t used);

/* Fills the first `used` bytes and the guards around them with the poison pattern. */
void perf_buffer_poison(struct perf_buffer *buffer, size_t used);
/* How many guard bytes around the first `used` bytes no longer have the pattern. */
size_t perf_buffer_guard_wrong(const struct perf_buffer *buffer, size_t used);

#endif
