/* messages.c - moves pieces: copy into the next slot, copy out of the next slot. */
#include "engine/messages.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "engine/calls.h"
#include "engine/signature.h"
#include "engine/wait.h"
#include "transport/shm/shm_link.h"

/* Both ends work on a message at the same time when it has several pieces; a hand-over is worth some KiB of copying.
 * Four pieces fit the slots that every link of a communicator has: a sender of a short message never waits. */
#define PIECES_WANTED 4
#define PIECE_BYTES_LEAST (16u << 10)
/* Pieces of one flow before the others get their turn. */
#define TURN 8

/* In a signature that stands in a slot: the slot holds an offer. (The operator's bits; messages have none.) */
#define OFFERED_BIT (1ull << 53)
/* What is copied of an offer at a time: bounds how long others wait, and an abort. 256 KiB cost the kernel's copy 3 to 8 %. */
#define OFFER_PIECE_BYTES (1u << 20)

/* By address OPEN <-> READ by the receiver; by the kernel OPEN -> TAKEN or REFUSED; OPEN -> WITHDRAWN by the sender. */
enum offer_state { OFFER_OPEN, OFFER_READ, OFFER_TAKEN, OFFER_REFUSED, OFFER_WITHDRAWN };
struct message_offer {
    uint64_t address;
    struct peer_memory_owner owner;
    _Atomic uint32_t state;
};

enum rail_result messages_open(struct messages *out, const struct host_node *node, uint32_t rank, uint32_t n_ranks,
                               uint32_t ahead, enum messages_offers offers)
{
    *out = (struct messages){.node = node, .rank = rank, .n_ranks = n_ranks, .offers = offers, .offer_least = UINT64_MAX, .lend_least = UINT64_MAX,
                             .ahead = ahead};
    rail_random(out->cookie, sizeof out->cookie);
    out->flows = calloc((size_t)MESSAGE_DIRECTIONS * n_ranks, sizeof *out->flows);
    out->busy = calloc((size_t)MESSAGE_DIRECTIONS * n_ranks, sizeof *out->busy);
    if (out->flows && out->busy) return RAIL_OK;
    messages_close(out);
    return rail_fail(RAIL_E_SYSTEM, "messages among %u ranks: out of memory", n_ranks);
}

void messages_close(struct messages *m)
{
    free(m->flows);
    free(m->busy);
    memset(m, 0, sizeof *m);
}

void messages_append(struct messages *m, enum message_direction direction, uint32_t peer, struct message *message)
{
    struct message_flow *f = messages_flow(m, direction, peer);
    message->next = NULL;
    if (f->last)
        f->last->next = message;
    else
        f->first = message;
    f->last = message;
}

void messages_begin(struct messages *m, enum message_direction direction, uint32_t peer)
{
    if (messages_flow(m, direction, peer)->first)
        m->busy[(size_t)direction * m->n_ranks + m->n_busy[direction]++] = peer;
}

static void withdraw(struct message_offer *offer)
{
    uint32_t state = OFFER_OPEN;
    while (!atomic_compare_exchange_strong(&offer->state, &state, OFFER_WITHDRAWN) && state == OFFER_READ) {
        state = OFFER_OPEN;
        wait_relax();
    }
}

void messages_drop(struct messages *m)
{
    for (int d = 0; d < MESSAGE_DIRECTIONS; d++) {
        for (uint32_t k = 0; k < m->n_busy[d]; k++) {
            struct message_flow *f = messages_flow(m, d, m->busy[(size_t)d * m->n_ranks + k]);
            if (f->offer) withdraw(f->offer);
            f->lent = f->settling = false; /* whoever drops recalls (link.h) */
            f->first = f->last = NULL;
            f->offer = NULL;
        }
        m->n_busy[d] = 0;
    }
}

void message_describe(enum message_direction direction, uint32_t peer, uint64_t signature, char *out, size_t bytes)
{
    char elements[40];
    signature_describe_elements(signature, elements, sizeof elements);
    if (direction == MESSAGE_SEND)
        snprintf(out, bytes, "ncclSend of %s to rank %u", elements, peer);
    else
        snprintf(out, bytes, "ncclRecv of %s from rank %u", elements, peer);
}

/* The bytes of the next piece; of a message that no more is left of, 0. */
static size_t piece_bytes(const struct message_flow *f)
{
    uint64_t whole = f->first->bytes, piece = (whole / PIECES_WANTED + SHM_LINE) / SHM_LINE * SHM_LINE;
    if (piece < PIECE_BYTES_LEAST) piece = PIECE_BYTES_LEAST;
    if (piece > f->link->slot_bytes) piece = f->link->slot_bytes;
    return (size_t)(piece < whole - f->done_bytes ? piece : whole - f->done_bytes);
}

/* A piece has moved. True when the flow has nothing left. */
static bool advance(struct messages *m, struct message_flow *f, size_t bytes)
{
    m->moved++;
    f->done_bytes += bytes;
    if (f->done_bytes < f->first->bytes) return false;
    f->done_bytes = 0;
    f->finished++;
    f->first = f->first->next; /* the one before may be gone from now on */
    if (!f->first) f->last = NULL;
    return !f->first;
}

static bool lend(const struct messages *m, const struct message_flow *f, size_t bytes)
{
    const struct link_lending *lending = f->link->ops->lending;
    return f->first->bytes >= m->lend_least && lending &&
           lending->lend(f->link, f->first->buffer + f->done_bytes, bytes, f->first->signature,
                         f->done_bytes + bytes == f->first->bytes);
}

static enum rail_result settle(struct messages *m, struct message_flow *f, bool *through)
{
    enum rail_result result = f->link->ops->lending->settled(f->link);
    if (result != RAIL_OK) return result;
    f->lent = f->settling = false;
    *through = advance(m, f, 0);
    return RAIL_OK;
}

/* The last piece of all waits until the buffers are the caller's again. */
static enum rail_result sent_piece(struct messages *m, struct message_flow *f, size_t bytes, bool *through)
{
    f->settling = f->lent && f->done_bytes + bytes == f->first->bytes && !f->first->next;
    if (f->settling) {
        f->done_bytes += bytes;
        return settle(m, f, through);
    }
    *through = advance(m, f, bytes);
    return RAIL_OK;
}

static enum rail_result send_piece(struct messages *m, struct message_flow *f, bool *through)
{
    void *slot;
    if (f->settling) return settle(m, f, through);
    RAIL_TRY(f->link->ops->acquire(f->link, &slot));
    size_t bytes = piece_bytes(f);
    if (lend(m, f, bytes)) {
        f->lent = true;
        return sent_piece(m, f, bytes, through);
    }
    rail_copy(slot, f->first->buffer + f->done_bytes, bytes);
    f->link->ops->publish(f->link, bytes, f->first->signature);
    return sent_piece(m, f, bytes, through);
}

static bool to_be_offered(const struct messages *m, const struct message_flow *f)
{
    return f->first->bytes >= m->offer_least && m->offers != MESSAGES_NO_OFFERS && !f->refused && shm_link_is(f->link);
}

static enum rail_result send_offer(struct messages *m, struct message_flow *f, bool *through)
{
    if (!f->offer) {
        void *slot;
        RAIL_TRY(f->link->ops->acquire(f->link, &slot));
        f->offer = slot;
        f->offer->address = (uintptr_t)f->first->buffer;
        f->offer->owner = (struct peer_memory_owner){.pid = getpid(), .cookie_address = (uintptr_t)m->cookie};
        memcpy(f->offer->owner.cookie, m->cookie, sizeof m->cookie);
        atomic_store_explicit(&f->offer->state, OFFER_OPEN, memory_order_relaxed);
        f->link->ops->publish(f->link, sizeof *f->offer, f->first->signature | OFFERED_BIT);
        m->moved++;
    }
    if (!shm_link_taken(f->link)) return RAIL_NOT_YET;
    f->refused = atomic_load_explicit(&f->offer->state, memory_order_relaxed) == OFFER_REFUSED;
    f->offer = NULL;
    if (!f->refused) *through = advance(m, f, f->first->bytes);
    return RAIL_OK;
}

static bool offer_turns(struct message_offer *offer, enum offer_state to)
{
    uint32_t state = OFFER_OPEN;
    return atomic_compare_exchange_strong(&offer->state, &state, to); /* else it was withdrawn: we shall hear why */
}

static size_t offered_bytes(const struct message_flow *f)
{
    uint64_t left = f->first->bytes - f->done_bytes;
    return (size_t)(left < OFFER_PIECE_BYTES ? left : OFFER_PIECE_BYTES);
}

static enum rail_result take_by_address(struct messages *m, struct message_flow *f, struct message_offer *offer, bool *through)
{
    size_t bytes = offered_bytes(f);
    bool last = bytes == f->first->bytes - f->done_bytes;
    if (!offer_turns(offer, OFFER_READ)) return RAIL_NOT_YET;
    rail_copy(f->first->buffer + f->done_bytes, (const unsigned char *)(uintptr_t)offer->address + f->done_bytes, bytes);
    atomic_store_explicit(&offer->state, OFFER_OPEN, memory_order_release);
    if (last) f->link->ops->release(f->link);
    *through = advance(m, f, bytes);
    return RAIL_OK;
}

/* What is read of a sender that withdraws meanwhile may be anything, but is read of its memory and into our buffer. */
static enum rail_result take_by_kernel(struct messages *m, struct message_flow *f, struct message_offer *offer, bool *through)
{
    size_t bytes = offered_bytes(f);
    bool last = bytes == f->first->bytes - f->done_bytes;
    if (atomic_load_explicit(&offer->state, memory_order_relaxed) != OFFER_OPEN) return RAIL_NOT_YET;
    if (!peer_memory_read(&offer->owner, f->first->buffer + f->done_bytes, offer->address + f->done_bytes, bytes)) {
        if (!offer_turns(offer, OFFER_REFUSED)) return RAIL_NOT_YET;
        RAIL_INFO(RAIL_P2P, "rank %u: what rank %u sends cannot be read where it lies (process_vm_readv of pid %d: %s), so it is "
                  "copied twice", m->rank, f->link->from, offer->owner.pid, strerror(errno));
        f->done_bytes = 0;
        f->link->ops->release(f->link);
        return RAIL_OK;
    }
    if (last && !offer_turns(offer, OFFER_TAKEN)) return RAIL_NOT_YET;
    if (last) f->link->ops->release(f->link);
    *through = advance(m, f, bytes);
    return RAIL_OK;
}

__attribute__((cold)) enum rail_result messages_differ(uint32_t rank, uint32_t from, uint64_t theirs, uint64_t mine,
                                                       uint64_t number)
{
    char sent[96], wanted[96];
    message_describe(MESSAGE_SEND, rank, theirs, sent, sizeof sent);
    message_describe(MESSAGE_RECEIVE, from, mine, wanted, sizeof wanted);
    return rail_fail(RAIL_E_USAGE, "send and receive do not match: rank %u: %s; rank %u: %s (message %llu from rank %u "
                     "to rank %u). Both must give the same count and datatype, and post in the same order", from, sent,
                     rank, wanted, (unsigned long long)number, from, rank);
}

/* The peer's message is not the one we expect. */
__attribute__((cold)) static enum rail_result differ(const struct messages *m, const struct message_flow *f,
                                                     uint64_t theirs)
{
    if (f->link->channel != LINK_CHANNEL_P2P) return calls_differ(m->node, f->link->from, theirs, f->first->signature);
    return messages_differ(m->rank, f->link->from, theirs, f->first->signature, f->finished + 1);
}

static enum rail_result receive_piece(struct messages *m, struct message_flow *f, bool *through)
{
    const void *slot;
    size_t bytes, expected;
    uint64_t signature;
    RAIL_TRY(f->link->ops->wait(f->link, &slot, &bytes, &signature));
    bool offered = signature & OFFERED_BIT;
    signature &= ~OFFERED_BIT;
    if (__builtin_expect(signature != f->first->signature, 0)) return differ(m, f, signature);
    if (__builtin_expect(offered, 0))
        return (m->offers == MESSAGES_BY_ADDRESS ? take_by_address : take_by_kernel)(m, f, (void *)(uintptr_t)slot, through);
    expected = piece_bytes(f);
    if (bytes != expected)
        return rail_fail(RAIL_E_INTERNAL, "link %u -> %u: a piece of %zu bytes, %zu were expected", f->link->from,
                         f->link->to, bytes, expected);
    rail_copy(f->first->buffer + f->done_bytes, slot, bytes);
    f->link->ops->release(f->link);
    *through = advance(m, f, bytes);
    return RAIL_OK;
}

/* RAIL_OK: nothing is left. */
static enum rail_result flow_progress(struct messages *m, struct message_flow *f, enum message_direction direction)
{
    bool through = false;
    for (int turn = 0; turn < TURN && !through; turn++)
        RAIL_TRY(direction == MESSAGE_RECEIVE ? receive_piece(m, f, &through)
                 : to_be_offered(m, f)        ? send_offer(m, f, &through)
                                              : send_piece(m, f, &through));
    return through ? RAIL_OK : RAIL_NOT_YET;
}

/* A link says what happened to it; we say what we wanted of it. */
__attribute__((cold)) static enum rail_result lost(const struct messages *m, enum message_direction d, uint32_t peer)
{
    char waits[96], why[400];
    message_describe(d, peer, messages_flow(m, d, peer)->first->signature, waits, sizeof waits);
    snprintf(why, sizeof why, "%s", rail_own_error());
    rail_fail_quietly(RAIL_E_REMOTE, "rank %u is lost to rank %u, which waits in %s: %s", peer, m->rank, waits, why);
    return rail_blame((int)peer, RAIL_E_REMOTE);
}

static enum rail_result direction_progress(struct messages *m, enum message_direction d)
{
    uint32_t *busy = &m->busy[(size_t)d * m->n_ranks], n = m->n_busy[d], kept = 0;
    for (uint32_t k = 0; k < n; k++) {
        enum rail_result result = RAIL_NOT_YET;
        if (kept < m->ahead) result = flow_progress(m, messages_flow(m, d, busy[k]), d);
        if (result == RAIL_NOT_YET)
            busy[kept++] = busy[k];
        else if (result != RAIL_OK)
            return result == RAIL_E_REMOTE ? lost(m, d, busy[k]) : result; /* whatever is left will be dropped */
    }
    m->n_busy[d] = kept;
    return RAIL_OK;
}

enum rail_result messages_progress(struct messages *m)
{
    for (int d = 0; d < MESSAGE_DIRECTIONS; d++)
        if (m->n_busy[d]) RAIL_TRY(direction_progress(m, d));
    return m->n_busy[MESSAGE_SEND] + m->n_busy[MESSAGE_RECEIVE] ? RAIL_NOT_YET : RAIL_OK;
}

/* What a peer sent before it closed is there when `closed` is: only a flow that is blocked then is blocked for ever. */
static bool blocked(struct link *link, enum message_direction d)
{
    void *slot;
    const void *theirs;
    size_t bytes;
    uint64_t signature;
    if (d == MESSAGE_SEND) return link->ops->acquire(link, &slot) == RAIL_NOT_YET;
    return link->ops->wait(link, &theirs, &bytes, &signature) == RAIL_NOT_YET;
}

static bool has_closed(const struct messages *m, uint32_t peer)
{
    void *slot;
    for (uint32_t p = 0; p < m->node->segment.geometry.n_peers; p++)
        if (m->node->ranks[p] == peer)
            return atomic_load_explicit(&m->node->segment.controls[p].calls.closed, memory_order_acquire) != 0;
    struct link *to = messages_flow(m, MESSAGE_SEND, peer)->link;
    if (!to) return false;
    enum rail_result result = to->ops->acquire(to, &slot);
    return result != RAIL_OK && result != RAIL_NOT_YET;
}

static enum rail_result flow_suspect(const struct messages *m, enum message_direction d, uint32_t peer)
{
    const struct message_flow *f = messages_flow(m, d, peer);
    char waits[96];
    if (!has_closed(m, peer) || !(f->offer ? !shm_link_taken(f->link) : blocked(f->link, d))) return RAIL_OK;
    message_describe(d, peer, f->first->signature, waits, sizeof waits);
    return rail_fail(RAIL_E_REMOTE, "rank %u has closed its communicator; rank %u waits for it in %s", peer, m->rank,
                     waits);
}

enum rail_result messages_suspect(struct messages *m)
{
    for (int d = 0; d < MESSAGE_DIRECTIONS; d++)
        for (uint32_t k = 0; k < m->n_busy[d]; k++) RAIL_TRY(flow_suspect(m, d, m->busy[(size_t)d * m->n_ranks + k]));
    return RAIL_OK;
}
