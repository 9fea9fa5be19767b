/* RAILCCL_DIGEST: ranks find the first call whose shared result differs when they close, and name it and the ranks. No
 * plan gives ranks different bits, so a difference is planted where a result is noted: one rank notes a byte more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/comm_handle.h"
#include "base/params.h"
#include "core/comm.h"
#include "device/host.h"
#include "engine/signature.h"
#include "support/trouble.h"

/* ---- the hash ---- */

static void one_changed_byte_always_shows(void **state)
{
    (void)state;
    unsigned char data[300], other[300];
    for (size_t k = 0; k < sizeof data; k++) data[k] = (unsigned char)(k * 7);
    for (size_t bytes = 0; bytes < sizeof data; bytes++) {
        uint64_t digest = rail_digest(data, bytes);
        memcpy(other + sizeof data - bytes, data, bytes); /* any alignment */
        assert_int_equal(rail_digest(other + sizeof data - bytes, bytes), digest);
        for (size_t k = 0; k < bytes; k++)
            for (unsigned bit = 1; bit < 256; bit *= 2) {
                data[k] = (unsigned char)(data[k] ^ bit);
                assert_int_not_equal(rail_digest(data, bytes), digest);
                data[k] = (unsigned char)(data[k] ^ bit);
            }
    }
    static const unsigned char zeros[300];
    for (size_t bytes = 1; bytes < sizeof zeros; bytes++)
        assert_int_not_equal(rail_digest(zeros, bytes), rail_digest(zeros, bytes - 1));
}

/* ---- among ranks ---- */

struct plant {
    int at;    /* the call before which a rank notes something else; 0: none */
    int rank;
    int calls; /* AllReduces, then some others */
};

static ncclResult_t other_collectives(ncclComm_t comm, int n)
{
    float *a = calloc(1000 * (size_t)n, sizeof *a), *b = calloc(1000 * (size_t)n, sizeof *b);
    ncclResult_t result = ncclBroadcast(a, b, 1000, ncclFloat32, n - 1, comm, NULL);
    if (result == ncclSuccess) result = ncclGroupStart();
    if (result == ncclSuccess) result = ncclAllGather(a, b, 1000, ncclFloat32, comm, NULL);
    if (result == ncclSuccess) result = ncclReduce(a, a, 1000, ncclFloat32, ncclSum, 0, comm, NULL);
    if (result == ncclSuccess) result = ncclGroupEnd();
    if (result == ncclSuccess) result = ncclReduceScatter(b, a, 1000, ncclFloat32, ncclMax, comm, NULL);
    if (result == ncclSuccess) result = ncclScatter(b, a, 0, ncclFloat32, 0, comm, NULL);
    free(a);
    free(b);
    return result;
}

static void planted(struct job_rank *rank)
{
    const struct plant *p = rank->arg;
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    struct comm *comm = comm_of(rank->comm);
    JOB_EXPECT(comm->digest, "no digest is kept");
    JOB_TRY(other_collectives(rank->comm, rank->n_ranks)); /* five */
    for (int k = 1; k <= p->calls; k++) {
        uint64_t signature = signature_make(signature_collective(PLAN_ALLREDUCE), ncclFloat32, 0, 0, (uint64_t)k);
        const char *note = k == p->at && rank->rank == p->rank ? "wrong" : "right";
        if (p->at) digest_note(comm->digest, signature, note, 5, true);
        else JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, (size_t)k));
    }
    ncclResult_t result = ncclCommFinalize(rank->comm);
    char words[128];
    bool older = p->at && p->calls - p->at >= DIGEST_KEPT;
    if (older) snprintf(words, sizeof words, "at or before call|rank %d, not", p->rank);
    else snprintf(words, sizeof words, "first at call %d, AllReduce of %d float32, sum: rank %d, not", p->at + 5, p->at, p->rank);
    if (p->at ? !trouble_says(rank, "finalize", result, ncclInternalError, words) : result != ncclSuccess)
        job_fail(rank, "finalize: %d, %s", (int)result, ncclGetLastError(NULL));
    JOB_TRY(ncclCommDestroy(rank->comm));
}

static const char *const on[] = {"RAILCCL_DIGEST=1", NULL};

static void all_placements(struct plant p)
{
    static const int placed[][3] = {{2, 1, 1}, {5, 1, 1}, {3, 3, 1}, {4, 1, 2}, {5, 2, 3}, {8, 1, 8}};
    for (size_t i = 0; i < sizeof placed / sizeof *placed; i++) {
        struct job job = {.n_ranks = placed[i][0], .ranks_per_process = placed[i][1], .n_hosts = placed[i][2], .env = on, .bare = true};
        if (p.rank >= job.n_ranks) p.rank = job.n_ranks - 1;
        if (p.at && job.n_ranks == 2) continue; /* of two, neither is the majority */
        job_must(&job, planted, &p);
    }
}

static void ranks_that_agree_close_in_peace(void **state) { (void)state; all_placements((struct plant){.calls = 40}); }
static void the_first_difference_is_named_on_every_rank(void **state)
{
    (void)state;
    all_placements((struct plant){.at = 1, .rank = 1, .calls = 1});
    all_placements((struct plant){.at = 1, .rank = 0, .calls = 100});
    all_placements((struct plant){.at = 67, .rank = 2, .calls = 100});
    all_placements((struct plant){.at = 3000, .rank = 4, .calls = 9000 - 3000});
}
static void what_is_no_longer_kept_is_named_as_older(void **state)
{
    (void)state;
    all_placements((struct plant){.at = 3, .rank = 1, .calls = 3 * DIGEST_KEPT});
}

/* A rank that never closes must not hold the others for long, and is no difference. */
static void one_stays(struct job_rank *rank)
{
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 100));
    if (rank->rank == 1) {
        trouble_sleep_s(7);
        JOB_TRY(ncclCommAbort(rank->comm));
        return;
    }
    double start_s = trouble_now_s();
    ncclResult_t result = ncclCommDestroy(rank->comm);
    JOB_EXPECT(result == ncclSuccess, "destroy: %d, %s", (int)result, ncclGetLastError(NULL));
    JOB_EXPECT(trouble_now_s() - start_s < 20, "took %.1f s", trouble_now_s() - start_s);
}

static void a_rank_that_does_not_close_is_not_awaited_for_long(void **state)
{
    (void)state;
    struct job job = {.n_ranks = 3, .ranks_per_process = 1, .env = on, .bare = true};
    job_must(&job, one_stays, NULL);
}

/* ---- the file ---- */

static char path[64];

static void into_a_file(struct job_rank *rank)
{
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 10));
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 100));
    JOB_TRY(other_collectives(rank->comm, rank->n_ranks));
    JOB_TRY(ncclCommDestroy(rank->comm));
}

static void every_call_is_a_line(void **state)
{
    (void)state;
    char setting[128], name[128], line[256];
    snprintf(path, sizeof path, "/tmp/railccl-digest-%ld", (long)getpid());
    snprintf(setting, sizeof setting, "RAILCCL_DIGEST_FILE=%s.%%r", path);
    const char *env[] = {setting, NULL};
    struct job job = {.n_ranks = 3, .ranks_per_process = 1, .env = env, .bare = true};
    job_must(&job, into_a_file, NULL);
    static const char *const words[] = {"AllReduce of 10 float32, sum", "AllReduce of 100 float32, sum",
                                        "Broadcast of 1000 float32, root 2", "AllGather of 1000 float32",
                                        "Reduce of 1000 float32, sum, root 0", "ReduceScatter of 1000 float32, max",
                                        "Scatter of 0 float32, root 0"};
    for (int r = 0; r < 3; r++) {
        snprintf(name, sizeof name, "%s.%d", path, r);
        FILE *file = fopen(name, "r");
        assert_non_null(file);
        for (unsigned k = 0; k < sizeof words / sizeof *words; k++) {
            char head[64];
            assert_non_null(fgets(line, sizeof line, file));
            line[strcspn(line, "\n")] = 0;
            snprintf(head, sizeof head, "0 %d/3 %u ", r, k + 1);
            assert_int_equal(strncmp(line, head, strlen(head)), 0);
            assert_string_equal(strchr(line + strlen(head), ' ') + 1, words[k]);
            bool nothing = k == 6 || (k == 4 && r != 0);
            assert_int_equal(line[strlen(head)] == '-', nothing);
        }
        assert_null(fgets(line, sizeof line, file));
        fclose(file);
        unlink(name);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_changed_byte_always_shows),
        cmocka_unit_test(ranks_that_agree_close_in_peace),
        cmocka_unit_test(the_first_difference_is_named_on_every_rank),
        cmocka_unit_test(what_is_no_longer_kept_is_named_as_older),
        cmocka_unit_test(a_rank_that_does_not_close_is_not_awaited_for_long),
        cmocka_unit_test(every_call_is_a_line),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
