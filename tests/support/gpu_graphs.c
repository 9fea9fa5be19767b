/* gpu_graphs.c - found in the library that holds the driver. */
#include "support/gpu_graphs.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/params.h"
#include "support/gpu.h"

struct gpu_graphs graphs;

void graphs_find(void)
{
    gpu_driver();
    const char *path = rail_param_str(RAIL_PARAM_CUDA_LIBRARY);
    void *library = dlopen(path ? path : "libcuda.so.1", RTLD_NOW);
    assert_non_null(library);
    *(void **)&graphs.begin = dlsym(library, "cuStreamBeginCapture_v2");
    *(void **)&graphs.end = dlsym(library, "cuStreamEndCapture");
    *(void **)&graphs.make = dlsym(library, "cuGraphInstantiateWithFlags");
    *(void **)&graphs.launch = dlsym(library, "cuGraphLaunch");
    *(void **)&graphs.exec_destroy = dlsym(library, "cuGraphExecDestroy");
    *(void **)&graphs.destroy = dlsym(library, "cuGraphDestroy");
    assert_non_null(graphs.make);
}
