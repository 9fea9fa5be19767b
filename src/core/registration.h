/* registration.h - buffers that a program announces (ncclCommRegister). On host memory every operation takes any buffer
 * as it is; of those that are announced RDMA devices may send without a copy (transport/net.h, net_memory_add). Local; the
 * communicator's thread. */
#ifndef RAIL_CORE_REGISTRATION_H
#define RAIL_CORE_REGISTRATION_H

#include <stdbool.h>
#include <stddef.h>

#include "base/result.h"

struct registrations { struct registration *first; };

/* Registered ranges may overlap, and be the same: each call gives a handle of its own. on_device: not the host's memory. */
enum rail_result registration_add(struct registrations *all, void *address, size_t bytes, bool on_device, void **handle_out);
/* A handle that is not alive is RAIL_E_ARGUMENT. */
enum rail_result registration_end(struct registrations *all, const void *handle);
void registrations_clear(struct registrations *all);

#endif
