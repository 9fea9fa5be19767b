/* segment.c - making, passing on, mapping and forgetting a node's shared segment (layout in segment.h).
 *
 * The ranks of one process share one mapping: a table of mappings, found by key, counts its users. */
#include "transport/shm/segment.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/futex.h"
#include "base/log.h"
#include "base/memory.h"

#define SEGMENT_MAGIC 0x7261696c73686d31ull /* "railshm1" */


struct shm_mapping {
    struct shm_mapping *next;
    uint8_t key[32];
    void *address; /* NULL while the process's first rank is fetching it */
    size_t bytes;
    int users;
    enum rail_result result; /* not RAIL_OK: fetching failed */
};

static pthread_mutex_t mappings_lock = PTHREAD_MUTEX_INITIALIZER; /* protects the list and every field above */
static struct shm_mapping *mappings;

static size_t window_bytes_of_peer(const struct shm_geometry *g)
{
    return g->window_channels * 2 * SHM_DEPTH * g->window_bytes;
}

static size_t page_up(size_t bytes) { return (bytes + 4095) & ~(size_t)4095; }

struct offsets {
    size_t controls, express, rounds, places, windows, slots, signals, lines, end;
};

static struct offsets layout(const struct shm_geometry *g)
{
    struct offsets o;
    o.controls = page_up(sizeof(struct shm_header));
    o.express = page_up(o.controls + g->n_peers * sizeof(struct shm_control));
    o.rounds = page_up(o.express + (g->express ? g->n_peers * sizeof(struct shm_express) : 0));
    o.places = page_up(o.rounds + g->window_channels * g->n_peers * sizeof(struct shm_rounds));
    o.windows = page_up(o.places + (size_t)g->n_peers * shm_places(g) * sizeof(struct shm_place));
    o.slots = page_up(o.windows + g->n_peers * window_bytes_of_peer(g));
    o.signals = page_up(o.slots + (size_t)g->n_peers * shm_sets(g) * g->n_slots * g->slot_bytes);
    o.lines = page_up(o.signals + (size_t)g->n_peers * g->n_peers * SHM_SIGNALS * sizeof(uint64_t));
    o.end = page_up(o.lines + g->n_peers * shm_lines_bytes(g));
    return o;
}

size_t shm_segment_bytes(const struct shm_geometry *geometry) { return layout(geometry).end; }

static enum rail_result geometry_check(const struct shm_geometry *g)
{
    if (g->n_peers < 1 || g->n_peers > SHM_MAX_PEERS)
        return rail_fail(RAIL_E_USAGE, "%u ranks of one communicator on one host: at most %d are supported", g->n_peers,
                         SHM_MAX_PEERS);
    if (g->n_slots < 2 || g->n_slots > SHM_MAX_SLOTS || g->slot_bytes % SHM_LINE || g->window_bytes % SHM_LINE ||
        g->window_channels < 1 || g->express > 1 || (g->n_sets && g->n_sets < LINK_PAIR_CHANNELS * g->n_peers))
        return rail_fail(RAIL_E_INTERNAL, "shared segment: slots %u x %zu bytes, windows of %zu bytes on %zu channels",
                         g->n_slots, g->slot_bytes, g->window_bytes, g->window_channels);
    return RAIL_OK;
}

static void lay_out(struct shm_segment *out, const struct shm_geometry *g, unsigned char *base)
{
    struct offsets o = layout(g);
    out->geometry = *g;
    out->header = (void *)base;
    out->controls = (void *)(base + o.controls);
    out->express = g->express ? (void *)(base + o.express) : NULL;
    out->rounds = (void *)(base + o.rounds);
    out->places = (void *)(base + o.places);
    out->windows = base + o.windows;
    out->slots = base + o.slots;
    out->signals = (void *)(base + o.signals);
    out->lines = base + o.lines;
}

static enum rail_result make(const struct shm_request *r, size_t bytes, int *fd_out, void **address_out)
{
    RAIL_TRY(rail_memfd_create("railccl-node", bytes, fd_out));
    enum rail_result result = rail_memfd_map(*fd_out, bytes, address_out);
    if (result != RAIL_OK) {
        close(*fd_out);
        return result;
    }
    struct shm_header *header = *address_out;
    header->geometry = r->geometry;
    header->magic = SEGMENT_MAGIC;
    return RAIL_OK;
}

static enum rail_result lead(const struct shm_request *r, size_t bytes, void **address_out)
{
    struct fd_giver *giver = NULL;
    int fd = -1;
    if (r->n_processes > 1) RAIL_TRY(rail_fd_giver_open(r->key, &giver));
    enum rail_result result = make(r, bytes, &fd, address_out);
    if (result == RAIL_OK && giver) {
        result = rail_fd_giver_serve(giver, fd, (int)r->n_processes - 1, r->deadline, r->stop);
        if (result != RAIL_OK) rail_memory_unmap(*address_out, bytes);
    }
    if (fd >= 0) close(fd);
    if (giver) rail_fd_giver_close(giver);
    return result;
}

static enum rail_result follow(const struct shm_request *r, size_t bytes, void **address_out)
{
    int fd;
    RAIL_TRY(rail_fd_take(r->key, r->deadline, r->stop, &fd));
    enum rail_result result = rail_memfd_map(fd, bytes, address_out);
    close(fd);
    RAIL_TRY(result);
    const struct shm_header *header = *address_out;
    if (header->magic == SEGMENT_MAGIC && memcmp(&header->geometry, &r->geometry, sizeof r->geometry) == 0)
        return RAIL_OK;
    rail_memory_unmap(*address_out, bytes);
    return rail_fail(RAIL_E_INTERNAL, "shared segment: its leader laid it out differently");
}

static struct shm_mapping *mapping_find(const uint8_t key[32])
{
    for (struct shm_mapping *m = mappings; m; m = m->next)
        if (memcmp(m->key, key, 32) == 0) return m;
    return NULL;
}

static void mapping_drop_locked(struct shm_mapping *m)
{
    if (--m->users > 0) return;
    for (struct shm_mapping **p = &mappings; *p; p = &(*p)->next)
        if (*p == m) {
            *p = m->next;
            break;
        }
    if (m->address) rail_memory_unmap(m->address, m->bytes);
    free(m);
}

/* The table's entry for this key, made if it is not there; the caller is one more user. */
static struct shm_mapping *mapping_join(const uint8_t key[32], size_t bytes)
{
    pthread_mutex_lock(&mappings_lock);
    struct shm_mapping *m = mapping_find(key);
    if (!m && (m = calloc(1, sizeof *m))) {
        memcpy(m->key, key, 32);
        m->bytes = bytes;
        m->result = RAIL_NOT_YET;
        m->next = mappings;
        mappings = m;
    }
    if (m) m->users++;
    pthread_mutex_unlock(&mappings_lock);
    return m;
}

static void mapping_leave(struct shm_mapping *m)
{
    pthread_mutex_lock(&mappings_lock);
    mapping_drop_locked(m);
    pthread_mutex_unlock(&mappings_lock);
}

static enum rail_result fetch(const struct shm_request *r, struct shm_mapping *m)
{
    void *address = NULL;
    enum rail_result result = r->leader ? lead(r, m->bytes, &address) : follow(r, m->bytes, &address);
    pthread_mutex_lock(&mappings_lock);
    m->result = result;
    if (result == RAIL_OK) m->address = address;
    pthread_mutex_unlock(&mappings_lock);
    return result;
}

static enum rail_result await_first(const struct shm_request *r, struct shm_mapping *m)
{
    for (;;) {
        pthread_mutex_lock(&mappings_lock);
        enum rail_result result = m->result;
        pthread_mutex_unlock(&mappings_lock);
        if (result == RAIL_OK) return RAIL_OK;
        if (result != RAIL_NOT_YET)
            return rail_fail_quietly(result, "shared segment: this process's first rank could not map it");
        if (r->stop && *r->stop) return rail_fail_quietly(RAIL_E_ABORTED, "aborted while joining the node");
        if (rail_deadline_passed(r->deadline))
            return rail_fail(RAIL_E_TIMEOUT, "shared segment: this process's first rank did not map it in time");
        struct timespec t = {0, 200000}; /* initialisation only: the fetch takes some hundred microseconds */
        nanosleep(&t, NULL);
    }
}

enum rail_result shm_segment_open(const struct shm_request *request, struct shm_segment *out)
{
    memset(out, 0, sizeof *out);
    RAIL_TRY(geometry_check(&request->geometry));
    struct shm_mapping *m = mapping_join(request->key, shm_segment_bytes(&request->geometry));
    if (!m) return rail_fail(RAIL_E_SYSTEM, "shared segment: out of memory");
    enum rail_result result = request->first_of_process ? fetch(request, m) : await_first(request, m);
    if (result != RAIL_OK) {
        mapping_leave(m);
        return result;
    }
    lay_out(out, &request->geometry, m->address);
    out->mapping = m;
    RAIL_INFO(RAIL_SHM, "node segment: %u ranks, %zu MiB reserved, windows %zu KiB on %zu channels, slots %u x %zu KiB",
              request->geometry.n_peers, m->bytes >> 20, request->geometry.window_bytes >> 10,
              request->geometry.window_channels, request->geometry.n_slots, request->geometry.slot_bytes >> 10);
    return RAIL_OK;
}

struct shm_segment shm_segment_hold(const struct shm_segment *segment)
{
    pthread_mutex_lock(&mappings_lock);
    segment->mapping->users++;
    pthread_mutex_unlock(&mappings_lock);
    return *segment;
}

void shm_segment_close(struct shm_segment *segment)
{
    if (segment->mapping) mapping_leave(segment->mapping);
    memset(segment, 0, sizeof *segment);
}

/* Whole pages only: what reaches into a neighbour's page stays. */
static void trim(unsigned char *from, size_t bytes)
{
    uintptr_t first = page_up((uintptr_t)from), end = ((uintptr_t)from + bytes) & ~(uintptr_t)4095;
    if (first >= end || madvise((void *)first, end - first, MADV_REMOVE) == 0) return;
    RAIL_WARN("shared segment: madvise(MADV_REMOVE) of %zu MiB: %s; they stay in use", (end - first) >> 20,
              strerror(errno));
}

/* Pairs' links carry messages that nobody has asked for yet. All others are empty between calls. */
static bool holds_messages(const struct shm_segment *s, uint32_t peer)
{
    const struct shm_place *places = &s->places[(size_t)peer * shm_places(&s->geometry)];
    bool some = false;
    for (uint32_t i = shm_places_taken(&s->geometry); i < shm_places(&s->geometry); i++)
        some |= atomic_load_explicit(&places[i].published, memory_order_acquire) !=
                atomic_load_explicit(&places[i].released, memory_order_acquire);
    return some;
}

void shm_segment_trim(const struct shm_segment *segment, uint32_t peer)
{
    const struct shm_geometry *g = &segment->geometry;
    size_t windows = window_bytes_of_peer(g), slots = (size_t)shm_sets(g) * g->n_slots * g->slot_bytes;
    trim(segment->windows + peer * windows, windows);
    if (!holds_messages(segment, peer)) trim(segment->slots + peer * slots, slots);
}

size_t shm_segment_resident(const struct shm_segment *segment, uint32_t peer)
{
    const struct shm_geometry *g = &segment->geometry;
    size_t windows = window_bytes_of_peer(g), slots = (size_t)shm_sets(g) * g->n_slots * g->slot_bytes;
    return rail_memory_resident(segment->windows + peer * windows, windows) +
           rail_memory_resident(segment->slots + peer * slots, slots);
}

size_t shm_segment_resident_control(const struct shm_segment *segment, uint32_t peer)
{
    size_t places = shm_places(&segment->geometry);
    size_t express = segment->express ? rail_memory_resident(&segment->express[peer], sizeof *segment->express) : 0;
    return rail_memory_resident(&segment->controls[peer], sizeof *segment->controls) + express +
           rail_memory_resident(&segment->places[peer * places], places * sizeof *segment->places);
}

static void ring(const struct shm_segment *segment, uint32_t bits)
{
    atomic_fetch_add_explicit(&segment->header->bell, 1, memory_order_release);
    rail_futex_wake_bits(&segment->header->bell, INT_MAX, bits);
}

void shm_ring(const struct shm_segment *segment, uint32_t peer) { ring(segment, shm_bell_bit(peer)); }
void shm_ring_all(const struct shm_segment *segment) { ring(segment, RAIL_FUTEX_ALL); }
