/* gpu_state.h - what the files of the CUDA engine's host side share. */
#ifndef RAIL_ENGINE_GPU_STATE_H
#define RAIL_ENGINE_GPU_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/gpu.h"

enum {
    GPU_LIFE_BYTES = 2 << 20,  /* plans (under 4 KiB each), links, tables: some 500 plans, and 12 bytes a rank */
    GPU_RING_BYTES = 1 << 20,  /* messages of launches under way: 24 bytes each, some 40,000 */
    GPU_KEPT_BYTES = 1 << 20,  /* messages of captured launches, which are replayed for as long as their graph lives */
    GPU_RING_LAUNCHES = 1024,  /* launches with messages under way */
    GPU_BATCHES = 256,         /* groups of one-sided operations under way */
};

/* A group's messages run beside its collectives, as a launch of their own. Launches of one track never overlap. */
enum gpu_tracks { GPU_COLLECTIVES, GPU_MESSAGES, GPU_TRACKS };

/* What the stop word says; whatever is not 0 makes launches give up. */
enum gpu_stop { GPU_GOES, GPU_STOPPED, GPU_SUSPENDED };

/* Pinned host memory, which both sides see; then the ring, the kept messages, and relays' places and slots. */
struct gpu_shared {
    _Alignas(SHM_LINE) _Atomic uint32_t stop;
    struct { _Alignas(SHM_LINE) struct kernel_report report; } track[GPU_TRACKS];
    _Alignas(SHM_LINE) uint64_t beside_ended[GPU_BATCHES]; /* numbers of batches, written by streams */
};

/* Launches that follow one another. */
struct gpu_track {
    uint64_t node; /* address of its struct kernel_node */
    _Atomic uint64_t launched;
    bool told;     /* its trouble was */
};

/* A link's end as the kernel sees it. */
struct gpu_link {
    const struct link *link;
    uint64_t at; /* address of its struct kernel_link */
};

/* A peer's windows, then its slots, then its lines, in its GPU's memory. */
struct gpu_peer {
    uint64_t at;     /* as this device reaches them; 0: it does not */
    uint64_t import; /* to be closed; 0: memory of this process */
    bool same;       /* it is one */
};

/* One end of a link over the network, moved on by gpu_progress. */
struct gpu_relay {
    struct link *link;
    struct shm_place *place;
    unsigned char *slots;
    uint64_t moved; /* slots: taken from the place (sending), or put there (receiving) */
    bool sends;
};

/* Where messages of launches under way stand. */
struct gpu_ring {
    uint32_t begin, end; /* bytes in use, a ring */
    uint32_t first, n;   /* of launches */
    struct { uint32_t end, track; uint64_t launch; } launches[GPU_RING_LAUNCHES];
    uint32_t kept;       /* bytes of kept messages */
};

/* One-sided operations under way (gpu_beside.c). */
struct gpu_batch_under_way {
    _Atomic uint64_t number;  /* of the batch that took it last; it has ended when gpu_shared says the same */
    struct gpu_goal *goals;   /* [n_goals], waited for */
    uint32_t n_goals;
};
struct gpu_beside {
    pthread_mutex_t lock;     /* protects goals */
    uint64_t number;
    _Atomic uint32_t n_used;  /* of `batch`, so far */
    struct gpu_batch_under_way batch[GPU_BATCHES];
};

struct gpu {
    struct gpu *next; /* of those that were closed while launches were under way */
    struct cuda_device *device;
    const struct host_node *node;
    uint32_t rank, n_ranks;
    struct shm_segment segment; /* the node's, held, since launches may outlive the communicator */
    bool pinned;              /* it is */
    ptrdiff_t segment_shift;  /* from an address in it to the GPU's */

    struct gpu_shared *shared;
    unsigned char *ring_bytes, *kept_bytes, *relay_bytes;
    ptrdiff_t shared_shift;   /* from an address in pinned memory to the GPU's */
    size_t shared_bytes;

    struct gpu_track track[GPU_TRACKS];
    uint64_t life;            /* address on the device: a kernel_node per track, then what is handed out; then staging */
    uint32_t life_used;
    uint64_t near;            /* my windows, slots and lines, for peers; 0: in the segment */
    size_t near_bytes;
    struct gpu_peer *peers;   /* [n_peers] */
    uint32_t n_peers, self;
    bool uses_near;
    uint64_t windows;         /* address of the table of everybody's windows */
    uint64_t scratch;         /* 0: none is wanted, or it is given back for a while */
    size_t scratch_bytes;     /* wanted */
    uint64_t ran_before;      /* launches that had ended when it was suspended */
    uint64_t order;

    _Atomic uint32_t graphs;  /* live ones that may launch */
    uint64_t graph_seen;      /* id of the capture that was retained last */
    cu_stream last, side, apart;
    bool used, capturing;
    bool gave_up;             /* it was stopped before it was closed: peers read no more */
    cu_event done;            /* recorded after the last eager launch, on `last` */
    const struct cuda_kernel *kernel;

    struct gpu_link *links;
    uint32_t n_links, capacity;
    struct gpu_relay *relays;
    _Atomic uint32_t n_relays; /* grown by the caller, read by whoever moves them */
    uint32_t relay_room, relay_slots;
    size_t relay_slot_bytes;
    struct gpu_ring ring;
    struct gpu_beside beside;
    struct gpu_out **outs;      /* [n_peers], made at first use */
    struct gpu_mapped *mapped;  /* of windows, open */
};

static inline uint64_t gpu_in_segment(const struct gpu *g, const void *at)
{
    return (uint64_t)((uintptr_t)at + (uintptr_t)g->segment_shift);
}
static inline uint64_t gpu_in_shared(const struct gpu *g, const void *at)
{
    return (uint64_t)((uintptr_t)at + (uintptr_t)g->shared_shift);
}

/* ---- gpu_memory.c ---- */

void gpu_count_in(struct gpu *gpu);
/* Gives back what closed ones held, if nothing is under way. */
void gpu_reap(void);
void gpu_bury(struct gpu *gpu);

/* ---- gpu_peers.c ---- */

/* Of a peer's slots behind its windows. */
size_t gpu_slots_offset(const struct shm_geometry *geometry);
/* Of a peer's lines behind its slots. */
size_t gpu_lines_offset(const struct shm_geometry *geometry);
/* Memory for all three, with nothing in the lines. */
enum rail_result gpu_near_take(struct gpu *gpu, const char *call);
/* Of the three together. */
size_t gpu_near_bytes(const struct shm_geometry *geometry);
/* Peers' memory is not reached any more. */
void gpu_leave_peers(struct gpu *gpu);
/* Peers have read what this rank staged in its own memory; those of this process, too, or not looked at. */
bool gpu_all_read(const struct gpu *gpu, bool same_process);
/* Frees and unmaps; nothing is under way. */
void gpu_leave_near(struct gpu *gpu);

/* ---- gpu_windows.c, gpu_beside.c ---- */

void gpu_unmap_all(struct gpu *gpu);
/* A batch has not ended. */
bool gpu_beside_waits(const struct gpu *gpu);
void gpu_beside_clear(struct gpu *gpu);

/* ---- gpu_life.c ---- */

/* A copy on the device that lives as long as the communicator. */
enum rail_result gpu_keep(struct gpu *gpu, const void *what, size_t bytes, uint64_t *at_out);
/* Address of the kernel's view of a link; made once. */
enum rail_result gpu_link_of(struct gpu *gpu, struct link *link, uint64_t *at_out);
/* Peers' slots have other addresses than before: says so to the kernel's views of links within the node. */
enum rail_result gpu_move_links(struct gpu *gpu);
/* The plan and its links on the device; uploaded once. */
enum rail_result gpu_channel_of(struct gpu *gpu, struct instance *instance, struct kernel_channel *out);

#endif
