/* fabric_show.h - a fabric for people: its parts by number, and as text. */
#ifndef RAIL_TOPO_FABRIC_SHOW_H
#define RAIL_TOPO_FABRIC_SHOW_H

#include <stdio.h>

#include "topo/fabric.h"

struct fabric_switch_facts {
    const char *name;
    int32_t above;           /* -1: nothing */
    uint32_t line;           /* that declared it */
    uint32_t tier;           /* 0: the topmost */
};

struct fabric_rail_facts {
    char name[56];                  /* "0", "0 plane b" */
    uint32_t n_nics, n_hosts, n_subnets; /* NICs named one by one, their hosts; subnets */
};

enum { FABRIC_RAILS_SHOWN = 64 };

const char *fabric_source(const struct fabric *fabric);
uint32_t fabric_n_switches(const struct fabric *fabric);
uint32_t fabric_n_hosts(const struct fabric *fabric);
/* `i` below fabric_n_switches; names live as long as the fabric. */
struct fabric_switch_facts fabric_switch_at(const struct fabric *fabric, uint32_t i);
/* How many hosts hang on it directly: a walk over all hosts. */
uint32_t fabric_switch_hosts(const struct fabric *fabric, uint32_t i);
const char *fabric_host_at(const struct fabric *fabric, uint32_t i, int32_t *under_out);
/* The switches above a host by number, its leaf first; returns how many, 0: the host is not mentioned. */
uint32_t fabric_path(const struct fabric *fabric, const char *host, uint32_t out[PLACE_TIERS]);
/* Labels of rails in order of their first mention. Returns how many; writes up to `max`. */
uint32_t fabric_rails(const struct fabric *fabric, struct fabric_rail_facts *out, uint32_t max);

/* Tiers, the first 400 switches with their hosts, rails, and what is odd about it, as text. */
enum rail_result fabric_print(const struct fabric *fabric, FILE *out);

#endif
