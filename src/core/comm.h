/* comm.h - the communicator: who takes part, by which wires, and whether it still works. */
#ifndef RAIL_CORE_COMM_H
#define RAIL_CORE_COMM_H

#include <stdint.h>

#include "algos/algos.h"
#include "bootstrap/bootstrap.h"
#include "core/config.h"
#include "core/fault.h"
#include "core/redop.h"
#include "core/table.h"
#include "core/wires.h"
#include "engine/calls.h"
#include "engine/express.h"
#include "engine/host.h"
#include "engine/messages.h"
#include "engine/wait.h"
#include "topo/shape.h"

/* What every rank says of itself at init. Plain bytes, all-gathered. */
struct member {
    uint64_t host;           /* machine_host_key() */
    uint64_t machine;        /* machine_key() */
    uint64_t agreed;         /* hash of the settings that must agree */
    uint8_t process[16];     /* net_process_id() */
    int32_t pid;
    int32_t cores;           /* machine_cores() */
    char host_name[32];
};

struct comm {
    _Atomic uint64_t magic; /* COMM_MAGIC while alive; a call may look at it while another thread aborts */
    uint32_t rank, n_ranks;
    int device;          /* as given to InitAll; -1 on a host rank otherwise */
    struct shape shape;
    struct member *members; /* [n_ranks] */
    struct bootstrap *bootstrap;
    struct host_node node;
    struct wires wires;
    struct messages p2p; /* what ncclSend and ncclRecv move; made at first use (p2p.c) */
    struct net_address *addresses; /* [n_ranks], NULL within one node */
    bool networked;      /* the listeners know this communicator */
    struct choice_table table;
    struct wait_policy policy;
    struct fault fault;
    struct redops redops;
    bool direct;         /* all ranks of the node are in this process: peers may use addresses */
    bool express;        /* the smallest messages take the express path */
    bool finalized;
    _Atomic bool joined; /* the doorbell is there: news may ring it */
    uint64_t next_report_ns; /* when this rank, waiting for long, may tell rank 0 of it again */
    struct calls_history reports[SHM_CALLS]; /* rank 0: one of call n at n modulo SHM_CALLS; the service thread's */
    _Atomic uint32_t inside; /* a thread works in a call: set by that thread, awaited by an abort */
    struct comm *next_retired; /* comm_store.c's */
    uint64_t magic_end;
};

#define COMM_MAGIC 0x7261696c636f6d6dull     /* "railcomm" */
#define COMM_MAGIC_END 0x6d6d6f636c696172ull

struct comm_request {
    const uint8_t *id; /* BOOTSTRAP_ID_BYTES */
    uint32_t rank, n_ranks;
    int device;
    struct comm_config config;
};

/* Joins: blocks until all ranks are there, or the deadline of RAILCCL_INIT_TIMEOUT_S. */
enum rail_result comm_create(const struct comm_request *request, struct comm **out);

/* Waits until everything sent has arrived (bounded by RAILCCL_FINALIZE_TIMEOUT_S). Idempotent. */
enum rail_result comm_finalize(struct comm *comm);
/* Finalizes if that was not done, says goodbye, frees. */
enum rail_result comm_destroy(struct comm *comm);
/* From any thread, while another may be inside a call: makes that call return, without waiting for peers. Then frees. */
enum rail_result comm_abort(struct comm *comm);

/* RAIL_E_ARGUMENT with a text that names `call` unless `comm` is a living communicator. */
enum rail_result comm_check(const struct comm *comm, const char *call);

#endif
