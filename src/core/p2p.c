/* p2p.c - checks, batches of a group, links at first use. */
#include "core/p2p.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/collective.h"
#include "core/predict.h"
#include "core/reach.h"
#include "engine/signature.h"

struct p2p_block {
    struct p2p_block *next;
    uint32_t n, capacity;
    struct p2p_post posts[];
};

/* The first holds a pipeline's two calls, the largest are worth an allocation every 64 KiB. */
enum { BLOCK_FIRST = 4, BLOCK_MOST = 1024 };

/* ---- checks ---- */

enum rail_result p2p_check(const struct comm *comm, const struct p2p_call *a)
{
    if (a->type < 0 || a->type >= RAIL_TYPES)
        return rail_fail(RAIL_E_ARGUMENT, "%s: datatype %d: valid are 0 (ncclInt8) to %d (ncclFloat8e5m2)", a->call,
                         a->type, RAIL_TYPES - 1);
    if (a->peer < 0 || (uint32_t)a->peer >= comm->n_ranks)
        return rail_fail(RAIL_E_ARGUMENT, "%s: peer %d: valid are 0 to %u, the ranks of the communicator", a->call,
                         a->peer, comm->n_ranks - 1);
    if (a->count > SIGNATURE_COUNT_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "%s: count %zu of %zu-byte elements: at most %llu; split the call", a->call,
                         a->count, rail_type_bytes((enum rail_type)a->type), SIGNATURE_COUNT_MAX);
    if (a->count && !a->buffer)
        return rail_fail(RAIL_E_ARGUMENT, "%s: %s is NULL (count %zu): pass the buffer", a->call,
                         a->direction == MESSAGE_SEND ? "sendbuff" : "recvbuff", a->count);
    return RAIL_OK;
}

static struct message message_of(const struct p2p_call *a)
{
    return (struct message){.buffer = a->buffer,
                            .bytes = (uint64_t)a->count * rail_type_bytes((enum rail_type)a->type),
                            .signature = signature_make(SIGNATURE_P2P, (unsigned)a->type, 0, 0, a->count)};
}

/* ---- links ---- */

static enum rail_result flow_open(struct comm *comm, enum message_direction direction, uint32_t peer)
{
    struct message_flow *f = messages_flow(&comm->p2p, direction, peer);
    if (__builtin_expect(f->link != NULL, 1)) return RAIL_OK;
    return wires_pair(&comm->wires, peer, direction == MESSAGE_SEND ? PLAN_LINK_OUT : PLAN_LINK_IN, LINK_CHANNEL_P2P,
                      &f->link);
}

enum rail_result p2p_open(struct comm *comm)
{
    if (__builtin_expect(comm->p2p.flows != NULL, 1)) return RAIL_OK;
    return messages_open(&comm->p2p, &comm->node, comm->rank, comm->n_ranks, UINT32_MAX, comm->offers);
}

enum rail_result p2p_flow_open(struct comm *comm, enum message_direction direction, uint32_t peer)
{
    RAIL_TRY(p2p_open(comm));
    return flow_open(comm, direction, peer);
}

void p2p_free(struct comm *comm) { messages_close(&comm->p2p); }

uint64_t p2p_moved(const struct comm *comm) { return comm->p2p.moved; }

static enum rail_result progress(struct comm *comm)
{
    enum rail_result result = messages_progress(&comm->p2p);
    if (__builtin_expect(result != RAIL_OK && result != RAIL_NOT_YET, 0)) return comm_failed(comm, result);
    if (result == RAIL_NOT_YET && atomic_load_explicit(&comm->fault.stop, memory_order_relaxed))
        return fault_result(&comm->fault);
    return result;
}

/* The way back to whoever we wait to hear from: its answer to OPEN tells whether it still has the communicator. */
static enum rail_result open_ways_back(struct comm *comm)
{
    const uint32_t *from = &comm->p2p.busy[(size_t)MESSAGE_RECEIVE * comm->n_ranks];
    for (uint32_t k = 0; k < comm->p2p.n_busy[MESSAGE_RECEIVE]; k++)
        if (comm->shape.node_of[from[k]] != comm->shape.node_of[comm->rank])
            RAIL_TRY(flow_open(comm, MESSAGE_SEND, from[k]));
    return RAIL_OK;
}

/* For whom I wait, in words: for one that should send, if there is one. */
static void say_whom(struct comm *comm)
{
    const struct messages *m = &comm->p2p;
    enum message_direction d = m->n_busy[MESSAGE_RECEIVE] ? MESSAGE_RECEIVE : MESSAGE_SEND;
    uint32_t n = m->n_busy[MESSAGE_RECEIVE] + m->n_busy[MESSAGE_SEND], peer = m->busy[(size_t)d * m->n_ranks];
    char call[96], more[48] = "", words[WATCH_TEXT];
    struct waits waits;
    if (n == 0 || !watch_due(comm)) return;
    waits_of_messages(m, &waits);
    message_describe(d, peer, messages_flow(m, d, peer)->first->signature, call, sizeof call);
    if (n > 1) snprintf(more, sizeof more, "; and %u more such wait%s", n - 1, n > 2 ? "" : "s");
    snprintf(words, sizeof words, "%s: rank %u (host %s, pid %d) has not %s it%s", call, peer,
             comm->members[peer].host_name, comm->members[peer].pid, d == MESSAGE_RECEIVE ? "sent" : "received", more);
    watch_say(comm, &waits, words);
}

enum rail_result p2p_suspect(struct comm *comm, bool alone)
{
    enum rail_result result = open_ways_back(comm);
    if (result != RAIL_OK) return comm_failed(comm, result);
    result = messages_suspect(&comm->p2p);
    if (result == RAIL_OK && alone) say_whom(comm);
    if (result == RAIL_OK) reach_look(comm);
    if (result == RAIL_OK) return RAIL_OK;
    char why[400]; /* no echo of other news, as the end of a link is: nobody knows it better */
    snprintf(why, sizeof why, "%s", rail_own_error());
    if (fault_raise(&comm->fault, result, why)) bootstrap_tell(comm->bootstrap, comm->rank, result, why);
    return fault_result(&comm->fault);
}

/* ---- one call ---- */

static enum rail_result drive(struct comm *comm)
{
    struct waiter w = {0};
    enum rail_result result;
    uint64_t moved = comm->p2p.moved;
    while ((result = progress(comm)) == RAIL_NOT_YET) {
        if (comm->p2p.moved != moved) {
            moved = comm->p2p.moved;
            wait_again(&w, &comm->policy, &comm->node.segment, comm->node.self);
            continue;
        }
        if (comm->policy.network && net_progress()) {
            wait_restart(&w, &comm->node.segment, comm->node.self);
            continue;
        }
        wait_pause(&w, &comm->policy, &comm->node.segment, comm->node.self);
        if (__builtin_expect(wait_is_long(&w), 0)) RAIL_TRY(p2p_suspect(comm, true));
    }
    wait_end(&w, &comm->policy, &comm->node.segment, comm->node.self);
    return result;
}

/* Who only sends, in a group or alone, does not wait for a receiver while the slots hold what is sent: he may send first, too.
 * Who receives as well waits in any case. */
static uint64_t offer_least(const struct comm *comm, bool receives)
{
    const struct shm_geometry *g = &comm->node.segment.geometry;
    uint64_t slots_bytes = (uint64_t)g->slot_bytes * g->n_slots;
    return receives || comm->offer_least > slots_bytes ? comm->offer_least : slots_bytes + 1;
}

/* After a failure: the buffers go back to the caller. */
static void drop(struct comm *comm)
{
    messages_drop(&comm->p2p);
    wires_recall(&comm->wires);
}

/* Likewise over the network, where a message that is lent waits for its receiver. */
static uint64_t lend_least(const struct comm *comm, bool receives)
{
    if (!comm->policy.network || comm->gpu) return UINT64_MAX;
    return receives ? 1 : (uint64_t)comm->wires.net_slots * comm->wires.net_slot_bytes + 1;
}

static enum rail_result run(struct comm *comm, const struct p2p_call *a, struct message *message)
{
    uint32_t peer = (uint32_t)a->peer;
    RAIL_TRY(fault_result(&comm->fault));
    RAIL_TRY(p2p_open(comm));
    RAIL_TRY(flow_open(comm, a->direction, peer));
    comm->p2p.offer_least = offer_least(comm, false);
    comm->p2p.lend_least = lend_least(comm, false);
    messages_append(&comm->p2p, a->direction, peer, message);
    messages_begin(&comm->p2p, a->direction, peer);
    enum rail_result result = drive(comm);
    if (result != RAIL_OK) drop(comm);
    return result;
}

enum rail_result p2p_run(struct comm *comm, const struct p2p_call *a)
{
    struct message message = message_of(a);
    if ((uint32_t)a->peer == comm->rank)
        return rail_fail(RAIL_E_USAGE, "%s: rank %u and itself outside of a group: put the call and the matching %s "
                         "between ncclGroupStart and ncclGroupEnd", a->call, comm->rank,
                         a->direction == MESSAGE_SEND ? "ncclRecv" : "ncclSend");
    RAIL_TRY(comm_alone(comm, a->call));
    comm_enter(comm);
    enum rail_result result = run(comm, a, &message);
    comm_leave(comm);
    return result;
}

/* ---- the calls of a group ---- */

static struct p2p_block *block_add(struct p2p_batch *batch)
{
    uint32_t capacity = batch->last ? 4 * batch->last->capacity : BLOCK_FIRST;
    if (capacity > BLOCK_MOST) capacity = BLOCK_MOST;
    struct p2p_block *block = malloc(sizeof *block + capacity * sizeof(struct p2p_post));
    if (!block) return NULL;
    block->next = NULL;
    block->n = 0;
    block->capacity = capacity;
    if (batch->last)
        batch->last->next = block;
    else
        batch->first = block;
    return batch->last = block;
}

enum rail_result p2p_batch_add(struct p2p_batch *batch, const struct p2p_call *a)
{
    struct p2p_block *block = batch->last;
    if (!block || block->n == block->capacity) block = block_add(batch);
    if (!block) return rail_fail(RAIL_E_SYSTEM, "%s: out of memory for one more call of the group", a->call);
    block->posts[block->n++] = (struct p2p_post){message_of(a), (uint32_t)a->peer, (uint32_t)a->direction};
    return RAIL_OK;
}

struct p2p_post *p2p_walk_on(struct p2p_walk *w)
{
    while (w->block && w->at == w->block->n) *w = (struct p2p_walk){w->block->next, 0};
    return w->block ? &w->block->posts[w->at++] : NULL;
}

static struct p2p_post *walk_next(struct p2p_walk *w, uint32_t peer, enum message_direction direction)
{
    struct p2p_post *p;
    while ((p = p2p_walk_on(w)))
        if (p->peer == peer && p->direction == (uint32_t)direction) return p;
    return NULL;
}

static enum rail_result unpaired(const struct comm *comm, enum message_direction direction, const struct p2p_post *p)
{
    char text[96];
    message_describe(direction, comm->rank, p->message.signature, text, sizeof text);
    return rail_fail(RAIL_E_USAGE, "ncclGroupEnd: %s (itself) without a matching %s in the group: add it", text,
                     direction == MESSAGE_SEND ? "ncclRecv" : "ncclSend");
}

enum rail_result p2p_batch_check(const struct comm *comm, const struct p2p_batch *batch)
{
    struct p2p_walk sends = {batch->first, 0}, receives = {batch->first, 0};
    for (;;) {
        struct p2p_post *s = walk_next(&sends, comm->rank, MESSAGE_SEND);
        struct p2p_post *r = walk_next(&receives, comm->rank, MESSAGE_RECEIVE);
        if (!s && !r) return RAIL_OK;
        if (!r) return unpaired(comm, MESSAGE_SEND, s);
        if (!s) return unpaired(comm, MESSAGE_RECEIVE, r);
        if (s->message.signature == r->message.signature) continue;
        char sent[96], wanted[96];
        message_describe(MESSAGE_SEND, comm->rank, s->message.signature, sent, sizeof sent);
        message_describe(MESSAGE_RECEIVE, comm->rank, r->message.signature, wanted, sizeof wanted);
        return rail_fail(RAIL_E_USAGE, "ncclGroupEnd: send and receive do not match: %s; %s (itself). Both must give "
                         "the same count and datatype", sent, wanted);
    }
}

static void copy_to_oneself(const struct comm *comm, const struct p2p_batch *batch)
{
    struct p2p_walk sends = {batch->first, 0}, receives = {batch->first, 0};
    struct p2p_post *s, *r;
    while ((s = walk_next(&sends, comm->rank, MESSAGE_SEND)) && (r = walk_next(&receives, comm->rank, MESSAGE_RECEIVE)))
        if (s->message.bytes) memmove(r->message.buffer, s->message.buffer, s->message.bytes);
}

/* Flows begin in rank-relative rounds. */
static void begin_all(struct comm *comm)
{
    uint32_t n = comm->n_ranks;
    for (uint32_t d = 1; d < n; d++) {
        messages_begin(&comm->p2p, MESSAGE_SEND, (comm->rank + d) % n);
        messages_begin(&comm->p2p, MESSAGE_RECEIVE, (comm->rank + n - d) % n);
    }
}

static enum rail_result start(struct comm *comm, struct p2p_batch *batch)
{
    RAIL_TRY(fault_result(&comm->fault));
    RAIL_TRY(p2p_open(comm));
    for (struct p2p_block *b = batch->first; b; b = b->next)
        for (uint32_t k = 0; k < b->n; k++)
            if (b->posts[k].peer != comm->rank) RAIL_TRY(flow_open(comm, b->posts[k].direction, b->posts[k].peer));
    for (struct p2p_block *b = batch->first; b; b = b->next)
        for (uint32_t k = 0; k < b->n; k++)
            if (b->posts[k].peer != comm->rank)
                messages_append(&comm->p2p, b->posts[k].direction, b->posts[k].peer, &b->posts[k].message);
    begin_all(comm);
    comm->p2p.offer_least = offer_least(comm, comm->p2p.n_busy[MESSAGE_RECEIVE] > 0);
    comm->p2p.lend_least = lend_least(comm, comm->p2p.n_busy[MESSAGE_RECEIVE] > 0);
    copy_to_oneself(comm, batch);
    return RAIL_OK;
}

enum rail_result p2p_batch_progress(struct comm *comm, struct p2p_batch *batch)
{
    if (!batch->started) {
        if (!batch->first) return RAIL_OK;
        enum rail_result result = start(comm, batch);
        if (result != RAIL_OK) return comm_failed(comm, result);
        batch->started = true;
    }
    return progress(comm);
}

void p2p_batch_stop(struct comm *comm, struct p2p_batch *batch)
{
    if (batch->started) drop(comm);
    batch->started = false;
}

double p2p_batch_predict(const struct comm *comm, const struct p2p_batch *batch)
{
    struct predict_traffic traffic[2] = {0};
    if (!batch->first) return 0;
    for (const struct p2p_block *b = batch->first; b; b = b->next)
        for (uint32_t k = 0; k < b->n; k++) {
            const struct p2p_post *p = &b->posts[k];
            bool away = comm->shape.node_of[p->peer] != comm->shape.node_of[comm->rank];
            struct predict_traffic *t = &traffic[p->direction == (uint32_t)MESSAGE_SEND];
            t->messages[away]++;
            t->bytes[away] += p->message.bytes;
        }
    return predict_messages(comm, &traffic[1], &traffic[0]);
}

void p2p_batch_free(struct p2p_batch *batch)
{
    while (batch->first) {
        struct p2p_block *next = batch->first->next;
        free(batch->first);
        batch->first = next;
    }
    *batch = (struct p2p_batch){0};
}
