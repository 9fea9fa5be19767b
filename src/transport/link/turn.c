/* turn.c - whose turn it is on the lanes to a peer process.
 *
 * Links that have something to say stand in a ring and take turns by bytes (send.c). Links that owe credit stand in a
 * list, the urgent ones in front; credit rides on any frame, and goes alone when it is urgent. */
#include "transport/link/net_state.h"

static void list_remove(struct net_link **first, struct net_link **last, struct net_link *l, size_t next_offset)
{
    struct net_link *before = NULL;
    for (struct net_link *i = *first; i;) {
        struct net_link **next = (struct net_link **)(void *)((char *)i + next_offset);
        if (i == l) {
            if (before)
                *(struct net_link **)(void *)((char *)before + next_offset) = *next;
            else
                *first = *next;
            if (*last == l) *last = before;
            *next = NULL;
            return;
        }
        before = i;
        i = *next;
    }
}

void peer_activate(struct net_peer *peer)
{
    if (peer->active) return;
    peer->active = true;
    peer->next_active = peer->net->active;
    peer->net->active = peer;
}

void peer_ring(struct net_link *l)
{
    struct net_peer *peer = l->peer;
    peer_activate(peer);
    if (l->ringed) return;
    l->ringed = true;
    l->turn_bytes = 0;
    l->ring_next = NULL;
    if (peer->ring_last)
        peer->ring_last->ring_next = l;
    else
        peer->ring_first = l;
    peer->ring_last = l;
}

void turn_ended(struct net_peer *peer)
{
    struct net_link *l = peer->ring_first;
    peer->ring_first = l->ring_next;
    if (!peer->ring_first) peer->ring_last = NULL;
    l->ring_next = NULL;
    l->ringed = false;
}

void peer_owe(struct net_link *l, bool urgent)
{
    struct net_peer *peer = l->peer;
    if (l->remote == 0 || l->closed) return;
    if (urgent) peer_activate(peer);
    if (l->owing) {
        if (!urgent || l->urgent) return;
        list_remove(&peer->owing_first, &peer->owing_last, l, offsetof(struct net_link, owing_next));
    } else {
        l->owing_tick = peer->net->tick_number;
    }
    l->owing = true;
    l->urgent = urgent;
    peer->n_urgent += urgent;
    if (urgent) {
        l->owing_next = peer->owing_first;
        peer->owing_first = l;
        if (!peer->owing_last) peer->owing_last = l;
        return;
    }
    l->owing_next = NULL;
    if (peer->owing_last)
        peer->owing_last->owing_next = l;
    else
        peer->owing_first = l;
    peer->owing_last = l;
}

void turn_forget(struct net_link *l)
{
    struct net_peer *peer = l->peer;
    if (l->ringed) list_remove(&peer->ring_first, &peer->ring_last, l, offsetof(struct net_link, ring_next));
    if (!l->owing) return;
    list_remove(&peer->owing_first, &peer->owing_last, l, offsetof(struct net_link, owing_next));
    peer->n_urgent -= l->urgent;
}

/* ---- credit ---- */

void credit_put(struct net_link *l, struct frame *frame)
{
    uint64_t released = direct_credit(l, atomic_load_explicit(&l->released, memory_order_acquire));
    frame->credit_link = l->remote;
    frame->credit_sequence = (uint32_t)released;
    atomic_store_explicit(&l->credit_sent, released, memory_order_relaxed);
}

void credit_ride(struct net_peer *peer, struct frame *frame)
{
    struct net_link *l = peer->owing_first;
    if (!l) return;
    peer->owing_first = l->owing_next;
    if (!peer->owing_first) peer->owing_last = NULL;
    peer->n_urgent -= l->urgent;
    l->owing = l->urgent = false;
    credit_put(l, frame);
}
