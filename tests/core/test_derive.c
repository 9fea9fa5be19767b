/* Communicators made of communicators: who is in them, in which order, that they work, also on another configuration, in
 * groups, from broken parents; and what is said of bad arguments. */
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
#include <unistd.h>

#include <cmocka.h>

#include "support/trouble.h"

/* The communicator `comm` has these old ranks in this order: everybody gives its old rank, and the table is compared.
 * Then a larger sum, so that windows and links are used as well. */
static bool is_made_of(struct job_rank *rank, ncclComm_t comm, const int *old_ranks, int n)
{
    int count = -1, me = -1, got[64] = {0}, mine = rank->rank;
    if (ncclCommCount(comm, &count) != ncclSuccess || ncclCommUserRank(comm, &me) != ncclSuccess || count != n ||
        old_ranks[me] != mine) {
        job_fail(rank, "is rank %d of %d, expected %d members: %s", me, count, n, ncclGetLastError(NULL));
        return false;
    }
    if (ncclAllGather(&mine, got, 1, ncclInt32, comm, NULL) != ncclSuccess) {
        job_fail(rank, "AllGather among %d: %s", n, ncclGetLastError(NULL));
        return false;
    }
    for (int i = 0; i < n; i++)
        if (got[i] != old_ranks[i]) {
            job_fail(rank, "rank %d is old rank %d, expected %d", i, got[i], old_ranks[i]);
            return false;
        }
    ncclResult_t result = trouble_allreduce(comm, n, 50000);
    if (result != ncclSuccess) job_fail(rank, "AllReduce among %d: %d: %s", n, result, ncclGetLastError(NULL));
    return result == ncclSuccess;
}

/* ---- split ---- */

/* Old rank r passes color[r], key[r]. The members of each color in their new order follow from the definition: repeatedly
 * the least (key, rank) that is left. */
static int expect_members(const int *color, const int *key, int n, int of_color, int *out)
{
    bool taken[64] = {false};
    int members = 0;
    for (;;) {
        int best = -1;
        for (int r = 0; r < n; r++)
            if (!taken[r] && color[r] == of_color && (best < 0 || key[r] < key[best])) best = r;
        if (best < 0) return members;
        taken[best] = true;
        out[members++] = best;
    }
}

static bool split_works(struct job_rank *rank, ncclComm_t parent, const int *color, const int *key, bool destroy)
{
    int members[64], n = expect_members(color, key, rank->n_ranks, color[rank->rank], members);
    ncclComm_t child = (ncclComm_t)(uintptr_t)16;
    ncclResult_t result = ncclCommSplit(parent, color[rank->rank], key[rank->rank], &child, NULL);
    if (result != ncclSuccess) {
        job_fail(rank, "split: %d: %s", result, ncclGetLastError(NULL));
        return false;
    }
    if (color[rank->rank] == NCCL_SPLIT_NOCOLOR) {
        if (child) job_fail(rank, "NOCOLOR got %p", (void *)child);
        return child == NULL;
    }
    if (!is_made_of(rank, child, members, n)) return false;
    result = destroy ? ncclCommDestroy(child) : ncclCommAbort(child);
    if (result != ncclSuccess) job_fail(rank, "ending the child: %s", ncclGetLastError(NULL));
    return result == ncclSuccess;
}

static void many_splits(struct job_rank *rank)
{
    unsigned seed = 7; /* the same on all ranks */
    int color[64], key[64], n = rank->n_ranks;
    for (int round = 0; round < 12 && !rank->why[0]; round++) {
        for (int r = 0; r < n; r++) {
            color[r] = round == 0 ? 0 : round == 1 ? r : round == 2 ? NCCL_SPLIT_NOCOLOR : (int)(rand_r(&seed) % 4) - 1;
            key[r] = round == 0 ? -r : round < 4 ? 0 : (int)(rand_r(&seed) % 5) - 2;
        }
        if (!split_works(rank, rank->comm, color, key, true)) return;
        JOB_TRY(trouble_allreduce(rank->comm, n, round % 2 ? 3 : 3000)); /* the parent works on */
    }
}

static const struct job shapes[] = {
    {.n_ranks = 4},
    {.n_ranks = 4, .ranks_per_process = 1},
    {.n_ranks = 6, .ranks_per_process = 2},
    {.n_ranks = 4, .ranks_per_process = 1, .n_hosts = 2},
    {.n_ranks = 11, .ranks_per_process = 1},
    {.n_ranks = 6, .ranks_per_process = 2, .n_hosts = 3},
};

static void on_all_shapes(void (*body)(struct job_rank *))
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
#if defined(__SANITIZE_THREAD__)
        if (shapes[i].ranks_per_process) continue;
#endif
        job_must(&shapes[i], body, NULL);
    }
}

static void splits_of_any_colors_and_keys(void **state) { (void)state; on_all_shapes(many_splits); }

/* Pretended hosts that have nothing but the loopback interface, as `railccl run --hosts-emulate` makes them. */
static void hosts_on_loopback_alone(void **state)
{
    (void)state;
    static const char *const env[] = {"NCCL_SOCKET_IFNAME=lo", NULL};
    job_must(&(struct job){.n_ranks = 6, .ranks_per_process = 1, .n_hosts = 3, .env = env}, many_splits, NULL);
}

/* A row and a column of a grid, of a communicator that was split itself; all live at once, and outlive their parents. */
static void grid(struct job_rank *rank)
{
    ncclComm_t even, half;
    int n = rank->n_ranks;
    JOB_TRY(ncclCommSplit(rank->comm, 0, n - rank->rank, &even, NULL)); /* all, backwards */
    JOB_TRY(ncclCommSplit(even, rank->rank % 2, rank->rank, &half, NULL));
    JOB_TRY(ncclCommDestroy(even));
    int members[64], m = 0;
    for (int r = rank->rank % 2; r < n; r += 2) members[m++] = r;
    if (!is_made_of(rank, half, members, m)) return;
    JOB_TRY(ncclCommDestroy(half));
}

static void splits_of_splits(void **state) { (void)state; on_all_shapes(grid); }

static void grouped(struct job_rank *rank)
{
    ncclComm_t a = NULL, b = NULL, c = (ncclComm_t)(uintptr_t)16;
    int n = rank->n_ranks, me = rank->rank, all[64], same[64], m = 0;
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclCommSplit(rank->comm, 5, 0, &a, NULL));
    JOB_TRY(ncclCommSplit(rank->comm, me % 2, 0, &b, NULL));
    JOB_TRY(ncclCommSplit(rank->comm, me ? 1 : NCCL_SPLIT_NOCOLOR, 0, &c, NULL));
    JOB_EXPECT(a == NULL && b == NULL, "written before the group's end");
    JOB_TRY(ncclGroupEnd());
    for (int r = 0; r < n; r++) all[r] = r;
    for (int r = me % 2; r < n; r += 2) same[m++] = r;
    if (!is_made_of(rank, a, all, n) || !is_made_of(rank, b, same, m)) return;
    JOB_EXPECT(me || !c, "NOCOLOR got %p", (void *)c);
    if (me && !is_made_of(rank, c, all + 1, n - 1)) return;
    JOB_TRY(ncclCommDestroy(a));
    JOB_TRY(ncclCommDestroy(b));
    JOB_TRY(ncclCommDestroy(c));
}

static void several_splits_in_one_group(void **state) { (void)state; on_all_shapes(grouped); }

/* One thread that has all ranks, and splits two communicators of them in one group. */
static void one_thread_splits_for_all_its_ranks(void **state)
{
    (void)state;
    enum { N = 4 };
    ncclComm_t parents[N], halves[N], backwards[N];
    int rank;
    assert_int_equal(ncclCommInitAll(parents, N, NULL), ncclSuccess);
    assert_int_equal(ncclGroupStart(), ncclSuccess);
    for (int r = 0; r < N; r++) {
        assert_int_equal(ncclCommSplit(parents[r], r / 2, r, &halves[r], NULL), ncclSuccess);
        assert_int_equal(ncclCommSplit(parents[r], 0, N - r, &backwards[r], NULL), ncclSuccess);
    }
    assert_int_equal(ncclGroupEnd(), ncclSuccess);
    for (int r = 0; r < N; r++) {
        assert_int_equal(ncclCommUserRank(halves[r], &rank), ncclSuccess);
        assert_int_equal(rank, r % 2);
        assert_int_equal(ncclCommUserRank(backwards[r], &rank), ncclSuccess);
        assert_int_equal(rank, N - 1 - r);
    }
    for (int r = 0; r < N; r++) {
        assert_int_equal(ncclCommDestroy(halves[r]), ncclSuccess);
        assert_int_equal(ncclCommDestroy(backwards[r]), ncclSuccess);
        assert_int_equal(ncclCommDestroy(parents[r]), ncclSuccess);
    }
}

static void bad_splits(struct job_rank *rank)
{
    ncclComm_t child;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.minCTAs = -3;
    if (!trouble_says(rank, "color", ncclCommSplit(rank->comm, -2, 0, &child, NULL), ncclInvalidArgument,
                      "ncclCommSplit|color -2|NCCL_SPLIT_NOCOLOR"))
        return;
    if (!trouble_says(rank, "newcomm", ncclCommSplit(rank->comm, 0, 0, NULL, NULL), ncclInvalidArgument,
                      "ncclCommSplit|newcomm is NULL"))
        return;
    if (!trouble_says(rank, "comm", ncclCommSplit(NULL, 0, 0, &child, NULL), ncclInvalidArgument,
                      "ncclCommSplit|communicator is NULL"))
        return;
    if (!trouble_says(rank, "config", ncclCommSplit(rank->comm, 0, 0, &child, &config), ncclInvalidArgument,
                      "ncclCommSplit|minCTAs"))
        return;
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 10));
    JOB_TRY(ncclCommSplit(rank->comm, 0, 0, &child, NULL));
    JOB_TRY(trouble_allreduce(child, rank->n_ranks, 10));
    JOB_TRY(ncclCommDestroy(child));
}

static void bad_splits_are_named_and_harm_nothing(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 3, .ranks_per_process = 1}, bad_splits, NULL);
}

/* ---- shrink ---- */

static int remaining(int n, const int *excluded, int n_excluded, int *out)
{
    int members = 0;
    for (int r = 0; r < n; r++) {
        bool gone = false;
        for (int i = 0; i < n_excluded; i++) gone |= excluded[i] == r;
        if (!gone) out[members++] = r;
    }
    return members;
}

static void shrink_of(struct job_rank *rank, ncclComm_t parent, const int *excluded, int n_excluded, int flags)
{
    int members[64], list[64], n = remaining(rank->n_ranks, excluded, n_excluded, members);
    ncclComm_t child;
    memcpy(list, excluded, (size_t)n_excluded * sizeof *list);
    for (int i = 0; i < n_excluded; i++)
        if (excluded[i] == rank->rank) return;
    JOB_TRY(ncclCommShrink(parent, list, n_excluded, &child, NULL, flags));
    if (is_made_of(rank, child, members, n)) JOB_TRY(ncclCommDestroy(child));
}

/* A healthy parent works on; the same list twice gives two communicators. */
static void shrinks(struct job_rank *rank)
{
    static const struct { int n, list[3]; } lists[] = {{1, {0}}, {1, {3}}, {2, {2, 0}}, {3, {1, 0, 3}}, {0, {0}}};
    for (size_t i = 0; i < 2 * sizeof lists / sizeof *lists && !rank->why[0]; i++) {
        shrink_of(rank, rank->comm, lists[i / 2].list, lists[i / 2].n, NCCL_SHRINK_DEFAULT);
        if (rank->why[0]) return;
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 100));
    }
    static const int last[] = {1};
    shrink_of(rank, rank->comm, last, 1, NCCL_SHRINK_ABORT);
}

static void shrink_all_ways(struct job_rank *rank)
{
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    shrinks(rank);
    if (!rank->why[0]) trouble_sleep_s(rank->rank == 1 ? 0.3 : 0); /* who was excluded last is not taken for dead */
    JOB_TRY(ncclCommAbort(rank->comm));
}

static void shrinks_of_a_healthy_communicator(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct job job = shapes[i];
        job.bare = true;
#if defined(__SANITIZE_THREAD__)
        if (job.ranks_per_process) continue;
#endif
        job_must(&job, shrink_all_ways, NULL);
    }
}

/* Some ranks die. The others hear of the first, and go on without all of them: the tree is cut wherever those were. */
struct casualties { int n, list[3]; };

static void survivors_shrink(struct job_rank *rank)
{
    const struct casualties *c = rank->arg;
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    ncclResult_t result = trouble_allreduce(rank->comm, rank->n_ranks, 2000);
    for (int i = 0; i < c->n; i++)
        if (c->list[i] == rank->rank) raise(SIGKILL);
    while (result == ncclSuccess) result = trouble_allreduce(rank->comm, rank->n_ranks, 2000);
    JOB_EXPECT(result == ncclRemoteError, "the death: %d: %s", result, ncclGetLastError(NULL));
    shrink_of(rank, rank->comm, c->list, c->n, rank->rank % 2 ? NCCL_SHRINK_ABORT : NCCL_SHRINK_DEFAULT);
    if (!rank->why[0]) JOB_TRY(ncclCommDestroy(rank->comm));
}

static void survivors_go_on_without_the_dead(void **state)
{
    (void)state;
    static struct casualties list[] = {{1, {3}}, {1, {0}}, {1, {1}}, {2, {0, 2}}, {3, {3, 1, 0}}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        for (int hosts = 1; hosts <= 2; hosts++) {
            struct job job = {.n_ranks = 4 + 8 * (i == 2), .ranks_per_process = 1, .n_hosts = hosts, .bare = true,
                              .may_die = true, .limit_s = 30};
            job_must(&job, survivors_shrink, &list[i]);
        }
}

/* The same while splitting: a rank dies at some moment of a series of splits, and the others go on without it. */
struct death { int victim, after_us; _Atomic int ready; };

static void *dies(void *arg)
{
    usleep((useconds_t)((struct death *)arg)->after_us);
    raise(SIGKILL);
    kill(getpid(), SIGKILL);
    return NULL;
}

/* Splits until that fails. With blocking = 0 the child may be what fails. */
static ncclResult_t split_until_it_fails(struct job_rank *rank)
{
    ncclResult_t result = ncclSuccess, state;
    while (result == ncclSuccess) {
        ncclComm_t child = NULL;
        result = ncclCommSplit(rank->comm, rank->rank % 2, 0, &child, NULL);
        while (result == ncclInProgress && ncclCommGetAsyncError(child, &state) == ncclSuccess)
            if (state != ncclInProgress) result = state;
        while (ncclCommGetAsyncError(rank->comm, &state) == ncclSuccess && state == ncclInProgress) usleep(100);
        if (result == ncclSuccess) result = state;
        if (child) (void)(result == ncclSuccess ? ncclCommDestroy(child) : ncclCommAbort(child));
    }
    return result;
}

static void one_dies_while_splitting(struct job_rank *rank)
{
    struct death *d = rank->arg;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = d->after_us % 2;
    ncclResult_t result = ncclCommInitRankConfig(&rank->comm, rank->n_ranks, rank->id, rank->rank, &config), state;
    while (ncclCommGetAsyncError(rank->comm, &result) == ncclSuccess && result == ncclInProgress) usleep(100);
    JOB_TRY(result);
    pthread_t thread;
    atomic_fetch_add(&d->ready, 1); /* who dies while others join is another test's */
    double start_s = trouble_now_s();
    while (atomic_load(&d->ready) < rank->n_ranks && trouble_now_s() - start_s < 20) usleep(200);
    if (rank->rank == d->victim) pthread_create(&thread, NULL, dies, d);
    start_s = trouble_now_s();
    result = split_until_it_fails(rank);
    if (rank->rank == d->victim) pause(); /* it heard of nothing but its own end */
    char name[32];
    snprintf(name, sizeof name, "rank %d (", d->victim);
    JOB_EXPECT(result == ncclRemoteError, "split: %d: %s", result, ncclGetLastError(NULL));
    /* A child that was ready already says it in its own numbers, maybe a moment before the parent does in its. */
    while (ncclCommGetAsyncError(rank->comm, &result) == ncclSuccess && result == ncclSuccess) usleep(1000);
    if (!trouble_says(rank, "the parent", result, ncclRemoteError, name)) return;
    JOB_EXPECT(trouble_now_s() - start_s < 10, "heard of it after %.1f s", trouble_now_s() - start_s);
    int members[64], n = remaining(rank->n_ranks, &d->victim, 1, members);
    ncclComm_t child = NULL;
    result = ncclCommShrink(rank->comm, &d->victim, 1, &child, NULL, NCCL_SHRINK_DEFAULT);
    if (!config.blocking && result == ncclInProgress)
        while (ncclCommGetAsyncError(child, &result) == ncclSuccess && result == ncclInProgress) usleep(100);
    JOB_TRY(result);
    while (ncclCommGetAsyncError(rank->comm, &state) == ncclSuccess && state == ncclInProgress) usleep(100);
    if (!is_made_of(rank, child, members, n)) return;
    JOB_TRY(ncclCommDestroy(child));
    JOB_TRY(ncclCommAbort(rank->comm));
}

static void a_rank_dies_while_splitting(void **state)
{
    (void)state;
    struct death *d = trouble_shared(sizeof *d);
    int times = getenv("RAILCCL_TEST_LONG") ? 200 : 16;
    for (int i = 0; i < times; i++) {
        memset(d, 0, sizeof *d);
        d->victim = i % 5;
        d->after_us = 500 + i * 1777 % 20000;
        struct job job = {.n_ranks = i % 3 ? 5 : 11, .ranks_per_process = 1, .n_hosts = i % 2 + 1, .bare = true,
                          .may_die = true, .limit_s = 30};
        const char *why = job_run(&job, one_dies_while_splitting, d);
        if (why) fail_msg("%d ranks, %d hosts, rank %d dies after %d us: %s", job.n_ranks, job.n_hosts, d->victim, d->after_us, why);
    }
}

static void disagree(struct job_rank *rank)
{
    ncclComm_t child;
    int list[1] = {rank->rank == 0 ? 1 : 3};
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
    if (rank->rank == 1 || rank->rank == 3) {
        usleep(2500000); /* alive beyond the deadline: who has ended would be named at once */
        return;
    }
    if (trouble_says(rank, "different lists", ncclCommShrink(rank->comm, list, 1, &child, NULL, NCCL_SHRINK_DEFAULT),
                     ncclRemoteError, "ncclCommShrink|same list of excluded ranks"))
        JOB_TRY(trouble_allreduce(rank->comm, 1, 0));
}

static void different_lists_are_named_at_the_deadline(void **state)
{
    (void)state;
    static const char *const env[] = {"RAILCCL_INIT_TIMEOUT_S=2", NULL};
    job_must(&(struct job){.n_ranks = 4, .ranks_per_process = 1, .env = env}, disagree, NULL);
}

static void bad_shrinks(struct job_rank *rank)
{
    ncclComm_t child;
    int others[] = {1, 2, 0}, me = rank->rank, far = 3, twice[] = {(me + 1) % 3, (me + 1) % 3};
    int negative = -1;
#define BAD(list, n, flags, words)                                                                                     \
    if (!trouble_says(rank, #list, ncclCommShrink(rank->comm, list, n, &child, NULL, flags), ncclInvalidArgument,      \
                      "ncclCommShrink|" words))                                                                        \
    return
    BAD(&me, 1, 0, "this rank itself");
    BAD(&far, 1, 0, "excludeRanksList[0] is 3|0 to 2");
    BAD(&negative, 1, 0, "is -1");
    BAD(twice, 2, 0, "twice");
    BAD(others, 3, 0, "at least one");
    BAD(others, -1, 0, "excludeRanksCount -1");
    BAD(NULL, 1, 0, "excludeRanksList");
    BAD(NULL, 0, 64, "shrinkFlags 0x40");
    if (!trouble_says(rank, "newcomm", ncclCommShrink(rank->comm, NULL, 0, NULL, NULL, 0), ncclInvalidArgument,
                      "ncclCommShrink|newcomm is NULL"))
        return;
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 10));
}

static void bad_shrinks_are_named_and_harm_nothing(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 3, .ranks_per_process = 1}, bad_shrinks, NULL);
}

/* ---- grow ---- */

/* The first `old` ranks have a communicator; the others come new. The id travels over a communicator of all. */
static void grows(struct job_rank *rank)
{
    int old = rank->n_ranks - 3, all[64], blocking = *(const int *)rank->arg;
    bool member = rank->rank < old;
    ncclComm_t few = NULL, many = NULL;
    ncclUniqueId id = {{0}};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = blocking;
    JOB_TRY(ncclCommSplit(rank->comm, member ? 0 : NCCL_SPLIT_NOCOLOR, 0, &few, &config));
    if (rank->rank == old - 1) JOB_TRY(ncclCommGetUniqueId(few, &id));
    JOB_TRY(ncclBcast(&id, sizeof id, ncclUint8, old - 1, rank->comm, NULL));
    ncclResult_t result = member ? ncclCommGrow(few, rank->n_ranks, rank->rank == old - 1 ? &id : NULL, -1, &many, NULL)
                                 : ncclCommGrow(NULL, rank->n_ranks, &id, rank->rank, &many, &config);
    JOB_EXPECT(result == (blocking ? ncclSuccess : ncclInProgress), "grow: %d: %s", result, ncclGetLastError(NULL));
    for (result = ncclInProgress; result == ncclInProgress; usleep(500)) JOB_TRY(ncclCommGetAsyncError(many, &result));
    while (member && (ncclCommGetAsyncError(few, &result), result == ncclInProgress)) usleep(500);
    for (int r = 0; r < rank->n_ranks; r++) all[r] = r;
    if (!is_made_of(rank, many, all, rank->n_ranks)) return;
    if (member && !is_made_of(rank, few, all, old)) return; /* it works on */
    if (few) JOB_TRY(ncclCommDestroy(few));
    JOB_TRY(ncclCommDestroy(many));
}

static void communicators_grow(void **state)
{
    (void)state;
    static int blocking[] = {1, 0};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
#if defined(__SANITIZE_THREAD__)
        if (shapes[i].ranks_per_process) continue;
#endif
        job_must(&shapes[i], grows, &blocking[i % 2]);
    }
}

static void bad_grows(struct job_rank *rank)
{
    ncclComm_t many = NULL;
    ncclUniqueId id = {{0}};
    int n = rank->n_ranks;
#define REFUSED(words, ...)                                                                                            \
    if (!trouble_says(rank, words, ncclCommGrow(__VA_ARGS__), ncclInvalidArgument, "ncclCommGrow|" words)) return
    REFUSED("nRanks 3: must be more than the 3", rank->comm, n, &id, -1, &many, NULL);
    REFUSED("nRanks 0", rank->comm, 0, &id, -1, &many, NULL);
    REFUSED("rank 1 together with a communicator", rank->comm, n + 1, &id, 1, &many, NULL);
    REFUSED("newcomm is NULL", rank->comm, n + 1, &id, -1, NULL, NULL);
    REFUSED("uniqueId is NULL", NULL, n + 1, NULL, n, &many, NULL);
    REFUSED("rank 4 of a new rank", NULL, n + 1, &id, n + 1, &many, NULL);
    if (!trouble_says(rank, "no id", ncclCommGrow(rank->comm, n + 1, NULL, -1, &many, NULL), ncclInvalidUsage,
                      "ncclCommGrow|no member passes a uniqueId"))
        return;
    if (!trouble_says(rank, "two sizes", ncclCommGrow(rank->comm, n + 1 + rank->rank, NULL, -1, &many, NULL),
                      ncclInvalidUsage, "ncclCommGrow|rank 0 says nRanks 4, rank 1 says 5"))
        return;
    JOB_TRY(trouble_allreduce(rank->comm, n, 10));
    if (!trouble_says(rank, "id", ncclCommGetUniqueId(rank->comm, NULL), ncclInvalidArgument, "ncclCommGetUniqueId|NULL"))
        return;
    trouble_says(rank, "id", ncclCommGetUniqueId(NULL, &id), ncclInvalidArgument, "ncclCommGetUniqueId|NULL");
}

static void bad_grows_are_named_and_harm_nothing(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 3, .ranks_per_process = 1}, bad_grows, NULL);
}

/* ---- what runs meanwhile ---- */

struct caller { ncclComm_t comm; ncclResult_t result; char text[256]; int n_ranks; };

static void *waits_in_vain(void *arg)
{
    struct caller *c = arg;
    c->result = trouble_allreduce(c->comm, c->n_ranks, 20000);
    snprintf(c->text, sizeof c->text, "%s", ncclGetLastError(NULL));
    return NULL;
}

/* Nobody is dead: rank 0 just does not come, and the others stop what they wait in, to go on without it. */
static void shrinks_what_runs(struct job_rank *rank)
{
    struct caller c = {.comm = rank->comm, .n_ranks = rank->n_ranks};
    int list[1] = {0}, members[64], n = remaining(rank->n_ranks, list, 1, members);
    ncclComm_t child;
    pthread_t thread;
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    c.comm = rank->comm;
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 3));
    if (rank->rank == 0) {
        trouble_sleep_s(0.5);
        JOB_TRY(ncclCommAbort(rank->comm));
        return;
    }
    pthread_create(&thread, NULL, waits_in_vain, &c);
    trouble_sleep_s(0.05);
    JOB_TRY(ncclCommShrink(rank->comm, list, 1, &child, NULL, NCCL_SHRINK_ABORT));
    pthread_join(thread, NULL);
    JOB_EXPECT(c.result == ncclInvalidUsage && strstr(c.text, "NCCL_SHRINK_ABORT"), "the call: %d: %s", c.result, c.text);
    if (!is_made_of(rank, child, members, n)) return;
    JOB_TRY(ncclCommDestroy(child));
    JOB_TRY(ncclCommDestroy(rank->comm));
}

static void shrink_stops_what_other_threads_wait_in(void **state)
{
    (void)state;
    for (int hosts = 1; hosts <= 2; hosts++)
        job_must(&(struct job){.n_ranks = 4, .ranks_per_process = 1, .n_hosts = hosts, .bare = true}, shrinks_what_runs, NULL);
}

/* ---- two threads ---- */

static void two_threads(struct job_rank *rank)
{
    struct caller c = {.comm = rank->comm, .n_ranks = rank->n_ranks};
    pthread_t thread;
    ncclComm_t child;
    if (rank->rank == 1) {
        pthread_create(&thread, NULL, waits_in_vain, &c);
        trouble_sleep_s(0.3);
        ncclResult_t alone = trouble_allreduce(rank->comm, rank->n_ranks, 3);
        bool said = trouble_says(rank, "sum", alone, ncclInvalidUsage, "ncclAllReduce|another thread is inside");
        said = said && trouble_says(rank, "split", ncclCommSplit(rank->comm, 0, 0, &child, NULL), ncclInvalidUsage,
                                    "ncclCommSplit|another thread is inside");
        (void)said; /* what was not said is the rank's failure already; the others are let go all the same */
        atomic_store((_Atomic int *)rank->arg, 1);
        pthread_join(thread, NULL);
        JOB_EXPECT(c.result == ncclSuccess, "the first call: %d: %s", c.result, c.text);
    } else {
        double start_s = trouble_now_s();
        while (!atomic_load((_Atomic int *)rank->arg) && trouble_now_s() - start_s < 20) usleep(1000);
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 20000));
    }
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 20000));
}

static void a_second_thread_is_refused(void **state)
{
    (void)state;
    _Atomic int *go = trouble_shared(sizeof *go);
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1}, two_threads, go);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_of_any_colors_and_keys),
        cmocka_unit_test(hosts_on_loopback_alone),
        cmocka_unit_test(splits_of_splits),
        cmocka_unit_test(several_splits_in_one_group),
        cmocka_unit_test(one_thread_splits_for_all_its_ranks),
        cmocka_unit_test(bad_splits_are_named_and_harm_nothing),
        cmocka_unit_test(shrinks_of_a_healthy_communicator),
        cmocka_unit_test(survivors_go_on_without_the_dead),
        cmocka_unit_test(a_rank_dies_while_splitting),
        cmocka_unit_test(shrink_stops_what_other_threads_wait_in),
        cmocka_unit_test(different_lists_are_named_at_the_deadline),
        cmocka_unit_test(bad_shrinks_are_named_and_harm_nothing),
        cmocka_unit_test(communicators_grow),
        cmocka_unit_test(bad_grows_are_named_and_harm_nothing),
        cmocka_unit_test(a_second_thread_is_refused),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
