/* fixture.h - what the emulator's own tests share: each case is a process of its own, with its own environment, because
 * the driver reads that once; and it may die, which is what some cases are about. */
#ifndef RAIL_TESTS_EMULATED_FIXTURE_H
#define RAIL_TESTS_EMULATED_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "emulated_cuda/control.h"
#include "emulated_cuda/driver_calls.h"
#include "emulated_cuda/kernels/kernels.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* In a case: what must hold, else the process ends with status 3. */
#define check(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            _exit(3); \
        } \
    } while (0)
#define gives(result, call) \
    do { \
        int got_ = (call), wanted_ = (result); \
        if (got_ != wanted_) { \
            fprintf(stderr, "%s:%d: %d instead of %d: %s\n", __FILE__, __LINE__, got_, wanted_, #call); \
            _exit(3); \
        } \
    } while (0)
#define must(call) gives(CUDA_SUCCESS, call)

struct test {
    const char *name;
    void (*run)(void);
    const char *environment; /* "NAME=VALUE NAME=VALUE", or NULL */
    int signal;              /* that ends the case; 0: none, it returns */
};

static void set_environment(const char *list)
{
    char copy[512], *save = NULL;
    snprintf(copy, sizeof copy, "%s", list);
    for (char *pair = strtok_r(copy, " ", &save); pair != NULL; pair = strtok_r(NULL, " ", &save)) {
        char *value = strchr(pair, '=');
        *value = '\0';
        setenv(pair, value + 1, 1);
    }
}

/* Runs a case in a child; a minute is more than any needs. */
static void run_case(void **state)
{
    const struct test *t = *state;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* cmocka's handler would go on with the next case */
        alarm(60);
        if (t->environment != NULL)
            set_environment(t->environment);
        t->run();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (t->signal != 0) {
        /* Sanitizers make an exit of a signal. */
        int code = WEXITSTATUS(status);
        assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == t->signal : code != 0 && code != 3);
    } else {
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

/* The table of a file becomes the tests of cmocka. */
static int run_cases(const char *group, const struct test *tests, size_t n)
{
    struct CMUnitTest list[64] = {{0}};
    for (size_t i = 0; i < n && i < 64; i++) {
        list[i].name = tests[i].name;
        list[i].test_func = run_case;
        list[i].initial_state = (void *)(uintptr_t)&tests[i];
    }
    return _cmocka_run_group_tests(group, list, n, NULL, NULL);
}

/* The folder of the test program. */
static inline void beside(char path[512], const char *name)
{
    ssize_t n = readlink("/proc/self/exe", path, 400);
    path[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(path, '/');
    snprintf(slash != NULL ? slash + 1 : path, 100, "%s", name);
}

/* A client of device `ordinal`: its primary context, current, and the kernels, loaded. */
struct client {
    CUcontext context;
    CUmodule module;
};

static inline struct client client_of(int ordinal)
{
    struct client c;
    char path[512];
    beside(path, "kernels/kernels.so");
    must(cuInit(0));
    must(cuDevicePrimaryCtxRetain(&c.context, ordinal));
    must(cuCtxSetCurrent(c.context));
    must(cuModuleLoad(&c.module, path));
    return c;
}

static inline CUfunction kernel_of(const struct client *c, const char *name)
{
    CUfunction f;
    must(cuModuleGetFunction(&f, c->module, name));
    must(cuFuncLoad(f));
    return f;
}

static inline void launch_it(CUfunction f, unsigned blocks, CUstream stream, void *argument)
{
    must(cuLaunchKernel(f, blocks, 1, 1, 32, 1, 1, 0, stream, &argument, NULL));
}

static inline CUdeviceptr device_words(unsigned n)
{
    CUdeviceptr at;
    must(cuMemAlloc_v2(&at, 4u * n));
    must(cuMemsetD32_v2(at, 0, n));
    must(cuCtxSynchronize());
    return at;
}

static inline uint32_t *pinned_words(unsigned n)
{
    void *at;
    must(cuMemHostAlloc(&at, 4u * n, 0));
    memset(at, 0, 4u * n);
    return at;
}

static inline uint32_t word_at(CUdeviceptr at)
{
    uint32_t word;
    must(cuMemcpyDtoH_v2(&word, at, 4));
    return word;
}

static inline CUstream stream_with(unsigned flags)
{
    CUstream s;
    must(cuStreamCreate(&s, flags));
    return s;
}

/* A kernel that ends when the host says so: `gate` is two pinned words, told and asked. */
static inline void launch_gate(CUfunction meet, CUstream stream, uint32_t *gate)
{
    struct meet_argument a = {(uintptr_t)gate, (uintptr_t)(gate + 1), 1};
    gate[0] = gate[1] = 0;
    launch_it(meet, 1, stream, &a);
}

static inline void open_gate(uint32_t *gate)
{
    __atomic_store_n(gate + 1, 1, __ATOMIC_RELEASE);
}

static inline void gate_reached(uint32_t *gate)
{
    while (__atomic_load_n(gate, __ATOMIC_ACQUIRE) == 0)
        usleep(100);
}

#endif
