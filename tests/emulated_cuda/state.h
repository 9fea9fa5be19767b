/* state.h - what the emulated driver is made of, and what its files offer one another.
 *
 *     device -> contexts -> streams -> operations (op) -> run by threads of a pool
 *
 * One lock (`emulator`) protects everything below but kernels, copies and host functions while they run; `changed` is
 * broadcast whenever an operation ends. Handles are pointers to these structures, told from rubbish by their `kind`. */
#ifndef EMULATED_STATE_H
#define EMULATED_STATE_H

#include "emulated_cuda/driver_calls.h"
#include "emulated_cuda/emulated.h"

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

enum { MAX_DEVICES = 32, MAX_BLOCK_THREADS = 1024 };

/* ---- settings.c: the environment, read by cuInit */
struct settings {
    int n_devices;                   /* that this process sees */
    int physical[MAX_DEVICES];       /* CUDA_VISIBLE_DEVICES: which ones they are */
    int major, minor;                /* compute capability */
    int driver_version;
    int multiprocessors;
    int block_threads;               /* real threads of a block, at most */
    uint64_t memory_bytes;           /* of each device */
    uint32_t peers[MAX_DEVICES];     /* bit j: this (physical) device reaches the memory of physical device j */
    bool abort_golden;               /* a synchronising call while a kernel is in flight ends the process */
    bool lazy;                       /* functions are loaded at first use, as the driver does by default */
    uint64_t watch_ns;               /* how long a synchronising call waits before it says so */
    bool strict;                     /* asynchronous copies of pageable memory are errors */
};
extern struct settings settings;
CUresult settings_read(void);

/* ---- calls.c: every exported function begins with one of these */
extern pthread_mutex_t emulator;
extern pthread_cond_t changed;
static inline CUresult leave(CUresult result) /* gives the lock back */
{
    pthread_mutex_unlock(&emulator);
    return result;
}

/* Counts the call; returns what a test has ordered for it, or why no call can be made at all. */
CUresult call_begins(const char *name);
/* The same for work within the current context, which is returned: fails without one, and with its sticky error. */
CUresult call_begins_in(const char *name, struct context **context);
/* Something that is no call, such as the execution of a kernel, obeys EMULATED_CUDA_FAIL under a name of its own. */
CUresult call_ordered(const char *name);
bool is_sticky(CUresult result);
uint64_t now_ns(void);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The two well-known checks: the only macros here that return for their caller. */
#define ENTER() \
    do { \
        CUresult ordered_ = call_begins(__func__); \
        if (ordered_ != CUDA_SUCCESS) \
            return ordered_; \
    } while (0)
#define ENTER_IN(context) \
    do { \
        CUresult ordered_ = call_begins_in(__func__, &(context)); \
        if (ordered_ != CUDA_SUCCESS) \
            return ordered_; \
    } while (0)

enum kind { KIND_CONTEXT = 0x43545831, KIND_STREAM, KIND_EVENT, KIND_MODULE, KIND_FUNCTION, KIND_GRAPH, KIND_NODE,
            KIND_EXEC, KIND_OBJECT, KIND_PHYSICAL, KIND_GONE };

/* ---- space.c: addresses of device memory: what the client sees, and where it really is */
struct space {
    uintptr_t begin, end; /* as the client sees them, PROT_NONE for ever */
    ptrdiff_t shift;      /* to where it is mapped */
};
extern struct space space;
CUresult space_reserve(void);
static inline bool in_space(uintptr_t at) { return at >= space.begin && at < space.end; }
static inline void *real(uintptr_t at) { return (void *)(in_space(at) ? at + (uintptr_t)space.shift : at); }
/* Maps bytes of fd at the real side of `at`; prot as for mmap. NULL bytes of nothing. False: no memory. */
bool space_map(uintptr_t at, size_t bytes, int fd, size_t offset, int prot);
void space_unmap(uintptr_t at, size_t bytes);

/* ---- device.c */
struct device {
    int ordinal, physical;
    int fd;                 /* memory of this process on the device: a memfd, offsets as in its slab */
    uintptr_t slab;         /* first address of its slab in the space */
    size_t slab_bytes;
    uint64_t used_bytes;
    struct context *primary;
    unsigned primary_references, primary_flags;
};
extern struct device devices[MAX_DEVICES];
struct device *device_of(CUdevice ordinal); /* NULL: no such device */
bool device_reaches(const struct device *from, const struct device *to);

/* ---- context.c */
struct context {
    enum kind kind;
    struct device *device;
    bool primary;
    unsigned flags;
    unsigned long long id;
    CUresult sticky;             /* the error after which nothing works any more */
    uint32_t peers;              /* bit per device: access enabled */
    struct stream *streams;      /* all of them, `legacy` too */
    struct stream *legacy;
    struct module *modules;
    struct op *first, *last;     /* operations that have not ended, oldest first */
    unsigned kernels;            /* of them */
    struct context *next;
};
bool context_alive(const struct context *context);
struct context *context_current(void);
uint64_t thread_number(void);    /* of the calling thread, never 0, never used again */
void context_failed(struct context *context, CUresult result); /* makes it sticky */

/* ---- golden.c: calls that synchronise */
/* Waits until everything that is in flight in the context now has ended. Under the lock, which it drops meanwhile.
 * Fails while a capture forbids such calls. */
CUresult settle(struct context *context, const char *call);
/* The same for calls whose purpose it is: cuCtxSynchronize breaks no rule. */
CUresult settle_as_asked(struct context *context, const char *call);
/* Waits for one operation, or until its context fails. Under the lock. NULL: none. */
void op_wait(struct op *op, const char *call);
/* Until nothing is in flight, failed or not. */
void context_drain(struct context *context, const char *call);

/* ---- work.c: operations and their order */
enum work_kind { WORK_NOTHING, WORK_KERNEL, WORK_COPY, WORK_FILL, WORK_HOST, WORK_WRITE, WORK_WAIT, WORK_RECORD,
                 WORK_AWAIT };
struct work {
    enum work_kind kind;
    struct function *function;  /* KERNEL: with the argument, which the work owns (work_copy, work_clear) */
    void *argument;
    uint32_t n_blocks, n_threads;
    size_t shared_bytes;
    uintptr_t to, from;         /* COPY, FILL (to), WRITE and WAIT (to): as the client sees them */
    size_t bytes;               /* COPY: bytes; FILL: elements */
    uint64_t value;             /* FILL, WRITE, WAIT */
    uint32_t width;             /* of the value, in bytes */
    unsigned flags;             /* WAIT: how to compare */
    CUhostFn host;              /* HOST */
    void *data;
    struct event *event;        /* RECORD, AWAIT (of graphs) */
};
struct op {
    struct context *context;
    struct work work;
    unsigned references;        /* being in flight is one */
    unsigned pending;           /* operations that must end first; one more until it is submitted */
    bool done;
    uint64_t done_ns;
    struct op **followers;      /* operations that wait for this one */
    size_t n_followers;
    struct op *previous, *next; /* in the context's list of what is in flight */
    struct op *link;            /* in work.c's list of what has just ended */
    void (*ended)(struct op *); /* optional, under the lock */
    void *owner;                /* for `ended` */
    uint64_t begun_ns;          /* kernels: 0 until they run */
};
struct op *op_new(struct context *context, const struct work *work); /* takes the work over */
void op_after(struct op *op, struct op *before);                     /* NULL: none */
void op_submit(struct op *op);
void op_finish(struct op *op);
struct op *op_hold(struct op *op);
void op_drop(struct op *op);
bool work_copy(struct work *to, const struct work *from);
void work_clear(struct work *work);

/* ---- launch.c */
void launch_run(struct op *op); /* runs a kernel; op_finish follows from its last thread */
CUresult function_load(struct function *function, const char *call); /* lazily, at first use: synchronises */

/* ---- fault.c: what is said before the process dies of a wild access */
void fault_watch(void);
void fault_kernel(const struct op *op, uint32_t block); /* that this thread runs from now on; NULL: none */

/* ---- pool.c: threads that are made when needed and kept for a while */
bool pool_run(void (*task)(void *), void *argument); /* false: no thread could be made */

/* ---- stream.c */
struct stream {
    enum kind kind;
    struct context *context;
    bool legacy, blocking;      /* blocking: ordered with the legacy stream */
    int priority;
    unsigned flags;
    unsigned long long id;
    uint64_t owner;             /* per-thread streams: the thread; else 0 */
    struct op *last;            /* the newest operation, or NULL */
    struct capture *capture;    /* NULL: none */
    struct graph_node **tips;   /* of the capture: what the next node comes after */
    size_t n_tips;
    struct stream *next;
};
/* The stream behind a handle in the current context, or why there is none. */
CUresult stream_of(CUstream handle, struct context *context, struct stream **stream);
struct stream *stream_new(struct context *context, unsigned flags, int priority);
void stream_free(struct stream *stream);
/* Makes `op` the newest of the stream, after all that it must follow. */
void stream_order(struct stream *stream, struct op *op);
void stream_append(struct stream *stream, struct op *op); /* stream_order, submit */
/* Work of a stream: executed in its order, or put into the graph that it is captured into. Takes the work over. */
CUresult stream_work(struct stream *stream, struct work *work);
bool stream_done(struct stream *stream);
void stream_wait(struct stream *stream, const char *call);

/* ---- event.c */
struct event {
    enum kind kind;
    struct context *context;
    unsigned flags;
    struct op *op;              /* of the last record, or NULL */
    uint64_t capture_id;        /* last recorded in that capture, after these nodes; 0: in none */
    struct graph_node **tips;
    size_t n_tips;
    unsigned references;        /* its handle; nodes of graphs */
};
struct event *event_hold(struct event *event);
void event_drop(struct event *event);

/* ---- memory.c: what pointers are known */
enum memory_kind { MEMORY_DEVICE, MEMORY_PINNED, MEMORY_REGISTERED, MEMORY_MANAGED, MEMORY_VIRTUAL, MEMORY_IMPORTED,
                   MEMORY_GLOBAL };
struct memory {
    uintptr_t begin;
    size_t bytes;               /* as asked for */
    size_t mapped_bytes;
    enum memory_kind kind;
    struct device *device;
    struct context *context;
    unsigned flags;
    unsigned long long id;
    struct physical *physical;  /* VIRTUAL, with what each device may do: 0, 1 read, 3 write, too */
    unsigned char access[MAX_DEVICES];
    unsigned long long token;   /* DEVICE: tells it from a later one at its place; IMPORTED: the exporter's */
    uint64_t file;              /* IMPORTED: of the exporter */
    unsigned opened;            /* IMPORTED: how often */
};
struct memory *memory_find(uintptr_t at);          /* NULL: none holds it */
struct memory *memory_overlapping(uintptr_t begin, size_t bytes);
struct memory *memory_add(const struct memory *memory);
void memory_remove(uintptr_t begin);
void memory_remove_context(struct context *context);
/* Whether a copy may touch [at, at + bytes): within one known range, or memory of the host that is none of ours. */
bool memory_reaches(uintptr_t at, size_t bytes);
bool memory_pageable(uintptr_t at);
struct memory *memory_imported(uint64_t file, uint64_t token, const struct context *context); /* NULL: not open */
off_t memory_token_at(const struct memory *memory); /* DEVICE: where in the device's file the token stands */
/* A free place of the device's slab, or of the part for mappings (device NULL), in [low, high). 0: none. */
uintptr_t memory_place(uintptr_t low, uintptr_t high, size_t bytes, size_t alignment);
size_t page_up(size_t bytes);

/* ---- vmm.c */
struct physical;
uintptr_t mappings_begin(void); /* of the part of the space that is no device's slab */
bool reserved_overlaps(uintptr_t begin, size_t bytes, uintptr_t *end);

/* ---- module.c */
struct function {
    enum kind kind;
    struct module *module;
    char name[120];
    void (*run)(const void *argument, const struct emulated_thread *here);
    uint32_t argument_bytes;
    bool loaded;
    int attribute[16];
    struct function *next;
};
struct module {
    enum kind kind;
    struct context *context;
    void *library;
    struct function *functions;
    struct module *next;
};
void module_free(struct module *module);

/* ---- capture.c: streams whose work becomes a graph */
struct capture;
/* Whether a capture forbids a call that is unsafe while it runs: then it is invalidated. */
CUresult capture_forbids(const char *call);
CUresult capture_work(struct stream *stream, struct work *work);  /* takes the work over */
CUresult capture_record(struct stream *stream, struct event *event);
/* The stream waits for an event that was recorded in a capture. */
CUresult capture_join(struct stream *stream, struct event *event);
CUresult capture_breaks(struct stream *stream); /* a call that no capturing stream allows: invalidates */
bool capture_blocks_legacy(const struct context *context); /* some blocking stream of the context is being captured */
void capture_forget(struct stream *stream); /* it is destroyed */

/* ---- graph.c: graphs, and what executes them; all under the lock */
struct graph_node {
    enum kind kind;
    struct graph *graph;
    struct context *context;
    struct work work;
    struct graph_node **before;  /* what it comes after */
    size_t n_before;
    size_t index;                /* in its graph: those before it have smaller ones */
    bool seen;                   /* by the walk that is under way */
};
struct graph {
    enum kind kind;
    struct graph_node **nodes;
    size_t n;
    struct holding *holdings;    /* user objects */
};
struct graph *graph_new(void);
/* Takes the work over. NULL: no memory. */
struct graph_node *graph_add(struct graph *graph, struct context *context, struct work *work,
                             struct graph_node *const *before, size_t n_before);
void graph_free(struct graph *graph);

/* ---- user_object.c: what graphs keep alive for their client */
struct holding {
    struct user_object *object;
    unsigned count;
    struct holding *next;
};
bool holdings_copy(struct holding **to, const struct holding *from); /* one reference of each */
void holdings_free(struct holding **holdings);

#endif
