/* What every door keeps: the texts, the results, errno, and honesty about what is not there. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "api/door.h"
#include "nccl_device.h"
#include "railccl.h"

static void version_is_nccl_2_30_7(void **state)
{
    (void)state;
    int version = 0;
    assert_int_equal(ncclGetVersion(&version), ncclSuccess);
    assert_int_equal(version, 23007);
    assert_int_equal(ncclGetVersion(NULL), ncclInvalidArgument);
    assert_non_null(strstr(ncclGetLastError(NULL), "ncclGetVersion"));
    assert_true(strlen(railGetVersion()) > 0);
}

static void error_strings_are_nccl_s_letter_by_letter(void **state)
{
    (void)state;
    static const struct { int result; const char *text; } texts[] = {
        {0, "no error"},
        {1, "unhandled cuda error (run with NCCL_DEBUG=INFO for details)"},
        {2, "unhandled system error (run with NCCL_DEBUG=INFO for details)"},
        {3, "internal error - please report this issue to the NCCL developers"},
        {4, "invalid argument (run with NCCL_DEBUG=WARN for details)"},
        {5, "invalid usage (run with NCCL_DEBUG=WARN for details)"},
        {6, "remote process exited or there was a network error"},
        {7, "NCCL operation in progress"},
        {8, "timeout"},
        {9, "unknown result code"},
        {-1, "unknown result code"},
        {INT32_MAX, "unknown result code"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_string_equal(ncclGetErrorString((ncclResult_t)texts[i].result), texts[i].text);
}

static void results_translate_and_8_never_comes_out(void **state)
{
    (void)state;
    static const struct { enum rail_result inside; ncclResult_t outside; } pairs[] = {
        {RAIL_OK, ncclSuccess}, {RAIL_NOT_YET, ncclInternalError}, {RAIL_E_CUDA, ncclUnhandledCudaError},
        {RAIL_E_SYSTEM, ncclSystemError}, {RAIL_E_INTERNAL, ncclInternalError}, {RAIL_E_ARGUMENT, ncclInvalidArgument},
        {RAIL_E_USAGE, ncclInvalidUsage}, {RAIL_E_REMOTE, ncclRemoteError}, {RAIL_E_TIMEOUT, ncclRemoteError},
        {RAIL_E_ABORTED, ncclInvalidUsage}, {RAIL_IN_PROGRESS, ncclInProgress},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        assert_int_equal(door_result(pairs[i].inside), pairs[i].outside);
    for (int r = -2; r < 64; r++) assert_in_range(door_result((enum rail_result)r), 0, 7);
}

static void doors_leave_errno_alone(void **state)
{
    (void)state;
    struct door door;
    errno = EXDEV;
    door = door_open();
    errno = EIO;
    assert_int_equal(door_close(door, RAIL_E_SYSTEM), ncclSystemError);
    assert_int_equal(errno, EXDEV);

    int version;
    errno = EXDEV;
    (void)ncclGetVersion(&version);
    (void)ncclGetVersion(NULL);
    (void)ncclGetErrorString(ncclSystemError);
    (void)ncclGetLastError(NULL);
    (void)ncclCommSplit(NULL, 0, 0, NULL, NULL);
    (void)ncclDevCommCreate(NULL, NULL, NULL);
    assert_int_equal(errno, EXDEV);
}

static void *read_last_error(void *into)
{
    strncpy(into, ncclGetLastError(NULL), 511);
    return NULL;
}

static void last_error_is_never_null_and_is_seen_by_other_threads(void **state)
{
    (void)state;
    char seen[512] = "";
    assert_non_null(ncclGetLastError(NULL));
    (void)ncclGetVersion(NULL);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, read_last_error, seen), 0);
    pthread_join(thread, NULL);
    assert_non_null(strstr(seen, "ncclGetVersion"));
}

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static void the_log_may_be_restarted_at_any_time(void **state)
{
    (void)state;
    errno = EXDEV;
    ncclResetDebugInit();
    ncclResetDebugInit();
    assert_int_equal(errno, EXDEV);
}

/* Says no, by name, in words that say what is missing and what to do; a second sentence after "; ". */
static void says_no(const char *name, ncclResult_t result)
{
    const char *text = ncclGetLastError(NULL);
    if (result != ncclInvalidUsage) fail_msg("%s answers %d", name, (int)result);
    if (strncmp(text, name, strlen(name)) != 0 || text[strlen(name)] != ':') fail_msg("%s says \"%s\"", name, text);
    if (strstr(text, "this release ") == NULL || strstr(text, "; ") == NULL) fail_msg("%s says \"%s\"", name, text);
}

#define NO(name, ...) says_no(#name, name(__VA_ARGS__)), says_no(#name, p##name(__VA_ARGS__))

static void device_calls_say_so_and_return_nothing_that_looks_real(void **state)
{
    (void)state;
    ncclTeam_t team = {1, 0, 1};
    ncclMultimemHandle_t multimem = {NULL};
    NO(ncclDevCommCreate, NULL, NULL, NULL);
    NO(ncclDevCommDestroy, NULL, NULL);
    NO(ncclGetLsaMultimemDevicePointer, NULL, 0, NULL);
    NO(ncclGetMultimemDevicePointer, NULL, 0, multimem, NULL);
    NO(ncclGetLsaDevicePointer, NULL, 0, 0, NULL);
    NO(ncclGetPeerDevicePointer, NULL, 0, 0, NULL);
    NO(ncclLsaBarrierCreateRequirement, team, 1, NULL, NULL);
    NO(ncclGinBarrierCreateRequirement, NULL, team, 1, NULL, NULL);
    NO(ncclGinOutboxCreateRequirement, 1, 1, NULL, NULL);
    NO(ncclGinInboxA2ACreateRequirement, team, 1, 1, NULL, NULL);
    NO(ncclLLA2ACreateRequirement, 1, 1, NULL, NULL);
    assert_int_equal(ncclTeamWorld(NULL).nRanks, 0);
    assert_int_equal(ncclTeamLsa(NULL).nRanks, 0);
    assert_int_equal(ncclTeamRail(NULL).nRanks, 0);
    assert_non_null(strstr(ncclGetLastError(NULL), "ncclTeamRail:"));
    assert_int_equal(ncclTeamRankToWorld(NULL, team, 0), -1);
    assert_int_equal(ncclTeamRankToLsa(NULL, team, 0), -1);
    assert_int_equal(ncclLLA2ACalcSlots(1, 8), -1);
    assert_non_null(strstr(ncclGetLastError(NULL), "ncclLLA2ACalcSlots:"));
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(version_is_nccl_2_30_7),
        cmocka_unit_test(error_strings_are_nccl_s_letter_by_letter),
        cmocka_unit_test(results_translate_and_8_never_comes_out),
        cmocka_unit_test(doors_leave_errno_alone),
        cmocka_unit_test(last_error_is_never_null_and_is_seen_by_other_threads),
        cmocka_unit_test(the_log_may_be_restarted_at_any_time),
        cmocka_unit_test(device_calls_say_so_and_return_nothing_that_looks_real),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
