/* buffers.c - see buffers.h. Host memory: aligned to a page, private, touched once so that no page fault is timed. */
#include "buffers.h"

#include <stdlib.h>
#include <string.h>

enum { PAGE_BYTES = 4096 };

static uint8_t poison_at(uintptr_t address) { return (uint8_t)(0xa5 ^ (address * 0x9d)); }

bool perf_buffer_create(size_t bytes, size_t unalign_bytes, bool from_library, struct perf_buffer *out)
{
    void *memory = NULL;
    /* The data begins on a page of its own, so that unalign 0 means fully aligned. */
    size_t total = PAGE_BYTES + unalign_bytes + bytes + PERF_GUARD_BYTES;
    total = (total + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    if (total < bytes) return false;
    if (from_library) {
        if (ncclMemAlloc(&memory, total) != ncclSuccess) return false;
    } else if (!(memory = aligned_alloc(PAGE_BYTES, total))) {
        return false;
    }
    memset(memory, 0, total);
    *out = (struct perf_buffer){.memory = memory, .data = (uint8_t *)memory + PAGE_BYTES + unalign_bytes, .bytes = bytes};
    return true;
}

void perf_buffer_destroy(struct perf_buffer *buffer, bool from_library)
{
    if (from_library && buffer->memory) ncclMemFree(buffer->memory);
    else free(buffer->memory);
    *buffer = (struct perf_buffer){0};
}

void perf_buffer_poison(struct perf_buffer *buffer, size_t used)
{
    for (uint8_t *p = buffer->data - PERF_GUARD_BYTES; p < buffer->data + used + PERF_GUARD_BYTES; p++)
        *p = poison_at((uintptr_t)p);
}

size_t perf_buffer_guard_wrong(const struct perf_buffer *buffer, size_t used)
{
    size_t wrong = 0;
    const uint8_t *before = buffer->data - PERF_GUARD_BYTES, *after = buffer->data + used;
    for (int i = 0; i < PERF_GUARD_BYTES; i++) {
        wrong += before[i] != poison_at((uintptr_t)(before + i));
        wrong += after[i] != poison_at((uintptr_t)(after + i));
    }
    return wrong;
}

struct perf_stream perf_stream_create(void) { return (struct perf_stream){NULL}; }
void perf_stream_wait(struct perf_stream stream) { (void)stream; }
void perf_stream_destroy(struct perf_stream stream) { (void)stream; }
