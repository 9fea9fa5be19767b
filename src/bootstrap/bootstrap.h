/* bootstrap.h - how the ranks of a communicator find one another, and the slow, reliable side channel between them.
 *
 * The unique id carries the root's addresses and a 256-bit secret. Every connection proves knowledge of the secret both
 * ways (keyed BLAKE2b over fresh nonces) before anything else is read. The root tells every rank its parent; from then
 * on the ranks talk over a tree (fan-out BOOTSTRAP_FANOUT): all-gather and barrier in O(log n) rounds. The tree's
 * connections stay open for the life of the communicator: they carry failure news and end-of-file of dead processes.
 *
 * The tree outlives its connections. One that breaks, or is not acknowledged by the far host's kernel any more, is
 * replaced by one over other addresses, and nothing is lost or doubled by that (session.c, pulse.c, redial.c). A
 * process is gone when its connection ends or its host refuses a new one; a host is lost when none of its addresses
 * answers for BOOTSTRAP_LOST_MS. A process that is stopped or busy is neither. Whoever finds a loss tells it to rank
 * 0, or to the lowest rank that is left, which decides for all (verdict.c).
 *
 * A half-open, silent or wrong connection is dropped after its own deadline, counted and logged, and disturbs
 * nobody. */
#ifndef RAIL_BOOTSTRAP_BOOTSTRAP_H
#define RAIL_BOOTSTRAP_BOOTSTRAP_H

#include <stdint.h>

#include <stdbool.h>
#include <stddef.h>

#include "base/clock.h"
#include "base/result.h"
#include "bootstrap/sockets.h"

enum { BOOTSTRAP_ID_BYTES = 128, BOOTSTRAP_SECRET_BYTES = 32, BOOTSTRAP_REPORT_BYTES = 880 };
enum { BOOTSTRAP_PLACE_ENDPOINTS = 16 };
/* A host is lost when nothing of it answers for so long. Suspected much earlier, it has been dialed over every
 * network three times by then; survivors are to know within 3 s. */
enum { BOOTSTRAP_LOST_MS = 1700 };

/* ncclGetUniqueId: opens the root's listener in this process (or uses NCCL_COMM_ID) and writes the id. The root serves
 * one communicator, then ends; it also ends after RAILCCL_ROOT_TIMEOUT_S without one. */
enum rail_result bootstrap_root_create(uint8_t id[BOOTSTRAP_ID_BYTES]);

struct bootstrap;

struct bootstrap_config {
    const uint8_t *id; /* BOOTSTRAP_ID_BYTES */
    uint32_t rank, n_ranks;
    struct rail_deadline deadline;
    const _Atomic uint32_t *stop; /* becomes non-zero when the user aborts; looked at at least every 20 ms */
    /* While ranks are missing, on the calling thread: after 100 ms, then twice as late each time up to every second. Not
     * RAIL_OK, with a text: there is no use in waiting. Without an id; may be NULL. */
    enum rail_result (*in_vain)(void *owner);
    void *owner;
};

/* Joins: returns when this rank has its place in the tree. Errors name what happened: root unreachable (address and
 * errno), wrong secret, duplicate rank, different n_ranks, different version, and at the deadline the missing ranks
 * (as far as the root knows them). */
enum rail_result bootstrap_open(const struct bootstrap_config *config, struct bootstrap **out);

/* Where a process is found later, by communicators made of those it is in. Plain bytes. */
struct bootstrap_place {
    uint32_t n_endpoints, number; /* random, for the life of the process: another's place differs, whatever its ports are */
    struct endpoint endpoints[BOOTSTRAP_PLACE_ENDPOINTS];
};
/* This process's; opens its listeners if need be, one per interface. They stay for the life of the process. */
enum rail_result bootstrap_place_here(struct bootstrap_place *out);

/* This rank's parent in the tree: rank tree_parent(rank) of the new communicator. */
struct bootstrap_parent {
    const struct bootstrap_place *place;
    bool same_host; /* its loopback addresses are ours */
    uint32_t pid;   /* for messages, like its host */
    const char *host;
};

/* Joins without an id: every member has the same `secret`, knows where its parent is, and calls this with
 * config->id NULL. `parent` is not looked at on rank 0. Whose list of members differs has another secret, is refused,
 * and named as missing at the deadline. */
enum rail_result bootstrap_open_derived(const struct bootstrap_config *config,
                                        const uint8_t secret[BOOTSTRAP_SECRET_BYTES],
                                        const struct bootstrap_parent *parent, struct bootstrap **out);
/* Makes the secret one that was never there before, from bytes that all ranks have in common by now: two communicators
 * with the same members, made one after another, must not have the same. Before anything was derived from it. */
void bootstrap_refresh(struct bootstrap *b, const void *fresh, size_t bytes);

/* Collective over all ranks, in call order. `table` has n_ranks entries of bytes_each; own entry filled in. */
enum rail_result bootstrap_allgather(struct bootstrap *b, void *table, size_t bytes_each,
                                     struct rail_deadline deadline);
enum rail_result bootstrap_barrier(struct bootstrap *b, struct rail_deadline deadline);

/* The communicator's secret (derived from the id's with everything that identifies this communicator). */
const uint8_t *bootstrap_secret(const struct bootstrap *b);

/* From now on the service thread listens on the tree. `lost` is called on it, once, with the first failure heard of:
 * the culprit's rank and one line of text, the same on every rank whenever the news can travel. */
/* Of a rank, as core knows it from the exchange at init. */
struct bootstrap_who {
    const struct bootstrap_place *place;
    uint64_t host_key;
    uint32_t pid;
    const char *host;
};
struct bootstrap_watch {
    void (*lost)(void *owner, uint32_t culprit, enum rail_result result, const char *text);
    void *owner;
    /* At rank 0, on the service thread: a rank's report. May be NULL. */
    void (*reported)(void *owner, const uint8_t report[BOOTSTRAP_REPORT_BYTES]);
    /* At all other ranks, on the service thread: rank 0's word. May be NULL. */
    void (*word)(void *owner, uint64_t number, const char *text);
    /* Before `lost`: the process of this rank is gone for certain. May be NULL. */
    void (*gone)(void *owner, uint32_t rank, const char *text);
};
enum rail_result bootstrap_watch(struct bootstrap *b, struct bootstrap_watch watch);

/* Who the ranks are; from now until closing, from any thread, with b's lock held: must not block. False: not known.
 * With it a rank whose parent is lost finds whoever decides then, and hosts are named with all their ranks; without
 * it each part of a cut tree decides for itself. */
void bootstrap_know(struct bootstrap *b, bool (*who)(void *owner, uint32_t rank, struct bootstrap_who *out),
                    void *owner);

/* When anything of this rank's host was heard of last by other ways than the tree, on the monotonic clock; 0: not known. Asked of
 * neighbours that do not answer, on the service thread, no lock held, until closing. A wire that is left alone with all the traffic
 * may be slower than the tree's patience. */
void bootstrap_hear(struct bootstrap *b, uint64_t (*heard)(void *owner, uint32_t rank), void *owner);

/* What this rank found about another, to be weighed against what others find: `lost` is then called everywhere with
 * one and the same verdict, some 100 ms (somebody died), 450 ms (cannot be reached) or 1 s (a link failed) later. */
enum bootstrap_finding { BOOTSTRAP_LINK_FAILED = 1, BOOTSTRAP_UNREACHABLE = 2 };
/* `text` is for BOOTSTRAP_LINK_FAILED. Any thread; does not block. */
void bootstrap_accuse(struct bootstrap *b, uint32_t culprit, enum bootstrap_finding kind, const char *text);

/* Tells every rank that `culprit` failed, at once: what is certain and needs no weighing. Any thread; does not block.
 * */
void bootstrap_tell(struct bootstrap *b, uint32_t culprit, enum rail_result result, const char *text);

/* Sends some bytes to rank 0 (not from rank 0 itself). Any thread; does not block. May be lost: say it again. */
void bootstrap_report(struct bootstrap *b, const uint8_t report[BOOTSTRAP_REPORT_BYTES]);

/* Rank 0 sends a number and a line of text (cut at 463 bytes) to all others. Any thread; does not block. May be lost.
 * */
void bootstrap_word(struct bootstrap *b, uint64_t number, const char *text);

/* Says goodbye (so that closing is not taken for a death) and frees. Bounded time. */
void bootstrap_close(struct bootstrap *b);

/* Testing and telemetry: connections dropped because they failed to prove the secret or kept silent. */
uint64_t bootstrap_refused(void);
/* Connections of trees that were replaced by another one, and hosts and processes that were suspected, in this
 * process. */
uint64_t bootstrap_resumed(void);
uint64_t bootstrap_suspected(void);

#endif
