/* cuda_fixture.h - what the tests of device/cuda have in common: the emulated driver found beside the test program, the
 * application's side of the driver, its own census, and children that have a driver of their own.
 *
 * The library loads one driver per process, so what wants another one, or an environment of its own, runs in a child
 * that was forked before. */
#ifndef TESTS_DEVICE_CUDA_FIXTURE_H
#define TESTS_DEVICE_CUDA_FIXTURE_H

#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <setjmp.h>
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

#include "device/cuda/cuda.h"
#include "support/trouble.h"

/* What applications call and the library does not. */
static struct {
    cu_result (*context_create)(cu_context *, unsigned flags, cu_device);
    cu_result (*context_destroy)(cu_context);
    cu_result (*context_set)(cu_context);
    cu_result (*memory_left)(size_t *left, size_t *all);
    cu_result (*alloc_managed)(cu_address *, size_t, unsigned flags);
    cu_result (*capture_begin)(cu_stream, int mode);
    cu_result (*capture_end)(cu_stream, cu_graph *);
    cu_result (*graph_instantiate)(void **exec, cu_graph, unsigned long long flags);
    cu_result (*graph_launch)(void *exec, cu_stream);
    cu_result (*graph_exec_destroy)(void *exec);
    cu_result (*graph_destroy)(cu_graph);
    cu_result (*primary_reset)(cu_device);
    void (*order)(const char *name, unsigned nth, int result);
    uint64_t (*calls)(const char *name);
} app;

static char fixture_folder[PATH_MAX]; /* build/tests */
static const struct cuda_driver *drv; /* the application's, and ours: the same */

static inline void fixture_find(void)
{
    char self[PATH_MAX] = "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) abort();
    snprintf(fixture_folder, sizeof fixture_folder, "%s", dirname(dirname(self)));
    char library[PATH_MAX + 40];
    snprintf(library, sizeof library, "%s/emulated_cuda/libcuda.so.1", fixture_folder);
    setenv("RAILCCL_CUDA_LIBRARY", library, 1);
    snprintf(library, sizeof library, "%s/device/cuda_test_kernel.so", fixture_folder);
    setenv("RAILCCL_CUDA_KERNEL", library, 1);
}

static inline void fixture_function(void *library, const char *name, void *into)
{
    void *function = dlsym(library, name);
    if (!function) fprintf(stderr, "the emulated driver has no %s\n", name), abort();
    memcpy(into, &function, sizeof function);
}

/* The emulated driver, from the application's side. */
static inline void fixture_open(void)
{
    const char *why, *path = getenv("RAILCCL_CUDA_LIBRARY");
    drv = cuda_driver(path, &why, NULL);
    if (!drv) fprintf(stderr, "no emulated driver: %s\n", why), abort();
    void *library = dlopen(path, RTLD_NOW);
    fixture_function(library, "cuCtxCreate_v2", &app.context_create);
    fixture_function(library, "cuCtxDestroy_v2", &app.context_destroy);
    fixture_function(library, "cuCtxSetCurrent", &app.context_set);
    fixture_function(library, "cuMemGetInfo_v2", &app.memory_left);
    fixture_function(library, "cuMemAllocManaged", &app.alloc_managed);
    fixture_function(library, "cuStreamBeginCapture_v2", &app.capture_begin);
    fixture_function(library, "cuStreamEndCapture", &app.capture_end);
    fixture_function(library, "cuGraphInstantiateWithFlags", &app.graph_instantiate);
    fixture_function(library, "cuGraphLaunch", &app.graph_launch);
    fixture_function(library, "cuGraphExecDestroy", &app.graph_exec_destroy);
    fixture_function(library, "cuGraphDestroy", &app.graph_destroy);
    fixture_function(library, "cuDevicePrimaryCtxReset_v2", &app.primary_reset);
    fixture_function(library, "emulated_cuda_fail", &app.order);
    fixture_function(library, "emulated_cuda_calls", &app.calls);
}

/* ---- saying what must hold, in a child as in the test itself ---- */

#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not so: %s; last error: %s\n", __FILE__, __LINE__, #condition, rail_last_error()); \
            fflush(NULL);                                                                                              \
            _exit(3);                                                                                                  \
        }                                                                                                              \
    } while (0)
#define MUST_CU(call) MUST((call) == CU_SUCCESS)
#define MUST_OK(call) MUST((call) == RAIL_OK)

/* The result and, in the text, every word of "one|two". */
static inline bool fixture_says(enum rail_result got, enum rail_result want, const char *words)
{
    const char *lacks = trouble_lacks(rail_last_error(), words);
    if (got == want && !lacks) return true;
    fprintf(stderr, "wanted %s, got %s; the text lacks '%s': %s\n", rail_result_name(want), rail_result_name(got),
            lacks ? lacks : "", rail_last_error());
    return false;
}
#define MUST_SAY(call, want, words) MUST(fixture_says((call), (want), (words)))

/* Runs `body` in a process of its own, with `environment` ("NAME=value", NULL at the end); a test fails when it does
 * not come to its end. */
static inline void fixture_child(void (*body)(void), const char *const *environment)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        for (; environment && *environment; environment++) putenv(strdup(*environment));
        alarm(60);
        body();
        fflush(NULL);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (status) fail_msg("the child ended with status 0x%x", (unsigned)status);
}
static inline void fixture_child_plain(void (*body)(void)) { fixture_child(body, NULL); }

/* A context that is current, as CUDA's runtime makes it: the primary one of the device. */
static inline cu_context fixture_use(int ordinal)
{
    cu_context context;
    MUST_CU(drv->primary_retain(&context, ordinal));
    MUST_CU(app.context_set(context));
    return context;
}

static inline bool fixture_census_is(struct cuda_census before)
{
    struct cuda_census now = cuda_census();
    if (!memcmp(&before, &now, sizeof now)) return true;
    fprintf(stderr, "census: devices %ld, allocations %ld, pinned %ld, registered %ld, imports %ld, streams %ld, "
            "events %ld; before: %ld %ld %ld %ld %ld %ld %ld\n", now.devices, now.allocations, now.pinned,
            now.registered, now.imports, now.streams, now.events, before.devices, before.allocations, before.pinned,
            before.registered, before.imports, before.streams, before.events);
    return false;
}

#endif
