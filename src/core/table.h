/* table.h - the chooser's table of a communicator: the built-in values, then what the program's
 * configuration says, then what the environment says. */
#ifndef RAIL_CORE_TABLE_H
#define RAIL_CORE_TABLE_H

#include "algos/algos.h"
#include "base/result.h"
#include "core/config.h"

/* Slots of every link of a communicator with or without network links. */
uint32_t table_slots(bool network);

enum rail_result table_make(struct choice_table *out, const struct shape *shape, const struct comm_config *config);
/* The communicator has one node, and its ranks read one another's buffers where they are. */
void table_direct(struct choice_table *table);

#endif
