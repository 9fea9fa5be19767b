/* lane.c - what is the same on every wire: a lane's beginning and end, and the frames queued on it. */
#include "transport/lane/lane.h"

#include <unistd.h>

void lane_start(struct lane *lane, int fd, uint32_t chunk_bytes, bool hello_sent, bool hello_received)
{
    lane->ops = &lane_tcp_ops;
    lane->fd = fd;
    lane->event_fd = -1;
    lane->wire = NULL;
    lane->out_first = lane->out_count = 0;
    lane->out_done_bytes = lane->queued_bytes = 0;
    lane->out_number = hello_sent;
    lane->blocked = false;
    lane->lent = 0;
    lane->owes = false;
    lane->unacked_bytes = 0;
    lane->chunk_bytes = chunk_bytes;
    lane->room_bytes = lane_room_bytes(chunk_bytes, 0, 0);
    lane->looked_at_ns = 0;
    lane->stage_begin = lane->stage_end = 0;
    lane->in_payload = false;
    lane->in_left_bytes = 0;
    lane->in_to = NULL;
    lane->in_owner = NULL;
    lane->in_number = hello_received;
    lane->broke_rule = false;
}

bool lane_queue(struct lane *lane, struct frame *frame, const void *payload, void *owner)
{
    struct lane_out *out = &lane->out[(lane->out_first + lane->out_count++) % LANE_OUT_FRAMES];
    frame->number = lane->out_number++;
    frame_encode(out->head, frame);
    out->head_bytes = FRAME_BYTES;
    out->payload_bytes = 0;
    out->payload = NULL;
    out->owner = NULL;
    out->to = 0;
    out->lent = NULL;
    lane->queued_bytes += FRAME_BYTES + frame->payload_bytes;
    lane->sent_frames++;
    if (frame->payload_bytes <= LANE_INLINE_BYTES) {
        if (frame->payload_bytes > 0) memcpy(out->head + FRAME_BYTES, payload, frame->payload_bytes);
        out->head_bytes += frame->payload_bytes;
        return false;
    }
    out->payload = payload;
    out->payload_bytes = frame->payload_bytes;
    out->owner = owner;
    return owner != NULL;
}

void lane_queue_direct(struct lane *lane, uint64_t to, uint32_t key)
{
    struct lane_out *out = &lane->out[(lane->out_first + lane->out_count - 1) % LANE_OUT_FRAMES];
    out->to = to;
    out->to_key = key;
}

void lane_queue_lent(struct lane *lane, struct lane_memory *lent)
{
    lane->out[(lane->out_first + lane->out_count - 1) % LANE_OUT_FRAMES].lent = lent;
}

void lane_pop(struct lane *lane)
{
    lane->out_first = (lane->out_first + 1) % LANE_OUT_FRAMES;
    lane->out_count--;
    lane->out_done_bytes = 0;
}

void lane_drop_queue(struct lane *lane)
{
    while (lane->out_count > 0) {
        const struct lane_out *out = &lane->out[lane->out_first]; /* stays as it is */
        lane_pop(lane);
        if (out->owner) lane->sink->sent(lane, out->owner, out->lent);
    }
    lane->queued_bytes = 0;
}

void lane_close(struct lane *lane)
{
    if (lane->fd < 0) return;
    lane->ops->close(lane);
    close(lane->fd);
    lane->fd = -1;
    lane->in_owner = NULL;
    lane_drop_queue(lane);
}
