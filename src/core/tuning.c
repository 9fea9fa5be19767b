/* tuning.c - see tuning.h. */
#include "core/tuning.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "bootstrap/bootstrap.h"
#include "core/comm.h"
#include "topo/machine.h"

enum { FILE_BYTES_MAX = 1 << 18, LINE_BYTES_MAX = 256 };
#define LIMIT_MAX ((uint64_t)1 << 40) /* the largest that the variables take; as there, it means always (or never) */

/* ---- reading ---- */

static const char *trimmed(char *line)
{
    line += strspn(line, " \t");
    size_t n = strlen(line);
    while (n > 0 && strchr(" \t\r", line[n - 1])) line[--n] = '\0';
    return line;
}

/* NULL, or what is wrong. */
static const char *read_section(const char *line, struct tuning_file *out)
{
    unsigned ranks, hosts;
    int end = 0;
    if (sscanf(line, "[ranks=%u hosts=%u]%n", &ranks, &hosts, &end) != 2 || end == 0 || line[end])
        return "want [ranks=N hosts=N]";
    if (ranks == 0 || hosts == 0 || hosts > ranks) return "want 1 <= hosts <= ranks";
    if (out->n_rules == TUNING_RULES_MAX) return "too many sections";
    out->rules[out->n_rules++] = (struct tuning_rule){.n_ranks = ranks, .n_hosts = hosts};
    return NULL;
}

static const char *read_limit(const char *line, struct tuning_file *out)
{
    const char *equals = strchr(line, '=');
    char *end;
    if (!equals) return "want [ranks=N hosts=N], NAME=BYTES, or a comment after #";
    if (out->n_rules == 0) return "it stands before the first [ranks=N hosts=N]";
    errno = 0;
    unsigned long long bytes = strtoull(equals + 1, &end, 10);
    if (!isdigit((unsigned char)equals[1]) || *end || errno || bytes > LIMIT_MAX)
        return "want a number of bytes up to 1099511627776";
    for (int l = 0; l < TABLE_LIMITS; l++) {
        const char *name = rail_param_name(table_limits[l].param);
        if (strlen(name) != (size_t)(equals - line) || strncmp(name, line, strlen(name)) != 0) continue;
        struct tuning *t = &out->rules[out->n_rules - 1].tuning;
        t->set |= (uint64_t)1 << l;
        t->bytes[l] = bytes;
        return NULL;
    }
    return "no limit of the chooser has this name";
}

bool tuning_parse(const char *text, size_t bytes, struct tuning_file *out, char why[TUNING_WHY_BYTES])
{
    int number = 0;
    const char *wrong = NULL;
    char line[LINE_BYTES_MAX + 1] = "";
    out->n_rules = 0;
    for (const char *at = text, *end = text + bytes, *next; at < end && !wrong; at = next) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((stop ? stop : end) - at);
        next = at + n + 1;
        number++;
        snprintf(line, sizeof line, "%.*s", (int)(n < LINE_BYTES_MAX ? n : LINE_BYTES_MAX), at);
        const char *rest = trimmed(line);
        if (!*rest && n == 0) continue;
        if (*rest == '#') continue;
        if (n > LINE_BYTES_MAX || memchr(at, 0, n)) wrong = "too long, or no text";
        else if (!*rest) continue;
        else wrong = *rest == '[' ? read_section(rest, out) : read_limit(rest, out);
    }
    if (!wrong) return true;
    for (char *c = line; *c; c++)
        if (!isprint((unsigned char)*c)) *c = '?';
    out->n_rules = 0;
    return snprintf(why, TUNING_WHY_BYTES, "line %d, \"%.60s\": %s", number, line, wrong), false;
}

const struct tuning *tuning_find(const struct tuning_file *file, uint32_t n_ranks, uint32_t n_hosts)
{
    for (int k = file ? file->n_rules : 0; k-- > 0;)
        if (file->rules[k].n_ranks == n_ranks && file->rules[k].n_hosts == n_hosts) return &file->rules[k].tuning;
    return NULL;
}

bool tuning_knows(const struct tuning_file *file, uint32_t n_ranks)
{
    for (int k = 0; file && k < file->n_rules; k++)
        if (file->rules[k].n_ranks == n_ranks) return true;
    return false;
}

/* ---- the process's ---- */

/* "Intel(R) Xeon(R) Processor" with 2 cores: intel-r-xeon-r-processor-2. All cores that are online, whatever this
 * process is bound to: launchers bind every rank to its own. */
static void class_name(char out[128])
{
    char cpu[96];
    size_t n = 0;
    machine_cpu_name(cpu);
    for (const char *c = cpu; *c; c++) {
        if (isalnum((unsigned char)*c)) out[n++] = (char)tolower((unsigned char)*c);
        else if (n > 0 && out[n - 1] != '-') out[n++] = '-';
    }
    if (n > 0 && out[n - 1] == '-') n--;
    snprintf(out + n, 128 - n, "-%ld", sysconf(_SC_NPROCESSORS_ONLN));
}

bool tuning_path(char out[PATH_MAX])
{
    const char *named = rail_param_str(RAIL_PARAM_TUNING_FILE), *cache = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    char class[128];
    if (named) return strcmp(named, "off") != 0 && snprintf(out, PATH_MAX, "%s", named) < PATH_MAX;
    class_name(class);
    if (cache && *cache == '/') return snprintf(out, PATH_MAX, "%s/railccl/%s.conf", cache, class) < PATH_MAX;
    return home && *home == '/' && snprintf(out, PATH_MAX, "%s/.cache/railccl/%s.conf", home, class) < PATH_MAX;
}

static struct tuning_file *of_process;

/* O_NONBLOCK: a pipe in place of the file must not hang the program. */
static char *read_whole(const char *path, size_t *bytes, int *error)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    *error = fd < 0 ? errno : 0;
    if (fd < 0) return NULL;
    bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size < FILE_BYTES_MAX;
    char *text = regular ? malloc(FILE_BYTES_MAX) : NULL;
    ssize_t n = 0;
    *bytes = 0;
    while (text && *bytes < FILE_BYTES_MAX && (n = read(fd, text + *bytes, FILE_BYTES_MAX - *bytes)) > 0)
        *bytes += (size_t)n;
    if (!regular) *error = EFBIG;
    if (n < 0) *error = errno, free(text), text = NULL;
    close(fd);
    return text;
}

static void read_once(void)
{
    char why[TUNING_WHY_BYTES];
    size_t bytes;
    int error;
    bool named = rail_param_is_set(RAIL_PARAM_TUNING_FILE);
    struct tuning_file *file = calloc(1, sizeof *file);
    if (!file || !tuning_path(file->path)) return free(file);
    char *text = read_whole(file->path, &bytes, &error);
    if (!text && (named || error != ENOENT))
        RAIL_WARN("tuning file %s: %s; the chooser's built-in limits are used. RAILCCL_TUNING_FILE names another, or "
                  "is \"off\"",
                  file->path,
                  error == EFBIG ? "no regular file of less than 256 KiB" : strerror(error ? error : ENOMEM));
    if (text && !tuning_parse(text, bytes, file, why))
        RAIL_WARN("tuning file %s: %s. The whole file is left out, and the chooser's built-in limits are used; "
                  "`railccl tune --measure --save` writes it anew, RAILCCL_TUNING_FILE=off leaves it out in silence",
                  file->path, why);
    if (!text || file->n_rules == 0) {
        free(file);
    } else {
        RAIL_INFO(RAIL_INIT | RAIL_TUNING, "tuning file %s: limits for %d shape%s", file->path, file->n_rules,
                  file->n_rules == 1 ? "" : "s");
        of_process = file;
    }
    free(text);
}

const struct tuning_file *tuning_of_process(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_once);
    return of_process;
}

/* ---- a communicator's ---- */

static void say(const struct comm *comm, const struct tuning *mine, const struct tuning *agreed)
{
    const struct tuning_file *file = tuning_of_process();
    if (comm->rank != 0 && memcmp(mine, agreed, sizeof *mine) != 0)
        RAIL_INFO(RAIL_INIT | RAIL_TUNING,
                  "rank %u of %u: rank 0's tuning file counts, which says other limits than mine%s", comm->rank,
                  comm->n_ranks, file ? "" : " (there is none here)");
    for (int l = 0; l < TABLE_LIMITS && comm->rank == 0; l++)
        if (agreed->set >> l & 1)
            RAIL_INFO(RAIL_INIT | RAIL_TUNING, "rank 0 of %u: %s=%llu by the tuning file%s", comm->n_ranks,
                      rail_param_name(table_limits[l].param), (unsigned long long)agreed->bytes[l],
                      rail_param_is_set(table_limits[l].param) ? ", which the environment overrides" : "");
}

enum rail_result tuning_agree(struct comm *comm, struct rail_deadline deadline, struct tuning *out)
{
    const struct tuning *mine = tuning_find(tuning_of_process(), comm->n_ranks, comm->shape.n_nodes);
    memset(out, 0, sizeof *out);
    if (!comm->members[0].tuned) return RAIL_OK;
    struct tuning *all = calloc(comm->n_ranks, sizeof *all);
    if (!all) return rail_fail(RAIL_E_SYSTEM, "tuning of %u ranks: out of memory", comm->n_ranks);
    if (mine) all[comm->rank] = *mine;
    struct tuning own = all[comm->rank];
    enum rail_result result = bootstrap_allgather(comm->bootstrap, all, sizeof *all, deadline);
    if (result == RAIL_OK) {
        *out = all[0];
        say(comm, &own, out);
    }
    free(all);
    return result;
}
