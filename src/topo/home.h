/* home.h - the NIC that is a rank's own: the nearest to where its data lies, dealt out evenly among the node's ranks.
 *
 *   every rank      home_here    where my data lies: a NUMA node, or a GPU             8 bytes, exchanged
 *   a node's leader home_look    of every such place of its machine: the nearest NICs  264 bytes, exchanged
 *   everybody       home_deal    from these two: pure, so all ranks come to the same
 *
 * Only NICs that lanes use are asked about. One that has no PCI device (a veth, a tunnel, as in containers) has no place:
 * it is nobody's home while others have one; where none has, ranks take NICs in turn. */
#ifndef RAIL_TOPO_HOME_H
#define RAIL_TOPO_HOME_H

#include "topo/paths.h"

enum { HOME_PLACES_MAX = 32, HOME_NICS_MAX = 16, HOME_NAME_BYTES = 16 };

/* Where a rank's data lies. */
enum home_kind { HOME_ANYWHERE, /* a rank that may run on several NUMA nodes */ HOME_NUMA, HOME_GPU };
struct home_place {
    uint32_t id; /* HOME_NUMA: its number; HOME_GPU: home_gpu()'s */
    uint8_t kind, zero[3];
};

/* Of the calling thread: the NUMA node to which its affinity mask keeps it. `root` as in sysfs.h. */
struct home_place home_here(const char *root);
/* Of a rank whose data is in a GPU's memory, by the GPU's bus number (graph.h). */
struct home_place home_gpu(uint64_t bus);

/* How much a leader could see. */
enum home_sight {
    HOME_NOT_LOOKED, /* RAILCCL_TOPO=0, one node, or it was not understood */
    HOME_NO_PLACES,  /* no NIC that lanes use has a place in the machine */
    HOME_SEEN,
};

/* What a leader tells. Plain bytes. */
struct home_view {
    uint8_t sight, n_nics, n_places, flat; /* flat: the PCI tree is hidden */
    uint16_t placed;                       /* NICs that have a place, as bits */
    uint16_t zero;
    struct home_near {
        uint32_t id;
        uint8_t kind, class; /* class: of the nearest */
        uint16_t nics;       /* the nearest: nearest class, in it not more than a tenth narrower than the widest */
    } at[HOME_PLACES_MAX];   /* NUMA nodes first, then GPUs; what is more than 32 is not told */
};

/* `names`: the n NICs that lanes use, as interfaces are called. `buses`: of their PCI devices, TOPO_NO_BUS: none is known;
 * with them a description that knows NICs by other names (mlx5_0) will do. */
enum rail_result home_look(const struct topo_graph *graph, uint32_t n, const char names[][HOME_NAME_BYTES],
                           const uint64_t *buses, struct home_view *out);

/* The bus number of an interface's PCI device, of a bond's or VLAN's first lower interface; TOPO_NO_BUS: none. */
uint64_t home_bus_of(const char *root, const char *interface);

enum home_why {
    HOME_NEAREST,
    HOME_FLOATS,   /* HOME_ANYWHERE: no NIC is nearer than another */
    HOME_UNKNOWN,  /* the description does not have the rank's NUMA node or GPU, or the nearest NICs lead nowhere */
    HOME_IN_TURN,  /* no places: index in the node modulo NICs */
};

struct home {
    uint8_t nic;      /* index among the view's; 0 when it has none */
    uint8_t class;    /* HOME_NEAREST: enum topo_class */
    uint8_t why;      /* enum home_why */
    uint8_t as_near;  /* so many NICs are as near */
    uint32_t sharing; /* ranks of the node whose home is the same NIC */
};

/* The homes of a node's n ranks, in the order of their indices in the node. `usable`: NICs that have a partner on some other
 * node, as bits of the view's; none means all. Any bytes will do as view and places. */
enum rail_result home_deal(const struct home_view *view, uint16_t usable, uint32_t n, const struct home_place *places,
                           struct home *out);

/* "NUMA node 1", "GPU 0000:1b:00.0", "any NUMA node" into `text`; returns it. */
const char *home_place_text(struct home_place place, char text[48]);
/* "PHB, one of 2 as near", "in turn, as ..." into `text`; returns it. */
const char *home_why_text(const struct home_view *view, const struct home *home, char text[128]);

#endif
