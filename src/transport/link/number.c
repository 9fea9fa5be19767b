/* number.c - links by number, as frames name them: the index of a place in the low 20 bits, above it how often the
 * place was used, so that a late frame for a link that was closed is told from one for the link that got its place. */
#include <stdlib.h>
#include <string.h>

#include "transport/link/net_state.h"

enum { INDEX_BITS = 20, INDEX_MASK = (1 << INDEX_BITS) - 1, GENERATIONS = 1 << (32 - INDEX_BITS) };

enum rail_result peer_link_add(struct net_peer *peer, struct net_link *link)
{
    uint32_t i = 1; /* number 0 means none */
    while (i < peer->n_places && peer->places[i].link) i++;
    if (i >= peer->n_places) {
        uint32_t n = peer->n_places ? 2 * peer->n_places : 16;
        if (n > INDEX_MASK)
            return rail_fail(RAIL_E_SYSTEM, "net_link_open: more than %u links to one process", peer->n_places);
        struct net_link_place *places = realloc(peer->places, n * sizeof *places);
        if (!places) return rail_fail(RAIL_E_SYSTEM, "net_link_open: out of memory for the table of %u links", n);
        memset(places + peer->n_places, 0, (n - peer->n_places) * sizeof *places);
        peer->places = places;
        peer->n_places = n;
    }
    peer->places[i].link = link;
    link->number = (peer->places[i].generation % GENERATIONS) << INDEX_BITS | i;
    peer->n_links++;
    return RAIL_OK;
}

struct net_link *peer_link(struct net_peer *peer, uint32_t number, bool *late)
{
    struct net_link *l = peer_link_or_closed(peer, number, late);
    return *late ? NULL : l;
}

struct net_link *peer_link_or_closed(struct net_peer *peer, uint32_t number, bool *late)
{
    uint32_t i = number & INDEX_MASK;
    *late = false;
    if (i == 0 || i >= peer->n_places) return NULL;
    struct net_link *l = peer->places[i].link;
    if (l && l->number == number) {
        *late = l->closed;
        return l;
    }
    /* An earlier generation of this place was a link once. */
    uint32_t behind = (peer->places[i].generation - (number >> INDEX_BITS)) % GENERATIONS;
    *late = behind > 0 && behind < GENERATIONS / 2;
    return NULL;
}

void peer_link_remove(struct net_link *l)
{
    struct net_peer *peer = l->peer;
    turn_forget(l);
    struct net_link_place *place = &peer->places[l->number & INDEX_MASK];
    place->link = NULL;
    place->generation++;
    peer->n_links--;
}
