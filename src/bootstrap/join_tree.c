/* join_tree.c - the second half of joining, the same however a rank learned who its parent is: it lets its children
 * in and dials its parent.
 *
 *   child --dial, prove, CHILD--> parent        every rank with a parent and children does both at once;
 *         <-------- ADOPTED ------              OPEN: the parent has adopted it, and all its children are there */
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bootstrap/state.h"

/* A parent listens before its child can know of it: refusal means that it is gone; 5 s cover an address that comes up
 * late. */
#define REFUSED_PATIENCE_NS (5 * RAIL_NS_PER_S)

void join_person(const struct bootstrap *b, struct wire_person *out)
{
    memset(out, 0, sizeof *out);
    out->rank = b->rank;
    out->pid = (uint32_t)b->pid;
    snprintf(out->host, sizeof out->host, "%.63s", machine_host_name());
}

void join_fail(struct bootstrap *b, enum rail_result result, const char *format, ...)
{
    char text[WIRE_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    bootstrap_fail(b, b->rank, result, text, NULL);
}

int join_scopes(const struct bootstrap *b, uint32_t out[DIALER_SCOPES_MAX])
{
    int n = 0;
    for (int i = 0; i < b->n_interfaces && n < DIALER_SCOPES_MAX; i++) {
        uint32_t index = if_nametoindex(b->interfaces[i].name);
        if (b->interfaces[i].address.ss_family == AF_INET6 && index) out[n++] = index;
    }
    return n;
}

/* ---- into the tree ---- */

void join_check(struct bootstrap *b)
{
    if (b->failed || b->phase != PHASE_JOINING_TREE || (b->rank != 0 && !b->peers[PARENT].present)) return;
    for (uint32_t i = 0; i < b->n_children; i++)
        if (!b->peers[FIRST_CHILD + i].present) return;
    b->phase = PHASE_OPEN;
    pulse_start(b);
    (void)conn_queue_copy(&b->root, FRAME_JOINED, 0, NULL, 0);
    conn_flush(&b->root); /* 16 bytes: they fit */
    conn_close(&b->root);
    acceptor_close(&b->door);
    bootstrap_wake(b);
}

void join_adopted(struct bootstrap *b)
{
    dialer_close(&b->dialer);
    join_check(b);
}

void join_wrong_parent(struct bootstrap *b)
{
    dialer_next(&b->dialer, "closed the connection: it is not the parent, or it failed");
}

void join_introduce(const struct bootstrap *b, struct wire_child *out)
{
    memset(out, 0, sizeof *out);
    join_person(b, &out->person);
    out->parent = tree_parent(b->rank);
    out->host_key = machine_host_key();
    out->place = b->place;
}

static void parent_connected(void *owner, int fd)
{
    struct bootstrap *b = owner;
    struct wire_child child;
    join_introduce(b, &child);
    struct tree_peer *parent = &b->peers[PARENT];
    if (b->failed || b->closing || peer_open(b, parent, fd) != RAIL_OK) {
        socket_close(fd);
        if (!b->failed && !b->closing)
            join_fail(b, RAIL_E_SYSTEM, "bootstrap: rank %u cannot watch its connection", b->rank);
        return;
    }
    if (conn_queue_copy(&parent->conn, FRAME_CHILD, 0, &child, sizeof child) != RAIL_OK)
        join_fail(b, RAIL_E_SYSTEM, "bootstrap: rank %u: out of memory", b->rank);
    conn_flush(&parent->conn);
}

static void parent_unreachable(void *owner, enum rail_result result, const char *text)
{
    struct bootstrap *b = owner;
    const struct wire_person *parent = &b->peers[PARENT].person;
    join_fail(b, result, "bootstrap: rank %u (host %.63s) cannot reach its parent, rank %u (host %s, pid %u): %s",
              b->rank,
              machine_host_name(), parent->rank, parent->host, parent->pid, text);
}

/* Where it is found again, for when the connection breaks. */
static void meet_child(struct tree_peer *peer, const struct wire_child *child)
{
    peer->host_key = child->host_key;
    peer->place = child->place;
    peer->remote = child->host_key != machine_host_key();
}

static void adopt(struct bootstrap *b, struct tree_peer *peer)
{
    const struct wire_adopted adopted = {.received = peer->received, .host_key = machine_host_key(), .place = b->place};
    if (conn_queue_copy(&peer->conn, FRAME_ADOPTED, 0, &adopted, sizeof adopted) != RAIL_OK)
        join_fail(b, RAIL_E_SYSTEM, "bootstrap: rank %u: out of memory", b->rank);
    conn_flush(&peer->conn);
}

/* A child that lost its connection: goes on over this one. Also when this rank has failed meanwhile: it has news. */
static void child_returned(struct bootstrap *b, struct tree_peer *peer, int fd, const struct wire_child *child)
{
    bool known = peer->present && !peer->left && !peer->lost && child->parent == b->rank &&
                 child->number > peer->number;
    if (b->closing || !known) {
        socket_close(fd);
        return;
    }
    conn_close(&peer->conn);
    redial_end(peer);
    if (peer_open(b, peer, fd) != RAIL_OK) { /* the child calls again */
        socket_close(fd);
        return;
    }
    peer->number = child->number;
    peer->holding = true;
    peer->suspected = false;
    pulse_heard(peer);
    meet_child(peer, child);
    adopt(b, peer);
}

void join_child_arrived(struct bootstrap *b, int fd, struct blob *payload)
{
    struct wire_child child;
    memcpy(&child, payload->data, sizeof child);
    blob_drop(payload);
    child.person.host[WIRE_HOST_BYTES - 1] = '\0';
    if (child.appeal && child.parent == b->rank && !b->closing) {
        verdict_appealed(b, fd, &child);
        return;
    }
    uint32_t index = child.person.rank - tree_first_child(b->rank);
    struct tree_peer *peer = index < b->n_children ? &b->peers[FIRST_CHILD + index] : NULL;
    if (peer && child.number > 0) {
        child_returned(b, peer, fd, &child);
        return;
    }
    /* One that was here before has left, and comes for the next tree of the same members, which is not here yet: it
     * comes again. */
    if (b->closing || b->failed || child.parent != b->rank || !peer || peer->present || conn_is_open(&peer->conn) ||
        peer_open(b, peer, fd) != RAIL_OK) {
        socket_close(fd);
        return;
    }
    peer->person = child.person;
    peer->subtree = tree_size(child.person.rank, b->n_ranks);
    peer->present = true;
    meet_child(peer, &child);
    adopt(b, peer);
    join_check(b);
}

void join_tree_keys(struct bootstrap *b)
{
    auth_derive(b->secret, "tree", b->tree_key);
    auth_key_id(b->tree_key, b->tree_key_id);
    atomic_store_explicit(&b->keyed, true, memory_order_release);
}

void join_dial_parent(struct bootstrap *b, const struct endpoint *endpoints, uint32_t n_endpoints)
{
    uint32_t scopes[DIALER_SCOPES_MAX];
    enum rail_result result = dialer_start(&b->dialer, &(struct dialer_config){
        .purpose = "tree", .key = b->tree_key, .endpoints = endpoints, .n_endpoints = (int)n_endpoints,
        .scopes = scopes, .n_scopes = join_scopes(b, scopes), .refused_patience_ns = REFUSED_PATIENCE_NS,
        .foreign_patience = true, .connected = parent_connected, .failed = parent_unreachable, .owner = b,
        .lock = &b->lock,
    });
    if (result != RAIL_OK) parent_unreachable(b, result, dialer_note(&b->dialer));
}

/* ---- the caller's side ---- */

/* Lock held. */
static enum rail_result failed(struct bootstrap *b, enum rail_result why)
{
    double waited_s = (double)(rail_now_ns() - b->opened_ns) / 1e9;
    char absent[256] = "", target[ENDPOINT_TEXT_BYTES];
    if (b->failed) return rail_fail((enum rail_result)b->verdict.result, "%s", b->verdict.text);
    if (why == RAIL_E_ABORTED) {
        join_fail(b, RAIL_E_REMOTE, "bootstrap: rank %u of %u was aborted while joining", b->rank, b->n_ranks);
        return rail_fail(RAIL_E_ABORTED, "%s", b->verdict.text); /* here; for the others it is a lost rank */
    } else if (b->phase == PHASE_DIALING_ROOT) {
        dialer_target(&b->dialer, target);
        const char *note = dialer_note(&b->dialer);
        join_fail(b, RAIL_E_TIMEOUT, "bootstrap: rank %u of %u did not reach the root within %.1f s: %s%s", b->rank,
                  b->n_ranks,
                  waited_s, note[0] ? note : target, note[0] ? "" : ": no answer");
    } else if (b->phase == PHASE_WAITING_WELCOME) {
        join_fail(b, RAIL_E_TIMEOUT, "bootstrap: rank %u of %u heard nothing from the root within %.1f s", b->rank,
                  b->n_ranks,
                  waited_s);
    } else {
        size_t used = 0;
        uint32_t first = tree_first_child(b->rank);
        for (uint32_t i = 0; i < b->n_children && used < sizeof absent; i++)
            if (!b->peers[FIRST_CHILD + i].present)
                used += (size_t)snprintf(absent + used, sizeof absent - used, "%schild rank %u", used ? ", " : "",
                                         first + i);
        if (b->rank != 0 && !b->peers[PARENT].present && used < sizeof absent)
            snprintf(absent + used, sizeof absent - used, "%sparent rank %u (%s)", used ? ", " : "",
                     tree_parent(b->rank),
                     dialer_note(&b->dialer));
        join_fail(b, RAIL_E_TIMEOUT, "bootstrap: rank %u of %u: no connection within %.1f s with %s", b->rank,
                  b->n_ranks,
                  waited_s, absent);
    }
    return rail_fail((enum rail_result)b->verdict.result, "%s", b->verdict.text);
}

/* Lock not held. What the owner finds out is told to those who are connected by now. */
static void ask_in_vain(struct bootstrap *b)
{
    enum rail_result result = b->in_vain(b->in_vain_owner);
    if (result == RAIL_OK) return;
    pthread_mutex_lock(&b->lock);
    if (!b->failed && b->phase != PHASE_OPEN) join_fail(b, result, "%s", rail_own_error());
    pthread_mutex_unlock(&b->lock);
}

/* Ranks that are ready come within milliseconds: asking earlier would only cost. */
#define FIRST_ASK_NS (100 * RAIL_NS_PER_MS)
#define LAST_ASK_NS RAIL_NS_PER_S

enum rail_result join_wait(struct bootstrap *b, enum rail_result started)
{
    enum rail_result result = started;
    uint64_t pause_ns = FIRST_ASK_NS;
    struct rail_deadline ask = b->in_vain ? rail_deadline_in_ns(pause_ns) : rail_deadline_never();
    while (result == RAIL_OK && b->phase != PHASE_OPEN && !b->failed) {
        uint32_t seen = atomic_load_explicit(&b->turn, memory_order_relaxed);
        bool asks = ask.at_ns < b->join_deadline.at_ns;
        pthread_mutex_unlock(&b->lock);
        result = bootstrap_sleep(b, seen, asks ? ask : b->join_deadline);
        if (result == RAIL_E_TIMEOUT && asks) {
            ask_in_vain(b);
            pause_ns = 2 * pause_ns < LAST_ASK_NS ? 2 * pause_ns : LAST_ASK_NS;
            ask = rail_deadline_in_ns(pause_ns);
            result = RAIL_OK;
        }
        pthread_mutex_lock(&b->lock);
    }
    if (b->phase == PHASE_OPEN && !b->failed) return RAIL_OK;
    return b->torn_down ? result : failed(b, result);
}
