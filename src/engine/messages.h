/* messages.h - messages between pairs of ranks: bytes of a buffer here into a buffer there, moved through links by a
 * state machine that never blocks and never allocates.
 *
 *     flow        what goes to one peer, or comes from it: a link and the messages on it, in posting order
 *     busy flows  those that have messages left, in the order in which they were begun
 *
 * A message is cut into pieces, one per slot, by a rule that both ends know; no bytes are one empty piece. Every piece
 * carries the message's signature (type and count, hence bytes): a receiver that expects another learns of it at the
 * first. A message is finished here when its last byte is in a slot (sending) or in its buffer (receiving).
 *
 * Inside a host a message of `offer_least` bytes and more is not copied twice: the sender offers its address in a slot, the
 * receiver copies from there and releases the slot, and the send is finished then. A receiver of another process has the kernel
 * copy (peer_memory.h); where it may not it refuses, and that sender offers nothing on that link any more. A sender that gives
 * up first (a failure, an abort) withdraws the offer. While a receiver of its process is reading it waits, for a piece's
 * copying at most; one of another process finds out at the end, and drops what it has read.
 *
 * Over the network a message of `lend_least` bytes and more that lies in known memory (transport/link.h, lending) is not copied
 * here: it is finished when the receiver has taken it. A sender that gives up recalls what it has lent.
 *
 * No deadlock: whatever order flows were begun in, the first `ahead` of each direction progress side by side. With all
 * of them (UINT32_MAX) any posting order works in which the messages of every pair of ranks match; with fewer, ranks must
 * begin flows in an order of which algos/pairwise.h shows that it cannot block.
 *
 * Used by the thread that runs the communicator. */
#ifndef RAIL_ENGINE_MESSAGES_H
#define RAIL_ENGINE_MESSAGES_H

#include "engine/host.h"
#include "transport/shm/peer_memory.h"

enum message_direction { MESSAGE_SEND, MESSAGE_RECEIVE, MESSAGE_DIRECTIONS };

struct message {
    struct message *next;
    unsigned char *buffer; /* the caller's; of a message that is sent only read */
    uint64_t bytes;
    uint64_t signature;
};

struct message_offer;

/* How a receiver of the sender's node gets at what is offered. */
enum messages_offers { MESSAGES_NO_OFFERS, MESSAGES_BY_ADDRESS /* one process */, MESSAGES_BY_KERNEL /* several */ };

struct message_flow {
    struct link *link;      /* set by the owner before the flow's first message; not ours to close */
    struct message *first, *last;
    uint64_t done_bytes;    /* of the first */
    uint64_t finished;      /* messages, over the life of the link */
    struct message_offer *offer; /* of the first, which is sent by its address and was not taken yet; in a slot */
    bool lent;              /* some of what was sent since it became busy is, and is not settled; */
    bool settling;          /* all is published, and it waits for that */
    bool refused;           /* the receiver cannot read our memory */
};

struct messages {
    const struct host_node *node;
    uint32_t rank, n_ranks;
    enum messages_offers offers;
    uint64_t offer_least;         /* bytes; the owner's, between two messages */
    uint64_t lend_least;          /* likewise */
    uint8_t cookie[PEER_COOKIE_BYTES]; /* tells a reader that this is us */
    uint32_t ahead;               /* busy flows of each direction that progress side by side */
    struct message_flow *flows;   /* [MESSAGE_DIRECTIONS][n_ranks] */
    uint32_t *busy;               /* [MESSAGE_DIRECTIONS][n_ranks] peers */
    uint32_t n_busy[MESSAGE_DIRECTIONS];
    uint64_t moved;               /* pieces so far: whether anything happened between two looks */
};

/* RAIL_E_SYSTEM: out of memory, and *out is as messages_close leaves it. */
enum rail_result messages_open(struct messages *out, const struct host_node *node, uint32_t rank, uint32_t n_ranks,
                               uint32_t ahead, enum messages_offers offers);
/* Accepts one that was never opened (zeroed). */
void messages_close(struct messages *m);

static inline struct message_flow *messages_flow(const struct messages *m, enum message_direction d, uint32_t peer)
{
    return &m->flows[(size_t)d * m->n_ranks + peer];
}

/* Appends to a flow that is not busy yet, or still: the message stays the caller's and must live until finished. */
void messages_append(struct messages *m, enum message_direction direction, uint32_t peer, struct message *message);
/* Makes the flow busy if it has messages. */
void messages_begin(struct messages *m, enum message_direction direction, uint32_t peer);

/* RAIL_OK: nothing is left. RAIL_NOT_YET: blocked on peers. Else the error: of a link; or RAIL_E_USAGE with both ranks'
 * calls in words when a peer's message is another than ours. */
enum rail_result messages_progress(struct messages *m);

/* For who has waited for long: RAIL_E_REMOTE when a peer that something is expected of has closed its communicator. Of
 * a peer of my node its line in the segment says so. Of another its answer to OPEN does, but a receiving end opens
 * nothing: so there the flow to that peer is asked, for which the owner has set a link. */
enum rail_result messages_suspect(struct messages *m);

/* Forgets whatever is left, after a failure. */
void messages_drop(struct messages *m);

/* RAIL_E_USAGE with both calls in words: message `number` from `from` is `theirs`, `mine` was expected by `rank`. */
enum rail_result messages_differ(uint32_t rank, uint32_t from, uint64_t theirs, uint64_t mine, uint64_t number);

/* "ncclRecv of 100 float32 from rank 3" */
void message_describe(enum message_direction direction, uint32_t peer, uint64_t signature, char *out, size_t bytes);

#endif
