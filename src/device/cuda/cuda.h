/* cuda.h - GPUs: contexts, memory, streams, and the one kernel, through the driver API.
 *
 * Every call takes `call`, the public call that errors name, and may be made from any thread, in whatever context is
 * current: it enters the device by itself, and leaves the caller's context and capture mode as they were. Inside one
 * cuda_enter()/cuda_leave() of the same device the rest enter at no cost.
 *
 * The golden rule (while a kernel of ours may be waiting for a peer, nothing may synchronise the context) is the
 * caller's to keep. What may synchronise is marked INIT: for when nothing of ours runs, or for what comes before the
 * first launch. The other calls never wait for the device.
 *
 * Errors: RAIL_E_CUDA with the driver's name and words for the failure, and a remedy where one is known;
 * RAIL_E_ARGUMENT and RAIL_E_USAGE where the caller is wrong. A context that has failed stays so (a "sticky" error):
 * every later call says so, and the text says that only a new process helps. Nothing here frees what a failed call did
 * not get. */
#ifndef RAIL_DEVICE_CUDA_CUDA_H
#define RAIL_DEVICE_CUDA_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"
#include "foreign/cuda.h"

/* ---- whether at all (wanted.c) ---- */

/* RAILCCL_DEVICE's decision: host | cuda, and `auto` takes cuda where the driver finds a device. *why_out (NULL is
 * fine) is a sentence for the log, valid for the life of the process. RAIL_E_CUDA: cuda was asked for and there is
 * none; the text has the driver's words. */
enum rail_result cuda_wanted(const char *call, bool *wanted_out, const char **why_out);

/* The driver; RAIL_E_CUDA with its words, and the remedy, where there is none. RAILCCL_CUDA_LIBRARY names another
 * file. */
enum rail_result cuda_driver_get(const char *call, const struct cuda_driver **out);

/* ---- devices (device.c, enter.c) ---- */

/* One context of one device. Read-only; shared by all threads; lives from the first hold to the last drop. */
struct cuda_device {
    const struct cuda_driver *driver;
    int ordinal;              /* as this process counts (CUDA_VISIBLE_DEVICES) */
    cu_device device;
    cu_context context;
    uint64_t context_id;      /* 0 where the driver cannot tell (before 12.0) */
    bool primary;             /* the context is the device's primary one, retained by us */
    char bus_id[16];          /* "0000:1b:00.0", lower case, as sysfs */
    uint8_t uuid[16];         /* of the MIG slice, where the device is one */
    char name[80];
    int major, minor;         /* compute capability */
    int n_sms;
    size_t memory_bytes;
    bool pageable;            /* the device reaches any host memory (HMM, ATS) */
    bool vmm, vmm_fd, vmm_gpu_direct, dma_buf;
    struct cuda_state *state; /* this layer's own */
};

/* INIT. The device of the caller's current context; where none is current, the primary context of device 0, as CUDA's
 * runtime does. Held: give it back with cuda_device_drop. */
enum rail_result cuda_device_current(const char *call, struct cuda_device **out);
/* Another hold on it. */
void cuda_device_hold(struct cuda_device *device);
/* INIT. At the last one its events and module go, and our hold on the primary context. NULL is fine. */
void cuda_device_drop(struct cuda_device *device);

struct cuda_scope {
    struct cuda_device *before; /* that this thread was inside of, by an enclosing scope */
    const struct cuda_driver *driver;
    bool pushed;
    int capture_mode;           /* the thread's, to restore; -1: leave it */
};
/* Makes the device's context the thread's current one, and the thread's capture mode relaxed (a capture that the caller
 * has under way is neither disturbed nor in the way), until cuda_leave. Nests. */
enum rail_result cuda_enter(struct cuda_device *device, const char *call, struct cuda_scope *scope);
void cuda_leave(struct cuda_scope *scope);

/* ---- results (fail.c) ---- */

/* RAIL_E_CUDA, with "CALL: WHAT: CUDA_ERROR_X (the driver's words); remedy". `what` names the driver's call and the
 * object: "cuMemAlloc(4096 bytes) on device 0". CU_SUCCESS is RAIL_OK. */
enum rail_result cuda_fail(const struct cuda_driver *driver, const char *call, cu_result result, const char *what, ...)
    __attribute__((format(printf, 4, 5), cold));
/* The context is lost: nothing in it will work again. */
bool cuda_sticky(cu_result result);
/* "CUDA_ERROR_OUT_OF_MEMORY (out of memory)". Returns `text`. */
const char *cuda_words(const struct cuda_driver *driver, cu_result result, char *text, size_t bytes);

/* ---- memory (memory.c, share.c) ---- */

/* INIT. 256-byte aligned. Not zeroed. */
enum rail_result cuda_alloc(struct cuda_device *device, const char *call, size_t bytes, uint64_t *address_out);
/* INIT (synchronises). 0 is fine. */
void cuda_free(struct cuda_device *device, uint64_t address);

/* INIT. Pinned host memory, portable (all contexts) and mapped: at *host_out here, at *address_out on the device.
 * Zeroed. */
enum rail_result cuda_pinned_alloc(struct cuda_device *device, const char *call, size_t bytes, void **host_out,
                                   uint64_t *address_out);
void cuda_pinned_free(struct cuda_device *device, void *host); /* INIT. NULL is fine. */

/* INIT. Pins a range of ours (a memfd's mapping), whole pages, for all contexts of the process; *address_out is the
 * device's address of `begin`. Registered once per process and range: counted. RAIL_E_ARGUMENT: not whole pages, or it
 * overlaps another registered range without being the same. */
enum rail_result cuda_register(struct cuda_device *device, const char *call, void *begin, size_t bytes,
                               uint64_t *address_out);
void cuda_unregister(struct cuda_device *device, void *begin); /* INIT */

/* INIT. On a stream of this layer's own; done on return. Between memory of the device and of the host, any
 * direction. */
enum rail_result cuda_zero(struct cuda_device *device, const char *call, uint64_t address, size_t bytes);
enum rail_result cuda_copy(struct cuda_device *device, const char *call, uint64_t to, uint64_t from, size_t bytes);
/* In the order of `stream`. */
enum rail_result cuda_zero_on(struct cuda_device *device, const char *call, uint64_t address, size_t bytes,
                              cu_stream stream);
enum rail_result cuda_copy_on(struct cuda_device *device, const char *call, uint64_t to, uint64_t from, size_t bytes,
                              cu_stream stream);

/* Memory of one process seen from another on the same host. Plain data: sent over any channel. */
struct cuda_handle {
    struct cu_ipc ipc;
    uint8_t uuid[16];   /* the device that it is memory of */
    uint64_t offset;    /* of the exported address in its allocation */
    uint64_t bytes;     /* of the allocation */
    uint64_t buffer_id; /* never used twice in its process: whoever imports may keep by it */
};
/* INIT. RAIL_E_USAGE: it is memory that cannot be exported so (VMM, a pool's, managed, pinned). */
enum rail_result cuda_export(struct cuda_device *device, const char *call, uint64_t address, struct cuda_handle *out);
/* INIT. Mapped into `device`'s context, peer access included. *base_out is the allocation's begin (for
 * cuda_import_close), *address_out the exported address. Not for memory of the same process: its addresses are good
 * there as they are. */
enum rail_result cuda_import(struct cuda_device *device, const char *call, const struct cuda_handle *handle,
                             uint64_t *base_out, uint64_t *address_out);
void cuda_import_close(struct cuda_device *device, uint64_t base); /* INIT. 0 is fine. */

/* Whether `device` may reach memory of `peer`: itself, or another device. A second context of its own device: never. */
bool cuda_peer_possible(struct cuda_device *device, struct cuda_device *peer);
/* INIT. So that kernels of `device` may use `peer`'s memory. Doing it again is fine. RAIL_E_USAGE: it is not
 * possible. */
enum rail_result cuda_peer_enable(struct cuda_device *device, const char *call, struct cuda_device *peer);

/* ---- ncclMemAlloc (vmm.c) ---- */

/* INIT. Memory that may be shared: VMM with a file descriptor handle where the device can, readable by all devices of
 * the process that can reach it; plain otherwise. */
enum rail_result cuda_shareable_alloc(struct cuda_device *device, const char *call, size_t bytes,
                                      uint64_t *address_out);
/* INIT. Of any device of the process. RAIL_E_ARGUMENT: this layer did not give it, or it is not its begin. */
enum rail_result cuda_shareable_free(const char *call, uint64_t address);
/* INIT. A descriptor of the VMM allocation that `address` lies in, to be passed over a socket (base/memory.h) and
 * closed by the caller. RAIL_E_USAGE: the memory has none; try cuda_export. Also of memory that others made with VMM
 * (PyTorch's expandable segments), one physical piece at a time: *bytes_out is what the mapping of that piece can be
 * relied upon. */
enum rail_result cuda_export_fd(struct cuda_device *device, const char *call, uint64_t address, int *fd_out,
                                uint64_t *offset_out, uint64_t *bytes_out);
/* INIT. Maps the allocation behind `fd` (not closed) of `bytes`. Freed with cuda_import_fd_close. */
enum rail_result cuda_import_fd(struct cuda_device *device, const char *call, int fd, uint64_t bytes,
                                uint64_t *base_out);
void cuda_import_fd_close(struct cuda_device *device, uint64_t base, uint64_t bytes);

/* ---- pointers (pointer.c) ---- */

enum cuda_where {
    CUDA_DEVICE_MEMORY, /* of this context, or this device's and of none (VMM, pools) */
    CUDA_PEER_MEMORY,   /* of another device that this one can reach */
    CUDA_PINNED_MEMORY,
    CUDA_MANAGED_MEMORY,
    CUDA_PAGEABLE_MEMORY, /* plain host memory, on a device that reaches it */
};
struct cuda_pointer {
    enum cuda_where where;
    int ordinal;         /* of the device that has the memory; -1: host */
    uint64_t address;    /* the device's address of the pointer */
    uint64_t base, bytes;/* the allocation (0, 0 for pageable memory) */
    uint64_t buffer_id;  /* 0 for pageable memory */
};
/* Can kernels of `device` use [pointer, pointer + bytes)? RAIL_E_ARGUMENT names the argument (`name`: "sendbuff"),
 * says what the pointer is and what to do: plain host memory, memory of a device out of reach, freed memory, fewer
 * than `bytes` bytes left in its allocation. `out` may be NULL. bytes 0: nothing is looked at, *out is zeroed. Memory
 * of a peer is accepted if access is possible; it is enabled by the application or by cuda_peer_enable at init, never
 * here. */
enum rail_result cuda_pointer_check(struct cuda_device *device, const char *call, const char *name, const void *pointer,
                                    size_t bytes, struct cuda_pointer *out);

/* ---- streams, events, captures (stream.c, event.c, capture.c) ---- */

/* NULL and legacy are one stream; per-thread is the calling thread's; handles are what they are. RAIL_E_ARGUMENT: of
 * another context (names both devices), or none at all. */
enum rail_result cuda_stream_check(struct cuda_device *device, const char *call, cu_stream stream);

/* A non-blocking stream of ours, of the device's highest priority if `urgent`. */
enum rail_result cuda_stream_make(struct cuda_device *device, const char *call, bool urgent, cu_stream *out); /* INIT */
void cuda_stream_free(struct cuda_device *device, cu_stream stream); /* INIT. NULL is fine. */

/* RAIL_OK: all that was enqueued is done; RAIL_NOT_YET; RAIL_E_CUDA. Not of a stream that is being captured. */
enum rail_result cuda_stream_done(struct cuda_device *device, const char *call, cu_stream stream);
/* Waits for it: the caller knows that it ends. */
enum rail_result cuda_stream_wait(struct cuda_device *device, const char *call, cu_stream stream);

struct cuda_capture {
    bool active;
    uint64_t id;    /* of the capture, over the life of the process */
    cu_graph graph; /* that it makes; the capture's own */
};
/* RAIL_E_CUDA: the capture was broken off earlier (some call made it invalid), or the legacy stream is asked while
 * another stream that it would wait for is captured. */
enum rail_result cuda_stream_capture(struct cuda_device *device, const char *call, cu_stream stream,
                                     struct cuda_capture *out);
/* `released(argument)` is called once, on a thread of the driver's that must not call the driver, when the graph and
 * all that was made of it are gone. If this fails, it never is. */
enum rail_result cuda_capture_retain(struct cuda_device *device, const char *call, cu_graph graph,
                                     void (*released)(void *argument), void *argument);

/* Events without timing, out of a pool that cuda_events_prepare fills (INIT); past that, made as needed. An event that
 * is given back may still be pending; one that was recorded in a capture may be given back, too. */
enum rail_result cuda_events_prepare(struct cuda_device *device, const char *call, int n);
enum rail_result cuda_event_take(struct cuda_device *device, const char *call, cu_event *out);
void cuda_event_give(struct cuda_device *device, cu_event event); /* NULL is fine */
enum rail_result cuda_event_record(struct cuda_device *device, const char *call, cu_event event, cu_stream stream);
/* As cuda_stream_done. */
enum rail_result cuda_event_done(struct cuda_device *device, const char *call, cu_event event);
/* What comes to `stream` from now on waits for what `event` has recorded. */
enum rail_result cuda_stream_after(struct cuda_device *device, const char *call, cu_stream stream, cu_event event);
/* What comes to `to` waits for all that is on `from` now, by way of an event of the pool. Captures join so, too. */
enum rail_result cuda_stream_join(struct cuda_device *device, const char *call, cu_stream to, cu_stream from);

/* Calls `function` in the order of the stream (captured like a kernel); it must not call the driver. */
enum rail_result cuda_launch_host(struct cuda_device *device, const char *call, cu_stream stream,
                                  void (*function)(void *argument), void *argument);

/* The stream's front end waits, with no SM held, until the u64 at `address` is >= value (cyclic); or writes it, after
 * all that came before. RAIL_E_USAGE where the driver cannot (before 11.7). */
enum rail_result cuda_stream_wait_value(struct cuda_device *device, const char *call, cu_stream stream,
                                        uint64_t address, uint64_t value);
enum rail_result cuda_stream_write_value(struct cuda_device *device, const char *call, cu_stream stream,
                                         uint64_t address, uint64_t value);

/* ---- the kernel (module.c) ---- */

struct cuda_kernel {
    cu_function function;
    int registers, local_bytes, shared_bytes, max_threads; /* local_bytes: spills and stacks, per thread */
    int blocks_per_sm;      /* of max(threads asked for) that fit, without dynamic shared memory */
    int ptx_version, binary_version;
    double load_ms;
};

/* INIT. The kernel `name` of the embedded image, or of the file that RAILCCL_CUDA_KERNEL names: resident from now on,
 * loaded once per device and process. `threads`: of a block, as it will be launched at most. *out lives as long as
 * `device` is held. */
enum rail_result cuda_kernel_get(struct cuda_device *device, const char *call, const char *name, int threads,
                                 const struct cuda_kernel **out);

/* Enqueues; `argument` is the kernel's one parameter, copied before it returns. */
enum rail_result cuda_launch(struct cuda_device *device, const char *call, const struct cuda_kernel *kernel,
                             unsigned blocks, unsigned threads, unsigned shared_bytes, cu_stream stream,
                             const void *argument);

/* How many of this layer's things live in the process: for tests of leaks. */
struct cuda_census {
    long devices, allocations, pinned, registered, imports, streams, events;
};
struct cuda_census cuda_census(void);

#endif
