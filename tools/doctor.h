/* doctor.h - the parts of `railccl doctor`: what a host shows of itself (facts), what is wrong with that (findings).
 *
 * Facts are read from files, below a root folder, so that a test lays a machine out and a support case can be looked at
 * elsewhere; one is tried, on this machine alone (peer_read). A number that is not known is DOCTOR_UNKNOWN, a text that
 * is not known is empty. */
#ifndef TOOLS_DOCTOR_H
#define TOOLS_DOCTOR_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/result.h"

enum { DOCTOR_PORTS_MOST = 64, DOCTOR_NAME = 64, DOCTOR_UNKNOWN = -1 };
#define DOCTOR_UNLIMITED INT64_MAX

/* One port of one RDMA device. */
struct doctor_port {
    char device[DOCTOR_NAME], netdev[16];
    int32_t number;
    char state[24], physical[24], layer[24]; /* "ACTIVE", "LinkUp", "InfiniBand" or "Ethernet" */
    bool software;                           /* rxe, siw: no PCI device */
    double mbit_per_s;
    int32_t mtu, rdma_mtu; /* bytes: the interface's; what fits of RDMA's, RoCE only */
    int32_t lid, sm_lid;   /* InfiniBand only */
    int32_t gids, gids_v2, gids_v4, gids_v6; /* filled; RoCE v2; of these with a routable address of each family */
    int32_t gid_first,
        gid_hole; /* index of the first usable one; of the first empty one before a filled one; or unknown */
    char gid[56];                /* the usable one */
    char subnet[24];             /* "10.77.0.0/24": what the interface reaches without a gateway */
    int32_t numa;
    bool numa_allowed;           /* this process may use a CPU of that node; true if the node is not known */
    char bus[24], iommu[16], acs[24]; /* PCI address; the IOMMU group's type; the bridge above that redirects by ACS */
    bool acs_seen;
    char verbs[24]; /* "uverbs0" */
    bool verbs_there, verbs_open, verbs_for_all;
    int64_t downs, symbol_errors, resent, out_of_order, no_receive, gave_up, congestion; /* since the driver was loaded */
};

struct doctor_facts {
    char host[DOCTOR_NAME], version[24], kernel[DOCTOR_NAME], root[200];
    struct doctor_port ports[DOCTOR_PORTS_MOST];
    int32_t n_ports, ports_left_out;
    char idle_nic[24], idle_driver[24]; /* a NIC that can do RDMA and has no RDMA device; what would drive it */
    bool uverbs, ucm, cm_file;          /* ib_uverbs, rdma_ucm are loaded; /dev/infiniband/rdma_cm is there */
    int32_t gpus;
    bool nvidia, nvidia_open, peermem, dmabuf;
    int32_t numa_nodes, cpus_allowed;
    int64_t memlock, files;                       /* soft limits: bytes; descriptors */
    bool may_lock;                                /* CAP_IPC_LOCK: the first does not bind this process */
    double cpu_quota;                             /* CPUs of the control group; 0: no limit */
    int64_t memory, memory_limit, shm;            /* bytes: of the machine; of the group; of /dev/shm */
    int64_t huge_pages;                           /* bytes reserved */
    char huge_mode[24], iommu_line[40],
        firewall[48]; /* transparent huge pages; the kernel's command line; who filters packets */
    int32_t ptrace_scope;    /* Yama's */
    bool may_trace, seccomp; /* CAP_SYS_PTRACE; a filter judges this process's system calls */
    int32_t peer_read;       /* as doctor_try_reads has it */
};

/* RAIL_E_ARGUMENT when root is no folder. "" is this machine. */
enum rail_result doctor_look(const char *root, struct doctor_facts *out);
void doctor_look_ports(const char *root, struct doctor_facts *facts);
/* Has one process read another's memory as ranks of a host do: 0, or errno, ETIMEDOUT where it did not come back;
 * DOCTOR_UNKNOWN: it could not be tried. */
int32_t doctor_try_reads(int limit_ms);

enum doctor_severity {
    DOCTOR_ERROR,   /* RDMA will not work here, or not on this port; or ranks will not start */
    DOCTOR_WARNING, /* it works and is slower or more fragile than it could be */
    DOCTOR_NOTE,    /* good to know */
};

struct doctor_finding {
    enum doctor_severity severity;
    const char *id;   /* for programs: does not change between versions */
    char where[140], text[400], remedy[400];
};

enum { DOCTOR_FINDINGS_MOST = 512 };
struct doctor_findings {
    struct doctor_finding at[DOCTOR_FINDINGS_MOST];
    int32_t n, left_out;
};

void doctor_say(struct doctor_findings *list, enum doctor_severity severity, const char *id, const char *where,
                const char *remedy, const char *format, ...) __attribute__((format(printf, 6, 7)));
const char *doctor_severity_name(enum doctor_severity severity);
/* Appends. Worst first after doctor_sort. */
void doctor_judge_ports(const struct doctor_facts *facts, struct doctor_findings *out);
void doctor_judge_host(const struct doctor_facts *facts, struct doctor_findings *out);
void doctor_judge_reads(const struct doctor_facts *facts, struct doctor_findings *out);
/* What two hosts do not agree on. */
void doctor_compare(const struct doctor_facts *a, const struct doctor_facts *b, struct doctor_findings *out);
void doctor_sort(struct doctor_findings *findings);

/* Exit statuses, beside 2 (bad usage). */
enum { DOCTOR_FINE = 0, DOCTOR_WARNED = 1, DOCTOR_WRONG = 3, DOCTOR_NO_DEVICE = 4 };
int doctor_status(const struct doctor_facts *facts, const struct doctor_findings *findings);

void doctor_write_json(const struct doctor_facts *facts, const struct doctor_findings *findings, FILE *out);
/* Reads what doctor_write_json wrote; RAIL_E_ARGUMENT with the file's name. */
enum rail_result doctor_read_json(const char *path, struct doctor_facts *out);

#endif
