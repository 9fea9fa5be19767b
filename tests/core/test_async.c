/* blocking = 0: what takes long returns ncclInProgress at once and goes on by itself; the handle that is there at once
 * answers only how it is, until it is ready. What torch.distributed does with such communicators is done here. */
#include <dirent.h>
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
#include <unistd.h>

#include <cmocka.h>

#include "railccl.h"
#include "support/trouble.h"

/* "At once" is the making of a thread and no more; this is what a busy machine and a sanitizer may make of it. */
#define AT_ONCE_S 1.0
enum { PATIENCE_S = 30 };

static ncclConfig_t config_with(int blocking)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = blocking;
    return config;
}

/* Polls until it is something else than in progress; ncclNumResults when that takes too long. */
static ncclResult_t settle(ncclComm_t comm)
{
    double start_s = trouble_now_s();
    ncclResult_t state;
    do {
        ncclResult_t asked = ncclCommGetAsyncError(comm, &state);
        if (asked != ncclSuccess) return asked;
        if (state == ncclInProgress) usleep(500);
    } while (state == ncclInProgress && trouble_now_s() - start_s < PATIENCE_S);
    return state == ncclInProgress ? ncclNumResults : state;
}

static bool starts(struct job_rank *rank, const char *what, ncclResult_t got, double began_s)
{
    double took_s = trouble_now_s() - began_s;
    if (got == ncclInProgress && took_s < AT_ONCE_S) return true;
    job_fail(rank, "%s: %d after %.3f s: %s", what, got, took_s, ncclGetLastError(NULL));
    return false;
}

static bool init(struct job_rank *rank, ncclComm_t *comm)
{
    ncclConfig_t config = config_with(0);
    double start_s = trouble_now_s();
    *comm = NULL;
    ncclResult_t result = ncclCommInitRankConfig(comm, rank->n_ranks, rank->id, rank->rank, &config);
    if (!starts(rank, "init", result, start_s)) return false;
    if (*comm) return true;
    job_fail(rank, "init wrote no handle");
    return false;
}

static bool ready(struct job_rank *rank, const char *what, ncclComm_t comm)
{
    ncclResult_t state = settle(comm);
    if (state != ncclSuccess) job_fail(rank, "%s: became %d: %s", what, state, ncclGetLastError(NULL));
    return state == ncclSuccess;
}

/* ---- init ---- */

static void late_first_rank(struct job_rank *rank)
{
    _Atomic int *refused = rank->arg; /* ranks that have looked at what an unready handle says */
    ncclComm_t comm;
    ncclResult_t state;
    int count;
    float x = 0;
    if (rank->rank == 0) {
        double start_s = trouble_now_s();
        while (atomic_load(refused) < rank->n_ranks - 1 && trouble_now_s() - start_s < PATIENCE_S) usleep(1000);
    }
    if (!init(rank, &comm)) return;
    if (rank->rank) { /* rank 0 comes only when we are through with this */
        JOB_TRY(ncclCommGetAsyncError(comm, &state));
        JOB_EXPECT(state == ncclInProgress, "is %d without rank 0", state);
        if (!trouble_says(rank, "count", ncclCommCount(comm, &count), ncclInvalidUsage, "ncclCommCount|still being made") ||
            !trouble_says(rank, "sum", ncclAllReduce(&x, &x, 1, ncclFloat32, ncclSum, comm, NULL), ncclInvalidUsage,
                          "ncclAllReduce|still being made|ncclCommGetAsyncError") ||
            !trouble_says(rank, "split", ncclCommSplit(comm, 0, 0, &comm, NULL), ncclInvalidUsage,
                          "ncclCommSplit|still being made") ||
            !trouble_says(rank, "finalize", ncclCommFinalize(comm), ncclInvalidUsage, "ncclCommFinalize|still being made"))
            return;
        atomic_fetch_add(refused, 1);
    }
    if (!ready(rank, "init", comm)) return;
    JOB_TRY(ncclCommCount(comm, &count));
    JOB_EXPECT(count == rank->n_ranks, "has %d ranks", count);
    JOB_TRY(trouble_allreduce(comm, rank->n_ranks, 2));
    JOB_TRY(trouble_allreduce(comm, rank->n_ranks, 70000));
    double start_s = trouble_now_s();
    if (!starts(rank, "finalize", ncclCommFinalize(comm), start_s) || !ready(rank, "finalize", comm)) return;
    if (!trouble_says(rank, "after", trouble_allreduce(comm, rank->n_ranks, 2), ncclInvalidUsage, "finalized")) return;
    JOB_TRY(ncclCommDestroy(comm));
}

static void init_returns_at_once_and_becomes_ready(void **state)
{
    (void)state;
    _Atomic int *refused = trouble_shared(sizeof *refused);
    for (int hosts = 1; hosts <= 2; hosts++) {
        atomic_store(refused, 0);
        job_must(&(struct job){.n_ranks = 4, .ranks_per_process = 1, .n_hosts = hosts, .bare = true}, late_first_rank,
                 refused);
    }
}

static void rank_missing(struct job_rank *rank)
{
    ncclComm_t comm;
    int count;
    if (rank->rank == 2) return;
    if (!init(rank, &comm)) return;
    if (!trouble_says(rank, "init", settle(comm), ncclRemoteError, "rank 2|did not arrive")) return;
    if (!trouble_says(rank, "count", ncclCommCount(comm, &count), ncclInvalidUsage, "could not be made|rank 2")) return;
    if (!trouble_says(rank, "still", settle(comm), ncclRemoteError, "rank 2|did not arrive")) return;
    JOB_TRY(rank->rank ? ncclCommAbort(comm) : ncclCommDestroy(comm));
    trouble_says(rank, "gone", ncclCommGetAsyncError(comm, &(ncclResult_t){0}), ncclInvalidArgument, "not a living");
}

static void a_missing_rank_is_told_by_async_error(void **state)
{
    (void)state;
    static const char *const env[] = {"RAILCCL_INIT_TIMEOUT_S=1", NULL};
    job_must(&(struct job){.n_ranks = 3, .ranks_per_process = 1, .bare = true, .env = env}, rank_missing, NULL);
}

/* Nobody else ever comes. */
static void abort_alone(struct job_rank *rank)
{
    ncclComm_t comm;
    if (rank->rank) return;
    for (int i = 0; i < 20 && !rank->why[0]; i++) {
        JOB_TRY(ncclGetUniqueId(&rank->id));
        if (!init(rank, &comm)) return;
        usleep((useconds_t)(i * 2000));
        double start_s = trouble_now_s();
        JOB_TRY(ncclCommAbort(comm));
        JOB_EXPECT(trouble_now_s() - start_s < AT_ONCE_S, "abort took %.3f s", trouble_now_s() - start_s);
        trouble_says(rank, "gone", ncclCommGetAsyncError(comm, &(ncclResult_t){0}), ncclInvalidArgument, "not a living");
    }
    for (int i = 0; i < 400 && trouble_threads() > 2; i++) usleep(5000);
    JOB_EXPECT(trouble_threads() <= 2, "%d threads are left", trouble_threads());
}

static void an_init_in_progress_can_be_aborted(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1, .bare = true}, abort_alone, NULL);
}

static void destroy_at_once(struct job_rank *rank)
{
    ncclComm_t comm;
    for (int i = 0; i < 5; i++) {
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
        ncclUniqueId id = {{0}};
        if (rank->rank == 0) JOB_TRY(ncclGetUniqueId(&id));
        JOB_TRY(ncclBcast(&id, sizeof id, ncclUint8, 0, rank->comm, NULL));
        rank->id = id;
        if (!init(rank, &comm)) return;
        JOB_TRY(ncclCommDestroy(comm));
    }
}

static void an_init_in_progress_can_be_destroyed(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 3, .ranks_per_process = 1}, destroy_at_once, NULL);
}

static void one_group_of_inits(void **state)
{
    (void)state;
    enum { N = 3 };
    ncclComm_t comms[N];
    ncclUniqueId id;
    ncclConfig_t config = config_with(0);
    assert_int_equal(ncclGetUniqueId(&id), ncclSuccess);
    assert_int_equal(ncclGroupStart(), ncclSuccess);
    for (int r = 0; r < N; r++) assert_int_equal(ncclCommInitRankConfig(&comms[r], N, id, r, &config), ncclSuccess);
    assert_int_equal(ncclGroupEnd(), ncclInProgress);
    for (int r = 0; r < N; r++) assert_int_equal(settle(comms[r]), ncclSuccess);
    float x[N];
    assert_int_equal(ncclGroupStart(), ncclSuccess);
    for (int r = 0; r < N; r++) {
        x[r] = 1;
        assert_int_equal(ncclAllReduce(&x[r], &x[r], 1, ncclFloat32, ncclSum, comms[r], NULL), ncclSuccess);
    }
    assert_int_equal(ncclGroupEnd(), ncclSuccess);
    for (int r = 0; r < N; r++) assert_true(x[r] == N);
    for (int r = 0; r < N; r++) assert_int_equal(ncclCommDestroy(comms[r]), ncclSuccess);
}

/* ---- the environment and the threads ---- */

static void by_environment(struct job_rank *rank)
{
    bool blocking = *(const bool *)rank->arg;
    ncclConfig_t config = config_with(!blocking);
    ncclComm_t comm = NULL;
    ncclResult_t result = ncclCommInitRankConfig(&comm, rank->n_ranks, rank->id, rank->rank, &config);
    JOB_EXPECT(result == (blocking ? ncclSuccess : ncclInProgress), "init: %d", result);
    if (!ready(rank, "init", comm)) return;
    JOB_TRY(ncclCommDestroy(comm));
}

static void the_environment_beats_the_configuration(void **state)
{
    (void)state;
    static bool cases[] = {false, true};
    static const char *const env[][2] = {{"NCCL_COMM_BLOCKING=0", NULL}, {"NCCL_COMM_BLOCKING=1", NULL}};
    for (int i = 0; i < 2; i++)
        job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1, .bare = true, .env = env[i]}, by_environment,
                 &cases[i]);
}

/* How many of this process's threads are the library's, and how many of those have not all signals blocked. */
static int library_threads(int *open_to_signals)
{
    DIR *dir = opendir("/proc/self/task");
    int n = 0;
    *open_to_signals = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char path[300], line[256], name[32] = "";
        unsigned long long blocked = 0;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        FILE *f = fopen(path, "r");
        while (f && fgets(line, sizeof line, f)) {
            sscanf(line, "Name: %31s", name);
            sscanf(line, "SigBlk: %llx", &blocked);
        }
        if (f) fclose(f);
        if (strcmp(name, "railccl") != 0) continue;
        n++;
        *open_to_signals += (blocked & 0x7fffffff & ~(1ull << 8 | 1ull << 18)) != (0x7fffffff & ~(1ull << 8 | 1ull << 18));
    }
    if (dir) closedir(dir);
    return n;
}

static void alone_in_progress(struct job_rank *rank)
{
    ncclComm_t comm;
    int open_to_signals = -1, n = 0;
    if (rank->rank) return;
    if (!init(rank, &comm)) return;
    for (int i = 0; i < 1000 && n < 2; i++, usleep(1000)) n = library_threads(&open_to_signals);
    JOB_EXPECT(n == 2 && open_to_signals == 0, "%d library threads, %d take signals", n, open_to_signals);
    JOB_TRY(ncclCommAbort(comm));
}

static void the_thread_that_goes_on_takes_no_signals(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1, .bare = true}, alone_in_progress, NULL);
}

/* ---- as torch.distributed does ---- */

struct watchdog {
    ncclComm_t comm;
    _Atomic bool over;
    double abort_after_s; /* < 0: never */
    _Atomic ncclResult_t worst;
    ncclResult_t aborted;
    pthread_t thread;
};

/* Polls all the time, as ProcessGroupNCCL's watchdog does, and ends the communicator when its time is up. */
static void *watches(void *arg)
{
    struct watchdog *w = arg;
    double start_s = trouble_now_s();
    w->aborted = ncclNumResults;
    while (!atomic_load(&w->over)) {
        ncclResult_t state = ncclSuccess, asked = ncclCommGetAsyncError(w->comm, &state);
        if (asked != ncclSuccess) w->worst = asked;
        if (state != ncclSuccess && state != ncclInProgress) w->worst = state;
        if (w->abort_after_s >= 0 && trouble_now_s() - start_s > w->abort_after_s) {
            w->aborted = ncclCommAbort(w->comm);
            return NULL;
        }
    }
    return NULL;
}

static void watch(struct watchdog *w, ncclComm_t comm, double abort_after_s)
{
    *w = (struct watchdog){.comm = comm, .abort_after_s = abort_after_s};
    pthread_create(&w->thread, NULL, watches, w);
}

static ncclResult_t unwatch(struct watchdog *w)
{
    atomic_store(&w->over, true);
    pthread_join(w->thread, NULL);
    return w->worst;
}

static bool split_as_torch(struct job_rank *rank, ncclComm_t parent, int color, ncclComm_t *child)
{
    ncclConfig_t config = config_with(0);
    double start_s = trouble_now_s();
    *child = NULL;
    if (!starts(rank, "split", ncclCommSplit(parent, color, rank->rank, child, &config), start_s)) return false;
    if (color != NCCL_SPLIT_NOCOLOR)
        while (!*child && trouble_now_s() - start_s < PATIENCE_S) sched_yield();
    if (!ready(rank, "the parent of a split", parent)) return false;
    return color == NCCL_SPLIT_NOCOLOR || ready(rank, "split", *child);
}

static void process_group(struct job_rank *rank)
{
    ncclComm_t world, half, most;
    struct watchdog dogs[2];
    int n = rank->n_ranks, color = rank->rank % 2;
    if (!init(rank, &world)) return;
    watch(&dogs[0], world, -1);
    if (!ready(rank, "init", world)) return;
    for (int i = 0; i < 10; i++) JOB_TRY(trouble_allreduce(world, n, i % 2 ? 2 : 5000));
    if (!split_as_torch(rank, world, color, &half)) return;
    watch(&dogs[1], half, -1);
    for (int i = 0; i < 10; i++) {
        JOB_TRY(trouble_allreduce(half, (n + 1 - color) / 2, i % 2 ? 2 : 5000));
        JOB_TRY(trouble_allreduce(world, n, 100));
    }
    if (!split_as_torch(rank, world, rank->rank ? 3 : NCCL_SPLIT_NOCOLOR, &most)) return;
    JOB_EXPECT(rank->rank || !most, "NOCOLOR got a handle");
    if (most) JOB_TRY(trouble_allreduce(most, n - 1, 300));
    if (most) JOB_TRY(ncclCommDestroy(most));
    JOB_EXPECT(unwatch(&dogs[1]) == ncclSuccess, "the watchdog saw %d: %s", dogs[1].worst, ncclGetLastError(NULL));
    double start_s = trouble_now_s();
    if (!starts(rank, "finalize", ncclCommFinalize(half), start_s) || !ready(rank, "finalize", half)) return;
    JOB_TRY(ncclCommDestroy(half));
    JOB_TRY(trouble_allreduce(world, n, 1)); /* nobody is still in the half */
    JOB_EXPECT(unwatch(&dogs[0]) == ncclSuccess, "the watchdog saw %d: %s", dogs[0].worst, ncclGetLastError(NULL));
    JOB_TRY(ncclCommDestroy(world));
}

static void on_shapes(void (*body)(struct job_rank *))
{
    static const struct job shapes[] = {
        {.n_ranks = 3, .bare = true},
        {.n_ranks = 4, .ranks_per_process = 1, .bare = true},
        {.n_ranks = 4, .ranks_per_process = 1, .n_hosts = 2, .bare = true},
        {.n_ranks = 5, .ranks_per_process = 2, .bare = true},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
#if defined(__SANITIZE_THREAD__)
        if (shapes[i].ranks_per_process) continue;
#endif
        job_must(&shapes[i], body, NULL);
    }
}

static void a_process_group_with_a_watchdog(void **state) { (void)state; on_shapes(process_group); }

/* The watchdog of rank 1 ends what its main thread waits in: rank 0 never comes. */
static void watchdog_ends_it(struct job_rank *rank)
{
    ncclComm_t world, child = NULL;
    struct watchdog dog;
    if (!init(rank, &world) || !ready(rank, "init", world)) return;
    if (rank->rank == 0) {
        ncclResult_t told;
        while ((told = settle(world)) == ncclSuccess) usleep(1000);
        JOB_EXPECT(told == ncclRemoteError, "is told %d: %s", told, ncclGetLastError(NULL));
        JOB_TRY(ncclCommAbort(world));
        return;
    }
    watch(&dog, world, 0.1 * rank->rank);
    ncclResult_t result = ncclSuccess;
    if (rank->rank % 2) result = trouble_allreduce(world, rank->n_ranks, 50000);
    else if (ncclCommSplit(world, 0, 0, &child, NULL) == ncclInProgress) result = settle(child);
    JOB_EXPECT(result != ncclSuccess, "success without rank 0");
    unwatch(&dog);
    if (dog.aborted != ncclSuccess) JOB_TRY(ncclCommAbort(world));
    if (child) JOB_TRY(ncclCommAbort(child));
}

static void a_watchdog_aborts_what_hangs(void **state) { (void)state; on_shapes(watchdog_ends_it); }

/* A watchdog that is not told in time: it asks a communicator that is being destroyed, and that was. */
static void destroyed_under_the_watchdog(struct job_rank *rank)
{
    for (int i = 0; i < 20 && !rank->why[0]; i++) {
        ncclComm_t comm;
        struct watchdog dog;
        ncclUniqueId id = {{0}};
        if (rank->rank == 0) JOB_TRY(ncclGetUniqueId(&id));
        JOB_TRY(ncclBcast(&id, sizeof id, ncclUint8, 0, rank->comm, NULL));
        rank->id = id;
        if (!init(rank, &comm)) return;
        watch(&dog, comm, -1);
        if (i % 2 && !ready(rank, "init", comm)) return;
        ncclResult_t result = ncclCommDestroy(comm);
        double start_s = trouble_now_s();
        while (atomic_load(&dog.worst) == ncclSuccess && trouble_now_s() - start_s < PATIENCE_S) usleep(100);
        ncclResult_t worst = unwatch(&dog);
        JOB_TRY(result);
        JOB_EXPECT(worst == ncclInvalidArgument, "the watchdog saw %d", worst);
    }
}

static void a_watchdog_that_asks_too_late_is_told(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2}, destroyed_under_the_watchdog, NULL);
#if !defined(__SANITIZE_THREAD__)
    job_must(&(struct job){.n_ranks = 3, .ranks_per_process = 1}, destroyed_under_the_watchdog, NULL);
#endif
}

/* ---- beside streams ---- */

/* Rank 0 comes late to what the others have posted; then they split and finalize, and neither waits for it. */
static void posts_then_splits(struct job_rank *rank)
{
    ncclComm_t comm, child;
    cudaStream_t stream;
    float x = 1, y = 2;
    int n = rank->n_ranks;
    if (!init(rank, &comm) || !ready(rank, "init", comm)) return;
    JOB_TRY(railStreamCreate(&stream));
    if (rank->rank == 0) trouble_sleep_s(0.3);
    JOB_TRY(ncclAllReduce(&x, &x, 1, ncclFloat32, ncclSum, comm, stream));
    if (!split_as_torch(rank, comm, 0, &child)) return;
    JOB_TRY(railStreamSynchronize(stream));
    JOB_EXPECT(x == (float)n, "the sum is %g", x);
    if (rank->rank == 0) trouble_sleep_s(0.3);
    JOB_TRY(ncclAllReduce(&y, &y, 1, ncclFloat32, ncclSum, comm, stream));
    double start_s = trouble_now_s();
    if (!starts(rank, "finalize", ncclCommFinalize(comm), start_s) || !ready(rank, "finalize", comm)) return;
    JOB_EXPECT(y == 2 * (float)n, "finalized before the sum, which is %g", y);
    JOB_TRY(trouble_allreduce(child, n, 5));
    JOB_TRY(railStreamDestroy(stream));
    JOB_TRY(ncclCommDestroy(child));
    JOB_TRY(ncclCommDestroy(comm));
}

static void what_was_posted_to_a_stream_comes_first(void **state) { (void)state; on_shapes(posts_then_splits); }

/* ---- at any moment ---- */

struct aborter { ncclComm_t comm; unsigned delay_us; double took_s; ncclResult_t result; };

static void *aborts(void *arg)
{
    struct aborter *a = arg;
    usleep(a->delay_us);
    double start_s = trouble_now_s();
    a->result = ncclCommAbort(a->comm);
    a->took_s = trouble_now_s() - start_s;
    return NULL;
}

/* Init, then splits, and an abort at some moment of it, by any of the ranks, of the parent or of the child. Everybody
 * ends up with an error or with success, in bounded time, and holds nothing. */
static void storm(struct job_rank *rank)
{
    unsigned seed = (unsigned)rank->rank * 7919u + 3;
    for (int i = 0; i < 30 && !rank->why[0]; i++) {
        ncclUniqueId id = {{0}};
        ncclComm_t comm, child = NULL;
        if (rank->rank == 0) JOB_TRY(ncclGetUniqueId(&id));
        JOB_TRY(ncclBcast(&id, sizeof id, ncclUint8, 0, rank->comm, NULL));
        rank->id = id;
        if (!init(rank, &comm)) return;
        bool of_child = i % 3 == 0;
        if (i % 2 || of_child) {
            ncclResult_t joined = settle(comm);
            JOB_EXPECT(joined != ncclNumResults, "init never ended");
            if (joined == ncclSuccess && ncclCommSplit(comm, rank->rank % 2, 0, &child, NULL) != ncclInProgress) child = NULL;
        }
        struct aborter a = {.comm = of_child && child ? child : comm, .delay_us = (unsigned)(rand_r(&seed) % 4000)};
        pthread_t thread;
        pthread_create(&thread, NULL, aborts, &a);
        if (child && a.comm != child) JOB_EXPECT(settle(child) != ncclNumResults, "the split never ended");
        pthread_join(thread, NULL);
        JOB_EXPECT(a.result == ncclSuccess && a.took_s < AT_ONCE_S, "abort: %d after %.3f s", a.result, a.took_s);
        if (a.comm == child) JOB_TRY(ncclCommAbort(comm));
        else if (child) JOB_TRY(ncclCommAbort(child));
    }
    for (int i = 0; i < 400 && trouble_threads() > 2; i++) usleep(5000);
    JOB_EXPECT(trouble_threads() <= 2, "%d threads are left", trouble_threads());
}

static void aborts_at_random_moments(void **state)
{
    (void)state;
    for (int hosts = 1; hosts <= 2; hosts++)
        job_must(&(struct job){.n_ranks = 4, .ranks_per_process = 1, .n_hosts = hosts}, storm, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_returns_at_once_and_becomes_ready),
        cmocka_unit_test(a_missing_rank_is_told_by_async_error),
        cmocka_unit_test(an_init_in_progress_can_be_aborted),
        cmocka_unit_test(an_init_in_progress_can_be_destroyed),
        cmocka_unit_test(one_group_of_inits),
        cmocka_unit_test(the_environment_beats_the_configuration),
        cmocka_unit_test(the_thread_that_goes_on_takes_no_signals),
        cmocka_unit_test(a_process_group_with_a_watchdog),
        cmocka_unit_test(a_watchdog_aborts_what_hangs),
        cmocka_unit_test(a_watchdog_that_asks_too_late_is_told),
        cmocka_unit_test(what_was_posted_to_a_stream_comes_first),
        cmocka_unit_test(aborts_at_random_moments),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
