/* reach.c - see reach.h. */
#include "core/reach.h"

#include <string.h>

#define LOOK_EVERY_NS (200 * RAIL_NS_PER_MS)
/* No lane for so long. Lanes take up to 1 s to find a rail silent, so that this is as late as the tree is to find the
 * same (BOOTSTRAP_LOST_MS), or later, and its reason weighs as much. */
#define PATIENCE_NS (1300 * RAIL_NS_PER_MS)
enum { TROUBLES_MAX = 8 }; /* of many peers some will do: the host that most accuse is lost */

static void accuse(struct comm *comm, const uint8_t process[NET_PROCESS_ID_BYTES], const char *text)
{
    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        if (memcmp(comm->members[r].process, process, NET_PROCESS_ID_BYTES) != 0) continue;
        bootstrap_accuse(comm->bootstrap, r, BOOTSTRAP_UNREACHABLE, text);
        return;
    }
}

void reach_look(struct comm *comm)
{
    struct net_trouble troubles[TROUBLES_MAX];
    uint64_t now_ns = rail_now_ns();
    if (!comm->networked || now_ns < comm->next_reach_ns) return;
    comm->next_reach_ns = now_ns + LOOK_EVERY_NS;
    uint32_t n = net_troubles(comm->wires.comm_key, troubles, TROUBLES_MAX);
    for (uint32_t i = 0; i < n && i < TROUBLES_MAX && troubles[i].unreachable; i++)
        if (now_ns - troubles[i].since_ns >= PATIENCE_NS) accuse(comm, troubles[i].process, troubles[i].text);
}
