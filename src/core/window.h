/* window.h - windows: a buffer of every rank, made known to all of them, for one-sided operations (onesided.h).
 *
 * Where every rank of a host reaches every other's part by address, collectives use them, too: a call whose input and output lie
 * in such a window is direct (engine/host.h).
 *
 * Registering and deregistering are collective. At registration every rank finds out how it reaches each peer's part:
 *
 *   own, or a rank of this process     by address
 *   another process of the host        mapped, when it lies in memory of ncclMemAlloc; else by process_vm_writev(2)
 *   neither of that is allowed, or     through a network link (to the same host, too), where the target's process takes
 *   another node                       it in: a caller inside any call that drives the network, else its service thread
 *   both are on GPUs of one host       by the driver's copies: in one process, or where the memory has an IPC handle
 *   else one of the two is             not at all: collectives use the buffer, and puts into it are refused by name
 */
#ifndef RAIL_CORE_WINDOW_H
#define RAIL_CORE_WINDOW_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/result.h"
#include "engine/host.h"
#include "transport/shm/peer_memory.h"

struct comm;

enum { WINDOW_SYMMETRIC = 1, WINDOW_STRICT_ORDERING = 2 }; /* NCCL_WIN_* */

enum window_way { WINDOW_BY_ADDRESS, WINDOW_BY_KERNEL, WINDOW_BY_LINK, WINDOW_BY_DEVICE, WINDOW_OUT_OF_REACH };

/* One rank's part, as this rank reaches it. */
struct window_part {
    enum window_way way;
    size_t bytes;
    unsigned char *at;   /* by address: where it lies here */
    uint64_t remote;     /* by kernel: where it lies there ... */
    int pid;             /* ... and where that is */
    struct peer_mapping mapping;
    uint64_t device_at;  /* by device: where it lies for this rank's, and what is mapped for that */
    struct gpu_mapped *mapped;
};

struct window {
    struct window *next, *next_of_all;
    const struct comm *comm;
    uintptr_t handle;    /* what the program holds; never given out twice */
    uint32_t number;     /* of this communicator's windows; the same on all ranks */
    int flags;
    void *own;           /* of a GPU rank: memory that its device reaches; the host does not touch it */
    size_t own_bytes;
    uint64_t known;      /* of the host's memory: net.h */
    uint8_t cookie[PEER_COOKIE_BYTES];
    struct window_part *parts; /* [n_ranks] */
    bool shared;         /* every rank of this node reaches every other's part by address */
};

/* Of one communicator. The list is changed by the communicator's thread under the lock, and read by that thread without
 * it; by the thread that takes in what comes over the network with it. */
struct windows {
    pthread_mutex_t lock;
    struct window *first;
    uint32_t number;
    struct host_shares shares; /* the shared ones, for the engine: collectives whose buffers lie in them copy nothing twice. The
                                  communicator's thread's alone */
};

void windows_init(struct windows *windows);
/* Accepts a zeroed one. Local: frees all that were not deregistered. */
void windows_clear(struct windows *windows);

/* What can be found wrong without the other ranks. */
enum rail_result window_check(const void *address, size_t bytes, int flags);
/* The same, of a communicator: whether a GPU rank's device reaches the bytes. */
enum rail_result window_memory_check(const struct comm *comm, const void *address, size_t bytes);
/* Collective. `address` NULL with 0 bytes is an empty part. Flags must be alike; with WINDOW_SYMMETRIC sizes, too. */
enum rail_result window_register(struct comm *comm, void *address, size_t bytes, int flags, uintptr_t *handle_out);
/* Collective. Returns when all that the other ranks had put into this rank's part before they called it is there. */
enum rail_result window_deregister(struct comm *comm, uintptr_t handle);

/* The communicator's window, or RAIL_E_ARGUMENT with a text that names `call`. */
enum rail_result window_find(const struct comm *comm, uintptr_t handle, const char *call, struct window **out);

/* The shared window that holds these bytes of mine; NULL: none. */
const struct window *window_holding(const struct windows *windows, const void *address, size_t bytes);

/* A rank's bytes for the window with that number arrive: any thread. A bad number or place is RAIL_E_REMOTE. */
enum rail_result window_take(struct comm *comm, uint32_t from, uint32_t number, uint64_t offset, const void *data,
                             size_t bytes);

#endif
