/* One-sided writes and signals: the data is there before its signal counts, what one rank puts to another arrives in
 * order, nothing beside it is touched, the target need not call anything, and every mistake is named.
 *
 * Each case runs over every way into a window: threads of one process, another process's memory mapped, copied by the
 * kernel, or through a link, and other (pretended) hosts. */
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

#include <railccl.h>

#include "support/trouble.h"

enum { GUARD = 0xa5, GUARD_BYTES = 64 };

static const char *const by_kernel[] = {"RAILCCL_WINDOW_WAY=kernel", NULL};
static const char *const by_link[] = {"RAILCCL_WINDOW_WAY=link", NULL};

static bool is_long(void) { return getenv("RAILCCL_TEST_LONG") != NULL; }

static void every_way(int n, void (*body)(struct job_rank *), void *arg)
{
    const struct job jobs[] = {
        {.n_ranks = n},
        {.n_ranks = n, .ranks_per_process = 1},
        {.n_ranks = n, .ranks_per_process = 1, .env = by_kernel},
        {.n_ranks = n, .ranks_per_process = 1, .env = by_link},
        {.n_ranks = n, .ranks_per_process = 1, .n_hosts = 2},
        {.n_ranks = n, .ranks_per_process = 2, .n_hosts = 1},
        {.n_ranks = n, .ranks_per_process = (n + 1) / 2, .n_hosts = 2},
    };
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++)
        if (i == 0 || jobs[i].ranks_per_process) {
#if defined(__SANITIZE_THREAD__)
            if (i > 0) continue; /* it looks into one process */
#endif
            job_must(&jobs[i], body, arg);
        }
}

static uint64_t mix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static void fill(unsigned char *to, size_t bytes, uint64_t seed)
{
    for (size_t i = 0; i < bytes; i++) to[i] = (unsigned char)((seed + i) * 0x9e3779b1u >> 11);
}

/* A window of `bytes` with a guard band at each end. */
struct banded {
    unsigned char *all, *data;
    size_t bytes;
    bool given; /* by ncclMemAlloc */
    ncclWindow_t window;
};

static bool banded_open(struct job_rank *rank, struct banded *b, size_t bytes, bool given)
{
    *b = (struct banded){.bytes = bytes, .given = given};
    void *all = given ? NULL : malloc(bytes + 2 * GUARD_BYTES);
    if (given && ncclMemAlloc(&all, bytes + 2 * GUARD_BYTES) != ncclSuccess) return false;
    b->all = all;
    b->data = b->all + GUARD_BYTES;
    memset(b->all, GUARD, bytes + 2 * GUARD_BYTES);
    if (ncclCommWindowRegister(rank->comm, b->data, bytes, &b->window, NCCL_WIN_DEFAULT) == ncclSuccess) return true;
    job_fail(rank, "ncclCommWindowRegister: %s", ncclGetLastError(NULL));
    return false;
}

static bool bands_stand(struct job_rank *rank, const struct banded *b)
{
    for (size_t i = 0; i < GUARD_BYTES; i++)
        if (b->all[i] != GUARD || b->data[b->bytes + i] != GUARD) {
            job_fail(rank, "a guard band was written, byte %zu", i);
            return false;
        }
    return true;
}

static void banded_close(struct job_rank *rank, struct banded *b)
{
    JOB_TRY(ncclCommWindowDeregister(rank->comm, b->window));
    if (!bands_stand(rank, b)) return;
    if (b->given)
        JOB_TRY(ncclMemFree(b->all));
    else
        free(b->all);
}

static ncclResult_t put(struct job_rank *rank, const void *from, size_t bytes, int peer, const struct banded *to,
                        size_t at)
{
    return ncclPutSignal(from, bytes, ncclUint8, peer, to->window, at, 0, 0, 0, rank->comm, NULL);
}

static ncclResult_t wait_for(struct job_rank *rank, int peer, int count)
{
    ncclWaitSignalDesc_t d = {.opCnt = count, .peer = peer};
    return ncclWaitSignal(1, &d, rank->comm, NULL);
}

static void differs(struct job_rank *rank, const unsigned char *got, const unsigned char *want, size_t bytes,
                    const char *what)
{
    for (size_t i = 0; i < bytes; i++)
        if (got[i] != want[i]) {
            job_fail(rank, "%s: byte %zu of %zu is %02x, not %02x", what, i, bytes, got[i], want[i]);
            return;
        }
}

/* ---- to and fro ---- */

static void ping_pong(struct job_rank *rank)
{
    static const size_t sizes[] = {0, 1, 7, 64, 4096, 100001, 1 << 20, 5000003};
    struct banded b;
    int peer = rank->rank ^ 1;
    bool given = *(bool *)rank->arg;
    if (!banded_open(rank, &b, 5000003, given)) return;
    unsigned char *out = malloc(b.bytes), *want = malloc(b.bytes);
    for (int round = 0; round < 24; round++) {
        size_t bytes = sizes[(size_t)round % (sizeof sizes / sizeof *sizes)];
        fill(out, bytes, (uint64_t)round * 2 + (uint64_t)rank->rank);
        fill(want, bytes, (uint64_t)round * 2 + (uint64_t)peer);
        if (rank->rank == 1) JOB_TRY(wait_for(rank, peer, 1));
        if (rank->rank == 1) differs(rank, b.data, want, bytes, "pinged");
        JOB_TRY(put(rank, out, bytes, peer, &b, 0));
        memset(out, 0, bytes); /* it may be used again */
        if (rank->rank == 0) JOB_TRY(wait_for(rank, peer, 1));
        if (rank->rank == 0) differs(rank, b.data, want, bytes, "ponged");
    }
    free(out);
    free(want);
    banded_close(rank, &b);
}

static void two_ranks_play_ping_pong(void **state)
{
    (void)state;
    for (int given = 0; given < 2; given++) every_way(2, ping_pong, &(bool){given});
}

/* ---- everybody to everybody, at once ---- */

static void all_to_all(struct job_rank *rank)
{
    size_t block = *(size_t *)rank->arg;
    int n = rank->n_ranks;
    struct banded b;
    if (!banded_open(rank, &b, block * (size_t)n, true)) return;
    unsigned char *out = malloc(block), *want = malloc(block);
    ncclWaitSignalDesc_t *from = calloc((size_t)n, sizeof *from);
    for (int round = 0; round < 3; round++) {
        for (int step = 0; step < n; step++) { /* myself, too */
            int peer = (rank->rank + step) % n;
            fill(out, block, (uint64_t)(round * n * n + rank->rank * n + peer));
            JOB_TRY(put(rank, out, block, peer, &b, block * (size_t)rank->rank));
        }
        for (int r = 0; r < n; r++) from[r] = (ncclWaitSignalDesc_t){.opCnt = 1, .peer = r};
        JOB_TRY(ncclWaitSignal(n, from, rank->comm, NULL));
        for (int r = 0; r < n; r++) {
            fill(want, block, (uint64_t)(round * n * n + r * n + rank->rank));
            differs(rank, b.data + block * (size_t)r, want, block, "exchanged");
        }
        JOB_TRY(trouble_allreduce(rank->comm, n, 10)); /* nobody puts before everybody has looked */
    }
    free(out);
    free(want);
    free(from);
    banded_close(rank, &b);
}

static void everybody_puts_to_everybody(void **state)
{
    (void)state;
    every_way(4, all_to_all, &(size_t){1000});
    every_way(4, all_to_all, &(size_t){3 << 20}); /* more than a link holds: all wait for credit at once */
    if (is_long()) every_way(16, all_to_all, &(size_t){1 << 20});
}

/* ---- a storm: random places and sizes, overlapping, the last one stays ---- */

enum { REGION = 300000, STORM = 200 };

static void storm_put(uint64_t *seed, size_t *at, size_t *bytes, uint64_t *content)
{
    uint64_t r = mix(seed);
    *bytes = r % 16 == 0 ? (size_t)(mix(seed) % REGION) : (size_t)(mix(seed) % 2000);
    *at = (size_t)(mix(seed) % (REGION - *bytes + 1));
    *content = mix(seed);
}

static uint64_t storm_seed(int from, int to, int round)
{
    return (uint64_t)(from * 1000 + to) * 7919 + (uint64_t)round;
}

static void storm(struct job_rank *rank)
{
    int n = rank->n_ranks, rounds = is_long() ? 20 : 2;
    struct banded b;
    if (!banded_open(rank, &b, (size_t)n * REGION, *(bool *)rank->arg)) return;
    unsigned char *out = malloc(REGION), *want = malloc(REGION);
    for (int round = 0; round < rounds; round++) {
        memset(b.data, 0, b.bytes);
        JOB_TRY(trouble_allreduce(rank->comm, n, 1));
        uint64_t *seeds = calloc((size_t)n, sizeof *seeds);
        for (int to = 0; to < n; to++) seeds[to] = storm_seed(rank->rank, to, round);
        for (int i = 0; i < STORM; i++)
            for (int to = 0; to < n; to++) {
                size_t at, bytes;
                uint64_t content;
                storm_put(&seeds[to], &at, &bytes, &content);
                fill(out, bytes, content);
                JOB_TRY(put(rank, out, bytes, to, &b, (size_t)rank->rank * REGION + at));
            }
        free(seeds);
        for (int from = 0; from < n; from++) {
            uint64_t seed = storm_seed(from, rank->rank, round);
            JOB_TRY(wait_for(rank, from, STORM));
            memset(want, 0, REGION);
            for (int i = 0; i < STORM; i++) {
                size_t at, bytes;
                uint64_t content;
                storm_put(&seed, &at, &bytes, &content);
                fill(want + at, bytes, content);
            }
            differs(rank, b.data + (size_t)from * REGION, want, REGION, "after the storm");
        }
        JOB_TRY(trouble_allreduce(rank->comm, n, 1));
    }
    free(out);
    free(want);
    banded_close(rank, &b);
}

static void a_storm_of_puts_leaves_the_last_of_each_place(void **state)
{
    (void)state;
    for (int given = 0; given < 2; given++) every_way(3, storm, &(bool){given});
}

/* ---- signals ---- */

static void signals(struct job_rank *rank)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.numRmaCtx = 3;
    JOB_TRY(ncclCommInitRankConfig(&rank->comm, rank->n_ranks, rank->id, rank->rank, &config));
    int n = rank->n_ranks, right = (rank->rank + 1) % n, left = (rank->rank + n - 1) % n;
    for (int ctx = 0; ctx < 3; ctx++)
        for (int index = 0; index < 16; index++)
            for (int k = 0; k <= ctx + index; k++) JOB_TRY(ncclSignal(right, index, ctx, 0, rank->comm, NULL));
    ncclWaitSignalDesc_t all[48], one = {.opCnt = 1, .peer = left, .sigIdx = 15, .ctx = 2};
    for (int i = 0; i < 47; i++)
        all[i] = (ncclWaitSignalDesc_t){.opCnt = i / 16 + i % 16 + 1, .peer = left, .sigIdx = i % 16, .ctx = i / 16};
    all[47] = (ncclWaitSignalDesc_t){.opCnt = 0, .peer = left}; /* nothing more of it */
    JOB_TRY(ncclWaitSignal(48, all, rank->comm, NULL));
    for (int k = 0; k < 18; k += 2) { /* of the last one: two of the same kind in one call count twice */
        ncclWaitSignalDesc_t twice[2] = {one, one};
        JOB_TRY(ncclWaitSignal(2, twice, rank->comm, NULL));
    }
    JOB_TRY(ncclWaitSignal(0, NULL, rank->comm, NULL));
    JOB_TRY(ncclSignal(rank->rank, 3, 1, 0, rank->comm, NULL)); /* to myself */
    one = (ncclWaitSignalDesc_t){.opCnt = 1, .peer = rank->rank, .sigIdx = 3, .ctx = 1};
    JOB_TRY(ncclWaitSignal(1, &one, rank->comm, NULL));
    JOB_TRY(ncclCommDestroy(rank->comm));
}

static void signals_count_per_peer_index_and_context(void **state)
{
    (void)state;
    const struct job jobs[] = {
        {.n_ranks = 1, .bare = true},
        {.n_ranks = 3, .bare = true},
        {.n_ranks = 3, .ranks_per_process = 1, .bare = true},
        {.n_ranks = 3, .ranks_per_process = 1, .n_hosts = 3, .bare = true},
    };
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
#if defined(__SANITIZE_THREAD__)
        if (jobs[i].ranks_per_process) continue;
#endif
        job_must(&jobs[i], signals, NULL);
    }
}

/* ---- the target does something else ---- */

enum { ABSENT_BYTES = 8 << 20 }; /* more than the slots of a link hold */

/* The target looks at its memory and makes no call. */
static void absent(struct job_rank *rank)
{
    struct banded b;
    if (!banded_open(rank, &b, ABSENT_BYTES, false)) return;
    memset(b.data, 0, b.bytes);
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
    if (rank->rank == 0) {
        unsigned char *out = malloc(ABSENT_BYTES);
        memset(out, 1, ABSENT_BYTES);
        JOB_TRY(put(rank, out, ABSENT_BYTES - 1, 1, &b, 0));
        JOB_TRY(put(rank, out, 1, 1, &b, ABSENT_BYTES - 1));
        free(out);
    } else {
        double start = trouble_now_s();
        while (!__atomic_load_n(&b.data[ABSENT_BYTES - 1], __ATOMIC_ACQUIRE) && trouble_now_s() < start + 20)
            trouble_sleep_s(0.002);
        JOB_EXPECT(b.data[ABSENT_BYTES - 1] == 1, "nothing came within 20 s without a call of the target");
        JOB_TRY(wait_for(rank, 0, 2));
        for (size_t i = 0; i < ABSENT_BYTES; i++) JOB_EXPECT(b.data[i] == 1, "byte %zu is %d", i, b.data[i]);
    }
    banded_close(rank, &b);
}

static void a_target_need_not_call_anything(void **state)
{
    (void)state;
#if defined(__SANITIZE_THREAD__)
    skip(); /* to look at memory without waiting for its signal is a race: the point of this case */
#endif
    every_way(2, absent, NULL);
}

/* Puts that are on their way when the windows end are there afterwards. */
static void pending(struct job_rank *rank)
{
    enum { BYTES = 2 << 20 };
    int n = rank->n_ranks, right = (rank->rank + 1) % n, left = (rank->rank + n - 1) % n;
    unsigned char *out = malloc(BYTES), *want = malloc(BYTES);
    for (int round = 0; round < 4; round++) {
        struct banded b;
        if (!banded_open(rank, &b, BYTES, round & 1)) return;
        fill(out, BYTES, (uint64_t)(round * n + rank->rank));
        fill(want, BYTES, (uint64_t)(round * n + left));
        JOB_TRY(put(rank, out, BYTES, right, &b, 0));
        JOB_TRY(ncclCommWindowDeregister(rank->comm, b.window));
        differs(rank, b.data, want, BYTES, "after the window's end");
        if (!bands_stand(rank, &b)) return;
        if (b.given)
            JOB_TRY(ncclMemFree(b.all));
        else
            free(b.all);
    }
    free(out);
    free(want);
}

static void deregistering_waits_for_puts_under_way(void **state)
{
    (void)state;
    every_way(3, pending, NULL);
}

/* A put into a window by one way, then into another by another way: in order. */
static void two_windows(struct job_rank *rank)
{
    enum { BYTES = 1 << 20 };
    struct banded a, b;
    if (rank->rank == 1) setenv("RAILCCL_WINDOW_WAY", "link", 1);
    if (!banded_open(rank, &a, BYTES, true)) return;
    if (!banded_open(rank, &b, BYTES, false)) return;
    int peer = rank->rank ^ 1;
    unsigned char *out = malloc(BYTES);
    for (int round = 1; round < 30; round++) {
        memset(out, round, BYTES);
        JOB_TRY(ncclPutSignal(out, BYTES, ncclInt8, peer, a.window, 0, 1, 0, 0, rank->comm, NULL));
        JOB_TRY(put(rank, out, 8, peer, &b, 0));
        JOB_TRY(wait_for(rank, peer, 1));
        JOB_EXPECT(a.data[0] == round && a.data[BYTES - 1] == round && b.data[7] == round, "round %d: %d %d %d", round,
                   a.data[0],
                   a.data[BYTES - 1], b.data[7]);
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
    }
    free(out);
    banded_close(rank, &b);
    banded_close(rank, &a);
}

static void puts_by_different_ways_arrive_in_order(void **state)
{
    (void)state;
    every_way(2, two_windows, NULL);
}

/* ---- in groups, and on streams ---- */

/* Everything at once, the waits first: nothing may hold back what another rank needs. */
static void grouped(struct job_rank *rank)
{
    enum { BYTES = 3 << 20 }; /* more than a link holds */
    int n = rank->n_ranks, right = (rank->rank + 1) % n, left = (rank->rank + n - 1) % n;
    struct banded b;
    if (!banded_open(rank, &b, 2 * BYTES, true)) return;
    unsigned char *out = malloc(BYTES), *want = malloc(BYTES), *sent = malloc(BYTES), *got = malloc(BYTES);
    cudaStream_t stream = NULL;
    JOB_TRY(railStreamCreate(&stream));
    for (int round = 0; round < 6; round++) {
        float sum = 1;
        cudaStream_t on = round % 3 == 2 ? stream : NULL; /* on a stream: the group's end returns at once */
        ncclWaitSignalDesc_t d = {.opCnt = 2, .peer = left};
        fill(out, BYTES, (uint64_t)(round * n + rank->rank));
        fill(want, BYTES, (uint64_t)(round * n + left));
        fill(sent, BYTES, (uint64_t)(round * n + rank->rank) + 1000);
        JOB_TRY(ncclGroupStart());
        JOB_TRY(ncclWaitSignal(1, &d, rank->comm, on));
        JOB_TRY(ncclRecv(got, BYTES, ncclInt8, left, rank->comm, on));
        JOB_TRY(ncclAllReduce(&sum, &sum, 1, ncclFloat32, ncclSum, rank->comm, on));
        JOB_TRY(ncclPutSignal(out, BYTES, ncclInt8, right, b.window, 0, 0, 0, 0, rank->comm, on));
        JOB_TRY(ncclPutSignal(out, BYTES, ncclInt8, right, b.window, BYTES, 0, 0, 0, rank->comm, on));
        JOB_TRY(ncclSend(sent, BYTES, ncclInt8, right, rank->comm, on));
        JOB_TRY(ncclGroupEnd());
        JOB_TRY(railStreamSynchronize(stream));
        JOB_EXPECT(sum == (float)n, "round %d: the sum is %g", round, (double)sum);
        differs(rank, b.data, want, BYTES, "put in a group");
        differs(rank, b.data + BYTES, want, BYTES, "put second in a group");
        fill(want, BYTES, (uint64_t)(round * n + left) + 1000);
        differs(rank, got, want, BYTES, "sent in a group");
        JOB_TRY(trouble_allreduce(rank->comm, n, 1));
    }
    JOB_TRY(ncclPutSignal(out, 8, ncclInt8, right, b.window, 0, 0, 0, 0, rank->comm, stream));
    JOB_TRY(wait_for(rank, left, 1)); /* comes after what is on the stream */
    JOB_TRY(railStreamDestroy(stream));
    free(out), free(want), free(sent), free(got);
    banded_close(rank, &b);
}

static void a_group_runs_puts_waits_and_the_rest_together(void **state)
{
    (void)state;
    every_way(3, grouped, NULL);
}

/* One thread, four ranks: each collective call of windows is a group. */
static void one_thread_drives_all_ranks(void **state)
{
    (void)state;
    enum { RANKS = 4, BYTES = 1000 };
    ncclComm_t comms[RANKS];
    ncclWindow_t windows[RANKS], more[RANKS];
    static unsigned char data[RANKS][BYTES], out[RANKS][BYTES];
    assert_int_equal(ncclCommInitAll(comms, RANKS, NULL), ncclSuccess);
    assert_int_equal(ncclGroupStart(), ncclSuccess);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(ncclCommWindowRegister(comms[r], data[r], BYTES, &windows[r], 0), ncclSuccess);
        assert_int_equal(ncclCommWindowRegister(comms[r], data[r], 1, &more[r], 0), ncclSuccess);
    }
    assert_int_equal(ncclGroupEnd(), ncclSuccess);
    for (int r = 0; r < RANKS; r++) fill(out[r], BYTES, (uint64_t)r);
    assert_int_equal(ncclGroupStart(), ncclSuccess);
    for (int r = 0; r < RANKS; r++) {
        ncclWaitSignalDesc_t d = {.opCnt = 1, .peer = (r + 1) % RANKS};
        assert_int_equal(ncclWaitSignal(1, &d, comms[r], NULL), ncclSuccess);
        assert_int_equal(ncclPutSignal(out[r], BYTES, ncclInt8, (r + RANKS - 1) % RANKS, windows[r], 0, 0, 0, 0,
                                       comms[r], NULL),
                         ncclSuccess);
        assert_int_equal(ncclCommWindowDeregister(comms[r], windows[r]), ncclSuccess); /* after the puts */
    }
    assert_int_equal(ncclGroupEnd(), ncclSuccess);
    for (int r = 0; r < RANKS; r++) assert_memory_equal(data[r], out[(r + 1) % RANKS], BYTES);
    assert_int_equal(ncclGroupStart(), ncclSuccess);
    assert_int_equal(ncclCommWindowDeregister(comms[0], windows[0]), ncclInvalidArgument);
    assert_int_equal(ncclCommWindowDeregister(comms[0], more[0]), ncclSuccess); /* refused with the group */
    assert_int_equal(ncclGroupEnd(), ncclInvalidArgument);
    for (int r = 0; r < RANKS; r++) {
        void *user = NULL;
        assert_int_equal(ncclWinGetUserPtr(comms[r], more[r], &user), ncclSuccess);
        assert_ptr_equal(user, data[r]);
        assert_int_equal(ncclCommDestroy(comms[r]), ncclSuccess);
    }
}

/* ---- communicators made of this one ---- */

static void split(struct job_rank *rank)
{
    ncclComm_t all = rank->comm, half;
    struct banded b;
    unsigned char out[1000], want[1000];
    JOB_TRY(ncclCommSplit(all, rank->rank % 2, -rank->rank, &half, NULL)); /* in reverse */
    int mine, n;
    JOB_TRY(ncclCommUserRank(half, &mine));
    JOB_TRY(ncclCommCount(half, &n));
    struct job_rank within = *rank;
    within.comm = half;
    if (!banded_open(&within, &b, sizeof out, true)) return;
    fill(out, sizeof out, (uint64_t)(rank->rank % 2 * 10 + mine));
    fill(want, sizeof want, (uint64_t)(rank->rank % 2 * 10 + (mine + n - 1) % n));
    JOB_TRY(put(&within, out, sizeof out, (mine + 1) % n, &b, 0));
    JOB_TRY(wait_for(&within, (mine + n - 1) % n, 1));
    differs(rank, b.data, want, sizeof want, "put in a half");
    banded_close(&within, &b);
    JOB_TRY(ncclCommDestroy(half));
}

static void a_split_communicator_has_windows_of_its_own(void **state)
{
    (void)state;
    every_way(4, split, NULL);
}

/* ---- mistakes ---- */

static char memory[4096], more[4096];

#define SAYS(call, words)                                                                                              \
    do {                                                                                                               \
        errno = EXDEV;                                                                                                 \
        ncclResult_t says_ = (call);                                                                                   \
        JOB_EXPECT(errno == EXDEV, #call " changed errno to %d", errno);                                               \
        if (!trouble_says(rank, #call, says_, ncclInvalidArgument, words)) return;                                     \
    } while (0)

static void mistakes(struct job_rank *rank)
{
    ncclComm_t c = rank->comm, other;
    ncclWindow_t w, foreign, gone;
    int peer = rank->rank ^ 1;
    JOB_TRY(trouble_second_comm(rank, &other));
    JOB_TRY(ncclCommWindowRegister(c, memory, 100 + 100 * (size_t)rank->rank, &w, 0));
    JOB_TRY(ncclCommWindowRegister(other, memory, 100, &foreign, 0));
    JOB_TRY(ncclCommWindowRegister(c, more, 100, &gone, 0));
    JOB_TRY(ncclCommWindowDeregister(c, gone));
    size_t room = 100 + 100 * (size_t)peer; /* the peer's size counts, not mine */
    char beyond[64];
    snprintf(beyond, sizeof beyond, "ncclPutSignal|window of rank %d|%zu bytes", peer, room);
    JOB_TRY(ncclPutSignal(more, room / 4, ncclFloat32, peer, w, 0, 0, 0, 0, c, NULL));
    JOB_TRY(ncclPutSignal(NULL, 0, ncclFloat32, peer, w, room, 0, 0, 0, c, NULL)); /* the signal alone */
    JOB_TRY(wait_for(rank, peer, 2));
    SAYS(ncclPutSignal(more, room / 4 + 1, ncclFloat32, peer, w, 0, 0, 0, 0, c, NULL), beyond);
    SAYS(ncclPutSignal(more, 1, ncclInt8, peer, w, room, 0, 0, 0, c, NULL), beyond);
    SAYS(ncclPutSignal(more, 0, ncclInt8, peer, w, room + 1, 0, 0, 0, c, NULL), beyond);
    SAYS(ncclPutSignal(more, SIZE_MAX / 4 + 2, ncclFloat32, peer, w, 0, 0, 0, 0, c, NULL), beyond);
    SAYS(ncclPutSignal(more, 1, ncclInt8, peer, w, SIZE_MAX, 0, 0, 0, c, NULL), beyond);
    SAYS(ncclPutSignal(NULL, 1, ncclInt8, peer, w, 0, 0, 0, 0, c, NULL), "localbuff is NULL|count 1");
    SAYS(ncclPutSignal(more, 1, ncclInt8, peer, NULL, 0, 0, 0, 0, c, NULL), "ncclPutSignal|window is NULL");
    SAYS(ncclPutSignal(more, 1, ncclInt8, peer, foreign, 0, 0, 0, 0, c, NULL), "ncclPutSignal|another communicator");
    SAYS(ncclPutSignal(more, 1, ncclInt8, peer, gone, 0, 0, 0, 0, c, NULL), "ncclPutSignal|no living window");
    SAYS(ncclPutSignal(more, 1, ncclInt8, peer, (ncclWindow_t)(void *)more, 0, 0, 0, 0, c, NULL), "no living window");
    SAYS(ncclPutSignal(more, 1, (ncclDataType_t)99, peer, w, 0, 0, 0, 0, c, NULL), "ncclPutSignal|datatype 99");
    SAYS(ncclPutSignal(more, 1, ncclInt8, -1, w, 0, 0, 0, 0, c, NULL), "ncclPutSignal|peer -1|0 to 1");
    SAYS(ncclPutSignal(more, 1, ncclInt8, 2, w, 0, 0, 0, 0, c, NULL), "ncclPutSignal|peer 2|0 to 1");
    SAYS(ncclPutSignal(more, 1, ncclInt8, peer, w, 0, -1, 0, 0, c, NULL), "ncclPutSignal|sigIdx -1");
    SAYS(ncclPutSignal(more, 1, ncclInt8, peer, w, 0, 16, 0, 0, c, NULL), "ncclPutSignal|sigIdx 16|0 to 15");
    SAYS(ncclPutSignal(more, 1, ncclInt8, peer, w, 0, 0, 1, 0, c, NULL), "ncclPutSignal|ctx 1|0 to 0|numRmaCtx");
    SAYS(ncclPutSignal(more, 1, ncclInt8, peer, w, 0, 0, -1, 0, c, NULL), "ncclPutSignal|ctx -1");
    SAYS(ncclPutSignal(more, 1, ncclInt8, peer, w, 0, 0, 0, 1, c, NULL), "ncclPutSignal|flags 0x1|must be 0");
    SAYS(ncclPutSignal(more, 1, ncclInt8, peer, w, 0, 0, 0, 0, NULL, NULL), "ncclPutSignal|communicator is NULL");
    SAYS(ncclPutSignal(more, 1, ncclInt8, peer, w, 0, 0, 0, 0, c, (cudaStream_t)(void *)more), "stream|pass NULL");
    SAYS(ncclSignal(7, 0, 0, 0, c, NULL), "ncclSignal|peer 7");
    SAYS(ncclSignal(peer, 99, 0, 0, c, NULL), "ncclSignal|sigIdx 99");
    SAYS(ncclSignal(peer, 0, 5, 0, c, NULL), "ncclSignal|ctx 5");
    SAYS(ncclSignal(peer, 0, 0, 2, c, NULL), "ncclSignal|flags 0x2");
    ncclWaitSignalDesc_t bad[] = {{-1, peer, 0, 0}, {1, 2, 0, 0}, {1, peer, -3, 0}, {1, peer, 0, 9}};
    static const char *const words[] = {"opCnt -1|description 0", "peer 2", "sigIdx -3", "ctx 9"};
    for (int i = 0; i < 4; i++) SAYS(ncclWaitSignal(1, &bad[i], c, NULL), words[i]);
    SAYS(ncclWaitSignal(-1, bad, c, NULL), "ncclWaitSignal|nDesc -1");
    SAYS(ncclWaitSignal(1, NULL, c, NULL), "ncclWaitSignal|signalDescs is NULL");
    JOB_TRY(ncclSignal(peer, 0, 0, 0, c, NULL)); /* none of them did anything */
    JOB_TRY(wait_for(rank, peer, 1));
    JOB_TRY(trouble_allreduce(c, rank->n_ranks, 100));
    JOB_TRY(ncclCommDestroy(other));
}

static void a_mistake_is_named_and_the_communicator_works_on(void **state)
{
    (void)state;
    for (int hosts = 1; hosts <= 2; hosts++) {
        struct job job = {.n_ranks = 2, .ranks_per_process = 1, .n_hosts = hosts};
        job_must(&job, mistakes, NULL);
    }
}

/* ---- a rank that will not come ---- */

static void *abort_soon(void *comm)
{
    trouble_sleep_s(0.3);
    return ncclCommAbort(comm) == ncclSuccess ? NULL : comm;
}

/* Rank 1 dies (arg 0), aborts (1), or closes its communicator (2) while rank 0 waits for its signal; or (3) rank 0
 * aborts its own wait. */
static void forsaken(struct job_rank *rank)
{
    int how = *(int *)rank->arg;
    pthread_t thread;
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    JOB_TRY(ncclSignal(rank->rank ^ 1, 0, 0, 0, rank->comm, NULL));
    JOB_TRY(wait_for(rank, rank->rank ^ 1, 1));
    if (rank->rank == 1) {
        trouble_sleep_s(0.3);
        if (how == 0) raise(SIGKILL);
        if (how == 1) JOB_TRY(ncclCommAbort(rank->comm));
        if (how == 2) JOB_TRY(ncclCommDestroy(rank->comm));
        if (how == 3) {
            trouble_sleep_s(0.5);
            (void)ncclCommAbort(rank->comm);
        }
        return;
    }
    if (how == 3) pthread_create(&thread, NULL, abort_soon, rank->comm);
    double start = trouble_now_s();
    ncclResult_t result = wait_for(rank, 1, 1);
    JOB_EXPECT(trouble_now_s() - start < 10, "ended after %.1f s", trouble_now_s() - start);
    static const char *const words[] = {"rank 1", "rank 1 called ncclCommAbort",
                                        "rank 1 closed its communicator|sigIdx 0",
                                        "rank 0 called ncclCommAbort"};
    const char *lacks = trouble_lacks(ncclGetLastError(NULL), words[how]);
    JOB_EXPECT(result == (how == 3 ? ncclInvalidUsage : ncclRemoteError), "%d: result %d: %s", how, result,
               ncclGetLastError(NULL));
    JOB_EXPECT(!lacks, "%d lacks \"%s\": %s", how, lacks, ncclGetLastError(NULL));
    if (how == 3) {
        void *failed;
        pthread_join(thread, &failed);
        JOB_EXPECT(!failed, "abort failed");
    } else {
        JOB_TRY(ncclCommAbort(rank->comm));
    }
}

static void waiting_for_a_rank_that_is_gone_ends_with_its_name(void **state)
{
    (void)state;
    for (int how = 0; how < 4; how++)
        for (int hosts = 1; hosts <= 2; hosts++) {
            struct job job = {.n_ranks = 2, .ranks_per_process = 1, .n_hosts = hosts, .bare = true, .may_die = true};
            job_must(&job, forsaken, &how);
        }
}

/* Rank 0 puts and puts; rank 1 dies, or aborts, in the middle of it. */
static void put_until_the_end(struct job_rank *rank)
{
    enum { BYTES = 1 << 20 };
    bool dies = *(bool *)rank->arg;
    struct banded b;
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    if (!banded_open(rank, &b, BYTES, dies)) return;
    if (rank->rank == 1) {
        JOB_TRY(wait_for(rank, 0, 20));
        if (dies) raise(SIGKILL);
        JOB_TRY(ncclCommAbort(rank->comm));
        free(b.all);
        return;
    }
    unsigned char *out = calloc(1, BYTES);
    double start = trouble_now_s();
    ncclResult_t result = ncclSuccess;
    while (result == ncclSuccess && trouble_now_s() < start + 20) result = put(rank, out, BYTES, 1, &b, 0);
    JOB_EXPECT(result == ncclRemoteError, "result %d: %s", result, ncclGetLastError(NULL));
    /* What a call returns first is the rank's; other threads of the process may add words of their own lanes. */
    ncclResult_t state;
    JOB_TRY(ncclCommGetAsyncError(rank->comm, &state));
    JOB_EXPECT(state == ncclRemoteError, "state %d", state);
    const char *lacks = trouble_lacks(ncclGetLastError(NULL), dies ? "rank 1" : "rank 1 called ncclCommAbort");
    JOB_EXPECT(!lacks, "lacks \"%s\": %s", lacks, ncclGetLastError(NULL));
    JOB_TRY(ncclCommAbort(rank->comm));
    free(out);
    if (dies) JOB_TRY(ncclMemFree(b.all));
    else free(b.all);
}

static void putting_to_a_rank_that_is_gone_ends_with_its_name(void **state)
{
    (void)state;
    const struct job jobs[] = {
        {.n_ranks = 2, .ranks_per_process = 1, .bare = true, .may_die = true},
        {.n_ranks = 2, .ranks_per_process = 1, .bare = true, .may_die = true, .env = by_kernel},
        {.n_ranks = 2, .ranks_per_process = 1, .bare = true, .may_die = true, .env = by_link},
        {.n_ranks = 2, .ranks_per_process = 1, .bare = true, .may_die = true, .n_hosts = 2},
    };
    for (int dies = 0; dies < 2; dies++)
        for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) job_must(&jobs[i], put_until_the_end, &(bool){dies});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_ranks_play_ping_pong),
        cmocka_unit_test(everybody_puts_to_everybody),
        cmocka_unit_test(a_storm_of_puts_leaves_the_last_of_each_place),
        cmocka_unit_test(signals_count_per_peer_index_and_context),
        cmocka_unit_test(a_target_need_not_call_anything),
        cmocka_unit_test(deregistering_waits_for_puts_under_way),
        cmocka_unit_test(puts_by_different_ways_arrive_in_order),
        cmocka_unit_test(a_group_runs_puts_waits_and_the_rest_together),
        cmocka_unit_test(one_thread_drives_all_ranks),
        cmocka_unit_test(a_split_communicator_has_windows_of_its_own),
        cmocka_unit_test(a_mistake_is_named_and_the_communicator_works_on),
        cmocka_unit_test(waiting_for_a_rank_that_is_gone_ends_with_its_name),
        cmocka_unit_test(putting_to_a_rank_that_is_gone_ends_with_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
