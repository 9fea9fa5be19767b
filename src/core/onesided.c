/* onesided.c - puts, signals, and waiting for them (the ways are drawn in onesided.h). */
#include "core/onesided.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/collective.h"
#include "core/comm.h"
#include "core/reach.h"
#include "device/host.h"
#include "engine/gpu.h"

/* Between two looks at the stop word. */
#define COPY_BYTES_MAX ((size_t)64 << 20)

/* In front of a slot's data. Little-endian, as everything between hosts. */
struct put_header {
    uint64_t offset;  /* into the window */
    uint32_t window;  /* its number; not looked at without data */
    uint32_t signal;  /* 0: none yet, else 1 + which */
};
enum { HEADER_BYTES = 64 }; /* data stay aligned */
_Static_assert(sizeof(struct put_header) == 16 && sizeof(struct put_header) <= HEADER_BYTES, "wire layout");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "wire layouts are written as they lie in memory");

static bool is_near(const struct comm *comm, uint32_t rank)
{
    return comm->shape.node_of[rank] == comm->shape.node_of[comm->rank];
}

static void ring(const struct comm *comm, uint32_t peer)
{
    shm_notify(&comm->node.segment, peer);
}

/* ---- counters ---- */

/* Made by whoever is first: the driver that counts, or the thread that waits. NULL: out of memory. */
static _Atomic uint64_t *arrived_of(struct comm *comm, uint32_t source)
{
    if (is_near(comm, source)) return shm_signals_at(&comm->node.segment, comm->node.self, comm->shape.peer_of[source]);
    struct onesided_peer *peer = &comm->onesided.peers[source];
    _Atomic uint64_t *counters = atomic_load_explicit(&peer->arrived, memory_order_acquire), *made;
    if (counters) return counters;
    made = calloc(SHM_SIGNALS, sizeof *made);
    if (!made || atomic_compare_exchange_strong(&peer->arrived, &counters, made)) return made;
    free(made);
    return counters;
}

static void count_here(struct comm *comm, _Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_release);
    ring(comm, comm->node.self);
}

/* ---- the target of a link ---- */

static enum rail_result take(struct comm *comm, uint32_t from, const void *slot, size_t bytes)
{
    struct put_header m;
    if (bytes < HEADER_BYTES || from >= comm->n_ranks)
        return rail_fail(RAIL_E_REMOTE, "one-sided operation of rank %u: a message of %zu bytes", from, bytes);
    memcpy(&m, slot, sizeof m);
    if (m.signal > SHM_SIGNALS)
        return rail_fail(RAIL_E_REMOTE, "one-sided operation of rank %u: signal number %u", from, m.signal);
    if (bytes > HEADER_BYTES)
        RAIL_TRY(window_take(comm, from, m.window, m.offset, (const char *)slot + HEADER_BYTES, bytes - HEADER_BYTES));
    if (m.signal == 0) return RAIL_OK;
    _Atomic uint64_t *counters = arrived_of(comm, from);
    if (!counters) return rail_fail(RAIL_E_SYSTEM, "signals of rank %u: out of memory", from);
    count_here(comm, &counters[m.signal - 1]);
    return RAIL_OK;
}

/* What cannot be taken in is this communicator's failure: nobody waits here who could be told otherwise. */
static enum rail_result deliver(void *owner, uint32_t from, const void *slot, size_t bytes)
{
    struct comm *comm = owner;
    enum rail_result result = take(comm, from, slot, bytes);
    if (result == RAIL_OK) return RAIL_OK;
    char text[512];
    snprintf(text, sizeof text, "%s", rail_own_error());
    if (fault_raise(&comm->fault, result, text)) bootstrap_tell(comm->bootstrap, from, result, text);
    shm_ring(&comm->node.segment, comm->node.self);
    return rail_fail_quietly(result, "%s", text);
}

static void ended(void *owner, uint32_t from)
{
    struct comm *comm = owner;
    if (from >= comm->n_ranks) return;
    atomic_store_explicit(&comm->onesided.peers[from].ended, true, memory_order_release);
    shm_ring(&comm->node.segment, comm->node.self);
}

/* ---- life ---- */

enum rail_result onesided_init(struct comm *comm, int n_contexts)
{
    struct onesided *o = &comm->onesided;
    windows_init(&comm->windows);
    comm->node.shares = &comm->windows.shares;
    o->n_contexts = n_contexts < 1 ? 1 : n_contexts > SHM_CONTEXTS ? SHM_CONTEXTS : n_contexts;
    o->peers = calloc(comm->n_ranks, sizeof *o->peers);
    return o->peers ? RAIL_OK : rail_fail(RAIL_E_SYSTEM, "%u ranks: out of memory", comm->n_ranks);
}

enum rail_result onesided_listen(struct comm *comm)
{
    struct net_acceptor *a = &comm->onesided.acceptor;
    a->comm_key = comm->wires.comm_key;
    a->to = comm->rank;
    a->channel = ONESIDED_CHANNEL;
    a->n_slots = comm->wires.net_slots;
    a->slot_bytes = comm->wires.net_slot_bytes;
    a->peers = comm->addresses;
    a->n_peers = comm->n_ranks;
    a->self = &comm->addresses[comm->rank];
    a->deliver = deliver;
    a->ended = ended;
    a->owner = comm;
    return net_accept(a);
}

bool onesided_drained(const struct comm *comm)
{
    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        struct link *out = comm->onesided.peers[r].out;
        if (out && !out->ops->drained(out)) return false;
    }
    return true;
}

void onesided_clear(struct comm *comm)
{
    struct onesided *o = &comm->onesided;
    if (!o->peers) return;
    net_accept_end(&o->acceptor);
    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        struct onesided_peer *peer = &o->peers[r];
        if (peer->out) peer->out->ops->close(peer->out);
        free((void *)(uintptr_t)atomic_load(&peer->arrived));
        free(peer->awaited);
    }
    free(o->peers);
    o->peers = NULL;
    windows_clear(&comm->windows);
}

/* ---- checks ---- */

static enum rail_result check_peer(const struct comm *comm, const char *call, int peer)
{
    if (peer >= 0 && (uint32_t)peer < comm->n_ranks) return RAIL_OK;
    return rail_fail(RAIL_E_ARGUMENT, "%s: peer %d: valid are 0 to %u, the ranks of the communicator", call, peer,
                     comm->n_ranks - 1);
}

static enum rail_result check_signal(const struct comm *comm, const char *call, int signal, int ctx)
{
    if (signal < 0 || signal >= SHM_SIGNAL_INDICES)
        return rail_fail(RAIL_E_ARGUMENT, "%s: sigIdx %d: valid are 0 to %d", call, signal, SHM_SIGNAL_INDICES - 1);
    if (ctx < 0 || ctx >= comm->onesided.n_contexts)
        return rail_fail(RAIL_E_ARGUMENT,
                         "%s: ctx %d: valid are 0 to %d (numRmaCtx of ncclConfig_t makes it up to %d)", call,
                         ctx, comm->onesided.n_contexts - 1, SHM_CONTEXTS - 1);
    return RAIL_OK;
}

static enum rail_result check_data(const struct onesided_put *p, size_t *bytes)
{
    if (p->type < 0 || p->type >= RAIL_TYPES)
        return rail_fail(RAIL_E_ARGUMENT, "%s: datatype %d: valid are 0 (ncclInt8) to %d (ncclFloat8e5m2)", p->call,
                         p->type,
                         RAIL_TYPES - 1);
    size_t element = rail_type_bytes((enum rail_type)p->type), room = p->window->parts[p->peer].bytes;
    if (p->window->parts[p->peer].way == WINDOW_OUT_OF_REACH)
        return rail_fail(RAIL_E_USAGE, "%s: the window of rank %d is on a GPU, or this rank is, and there is no way between them: "
                         "puts reach GPUs of the same host, in memory of cudaMalloc or of the same process; use ncclSend and "
                         "ncclRecv", p->call, p->peer);
    if (p->count && !p->data) return rail_fail(RAIL_E_ARGUMENT, "%s: localbuff is NULL (count %zu)", p->call, p->count);
    if (p->offset > room || p->count > (room - p->offset) / element)
        return rail_fail(RAIL_E_ARGUMENT,
                         "%s: %zu elements of %zu bytes at offset %zu do not fit into the window of rank %d, "
                         "which has %zu bytes", p->call, p->count, element, p->offset, p->peer, room);
    *bytes = p->count * element;
    return RAIL_OK;
}

/* A GPU rank's words and copies reach its own node. */
static enum rail_result check_near(const struct comm *comm, const char *call, int peer)
{
    if (!comm->gpu || is_near(comm, (uint32_t)peer)) return RAIL_OK;
    return rail_fail(RAIL_E_USAGE, "%s: rank %d is on another host: one-sided operations of ranks on GPUs work within a host in "
                     "this release; use ncclSend and ncclRecv", call, peer);
}

enum rail_result onesided_put_make(struct comm *comm, const struct onesided_put *p, struct onesided_op *out)
{
    size_t bytes = 0;
    RAIL_TRY(check_peer(comm, p->call, p->peer));
    RAIL_TRY(check_signal(comm, p->call, p->signal, p->ctx));
    if (p->flags) return rail_fail(RAIL_E_ARGUMENT, "%s: flags 0x%x: must be 0", p->call, p->flags);
    RAIL_TRY(check_near(comm, p->call, p->peer));
    if (p->window) RAIL_TRY(check_data(p, &bytes));
    if (comm->gpu) RAIL_TRY(cuda_pointer_check(comm->gpu_device, p->call, "localbuff", p->data, bytes, NULL));
    *out = (struct onesided_op){.comm = comm, .put = *p, .bytes = bytes};
    return RAIL_OK;
}

enum rail_result onesided_wait_make(struct comm *comm, const struct onesided_wait *waits, int n,
                                    struct onesided_op *out)
{
    static const char call[] = "ncclWaitSignal";
    if (n < 0) return rail_fail(RAIL_E_ARGUMENT, "%s: nDesc %d: must be 0 or more", call, n);
    if (n > 0 && !waits) return rail_fail(RAIL_E_ARGUMENT, "%s: signalDescs is NULL (nDesc %d)", call, n);
    for (int i = 0; i < n; i++) {
        RAIL_TRY(check_peer(comm, call, waits[i].peer));
        RAIL_TRY(check_signal(comm, call, waits[i].signal, waits[i].ctx));
        RAIL_TRY(check_near(comm, call, waits[i].peer));
        if (waits[i].count < 0)
            return rail_fail(RAIL_E_ARGUMENT, "%s: opCnt %d in description %d: must be 0 or more", call,
                             waits[i].count, i);
    }
    struct onesided_goal *goals = calloc(n ? (size_t)n : 1, sizeof *goals);
    if (!goals) return rail_fail(RAIL_E_SYSTEM, "%s: out of memory for %d descriptions", call, n);
    for (int i = 0; i < n; i++)
        goals[i] = (struct onesided_goal){(uint32_t)waits[i].peer,
                                          (uint32_t)(waits[i].ctx * SHM_SIGNAL_INDICES + waits[i].signal),
                                          (uint64_t)waits[i].count};
    *out = (struct onesided_op){.comm = comm, .waits = true, .goals = goals, .n_goals = n};
    return RAIL_OK;
}

void onesided_free(struct onesided_op *op)
{
    free(op->goals);
    op->goals = NULL;
}

/* ---- putting ---- */

static void wake_node(void *owner)
{
    const struct comm *comm = owner;
    ring(comm, comm->node.self);
}

static enum rail_result open_link(struct comm *comm, uint32_t peer)
{
    if (!comm->addresses)
        return rail_fail(RAIL_E_INTERNAL, "one-sided operation to rank %u: no way there was found", peer);
    const struct net_link_request request = {
        .comm_key = comm->wires.comm_key,
        .from = comm->rank,
        .to = peer,
        .channel = ONESIDED_CHANNEL,
        .sender = true,
        .to_acceptor = true,
        .n_slots = comm->wires.net_slots,
        .slot_bytes = comm->wires.net_slot_bytes,
        .peer = &comm->addresses[peer],
        .self = &comm->addresses[comm->rank],
        .wake = wake_node,
        .owner = comm,
    };
    return net_link_open(&request, &comm->onesided.peers[peer].out);
}

static uint32_t signal_of(const struct onesided_put *p) { return (uint32_t)(p->ctx * SHM_SIGNAL_INDICES + p->signal); }

/* Slot by slot; the last one carries the signal. */
static enum rail_result put_by_link(struct onesided_op *op)
{
    const struct onesided_put *p = &op->put;
    struct onesided_peer *peer = &op->comm->onesided.peers[p->peer];
    if (!peer->out) RAIL_TRY(open_link(op->comm, (uint32_t)p->peer));
    size_t room = peer->out->slot_bytes - HEADER_BYTES;
    do {
        void *slot;
        RAIL_TRY(peer->out->ops->acquire(peer->out, &slot));
        size_t now = op->bytes - op->done < room ? op->bytes - op->done : room;
        bool last = op->done + now == op->bytes;
        const struct put_header m = {.offset = p->offset + op->done,
                                  .window = p->window ? p->window->number : 0,
                                  .signal = last ? 1 + signal_of(p) : 0};
        memset(slot, 0, HEADER_BYTES);
        memcpy(slot, &m, sizeof m);
        if (now) memcpy((char *)slot + HEADER_BYTES, (const char *)p->data + op->done, now);
        op->done += now;
        peer->out->ops->publish(peer->out, HEADER_BYTES + now, 0);
        if (last) return RAIL_OK;
    } while (1);
}

/* One bounded stretch of the data. */
static enum rail_result copy_some(struct onesided_op *op, const struct window_part *part)
{
    const struct onesided_put *p = &op->put;
    size_t now = op->bytes - op->done < COPY_BYTES_MAX ? op->bytes - op->done : COPY_BYTES_MAX;
    const char *from = (const char *)p->data + op->done;
    size_t at = p->offset + op->done;
    if (part->way == WINDOW_BY_KERNEL)
        RAIL_TRY(peer_memory_write(part->pid, part->remote + at, from, now));
    else
        memmove(part->at + at, from, now); /* a rank may move things about in its own part */
    op->done += now;
    return RAIL_OK;
}

static enum rail_result put_near(struct onesided_op *op)
{
    struct comm *comm = op->comm;
    const struct onesided_put *p = &op->put;
    while (op->done < op->bytes) {
        if (atomic_load_explicit(&comm->fault.stop, memory_order_relaxed)) return fault_result(&comm->fault);
        RAIL_TRY(copy_some(op, &p->window->parts[p->peer]));
    }
    uint32_t target = comm->shape.peer_of[p->peer];
    _Atomic uint64_t *counters = shm_signals_at(&comm->node.segment, target, comm->node.self);
    atomic_fetch_add_explicit(&counters[signal_of(p)], 1, memory_order_release);
    ring(comm, target);
    return RAIL_OK;
}

/* What went by link before must be taken in before this, or it would arrive after it: this either follows by the same
 * link, if it is one slot, or waits; credit for the last slots takes some milliseconds. */
static enum rail_result put_progress(struct onesided_op *op)
{
    const struct onesided_put *p = &op->put;
    const struct window_part *part = op->bytes ? &p->window->parts[p->peer] : NULL;
    struct link *out = op->comm->onesided.peers[p->peer].out;
    if (!is_near(op->comm, (uint32_t)p->peer) || (part && part->way == WINDOW_BY_LINK)) return put_by_link(op);
    if (!out || op->done || out->ops->drained(out)) return put_near(op);
    return op->bytes <= out->slot_bytes - HEADER_BYTES ? put_by_link(op) : RAIL_NOT_YET;
}

/* ---- waiting ---- */

static enum rail_result wait_start(struct onesided_op *op)
{
    for (int i = 0; i < op->n_goals; i++) {
        struct onesided_goal *goal = &op->goals[i];
        struct onesided_peer *peer = &op->comm->onesided.peers[goal->peer];
        if (!peer->awaited) peer->awaited = calloc(SHM_SIGNALS, sizeof *peer->awaited);
        if (!peer->awaited || !arrived_of(op->comm, goal->peer))
            return rail_fail(RAIL_E_SYSTEM, "ncclWaitSignal: out of memory for the signals of rank %u", goal->peer);
        goal->value += peer->awaited[goal->signal];
        peer->awaited[goal->signal] = goal->value;
    }
    return RAIL_OK;
}

static bool reached(const struct onesided_op *op, const struct onesided_goal *goal)
{
    const _Atomic uint64_t *counters = arrived_of(op->comm, goal->peer);
    return atomic_load_explicit(&counters[goal->signal], memory_order_acquire) >= goal->value;
}

static enum rail_result wait_progress(struct onesided_op *op)
{
    while (op->next_goal < op->n_goals && reached(op, &op->goals[op->next_goal])) op->next_goal++;
    return op->next_goal == op->n_goals ? RAIL_OK : RAIL_NOT_YET;
}

static bool has_ended(const struct comm *comm, uint32_t rank)
{
    if (atomic_load_explicit(&comm->onesided.peers[rank].ended, memory_order_acquire)) return true;
    if (!is_near(comm, rank)) return false;
    const struct shm_calls *calls = &comm->node.segment.controls[comm->shape.peer_of[rank]].calls;
    return atomic_load_explicit(&calls->closed, memory_order_acquire) != 0;
}

static enum rail_result goal_suspect(struct comm *comm, const struct onesided_goal *goal)
{
    const _Atomic uint64_t *counter = &arrived_of(comm, goal->peer)[goal->signal];
    if (!has_ended(comm, goal->peer) || atomic_load(counter) >= goal->value) return RAIL_OK;
    return rail_fail(RAIL_E_REMOTE, "ncclWaitSignal: rank %u closed its communicator; of its signal (sigIdx %u, ctx %u) %llu "
                     "came in all, and rank %u waits for number %llu", goal->peer, goal->signal % SHM_SIGNAL_INDICES,
                     goal->signal / SHM_SIGNAL_INDICES, (unsigned long long)atomic_load(counter), comm->rank,
                     (unsigned long long)goal->value);
}

enum rail_result onesided_suspect(const struct onesided_op *op)
{
    for (int i = op->next_goal; op->waits && i < op->n_goals; i++) RAIL_TRY(goal_suspect(op->comm, &op->goals[i]));
    return RAIL_OK;
}

/* ---- on a GPU ---- */

enum rail_result onesided_put_on(const struct onesided_op *op, cu_stream stream)
{
    const struct onesided_put *p = &op->put;
    struct comm *comm = op->comm;
    struct gpu_put put = {.peer = comm->shape.peer_of[p->peer], .signal = signal_of(p), .bytes = op->bytes};
    if (op->bytes) {
        struct cuda_pointer from;
        RAIL_TRY(cuda_pointer_check(comm->gpu_device, p->call, "localbuff", p->data, op->bytes, &from));
        put.from = from.address;
        put.to = p->window->parts[p->peer].device_at + p->offset;
    }
    return gpu_put(comm->gpu, &put, stream);
}

enum rail_result onesided_wait_on(const struct onesided_op *op, uint32_t batch, cu_stream stream)
{
    for (int i = 0; i < op->n_goals; i++) {
        const struct onesided_goal *g = &op->goals[i];
        const struct gpu_goal goal = {.peer = op->comm->shape.peer_of[g->peer], .signal = g->signal, .value = g->value};
        RAIL_TRY(gpu_wait_for(op->comm->gpu, batch, &goal, 1, stream));
    }
    return RAIL_OK;
}

enum rail_result onesided_look_on(struct comm *comm)
{
    struct gpu_goal missing[8];
    uint32_t n = gpu_missing(comm->gpu, missing, sizeof missing / sizeof *missing);
    for (uint32_t k = 0; k < n; k++) {
        const struct onesided_goal goal = {comm->node.ranks[missing[k].peer], missing[k].signal, missing[k].value};
        RAIL_TRY(goal_suspect(comm, &goal));
    }
    return RAIL_OK;
}

/* For the watch: the first that has not come. */
static void tell_missing(const struct onesided_op *op)
{
    const struct onesided_goal *goal = &op->goals[op->next_goal];
    struct comm *comm = op->comm;
    const struct member *m = &comm->members[goal->peer];
    char text[WATCH_TEXT];
    uint64_t seen = atomic_load(&arrived_of(comm, goal->peer)[goal->signal]);
    struct waits waits = {.n = 1, .on = {{goal->peer, WAITS_FOR_DATA}}, .done = seen};
    if (seen >= goal->value || !watch_due(comm)) return;
    snprintf(text, sizeof text, "ncclWaitSignal: rank %u (host %s, pid %d) has raised signal (sigIdx %u, ctx %u) %llu "
             "times, "
             "and not yet for time number %llu", goal->peer, m->host_name, m->pid, goal->signal % SHM_SIGNAL_INDICES,
             goal->signal / SHM_SIGNAL_INDICES, (unsigned long long)seen, (unsigned long long)goal->value);
    watch_say(comm, &waits, text);
}

/* ---- running ---- */

enum rail_result onesided_start(struct onesided_op *op)
{
    RAIL_TRY(fault_result(&op->comm->fault));
    return op->waits ? wait_start(op) : RAIL_OK;
}

enum rail_result onesided_progress(struct onesided_op *op)
{
    enum rail_result result = op->waits ? wait_progress(op) : put_progress(op);
    if (result == RAIL_OK) return RAIL_OK;
    if (result == RAIL_NOT_YET && !atomic_load_explicit(&op->comm->fault.stop, memory_order_relaxed)) return result;
    return comm_failed(op->comm, result);
}

static enum rail_result finish(struct onesided_op *op)
{
    struct comm *comm = op->comm;
    struct waiter w = {0};
    enum rail_result result;
    while ((result = onesided_progress(op)) == RAIL_NOT_YET) {
        if (comm->policy.network && net_progress()) {
            wait_restart(&w, &comm->node.segment, comm->node.self);
            continue;
        }
        wait_pause(&w, &comm->policy, &comm->node.segment, comm->node.self);
        if (__builtin_expect(!wait_is_long(&w), 1)) continue;
        if ((result = onesided_suspect(op)) != RAIL_OK) return comm_failed(comm, result);
        reach_look(comm);
        if (op->waits) tell_missing(op);
    }
    wait_end(&w, &comm->policy, &comm->node.segment, comm->node.self);
    return result;
}

enum rail_result onesided_run(struct onesided_op *op)
{
    comm_settle(op->comm);
    RAIL_TRY(comm_alone(op->comm, op->waits ? "ncclWaitSignal" : op->put.call));
    comm_enter(op->comm);
    enum rail_result result = onesided_start(op);
    if (result == RAIL_OK) result = finish(op);
    comm_leave(op->comm);
    return result;
}

enum rail_result onesided_drain(struct comm *comm)
{
    while (!onesided_drained(comm)) {
        RAIL_TRY(fault_result(&comm->fault));
        if (!net_progress()) {
            struct timespec nap = {0, 50000};
            nanosleep(&nap, NULL);
        }
    }
    return RAIL_OK;
}
