/* lldp.h - on which switch, and which port of it, each NIC hangs, as the switches themselves announce it (LLDP,
 * IEEE 802.1AB) to a daemon of this host:
 *
 *   lldpd            `lldpctl -f json0`, asked once in a process, within a deadline
 *   systemd-networkd /run/systemd/netif/lldp/IFINDEX: the frames themselves, each behind its length
 *   a file           RAILCCL_LLDP=FILE: what lldpctl said, with -f json or json0
 *
 * A switch is known by its chassis id, "mac 00:1c:73:aa:bb:01"; NICs that hear one chassis hang on one leaf.
 * Announcements come from outside: every length is checked, texts are made printable. */
#ifndef RAIL_TOPO_LLDP_H
#define RAIL_TOPO_LLDP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"

enum { LLDP_NEIGHBOURS_MAX = 256, LLDP_TEXT_BYTES = 80, LLDP_NAME_BYTES = 48 };

struct lldp_neighbour {
    char interface[16];            /* ours */
    char chassis[LLDP_TEXT_BYTES]; /* kind and id: "mac 00:1c:73:aa:bb:01"; "" if it was not told */
    char name[LLDP_NAME_BYTES];    /* the switch's name for people; "" if it was not told */
    char port[LLDP_NAME_BYTES];    /* "Ethernet7" */
    bool station;                  /* says of itself that it neither bridges nor routes: a host, no switch */
};

/* What does not fit is left out. */
struct lldp_table {
    struct lldp_neighbour at[LLDP_NEIGHBOURS_MAX];
    uint32_t n;
};

/* Readers: add to the table. `source` names the text in errors. RAIL_E_ARGUMENT: no JSON, not lldpctl's, or frames that
 * end in the middle; what was whole before that is in the table. Any bytes will do. */
enum rail_result lldp_read_json(const char *text, size_t bytes, const char *source, struct lldp_table *table);
enum rail_result lldp_read_frames(const void *frames, size_t bytes, const char *source, const char *interface,
                                  struct lldp_table *table);

/* The switch that an interface hangs on; NULL when none or more than one is heard there (*several_out). */
const struct lldp_neighbour *lldp_switch_of(const struct lldp_table *table, const char *interface, bool *several_out);
/* Of the chassis: equal on all hosts that hear this switch. Never 0. */
uint64_t lldp_key(const struct lldp_neighbour *neighbour);

/* Where an interface hangs: on the switch that is heard there, else on those that are heard on what it is made of, as
 * the kernel shows it below `root` (the ports of a bond, the port under a VLAN). Two ports of a bond may hang on two
 * leaves: NICs that hang on the same two are on one rail. key 0: nothing is heard, or (several) two switches on one port. */
struct lldp_leaf {
    uint64_t key;
    char name[LLDP_NAME_BYTES], port[LLDP_NAME_BYTES]; /* "leaf0", "leaf0+leaf1"; ports likewise */
    bool several;
};
void lldp_leaf_of(const struct lldp_table *table, const char *root, const char *interface, struct lldp_leaf *out);

/* As RAILCCL_LLDP says, read once in a process; never waits longer than LLDP_ASK_MS. Fails only on a FILE that cannot
 * be read: a daemon that is silent, slow or talks nonsense says nothing. */
enum { LLDP_ASK_MS = 300 };
enum rail_result lldp_of_process(const struct lldp_table **out);

#endif
