/* cuda.h - NVIDIA's driver API (libcuda.so.1), loaded at run time: the one door to it. The declarations are our own, of
 * the calls that we use; no CUDA header is needed to build. A test compares them with NVIDIA's where that is installed.
 *
 * Everything here is of CUDA 11.3 or older unless marked as one that may be missing. Names are the versioned ones that
 * the library exports ("cuMemAlloc_v2"), without the _ptsz forms: stream NULL is the legacy stream. */
#ifndef RAIL_FOREIGN_CUDA_H
#define RAIL_FOREIGN_CUDA_H

#include <stddef.h>
#include <stdint.h>

typedef int cu_result; /* enum cu_results; drivers know more than these */
typedef int cu_device; /* an ordinal: CUDA_VISIBLE_DEVICES counts */
typedef struct CUctx_st *cu_context;
typedef struct CUstream_st *cu_stream; /* what nccl.h and CUDA's headers call cudaStream_t */
typedef struct CUevent_st *cu_event;
typedef struct CUmod_st *cu_module;
typedef struct CUfunc_st *cu_function;
typedef struct CUgraph_st *cu_graph;
typedef struct CUuserObject_st *cu_user_object;
typedef uint64_t cu_address;    /* CUdeviceptr */
typedef uint64_t cu_allocation; /* CUmemGenericAllocationHandle */
typedef void (*cu_host_function)(void *argument);

enum cu_results {
    CU_SUCCESS = 0,
    CU_E_INVALID_VALUE = 1,
    CU_E_OUT_OF_MEMORY = 2,
    CU_E_NOT_INITIALIZED = 3,
    CU_E_DEINITIALIZED = 4,
    CU_E_STUB_LIBRARY = 34,
    CU_E_DEVICE_UNAVAILABLE = 46,
    CU_E_NO_DEVICE = 100,
    CU_E_INVALID_DEVICE = 101,
    CU_E_INVALID_IMAGE = 200,
    CU_E_INVALID_CONTEXT = 201,
    CU_E_NO_BINARY_FOR_GPU = 209,
    CU_E_ECC_UNCORRECTABLE = 214,
    CU_E_PEER_ACCESS_UNSUPPORTED = 217,
    CU_E_INVALID_PTX = 218,
    CU_E_NVLINK_UNCORRECTABLE = 220,
    CU_E_JIT_COMPILER_NOT_FOUND = 221,
    CU_E_UNSUPPORTED_PTX_VERSION = 222,
    CU_E_JIT_COMPILATION_DISABLED = 223,
    CU_E_CONTAINED = 226,
    CU_E_OPERATING_SYSTEM = 304,
    CU_E_INVALID_HANDLE = 400,
    CU_E_NOT_FOUND = 500,
    CU_E_NOT_READY = 600,
    CU_E_ILLEGAL_ADDRESS = 700,
    CU_E_LAUNCH_OUT_OF_RESOURCES = 701,
    CU_E_LAUNCH_TIMEOUT = 702,
    CU_E_PEER_ACCESS_ALREADY_ENABLED = 704,
    CU_E_PEER_ACCESS_NOT_ENABLED = 705,
    CU_E_CONTEXT_IS_DESTROYED = 709,
    CU_E_ASSERT = 710,
    CU_E_TOO_MANY_PEERS = 711,
    CU_E_HOST_MEMORY_ALREADY_REGISTERED = 712,
    CU_E_HOST_MEMORY_NOT_REGISTERED = 713,
    CU_E_HARDWARE_STACK_ERROR = 714,
    CU_E_ILLEGAL_INSTRUCTION = 715,
    CU_E_MISALIGNED_ADDRESS = 716,
    CU_E_INVALID_ADDRESS_SPACE = 717,
    CU_E_INVALID_PC = 718,
    CU_E_LAUNCH_FAILED = 719,
    CU_E_TENSOR_MEMORY_LEAK = 721,
    CU_E_NOT_PERMITTED = 800,
    CU_E_NOT_SUPPORTED = 801,
    CU_E_SYSTEM_NOT_READY = 802,
    CU_E_SYSTEM_DRIVER_MISMATCH = 803,
    CU_E_COMPAT_NOT_SUPPORTED_ON_DEVICE = 804,
    CU_E_MPS_CONNECTION_FAILED = 805,
    CU_E_MPS_CLIENT_TERMINATED = 810,
    CU_E_STREAM_CAPTURE_UNSUPPORTED = 900,
    CU_E_STREAM_CAPTURE_INVALIDATED = 901,
    CU_E_STREAM_CAPTURE_ISOLATION = 905,
    CU_E_STREAM_CAPTURE_IMPLICIT = 906,
    CU_E_STREAM_CAPTURE_WRONG_THREAD = 908,
    CU_E_EXTERNAL_DEVICE = 911,
    CU_E_UNKNOWN = 999,
};

enum cu_device_attributes {
    CU_DEVICE_MULTIPROCESSORS = 16,
    CU_DEVICE_INTEGRATED = 18,
    CU_DEVICE_COMPUTE_MODE = 20,
    CU_DEVICE_UNIFIED_ADDRESSING = 41,
    CU_DEVICE_CAPABILITY_MAJOR = 75,
    CU_DEVICE_CAPABILITY_MINOR = 76,
    CU_DEVICE_PAGEABLE_ACCESS = 88,
    CU_DEVICE_REGISTERED_AT_HOST_ADDRESS = 91,
    CU_DEVICE_VMM = 102,
    CU_DEVICE_VMM_FD = 103,
    CU_DEVICE_VMM_GPU_DIRECT = 110,
    CU_DEVICE_DMA_BUF = 124,
};

enum cu_pointer_attributes {
    CU_POINTER_CONTEXT = 1,        /* cu_context */
    CU_POINTER_MEMORY_TYPE = 2,    /* unsigned: enum cu_memory_types; 0 where the driver knows nothing of it */
    CU_POINTER_DEVICE_ADDRESS = 3, /* cu_address */
    CU_POINTER_BUFFER_ID = 7,      /* unsigned long long */
    CU_POINTER_IS_MANAGED = 8,     /* int */
    CU_POINTER_ORDINAL = 9,        /* int */
    CU_POINTER_IPC_CAPABLE = 10,   /* int */
    CU_POINTER_RANGE_BEGIN = 11,   /* cu_address */
    CU_POINTER_RANGE_BYTES = 12,   /* size_t */
    CU_POINTER_ACCESS_FLAGS = 16,  /* unsigned long long: of the current device; CU_ACCESS_READ_WRITE */
    CU_POINTER_MAPPED_BYTES = 18,  /* size_t, of a piece that was mapped at once; 12.1 */
    CU_POINTER_MAPPED_BEGIN = 19,  /* cu_address */
};
enum cu_memory_types { CU_MEMORY_HOST = 1, CU_MEMORY_DEVICE = 2 };

enum cu_function_attributes {
    CU_FUNCTION_MAX_THREADS = 0,
    CU_FUNCTION_SHARED_BYTES = 1,
    CU_FUNCTION_LOCAL_BYTES = 3,
    CU_FUNCTION_REGISTERS = 4,
    CU_FUNCTION_PTX_VERSION = 5,
    CU_FUNCTION_BINARY_VERSION = 6,
    CU_FUNCTION_MAX_DYNAMIC_SHARED_BYTES = 8, /* may be set */
};

enum cu_flags {
    CU_HOST_PORTABLE = 1,           /* cuMemHostAlloc and cuMemHostRegister */
    CU_HOST_MAPPED = 2,
    CU_IPC_LAZY_PEER_ACCESS = 1,
    CU_STREAM_NO_LEGACY_SYNC = 1,   /* CU_STREAM_NON_BLOCKING */
    CU_EVENT_NO_TIMING = 2,
    CU_CAPTURE_MODE_THREAD = 1,
    CU_CAPTURE_MODE_RELAXED = 2,
    CU_CAPTURE_NONE = 0, CU_CAPTURE_ACTIVE = 1, CU_CAPTURE_INVALIDATED = 2,
    CU_USER_OBJECT_NO_SYNC = 1,     /* CU_USER_OBJECT_NO_DESTRUCTOR_SYNC */
    CU_GRAPH_RETAIN_MOVES = 1,      /* CU_GRAPH_USER_OBJECT_MOVE */
    CU_WAIT_GEQ = 0,                /* CU_STREAM_WAIT_VALUE_GEQ */
    CU_JIT_ERROR_LOG = 5,
    CU_JIT_ERROR_LOG_BYTES = 6,
    CU_DMA_BUF = 1,                 /* CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD */
};

/* Streams with a name instead of a handle. */
#define CU_LEGACY_STREAM ((cu_stream)(uintptr_t)1)
#define CU_THREAD_STREAM ((cu_stream)(uintptr_t)2)

enum cu_handle_types { CU_HANDLE_FD = 1 };

struct cu_uuid { char bytes[16]; };
struct cu_ipc { char bytes[64]; };

/* Of VMM allocations. */
struct cu_location { int type, id; };
enum { CU_ALLOCATION_PINNED = 1, CU_LOCATION_DEVICE = 1, CU_ACCESS_READ_WRITE = 3 };
struct cu_properties {
    int type;          /* CU_ALLOCATION_PINNED */
    int handle_types;  /* enum cu_handle_types */
    struct cu_location location;
    void *windows;
    unsigned char compression, gpu_direct;
    unsigned short usage;
    unsigned char reserved[4];
};
struct cu_access { struct cu_location location; int flags; };

/* NEED(member, name, arguments): without it the library is too old, or none. MAY: the pointer may be NULL. */
#define CU_CALLS(NEED, MAY)                                                                                            \
    NEED(init, "cuInit", (unsigned flags))                                                                             \
    NEED(driver_version, "cuDriverGetVersion", (int *))                                                                \
    NEED(error_name, "cuGetErrorName", (cu_result, const char **))                                                     \
    NEED(error_string, "cuGetErrorString", (cu_result, const char **))                                                 \
    /* devices and contexts */                                                                                         \
    NEED(device_count, "cuDeviceGetCount", (int *))                                                                    \
    NEED(device_get, "cuDeviceGet", (cu_device *, int ordinal))                                                        \
    NEED(device_name, "cuDeviceGetName", (char *, int bytes, cu_device))                                               \
    NEED(device_uuid, "cuDeviceGetUuid", (struct cu_uuid *, cu_device))                                                \
    MAY(device_uuid_slice, "cuDeviceGetUuid_v2", (struct cu_uuid *, cu_device)) /* 11.4: of a MIG slice its own */     \
    NEED(device_attribute, "cuDeviceGetAttribute", (int *, int attribute, cu_device))                                  \
    NEED(device_memory, "cuDeviceTotalMem_v2", (size_t *, cu_device))                                                  \
    NEED(device_bus_id, "cuDeviceGetPCIBusId", (char *, int bytes, cu_device))                                         \
    NEED(device_can_access_peer, "cuDeviceCanAccessPeer", (int *, cu_device, cu_device peer))                          \
    NEED(primary_retain, "cuDevicePrimaryCtxRetain", (cu_context *, cu_device))                                        \
    NEED(primary_release, "cuDevicePrimaryCtxRelease_v2", (cu_device))                                                 \
    NEED(primary_state, "cuDevicePrimaryCtxGetState", (cu_device, unsigned *flags, int *active))                       \
    NEED(context_current, "cuCtxGetCurrent", (cu_context *))                                                           \
    NEED(context_push, "cuCtxPushCurrent_v2", (cu_context))                                                            \
    NEED(context_pop, "cuCtxPopCurrent_v2", (cu_context *))                                                            \
    NEED(context_device, "cuCtxGetDevice", (cu_device *)) /* of the current one */                                     \
    MAY(context_id, "cuCtxGetId", (cu_context, unsigned long long *)) /* 12.0: never used twice in a process */        \
    NEED(context_enable_peer, "cuCtxEnablePeerAccess", (cu_context, unsigned flags))                                   \
    NEED(exchange_capture_mode, "cuThreadExchangeStreamCaptureMode", (int *))                                          \
    /* memory */                                                                                                       \
    NEED(alloc, "cuMemAlloc_v2", (cu_address *, size_t bytes))                                                         \
    NEED(free, "cuMemFree_v2", (cu_address))                                                                           \
    NEED(host_alloc, "cuMemHostAlloc", (void **, size_t bytes, unsigned flags))                                        \
    NEED(host_free, "cuMemFreeHost", (void *))                                                                         \
    NEED(host_register, "cuMemHostRegister_v2", (void *, size_t bytes, unsigned flags))                                \
    NEED(host_unregister, "cuMemHostUnregister", (void *))                                                             \
    NEED(host_address, "cuMemHostGetDevicePointer_v2", (cu_address *, void *, unsigned flags))                         \
    NEED(pointer_attributes, "cuPointerGetAttributes", (unsigned n, int *attributes, void **data, cu_address))         \
    NEED(memset_async, "cuMemsetD8Async", (cu_address, unsigned char, size_t bytes, cu_stream))                        \
    NEED(copy_async, "cuMemcpyAsync", (cu_address to, cu_address from, size_t bytes, cu_stream))                       \
    NEED(ipc_get, "cuIpcGetMemHandle", (struct cu_ipc *, cu_address))                                                  \
    NEED(ipc_open, "cuIpcOpenMemHandle_v2", (cu_address *, struct cu_ipc, unsigned flags))                             \
    NEED(ipc_close, "cuIpcCloseMemHandle", (cu_address))                                                               \
    NEED(vmm_granularity, "cuMemGetAllocationGranularity", (size_t *, const struct cu_properties *, int recommended))  \
    NEED(vmm_create, "cuMemCreate", (cu_allocation *, size_t bytes, const struct cu_properties *, uint64_t flags))     \
    NEED(vmm_release, "cuMemRelease", (cu_allocation))                                                                 \
    NEED(vmm_retain, "cuMemRetainAllocationHandle", (cu_allocation *, void *address))                                  \
    NEED(vmm_reserve, "cuMemAddressReserve",                                                                           \
         (cu_address *, size_t bytes, size_t alignment, cu_address wish, uint64_t flags))                              \
    NEED(vmm_unreserve, "cuMemAddressFree", (cu_address, size_t bytes))                                                \
    NEED(vmm_map, "cuMemMap", (cu_address, size_t bytes, size_t offset, cu_allocation, uint64_t flags))                \
    NEED(vmm_unmap, "cuMemUnmap", (cu_address, size_t bytes))                                                          \
    NEED(vmm_set_access, "cuMemSetAccess", (cu_address, size_t bytes, const struct cu_access *, size_t n))             \
    NEED(vmm_export, "cuMemExportToShareableHandle", (void *fd, cu_allocation, int handle_type, uint64_t flags))       \
    NEED(vmm_import, "cuMemImportFromShareableHandle", (cu_allocation *, void *fd_value, int handle_type))             \
    MAY(dma_buf, "cuMemGetHandleForAddressRange",                                                                      \
        (void *fd, cu_address, size_t bytes, int type, uint64_t flags)) /* 11.7 */                                     \
    /* streams, events, graphs */                                                                                      \
    NEED(stream_create, "cuStreamCreateWithPriority", (cu_stream *, unsigned flags, int priority))                     \
    NEED(stream_destroy, "cuStreamDestroy_v2", (cu_stream))                                                            \
    NEED(stream_query, "cuStreamQuery", (cu_stream))                                                                   \
    NEED(stream_synchronize, "cuStreamSynchronize", (cu_stream))                                                       \
    NEED(stream_wait_event, "cuStreamWaitEvent", (cu_stream, cu_event, unsigned flags))                                \
    NEED(stream_context, "cuStreamGetCtx", (cu_stream, cu_context *))                                                  \
    NEED(stream_capture, "cuStreamGetCaptureInfo_v2",                                                                  \
         (cu_stream, int *status, uint64_t *id, cu_graph *, const void **nodes, size_t *n))                            \
    MAY(stream_wait_value, "cuStreamWaitValue64_v2", (cu_stream, cu_address, uint64_t, unsigned flags))  /* 11.7 */    \
    MAY(stream_write_value, "cuStreamWriteValue64_v2", (cu_stream, cu_address, uint64_t, unsigned flags))              \
    NEED(priority_range, "cuCtxGetStreamPriorityRange", (int *least, int *greatest))                                   \
    NEED(event_create, "cuEventCreate", (cu_event *, unsigned flags))                                                  \
    NEED(event_destroy, "cuEventDestroy_v2", (cu_event))                                                               \
    NEED(event_record, "cuEventRecord", (cu_event, cu_stream))                                                         \
    NEED(event_query, "cuEventQuery", (cu_event))                                                                      \
    NEED(event_synchronize, "cuEventSynchronize", (cu_event))                                                          \
    NEED(launch_host, "cuLaunchHostFunc", (cu_stream, cu_host_function, void *argument))                               \
    NEED(user_object_create, "cuUserObjectCreate",                                                                     \
         (cu_user_object *, void *, cu_host_function destroy, unsigned n, unsigned flags))                             \
    NEED(user_object_release, "cuUserObjectRelease", (cu_user_object, unsigned n))                                     \
    NEED(graph_retain, "cuGraphRetainUserObject", (cu_graph, cu_user_object, unsigned n, unsigned flags))              \
    /* what the benchmarks call beside */                                                                              \
    MAY(capture_begin, "cuStreamBeginCapture_v2", (cu_stream, int mode))                                               \
    MAY(capture_end, "cuStreamEndCapture", (cu_stream, cu_graph *))                                                    \
    MAY(graph_instantiate, "cuGraphInstantiateWithFlags", (void **exec, cu_graph, uint64_t flags)) /* 11.4 */          \
    MAY(graph_launch, "cuGraphLaunch", (void *exec, cu_stream))                                                        \
    MAY(graph_exec_destroy, "cuGraphExecDestroy", (void *exec))                                                        \
    MAY(graph_destroy, "cuGraphDestroy", (cu_graph))                                                                   \
    /* kernels */                                                                                                      \
    NEED(module_load, "cuModuleLoadDataEx", (cu_module *, const void *, unsigned n, int *options, void **values))      \
    NEED(module_unload, "cuModuleUnload", (cu_module))                                                                 \
    NEED(module_function, "cuModuleGetFunction", (cu_function *, cu_module, const char *name))                         \
    NEED(function_attribute, "cuFuncGetAttribute", (int *, int attribute, cu_function))                                \
    NEED(function_set, "cuFuncSetAttribute", (cu_function, int attribute, int value))                                  \
    MAY(function_load, "cuFuncLoad", (cu_function)) /* 12.4 */                                                         \
    NEED(occupancy, "cuOccupancyMaxActiveBlocksPerMultiprocessor", (int *, cu_function, int threads, size_t shared))   \
    NEED(launch, "cuLaunchKernel",                                                                                     \
         (cu_function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,          \
          unsigned block_z, unsigned shared_bytes, cu_stream, void **arguments, void **extra))

#define CU_MEMBER(member, name, arguments) cu_result(*member) arguments;
struct cuda_driver {
    CU_CALLS(CU_MEMBER, CU_MEMBER)
    int version; /* of the driver: 1000 * major + 10 * minor of the CUDA it was made for, 13000 */
};

/* The least driver that has all that is needed. */
enum { CU_LEAST_VERSION = 11030 };
#define CU_LEAST_DRIVER "465.19, of CUDA 11.3"

/* NULL when there is no driver, it is too old, or cuInit() failed; *why_out then says so in full ("libcuda.so.1:
 * cannot open shared object file: No such file or directory"), and *failed_out (NULL is fine) is what cuInit()
 * returned, else 0. `path`: NULL or "" for libcuda.so.1. Any thread; the first call of the process loads and
 * initialises, and what it found stays. */
const struct cuda_driver *cuda_driver(const char *path, const char **why_out, cu_result *failed_out);

#endif
