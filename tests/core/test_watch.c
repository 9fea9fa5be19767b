/* A rank that does not call: the others wait, say after a second whom they wait for (what rank 2 called last, and when
 * it left that), once per stall as a warning, and once more when it went on. An abort names the missing rank. A healthy
 * run says nothing. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/trouble.h"

enum { N = 4, LATE = 2 };

static char log_path[64]; /* of all processes of a case */

static void log_begin(void) { fclose(fopen(log_path, "w")); }

/* Lines of the log with all of these words. */
static int log_lines(const char *words)
{
    char line[2048];
    int n = 0;
    FILE *f = fopen(log_path, "r");
    while (f && fgets(line, sizeof line, f)) n += !trouble_lacks(line, words);
    if (f) fclose(f);
    return n;
}

/* Waits until the log has `n` such lines, at most half a minute. */
static void log_await(const char *words, int n)
{
    for (double start = trouble_now_s(); log_lines(words) < n && trouble_now_s() < start + 30;) trouble_sleep_s(0.02);
}

static void log_show(void)
{
    char line[2048];
    FILE *f = fopen(log_path, "r");
    while (f && fgets(line, sizeof line, f))
        if (strstr(line, "waiting") || strstr(line, "went on")) print_message("%s", line);
    if (f) fclose(f);
}

static ncclResult_t allreduce(struct job_rank *rank, size_t count)
{
    float *data = calloc(count, sizeof *data);
    ncclResult_t result = ncclAllReduce(data, data, count, ncclFloat32, ncclSum, rank->comm, NULL);
    free(data);
    return result;
}

/* In step: everybody's clock for a wait starts where this ends. Leaves call #2 behind. */
static ncclResult_t begin(struct job_rank *rank)
{
    int8_t byte = 0;
    ncclResult_t result = allreduce(rank, 5);
    return result == ncclSuccess ? ncclBroadcast(&byte, &byte, 1, ncclInt8, 1, rank->comm, NULL) : result;
}

static const struct job jobs[] = {
    {.n_ranks = N},
    {.n_ranks = N, .ranks_per_process = 1},
    {.n_ranks = N, .ranks_per_process = 1, .n_hosts = 2},
    {.n_ranks = N, .ranks_per_process = 1, .n_hosts = 4},
};

/* ---- late ---- */

/* What another thread may read while the call waits. */
static void *read_last_error(void *unused)
{
    (void)unused;
    for (double start = trouble_now_s(); trouble_now_s() < start + 30; trouble_sleep_s(0.01))
        if (strstr(ncclGetLastError(NULL), "waiting")) break;
    char *text = strdup(ncclGetLastError(NULL));
    FILE *f = fopen(log_path, "a");
    fprintf(f, "the reader is done\n");
    fclose(f);
    return text;
}

static void late(struct job_rank *rank)
{
    size_t count = *(size_t *)rank->arg;
    pthread_t reader;
    char words[128];
    void *seen;
    snprintf(words, sizeof words, "waiting|AllReduce #3 of %zu float32, sum: rank 2 (host |has not called it|Broadcast "
             "#2 of 1 int8, "
             "root 1; it left that", count);
    JOB_TRY(begin(rank));
    if (rank->rank == LATE) {
        log_await("WARN|waiting|AllReduce #3", N - 1);
        log_await("the reader is done", 1);
    }
    if (rank->rank == 1) pthread_create(&reader, NULL, read_last_error, NULL);
    JOB_TRY(allreduce(rank, count));
    if (rank->rank == 1) {
        pthread_join(reader, &seen);
        const char *lacks = trouble_lacks(seen, words);
        JOB_EXPECT(!lacks, "ncclGetLastError lacks \"%s\": %s", lacks, (char *)seen);
        free(seen);
    }
    JOB_TRY(allreduce(rank, 3));
}

static void a_late_rank_is_named_and_waited_for(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        size_t count = i % 2 ? 4000 : 4; /* 4: express, where the node is one */
#if defined(__SANITIZE_THREAD__)
        if (jobs[i].ranks_per_process) continue;
#endif
        log_begin();
        job_must(&jobs[i], late, &count);
        int warned = log_lines("WARN|waiting|AllReduce #3|rank 2 (host |has not called it|Broadcast #2 of 1 int8, root "
                               "1; it left that");
        int told = log_lines("INFO|waiting|AllReduce #3|rank 2 (host |has not called it");
        int over = log_lines("AllReduce #3|went on after");
        if (warned != N - 1 || told != N - 1 || over != N - 1 || log_lines("waiting|AllReduce #4")) log_show();
        assert_int_equal(warned, N - 1); /* once each */
        assert_int_equal(told, N - 1);
        assert_int_equal(over, N - 1);
        assert_int_equal(log_lines("waiting|AllReduce #4"), 0);
    }
}

/* ---- a signal that does not come ---- */

static void silent(struct job_rank *rank)
{
    ncclWaitSignalDesc_t twice = {.opCnt = 2, .peer = LATE, .sigIdx = 3};
    JOB_TRY(begin(rank));
    for (int r = 0; rank->rank == LATE && r < N; r++)
        if (r != LATE) JOB_TRY(ncclSignal(r, 3, 0, 0, rank->comm, NULL));
    if (rank->rank == LATE) log_await("WARN|waiting|ncclWaitSignal", N - 1);
    for (int r = 0; rank->rank == LATE && r < N; r++)
        if (r != LATE) JOB_TRY(ncclSignal(r, 3, 0, 0, rank->comm, NULL));
    if (rank->rank != LATE) JOB_TRY(ncclWaitSignal(1, &twice, rank->comm, NULL));
}

static void a_signal_that_does_not_come_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i += 2) { /* threads, two hosts */
#if defined(__SANITIZE_THREAD__)
        if (jobs[i].ranks_per_process) continue;
#endif
        log_begin();
        job_must(&jobs[i], silent, NULL);
        const char *words = "waiting|ncclWaitSignal: rank 2 (host |signal (sigIdx 3, ctx 0) 1 times|time number 2";
        int told = log_lines(words), over = log_lines("ncclWaitSignal went on after");
        if (told != 2 * (N - 1) || over != N - 1) log_show();
        assert_int_equal(told, 2 * (N - 1)); /* INFO, and WARN */
        assert_int_equal(over, N - 1);
    }
}

/* ---- a rank that does not come to a window ---- */

static void windowless(struct job_rank *rank)
{
    static char memory[64];
    ncclWindow_t window;
    if (rank->rank == LATE) log_await("WARN|waiting|all ranks meet|rank 2 has not come", 1);
    JOB_TRY(ncclCommWindowRegister(rank->comm, memory, sizeof memory, &window, 0));
}

static void a_rank_that_does_not_come_to_a_window_is_named(void **state)
{
    (void)state;
#if defined(__SANITIZE_THREAD__)
    skip();
#endif
    log_begin();
    job_must(&jobs[2], windowless, NULL);
    assert_int_equal(log_lines("WARN|waiting|all ranks meet|rank 2 has not come"), 1); /* rank 0 speaks for all */
    assert_int_equal(log_lines("WARN|all ranks met|went on after"), 1);
}

/* ---- aborted while it waits ---- */

static void *abort_later(void *comm)
{
    log_await("WARN|waiting|AllReduce #3", N - 1);
    (void)ncclCommAbort(comm);
    return NULL;
}

struct abortion { size_t count; int hosts; };

static void aborted(struct job_rank *rank)
{
    const struct abortion *a = rank->arg;
    pthread_t thread;
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    JOB_TRY(begin(rank));
    if (rank->rank == LATE) { /* hears of it */
        ncclResult_t heard = ncclSuccess;
        double start = trouble_now_s();
        for (; heard == ncclSuccess && trouble_now_s() < start + 40; trouble_sleep_s(0.01))
            JOB_TRY(ncclCommGetAsyncError(rank->comm, &heard));
        JOB_EXPECT(heard == ncclRemoteError, "heard %d", heard);
    } else {
        if (rank->rank == 0) pthread_create(&thread, NULL, abort_later, rank->comm);
        ncclResult_t result = allreduce(rank, a->count);
        JOB_EXPECT(result == (rank->rank == 0 ? ncclInvalidUsage : ncclRemoteError), "result %d", result);
        if (rank->rank == 0) pthread_join(thread, NULL);
    }
    const char *lacks = trouble_lacks(ncclGetLastError(NULL),
                                      "rank 0 called ncclCommAbort|AllReduce #3|rank 2 (host |has not called it");
    /* Between hosts the process's last words may be of a lane whose far end was faster. */
    bool own_lanes = rank->rank == 0 && a->hosts > 1;
    JOB_EXPECT(!lacks || own_lanes, "lacks \"%s\": %s", lacks, ncclGetLastError(NULL));
    if (rank->rank != 0) JOB_TRY(ncclCommAbort(rank->comm));
}

static void an_abort_says_who_was_missing(void **state)
{
    (void)state;
#if defined(__SANITIZE_THREAD__)
    skip();
#endif
    static struct abortion cases[] = {{4, 1}, {4000, 1}, {4000, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct job job = {.n_ranks = N, .ranks_per_process = 1, .n_hosts = cases[i].hosts, .bare = true};
        log_begin();
        job_must(&job, aborted, &cases[i]);
    }
}

/* ---- a process that is stopped ---- */

static void stopped(struct job_rank *rank)
{
    pid_t child;
    JOB_TRY(begin(rank));
    if (rank->rank == LATE) {
        pid_t self = getpid();
        if ((child = fork()) == 0) { /* somebody has to wake us */
            log_await("rank 2 (host |has not answered for", 1);
            kill(self, SIGCONT);
            _exit(0);
        }
        kill(self, SIGSTOP);
        waitpid(child, NULL, 0);
    }
    JOB_TRY(allreduce(rank, 100));
}

static void a_stopped_process_is_told_from_a_late_one(void **state)
{
    (void)state;
#if defined(__SANITIZE_THREAD__)
    skip();
#endif
    struct job job = {.n_ranks = N, .ranks_per_process = 1, .n_hosts = 2};
    log_begin();
    job_must(&job, stopped, NULL);
    if (!log_lines("waiting|rank 2 (host |has not answered for|stopped")) log_show();
    assert_int_not_equal(log_lines("waiting|rank 2 (host |has not answered for|stopped"), 0);
}

/* ---- nothing to say ---- */

static void healthy(struct job_rank *rank)
{
    for (int i = 0; i < 30; i++) JOB_TRY(allreduce(rank, i % 2 ? 5 : 200000));
}

static void a_healthy_run_says_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
#if defined(__SANITIZE_THREAD__)
        if (jobs[i].ranks_per_process) continue;
#endif
        log_begin();
        double start = trouble_now_s();
        job_must(&jobs[i], healthy, NULL);
        if (trouble_now_s() - start < 1) assert_int_equal(log_lines("waiting"), 0); /* nobody can have waited for 1 s */
    }
}

int main(void)
{
    snprintf(log_path, sizeof log_path, "/tmp/railccl-test-watch.%d", (int)getpid());
    setenv("RAILCCL_WATCH_S", "1", 1);
    setenv("NCCL_DEBUG", "INFO", 1);
    setenv("NCCL_DEBUG_FILE", log_path, 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_late_rank_is_named_and_waited_for),
        cmocka_unit_test(a_signal_that_does_not_come_is_named),
        cmocka_unit_test(a_rank_that_does_not_come_to_a_window_is_named),
        cmocka_unit_test(an_abort_says_who_was_missing),
        cmocka_unit_test(a_stopped_process_is_told_from_a_late_one),
        cmocka_unit_test(a_healthy_run_says_nothing),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(log_path);
    return failed;
}
