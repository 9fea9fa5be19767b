/* dealing.h - who takes which of its nearest ports, so that the ports are shared as evenly as that allows.
 *
 * Takers are GPUs (binding.h) or ranks (home.h). Nobody is given a farther port for the sake of evenness. Pure. */
#ifndef RAIL_TOPO_DEALING_H
#define RAIL_TOPO_DEALING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/result.h"

#define DEALING_NONE UINT32_MAX

struct dealing {
    uint32_t n_takers, n_ports;
    const bool *near;  /* [taker * n_ports + port]: one of the taker's nearest */
    uint32_t *port_of; /* [taker] out; DEALING_NONE: nothing is near */
    uint32_t *load;    /* [port] out, zeroed before: how many took it */
};

/* Takers with the same nearest ports divide them in order (neighbours share); one with a set of its own takes the least
 * used, among equals the one whose place among the ports is like its own among the takers; then takers are moved along
 * chains as long as that makes the load more even. RAIL_E_SYSTEM: out of memory. */
enum rail_result dealing_run(const struct dealing *dealing);

#endif
