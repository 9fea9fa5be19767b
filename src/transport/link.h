/* link.h - a link: the logical, reliable, ordered, one-way connection from one rank to another; a ring of slots.
 *
 * The sender acquires the next slot (credit permitting), fills it, publishes it; the receiver waits for the next slot,
 * reads it, releases it, and the release returns as credit. Slot sequence numbers run for the life of the link. A
 * slot's memory is its own retention: it is not reused before credit returns.
 *
 * Each end is used by one thread at a time (the one that runs the communicator). Nothing here blocks. */
#ifndef RAIL_TRANSPORT_LINK_H
#define RAIL_TRANSPORT_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"

struct link;

/* Channels beyond those of plans: links that any two ranks may open, one of each kind per pair and direction. */
enum {
    LINK_CHANNEL_PAIRS = 1 << 16,
    LINK_CHANNEL_P2P = LINK_CHANNEL_PAIRS, /* what ncclSend sends */
    LINK_CHANNEL_ALLTOALL,
    LINK_PAIR_CHANNELS = 2,
};

/* Sending from memory of the program's that is known (net.h), without a copy into the slot. For the sender's owner. */
struct link_lending {
    /* Whether that many bytes are worth it, and may go that way now. A guess. */
    bool (*lends)(struct link *link, size_t bytes);
    /* Instead of publish: the acquired slot's content lies at `at`, and stays there as it is until it is settled. `last`: nothing may
     * come behind it, so its credit is to come at once. False: nothing has happened (the memory is not known, any more); fill the
     * slot, and publish. */
    bool (*lend)(struct link *link, const void *at, size_t bytes, uint64_t signature, bool last);
    /* RAIL_OK: all that was lent is the program's again. RAIL_NOT_YET, or the link's error: then recall. */
    enum rail_result (*settled)(struct link *link);
    /* Who gives up: what is lent is copied into its slots, and goes on from there; no CPU reads it any more when this returns, nor a
     * device, unless one hangs. Microseconds where nothing is lent, else a round trip; where a device is silent until some 2 s after
     * began_ns, when the first of several links was recalled. */
    void (*recall)(struct link *link, uint64_t began_ns);
};

struct link_ops {
    const char *name; /* "shm", "tcp" */
    /* Sender: RAIL_OK and the next slot's memory (slot_bytes, 64-byte aligned), RAIL_NOT_YET without credit or while
     * the far end is still connecting, or the link's error. Asking again without publishing gives the same slot. */
    enum rail_result (*acquire)(struct link *link, void **slot);
    /* Sender: the acquired slot holds `bytes` (<= slot_bytes, 0 is real) and goes out. `signature` travels with it.
     * Wakes a sleeping receiver. */
    void (*publish)(struct link *link, size_t bytes, uint64_t signature);
    /* Receiver: RAIL_OK and the next slot, complete, RAIL_NOT_YET, or the link's error. Asking again without releasing
     * gives the same slot. */
    enum rail_result (*wait)(struct link *link, const void **slot, size_t *bytes, uint64_t *signature);
    /* Receiver: the slot is free again; credit returns (a transport may hold it back to send several together, but
     * never more than half of the slots, and never longer than a few milliseconds). Wakes a sleeping sender. */
    void (*release)(struct link *link);
    /* Sender: everything published has been credited. */
    bool (*drained)(struct link *link);
    /* This end has nothing under way in either direction: gives the memory of its slots back to the system, which is
     * taken again when it is touched. NULL: the slots lie in the node's segment (shm_segment_trim). */
    void (*trim)(struct link *link);
    /* Bytes of memory that trim would give back now. NULL as above. */
    size_t (*resident)(const struct link *link);
    const struct link_lending *lending; /* NULL: everything is copied */
    /* Frees this end. Never blocks; unsent data of a sender that was not drained is dropped. */
    void (*close)(struct link *link);
};

/* Common head of every transport's link. */
struct link {
    const struct link_ops *ops;
    uint32_t from, to; /* ranks of the communicator */
    uint32_t channel;
    uint32_t n_slots;  /* >= PLAN_SLOTS_GUARANTEED */
    size_t slot_bytes;
    uint64_t sequence; /* the next slot to acquire (sender) or to wait for (receiver), life-long */
};

#endif
