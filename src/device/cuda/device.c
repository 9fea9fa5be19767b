/* device.c - the devices of this process: one for each context that somebody works in.
 *
 * A device that nobody holds is kept, with its module and events, while its context lives on without us (CUDA's
 * runtime keeps the primary one), so that the next communicator starts at once. Contexts are told apart by the
 * driver's number for them; where it has none, an address may come again, and nothing is kept. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "device/cuda/state.h"

struct cuda_counts cuda_counts;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* protects the list and the holds */
static struct cuda_device *devices;

const char *cuda_device_text(const struct cuda_device *device, char text[CUDA_NAME_BYTES])
{
    snprintf(text, CUDA_NAME_BYTES, "device %d (%s, %s)", device->ordinal, device->name, device->bus_id);
    return text;
}

struct cuda_census cuda_census(void)
{
    return (struct cuda_census){
        .devices = atomic_load(&cuda_counts.devices), .allocations = atomic_load(&cuda_counts.allocations),
        .pinned = atomic_load(&cuda_counts.pinned), .registered = atomic_load(&cuda_counts.registered),
        .imports = atomic_load(&cuda_counts.imports), .streams = atomic_load(&cuda_counts.streams),
        .events = atomic_load(&cuda_counts.events),
    };
}

/* ---- describing ---- */

static int attribute(const struct cuda_driver *driver, cu_device device, int which)
{
    int value = 0;
    return driver->device_attribute(&value, which, device) == CU_SUCCESS ? value : 0;
}

static void describe_abilities(struct cuda_device *d)
{
    d->major = attribute(d->driver, d->device, CU_DEVICE_CAPABILITY_MAJOR);
    d->minor = attribute(d->driver, d->device, CU_DEVICE_CAPABILITY_MINOR);
    d->n_sms = attribute(d->driver, d->device, CU_DEVICE_MULTIPROCESSORS);
    d->pageable = attribute(d->driver, d->device, CU_DEVICE_PAGEABLE_ACCESS);
    d->vmm = attribute(d->driver, d->device, CU_DEVICE_VMM);
    d->vmm_fd = d->vmm && attribute(d->driver, d->device, CU_DEVICE_VMM_FD);
    d->vmm_gpu_direct = d->vmm && attribute(d->driver, d->device, CU_DEVICE_VMM_GPU_DIRECT);
    d->dma_buf = d->driver->dma_buf && attribute(d->driver, d->device, CU_DEVICE_DMA_BUF);
}

static cu_result describe(struct cuda_device *d)
{
    const struct cuda_driver *driver = d->driver;
    struct cu_uuid uuid;
    cu_result result = driver->context_device(&d->device);
    if (result != CU_SUCCESS) return result;
    d->ordinal = d->device; /* as in every driver so far; cuDeviceGet is the identity */
    unsigned long long id = 0;
    if (driver->context_id && driver->context_id(d->context, &id) == CU_SUCCESS) d->context_id = id;
    if ((result = driver->device_name(d->name, sizeof d->name, d->device)) != CU_SUCCESS) return result;
    if ((result = driver->device_bus_id(d->bus_id, sizeof d->bus_id, d->device)) != CU_SUCCESS) return result;
    for (char *c = d->bus_id; *c; c++) *c = (char)tolower((unsigned char)*c);
    if ((result = driver->device_memory(&d->memory_bytes, d->device)) != CU_SUCCESS) return result;
    result = (driver->device_uuid_slice ? driver->device_uuid_slice : driver->device_uuid)(&uuid, d->device);
    if (result != CU_SUCCESS) return result;
    memcpy(d->uuid, uuid.bytes, sizeof d->uuid);
    describe_abilities(d);
    return CU_SUCCESS;
}

/* ---- the end of one ---- */

/* Its context may be gone: then so is all that was in it. */
static void end(struct cuda_device *d, bool alive)
{
    struct cuda_scope scope;
    alive = alive && cuda_enter(d, "ending a device", &scope) == RAIL_OK;
    cuda_kernels_end(d, alive);
    cuda_events_end(d, alive);
    if (d->state->stream) {
        if (alive) d->driver->stream_destroy(d->state->stream);
        atomic_fetch_sub(&cuda_counts.streams, 1);
    }
    if (alive) cuda_leave(&scope);
    pthread_mutex_destroy(&d->state->lock);
    free(d->state);
    free(d);
}

static void unlist(struct cuda_device *d)
{
    struct cuda_device **at = &devices;
    while (*at && *at != d) at = &(*at)->state->next;
    if (*at) *at = d->state->next;
}

/* ---- the beginning of one ---- */

/* A retain of ours if the context is the device's primary one. */
static bool retain_if_primary(const struct cuda_driver *driver, cu_device device, cu_context context)
{
    unsigned flags;
    int active = 0;
    cu_context primary;
    if (driver->primary_state(device, &flags, &active) != CU_SUCCESS || !active) return false;
    if (driver->primary_retain(&primary, device) != CU_SUCCESS) return false;
    if (primary == context) return true;
    driver->primary_release(device);
    return false;
}

static cu_result fill(struct cuda_device *d, bool retained)
{
    cu_result result = describe(d);
    if (result != CU_SUCCESS) return result;
    d->primary = retained || retain_if_primary(d->driver, d->device, d->context);
    result = d->driver->stream_create(&d->state->stream, CU_STREAM_NO_LEGACY_SYNC, 0);
    if (result == CU_SUCCESS) {
        atomic_fetch_add(&cuda_counts.streams, 1);
    } else {
        d->state->stream = NULL;
        if (d->primary && !retained) d->driver->primary_release(d->device);
    }
    return result;
}

/* `retained`: the context is a primary one that we hold; on failure the caller still does. */
static enum rail_result make(const char *call, const struct cuda_driver *driver, cu_context context, bool retained,
                             struct cuda_device **out)
{
    struct cuda_device *d = calloc(1, sizeof *d);
    struct cuda_state *state = calloc(1, sizeof *state);
    if (!d || !state) {
        free(d);
        free(state);
        return rail_fail(RAIL_E_SYSTEM, "%s: out of memory", call);
    }
    *d = (struct cuda_device){.driver = driver, .context = context, .state = state};
    pthread_mutex_init(&state->lock, NULL);
    struct cuda_scope scope;
    enum rail_result result = cuda_enter(d, call, &scope);
    if (result == RAIL_OK) {
        result = cuda_fail(driver, call, fill(d, retained), "looking at the device of context %p", (void *)context);
        cuda_leave(&scope);
    }
    if (result != RAIL_OK) {
        end(d, false);
        return result;
    }
    RAIL_INFO(RAIL_INIT, "GPU %d: %s, %s, compute capability %d.%d, %d SMs, %zu MiB", d->ordinal, d->name, d->bus_id,
              d->major, d->minor, d->n_sms, d->memory_bytes >> 20);
    *out = d;
    return RAIL_OK;
}

/* ---- finding ---- */

static bool is_of(const struct cuda_device *d, const struct cuda_driver *driver, cu_context context)
{
    unsigned long long id = 0;
    if (d->context != context) return false;
    return !d->context_id || (driver->context_id(context, &id) == CU_SUCCESS && id == d->context_id);
}

/* Those that nobody holds, whose context has since been made anew at the same address. */
static void forget_outlived(const struct cuda_driver *driver, cu_context context)
{
    for (struct cuda_device *d = devices, *next; d; d = next) {
        next = d->state->next;
        if (d->state->holds || d->context != context || is_of(d, driver, context)) continue;
        unlist(d);
        end(d, false);
    }
}

/* Under the lock. `retained` as above; consumed on success. */
static enum rail_result find_or_make(const char *call, const struct cuda_driver *driver, cu_context context,
                                     bool retained, struct cuda_device **out) {
    struct cuda_device *d = devices;
    while (d && !is_of(d, driver, context)) d = d->state->next;
    if (!d) {
        forget_outlived(driver, context);
        RAIL_TRY(make(call, driver, context, retained, &d));
        d->state->next = devices;
        devices = d;
    } else if (d->state->holds > 0) {
        if (retained) driver->primary_release(d->device);
    } else {
        d->primary = retained || retain_if_primary(driver, d->device, context);
    }
    if (d->state->holds++ == 0) atomic_fetch_add(&cuda_counts.devices, 1);
    *out = d;
    return RAIL_OK;
}

static enum rail_result of_primary(const char *call, const struct cuda_driver *driver, struct cuda_device **out)
{
    cu_context context;
    cu_device device;
    cu_result got = driver->device_get(&device, 0);
    if (got != CU_SUCCESS) return cuda_fail(driver, call, got, "cuDeviceGet(0)");
    got = driver->primary_retain(&context, device);
    if (got != CU_SUCCESS) return cuda_fail(driver, call, got, "cuDevicePrimaryCtxRetain(device 0)");
    enum rail_result result = find_or_make(call, driver, context, true, out);
    if (result != RAIL_OK) driver->primary_release(device);
    return result;
}

enum rail_result cuda_device_current(const char *call, struct cuda_device **out)
{
    const struct cuda_driver *driver;
    cu_context context = NULL;
    *out = NULL;
    RAIL_TRY(cuda_driver_get(call, &driver));
    cu_result got = driver->context_current(&context);
    if (got != CU_SUCCESS) return cuda_fail(driver, call, got, "cuCtxGetCurrent");
    pthread_mutex_lock(&lock);
    enum rail_result result = context ? find_or_make(call, driver, context, false, out) : of_primary(call, driver, out);
    pthread_mutex_unlock(&lock);
    return result;
}

void cuda_device_hold(struct cuda_device *device)
{
    pthread_mutex_lock(&lock);
    device->state->holds++;
    pthread_mutex_unlock(&lock);
}

/* Will others keep the context when we no longer do? */
static bool lives_on(struct cuda_device *d)
{
    unsigned flags;
    int active = 0;
    if (!d->context_id) return false;
    if (!d->primary) return true; /* the application's own */
    return d->driver->primary_state(d->device, &flags, &active) == CU_SUCCESS && active;
}

void cuda_device_drop(struct cuda_device *device)
{
    if (!device) return;
    pthread_mutex_lock(&lock);
    if (--device->state->holds == 0) {
        atomic_fetch_sub(&cuda_counts.devices, 1);
        const struct cuda_driver *driver = device->driver;
        cu_device number = device->device;
        bool primary = device->primary;
        /* Without a number for contexts nothing outlives us; it ends while our hold still keeps the context. */
        if (!device->context_id) {
            unlist(device);
            end(device, true);
            device = NULL;
        }
        if (primary) driver->primary_release(number);
        if (device && !lives_on(device)) { /* the context went with our hold */
            unlist(device);
            end(device, false);
        }
    }
    pthread_mutex_unlock(&lock);
}
