/* Suspended communicators of GPU ranks: the device's memory is given back and said to be, calls are refused, everything
 * works afterwards; with messages under way, with captured graphs, with a device that has no memory left. */
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

static void put_in(struct gpu_own *own, float first)
{
    for (int k = 0; k < COUNT; k++) own->host[k] = first + (float)(k % 32);
    gpu_copy_in(own->in, own->host, COUNT * sizeof(float));
}

/* A sum with another content each time. */
static bool sums(struct job_rank *rank, struct gpu_own *own, int turn)
{
    int n = rank->n_ranks;
    put_in(own, (float)(rank->rank + turn));
    ncclResult_t result = ncclAllReduce(own->in, own->out, COUNT, ncclFloat32, ncclSum, rank->comm, own->stream);
    if (result != ncclSuccess) job_fail(rank, "turn %d: %s", turn, ncclGetLastError(NULL));
    return result == ncclSuccess && gpu_own_holds(rank, own, own->out, (float)(n * turn + n * (n - 1) / 2), (float)n);
}

/* Everybody's to the next one. */
static bool shifts(struct job_rank *rank, struct gpu_own *own, int turn)
{
    int n = rank->n_ranks, from = (rank->rank + n - 1) % n;
    put_in(own, (float)(rank->rank + turn));
    ncclGroupStart();
    ncclSend(own->in, COUNT, ncclFloat32, (rank->rank + 1) % n, rank->comm, own->stream);
    ncclRecv(own->out, COUNT, ncclFloat32, from, rank->comm, own->stream);
    ncclResult_t result = ncclGroupEnd();
    if (result != ncclSuccess) job_fail(rank, "turn %d: %s", turn, ncclGetLastError(NULL));
    return result == ncclSuccess && gpu_own_holds(rank, own, own->out, (float)(from + turn), 1);
}

static uint64_t stat_of(struct job_rank *rank, ncclCommMemStat_t stat)
{
    uint64_t value = ~0ull;
    if (ncclCommMemStats(rank->comm, stat, &value) != ncclSuccess) job_fail(rank, "%s", ncclGetLastError(NULL));
    return value;
}

static bool refused(struct job_rank *rank, const char *call, ncclResult_t result)
{
    char words[64];
    snprintf(words, sizeof words, "%s|is suspended|ncclCommResume", call);
    return trouble_says(rank, call, result, ncclInvalidUsage, words);
}

static void everywhere(void (*body)(struct job_rank *), bool alone)
{
    static const struct job jobs[] = {
        {.n_ranks = 2, .ranks_per_process = 1},
        {.n_ranks = 4, .ranks_per_process = 2},
        {.n_ranks = 4, .ranks_per_process = 1, .n_hosts = 2},
        {.n_ranks = 2, .ranks_per_process = 1, .n_hosts = 2},
        {.n_ranks = 1, .ranks_per_process = 1},
    };
    static const char *const pinned[] = {"NCCL_P2P_DISABLE=1", NULL};
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        struct job job = jobs[i];
        job.bare = true;
        if (job.n_ranks == 1 && !alone) continue;
        job.env = gpu_environment(4, NULL);
        job_must(&job, body, NULL);
        job.env = gpu_environment(4, pinned);
        job_must(&job, body, NULL);
    }
}

/* Processes with a device each. */
static void apart(int n, int hosts, void (*body)(struct job_rank *), void *arg)
{
    job_must(&(struct job){.n_ranks = n, .ranks_per_process = 1, .n_hosts = hosts, .bare = true,
                           .env = gpu_environment(n, NULL)}, body, arg);
}

/* ---- what is given back ---- */

static void suspends(struct job_rank *rank)
{
    struct gpu_own own;
    if (!gpu_own_begin(rank, &own) || !sums(rank, &own, 1) || !shifts(rank, &own, 1)) return;
    bool near = rank->n_ranks > 1 && !rail_param_bool(RAIL_PARAM_NCCL_P2P_DISABLE) && !getenv("NCCL_HOSTID");
    void *between;
    uint64_t idle = stat_of(rank, ncclStatGpuMemSuspend);
    JOB_EXPECT(!near || idle > (1 << 20), "only %lu bytes can be given back", (unsigned long)idle);
    for (int turn = 2; turn < 5; turn++) {
        JOB_TRY(ncclCommSuspend(rank->comm, NCCL_SUSPEND_MEM));
        JOB_EXPECT(stat_of(rank, ncclStatGpuMemSuspend) == 0, "still holds %lu bytes",
                   (unsigned long)stat_of(rank, ncclStatGpuMemSuspend));
        JOB_EXPECT(stat_of(rank, ncclStatGpuMemSuspended) == 1, "is not suspended");
        /* a peer that looks at this rank's part of the segment for the first time makes a page of it resident */
        uint64_t kept = stat_of(rank, ncclStatGpuMemPersist), all = stat_of(rank, ncclStatGpuMemTotal);
        uint64_t later = stat_of(rank, ncclStatGpuMemPersist);
        JOB_EXPECT(kept > 0 && all >= kept && all <= later, "%lu bytes, and %lu to %lu stay", (unsigned long)all,
                   (unsigned long)kept, (unsigned long)later);
        between = gpu_alloc(4 << 20); /* so the memory comes back at another address */
        JOB_TRY(ncclCommResume(rank->comm));
        gpu_free(between);
        JOB_EXPECT(stat_of(rank, ncclStatGpuMemSuspended) == 0, "is suspended");
        JOB_EXPECT(!near || stat_of(rank, ncclStatGpuMemSuspend) == idle, "holds %lu bytes, before %lu",
                   (unsigned long)stat_of(rank, ncclStatGpuMemSuspend), (unsigned long)idle);
        if (!sums(rank, &own, turn) || !shifts(rank, &own, turn)) return;
    }
    JOB_TRY(ncclCommSuspend(rank->comm, NCCL_SUSPEND_MEM)); /* so it can be destroyed, too */
    gpu_own_end(rank, &own);
}

static void suspended_memory_is_the_devices_again(void **state)
{
    (void)state;
    everywhere(suspends, true);
}

/* By the count of what lives, in a process that has nothing else, and whose last error is its own. */
static void frees(struct job_rank *rank)
{
    struct gpu_own own;
    if (!gpu_own_begin(rank, &own) || !sums(rank, &own, 1)) return;
    long before = cuda_census().allocations, imports = cuda_census().imports;
    JOB_TRY(ncclCommSuspend(rank->comm, NCCL_SUSPEND_MEM));
    JOB_EXPECT(cuda_census().allocations < before && cuda_census().imports < imports, "%ld allocations, %ld imports stay",
               cuda_census().allocations, cuda_census().imports);
    if (!refused(rank, "ncclAllReduce",
                 ncclAllReduce(own.in, own.out, 1, ncclFloat32, ncclSum, rank->comm, own.stream)) ||
        !refused(rank, "ncclSend", ncclSend(own.in, 1, ncclFloat32, 0, rank->comm, own.stream)) ||
        !refused(rank, "ncclCommSuspend", ncclCommSuspend(rank->comm, NCCL_SUSPEND_MEM)))
        return;
    JOB_TRY(ncclCommResume(rank->comm));
    JOB_EXPECT(cuda_census().allocations == before && cuda_census().imports == imports, "%ld allocations, %ld imports",
               cuda_census().allocations, cuda_census().imports);
    gpu_own_end(rank, &own);
}

static void allocations_and_imports_go_and_calls_are_refused_until_they_come(void **state)
{
    (void)state;
    apart(2, 1, frees, NULL);
}

/* ---- what is under way ---- */

/* A message that its receiver has not asked for lies in a slot of the receiver's. */
static void sends_before(struct job_rank *rank)
{
    struct gpu_own own;
    size_t few = 1000;
    int n = rank->n_ranks, to = (rank->rank + 1) % n, from = (rank->rank + n - 1) % n;
    if (!gpu_own_begin(rank, &own) || !sums(rank, &own, 1)) return;
    put_in(&own, (float)rank->rank);
    JOB_TRY(ncclSend(own.in, few, ncclFloat32, to, rank->comm, own.stream));
    gpu_wait(own.stream);
    JOB_TRY(ncclCommSuspend(rank->comm, NCCL_SUSPEND_MEM));
    JOB_TRY(ncclCommResume(rank->comm));
    JOB_TRY(ncclRecv(own.out, few, ncclFloat32, from, rank->comm, own.stream));
    gpu_wait(own.stream);
    gpu_copy_out(own.host, own.out, few * sizeof(float));
    for (size_t k = 0; k < few; k++)
        JOB_EXPECT(own.host[k] == (float)from + (float)(k % 32), "element %zu is %g", k, (double)own.host[k]);
    if (sums(rank, &own, 2)) gpu_own_end(rank, &own);
}

static void a_message_that_nobody_has_asked_for_is_there_afterwards(void **state)
{
    (void)state;
    for (int together = 1; together <= 2; together++)
        job_must(&(struct job){.n_ranks = 2, .ranks_per_process = together, .bare = true, .env = gpu_environment(2, NULL)},
                 sends_before, NULL);
}

/* ---- mixed with host memory ---- */

static void one_on_the_host(struct job_rank *rank)
{
    struct gpu_own own;
    bool host = rank->rank == 1;
    if (!host) {
        if (!gpu_own_begin(rank, &own)) return;
    } else {
        JOB_TRY(railUseHostMemory(1));
        JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    }
    for (int turn = 1; turn < 4; turn++) {
        if (host) {
            float *at = malloc(COUNT * sizeof *at);
            for (int k = 0; k < COUNT; k++) at[k] = (float)(rank->rank + turn) + (float)(k % 32);
            JOB_TRY(ncclAllReduce(at, at, COUNT, ncclFloat32, ncclSum, rank->comm, NULL));
            float sum = at[0];
            free(at);
            JOB_EXPECT(sum == (float)(3 * turn + 3), "sum %g", (double)sum);
        } else if (!sums(rank, &own, turn)) {
            return;
        }
        JOB_TRY(ncclCommSuspend(rank->comm, NCCL_SUSPEND_MEM));
        JOB_TRY(ncclCommResume(rank->comm));
    }
    if (host) JOB_TRY(ncclCommDestroy(rank->comm));
    else gpu_own_end(rank, &own);
}

static void ranks_on_host_memory_take_part(void **state)
{
    (void)state;
    for (int hosts = 1; hosts <= 3; hosts += 2) apart(3, hosts, one_on_the_host, NULL);
}

/* ---- graphs ---- */

/* Calls of the driver that the library has no use for. */
struct graphs {
    cu_result (*begin)(cu_stream, int), (*end)(cu_stream, cu_graph *), (*make)(void **, cu_graph, unsigned long long);
    cu_result (*launch)(void *, cu_stream), (*free_made)(void *), (*free)(cu_graph);
};

static void *of_driver(const char *name)
{
    gpu_driver();
    const char *file = rail_param_str(RAIL_PARAM_CUDA_LIBRARY);
    return dlsym(dlopen(*file ? file : "libcuda.so.1", RTLD_NOW), name);
}

static void graphs_find(struct graphs *g)
{
    *(void **)&g->begin = of_driver("cuStreamBeginCapture_v2");
    *(void **)&g->end = of_driver("cuStreamEndCapture");
    *(void **)&g->make = of_driver("cuGraphInstantiateWithFlags");
    *(void **)&g->launch = of_driver("cuGraphLaunch");
    *(void **)&g->free_made = of_driver("cuGraphExecDestroy");
    *(void **)&g->free = of_driver("cuGraphDestroy");
}

static void replays(struct job_rank *rank)
{
    struct graphs g;
    struct gpu_own own;
    cu_graph graph;
    void *made;
    int n = rank->n_ranks;
    bool wrongly = rank->arg != NULL;
    if (!gpu_own_begin(rank, &own) || !sums(rank, &own, 1)) return;
    graphs_find(&g);
    JOB_EXPECT(g.begin(own.stream, CU_CAPTURE_MODE_RELAXED) == CU_SUCCESS, "no capture");
    JOB_TRY(ncclAllReduce(own.in, own.out, COUNT, ncclFloat32, ncclSum, rank->comm, own.stream));
    JOB_EXPECT(g.end(own.stream, &graph) == CU_SUCCESS && g.make(&made, graph, 0) == CU_SUCCESS, "no graph");
    for (int turn = 1; turn < 4; turn++) {
        put_in(&own, (float)(rank->rank + turn));
        JOB_EXPECT(g.launch(made, own.stream) == CU_SUCCESS, "no launch");
        if (!gpu_own_holds(rank, &own, own.out, (float)(n * turn + n * (n - 1) / 2), (float)n)) return;
        JOB_TRY(ncclCommSuspend(rank->comm, NCCL_SUSPEND_MEM));
        if (wrongly && rank->rank == 0) {
            JOB_EXPECT(g.launch(made, own.stream) == CU_SUCCESS, "no launch");
            gpu_wait(own.stream); /* it ends, and touches nothing that is gone */
            trouble_says(rank, "resume", ncclCommResume(rank->comm), ncclInvalidUsage, "graph|rank 0|while|suspended");
        } else if (wrongly) {
            ncclResult_t result = ncclCommResume(rank->comm), later = ncclSuccess; /* at the latest a call hears of it */
            for (int i = 0; i < 5000 && result == ncclSuccess && later == ncclSuccess; i++, trouble_sleep_s(0.001))
                JOB_TRY(ncclCommGetAsyncError(rank->comm, &later));
            JOB_EXPECT(result != ncclSuccess || later != ncclSuccess, "nobody told rank 1");
        } else {
            JOB_TRY(ncclCommResume(rank->comm));
        }
        if (wrongly) break;
    }
    g.free_made(made);
    g.free(graph);
    if (wrongly) JOB_TRY(ncclCommAbort(rank->comm));
    if (wrongly) rank->comm = NULL;
    gpu_own_end(rank, &own);
}

static void a_captured_graph_is_good_afterwards(void **state)
{
    (void)state;
    for (int hosts = 1; hosts <= 2; hosts++) apart(2, hosts, replays, NULL);
}

static void a_graph_that_is_launched_meanwhile_does_nothing_and_is_told_of(void **state)
{
    (void)state;
    static int yes;
    apart(2, 1, replays, &yes);
}

/* ---- no memory ---- */

static void lacks(struct job_rank *rank)
{
    struct gpu_own own;
    void (*order)(const char *, unsigned, int) = NULL;
    if (!gpu_own_begin(rank, &own) || !sums(rank, &own, 1)) return;
    *(void **)&order = of_driver("emulated_cuda_fail");
    JOB_TRY(ncclCommSuspend(rank->comm, NCCL_SUSPEND_MEM));
    for (int turn = 0; turn < 2; turn++) {
        if (rank->rank == 1) order("cuMemAlloc_v2", 1, CU_E_OUT_OF_MEMORY);
        ncclResult_t result = ncclCommResume(rank->comm);
        if (rank->rank == 1) order("cuMemAlloc_v2", 0, 0);
        bool mine = rank->rank == 1;
        if (!trouble_says(rank, "resume", result, mine ? ncclUnhandledCudaError : ncclRemoteError,
                          mine ? "ncclCommResume|OUT_OF_MEMORY|suspended still"
                               : "ncclCommResume|rank 1|no memory|suspended still"))
            return;
        JOB_EXPECT(stat_of(rank, ncclStatGpuMemSuspended) == 1 && stat_of(rank, ncclStatGpuMemSuspend) == 0,
                   "holds %lu bytes", (unsigned long)stat_of(rank, ncclStatGpuMemSuspend));
    }
    JOB_TRY(ncclCommResume(rank->comm));
    if (sums(rank, &own, 2)) gpu_own_end(rank, &own);
}

static void a_device_without_memory_may_resume_later(void **state)
{
    (void)state;
    if (getenv("RAILCCL_TEST_GPU")) skip(); /* a real driver fails when it likes */
    apart(3, 1, lacks, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(suspended_memory_is_the_devices_again),
        cmocka_unit_test(allocations_and_imports_go_and_calls_are_refused_until_they_come),
        cmocka_unit_test(a_message_that_nobody_has_asked_for_is_there_afterwards),
        cmocka_unit_test(ranks_on_host_memory_take_part),
        cmocka_unit_test(a_captured_graph_is_good_afterwards),
        cmocka_unit_test(a_graph_that_is_launched_meanwhile_does_nothing_and_is_told_of),
        cmocka_unit_test(a_device_without_memory_may_resume_later),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
