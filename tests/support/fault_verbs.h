/* fault_verbs.h - RDMA devices that exist in memory only, and do what a test says: a table for foreign/ibverbs.h.
 *
 * Any number of devices "fault0", "fault1", ...; their port 1 has GIDs of RoCE v2 for 127.0.(i+1).1. A queue pair reaches any
 * other of the process by its number, once both are in the states that the specification asks for; sends are gathered when
 * they are carried out, not when they are posted, keys and bounds are checked, a write with immediate needs a posted
 * receive. What libibverbs would not forgive (a queue that overflows, an object destroyed in use, an event not
 * acknowledged) ends the program.
 *
 * Faults: any call can fail, once or from some point on, or hang; queue pairs can be held (nothing is carried out, as
 * on a silent rail), give up, lose their completions; events can be raised. Any thread. */
#ifndef TEST_FAULT_VERBS_H
#define TEST_FAULT_VERBS_H

#include "foreign/ibverbs.h"

#ifdef RAIL_HAVE_VERBS

/* From here on ibverbs_functions() gives this table, without faults. Nothing of it may be in use. */
void fault_verbs_install(void);

/* The NAME-th member's ("reg_mr") calls from now: the first `after` succeed, the next `times` fail with `error`. NULL: any call
 * that can fail. */
void fault_verbs_fail(const char *name, int after, int times, int error);
/* Calls of that kind so far; NULL: of all that can fail. */
int fault_verbs_calls(const char *name);

/* Calls of the NAME-th member do not return until it is let go; NULL: all are. One at a time. */
void fault_verbs_hang(const char *name);

/* All queue pairs of a device, those to come included; -1: of all devices. */
void fault_verbs_hold(int device, bool held);
/* The same, but what is posted meanwhile is on the wire already: it arrives with what it was then. */
void fault_verbs_delay(int device, bool delayed);
void fault_verbs_lose_completions(int device, bool lost); /* of sends */
/* What is out ends with RETRY_EXC, the queue pairs are in error. */
void fault_verbs_give_up(int device);
/* In every context that has the device open. QP events name each queue pair of it. */
void fault_verbs_event(int device, enum ibv_event_type type);
void fault_verbs_port(int device, bool active); /* the port's state, with its event */
/* Enhanced connections: what a device knows; vendor 0 (as installed): none. */
void fault_verbs_ece(int device, uint32_t vendor, uint32_t options);
void fault_verbs_infiniband(int device, bool infiniband); /* else Ethernet */
/* Its queue pairs are set to RTS by fault_rdmacm.h's devices only; it has no partitions. */
void fault_verbs_iwarp(int device, bool iwarp);
/* Whether the table has the members that older libraries lack (reg_mr_iova2, query_ece, set_ece, is_fork_initialized). */
void fault_verbs_modern(bool modern);
/* Whether children keep registered pages at fork() (the kernel copies them at once, Linux 5.12); else they lose them. */
void fault_verbs_forks(bool keep_memory);
/* GIDs of a device are of this family from now on: 4, 6; 0: it has none. */
void fault_verbs_family(int device, int family);

struct fault_verbs_figures {
    uint64_t requests, signalled, bytes;
    uint64_t not_ready;      /* writes that found no receive posted */
    int objects;             /* contexts, domains, regions, channels, queues that are open */
    uint64_t immediate_most; /* bytes of the largest write with immediate */
    uint64_t plain;          /* writes of something without one */
    int registered_most;
    int registered, relaxed; /* now; of them for relaxed ordering, */
    int read_only;           /* and for nothing but reading by the device itself */
    uint64_t read_only_bytes; /* that were sent from such memory */
    uint64_t read_only_out;   /* that are to be, and were not read yet */
};
struct fault_verbs_figures fault_verbs_figures(void);

/* Queue pairs that are ready to send (RTS), at most `room`; returns how many there are. */
struct fault_verbs_qp {
    int device;
    uint32_t number, peer, flow_label;
    uint64_t bytes; /* carried out */
    uint32_t ece_vendor, ece_options; /* that it was set to */
};
int fault_verbs_qps(struct fault_verbs_qp *out, int room);

/* For fault_rdmacm.c: the device as libibverbs has it; joins two queue pairs, as an iWARP driver does. */
struct ibv_device *fault_verbs_device(int device);
bool fault_verbs_join(uint32_t one, uint32_t other);

#endif
#endif
