/* comm.c - a communicator's life: made, at work, finalized, destroyed or aborted.
 *
 *                        library's thread                                    comm->magic
 *   comm_new --> JOINING ---- made ----> MAGIC <--> DERIVING, FINALIZING
 *                   |                      |               |
 *                   +--- not made          |               |       ended meanwhile: 0, and that thread frees
 *                   v                      v
 *                FAILED ------ destroy, abort ----> 0 */
#include "core/comm.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/params.h"
#include "base/thread.h"
#include "core/announce.h"
#include "core/collective.h"
#include "core/comm_store.h"
#include "core/gpu_rank.h"
#include "core/leave.h"
#include "core/notes.h"
#include "core/p2p.h"
#include "core/readers.h"
#include "engine/calls.h"

/* ---- may this call come ---- */

static const char *doing(uint64_t magic)
{
    return magic == COMM_JOINING    ? "is still being made"
           : magic == COMM_DERIVING ? "still has another made of it"
                                    : "is still being finalized";
}

static bool in_progress(uint64_t magic)
{
    return magic == COMM_JOINING || magic == COMM_DERIVING || magic == COMM_FINALIZING;
}

__attribute__((cold)) static enum rail_result refuse(const struct comm *comm, uint64_t magic, const char *call)
{
    if (in_progress(magic))
        return rail_fail(RAIL_E_USAGE,
                         "%s: the communicator %s (ncclInProgress): ask ncclCommGetAsyncError until it says otherwise",
                         call, doing(magic));
    if (magic == COMM_SUSPENDED)
        return rail_fail(RAIL_E_USAGE, "%s: the communicator is suspended; call ncclCommResume on all ranks first", call);
    if (magic == COMM_FAILED) {
        char why[512];
        snprintf(why, sizeof why, "%s", comm->fault.text);
        return rail_fail(RAIL_E_USAGE, "%s: the communicator could not be made (%s); free it with ncclCommAbort", call,
                         why);
    }
    if (magic == COMM_LEFT)
        return rail_fail(RAIL_E_USAGE, "%s: the program is ending (exit), and its communicators have said goodbye", call);
    if (magic == COMM_OF_PARENT)
        return rail_fail(RAIL_E_USAGE,
                         "%s: this communicator was made before fork(), by the parent process; a child makes communicators "
                         "of its own (ncclGetUniqueId, ncclCommInitRank)",
                         call);
    return rail_fail(RAIL_E_ARGUMENT,
                     "%s: %p is not a living communicator (destroyed before, or never made by this library)", call,
                     (const void *)comm);
}

enum rail_result comm_check(const struct comm *comm, const char *call)
{
    if (!comm) return rail_fail(RAIL_E_ARGUMENT, "%s: the communicator is NULL", call);
    uint64_t magic = atomic_load_explicit(&comm->magic, memory_order_acquire);
    return magic == COMM_MAGIC && comm->magic_end == COMM_MAGIC_END ? RAIL_OK : refuse(comm, magic, call);
}

enum rail_result comm_known(const struct comm *comm, const char *call)
{
    if (!comm) return rail_fail(RAIL_E_ARGUMENT, "%s: the communicator is NULL", call);
    uint64_t magic = atomic_load_explicit(&comm->magic, memory_order_acquire);
    bool known = magic == COMM_MAGIC || magic == COMM_SUSPENDED || magic == COMM_FAILED || magic == COMM_LEFT;
    if ((known || in_progress(magic)) && comm->magic_end == COMM_MAGIC_END)
        return RAIL_OK;
    return refuse(comm, comm->magic_end == COMM_MAGIC_END && magic == COMM_OF_PARENT ? magic : 0, call);
}

bool comm_forget_parents(struct comm *comm)
{
    uint64_t of_parent = COMM_OF_PARENT;
    return atomic_compare_exchange_strong(&comm->magic, &of_parent, 0);
}

enum rail_result comm_made_check(const struct comm *comm, const char *call)
{
    bool suspended = comm && atomic_load_explicit(&comm->magic, memory_order_acquire) == COMM_SUSPENDED;
    return suspended ? comm_known(comm, call) : comm_check(comm, call);
}

enum rail_result comm_runs_check(const struct comm *comm, const char *call)
{
    uint64_t magic = atomic_load_explicit(&comm->magic, memory_order_acquire); /* one look: a split may begin meanwhile */
    return magic == COMM_MAGIC || magic == COMM_DERIVING || magic == COMM_FINALIZING ? RAIL_OK : refuse(comm, magic, call);
}

enum rail_result comm_state(struct comm *comm)
{
    uint64_t magic = atomic_load_explicit(&comm->magic, memory_order_acquire);
    if (in_progress(magic)) return RAIL_IN_PROGRESS;
    if (atomic_load(&comm->revoked) && fault_is(&comm->fault, RAIL_E_REVOKED)) return RAIL_OK;
    return fault_result(&comm->fault);
}

enum rail_result comm_hold(struct comm *comm, const char *call)
{
    uint32_t nobody = 0;
    comm_settle(comm);
    if (!atomic_compare_exchange_strong(&comm->inside, &nobody, 1)) return comm_occupied(call);
    if (!atomic_load(&comm->ending)) return RAIL_OK; /* whoever ends it sees us inside from now on, and waits */
    comm_let_go(comm);
    return rail_fail(RAIL_E_USAGE, "%s: another thread is destroying or aborting this communicator", call);
}

void comm_let_go(struct comm *comm) { atomic_store_explicit(&comm->inside, 0, memory_order_release); }

/* ---- beginning ---- */

struct comm *comm_new(const char *call, const struct comm_config *config, int device, struct cuda_device *gpu)
{
    struct comm *comm = comm_store_take();
    if (!comm) {
        rail_fail(RAIL_E_SYSTEM, "%s: out of memory", call);
        return NULL;
    }
    comm->config = *config;
    comm->device = gpu ? gpu->ordinal : device;
    comm->gpu_device = gpu;
    if (gpu) cuda_device_hold(gpu);
    fault_init(&comm->fault);
    watch_init(&comm->watch);
    comm->magic_end = COMM_MAGIC_END;
    atomic_store_explicit(&comm->magic, COMM_JOINING, memory_order_release);
    announce();
    leave_at_exit();
    return comm;
}

static void nap(uint64_t ns)
{
    struct timespec t = {0, (long)ns};
    nanosleep(&t, NULL);
}

/* Gives back everything but the handle. Accepts a half-made communicator. */
static void clear(struct comm *comm)
{
    while (atomic_load(&comm->revoking)) nap(50 * RAIL_NS_PER_US);
    bool failed = atomic_load(&comm->fault.stop) != 0;
    notes_stop(comm);
    if (comm->node.segment.mapping && (!failed || comm->stopped)) calls_close(&comm->node); /* else the news tells */
    gpu_rank_close(comm); /* before what its kernels may touch */
    onesided_clear(comm); /* what arrives may have to tell of a failure */
    if (comm->bootstrap) bootstrap_close(comm->bootstrap);
    comm->bootstrap = NULL;
    uint64_t comm_key = comm->wires.comm_key;
    p2p_free(comm);
    alltoall_close(&comm->alltoall);
    wires_clear(&comm->wires);
    if (comm->networked) net_comm_remove(comm_key);
    comm->networked = false;
    shm_segment_close(&comm->node.segment);
    shape_clear(&comm->shape);
    watch_clear(&comm->watch);
    notes_clear(comm);
    redops_clear(&comm->redops);
    registrations_clear(&comm->registrations);
    digest_close(comm->digest);
    comm->digest = NULL;
    readers_drop(comm);
    free(comm->scratch.at);
    comm->scratch = (struct scratch){0};
    free(comm->addresses);
    free(comm->home_nic);
    free(comm->members);
    comm->addresses = NULL;
    comm->home_nic = NULL;
    comm->members = NULL;
}

void comm_free(struct comm *comm)
{
    atomic_store(&comm->magic, 0);
    clear(comm);
    comm_store_give(comm);
}

void comm_made(struct comm *comm, uint64_t from)
{
    if (!atomic_compare_exchange_strong(&comm->magic, &from, COMM_MAGIC)) comm_free(comm);
}

void comm_not_made(struct comm *comm, enum rail_result result)
{
    uint64_t from = COMM_JOINING;
    char text[512];
    snprintf(text, sizeof text, "%s", rail_own_error());
    clear(comm);
    fault_raise(&comm->fault, result, text);
    if (!atomic_compare_exchange_strong(&comm->magic, &from, COMM_FAILED)) comm_free(comm);
}

/* ---- ending ---- */

/* RAILCCL_DIGEST: closing ranks wait for one another, to compare. */
#define DIGEST_PATIENCE_NS (5 * RAIL_NS_PER_S)

enum rail_result comm_drain(struct comm *comm, const char *call)
{
    comm_settle(comm);
    uint64_t patience_ns = (uint64_t)rail_param_int(RAIL_PARAM_FINALIZE_TIMEOUT_S) * RAIL_NS_PER_S;
    struct rail_deadline deadline = rail_deadline_in_ns(patience_ns);
    enum rail_result result = gpu_rank_settle(comm, deadline);
    if (result == RAIL_NOT_YET)
        return rail_fail(RAIL_E_TIMEOUT, "%s: what rank %u enqueued on its GPU has not run within %lld s "
                         "(RAILCCL_FINALIZE_TIMEOUT_S); synchronize the streams first", call, comm->rank,
                         (long long)(patience_ns / RAIL_NS_PER_S));
    if (result == RAIL_OK) result = fault_result(&comm->fault);
    if (result != RAIL_OK) return result;
    comm_enter(comm);
    while (!wires_drained(&comm->wires) || !onesided_drained(comm)) {
        if ((result = fault_result(&comm->fault)) != RAIL_OK) break;
        if (rail_deadline_passed(deadline)) {
            result = rail_fail(RAIL_E_TIMEOUT,
                               "%s: data sent by rank %u was not taken by its peers within %lld s "
                               "(RAILCCL_FINALIZE_TIMEOUT_S)",
                               call, comm->rank, (long long)(patience_ns / RAIL_NS_PER_S));
            break;
        }
        if (!net_progress()) sched_yield();
    }
    comm_leave(comm);
    return result;
}

static enum rail_result drain(struct comm *comm)
{
    if (comm->finalized) return RAIL_OK;
    enum rail_result result = comm_drain(comm, "ncclCommFinalize");
    comm_enter(comm);
    if (result == RAIL_OK) result = fault_result(&comm->fault); /* of an abort in between */
    if (result == RAIL_OK) result = digest_compare(comm->digest, comm->bootstrap, rail_deadline_in_ns(DIGEST_PATIENCE_NS));
    comm_leave(comm);
    comm->finalized = result == RAIL_OK;
    return result;
}

static void *finalize_main(void *argument)
{
    struct comm *comm = argument;
    enum rail_result result = drain(comm);
    if (result != RAIL_OK) fault_raise(&comm->fault, result, rail_own_error());
    comm_made(comm, COMM_FINALIZING);
    return NULL;
}

enum rail_result comm_finalize(struct comm *comm)
{
    if (comm->config.blocking) return drain(comm);
    RAIL_TRY(fault_result(&comm->fault));
    uint64_t from = COMM_MAGIC;
    if (!atomic_compare_exchange_strong(&comm->magic, &from, COMM_FINALIZING)) return refuse(comm, from, "ncclCommFinalize");
    enum rail_result result = rail_thread_start("ncclCommFinalize", finalize_main, comm, NULL);
    if (result == RAIL_OK) return RAIL_IN_PROGRESS;
    comm_made(comm, COMM_FINALIZING);
    return result;
}

/* The library's thread always ends: by success, by its deadline, or by the fault. */
static void await_library(const struct comm *comm)
{
    while (in_progress(atomic_load_explicit(&comm->magic, memory_order_acquire))) nap(200 * RAIL_NS_PER_US);
}

enum rail_result comm_destroy(struct comm *comm)
{
    if (atomic_exchange(&comm->ending, 1))
        return rail_fail(RAIL_E_USAGE, "ncclCommDestroy: another thread is destroying or aborting this communicator");
    await_library(comm);
    comm_settle(comm);
    uint64_t magic = atomic_load(&comm->magic);
    bool failed = magic == COMM_FAILED || magic == COMM_LEFT || atomic_load(&comm->fault.stop);
    enum rail_result result = failed ? RAIL_OK : drain(comm);
    comm_free(comm);
    return result;
}

/* The thread inside sees `stop` at its next look (microseconds while awake, at once by the doorbell when asleep). The
 * first nap also covers a caller whose "inside" is still in its store buffer. */
static void await_caller(struct comm *comm)
{
    do {
        shm_ring(&comm->node.segment, comm->node.self);
        nap(50 * RAIL_NS_PER_US);
    } while (atomic_load_explicit(&comm->inside, memory_order_acquire));
}

void comm_stop(struct comm *comm, const char *what)
{
    char text[128];
    snprintf(text, sizeof text, "rank %u %s", comm->rank, what);
    comm->stopped |= fault_raise(&comm->fault, RAIL_E_ABORTED, text);
    await_caller(comm);
}

/* Is there something that can be revoked? Also while others are made of it: a split may wait for a rank in vain. */
static enum rail_result revocable(const struct comm *comm)
{
    static const char call[] = "ncclCommRevoke";
    RAIL_TRY(comm_known(comm, call));
    uint64_t magic = atomic_load_explicit(&comm->magic, memory_order_acquire);
    bool there = magic == COMM_MAGIC || magic == COMM_SUSPENDED || magic == COMM_DERIVING || magic == COMM_FINALIZING;
    return there ? RAIL_OK : refuse(comm, magic, call);
}

/* Told whatever has failed here: the others may know nothing of that (NCCL_SHRINK_ABORT), and the tree passes on the
 * first news only. Told before it is raised: who is stopped in the tree would call itself aborted there. */
static void revoke(struct comm *comm)
{
    char text[128];
    atomic_store(&comm->revoked, true);
    snprintf(text, sizeof text, "rank %u revoked this communicator (ncclCommRevoke)", comm->rank);
    bootstrap_tell(comm->bootstrap, comm->rank, RAIL_E_REVOKED, text);
    fault_raise(&comm->fault, RAIL_E_REVOKED, text);
    do {
        shm_ring(&comm->node.segment, comm->node.self);
        nap(50 * RAIL_NS_PER_US);
    } while (atomic_load_explicit(&comm->inside, memory_order_acquire) && !fault_outlived(&comm->fault));
}

enum rail_result comm_revoke(struct comm *comm)
{
    RAIL_TRY(comm_known(comm, "ncclCommRevoke"));
    atomic_fetch_add(&comm->revoking, 1); /* then a look whether it is being ended, which sees us or is seen */
    enum rail_result result = revocable(comm);
    if (result == RAIL_OK && atomic_load(&comm->ending))
        result = rail_fail(RAIL_E_USAGE, "ncclCommRevoke: another thread is destroying or aborting this communicator");
    if (result == RAIL_OK) revoke(comm);
    atomic_fetch_sub(&comm->revoking, 1);
    return result;
}

enum rail_result comm_abort(struct comm *comm)
{
    char text[512], waited[WATCH_TEXT + 32];
    watch_words(comm, waited, sizeof waited);
    if (atomic_load(&comm->magic) == COMM_JOINING) /* its thread finds out which one just now */
        snprintf(text, sizeof text, "this rank called ncclCommAbort");
    else
        snprintf(text, sizeof text, "rank %u called ncclCommAbort%s", comm->rank, waited);
    bool first = fault_raise(&comm->fault, RAIL_E_ABORTED, text);
    fault_raise_heir(&comm->fault, RAIL_E_ABORTED, text);
    if (atomic_exchange(&comm->ending, 1)) return RAIL_OK; /* a Destroy of another thread now ends, and frees */
    uint64_t was = atomic_load(&comm->magic);
    if (was == COMM_DERIVING || was == COMM_FINALIZING) { /* the bootstrap stays while we have not stored 0 */
        if (first) bootstrap_tell(comm->bootstrap, comm->rank, RAIL_E_REMOTE, text);
        first = false;
    }
    was = atomic_exchange(&comm->magic, 0);
    if (in_progress(was)) return RAIL_OK; /* the library's thread frees */
    if (was == COMM_MAGIC || was == COMM_SUSPENDED) {
        if (first) bootstrap_tell(comm->bootstrap, comm->rank, RAIL_E_REMOTE, text);
        await_caller(comm);
    }
    comm_free(comm);
    return RAIL_OK;
}
