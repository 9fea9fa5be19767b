/* net.c - the process's network: made at first use, known to fork(), and the doors of net.h.
 *
 * fork: the child gets a new process id and a new, empty network. Its copies of the parent's sockets are closed (else a
 * peer would not see the end of file when the parent dies); links made before are refused there. */
#include "transport/link/net_state.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/params.h"
#include "topo/machine.h"

/* 128 KiB: two of them keep 500 Mbit/s busy for 4 ms; the header costs 0.03 %. */
enum { CHUNK_BYTES = 131072 };
#define CONNECT_TIMEOUT_NS (30 * RAIL_NS_PER_S)
#define KNOCK_TIMEOUT_NS (5 * RAIL_NS_PER_S)
/* The bootstrap tree finds a host that is gone in 2 to 3 s and says whose fault it is; this is for pairs that it cannot
 * judge. */
#define ALONE_TIMEOUT_NS (5 * RAIL_NS_PER_S)

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct net *all;                    /* under all_lock */
static _Atomic(struct net *) process_net;  /* made once */

/* ---- fork ---- */

static void fork_prepare(void)
{
    pthread_mutex_lock(&all_lock);
    for (struct net *n = all; n; n = n->next) pthread_mutex_lock(&n->lock);
    verbs_reaper_fork_prepare();
    known_fork_prepare();
}

static void fork_parent(void)
{
    known_fork_parent();
    verbs_reaper_fork_parent();
    for (struct net *n = all; n; n = n->next) pthread_mutex_unlock(&n->lock);
    pthread_mutex_unlock(&all_lock);
}

static void abandon(struct net *net)
{
    atomic_store(&net->abandoned, true);
    for (uint32_t i = 0; i < net->n_up; i++) {
        close(net->up[i]->lane.fd);
        if (net->up[i]->lane.ops == &lane_verbs_ops) verbs_connection_abandon(net->up[i]->lane.wire);
    }
    for (uint32_t i = 0; i < net->config.n_rails; i++)
        if (net->rails[i].device_of.port) verbs_port_abandon(net->rails[i].device_of.port);
    for (uint32_t i = 0; i < net->config.n_rails; i++)
        if (net->rails[i].fd >= 0) close(net->rails[i].fd);
    for (int i = 0; i < NET_KNOCKS_MAX; i++)
        if (net->knocks[i].used) close(net->knocks[i].handshake.fd);
    for (const struct net_peer *p = net->peers; p; p = p->next)
        for (uint32_t i = 0; i < p->n_lanes; i++)
            if (p->lanes[i] && p->lanes[i]->state == NET_LANE_CONNECTING) close(p->lanes[i]->handshake->fd);
    if (net->carrier.fd >= 0) close(net->carrier.fd);
    if (net->epoll_fd >= 0) close(net->epoll_fd);
}

static void fork_child(void)
{
    int saved_errno = errno;
    struct net *n = all;
    all = NULL;
    for (; n; n = n->next) {
        abandon(n);
        pthread_mutex_init(&n->lock, NULL);
    }
    pthread_mutex_init(&all_lock, NULL);
    known_fork_child();
    verbs_reaper_fork_child();
    errno = saved_errno;
}

/* The lock order is ours before the service's. Handlers that prepare run in reverse order of registration, so these are
 * registered after the service has registered its own. */
static void fork_handlers(void) { pthread_atfork(fork_prepare, fork_parent, fork_child); }
static void forget_process_net(void) { atomic_store(&process_net, NULL); }
static void early_fork_handler(void) { pthread_atfork(NULL, NULL, forget_process_net); }

void net_fork_handlers_add(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fork_handlers);
}

/* ---- making ---- */

/* Several routes are worth nothing without several lanes. Two for each: with one, the first that shares a route leaves
 * another empty, and a lane that has a route for itself has no sibling on it to be compared with. */
enum { LANES_PER_ROUTE = 2 };

uint32_t net_lanes_per_rail(bool rdma)
{
    int64_t queue_pairs = rail_param_int(RAIL_PARAM_NCCL_IB_QPS_PER_CONNECTION);
    int64_t threads = rail_param_int(RAIL_PARAM_NCCL_SOCKET_NTHREADS);
    int64_t each = rail_param_int(RAIL_PARAM_NCCL_NSOCKS_PERTHREAD);
    int64_t routes = rail_param_int(RAIL_PARAM_ROUTES);
    bool chosen = rdma ? queue_pairs > 0 : threads > 0 || each > 0;
    int64_t n = rdma ? queue_pairs : (threads > 0 ? threads : 1) * (each > 0 ? each : 1);
    if (!chosen) n = routes > 1 ? LANES_PER_ROUTE * routes : 1;
    return (uint32_t)(n < NET_SOCKETS_PER_RAIL_MAX ? n : NET_SOCKETS_PER_RAIL_MAX);
}

static uint32_t chunk_bytes_wanted(void)
{
    int64_t n = rail_param_int(RAIL_PARAM_NET_CHUNK_BYTES);
    if (n < 0) return CHUNK_BYTES;
    if (n < NET_GRAIN_BYTES_MIN) return NET_GRAIN_BYTES_MIN;
    if (n > NET_CHUNK_BYTES_MAX) return NET_CHUNK_BYTES_MAX;
    return (uint32_t)(n / NET_GRAIN_BYTES_MIN * NET_GRAIN_BYTES_MIN);
}

/* A chunk is one frame, and a frame must find room in a ring (verbs.h). */
enum { CHUNK_BYTES_RDMA = VERBS_RING_BYTES / 4 };

static struct verbs_settings verbs_settings(void)
{
    const char *family = rail_param_str(RAIL_PARAM_NCCL_IB_ADDR_FAMILY);
    const char *range = rail_param_str(RAIL_PARAM_NCCL_IB_ADDR_RANGE);
    struct verbs_settings settings = {
        .gid = {.index = (int)rail_param_int(RAIL_PARAM_NCCL_IB_GID_INDEX),
                .family = !family ? 0 : strcmp(family, "AF_INET6") == 0 ? 6 : 4,
                .roce_version = (int)rail_param_int(RAIL_PARAM_NCCL_IB_ROCE_VERSION_NUM)},
        .timeout = (uint8_t)rail_param_int(RAIL_PARAM_NCCL_IB_TIMEOUT),
        .retries = (uint8_t)rail_param_int(RAIL_PARAM_NCCL_IB_RETRY_CNT),
        .service_level = (uint8_t)rail_param_int(RAIL_PARAM_NCCL_IB_SL),
        .traffic_class = (uint8_t)rail_param_int(RAIL_PARAM_NCCL_IB_TC),
        .pkey_index = (uint16_t)rail_param_int(RAIL_PARAM_NCCL_IB_PKEY),
        .relaxed_ordering = (uint8_t)rail_param_int(RAIL_PARAM_NCCL_IB_PCI_RELAXED_ORDERING),
        .ece = rail_param_bool(RAIL_PARAM_NCCL_IB_ECE_ENABLE),
        .adaptive_routing = (int8_t)rail_param_int(RAIL_PARAM_NCCL_IB_ADAPTIVE_ROUTING),
        .adaptive_bytes = (uint32_t)rail_param_int(RAIL_PARAM_NCCL_IB_AR_THRESHOLD),
        .cm = rail_param_bool(RAIL_PARAM_IB_CM),
    };
    if (range && !gid_range(range, &settings.gid))
        RAIL_WARN("NCCL_IB_ADDR_RANGE=%s is no range of addresses, such as 10.1.0.0/16 or fd00::/64: any is used",
                  range);
    return settings;
}

static bool net_is(const char *name)
{
    const char *wanted = rail_param_str(RAIL_PARAM_NCCL_NET);
    return wanted && strcasecmp(wanted, name) == 0;
}

static void device_of(const struct machine_interface *nic, struct net_interface *rail)
{
    const char *why;
    int port = 0;
    if (rail_param_bool(RAIL_PARAM_NCCL_IB_DISABLE) || net_is("Socket")) return;
    if (rails_device(nic, rail->device, &port, &why)) rail->device_port = (uint8_t)port;
    else if (why[0]) RAIL_INFO(RAIL_NET, "%s uses TCP: %s", nic->name, why);
}

/* NCCL_NET=IB wants devices; the chunk must fit; all rails have as many lanes. */
static enum rail_result devices_settle(struct net_config *config)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < config->n_rails; i++) n += config->rails[i].device[0] != '\0';
    config->verbs = verbs_settings();
    config->sockets_per_rail = net_lanes_per_rail(n > 0);
    if (n > 0 && config->chunk_bytes > CHUNK_BYTES_RDMA) config->chunk_bytes = CHUNK_BYTES_RDMA;
    if (n > 0 || !net_is("IB")) return RAIL_OK;
    return rail_fail(RAIL_E_SYSTEM, "NCCL_NET=IB, but no RDMA device belongs to any of the %u interfaces chosen (%s, ...): looked "
                     "in /sys/class/infiniband; see NCCL_IB_DISABLE, NCCL_IB_HCA and NCCL_SOCKET_IFNAME, or leave NCCL_NET out",
                     config->n_rails, config->n_rails ? config->rails[0].name : "none");
}

/* A rail per interface, on its first (best) address. */
static enum rail_result rails_find(struct net_config *config)
{
    struct machine_interface found[4 * NET_MAX_RAILS];
    int n = machine_interfaces(found, 4 * NET_MAX_RAILS);
    if (n <= 0) return rail_fail(RAIL_E_SYSTEM, "no network interface for TCP lanes: %s", rail_last_error());
    if (n > 4 * NET_MAX_RAILS) n = 4 * NET_MAX_RAILS;
    for (int i = 0; i < n && config->n_rails < NET_MAX_RAILS; i++) {
        bool known = false;
        for (uint32_t j = 0; j < config->n_rails; j++)
            known |= strcmp(config->rails[j].name, found[i].name) == 0;
        if (known) continue;
        struct net_interface *rail = &config->rails[config->n_rails++];
        memcpy(rail->name, found[i].name, sizeof rail->name);
        rail->address.address = found[i].address;
        rail->address.bytes = found[i].address.ss_family == AF_INET ? sizeof(struct sockaddr_in)
                                                                    : sizeof(struct sockaddr_in6);
        rail->mbit_per_s = found[i].mbit_per_s;
        rail->mtu = found[i].mtu;
        rail->prefix_bits = found[i].prefix_bits;
        RAIL_TRY(rails_facts(&found[i], &rail->facts));
        device_of(&found[i], rail);
        rail->rail = rail->facts.label ? rail->facts.label : rails_subnet_key(&found[i].address, found[i].prefix_bits);
    }
    return RAIL_OK;
}

enum rail_result net_create(const struct net_config *config, struct net **out)
{
    struct net *net = aligned_alloc(64, (sizeof *net + 63) / 64 * 64);
    if (!net) return rail_fail(RAIL_E_SYSTEM, "out of memory for the network's state");
    memset(net, 0, sizeof *net);
    net->knocks = calloc(NET_KNOCKS_MAX, sizeof *net->knocks);
    if (!net->knocks) {
        free(net);
        return rail_fail(RAIL_E_SYSTEM, "out of memory for the network's state");
    }
    pthread_mutex_init(&net->lock, NULL);
    net->config = *config;
    net->epoll_fd = -1;
    net->carrier = (struct net_carrier){.watch.kind = NET_WATCH_CARRIER, .fd = -1};
    rail_random(net->process, sizeof net->process);
    for (uint32_t i = 0; i < NET_MAX_RAILS; i++) {
        net->rails[i].watch.kind = NET_WATCH_LISTENER;
        net->rails[i].fd = -1;
        net->rails[i].net = net;
        net->rails[i].interface = config->rails[i];
    }
    pthread_mutex_lock(&all_lock);
    net->next = all;
    all = net;
    pthread_mutex_unlock(&all_lock);
    *out = net;
    return RAIL_OK;
}

void net_destroy(struct net *net)
{
    net_service_stop(net);
    /* What devices still bring below would set the timer again, and the service thread find it in freed memory. */
    atomic_store(&net->ticking, NET_PACE_FAST);
    pthread_mutex_lock(&all_lock);
    struct net **at = &all;
    while (*at && *at != net) at = &(*at)->next;
    if (*at) *at = net->next;
    pthread_mutex_unlock(&all_lock);
    for (struct net_peer *p = net->peers; p; p = p->next) peer_leave(p);
    net_devices_settle(net);
    lent_clear(net);
    net->active = NULL;
    for (struct net_peer *p = net->peers; p; p = p->next) p->active = false, p->n_ghosts = 0; /* nobody asks any more */
    peer_free_idle(net);
    for (int i = 0; i < NET_KNOCKS_MAX; i++)
        if (net->knocks[i].used) handshake_close(&net->knocks[i].handshake);
    for (uint32_t i = 0; i < net->config.n_rails; i++)
        if (net->rails[i].fd >= 0) close(net->rails[i].fd);
    net_carrier_close(net);
    net_devices_close(net);
    if (net->epoll_fd >= 0) close(net->epoll_fd);
    pthread_mutex_destroy(&net->lock);
    free(net->comms);
    free(net->knocks);
    free(net->up);
    free(net);
}

/* Interfaces are looked for when the listeners start, so that the id alone costs nothing. */
static struct net *process_net_get(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, early_fork_handler);
    struct net *net = atomic_load_explicit(&process_net, memory_order_acquire);
    if (net) return net;
    struct net_config config = {.connect_timeout_ns = CONNECT_TIMEOUT_NS, .knock_timeout_ns = KNOCK_TIMEOUT_NS,
                                .alone_timeout_ns = ALONE_TIMEOUT_NS};
    struct net *made;
    if (net_create(&config, &made) != RAIL_OK) return NULL;
    if (atomic_compare_exchange_strong(&process_net, &net, made)) return made;
    net_destroy(made); /* another thread was faster */
    return net;
}

struct net *net_default(void) { return process_net_get(); }

void net_each(void (*visit)(struct net *net, uint64_t number), uint64_t number)
{
    pthread_mutex_lock(&all_lock);
    for (struct net *n = all; n; n = n->next) visit(n, number);
    pthread_mutex_unlock(&all_lock);
}

static enum rail_result configure(struct net *net)
{
    enum rail_result r = RAIL_OK;
    pthread_mutex_lock(&net->lock);
    if (net->config.n_rails == 0) {
        struct net_config config = net->config;
        config.chunk_bytes = chunk_bytes_wanted();
        config.writes_direct = rail_param_bool(RAIL_PARAM_RDMA_DIRECT);
        config.lend_least = rail_param_bool(RAIL_PARAM_RDMA_ZERO_COPY)
                                ? (size_t)rail_param_int(RAIL_PARAM_RDMA_ZERO_COPY_MIN_BYTES) : SIZE_MAX;
        config.moves_lanes = rail_param_int(RAIL_PARAM_ROUTES) < 0 || rail_param_int(RAIL_PARAM_ROUTES) > 1;
        config.repairs = rail_param_bool(RAIL_PARAM_REPAIR);
        config.crossing = (enum rails_crossing)rail_param_int(RAIL_PARAM_NCCL_CROSS_NIC);
        r = rails_find(&config);
        if (r == RAIL_OK) r = devices_settle(&config);
        if (r == RAIL_OK) {
            net->config = config;
            for (uint32_t i = 0; i < config.n_rails; i++) net->rails[i].interface = config.rails[i];
        }
    }
    net_unlock(net);
    return r;
}

/* ---- communicators ---- */

enum rail_result net_comm_add_on(struct net *net, uint64_t comm_key, const uint8_t secret[32])
{
    enum rail_result r = RAIL_OK;
    pthread_mutex_lock(&net->lock);
    struct net_comm *comm = NULL;
    for (uint32_t i = 0; i < net->n_comms && !comm; i++)
        if (net->comms[i].key == comm_key) comm = &net->comms[i];
    if (!comm && net->n_comms == net->comms_room) {
        uint32_t room = net->comms_room ? 2 * net->comms_room : 8;
        struct net_comm *comms = realloc(net->comms, room * sizeof *comms);
        if (comms) {
            net->comms = comms;
            net->comms_room = room;
        } else {
            r = rail_fail(RAIL_E_SYSTEM, "net_comm_add: out of memory for %u communicators", room);
        }
    }
    if (r == RAIL_OK && !comm) {
        comm = &net->comms[net->n_comms++];
        comm->key = comm_key;
        comm->uses = 0;
        memcpy(comm->secret, secret, AUTH_KEY_BYTES);
        auth_key_id(secret, comm->key_id);
    }
    if (comm) comm->uses++;
    for (uint32_t i = 0; i < NET_GONE; i++)
        if (net->gone[i] == comm_key) net->gone[i] = 0;
    net_unlock(net);
    return r;
}

bool net_comm_gone(const struct net *net, uint64_t comm_key)
{
    for (uint32_t i = 0; i < NET_GONE; i++)
        if (comm_key && net->gone[i] == comm_key) return true;
    return false;
}

/* Whoever has opened an end and waits for ours, in vain. */
static void refuse_early(struct net *net, uint64_t comm_key)
{
    for (struct net_peer *p = net->peers; p; p = p->next)
        for (uint32_t i = 0; i < p->n_early;) {
            struct net_early early = p->early[i];
            if (early.open.comm_key != comm_key) {
                i++;
                continue;
            }
            p->early[i] = p->early[--p->n_early];
            link_refuse(p, &early.open, early.number);
        }
    net_touch(net);
    atomic_store(&net->kicked, true);
}

/* With the last communicator the lanes close as well: nothing is left that could need them. A process to which no lane and
 * no link is left may be gone for good, and is forgotten at every communicator's end: in a job that outlives many of its
 * ranks there is always another communicator. The listeners stay: another
 * communicator may be about to be made with the addresses that were told. */
void net_comm_remove_on(struct net *net, uint64_t comm_key)
{
    pthread_mutex_lock(&net->lock);
    for (uint32_t i = 0; i < net->n_comms; i++) {
        struct net_comm *comm = &net->comms[i];
        if (comm->key != comm_key) continue;
        if (--comm->uses > 0) break;
        explicit_bzero(comm->secret, sizeof comm->secret);
        *comm = net->comms[--net->n_comms];
        net->gone[net->n_gone++ % NET_GONE] = comm_key;
        refuse_early(net, comm_key);
        break;
    }
    if (net->n_comms == 0) {
        net_drive_inbox(net);
        for (struct net_peer *p = net->peers; p; p = p->next) peer_leave(p);
        net_devices_tell(net);
    }
    peer_free_idle(net);
    net_unlock(net);
}

void net_peer_lost_on(struct net *net, const uint8_t process[NET_PROCESS_ID_BYTES], const char *why)
{
    pthread_mutex_lock(&net->lock);
    struct net_peer *peer = peer_get(net, process, false, false);
    if (peer) {
        peer_fail(peer, RAIL_E_REMOTE, why);
        peer->lost = true;
    }
    net_unlock(net);
}

/* ---- doors ---- */

static enum rail_result no_memory(void) { return rail_fail(RAIL_E_SYSTEM, "out of memory for the network's state"); }

enum rail_result net_describe(struct net_address *out)
{
    struct net *net = net_default();
    if (!net) return no_memory();
    RAIL_TRY(configure(net));
    pthread_mutex_lock(&net->lock);
    net_look_again(net);
    net_unlock(net);
    return net_describe_on(net, out);
}

void net_rails_probed(const uint64_t keys[NET_MAX_RAILS])
{
    struct net *net = atomic_load(&process_net);
    if (!net) return;
    pthread_mutex_lock(&net->lock);
    for (uint32_t i = 0; i < net->config.n_rails; i++) {
        struct rail_facts *facts = &net->rails[i].interface.facts;
        facts->tried = 1;
        if (keys[i]) facts->probed = keys[i];
    }
    net_unlock(net);
}

void net_process_id(uint8_t out[NET_PROCESS_ID_BYTES])
{
    const struct net *net = net_default();
    if (net)
        memcpy(out, net->process, NET_PROCESS_ID_BYTES);
    else
        rail_random(out, NET_PROCESS_ID_BYTES); /* nobody will find us; everything else fails with its text */
}

enum rail_result net_comm_add(uint64_t comm_key, const uint8_t secret[32])
{
    struct net *net = net_default();
    return net ? net_comm_add_on(net, comm_key, secret) : no_memory();
}

void net_comm_remove(uint64_t comm_key)
{
    struct net *net = atomic_load(&process_net);
    if (net) net_comm_remove_on(net, comm_key);
}

enum rail_result net_link_open(const struct net_link_request *request, struct link **out)
{
    struct net *net = net_default();
    if (!net) return no_memory();
    RAIL_TRY(configure(net));
    return net_link_open_on(net, request, out);
}

enum rail_result net_accept(struct net_acceptor *acceptor)
{
    struct net *net = net_default();
    if (!net) return no_memory();
    RAIL_TRY(configure(net));
    return net_accept_on(net, acceptor);
}

bool net_progress(void)
{
    struct net *net = atomic_load_explicit(&process_net, memory_order_acquire);
    return net && net_progress_on(net);
}

void net_enter(void)
{
    struct net *net = atomic_load_explicit(&process_net, memory_order_acquire);
    if (net) atomic_fetch_add_explicit(&net->callers, 1, memory_order_relaxed);
}

void net_leave(void)
{
    struct net *net = atomic_load_explicit(&process_net, memory_order_acquire);
    if (net) atomic_fetch_sub_explicit(&net->callers, 1, memory_order_relaxed);
}

void net_leave_to_sleep(void)
{
    struct net *net = atomic_load_explicit(&process_net, memory_order_acquire);
    if (!net) return;
    net_leave();
    net_hand_over(net);
}

void net_peer_lost(const uint8_t process[NET_PROCESS_ID_BYTES], const char *why)
{
    struct net *net = atomic_load_explicit(&process_net, memory_order_acquire);
    if (net) net_peer_lost_on(net, process, why);
}
