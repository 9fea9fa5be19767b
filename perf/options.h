/* options.h - the command line: nccl-tests' options with nccl-tests' meanings, and a few of our own. */
#ifndef PERF_OPTIONS_H
#define PERF_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum perf_average { PERF_RANK0, PERF_MEAN, PERF_FASTEST, PERF_SLOWEST }; /* -a 0 1 2 3 */
enum perf_break { PERF_BREAK_NOTHING, PERF_BREAK_OUTPUT, PERF_BREAK_INPUT, PERF_BREAK_GUARD };
enum { PERF_ALL = -1 };

struct perf_options {
    int threads, ranks_per_thread;      /* -t -g */
    size_t min_bytes, max_bytes;        /* -b -e */
    size_t step_bytes, step_factor;     /* -i -f; the factor wins when above 1 */
    int iterations, aggregate, cycles;  /* -n (0: as many as last 50 ms) -m -N (0: for ever) */
    int warmup;                         /* -w; -1: chosen by size */
    bool parallel_init;                 /* -p */
    int checks;                         /* -c: how many checked operations per row and placement */
    int op, type, root;                 /* -o -d -r; PERF_ALL */
    int blocking;                       /* -z */
    int timeout_s;                      /* -T; 0: none */
    int graphs;                         /* -G; 0: none */
    bool cpu_time;                      /* -C */
    enum perf_average average;          /* -a */
    int registration;                   /* -R */
    bool timestamps, memory_report;     /* -S -M */
    const char *json_path;              /* -J */
    size_t unalign;                     /* -u, in elements, or in bytes with unalign_in_bytes */
    bool unalign_in_bytes;
    bool per_iteration;                 /* -I */
    int per_iteration_skip;             /* -K */
    enum perf_break break_what;         /* --break */
    double least_bus_bandwidth;         /* NCCL_TESTS_MIN_BW in GB/s; negative: not checked */
};

enum perf_parsed { PERF_RUN, PERF_HELPED, PERF_BAD_USAGE };

/* Parses the command line and NCCL_TESTS_* of the environment. Complaints, naming option and remedy, go to `errors`,
 * the help text to `out`. argv is permuted as getopt does. */
enum perf_parsed perf_options_parse(int argc, char **argv, struct perf_options *options, FILE *out, FILE *errors);

/* The size after `bytes`, or SIZE_MAX after the last. */
size_t perf_options_next_size(const struct perf_options *options, size_t bytes);

#endif
