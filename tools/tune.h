/* tune.h - the parts of `railccl tune --measure`: the chooser beside every algorithm, on this machine.
 *
 *   tune.c           the door, and what is predicted of networks that are described
 *   tune_options.c   the command line of --measure
 *   tune_measure.c   the sweep: which programs run in which order, and what they tell
 *   tune_child.c     one run, with a deadline, ended by signals
 *   tune_from.c      a sweep that --json wrote, instead
 *   tune_limits.c    factors; which limit decided; the limits by which the chooser would take the fastest
 *   tune_save.c      the limits into the tuning file (core/tuning.h)
 *   tune_print.c     the table and JSON;   tune_plot.c the picture */
#ifndef TOOLS_TUNE_H
#define TOOLS_TUNE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/table.h"

/* A run of measurements is of an algorithm by name, or what the chooser takes. */
enum { TUNE_SIZES_MAX = 48, TUNE_ROUNDS_MAX = 33, TUNE_CHOOSER = PLAN_ALGORITHMS, TUNE_KINDS };
#define TUNE_ENOUGH 1.10 /* the factor above which a choice counts as wrong */

struct tune_wish {
    int ranks, hosts, rounds, timeout_s;
    uint64_t from_bytes, to_bytes; /* of the message, as the perf programs count it */
    uint32_t collectives;          /* a bit each */
    const char *json, *plot, *from;
    bool save;
};

struct tune_sweep {
    enum plan_collective collective;
    int n_sizes;
    uint64_t size[TUNE_SIZES_MAX];  /* of the message */
    uint64_t bytes[TUNE_SIZES_MAX]; /* what the chooser is asked: one block */
    enum plan_algorithm took[TUNE_SIZES_MAX]; /* the chooser's, when it was measured */
    int rounds[TUNE_KINDS];         /* how often it ran; 0: it does not apply */
    double factor[PLAN_ALGORITHMS][TUNE_SIZES_MAX]; /* tune_judge's */
    double us[TUNE_KINDS][TUNE_ROUNDS_MAX][TUNE_SIZES_MAX];
};

struct tune_view {
    struct tune_wish wish;
    char cpu[96];
    int cores;
    struct shape shape;
    struct choice_table table;      /* that communicators of this shape agree on here */
    struct tune_sweep *sweeps[PLAN_COLLECTIVES]; /* NULL: not measured */
    bool free[TABLE_LIMITS];        /* nothing that was not measured hangs on it */
    bool moved[TABLE_LIMITS];
    struct choice_table settings;   /* by which the chooser would take the fastest; `moved` says which limits differ */
};

const char *tune_collective_name(enum plan_collective c); /* "all_reduce" */
/* -1: go on; else the exit status. */
int tune_read_options(struct tune_wish *wish, int argc, char **argv);
int tune_measured(int argc, char **argv); /* --measure, from the command line on */

/* Shape and table of a number of ranks here. False with the reason said. */
bool tune_look(struct tune_view *v);
/* Fills in the sweeps; an exit status, 0 good. */
int tune_measure(struct tune_view *v);
int tune_from(struct tune_view *v);

/* One run of a program with its JSON read into `us` by size; an exit status, 0 good, with the reason said. */
struct tune_child {
    const struct tune_wish *wish;
    const char *folder;       /* for its files */
    enum plan_collective collective;
    int kind;
    uint64_t from_bytes;
    bool check;               /* verify results too */
    struct tune_sweep *sweep; /* in: the sizes, or none: the first run says them */
    double *us;
};
int tune_child_run(const struct tune_child *child);

/* ---- what it means ---- */
double tune_median(const struct tune_sweep *s, int kind, int size); /* us; 0: not measured */
/* Fills in factors (time of what the chooser took over that of an algorithm: the median of the rounds' ratios, so that
 * what slows a whole round falls out; 0: not measured), `free`, and the settings. */
void tune_judge(struct tune_view *v);
/* The fastest algorithm, and the chooser's factor against it, 1 at least. */
int tune_best(const struct tune_sweep *s, int size, double *factor);
/* "<= RAILCCL_ONESHOT_MAX_BYTES=20480": the limits that would change the choice if they lay on the other side. */
const char *tune_why(const struct tune_view *v, const struct tune_sweep *s, int size, char out[256]);
/* What the chooser would take by the settings. */
enum plan_algorithm tune_tuned(const struct tune_view *v, const struct tune_sweep *s, int size);
/* Whether anything of what was measured hangs on a limit. */
bool tune_limit_matters(const struct tune_view *v, int limit);
const char *tune_limit_text(uint64_t bytes, char out[24]); /* as the variable wants it */

/* Whether --save can work; false with the reason said. */
bool tune_may_save(void);
int tune_save(const struct tune_view *v); /* an exit status, 0 good */

void tune_print(const struct tune_view *v, FILE *out);
int tune_write_json(const struct tune_view *v, FILE *out);
int tune_write_plot(const struct tune_view *v, FILE *out);

#endif
