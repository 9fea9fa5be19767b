/* lldp.c - who is asked about neighbours, and what an interface's neighbour is. */
#include "topo/lldp.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/params.h"
#include "foreign/jansson.h"
#include "topo/lldp_state.h"
#include "topo/machine.h"
#include "topo/sysfs.h"

/* ---- the table ---- */

static void make_printable(char *text, bool lower)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || (unsigned char)*text > '~') *text = '?';
        if (lower) *text = (char)tolower((unsigned char)*text);
    }
}

void lldp_add(struct lldp_table *table, const struct lldp_neighbour *neighbour)
{
    if (table->n == LLDP_NEIGHBOURS_MAX) return;
    struct lldp_neighbour *n = &table->at[table->n++];
    *n = *neighbour;
    make_printable(n->chassis, true);
    make_printable(n->name, false);
    make_printable(n->port, false);
}

const struct lldp_neighbour *lldp_switch_of(const struct lldp_table *table, const char *interface, bool *several_out)
{
    const struct lldp_neighbour *found = NULL;
    *several_out = false;
    for (uint32_t i = 0; i < table->n; i++) {
        const struct lldp_neighbour *n = &table->at[i];
        if (n->station || strcmp(n->interface, interface) != 0) continue;
        if (found && strcmp(found->chassis, n->chassis) != 0) *several_out = true;
        if (!found) found = n;
    }
    return *several_out ? NULL : found;
}

uint64_t lldp_key(const struct lldp_neighbour *neighbour)
{
    uint64_t key = rail_hash64(neighbour->chassis, strlen(neighbour->chassis), 37);
    return key ? key : 1;
}

/* ---- where an interface hangs ---- */

enum { LAYERS_MAX = 3, LEAVES_MAX = 8 }; /* a VLAN on a bond of two; no bond has more than 8 ports here */

struct descent {
    const struct lldp_table *table;
    const struct lldp_neighbour *leaves[LEAVES_MAX];
    uint32_t n, layer;
    bool several;
};

static void descend(struct descent *d, struct sysfs *s, const char *interface);

static enum rail_result see_lower(struct sysfs *s, const char *folder, const char *name, void *context)
{
    (void)folder;
    if (strncmp(name, "lower_", 6) == 0) descend(context, s, name + 6);
    return RAIL_OK;
}

static void descend(struct descent *d, struct sysfs *s, const char *interface)
{
    char folder[64 + 256];
    bool several;
    const struct lldp_neighbour *leaf = lldp_switch_of(d->table, interface, &several);
    d->several |= several;
    for (uint32_t i = 0; i < d->n && leaf; i++)
        if (strcmp(d->leaves[i]->chassis, leaf->chassis) == 0) return; /* known */
    if (leaf && d->n < LEAVES_MAX) d->leaves[d->n++] = leaf;
    if (leaf || several || d->layer == LAYERS_MAX) return;
    snprintf(folder, sizeof folder, "/sys/class/net/%.255s", interface);
    d->layer++;
    (void)sysfs_each(s, folder, see_lower, d);
    d->layer--;
}

static void append(char *text, size_t room, const char *what)
{
    size_t n = strlen(text);
    snprintf(text + n, room - n, "%s%s", n ? "+" : "", what);
}

void lldp_leaf_of(const struct lldp_table *table, const char *root, const char *interface, struct lldp_leaf *out)
{
    struct sysfs s = {NULL, root};
    struct descent d = {.table = table};
    memset(out, 0, sizeof *out);
    if (table->n > 0) descend(&d, &s, interface);
    out->several = d.several;
    for (uint32_t i = 0; i < d.n && !d.several; i++) {
        const struct lldp_neighbour *leaf = d.leaves[i];
        out->key += lldp_key(leaf); /* in whatever order */
        append(out->name, sizeof out->name, leaf->name[0] ? leaf->name : leaf->chassis);
        append(out->port, sizeof out->port, leaf->port[0] ? leaf->port : "?");
    }
    if (d.n > 0 && !d.several && out->key == 0) out->key = 1;
}

/* ---- files ---- */

/* The whole of a file of at most JANSSON_MOST_BYTES, to free(); NULL with errno. Never waits: pipes are refused. */
static char *slurp(const char *path, size_t *bytes_out)
{
    struct stat about;
    size_t have = 0, room = 0;
    char *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return NULL;
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) errno = EINVAL;
    else
        for (ssize_t n = 1; n > 0 && have <= JANSSON_MOST_BYTES;) {
            if (have + 4096 > room) {
                char *bigger = realloc(text, room = 2 * room + 8192);
                if (!bigger) break;
                text = bigger;
            }
            n = read(fd, text + have, room - have);
            have += n > 0 ? (size_t)n : 0;
        }
    close(fd);
    *bytes_out = have;
    return text;
}

static enum rail_result read_named(const char *path, struct lldp_table *table)
{
    size_t bytes;
    char source[320], *text = slurp(path, &bytes);
    snprintf(source, sizeof source, "RAILCCL_LLDP=%.250s", path);
    if (!text)
        return rail_fail(RAIL_E_ARGUMENT, "%s: %s; name a file that `lldpctl -f json0` wrote, or say auto or off",
                         source, strerror(errno));
    enum rail_result r = lldp_read_json(text, bytes, source, table);
    free(text);
    return r;
}

/* systemd-networkd's, one per interface, named by its number. */
static void read_networkd(struct lldp_table *table)
{
    const char *root = machine_root();
    struct if_nameindex *all = if_nameindex();
    for (const struct if_nameindex *i = all; i && i->if_index; i++) {
        char path[512];
        size_t bytes;
        snprintf(path, sizeof path, "%.400s/run/systemd/netif/lldp/%u", root, i->if_index);
        char *frames = slurp(path, &bytes);
        if (!frames) continue;
        if (lldp_read_frames(frames, bytes, path, i->if_name, table) != RAIL_OK)
            RAIL_INFO(RAIL_GRAPH, "LLDP: %s", rail_last_error());
        free(frames);
    }
    if (all) if_freenameindex(all);
}

/* ---- lldpd ---- */

static const char *lldpctl_path(void)
{
    static const char *const places[] = {"/usr/sbin/lldpctl", "/usr/bin/lldpctl", "/sbin/lldpctl",
                                         "/usr/local/sbin/lldpctl"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (access(places[i], X_OK) == 0) return places[i];
    return NULL;
}

/* What it writes until it closes or the deadline has come; NULL when it did not end in time or wrote too much. */
static char *hear(int fd, struct rail_deadline deadline, size_t *bytes_out)
{
    size_t room = 65536, have = 0;
    char *text = malloc(room);
    while (text) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (rail_deadline_passed(deadline)) break;
        if (poll(&p, 1, rail_deadline_left_ms(deadline)) < 0 && errno != EINTR) break;
        if (!p.revents) continue;
        ssize_t n = read(fd, text + have, room - have);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n < 0) break;
        if (n == 0) {
            *bytes_out = have;
            return text;
        }
        have += (size_t)n;
        if (have == room) {
            char *bigger = room < JANSSON_MOST_BYTES ? realloc(text, 2 * room) : NULL;
            if (!bigger) break;
            text = bigger;
            room *= 2;
        }
    }
    free(text);
    return NULL;
}

/* Killed, it is gone within microseconds; one that hangs in the kernel is left to be reaped by the process's end. */
static int reap(pid_t child)
{
    int status = -1;
    for (int i = 0; i < 20; i++) {
        pid_t got = waitpid(child, &status, WNOHANG);
        if (got == child) return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        if (got < 0 && errno != EINTR) return 0; /* the program ignores SIGCHLD: nobody knows how it ended */
        struct timespec pause = {.tv_nsec = 1000000};
        nanosleep(&pause, NULL);
        if (i == 9) kill(child, SIGKILL);
    }
    return -1;
}

/* With an environment of its own: a preloaded library is not for it. */
static void ask_lldpctl(const char *path, struct lldp_table *table)
{
    char *const arguments[] = {(char[]){"lldpctl"}, (char[]){"-f"}, (char[]){"json0"}, NULL};
    char *const environment[] = {(char[]){"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, (char[]){"LC_ALL=C"}, NULL};
    posix_spawn_file_actions_t files;
    int ends[2];
    pid_t child;
    size_t bytes = 0;
    if (pipe2(ends, O_CLOEXEC) != 0) return;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, ends[1], 1);
    posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
    int failed = posix_spawn(&child, path, &files, NULL, arguments, environment);
    posix_spawn_file_actions_destroy(&files);
    close(ends[1]);
    if (failed) RAIL_INFO(RAIL_GRAPH, "LLDP: %s cannot be run: %s", path, strerror(failed));
    char *text = failed ? NULL : hear(ends[0], rail_deadline_in_ns(LLDP_ASK_MS * RAIL_NS_PER_MS), &bytes);
    close(ends[0]);
    if (failed) return;
    if (!text) kill(child, SIGKILL);
    int status = reap(child);
    if (!text)
        RAIL_INFO(RAIL_GRAPH, "LLDP: %s did not answer within %d ms; its neighbours are not used", path, LLDP_ASK_MS);
    else if (status != 0)
        RAIL_INFO(RAIL_GRAPH, "LLDP: %s failed (is lldpd running, may this user ask it?); its neighbours are not used",
                  path);
    else if (lldp_read_json(text, bytes, path, table) != RAIL_OK) RAIL_INFO(RAIL_GRAPH, "LLDP: %s", rail_last_error());
    free(text);
}

/* ---- once in a process ---- */

enum rail_result lldp_of_process(const struct lldp_table **out)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct lldp_table *read_once; /* under lock; kept for the life of the process */
    const char *how = rail_param_str(RAIL_PARAM_LLDP);
    enum rail_result r = RAIL_OK;
    pthread_mutex_lock(&lock);
    struct lldp_table *table = read_once ? NULL : calloc(1, sizeof *table);
    if (!read_once && !table) r = rail_fail(RAIL_E_SYSTEM, "LLDP: out of memory");
    if (table && strcmp(how, "auto") == 0) {
        const char *lldpctl = machine_root()[0] || getauxval(AT_SECURE) ? NULL : lldpctl_path();
        read_networkd(table);
        if (lldpctl) ask_lldpctl(lldpctl, table);
    } else if (table && strcmp(how, "off") != 0) {
        r = read_named(how, table);
    }
    if (table && r == RAIL_OK) read_once = table;
    else free(table);
    *out = read_once;
    pthread_mutex_unlock(&lock);
    return r;
}
