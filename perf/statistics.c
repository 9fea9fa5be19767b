/* statistics.c - see statistics.h. */
#include "statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The smallest value that at least `percent` of all values do not exceed. */
static double nearest_rank(const double *sorted, size_t n, size_t percent)
{
    size_t rank = (n * percent + 99) / 100;
    return sorted[rank ? rank - 1 : 0];
}

struct perf_statistics perf_statistics_of(const double *value, size_t n)
{
    struct perf_statistics s = {0};
    double *sorted = malloc(n * sizeof *sorted), sum = 0, squares = 0;
    if (!sorted) abort();
    memcpy(sorted, value, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare);
    for (size_t i = 0; i < n; i++) sum += sorted[i];
    s.mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += (sorted[i] - s.mean) * (sorted[i] - s.mean);
    s.deviation = sqrt(squares / (double)n);
    s.min = sorted[0];
    s.max = sorted[n - 1];
    s.p50 = nearest_rank(sorted, n, 50);
    s.p95 = nearest_rank(sorted, n, 95);
    s.p99 = nearest_rank(sorted, n, 99);
    free(sorted);
    return s;
}
