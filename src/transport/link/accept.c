/* accept.c - links that the far end opens and nobody here waits for (struct net_acceptor in net.h).
 *
 *   OPEN ──> an acceptor of this communicator, rank and channel? ──> a receiving end is made on the spot
 *   slot complete, in order ──> deliver() ──> credit
 *
 * There is no owner who would wait and release: the driver does both. */
#include <string.h>

#include "transport/link/net_state.h"

/* NULL also for a process that names a rank of another. */
static struct net_acceptor *acceptor_of(const struct net_peer *peer, const struct frame_open *open)
{
    struct net_acceptor *a = peer->net->acceptors;
    while (a && (a->comm_key != open->comm_key || a->to != open->to || a->channel != open->channel)) a = a->next;
    if (!a || open->from >= a->n_peers) return NULL;
    return memcmp(a->peers[open->from].process, peer->process, NET_PROCESS_ID_BYTES) == 0 ? a : NULL;
}

bool accept_open(struct net_peer *peer, const struct frame_open *open, uint32_t number)
{
    struct net_acceptor *a = acceptor_of(peer, open);
    if (!a) return false;
    const struct net_link_request request = {
        .comm_key = a->comm_key,
        .from = open->from,
        .to = a->to,
        .channel = a->channel,
        .n_slots = a->n_slots,
        .slot_bytes = a->slot_bytes,
    };
    struct net_link *l = link_make(peer->net, &request);
    if (!l) return false;
    l->peer = peer;
    if (peer_link_add(peer, l) != RAIL_OK) {
        link_free(l);
        return false;
    }
    l->acceptor = a;
    l->accepted_next = a->links;
    a->links = l;
    link_matched(l, open, number);
    return true;
}

void accept_deliver(struct net_link *l, const struct net_slot *slot, const void *memory)
{
    if (atomic_load_explicit(&l->failed, memory_order_relaxed) != 0) return;
    const struct net_acceptor *a = l->acceptor;
    enum rail_result result = a->deliver(a->owner, l->base.from, memory, slot->bytes);
    if (result != RAIL_OK) link_fail(l, result, rail_own_error());
}

/* OPENs that came before the acceptor. */
static void take_early(struct net_peer *peer)
{
    for (uint32_t i = 0; i < peer->n_early;) {
        struct net_early early = peer->early[i];
        if (accept_open(peer, &early.open, early.number))
            peer->early[i] = peer->early[--peer->n_early];
        else
            i++;
    }
}

enum rail_result net_accept_on(struct net *net, struct net_acceptor *acceptor)
{
    pthread_mutex_lock(&net->lock);
    enum rail_result result = net_listen(net);
    if (result == RAIL_OK) {
        acceptor->net = net;
        acceptor->links = NULL;
        acceptor->next = net->acceptors;
        net->acceptors = acceptor;
        for (struct net_peer *p = net->peers; p; p = p->next) take_early(p);
        net_touch(net);
        atomic_store(&net->kicked, true); /* send ACCEPT on the way out */
    }
    net_unlock(net);
    return result;
}

void net_accept_end(struct net_acceptor *acceptor)
{
    struct net *net = acceptor->net;
    if (!net || atomic_load(&net->abandoned)) return; /* in a forked child: the links are the parent's */
    pthread_mutex_lock(&net->lock);
    for (struct net_acceptor **at = &net->acceptors; *at; at = &(*at)->next)
        if (*at == acceptor) {
            *at = acceptor->next;
            break;
        }
    for (struct net_link *l = acceptor->links, *next; l; l = next) {
        next = l->accepted_next;
        l->acceptor = NULL;
        link_close(l);
    }
    acceptor->links = NULL;
    acceptor->net = NULL;
    net_unlock(net);
}
