/* Messages of a group that the receiver's kernel reads where they lie, between processes of a host; and what comes of it
 * where that is not allowed. process_vm_readv is this program's: it counts, and fails as it is told. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/job.h"
#include "support/trouble.h"

/* What the kernel does, in every rank's process. */
enum kernel { READS, FORBIDS, FAILS_LATER, READS_ANOTHER, READS_LESS };
static enum kernel kernel;
static _Atomic int reads; /* of this process */

ssize_t process_vm_readv(pid_t pid, const struct iovec *here, unsigned long n_here, const struct iovec *there,
                         unsigned long n_there, unsigned long flags)
{
    bool tries = n_there == 2 && there[0].iov_base == there[1].iov_base; /* whether it may, at init */
    int number = tries ? -1 : atomic_fetch_add(&reads, 1);
    if (kernel == FORBIDS) return errno = EPERM, -1;
    if (kernel == FAILS_LATER && number == 7) return errno = EFAULT, -1;
    ssize_t n = syscall(SYS_process_vm_readv, pid, here, n_here, there, n_there, flags);
    if (kernel == READS_ANOTHER && n > 0) *(unsigned char *)here[0].iov_base ^= 1;
    return kernel == READS_LESS && n > 0 ? n - 1 : n;
}

/* Bytes of the messages that go round, several a flow; pieces of an offer are 1 MiB. */
static const size_t sizes[] = {1, 100, 8191, 65536, 262144, 262145, 0, 3 << 20, 700001};
enum { MESSAGES = sizeof sizes / sizeof *sizes, ROUNDS = 2 };

static unsigned char byte_of(int from, int message, int round, size_t k)
{
    return (unsigned char)(((uint32_t)k * 2654435761u >> 13) + (uint32_t)(from * 31 + message * 7 + round));
}

static void exchange(struct job_rank *rank, int round)
{
    int next = (rank->rank + 1) % rank->n_ranks, before = (rank->rank + rank->n_ranks - 1) % rank->n_ranks;
    unsigned char *out[MESSAGES], *in[MESSAGES];
    for (int m = 0; m < MESSAGES; m++) {
        out[m] = malloc(sizes[m] + 1), in[m] = calloc(sizes[m] + 1, 1);
        for (size_t k = 0; k < sizes[m]; k++) out[m][k] = byte_of(rank->rank, m, round, k);
    }
    JOB_TRY(ncclGroupStart());
    for (int m = 0; m < MESSAGES; m++) {
        JOB_TRY(ncclSend(out[m], sizes[m], ncclInt8, next, rank->comm, NULL));
        JOB_TRY(ncclRecv(in[m], sizes[m], ncclInt8, before, rank->comm, NULL));
    }
    JOB_TRY(ncclGroupEnd());
    for (int m = 0; m < MESSAGES; m++) {
        for (size_t k = 0; k < sizes[m]; k++)
            JOB_EXPECT(in[m][k] == byte_of(before, m, round, k), "round %d: byte %zu of %zu is wrong", round, k, sizes[m]);
        JOB_EXPECT(in[m][sizes[m]] == 0, "round %d: a byte after %zu was written", round, sizes[m]);
        free(out[m]);
        free(in[m]);
    }
}

/* At the end: how often this process has read. */
static void round_and_round(struct job_rank *rank)
{
    const int *expected = rank->arg;
    for (int round = 0; round < ROUNDS && !rank->why[0]; round++) exchange(rank, round);
    int seen = atomic_load(&reads);
    if (!rank->why[0]) JOB_EXPECT(seen == *expected, "%d reads, %d expected", seen, *expected);
}

static const char *const every_message[] = {"RAILCCL_OFFER_MIN_BYTES=1", NULL};
static const char *const from_64_kib[] = {"RAILCCL_OFFER_MIN_BYTES=65536", NULL};
static const char *const none[] = {"RAILCCL_OFFER_MIN_BYTES=0", NULL};

static void with(enum kernel does, const char *const *env, int expected)
{
    kernel = does;
    for (int n = 2; n <= 3; n++)
        job_must(&(struct job){.n_ranks = n, .ranks_per_process = 1, .env = env}, round_and_round, &expected);
}

/* One read a piece: three of 3 MiB, one each of the others; no bytes are none. */
static void messages_are_read_where_they_lie(void **state) { (void)state; with(READS, every_message, ROUNDS * (7 + 3)); }

static void short_messages_are_not_offered(void **state) { (void)state; with(READS, from_64_kib, ROUNDS * (4 + 3)); }

static void nothing_is_read_where_that_is_switched_off(void **state) { (void)state; with(READS, none, 0); }

static void who_may_not_read_is_sent_pieces_and_tries_once(void **state) { (void)state; with(FORBIDS, every_message, 1); }

/* The cookie is not the sender's: the number means another process here. */
static void another_process_of_that_number_is_not_read(void **state) { (void)state; with(READS_ANOTHER, every_message, 1); }

static void a_short_read_counts_for_nothing(void **state) { (void)state; with(READS_LESS, every_message, 1); }

/* The second piece of 3 MiB, after the first and six messages. */
static void a_read_that_fails_half_way_leaves_no_trace(void **state) { (void)state; with(FAILS_LATER, every_message, 8); }

/* Between hosts AlltoAll is messages: what goes to the other rank of a host is read there, one block a call. */
static void all_to_all(struct job_rank *rank)
{
    enum { BLOCK = 70001 };
    int n = rank->n_ranks;
    unsigned char *out = calloc((size_t)n, BLOCK), *in = calloc((size_t)n, BLOCK);
    for (int to = 0; to < n; to++)
        for (size_t k = 0; k < BLOCK; k++) out[to * BLOCK + k] = byte_of(rank->rank, to, 0, k);
    JOB_TRY(ncclAlltoAll(out, in, BLOCK, ncclInt8, rank->comm, NULL));
    for (int from = 0; from < n; from++)
        for (size_t k = 0; k < BLOCK; k++)
            JOB_EXPECT(in[from * BLOCK + k] == byte_of(from, rank->rank, 0, k), "byte %zu of rank %d's block is wrong", k, from);
    JOB_EXPECT(atomic_load(&reads) == 1, "%d reads", atomic_load(&reads));
    free(out);
    free(in);
}

static void blocks_of_alltoall_are_read_within_a_host(void **state)
{
    (void)state;
    kernel = READS;
    job_must(&(struct job){.n_ranks = 4, .ranks_per_process = 1, .n_hosts = 2, .env = every_message}, all_to_all, NULL);
}

/* A rank that only sends is through when the slots have it, in a group or not. */
static void one_after_the_other(struct job_rank *rank)
{
    enum { BYTES = 1 << 20 };
    bool grouped = *(bool *)rank->arg;
    char *out = calloc(BYTES, 1), *in = calloc(BYTES, 1);
    memset(out, rank->rank + 1, BYTES);
    if (grouped) JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclSend(out, BYTES, ncclInt8, 1 - rank->rank, rank->comm, NULL));
    if (grouped) JOB_TRY(ncclGroupEnd());
    JOB_TRY(ncclRecv(in, BYTES, ncclInt8, 1 - rank->rank, rank->comm, NULL));
    JOB_EXPECT(in[0] == 2 - rank->rank && in[BYTES - 1] == 2 - rank->rank, "got %d and %d", in[0], in[BYTES - 1]);
    free(out);
    free(in);
}

static void sends_before_receives_do_not_wait_for_each_other(void **state)
{
    (void)state;
    kernel = READS;
    for (int processes = 1; processes <= 2; processes++)
        for (int g = 0; g < 2; g++) {
            bool grouped = g != 0;
            struct job job = {.n_ranks = 2, .ranks_per_process = processes == 2 ? 1 : 2, .env = every_message, .limit_s = 20};
            job_must(&job, one_after_the_other, &grouped);
        }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_read_where_they_lie),
        cmocka_unit_test(short_messages_are_not_offered),
        cmocka_unit_test(nothing_is_read_where_that_is_switched_off),
        cmocka_unit_test(who_may_not_read_is_sent_pieces_and_tries_once),
        cmocka_unit_test(another_process_of_that_number_is_not_read),
        cmocka_unit_test(a_short_read_counts_for_nothing),
        cmocka_unit_test(a_read_that_fails_half_way_leaves_no_trace),
        cmocka_unit_test(blocks_of_alltoall_are_read_within_a_host),
        cmocka_unit_test(sends_before_receives_do_not_wait_for_each_other),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
