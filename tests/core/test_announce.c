/* What the library says of itself: its version and file, variables without effect, and a second libnccl beside it. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/params.h"
#include "core/announce.h"

/* Everything a fresh process says, with `level`; NULL-terminated variables; optionally with libnccl.so.2 loaded too. */
static void said_by(const char *level, const char *name, const char *value, int second, char *out, size_t bytes)
{
    char log[] = "/tmp/railccl-announce-XXXXXX";
    int fd = mkstemp(log);
    assert_true(fd >= 0);
    pid_t child = fork();
    if (child == 0) {
        setenv("NCCL_DEBUG", level, 1);
        setenv("NCCL_DEBUG_FILE", log, 1);
        if (name) setenv(name, value, 1);
        char path[4096];
        ssize_t n = readlink("/proc/self/exe", path, sizeof path - 40);
        path[n > 0 ? n : 0] = 0;
        strcpy(strstr(path, "/tests/core/"), "/lib/libnccl.so.2");
        if (second && !dlopen(path, RTLD_NOW | RTLD_LOCAL)) _exit(3);
        announce();
        announce(); /* once per process */
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    ssize_t n = read(fd, out, bytes - 1);
    out[n > 0 ? n : 0] = 0;
    close(fd);
    unlink(log);
}

static int occurrences(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++) n++;
    return n;
}

static void the_version_and_the_file_are_said_once(void **state)
{
    (void)state;
    char text[8192];
    said_by("VERSION", NULL, NULL, 0, text, sizeof text);
    assert_int_equal(occurrences(text, "railccl " RAILCCL_VERSION " (NCCL 2.30.7 interface) from /"), 1);
    assert_non_null(strstr(text, "test_announce"));
}

static void nothing_is_said_without_being_asked(void **state)
{
    (void)state;
    char text[8192];
    said_by("NONE", "NCCL_IB_SL", "mlx5", 1, text, sizeof text);
    assert_string_equal(text, "");
}

static void a_variable_without_effect_is_named(void **state)
{
    (void)state;
    char text[65536];
    said_by("INFO", "NCCL_IB_SL", "mlx5_0", 0, text, sizeof text);
    assert_non_null(strstr(text, "NCCL_IB_SL"));
}

static void a_second_libnccl_is_warned_of(void **state)
{
    (void)state;
    char text[8192];
    said_by("WARN", NULL, NULL, 0, text, sizeof text);
    assert_int_equal(occurrences(text, "second NCCL library"), 0);
    said_by("WARN", NULL, NULL, 1, text, sizeof text);
    assert_int_equal(occurrences(text, "second NCCL library"), 1);
    assert_non_null(strstr(text, "/lib/libnccl.so.2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_version_and_the_file_are_said_once),
        cmocka_unit_test(nothing_is_said_without_being_asked),
        cmocka_unit_test(a_variable_without_effect_is_named),
        cmocka_unit_test(a_second_libnccl_is_warned_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
