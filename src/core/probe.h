/* probe.h - which NICs of different hosts are near one another, measured where nobody says it.
 *
 * Every node asks two earlier ones: its parent in a tree of fan-out 4, and the one before it. So each pair of hosts is
 * joined by two ways at least, a NIC that is missing on one host does not part the others, and a node answers five at
 * most: R x R datagrams each, all nodes at once, none of them a hub.
 *
 *   node v, NIC i ── ask ──> reference w, NIC j     reachable? routers between (time to live 64, minus what came);
 *                 <─ answer ──                       where two are as far, the shortest of several round trips
 *
 * Datagrams carry a MAC under the communicator's secret and go only to addresses of its members; an answer is no longer
 * than its question, and there are no more of them than a member has reason to ask. */
#ifndef RAIL_CORE_PROBE_H
#define RAIL_CORE_PROBE_H

#include "core/comm.h"
#include "topo/nearest.h"

/* Two NICs by rank (the first of its node) and number. */
struct probe_pair { uint32_t rank_a, nic_a, rank_b, nic_b; };

enum { PROBE_MS = 500 }; /* all of it, whatever happens; 2 to 10 ms when everybody answers */

/* Collective over all ranks. *out has *n_out pairs, to free(). Fails only when the bootstrap does, or out of memory:
 * what cannot be measured is not in the list. `log` tells what was found. */
enum rail_result probe_run(struct comm *comm, struct rail_deadline deadline, struct probe_pair **out, uint32_t *n_out);

/* A NIC of a member as a socket's address; `own` is the name of our NIC that leads there (a link-local address's
 * scope). Returns its length; 0: no address. */
socklen_t probe_sockaddr(const struct net_rail_address *nic, const char *own, uint16_t port,
                         struct sockaddr_storage *out);

/* ---- the datagram, apart for its test ---- */

enum probe_kind { PROBE_ASK = 1, PROBE_ANSWER = 2, PROBE_DONE = 3 };
enum {
    PROBE_BYTES = 40,
    PROBE_MAC_BYTES = 16,
    PROBE_BLIND = 254,  /* in place of hops: this answer does not leave by its NIC, so it measures nothing */
    PROBE_UNTOLD = 255, /* the kernel did not say */
};

struct probe_datagram {
    enum probe_kind kind;
    uint8_t nic_from, nic_to, hops; /* hops: of the question, as the answerer saw it; PROBE_BLIND, PROBE_UNTOLD */
    uint32_t node_from, node_to, number;
};

void probe_write(const struct probe_datagram *d, const uint8_t key[32], uint8_t out[PROBE_BYTES]);
/* False: not ours, not under this key, or nonsense. Any bytes will do. */
bool probe_read(const uint8_t *bytes, size_t n, const uint8_t key[32], struct probe_datagram *out);

#endif
