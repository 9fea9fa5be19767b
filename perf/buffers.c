/* buffers.c - see buffers.h. Aligned to a page, private, touched once so that no page fault is timed. */
#include "buffers.h"

#include "gpu.h"
#include "nccl.h"

#include <stdlib.h>
#include <string.h>

enum { PAGE_BYTES = 4096 };

static uint8_t poison_at(uintptr_t address) { return (uint8_t)(0xa5 ^ (address * 0x9d)); }

static void *take(struct perf_gpu *gpu, size_t bytes, bool from_library)
{
    void *memory = NULL;
    perf_gpu_use(gpu);
    if (from_library) return ncclMemAlloc(&memory, bytes) == ncclSuccess ? memory : NULL;
    return gpu ? perf_gpu_alloc(gpu, bytes) : aligned_alloc(PAGE_BYTES, bytes);
}

bool perf_buffer_create(struct perf_gpu *gpu, size_t bytes, size_t unalign_bytes, bool from_library,
                        struct perf_buffer *out)
{
    /* The data begins on a page of its own, so that unalign 0 means fully aligned. */
    size_t total = PAGE_BYTES + unalign_bytes + bytes + PERF_GUARD_BYTES;
    total = (total + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    if (total < bytes) return false;
    uint8_t *memory = take(gpu, total, from_library), *seen = memory;
    if (!memory) return false;
    *out = (struct perf_buffer){.gpu = gpu, .memory = memory, .bytes = bytes};
    out->data = memory + PAGE_BYTES + unalign_bytes;
    if (gpu && !(seen = out->copy = aligned_alloc(PAGE_BYTES, total))) {
        perf_buffer_destroy(out, from_library);
        return false;
    }
    memset(seen, 0, total);
    out->seen = seen + PAGE_BYTES + unalign_bytes;
    if (gpu) perf_gpu_copy(gpu, memory, seen, total);
    return true;
}

void perf_buffer_destroy(struct perf_buffer *buffer, bool from_library)
{
    if (buffer->memory && from_library) ncclMemFree(buffer->memory);
    else if (buffer->memory && buffer->gpu) perf_gpu_free(buffer->gpu, buffer->memory);
    else free(buffer->memory);
    free(buffer->copy);
    *buffer = (struct perf_buffer){0};
}

void perf_buffer_poison(struct perf_buffer *buffer, size_t used)
{
    for (uint8_t *p = buffer->seen - PERF_GUARD_BYTES; p < buffer->seen + used + PERF_GUARD_BYTES; p++)
        *p = poison_at((uintptr_t)p);
}

size_t perf_buffer_guard_wrong(const struct perf_buffer *buffer, size_t used)
{
    size_t wrong = 0;
    const uint8_t *before = buffer->seen - PERF_GUARD_BYTES, *after = buffer->seen + used;
    for (int i = 0; i < PERF_GUARD_BYTES; i++) {
        wrong += before[i] != poison_at((uintptr_t)(before + i));
        wrong += after[i] != poison_at((uintptr_t)(after + i));
    }
    return wrong;
}

void perf_buffer_push(struct perf_buffer *buffer, size_t used)
{
    if (buffer->gpu)
        perf_gpu_copy(buffer->gpu, buffer->data - PERF_GUARD_BYTES, buffer->seen - PERF_GUARD_BYTES,
                      used + 2 * PERF_GUARD_BYTES);
}

void perf_buffer_pull(struct perf_buffer *buffer, size_t used)
{
    if (buffer->gpu)
        perf_gpu_copy(buffer->gpu, buffer->seen - PERF_GUARD_BYTES, buffer->data - PERF_GUARD_BYTES,
                      used + 2 * PERF_GUARD_BYTES);
}
