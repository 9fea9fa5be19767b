/* device.c - devices and what is asked about them. Which physical device it is decides name, UUID, bus id and peers, so
 * that all processes speak of the same ones, whatever CUDA_VISIBLE_DEVICES shows each of them. */
#include "emulated_cuda/state.h"

#include <stdio.h>
#include <string.h>

struct device devices[MAX_DEVICES];

struct device *device_of(CUdevice ordinal)
{
    return ordinal < 0 || ordinal >= settings.n_devices ? NULL : &devices[ordinal];
}

bool device_reaches(const struct device *from, const struct device *to)
{
    return from == to || (settings.peers[from->physical] >> to->physical & 1) != 0;
}

/* Bus numbers with letters in them, as machines have: 1A, 3A, 5A ... of domain 0, then of domain 1. */
static unsigned bus_of(const struct device *d) { return 0x1au + 0x20u * (unsigned)(d->physical % 7); }
static unsigned domain_of(const struct device *d) { return (unsigned)d->physical / 7; }

CUresult cuDeviceGetCount(int *count)
{
    ENTER();
    if (count == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *count = settings.n_devices;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    ENTER();
    if (device == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (device_of(ordinal) == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice ordinal)
{
    ENTER();
    struct device *d = device_of(ordinal);
    if (name == NULL || length <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (d == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    snprintf(name, (size_t)length, "Emulated GPU %d.%d", settings.major, settings.minor);
    return CUDA_SUCCESS;
}

static CUresult uuid(CUuuid *id, CUdevice ordinal)
{
    struct device *d = device_of(ordinal);
    if (id == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (d == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    memcpy(id->bytes, "emulated-gpu-000", 16);
    id->bytes[14] = (char)('0' + d->physical / 10);
    id->bytes[15] = (char)('0' + d->physical % 10);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid(CUuuid *id, CUdevice ordinal)
{
    ENTER();
    return uuid(id, ordinal);
}

CUresult cuDeviceGetUuid_v2(CUuuid *id, CUdevice ordinal)
{
    ENTER();
    return uuid(id, ordinal);
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice ordinal)
{
    ENTER();
    if (bytes == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (device_of(ordinal) == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    *bytes = settings.memory_bytes;
    return CUDA_SUCCESS;
}

/* An H100's, where the emulator has no say of its own. What is not listed the device does not have: 0. */
static int attribute_of(const struct device *d, CUdevice_attribute attribute)
{
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: return MAX_BLOCK_THREADS;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: return 64;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: return INT32_MAX;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: return 65535;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: return 49152;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: return 232448;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: return 233472;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: return 32;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR: return 65536;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: return 1980000;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: return 2619000;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: return 5120;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: return 50 << 20;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return settings.multiprocessors;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: return 2048;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR: return 32;
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: return 3;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID: return (int)bus_of(d);
    case CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID: return (int)domain_of(d);
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return settings.major;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return settings.minor;
    case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_MEM_OPS_V1:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS_V1:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR_V1:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR:
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
    case CU_DEVICE_ATTRIBUTE_ECC_ENABLED:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS:
    case CU_DEVICE_ATTRIBUTE_COMPUTE_PREEMPTION_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM:
    case CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH:
    case CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED: return 1;
    default: return 0;
    }
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice ordinal)
{
    ENTER();
    struct device *d = device_of(ordinal);
    if (value == NULL || attribute <= 0 || attribute >= CU_DEVICE_ATTRIBUTE_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    if (d == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    *value = attribute_of(d, attribute);
    return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice ordinal)
{
    ENTER();
    if (major == NULL || minor == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (device_of(ordinal) == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    *major = settings.major;
    *minor = settings.minor;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetPCIBusId(char *text, int length, CUdevice ordinal)
{
    ENTER();
    struct device *d = device_of(ordinal);
    if (text == NULL || length < 13)
        return CUDA_ERROR_INVALID_VALUE;
    if (d == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    snprintf(text, (size_t)length, "%04X:%02X:00.0", domain_of(d), bus_of(d));
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetByPCIBusId(CUdevice *device, const char *text)
{
    ENTER();
    unsigned domain = 0, bus, slot, function = 0;
    if (device == NULL || text == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (sscanf(text, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4 &&
        sscanf(text, "%x:%x:%x", &domain, &bus, &slot) != 3 &&
        (domain = 0, sscanf(text, "%x:%x.%x", &bus, &slot, &function)) != 3)
        return CUDA_ERROR_INVALID_VALUE;
    for (int i = 0; i < settings.n_devices; i++)
        if (domain == domain_of(&devices[i]) && bus == bus_of(&devices[i]) && slot == 0 && function == 0) {
            *device = i;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceCanAccessPeer(int *can, CUdevice from, CUdevice to)
{
    ENTER();
    struct device *a = device_of(from), *b = device_of(to);
    if (can == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (a == NULL || b == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    *can = a != b && device_reaches(a, b);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetP2PAttribute(int *value, int attribute, CUdevice from, CUdevice to)
{
    ENTER();
    struct device *a = device_of(from), *b = device_of(to);
    if (value == NULL || attribute < CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK ||
        attribute > CU_DEVICE_P2P_ATTRIBUTE_ARRAY_ACCESS_SUPPORTED)
        return CUDA_ERROR_INVALID_VALUE;
    if (a == NULL || b == NULL || a == b)
        return CUDA_ERROR_INVALID_DEVICE;
    *value = attribute == CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK ? 0 : device_reaches(a, b);
    return CUDA_SUCCESS;
}
