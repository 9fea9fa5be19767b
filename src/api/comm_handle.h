/* comm_handle.h - ncclComm_t is a struct comm behind an opaque name. */
#ifndef RAIL_API_COMM_HANDLE_H
#define RAIL_API_COMM_HANDLE_H

#include "core/comm.h"
#include "core/group.h"
#include "device/cuda/cuda.h"
#include "nccl.h"

static inline struct comm *comm_of(ncclComm_t handle) { return (struct comm *)(void *)handle; }
static inline ncclComm_t handle_of(struct comm *comm) { return (ncclComm_t)(void *)comm; }

/* Now, or at the end of the group. */
static inline enum rail_result new_comm(const struct making *like)
{
    if (group_open()) return group_add_making(like);
    struct making *m = making_copy(like);
    return m ? makings_run(m) : RAIL_E_SYSTEM;
}

/* A call runs now, or at its group's end, or on its stream. */
static inline bool stream_is_ours(cudaStream_t stream) { return (uintptr_t)stream > 2 && stream_lives(stream); }

/* A handle of CUDA's, most likely: then why there is no GPU here. */
__attribute__((cold)) static inline enum rail_result stream_refuse(cudaStream_t stream, const char *call)
{
    bool wanted;
    const char *why = "";
    if (cuda_wanted(call, &wanted, &why) != RAIL_OK || wanted) why = "its ranks were made so";
    return rail_fail(RAIL_E_ARGUMENT,
                     "%s: stream %p: this communicator works on host memory (%s) and knows no CUDA streams; pass NULL, or one of "
                     "railStreamCreate's", call, (void *)stream, why);
}

/* What calls that can run later take. NULL in *out: done on return. */
static inline enum rail_result stream_accept(cudaStream_t stream, const char *call, struct stream **out)
{
    *out = stream_is_ours(stream) ? (struct stream *)(void *)stream : NULL;
    if ((uintptr_t)stream <= 2 || *out) return RAIL_OK;
    return stream_refuse(stream, call);
}

/* On a host rank the streams NULL, legacy (1) and per-thread (2) all mean "complete on return". */
static inline enum rail_result stream_check(cudaStream_t stream, const char *call)
{
    if ((uintptr_t)stream <= 2) return RAIL_OK;
    if (stream_is_ours(stream))
        return rail_fail(RAIL_E_USAGE, "%s: this call does not run on a stream of railStreamCreate's yet; pass NULL", call);
    return stream_refuse(stream, call);
}

#endif
