/* homes.h - each rank's home NIC and home rail (topo/home.h), the same on all ranks.
 *
 *   leader of a host ── looks at its machine ─┐
 *   every rank ── where its data lies ────────┴── travel with the addresses ── everybody deals out all hosts' NICs
 *
 * A rail's number is its place in the order in which the nodes' NICs name rails first (as the log's map has it); NICs whose
 * rail is unknown are numbered after them, in order. */
#ifndef RAIL_CORE_HOMES_H
#define RAIL_CORE_HOMES_H

#include "core/comm.h"
#include "topo/home.h"

/* What a rank tells beside its addresses. Plain bytes. */
struct homes_record {
    struct home_place place;
    struct home_view view; /* a host's first rank; others' is zero */
};

/* Within one node nothing is looked at unless NCCL_TOPO_FILE or NCCL_TOPO_DUMP_FILE asks for it: the file is read, and
 * errors in it are this communicator's. Then writes NCCL_TOPO_DUMP_FILE, if this is the rank to do so. */
enum rail_result homes_asked(const struct comm *comm);

/* This rank's record. Its host's first rank looks at the machine, once in a process; `here` are its addresses. */
enum rail_result homes_introduce(const struct comm *comm, const struct net_address *here, struct homes_record *out);

/* With everybody's addresses and records ([n_ranks]): fills comm->shape.rail_of and comm->home_nic, and logs them for
 * the first ranks of the host at its first rank. */
enum rail_result homes_settle(struct comm *comm, const struct homes_record *records);

/* Of what homes_settle came to: differs when ranks came to something else. */
uint64_t homes_hash(const struct comm *comm);

#endif
