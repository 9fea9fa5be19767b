/* tune.c - `railccl tune`: which AllReduce is the fastest at each size on a network, what the chooser takes, what that
 * costs, and the settings by which it would take the fastest. Predicted, as `railccl plan` does; with --measure measured
 * on this machine (tune.h). */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plan.h"
#include "tool.h"
#include "topo/machine.h"
#include "tune.h"

enum { TUNED = 5 };
static const int candidates[TUNED] = {PLAN_HIERARCHY, PLAN_DOUBLING, PLAN_TREE, PLAN_RING, PLAN_RAILS};

struct limits { uint64_t hierarchy_max, doubling_max, tree_max, rails_min; };

static const struct plan_row *row_of(const struct plan_view *v, int asked, uint64_t bytes)
{
    for (uint32_t k = 0; k < v->n_rows; k++)
        if (v->rows[k].asked == asked && v->rows[k].bytes == bytes) return v->rows[k].why[0] ? NULL : &v->rows[k];
    return NULL;
}

static const struct plan_row *best_of(const struct plan_view *v, uint64_t bytes)
{
    const struct plan_row *best = row_of(v, -1, bytes);
    for (int a = 0; a < TUNED; a++) {
        const struct plan_row *r = row_of(v, candidates[a], bytes);
        if (r && (!best || r->ns < best->ns)) best = r;
    }
    return best;
}

/* Nanoseconds by candidate and size; 0: it does not fit. */
struct times { double ns[TUNED][PLAN_SIZES_MAX], best[PLAN_SIZES_MAX]; };

/* The chooser takes rails only where a window leaves a rank 4 KiB (algos/choose.c); by name it would take less. */
static bool rails_are_chosen(const struct plan_wish *w)
{
    uint64_t ranks = (uint64_t)w->job_hosts * w->gpus, window = ranks * 16384;
    if (window < 1 << 20) window = 1 << 20;
    if (window > 8 << 20) window = 8 << 20;
    if (w->window_bytes) window = w->window_bytes;
    return window / ranks >= 4096;
}

static void take_times(const struct plan_view *v, struct times *t)
{
    for (uint32_t k = 0; k < v->wish->n_sizes; k++) {
        const struct plan_row *best = best_of(v, v->wish->sizes[k]);
        t->best[k] = best ? best->ns : 0;
        for (int a = 0; a < TUNED; a++) {
            const struct plan_row *r = row_of(v, candidates[a], v->wish->sizes[k]);
            t->ns[a][k] = r && (candidates[a] != PLAN_RAILS || rails_are_chosen(v->wish)) ? r->ns : 0;
        }
    }
}

/* The candidate by the order in which the chooser asks (algos/choose.c). */
static int taken_by(const struct limits *l, const struct times *t, uint32_t size, uint64_t bytes)
{
    enum { HIERARCHY, DOUBLING, TREE, RING, RAILS };
    if (bytes <= l->hierarchy_max && t->ns[HIERARCHY][size] > 0) return HIERARCHY;
    if (bytes >= l->rails_min && t->ns[RAILS][size] > 0) return RAILS;
    if (bytes <= l->doubling_max && t->ns[DOUBLING][size] > 0) return DOUBLING;
    return bytes <= l->tree_max ? TREE : RING;
}

/* How far these limits are off, all sizes: the logarithm of the product of their factors. */
static double how_far(const struct plan_wish *w, const struct limits *l, const struct times *t)
{
    double sum = 0;
    for (uint32_t k = 0; k < w->n_sizes; k++) {
        double ns = t->ns[taken_by(l, t, k, w->sizes[k])][k];
        if (ns > 0 && t->best[k] > 0) sum += log(ns / t->best[k]);
    }
    return sum;
}

/* Choice `i`, of as many as sizes and one more. The largest size stands for all beyond it. */
static uint64_t max_at(const struct plan_wish *w, uint32_t i)
{
    return i == 0 ? 0 : i == w->n_sizes ? UINT64_MAX : w->sizes[i - 1];
}
static uint64_t min_at(const struct plan_wish *w, uint32_t i) { return i == w->n_sizes ? UINT64_MAX : w->sizes[i]; }

/* All of them are tried: some sizes to the power of four, of which each is a sum. Of equals the first, with the lowest
 * limits. */
static struct limits find_limits(const struct plan_wish *w, const struct times *t)
{
    struct limits best = {.rails_min = UINT64_MAX}, l;
    double least = how_far(w, &best, t);
    uint32_t n = w->n_sizes + 1;
    for (uint32_t r = n; r-- > 0;)
        for (uint32_t h = 0; h < n; h++)
            for (uint32_t d = 0; d < n; d++)
                for (uint32_t k = 0; k < n; k++) {
                    l = (struct limits){max_at(w, h), max_at(w, d), max_at(w, k), min_at(w, r)};
                    double far = how_far(w, &l, t);
                    if (far < least - 1e-9) least = far, best = l;
                }
    return best;
}

/* What a row waits for. */
static const char *reason(const struct plan_row *r, char out[64])
{
    if (r->ns <= 1.1 * r->link_ns) snprintf(out, 64, "wires");
    else if (r->local_ns >= r->ns) snprintf(out, 64, "memory of peers");
    else if (r->rounds > 1) snprintf(out, 64, "%u hops a round, %llu rounds", r->chain, (unsigned long long)r->rounds);
    else snprintf(out, 64, "%u hops", r->chain);
    return out;
}

static void print_sizes(const struct plan_view *v, const struct limits *l, const struct times *t)
{
    char size[24], time[24], best_time[24], why[64], best_why[64];
    printf("      size  chooser    time        waits for                     fastest    time        waits for          "
           "           factor  tuned\n");
    for (uint32_t k = 0; k < v->wish->n_sizes; k++) {
        uint64_t bytes = v->wish->sizes[k];
        const struct plan_row *mine = row_of(v, -1, bytes), *best = best_of(v, bytes);
        const struct plan_row *tuned = row_of(v, candidates[taken_by(l, t, k, bytes)], bytes);
        if (!mine || !best) continue;
        printf("%10s  %-9s  %-10s  %-28s  %-9s  %-10s  %-28s  %6.2f  ", plan_size_text((double)bytes, size),
               plan_algorithm_names[mine->algorithm], plan_time_text(mine->ns, time), reason(mine, why),
               plan_algorithm_names[best->algorithm], plan_time_text(best->ns, best_time), reason(best, best_why),
               mine->ns / best->ns);
        if (tuned) printf("%s %.2f\n", plan_algorithm_names[tuned->algorithm], tuned->ns / best->ns);
        else printf("-\n");
    }
}

static void print_limit(const char *name, uint64_t value)
{
    if (value == UINT64_MAX) printf("  %s=1099511627776\n", name); /* the largest that there is */
    else printf("  %s=%llu\n", name, (unsigned long long)value);
}

static int tune(struct plan_view *v)
{
    plan_print_head(v, stdout);
    fflush(stdout);
    if (plan_run_cases(v) != RAIL_OK) return plan_complain();
    struct times t = {0};
    take_times(v, &t);
    struct limits l = find_limits(v->wish, &t);
    print_sizes(v, &l, &t);
    printf("\nfactor: the chooser's time over the fastest; tuned: what the chooser would take by these settings, and "
           "its factor\n");
    print_limit("RAILCCL_HIERARCHY_MAX_BYTES", l.hierarchy_max);
    print_limit("RAILCCL_DOUBLING_MAX_BYTES", l.doubling_max);
    print_limit("RAILCCL_TREE_MAX_BYTES", l.tree_max);
    print_limit("RAILCCL_RAILS_MIN_BYTES", l.rails_min);
    if (!v->wish->plot) return 0;
    FILE *out = fopen(v->wish->plot, "w");
    int bad = !out || plan_write_plot(v, out) != 0;
    if (out && fclose(out) != 0) bad = 1;
    if (bad) fprintf(stderr, "railccl tune: %s: cannot be written\n", v->wish->plot);
    return bad ? 2 : 0;
}

static int write_file(const char *path, const struct tune_view *v, int (*write)(const struct tune_view *v, FILE *out))
{
    FILE *out = fopen(path, "we");
    int bad = !out || write(v, out) != 0;
    if (out && fclose(out) != 0) bad = 1;
    return bad ? fprintf(stderr, "railccl tune: %s: cannot be written: %s\n", path, strerror(errno)), 2 : 0;
}

/* Known before minutes are spent on what could then not be kept. */
static bool can_be_written(const char *path)
{
    bool there = access(path, F_OK) == 0;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) return fprintf(stderr, "railccl tune: %s: cannot be written: %s\n", path, strerror(errno)), false;
    close(fd);
    if (!there) unlink(path);
    return true;
}

/* 1: at some size the chooser is too far off. */
static int verdict(const struct tune_view *v)
{
    double factor;
    for (int c = 0; c < PLAN_COLLECTIVES; c++)
        for (int k = 0; v->sweeps[c] && k < v->sweeps[c]->n_sizes; k++) {
            tune_best(v->sweeps[c], k, &factor);
            if (factor > TUNE_ENOUGH) return 1;
        }
    return 0;
}

int tune_measured(int argc, char **argv)
{
    static struct tune_view v;
    int status = tune_read_options(&v.wish, argc, argv);
    if (status >= 0) return status;
    if (v.wish.save && !tune_may_save()) return 2;
    if ((v.wish.json && !can_be_written(v.wish.json)) || (v.wish.plot && !can_be_written(v.wish.plot))) return 2;
    machine_cpu_name(v.cpu);
    v.cores = machine_cores();
    status = v.wish.from ? tune_from(&v) : 0;
    if (!status && !tune_look(&v)) status = 2;
    if (!status && !v.wish.from) status = tune_measure(&v);
    if (!status) {
        tune_judge(&v);
        tune_print(&v, stdout);
        if (v.wish.json) status = write_file(v.wish.json, &v, tune_write_json);
        if (v.wish.plot && !status) status = write_file(v.wish.plot, &v, tune_write_plot);
        if (v.wish.save && !status) status = tune_save(&v);
        if (!status) status = verdict(&v);
    }
    for (int c = 0; c < PLAN_COLLECTIVES; c++) free(v.sweeps[c]);
    shape_clear(&v.shape);
    return status;
}

static int run(int argc, char **argv)
{
    for (int k = 1; k < argc; k++)
        if (strcmp(argv[k], "--measure") == 0 || strcmp(argv[k], "--from") == 0 || strcmp(argv[k], "--save") == 0)
            return tune_measured(argc, argv);
    struct plan_wish w = plan_wish_default();
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        printf("Usage: railccl tune [options of `railccl plan`]\n"
               "Predicts every AllReduce between hosts over sizes (--sizes, 1K:16G), compares the fastest with what "
               "the chooser takes,\n"
               "and prints the settings that would make it take the fastest. --plot FILE draws the crossovers.\n\n"
               "       railccl tune --measure [-n RANKS] [options]\n"
               "The same measured on this machine: every collective, in one host or several pretended ones; "
               "`railccl tune --measure --help`.\n");
        return 0;
    }
    w.n_sizes = 0;
    for (uint64_t bytes = 1024; bytes <= (uint64_t)16 << 30; bytes *= 4) w.sizes[w.n_sizes++] = bytes;
    int status = plan_read_options(&w, argc, argv);
    if (status >= 0) return status;
    if (w.collective != PLAN_ALLREDUCE || w.send_recv || w.json || w.svg || w.compare || w.n_fails)
        return fprintf(stderr,
                       "railccl tune: AllReduce, as a table and --plot: no --collective, --json, --svg, --compare, "
                       "--fail\n"),
               2;
    w.algorithms[0] = -1;
    for (int a = 0; a < TUNED; a++) w.algorithms[a + 1] = candidates[a];
    w.n_algorithms = TUNED + 1;
    return plan_with(&w, tune);
}

const struct tool_command tool_tune = {
    "tune", "The fastest algorithm by size, measured or predicted, and what makes it chosen.", run};
