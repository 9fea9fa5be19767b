/* probe.c - asking, answering and reckoning (probe.h). One thread per node, its leader's, does both within one loop:
 *
 *   all pairs at once, again every 20 ms until answered or given up
 *     -> ties: one question at a time per NIC, several tries
 *       -> DONE to the references; answer the others until they are done, too, or PROBE_MS is over */
#include "core/probe.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "bootstrap/auth.h"
#include "topo/machine.h"

enum {
    FAN_OUT = 4,
    REFERENCES_MAX = 2,
    ASKERS_MAX = FAN_OUT + 1,
    TIME_TO_LIVE = 64,
    TRIES = 6,            /* round trips for a tie: two must agree, some meet a busy moment */
    TIMED_MAX = TRIES * RAILS_NICS_MAX * RAILS_NICS_MAX,
};
#define AGAIN_NS (20 * RAIL_NS_PER_MS)    /* a question without an answer is repeated; a first one waits for ARP */
#define SILENT_NS (100 * RAIL_NS_PER_MS)  /* after a reference's last news, what it has not answered is not reached */
#define ABSENT_NS (350 * RAIL_NS_PER_MS)  /* a reference that has not said anything is not waited for longer */
#define LATE_NS (10 * RAIL_NS_PER_MS)     /* a timed question's answer */

/* What a leader tells the others. Plain bytes. */
struct door { uint16_t port[RAILS_NICS_MAX]; };
struct told { uint8_t near[REFERENCES_MAX][RAILS_NICS_MAX], how[REFERENCES_MAX]; };

struct reference {
    uint32_t node, rank;
    struct near_matrix matrix;
    bool mute[RAILS_NICS_MAX][RAILS_NICS_MAX]; /* no question from i to j: no route, or it would leave by another NIC */
    uint64_t asked_ns, news_ns; /* 0: never */
    bool settled;               /* the first phase is over */
    bool done;
};

struct timed { uint8_t reference, i, j; };

struct probe {
    struct comm *comm;
    const struct net_address *own;
    const struct door *doors; /* by rank */
    uint8_t key[AUTH_KEY_BYTES];
    uint32_t node, n_references, n_askers;
    int fd[RAILS_NICS_MAX];
    struct reference references[REFERENCES_MAX];
    uint32_t askers[ASKERS_MAX], answered[ASKERS_MAX];
    bool asker_done[ASKERS_MAX];
    struct timed queue[TIMED_MAX * REFERENCES_MAX];
    uint32_t queued, at;        /* timed questions, and which is on its way */
    bool on_its_way;
    uint64_t start_ns, sent_ns;
    uint32_t number;
};

static uint32_t first_of(const struct comm *comm, uint32_t node)
{
    return comm->shape.order[comm->shape.node_start[node]];
}

/* ---- sockets ---- */

socklen_t probe_sockaddr(const struct net_rail_address *nic, const char *own, uint16_t port,
                         struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (nic->family == 4) {
        struct sockaddr_in *in = (void *)out;
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        memcpy(&in->sin_addr, nic->address, 4);
        return sizeof *in;
    }
    if (nic->family != 6) return 0;
    struct sockaddr_in6 *in6 = (void *)out;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    memcpy(&in6->sin6_addr, nic->address, 16);
    if (IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr)) in6->sin6_scope_id = if_nametoindex(own);
    return sizeof *in6;
}

static int open_socket(const struct net_rail_address *nic, uint16_t *port_out)
{
    struct sockaddr_storage address;
    socklen_t bytes = probe_sockaddr(nic, nic->name, 0, &address);
    int on = 1, hops = TIME_TO_LIVE;
    if (bytes == 0) return -1;
    int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    bool four = nic->family == 4;
    if (setsockopt(fd, four ? IPPROTO_IP : IPPROTO_IPV6, four ? IP_RECVTTL : IPV6_RECVHOPLIMIT, &on, sizeof on) != 0 ||
        setsockopt(fd, four ? IPPROTO_IP : IPPROTO_IPV6, four ? IP_TTL : IPV6_UNICAST_HOPS, &hops, sizeof hops) != 0 ||
        bind(fd, (const struct sockaddr *)&address, bytes) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &bytes) != 0) {
        close(fd);
        return -1;
    }
    *port_out = ntohs(four ? ((struct sockaddr_in *)(void *)&address)->sin_port
                           : ((struct sockaddr_in6 *)(void *)&address)->sin6_port);
    return fd;
}

/* By which NIC packets from our i to their j would leave; the socket is bound to its device where that helps. */
static enum machine_egress egress_of(const struct probe *p, uint32_t i, const struct net_rail_address *there)
{
    struct machine_interface nic = {.prefix_bits = p->own->rails[i].prefix_bits};
    struct sockaddr_storage to;
    const char *why;
    memcpy(nic.name, p->own->rails[i].name, sizeof nic.name - 1);
    probe_sockaddr(&p->own->rails[i], nic.name, 0, &nic.address);
    if (probe_sockaddr(there, nic.name, 0, &to) == 0) return MACHINE_EGRESS_UNKNOWN;
    enum machine_egress egress = machine_egress(&nic, &to, &why);
    if (egress == MACHINE_EGRESS_BIND && p->fd[i] >= 0) machine_bind_device(p->fd[i], &nic, &to);
    return egress;
}

/* What would leave by another NIC is not asked: it would measure that one. */
static void silence(struct probe *p, struct reference *r)
{
    for (uint32_t i = 0; i < r->matrix.n; i++)
        for (uint32_t j = 0; j < r->matrix.m; j++) {
            enum machine_egress egress = egress_of(p, i, &p->comm->addresses[r->rank].rails[j]);
            r->mute[i][j] = egress == MACHINE_EGRESS_STRAYS || egress == MACHINE_EGRESS_NOWHERE;
            r->matrix.at[i][j].blind = egress == MACHINE_EGRESS_STRAYS;
        }
}

static void send_to(struct probe *p, uint32_t rank, const struct probe_datagram *d)
{
    uint8_t bytes[PROBE_BYTES];
    struct sockaddr_storage to;
    const struct net_rail_address *there = &p->comm->addresses[rank].rails[d->nic_to];
    socklen_t n = probe_sockaddr(there, p->own->rails[d->nic_from].name, p->doors[rank].port[d->nic_to], &to);
    if (n == 0 || p->fd[d->nic_from] < 0 || p->doors[rank].port[d->nic_to] == 0) return;
    probe_write(d, p->key, bytes);
    (void)sendto(p->fd[d->nic_from], bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&to, n);
}

/* ---- asking ---- */

static bool may_reach(const struct probe *p, const struct reference *r, uint32_t i, uint32_t j)
{
    const struct net_rail_address *there = &p->comm->addresses[r->rank].rails[j];
    return !r->mute[i][j] && p->fd[i] >= 0 && p->doors[r->rank].port[j] && there->family == p->own->rails[i].family;
}

static void ask(struct probe *p, const struct reference *r, uint32_t i, uint32_t j, uint32_t number)
{
    send_to(p, r->rank, &(struct probe_datagram){.kind = PROBE_ASK, .nic_from = (uint8_t)i, .nic_to = (uint8_t)j,
                                                 .node_from = p->node, .node_to = r->node, .number = number});
}

/* All pairs that were not heard yet; true when there is none. */
static bool ask_all(struct probe *p, struct reference *r, bool send)
{
    bool all = true;
    for (uint32_t i = 0; i < r->matrix.n; i++)
        for (uint32_t j = 0; j < r->matrix.m; j++) {
            if (r->matrix.at[i][j].heard || r->matrix.at[i][j].blind || !may_reach(p, r, i, j)) continue;
            all = false;
            if (send) ask(p, r, i, j, 0);
        }
    return all;
}

static void queue_ties(struct probe *p, uint32_t reference)
{
    const struct near_matrix *m = &p->references[reference].matrix;
    for (int t = 0; t < TRIES; t++)
        for (uint32_t i = 0; i < m->n; i++)
            for (uint32_t j = 0; j < m->m; j++)
                if (near_tie(m, i, j))
                    p->queue[p->queued++] = (struct timed){(uint8_t)reference, (uint8_t)i, (uint8_t)j};
}

static void step_reference(struct probe *p, uint32_t k, uint64_t now_ns)
{
    struct reference *r = &p->references[k];
    if (r->settled) return;
    bool again = r->asked_ns == 0 || now_ns - r->asked_ns >= AGAIN_NS;
    bool all = ask_all(p, r, again);
    if (again) r->asked_ns = now_ns;
    bool silent = r->news_ns ? now_ns - r->news_ns >= SILENT_NS : now_ns - p->start_ns >= ABSENT_NS;
    if (!all && !silent) return;
    r->settled = true;
    queue_ties(p, k);
}

/* One timed question at a time: two in a queue would measure the queue. */
static void step_timed(struct probe *p, uint64_t now_ns)
{
    if (p->on_its_way && now_ns - p->sent_ns >= LATE_NS) {
        p->on_its_way = false;
        p->at++;
    }
    if (p->on_its_way || p->at == p->queued) return;
    const struct timed *t = &p->queue[p->at];
    p->on_its_way = true;
    p->number++;
    p->sent_ns = rail_now_ns();
    ask(p, &p->references[t->reference], t->i, t->j, p->number);
}

/* On every pair of NICs that work: one of them arrives. */
static void say_done(struct probe *p, struct reference *r)
{
    r->done = true;
    for (uint32_t i = 0; i < r->matrix.n; i++)
        for (uint32_t j = 0; j < r->matrix.m; j++)
            if (r->matrix.at[i][j].heard)
                send_to(p, r->rank, &(struct probe_datagram){.kind = PROBE_DONE, .nic_from = (uint8_t)i,
                                                             .nic_to = (uint8_t)j, .node_from = p->node,
                                                             .node_to = r->node});
}

/* ---- hearing ---- */

static void answered(struct probe *p, const struct probe_datagram *d, uint8_t hops, uint64_t now_ns)
{
    for (uint32_t k = 0; k < p->n_references; k++) {
        struct reference *r = &p->references[k];
        if (r->node != d->node_from || d->nic_to >= r->matrix.n || d->nic_from >= r->matrix.m) continue;
        struct near_cell *cell = &r->matrix.at[d->nic_to][d->nic_from];
        if (!cell->heard) r->news_ns = now_ns;
        if (d->hops == PROBE_BLIND) {
            cell->blind = true;
            return;
        }
        if (!cell->heard || hops > cell->hops) cell->hops = hops;
        if (d->hops > cell->hops) cell->hops = d->hops; /* the longer of the two ways */
        cell->heard = true;
        const struct timed *t = p->at < p->queued ? &p->queue[p->at] : NULL;
        if (!p->on_its_way || d->number != p->number || !t) return;
        if (t->reference != k || t->i != d->nic_to || t->j != d->nic_from) return;
        uint64_t took_ns = now_ns - p->sent_ns;
        p->on_its_way = false;
        p->at++;
        if (cell->best_ns == 0 || took_ns < cell->best_ns) {
            cell->second_ns = cell->best_ns;
            cell->best_ns = took_ns;
        } else if (cell->second_ns == 0 || took_ns < cell->second_ns) {
            cell->second_ns = took_ns;
        }
        return;
    }
}

/* As often as it has reason to: each pair first with repetitions, then timed. */
static void asked(struct probe *p, const struct probe_datagram *d, uint8_t hops)
{
    for (uint32_t k = 0; k < p->n_askers; k++) {
        uint32_t rank = first_of(p->comm, d->node_from);
        uint32_t most = (PROBE_MS / 20 + TRIES) * p->own->n_rails * p->comm->addresses[rank].n_rails;
        if (p->askers[k] != d->node_from || d->nic_from >= p->comm->addresses[rank].n_rails) continue;
        if (d->kind == PROBE_DONE) {
            p->asker_done[k] = true;
            return;
        }
        if (p->answered[k]++ >= most) return;
        enum machine_egress egress = egress_of(p, d->nic_to, &p->comm->addresses[rank].rails[d->nic_from]);
        if (egress == MACHINE_EGRESS_NOWHERE) return;
        if (egress == MACHINE_EGRESS_STRAYS) hops = PROBE_BLIND;
        send_to(p, rank, &(struct probe_datagram){.kind = PROBE_ANSWER, .nic_from = d->nic_to, .nic_to = d->nic_from,
                                                  .node_from = p->node, .node_to = d->node_from, .number = d->number,
                                                  .hops = hops});
        return;
    }
}

/* What the packet's time to live lost on its way. */
static uint8_t hops_of(struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        bool four = c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL;
        bool six = c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_HOPLIMIT;
        int left;
        if (!four && !six) continue;
        memcpy(&left, CMSG_DATA(c), sizeof left);
        return left >= 0 && left <= TIME_TO_LIVE ? (uint8_t)(TIME_TO_LIVE - left) : PROBE_UNTOLD;
    }
    return PROBE_UNTOLD;
}

static void hear(struct probe *p, uint32_t nic)
{
    for (int i = 0; i < 256; i++) {
        uint8_t bytes[PROBE_BYTES + 1];
        union { struct cmsghdr align; uint8_t bytes[128]; } control;
        struct iovec part = {bytes, sizeof bytes};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                                 .msg_controllen = sizeof control};
        struct probe_datagram d;
        ssize_t n = recvmsg(p->fd[nic], &message, MSG_DONTWAIT);
        if (n < 0 && errno == ECONNREFUSED) continue; /* an earlier question met nobody */
        if (n < 0) return;
        uint64_t now_ns = rail_now_ns();
        if (!probe_read(bytes, (size_t)n, p->key, &d) || d.node_to != p->node || d.nic_to != nic ||
            d.node_from >= p->comm->shape.n_nodes)
            continue;
        if (d.kind == PROBE_ANSWER) answered(p, &d, hops_of(&message), now_ns);
        else asked(p, &d, hops_of(&message));
    }
}

/* ---- the loop ---- */

static bool all_done(struct probe *p, uint64_t now_ns)
{
    bool done = true;
    for (uint32_t k = 0; k < p->n_references; k++) {
        step_reference(p, k, now_ns);
        done = done && p->references[k].settled;
    }
    step_timed(p, now_ns);
    if (!done || p->at < p->queued) return false;
    for (uint32_t k = 0; k < p->n_references; k++)
        if (!p->references[k].done) say_done(p, &p->references[k]);
    for (uint32_t k = 0; k < p->n_askers; k++) done = done && p->asker_done[k];
    return done;
}

static void run(struct probe *p)
{
    struct pollfd fds[RAILS_NICS_MAX];
    uint32_t n = p->own->n_rails;
    p->start_ns = rail_now_ns();
    for (uint32_t i = 0; i < n; i++) fds[i] = (struct pollfd){.fd = p->fd[i], .events = POLLIN};
    while (!all_done(p, rail_now_ns())) {
        if (rail_now_ns() - p->start_ns >= PROBE_MS * RAIL_NS_PER_MS || fault_result(&p->comm->fault) != RAIL_OK) break;
        int ready = poll(fds, n, 5);
        for (uint32_t i = 0; i < n && ready > 0; i++)
            if (fds[i].revents) hear(p, i);
    }
}

static void add_reference(struct probe *p, uint32_t node)
{
    struct reference *r = &p->references[p->n_references++];
    r->node = node;
    r->rank = first_of(p->comm, node);
    r->matrix.n = p->own->n_rails;
    r->matrix.m = p->comm->addresses[r->rank].n_rails;
}

static uint32_t references_of(uint32_t node, uint32_t out[REFERENCES_MAX])
{
    if (node == 0) return 0;
    out[0] = (node - 1) / FAN_OUT;
    out[1] = node - 1;
    return out[0] == out[1] ? 1 : 2;
}

static void arrange(struct probe *p)
{
    uint32_t nodes[REFERENCES_MAX], n = references_of(p->node, nodes);
    for (uint32_t k = 0; k < n; k++) add_reference(p, nodes[k]);
    for (uint32_t k = 1; k <= FAN_OUT; k++)
        if (FAN_OUT * p->node + k < p->comm->shape.n_nodes) p->askers[p->n_askers++] = FAN_OUT * p->node + k;
    bool is_child = p->node == 0; /* node 1 is its child already */
    if (p->node + 1 < p->comm->shape.n_nodes && !is_child) p->askers[p->n_askers++] = p->node + 1;
}

static void reckon(struct probe *p, struct told *out)
{
    memset(out->near, NEAR_NONE, sizeof out->near);
    for (uint32_t k = 0; k < p->n_references; k++) {
        const struct reference *r = &p->references[k];
        const struct net_rail_address *there = p->comm->addresses[r->rank].rails;
        enum near_how how = near_assign(&r->matrix, out->near[k]);
        out->how[k] = (uint8_t)how;
        char text[160] = "";
        size_t used = 0;
        for (uint32_t i = 0; i < r->matrix.n && used < sizeof text - 40; i++)
            if (out->near[k][i] != NEAR_NONE)
                used += (size_t)snprintf(text + used, sizeof text - used, "%s%.15s-%.15s", used ? ", " : "",
                                         p->own->rails[i].name, there[out->near[k][i]].name);
        RAIL_INFO(RAIL_INIT, "rails: probe of node %u from node %u: %s: %s", r->node, p->node,
                  used ? text : "no pair told", near_how_name(how));
    }
}

/* ---- collective ---- */

static enum rail_result pairs_of(const struct comm *comm, const struct told *told, struct probe_pair **out,
                                 uint32_t *n_out)
{
    size_t most = (size_t)comm->shape.n_nodes * REFERENCES_MAX * RAILS_NICS_MAX;
    struct probe_pair *pairs = malloc((most + 1) * sizeof *pairs);
    uint32_t n = 0;
    if (!pairs) return rail_fail(RAIL_E_SYSTEM, "probing %u nodes: out of memory", comm->shape.n_nodes);
    for (uint32_t node = 0; node < comm->shape.n_nodes; node++) {
        uint32_t nodes[REFERENCES_MAX], references = references_of(node, nodes), rank = first_of(comm, node);
        for (uint32_t k = 0; k < references; k++)
            for (uint32_t i = 0; i < comm->addresses[rank].n_rails; i++) {
                uint32_t there = first_of(comm, nodes[k]), j = told[rank].near[k][i];
                if (j >= comm->addresses[there].n_rails) continue; /* NEAR_NONE, or nonsense */
                pairs[n++] = (struct probe_pair){there, j, rank, i};
            }
    }
    *out = pairs;
    *n_out = n;
    return RAIL_OK;
}

enum rail_result probe_run(struct comm *comm, struct rail_deadline deadline, struct probe_pair **out, uint32_t *n_out)
{
    struct door *doors = calloc(comm->n_ranks, sizeof *doors);
    struct told *told = calloc(comm->n_ranks, sizeof *told);
    struct probe *p = calloc(1, sizeof *p);
    uint32_t node = comm->shape.node_of[comm->rank];
    bool leader = first_of(comm, node) == comm->rank;
    enum rail_result result = doors && told && p ? RAIL_OK : rail_fail(RAIL_E_SYSTEM, "probing: out of memory");
    if (result != RAIL_OK) goto done;
    *p = (struct probe){.comm = comm, .own = &comm->addresses[comm->rank], .doors = doors, .node = node};
    for (uint32_t i = 0; i < RAILS_NICS_MAX; i++) p->fd[i] = -1;
    auth_derive(bootstrap_secret(comm->bootstrap), "nic probe", p->key);
    for (uint32_t i = 0; leader && i < p->own->n_rails; i++)
        p->fd[i] = open_socket(&p->own->rails[i], &doors[comm->rank].port[i]);
    result = bootstrap_allgather(comm->bootstrap, doors, sizeof *doors, deadline);
    if (result == RAIL_OK && leader) {
        arrange(p);
        for (uint32_t k = 0; k < p->n_references; k++) silence(p, &p->references[k]);
        run(p);
        reckon(p, &told[comm->rank]);
        RAIL_INFO(RAIL_INIT, "rails: probing took %.1f ms", (double)(rail_now_ns() - p->start_ns) / 1e6);
    }
    if (result == RAIL_OK) result = bootstrap_allgather(comm->bootstrap, told, sizeof *told, deadline);
    if (result == RAIL_OK) result = pairs_of(comm, told, out, n_out);
    for (uint32_t i = 0; i < RAILS_NICS_MAX; i++)
        if (p->fd[i] >= 0) close(p->fd[i]);
    explicit_bzero(p->key, sizeof p->key);
done:
    free(doors);
    free(told);
    free(p);
    return result;
}
