/* fabric_state.h - a fabric while it is being read, shared by its readers and fabric_show.c; nobody else includes it. */
#ifndef RAIL_TOPO_FABRIC_STATE_H
#define RAIL_TOPO_FABRIC_STATE_H

#include <stdbool.h>

#include "topo/fabric.h"
#include "topo/hostlist.h"

enum {
    FABRIC_NAME_BYTES = HOSTLIST_NAME_BYTES,
    FABRIC_SWITCHES_MAX = 65536,
    FABRIC_NICS_MAX = 1 << 20,
    FABRIC_NONE = -1,
};
#define FABRIC_TEXT_MAX ((size_t)16 << 20)

struct fabric_switch {
    char name[FABRIC_NAME_BYTES];
    int32_t above;       /* index, FABRIC_NONE */
    uint32_t line;       /* that declared it; 0: only mentioned so far */
    uint32_t mentioned;  /* first */
    uint32_t above_line; /* that said what is above */
};

struct fabric_host { char name[FABRIC_NAME_BYTES]; int32_t under; uint32_t line; };
struct fabric_nic { char host[FABRIC_NAME_BYTES], interface[16]; struct rail_label label; uint32_t line; };
struct fabric_subnet { uint8_t family, bits, network[16]; struct rail_label label; uint32_t line; };

struct fabric {
    char source[256];
    uint64_t digest;
    uint32_t line; /* being read */
    struct fabric_switch *switches;
    struct fabric_host *hosts;     /* sorted by name once it is complete, as the next */
    struct fabric_nic *nics;
    struct fabric_subnet *subnets;
    uint32_t n_switches, switches_room, n_hosts, hosts_room, n_nics, nics_room, n_subnets, subnets_room;
    uint32_t *buckets;             /* of switches by name, index + 1 */
    uint32_t n_buckets;
};

/* "SOURCE:LINE: ..." as RAIL_E_ARGUMENT. */
enum rail_result fabric_wrong(const struct fabric *f, uint32_t line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The switch of that name, made when it is mentioned first. */
enum rail_result fabric_switch_named(struct fabric *f, const char *name, int32_t *out);
enum rail_result fabric_switch_declare(struct fabric *f, const char *name, int32_t *out);
enum rail_result fabric_switch_under(struct fabric *f, int32_t below, int32_t above);
enum rail_result fabric_hosts_under(struct fabric *f, const char *list, int32_t under);
enum rail_result fabric_nics_add(struct fabric *f, const char *list, const char *interface,
                                 const struct rail_label *label);
enum rail_result fabric_subnet_add(struct fabric *f, const char *cidr, const struct rail_label *label);

/* The readers: `text` ends with 0 and is taken apart. */
enum rail_result fabric_read_own(struct fabric *f, char *text);
enum rail_result fabric_read_slurm(struct fabric *f, char *text);

#endif
