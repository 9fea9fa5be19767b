/* test_fork.c - programs fork: a shell command, a DataLoader's worker. The child may do what it likes, the parent's
 * communicator goes on, and what the child inherits keeps nothing alive and breaks nothing. */
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/trouble.h"

/* Two ranks as processes: in shared memory, then on two hosts. */
static void in_both_places(void (*body)(struct job_rank *rank), void *arg, bool may_die)
{
    for (int hosts = 1; hosts <= 2; hosts++) {
        struct job job = {.n_ranks = 2, .ranks_per_process = 1, .n_hosts = hosts, .may_die = may_die};
        job_must(&job, body, arg);
    }
}

static void go_on(struct job_rank *rank)
{
    for (int i = 0; i < 50; i++) JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, i % 2 ? 3 : 60000));
}

static bool ended_with(pid_t child, int status)
{
    int got = -1;
    return child > 0 && waitpid(child, &got, 0) == child && WIFEXITED(got) && WEXITSTATUS(got) == status;
}

/* ---- children that end ---- */

static void children_exit(struct job_rank *rank)
{
    go_on(rank);
    for (int i = 0; i < 6; i++) {
        fflush(NULL);
        pid_t child = fork();
        if (child == 0 && i % 2) _exit(7);
        if (child == 0) exit(7); /* with exit handlers */
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 100000));
        JOB_EXPECT(ended_with(child, 7), "child %d did not end well", i);
    }
    go_on(rank);
}

static void a_child_that_exits_changes_nothing(void **state)
{
    (void)state;
    in_both_places(children_exit, NULL, false);
}

/* What the child execs inherits the standard three and what the test harness leaves open: nothing of ours. */
static void children_exec(struct job_rank *rank)
{
    const char *before = rank->arg;
    go_on(rank);
    int ends[2];
    JOB_EXPECT(pipe(ends) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 1);
        close(ends[0]), close(ends[1]);
        execlp("ls", "ls", "/proc/self/fd", (char *)NULL);
        _exit(9);
    }
    close(ends[1]);
    char text[4096] = "";
    size_t at = 0;
    for (ssize_t n; (n = read(ends[0], text + at, sizeof text - 1 - at)) > 0;) at += (size_t)n;
    close(ends[0]);
    for (char *p = text; *p; p++)
        if (*p == '\n') *p = ' ';
    JOB_EXPECT(ended_with(child, 0), "ls did not end well");
    JOB_EXPECT(strcmp(text, before) == 0, "descriptors after exec: %s, without the library: %s", text, before);
    go_on(rank);
}

/* What `ls /proc/self/fd` says here, in a process that never used the library. */
static void list_without_the_library(char *out, size_t bytes)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 1);
        close(ends[0]), close(ends[1]);
        execlp("ls", "ls", "/proc/self/fd", (char *)NULL);
        _exit(9);
    }
    close(ends[1]);
    size_t at = 0;
    for (ssize_t n; (n = read(ends[0], out + at, bytes - 1 - at)) > 0;) at += (size_t)n;
    out[at] = '\0';
    for (char *p = out; *p; p++)
        if (*p == '\n') *p = ' ';
    close(ends[0]);
    assert_true(ended_with(child, 0));
}

static void a_program_that_a_child_becomes_has_none_of_our_descriptors(void **state)
{
    (void)state;
    char before[4096];
    list_without_the_library(before, sizeof before);
    in_both_places(children_exec, before, false);
}

/* ---- children that live on ---- */

static void *adds(void *sum)
{
    for (int i = 0; i < 1000; i++) *(long *)sum += i;
    return NULL;
}

/* Memory, threads, pipes, signals, children of its own: none of it meets a lock that was held when it was forked. */
static int work_of_a_data_loader(int to)
{
    alarm(30);
    for (int batch = 0; batch < 20; batch++) {
        long sum = 0;
        pthread_t thread;
        char *page = malloc(100000);
        memset(page, batch, 100000);
        if (pthread_create(&thread, NULL, adds, &sum) || pthread_join(thread, NULL) || sum != 499500) return 1;
        if (write(to, page, 1) != 1) return 2;
        free(page);
    }
    return 0;
}

static void parent_and_child_work(struct job_rank *rank)
{
    go_on(rank);
    int ends[2];
    JOB_EXPECT(pipe(ends) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) _exit(work_of_a_data_loader(ends[1]));
    close(ends[1]);
    for (int batch = 0; batch < 20; batch++) {
        char got;
        JOB_EXPECT(read(ends[0], &got, 1) == 1 && got == batch, "batch %d did not come", batch);
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, batch % 3 ? 2 : 200000));
    }
    close(ends[0]);
    JOB_EXPECT(ended_with(child, 0), "the child did not end well");
}

static void a_child_works_while_the_parent_communicates(void **state)
{
    (void)state;
    in_both_places(parent_and_child_work, NULL, false);
}

/* ---- a communicator is its process's ---- */

#define CHILD_EXPECT(condition, code)                                                                                  \
    if (!(condition)) _exit(code)

static void in_the_child(ncclComm_t comm)
{
    alarm(30);
    float x = 1;
    int n = 0;
    ncclResult_t state;
    CHILD_EXPECT(ncclAllReduce(&x, &x, 1, ncclFloat32, ncclSum, comm, NULL) == ncclInvalidUsage, 1);
    CHILD_EXPECT(strstr(ncclGetLastError(NULL), "ncclAllReduce: ") && strstr(ncclGetLastError(NULL), "fork()"), 2);
    CHILD_EXPECT(ncclSend(&x, 1, ncclFloat32, 0, comm, NULL) == ncclInvalidUsage, 3);
    CHILD_EXPECT(ncclCommFinalize(comm) == ncclInvalidUsage, 4);
    CHILD_EXPECT(ncclCommCount(comm, &n) == ncclInvalidUsage, 5);
    CHILD_EXPECT(ncclCommGetAsyncError(comm, &state) == ncclInvalidUsage, 6);
    CHILD_EXPECT(ncclCommDestroy(comm) == ncclSuccess, 7); /* gives up the copy: what a destructor does at exit */
    CHILD_EXPECT(ncclCommDestroy(comm) == ncclInvalidArgument, 8);
    /* One of its own. */
    ncclUniqueId id;
    ncclComm_t own;
    CHILD_EXPECT(ncclGetUniqueId(&id) == ncclSuccess && ncclCommInitRank(&own, 1, id, 0) == ncclSuccess, 9);
    CHILD_EXPECT(ncclAllReduce(&x, &x, 1, ncclFloat32, ncclSum, own, NULL) == ncclSuccess && x == 1, 10);
    CHILD_EXPECT(ncclCommDestroy(own) == ncclSuccess, 11);
    exit(0);
}

static void children_call(struct job_rank *rank)
{
    go_on(rank);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) in_the_child(rank->comm);
    go_on(rank);
    int status = 0;
    JOB_EXPECT(waitpid(child, &status, 0) == child && status == 0, "the child ended with %#x", status);
    go_on(rank);
}

static void a_child_is_refused_the_parents_communicator_and_may_have_its_own(void **state)
{
    (void)state;
    in_both_places(children_call, NULL, false);
}

/* ---- a child keeps nothing alive ---- */

struct orphan {
    _Atomic int child;
    _Atomic int seen; /* counts: rank 0's last call with a living peer has returned */
};

/* Rank 1 leaves a child behind and is killed: rank 0 hears of the death while that child lives. */
static void dies_leaving_a_child(struct job_rank *rank)
{
    struct orphan *o = rank->arg;
    int before = o->seen; /* alike on both: it is written only after a call that both take part in */
    go_on(rank);
    if (rank->rank == 0) o->seen = before + 1;
    if (rank->rank == 1) {
        while (o->seen == before) usleep(1000);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            for (;;) pause();
        }
        o->child = pid;
        raise(SIGKILL);
    }
    double began = trouble_now_s();
    ncclResult_t result = ncclSuccess;
    while (result == ncclSuccess && trouble_now_s() - began < 30)
        result = trouble_allreduce(rank->comm, rank->n_ranks, 100000);
    trouble_says(rank, "after the death", result, ncclRemoteError, "rank 1");
    JOB_EXPECT(kill(o->child, 0) == 0, "the child was not alive: this proved nothing");
    kill(o->child, SIGKILL);
}

static void a_death_is_noticed_although_a_child_lives(void **state)
{
    (void)state;
    in_both_places(dies_leaving_a_child, trouble_shared(sizeof(struct orphan)), true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_that_exits_changes_nothing),
        cmocka_unit_test(a_program_that_a_child_becomes_has_none_of_our_descriptors),
        cmocka_unit_test(a_child_works_while_the_parent_communicates),
        cmocka_unit_test(a_child_is_refused_the_parents_communicator_and_may_have_its_own),
        cmocka_unit_test(a_death_is_noticed_although_a_child_lives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
