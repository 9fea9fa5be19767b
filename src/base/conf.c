/* conf.c - a file of NAME=VALUE lines, read whole and cut in place. */
#include "base/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 1 << 20, LINE_BYTES_MAX = 4095 };

struct rail_conf {
    char *path;
    size_t n_lines;
    struct { const char *name, *value; } *lines;
    char text[];
};

/* O_NONBLOCK: a pipe in place of the file must not hang the program. */
static int open_regular(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    if (fd < 0) return -1;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) return fd;
    close(fd);
    return -1;
}

static size_t read_all(int fd, char *out, size_t bytes)
{
    size_t have = 0;
    while (have < bytes) {
        ssize_t n = read(fd, out + have, bytes - have);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        have += (size_t)n;
    }
    return have;
}

static char *trim(char *start, char *end)
{
    while (start < end && strchr(" \t\r", *start)) start++;
    while (end > start && strchr(" \t\r", end[-1])) end--;
    *end = 0;
    return start;
}

static void cut(struct rail_conf *c, size_t bytes)
{
    for (char *line = c->text, *end = c->text + bytes, *next; line < end; line = next) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop) stop = end;
        next = stop + 1;
        if (stop - line > LINE_BYTES_MAX || memchr(line, 0, (size_t)(stop - line))) continue;
        char *start = trim(line, stop), *equals = strchr(start, '=');
        if (*start == '#' || !equals) continue;
        c->lines[c->n_lines].value = trim(equals + 1, equals + 1 + strlen(equals + 1));
        c->lines[c->n_lines++].name = trim(start, equals);
    }
}

struct rail_conf *rail_conf_read(const char *path)
{
    int fd = open_regular(path);
    if (fd < 0) return NULL;
    struct rail_conf *c = calloc(1, sizeof *c + FILE_BYTES_MAX + 1);
    size_t bytes = c ? read_all(fd, c->text, FILE_BYTES_MAX) : 0;
    close(fd);
    if (!c) return NULL;
    size_t n = 1;
    for (size_t i = 0; i < bytes; i++) n += c->text[i] == '\n';
    c->path = strdup(path);
    c->lines = calloc(n, sizeof c->lines[0]);
    if (!c->path || !c->lines) return rail_conf_free(c), NULL;
    struct rail_conf *small = realloc(c, sizeof *c + bytes + 1);
    if (small) c = small;
    cut(c, bytes);
    return c;
}

void rail_conf_free(struct rail_conf *conf)
{
    if (!conf) return;
    free(conf->lines);
    free(conf->path);
    free(conf);
}

const char *rail_conf_find(const struct rail_conf *conf, const char *name)
{
    for (size_t i = conf ? conf->n_lines : 0; i-- > 0;)
        if (strcmp(conf->lines[i].name, name) == 0) return conf->lines[i].value;
    return NULL;
}

const char *rail_conf_path(const struct rail_conf *conf)
{
    return conf ? conf->path : NULL;
}
