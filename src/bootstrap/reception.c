/* reception.c - see reception.h.
 *
 * Lock order: reception.lock, then a bootstrap's. */
#include "bootstrap/reception.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "bootstrap/state.h"

enum { BACKLOG = 512 };
_Static_assert((int)ACCEPTOR_LISTENERS_MAX == (int)BOOTSTRAP_PLACE_ENDPOINTS, "all that is listened at is told");
_Static_assert(sizeof(struct wire_place) == sizeof(struct bootstrap_place), "the same, on the wire");

static struct {
    pthread_mutex_t lock; /* protects the rest; also the acceptor's */
    bool open, fork_handled;
    struct acceptor door;
    struct bootstrap *first; /* who expects children; linked by next_expecting */
    uint32_t number;         /* of the place */
    uint8_t key[AUTH_KEY_BYTES], key_id[AUTH_ID_BYTES]; /* by which it is asked whether it is this one */
} reception = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The parent's sockets are closed in a forked child, and its communicators are not the child's. */
static void fork_child(void)
{
    bool handled = reception.fork_handled;
    memset(&reception, 0, sizeof reception);
    pthread_mutex_init(&reception.lock, NULL);
    reception.fork_handled = handled;
}

static bool lookup(void *owner, const uint8_t key_id[AUTH_ID_BYTES], uint8_t key_out[AUTH_KEY_BYTES])
{
    (void)owner;
    if (memcmp(reception.key_id, key_id, AUTH_ID_BYTES) == 0) {
        memcpy(key_out, reception.key, AUTH_KEY_BYTES);
        return true;
    }
    for (const struct bootstrap *b = reception.first; b; b = b->next_expecting)
        if (atomic_load_explicit(&b->keyed, memory_order_acquire) &&
            memcmp(b->tree_key_id, key_id, AUTH_ID_BYTES) == 0) {
            memcpy(key_out, b->tree_key, AUTH_KEY_BYTES);
            return true;
        }
    return false;
}

/* Ranks of one communicator in one process have the same key: the caller says whom it wants. */
static void arrived(void *owner, const uint8_t key_id[AUTH_ID_BYTES], int fd, struct blob *payload)
{
    (void)owner;
    struct wire_child child;
    memcpy(&child, payload->data, sizeof child);
    struct bootstrap *b = reception.first;
    while (b && (b->rank != child.parent || memcmp(b->tree_key_id, key_id, AUTH_ID_BYTES) != 0)) b = b->next_expecting;
    if (!b) { /* it notices and comes again */
        blob_drop(payload);
        socket_close(fd);
        return;
    }
    pthread_mutex_lock(&b->lock);
    join_child_arrived(b, fd, payload);
    bootstrap_leave(b);
}

static bool starved(void *owner, const char *text)
{
    (void)owner;
    RAIL_WARN("reception: %s", text);
    return false;
}

/* Best interfaces first; link-local addresses only where there is nothing else. */
static int listen_everywhere(void)
{
    struct machine_interface interfaces[INTERFACES_MAX];
    struct endpoint endpoint;
    int error = EADDRNOTAVAIL, n = machine_interfaces(interfaces, INTERFACES_MAX);
    if (n > INTERFACES_MAX) n = INTERFACES_MAX;
    for (int pass = 0; pass < 2 && reception.door.n_listeners == 0; pass++)
        for (int i = 0; i < n; i++) {
            endpoint_from(&endpoint, &interfaces[i].address);
            if (endpoint_is_link_local(&endpoint) != (pass == 1)) continue;
            if (acceptor_listen(&reception.door, &interfaces[i].address, BACKLOG) != 0) error = errno;
        }
    return reception.door.n_listeners > 0 ? 0 : error;
}

static void place_of(struct bootstrap_place *out)
{
    memset(out, 0, sizeof *out);
    out->number = reception.number;
    out->n_endpoints = (uint32_t)reception.door.n_listeners;
    memcpy(out->endpoints, reception.door.endpoints, sizeof out->endpoints);
}

void bootstrap_place_key(const struct bootstrap_place *place, uint8_t key[AUTH_KEY_BYTES])
{
    auth_key_from_text(place, sizeof *place, key);
    auth_derive(key, "place", key);
}

static enum rail_result open_locked(void)
{
    if (reception.open) return RAIL_OK;
    if (!reception.fork_handled) reception.fork_handled = pthread_atfork(NULL, NULL, fork_child) == 0;
    acceptor_init(&reception.door, &(struct acceptor_config){
        .purpose = "tree", .listeners_max = ACCEPTOR_LISTENERS_MAX, .lookup = lookup,
        .first = FRAME_CHILD, .first_bytes = sizeof(struct wire_child),
        .arrived = arrived, .starved = starved, .lock = &reception.lock,
    });
    int error = listen_everywhere();
    if (error)
        return rail_fail(RAIL_E_SYSTEM, "bootstrap: cannot listen for communicators made of this one: %s%s",
                         strerror(error), error == EMFILE ? "; raise ulimit -n" : "");
    struct bootstrap_place here;
    rail_random(&reception.number, sizeof reception.number);
    place_of(&here);
    bootstrap_place_key(&here, reception.key);
    auth_key_id(reception.key, reception.key_id);
    RAIL_TRY(acceptor_start(&reception.door));
    reception.open = true;
    return RAIL_OK;
}

enum rail_result bootstrap_place_here(struct bootstrap_place *out)
{
    pthread_mutex_lock(&reception.lock);
    enum rail_result result = open_locked();
    place_of(out);
    pthread_mutex_unlock(&reception.lock);
    return result;
}

void reception_expect(struct bootstrap *b)
{
    pthread_mutex_lock(&reception.lock);
    b->next_expecting = reception.first;
    reception.first = b;
    pthread_mutex_unlock(&reception.lock);
}

void reception_forget(struct bootstrap *b)
{
    pthread_mutex_lock(&reception.lock);
    struct bootstrap **at = &reception.first;
    while (*at && *at != b) at = &(*at)->next_expecting;
    if (*at) *at = b->next_expecting;
    pthread_mutex_unlock(&reception.lock);
}
