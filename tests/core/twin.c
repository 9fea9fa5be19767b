/* twin.c - the door into a second library in the same process: one with a network, parameters and communicators of its own, as
 * another process has. So devices that exist in the memory of one process (support/fault_verbs.h) connect two ranks. */
#include "foreign/ibverbs.h"

#include "base/params.h"

void twin_wake(const struct ibverbs *devices);

/* Reads the environment as it is now, and uses these devices. */
void twin_wake(const struct ibverbs *devices)
{
    rail_params_reload();
    ibverbs_replace(devices);
}
