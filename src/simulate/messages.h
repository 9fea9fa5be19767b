/* messages.h - calls that are messages and have no plan: AlltoAll between hosts, in the steps of algos/pairwise.h, and
 * Send/Recv, in which every rank sends to the one `shift` ranks on. A job whose choice is PLAN_PAIRWISE is one. */
#ifndef RAIL_SIMULATE_MESSAGES_H
#define RAIL_SIMULATE_MESSAGES_H

#include "simulate/clocks.h"

enum { MESSAGES_HOSTS_MAX = 2048 }; /* each sends to each: 4 million pairs, some 30 s */

bool messages_job(const struct job *job);
/* Steps of a rank, and the rank that it sends to in one of them (from 1 on). */
uint32_t messages_steps(const struct job *job);
uint32_t messages_to(const struct job *job, uint32_t rank, uint32_t step);
double messages_bytes(const struct job *job); /* of one message */

/* Bytes from this node to every other, out[n_nodes]; what stays in it is at its own place. */
void messages_of_node(const struct job *job, uint32_t node, double *out);

/* How long the steps take, at most PAIRWISE_AHEAD begun and not finished: a rank of each of up to 256 nodes, each
 * message at the rate that the loads leave its two hosts. Sets clock_ns, chain, rounds, ranks. */
enum rail_result messages_clock(const struct job *job, const struct network *network, const double *loads,
                                struct clocks_report *out);

#endif
