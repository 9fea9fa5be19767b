/* report.c - see report.h. Only the thread that prints comes here. */
#include "report.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "statistics.h"
#include "types.h"

static const char time_format[] = "%Y-%m-%d %H:%M:%S";

static const char *time_text(char *out, size_t bytes)
{
    time_t seconds = time(NULL);
    struct tm broken;
    strftime(out, bytes, time_format, localtime_r(&seconds, &broken));
    return out;
}

void perf_report_fit(char *out, size_t out_bytes, int width, double value)
{
    for (int decimals = 2; decimals >= 0; decimals--)
        if (snprintf(out, out_bytes, "%*.*f", width, decimals, value) <= width) return;
    snprintf(out, out_bytes, width >= 7 ? "%*.1e" : "%*.0e", width, value);
}

/* Which file the collectives come from: the name that people need when another libnccl was meant. */
static const char *library_file(void)
{
    Dl_info info;
    void *symbol = dlsym(RTLD_DEFAULT, "ncclGetVersion");
    return symbol && dladdr(symbol, &info) && info.dli_fname ? info.dli_fname : "?";
}

static void config_json(struct perf_process *process, const struct perf_who *who, int argc, char **argv)
{
    const struct perf_options *o = process->options;
    struct perf_json *json = process->json;
    char stamp[64];
    int version = 0;
    ncclGetVersion(&version);
    perf_json_open(json, NULL, '{');
    perf_json_whole(json, "version", 1);
    perf_json_text(json, "start_time", time_text(stamp, sizeof stamp));
    perf_json_open(json, "args", '[');
    for (int i = 0; i < argc; i++) perf_json_text(json, NULL, argv[i]);
    perf_json_end(json, ']');
    perf_json_whole(json, "nccl_version", version);
    perf_json_text(json, "railccl_version", railGetVersion());
    perf_json_text(json, "library", library_file());
    perf_json_text(json, "collective", process->collective->name);
    perf_json_whole(json, "nranks", process->n_ranks);
    perf_json_text(json, "launcher", process->launch.source);
    perf_json_open(json, "config", '{');
    perf_json_whole(json, "nthreads", o->threads);
    perf_json_whole(json, "ngpus", o->ranks_per_thread);
    perf_json_whole(json, "minimum_bytes", (int64_t)o->min_bytes);
    perf_json_whole(json, "maximum_bytes", (int64_t)o->max_bytes);
    perf_json_whole(json, o->step_factor > 1 ? "step_factor" : "step_bytes",
                    (int64_t)(o->step_factor > 1 ? o->step_factor : o->step_bytes));
    perf_json_whole(json, "warmup_iters", o->warmup);
    perf_json_whole(json, "iterations", o->iterations);
    perf_json_whole(json, "aggregated_iterations", o->aggregate);
    perf_json_whole(json, "validation", o->checks);
    perf_json_whole(json, "graph", o->graphs);
    perf_json_whole(json, "blocking_collectives", o->blocking);
    perf_json_whole(json, "per_iter_timing", o->per_iteration);
    perf_json_whole(json, "per_iter_skip", o->per_iteration_skip);
    perf_json_whole(json, "parallel_init", o->parallel_init);
    perf_json_open(json, "devices", '[');
    for (int r = 0; r < process->n_ranks; r++) {
        perf_json_open(json, NULL, '{');
        perf_json_whole(json, "rank", r);
        perf_json_whole(json, "group", 0);
        perf_json_whole(json, "pid", who[r].pid);
        perf_json_text(json, "hostname", who[r].host);
        perf_json_text(json, "device_info", who[r].kind);
        perf_json_end(json, '}');
    }
    perf_json_end(json, ']');
    perf_json_end(json, '}');
}

static void columns(const struct perf_process *process)
{
    const struct perf_options *o = process->options;
    const char *extra[3] = {"", "", ""}, *stamp[2] = {"", ""};
    if (o->per_iteration) {
        extra[0] = " (+ per iteration)                  ";
        extra[1] = "    i_min    i_max    i_p99    i_cv%";
        extra[2] = "     (us)     (us)     (us)      (%)";
    }
    if (o->timestamps) stamp[0] = "            timestamp", stamp[1] = "";
    printf("#\n# %10s  %12s  %8s  %6s  %6s           out-of-place%s                       in-place%s\n", "", "", "", "", "",
           extra[0], extra[0]);
    for (int line = 0; line < 2; line++) {
        static const char *const left[2][5] = {{"size", "count", "type", "redop", "root"},
                                               {"(B)", "(elements)", "", "", ""}};
        printf("# %10s  %12s  %8s  %6s  %6s", left[line][0], left[line][1], left[line][2], left[line][3], left[line][4]);
        for (int placement = 0; placement < 2; placement++)
            printf("  %7s  %6s  %6s  %6s%s", line ? "(us)" : o->cpu_time ? "cputime" : "time", line ? "(GB/s)" : "algbw",
                   line ? "(GB/s)" : "busbw", line ? "" : "#wrong", extra[1 + line]);
        printf("%s\n", stamp[line]);
    }
}

void perf_report_start(struct perf_process *process, const struct perf_who *who, int argc, char **argv)
{
    const struct perf_options *o = process->options;
    int version = 0;
    ncclGetVersion(&version);
    printf("# nccl-tests columns by railccl %s nccl-headers=%d nccl-library=%d\n", railGetVersion(), NCCL_VERSION_CODE,
           version);
    printf("# Library %s\n", library_file());
    printf("# Collective test starting: %s_perf\n", process->collective->name);
    printf("# nThread %d nGpus %d minBytes %zu maxBytes %zu step: %zu(%s) warmup iters: ", o->threads, o->ranks_per_thread,
           o->min_bytes, o->max_bytes, o->step_factor > 1 ? o->step_factor : o->step_bytes,
           o->step_factor > 1 ? "factor" : "bytes");
    o->warmup < 0 ? (void)printf("by size") : (void)printf("%d", o->warmup);
    o->iterations ? (void)printf(" iters: %d", o->iterations) : (void)printf(" iters: as many as take 50 ms");
    printf(" agg iters: %d validation: %d graph: %d unalign: %zu%s\n", o->aggregate, o->checks, o->graphs, o->unalign,
           o->unalign_in_bytes ? "b" : "");
    if (o->blocking == 1) printf("# Blocking: barrier after each operation, timed\n");
    if (o->blocking == 3) printf("# Blocking: barrier after each iteration, not timed\n");
    if (o->parallel_init) printf("# Parallel init: every thread starts its own ranks\n");
    printf("#\n# Using %d rank%s: %d process%s (%s) x %d thread%s x %d\n", process->n_ranks,
           process->n_ranks == 1 ? "" : "s", process->launch.nRanks, process->launch.nRanks == 1 ? "" : "es",
           process->launch.source, o->threads, o->threads == 1 ? "" : "s", o->ranks_per_thread);
    for (int r = 0; r < process->n_ranks; r++)
        printf("#  Rank %2d Group %2d Pid %6d on %10s device %s\n", r, 0, who[r].pid, who[r].host, who[r].kind);
    if (process->json) config_json(process, who, argc, argv);
    columns(process);
    if (process->json) perf_json_open(process->json, "results", '[');
    fflush(stdout);
}

void perf_report_row(struct perf_process *process, const struct perf_case *c)
{
    const char *op = process->collective->uses_op ? perf_op_name(c->op) : "none";
    int root = process->collective->uses_root ? c->root : -1;
    printf("%12zu  %12zu  %8s  %6s  %6d", c->row_bytes, c->shape.parameter, perf_type_name(c->type), op, root);
    fflush(stdout);
    if (!process->json) return;
    perf_json_open(process->json, NULL, '{');
    perf_json_whole(process->json, "size", (int64_t)c->row_bytes);
    perf_json_whole(process->json, "count", (int64_t)c->shape.parameter);
    perf_json_text(process->json, "type", perf_type_name(c->type));
    perf_json_text(process->json, "redop", op);
    perf_json_whole(process->json, "root", root);
}

static void list_us(struct perf_json *json, const char *key, const double *seconds, size_t n)
{
    perf_json_open(json, key, '[');
    for (size_t i = 0; i < n; i++) perf_json_number(json, NULL, seconds[i] * 1e6);
    perf_json_end(json, ']');
}

static void each_iteration(struct perf_process *process, const struct perf_case *c, const struct perf_timing *timing)
{
    size_t n = (size_t)timing->iterations, skip = (size_t)process->options->per_iteration_skip;
    struct perf_statistics s = perf_statistics_of(timing->each + skip, n - skip);
    double cv = s.mean > 0 ? 100 * s.deviation / s.mean : 0, shown[4] = {s.min * 1e6, s.max * 1e6, s.p99 * 1e6, cv};
    for (int i = 0; i < 4; i++) {
        char text[32];
        perf_report_fit(text, sizeof text, 7, shown[i]);
        printf("  %7s", text);
    }
    struct perf_json *json = process->json;
    if (!json) return;
    perf_json_open(json, c->in_place ? "in_place_per_iter" : "out_of_place_per_iter", '{');
    perf_json_whole(json, "skipped_iterations", (int64_t)skip);
    const struct { const char *key; double value; } numbers[] = {
        {"min_us", s.min}, {"max_us", s.max}, {"avg_us", s.mean}, {"p50_us", s.p50},
        {"p95_us", s.p95}, {"p99_us", s.p99}, {"stdev_us", s.deviation}, {"cv_pct", cv * 1e-6},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        perf_json_number(json, numbers[i].key, numbers[i].value * 1e6);
    list_us(json, "times_us", timing->each, n);
    if (process->launch.nRanks > 1) {
        perf_json_open(json, "per_process_max_times_us", '[');
        for (int p = 0; p < process->launch.nRanks; p++) list_us(json, NULL, timing->per_process + n * (size_t)p, n);
        perf_json_end(json, ']');
    }
    perf_json_end(json, '}');
}

void perf_report_result(struct perf_process *process, const struct perf_case *c, const struct perf_result *result)
{
    char us[32], alg[32], bus[32];
    perf_report_fit(us, sizeof us, 7, result->seconds * 1e6);
    perf_report_fit(alg, sizeof alg, 6, result->algbw);
    perf_report_fit(bus, sizeof bus, 6, result->busbw);
    printf("  %7s  %6s  %6s", us, alg, bus);
    result->wrong < 0 ? (void)printf("     N/A") : (void)printf("  %6g", result->wrong);
    struct perf_json *json = process->json;
    if (json) {
        perf_json_open(json, c->in_place ? "in_place" : "out_of_place", '{');
        perf_json_number(json, process->options->cpu_time ? "cpu_time" : "time", result->seconds * 1e6);
        perf_json_number(json, "alg_bw", result->algbw);
        perf_json_number(json, "bus_bw", result->busbw);
        result->wrong < 0 ? perf_json_null(json, "nwrong") : perf_json_number(json, "nwrong", result->wrong);
        perf_json_whole(json, "iterations", (int64_t)result->timing.iterations);
        perf_json_end(json, '}');
    }
    if (result->timing.each) each_iteration(process, c, &result->timing);
    fflush(stdout);
}

void perf_report_no_result(struct perf_process *process)
{
    printf("  %7s  %6s  %6s     N/A", "N/A", "N/A", "N/A");
    for (int i = 0; process->options->per_iteration && i < 4; i++) printf("  %7s", "N/A");
    if (process->json) perf_json_null(process->json, "in_place");
}

void perf_report_row_end(struct perf_process *process, const struct perf_result *last)
{
    char stamp[64];
    if (process->options->timestamps) printf("  %s", time_text(stamp, sizeof stamp));
    printf("\n");
    fflush(stdout);
    if (!process->json) return;
    perf_json_whole(process->json, "actual_iterations", (int64_t)last->timing.iterations);
    perf_json_text(process->json, "experiment_name", "");
    perf_json_end(process->json, '}');
}

bool perf_report_end(struct perf_process *process, double wrong, double mean_busbw)
{
    double least = process->options->least_bus_bandwidth;
    bool enough = least < 0 || mean_busbw >= 0.9 * least;
    printf("# %-20s : %g %s\n", "Out of bounds values", wrong, wrong > 0 ? "FAILED" : "OK");
    printf("# %-20s : %g %s\n#\n", "Avg bus bandwidth", mean_busbw, least < 0 ? "" : enough ? "OK" : "FAILED");
    printf("# Collective test concluded: %s_perf\n", process->collective->name);
    fflush(stdout);
    struct perf_json *json = process->json;
    if (!json) return enough;
    char stamp[64];
    perf_json_end(json, ']');
    perf_json_open(json, "out_of_bounds", '{');
    perf_json_number(json, "count", wrong);
    perf_json_text(json, "okay", wrong > 0 ? "false" : "true");
    perf_json_end(json, '}');
    perf_json_open(json, "average_bus_bandwidth", '{');
    perf_json_number(json, "bandwidth", mean_busbw);
    perf_json_text(json, "okay", least < 0 ? "unchecked" : enough ? "true" : "false");
    perf_json_end(json, '}');
    perf_json_text(json, "end_time", time_text(stamp, sizeof stamp));
    perf_json_end(json, '}');
    return enough;
}
