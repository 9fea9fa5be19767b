/* test_citizen.c - a good citizen inside somebody's process: what the program has set up stays as it was, signals are
 * the program's, leaving needs no ceremony, and two jobs on one machine do not see one another. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/trouble.h"

/* Two ranks as processes that make their own communicator: in shared memory, then on two hosts. */
static void in_both_places(void (*body)(struct job_rank *rank), void *arg, bool may_die)
{
    for (int hosts = 1; hosts <= 2; hosts++) {
        struct job job = {.n_ranks = 2, .ranks_per_process = 1, .n_hosts = hosts, .bare = true, .may_die = may_die};
        job_must(&job, body, arg);
    }
}

#define JOIN() JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank))

static void work(struct job_rank *rank)
{
    for (int i = 0; i < 20; i++) JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, i % 2 ? 3 : 60000));
}

/* ---- what the program has set up ---- */

struct setup {
    cpu_set_t cores;
    mode_t mask;
    sigset_t blocked;
    struct sigaction actions[NSIG];
    char locale[200], folder[4096];
    int rounding;
    size_t environment;
};

static void look(struct setup *s)
{
    memset(s, 0, sizeof *s);
    sched_getaffinity(0, sizeof s->cores, &s->cores);
    s->mask = umask(022);
    umask(s->mask);
    pthread_sigmask(SIG_SETMASK, NULL, &s->blocked);
    for (int i = 1; i < NSIG; i++) sigaction(i, NULL, &s->actions[i]);
    snprintf(s->locale, sizeof s->locale, "%s", setlocale(LC_ALL, NULL));
    if (!getcwd(s->folder, sizeof s->folder)) s->folder[0] = '\0';
    s->rounding = fegetround();
    for (char **e = environ; *e; e++) s->environment += strlen(*e) + 1;
}

static const char *differs(const struct setup *a, const struct setup *b)
{
    if (!CPU_EQUAL(&a->cores, &b->cores)) return "affinity";
    if (a->mask != b->mask) return "umask";
    for (int i = 1; i < NSIG; i++) {
        if (sigismember(&a->blocked, i) != sigismember(&b->blocked, i)) return "blocked signals";
        if (a->actions[i].sa_handler != b->actions[i].sa_handler) return "signal handlers";
    }
    if (strcmp(a->locale, b->locale) != 0) return "locale";
    if (strcmp(a->folder, b->folder) != 0) return "working folder";
    if (a->rounding != b->rounding) return "rounding";
    return a->environment != b->environment ? "environment" : NULL;
}

static void keeps_the_setup(struct job_rank *rank)
{
    struct setup before, now;
    const char *what;
    umask(027);
    fesetround(FE_UPWARD);
    if (rank->rank == 0) { /* one core of several, where there are several */
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(sched_getcpu(), &one);
        sched_setaffinity(0, sizeof one, &one);
    }
    look(&before);
    JOIN();
    look(&now);
    JOB_EXPECT(!(what = differs(&before, &now)), "joining changed the %s", what);
    work(rank);
    look(&now);
    JOB_EXPECT(!(what = differs(&before, &now)), "working changed the %s", what);
    JOB_TRY(ncclCommDestroy(rank->comm));
    look(&now);
    JOB_EXPECT(!(what = differs(&before, &now)), "leaving changed the %s", what);
}

static void the_programs_setup_stays(void **state)
{
    (void)state;
    in_both_places(keeps_the_setup, NULL, false);
}

#define KEEPS_ERRNO(call)                                                                                              \
    do {                                                                                                               \
        errno = EXDEV;                                                                                                 \
        JOB_TRY(call);                                                                                                 \
        JOB_EXPECT(errno == EXDEV, #call " left errno %d", errno);                                                     \
    } while (0)

static void keeps_errno(struct job_rank *rank)
{
    float x[4] = {0}, *big = calloc(400000, sizeof *big);
    void *memory;
    ncclResult_t state;
    KEEPS_ERRNO(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    KEEPS_ERRNO(ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, rank->comm, NULL));
    KEEPS_ERRNO(ncclAllReduce(big, big, 400000, ncclFloat32, ncclSum, rank->comm, NULL));
    KEEPS_ERRNO(ncclAllGather(x, x + 2, 1, ncclFloat32, rank->comm, NULL));
    KEEPS_ERRNO(ncclMemAlloc(&memory, 1 << 20));
    KEEPS_ERRNO(ncclMemFree(memory));
    KEEPS_ERRNO(ncclCommGetAsyncError(rank->comm, &state));
    KEEPS_ERRNO(ncclCommFinalize(rank->comm));
    KEEPS_ERRNO(ncclCommDestroy(rank->comm));
    free(big);
}

static void errno_stays(void **state)
{
    (void)state;
    in_both_places(keeps_errno, NULL, false);
}

/* ---- descriptors and files ---- */

enum { FDS = 1024 };

static void open_now(bool open[FDS])
{
    for (int fd = 0; fd < FDS; fd++) open[fd] = fcntl(fd, F_GETFD) >= 0;
}

static void opens_well(struct job_rank *rank)
{
    bool before[FDS], now[FDS];
    int ours = 0;
    open_now(before);
    JOIN();
    work(rank);
    open_now(now);
    for (int fd = 0; fd < FDS; fd++) {
        if (!now[fd] || before[fd]) continue;
        char link[64], to[4096] = "";
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        int flags = fcntl(fd, F_GETFD);
        if (readlink(link, to, sizeof to - 1) <= 0 || flags < 0) continue; /* closed meanwhile, by our thread */
        ours++;
        JOB_EXPECT(flags & FD_CLOEXEC, "descriptor %d (%s) survives exec", fd, to);
        JOB_EXPECT(to[0] != '/' || strncmp(to, "/memfd:", 7) == 0 || strncmp(to, "/proc/", 6) == 0,
                   "descriptor %d is a file with a name: %s", fd, to);
    }
    JOB_EXPECT(ours > 0, "no descriptor was opened: this proved nothing");
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[4400];
    while (maps && fgets(line, sizeof line, maps))
        JOB_EXPECT(!strstr(line, " /dev/shm/") && !strstr(line, " /tmp/railccl"), "mapped: %s", line);
    if (maps) fclose(maps);
    JOB_TRY(ncclCommDestroy(rank->comm));
}

static void descriptors_are_close_on_exec_and_no_file_has_a_name(void **state)
{
    (void)state;
    in_both_places(opens_well, NULL, false);
}

/* ---- signals ---- */

static _Atomic int on_main, elsewhere;

static void where_am_i(int signal_number)
{
    (void)signal_number;
    if (gettid() == getpid())
        on_main++;
    else
        elsewhere++;
}

/* All but KILL and STOP, which cannot be, and the two that glibc keeps for itself. */
static bool blocks_everything(int tid)
{
    char path[64], line[256];
    unsigned long long blocked = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "SigBlk:", 7) == 0) blocked = strtoull(line + 7, NULL, 16);
    if (f) fclose(f);
    return (blocked | 1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1) | 3ull << 31) == ~0ull;
}

static void leaves_signals(struct job_rank *rank)
{
    signal(SIGUSR1, where_am_i);
    signal(SIGCHLD, where_am_i);
    JOIN();
    work(rank);
    int threads = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *e; tasks && (e = readdir(tasks));) {
        int tid = atoi(e->d_name);
        if (tid <= 0 || tid == getpid()) continue;
        threads++;
        JOB_EXPECT(blocks_everything(tid), "thread %d of the library takes signals", tid);
    }
    if (tasks) closedir(tasks);
    JOB_EXPECT(threads > 0, "the library has no thread: this proved nothing");
    on_main = elsewhere = 0;
    for (int i = 0; i < 50; i++) {
        kill(getpid(), i % 2 ? SIGUSR1 : SIGCHLD);
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1000));
    }
    JOB_EXPECT(on_main == 50 && elsewhere == 0, "of 50 signals %d came to the main thread, %d elsewhere", on_main,
               elsewhere);
    JOB_TRY(ncclCommDestroy(rank->comm));
}

static void signals_are_blocked_in_our_threads_and_reach_the_program(void **state)
{
    (void)state;
    in_both_places(leaves_signals, NULL, false);
}

/* Signals that interrupt system calls, all the time: no call fails, no result is wrong. */
static void rains(int signal_number) { (void)signal_number; }

static void works_in_the_rain(struct job_rank *rank)
{
    struct sigaction action = {.sa_handler = rains}; /* without SA_RESTART */
    sigaction(SIGALRM, &action, NULL);
    JOIN();
    ualarm(300, 300);
    for (int i = 0; i < 100; i++) JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, i % 4 ? 5 : 300000));
    ualarm(0, 0);
    JOB_TRY(ncclCommDestroy(rank->comm));
}

static void interrupted_system_calls_go_on(void **state)
{
    (void)state;
    in_both_places(works_in_the_rain, NULL, false);
}

static _Atomic int pipes;
static void counts_pipes(int signal_number)
{
    (void)signal_number;
    pipes++;
}

/* Rank 1 is killed in the middle of traffic; rank 0 writes into what is left of it. */
static void writes_to_the_dead(struct job_rank *rank)
{
    signal(SIGPIPE, counts_pipes);
    _Atomic int *alive = rank->arg;
    if (rank->rank == 0) *alive = 0;
    JOIN();
    work(rank);
    if (rank->rank == 0) *alive = 1; /* its last call with a living peer has returned */
    while (!*alive) usleep(1000);
    if (rank->rank == 1) raise(SIGKILL);
    ncclResult_t result = ncclSuccess;
    for (int i = 0; i < 10000 && result == ncclSuccess; i++)
        result = trouble_allreduce(rank->comm, rank->n_ranks, 100000);
    JOB_EXPECT(result != ncclSuccess, "a dead rank answered");
    JOB_TRY(ncclCommAbort(rank->comm));
    JOB_EXPECT(pipes == 0, "SIGPIPE was raised %d times", pipes);
}

static void sigpipe_is_never_raised(void **state)
{
    (void)state;
    in_both_places(writes_to_the_dead, trouble_shared(sizeof(int)), true);
}

/* ---- leaving ---- */

static void leaves(struct job_rank *rank)
{
    JOIN();
    work(rank);
    if (rank->rank == 0) usleep(200000); /* the other one has left by then */
    exit(0);
}

/* Bounded by the job's limit of 60 s; a hang is a failure. */
static void exit_without_destroy_neither_hangs_nor_fails(void **state)
{
    (void)state;
    in_both_places(leaves, NULL, false);
}

static void leaves_in_the_middle(struct job_rank *rank)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t half_made;
    JOIN();
    work(rank);
    ncclUniqueId id;
    JOB_TRY(ncclGetUniqueId(&id)); /* a root that nobody comes to, and a communicator that is being made */
    ncclResult_t result = ncclCommInitRankConfig(&half_made, 2, id, 0, &config);
    JOB_EXPECT(result == ncclInProgress || result == ncclSuccess, "making answered %d", (int)result);
    exit(0);
}

static void exit_while_a_communicator_is_being_made(void **state)
{
    (void)state;
    in_both_places(leaves_in_the_middle, NULL, false);
}

/* ---- two jobs ---- */

struct two { int which; };

static void counts(struct job_rank *rank)
{
    const struct two *job = rank->arg;
    for (int i = 0; i < 200; i++) {
        int x[2] = {job->which, i}, sum[2] = {0};
        JOB_TRY(ncclAllReduce(x, sum, 2, ncclInt32, ncclSum, rank->comm, NULL));
        JOB_EXPECT(sum[0] == 3 * job->which && sum[1] == 3 * i, "job %d, call %d: %d and %d", job->which, i, sum[0],
                   sum[1]);
    }
}

static void two_jobs_do_not_see_one_another(void **state)
{
    (void)state;
    for (int hosts = 1; hosts <= 3; hosts += 2) {
        pid_t children[2];
        for (int j = 0; j < 2; j++) {
            fflush(NULL);
            children[j] = fork();
            if (children[j] == 0) {
                struct two which = {.which = 100 + j};
                struct job job = {.n_ranks = 3, .ranks_per_process = 1, .n_hosts = hosts};
                const char *why = job_run(&job, counts, &which);
                if (why) fprintf(stderr, "job %d: %s\n", j, why);
                _exit(why != NULL);
            }
        }
        for (int j = 0; j < 2; j++) {
            int status = -1;
            assert_int_equal(waitpid(children[j], &status, 0), children[j]);
            assert_int_equal(status, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_programs_setup_stays),
        cmocka_unit_test(errno_stays),
        cmocka_unit_test(descriptors_are_close_on_exec_and_no_file_has_a_name),
        cmocka_unit_test(signals_are_blocked_in_our_threads_and_reach_the_program),
        cmocka_unit_test(interrupted_system_calls_go_on),
        cmocka_unit_test(sigpipe_is_never_raised),
        cmocka_unit_test(exit_without_destroy_neither_hangs_nor_fails),
        cmocka_unit_test(exit_while_a_communicator_is_being_made),
        cmocka_unit_test(two_jobs_do_not_see_one_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
