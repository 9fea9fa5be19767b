/* A rank that dies, aborts or comes late, while the others wait for it: inside a host, between hosts, and mixed, in a
 * small, a middle and a large AllReduce, and in Broadcasts whose root is ahead of it and waits for nobody at first. Survivors hear of a death within two seconds, all name the same culprit, and
 * their aborts return at once; a late rank is waited for. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "support/job.h"

/* DEAD's process is forked by its rank body, so that a death is not the job's failure. */
enum { N = 4, DEAD = 2, HEARD_MS = 2000, ABORT_MS = 100 };

static const size_t counts[] = {1, 1000, 1 << 20}; /* float32: express, one window or slot, many */

struct work {
    size_t count;
    bool broadcasts; /* by rank 0; else AllReduces */
};

static ncclResult_t call(const struct job_rank *rank, const struct work *w, float *buffer)
{
    return w->broadcasts ? ncclBroadcast(buffer, buffer, w->count, ncclFloat32, 0, rank->comm, NULL)
                         : ncclAllReduce(buffer, buffer, w->count, ncclFloat32, ncclSum, rank->comm, NULL);
}

static double ms_since(uint64_t ns) { return (double)(rail_now_ns() - ns) / 1e6; }

static void pause_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

/* The doomed rank joins, takes part once, and is killed some milliseconds later wherever it is. */
static void die_midway(struct job_rank *rank, const struct work *w)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        float *buffer = calloc(w->count, sizeof *buffer);
        if (ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank) != ncclSuccess) _exit(1);
        for (;;)
            if (call(rank, w, buffer) != ncclSuccess) _exit(2);
    }
    pause_ms(300 + rank->id.internal[40] % 64);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static void survive(struct job_rank *rank)
{
    const struct work *w = rank->arg;
    if (rank->rank == DEAD) {
        die_midway(rank, w);
        return;
    }
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    float *buffer = calloc(w->count, sizeof *buffer);
    ncclResult_t result;
    uint64_t start;
    do {
        start = rail_now_ns();
        result = call(rank, w, buffer);
    } while (result == ncclSuccess);
    JOB_EXPECT(result == ncclRemoteError, "result %d: %s", result, ncclGetLastError(NULL));
    JOB_EXPECT(strstr(ncclGetLastError(NULL), "rank 2"), "the culprit is rank 2, the text says: %s", ncclGetLastError(NULL));
    JOB_EXPECT(ms_since(start) < HEARD_MS + 500, "heard after %.0f ms", ms_since(start)); /* 500: the call before the death */
    ncclResult_t later;
    JOB_TRY(ncclCommGetAsyncError(rank->comm, &later));
    JOB_EXPECT(later == ncclRemoteError, "async error %d", later);
    start = rail_now_ns();
    JOB_TRY(ncclCommAbort(rank->comm));
    JOB_EXPECT(ms_since(start) < ABORT_MS, "abort took %.0f ms", ms_since(start));
    free(buffer);
}

static void deaths(int hosts)
{
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        struct work work = {.count = counts[c]};
        struct job job = {.n_ranks = N, .ranks_per_process = 1, .n_hosts = hosts, .bare = true, .limit_s = 30};
        job_must(&job, survive, &work);
    }
}

static void a_killed_rank_is_named_inside_a_host(void **state) { (void)state; deaths(1); }
static void a_killed_rank_is_named_between_hosts(void **state) { (void)state; deaths(N); }
static void a_killed_rank_is_named_on_two_hosts_of_two(void **state) { (void)state; deaths(2); }

static void a_killed_rank_is_named_by_a_root_that_was_ahead_of_it(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        struct work work = {.count = counts[c], .broadcasts = true};
        struct job job = {.n_ranks = N, .ranks_per_process = 1, .bare = true, .limit_s = 30};
        job_must(&job, survive, &work);
    }
}

/* ---- abort from another thread ---- */

static void *abort_soon(void *comm)
{
    pause_ms(200);
    static _Thread_local char text[64];
    uint64_t start = rail_now_ns();
    if (ncclCommAbort(comm) != ncclSuccess) return strcpy(text, "abort failed");
    if (ms_since(start) >= ABORT_MS) return strcpy(text, "abort was slow");
    return NULL;
}

static void aborted(struct job_rank *rank)
{
    size_t count = *(const size_t *)rank->arg;
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    float *buffer = calloc(count, sizeof *buffer);
    if (rank->rank == 0) { /* never calls, hears of the abort */
        ncclResult_t heard = ncclSuccess;
        uint64_t start = rail_now_ns();
        while (heard == ncclSuccess && ms_since(start) < 5000) {
            pause_ms(5);
            JOB_TRY(ncclCommGetAsyncError(rank->comm, &heard));
        }
        JOB_EXPECT(heard == ncclRemoteError, "heard %d", heard);
        JOB_EXPECT(strstr(ncclGetLastError(NULL), "ncclCommAbort"), "heard: %s", ncclGetLastError(NULL));
        JOB_TRY(ncclCommAbort(rank->comm));
    } else {
        pthread_t thread;
        void *why;
        pthread_create(&thread, NULL, abort_soon, rank->comm);
        uint64_t start = rail_now_ns();
        ncclResult_t result = ncclAllReduce(buffer, buffer, count, ncclFloat32, ncclSum, rank->comm, NULL);
        pthread_join(thread, &why);
        JOB_EXPECT(result != ncclSuccess, "the call succeeded without rank 0");
        JOB_EXPECT(ms_since(start) < 1500, "returned after %.0f ms", ms_since(start));
        JOB_EXPECT(!why, "%s", (const char *)why);
    }
    free(buffer);
}

static void an_abort_ends_a_waiting_call_and_is_told(void **state)
{
    (void)state;
    for (int hosts = 1; hosts <= N; hosts *= 2)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            size_t count = counts[c];
            struct job job = {.n_ranks = N, .ranks_per_process = 1, .n_hosts = hosts, .bare = true, .limit_s = 30};
            job_must(&job, aborted, &count);
        }
}

/* ---- late is not dead ---- */

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void late(struct job_rank *rank)
{
    size_t count = *(const size_t *)rank->arg;
    float *buffer = calloc(count, sizeof *buffer);
    if (rank->rank == DEAD) pause_ms(3000);
    double before = cpu_s();
    JOB_TRY(ncclAllReduce(buffer, buffer, count, ncclFloat32, ncclSum, rank->comm, NULL));
    double used = cpu_s() - before;
    JOB_EXPECT(rank->rank == DEAD || used < 0.3, "waiting 3 s used %.2f s of a core", used);
    free(buffer);
}

static void a_late_rank_is_waited_for_asleep(void **state)
{
    (void)state;
    for (int hosts = 1; hosts <= N; hosts *= 2)
        for (size_t c = 0; c < 2; c++) {
            size_t count = counts[c];
            struct job job = {.n_ranks = N, .ranks_per_process = 1, .n_hosts = hosts, .limit_s = 30};
            job_must(&job, late, &count);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_rank_is_named_inside_a_host),
        cmocka_unit_test(a_killed_rank_is_named_by_a_root_that_was_ahead_of_it),
        cmocka_unit_test(a_killed_rank_is_named_between_hosts),
        cmocka_unit_test(a_killed_rank_is_named_on_two_hosts_of_two),
        cmocka_unit_test(an_abort_ends_a_waiting_call_and_is_told),
        cmocka_unit_test(a_late_rank_is_waited_for_asleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
