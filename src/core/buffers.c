/* buffers.c - a short list of live allocations: freeing anything else is an error with a name, not a crash. */
#include "core/buffers.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct buffer {
    struct buffer *next;
    void *address;
    size_t bytes;
};

static pthread_mutex_t buffers_lock = PTHREAD_MUTEX_INITIALIZER; /* protects the list */
static struct buffer *buffers;

enum rail_result buffer_alloc(size_t bytes, void **out)
{
    size_t length = (bytes + 4095) & ~(size_t)4095;
    struct buffer *b = length >= bytes ? malloc(sizeof *b) : NULL;
    if (!b) return rail_fail(RAIL_E_SYSTEM, "ncclMemAlloc: %zu bytes: out of memory", bytes);
    b->bytes = length ? length : 4096;
    b->address = mmap(NULL, b->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->address == MAP_FAILED) {
        free(b);
        return rail_fail(RAIL_E_SYSTEM, "ncclMemAlloc: mmap of %zu bytes: %s", bytes, strerror(errno));
    }
    pthread_mutex_lock(&buffers_lock);
    b->next = buffers;
    buffers = b;
    pthread_mutex_unlock(&buffers_lock);
    *out = b->address;
    return RAIL_OK;
}

enum rail_result buffer_free(void *address)
{
    if (!address) return RAIL_OK;
    pthread_mutex_lock(&buffers_lock);
    struct buffer **at = &buffers, *found;
    while (*at && (*at)->address != address) at = &(*at)->next;
    if ((found = *at)) *at = found->next;
    pthread_mutex_unlock(&buffers_lock);
    if (!found)
        return rail_fail(RAIL_E_ARGUMENT, "ncclMemFree: %p was not returned by ncclMemAlloc, or was freed before", address);
    munmap(found->address, found->bytes);
    free(found);
    return RAIL_OK;
}
