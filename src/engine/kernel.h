/* kernel.h - what the interpreter kernel is told, and what it says: the plain data that host and GPU share.
 *
 *     struct kernel_call      the arguments of one launch, by value (graph replay repeats them)
 *     struct kernel_node      a communicator at one rank: life-long counters, advanced by the kernel alone
 *     struct kernel_link      one end of a link: an address of its place, of its slots, and how far it has come
 *     struct kernel_report    pinned host memory: what the kernel has begun, finished, and found wrong
 *
 * A GPU rank takes part in the protocol of the node's segment (transport/shm/segment.h) exactly as a host rank does: the
 * same places, counters, exposures, windows. The segment is pinned, so that both see it, and links over the network go
 * through a pair of such places that a thread of the host moves on. The kernel knows no other kind of link.
 *
 * Addresses are the GPU's (64 bits, unified addressing). Freestanding, as plan.h: no pointers to functions. Every
 * word has one writer; blocks of one launch meet at a few words of struct kernel_node, which no one else writes. */
#ifndef RAIL_ENGINE_KERNEL_H
#define RAIL_ENGINE_KERNEL_H

#include "plan/plan.h"
#include "plan/ranges.h"

enum {
    KERNEL_MAX_CHANNELS = 16, /* HOST_MAX_CHANNELS */
    KERNEL_THREADS = 512,     /* of a block: 16 bytes each are 8 KiB in flight per load, four loads are 32 KiB */
    KERNEL_SHARED_BYTES = 8 << 10, /* dynamic shared memory of a launch: the call, a plan, what one MOVE touches */
    KERNEL_BLOCK_FLOWS = 256, /* flows of messages that one block can look after: n_flows <= n_blocks times this */
    KERNEL_DEPTH = 2,         /* SHM_DEPTH */
    KERNEL_CALLS = 62,        /* SHM_CALLS */
    KERNEL_EXPRESS_RANKS = 8, /* of one node, all on GPUs: each stores to and reads from all others */
};

/* Small collectives (kernel_express.h): words of 8 bytes, the lower four of which are data and the upper four the flag. */
enum {
    KERNEL_EXPRESS_WORD = 8,
    KERNEL_EXPRESS_DATA = 4,  /* bytes of it that are data */
    KERNEL_EXPRESS_HEAD = 2,  /* words before the data: the call's signature */
};

/* Layout of the segment in bytes; engine/cuda.c asserts that it is segment.h's. */
enum {
    KERNEL_LINE = 64,
    KERNEL_PLACE_BYTES = 192 + 16 * 16,
    KERNEL_PLACE_KEY = 0,         /* u64, the receiver's: whose place it is; written after the next */
    KERNEL_PLACE_SET = 8,         /* u64, the receiver's: which slots are its own */
    KERNEL_PLACE_PUBLISHED = 64,  /* u64, the sender's */
    KERNEL_PLACE_META = 80,       /* [n_slots] {u64 bytes, u64 signature}, the sender's */
    KERNEL_PLACE_RELEASED = 384,  /* u64, the receiver's */

    KERNEL_ROUNDS_BYTES = 4 * 64 + KERNEL_DEPTH * 64,
    KERNEL_ROUNDS_COUNTER = 0,    /* [4] u64, a line each */
    KERNEL_ROUNDS_EXPOSURE = 256, /* [KERNEL_DEPTH] {u64 input, u64 output, u64 signature, u32 direct}, a line each */

    /* Of a peer's shm_calls. */
    KERNEL_CALLS_NUMBER = 0,      /* u64 */
    KERNEL_CALLS_LEFT_NS = 16,    /* u64: 0 while it is inside */
    KERNEL_CALLS_SIGNATURE = 24,  /* [KERNEL_CALLS] u64 */
};

/* One end of a link. Written by the host before the first launch that uses it, then by the kernel alone. */
struct kernel_link {
    uint64_t place;      /* address of the place; 0: the sender has yet to find it by its key */
    uint64_t slots;      /* address of slot 0, if `place` is known */
    uint64_t sequence;   /* the next slot to acquire (sender) or to wait for (receiver), life-long */
    uint64_t key;        /* what the receiver writes into the key of the place that it takes */
    uint64_t places;     /* where to look: the receiver's places, */
    uint64_t slots_base; /* and the slots of its set s at slots_base + s * n_slots * slot_bytes */
    uint32_t n_places;
    uint32_t n_slots;
    uint32_t slot_bytes;
    uint32_t from, to;   /* ranks: for reports */
    uint32_t reserved;
};

/* Written by the kernel (host memory, pinned); read by the host. */
enum kernel_trouble {
    KERNEL_FINE,
    KERNEL_SIGNATURE_LINK,   /* slot of `link` has signature `theirs`, mine is `mine` */
    KERNEL_SIGNATURE_PEER,   /* exposure, or words, of node peer `who` have signature `theirs` */
    KERNEL_SIGNATURE_MESSAGE,/* piece of `link` belongs to message `theirs`; expected `mine`; `count` finished before it */
    KERNEL_BYTES,            /* slot of `link` holds `theirs` bytes, the plan expects `mine` */
    KERNEL_PLAN,             /* a plan that this kernel cannot run; `theirs` says the step */
};

struct kernel_report {
    uint64_t begun;          /* launches: first block of each counts */
    uint64_t finished;       /* launches whose blocks have all ended, in trouble or not */
    uint64_t ended;          /* `number` of the last of those that had one; written after `finished` */
    uint64_t moved;          /* steps and pieces so far, roughly: whether anything happens (blocks write now and then) */
    uint32_t trouble;        /* enum kernel_trouble; written last (release); the first to find some writes it */
    uint32_t who;
    uint32_t link_from, link_to;
    uint64_t theirs, mine, count;
};

/* A communicator at one rank, in memory of the device. The host writes it once, at init. */
struct kernel_node {
    uint64_t stop;           /* address of a pinned u32: not 0 = give up, everybody */
    uint64_t report;         /* address of a pinned struct kernel_report */
    uint64_t calls;          /* address of my shm_calls in the segment */
    uint64_t rounds;         /* of shm_rounds: [window_channels][n_peers] */
    uint64_t windows;        /* of u64 [n_peers]: base of each peer's windows, as shm_window_at lays them out from there */
    uint64_t window_bytes;
    uint32_t n_peers, self;
    uint32_t window_channels;
    uint32_t rank;

    /* Small collectives; 0 where there are none. */
    uint64_t lines[KERNEL_EXPRESS_RANKS]; /* address of each peer's: [n_peers (who writes)][KERNEL_DEPTH][line_words] words */
    uint32_t ranks[KERNEL_EXPRESS_RANKS]; /* of the peers */
    uint64_t staging;                     /* of my device: [2 (others', my own scaled)][n_peers][staging_bytes] */
    uint32_t line_words;                  /* KERNEL_EXPRESS_HEAD, and a block of data */
    uint32_t staging_bytes;               /* a block's, and a multiple of 16 */

    /* Advanced by the kernel. */
    uint64_t window_round[KERNEL_MAX_CHANNELS]; /* W */
    uint64_t call_number;                       /* calls begun so far */
    uint64_t express;                           /* small collectives so far */
    uint64_t launches;                          /* ended so far: what the report's counts are made of */
    uint64_t moved;
    uint32_t blocks_done;                       /* of the launch that runs: the last one ends it */
    uint32_t failed;                            /* some block found trouble: the others stop, too */
};

/* One channel of a launch. */
struct kernel_channel {
    uint64_t plan;               /* address of its struct plan */
    uint64_t links;              /* address of u64 [plan.n_links]: addresses of struct kernel_link */
    uint32_t first_block;        /* blocks first_block .. first_block + n_strands - 1 run its strands, in order */
    uint32_t n_strands;          /* the plan's */
};

/* KERNEL_COPY: of one rank, n_inputs buffers into one, any number of blocks. */
enum kernel_work { KERNEL_COLLECTIVE, KERNEL_MESSAGES, KERNEL_COPY, KERNEL_EXPRESS };

/* One message between two ranks, or a copy to oneself. */
struct kernel_message {
    uint64_t buffer;    /* read when it is sent */
    uint64_t bytes;
    uint64_t signature;
};

/* Messages on one link, in posting order. */
struct kernel_flow {
    uint64_t link;      /* address of a struct kernel_link; 0: to oneself, messages 2k and 2k + 1 are source and destination */
    uint32_t first, n;  /* in the call's messages */
    uint32_t receives;  /* else it sends */
    uint32_t reserved;
    uint64_t finished;  /* messages of this flow over the life of the link: for reports; the host's */
};

/* How values are combined: struct rail_combine (device/host.h) in plain words. */
struct kernel_combine {
    uint32_t type, op;  /* enum rail_type, enum rail_op */
    uint32_t scaled;
    uint32_t reserved;
    uint64_t scale;     /* bits of the scalar in the element type (low bytes first); or, with scale_at, not used */
    uint64_t scale_at;  /* 0, or the address of the scalar in memory of the device (ncclScalarDevice), read by the kernel */
    uint64_t divide;    /* 0 or 1: none */
};

/* The arguments of a launch: one block per (channel, strand) for collectives, one for small ones; any number of blocks for
 * messages (flow f is block f modulo n_blocks's, so all flows of all blocks progress side by side) and copies. */
struct kernel_call {
    uint64_t node;               /* address of struct kernel_node */
    uint32_t work;               /* enum kernel_work */
    uint32_t n_blocks;           /* of the grid */
    uint64_t number;             /* 1, 2 ... of launches that run once; 0: of a graph, which may run again */
    uint64_t input, output;
    struct kernel_combine how;
    struct plan_split split;
    uint64_t order;              /* address of u32 [n_ranks], as plan_blocks.order; 0 where no buffer has several blocks */
    uint32_t input_blocks, output_blocks;
    uint64_t scratch;            /* memory of the device */
    uint64_t scratch_piece_bytes;
    uint64_t signature;
    uint32_t direct;             /* peers may use input and output by address */
    uint32_t counts;             /* this launch is a call of its communicator: block 0 numbers it in the segment */
    uint64_t flows;              /* KERNEL_MESSAGES: address of struct kernel_flow [n_flows] */
    uint64_t messages;           /* address of struct kernel_message [] */
    uint64_t inputs_apart;       /* KERNEL_COPY: bytes from one input to the next */
    uint32_t n_inputs;           /* KERNEL_COPY: inputs that are combined into output; 0 is one, at most RAIL_COMBINE_MAX */
    uint32_t n_flows;
    uint64_t stop;               /* KERNEL_EXPRESS: the node's, told here so that it is read at once */
    uint32_t collective, root;   /* KERNEL_EXPRESS: enum plan_collective; the blocks have split.count elements */
    uint32_t balanced;           /* KERNEL_EXPRESS */
    uint32_t n_channels;         /* the last but for the channels, which nobody reads where there are none */
    struct kernel_channel channels[KERNEL_MAX_CHANNELS];
};

PLAN_ASSERT(sizeof(struct kernel_call) <= 1024, "arguments of a launch stay small");
PLAN_ASSERT(sizeof(struct kernel_link) == 72, "layout is shared with the GPU");

/* The kernel's name in its image: void rail_interpret(struct kernel_call), KERNEL_THREADS threads a block at most. */
#define KERNEL_NAME "rail_interpret"

#endif
