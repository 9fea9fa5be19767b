/* control.c - frames that must arrive in order and once: OPEN, ACCEPT, REFUSE, CLOSE, BITMAPS, LANE_DOWN.
 *
 *   say --> [ unacknowledged | not on a lane yet ] --> the control lane --> number is due: taken
 *                  ^ the lane died: from here again         number was before: skipped
 *
 * All travel on one lane, the first that was up, and on another one only when that has ended; while it leaves they wait: it
 * ends when the far end has read all of it. They are numbered in each direction from the beginning of a set of lanes and
 * kept until acknowledged, so that it does not matter which of them a dead lane has brought. Acknowledgements ride on
 * control frames and CREDIT; after a tick without any a CREDIT goes for their sake. */
#include <stdlib.h>
#include <string.h>

#include "transport/link/net_state.h"

bool control_say(struct net_peer *peer, const struct frame *frame, const void *payload)
{
    if (peer->n_says == peer->says_room) {
        uint32_t room = peer->says_room ? 2 * peer->says_room : 16;
        struct net_control *says = realloc(peer->says, room * sizeof *says);
        if (!says) {
            peer->torn = true; /* mend_tick */
            net_touch(peer->net);
            return false;
        }
        peer->says = says;
        peer->says_room = room;
    }
    struct net_control *say = &peer->says[peer->n_says++];
    say->frame = *frame;
    if (frame->payload_bytes > 0) memcpy(say->payload, payload, frame->payload_bytes);
    return true;
}

static void forget(struct net_peer *peer, uint32_t n)
{
    peer->n_says -= n;
    peer->n_said -= n < peer->n_said ? n : peer->n_said;
    peer->says_number += n;
    memmove(peer->says, peer->says + n, peer->n_says * sizeof *peer->says);
}

static struct net_lane *control_lane(struct net_peer *peer)
{
    for (uint32_t i = 0; i < peer->n_lanes && !peer->control; i++)
        if (net_takes_frames(peer->lanes[i]) && !peer->lanes[i]->newcomer) peer->control = peer->lanes[i];
    return net_takes_frames(peer->control) ? peer->control : NULL;
}

bool control_send(struct net_peer *peer)
{
    if (peer->n_said == peer->n_says) return false;
    struct net_lane *lane = control_lane(peer);
    if (!lane) return true;
    while (peer->n_said < peer->n_says && !lane_out_full(&lane->lane)) {
        const struct net_control *say = &peer->says[peer->n_said];
        struct frame frame = say->frame;
        if (frame.credit_link == 0) credit_ride(peer, &frame);
        if (net_mends(peer)) {
            frame.signature = frame_control(peer->says_number + peer->n_said, peer->heard_number);
            peer->told_number = peer->heard_number;
        }
        lane_queue(&lane->lane, &frame, say->payload, NULL);
        peer->n_said++;
    }
    if (!net_mends(peer)) forget(peer, peer->n_said);
    return peer->n_said < peer->n_says;
}

void control_lane_gone(struct net_peer *peer)
{
    peer->control = NULL;
    peer->n_said = 0;
}

void control_reset(struct net_peer *peer)
{
    control_lane_gone(peer);
    peer->n_says = 0;
    peer->says_number = peer->heard_number = peer->told_number = 0;
}

uint64_t control_acknowledge(struct net_peer *peer)
{
    if (!net_mends(peer)) return 0;
    peer->told_number = peer->heard_number;
    return frame_control(0, peer->heard_number);
}

bool control_owes(struct net_peer *peer)
{
    return peer->told_number != peer->heard_number && peer->told_tick != peer->net->tick_number;
}

enum rail_result control_heard_ack(struct lane *lane, const struct frame *frame)
{
    struct net_peer *peer = ((struct net_lane *)lane->user)->peer;
    if (!net_mends(peer)) return RAIL_OK;
    int32_t n = (int32_t)((uint32_t)(frame->signature >> 32) - peer->says_number);
    if (n <= 0) return RAIL_OK; /* older than another, which a faster lane brought */
    if ((uint32_t)n > peer->n_says)
        return net_violation(lane, "%d control frames acknowledged, of which %u are out", n, peer->n_says);
    forget(peer, (uint32_t)n);
    return RAIL_OK;
}

enum rail_result control_admit(struct lane *lane, const struct frame *frame)
{
    struct net_peer *peer = ((struct net_lane *)lane->user)->peer;
    if (!net_mends(peer)) return RAIL_OK;
    RAIL_TRY(control_heard_ack(lane, frame));
    int32_t ahead = (int32_t)((uint32_t)frame->signature - peer->heard_number);
    if (ahead < 0) return RAIL_NOT_YET;
    if (ahead > 0)
        return net_violation(lane, "control frame %u where %u is due", (uint32_t)frame->signature, peer->heard_number);
    if (peer->told_number == peer->heard_number) peer->told_tick = peer->net->tick_number;
    peer->heard_number++;
    net_touch(peer->net);
    return RAIL_OK;
}
