/* job.h - one collective of one job on a network: its hosts in their order, the shape that planners see, the plan that
 * the chooser takes or that is forced, the bytes of its pieces. */
#ifndef RAIL_SIMULATE_JOB_H
#define RAIL_SIMULATE_JOB_H

#include "algos/algos.h"
#include "simulate/machine.h"
#include "simulate/network.h"
#include "simulate/pieces.h"
#include "simulate/traffic.h"

enum { JOB_ELEMENT_BYTES = 4, JOB_CHANNELS_MAX = 64, JOB_FLOWS_MAX = 256, JOB_SAMPLES = 1000 };
#define JOB_RANKS_MAX (1u << 20)
#define JOB_BYTES_MAX ((uint64_t)1 << 50)

struct job_request {
    const uint32_t *hosts;        /* [n_hosts] in the given order; each once. The caller keeps them */
    uint32_t n_hosts, gpus;       /* ranks per host */
    enum plan_collective collective;
    bool send_recv; /* instead of it: every rank sends to the one `shift` on (messages.h) */
    uint32_t shift; /* 1 to ranks - 1 */
    int algorithm;                /* enum plan_algorithm; -1: the chooser's */
    uint64_t bytes; /* of a rank's input or output, all its blocks; of a message: as benchmarks count */
    uint32_t root;
    bool as_given;                /* the given order of hosts, and no tiers; else ours */
    bool unaware;                 /* of rails: NIC r here sends to any NIC there (lay.h) */
    uint32_t flows;               /* per lane; 0: 4 */
    uint32_t channels;            /* forced; 0: the chooser's */
    uint32_t window_bytes, slot_bytes; /* 0: defaults; RAILCCL_WINDOW_BYTES, RAILCCL_NET_SLOT_BYTES */
    const struct simulate_machine *machine;
    enum { JOB_AUTO, JOB_ALL, JOB_CLASSES } method; /* whose plans are built: classes.h */
};

/* What one host sends to another, all ranks and channels. */
struct job_pair { uint32_t from, to; double bytes; };

struct job {
    struct job_request ask;
    struct shape shape;
    uint32_t *host_of_node; /* [n_nodes] */
    struct choice_table table;
    struct choice choice;
    struct plan_split split;
    struct pieces pieces[JOB_CHANNELS_MAX]; /* [choice.n_channels] */
    struct plan *classes; /* [choice.n_channels][ranks of a node]: node 0's, which stand for all; NULL: all are built */
    bool borrowed, ordered; /* the shape is somebody else's; plans in rank order */
    uint32_t n_checked;   /* ranks that were compared with their class */
    struct job_pair *pairs; /* lay_job's, by sender */
    uint64_t n_pairs, pairs_room;
};

/* RAIL_E_ARGUMENT: does not fit the network, or the algorithm not the shape, with what to change. RAIL_E_INTERNAL: a
 * rank is not as its class. job_clear frees, and takes an empty one. */
enum rail_result job_make(struct job *out, const struct network *network, const struct job_request *request);
void job_clear(struct job *job);
/* A job whose shape and choice are known: node v is host v. The shape stays the caller's, and must outlive the job.
 * `ordered`: by the plans whose value is the rank tree. */
enum rail_result job_of_shape(struct job *out, const struct job_request *request, const struct shape *shape,
                              struct choice choice, bool ordered);
/* What job_make and laying it take, in bytes, from sizes alone; `everybody`: every host sends to every other. */
uint64_t job_bytes(uint32_t n_hosts, uint32_t gpus, bool everybody);
/* "AllReduce" ... "Send/Recv"; "ring" ... "pairwise". */
const char *job_call_name(const struct job_request *request);
const char *job_algorithm_name(uint32_t algorithm);

uint32_t job_host(const struct job *job, uint32_t rank);

/* A rank's plan on a channel, and what it sends: built, or its class's with the links of this rank. */
enum rail_result job_plan(struct job *job, uint32_t rank, uint32_t channel, struct plan *plan, struct traffic *traffic);
bool job_plan_build(const struct job *job, uint32_t rank, uint32_t channel, struct plan *out);

#endif
