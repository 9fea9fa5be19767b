/* gpu_rank.c - a GPU rank's beginning and end. */
#include "core/gpu_rank.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/params.h"
#include "core/gpu_watch.h"
#include "core/join.h"

/* ---- which device ---- */

/* As if it were current: its primary context, as CUDA's runtime uses it. */
static enum rail_result device_at(const char *call, int ordinal, struct cuda_device **out)
{
    const struct cuda_driver *driver;
    cu_context context, popped;
    cu_device device;
    RAIL_TRY(cuda_driver_get(call, &driver));
    cu_result result = driver->device_get(&device, ordinal);
    if (result != CU_SUCCESS) return cuda_fail(driver, call, result, "cuDeviceGet of device %d", ordinal);
    result = driver->primary_retain(&context, device);
    if (result != CU_SUCCESS) return cuda_fail(driver, call, result, "cuDevicePrimaryCtxRetain of device %d", ordinal);
    result = driver->context_push(context);
    enum rail_result got = result == CU_SUCCESS ? cuda_device_current(call, out)
                                                : cuda_fail(driver, call, result, "cuCtxPushCurrent of device %d", ordinal);
    if (result == CU_SUCCESS) driver->context_pop(&popped);
    driver->primary_release(device); /* the device holds it by itself */
    return got;
}

static _Thread_local bool forbidden;

void gpu_rank_forbid(bool on) { forbidden = on; }

enum rail_result gpu_rank_device(const char *call, int ordinal, struct cuda_device **out)
{
    bool wanted;
    const char *why;
    *out = NULL;
    if (forbidden) return RAIL_OK;
    RAIL_TRY(cuda_wanted(call, &wanted, &why));
    if (!wanted) RAIL_INFO(RAIL_INIT, "buffers are host memory: %s", why);
    if (!wanted) return RAIL_OK;
    return ordinal < 0 ? cuda_device_current(call, out) : device_at(call, ordinal, out);
}

/* ---- sizes ---- */

/* Pinned: 64 KiB slots for up to 8 ranks a node (a page of PCIe's time is 1 us, a slot some 3), less where there are more,
 * since every two ranks have two links of messages. */
enum { SLOT_BYTES = 64 << 10, SLOT_RANKS = 8, SLOT_LEAST = 4 << 10 };
/* Sets for links of plans: within a node plans have windows, and only who asks for a ring or a tree uses slots. */
enum { SETS_NEAR = 16, SETS_NETWORK = 64 };
/* Links over the network of plans, and of messages with as many other ranks. */
enum { RELAYS_OF_PLANS = 48, RELAY_PEERS = 24, RELAYS_OF_PAIR = 4 };

static uint32_t ranks_of_a_node(const struct shape *shape)
{
    uint32_t most = 1;
    for (uint32_t v = 0; v < shape->n_nodes; v++) {
        uint32_t n = shape->node_start[v + 1] - shape->node_start[v];
        if (n > most) most = n;
    }
    return most;
}

void gpu_rank_table(struct choice_table *table, const struct shape *shape)
{
    uint32_t bytes = SLOT_BYTES;
    for (uint32_t n = ranks_of_a_node(shape); n > SLOT_RANKS && bytes > SLOT_LEAST; n = (n + 1) / 2) bytes /= 2;
    if (table->shm_slot_bytes > bytes) table->shm_slot_bytes = bytes;
    if (table->net_slot_bytes > bytes) table->net_slot_bytes = bytes;
}

uint32_t gpu_rank_sets(const struct shm_geometry *g, bool network)
{
    uint32_t pairs = LINK_PAIR_CHANNELS * g->n_peers, more = network ? SETS_NETWORK : SETS_NEAR;
    uint32_t all = shm_places(&(struct shm_geometry){.n_peers = g->n_peers});
    return pairs + more < all ? pairs + more : all;
}

/* Where lines end: a word's flag doubles the bytes that go to each of up to 7 others, and the fences, flags and looks over the
 * bus that it saves are worth some 5 us (five ways to a peer or to the host's memory in a row, a microsecond each). One block
 * of 512 threads stores some 16 GB/s over PCIe 4: in 5 us 80 KB, which are the 2 x 4 KiB that 8 ranks get from one another
 * and as many again that a plan would have moved anyway. Where there is NVLink, or fewer ranks, more would pay. */
enum { SMALL_BYTES = 4 << 10 };

uint32_t gpu_rank_small_bytes(const struct choice_table *table, const struct shape *shape, bool all)
{
    int64_t asked = rail_param_int(RAIL_PARAM_GPU_SMALL_BYTES);
    if (!all || shape->n_nodes > 1 || shape->n_ranks < 2 || shape->n_ranks > KERNEL_EXPRESS_RANKS) return 0;
    if (table->forced_algorithm >= 0) return 0;
    return asked < 0 ? SMALL_BYTES : (uint32_t)asked;
}

/* The most scratch that any plan of this rank wants: its pieces are slots' worth at most. */
static size_t scratch_bytes(const struct comm *comm)
{
    uint32_t most = 0;
    struct plan plan;
    for (int c = 0; c < PLAN_COLLECTIVES; c++)
        for (int a = 0; a < PLAN_ALGORITHMS; a++)
            if (plan_write(c, a, &comm->shape, comm->rank, 0, 0, &plan) && plan.n_scratch > most) most = plan.n_scratch;
    for (int c = 0; comm->table.deterministic && c < PLAN_COLLECTIVES; c++)
        for (int a = 0; a < PLAN_ALGORITHMS; a++)
            if (plan_write_in_rank_order(c, a, &comm->shape, comm->rank, 0, 0, &plan) && plan.n_scratch > most)
                most = plan.n_scratch;
    uint32_t channels = comm->shape.n_nodes > 1 ? comm->table.net_channels : 1;
    if (comm->table.forced_channels > channels) channels = comm->table.forced_channels;
    size_t piece = comm->shape.n_nodes > 1 ? comm->table.net_slot_bytes : comm->table.shm_slot_bytes;
    return (size_t)most * channels * piece;
}

/* ---- beginning and end ---- */

static enum rail_result open_own(struct comm *comm)
{
    uint32_t far = comm->n_ranks - comm->node.segment.geometry.n_peers;
    const struct gpu_request request = {
        .device = comm->gpu_device,
        .node = &comm->node,
        .rank = comm->rank,
        .n_ranks = comm->n_ranks,
        .order = comm->shape.order,
        .scratch_bytes = scratch_bytes(comm),
        .relay_links = far ? RELAYS_OF_PLANS + RELAYS_OF_PAIR * (far < RELAY_PEERS ? far : RELAY_PEERS) : 0,
        .relay_slots = comm->wires.net_slots,
        .relay_slot_bytes = comm->wires.net_slot_bytes,
    };
    RAIL_TRY(gpu_open(&request, &comm->gpu));
    fault_beside(&comm->fault, gpu_stop_word(comm->gpu));
    return RAIL_OK;
}

/* What every rank says, twice: what it offers, or that it has no memory to; whether it reaches what the others of its node
 * offer. */
struct word {
    struct gpu_offer offer;
    uint32_t reaches, lacks;
};

static bool reaches_all(struct comm *comm, const struct word *words)
{
    uint32_t n = comm->node.segment.geometry.n_peers;
    struct gpu_offer offers[SHM_MAX_PEERS];
    bool same_process[SHM_MAX_PEERS];
    for (uint32_t p = 0; p < n; p++) {
        uint32_t rank = comm->node.ranks[p];
        offers[p] = words[rank].offer;
        same_process[p] = memcmp(comm->members[rank].process, comm->members[comm->rank].process, NET_PROCESS_ID_BYTES) == 0;
    }
    return comm->gpu && gpu_reach(comm->gpu, offers, same_process);
}

static bool node_reaches(const struct comm *comm, const struct word *words)
{
    for (uint32_t p = 0; p < comm->node.segment.geometry.n_peers; p++)
        if (!words[comm->node.ranks[p]].reaches) return false;
    return true;
}

static enum rail_result agree(struct comm *comm, struct word *words, struct rail_deadline deadline)
{
    bool near = comm->gpu && comm->node.segment.geometry.n_peers > 1 && !rail_param_bool(RAIL_PARAM_NCCL_P2P_DISABLE);
    struct word *mine = &words[comm->rank];
    if (near) RAIL_TRY(gpu_offer(comm->gpu, &mine->offer));
    RAIL_TRY(bootstrap_allgather(comm->bootstrap, words, sizeof *words, deadline));
    mine->reaches = reaches_all(comm, words);
    RAIL_TRY(bootstrap_allgather(comm->bootstrap, words, sizeof *words, deadline));
    if (!comm->gpu) return RAIL_OK;
    RAIL_TRY(gpu_use_near(comm->gpu, node_reaches(comm, words)));
    return gpu_watch_add(comm);
}

enum rail_result gpu_rank_open(struct comm *comm, struct rail_deadline deadline)
{
    if (comm->gpu_device) RAIL_TRY(open_own(comm));
    struct word *words = calloc(comm->n_ranks, sizeof *words);
    if (!words) return rail_fail(RAIL_E_SYSTEM, "%u ranks: out of memory", comm->n_ranks);
    enum rail_result result = agree(comm, words, deadline);
    free(words);
    return result;
}

bool gpu_rank_somewhere(const struct comm *comm)
{
    for (uint32_t r = 0; r < comm->n_ranks; r++)
        if (comm->members[r].gpu >= 0) return true;
    return false;
}

static bool somebody_lacks(const struct comm *comm, const struct word *words, uint32_t *who)
{
    for (*who = 0; *who < comm->n_ranks; ++*who)
        if (words[*who].lacks) return true;
    return false;
}

/* Offers: everybody's, or nobody's. */
static enum rail_result retake(struct comm *comm, struct word *words, bool *again)
{
    struct word *mine = &words[comm->rank];
    char why[512] = "";
    uint32_t who;
    enum rail_result own = comm->gpu ? gpu_resume_own(comm->gpu, &mine->offer) : RAIL_OK;
    if (own != RAIL_OK) snprintf(why, sizeof why, "%s", rail_own_error());
    mine->lacks = own != RAIL_OK;
    RAIL_TRY(bootstrap_allgather(comm->bootstrap, words, sizeof *words, join_deadline()));
    *again = somebody_lacks(comm, words, &who);
    if (!*again) return RAIL_OK;
    if (comm->gpu && own == RAIL_OK) gpu_suspend_own(comm->gpu);
    if (own != RAIL_OK) return rail_fail_quietly(own, "%s; all ranks are suspended still, and may resume later", why);
    return rail_fail(RAIL_E_REMOTE, "ncclCommResume: rank %u has no memory on its GPU just now; all ranks are suspended "
                     "still, and may resume later", who);
}

static enum rail_result reach_again(struct comm *comm, struct word *words)
{
    words[comm->rank].reaches = reaches_all(comm, words);
    RAIL_TRY(bootstrap_allgather(comm->bootstrap, words, sizeof *words, join_deadline()));
    return comm->gpu ? gpu_resume(comm->gpu, node_reaches(comm, words)) : RAIL_OK;
}

enum rail_result gpu_rank_resume(struct comm *comm, bool *again)
{
    struct word *words = calloc(comm->n_ranks, sizeof *words);
    *again = !words;
    if (!words) return rail_fail(RAIL_E_SYSTEM, "ncclCommResume: %u ranks: out of memory", comm->n_ranks);
    enum rail_result result = retake(comm, words, again);
    if (result == RAIL_OK) result = reach_again(comm, words);
    free(words);
    return result;
}

void gpu_rank_close(struct comm *comm)
{
    if (comm->gpu) {
        gpu_watch_drop(comm);
        fault_beside(&comm->fault, NULL);
        gpu_close(comm->gpu);
    }
    comm->gpu = NULL;
    if (comm->gpu_device) cuda_device_drop(comm->gpu_device);
    comm->gpu_device = NULL;
}

/* Half as long as a short launch takes. */
#define NAP_NS (20 * RAIL_NS_PER_US)

enum rail_result gpu_rank_settle(struct comm *comm, struct rail_deadline deadline)
{
    struct gpu_state state;
    if (!comm->gpu) return RAIL_OK;
    for (;;) {
        gpu_look(comm->gpu, &state);
        if (!state.waiting && !state.inside && gpu_drained(comm->gpu)) return RAIL_OK;
        RAIL_TRY(fault_result(&comm->fault));
        if (rail_deadline_passed(deadline)) return RAIL_NOT_YET;
        struct timespec t = {0, NAP_NS};
        nanosleep(&t, NULL);
    }
}

enum rail_result gpu_rank_quiet(struct comm *comm, const char *call, bool bounded)
{
    int64_t patience_s = rail_param_int(RAIL_PARAM_FINALIZE_TIMEOUT_S);
    struct rail_deadline deadline = rail_deadline_in_ns((uint64_t)patience_s * RAIL_NS_PER_S);
    struct timespec t = {0, NAP_NS};
    while (comm->gpu && !gpu_nothing_runs()) {
        RAIL_TRY(fault_result(&comm->fault));
        if (bounded && rail_deadline_passed(deadline))
            return rail_fail(RAIL_E_TIMEOUT, "%s: this process has calls of another communicator under way on a GPU, and "
                             "they have not ended within %lld s (RAILCCL_FINALIZE_TIMEOUT_S); synchronize their streams first", call,
                             (long long)patience_s);
        nanosleep(&t, NULL);
    }
    return RAIL_OK;
}
