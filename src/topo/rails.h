/* rails.h - which NIC here belongs with which NIC there.
 *
 * A NIC's rail is a 64-bit key that its own host works out and tells the others: equal keys are one rail, 0 is unknown.
 * Known are NICs that the fabric file places (fabric.h), else those whose subnet says something: NICs of one subnet reach
 * one another without a router. A subnet of two addresses holds a NIC and its switch, a link-local one is everywhere:
 * these say nothing. Interface names and order never enter, except between NICs of which nothing is known. */
#ifndef RAIL_TOPO_RAILS_H
#define RAIL_TOPO_RAILS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/result.h"

enum { RAILS_NICS_MAX = 16 };

/* NCCL_CROSS_NIC. */
enum rails_crossing {
    RAILS_CROSS_NEVER = 0,
    RAILS_CROSS_ALLOWED = 1, /* NICs without a partner on their rail take one another */
    RAILS_CROSS_AUTO = 2,    /* only where two hosts have no rail in common: then NIC r takes NIC r */
};

struct rail_pair {
    uint8_t here, there; /* index among the NICs of each */
    bool crossing;       /* not known to be on one rail */
};

/* The pairs of NICs that lanes may join, at most RAILS_NICS_MAX: those of one rail first (k-th of it with k-th of it, in the
 * order of `here`), then unknown with unknown, then what `crossing` adds. No NIC is in two pairs. Pure; n_here and n_there
 * at most RAILS_NICS_MAX. */
uint32_t rails_match(const uint64_t *here, uint32_t n_here, const uint64_t *there, uint32_t n_there,
                     enum rails_crossing crossing, struct rail_pair out[RAILS_NICS_MAX]);

/* Key of an address with that many network bits; 0: such a subnet does not say who shares it. */
uint64_t rails_subnet_key(const struct sockaddr_storage *address, uint32_t prefix_bits);

/* The key of a NIC of this host: what the fabric file says of it, else its subnet's. RAIL_E_ARGUMENT: the file contradicts
 * itself, or cannot be read. */
struct machine_interface;
enum rail_result rails_key(const struct machine_interface *nic, uint64_t *key_out);

#endif
