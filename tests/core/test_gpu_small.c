/* Small collectives of GPU ranks, which take one hop (engine/kernel_express.h), over the emulated driver or, with
 * RAILCCL_TEST_GPU=1, the machine's own: replayed a thousand times with another input each time, between larger ones, aborted,
 * mismatched, with a peer that has closed. That results are right in every placement shows tests/conformance. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <nccl.h>

#include "base/clock.h"
#include "device/cuda/cuda.h"
#include "support/gpu.h"
#include "support/gpu_graphs.h"

enum { N = 4, MOST = 4096 / sizeof(float), LARGE = 5000 };

/* Ranks of one thread, one device each. */
struct gang {
    int n;
    ncclComm_t comm[N];
    cu_stream stream[N];
    float *in[N], *out[N];
};

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        ncclResult_t result_ = (call);                                                                                 \
        if (result_ != ncclSuccess) fail_msg("%s: %s: %s", #call, ncclGetErrorString(result_), ncclGetLastError(NULL)); \
    } while (0)

static void on(int device)
{
    const char *why = "";
    if (!gpu_set(device, &why)) fail_msg("%s", why);
}

static void gang_open(struct gang *g, int n)
{
    *g = (struct gang){.n = n};
    OK(ncclCommInitAll(g->comm, n, NULL));
    for (int r = 0; r < n; r++) {
        on(r);
        g->stream[r] = gpu_stream();
        g->in[r] = gpu_alloc(LARGE * sizeof(float));
        g->out[r] = gpu_alloc(LARGE * sizeof(float));
    }
}

static void gang_close(struct gang *g)
{
    for (int r = 0; r < g->n; r++) {
        on(r);
        if (g->comm[r]) OK(ncclCommDestroy(g->comm[r]));
        gpu_stream_end(g->stream[r]);
        gpu_free(g->in[r]);
        gpu_free(g->out[r]);
    }
}

static void fill(struct gang *g, int rank, size_t count, float value)
{
    float host[LARGE];
    gpu_wait(g->stream[rank]);
    for (size_t k = 0; k < count; k++) host[k] = value + (float)(k % 16);
    gpu_copy_in(g->in[rank], host, count * sizeof(float));
}

static void all_reduce(struct gang *g, int rank, size_t count)
{
    on(rank);
    OK(ncclAllReduce(g->in[rank], g->out[rank], count, ncclFloat32, ncclSum, g->comm[rank], g->stream[rank]));
}

/* The sum of first + rank .. over all ranks at each. */
static void expect_sum(struct gang *g, size_t count, float first)
{
    float host[LARGE];
    for (int r = 0; r < g->n; r++) {
        on(r);
        gpu_wait(g->stream[r]);
        gpu_copy_out(host, g->out[r], count * sizeof(float));
        for (size_t k = 0; k < count; k++) {
            float wanted = 0;
            for (int q = 0; q < g->n; q++) wanted += first + (float)q + (float)(k % 16);
            if (host[k] != wanted) fail_msg("rank %d, element %zu: %g instead of %g", r, k, (double)host[k], (double)wanted);
        }
    }
}

/* Until the ranks' calls have failed: what they say holds all `words`. */
static void expect_told(struct gang *g, int rank, ncclResult_t wanted, const char *const words[2])
{
    ncclResult_t error = ncclSuccess;
    uint64_t until_ns = rail_now_ns() + 5 * RAIL_NS_PER_S;
    for (; rail_now_ns() < until_ns && error == ncclSuccess; usleep(1000)) OK(ncclCommGetAsyncError(g->comm[rank], &error));
    assert_int_equal(error, wanted);
    for (int k = 0; k < 2; k++)
        if (!strstr(ncclGetLastError(NULL), words[k])) fail_msg("no \"%s\" in: %s", words[k], ncclGetLastError(NULL));
    on(rank);
    OK(ncclCommAbort(g->comm[rank]));
    g->comm[rank] = NULL;
    gpu_wait(g->stream[rank]); /* the kernel gave up */
}

/* ---- what works ---- */

static void small_and_large_ones_take_turns(void **state)
{
    (void)state;
    static const size_t counts[] = {1, MOST, LARGE, MOST + 1, 2, MOST - 1, LARGE, 777};
    struct gang g;
    for (int n = 2; n <= N; n++) {
        gang_open(&g, n);
        for (int i = 0; i < 24; i++) {
            size_t count = counts[i % 8];
            for (int r = 0; r < n; r++) {
                on(r);
                fill(&g, r, count, (float)(r + i));
            }
            for (int r = n; r-- > 0;) all_reduce(&g, (r + i) % n, count);
            expect_sum(&g, count, (float)i);
        }
        gang_close(&g);
    }
}

/* A call of `count` at each rank, to be launched. */
static void capture(struct gang *g, graph_exec *exec, size_t count)
{
    cu_graph graph;
    for (int r = 0; r < g->n; r++) {
        on(r);
        assert_int_equal(graphs.begin(g->stream[r], CU_CAPTURE_MODE_RELAXED), CU_SUCCESS);
        all_reduce(g, r, count);
        assert_int_equal(graphs.end(g->stream[r], &graph), CU_SUCCESS);
        assert_int_equal(graphs.make(&exec[r], graph, 0), CU_SUCCESS);
        assert_int_equal(graphs.destroy(graph), CU_SUCCESS);
    }
}

static void a_captured_one_is_replayed_a_thousand_times_with_other_inputs(void **state)
{
    (void)state;
    struct gang g;
    graph_exec exec[2];
    graphs_find();
    gang_open(&g, 2);
    capture(&g, exec, 2);
    for (int i = 0; i < 1000; i++) {
        for (int r = 0; r < 2; r++) {
            on(r);
            fill(&g, r, 2, (float)(r + i));
            assert_int_equal(graphs.launch(exec[r], g.stream[r]), CU_SUCCESS);
            if (i % 100 == 50) all_reduce(&g, r, 2); /* eager ones in between, and larger ones */
            if (i % 300 == 299) {
                OK(ncclAllReduce(g.in[r], g.in[r], LARGE, ncclFloat32, ncclMax, g.comm[r], g.stream[r]));
                OK(ncclBroadcast(g.in[r], g.in[r], MOST, ncclFloat32, 1, g.comm[r], g.stream[r]));
            }
        }
        expect_sum(&g, 2, (float)i);
    }
    for (int r = 0; r < 2; r++) {
        on(r);
        assert_int_equal(graphs.exec_destroy(exec[r]), CU_SUCCESS);
    }
    gang_close(&g);
}

/* Many are under way at once: ranks run ahead of one another as far as the kernel lets them. */
static void a_rank_may_enqueue_far_ahead(void **state)
{
    (void)state;
    enum { AHEAD = 200 };
    struct gang g;
    gang_open(&g, 3);
    for (int r = 0; r < 3; r++) fill(&g, r, 64, (float)r);
    for (int r = 0; r < 3; r++)
        for (int i = 0; i < AHEAD; i++) all_reduce(&g, r, i % 2 ? 64 : 3);
    expect_sum(&g, 64, 0);
    gang_close(&g);
}

/* ---- failures ---- */

static void an_abort_stops_one_that_waits(void **state)
{
    (void)state;
    struct gang g;
    gang_open(&g, 2);
    all_reduce(&g, 0, 2); /* rank 1 never calls */
    all_reduce(&g, 0, 2);
    usleep(20000);
    uint64_t began_ns = rail_now_ns();
    OK(ncclCommAbort(g.comm[0]));
    on(0);
    gpu_wait(g.stream[0]);
    uint64_t took_ms = (rail_now_ns() - began_ns) / RAIL_NS_PER_MS;
    if (took_ms > 500) fail_msg("abort, and the kernels' end, took %llu ms", (unsigned long long)took_ms);
    on(1);
    (void)ncclAllReduce(g.in[1], g.out[1], 2, ncclFloat32, ncclSum, g.comm[1], g.stream[1]); /* rank 0's memory may be gone */
    OK(ncclCommAbort(g.comm[1]));
    gpu_wait(g.stream[1]);
    g.comm[0] = g.comm[1] = NULL;
    gang_close(&g);
}

static void ranks_that_call_different_things_are_told(void **state)
{
    (void)state;
    static const size_t counts[][2] = {{2, 3}, {2, MOST}, {2, LARGE}, {LARGE, 2}};
    for (int c = 0; c < 4; c++) {
        char numbers[2][16];
        struct gang g;
        gang_open(&g, 2);
        for (int r = 0; r < 2; r++) {
            all_reduce(&g, r, counts[c][r]);
            snprintf(numbers[r], sizeof numbers[r], " %zu ", counts[c][r]);
        }
        for (int r = 0; r < 2; r++) expect_told(&g, r, ncclInvalidUsage, (const char *const[]){numbers[0], numbers[1]});
        gang_close(&g);
    }
}

static void a_call_to_one_that_has_closed_is_told(void **state)
{
    (void)state;
    struct gang g;
    gang_open(&g, 2);
    for (int r = 0; r < 2; r++) fill(&g, r, 2, (float)r);
    for (int r = 0; r < 2; r++) all_reduce(&g, r, 2);
    expect_sum(&g, 2, 0);
    OK(ncclCommDestroy(g.comm[0]));
    g.comm[0] = NULL;
    all_reduce(&g, 1, 2); /* rank 0's lines are gone */
    expect_told(&g, 1, ncclInvalidUsage, (const char *const[]){"rank 0 closed its communicator", "AllReduce of 2"});
    gang_close(&g);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_and_large_ones_take_turns),
        cmocka_unit_test(a_captured_one_is_replayed_a_thousand_times_with_other_inputs),
        cmocka_unit_test(a_rank_may_enqueue_far_ahead),
        cmocka_unit_test(an_abort_stops_one_that_waits),
        cmocka_unit_test(ranks_that_call_different_things_are_told),
        cmocka_unit_test(a_call_to_one_that_has_closed_is_told),
    };
    gpu_expect(N);
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
