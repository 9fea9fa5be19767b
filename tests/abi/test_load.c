/* Loading libnccl.so.2 with all symbols bound does nothing: no thread, no descriptor, no output, no signal handler, no
 * environment, no memory worth mentioning. (Runs the library of this build, found beside the test program.) */
#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "nccl.h"

static char library[PATH_MAX];

static const char *const foreign[] = {"libibverbs", "librdmacm", "libcuda", "libnvidia-ml", "libhwloc", "libnuma",
                                      "libsodium", "libexpat", "libjansson", "libstdc++"};
enum { N_FOREIGN = sizeof foreign / sizeof *foreign };
static bool there_before[N_FOREIGN]; /* a sanitizer brings some of its own */

static void find_foreign(bool found[N_FOREIGN])
{
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    char line[PATH_MAX + 128];
    memset(found, 0, N_FOREIGN * sizeof *found);
    while (fgets(line, sizeof line, maps) != NULL)
        for (int i = 0; i < N_FOREIGN; i++) found[i] |= strstr(line, foreign[i]) != NULL;
    fclose(maps);
}

/* build/tests/abi/test_load -> build/lib/libnccl.so.2 */
static int find_library(void **state)
{
    (void)state;
    find_foreign(there_before);
    char self[PATH_MAX - 64];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) return -1;
    self[n] = '\0';
    for (int i = 0; i < 3; i++) {
        char *slash = strrchr(self, '/');
        if (slash == NULL) return -1;
        *slash = '\0';
    }
    snprintf(library, sizeof library, "%s/lib/libnccl.so.2", self);
    return 0;
}

static bool library_is_built(void)
{
    if (access(library, R_OK) == 0) return true;
    print_message("skipped: %s is not built (make all)\n", library);
    return false;
}

static int entries(const char *directory)
{
    DIR *d = opendir(directory);
    assert_non_null(d);
    int n = 0;
    while (readdir(d) != NULL) n++;
    closedir(d);
    return n;
}

static long kilobytes(const char *key)
{
    FILE *f = fopen("/proc/self/status", "r");
    assert_non_null(f);
    char line[256];
    long value = -1;
    size_t length = strlen(key);
    while (fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, key, length) == 0) value = strtol(line + length + 1, NULL, 10);
    fclose(f);
    return value;
}

struct state_of_process {
    int threads, descriptors;
    long data_kb;
    size_t environment;
    void *handlers[NSIG];
    sigset_t blocked;
};

static void look(struct state_of_process *s)
{
    memset(s, 0, sizeof *s);
    s->threads = entries("/proc/self/task");
    s->descriptors = entries("/proc/self/fd");
    s->data_kb = kilobytes("VmData:");
    for (char **e = environ; *e != NULL; e++) s->environment += strlen(*e) + 1;
    for (int i = 1; i < NSIG; i++) {
        struct sigaction action = {0};
        sigaction(i, NULL, &action);
        s->handlers[i] = (void *)(uintptr_t)action.sa_handler;
    }
    sigprocmask(SIG_SETMASK, NULL, &s->blocked);
}

static void loading_changes_nothing_in_the_process(void **state)
{
    (void)state;
    if (!library_is_built()) skip();
    struct state_of_process before, after;
    look(&before); /* once to warm up what looking itself allocates */
    look(&before);
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) fail_msg("%s", dlerror());
    look(&after);
    assert_int_equal(after.threads, before.threads);
    assert_int_equal(after.descriptors, before.descriptors);
    assert_int_equal(after.environment, before.environment);
    for (int i = 1; i < NSIG; i++) assert_ptr_equal(after.handlers[i], before.handlers[i]);
    assert_memory_equal(&after.blocked, &before.blocked, sizeof before.blocked);
#ifndef __SANITIZE_THREAD__
#ifndef __SANITIZE_ADDRESS__
    assert_in_range(after.data_kb, 0, before.data_kb + 256); /* the library's own .data and .bss, and malloc's step */
#endif
#endif
    int (*version)(int *) = (int (*)(int *))(uintptr_t)dlsym(handle, "ncclGetVersion");
    assert_non_null(version);
    int number = 0;
    assert_int_equal(version(&number), ncclSuccess);
    assert_int_equal(number, NCCL_VERSION_CODE);
    dlclose(handle);
}

/* A child loads the library with everything logged, and its output is read to the end. */
static void loading_prints_nothing_even_with_full_logging(void **state)
{
    (void)state;
    if (!library_is_built()) skip();
    int pipe_ends[2];
    assert_int_equal(pipe(pipe_ends), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        setenv("NCCL_DEBUG", "TRACE", 1);
        setenv("NCCL_DEBUG_SUBSYS", "ALL", 1);
        dup2(pipe_ends[1], 1);
        dup2(pipe_ends[1], 2);
        void *handle = dlopen(library, RTLD_NOW | RTLD_GLOBAL);
        _exit(handle == NULL);
    }
    close(pipe_ends[1]);
    char text[4096];
    size_t length = 0;
    ssize_t n;
    while ((n = read(pipe_ends[0], text + length, sizeof text - 1 - length)) > 0) length += (size_t)n;
    text[length] = '\0';
    close(pipe_ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_string_equal(text, "");
}

static void loading_maps_no_foreign_library(void **state)
{
    (void)state;
    if (!library_is_built()) skip();
    assert_non_null(dlopen(library, RTLD_NOW | RTLD_LOCAL));
    bool there_now[N_FOREIGN];
    find_foreign(there_now);
    for (int i = 0; i < N_FOREIGN; i++)
        if (there_now[i] && !there_before[i]) fail_msg("%s is mapped now", foreign[i]);
}

/* ---- used, closed, opened again; twice at once ---- */

/* The calls of one copy. */
struct copy {
    void *handle;
    ncclResult_t (*init_all)(ncclComm_t *, int, const int *);
    ncclResult_t (*all_reduce)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t);
    ncclResult_t (*destroy)(ncclComm_t);
    ncclResult_t (*start)(void), (*end)(void);
};

static bool bind(struct copy *c, void *handle)
{
    *c = (struct copy){.handle = handle};
    if (!handle) return false;
    *(void **)(void *)&c->init_all = dlsym(handle, "ncclCommInitAll");
    *(void **)(void *)&c->all_reduce = dlsym(handle, "ncclAllReduce");
    *(void **)(void *)&c->destroy = dlsym(handle, "ncclCommDestroy");
    *(void **)(void *)&c->start = dlsym(handle, "ncclGroupStart");
    *(void **)(void *)&c->end = dlsym(handle, "ncclGroupEnd");
    return c->init_all && c->all_reduce && c->destroy && c->start && c->end;
}

/* Two ranks of this process, one AllReduce. */
static bool works(const struct copy *c)
{
    ncclComm_t comms[2];
    float x[2] = {1, 2}, sum[2] = {0};
    if (c->init_all(comms, 2, NULL) != ncclSuccess || c->start() != ncclSuccess) return false;
    for (int r = 0; r < 2; r++)
        if (c->all_reduce(&x[r], &sum[r], 1, ncclFloat32, ncclSum, comms[r], NULL) != ncclSuccess) return false;
    if (c->end() != ncclSuccess || c->start() != ncclSuccess) return false;
    for (int r = 0; r < 2; r++) (void)c->destroy(comms[r]);
    return c->end() == ncclSuccess && sum[0] == 3 && sum[1] == 3;
}

static int exit_code(pid_t child)
{
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

static void it_can_be_closed_and_opened_again(void **state)
{
    (void)state;
    if (!library_is_built()) skip();
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        for (int life = 0; life < 3; life++) {
            struct copy c;
            if (!bind(&c, dlopen(library, RTLD_NOW | RTLD_LOCAL)) || !works(&c)) _exit(10 + life);
            if (dlclose(c.handle) != 0) _exit(20 + life);
            usleep(20000); /* the service thread, if it were unmapped, would run into nothing */
        }
        exit(0); /* exit handlers find their code, too */
    }
    assert_int_equal(exit_code(child), 0);
}

/* What a fresh process logs that opens a second copy by `open_second`, and works with both. */
static void said_with_two(void *(*open_second)(void), char *text, size_t bytes)
{
    char log[] = "/tmp/railccl-load-XXXXXX";
    int fd = mkstemp(log);
    assert_true(fd >= 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        setenv("NCCL_DEBUG", "WARN", 1);
        setenv("NCCL_DEBUG_FILE", log, 1);
        struct copy first, second;
        if (!bind(&first, dlopen(library, RTLD_NOW | RTLD_LOCAL))) _exit(10);
        if (!bind(&second, open_second())) _exit(11);
        if (first.all_reduce == second.all_reduce) _exit(12);
        if (!works(&first) || !works(&second) || !works(&first)) _exit(13);
        _exit(0);
    }
    assert_int_equal(exit_code(child), 0);
    ssize_t n = read(fd, text, bytes - 1);
    text[n > 0 ? n : 0] = '\0';
    close(fd);
    unlink(log);
}

static void *open_a_copied_file(void)
{
    char folder[] = "/tmp/railccl-load-XXXXXX", command[3 * PATH_MAX], path[64];
    if (!mkdtemp(folder)) return NULL;
    snprintf(path, sizeof path, "%s/libnccl.so.2", folder);
    snprintf(command, sizeof command, "cp '%s' '%s'", library, path);
    void *handle = system(command) == 0 ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    unlink(path);
    rmdir(folder);
    return handle;
}

static void *open_in_another_namespace(void) { return dlmopen(LM_ID_NEWLM, library, RTLD_NOW | RTLD_LOCAL); }

static void a_second_copy_is_warned_of_and_both_work(void **state)
{
    (void)state;
    if (!library_is_built()) skip();
    char text[8192];
    said_with_two(open_a_copied_file, text, sizeof text);
    if (!strstr(text, "a second NCCL library is mapped")) fail_msg("said: %s", text);
#ifndef __SANITIZE_ADDRESS__ /* its run-time library cannot be in two namespaces */
#ifndef __SANITIZE_THREAD__
    said_with_two(open_in_another_namespace, text, sizeof text);
    if (!strstr(text, "is loaded twice (dlmopen)")) fail_msg("said: %s", text);
#endif
#endif
    (void)open_in_another_namespace;
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(loading_changes_nothing_in_the_process),
        cmocka_unit_test(loading_prints_nothing_even_with_full_logging),
        cmocka_unit_test(loading_maps_no_foreign_library),
        cmocka_unit_test(it_can_be_closed_and_opened_again),
        cmocka_unit_test(a_second_copy_is_warned_of_and_both_work),
    };
    return cmocka_run_group_tests(cases, find_library, NULL);
}
