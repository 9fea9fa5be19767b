/* nearest.h - from what was measured between the NICs of two hosts to which of them are on one rail. */
#ifndef RAIL_TOPO_NEAREST_H
#define RAIL_TOPO_NEAREST_H

#include <stdbool.h>
#include <stdint.h>

#include "topo/rails.h"

/* Between NIC i of one host and NIC j of the other. */
struct near_cell {
    bool heard;
    bool blind;                  /* cannot be measured: what the one sends to the other leaves by another NIC */
    uint8_t hops;                /* routers between them: what a packet's time to live lost */
    uint64_t best_ns, second_ns; /* the two shortest round trips; 0: not measured */
};

struct near_matrix {
    uint32_t n, m; /* NICs of one and the other, at most RAILS_NICS_MAX */
    struct near_cell at[RAILS_NICS_MAX][RAILS_NICS_MAX];
};

enum near_how {
    NEAR_UNHEARD,   /* nobody answered */
    NEAR_UNDECIDED, /* several are equally near */
    NEAR_BY_REACH,  /* only these reach one another */
    NEAR_BY_HOPS,   /* others are behind more routers */
    NEAR_BY_TIME,   /* others are as many routers away, and clearly later */
};
const char *near_how_name(enum near_how how);

enum { NEAR_NONE = 255 };

/* Whether round trips are worth measuring: two NICs are as many routers away from one. */
bool near_tie(const struct near_matrix *m, uint32_t i, uint32_t j);

/* out[i]: the NIC j that is i's, and whose i is, or NEAR_NONE. A pair counts when no other pair of the two hosts is
 * fewer routers apart and each is the other's only such one; among several, when its second shortest round trip is shorter
 * than any of theirs and theirs are half as long again. Returns how the last pair was told, or why there is none. Pure. */
enum near_how near_assign(const struct near_matrix *m, uint8_t out[RAILS_NICS_MAX]);

#endif
