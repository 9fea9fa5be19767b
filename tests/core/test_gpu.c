/* Ranks on GPUs, over the emulated driver (tests/emulated_cuda) or, with RAILCCL_TEST_GPU=1, the machine's own: calls are
 * enqueued and ordered by streams, captured and replayed; what cannot work is refused by name; failures reach every rank.
 * That results are right in every placement shows tests/conformance. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <nccl.h>
#include <railccl.h>

#include "base/clock.h"
#include "base/params.h"
#include "device/cuda/cuda.h"
#include "support/gpu.h"
#include "support/gpu_graphs.h"
#include "support/job.h"

enum { N = 4, COUNT = 5000 };

/* Ranks of one thread, one device each. */
struct gang {
    int n;
    ncclComm_t comm[N];
    cu_stream stream[N];
    float *in[N], *out[N];
};

static void on(int device)
{
    const char *why = "";
    if (!gpu_set(device, &why)) fail_msg("%s", why);
}

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        ncclResult_t result_ = (call);                                                                                 \
        if (result_ != ncclSuccess) fail_msg("%s: %s: %s", #call, ncclGetErrorString(result_), ncclGetLastError(NULL)); \
    } while (0)

/* When what was launched before has read it. */
static void fill(struct gang *g, int rank, float value)
{
    float host[COUNT];
    if (g->stream[rank]) gpu_wait(g->stream[rank]);
    for (int k = 0; k < COUNT; k++) host[k] = value + (float)(k % 16);
    gpu_copy_in(g->in[rank], host, sizeof host);
}

static void gang_open(struct gang *g, int n)
{
    *g = (struct gang){.n = n};
    OK(ncclCommInitAll(g->comm, n, NULL));
    for (int r = 0; r < n; r++) {
        on(r);
        g->stream[r] = gpu_stream();
        g->in[r] = gpu_alloc(COUNT * sizeof(float));
        g->out[r] = gpu_alloc(COUNT * sizeof(float));
        fill(g, r, (float)r);
    }
}

static void gang_close(struct gang *g)
{
    for (int r = 0; r < g->n; r++) {
        on(r);
        if (g->comm[r]) OK(ncclCommDestroy(g->comm[r]));
        gpu_stream_end(g->stream[r]);
        gpu_free(g->in[r]);
        gpu_free(g->out[r]);
    }
}

static void all_reduce(struct gang *g, int rank)
{
    on(rank);
    OK(ncclAllReduce(g->in[rank], g->out[rank], COUNT, ncclFloat32, ncclSum, g->comm[rank], g->stream[rank]));
}

/* The sum of `first` .. over all ranks at each. */
static void expect_sum(struct gang *g, float first)
{
    float host[COUNT];
    for (int r = 0; r < g->n; r++) {
        on(r);
        gpu_wait(g->stream[r]);
        gpu_copy_out(host, g->out[r], sizeof host);
        for (int k = 0; k < COUNT; k++) {
            float wanted = 0;
            for (int q = 0; q < g->n; q++) wanted += first + (float)q + (float)(k % 16);
            if (host[k] != wanted) fail_msg("rank %d, element %d: %g instead of %g", r, k, (double)host[k], (double)wanted);
        }
    }
}

static void a_call_returns_before_its_peers_have_come(void **state)
{
    (void)state;
    struct gang g;
    gang_open(&g, N);
    for (int r = 0; r < N; r++) {
        all_reduce(&g, r); /* the same thread makes the peers' calls: it would wait for ever */
        if (r == 0) assert_int_equal(gpu_driver()->stream_query(g.stream[0]), CU_E_NOT_READY);
    }
    expect_sum(&g, 0);
    gang_close(&g);
}

static void one_thread_calls_for_all_devices_whichever_is_current(void **state)
{
    (void)state;
    struct gang g;
    gang_open(&g, N);
    on(2);
    OK(ncclGroupStart());
    for (int r = 0; r < N; r++)
        OK(ncclAllReduce(g.in[r], g.out[r], COUNT, ncclFloat32, ncclSum, g.comm[r], g.stream[r]));
    OK(ncclGroupEnd());
    expect_sum(&g, 0);
    gang_close(&g);
}

static void calls_of_two_streams_keep_their_order(void **state)
{
    (void)state;
    struct gang g;
    gang_open(&g, 2);
    cu_stream other[2];
    for (int r = 0; r < 2; r++) {
        on(r);
        other[r] = gpu_stream();
        OK(ncclAllReduce(g.in[r], g.out[r], COUNT, ncclFloat32, ncclSum, g.comm[r], g.stream[r]));
        OK(ncclAllReduce(g.out[r], g.in[r], COUNT, ncclFloat32, ncclMax, g.comm[r], other[r]));
        OK(ncclAllReduce(g.in[r], g.out[r], COUNT, ncclFloat32, ncclSum, g.comm[r], g.stream[r]));
    }
    float host[COUNT];
    for (int r = 0; r < 2; r++) {
        on(r);
        gpu_wait(g.stream[r]);
        gpu_copy_out(host, g.out[r], sizeof host);
        for (int k = 0; k < COUNT; k++) assert_true(host[k] == 2 * (1 + 2 * (float)(k % 16)));
        gpu_stream_end(other[r]);
    }
    gang_close(&g);
}

static void a_group_waits_for_all_its_streams_and_they_for_it(void **state)
{
    (void)state;
    struct gang g;
    gang_open(&g, 2);
    OK(ncclGroupStart());
    cu_stream other[2];
    for (int r = 0; r < 2; r++) {
        on(r);
        other[r] = gpu_stream();
        OK(ncclAllReduce(g.in[r], g.out[r], COUNT, ncclFloat32, ncclSum, g.comm[r], g.stream[r]));
        OK(ncclSend(g.in[r], COUNT, ncclFloat32, 1 - r, g.comm[r], other[r]));
        OK(ncclRecv(g.in[r], 0, ncclFloat32, 1 - r, g.comm[r], other[r]));
        OK(ncclSend(g.in[r], 0, ncclFloat32, 1 - r, g.comm[r], other[r]));
    }
    ncclResult_t result = ncclGroupEnd(); /* receives of nothing meet sends of COUNT: named, on both ranks */
    (void)result;
    for (int r = 0; r < 2; r++) {
        ncclResult_t error = ncclInProgress;
        uint64_t until_ns = rail_now_ns() + 2 * RAIL_NS_PER_S;
        for (error = ncclSuccess; rail_now_ns() < until_ns && error == ncclSuccess; usleep(1000))
            OK(ncclCommGetAsyncError(g.comm[r], &error));
        assert_int_equal(error, ncclInvalidUsage);
        assert_non_null(strstr(ncclGetLastError(NULL), "send and receive do not match"));
        on(r);
        OK(ncclCommAbort(g.comm[r]));
        g.comm[r] = NULL;
        gpu_wait(other[r]);
        gpu_stream_end(other[r]);
    }
    gang_close(&g);
}

/* ---- graphs ---- */

static void a_captured_call_is_replayed_a_thousand_times(void **state)
{
    (void)state;
    struct gang g;
    cu_graph graph[2];
    graph_exec exec[2];
    float *theirs[2];
    graphs_find();
    gang_open(&g, 2);
    for (int r = 0; r < 2; r++) {
        on(r);
        theirs[r] = gpu_alloc(COUNT * sizeof(float));
        assert_int_equal(graphs.begin(g.stream[r], CU_CAPTURE_MODE_RELAXED), CU_SUCCESS);
        all_reduce(&g, r);
        OK(ncclGroupStart());
        OK(ncclSend(g.out[r], COUNT, ncclFloat32, 1 - r, g.comm[r], g.stream[r]));
        OK(ncclRecv(g.out[r], 0, ncclFloat32, r, g.comm[r], g.stream[r]));
        OK(ncclSend(g.out[r], 0, ncclFloat32, r, g.comm[r], g.stream[r]));
        OK(ncclRecv(theirs[r], COUNT, ncclFloat32, 1 - r, g.comm[r], g.stream[r]));
        OK(ncclGroupEnd());
        assert_int_equal(graphs.end(g.stream[r], &graph[r]), CU_SUCCESS);
        assert_int_equal(graphs.make(&exec[r], graph[r], 0), CU_SUCCESS);
        assert_int_equal(graphs.destroy(graph[r]), CU_SUCCESS);
    }
    for (int i = 0; i < 1000; i++) {
        for (int r = 0; r < 2; r++) {
            on(r);
            if (i % 100 == 0) fill(&g, r, (float)(r + i));
            assert_int_equal(graphs.launch(exec[r], g.stream[r]), CU_SUCCESS);
            if (i == 500) all_reduce(&g, r); /* eager ones in between */
        }
        if (i % 100 == 0) expect_sum(&g, (float)i);
    }
    expect_sum(&g, 900);
    for (int r = 0; r < 2; r++) {
        on(r);
        assert_int_equal(graphs.exec_destroy(exec[r]), CU_SUCCESS);
        float mine[COUNT], other[COUNT];
        gpu_copy_out(mine, g.out[r], sizeof mine);
        gpu_copy_out(other, theirs[r], sizeof other);
        assert_memory_equal(mine, other, sizeof mine);
        gpu_free(theirs[r]);
    }
    gang_close(&g);
}

/* ---- failures ---- */

static void what_a_replay_finds_wrong_is_told(void **state)
{
    (void)state;
    struct gang g;
    cu_graph graph[2];
    graph_exec exec[2];
    graphs_find();
    gang_open(&g, 2);
    for (int r = 0; r < 2; r++) {
        on(r);
        assert_int_equal(graphs.begin(g.stream[r], CU_CAPTURE_MODE_RELAXED), CU_SUCCESS);
        OK(ncclAllReduce(g.in[r], g.out[r], COUNT - r, ncclFloat32, ncclSum, g.comm[r], g.stream[r]));
        assert_int_equal(graphs.end(g.stream[r], &graph[r]), CU_SUCCESS);
        assert_int_equal(graphs.make(&exec[r], graph[r], 0), CU_SUCCESS);
        assert_int_equal(graphs.destroy(graph[r]), CU_SUCCESS);
    }
    usleep(1500000); /* nobody looks any more: neither who compares calls for a while after each (core/notes.h) */
    for (int r = 0; r < 2; r++) {
        on(r);
        assert_int_equal(graphs.launch(exec[r], g.stream[r]), CU_SUCCESS);
    }
    for (int r = 0; r < 2; r++) {
        ncclResult_t error = ncclSuccess;
        uint64_t until_ns = rail_now_ns() + RAIL_NS_PER_S;
        for (; rail_now_ns() < until_ns && error == ncclSuccess; usleep(1000)) OK(ncclCommGetAsyncError(g.comm[r], &error));
        assert_int_equal(error, ncclInvalidUsage);
        assert_non_null(strstr(ncclGetLastError(NULL), "ranks called different things"));
        on(r);
        gpu_wait(g.stream[r]);
        assert_int_equal(graphs.exec_destroy(exec[r]), CU_SUCCESS);
        OK(ncclCommAbort(g.comm[r]));
        g.comm[r] = NULL;
    }
    gang_close(&g);
}

static void an_abort_stops_a_running_kernel(void **state)
{
    (void)state;
    struct gang g;
    gang_open(&g, 2);
    all_reduce(&g, 0); /* rank 1 never calls */
    usleep(20000);
    uint64_t began_ns = rail_now_ns();
    OK(ncclCommAbort(g.comm[0]));
    on(0);
    gpu_wait(g.stream[0]);
    uint64_t took_ms = (rail_now_ns() - began_ns) / RAIL_NS_PER_MS;
    if (took_ms > 100) fail_msg("abort, and the kernel's end, took %llu ms", (unsigned long long)took_ms);
    OK(ncclCommAbort(g.comm[1]));
    g.comm[0] = g.comm[1] = NULL;
    gang_close(&g);
}

static void ranks_that_call_different_things_are_told(void **state)
{
    (void)state;
    struct gang g;
    gang_open(&g, 2);
    all_reduce(&g, 0);
    on(1);
    OK(ncclAllReduce(g.in[1], g.out[1], COUNT - 1, ncclFloat32, ncclSum, g.comm[1], g.stream[1]));
    for (int r = 0; r < 2; r++) {
        ncclResult_t error = ncclSuccess;
        uint64_t until_ns = rail_now_ns() + RAIL_NS_PER_S;
        while (rail_now_ns() < until_ns && error == ncclSuccess) {
            OK(ncclCommGetAsyncError(g.comm[r], &error));
            usleep(1000);
        }
        assert_int_equal(error, ncclInvalidUsage);
        assert_non_null(strstr(ncclGetLastError(NULL), "ranks called different things"));
        assert_non_null(strstr(ncclGetLastError(NULL), "5000"));
        assert_non_null(strstr(ncclGetLastError(NULL), "4999"));
        on(r);
        OK(ncclCommAbort(g.comm[r]));
        g.comm[r] = NULL;
        gpu_wait(g.stream[r]); /* the kernel gave up */
    }
    gang_close(&g);
}

static void dies_in_the_middle(struct job_rank *rank)
{
    const char *why;
    JOB_EXPECT(gpu_set(rank->rank, &why), "%s", why);
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    float *at = gpu_alloc(4096);
    cu_stream stream = gpu_stream();
    JOB_TRY(ncclAllReduce(at, at, 100, ncclFloat32, ncclSum, rank->comm, stream));
    gpu_wait(stream);
    if (rank->rank == 1) kill(getpid(), SIGKILL);
    JOB_TRY(ncclAllReduce(at, at, 100, ncclFloat32, ncclSum, rank->comm, stream));
    ncclResult_t error = ncclSuccess;
    uint64_t until_ns = rail_now_ns() + 5 * RAIL_NS_PER_S;
    while (error == ncclSuccess && rail_now_ns() < until_ns) {
        JOB_TRY(ncclCommGetAsyncError(rank->comm, &error));
        usleep(1000);
    }
    JOB_EXPECT(error == ncclRemoteError, "after the death of rank 1: %s", ncclGetErrorString(error));
    JOB_EXPECT(strstr(ncclGetLastError(NULL), "rank 1"), "the error names nobody: %s", ncclGetLastError(NULL));
    gpu_wait(stream); /* the kernel has given up */
    JOB_TRY(ncclCommAbort(rank->comm));
}

static void survivors_of_a_death_are_told_and_their_kernels_end(void **state)
{
    (void)state;
    struct job job = {.n_ranks = 3, .ranks_per_process = 1, .bare = true, .may_die = true, .env = gpu_environment(3, NULL)};
    job_must(&job, dies_in_the_middle, NULL);
    job.n_hosts = 3;
    job_must(&job, dies_in_the_middle, NULL);
}

/* ---- several communicators ---- */

static void communicators_on_one_device_do_not_wait_for_one_another(void **state)
{
    (void)state;
    struct gang a, b;
    gang_open(&a, 2);
    gang_open(&b, 2);
    all_reduce(&a, 0);
    all_reduce(&b, 1); /* crossed: b's rank 1 before a's */
    all_reduce(&b, 0);
    all_reduce(&a, 1);
    expect_sum(&a, 0);
    expect_sum(&b, 0);
    gang_close(&b);
    gang_close(&a);
}

static void a_communicator_goes_while_another_waits_for_a_later_call(void **state)
{
    (void)state;
    struct gang a, b;
    gang_open(&a, 2);
    gang_open(&b, 2);
    all_reduce(&a, 0); /* its kernel waits for rank 1 */
    for (int r = 0; r < 2; r++) { /* nothing of that may synchronise; the program's own cuMemFree would */
        OK(ncclCommDestroy(b.comm[r]));
        b.comm[r] = NULL;
    }
    all_reduce(&a, 1);
    expect_sum(&a, 0);
    gang_close(&b);
    gang_close(&a);
}

static void a_rank_that_goes_leaves_what_its_peers_have_yet_to_read(void **state)
{
    (void)state;
    struct gang g;
    float host[COUNT];
    gang_open(&g, 2);
    on(0);
    OK(ncclBroadcast(g.in[0], g.out[0], COUNT, ncclFloat32, 0, g.comm[0], g.stream[0]));
    gpu_wait(g.stream[0]);
    OK(ncclCommDestroy(g.comm[0]));
    g.comm[0] = NULL;
    on(1);
    OK(ncclBroadcast(g.in[1], g.out[1], COUNT, ncclFloat32, 0, g.comm[1], g.stream[1]));
    gpu_wait(g.stream[1]);
    gpu_copy_out(host, g.out[1], sizeof host);
    for (int k = 0; k < COUNT; k++) assert_true(host[k] == (float)(k % 16));
    gang_close(&g);
}

static void ranks_that_share_a_stream_run_side_by_side_in_a_group(void **state)
{
    (void)state;
    struct gang g = {.n = 2};
    int same[2] = {0, 0};
    on(0);
    cu_stream stream = gpu_stream();
    OK(ncclCommInitAll(g.comm, 2, same));
    for (int r = 0; r < 2; r++) {
        g.in[r] = gpu_alloc(COUNT * sizeof(float));
        g.out[r] = gpu_alloc(COUNT * sizeof(float));
        fill(&g, r, (float)r);
        g.stream[r] = stream;
    }
    OK(ncclGroupStart());
    for (int r = 0; r < 2; r++) OK(ncclAllReduce(g.in[r], g.out[r], COUNT, ncclFloat32, ncclSum, g.comm[r], stream));
    OK(ncclGroupEnd());
    float host[COUNT];
    gpu_wait(stream);
    for (int r = 0; r < 2; r++) {
        gpu_copy_out(host, g.out[r], sizeof host);
        for (int k = 0; k < COUNT; k++) assert_true(host[k] == 1 + 2 * (float)(k % 16));
        OK(ncclCommDestroy(g.comm[r]));
        gpu_free(g.in[r]);
        gpu_free(g.out[r]);
    }
    gpu_stream_end(stream);
}

/* ---- operators and memory ---- */

static void a_scalar_in_device_memory_is_read_when_the_call_runs(void **state)
{
    (void)state;
    struct gang g;
    float *scalar[2], three = 3, host[COUNT];
    ncclRedOp_t op[2];
    gang_open(&g, 2);
    for (int r = 0; r < 2; r++) {
        on(r);
        scalar[r] = gpu_alloc(sizeof(float));
        OK(ncclRedOpCreatePreMulSum(&op[r], scalar[r], ncclFloat32, ncclScalarDevice, g.comm[r]));
        gpu_copy_in(scalar[r], &three, sizeof three);
        OK(ncclAllReduce(g.in[r], g.out[r], COUNT, ncclFloat32, op[r], g.comm[r], g.stream[r]));
    }
    for (int r = 0; r < 2; r++) {
        on(r);
        gpu_wait(g.stream[r]);
        gpu_copy_out(host, g.out[r], sizeof host);
        for (int k = 0; k < COUNT; k++) assert_true(host[k] == 3 * (1 + 2 * (float)(k % 16)));
        OK(ncclRedOpDestroy(op[r], g.comm[r]));
        gpu_free(scalar[r]);
    }
    gang_close(&g);
}

static void memory_of_ncclMemAlloc_is_the_devices(void **state)
{
    (void)state;
    struct gang g;
    void *at[2];
    gang_open(&g, 2);
    for (int r = 0; r < 2; r++) {
        on(r);
        OK(ncclMemAlloc(&at[r], 1 << 20));
        gpu_free(g.in[r]);
        g.in[r] = at[r];
        fill(&g, r, (float)r);
    }
    all_reduce(&g, 0);
    all_reduce(&g, 1);
    expect_sum(&g, 0);
    for (int r = 0; r < 2; r++) {
        on(r);
        OK(ncclMemFree(at[r]));
        g.in[r] = gpu_alloc(4);
    }
    assert_int_equal(ncclMemFree((char *)at[0] + 64), ncclInvalidArgument);
    gang_close(&g);
}

static void one_rank_copies_and_scales(void **state)
{
    (void)state;
    struct gang g;
    float host[COUNT];
    gang_open(&g, 1);
    OK(ncclAllReduce(g.in[0], g.out[0], COUNT, ncclFloat32, ncclAvg, g.comm[0], g.stream[0]));
    gpu_wait(g.stream[0]);
    gpu_copy_out(host, g.out[0], sizeof host);
    for (int k = 0; k < COUNT; k++) assert_true(host[k] == (float)(k % 16));
    gang_close(&g);
}

/* ---- bad input ---- */

static void expect_refused(ncclResult_t result, ncclResult_t wanted, const char *words)
{
    if (result != wanted || !strstr(ncclGetLastError(NULL), words))
        fail_msg("%s: %s; wanted %s and \"%s\"", ncclGetErrorString(result), ncclGetLastError(NULL), ncclGetErrorString(wanted),
                 words);
}

static void what_the_device_cannot_reach_is_refused_by_name(void **state)
{
    (void)state;
    struct gang g;
    float *host = malloc(COUNT * sizeof *host);
    gang_open(&g, 2);
    on(0);
    expect_refused(ncclAllReduce(host, g.out[0], COUNT, ncclFloat32, ncclSum, g.comm[0], g.stream[0]), ncclInvalidArgument,
                   "sendbuff");
    expect_refused(ncclAllReduce(g.in[0], host, COUNT, ncclFloat32, ncclSum, g.comm[0], g.stream[0]), ncclInvalidArgument,
                   "recvbuff");
    expect_refused(ncclSend(host, COUNT, ncclFloat32, 1, g.comm[0], g.stream[0]), ncclInvalidArgument, "sendbuff");
    expect_refused(ncclAllReduce(g.in[0], g.out[0], COUNT, ncclFloat32, ncclSum, g.comm[0], g.stream[1]), ncclInvalidArgument,
                   "stream");
    all_reduce(&g, 0); /* the communicator works on */
    all_reduce(&g, 1);
    expect_sum(&g, 0);
    free(host);
    gang_close(&g);
}

/* Each call of the driver that init makes fails once, in turn. */
static void whatever_the_driver_refuses_is_said_and_the_process_goes_on(void **state)
{
    (void)state;
    static const char *const calls[] = {"cuMemAlloc_v2", "cuMemHostAlloc", "cuMemHostRegister_v2", "cuMemHostGetDevicePointer_v2",
                                        "cuStreamCreateWithPriority", "cuEventCreate", "cuMemcpyAsync", "cuMemsetD8Async",
                                        "cuStreamSynchronize", "cuCtxPushCurrent_v2", "cuFuncGetAttribute"};
    void (*order)(const char *, unsigned, int);
    ncclComm_t comm[2];
    int refused = 0;
    if (getenv("RAILCCL_TEST_GPU")) skip(); /* a real driver fails when it likes */
    gpu_driver();
    *(void **)&order = dlsym(dlopen(rail_param_str(RAIL_PARAM_CUDA_LIBRARY), RTLD_NOW), "emulated_cuda_fail");
    assert_non_null(order);
    OK(ncclCommInitAll(comm, 2, NULL)); /* what stays for the life of the process is there */
    for (int r = 0; r < 2; r++) OK(ncclCommDestroy(comm[r]));
    struct cuda_census before = cuda_census();
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++)
        for (int nth = 1; nth <= 7; nth++) {
            order(calls[c], (unsigned)nth, CU_E_OUT_OF_MEMORY);
            ncclResult_t result = ncclCommInitAll(comm, 2, NULL);
            order(calls[c], 0, 0);
            if (result != ncclSuccess) {
                refused++;
                if (result != ncclUnhandledCudaError || !strstr(ncclGetLastError(NULL), "OUT_OF_MEMORY"))
                    fail_msg("%s, the %dth: %s: %s", calls[c], nth, ncclGetErrorString(result), ncclGetLastError(NULL));
                OK(ncclCommInitAll(comm, 2, NULL));
            }
            for (int r = 0; r < 2; r++) OK(ncclCommDestroy(comm[r]));
            struct cuda_census after = cuda_census();
            if (memcmp(&before, &after, sizeof after) != 0)
                fail_msg("%s, the %dth: left %ld allocations, %ld pinned, %ld registered, %ld streams, %ld events", calls[c], nth,
                         after.allocations - before.allocations, after.pinned - before.pinned,
                         after.registered - before.registered, after.streams - before.streams, after.events - before.events);
        }
    assert_true(refused > 20);
}

static void a_thread_may_ask_for_host_memory(void **state)
{
    (void)state;
    float one = 1, sum = 0;
    ncclComm_t comm;
    int alone = 0;
    OK(railUseHostMemory(1));
    OK(ncclCommInitAll(&comm, 1, &alone));
    OK(ncclAllReduce(&one, &sum, 1, ncclFloat32, ncclSum, comm, NULL));
    assert_true(sum == 1);
    OK(railUseHostMemory(0));
    OK(ncclCommDestroy(comm));
}

static void split_and_shrink_stay_on_the_device(void **state)
{
    (void)state;
    struct gang g, half;
    int device;
    gang_open(&g, 2);
    half = g;
    OK(ncclGroupStart());
    for (int r = 0; r < 2; r++) OK(ncclCommSplit(g.comm[r], 0, 1 - r, &half.comm[1 - r], NULL)); /* turned round */
    OK(ncclGroupEnd());
    for (int r = 0; r < 2; r++) {
        OK(ncclCommCuDevice(half.comm[r], &device));
        assert_int_equal(device, 1 - r);
        on(1 - r);
        OK(ncclAllReduce(g.in[1 - r], g.out[1 - r], COUNT, ncclFloat32, ncclSum, half.comm[r], g.stream[1 - r]));
    }
    expect_sum(&g, 0);
    for (int r = 0; r < 2; r++) OK(ncclCommDestroy(half.comm[r]));
    gang_close(&g);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(survivors_of_a_death_are_told_and_their_kernels_end), /* first: it forks */
        cmocka_unit_test(one_rank_copies_and_scales),
        cmocka_unit_test(a_call_returns_before_its_peers_have_come),
        cmocka_unit_test(one_thread_calls_for_all_devices_whichever_is_current),
        cmocka_unit_test(calls_of_two_streams_keep_their_order),
        cmocka_unit_test(a_group_waits_for_all_its_streams_and_they_for_it),
        cmocka_unit_test(a_captured_call_is_replayed_a_thousand_times),
        cmocka_unit_test(what_a_replay_finds_wrong_is_told),
        cmocka_unit_test(an_abort_stops_a_running_kernel),
        cmocka_unit_test(ranks_that_call_different_things_are_told),
        cmocka_unit_test(communicators_on_one_device_do_not_wait_for_one_another),
        cmocka_unit_test(a_communicator_goes_while_another_waits_for_a_later_call),
        cmocka_unit_test(a_rank_that_goes_leaves_what_its_peers_have_yet_to_read),
        cmocka_unit_test(ranks_that_share_a_stream_run_side_by_side_in_a_group),
        cmocka_unit_test(a_scalar_in_device_memory_is_read_when_the_call_runs),
        cmocka_unit_test(memory_of_ncclMemAlloc_is_the_devices),
        cmocka_unit_test(what_the_device_cannot_reach_is_refused_by_name),
        cmocka_unit_test(whatever_the_driver_refuses_is_said_and_the_process_goes_on),
        cmocka_unit_test(a_thread_may_ask_for_host_memory),
        cmocka_unit_test(split_and_shrink_stay_on_the_device),
    };
    gpu_expect(N);
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
