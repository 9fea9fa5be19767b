/* hwloc.c - loads libhwloc on first use. */
#include "foreign/hwloc.h"

#ifdef RAIL_HAVE_HWLOC
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static struct hwloc_functions functions;
static const char *trouble;
static pthread_once_t loaded = PTHREAD_ONCE_INIT;

#define FUNCTION(name) {"hwloc_" #name, offsetof(struct hwloc_functions, name)}

static const struct { const char *name; size_t at; } names[] = {
    FUNCTION(topology_init),          FUNCTION(topology_load),
    FUNCTION(topology_destroy),       FUNCTION(topology_set_xml),
    FUNCTION(topology_set_synthetic), FUNCTION(topology_set_io_types_filter),
    FUNCTION(get_obj_by_depth),       FUNCTION(bitmap_first),
    FUNCTION(bitmap_snprintf),
};

static void load(void)
{
    void *library = dlopen("libhwloc.so.15", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        trouble = "libhwloc.so.15 is not installed (Debian: libhwloc15)";
        return;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *function = dlsym(library, names[i].name);
        if (!function) trouble = "this libhwloc.so.15 lacks a function of hwloc 2";
        memcpy((char *)&functions + names[i].at, &function, sizeof function);
    }
}

const struct hwloc_functions *hwloc_functions(const char **why_out)
{
    pthread_once(&loaded, load);
    *why_out = trouble;
    return trouble ? NULL : &functions;
}
#else
const struct hwloc_functions *hwloc_functions(const char **why_out)
{
    *why_out = "built without hwloc.h (Debian: libhwloc-dev)";
    return (const struct hwloc_functions *)0;
}
#endif
