/* Collectives on registered memory: the ranks of a host read and write one another's buffers where they are, and nothing goes
 * through the windows of their segment; where a buffer is not registered, not mapped, or no longer, everything goes through them
 * as before. That the results are right is shown for every collective by the conformance suite ("registered memory"). */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <nccl.h>

#include "core/comm.h"
#include "support/job.h"

enum { COUNT = 1 << 20, BYTES = COUNT * (int)sizeof(float) };

/* KiB of the node's segment that this process has touched. */
static long segment_kib(void)
{
    char line[512];
    long sum = 0, kib;
    bool ours = false;
    FILE *f = fopen("/proc/self/smaps", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (strchr(line, '-') && strchr(line, '-') < strchr(line, ' ')) ours = strstr(line, "railccl-node") != NULL;
        if (ours && sscanf(line, "Rss: %ld kB", &kib) == 1) sum += kib;
    }
    if (f) fclose(f);
    return sum;
}

struct memory { float *in, *out; ncclWindow_t window; };

static void sum(struct job_rank *rank, const struct memory *m)
{
    for (int i = 0; i < COUNT; i++) m->in[i] = (float)(i % 1000 + rank->rank), m->out[i] = -1;
    JOB_TRY(ncclAllReduce(m->in, m->out, COUNT, ncclFloat, ncclSum, rank->comm, NULL));
    int n = rank->n_ranks;
    for (int i = 0; i < COUNT; i++)
        JOB_EXPECT(m->out[i] == (float)(n * (i % 1000) + n * (n - 1) / 2), "element %d is %g", i, (double)m->out[i]);
}

/* Input and output in one piece of memory, registered as a whole. */
static void take(struct job_rank *rank, struct memory *m)
{
    void *all;
    JOB_TRY(ncclMemAlloc(&all, 2 * (size_t)BYTES));
    JOB_TRY(ncclCommWindowRegister(rank->comm, all, 2 * (size_t)BYTES, &m->window, NCCL_WIN_COLL_SYMMETRIC));
    m->in = all, m->out = m->in + COUNT;
}

/* Of a 4 MiB call every rank stages some MiB, or nothing; counters and lines are some ten KiB. */
#define NOTHING_KIB 600
#define SOMETHING_KIB 1500

static void direct_then_staged(struct job_rank *rank)
{
    struct memory m = {0};
    take(rank, &m);
    if (rank->why[0]) return;
    for (int i = 0; i < 3 && !rank->why[0]; i++) sum(rank, &m);
    long direct = segment_kib();
    JOB_EXPECT(direct < NOTHING_KIB, "%ld KiB went through the segment", direct);
    JOB_TRY(ncclCommWindowDeregister(rank->comm, m.window));
    sum(rank, &m);
    JOB_EXPECT(segment_kib() > SOMETHING_KIB, "%ld KiB of the segment are touched, and it was no longer registered", segment_kib());
    JOB_TRY(ncclMemFree(m.in));
}

/* What is in no window goes through the segment here: between two ranks the kernel would read it where it lies (test_reads). */
#define COPIED "RAILCCL_READ_MIN_BYTES=0"
static const char *const copied[] = {COPIED, NULL};

static void registered_buffers_are_used_where_they_are(void **state)
{
    (void)state;
    for (int n = 2; n <= 4; n += 2) {
        struct job job = {.n_ranks = n, .ranks_per_process = 1, .env = copied};
        job_must(&job, direct_then_staged, NULL);
    }
}

static void staged(struct job_rank *rank)
{
    struct memory m = {0};
    take(rank, &m);
    if (rank->why[0]) return;
    sum(rank, &m);
    JOB_EXPECT(segment_kib() > SOMETHING_KIB, "only %ld KiB of the segment are touched", segment_kib());
    JOB_TRY(ncclCommWindowDeregister(rank->comm, m.window));
    JOB_TRY(ncclMemFree(m.in));
}

static void where_memory_cannot_be_mapped_it_is_copied(void **state)
{
    (void)state;
    static const char *const by_kernel[] = {"RAILCCL_WINDOW_WAY=kernel", COPIED, NULL};
    struct job job = {.n_ranks = 2, .ranks_per_process = 1, .env = by_kernel};
    job_must(&job, staged, NULL);
}

/* An output that is half in a window is in none. */
static void overhanging(struct job_rank *rank)
{
    struct memory m = {0};
    void *all;
    JOB_TRY(ncclMemAlloc(&all, 2 * (size_t)BYTES));
    JOB_TRY(ncclCommWindowRegister(rank->comm, all, 2 * (size_t)BYTES - 64, &m.window, NCCL_WIN_DEFAULT));
    m.in = all, m.out = m.in + COUNT;
    sum(rank, &m);
    JOB_EXPECT(segment_kib() > SOMETHING_KIB, "only %ld KiB of the segment are touched", segment_kib());
    JOB_TRY(ncclCommWindowDeregister(rank->comm, m.window));
    JOB_TRY(ncclMemFree(all));
}

static void a_buffer_that_ends_beyond_its_window_is_not_in_it(void **state)
{
    (void)state;
    struct job job = {.n_ranks = 2, .ranks_per_process = 1, .env = copied};
    job_must(&job, overhanging, NULL);
}

static enum plan_algorithm plan_of_reduce(struct job_rank *rank)
{
    const struct comm *comm = (const struct comm *)(void *)rank->comm;
    return choose_plan(PLAN_REDUCE, &comm->table, &comm->shape, BYTES).algorithm;
}

static void reduce(struct job_rank *rank, const struct memory *m)
{
    for (int i = 0; i < COUNT; i++) m->in[i] = (float)(i % 1000 + rank->rank), m->out[i] = -1;
    JOB_TRY(ncclReduce(m->in, m->out, COUNT, ncclFloat, ncclSum, 1, rank->comm, NULL));
    for (int i = 0; rank->rank == 1 && i < COUNT; i++)
        JOB_EXPECT(m->out[i] == (float)(3 * (i % 1000) + 3), "element %d is %g", i, (double)m->out[i]);
}

/* `arg`: the limit is the user's, and stays. */
static void reduce_around_a_window(struct job_rank *rank)
{
    struct memory m = {malloc(BYTES), malloc(BYTES), NULL}, shared = {0};
    enum plan_algorithm later = rank->arg ? PLAN_ONE_SHOT : PLAN_TWO_SHOT;
    JOB_EXPECT(plan_of_reduce(rank) == PLAN_ONE_SHOT, "before there is a window: %d", plan_of_reduce(rank));
    reduce(rank, &m);
    take(rank, &shared);
    if (rank->why[0]) return;
    JOB_EXPECT(plan_of_reduce(rank) == later, "with a window: %d", plan_of_reduce(rank));
    reduce(rank, &shared);
    reduce(rank, rank->rank ? &shared : &m);
    JOB_TRY(ncclCommWindowDeregister(rank->comm, shared.window));
    JOB_TRY(ncclMemFree(shared.in));
    reduce(rank, &m);
    free(m.in);
    free(m.out);
}

static void a_reduce_is_shared_from_the_first_window_on(void **state)
{
    (void)state;
    static const char *const limit[] = {"RAILCCL_ONESHOT_REDUCE_MAX_BYTES=1073741824", NULL};
    struct job job = {.n_ranks = 3, .ranks_per_process = 1};
    job_must(&job, reduce_around_a_window, NULL);
    job.env = limit;
    job_must(&job, reduce_around_a_window, &job);
}

static void *killer(void *ms)
{
    usleep(1000 * *(unsigned *)ms);
    kill(getpid(), SIGKILL);
    return NULL;
}

/* Killed by a thread of its own, rank 1 is mostly in the middle of a copy to or from a peer's buffer. */
static void one_dies(struct job_rank *rank)
{
    struct memory m = {0};
    pthread_t thread;
    take(rank, &m);
    if (rank->why[0]) return;
    if (rank->rank == 1) pthread_create(&thread, NULL, killer, rank->arg);
    ncclResult_t result;
    do result = ncclAllReduce(m.in, m.out, COUNT, ncclFloat, ncclSum, rank->comm, NULL);
    while (result == ncclSuccess);
    JOB_EXPECT(strstr(ncclGetLastError(NULL), "rank 1") != NULL, "%s", ncclGetLastError(NULL));
    JOB_TRY(ncclCommAbort(rank->comm));
    rank->comm = NULL;
}

static void a_dead_peer_holds_up_nobody(void **state)
{
    (void)state;
    for (unsigned ms = 20; ms < 70; ms += 7) {
        struct job job = {.n_ranks = 3, .ranks_per_process = 1, .may_die = true, .limit_s = 20};
        job_must(&job, one_dies, &ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registered_buffers_are_used_where_they_are),
        cmocka_unit_test(where_memory_cannot_be_mapped_it_is_copied),
        cmocka_unit_test(a_buffer_that_ends_beyond_its_window_is_not_in_it),
        cmocka_unit_test(a_reduce_is_shared_from_the_first_window_on),
        cmocka_unit_test(a_dead_peer_holds_up_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
