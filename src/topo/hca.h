/* hca.h - NCCL_IB_HCA: `[^][=]hca[:port[:rail[:plane]]],...`, as far as it says which rail a NIC is on.
 *
 *   mlx5            devices whose name begins so      mlx5_1:2        port 2 of these alone
 *   =mlx5_1         this name exactly                 =mlx5_1:1:3     ... is on rail 3
 *   ^mlx5_9         all but these (no rail can be     =mlx5_1:1:3:0   ... in plane 0; planes are never joined
 *                   said of what is excluded)
 *
 * The first item that names a device and port decides. A declaration holds for the network interface that belongs to
 * the device, whatever travels over it. Rail 3 here and `rail 3` of a fabric file are the same rail. */
#ifndef RAIL_TOPO_HCA_H
#define RAIL_TOPO_HCA_H

#include <stdbool.h>

#include "base/result.h"
#include "topo/rails.h"

enum { HCA_ITEMS_MAX = 32, HCA_NAME_BYTES = 64 }; /* NCCL's limits */

struct hca_item {
    char name[HCA_NAME_BYTES];
    int port; /* -1: any */
    struct rail_label label; /* empty: not said */
};

struct hca_list {
    bool exclude, exact;
    struct hca_item at[HCA_ITEMS_MAX];
    int n;
};

/* RAIL_E_ARGUMENT with the place in the text, what stands there, and what may. Any text will do. */
enum rail_result hca_parse(const char *text, struct hca_list *out);
/* What the list says of a device's port; an empty label when nothing. */
struct rail_label hca_label(const struct hca_list *list, const char *hca, int port);

/* The label of an interface: of the device and port that it belongs to, by the files below `root` ("" is the machine).
 * hca_out, HCA_NAME_BYTES + 8: "mlx5_0:1", "" when the interface belongs to none that the list puts on a rail. Planes or
 * rails that differ between two devices of one interface (a bond): the first, with *other_out the second's label. */
struct rail_label hca_label_of_interface(const struct hca_list *list, const char *root, const char *interface,
                                         char *hca_out, struct rail_label *other_out);

/* Whether the list lets a device's port be used at all; a list without items excludes nothing. */
bool hca_admits(const struct hca_list *list, const char *hca, int port);

/* The first device and port, in the order of names, that belongs to an interface and is admitted. False: none;
 * *refused_out: one belongs to it that the list does not admit (not said of what only its table of GIDs names: that has up
 * to 1024 files, and is read of admitted devices alone). */
bool hca_of_interface(const struct hca_list *list, const char *root, const char *interface, char name_out[HCA_NAME_BYTES],
                      int *port_out, bool *refused_out);

#endif
