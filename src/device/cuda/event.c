/* event.c - a device's pool of events. */
#include <stdlib.h>

#include "device/cuda/state.h"

static enum rail_result make(struct cuda_device *device, const char *call, cu_event *out)
{
    struct cuda_scope scope;
    *out = NULL;
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = device->driver->event_create(out, CU_EVENT_NO_TIMING);
    cuda_leave(&scope);
    if (got != CU_SUCCESS) {
        *out = NULL;
        return cuda_fail(device->driver, call, got, "cuEventCreate on device %d", device->ordinal);
    }
    atomic_fetch_add(&cuda_counts.events, 1);
    return RAIL_OK;
}

/* Without a context there is nothing to destroy: the event went with it. */
static void end(struct cuda_device *device, cu_event event, bool alive)
{
    struct cuda_scope scope;
    atomic_fetch_sub(&cuda_counts.events, 1);
    if (!alive || cuda_enter(device, "cuEventDestroy", &scope) != RAIL_OK) return;
    device->driver->event_destroy(event);
    cuda_leave(&scope);
}

/* False: no memory for the pool to grow. */
static bool put(struct cuda_state *state, cu_event event)
{
    if (state->n_events == state->room) {
        int room = state->room ? 2 * state->room : 16;
        cu_event *more = realloc(state->events, (size_t)room * sizeof(*more));
        if (!more) return false;
        state->events = more;
        state->room = room;
    }
    state->events[state->n_events++] = event;
    return true;
}

enum rail_result cuda_event_take(struct cuda_device *device, const char *call, cu_event *out)
{
    struct cuda_state *state = device->state;
    pthread_mutex_lock(&state->lock);
    *out = state->n_events ? state->events[--state->n_events] : NULL;
    pthread_mutex_unlock(&state->lock);
    return *out ? RAIL_OK : make(device, call, out);
}

void cuda_event_give(struct cuda_device *device, cu_event event)
{
    struct cuda_state *state = device->state;
    if (!event) return;
    pthread_mutex_lock(&state->lock);
    bool kept = put(state, event);
    pthread_mutex_unlock(&state->lock);
    if (!kept) end(device, event, true);
}

enum rail_result cuda_events_prepare(struct cuda_device *device, const char *call, int n)
{
    pthread_mutex_lock(&device->state->lock);
    int missing = n - device->state->n_events;
    pthread_mutex_unlock(&device->state->lock);
    for (; missing > 0; missing--) {
        cu_event event;
        RAIL_TRY(make(device, call, &event));
        cuda_event_give(device, event);
    }
    return RAIL_OK;
}

void cuda_events_end(struct cuda_device *device, bool alive)
{
    struct cuda_state *state = device->state;
    while (state->n_events) end(device, state->events[--state->n_events], alive);
    free(state->events);
    state->events = NULL;
    state->room = 0;
}

enum rail_result cuda_event_record(struct cuda_device *device, const char *call, cu_event event, cu_stream stream)
{
    struct cuda_scope scope;
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = device->driver->event_record(event, stream);
    cuda_leave(&scope);
    return cuda_fail(device->driver, call, got, "cuEventRecord(stream %p) on device %d", (void *)stream,
                     device->ordinal);
}

enum rail_result cuda_event_done(struct cuda_device *device, const char *call, cu_event event)
{
    struct cuda_scope scope;
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = device->driver->event_query(event);
    cuda_leave(&scope);
    if (got == CU_E_NOT_READY) return RAIL_NOT_YET;
    return cuda_fail(device->driver, call, got, "cuEventQuery on device %d", device->ordinal);
}
