/* log.c - NCCL_DEBUG's lines: "host:pid:tid [rank] railccl INFO text".
 *
 * How to log is one immutable block behind an atomic pointer (see params.c for why there is no lock); a replaced block
 * stays allocated and its file open, because another thread may be in the middle of a line. */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/params.h"

/* One line with its head; longer texts are cut with "...". PIPE_BUF (4096) keeps lines of several writers into one pipe
 * whole. */
enum { LINE_BYTES = 4096 };

struct log_config {
    int fd;
    bool own_fd;
    uint32_t gate;
    uint32_t stamp_levels; /* bit per level */
    char stamp_format[128];
    char host[64];
    struct log_config *replaced;
};

_Atomic uint32_t rail_log_gate;
static struct log_config *_Atomic config;
static _Thread_local int thread_rank = -1;

static const char *const level_names[] = {"NONE", "VERSION", "WARN", "INFO", "ABORT", "TRACE"};
enum { LEVELS = sizeof level_names / sizeof level_names[0] };
static const char *const subsystem_names[] = {
    "INIT", "COLL", "P2P",  "SHM",       "NET", "GRAPH",   "TUNING", "ENV",     "ALLOC",
    "CALL", "PROXY", "NVLS", "BOOTSTRAP", "REG", "PROFILE", "RAS",    "DESTROY",
};
enum { SUBSYSTEMS = sizeof subsystem_names / sizeof subsystem_names[0] };
_Static_assert(RAIL_DESTROY == 1u << (SUBSYSTEMS - 1), "names and bits of subsystems go together");

/* "A,B" as bits by position in `names`; "ALL" is every bit; a ^ in front takes what is left. Unknown words are nothing. */
static uint32_t parse_list(const char *text, const char *const *names, int n)
{
    uint32_t all = (1u << n) - 1, bits = 0;
    bool except = *text == '^';
    for (text += except; *text; text += *text == ',') {
        size_t bytes = strcspn(text, ",");
        for (int i = 0; i < n; i++)
            if (strlen(names[i]) == bytes && strncasecmp(text, names[i], bytes) == 0) bits |= 1u << i;
        if (bytes == 3 && strncasecmp(text, "ALL", 3) == 0) bits = all;
        text += bytes;
    }
    return except ? all & ~bits : bits;
}

static uint32_t parse_level(const char *text)
{
    for (uint32_t i = 0; text && i < LEVELS; i++)
        if (strcasecmp(text, level_names[i]) == 0) return i;
    return RAIL_LOG_NONE;
}

/* %h, %p, %%; anything else stays. False when it does not fit. */
static bool expand_path(const char *pattern, const char *host, char *out, size_t bytes)
{
    size_t at = 0;
    for (const char *p = pattern; *p; p++) {
        char piece[80] = {*p, 0};
        if (*p == '%' && p[1] == 'h')
            snprintf(piece, sizeof piece, "%s", host);
        else if (*p == '%' && p[1] == 'p')
            snprintf(piece, sizeof piece, "%d", (int)getpid());
        p += *p == '%' && p[1] && strchr("hp%", p[1]);
        size_t n = strlen(piece);
        if (at + n >= bytes) return false;
        memcpy(out + at, piece, n + 1);
        at += n;
    }
    return at > 0;
}

/* Opens NCCL_DEBUG_FILE; on failure standard output is used and `problem` says why. */
static void open_file(struct log_config *c, const char *pattern, char *problem, size_t bytes)
{
    c->fd = STDOUT_FILENO;
    if (!pattern || strcmp(pattern, "stdout") == 0) return;
    if (strcmp(pattern, "stderr") == 0) {
        c->fd = STDERR_FILENO;
        return;
    }
    char path[4096];
    if (!expand_path(pattern, c->host, path, sizeof path)) {
        snprintf(problem, bytes, "NCCL_DEBUG_FILE=%.200s: longer than %zu bytes; logging to standard output", pattern,
                 sizeof path - 1);
        return;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0666);
    if (fd < 0) {
        snprintf(problem, bytes, "open(%.200s) for NCCL_DEBUG_FILE: %s; logging to standard output", path,
                 strerror(errno));
        return;
    }
    c->fd = fd;
    c->own_fd = true;
}

static struct log_config *read_config(char *problem, size_t bytes)
{
    struct log_config *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    char *level = rail_param_read_now(RAIL_PARAM_NCCL_DEBUG), *list = rail_param_read_now(RAIL_PARAM_NCCL_DEBUG_SUBSYS);
    char *file = rail_param_read_now(RAIL_PARAM_NCCL_DEBUG_FILE);
    char *format = rail_param_read_now(RAIL_PARAM_NCCL_DEBUG_TIMESTAMP_FORMAT);
    char *levels = rail_param_read_now(RAIL_PARAM_NCCL_DEBUG_TIMESTAMP_LEVELS);
    if (gethostname(c->host, sizeof c->host - 1) != 0 || !c->host[0]) snprintf(c->host, sizeof c->host, "localhost");
    c->host[strcspn(c->host, ".")] = 0;
    uint32_t subsystems = list ? parse_list(list, subsystem_names, SUBSYSTEMS) : RAIL_INIT | RAIL_BOOTSTRAP | RAIL_ENV;
    c->gate = RAIL_LOG_STARTED | subsystems << 8 | parse_level(level);
    c->stamp_levels = levels ? parse_list(levels, level_names, LEVELS) : 1u << RAIL_LOG_WARN;
    snprintf(c->stamp_format, sizeof c->stamp_format, "%s", format ? format : "[%F %T] ");
    c->fd = STDOUT_FILENO;
    if ((c->gate & 0xff) != RAIL_LOG_NONE) open_file(c, file, problem, bytes);
    free(level), free(list), free(file), free(format), free(levels);
    return c;
}

static void start(bool again)
{
    int saved = errno;
    char problem[600] = "";
    struct log_config *old = NULL, *mine = NULL;
    if (again || !atomic_load(&config)) mine = read_config(problem, sizeof problem);
    if (mine && again) {
        mine->replaced = old = atomic_load(&config);
        while (!atomic_compare_exchange_weak(&config, &mine->replaced, mine)) {}
    } else if (mine && !atomic_compare_exchange_strong(&config, &old, mine)) {
        if (mine->own_fd) close(mine->fd);
        free(mine);
        mine = NULL;
    }
    const struct log_config *c = atomic_load(&config);
    atomic_store(&rail_log_gate, c ? c->gate : RAIL_LOG_STARTED);
    if (mine && problem[0]) RAIL_WARN("%s", problem);
    errno = saved;
}

void rail_log_start(void)
{
    start(false);
}

void rail_log_restart(void)
{
    start(true);
}

void rail_log_set_rank(int rank)
{
    thread_rank = rank;
}

/* strftime's format with %1f .. %9f replaced by digits of the second's fraction. */
static size_t format_stamp(const char *format, char *out, size_t bytes)
{
    struct timespec now;
    struct tm parts;
    char prepared[256];
    size_t at = 0;
    clock_gettime(CLOCK_REALTIME, &now);
    if (!localtime_r(&now.tv_sec, &parts)) return 0;
    for (const char *p = format; *p && at + 12 < sizeof prepared; p++) {
        if (p[0] == '%' && p[1] >= '1' && p[1] <= '9' && p[2] == 'f') {
            char digits[24];
            snprintf(digits, sizeof digits, "%09ld", now.tv_nsec % 1000000000l);
            memcpy(prepared + at, digits, (size_t)(p[1] - '0'));
            at += (size_t)(p[1] - '0');
            p += 2;
        } else {
            prepared[at++] = *p;
            if (*p == '%' && p[1]) prepared[at++] = *++p;
        }
    }
    prepared[at] = 0;
    /* strftime is given what the user wrote; a nonsense format yields nothing or nonsense, never more than `bytes`. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    return strftime(out, bytes, prepared, &parts);
#pragma GCC diagnostic pop
}

/* A reader that went away must not kill the program: SIGPIPE is blocked and, if this write raised it, taken away. A full
 * non-blocking output is waited for 100 ms, then the rest of the line is lost. */
static void write_line(int fd, const char *line, size_t bytes)
{
    sigset_t pipe_only, before, waiting;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigpending(&waiting);
    bool was_pending = sigismember(&waiting, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    while (bytes > 0) {
        ssize_t n = write(fd, line, bytes);
        if (n >= 0) {
            line += n;
            bytes -= (size_t)n;
        } else if (errno == EAGAIN) {
            struct pollfd p = {.fd = fd, .events = POLLOUT};
            if (poll(&p, 1, 100) <= 0) break;
        } else if (errno != EINTR) {
            const struct timespec zero = {0, 0};
            if (errno == EPIPE && !was_pending)
                while (sigtimedwait(&pipe_only, NULL, &zero) < 0 && errno == EINTR) {}
            break;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static size_t format_head(const struct log_config *c, enum rail_log_level level, const char *file, int line, char *out,
                          size_t bytes)
{
    size_t at = 0;
    if (c->stamp_levels & 1u << level) at = format_stamp(c->stamp_format, out, 200);
    at += (size_t)snprintf(out + at, bytes - at, "%s:%d:%d ", c->host, (int)getpid(), (int)syscall(SYS_gettid));
    if (thread_rank >= 0) at += (size_t)snprintf(out + at, bytes - at, "[%d] ", thread_rank);
    if (file && (level == RAIL_LOG_WARN || level == RAIL_LOG_TRACE)) {
        const char *slash = strrchr(file, '/');
        at += (size_t)snprintf(out + at, bytes - at, "%.60s:%d ", slash ? slash + 1 : file, line);
    }
    at += (size_t)snprintf(out + at, bytes - at, level == RAIL_LOG_NONE ? "railccl " : "railccl %s ", level_names[level]);
    return at;
}

void rail_log_line(enum rail_log_level level, uint32_t subsystem, const char *file, int line, const char *format, ...)
{
    if ((unsigned)level >= LEVELS || !rail_log_enabled(level, subsystem)) return;
    const struct log_config *c = atomic_load(&config);
    if (!c) return;
    int saved = errno;
    char text[LINE_BYTES];
    size_t at = format_head(c, level, file, line, text, sizeof text), room = sizeof text - at;
    va_list arguments;
    va_start(arguments, format);
    errno = saved; /* %m */
    int n = vsnprintf(text + at, room, format, arguments);
    va_end(arguments);
    size_t end = n < 0 ? at : at + ((size_t)n < room ? (size_t)n : room - 1);
    if (n >= 0 && (size_t)n >= room) memcpy(text + end - 3, "...", 3);
    for (size_t i = at; i < end; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) text[i] = ' ';
    text[end++] = '\n'; /* over the final NUL */
    write_line(c->fd, text, end);
    errno = saved;
}
