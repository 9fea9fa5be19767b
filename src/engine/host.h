/* host.h - the host engine: runs one rank's plans over host memory as a cooperative state machine.
 *
 * host_op_progress() never blocks and may be called again at any time; one thread can drive any number of operations
 * of any number of ranks. Nothing here allocates or locks. */
#ifndef RAIL_ENGINE_HOST_H
#define RAIL_ENGINE_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/result.h"
#include "device/host.h"
#include "plan/plan.h"
#include "plan/ranges.h"
#include "transport/link.h"
#include "transport/shm/peer_memory.h"
#include "transport/shm/segment.h"

enum { HOST_MAX_CHANNELS = 16, HOST_MAX_RUNS = HOST_MAX_CHANNELS * 3 };

/* What is read of other processes to be combined, at a time: it stays in L2, and a system call is worth some KiB. */
enum { HOST_BENCH_BYTES = 128 << 10 };

/* A plan and the links it names, in the plan's order. Owned by the communicator. */
struct instance {
    struct plan plan;
    struct link *links[PLAN_MAX_LINKS];
    struct { uint64_t plan, links; } on_gpu; /* addresses of their copies there (gpu_life.c); 0: none yet */
};

/* Memory of every peer of the node that was registered under one number and is mapped here: at[peer]; NULL: that peer
 * has none. */
struct host_shared {
    uint32_t number;
    unsigned char **at;
};
struct host_shares {
    struct host_shared *of;
    uint32_t n;
    uint64_t near; /* peers of my process, a bit each: what they hold of mine goes when I free it */
};

/* This rank's place among the ranks of its node. */
struct host_node {
    struct shm_segment segment;
    uint32_t self;          /* my index; the segment has geometry.n_peers of them */
    const uint32_t *ranks;  /* rank of each peer, for messages */
    uint64_t window_round[HOST_MAX_CHANNELS]; /* rounds of all window plans so far, by channel: the counters' W */
    struct {                /* of the express path (express.h) */
        uint64_t round;     /* messages so far */
        uint64_t through;   /* all peers are through with so many, as far as I know */
        uint64_t given;     /* 1 + the last one that I gave data in */
        /* In a long wait: for the flags of these peers, a bit each. */
        struct express_wait { uint64_t round; uint32_t from; bool room; } wait;
    } express;
    uint64_t calls;         /* begun so far (calls.h) */
    uint64_t history;       /* of them (calls_fold) */
    enum rail_result (*suspect)(void *owner); /* what a caller that waits for long is to do; NULL: calls_compare_node */
    void *owner;
    const struct host_shares *shares; /* NULL: none */
    struct peer_memory_owner *owners; /* whom the kernel reads for each of us, by peer; NULL: it does not; */
    unsigned char *bench;   /* then of HOST_BENCH_BYTES, for what is combined of theirs */
};

/* The arguments of one collective at one rank. */
struct host_call {
    const void *input; /* not looked at where this rank gives nothing, nor output where it gets nothing */
    void *output;
    struct rail_combine how;
    struct plan_split split;
    struct plan_blocks blocks; /* where input and output have a block per rank */
    unsigned char *scratch;     /* host_scratch_bytes() */
    size_t scratch_piece_bytes;
    uint64_t signature;
    enum shm_exposed direct; /* how peers get at input and output */
    struct { uint32_t number; uint64_t offset; } input_share, output_share; /* SHM_BY_WINDOW: where they lie */
    bool lends_input, lends_output; /* all of it lies in known memory (transport/net.h), and stays as it is while links read it: an
                                       input that the call does not write over, what is final of an output */
    bool spread;  /* every rank of the node has a core to itself: what peers read lies in other cores' caches */
    bool streams; /* outputs are too large to stay in the cache: they are written past it */
};

/* One strand of one channel, somewhere in one of its rounds. */
struct run {
    const struct instance *instance;
    uint64_t round, n_rounds;
    struct plan_range whole; /* the elements of this round */
    uint64_t window;         /* W of this round */
    uint32_t i;              /* iteration of the loop we are in */
    uint16_t at, end;        /* next step, end of the strand */
    uint16_t loop;           /* the LOOP step we are in, or NO_LOOP */
    uint16_t waited;         /* peers of a WAIT's span already seen */
};

struct host_op {
    struct host_node *node;
    struct host_call call;
    uint32_t n_runs, n_left;
    bool lent;      /* something of input or output goes out from where it lies: done when it is settled */
    bool signalled; /* some strand of mine has raised a counter that another may wait for */
    struct run runs[HOST_MAX_RUNS];
};

/* Peers do not write to a buffer that is exposed so: its owner fetches its results. */
static inline bool host_fetches(uint32_t exposed) { return exposed == SHM_STAGED || exposed == SHM_BY_KERNEL; }

/* Whether a peer is through with a run's present round; and whether all are, or need not be for me to leave the last. */
static inline bool host_run_done_by(const struct host_op *op, const struct run *run, uint32_t peer)
{
    const struct shm_rounds *theirs = shm_rounds_of(&op->node->segment, peer, run->instance->plan.channel);
    return atomic_load_explicit(&theirs->counter[PLAN_DONE].value, memory_order_acquire) > run->window;
}
bool host_run_released(const struct host_op *op, const struct run *run);

/* Bytes of scratch that a call needs; 0: none. Sets how it is divided. */
size_t host_scratch_bytes(struct host_call *call, const struct plan *plan);

/* instances[channel] for each of call->split.n_channels. Fails only on a plan this engine cannot run. */
enum rail_result host_op_start(struct host_op *op, struct host_node *node, const struct host_call *call,
                               struct instance *const *instances);

/* After a failure, before this rank's caller has its buffers back: peers that are at them are waited for, microseconds mostly,
 * and no rank of the node begins to any more. A peer of another process may have died there, and is not waited for longer than a
 * move of one piece takes; what it may still write then goes to pages that it has mapped itself: no harm to memory that is freed,
 * but to an output that is used again (nccl.h says so). The communicator is done for. */
void host_withdraw(const struct host_node *node);

/* Runs whatever can run. RAIL_OK: done, the outputs are final. RAIL_NOT_YET: blocked on a peer. Else the error. */
enum rail_result host_op_progress(struct host_op *op);

#endif
