/* test_golden.c - the golden rule: calls that synchronise wait for kernels in flight, all others do not. */
#include "emulated_cuda/fixture.h"

#include <pthread.h>
#include <signal.h>

/* What the calls need: made before any kernel runs. */
struct scene {
    struct client client, peer;
    CUfunction meet, not_loaded;
    CUmodule second;
    CUdeviceptr memory;
    void *pinned, *registered, *pageable;
    uint32_t *gate, *host;
    CUstream stream, other;
    CUevent event;
    CUgraph graph;
    char path[512];
};

static struct scene scene_of(void)
{
    struct scene s = {.peer = client_of(1)};
    s.client = client_of(0);
    beside(s.path, "kernels/kernels.so");
    must(cuModuleLoad(&s.second, s.path));
    s.meet = kernel_of(&s.client, "kernel_meet");
    must(cuModuleGetFunction(&s.not_loaded, s.client.module, "kernel_fill"));
    s.memory = device_words(64);
    s.pinned = pinned_words(64);
    s.gate = pinned_words(2);
    s.host = pinned_words(64);
    s.registered = calloc(1, 4096);
    s.pageable = calloc(1, 4096);
    must(cuMemHostRegister_v2(s.registered, 4096, 0));
    s.stream = stream_with(CU_STREAM_NON_BLOCKING);
    s.other = stream_with(CU_STREAM_NON_BLOCKING);
    must(cuEventCreate(&s.event, 0));
    must(cuGraphCreate(&s.graph, 0));
    launch_gate(s.meet, s.stream, s.gate);
    gate_reached(s.gate);
    return s;
}

typedef CUresult (*doing)(struct scene *s);

static CUresult mem_alloc(struct scene *s) { return cuMemAlloc_v2(&s->memory, 4096); }
static CUresult mem_free(struct scene *s) { return cuMemFree_v2(s->memory); }
static CUresult managed(struct scene *s) { return cuMemAllocManaged(&s->memory, 4096, CU_MEM_ATTACH_GLOBAL); }
static CUresult host_alloc(struct scene *s) { return cuMemHostAlloc(&s->pinned, 4096, 0); }
static CUresult host_free(struct scene *s) { return cuMemFreeHost(s->pinned); }
static CUresult host_register(struct scene *s) { return cuMemHostRegister_v2(s->pageable, 4096, 0); }
static CUresult host_unregister(struct scene *s) { return cuMemHostUnregister(s->registered); }
static CUresult module_load(struct scene *s) { return cuModuleLoad(&s->second, s->path); }
static CUresult module_unload(struct scene *s) { return cuModuleUnload(s->second); }
static CUresult function_load(struct scene *s) { return cuFuncLoad(s->not_loaded); }
static CUresult enable_peer(struct scene *s) { return cuCtxEnablePeerAccess(s->peer.context, 0); }
static CUresult synchronize(struct scene *s) { (void)s; return cuCtxSynchronize(); }
static CUresult blocking_copy(struct scene *s) { return cuMemcpyDtoHAsync_v2(s->pageable, s->memory, 4, s->stream); }
static CUresult first_launch(struct scene *s)
{
    struct fill_argument a = {s->memory, 1, 1};
    void *p = &a;
    return cuLaunchKernel(s->not_loaded, 1, 1, 1, 1, 1, 1, 0, s->other, &p, NULL);
}

static const struct { const char *name; doing call; } waiting[] = {
    {"cuMemAlloc", mem_alloc}, {"cuMemFree", mem_free}, {"cuMemAllocManaged", managed}, {"cuMemHostAlloc", host_alloc},
    {"cuMemFreeHost", host_free}, {"cuMemHostRegister", host_register}, {"cuMemHostUnregister", host_unregister},
    {"cuModuleLoad", module_load}, {"cuModuleUnload", module_unload}, {"cuFuncLoad", function_load},
    {"cuCtxEnablePeerAccess", enable_peer}, {"cuCtxSynchronize", synchronize}, {"first launch", first_launch},
    {"copy to pageable memory", blocking_copy},
};

static CUresult event_record(struct scene *s) { return cuEventRecord(s->event, s->other); }
static CUresult stream_create(struct scene *s) { return cuStreamCreate(&s->other, 1); }
static CUresult stream_destroy(struct scene *s) { return cuStreamDestroy_v2(s->stream); }
static CUresult event_create(struct scene *s) { return cuEventCreate(&s->event, 0); }
static CUresult copy_pinned(struct scene *s) { return cuMemcpyDtoHAsync_v2(s->host, s->memory, 4, s->stream); }
static CUresult other_done(struct scene *s) { return cuStreamSynchronize(s->other); }
static CUresult launch_again(struct scene *s)
{
    launch_gate(s->meet, s->other, s->host);
    open_gate(s->host);
    return CUDA_SUCCESS;
}
static CUresult instantiate(struct scene *s)
{
    CUgraphExec exec;
    return cuGraphInstantiateWithFlags(&exec, s->graph, 0);
}

static const struct { const char *name; doing call; } free_calls[] = {
    {"cuEventRecord", event_record}, {"cuStreamCreate", stream_create}, {"cuStreamDestroy", stream_destroy},
    {"cuEventCreate", event_create}, {"copy to pinned memory", copy_pinned}, {"another stream", other_done},
    {"a loaded kernel", launch_again}, {"cuGraphInstantiate", instantiate},
};

static void *open_later(void *gate)
{
    usleep(20000);
    open_gate(gate);
    return NULL;
}

static void calls_that_synchronise_wait_for_kernels(void)
{
    struct scene s = scene_of();
    for (size_t i = 0; i < sizeof waiting / sizeof *waiting; i++) {
        pthread_t opener;
        if (i > 0) {
            open_gate(s.gate);
            must(cuCtxSynchronize());
            s = scene_of();
            if (waiting[i].call == enable_peer)
                cuCtxSetCurrent(s.client.context);
        }
        check(pthread_create(&opener, NULL, open_later, s.gate) == 0);
        CUresult result = waiting[i].call(&s);
        if (result != CUDA_SUCCESS || __atomic_load_n(&s.gate[1], __ATOMIC_ACQUIRE) == 0)
            fprintf(stderr, "%s gave %d and %s\n", waiting[i].name, result, s.gate[1] != 0 ? "waited" : "did not wait");
        check(result == CUDA_SUCCESS && __atomic_load_n(&s.gate[1], __ATOMIC_ACQUIRE) == 1);
        pthread_join(opener, NULL);
    }
}

static void all_other_calls_do_not_wait(void)
{
    for (size_t i = 0; i < sizeof free_calls / sizeof *free_calls; i++) {
        struct scene s = scene_of();
        must(free_calls[i].call(&s)); /* would hang */
        open_gate(s.gate);
        must(cuCtxSynchronize());
    }
}

static void nothing_is_waited_for_in_another_context(void)
{
    struct scene s = scene_of();
    must(cuCtxSetCurrent(s.peer.context));
    must(cuMemAlloc_v2(&s.memory, 4096));
    must(cuCtxSynchronize());
    open_gate(s.gate);
}

static void abort_names_the_call(void)
{
    struct scene s = scene_of();
    CUdeviceptr at;
    cuMemAlloc_v2(&at, 4096);
    open_gate(s.gate);
}

static void no_kernel_in_flight_no_abort(void)
{
    struct scene s = scene_of();
    open_gate(s.gate);
    must(cuStreamSynchronize(s.stream));
    must(cuMemAlloc_v2(&s.memory, 4096));
}

static void a_long_wait_is_announced(void)
{
    int ends[2];
    char text[512] = "";
    check(pipe(ends) == 0 && dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
    struct scene s = scene_of();
    pthread_t opener;
    check(pthread_create(&opener, NULL, open_later, s.gate) == 0);
    must(cuMemFree_v2(s.memory));
    check(read(ends[0], text, sizeof text - 1) > 0);
    check(strstr(text, "cuMemFree_v2 still waits for kernel kernel_meet (1 blocks, running) on device 0") != NULL);
    pthread_join(opener, NULL);
}

int main(void)
{
    static const struct test tests[] = {
        {"calls that synchronise wait for kernels", calls_that_synchronise_wait_for_kernels, NULL, 0},
        {"all other calls do not wait", all_other_calls_do_not_wait, NULL, 0},
        {"nothing is waited for in another context", nothing_is_waited_for_in_another_context, NULL, 0},
        {"abort names the call", abort_names_the_call, "EMULATED_CUDA_GOLDEN=abort", SIGABRT},
        {"no kernel in flight, no abort", no_kernel_in_flight_no_abort, "EMULATED_CUDA_GOLDEN=abort", 0},
        {"a long wait is announced", a_long_wait_is_announced, "EMULATED_CUDA_WATCH_MS=5", 0},
    };
    return run_cases("golden", tests, sizeof tests / sizeof *tests);
}
