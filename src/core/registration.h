/* registration.h - buffers that a program announces (ncclCommRegister). On host memory every operation takes any buffer
 * as it is, so the handles are bookkeeping: they tell a mistake from a good call. Local; the communicator's thread. */
#ifndef RAIL_CORE_REGISTRATION_H
#define RAIL_CORE_REGISTRATION_H

#include <stddef.h>

#include "base/result.h"

struct registrations { struct registration *first; };

/* Registered ranges may overlap, and be the same: each call gives a handle of its own. */
enum rail_result registration_add(struct registrations *all, void *address, size_t bytes, void **handle_out);
/* A handle that is not alive is RAIL_E_ARGUMENT. */
enum rail_result registration_end(struct registrations *all, const void *handle);
void registrations_clear(struct registrations *all);

#endif
