/* session.c - what two neighbours in the tree say to one another, over one connection after the other.
 *
 * Frames are counted at both ends and kept by their sender until the other end has said how many it has (BEAT). When a
 * connection was replaced, each end hears what the other has got, and sends the rest again:
 *
 *   child  --CHILD(number)--> parent                 over the new connection
 *          <--ADOPTED(received)--                     the parent takes nothing from the old one any more
 *          --BEAT(received)-->                        nor does the child; then what is missing, both ways
 *
 * A frame of which a part had arrived comes whole again. Kept are few: a BEAT comes every 300 ms from another host,
 * and at once after ACK_FRAMES frames or ACK_BYTES bytes. Payloads are shared with whoever else holds them. */
#include <stdlib.h>
#include <string.h>

#include "base/result.h"
#include "bootstrap/state.h"

enum { ACK_FRAMES = 8, ACK_BYTES = 64 << 10 };

struct kept {
    struct kept *next;
    uint64_t number; /* 1: the first of the session */
    enum frame_type type;
    uint32_t sequence;
    struct blob *payload;
};

bool session_is_counted(uint32_t type) { return type != FRAME_CHILD && type != FRAME_ADOPTED && type != FRAME_BEAT; }

enum rail_result peer_queue(struct tree_peer *peer, enum frame_type type, uint32_t sequence, struct blob *payload)
{
    if (!peer->present || peer->lost) return RAIL_OK;
    struct kept *kept = malloc(sizeof *kept);
    if (!kept) return rail_fail(RAIL_E_SYSTEM, "bootstrap: out of memory for a message");
    *kept = (struct kept){.number = ++peer->sent, .type = type, .sequence = sequence, .payload = blob_hold(payload)};
    if (peer->kept_last)
        peer->kept_last->next = kept;
    else
        peer->kept_first = kept;
    peer->kept_last = kept;
    return peer->holding ? RAIL_OK : conn_queue(&peer->conn, type, sequence, payload);
}

enum rail_result peer_queue_copy(struct tree_peer *peer, enum frame_type type, uint32_t sequence, const void *bytes,
                                 size_t n)
{
    struct blob *blob;
    RAIL_TRY(blob_copy(bytes, n, &blob));
    enum rail_result result = peer_queue(peer, type, sequence, blob);
    blob_drop(blob);
    return result;
}

void session_beat(struct tree_peer *peer)
{
    const struct wire_beat beat = {.received = peer->received};
    if (conn_queue_copy(&peer->conn, FRAME_BEAT, 0, &beat, sizeof beat) != RAIL_OK) return;
    peer->told = peer->received;
    peer->untold_bytes = 0;
    conn_flush(&peer->conn);
}

void session_took(struct tree_peer *peer, const struct frame_head *head)
{
    peer->received++;
    peer->untold_bytes += head->bytes;
    if (peer->received - peer->told >= ACK_FRAMES || peer->untold_bytes >= ACK_BYTES) session_beat(peer);
}

static void drop_first(struct tree_peer *peer)
{
    struct kept *kept = peer->kept_first;
    peer->kept_first = kept->next;
    if (!peer->kept_first) peer->kept_last = NULL;
    blob_drop(kept->payload);
    free(kept);
}

bool session_acked(struct tree_peer *peer, uint64_t received)
{
    if (received > peer->sent) return false;
    while (peer->kept_first && peer->kept_first->number <= received) drop_first(peer);
    return true;
}

bool session_resume(struct tree_peer *peer, uint64_t received)
{
    uint64_t first = peer->kept_first ? peer->kept_first->number : peer->sent + 1;
    if (received + 1 < first || !session_acked(peer, received)) return false; /* it had more than that once */
    peer->holding = false;
    for (const struct kept *k = peer->kept_first; k; k = k->next)
        if (conn_queue(&peer->conn, k->type, k->sequence, k->payload) != RAIL_OK) return false;
    conn_flush(&peer->conn);
    return true;
}

void session_drop(struct tree_peer *peer)
{
    while (peer->kept_first) drop_first(peer);
}
