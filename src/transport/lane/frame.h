/* frame.h - the 40-byte header in front of everything that travels on a lane (docs/WIRE.md).
 *
 * All fields little endian, at the offsets of `struct frame`. A link is named by the number that the *reader* of the
 * frame gave it. A chunk is a run of whole grains of one slot (the slot's last grain may be shorter), so offset and
 * length follow from first_grain, payload_bytes and the link's grain size; nothing else has to be agreed per chunk. */
#ifndef RAIL_LANE_FRAME_H
#define RAIL_LANE_FRAME_H

#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { FRAME_BYTES = 40, FRAME_VERSION = 1, FRAME_CONTROL_BYTES_MAX = 208 };

enum frame_type {
    FRAME_HELLO = 1,  /* first frame of a lane, both ways: struct frame_hello */
    FRAME_OPEN = 2,   /* a sending end exists: struct frame_open; sequence = the sender's number of the link */
    FRAME_ACCEPT = 3, /* link = the sender's number, sequence = the receiver's number, slot_bytes = first credit */
    FRAME_REFUSE = 4, /* link = the sender's number; payload = why, in words */
    FRAME_DATA = 5,   /* a chunk of a slot */
    FRAME_CREDIT = 6, /* credit alone, or none; sequence = frame_question */
    FRAME_CLOSE = 7,  /* an end is gone: sequence = its own number, slot_bytes = low half of the slots it finished */
    FRAME_BYE = 8,    /* the lane is closed in good order; nothing follows */
    /* With FRAME_FEATURE_REPAIR (link/mend.c): */
    FRAME_LANE_DOWN = 9, /* sequence = a lane's index, slot_bytes = turn: its sockets up to that one are closed here */
    FRAME_BITMAPS = 10,  /* link = the sender's number, sequence = slot. No payload: all slots before it have arrived;
                            else a bit per grain of that slot: this has arrived */
    /* With FRAME_FEATURE_ROUTES (link/move.c): */
    FRAME_ASK = 11,     /* accepter: sequence = a lane's index, slot_bytes = its socket's turn: connect one beside it */
    FRAME_OPINION = 12, /* accepter: sequence, slot_bytes as before, of the newcomer; first_grain = frame_opinion */
    /* With FRAME_FEATURE_DIRECT (link/direct.c): */
    FRAME_GRANT = 15,    /* link = the sender's number, sequence = the receiver's number; struct frame_grant: chunks may
                            be written straight into the slots */
    FRAME_WITHDRAW = 16, /* link = the sender's number: no more of that */
    FRAME_RETURN = 17,   /* link = the receiver's number: the grant is given back, nothing more is written with it.
                            slot_bytes 0: sequence = the first slot that nothing was written of; 1: it was never used */
    FRAME_VERBS = 14,   /* before the accepter's HELLO, when the connecter's has FRAME_HELLO_VERBS: struct verbs_record */
    FRAME_LEAVE = 13,   /* this socket is replaced: nothing more goes out on it. The connecter says it first */
};

/* What an accepter thinks of the newcomer beside a lane. */
enum frame_opinion { FRAME_OPINION_BETTER = 1, FRAME_OPINION_INDIFFERENT = 2, FRAME_OPINION_WORSE = 3 };

/* In CREDIT. Whoever does not know of it reads a credit frame, and gives no answer. */
enum frame_question { FRAME_QUESTION_NONE = 0, FRAME_QUESTION_ASKED = 1, FRAME_QUESTION_ANSWERED = 2 };

#define FRAME_FEATURE_ROUTES 1ull /* lanes may be replaced by sockets with other keys */
#define FRAME_FEATURE_REPAIR 2ull /* lanes that die are repaired; control frames are numbered and acknowledged */
#define FRAME_FEATURE_DIRECT 4ull /* over RDMA chunks may be written straight into slots that were granted */
#define FRAME_FEATURE_PROMPT 8ull /* slots may ask for prompt credit */
/* Not a feature but a statement of the connecter's: its earlier sockets of this lane are closed. */
#define FRAME_HELLO_ANEW (1ull << 63)
/* The connecter's: it has an RDMA device on this lane's rail. The accepter's: from here on frames travel by it. */
#define FRAME_HELLO_VERBS (1ull << 62)
/* The connecter's, with the one before: it wants to connect by librdmacm, and can. */
#define FRAME_HELLO_MANAGER (1ull << 61)

/* In flags. DATA over RDMA: the payload was written straight into the slot, nothing follows the header. DATA, with
 * FRAME_FEATURE_PROMPT: credit for the slot is to go at once, in each of its chunks. */
enum { FRAME_DIRECT = 1, FRAME_PROMPT = 2 };

struct frame {
    uint8_t type;
    uint8_t flags;            /* FRAME_DIRECT, FRAME_PROMPT; a reader refuses bits it does not know */
    uint16_t first_grain;     /* DATA: the chunk starts at first_grain x grain_bytes of the slot */
    uint32_t link;            /* the reader's number of the link, 0 = none */
    uint32_t sequence;        /* DATA: low 32 bits of the slot's life-long sequence; generation = sequence / n_slots */
    uint32_t payload_bytes;   /* that follow the header */
    uint32_t slot_bytes;      /* DATA: content of the whole slot */
    uint32_t credit_link;     /* any type: the reader's number of a link that it sends on, 0 = no credit here */
    uint32_t credit_sequence; /* low 32 bits of how many slots of that link were released so far */
    uint32_t number;          /* counts the frames of this lane and direction: a slip of the stream is seen at once */
    uint64_t signature;       /* DATA: travels with the slot, in each of its chunks. Control frames and CREDIT, with
                                 FRAME_FEATURE_REPAIR: frame_control() */
};
static_assert(sizeof(struct frame) == FRAME_BYTES, "the wire header has no padding");
static_assert(offsetof(struct frame, link) == 4 && offsetof(struct frame, payload_bytes) == 12 &&
                  offsetof(struct frame, credit_link) == 20 && offsetof(struct frame, number) == 28 &&
                  offsetof(struct frame, signature) == 32,
              "the wire header is as documented");

/* The place of a control frame in its direction's sequence (of CREDIT: 0), and how many of the other direction's came. */
static inline uint64_t frame_control(uint32_t number, uint32_t received) { return (uint64_t)received << 32 | number; }

/* Payload of HELLO. `to` and `from` are process ids; session counts the connector's sets of lanes to this peer. */
struct frame_hello {
    uint32_t version, rail;
    uint16_t lane, turn; /* turn counts the sockets of a lane; 0 without FRAME_FEATURE_ROUTES */
    uint32_t n_lanes;
    uint8_t from[16], to[16];
    uint64_t features; /* bits both sides have are in force: FRAME_FEATURE_... */
    uint64_t session;
};
static_assert(sizeof(struct frame_hello) == 64, "HELLO has no padding");

/* Payload of OPEN. */
struct frame_open {
    uint64_t comm_key;
    uint32_t from, to, channel, n_slots;
    uint64_t slot_bytes;
    uint32_t grain_bytes, reserved;
};
static_assert(sizeof(struct frame_open) == 40, "OPEN has no padding");

/* Payload of GRANT. Slot s begins at address + (s modulo the link's slots) x (slot_bytes rounded up to 64). Lanes first
 * to first + n - 1 write there with `key`; those that no entry names, through their rings. */
enum { FRAME_GRANT_KEYS = 16 };
struct frame_grant {
    uint64_t address;
    uint32_t n_keys, reserved;
    struct frame_key { uint16_t first, n; uint32_t key; } keys[FRAME_GRANT_KEYS];
};
static_assert(sizeof(struct frame_grant) == 144 && sizeof(struct frame_grant) <= FRAME_CONTROL_BYTES_MAX,
              "GRANT has no padding and is a control frame");

/* On a little-endian machine both compile to a copy. Swapping is its own inverse. */
static inline struct frame frame_swap(struct frame f)
{
    f.first_grain = htole16(f.first_grain);
    f.link = htole32(f.link);
    f.sequence = htole32(f.sequence);
    f.payload_bytes = htole32(f.payload_bytes);
    f.slot_bytes = htole32(f.slot_bytes);
    f.credit_link = htole32(f.credit_link);
    f.credit_sequence = htole32(f.credit_sequence);
    f.number = htole32(f.number);
    f.signature = htole64(f.signature);
    return f;
}

static inline void frame_encode(uint8_t out[FRAME_BYTES], const struct frame *f)
{
    struct frame wire = frame_swap(*f);
    memcpy(out, &wire, FRAME_BYTES);
}

static inline void frame_decode(struct frame *f, const uint8_t in[FRAME_BYTES])
{
    memcpy(f, in, FRAME_BYTES);
    *f = frame_swap(*f);
}

static inline struct frame_hello frame_hello_swap(struct frame_hello h)
{
    h.version = htole32(h.version);
    h.rail = htole32(h.rail);
    h.lane = htole16(h.lane);
    h.turn = htole16(h.turn);
    h.n_lanes = htole32(h.n_lanes);
    h.features = htole64(h.features);
    h.session = htole64(h.session);
    return h;
}

static inline struct frame_open frame_open_swap(struct frame_open o)
{
    o.comm_key = htole64(o.comm_key);
    o.from = htole32(o.from);
    o.to = htole32(o.to);
    o.channel = htole32(o.channel);
    o.n_slots = htole32(o.n_slots);
    o.slot_bytes = htole64(o.slot_bytes);
    o.grain_bytes = htole32(o.grain_bytes);
    o.reserved = 0;
    return o;
}

static inline struct frame_grant frame_grant_swap(struct frame_grant g)
{
    g.address = htole64(g.address);
    g.n_keys = htole32(g.n_keys);
    g.reserved = 0;
    for (int i = 0; i < FRAME_GRANT_KEYS; i++) {
        g.keys[i].first = htole16(g.keys[i].first);
        g.keys[i].n = htole16(g.keys[i].n);
        g.keys[i].key = htole32(g.keys[i].key);
    }
    return g;
}

#endif
