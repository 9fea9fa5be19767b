/* hosts.h - hosts that were not set up alike, found from what their ranks told of their NICs. */
#ifndef RAIL_CORE_HOSTS_H
#define RAIL_CORE_HOSTS_H

#include <stddef.h>

#include "core/comm.h"

enum hosts_difference { HOSTS_NICS, HOSTS_MTU, HOSTS_RATE, HOSTS_DIFFERENCES };

/* In words: the two nodes that are farthest apart in number of NICs, or on some rail in MTU or rate, with the values, and on
 * how many rails more they differ; "" where all are alike or do not know. Pure: reads shape, members, addresses. */
const char *hosts_difference_text(const struct comm *comm, enum hosts_difference kind, char *text, size_t bytes);

/* Warns of each difference, at rank 0. */
void hosts_compare(const struct comm *comm);

#endif
