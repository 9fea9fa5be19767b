/* machine.h - what a byte, a hop and a step cost on a kind of machine; where each figure comes from stands in
 * machine.c. */
#ifndef RAIL_SIMULATE_MACHINE_H
#define RAIL_SIMULATE_MACHINE_H

#include <stdbool.h>

struct simulate_machine {
    const char *name, *source; /* "rig"; one line */
    double nic_gbit;           /* line rate that is assumed unless it is given */
    double payload;            /* share of a line that payload can fill */
    double hop_ns;             /* from publishing a slot to its being seen on another host, by NICs alone */
    double switch_ns;          /* more for each switch on the way */
    double local_hop_ns;       /* within a host */
    double step_ns;            /* of a MOVE */
    double memory_ns_per_byte; /* of each operand of a MOVE */
    double local_gbyte_s;      /* a rank's way to its peers' memory, each way; 0: it is memory, and counted there */
    bool direct;               /* peers reach one another's buffers by address */
};

/* By name; NULL: there is no such. `names` lists them. */
const struct simulate_machine *simulate_machine_named(const char *name);
extern const char simulate_machine_names[];

#endif
