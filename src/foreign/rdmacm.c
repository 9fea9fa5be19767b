/* rdmacm.c - loads librdmacm.so.1 on first use. */
#include "foreign/rdmacm.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static _Atomic(const struct rdmacm *) replaced;

void rdmacm_replace(const struct rdmacm *functions) { atomic_store(&replaced, functions); }

#ifdef RAIL_HAVE_RDMACM

static struct rdmacm functions;
static char trouble[300];
static pthread_once_t once = PTHREAD_ONCE_INIT;

#define FUNCTION(name) {"rdma_" #name, offsetof(struct rdmacm, name)}

static const struct { const char *name; size_t at; } names[] = {
    FUNCTION(create_event_channel), FUNCTION(destroy_event_channel), FUNCTION(create_id),     FUNCTION(destroy_id),
    FUNCTION(bind_addr),            FUNCTION(listen),                FUNCTION(get_src_port),  FUNCTION(resolve_addr),
    FUNCTION(resolve_route),        FUNCTION(connect),               FUNCTION(accept),        FUNCTION(reject),
    FUNCTION(establish),            FUNCTION(init_qp_attr),          FUNCTION(get_cm_event),  FUNCTION(ack_cm_event),
};

static void load(void)
{
    void *library = dlopen("librdmacm.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *error = dlerror();
        snprintf(trouble, sizeof trouble, "%.200s (Debian: librdmacm1)", error ? error : "librdmacm cannot be loaded");
        return;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *function = dlsym(library, names[i].name);
        if (!function && !trouble[0])
            snprintf(trouble, sizeof trouble, "librdmacm.so.1 has no %s: take one of rdma-core 23 or later",
                     names[i].name);
        memcpy((char *)&functions + names[i].at, &function, sizeof function);
    }
}

const struct rdmacm *rdmacm_functions(const char **why_out)
{
    const struct rdmacm *instead = atomic_load(&replaced);
    *why_out = "";
    if (instead) return instead;
    pthread_once(&once, load);
    *why_out = trouble;
    return trouble[0] ? NULL : &functions;
}

#else

const struct rdmacm *rdmacm_functions(const char **why_out)
{
    *why_out = "this railccl was built without rdma/rdma_cma.h (Debian: librdmacm-dev)";
    return atomic_load(&replaced);
}

#endif
