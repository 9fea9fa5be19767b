/* gpu.h - the CUDA engine's host side: one rank of a communicator whose buffers are a GPU's.
 *
 * A launch of the interpreter (interpreter.cu) runs one collective, or the messages of a group, to its end, in the order
 * of the caller's stream; nothing here waits for a peer. The kernel takes part in the protocol of the node's segment as a
 * host rank does (kernel.h), so both kinds of rank share a communicator. Links to other nodes end in a relay: a pair of
 * places in pinned memory that a thread of the host moves on (gpu_relay.c).
 *
 * The golden rule: while a kernel may be waiting for a peer, nothing is called that can synchronise the context. So memory
 * for the life of a communicator is taken when it is opened, and what a closed one held is given back only when no launch
 * of the process is under way (gpu_memory.c).
 *
 * One thread at a time per communicator, but for gpu_progress, gpu_trouble and gpu_look, which another one may call. */
#ifndef RAIL_ENGINE_GPU_H
#define RAIL_ENGINE_GPU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/result.h"
#include "device/cuda/cuda.h"
#include "engine/host.h"
#include "engine/kernel.h"

struct gpu;

struct gpu_request {
    struct cuda_device *device;
    const struct host_node *node; /* alive, with its segment, until gpu_close */
    uint32_t rank, n_ranks;
    const uint32_t *order;        /* [n_ranks] as plan_blocks.order; copied */
    size_t scratch_bytes;         /* the most that any plan wants */
    uint32_t relay_links;         /* links over the network that can be opened; 0 within one node */
    uint32_t relay_slots;         /* of each */
    size_t relay_slot_bytes;
};

/* Memory, the kernel, its streams and events. RAIL_E_CUDA with the driver's words. */
enum rail_result gpu_open(const struct gpu_request *request, struct gpu **out);
/* What a rank tells the others of its node, after gpu_open. Plain bytes. */
struct gpu_offer {
    uint64_t address;  /* of its windows and slots on its device; 0: none */
    uint64_t device;   /* its struct cuda_device, for ranks of the same process */
    int32_t ordinal;
    uint32_t exported; /* the handle is good */
    struct cuda_handle handle;
};
enum rail_result gpu_offer(struct gpu *gpu, struct gpu_offer *out);
/* Whether this rank reaches what all others of its node offer, [n_peers] each. */
bool gpu_reach(struct gpu *gpu, const struct gpu_offer *offers, const bool *same_process);
/* Where the node's windows and slots are from now on: on the devices, or in the segment. The same on all its ranks. Called
 * once, before the first launch. */
enum rail_result gpu_use_near(struct gpu *gpu, bool near);

/* Its launches have ended, or will see `stop`. The memory goes when nothing of the process is under way. NULL is nothing. */
void gpu_close(struct gpu *gpu);

/* Not 0: every launch of it gives up, those to come included. Any thread may set it until gpu_close. */
_Atomic uint32_t *gpu_stop_word(struct gpu *gpu);

/* One collective. `call` as for the host engine; its scratch and `direct` are not looked at. */
struct gpu_collective {
    struct host_call call;
    uint64_t scale_at;       /* 0, or where the kernel reads the scalar, in memory of the device */
    uint32_t collective, root; /* for gpu_express */
    bool balanced;
    struct instance *const *instances; /* [call.split.n_channels]; NULL: a call that moves nothing, but counts */
};
enum rail_result gpu_collective(struct gpu *gpu, const struct gpu_collective *collective, cu_stream stream);

/* The same in one hop (kernel_express.h), with call.split.count elements a block and without instances. All ranks of the node do,
 * or none. RAIL_NOT_YET: a peer has closed its communicator, so this cannot come to an end: gpu_collective waits, and tells. */
enum rail_result gpu_express(struct gpu *gpu, const struct gpu_collective *collective, cu_stream stream);
/* The most bytes of a block for it; 0: there is none. */
size_t gpu_express_bytes(const struct gpu *gpu);

/* output := input, scaled and divided, of `count` elements: a communicator of one rank. */
enum rail_result gpu_copy(struct gpu *gpu, const struct gpu_collective *collective, uint64_t count, cu_stream stream);

/* Messages, flow by flow, in posting order. */
struct gpu_message {
    const void *buffer;
    uint64_t bytes, signature;
};
struct gpu_flow {
    struct link *link;   /* NULL: to oneself; messages come in pairs, what is sent and where it goes */
    bool receives;
    uint32_t first, n;   /* in `messages` */
    uint64_t finished;   /* before: for reports */
};
struct gpu_batch {
    const struct gpu_flow *flows;
    const struct gpu_message *messages;
    uint32_t n_flows, n_messages;
    uint64_t signature;  /* of the call, if it counts as one */
    bool counts;         /* AlltoAll */
};
enum rail_result gpu_messages(struct gpu *gpu, const struct gpu_batch *batch, cu_stream stream);

/* Around launches: what follows comes after what was launched before on whatever stream. `streams`: those of one group, which
 * all wait for and are waited for. *launch is the stream for the launches: the first, or, `apart`, one of the library's own,
 * where the group's other communicators launch on that one and device, too: behind one another they would wait for ever. */
enum rail_result gpu_begin(struct gpu *gpu, const cu_stream *streams, uint32_t n, bool apart, cu_stream *launch);
enum rail_result gpu_end(struct gpu *gpu, const cu_stream *streams, uint32_t n, cu_stream launch);
/* A stream of its own that begins after `stream` and, with gpu_join, is waited for by it. */
enum rail_result gpu_fork(struct gpu *gpu, cu_stream stream, cu_stream *side);
enum rail_result gpu_join(struct gpu *gpu, cu_stream stream);

/* ---- one-sided (gpu_beside.c) ---- */

/* Into a peer of the node: data, then its signal, in stream order and after all that was put to that peer before. */
struct gpu_put {
    uint32_t peer, signal; /* of the node; < SHM_SIGNALS */
    uint64_t to, from;     /* addresses of this device */
    size_t bytes;          /* 0: the signal alone */
};
/* That `peer` of the node has raised `signal` `value` times. */
struct gpu_goal {
    uint32_t peer, signal;
    uint64_t value;
};
/* Puts and waits stand between the opening and closing of a batch, on one stream. RAIL_E_USAGE: too many are under way, or
 * the driver is older than 11.7. gpu_batch_fail instead of closing: nothing is enqueued any more. */
enum rail_result gpu_batch_open(struct gpu *gpu, uint32_t *batch);
enum rail_result gpu_put(struct gpu *gpu, const struct gpu_put *put, cu_stream stream);
enum rail_result gpu_wait_for(struct gpu *gpu, uint32_t batch, const struct gpu_goal *goals, uint32_t n, cu_stream stream);
enum rail_result gpu_batch_close(struct gpu *gpu, uint32_t batch, cu_stream stream);
void gpu_batch_fail(struct gpu *gpu, uint32_t batch);
/* As gpu_begin and gpu_end, for batches alone: they have no order with launches but their streams'. */
enum rail_result gpu_begin_beside(struct gpu *gpu, const cu_stream *streams, uint32_t n, bool apart, cu_stream *launch);
enum rail_result gpu_end_beside(struct gpu *gpu, const cu_stream *streams, uint32_t n, cu_stream launch);
/* What is waited for and has not come, `room` of it at most; any thread. */
uint32_t gpu_missing(struct gpu *gpu, struct gpu_goal *out, uint32_t room);
/* Lets them go, whatever came: the communicator has failed. Once more while something waits. Any thread. */
void gpu_release_waits(struct gpu *gpu);

/* Memory of another process, until gpu_unmap or, when nothing runs, after gpu_close. May synchronise. */
struct gpu_mapped;
enum rail_result gpu_map_handle(struct gpu *gpu, const struct cuda_handle *handle, struct gpu_mapped **out, uint64_t *at_out);
void gpu_unmap(struct gpu *gpu, struct gpu_mapped *mapped); /* NULL is fine */

/* What is under way. */
struct gpu_state {
    bool waiting;    /* launches that calls have made have not ended */
    bool inside;     /* a launch has begun and not ended, a graph's included */
    bool busy;       /* one of these, or there are graphs */
    uint32_t graphs; /* that may launch */
    uint64_t moved;  /* steps, roughly: whether anything happens */
};
void gpu_look(const struct gpu *gpu, struct gpu_state *out);
/* Graphs live that may launch at any time. */
bool gpu_has_graphs(const struct gpu *gpu);
/* What the kernel found wrong, as an error with a text; RAIL_OK: nothing. Said once per communicator. */
enum rail_result gpu_trouble(struct gpu *gpu);

/* Moves what waits at relays. True if anything moved. *failed: a link's error, if there is one. One thread at a time. */
bool gpu_progress(struct gpu *gpu, enum rail_result *failed);
/* Everything that was sent has left the relays, and no other process still reads what this rank staged in its memory. */
bool gpu_drained(struct gpu *gpu);

/* Giving memory of the device back while no call comes, and taking it again (gpu_suspend.c). All ranks of the node have
 * nothing under way before gpu_suspend, have been through it before gpu_suspend_own, and through gpu_resume_own before
 * gpu_reach and gpu_resume.
 *
 * gpu_suspend: launches, a graph's, give up from now on; peers' memory is let go. gpu_suspend_own: windows, slots that hold
 * no messages, scratch that no graph refers to. */
void gpu_suspend(struct gpu *gpu);
void gpu_suspend_own(struct gpu *gpu);
/* RAIL_E_CUDA: there is no memory; it is suspended as before. */
enum rail_result gpu_resume_own(struct gpu *gpu, struct gpu_offer *out);
/* `near`: what gpu_reach says on all of the node. RAIL_E_USAGE: a graph was launched meanwhile, and has counted up what its
 * peers have not. */
enum rail_result gpu_resume(struct gpu *gpu, bool near);
/* No launch of the process is under way, of whatever communicator: what synchronises does not wait for a peer. */
bool gpu_nothing_runs(void);

/* Bytes of device memory, of those that suspending gives back, and of pinned host memory beside the segment. */
size_t gpu_device_bytes(const struct gpu *gpu);
size_t gpu_idle_bytes(const struct gpu *gpu);
size_t gpu_pinned_bytes(const struct gpu *gpu);

#endif
