/* ncclCommAbort returns within 100 ms whatever the communicator is doing and whatever became of its peers, called by
 * the thread that uses it or by another, and a call that another thread is inside returns as soon.
 *
 * Rank 1 aborts; rank 0 is the peer, which comes late, never comes, is stopped, or dies. Each cell of the table is run
 * with ranks as threads, as processes, and as processes of two hosts, where that makes sense. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
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

#include "support/trouble.h"

/* The promise. A busy machine may take the CPU away for longer than that: a cell has three attempts. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ABORT_S 1.0
#else
#define ABORT_S 0.1
#endif
enum { ATTEMPTS = 3, PATIENCE_S = 20 };

enum peer { LATE, STOPPED, DEAD };

/* What rank 1 is doing when it is aborted. `enter` is what its main thread calls: where that blocks, another thread
 * aborts; where it returns ncclInProgress or nothing was called, the main thread does, or another one, by turns. */
struct cell {
    const char *name;
    ncclResult_t (*enter)(ncclComm_t comm, ncclComm_t other, ncclComm_t *child);
    bool blocks;    /* inside `enter` until it is aborted */
    bool in_progress; /* `enter` returns ncclInProgress: blocking = 0 */
    bool joining;   /* there is no communicator before: `enter` gets NULL */
    enum peer peer;
    bool hosts_only;  /* waits for the network alone */
};

static ncclUniqueId some_id; /* of this process: for cells that join */

static ncclResult_t sum(ncclComm_t comm, size_t count)
{
    float *data = calloc(count, sizeof *data);
    ncclResult_t result = ncclAllReduce(data, data, count, ncclFloat32, ncclSum, comm, NULL);
    free(data);
    return result;
}

typedef ncclComm_t handle;
static ncclResult_t nothing(handle c, handle o, handle *child) { (void)c, (void)o, (void)child; return ncclSuccess; }
static ncclResult_t small(handle c, handle o, handle *child) { (void)o, (void)child; return sum(c, 2); }
static ncclResult_t large(handle c, handle o, handle *child) { (void)o, (void)child; return sum(c, 3000000); }
static ncclResult_t split(handle c, handle o, handle *child) { (void)o; return ncclCommSplit(c, 0, 0, child, NULL); }
static ncclResult_t end(handle c, handle o, handle *child) { (void)o, (void)child; return ncclCommFinalize(c); }

static ncclResult_t receive(handle c, handle o, handle *child)
{
    char byte;
    (void)o, (void)child;
    return ncclRecv(&byte, 1, ncclInt8, 0, c, NULL);
}

static ncclResult_t group_of_two(handle c, handle o, handle *child)
{
    static float x[2][3000];
    (void)child;
    ncclGroupStart();
    ncclAllReduce(x[0], x[0], 3000, ncclFloat32, ncclSum, c, NULL);
    ncclAllReduce(x[1], x[1], 3000, ncclFloat32, ncclSum, o, NULL);
    return ncclGroupEnd();
}

static ncclResult_t shrink(handle c, handle o, handle *child)
{
    (void)o;
    return ncclCommShrink(c, NULL, 0, child, NULL, NCCL_SHRINK_DEFAULT);
}

/* Sends what the peer does not take, then closes. */
static ncclResult_t end_with_full_queues(handle c, handle o, handle *child)
{
    static char data[16384];
    (void)o, (void)child;
    for (int i = 0; i < 2; i++)
        if (ncclSend(data, sizeof data, ncclInt8, 0, c, NULL) != ncclSuccess) return ncclInternalError;
    return ncclCommFinalize(c);
}

static ncclResult_t destroy_with_full_queues(handle c, handle o, handle *child)
{
    static char data[16384];
    (void)o, (void)child;
    return ncclSend(data, sizeof data, ncclInt8, 0, c, NULL) == ncclSuccess ? ncclCommDestroy(c) : ncclInternalError;
}

static ncclResult_t join_somebody(const ncclUniqueId *id, handle *child)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    return ncclCommInitRankConfig(child, 2, *id, 1, &config);
}

static ncclResult_t join_without_rank_0(handle c, handle o, handle *child)
{
    (void)c, (void)o;
    return ncclGetUniqueId(&some_id) == ncclSuccess ? join_somebody(&some_id, child) : ncclInternalError;
}

/* The id is of a process that is no more. */
static ncclResult_t join_without_root(handle c, handle o, handle *child)
{
    int ends[2];
    (void)c, (void)o;
    if (pipe2(ends, O_CLOEXEC) != 0) return ncclInternalError;
    pid_t pid = fork();
    if (pid == 0) {
        if (ncclGetUniqueId(&some_id) != ncclSuccess || write(ends[1], &some_id, sizeof some_id) < 0) _exit(1);
        _exit(0);
    }
    close(ends[1]);
    ssize_t n = read(ends[0], &some_id, sizeof some_id);
    close(ends[0]);
    waitpid(pid, NULL, 0);
    return n == (ssize_t)sizeof some_id ? join_somebody(&some_id, child) : ncclInternalError;
}

static ncclResult_t split_after_revoking(handle c, handle o, handle *child)
{
    ncclResult_t result = ncclCommRevoke(c, NCCL_REVOKE_DEFAULT);
    (void)o;
    return result == ncclSuccess ? ncclCommSplit(c, 0, 0, child, NULL) : result;
}

static void *revokes(void *comm)
{
    trouble_sleep_s(0.06); /* when the abort comes */
    (void)ncclCommRevoke(comm, NCCL_REVOKE_DEFAULT);
    return NULL;
}

/* Who revokes and who aborts get in each other's way, or not: both must return. */
static ncclResult_t large_while_revoked(handle c, handle o, handle *child)
{
    pthread_t thread;
    (void)o, (void)child;
    pthread_create(&thread, NULL, revokes, c);
    ncclResult_t result = sum(c, 3000000);
    pthread_join(thread, NULL);
    return result;
}

static ncclResult_t revoke_it(handle c, handle o, handle *child)
{
    (void)o, (void)child;
    return ncclCommRevoke(c, NCCL_REVOKE_DEFAULT);
}

static ncclResult_t shrink_without_the_peer_twice(handle c, handle o, handle *child)
{
    int peer = 0;
    (void)o;
    ncclResult_t result = ncclCommShrink(c, &peer, 1, child, NULL, NCCL_SHRINK_ABORT);
    if (result != ncclSuccess || ncclCommAbort(*child) != ncclSuccess) return result;
    *child = NULL;
    return shrink(c, o, child);
}

static ncclResult_t grow(handle c, handle o, handle *child)
{
    (void)o;
    ncclResult_t result = ncclCommGetUniqueId(c, &some_id);
    return result == ncclSuccess ? ncclCommGrow(c, 3, &some_id, -1, child, NULL) : result;
}

static ncclResult_t grow_as_a_new_rank(handle c, handle o, handle *child)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    (void)c, (void)o;
    if (ncclGetUniqueId(&some_id) != ncclSuccess) return ncclInternalError;
    return ncclCommGrow(NULL, 2, &some_id, 1, child, &config);
}

/* The old one, of one rank, is aborted: the new rank does not come. */
static ncclResult_t grow_without_the_new_rank(handle c, handle o, handle *child)
{
    static ncclComm_t grown;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclResult_t state = ncclInProgress;
    config.blocking = 0;
    (void)c, (void)o;
    if (ncclGetUniqueId(&some_id) != ncclSuccess) return ncclInternalError;
    if (ncclCommInitRankConfig(child, 1, some_id, 0, &config) != ncclInProgress) return ncclInternalError;
    while (state == ncclInProgress && ncclCommGetAsyncError(*child, &state) == ncclSuccess) usleep(200);
    if (state != ncclSuccess || ncclCommGetUniqueId(*child, &some_id) != ncclSuccess) return ncclInternalError;
    return ncclCommGrow(*child, 2, &some_id, -1, &grown, NULL);
}

static const struct cell cells[] = {
    {"joining, the root is gone", join_without_root, false, true, true, LATE, false},
    {"joining, the other rank is absent", join_without_rank_0, false, true, true, LATE, false},
    {"idle", nothing, false, false, false, LATE, false},
    {"idle, the peer is stopped", nothing, false, false, false, STOPPED, false},
    {"idle, the peer is dead", nothing, false, false, false, DEAD, false},
    {"in a small call, the peer is late", small, true, false, false, LATE, false},
    {"in a small call, the peer is stopped", small, true, false, false, STOPPED, false},
    {"in a large call, the peer is late", large, true, false, false, LATE, false},
    {"in a large call, the peer is stopped", large, true, false, false, STOPPED, false},
    {"in a large call, the peer is dead", large, true, false, false, DEAD, false},
    {"in a receive, the peer is late", receive, true, false, false, LATE, false},
    {"in a group of two communicators", group_of_two, true, false, false, LATE, false},
    {"in a group of two communicators, the peer is stopped", group_of_two, true, false, false, STOPPED, false},
    {"in split, the peer is late", split, true, false, false, LATE, false},
    {"in split, the peer is stopped", split, true, false, false, STOPPED, false},
    {"a split in progress, the peer is late", split, false, true, false, LATE, false},
    {"a split in progress, the peer is stopped", split, false, true, false, STOPPED, false},
    {"in shrink, the peer is late", shrink, true, false, false, LATE, false},
    {"in shrink, the peer is stopped", shrink, true, false, false, STOPPED, false},
    {"a shrink in progress, the peer is dead", shrink, false, true, false, DEAD, false},
    {"in shrink, the peer is dead", shrink, true, false, false, DEAD, false},
    {"in a second shrink, with the dead peer", shrink_without_the_peer_twice, true, false, false, DEAD, false},
    {"revoked, the peer is stopped", revoke_it, false, false, false, STOPPED, false},
    {"revoked, the peer is dead", revoke_it, false, false, false, DEAD, false},
    {"in a large call that is revoked just now, the peer is late", large_while_revoked, true, false, false, LATE,
     false},
    {"in a large call that is revoked just now, the peer is stopped", large_while_revoked, true, false, false, STOPPED,
     false},
    {"in split of a revoked one, the peer is late", split_after_revoking, true, false, false, LATE, false},
    {"in split of a revoked one, the peer is stopped", split_after_revoking, true, false, false, STOPPED, false},
    {"a split of a revoked one in progress, the peer is stopped", split_after_revoking, false, true, false, STOPPED,
     false},
    {"in grow, the peer is late", grow, true, false, false, LATE, false},
    {"in grow, the peer is stopped", grow, true, false, false, STOPPED, false},
    {"in grow, the peer is dead", grow, true, false, false, DEAD, false},
    {"a grow in progress, the peer is stopped", grow, false, true, false, STOPPED, false},
    {"a grow in progress, the new rank does not come", grow_without_the_new_rank, false, true, true, LATE, false},
    {"a new rank's grow in progress, nobody comes", grow_as_a_new_rank, false, true, true, LATE, false},
    {"in finalize with full queues, the peer is stopped", end_with_full_queues, true, false, false, STOPPED, true},
    {"in destroy with full queues, the peer is stopped", destroy_with_full_queues, true, false, false, STOPPED, true},
    {"a finalize in progress with full queues, the peer is stopped", end_with_full_queues, false, true, false, STOPPED,
     true},
    {"a finalize in progress", end, false, true, false, LATE, false},
};

/* Shared by the ranks of an attempt. */
struct scene {
    const struct cell *cell;
    bool other_thread; /* aborts; else the main thread does */
    _Atomic int peer_pid, stopping, over;
    double took_s; /* by the abort */
};

/* ---- rank 0 ---- */

static bool is_stopped(int pid)
{
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (f) {
        if (fscanf(f, "%*d %*s %c", &state) != 1) state = 0;
        fclose(f);
    }
    return state == 'T' || state == 'Z' || state == 0;
}

static void be_the_peer(struct job_rank *rank, struct scene *s, ncclComm_t comm, ncclComm_t other)
{
    double start_s = trouble_now_s();
    atomic_store(&s->peer_pid, (int)getpid());
    atomic_store(&s->stopping, 1);
    if (s->cell->peer == STOPPED) raise(SIGSTOP);
    if (s->cell->peer == DEAD) raise(SIGKILL);
    while (!atomic_load(&s->over) && trouble_now_s() - start_s < PATIENCE_S) usleep(500);
    if (comm) JOB_TRY(ncclCommAbort(comm));
    if (other) JOB_TRY(ncclCommAbort(other));
}

/* ---- rank 1 ---- */

struct aborter {
    ncclComm_t comm;
    double after_s, began_s, ended_s;
    ncclResult_t result;
};

static void *aborts(void *arg)
{
    struct aborter *a = arg;
    trouble_sleep_s(a->after_s);
    a->began_s = trouble_now_s();
    a->result = ncclCommAbort(a->comm);
    a->ended_s = trouble_now_s();
    return NULL;
}

static void until_the_peer_is_so(const struct scene *s)
{
    double start_s = trouble_now_s();
    while (!atomic_load(&s->stopping) && trouble_now_s() - start_s < PATIENCE_S) usleep(200);
    if (s->cell->peer == LATE) return;
    while (!is_stopped(atomic_load(&s->peer_pid)) && trouble_now_s() - start_s < PATIENCE_S) usleep(200);
}

static void check(struct job_rank *rank, const struct cell *c, const struct aborter *a, ncclResult_t call, double back_s)
{
    JOB_EXPECT(a->result == ncclSuccess, "%s: abort: %d: %s", c->name, a->result, ncclGetLastError(NULL));
    JOB_EXPECT(a->ended_s - a->began_s < ABORT_S, "%s: too slow: abort took %.1f ms", c->name,
               (a->ended_s - a->began_s) * 1e3);
    if (!c->blocks) return;
    JOB_EXPECT(call != ncclSuccess, "%s: the call was successful", c->name);
    JOB_EXPECT(back_s - a->began_s < ABORT_S, "%s: too slow: the call returned %.1f ms after the abort", c->name,
               (back_s - a->began_s) * 1e3);
}

static void be_aborted(struct job_rank *rank, struct scene *s, ncclComm_t comm, ncclComm_t other)
{
    const struct cell *c = s->cell;
    ncclComm_t child = NULL;
    struct aborter a = {.comm = comm, .after_s = s->other_thread || c->blocks ? 0.06 : 0};
    ncclResult_t result = ncclSuccess;
    double back_s = 0;
    pthread_t thread;
    if (c->joining) {
        result = c->enter(NULL, NULL, &a.comm);
        JOB_EXPECT(result == ncclInProgress, "%s: init: %d: %s", c->name, result, ncclGetLastError(NULL));
    } else {
        until_the_peer_is_so(s);
    }
    if (c->blocks || s->other_thread) pthread_create(&thread, NULL, aborts, &a);
    if (!c->joining) {
        result = c->enter(comm, other, &child);
        back_s = trouble_now_s();
    }
    if (!c->blocks && !s->other_thread) {
        trouble_sleep_s(0.03); /* something has begun by then */
        aborts(&a);
    } else {
        pthread_join(thread, NULL);
    }
    /* Of a dead peer the call may hear before it is aborted: then it had to return by itself. */
    if (c->peer == DEAD && back_s < a.began_s) back_s = a.began_s;
    s->took_s = a.ended_s - a.began_s;
    check(rank, c, &a, result, back_s);
    JOB_EXPECT(!c->in_progress || result == ncclInProgress, "%s: returned %d", c->name, result);
    struct aborter rest = {.comm = child};
    if (child) aborts(&rest);
    JOB_EXPECT(rest.result == ncclSuccess && rest.ended_s - rest.began_s < ABORT_S, "%s: too slow: abort of the child: %d",
               c->name, rest.result);
    if (other) JOB_TRY(ncclCommAbort(other));
}

static ncclResult_t make(struct job_rank *rank, bool blocking, ncclComm_t *comm, ncclComm_t *other)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclResult_t result, state = ncclInProgress;
    config.blocking = blocking;
    result = ncclCommInitRankConfig(comm, rank->n_ranks, rank->id, rank->rank, &config);
    if (result != ncclSuccess && result != ncclInProgress) return result;
    while (state == ncclInProgress && ncclCommGetAsyncError(*comm, &state) == ncclSuccess) usleep(200);
    if (state != ncclSuccess || !blocking) return state;
    return ncclCommSplit(*comm, 0, 0, other, NULL);
}

static void play(struct job_rank *rank)
{
    struct scene *s = rank->arg;
    ncclComm_t comm = NULL, other = NULL;
    if (!s->cell->joining) {
        JOB_TRY(make(rank, !s->cell->in_progress, &comm, &other));
        JOB_TRY(trouble_allreduce(comm, rank->n_ranks, 100));
        char byte = 0; /* opens the link: a send to who never opened it waits */
        JOB_TRY(rank->rank ? ncclSend(&byte, 1, ncclInt8, 0, comm, NULL) : ncclRecv(&byte, 1, ncclInt8, 1, comm, NULL));
        JOB_TRY(trouble_allreduce(comm, rank->n_ranks, 1)); /* rank 0 has what it needs, and may go */
    }
    if (rank->rank == 0) {
        if (!s->cell->joining) usleep(20000); /* rank 1 is out of the last call before this one ends */
        be_the_peer(rank, s, comm, other);
        return;
    }
    be_aborted(rank, s, comm, other);
    atomic_store(&s->over, 1);
    if (s->cell->peer == STOPPED) kill(atomic_load(&s->peer_pid), SIGCONT);
}

static void run_table(int ranks_per_process, int hosts)
{
    struct scene *s = trouble_shared(sizeof *s);
    double slowest_s = 0;
    const char *slowest = "";
    for (size_t i = 0; i < 2 * sizeof cells / sizeof *cells; i++) {
        const struct cell *c = &cells[i / 2];
        const char *why = NULL;
        struct job job = {.n_ranks = 2, .ranks_per_process = ranks_per_process, .n_hosts = hosts, .bare = true,
                          .limit_s = 40, .may_die = c->peer == DEAD};
        if (!ranks_per_process && (c->peer != LATE || c->enter == join_without_root)) continue;
        if (c->hosts_only && hosts < 2) continue;
        if (c->blocks && i % 2) continue; /* only another thread can */
        for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
            memset(s, 0, sizeof *s);
            s->cell = c;
            s->other_thread = i % 2;
            why = job_run(&job, play, s);
            if (!why || !strstr(why, "too slow")) break;
        }
        if (why) fail_msg("%s, %d hosts, %s thread: %s", c->name, hosts, s->other_thread ? "another" : "own", why);
        if (s->took_s <= slowest_s) continue;
        slowest_s = s->took_s;
        slowest = c->name;
    }
    print_message("the slowest abort took %.2f ms: %s\n", slowest_s * 1e3, slowest);
}

static void ranks_as_threads(void **state) { (void)state; run_table(0, 1); }

static void skip_where_forking_is_not_allowed(void)
{
#if defined(__SANITIZE_THREAD__)
    skip();
#endif
}

static void ranks_as_processes(void **state) { (void)state; skip_where_forking_is_not_allowed(); run_table(1, 1); }
static void ranks_on_two_hosts(void **state) { (void)state; skip_where_forking_is_not_allowed(); run_table(1, 2); }

/* ---- a peer that is stopped somewhere between the start of joining and its end ---- */

struct joining { _Atomic int pid, over, continued; unsigned stop_after_us; };

static void *stops(void *arg)
{
    struct joining *j = arg;
    usleep(j->stop_after_us);
    raise(SIGSTOP);
    atomic_store(&j->continued, 1);
    return NULL;
}

static void join_with_a_stopping_peer(struct job_rank *rank)
{
    struct joining *j = rank->arg;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclComm_t comm = NULL;
    pthread_t thread;
    double start_s = trouble_now_s();
    if (rank->rank == 2) {
        atomic_store(&j->pid, (int)getpid());
        pthread_create(&thread, NULL, stops, j);
    }
    config.blocking = 0;
    JOB_EXPECT(ncclCommInitRankConfig(&comm, rank->n_ranks, rank->id, rank->rank, &config) == ncclInProgress, "init: %s",
               ncclGetLastError(NULL));
    if (rank->rank != 1) { /* their turn comes after rank 1's */
        while (!atomic_load(&j->over) && trouble_now_s() - start_s < PATIENCE_S) usleep(1000);
        JOB_TRY(ncclCommAbort(comm));
        if (rank->rank == 2) pthread_join(thread, NULL);
        return;
    }
    usleep(j->stop_after_us + 20000);
    struct aborter a = {.comm = comm};
    aborts(&a);
    atomic_store(&j->over, 1);
    while (!atomic_load(&j->continued) && trouble_now_s() - start_s < PATIENCE_S) {
        if (atomic_load(&j->pid)) kill(atomic_load(&j->pid), SIGCONT);
        usleep(2000);
    }
    JOB_EXPECT(a.result == ncclSuccess, "abort: %d: %s", a.result, ncclGetLastError(NULL));
    JOB_EXPECT(a.ended_s - a.began_s < ABORT_S, "too slow: abort took %.1f ms", (a.ended_s - a.began_s) * 1e3);
}

static void joining_while_a_peer_stops(void **state)
{
    (void)state;
    skip_where_forking_is_not_allowed();
    struct joining *j = trouble_shared(sizeof *j);
    int times = getenv("RAILCCL_TEST_LONG") ? 200 : 12;
    for (int i = 0; i < times; i++)
        for (int attempt = 0;; attempt++) {
            memset(j, 0, sizeof *j);
            j->stop_after_us = (unsigned)(i * 900 % 8000);
            struct job job = {.n_ranks = 4, .ranks_per_process = 1, .n_hosts = i % 2 + 1, .bare = true, .limit_s = 40};
            const char *why = job_run(&job, join_with_a_stopping_peer, j);
            if (!why) break;
            if (!strstr(why, "too slow") || attempt == ATTEMPTS) fail_msg("stopped after %u us: %s", j->stop_after_us, why);
        }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_as_processes),
        cmocka_unit_test(ranks_on_two_hosts),
        cmocka_unit_test(joining_while_a_peer_stops),
        cmocka_unit_test(ranks_as_threads), /* last: its roots live on, and would look like the forked ones' leaks */
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
