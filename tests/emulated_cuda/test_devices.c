/* test_devices.c - the machine is the one that the environment describes, the same in every process; contexts are
 * current per thread. */
#include "emulated_cuda/fixture.h"

#include <pthread.h>

static void nothing_works_before_init(void)
{
    int n;
    const char *name;
    gives(CUDA_ERROR_NOT_INITIALIZED, cuDeviceGetCount(&n));
    gives(CUDA_ERROR_NOT_INITIALIZED, cuCtxSynchronize());
    must(cuDriverGetVersion(&n));
    check(n == 12040); /* EMULATED_CUDA_DRIVER */
    must(cuGetErrorName(3, &name));
    check(strcmp(name, "CUDA_ERROR_NOT_INITIALIZED") == 0);
    gives(CUDA_ERROR_INVALID_VALUE, cuGetErrorName(12345, &name));
    must(cuInit(0));
    gives(CUDA_ERROR_INVALID_CONTEXT, cuCtxSynchronize());
}

static void there_may_be_no_device(void)
{
    gives(CUDA_ERROR_NO_DEVICE, cuInit(0));
}

static void nonsense_is_refused(void)
{
    gives(CUDA_ERROR_INVALID_VALUE, cuInit(0));
}

static int attribute(int which, CUdevice d)
{
    int value;
    must(cuDeviceGetAttribute(&value, which, d));
    return value;
}

static void devices_are_as_described(void)
{
    int n;
    CUdevice d;
    size_t bytes;
    char name[64];
    must(cuInit(0));
    must(cuDeviceGetCount(&n));
    check(n == 3);
    gives(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet(&d, 3));
    must(cuDeviceGet(&d, 2));
    must(cuDeviceGetName(name, sizeof name, d));
    must(cuDeviceTotalMem_v2(&bytes, d));
    check(bytes == 1 << 24);
    check(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, d) == 8);
    check(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, d) == 6);
    check(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, d) == 20);
    check(attribute(CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, d) == 1);
}

static void bus_ids_name_devices(void)
{
    char text[2][32];
    CUdevice d;
    CUuuid id[2];
    must(cuInit(0));
    for (int i = 0; i < 16; i++) {
        must(cuDeviceGetPCIBusId(text[i % 2], 32, i));
        must(cuDeviceGetByPCIBusId(&d, text[i % 2]));
        check(d == i && strcmp(text[0], text[1]) != 0);
        must(cuDeviceGetUuid_v2(&id[i % 2], i));
        check(memcmp(&id[0], &id[1], sizeof id[0]) != 0);
        unsigned domain, bus;
        check(sscanf(text[i % 2], "%x:%x:", &domain, &bus) == 2);
        check((int)bus == attribute(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, i));
        check((int)domain == attribute(CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, i));
    }
    gives(CUDA_ERROR_INVALID_DEVICE, cuDeviceGetByPCIBusId(&d, "0000:FF:00.0"));
    gives(CUDA_ERROR_INVALID_VALUE, cuDeviceGetByPCIBusId(&d, "nonsense"));
}

/* Device 1 of this process and device 0 of one that sees only 5 and 6 are the same. */
static void a_device_is_the_same_in_all_processes(void)
{
    char text[32], theirs[32];
    int ends[2], status;
    check(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        setenv("CUDA_VISIBLE_DEVICES", "6", 1);
        must(cuInit(0));
        must(cuDeviceGetPCIBusId(text, 32, 0));
        check(write(ends[1], text, 32) == 32);
        _exit(0);
    }
    must(cuInit(0));
    must(cuDeviceGetPCIBusId(text, 32, 1));
    check(read(ends[0], theirs, 32) == 32 && strcmp(text, theirs) == 0);
    check(waitpid(child, &status, 0) == child && status == 0);
    int n, can;
    must(cuDeviceGetCount(&n));
    check(n == 2); /* 5, 6: what follows is no device */
    must(cuDeviceCanAccessPeer(&can, 0, 1));
    check(can == 1); /* EMULATED_CUDA_PEERS speaks of physical ones */
}

static void peers_are_as_described(void)
{
    int can;
    struct client c[3];
    for (int i = 2; i >= 0; i--)
        c[i] = client_of(i);
    must(cuDeviceCanAccessPeer(&can, 0, 1));
    check(can == 1);
    must(cuDeviceCanAccessPeer(&can, 1, 2));
    check(can == 0);
    must(cuDeviceGetP2PAttribute(&can, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 0, 2));
    check(can == 0);
    must(cuCtxEnablePeerAccess(c[1].context, 0));
    gives(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED, cuCtxEnablePeerAccess(c[1].context, 0));
    gives(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED, cuCtxEnablePeerAccess(c[2].context, 0));
    must(cuCtxDisablePeerAccess(c[1].context));
    gives(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED, cuCtxDisablePeerAccess(c[1].context));
}

static void *other_thread(void *context)
{
    CUcontext now = context;
    must(cuCtxGetCurrent(&now));
    check(now == NULL);
    must(cuCtxSetCurrent(context));
    must(cuCtxSynchronize());
    return NULL;
}

static void contexts_are_current_per_thread(void)
{
    CUcontext own, now, primary, popped;
    CUdevice d;
    unsigned flags;
    int active;
    pthread_t thread;
    must(cuInit(0));
    must(cuDevicePrimaryCtxGetState(1, &flags, &active));
    check(active == 0);
    must(cuCtxCreate_v2(&own, 0, 0));
    must(cuDevicePrimaryCtxRetain(&primary, 1));
    must(cuCtxPushCurrent_v2(primary));
    must(cuCtxGetDevice(&d));
    check(d == 1);
    must(cuCtxPopCurrent_v2(&popped));
    must(cuCtxGetCurrent(&now));
    check(popped == primary && now == own);
    check(pthread_create(&thread, NULL, other_thread, primary) == 0 && pthread_join(thread, NULL) == 0);
    must(cuCtxGetCurrent(&now));
    check(now == own);
    must(cuCtxPushCurrent_v2(primary));
    must(cuDevicePrimaryCtxRelease_v2(1));
    gives(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuCtxSynchronize());
    gives(CUDA_ERROR_INVALID_CONTEXT, cuDevicePrimaryCtxRelease_v2(1));
    must(cuCtxPopCurrent_v2(NULL));
    must(cuCtxDestroy_v2(own));
    gives(CUDA_ERROR_INVALID_CONTEXT, cuCtxSetCurrent(own));
    must(cuCtxGetCurrent(&now));
    check(now == NULL);
}

static void the_form_of_a_call_goes_with_the_version(void)
{
    void *v2, *v3, *got;
    int status;
    must(cuGetProcAddress_v2("cuStreamGetCaptureInfo", &v3, 12030, 0, &status));
    must(cuGetProcAddress_v2("cuStreamGetCaptureInfo", &v2, 12020, 0, NULL));
    check(v3 == (void *)cuStreamGetCaptureInfo_v3 && v2 == (void *)cuStreamGetCaptureInfo_v2 && status == 0);
    must(cuGetProcAddress_v2("cuMemAlloc", &got, 11000, 0, NULL));
    check(got == (void *)cuMemAlloc_v2);
    must(cuGetProcAddress_v2("cuInit", &got, 11000, 0, NULL));
    check(got == (void *)cuInit);
    gives(CUDA_ERROR_NOT_FOUND, cuGetProcAddress_v2("cuEventElapsed", &got, 13000, 0, &status));
    check(got == NULL && status == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
}

int main(void)
{
    static const struct test tests[] = {
        {"nothing works before init", nothing_works_before_init, "EMULATED_CUDA_DRIVER=12040", 0},
        {"there may be no device", there_may_be_no_device, "EMULATED_CUDA_DEVICES=0", 0},
        {"nonsense is refused", nonsense_is_refused, "EMULATED_CUDA_PEERS=0-99", 0},
        {"devices are as described", devices_are_as_described,
         "EMULATED_CUDA_DEVICES=3 EMULATED_CUDA_CAPABILITY=8.6 EMULATED_CUDA_MEMORY=16777216 "
         "EMULATED_CUDA_MULTIPROCESSORS=20", 0},
        {"bus ids name devices", bus_ids_name_devices, "EMULATED_CUDA_DEVICES=16", 0},
        {"a device is the same in all processes", a_device_is_the_same_in_all_processes,
         "CUDA_VISIBLE_DEVICES=5,6,9 EMULATED_CUDA_PEERS=5-6", 0},
        {"peers are as described", peers_are_as_described, "EMULATED_CUDA_PEERS=0-1", 0},
        {"contexts are current per thread", contexts_are_current_per_thread, NULL, 0},
        {"the form of a call goes with the version", the_form_of_a_call_goes_with_the_version, NULL, 0},
    };
    return run_cases("devices", tests, sizeof tests / sizeof *tests);
}
