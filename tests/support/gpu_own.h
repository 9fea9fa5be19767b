/* gpu_own.h - what each rank of a test on GPUs has of its own: a device, a communicator, a stream and buffers. */
#ifndef TESTS_SUPPORT_GPU_OWN_H
#define TESTS_SUPPORT_GPU_OWN_H

#include "support/gpu.h"
#include "support/job.h"

enum { GPU_OWN_COUNT = 50000 };

struct gpu_own {
    float *in, *out; /* of the device, GPU_OWN_COUNT each */
    float *host;
    cu_stream stream;
};

/* On a device of its own, with a communicator. False: the rank has failed. */
bool gpu_own_begin(struct job_rank *rank, struct gpu_own *own);
/* The communicator is destroyed if there still is one. */
void gpu_own_end(struct job_rank *rank, struct gpu_own *own);
/* Waits for the stream; element k at `at` is first + times x (k modulo 32), or the rank has failed. */
bool gpu_own_holds(struct job_rank *rank, struct gpu_own *own, const float *at, float first, float times);

#endif
