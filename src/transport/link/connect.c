/* connect.c - how lanes come to be: one listener per rail, strangers that knock, and connections of our own.
 *
 *   connecter   ABSENT --> CONNECTING --(handshake done)--> UP
 *                  WAITING <--(failed: again after a pause that doubles)--'     until deadline: then given up
 *   accepter    listener --> knock --(authenticated, HELLO fits)--> lane UP
 *
 * The process with the smaller id connects, so that two processes that want each other at the same time agree. Where the
 * other one alone wants it (one-sided operations), it rings: connects, proves the secret, says HELLO with no lanes, and
 * is connected to. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/log.h"
#include "transport/link/net_state.h"

#define TRY_TIMEOUT_NS (5 * RAIL_NS_PER_S)          /* one attempt, from connect() to HELLO */
/* One that comes back. A try that began while the network was dead repeats its first packet after 1 s only: a new one
 * finds out sooner. */
#define ANEW_TIMEOUT_NS (500 * RAIL_NS_PER_MS)
#define FIRST_PAUSE_NS (5 * RAIL_NS_PER_MS)         /* the peer may be a moment behind */
#define DEAF_NS (50 * RAIL_NS_PER_MS)               /* a listener that ran out of descriptors */
#define LONGEST_PAUSE_NS (500 * RAIL_NS_PER_MS)

/* ---- addresses ---- */

static void address_text(const struct handshake_address *a, char *out, size_t bytes)
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (a->address.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)&a->address;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        snprintf(out, bytes, "%s:%u", host, ntohs(in->sin_port));
    } else {
        const struct sockaddr_in6 *in6 = (const void *)&a->address;
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        snprintf(out, bytes, "[%s]:%u", host, ntohs(in6->sin6_port));
    }
}

static void lane_text(struct net_lane *lane, int fd, const struct verbs_connection *verbs)
{
    struct handshake_address here = {.bytes = sizeof here.address}, there = {.bytes = sizeof there.address};
    char here_text[64] = "?", there_text[64] = "?";
    if (getsockname(fd, (struct sockaddr *)&here.address, &here.bytes) == 0)
        address_text(&here, here_text, sizeof here_text);
    if (getpeername(fd, (struct sockaddr *)&there.address, &there.bytes) == 0)
        address_text(&there, there_text, sizeof there_text);
    snprintf(lane->lane.text, sizeof lane->lane.text, "rail %u (%.15s%s) %.50s - %.50s", lane->rail,
             lane->peer->net->rails[lane->rail].interface.name, verbs ? ", RDMA" : "", here_text, there_text);
}

static uint16_t port_of(const struct handshake_address *a)
{
    if (a->address.ss_family == AF_INET) return ntohs(((const struct sockaddr_in *)(const void *)&a->address)->sin_port);
    return ntohs(((const struct sockaddr_in6 *)(const void *)&a->address)->sin6_port);
}

/* A rail's address as peers see it, and back. A link-local peer is reached through the rail's own scope. */
static void rail_describe(const struct net_rail *rail, struct net_rail_address *out)
{
    const struct handshake_address *a = &rail->interface.address;
    *out = (struct net_rail_address){.port = rail->port, .mbit_per_s = rail->interface.mbit_per_s,
                                     .prefix_bits = rail->interface.prefix_bits, .rail = rail->interface.rail,
                                     .facts = rail->interface.facts};
    memcpy(out->name, rail->interface.name, sizeof out->name);
    out->mtu = rail->interface.mtu < UINT16_MAX ? (uint16_t)rail->interface.mtu : UINT16_MAX;
    if (a->address.ss_family == AF_INET) {
        out->family = 4;
        memcpy(out->address, &((const struct sockaddr_in *)(const void *)&a->address)->sin_addr, 4);
    } else {
        out->family = 6;
        memcpy(out->address, &((const struct sockaddr_in6 *)(const void *)&a->address)->sin6_addr, 16);
    }
}

static bool rail_resolve(const struct net_rail *rail, const struct net_rail_address *there,
                         struct handshake_address *out)
{
    const struct handshake_address *here = &rail->interface.address;
    memset(out, 0, sizeof *out);
    if (there->family == 4 && here->address.ss_family == AF_INET) {
        struct sockaddr_in *in = (void *)&out->address;
        in->sin_family = AF_INET;
        in->sin_port = htons(there->port);
        memcpy(&in->sin_addr, there->address, 4);
        out->bytes = sizeof *in;
        return true;
    }
    if (there->family == 6 && here->address.ss_family == AF_INET6) {
        struct sockaddr_in6 *in6 = (void *)&out->address;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(there->port);
        memcpy(&in6->sin6_addr, there->address, 16);
        if (IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr))
            in6->sin6_scope_id = ((const struct sockaddr_in6 *)(const void *)&here->address)->sin6_scope_id;
        out->bytes = sizeof *in6;
        return true;
    }
    return false;
}

/* Our NIC, for a socket that should leave by it. */
static struct machine_interface nic_of(const struct net_rail *rail)
{
    struct machine_interface nic = {.address = rail->interface.address.address, .prefix_bits = rail->interface.prefix_bits};
    memcpy(nic.name, rail->interface.name, sizeof nic.name);
    return nic;
}

void peer_address(struct net_peer *peer, const struct net_address *theirs, const struct net_address *ours)
{
    peer->address = *theirs;
    for (uint32_t i = 0; i < peer->net->config.n_rails; i++)
        peer->here[i] = ours && i < ours->n_rails ? ours->rails[i].rail : peer->net->rails[i].interface.rail;
}

/* ---- listeners ---- */

static enum rail_result watch_fd(struct net *net, int fd, uint32_t events, struct net_watch *watch)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    if (epoll_ctl(net->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0) return RAIL_OK;
    if (errno == EEXIST && epoll_ctl(net->epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0) return RAIL_OK;
    return rail_fail(RAIL_E_SYSTEM, "epoll_ctl for a network socket: %s", strerror(errno));
}

/* RAIL_OK without a listener where the NIC went away between being chosen and this: rail->gone. */
static enum rail_result rail_listen(struct net *net, struct net_rail *rail)
{
    struct handshake_address bound = rail->interface.address;
    char text[64];
    address_text(&bound, text, sizeof text);
    int fd = socket(bound.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0)
        return rail_fail(RAIL_E_SYSTEM, "socket() for the listener on %s: %s%s", rail->interface.name, strerror(errno),
                         errno == EMFILE ? "; raise the limit of open files (ulimit -n)" : "");
    const struct machine_interface nic = nic_of(rail);
    if (net->config.n_rails > 1) machine_bind_listener(fd, &nic);
    if (bind(fd, (const struct sockaddr *)&bound.address, bound.bytes) < 0 || listen(fd, 1024) < 0 ||
        getsockname(fd, (struct sockaddr *)&bound.address, &bound.bytes) < 0) {
        int error = errno;
        close(fd);
        if (error == EADDRNOTAVAIL || error == ENODEV) return net_rail_gone(rail, strerror(error)), RAIL_OK;
        return rail_fail(RAIL_E_SYSTEM, "listening on %s (%s): %s; choose interfaces with NCCL_SOCKET_IFNAME",
                         rail->interface.name, text, strerror(error));
    }
    rail->fd = fd;
    rail->gone = false;
    rail->port = port_of(&bound);
    enum rail_result r = watch_fd(net, fd, EPOLLIN, &rail->watch);
    if (r != RAIL_OK) {
        close(fd);
        rail->fd = -1;
    }
    return r;
}

enum rail_result net_listen(struct net *net)
{
    if (net->listening) return RAIL_OK;
    RAIL_TRY(net_service_start(net));
    for (uint32_t i = 0; i < net->config.n_rails; i++)
        if (net->rails[i].fd < 0) RAIL_TRY(rail_listen(net, &net->rails[i]));
    net_devices_open(net);
    net_carrier_open(net);
    net->listening = true;
    for (uint32_t i = 0; i < net->config.n_rails; i++) net->listening &= net->rails[i].fd >= 0;
    return RAIL_OK;
}

/* All that are there; some must be. */
static enum rail_result rails_describe(const struct net *net, struct net_address *out)
{
    for (uint32_t i = 0; i < net->config.n_rails; i++) {
        if (net->rails[i].gone) continue;
        rail_describe(&net->rails[i], &out->rails[out->n_rails]);
        out->rails[out->n_rails++].number = (uint16_t)i;
    }
    if (out->n_rails > 0 || net->config.n_rails == 0) return RAIL_OK;
    return rail_fail(RAIL_E_SYSTEM, "none of the %u NICs that this process chose for its lanes (%s, ...) is there any more: "
                     "bring one up, or start the program anew", net->config.n_rails, net->rails[0].interface.name);
}

enum rail_result net_describe_on(struct net *net, struct net_address *out)
{
    struct net_address address = {0};
    pthread_mutex_lock(&net->lock);
    enum rail_result r = net_listen(net);
    memcpy(address.process, net->process, NET_PROCESS_ID_BYTES);
    if (r == RAIL_OK) r = rails_describe(net, &address);
    net_unlock(net);
    RAIL_TRY(r);
    *out = address;
    return RAIL_OK;
}

/* ---- strangers ---- */

static bool key_lookup(void *owner, const uint8_t key_id[AUTH_ID_BYTES], uint8_t key_out[AUTH_KEY_BYTES])
{
    const struct net *net = owner;
    for (uint32_t i = 0; i < net->n_comms; i++) {
        if (memcmp(net->comms[i].key_id, key_id, AUTH_ID_BYTES) != 0) continue;
        memcpy(key_out, net->comms[i].secret, AUTH_KEY_BYTES);
        return true;
    }
    return false;
}

static void knock_drop(struct net *net, struct net_knock *knock, const char *why)
{
    atomic_fetch_add_explicit(&net->knocks_refused, 1, memory_order_relaxed);
    RAIL_INFO(RAIL_NET, "dropped a connection to %s: %s", net->rails[knock->rail].interface.name, why);
    handshake_close(&knock->handshake);
    knock->used = false;
    net->n_knocks--;
}

static struct net_knock *knock_place(struct net *net)
{
    struct net_knock *oldest = NULL;
    for (int i = 0; i < NET_KNOCKS_MAX; i++) {
        struct net_knock *k = &net->knocks[i];
        if (!k->used) return k;
        if (!oldest || k->deadline_ns < oldest->deadline_ns) oldest = k;
    }
    knock_drop(net, oldest, "too many connections that do not say who they are");
    return oldest;
}

void net_listener_ready(struct net *net, struct net_rail *rail)
{
    for (int i = 0; i < 64; i++) { /* level-triggered: what is left comes again */
        struct handshake_address from = {.bytes = sizeof from.address};
        int fd = accept4(rail->fd, (struct sockaddr *)&from.address, &from.bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
            if (!rail->complained)
                RAIL_WARN("accept() on %s: %s; peers wait until descriptors are free (ulimit -n)",
                          rail->interface.name, strerror(errno));
            epoll_ctl(net->epoll_fd, EPOLL_CTL_DEL, rail->fd, NULL);
            rail->deaf = rail->complained = true;
            rail->hears_again_ns = rail_now_ns() + DEAF_NS;
            net_touch(net);
            return;
        }
        if (fd < 0) return;
        rail->complained = false;
        if (net->config.n_rails > 1) {
            const struct machine_interface nic = nic_of(rail);
            machine_bind_device(fd, &nic, &from.address);
        }
        struct net_knock *knock = knock_place(net);
        knock->watch.kind = NET_WATCH_KNOCK;
        knock->used = true;
        knock->rail = (uint32_t)(rail - net->rails);
        knock->deadline_ns = rail_now_ns() + net->config.knock_timeout_ns;
        net->n_knocks++;
        net_touch(net);
        handshake_accept(&knock->handshake, fd, key_lookup, net);
        knock->handshake.port = net_device_offer(rail);
        knock->handshake.patience_ns = net->config.knock_timeout_ns / 2;
        if (lane_socket_prepare(fd) != RAIL_OK ||
            watch_fd(net, fd, EPOLLIN | EPOLLOUT | EPOLLET, &knock->watch) != RAIL_OK)
            knock_drop(net, knock, rail_last_error());
        else
            net_knock_ready(net, knock);
    }
}

/* A newer set of lanes from the same process: the old one is over, whether its end has been seen yet or not. */
static void retire_session(struct net_peer *peer)
{
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        struct net_lane *lane = peer->lanes[i];
        while (lane && lane->state == NET_LANE_UP && peer_read(lane)) continue;
    }
    for (uint32_t i = 0; i < peer->n_lanes; i++)
        if (peer->lanes[i] && peer->lanes[i]->state == NET_LANE_UP)
            peer_lane_ended(peer->lanes[i], RAIL_OK, "replaced by a newer connection of the same process");
}

/* A process that may not connect asks us to: who, and where, stands with the acceptors. */
static void ring_heard(struct net *net, const uint8_t process[NET_PROCESS_ID_BYTES])
{
    for (const struct net_acceptor *a = net->acceptors; a; a = a->next)
        for (uint32_t i = 0; i < a->n_peers; i++) {
            if (memcmp(a->peers[i].process, process, NET_PROCESS_ID_BYTES) != 0) continue;
            struct net_peer *peer = peer_get(net, process, false, true);
            if (!peer) return;
            if (peer->address.n_rails == 0) peer_address(peer, &a->peers[i], a->self);
            peer->called = true;
            peer->caller_key = a->comm_key;
            net_connect_peer(peer);
            return;
        }
}

static bool is_ring(const struct net *net, const struct frame_hello *hello)
{
    return hello->n_lanes == 0 && memcmp(hello->to, net->process, NET_PROCESS_ID_BYTES) == 0 &&
           memcmp(hello->from, net->process, NET_PROCESS_ID_BYTES) > 0;
}

uint64_t net_features(const struct net *net)
{
    return (net->config.moves_lanes ? FRAME_FEATURE_ROUTES : 0) | (net->config.repairs ? FRAME_FEATURE_REPAIR : 0) |
           (net->config.writes_direct ? FRAME_FEATURE_DIRECT : 0) | FRAME_FEATURE_PROMPT;
}

static bool is_up(const struct net_lane *lane) { return lane && lane->state == NET_LANE_UP; }

/* A lane of a set, perhaps the set's first. NULL and its berth; else why not. */
static const char *admit_to_set(struct net_peer *peer, const struct frame_hello *hello, uint32_t *berth)
{
    if (hello->session < peer->session) return "HELLO of a set of lanes that was replaced";
    if (peer->n_up > 0 && hello->session > peer->session) retire_session(peer);
    if (peer->repair.alone_ns && hello->session > peer->session)
        peer_fail(peer, RAIL_E_REMOTE, "the other process has given up the lanes between the two, and begins anew");
    uint64_t features = hello->features & net_features(peer->net);
    if (peer->n_up > 0 && (hello->n_lanes != peer->n_set || features != peer->features))
        return "HELLO that contradicts the set of lanes it belongs to";
    *berth = NET_BERTHS * (uint32_t)hello->lane;
    for (uint32_t i = 0; i < NET_BERTHS; i++)
        if (is_up(peer->lanes[*berth + i])) return "HELLO for a lane that is up";
    bool set_is_there = peer->n_up > 0 || peer->repair.alone_ns;
    if (set_is_there && net_mends(peer) && peer->repair.lanes[hello->lane].was_up)
        return "HELLO for a lane that was up, which does not say that it comes anew";
    if (!set_is_there) {
        peer->session = hello->session;
        peer->n_set = hello->n_lanes;
        peer->features = features;
        mend_set_begins(peer);
    }
    return NULL;
}

/* A lane of the present set in the place of one that died, or was never there. */
static const char *admit_anew(struct net_peer *peer, const struct frame_hello *hello, uint32_t *berth)
{
    if (!net_mends(peer) || !(hello->features & FRAME_FEATURE_REPAIR)) return "HELLO anew, which was not agreed on";
    if (hello->session != peer->session || hello->n_lanes != peer->n_set || (peer->n_up == 0 && !peer->repair.alone_ns))
        return "HELLO anew in a set of lanes that is not there";
    const struct repair_lane *lane = &peer->repair.lanes[hello->lane];
    if (lane->was_up && hello->turn <= lane->turn) return "HELLO anew with a turn that was before";
    mend_make_room(peer, hello->lane);
    if (!net_mends(peer)) return "the set of lanes has ended";
    *berth = NET_BERTHS * (uint32_t)hello->lane;
    return NULL;
}

/* One more socket beside a lane's. */
static const char *admit_newcomer(struct net_peer *peer, const struct frame_hello *hello, uint32_t *berth)
{
    if (!(peer->features & hello->features & FRAME_FEATURE_ROUTES)) return "HELLO with a turn, which was not agreed on";
    if (hello->session != peer->session || hello->n_lanes != peer->n_set || peer->n_up == 0)
        return "HELLO with a turn in a set of lanes that is not there";
    struct net_lane *const *berths = peer->lanes + NET_BERTHS * (uint32_t)hello->lane;
    uint32_t old = is_up(berths[0]) ? 0 : 1;
    if (!is_up(berths[old])) return "HELLO with a turn for a lane that is not up";
    if (is_up(berths[1 - old])) return "HELLO for a lane that has two sockets already";
    if (berths[old]->leaving || berths[old]->rail != hello->rail)
        return "HELLO that contradicts the lane it would replace";
    if (hello->turn <= berths[old]->turn || (berths[1 - old] && hello->turn <= berths[1 - old]->turn))
        return "HELLO with a turn that was before";
    *berth = NET_BERTHS * (uint32_t)hello->lane + 1 - old;
    return NULL;
}

/* NULL when the stranger becomes a lane; else why not. */
static const char *admit(struct net *net, struct net_knock *knock)
{
    const struct frame_hello *hello = &knock->handshake.theirs;
    if (memcmp(hello->to, net->process, NET_PROCESS_ID_BYTES) != 0) return "HELLO for another process";
    int order = memcmp(hello->from, net->process, NET_PROCESS_ID_BYTES);
    if (order > 0) return "HELLO from a process that should wait to be connected to";
    if (hello->rail != knock->rail) return "HELLO for another rail";
    if (hello->n_lanes > NET_LANES_MAX || hello->lane >= hello->n_lanes) return "HELLO with an impossible lane";
    struct net_peer *peer = peer_get(net, hello->from, order == 0, true);
    if (!peer || peer_lanes_resize(peer, hello->n_lanes) != RAIL_OK) return "out of memory";
    if (peer->lost) return peer->why;
    uint32_t berth;
    bool anew = (hello->features & FRAME_HELLO_ANEW) != 0;
    const char *why = anew          ? admit_anew(peer, hello, &berth)
                      : hello->turn ? admit_newcomer(peer, hello, &berth)
                                    : admit_to_set(peer, hello, &berth);
    if (why) return why;
    struct net_lane *lane = peer_lane(peer, berth, hello->rail);
    if (!lane) return "out of memory";
    net_connect_drop(lane); /* it was rung for */
    lane->rail = lane->lane.rail = hello->rail;
    lane->turn = hello->turn;
    lane->newcomer = hello->turn > 0 && !anew;
    lane->anew = anew;
    lane_text(lane, knock->handshake.fd, knock->handshake.verbs);
    struct frame_hello answer = {.version = FRAME_VERSION, .rail = hello->rail, .lane = hello->lane,
                                 .turn = hello->turn, .n_lanes = hello->n_lanes, .features = net_features(net), .session = hello->session};
    if (knock->handshake.verbs) answer.features |= FRAME_HELLO_VERBS;
    memcpy(answer.from, net->process, NET_PROCESS_ID_BYTES);
    memcpy(answer.to, hello->from, NET_PROCESS_ID_BYTES);
    if (peer_lane_up(lane, &knock->handshake, &answer) != RAIL_OK) return rail_last_error();
    return NULL;
}

void net_knock_ready(struct net *net, struct net_knock *knock)
{
    if (!knock->used) return; /* a late event */
    enum rail_result r = handshake_step(&knock->handshake);
    if (r == RAIL_NOT_YET) return;
    if (r == RAIL_OK && is_ring(net, &knock->handshake.theirs)) {
        uint8_t process[NET_PROCESS_ID_BYTES];
        memcpy(process, knock->handshake.theirs.from, sizeof process);
        handshake_close(&knock->handshake);
        knock->used = false;
        net->n_knocks--;
        ring_heard(net, process);
        return;
    }
    const char *why = r == RAIL_OK ? admit(net, knock) : knock->handshake.why;
    if (why) {
        knock_drop(net, knock, why);
        return;
    }
    knock->used = false;
    net->n_knocks--;
}

/* ---- our own connections ---- */

/* It is in use, or has yet to say that it no longer is. */
static bool needs_lanes(const struct net_link *l)
{
    return (!l->closed && atomic_load_explicit(&l->failed, memory_order_relaxed) == 0) || l->wants_close;
}

/* The secret to prove: any communicator's that both are in; the first living link names one. */
static const struct net_comm *comm_for(const struct net_peer *peer)
{
    for (uint32_t i = 0; i < peer->n_places; i++) {
        const struct net_link *l = peer->places[i].link;
        if (!l || !needs_lanes(l)) continue;
        for (uint32_t j = 0; j < peer->net->n_comms; j++)
            if (peer->net->comms[j].key == l->comm_key) return &peer->net->comms[j];
    }
    for (uint32_t j = 0; peer->called && j < peer->net->n_comms; j++)
        if (peer->net->comms[j].key == peer->caller_key) return &peer->net->comms[j];
    return NULL;
}

static void try_failed(struct net_lane *lane, enum rail_result result, const char *why);

static void try_connect(struct net_lane *lane)
{
    struct net_peer *peer = lane->peer;
    struct net *net = peer->net;
    struct handshake_address to;
    const struct net_comm *comm = comm_for(peer);
    if (!peer->connecter && peer->n_up > 0) { /* the ringing was heard */
        net_connect_drop(lane);
        return;
    }
    if (!comm) { /* nobody wants it any more, or net_comm_add was forgotten */
        try_failed(lane, RAIL_E_USAGE, "no communicator is known whose secret could be proven");
        return;
    }
    if (!rail_resolve(&net->rails[lane->rail], &peer->address.rails[lane->there], &to)) {
        try_failed(lane, RAIL_E_REMOTE, "one side has IPv4, the other IPv6 there");
        return;
    }
    char text[64];
    address_text(&to, text, sizeof text);
    snprintf(lane->lane.text, sizeof lane->lane.text, "rail %u (%.15s) to %.56s", lane->rail,
             net->rails[lane->rail].interface.name, text);
    struct frame_hello hello = {.version = FRAME_VERSION, .rail = peer->address.rails[lane->there].number,
                                .lane = (uint16_t)lane->index, .turn = lane->turn,
                                .n_lanes = peer->connecter ? peer->n_set : 0,
                                .features = net_features(net) | (lane->anew ? FRAME_HELLO_ANEW : 0),
                                .session = peer->session};
    memcpy(hello.from, net->process, NET_PROCESS_ID_BYTES);
    memcpy(hello.to, peer->process, NET_PROCESS_ID_BYTES);
    struct machine_interface nic = nic_of(&net->rails[lane->rail]);
    enum rail_result r = handshake_connect(lane->handshake, &net->rails[lane->rail].interface.address, &to,
                                           net->config.n_rails > 1 ? &nic : NULL, comm->secret, &hello);
    lane->handshake->port = net_device_offer(&net->rails[lane->rail]);
    lane->handshake->patience_ns = (lane->anew ? ANEW_TIMEOUT_NS : TRY_TIMEOUT_NS) / 2;
    if (r == RAIL_OK) r = net_lane_watch(net, lane, lane->handshake->fd, false);
    if (r != RAIL_OK) {
        try_failed(lane, RAIL_E_SYSTEM, lane->handshake->why);
        return;
    }
    lane->state = NET_LANE_CONNECTING;
    lane->retry_at_ns = rail_now_ns() + (lane->anew ? ANEW_TIMEOUT_NS : TRY_TIMEOUT_NS);
}

static bool still_trying(const struct net_peer *peer)
{
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        const struct net_lane *l = peer->lanes[i];
        if (l && !l->newcomer && !l->anew && (l->state == NET_LANE_CONNECTING || l->state == NET_LANE_WAITING)) return true;
    }
    return false;
}

static void give_up(struct net_lane *lane, enum rail_result result, const char *why)
{
    struct net_peer *peer = lane->peer;
    net_connect_drop(lane);
    lane->state = NET_LANE_CLOSED;
    char text[NET_WHY_BYTES];
    snprintf(text, sizeof text, "%.100s: %.100s; gave up after %u tries", lane->lane.text, why, lane->tries);
    if (peer->n_up > 0 || still_trying(peer)) {
        RAIL_WARN("%s; the other lanes to that process are used", text);
        lane->down_ns = rail_now_ns();
        memcpy(lane->down_why, text, sizeof lane->down_why);
        if (net_mends(peer)) mend_try_failed(lane, why);
        return;
    }
    RAIL_WARN("%s", text);
    peer_fail(peer, result, text);
}

/* Where nobody listens any more nobody will, as the listeners stay for the life of a process; and who turns us away has
 * given up the set of lanes. */
static void anew_failed(struct net_lane *lane, const char *why)
{
    struct net_peer *peer = lane->peer;
    bool ended = lane->handshake->nobody, given_up = lane->handshake->turned_away && peer->connecter;
    char text[NET_WHY_BYTES];
    snprintf(text, sizeof text, "%.100s: the connection was lost, and %s", lane->lane.text,
             ended ? "nobody listens there any more: the other process has ended"
                   : "the other process takes no other: it has given up, or ended");
    mend_try_failed(lane, why);
    if (peer->n_up > 0 || (!ended && !given_up)) return;
    /* It had nothing on the lanes yet, so it kept nothing of them. */
    if (given_up && !ended && !peer_has_met(peer))
        peer_begin_anew(peer);
    else
        peer_fail(peer, RAIL_E_REMOTE, text);
}

static void try_failed(struct net_lane *lane, enum rail_result result, const char *why)
{
    struct net *net = lane->peer->net;
    if (lane->newcomer) { /* the lane has its old socket */
        RAIL_TRACE(RAIL_NET, "%s: %s; lane %u keeps its socket", lane->lane.text, why, lane->index);
        move_failed(lane);
        return;
    }
    char reason[160];
    snprintf(reason, sizeof reason, "%s", why);
    if (lane->anew) {
        anew_failed(lane, reason);
        return;
    }
    bool for_good = result == RAIL_E_REMOTE && !lane->handshake->refused;
    direct_try_ends(lane);
    handshake_close(lane->handshake);
    lane->state = NET_LANE_WAITING;
    uint64_t now = rail_now_ns();
    lane->tries++;
    if (for_good || now >= lane->deadline_ns) {
        give_up(lane, result, reason);
        return;
    }
    uint64_t pause_ns = FIRST_PAUSE_NS << (lane->tries < 8 ? lane->tries - 1 : 7);
    lane->retry_at_ns = now + (pause_ns < LONGEST_PAUSE_NS ? pause_ns : LONGEST_PAUSE_NS);
    RAIL_TRACE(RAIL_NET, "%s: %s; trying again", lane->lane.text, reason);
    net_touch(net);
}

void net_connect_drop(struct net_lane *lane)
{
    if (lane->state != NET_LANE_CONNECTING && lane->state != NET_LANE_WAITING) return;
    direct_try_ends(lane);
    handshake_close(lane->handshake);
    lane->state = NET_LANE_CLOSED;
    lane->newcomer = false;
    lane->peer->net->n_connecting--;
}

void net_connect_step(struct net_lane *lane)
{
    if (lane->state != NET_LANE_CONNECTING) return;
    struct handshake *h = lane->handshake;
    enum rail_result r = handshake_step(h);
    if (r == RAIL_NOT_YET) return;
    if (r == RAIL_OK && (!lane->peer->connecter || memcmp(h->theirs.from, lane->peer->process, NET_PROCESS_ID_BYTES) != 0 ||
                         h->theirs.lane != lane->index || h->theirs.turn != lane->turn ||
                         h->theirs.session != lane->peer->session)) {
        snprintf(h->why, sizeof h->why, "HELLO came from another process than the one wanted");
        r = RAIL_E_REMOTE;
    }
    if (r == RAIL_OK) {
        lane_text(lane, h->fd, h->verbs);
        if (!lane->newcomer && !lane->anew && lane->peer->n_up == 0)
            lane->peer->features = h->theirs.features & net_features(lane->peer->net);
        r = peer_lane_up(lane, h, NULL);
        if (r == RAIL_OK) {
            lane->peer->net->n_connecting--;
            return;
        }
        snprintf(h->why, sizeof h->why, "%s", rail_last_error());
    }
    try_failed(lane, r, h->why);
}

void net_connect_managed(struct net *net, uint32_t rail)
{
    for (int i = 0; net->n_knocks > 0 && i < NET_KNOCKS_MAX; i++)
        if (net->knocks[i].used && net->knocks[i].rail == rail && handshake_is_managed(&net->knocks[i].handshake))
            net_knock_ready(net, &net->knocks[i]);
    if (net->n_connecting == 0) return;
    for (struct net_peer *p = net->peers; p; p = p->next)
        for (uint32_t i = 0; i < p->n_lanes; i++) {
            struct net_lane *lane = p->lanes[i];
            if (lane && lane->state == NET_LANE_CONNECTING && lane->rail == rail && handshake_is_managed(lane->handshake))
                net_connect_step(lane);
        }
}

bool net_peer_wanted(const struct net_peer *peer)
{
    if (peer->called) return true;
    for (uint32_t i = 0; i < peer->n_places; i++) {
        const struct net_link *l = peer->places[i].link;
        if (l && needs_lanes(l)) return true;
    }
    return false;
}

/* Our NICs and theirs that lanes may join. */
static uint32_t pairs_of(const struct net_peer *peer, struct rail_pair out[RAILS_NICS_MAX])
{
    uint64_t here[NET_MAX_RAILS], there[NET_MAX_RAILS];
    uint8_t ours[NET_MAX_RAILS];
    uint32_t n_here = 0, n_there = peer->address.n_rails;
    for (uint32_t i = 0; i < peer->net->config.n_rails; i++)
        if (!peer->net->rails[i].gone) here[n_here] = peer->here[i], ours[n_here++] = (uint8_t)i;
    for (uint32_t i = 0; i < n_there; i++) there[i] = peer->address.rails[i].rail;
    uint32_t n = rails_match(here, n_here, there, n_there, peer->net->config.crossing, out);
    for (uint32_t i = 0; i < n; i++) out[i].here = ours[out[i].here];
    return n;
}

void net_connect_peer(struct net_peer *peer)
{
    struct net *net = peer->net;
    if (peer->lost || peer->n_up > 0 || peer->repair.alone_ns || still_trying(peer) || !net_peer_wanted(peer)) return;
    if (!peer->connecter && !peer->rings) return;
    for (uint32_t i = 0; i < peer->n_lanes; i++)
        if (peer->lanes[i] && peer->lanes[i]->newcomer) net_connect_drop(peer->lanes[i]);
    struct rail_pair pairs[RAILS_NICS_MAX];
    uint32_t n_rails = pairs_of(peer, pairs), per_rail = net->config.sockets_per_rail;
    if (!peer->connecter && n_rails > 0) n_rails = per_rail = 1; /* one bell is enough */
    if (n_rails == 0 || peer_lanes_resize(peer, n_rails * per_rail) != RAIL_OK) {
        peer_fail(peer, RAIL_E_SYSTEM,
                  n_rails ? "out of memory"
                          : "no network interface of the other process is on a rail of this one's; NCCL_CROSS_NIC=1 "
                            "would let lanes cross");
        return;
    }
    if (peer->connecter) peer->session = ++net->sessions;
    peer->n_set = n_rails * per_rail;
    peer->features = 0; /* until they answer */
    mend_set_begins(peer);
    uint64_t deadline_ns = rail_now_ns() + net->config.connect_timeout_ns;
    for (uint32_t i = 0; i < n_rails * per_rail; i++) {
        const struct rail_pair *pair = &pairs[i / per_rail];
        struct net_lane *lane = peer_lane(peer, NET_BERTHS * i, pair->here);
        if (lane && !lane->handshake) lane->handshake = calloc(1, sizeof *lane->handshake);
        if (!lane || !lane->handshake) {
            peer_fail(peer, RAIL_E_SYSTEM, "out of memory for a lane");
            return;
        }
        lane->handshake->fd = -1;
        lane->rail = lane->lane.rail = pair->here;
        lane->there = pair->there;
        lane->turn = 0;
        lane->newcomer = lane->anew = false;
        lane->state = NET_LANE_WAITING;
        lane->tries = 0;
        lane->retry_at_ns = 0;
        lane->deadline_ns = deadline_ns;
        net->n_connecting++;
    }
    for (uint32_t i = 0; i < n_rails * per_rail; i++)
        if (peer->lanes[NET_BERTHS * i]->state == NET_LANE_WAITING) try_connect(peer->lanes[NET_BERTHS * i]);
    net_touch(net);
}

bool net_connect_beside(struct net_lane *beside)
{
    struct net_peer *peer = beside->peer;
    struct net_lane *other = peer_lane_beside(beside);
    uint32_t turn = other && other->turn > beside->turn ? other->turn : beside->turn;
    if (net_mends(peer) && turn < peer->repair.lanes[beside->index].tried_turn)
        turn = peer->repair.lanes[beside->index].tried_turn;
    if ((other && other->state >= NET_LANE_WAITING && other->state <= NET_LANE_UP) || turn == UINT16_MAX) return false;
    uint32_t berth = NET_BERTHS * beside->index;
    struct net_lane *lane = peer_lane(peer, berth + (peer->lanes[berth] == beside), beside->rail);
    if (lane && !lane->handshake) lane->handshake = calloc(1, sizeof *lane->handshake);
    if (!lane || !lane->handshake) return false;
    lane->handshake->fd = -1;
    lane->rail = lane->lane.rail = beside->rail;
    lane->there = beside->there;
    lane->turn = (uint16_t)(turn + 1);
    if (net_mends(peer)) repair_tries(&peer->repair, lane->index, lane->turn);
    lane->newcomer = true;
    lane->anew = false;
    lane->state = NET_LANE_WAITING;
    peer->net->n_connecting++;
    try_connect(lane);
    net_touch(peer->net);
    return lane->state == NET_LANE_CONNECTING;
}

bool net_connect_anew(struct net_peer *peer, uint32_t index, uint16_t turn)
{
    struct net_lane *lane = peer->lanes[NET_BERTHS * index];
    if (!lane || lane->state == NET_LANE_UP) return false;
    net_connect_drop(lane);
    if (!lane->handshake) lane->handshake = calloc(1, sizeof *lane->handshake);
    if (!lane->handshake) return false;
    *lane->handshake = (struct handshake){.fd = -1};
    lane->turn = turn;
    lane->newcomer = false;
    lane->anew = true;
    lane->state = NET_LANE_WAITING;
    peer->net->n_connecting++;
    try_connect(lane);
    net_touch(peer->net);
    return true;
}

void net_connect_ring(struct net_peer *peer, uint32_t number)
{
    struct rail_pair pairs[RAILS_NICS_MAX];
    uint32_t n = peer->address.n_rails > 0 ? pairs_of(peer, pairs) : 0;
    if (n == 0) return;
    uint32_t index = number % n;
    if (index >= peer->n_set) return;
    struct net_lane *lane = peer->lanes[NET_BERTHS * index];
    if (!lane || lane->state == NET_LANE_UP) return;
    lane->there = pairs[index].there;
    lane->rail = lane->lane.rail = pairs[index].here;
    (void)net_connect_anew(peer, index, lane->turn);
}

/* ---- time ---- */

static void lanes_tick(struct net_peer *peer, uint64_t now_ns)
{
    for (uint32_t i = 0; i < peer->n_lanes; i++) {
        struct net_lane *lane = peer->lanes[i];
        if (lane && lane->state == NET_LANE_CONNECTING && handshake_is_late(lane->handshake, now_ns)) net_connect_step(lane);
        if (!lane || now_ns < lane->retry_at_ns) continue;
        if (lane->state == NET_LANE_CONNECTING)
            try_failed(lane, RAIL_E_TIMEOUT, lane->anew ? "no answer within 0.5 s" : "no answer within 5 s");
        else if (lane->state == NET_LANE_WAITING)
            try_connect(lane);
    }
}

void net_connect_tick(struct net *net, uint64_t now_ns)
{
    for (uint32_t i = 0; i < net->config.n_rails; i++) {
        struct net_rail *rail = &net->rails[i];
        if (rail->deaf && now_ns >= rail->hears_again_ns && watch_fd(net, rail->fd, EPOLLIN, &rail->watch) == RAIL_OK) rail->deaf = false;
    }
    for (int i = 0; net->n_knocks > 0 && i < NET_KNOCKS_MAX; i++) {
        if (net->knocks[i].used && handshake_is_late(&net->knocks[i].handshake, now_ns)) net_knock_ready(net, &net->knocks[i]);
        if (net->knocks[i].used && now_ns >= net->knocks[i].deadline_ns)
            knock_drop(net, &net->knocks[i], "did not prove the secret in time");
    }
    if (net->n_connecting == 0) return;
    for (struct net_peer *p = net->peers; p; p = p->next) lanes_tick(p, now_ns);
}
