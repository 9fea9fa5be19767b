/* test_cuda_stream.c - order on streams, captures, events, and the kernel. */
#include <stdatomic.h>

#include "base/clock.h"
#include "device/cuda_fixture.h"

static const char *const two[] = {"EMULATED_CUDA_DEVICES=2", NULL};

struct add { uint64_t word, by, gate; };

static struct {
    struct cuda_device *device;
    const struct cuda_kernel *kernel;
    uint64_t word;              /* of the device */
    _Atomic uint32_t *gate;     /* pinned: kernels with a gate wait for it */
    uint64_t gate_address;
} here;

static void begin(void)
{
    void *host;
    fixture_open();
    fixture_use(0);
    MUST_OK(cuda_device_current("call", &here.device));
    MUST_OK(cuda_kernel_get(here.device, "call", "cuda_test_add", 32, &here.kernel));
    MUST_OK(cuda_alloc(here.device, "call", 8, &here.word));
    MUST_OK(cuda_zero(here.device, "call", here.word, 8));
    MUST_OK(cuda_pinned_alloc(here.device, "call", 64, &host, &here.gate_address));
    here.gate = host;
}
static void end(void)
{
    cuda_pinned_free(here.device, (void *)(uintptr_t)here.gate);
    cuda_free(here.device, here.word);
    cuda_device_drop(here.device);
    struct cuda_census now = cuda_census();
    MUST(now.devices == 0 && now.allocations == 0 && now.pinned == 0);
}
static void add(uint64_t by, bool gated, cu_stream stream)
{
    struct add argument = {here.word, by, gated ? here.gate_address : 0};
    MUST_OK(cuda_launch(here.device, "call", here.kernel, 1, 1, 0, stream, &argument));
    memset(&argument, 0xff, sizeof argument); /* it was copied */
}
static uint64_t word(void)
{
    uint64_t value = 0;
    MUST_OK(cuda_copy(here.device, "call", (uintptr_t)&value, here.word, 8));
    return value;
}
static void await(cu_stream stream)
{
    enum rail_result got;
    while ((got = cuda_stream_done(here.device, "call", stream)) == RAIL_NOT_YET) usleep(100);
    MUST_OK(got);
}

/* ---- whose streams ---- */

static void checks(void)
{
    cu_stream mine, theirs;
    struct cuda_device *other;
    begin();
    MUST_OK(cuda_stream_make(here.device, "call", true, &mine));
    fixture_use(1);
    MUST_OK(cuda_device_current("call", &other));
    MUST_OK(cuda_stream_make(other, "call", false, &theirs));
    MUST_OK(cuda_stream_check(here.device, "ncclAllReduce", NULL));
    MUST_OK(cuda_stream_check(here.device, "ncclAllReduce", CU_LEGACY_STREAM));
    MUST_OK(cuda_stream_check(here.device, "ncclAllReduce", CU_THREAD_STREAM));
    MUST_OK(cuda_stream_check(here.device, "ncclAllReduce", mine));
    MUST_SAY(cuda_stream_check(here.device, "ncclAllReduce", theirs), RAIL_E_ARGUMENT,
             "ncclAllReduce: stream|is of device 1|communicator is on device 0 (|made with device 0 current");
    cuda_stream_free(other, theirs);
    app.order("cuStreamGetCtx", 1, CU_E_INVALID_HANDLE); /* as for a stream that was destroyed */
    MUST_SAY(cuda_stream_check(here.device, "ncclAllReduce", mine), RAIL_E_ARGUMENT,
             "ncclAllReduce: stream|CUDA_ERROR_INVALID_HANDLE|pass NULL or a stream that lives");
    cuda_stream_free(here.device, mine);
    cuda_stream_free(here.device, NULL);
    cuda_device_drop(other);
    end();
}
static void a_stream_of_another_context_is_refused_with_both_names(void **state)
{
    (void)state;
    fixture_child(checks, two);
}

/* ---- order ---- */

static void waits(void)
{
    cu_stream first, second;
    cu_event event;
    begin();
    MUST_OK(cuda_stream_make(here.device, "call", false, &first));
    MUST_OK(cuda_stream_make(here.device, "call", false, &second));
    MUST_OK(cuda_events_prepare(here.device, "call", 4));
    long events = cuda_census().events;
    MUST(events == 4);
    MUST_OK(cuda_event_take(here.device, "call", &event));
    add(1, true, first);
    MUST_OK(cuda_event_record(here.device, "call", event, first));
    MUST_OK(cuda_stream_join(here.device, "call", second, first));
    add(10, false, second); /* after the gated one, on another stream */
    MUST(cuda_event_done(here.device, "call", event) == RAIL_NOT_YET);
    usleep(20000);
    MUST(cuda_stream_done(here.device, "call", second) == RAIL_NOT_YET);
    MUST(word() == 0); /* the device is asked meanwhile, and answers: nothing here waits for it */
    atomic_store(here.gate, 1);
    await(second);
    MUST(word() == 11);
    MUST_OK(cuda_event_done(here.device, "call", event));
    cuda_event_give(here.device, event);
    cuda_event_give(here.device, NULL);
    MUST(cuda_census().events == events); /* the pool sufficed */
    cuda_stream_free(here.device, first);
    cuda_stream_free(here.device, second);
    end();
}
static void events_order_streams_without_a_wait_of_ours(void **state)
{
    (void)state;
    fixture_child(waits, two);
}

static void note(void *argument) { atomic_fetch_add((_Atomic int *)argument, 1); }

static void host_and_values(void)
{
    static _Atomic int calls;
    cu_stream stream;
    uint64_t flag;
    begin();
    MUST_OK(cuda_alloc(here.device, "call", 8, &flag));
    MUST_OK(cuda_zero(here.device, "call", flag, 8));
    MUST_OK(cuda_stream_make(here.device, "call", false, &stream));
    MUST_OK(cuda_stream_wait_value(here.device, "call", stream, flag, 5));
    MUST_OK(cuda_launch_host(here.device, "call", stream, note, &calls));
    usleep(20000);
    MUST(atomic_load(&calls) == 0);
    cu_stream other;
    MUST_OK(cuda_stream_make(here.device, "call", false, &other));
    MUST_OK(cuda_stream_write_value(here.device, "call", other, flag, 4));
    usleep(20000);
    MUST(atomic_load(&calls) == 0);
    MUST_OK(cuda_stream_write_value(here.device, "call", other, flag, 5));
    MUST_OK(cuda_stream_wait(here.device, "call", stream));
    MUST(atomic_load(&calls) == 1);
    cuda_free(here.device, flag);
    cuda_stream_free(here.device, stream);
    cuda_stream_free(here.device, other);
    end();
}
static void a_stream_waits_for_values_and_calls_the_host_in_order(void **state)
{
    (void)state;
    fixture_child(host_and_values, two);
}

/* ---- captures ---- */

static void captures(void)
{
    static _Atomic int released;
    struct cuda_capture capture, again;
    cu_stream stream, side;
    cu_graph graph;
    void *exec;
    uint64_t more;
    begin();
    MUST_OK(cuda_stream_make(here.device, "call", false, &stream));
    MUST_OK(cuda_stream_make(here.device, "call", false, &side));
    MUST_OK(cuda_stream_capture(here.device, "call", stream, &capture));
    MUST(!capture.active);
    MUST_CU(app.capture_begin(stream, 0 /* global: the strictest */));
    MUST_OK(cuda_stream_capture(here.device, "call", stream, &capture));
    MUST(capture.active && capture.id && capture.graph);
    add(1, false, stream);
    MUST_OK(cuda_stream_join(here.device, "call", side, stream)); /* the side stream joins the capture */
    add(10, false, side);
    MUST_OK(cuda_stream_capture(here.device, "call", side, &again));
    MUST(again.active && again.id == capture.id);
    MUST_OK(cuda_stream_join(here.device, "call", stream, side));
    MUST_OK(cuda_capture_retain(here.device, "call", capture.graph, note, &released));
    /* What synchronises is not in the way of the capture, which is not in its way. */
    MUST_OK(cuda_alloc(here.device, "call", 4096, &more));
    MUST_OK(cuda_zero(here.device, "call", more, 4096));
    cuda_free(here.device, more);
    MUST(word() == 0);
    MUST_CU(app.capture_end(stream, &graph));
    MUST_CU(app.graph_instantiate(&exec, graph, 0));
    for (int i = 0; i < 100; i++) MUST_CU(app.graph_launch(exec, stream));
    await(stream);
    MUST(word() == 1100);
    MUST_CU(app.graph_destroy(graph));
    MUST(atomic_load(&released) == 0); /* what was made of it lives */
    MUST_CU(app.graph_exec_destroy(exec));
    for (int i = 0; i < 5000 && !atomic_load(&released); i++) usleep(1000);
    MUST(atomic_load(&released) == 1);
    cuda_stream_free(here.device, stream);
    cuda_stream_free(here.device, side);
    end();
}
static void a_capture_holds_kernels_of_all_streams_that_join_it(void **state)
{
    (void)state;
    fixture_child(captures, two);
}

static void retained_in_vain(void)
{
    static _Atomic int released;
    struct cuda_capture capture;
    cu_stream stream;
    cu_graph graph;
    begin();
    MUST_OK(cuda_stream_make(here.device, "call", false, &stream));
    MUST_CU(app.capture_begin(stream, 0));
    MUST_OK(cuda_stream_capture(here.device, "call", stream, &capture));
    app.order("cuUserObjectCreate", 1, CU_E_OUT_OF_MEMORY);
    MUST_SAY(cuda_capture_retain(here.device, "ncclSend", capture.graph, note, &released), RAIL_E_CUDA,
             "OUT_OF_MEMORY");
    app.order("cuGraphRetainUserObject", 1, CU_E_OUT_OF_MEMORY);
    MUST_SAY(cuda_capture_retain(here.device, "ncclSend", capture.graph, note, &released), RAIL_E_CUDA,
             "OUT_OF_MEMORY");
    MUST_CU(app.capture_end(stream, &graph));
    MUST_CU(app.graph_destroy(graph));
    usleep(50000);
    MUST(atomic_load(&released) == 0);
    cuda_stream_free(here.device, stream);
    end();
}
static void what_was_not_retained_is_not_released(void **state)
{
    (void)state;
    fixture_child(retained_in_vain, two);
}

static void broken_off(void)
{
    struct cuda_capture capture;
    cu_stream stream;
    cu_graph graph = NULL;
    begin();
    MUST_OK(cuda_stream_make(here.device, "call", false, &stream));
    MUST_CU(app.capture_begin(stream, 0));
    MUST(drv->stream_synchronize(stream) != CU_SUCCESS); /* the application breaks it off */
    MUST_SAY(cuda_stream_capture(here.device, "ncclAllReduce", stream, &capture), RAIL_E_CUDA,
             "ncclAllReduce: the capture of stream|CUDA_ERROR_STREAM_CAPTURE_INVALIDATED|end it, and begin anew");
    MUST(!capture.active);
    MUST(app.capture_end(stream, &graph) != CU_SUCCESS);
    add(1, false, stream); /* the process goes on */
    await(stream);
    MUST(word() == 1);
    cuda_stream_free(here.device, stream);
    end();
}
static void a_capture_that_was_broken_off_is_said(void **state)
{
    (void)state;
    fixture_child(broken_off, two);
}

/* ---- the kernel ---- */

static void facts(void)
{
    const struct cuda_kernel *again, *none;
    begin();
    MUST(here.kernel->max_threads >= 32 && here.kernel->blocks_per_sm >= 1 && here.kernel->load_ms >= 0);
    MUST_OK(cuda_kernel_get(here.device, "call", "cuda_test_add", 32, &again));
    MUST(again == here.kernel && app.calls("cuModuleLoadDataEx") == 1);
    MUST_SAY(cuda_kernel_get(here.device, "ncclCommInitRank", "no_such", 32, &none), RAIL_E_CUDA,
             "ncclCommInitRank: making kernel no_such resident on device 0: CUDA_ERROR_NOT_FOUND");
    MUST(none == NULL);
    uint64_t calls = app.calls("cuFuncLoad") + app.calls("cuModuleLoadDataEx");
    add(1, false, NULL); /* the launch loads nothing: an emulated lazy load would be one more golden-rule wait */
    await(NULL);
    MUST(word() == 1 && app.calls("cuFuncLoad") + app.calls("cuModuleLoadDataEx") == calls);
    end();
}
static void the_kernel_is_loaded_once_and_resident(void **state)
{
    (void)state;
    fixture_child(facts, two);
}

static void image_trouble(const char *path, const char *words)
{
    struct cuda_device *device;
    const struct cuda_kernel *kernel;
    if (path)
        setenv("RAILCCL_CUDA_KERNEL", path, 1);
    fixture_open();
    fixture_use(0);
    MUST_OK(cuda_device_current("call", &device));
    MUST_SAY(cuda_kernel_get(device, "ncclCommInitRank", "cuda_test_add", 32, &kernel), path && *path == '/' ?
             RAIL_E_SYSTEM : RAIL_E_CUDA, words);
    cuda_device_drop(device);
}
static void no_file(void) { image_trouble("/nowhere/kernel.cubin", "RAILCCL_CUDA_KERNEL=/nowhere/kernel.cubin|No such "
                                          "file"); }
static void no_image(void) { image_trouble("Makefile", "loading the kernel (Makefile) on device "
                                           "0|CUDA_ERROR_INVALID_IMAGE"); }
static void no_binary(void)
{
    image_trouble(NULL, "loading the kernel|compute capability 9.0|CUDA_ERROR_NO_BINARY_FOR_GPU|update");
}
/* The programs that are linked with the archive have the image, too: the emulated driver cannot run it, and says so. */
static void embedded(void)
{
    struct cuda_device *device;
    const struct cuda_kernel *kernel;
    unsetenv("RAILCCL_CUDA_KERNEL");
    fixture_open();
    fixture_use(0);
    MUST_OK(cuda_device_current("call", &device));
    MUST(cuda_kernel_get(device, "ncclCommInitRank", "rail_interpret", 32, &kernel) == RAIL_E_CUDA);
    bool without = !trouble_lacks(rail_last_error(), "this build of the library has no kernel for GPUs");
    MUST(without || !trouble_lacks(rail_last_error(), "loading the kernel (embedded) on device 0"));
    if (access("/usr/bin/clang", X_OK) == 0) MUST(!without);
    cuda_device_drop(device);
}
static void the_embedded_image_is_in_every_program(void **state)
{
    (void)state;
    fixture_child(embedded, two);
}

static void an_image_that_cannot_be_loaded_is_named(void **state)
{
    (void)state;
    fixture_child(no_file, two);
    fixture_child(no_image, two);
    fixture_child(no_binary, (const char *[]){"EMULATED_CUDA_FAIL=cuModuleLoadDataEx:1=209", NULL});
}

/* ---- sticky ---- */

static void crashes(void)
{
    cu_stream stream;
    uint64_t memory;
    struct cuda_device *other;
    begin();
    MUST_OK(cuda_stream_make(here.device, "call", false, &stream));
    app.order("kernel", 1, CU_E_ILLEGAL_ADDRESS);
    add(1, false, stream);
    enum rail_result got;
    while ((got = cuda_stream_done(here.device, "ncclAllReduce", stream)) == RAIL_NOT_YET) usleep(100);
    MUST_SAY(got, RAIL_E_CUDA, "ncclAllReduce: cuStreamQuery|CUDA_ERROR_ILLEGAL_ADDRESS|(an illegal memory access|only "
             "a new process helps|compute-sanitizer");
    MUST(cuda_sticky(CU_E_ILLEGAL_ADDRESS) && !cuda_sticky(CU_E_OUT_OF_MEMORY) && !cuda_sticky(CU_SUCCESS));
    MUST_SAY(cuda_alloc(here.device, "ncclMemAlloc", 4096, &memory), RAIL_E_CUDA, "ILLEGAL_ADDRESS|the context is "
             "lost");
    fixture_use(1);
    MUST_OK(cuda_device_current("call", &other)); /* another device's is well */
    MUST_OK(cuda_alloc(other, "call", 4096, &memory));
    MUST_OK(cuda_zero(other, "call", memory, 4096));
    cuda_free(other, memory);
    cuda_device_drop(other);
    cuda_stream_free(here.device, stream);
    end(); /* all is given up, if not given back, and counted so */
}
static void a_sticky_error_says_that_the_context_is_lost(void **state)
{
    (void)state;
    fixture_child(crashes, two);
}

int main(void)
{
    fixture_find();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_of_another_context_is_refused_with_both_names),
        cmocka_unit_test(events_order_streams_without_a_wait_of_ours),
        cmocka_unit_test(a_stream_waits_for_values_and_calls_the_host_in_order),
        cmocka_unit_test(a_capture_holds_kernels_of_all_streams_that_join_it),
        cmocka_unit_test(what_was_not_retained_is_not_released),
        cmocka_unit_test(a_capture_that_was_broken_off_is_said),
        cmocka_unit_test(the_kernel_is_loaded_once_and_resident),
        cmocka_unit_test(the_embedded_image_is_in_every_program),
        cmocka_unit_test(an_image_that_cannot_be_loaded_is_named),
        cmocka_unit_test(a_sticky_error_says_that_the_context_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
