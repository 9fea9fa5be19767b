/* collective.c - choose, lay out, run, wait. */
#include "core/collective.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/futex.h"
#include "core/notes.h"
#include "core/reach.h"
#include "engine/calls.h"
#include "engine/express.h"
#include "engine/signature.h"
#include "plan/collective.h"

/* Survivors are to be released within two seconds; news needs milliseconds, on a crowded machine some hundreds. */
#define NEWS_PATIENCE_NS RAIL_NS_PER_S
/* For the verdict on a link's far end, which waits a second for better findings (bootstrap/verdict.c), and up to 1 s
 * more where the rank that decides has gone as well. */
#define VERDICT_PATIENCE_NS (3 * RAIL_NS_PER_S)
/* As in wait.c. */
#define LONG_NS (100 * RAIL_NS_PER_MS)

void comm_enter(struct comm *comm)
{
    atomic_store_explicit(&comm->inside, 1, memory_order_relaxed);
    watch_enter(&comm->watch);
    notes_watch(comm);
    if (comm->policy.network) net_enter();
}

void comm_leave(struct comm *comm)
{
    if (comm->policy.network) net_leave();
    /* Who enters while the communicator is being aborted leaves one that is being freed. */
    if (!atomic_load_explicit(&comm->fault.stop, memory_order_relaxed)) calls_end(&comm->node);
    watch_end(&comm->watch, comm);
    atomic_store_explicit(&comm->inside, 0, memory_order_release);
}

enum rail_result comm_occupied(const char *call)
{
    return rail_fail(RAIL_E_USAGE, "%s: another thread is inside a call of this communicator: one thread at a time, or a "
                     "communicator for each (ncclCommSplit)", call);
}

/* A link that ends is mostly the echo of something that the bootstrap's tree tells better: who failed, and why. The two
 * come by different sockets; the news may be some hops behind. */
static void await_stop(struct comm *comm, uint64_t ns)
{
    struct rail_deadline patience = rail_deadline_in_ns(ns);
    while (!atomic_load_explicit(&comm->fault.stop, memory_order_relaxed) && !rail_deadline_passed(patience))
        (void)rail_futex_wait(&comm->fault.stop, 0, RAIL_NS_PER_MS);
}

void comm_await_news(struct comm *comm) { await_stop(comm, NEWS_PATIENCE_NS); }

enum rail_result comm_failed(struct comm *comm, enum rail_result result)
{
    char text[512];
    int blamed = rail_blamed();
    bool weighed = result == RAIL_E_REMOTE && blamed >= 0 && (uint32_t)blamed < comm->n_ranks;
    snprintf(text, sizeof text, "%s", rail_own_error());
    if (weighed) bootstrap_accuse(comm->bootstrap, (uint32_t)blamed, BOOTSTRAP_LINK_FAILED, text);
    if (result == RAIL_E_REMOTE) await_stop(comm, weighed ? VERDICT_PATIENCE_NS : NEWS_PATIENCE_NS);
    enum rail_result known = fault_result(&comm->fault);
    if (known != RAIL_OK) return known;
    uint32_t culprit = weighed ? (uint32_t)blamed : comm->rank;
    if (fault_raise(&comm->fault, result, text)) bootstrap_tell(comm->bootstrap, culprit, result, text);
    return rail_fail_quietly(result, "%s", text);
}

/* ---- checks ---- */

struct collective_extent collective_extent(const struct comm *comm, const struct collective *a)
{
    struct collective_kind kind = collective_kind(a->kind);
    struct collective_extent e = {.block = a->count * rail_type_bytes((enum rail_type)a->type)};
    bool root = (uint32_t)a->root == comm->rank;
    if (!kind.root_gives || root) e.input = kind.input_blocks ? e.block * comm->n_ranks : e.block;
    if (!kind.root_gets || root) e.output = kind.output_blocks ? e.block * comm->n_ranks : e.block;
    return e;
}

/* The addresses of my own block in both buffers are the same. */
static bool in_place(const struct comm *comm, const struct collective *a, const struct collective_extent *e)
{
    struct collective_kind kind = collective_kind(a->kind);
    size_t mine = comm->rank * e->block;
    return e->input && e->output &&
           (uintptr_t)a->input + (kind.input_blocks ? mine : 0) == (uintptr_t)a->output + (kind.output_blocks ? mine : 0);
}

static enum rail_result overlap_check(const struct comm *comm, const struct collective *a, const struct collective_extent *e)
{
    struct collective_kind kind = collective_kind(a->kind);
    uintptr_t in = (uintptr_t)a->input, out = (uintptr_t)a->output;
    if (a->kind == PLAN_ALLTOALL && comm->n_ranks > 1 && in < out + e->output && out < in + e->input)
        return rail_fail(RAIL_E_ARGUMENT, "%s: sendbuff %p and recvbuff %p overlap (%zu bytes each): it does not work in "
                         "place; pass separate buffers", a->call, a->input, a->output, e->input);
    if (!e->input || !e->output || in_place(comm, a, e)) return RAIL_OK;
    if (in + e->input <= out || out + e->output <= in) return RAIL_OK;
    return rail_fail(RAIL_E_ARGUMENT,
                     "%s: sendbuff %p and recvbuff %p overlap in part (%zu and %zu bytes); for in place pass %s, else "
                     "separate buffers",
                     a->call, a->input, a->output, e->input, e->output,
                     kind.input_blocks    ? "recvbuff == sendbuff + rank * count elements"
                     : kind.output_blocks ? "sendbuff == recvbuff + rank * count elements"
                                          : "the same address");
}

enum rail_result collective_resolve(const struct comm *comm, const struct collective *a, struct rail_combine *how)
{
    if (collective_kind(a->kind).reduces)
        return redop_resolve(&comm->redops, a->call, a->op, a->type, comm->n_ranks, how);
    *how = (struct rail_combine){.type = (enum rail_type)a->type, .op = RAIL_SUM}; /* copies, to the bit */
    return RAIL_OK;
}

enum rail_result collective_check(const struct comm *comm, const struct collective *a)
{
    if (a->type < 0 || a->type >= RAIL_TYPES)
        return rail_fail(RAIL_E_ARGUMENT, "%s: datatype %d: valid are 0 (ncclInt8) to %d (ncclFloat8e5m2)", a->call,
                         a->type, RAIL_TYPES - 1);
    if (collective_kind(a->kind).rooted && (a->root < 0 || (uint32_t)a->root >= comm->n_ranks))
        return rail_fail(RAIL_E_ARGUMENT, "%s: root %d: valid are 0 to %u, the ranks of the communicator", a->call,
                         a->root, comm->n_ranks - 1);
    size_t element = rail_type_bytes((enum rail_type)a->type);
    if (a->count > SIGNATURE_COUNT_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "%s: count %zu of %zu-byte elements: at most %llu; split the call", a->call,
                         a->count, element, SIGNATURE_COUNT_MAX);
    struct collective_extent e = collective_extent(comm, a);
    if ((e.input && !a->input) || (e.output && !a->output))
        return rail_fail(RAIL_E_ARGUMENT, "%s: %s is NULL (count %zu)", a->call,
                         e.input && !a->input ? "sendbuff" : "recvbuff", a->count);
    struct rail_combine how;
    RAIL_TRY(collective_resolve(comm, a, &how));
    return overlap_check(comm, a, &e);
}

/* ---- running ---- */

/* One rank: the input, with the pre- and post-operation applied. */
static enum rail_result alone(const struct collective *a, const struct rail_combine *how)
{
    void *const dst[1] = {a->output};
    const void *const src[1] = {a->input};
    if (how->scaled || how->divide > 1 || a->input != a->output)
        rail_combine(how, dst, 1, src, 1, how->scaled, true, a->count);
    return RAIL_OK;
}

uint64_t collective_signature(const struct collective *a)
{
    struct collective_kind kind = collective_kind(a->kind);
    unsigned op = !kind.reduces ? 0u : a->op < REDOP_FIRST_CREATED ? (unsigned)a->op : 5u;
    return signature_make(signature_collective(a->kind), (unsigned)a->type, op, kind.rooted ? (uint32_t)a->root : 0,
                          a->count);
}

static enum rail_result provide_scratch(struct comm *comm, struct host_call *call, const struct plan *plan)
{
    size_t bytes = host_scratch_bytes(call, plan);
    if (bytes > comm->scratch.bytes) {
        free(comm->scratch.at);
        comm->scratch.at = aligned_alloc(SHM_LINE, bytes); /* pieces are whole lines */
        comm->scratch.bytes = comm->scratch.at ? bytes : 0;
        if (!comm->scratch.at) return rail_fail(RAIL_E_SYSTEM, "%zu bytes of scratch: out of memory", bytes);
    }
    call->scratch = comm->scratch.at;
    return RAIL_OK;
}

/* Streaming stores (device/host_copy.c) win where inputs and outputs of the ranks of a host are larger than its caches, by 2
 * to 5 %, and lose 30 % where they are not (4 MiB among 2 ranks, 32 MiB of L3: 213 us, 150 without). Hence late: twice such
 * an L3. The C library's own idea of the size is of no use, it counts those of a whole socket. */
#define STREAM_BYTES ((uint64_t)64 << 20)

/* Of all buffers of a host's ranks. */
static uint64_t footprint(const struct comm *comm, enum plan_collective collective, uint64_t block)
{
    struct collective_kind kind = collective_kind(collective);
    uint64_t n = comm->node.segment.geometry.n_peers;
    uint64_t inputs = (kind.root_gives ? 1 : n) * (kind.input_blocks ? comm->n_ranks : 1);
    uint64_t outputs = (kind.root_gets ? 1 : n) * (kind.output_blocks ? comm->n_ranks : 1);
    return (inputs + outputs) * block;
}

/* The kernel does not stream: copies are read up to four times what streams. Copied over read, buffers of a host's ranks of 64, 128,
 * 256 MiB in all: AlltoAll 2 ranks 1.23, 1.18, 0.91, 4 ranks 1.22, 1.14, 0.83, 8 ranks 1.11, 1.04, 0.79; AllGather 2 ranks, 96 and 192
 * MiB, 1.21, 1.14; Scatter 1.5 to 1.9 up to 160 MiB; AllReduce of 64 and 128 0.76, 0.58, Broadcast of 4 ranks of 80 and 160 0.91, 0.81. */
#define READ_COPIED_BYTES (4 * STREAM_BYTES)

struct reading {
    unsigned times; /* how many times RAILCCL_READ_MIN_BYTES a block has to be; 0: it is never read */
    uint64_t most;  /* footprint that is not read any more */
};

/* Copied over read, 2 cores:
 *     2 ranks, blocks of 16, 32, 64, 128 KiB   AllGather 0.79, 1.17, 1.59, 2.01   AlltoAll 0.77, 1.15, 1.52, 1.80
 *                                              ReduceScatter 0.56, 0.87, 1.21, 1.58
 *              of 256 KiB, 512 KiB, 1, 2 MiB   AllReduce 0.9 to 1.2, 0.8 to 1.0, 1.37, 1.07
 *     2, 3, 4, 8 ranks, of 64 KiB              Scatter 1.31, 1.00, 1.15, 1.04
 *                       of 128 KiB                     1.24, 1.18, 1.37, 2.21
 *     2 ranks, 32, 64, 256 KiB, 1 MiB          Broadcast 0.96, 1.37, 1.47, 1.94; 4 ranks 0.63, 0.97, 1.05, 1.39
 * AllGather of n ranks copies n blocks instead of n + 1, which is worth it for two (4 ranks 0.66 to 0.95, 8 0.57 to 0.97);
 * Broadcast n - 1 instead of n, and with 8 ranks it is not (64 KiB 0.67, 256 KiB 0.83, 1 MiB 1.11, 8 MiB 0.82); AlltoAll n instead of
 * 2n - 1; Scatter n - 1 instead of 2n - 2, and not half of them one after the other. Gather's root would do all the copying (0.8 to
 * 1.2), and Reduce's would copy what others copy for it (0.7). */
static struct reading reading_of(enum plan_collective collective, uint32_t n)
{
    switch (collective) {
    case PLAN_ALLTOALL: return (struct reading){1, READ_COPIED_BYTES};
    case PLAN_SCATTER: return (struct reading){2, READ_COPIED_BYTES};
    case PLAN_BROADCAST:
        return n == 2 ? (struct reading){2, READ_COPIED_BYTES} : (struct reading){n <= 4 ? 8 : 0, STREAM_BYTES};
    case PLAN_ALLGATHER: return (struct reading){n == 2, READ_COPIED_BYTES};
    case PLAN_REDUCESCATTER: return (struct reading){n == 2 ? 2 : 0, STREAM_BYTES};
    case PLAN_ALLREDUCE: return (struct reading){n == 2 ? 32 : 0, STREAM_BYTES};
    default: return (struct reading){0};
    }
}

/* My buffers are worth being read by the kernel instead of being copied through a window. A round takes no more of a block than
 * its pieces hold. Who gives nothing has nothing to be read. */
static bool read_by_kernel(const struct comm *comm, const struct collective *a, const struct collective_extent *e,
                           const struct choice *choice)
{
    bool one = choice->algorithm == PLAN_ONE_SHOT, two = choice->algorithm == PLAN_TWO_SHOT;
    struct reading reading = reading_of(a->kind, comm->n_ranks);
    if (!reading.times || comm->read_least > UINT64_MAX / reading.times || !e->input || !(one || two)) return false;
    uint64_t round = choice->piece_bytes * (two ? comm->n_ranks : 1);
    return (e->block < round ? e->block : round) >= comm->read_least * reading.times &&
           footprint(comm, a->kind, e->block) < reading.most && peer_memory_readable(a->input, e->input) &&
           (!two || peer_memory_readable(a->output, e->output));
}

static enum shm_exposed exposed(const struct comm *comm, const struct collective *a, const struct collective_extent *e,
                                struct host_call *call)
{
    if (comm->direct) return SHM_BY_ADDRESS;
    if (e->input + e->output < comm->share_least) return SHM_STAGED;
    const struct window *in = e->input ? window_holding(&comm->windows, a->input, e->input) : NULL;
    const struct window *out = e->output ? window_holding(&comm->windows, a->output, e->output) : NULL;
    if ((e->input && !in) || (e->output && !out) || (!in && !out)) return SHM_STAGED;
    if (in) call->input_share.number = in->number, call->input_share.offset = (uintptr_t)a->input - (uintptr_t)in->own;
    if (out) call->output_share.number = out->number, call->output_share.offset = (uintptr_t)a->output - (uintptr_t)out->own;
    return SHM_BY_WINDOW;
}

enum rail_result collective_lay_out(struct comm *comm, const struct collective *a, const struct rail_combine *how,
                                    struct host_call *call, struct instance *const **instances)
{
    size_t element = rail_type_bytes(how->type);
    struct collective_kind kind = collective_kind(a->kind);
    struct choice choice = choose_plan(a->kind, &comm->table, &comm->shape, a->count * element);
    struct collective_extent e = collective_extent(comm, a);
    *instances = NULL;
    *call = (struct host_call){.input = a->input, .output = a->output, .how = *how, .signature = collective_signature(a)};
    if (choice.algorithm == PLAN_PAIRWISE) return RAIL_OK;
    RAIL_TRY(wires_instances(&comm->wires, a->kind, kind.rooted ? (uint32_t)a->root : 0, &choice, instances));
    const struct plan *plan = &(*instances)[0]->plan;
    call->split = (struct plan_split){.count = a->count,
                                      .grain = SHM_LINE / element,
                                      .piece_max = choice.piece_bytes / element,
                                      .n_channels = choice.n_channels,
                                      .n_pieces = plan->n_pieces / collective_blocks(a->kind, comm->n_ranks)};
    call->blocks = (struct plan_blocks){comm->shape.order, kind.input_blocks, kind.output_blocks};
    /* a scaled input is not the caller's bytes, and not every plan stands writing over what peers still read */
    bool exposable = !how->scaled && (!in_place(comm, a, &e) || (plan->flags & PLAN_DIRECT_IN_PLACE));
    call->streams = footprint(comm, a->kind, e.block) >= STREAM_BYTES;
    if (exposable) call->direct = exposed(comm, a, &e, call);
    if (exposable && call->direct == SHM_STAGED && read_by_kernel(comm, a, &e, &choice))
        call->direct = SHM_BY_KERNEL;
    if (comm->policy.network && !comm->gpu) {
        /* In place a copying collective writes a block of the input with what it holds, a reducing one with something else. */
        call->lends_input = e.input && !(kind.reduces && in_place(comm, a, &e)) && net_memory_known(a->input, e.input);
        call->lends_output = e.output && net_memory_known(a->output, e.output);
    }
    call->spread = !comm->policy.crowded;
    return RAIL_OK;
}

/* What every rank gives fits into the lines beside its flag. */
static bool is_express(const struct comm *comm, const struct collective *a)
{
    if (!comm->express || !a->count || a->count > EXPRESS_ROOTED_BYTES) return false;
    size_t block = a->count * rail_type_bytes((enum rail_type)a->type);
    struct collective_kind kind = collective_kind(a->kind);
    return block * (kind.input_blocks ? comm->n_ranks : 1) <= (kind.rooted ? EXPRESS_ROOTED_BYTES : EXPRESS_MEETING_BYTES);
}

static struct express_call express_of(const struct comm *comm, const struct collective *a, const struct rail_combine *how)
{
    return (struct express_call){collective_kind(a->kind), *how, a->input, a->output, a->count, (uint32_t)a->root,
                                 comm->table.deterministic};
}

static enum rail_result start(struct comm *comm, const struct collective *a, const struct rail_combine *how,
                              struct host_op *op)
{
    struct instance *const *instances;
    struct host_call call;
    RAIL_TRY(collective_lay_out(comm, a, how, &call, &instances));
    if (!instances)
        return alltoall_start(&comm->alltoall, &comm->wires,
                              &(struct alltoall_call){a->input, a->output, collective_extent(comm, a).block, call.signature,
                                                      comm->offers, comm->offer_least,
                                                      comm->policy.network && !comm->gpu ? 1 : UINT64_MAX});
    if (instances[0]->plan.n_scratch) RAIL_TRY(provide_scratch(comm, &call, &instances[0]->plan));
    return host_op_start(op, &comm->node, &call, instances);
}

enum rail_result collective_start(struct comm *comm, const struct collective *a, struct host_op *op)
{
    struct rail_combine how;
    op->n_left = op->n_runs = 0;
    RAIL_TRY(fault_result(&comm->fault));
    if (comm->n_ranks > 1) calls_begin(&comm->node, collective_signature(a));
    if (a->count == 0) return RAIL_OK;
    RAIL_TRY(collective_resolve(comm, a, &how));
    if (comm->n_ranks == 1) return alone(a, &how);
    if (is_express(comm, a)) { /* whether a rank makes a call in a group or not, it goes the same way */
        struct express_call call = express_of(comm, a, &how);
        express_begin(&comm->node, &call, &comm->express_op);
        return collective_progress(comm, op);
    }
    enum rail_result result = start(comm, a, &how, op);
    if (result != RAIL_OK) return comm_failed(comm, result);
    return collective_progress(comm, op);
}

void collective_abandon(struct comm *comm)
{
    alltoall_drop(&comm->alltoall);
    comm->express_op.running = false;
    wires_recall(&comm->wires);
    if (comm->direct || comm->windows.shares.n || comm->node.owners) host_withdraw(&comm->node);
}

enum rail_result collective_progress(struct comm *comm, struct host_op *op)
{
    enum rail_result result = comm->express_op.running ? express_progress(&comm->node, &comm->express_op)
                              : comm->alltoall.running ? alltoall_progress(&comm->alltoall)
                                                       : host_op_progress(op);
    bool stopped = result == RAIL_NOT_YET && atomic_load_explicit(&comm->fault.stop, memory_order_relaxed);
    if (__builtin_expect(result == RAIL_OK || (result == RAIL_NOT_YET && !stopped), 1)) return result;
    result = stopped ? fault_result(&comm->fault) : comm_failed(comm, result);
    collective_abandon(comm); /* with the fault raised: who waits for me to go on learns why */
    return result;
}

static void look(struct comm *comm, const struct host_op *op)
{
    struct waits waits;
    struct express_wait wait;
    if (!watch_due(comm)) return;
    if (comm->express_op.running)
        wait = express_wait(&comm->node, &comm->express_op), waits_of_express(&comm->node, &wait, &waits);
    else if (comm->alltoall.running)
        waits_of_messages(&comm->alltoall.messages, &waits);
    else if (op)
        waits_of_host_op(op, &waits);
    else
        waits_of_express(&comm->node, &comm->node.express.wait, &waits);
    watch_look(comm, &waits);
}

void collective_look_slow(struct comm *comm, const struct host_op *op, struct busy *busy)
{
    uint64_t now_ns = rail_now_coarse_ns();
    if (!busy->began_ns) busy->began_ns = now_ns;
    if (now_ns - busy->began_ns >= LONG_NS && !atomic_load_explicit(&comm->fault.stop, memory_order_relaxed)) look(comm, op);
}

enum rail_result collective_suspect(struct comm *comm, const struct host_op *op)
{
    enum rail_result result = calls_compare_node(&comm->node);
    if (result == RAIL_OK) result = fault_result(&comm->fault);
    if (result != RAIL_OK) return comm_failed(comm, result);
    look(comm, op);
    reach_look(comm);
    return RAIL_OK;
}

static enum rail_result drive(struct comm *comm, struct host_op *op)
{
    struct waiter w = {0};
    struct busy busy = {0};
    enum rail_result result;
    while ((result = collective_progress(comm, op)) == RAIL_NOT_YET) {
        if (comm->policy.network && net_progress()) {
            collective_look_busy(comm, op, &busy);
            wait_restart(&w, &comm->node.segment, comm->node.self);
            continue;
        }
        wait_pause(&w, &comm->policy, &comm->node.segment, comm->node.self);
        if (__builtin_expect(!wait_is_long(&w), 1)) continue;
        if ((result = collective_suspect(comm, op)) == RAIL_OK) continue;
        collective_abandon(comm);
        return result;
    }
    wait_end(&w, &comm->policy, &comm->node.segment, comm->node.self);
    return result;
}

static enum rail_result run_express(struct comm *comm, const struct collective *a)
{
    struct rail_combine how;
    RAIL_TRY(fault_result(&comm->fault));
    RAIL_TRY(collective_resolve(comm, a, &how));
    struct express_call call = express_of(comm, a, &how);
    calls_begin(&comm->node, collective_signature(a));
    enum rail_result result = express_collective(&comm->node, &comm->policy, &comm->fault.stop, &call);
    return __builtin_expect(result == RAIL_OK, 1) ? RAIL_OK : comm_failed(comm, result);
}

void collective_done(struct comm *comm, const struct collective *a)
{
    if (__builtin_expect(comm->digest == NULL, 1)) return;
    struct collective_kind kind = collective_kind(a->kind);
    digest_note(comm->digest, collective_signature(a), a->output, collective_extent(comm, a).output, !kind.root_gets && !kind.input_blocks);
}

enum rail_result collective_run(struct comm *comm, const struct collective *a)
{
    enum rail_result result;
    RAIL_TRY(comm_alone(comm, a->call));
    comm_enter(comm);
    if (is_express(comm, a)) {
        result = run_express(comm, a);
    } else {
        struct host_op op;
        result = collective_start(comm, a, &op);
        if (result == RAIL_NOT_YET) result = drive(comm, &op);
    }
    if (result == RAIL_OK) collective_done(comm, a);
    comm_leave(comm);
    return result;
}
