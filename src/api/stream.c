/* stream.c - the doors of host memory's streams: railccl's own calls. */
#include "core/stream.h"

#include "api/door.h"
#include "railccl.h"

static struct stream *stream_of(cudaStream_t stream) { return (struct stream *)(void *)stream; }

static enum rail_result create(cudaStream_t *out)
{
    struct stream *made;
    if (!out) return rail_fail(RAIL_E_ARGUMENT, "railStreamCreate: stream is NULL");
    RAIL_TRY(stream_create(&made));
    *out = (cudaStream_t)(void *)made;
    return RAIL_OK;
}

RAIL_OWN_DOOR(railStreamCreate)
ncclResult_t railStreamCreate(cudaStream_t *stream)
{
    struct door door = door_open();
    return door_close(door, create(stream));
}

RAIL_OWN_DOOR(railStreamSynchronize)
ncclResult_t railStreamSynchronize(cudaStream_t stream)
{
    struct door door = door_open();
    return door_close(door, stream_synchronize(stream_of(stream)));
}

RAIL_OWN_DOOR(railStreamQuery)
ncclResult_t railStreamQuery(cudaStream_t stream)
{
    struct door door = door_open();
    return door_close(door, stream_query(stream_of(stream)));
}

RAIL_OWN_DOOR(railStreamDestroy)
ncclResult_t railStreamDestroy(cudaStream_t stream)
{
    struct door door = door_open();
    return door_close(door, stream_destroy(stream_of(stream)));
}
