/* Puts, signals and waits of ranks on GPUs: in the order of streams, into memory of the same process and of others; who waits in
 * vain is told or let go; what cannot work is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <nccl.h>
#include <railccl.h>

#include "base/params.h"
#include "device/cuda/cuda.h"
#include "support/gpu_own.h"
#include "support/trouble.h"

enum { COUNT = GPU_OWN_COUNT };

static ncclResult_t wait_for(struct job_rank *rank, struct gpu_own *own, int peer, int signal)
{
    ncclWaitSignalDesc_t d = {.opCnt = 1, .peer = peer, .sigIdx = signal, .ctx = 0};
    return ncclWaitSignal(1, &d, rank->comm, own->stream);
}

/* Everything of a turn is enqueued at once: the window is read when its content is there, and overwritten when it was read. */
static void ring(struct job_rank *rank)
{
    struct gpu_own own;
    ncclWindow_t window;
    int n = rank->n_ranks, next = (rank->rank + 1) % n, before = (rank->rank + n - 1) % n;
    size_t half = COUNT / 2 * sizeof(float);
    if (!gpu_own_begin(rank, &own)) return;
    JOB_TRY(ncclCommWindowRegister(rank->comm, own.out, COUNT * sizeof(float), &window, NCCL_WIN_COLL_SYMMETRIC));
    for (int turn = 0; turn < 20; turn++) {
        for (int k = 0; k < COUNT; k++) own.host[k] = (float)(rank->rank + turn) + (float)(k % 32);
        gpu_copy_in(own.in, own.host, COUNT * sizeof(float));
        JOB_TRY(ncclPutSignal(own.in, COUNT / 2, ncclFloat32, next, window, 0, 0, 0, 0, rank->comm, own.stream));
        JOB_TRY(ncclPutSignal(own.in + COUNT / 2, COUNT / 2, ncclFloat32, next, window, half, 0, 0, 0, rank->comm, own.stream));
        JOB_TRY(wait_for(rank, &own, before, 0));
        JOB_TRY(wait_for(rank, &own, before, 0));
        if (!gpu_own_holds(rank, &own, own.out, (float)(before + turn), 1)) return;
        JOB_TRY(ncclSignal(before, 1, 0, 0, rank->comm, own.stream));
        JOB_TRY(wait_for(rank, &own, next, 1));
    }
    JOB_TRY(ncclCommWindowDeregister(rank->comm, window));
    JOB_TRY(ncclAllReduce(own.in, own.in, COUNT, ncclFloat32, ncclSum, rank->comm, own.stream));
    gpu_wait(own.stream);
    gpu_own_end(rank, &own);
}

static void everybody_puts_to_the_next_in_stream_order(void **state)
{
    (void)state;
    static const struct job jobs[] = {
        {.n_ranks = 1, .ranks_per_process = 1}, {.n_ranks = 2, .ranks_per_process = 1}, {.n_ranks = 2, .ranks_per_process = 2},
        {.n_ranks = 4, .ranks_per_process = 2},
    };
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        struct job job = jobs[i];
        job.bare = true;
        job.env = gpu_environment(4, NULL);
        job_must(&job, ring, NULL);
    }
}

/* The wait was called first, and in one group with the put that the other waits for. */
static void grouped(struct job_rank *rank)
{
    struct gpu_own own;
    ncclWindow_t window;
    int other = 1 - rank->rank;
    if (!gpu_own_begin(rank, &own)) return;
    for (int k = 0; k < COUNT; k++) own.host[k] = (float)rank->rank + (float)(k % 32);
    gpu_copy_in(own.in, own.host, COUNT * sizeof(float));
    JOB_TRY(ncclCommWindowRegister(rank->comm, own.out, COUNT * sizeof(float), &window, 0));
    JOB_TRY(ncclGroupStart());
    JOB_TRY(wait_for(rank, &own, other, 3));
    JOB_TRY(ncclPutSignal(own.in, COUNT, ncclFloat32, other, window, 0, 3, 0, 0, rank->comm, own.stream));
    JOB_TRY(ncclAllReduce(own.in, own.in, 1, ncclFloat32, ncclMax, rank->comm, own.stream));
    JOB_TRY(ncclGroupEnd());
    gpu_wait(own.stream);
    gpu_copy_out(own.host, own.out, COUNT * sizeof(float));
    JOB_EXPECT(own.host[100] == (float)other + 4, "element 100 is %g", (double)own.host[100]);
    JOB_TRY(ncclCommWindowDeregister(rank->comm, window));
    gpu_own_end(rank, &own);
}

static void a_group_waits_after_it_has_put(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1, .bare = true, .env = gpu_environment(2, NULL)}, grouped, NULL);
}

/* The first put's stream waits for a signal, the second's is free: to one place of one peer they come as they were called. */
static void two_streams(struct job_rank *rank)
{
    struct gpu_own own;
    ncclWindow_t window;
    if (!gpu_own_begin(rank, &own)) return;
    cu_stream second = gpu_stream();
    for (int k = 0; k < COUNT; k++) own.host[k] = (float)k;
    gpu_copy_in(own.in, own.host, COUNT * sizeof(float));
    JOB_TRY(ncclCommWindowRegister(rank->comm, own.out, COUNT * sizeof(float), &window, 0));
    if (rank->rank == 0) {
        JOB_TRY(wait_for(rank, &own, 1, 5));
        JOB_TRY(ncclPutSignal(own.in + 100, 100, ncclFloat32, 1, window, 0, 0, 0, 0, rank->comm, own.stream));
        JOB_TRY(ncclPutSignal(own.in + 200, 100, ncclFloat32, 1, window, 0, 0, 0, 0, rank->comm, second));
        gpu_wait(second);
    } else {
        trouble_sleep_s(0.05);
        JOB_TRY(ncclSignal(0, 5, 0, 0, rank->comm, own.stream));
        JOB_TRY(wait_for(rank, &own, 0, 0));
        JOB_TRY(wait_for(rank, &own, 0, 0));
        gpu_wait(own.stream);
        gpu_copy_out(own.host, own.out, sizeof(float));
        JOB_EXPECT(own.host[0] == 200, "the first put came last: %g", (double)own.host[0]);
    }
    JOB_TRY(ncclCommWindowDeregister(rank->comm, window));
    gpu_stream_end(second);
    gpu_own_end(rank, &own);
}

static void puts_of_two_streams_to_one_peer_keep_their_order(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1, .bare = true, .env = gpu_environment(2, NULL)}, two_streams, NULL);
}

/* ---- in vain ---- */

static void aborted(struct job_rank *rank)
{
    struct gpu_own own;
    if (!gpu_own_begin(rank, &own)) return;
    if (rank->rank == 0) {
        JOB_TRY(wait_for(rank, &own, 1, 0));
        trouble_sleep_s(0.02);
        double began = trouble_now_s();
        JOB_TRY(ncclCommAbort(rank->comm));
        gpu_wait(own.stream);
        JOB_EXPECT(trouble_now_s() - began < 0.5, "the stream went on after %g s", trouble_now_s() - began);
    } else {
        trouble_sleep_s(0.1);
        JOB_TRY(ncclCommAbort(rank->comm));
    }
    rank->comm = NULL;
    gpu_own_end(rank, &own);
}

static void an_abort_lets_a_waiting_stream_go(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1, .bare = true, .env = gpu_environment(2, NULL)}, aborted, NULL);
}

static void forsaken(struct job_rank *rank)
{
    struct gpu_own own;
    ncclResult_t error = ncclSuccess;
    if (!gpu_own_begin(rank, &own)) return;
    if (rank->rank == 0) {
        JOB_TRY(wait_for(rank, &own, 1, 0));
        for (int i = 0; i < 10000 && error == ncclSuccess; i++, trouble_sleep_s(0.001))
            JOB_TRY(ncclCommGetAsyncError(rank->comm, &error));
        if (!trouble_says(rank, "wait", error, ncclRemoteError, "ncclWaitSignal|rank 1 closed|sigIdx 0")) return;
        gpu_wait(own.stream);
        JOB_TRY(ncclCommAbort(rank->comm));
        rank->comm = NULL;
    }
    gpu_own_end(rank, &own);
}

static void waiting_for_a_rank_that_has_closed_ends_with_its_name(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1, .bare = true, .env = gpu_environment(2, NULL)}, forsaken, NULL);
}

/* ---- refused ---- */

static void afar(struct job_rank *rank)
{
    struct gpu_own own;
    ncclWindow_t window;
    int other = 1 - rank->rank;
    if (!gpu_own_begin(rank, &own)) return;
    JOB_TRY(ncclCommWindowRegister(rank->comm, own.out, 100, &window, 0));
    if (!trouble_says(rank, "put", ncclPutSignal(own.in, 1, ncclFloat32, other, window, 0, 0, 0, 0, rank->comm, own.stream),
                      ncclInvalidUsage, "ncclPutSignal|another host") ||
        !trouble_says(rank, "signal", ncclSignal(other, 0, 0, 0, rank->comm, own.stream), ncclInvalidUsage,
                      "ncclSignal|another host") ||
        !trouble_says(rank, "wait", wait_for(rank, &own, other, 0), ncclInvalidUsage, "ncclWaitSignal|another host"))
        return;
    JOB_TRY(ncclCommWindowDeregister(rank->comm, window));
    JOB_TRY(ncclAllReduce(own.in, own.in, COUNT, ncclFloat32, ncclSum, rank->comm, own.stream));
    gpu_wait(own.stream);
    gpu_own_end(rank, &own);
}

/* A stream is captured as it is named; nothing has happened to the communicator. */
static void captured(struct job_rank *rank)
{
    struct gpu_own own;
    cu_graph graph;
    cu_result (*capture)(cu_stream, int), (*finish)(cu_stream, cu_graph *), (*free_graph)(cu_graph);
    if (!gpu_own_begin(rank, &own)) return;
    const char *file = rail_param_str(RAIL_PARAM_CUDA_LIBRARY);
    void *driver = dlopen(*file ? file : "libcuda.so.1", RTLD_NOW);
    *(void **)&capture = dlsym(driver, "cuStreamBeginCapture_v2");
    *(void **)&finish = dlsym(driver, "cuStreamEndCapture");
    *(void **)&free_graph = dlsym(driver, "cuGraphDestroy");
    JOB_EXPECT(capture(own.stream, CU_CAPTURE_MODE_RELAXED) == CU_SUCCESS, "no capture");
    if (!trouble_says(rank, "signal", ncclSignal(0, 0, 0, 0, rank->comm, own.stream), ncclInvalidUsage, "ncclSignal|captured"))
        return;
    JOB_EXPECT(finish(own.stream, &graph) == CU_SUCCESS, "the capture is broken");
    free_graph(graph);
    JOB_TRY(ncclSignal(0, 0, 0, 0, rank->comm, own.stream));
    JOB_TRY(wait_for(rank, &own, 0, 0));
    gpu_wait(own.stream);
    gpu_own_end(rank, &own);
}

static void a_captured_stream_is_refused_and_the_capture_goes_on(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 1, .ranks_per_process = 1, .bare = true, .env = gpu_environment(1, NULL)}, captured, NULL);
}

static void other_hosts_are_refused_by_name(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1, .n_hosts = 2, .bare = true, .env = gpu_environment(2, NULL)},
             afar, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everybody_puts_to_the_next_in_stream_order),
        cmocka_unit_test(a_group_waits_after_it_has_put),
        cmocka_unit_test(puts_of_two_streams_to_one_peer_keep_their_order),
        cmocka_unit_test(an_abort_lets_a_waiting_stream_go),
        cmocka_unit_test(waiting_for_a_rank_that_has_closed_ends_with_its_name),
        cmocka_unit_test(a_captured_stream_is_refused_and_the_capture_goes_on),
        cmocka_unit_test(other_hosts_are_refused_by_name),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
