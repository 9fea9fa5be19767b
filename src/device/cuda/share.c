/* share.c - one device's memory seen by another device, and by another process. */
#include <string.h>

#include "base/log.h"
#include "device/cuda/state.h"

/* ---- between devices of a process ---- */

bool cuda_peer_possible(struct cuda_device *device, struct cuda_device *peer)
{
    int can = 0;
    if (device->ordinal == peer->ordinal) return device->context == peer->context;
    return device->driver->device_can_access_peer(&can, device->device, peer->device) == CU_SUCCESS && can;
}

enum rail_result cuda_peer_enable(struct cuda_device *device, const char *call, struct cuda_device *peer)
{
    struct cuda_scope scope;
    char mine[CUDA_NAME_BYTES], theirs[CUDA_NAME_BYTES];
    if (device->context == peer->context) return RAIL_OK;
    if (!cuda_peer_possible(device, peer))
        return rail_fail(RAIL_E_USAGE, "%s: %s cannot reach the memory of %s (nvidia-smi topo -p2p r); set "
                         "NCCL_P2P_DISABLE=1 to go through host memory", call, cuda_device_text(device, mine),
                         cuda_device_text(peer, theirs));
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = device->driver->context_enable_peer(peer->context, 0);
    cuda_leave(&scope);
    if (got == CU_E_PEER_ACCESS_ALREADY_ENABLED) return RAIL_OK;
    return cuda_fail(device->driver, call, got, "cuCtxEnablePeerAccess(device %d to device %d)", device->ordinal,
                     peer->ordinal);
}

/* ---- between processes ---- */

struct allocation {
    cu_address begin;
    size_t bytes;
    unsigned long long buffer_id;
    int ordinal, ipc_capable;
    unsigned type;
};

static cu_result look(const struct cuda_driver *driver, cu_address at, struct allocation *a)
{
    *a = (struct allocation){.ordinal = -1};
    int which[] = {CU_POINTER_MEMORY_TYPE, CU_POINTER_RANGE_BEGIN, CU_POINTER_RANGE_BYTES, CU_POINTER_BUFFER_ID,
                   CU_POINTER_ORDINAL, CU_POINTER_IPC_CAPABLE};
    void *into[] = {&a->type, &a->begin, &a->bytes, &a->buffer_id, &a->ordinal, &a->ipc_capable};
    return driver->pointer_attributes(sizeof which / sizeof *which, which, into, at);
}

enum rail_result cuda_export(struct cuda_device *device, const char *call, uint64_t address, struct cuda_handle *out)
{
    const struct cuda_driver *driver = device->driver;
    struct cuda_scope scope;
    struct allocation a;
    memset(out, 0, sizeof *out);
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = look(driver, address, &a);
    bool whole = got == CU_SUCCESS && a.type == CU_MEMORY_DEVICE && a.ordinal == device->ordinal && a.ipc_capable;
    if (whole) got = driver->ipc_get(&out->ipc, a.begin);
    cuda_leave(&scope);
    if (got == CU_SUCCESS && !whole)
        return rail_fail(RAIL_E_USAGE, "%s: 0x%llx is no memory that another process can map (cudaMalloc's of device "
                         "%d is; a pool's, pinned and managed memory are not)", call, (unsigned long long)address,
                         device->ordinal);
    if (got != CU_SUCCESS)
        return cuda_fail(driver, call, got, "cuIpcGetMemHandle(0x%llx) on device %d", (unsigned long long)address,
                         device->ordinal);
    memcpy(out->uuid, device->uuid, sizeof out->uuid);
    out->offset = address - a.begin;
    out->bytes = a.bytes;
    out->buffer_id = a.buffer_id;
    return RAIL_OK;
}

enum rail_result cuda_import(struct cuda_device *device, const char *call, const struct cuda_handle *handle,
                             uint64_t *base_out, uint64_t *address_out)
{
    struct cuda_scope scope;
    *base_out = *address_out = 0;
    if (handle->offset >= handle->bytes)
        return rail_fail(RAIL_E_REMOTE, "%s: a handle of memory says offset %llu of %llu bytes", call,
                         (unsigned long long)handle->offset, (unsigned long long)handle->bytes);
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = device->driver->ipc_open(base_out, handle->ipc, CU_IPC_LAZY_PEER_ACCESS);
    cuda_leave(&scope);
    if (got != CU_SUCCESS) {
        *base_out = 0;
        return cuda_fail(device->driver, call, got, "cuIpcOpenMemHandle(%llu bytes of another process) on device %d (a "
                         "container without the other's device, or without its IPC namespace, cannot)",
                         (unsigned long long)handle->bytes, device->ordinal);
    }
    *address_out = *base_out + handle->offset;
    atomic_fetch_add(&cuda_counts.imports, 1);
    return RAIL_OK;
}

void cuda_import_close(struct cuda_device *device, uint64_t base)
{
    struct cuda_scope scope;
    char words[200];
    if (!base) return;
    atomic_fetch_sub(&cuda_counts.imports, 1);
    if (cuda_enter(device, "cuIpcCloseMemHandle", &scope) != RAIL_OK) return;
    cu_result got = device->driver->ipc_close(base);
    cuda_leave(&scope);
    if (got != CU_SUCCESS)
        RAIL_INFO(RAIL_ALLOC, "cuIpcCloseMemHandle: %s", cuda_words(device->driver, got, words, sizeof words));
}
