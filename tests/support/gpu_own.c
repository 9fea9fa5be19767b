/* gpu_own.c - a rank's device, communicator, stream and buffers. */
#include "support/gpu_own.h"

#include <stdlib.h>

bool gpu_own_begin(struct job_rank *rank, struct gpu_own *own)
{
    const char *why = "";
    if (!gpu_set(rank->rank, &why)) job_fail(rank, "%s", why);
    else if (ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank) != ncclSuccess)
        job_fail(rank, "%s", ncclGetLastError(NULL));
    if (rank->why[0]) return false;
    size_t bytes = GPU_OWN_COUNT * sizeof(float);
    *own = (struct gpu_own){gpu_alloc(bytes), gpu_alloc(bytes), malloc(bytes), gpu_stream()};
    return true;
}

void gpu_own_end(struct job_rank *rank, struct gpu_own *own)
{
    if (rank->comm) JOB_TRY(ncclCommDestroy(rank->comm));
    gpu_stream_end(own->stream);
    gpu_free(own->in);
    gpu_free(own->out);
    free(own->host);
}

bool gpu_own_holds(struct job_rank *rank, struct gpu_own *own, const float *at, float first, float times)
{
    gpu_wait(own->stream);
    gpu_copy_out(own->host, at, GPU_OWN_COUNT * sizeof(float));
    for (int k = 0; k < GPU_OWN_COUNT; k++) {
        float wanted = first + times * (float)(k % 32);
        if (own->host[k] == wanted) continue;
        job_fail(rank, "element %d is %g, not %g", k, (double)own->host[k], (double)wanted);
        return false;
    }
    return true;
}
