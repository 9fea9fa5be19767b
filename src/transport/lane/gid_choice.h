/* gid_choice.h - which pair of addresses (GIDs) two ports use: a pure function of what both offer, so that both ends come
 * to the same answer on their own.
 *
 *   a port's table --(gid_offer: the user's wishes)--> at most GID_OFFER_MAX candidates --wire--> gid_choose --> a pair
 *
 * A RoCE port has one GID per address and version, and their places in the table differ from host to host and change when
 * addresses come and go. So a fixed index is only used when the user insists; otherwise a pair must be of one kind and
 * one family, and the better pair is, in this order:
 *
 *   1. of addresses that are routed, not link-local           3. the rail's own addresses at both ends, over which
 *   2. of RoCE v2                                                the lane's TCP connection was just made
 *                                                             4. in one subnet: with the longest common prefix */
#ifndef RAIL_LANE_GID_CHOICE_H
#define RAIL_LANE_GID_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#include "foreign/ibverbs.h"

enum { GID_OFFER_MAX = 8, GID_TEXT_BYTES = 80 };

/* NCCL_IB_GID_INDEX, NCCL_IB_ADDR_FAMILY, NCCL_IB_ADDR_RANGE, NCCL_IB_ROCE_VERSION_NUM. */
struct gid_wish {
    int index;        /* -1: any */
    int family;       /* 4, 6; 0: any */
    int roce_version; /* 1, 2; of a port that has none of these the other is offered */
    uint8_t range[16];  /* RoCE: only GIDs that agree with it in the first range_bits; IPv4 as ::ffff:a.b.c.d */
    uint8_t range_bits; /* 0: any */
};

struct gid_candidate {
    struct ibverbs_gid gid;
    bool is_rails; /* the address that the rail's TCP connections use */
};

struct gid_pair { uint8_t here, there; }; /* places in the two offers */

/* "10.1.0.0/16", "fd00::/64"; false, and `wish` is as it was: it is neither. */
bool gid_range(const char *text, struct gid_wish *wish);

/* 4 or 6; an InfiniBand GID is of family 6. */
int gid_family(const uint8_t raw[16]);
bool gid_is_link_local(const uint8_t raw[16]);
/* "10.0.0.1 (RoCE v2, index 3)" */
void gid_text(const struct ibverbs_gid *gid, char out[GID_TEXT_BYTES]);

/* What of a port's table is offered, the best first; `rail`: 16 bytes, the rail's own address (IPv4 as ::ffff:a.b.c.d).
 * Returns how many; 0 with `why` in words. */
int gid_offer(const struct ibverbs_gid *table, int n, const struct gid_wish *wish, const uint8_t rail[16],
              struct gid_candidate out[GID_OFFER_MAX], char *why, size_t why_bytes);

/* The best pair. `first`: this end is the first of the two (both must agree on who is), which decides between equals.
 * False with `why` in words. */
bool gid_choose(const struct gid_candidate *here, int n_here, const struct gid_candidate *there, int n_there, bool first,
                struct gid_pair *out, char *why, size_t why_bytes);

#endif
