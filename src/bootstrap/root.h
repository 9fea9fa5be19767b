/* root.h - the meeting point behind a unique id: gathers the ranks of one communicator and tells each its parent. */
#ifndef RAIL_BOOTSTRAP_ROOT_H
#define RAIL_BOOTSTRAP_ROOT_H

#include "bootstrap/id.h"

/* Rank 0 of a fixed address: listens there. RAIL_NOT_YET (with an error text) while the port is in use. */
enum rail_result root_start_fixed(const struct unique_id *id);

#endif
