/* errors.c - names and texts of results. */
#include "emulated_cuda/state.h"

struct text {
    CUresult result;
    const char *name, *text;
};

#define R(name, text) {CUDA_##name, "CUDA_" #name, text}
#define N(result, name, text) {result, "CUDA_" #name, text}
static const struct text texts[] = {
    R(SUCCESS, "no error"),
    R(ERROR_INVALID_VALUE, "invalid argument"),
    R(ERROR_OUT_OF_MEMORY, "out of memory"),
    R(ERROR_NOT_INITIALIZED, "initialization error"),
    R(ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
    R(ERROR_INVALID_DEVICE, "invalid device ordinal"),
    R(ERROR_INVALID_IMAGE, "device kernel image is invalid"),
    R(ERROR_INVALID_CONTEXT, "invalid device context"),
    R(ERROR_MAP_FAILED, "mapping of buffer object failed"),
    R(ERROR_ALREADY_MAPPED, "resource already mapped"),
    R(ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device"),
    R(ERROR_NOT_MAPPED, "resource not mapped"),
    R(ERROR_ECC_UNCORRECTABLE, "uncorrectable ECC error encountered"),
    R(ERROR_PEER_ACCESS_UNSUPPORTED, "peer access is not supported between these two devices"),
    R(ERROR_NVLINK_UNCORRECTABLE, "uncorrectable NVLink error detected during the execution"),
    R(ERROR_FILE_NOT_FOUND, "file not found"),
    R(ERROR_OPERATING_SYSTEM, "OS call failed or operation not supported on this OS"),
    R(ERROR_INVALID_HANDLE, "invalid resource handle"),
    R(ERROR_ILLEGAL_STATE, "the operation cannot be performed in the present state"),
    R(ERROR_NOT_FOUND, "named symbol not found"),
    R(ERROR_NOT_READY, "device not ready"),
    R(ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"),
    R(ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch"),
    R(ERROR_LAUNCH_TIMEOUT, "the launch timed out and was terminated"),
    R(ERROR_PEER_ACCESS_ALREADY_ENABLED, "peer access is already enabled"),
    R(ERROR_PEER_ACCESS_NOT_ENABLED, "peer access has not been enabled"),
    R(ERROR_PRIMARY_CONTEXT_ACTIVE, "cannot set while device is active in this process"),
    R(ERROR_CONTEXT_IS_DESTROYED, "context is destroyed"),
    R(ERROR_ASSERT, "device-side assert triggered"),
    R(ERROR_HOST_MEMORY_ALREADY_REGISTERED, "part or all of the requested memory range is already mapped"),
    R(ERROR_HOST_MEMORY_NOT_REGISTERED, "pointer does not correspond to a registered memory region"),
    R(ERROR_HARDWARE_STACK_ERROR, "hardware stack error"),
    R(ERROR_ILLEGAL_INSTRUCTION, "an illegal instruction was encountered"),
    R(ERROR_MISALIGNED_ADDRESS, "misaligned address"),
    R(ERROR_INVALID_ADDRESS_SPACE, "operation not supported on global/shared address space"),
    R(ERROR_INVALID_PC, "invalid program counter"),
    R(ERROR_LAUNCH_FAILED, "unspecified launch failure"),
    R(ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, "too many blocks in cooperative launch"),
    R(ERROR_NOT_PERMITTED, "operation not permitted"),
    R(ERROR_NOT_SUPPORTED, "operation not supported"),
    R(ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"),
    R(ERROR_STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"),
    R(ERROR_STREAM_CAPTURE_MERGE, "operation would result in a merge of separate capture sequences"),
    R(ERROR_STREAM_CAPTURE_UNMATCHED, "capture was not ended in the same stream as it began"),
    R(ERROR_STREAM_CAPTURE_UNJOINED, "capturing stream has unjoined work"),
    R(ERROR_STREAM_CAPTURE_ISOLATION, "dependency created on uncaptured work in another stream"),
    R(ERROR_STREAM_CAPTURE_IMPLICIT, "operation would make the legacy stream depend on a capturing blocking stream"),
    R(ERROR_CAPTURED_EVENT, "operation not permitted on an event last recorded in a capturing stream"),
    R(ERROR_STREAM_CAPTURE_WRONG_THREAD, "attempt to terminate a thread-local capture sequence from another thread"),
    R(ERROR_UNKNOWN, "unknown error"),
    /* What only faults on demand give. */
    N(4, ERROR_DEINITIALIZED, "driver shutting down"),
    N(34, ERROR_STUB_LIBRARY, "CUDA driver is a stub library"),
    N(36, ERROR_CALL_REQUIRES_NEWER_DRIVER, "API call is not supported in the installed CUDA driver"),
    N(46, ERROR_DEVICE_UNAVAILABLE, "CUDA-capable device(s) is/are busy or unavailable"),
    N(102, ERROR_DEVICE_NOT_LICENSED, "device doesn't have valid Grid license"),
    N(206, ERROR_UNMAP_FAILED, "unmapping of buffer object failed"),
    N(215, ERROR_UNSUPPORTED_LIMIT, "limit is not supported on this architecture"),
    N(216, ERROR_CONTEXT_ALREADY_IN_USE, "exclusive-thread device already in use by a different thread"),
    N(218, ERROR_INVALID_PTX, "a PTX JIT compilation failed"),
    N(221, ERROR_JIT_COMPILER_NOT_FOUND, "PTX JIT compiler library not found"),
    N(222, ERROR_UNSUPPORTED_PTX_VERSION, "the provided PTX was compiled with an unsupported toolchain."),
    N(223, ERROR_JIT_COMPILATION_DISABLED, "PTX JIT compilation was disabled"),
    N(226, ERROR_CONTAINED, "Invalid access of peer GPU memory over nvlink or a hardware error"),
    N(302, ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND, "shared object symbol not found"),
    N(303, ERROR_SHARED_OBJECT_INIT_FAILED, "shared object initialization failed"),
    N(711, ERROR_TOO_MANY_PEERS, "peer mapping resources exhausted"),
    N(802, ERROR_SYSTEM_NOT_READY, "system not yet initialized"),
    N(803, ERROR_SYSTEM_DRIVER_MISMATCH, "system has unsupported display driver / cuda driver combination"),
    N(804, ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE, "forward compatibility was attempted on non supported HW"),
    N(805, ERROR_MPS_CONNECTION_FAILED, "MPS client failed to connect to the MPS control daemon or the MPS server"),
    N(909, ERROR_TIMEOUT, "wait operation timed out"),
    N(913, ERROR_FUNCTION_NOT_LOADED, "the function requested was not loaded"),
};
#undef R
#undef N

static const struct text *find(CUresult result)
{
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].result == result)
            return &texts[i];
    return NULL;
}

CUresult cuGetErrorName(CUresult result, const char **name)
{
    const struct text *t = find(result);
    if (name == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *name = t == NULL ? NULL : t->name;
    return t == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult result, const char **text)
{
    const struct text *t = find(result);
    if (text == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *text = t == NULL ? NULL : t->text;
    return t == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
