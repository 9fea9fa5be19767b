/* job.c - ranks as threads of forked processes; what they have to say goes through a shared page. */
#include "support/job.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/params.h"

enum { MAX_RANKS = 1024 };

/* Shared by all processes of a job. */
struct board {
    _Atomic int id_ready;
    ncclUniqueId id;
    char why[MAX_RANKS][JOB_WHY];
};

struct worker {
    const struct job *job;
    struct board *board;
    struct job_rank rank;
    void (*body)(struct job_rank *rank);
};

void job_fail(struct job_rank *rank, const char *format, ...)
{
    if (rank->why[0]) return;
    va_list args;
    va_start(args, format);
    int n = snprintf(rank->why, JOB_WHY, "rank %d: ", rank->rank);
    vsnprintf(rank->why + n, (size_t)(JOB_WHY - n), format, args);
    va_end(args);
}

static void nap(void)
{
    struct timespec t = {0, 1000000};
    nanosleep(&t, NULL);
}

static void with_comm(struct job_rank *rank, void (*body)(struct job_rank *rank))
{
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    body(rank);
    if (rank->why[0]) {
        ncclCommAbort(rank->comm);
        return;
    }
    JOB_TRY(ncclCommDestroy(rank->comm));
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct job_rank *rank = &w->rank;
    if (rank->rank == 0) {
        if (ncclGetUniqueId(&w->board->id) != ncclSuccess) job_fail(rank, "ncclGetUniqueId: %s", ncclGetLastError(NULL));
        atomic_store(&w->board->id_ready, 1);
    }
    while (!atomic_load(&w->board->id_ready)) nap();
    rank->id = w->board->id;
    if (rank->why[0]) return NULL;
    if (w->job->bare)
        w->body(rank);
    else
        with_comm(rank, w->body);
    return NULL;
}

/* Runs ranks first .. first+n-1 as threads of this process. */
static void run_threads(const struct job *job, struct board *board, int first, int n, void (*body)(struct job_rank *),
                        void *arg)
{
    struct worker *workers = calloc((size_t)n, sizeof *workers);
    pthread_t *threads = calloc((size_t)n, sizeof *threads);
    for (int i = 0; i < n; i++) {
        workers[i] = (struct worker){.job = job, .board = board, .body = body};
        workers[i].rank = (struct job_rank){.rank = first + i, .n_ranks = job->n_ranks, .arg = arg, .why = board->why[first + i]};
        if (n == 1)
            worker_main(&workers[i]);
        else
            pthread_create(&threads[i], NULL, worker_main, &workers[i]);
    }
    for (int i = 0; n > 1 && i < n; i++) pthread_join(threads[i], NULL);
    free(threads);
    free(workers);
}

static void set_environment(const struct job *job)
{
    for (int i = 0; job->env && job->env[i]; i++) {
        char *copy = strdup(job->env[i]), *equals = strchr(copy, '=');
        *equals = 0;
        setenv(copy, equals + 1, 1);
        free(copy);
    }
}

/* What makes a process one of a pretended host that has NICs of its own (job.h). */
static void set_host(int host)
{
    char name[32], *given, *next;
    snprintf(name, sizeof name, "TEST_HOST_%d", host);
    if (!getenv(name)) return;
    given = strdup(getenv(name));
    for (char *one = strtok_r(given, " ", &next); one; one = strtok_r(NULL, " ", &next)) {
        char *equals = strchr(one, '=');
        if (!equals) continue;
        *equals = 0;
        setenv(one, equals + 1, 1);
    }
    free(given);
}

static void process_main(const struct job *job, struct board *board, int process, int n_processes,
                         void (*body)(struct job_rank *), void *arg)
{
    char host[32];
    int hosts = job->n_hosts > 1 ? job->n_hosts : 1;
    snprintf(host, sizeof host, "job-host-%d", process * hosts / n_processes);
    if (job->n_hosts > 1) {
        setenv("NCCL_HOSTID", host, 1);
        set_host(process * hosts / n_processes);
    }
    set_environment(job);
    rail_params_reload();
    int first = process * job->ranks_per_process;
    int n = job->n_ranks - first < job->ranks_per_process ? job->n_ranks - first : job->ranks_per_process;
    run_threads(job, board, first, n, body, arg);
    exit(0); /* not _exit: the sanitizers' leak check belongs to the test */
}

static void note_end(const struct job *job, struct board *board, int process, int status)
{
    int first = process * job->ranks_per_process;
    if (!status || board->why[first][0]) return;
    snprintf(board->why[first], JOB_WHY, "rank %d: its process ended with %s %d", first,
             WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

/* Waits for all; when one has failed the others get FAREWELL_S more, then everybody left is killed. */
enum { FAREWELL_S = 10 };
static void reap(const struct job *job, struct board *board, pid_t *children, int n)
{
    double limit_s = job->limit_s > 0 ? job->limit_s : 60;
    struct rail_deadline deadline = rail_deadline_in_ns((uint64_t)(limit_s * 1e9));
    int left = n;
    while (left > 0 && !rail_deadline_passed(deadline)) {
        nap();
        for (int i = 0; i < n; i++) {
            int status;
            if (!children[i] || waitpid(children[i], &status, WNOHANG) != children[i]) continue;
            children[i] = 0;
            left--;
            if (job->may_die && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) continue;
            note_end(job, board, i, status);
            struct rail_deadline soon = rail_deadline_in_ns(FAREWELL_S * RAIL_NS_PER_S);
            if (status && soon.at_ns < deadline.at_ns) deadline = soon;
        }
    }
    for (int i = 0; i < n; i++) {
        if (!children[i]) continue;
        kill(children[i], SIGKILL);
        waitpid(children[i], NULL, 0);
        int first = i * job->ranks_per_process;
        if (!board->why[first][0]) snprintf(board->why[first], JOB_WHY, "rank %d: not done in time (limit %g s)", first, limit_s);
    }
}

static void run_processes(const struct job *job, struct board *board, void (*body)(struct job_rank *), void *arg)
{
    int n = (job->n_ranks + job->ranks_per_process - 1) / job->ranks_per_process;
    static pid_t children[MAX_RANKS]; /* static: what a child inherits must not look like its leak */
    fflush(NULL);
    for (int i = 0; i < n; i++)
        if ((children[i] = fork()) == 0) process_main(job, board, i, n, body, arg);
    reap(job, board, children, n);
}

const char *job_run(const struct job *job, void (*body)(struct job_rank *), void *arg)
{
    static char first[JOB_WHY];
    struct board *board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED) return "job: mmap";
    if (job->ranks_per_process)
        run_processes(job, board, body, arg);
    else
        run_threads(job, board, 0, job->n_ranks, body, arg);
    first[0] = 0;
    for (int r = 0; r < job->n_ranks; r++)
        if (board->why[r][0]) print_message("%s\n", board->why[r]); /* the first by number is not always the cause */
    for (int r = 0; r < job->n_ranks && !first[0]; r++) memcpy(first, board->why[r], JOB_WHY);
    munmap(board, sizeof *board);
    return first[0] ? first : NULL;
}

/* ThreadSanitizer looks into one process, and does not support threads after a fork. */
static bool only_threads(void)
{
#if defined(__SANITIZE_THREAD__)
    return true;
#else
    return false;
#endif
}

void job_must(const struct job *job, void (*body)(struct job_rank *), void *arg)
{
    if (job->ranks_per_process && only_threads()) skip();
    const char *why = job_run(job, body, arg);
    if (why) fail_msg("%d ranks, %d per process, %d hosts: %s", job->n_ranks, job->ranks_per_process, job->n_hosts, why);
}
