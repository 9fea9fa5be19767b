/* kernel_ranks.h - ranks of one node that run their calls by the kernel built for the host, or by the host engine, over one
 * shared segment: no driver, no streams. Each thread of each block is a thread here; what the kernel is given as memory of
 * a device cannot be touched at the address that it is given (emulated_cuda/emulated.h). */
#ifndef RAIL_TESTS_ENGINE_KERNEL_RANKS_H
#define RAIL_TESTS_ENGINE_KERNEL_RANKS_H

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "algos/algos.h"
#include "base/memory.h"
#include "core/wires.h"
#include "emulated_cuda/emulated.h"
#include "engine/host.h"
#include "engine/kernel.h"
#include "engine/messages.h"
#include "engine/signature.h"
#include "plan/collective.h"

extern const uint32_t rail_interpret_argument_bytes;
void rail_interpret(const void *argument, const struct emulated_thread *here);

/* The segment is where the kernel looks for it. */
_Static_assert(sizeof(struct shm_rounds) == KERNEL_ROUNDS_BYTES && offsetof(struct shm_rounds, exposure) == KERNEL_ROUNDS_EXPOSURE &&
                   sizeof(struct shm_exposure) == KERNEL_LINE && offsetof(struct shm_exposure, output) == 8 &&
                   offsetof(struct shm_exposure, signature) == 16 && offsetof(struct shm_exposure, direct) == 24 &&
                   (int)SHM_DEPTH == (int)KERNEL_DEPTH, "rounds");
_Static_assert(sizeof(struct shm_place) == KERNEL_PLACE_BYTES && offsetof(struct shm_place, set) == KERNEL_PLACE_SET &&
                   offsetof(struct shm_place, published) == KERNEL_PLACE_PUBLISHED &&
                   offsetof(struct shm_place, released) == KERNEL_PLACE_RELEASED &&
                   offsetof(struct shm_place, meta) == KERNEL_PLACE_META, "places");
_Static_assert((int)SHM_CALLS == (int)KERNEL_CALLS && offsetof(struct shm_calls, left_ns) == KERNEL_CALLS_LEFT_NS &&
                   offsetof(struct shm_calls, signature) == KERNEL_CALLS_SIGNATURE, "calls");
_Static_assert((int)SHM_WORD == (int)KERNEL_EXPRESS_WORD && (int)SHM_WORD_DATA == (int)KERNEL_EXPRESS_DATA &&
                   (int)SHM_WORDS_BEFORE == (int)KERNEL_EXPRESS_HEAD, "lines");

enum { RANKS_MAX = 8, LINKS_MAX = 256, DEVICE_BYTES = 64 << 20 };
enum { SMALL_MOST = 4 << 10 }; /* bytes of a block of a small collective */

/* ---- memory of a device -------------------------------------------------------------------------------------------------- */

struct device {
    unsigned char *seen, *real; /* the same bytes: at `seen` nobody may touch them */
    size_t used;
};

static inline void device_open(struct device *d)
{
    d->seen = mmap(NULL, DEVICE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    d->real = mmap(NULL, DEVICE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    d->used = 0;
    assert_true(d->seen != MAP_FAILED && d->real != MAP_FAILED);
}
static inline void device_close(struct device *d)
{
    munmap(d->seen, DEVICE_BYTES);
    munmap(d->real, DEVICE_BYTES);
}
/* Zeroed. The address that kernels are given. */
static inline unsigned char *device_take(struct device *d, size_t bytes)
{
    size_t at = d->used;
    d->used = (at + bytes + 255) / 256 * 256;
    assert_true(d->used <= DEVICE_BYTES);
    memset(d->real + at, 0, bytes);
    return d->seen + at;
}
static inline void *device_real(const struct device *d, const void *seen)
{
    const unsigned char *p = seen;
    return p >= d->seen && p < d->seen + DEVICE_BYTES ? d->real + (p - d->seen) : (void *)(uintptr_t)seen;
}

/* ---- a launch -------------------------------------------------------------------------------------------------------------- */

struct launch_thread {
    struct emulated_thread here;
    pthread_barrier_t *barrier;
    const struct kernel_call *call;
    pthread_t thread;
};

static inline void launch_sync(const struct emulated_thread *here)
{
    const struct launch_thread *t = (const struct launch_thread *)(const void *)here;
    if (here->n_threads > 1) pthread_barrier_wait(t->barrier);
}

static inline void *launch_main(void *arg)
{
    struct launch_thread *t = arg;
    rail_interpret(t->call, &t->here);
    return NULL;
}

/* Runs to its end. */
static inline void launch(const struct device *device, const struct kernel_call *call, uint32_t threads)
{
    uint32_t n = call->n_blocks * threads;
    struct launch_thread *all = calloc(n, sizeof *all);
    pthread_barrier_t *barriers = calloc(call->n_blocks, sizeof *barriers);
    unsigned char *shared = aligned_alloc(64, (size_t)call->n_blocks * KERNEL_SHARED_BYTES);
    assert_true(all && barriers && shared);
    memset(shared, 0, (size_t)call->n_blocks * KERNEL_SHARED_BYTES);
    for (uint32_t b = 0; b < call->n_blocks; b++) pthread_barrier_init(&barriers[b], NULL, threads);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t b = k / threads;
        all[k].here = (struct emulated_thread){b, call->n_blocks, k % threads, threads, shared + (size_t)b * KERNEL_SHARED_BYTES,
                                               launch_sync, (uintptr_t)device->seen, (uintptr_t)device->seen + DEVICE_BYTES,
                                               (ptrdiff_t)((intptr_t)device->real - (intptr_t)device->seen)};
        all[k].barrier = &barriers[b];
        all[k].call = call;
        assert_int_equal(pthread_create(&all[k].thread, NULL, launch_main, &all[k]), 0);
    }
    for (uint32_t k = 0; k < n; k++) pthread_join(all[k].thread, NULL);
    for (uint32_t b = 0; b < call->n_blocks; b++) pthread_barrier_destroy(&barriers[b]);
    free(shared);
    free(barriers);
    free(all);
}

/* ---- ranks -------------------------------------------------------------------------------------------------------------- */

/* What ranks have in common; the segment is made as they are opened, all at once, each by a thread of its own. */
struct ranks {
    uint32_t n;
    struct shape shape;
    uint8_t key[32];
    struct shm_geometry geometry;
    struct device device;
    pthread_barrier_t together;
};

struct kernel_rank {
    struct ranks *all;
    uint32_t rank, threads;    /* of a block */
    struct host_node node;     /* the segment; and for ranks that the host engine runs */
    struct wires wires;
    uint64_t kernel_node;      /* of struct kernel_node */
    struct kernel_report *report;
    uint32_t *stop;
    uint64_t links[LINKS_MAX]; /* of struct kernel_link, made as they are first used */
    const struct link *link_of[LINKS_MAX];
    uint32_t n_links;
};

static inline void ranks_open(struct ranks *all, uint32_t n, size_t window_bytes, size_t slot_bytes, uint32_t channels)
{
    uint64_t keys[RANKS_MAX] = {0};
    *all = (struct ranks){.n = n, .geometry = {.n_peers = n, .n_slots = 4, .window_bytes = window_bytes, .slot_bytes = slot_bytes,
                                               .window_channels = channels, .small_bytes = n > 1 ? SMALL_MOST : 0}};
    assert_int_equal(shape_build(&all->shape, n, keys, 1), 0);
    rail_random(all->key, sizeof all->key);
    device_open(&all->device);
    pthread_barrier_init(&all->together, NULL, n);
}

static inline void ranks_close(struct ranks *all)
{
    pthread_barrier_destroy(&all->together);
    device_close(&all->device);
    shape_clear(&all->shape);
}

/* The device's bump allocator is one for all ranks. */
static inline unsigned char *ranks_take(struct ranks *all, size_t bytes)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    unsigned char *at = device_take(&all->device, bytes);
    pthread_mutex_unlock(&lock);
    return at;
}

static inline void *real_of(const struct kernel_rank *me, uint64_t address)
{
    return device_real(&me->all->device, (const void *)(uintptr_t)address);
}

static inline void node_open(struct kernel_rank *me)
{
    struct shm_segment *s = &me->node.segment;
    uint64_t windows = (uint64_t)(uintptr_t)ranks_take(me->all, 8 * s->geometry.n_peers);
    for (uint32_t p = 0; p < s->geometry.n_peers; p++)
        ((uint64_t *)real_of(me, windows))[p] = (uint64_t)(uintptr_t)shm_window_at(s, p, 0, SHM_WINDOW_IN, 0);
    uint64_t staging = (uint64_t)(uintptr_t)ranks_take(me->all, 2 * s->geometry.n_peers * SMALL_MOST);
    me->kernel_node = (uint64_t)(uintptr_t)ranks_take(me->all, sizeof(struct kernel_node));
    *(struct kernel_node *)real_of(me, me->kernel_node) = (struct kernel_node){
        .stop = (uint64_t)(uintptr_t)me->stop,
        .report = (uint64_t)(uintptr_t)me->report,
        .calls = (uint64_t)(uintptr_t)&s->controls[me->node.self].calls,
        .rounds = (uint64_t)(uintptr_t)s->rounds,
        .windows = windows,
        .window_bytes = s->geometry.window_bytes,
        .n_peers = s->geometry.n_peers,
        .self = me->node.self,
        .window_channels = (uint32_t)s->geometry.window_channels,
        .rank = me->rank,
        .staging = staging,
        .staging_bytes = SMALL_MOST,
        .line_words = shm_line_words(&s->geometry),
    };
    struct kernel_node *node = real_of(me, me->kernel_node);
    for (uint32_t p = 0; p < s->geometry.n_peers; p++) {
        node->ranks[p] = me->node.ranks[p];
        node->lines[p] = (uint64_t)(uintptr_t)(s->lines + p * shm_lines_bytes(&s->geometry));
    }
}

/* By each rank's thread. */
static inline void kernel_rank_open(struct kernel_rank *me, struct ranks *all, uint32_t rank, uint32_t threads)
{
    *me = (struct kernel_rank){.all = all, .rank = rank, .threads = threads, .node = {.self = rank, .ranks = all->shape.order}};
    struct shm_request request = {.geometry = all->geometry, .leader = rank == 0, .first_of_process = rank == 0,
                                  .n_processes = 1, .deadline = rail_deadline_in_ns(20 * RAIL_NS_PER_S)};
    memcpy(request.key, all->key, 32);
    pthread_barrier_wait(&all->together);
    assert_int_equal(shm_segment_open(&request, &me->node.segment), RAIL_OK);
    me->wires = (struct wires){.shape = &all->shape, .rank = rank, .node = &me->node};
    me->report = calloc(1, sizeof *me->report);
    me->stop = calloc(1, sizeof *me->stop);
    node_open(me);
}

static inline void kernel_rank_close(struct kernel_rank *me)
{
    pthread_barrier_wait(&me->all->together); /* nobody unmaps before all are done */
    wires_clear(&me->wires);
    shm_segment_close(&me->node.segment);
    free(me->report);
    free(me->stop);
}

/* My end of a link, for the kernel. A sender's place is left to be found, but on the links of pairs. */
static inline uint64_t kernel_link_of(struct kernel_rank *me, const struct link *link)
{
    for (uint32_t k = 0; k < me->n_links; k++)
        if (me->link_of[k] == link) return me->links[k];
    const struct shm_segment *s = &me->node.segment;
    const struct shm_geometry *g = &s->geometry;
    uint32_t to = me->all->shape.peer_of[link->to], taken = shm_places_taken(g), index = taken;
    const struct shm_place *places = &s->places[(size_t)to * shm_places(g)];
    uint64_t key = ((uint64_t)link->from + 1) << 32 | link->channel;
    if (link->channel >= LINK_CHANNEL_PAIRS)
        index = taken + (link->channel - LINK_CHANNEL_PAIRS) * g->n_peers + me->all->shape.peer_of[link->from];
    else if (link->to == me->rank)
        for (index = 0; atomic_load(&places[index].key) != key; index++) assert_true(index < taken);
    bool known = link->channel >= LINK_CHANNEL_PAIRS || link->to == me->rank;
    assert_true(me->n_links < LINKS_MAX);
    uint64_t at = (uint64_t)(uintptr_t)ranks_take(me->all, sizeof(struct kernel_link));
    *(struct kernel_link *)real_of(me, at) = (struct kernel_link){
        .place = known ? (uint64_t)(uintptr_t)&places[index] : 0,
        .slots = known ? (uint64_t)(uintptr_t)shm_slots_of(s, to, index) : 0,
        .key = key,
        .places = (uint64_t)(uintptr_t)places,
        .slots_base = (uint64_t)(uintptr_t)(s->slots + (size_t)to * shm_sets(g) * g->n_slots * g->slot_bytes),
        .n_places = taken,
        .n_slots = g->n_slots,
        .slot_bytes = (uint32_t)g->slot_bytes,
        .from = link->from,
        .to = link->to,
    };
    me->link_of[me->n_links] = link;
    return me->links[me->n_links++] = at;
}

static inline uint64_t ranks_copy(struct kernel_rank *me, const void *data, size_t bytes)
{
    uint64_t at = (uint64_t)(uintptr_t)ranks_take(me->all, bytes);
    memcpy(real_of(me, at), data, bytes);
    return at;
}

/* The launch of a collective that the host engine would run as `host`. */
static inline struct kernel_call kernel_collective(struct kernel_rank *me, const struct host_call *host,
                                                   struct instance *const *instances)
{
    struct kernel_call call = {
        .node = me->kernel_node,
        .work = KERNEL_COLLECTIVE,
        .input = (uint64_t)(uintptr_t)host->input,
        .output = (uint64_t)(uintptr_t)host->output,
        .how = {.type = host->how.type, .op = host->how.op, .scaled = host->how.scaled, .scale = host->how.scale,
                .divide = host->how.divide},
        .split = host->split,
        .input_blocks = host->blocks.input,
        .output_blocks = host->blocks.output,
        .scratch = (uint64_t)(uintptr_t)host->scratch,
        .scratch_piece_bytes = host->scratch_piece_bytes,
        .signature = host->signature,
        .direct = host->direct,
        .counts = 1,
        .n_channels = host->split.n_channels,
    };
    if (host->blocks.order) call.order = ranks_copy(me, host->blocks.order, me->all->n * sizeof(uint32_t));
    for (uint32_t c = 0; c < call.n_channels; c++) {
        const struct instance *i = instances[c];
        uint64_t links[PLAN_MAX_LINKS] = {0};
        for (uint32_t l = 0; l < i->plan.n_links; l++) links[l] = kernel_link_of(me, i->links[l]);
        call.channels[c] = (struct kernel_channel){.plan = ranks_copy(me, &i->plan, sizeof i->plan),
                                                   .links = ranks_copy(me, links, sizeof links),
                                                   .first_block = call.n_blocks, .n_strands = i->plan.n_strands};
        call.n_blocks += i->plan.n_strands;
    }
    return call;
}

/* The same in one hop. */
static inline struct kernel_call kernel_express(struct kernel_rank *me, const struct host_call *host, uint32_t collective,
                                                uint32_t root, bool balanced)
{
    return (struct kernel_call){
        .node = me->kernel_node,
        .work = KERNEL_EXPRESS,
        .n_blocks = 1,
        .input = (uint64_t)(uintptr_t)host->input,
        .output = (uint64_t)(uintptr_t)host->output,
        .how = {.type = host->how.type, .op = host->how.op, .scaled = host->how.scaled, .scale = host->how.scale,
                .divide = host->how.divide},
        .split = {.count = host->split.count},
        .signature = host->signature,
        .counts = 1,
        .stop = (uint64_t)(uintptr_t)me->stop,
        .collective = collective,
        .root = root,
        .balanced = balanced,
    };
}

/* ---- ranks that the host engine runs ------------------------------------------------------------------------------------ */

/* A kernel rings no doorbell: who shares a node with one looks, and yields. */
static inline enum rail_result host_run(struct kernel_rank *me, const struct host_call *call, struct instance *const *instances)
{
    struct host_op op;
    RAIL_TRY(host_op_start(&op, &me->node, call, instances));
    enum rail_result result;
    while ((result = host_op_progress(&op)) == RAIL_NOT_YET) sched_yield();
    return result;
}

#endif
