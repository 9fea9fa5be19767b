/* capture.c - streams that are being captured into a graph, and who must outlive the graph. */
#include <stdlib.h>

#include "device/cuda/state.h"

enum rail_result cuda_stream_capture(struct cuda_device *device, const char *call, cu_stream stream,
                                     struct cuda_capture *out)
{
    struct cuda_scope scope;
    int status = CU_CAPTURE_NONE;
    uint64_t id = 0;
    cu_graph graph = NULL;
    *out = (struct cuda_capture){.active = false};
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = device->driver->stream_capture(stream, &status, &id, &graph, NULL, NULL);
    cuda_leave(&scope);
    if (got == CU_SUCCESS && status == CU_CAPTURE_INVALIDATED) got = CU_E_STREAM_CAPTURE_INVALIDATED;
    if (got != CU_SUCCESS)
        return cuda_fail(device->driver, call, got, "the capture of stream %p on device %d", (void *)stream,
                         device->ordinal);
    if (status == CU_CAPTURE_ACTIVE) *out = (struct cuda_capture){.active = true, .id = id, .graph = graph};
    return RAIL_OK;
}

struct tie {
    void (*released)(void *argument); /* NULL: the graph never got it */
    void *argument;
};

static void untie(void *argument)
{
    struct tie *tie = argument;
    if (tie->released) tie->released(tie->argument);
    free(tie);
}

enum rail_result cuda_capture_retain(struct cuda_device *device, const char *call, cu_graph graph,
                                     void (*released)(void *argument), void *argument)
{
    const struct cuda_driver *driver = device->driver;
    struct cuda_scope scope;
    cu_user_object object;
    struct tie *tie = malloc(sizeof *tie);
    if (!tie) return rail_fail(RAIL_E_SYSTEM, "%s: out of memory", call);
    *tie = (struct tie){released, argument};
    enum rail_result result = cuda_enter(device, call, &scope);
    if (result != RAIL_OK) {
        free(tie);
        return result;
    }
    cu_result got = driver->user_object_create(&object, tie, untie, 1, CU_USER_OBJECT_NO_SYNC);
    if (got != CU_SUCCESS) {
        free(tie);
    } else if ((got = driver->graph_retain(graph, object, 1, CU_GRAPH_RETAIN_MOVES)) != CU_SUCCESS) {
        tie->released = NULL;
        driver->user_object_release(object, 1); /* frees the tie */
    }
    cuda_leave(&scope);
    return cuda_fail(driver, call, got, "cuGraphRetainUserObject(graph %p) on device %d", (void *)graph,
                     device->ordinal);
}
