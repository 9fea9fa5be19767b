/* Collectives whose blocks are read where they lie, by the kernel, between processes of a host; and what comes of it where that
 * is not allowed. process_vm_readv is this program's: it counts, and fails as it is told. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/job.h"
#include "support/trouble.h"

/* What the kernel does to this process: OTHERS_ONLY refuses the process's own memory, FAILS and DAWDLES only from `at` bytes on
 * (a block is longer than what a rank asks of itself), DIES kills the process that is read. */
enum kernel { READS, FORBIDS, READS_ANOTHER, READS_LESS, OTHERS_ONLY, FAILS, DAWDLES, DIES };
enum { BLOCK = 40007, LONG_READ = 1000 };
static enum kernel kernel;
static _Atomic int reads; /* of blocks, by this process */

ssize_t process_vm_readv(pid_t pid, const struct iovec *here, unsigned long n_here, const struct iovec *there,
                         unsigned long n_there, unsigned long flags)
{
    bool block = n_here == 2 && here[1].iov_len >= LONG_READ;
    if (block) atomic_fetch_add(&reads, 1);
    if (kernel == FORBIDS) return errno = EPERM, -1;
    if (kernel == OTHERS_ONLY && pid == getpid()) return errno = EFAULT, -1;
    if (kernel == FAILS && block) return errno = EFAULT, -1;
    if (kernel == DIES && block) kill(pid, SIGKILL), usleep(20000);
    ssize_t n = syscall(SYS_process_vm_readv, pid, here, n_here, there, n_there, flags);
    if (kernel == DAWDLES && block) usleep(30000);
    if (kernel == READS_ANOTHER && n > 0) *(unsigned char *)here[0].iov_base ^= 1;
    return kernel == READS_LESS && n > 0 ? n - 1 : n;
}

static unsigned char byte_of(int from, int to, size_t k)
{
    return (unsigned char)(((uint32_t)k * 2654435761u >> 13) + (uint32_t)(from * 31 + to * 7));
}

/* ---- the calls, each checked to the byte ---- */

static void alltoall(struct job_rank *rank)
{
    int n = rank->n_ranks;
    unsigned char *out = calloc((size_t)n, BLOCK), *in = calloc((size_t)n, BLOCK);
    for (int to = 0; to < n; to++)
        for (size_t k = 0; k < BLOCK; k++) out[to * BLOCK + k] = byte_of(rank->rank, to, k);
    JOB_TRY(ncclAlltoAll(out, in, BLOCK, ncclInt8, rank->comm, NULL));
    memset(out, 0xee, (size_t)n * BLOCK); /* mine again, whoever was at it */
    for (int from = 0; from < n; from++)
        for (size_t k = 0; k < BLOCK; k++)
            JOB_EXPECT(in[from * BLOCK + k] == byte_of(from, rank->rank, k), "byte %zu of rank %d's block is wrong", k, from);
    free(out);
    free(in);
}

static void allgather(struct job_rank *rank, bool in_place)
{
    int n = rank->n_ranks;
    unsigned char *in = calloc((size_t)n, BLOCK), *out = in_place ? in + rank->rank * BLOCK : malloc(BLOCK);
    for (size_t k = 0; k < BLOCK; k++) out[k] = byte_of(rank->rank, 0, k);
    JOB_TRY(ncclAllGather(out, in, BLOCK, ncclInt8, rank->comm, NULL));
    if (!in_place) memset(out, 0xee, BLOCK);
    for (int from = 0; from < n; from++)
        for (size_t k = 0; k < BLOCK; k++)
            JOB_EXPECT(in[from * BLOCK + k] == byte_of(from, 0, k), "byte %zu of rank %d's block is wrong", k, from);
    if (!in_place) free(out);
    free(in);
}

enum { ROOT = 1 };

static void scatter(struct job_rank *rank, bool in_place)
{
    int n = rank->n_ranks;
    bool root = rank->rank == ROOT;
    unsigned char *out = root ? malloc((size_t)n * BLOCK) : NULL;
    unsigned char *in = root && in_place ? out + ROOT * BLOCK : malloc(BLOCK);
    for (int to = 0; root && to < n; to++)
        for (size_t k = 0; k < BLOCK; k++) out[to * BLOCK + k] = byte_of(ROOT, to, k);
    JOB_TRY(ncclScatter(out, in, BLOCK, ncclInt8, ROOT, rank->comm, NULL));
    if (root && !in_place) memset(out, 0xee, (size_t)n * BLOCK);
    for (size_t k = 0; k < BLOCK; k++) JOB_EXPECT(in[k] == byte_of(ROOT, rank->rank, k), "byte %zu is wrong", k);
    if (!root || !in_place) free(in);
    free(out);
}

static void broadcast(struct job_rank *rank, bool in_place)
{
    bool root = rank->rank == ROOT;
    unsigned char *in = malloc(BLOCK), *out = !root ? NULL : in_place ? in : malloc(BLOCK);
    for (size_t k = 0; root && k < BLOCK; k++) out[k] = byte_of(ROOT, 0, k);
    JOB_TRY(ncclBroadcast(out, in, BLOCK, ncclInt8, ROOT, rank->comm, NULL));
    if (root && !in_place) memset(out, 0xee, BLOCK);
    for (size_t k = 0; k < BLOCK; k++) JOB_EXPECT(in[k] == byte_of(ROOT, 0, k), "byte %zu is wrong", k);
    if (out != in) free(out);
    free(in);
}

static void reduce(struct job_rank *rank)
{
    int32_t *out = malloc(BLOCK), *in = rank->rank == ROOT ? malloc(BLOCK) : NULL;
    int count = BLOCK / 4, n = rank->n_ranks;
    for (int k = 0; k < count; k++) out[k] = k * (rank->rank + 1);
    JOB_TRY(ncclReduce(out, in, (size_t)count, ncclInt32, ncclSum, ROOT, rank->comm, NULL));
    for (int k = 0; in && k < count; k++) JOB_EXPECT(in[k] == k * n * (n + 1) / 2, "element %d is %d", k, in[k]);
    free(in);
    free(out);
}

static void gather(struct job_rank *rank)
{
    int n = rank->n_ranks;
    unsigned char *out = malloc(BLOCK), *in = rank->rank == ROOT ? malloc((size_t)n * BLOCK) : NULL;
    for (size_t k = 0; k < BLOCK; k++) out[k] = byte_of(rank->rank, 0, k);
    JOB_TRY(ncclGather(out, in, BLOCK, ncclInt8, ROOT, rank->comm, NULL));
    for (int from = 0; in && from < n; from++)
        for (size_t k = 0; k < BLOCK; k++)
            JOB_EXPECT(in[from * BLOCK + k] == byte_of(from, 0, k), "byte %zu of rank %d's block is wrong", k, from);
    free(in);
    free(out);
}

/* Longer than some benches and rounds. */
static void allreduce(struct job_rank *rank, bool in_place, ncclRedOp_t op)
{
    enum { COUNT = 700001 };
    float *out = malloc(COUNT * sizeof *out), *in = in_place ? out : malloc(COUNT * sizeof *in);
    for (int k = 0; k < COUNT; k++) out[k] = (float)((k * 7 + rank->rank * 3) % 1024);
    JOB_TRY(ncclAllReduce(out, in, COUNT, ncclFloat, op, rank->comm, NULL));
    if (!in_place) memset(out, 0xee, COUNT * sizeof *out);
    for (int k = 0; k < COUNT; k++) {
        float sum = 0;
        for (int r = 0; r < rank->n_ranks; r++) sum += (float)((k * 7 + r * 3) % 1024);
        if (op == ncclAvg) sum /= (float)rank->n_ranks;
        JOB_EXPECT(in[k] == sum, "element %d is %g instead of %g", k, (double)in[k], (double)sum);
    }
    if (!in_place) free(out);
    free(in);
}

static void reducescatter(struct job_rank *rank, bool in_place)
{
    enum { COUNT = 70001 };
    int n = rank->n_ranks;
    int32_t *out = malloc(sizeof *out * COUNT * (size_t)n), *in = in_place ? out + rank->rank * COUNT : malloc(sizeof *in * COUNT);
    for (int k = 0; k < COUNT * n; k++) out[k] = k * (rank->rank + 1);
    JOB_TRY(ncclReduceScatter(out, in, COUNT, ncclInt32, ncclSum, rank->comm, NULL));
    for (int k = 0; k < COUNT; k++)
        JOB_EXPECT(in[k] == (rank->rank * COUNT + k) * n * (n + 1) / 2, "element %d is %d", k, in[k]);
    if (!in_place) free(in);
    free(out);
}

/* ---- who reads how often ---- */

struct expected {
    void (*call)(struct job_rank *rank);
    int reads;    /* of blocks, a rank; */
    bool from_root; /* by all but the root */
    int odd_rank; /* it meets `odd`; -1: nobody does */
    enum kernel odd;
};

static void call_and_count(struct job_rank *rank)
{
    const struct expected *e = rank->arg;
    int before = atomic_load(&reads);
    for (int round = 0; round < 3 && !rank->why[0]; round++) e->call(rank);
    int seen = atomic_load(&reads) - before;
    int expected = e->from_root && rank->rank == ROOT ? 0 : 3 * e->reads;
    if (!rank->why[0]) JOB_EXPECT(seen == expected, "%d reads, %d expected", seen, expected);
}

static const char *const every_block[] = {"RAILCCL_READ_MIN_BYTES=1", NULL};
static const char *const small_rounds[] = {"RAILCCL_READ_MIN_BYTES=1", "RAILCCL_WINDOW_BYTES=65536", NULL};
static const char *const longer_blocks[] = {"RAILCCL_READ_MIN_BYTES=40008", NULL};
static const char *const none[] = {"RAILCCL_READ_MIN_BYTES=0", NULL};

static void must_from(bool root, void (*call)(struct job_rank *), int n, const char *const *env, int expected)
{
    struct expected e = {call, expected, root, -1, READS};
    job_must(&(struct job){.n_ranks = n, .ranks_per_process = 1, .env = env}, call_and_count, &e);
}

static void must(void (*call)(struct job_rank *), int n, const char *const *env, int expected)
{
    must_from(false, call, n, env, expected);
}

static void allgather_apart(struct job_rank *rank) { allgather(rank, false); }
static void allgather_in_place(struct job_rank *rank) { allgather(rank, true); }
static void reducescatter_apart(struct job_rank *rank) { reducescatter(rank, false); }
static void reducescatter_in_place(struct job_rank *rank) { reducescatter(rank, true); }
static void allreduce_apart(struct job_rank *rank) { allreduce(rank, false, ncclSum); }
static void allreduce_in_place(struct job_rank *rank) { allreduce(rank, true, ncclSum); }
static void allreduce_average(struct job_rank *rank) { allreduce(rank, true, ncclAvg); }

static void blocks_of_alltoall_are_read_where_they_lie(void **state)
{
    (void)state;
    for (int n = 2; n <= 4; n++) must(alltoall, n, every_block, n - 1);
    must(alltoall, 2, small_rounds, 2); /* 32 KiB of 40007 bytes a round */
}

static void scatter_apart(struct job_rank *rank) { scatter(rank, false); }
static void scatter_in_place(struct job_rank *rank) { scatter(rank, true); }
static void broadcast_apart(struct job_rank *rank) { broadcast(rank, false); }
static void broadcast_in_place(struct job_rank *rank) { broadcast(rank, true); }

static void what_a_root_gives_is_read_where_it_lies(void **state)
{
    (void)state;
    for (int n = 2; n <= 5; n++) must_from(true, scatter_apart, n, every_block, 1);
    must_from(true, scatter_in_place, 3, every_block, 1);
    must_from(true, scatter_apart, 2, small_rounds, 2);
    for (int n = 2; n <= 4; n++) must_from(true, broadcast_apart, n, every_block, 1);
    must_from(true, broadcast_in_place, 2, every_block, 1);
    must(broadcast_apart, 5, every_block, 0); /* four read what otherwise one copies and four copy: not worth it */
}

/* It would do alone what all do together. */
static void what_a_root_gets_is_copied(void **state)
{
    (void)state;
    must(reduce, 2, every_block, 0);
    must(gather, 3, every_block, 0);
}

static void two_ranks_read_each_others_blocks(void **state)
{
    (void)state;
    must(allgather_apart, 2, every_block, 1);
    must(allgather_in_place, 2, every_block, 1);
    must(allgather_apart, 3, every_block, 0); /* three copy four blocks instead of three: not worth it */
}

/* 280004 bytes in parts of a bench of 128 KiB. */
static void what_two_ranks_combine_is_read_to_the_bench(void **state)
{
    (void)state;
    must(reducescatter_apart, 2, every_block, 3);
    must(reducescatter_in_place, 2, every_block, 3);
    must(reducescatter_apart, 3, every_block, 0);
}

/* Three rounds of 467 KB a rank: four parts of a bench each, and the peer's result. */
static void two_ranks_read_each_others_parts_and_results(void **state)
{
    (void)state;
    must(allreduce_apart, 2, every_block, 3 * (4 + 1));
    must(allreduce_in_place, 2, every_block, 3 * (4 + 1));
    must(allreduce_average, 2, every_block, 0); /* what is scaled on its way is not the caller's bytes */
}

static void short_allreduce(struct job_rank *rank, bool in_place)
{
    int32_t *out = malloc(BLOCK), *in = in_place ? out : malloc(BLOCK);
    int count = BLOCK / 4;
    for (int k = 0; k < count; k++) out[k] = k * (rank->rank + 1);
    JOB_TRY(ncclAllReduce(out, in, (size_t)count, ncclInt32, ncclSum, rank->comm, NULL));
    if (!in_place) memset(out, 0xee, BLOCK);
    for (int k = 0; k < count; k++) JOB_EXPECT(in[k] == 3 * k, "element %d is %d", k, in[k]);
    if (!in_place) free(out);
    free(in);
}
static void short_allreduce_apart(struct job_rank *rank) { short_allreduce(rank, false); }
static void short_allreduce_in_place(struct job_rank *rank) { short_allreduce(rank, true); }

/* In one exchange a rank writes its result while the other still reads there. */
static void in_place_in_one_exchange_is_copied(void **state)
{
    (void)state;
    must(short_allreduce_apart, 2, every_block, 1);
    must(short_allreduce_in_place, 2, every_block, 0);
}

static void short_blocks_are_copied(void **state)
{
    (void)state;
    must(alltoall, 3, longer_blocks, 0);
    must(scatter_apart, 3, longer_blocks, 0);
    must(allgather_apart, 2, longer_blocks, 0);
}

static void nothing_is_read_where_that_is_switched_off(void **state)
{
    (void)state;
    must(alltoall, 3, none, 0);
    must(allreduce_apart, 2, none, 0);
}

/* ---- who may not ---- */

static void odd_one(struct job_rank *rank)
{
    const struct expected *e = rank->arg;
    rank->comm = NULL;
    if (rank->rank == e->odd_rank) kernel = e->odd;
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    struct expected mine = *e;
    if (e->odd == OTHERS_ONLY && rank->rank != e->odd_rank) mine.reads--; /* all but the one that copies */
    rank->arg = &mine;
    call_and_count(rank);
    JOB_TRY(ncclCommDestroy(rank->comm));
}

static void with_odd(enum kernel odd, int expected)
{
    for (int r = 0; r < 3; r++) {
        struct expected e = {alltoall, expected, false, r, odd};
        job_must(&(struct job){.n_ranks = 3, .ranks_per_process = 1, .env = every_block, .bare = true}, odd_one, &e);
    }
}

static void where_one_may_not_read_all_copy(void **state) { (void)state; with_odd(FORBIDS, 0); }

/* The cookie is not the peer's: the number means another process there. */
static void where_one_finds_other_processes_all_copy(void **state) { (void)state; with_odd(READS_ANOTHER, 0); }

static void where_one_reads_less_all_copy(void **state) { (void)state; with_odd(READS_LESS, 0); }

/* Memory of a driver's, or secret memory. */
static void a_buffer_that_the_kernel_does_not_read_is_copied(void **state) { (void)state; with_odd(OTHERS_ONLY, 2); }

/* ---- when it goes wrong ---- */

static void read_fails(struct job_rank *rank)
{
    char *out = calloc(2, BLOCK), *in = calloc(2, BLOCK);
    if (rank->rank == 1) kernel = FAILS;
    ncclResult_t result = ncclAlltoAll(out, in, BLOCK, ncclInt8, rank->comm, NULL);
    trouble_says(rank, "a read that fails", result, ncclSystemError,
                 "rank 1:|rank 0's buffer|process_vm_readv|RAILCCL_READ_MIN_BYTES=0 at rank 0");
    free(out);
    free(in);
    ncclCommAbort(rank->comm);
    rank->comm = NULL;
}

static void read_fails_bare(struct job_rank *rank)
{
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    read_fails(rank);
}

static void a_read_that_fails_is_told_to_all(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1, .env = every_block, .bare = true}, read_fails_bare, NULL);
}

static void reader_kills(struct job_rank *rank)
{
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    char *out = calloc(3, BLOCK), *in = calloc(3, BLOCK);
    if (rank->rank == 2) kernel = DIES; /* rank 2 reads of rank 0 first */
    ncclResult_t result = ncclAlltoAll(out, in, BLOCK, ncclInt8, rank->comm, NULL);
    trouble_says(rank, "a peer that dies while it is read", result, ncclRemoteError, "rank 0");
    free(out);
    free(in);
    ncclCommAbort(rank->comm);
}

static void a_peer_that_dies_while_it_is_read_is_named(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 3, .ranks_per_process = 1, .env = every_block, .bare = true, .may_die = true}, reader_kills, NULL);
}

static void *aborts_soon(void *comm)
{
    usleep(10000);
    ncclCommAbort(comm);
    return NULL;
}

/* Rank 0's buffer is its own again while rank 1's read of it is still under way: rank 1 must not call that a result. */
static void owner_aborts(struct job_rank *rank)
{
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    char *out = calloc(2, BLOCK), *in = calloc(2, BLOCK);
    pthread_t thread;
    if (rank->rank == 1) kernel = DAWDLES;
    if (rank->rank == 0) pthread_create(&thread, NULL, aborts_soon, rank->comm);
    double since = trouble_now_s();
    ncclResult_t result = ncclAlltoAll(out, in, BLOCK, ncclInt8, rank->comm, NULL);
    JOB_EXPECT(result != ncclSuccess, "success, after an abort while it was read");
    JOB_EXPECT(trouble_now_s() - since < 5, "it took %.1f s", trouble_now_s() - since);
    if (rank->rank == 0) pthread_join(thread, NULL);
    else ncclCommAbort(rank->comm);
    free(out);
    free(in);
}

static void what_is_read_of_an_aborted_rank_is_no_result(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1, .env = every_block, .bare = true}, owner_aborts, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_alltoall_are_read_where_they_lie),
        cmocka_unit_test(what_a_root_gives_is_read_where_it_lies),
        cmocka_unit_test(what_a_root_gets_is_copied),
        cmocka_unit_test(two_ranks_read_each_others_blocks),
        cmocka_unit_test(what_two_ranks_combine_is_read_to_the_bench),
        cmocka_unit_test(two_ranks_read_each_others_parts_and_results),
        cmocka_unit_test(in_place_in_one_exchange_is_copied),
        cmocka_unit_test(short_blocks_are_copied),
        cmocka_unit_test(nothing_is_read_where_that_is_switched_off),
        cmocka_unit_test(where_one_may_not_read_all_copy),
        cmocka_unit_test(where_one_finds_other_processes_all_copy),
        cmocka_unit_test(where_one_reads_less_all_copy),
        cmocka_unit_test(a_buffer_that_the_kernel_does_not_read_is_copied),
        cmocka_unit_test(a_read_that_fails_is_told_to_all),
        cmocka_unit_test(a_peer_that_dies_while_it_is_read_is_named),
        cmocka_unit_test(what_is_read_of_an_aborted_rank_is_no_result),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
