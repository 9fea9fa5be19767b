/* tune_limits.c - what a sweep says of the chooser: how far it is off, which limit decided, and where the limits should
 * be. Asks the chooser itself (choose_plan) with limits moved, so that nothing of its order is known here. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tune.h"

/* Two figures of the same thing differ by some percent: limits move only for more than that, over all sizes. */
#define WORTH 0.05
/* An algorithm that was not measured at all counts as that much slower than the fastest. */
#define UNKNOWN 100.0

static enum plan_algorithm choice_by(const struct tune_view *v, const struct choice_table *table,
                                     const struct tune_sweep *s, int size)
{
    return choose_plan(s->collective, table, &v->shape, s->bytes[size]).algorithm;
}

enum plan_algorithm tune_tuned(const struct tune_view *v, const struct tune_sweep *s, int size)
{
    return choice_by(v, &v->settings, s, size);
}

/* ---- times ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n)
{
    if (n == 0) return 0;
    qsort(values, (size_t)n, sizeof *values, ascending);
    return n % 2 ? values[n / 2] : sqrt(values[n / 2 - 1] * values[n / 2]);
}

double tune_median(const struct tune_sweep *s, int kind, int size)
{
    double values[TUNE_ROUNDS_MAX];
    for (int r = 0; r < s->rounds[kind]; r++) values[r] = s->us[kind][r][size];
    return median(values, s->rounds[kind]);
}

/* The chooser's own time stands for its algorithm, which may be slower by name: the smallest messages go a shorter way
 * only where nothing is forced. */
static double factor_of(const struct tune_sweep *s, int algorithm, int size)
{
    double ratios[TUNE_ROUNDS_MAX];
    int n = s->rounds[algorithm] < s->rounds[TUNE_CHOOSER] ? s->rounds[algorithm] : s->rounds[TUNE_CHOOSER];
    if (algorithm == (int)s->took[size]) return 1;
    for (int r = 0; r < n; r++) ratios[r] = s->us[TUNE_CHOOSER][r][size] / s->us[algorithm][r][size];
    return median(ratios, n);
}

int tune_best(const struct tune_sweep *s, int size, double *factor)
{
    int best = (int)s->took[size];
    *factor = 1;
    for (int a = 0; a < PLAN_ALGORITHMS; a++)
        if (s->factor[a][size] > *factor) *factor = s->factor[a][size], best = a;
    return best;
}

/* ---- limits ---- */

/* Moves a limit to the other side of a message. */
static void flip(struct choice_table *table, int limit, uint64_t bytes)
{
    bool admits = table_limits[limit].least ? bytes >= table_limit(table, limit) : bytes <= table_limit(table, limit);
    table_limit_set(table, limit, admits == table_limits[limit].least ? UINT64_MAX : 0);
}

static bool decides(const struct tune_view *v, enum plan_collective c, int limit, uint64_t bytes)
{
    struct choice_table moved = v->table;
    flip(&moved, limit, bytes);
    return choose_plan(c, &moved, &v->shape, bytes).algorithm != choose_plan(c, &v->table, &v->shape, bytes).algorithm;
}

const char *tune_limit_text(uint64_t bytes, char out[24])
{
    const uint64_t most = (uint64_t)1 << 40; /* the largest that the variables take */
    snprintf(out, 24, "%llu", (unsigned long long)(bytes < most ? bytes : most));
    return out;
}

const char *tune_why(const struct tune_view *v, const struct tune_sweep *s, int size, char out[256])
{
    size_t at = 0;
    char text[24];
    out[0] = '\0';
    for (int l = 0; l < TABLE_LIMITS && at < 200; l++) {
        uint64_t value = table_limit(&v->table, l), bytes = s->bytes[size];
        if (!decides(v, s->collective, l, bytes)) continue;
        const char *is = table_limits[l].least ? bytes >= value ? ">=" : "<" : bytes <= value ? "<=" : ">";
        at += (size_t)snprintf(out + at, 256 - at, "%s%s %s=%s", at ? ", " : "", is,
                               rail_param_name(table_limits[l].param),
                               value == UINT64_MAX ? "always" : tune_limit_text(value, text));
    }
    if (choice_by(v, &v->table, s, size) != s->took[size])
        snprintf(out, 256, "this library would take %s", plan_algorithm_names[choice_by(v, &v->table, s, size)]);
    else if (!at) snprintf(out, 256, "no limit would change it");
    return out;
}

/* Over all sizes of all that was measured: the logarithm of the product of the factors against the fastest. */
static double how_far(const struct tune_view *v, const struct choice_table *table)
{
    double sum = 0, most;
    for (int c = 0; c < PLAN_COLLECTIVES; c++)
        for (int k = 0; v->sweeps[c] && k < v->sweeps[c]->n_sizes; k++) {
            tune_best(v->sweeps[c], k, &most);
            double f = v->sweeps[c]->factor[choice_by(v, table, v->sweeps[c], k)][k];
            sum += f > 0 ? log(most / f) : log(UNKNOWN);
        }
    return sum;
}

bool tune_limit_matters(const struct tune_view *v, int limit)
{
    bool matters = false;
    for (int c = 0; c < PLAN_COLLECTIVES; c++)
        for (int k = 0; v->sweeps[c] && k < v->sweeps[c]->n_sizes; k++) {
            struct choice_table none = v->table, all = v->table;
            table_limit_set(&none, limit, 0);
            table_limit_set(&all, limit, UINT64_MAX);
            matters |= choice_by(v, &none, v->sweeps[c], k) != choice_by(v, &all, v->sweeps[c], k);
        }
    return matters;
}

/* Limits may be moved when all the collectives that look at them were measured. */
static void find_free(struct tune_view *v)
{
    for (int l = 0; l < TABLE_LIMITS; l++) {
        v->free[l] = tune_limit_matters(v, l);
        for (int c = 0; c < PLAN_COLLECTIVES; c++)
            for (uint64_t bytes = 8; !v->sweeps[c] && bytes <= v->wish.to_bytes; bytes *= 2)
                v->free[l] &= !decides(v, (enum plan_collective)c, l, bytes);
    }
}

enum { PLACES = 1 + TUNE_SIZES_MAX * PLAN_COLLECTIVES + 1 };

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Where a limit may lie: below all sizes, at each, above all. The smallest of a kind of limit is one above a size. */
static int places_of(const struct tune_view *v, bool least, uint64_t places[PLACES])
{
    int n = 0, kept = 0;
    for (int c = 0; c < PLAN_COLLECTIVES; c++)
        for (int k = 0; v->sweeps[c] && k < v->sweeps[c]->n_sizes; k++) places[n++] = v->sweeps[c]->bytes[k] + least;
    places[n++] = 0;
    places[n++] = UINT64_MAX;
    qsort(places, (size_t)n, sizeof *places, by_size);
    for (int k = 0; k < n; k++)
        if (k == 0 || places[k] != places[k - 1]) places[kept++] = places[k];
    return kept;
}

/* The best places of two limits, all others staying; a != b where two must move at once, as one ends where the other
 * begins. True when it became better. */
static bool improve(struct tune_view *v, int a, int b, double *least)
{
    static uint64_t of_a[PLACES], of_b[PLACES];
    int n_a = places_of(v, table_limits[a].least, of_a), n_b = a == b ? 1 : places_of(v, table_limits[b].least, of_b);
    struct choice_table best = v->settings, t;
    bool better = false;
    for (int i = 0; i < n_a; i++)
        for (int j = 0; j < n_b; j++) {
            t = v->settings;
            table_limit_set(&t, a, of_a[i]);
            if (a != b) table_limit_set(&t, b, of_b[j]);
            double far = how_far(v, &t);
            if (far < *least - WORTH) *least = far, best = t, better = true;
        }
    v->settings = best;
    return better;
}

/* Between the last size of one algorithm and the first of the next, where their times would meet if the logarithm of
 * their ratio were straight. */
static uint64_t meeting(const struct tune_view *v, const struct tune_sweep *s, int size)
{
    int below = choice_by(v, &v->settings, s, size), above = choice_by(v, &v->settings, s, size + 1);
    const double *f_below = &s->factor[below][size], *f_above = &s->factor[above][size]; /* here and at the next size */
    double part = 0.5;
    if (f_below[0] > 0 && f_below[1] > 0 && f_above[0] > 0 && f_above[1] > 0) {
        double before = log(f_below[0] / f_above[0]), after = log(f_above[1] / f_below[1]);
        if (before >= 0 && after >= 0 && before + after > 0) part = before / (before + after);
    }
    uint64_t bytes =
        (uint64_t)((double)s->bytes[size] * pow((double)s->bytes[size + 1] / (double)s->bytes[size], part));
    bytes -= bytes % 8;
    return bytes < s->bytes[size] ? s->bytes[size] : bytes;
}

/* A limit that moved lies at a size: moves it on to where the two algorithms meet. */
static void refine(struct tune_view *v, int limit)
{
    uint64_t at = table_limit(&v->settings, limit) - table_limits[limit].least;
    for (int c = 0; c < PLAN_COLLECTIVES; c++)
        for (int k = 0; v->sweeps[c] && k + 1 < v->sweeps[c]->n_sizes; k++) {
            if (v->sweeps[c]->bytes[k] != at) continue;
            if (choice_by(v, &v->settings, v->sweeps[c], k) == choice_by(v, &v->settings, v->sweeps[c], k + 1))
                continue;
            table_limit_set(&v->settings, limit, meeting(v, v->sweeps[c], k) + table_limits[limit].least);
            return;
        }
}

static void find_settings(struct tune_view *v)
{
    v->settings = v->table;
    double least = how_far(v, &v->settings);
    bool better = true;
    for (int pass = 0; pass < TABLE_LIMITS && better; pass++) {
        better = false;
        for (int a = 0; a < TABLE_LIMITS; a++)
            if (v->free[a]) better |= improve(v, a, a, &least);
        for (int a = 0; a < TABLE_LIMITS && !better; a++)
            for (int b = a + 1; b < TABLE_LIMITS && !better; b++)
                if (v->free[a] && v->free[b]) better |= improve(v, a, b, &least);
    }
    for (int l = 0; l < TABLE_LIMITS; l++) {
        v->moved[l] = table_limit(&v->settings, l) != table_limit(&v->table, l);
        if (v->moved[l]) refine(v, l);
    }
}

void tune_judge(struct tune_view *v)
{
    for (int c = 0; c < PLAN_COLLECTIVES; c++)
        for (int k = 0; v->sweeps[c] && k < v->sweeps[c]->n_sizes; k++)
            for (int a = 0; a < PLAN_ALGORITHMS; a++) v->sweeps[c]->factor[a][k] = factor_of(v->sweeps[c], a, k);
    find_free(v);
    find_settings(v);
}
