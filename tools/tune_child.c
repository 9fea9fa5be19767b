/* tune_child.c - one run of a perf program under `railccl run`: its deadline, its end by a signal, its figures.
 *
 * The child is `railccl run` in a process group of its own; it ends its ranks itself, on SIGTERM, at its --timeout, and
 * when we die (PR_SET_PDEATHSIG). Only where it does not is its group killed. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "foreign/jansson.h"
#include "tune.h"

/* `railccl run` gives its ranks 5 s between SIGTERM and SIGKILL. */
enum { GRACE_S = 10, ARGUMENTS = 40, LOOK_MS = 20 };

static volatile sig_atomic_t told;

static void on_signal(int number) { told = number; }

static void listen_to_signals(void)
{
    struct sigaction act = {.sa_handler = on_signal};
    sigemptyset(&act.sa_mask);
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGHUP, &act, NULL);
}

/* ---- starting ---- */

struct words {
    const char *at[ARGUMENTS];
    int n;
    char text[12][PATH_MAX + 64];
    int n_text;
};

static void word(struct words *w, const char *text) { w->at[w->n++] = text; }

__attribute__((format(printf, 2, 3))) static void made(struct words *w, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(w->text[w->n_text], sizeof w->text[0], format, list);
    va_end(list);
    word(w, w->text[w->n_text++]);
}

static const char *program(enum plan_collective collective, char out[PATH_MAX + 64])
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    snprintf(out, PATH_MAX + 64, "%s/%s_perf", dirname(self), tune_collective_name(collective));
    return out;
}

static void command_line(const struct tune_child *c, const char *json, struct words *w)
{
    const struct tune_wish *wish = c->wish;
    word(w, "railccl");
    word(w, "run");
    word(w, "--no-prefix");
    word(w, "-n"), made(w, "%d", wish->ranks);
    if (wish->hosts > 1) word(w, "--hosts-emulate"), made(w, "%d", wish->hosts);
    word(w, "--timeout"), made(w, "%d", wish->timeout_s);
    word(w, "-x"), word(w, "RAILCCL_DEVICE=host");
    if (c->kind != TUNE_CHOOSER) word(w, "-x"), made(w, "RAILCCL_ALGO=%s", plan_algorithm_names[c->kind]);
    program(c->collective, w->text[w->n_text]), word(w, w->text[w->n_text++]);
    word(w, "-b"), made(w, "%llu", (unsigned long long)c->from_bytes);
    word(w, "-e"), made(w, "%llu", (unsigned long long)wish->to_bytes);
    word(w, "-f"), word(w, "2");
    word(w, "-n"), word(w, "0"); /* as many as take 50 ms */
    word(w, "-c"), word(w, c->check ? "1" : "0");
    word(w, "-J"), word(w, json);
}

static pid_t start(const struct words *w, const char *log)
{
    pid_t parent = getpid(), pid = fork();
    if (pid != 0) return pid;
    int out = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600),
        nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent || out < 0 || nothing < 0) _exit(127);
    dup2(nothing, 0), dup2(out, 1), dup2(out, 2);
    execv("/proc/self/exe", (char *const *)(uintptr_t)w->at);
    _exit(127);
}

/* The exit status, 128 + signal; 128 + what we were told when we were. */
static int wait_for(pid_t pid, int timeout_s)
{
    int status, passed_on = 0;
    struct rail_deadline end = rail_deadline_in_ns((uint64_t)(timeout_s + GRACE_S) * RAIL_NS_PER_S);
    for (pid_t got; (got = waitpid(pid, &status, WNOHANG)) != pid;) {
        if (got < 0 && errno != EINTR) return 127;
        if (told && !passed_on) {
            kill(pid, SIGTERM);
            end = rail_deadline_in_ns(GRACE_S * RAIL_NS_PER_S);
            passed_on = 1;
        }
        if (rail_deadline_passed(end)) kill(-pid, SIGKILL);
        poll(NULL, 0, LOOK_MS);
    }
    if (told) return 128 + told;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- what it says ---- */

static void show_end(const char *log)
{
    char text[2001];
    FILE *file = fopen(log, "re");
    if (!file) return;
    if (fseek(file, -2000, SEEK_END) != 0) rewind(file);
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = '\0';
    fprintf(stderr, "%s%s", text, n && text[n - 1] != '\n' ? "\n" : "");
}

struct reading {
    const struct tune_child *child;
    int n;
    bool bad;
};

static void see_row(void *context, const char *name, const struct json_t *row)
{
    struct reading *r = context;
    struct tune_sweep *s = r->child->sweep;
    (void)name;
    double size = jansson_number(jansson_member(row, "size"), -1),
           count = jansson_number(jansson_member(row, "count"), -1);
    double us = jansson_number(jansson_member(jansson_member(row, "out_of_place"), "time"), -1);
    if (size < (double)r->child->wish->from_bytes || count <= 0)
        return; /* the warm-up row; smaller than an element a rank */
    if (us <= 0 || r->n >= TUNE_SIZES_MAX || (s->n_sizes && (r->n >= s->n_sizes || (double)s->size[r->n] != size))) {
        r->bad = true;
        return;
    }
    if (!s->n_sizes) s->size[r->n] = (uint64_t)size, s->bytes[r->n] = 4 * (uint64_t)count; /* floats */
    r->child->us[r->n++] = us;
}

static int read_figures(const struct tune_child *c, const char *path)
{
    static char text[JANSSON_MOST_BYTES];
    struct json_t *root;
    FILE *file = fopen(path, "re");
    size_t n = file ? fread(text, 1, sizeof text, file) : 0;
    if (file) fclose(file);
    if (jansson_read(text, n, path, &root) != RAIL_OK)
        return fprintf(stderr, "railccl tune: what the program wrote: %s\n", rail_last_error()), 2;
    struct reading r = {.child = c};
    struct tune_sweep *s = c->sweep;
    bool first = s->n_sizes == 0;
    jansson_each(jansson_member(root, "results"), see_row, &r);
    jansson_free(root);
    if (first) s->n_sizes = r.n;
    if (r.bad || r.n == 0 || r.n != s->n_sizes)
        return fprintf(stderr, "railccl tune: %s told of %d sizes, not of the %d that were asked for\n",
                       tune_collective_name(c->collective), r.n, s->n_sizes),
               2;
    return 0;
}

int tune_child_run(const struct tune_child *c)
{
    static struct words w;
    char json[PATH_MAX], log[PATH_MAX], path[PATH_MAX + 64];
    snprintf(json, sizeof json, "%s/figures.json", c->folder);
    snprintf(log, sizeof log, "%s/output", c->folder);
    if (access(program(c->collective, path), X_OK) != 0)
        return fprintf(stderr, "railccl tune: %s: %s; `make` builds it, `make install` puts it beside railccl\n", path,
                       strerror(errno)),
               2;
    listen_to_signals();
    memset(&w, 0, sizeof w);
    command_line(c, json, &w);
    pid_t pid = told ? 0 : start(&w, log);
    if (pid < 0) return fprintf(stderr, "railccl tune: fork: %s\n", strerror(errno)), 2;
    int status = pid ? wait_for(pid, c->wish->timeout_s) : 128 + told;
    if (status == 0) status = read_figures(c, json);
    else if (status == 124)
        fprintf(stderr,
                "railccl tune: %s by %s took more than %d s: --timeout S allows more, --sizes A:B asks for less\n",
                tune_collective_name(c->collective),
                c->kind == TUNE_CHOOSER ? "the chooser" : plan_algorithm_names[c->kind], c->wish->timeout_s),
            status = 2;
    else if (!told) {
        show_end(log);
        fprintf(stderr, "railccl tune: %s failed with exit status %d; what it said stands above\n", path, status),
            status = 2;
    }
    unlink(json);
    unlink(log);
    return status;
}
