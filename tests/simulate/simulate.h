/* simulate.h - networks and jobs for the tests of simulate/. */
#ifndef RAIL_TESTS_SIMULATE_SIMULATE_H
#define RAIL_TESTS_SIMULATE_SIMULATE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/result.h"
#include "simulate/classes.h"
#include "simulate/messages.h"

/* A machine of round numbers: NICs of 8 Gbit/s are 1 byte/ns. */
static const struct simulate_machine plain = {.name = "plain", .source = "a test", .nic_gbit = 8, .payload = 1};

static inline struct network network_with(const struct network_request *request)
{
    struct network n;
    struct network_request q = *request;
    if (!q.nic_gbit) q.nic_gbit = 8;
    if (network_make(&n, &q) != RAIL_OK) fail_msg("%s", rail_last_error());
    return n;
}

/* Hosts 0 .. n-1, in order. */
static inline uint32_t *all_hosts(uint32_t n)
{
    uint32_t *hosts = malloc(n * sizeof *hosts);
    assert_non_null(hosts);
    for (uint32_t h = 0; h < n; h++) hosts[h] = h;
    return hosts;
}

/* A job laid alone. */
struct laid {
    struct job job;
    double *loads;
    struct lay_report report;
    struct lay_summary summary;
    struct clocks_report clocks;
};

static inline enum rail_result lay_try(struct laid *out, const struct network *n, const struct job_request *ask)
{
    *out = (struct laid){.loads = calloc(n->n_links + 1, sizeof(double))};
    assert_non_null(out->loads);
    RAIL_TRY(job_make(&out->job, n, ask));
    RAIL_TRY(lay_job(&out->job, n, out->loads, &out->report, NULL, NULL));
    RAIL_TRY(lay_settle(&out->job, 1, n, out->loads, &out->report));
    lay_summarize(n, out->loads, &out->summary);
    return clocks_run(&out->job, n, out->loads, &out->report, &out->summary, &out->clocks);
}

static inline void laid_clear(struct laid *l)
{
    job_clear(&l->job);
    free(l->loads);
}

static inline struct laid lay_must(const struct network *n, const struct job_request *ask)
{
    struct laid l;
    if (lay_try(&l, n, ask) != RAIL_OK) fail_msg("%s", rail_last_error());
    return l;
}

static inline bool near(double a, double b, double share)
{
    double apart = a > b ? a - b : b - a;
    return apart <= share * (a > b ? a : b) + 1e-9;
}

#endif
