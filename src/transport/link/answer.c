/* answer.c - when a host was heard of last, for those who would take it for lost. */
#include <string.h>

#include "transport/link/net_state.h"

uint64_t net_answered_on(struct net *net, const uint8_t process[NET_PROCESS_ID_BYTES])
{
    uint64_t at_ns = 0, now_ns = rail_now_ns();
    pthread_mutex_lock(&net->lock);
    for (uint32_t i = 0; i < net->n_up; i++) {
        struct lane_figures f;
        const struct net_lane *lane = net->up[i];
        if (memcmp(lane->peer->process, process, NET_PROCESS_ID_BYTES) != 0 || !lane_figures(&lane->lane, &f)) continue;
        if (f.answered_ns < now_ns && now_ns - f.answered_ns > at_ns) at_ns = now_ns - f.answered_ns;
    }
    net_unlock(net);
    return at_ns;
}

uint64_t net_answered_ns(const uint8_t process[NET_PROCESS_ID_BYTES])
{
    struct net *net = net_default();
    return net ? net_answered_on(net, process) : 0;
}
