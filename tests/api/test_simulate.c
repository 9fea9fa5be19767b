/* test_simulate.c - ncclGroupSimulateEnd: the group ends, nothing runs, the prediction grows with what was asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nccl.h"

enum { RANKS = 4, MOST = 1 << 20 };
static ncclComm_t comms[RANKS];
static float *in, *out;

#define OK(call) assert_int_equal((call), ncclSuccess)

static int setup(void **state)
{
    (void)state;
    in = calloc((size_t)MOST * RANKS, sizeof *in);
    out = calloc((size_t)MOST * RANKS, sizeof *out);
    return in && out && ncclCommInitAll(comms, RANKS, NULL) == ncclSuccess ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    ncclGroupStart();
    for (int r = 0; r < RANKS; r++) ncclCommFinalize(comms[r]);
    ncclGroupEnd();
    for (int r = 0; r < RANKS; r++) ncclCommDestroy(comms[r]);
    free(in);
    free(out);
    return 0;
}

/* Microseconds; of what stands between the braces of a group that only rank 0 calls. */
static float predicted(void)
{
    ncclSimInfo_t info = NCCL_SIM_INFO_INITIALIZER;
    OK(ncclGroupSimulateEnd(&info));
    assert_true(info.estimatedTime >= 0);
    return info.estimatedTime;
}

static float of_allreduce(size_t count, int times)
{
    OK(ncclGroupStart());
    for (int i = 0; i < times; i++) OK(ncclAllReduce(in, out, count, ncclFloat32, ncclSum, comms[0], NULL));
    return predicted();
}

static void nothing_runs_and_nobody_else_is_needed(void **state)
{
    (void)state;
    in[0] = 3, out[0] = -7;
    assert_true(of_allreduce(1000, 1) > 0);
    assert_true(out[0] == -7);
    /* All ranks are in step afterwards: the next real call matches. */
    OK(ncclGroupStart());
    for (int r = 0; r < RANKS; r++)
        OK(ncclAllReduce(in + (size_t)r * MOST, out + (size_t)r * MOST, 1, ncclFloat32, ncclSum, comms[r], NULL));
    OK(ncclGroupEnd());
    assert_true(out[0] == 3);
}

static void more_bytes_and_more_calls_take_longer(void **state)
{
    (void)state;
    float small = of_allreduce(1, 1), medium = of_allreduce(MOST / 16, 1), large = of_allreduce(MOST, 1);
    assert_true(small < medium && medium < large);
    assert_true(large > 8 * medium && large < 20 * medium); /* bytes rule: sixteen times as many */
    float three = of_allreduce(MOST, 3);
    assert_true(three > 2.99f * large && three < 3.01f * large);
}

static void every_collective_is_predicted(void **state)
{
    (void)state;
    float t[8];
    ncclComm_t c = comms[1];
    OK(ncclGroupStart()), OK(ncclBroadcast(in, out, MOST, ncclFloat32, 0, c, NULL)), t[0] = predicted();
    OK(ncclGroupStart()), OK(ncclReduce(in, out, MOST, ncclFloat32, ncclMax, 3, c, NULL)), t[1] = predicted();
    OK(ncclGroupStart()), OK(ncclAllGather(in, out, MOST, ncclFloat32, c, NULL)), t[2] = predicted();
    OK(ncclGroupStart()), OK(ncclReduceScatter(in, out, MOST, ncclFloat32, ncclSum, c, NULL)), t[3] = predicted();
    OK(ncclGroupStart()), OK(ncclAlltoAll(in, out, MOST, ncclFloat32, c, NULL)), t[4] = predicted();
    OK(ncclGroupStart()), OK(ncclGather(in, out, MOST, ncclFloat32, 0, c, NULL)), t[5] = predicted();
    OK(ncclGroupStart()), OK(ncclScatter(in, out, MOST, ncclFloat32, 0, c, NULL)), t[6] = predicted();
    OK(ncclGroupStart()), OK(ncclAllReduce(in, out, 0, ncclFloat32, ncclSum, c, NULL)), t[7] = predicted();
    for (int i = 0; i < 7; i++) assert_true(t[i] > 10); /* 4 MiB and more cannot take 10 us */
    assert_true(t[2] > 1.5f * t[0]); /* four blocks against one, which the root copies after the others */
    assert_true(t[7] == 0);       /* no elements */
}

static void messages_are_predicted_beside_collectives(void **state)
{
    (void)state;
    OK(ncclGroupStart());
    OK(ncclSend(in, MOST, ncclFloat32, 1, comms[0], NULL));
    OK(ncclRecv(out, MOST, ncclFloat32, 3, comms[0], NULL));
    float both = predicted();
    OK(ncclGroupStart());
    OK(ncclSend(in, MOST, ncclFloat32, 1, comms[0], NULL));
    float one = predicted();
    assert_true(one > 10 && both > 1.5f * one && both < 2.5f * one);
    OK(ncclGroupStart());
    OK(ncclSend(in, 1, ncclFloat32, 1, comms[0], NULL));
    OK(ncclAllReduce(in, out, MOST, ncclFloat32, ncclSum, comms[0], NULL));
    assert_true(predicted() == of_allreduce(MOST, 1)); /* side by side: the longer one counts */
}

static void groups_nest(void **state)
{
    (void)state;
    ncclSimInfo_t inner = NCCL_SIM_INFO_INITIALIZER;
    OK(ncclGroupStart());
    OK(ncclGroupStart());
    OK(ncclAllReduce(in, out, 1000, ncclFloat32, ncclSum, comms[0], NULL));
    OK(ncclGroupSimulateEnd(&inner));
    assert_true(inner.estimatedTime == NCCL_UNDEF_FLOAT);
    assert_true(predicted() > 0);
    assert_true(of_allreduce(1000, 0) == 0); /* and the group was empty again */
}

static void what_is_wrong_is_refused_by_name(void **state)
{
    (void)state;
    ncclSimInfo_t good = NCCL_SIM_INFO_INITIALIZER, bad = good;
    assert_int_equal(ncclGroupSimulateEnd(&good), ncclInvalidUsage);
    assert_non_null(strstr(ncclGetLastError(NULL), "no open group"));
    OK(ncclGroupStart());
    assert_int_equal(ncclGroupSimulateEnd(NULL), ncclInvalidArgument);
    bad.magic = 1;
    assert_int_equal(ncclGroupSimulateEnd(&bad), ncclInvalidArgument);
    assert_non_null(strstr(ncclGetLastError(NULL), "magic 0x1"));
    bad = good, bad.size = 8;
    assert_int_equal(ncclGroupSimulateEnd(&bad), ncclInvalidArgument);
    bad = good, bad.version = 21000;
    assert_int_equal(ncclGroupSimulateEnd(&bad), ncclInvalidArgument);
    bad = good, bad.size = sizeof bad + 64, bad.version = NCCL_VERSION_CODE + 1000; /* a later one, larger */
    OK(ncclGroupSimulateEnd(&bad));

    OK(ncclGroupStart()); /* a call that fails inside refuses the group */
    assert_int_equal(ncclAllReduce(in, out, 1, (ncclDataType_t)77, ncclSum, comms[0], NULL), ncclInvalidArgument);
    assert_int_equal(ncclGroupSimulateEnd(&good), ncclInvalidArgument);
    assert_non_null(strstr(ncclGetLastError(NULL), "77"));

    ncclUniqueId id;
    ncclComm_t made = NULL;
    OK(ncclGetUniqueId(&id));
    OK(ncclGroupStart());
    (void)ncclCommInitRank(&made, 1, id, 0);
    assert_int_equal(ncclGroupSimulateEnd(&good), ncclInvalidUsage);
    assert_non_null(strstr(ncclGetLastError(NULL), "making communicators"));
    assert_true(good.estimatedTime == NCCL_UNDEF_FLOAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_runs_and_nobody_else_is_needed),
        cmocka_unit_test(more_bytes_and_more_calls_take_longer),
        cmocka_unit_test(every_collective_is_predicted),
        cmocka_unit_test(messages_are_predicted_beside_collectives),
        cmocka_unit_test(groups_nest),
        cmocka_unit_test(what_is_wrong_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
