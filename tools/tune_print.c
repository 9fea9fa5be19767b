/* tune_print.c - a sweep as a table and as JSON. */
#include "json.h"
#include "plan.h"
#include "tune.h"

static void print_sweep(const struct tune_view *v, const struct tune_sweep *s, FILE *out)
{
    char size[24], mine[24], best[24], why[256];
    int off = 0;
    double worst = 1;
    fprintf(
        out,
        "\n%s\n      size  chooser    time        fastest    time        factor   tuned     why the chooser chose so\n",
        tune_collective_name(s->collective));
    for (int k = 0; k < s->n_sizes; k++) {
        double factor, time = tune_median(s, TUNE_CHOOSER, k);
        int a = tune_best(s, k, &factor);
        fprintf(out, "%10s  %-9s  %-10s  %-9s  %-10s  %6.2f %s %-9s %s\n", plan_size_text((double)s->size[k], size),
                plan_algorithm_names[s->took[k]], plan_time_text(1e3 * time, mine), plan_algorithm_names[a],
                plan_time_text(1e3 * time / factor, best), factor, factor > TUNE_ENOUGH ? "*" : " ",
                plan_algorithm_names[tune_tuned(v, s, k)], tune_why(v, s, k, why));
        off += factor > TUNE_ENOUGH;
        if (factor > worst) worst = factor;
    }
    fprintf(out, "%d of %d sizes are above %.2f (*); the worst factor is %.2f\n", off, s->n_sizes, TUNE_ENOUGH, worst);
}

static void print_settings(const struct tune_view *v, FILE *out)
{
    char text[24];
    int moved = 0, bound = 0;
    for (int l = 0; l < TABLE_LIMITS; l++) moved += v->moved[l];
    fprintf(out, moved ? "\nSettings by which the chooser would take the fastest (\"tuned\"):\n"
                       : "\nNo setting would make it faster by more than the measurement can tell.\n");
    for (int l = 0; l < TABLE_LIMITS; l++)
        if (v->moved[l])
            fprintf(out, "  %s=%s\n", rail_param_name(table_limits[l].param),
                    tune_limit_text(table_limit(&v->settings, l), text));
    for (int l = 0; l < TABLE_LIMITS; l++) {
        if (v->free[l] || !tune_limit_matters(v, l)) continue;
        fprintf(out, "%s%s", bound++ ? ", " : "Left alone, as other collectives hang on it (--collective all): ",
                rail_param_name(table_limits[l].param));
    }
    if (bound) fputc('\n', out);
}

void tune_print(const struct tune_view *v, FILE *out)
{
    fprintf(
        out, "%d ranks, a process each, on %d host%s%s; %s, %d core%s usable; medians of %d rounds, factors of pairs\n",
        v->wish.ranks, v->wish.hosts, v->wish.hosts > 1 ? "s" : "", v->wish.hosts > 1 ? " pretended on this one" : "",
        v->cpu, v->cores, v->cores > 1 ? "s" : "", v->wish.rounds);
    for (int c = 0; c < PLAN_COLLECTIVES; c++)
        if (v->sweeps[c]) print_sweep(v, v->sweeps[c], out);
    print_settings(v, out);
}

/* ---- JSON ---- */

static void write_times(struct json *j, const struct tune_sweep *s, int size)
{
    json_open(j, "us", '{');
    for (int kind = 0; kind < TUNE_KINDS; kind++) {
        if (!s->rounds[kind]) continue;
        json_open(j, kind == TUNE_CHOOSER ? "chooser" : plan_algorithm_names[kind], '[');
        for (int r = 0; r < s->rounds[kind]; r++) json_number(j, NULL, s->us[kind][r][size]);
        json_close(j, ']');
    }
    json_close(j, '}');
}

static void write_size(struct json *j, const struct tune_view *v, const struct tune_sweep *s, int size)
{
    char why[256];
    double factor;
    int best = tune_best(s, size, &factor);
    json_open(j, NULL, '{');
    json_whole(j, "size", (int64_t)s->size[size]);
    json_whole(j, "bytes", (int64_t)s->bytes[size]);
    json_text(j, "chooser", plan_algorithm_names[s->took[size]]);
    json_text(j, "why", tune_why(v, s, size, why));
    json_text(j, "fastest", plan_algorithm_names[best]);
    json_number(j, "factor", factor);
    json_truth(j, "above", factor > TUNE_ENOUGH);
    json_text(j, "tuned", plan_algorithm_names[tune_tuned(v, s, size)]);
    write_times(j, s, size);
    json_close(j, '}');
}

int tune_write_json(const struct tune_view *v, FILE *out)
{
    struct json j = {.out = out};
    char text[24];
    json_open(&j, NULL, '{');
    json_whole(&j, "ranks", v->wish.ranks);
    json_whole(&j, "hosts", v->wish.hosts);
    json_whole(&j, "rounds", v->wish.rounds);
    json_text(&j, "processor", v->cpu);
    json_whole(&j, "cores", v->cores);
    json_text(&j, "library", RAILCCL_VERSION);
    json_open(&j, "sweeps", '[');
    for (int c = 0; c < PLAN_COLLECTIVES; c++) {
        if (!v->sweeps[c]) continue;
        json_open(&j, NULL, '{');
        json_text(&j, "collective", tune_collective_name((enum plan_collective)c));
        json_open(&j, "sizes", '[');
        for (int k = 0; k < v->sweeps[c]->n_sizes; k++) write_size(&j, v, v->sweeps[c], k);
        json_close(&j, ']');
        json_close(&j, '}');
    }
    json_close(&j, ']');
    json_open(&j, "settings", '{');
    for (int l = 0; l < TABLE_LIMITS; l++)
        if (v->moved[l])
            json_text(&j, rail_param_name(table_limits[l].param), tune_limit_text(table_limit(&v->settings, l), text));
    json_close(&j, '}');
    json_close(&j, '}');
    fputc('\n', out);
    return ferror(out) != 0;
}
