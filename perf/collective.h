/* collective.h - one table per collective: everything that tells one benchmark from its sisters.
 *
 * A new benchmark is a file NAME_perf.c with such a table and a main() that hands it to perf_main(). */
#ifndef PERF_COLLECTIVE_H
#define PERF_COLLECTIVE_H

#include <stdbool.h>
#include <stddef.h>

#include "nccl.h"

/* Element counts for one row of the table, per rank. Offsets are where the send and the receive buffer begin inside the
 * one buffer of an in-place call. */
struct perf_shape {
    size_t send, receive;     /* sizes of the two buffers */
    size_t parameter;         /* the count passed to the call, shown as "count" */
    size_t inplace_send_rank; /* send buffer at this many elements times the rank */
    size_t inplace_receive_rank;
};

/* A stretch of what rank `rank` must have in its receive buffer afterwards. */
struct perf_block {
    size_t offset, count; /* in the receive buffer */
    int source;           /* the rank whose input this is, or VALUES_REDUCED: the reduction over all ranks */
    size_t first;         /* number of the first element in the source's input */
};

struct perf_gpu;
struct perf_call {
    const void *send;
    void *receive;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t op;
    int root;
    int rank, n_ranks;
    int round; /* below the collective's rounds */
    ncclComm_t comm;
    cudaStream_t stream;
    struct perf_gpu *gpu; /* NULL: host memory */
    ncclWindow_t window; /* over the receive buffers, where the collective is one-sided */
};

struct perf_collective {
    const char *name; /* "all_reduce" */
    bool uses_op, uses_root;
    bool no_in_place;  /* the in-place columns say N/A */
    bool one_sided;    /* needs windows: as with -R 2 */
    bool several;      /* call() makes several calls, which belong into one group */
    /* Operations that need one another's results: call() is made for each round, all ranks' together, and a round is
     * complete before the next begins. NULL: one. */
    int (*rounds)(int n_ranks);
    /* NULL, or why it cannot be done with so many ranks. */
    const char *(*unfit)(int n_ranks);
    /* `elements`: how many fit into the size asked for. */
    struct perf_shape (*shape)(size_t elements, int n_ranks);
    /* busbw / algbw; algbw is the size shown in the row (the larger buffer) per time. */
    double (*bus_factor)(int n_ranks);
    ncclResult_t (*call)(const struct perf_call *call);
    /* Fills *out with stretch number `index` of what `rank` must receive; false when there is none. */
    bool (*expect)(size_t elements, int n_ranks, int rank, int root, int index, struct perf_block *out);
};

/* The whole program. Exit status: 0 all right, 1 wrong results or a failed call, 2 bad usage, 3 time-out. */
int perf_main(const struct perf_collective *collective, int argc, char **argv);

#endif
