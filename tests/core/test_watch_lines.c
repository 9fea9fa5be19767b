/* What the watch says of a stall, on every rank, and how soon: one table, a scene per line. In each scene rank
 * CULPRIT is what the scene's name says, on one host, on two, on four; the expected words must stand in one INFO
 * line of each rank that waits, in time; and nothing else may be said of it there. Busy loops beside healthy runs
 * make nobody say anything.
 *
 * net_troubles is this file's own (the linker finds it before the library's), so that lanes can be down as a scene
 * wants. */
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
#include "transport/net.h"

enum { N = 4, CULPRIT = 2 };

static char log_path[64]; /* of all processes of a scene */

/* All processes of a scene see it. */
static struct board {
    _Atomic int enough;  /* the scene has been seen: whoever holds others up goes on */
    _Atomic int dead_nic;/* what net_troubles tells */
    double limit_s;      /* how long a scene is held up at most */
    const char *until;   /* the words that end it, `said` times */
    int said;
} *board;

/* ---- the log ---- */

struct lines { int n; double first_s, last_s; char text[1024]; };

/* All of the words, or all of those behind a "||". */
static bool line_has(const char *line, const char *words)
{
    char first[512];
    const char *or_else = strstr(words, "||");
    if (!or_else) return !trouble_lacks(line, words);
    snprintf(first, sizeof first, "%.*s", (int)(or_else - words), words);
    return !trouble_lacks(line, first) || line_has(line, or_else + 2);
}

/* Lines that have these words, and of "waiting 1.2 s" the least and the most. */
static struct lines log_lines(const char *words)
{
    struct lines found = {.first_s = 1e9};
    char line[2048];
    FILE *f = fopen(log_path, "r");
    while (f && fgets(line, sizeof line, f)) {
        const char *waiting = strstr(line, "waiting ");
        if (!line_has(line, words)) continue;
        double s = waiting ? atof(waiting + strlen("waiting ")) : 0;
        if (found.n++ == 0) snprintf(found.text, sizeof found.text, "%.*s", (int)sizeof found.text - 1, line);
        if (s < found.first_s) found.first_s = s;
        if (s > found.last_s) found.last_s = s;
    }
    if (f) fclose(f);
    return found;
}

static void log_show(void)
{
    char line[2048];
    FILE *f = fopen(log_path, "r");
    while (f && fgets(line, sizeof line, f))
        if (strstr(line, "waiting") || strstr(line, "went on") || strstr(line, "WARN")) print_message("%s", line);
    if (f) fclose(f);
}

/* Until everybody has said it; a while longer than it may take, so that the test can tell what was said instead. */
static void await_lines(void)
{
    double start_s = trouble_now_s();
    while (trouble_now_s() < start_s + board->limit_s && log_lines(board->until).n < board->said) trouble_sleep_s(0.02);
    atomic_store(&board->enough, 1);
}

/* ---- lanes as a scene wants them ---- */

static struct net_trouble trouble_with(ncclComm_t comm, int peer);
static _Thread_local ncclComm_t my_comm;
static _Thread_local int my_rank;

/* The NIC of CULPRIT's host is dead: it says so of all others, and they of it. */
uint32_t net_troubles(uint64_t comm_key, struct net_trouble *out, uint32_t room)
{
    uint32_t n = 0;
    (void)comm_key;
    if (!board || !atomic_load(&board->dead_nic) || !my_comm) return 0;
    for (int r = 0; r < N; r++) {
        if (r == my_rank || (r != CULPRIT && my_rank != CULPRIT)) continue;
        if (n < room) out[n] = trouble_with(my_comm, r);
        n++;
    }
    return n;
}

/* ---- what a rank does ---- */

static ncclResult_t allreduce(struct job_rank *rank, size_t count)
{
    float *data = calloc(count, sizeof *data);
    ncclResult_t result = ncclAllReduce(data, data, count, ncclFloat32, ncclSum, rank->comm, NULL);
    free(data);
    return result;
}

/* Stops itself; a child wakes it. */
static void stop_myself(void)
{
    pid_t self = getpid(), child = fork();
    if (child == 0) {
        await_lines();
        kill(self, SIGCONT);
        _exit(0);
    }
    kill(self, SIGSTOP);
    waitpid(child, NULL, 0);
}

static void stopped_before_the_call(struct job_rank *rank)
{
    int culprit = *(int *)rank->arg;
    JOB_TRY(allreduce(rank, 5));
    if (rank->rank == culprit) stop_myself();
    JOB_TRY(allreduce(rank, 1000));
}

/* A helper process stops and wakes this one, `off_ms` of it stopped, `on_ms` running, from now on; once, if on_ms is
 * 0. */
static pid_t slow_down(int off_ms, int on_ms)
{
    pid_t self = getpid(), child = fork();
    if (child != 0) return child;
    trouble_sleep_s(0.3);
    if (!on_ms) {
        kill(self, SIGSTOP);
        await_lines();
        kill(self, SIGCONT);
        _exit(0);
    }
    double until_s = trouble_now_s() + board->limit_s;
    while (!atomic_load(&board->enough) && trouble_now_s() < until_s) {
        kill(self, SIGSTOP);
        trouble_sleep_s(off_ms / 1e3);
        kill(self, SIGCONT);
        trouble_sleep_s(on_ms / 1e3);
        if (log_lines(board->until).n >= board->said) break;
    }
    atomic_store(&board->enough, 1);
    _exit(0);
}

static void large_calls(struct job_rank *rank, int off_ms, int on_ms, size_t count)
{
    pid_t child = 0;
    int32_t over = 0;
    float *data = calloc(count, sizeof *data);
    JOB_TRY(allreduce(rank, 5));
    if (rank->rank == CULPRIT) child = slow_down(off_ms, on_ms);
    while (!over) { /* all together: rank 0 decides */
        JOB_TRY(ncclAllReduce(data, data, count, ncclFloat32, ncclSum, rank->comm, NULL));
        over = atomic_load(&board->enough);
        JOB_TRY(ncclBroadcast(&over, &over, 1, ncclInt32, 0, rank->comm, NULL));
    }
    if (child) waitpid(child, NULL, 0);
    free(data);
}

static void stopped_in_the_middle(struct job_rank *rank) { large_calls(rank, 0, 0, 1 << 20); }
/* A call must take longer than the 4 s after which a slow rank is named: between hosts what waits in sockets is moved in one
 * burst, and 5 ms in 155 were enough for all of it on a machine with nothing else to do. Not as long as 200 ms: who does
 * not answer for that is called stopped. */
static void slowed_by_bursts(struct job_rank *rank) { large_calls(rank, 185, 2, 64 << 20); }

/* Its thread is in a signal handler, as under a debugger that stops one thread; its process answers. */
static int stuck_rank = CULPRIT;
static void hang_in_handler(int unused)
{
    (void)unused;
    if (my_rank == stuck_rank) await_lines();
}

static void *signal_soon(void *thread)
{
    trouble_sleep_s(0.5);
    pthread_kill(*(pthread_t *)thread, SIGUSR1);
    return NULL;
}

static void stuck_in_the_call(struct job_rank *rank)
{
    pthread_t self = pthread_self(), other;
    float *data = calloc(16 << 20, sizeof *data);
    my_rank = rank->rank;
    my_comm = rank->comm;
    signal(SIGUSR1, hang_in_handler);
    JOB_TRY(allreduce(rank, 5));
    int32_t over = 0;
    if (rank->rank == stuck_rank) pthread_create(&other, NULL, signal_soon, &self);
    while (!over) {
        JOB_TRY(ncclAllReduce(data, data, 16 << 20, ncclFloat32, ncclSum, rank->comm, NULL));
        over = atomic_load(&board->enough);
        JOB_TRY(ncclBroadcast(&over, &over, 1, ncclInt32, 0, rank->comm, NULL));
    }
    if (rank->rank == stuck_rank) pthread_join(other, NULL);
    free(data);
}

/* CULPRIT waits, too, and says of its own NIC what is wrong with it. */
static void behind_a_dead_nic(struct job_rank *rank)
{
    atomic_store(&board->dead_nic, 1);
    stuck_rank = 1; /* somebody has to hold them up */
    stuck_in_the_call(rank);
}

static void late(struct job_rank *rank)
{
    for (int i = 0; i < 2; i++) {
        JOB_TRY(allreduce(rank, 5));
        if (rank->rank == CULPRIT) trouble_sleep_s(board->limit_s);
        JOB_TRY(allreduce(rank, 1000));
    }
}

static void receives_from_a_stopped_one(struct job_rank *rank)
{
    float x = 0;
    JOB_TRY(allreduce(rank, 5));
    if (rank->rank == CULPRIT) stop_myself();
    for (int r = 0; rank->rank == CULPRIT && r < N; r++)
        if (r != CULPRIT) JOB_TRY(ncclSend(&x, 1, ncclFloat32, r, rank->comm, NULL));
    if (rank->rank != CULPRIT) JOB_TRY(ncclRecv(&x, 1, ncclFloat32, CULPRIT, rank->comm, NULL));
}

/* Ranks 0 to 2 call on one communicator, rank 3 on the other: each waits for the other. Nobody gets out but by an
 * abort. */
static void *abort_both(void *comms)
{
    await_lines();
    (void)ncclCommAbort(((ncclComm_t *)comms)[0]);
    (void)ncclCommAbort(((ncclComm_t *)comms)[1]);
    return NULL;
}

static void crossed(struct job_rank *rank)
{
    ncclComm_t both[2];
    pthread_t thread;
    int8_t byte = 0;
    JOB_TRY(ncclCommInitRank(&both[0], rank->n_ranks, rank->id, rank->rank));
    rank->comm = both[0];
    JOB_TRY(trouble_second_comm(rank, &both[1]));
    JOB_TRY(trouble_allreduce(both[0], N, 5));
    JOB_TRY(trouble_allreduce(both[1], N, 5));
    pthread_create(&thread, NULL, abort_both, both);
    if (rank->rank < 3) (void)trouble_allreduce(both[0], N, 7);
    else (void)ncclBroadcast(&byte, &byte, 1, ncclInt8, 0, both[1], NULL);
    pthread_join(thread, NULL);
}

/* ---- the fake, which knows the communicator's insides ---- */

#include "core/comm.h"

static struct net_trouble trouble_with(ncclComm_t handle, int peer)
{
    const struct comm *comm = (const struct comm *)(const void *)handle;
    struct net_trouble t = {.unreachable = true, .since_ns = rail_now_ns() - 800 * RAIL_NS_PER_MS};
    memcpy(t.process, comm->members[peer].process, sizeof t.process);
    snprintf(t.text, sizeof t.text, "rail 0 (eth0) 10.0.0.1:4711 - 10.0.0.2:4712: %s",
             my_rank == CULPRIT ? "the NIC has no carrier" : "nothing came back for 250 ms");
    return t;
}

/* ---- scenes ---- */

struct scene {
    const char *name;
    void (*body)(struct job_rank *rank);
    const char *words; /* of the line of every rank that waits */
    int said;          /* how many do */
    double within_s;
    bool bare, threads_too;
    int hosts_least;
    int culprit;
};

static const struct scene scenes[] = {
    {"stopped before the call", stopped_before_the_call,
     "INFO|waiting|AllReduce #2 of 1000 float32, sum: rank 2 (host |has not answered for|its process is stopped "
     "(SIGSTOP",
     N - 1, 3, .culprit = 2},
    {"rank 0 stopped before the call", stopped_before_the_call,
     "INFO|waiting|rank 0 (host |has not answered for|its process is stopped (SIGSTOP", N - 1, 3, .culprit = 0},
    {"stopped in the middle", stopped_in_the_middle,
     "INFO|waiting|: rank 2 (host |has not answered for|its process is stopped (SIGSTOP",
     N - 1, 3, .culprit = 2},
    /* The signal may come when it has given the others all that they need: they go on to the next call. */
    {"stuck in the call", stuck_in_the_call,
     "INFO|waiting|: rank 2 (host |has called it, waits for nobody, and has done nothing for|; the others stand at||"
     "INFO|waiting|, sum: rank 2 (host |has not called it (it is still in AllReduce #", N - 1, 3, .culprit = 2},
    {"slowed by bursts", slowed_by_bursts,
     "INFO|waiting|: rank 2 (host |is slow: |the others stand at|wait for "
     "it", N - 1, 15, .culprit = 2},
    {"a dead NIC", behind_a_dead_nic,
     "INFO|waiting|no lane has been up for|: NIC |(rail 0) of host |: the NIC has no "
     "carrier", N - 1, 3, .culprit = 2, .hosts_least = N},
    {"receives from a stopped one", receives_from_a_stopped_one,
     "INFO|waiting|ncclRecv of 1 float32 from rank 2: rank 2 (host |has not sent it; rank 2 (host |its process is "
     "stopped", N - 1,
     3, .culprit = 2},
    {"communicators crossed", crossed,
     "INFO|waiting|of 7 float32, sum: deadlock between communicators: rank |waits in it for rank 3 "
     "(host |waits for that one in Broadcast #2 of 1 int8, root 0 of another communicator", 3, 3, .bare = true,
     .threads_too = true},
};

static void play(const struct scene *scene, int hosts)
{
    struct job job = {.n_ranks = N, .ranks_per_process = hosts ? 1 : 0, .n_hosts = hosts, .bare = scene->bare,
                      .limit_s = 60};
    int culprit = scene->culprit;
    memset(board, 0, sizeof *board);
    board->limit_s = scene->within_s + 3;
    board->until = scene->words;
    board->said = scene->said;
    fclose(fopen(log_path, "w"));
    print_message("%s, %d host(s)%s\n", scene->name, hosts, hosts ? "" : ", threads");
    job_must(&job, scene->body, &culprit);
    struct lines l = log_lines(scene->words);
    bool all = l.n == scene->said || (l.n == scene->said + 1 && l.n == N); /* the slow one itself may say it, too */
    if (!all || l.last_s > scene->within_s || getenv("TROUBLE_SHOW")) log_show();
    print_message("    after %.1f s: %s", l.last_s, l.text);
    assert_true(all);
    assert_true(l.last_s <= scene->within_s);
}

static void every_scene(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) {
        if (getenv("SCENE") && !strstr(scenes[i].name, getenv("SCENE"))) continue;
        if (scenes[i].threads_too) play(&scenes[i], 0);
        for (int hosts = 1; hosts <= N; hosts *= 2)
            if (hosts >= scenes[i].hosts_least) play(&scenes[i], hosts);
    }
}

/* ---- who called something else ---- */

/* Everybody's error, and how soon. */
static struct errors { char text[N][512]; double s[N]; } *errors;

static void wrong_call(struct job_rank *rank)
{
    int kind = *(int *)rank->arg;
    float data[8] = {0};
    ncclResult_t result = ncclSuccess, async = ncclSuccess;
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    JOB_TRY(trouble_allreduce(rank->comm, N, 5));
    trouble_sleep_s(0.2); /* the news may be faster than a rank that still leaves the first call */
    double start_s = trouble_now_s();
    bool odd = rank->rank == CULPRIT;
    if (kind == 0) result = trouble_allreduce(rank->comm, N, odd ? 3 : 2);
    else if (kind == 1) result = trouble_allreduce(rank->comm, N, odd ? 300000 : 3000);
    else if (odd) result = ncclSend(data, 3, ncclFloat32, 0, rank->comm, NULL); /* to rank 0, which expects another */
    else if (rank->rank == 0) result = ncclRecv(data, 2, ncclFloat32, CULPRIT, rank->comm, NULL);
    for (; result == ncclSuccess && async == ncclSuccess && trouble_now_s() < start_s + 5; trouble_sleep_s(0.01))
        JOB_TRY(ncclCommGetAsyncError(rank->comm, &async));
    errors->s[rank->rank] = trouble_now_s() - start_s;
    (void)ncclCommGetAsyncError(rank->comm, &async); /* the communicator's own words */
    snprintf(errors->text[rank->rank], sizeof errors->text[0], "%s", ncclGetLastError(rank->comm));
    trouble_sleep_s(0.3);
    JOB_TRY(ncclCommAbort(rank->comm));
}

static void a_wrong_call_is_the_same_error_on_every_rank(void **state)
{
    (void)state;
    errors = trouble_shared(sizeof *errors);
    for (int kind = 0; kind < 3; kind++)
        for (int hosts = 1; hosts <= N; hosts *= 2) {
            struct job job = {.n_ranks = N, .ranks_per_process = 1, .n_hosts = hosts, .bare = true};
            int others = 0; /* two who find it in the same microsecond may each name another pair */
            memset(errors, 0, sizeof *errors);
            job_must(&job, wrong_call, &kind);
            for (int r = 0; r < N; r++) {
                const char *lacks = trouble_lacks(errors->text[r], kind == 2 ? "do not match|ncclSend of 3|ncclRecv "
                                                                               "of 2"
                                                                             : "called different things|rank 2: "
                                                                               "AllReduce of 3");
                if (lacks || errors->s[r] > 1 || getenv("TROUBLE_SHOW"))
                    print_message("kind %d, %d hosts, rank %d after %.2f s: "
                                  "%s\n", kind, hosts, r, errors->s[r], errors->text[r]);
                assert_null(lacks);
                assert_true(errors->s[r] <= 1);
                others += strcmp(errors->text[r], errors->text[0]) != 0;
            }
            if (others) print_message("kind %d, %d hosts: %d ranks name another pair\n", kind, hosts, others);
        }
}

/* ---- late is not dead ---- */

static void a_late_rank_is_waited_for_and_named_when_it_came(void **state)
{
    (void)state;
    struct job job = {.n_ranks = N, .ranks_per_process = 1, .n_hosts = 2, .limit_s = 200};
    memset(board, 0, sizeof *board);
    board->limit_s = getenv("RAILCCL_TEST_LONG") ? 60 : 2;
    fclose(fopen(log_path, "w"));
    job_must(&job, late, NULL);
    char words[128];
    snprintf(words, sizeof words, "AllReduce #2 of 1000 float32, sum went on after %.0f.|rank 2 (host |held "
                                  "it up", board->limit_s);
    struct lines l = log_lines(words), again = log_lines("AllReduce #4 of 1000 float32, sum went on|held it up, in 2 "
                                                         "of the last 2 stalls");
    if (l.n != N - 1 || again.n != N - 1) log_show();
    print_message("    %s", again.text);
    assert_int_equal(l.n, N - 1);
    assert_int_equal(again.n, N - 1);
}

/* ---- healthy ---- */

static void healthy(struct job_rank *rank)
{
    for (int i = 0; i < 20; i++) JOB_TRY(allreduce(rank, i % 2 ? 5 : 100000));
    float x[2] = {0};
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclSend(&x[0], 1, ncclFloat32, (rank->rank + 1) % N, rank->comm, NULL));
    JOB_TRY(ncclRecv(&x[1], 1, ncclFloat32, (rank->rank + N - 1) % N, rank->comm, NULL));
    JOB_TRY(ncclGroupEnd());
}

static void healthy_runs_beside_busy_loops_name_nobody(void **state)
{
    (void)state;
    static const int hosts[] = {1, 2, 4};
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    pid_t busy[64];
    int n = cores < 64 ? (int)cores : 64;
    fflush(NULL);
    for (int i = 0; i < n; i++)
        if ((busy[i] = fork()) == 0)
            for (volatile unsigned x = 0;; x++) {}
    fclose(fopen(log_path, "w"));
    for (int i = 0; i < (getenv("RAILCCL_TEST_LONG") ? 300 : 100); i++) {
        struct job job = {.n_ranks = N, .ranks_per_process = 1, .n_hosts = hosts[i % 3], .limit_s = 60};
        job_must(&job, healthy, NULL);
    }
    for (int i = 0; i < n; i++) kill(busy[i], SIGKILL), waitpid(busy[i], NULL, 0);
    if (log_lines("waiting").n) log_show();
    assert_int_equal(log_lines("waiting").n, 0);
}

int main(int argc, char **argv)
{
    snprintf(log_path, sizeof log_path, "/tmp/railccl-test-lines.%d", (int)getpid());
    setenv("NCCL_DEBUG", "INFO", 1);
    setenv("NCCL_DEBUG_FILE", log_path, 1);
    board = trouble_shared(sizeof *board);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scene),
        cmocka_unit_test(a_wrong_call_is_the_same_error_on_every_rank),
        cmocka_unit_test(a_late_rank_is_waited_for_and_named_when_it_came),
        cmocka_unit_test(healthy_runs_beside_busy_loops_name_nobody),
    };
    if (getenv("SCENE")) cmocka_set_test_filter("every_scene");
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(log_path);
    return failed;
}
