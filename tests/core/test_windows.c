/* Registered buffers and windows: handles that are good, stale, foreign or none; parts of different sizes; what all
 * ranks must do alike; and memory of ncclMemAlloc. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/trouble.h"

static char memory[1 << 16];

#define SAYS(call, want, words)                                                                                        \
    do {                                                                                                               \
        errno = EXDEV;                                                                                                 \
        ncclResult_t says_ = (call);                                                                                   \
        JOB_EXPECT(errno == EXDEV, #call " changed errno to %d", errno);                                               \
        if (!trouble_says(rank, #call, says_, want, words)) return;                                                    \
    } while (0)

/* As processes: the last error's text is the process's, and threads would read one another's. */
static void everywhere(void (*body)(struct job_rank *))
{
    static const struct job jobs[] = {
        {.n_ranks = 1, .ranks_per_process = 1},
        {.n_ranks = 3, .ranks_per_process = 1},
        {.n_ranks = 3, .ranks_per_process = 1, .n_hosts = 3},
        {.n_ranks = 4, .ranks_per_process = 1, .n_hosts = 2},
    };
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) job_must(&jobs[i], body, NULL);
}

/* ---- ncclCommRegister ---- */

static void handles(struct job_rank *rank)
{
    void *a, *b, *c, *foreign;
    ncclComm_t other;
    JOB_TRY(trouble_second_comm(rank, &other));
    JOB_TRY(ncclCommRegister(rank->comm, memory, sizeof memory, &a));
    JOB_TRY(ncclCommRegister(rank->comm, memory, sizeof memory, &b));
    JOB_TRY(ncclCommRegister(rank->comm, memory + 100, 1, &c));
    JOB_TRY(ncclCommRegister(other, memory, 8, &foreign));
    JOB_EXPECT(a != b && b != c && a != c && c != foreign, "handles are not each its own");
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 100));
    JOB_TRY(ncclCommDeregister(rank->comm, b));
    SAYS(ncclCommDeregister(rank->comm, b), ncclInvalidArgument, "ncclCommDeregister|deregistered before");
    SAYS(ncclCommDeregister(rank->comm, foreign), ncclInvalidArgument, "ncclCommDeregister|another communicator");
    SAYS(ncclCommDeregister(rank->comm, memory), ncclInvalidArgument, "ncclCommDeregister|no handle");
    SAYS(ncclCommDeregister(rank->comm, NULL), ncclInvalidArgument, "ncclCommDeregister|NULL");
    SAYS(ncclCommDeregister(NULL, a), ncclInvalidArgument, "ncclCommDeregister|communicator is NULL");
    SAYS(ncclCommRegister(rank->comm, NULL, 8, &b), ncclInvalidArgument, "ncclCommRegister|buff is NULL|8");
    SAYS(ncclCommRegister(rank->comm, memory, 0, &b), ncclInvalidArgument, "ncclCommRegister|size is 0");
    SAYS(ncclCommRegister(rank->comm, memory, SIZE_MAX, &b), ncclInvalidArgument, "ncclCommRegister|end of memory");
    SAYS(ncclCommRegister(rank->comm, memory, 8, NULL), ncclInvalidArgument, "ncclCommRegister|handle is NULL");
    JOB_TRY(ncclCommDeregister(rank->comm, c));
    JOB_TRY(ncclCommDeregister(rank->comm, a));
    JOB_TRY(ncclCommDestroy(other)); /* with a registered buffer: freed with it */
}

static void a_registered_buffer_has_a_handle_of_its_own(void **state)
{
    (void)state;
    everywhere(handles);
}

/* ---- windows ---- */

static void life(struct job_rank *rank)
{
    ncclWindow_t windows[4], foreign;
    ncclComm_t other;
    void *user, *own;
    JOB_TRY(trouble_second_comm(rank, &other));
    JOB_TRY(ncclMemAlloc(&own, 100000));
    JOB_TRY(ncclCommWindowRegister(rank->comm, memory, sizeof memory, &windows[0], NCCL_WIN_COLL_SYMMETRIC));
    JOB_TRY(ncclCommWindowRegister(rank->comm, memory + 1, 1 + (size_t)rank->rank, &windows[1], NCCL_WIN_DEFAULT));
    JOB_TRY(ncclCommWindowRegister(rank->comm, NULL, 0, &windows[2], NCCL_WIN_STRICT_ORDERING));
    JOB_TRY(ncclCommWindowRegister(rank->comm, rank->rank ? (char *)own + 4097 : NULL, rank->rank ? 90000 : 0,
                                   &windows[3], 0));
    JOB_TRY(ncclCommWindowRegister(other, memory, 8, &foreign, 0));
    JOB_TRY(ncclWinGetUserPtr(rank->comm, windows[0], &user));
    JOB_EXPECT(user == memory, "the window's address is %p, not %p", user, (void *)memory);
    JOB_TRY(ncclWinGetUserPtr(rank->comm, windows[2], &user));
    JOB_EXPECT(user == NULL, "the empty window's address is %p", user);
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1000));
    SAYS(ncclWinGetUserPtr(rank->comm, foreign, &user), ncclInvalidArgument, "ncclWinGetUserPtr|another communicator");
    SAYS(ncclWinGetUserPtr(rank->comm, (ncclWindow_t)(void *)memory, &user), ncclInvalidArgument, "no living window");
    SAYS(ncclWinGetUserPtr(rank->comm, NULL, &user), ncclInvalidArgument, "ncclWinGetUserPtr|NULL");
    SAYS(ncclWinGetUserPtr(rank->comm, windows[0], NULL), ncclInvalidArgument, "ncclWinGetUserPtr|outUserPtr");
    SAYS(ncclCommWindowDeregister(rank->comm, foreign), ncclInvalidArgument, "another communicator");
    JOB_TRY(ncclCommWindowDeregister(rank->comm, NULL)); /* as NCCL */
    JOB_TRY(ncclCommWindowDeregister(rank->comm, windows[1]));
    SAYS(ncclCommWindowDeregister(rank->comm, windows[1]), ncclInvalidArgument,
         "ncclCommWindowDeregister|deregistered before");
    SAYS(ncclCommWindowRegister(rank->comm, NULL, 8, &windows[1], 0), ncclInvalidArgument, "buff is NULL|size 8");
    SAYS(ncclCommWindowRegister(rank->comm, memory, 8, NULL, 0), ncclInvalidArgument, "win is NULL");
    SAYS(ncclCommWindowRegister(rank->comm, memory, 8, &windows[1], 4), ncclInvalidArgument,
         "winFlags 0x4|NCCL_WIN_DEFAULT");
    SAYS(ncclCommWindowRegister(rank->comm, memory, SIZE_MAX, &windows[1], 0), ncclInvalidArgument, "end of memory");
    SAYS(ncclCommWindowRegister(NULL, memory, 8, &windows[1], 0), ncclInvalidArgument, "communicator is NULL");
    JOB_TRY(ncclCommWindowDeregister(rank->comm, windows[3]));
    JOB_TRY(ncclMemFree(own));
    JOB_TRY(ncclCommWindowRegister(rank->comm, memory, 8, &windows[1], 0)); /* works on */
    JOB_TRY(ncclCommDestroy(other)); /* windows go with their communicator */
}

static void a_window_lives_from_register_to_deregister(void **state)
{
    (void)state;
    everywhere(life);
}

static void as_ranks_differ(struct job_rank *rank)
{
    ncclComm_t job = rank->comm, second;
    JOB_TRY(trouble_second_comm(rank, &second));
    ncclWindow_t window, other;
    bool one = rank->rank == 1;
    SAYS(ncclCommWindowRegister(job, memory, 64, &window, one ? NCCL_WIN_STRICT_ORDERING : 0), ncclInvalidUsage,
         "winFlags 0x0 at rank 0|0x2 at rank 1");
    SAYS(ncclCommWindowRegister(job, memory, one ? 65 : 64, &window, NCCL_WIN_COLL_SYMMETRIC), ncclInvalidUsage,
         "size 64 at rank 0|65 at rank 1|NCCL_WIN_COLL_SYMMETRIC");
    JOB_TRY(trouble_allreduce(job, rank->n_ranks, 10)); /* nothing is broken */
    JOB_TRY(ncclCommWindowRegister(second, memory, 64, &window, 0));
    JOB_TRY(ncclCommWindowRegister(second, memory, 64, &other, 0));
    ncclResult_t result = ncclCommWindowDeregister(second, one ? other : window);
    JOB_EXPECT(result == ncclInvalidUsage, "windows ended crosswise: %d, %s", result, ncclGetLastError(NULL));
    const char *lacks = trouble_lacks(ncclGetLastError(NULL), "ncclCommWindowDeregister|window 1|window 2");
    JOB_EXPECT(!lacks, "lacks %s: %s", lacks, ncclGetLastError(NULL));
    JOB_TRY(ncclCommAbort(second));
    JOB_TRY(trouble_allreduce(job, rank->n_ranks, 10));
}

static void ranks_that_register_differently_are_told(void **state)
{
    (void)state;
    for (int hosts = 1; hosts <= 2; hosts++) {
        struct job job = {.n_ranks = 2, .ranks_per_process = 1, .n_hosts = hosts};
        job_must(&job, as_ranks_differ, NULL);
    }
}

/* ---- ncclMemAlloc ---- */

static void memory_is_zeroed_known_and_given_back(void **state)
{
    (void)state;
    int before = trouble_fds();
    for (int round = 0; round < 300; round++) {
        void *p;
        assert_int_equal(ncclMemAlloc(&p, 5000), ncclSuccess);
        for (int i = 0; i < 5000; i++) assert_int_equal(((char *)p)[i], 0);
        memset(p, 1, 5000);
        assert_int_equal(ncclMemFree(p), ncclSuccess);
        assert_int_equal(ncclMemFree(p), ncclInvalidArgument);
    }
    assert_int_equal(trouble_fds(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_registered_buffer_has_a_handle_of_its_own),
        cmocka_unit_test(a_window_lives_from_register_to_deregister),
        cmocka_unit_test(ranks_that_register_differently_are_told),
        cmocka_unit_test(memory_is_zeroed_known_and_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
