/* egress.h - by which interface the kernel sends what comes from an address. */
#ifndef RAIL_TOPO_EGRESS_H
#define RAIL_TOPO_EGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* Asks for a neighbour in the subnet of "10.0.0.1/24" (IPv4), as `ip route get NEIGHBOUR from 10.0.0.1` does. False: the
 * kernel does not say, or the subnet has no room for one. */
bool egress_of(const char *cidr, char interface_out[16]);

#endif
