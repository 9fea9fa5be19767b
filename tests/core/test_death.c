/* A rank that dies at any moment: survivors get ncclRemoteError naming it within 2 s, can abort within 100 ms, and
 * hold nothing afterwards that they did not hold before. A rank that is merely stopped or late is waited for. */
#include <errno.h>
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

enum moment { IN_INIT, BETWEEN_CALLS, IN_SMALL, IN_LARGE, ASLEEP };
static const char *const moments[] = {"in init", "between calls", "in small calls", "in large calls", "asleep"};

struct death {
    enum moment moment;
    int victim;       /* its rank */
    int delay_us;     /* from the start of that moment */
    _Atomic int dead; /* the victim is gone, or goes at once; shared */
    _Atomic long died_us; /* when, on the monotonic clock */
};

static long now_us(void) { return (long)(trouble_now_s() * 1e6); }

static void *dies(void *arg)
{
    struct death *d = arg;
    usleep((useconds_t)d->delay_us);
    atomic_store(&d->died_us, now_us());
    atomic_store(&d->dead, 1);
    raise(SIGKILL);
    kill(getpid(), SIGKILL);
    return NULL;
}

static void die_soon(struct death *d)
{
    pthread_t thread;
    pthread_create(&thread, NULL, dies, d);
    pthread_detach(thread);
}

static ncclResult_t call_until_it_fails(ncclComm_t comm, int n_ranks, enum moment moment)
{
    ncclResult_t result = ncclSuccess, async;
    size_t count = moment == IN_LARGE ? 400000 : moment == IN_SMALL ? 2 : 1000;
    while (result == ncclSuccess) {
        if (moment == BETWEEN_CALLS || moment == ASLEEP) {
            usleep(1000);
            result = ncclCommGetAsyncError(comm, &async);
            if (result == ncclSuccess) result = async;
        } else {
            result = trouble_allreduce(comm, n_ranks, count);
        }
    }
    return result;
}

static void check_news(struct job_rank *rank, const struct death *d, ncclResult_t result)
{
    char name[32];
    long late_ms = (now_us() - atomic_load(&d->died_us)) / 1000;
    snprintf(name, sizeof name, "rank %d", d->victim);
    if (!trouble_says(rank, moments[d->moment], result, ncclRemoteError, name)) return;
    JOB_EXPECT(late_ms < 2000, "%s: heard of it after %ld ms", moments[d->moment], late_ms);
}

/* A rank that dies before it has spoken to the root is one that never came: named at the deadline. Who comes when the
 * root's process has gone, too, learns only that. */
static void check_init(struct job_rank *rank, const struct death *d, ncclResult_t result)
{
    const char *text = ncclGetLastError(NULL);
    char never[48];
    snprintf(never, sizeof never, "rank %d (1 of %d) did not arrive", d->victim, rank->n_ranks);
    if (result == ncclRemoteError && strstr(text, never)) return;
    if (result == ncclRemoteError && strstr(text, "the root") && strstr(text, "Connection refused")) return;
    check_news(rank, d, result);
}

static void survive(struct job_rank *rank, struct death *d)
{
    ncclComm_t comm;
    ncclResult_t result, async = ncclSuccess;
    bool victim = rank->rank == d->victim;
    if (victim && d->moment == IN_INIT) die_soon(d);
    result = ncclCommInitRank(&comm, rank->n_ranks, rank->id, rank->rank);
    if (result != ncclSuccess) { /* who dies early in its first call may still be in the others' init */
        check_init(rank, d, result);
        return;
    }
    if (victim && d->moment != IN_INIT) die_soon(d);
    if (victim && (d->moment == BETWEEN_CALLS || d->moment == ASLEEP)) pause();
    if (!victim && d->moment == ASLEEP) result = trouble_allreduce(comm, rank->n_ranks, 3); /* the victim never calls */
    if (result == ncclSuccess) result = call_until_it_fails(comm, rank->n_ranks, d->moment);
    check_news(rank, d, result);
    JOB_TRY(ncclCommGetAsyncError(comm, &async));
    JOB_EXPECT(async == ncclRemoteError, "%s: the communicator's state is %d", moments[d->moment], async);
    double start_s = trouble_now_s();
    JOB_TRY(ncclCommAbort(comm));
    double took_ms = (trouble_now_s() - start_s) * 1e3;
    JOB_EXPECT(took_ms < 100, "%s: abort took %.1f ms", moments[d->moment], took_ms);
}

/* Holds at most what it held before, once the service thread has closed what ended by itself. */
static void holds_nothing_more(struct job_rank *rank, int fds)
{
    for (int i = 0; i < 100 && trouble_fds() > fds; i++) usleep(5000);
    JOB_EXPECT(trouble_fds() <= fds, "%d descriptors, %d before", trouble_fds(), fds);
}

static int warm_up(struct job_rank *rank)
{
    ncclUniqueId id;
    ncclComm_t comm;
    if (ncclGetUniqueId(&id) != ncclSuccess || ncclCommInitRank(&comm, 1, id, 0) != ncclSuccess ||
        ncclCommDestroy(comm) != ncclSuccess)
        job_fail(rank, "warming up: %s", ncclGetLastError(NULL));
    return trouble_fds();
}

/* Listeners for lanes stay for the process's next communicator, one per interface, and the socket on which the kernel tells
 * of NICs. */
enum { LISTENERS_MAX = 5 };

static void one_death(struct job_rank *rank)
{
    struct death *d = rank->arg;
    int fds = warm_up(rank);
    if (!rank->why[0]) survive(rank, d);
    if (!rank->why[0] && !d->victim) return; /* its process also had the root, which ends in its own time */
    if (!rank->why[0]) holds_nothing_more(rank, fds + LISTENERS_MAX + (rank->rank == 0 ? LISTENERS_MAX : 0));
}

static unsigned random_state;
static unsigned draw(unsigned below) { return (random_state = random_state * 1664525u + 1013904223u) / 65536u % below; }

static void deaths(int n, int hosts, int times)
{
    static const char *const env[] = {"RAILCCL_INIT_TIMEOUT_S=1", NULL};
    struct death *d = trouble_shared(sizeof *d);
    for (int i = 0; i < times; i++) {
        struct job job = {.n_ranks = n, .ranks_per_process = 1, .n_hosts = hosts, .bare = true, .may_die = true,
                          .limit_s = 15, .env = env};
        memset(d, 0, sizeof *d);
        d->moment = (enum moment)(i % 5);
        d->victim = (int)draw((unsigned)n);
        d->delay_us = (int)draw(d->moment == IN_INIT ? 20000 : 60000);
        const char *why = job_run(&job, one_death, d);
        if (why)
            fail_msg("%d ranks on %d hosts, rank %d dies %s after %d us: %s", n, hosts, d->victim, moments[d->moment],
                     d->delay_us, why);
    }
}

static int times(void) { return getenv("RAILCCL_TEST_LONG") ? 200 : 10; }

static void deaths_within_a_host(void **state) { (void)state; deaths(4, 1, times()); }
static void deaths_between_hosts(void **state) { (void)state; deaths(3, 3, times()); }
static void deaths_in_two_hosts_of_three(void **state) { (void)state; deaths(6, 2, times()); }
static void deaths_of_one_of_two(void **state) { (void)state; deaths(2, 1, times()); deaths(2, 2, times()); }
static void deaths_in_a_tree_of_depth_two(void **state) { (void)state; deaths(12, 1, times() / 2); }

/* ---- two at once ---- */

enum { PAIR_RANKS = 12 };
struct pair {
    int victims[2];
    _Atomic int ready;
    char texts[PAIR_RANKS][400];
};

static void two_of_us_die(struct job_rank *rank)
{
    struct pair *p = rank->arg;
    ncclResult_t async = ncclSuccess;
    ncclComm_t comm;
    JOB_TRY(ncclCommInitRank(&comm, rank->n_ranks, rank->id, rank->rank));
    JOB_TRY(trouble_allreduce(comm, rank->n_ranks, 1000));
    atomic_fetch_add(&p->ready, 1);
    while (atomic_load(&p->ready) < rank->n_ranks) usleep(200);
    if (rank->rank == p->victims[0] || rank->rank == p->victims[1]) kill(getpid(), SIGKILL);
    double start_s = trouble_now_s();
    while (async == ncclSuccess && trouble_now_s() - start_s < 5) {
        usleep(1000);
        JOB_TRY(ncclCommGetAsyncError(comm, &async));
    }
    JOB_EXPECT(async == ncclRemoteError, "state %d after %.1f s", async, trouble_now_s() - start_s);
    JOB_EXPECT(trouble_now_s() - start_s < 3, "heard of it after %.1f s", trouble_now_s() - start_s);
    snprintf(p->texts[rank->rank], sizeof p->texts[0], "%s", ncclGetLastError(NULL));
    while (trouble_now_s() - start_s < 1) usleep(1000); /* who goes home early would be one more to name */
    JOB_TRY(ncclCommAbort(comm));
}

static void two_deaths_at_once_have_one_culprit(void **state)
{
    (void)state;
    static const int victims[][2] = {{1, 2}, {0, 1}, {0, 10}, {1, 11}, {3, 9}}; /* rank 1 has children: 9, 10, 11 */
    struct pair *p = trouble_shared(sizeof *p);
    for (size_t v = 0; v < sizeof victims / sizeof victims[0]; v++) {
        const char *first = NULL;
        struct job job = {.n_ranks = PAIR_RANKS, .ranks_per_process = 1, .n_hosts = 3, .bare = true, .may_die = true,
                          .limit_s = 30};
        memset(p, 0, sizeof *p);
        memcpy(p->victims, victims[v], sizeof p->victims);
        const char *why = job_run(&job, two_of_us_die, p);
        if (why) fail_msg("ranks %d and %d: %s", p->victims[0], p->victims[1], why);
        for (int r = 0; r < PAIR_RANKS; r++) {
            if (r == p->victims[0] || r == p->victims[1]) continue;
            if (!first) first = p->texts[r];
            if (strcmp(p->texts[r], first) != 0) fail_msg("rank %d says: %s; others: %s", r, p->texts[r], first);
        }
        char named[32];
        snprintf(named, sizeof named, "rank %d (host", p->victims[0]);
        if (!first || !strstr(first, named)) fail_msg("no \"%s\" in: %s", named, first ? first : "");
    }
}

/* ---- one process of several ranks ---- */

static void survive_in_threads(struct job_rank *rank) { survive(rank, rank->arg); }

static void a_process_of_two_ranks_dies(void **state)
{
    (void)state;
    struct death *d = trouble_shared(sizeof *d);
    d->moment = IN_SMALL;
    d->victim = 3;
    d->delay_us = 20000;
    struct job job = {.n_ranks = 6, .ranks_per_process = 2, .bare = true, .may_die = true, .limit_s = 15};
    const char *why = job_run(&job, survive_in_threads, d); /* rank 2 dies, too: either may be named */
    if (why && !strstr(why, "rank 2 (")) fail_msg("%s", why);
}

/* ---- stopped and late ranks ---- */

static void stop_me(double after_s, double for_s)
{
    pid_t self = getpid();
    if (fork() > 0) return;
    trouble_sleep_s(after_s);
    kill(self, SIGSTOP);
    trouble_sleep_s(for_s);
    kill(self, SIGCONT);
    _exit(0);
}

static void one_rank_is_stopped(struct job_rank *rank)
{
    double until_s = trouble_now_s() + 2.6;
    long calls = 0;
    int go = 1, all = 0;
    if (rank->rank == 1) stop_me(0.2, 2);
    while (go) {
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, calls & 7 ? 2 : 50000));
        calls++;
        int mine = trouble_now_s() < until_s;
        JOB_TRY(ncclAllReduce(&mine, &all, 1, ncclInt32, ncclMax, rank->comm, NULL));
        go = all;
    }
    if (rank->rank == 1) wait(NULL);
    ncclResult_t async;
    JOB_TRY(ncclCommGetAsyncError(rank->comm, &async));
    JOB_EXPECT(async == ncclSuccess && calls > 3, "state %d after %ld calls", async, calls);
}

static void a_stopped_rank_is_waited_for(void **state)
{
    (void)state;
    for (int hosts = 1; hosts <= 3; hosts += 2) {
        struct job job = {.n_ranks = 3, .ranks_per_process = 1, .n_hosts = hosts, .limit_s = 20};
        job_must(&job, one_rank_is_stopped, NULL);
    }
}

static void one_rank_is_late(struct job_rank *rank)
{
    size_t count = *(const size_t *)rank->arg;
    double late_s = getenv("RAILCCL_TEST_LONG") ? 5 : 1.1;
    for (int i = 0; i < 3; i++) JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, count));
    if (rank->rank == 0) trouble_sleep_s(late_s);
    double cpu_s = trouble_cpu_s(), start_s = trouble_now_s();
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, count));
    double took_s = trouble_now_s() - start_s, share = (trouble_cpu_s() - cpu_s) / took_s;
    if (rank->rank == 0) return;
    JOB_EXPECT(took_s > late_s / 2, "did not wait: %.3f s", took_s);
    printf("# rank %d waited %.2f s for %zu floats with %.1f %% of a core\n", rank->rank, took_s, count, 100 * share);
    JOB_EXPECT(share < 0.1, "waiting took %.0f %% of a core", 100 * share);
}

static void a_late_rank_is_waited_for_asleep(void **state)
{
    (void)state;
    static size_t counts[] = {2, 100000};
    for (int hosts = 1; hosts <= 3; hosts++)
        for (int i = 0; i < 2; i++) {
            struct job job = {.n_ranks = 3, .ranks_per_process = 1, .n_hosts = hosts, .limit_s = 20};
            job_must(&job, one_rank_is_late, &counts[i]);
        }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deaths_of_one_of_two),
        cmocka_unit_test(deaths_within_a_host),
        cmocka_unit_test(deaths_between_hosts),
        cmocka_unit_test(deaths_in_two_hosts_of_three),
        cmocka_unit_test(deaths_in_a_tree_of_depth_two),
        cmocka_unit_test(two_deaths_at_once_have_one_culprit),
        cmocka_unit_test(a_process_of_two_ranks_dies),
        cmocka_unit_test(a_stopped_rank_is_waited_for),
        cmocka_unit_test(a_late_rank_is_waited_for_asleep),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    random_state = getenv("RAILCCL_TEST_SEED") ? (unsigned)atoi(getenv("RAILCCL_TEST_SEED")) : (unsigned)getpid();
    print_message("seed %u (RAILCCL_TEST_SEED)\n", random_state);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
