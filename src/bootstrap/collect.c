/* collect.c - all-gather and barrier: up the tree every rank adds its own bytes in front of its children's, rank 0
 * sorts them into rank order, down the tree goes the whole table.
 *
 *        0   gathers [0 1 9 10 2 3 ...]  sorts, spreads [0 1 2 3 ...]
 *       / \
 *      1   2                             each frame carries the collective's sequence number
 *     / \
 *    9   10
 *
 * Steps: 2 ceil(log8 n) hops. Bytes sent per rank: its subtree's up, at most 8 tables down.
 *
 * Who is missing: when half of the time is over, ranks that still lack a child tell their parent whom; so rank
 * 0, which gives up a little before the others, can name them to everybody. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/params.h"
#include "bootstrap/state.h"

/* A table beyond this is no bootstrap data (64 Ki ranks of 16 KiB each) but a mistake or damage. */
#define TABLE_MAX_BYTES ((uint64_t)1 << 30)

#define NOTE_NS RAIL_NS_PER_S /* without a deadline: when ranks tell whom they lack */

enum { MARGIN_FLOOR_MS = 50, MARGIN_CEILING_MS = 2000 }; /* rank 0's: a fifth of the time, within these */

bool collect_admits(struct bootstrap *b, const struct tree_peer *peer, const struct frame_head *head)
{
    const struct collective *c = &b->collective;
    if (head->sequence != b->n_collectives + 1) return false;
    if (head->type == FRAME_SPREAD)
        return peer == &b->peers[PARENT] && c->active && c->sent_up && !c->done &&
               head->bytes == (uint64_t)c->bytes_each * b->n_ranks;
    if (head->type == FRAME_AWAITS)
        return peer != &b->peers[PARENT] && !peer->has_gathered && head->bytes == sizeof(struct wire_awaits);
    return peer != &b->peers[PARENT] && !peer->has_gathered && head->bytes % peer->subtree == 0 &&
           head->bytes / peer->subtree <= TABLE_MAX_BYTES / b->n_ranks;
}

static void out_of_memory(struct bootstrap *b)
{
    char text[128];
    snprintf(text, sizeof text, "bootstrap: rank %u: out of memory in %s", b->rank, b->collective.name);
    bootstrap_fail(b, b->rank, RAIL_E_SYSTEM, text, NULL);
}

/* The table is here: pass it on, and let the caller go. Takes over the hold on `table`. */
static void spread(struct bootstrap *b, struct blob *table)
{
    struct collective *c = &b->collective;
    c->table = table;
    c->done = true;
    b->n_collectives++;
    for (uint32_t i = 0; i < b->n_children; i++) {
        struct tree_peer *child = &b->peers[FIRST_CHILD + i];
        if (peer_queue(child, FRAME_SPREAD, b->n_collectives, table) != RAIL_OK) {
            out_of_memory(b);
            return;
        }
        conn_flush(&child->conn);
    }
    bootstrap_wake(b);
}

/* Rank 0: from the order of gathering to the order of ranks. */
static void sort_and_spread(struct bootstrap *b, const struct blob *gathered)
{
    size_t each = b->collective.bytes_each;
    struct blob *table = each ? blob_create(each * b->n_ranks) : NULL;
    uint32_t *order = each ? malloc(b->n_ranks * sizeof *order) : NULL;
    if (each && (!table || !order)) {
        blob_drop(table);
        free(order);
        out_of_memory(b);
        return;
    }
    uint32_t n = each ? tree_order(0, b->n_ranks, order) : 0;
    for (uint32_t i = 0; i < n; i++) memcpy(table->data + order[i] * each, gathered->data + i * each, each);
    free(order);
    spread(b, table);
}

static bool children_agree(struct bootstrap *b)
{
    size_t each = b->collective.bytes_each;
    for (uint32_t i = 0; i < b->n_children; i++) {
        struct tree_peer *child = &b->peers[FIRST_CHILD + i];
        uint64_t bytes = child->gathered ? child->gathered->bytes : 0;
        if (bytes == (uint64_t)each * child->subtree) continue;
        char text[WIRE_TEXT_BYTES];
        snprintf(text, sizeof text, "bootstrap: %s: rank %u gives %llu bytes per rank, rank %u gives %zu",
                 b->collective.name,
                 child->person.rank, (unsigned long long)(bytes / child->subtree), b->rank, each);
        bootstrap_fail(b, child->person.rank, RAIL_E_INTERNAL, text, NULL);
        return false;
    }
    return true;
}

void collect_advance(struct bootstrap *b)
{
    struct collective *c = &b->collective;
    if (!c->active || c->sent_up || b->failed) return;
    for (uint32_t i = 0; i < b->n_children; i++)
        if (!b->peers[FIRST_CHILD + i].has_gathered) return;
    if (!children_agree(b)) return;
    struct blob *up = c->bytes_each ? blob_create(c->bytes_each * b->subtree) : NULL;
    if (c->bytes_each && !up) {
        out_of_memory(b);
        return;
    }
    size_t at = 0;
    if (up) memcpy(up->data, c->own->data, at = c->bytes_each);
    for (uint32_t i = 0; i < b->n_children; i++) {
        struct tree_peer *child = &b->peers[FIRST_CHILD + i];
        if (child->gathered) {
            memcpy(up->data + at, child->gathered->data, child->gathered->bytes);
            at += child->gathered->bytes;
        }
        blob_drop(child->gathered);
        child->gathered = NULL;
        child->has_gathered = false;
        child->awaits.n = 0;
    }
    c->sent_up = true;
    if (b->rank == 0) {
        sort_and_spread(b, up);
    } else if (peer_queue(&b->peers[PARENT], FRAME_GATHER, b->n_collectives + 1, up) != RAIL_OK) {
        out_of_memory(b);
    } else {
        conn_flush(&b->peers[PARENT].conn);
    }
    blob_drop(up);
}

/* ---- who is missing ---- */

/* Of this rank's subtree, as far as it knows. */
static void list_missing(const struct bootstrap *b, struct wire_awaits *out)
{
    *out = (struct wire_awaits){0};
    for (uint32_t i = 0; i < b->n_children; i++) {
        const struct tree_peer *child = &b->peers[FIRST_CHILD + i];
        if (child->has_gathered) continue;
        uint32_t n = child->awaits.n ? child->awaits.n : 1;
        const uint32_t *ranks = child->awaits.n ? child->awaits.ranks : &child->person.rank;
        for (uint32_t j = 0; j < n && out->n < WIRE_AWAITS_MAX; j++) out->ranks[out->n++] = ranks[j];
    }
}

static void tell_missing(struct bootstrap *b)
{
    struct wire_awaits missing;
    b->collective.noted = true;
    if (b->rank == 0 || b->collective.sent_up) return;
    list_missing(b, &missing);
    (void)peer_queue_copy(&b->peers[PARENT], FRAME_AWAITS, b->n_collectives + 1, &missing, sizeof missing);
    conn_flush(&b->peers[PARENT].conn);
}

static void awaits_received(struct bootstrap *b, struct tree_peer *peer, const struct blob *payload)
{
    memcpy(&peer->awaits, payload->data, sizeof peer->awaits);
    if (peer->awaits.n > WIRE_AWAITS_MAX) peer->awaits.n = 0;
    if (b->collective.active && b->collective.noted) tell_missing(b);
}

void collect_receive(struct bootstrap *b, struct tree_peer *peer, struct frame *frame)
{
    if (frame->head.type == FRAME_SPREAD) {
        if (b->failed) return; /* too late: the caller has left or will */
        spread(b, blob_hold(frame->payload));
        return;
    }
    if (frame->head.type == FRAME_AWAITS) {
        awaits_received(b, peer, frame->payload);
        return;
    }
    peer->has_gathered = true;
    peer->gathered = blob_hold(frame->payload);
    collect_advance(b);
}

/* ---- the caller's side ---- */

/* Lock held: why the caller cannot go on, as the first thing it hears. */
static enum rail_result refusal(struct bootstrap *b, const char *name)
{
    if (b->failed) return rail_fail((enum rail_result)b->verdict.result, "%s", b->verdict.text);
    if (b->collective.active)
        return rail_fail(RAIL_E_USAGE, "bootstrap: %s while another thread is in %s", name, b->collective.name);
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        const struct tree_peer *peer = &b->peers[i];
        if (peer->left)
            return rail_fail(RAIL_E_REMOTE, "bootstrap: %s: rank %u (host %s, pid %u) has closed its communicator",
                             name,
                             peer->person.rank, peer->person.host, peer->person.pid);
    }
    return RAIL_OK;
}

/* Lock held. The collective cannot be taken back: after this the bootstrap is good for nothing but closing. Only rank 0
 * can know who is missing in the whole tree, so only it tells the others. */
static enum rail_result give_up(struct bootstrap *b, enum rail_result why, double waited_s)
{
    char list[WIRE_AWAITS_MAX * 12] = "", text[WIRE_TEXT_BYTES];
    struct wire_awaits missing;
    size_t used = 0;
    list_missing(b, &missing);
    if (b->collective.sent_up) missing.n = 0;
    for (uint32_t i = 0; i < missing.n; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%u", i ? ", " : "", missing.ranks[i]);
    if (why == RAIL_E_ABORTED)
        snprintf(text, sizeof text, "bootstrap: rank %u was aborted in %s", b->rank, b->collective.name);
    else if (missing.n > 0)
        snprintf(text, sizeof text, "bootstrap: rank %s%s did not take part in %s within %.1f s", list,
                 missing.n == WIRE_AWAITS_MAX ? " and maybe others" : "", b->collective.name, waited_s);
    else
        snprintf(text, sizeof text,
                 "bootstrap: rank %u heard nothing from rank %u (host %s, pid %u) in %s within %.1f s",
                 b->rank, b->peers[PARENT].person.rank, b->peers[PARENT].person.host, b->peers[PARENT].person.pid,
                 b->collective.name, waited_s);
    b->failed_here = true;
    uint32_t culprit = missing.n > 0 && why != RAIL_E_ABORTED ? missing.ranks[0] : b->rank;
    bootstrap_record(b, culprit, why == RAIL_E_ABORTED ? RAIL_E_REMOTE : why, text); /* what it is for the others */
    if (b->rank == 0) bootstrap_spread_news(b, NULL);
    return rail_fail(why, "%s", text);
}

/* A rank that does not come while nobody set a deadline (ncclCommWindowRegister ...): rank 0, to whom all tell whom
 * they lack, says it once, and once more when it came. Lock held. */
static void say_missing(struct bootstrap *b, double waited_s)
{
    char list[WIRE_AWAITS_MAX * 12] = "";
    struct wire_awaits missing;
    size_t used = 0;
    list_missing(b, &missing);
    for (uint32_t i = 0; i < missing.n; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%u", i ? ", " : "", missing.ranks[i]);
    if (missing.n == 0 || b->collective.sent_up) return;
    const char *more = missing.n == WIRE_AWAITS_MAX ? " and maybe others" : "";
    b->collective.said = true;
    RAIL_WARN("waiting %.1f s: all ranks meet (%s), rank %s%s has not come", waited_s, b->collective.name, list, more);
    (void)rail_fail_quietly(RAIL_NOT_YET, "waiting %.1f s: all ranks meet (%s), rank %s%s has not come", waited_s,
                            b->collective.name, list, more);
}

/* Sleeps until the collective is over or cannot be: RAIL_OK, RAIL_E_TIMEOUT or RAIL_E_ABORTED. Lock held, but not
 * during sleep. */
static enum rail_result wait_for_all(struct bootstrap *b, struct rail_deadline deadline)
{
    struct collective *c = &b->collective;
    struct rail_deadline note = deadline, say = rail_deadline_never();
    uint64_t now = rail_now_ns();
    if (deadline.at_ns == UINT64_MAX) {
        uint64_t patience_s = (uint64_t)rail_param_int(RAIL_PARAM_WATCH_S);
        note.at_ns = now + NOTE_NS;
        if (b->rank == 0 && patience_s) say.at_ns = now + patience_s * RAIL_NS_PER_S + NOTE_NS / 2;
    }
    if (deadline.at_ns != UINT64_MAX && deadline.at_ns > now) {
        uint64_t left = deadline.at_ns - now, margin = left / 5;
        if (margin < MARGIN_FLOOR_MS * RAIL_NS_PER_MS) margin = MARGIN_FLOOR_MS * RAIL_NS_PER_MS;
        if (margin > MARGIN_CEILING_MS * RAIL_NS_PER_MS) margin = MARGIN_CEILING_MS * RAIL_NS_PER_MS;
        if (b->rank == 0) deadline.at_ns -= margin < left ? margin : left;
        note.at_ns = now + left / 2;
    }
    enum rail_result result = RAIL_OK;
    while (!c->done && !b->failed && result == RAIL_OK) {
        uint32_t seen = atomic_load_explicit(&b->turn, memory_order_relaxed);
        struct rail_deadline until = !c->noted ? note : say.at_ns < deadline.at_ns ? say : deadline;
        pthread_mutex_unlock(&b->lock);
        result = bootstrap_sleep(b, seen, until);
        pthread_mutex_lock(&b->lock);
        if (result == RAIL_E_TIMEOUT && !c->noted && !c->done && !b->failed) {
            tell_missing(b);
            result = RAIL_OK;
        } else if (result == RAIL_E_TIMEOUT && until.at_ns == say.at_ns && !c->done && !b->failed) {
            say_missing(b, (double)(rail_now_ns() - now) / 1e9);
            say = rail_deadline_never();
            result = RAIL_OK;
        }
    }
    if (c->said && c->done)
        RAIL_WARN("all ranks met (%s): went on after %.1f s", c->name, (double)(rail_now_ns() - now) / 1e9);
    return result;
}

static enum rail_result collect(struct bootstrap *b, const char *name, void *table, size_t bytes_each,
                                struct rail_deadline deadline)
{
    if (b->pid != getpid())
        return rail_fail(RAIL_E_USAGE,
                         "bootstrap: %s in a forked child (pid %d) of the process that made the communicator "
                         "(pid %d)", name, (int)getpid(), (int)b->pid);
    if (bytes_each > TABLE_MAX_BYTES / b->n_ranks)
        return rail_fail(RAIL_E_ARGUMENT, "bootstrap: %s of %zu bytes from each of %u ranks: more than 1 GiB", name,
                         bytes_each,
                         b->n_ranks);
    struct blob *own = bytes_each ? blob_create(bytes_each) : NULL;
    if (bytes_each && !own)
        return rail_fail(RAIL_E_SYSTEM, "bootstrap: %s: out of memory for %zu bytes", name, bytes_each);
    if (own) memcpy(own->data, (uint8_t *)table + b->rank * bytes_each, bytes_each);

    struct collective *c = &b->collective;
    pthread_mutex_lock(&b->lock);
    enum rail_result result = refusal(b, name);
    if (result != RAIL_OK) {
        blob_drop(own);
        pthread_mutex_unlock(&b->lock);
        return result;
    }
    *c = (struct collective){.active = true, .name = name, .bytes_each = bytes_each, .own = own};
    collect_advance(b);
    uint64_t start_ns = rail_now_ns();
    result = wait_for_all(b, deadline);
    if (c->done) {
        if (c->table) memcpy(table, c->table->data, c->table->bytes);
        result = RAIL_OK;
    } else if (b->failed) {
        result = rail_fail((enum rail_result)b->verdict.result, "%s", b->verdict.text);
    } else {
        result = give_up(b, result, (double)(rail_now_ns() - start_ns) / 1e9);
    }
    blob_drop(c->own);
    blob_drop(c->table);
    *c = (struct collective){0};
    pthread_mutex_unlock(&b->lock);
    return result;
}

enum rail_result bootstrap_allgather(struct bootstrap *b, void *table, size_t bytes_each, struct rail_deadline deadline)
{
    return collect(b, "all-gather", table, bytes_each, deadline);
}

enum rail_result bootstrap_barrier(struct bootstrap *b, struct rail_deadline deadline)
{
    return collect(b, "barrier", NULL, 0, deadline);
}
