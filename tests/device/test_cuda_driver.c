/* test_cuda_driver.c - loading the driver: our declarations against NVIDIA's header and library, and every way in which
 * there is none. */
#include "device/cuda_fixture.h"

#define CUDA_HEADER "/usr/local/cuda/include/cuda.h"
#if __has_include(CUDA_HEADER)
#include CUDA_HEADER
#define HAVE_HEADER 1
#endif

/* ---- against NVIDIA's ---- */

static void values_and_layouts_are_those_of_the_header(void **state)
{
    (void)state;
#ifdef HAVE_HEADER
#define SAME(ours, theirs) assert_int_equal((long long)(ours), (long long)(theirs))
#define SAME_RESULT(name) SAME(CU_E_##name, CUDA_ERROR_##name)
    SAME(CU_SUCCESS, CUDA_SUCCESS);
    SAME_RESULT(INVALID_VALUE); SAME_RESULT(OUT_OF_MEMORY); SAME_RESULT(NOT_INITIALIZED); SAME_RESULT(DEINITIALIZED);
    SAME_RESULT(STUB_LIBRARY); SAME_RESULT(DEVICE_UNAVAILABLE); SAME_RESULT(NO_DEVICE); SAME_RESULT(INVALID_DEVICE);
    SAME_RESULT(INVALID_IMAGE); SAME_RESULT(INVALID_CONTEXT); SAME_RESULT(NO_BINARY_FOR_GPU);
    SAME_RESULT(ECC_UNCORRECTABLE); SAME_RESULT(PEER_ACCESS_UNSUPPORTED); SAME_RESULT(INVALID_PTX);
    SAME_RESULT(NVLINK_UNCORRECTABLE); SAME_RESULT(JIT_COMPILER_NOT_FOUND); SAME_RESULT(UNSUPPORTED_PTX_VERSION);
    SAME_RESULT(JIT_COMPILATION_DISABLED); SAME_RESULT(OPERATING_SYSTEM); SAME_RESULT(INVALID_HANDLE);
    SAME_RESULT(NOT_FOUND); SAME_RESULT(NOT_READY); SAME_RESULT(ILLEGAL_ADDRESS); SAME_RESULT(LAUNCH_OUT_OF_RESOURCES);
    SAME_RESULT(LAUNCH_TIMEOUT); SAME_RESULT(PEER_ACCESS_ALREADY_ENABLED); SAME_RESULT(PEER_ACCESS_NOT_ENABLED);
    SAME_RESULT(CONTEXT_IS_DESTROYED); SAME_RESULT(ASSERT); SAME_RESULT(TOO_MANY_PEERS);
    SAME_RESULT(HOST_MEMORY_ALREADY_REGISTERED); SAME_RESULT(HOST_MEMORY_NOT_REGISTERED);
    SAME_RESULT(HARDWARE_STACK_ERROR); SAME_RESULT(ILLEGAL_INSTRUCTION); SAME_RESULT(MISALIGNED_ADDRESS);
    SAME_RESULT(INVALID_ADDRESS_SPACE); SAME_RESULT(INVALID_PC); SAME_RESULT(LAUNCH_FAILED); SAME_RESULT(NOT_PERMITTED);
    SAME_RESULT(NOT_SUPPORTED); SAME_RESULT(SYSTEM_NOT_READY); SAME_RESULT(SYSTEM_DRIVER_MISMATCH);
    SAME_RESULT(COMPAT_NOT_SUPPORTED_ON_DEVICE); SAME_RESULT(MPS_CONNECTION_FAILED);
    SAME_RESULT(STREAM_CAPTURE_UNSUPPORTED); SAME_RESULT(STREAM_CAPTURE_INVALIDATED);
    SAME_RESULT(STREAM_CAPTURE_ISOLATION); SAME_RESULT(STREAM_CAPTURE_IMPLICIT);
    SAME_RESULT(STREAM_CAPTURE_WRONG_THREAD); SAME_RESULT(UNKNOWN);
#if CUDA_VERSION >= 12040
    SAME_RESULT(CONTAINED); SAME_RESULT(TENSOR_MEMORY_LEAK); SAME_RESULT(MPS_CLIENT_TERMINATED);
    SAME_RESULT(EXTERNAL_DEVICE);
#endif
    SAME(CU_DEVICE_MULTIPROCESSORS, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    SAME(CU_DEVICE_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    SAME(CU_DEVICE_CAPABILITY_MINOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    SAME(CU_DEVICE_PAGEABLE_ACCESS, CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS);
    SAME(CU_DEVICE_VMM, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);
    SAME(CU_DEVICE_VMM_FD, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED);
    SAME(CU_DEVICE_VMM_GPU_DIRECT, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED);
    SAME(CU_DEVICE_DMA_BUF, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED);
    SAME(CU_POINTER_CONTEXT, CU_POINTER_ATTRIBUTE_CONTEXT);
    SAME(CU_POINTER_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_MEMORY_TYPE);
    SAME(CU_POINTER_DEVICE_ADDRESS, CU_POINTER_ATTRIBUTE_DEVICE_POINTER);
    SAME(CU_POINTER_BUFFER_ID, CU_POINTER_ATTRIBUTE_BUFFER_ID);
    SAME(CU_POINTER_IS_MANAGED, CU_POINTER_ATTRIBUTE_IS_MANAGED);
    SAME(CU_POINTER_ORDINAL, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
    SAME(CU_POINTER_IPC_CAPABLE, CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE);
    SAME(CU_POINTER_RANGE_BEGIN, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR);
    SAME(CU_POINTER_RANGE_BYTES, CU_POINTER_ATTRIBUTE_RANGE_SIZE);
    SAME(CU_POINTER_ACCESS_FLAGS, CU_POINTER_ATTRIBUTE_ACCESS_FLAGS);
    SAME(CU_POINTER_MAPPED_BYTES, CU_POINTER_ATTRIBUTE_MAPPING_SIZE);
    SAME(CU_POINTER_MAPPED_BEGIN, CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR);
    SAME(CU_MEMORY_HOST, CU_MEMORYTYPE_HOST);
    SAME(CU_MEMORY_DEVICE, CU_MEMORYTYPE_DEVICE);
    SAME(CU_FUNCTION_MAX_THREADS, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
    SAME(CU_FUNCTION_SHARED_BYTES, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
    SAME(CU_FUNCTION_LOCAL_BYTES, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES);
    SAME(CU_FUNCTION_REGISTERS, CU_FUNC_ATTRIBUTE_NUM_REGS);
    SAME(CU_FUNCTION_PTX_VERSION, CU_FUNC_ATTRIBUTE_PTX_VERSION);
    SAME(CU_FUNCTION_BINARY_VERSION, CU_FUNC_ATTRIBUTE_BINARY_VERSION);
    SAME(CU_HOST_PORTABLE, CU_MEMHOSTALLOC_PORTABLE);
    SAME(CU_HOST_PORTABLE, CU_MEMHOSTREGISTER_PORTABLE);
    SAME(CU_HOST_MAPPED, CU_MEMHOSTALLOC_DEVICEMAP);
    SAME(CU_HOST_MAPPED, CU_MEMHOSTREGISTER_DEVICEMAP);
    SAME(CU_IPC_LAZY_PEER_ACCESS, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    SAME(CU_STREAM_NO_LEGACY_SYNC, CU_STREAM_NON_BLOCKING);
    SAME(CU_EVENT_NO_TIMING, CU_EVENT_DISABLE_TIMING);
    SAME(CU_CAPTURE_MODE_THREAD, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    SAME(CU_CAPTURE_MODE_RELAXED, CU_STREAM_CAPTURE_MODE_RELAXED);
    SAME(CU_CAPTURE_NONE, CU_STREAM_CAPTURE_STATUS_NONE);
    SAME(CU_CAPTURE_ACTIVE, CU_STREAM_CAPTURE_STATUS_ACTIVE);
    SAME(CU_CAPTURE_INVALIDATED, CU_STREAM_CAPTURE_STATUS_INVALIDATED);
    SAME(CU_USER_OBJECT_NO_SYNC, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC);
    SAME(CU_GRAPH_RETAIN_MOVES, CU_GRAPH_USER_OBJECT_MOVE);
    SAME(CU_WAIT_GEQ, CU_STREAM_WAIT_VALUE_GEQ);
    SAME(CU_JIT_ERROR_LOG, CU_JIT_ERROR_LOG_BUFFER);
    SAME(CU_JIT_ERROR_LOG_BYTES, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);
    SAME(CU_DMA_BUF, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD);
    SAME(CU_HANDLE_FD, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    SAME(CU_ALLOCATION_PINNED, CU_MEM_ALLOCATION_TYPE_PINNED);
    SAME(CU_LOCATION_DEVICE, CU_MEM_LOCATION_TYPE_DEVICE);
    SAME(CU_ACCESS_READ_WRITE, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    assert_ptr_equal(CU_LEGACY_STREAM, CU_STREAM_LEGACY);
    assert_ptr_equal(CU_THREAD_STREAM, CU_STREAM_PER_THREAD);

    SAME(sizeof(cu_address), sizeof(CUdeviceptr));
    SAME(sizeof(cu_allocation), sizeof(CUmemGenericAllocationHandle));
    SAME(sizeof(struct cu_uuid), sizeof(CUuuid));
    SAME(sizeof(struct cu_ipc), sizeof(CUipcMemHandle));
    SAME(sizeof(struct cu_properties), sizeof(CUmemAllocationProp));
    SAME(offsetof(struct cu_properties, handle_types), offsetof(CUmemAllocationProp, requestedHandleTypes));
    SAME(offsetof(struct cu_properties, location), offsetof(CUmemAllocationProp, location));
    SAME(offsetof(struct cu_properties, gpu_direct), offsetof(CUmemAllocationProp, allocFlags.gpuDirectRDMACapable));
    SAME(sizeof(struct cu_access), sizeof(CUmemAccessDesc));
    SAME(offsetof(struct cu_access, flags), offsetof(CUmemAccessDesc, flags));
#else
    print_message("%s is not here\n", CUDA_HEADER);
    skip();
#endif
}

static const char stub[] = "/usr/local/cuda/lib64/stubs/libcuda.so";

#define THE_NAME(member, name, arguments) name,
static const char *const every_name[] = {CU_CALLS(THE_NAME, THE_NAME)};

static void every_name_is_one_of_the_driver(void **state)
{
    (void)state;
    void *library = dlopen(stub, RTLD_NOW);
    if (!library) {
        print_message("%s is not here\n", stub);
        skip();
    }
    for (size_t i = 0; i < sizeof every_name / sizeof *every_name; i++)
        if (!dlsym(library, every_name[i])) fail_msg("NVIDIA's library has no %s", every_name[i]);
    dlclose(library);
}

/* ---- no driver, in each of its forms ---- */

static void expect_none(const char *words)
{
    const struct cuda_driver *driver;
    const char *why = NULL;
    bool wanted = true;
    MUST_OK(cuda_wanted("ncclCommInitRank", &wanted, &why)); /* RAILCCL_DEVICE is auto: host memory, and a reason */
    MUST(!wanted && !trouble_lacks(why, words));
    MUST_SAY(cuda_driver_get("ncclMemAlloc", &driver), RAIL_E_CUDA, "ncclMemAlloc|RAILCCL_DEVICE=host");
    MUST(!trouble_lacks(rail_last_error(), words));
    struct cuda_device *device = (void *)1;
    MUST_SAY(cuda_device_current("ncclCommInitRank", &device), RAIL_E_CUDA, words);
    MUST(device == NULL);
}

static void absent(void)
{
    setenv("RAILCCL_CUDA_LIBRARY", "/nowhere/libcuda.so.1", 1);
    expect_none("no GPU driver|/nowhere/libcuda.so.1|cannot open shared object file");
}
static void no_library(void)
{
    setenv("RAILCCL_CUDA_LIBRARY", "Makefile", 1);
    expect_none("no GPU driver|Makefile");
}
static void another_library(void)
{
    setenv("RAILCCL_CUDA_LIBRARY", "libm.so.6", 1);
    expect_none("libm.so.6 has no cuInit|not a CUDA driver|465.19");
}
static void too_old(void)
{
    expect_none("libcuda.so.1 is of CUDA 11.2|465.19, of CUDA 11.3");
}
static void mismatched(void)
{
    expect_none("cuInit: CUDA_ERROR_OPERATING_SYSTEM");
}
static void no_device(void)
{
    expect_none("cuInit: CUDA_ERROR_NO_DEVICE");
}
static void the_stub(void)
{
    setenv("RAILCCL_CUDA_LIBRARY", stub, 1);
    expect_none(stub);
    expect_none("cuInit: CUDA_ERROR_STUB_LIBRARY|LD_LIBRARY_PATH");
}

static void a_missing_driver_is_said_in_the_loaders_words(void **state)
{
    (void)state;
    fixture_child_plain(absent);
}
static void a_file_that_is_no_library_is_named(void **state)
{
    (void)state;
    fixture_child_plain(no_library);
}
static void another_library_is_not_taken_for_a_driver(void **state)
{
    (void)state;
    fixture_child_plain(another_library);
}
static void a_driver_too_old_is_told_the_least_version(void **state)
{
    (void)state;
    fixture_child(too_old, (const char *[]){"EMULATED_CUDA_DRIVER=11020", NULL});
}
static void a_driver_that_cannot_begin_is_quoted(void **state)
{
    (void)state;
    fixture_child(mismatched, (const char *[]){"EMULATED_CUDA_FAIL=cuInit:1=304", NULL});
}
static void a_driver_without_a_device_is_quoted(void **state)
{
    (void)state;
    fixture_child(no_device, (const char *[]){"EMULATED_CUDA_DEVICES=0", NULL});
    fixture_child(no_device, (const char *[]){"CUDA_VISIBLE_DEVICES=", NULL});
}
static void nvidias_stub_library_is_quoted(void **state)
{
    (void)state;
    void *library = dlopen(stub, RTLD_NOW);
    if (!library) {
        print_message("%s is not here\n", stub);
        skip();
    }
    dlclose(library);
    fixture_child_plain(the_stub);
}

/* ---- what is wanted ---- */

static void wants_cuda_and_gets_none(void)
{
    bool wanted = true;
    MUST_SAY(cuda_wanted("ncclCommInitRank", &wanted, NULL), RAIL_E_CUDA,
             "ncclCommInitRank|RAILCCL_DEVICE=cuda|cuInit: CUDA_ERROR_NO_DEVICE|CUDA_VISIBLE_DEVICES");
    MUST(!wanted);
}
static void wants_host(void)
{
    const char *why;
    bool wanted = true;
    MUST_OK(cuda_wanted("ncclCommInitRank", &wanted, &why));
    MUST(!wanted && !strcmp(why, "RAILCCL_DEVICE=host"));
}
static void finds_two(void)
{
    const char *why;
    bool wanted = false;
    MUST_OK(cuda_wanted("ncclCommInitRank", &wanted, &why));
    MUST(wanted && !strcmp(why, "the driver (CUDA 13.0) has 2 devices"));
}

static void cuda_without_a_device_is_an_error(void **state)
{
    (void)state;
    fixture_child(wants_cuda_and_gets_none, (const char *[]){"RAILCCL_DEVICE=cuda", "EMULATED_CUDA_DEVICES=0", NULL});
}
static void host_does_not_look_for_a_driver(void **state)
{
    (void)state;
    fixture_child(wants_host, (const char *[]){"RAILCCL_DEVICE=host", NULL});
}
static void auto_takes_what_the_driver_finds(void **state)
{
    (void)state;
    fixture_child(finds_two, (const char *[]){"EMULATED_CUDA_DEVICES=2", NULL});
    fixture_child(finds_two, (const char *[]){"EMULATED_CUDA_DEVICES=2", "RAILCCL_DEVICE=cuda", NULL});
}

int main(void)
{
    fixture_find();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_layouts_are_those_of_the_header),
        cmocka_unit_test(every_name_is_one_of_the_driver),
        cmocka_unit_test(a_missing_driver_is_said_in_the_loaders_words),
        cmocka_unit_test(a_file_that_is_no_library_is_named),
        cmocka_unit_test(another_library_is_not_taken_for_a_driver),
        cmocka_unit_test(a_driver_too_old_is_told_the_least_version),
        cmocka_unit_test(a_driver_that_cannot_begin_is_quoted),
        cmocka_unit_test(a_driver_without_a_device_is_quoted),
        cmocka_unit_test(nvidias_stub_library_is_quoted),
        cmocka_unit_test(cuda_without_a_device_is_an_error),
        cmocka_unit_test(host_does_not_look_for_a_driver),
        cmocka_unit_test(auto_takes_what_the_driver_finds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
