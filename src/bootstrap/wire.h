/* wire.h - what travels over a proven bootstrap connection: frames of a 16-byte head and a payload.
 *
 *   rank -> root     HELLO, then JOINED (or NEWS, when it could not join)
 *   root -> rank     WELCOME, or NEWS
 *   child -> parent  CHILD, then GATHER ... (or AWAITS, before its deadline)
 *   parent -> child  ADOPTED, then SPREAD ...
 *   child -> parent  REPORT, passed on to rank 0
 *   parent -> child  WORD, of rank 0 to all
 *   both             NEWS, GOODBYE
 *
 * Fixed layouts, little-endian, no padding; the head's length is checked by the receiver against what it expects before
 * it is believed. */
#ifndef RAIL_BOOTSTRAP_WIRE_H
#define RAIL_BOOTSTRAP_WIRE_H

#include <stdint.h>

#include "bootstrap/sockets.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "wire layouts are written as they lie in memory");

enum {
    WIRE_VERSION = 1,
    WIRE_HOST_BYTES = 64,
    WIRE_TEXT_BYTES = 472,
    WIRE_SESSION_BYTES = 32,
    WIRE_MARK = 0x5242 << 16, /* "BR": upper half of a frame's type; anything else is not a frame */
};

enum frame_type {
    FRAME_HELLO = WIRE_MARK | 1,
    FRAME_WELCOME,
    FRAME_JOINED,
    FRAME_CHILD,
    FRAME_ADOPTED,
    FRAME_AWAITS,
    FRAME_GATHER,
    FRAME_SPREAD,
    FRAME_NEWS,
    FRAME_GOODBYE,
    FRAME_REPORT,
    FRAME_WORD,
};

struct frame_head {
    uint32_t type;
    uint32_t sequence; /* of the collective for AWAITS, GATHER and SPREAD, else 0 */
    uint64_t bytes;    /* of the payload behind the head */
};
_Static_assert(sizeof(struct frame_head) == 16, "wire layout");

/* Who a rank is, for messages. */
struct wire_person {
    uint32_t rank, pid;
    char host[WIRE_HOST_BYTES]; /* ends with NUL, cut if longer */
};
_Static_assert(sizeof(struct wire_person) == 72, "wire layout");

/* version, n_ranks and person stay where they are in every version, so that a mismatch can be named. */
struct wire_hello {
    uint32_t version, n_ranks;
    struct wire_person person;
    uint32_t features; /* bits; unknown ones are ignored. None are defined yet */
    uint32_t left_ms;  /* until this rank gives up; UINT32_MAX: never */
    uint64_t host_key;
    uint32_t n_endpoints, reserved;
    struct endpoint endpoints[ENDPOINTS_MAX];
};
_Static_assert(sizeof(struct wire_hello) == 176, "wire layout");

struct wire_welcome {
    uint32_t features; /* those that all ranks have */
    uint32_t n_endpoints;
    struct wire_person parent; /* of rank 0: itself, no endpoints */
    struct endpoint endpoints[ENDPOINTS_MAX];
    uint8_t session[WIRE_SESSION_BYTES]; /* random: makes two communicators under one fixed secret different */
};
_Static_assert(sizeof(struct wire_welcome) == 184, "wire layout");

struct wire_child {
    struct wire_person person;
    uint32_t parent; /* whom it wants; an address may lead to somebody else */
    uint32_t reserved;
};
_Static_assert(sizeof(struct wire_child) == 80, "wire layout");

/* "I take part in this collective, but these below me do not": the first few of them. */
enum { WIRE_AWAITS_MAX = 15 };
struct wire_awaits {
    uint32_t n;
    uint32_t ranks[WIRE_AWAITS_MAX];
};
_Static_assert(sizeof(struct wire_awaits) == 64, "wire layout");

struct wire_word {
    uint64_t number;
    char text[WIRE_TEXT_BYTES - 8]; /* ends with NUL */
};
_Static_assert(sizeof(struct wire_word) == 472, "wire layout");

struct wire_news {
    uint32_t culprit;
    uint32_t result;            /* enum rail_result */
    char text[WIRE_TEXT_BYTES]; /* ends with NUL */
};
_Static_assert(sizeof(struct wire_news) == 480, "wire layout");

#endif
