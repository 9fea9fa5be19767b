/* network.h - a fabric with numbers: NICs, leaves, spines, cores, the rate of every cable each way, and the way that a
 * flow takes. Pure data: made from a description (a few numbers, or a fabric file), changed by faults, then only read.
 *
 *        core   core  ...             c: n_cores of each spine number; join the spines of that number of all pods
 *          |  \ / |
 *        spine  spine | spine spine   s: n_spines per pod (and plane); each joined to every leaf of its pod (and plane)
 *          |  X  |        |  X  |
 *        leaf   leaf  | leaf   leaf   rail: one leaf per rail and unit of hosts; fat tree: one per unit, for all NICs
 *         NIC 0  NIC 1   of hosts     dual plane, dual ToR: NICs have two ports, each on a leaf of its own
 *
 * A cable is two links, up and down. Rates are payload bytes per nanosecond (GB/s). */
#ifndef RAIL_SIMULATE_NETWORK_H
#define RAIL_SIMULATE_NETWORK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/result.h"
#include "topo/order.h"

struct fabric;

enum network_kind {
    NETWORK_RAIL,       /* NIC r of every host of a unit on leaf r of the unit */
    NETWORK_FAT_TREE,   /* all NICs of a unit's hosts on one leaf */
    NETWORK_DUAL_PLANE, /* rail, twice: port p of every NIC in plane p, which meet nowhere */
    NETWORK_DUAL_TOR, /* rail, with a pair of leaves for each: ports are bonded, both leaves hang on the same spines */
    NETWORK_KINDS
};
extern const char *const network_kind_names[NETWORK_KINDS]; /* "rail", "fat-tree", "dual-plane", "dual-tor" */

enum {
    NETWORK_HOSTS_MAX = 1 << 20,
    NETWORK_RAILS_MAX = 64,
    NETWORK_PORTS_MAX = 2,
    NETWORK_FAN_MAX = 64, /* spines a leaf has, cores a spine has; more are drawn together as trunks of the same rate */
    NETWORK_PATH_MAX = 8,
};

/* 0 in any of the last six: a default that follows from the rest (network.c). */
struct network_request {
    enum network_kind kind;
    uint32_t hosts, rails, tiers; /* NICs per host; 1 to 3 tiers of switches */
    double nic_gbit;              /* of a NIC, all its ports, each way: payload */
    double oversubscription[2];   /* of leaves, of spines: rate below over rate above */
    uint32_t hosts_per_leaf, units_per_pod, spines, cores;
    uint32_t hash; /* which draw of the switches' hash: any number */
};

/* A host that somebody looked at. */
struct network_host {
    char name[64];
    uint32_t n_gpus;
    double gbit[NETWORK_RAILS_MAX]; /* of the NIC on each rail, each way; 0: there is none */
};

/* Counted from the bottom. */
enum network_tier { NETWORK_NIC_UP, NETWORK_NIC_DOWN, NETWORK_LEAF_UP, NETWORK_LEAF_DOWN, NETWORK_SPINE_UP,
                    NETWORK_SPINE_DOWN, NETWORK_TIERS };
extern const char *const network_tier_names[NETWORK_TIERS]; /* "NIC to leaf" ... */

struct network {
    enum network_kind kind;
    uint32_t n_hosts, n_rails, n_ports, n_planes, n_tiers;
    uint32_t n_units, n_pods, n_leaves, n_spines, n_cores; /* spines per pod and plane; cores per spine number */
    uint32_t *unit_of; /* [n_hosts] */
    uint32_t *pod_of;  /* [n_units] */
    uint64_t n_links, first[NETWORK_TIERS + 1]; /* links of a tier: first[t] .. first[t+1] - 1 */
    float *rate;       /* [n_links] payload bytes per ns; 0: down */
    float *whole;      /* [NETWORK_TIERS] before any fault, in files too: fabrics are even */
    bool faulty;       /* some link is down */
    uint32_t hash;     /* of all switches; nobody knows the real one, so what matters should hold for several */
    const struct fabric *fabric;      /* names of hosts; the caller keeps it */
    const struct network_host *named; /* the same, [n_hosts], where there is no fabric. Neither: host0, host1 ... */
};

/* RAIL_E_ARGUMENT: what is wrong and what to ask for instead. network_clear frees, and takes an empty one. */
enum rail_result network_make(struct network *out, const struct network_request *request);
/* The units, pods and hosts of a fabric file, the rest from the request (its hosts and tiers do not count). */
enum rail_result network_of_fabric(struct network *out, const struct fabric *fabric,
                                   const struct network_request *request);
void network_clear(struct network *network);
/* Rails that these hosts have, and the rate of their fastest NIC. */
uint32_t network_hosts_rails(const struct network_host *hosts, uint32_t n_hosts, double *most_gbit);
/* NICs as these hosts have them, by name where the network is a fabric file's, else in order. A NIC that is missing is
 * down. RAIL_E_ARGUMENT: a host twice, or one that is missing. The caller keeps the hosts. */
enum rail_result network_set_hosts(struct network *network, const struct network_host *hosts, uint32_t n_hosts,
                                   double payload);
/* Bytes that network_make will take. */
uint64_t network_bytes(const struct network_request *request);

/* "nic:HOST.RAIL", "port:HOST.RAIL.PORT", "leaf:N", "spine:N", "core:N"; HOST is a name, or "host" and a number. All
 * its links times `factor`, each way; 0: it is down. */
enum rail_result network_fault(struct network *network, const char *what, double factor);

/* Names of parts, for people; return `out`. */
enum { NETWORK_NAME_BYTES = 96 };
const char *network_host_name(const struct network *network, uint32_t host, char out[NETWORK_NAME_BYTES]);
const char *network_link_name(const struct network *network, uint64_t link, char out[NETWORK_NAME_BYTES]);
enum network_tier network_link_tier(const struct network *network, uint64_t link);

/* The number of its links in their tiers. */
uint64_t network_nic(const struct network *network, uint32_t host, uint32_t rail, uint32_t port);
uint32_t network_leaf(const struct network *network, uint32_t host, uint32_t rail, uint32_t port);
uint32_t network_plane(const struct network *network, uint32_t leaf);
uint32_t network_leaf_pod(const struct network *network, uint32_t leaf);

/* Where a host hangs, for the order of nodes and tiers of trees: units and pods. */
struct place network_place(const struct network *network, uint32_t host);

struct network_flow {
    uint32_t from_host, from_rail, to_host, to_rail;
    uint32_t number; /* of several between two NICs: switches hash them apart */
};
struct network_path {
    uint32_t n;
    uint64_t link[NETWORK_PATH_MAX];
    uint32_t switches;
};
/* The way that switches send a flow: among equal ways that are up, the one that a fixed hash (splitmix64) of the two
 * NICs and the flow's number picks, anew at each switch. False: there is none. */
bool network_route(const struct network *network, const struct network_flow *flow, struct network_path *out);
/* Payload bytes per ns that two NICs can exchange, by themselves: the narrower of the two. 0: one is down. */
double network_lane_rate(const struct network *network, const struct network_flow *flow);

#endif
