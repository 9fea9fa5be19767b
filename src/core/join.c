/* join.c - from a list of ranks to a working communicator: tree, members, shape, node, wires, and a last agreement.
 *
 *   by id: bootstrap_open          \                                       all over the tree:
 *                                    > meet > shape > node > wires > agree   whatever fails here is told to everybody
 *   derived: bootstrap_open_derived /   */
#include "core/join.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/params.h"
#include "bootstrap/auth.h"
#include "bootstrap/tree.h"
#include "core/collective.h"
#include "core/gpu_rank.h"
#include "core/gone.h"
#include "core/homes.h"
#include "core/hosts.h"
#include "core/rails.h"
#include "core/readers.h"
#include "core/notes.h"
#include "core/tuning.h"
#include "engine/calls.h"
#include "topo/fabric.h"
#include "topo/machine.h"

/* Spinning between two yields, when every rank has a core. Waking a sleeper costs 20 us, but a peer whose core was taken
 * for a while is later than that, and on a machine with other work a yield gives the core away for a time slice: 8 bytes
 * among 2 ranks beside a busy compiler took 84 us and more with 50 us of spinning and then only yields. A yield now and
 * then all the same: two ranks that were put on one core would otherwise take turns by time slices. */
#define SPIN_US 1000

struct rail_deadline join_deadline(void)
{
    return rail_deadline_in_ns((uint64_t)rail_param_int(RAIL_PARAM_INIT_TIMEOUT_S) * RAIL_NS_PER_S);
}

/* ---- who is there ---- */

static enum rail_result introduce(struct member *m, uint32_t n_ranks, const struct cuda_device *gpu)
{
    bool alone = n_ranks == 1;
    m->host = machine_host_key();
    m->machine = machine_key();
    m->agreed = rail_params_agreed_hash();
    m->pid = (int32_t)getpid();
    m->cores = machine_cores();
    m->gpu = gpu ? gpu->ordinal : -1;
    m->tuned = tuning_knows(tuning_of_process(), n_ranks);
    net_process_id(m->process);
    snprintf(m->host_name, sizeof m->host_name, "%s", machine_host_name());
    rail_random(m->fresh, sizeof m->fresh);
    m->fresh_at = (uintptr_t)m->fresh;
    const struct fabric *fabric;
    RAIL_TRY(fabric_of_process(&fabric));
    if (fabric) {
        m->fabric = fabric_digest(fabric);
        m->hangs = fabric_place(fabric, machine_host_name());
    } else if (!alone) {
        RAIL_TRY(rails_place(&m->hangs));
    }
    return alone ? RAIL_OK : bootstrap_place_here(&m->place);
}

/* Ranks set some variable differently. Everyone sees the same table, so everyone comes here and finds out which. */
static enum rail_result name_difference(struct comm *comm, struct rail_deadline deadline)
{
    uint64_t *all = calloc((size_t)comm->n_ranks * RAIL_PARAM_COUNT, sizeof *all);
    if (!all) return rail_fail(RAIL_E_SYSTEM, "comparing settings: out of memory");
    for (int p = 0; p < RAIL_PARAM_COUNT; p++) all[(size_t)comm->rank * RAIL_PARAM_COUNT + p] = rail_param_hash(p);
    enum rail_result result = bootstrap_allgather(comm->bootstrap, all, RAIL_PARAM_COUNT * sizeof *all, deadline);
    for (uint32_t r = 1; result == RAIL_OK && r < comm->n_ranks; r++)
        for (int p = 0; p < RAIL_PARAM_COUNT; p++)
            if (rail_param_effect_of(p) == RAIL_AGREED && all[p] != all[(size_t)r * RAIL_PARAM_COUNT + p]) {
                result = rail_fail(RAIL_E_USAGE,
                                   "%s differs between rank 0 (host %s) and rank %u (host %s): set it alike on all ranks",
                                   rail_param_name(p), comm->members[0].host_name, r, comm->members[r].host_name);
                break;
            }
    free(all);
    if (result == RAIL_OK) result = rail_fail(RAIL_E_USAGE, "settings differ between ranks, in no variable we know");
    return result;
}

static enum rail_result meet(struct comm *comm, struct rail_deadline deadline)
{
    comm->members = calloc(comm->n_ranks, sizeof *comm->members);
    if (!comm->members) return rail_fail(RAIL_E_SYSTEM, "%u ranks: out of memory", comm->n_ranks);
    RAIL_TRY(introduce(&comm->members[comm->rank], comm->n_ranks, comm->gpu_device));
    RAIL_TRY(bootstrap_allgather(comm->bootstrap, comm->members, sizeof *comm->members, deadline));
    for (uint32_t r = 0; r < comm->n_ranks; r++)
        if (comm->members[r].agreed != comm->members[0].agreed) return name_difference(comm, deadline);
    return RAIL_OK;
}

static bool same_process(const struct comm *comm, uint32_t a, uint32_t b)
{
    return memcmp(comm->members[a].process, comm->members[b].process, NET_PROCESS_ID_BYTES) == 0;
}

/* A node is a host; with NCCL_SHM_DISABLE it is a process. */
static uint64_t node_key(const struct comm *comm, uint32_t rank)
{
    if (!rail_param_bool(RAIL_PARAM_NCCL_SHM_DISABLE)) return comm->members[rank].host;
    return rail_hash64(comm->members[rank].process, NET_PROCESS_ID_BYTES, comm->members[rank].host);
}

static enum rail_result shape_of(struct comm *comm)
{
    uint64_t *keys = malloc(comm->n_ranks * sizeof *keys);
    if (!keys) return rail_fail(RAIL_E_SYSTEM, "%u ranks: out of memory", comm->n_ranks);
    for (uint32_t r = 0; r < comm->n_ranks; r++) keys[r] = node_key(comm, r);
    int failed = shape_build(&comm->shape, comm->n_ranks, keys, 1);
    free(keys);
    return failed ? rail_fail(RAIL_E_SYSTEM, "%u ranks: out of memory", comm->n_ranks) : rails_order(comm);
}

/* A rank of these has its buffers on a GPU. */
static bool some_gpu(const struct comm *comm, const uint32_t *ranks, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        if (comm->members[ranks[k]].gpu >= 0) return true;
    return false;
}

static bool all_gpus(const struct comm *comm, const uint32_t *ranks, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        if (comm->members[ranks[k]].gpu < 0) return false;
    return true;
}

/* ---- the node ---- */

/* How many processes my node has, and whether I am the first rank of mine. */
static void count_processes(const struct comm *comm, const uint32_t *ranks, uint32_t n, uint32_t *processes,
                            bool *first)
{
    *processes = 0;
    *first = true;
    for (uint32_t i = 0; i < n; i++) {
        bool seen = false;
        for (uint32_t k = 0; k < i && !seen; k++) seen = same_process(comm, ranks[i], ranks[k]);
        if (!seen) ++*processes;
        if (seen && ranks[i] == comm->rank) *first = false;
    }
}

static enum rail_result on_suspicion(void *owner) { return collective_suspect(owner, NULL); }

static enum rail_result join_node(struct comm *comm, struct rail_deadline deadline)
{
    const struct shape *shape = &comm->shape;
    uint32_t node = shape->node_of[comm->rank];
    const uint32_t *ranks = &shape->order[shape->node_start[node]];
    uint32_t n = shape->node_start[node + 1] - shape->node_start[node];
    bool network = shape->n_nodes > 1, windows = !network || rails_fit(shape);
    struct shm_request request = {
        .geometry = {.n_peers = n,
                     .n_slots = table_slots(network, some_gpu(comm, ranks, n)),
                     .window_bytes = n > 1 && n <= RAIL_COMBINE_MAX && windows ? comm->table.window_bytes : 0,
                     .slot_bytes = network ? comm->table.net_slot_bytes : comm->table.shm_slot_bytes,
                     .window_channels = network && windows ? RAILS_CHANNELS_MAX : 1},
        .leader = shape->peer_of[comm->rank] == 0,
        .deadline = deadline,
        .stop = &comm->fault.stop,
    };
    char purpose[32];
    snprintf(purpose, sizeof purpose, "node %u", node);
    auth_derive(bootstrap_secret(comm->bootstrap), purpose, request.key);
    count_processes(comm, ranks, n, &request.n_processes, &request.first_of_process);
    comm->unrung = some_gpu(comm, ranks, n);
    comm->direct = request.n_processes == 1 && !comm->unrung;
    request.geometry.express = !network && !comm->unrung && n > 1 && n <= EXPRESS_MAX_PEERS;
    if (comm->unrung) request.geometry.n_sets = gpu_rank_sets(&request.geometry, network);
    request.geometry.small_bytes = gpu_rank_small_bytes(&comm->table, shape, all_gpus(comm, ranks, n));
    comm->node.self = shape->peer_of[comm->rank];
    comm->node.ranks = ranks;
    comm->node.suspect = on_suspicion;
    comm->node.owner = comm;
    return shm_segment_open(&request, &comm->node.segment);
}

/* ---- the wires ---- */

/* What ranks tell of their networks. */
struct reach {
    struct net_address address;
    struct homes_record home;
};

static enum rail_result use_addresses(struct comm *comm, const struct reach *all, struct rail_deadline deadline)
{
    struct homes_record *homes = calloc(comm->n_ranks, sizeof *homes);
    if (!homes) return rail_fail(RAIL_E_SYSTEM, "homes of %u ranks: out of memory", comm->n_ranks);
    enum rail_result result = RAIL_OK;
    for (uint32_t r = 0; r < comm->n_ranks && result == RAIL_OK; r++) {
        comm->addresses[r] = all[r].address;
        homes[r] = all[r].home;
        if (all[r].address.n_rails > NET_MAX_RAILS)
            result = rail_fail(RAIL_E_REMOTE, "rank %u told of %u NICs, at most %d are possible", r,
                               all[r].address.n_rails, NET_MAX_RAILS);
    }
    if (result == RAIL_OK) result = rails_agree(comm, deadline);
    if (result == RAIL_OK) result = rails_check(comm);
    if (result == RAIL_OK) result = homes_settle(comm, homes);
    if (result == RAIL_OK) hosts_compare(comm);
    free(homes);
    return result;
}

static enum rail_result exchange_addresses(struct comm *comm, struct reach *all, struct rail_deadline deadline)
{
    RAIL_TRY(net_describe(&all[comm->rank].address));
    RAIL_TRY(homes_introduce(comm, &all[comm->rank].address, &all[comm->rank].home));
    RAIL_TRY(net_comm_add(comm->wires.comm_key, bootstrap_secret(comm->bootstrap)));
    comm->networked = true;
    return bootstrap_allgather(comm->bootstrap, all, sizeof *all, deadline);
}

static enum rail_result gather_addresses(struct comm *comm, struct rail_deadline deadline)
{
    struct reach *all = calloc(comm->n_ranks, sizeof *all);
    comm->wires.addresses = comm->addresses = calloc(comm->n_ranks, sizeof *comm->addresses);
    enum rail_result result = all && comm->addresses
                                  ? exchange_addresses(comm, all, deadline)
                                  : rail_fail(RAIL_E_SYSTEM, "addresses of %u ranks: out of memory", comm->n_ranks);
    if (result == RAIL_OK) result = use_addresses(comm, all, deadline);
    free(all);
    return result == RAIL_OK ? onesided_listen(comm) : result;
}

enum rail_result comm_connect(struct comm *comm, struct rail_deadline deadline)
{
    RAIL_TRY(gather_addresses(comm, deadline));
    comm->policy.network = true;
    return RAIL_OK;
}

static enum rail_result wire_up(struct comm *comm, struct rail_deadline deadline)
{
    uint8_t key[32];
    auth_derive(bootstrap_secret(comm->bootstrap), "communicator", key);
    comm->wires.shape = &comm->shape;
    comm->wires.rank = comm->rank;
    comm->wires.in_rank_order = comm->table.deterministic;
    comm->wires.node = &comm->node;
    comm->wires.net_slots = table_slots(true, false);
    comm->wires.net_slot_bytes = comm->table.net_slot_bytes;
    memcpy(&comm->wires.comm_key, key, sizeof comm->wires.comm_key);
    RAIL_TRY(homes_asked(comm));
    return comm->shape.n_nodes > 1 ? gather_addresses(comm, deadline) : RAIL_OK;
}

/* ---- failure news ---- */

static void on_lost(void *owner, uint32_t culprit, enum rail_result result, const char *text)
{
    struct comm *comm = owner;
    atomic_store(&comm->blamed, culprit + 1);
    if (!fault_raise(&comm->fault, result, text)) return;
    RAIL_INFO(RAIL_NET, "rank %u of %u hears of rank %u: %s", comm->rank, comm->n_ranks, culprit, text);
    if (!atomic_load_explicit(&comm->joined, memory_order_acquire)) return; /* joining looks at `stop` by itself */
    shm_ring(&comm->node.segment, comm->node.self);
}

/* Its process is gone for certain: lanes to it are not to be mended. */
static void on_gone(void *owner, uint32_t rank, const char *text)
{
    struct comm *comm = owner;
    if (rank < comm->n_ranks) atomic_store(&comm->dead, rank + 1);
    if (!atomic_load_explicit(&comm->joined, memory_order_acquire) || !comm->networked || rank >= comm->n_ranks) return;
    if (!same_process(comm, rank, comm->rank)) net_peer_lost(comm->members[rank].process, text);
}

static bool who_is(void *owner, uint32_t rank, struct bootstrap_who *out)
{
    const struct comm *comm = owner;
    const struct member *m = &comm->members[rank];
    *out = (struct bootstrap_who){&m->place, m->host, (uint32_t)m->pid, m->host_name};
    return true;
}

/* By the lanes to any rank of that host. */
static uint64_t heard_of(void *owner, uint32_t rank)
{
    const struct comm *comm = owner;
    uint64_t at_ns = 0;
    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        if (comm->members[r].host != comm->members[rank].host) continue;
        uint64_t ns = net_answered_ns(comm->members[r].process);
        if (ns > at_ns) at_ns = ns;
    }
    return at_ns;
}

/* At rank 0: what another rank called, and whether it waits. */
static void on_report(void *owner, const uint8_t report[BOOTSTRAP_REPORT_BYTES])
{
    struct comm *comm = owner;
    struct watch_report theirs;
    memcpy(&theirs, report, sizeof theirs);
    if (theirs.history.rank >= comm->n_ranks) return;
    watch_reported(comm, &theirs);
    notes_received(comm, &theirs.history);
}

static void on_word(void *owner, uint64_t number, const char *text)
{
    struct comm *comm = owner;
    if (atomic_load_explicit(&comm->joined, memory_order_acquire)) watch_word(comm, number, text);
}

/* ---- joining ---- */

/* Some microseconds, with a look at a socket beside each. */
enum { PRETENDED_LOOKS = 20 };

static struct wait_policy policy_of(const struct comm *comm)
{
    const uint32_t *node_of = comm->shape.node_of;
    int here = 0; /* pretended hosts share one machine: everybody who may spin on our cores */
    bool pretended = false;
    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        bool mine = comm->members[r].machine == comm->members[comm->rank].machine;
        here += mine;
        pretended |= mine && node_of[r] != node_of[comm->rank];
    }
    int64_t spin_us = rail_param_int(RAIL_PARAM_SPIN_US);
    struct wait_policy policy = wait_policy_make(here, comm->members[comm->rank].cores, comm->shape.n_nodes > 1,
                                                 spin_us < 0 ? SPIN_US : (uint64_t)spin_us);
    /* Who shares a segment finds out when it shares a core (wait.h); the others never would: a yield now and then costs
     * less than the look at a socket beside it. */
    if (pretended && policy.spins > PRETENDED_LOOKS) policy.spins = PRETENDED_LOOKS;
    return policy;
}

/* Where a call's buffers are used where they are, peers have to say when they are through with them, and ReduceScatter or
 * AllGather meets twice instead of once: below so much, copying them through the cache costs less, and more so where ranks
 * outnumber cores and meeting means switching. 4 ranks on 2 cores, AllGather of 64 KiB in all: 5.7 us copied, 7.6 in place;
 * 2 ranks there: 1.4 and 0.8. Each rank decides for its own buffers. */
#define SHARE_LEAST ((uint64_t)64 << 10)
#define SHARE_LEAST_CROWDED ((uint64_t)128 << 10)

static uint64_t share_least(const struct wait_policy *policy)
{
    int64_t wanted = rail_param_int(RAIL_PARAM_SHARE_MIN_BYTES);
    return wanted >= 0 ? (uint64_t)wanted : policy->crowded ? SHARE_LEAST_CROWDED : SHARE_LEAST;
}

/* Who sends what is read where it lies waits for the reader, which is a switch more where ranks outnumber cores; below so much
 * copying it twice costs less. Send and Recv round 2, 4 and 8 ranks on 2 cores, twice over once: 4 KiB 0.79, 0.49, 0.37; 8 KiB
 * 1.10, 0.55, 0.36; 32 KiB 1.67, 0.64, 0.73; 64 KiB 2.46, 1.57, 1.01; 256 KiB 2.10, 2.03, 1.43. */
#define OFFER_LEAST ((uint64_t)8 << 10)
#define OFFER_LEAST_CROWDED ((uint64_t)64 << 10)

static uint64_t offer_least(const struct wait_policy *policy)
{
    int64_t wanted = rail_param_int(RAIL_PARAM_OFFER_MIN_BYTES);
    return wanted > 0 ? (uint64_t)wanted : wanted == 0 ? UINT64_MAX : policy->crowded ? OFFER_LEAST_CROWDED : OFFER_LEAST;
}

/* The last exchange: everybody got here, and everybody will choose alike. */
static enum rail_result agree(struct comm *comm, struct rail_deadline deadline)
{
    bool reads, all_read = true;
    RAIL_TRY(readers_find(comm, &reads));
    struct { uint64_t table, homes, reads; } *hashes = calloc(comm->n_ranks, sizeof *hashes);
    if (!hashes) return rail_fail(RAIL_E_SYSTEM, "%u ranks: out of memory", comm->n_ranks);
    hashes[comm->rank].reads = reads;
    hashes[comm->rank].table = choice_table_hash(&comm->table);
    hashes[comm->rank].homes = homes_hash(comm);
    enum rail_result result = bootstrap_allgather(comm->bootstrap, hashes, sizeof *hashes, deadline);
    for (uint32_t r = 1; result == RAIL_OK && r < comm->n_ranks; r++)
        if (hashes[r].table != hashes[0].table)
            result = rail_fail(RAIL_E_USAGE,
                               "ranks 0 and %u gave different minCTAs or maxCTAs in ncclConfig_t: pass the same on all "
                               "ranks",
                               r);
        else if (hashes[r].homes != hashes[0].homes)
            result = rail_fail(RAIL_E_INTERNAL, "ranks 0 and %u have different home rails in mind: a bug", r);
    for (uint32_t p = 0; p < comm->node.segment.geometry.n_peers; p++) all_read &= hashes[comm->node.ranks[p]].reads != 0;
    if (!all_read) readers_drop(comm);
    free(hashes);
    return result;
}

static enum rail_result enter_tree(struct comm *comm, const struct comm_request *request, struct rail_deadline deadline)
{
    const struct bootstrap_config config = {
        .id = request->id,
        .rank = comm->rank,
        .n_ranks = comm->n_ranks,
        .deadline = deadline,
        .stop = &comm->fault.stop,
        .in_vain = gone_ask,
        .owner = request->kin,
    };
    if (request->id) return bootstrap_open(&config, &comm->bootstrap);
    const struct member *above = &request->kin->members[request->kin->ranks[tree_parent(comm->rank)]];
    const struct bootstrap_parent parent = {
        .place = &above->place,
        .same_host = above->host == machine_host_key(),
        .pid = (uint32_t)above->pid,
        .host = above->host_name,
    };
    return bootstrap_open_derived(&config, request->kin->secret, &parent, &comm->bootstrap);
}

static int fewest_cores(const struct comm *comm)
{
    int fewest = comm->members[0].cores;
    for (uint32_t r = 1; r < comm->n_ranks; r++)
        if (comm->members[r].cores < fewest) fewest = comm->members[r].cores;
    return fewest > 0 ? fewest : 1;
}

static enum rail_result join(struct comm *comm, const struct comm_request *request)
{
    struct rail_deadline deadline = join_deadline();
    RAIL_TRY(enter_tree(comm, request, deadline));
    /* From here on, since not every step of joining goes through the tree: a rank may die while others wait for it at the
     * node's segment. */
    const struct bootstrap_watch watch = {.lost = on_lost, .owner = comm, .reported = on_report, .word = on_word,
                                         .gone = on_gone};
    RAIL_TRY(bootstrap_watch(comm->bootstrap, watch));
    RAIL_TRY(meet(comm, deadline));
    bootstrap_know(comm->bootstrap, who_is, comm);
    bootstrap_hear(comm->bootstrap, heard_of, comm);
    if (!request->id) bootstrap_refresh(comm->bootstrap, comm->members[0].fresh, sizeof comm->members[0].fresh);
    RAIL_TRY(shape_of(comm));
    struct tuning tuning;
    bool gpus = some_gpu(comm, comm->shape.order, comm->n_ranks);
    RAIL_TRY(tuning_agree(comm, deadline, &tuning));
    RAIL_TRY(table_make(&comm->table, &comm->shape, gpus ? 0 : fewest_cores(comm), &comm->config, gpus ? NULL : &tuning));
    if (gpus) gpu_rank_table(&comm->table, &comm->shape);
    RAIL_TRY(join_node(comm, deadline));
    if (comm->direct && comm->shape.n_nodes == 1) table_direct(&comm->table, &comm->shape);
    RAIL_TRY(onesided_init(comm, comm->config.n_rma_contexts));
    RAIL_TRY(wire_up(comm, deadline));
    atomic_store_explicit(&comm->watch.self, watch_rank_hash(comm, comm->rank), memory_order_relaxed);
    comm->policy = policy_of(comm);
    comm->share_least = share_least(&comm->policy);
    comm->offers = comm->direct ? MESSAGES_BY_ADDRESS : comm->unrung ? MESSAGES_NO_OFFERS : MESSAGES_BY_KERNEL;
    comm->offer_least = offer_least(&comm->policy);
    comm->policy.unrung = comm->unrung;
    if (gpus) RAIL_TRY(gpu_rank_open(comm, deadline));
    comm->express = comm->n_ranks > 1 && !gpus && comm->table.forced_algorithm < 0 && comm->node.segment.express;
    RAIL_TRY(agree(comm, deadline));
    comm->digest = digest_open(comm->rank, comm->n_ranks);
    atomic_store_explicit(&comm->joined, true, memory_order_release);
    return fault_result(&comm->fault);
}

static enum rail_result join_failed(struct comm *comm, enum rail_result result)
{
    char text[512];
    enum rail_result known = fault_result(&comm->fault); /* why others gave up says more than that I did */
    if (known != RAIL_OK) result = known;
    snprintf(text, sizeof text, "%s", rail_own_error());
    if (comm->bootstrap) {
        char told[600];
        snprintf(told, sizeof told, "rank %u could not join: %s", comm->rank, text);
        bootstrap_tell(comm->bootstrap, comm->rank, result, told);
    }
    return rail_fail_quietly(result, "%s", text);
}

/* Which ways a host's own memory takes, and why: the question behind most surprises about speed. */
static void say_ways(const struct comm *comm, bool gpus)
{
    const struct shm_geometry *g = &comm->node.segment.geometry;
    if (g->n_peers < 2 || gpus) return;
    char data[128], small[96] = "", read[128] = "", blocks[128] = "";
    if (comm->direct)
        snprintf(data, sizeof data, "buffers are read and written where they are (one process)");
    else if (g->window_bytes)
        snprintf(data, sizeof data, "data goes through windows of %llu KiB (several processes)",
                 (unsigned long long)(g->window_bytes >> 10));
    else
        snprintf(data, sizeof data, "data goes through slots of %llu KiB", (unsigned long long)(g->slot_bytes >> 10));
    if (comm->offers == MESSAGES_BY_KERNEL && comm->offer_least != UINT64_MAX)
        snprintf(read, sizeof read, ", messages that are exchanged in a group are read by the kernel from %llu bytes on where it may",
                 (unsigned long long)comm->offer_least);
    if (comm->read_least != UINT64_MAX)
        snprintf(blocks, sizeof blocks, ", blocks from %llu bytes on are read by the kernel where that pays",
                 (unsigned long long)comm->read_least);
    if (comm->express)
        snprintf(small, sizeof small, "to %d bytes (with a root %d) in lines beside their flags; larger ",
                 EXPRESS_MEETING_BYTES, EXPRESS_ROOTED_BYTES);
    RAIL_INFO(RAIL_INIT | RAIL_TUNING, "rank %u: %u ranks of this host: %s%s%s%s; waits %s (%d core%s)", comm->rank,
              g->n_peers, small, data, blocks, read, comm->policy.crowded ? "by yielding" : "by spinning first", comm->members[comm->rank].cores,
              comm->members[comm->rank].cores == 1 ? "" : "s");
}

enum rail_result comm_join(struct comm *comm, const struct comm_request *request)
{
    uint64_t start_ns = rail_now_ns();
    comm->rank = request->rank;
    comm->n_ranks = request->n_ranks;
    rail_log_set_rank((int)comm->rank);
    enum rail_result result = join(comm, request);
    if (result != RAIL_OK) return join_failed(comm, result);
    RAIL_INFO(RAIL_INIT, "rank %u of %u on host %s, %u nodes, ready after %.1f ms", comm->rank, comm->n_ranks,
              comm->members[comm->rank].host_name, comm->shape.n_nodes, (double)(rail_now_ns() - start_ns) / 1e6);
    say_ways(comm, some_gpu(comm, comm->shape.order, comm->n_ranks));
    return RAIL_OK;
}
