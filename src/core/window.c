/* window.c - making a buffer of every rank known to all, and finding the way to each. */
#include "core/window.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/params.h"
#include "core/buffers.h"
#include "core/collective.h"
#include "core/gpu_rank.h"
#include "core/join.h"
#include "device/cuda/cuda.h"

#define HANDLE_MARK ((uintptr_t)0x7277 << 48) /* no address: who follows it, falls */

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER; /* protects the list and the count */
static struct window *all; /* of the process: to tell a window of another communicator from one that is none */
static uint64_t n_made;

/* What a rank tells the others. Plain bytes. */
struct offer {
    uint32_t number, flags;
    struct peer_memory_offer memory;
    uint64_t device_at;         /* of a GPU rank: where it lies for its device, and in its process */
    uint32_t on_device, exported; /* that, and the handle, are good */
    struct cuda_handle handle;
};

void windows_init(struct windows *windows) { pthread_mutex_init(&windows->lock, NULL); }

/* ---- making and freeing ---- */

static void window_add(struct comm *comm, struct window *w)
{
    pthread_mutex_lock(&all_lock);
    w->handle = HANDLE_MARK | (uintptr_t)++n_made;
    w->next_of_all = all;
    all = w;
    pthread_mutex_unlock(&all_lock);
    pthread_mutex_lock(&comm->windows.lock);
    w->next = comm->windows.first;
    comm->windows.first = w;
    pthread_mutex_unlock(&comm->windows.lock);
}

static void leave_devices(struct window *w)
{
    for (uint32_t r = 0; w->comm->gpu && r < w->comm->n_ranks; r++) {
        gpu_unmap(w->comm->gpu, w->parts[r].mapped);
        w->parts[r].mapped = NULL;
    }
}

static bool same_process(const struct comm *comm, uint32_t rank)
{
    return memcmp(comm->members[rank].process, comm->members[comm->rank].process, NET_PROCESS_ID_BYTES) == 0;
}

/* ---- what the engine may use ---- */

static enum rail_result share_add(struct comm *comm, struct window *w)
{
    struct host_shares *shares = &comm->windows.shares;
    uint32_t node = comm->shape.node_of[comm->rank], n = comm->node.segment.geometry.n_peers;
    unsigned char **at = calloc(n, sizeof *at);
    struct host_shared *of = realloc(shares->of, (shares->n + 1) * sizeof *of);
    if (of) shares->of = of;
    if (!at || !of) {
        free(at);
        return rail_fail(RAIL_E_SYSTEM, "ncclCommWindowRegister: out of memory");
    }
    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        uint32_t peer = comm->shape.peer_of[r];
        if (comm->shape.node_of[r] != node) continue;
        at[peer] = r == comm->rank ? w->own : w->parts[r].at;
        if (same_process(comm, r)) shares->near |= 1ull << peer % 64;
    }
    shares->of[shares->n++] = (struct host_shared){w->number, at};
    w->shared = true;
    return RAIL_OK;
}

static void share_drop(struct host_shares *shares, const struct window *w)
{
    for (uint32_t i = 0; i < shares->n; i++) {
        if (shares->of[i].number != w->number) continue;
        free(shares->of[i].at);
        shares->of[i] = shares->of[--shares->n];
        return;
    }
}

const struct window *window_holding(const struct windows *windows, const void *address, size_t bytes)
{
    if (!windows->shares.n) return NULL;
    for (const struct window *w = windows->first; w; w = w->next) {
        uintptr_t offset = (uintptr_t)address - (uintptr_t)w->own;
        if (w->shared && w->own && offset <= w->own_bytes && bytes <= w->own_bytes - offset) return w;
    }
    return NULL;
}

static void window_drop(struct windows *windows, struct window *w)
{
    share_drop(&windows->shares, w);
    net_memory_end(w->known);
    pthread_mutex_lock(&windows->lock);
    struct window **at = &windows->first;
    while (*at && *at != w) at = &(*at)->next;
    if (*at) *at = w->next;
    pthread_mutex_unlock(&windows->lock);
    pthread_mutex_lock(&all_lock);
    for (at = &all; *at && *at != w; at = &(*at)->next_of_all) continue;
    if (*at) *at = w->next_of_all;
    pthread_mutex_unlock(&all_lock);
    for (uint32_t r = 0; r < w->comm->n_ranks; r++) peer_memory_unmap(&w->parts[r].mapping);
    if (gpu_nothing_runs()) leave_devices(w); /* else they go with the communicator */
    free(w->parts);
    free(w);
}

void windows_clear(struct windows *windows)
{
    while (windows->first) window_drop(windows, windows->first);
    free(windows->shares.of);
    windows->shares = (struct host_shares){0};
    pthread_mutex_destroy(&windows->lock);
}

static enum rail_result window_make(struct comm *comm, void *address, size_t bytes, int flags, struct window **out)
{
    struct window *w = calloc(1, sizeof *w);
    struct window_part *parts = calloc(comm->n_ranks, sizeof *parts);
    if (!w || !parts) {
        free(w);
        free(parts);
        return rail_fail(RAIL_E_SYSTEM, "ncclCommWindowRegister: out of memory for %u ranks", comm->n_ranks);
    }
    *w = (struct window){.comm = comm, .number = ++comm->windows.number, .flags = flags, .own = address,
                         .own_bytes = bytes, .parts = parts};
    if (!comm->gpu) w->known = net_memory_add(address, bytes);
    rail_random(w->cookie, sizeof w->cookie);
    window_add(comm, w);
    *out = w;
    return RAIL_OK;
}

/* ---- registering ---- */

/* What is no whole memory of cudaMalloc's goes to no other process. */
static void offer_device(const struct window *w, struct offer *o)
{
    static const char call[] = "ncclCommWindowRegister";
    struct cuda_device *device = w->comm->gpu_device;
    struct cuda_pointer at;
    o->on_device = cuda_pointer_check(device, call, "buff", w->own, w->own_bytes, &at) == RAIL_OK;
    o->device_at = at.address;
    o->exported = o->on_device && w->own_bytes && at.where == CUDA_DEVICE_MEMORY && w->comm->n_ranks > 1 &&
                  cuda_export(device, call, at.address, &o->handle) == RAIL_OK;
}

static struct offer offer_of(const struct window *w)
{
    struct buffer_place place;
    struct offer o = {
        .number = w->number,
        .flags = (uint32_t)w->flags,
        .memory = {.address = (uintptr_t)w->own, .bytes = w->own_bytes, .fd = -1, .pid = (int32_t)getpid(),
                   .cookie_address = (uintptr_t)w->cookie},
    };
    memcpy(o.memory.cookie, w->cookie, sizeof w->cookie);
    if (w->comm->gpu) offer_device(w, &o);
    if (w->comm->gpu || !w->own_bytes || !buffer_find(w->own, w->own_bytes, &place)) return o;
    o.memory.fd = place.fd;
    o.memory.offset = place.offset;
    o.memory.inode = place.inode;
    o.memory.device = place.device;
    return o;
}

/* All ranks see the same offers, so all refuse alike, and the communicator works on. */
static enum rail_result compare(const struct comm *comm, const struct offer *offers)
{
    const struct offer *a = &offers[0];
    for (uint32_t r = 1; r < comm->n_ranks; r++) {
        const struct offer *b = &offers[r];
        if (a->number != b->number)
            return rail_fail(RAIL_E_USAGE,
                             "ncclCommWindowRegister: it is call %u at rank 0 and call %u at rank %u: all "
                             "ranks must make the same calls in the same order", a->number, b->number, r);
        if (a->flags != b->flags)
            return rail_fail(RAIL_E_USAGE,
                             "ncclCommWindowRegister: winFlags 0x%x at rank 0 and 0x%x at rank %u: pass the "
                             "same on all ranks", a->flags, b->flags, r);
        if (a->flags & WINDOW_SYMMETRIC && a->memory.bytes != b->memory.bytes)
            return rail_fail(RAIL_E_USAGE, "ncclCommWindowRegister: size %llu at rank 0 and %llu at rank %u: with "
                             "NCCL_WIN_COLL_SYMMETRIC all ranks pass the same size",
                             (unsigned long long)a->memory.bytes,
                             (unsigned long long)b->memory.bytes, r);
    }
    return RAIL_OK;
}

static enum window_way best_way(void)
{
    const char *best = rail_param_str(RAIL_PARAM_WINDOW_WAY);
    return strcasecmp(best, "link") == 0 ? WINDOW_BY_LINK : strcasecmp(best, "kernel") == 0 ? WINDOW_BY_KERNEL
                                                                                          : WINDOW_BY_ADDRESS;
}

static struct window_part device_way_to(const struct comm *comm, uint32_t rank, const struct offer *o)
{
    struct window_part part = {.way = WINDOW_OUT_OF_REACH, .bytes = o->memory.bytes, .device_at = o->device_at};
    if (!comm->gpu || !o->on_device || comm->shape.node_of[rank] != comm->shape.node_of[comm->rank]) return part;
    bool reached = same_process(comm, rank) || !part.bytes ||
                   (o->exported && gpu_map_handle(comm->gpu, &o->handle, &part.mapped, &part.device_at) == RAIL_OK);
    if (reached) part.way = WINDOW_BY_DEVICE;
    return part;
}

static struct window_part way_to(const struct comm *comm, uint32_t rank, const struct offer *o)
{
    const struct peer_memory_offer *offer = &o->memory;
    enum window_way best = best_way();
    struct window_part part = {.way = WINDOW_BY_LINK, .bytes = offer->bytes, .remote = offer->address,
                               .pid = offer->pid};
    if (comm->gpu || comm->members[rank].gpu >= 0) return device_way_to(comm, rank, o);
    if (same_process(comm, rank) || !offer->bytes) {
        part.way = WINDOW_BY_ADDRESS;
        part.at = (unsigned char *)(uintptr_t)offer->address;
    } else if (comm->shape.node_of[rank] != comm->shape.node_of[comm->rank]) {
        return part;
    } else if (best <= WINDOW_BY_ADDRESS && peer_memory_map(offer, &part.mapping, &part.at)) {
        part.way = WINDOW_BY_ADDRESS;
    } else if (best <= WINDOW_BY_KERNEL && peer_memory_writable(offer)) {
        part.way = WINDOW_BY_KERNEL;
    }
    return part;
}

/* True when some rank is only to be reached by link. */
static bool find_ways(struct window *w, const struct offer *offers)
{
    static const char *const names[] = {"by address", "by process_vm_writev", "by network link",
                                        "by the device's copies", "out of reach of puts"};
    const struct comm *comm = w->comm;
    bool links = false;
    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        w->parts[r] = way_to(comm, r, &offers[r]);
        links |= w->parts[r].way == WINDOW_BY_LINK;
        RAIL_INFO(RAIL_REG, "window %u of %zu bytes: rank %u, %zu bytes, %s", w->number, w->own_bytes, r,
                  w->parts[r].bytes, names[w->parts[r].way]);
    }
    return links;
}

/* What a rank found of the ways to the others. */
enum { NEEDS_LINKS = 1, REACHES_NODE = 2 };

static uint8_t found(const struct window *w, bool links)
{
    const struct comm *comm = w->comm;
    uint32_t node = comm->shape.node_of[comm->rank];
    bool reached = comm->node.segment.geometry.n_peers > 1 && !comm->unrung;
    for (uint32_t r = 0; r < comm->n_ranks; r++)
        if (r != comm->rank && comm->shape.node_of[r] == node) reached &= w->parts[r].way == WINDOW_BY_ADDRESS;
    return (uint8_t)((links ? NEEDS_LINKS : 0) | (reached ? REACHES_NODE : 0));
}

/* One rank that cannot reach a peer of its own host otherwise makes the whole communicator use the network; one that cannot
 * reach a peer's part by address keeps its node's collectives from using the window. */
static enum rail_result agree_on_ways(struct comm *comm, struct window *w, bool links)
{
    uint32_t node = comm->shape.node_of[comm->rank];
    bool any = false, shared = true;
    uint8_t *said = calloc(comm->n_ranks, 1);
    if (!said) return rail_fail(RAIL_E_SYSTEM, "ncclCommWindowRegister: out of memory for %u ranks", comm->n_ranks);
    said[comm->rank] = found(w, links);
    enum rail_result result = bootstrap_allgather(comm->bootstrap, said, 1, rail_deadline_never());
    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        any |= said[r] & NEEDS_LINKS;
        if (comm->shape.node_of[r] == node) shared &= (said[r] & REACHES_NODE) != 0;
    }
    free(said);
    RAIL_TRY(result);
    if (shared && !comm->direct) RAIL_TRY(share_add(comm, w));
    if (shared && comm->shape.n_nodes == 1) table_shared(&comm->table, &comm->shape);
    return any && !comm->addresses ? comm_connect(comm, rail_deadline_never()) : RAIL_OK;
}

static enum rail_result exchange(struct window *w, struct comm *comm, enum rail_result *verdict)
{
    struct offer *offers = calloc(comm->n_ranks, sizeof *offers);
    if (!offers) return rail_fail(RAIL_E_SYSTEM, "ncclCommWindowRegister: out of memory for %u ranks", comm->n_ranks);
    offers[comm->rank] = offer_of(w);
    enum rail_result result = bootstrap_allgather(comm->bootstrap, offers, sizeof *offers, rail_deadline_never());
    bool links = false;
    if (result == RAIL_OK && (*verdict = compare(comm, offers)) == RAIL_OK) links = find_ways(w, offers);
    free(offers);
    if (result == RAIL_OK && *verdict == RAIL_OK) result = agree_on_ways(comm, w, links);
    return result;
}

/* The target must know its window before anybody can put into it: it is in the list before the first exchange. */
static enum rail_result register_inside(struct comm *comm, void *address, size_t bytes, int flags,
                                        uintptr_t *handle_out)
{
    struct window *w = NULL;
    enum rail_result verdict = RAIL_OK;
    RAIL_TRY(fault_result(&comm->fault));
    RAIL_TRY(gpu_rank_quiet(comm, "ncclCommWindowRegister", false)); /* handles are made and opened */
    RAIL_TRY(window_make(comm, address, bytes, flags, &w));
    enum rail_result result = exchange(w, comm, &verdict);
    if (result != RAIL_OK) result = comm_failed(comm, result);
    if (result == RAIL_OK) result = verdict;
    if (result == RAIL_OK)
        *handle_out = w->handle;
    else
        window_drop(&comm->windows, w);
    return result;
}

enum rail_result window_check(const void *address, size_t bytes, int flags)
{
    static const char call[] = "ncclCommWindowRegister";
    if (flags & ~(WINDOW_SYMMETRIC | WINDOW_STRICT_ORDERING))
        return rail_fail(RAIL_E_ARGUMENT,
                         "%s: winFlags 0x%x: valid are NCCL_WIN_DEFAULT (0), NCCL_WIN_COLL_SYMMETRIC (1) "
                         "and NCCL_WIN_STRICT_ORDERING (2)", call, (unsigned)flags);
    if (!address && bytes)
        return rail_fail(RAIL_E_ARGUMENT, "%s: buff is NULL and size %zu; a rank without a part passes NULL and 0",
                         call,
                         bytes);
    if (bytes > UINTPTR_MAX - (uintptr_t)address)
        return rail_fail(RAIL_E_ARGUMENT, "%s: %zu bytes at %p go beyond the end of memory", call, bytes, address);
    return RAIL_OK;
}

enum rail_result window_memory_check(const struct comm *comm, const void *address, size_t bytes)
{
    if (!comm->gpu) return RAIL_OK;
    return cuda_pointer_check(comm->gpu_device, "ncclCommWindowRegister", "buff", address, bytes, NULL);
}

/* What was posted before may use windows, and is inside. */
enum rail_result window_register(struct comm *comm, void *address, size_t bytes, int flags, uintptr_t *handle_out)
{
    RAIL_TRY(window_check(address, bytes, flags));
    RAIL_TRY(window_memory_check(comm, address, bytes));
    comm_settle(comm);
    RAIL_TRY(comm_hold(comm, "ncclCommWindowRegister"));
    enum rail_result result = register_inside(comm, address, bytes, flags, handle_out);
    comm_let_go(comm);
    return result;
}

/* ---- deregistering ---- */

/* Everybody's puts have been taken in, and everybody ends the same window. */
static enum rail_result settle(struct comm *comm, struct window *w)
{
    uint32_t *numbers = calloc(comm->n_ranks, sizeof *numbers);
    if (!numbers) return rail_fail(RAIL_E_SYSTEM, "ncclCommWindowDeregister: out of memory for %u ranks",
                                   comm->n_ranks);
    numbers[comm->rank] = w->number;
    enum rail_result result = onesided_drain(comm);
    if (result == RAIL_OK) result = gpu_rank_quiet(comm, "ncclCommWindowDeregister", false);
    if (result == RAIL_OK) leave_devices(w); /* before anybody may free what was mapped */
    if (result == RAIL_OK)
        result = bootstrap_allgather(comm->bootstrap, numbers, sizeof *numbers, rail_deadline_never());
    for (uint32_t r = 0; result == RAIL_OK && r < comm->n_ranks; r++)
        if (numbers[r] != w->number)
            result = rail_fail(RAIL_E_USAGE,
                               "ncclCommWindowDeregister: rank %u ends the communicator's window %u and rank "
                               "%u window %u: all ranks must make the same calls in the same order", comm->rank,
                               w->number,
                               r, numbers[r]);
    free(numbers);
    return result;
}

/* In a communicator that has failed nothing more arrives; the handle is freed all the same. */
enum rail_result window_deregister(struct comm *comm, uintptr_t handle)
{
    struct window *w;
    RAIL_TRY(window_find(comm, handle, "ncclCommWindowDeregister", &w));
    comm_settle(comm);
    RAIL_TRY(comm_hold(comm, "ncclCommWindowDeregister"));
    enum rail_result result = RAIL_OK;
    if (!atomic_load(&comm->fault.stop) && (result = settle(comm, w)) != RAIL_OK) result = comm_failed(comm, result);
    comm_let_go(comm);
    window_drop(&comm->windows, w);
    return result;
}

/* ---- finding ---- */

static bool is_anothers(uintptr_t handle)
{
    bool found = false;
    pthread_mutex_lock(&all_lock);
    for (const struct window *w = all; w && !found; w = w->next_of_all) found = w->handle == handle;
    pthread_mutex_unlock(&all_lock);
    return found;
}

enum rail_result window_find(const struct comm *comm, uintptr_t handle, const char *call, struct window **out)
{
    for (struct window *w = comm->windows.first; w; w = w->next)
        if (w->handle == handle) {
            *out = w;
            return RAIL_OK;
        }
    if (!handle) return rail_fail(RAIL_E_ARGUMENT, "%s: the window is NULL", call);
    if (is_anothers(handle))
        return rail_fail(RAIL_E_ARGUMENT, "%s: window %p belongs to another communicator", call, (void *)handle);
    return rail_fail(RAIL_E_ARGUMENT, "%s: %p is no living window (deregistered before, or never made by this library)",
                     call, (void *)handle);
}

/* ---- what arrives ---- */

/* The lock is held while it is copied: a window that is freed by windows_clear is not written any more. */
enum rail_result window_take(struct comm *comm, uint32_t from, uint32_t number, uint64_t offset, const void *data,
                             size_t bytes)
{
    enum rail_result result = RAIL_OK;
    pthread_mutex_lock(&comm->windows.lock);
    const struct window *w = comm->windows.first;
    while (w && w->number != number) w = w->next;
    if (!w)
        result = rail_fail(RAIL_E_REMOTE,
                           "rank %u put %zu bytes into window %u of rank %u, which it does not have (any "
                           "more): end a window on all ranks together", from, bytes, number, comm->rank);
    else if (offset > w->own_bytes || bytes > w->own_bytes - offset)
        result = rail_fail(RAIL_E_REMOTE,
                           "rank %u put %zu bytes at offset %llu into window %u of rank %u, which has %zu",
                           from, bytes, (unsigned long long)offset, number, comm->rank, w->own_bytes);
    else if (comm->gpu)
        result = rail_fail(RAIL_E_REMOTE, "rank %u put %zu bytes into window %u of rank %u, which is on a GPU", from,
                           bytes, number, comm->rank);
    else
        memcpy((unsigned char *)w->own + offset, data, bytes);
    pthread_mutex_unlock(&comm->windows.lock);
    return result;
}
