/* plan.h - what the parts of `railccl plan` share: the wish, one row per case that was simulated, the loads of one of
 * them. */
#ifndef TOOLS_PLAN_H
#define TOOLS_PLAN_H

#include <stdio.h>

#include "simulate/clocks.h"
#include "simulate/timeline.h"
#include "topo/fabric.h"

enum { PLAN_ROWS_MAX = 512, PLAN_FAULTS_MAX = 64, PLAN_JOBS_MAX = 64, PLAN_SIZES_MAX = 32, PLAN_TOPOLOGIES_MAX = 1024 };

enum plan_placement { PLACE_WHOLE, PLACE_FRAGMENTED, PLACE_SHUFFLED };

struct plan_wish {
    const char *fabric_file, *svg, *plot, *timeline, *topologies[PLAN_TOPOLOGIES_MAX];
    uint32_t n_topologies;
    struct network_request network;
    enum plan_collective collective;
    bool send_recv;                 /* instead of it, to the rank `shift` on */
    uint32_t shift;
    uint64_t sizes[PLAN_SIZES_MAX];
    int algorithms[PLAN_ALGORITHMS + 1]; /* -1: the chooser's */
    uint32_t n_sizes, n_algorithms, gpus, jobs, job_hosts, root, flows, channels, window_bytes, slot_bytes;
    enum plan_placement placement;
    uint64_t seed;
    bool as_given, unaware, compare, json, all, classes, gpus_asked;
    struct simulate_machine costs; /* a copy of a machine's, with what --cost says */
    const struct simulate_machine *machine; /* these */
    struct { const char *what; double factor; } faults[PLAN_FAULTS_MAX];
    uint32_t n_faults;
    struct timeline_fault fails[REPAIRS_FAULTS_MAX]; /* under the call */
    uint32_t n_fails;
    double memory_gib;
};

struct plan_row {
    int asked;                      /* algorithm, -1: the chooser's */
    enum plan_algorithm algorithm;
    bool as_given, unaware, by_classes;
    uint64_t bytes, rounds, plans;
    uint32_t channels, chain, clocks, checked;
    double ns, clock_ns, link_ns, local_ns; /* the slowest job's */
    double sent, cross_rail, by_switches[LAY_SWITCHES], host_most; /* all jobs; host_most: one host */
    double least_ns;                /* what each host must send, by the rate of its NICs */
    struct lay_summary loads;
    char why[300];                  /* "" : it was simulated; else why not */
};

struct plan_view {
    const struct plan_wish *wish;
    struct fabric *fabric;
    struct network network;
    struct network_host *described; /* of topology files */
    uint32_t *hosts;                /* [n_hosts] in the order of placement; job j has job_hosts of them */
    uint64_t memory;                /* bound, bytes */
    struct plan_row rows[PLAN_ROWS_MAX];
    uint32_t n_rows, drawn;         /* the row whose loads are kept */
    double *loads;                  /* [network.n_links] of the row that ran last */
};

double plan_switches(const struct plan_row *row); /* mean per byte */
double plan_bus_factor(const struct plan_wish *wish); /* of a job */
const char *plan_call_name(const struct plan_wish *wish);
const char *plan_row_name(const struct plan_row *row); /* its algorithm */

void plan_print_head(const struct plan_view *v, FILE *out);
void plan_print_rows(const struct plan_view *v, FILE *out);
void plan_write_json(const struct plan_view *v, FILE *out);
int plan_write_svg(const struct plan_view *v, FILE *out);  /* the last row's loads */
int plan_write_plot(const struct plan_view *v, FILE *out); /* all rows, by size */

/* plan.c. Makes the network and the hosts' order of a wish, and hands over; the exit status. */
struct plan_wish plan_wish_default(void);
int plan_with(struct plan_wish *wish, int (*do_it)(struct plan_view *v));
enum rail_result plan_run_cases(struct plan_view *v); /* every algorithm and size of the wish, a row each */
struct job_request plan_request(const struct plan_view *v, const struct plan_row *row, uint32_t job);
int plan_show_timeline(struct plan_view *v);          /* plan_timeline.c: the first case, with `fails` */
void plan_json_text(FILE *out, const char *text);     /* quoted */
/* plan_topology.c. The caller frees the hosts. */
enum rail_result plan_read_topologies(const char *const *paths, uint32_t n, struct network_host **out, uint32_t *n_out);
int plan_complain(void);                              /* says the last error; 2 */

const char *plan_size_text(double bytes, char out[24]);
const char *plan_time_text(double ns, char out[24]);

/* plan_options.c. -1: go on; else the exit status. */
int plan_read_options(struct plan_wish *wish, int argc, char **argv);

#endif
