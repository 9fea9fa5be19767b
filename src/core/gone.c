/* gone.c - see gone.h.
 *
 * Who has lost a neighbour in the tree hears of it at once; who has not met it yet would wait until the deadline. And the
 * others, who know, would be waiting for that one in their next attempt. So whoever waits asks all members, a stretch at a
 * time. */
#include "core/gone.h"

#include <stdio.h>
#include <string.h>

#include "bootstrap/alive.h"
#include "core/join.h"
#include "topo/machine.h"

enum { NAMED_BYTES = 300 };

static void name(char *list, size_t *used, const struct member *m, uint32_t rank)
{
    if (*used + 80 > NAMED_BYTES) return; /* enough are named */
    *used += (size_t)snprintf(list + *used, NAMED_BYTES - *used, "%srank %u (host %s, pid %d)", *used ? ", " : "", rank,
                              m->host_name, (int)m->pid);
}

enum rail_result gone_ask(void *owner)
{
    struct comm_kin *kin = owner;
    struct alive_asked asked[ALIVE_AT_ONCE];
    uint32_t ranks[ALIVE_AT_ONCE], n = kin->n_ranks < ALIVE_AT_ONCE ? kin->n_ranks : ALIVE_AT_ONCE;
    char list[NAMED_BYTES] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < n; i++) {
        ranks[i] = kin->ranks[(kin->asked + i) % kin->n_ranks];
        const struct member *m = &kin->members[ranks[i]];
        asked[i] = (struct alive_asked){.place = &m->place, .same_host = m->host == machine_host_key()};
    }
    kin->asked = (kin->asked + n) % kin->n_ranks;
    alive_ask(asked, n);
    for (uint32_t i = 0; i < n; i++)
        if (asked[i].gone) name(list, &used, &kin->members[ranks[i]], ranks[i]);
    return used ? rail_fail_quietly(RAIL_E_REMOTE, "of the old communicator %s is gone, too", list) : RAIL_OK;
}
