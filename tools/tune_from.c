/* tune_from.c - a sweep that `railccl tune --measure --json` wrote: the same answers and pictures, without measuring.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "foreign/jansson.h"
#include "tune.h"

struct reading {
    struct tune_view *view;
    struct tune_sweep *sweep;
    int kind, round;
    bool bad;
};

static void see_time(void *context, const char *name, const struct json_t *value)
{
    struct reading *r = context;
    (void)name;
    double us = jansson_number(value, -1);
    if (!(us > 0) || r->round >= TUNE_ROUNDS_MAX) r->bad = true;
    else r->sweep->us[r->kind][r->round++][r->sweep->n_sizes] = us;
}

static void see_kind(void *context, const char *name, const struct json_t *value)
{
    struct reading *r = context;
    int kind = 0;
    while (kind < PLAN_ALGORITHMS && (!name || strcmp(plan_algorithm_names[kind], name) != 0)) kind++;
    if (kind == PLAN_ALGORITHMS && name && strcmp(name, "chooser") != 0) return; /* one that a newer library has */
    r->kind = kind;
    r->round = 0;
    jansson_each(value, see_time, r);
    if (r->sweep->n_sizes > 0 && r->sweep->rounds[kind] != r->round) r->bad = true;
    r->sweep->rounds[kind] = r->round;
}

static void see_size(void *context, const char *name, const struct json_t *value)
{
    struct reading *r = context;
    struct tune_sweep *s = r->sweep;
    (void)name;
    double size = jansson_number(jansson_member(value, "size"), -1),
           bytes = jansson_number(jansson_member(value, "bytes"), -1);
    double before = s->n_sizes ? (double)s->bytes[s->n_sizes - 1] : 0;
    if (s->n_sizes >= TUNE_SIZES_MAX || !(size >= 1 && size < 1e15) || !(bytes > before && bytes < 1e15)) {
        r->bad = true;
        return;
    }
    const char *took = jansson_text(jansson_member(value, "chooser"));
    int a = 0;
    while (a < PLAN_ALGORITHMS && (!took || strcmp(plan_algorithm_names[a], took) != 0)) a++;
    if (a == PLAN_ALGORITHMS) {
        r->bad = true;
        return;
    }
    s->took[s->n_sizes] = (enum plan_algorithm)a;
    s->size[s->n_sizes] = (uint64_t)size;
    s->bytes[s->n_sizes] = (uint64_t)bytes;
    jansson_each(jansson_member(value, "us"), see_kind, r);
    s->n_sizes++;
}

static void see_sweep(void *context, const char *name, const struct json_t *value)
{
    struct reading *r = context;
    const char *is = jansson_text(jansson_member(value, "collective"));
    int c = 0;
    (void)name;
    while (c < PLAN_COLLECTIVES && (!is || strcmp(tune_collective_name((enum plan_collective)c), is) != 0)) c++;
    if (c == PLAN_COLLECTIVES || r->view->sweeps[c] || !(r->sweep = calloc(1, sizeof *r->sweep))) {
        r->bad = true;
        return;
    }
    r->view->sweeps[c] = r->sweep;
    r->sweep->collective = (enum plan_collective)c;
    jansson_each(jansson_member(value, "sizes"), see_size, r);
    if (r->sweep->n_sizes == 0 || r->sweep->rounds[TUNE_CHOOSER] == 0) r->bad = true;
}

static bool whole(const struct json_t *root, const char *name, int low, int high, int *out)
{
    double value = jansson_number(jansson_member(root, name), -1);
    if (!(value >= low && value <= high)) return false;
    return *out = (int)value, true;
}

static bool take(struct tune_view *v, const struct json_t *root)
{
    struct reading r = {.view = v};
    const char *cpu = jansson_text(jansson_member(root, "processor"));
    struct tune_wish *w = &v->wish;
    if (!whole(root, "ranks", 2, 1024, &w->ranks) || !whole(root, "hosts", 1, w->ranks, &w->hosts) ||
        !whole(root, "rounds", 1, TUNE_ROUNDS_MAX, &w->rounds) || !whole(root, "cores", 1, 1 << 20, &v->cores))
        return false;
    snprintf(v->cpu, sizeof v->cpu, "%.95s", cpu ? cpu : "unknown");
    jansson_each(jansson_member(root, "sweeps"), see_sweep, &r);
    for (int c = 0; c < PLAN_COLLECTIVES; c++)
        for (int k = 0; v->sweeps[c] && k < v->sweeps[c]->n_sizes; k++)
            if (v->sweeps[c]->bytes[k] > w->to_bytes) w->to_bytes = v->sweeps[c]->bytes[k];
    return !r.bad && r.sweep;
}

int tune_from(struct tune_view *v)
{
    static char text[JANSSON_MOST_BYTES];
    struct json_t *root;
    FILE *file = fopen(v->wish.from, "re");
    if (!file) return fprintf(stderr, "railccl tune: --from %s: %s\n", v->wish.from, strerror(errno)), 2;
    size_t n = fread(text, 1, sizeof text, file);
    fclose(file);
    if (jansson_read(text, n, v->wish.from, &root) != RAIL_OK)
        return fprintf(stderr, "railccl tune: --from: %s\n", rail_last_error()), 2;
    bool good = take(v, root);
    jansson_free(root);
    if (good) return 0;
    return fprintf(stderr,
                   "railccl tune: --from %s: not what `railccl tune --measure --json FILE` writes: want ranks, hosts, "
                   "rounds, cores, and sweeps of sizes with times\n",
                   v->wish.from),
           2;
}
