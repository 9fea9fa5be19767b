/* fail.c - the driver's errors in words, with what helps. */
#include <stdarg.h>
#include <stdio.h>

#include "device/cuda/cuda.h"

#define NEW_PROCESS "the context is lost, and everything in it: only a new process helps"

static const struct { cu_result result; bool sticky; const char *remedy; } known[] = {
    {CU_E_OUT_OF_MEMORY, false, "free memory of the device, give its caching allocator a limit, or lower NCCL_BUFFSIZE "
     "or NCCL_MAX_NCHANNELS"},
    {CU_E_NOT_INITIALIZED, false, "a process that was forked after its parent used the GPU cannot use it: start it "
     "anew (multiprocessing: `spawn`)"},
    {CU_E_DEINITIALIZED, false, "the process is ending: destroy communicators before main() returns"},
    {CU_E_DEVICE_UNAVAILABLE, false, "another process has the device for itself (nvidia-smi -q -d COMPUTE), or MPS is "
     "full"},
    {CU_E_NO_DEVICE, false, "look at nvidia-smi and CUDA_VISIBLE_DEVICES, or set RAILCCL_DEVICE=host"},
    {CU_E_INVALID_DEVICE, false, "look at CUDA_VISIBLE_DEVICES"},
    {CU_E_INVALID_IMAGE, false, "the file is no image of a kernel: look at RAILCCL_CUDA_KERNEL"},
    {CU_E_INVALID_CONTEXT, false, "the context was destroyed (cudaDeviceReset?) while a communicator used it"},
    {CU_E_NO_BINARY_FOR_GPU, false, "the library has no kernel for this GPU: update it, or the driver"},
    {CU_E_ECC_UNCORRECTABLE, true, NEW_PROCESS "; a device that does this again is broken"},
    {CU_E_PEER_ACCESS_UNSUPPORTED, false, "the devices cannot reach one another (nvidia-smi topo -p2p r)"},
    {CU_E_INVALID_PTX, false, "the driver cannot translate the kernel: update the driver"},
    {CU_E_NVLINK_UNCORRECTABLE, true, NEW_PROCESS "; look at nvidia-smi nvlink -e"},
    {CU_E_JIT_COMPILER_NOT_FOUND, false, "libnvidia-ptxjitcompiler.so.1 belongs to the driver, and is missing here"},
    {CU_E_UNSUPPORTED_PTX_VERSION, false, "the driver is older than the kernel: update the driver"},
    {CU_E_JIT_COMPILATION_DISABLED, false, "unset CUDA_DISABLE_PTX_JIT"},
    {CU_E_CONTAINED, true, NEW_PROCESS},
    {CU_E_INVALID_HANDLE, false, "a stream, event or graph was destroyed, or never was one"},
    {CU_E_ILLEGAL_ADDRESS, true, NEW_PROCESS ". Some kernel used memory that is not its own: compute-sanitizer tells "
     "which"},
    {CU_E_LAUNCH_OUT_OF_RESOURCES, false, "the kernel needs more registers or shared memory than a block of this GPU "
     "has"},
    {CU_E_LAUNCH_TIMEOUT, true, NEW_PROCESS ". The device also draws a screen, and limits kernels to seconds"},
    {CU_E_CONTEXT_IS_DESTROYED, true, NEW_PROCESS},
    {CU_E_ASSERT, true, NEW_PROCESS},
    {CU_E_TOO_MANY_PEERS, false, "the hardware connects no more devices: use fewer, or set NCCL_P2P_DISABLE=1"},
    {CU_E_HARDWARE_STACK_ERROR, true, NEW_PROCESS},
    {CU_E_ILLEGAL_INSTRUCTION, true, NEW_PROCESS},
    {CU_E_MISALIGNED_ADDRESS, true, NEW_PROCESS},
    {CU_E_INVALID_ADDRESS_SPACE, true, NEW_PROCESS},
    {CU_E_INVALID_PC, true, NEW_PROCESS},
    {CU_E_LAUNCH_FAILED, true, NEW_PROCESS ". Some kernel failed: compute-sanitizer tells which"},
    {CU_E_TENSOR_MEMORY_LEAK, true, NEW_PROCESS},
    {CU_E_SYSTEM_NOT_READY, false, "the fabric manager is not running (systemctl status nvidia-fabricmanager)"},
    {CU_E_SYSTEM_DRIVER_MISMATCH, false, "the kernel module and libcuda are of different drivers: reboot, or reload "
     "the module"},
    {CU_E_COMPAT_NOT_SUPPORTED_ON_DEVICE, false, "the forward-compatible libcuda is for data centre GPUs: use the "
     "driver's own"},
    {CU_E_MPS_CONNECTION_FAILED, false, "no MPS server answers: look at CUDA_MPS_PIPE_DIRECTORY"},
    {CU_E_MPS_CLIENT_TERMINATED, true, NEW_PROCESS},
    {CU_E_STREAM_CAPTURE_UNSUPPORTED, false, "the stream is being captured, and this cannot be"},
    {CU_E_STREAM_CAPTURE_INVALIDATED, false, "some call before this one broke the capture off: end it, and begin anew"},
    {CU_E_STREAM_CAPTURE_IMPLICIT, false, "the legacy stream was used while another stream is captured: pass the "
     "captured stream"},
    {CU_E_STREAM_CAPTURE_WRONG_THREAD, false, "another thread began the capture: begin it with mode relaxed"},
    {CU_E_EXTERNAL_DEVICE, true, NEW_PROCESS},
};

static int find(cu_result result)
{
    for (int i = 0; i < (int)(sizeof known / sizeof *known); i++)
        if (known[i].result == result) return i;
    return -1;
}

bool cuda_sticky(cu_result result)
{
    int i = find(result);
    return i >= 0 && known[i].sticky;
}

const char *cuda_words(const struct cuda_driver *driver, cu_result result, char *text, size_t bytes)
{
    const char *name = NULL, *words = NULL;
    driver->error_name(result, &name);
    driver->error_string(result, &words);
    if (name)
        snprintf(text, bytes, "%s (%s)", name, words ? words : "no words");
    else
        snprintf(text, bytes, "CUDA error %d, which the driver has no name for", result);
    return text;
}

enum rail_result cuda_fail(const struct cuda_driver *driver, const char *call, cu_result result, const char *what, ...)
{
    if (result == CU_SUCCESS) return RAIL_OK;
    char object[300], words[200];
    va_list arguments;
    va_start(arguments, what);
    vsnprintf(object, sizeof object, what, arguments);
    va_end(arguments);
    int i = find(result);
    return rail_fail(RAIL_E_CUDA, "%s: %s: %s%s%s", call, object, cuda_words(driver, result, words, sizeof words),
                     i >= 0 ? "; " : "", i >= 0 ? known[i].remedy : "");
}
