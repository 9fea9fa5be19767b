/* announce.c - which file is this, and is it the only one? Users who were misled by a second libnccl asked for it. */
#include "core/announce.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/params.h"

#define NCCL_VERSION_TEXT "2.30.7"

/* The path at the end of one line of /proc/self/maps, NULL when the line has none. */
static char *mapped_path(char *line)
{
    char *path = strchr(line, '/');
    if (path) path[strcspn(path, "\n")] = 0;
    return path;
}

/* Every copy has one mapping with code; dlmopen() makes a second one of the same file. */
static bool is_code(const char *line)
{
    const char *permissions = strchr(line, ' ');
    return permissions && strlen(permissions) > 4 && permissions[3] == 'x';
}

static void warn_of_others(const char *own)
{
    char line[4400], last[4096] = "";
    int n_own = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps) return;
    while (fgets(line, sizeof line, maps)) {
        bool code = is_code(line);
        const char *path = mapped_path(line), *name = path ? strrchr(path, '/') + 1 : NULL;
        if (code && path && strcmp(path, own) == 0 && ++n_own == 2)
            RAIL_WARN("%s is loaded twice (dlmopen): each copy has a thread, connections and settings of its own, and "
                      "handles of one mean nothing to the other", own);
        if (!name || strncmp(name, "libnccl.so", 10) != 0 || strcmp(path, own) == 0 || strcmp(path, last) == 0) continue;
        snprintf(last, sizeof last, "%s", path);
        RAIL_WARN("a second NCCL library is mapped: %s beside %s; calls may reach either. Preload the one you mean "
                  "(LD_PRELOAD), or remove the other",
                  path, own);
    }
    fclose(maps);
}

static void announce_once(void)
{
    Dl_info info = {0};
    char own[4096] = "unknown file";
    if (dladdr((const void *)(uintptr_t)announce, &info) && info.dli_fname)
        if (!realpath(info.dli_fname, own)) snprintf(own, sizeof own, "%s", info.dli_fname);
    if (rail_log_enabled(RAIL_LOG_VERSION, 0))
        rail_log_line(RAIL_LOG_VERSION, 0, __FILE__, __LINE__, "railccl %s (NCCL %s interface) from %s", RAILCCL_VERSION,
                      NCCL_VERSION_TEXT, own);
    rail_params_report_set();
    rail_params_report_ignored();
    warn_of_others(own);
}

void announce(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, announce_once);
}
