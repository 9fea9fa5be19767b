/* sysfs_cpu.c - NUMA nodes with their cores, and whose processors they are. */
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "topo/sysfs.h"

/* "key : value" of the first processor in /proc/cpuinfo. */
static void from_cpuinfo(const struct sysfs *s, const char *key, char *out, size_t bytes)
{
    char path[SYSFS_PATH], line[512];
    out[0] = '\0';
    snprintf(path, sizeof path, "%s/proc/cpuinfo", s->root);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f) && line[0] != '\n') {
        size_t n = strlen(key);
        char *value = strchr(line, ':');
        if (strncmp(line, key, n) != 0 || (line[n] != '\t' && line[n] != ' ' && line[n] != ':') || !value) continue;
        value += 1 + strspn(value + 1, " ");
        value[strcspn(value, "\n")] = '\0';
        snprintf(out, bytes, "%s", value);
        break;
    }
    if (f) fclose(f);
}

static void describe(const struct sysfs *s, struct topo_cpu *cpu)
{
    char number[32];
    struct utsname about;
    if (uname(&about) == 0)
        snprintf(cpu->arch, sizeof cpu->arch, "%.15s", strcmp(about.machine, "aarch64") ? about.machine : "arm64");
    from_cpuinfo(s, "vendor_id", cpu->vendor, sizeof cpu->vendor);
    from_cpuinfo(s, "cpu family", number, sizeof number);
    cpu->family = atoi(number);
    from_cpuinfo(s, "model", number, sizeof number);
    cpu->model = atoi(number);
}

static enum rail_result add(struct sysfs *s, const char *folder, const char *name, void *context)
{
    char path[SYSFS_PATH], list[SYSFS_LINE];
    int *count = context;
    if (strncmp(name, "node", 4) != 0 || name[4] < '0' || name[4] > '9') return RAIL_OK;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    /* Nodes of memory alone (CXL, a GPU's) have no cores; no device is near them. */
    if (sysfs_read(s, list, sizeof list, path, "cpulist") && list[0] == '\0') return RAIL_OK;
    uint32_t node = topo_graph_add(s->graph, TOPO_CPU, TOPO_NONE, sysfs_origin(s, path, NULL));
    if (node == TOPO_NONE) return RAIL_E_ARGUMENT;
    struct topo_cpu *cpu = &s->graph->nodes[node].cpu;
    describe(s, cpu);
    cpu->numa = (int32_t)strtol(name + 4, NULL, 10);
    char cores[4096]; /* of 8192 cores the mask has 2304 letters */
    sysfs_read(s, cores, sizeof cores, path, "cpumap");
    cpu->affinity = topo_graph_text(s->graph, cores);
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology", atoi(list));
    cpu->package = (int32_t)sysfs_number(s, -1, path, "physical_package_id");
    ++*count;
    return RAIL_OK;
}

uint32_t sysfs_cpu_of(const struct topo_graph *graph, long numa)
{
    uint32_t first = TOPO_NONE;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        if (graph->nodes[i].kind != TOPO_CPU) continue;
        if (graph->nodes[i].cpu.numa == numa) return i;
        if (first == TOPO_NONE) first = i;
    }
    return first;
}

static bool is_virtual(const struct sysfs *s)
{
    char path[SYSFS_PATH], word[4096];
    bool found = false;
    snprintf(path, sizeof path, "%s/proc/cpuinfo", s->root);
    FILE *f = fopen(path, "re");
    while (f && !found && fgets(word, sizeof word, f))
        found = strncmp(word, "flags", 5) == 0 && strstr(word, " hypervisor");
    if (f) fclose(f);
    return found;
}

enum rail_result sysfs_cpus(struct sysfs *s)
{
    int count = 0;
    RAIL_TRY(sysfs_each(s, "/sys/devices/system/node", add, &count));
    if (is_virtual(s))
        topo_graph_remark(s->graph, "this is a virtual machine: what it shows of the PCI bus may not be the real one");
    if (count > 0) return RAIL_OK;
    uint32_t node = topo_graph_add(s->graph, TOPO_CPU, TOPO_NONE,
                                   (struct topo_origin){TOPO_ASSUMED, 0, "one NUMA node, as the kernel shows none"});
    if (node == TOPO_NONE) return RAIL_E_ARGUMENT;
    describe(s, &s->graph->nodes[node].cpu);
    s->graph->nodes[node].cpu.numa = 0;
    topo_graph_remark(s->graph, "the kernel shows no NUMA nodes: one is assumed");
    return RAIL_OK;
}
