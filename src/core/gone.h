/* gone.h - members that cannot come any more, because their process is no more. */
#ifndef RAIL_CORE_GONE_H
#define RAIL_CORE_GONE_H

#include "core/comm.h"

/* For bootstrap_config.in_vain; `kin` is a struct comm_kin. RAIL_E_REMOTE with a text that names, by their numbers in the
 * old communicator, those of the next 64 members that are gone. */
enum rail_result gone_ask(void *kin);

/* Writes the ranks, [n_ranks], of those members that are gone, ascending, and how many. */
void comm_gone(const struct comm *comm, int *ranks, int *n);

#endif
