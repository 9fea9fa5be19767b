/* test_faults.c - faults on demand: of any call, at once or later, for once or for ever; and what is refused anyway. */
#include "emulated_cuda/fixture.h"

static void the_third_call_fails(void)
{
    client_of(0);
    CUdeviceptr at;
    must(cuMemAlloc_v2(&at, 8));
    must(cuMemAlloc_v2(&at, 8));
    gives(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc_v2(&at, 8));
    must(cuMemAlloc_v2(&at, 8));
    gives(CUDA_ERROR_NOT_PERMITTED, cuMemFree_v2(at));
    must(cuMemFree_v2(at));
}

static void tests_order_faults_and_count_calls(void)
{
    client_of(0);
    void *at;
    uint64_t before = emulated_cuda_calls("cuMemHostAlloc");
    must(cuMemHostAlloc(&at, 8, 0));
    emulated_cuda_fail("cuMemHostAlloc", 2, CUDA_ERROR_OUT_OF_MEMORY);
    emulated_cuda_fail("cuMemFreeHost", 1, CUDA_ERROR_UNKNOWN);
    emulated_cuda_fail("cuMemFreeHost", 0, 0); /* taken back */
    must(cuMemHostAlloc(&at, 8, 0));
    gives(CUDA_ERROR_OUT_OF_MEMORY, cuMemHostAlloc(&at, 8, 0));
    must(cuMemFreeHost(at));
    check(emulated_cuda_calls("cuMemHostAlloc") == before + 3);
    check(emulated_cuda_calls("cuGraphLaunch") == 0);
}

static void sticky_errors_stay_in_their_context(void)
{
    struct client one = client_of(1), zero = client_of(0);
    struct fill_argument a = {device_words(1), 1, 1};
    void *p = &a;
    CUfunction fill = kernel_of(&zero, "kernel_fill");
    CUdeviceptr at;
    emulated_cuda_fail("cuLaunchKernel", 1, CUDA_ERROR_LAUNCH_FAILED);
    gives(CUDA_ERROR_LAUNCH_FAILED, cuLaunchKernel(fill, 1, 1, 1, 1, 1, 1, 0, NULL, &p, NULL));
    gives(CUDA_ERROR_LAUNCH_FAILED, cuLaunchKernel(fill, 1, 1, 1, 1, 1, 1, 0, NULL, &p, NULL));
    gives(CUDA_ERROR_LAUNCH_FAILED, cuCtxSynchronize());
    gives(CUDA_ERROR_LAUNCH_FAILED, cuMemAlloc_v2(&at, 8));
    must(cuCtxSetCurrent(one.context));
    must(cuMemAlloc_v2(&at, 8));
    must(cuDevicePrimaryCtxReset_v2(0));
    client_of(0); /* a new life */
    must(cuMemAlloc_v2(&at, 8));
}

static void a_kernel_fails_after_its_launch_returned(void)
{
    struct client c = client_of(0);
    CUfunction meet = kernel_of(&c, "kernel_meet");
    CUstream a = stream_with(CU_STREAM_NON_BLOCKING), b = stream_with(CU_STREAM_NON_BLOCKING);
    uint32_t *gate = pinned_words(2), *never = pinned_words(1), *now = pinned_words(1);
    CUevent e;
    must(cuEventCreate(&e, 0));
    must(cuStreamWaitValue32_v2(a, (uintptr_t)now, 1, CU_STREAM_WAIT_VALUE_EQ));
    must(cuStreamWaitValue32_v2(b, (uintptr_t)never, 1, CU_STREAM_WAIT_VALUE_EQ)); /* ends with the context */
    launch_gate(meet, a, gate);
    must(cuEventRecord(e, a));
    __atomic_store_n(now, 1, __ATOMIC_RELEASE);
    gives(CUDA_ERROR_ILLEGAL_ADDRESS, cuEventSynchronize(e));
    check(gate[0] == 0); /* it did not run */
    gives(CUDA_ERROR_ILLEGAL_ADDRESS, cuStreamQuery(a));
    gives(CUDA_ERROR_ILLEGAL_ADDRESS, cuStreamSynchronize(b));
    gives(CUDA_ERROR_ILLEGAL_ADDRESS, cuCtxSynchronize());
}

/* A call that waits when the context fails comes back, though a kernel of the context still runs. */
static void who_waits_hears_of_the_failure(void)
{
    struct client c = client_of(0);
    CUfunction meet = kernel_of(&c, "kernel_meet");
    CUstream a = stream_with(CU_STREAM_NON_BLOCKING), b = stream_with(CU_STREAM_NON_BLOCKING);
    uint32_t *gate = pinned_words(4);
    launch_gate(meet, a, gate);
    gate_reached(gate);
    launch_gate(meet, b, gate + 2); /* which fails */
    gives(CUDA_ERROR_LAUNCH_FAILED, cuStreamSynchronize(a));
    open_gate(gate);
    must(cuDevicePrimaryCtxReset_v2(0)); /* waits for the kernel */
}

static void images_for_other_machines_are_refused(void)
{
    client_of(0);
    CUmodule m;
    unsigned char cubin[64] = {0x7f, 'E', 'L', 'F', 2, 1};
    cubin[18] = 190; /* the machine: CUDA */
    gives(CUDA_ERROR_NO_BINARY_FOR_GPU, cuModuleLoadData(&m, "//\n.version 8.0\n.target sm_90\n"));
    gives(CUDA_ERROR_NO_BINARY_FOR_GPU, cuModuleLoadDataEx(&m, ".version 8.0\n", 0, NULL, NULL));
    gives(CUDA_ERROR_NO_BINARY_FOR_GPU, cuModuleLoadData(&m, cubin));
    gives(CUDA_ERROR_INVALID_IMAGE, cuModuleLoadData(&m, "this is no image at all"));
    gives(CUDA_ERROR_FILE_NOT_FOUND, cuModuleLoad(&m, "/nonexistent"));
}

static void modules_have_variables_of_their_own(void)
{
    struct client c = client_of(0), again = client_of(0);
    CUdeviceptr at, other;
    CUfunction f;
    size_t bytes;
    must(cuModuleGetGlobal_v2(&at, &bytes, c.module, "kernel_global"));
    must(cuModuleGetGlobal_v2(&other, NULL, again.module, "kernel_global"));
    check(bytes == 16 && at != other && word_at(at + 8) == 3);
    gives(CUDA_ERROR_NOT_FOUND, cuModuleGetGlobal_v2(&at, &bytes, c.module, "kernel_nothing"));
    gives(CUDA_ERROR_NOT_FOUND, cuModuleGetFunction(&f, c.module, "kernel_nothing"));
    gives(CUDA_ERROR_NOT_FOUND, cuModuleGetFunction(&f, c.module, "kernel_global"));
    must(cuModuleUnload(again.module));
    must(cuModuleGetFunction(&f, c.module, "kernel_fill"));
}

static void launches_are_checked(void)
{
    struct client c = client_of(0);
    struct fill_argument a = {device_words(1), 1, 1};
    CUfunction f = kernel_of(&c, "kernel_fill");
    void *p = &a;
    size_t bytes = sizeof a, wrong = sizeof a + 4;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &a, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
    gives(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(f, 0, 1, 1, 32, 1, 1, 0, NULL, &p, NULL));
    gives(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(f, 1, 1, 1, 1025, 1, 1, 0, NULL, &p, NULL));
    gives(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 49153, NULL, &p, NULL));
    must(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 65536));
    must(cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 49153, NULL, &p, NULL));
    gives(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
    a.value = 5;
    must(cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra));
    check(word_at(a.to) == 5);
    extra[3] = &wrong;
    gives(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra));
    CUlaunchAttribute together = {.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE, .value.cooperative = 1};
    CUlaunchConfig config = {.gridDimX = 8, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 512, .blockDimY = 1,
                             .blockDimZ = 1, .attrs = &together, .numAttrs = 1};
    must(cuLaunchKernelEx(&config, f, &p, NULL));
    config.gridDimX = 9; /* 2 multiprocessors x 4 blocks of 512 threads */
    gives(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, cuLaunchKernelEx(&config, f, &p, NULL));
    must(cuCtxSynchronize());
}

static void a_forked_child_has_no_driver(void)
{
    client_of(0);
    CUdeviceptr at;
    int count, status;
    pid_t child = fork();
    if (child == 0) {
        gives(CUDA_ERROR_NOT_INITIALIZED, cuMemAlloc_v2(&at, 8));
        gives(CUDA_ERROR_NOT_INITIALIZED, cuInit(0));
        gives(CUDA_ERROR_NOT_INITIALIZED, cuDeviceGetCount(&count));
        _exit(0);
    }
    check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    must(cuMemAlloc_v2(&at, 8));
}

int main(void)
{
    static const struct test tests[] = {
        {"the third call fails", the_third_call_fails, "EMULATED_CUDA_FAIL=cuMemAlloc_v2:3=2,cuMemFree_v2:1=800", 0},
        {"tests order faults and count calls", tests_order_faults_and_count_calls, NULL, 0},
        {"sticky errors stay in their context", sticky_errors_stay_in_their_context, NULL, 0},
        {"a kernel fails after its launch returned", a_kernel_fails_after_its_launch_returned,
         "EMULATED_CUDA_FAIL=kernel:1=700", 0},
        {"who waits hears of the failure", who_waits_hears_of_the_failure, "EMULATED_CUDA_FAIL=kernel:2=719", 0},
        {"images for other machines are refused", images_for_other_machines_are_refused, NULL, 0},
        {"modules have variables of their own", modules_have_variables_of_their_own, NULL, 0},
        {"launches are checked", launches_are_checked, "EMULATED_CUDA_MULTIPROCESSORS=2", 0},
        {"a forked child has no driver", a_forked_child_has_no_driver, NULL, 0},
    };
    return run_cases("faults", tests, sizeof tests / sizeof *tests);
}
