/* rails.h - which NIC here belongs with which NIC there.
 *
 *   facts of each NIC, by its own host        travel to all hosts         the same groups everywhere
 *   label    fabric file, NCCL_IB_HCA   \                           /
 *   leaf     LLDP                        >-- all-gather -- group --<   rail 0: h0 eth0, h1 eth2, ...
 *   subnet   its address                /        (+ pairs that were    \ rail 1: ...
 *                                                 probed)
 *
 * Labels come first, then leaf switches, subnets, probed pairs; what none of them tells is paired in the order of
 * interfaces. A weaker source joins what stronger ones left apart, and never against them. Interface names and order
 * never enter, except between NICs of which nothing is known. */
#ifndef RAIL_TOPO_RAILS_H
#define RAIL_TOPO_RAILS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/result.h"

enum { RAILS_NICS_MAX = 16, RAIL_LABEL_BYTES = 24, RAILS_TEXT_BYTES = 24 };

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

/* A key of NICs that are not to be used (NCCL_NETDEVS_POLICY): it pairs with nothing, not with itself either. */
#define RAILS_LEFT_OUT UINT64_MAX

/* The pairs of NICs that lanes may join, at most RAILS_NICS_MAX: those of one rail first (k-th of it with k-th of it, in the
 * order of `here`), then unknown (0) with unknown, then what `crossing` adds. No NIC is in two pairs. Pure; n_here and
 * n_there at most RAILS_NICS_MAX. */
uint32_t rails_match(const uint64_t *here, uint32_t n_here, const uint64_t *there, uint32_t n_there,
                     enum rails_crossing crossing, struct rail_pair out[RAILS_NICS_MAX]);

/* ---- facts ---- */

/* Who says which rail it is, the strongest first. */
enum rails_source {
    RAILS_BY_NOBODY,
    RAILS_BY_FABRIC, /* the fabric file */
    RAILS_BY_HCA,    /* NCCL_IB_HCA's rail and plane */
    RAILS_BY_LLDP,   /* NICs that hear one switch */
    RAILS_BY_SUBNET, /* one NIC of each host in a subnet of more than two addresses */
    RAILS_BY_PROBE,  /* NICs that are nearest to one another */
    RAILS_BY_ORDER,  /* the k-th NIC of each host */
};
const char *rails_source_name(enum rails_source source); /* "the fabric file", "LLDP" ... */

/* Both padded with zeroes. An empty rail: nothing is said. */
struct rail_label { char rail[RAIL_LABEL_BYTES], plane[RAIL_LABEL_BYTES]; };
uint64_t rails_label_key(const struct rail_label *label); /* 0 of an empty one */

/* What a host knows of one of its NICs. Keys are equal where the facts are; 0: not known. */
struct rail_facts {
    uint64_t label, leaf;
    uint64_t probed;                    /* what an earlier communicator's probe made of it: need not be done again */
    uint8_t label_from;                 /* enum rails_source */
    uint8_t tried;                      /* 1: it was probed before, with or without success */
    char label_text[RAILS_TEXT_BYTES];  /* "3", "3 plane A"; for messages, may be cut */
    char leaf_text[RAILS_TEXT_BYTES];   /* the switch's name, else its chassis id */
};

/* The facts of a NIC of this host. Logs what is said of it and what its sources disagree about. RAIL_E_ARGUMENT: the
 * fabric file, NCCL_IB_HCA or the file RAILCCL_LLDP contradicts itself or cannot be read. */
struct machine_interface;
enum rail_result rails_facts(const struct machine_interface *nic, struct rail_facts *out);

/* The RDMA device and port that belong to a NIC, as far as NCCL_IB_HCA admits them. False: none, *why_out says so ("" when
 * there is nothing to say: the NIC has none). RAIL_E_ARGUMENT as above is logged by rails_facts(). */
enum { RAILS_DEVICE_BYTES = 64 };
bool rails_device(const struct machine_interface *nic, char name_out[RAILS_DEVICE_BYTES], int *port_out,
                  const char **why_out);

/* Where this host hangs, by the switches that its NICs hear (LLDP): hosts that hear the same ones are in one place. All
 * 0 when none is heard. */
struct place;
enum rail_result rails_place(struct place *out);

/* Key of an address with that many network bits; 0: such a subnet does not say who shares it. */
uint64_t rails_subnet_key(const struct sockaddr_storage *address, uint32_t prefix_bits);

/* ---- groups ---- */

/* A NIC of some host; NICs in the order of hosts. In: all but key and by. */
struct rail_nic {
    uint32_t host;
    uint8_t label_from;
    bool tried;
    uint64_t label, leaf, subnet, probed;
    uint64_t key; /* equal on NICs of one rail, 0: nothing is known */
    enum rails_source by;
};

/* Indices of two NICs that were found to be near one another. */
struct rail_near { uint32_t a, b; };

/* `weaker` would join a and b. Either their groups have different labels (twin is UINT32_MAX), or then two NICs of one
 * host would be on one rail: `twin` stands in a's group already, `doubled` is its host's other NIC, in b's. */
struct rail_conflict {
    enum rails_source weaker;
    uint32_t a, b, twin, doubled;
};
enum { RAILS_CONFLICTS_MAX = 8 };

struct rail_verdict {
    struct rail_conflict conflicts[RAILS_CONFLICTS_MAX]; /* the first of them */
    uint32_t n_conflicts;
    bool undecided; /* some host has several NICs of which no source but the order tells the rail; not all tried before */
};

/* Writes key and by of every NIC. A rail holds at most one NIC of each host, unless a label says otherwise; a leaf or a
 * subnet that some host has twice tells nothing. The same input gives the same output everywhere. -1: out of memory. */
int rails_group(struct rail_nic *nics, uint32_t n, const struct rail_near *near, uint32_t n_near,
                struct rail_verdict *verdict);

#endif
