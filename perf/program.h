/* program.h - the state of a running benchmark: one process, its threads, their ranks. */
#ifndef PERF_PROGRAM_H
#define PERF_PROGRAM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "buffers.h"
#include "collective.h"
#include "gpu.h"
#include "options.h"
#include "railccl.h"
#include "values.h"

struct perf_json;

/* Everything that is the same for all threads of a process; read-only after the start but for the atomics. */
struct perf_process {
    const struct perf_collective *collective;
    const struct perf_options *options;
    railLaunch_t launch; /* of the process: launch.rank is the number of the process */
    int n_ranks, n_threads; /* over all processes */
    int first_rank;         /* of this process */
    bool printer;           /* the process that prints the table */
    ncclUniqueId id;
    struct perf_json *json; /* printer's, or NULL */
    pthread_barrier_t meeting; /* of this process's threads */
    _Atomic uint64_t wrong; /* found by this process itself, however it is told to others */
    _Atomic uint64_t alive_at_ns; /* for the time-out: last sign of progress */
    atomic_int complaints;  /* lines written about wrong elements */
};

struct perf_rank {
    int rank;
    ncclComm_t comm;
    struct perf_gpu *gpu;     /* NULL: host memory */
    cudaStream_t stream;      /* the GPU's; NULL in host memory: calls are complete on return */
    struct perf_buffer send, receive;
    void *registered[2]; /* handles of -R, for send and receive */
    union values_table input, reduced; /* of the type and operator under test */
    ncclRedOp_t op;
};

struct perf_thread {
    struct perf_process *process;
    int index; /* in the process */
    struct perf_rank *ranks; /* options->ranks_per_thread */
    double *side;            /* side.c's, which every rank reaches */
    size_t side_bytes;
};

/* One row and placement. */
struct perf_case {
    int type, op, root;
    size_t elements; /* that fit into the size asked for */
    struct perf_shape shape;
    size_t row_bytes; /* the larger buffer */
    bool in_place;
    uint64_t serial; /* a different number for every case: makes its data different */
};

/* Where a rank's buffers lie in a case: what calls are given, and what the program sees of it (buffers.h). */
void *perf_case_send(const struct perf_case *c, const struct perf_rank *rank);
void *perf_case_receive(const struct perf_case *c, const struct perf_rank *rank);
void *perf_case_send_seen(const struct perf_case *c, const struct perf_rank *rank);
void *perf_case_receive_seen(const struct perf_case *c, const struct perf_rank *rank);
/* Both buffers' used bytes and guards, from or to what the program sees. */
void perf_case_push(const struct perf_case *c, struct perf_rank *rank);
void perf_case_pull(const struct perf_case *c, struct perf_rank *rank);
/* The whole buffer that is in use in receive, and its bytes (in place: the larger of the two). */
size_t perf_case_receive_bytes(const struct perf_case *c);

/* Ends the process with status 1 unless the result is ncclSuccess, saying which call failed and why. A rank that fails
 * cannot go on, and the others learn of its end by its connections. */
void perf_must(const struct perf_rank *rank, const char *call, ncclResult_t result);
_Noreturn void perf_die(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Issues the case's operation `aggregate` times on all ranks of the thread, as one group when that is more than one
 * call; what has rounds one round after another. */
void perf_issue(struct perf_thread *thread, const struct perf_case *c, int aggregate);
/* Waits until all of it is done, or a communicator of the thread has failed, which ends the process. In host memory
 * that is so on return of perf_issue. */
void perf_finish(struct perf_thread *thread);

/* Waits for the process's other threads. Allocating, freeing and the like may wait for all that runs on a GPU, where
 * another thread's kernel may be waiting for this thread's: so all meet before, with nothing running, and behind. */
void perf_threads_meet(struct perf_thread *thread);

/* launch.c: who am I, communicators. */
void perf_launch(struct perf_process *process);
void perf_communicators_create(struct perf_process *process, struct perf_thread *threads, int first, int n_threads);
void perf_communicators_destroy(struct perf_thread *thread);

/* side.c: numbers from thread to thread over the communicator itself, outside the timed part. Every thread calls. */
enum perf_side { PERF_SIDE_SUM, PERF_SIDE_MAX };
void perf_side_reduce(struct perf_thread *thread, double *value, size_t count, enum perf_side how);
struct perf_spread { double sum, max, min, first; }; /* over all threads; first: rank 0's */
struct perf_spread perf_side_spread(struct perf_thread *thread, double value);
void perf_side_barrier(struct perf_thread *thread);
/* Every rank gives `bytes` of text, gets everybody's (n_ranks * bytes). */
void perf_side_gather(struct perf_thread *thread, const char *own, size_t bytes, char *all);
/* Its memory, before the thread's communicators and GPUs go. */
void perf_side_free(struct perf_thread *thread);

/* measure.c: the timed loop. */
struct perf_timing {
    double seconds;         /* per operation, by the chosen average */
    uint64_t iterations;
    double *each;           /* seconds of each iteration, maximum over the ranks; NULL without -I; malloc'ed */
    double *per_process;    /* the same for every process; NULL with one process; malloc'ed */
};
struct perf_timing perf_measure(struct perf_thread *thread, const struct perf_case *c);

/* verify.c: checked operations; returns the wrong elements over all ranks and checks. */
double perf_verify(struct perf_thread *thread, const struct perf_case *c);

#endif
