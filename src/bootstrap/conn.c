/* conn.c - see conn.h. */
#include "bootstrap/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>

struct conn_output {
    struct conn_output *next;
    struct frame_head head;
    struct blob *payload;
};

struct blob *blob_create(size_t bytes)
{
    struct blob *blob = bytes > SIZE_MAX - sizeof *blob ? NULL : malloc(sizeof *blob + bytes);
    if (!blob) return NULL;
    blob->holders = 1;
    blob->bytes = bytes;
    return blob;
}

enum rail_result blob_copy(const void *bytes, size_t n, struct blob **out)
{
    *out = n ? blob_create(n) : NULL;
    if (n && !*out) return rail_fail(RAIL_E_SYSTEM, "bootstrap: out of memory for a message of %zu bytes", n);
    if (n) memcpy((*out)->data, bytes, n);
    return RAIL_OK;
}

struct blob *blob_hold(struct blob *blob)
{
    if (blob) blob->holders++;
    return blob;
}

void blob_drop(struct blob *blob)
{
    if (blob && --blob->holders == 0) free(blob);
}

enum rail_result conn_open(struct conn *conn, int fd, void (*ready)(struct service_source *, uint32_t),
                           bool (*admit)(struct conn *, const struct frame_head *))
{
    memset(conn, 0, sizeof *conn);
    conn->source = (struct service_source){.fd = fd, .ready = ready};
    conn->admit = admit;
    enum rail_result result = service_add(&conn->source, EPOLLIN);
    if (result != RAIL_OK) conn->source.fd = -1;
    return result;
}

bool conn_is_open(const struct conn *conn) { return conn->source.ready && conn->source.fd >= 0; }

static void drop_first_output(struct conn *conn)
{
    struct conn_output *done = conn->first;
    conn->first = done->next;
    if (!conn->first) conn->last = NULL;
    conn->first_sent = 0;
    blob_drop(done->payload);
    free(done);
}

int conn_release(struct conn *conn)
{
    if (!conn_is_open(conn)) return -1;
    int fd = conn->source.fd;
    service_remove(&conn->source);
    while (conn->first) drop_first_output(conn);
    blob_drop(conn->payload);
    conn->payload = NULL;
    conn->source.fd = -1;
    return fd;
}

void conn_close(struct conn *conn) { socket_close(conn_release(conn)); }

/* Reads until `want` bytes are there: RAIL_OK, RAIL_NOT_YET, or RAIL_E_SYSTEM. */
static enum rail_result fill(struct conn *conn, void *into, size_t want)
{
    while (conn->have_bytes < want) {
        ssize_t n = recv(conn->source.fd, (uint8_t *)into + conn->have_bytes, want - conn->have_bytes, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return RAIL_NOT_YET;
        if (n == 0) errno = 0;
        if (n <= 0) return RAIL_E_SYSTEM;
        conn->have_bytes += (size_t)n;
    }
    return RAIL_OK;
}

enum rail_result conn_receive(struct conn *conn, struct frame *out)
{
    if (!conn_is_open(conn)) {
        errno = EBADF;
        return RAIL_E_SYSTEM;
    }
    if (!conn->in_payload) {
        RAIL_TRY(fill(conn, &conn->head, sizeof conn->head));
        if (!conn->admit(conn, &conn->head)) return RAIL_E_REMOTE;
        conn->have_bytes = 0;
        if (conn->head.bytes > 0) {
            conn->payload = blob_create(conn->head.bytes);
            if (!conn->payload) {
                errno = ENOMEM;
                return RAIL_E_SYSTEM;
            }
        }
        conn->in_payload = true;
    }
    if (conn->payload) RAIL_TRY(fill(conn, conn->payload->data, conn->payload->bytes));
    *out = (struct frame){.head = conn->head, .payload = conn->payload};
    conn->payload = NULL;
    conn->in_payload = false;
    conn->have_bytes = 0;
    return RAIL_OK;
}

enum rail_result conn_queue(struct conn *conn, enum frame_type type, uint32_t sequence, struct blob *payload)
{
    if (!conn_is_open(conn)) return RAIL_OK;
    struct conn_output *output = malloc(sizeof *output);
    if (!output) return rail_fail(RAIL_E_SYSTEM, "bootstrap: out of memory for a message");
    *output = (struct conn_output){
        .head = {.type = type, .sequence = sequence, .bytes = payload ? payload->bytes : 0},
        .payload = blob_hold(payload),
    };
    if (conn->last)
        conn->last->next = output;
    else
        conn->first = output;
    conn->last = output;
    return RAIL_OK;
}

enum rail_result conn_queue_copy(struct conn *conn, enum frame_type type, uint32_t sequence, const void *bytes,
                                 size_t n)
{
    struct blob *blob;
    RAIL_TRY(blob_copy(bytes, n, &blob));
    enum rail_result result = conn_queue(conn, type, sequence, blob);
    blob_drop(blob);
    return result;
}

/* Sends the rest of the first output, head and payload in one call. False when the socket takes no more. */
static bool send_first(struct conn *conn)
{
    struct conn_output *o = conn->first;
    size_t payload_bytes = o->payload ? o->payload->bytes : 0, whole = sizeof o->head + payload_bytes;
    while (conn->first_sent < whole) {
        size_t in_head = conn->first_sent < sizeof o->head ? conn->first_sent : sizeof o->head;
        size_t in_payload = conn->first_sent - in_head;
        struct iovec parts[2] = {
            {.iov_base = (uint8_t *)&o->head + in_head, .iov_len = sizeof o->head - in_head},
            {.iov_base = o->payload ? o->payload->data + in_payload : NULL, .iov_len = payload_bytes - in_payload},
        };
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        ssize_t n = sendmsg(conn->source.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return false;
        if (n < 0) break; /* broken: nothing of the queue will ever go; the reading side finds out why */
        conn->first_sent += (size_t)n;
    }
    drop_first_output(conn);
    return true;
}

void conn_flush(struct conn *conn)
{
    if (!conn_is_open(conn)) return;
    while (conn->first && send_first(conn)) {}
    bool wants = conn->first != NULL;
    if (wants == conn->wants_output) return;
    conn->wants_output = wants;
    (void)service_modify(&conn->source, wants ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

bool conn_is_flushed(const struct conn *conn) { return !conn->first; }
