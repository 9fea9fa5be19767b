/* Many ranks as processes on one host: seconds from the first call to a verified 8-byte AllReduce, and memory per rank.
 * 64 ranks always; 512 with RAILCCL_TEST_LONG=1. The clock starts when all processes exist, launch excluded. The limits are
 * generous multiples of the goals (1 s and 6 s on an idle machine with 2 cores), because a test machine may be busy; the
 * figures are printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "support/job.h"

enum { MAX_RANKS = 512 };

struct board {
    _Atomic int there;
    _Atomic uint64_t start_ns, last_ns;
    long pss_kib[MAX_RANKS];
};

static void nap(void)
{
    struct timespec t = {0, 500000};
    nanosleep(&t, NULL);
}

static long pss_kib(void)
{
    char line[256];
    long kib = -1;
    FILE *f = fopen("/proc/self/smaps_rollup", "re");
    while (f && fgets(line, sizeof line, f)) sscanf(line, "Pss: %ld kB", &kib);
    if (f) fclose(f);
    return kib;
}

static void all_there(struct job_rank *rank, struct board *board)
{
    if (atomic_fetch_add(&board->there, 1) == rank->n_ranks - 1) atomic_store(&board->start_ns, rail_now_ns());
    while (!atomic_load(&board->start_ns)) nap();
}

static void first_allreduce(struct job_rank *rank)
{
    struct board *board = rank->arg;
    all_there(rank, board);
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    uint64_t value = (uint64_t)rank->rank + 1;
    JOB_TRY(ncclAllReduce(&value, &value, 1, ncclUint64, ncclSum, rank->comm, NULL));
    uint64_t now = rail_now_ns(), last = atomic_load(&board->last_ns);
    while (now > last && !atomic_compare_exchange_weak(&board->last_ns, &last, now)) {
    }
    uint64_t n = (uint64_t)rank->n_ranks;
    JOB_EXPECT(value == n * (n + 1) / 2, "sum of ranks is %llu", (unsigned long long)value);
    board->pss_kib[rank->rank] = pss_kib();
    JOB_TRY(ncclAllReduce(&value, &value, 1, ncclUint64, ncclMax, rank->comm, NULL)); /* everybody is measured alive */
    JOB_TRY(ncclCommDestroy(rank->comm));
}

static void ranks_join_within(int n, double seconds, long kib)
{
    struct board *board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(board != MAP_FAILED);
    struct job job = {.n_ranks = n, .ranks_per_process = 1, .bare = true, .limit_s = 120};
    job_must(&job, first_allreduce, board);
    double took_s = (double)(board->last_ns - board->start_ns) / 1e9;
    long most = 0;
    for (int r = 0; r < n; r++) most = board->pss_kib[r] > most ? board->pss_kib[r] : most;
    print_message("%d ranks as processes: first verified 8-byte AllReduce after %.3f s; at most %ld KiB (Pss) per rank\n", n,
                  took_s, most);
    assert_true(took_s <= seconds);
    assert_true(most > 0 && most <= kib);
    munmap(board, sizeof *board);
}

static void sixty_four_ranks_are_ready_in_a_second(void **state)
{
    (void)state;
    ranks_join_within(64, 5 * 1.0, 8 << 10);
}

static void five_hundred_and_twelve_ranks_in_six(void **state)
{
    (void)state;
    if (!getenv("RAILCCL_TEST_LONG")) skip();
    ranks_join_within(512, 5 * 6.0, 16 << 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sixty_four_ranks_are_ready_in_a_second),
        cmocka_unit_test(five_hundred_and_twelve_ranks_in_six),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
