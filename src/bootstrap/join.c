/* join.c - bootstrap_open: from a unique id to a place in the tree.
 *
 *   DIALING_ROOT --proven--> WAITING_WELCOME --parent's addresses--> JOINING_TREE --parent and children--> OPEN
 *                  hello                         dial the parent,                      JOINED to the root
 *                                                let children in
 *
 * The listener for the children is open before the hello, because they may come as soon as the root knows of it; it
 * lets them in after the welcome, because only that yields the tree's key. The connection to the root stays until this
 * rank has joined: a rank that dies half-way is then noticed by the root and named to the others. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/futex.h"
#include "base/log.h"
#include "bootstrap/reception.h"
#include "bootstrap/root.h"
#include "bootstrap/state.h"

/* A root that was given out listens before anybody can know of it, so refusal means it is gone; 5 s cover an address
 * that comes up late. */
#define REFUSED_PATIENCE_NS (5 * RAIL_NS_PER_S)
/* A fixed port may still be held by the process's last root, which closes within a round trip of its end. */
#define PORT_PATIENCE_NS (5 * RAIL_NS_PER_S)
enum { PORT_RETRY_MS = 20, CHILD_BACKLOG = 128 };

/* ---- the children ---- */

static void child_arrived(void *owner, const uint8_t key_id[AUTH_ID_BYTES], int fd, struct blob *payload)
{
    (void)key_id;
    join_child_arrived(owner, fd, payload);
}

static bool tree_key(void *owner, const uint8_t key_id[AUTH_ID_BYTES], uint8_t key_out[AUTH_KEY_BYTES])
{
    const struct bootstrap *b = owner;
    if (memcmp(key_id, b->tree_key_id, AUTH_ID_BYTES) != 0) return false;
    memcpy(key_out, b->tree_key, AUTH_KEY_BYTES);
    return true;
}

static bool door_starved(void *owner, const char *text)
{
    struct bootstrap *b = owner;
    join_fail(b, RAIL_E_SYSTEM, "bootstrap: rank %u: %s", b->rank, text);
    return false;
}

/* ---- the root ---- */

static void derive_keys(struct bootstrap *b, const uint8_t session[WIRE_SESSION_BYTES])
{
    struct { char purpose[16]; uint8_t session[WIRE_SESSION_BYTES]; uint32_t n_ranks, reserved; } message = {
        .purpose = "communicator", .n_ranks = b->n_ranks,
    };
    memcpy(message.session, session, WIRE_SESSION_BYTES);
    auth_mac(b->id.secret, &message, sizeof message, b->secret);
    join_tree_keys(b);
}

static void welcomed(struct bootstrap *b, const struct wire_welcome *welcome)
{
    bool sane = welcome->n_endpoints <= ENDPOINTS_MAX && welcome->parent.rank == tree_parent(b->rank) &&
                (b->rank == 0 || welcome->n_endpoints > 0);
    for (uint32_t i = 0; sane && i < welcome->n_endpoints; i++) sane = endpoint_valid(&welcome->endpoints[i]);
    if (!sane) {
        join_fail(b, RAIL_E_REMOTE, "bootstrap: rank %u: the root's welcome makes no sense", b->rank);
        return;
    }
    b->phase = PHASE_JOINING_TREE;
    derive_keys(b, welcome->session);
    b->peers[PARENT].person = welcome->parent;
    b->peers[PARENT].person.host[WIRE_HOST_BYTES - 1] = '\0';
    dialer_close(&b->dialer);
    if (b->n_children > 0 && acceptor_start(&b->door) != RAIL_OK) {
        join_fail(b, RAIL_E_SYSTEM, "bootstrap: rank %u cannot watch its listener", b->rank);
        return;
    }
    if (b->rank != 0) join_dial_parent(b, welcome->endpoints, welcome->n_endpoints);
    join_check(b);
}

static bool welcome_or_news(struct conn *conn, const struct frame_head *head)
{
    const struct bootstrap *b = bootstrap_of_root_conn(conn);
    return (head->type == FRAME_WELCOME && head->bytes == sizeof(struct wire_welcome) &&
            b->phase == PHASE_WAITING_WELCOME) ||
           (head->type == FRAME_NEWS && head->bytes == sizeof(struct wire_news));
}

static void root_spoke(struct bootstrap *b, const struct frame *frame)
{
    if (frame->head.type == FRAME_WELCOME) {
        struct wire_welcome welcome;
        memcpy(&welcome, frame->payload->data, sizeof welcome);
        if (!b->failed && !b->closing) welcomed(b, &welcome);
        return;
    }
    struct wire_news news;
    memcpy(&news, frame->payload->data, sizeof news);
    news.text[WIRE_TEXT_BYTES - 1] = '\0';
    bool known = news.result > RAIL_NOT_YET && news.result <= RAIL_E_ABORTED;
    conn_close(&b->root); /* it knows: nothing to tell it */
    bootstrap_fail(b, news.culprit, known ? (enum rail_result)news.result : RAIL_E_REMOTE, news.text, NULL);
}

static void root_gone(struct bootstrap *b, enum rail_result result, int error)
{
    conn_close(&b->root);
    if (b->failed || b->closing) return;
    if (b->phase == PHASE_JOINING_TREE) return; /* the tree is independent of it now */
    /* It may be overrun and have pushed us out before it read our hello. If it is gone, dialing finds out. */
    char why[128];
    snprintf(why, sizeof why, "lost after the hello (%s)", result == RAIL_E_REMOTE ? "it sent what makes no sense" :
             error ? strerror(error) : "end of file");
    b->phase = PHASE_DIALING_ROOT;
    dialer_next(&b->dialer, why);
}

static void root_ready(struct service_source *source, uint32_t events)
{
    struct bootstrap *b = bootstrap_of_root_conn((struct conn *)(void *)source);
    struct frame frame;
    (void)events;
    pthread_mutex_lock(&b->lock);
    conn_flush(&b->root);
    while (conn_is_open(&b->root)) {
        enum rail_result result = conn_receive(&b->root, &frame);
        if (result == RAIL_NOT_YET) break;
        if (result == RAIL_OK) {
            root_spoke(b, &frame);
            blob_drop(frame.payload);
        } else {
            root_gone(b, result, errno);
        }
    }
    bootstrap_leave(b);
}

static bool same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    struct endpoint x, y;
    endpoint_from(&x, a);
    endpoint_from(&y, b);
    return x.family == y.family && memcmp(x.address, y.address, sizeof x.address) == 0;
}

/* Where the children will find us. First the address by which we reached the root: from there the root's other callers
 * are most likely reached, too. Then other interfaces; link-local ones only when there is nothing else. */
static int listen_for_children(struct bootstrap *b, int root_fd)
{
    struct sockaddr_storage local = {0};
    struct endpoint endpoint;
    socklen_t bytes = sizeof local;
    int error = EADDRNOTAVAIL;
    if (getsockname(root_fd, (struct sockaddr *)&local, &bytes) != 0) return errno;
    endpoint_from(&endpoint, &local);
    if (local.ss_family == AF_INET) ((struct sockaddr_in *)(void *)&local)->sin_port = 0;
    else ((struct sockaddr_in6 *)(void *)&local)->sin6_port = 0;
    bool wanted = endpoint_is_loopback(&endpoint);
    for (int i = 0; i < b->n_interfaces; i++) wanted = wanted || same_address(&local, &b->interfaces[i].address);
    if (wanted && acceptor_listen(&b->door, &local, CHILD_BACKLOG) != 0) error = errno;
    for (int pass = 0; pass < 2 && (pass == 0 || b->door.n_listeners == 0); pass++) {
        for (int i = 0; i < b->n_interfaces; i++) {
            endpoint_from(&endpoint, &b->interfaces[i].address);
            if (endpoint_is_link_local(&endpoint) != (pass == 1)) continue;
            if (same_address(&local, &b->interfaces[i].address)) continue;
            if (acceptor_listen(&b->door, &b->interfaces[i].address, CHILD_BACKLOG) != 0) error = errno;
        }
    }
    return b->door.n_listeners > 0 ? 0 : error;
}

static uint32_t milliseconds_left(struct rail_deadline deadline)
{
    if (deadline.at_ns == UINT64_MAX) return UINT32_MAX;
    uint64_t now = rail_now_ns(), left_ms = deadline.at_ns > now ? (deadline.at_ns - now) / RAIL_NS_PER_MS : 0;
    return left_ms < UINT32_MAX ? (uint32_t)left_ms : UINT32_MAX - 1;
}

static void root_connected(void *owner, int fd)
{
    struct bootstrap *b = owner;
    struct wire_hello hello = {.version = WIRE_VERSION, .n_ranks = b->n_ranks, .host_key = machine_host_key(),
                               .left_ms = milliseconds_left(b->join_deadline)};
    int error = b->n_children > 0 && b->door.n_listeners == 0 ? listen_for_children(b, fd) : 0;
    if (b->failed || b->closing || error || conn_open(&b->root, fd, root_ready, welcome_or_news) != RAIL_OK) {
        socket_close(fd);
        if (error)
            join_fail(b, RAIL_E_SYSTEM, "bootstrap: rank %u cannot listen for its children: %s%s", b->rank,
                      strerror(error),
                      error == EMFILE ? "; raise ulimit -n" : "");
        else if (!b->failed && !b->closing)
            join_fail(b, RAIL_E_SYSTEM, "bootstrap: rank %u cannot watch its connection", b->rank);
        return;
    }
    socket_keep(fd);
    join_person(b, &hello.person);
    hello.n_endpoints = (uint32_t)b->door.n_listeners;
    memcpy(hello.endpoints, b->door.endpoints, sizeof hello.endpoints);
    b->phase = PHASE_WAITING_WELCOME;
    if (conn_queue_copy(&b->root, FRAME_HELLO, 0, &hello, sizeof hello) != RAIL_OK)
        join_fail(b, RAIL_E_SYSTEM, "bootstrap: rank %u: out of memory", b->rank);
    conn_flush(&b->root);
}

static void root_unreachable(void *owner, enum rail_result result, const char *text)
{
    struct bootstrap *b = owner;
    if (b->id.kind == ID_ROOT_RUNS)
        join_fail(b, result,
                  "bootstrap: rank %u of %u cannot reach the root of the unique id: %s. Is the process that called "
                  "ncclGetUniqueId (pid %u) alive, has its id been used already, and do all ranks have the same "
                  "id?", b->rank,
                  b->n_ranks, text, b->id.pid);
    else
        join_fail(b, result,
                  "bootstrap: rank %u of %u cannot reach rank 0's root: %s. Do all ranks have the same address and "
                  "the same RAILCCL_SECRET?", b->rank, b->n_ranks, text);
}

/* ---- the caller's side ---- */

enum rail_result bootstrap_create(const struct bootstrap_config *config, struct bootstrap **out)
{
    if (config->n_ranks < 1 || config->rank >= config->n_ranks)
        return rail_fail(RAIL_E_ARGUMENT,
                         "bootstrap: rank %u of %u: the rank must be below the number of ranks, and that at "
                         "least 1", config->rank, config->n_ranks);
    struct bootstrap *b = calloc(1, sizeof *b);
    if (!b) return rail_fail(RAIL_E_SYSTEM, "bootstrap: out of memory");
    enum rail_result result = config->id ? id_open(config->id, &b->id) : RAIL_OK;
    if (result == RAIL_OK) {
        b->n_interfaces = machine_interfaces(b->interfaces, INTERFACES_MAX);
        if (b->n_interfaces > INTERFACES_MAX) b->n_interfaces = INTERFACES_MAX;
        if (b->n_interfaces == 0) result = RAIL_E_SYSTEM;
    }
    if (result != RAIL_OK) {
        free(b);
        return result;
    }
    b->rank = config->rank;
    b->n_ranks = config->n_ranks;
    b->stop = config->stop;
    b->join_deadline = config->deadline;
    b->in_vain = config->id ? NULL : config->in_vain;
    b->in_vain_owner = config->owner;
    b->pid = getpid();
    b->opened_ns = rail_now_ns();
    b->n_children = tree_n_children(b->rank, b->n_ranks);
    b->subtree = tree_size(b->rank, b->n_ranks);
    struct bootstrap_place place = {0};
    if (b->n_ranks > 1 && bootstrap_place_here(&place) != RAIL_OK) {
        free(b);
        return RAIL_E_SYSTEM;
    }
    memcpy(&b->place, &place, sizeof b->place);
    pthread_mutex_init(&b->lock, NULL);
    if (b->n_ranks > 1) reception_expect(b);
    *out = b;
    return RAIL_OK;
}

/* Rank 0 of a fixed address. Leaves the error text to be completed by the caller. */
static enum rail_result open_fixed_root(struct bootstrap *b)
{
    struct rail_deadline patience = rail_deadline_in_ns(PORT_PATIENCE_NS);
    if (b->join_deadline.at_ns < patience.at_ns) patience = b->join_deadline;
    for (;;) {
        enum rail_result result = root_start_fixed(&b->id);
        if (result == RAIL_OK) return RAIL_OK;
        if (result != RAIL_NOT_YET || rail_deadline_passed(patience))
            return result == RAIL_NOT_YET ? RAIL_E_SYSTEM : result;
        if (b->stop && atomic_load_explicit(b->stop, memory_order_relaxed))
            return rail_fail_quietly(RAIL_E_ABORTED, "aborted while waiting for the port");
        _Atomic uint32_t nobody = 0;
        (void)rail_futex_wait(&nobody, 0, PORT_RETRY_MS * RAIL_NS_PER_MS);
    }
}

static enum rail_result start(struct bootstrap *b)
{
    uint8_t key[AUTH_KEY_BYTES];
    uint32_t scopes[DIALER_SCOPES_MAX];
    if (b->id.kind != ID_ROOT_RUNS && b->rank == 0) RAIL_TRY(open_fixed_root(b));
    auth_derive(b->id.secret, "root", key);
    return dialer_start(&b->dialer, &(struct dialer_config){
        .purpose = "root", .key = key, .endpoints = b->id.endpoints, .n_endpoints = b->id.n_endpoints,
        .scopes = scopes, .n_scopes = join_scopes(b, scopes),
        .refused_patience_ns = b->id.kind == ID_ROOT_RUNS ? REFUSED_PATIENCE_NS : UINT64_MAX,
        /* With a range of ports, others may sit on some of them; a launch's address may still have the last id's
         * root. */
        .foreign_patience = b->id.endpoints[0].ports > 1 || b->id.kind == ID_LAUNCH,
        .connected = root_connected, .failed = root_unreachable, .owner = b, .lock = &b->lock,
    });
}

enum rail_result bootstrap_open(const struct bootstrap_config *config, struct bootstrap **out)
{
    struct bootstrap *b = NULL;
    RAIL_TRY(bootstrap_create(config, &b));
    acceptor_init(&b->door, &(struct acceptor_config){
        .purpose = "tree", .lookup = tree_key, .first = FRAME_CHILD, .first_bytes = sizeof(struct wire_child),
        .arrived = child_arrived, .starved = door_starved, .owner = b, .lock = &b->lock,
    });
    pthread_mutex_lock(&b->lock);
    enum rail_result result = start(b);
    if (result != RAIL_OK) {
        rail_fail(result, "bootstrap: rank %u of %u: %s", b->rank, b->n_ranks, rail_last_error());
        b->torn_down = true;
        dialer_close(&b->dialer);
    }
    result = join_wait(b, result);
    pthread_mutex_unlock(&b->lock);
    if (result != RAIL_OK) {
        bootstrap_close(b);
        return result;
    }
    RAIL_INFO(RAIL_BOOTSTRAP, "bootstrap: rank %u of %u joined in %.3f s", b->rank, b->n_ranks,
              (double)(rail_now_ns() - b->opened_ns) / 1e9);
    *out = b;
    return RAIL_OK;
}
