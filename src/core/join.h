/* join.h - how ranks become a communicator. */
#ifndef RAIL_CORE_JOIN_H
#define RAIL_CORE_JOIN_H

#include "core/comm.h"

/* What the members of a communicator that is made of another have in common, instead of a unique id. */
struct comm_kin {
    uint8_t secret[BOOTSTRAP_SECRET_BYTES]; /* the same on all of them, and on nobody else */
    const struct member *members;           /* of the old communicator, by old rank */
    const uint32_t *ranks;                  /* [n_ranks] old ranks, by new rank */
    uint32_t n_ranks;
    uint32_t asked;                         /* gone.c's: the next of them to be asked */
};

struct comm_request {
    uint32_t rank, n_ranks;
    const uint8_t *id;          /* BOOTSTRAP_ID_BYTES; or NULL, and: */
    struct comm_kin *kin;
};

/* Joins: blocks until all ranks are there, or the deadline of RAILCCL_INIT_TIMEOUT_S, or comm->fault. `comm` is
 * comm_new()'s; on failure it holds whatever it got so far, and the ranks that it could reach have been told. */
enum rail_result comm_join(struct comm *comm, const struct comm_request *request);

/* Collective: makes the network usable for a communicator of a single node, too. */
enum rail_result comm_connect(struct comm *comm, struct rail_deadline deadline);

/* RAILCCL_INIT_TIMEOUT_S from now. */
struct rail_deadline join_deadline(void);

#endif
