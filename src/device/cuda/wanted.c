/* wanted.c - RAILCCL_DEVICE: is there a driver, has it a device, and are GPUs wanted? */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/params.h"
#include "device/cuda/cuda.h"

/* The process that began to use the driver. A child of it has none, and may have been forked while a thread held one of
 * our locks: so it is turned away before it takes any. */
static _Atomic pid_t begun_by;

enum rail_result cuda_driver_get(const char *call, const struct cuda_driver **out)
{
    const char *why;
    pid_t by = atomic_load(&begun_by);
    *out = NULL;
    if (by && by != getpid())
        return rail_fail(RAIL_E_CUDA, "%s: process %d used the GPU before it forked this one, which therefore cannot "
                         "(CUDA_ERROR_NOT_INITIALIZED): start it anew (multiprocessing: `spawn`)", call, (int)by);
    *out = cuda_driver(rail_param_str(RAIL_PARAM_CUDA_LIBRARY), &why, NULL);
    if (*out) {
        atomic_store(&begun_by, getpid());
        return RAIL_OK;
    }
    return rail_fail(RAIL_E_CUDA, "%s: no GPU driver: %s; install one, name its file in RAILCCL_CUDA_LIBRARY, or set "
                     "RAILCCL_DEVICE=host", call, why);
}

/* How many devices there are; 0 with the reason. What the driver says stays what it says: asked once. */
struct found {
    int n;
    char why[700];
};

static struct found found;

static void look(void)
{
    const char *why;
    cu_result result;
    const struct cuda_driver *driver = cuda_driver(rail_param_str(RAIL_PARAM_CUDA_LIBRARY), &why, NULL);
    if (!driver) {
        snprintf(found.why, sizeof found.why, "no GPU driver: %s", why);
    } else if ((result = driver->device_count(&found.n)) != CU_SUCCESS || found.n == 0) {
        char words[200];
        found.n = 0;
        snprintf(found.why, sizeof found.why, "cuDeviceGetCount: %s", result == CU_SUCCESS ? "no device" :
                 cuda_words(driver, result, words, sizeof words));
    } else {
        snprintf(found.why, sizeof found.why, "the driver (CUDA %d.%d) has %d device%s", driver->version / 1000,
                 driver->version % 1000 / 10, found.n, found.n == 1 ? "" : "s");
    }
}

enum rail_result cuda_wanted(const char *call, bool *wanted_out, const char **why_out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const char *wish = rail_param_str(RAIL_PARAM_DEVICE), *unused;
    if (!why_out) why_out = &unused;
    *wanted_out = false;
    if (!strcmp(wish, "host")) {
        *why_out = "RAILCCL_DEVICE=host";
        return RAIL_OK;
    }
    pthread_once(&once, look);
    *why_out = found.why;
    *wanted_out = found.n > 0;
    if (found.n > 0 || strcmp(wish, "cuda") != 0) return RAIL_OK;
    return rail_fail(RAIL_E_CUDA, "%s: RAILCCL_DEVICE=cuda, and there is no GPU: %s; look at nvidia-smi and "
                     "CUDA_VISIBLE_DEVICES, or set RAILCCL_DEVICE=host", call, found.why);
}
