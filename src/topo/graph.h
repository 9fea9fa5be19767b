/* graph.h - the machine as a graph: devices, the links between them, and for every fact where it came from.
 *
 *   CPU (a NUMA node) -- PCI (a switch) -- GPU           -- is a link with a kind and a rate
 *      |                      |            | NVLink
 *   CPU (SYS)                NIC          NVS (the host's NVSwitches, as one)
 *                             |
 *                            NET (a port, or a bond of ports)
 *
 * A graph is built once (xml_read.c, sysfs.c, hwloc.c), finished by topo_graph_finish, and only read from then on, by
 * any number of threads. Nodes and links are numbers into arrays; a parent has a smaller number than its children. */
#ifndef RAIL_TOPO_GRAPH_H
#define RAIL_TOPO_GRAPH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/result.h"

#define TOPO_NONE UINT32_MAX
#define TOPO_NO_BUS UINT64_MAX

enum topo_kind { TOPO_CPU, TOPO_PCI, TOPO_GPU, TOPO_NIC, TOPO_NET, TOPO_NVS, TOPO_KINDS };
enum topo_link_kind { TOPO_LINK_NVL, TOPO_LINK_C2C, TOPO_LINK_PCI, TOPO_LINK_SYS, TOPO_LINK_PORT };

/* How we know a fact. From TOPO_TABLE on nobody said it of this machine. */
enum topo_how { TOPO_UNKNOWN, TOPO_FILE, TOPO_SYSFS, TOPO_HWLOC, TOPO_NVML, TOPO_KERNEL, TOPO_TABLE, TOPO_ASSUMED };

struct topo_origin {
    enum topo_how how;
    uint32_t line;     /* of a file; 0: none */
    const char *where; /* file, path or reason; lives as long as the graph */
};

/* 10^9 bytes per second and direction; 0 = unknown. */
struct topo_rate {
    double gb_per_s;
    struct topo_origin origin;
};

/* A yes or no that may be unknown. */
enum topo_tri { TOPO_MAYBE = -1, TOPO_NO = 0, TOPO_YES = 1 };

enum { TOPO_NAME_BYTES = 64, TOPO_TEXT_BYTES = 256 };

struct topo_cpu {
    uint64_t host_hash;
    int32_t numa;    /* -1: not told */
    int32_t package; /* -1: not told */
    int32_t family, model;
    char arch[16], vendor[TOPO_NAME_BYTES];
    const char *affinity; /* cores as the kernel's mask; "" if not told; lives as long as the graph */
};

struct topo_gpu {
    int32_t dev, sm, rank;   /* dev: the driver's number; sm: 10 x major + minor compute capability; -1: not told */
    int32_t minor;           /* of /dev/nvidiaN; -1: not told */
    struct topo_origin driver_origin; /* of dev, sm and minor where another source than the node's told them */
    enum topo_tri gdr;       /* can NICs reach its memory */
};

/* An entry of a verbs port's table of addresses. */
enum topo_gid_type { TOPO_GID_IB, TOPO_GID_ROCE_1, TOPO_GID_ROCE_2 };
struct topo_gid {
    uint8_t raw[16];
    uint16_t index;
    uint8_t type;
};
enum { TOPO_GIDS_KEPT = 12 };

enum topo_net_type { TOPO_NET_UNKNOWN, TOPO_NET_ETHERNET, TOPO_NET_INFINIBAND };

struct topo_net {
    int32_t dev, port, mtu;  /* -1, 1, 0: not told */
    int32_t slaves;          /* ports bonded into this one; 0: no bond */
    uint64_t guid;
    double mbit_per_s;       /* the wire's rate; 0: not told */
    double latency_us;
    int32_t max_connections;
    enum topo_tri gdr, up;
    enum topo_net_type type;
    bool bare; /* a file gave the NIC's place and no port: this one stands for it */
    bool verbs, virtual_function, keep; /* keep: NCCL's mark of a port that is to be used */
    char netdev[16];         /* the interface of a verbs port; "" if none is known */
    uint32_t n_gids;         /* of a verbs port: that are not empty; the first ones are in `gids` */
    struct topo_gid gids[TOPO_GIDS_KEPT];
    int32_t verbs_mtu;       /* 0: not told */
    struct topo_origin gids_origin, verbs_mtu_origin;
    char address[48];        /* "10.0.0.1/24"; "" if none is known */
    char leaves_by[16];      /* the interface by which the kernel sends from that address to its subnet; "": not told */
    struct topo_origin rate_origin, gdr_origin, mtu_origin;
};

struct topo_node {
    enum topo_kind kind;
    uint32_t parent;         /* TOPO_NONE: none */
    uint32_t host;           /* several only in files that describe several */
    uint32_t number;         /* the how-manieth of its kind on its host, in order of bus numbers */
    uint64_t bus;            /* domain << 24 | bus << 16 | device << 8 | function */
    char name[TOPO_NAME_BYTES]; /* what people call it: mlx5_0, GPU 3, NUMA 1 */
    struct topo_origin origin;
    uint32_t class, vendor, device, subsystem_vendor, subsystem_device; /* PCI's numbers */
    double gt_per_s, max_gt_per_s; /* its PCI link towards the parent: per lane; 0: not told */
    int32_t lanes, max_lanes;
    struct topo_origin pci_origin;
    union {
        struct topo_cpu cpu;
        struct topo_gpu gpu;
        struct topo_net net;
    };
};

struct topo_link {
    enum topo_link_kind kind;
    uint32_t a, b;
    uint32_t count;          /* NVLinks, C2C links or PCI lanes side by side; 0: does not apply */
    struct topo_rate rate;
};

struct topo_graph {
    struct topo_node *nodes;
    struct topo_link *links;
    uint32_t n_nodes, n_links, n_hosts;
    uint32_t *first;         /* [n_nodes + 1] into `at` */
    uint32_t *at;            /* links of each node */
    char source[TOPO_TEXT_BYTES]; /* in words, where all this came from */
    bool flat;               /* the PCI tree is hidden: every device hangs on a host bridge */
    char **remarks;          /* what was odd about the source, in whole sentences */
    uint32_t n_remarks, n_remarks_lost;
    uint32_t room_nodes, room_links;
    struct topo_strings *strings;
};

/* What no machine exceeds; more is refused. NCCL takes 640 of a kind. */
enum { TOPO_MAX_OF_A_KIND = 640, TOPO_MAX_CPUS = 128, TOPO_MAX_LINKS = 65536, TOPO_MAX_DEPTH = 32 };

struct topo_graph *topo_graph_create(void); /* NULL: out of memory */
void topo_graph_destroy(struct topo_graph *graph); /* takes NULL and half-built ones */

/* A new node with everything "not told", or TOPO_NONE: too many of the kind or out of memory (rail_fail was called). */
uint32_t topo_graph_add(struct topo_graph *graph, enum topo_kind kind, uint32_t parent, struct topo_origin origin);
enum rail_result topo_graph_link(struct topo_graph *graph, struct topo_link link);
/* Turns a PCI node into what hangs there. */
void topo_graph_become(struct topo_graph *graph, uint32_t node, enum topo_kind kind);
/* A copy of the text that lives as long as the graph; the same pointer for equal texts. "" when out of memory. */
const char *topo_graph_text(struct topo_graph *graph, const char *text);
void topo_graph_remark(struct topo_graph *graph, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Numbers the nodes, makes the links of the tree and between NUMA nodes, and the lists per node. Fails on what
 * contradicts itself: two devices with one bus number or driver number. */
enum rail_result topo_graph_finish(struct topo_graph *graph);

/* The node with this bus number on this host, or TOPO_NONE. */
uint32_t topo_graph_by_bus(const struct topo_graph *graph, uint32_t host, uint64_t bus);
/* The nearest CPU, PCI switch, ... at or above a node, or TOPO_NONE. */
uint32_t topo_graph_above(const struct topo_graph *graph, uint32_t node, enum topo_kind kind);
/* Nodes of a kind on a host in order of their number; returns how many there are and writes up to `max`. */
uint32_t topo_graph_of_kind(const struct topo_graph *graph, uint32_t host, enum topo_kind kind, uint32_t *out,
                            uint32_t max);
/* The link from a node to its parent; NULL: none. */
const struct topo_link *topo_graph_up(const struct topo_graph *graph, uint32_t node);

/* "0000:1b:00.0" and back; parse returns false on what is no bus number. `text` has 24 bytes. */
const char *topo_bus_text(uint64_t bus, char *text);
bool topo_bus_parse(const char *text, uint64_t *out);
/* "machine.xml:12", "/sys/...", "assumed: ...", into `text`; returns it. */
const char *topo_origin_text(struct topo_origin origin, char *text, size_t bytes);
const char *topo_how_name(enum topo_how how);
/* "RoCE v2 ::ffff:10.0.0.1" into `text` (64 bytes); returns it. */
const char *topo_gid_text(const struct topo_gid *gid, char *text);
/* The address that RoCE traffic leaves by: the first of version 2 with an IPv4 address, else with one that is routed; NULL:
 * there is none. */
const struct topo_gid *topo_gid_routable(const struct topo_net *net);
const char *topo_kind_name(enum topo_kind kind);
const char *topo_link_name(enum topo_link_kind kind);

#endif
