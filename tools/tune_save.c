/* tune_save.c - the settings of a sweep into the tuning file (core/tuning.h): its section anew, all others as they are.
 * The file is replaced by a rename, so that a process that starts reads the old one or the new one. */
#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/tuning.h"
#include "topo/machine.h"
#include "plan.h"
#include "tune.h"

static int cannot(const char *what, const char *path)
{
    return fprintf(stderr, "railccl tune: --save: %s %s: %s; RAILCCL_TUNING_FILE names another file\n", what, path,
                   strerror(errno)),
           2;
}

static bool make_folders(const char *path)
{
    char part[PATH_MAX];
    snprintf(part, sizeof part, "%s", path);
    for (char *slash = part + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST) return false;
    }
    return true;
}

bool tune_may_save(void)
{
    static struct tuning_file where;
    if (!tuning_path(where.path))
        return fputs("railccl tune: --save: there is no place for the file: RAILCCL_TUNING_FILE is \"off\", or neither "
                     "it, "
                     "XDG_CACHE_HOME nor HOME is set\n",
                     stderr),
               false;
    for (int l = 0; l < TABLE_LIMITS; l++)
        if (rail_param_is_set(table_limits[l].param))
            return fprintf(stderr, "railccl tune: --save: %s is set, and would be taken for measured: unset it\n",
                           rail_param_name(table_limits[l].param)),
                   false;
    return true;
}

static void write_head(FILE *out, const struct tune_view *v)
{
    fprintf(
        out,
        "# Limits of railccl's chooser, measured by `railccl tune --measure --save` and read when a program starts.\n"
        "# RAILCCL_TUNING_FILE=off leaves it out; removing it is safe.\n# Processor: %s\n",
        v->cpu);
}

/* What stands in the file beside this shape's sections, and the comments before them. */
static void copy_others(FILE *out, const char *text, const char *section)
{
    bool mine = false;
    for (const char *at = text, *next; *at; at = next) {
        next = at + strcspn(at, "\n");
        next += *next == '\n';
        if (*at == '[') mine = strncmp(at, section, strlen(section)) == 0;
        if (!mine) fprintf(out, "%.*s", (int)(next - at), at);
    }
}

static void write_section(FILE *out, const struct tune_view *v, const char *section,
                          const struct choice_table *built_in)
{
    char text[24], low[24], high[24], when[40];
    time_t now = time(NULL);
    struct tm broken;
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&now, &broken));
    fprintf(out, "%s\n# %s, railccl %s, %d cores usable, %d rounds\n", section, when, RAILCCL_VERSION, v->cores,
            v->wish.rounds);
    for (int c = 0; c < PLAN_COLLECTIVES; c++) {
        const struct tune_sweep *s = v->sweeps[c];
        if (s)
            fprintf(out, "# %s, %s to %s\n", tune_collective_name((enum plan_collective)c),
                    plan_size_text((double)s->size[0], low), plan_size_text((double)s->size[s->n_sizes - 1], high));
    }
    for (int l = 0; l < TABLE_LIMITS; l++)
        if (table_limit(&v->settings, l) != table_limit(built_in, l))
            fprintf(out, "%s=%s\n", rail_param_name(table_limits[l].param),
                    tune_limit_text(table_limit(&v->settings, l), text));
}

/* The file's text, or an empty one where there is none or it is broken; the caller frees it. */
static char *old_text(const char *path)
{
    static struct tuning_file file;
    char why[TUNING_WHY_BYTES], *text = calloc(1, (1 << 18) + 1);
    FILE *in = text ? fopen(path, "re") : NULL;
    size_t n = in ? fread(text, 1, 1 << 18, in) : 0;
    if (in) fclose(in);
    if (n && !tuning_parse(text, n, &file, why)) {
        fprintf(stderr, "railccl tune: %s was broken (%s): it is written anew\n", path, why);
        text[0] = '\0';
    }
    return text;
}

int tune_save(const struct tune_view *v)
{
    char path[PATH_MAX], fresh[PATH_MAX + 16], section[64];
    struct choice_table built_in;
    if (!tune_may_save() || !tuning_path(path)) return 2;
    snprintf(section, sizeof section, "[ranks=%d hosts=%d]", v->wish.ranks, v->wish.hosts);
    snprintf(fresh, sizeof fresh, "%s.%d", path, (int)getpid());
    table_built_in(&built_in, &v->shape, machine_cores());
    if (!make_folders(path)) return cannot("the folder of", path);
    char *old = old_text(path);
    FILE *out = old ? fopen(fresh, "we") : NULL;
    if (!out) return free(old), cannot("writing", fresh);
    if (!*old) write_head(out, v);
    copy_others(out, old, section);
    write_section(out, v, section, &built_in);
    free(old);
    bool bad = ferror(out) != 0;
    bad |= fclose(out) != 0;
    if (bad || rename(fresh, path) != 0) return (void)cannot("writing", path), unlink(fresh), 2;
    printf("\nSaved in %s, which ranks read when they start; this shape's section is\n%s\n", path, section);
    for (int l = 0; l < TABLE_LIMITS; l++) {
        char text[24];
        if (table_limit(&v->settings, l) != table_limit(&built_in, l))
            printf("%s=%s\n", rail_param_name(table_limits[l].param),
                   tune_limit_text(table_limit(&v->settings, l), text));
    }
    return 0;
}
