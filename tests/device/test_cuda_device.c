/* test_cuda_device.c - whose context, for how long, and that the caller's stays as it was. */
#include <pthread.h>

#include "device/cuda_fixture.h"

static const char *const four[] = {"EMULATED_CUDA_DEVICES=4", NULL};

static cu_context current(void)
{
    cu_context context = NULL;
    MUST_CU(drv->context_current(&context));
    return context;
}
static bool active(int ordinal)
{
    unsigned flags;
    int on = -1;
    MUST_CU(drv->primary_state(ordinal, &flags, &on));
    return on;
}

/* ---- which device ---- */

static void nothing_is_current(void)
{
    struct cuda_device *device, *again;
    fixture_open();
    struct cuda_census before = cuda_census();
    MUST(!active(0));
    MUST_OK(cuda_device_current("call", &device));
    MUST(device->ordinal == 0 && device->primary && active(0) && current() == NULL);
    MUST_OK(cuda_device_current("call", &again));
    MUST(again == device && cuda_census().devices == 1);
    cuda_device_drop(again);
    MUST(active(0));
    cuda_device_drop(device);
    MUST(!active(0)); /* nobody else wanted it: its memory is given back */
    cuda_device_drop(NULL);
    MUST(fixture_census_is(before));
}
static void without_a_context_it_is_device_0s_primary_one(void **state)
{
    (void)state;
    fixture_child(nothing_is_current, four);
}

static void third_is_current(void)
{
    struct cuda_device *device;
    fixture_open();
    cu_context mine = fixture_use(2);
    MUST_OK(cuda_device_current("call", &device));
    MUST(device->ordinal == 2 && device->context == mine && device->primary && current() == mine && !active(0));
    MUST(device->major == 9 && device->minor == 0 && device->n_sms == 132);
    MUST(!strcmp(device->bus_id, "0000:5a:00.0") && !memcmp(device->uuid, "emulated-gpu-002", 16));
    MUST(device->memory_bytes > 0 && device->name[0] && device->context_id);
    MUST_CU(drv->primary_release(2)); /* the application's hold: ours keeps the context */
    MUST(active(2));
    cuda_device_drop(device);
    MUST(!active(2));
}
static void it_is_the_callers_current_one_and_described(void **state)
{
    (void)state;
    fixture_child(third_is_current, four);
}

static void own_context(void)
{
    struct cuda_device *device, *primary;
    cu_context mine;
    fixture_open();
    cu_context its_primary = fixture_use(1);
    MUST_CU(app.context_create(&mine, 0, 1));
    MUST_OK(cuda_device_current("call", &device));
    MUST(device->context == mine && !device->primary && device->ordinal == 1);
    MUST_CU(app.context_set(its_primary));
    MUST_OK(cuda_device_current("call", &primary));
    MUST(primary != device && primary->primary);
    MUST(!cuda_peer_possible(device, primary)); /* two address spaces */
    cuda_device_drop(primary);
    cuda_device_drop(device);
}
static void contexts_of_one_device_are_two_devices(void **state)
{
    (void)state;
    fixture_child(own_context, four);
}

/* ---- how long ---- */

static void kept(void)
{
    struct cuda_device *first, *second;
    const struct cuda_kernel *kernel;
    fixture_open();
    fixture_use(0);
    MUST_OK(cuda_device_current("call", &first));
    MUST_OK(cuda_kernel_get(first, "call", "cuda_test_add", 32, &kernel));
    cuda_device_drop(first);
    uint64_t loads = app.calls("cuModuleLoadDataEx");
    MUST_OK(cuda_device_current("call", &second));
    MUST_OK(cuda_kernel_get(second, "call", "cuda_test_add", 32, &kernel));
    MUST(second == first && app.calls("cuModuleLoadDataEx") == loads && loads == 1);
    cuda_device_drop(second);
}
static void while_others_keep_the_context_the_kernel_stays_loaded(void **state)
{
    (void)state;
    fixture_child(kept, four);
}

static void made_anew(void)
{
    struct cuda_device *device;
    const struct cuda_kernel *kernel;
    uint64_t memory;
    fixture_open();
    fixture_use(0);
    MUST_OK(cuda_device_current("call", &device));
    MUST_OK(cuda_kernel_get(device, "call", "cuda_test_add", 32, &kernel));
    cuda_device_drop(device);
    MUST_CU(app.primary_reset(0)); /* cudaDeviceReset */
    fixture_use(0);
    MUST_OK(cuda_device_current("call", &device));
    MUST_OK(cuda_kernel_get(device, "call", "cuda_test_add", 32, &kernel));
    MUST_OK(cuda_alloc(device, "call", 4096, &memory));
    MUST_OK(cuda_zero(device, "call", memory, 4096));
    cuda_free(device, memory);
    cuda_device_drop(device);
    MUST(app.calls("cuModuleLoadDataEx") == 2);
}
static void a_context_that_was_reset_is_another_one(void **state)
{
    (void)state;
    fixture_child(made_anew, four);
}

static void reset_under_us(void)
{
    struct cuda_device *device;
    uint64_t memory;
    fixture_open();
    fixture_use(0);
    MUST_OK(cuda_device_current("call", &device));
    MUST_OK(cuda_events_prepare(device, "call", 3));
    MUST_CU(app.primary_reset(0));
    MUST_SAY(cuda_alloc(device, "ncclCommInitRank", 4096, &memory), RAIL_E_CUDA,
             "ncclCommInitRank: entering device 0: CUDA_ERROR_INVALID_CONTEXT|cudaDeviceReset");
    MUST(memory == 0);
    cuda_device_drop(device);
    MUST(cuda_census().events == 0 && cuda_census().streams == 0);
    fixture_use(0);
    MUST_OK(cuda_device_current("call", &device)); /* the process goes on */
    MUST_OK(cuda_alloc(device, "call", 4096, &memory));
    cuda_free(device, memory);
    cuda_device_drop(device);
}
static void a_reset_while_it_is_used_is_said_and_survived(void **state)
{
    (void)state;
    fixture_child(reset_under_us, four);
}

/* ---- the caller's context ---- */

static void untouched(void)
{
    struct cuda_device *devices[3];
    struct cuda_scope outer, inner;
    uint64_t memory;
    fixture_open();
    for (int i = 0; i < 3; i++) {
        fixture_use(i);
        MUST_OK(cuda_device_current("call", &devices[i]));
    }
    cu_context mine = current();
    MUST_OK(cuda_alloc(devices[0], "call", 4096, &memory));
    MUST(current() == mine);
    MUST_OK(cuda_enter(devices[0], "call", &outer));
    MUST(current() == devices[0]->context);
    uint64_t pushes = app.calls("cuCtxPushCurrent_v2");
    MUST_OK(cuda_zero(devices[0], "call", memory, 4096));
    MUST(app.calls("cuCtxPushCurrent_v2") == pushes); /* already there */
    MUST_OK(cuda_enter(devices[1], "call", &inner));
    MUST(current() == devices[1]->context);
    MUST_OK(cuda_zero(devices[0], "call", memory, 4096)); /* and back to another one's */
    MUST(current() == devices[1]->context);
    cuda_leave(&inner);
    MUST(current() == devices[0]->context);
    cuda_leave(&outer);
    MUST(current() == mine);
    cuda_free(devices[0], memory);
    MUST(current() == mine);
    for (int i = 0; i < 3; i++) cuda_device_drop(devices[i]);
    MUST(current() == mine);
}
static void scopes_nest_and_leave_no_trace(void **state)
{
    (void)state;
    fixture_child(untouched, four);
}

static void in_a_fork(void)
{
    struct cuda_device *device;
    fixture_open();
    fixture_use(0);
    MUST_OK(cuda_device_current("call", &device));
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        uint64_t memory;
        struct cuda_device *mine;
        MUST_SAY(cuda_alloc(device, "ncclMemAlloc", 4096, &memory), RAIL_E_CUDA,
                 "ncclMemAlloc|CUDA_ERROR_NOT_INITIALIZED|forked after its parent used the GPU|spawn");
        MUST_SAY(cuda_device_current("ncclCommInitRank", &mine), RAIL_E_CUDA,
                 "ncclCommInitRank: process|used the GPU before it forked this one|CUDA_ERROR_NOT_INITIALIZED|spawn");
        _exit(0);
    }
    int status = -1;
    MUST(waitpid(child, &status, 0) == child && status == 0);
    cuda_device_drop(device);
}
/* Threads of the parent hold the layer's locks most of the time: a child that took one would wait for ever. */
static void *asks_on_and_on(void *stop)
{
    const struct cuda_driver *driver;
    while (!__atomic_load_n((int *)stop, __ATOMIC_ACQUIRE)) MUST_OK(cuda_driver_get("call", &driver));
    return NULL;
}
static void in_many_forks(void)
{
    pthread_t threads[4];
    int stop = 0;
    fixture_open();
    for (int i = 0; i < 4; i++) MUST(pthread_create(&threads[i], NULL, asks_on_and_on, &stop) == 0);
    struct cuda_device *device;
    MUST_OK(cuda_device_current("call", &device));
    for (int i = 0; i < 200; i++) {
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            alarm(10);
            struct cuda_device *mine;
            _exit(cuda_device_current("ncclCommInitRank", &mine) != RAIL_E_CUDA);
        }
        int status = -1;
        MUST(waitpid(child, &status, 0) == child && status == 0);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    cuda_device_drop(device);
}
static void a_child_forked_under_a_lock_does_not_wait_for_it(void **state)
{
    (void)state;
    fixture_child(in_many_forks, four);
}

static void a_forked_child_is_told_to_start_anew(void **state)
{
    (void)state;
    fixture_child(in_a_fork, four);
}

/* ---- threads ---- */

enum { THREADS = 8, TURNS = 200 };

static void *works(void *argument)
{
    int ordinal = (int)(uintptr_t)argument % 4;
    cu_context mine = fixture_use(ordinal);
    for (int i = 0; i < TURNS; i++) {
        struct cuda_device *device;
        const struct cuda_kernel *kernel;
        uint64_t memory, address, value = 0;
        void *host;
        MUST_OK(cuda_device_current("call", &device));
        MUST(device->ordinal == ordinal);
        MUST_OK(cuda_alloc(device, "call", 4096, &memory));
        MUST_OK(cuda_pinned_alloc(device, "call", 4096, &host, &address));
        MUST_OK(cuda_kernel_get(device, "call", "cuda_test_add", 32, &kernel));
        struct { uint64_t word, by, gate; } argument_ = {memory, 3, 0};
        MUST_OK(cuda_zero(device, "call", memory, 4096));
        MUST_OK(cuda_launch(device, "call", kernel, 5, 1, 0, CU_THREAD_STREAM, &argument_));
        MUST_OK(cuda_stream_wait(device, "call", CU_THREAD_STREAM));
        MUST_OK(cuda_copy(device, "call", (uintptr_t)&value, memory, 8));
        MUST(value == 15);
        cu_event event;
        MUST_OK(cuda_event_take(device, "call", &event));
        cuda_event_give(device, event);
        cuda_pinned_free(device, host);
        cuda_free(device, memory);
        cuda_device_drop(device);
        MUST(current() == mine);
    }
    return NULL;
}
static void many_threads(void)
{
    pthread_t threads[THREADS];
    fixture_open();
    for (int i = 0; i < THREADS; i++) MUST(pthread_create(&threads[i], NULL, works, (void *)(uintptr_t)i) == 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    struct cuda_census now = cuda_census();
    MUST(now.devices == 0 && now.allocations == 0 && now.pinned == 0);
}
static void threads_on_several_devices_do_not_meet(void **state)
{
    (void)state;
    fixture_child(many_threads, four);
}

int main(void)
{
    fixture_find();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_context_it_is_device_0s_primary_one),
        cmocka_unit_test(it_is_the_callers_current_one_and_described),
        cmocka_unit_test(contexts_of_one_device_are_two_devices),
        cmocka_unit_test(while_others_keep_the_context_the_kernel_stays_loaded),
        cmocka_unit_test(a_context_that_was_reset_is_another_one),
        cmocka_unit_test(a_reset_while_it_is_used_is_said_and_survived),
        cmocka_unit_test(scopes_nest_and_leave_no_trace),
        cmocka_unit_test(a_forked_child_is_told_to_start_anew),
        cmocka_unit_test(a_child_forked_under_a_lock_does_not_wait_for_it),
        cmocka_unit_test(threads_on_several_devices_do_not_meet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
