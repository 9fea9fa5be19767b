/* fd_pass.c - one process hands a descriptor to many others of its host.
 *
 *   giver: bind, listen ... serve: accept -> same uid? -> token right? -> send fd -> close, count
 *   taker:                  connect (again until the giver is there) -> send token -> receive fd
 *
 * The socket's name and the token are two different BLAKE2b hashes of the key: the name stands in /proc/net/unix for
 * everybody to read, the token does not. Nothing here blocks except poll(), in slices of 20 ms when there is a stop
 * flag. */
#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"

/* PENDING_MAX: connections that have not yet shown their token. Honest takers show it at once, so few are ever open
 * however many there are; when all places are taken, the oldest is dropped (and, if honest, comes again). */
enum { TOKEN_BYTES = 16, PENDING_MAX = 64, SLICE_MS = 20, BACKLOG = 4096 };

struct fd_giver {
    int listener;
    uint8_t token[TOKEN_BYTES];
    int n_pending;
    int pending[PENDING_MAX]; /* oldest first */
};

static void derive(const uint8_t key[32], const char *purpose, uint8_t out[TOKEN_BYTES])
{
    crypto_generichash(out, TOKEN_BYTES, (const unsigned char *)purpose, strlen(purpose), key, 32);
}

static socklen_t make_address(const uint8_t key[32], struct sockaddr_un *address)
{
    uint8_t name[TOKEN_BYTES];
    char hex[2 * TOKEN_BYTES + 1];
    derive(key, "railccl fd name", name);
    sodium_bin2hex(hex, sizeof hex, name, sizeof name);
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    int n = snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "railccl-%s", hex);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static bool same_user(int fd, uid_t *uid_out)
{
    struct ucred peer;
    socklen_t bytes = sizeof peer;
    *uid_out = (uid_t)-1;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0) return false;
    *uid_out = peer.uid;
    return peer.uid == geteuid();
}

static int wait_ms(struct rail_deadline deadline, const _Atomic uint32_t *stop)
{
    int left = rail_deadline_left_ms(deadline);
    return stop && (left < 0 || left > SLICE_MS) ? SLICE_MS : left;
}

static bool stopped(const _Atomic uint32_t *stop)
{
    return stop && atomic_load_explicit(stop, memory_order_relaxed) != 0;
}

/* ---- giver ---- */

enum rail_result rail_fd_giver_open(const uint8_t key[32], struct fd_giver **out)
{
    struct sockaddr_un address;
    socklen_t bytes = make_address(key, &address);
    struct fd_giver *g = calloc(1, sizeof *g);
    if (!g) return rail_fail(RAIL_E_SYSTEM, "calloc(%zu): out of memory", sizeof *g);
    derive(key, "railccl fd token", g->token);
    g->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    enum rail_result result = RAIL_OK;
    if (g->listener < 0)
        result = rail_fail(RAIL_E_SYSTEM, "socket(AF_UNIX): %s; look at ulimit -n", strerror(errno));
    else if (bind(g->listener, (struct sockaddr *)&address, bytes) != 0)
        result = rail_fail(RAIL_E_SYSTEM, "bind(@%s): %s", address.sun_path + 1, strerror(errno));
    else if (listen(g->listener, BACKLOG) != 0)
        result = rail_fail(RAIL_E_SYSTEM, "listen(@%s): %s", address.sun_path + 1, strerror(errno));
    if (result == RAIL_OK)
        *out = g;
    else
        rail_fd_giver_close(g);
    return result;
}

static void pending_drop(struct fd_giver *g, int i)
{
    close(g->pending[i]);
    g->n_pending--;
    memmove(&g->pending[i], &g->pending[i + 1], (size_t)(g->n_pending - i) * sizeof g->pending[0]);
}

void rail_fd_giver_close(struct fd_giver *giver)
{
    if (!giver) return;
    while (giver->n_pending > 0) pending_drop(giver, 0);
    if (giver->listener >= 0) close(giver->listener);
    sodium_memzero(giver->token, TOKEN_BYTES);
    free(giver);
}

/* Takes everyone who is waiting. False when this process has no descriptor left for it. */
static bool accept_all(struct fd_giver *g)
{
    for (;;) {
        int fd = accept4(g->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
        if (fd < 0) return errno == EAGAIN;
        uid_t uid;
        if (!same_user(fd, &uid)) {
            RAIL_WARN("shared memory: refused a local connection of user id %ld", (long)uid);
            close(fd);
            continue;
        }
        if (g->n_pending == PENDING_MAX) pending_drop(g, 0);
        g->pending[g->n_pending++] = fd;
        if (g->n_pending == PENDING_MAX) return true; /* look at their tokens before more are let in */
    }
}

static bool send_fd(int to, int fd)
{
    char byte = 1;
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {{0}};
    struct iovec io = {.iov_base = &byte, .iov_len = 1};
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    ssize_t n;
    do n = sendmsg(to, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n == 1;
}

/* Looks at connection i, whose token may have arrived. True when it was handed the descriptor; it is gone then, and also
 * when it was no taker. */
static bool pending_serve(struct fd_giver *g, int i, int fd)
{
    uint8_t token[TOKEN_BYTES + 1];
    ssize_t n = recv(g->pending[i], token, sizeof token, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    bool given = n == TOKEN_BYTES && sodium_memcmp(token, g->token, TOKEN_BYTES) == 0 && send_fd(g->pending[i], fd);
    pending_drop(g, i);
    return given;
}

enum rail_result rail_fd_giver_serve(struct fd_giver *giver, int fd, int count, struct rail_deadline deadline,
                                     const _Atomic uint32_t *stop)
{
    struct pollfd polls[PENDING_MAX + 1];
    int given = 0;
    while (given < count) {
        if (stopped(stop)) return rail_fail_quietly(RAIL_E_ABORTED, "aborted while handing out shared memory");
        if (rail_deadline_passed(deadline))
            return rail_fail(RAIL_E_TIMEOUT, "handing out shared memory: only %d of %d local ranks came for it in time",
                             given, count);
        int n = giver->n_pending;
        for (int i = 0; i < n; i++) polls[i] = (struct pollfd){.fd = giver->pending[i], .events = POLLIN};
        polls[n] = (struct pollfd){.fd = giver->listener, .events = POLLIN};
        if (poll(polls, (nfds_t)n + 1, wait_ms(deadline, stop)) < 0 && errno != EINTR)
            return rail_fail(RAIL_E_SYSTEM, "poll(%d descriptors): %s", n + 1, strerror(errno));
        for (int i = giver->n_pending - 1; i >= 0 && given < count; i--) given += pending_serve(giver, i, fd);
        /* Without a free descriptor the listener stays readable: a pause keeps this from spinning. */
        if (given < count && !accept_all(giver)) poll(NULL, 0, 10);
    }
    return RAIL_OK;
}

/* ---- taker ---- */

/* RAIL_NOT_YET: nobody is there, or too many are before us. */
static enum rail_result connect_once(const uint8_t key[32], int *out)
{
    struct sockaddr_un address;
    socklen_t bytes = make_address(key, &address);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return rail_fail(RAIL_E_SYSTEM, "socket(AF_UNIX): %s; look at ulimit -n", strerror(errno));
    if (connect(fd, (struct sockaddr *)&address, bytes) != 0) {
        bool again = errno == ECONNREFUSED || errno == EAGAIN || errno == EINTR;
        enum rail_result result =
            again ? RAIL_NOT_YET
                  : rail_fail(RAIL_E_SYSTEM, "connect(@%s): %s", address.sun_path + 1, strerror(errno));
        close(fd);
        return result;
    }
    uid_t uid;
    if (!same_user(fd, &uid)) {
        close(fd);
        return rail_fail(RAIL_E_SYSTEM, "shared memory is offered at @%s by user id %ld, not by %ld: refused",
                         address.sun_path + 1, (long)uid, (long)geteuid());
    }
    *out = fd;
    return RAIL_OK;
}

static enum rail_result receive_fd(int from, int *fd_out)
{
    char byte;
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
    struct iovec io = {.iov_base = &byte, .iov_len = 1};
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(from, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return RAIL_NOT_YET;
    if (n != 1) return RAIL_E_REMOTE; /* the giver went away or dropped us; the caller tries again */
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
        return rail_fail(RAIL_E_SYSTEM, "recvmsg(SCM_RIGHTS): no descriptor came with the message; look at ulimit -n");
    memcpy(fd_out, CMSG_DATA(c), sizeof(int));
    return RAIL_OK;
}

/* RAIL_E_REMOTE (quiet): start over with a new connection. RAIL_NOT_YET: the deadline or the stop flag. */
static enum rail_result take_from(int fd, const uint8_t token[TOKEN_BYTES], struct rail_deadline deadline,
                                  const _Atomic uint32_t *stop, int *fd_out)
{
    ssize_t n;
    do n = send(fd, token, TOKEN_BYTES, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n != TOKEN_BYTES) return RAIL_E_REMOTE;
    while (!stopped(stop) && !rail_deadline_passed(deadline)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        poll(&p, 1, wait_ms(deadline, stop));
        enum rail_result result = receive_fd(fd, fd_out);
        if (result != RAIL_NOT_YET) return result;
    }
    return RAIL_NOT_YET;
}

enum rail_result rail_fd_take(const uint8_t key[32], struct rail_deadline deadline, const _Atomic uint32_t *stop,
                              int *fd_out)
{
    uint8_t token[TOKEN_BYTES];
    uint64_t begun_ns = rail_now_ns();
    derive(key, "railccl fd token", token);
    for (int pause_ms = 1;; pause_ms = pause_ms < 16 ? pause_ms * 2 : 20) {
        int fd = -1;
        enum rail_result result = connect_once(key, &fd);
        if (result == RAIL_OK) {
            result = take_from(fd, token, deadline, stop, fd_out);
            close(fd);
            if (result == RAIL_OK) return RAIL_OK;
        }
        if (result != RAIL_NOT_YET && result != RAIL_E_REMOTE) return result;
        if (stopped(stop)) return rail_fail_quietly(RAIL_E_ABORTED, "aborted while waiting for shared memory");
        if (rail_deadline_passed(deadline))
            return rail_fail(RAIL_E_TIMEOUT, "waiting for shared memory from the first local rank: nothing in %.1f s; "
                             "is that process alive and in this network namespace?",
                             (double)(rail_now_ns() - begun_ns) / 1e9);
        int left = rail_deadline_left_ms(deadline);
        poll(NULL, 0, left >= 0 && left < pause_ms ? left : pause_ms);
    }
}
