/* nvml.c - loads libnvidia-ml.so.1 on first use. */
#include "foreign/nvml.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(struct nvml_pci) == 68 && offsetof(struct nvml_field, value) == 32 && sizeof(struct nvml_field) == 40,
               "NVML's layouts");

static struct nvml_functions functions;
static char trouble[400];
static const char *wanted = "libnvidia-ml.so.1"; /* under `lock` until it is loaded */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool loaded;

#define FUNCTION(name, member) {name, offsetof(struct nvml_functions, member), true}
#define OPTIONAL(name, member) {name, offsetof(struct nvml_functions, member), false}

static const struct { const char *name; size_t at; bool needed; } names[] = {
    FUNCTION("nvmlInit_v2", init),
    FUNCTION("nvmlShutdown", shutdown),
    FUNCTION("nvmlErrorString", error_string),
    FUNCTION("nvmlDeviceGetCount_v2", device_get_count),
    FUNCTION("nvmlDeviceGetHandleByIndex_v2", device_get_handle_by_index),
    FUNCTION("nvmlDeviceGetPciInfo_v3", device_get_pci_info),
    FUNCTION("nvmlDeviceGetCudaComputeCapability", device_get_capability),
    FUNCTION("nvmlDeviceGetNvLinkState", device_get_nvlink_state),
    FUNCTION("nvmlDeviceGetNvLinkRemotePciInfo_v2", device_get_nvlink_remote_pci),
    OPTIONAL("nvmlDeviceGetMinorNumber", device_get_minor_number),
    OPTIONAL("nvmlDeviceGetNvLinkRemoteDeviceType", device_get_nvlink_remote_type),
    OPTIONAL("nvmlDeviceGetFieldValues", device_get_field_values),
};

static void load(void)
{
    void *library = dlopen(wanted, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *error = dlerror(); /* "libnvidia-ml.so.1: cannot open shared object file: No such file or directory" */
        snprintf(trouble, sizeof trouble, "%s", error ? error : "cannot be loaded");
        return;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *function = dlsym(library, names[i].name);
        if (!function && names[i].needed && !trouble[0])
            snprintf(trouble, sizeof trouble, "%s has no %s: no NVML, or older than driver 418", wanted, names[i].name);
        memcpy((char *)&functions + names[i].at, &function, sizeof function);
    }
}

const struct nvml_functions *nvml_functions(const char *path, const char **why_out)
{
    pthread_mutex_lock(&lock);
    if (!loaded) {
        if (path && path[0]) wanted = path;
        load();
        loaded = true;
    }
    pthread_mutex_unlock(&lock);
    *why_out = trouble;
    return trouble[0] ? NULL : &functions;
}
