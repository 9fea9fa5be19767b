/* trouble.c - what is wrong with the lanes to the peers of a communicator, for those who have to say whom it waits for. */
#include <stdio.h>
#include <string.h>

#include "transport/link/net_state.h"

static bool needs(const struct net_peer *peer, uint64_t comm_key)
{
    for (uint32_t i = 0; i < peer->n_places; i++) {
        const struct net_link *l = peer->places[i].link;
        if (l && !l->closed && l->comm_key == comm_key && l->remote_finished == UINT64_MAX &&
            atomic_load_explicit(&l->failed, memory_order_relaxed) == 0)
            return true;
    }
    return false;
}

/* Of a lane's berths, the one that went down last; NULL: the lane is up, or never was. */
static const struct net_lane *down_of(const struct net_peer *peer, uint32_t index)
{
    const struct net_lane *down = NULL;
    for (uint32_t i = 0; i < NET_BERTHS; i++) {
        const struct net_lane *lane = peer->lanes[NET_BERTHS * index + i];
        if (lane && lane->state == NET_LANE_UP) return NULL;
        if (lane && lane->down_ns && (!down || lane->down_ns > down->down_ns)) down = lane;
    }
    return down;
}

static void tell(const struct net_lane *lane, bool unreachable, struct net_trouble *out)
{
    *out = (struct net_trouble){.unreachable = unreachable, .rail = lane->rail, .since_ns = lane->down_ns};
    memcpy(out->process, lane->peer->process, NET_PROCESS_ID_BYTES);
    snprintf(out->text, sizeof out->text, "%s", lane->down_why);
}

/* Peers that cannot be reached count once, by the lane that went last: that is when it was cut off. */
static uint32_t of_peer(const struct net_peer *peer, bool unreachable, struct net_trouble *out, uint32_t room)
{
    const struct net_lane *last = NULL;
    uint32_t n = 0;
    if ((peer->n_up == 0) != unreachable) return 0;
    for (uint32_t i = 0; i < peer->n_set && NET_BERTHS * i < peer->n_lanes; i++) {
        const struct net_lane *down = down_of(peer, i);
        if (!down) continue;
        if (!last || down->down_ns > last->down_ns) last = down;
        if (!unreachable && n++ < room) tell(down, false, &out[n - 1]);
    }
    if (!unreachable || !last) return n;
    if (room > 0) tell(last, true, out);
    return 1;
}

uint32_t net_troubles_on(struct net *net, uint64_t comm_key, struct net_trouble *out, uint32_t room)
{
    uint32_t n = 0;
    pthread_mutex_lock(&net->lock);
    for (int unreachable = 1; unreachable >= 0; unreachable--)
        for (const struct net_peer *p = net->peers; p; p = p->next)
            if (needs(p, comm_key)) n += of_peer(p, unreachable, out + (n < room ? n : room), n < room ? room - n : 0);
    net_unlock(net);
    return n;
}

uint32_t net_troubles(uint64_t comm_key, struct net_trouble *out, uint32_t room)
{
    struct net *net = net_default();
    return net ? net_troubles_on(net, comm_key, out, room) : 0;
}
