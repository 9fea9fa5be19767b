/* test_cuda_faults.c - every call of the driver that can fail does, one after the other: the error comes back with the
 * driver's words, nothing is leaked, and the next attempt succeeds. */
#include <pthread.h>
#include <sys/mman.h>

#include "device/cuda_fixture.h"

static const char *const two[] = {"EMULATED_CUDA_DEVICES=2", NULL};

/* ---- a life: all that a communicator does with a device, one step after the other ---- */

struct life {
    struct cuda_device *device;
    const struct cuda_kernel *kernel;
    uint64_t memory, pinned, registered, shareable, imported, imported_bytes;
    void *host, *range;
    cu_stream stream, side;
    cu_event event;
    int fd;
};
enum { PAGES = 16384 };

static enum rail_result allocate(struct life *l)
{
    uint64_t offset;
    RAIL_TRY(cuda_alloc(l->device, "life", 4096, &l->memory));
    RAIL_TRY(cuda_pinned_alloc(l->device, "life", 4096, &l->host, &l->pinned));
    RAIL_TRY(cuda_register(l->device, "life", l->range, PAGES, &l->registered));
    RAIL_TRY(cuda_shareable_alloc(l->device, "life", 4096, &l->shareable));
    RAIL_TRY(cuda_export_fd(l->device, "life", l->shareable, &l->fd, &offset, &l->imported_bytes));
    RAIL_TRY(cuda_import_fd(l->device, "life", l->fd, l->imported_bytes, &l->imported));
    RAIL_TRY(cuda_zero(l->device, "life", l->memory, 4096));
    return cuda_copy(l->device, "life", l->pinned, l->memory, 4096);
}

static enum rail_result work(struct life *l)
{
    struct { uint64_t word, by, gate; } argument = {l->memory, 1, 0};
    struct cuda_handle handle;
    RAIL_TRY(cuda_export(l->device, "life", l->memory, &handle));
    RAIL_TRY(cuda_pointer_check(l->device, "life", "sendbuff", (void *)l->memory, 4096, NULL));
    RAIL_TRY(cuda_stream_check(l->device, "life", l->stream));
    RAIL_TRY(cuda_launch(l->device, "life", l->kernel, 2, 1, 0, l->stream, &argument));
    RAIL_TRY(cuda_stream_join(l->device, "life", l->side, l->stream));
    RAIL_TRY(cuda_launch(l->device, "life", l->kernel, 2, 1, 0, l->side, &argument));
    RAIL_TRY(cuda_stream_wait(l->device, "life", l->side));
    RAIL_TRY(cuda_event_take(l->device, "life", &l->event));
    RAIL_TRY(cuda_event_record(l->device, "life", l->event, l->side));
    enum rail_result done;
    while ((done = cuda_event_done(l->device, "life", l->event)) == RAIL_NOT_YET) {}
    if (done != RAIL_OK) return done;
    while ((done = cuda_stream_done(l->device, "life", l->side)) == RAIL_NOT_YET) {}
    return done;
}

static enum rail_result live(struct life *l)
{
    struct cuda_capture capture;
    RAIL_TRY(cuda_device_current("life", &l->device));
    RAIL_TRY(cuda_events_prepare(l->device, "life", 2));
    RAIL_TRY(cuda_kernel_get(l->device, "life", "cuda_test_add", 32, &l->kernel));
    RAIL_TRY(cuda_stream_make(l->device, "life", true, &l->stream));
    RAIL_TRY(cuda_stream_make(l->device, "life", false, &l->side));
    RAIL_TRY(cuda_stream_capture(l->device, "life", l->stream, &capture));
    RAIL_TRY(allocate(l));
    return work(l);
}

static void bury(struct life *l)
{
    if (!l->device) return;
    cuda_stream_free(l->device, l->stream);
    cuda_stream_free(l->device, l->side);
    cuda_event_give(l->device, l->event);
    cuda_import_fd_close(l->device, l->imported, l->imported_bytes);
    if (l->fd >= 0) close(l->fd);
    if (l->shareable) MUST_OK(cuda_shareable_free("life", l->shareable));
    if (l->registered) cuda_unregister(l->device, l->range);
    cuda_pinned_free(l->device, l->host);
    cuda_free(l->device, l->memory);
    cuda_device_drop(l->device);
}

/* ---- and what happens to it ---- */

static void *range;

static enum rail_result one_life(void)
{
    struct life l = {.fd = -1, .range = range};
    enum rail_result result = live(&l);
    bury(&l);
    return result;
}

static size_t memory_left(void)
{
    size_t left = 0, all;
    cu_context context = NULL;
    MUST_CU(drv->context_current(&context));
    if (!context) return 0;
    MUST_CU(app.memory_left(&left, &all));
    return left;
}

/* The calls whose failure cannot be made good: those that give something, and those that say whether work was done. */
static const char *const must_work[] = {
    "cuCtxGetCurrent", "cuDeviceGetName", "cuDeviceGetPCIBusId", "cuDeviceTotalMem_v2", "cuDeviceGetUuid_v2",
    "cuCtxGetDevice", "cuCtxPushCurrent_v2", "cuStreamCreateWithPriority", "cuEventCreate", "cuModuleLoadDataEx",
    "cuModuleGetFunction", "cuFuncGetAttribute", "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    "cuStreamGetCaptureInfo_v2", "cuMemAlloc_v2", "cuMemHostAlloc", "cuMemHostGetDevicePointer_v2",
    "cuMemHostRegister_v2", "cuMemGetAllocationGranularity", "cuMemCreate", "cuMemAddressReserve", "cuMemMap",
    "cuMemRetainAllocationHandle", "cuMemExportToShareableHandle", "cuMemImportFromShareableHandle",
    "cuMemsetD8Async", "cuMemcpyAsync", "cuStreamSynchronize", "cuPointerGetAttributes", "cuIpcGetMemHandle",
    "cuStreamGetCtx", "cuLaunchKernel", "cuEventRecord", "cuStreamWaitEvent", "cuEventQuery", "cuStreamQuery",
};

/* Fails the k-th call of `name` from now on; false when a life has fewer. */
static bool fail_kth(const char *name, unsigned k, bool context_kept)
{
    struct cuda_census before = cuda_census();
    int fds = trouble_fds();
    size_t left = memory_left();
    app.order(name, k, CU_E_OUT_OF_MEMORY);
    enum rail_result result = one_life();
    app.order(name, 0, 0);
    if (result == RAIL_OK) return false;
    char words[200];
    snprintf(words, sizeof words, "life: |CUDA_ERROR_OUT_OF_MEMORY (out of memory)");
    if (!fixture_says(result, !strcmp(name, "cuStreamGetCtx") ? RAIL_E_ARGUMENT : RAIL_E_CUDA, words)) {
        fprintf(stderr, "call %u of %s\n", k, name);
        _exit(3);
    }
    struct cuda_census after = cuda_census();
    if (context_kept) { /* the pool and the stream stay with the context */
        before.events = after.events;
        before.streams = after.streams;
        MUST(after.streams <= 1 && after.events <= 3);
    }
    if (!fixture_census_is(before) || trouble_fds() != fds || memory_left() != left) {
        fprintf(stderr, "leaked after call %u of %s: %d descriptors, %zu bytes\n", k, name, trouble_fds() - fds,
                left - memory_left());
        _exit(3);
    }
    MUST_OK(one_life()); /* the process goes on */
    return true;
}

static void each_one(bool context_kept)
{
    unsigned failures = 0;
    range = mmap(NULL, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(range != MAP_FAILED);
    for (size_t i = 0; i < sizeof must_work / sizeof *must_work; i++) {
        unsigned k = 1;
        while (k < 200 && fail_kth(must_work[i], k, context_kept)) k++;
        failures += k - 1;
        /* What was made before with the context need not be made again. */
        if (k == 1 && !context_kept) fprintf(stderr, "a life does not need %s\n", must_work[i]), _exit(3);
    }
    printf("%u failures\n", failures);
}

/* Nobody else has the context: it is made and unmade with each life. */
static void alone(void)
{
    fixture_open();
    each_one(false);
    MUST(cuda_census().devices == 0 && cuda_census().streams == 0 && cuda_census().events == 0);
}
static void with_the_runtime(void)
{
    fixture_open();
    fixture_use(0);
    each_one(true);
}

static void each_failure_is_said_leaks_nothing_and_passes(void **state)
{
    (void)state;
    fixture_child(alone, two);
}
static void the_same_in_a_context_that_the_application_keeps(void **state)
{
    (void)state;
    fixture_child(with_the_runtime, two);
}

/* The first of all: the primary context itself. */
static void no_primary(void)
{
    struct cuda_device *device;
    fixture_open();
    app.order("cuDevicePrimaryCtxRetain", 1, CU_E_OUT_OF_MEMORY);
    MUST_SAY(cuda_device_current("ncclCommInitRank", &device), RAIL_E_CUDA,
             "ncclCommInitRank: cuDevicePrimaryCtxRetain(device 0): CUDA_ERROR_OUT_OF_MEMORY");
    app.order("cuDeviceGet", 1, CU_E_INVALID_DEVICE);
    MUST_SAY(cuda_device_current("ncclCommInitRank", &device), RAIL_E_CUDA,
             "CUDA_ERROR_INVALID_DEVICE|CUDA_VISIBLE_DEVICES");
    MUST_OK(cuda_device_current("ncclCommInitRank", &device));
    cuda_device_drop(device);
}
static void a_primary_context_that_cannot_be_made_is_said(void **state)
{
    (void)state;
    fixture_child(no_primary, two);
}

/* What only makes things better is done without. */
static void lesser_calls(void)
{
    static const char *const may_fail[] = {"cuCtxGetStreamPriorityRange", "cuThreadExchangeStreamCaptureMode"};
    fixture_open();
    fixture_use(0);
    range = mmap(NULL, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < sizeof may_fail / sizeof *may_fail; i++)
        for (unsigned k = 1; k < 4; k++) {
            app.order(may_fail[i], k, CU_E_NOT_SUPPORTED);
            MUST_OK(one_life());
            app.order(may_fail[i], 0, 0);
        }
}
static void calls_that_only_make_it_better_may_fail(void **state)
{
    (void)state;
    fixture_child(lesser_calls, two);
}

/* Giving back may fail, too: it is counted as given back, and nothing ends. */
static void frees_fail(void)
{
    static const char *const frees[] = {"cuMemFree_v2", "cuMemFreeHost", "cuMemHostUnregister", "cuStreamDestroy_v2",
                                        "cuMemUnmap", "cuMemAddressFree"};
    fixture_open();
    fixture_use(0);
    for (size_t i = 0; i < sizeof frees / sizeof *frees; i++) {
        range = mmap(NULL, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        app.order(frees[i], 1, CU_E_UNKNOWN);
        MUST_OK(one_life());
        struct cuda_census now = cuda_census();
        MUST(now.devices == 0 && now.allocations == 0 && now.pinned == 0 && now.registered == 0 && now.imports == 0);
    }
}
static void giving_back_may_fail(void **state)
{
    (void)state;
    fixture_child(frees_fail, two);
}

int main(void)
{
    fixture_find();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_failure_is_said_leaks_nothing_and_passes),
        cmocka_unit_test(the_same_in_a_context_that_the_application_keeps),
        cmocka_unit_test(a_primary_context_that_cannot_be_made_is_said),
        cmocka_unit_test(calls_that_only_make_it_better_may_fail),
        cmocka_unit_test(giving_back_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
