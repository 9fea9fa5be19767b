/* Groups as clients use them: nested, over several communicators, ranks of one thread; refused as a whole when a call of
 * theirs is; left open by a thread that ends, ended twice, ended by another thread; with communicators that are
 * destroyed meanwhile. (Joining and deriving in groups: test_async.c, test_derive.c.) */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/trouble.h"

enum { N = 300 };

/* Two neighbours' worth of data on one communicator. */
struct swap {
    int out[N], in[N];
    float sum[N];
};

static void swap_make(struct swap *s, int rank, int salt)
{
    for (int k = 0; k < N; k++) {
        s->out[k] = rank * 100000 + salt * 1000 + k;
        s->in[k] = -1;
        s->sum[k] = 1;
    }
}

static bool swap_untouched(const struct swap *s)
{
    for (int k = 0; k < N; k++)
        if (s->in[k] != -1 || s->sum[k] != 1) return false;
    return true;
}

static int left_of(const struct job_rank *rank) { return (rank->rank + rank->n_ranks - 1) % rank->n_ranks; }
static int right_of(const struct job_rank *rank) { return (rank->rank + 1) % rank->n_ranks; }

static bool swap_right(const struct swap *s, const struct job_rank *rank, int salt)
{
    for (int k = 0; k < N; k++)
        if (s->in[k] != left_of(rank) * 100000 + salt * 1000 + k || s->sum[k] != (float)rank->n_ranks) return false;
    return true;
}

/* Send right, receive from the left, add up. */
static ncclResult_t swap_post(struct swap *s, const struct job_rank *rank, ncclComm_t comm)
{
    ncclResult_t result = ncclSend(s->out, N, ncclInt32, right_of(rank), comm, NULL);
    if (result == ncclSuccess) result = ncclRecv(s->in, N, ncclInt32, left_of(rank), comm, NULL);
    return result == ncclSuccess ? ncclAllReduce(s->sum, s->sum, N, ncclFloat32, ncclSum, comm, NULL) : result;
}

static void swap_whole(struct job_rank *rank, ncclComm_t comm)
{
    struct swap s;
    swap_make(&s, rank->rank, 9);
    JOB_TRY(ncclGroupStart());
    JOB_TRY(swap_post(&s, rank, comm));
    JOB_TRY(ncclGroupEnd());
    JOB_EXPECT(swap_right(&s, rank, 9), "the communicator does not work on");
}

static void everywhere(void (*body)(struct job_rank *))
{
    static const struct job jobs[] = {
        {.n_ranks = 1, .ranks_per_process = 1},
        {.n_ranks = 2, .ranks_per_process = 1},
        {.n_ranks = 3, .ranks_per_process = 1, .n_hosts = 2},
        {.n_ranks = 4, .ranks_per_process = 2},
    };
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) job_must(&jobs[i], body, NULL);
}

/* ---- nested ---- */

static void nested(struct job_rank *rank)
{
    struct swap s[3];
    for (int i = 0; i < 3; i++) swap_make(&s[i], rank->rank, i);
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclGroupEnd()); /* nothing in it */
    JOB_TRY(ncclGroupStart());
    JOB_TRY(swap_post(&s[0], rank, rank->comm));
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclGroupStart());
    JOB_TRY(swap_post(&s[1], rank, rank->comm));
    JOB_TRY(ncclGroupEnd());
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclGroupEnd());
    JOB_TRY(swap_post(&s[2], rank, rank->comm));
    JOB_TRY(ncclGroupEnd());
    for (int i = 0; i < 3; i++) JOB_EXPECT(swap_untouched(&s[i]), "an inner end began something (%d)", i);
    JOB_TRY(ncclGroupEnd());
    for (int i = 0; i < 3; i++) JOB_EXPECT(swap_right(&s[i], rank, i), "wrong data (%d)", i);
    if (!trouble_says(rank, "one end too many", ncclGroupEnd(), ncclInvalidUsage, "ncclGroupEnd|ncclGroupStart")) return;
    swap_whole(rank, rank->comm);
}

static void only_the_outermost_end_acts(void **state)
{
    (void)state;
    everywhere(nested);
}

/* ---- several communicators ---- */

static void several(struct job_rank *rank)
{
    enum { COMMS = 3, TURNS = 5 };
    ncclComm_t comms[COMMS];
    struct swap s[COMMS];
    for (int c = 0; c < COMMS; c++) JOB_TRY(trouble_second_comm(rank, &comms[c]));
    for (int turn = 0; turn < TURNS; turn++) {
        for (int c = 0; c < COMMS; c++) swap_make(&s[c], rank->rank, c);
        JOB_TRY(ncclGroupStart());
        for (int i = 0; i < COMMS; i++) { /* every rank in its own order of communicators */
            int c = (i + rank->rank + turn) % COMMS;
            JOB_TRY(swap_post(&s[c], rank, comms[c]));
        }
        JOB_TRY(ncclGroupEnd());
        for (int c = 0; c < COMMS; c++) JOB_EXPECT(swap_right(&s[c], rank, c), "turn %d, communicator %d", turn, c);
    }
    JOB_TRY(ncclGroupStart()); /* ends may be in a group, too, and in any order */
    for (int i = 0; i < COMMS; i++) JOB_TRY(ncclCommDestroy(comms[(i + rank->rank) % COMMS]));
    JOB_TRY(ncclGroupEnd());
    swap_whole(rank, rank->comm);
}

static void several_communicators_progress_together_in_whatever_order(void **state)
{
    (void)state;
    everywhere(several);
}

/* ---- all ranks of one thread ---- */

static void one_thread_of_all_ranks(void **state)
{
    (void)state;
    enum { RANKS = 4 };
    ncclComm_t comms[RANKS];
    struct job_rank ranks[RANKS];
    struct swap s[RANKS];
    assert_int_equal(ncclCommInitAll(comms, RANKS, NULL), ncclSuccess);
    for (int turn = 0; turn < 20; turn++) {
        for (int r = 0; r < RANKS; r++) {
            ranks[r] = (struct job_rank){.rank = r, .n_ranks = RANKS};
            swap_make(&s[r], r, turn);
        }
        assert_int_equal(ncclGroupStart(), ncclSuccess);
        for (int i = 0; i < RANKS; i++) {
            int r = (i * 3 + turn) % RANKS;
            assert_int_equal(swap_post(&s[r], &ranks[r], comms[r]), ncclSuccess);
        }
        assert_int_equal(ncclGroupEnd(), ncclSuccess);
        for (int r = 0; r < RANKS; r++) assert_true(swap_right(&s[r], &ranks[r], turn));
    }
    assert_int_equal(ncclGroupStart(), ncclSuccess);
    for (int r = 0; r < RANKS; r++) assert_int_equal(ncclCommDestroy(comms[r]), ncclSuccess);
    assert_int_equal(ncclGroupEnd(), ncclSuccess);
}

/* ---- a call that is refused ---- */

static void refused(struct job_rank *rank)
{
    ncclComm_t other;
    JOB_TRY(trouble_second_comm(rank, &other));
    for (int place = 0; place < 3; place++) /* the bad call first, in the middle, last */
        for (int kind = 0; kind < 3 && !rank->why[0]; kind++) {
            static const char *const words[] = {"ncclSend: peer 99", "ncclAllReduce: datatype 77", "ncclRecv: recvbuff is NULL"};
            struct swap s[2];
            for (int c = 0; c < 2; c++) swap_make(&s[c], rank->rank, c);
            JOB_TRY(ncclGroupStart());
            for (int i = 0; i < 3; i++) {
                ncclResult_t result;
                if (i < 2 && i != place) JOB_TRY(swap_post(&s[i], rank, i ? other : rank->comm));
                if (i != place) continue;
                if (kind == 0) result = ncclSend(s[0].out, 1, ncclInt8, 99, other, NULL);
                else if (kind == 1) result = ncclAllReduce(s[0].sum, s[0].sum, 1, (ncclDataType_t)77, ncclSum, other, NULL);
                else result = ncclRecv(NULL, 1, ncclInt8, right_of(rank), rank->comm, NULL);
                if (!trouble_says(rank, "at once", result, ncclInvalidArgument, words[kind])) return;
            }
            if (!trouble_says(rank, "at the end", ncclGroupEnd(), ncclInvalidArgument, words[kind]) ||
                !trouble_says(rank, "at the end", ncclInvalidArgument, ncclInvalidArgument, "none of the group's calls was started"))
                return;
            for (int c = 0; c < 2; c++) JOB_EXPECT(swap_untouched(&s[c]), "something was started");
            swap_whole(rank, rank->comm);
            swap_whole(rank, other);
        }
    JOB_TRY(ncclCommDestroy(other));
}

static void a_refused_call_refuses_its_group_and_nothing_else(void **state)
{
    (void)state;
    static const struct job jobs[] = {{.n_ranks = 2, .ranks_per_process = 1}, {.n_ranks = 2, .ranks_per_process = 1, .n_hosts = 2}};
    for (size_t i = 0; i < 2; i++) job_must(&jobs[i], refused, NULL); /* processes: the last error's text is the process's */
}

/* ---- threads ---- */

static void *leaves_open(void *arg)
{
    struct job_rank *rank = arg;
    static _Thread_local struct swap s;
    swap_make(&s, rank->rank, 1);
    ncclGroupStart();
    ncclGroupStart();
    for (int i = 0; i < 100; i++) swap_post(&s, rank, rank->comm);
    return NULL;
}

static void *ends_only(void *arg)
{
    *(ncclResult_t *)arg = ncclGroupEnd();
    return NULL;
}

static void other_threads(struct job_rank *rank)
{
    pthread_t thread;
    struct swap s;
    ncclResult_t result = ncclSuccess;
    pthread_create(&thread, NULL, leaves_open, rank);
    pthread_join(thread, NULL); /* its calls are forgotten, and their memory is (the leak checker looks) */
    swap_whole(rank, rank->comm);
    swap_make(&s, rank->rank, 2);
    JOB_TRY(ncclGroupStart());
    JOB_TRY(swap_post(&s, rank, rank->comm));
    pthread_create(&thread, NULL, ends_only, &result);
    pthread_join(thread, NULL);
    JOB_EXPECT(result == ncclInvalidUsage, "another thread's end: %d", result);
    JOB_EXPECT(swap_untouched(&s), "another thread's end began something");
    JOB_TRY(ncclGroupEnd());
    JOB_EXPECT(swap_right(&s, rank, 2), "the group did not survive another thread's end");
}

static void a_group_belongs_to_its_thread(void **state)
{
    (void)state;
    everywhere(other_threads);
}

/* ---- grouped here, not there ---- */

/* The same calls in the same order: every rank forms groups of its own, or none. Small ones and large. */
static void grouped_differently(struct job_rank *rank)
{
    enum { COUNT = 5000, CALLS = 12 };
    static const size_t counts[] = {1, 7, 100, COUNT};
    int n = rank->n_ranks;
    float *in = malloc(COUNT * sizeof *in), *out[CALLS];
    for (int k = 0; k < COUNT; k++) in[k] = (float)(rank->rank + k);
    for (int i = 0; i < CALLS; i++) out[i] = malloc((size_t)n * COUNT * sizeof *in);
    for (int round = 0; round < 30; round++) {
        bool grouped = (round + rank->rank) % 2 != 0;
        if (grouped) JOB_TRY(ncclGroupStart());
        for (int i = 0; i < CALLS; i++) {
            size_t count = counts[i % 4];
            if (grouped && i && i % (2 + rank->rank) == 0) {
                JOB_TRY(ncclGroupEnd());
                JOB_TRY(ncclGroupStart());
            }
            if (i % 3 == 0) JOB_TRY(ncclAllReduce(in, out[i], count, ncclFloat32, ncclSum, rank->comm, NULL));
            if (i % 3 == 1) JOB_TRY(ncclAllGather(in, out[i], count, ncclFloat32, rank->comm, NULL));
            if (i % 3 == 2) JOB_TRY(ncclBroadcast(in, out[i], count, ncclFloat32, round % n, rank->comm, NULL));
        }
        if (grouped) JOB_TRY(ncclGroupEnd());
        for (int i = 0; i < CALLS; i++) {
            size_t count = counts[i % 4], last = count - 1;
            float sum = (float)(n * (n - 1) / 2 + n * (int)last), block = (float)(n - 1) + (float)last, root = (float)(round % n) + (float)last;
            float got = out[i][i % 3 == 1 ? (size_t)n * count - 1 : last], want = i % 3 == 0 ? sum : i % 3 == 1 ? block : root;
            JOB_EXPECT(got == want, "round %d call %d: %g instead of %g", round, i, (double)got, (double)want);
        }
    }
    for (int i = 0; i < CALLS; i++) free(out[i]);
    free(in);
}

static void what_one_rank_groups_another_may_call_singly(void **state)
{
    (void)state;
    static const struct job jobs[] = {{.n_ranks = 2, .ranks_per_process = 1}, {.n_ranks = 4, .ranks_per_process = 1},
                                      {.n_ranks = 4, .ranks_per_process = 1, .n_hosts = 2}, {.n_ranks = 3, .ranks_per_process = 3}};
    for (size_t i = 0; i < 4; i++) job_must(&jobs[i], grouped_differently, NULL);
}

/* ---- destroyed meanwhile ---- */

static void destroyed(struct job_rank *rank)
{
    for (int aborts = 0; aborts < 2; aborts++) {
        ncclComm_t second;
        struct swap s[2];
        JOB_TRY(trouble_second_comm(rank, &second));
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1)); /* all have joined: an abort reaches nobody who still does */
        for (int c = 0; c < 2; c++) swap_make(&s[c], rank->rank, c);
        JOB_TRY(ncclGroupStart());
        JOB_TRY(swap_post(&s[0], rank, rank->comm));
        JOB_TRY(swap_post(&s[1], rank, second));
        JOB_TRY(aborts ? ncclCommAbort(second) : ncclCommDestroy(second));
        if (!trouble_says(rank, "the end", ncclGroupEnd(), ncclInvalidArgument, "ncclGroupEnd|not a living communicator")) return;
        for (int c = 0; c < 2; c++) JOB_EXPECT(swap_untouched(&s[c]), "something was started");
        swap_whole(rank, rank->comm);
    }
}

static void a_communicator_that_is_destroyed_inside_refuses_the_group(void **state)
{
    (void)state;
    static const struct job jobs[] = {{.n_ranks = 2, .ranks_per_process = 1}, {.n_ranks = 3, .ranks_per_process = 1, .n_hosts = 2}};
    for (size_t i = 0; i < 2; i++) job_must(&jobs[i], destroyed, NULL);
}

/* ---- a failure under way ---- */

/* Ranks 0 and 1 do not match on one communicator of the group: its calls on the other end, too, and say why. */
static void fails_under_way(struct job_rank *rank)
{
    ncclComm_t comms[2];
    struct swap s;
    int data[4] = {0};
    for (int c = 0; c < 2; c++) JOB_TRY(trouble_second_comm(rank, &comms[c]));
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
    swap_make(&s, rank->rank, 1);
    JOB_TRY(ncclGroupStart());
    if (rank->rank == 0) JOB_TRY(ncclSend(data, 3, ncclInt32, 1, comms[0], NULL));
    if (rank->rank == 1) JOB_TRY(ncclRecv(data, 4, ncclInt32, 0, comms[0], NULL));
    if (rank->rank < 2) JOB_TRY(ncclRecv(data, 4, ncclInt32, 1 - rank->rank, comms[1], NULL)); /* nobody sends */
    double start_s = trouble_now_s();
    ncclResult_t result = ncclGroupEnd();
    if (rank->rank < 2) {
        trouble_says(rank, "the group", result, ncclInvalidUsage, "ncclSend of 3 int32|ncclRecv of 4 int32");
        JOB_EXPECT(trouble_now_s() - start_s < 5, "took %.1f s", trouble_now_s() - start_s);
        for (int c = 0; c < 2; c++) {
            JOB_TRY(ncclCommGetAsyncError(comms[c], &result));
            JOB_EXPECT(result != ncclSuccess, "communicator %d of the group still works", c);
        }
    }
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
    for (int c = 0; c < 2; c++) JOB_TRY(ncclCommAbort(comms[c]));
    swap_whole(rank, rank->comm);
}

static void a_failure_under_way_ends_the_whole_group(void **state)
{
    (void)state;
    for (int hosts = 1; hosts < 3; hosts++)
        job_must(&(struct job){.n_ranks = 3, .ranks_per_process = 1, .n_hosts = hosts}, fails_under_way, NULL);
}

static void on_threads(void **state)
{
    (void)state;
    static void (*const bodies[])(struct job_rank *) = {nested, several, other_threads};
    for (size_t i = 0; i < 3; i++) job_must(&(struct job){.n_ranks = 3}, bodies[i], NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_outermost_end_acts),
        cmocka_unit_test(several_communicators_progress_together_in_whatever_order),
        cmocka_unit_test(a_refused_call_refuses_its_group_and_nothing_else),
        cmocka_unit_test(a_group_belongs_to_its_thread),
        cmocka_unit_test(what_one_rank_groups_another_may_call_singly),
        cmocka_unit_test(a_communicator_that_is_destroyed_inside_refuses_the_group),
        cmocka_unit_test(a_failure_under_way_ends_the_whole_group),
        cmocka_unit_test(on_threads),
        cmocka_unit_test(one_thread_of_all_ranks), /* these two last: forked ranks must not inherit a process that used the library */
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
