/* hostlist.h - lists of hosts as Slurm writes them: "login,node[01-16,20],r[1-2]n[1-4]". */
#ifndef RAIL_TOPO_HOSTLIST_H
#define RAIL_TOPO_HOSTLIST_H

#include <stddef.h>
#include <stdint.h>

#include "base/result.h"

enum { HOSTLIST_NAME_BYTES = 64, HOSTLIST_HOSTS_MAX = 1 << 20, HOSTLIST_WHY_BYTES = 160 };

/* Calls each(owner, name) for every host of the list, in order; stops at the first failure, and returns it. On a list that
 * is malformed, names too long a host or too many hosts: RAIL_E_ARGUMENT, and `why` says what is wrong (no other call sets
 * it). Numbers keep the width they are written with. */
enum rail_result hostlist_each(const char *list, enum rail_result (*each)(void *owner, const char *name), void *owner,
                               char why[HOSTLIST_WHY_BYTES]);

#endif
