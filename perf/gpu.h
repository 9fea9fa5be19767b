/* gpu.h - the GPU that a rank works on, through the driver: its memory, its stream, graphs. */
#ifndef PERF_GPU_H
#define PERF_GPU_H

#include <stdbool.h>
#include <stddef.h>

struct perf_gpu;

/* Number `number` modulo what there is, plus NCCL_TESTS_DEVICE; made current in the calling thread. NULL: ranks compute
 * with host memory, as the library decides it (RAILCCL_DEVICE). Ends the process when the driver refuses; so does
 * everything below, none of which is called without a GPU. */
struct perf_gpu *perf_gpu_open(int number);
void perf_gpu_close(struct perf_gpu *gpu); /* NULL is fine */
/* Makes it the calling thread's device. NULL is fine: nothing. */
void perf_gpu_use(struct perf_gpu *gpu);
/* A word for the table: "gpu3@0000:1b:00.0". */
const char *perf_gpu_name(const struct perf_gpu *gpu);

void *perf_gpu_alloc(struct perf_gpu *gpu, size_t bytes); /* NULL without memory */
void perf_gpu_free(struct perf_gpu *gpu, void *memory);
/* Memory of the host that the GPU reaches at the same address. NULL without memory. */
void *perf_gpu_pinned_alloc(struct perf_gpu *gpu, size_t bytes);
void perf_gpu_pinned_free(struct perf_gpu *gpu, void *memory);
/* Between host and device, any direction; done on return. */
void perf_gpu_copy(struct perf_gpu *gpu, void *to, const void *from, size_t bytes);

/* The same in the order of the stream. */
void perf_gpu_copy_later(struct perf_gpu *gpu, void *to, const void *from, size_t bytes);

void *perf_gpu_stream(const struct perf_gpu *gpu); /* its one stream, a cudaStream_t */
bool perf_gpu_done(struct perf_gpu *gpu);          /* all that the stream was given */

/* What is given to the stream in between becomes a graph, to be launched on it any number of times. */
void perf_gpu_capture_begin(struct perf_gpu *gpu);
void perf_gpu_capture_end(struct perf_gpu *gpu);
void perf_gpu_graph_launch(struct perf_gpu *gpu);
void perf_gpu_graph_destroy(struct perf_gpu *gpu);

#endif
