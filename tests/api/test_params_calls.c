/* test_params_calls.c - NCCL's calls that read parameters: by handle, by name, as a list, printed. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/params.h"
#include "nccl.h"

static ncclParamHandle_t bound(const char *key)
{
    ncclParamHandle_t h = NULL;
    assert_int_equal(ncclParamBind(&h, key), ncclSuccess);
    assert_non_null(h);
    return h;
}

/* "KEY=VALUE": as if the process had started with it; NULL: with nothing. */
static void started_with(const char *setting)
{
    for (int i = 0; i < RAIL_PARAM_COUNT; i++) unsetenv(rail_param_name((enum rail_param)i));
    if (setting) {
        char text[200];
        snprintf(text, sizeof text, "%s", setting);
        char *value = strchr(text, '=');
        *value = '\0';
        setenv(text, value + 1, 1);
    }
    rail_params_reload();
}

static void every_type_reads_a_number_that_fits(void **state)
{
    (void)state;
    started_with("NCCL_SOCKET_RETRY_CNT=100");
    ncclParamHandle_t h = bound("NCCL_SOCKET_RETRY_CNT");
    int8_t i8 = 0;
    int16_t i16 = 0;
    int32_t i32 = 0;
    int64_t i64 = 0;
    uint8_t u8 = 0;
    uint16_t u16 = 0;
    uint32_t u32 = 0;
    uint64_t u64 = 0;
    assert_int_equal(ncclParamGetI8(h, &i8) + ncclParamGetI16(h, &i16) + ncclParamGetI32(h, &i32), ncclSuccess);
    assert_int_equal(ncclParamGetI64(h, &i64) + ncclParamGetU8(h, &u8) + ncclParamGetU16(h, &u16), ncclSuccess);
    assert_int_equal(ncclParamGetU32(h, &u32) + ncclParamGetU64(h, &u64), ncclSuccess);
    assert_true(i8 == 100 && i16 == 100 && i32 == 100 && i64 == 100);
    assert_true(u8 == 100 && u16 == 100 && u32 == 100 && u64 == 100);
}

static void limits_of_every_type_are_kept(void **state)
{
    (void)state;
    static const struct { const char *setting; int fits; } cases[] = { /* bits: i8 i16 i32 i64 u8 u16 u32 u64 */
        {"RAILCCL_ONESHOT_MAX_BYTES=-1", 0xf0},        {"RAILCCL_ONESHOT_MAX_BYTES=127", 0xff},
        {"RAILCCL_ONESHOT_MAX_BYTES=128", 0x7f},       {"RAILCCL_ONESHOT_MAX_BYTES=255", 0x7f},
        {"RAILCCL_ONESHOT_MAX_BYTES=256", 0x77},       {"RAILCCL_ONESHOT_MAX_BYTES=32768", 0x37},
        {"RAILCCL_ONESHOT_MAX_BYTES=65536", 0x33},     {"RAILCCL_ONESHOT_MAX_BYTES=2147483648", 0x13},
        {"RAILCCL_ONESHOT_MAX_BYTES=4294967296", 0x11},
    };
    ncclParamHandle_t h = bound("RAILCCL_ONESHOT_MAX_BYTES");
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        started_with(cases[c].setting);
        int8_t i8 = 7;
        int16_t i16 = 7;
        int32_t i32 = 7;
        int64_t i64 = 7;
        uint8_t u8 = 7;
        uint16_t u16 = 7;
        uint32_t u32 = 7;
        uint64_t u64 = 7;
        const ncclResult_t results[] = {
            ncclParamGetI8(h, &i8), ncclParamGetI16(h, &i16), ncclParamGetI32(h, &i32), ncclParamGetI64(h, &i64),
            ncclParamGetU8(h, &u8), ncclParamGetU16(h, &u16), ncclParamGetU32(h, &u32), ncclParamGetU64(h, &u64),
        };
        for (int k = 0; k < 8; k++)
            assert_int_equal(results[k], cases[c].fits >> (7 - k) & 1 ? ncclSuccess : ncclInvalidArgument);
        if (!(cases[c].fits & 0x80)) assert_int_equal(i8, 7); /* left alone */
        if (!(cases[c].fits & 0x01)) assert_true(u64 == 7);
        assert_true(i64 != 7);
    }
}

static void texts_are_no_numbers_and_numbers_are_texts(void **state)
{
    (void)state;
    started_with("NCCL_SOCKET_IFNAME=eth,ib");
    int32_t n = 7;
    const char *text = NULL;
    assert_int_equal(ncclParamGetI32(bound("NCCL_SOCKET_IFNAME"), &n), ncclInvalidArgument);
    assert_non_null(strstr(ncclGetLastError(NULL), "ncclParamGetI32: NCCL_SOCKET_IFNAME is a text"));
    assert_int_equal(n, 7);
    assert_int_equal(ncclParamGetStr(bound("NCCL_SOCKET_IFNAME"), &text), ncclSuccess);
    assert_string_equal(text, "eth,ib");
    assert_int_equal(ncclParamGetStr(bound("NCCL_SOCKET_RETRY_CNT"), &text), ncclSuccess);
    assert_string_equal(text, "34");
    assert_int_equal(ncclParamGetStr(bound("NCCL_HOSTID"), &text), ncclSuccess);
    assert_string_equal(text, ""); /* not set, and without a default */
    assert_int_equal(ncclParamGetI32(bound("NCCL_SHM_DISABLE"), &n), ncclSuccess);
    assert_int_equal(n, 0); /* a switch */
}

static void bytes_are_copied_whole_or_not_at_all(void **state)
{
    (void)state;
    started_with("NCCL_SOCKET_IFNAME=eth");
    char room[16];
    int64_t number = 0;
    int bytes = -5;
    memset(room, 'x', sizeof room);
    assert_int_equal(ncclParamGet(bound("NCCL_SOCKET_IFNAME"), room, 3, &bytes), ncclInvalidArgument);
    assert_true(room[0] == 'x' && bytes == -5);
    assert_non_null(strstr(ncclGetLastError(NULL), "needs 4 bytes, maxLen is 3"));
    assert_int_equal(ncclParamGet(bound("NCCL_SOCKET_IFNAME"), room, 4, &bytes), ncclSuccess);
    assert_string_equal(room, "eth");
    assert_int_equal(bytes, 4);
    assert_int_equal(ncclParamGet(bound("NCCL_SOCKET_RETRY_CNT"), &number, sizeof number, &bytes), ncclSuccess);
    assert_true(number == 34 && bytes == 8);
}

static void by_name_it_is_the_same(void **state)
{
    (void)state;
    started_with("NCCL_DEBUG_SUBSYS=NET,^COLL");
    const char *value = NULL;
    int length = 0;
    assert_int_equal(ncclParamGetParameter("NCCL_DEBUG_SUBSYS", &value, &length), ncclSuccess);
    assert_string_equal(value, "NET,^COLL");
    assert_int_equal(length, 9);
    assert_int_equal(ncclParamGetParameter("RAILCCL_INIT_TIMEOUT_S", &value, NULL), ncclSuccess);
    assert_string_equal(value, "120");
}

static void a_secret_is_not_shown(void **state)
{
    (void)state;
    started_with("RAILCCL_SECRET=swordfish");
    const char *value = NULL;
    assert_int_equal(ncclParamGetParameter("RAILCCL_SECRET", &value, NULL), ncclSuccess);
    assert_null(strstr(value, "swordfish"));
    char room[64];
    int length;
    assert_int_equal(ncclParamGet(bound("RAILCCL_SECRET"), room, sizeof room, &length), ncclSuccess);
    assert_null(strstr(room, "swordfish"));
}

static bool in_list(const char *name, int *how_many)
{
    const char **keys = NULL;
    int n = 0;
    bool found = false;
    assert_int_equal(ncclParamGetAllParameterKeys(&keys, &n), ncclSuccess);
    for (int i = 0; i < n; i++) {
        const char *value;
        assert_int_equal(ncclParamGetParameter(keys[i], &value, NULL), ncclSuccess); /* every name is a key */
        found |= strcmp(keys[i], name) == 0;
    }
    *how_many = n;
    return found;
}

static void the_list_has_what_has_an_effect_or_everything(void **state)
{
    (void)state;
    int some = 0, all = 0;
    started_with(NULL);
    assert_true(in_list("NCCL_DEBUG", &some));
    assert_false(in_list("NCCL_NVLS_ENABLE", &some));
    started_with("NCCL_PARAM_DUMP_ALL=true");
    assert_true(in_list("NCCL_NVLS_ENABLE", &all));
    assert_int_equal(all, RAIL_PARAM_COUNT);
    assert_true(some < all);
}

static void *lists(void *table)
{
    int n;
    return ncclParamGetAllParameterKeys(table, &n) == ncclSuccess ? table : NULL;
}

static void lent_tables_belong_to_the_thread(void **state)
{
    (void)state;
    const char **mine, **other = NULL;
    pthread_t thread;
    void *well;
    assert_non_null(lists(&mine));
    assert_int_equal(pthread_create(&thread, NULL, lists, &other), 0);
    assert_int_equal(pthread_join(thread, &well), 0);
    assert_non_null(well);
    assert_ptr_not_equal(mine, other);
}

static void the_dump_prints_a_line_each_even_without_a_log(void **state)
{
    (void)state;
    started_with("NCCL_SOCKET_IFNAME=eth7");
    unsetenv("NCCL_DEBUG");
    rail_log_restart();
    int ends[2], saved = dup(STDOUT_FILENO);
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    dup2(ends[1], STDOUT_FILENO);
    ncclParamDumpAll();
    dup2(saved, STDOUT_FILENO);
    close(saved), close(ends[1]);
    static char text[65536];
    size_t at = 0;
    for (ssize_t n; (n = read(ends[0], text + at, sizeof text - 1 - at)) > 0;) at += (size_t)n;
    close(ends[0]);
    int lines = 0, some = 0;
    for (size_t i = 0; i < at; i++) lines += text[i] == '\n';
    (void)in_list("", &some);
    assert_int_equal(lines, some);
    assert_non_null(strstr(text, "railccl NCCL_SOCKET_IFNAME=eth7\n"));
    assert_non_null(strstr(text, "railccl RAILCCL_INIT_TIMEOUT_S=120\n"));
}

/* Each is refused by name and writes nothing. */
static void bad_arguments_are_refused(void **state)
{
    (void)state;
    started_with(NULL);
    ncclParamHandle_t h = bound("NCCL_SOCKET_RETRY_CNT"), out = h;
    const char *text = "left alone", **table = NULL;
    int n = 7;
    int64_t i64 = 7;
    int not_a_handle[4] = {0};
#define REFUSED(call, words)                                                                                           \
    assert_int_equal((call), ncclInvalidArgument), assert_non_null(strstr(ncclGetLastError(NULL), words))
    REFUSED(ncclParamBind(NULL, "NCCL_DEBUG"), "ncclParamBind: out NULL");
    REFUSED(ncclParamBind(&out, NULL), "ncclParamBind: key NULL");
    REFUSED(ncclParamBind(&out, "NCCL_NO_SUCH"), "there is no parameter NCCL_NO_SUCH");
    REFUSED(ncclParamBind(&out, ""), "there is no parameter ");
    assert_ptr_equal(out, h);
    REFUSED(ncclParamGetI64(NULL, &i64), "is no handle");
    REFUSED(ncclParamGetI64((ncclParamHandle_t)(void *)not_a_handle, &i64), "is no handle");
    REFUSED(ncclParamGetI64((ncclParamHandle_t)(void *)((char *)h + 1), &i64), "is no handle");
    REFUSED(ncclParamGetI64(h, NULL), "ncclParamGetI64: out NULL");
    REFUSED(ncclParamGetStr(h, NULL), "ncclParamGetStr: out NULL");
    REFUSED(ncclParamGetStr(NULL, &text), "is no handle");
    REFUSED(ncclParamGet(h, &i64, 8, NULL), "ncclParamGet: len NULL");
    REFUSED(ncclParamGet(h, &i64, -1, &n), "needs 8 bytes, maxLen is -1");
    REFUSED(ncclParamGetParameter("NCCL_NO_SUCH", &text, &n), "there is no parameter NCCL_NO_SUCH");
    REFUSED(ncclParamGetParameter("NCCL_DEBUG", NULL, &n), "value NULL");
    REFUSED(ncclParamGetAllParameterKeys(NULL, &n), "table NULL");
    REFUSED(ncclParamGetAllParameterKeys(&table, NULL), "tableLen NULL");
    assert_string_equal(text, "left alone");
    assert_true(n == 7 && i64 == 7 && table == NULL);
}

int main(void)
{
    rail_params_system_file("/nonexistent");
    setenv("HOME", "/nonexistent", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_reads_a_number_that_fits),
        cmocka_unit_test(limits_of_every_type_are_kept),
        cmocka_unit_test(texts_are_no_numbers_and_numbers_are_texts),
        cmocka_unit_test(bytes_are_copied_whole_or_not_at_all),
        cmocka_unit_test(by_name_it_is_the_same),
        cmocka_unit_test(a_secret_is_not_shown),
        cmocka_unit_test(the_list_has_what_has_an_effect_or_everything),
        cmocka_unit_test(lent_tables_belong_to_the_thread),
        cmocka_unit_test(the_dump_prints_a_line_each_even_without_a_log),
        cmocka_unit_test(bad_arguments_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
