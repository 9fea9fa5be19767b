/* statistics.h - what -I says about the iterations of one measurement. */
#ifndef PERF_STATISTICS_H
#define PERF_STATISTICS_H

#include <stddef.h>

struct perf_statistics { double min, max, mean, p50, p95, p99, deviation; };

/* Of n > 0 values. Percentiles are by nearest rank: the p99 of fewer than 100 values is the maximum. */
struct perf_statistics perf_statistics_of(const double *value, size_t n);

#endif
