/* report.h - the table, with nccl-tests' columns and lines, and the same as JSON with nccl-tests' keys. */
#ifndef PERF_REPORT_H
#define PERF_REPORT_H

#include "json.h"
#include "program.h"

/* One line of the list of ranks. */
struct perf_who { char host[64]; char kind[32]; int pid; };
enum { PERF_WHO_TEXT = 104 }; /* "pid kind host" fits */

struct perf_result {
    double seconds, algbw, busbw; /* GB/s, 10^9 bytes */
    double wrong;                 /* negative: not checked */
    struct perf_timing timing;
};

void perf_report_start(struct perf_process *process, const struct perf_who *who, int argc, char **argv);
void perf_report_row(struct perf_process *process, const struct perf_case *c);
void perf_report_result(struct perf_process *process, const struct perf_case *c, const struct perf_result *result);
/* In the place of the in-place result of a collective that has none. */
void perf_report_no_result(struct perf_process *process);
void perf_report_row_end(struct perf_process *process, const struct perf_result *last);
/* Returns whether the bandwidth is enough for NCCL_TESTS_MIN_BW. */
bool perf_report_end(struct perf_process *process, double wrong, double mean_busbw);
/* A number in `width` characters with as many decimals as fit. */
void perf_report_fit(char *out, size_t out_bytes, int width, double value);

#endif
