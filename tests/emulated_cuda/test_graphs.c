/* test_graphs.c - capture makes a graph of what streams were given, replay repeats it, and what a capture does not
 * allow breaks it. */
#include "emulated_cuda/fixture.h"

static CUgraphExec executable(CUgraph graph)
{
    CUgraphExec exec;
    must(cuGraphInstantiateWithFlags(&exec, graph, 0));
    must(cuGraphDestroy(graph));
    return exec;
}

static void a_captured_stream_is_replayed(void)
{
    struct client c = client_of(0);
    CUfunction add = kernel_of(&c, "kernel_add");
    struct add_argument a = {device_words(100), 100, 3};
    CUdeviceptr copy = device_words(100);
    CUstream s = stream_with(CU_STREAM_NON_BLOCKING);
    CUstreamCaptureStatus status;
    CUgraph graph;
    size_t n = 0;
    must(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
    launch_it(add, 2, s, &a);
    must(cuMemcpyDtoDAsync_v2(copy, a.to, 400, s));
    must(cuMemsetD32Async(copy + 4, 9, 1, s));
    must(cuStreamIsCapturing(s, &status));
    check(status == CU_STREAM_CAPTURE_STATUS_ACTIVE);
    must(cuStreamEndCapture(s, &graph));
    must(cuGraphGetNodes(graph, NULL, &n));
    check(n == 3);
    CUgraphNode nodes[3];
    int type;
    must(cuGraphGetNodes(graph, nodes, &n));
    must(cuGraphNodeGetType(nodes[0], &type));
    check(type == CU_GRAPH_NODE_TYPE_KERNEL);
    check(word_at(a.to) == 0); /* nothing has run */
    a.value = 1000;            /* arguments were copied */
    CUgraphExec exec = executable(graph);
    for (int i = 0; i < 1000; i++)
        must(cuGraphLaunch(exec, s));
    must(cuStreamSynchronize(s));
    check(word_at(copy) == 3000 && word_at(copy + 4) == 9 && word_at(copy + 396) == 3000);
    must(cuGraphExecDestroy(exec));
}

static int order[3];
static void first(void *data) { (void)data; order[0] = 1; }
static void second(void *data) { (void)data; order[1] = order[0] + 1; }
static void third(void *data) { (void)data; order[2] = order[1] + 1; }

static void events_fork_and_join_streams_of_a_capture(void)
{
    client_of(0);
    CUstream a = stream_with(CU_STREAM_NON_BLOCKING), b = stream_with(CU_STREAM_NON_BLOCKING);
    CUevent fork_event, join;
    CUgraph graph;
    must(cuEventCreate(&fork_event, CU_EVENT_DISABLE_TIMING));
    must(cuEventCreate(&join, CU_EVENT_DISABLE_TIMING));
    must(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_RELAXED));
    must(cuLaunchHostFunc(a, first, NULL));
    must(cuEventRecord(fork_event, a));
    must(cuStreamWaitEvent(b, fork_event, 0));
    must(cuLaunchHostFunc(b, second, NULL));
    must(cuEventRecord(join, b));
    gives(CUDA_ERROR_CAPTURED_EVENT, cuEventQuery(join));
    must(cuStreamWaitEvent(a, join, 0));
    must(cuLaunchHostFunc(a, third, NULL));
    must(cuStreamEndCapture(a, &graph));
    CUgraphExec exec = executable(graph);
    must(cuGraphLaunch(exec, a));
    must(cuStreamSynchronize(a));
    check(order[0] == 1 && order[1] == 2 && order[2] == 3);
}

static void a_fork_that_is_not_joined_is_an_error(void)
{
    client_of(0);
    CUstream a = stream_with(CU_STREAM_NON_BLOCKING), b = stream_with(CU_STREAM_NON_BLOCKING);
    CUevent e;
    CUgraph graph = (CUgraph)&graph;
    must(cuEventCreate(&e, 0));
    must(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_RELAXED));
    must(cuEventRecord(e, a));
    must(cuStreamWaitEvent(b, e, 0));
    must(cuLaunchHostFunc(b, first, NULL));
    gives(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, cuStreamEndCapture(a, &graph));
    check(graph == NULL);
    must(cuStreamQuery(a)); /* both can be used again */
    must(cuStreamQuery(b));
}

static void dependencies_can_be_read_and_set(void)
{
    client_of(0);
    CUstream s = stream_with(CU_STREAM_NON_BLOCKING);
    CUstreamCaptureStatus status;
    uint64_t id = 0;
    CUgraph graph, whole;
    CUgraphNode node;
    const CUgraphNode *tips;
    size_t n;
    must(cuStreamGetCaptureInfo_v2(s, &status, &id, &graph, &tips, &n));
    check(status == CU_STREAM_CAPTURE_STATUS_NONE && id == 0);
    must(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    must(cuLaunchHostFunc(s, second, NULL));
    must(cuStreamGetCaptureInfo_v2(s, &status, &id, &graph, &tips, &n));
    check(status == CU_STREAM_CAPTURE_STATUS_ACTIVE && id != 0 && n == 1);
    must(cuGraphAddEmptyNode(&node, graph, tips, n));
    must(cuStreamUpdateCaptureDependencies(s, &node, 1, CU_STREAM_SET_CAPTURE_DEPENDENCIES));
    const CUgraphEdgeData *edges;
    must(cuStreamGetCaptureInfo_v3(s, &status, NULL, NULL, &tips, &edges, &n));
    check(n == 1 && tips[0] == node && edges == NULL);
    must(cuStreamEndCapture(s, &whole));
    check(whole == graph);
}

static void calls_that_synchronise_break_a_capture(void)
{
    client_of(0);
    CUstream s = stream_with(CU_STREAM_NON_BLOCKING), other = stream_with(CU_STREAM_NON_BLOCKING);
    CUstreamCaptureStatus status;
    CUdeviceptr at;
    CUgraph graph;
    must(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
    must(cuStreamQuery(other)); /* what does not concern it is allowed */
    gives(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemAlloc_v2(&at, 4096));
    must(cuStreamIsCapturing(s, &status));
    check(status == CU_STREAM_CAPTURE_STATUS_INVALIDATED);
    gives(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuLaunchHostFunc(s, first, NULL));
    gives(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(s, &graph));
    must(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
    gives(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuStreamSynchronize(s));
    gives(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(s, &graph));
    gives(CUDA_ERROR_ILLEGAL_STATE, cuStreamEndCapture(s, &graph));
    must(cuMemAlloc_v2(&at, 4096));
}

static void a_relaxed_thread_may_synchronise(void)
{
    client_of(0);
    CUstream s = stream_with(CU_STREAM_NON_BLOCKING);
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    CUdeviceptr at;
    CUgraph graph;
    must(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
    must(cuThreadExchangeStreamCaptureMode(&mode));
    check(mode == CU_STREAM_CAPTURE_MODE_GLOBAL);
    must(cuMemAlloc_v2(&at, 4096));
    must(cuThreadExchangeStreamCaptureMode(&mode));
    check(mode == CU_STREAM_CAPTURE_MODE_RELAXED);
    must(cuStreamEndCapture(s, &graph));
}

static void the_legacy_stream_stays_out_of_captures(void)
{
    client_of(0);
    CUstream s = stream_with(0);
    CUgraph graph;
    CUevent outside;
    must(cuEventCreate(&outside, 0));
    must(cuEventRecord(outside, stream_with(CU_STREAM_NON_BLOCKING)));
    gives(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuStreamBeginCapture_v2(NULL, CU_STREAM_CAPTURE_MODE_RELAXED));
    must(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    gives(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, cuLaunchHostFunc(NULL, first, NULL));
    gives(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, cuStreamWaitEvent(s, outside, 0));
    gives(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(s, &graph));
}

static void two_captures_do_not_merge(void)
{
    client_of(0);
    CUstream a = stream_with(CU_STREAM_NON_BLOCKING), b = stream_with(CU_STREAM_NON_BLOCKING);
    CUevent e;
    CUgraph graph;
    must(cuEventCreate(&e, 0));
    must(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_RELAXED));
    must(cuStreamBeginCapture_v2(b, CU_STREAM_CAPTURE_MODE_RELAXED));
    must(cuEventRecord(e, a));
    gives(CUDA_ERROR_STREAM_CAPTURE_MERGE, cuStreamWaitEvent(b, e, 0));
    gives(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(a, &graph));
    gives(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(b, &graph));
}

static void launches_of_one_graph_do_not_overlap(void)
{
    struct client c = client_of(0);
    CUfunction meet = kernel_of(&c, "kernel_meet");
    uint32_t *gate = pinned_words(2);
    CUstream a = stream_with(CU_STREAM_NON_BLOCKING), b = stream_with(CU_STREAM_NON_BLOCKING);
    CUgraph graph;
    must(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_RELAXED));
    launch_gate(meet, a, gate);
    must(cuStreamEndCapture(a, &graph));
    CUgraphExec exec = executable(graph);
    must(cuGraphLaunch(exec, a));
    must(cuGraphLaunch(exec, b));
    gate_reached(gate);
    usleep(20000);
    gives(CUDA_ERROR_NOT_READY, cuStreamQuery(b));
    must(cuGraphExecDestroy(exec)); /* what runs of it still ends */
    open_gate(gate);
    must(cuStreamSynchronize(b));
}

static void gone(void *data)
{
    __atomic_add_fetch((int *)data, 1, __ATOMIC_ACQ_REL);
}

static bool becomes(int *n, int value)
{
    for (int i = 0; i < 2000 && __atomic_load_n(n, __ATOMIC_ACQUIRE) != value; i++)
        usleep(1000);
    return __atomic_load_n(n, __ATOMIC_ACQUIRE) == value;
}

static void user_objects_live_as_long_as_graphs(void)
{
    struct client c = client_of(0);
    CUfunction meet = kernel_of(&c, "kernel_meet");
    uint32_t *gate = pinned_words(2);
    CUstream s = stream_with(CU_STREAM_NON_BLOCKING);
    CUuserObject object;
    CUgraphExec exec;
    CUgraph graph;
    int n = 0;
    must(cuUserObjectCreate(&object, &n, gone, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
    must(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    launch_gate(meet, s, gate);
    must(cuStreamEndCapture(s, &graph));
    must(cuGraphRetainUserObject(graph, object, 1, CU_GRAPH_USER_OBJECT_MOVE));
    must(cuGraphInstantiateWithFlags(&exec, graph, 0));
    must(cuGraphDestroy(graph));
    must(cuGraphLaunch(exec, s));
    must(cuGraphExecDestroy(exec));
    usleep(50000);
    check(__atomic_load_n(&n, __ATOMIC_ACQUIRE) == 0); /* a launch is in flight */
    open_gate(gate);
    must(cuStreamSynchronize(s));
    check(becomes(&n, 1));
    must(cuUserObjectCreate(&object, &n, gone, 2, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
    must(cuGraphCreate(&graph, 0));
    must(cuGraphRetainUserObject(graph, object, 1, 0));
    must(cuUserObjectRelease(object, 2));
    usleep(10000);
    check(__atomic_load_n(&n, __ATOMIC_ACQUIRE) == 1);
    must(cuGraphDestroy(graph));
    check(becomes(&n, 2));
}

int main(void)
{
    static const struct test tests[] = {
        {"a captured stream is replayed", a_captured_stream_is_replayed, NULL, 0},
        {"events fork and join streams of a capture", events_fork_and_join_streams_of_a_capture, NULL, 0},
        {"a fork that is not joined is an error", a_fork_that_is_not_joined_is_an_error, NULL, 0},
        {"dependencies can be read and set", dependencies_can_be_read_and_set, NULL, 0},
        {"calls that synchronise break a capture", calls_that_synchronise_break_a_capture, NULL, 0},
        {"a relaxed thread may synchronise", a_relaxed_thread_may_synchronise, NULL, 0},
        {"the legacy stream stays out of captures", the_legacy_stream_stays_out_of_captures, NULL, 0},
        {"two captures do not merge", two_captures_do_not_merge, NULL, 0},
        {"launches of one graph do not overlap", launches_of_one_graph_do_not_overlap, NULL, 0},
        {"user objects live as long as graphs", user_objects_live_as_long_as_graphs, NULL, 0},
    };
    return run_cases("graphs", tests, sizeof tests / sizeof *tests);
}
