/* classes.h - ranks that do the same: the j-th ranks of all nodes, each with its node moved to where the first node
 * is. Holds for plans that walk the nodes in a circle (ring, rails); not for trees, nor where nodes have different
 * numbers of ranks.
 *
 * Rank order[start[v] + j]'s plan is then that of order[start[0] + j], with every peer v nodes on. A thousand ranks,
 * drawn by a fixed seed, are built and compared: links one by one, steps, and the bytes of every link to 1 %. */
#ifndef RAIL_SIMULATE_CLASSES_H
#define RAIL_SIMULATE_CLASSES_H

#include "simulate/job.h"

/* Whether this job is laid by classes, when its method leaves that open: when its plans are more than 2^21. */
bool classes_wanted(const struct job *job);
/* Where that is wanted: builds node 0's plans and compares. RAIL_E_INTERNAL: a rank differs, with what. */
enum rail_result classes_make(struct job *job);
/* The same, wanted or not; nothing where it was done before. */
enum rail_result classes_build(struct job *job);
/* The class's plan with the links of this rank. */
void classes_plan(const struct job *job, uint32_t rank, uint32_t channel, struct plan *out);
/* Compares one built plan with its class's. */
enum rail_result classes_check(struct job *job, uint32_t rank, uint32_t channel, const struct plan *built);

#endif
