/* predict.h - how long calls would take, without running them: no link is opened, no other rank is asked. */
#ifndef RAIL_CORE_PREDICT_H
#define RAIL_CORE_PREDICT_H

#include "core/collective.h"
#include "core/comm.h"

/* The plans that the call would run, all ranks', against clocks (plan/cost.h); between hosts whose NICs' rates are
 * known laid over these (predict_network.h). AlltoAll between hosts has no plan: its messages (simulate/messages.h). */
enum rail_result predict_collective(const struct comm *comm, const struct collective *args, double *ns);

/* Messages of one direction between this rank and others, within its node and beyond. */
struct predict_traffic { uint64_t messages[2], bytes[2]; }; /* [0] within the node, [1] between nodes */
/* Both directions side by side: hops overlap, bytes queue for memory and wire. */
double predict_messages(const struct comm *comm, const struct predict_traffic *sent,
                        const struct predict_traffic *received);

#endif
