/* wire.h - what travels over a proven bootstrap connection: frames of a 16-byte head and a payload.
 *
 *   rank -> root     HELLO, then JOINED (or NEWS, when it could not join)
 *   root -> rank     WELCOME, or NEWS
 *   child -> parent  CHILD, then GATHER ... (or AWAITS, before its deadline)
 *   parent -> child  ADOPTED, then SPREAD ...
 *   child -> parent  REPORT, passed on to rank 0; FINDING, to whoever decides (verdict.c)
 *   parent -> child  WORD, of rank 0 to all
 *   both             NEWS, GOODBYE
 *   both             BEAT: how many frames of the other end are here. It, CHILD and ADOPTED are not counted; all
 * others are,
 *                    and are sent again over the next connection if the last one took them along (session.c)
 *   orphan -> judge  CHILD (appeal), then FINDING ...; answered by ADOPTED, then NEWS. None of it is counted
 *
 * Fixed layouts, little-endian, no padding; the head's length is checked by the receiver against what it expects before
 * it is believed. */
#ifndef RAIL_BOOTSTRAP_WIRE_H
#define RAIL_BOOTSTRAP_WIRE_H

#include <stdint.h>

#include "bootstrap/sockets.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "wire layouts are written as they lie in memory");

enum {
    WIRE_VERSION = 3,
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
    FRAME_BEAT,
    FRAME_FINDING,
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

/* Where a process is found by its neighbours in the tree, whenever they lose it. */
enum { WIRE_PLACE_MAX = 16 };
struct wire_place {
    uint32_t n_endpoints, number;
    struct endpoint endpoints[WIRE_PLACE_MAX];
};
_Static_assert(sizeof(struct wire_place) == 392, "wire layout");

struct wire_child {
    struct wire_person person;
    uint32_t parent;   /* whom it wants; an address may lead to somebody else */
    uint32_t number;   /* of its connections to this parent: 0 joins, others go on where the last one broke */
    uint32_t appeal;   /* 1: its own parent is lost; this one is to decide, or knows who decides */
    uint32_t reserved;
    uint64_t host_key;
    struct wire_place place;
};
_Static_assert(sizeof(struct wire_child) == 488, "wire layout");

struct wire_adopted {
    uint64_t received; /* counted frames of the child's, over all its connections */
    uint64_t host_key;
    struct wire_place place;
};
_Static_assert(sizeof(struct wire_adopted) == 408, "wire layout");

struct wire_beat {
    uint64_t received; /* counted frames of the far end's */
};

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
    uint32_t gone;              /* 1: the culprit's process is gone for certain */
    uint32_t reserved;
    char text[WIRE_TEXT_BYTES]; /* ends with NUL */
};
_Static_assert(sizeof(struct wire_news) == 488, "wire layout");

/* What a rank found out about another: strength grows downwards. */
enum finding_kind {
    FINDING_LINK = 1,    /* a link to it failed */
    FINDING_UNREACHABLE, /* its host cannot be reached over any network */
    FINDING_DEAD,        /* its process is gone */
};
struct wire_finding {
    uint32_t kind; /* enum finding_kind */
    uint32_t accuser, culprit;
    uint32_t culprit_pid;
    uint64_t accuser_host, culprit_host; /* keys; 0: not known */
    char culprit_name[WIRE_HOST_BYTES];  /* its host's */
    char text[WIRE_TEXT_BYTES];          /* ends with NUL; "": the kind says it all */
};
_Static_assert(sizeof(struct wire_finding) == 568, "wire layout");

#endif
