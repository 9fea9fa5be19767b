/* fault_rdmacm.c - a connection manager in memory (fault_rdmacm.h). One lock protects all of it. */
#include "support/fault_rdmacm.h"

#ifdef RAIL_HAVE_RDMACM
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "support/fault_verbs.h"

enum { DEVICES = 16, CALLS = 24, TYPES = 16, DATA = 56, STATUS_NO_LISTENER = 8, STATUS_REFUSED = 28 };

#define MUST(condition) do { if (!(condition)) { fprintf(stderr, "fault_rdmacm: %s:%d: %s\n", __FILE__, __LINE__, #condition); abort(); } } while (0)

enum end_state { IDLE, BOUND, LISTENS, ADDRESS, ROUTE, CONNECTING, ASKED, ACCEPTED, ANSWERED, ESTABLISHED, OVER };

struct end {
    struct rdma_cm_id id;
    enum end_state state;
    struct end *next, *peer; /* peer: as long as both are there */
    int device;              /* -1: not bound */
    uint16_t port;
    struct sockaddr_in to;
    uint32_t queue_pair, packet;
    int to_acknowledge;
};

struct told {
    struct rdma_cm_event event;
    struct told *next;
    uint8_t data[DATA];
};

struct channel { struct rdma_event_channel channel; struct told *first; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct ibv_context contexts[DEVICES];
static struct end *ends;
static int objects;
static uint16_t ports;
static uint32_t packets;

#define LOCKED pthread_mutex_lock(&lock)
#define UNLOCKED pthread_mutex_unlock(&lock)

/* ---- faults ---- */

static struct { const char *name; int calls; } counted[CALLS];
static struct { const char *name; int after, times, error; } fault;
static const char *hanging;
static struct { int lost, forged, replaced, status; enum rdma_cm_event_type instead; } faulty[TYPES];

/* 0, or -1 with the error that this call has to fail with. Lock held. */
static int call(const char *name)
{
    int i = 0;
    while (counted[i].name && strcmp(counted[i].name, name) != 0) i++;
    MUST(i < CALLS - 1);
    counted[i].name = name;
    counted[i].calls++;
    while (hanging && strcmp(hanging, name) == 0) pthread_cond_wait(&changed, &lock);
    if (fault.times == 0 || (fault.name && strcmp(fault.name, name) != 0)) return 0;
    if (fault.after > 0) return fault.after--, 0;
    fault.times--;
    errno = fault.error;
    return -1;
}

void fault_rdmacm_fail(const char *name, int after, int times, int error)
{
    LOCKED;
    fault.name = name, fault.after = after, fault.times = times, fault.error = error;
    UNLOCKED;
}

int fault_rdmacm_calls(const char *name)
{
    int n = 0;
    LOCKED;
    for (int i = 0; counted[i].name; i++)
        if (!name || strcmp(counted[i].name, name) == 0) n += counted[i].calls;
    UNLOCKED;
    return n;
}

void fault_rdmacm_hang(const char *name)
{
    LOCKED;
    hanging = name;
    pthread_cond_broadcast(&changed);
    UNLOCKED;
}

void fault_rdmacm_lose(enum rdma_cm_event_type type, int times)
{
    LOCKED;
    faulty[type].lost = times;
    UNLOCKED;
}

void fault_rdmacm_instead(enum rdma_cm_event_type type, enum rdma_cm_event_type other, int status, int times)
{
    LOCKED;
    faulty[type].replaced = times, faulty[type].instead = other, faulty[type].status = status;
    UNLOCKED;
}

void fault_rdmacm_forge(enum rdma_cm_event_type type, int times)
{
    LOCKED;
    faulty[type].forged = times;
    UNLOCKED;
}

int fault_rdmacm_objects(void)
{
    LOCKED;
    int n = objects;
    UNLOCKED;
    return n;
}

/* ---- channels and events ---- */

static struct end *of(struct rdma_cm_id *id) { return (struct end *)(void *)id; }
static struct channel *channel_of(const struct end *e) { return (struct channel *)(void *)e->id.channel; }

static struct rdma_event_channel *create_event_channel(void)
{
    struct channel *c = NULL;
    LOCKED;
    if (call("create_event_channel") == 0) {
        c = calloc(1, sizeof *c);
        c->channel.fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
        objects++;
    }
    UNLOCKED;
    return c ? &c->channel : NULL;
}

static void destroy_event_channel(struct rdma_event_channel *channel)
{
    struct channel *c = (struct channel *)(void *)channel;
    LOCKED;
    for (struct end *e = ends; e; e = e->next) MUST(e->id.channel != channel);
    MUST(!c->first);
    close(channel->fd);
    free(c);
    objects--;
    UNLOCKED;
}

/* Lock held. `parameters`: what the other end gave; NULL: nothing. */
static void tell(struct end *to, enum rdma_cm_event_type type, int status, const struct rdma_conn_param *parameters,
                 struct end *listener)
{
    if (faulty[type].lost > 0) {
        faulty[type].lost--;
        return;
    }
    struct told *t = calloc(1, sizeof *t);
    t->event = (struct rdma_cm_event){.id = &to->id, .listen_id = listener ? &listener->id : NULL, .event = type, .status = status};
    if (parameters) {
        t->event.param.conn = *parameters;
        memcpy(t->data, parameters->private_data, parameters->private_data_len);
        t->event.param.conn.private_data = t->data;
        t->event.param.conn.private_data_len = DATA; /* the kernel tells of all that fits */
    }
    if (faulty[type].forged > 0) faulty[type].forged--, t->data[7] ^= 0x10;
    if (faulty[type].replaced > 0) faulty[type].replaced--, t->event.status = faulty[type].status, t->event.event = faulty[type].instead;
    struct channel *c = channel_of(to);
    struct told **at = &c->first;
    while (*at) at = &(*at)->next;
    *at = t;
    MUST(eventfd_write(c->channel.fd, 1) == 0);
}

static int get_cm_event(struct rdma_event_channel *channel, struct rdma_cm_event **out)
{
    struct channel *c = (struct channel *)(void *)channel;
    eventfd_t one;
    LOCKED;
    int result = call("get_cm_event");
    if (result == 0) result = eventfd_read(channel->fd, &one);
    if (result == 0) {
        struct told *t = c->first;
        MUST(t);
        c->first = t->next;
        of(t->event.id)->to_acknowledge++;
        *out = &t->event;
    }
    UNLOCKED;
    return result;
}

static int ack_cm_event(struct rdma_cm_event *event)
{
    LOCKED;
    MUST(of(event->id)->to_acknowledge-- > 0);
    pthread_cond_broadcast(&changed);
    free((struct told *)(void *)event);
    UNLOCKED;
    return 0;
}

/* ---- ends ---- */

static struct end *make(struct rdma_event_channel *channel, void *context)
{
    struct end *e = calloc(1, sizeof *e);
    e->id.channel = channel, e->id.context = context, e->id.ps = RDMA_PS_TCP;
    e->device = -1;
    e->packet = ++packets & 0xffffff;
    e->next = ends;
    ends = e;
    objects++;
    return e;
}

static int create_id(struct rdma_event_channel *channel, struct rdma_cm_id **out, void *context, enum rdma_port_space space)
{
    LOCKED;
    MUST(space == RDMA_PS_TCP);
    int result = call("create_id");
    if (result == 0) *out = &make(channel, context)->id;
    UNLOCKED;
    return result;
}

/* What nobody will hear goes, with the ends that it would have brought. */
static void forget(struct end *e);
static void hush(struct channel *c, const struct end *e)
{
    for (struct told **at = &c->first; *at;) {
        struct told *t = *at;
        bool brings = t->event.event == RDMA_CM_EVENT_CONNECT_REQUEST && t->event.listen_id == &e->id;
        if (t->event.id != &e->id && !brings) {
            at = &t->next;
            continue;
        }
        eventfd_t one;
        *at = t->next;
        MUST(eventfd_read(c->channel.fd, &one) == 0);
        if (brings) forget(of(t->event.id));
        free(t);
        if (brings) at = &c->first;
    }
}

/* The other end hears of it. */
static void forget(struct end *e)
{
    struct end **at = &ends, *peer = e->peer;
    hush(channel_of(e), e);
    if (peer) {
        bool worked = peer->state == ESTABLISHED;
        peer->peer = NULL;
        if (peer->state != OVER) tell(peer, worked ? RDMA_CM_EVENT_DISCONNECTED : RDMA_CM_EVENT_REJECTED, worked ? 0 : STATUS_REFUSED, NULL, NULL);
        peer->state = OVER;
    }
    while (*at != e) at = &(*at)->next;
    *at = e->next;
    free(e);
    objects--;
}

static int destroy_id(struct rdma_cm_id *id)
{
    LOCKED;
    int result = call("destroy_id");
    while (result == 0 && of(id)->to_acknowledge > 0) pthread_cond_wait(&changed, &lock); /* as librdmacm does */
    if (result == 0) forget(of(id));
    UNLOCKED;
    return result;
}

static int bind_to(struct end *e, const struct sockaddr *address)
{
    const struct sockaddr_in *in = (const void *)address;
    uint32_t host = ntohl(in->sin_addr.s_addr);
    int device = (int)(host >> 8 & 0xff) - 1;
    errno = ENODEV;
    if (in->sin_family != AF_INET || host >> 16 != 0x7f00 || device < 0 || device >= DEVICES) return -1;
    contexts[device].device = fault_verbs_device(device);
    e->device = device;
    e->port = in->sin_port ? ntohs(in->sin_port) : (uint16_t)(20000 + ports++ % 20000);
    e->id.verbs = &contexts[device];
    e->id.port_num = 1;
    return 0;
}

static int bind_addr(struct rdma_cm_id *id, struct sockaddr *address)
{
    LOCKED;
    MUST(of(id)->state == IDLE);
    int result = call("bind_addr");
    if (result == 0) result = bind_to(of(id), address);
    if (result == 0) of(id)->state = BOUND;
    UNLOCKED;
    return result;
}

static int listen_on(struct rdma_cm_id *id, int backlog)
{
    LOCKED;
    MUST(of(id)->state == BOUND && backlog > 0);
    int result = call("listen");
    if (result == 0) of(id)->state = LISTENS;
    UNLOCKED;
    return result;
}

static uint16_t get_src_port(struct rdma_cm_id *id) { return htons(of(id)->port); }

/* ---- a connection ---- */

static int resolve_addr(struct rdma_cm_id *id, struct sockaddr *from, struct sockaddr *to, int timeout_ms)
{
    LOCKED;
    struct end *e = of(id);
    MUST(e->state == IDLE && timeout_ms > 0);
    int result = call("resolve_addr");
    if (result == 0) result = bind_to(e, from);
    if (result == 0) {
        memcpy(&e->to, to, sizeof e->to);
        e->state = ADDRESS;
        tell(e, RDMA_CM_EVENT_ADDR_RESOLVED, 0, NULL, NULL);
    }
    UNLOCKED;
    return result;
}

static int resolve_route(struct rdma_cm_id *id, int timeout_ms)
{
    LOCKED;
    MUST(of(id)->state == ADDRESS && timeout_ms > 0);
    int result = call("resolve_route");
    if (result == 0) {
        of(id)->state = ROUTE;
        tell(of(id), RDMA_CM_EVENT_ROUTE_RESOLVED, 0, NULL, NULL);
    }
    UNLOCKED;
    return result;
}

static struct end *listener_at(int device, uint16_t port)
{
    struct end *e = ends;
    while (e && !(e->state == LISTENS && e->device == device && (port == 0 || e->port == port))) e = e->next;
    return e;
}

/* A new end at the listener's, which is told. */
static struct end *knock(struct end *listener, const struct rdma_conn_param *shown)
{
    struct end *e = make(listener->id.channel, listener->id.context);
    e->device = listener->device, e->port = listener->port;
    e->id.verbs = listener->id.verbs, e->id.port_num = 1;
    e->state = ASKED;
    tell(e, RDMA_CM_EVENT_CONNECT_REQUEST, 0, shown, listener);
    return e;
}

static int connect_to(struct rdma_cm_id *id, struct rdma_conn_param *p)
{
    LOCKED;
    struct end *e = of(id);
    MUST(e->state == ROUTE && p->private_data_len <= DATA && p->qp_num != 0);
    int result = call("connect");
    struct end *listener = listener_at((int)(ntohl(e->to.sin_addr.s_addr) >> 8 & 0xff) - 1, ntohs(e->to.sin_port));
    if (result == 0) e->state = CONNECTING, e->queue_pair = p->qp_num;
    if (result == 0 && !listener) tell(e, RDMA_CM_EVENT_REJECTED, STATUS_NO_LISTENER, NULL, NULL);
    if (result == 0 && listener) {
        bool lost = faulty[RDMA_CM_EVENT_CONNECT_REQUEST].lost > 0;
        e->peer = knock(listener, p);
        e->peer->peer = e;
        if (lost) { /* it never came: nobody is there */
            e->peer->peer = NULL;
            forget(e->peer);
            e->peer = NULL;
        }
    }
    UNLOCKED;
    return result;
}

static bool is_iwarp(const struct end *e) { return fault_verbs_device(e->device)->transport_type == IBV_TRANSPORT_IWARP; }

static int accept_it(struct rdma_cm_id *id, struct rdma_conn_param *p)
{
    LOCKED;
    struct end *e = of(id), *peer = e->peer;
    MUST((e->state == ASKED || e->state == OVER) && p->private_data_len <= DATA && p->qp_num != 0);
    int result = call("accept");
    errno = result == 0 && !peer ? ENOTCONN : errno;
    if (!peer) result = -1;
    if (result == 0) {
        e->queue_pair = p->qp_num;
        e->state = ACCEPTED, peer->state = ANSWERED;
        if (!is_iwarp(e)) {
            tell(peer, RDMA_CM_EVENT_CONNECT_RESPONSE, 0, p, NULL);
        } else if (fault_verbs_join(e->queue_pair, peer->queue_pair)) {
            e->state = peer->state = ESTABLISHED;
            tell(e, RDMA_CM_EVENT_ESTABLISHED, 0, NULL, NULL);
            tell(peer, RDMA_CM_EVENT_ESTABLISHED, 0, p, NULL);
        }
    }
    UNLOCKED;
    return result;
}

static int reject(struct rdma_cm_id *id, const void *data, uint8_t bytes)
{
    LOCKED;
    MUST(!data && bytes == 0);
    struct end *e = of(id);
    int result = call("reject");
    if (result == 0 && e->peer) {
        e->peer->peer = NULL;
        e->peer->state = OVER;
        tell(e->peer, RDMA_CM_EVENT_REJECTED, STATUS_REFUSED, NULL, NULL);
        e->peer = NULL;
    }
    e->state = OVER;
    UNLOCKED;
    return result;
}

static int establish(struct rdma_cm_id *id)
{
    LOCKED;
    struct end *e = of(id);
    MUST(e->state == ANSWERED || e->state == OVER);
    int result = call("establish");
    errno = result == 0 && !e->peer ? ENOTCONN : errno;
    if (!e->peer) result = -1;
    if (result == 0) {
        e->state = e->peer->state = ESTABLISHED;
        tell(e->peer, RDMA_CM_EVENT_ESTABLISHED, 0, NULL, NULL);
    }
    UNLOCKED;
    return result;
}

/* As the kernel has them: timeouts and the like are its own, to be replaced by the caller's. */
static int init_qp_attr(struct rdma_cm_id *id, struct ibv_qp_attr *a, int *mask)
{
    LOCKED;
    struct end *e = of(id);
    MUST(a->qp_state == IBV_QPS_RTR || a->qp_state == IBV_QPS_RTS);
    int result = call("init_qp_attr");
    errno = result == 0 && !e->peer ? EINVAL : errno;
    if (!e->peer) result = -1;
    if (result == 0 && a->qp_state == IBV_QPS_RTR) {
        *mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
                IBV_QP_MIN_RNR_TIMER;
        a->path_mtu = IBV_MTU_4096, a->dest_qp_num = e->peer->queue_pair, a->rq_psn = e->peer->packet;
        a->ah_attr = (struct ibv_ah_attr){.is_global = 1, .port_num = 1, .grh = {.sgid_index = 3, .hop_limit = 64}};
    } else if (result == 0) {
        *mask = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;
        a->timeout = 18, a->retry_cnt = 7, a->sq_psn = e->packet;
    }
    UNLOCKED;
    return result;
}

/* ---- from outside ---- */

void fault_rdmacm_event(int device, enum rdma_cm_event_type type)
{
    LOCKED;
    for (struct end *e = ends; e; e = e->next)
        if (e->device == device) tell(e, type, 0, NULL, NULL);
    UNLOCKED;
}

int fault_rdmacm_stranger(int device, const void *shown, uint8_t bytes)
{
    struct rdma_conn_param p = {.private_data = shown, .private_data_len = bytes, .qp_num = 0x777};
    int n = 0;
    LOCKED;
    for (struct end *e = ends, *next; e; e = next) {
        next = e->next;
        if (e->state == LISTENS && e->device == device) n++, (void)knock(e, &p);
    }
    UNLOCKED;
    return n;
}

static const struct rdmacm functions = {
    .create_event_channel = create_event_channel,
    .destroy_event_channel = destroy_event_channel,
    .create_id = create_id,
    .destroy_id = destroy_id,
    .bind_addr = bind_addr,
    .listen = listen_on,
    .get_src_port = get_src_port,
    .resolve_addr = resolve_addr,
    .resolve_route = resolve_route,
    .connect = connect_to,
    .accept = accept_it,
    .reject = reject,
    .establish = establish,
    .init_qp_attr = init_qp_attr,
    .get_cm_event = get_cm_event,
    .ack_cm_event = ack_cm_event,
};

void fault_rdmacm_install(void)
{
    LOCKED;
    MUST(objects == 0);
    memset(&fault, 0, sizeof fault);
    memset(counted, 0, sizeof counted);
    memset(faulty, 0, sizeof faulty);
    hanging = NULL;
    UNLOCKED;
    rdmacm_replace(&functions);
}

#endif
