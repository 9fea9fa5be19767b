/* ncclCommRevoke, called by one rank, ends what all ranks have running in the communicator: every call returns
 * ncclInvalidUsage that says who revoked, within 100 ms, and so does every later one. The communicator can then be
 * asked, split, grown, shrunk, revoked again, destroyed and aborted; not finalized. */
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

/* The promise. A busy machine may take the CPU away for longer than that: a case has three attempts. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HEARD_S 1.0
#else
#define HEARD_S 0.1
#endif
enum { ATTEMPTS = 3 };

static const struct job shapes[] = {
    {.n_ranks = 4, .bare = true},
    {.n_ranks = 4, .ranks_per_process = 1, .bare = true},
    {.n_ranks = 4, .ranks_per_process = 1, .n_hosts = 2, .bare = true},
    {.n_ranks = 3, .ranks_per_process = 1, .n_hosts = 3, .bare = true},
    {.n_ranks = 11, .ranks_per_process = 1, .bare = true}, /* a tree of depth two */
};

/* What the ranks of an attempt have in common. */
struct scene {
    size_t count;        /* of the calls that are revoked; 0: only ask how it is */
    int from, to;        /* the ranks that revoke: from .. to - 1 */
    bool by_thread;      /* another thread of theirs */
    _Atomic int ready;
    _Atomic long revoked_us;
};

static long now_us(void) { return (long)(trouble_now_s() * 1e6); }

static void *revokes_soon(void *arg)
{
    void *const *args = arg;
    struct scene *s = args[1];
    usleep(30000);
    long none = 0;
    atomic_compare_exchange_strong(&s->revoked_us, &none, now_us());
    return ncclCommRevoke(args[0], NCCL_REVOKE_DEFAULT) == ncclSuccess ? NULL : args[0];
}

static ncclResult_t call_until_it_fails(struct job_rank *rank, const struct scene *s, bool mine)
{
    ncclResult_t result = ncclSuccess, state;
    for (int i = 0; result == ncclSuccess; i++) {
        if (i == 3 && mine && !s->by_thread) revokes_soon((void *[]){rank->comm, rank->arg});
        if (s->count) result = trouble_allreduce(rank->comm, rank->n_ranks, s->count);
        if (s->count) continue;
        usleep(500);
        result = ncclCommGetAsyncError(rank->comm, &state) == ncclSuccess ? state : ncclInternalError;
        if (mine && atomic_load(&s->revoked_us)) return ncclInvalidUsage; /* who revokes is not told */
    }
    return result;
}

static void all_is_refused_and_asking_works(struct job_rank *rank, bool revoked_here)
{
    ncclResult_t state;
    int n = 0;
    char byte = 0;
#define REVOKED(call) if (!trouble_says(rank, #call, call, ncclInvalidUsage, "revoked this communicator")) return
    REVOKED(trouble_allreduce(rank->comm, rank->n_ranks, 1));
    REVOKED(trouble_allreduce(rank->comm, rank->n_ranks, 70000));
    REVOKED(ncclSend(&byte, 1, ncclInt8, (rank->rank + 1) % rank->n_ranks, rank->comm, NULL));
    REVOKED(ncclCommFinalize(rank->comm));
    REVOKED(ncclCommSuspend(rank->comm, NCCL_SUSPEND_MEM));
    JOB_TRY(ncclCommCount(rank->comm, &n));
    JOB_EXPECT(n == rank->n_ranks, "count %d", n);
    if (!revoked_here) {
        JOB_TRY(ncclCommGetAsyncError(rank->comm, &state));
        JOB_EXPECT(state == ncclInvalidUsage, "the state where it was heard of is %d", state);
    }
    JOB_TRY(ncclCommRevoke(rank->comm, NCCL_REVOKE_DEFAULT));
    JOB_TRY(ncclCommRevoke(rank->comm, NCCL_REVOKE_DEFAULT));
    JOB_TRY(ncclCommGetAsyncError(rank->comm, &state));
    JOB_EXPECT(state == ncclSuccess, "the state where it was revoked is %d", state);
}

/* Split in two, then without the last rank, which is in good health and just not wanted any more. */
static void goes_on(struct job_rank *rank)
{
    ncclComm_t child = NULL;
    int n = rank->n_ranks, last = n - 1, color = rank->rank % 2;
    JOB_TRY(ncclCommSplit(rank->comm, color, 0, &child, NULL));
    JOB_TRY(trouble_allreduce(child, color ? n / 2 : n - n / 2, 3000));
    JOB_TRY(ncclCommDestroy(child));
    JOB_TRY(ncclCommSplit(rank->comm, rank->rank ? 0 : NCCL_SPLIT_NOCOLOR, -rank->rank, &child, NULL)); /* once more */
    JOB_EXPECT(rank->rank || !child, "NOCOLOR got %p", (void *)child);
    if (child) JOB_TRY(ncclCommDestroy(child));
    if (rank->rank != last) {
        int flags = rank->rank % 2 ? NCCL_SHRINK_ABORT : NCCL_SHRINK_DEFAULT;
        JOB_TRY(ncclCommShrink(rank->comm, &last, 1, &child, NULL, flags));
        JOB_TRY(trouble_allreduce(child, n - 1, 3000));
        JOB_TRY(trouble_allreduce(child, n - 1, 2));
        JOB_TRY(ncclCommDestroy(child));
    }
    JOB_TRY(rank->rank % 2 ? ncclCommDestroy(rank->comm) : ncclCommAbort(rank->comm));
}

static void all_hear(struct job_rank *rank)
{
    struct scene *s = rank->arg;
    bool mine = rank->rank >= s->from && rank->rank < s->to;
    void *args[] = {NULL, s}, *failed = NULL;
    pthread_t thread;
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 100));
    args[0] = rank->comm;
    if (mine && s->by_thread) pthread_create(&thread, NULL, revokes_soon, args);
    ncclResult_t result = call_until_it_fails(rank, s, mine);
    long heard_us = now_us();
    bool said = trouble_says(rank, "the call", result, ncclInvalidUsage, s->count ? "revoked this communicator" : "");
    if (mine && s->by_thread) pthread_join(thread, &failed);
    if (!said) return;
    JOB_EXPECT(!failed, "revoking failed: %s", ncclGetLastError(NULL));
    double late_s = (double)(heard_us - atomic_load(&s->revoked_us)) / 1e6;
    JOB_EXPECT(late_s < HEARD_S, "too slow: heard of it after %.1f ms", late_s * 1e3);
    all_is_refused_and_asking_works(rank, mine);
    if (!rank->why[0]) goes_on(rank);
}

static void on_shape(struct job job, struct scene *s, const struct scene *like, void (*body)(struct job_rank *))
{
    const char *why = NULL;
#if defined(__SANITIZE_THREAD__)
    if (job.ranks_per_process) return;
#endif
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        *s = *like;
        why = job_run(&job, body, s);
        if (!why || !strstr(why, "too slow")) break;
    }
    if (why)
        fail_msg("%d ranks, %d hosts, ranks %d to %d revoke%s in calls of %zu: %s", job.n_ranks, job.n_hosts,
                 like->from, like->to - 1, like->by_thread ? " from another thread" : "", like->count, why);
}

static void every_rank_hears_of_it(void **state)
{
    (void)state;
    static const size_t counts[] = {2, 3000, 2000000, 0};
    struct scene *s = trouble_shared(sizeof *s);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int c = 0; c < 4; c++) {
            int who = (c + (int)i) % 3;
            struct scene like = {.count = counts[c], .from = who, .to = who + 1, .by_thread = c && (c + i) % 2};
            on_shape(shapes[i], s, &like, all_hear);
        }
}

static void several_ranks_revoke_at_once(void **state)
{
    (void)state;
    struct scene *s = trouble_shared(sizeof *s);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int all = 0; all < 2; all++)
            on_shape(shapes[i], s, &(struct scene){.count = i % 2 ? 2 : 500000, .from = !all, .to = all ? 99 : 3,
                                                   .by_thread = true}, all_hear);
}

/* ---- what is being made ---- */

/* Rank 0 does not come to the split; the others wait for it, until one of them revokes. */
static void splits_in_vain(struct job_rank *rank)
{
    struct scene *s = rank->arg;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclComm_t child = NULL;
    ncclResult_t state = ncclInProgress;
    config.blocking = s->by_thread;
    ncclResult_t result = ncclCommInitRankConfig(&rank->comm, rank->n_ranks, rank->id, rank->rank, &config);
    while (ncclCommGetAsyncError(rank->comm, &state) == ncclSuccess && state == ncclInProgress) usleep(200);
    JOB_TRY(state);
    void *args[] = {rank->comm, s}, *failed = NULL;
    pthread_t thread;
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 100));
    if (rank->rank == 1 && s->by_thread) pthread_create(&thread, NULL, revokes_soon, args);
    if (rank->rank) result = ncclCommSplit(rank->comm, 0, 0, &child, NULL);
    if (rank->rank == 1 && !s->by_thread) failed = revokes_soon(args);
    if (rank->rank == 1 && s->by_thread) pthread_join(thread, &failed);
    JOB_EXPECT(!failed, "revoking: %s", ncclGetLastError(NULL));
    JOB_EXPECT(rank->rank == 0 || result == (s->by_thread ? ncclInvalidUsage : ncclInProgress), "split: %d: %s", result,
               ncclGetLastError(NULL));
    JOB_EXPECT(rank->rank == 0 || !s->by_thread || strstr(ncclGetLastError(NULL), "revoked"), "split says %s",
               ncclGetLastError(NULL));
    if (child) {
        while (ncclCommGetAsyncError(child, &state) == ncclSuccess && state == ncclInProgress) usleep(200);
        JOB_EXPECT(state == ncclInvalidUsage, "the child's state: %d: %s", state, ncclGetLastError(NULL));
        JOB_TRY(ncclCommAbort(child));
    }
    double late_s = rank->rank ? (double)(now_us() - atomic_load(&s->revoked_us)) / 1e6 : 0;
    JOB_EXPECT(late_s < HEARD_S, "too slow: heard of it after %.1f ms", late_s * 1e3);
    for (state = ncclInProgress; state == ncclInProgress || state == ncclSuccess; usleep(200)) {
        JOB_TRY(ncclCommGetAsyncError(rank->comm, &state));
        if (rank->rank == 1 && state == ncclSuccess) break;
    }
    JOB_EXPECT(state == (rank->rank == 1 ? ncclSuccess : ncclInvalidUsage), "the state: %d", state);
    JOB_TRY(ncclCommAbort(rank->comm));
}

static void a_split_that_waits_is_ended(void **state)
{
    (void)state;
    struct scene *s = trouble_shared(sizeof *s);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int blocking = 0; blocking < 2; blocking++)
            on_shape(shapes[i], s, &(struct scene){.by_thread = blocking}, splits_in_vain);
}

/* Rank 1 comes late to the shrink; meanwhile rank 0 revokes the parent, from another thread. */
static void revokes_while_shrinking(struct job_rank *rank)
{
    struct scene *s = rank->arg;
    ncclComm_t child = NULL;
    pthread_t thread;
    void *args[] = {NULL, s}, *failed = NULL;
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    args[0] = rank->comm;
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 100));
    if (rank->rank == 0) pthread_create(&thread, NULL, revokes_soon, args);
    if (rank->rank == 1) usleep(400000);
    JOB_TRY(ncclCommShrink(rank->comm, NULL, 0, &child, NULL, NCCL_SHRINK_DEFAULT));
    if (rank->rank == 0) pthread_join(thread, &failed);
    JOB_EXPECT(!failed, "revoking: %s", ncclGetLastError(NULL));
    JOB_TRY(trouble_allreduce(child, rank->n_ranks, 3000));
    ncclResult_t sum = trouble_allreduce(rank->comm, rank->n_ranks, 3);
    if (!trouble_says(rank, "sum", sum, ncclInvalidUsage, "rank 0 revoked")) return;
    JOB_TRY(ncclCommDestroy(child));
    JOB_TRY(ncclCommDestroy(rank->comm));
}

static void a_shrink_outlives_it(void **state)
{
    (void)state;
    struct scene *s = trouble_shared(sizeof *s);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        on_shape(shapes[i], s, &(struct scene){0}, revokes_while_shrinking);
}

/* The last rank is new: the others had a communicator, which was revoked. */
static void grows(struct job_rank *rank)
{
    ncclComm_t few = NULL, many = NULL;
    ncclUniqueId id = {{0}};
    int n = rank->n_ranks, old = n - 1;
    JOB_TRY(ncclCommInitRank(&rank->comm, n, rank->id, rank->rank));
    JOB_TRY(ncclCommSplit(rank->comm, rank->rank < old ? 0 : NCCL_SPLIT_NOCOLOR, 0, &few, NULL));
    JOB_TRY(trouble_allreduce(rank->comm, n, 1)); /* nobody is still joining */
    if (rank->rank == 0) JOB_TRY(ncclCommRevoke(few, NCCL_REVOKE_DEFAULT));
    if (rank->rank == 0) JOB_TRY(ncclCommGetUniqueId(few, &id));
    JOB_TRY(ncclBcast(&id, sizeof id, ncclUint8, 0, rank->comm, NULL));
    for (ncclResult_t told = ncclSuccess; few && rank->rank && told == ncclSuccess; usleep(200))
        JOB_TRY(ncclCommGetAsyncError(few, &told));
    JOB_TRY(ncclCommGrow(few, n, rank->rank == 0 || !few ? &id : NULL, few ? -1 : old, &many, NULL));
    JOB_TRY(trouble_allreduce(many, n, 3000));
    if (few) JOB_TRY(ncclCommDestroy(few));
    JOB_TRY(ncclCommDestroy(many));
    JOB_TRY(ncclCommDestroy(rank->comm));
}

static void a_revoked_communicator_grows(void **state)
{
    (void)state;
    struct scene *s = trouble_shared(sizeof *s);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) on_shape(shapes[i], s, &(struct scene){0}, grows);
}

static void bad_revocations(struct job_rank *rank)
{
    ncclComm_t joining = NULL;
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    if (!trouble_says(rank, "flags", ncclCommRevoke(rank->comm, 8), ncclInvalidArgument, "ncclCommRevoke|0x8") ||
        !trouble_says(rank, "NULL", ncclCommRevoke(NULL, 0), ncclInvalidArgument, "ncclCommRevoke|NULL"))
        return;
    JOB_TRY(ncclGetUniqueId(&id));
    ncclResult_t init = ncclCommInitRankConfig(&joining, 2, id, 0, &config);
    JOB_EXPECT(init == ncclInProgress, "init: %s", ncclGetLastError(NULL));
    if (!trouble_says(rank, "joining", ncclCommRevoke(joining, 0), ncclInvalidUsage, "ncclCommRevoke|being made"))
        return;
    JOB_TRY(ncclCommAbort(joining));
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 10));
}

static void bad_revocations_are_named_and_harm_nothing(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2}, bad_revocations, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_hears_of_it),
        cmocka_unit_test(several_ranks_revoke_at_once),
        cmocka_unit_test(a_split_that_waits_is_ended),
        cmocka_unit_test(a_shrink_outlives_it),
        cmocka_unit_test(a_revoked_communicator_grows),
        cmocka_unit_test(bad_revocations_are_named_and_harm_nothing),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
