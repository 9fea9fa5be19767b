/* lldp_state.h - shared by the readers of LLDP; nobody else includes it. */
#ifndef RAIL_TOPO_LLDP_STATE_H
#define RAIL_TOPO_LLDP_STATE_H

#include "topo/lldp.h"

/* Makes the texts printable, the chassis lower case, and adds it unless there is no more room. */
void lldp_add(struct lldp_table *table, const struct lldp_neighbour *neighbour);

#endif
