/* test_log.c - NCCL_DEBUG and its family, seen from what lands in a file. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/params.h"
#include "base/result.h"

static char folder[] = "/tmp/railccl_test_log.XXXXXX";
static char path[256];
static char content[1 << 18];

static const char *const variables[] = {"NCCL_DEBUG", "NCCL_DEBUG_SUBSYS", "NCCL_DEBUG_FILE",
                                        "NCCL_DEBUG_TIMESTAMP_FORMAT", "NCCL_DEBUG_TIMESTAMP_LEVELS"};

/* Settings as NAME=VALUE texts, NULL at the end; the log starts again with them into an empty file. */
static void begin(const char *const *settings)
{
    for (size_t i = 0; i < 5; i++) unsetenv(variables[i]);
    unlink(path);
    setenv("NCCL_DEBUG_FILE", path, 1);
    for (; settings && *settings; settings++) {
        char name[64];
        size_t bytes = strcspn(*settings, "=");
        snprintf(name, sizeof name, "%.*s", (int)bytes, *settings);
        setenv(name, *settings + bytes + 1, 1);
    }
    rail_log_restart();
}
#define BEGIN(...) begin((const char *const[]){__VA_ARGS__, NULL})

static const char *written_to(const char *file)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, content, sizeof content - 1);
    if (fd >= 0) close(fd);
    content[n > 0 ? n : 0] = 0;
    return content;
}

static bool matches(const char *text, const char *pattern)
{
    regex_t r;
    assert_int_equal(regcomp(&r, pattern, REG_EXTENDED | REG_NOSUB), 0);
    bool yes = regexec(&r, text, 0, NULL, 0) == 0;
    regfree(&r);
    if (!yes) print_error("\"%s\" does not match \"%s\"\n", text, pattern);
    return yes;
}

static void each_level_shows_itself_and_those_below(void **state)
{
    (void)state;
    static const struct { const char *level; bool version, warn, info, abort_, trace; } cases[] = {
        {NULL, 0, 0, 0, 0, 0},      {"", 0, 0, 0, 0, 0},        {"NONE", 0, 0, 0, 0, 0}, {"nonsense", 0, 0, 0, 0, 0},
        {"VERSION", 1, 0, 0, 0, 0}, {"WARN", 1, 1, 0, 0, 0},    {"warn", 1, 1, 0, 0, 0}, {"INFO", 1, 1, 1, 0, 0},
        {"Info", 1, 1, 1, 0, 0},    {"ABORT", 1, 1, 1, 1, 0},   {"TRACE", 1, 1, 1, 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char setting[64];
        snprintf(setting, sizeof setting, "NCCL_DEBUG=%s", cases[i].level ? cases[i].level : "");
        begin((const char *const[]){cases[i].level ? setting : NULL, NULL});
        assert_int_equal(rail_log_enabled(RAIL_LOG_VERSION, 0), cases[i].version);
        assert_int_equal(rail_log_enabled(RAIL_LOG_WARN, 0), cases[i].warn);
        assert_int_equal(rail_log_enabled(RAIL_LOG_INFO, RAIL_INIT), cases[i].info);
        assert_int_equal(rail_log_enabled(RAIL_LOG_ABORT, RAIL_INIT), cases[i].abort_);
        assert_int_equal(rail_log_enabled(RAIL_LOG_TRACE, RAIL_INIT), cases[i].trace);
        RAIL_WARN("a warning");
        RAIL_INFO(RAIL_INIT, "some news");
        const char *text = written_to(path);
        assert_int_equal(strstr(text, "a warning") != NULL, cases[i].warn);
        assert_int_equal(strstr(text, "some news") != NULL, cases[i].info);
    }
}

static void nothing_is_opened_while_nothing_is_logged(void **state)
{
    (void)state;
    begin(NULL);
    RAIL_WARN("x");
    assert_int_equal(access(path, F_OK), -1);
}

static void subsystems_choose_info_lines_but_not_warnings(void **state)
{
    (void)state;
    static const struct { const char *list; uint32_t shown, hidden; } cases[] = {
        {NULL, RAIL_INIT | RAIL_BOOTSTRAP | RAIL_ENV, RAIL_NET | RAIL_COLL | RAIL_DESTROY},
        {"NET", RAIL_NET, RAIL_INIT | RAIL_ENV},
        {"net,Coll", RAIL_NET | RAIL_COLL, RAIL_INIT | RAIL_P2P},
        {"ALL", (1u << 17) - 1, 0},
        {"^NET", ((1u << 17) - 1) & ~(uint32_t)RAIL_NET, RAIL_NET},
        {"^NET,INIT", RAIL_COLL | RAIL_DESTROY, RAIL_NET | RAIL_INIT},
        {"^ALL", 0, (1u << 17) - 1},
        {"NOSUCH", 0, (1u << 17) - 1},
        {"NOSUCH,,SHM,", RAIL_SHM, RAIL_NET},
        {"NETS", 0, RAIL_NET},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char setting[64];
        snprintf(setting, sizeof setting, "NCCL_DEBUG_SUBSYS=%s", cases[i].list ? cases[i].list : "");
        begin((const char *const[]){"NCCL_DEBUG=INFO", cases[i].list ? setting : NULL, NULL});
        for (int bit = 0; bit < 17; bit++) {
            if (cases[i].shown & 1u << bit) assert_true(rail_log_enabled(RAIL_LOG_INFO, 1u << bit));
            if (cases[i].hidden & 1u << bit) assert_false(rail_log_enabled(RAIL_LOG_INFO, 1u << bit));
        }
        assert_true(rail_log_enabled(RAIL_LOG_WARN, 0));
    }
}

static void a_line_names_host_process_thread_rank_and_level(void **state)
{
    (void)state;
    char pattern[300], host[65] = "";
    gethostname(host, sizeof host - 1);
    host[strcspn(host, ".")] = 0;
    BEGIN("NCCL_DEBUG=INFO", "NCCL_DEBUG_TIMESTAMP_LEVELS=^ALL");
    rail_log_set_rank(5);
    RAIL_INFO(RAIL_INIT, "with rank %d", 5);
    rail_log_set_rank(-1);
    RAIL_WARN("where");
    (void)rail_fail(RAIL_E_SYSTEM, "why");
    snprintf(pattern, sizeof pattern,
             "^%s:%d:%d \\[5\\] railccl INFO with rank 5\n%s:%d:%d test_log.c:[0-9]+ railccl WARN where\n"
             "%s:%d:%d railccl WARN why\n$",
             host, getpid(), getpid(), host, getpid(), getpid(), host, getpid(), getpid());
    assert_true(matches(written_to(path), pattern));
}

static void the_file_pattern_knows_host_process_and_percent(void **state)
{
    (void)state;
    char pattern[300], expected[300], host[65] = "";
    gethostname(host, sizeof host - 1);
    host[strcspn(host, ".")] = 0;
    snprintf(pattern, sizeof pattern, "NCCL_DEBUG_FILE=%s/%%h.%%p.%%%%.%%x", folder);
    snprintf(expected, sizeof expected, "%s/%s.%d.%%.%%x", folder, host, getpid());
    BEGIN("NCCL_DEBUG=WARN", pattern);
    RAIL_WARN("here");
    assert_non_null(strstr(written_to(expected), "here"));
    RAIL_WARN("again");
    rail_log_restart(); /* appends */
    RAIL_WARN("later");
    assert_non_null(strstr(written_to(expected), "here"));
    assert_non_null(strstr(written_to(expected), "later"));
    unlink(expected);
}

/* What a child writes to standard output with these settings. */
static const char *child_output(void (*act)(void), const char *const *settings)
{
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(pipes[1], STDOUT_FILENO);
        close(pipes[0]);
        close(pipes[1]);
        begin(settings);
        act();
        _exit(0);
    }
    close(pipes[1]);
    size_t have = 0;
    for (ssize_t n; (n = read(pipes[0], content + have, sizeof content - 1 - have)) > 0;) have += (size_t)n;
    content[have] = 0;
    close(pipes[0]);
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    return content;
}

static void warn_once(void)
{
    RAIL_WARN("to standard output");
}

static void a_file_that_cannot_be_opened_falls_back_to_standard_output_and_says_so(void **state)
{
    (void)state;
    const char *text = child_output(
        warn_once, (const char *const[]){"NCCL_DEBUG=WARN", "NCCL_DEBUG_FILE=/nonexistent/folder/x", NULL});
    assert_non_null(strstr(text, "/nonexistent/folder/x"));
    assert_non_null(strstr(text, "No such file"));
    assert_non_null(strstr(text, "to standard output"));
}

static void stdout_is_the_default_and_has_a_name(void **state)
{
    (void)state;
    const char *text = child_output(warn_once, (const char *const[]){"NCCL_DEBUG=WARN", "NCCL_DEBUG_FILE=", NULL});
    assert_non_null(strstr(text, "to standard output"));
    text = child_output(warn_once, (const char *const[]){"NCCL_DEBUG=WARN", "NCCL_DEBUG_FILE=stdout", NULL});
    assert_non_null(strstr(text, "to standard output"));
    text = child_output(warn_once, (const char *const[]){"NCCL_DEBUG_FILE=stdout", NULL});
    assert_string_equal(text, "");
}

static void stamps_follow_format_and_levels(void **state)
{
    (void)state;
    BEGIN("NCCL_DEBUG=INFO");
    RAIL_INFO(RAIL_INIT, "plain");
    assert_false(written_to(path)[0] == '[');
    BEGIN("NCCL_DEBUG=INFO");
    RAIL_WARN("stamped");
    assert_true(matches(written_to(path), "^\\[20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9:]{8}\\] [^ ]+:"));
    BEGIN("NCCL_DEBUG=INFO", "NCCL_DEBUG_TIMESTAMP_LEVELS=INFO", "NCCL_DEBUG_TIMESTAMP_FORMAT=%%%H|%3f|%9f|%f ");
    RAIL_INFO(RAIL_INIT, "fractions");
    assert_true(matches(written_to(path), "^%[0-9]{2}\\|[0-9]{3}\\|[0-9]{9}\\|"));
    BEGIN("NCCL_DEBUG=INFO", "NCCL_DEBUG_TIMESTAMP_LEVELS=^WARN", "NCCL_DEBUG_TIMESTAMP_FORMAT=@ ");
    RAIL_WARN("w");
    assert_false(written_to(path)[0] == '@');
    BEGIN("NCCL_DEBUG=INFO", "NCCL_DEBUG_TIMESTAMP_LEVELS=ALL",
          "NCCL_DEBUG_TIMESTAMP_FORMAT=%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%");
    RAIL_INFO(RAIL_INIT, "a stamp that does not fit");
    assert_non_null(strstr(written_to(path), "a stamp that does not fit\n"));
}

static void a_line_is_one_line_whatever_the_text(void **state)
{
    (void)state;
    BEGIN("NCCL_DEBUG=INFO");
    RAIL_INFO(RAIL_INIT, "a\nb\r\033[31mc\td\x7f" "e \xc3\xa9");
    const char *text = written_to(path);
    assert_non_null(strstr(text, "a b  [31mc d e \xc3\xa9\n"));
    char big[9000];
    memset(big, 'q', sizeof big - 1);
    big[sizeof big - 1] = 0;
    BEGIN("NCCL_DEBUG=INFO");
    RAIL_INFO(RAIL_INIT, "%s", big);
    text = written_to(path);
    assert_int_equal(strlen(text), 4096);
    assert_string_equal(text + 4096 - 5, "q...\n");
}

static void errno_is_kept_and_percent_m_works(void **state)
{
    (void)state;
    BEGIN("NCCL_DEBUG=INFO");
    errno = ENOENT;
    RAIL_INFO(RAIL_INIT, "%m");
    assert_int_equal(errno, ENOENT);
    assert_non_null(strstr(written_to(path), "No such file"));
}

static void a_reader_that_went_away_does_not_kill_the_program(void **state)
{
    (void)state;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        int pipes[2];
        if (pipe(pipes) != 0) _exit(2);
        dup2(pipes[1], STDOUT_FILENO);
        close(pipes[0]);
        close(pipes[1]);
        signal(SIGPIPE, SIG_DFL);
        BEGIN("NCCL_DEBUG=WARN", "NCCL_DEBUG_FILE=");
        RAIL_WARN("into the void");
        sigset_t waiting, blocked;
        sigpending(&waiting);
        pthread_sigmask(SIG_SETMASK, NULL, &blocked);
        _exit(sigismember(&waiting, SIGPIPE) || sigismember(&blocked, SIGPIPE) ? 1 : 0);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

enum { THREADS = 4, LINES = 500 };
static void *write_lines(void *letter)
{
    rail_log_set_rank(*(int *)letter);
    for (int i = 0; i < LINES; i++) RAIL_INFO(RAIL_INIT, "line %d of %d.", i, *(int *)letter);
    return NULL;
}

static void lines_of_threads_stay_whole_and_carry_their_own_rank(void **state)
{
    (void)state;
    BEGIN("NCCL_DEBUG=INFO");
    pthread_t threads[THREADS];
    int ranks[THREADS] = {0, 1, 2, 3};
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, write_lines, &ranks[i]), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    char *copy = strdup(written_to(path)), *rest = copy;
    int next[THREADS] = {0}, lines = 0;
    for (char *line; (line = strsep(&rest, "\n")) && *line; lines++) {
        int head, i, rank;
        const char *bracket = strchr(line, '[');
        assert_non_null(bracket);
        assert_int_equal(sscanf(bracket, "[%d] railccl INFO line %d of %d.", &head, &i, &rank), 3);
        assert_int_equal(head, rank);
        assert_int_equal(i, next[rank]++);
    }
    assert_int_equal(lines, THREADS * LINES);
    free(copy);
}

static int setup(void **state)
{
    (void)state;
    rail_params_system_file("/nonexistent/nccl.conf");
    setenv("HOME", "/nonexistent", 1);
    unsetenv("NCCL_CONF_FILE");
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/log", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_level_shows_itself_and_those_below),
        cmocka_unit_test(nothing_is_opened_while_nothing_is_logged),
        cmocka_unit_test(subsystems_choose_info_lines_but_not_warnings),
        cmocka_unit_test(a_line_names_host_process_thread_rank_and_level),
        cmocka_unit_test(the_file_pattern_knows_host_process_and_percent),
        cmocka_unit_test(a_file_that_cannot_be_opened_falls_back_to_standard_output_and_says_so),
        cmocka_unit_test(stdout_is_the_default_and_has_a_name),
        cmocka_unit_test(stamps_follow_format_and_levels),
        cmocka_unit_test(a_line_is_one_line_whatever_the_text),
        cmocka_unit_test(errno_is_kept_and_percent_m_works),
        cmocka_unit_test(a_reader_that_went_away_does_not_kill_the_program),
        cmocka_unit_test(lines_of_threads_stay_whole_and_carry_their_own_rank),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
