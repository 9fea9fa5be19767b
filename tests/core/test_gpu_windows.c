/* Windows of ranks on GPUs: memory of every kind that a device reaches can be registered, and collectives use it; what is
 * wrong is refused alike on all ranks, and the communicator works on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <nccl.h>
#include <railccl.h>

#include "device/cuda/cuda.h"
#include "support/gpu_own.h"
#include "support/trouble.h"

enum { COUNT = GPU_OWN_COUNT };

/* A sum in buffers of the caller's. */
static bool sums(struct job_rank *rank, struct gpu_own *own, float *in, float *out)
{
    int n = rank->n_ranks;
    for (int k = 0; k < COUNT; k++) own->host[k] = (float)(rank->rank) + (float)(k % 32);
    gpu_copy_in(in, own->host, COUNT * sizeof(float));
    ncclResult_t result = ncclAllReduce(in, out, COUNT, ncclFloat32, ncclSum, rank->comm, own->stream);
    if (result != ncclSuccess) job_fail(rank, "%s", ncclGetLastError(NULL));
    return result == ncclSuccess && gpu_own_holds(rank, own, out, (float)(n * (n - 1) / 2), (float)n);
}

/* Processes with a device each. */
static void everywhere(void (*body)(struct job_rank *))
{
    static const struct job jobs[] = {
        {.n_ranks = 1, .ranks_per_process = 1},
        {.n_ranks = 2, .ranks_per_process = 1},
        {.n_ranks = 4, .ranks_per_process = 1, .n_hosts = 2},
    };
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        struct job job = jobs[i];
        job.bare = true;
        job.env = gpu_environment(4, NULL);
        job_must(&job, body, NULL);
    }
}

/* ---- what can be registered ---- */

static bool in_window(struct job_rank *rank, struct gpu_own *own, float *at, int flags)
{
    ncclWindow_t window = NULL;
    void *user = NULL;
    size_t bytes = 2 * COUNT * sizeof(float);
    ncclResult_t result = ncclCommWindowRegister(rank->comm, at, bytes, &window, flags);
    if (result == ncclSuccess) result = ncclWinGetUserPtr(rank->comm, window, &user);
    if (result == ncclSuccess && user != at) job_fail(rank, "the window's address is %p, not %p", user, (void *)at);
    if (result == ncclSuccess && (!sums(rank, own, at, at + COUNT) || !sums(rank, own, at, at))) return false;
    if (result == ncclSuccess) result = ncclCommWindowDeregister(rank->comm, window);
    if (result != ncclSuccess) job_fail(rank, "%s", ncclGetLastError(NULL));
    return result == ncclSuccess && sums(rank, own, at, at + COUNT) &&
           trouble_says(rank, "twice", ncclCommWindowDeregister(rank->comm, window), ncclInvalidArgument,
                        "ncclCommWindowDeregister|deregistered before");
}

static void kinds(struct job_rank *rank)
{
    struct gpu_own own;
    size_t bytes = 2 * COUNT * sizeof(float);
    void *shareable, *pinned = NULL, *plain;
    if (!gpu_own_begin(rank, &own)) return;
    plain = gpu_alloc(bytes);
    JOB_TRY(ncclMemAlloc(&shareable, bytes));
    cu_result got = gpu_driver()->host_alloc(&pinned, bytes, CU_HOST_PORTABLE | CU_HOST_MAPPED);
    JOB_EXPECT(got == CU_SUCCESS, "no pinned memory");
    for (int flags = 0; flags < 2; flags++)
        if (!in_window(rank, &own, shareable, flags) || !in_window(rank, &own, plain, flags) ||
            !in_window(rank, &own, pinned, flags))
            return;
    JOB_TRY(ncclMemFree(shareable));
    gpu_free(plain);
    gpu_driver()->host_free(pinned);
    gpu_own_end(rank, &own);
}

static void memory_of_every_kind_can_be_registered_and_used(void **state)
{
    (void)state;
    everywhere(kinds);
}

/* As a program does that registers its buffers once: in a group, some ranks with nothing, left to the communicator's end. */
static void grouped(struct job_rank *rank)
{
    struct gpu_own own;
    ncclWindow_t window[2];
    if (!gpu_own_begin(rank, &own)) return;
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclCommWindowRegister(rank->comm, own.in, COUNT * sizeof(float), &window[0], NCCL_WIN_COLL_SYMMETRIC));
    JOB_TRY(ncclCommWindowRegister(rank->comm, rank->rank ? own.out : NULL, rank->rank ? 100 : 0, &window[1], 0));
    JOB_TRY(ncclAllReduce(own.in, own.out, COUNT, ncclFloat32, ncclSum, rank->comm, own.stream));
    JOB_TRY(ncclGroupEnd());
    if (!sums(rank, &own, own.in, own.out)) return;
    JOB_TRY(ncclCommWindowDeregister(rank->comm, window[0]));
    if (sums(rank, &own, own.in, own.out)) gpu_own_end(rank, &own);
}

static void a_group_registers_before_it_runs(void **state)
{
    (void)state;
    everywhere(grouped);
}

/* The host has not come yet to what the stream waits for. */
static void while_calls_run(struct job_rank *rank)
{
    struct gpu_own own;
    ncclWindow_t window;
    if (!gpu_own_begin(rank, &own)) return;
    if (rank->rank == 1) trouble_sleep_s(0.05);
    JOB_TRY(ncclAllReduce(own.in, own.out, COUNT, ncclFloat32, ncclSum, rank->comm, own.stream));
    JOB_TRY(ncclCommWindowRegister(rank->comm, own.in, COUNT * sizeof(float), &window, 0));
    JOB_TRY(ncclCommWindowDeregister(rank->comm, window));
    if (sums(rank, &own, own.in, own.out)) gpu_own_end(rank, &own);
}

static void calls_may_be_under_way(void **state)
{
    (void)state;
    everywhere(while_calls_run);
}

static void mixed(struct job_rank *rank)
{
    static float host[COUNT];
    struct gpu_own own = {0};
    ncclWindow_t window;
    bool on_host = rank->rank == 1;
    if (on_host) {
        JOB_TRY(railUseHostMemory(1));
        JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    } else if (!gpu_own_begin(rank, &own)) {
        return;
    }
    JOB_TRY(ncclCommWindowRegister(rank->comm, on_host ? host : own.in, sizeof host, &window, NCCL_WIN_COLL_SYMMETRIC));
    if (on_host) {
        for (int k = 0; k < COUNT; k++) host[k] = 1 + (float)(k % 32);
        JOB_TRY(ncclAllReduce(host, host, COUNT, ncclFloat32, ncclSum, rank->comm, NULL));
        JOB_EXPECT(host[31] == 3 + 3 * 31, "sum %g", (double)host[31]);
        if (!trouble_says(rank, "put", ncclPutSignal(host, 1, ncclFloat32, 0, window, 0, 0, 0, 0, rank->comm, NULL),
                          ncclInvalidUsage, "ncclPutSignal|rank 0|GPU"))
            return;
    } else if (!sums(rank, &own, own.in, own.out)) {
        return;
    }
    JOB_TRY(ncclCommWindowDeregister(rank->comm, window));
    if (on_host) JOB_TRY(ncclCommDestroy(rank->comm));
    else gpu_own_end(rank, &own);
}

static void ranks_on_host_memory_take_part_and_cannot_put_to_gpus(void **state)
{
    (void)state;
    for (int hosts = 1; hosts <= 3; hosts += 2)
        job_must(&(struct job){.n_ranks = 3, .ranks_per_process = 1, .n_hosts = hosts, .bare = true,
                               .env = gpu_environment(3, NULL)}, mixed, NULL);
}

/* ---- what cannot ---- */

static void mistakes(struct job_rank *rank)
{
    struct gpu_own own;
    ncclWindow_t window;
    bool one = rank->rank == 1;
    size_t bytes = COUNT * sizeof(float);
    if (!gpu_own_begin(rank, &own)) return;
    if (!trouble_says(rank, "plain", ncclCommWindowRegister(rank->comm, own.host, bytes, &window, 0), ncclInvalidArgument,
                      "ncclCommWindowRegister|buff|plain host memory") ||
        !trouble_says(rank, "beyond", ncclCommWindowRegister(rank->comm, own.in, bytes + 1, &window, 0), ncclInvalidArgument,
                      "ncclCommWindowRegister|buff|left in its allocation") ||
        !trouble_says(rank, "NULL", ncclCommWindowRegister(rank->comm, NULL, 8, &window, 0), ncclInvalidArgument,
                      "buff is NULL|size 8") ||
        !trouble_says(rank, "flags", ncclCommWindowRegister(rank->comm, own.in, 8, &window, 4), ncclInvalidArgument,
                      "winFlags 0x4") ||
        !trouble_says(rank, "sizes",
                      ncclCommWindowRegister(rank->comm, own.in, one ? 65 : 64, &window, NCCL_WIN_COLL_SYMMETRIC),
                      ncclInvalidUsage, "size 64 at rank 0|65 at rank 1"))
        return;
    JOB_TRY(ncclCommWindowRegister(rank->comm, own.in, bytes, &window, 0));
    if (!trouble_says(rank, "put", ncclPutSignal(own.host, 1, ncclFloat32, 0, window, 0, 0, 0, 0, rank->comm, own.stream),
                      ncclInvalidArgument, "ncclPutSignal|localbuff|plain host memory"))
        return;
    JOB_TRY(ncclCommWindowDeregister(rank->comm, window));
    if (sums(rank, &own, own.in, own.out)) gpu_own_end(rank, &own);
}

static void a_mistake_is_named_and_the_communicator_works_on(void **state)
{
    (void)state;
    const struct job job = {.n_ranks = 2, .ranks_per_process = 1, .bare = true, .env = gpu_environment(2, NULL)};
    job_must(&job, mistakes, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_of_every_kind_can_be_registered_and_used),
        cmocka_unit_test(a_group_registers_before_it_runs),
        cmocka_unit_test(calls_may_be_under_way),
        cmocka_unit_test(ranks_on_host_memory_take_part_and_cannot_put_to_gpus),
        cmocka_unit_test(a_mistake_is_named_and_the_communicator_works_on),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
