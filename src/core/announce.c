/* announce.c - which file is this, and is it the only one? Users who were misled by a second libnccl asked for it. */
#include "core/announce.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/params.h"

#define NCCL_VERSION_TEXT "2.30.7"

/* ---- what is mapped ---- */

struct mapping { /* a line of /proc/self/maps that has a file */
    uintptr_t from, to;
    unsigned long offset, inode;
    unsigned major, minor;
    bool code;
    char path[4096]; /* ends in " (deleted)" when the name is gone or another file's by now */
};

static bool next_mapping(FILE *maps, struct mapping *out)
{
    char line[4400], permissions[8];
    while (fgets(line, sizeof line, maps)) {
        const char *path = strchr(line, '/');
        if (!path || sscanf(line, "%lx-%lx %7s %lx %x:%x %lu", &out->from, &out->to, permissions, &out->offset,
                            &out->major, &out->minor, &out->inode) != 7) continue;
        out->code = strlen(permissions) == 4 && permissions[2] == 'x';
        snprintf(out->path, sizeof out->path, "%.*s", (int)strcspn(path, "\n"), path);
        return true;
    }
    return false;
}

/* By the file, not its name: a library that was installed anew while this process has the old one is no second one. */
static bool same_file(const struct mapping *a, const struct mapping *b)
{
    return a->inode == b->inode && a->major == b->major && a->minor == b->minor;
}

static bool own_mapping(struct mapping *own)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    bool found = false;
    uintptr_t here = (uintptr_t)announce;
    while (maps && !found && next_mapping(maps, own)) found = own->from <= here && here < own->to;
    if (maps) fclose(maps);
    return found;
}

/* "libnccl.so.2", or "libnccl-1a2b3c4d.so.2" as wheels that bring everything along name it; not NCCL's plugins
 * (libnccl-net.so and the like). */
static bool is_nccl(const char *path)
{
    const char *name = strrchr(path, '/') + 1;
    if (strncmp(name, "libnccl.so", 10) == 0) return true;
    if (strncmp(name, "libnccl-", 8) != 0) return false;
    size_t digits = strspn(name + 8, "0123456789abcdef");
    return digits >= 6 && strncmp(name + 8 + digits, ".so", 3) == 0;
}

/* ---- a second one ---- */

enum { OTHERS_MOST = 4 };
static struct { unsigned long inode; unsigned major, minor; } warned[OTHERS_MOST]; /* under the lock */
static int n_warned;
static bool warned_of_copy;

static bool is_new(const struct mapping *m)
{
    for (int i = 0; i < n_warned; i++)
        if (warned[i].inode == m->inode && warned[i].major == m->major && warned[i].minor == m->minor) return false;
    if (n_warned == OTHERS_MOST) return false;
    warned[n_warned].inode = m->inode, warned[n_warned].major = m->major, warned[n_warned].minor = m->minor;
    n_warned++;
    return true;
}

/* Whose NCCL do libraries get that are linked with one? That of the program's global scope, when there is one in it. */
static const char *who_is_called(void)
{
    Dl_info found, ours;
    void *program = dlopen(NULL, RTLD_LAZY), *call = program ? dlsym(program, "pncclGetVersion") : NULL;
    bool known = call && dladdr(call, &found) && dladdr((const void *)(uintptr_t)announce, &ours);
    if (program) dlclose(program);
    if (!known) return "calls may reach either. Preload the one you mean (LD_PRELOAD), or remove the other";
    if (found.dli_fbase != ours.dli_fbase)
        return "what is linked with NCCL may call that one, which came first. Preload the one you mean (LD_PRELOAD)";
    return "what is linked with NCCL calls this one, which came first; only who opens that file by its path calls it. "
           "`railccl install --wheel` leaves one";
}

static void warn_of_others(const struct mapping *own)
{
    struct mapping m;
    bool code_seen = false;
    unsigned long code_offset = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps) return;
    while (next_mapping(maps, &m)) {
        if (!same_file(&m, own)) {
            if (is_nccl(m.path) && is_new(&m))
                RAIL_WARN("a second NCCL library is mapped: %s beside %s: %s", m.path, own->path, who_is_called());
            continue;
        }
        /* dlmopen() maps the same part of the same file again. */
        if (m.code && code_seen && m.offset == code_offset && !warned_of_copy) {
            warned_of_copy = true;
            RAIL_WARN("%s is loaded twice (dlmopen): each copy has a thread, connections and settings of its own, and "
                      "handles of one mean nothing to the other", own->path);
        }
        if (m.code) code_seen = true, code_offset = m.offset;
    }
    fclose(maps);
}

/* ---- when ---- */

static void announce_version(const char *own)
{
    if (rail_log_enabled(RAIL_LOG_VERSION, 0))
        rail_log_line(RAIL_LOG_VERSION, 0, __FILE__, __LINE__, "railccl %s (NCCL %s interface) from %s",
                      RAILCCL_VERSION, NCCL_VERSION_TEXT, own);
    rail_params_report_set();
    rail_params_report_ignored();
}

void announce(void)
{
    /* Another library may come later (cupy is imported, a plugin opens one). Reading the mappings of a process with
     * torch takes some 1 ms (543 lines), hence not with every communicator. */
    static const uint64_t again_ns = RAIL_NS_PER_S;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static bool said;
    static uint64_t looked_ns;
    static struct mapping own;
    if (pthread_mutex_trylock(&lock) != 0) return; /* another thread is at it, or was when this child was forked */
    if (!said && !own_mapping(&own)) snprintf(own.path, sizeof own.path, "unknown file");
    if (!said) announce_version(own.path);
    uint64_t now = rail_now_ns();
    if (own.inode && rail_log_enabled(RAIL_LOG_WARN, 0) && (!said || now - looked_ns >= again_ns)) {
        warn_of_others(&own);
        looked_ns = now;
    }
    said = true;
    pthread_mutex_unlock(&lock);
}
