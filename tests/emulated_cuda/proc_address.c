/* proc_address.c - cuGetProcAddress: the newest form of a call that the asked version has. */
#include "emulated_cuda/state.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* Forms that came with a version, newest first; all other suffixes came before any version that matters. */
static const struct { const char *name, *export; int version; } forms[] = {
    {"cuCtxCreate", "cuCtxCreate_v4", 12050},
    {"cuCtxCreate", "cuCtxCreate_v2", 3020},
    {"cuStreamGetCaptureInfo", "cuStreamGetCaptureInfo_v3", 12030},
    {"cuStreamGetCaptureInfo", "cuStreamGetCaptureInfo_v2", 11030},
    {"cuStreamUpdateCaptureDependencies", "cuStreamUpdateCaptureDependencies_v2", 12030},
    {"cuStreamUpdateCaptureDependencies", "cuStreamUpdateCaptureDependencies", 11030},
    {"cuGraphInstantiate", "cuGraphInstantiateWithFlags", 12000},
    {"cuEventElapsedTime", "cuEventElapsedTime_v2", 12080},
    {"cuGetProcAddress", "cuGetProcAddress_v2", 12000},
    {"cuDeviceGetUuid", "cuDeviceGetUuid_v2", 11040},
};

static void *own(const char *name)
{
    Dl_info info;
    if (strncmp(name, "cu", 2) != 0 || dladdr((void *)(uintptr_t)&own, &info) == 0)
        return NULL;
    void *self = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    void *found = self == NULL ? NULL : dlsym(self, name);
    if (self != NULL)
        dlclose(self);
    return found;
}

CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status)
{
    CUresult ordered = call_ordered(__func__);
    char longer[128];
    bool listed = false;
    if (ordered != CUDA_SUCCESS)
        return ordered;
    if (name == NULL || function == NULL || (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0)
        return CUDA_ERROR_INVALID_VALUE; /* calls with other defaults are not emulated */
    *function = NULL;
    for (size_t i = 0; i < sizeof forms / sizeof *forms && *function == NULL; i++)
        if (strcmp(forms[i].name, name) == 0) {
            listed = true;
            if (version >= forms[i].version)
                *function = own(forms[i].export);
        }
    if (!listed) {
        snprintf(longer, sizeof longer, "%s_v2", name);
        *function = own(longer);
        if (*function == NULL)
            *function = own(name);
    }
    if (status != NULL)
        *status = *function != NULL ? CU_GET_PROC_ADDRESS_SUCCESS
                                    : listed ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                                             : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function != NULL ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
