/* handshake.h - from a fresh socket to a lane: connect, prove the secret both ways, exchange HELLO.
 *
 *   CONNECTING --> PROVING --> HELLO --> done (connecter: their HELLO has come; accepter: their HELLO has come, ours is
 *                                              the first frame that the new lane sends)
 *
 * Where both have an RDMA device on the rail, two records go between the two HELLOs (docs/WIRE.md), and the lane's frames
 * travel by it (`verbs`); whatever goes wrong with that, the lane is one over TCP:
 *
 *   connecter                             accepter
 *   HELLO, I have one ------------------> makes a queue pair            (VERBS: waits for their record)
 *   makes one, ready <------------ record
 *   record -----------------------------> ready
 *   done <------------- HELLO, by verbs
 *
 * By librdmacm the records are followed by what it sends (MANAGER at both ends; lane/verbs_cm.c). Who gives it up says so
 * with one more record, and is answered by one; then comes a HELLO without verbs.
 *
 * Steps never block and never log: strangers at the door must not fill the log. Deadlines are the caller's. */
#ifndef RAIL_LANE_HANDSHAKE_H
#define RAIL_LANE_HANDSHAKE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "bootstrap/auth.h"
#include "transport/lane/frame.h"
#include "transport/lane/verbs.h"

enum { HELLO_FRAME_BYTES = FRAME_BYTES + (int)sizeof(struct frame_hello) };

enum handshake_state {
    HANDSHAKE_CONNECTING, /* connecter: waits for TCP */
    HANDSHAKE_PROVING,    /* waits for the other end's part of auth.h */
    HANDSHAKE_HELLO,      /* waits for their HELLO; connecter: or their record before it */
    HANDSHAKE_VERBS,      /* accepter: waits for their record */
    HANDSHAKE_MANAGER,    /* waits for librdmacm, and for the far end to give it up */
};

struct handshake {
    int fd; /* -1: none */
    enum handshake_state state;
    bool connecter;
    bool nobody;  /* connecter: the host answered that nobody listens there */
    bool turned_away; /* connecter: the far end took our HELLO and closed */
    bool refused; /* connecter: the far end said that it does not know the key (perhaps not yet) */
    struct auth auth;
    struct frame_hello mine, theirs;
    struct verbs_port *port;           /* what may be offered; NULL: nothing. Set between start and first step */
    uint64_t patience_ns;              /* with librdmacm; set like `port` */
    bool declined;                     /* we have given librdmacm up, and said so */
    bool late;                         /* because it took longer than that */
    struct verbs_connection *verbs;    /* done: the lane's; NULL: over TCP */
    char verbs_why[VERBS_WHY_BYTES];   /* done without, although both have a device: why; else "" */
    uint8_t in[FRAME_BYTES + sizeof(struct verbs_record)];
    uint32_t in_bytes;
    char why[160]; /* text of a failed step */
};

struct handshake_address { struct sockaddr_storage address; socklen_t bytes; };

/* A non-blocking socket bound to `from`'s address (any port), on its way to `to`; with `nic` it leaves by that NIC even
 * where the kernel would send by another, if machine_bind_device sees a way. */
struct machine_interface;
enum rail_result handshake_connect(struct handshake *h, const struct handshake_address *from,
                                   const struct handshake_address *to, const struct machine_interface *nic,
                                   const uint8_t key[AUTH_KEY_BYTES], const struct frame_hello *mine);
/* Takes over a just accepted, non-blocking socket. */
void handshake_accept(struct handshake *h, int fd, auth_lookup *lookup, void *owner);
/* RAIL_OK: done, `theirs` is checked for version, the socket (h->fd) is now the caller's. RAIL_NOT_YET. Else failed, with
 * `why`. */
enum rail_result handshake_step(struct handshake *h);
/* It waits for librdmacm: verbs_port_manage() has to be asked, and then this to be stepped; late: even so. */
bool handshake_is_managed(const struct handshake *h);
bool handshake_is_late(const struct handshake *h, uint64_t now_ns);
/* Connecter: HELLO went out, so the far end may know of this socket. */
bool handshake_said_hello(const struct handshake *h);
/* Ends one that is not done: closes, wipes. */
void handshake_close(struct handshake *h);

/* The bytes of a HELLO frame. */
void handshake_hello_encode(const struct frame_hello *hello, uint8_t out[HELLO_FRAME_BYTES]);

#endif
