/* predict_network.h - a call's time over the network that a communicator knows: the NICs of its nodes and their rates,
 * plans laid over them (simulate/). */
#ifndef RAIL_CORE_PREDICT_NETWORK_H
#define RAIL_CORE_PREDICT_NETWORK_H

#include "core/collective.h"
#include "core/comm.h"
#include "plan/cost.h"
#include "simulate/job.h"

enum { PREDICT_NODES_MAX = 4096 }; /* the comparison of hosts grows with the square */

/* Whether enough is known: several nodes, each a host of its own, all with NICs on the same rails, every rate told. */
bool predict_network_known(const struct comm *comm);
/* Only where that is so. Leaves are taken to carry what their NICs send; what is above them is not known. */
enum rail_result predict_network(const struct comm *comm, const struct collective *args, struct choice choice,
                                 const struct plan_rates *rates, double *ns);

#endif
