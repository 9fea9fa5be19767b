/* segment.h - the memory that the ranks of one node share for one communicator: one sealed memfd, made by the node's
 * leader, mapped once per process.
 *
 *   header | control block of peer 0 .. n-1 | express lines of peer 0 .. n-1 | rounds, by channel and peer
 *          | link places of peer 0 .. n-1 | windows of peer 0 .. n-1, by channel | slots | signals | lines of peer 0 .. n-1
 *
 * Every word has one writer, named below; what is written by different ranks never shares a cache line. The segment is
 * sparse: memory is used when it is touched. */
#ifndef RAIL_TRANSPORT_SHM_SEGMENT_H
#define RAIL_TRANSPORT_SHM_SEGMENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/result.h"
#include "transport/link.h"

enum {
    SHM_LINE = 64,           /* cache line of every CPU we build for */
    SHM_COUNTERS = 4,        /* monotonic counters per rank, a line each */
    SHM_DEPTH = 2,           /* windows and exposures alternate */
    SHM_EXPRESS_DEPTH = 32,  /* express messages of a rank that may be on their way: a power of two. The more, the fewer
                                switches where ranks outnumber cores (Broadcast of 64 B, 4 ranks on 2: 16 0.41 us, 32
                                0.25); and so few that what a rank is ahead by is still among SHM_CALLS */
    SHM_CALLS = 62,          /* calls remembered per rank, the present one included: as far as one may be ahead and still
                                be compared */
    SHM_EXPRESS_LINE = 48 + SHM_LINE, /* bytes beside a flag in a cache line, and in the next, which CPUs fetch with it */
    SHM_EXPRESS_BYTES = 4096,/* of a message that does not fit there */
    SHM_MAX_PEERS = 1024,
    SHM_MAX_SLOTS = 16,
    SHM_PLACES = 16 * 21,    /* links into one rank for whatever root: 16 channels, on each at most a ring's 1, a tree's 3, a
                                hierarchy's 3 (or a rank tree's 5 in place of both), and 8 and 6 of the two doublings */
    SHM_CONTEXTS = 16,       /* of one-sided operations: at most so many, */
    SHM_SIGNAL_INDICES = 16, /* with so many signals each */
    SHM_SIGNALS = SHM_CONTEXTS * SHM_SIGNAL_INDICES,
    SHM_ROOTED_CHANNELS = 2, /* channels on which any peer may have a link to any other: trees, as the root moves */
};

/* A rank at its door, written by it. All ranks of a node sleep on one word, the header's bell: what all wait for, a rank that
 * comes late above all, wakes them with one call of the kernel's, which takes 10 us where one each took 60 for seven. One rank
 * alone is rung for by its bit. */
struct doorbell {
    _Alignas(SHM_LINE) _Atomic uint32_t sleeping;
    _Atomic uint32_t core; /* where its rank was when it had last waited for some microseconds; number + 1 */
};

struct shm_counter {
    _Alignas(SHM_LINE) _Atomic uint64_t value;
};

/* What the owner tells its peers about its buffers in one window round; written before STAGED is signalled. */
struct shm_exposure {
    _Alignas(SHM_LINE) uint64_t input; /* addresses, or offsets in the windows named below */
    uint64_t output;
    uint64_t signature;                        /* of the call */
    uint32_t direct;                           /* enum shm_exposed */
    uint32_t input_window, output_window;      /* registered ones (core/window.h), by number */
};

/* How peers get at a rank's buffers: not at all, it copies what they need into its window of the segment; by address, for they
 * are in its process; in memory that it registered and that all of the node have mapped; to read alone, by the kernel. */
enum shm_exposed { SHM_STAGED, SHM_BY_ADDRESS, SHM_BY_WINDOW, SHM_BY_KERNEL };

/* What a rank tells its peers about the rounds of one channel's windows. */
struct shm_rounds {
    struct shm_counter counter[SHM_COUNTERS];
    struct shm_exposure exposure[SHM_DEPTH];
};

/* The flag of a small message, with its data beside it, or with nothing where there is none or it needs more room. */
struct shm_express_line {
    _Alignas(2 * SHM_LINE) _Atomic uint64_t sequence; /* round + 1, written last */
    _Atomic uint64_t history;                     /* of the calls so far (calls.h) */
    unsigned char data[SHM_EXPRESS_LINE];
};

/* A rank's small messages: that of round r at r modulo the depth. Flags stand together, so that calls of a few bytes stay in
 * one page; bodies have a line between them, or they would all begin in the same set of a cache. */
struct shm_express {
    struct shm_express_line line[SHM_EXPRESS_DEPTH];
    struct { _Alignas(SHM_LINE) unsigned char data[SHM_EXPRESS_BYTES + SHM_LINE]; } body[SHM_EXPRESS_DEPTH];
};

/* What the owner called last, for peers that wait in vain (engine/calls.h). */
struct shm_calls {
    _Alignas(SHM_LINE) _Atomic uint64_t number; /* of the call begun last; the first is 1 */
    _Atomic uint64_t closed;                    /* 0, or calls made + 1: no more will come */
    _Atomic uint64_t left_ns;                   /* when it left the call begun last; 0: it is inside */
    _Atomic uint64_t signature[SHM_CALLS];      /* of the call with that number, modulo */
};

/* Written by the peer it belongs to. */
struct shm_control {
    struct doorbell door;
    struct shm_calls calls;
    _Alignas(SHM_LINE) _Atomic uint32_t touching; /* the owner is at a peer's buffer, by its address */
};

struct shm_slot_meta {
    uint64_t bytes, signature;
};

/* One link into a peer. key, set and released: the receiver's; published and meta: the sender's, and the first slots' in one line,
 * so that who waits for a small message gets both at once. Links of pairs have places of their own, by channel and sender, and
 * need no key. */
struct shm_place {
    _Alignas(SHM_LINE) _Atomic uint64_t key; /* 0 = free, else shm_link_key() */
    uint64_t set;                            /* the receiver's slots for it (shm_set_of); written before key */
    _Alignas(SHM_LINE) _Atomic uint64_t published;
    uint64_t unused;
    struct shm_slot_meta meta[SHM_MAX_SLOTS];
    _Alignas(SHM_LINE) _Atomic uint64_t released;
};

/* Everything that fixes the layout; the same on all ranks of the node. */
struct shm_geometry {
    uint32_t n_peers;
    uint32_t n_slots;     /* 2 .. SHM_MAX_SLOTS */
    size_t window_bytes;  /* 0: no windows; else a multiple of SHM_LINE */
    size_t slot_bytes;    /* a multiple of SHM_LINE */
    size_t window_channels; /* channels that have windows of their own, >= 1 */
    uint32_t n_sets;        /* links into one rank that can have slots; 0: all places (the segment is sparse). Where a GPU
                               takes part every page is pinned, and few are to be had */
    uint32_t express;       /* 1: every peer has express lines; 0: none has */
    uint32_t small_bytes;   /* the most of a block that GPUs give one another in lines (engine/kernel_express.h); 0: no lines */
    uint32_t reserved;      /* no padding: geometries are compared as bytes */
};

/* Places that links take as they are opened. */
static inline uint32_t shm_places_taken(const struct shm_geometry *g)
{
    return SHM_PLACES + SHM_ROOTED_CHANNELS * (g->n_peers - 1);
}

static inline uint32_t shm_places(const struct shm_geometry *g)
{
    return shm_places_taken(g) + LINK_PAIR_CHANNELS * g->n_peers;
}

/* Each link's slots are a set; pairs' sets stand first. */
static inline uint32_t shm_sets(const struct shm_geometry *g) { return g->n_sets ? g->n_sets : shm_places(g); }

/* The set of place `index` of a peer; >= shm_sets: it has none. */
static inline uint32_t shm_set_of(const struct shm_geometry *g, uint32_t index)
{
    uint32_t taken = shm_places_taken(g);
    return index < taken ? LINK_PAIR_CHANNELS * g->n_peers + index : index - taken;
}

/* GPUs' lines are words of a flag and data, the first for a signature: in whole cache lines, SHM_DEPTH of them for every
 * peer, from every peer. */
enum { SHM_WORD = 8, SHM_WORD_DATA = 4, SHM_WORDS_BEFORE = 2 };

static inline uint32_t shm_line_words(const struct shm_geometry *g)
{
    uint32_t words = SHM_WORDS_BEFORE + (g->small_bytes + SHM_WORD_DATA - 1) / SHM_WORD_DATA, whole = SHM_LINE / SHM_WORD;
    return g->small_bytes ? (words + whole - 1) / whole * whole : 0;
}

static inline size_t shm_lines_bytes(const struct shm_geometry *g)
{
    return (size_t)g->n_peers * SHM_DEPTH * shm_line_words(g) * SHM_WORD;
}

struct shm_header {
    _Alignas(SHM_LINE) uint64_t magic;
    struct shm_geometry geometry;
    _Alignas(SHM_LINE) _Atomic uint32_t sleepers; /* how many doorbells have sleeping set: lets a signal skip looking */
    _Alignas(SHM_LINE) _Atomic uint32_t bell;      /* counts the rings, whoever they are for */
    _Alignas(SHM_LINE) _Atomic uint32_t withdrawn; /* a rank that failed has its buffers back: nobody touches a peer's */
    _Alignas(SHM_LINE) _Atomic uint32_t lines_end; /* a rank on a GPU has closed: its lines may be gone */
};

/* One rank's view. Read-only after shm_segment_open. */
struct shm_segment {
    struct shm_geometry geometry;
    struct shm_header *header;
    struct shm_control *controls;
    struct shm_express *express; /* [n_peers], where there are any */
    struct shm_rounds *rounds; /* [window_channels][n_peers] */
    struct shm_place *places; /* [n_peers][shm_places()] */
    unsigned char *windows;   /* [n_peers][window_channels][2 (in, out)][SHM_DEPTH][window_bytes] */
    unsigned char *slots;     /* [n_peers][shm_sets()][n_slots][slot_bytes] */
    _Atomic uint64_t *signals;/* [n_peers (target)][n_peers (source)][SHM_SIGNALS], counted up by the source, or for it */
    unsigned char *lines;     /* [n_peers (reader)][shm_lines_bytes] */
    struct shm_mapping *mapping;
};

struct shm_request {
    uint8_t key[32];           /* secret of this node's segment: names the meeting point */
    struct shm_geometry geometry;
    bool leader;               /* makes the segment and hands it to the other processes */
    bool first_of_process;     /* takes it for its process; the other ranks of the process wait for that */
    uint32_t n_processes;      /* in the node */
    struct rail_deadline deadline;
    const _Atomic uint32_t *stop;
};

enum rail_result shm_segment_open(const struct shm_request *request, struct shm_segment *out);
/* One more user of an open segment; to be closed, too. */
struct shm_segment shm_segment_hold(const struct shm_segment *segment);
/* Accepts a half-opened (zeroed) segment. The memory goes with the last user. */
void shm_segment_close(struct shm_segment *segment);
/* Gives the memory of a peer's windows, and of the slots of the links into it unless messages wait there, back to the
 * system; it reads as zero afterwards and is taken again when it is touched. While nobody uses them. */
void shm_segment_trim(const struct shm_segment *segment, uint32_t peer);
/* Memory that is there for one peer: its windows and the slots of the links into it; and its share of what stays. A page
 * that two peers share counts for both. */
size_t shm_segment_resident(const struct shm_segment *segment, uint32_t peer);
size_t shm_segment_resident_control(const struct shm_segment *segment, uint32_t peer);
size_t shm_segment_bytes(const struct shm_geometry *geometry);

enum shm_window { SHM_WINDOW_IN, SHM_WINDOW_OUT };

static inline unsigned char *shm_slots_of(const struct shm_segment *s, uint32_t peer, uint32_t index)
{
    const struct shm_geometry *g = &s->geometry;
    return s->slots + ((size_t)peer * shm_sets(g) + shm_set_of(g, index)) * g->n_slots * g->slot_bytes;
}

static inline unsigned char *shm_window_at(const struct shm_segment *s, uint32_t peer, uint32_t channel,
                                           enum shm_window which, uint64_t round)
{
    size_t index = (((size_t)peer * s->geometry.window_channels + channel) * 2 + which) * SHM_DEPTH;
    return s->windows + (index + (size_t)(round % SHM_DEPTH)) * s->geometry.window_bytes;
}

static inline struct shm_rounds *shm_rounds_of(const struct shm_segment *s, uint32_t peer, uint32_t channel)
{
    return &s->rounds[(size_t)channel * s->geometry.n_peers + peer];
}

static inline _Atomic uint64_t *shm_signals_at(const struct shm_segment *s, uint32_t target, uint32_t source)
{
    return s->signals + ((size_t)target * s->geometry.n_peers + source) * SHM_SIGNALS;
}

/* Where one peer, or with 32 and more ranks of a node a few, can be woken alone. */
static inline uint32_t shm_bell_bit(uint32_t peer) { return 1u << peer % 32; }

/* Wakes one peer if it sleeps. Call after the release store that it waits for. */
void shm_ring(const struct shm_segment *segment, uint32_t peer);

/* Who publishes stores first and looks at `sleeping` then; who goes to sleep sets `sleeping` and looks at the stored word once
 * more (Dekker). No fence stands between the store and the look: it would wait for the line that was stored to, a third of
 * what a small message takes. The look may thus come before the store is seen, by as long as a store waits in its core: far
 * below a microsecond, and no longer than to the next interrupt. The sleeper, whose side is the rare one, makes up for it: its
 * first sleep is a short one, and it looks again after it (wait.c). */
static inline void shm_notify(const struct shm_segment *segment, uint32_t peer)
{
    atomic_signal_fence(memory_order_seq_cst); /* the compiler keeps the order all the same */
    if (__builtin_expect(atomic_load_explicit(&segment->controls[peer].door.sleeping, memory_order_relaxed) != 0, 0))
        shm_ring(segment, peer);
}

/* After a store that any peer may wait for. */
void shm_ring_all(const struct shm_segment *segment);
static inline void shm_notify_all(const struct shm_segment *segment)
{
    atomic_signal_fence(memory_order_seq_cst);
    if (__builtin_expect(atomic_load_explicit(&segment->header->sleepers, memory_order_relaxed) != 0, 0))
        shm_ring_all(segment);
}

#endif
