/* conn.h - one connection: a non-blocking socket that carries frames, with its input half read and its output queued.
 *
 * Passive: the owner gets the service thread's events, asks for frames until there is none, and flushes. The owner's
 * lock protects it. */
#ifndef RAIL_BOOTSTRAP_CONN_H
#define RAIL_BOOTSTRAP_CONN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/result.h"
#include "base/service.h"
#include "bootstrap/wire.h"

/* Bytes that several connections send: counted, freed with the last holder. Not atomic: the owner's lock covers it. */
struct blob {
    uint32_t holders;
    size_t bytes;
    uint8_t data[];
};
/* One holder; NULL when out of memory. */
struct blob *blob_create(size_t bytes);
/* A copy of n bytes; NULL for none. */
enum rail_result blob_copy(const void *bytes, size_t n, struct blob **out);
struct blob *blob_hold(struct blob *blob);
void blob_drop(struct blob *blob); /* NULL is fine */

struct frame {
    struct frame_head head;
    struct blob *payload; /* NULL when the frame has none; the receiver's to drop */
};

struct conn_output;

struct conn {
    struct service_source source; /* source.fd is -1 when closed */
    /* Whether a frame of this head may come now; asked before a byte of payload is read or memory taken. */
    bool (*admit)(struct conn *conn, const struct frame_head *head);
    struct frame_head head;
    struct blob *payload;
    size_t have_bytes; /* of head, then of payload */
    bool in_payload;
    bool wants_output; /* EPOLLOUT is armed */
    struct conn_output *first, *last;
    size_t first_sent;
};

/* Takes over `fd` and listens for input. On failure `fd` is still the caller's and the conn is closed. */
enum rail_result conn_open(struct conn *conn, int fd, void (*ready)(struct service_source *, uint32_t),
                           bool (*admit)(struct conn *, const struct frame_head *));
bool conn_is_open(const struct conn *conn);
/* Service thread only (or before the service knows it). Drops what is queued; closing twice does nothing. */
void conn_close(struct conn *conn);
/* Like close, but hands the descriptor on. */
int conn_release(struct conn *conn);

/* RAIL_OK and a frame; RAIL_NOT_YET; RAIL_E_SYSTEM with errno (0: end of file); RAIL_E_REMOTE: a frame that is not
 * admitted. No error text. */
enum rail_result conn_receive(struct conn *conn, struct frame *out);

/* Queues a frame; takes a hold of its own on `payload`. RAIL_E_SYSTEM when out of memory. On a closed connection: does
 * nothing. */
enum rail_result conn_queue(struct conn *conn, enum frame_type type, uint32_t sequence, struct blob *payload);
/* The same with a copy of `n` bytes. */
enum rail_result conn_queue_copy(struct conn *conn, enum frame_type type, uint32_t sequence, const void *bytes,
                                 size_t n);
/* Sends what the socket takes. Errors show at the next receive: they need no second path. */
void conn_flush(struct conn *conn);
bool conn_is_flushed(const struct conn *conn);

#endif
