/* gpu_rank.h - a communicator's rank whose buffers are a GPU's (engine/gpu.h): which device, and what calls become.
 *
 * Calls return when they are enqueued; their work runs in the order of the caller's streams. What a call of a host rank
 * finds out while it waits (a rank that calls something else, one that is dead, links that broke) a thread of the library
 * finds out here (gpu_watch.h). */
#ifndef RAIL_CORE_GPU_RANK_H
#define RAIL_CORE_GPU_RANK_H

#include "core/collective.h"
#include "core/comm.h"
#include "core/p2p.h"
#include "engine/gpu.h"

struct queue;

/* RAILCCL_DEVICE's decision for a rank that the calling thread makes: the device of its current context, or number
 * `ordinal` (InitAll), held; NULL: a host rank. RAIL_E_CUDA with the driver's words. */
enum rail_result gpu_rank_device(const char *call, int ordinal, struct cuda_device **out);
/* From now on the calling thread makes host ranks, whatever there is. */
void gpu_rank_forbid(bool forbidden);

/* How large slots are, and how many sets of them a rank has, where every page is pinned. The same on all ranks. */
void gpu_rank_table(struct choice_table *table, const struct shape *shape);
uint32_t gpu_rank_sets(const struct shm_geometry *geometry, bool network);
/* The most bytes of a block of a small collective; 0: there are none. `all`: every rank of the node is on a GPU. */
uint32_t gpu_rank_small_bytes(const struct choice_table *table, const struct shape *shape, bool all);

/* With wires and table, on every rank of a communicator in which a GPU takes part: opens this rank's, and agrees with the
 * node's others where windows are. */
enum rail_result gpu_rank_open(struct comm *comm, struct rail_deadline deadline);
/* Accepts one that was never opened. Its launches have ended, or will give up. */
void gpu_rank_close(struct comm *comm);

/* Whether any rank of the communicator has a GPU; the same on all. */
bool gpu_rank_somewhere(const struct comm *comm);
/* Waits until no launch of the process is under way, of whatever communicator: what `call` is about to do may wait for them
 * in the driver, where nobody could end it. RAIL_E_TIMEOUT after RAILCCL_FINALIZE_TIMEOUT_S if it is `bounded`; the fault. */
enum rail_result gpu_rank_quiet(struct comm *comm, const char *call, bool bounded);
/* On every rank of a communicator with gpu_rank_somewhere, suspended: memory is taken again. *again: some rank has no memory
 * just now, all are told, nothing has changed, and all may try once more. */
enum rail_result gpu_rank_resume(struct comm *comm, bool *again);

/* For a call on `stream`, and for its buffers: RAIL_E_ARGUMENT names what cannot be used. */
enum rail_result gpu_rank_accept(const struct comm *comm, const char *call, cu_stream stream);
enum rail_result gpu_rank_collective_check(const struct comm *comm, const struct collective *args);
enum rail_result gpu_rank_p2p_check(const struct comm *comm, const struct p2p_call *args);
/* An operator whose scalar lies in the device's memory. */
enum rail_result gpu_rank_scalar(struct comm *comm, const char *call, enum rail_type type, const void *scalar, int *handle_out);

/* Enqueues what the queues of a list hold that belong to GPU ranks, and takes them from it; what fails becomes the fault of
 * its communicator. */
enum rail_result gpu_rank_enqueue(struct queue **queues);

/* Waits until everything enqueued has run; RAIL_NOT_YET after `deadline`, RAIL_E_... the fault. */
enum rail_result gpu_rank_settle(struct comm *comm, struct rail_deadline deadline);

#endif
