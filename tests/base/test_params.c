/* test_params.c - where values come from, what they may look like, and what is said about those that are wrong. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/params.h"

static char folder[] = "/tmp/railccl_test_params.XXXXXX";
static char etc[300], home[300], named[300], log_path[300];

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

static void forget_everything(void)
{
    for (int i = 0; i < RAIL_PARAM_COUNT; i++) unsetenv(rail_param_name((enum rail_param)i));
    unlink(etc), unlink(home), unlink(named), unlink(log_path);
}

static int each(void **state)
{
    (void)state;
    forget_everything();
    rail_params_reload();
    rail_log_restart();
    return 0;
}

static void log_to_file(void)
{
    setenv("NCCL_DEBUG", "INFO", 1);
    setenv("NCCL_DEBUG_FILE", log_path, 1);
    rail_log_restart();
}

static int times_logged(const char *what)
{
    char text[65536];
    int fd = open(log_path, O_RDONLY | O_CLOEXEC), times = 0;
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    text[n > 0 ? n : 0] = 0;
    for (const char *p = text; (p = strstr(p, what)); p++) times++;
    return times;
}

static void without_any_source_every_value_is_its_default(void **state)
{
    (void)state;
    assert_int_equal(rail_param_int(RAIL_PARAM_INIT_TIMEOUT_S), 120);
    assert_int_equal(rail_param_int(RAIL_PARAM_ONESHOT_MAX_BYTES), -1);
    assert_string_equal(rail_param_str(RAIL_PARAM_DEVICE), "auto");
    assert_null(rail_param_str(RAIL_PARAM_ALGO));
    assert_false(rail_param_bool(RAIL_PARAM_NCCL_SHM_DISABLE));
    for (int i = 0; i < RAIL_PARAM_COUNT; i++) assert_false(rail_param_is_set((enum rail_param)i));
}

static void the_environment_beats_the_user_file_beats_the_system_file(void **state)
{
    (void)state;
    write_file(etc, "NCCL_SOCKET_RETRY_CNT=1\n");
    rail_params_reload();
    assert_int_equal(rail_param_int(RAIL_PARAM_NCCL_SOCKET_RETRY_CNT), 1);
    write_file(home, "NCCL_SOCKET_RETRY_CNT=2\n");
    rail_params_reload();
    assert_int_equal(rail_param_int(RAIL_PARAM_NCCL_SOCKET_RETRY_CNT), 2);
    write_file(named, "NCCL_SOCKET_RETRY_CNT=3\n");
    setenv("NCCL_CONF_FILE", named, 1);
    rail_params_reload();
    assert_int_equal(rail_param_int(RAIL_PARAM_NCCL_SOCKET_RETRY_CNT), 3);
    setenv("NCCL_SOCKET_RETRY_CNT", "4", 1);
    rail_params_reload();
    assert_int_equal(rail_param_int(RAIL_PARAM_NCCL_SOCKET_RETRY_CNT), 4);
    assert_true(rail_param_is_set(RAIL_PARAM_NCCL_SOCKET_RETRY_CNT));
}

static void a_named_file_replaces_the_one_at_home_as_a_whole(void **state)
{
    (void)state;
    write_file(etc, "RAILCCL_WATCH_S=7\n");
    write_file(home, "NCCL_HOSTID=home\n");
    write_file(named, "NCCL_COMM_ID=named:1\n");
    setenv("NCCL_CONF_FILE", named, 1);
    rail_params_reload();
    assert_null(rail_param_str(RAIL_PARAM_NCCL_HOSTID));
    assert_string_equal(rail_param_str(RAIL_PARAM_NCCL_COMM_ID), "named:1");
    assert_int_equal(rail_param_int(RAIL_PARAM_WATCH_S), 7);
}

static void an_empty_value_hides_the_files_and_means_not_set(void **state)
{
    (void)state;
    write_file(home, "NCCL_HOSTID=home\n");
    setenv("NCCL_HOSTID", "", 1);
    rail_params_reload();
    assert_null(rail_param_str(RAIL_PARAM_NCCL_HOSTID));
    assert_false(rail_param_is_set(RAIL_PARAM_NCCL_HOSTID));
}

static void files_may_be_untidy(void **state)
{
    (void)state;
    char *text = malloc(20000), *p = text;
    assert_non_null(text);
    p += sprintf(p, "\n# NCCL_HOSTID=comment\n   # another\r\n  NCCL_HOSTID \t= spaced out \t\r\n=no name\nno equals\n");
    p += sprintf(p, "NCCL_COMM_ID=");
    memset(p, 'x', 6000); /* longer than a line may be */
    p += 6000;
    p += sprintf(p, "\nNCCL_SOCKET_IFNAME==eth0,=eth1\nRAILCCL_WATCH_S=5\nRAILCCL_WATCH_S=6");
    write_file(home, text);
    free(text);
    rail_params_reload();
    assert_string_equal(rail_param_str(RAIL_PARAM_NCCL_HOSTID), "spaced out");
    assert_null(rail_param_str(RAIL_PARAM_NCCL_COMM_ID));
    assert_string_equal(rail_param_str(RAIL_PARAM_NCCL_SOCKET_IFNAME), "=eth0,=eth1");
    assert_int_equal(rail_param_int(RAIL_PARAM_WATCH_S), 6);
}

static void a_pipe_or_a_folder_in_place_of_a_file_is_no_file(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(named, 0600), 0);
    setenv("NCCL_CONF_FILE", named, 1);
    rail_params_reload(); /* would hang */
    assert_int_equal(rail_param_int(RAIL_PARAM_WATCH_S), 30);
    setenv("NCCL_CONF_FILE", folder, 1);
    rail_params_reload();
    assert_int_equal(rail_param_int(RAIL_PARAM_WATCH_S), 30);
}

static void numbers_are_read_as_people_write_them(void **state)
{
    (void)state;
    static const struct { const char *text; int64_t value; bool good; } cases[] = {
        {"0", 0, true},        {"4194304", 4194304, true}, {"4M", 4194304, true},  {"4m", 4194304, true},
        {"4MB", 4194304, true},{"4MiB", 4194304, true},    {"1K", 1024, true},     {"2G", INT64_C(2) << 30, true},
        {"0x10", 16, true},    {"0X1k", 1024, true},       {" 12 ", 12, true},     {"-1", -1, true},
        {"010", 10, true},     {"+5", 5, true},
        {"", -1, true} /* not set */,
        {"four", 0, false},    {"4X", 0, false},           {"4M4", 0, false},      {"1.5M", 0, false},
        {"-2", 0, false},      {"5G", 0, false},           {"0x", 0, false},       {"4 M", 0, false},
        {"99999999999999999999", 0, false},                {"9999999999999G", 0, false}, {"K", 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        setenv("NCCL_BUFFSIZE", cases[i].text, 1);
        rail_params_reload();
        int64_t got = rail_param_int(RAIL_PARAM_NCCL_BUFFSIZE);
        if (got != (cases[i].good ? cases[i].value : -1)) fail_msg("\"%s\" gave %lld", cases[i].text, (long long)got);
        assert_int_equal(rail_param_is_set(RAIL_PARAM_NCCL_BUFFSIZE), cases[i].good && cases[i].text[0]);
    }
}

static void switches_and_choices_are_read_as_people_write_them(void **state)
{
    (void)state;
    static const struct { const char *text; bool value; } switches[] = {
        {"1", true}, {"0", false}, {"true", true}, {"False", false}, {"YES", true}, {"no", false}, {"on", true},
        {"off", false}, {"2", true}, {"maybe", false}, {"-1", false}, {" 1 ", true},
    };
    for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++) {
        setenv("NCCL_SHM_DISABLE", switches[i].text, 1);
        rail_params_reload();
        if (rail_param_bool(RAIL_PARAM_NCCL_SHM_DISABLE) != switches[i].value) fail_msg("\"%s\"", switches[i].text);
    }
    static const struct { const char *text, *value; } choices[] = {
        {"ring", "ring"}, {"RING", "ring"}, {" tree ", "tree"}, {"rin", NULL}, {"rings", NULL}, {"ring|tree", NULL},
        {"oneshot", "oneshot"}, {"|", NULL},
    };
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        setenv("RAILCCL_ALGO", choices[i].text, 1);
        rail_params_reload();
        const char *got = rail_param_str(RAIL_PARAM_ALGO);
        if (choices[i].value)
            assert_string_equal(got, choices[i].value);
        else
            assert_null(got);
    }
}

static void a_bad_value_is_reported_once_with_what_is_allowed(void **state)
{
    (void)state;
    log_to_file();
    setenv("NCCL_SOCKET_NTHREADS", "65", 1);
    setenv("RAILCCL_DEVICE", "tpu", 1);
    rail_params_reload();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(rail_param_int(RAIL_PARAM_NCCL_SOCKET_NTHREADS), -1);
        assert_string_equal(rail_param_str(RAIL_PARAM_DEVICE), "auto");
    }
    assert_int_equal(times_logged("NCCL_SOCKET_NTHREADS=65: not understood; allowed is a number from -1 to 64"), 1);
    assert_int_equal(times_logged("RAILCCL_DEVICE=tpu: not understood; allowed is one of auto|host|cuda; using auto"), 1);
    assert_int_equal(times_logged("WARN"), 2);
}

static void what_was_set_is_reported_once_without_secrets(void **state)
{
    (void)state;
    write_file(home, "RAILCCL_WATCH_S=9\n");
    setenv("RAILCCL_SECRET", "xyzzy", 1);
    log_to_file();
    rail_params_reload();
    rail_params_report_set();
    rail_params_report_set();
    assert_int_equal(times_logged("RAILCCL_WATCH_S set to 9 by "), 1);
    assert_int_equal(times_logged(".nccl.conf"), 1);
    assert_int_equal(times_logged("RAILCCL_SECRET set to (not shown) by the environment"), 1);
    assert_int_equal(times_logged("xyzzy"), 0);
    char buffer[64];
    assert_string_equal(rail_param_text(RAIL_PARAM_SECRET, buffer, sizeof buffer), "(not shown)");
    assert_string_equal(rail_param_text(RAIL_PARAM_ALGO, buffer, sizeof buffer), "(unset)");
    assert_string_equal(rail_param_text(RAIL_PARAM_WATCH_S, buffer, sizeof buffer), "9");
}

static void variables_without_effect_are_named_once(void **state)
{
    (void)state;
    setenv("NCCL_IB_FIFO_TC", "mlx5", 1);
    setenv("NCCL_FROM_THE_FUTURE", "1", 1);
    setenv("RAILCCL_WACTH_S", "1", 1);
    setenv("RAILCCL_TEST_LONG", "0", 1);
    setenv("RAILCCL_LOCAL_RANK", "3", 1); /* the launcher's, and what it sets everywhere */
    setenv("RAILCCL_LOCAL_RANKS", "3", 1);
    setenv("NCCL_TESTS_DEVICE", "1", 1);
    log_to_file();
    rail_params_reload();
    rail_params_report_ignored();
    rail_params_report_ignored();
    assert_int_equal(times_logged("NCCL_IB_FIFO_TC (set by the environment) has no effect in railccl: "), 1);
    assert_int_equal(times_logged("NCCL_FROM_THE_FUTURE is set, but"), 1);
    assert_int_equal(times_logged("RAILCCL_WACTH_S is set, but"), 1);
    assert_int_equal(times_logged("RAILCCL_LOCAL_RANKS is set, but"), 1);
    assert_int_equal(times_logged("RAILCCL_LOCAL_RANK is"), 0);
    assert_int_equal(times_logged("NCCL_TESTS_DEVICE"), 0);
    assert_int_equal(times_logged("RAILCCL_TEST_LONG"), 0);
    assert_int_equal(times_logged("NCCL_DEBUG "), 0);
    unsetenv("NCCL_FROM_THE_FUTURE");
    unsetenv("RAILCCL_WACTH_S");
    unsetenv("RAILCCL_LOCAL_RANK");
    unsetenv("RAILCCL_LOCAL_RANKS");
    unsetenv("NCCL_TESTS_DEVICE");
}

/* Sets `text`, returns whether the agreed hash changed from that of the defaults. */
static bool changes_hash(const char *name, const char *text)
{
    unsetenv(name);
    rail_params_reload();
    uint64_t before = rail_params_agreed_hash();
    setenv(name, text, 1);
    rail_params_reload();
    uint64_t after = rail_params_agreed_hash();
    unsetenv(name);
    return before != after;
}

static void the_hash_sees_agreed_values_only_and_values_not_spellings(void **state)
{
    (void)state;
    assert_true(changes_hash("RAILCCL_NET_CHANNELS", "2"));
    assert_true(changes_hash("NCCL_SHM_DISABLE", "1"));
    assert_true(changes_hash("NCCL_ALGO", "ring"));
    assert_true(changes_hash("RAILCCL_ALGO", "ring"));
    assert_true(changes_hash("RAILCCL_TREE_MAX_BYTES", "0"));
    assert_false(changes_hash("NCCL_SHM_DISABLE", "0"));        /* the default, said aloud */
    assert_false(changes_hash("NCCL_SOCKET_IFNAME", "eth0"));   /* local */
    assert_false(changes_hash("NCCL_IB_SL", "mlx5"));          /* ignored */
    assert_false(changes_hash("NCCL_SHM_DISABLE", "rubbish"));  /* not understood: default */
    setenv("RAILCCL_ONESHOT_MAX_BYTES", "1M", 1);
    rail_params_reload();
    uint64_t one = rail_param_hash(RAIL_PARAM_ONESHOT_MAX_BYTES);
    setenv("RAILCCL_ONESHOT_MAX_BYTES", "0x100000", 1);
    setenv("RAILCCL_TWOSHOT_MAX_BYTES", "1M", 1);
    rail_params_reload();
    assert_true(rail_param_hash(RAIL_PARAM_ONESHOT_MAX_BYTES) == one);
    assert_true(rail_param_hash(RAIL_PARAM_TWOSHOT_MAX_BYTES) != one);
}

static void texts_stay_valid_after_a_reload(void **state)
{
    (void)state;
    setenv("NCCL_HOSTID", "first", 1);
    rail_params_reload();
    const char *first = rail_param_str(RAIL_PARAM_NCCL_HOSTID);
    setenv("NCCL_HOSTID", "second", 1);
    rail_params_reload();
    assert_string_equal(first, "first");
    assert_string_equal(rail_param_str(RAIL_PARAM_NCCL_HOSTID), "second");
}

static void read_now_sees_what_reading_once_does_not(void **state)
{
    (void)state;
    assert_null(rail_param_str(RAIL_PARAM_NCCL_HOSTID));
    setenv("NCCL_HOSTID", "late", 1);
    assert_null(rail_param_str(RAIL_PARAM_NCCL_HOSTID));
    char *now = rail_param_read_now(RAIL_PARAM_NCCL_HOSTID);
    assert_string_equal(now, "late");
    free(now);
    assert_null(rail_param_read_now(RAIL_PARAM_NCCL_COMM_ID));
}

static void names_are_unique_and_every_default_is_allowed(void **state)
{
    (void)state;
    for (int i = 0; i < RAIL_PARAM_COUNT; i++) {
        const char *name = rail_param_name((enum rail_param)i);
        assert_true(strncmp(name, "NCCL_", 5) == 0 || strncmp(name, "RAILCCL_", 8) == 0);
        for (int j = 0; j < i; j++) assert_string_not_equal(name, rail_param_name((enum rail_param)j));
        if (strncmp(name, "RAILCCL_", 8) == 0) assert_int_not_equal(rail_param_effect_of((enum rail_param)i), RAIL_IGNORED);
    }
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(etc, sizeof etc, "%s/etc", folder);
    snprintf(home, sizeof home, "%s/.nccl.conf", folder);
    snprintf(named, sizeof named, "%s/named", folder);
    snprintf(log_path, sizeof log_path, "%s/log", folder);
    setenv("HOME", folder, 1);
    rail_params_system_file(etc);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    forget_everything();
    return rmdir(folder);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup(name, each)
    const struct CMUnitTest tests[] = {
        CASE(without_any_source_every_value_is_its_default),
        CASE(the_environment_beats_the_user_file_beats_the_system_file),
        CASE(a_named_file_replaces_the_one_at_home_as_a_whole),
        CASE(an_empty_value_hides_the_files_and_means_not_set),
        CASE(files_may_be_untidy),
        CASE(a_pipe_or_a_folder_in_place_of_a_file_is_no_file),
        CASE(numbers_are_read_as_people_write_them),
        CASE(switches_and_choices_are_read_as_people_write_them),
        CASE(a_bad_value_is_reported_once_with_what_is_allowed),
        CASE(what_was_set_is_reported_once_without_secrets),
        CASE(variables_without_effect_are_named_once),
        CASE(the_hash_sees_agreed_values_only_and_values_not_spellings),
        CASE(texts_stay_valid_after_a_reload),
        CASE(read_now_sees_what_reading_once_does_not),
        CASE(names_are_unique_and_every_default_is_allowed),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
