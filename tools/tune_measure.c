/* tune_measure.c - the sweep: the chooser and every algorithm that applies, in turns, several rounds of them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/params.h"
#include "core/tuning.h"
#include "run.h"
#include "topo/machine.h"
#include "tune.h"

/* What is that much slower than the fastest at every size of the first round is not measured again. */
#define HOPELESS 1.5

bool tune_look(struct tune_view *v)
{
    const struct tune_wish *w = &v->wish;
    struct run_options options = {.n = w->ranks, .n_hosts = w->hosts, .where = RUN_EMULATED};
    const struct comm_config config = {.min_channels = CONFIG_UNSET, .max_channels = CONFIG_UNSET};
    options.hosts = calloc((size_t)w->hosts, sizeof *options.hosts);
    struct run_rank *ranks = options.hosts ? run_place(&options) : NULL;
    uint64_t *keys = calloc((size_t)w->ranks, sizeof *keys);
    for (int r = 0; ranks && keys && r < w->ranks; r++) keys[r] = (uint64_t)ranks[r].host + 1;
    bool good = ranks && keys && shape_build(&v->shape, (uint32_t)w->ranks, keys, 1) == 0;
    if (!good) fprintf(stderr, "railccl tune: %d ranks: out of memory\n", w->ranks);
    good = good && table_make(&v->table, &v->shape, machine_cores(), &config,
                              tuning_find(tuning_of_process(), v->shape.n_ranks, v->shape.n_nodes)) == RAIL_OK;
    free(keys);
    free(ranks);
    free(options.hosts);
    return good;
}

/* Whether a kind of run differs from the chooser's at some size by its algorithm: whether it can be forced. */
static bool applies(const struct tune_view *v, enum plan_collective collective, int algorithm)
{
    struct choice_table forced = v->table;
    forced.forced_algorithm = algorithm;
    if (!plan_exists(collective, (enum plan_algorithm)algorithm)) return false;
    return (int)choose_plan(collective, &forced, &v->shape, v->wish.from_bytes).algorithm == algorithm;
}

static bool hopeless(const struct tune_sweep *s, int algorithm)
{
    for (int k = 0; k < s->n_sizes; k++) {
        double least = s->us[TUNE_CHOOSER][0][k];
        for (int a = 0; a < PLAN_ALGORITHMS; a++)
            if (s->rounds[a] && s->us[a][0][k] < least) least = s->us[a][0][k];
        if (s->us[algorithm][0][k] <= HOPELESS * least) return false;
    }
    return true;
}

/* The kinds of runs of this round, another one first each time. */
static int kinds_of(const struct tune_view *v, const struct tune_sweep *s, int round, int kinds[TUNE_KINDS])
{
    int n = 0, all[TUNE_KINDS];
    all[n++] = TUNE_CHOOSER;
    for (int a = 0; a < PLAN_ALGORITHMS; a++)
        if (applies(v, s->collective, a) && (round == 0 || !hopeless(s, a))) all[n++] = a;
    for (int k = 0; k < n; k++) kinds[k] = all[(k + round) % n];
    return n;
}

static int measure_one(const struct tune_view *v, struct tune_sweep *s, const char *folder, int kind, int round)
{
    const struct tune_wish *w = &v->wish;
    /* The first row of a program is slower, until the kernel has dealt the ranks to cores: a row before it that is left
     * out. */
    struct tune_child child = {.wish = w,
                               .folder = folder,
                               .collective = s->collective,
                               .kind = kind,
                               .from_bytes = w->from_bytes / 2,
                               .check = round == 0,
                               .sweep = s,
                               .us = s->us[kind][round]};
    if (isatty(2))
        fprintf(stderr, "\r%-70s\r%s, round %d of %d: %s ", "", tune_collective_name(s->collective), round + 1,
                w->rounds, kind == TUNE_CHOOSER ? "the chooser" : plan_algorithm_names[kind]);
    int status = tune_child_run(&child);
    s->rounds[kind] = status ? s->rounds[kind] : round + 1;
    return status;
}

static int measure_collective(struct tune_view *v, struct tune_sweep *s, const char *folder)
{
    int kinds[TUNE_KINDS], status = 0;
    for (int round = 0; round < v->wish.rounds && !status; round++) {
        int n = kinds_of(v, s, round, kinds);
        for (int k = 0; k < n && !status; k++) status = measure_one(v, s, folder, kinds[k], round);
    }
    if (isatty(2)) fprintf(stderr, "\r%-70s\r", "");
    return status;
}

/* What forces every run would make the chooser's runs forced ones. */
static bool nothing_is_forced(void)
{
    static const enum rail_param forcing[] = {RAIL_PARAM_ALGO, RAIL_PARAM_NCCL_ALGO};
    for (size_t k = 0; k < sizeof forcing / sizeof *forcing; k++)
        if (rail_param_is_set(forcing[k]))
            return fprintf(stderr, "railccl tune: %s is set, which forces an algorithm: unset it\n",
                           rail_param_name(forcing[k])),
                   false;
    return true;
}

int tune_measure(struct tune_view *v)
{
    const char *tmp = getenv("TMPDIR");
    char folder[4000];
    int status = 0;
    if (!nothing_is_forced()) return 2;
    snprintf(folder, sizeof folder, "%s/railccl-tune-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(folder))
        return fprintf(stderr, "railccl tune: %s: %s; TMPDIR names another folder\n", folder, strerror(errno)), 2;
    for (int c = 0; c < PLAN_COLLECTIVES && !status; c++) {
        if (!(v->wish.collectives >> c & 1)) continue;
        v->sweeps[c] = calloc(1, sizeof *v->sweeps[c]);
        if (!v->sweeps[c]) status = (fputs("railccl tune: out of memory\n", stderr), 2);
        if (status) break;
        v->sweeps[c]->collective = (enum plan_collective)c;
        status = measure_collective(v, v->sweeps[c], folder);
        for (int k = 0; k < v->sweeps[c]->n_sizes; k++)
            v->sweeps[c]->took[k] =
                choose_plan((enum plan_collective)c, &v->table, &v->shape, v->sweeps[c]->bytes[k]).algorithm;
    }
    rmdir(folder);
    return status;
}
