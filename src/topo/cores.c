/* cores.c - how many cores this process may keep busy: its affinity mask, and the quota of every control group above
 * it (version 2's cpu.max, version 1's cpu.cfs_quota_us), rounded up. */
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "topo/machine.h"

enum { PATH_BYTES = 4608 }; /* PATH_MAX and a file's name */

static int affinity_cores(void)
{
    /* The kernel refuses masks smaller than its own; 1 << 20 cores is beyond any. */
    for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)cpus);
        if (!set) return 1;
        size_t bytes = CPU_ALLOC_SIZE((size_t)cpus);
        int rc = sched_getaffinity(0, bytes, set), error = errno;
        int count = rc == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (rc == 0) return count > 0 ? count : 1;
        if (error != EINVAL) return 1;
    }
    return 1;
}

static bool read_line(const char *path, char *out, int bytes)
{
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool ok = fgets(out, bytes, f) != NULL;
    fclose(f);
    return ok;
}

static int limit(int cores, long long quota_us, long long period_us)
{
    if (quota_us <= 0 || period_us <= 0) return cores;
    long long allowed = (quota_us + period_us - 1) / period_us;
    return allowed < cores ? (int)allowed : cores;
}

/* One group's own limit; `directory` has no trailing slash. */
static int limit_by_group(const char *directory, int cores)
{
    char path[PATH_BYTES + 32], line[128];
    long long quota, period;
    snprintf(path, sizeof path, "%s/cpu.max", directory); /* "max 100000" or "150000 100000" */
    if (read_line(path, line, sizeof line) && sscanf(line, "%lld %lld", &quota, &period) == 2)
        cores = limit(cores, quota, period);
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", directory); /* -1 is no limit */
    if (!read_line(path, line, sizeof line)) return cores;
    quota = strtoll(line, NULL, 10);
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", directory);
    if (!read_line(path, line, sizeof line)) return cores;
    return limit(cores, quota, strtoll(line, NULL, 10));
}

/* The group and all above it, up to the mount point: each may limit. */
static int limit_by_branch(const char *mount, const char *group, int cores)
{
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%s%s", mount, group);
    if (n < 0 || (size_t)n >= sizeof path) return cores;
    for (size_t end = (size_t)n, floor = strlen(mount); ; ) {
        while (end > floor && path[end - 1] == '/') path[--end] = '\0';
        cores = limit_by_group(path, cores);
        if (end <= floor) return cores;
        while (end > floor && path[end - 1] != '/') path[--end] = '\0';
    }
}

/* Where version 1's cpu controller and version 2's tree are mounted by every distribution. */
static const char *const mounts[] = {
    "/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct",
};

/* Whether a line of /proc/self/cgroup, "id:controllers:/group", speaks of the cpu. */
static bool about_cpu(const char *controllers, size_t bytes)
{
    if (bytes == 0) return true; /* version 2 */
    for (size_t i = 0; i < bytes; ) {
        size_t item = strcspn(controllers + i, ",:");
        if (item == 3 && memcmp(controllers + i, "cpu", 3) == 0) return true;
        i += item + 1;
    }
    return false;
}

int machine_cores_under(const char *root, int cores)
{
    char path[PATH_BYTES], line[PATH_BYTES], mount[PATH_BYTES];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group || !about_cpu(controllers + 1, (size_t)(group - controllers - 1))) continue;
        group++;
        group[strcspn(group, "\n")] = '\0';
        for (size_t i = 0; i < sizeof mounts / sizeof mounts[0]; i++) {
            snprintf(mount, sizeof mount, "%s%s", root, mounts[i]);
            cores = limit_by_branch(mount, group, cores);
        }
    }
    if (f) fclose(f);
    return cores > 0 ? cores : 1;
}

int machine_cores(void) { return machine_cores_under("", affinity_cores()); }
