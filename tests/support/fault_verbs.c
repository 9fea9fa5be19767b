/* fault_verbs.c - RDMA devices in memory (fault_verbs.h). One lock protects all of it. */
#include "support/fault_verbs.h"

#ifdef RAIL_HAVE_VERBS
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { DEVICES = 16, QPS = 512, SENDS = 256, CALLS = 32, EVENTS = 1024, GIDS = 2 };

#define MUST(condition) do { if (!(condition)) { fprintf(stderr, "fault_verbs: %s:%d: %s\n", __FILE__, __LINE__, #condition); abort(); } } while (0)

struct fake_device {
    struct ibv_device device;
    char name[16];
    bool held, late, loses, down, infiniband;
    int family;
    struct ibv_ece ece;
};

struct fake_context {
    struct ibv_context context;
    struct fake_device *at;
    struct fake_context *next;
    struct ibv_async_event events[EVENTS];
    int n_events, objects, to_acknowledge;
};

struct fake_mr { struct ibv_mr mr; int access; struct fake_mr *next; };

struct fake_channel { struct ibv_comp_channel channel; struct ibv_cq *events[EVENTS]; int n_events, queues; };

struct fake_cq {
    struct ibv_cq cq;
    struct ibv_wc *wc;
    int first, count, room, users, to_acknowledge;
    bool armed;
};

struct fake_send { uint64_t id, to; uint32_t rkey, immediate; int opcode, flags, n_sge; struct ibv_sge sge[2]; uint8_t inlined[512]; uint8_t *on_wire; };

struct fake_qp {
    struct ibv_qp qp;
    struct fake_qp *next;
    uint32_t peer, rq_psn, sq_psn;
    int receives, receive_room, send_room;
    struct fake_send sends[SENDS]; /* posted, not carried out */
    int first, count;
    int incomplete;                /* posted, and not known to be done by a completion */
    int to_acknowledge;            /* events */
    uint32_t flow_label;
    uint64_t bytes;
    struct ibv_ece ece; /* set */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fake_device devices[DEVICES];
static struct fake_context *contexts;
static struct fake_qp *qps;
static struct fake_mr *mrs;
static uint32_t numbers;
static struct fault_verbs_figures figures;
static int registered;

/* ---- faults ---- */

static struct { const char *name; int calls; } counted[CALLS];
static struct { const char *name; int after, times, error; } fault;
static int all_calls;
static const char *hanging;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER; /* let go, or acknowledged */

/* 0, or the error that this call has to fail with. Lock held. */
static int call(const char *name)
{
    int i = 0;
    while (counted[i].name && strcmp(counted[i].name, name) != 0) i++;
    MUST(i < CALLS - 1);
    counted[i].name = name;
    counted[i].calls++;
    all_calls++;
    while (hanging && strcmp(hanging, name) == 0) pthread_cond_wait(&changed, &lock);
    if (fault.times == 0 || (fault.name && strcmp(fault.name, name) != 0)) return 0;
    if (fault.after > 0) return fault.after--, 0;
    fault.times--;
    return errno = fault.error;
}

#define LOCKED pthread_mutex_lock(&lock)
#define UNLOCKED pthread_mutex_unlock(&lock)

void fault_verbs_fail(const char *name, int after, int times, int error)
{
    LOCKED;
    fault.name = name, fault.after = after, fault.times = times, fault.error = error;
    UNLOCKED;
}

void fault_verbs_hang(const char *name)
{
    LOCKED;
    hanging = name;
    pthread_cond_broadcast(&changed);
    UNLOCKED;
}

int fault_verbs_calls(const char *name)
{
    int n = 0;
    LOCKED;
    for (int i = 0; counted[i].name; i++)
        if (name && strcmp(counted[i].name, name) == 0) n = counted[i].calls;
    if (!name) n = all_calls;
    UNLOCKED;
    return n;
}

/* ---- devices ---- */

static int fork_init(void) { return 0; }
static _Atomic int forks = 2; /* IBV_FORK_UNNEEDED */
static int is_fork_initialized(void) { return forks; }
void fault_verbs_forks(bool keep_memory) { forks = keep_memory ? 2 : 1; }

static struct ibv_device **get_device_list(int *n)
{
    LOCKED;
    int error = call("get_device_list");
    UNLOCKED;
    if (error) return NULL;
    struct ibv_device **list = calloc(DEVICES + 1, sizeof *list);
    for (int i = 0; i < DEVICES; i++) list[i] = &devices[i].device;
    *n = DEVICES;
    return list;
}

static void free_device_list(struct ibv_device **list) { free(list); }
static const char *get_device_name(struct ibv_device *d) { return ((struct fake_device *)(void *)d)->name; }

static struct fake_context *of_context(struct ibv_context *c) { return (struct fake_context *)(void *)c; }

static struct ibv_context *open_device(struct ibv_device *d)
{
    struct fake_context *c = NULL;
    LOCKED;
    if (!call("open_device")) {
        c = calloc(1, sizeof *c);
        c->at = (struct fake_device *)(void *)d;
        c->context.device = d;
        c->context.cmd_fd = -1;
        c->context.async_fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
        c->next = contexts;
        contexts = c;
        figures.objects++;
    }
    UNLOCKED;
    return c ? &c->context : NULL;
}

static int close_device(struct ibv_context *context)
{
    LOCKED;
    struct fake_context *c = of_context(context), **at = &contexts;
    MUST(c->to_acknowledge == 0);
    if (c->objects > 0) {
        UNLOCKED;
        return EBUSY;
    }
    while (*at != c) at = &(*at)->next;
    *at = c->next;
    close(context->async_fd);
    free(c);
    figures.objects--;
    UNLOCKED;
    return 0;
}

static int query_device(struct ibv_context *c, struct ibv_device_attr *out)
{
    (void)c;
    memset(out, 0, sizeof *out);
    return 0;
}

static int query_port(struct ibv_context *c, uint8_t port, struct ibv_port_attr *out)
{
    LOCKED;
    int error = call("query_port");
    if (!error) {
        MUST(port == 1);
        out->state = of_context(c)->at->down ? IBV_PORT_DOWN : IBV_PORT_ACTIVE;
        out->active_mtu = IBV_MTU_4096;
        out->link_layer = of_context(c)->at->infiniband ? IBV_LINK_LAYER_INFINIBAND : IBV_LINK_LAYER_ETHERNET;
    }
    UNLOCKED;
    return error;
}

static int gids(const char *name, int port, struct ibverbs_gid *out, int room)
{
    int i = atoi(name + strlen("fault"));
    LOCKED;
    int family = devices[i].family;
    UNLOCKED;
    MUST(port == 1 && room >= GIDS);
    if (family == 0) return 0;
    out[0] = (struct ibverbs_gid){{0xfe, 0x80, [15] = (uint8_t)(i + 1)}, 0, IBVERBS_GID_ROCE_V2};
    out[1] = (struct ibverbs_gid){{[10] = 0xff, 0xff, 127, 0, (uint8_t)(i + 1), 1}, 3, IBVERBS_GID_ROCE_V2};
    if (family == 6) out[1] = (struct ibverbs_gid){{0x20, 0x01, [15] = (uint8_t)(i + 1)}, 3, IBVERBS_GID_ROCE_V2};
    return GIDS;
}

static void raise_event(struct fake_context *c, struct ibv_async_event event)
{
    MUST(c->n_events < EVENTS);
    c->events[c->n_events++] = event;
    MUST(eventfd_write(c->context.async_fd, 1) == 0);
}

static int get_async_event(struct ibv_context *context, struct ibv_async_event *out)
{
    eventfd_t one;
    if (eventfd_read(context->async_fd, &one) != 0) return -1;
    LOCKED;
    struct fake_context *c = of_context(context);
    MUST(c->n_events > 0);
    *out = c->events[0];
    memmove(c->events, c->events + 1, (size_t)--c->n_events * sizeof *c->events);
    c->to_acknowledge++;
    if (out->event_type == IBV_EVENT_QP_FATAL) ((struct fake_qp *)(void *)out->element.qp)->to_acknowledge++;
    UNLOCKED;
    return 0;
}

static struct fake_context *context_of_event(const struct ibv_async_event *e)
{
    if (e->event_type == IBV_EVENT_QP_FATAL) return of_context(e->element.qp->context);
    return NULL;
}

static void ack_async_event(struct ibv_async_event *event)
{
    LOCKED;
    struct fake_context *c = context_of_event(event);
    for (struct fake_context *i = contexts; i && !c; i = i->next)
        if (i->to_acknowledge > 0) c = i;
    MUST(c && c->to_acknowledge > 0);
    c->to_acknowledge--;
    if (event->event_type == IBV_EVENT_QP_FATAL) ((struct fake_qp *)(void *)event->element.qp)->to_acknowledge--;
    pthread_cond_broadcast(&changed);
    UNLOCKED;
}

void fault_verbs_event(int device, enum ibv_event_type type)
{
    LOCKED;
    for (struct fake_context *c = contexts; c; c = c->next) {
        if (c->at != &devices[device]) continue;
        struct ibv_async_event event = {.event_type = type, .element.port_num = 1};
        if (type != IBV_EVENT_QP_FATAL) raise_event(c, event);
        for (struct fake_qp *q = qps; q && type == IBV_EVENT_QP_FATAL; q = q->next)
            if (q->qp.context == &c->context) event.element.qp = &q->qp, raise_event(c, event);
    }
    UNLOCKED;
}

void fault_verbs_port(int device, bool active)
{
    LOCKED;
    devices[device].down = !active;
    UNLOCKED;
    fault_verbs_event(device, active ? IBV_EVENT_PORT_ACTIVE : IBV_EVENT_PORT_ERR);
}

void fault_verbs_infiniband(int device, bool infiniband)
{
    LOCKED;
    devices[device].infiniband = infiniband;
    UNLOCKED;
}

void fault_verbs_iwarp(int device, bool iwarp)
{
    LOCKED;
    devices[device].device.transport_type = iwarp ? IBV_TRANSPORT_IWARP : IBV_TRANSPORT_IB;
    devices[device].device.node_type = iwarp ? IBV_NODE_RNIC : IBV_NODE_CA;
    UNLOCKED;
}

struct ibv_device *fault_verbs_device(int device) { return &devices[device].device; }

void fault_verbs_family(int device, int family)
{
    LOCKED;
    devices[device].family = family;
    UNLOCKED;
}

/* ---- objects ---- */

static void begins(struct ibv_context *c) { of_context(c)->objects++, figures.objects++; }
static void ends(struct ibv_context *c) { of_context(c)->objects--, figures.objects--; }

static struct ibv_pd *alloc_pd(struct ibv_context *context)
{
    struct ibv_pd *pd = NULL;
    LOCKED;
    if (!call("alloc_pd")) {
        pd = calloc(1, sizeof *pd);
        pd->context = context;
        begins(context);
    }
    UNLOCKED;
    return pd;
}

static int dealloc_pd(struct ibv_pd *pd)
{
    LOCKED;
    bool used = false;
    for (struct fake_mr *m = mrs; m; m = m->next) used |= m->mr.pd == pd;
    for (struct fake_qp *q = qps; q; q = q->next) used |= q->qp.pd == pd;
    if (!used) ends(pd->context);
    if (!used) free(pd);
    UNLOCKED;
    return used ? EBUSY : 0;
}

static bool is_read_only(const struct fake_mr *m) { return (m->access & ~IBV_ACCESS_RELAXED_ORDERING) == 0; }

static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *base, size_t bytes, int access)
{
    struct fake_mr *m = NULL;
    LOCKED;
    if (!call("reg_mr")) {
        m = calloc(1, sizeof *m);
        m->mr = (struct ibv_mr){.context = pd->context, .pd = pd, .addr = base, .length = bytes, .lkey = ++numbers};
        m->mr.rkey = m->mr.lkey ^ 0x5a000000;
        m->access = access;
        m->next = mrs;
        mrs = m;
        begins(pd->context);
        figures.relaxed += (access & IBV_ACCESS_RELAXED_ORDERING) != 0;
        figures.read_only += is_read_only(m);
        if (++registered > figures.registered_most) figures.registered_most = registered;
    }
    UNLOCKED;
    return m ? &m->mr : NULL;
}

static int dereg_mr(struct ibv_mr *mr)
{
    LOCKED;
    struct fake_mr *m = (struct fake_mr *)(void *)mr, **at = &mrs;
    int error = call("dereg_mr");
    if (!error) {
        while (*at != m) at = &(*at)->next;
        *at = m->next;
        registered--;
        figures.relaxed -= (m->access & IBV_ACCESS_RELAXED_ORDERING) != 0;
        figures.read_only -= is_read_only(m);
        ends(mr->context);
        free(m);
    }
    UNLOCKED;
    return error;
}

static struct ibv_mr *reg_mr_iova2(struct ibv_pd *pd, void *base, size_t bytes, uint64_t seen_at, unsigned access)
{
    MUST(seen_at == (uintptr_t)base);
    LOCKED;
    int error = call("reg_mr_iova2");
    UNLOCKED;
    return error ? NULL : reg_mr(pd, base, bytes, (int)access);
}

static struct ibv_comp_channel *create_comp_channel(struct ibv_context *context)
{
    struct fake_channel *c = NULL;
    LOCKED;
    if (!call("create_comp_channel")) {
        c = calloc(1, sizeof *c);
        c->channel.context = context;
        c->channel.fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
        begins(context);
    }
    UNLOCKED;
    return c ? &c->channel : NULL;
}

static int destroy_comp_channel(struct ibv_comp_channel *channel)
{
    LOCKED;
    struct fake_channel *c = (struct fake_channel *)(void *)channel;
    if (c->queues > 0) {
        UNLOCKED;
        return EBUSY;
    }
    close(channel->fd);
    ends(channel->context);
    free(c);
    UNLOCKED;
    return 0;
}

static struct fake_cq *of_cq(struct ibv_cq *cq) { return (struct fake_cq *)(void *)cq; }

static struct ibv_cq *create_cq(struct ibv_context *context, int entries, void *user, struct ibv_comp_channel *channel,
                                int vector)
{
    struct fake_cq *c = NULL;
    (void)vector;
    LOCKED;
    if (!call("create_cq")) {
        c = calloc(1, sizeof *c);
        c->cq.context = context, c->cq.cq_context = user, c->cq.channel = channel;
        c->room = entries;
        c->wc = calloc((size_t)entries, sizeof *c->wc);
        ((struct fake_channel *)(void *)channel)->queues++;
        begins(context);
    }
    UNLOCKED;
    return c ? &c->cq : NULL;
}

static int destroy_cq(struct ibv_cq *cq)
{
    LOCKED;
    struct fake_cq *c = of_cq(cq);
    struct fake_channel *channel = (struct fake_channel *)(void *)cq->channel;
    if (c->users > 0) {
        UNLOCKED;
        return EBUSY;
    }
    MUST(c->to_acknowledge == 0); /* libibverbs would wait for ever */
    for (int i = 0; i < channel->n_events;) { /* events that nobody took go with it */
        if (channel->events[i] != cq) { i++; continue; }
        memmove(&channel->events[i], &channel->events[i + 1], (size_t)(--channel->n_events - i) * sizeof *channel->events);
        eventfd_t one;
        MUST(eventfd_read(channel->channel.fd, &one) == 0);
    }
    channel->queues--;
    ends(cq->context);
    free(c->wc);
    free(c);
    UNLOCKED;
    return 0;
}

static int get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **user)
{
    eventfd_t one;
    struct fake_channel *c = (struct fake_channel *)(void *)channel;
    LOCKED;
    int result = eventfd_read(channel->fd, &one);
    if (result == 0) {
        MUST(c->n_events > 0);
        *cq = c->events[0];
        memmove(c->events, c->events + 1, (size_t)--c->n_events * sizeof *c->events);
        *user = (*cq)->cq_context;
        of_cq(*cq)->to_acknowledge++;
    }
    UNLOCKED;
    return result;
}

static void ack_cq_events(struct ibv_cq *cq, unsigned n)
{
    LOCKED;
    of_cq(cq)->to_acknowledge -= (int)n;
    UNLOCKED;
}

static int req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
    LOCKED;
    int error = call("req_notify_cq");
    MUST(!solicited_only);
    if (!error) of_cq(cq)->armed = true;
    UNLOCKED;
    return error;
}

/* ---- completions ---- */

static void complete(struct ibv_cq *cq, const struct ibv_wc *wc)
{
    struct fake_cq *c = of_cq(cq);
    MUST(c->count < c->room);
    c->wc[(c->first + c->count++) % c->room] = *wc;
    if (!c->armed) return;
    struct fake_channel *channel = (struct fake_channel *)(void *)cq->channel;
    c->armed = false;
    MUST(channel->n_events < EVENTS);
    channel->events[channel->n_events++] = cq;
    MUST(eventfd_write(channel->channel.fd, 1) == 0);
}

static struct fake_device *device_of(const struct fake_qp *q) { return of_context(q->qp.context)->at; }

static void sent(struct fake_qp *q, struct fake_send *s, enum ibv_wc_status status)
{
    free(s->on_wire);
    s->on_wire = NULL;
    if (status == IBV_WC_SUCCESS && (!(s->flags & IBV_SEND_SIGNALED) || device_of(q)->loses)) return;
    struct ibv_wc wc = {.wr_id = s->id, .status = status, .opcode = IBV_WC_RDMA_WRITE, .qp_num = q->qp.qp_num};
    complete(q->qp.send_cq, &wc);
}

static void to_error(struct fake_qp *q)
{
    if (q->qp.state == IBV_QPS_ERR) return;
    q->qp.state = IBV_QPS_ERR;
    for (; q->count > 0; q->count--, q->first = (q->first + 1) % SENDS) sent(q, &q->sends[q->first], IBV_WC_WR_FLUSH_ERR);
    for (; q->receives > 0; q->receives--) {
        struct ibv_wc wc = {.status = IBV_WC_WR_FLUSH_ERR, .qp_num = q->qp.qp_num};
        complete(q->qp.recv_cq, &wc);
    }
}

static int poll_cq(struct ibv_cq *cq, int room, struct ibv_wc *out)
{
    LOCKED;
    struct fake_cq *c = of_cq(cq);
    int n = 0;
    if (call("poll_cq")) n = -1;
    for (; n >= 0 && n < room && c->count > 0; n++, c->count--, c->first = (c->first + 1) % c->room) out[n] = c->wc[c->first];
    UNLOCKED;
    return n;
}

/* ---- queue pairs ---- */

static struct fake_qp *of_qp(struct ibv_qp *qp) { return (struct fake_qp *)(void *)qp; }

static struct ibv_qp *create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *a)
{
    struct fake_qp *q = NULL;
    LOCKED;
    if (!call("create_qp")) {
        MUST(a->qp_type == IBV_QPT_RC && a->cap.max_send_wr <= SENDS && a->cap.max_inline_data <= 512);
        q = calloc(1, sizeof *q);
        q->qp.context = pd->context, q->qp.pd = pd, q->qp.qp_context = a->qp_context;
        q->qp.send_cq = a->send_cq, q->qp.recv_cq = a->recv_cq, q->qp.state = IBV_QPS_RESET;
        q->qp.qp_num = ++numbers & 0xffffff;
        q->receive_room = (int)a->cap.max_recv_wr, q->send_room = (int)a->cap.max_send_wr;
        of_cq(a->send_cq)->users++, of_cq(a->recv_cq)->users++;
        q->next = qps;
        qps = q;
        begins(pd->context);
    }
    UNLOCKED;
    return q ? &q->qp : NULL;
}

static int destroy_qp(struct ibv_qp *qp)
{
    LOCKED;
    struct fake_qp *q = of_qp(qp), **at = &qps;
    int error = call("destroy_qp");
    if (!error) {
        while (q->to_acknowledge > 0) pthread_cond_wait(&changed, &lock); /* as libibverbs does */
        while (*at != q) at = &(*at)->next;
        *at = q->next;
        struct fake_context *c = of_context(qp->context); /* its events go with it */
        for (int i = 0; i < c->n_events;) {
            if (c->events[i].event_type != IBV_EVENT_QP_FATAL || c->events[i].element.qp != qp) { i++; continue; }
            memmove(&c->events[i], &c->events[i + 1], (size_t)(--c->n_events - i) * sizeof *c->events);
            eventfd_t one;
            MUST(eventfd_read(c->context.async_fd, &one) == 0);
        }
        of_cq(qp->send_cq)->users--, of_cq(qp->recv_cq)->users--;
        ends(qp->context);
        for (int i = 0; i < SENDS; i++) free(q->sends[i].on_wire);
        free(q);
    }
    UNLOCKED;
    return error;
}

static int modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask)
{
    static const int needed[] = {
        [IBV_QPS_INIT] = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS,
        [IBV_QPS_RTR] = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                        IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
        [IBV_QPS_RTS] = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                        IBV_QP_MAX_QP_RD_ATOMIC,
        [IBV_QPS_ERR] = IBV_QP_STATE,
    };
    static const enum ibv_qp_state before[] = {[IBV_QPS_INIT] = IBV_QPS_RESET, [IBV_QPS_RTR] = IBV_QPS_INIT,
                                               [IBV_QPS_RTS] = IBV_QPS_RTR};
    LOCKED;
    struct fake_qp *q = of_qp(qp);
    int error = call("modify_qp");
    if (!error && a->qp_state == IBV_QPS_ERR) {
        to_error(q);
    } else if (!error) {
        bool iwarp = device_of(q)->device.transport_type == IBV_TRANSPORT_IWARP;
        MUST(!iwarp || a->qp_state == IBV_QPS_INIT); /* the rest is its driver's */
        MUST(mask == (needed[a->qp_state] & ~(iwarp ? IBV_QP_PKEY_INDEX : 0)));
        if (qp->state != before[a->qp_state]) error = EINVAL;
        else qp->state = a->qp_state;
        if (a->qp_state == IBV_QPS_RTR) {
            q->peer = a->dest_qp_num, q->rq_psn = a->rq_psn, q->flow_label = a->ah_attr.grh.flow_label;
            MUST(a->ah_attr.is_global && a->ah_attr.grh.hop_limit > 0);
        }
        if (a->qp_state == IBV_QPS_RTS) q->sq_psn = a->sq_psn;
    }
    UNLOCKED;
    return error;
}

static struct fake_qp *numbered(uint32_t number)
{
    struct fake_qp *q = qps;
    while (q && q->qp.qp_num != number) q = q->next;
    return q;
}

bool fault_verbs_join(uint32_t one, uint32_t other)
{
    LOCKED;
    struct fake_qp *q[2] = {numbered(one), numbered(other)};
    bool both = q[0] && q[1] && q[0]->qp.state == IBV_QPS_INIT && q[1]->qp.state == IBV_QPS_INIT;
    for (int i = 0; both && i < 2; i++) q[i]->qp.state = IBV_QPS_RTS, q[i]->peer = q[1 - i]->qp.qp_num;
    UNLOCKED;
    return both;
}

/* ---- enhanced connections ---- */

void fault_verbs_ece(int device, uint32_t vendor, uint32_t options)
{
    LOCKED;
    devices[device].ece = (struct ibv_ece){.vendor_id = vendor, .options = options};
    UNLOCKED;
}

/* What was set, else what the device knows. */
static int query_ece(struct ibv_qp *qp, struct ibv_ece *out)
{
    LOCKED;
    const struct fake_qp *q = of_qp(qp);
    struct ibv_ece known = of_context(qp->context)->at->ece;
    int error = call("query_ece");
    if (!error && known.vendor_id == 0) error = EOPNOTSUPP;
    if (!error) *out = q->ece.vendor_id ? q->ece : known;
    UNLOCKED;
    return error;
}

/* Before RTR, of the same vendor; what the device does not know of it falls away. */
static int set_ece(struct ibv_qp *qp, struct ibv_ece *ece)
{
    LOCKED;
    struct fake_qp *q = of_qp(qp);
    struct ibv_ece known = of_context(qp->context)->at->ece;
    int error = call("set_ece");
    MUST(qp->state == IBV_QPS_INIT && ece->vendor_id != 0);
    if (!error && (known.vendor_id != ece->vendor_id || ece->comp_mask != 0)) error = EINVAL;
    if (!error) q->ece = (struct ibv_ece){.vendor_id = ece->vendor_id, .options = ece->options & known.options};
    UNLOCKED;
    return error;
}

static int post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
    LOCKED;
    struct fake_qp *q = of_qp(qp);
    int error = call("post_recv");
    MUST(qp->state != IBV_QPS_RESET);
    for (; wr && !error; wr = wr->next) {
        MUST(q->receives < q->receive_room && wr->num_sge == 0);
        if (qp->state != IBV_QPS_ERR) q->receives++;
    }
    *bad = wr;
    UNLOCKED;
    return error;
}

/* ---- carrying out ---- */

static struct fake_mr *covering(uint32_t key, bool remote, uint64_t at, uint64_t bytes, const struct ibv_pd *pd)
{
    for (struct fake_mr *m = mrs; m; m = m->next)
        if ((remote ? m->mr.rkey : m->mr.lkey) == key && m->mr.pd == pd && at >= (uintptr_t)m->mr.addr &&
            at + bytes <= (uintptr_t)m->mr.addr + m->mr.length && (!remote || (m->access & IBV_ACCESS_REMOTE_WRITE)))
            return m;
    return NULL;
}

static struct fake_qp *peer_of(const struct fake_qp *q)
{
    for (struct fake_qp *p = qps; p; p = p->next)
        if (p->qp.qp_num == q->peer) return p->qp.state == IBV_QPS_RTR || p->qp.state == IBV_QPS_RTS ? p : NULL;
    return NULL;
}

/* False: not now. */
static void gather(const struct fake_qp *q, const struct fake_send *s, uint8_t *to)
{
    for (int i = 0; i < s->n_sge; i++) {
        bool inlined = (s->flags & IBV_SEND_INLINE) != 0;
        const struct fake_mr *m = inlined ? NULL : covering(s->sge[i].lkey, false, s->sge[i].addr, s->sge[i].length, q->qp.pd);
        MUST(inlined || m);
        if (m && is_read_only(m)) figures.read_only_bytes += s->sge[i].length;
        memcpy(to, inlined ? s->inlined : (const void *)(uintptr_t)s->sge[i].addr, s->sge[i].length);
        to += s->sge[i].length;
    }
}

static uint64_t bytes_of(const struct fake_send *s)
{
    uint64_t bytes = 0;
    for (int i = 0; i < s->n_sge; i++) bytes += s->sge[i].length;
    return bytes;
}

static bool carry_out(struct fake_qp *q, struct fake_send *s)
{
    struct fake_qp *p = peer_of(q);
    uint64_t bytes = bytes_of(s);
    if (!p || device_of(q)->held || device_of(p)->held || device_of(q)->down || device_of(p)->down) return false;
    MUST(p->peer == q->qp.qp_num && p->rq_psn == q->sq_psn);
    bool immediate = s->opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
    if (immediate && p->receives == 0) {
        figures.not_ready++;
        return false;
    }
    if (bytes > 0 && !covering(s->rkey, true, s->to, bytes, p->qp.pd)) {
        sent(q, s, IBV_WC_REM_ACCESS_ERR);
        q->count--, q->first = (q->first + 1) % SENDS;
        to_error(q);
        to_error(p);
        return false;
    }
    if (s->on_wire) memcpy((void *)(uintptr_t)s->to, s->on_wire, bytes);
    else gather(q, s, (uint8_t *)(uintptr_t)s->to);
    figures.bytes += bytes;
    q->bytes += bytes;
    figures.plain += !immediate && bytes > 0;
    if (immediate && bytes > figures.immediate_most) figures.immediate_most = bytes;
    if (immediate) {
        struct ibv_wc wc = {.status = IBV_WC_SUCCESS, .opcode = IBV_WC_RECV_RDMA_WITH_IMM, .wc_flags = IBV_WC_WITH_IMM,
                            .byte_len = (uint32_t)bytes, .imm_data = s->immediate, .qp_num = p->qp.qp_num};
        p->receives--;
        complete(p->qp.recv_cq, &wc);
    }
    sent(q, s, IBV_WC_SUCCESS);
    return true;
}

static void carry_on(struct fake_qp *q)
{
    while (q->count > 0 && q->qp.state == IBV_QPS_RTS && carry_out(q, &q->sends[q->first]))
        q->count--, q->first = (q->first + 1) % SENDS;
}

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
    LOCKED;
    struct fake_qp *q = of_qp(qp);
    int error = call("post_send");
    MUST(qp->state == IBV_QPS_RTS || qp->state == IBV_QPS_ERR);
    for (; wr && !error; wr = wr->next) {
        MUST(q->count < q->send_room && wr->num_sge <= 2);
        struct fake_send *s = &q->sends[(q->first + q->count++) % SENDS];
        *s = (struct fake_send){.id = wr->wr_id, .to = wr->wr.rdma.remote_addr, .rkey = wr->wr.rdma.rkey, .immediate = wr->imm_data,
                                .opcode = (int)wr->opcode, .flags = (int)wr->send_flags, .n_sge = wr->num_sge};
        for (int i = 0; i < wr->num_sge; i++) s->sge[i] = wr->sg_list[i];
        if (s->flags & IBV_SEND_INLINE) {
            MUST(s->n_sge == 1 && s->sge[0].length <= sizeof s->inlined);
            memcpy(s->inlined, (const void *)(uintptr_t)s->sge[0].addr, s->sge[0].length);
        }
        figures.requests++;
        figures.signalled += (s->flags & IBV_SEND_SIGNALED) != 0;
        if (device_of(q)->late && (s->on_wire = malloc(bytes_of(s) + 1))) gather(q, s, s->on_wire);
        if (qp->state == IBV_QPS_ERR) sent(q, s, IBV_WC_WR_FLUSH_ERR), q->count--;
    }
    *bad = wr;
    carry_on(q);
    UNLOCKED;
    return error;
}

static bool is_of(const struct fake_qp *q, int device) { return device < 0 || device_of(q) == &devices[device]; }

void fault_verbs_hold(int device, bool held)
{
    LOCKED;
    for (int i = 0; i < DEVICES; i++)
        if (device < 0 || device == i) devices[i].held = held;
    for (struct fake_qp *q = qps; q && !held; q = q->next) carry_on(q);
    UNLOCKED;
}

void fault_verbs_delay(int device, bool delayed)
{
    LOCKED;
    devices[device].late = delayed;
    UNLOCKED;
    fault_verbs_hold(device, delayed);
}

void fault_verbs_lose_completions(int device, bool lost)
{
    LOCKED;
    for (int i = 0; i < DEVICES; i++)
        if (device < 0 || device == i) devices[i].loses = lost;
    UNLOCKED;
}

void fault_verbs_give_up(int device)
{
    LOCKED;
    for (struct fake_qp *q = qps; q; q = q->next) {
        if (!is_of(q, device) || q->qp.state != IBV_QPS_RTS) continue;
        if (q->count > 0) {
            sent(q, &q->sends[q->first], IBV_WC_RETRY_EXC_ERR);
            q->count--, q->first = (q->first + 1) % SENDS;
        }
        to_error(q);
    }
    UNLOCKED;
}

static uint64_t read_only_out(const struct fake_qp *q, const struct fake_send *s)
{
    uint64_t bytes = 0;
    for (int i = 0; i < s->n_sge && !(s->flags & IBV_SEND_INLINE) && !s->on_wire; i++) {
        const struct fake_mr *m = covering(s->sge[i].lkey, false, s->sge[i].addr, s->sge[i].length, q->qp.pd);
        if (m && is_read_only(m)) bytes += s->sge[i].length;
    }
    return bytes;
}

struct fault_verbs_figures fault_verbs_figures(void)
{
    LOCKED;
    struct fault_verbs_figures f = figures;
    f.registered = registered;
    for (const struct fake_qp *q = qps; q; q = q->next)
        for (int i = 0; i < q->count; i++) f.read_only_out += read_only_out(q, &q->sends[(q->first + i) % SENDS]);
    UNLOCKED;
    return f;
}

int fault_verbs_qps(struct fault_verbs_qp *out, int room)
{
    int n = 0;
    LOCKED;
    for (const struct fake_qp *q = qps; q; q = q->next) {
        if (q->qp.state != IBV_QPS_RTS) continue;
        int device = (int)(device_of(q) - devices);
        if (n < room)
            out[n] = (struct fault_verbs_qp){device,   q->qp.qp_num,     q->peer,       q->flow_label,
                                             q->bytes, q->ece.vendor_id, q->ece.options};
        n++;
    }
    UNLOCKED;
    return n;
}

static const struct ibverbs functions = {
    .reg_mr_iova2 = reg_mr_iova2,
    .query_ece = query_ece,
    .set_ece = set_ece,
    .fork_init = fork_init,
    .is_fork_initialized = is_fork_initialized,
    .get_device_list = get_device_list,
    .free_device_list = free_device_list,
    .get_device_name = get_device_name,
    .open_device = open_device,
    .close_device = close_device,
    .query_device = query_device,
    .query_port = query_port,
    .get_async_event = get_async_event,
    .ack_async_event = ack_async_event,
    .alloc_pd = alloc_pd,
    .dealloc_pd = dealloc_pd,
    .reg_mr = reg_mr,
    .dereg_mr = dereg_mr,
    .create_comp_channel = create_comp_channel,
    .destroy_comp_channel = destroy_comp_channel,
    .create_cq = create_cq,
    .destroy_cq = destroy_cq,
    .get_cq_event = get_cq_event,
    .ack_cq_events = ack_cq_events,
    .create_qp = create_qp,
    .modify_qp = modify_qp,
    .destroy_qp = destroy_qp,
    .post_send = post_send,
    .post_recv = post_recv,
    .poll_cq = poll_cq,
    .req_notify_cq = req_notify_cq,
    .gids = gids,
};

void fault_verbs_modern(bool modern)
{
    static struct ibverbs older;
    older = functions;
    older.reg_mr_iova2 = NULL;
    older.query_ece = NULL;
    older.set_ece = NULL;
    older.is_fork_initialized = NULL;
    ibverbs_replace(modern ? &functions : &older);
}

void fault_verbs_install(void)
{
    LOCKED;
    MUST(figures.objects == 0);
    for (int i = 0; i < DEVICES; i++) {
        devices[i] = (struct fake_device){.family = 4};
        snprintf(devices[i].name, sizeof devices[i].name, "fault%d", i);
    }
    memset(&figures, 0, sizeof figures);
    memset(&fault, 0, sizeof fault);
    memset(counted, 0, sizeof counted);
    all_calls = 0;
    hanging = NULL;
    forks = 2;
    UNLOCKED;
    ibverbs_replace(&functions);
}

#endif
