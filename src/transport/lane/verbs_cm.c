/* verbs_cm.c - a queue pair's life by the connection manager (librdmacm), where verbs_connection.c makes one by hand:
 *
 *   connecter                                               accepter
 *   ADDRESS --resolved--> ROUTE --resolved--> CONNECTING    AWAITED
 *           their token, our queue pair's number ---------> REQUESTED  (their record may come later than this)
 *           <--------- our token, their queue pair's number  RTR, RTS: ACCEPTED
 *   RTR, RTS: ESTABLISHED  ------------------------------->  ESTABLISHED
 *
 * What is wrong at any state is FAILED, with why. Of an iWARP device the queue pair is set by its driver while the two
 * connect; of others by us, to what the manager says, but for what the user wishes (NCCL_IB_TIMEOUT and so on) and the flow
 * label.
 *
 * Events that are lost are found missing by the deadline, which each end has for itself. */
#include "transport/lane/verbs_state.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"

#ifdef RAIL_HAVE_RDMACM

enum { RESOLVE_MS = 2000 }; /* the deadline comes earlier */

__attribute__((format(printf, 2, 3))) static void fail(struct verbs_connection *c, const char *format, ...)
{
    va_list arguments;
    c->managed.state = VERBS_FAILED;
    va_start(arguments, format);
    vsnprintf(c->managed.why, sizeof c->managed.why, format, arguments);
    va_end(arguments);
}

static bool called(struct verbs_connection *c, const char *call, int result)
{
    if (result == 0) return true;
    fail(c, "%s on %s: %s", call, c->port->name, strerror(errno));
    return false;
}

/* ---- the queue pair ---- */

static const struct ibverbs_gid *offered(const struct verbs_connection *c, uint8_t index)
{
    for (int i = 0; i < c->n_offers; i++)
        if (c->offers[i].gid.index == index) return &c->offers[i].gid;
    return NULL;
}

/* "10.0.0.1 (RoCE v2, index 3) by librdmacm": the manager chose it by the rail's address. */
static void write_text(struct verbs_connection *c, const struct ibv_ah_attr *way)
{
    const struct ibverbs_gid *gid = way ? offered(c, way->grh.sgid_index) : NULL;
    char here[GID_TEXT_BYTES] = "iWARP";
    if (gid) gid_text(gid, here);
    else if (way) snprintf(here, sizeof here, "GID index %u", way->grh.sgid_index);
    snprintf(c->text, sizeof c->text, "%s, by librdmacm", here);
}

static bool modify(struct verbs_connection *c, const char *to, struct ibv_qp_attr *attr, int mask)
{
    int error = c->port->f->modify_qp(c->qp, attr, mask);
    if (error != 0) fail(c, "ibv_modify_qp to %s on %s: %s", to, c->port->name, strerror(error));
    return error == 0;
}

static bool to_receive(struct verbs_connection *c)
{
    const struct verbs_settings *s = &c->port->settings;
    const struct verbs_record *theirs = &c->managed.theirs;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR};
    int mask = 0;
    if (!called(c, "rdma_init_qp_attr for RTR", verbs_manager_of(c->port)->init_qp_attr(c->managed.id, &attr, &mask)))
        return false;
    if (attr.dest_qp_num != theirs->queue_pair) {
        fail(c, "the connection manager joins another queue pair (%u) than the handshake (%u)", attr.dest_qp_num,
             theirs->queue_pair);
        return false;
    }
    if (theirs->mtu < attr.path_mtu) attr.path_mtu = theirs->mtu;
    if (c->mtu < attr.path_mtu) attr.path_mtu = c->mtu;
    attr.min_rnr_timer = VERBS_RNR_TIMER_10_MS;
    attr.max_dest_rd_atomic = 1;
    attr.ah_attr.sl = s->service_level;
    attr.ah_attr.grh.traffic_class = s->traffic_class;
    write_text(c, &attr.ah_attr);
    if (attr.ah_attr.is_global) verbs_connection_route(c, c->managed.flow_label, &attr.ah_attr);
    return modify(c, "RTR", &attr, mask);
}

static bool to_send(struct verbs_connection *c)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTS};
    int mask = 0;
    if (!called(c, "rdma_init_qp_attr for RTS", verbs_manager_of(c->port)->init_qp_attr(c->managed.id, &attr, &mask)))
        return false;
    attr.timeout = c->port->settings.timeout;
    attr.retry_cnt = c->port->settings.retries;
    attr.rnr_retry = VERBS_RNR_FOR_EVER;
    attr.max_rd_atomic = 1;
    return modify(c, "RTS", &attr, mask);
}

static bool to_ready(struct verbs_connection *c)
{
    if (!c->port->is_iwarp) return to_receive(c) && to_send(c);
    write_text(c, NULL);
    return true;
}

/* What the far end is told, and shown. */
static struct rdma_conn_param parameters(const struct verbs_connection *c)
{
    return (struct rdma_conn_param){
        .private_data = c->managed.theirs.token, .private_data_len = VERBS_TOKEN_BYTES, .responder_resources = 1,
        .initiator_depth = 1, .flow_control = 1, .retry_count = c->port->settings.retries,
        .rnr_retry_count = VERBS_RNR_FOR_EVER, .qp_num = c->qp->qp_num,
    };
}

/* ---- accepter ---- */

bool verbs_manager_offer(struct verbs_connection *c, const struct sockaddr *here, struct rail_deadline deadline,
                         struct verbs_record *ours, char *why)
{
    uint16_t at = verbs_manager_listen(c->port, here, why);
    if (at == 0) return false;
    c->managed.deadline = deadline;
    rail_random(c->managed.token, sizeof c->managed.token);
    c->managed.state = VERBS_AWAITED;
    verbs_manager_begin(c);
    ours->cm_port = at;
    memcpy(ours->token, c->managed.token, sizeof ours->token);
    /* The connecter answers before its device has made anything of it. */
    ours->ece_vendor = ours->ece_options = ours->ece_mask = 0;
    return true;
}

static void accept_it(struct verbs_connection *c)
{
    struct rdma_conn_param answer = parameters(c);
    if (!c->port->is_iwarp && c->managed.their_queue_pair != c->managed.theirs.queue_pair) {
        fail(c, "a connection request of another queue pair (%u) than the handshake's (%u)", c->managed.their_queue_pair,
             c->managed.theirs.queue_pair);
        return;
    }
    if (to_ready(c) && called(c, "rdma_accept", verbs_manager_of(c->port)->accept(c->managed.id, &answer)))
        c->managed.state = VERBS_ACCEPTED;
}

bool verbs_manager_accept(struct verbs_connection *c, const struct verbs_record *theirs, uint32_t flow_label, char *why)
{
    if (!verbs_record_fits(theirs, c->port, why)) return false;
    if (c->managed.state != VERBS_AWAITED && c->managed.state != VERBS_REQUESTED && c->managed.state != VERBS_FAILED) {
        snprintf(why, VERBS_WHY_BYTES, "the other process connects by librdmacm, which was not offered");
        return false;
    }
    c->managed.theirs = *theirs;
    c->managed.flow_label = flow_label;
    verbs_connection_meets(c, theirs);
    if (c->managed.state == VERBS_REQUESTED) accept_it(c);
    return true;
}

/* ---- connecter ---- */

bool verbs_manager_connect(struct verbs_connection *c, const struct sockaddr *here, const struct sockaddr *there,
                           const struct verbs_record *theirs, uint32_t flow_label, struct rail_deadline deadline,
                           struct verbs_record *ours, char *why)
{
    struct sockaddr_storage from, to;
    socklen_t bytes = here->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    if (!verbs_record_fits(theirs, c->port, why)) return false;
    memset(&from, 0, sizeof from);
    memcpy(&from, here, bytes);
    memset(&to, 0, sizeof to);
    memcpy(&to, there, bytes);
    uint16_t port = htons(theirs->cm_port);
    if (here->sa_family == AF_INET) {
        ((struct sockaddr_in *)(void *)&from)->sin_port = 0;
        ((struct sockaddr_in *)(void *)&to)->sin_port = port;
    } else {
        ((struct sockaddr_in6 *)(void *)&from)->sin6_port = 0;
        ((struct sockaddr_in6 *)(void *)&to)->sin6_port = port;
    }
    verbs_connection_meets(c, theirs);
    rail_random(c->managed.token, sizeof c->managed.token);
    c->managed.theirs = *theirs;
    c->managed.flow_label = flow_label;
    c->managed.deadline = deadline;
    c->managed.state = VERBS_ADDRESS;
    verbs_manager_begin(c);
    ours->by_cm = 1;
    memcpy(ours->token, c->managed.token, sizeof ours->token);
    ours->ece_vendor = ours->ece_options = ours->ece_mask = 0;
    const struct rdmacm *f = verbs_manager_of(c->port);
    if (called(c, "rdma_create_id", verbs_manager_id(c, &c->managed.id)))
        (void)called(c, "rdma_resolve_addr",
                     f->resolve_addr(c->managed.id, (struct sockaddr *)&from, (struct sockaddr *)&to, RESOLVE_MS));
    if (c->managed.state != VERBS_FAILED) return true;
    snprintf(why, VERBS_WHY_BYTES, "%s", c->managed.why);
    return false;
}

static void address_resolved(struct verbs_connection *c)
{
    const struct verbs_port *p = c->port;
    const struct rdma_cm_id *id = c->managed.id;
    const char *name = id->verbs ? p->f->get_device_name(id->verbs->device) : "no device";
    if (strcmp(name, p->name) != 0 || id->port_num != p->port) {
        fail(c, "librdmacm takes %.40s:%u for the rail's address, which is %s:%u's; look at the host's routes", name,
             id->port_num, p->name, p->port);
        return;
    }
    if (called(c, "rdma_resolve_route", verbs_manager_of(p)->resolve_route(c->managed.id, RESOLVE_MS)))
        c->managed.state = VERBS_ROUTE;
}

static void ask(struct verbs_connection *c)
{
    struct rdma_conn_param request = parameters(c);
    if (called(c, "rdma_connect", verbs_manager_of(c->port)->connect(c->managed.id, &request)))
        c->managed.state = VERBS_CONNECTING;
}

/* Who listens there could be anybody: they show the token that we sent through the lane's socket. */
static bool shows_token(struct verbs_connection *c, const struct rdma_cm_event *event)
{
    const struct rdma_conn_param *shown = &event->param.conn;
    if (shown->private_data_len >= VERBS_TOKEN_BYTES &&
        memcmp(shown->private_data, c->managed.token, VERBS_TOKEN_BYTES) == 0)
        return true;
    fail(c, "whoever answers for it at the connection manager's port does not show our token");
    return false;
}

static void answered(struct verbs_connection *c, const struct rdma_cm_event *event)
{
    if (shows_token(c, event) && to_ready(c) &&
        called(c, "rdma_establish", verbs_manager_of(c->port)->establish(c->managed.id)))
        c->managed.state = VERBS_ESTABLISHED;
}

/* ---- events ---- */

static const char *trouble(const struct rdma_cm_event *event)
{
    switch ((int)event->event) {
    case RDMA_CM_EVENT_ADDR_ERROR: return "their address cannot be resolved";
    case RDMA_CM_EVENT_ROUTE_ERROR: return "there is no route to them";
    case RDMA_CM_EVENT_CONNECT_ERROR: return "connecting fails";
    case RDMA_CM_EVENT_UNREACHABLE: return "they do not answer";
    case RDMA_CM_EVENT_REJECTED: return "they refuse";
    case RDMA_CM_EVENT_DISCONNECTED: return "they have given it up";
    case RDMA_CM_EVENT_DEVICE_REMOVAL: return "the device is gone";
    default: return NULL;
    }
}

/* An event that ends it. Of an established one the lane's socket tells, when what was written before was read. */
static bool is_over(struct verbs_connection *c, const struct rdma_cm_event *event)
{
    const char *what = trouble(event);
    if (!what) return false;
    if (c->managed.state == VERBS_ESTABLISHED || c->managed.state == VERBS_FAILED) return true;
    if (event->status < 0) fail(c, "librdmacm on %s: %s (%s)", c->port->name, what, strerror(-event->status));
    else fail(c, "librdmacm on %s: %s (status %d)", c->port->name, what, event->status);
    return true;
}

void verbs_managed_event(struct verbs_connection *c, const struct rdma_cm_event *event)
{
    struct verbs_managed *m = &c->managed;
    if (is_over(c, event)) return;
    if (event->event == RDMA_CM_EVENT_ADDR_RESOLVED && m->state == VERBS_ADDRESS) {
        address_resolved(c);
    } else if (event->event == RDMA_CM_EVENT_ROUTE_RESOLVED && m->state == VERBS_ROUTE) {
        ask(c);
    } else if (event->event == RDMA_CM_EVENT_CONNECT_REQUEST && m->state == VERBS_AWAITED) {
        m->state = VERBS_REQUESTED;
        m->their_queue_pair = event->param.conn.qp_num;
        if (m->theirs.version != 0) accept_it(c);
    } else if (event->event == RDMA_CM_EVENT_CONNECT_RESPONSE && m->state == VERBS_CONNECTING) {
        answered(c, event);
    } else if (event->event == RDMA_CM_EVENT_ESTABLISHED && m->state == VERBS_ACCEPTED) {
        m->state = VERBS_ESTABLISHED;
    } else if (event->event == RDMA_CM_EVENT_ESTABLISHED && m->state == VERBS_CONNECTING) { /* iWARP */
        if (shows_token(c, event) && to_ready(c)) m->state = VERBS_ESTABLISHED;
    } /* others (addresses that change, a number that is free again) are nothing to a connection */
}

bool verbs_manager_is_late(const struct verbs_connection *c, uint64_t now_ns)
{
    const struct verbs_managed *m = &c->managed;
    return m->state >= VERBS_AWAITED && m->state <= VERBS_CONNECTING && now_ns >= m->deadline.at_ns;
}

enum rail_result verbs_manager_step(struct verbs_connection *c, char *why)
{
    static const char *const waiting[] = {
        [VERBS_AWAITED] = "they come",
        [VERBS_REQUESTED] = "their record comes",
        [VERBS_ACCEPTED] = "they are ready",
        [VERBS_ADDRESS] = "their address is known",
        [VERBS_ROUTE] = "the route is known",
        [VERBS_CONNECTING] = "they answer",
    };
    if (c->managed.state == VERBS_ESTABLISHED) return RAIL_OK;
    if (verbs_manager_is_late(c, rail_now_ns()))
        fail(c, "librdmacm on %s was too long at it: it still waits until %s", c->port->name,
             waiting[c->managed.state]);
    if (c->managed.state != VERBS_FAILED) return RAIL_NOT_YET;
    snprintf(why, VERBS_WHY_BYTES, "%s", c->managed.why);
    return RAIL_E_SYSTEM;
}

#else

bool verbs_manager_offer(struct verbs_connection *c, const struct sockaddr *here, struct rail_deadline deadline,
                         struct verbs_record *ours, char *why)
{
    (void)c, (void)here, (void)deadline, (void)ours, (void)why;
    return false;
}

bool verbs_manager_accept(struct verbs_connection *c, const struct verbs_record *theirs, uint32_t flow_label, char *why)
{
    (void)c, (void)theirs, (void)flow_label;
    snprintf(why, VERBS_WHY_BYTES, "the other process connects by librdmacm, which was not offered");
    return false;
}

bool verbs_manager_connect(struct verbs_connection *c, const struct sockaddr *here, const struct sockaddr *there,
                           const struct verbs_record *theirs, uint32_t flow_label, struct rail_deadline deadline,
                           struct verbs_record *ours, char *why)
{
    (void)c, (void)here, (void)there, (void)theirs, (void)flow_label, (void)deadline, (void)ours, (void)why;
    return false;
}

enum rail_result verbs_manager_step(struct verbs_connection *c, char *why)
{
    (void)c, (void)why;
    return RAIL_E_SYSTEM;
}

bool verbs_manager_is_late(const struct verbs_connection *c, uint64_t now_ns) { return (void)c, (void)now_ns, false; }

#endif
