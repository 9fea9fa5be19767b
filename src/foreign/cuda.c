/* cuda.c - loads libcuda.so.1 on first use, and initialises it. */
#include "foreign/cuda.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(struct cu_properties) == 32 && sizeof(struct cu_access) == 12 && sizeof(struct cu_ipc) == 64,
               "the driver's layouts");

static struct cuda_driver driver;
static char trouble[500];
static cu_result failed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool loaded;

#define CU_NEEDED(member, name, arguments) {name, offsetof(struct cuda_driver, member), true},
#define CU_OPTIONAL(member, name, arguments) {name, offsetof(struct cuda_driver, member), false},
static const struct { const char *name; size_t at; bool needed; } names[] = {CU_CALLS(CU_NEEDED, CU_OPTIONAL)};

/* The first needed name that `library` lacks, or NULL. */
static const char *find_all(void *library)
{
    const char *lacks = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *function = dlsym(library, names[i].name);
        if (!function && names[i].needed && !lacks) lacks = names[i].name;
        memcpy((char *)&driver + names[i].at, &function, sizeof function);
    }
    return lacks;
}

static void say_too_old(const char *path, const char *lacks)
{
    char found[64] = "";
    if (driver.driver_version && driver.driver_version(&driver.version) == CU_SUCCESS)
        snprintf(found, sizeof found, " (it is of CUDA %d.%d)", driver.version / 1000, driver.version % 1000 / 10);
    snprintf(trouble, sizeof trouble, "%s%s has no %s: not a CUDA driver, or older than driver %s, the least that is "
             "supported", path, found, lacks, CU_LEAST_DRIVER);
}

static void say_init_failed(const char *path)
{
    const char *name = NULL, *words = NULL;
    driver.error_name(failed, &name);
    driver.error_string(failed, &words);
    if (failed == CU_E_STUB_LIBRARY) /* has no words of its own */
        snprintf(trouble, sizeof trouble, "%s: cuInit: CUDA_ERROR_STUB_LIBRARY (a stub, made to link with): take its "
                 "folder out of LD_LIBRARY_PATH", path);
    else if (name)
        snprintf(trouble, sizeof trouble, "%s: cuInit: %s (%s)", path, name, words ? words : "no words");
    else
        snprintf(trouble, sizeof trouble, "%s: cuInit: CUDA error %d, which it has no name for", path, failed);
}

static void load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *error = dlerror(); /* "libcuda.so.1: cannot open shared object file: No such file or directory" */
        snprintf(trouble, sizeof trouble, "%s", error ? error : "cannot be loaded");
        return;
    }
    const char *lacks = find_all(library);
    if (lacks) {
        say_too_old(path, lacks);
        return;
    }
    /* cuInit comes first: a stub library, made to link with, has every name, and says only here what it is. */
    failed = driver.init(0);
    if (failed == CU_SUCCESS) failed = driver.driver_version(&driver.version);
    if (failed != CU_SUCCESS)
        say_init_failed(path);
    else if (driver.version < CU_LEAST_VERSION)
        snprintf(trouble, sizeof trouble, "%s is of CUDA %d.%d; the least that is supported is driver %s", path,
                 driver.version / 1000, driver.version % 1000 / 10, CU_LEAST_DRIVER);
}

const struct cuda_driver *cuda_driver(const char *path, const char **why_out, cu_result *failed_out)
{
    pthread_mutex_lock(&lock);
    if (!loaded) load(path && path[0] ? path : "libcuda.so.1");
    loaded = true;
    pthread_mutex_unlock(&lock);
    *why_out = trouble;
    if (failed_out) *failed_out = failed;
    return trouble[0] ? NULL : &driver;
}
