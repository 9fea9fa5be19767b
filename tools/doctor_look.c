/* doctor_look.c - the host around its RDMA ports: limits, modules, memory, control group, who filters packets, who may
 * read whose memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor.h"
#include "topo/sysfs.h"

enum { CAP_IPC_LOCK = 14, CAP_SYS_PTRACE = 19, READS_LIMIT_MS = 5000 };

static FILE *open_below(const struct sysfs *s, const char *path)
{
    char full[SYSFS_PATH];
    return snprintf(full, sizeof full, "%s%s", s->root, path) < SYSFS_PATH ? fopen(full, "re") : NULL;
}

/* The first line of a file that begins with `word`, behind it; false when there is none. */
static bool find_line(const struct sysfs *s, const char *path, const char *word, char *out, size_t bytes)
{
    char line[512];
    bool found = false;
    FILE *f = open_below(s, path);
    while (f && !found && fgets(line, sizeof line, f))
        if ((found = strncmp(line, word, strlen(word)) == 0)) {
            const char *rest = line + strlen(word);
            snprintf(out, bytes, "%.*s", (int)strcspn(rest, "\n"), rest);
        }
    if (f) fclose(f);
    return found;
}

/* "Max locked memory         8388608              8388608              bytes": the soft one. */
static int64_t limit(const struct sysfs *s, const char *name)
{
    char rest[400];
    if (!find_line(s, "/proc/self/limits", name, rest, sizeof rest)) return DOCTOR_UNKNOWN;
    const char *value = rest + strspn(rest, " ");
    return strncmp(value, "unlimited", 9) == 0 ? DOCTOR_UNLIMITED : strtoll(value, NULL, 10);
}

static bool has_capability(const struct sysfs *s, int capability)
{
    char mask[64];
    return find_line(s, "/proc/self/status", "CapEff:", mask, sizeof mask) && strtoull(mask, NULL, 16) >> capability & 1;
}

static bool module(const struct sysfs *s, const char *name)
{
    char path[100];
    snprintf(path, sizeof path, "/sys/module/%s", name);
    return sysfs_exists(s, path, NULL);
}

static bool kernel_knows(const struct sysfs *s, const char *symbol)
{
    char line[512];
    bool known = false;
    FILE *f = open_below(s, "/proc/kallsyms"); /* "0000000000000000 t ib_umem_dmabuf_get	[ib_uverbs]" */
    while (f && !known && fgets(line, sizeof line, f)) {
        const char *name = strlen(line) > 19 ? line + 19 : "";
        known = strncmp(name, symbol, strlen(symbol)) == 0 && strchr("\t\n ", name[strlen(symbol)]);
    }
    if (f) fclose(f);
    return known;
}

static void look_at_modules(const struct sysfs *s, struct doctor_facts *f)
{
    char line[400];
    f->uverbs = module(s, "ib_uverbs");
    f->ucm = module(s, "rdma_ucm");
    f->cm_file = sysfs_exists(s, "/dev/infiniband/rdma_cm", NULL);
    f->nvidia = module(s, "nvidia");
    f->peermem = module(s, "nvidia_peermem") || module(s, "nv_peer_mem");
    f->nvidia_open = find_line(s, "/proc/driver/nvidia/version", "NVRM version:", line, sizeof line) &&
                     strstr(line, "Open Kernel Module");
    if (f->gpus) f->dmabuf = kernel_knows(s, "ib_umem_dmabuf_get"); /* a long file: read where it matters */
}

static enum rail_result count_node(struct sysfs *s, const char *folder, const char *name, void *context)
{
    (void)s, (void)folder;
    *(int32_t *)context += strncmp(name, "node", 4) == 0 && name[4] >= '0' && name[4] <= '9';
    return RAIL_OK;
}

/* "0-3,8": calls for each range; false at what is none. */
static bool next_range(const char **text, long *first, long *last)
{
    char *end;
    *first = *last = strtol(*text, &end, 10);
    if (end == *text) return false;
    if (*end == '-') *last = strtol(end + 1, &end, 10);
    *text = *end == ',' ? end + 1 : end;
    return true;
}

static bool overlap(const char *a, const char *b)
{
    long p, q, r, t;
    for (const char *x = a; next_range(&x, &p, &q);)
        for (const char *y = b; next_range(&y, &r, &t);)
            if (p <= t && r <= q) return true;
    return false;
}

/* Which CPUs this process may use, and whether any of them is beside each port. */
static void look_at_cpus(struct sysfs *s, struct doctor_facts *f)
{
    char allowed[400], path[100], beside[SYSFS_LINE];
    long first, last;
    f->cpus_allowed = DOCTOR_UNKNOWN;
    (void)sysfs_each(s, "/sys/devices/system/node", count_node, &f->numa_nodes);
    if (!find_line(s, "/proc/self/status", "Cpus_allowed_list:\t", allowed, sizeof allowed)) return;
    f->cpus_allowed = 0;
    for (const char *at = allowed; next_range(&at, &first, &last);) f->cpus_allowed += (int32_t)(last - first + 1);
    for (int32_t i = 0; i < f->n_ports; i++) {
        if (f->ports[i].numa < 0) continue;
        snprintf(path, sizeof path, "/sys/devices/system/node/node%d", f->ports[i].numa);
        if (sysfs_read(s, beside, sizeof beside, path, "cpulist") && beside[0])
            f->ports[i].numa_allowed = overlap(allowed, beside);
    }
}

/* One control group: "200000 100000" or "max 100000"; bytes or "max". The tightest on the way to the root counts. */
static void see_group(const struct sysfs *s, struct doctor_facts *f, const char *folder)
{
    char line[SYSFS_LINE];
    double quota, period;
    if (sysfs_read(s, line, sizeof line, folder, "cpu.max") && sscanf(line, "%lf %lf", &quota, &period) == 2 &&
        period > 0)
        if (f->cpu_quota == 0 || quota / period < f->cpu_quota) f->cpu_quota = quota / period;
    if (sysfs_read(s, line, sizeof line, folder, "memory.max") && line[0] >= '0' && line[0] <= '9') {
        int64_t bytes = strtoll(line, NULL, 10);
        if (f->memory_limit < 0 || bytes < f->memory_limit) f->memory_limit = bytes;
    }
}

static void look_at_group(const struct sysfs *s, struct doctor_facts *f)
{
    char group[400] = "", folder[SYSFS_PATH];
    f->memory_limit = DOCTOR_UNKNOWN;
    (void)find_line(s, "/proc/self/cgroup", "0::", group, sizeof group);
    for (;;) {
        snprintf(folder, sizeof folder, "/sys/fs/cgroup%s", strcmp(group, "/") == 0 ? "" : group);
        see_group(s, f, folder);
        char *slash = strrchr(group, '/');
        if (!slash) break;
        *slash = '\0';
    }
    /* Version 1, whose folders a container sees as its own. */
    long quota = sysfs_number(s, -1, "/sys/fs/cgroup/cpu", "cpu.cfs_quota_us");
    long period = sysfs_number(s, 0, "/sys/fs/cgroup/cpu", "cpu.cfs_period_us");
    if (quota > 0 && period > 0 && f->cpu_quota == 0) f->cpu_quota = (double)quota / (double)period;
    long bytes = sysfs_number(s, -1, "/sys/fs/cgroup/memory", "memory.limit_in_bytes");
    if (bytes > 0 && bytes < INT64_MAX / 2 && f->memory_limit < 0) f->memory_limit = bytes; /* near 2^63: none */
}

/* "size=65536k" among a mount's options; without one it is half of the memory. */
static int64_t size_option(const char *options, int64_t memory)
{
    char *end;
    const char *at = strstr(options, "size=");
    if (!at) return memory > 0 ? memory / 2 : DOCTOR_UNKNOWN;
    int64_t n = strtoll(at + 5, &end, 10);
    return *end == 'k' ? n << 10 : *end == 'm' ? n << 20 : *end == 'g' ? n << 30 : *end == '%' ? memory / 100 * n : n;
}

static void look_at_memory(const struct sysfs *s, struct doctor_facts *f)
{
    char line[512], mode[SYSFS_LINE], options[400];
    f->memory = f->shm = DOCTOR_UNKNOWN;
    if (find_line(s, "/proc/meminfo", "MemTotal:", line, sizeof line)) f->memory = strtoll(line, NULL, 10) << 10;
    FILE *mounts = open_below(s, "/proc/self/mounts");
    while (mounts && fgets(line, sizeof line, mounts))
        if (sscanf(line, "%*s /dev/shm tmpfs %399s", options) == 1) f->shm = size_option(options, f->memory);
    if (mounts) fclose(mounts);
    f->huge_pages = sysfs_number(s, 0, "/sys/kernel/mm/hugepages/hugepages-2048kB", "nr_hugepages") << 21;
    f->huge_pages += sysfs_number(s, 0, "/sys/kernel/mm/hugepages/hugepages-1048576kB", "nr_hugepages") << 30;
    sysfs_read(s, mode, sizeof mode, "/sys/kernel/mm/transparent_hugepage", "enabled"); /* "always [madvise] never" */
    const char *chosen = strchr(mode, '[');
    if (chosen) snprintf(f->huge_mode, sizeof f->huge_mode, "%.*s", (int)strcspn(chosen + 1, "]"), chosen + 1);
}

/* What of the kernel's command line concerns the IOMMU: "intel_iommu=on iommu=pt". */
static void look_at_command_line(const struct sysfs *s, struct doctor_facts *f)
{
    char line[SYSFS_LINE * 4], *save;
    if (!sysfs_read(s, line, sizeof line, "/proc", "cmdline")) return;
    for (char *word = strtok_r(line, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        size_t used = strlen(f->iommu_line);
        if (strstr(word, "iommu") && used + strlen(word) + 2 < sizeof f->iommu_line)
            sprintf(f->iommu_line + used, "%s%s", used ? " " : "", word);
    }
}

/* Rules themselves only root may read; that there is somebody who makes some can be seen. */
static void look_at_firewall(const struct sysfs *s, struct doctor_facts *f)
{
    char line[SYSFS_LINE];
    if (find_line(s, "/etc/ufw/ufw.conf", "ENABLED=yes", line, sizeof line)) strcpy(f->firewall, "ufw");
    else if (sysfs_exists(s, "/run/firewalld", NULL) || sysfs_exists(s, "/var/run/firewalld.pid", NULL))
        strcpy(f->firewall, "firewalld");
    else if (find_line(s, "/proc/net/ip_tables_names", "filter", line, sizeof line)) strcpy(f->firewall, "iptables");
    else if (sysfs_number(s, 0, "/sys/module/nf_tables", "refcnt") > 0) strcpy(f->firewall, "nftables");
}

/* Another machine's files tell what Yama forbids; what else does is found by trying alone. */
static void look_at_reads(const struct sysfs *s, struct doctor_facts *f)
{
    char mode[64];
    f->ptrace_scope = (int32_t)sysfs_number(s, DOCTOR_UNKNOWN, "/proc/sys/kernel/yama", "ptrace_scope");
    f->may_trace = has_capability(s, CAP_SYS_PTRACE);
    f->seccomp = find_line(s, "/proc/self/status", "Seccomp:", mode, sizeof mode) && strtol(mode, NULL, 10) != 0;
    f->peer_read = s->root[0] ? DOCTOR_UNKNOWN : doctor_try_reads(READS_LIMIT_MS);
}

enum rail_result doctor_look(const char *root, struct doctor_facts *out)
{
    struct stat there;
    struct sysfs s = {NULL, root};
    if (root[0] && (stat(root, &there) != 0 || !S_ISDIR(there.st_mode)))
        return rail_fail(RAIL_E_ARGUMENT,
                         "%s is no folder; --root takes one below which /sys and /proc of a machine are", root);
    memset(out, 0, sizeof *out);
    snprintf(out->version, sizeof out->version, "%s", RAILCCL_VERSION);
    snprintf(out->root, sizeof out->root, "%s", root);
    sysfs_read(&s, out->host, sizeof out->host, "/proc/sys/kernel", "hostname");
    sysfs_read(&s, out->kernel, sizeof out->kernel, "/proc/sys/kernel", "osrelease");
    doctor_look_ports(root, out);
    look_at_modules(&s, out);
    look_at_cpus(&s, out);
    out->memlock = limit(&s, "Max locked memory");
    out->files = limit(&s, "Max open files");
    out->may_lock = has_capability(&s, CAP_IPC_LOCK);
    look_at_group(&s, out);
    look_at_memory(&s, out);
    look_at_command_line(&s, out);
    look_at_firewall(&s, out);
    look_at_reads(&s, out);
    return RAIL_OK;
}
