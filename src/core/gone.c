/* gone.c - see gone.h.
 *
 * Who has lost a neighbour in the tree hears of it at once; who has not met it yet would wait until the deadline. And
 * the others, who know, would be waiting for that one in their next attempt. So whoever waits asks all members, a
 * stretch at a time. */
#include "core/gone.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

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
    if (used == 0) return RAIL_OK;
    return rail_fail_quietly(RAIL_E_REMOTE, "of the old communicator's processes these are gone, too: %s", list);
}

/* ---- for the program ---- */

/* The news of a death may be here before the dying process has closed its last socket, and a host's processes do not
 * die in the same microsecond: two looks must agree. */
enum { LOOKS = 6 };
#define PAUSE_NS (20 * RAIL_NS_PER_MS)

/* Of the process that the news calls dead. Its ports tell nothing: they may be another process's by now. */
static bool is_told(const struct comm *comm, uint32_t rank)
{
    uint32_t dead = atomic_load(&comm->dead);
    const struct member *m = comm->members;
    return dead && memcmp(m[rank].process, m[dead - 1].process, sizeof m->process) == 0;
}

/* One stretch of members. Who does not answer, and is named by the news, is gone with its host. */
static uint32_t look(const struct comm *comm, uint32_t first, uint32_t n, int *out)
{
    struct alive_asked asked[ALIVE_AT_ONCE];
    uint32_t found = 0, blamed = atomic_load(&comm->blamed);
    for (uint32_t i = 0; i < n; i++) {
        const struct member *m = &comm->members[first + i];
        asked[i] = (struct alive_asked){.place = &m->place, .same_host = m->host == machine_host_key()};
    }
    alive_ask(asked, n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t rank = first + i;
        bool with_host = asked[i].silent && rank + 1 == blamed;
        if (rank != comm->rank && (asked[i].gone || with_host || is_told(comm, rank))) out[found++] = (int)rank;
    }
    return found;
}

void comm_gone(const struct comm *comm, int *ranks, int *n)
{
    bool named = atomic_load(&comm->blamed) != 0;
    uint32_t found = 0, before = 0;
    for (int i = 0; i < LOOKS; i++, before = found) {
        found = 0;
        for (uint32_t at = 0; at < comm->n_ranks; at += ALIVE_AT_ONCE) {
            uint32_t left = comm->n_ranks - at;
            found += look(comm, at, left < ALIVE_AT_ONCE ? left : ALIVE_AT_ONCE, ranks + found);
        }
        if ((found && found == before) || !named) break;
        struct timespec t = {0, PAUSE_NS};
        nanosleep(&t, NULL);
    }
    *n = (int)found;
}
