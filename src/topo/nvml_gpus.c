/* nvml_gpus.c - NVML's GPUs found by bus number among those of sysfs. Nothing that it says is trusted to be sane: counts
 * have bounds, ends of links must be devices that are there. */
#include "topo/nvml_gpus.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/params.h"
#include "foreign/nvml.h"
#include "topo/nvlink.h"

/* Blackwell has 18 NVLinks and 10 C2C links; twice that is beyond any. */
enum { LINKS_MAX = 36, C2C_MAX = 32 };

struct asking {
    struct sysfs *s;
    const struct nvml_functions *nvml;
    struct topo_origin origin;
};

static struct topo_graph *graph_of(const struct asking *a) { return a->s->graph; }

static bool refused(const struct asking *a, const char *call, const char *of, nvml_result result)
{
    if (result == 0) return false;
    const char *why = a->nvml->error_string(result);
    topo_graph_remark(graph_of(a), "NVML: %s of %s: %s (%d)", call, of, why ? why : "?", result);
    return true;
}

static bool bus_of(const struct nvml_pci *pci, uint64_t *out)
{
    char text[sizeof pci->bus_text + 1];
    memcpy(text, pci->bus_text, sizeof pci->bus_text);
    text[sizeof pci->bus_text] = '\0';
    return topo_bus_parse(text, out);
}

/* --- NVLink ------------------------------------------------------------------------------------------------------- */

/* Where a link leads when the driver does not say what is there: NVSwitches are bridges of class 0x0680. */
static int kind_by_sysfs(const struct asking *a, uint64_t bus)
{
    char path[SYSFS_PATH], text[24];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s", topo_bus_text(bus, text));
    return sysfs_number(a->s, 0, path, "class") >> 8 == 0x0680 ? NVML_REMOTE_SWITCH : NVML_REMOTE_UNKNOWN;
}

/* The node at the other end; TOPO_NONE: none that is known, and a remark says so, or (*result) a failure. */
static uint32_t other_end(const struct asking *a, uint32_t gpu, unsigned link, nvml_device device, enum rail_result *result)
{
    struct nvml_pci pci = {.domain = 0};
    struct topo_graph *graph = graph_of(a);
    char bus_text[24], of[80];
    int type = NVML_REMOTE_UNKNOWN;
    uint64_t bus = TOPO_NO_BUS;
    snprintf(of, sizeof of, "GPU %s, link %u", topo_bus_text(graph->nodes[gpu].bus, bus_text), link);
    if (a->nvml->device_get_nvlink_remote_type && a->nvml->device_get_nvlink_remote_type(device, link, &type) != 0)
        type = NVML_REMOTE_UNKNOWN;
    if (type != NVML_REMOTE_SWITCH) { /* all switches are one node */
        if (refused(a, "nvmlDeviceGetNvLinkRemotePciInfo", of, a->nvml->device_get_nvlink_remote_pci(device, link, &pci)))
            return TOPO_NONE;
        if (!bus_of(&pci, &bus)) {
            topo_graph_remark(graph, "NVML: %s leads to a device without a bus number: it was left out", of);
            return TOPO_NONE;
        }
    }
    uint32_t to = bus == TOPO_NO_BUS ? TOPO_NONE : topo_graph_by_bus(graph, 0, bus);
    if (to != TOPO_NONE && graph->nodes[to].kind == TOPO_GPU && to != gpu) return to;
    if (type == NVML_REMOTE_UNKNOWN) type = kind_by_sysfs(a, bus);
    if (type == NVML_REMOTE_SWITCH) {
        to = nvlink_switch(graph, 0, a->origin);
        if (to == TOPO_NONE) *result = RAIL_E_ARGUMENT;
        return to;
    }
    topo_graph_remark(graph, "NVML: %s leads to %s %s, which is not known here: it was left out", of,
                      type == NVML_REMOTE_IBM_CPU ? "a CPU" : type == NVML_REMOTE_GPU ? "a GPU" : "something",
                      topo_bus_text(bus, bus_text));
    return TOPO_NONE;
}

static bool is_up(const struct asking *a, uint32_t gpu, unsigned link, nvml_device device, bool *last)
{
    int up = 0;
    char of[80], bus[24];
    nvml_result result = a->nvml->device_get_nvlink_state(device, link, &up);
    *last = result == NVML_INVALID_ARGUMENT || result == NVML_NOT_SUPPORTED; /* it has no more */
    if (*last) return false;
    snprintf(of, sizeof of, "GPU %s, link %u", topo_bus_text(graph_of(a)->nodes[gpu].bus, bus), link);
    return !refused(a, "nvmlDeviceGetNvLinkState", of, result) && up == 1;
}

/* Links to one device are counted before they are added: the other end is compared with their number. */
static enum rail_result add_links(const struct asking *a, uint32_t gpu, nvml_device device)
{
    struct { uint32_t to, count; } ends[LINKS_MAX];
    uint32_t n = 0;
    bool last = false;
    enum rail_result result = RAIL_OK;
    for (unsigned link = 0; link < LINKS_MAX && !last && result == RAIL_OK; link++) {
        uint32_t to = is_up(a, gpu, link, device, &last) ? other_end(a, gpu, link, device, &result) : TOPO_NONE, i = 0;
        if (to == TOPO_NONE) continue;
        while (i < n && ends[i].to != to) i++;
        if (i == n) ends[n].to = to, ends[n++].count = 0;
        ends[i].count++;
    }
    char where[48], bus[24];
    snprintf(where, sizeof where, "NVML: GPU %s", topo_bus_text(graph_of(a)->nodes[gpu].bus, bus));
    for (uint32_t i = 0; i < n && result == RAIL_OK; i++)
        result = nvlink_add(graph_of(a), gpu, ends[i].to, ends[i].count, where);
    return result;
}

/* --- C2C ---------------------------------------------------------------------------------------------------------- */

static bool field(const struct asking *a, nvml_device device, unsigned id, unsigned scope, unsigned *out)
{
    struct nvml_field f = {.id = id, .scope = scope, .result = -1};
    if (!a->nvml->device_get_field_values || a->nvml->device_get_field_values(device, 1, &f) != 0 || f.result != 0)
        return false;
    *out = f.value.u;
    return true;
}

static enum rail_result add_c2c(const struct asking *a, uint32_t gpu, nvml_device device)
{
    struct topo_graph *graph = graph_of(a);
    uint32_t cpu = topo_graph_above(graph, gpu, TOPO_CPU);
    unsigned n = 0, up, mb_per_s;
    struct topo_link link = {.kind = TOPO_LINK_C2C, .a = gpu, .b = cpu};
    if (!field(a, device, NVML_FIELD_C2C_LINKS, 0, &n) || n == 0 || cpu == TOPO_NONE) return RAIL_OK;
    if (n > C2C_MAX) {
        char bus[24];
        topo_graph_remark(graph, "NVML: GPU %s has %u C2C links, which no GPU has: they were left out",
                          topo_bus_text(graph->nodes[gpu].bus, bus), n);
        return RAIL_OK;
    }
    for (unsigned i = 0; i < n; i++) {
        if (!field(a, device, NVML_FIELD_C2C_UP, i, &up) || up == 0 ||
            !field(a, device, NVML_FIELD_C2C_MB_PER_S, i, &mb_per_s) || mb_per_s == 0 || mb_per_s > 10000000)
            continue;
        link.count++;
        link.rate.gb_per_s += mb_per_s / 1000.0;
    }
    link.rate.origin = a->origin;
    return link.count ? topo_graph_link(graph, link) : RAIL_OK;
}

/* --- GPUs --------------------------------------------------------------------------------------------------------- */

static uint32_t find_gpu(const struct asking *a, unsigned index, nvml_device device)
{
    struct topo_graph *graph = graph_of(a);
    struct nvml_pci pci = {.domain = 0};
    char of[24], text[24];
    uint64_t bus;
    snprintf(of, sizeof of, "device %u", index);
    if (refused(a, "nvmlDeviceGetPciInfo", of, a->nvml->device_get_pci_info(device, &pci))) return TOPO_NONE;
    if (!bus_of(&pci, &bus)) {
        topo_graph_remark(graph, "NVML: device %u has no bus number that could be read: it was left out", index);
        return TOPO_NONE;
    }
    uint32_t gpu = topo_graph_by_bus(graph, 0, bus);
    if (gpu != TOPO_NONE && graph->nodes[gpu].kind == TOPO_GPU && graph->nodes[gpu].gpu.dev < 0) return gpu;
    topo_graph_remark(graph, "NVML: device %u is %s, %s: it was left out", index, topo_bus_text(bus, text),
                      gpu != TOPO_NONE && graph->nodes[gpu].kind == TOPO_GPU ? "as another one is"
                                                                             : "of which sysfs knows no GPU");
    return TOPO_NONE;
}

static void describe(const struct asking *a, uint32_t node, unsigned index, nvml_device device)
{
    struct topo_gpu *gpu = &graph_of(a)->nodes[node].gpu;
    int major = 0, minor = 0;
    unsigned file = 0;
    char of[24];
    snprintf(of, sizeof of, "device %u", index);
    gpu->dev = (int32_t)index;
    gpu->driver_origin = a->origin;
    if (!refused(a, "nvmlDeviceGetCudaComputeCapability", of, a->nvml->device_get_capability(device, &major, &minor))) {
        if (major > 0 && major < 100 && minor >= 0 && minor < 10) gpu->sm = 10 * major + minor;
        else topo_graph_remark(graph_of(a), "NVML: %s has compute capability %d.%d, which none has", of, major, minor);
    }
    if (a->nvml->device_get_minor_number && a->nvml->device_get_minor_number(device, &file) == 0 && file < 1 << 20)
        gpu->minor = (int32_t)file;
}

/* All GPUs first: links lead from one to another, and rates depend on the generation. */
static enum rail_result ask(const struct asking *a, unsigned n, uint32_t *nodes, nvml_device *devices)
{
    char of[24];
    for (unsigned i = 0; i < n; i++) {
        snprintf(of, sizeof of, "device %u", i);
        nodes[i] = TOPO_NONE;
        if (refused(a, "nvmlDeviceGetHandleByIndex", of, a->nvml->device_get_handle_by_index(i, &devices[i]))) continue;
        nodes[i] = find_gpu(a, i, devices[i]);
        if (nodes[i] != TOPO_NONE) describe(a, nodes[i], i, devices[i]);
    }
    for (unsigned i = 0; i < n; i++) {
        if (nodes[i] == TOPO_NONE) continue;
        RAIL_TRY(add_links(a, nodes[i], devices[i]));
        RAIL_TRY(add_c2c(a, nodes[i], devices[i]));
    }
    return RAIL_OK;
}

static enum rail_result ask_all(const struct asking *a)
{
    unsigned n = 0;
    if (refused(a, "nvmlDeviceGetCount", "the driver", a->nvml->device_get_count(&n))) return RAIL_OK;
    if (n > TOPO_MAX_OF_A_KIND) {
        topo_graph_remark(graph_of(a), "NVML: the driver tells of %u GPUs, which no machine has: it is not believed", n);
        return RAIL_OK;
    }
    uint32_t *nodes = calloc(n + 1, sizeof *nodes);
    nvml_device *devices = calloc(n + 1, sizeof *devices);
    enum rail_result result = nodes && devices ? ask(a, n, nodes, devices)
                                               : rail_fail(RAIL_E_SYSTEM, "out of memory for %u GPUs", n);
    free(nodes);
    free(devices);
    return result;
}

static bool has_gpu(const struct topo_graph *graph)
{
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i].kind == TOPO_GPU && graph->nodes[i].vendor == 0x10de) return true;
    return false;
}

enum rail_result nvml_gpus(struct sysfs *s)
{
    const char *path = rail_param_str(RAIL_PARAM_NVML_LIB), *why;
    if (!has_gpu(s->graph) || (s->root[0] && !path) || (path && strcmp(path, "0") == 0)) return RAIL_OK;
    struct asking a = {s, nvml_functions(path, &why), {TOPO_NVML, 0, "the driver"}};
    if (!a.nvml) {
        RAIL_INFO(RAIL_INIT, "NVML is not asked: %s", why);
        topo_graph_remark(s->graph, "NVML is not asked, so NVLinks, C2C and the driver's GPU numbers are not known: %s",
                          why);
        return RAIL_OK;
    }
    if (refused(&a, "nvmlInit", "the driver", a.nvml->init())) return RAIL_OK;
    enum rail_result result = ask_all(&a);
    (void)a.nvml->shutdown();
    return result;
}
