/* rails.h - before the first byte travels: are the hosts' NICs on common rails, and what does the map look like? */
#ifndef RAIL_CORE_RAILS_H
#define RAIL_CORE_RAILS_H

#include "core/comm.h"

/* With everybody's members at hand and the shape built: puts the nodes into the order in which a ring leaves each leaf
 * and pod once, by the fabric file, and gives the shape its tiers. RAIL_E_USAGE when ranks read different files. */
enum rail_result rails_order(struct comm *comm);

/* With everybody's addresses at hand, on every rank: writes into them which NICs are on one rail, from what all hosts
 * know of theirs and, where that does not tell, from probes (docs/RAILS.md). Logs for each of this node's NICs which rail
 * and who says so, and (rank 0) what contradicts itself. RAIL_E_ARGUMENT: NCCL_NETDEVS_POLICY. */
enum rail_result rails_agree(struct comm *comm, struct rail_deadline deadline);

/* After that. Logs the rails (rank 0) and this rank's NICs that have no partner, at INFO.
 * RAIL_E_USAGE when a host shares no rail with this one and NCCL_CROSS_NIC=0, or has not the same rails and
 * NCCL_IGNORE_NET_MISMATCH=0; the text names both hosts and their NICs. Without effect within one node. */
enum rail_result rails_check(const struct comm *comm);

#endif
