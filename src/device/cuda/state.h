/* state.h - what this layer keeps of a device, for its own files. */
#ifndef RAIL_DEVICE_CUDA_STATE_H
#define RAIL_DEVICE_CUDA_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "device/cuda/cuda.h"

struct cuda_state {
    struct cuda_device *next; /* device.c's, under its lock */
    int holds;

    cu_stream stream;         /* for what is done on return */
    pthread_mutex_t lock;     /* protects what follows */
    cu_event *events;         /* the pool: those that are free */
    int n_events, room;
    cu_module module;
    struct cuda_kernel_entry *kernels;
};

/* How many live: cuda_census() reads them. */
struct cuda_counts {
    atomic_long devices, allocations, pinned, registered, imports, streams, events;
};
extern struct cuda_counts cuda_counts;

/* Of a device that nobody holds any more, inside of it; `alive`: its context is, so there is something to give back. */
void cuda_events_end(struct cuda_device *device, bool alive);
void cuda_kernels_end(struct cuda_device *device, bool alive);

/* The device's own description in one word for texts: "device 1 (NVIDIA H200, 0000:1b:00.0)". Returns `text`. */
enum { CUDA_NAME_BYTES = 128 };
const char *cuda_device_text(const struct cuda_device *device, char text[CUDA_NAME_BYTES]);

#endif
