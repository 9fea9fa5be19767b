/* sockets.c - see sockets.h. The list of descriptors is a bit map under a lock that fork() takes, too. */
#include "bootstrap/sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "topo/machine.h"

/* ---- the list of open descriptors ---- */

static struct {
    pthread_mutex_t lock;
    bool fork_handled;
    uint64_t *bits;
    int words;
} open_sockets = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void fork_prepare(void) { pthread_mutex_lock(&open_sockets.lock); }
static void fork_parent(void) { pthread_mutex_unlock(&open_sockets.lock); }

static void fork_child(void)
{
    int saved = errno;
    for (int w = 0; w < open_sockets.words; w++) {
        for (uint64_t left = open_sockets.bits[w]; left; left &= left - 1) close(w * 64 + __builtin_ctzll(left));
        open_sockets.bits[w] = 0;
    }
    pthread_mutex_unlock(&open_sockets.lock);
    errno = saved;
}

/* Takes the descriptor over; on failure it is closed. */
static int list(int fd)
{
    if (fd < 0) return fd;
    bool ok = true;
    pthread_mutex_lock(&open_sockets.lock);
    if (!open_sockets.fork_handled) {
        ok = pthread_atfork(fork_prepare, fork_parent, fork_child) == 0;
        open_sockets.fork_handled = ok;
    }
    if (ok && fd / 64 >= open_sockets.words) {
        int words = fd / 64 + 16;
        uint64_t *bits = realloc(open_sockets.bits, (size_t)words * sizeof *bits);
        ok = bits != NULL;
        if (ok) {
            memset(bits + open_sockets.words, 0, (size_t)(words - open_sockets.words) * sizeof *bits);
            open_sockets.bits = bits;
            open_sockets.words = words;
        }
    }
    if (ok) open_sockets.bits[fd / 64] |= 1ull << (fd % 64);
    pthread_mutex_unlock(&open_sockets.lock);
    if (ok) return fd;
    close(fd);
    errno = ENOMEM;
    return -1;
}

void socket_close(int fd)
{
    if (fd < 0) return;
    int saved = errno;
    pthread_mutex_lock(&open_sockets.lock); /* held over close(): the number may be given to another at once */
    if (fd / 64 < open_sockets.words) open_sockets.bits[fd / 64] &= ~(1ull << (fd % 64));
    close(fd);
    pthread_mutex_unlock(&open_sockets.lock);
    errno = saved;
}

/* ---- addresses ---- */

bool endpoint_valid(const struct endpoint *e)
{
    return (e->family == 4 || e->family == 6) && e->ports > 0 && e->port > 0 && e->port + e->ports - 1 <= UINT16_MAX;
}

void endpoint_from(struct endpoint *out, const struct sockaddr_storage *from)
{
    memset(out, 0, sizeof *out);
    out->ports = 1;
    if (from->ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, from, sizeof in);
        out->family = 4;
        out->port = ntohs(in.sin_port);
        memcpy(out->address, &in.sin_addr, 4);
    } else {
        struct sockaddr_in6 in6;
        memcpy(&in6, from, sizeof in6);
        out->port = ntohs(in6.sin6_port);
        if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
            out->family = 4;
            memcpy(out->address, &in6.sin6_addr.s6_addr[12], 4);
        } else {
            out->family = 6;
            memcpy(out->address, &in6.sin6_addr, 16);
        }
    }
}

void endpoint_to(const struct endpoint *e, uint32_t port_offset, uint32_t scope, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    uint16_t port = htons((uint16_t)(e->port + port_offset));
    if (e->family == 4) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = port};
        memcpy(&in.sin_addr, e->address, 4);
        memcpy(out, &in, sizeof in);
    } else {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = port};
        memcpy(&in6.sin6_addr, e->address, 16);
        in6.sin6_scope_id = endpoint_is_link_local(e) ? scope : 0;
        memcpy(out, &in6, sizeof in6);
    }
}

bool endpoint_is_link_local(const struct endpoint *e)
{
    return e->family == 6 && e->address[0] == 0xfe && (e->address[1] & 0xc0) == 0x80;
}

bool endpoint_is_loopback(const struct endpoint *e)
{
    static const uint8_t one[16] = {[15] = 1};
    return e->family == 4 ? e->address[0] == 127 : memcmp(e->address, one, 16) == 0;
}

socklen_t sockaddr_bytes(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

void sockaddr_print(const struct sockaddr_storage *address, char out[ENDPOINT_TEXT_BYTES])
{
    char text[INET6_ADDRSTRLEN] = "?", scope[16] = "";
    if (address->ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof in);
        inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
        snprintf(out, ENDPOINT_TEXT_BYTES, "%s:%u", text, ntohs(in.sin_port));
        return;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, address, sizeof in6);
    inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof text);
    if (in6.sin6_scope_id) snprintf(scope, sizeof scope, "%%%u", in6.sin6_scope_id);
    snprintf(out, ENDPOINT_TEXT_BYTES, "[%s%s]:%u", text, scope, ntohs(in6.sin6_port));
}

/* ---- sockets ---- */

static int fresh(int family) { return list(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)); }

static void set(int fd, int level, int option, int value)
{
    setsockopt(fd, level, option, &value, sizeof value); /* each is an improvement, none is needed to work */
}

int socket_listen(const struct sockaddr_storage *at, int backlog)
{
    int fd = fresh(at->ss_family);
    if (fd < 0) return -1;
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1); /* connections of an earlier job in TIME_WAIT do not block a fixed port */
    /* The IPv6 wildcard takes IPv4 as well; a particular address is only itself. */
    struct sockaddr_in6 in6;
    memcpy(&in6, at, sizeof in6);
    if (at->ss_family == AF_INET6) set(fd, IPPROTO_IPV6, IPV6_V6ONLY, !IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr));
    if (bind(fd, (const struct sockaddr *)at, sockaddr_bytes(at)) == 0 && listen(fd, backlog) == 0) return fd;
    socket_close(fd);
    return -1;
}

int socket_accept(int listener)
{
    int fd = list(accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd >= 0) set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    return fd;
}

int socket_connect(const struct sockaddr_storage *to)
{
    int fd = fresh(to->ss_family);
    if (fd < 0) return -1;
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (connect(fd, (const struct sockaddr *)to, sockaddr_bytes(to)) == 0 || errno == EINPROGRESS) return fd;
    socket_close(fd);
    return -1;
}

int socket_connect_by(const struct machine_interface *nic, const struct sockaddr_storage *to)
{
    int fd = fresh(to->ss_family);
    if (fd < 0) return -1;
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    machine_bind_device(fd, nic, to);
    if (bind(fd, (const struct sockaddr *)&nic->address, sockaddr_bytes(&nic->address)) == 0 &&
        (connect(fd, (const struct sockaddr *)to, sockaddr_bytes(to)) == 0 || errno == EINPROGRESS))
        return fd;
    socket_close(fd);
    return -1;
}

int socket_error(int fd)
{
    int error = 0;
    socklen_t bytes = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0) return errno;
    return error;
}

/* Keep-alives: the first after idle_s without a sign of life, then every interval_s, and `count` in vain end it. */
static void ask(int fd, int idle_s, int interval_s, int count)
{
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle_s);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, interval_s);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, count);
}

/* A host that vanished is given up after 10 + 4 x 5 = 30 s without a sign of life: about the time after which
 * InfiniBand's default retries end, so that a fabric which heals itself in time does not lose its jobs here. The kernel
 * answers keep-alives, so a stopped or busy process is not taken for dead. */
void socket_keep(int fd)
{
    ask(fd, 10, 5, 4);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 30000);
}

void socket_watch(int fd)
{
    ask(fd, 1, 1, 1);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 2000);
}

void socket_ask_often(int fd) { ask(fd, 1, 1, 30); }
