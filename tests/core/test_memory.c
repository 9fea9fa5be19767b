/* What a communicator holds and gives back: ncclCommMemStats tells the truth, ncclCommSuspend gives back what it said,
 * and thousands of communicators leave nothing behind. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "nccl_device.h"
#include "support/trouble.h"

static uint64_t stat_of(struct job_rank *rank, ncclComm_t comm, ncclCommMemStat_t stat)
{
    uint64_t value = UINT64_MAX;
    if (ncclCommMemStats(comm, stat, &value) != ncclSuccess) job_fail(rank, "stats: %s", ncclGetLastError(NULL));
    return value;
}

/* ---- suspending ---- */

enum { BIG = 3000000 }; /* floats: more than a window */

static bool refused(struct job_rank *rank, const char *call, ncclResult_t result)
{
    char words[64];
    snprintf(words, sizeof words, "%s|is suspended|ncclCommResume", call);
    return trouble_says(rank, call, result, ncclInvalidUsage, words);
}

static void suspends(struct job_rank *rank)
{
    struct sums { _Atomic long pss_kib[2], idle_kib, looked; } *sums = rank->arg;
    ncclComm_t child;
    int n = rank->n_ranks, count = 0;
    uint64_t fresh = stat_of(rank, rank->comm, ncclStatGpuMemSuspend);
    JOB_TRY(trouble_allreduce(rank->comm, n, BIG));
    JOB_TRY(trouble_allreduce(rank->comm, n, 1)); /* a barrier: from here on nobody takes or frees anything */
    uint64_t idle = stat_of(rank, rank->comm, ncclStatGpuMemSuspend), kept = stat_of(rank, rank->comm, ncclStatGpuMemPersist);
    JOB_EXPECT(idle >= fresh + (256 << 10), "%lu bytes when fresh, %lu after a large call", (unsigned long)fresh,
               (unsigned long)idle);
    JOB_EXPECT(kept > 1000 && idle + kept == stat_of(rank, rank->comm, ncclStatGpuMemTotal), "stats do not add up");
    JOB_EXPECT(stat_of(rank, rank->comm, ncclStatGpuMemSuspended) == 0, "suspended from the start");
    atomic_fetch_add(&sums->pss_kib[0], trouble_status_kib("Pss:"));
    atomic_fetch_add(&sums->idle_kib, (long)(idle >> 10));
    JOB_TRY(ncclCommSuspend(rank->comm, NCCL_SUSPEND_MEM));
    atomic_fetch_add(&sums->pss_kib[1], trouble_status_kib("Pss:"));
    JOB_EXPECT(stat_of(rank, rank->comm, ncclStatGpuMemSuspend) == 0, "still holds %lu bytes",
               (unsigned long)stat_of(rank, rank->comm, ncclStatGpuMemSuspend));
    JOB_EXPECT(stat_of(rank, rank->comm, ncclStatGpuMemSuspended) == 1, "is not suspended");
    if (!refused(rank, "ncclAllReduce", trouble_allreduce(rank->comm, n, 2)) ||
        !refused(rank, "ncclCommSplit", ncclCommSplit(rank->comm, 0, 0, &child, NULL)) ||
        !refused(rank, "ncclCommSuspend", ncclCommSuspend(rank->comm, NCCL_SUSPEND_MEM)) ||
        !refused(rank, "ncclCommFinalize", ncclCommFinalize(rank->comm)))
        return;
    JOB_TRY(ncclCommCount(rank->comm, &count));
    JOB_EXPECT(count == n, "count %d", count);
    atomic_fetch_add(&sums->looked, 1); /* who is resumed may write into the others' slots at once */
    for (int i = 0; i < 20000 && atomic_load(&sums->looked) < n; i++) usleep(1000);
    JOB_TRY(ncclCommResume(rank->comm));
    if (!trouble_says(rank, "resume", ncclCommResume(rank->comm), ncclInvalidUsage, "ncclCommResume|not suspended")) return;
    for (int i = 0; i < 4; i++) JOB_TRY(trouble_allreduce(rank->comm, n, i % 2 ? BIG : 3));
    JOB_EXPECT(stat_of(rank, rank->comm, ncclStatGpuMemSuspend) >= idle / 2, "took no memory again");
    JOB_TRY(ncclCommSuspend(rank->comm, NCCL_SUSPEND_MEM));
    if (rank->rank % 2) JOB_TRY(ncclCommResume(rank->comm)); /* either way it can be destroyed */
}

static void suspended_memory_is_given_back(void **state)
{
    (void)state;
    struct sums { _Atomic long pss_kib[2], idle_kib, looked; } *sums = trouble_shared(sizeof *sums);
    for (int hosts = 1; hosts <= 2; hosts++) {
        memset(sums, 0, sizeof *sums);
        job_must(&(struct job){.n_ranks = 4, .ranks_per_process = 1, .n_hosts = hosts}, suspends, sums);
        long drop = sums->pss_kib[0] - sums->pss_kib[1];
        print_message("%d hosts: 4 ranks said %ld KiB, gave back %ld KiB\n", hosts, (long)sums->idle_kib, drop);
#if !defined(__SANITIZE_ADDRESS__) /* which keeps freed memory for a while */
        assert_true(drop > sums->idle_kib * 8 / 10 && drop < sums->idle_kib * 12 / 10);
#endif
    }
}

static void bad_questions(struct job_rank *rank)
{
    uint64_t value;
    ncclCommProperties_t p = NCCL_COMM_PROPERTIES_INITIALIZER;
    if (!trouble_says(rank, "flags", ncclCommSuspend(rank->comm, 0), ncclInvalidArgument, "ncclCommSuspend|NCCL_SUSPEND_MEM") ||
        !trouble_says(rank, "resume", ncclCommResume(rank->comm), ncclInvalidUsage, "ncclCommResume|not suspended") ||
        !trouble_says(rank, "stat", ncclCommMemStats(rank->comm, (ncclCommMemStat_t)9, &value), ncclInvalidArgument,
                      "ncclCommMemStats|stat 9") ||
        !trouble_says(rank, "value", ncclCommMemStats(rank->comm, ncclStatGpuMemTotal, NULL), ncclInvalidArgument,
                      "ncclCommMemStats|value is NULL") ||
        !trouble_says(rank, "comm", ncclCommMemStats(NULL, ncclStatGpuMemTotal, &value), ncclInvalidArgument,
                      "ncclCommMemStats|NULL"))
        return;
    JOB_TRY(ncclCommQueryProperties(rank->comm, &p));
    JOB_EXPECT(p.rank == rank->rank && p.nRanks == rank->n_ranks && p.cudaDev == -1 && !p.deviceApiSupport && p.nLsaTeams == 1,
               "properties: rank %d of %d, device %d", p.rank, p.nRanks, p.cudaDev);
    ncclCommProperties_t old = NCCL_COMM_PROPERTIES_INITIALIZER; /* of a generation that ended behind nRanks */
    old.size = offsetof(ncclCommProperties_t, cudaDev);
    old.cudaDev = 77;
    JOB_TRY(ncclCommQueryProperties(rank->comm, &old));
    JOB_EXPECT(old.nRanks == rank->n_ranks && old.cudaDev == 77, "wrote beyond the caller's structure");
    p.magic = 1;
    trouble_says(rank, "magic", ncclCommQueryProperties(rank->comm, &p), ncclInvalidArgument,
                 "ncclCommQueryProperties|NCCL_COMM_PROPERTIES_INITIALIZER");
}

static void questions_are_answered_or_refused_by_name(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1}, bad_questions, NULL);
}

/* ---- over and over ---- */

/* Not Pss: a page that is shared with a process that ends weighs more from then on. */
static long own_kib(void) { return trouble_status_kib("RssAnon:") + trouble_status_kib("RssShmem:"); }

/* Makes and ends communicators in every way; the process's memory, descriptors and threads stay what they were after the
 * first turns. `cycles` communicators in all. */
static void cycles(struct job_rank *rank)
{
    int total = *(const int *)rank->arg, n = rank->n_ranks, made = 0, fds = 0, threads = 0;
    long kib = 0;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    int others[] = {n - 1};
    config.blocking = 0;
    for (int turn = 0; made < total && !rank->why[0]; turn++) {
        ncclComm_t a, b, c = NULL, d = NULL;
        ncclResult_t state = ncclInProgress;
        JOB_TRY(trouble_second_comm(rank, &a));
        JOB_TRY(ncclCommSplit(a, rank->rank % 2, 0, &b, NULL));
        JOB_EXPECT(ncclCommSplit(rank->comm, 0, 0, &c, &config) == ncclSuccess, "split: %s", ncclGetLastError(NULL));
        if (rank->rank != n - 1) JOB_TRY(ncclCommShrink(a, others, 1, &d, NULL, NCCL_SHRINK_DEFAULT));
        made += 4;
        if (turn % 4 == 0) JOB_TRY(trouble_allreduce(a, n, 3000));
        JOB_TRY(trouble_allreduce(c, n, 2));
        if (ncclCommFinalize(c) == ncclInProgress)
            while (state == ncclInProgress && ncclCommGetAsyncError(c, &state) == ncclSuccess) usleep(50);
        JOB_TRY(ncclCommDestroy(c));
        JOB_TRY(turn % 2 ? ncclCommDestroy(b) : ncclCommAbort(b));
        if (d) JOB_TRY(ncclCommDestroy(d));
        JOB_TRY(trouble_allreduce(rank->comm, n, 1)); /* who aborts first would be heard by those who still work */
        JOB_TRY(turn % 3 ? ncclCommDestroy(a) : ncclCommAbort(a));
        if (made <= total / 5) { /* memory of handles lies about for 32 more, caches fill */
            fds = trouble_fds();
            threads = trouble_threads();
            kib = own_kib();
        }
    }
    JOB_TRY(trouble_allreduce(rank->comm, n, 1));
    for (int i = 0; i < 200 && (trouble_fds() > fds + 3 || trouble_threads() > threads); i++) usleep(5000);
    long grown_kib = own_kib() - kib;
    printf("# rank %d: %d communicators: %+ld KiB, %+d descriptors, %+d threads\n", rank->rank, made, grown_kib,
           trouble_fds() - fds, trouble_threads() - threads);
    /* 3: the next id's root and its connections may be at any point of their short life */
    JOB_EXPECT(trouble_fds() <= fds + 3, "%d descriptors, %d before", trouble_fds(), fds);
    JOB_EXPECT(trouble_threads() <= threads, "%d threads, %d before", trouble_threads(), threads);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    JOB_EXPECT(grown_kib < 512 + total / 10, "grew by %ld KiB in %d communicators", grown_kib, made); /* 100 bytes each */
#endif
}

static void thousands_of_communicators_leave_nothing(void **state)
{
    (void)state;
    static int total;
    total = getenv("RAILCCL_TEST_LONG") ? 10000 : 400;
    for (int hosts = 1; hosts <= 2; hosts++)
        job_must(&(struct job){.n_ranks = 3, .ranks_per_process = 1, .n_hosts = hosts, .limit_s = 1200}, cycles, &total);
}

/* ---- two jobs at once ---- */

static void *another_job(void *arg)
{
    const char **why = arg;
    static int total = 300;
    *why = job_run(&(struct job){.n_ranks = 3, .ranks_per_process = 1}, cycles, &total);
    return NULL;
}

static void works(struct job_rank *rank)
{
    for (int i = 0; i < 300; i++) JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, i % 10 ? 100 : 30000));
}

static void two_jobs_on_one_host_know_nothing_of_each_other(void **state)
{
    (void)state;
#if defined(__SANITIZE_THREAD__)
    skip();
#endif
    const char *why = NULL;
    pid_t pid = fork();
    if (pid == 0) {
        another_job(&why);
        _exit(why != NULL);
    }
    job_must(&(struct job){.n_ranks = 4, .ranks_per_process = 1, .n_hosts = 2}, works, NULL);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(suspended_memory_is_given_back),
        cmocka_unit_test(questions_are_answered_or_refused_by_name),
        cmocka_unit_test(thousands_of_communicators_leave_nothing),
        cmocka_unit_test(two_jobs_on_one_host_know_nothing_of_each_other),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
