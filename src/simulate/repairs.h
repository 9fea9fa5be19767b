/* repairs.h - lanes that die and come back while a call runs: both ends' real repair machines (transport/link/repair.h)
 * of every pair of hosts that a fault touches, over simulated time.
 *
 *     a NIC or its leaf dies     its own host sees the carrier go, and ends the lane there
 *     the same, silent           nothing is delivered: the real judge of silence (transport/link/silence.h) decides
 *
 * The rest are the machines' own answers: DOWN by another lane, what is in doubt again, tries after the rest, a NIC
 * that is back. A pair waits from the death of one of its lanes until both ends know what is missing: slots are taken
 * in order, and the few that a link has are soon full. */
#ifndef RAIL_SIMULATE_REPAIRS_H
#define RAIL_SIMULATE_REPAIRS_H

#include "simulate/job.h"

enum { REPAIRS_FAULTS_MAX = 16, REPAIRS_CHUNK_BYTES = 128 << 10 }; /* transport/link/net.c */

struct repairs;
/* Of a job that has just been laid on the whole network. NULL: out of memory. */
struct repairs *repairs_create(const struct job *job);
void repairs_destroy(struct repairs *repairs);

/* The network is another one from now on, because of this fault's beginning or end; `silent`: no carrier tells. */
enum rail_result repairs_network(struct repairs *repairs, const struct network *network, uint32_t fault, bool silent,
                                 double now_ns);
double repairs_next(const struct repairs *repairs); /* when something happens by itself; HUGE_VAL: nothing does */
enum rail_result repairs_step(struct repairs *repairs); /* that */

uint32_t repairs_waiting(const struct repairs *repairs);             /* pairs */
uint32_t repairs_down(const struct repairs *repairs, uint32_t fault); /* lanes that died by it and are not back */
/* A pair of hosts that no lane joins; false: all are joined. */
bool repairs_apart(const struct repairs *repairs, uint32_t hosts[2]);

struct repairs_counts {
    uint64_t ended, back;   /* lanes */
    double again_bytes;     /* what was in doubt, at most: a chunk a lane that ended */
    double first_seen_ns;   /* by an end, of the last that lost their way; < 0: nothing was yet */
    uint32_t first_host;
    bool by_silence;        /* that one */
};
const struct repairs_counts *repairs_counts(const struct repairs *repairs);

#endif
