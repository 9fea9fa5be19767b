/* nvml.h - NVIDIA's management library, loaded at run time: the one door to it. The declarations are our own, of the few
 * calls that tell what sysfs does not: the driver's GPU numbers, compute capability, NVLinks, C2C. */
#ifndef RAIL_FOREIGN_NVML_H
#define RAIL_FOREIGN_NVML_H

#include <stddef.h>

typedef void *nvml_device;
typedef int nvml_result; /* 0 is success */
enum { NVML_INVALID_ARGUMENT = 2, NVML_NOT_SUPPORTED = 3 };

struct nvml_pci {
    char bus_legacy[16];
    unsigned domain, bus, device, pci_device, pci_subsystem;
    char bus_text[32]; /* "00000000:1B:00.0" */
};

enum nvml_remote { NVML_REMOTE_GPU = 0, NVML_REMOTE_IBM_CPU = 1, NVML_REMOTE_SWITCH = 2, NVML_REMOTE_UNKNOWN = 0xff };

/* What one call of device_get_field_values asks and gets. */
struct nvml_field {
    unsigned id, scope;
    long long timestamp, latency_us;
    int value_type;
    nvml_result result;
    union { double d; unsigned u; unsigned long ul; unsigned long long ull; long long ll; } value;
};
enum { NVML_FIELD_C2C_LINKS = 170, NVML_FIELD_C2C_UP = 171, NVML_FIELD_C2C_MB_PER_S = 172 };

struct nvml_functions {
    nvml_result (*init)(void);
    nvml_result (*shutdown)(void);
    const char *(*error_string)(nvml_result);
    nvml_result (*device_get_count)(unsigned *);
    nvml_result (*device_get_handle_by_index)(unsigned, nvml_device *);
    nvml_result (*device_get_pci_info)(nvml_device, struct nvml_pci *);
    nvml_result (*device_get_capability)(nvml_device, int *major, int *minor);
    nvml_result (*device_get_nvlink_state)(nvml_device, unsigned link, int *up);
    nvml_result (*device_get_nvlink_remote_pci)(nvml_device, unsigned link, struct nvml_pci *);
    /* NULL in libraries that are older than these: */
    nvml_result (*device_get_minor_number)(nvml_device, unsigned *);
    nvml_result (*device_get_nvlink_remote_type)(nvml_device, unsigned link, int *type);
    nvml_result (*device_get_field_values)(nvml_device, int n, struct nvml_field *);
};

/* NULL when the library is not here, or is not one; *why_out then says so. `path`: NULL for libnvidia-ml.so.1. Any thread;
 * the first call of the process loads, and what it loaded stays. */
const struct nvml_functions *nvml_functions(const char *path, const char **why_out);

#endif
