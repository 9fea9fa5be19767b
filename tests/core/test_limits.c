/* Exhausted, small and missing things: a text that says which, nothing left behind, and the next attempt works. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/trouble.h"

static void alone(struct job_rank *rank)
{
    ncclUniqueId id;
    ncclComm_t comm;
    JOB_TRY(ncclGetUniqueId(&id));
    JOB_TRY(ncclCommInitRank(&comm, 1, id, 0));
    JOB_TRY(trouble_allreduce(comm, 1, 100));
    JOB_TRY(ncclCommDestroy(comm));
}

/* ---- descriptors ---- */

static void set_room(int fds)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = (rlim_t)fds;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* With room for k more descriptors, for each k until it works: the right text, no leak. */
static void ever_more_descriptors(struct job_rank *rank)
{
    alone(rank); /* the service thread's own stay */
    if (rank->why[0]) return;
    int base = trouble_fds(), room = 0, highest = open("/dev/null", O_RDONLY);
    ncclResult_t result = ncclSystemError;
    close(highest);
    for (; result != ncclSuccess && room < 64; room++) {
        ncclUniqueId id;
        ncclComm_t comm;
        set_room(highest + room);
        result = ncclGetUniqueId(&id);
        if (result == ncclSuccess) result = ncclCommInitRank(&comm, 1, id, 0);
        char text[600];
        snprintf(text, sizeof text, "%s", ncclGetLastError(NULL));
        set_room(1024);
        if (result == ncclSuccess) JOB_TRY(ncclCommDestroy(comm));
        if (result != ncclSuccess)
            JOB_EXPECT((result == ncclSystemError || result == ncclRemoteError) &&
                           (strstr(text, "open files") || strstr(text, "ulimit -n")),
                       "room for %d: result %d: %s", room, result, text);
        for (int i = 0; i < 400 && trouble_fds() > base + 6; i++) usleep(5000);
        JOB_EXPECT(trouble_fds() <= base + 6, "room for %d: %d descriptors, %d before", room, trouble_fds(), base);
    }
    JOB_EXPECT(result == ncclSuccess && room > 1, "room for %d did not suffice", room);
    alone(rank);
}

static void exhausted_descriptors_at_init(void **state)
{
    (void)state;
    static const char *const env[] = {"RAILCCL_INIT_TIMEOUT_S=1", "RAILCCL_ROOT_TIMEOUT_S=1", NULL};
    struct job job = {.n_ranks = 1, .ranks_per_process = 1, .bare = true, .limit_s = 100, .env = env};
    job_must(&job, ever_more_descriptors, NULL);
}

static void one_rank_has_no_descriptors(struct job_rank *rank)
{
    ncclComm_t comm;
    alone(rank);
    if (rank->why[0]) return;
    int highest = open("/dev/null", O_RDONLY), room = *(const int *)rank->arg;
    close(highest);
    if (rank->rank == 1) set_room(highest + room);
    double start_s = trouble_now_s();
    ncclResult_t result = ncclCommInitRank(&comm, rank->n_ranks, rank->id, rank->rank);
    if (result == ncclSuccess) result = trouble_allreduce(comm, rank->n_ranks, 100000);
    JOB_EXPECT(result == ncclSuccess || strlen(ncclGetLastError(NULL)) > 20, "no text");
    JOB_EXPECT(result == ncclSuccess || result == ncclSystemError || result == ncclRemoteError, "result %d", result);
    JOB_EXPECT(trouble_now_s() - start_s < 35, "room %d: took %.1f s: %s", room, trouble_now_s() - start_s,
               ncclGetLastError(NULL));
    set_room(1024);
}

static void a_rank_without_descriptors_holds_nobody_up(void **state)
{
    (void)state;
    static const char *const env[] = {"RAILCCL_INIT_TIMEOUT_S=3", NULL};
    static int rooms[] = {0, 1, 2, 3, 5, 8};
    for (int hosts = 1; hosts < 3; hosts++)
        for (int i = 0; i < 6; i++) {
            /* a lane that finds no descriptor at the other end tries for 30 s, in which some may become free */
            if (hosts > 1 && i > 1 && !getenv("RAILCCL_TEST_LONG")) continue;
            struct job job = {.n_ranks = 2, .ranks_per_process = 1, .n_hosts = hosts, .bare = true, .env = env,
                              .limit_s = 50};
            job_must(&job, one_rank_has_no_descriptors, &rooms[i]);
        }
}

/* ---- address space ---- */

static void little_memory(struct job_rank *rank)
{
    alone(rank);
    if (rank->why[0]) return;
    long kib = trouble_status_kib("VmSize:") + *(const int *)rank->arg;
    struct rlimit limit = {(rlim_t)kib << 10, RLIM_INFINITY}, all = {RLIM_INFINITY, RLIM_INFINITY};
    ncclComm_t comm;
    if (rank->rank == 1) setrlimit(RLIMIT_AS, &limit);
    ncclResult_t result = ncclCommInitRank(&comm, rank->n_ranks, rank->id, rank->rank);
    setrlimit(RLIMIT_AS, &all);
    if (result == ncclSuccess) {
        JOB_TRY(trouble_allreduce(comm, rank->n_ranks, 100));
        JOB_TRY(ncclCommDestroy(comm));
    } else {
        const char *text = ncclGetLastError(NULL);
        /* without room for a few KiB rank 1 never gets as far as the root: its peer can only say that it did not come */
        bool told = result == ncclSystemError && strstr(text, "emory");
        bool missed = rank->rank == 0 && result == ncclRemoteError && strstr(text, "rank 1 (1 of 2) did not arrive");
        JOB_EXPECT(told || missed, "result %d: %s", result, text);
    }
}

static void little_address_space_at_init(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* the sanitizers need terabytes of it */
#endif
    static const char *const env[] = {"RAILCCL_INIT_TIMEOUT_S=3", NULL};
    static int kib[] = {0, 16, 64, 256, 1024, 4096, 1 << 20};
    for (size_t i = 0; i < sizeof kib / sizeof *kib; i++) {
        struct job job = {.n_ranks = 2, .ranks_per_process = 1, .bare = true, .limit_s = 20, .env = env};
        job_must(&job, little_memory, &kib[i]);
    }
}

/* ---- the root ---- */

static void to_a_closed_port(struct job_rank *rank)
{
    ncclUniqueId id;
    ncclComm_t comm;
    setenv("NCCL_COMM_ID", "127.0.0.1:1", 1);
    setenv("RAILCCL_SECRET", "a", 1);
    JOB_TRY(ncclGetUniqueId(&id));
    double start_s = trouble_now_s();
    if (!trouble_says(rank, "init", ncclCommInitRank(&comm, 2, id, 1), ncclRemoteError, "127.0.0.1:1|refused")) return;
    JOB_EXPECT(trouble_now_s() - start_s < 4, "took %.1f s", trouble_now_s() - start_s);
}

static void nobody_listens_where_the_root_should_be(void **state)
{
    (void)state;
    static const char *const env[] = {"RAILCCL_INIT_TIMEOUT_S=2", "NCCL_COMM_ID=127.0.0.1:1", "RAILCCL_SECRET=a", NULL};
    struct job job = {.n_ranks = 1, .ranks_per_process = 1, .bare = true, .limit_s = 20, .env = env};
    job_must(&job, to_a_closed_port, NULL);
}

static void with_my_own_secret(struct job_rank *rank)
{
    ncclComm_t comm;
    double start_s = trouble_now_s();
    ncclResult_t result = ncclCommInitRank(&comm, 2, rank->id, rank->rank);
    JOB_EXPECT(result == ncclRemoteError, "result %d: %s", result, ncclGetLastError(NULL));
    if (rank->rank == 1 && !trouble_says(rank, "init", result, result, "secret|RAILCCL_SECRET")) return;
    if (rank->rank == 0 && !trouble_says(rank, "init", result, result, "rank 1|did not arrive")) return;
    JOB_EXPECT(trouble_now_s() - start_s < 5, "took %.1f s", trouble_now_s() - start_s);
}

static int free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof a;
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || getsockname(fd, (struct sockaddr *)&a, &bytes)) return 0;
    close(fd);
    return ntohs(a.sin_port);
}

static void ranks_of_different_secrets(void **state)
{
    (void)state;
    char where[64];
    snprintf(where, sizeof where, "NCCL_COMM_ID=127.0.0.1:%d", free_port());
    const char *env[2][4] = {{"RAILCCL_INIT_TIMEOUT_S=2", where, "RAILCCL_SECRET=one"},
                             {"RAILCCL_INIT_TIMEOUT_S=2", where, "RAILCCL_SECRET=other"}};
    struct board { _Atomic int done; char why[2][JOB_WHY]; } *b = trouble_shared(sizeof *b);
    for (int r = 0; r < 2; r++)
        if (fork() == 0) {
            for (int i = 0; env[r][i]; i++) putenv(strdup(env[r][i]));
            struct job_rank rank = {.rank = r, .n_ranks = 2, .why = b->why[r]};
            if (ncclGetUniqueId(&rank.id) != ncclSuccess) job_fail(&rank, "%s", ncclGetLastError(NULL));
            else with_my_own_secret(&rank);
            _exit(0);
        }
    while (wait(NULL) > 0) {}
    if (b->why[0][0] || b->why[1][0]) fail_msg("%s; %s", b->why[0], b->why[1]);
}

/* ---- again and again ---- */

static void many_cycles(struct job_rank *rank)
{
    int fds = 0, threads = 0, cycles = getenv("RAILCCL_TEST_LONG") ? 1000 : 200, settled = cycles / 4;
    long kib = 0;
    for (int i = 0; i < cycles; i++) {
        ncclComm_t comm;
        JOB_TRY(trouble_second_comm(rank, &comm));
        JOB_TRY(trouble_allreduce(comm, rank->n_ranks, i & 1 ? 2 : 30000));
        if ((i & 3) == 2) JOB_TRY(ncclCommFinalize(comm));
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1)); /* nobody aborts what others still wait in */
        JOB_TRY((i & 7) == 7 ? ncclCommAbort(comm) : ncclCommDestroy(comm));
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
        if (i != settled) continue;
        fds = trouble_fds();
        threads = trouble_threads();
        kib = trouble_status_kib("VmRSS:");
    }
    for (int i = 0; i < 200 && trouble_fds() > fds + 2; i++) usleep(5000);
    long more_kib = trouble_status_kib("VmRSS:") - kib;
    printf("# rank %d: descriptors %d -> %d, threads %d -> %d, memory %ld KiB + %ld\n", rank->rank, fds, trouble_fds(),
           threads, trouble_threads(), kib, more_kib);
    JOB_EXPECT(trouble_fds() <= fds + 4, "%d descriptors, %d before", trouble_fds(), fds);
    JOB_EXPECT(trouble_threads() <= threads, "%d threads, %d before", trouble_threads(), threads);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    JOB_EXPECT(more_kib < 600, "%ld KiB more than after %d cycles", more_kib, settled);
#endif
}

static void communicators_made_and_destroyed_over_and_over(void **state)
{
    (void)state;
    for (int hosts = 1; hosts < 3; hosts++) {
        struct job job = {.n_ranks = 2, .ranks_per_process = 1, .n_hosts = hosts, .limit_s = 120};
        job_must(&job, many_cycles, NULL);
    }
}

/* ---- fork ---- */

static void a_child_is_forked(struct job_rank *rank)
{
    for (int i = 0; i < 6; i++) {
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, i & 1 ? 3 : 30000));
        pid_t child = fork();
        if (child == 0) {
            if (i >= 2) ncclCommDestroy(rank->comm);
#if !defined(__SANITIZE_ADDRESS__) /* its leak check does not know the stacks of threads that a fork left behind */
            if (i >= 4) exit(0);
#endif
            _exit(0);
        }
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, i & 1 ? 30000 : 3));
        int status = -1;
        waitpid(child, &status, 0);
        JOB_EXPECT(status == 0, "attempt %d: the child ended with status %#x", i, status);
        trouble_sleep_s(0.05); /* time for news of a death that was none */
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 30000));
    }
}

static void a_forked_child_ends_without_disturbing_anybody(void **state)
{
    (void)state;
    for (int hosts = 1; hosts < 4; hosts++) {
        struct job job = {.n_ranks = 3, .ranks_per_process = 1, .n_hosts = hosts, .limit_s = 20};
        job_must(&job, a_child_is_forked, NULL);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exhausted_descriptors_at_init),
        cmocka_unit_test(a_rank_without_descriptors_holds_nobody_up),
        cmocka_unit_test(little_address_space_at_init),
        cmocka_unit_test(nobody_listens_where_the_root_should_be),
        cmocka_unit_test(ranks_of_different_secrets),
        cmocka_unit_test(communicators_made_and_destroyed_over_and_over),
        cmocka_unit_test(a_forked_child_ends_without_disturbing_anybody),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
