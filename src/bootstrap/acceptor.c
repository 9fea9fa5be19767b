/* acceptor.c - see acceptor.h.
 *
 *   listener --accept--> pending: handshake --> pending: first frame --> owner
 *                           |                       |
 *                           +---- wrong, silent, pushed out: dropped and counted */
#include "bootstrap/acceptor.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/clock.h"
#include "base/log.h"
#include "bootstrap/bootstrap.h"

struct acceptor_pending {
    struct conn conn; /* first, so that a conn's or its source's address is the pending's */
    struct auth auth;
    struct acceptor *acceptor;
    struct acceptor_pending *older, *newer;
    uint64_t until_ns;
};
_Static_assert(offsetof(struct acceptor_pending, conn) == 0 && offsetof(struct conn, source) == 0, "cast from source");

enum {
    ACCEPT_AT_ONCE = 64, /* then other sources of the service thread get their turn */
    PAUSE_MS = 100,      /* how long a process without free descriptors leaves its listener alone */
};

static _Atomic uint64_t refused;

uint64_t bootstrap_refused(void) { return atomic_load_explicit(&refused, memory_order_relaxed); }

void acceptor_init(struct acceptor *acceptor, const struct acceptor_config *config)
{
    memset(acceptor, 0, sizeof *acceptor);
    acceptor->config = *config;
}

static void forget(struct acceptor_pending *pending)
{
    struct acceptor *acceptor = pending->acceptor;
    *(pending->older ? &pending->older->newer : &acceptor->oldest) = pending->newer;
    *(pending->newer ? &pending->newer->older : &acceptor->newest) = pending->older;
    acceptor->n_pending--;
    conn_close(&pending->conn);
    auth_wipe(&pending->auth);
    free(pending);
}

static void refuse(struct acceptor_pending *pending, const char *why)
{
    atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
    if (rail_log_enabled(RAIL_LOG_INFO, RAIL_BOOTSTRAP)) {
        struct sockaddr_storage from = {0};
        socklen_t bytes = sizeof from;
        char text[ENDPOINT_TEXT_BYTES] = "?";
        if (getpeername(pending->conn.source.fd, (struct sockaddr *)&from, &bytes) == 0) sockaddr_print(&from, text);
        RAIL_INFO(RAIL_BOOTSTRAP, "bootstrap: dropped a connection from %s: %s", text, why);
    }
    forget(pending);
}

static bool admit_first(struct conn *conn, const struct frame_head *head)
{
    const struct acceptor_config *config = &((struct acceptor_pending *)(void *)conn)->acceptor->config;
    return head->type == (uint32_t)config->first && head->bytes == config->first_bytes;
}

static void advance(struct acceptor_pending *pending)
{
    struct acceptor *acceptor = pending->acceptor;
    enum rail_result result = auth_pump(&pending->auth, pending->conn.source.fd);
    if (result == RAIL_NOT_YET) return; /* its messages fit any socket's buffer: only input can be missing */
    if (result != RAIL_OK) {
        bool spoke = pending->auth.state == AUTH_REFUSED;
        refuse(pending, spoke ? auth_reason_text(pending->auth.reason) : "it ended during the handshake");
        return;
    }
    struct frame frame;
    result = conn_receive(&pending->conn, &frame);
    if (result == RAIL_NOT_YET) return;
    if (result != RAIL_OK) {
        refuse(pending, result == RAIL_E_REMOTE ? "its first message is not what was expected" : "it ended early");
        return;
    }
    uint8_t key_id[AUTH_ID_BYTES];
    memcpy(key_id, pending->auth.key_id, sizeof key_id);
    int fd = conn_release(&pending->conn);
    forget(pending);
    acceptor->config.arrived(acceptor->config.owner, key_id, fd, frame.payload);
}

static void pending_ready(struct service_source *source, uint32_t events)
{
    struct acceptor_pending *pending = (struct acceptor_pending *)(void *)source;
    pthread_mutex_t *lock = pending->acceptor->config.lock;
    (void)events;
    pthread_mutex_lock(lock);
    advance(pending);
    pthread_mutex_unlock(lock);
}

static void admit_stranger(struct acceptor *acceptor, int fd)
{
    struct acceptor_pending *pending = calloc(1, sizeof *pending);
    if (!pending || conn_open(&pending->conn, fd, pending_ready, admit_first) != RAIL_OK) {
        free(pending);
        socket_close(fd);
        return;
    }
    auth_start(&pending->auth, &(struct auth_config){
        .role = AUTH_ACCEPTER,
        .purpose = acceptor->config.purpose,
        .lookup = acceptor->config.lookup,
        .owner = acceptor->config.owner,
    });
    pending->acceptor = acceptor;
    pending->until_ns = rail_now_ns() + ACCEPTOR_PATIENCE_NS;
    pending->older = acceptor->newest;
    *(acceptor->newest ? &acceptor->newest->newer : &acceptor->oldest) = pending;
    acceptor->newest = pending;
    if (acceptor->n_pending++ == 0 && !acceptor->paused) service_timer_set(&acceptor->timer, pending->until_ns);
    if (acceptor->n_pending > ACCEPTOR_PENDING_MAX) refuse(acceptor->oldest, "too many unproven connections");
}

static void pause_accepting(struct acceptor *acceptor)
{
    acceptor->paused = true;
    for (int i = 0; i < acceptor->n_listeners; i++) (void)service_modify(&acceptor->listeners[i].source, 0);
    service_timer_set(&acceptor->timer, rail_now_ns() + PAUSE_MS * RAIL_NS_PER_MS);
}

/* accept() failed for want of descriptors or memory: a stranger who has been slow makes room, else the door stays shut
 * for a while. Not one who just came: newcomers would push one another out for ever. */
static void make_room(struct acceptor *acceptor, int error)
{
    struct acceptor_pending *oldest = acceptor->oldest;
    if (oldest && rail_now_ns() + ACCEPTOR_PATIENCE_NS - oldest->until_ns >= PAUSE_MS * RAIL_NS_PER_MS) {
        refuse(oldest, "this process has no free descriptors");
        return;
    }
    if (oldest) {
        pause_accepting(acceptor);
        return;
    }
    char text[160];
    snprintf(text, sizeof text, "accept(): %s: this process cannot take the connections of all ranks; raise ulimit -n",
             strerror(error));
    if (!acceptor->config.starved(acceptor->config.owner, text) && acceptor->accepting) pause_accepting(acceptor);
}

static void listener_ready(struct service_source *source, uint32_t events)
{
    struct acceptor *acceptor = ((struct acceptor_listener *)(void *)source)->acceptor;
    pthread_mutex_t *lock = acceptor->config.lock;
    (void)events;
    pthread_mutex_lock(lock);
    for (int i = 0; i < ACCEPT_AT_ONCE && acceptor->accepting && !acceptor->paused; i++) {
        int fd = socket_accept(source->fd), error = errno;
        if (fd >= 0)
            admit_stranger(acceptor, fd);
        else if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM)
            make_room(acceptor, error);
        else if (error == EAGAIN)
            break;
        /* Others are of the one connection, which is gone: go on. */
    }
    pthread_mutex_unlock(lock);
}

static void timer_fired(struct service_timer *timer)
{
    struct acceptor *acceptor = (struct acceptor *)(void *)((char *)timer - offsetof(struct acceptor, timer));
    pthread_mutex_t *lock = acceptor->config.lock;
    pthread_mutex_lock(lock);
    uint64_t now = rail_now_ns();
    while (acceptor->oldest && acceptor->oldest->until_ns <= now) refuse(acceptor->oldest, "it kept silent");
    if (acceptor->paused) {
        acceptor->paused = false;
        for (int i = 0; i < acceptor->n_listeners; i++)
            (void)service_modify(&acceptor->listeners[i].source, EPOLLIN);
    }
    if (acceptor->oldest) service_timer_set(&acceptor->timer, acceptor->oldest->until_ns);
    pthread_mutex_unlock(lock);
}

int acceptor_listen(struct acceptor *acceptor, const struct sockaddr_storage *address, int backlog)
{
    int most = acceptor->config.listeners_max ? acceptor->config.listeners_max : ENDPOINTS_MAX;
    if (acceptor->n_listeners == most) return 0;
    int fd = socket_listen(address, backlog);
    if (fd < 0) return -1;
    struct sockaddr_storage bound = {0};
    socklen_t bytes = sizeof bound;
    if (getsockname(fd, (struct sockaddr *)&bound, &bytes) != 0) {
        socket_close(fd);
        return -1;
    }
    endpoint_from(&acceptor->endpoints[acceptor->n_listeners], &bound);
    acceptor->listeners[acceptor->n_listeners++] =
        (struct acceptor_listener){.source = {.fd = fd, .ready = listener_ready}, .acceptor = acceptor};
    return 0;
}

enum rail_result acceptor_start(struct acceptor *acceptor)
{
    acceptor->timer.fire = timer_fired;
    acceptor->accepting = true;
    for (int i = 0; i < acceptor->n_listeners; i++) RAIL_TRY(service_add(&acceptor->listeners[i].source, EPOLLIN));
    return RAIL_OK;
}

void acceptor_close(struct acceptor *acceptor)
{
    acceptor->accepting = false;
    for (int i = 0; i < acceptor->n_listeners; i++) {
        service_remove(&acceptor->listeners[i].source);
        socket_close(acceptor->listeners[i].source.fd);
    }
    acceptor->n_listeners = 0;
    while (acceptor->oldest) forget(acceptor->oldest);
    if (acceptor->timer.fire) service_timer_cancel(&acceptor->timer);
}
