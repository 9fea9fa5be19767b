/* verbs_cm_port.c - a port's end of the connection manager (librdmacm): one channel of events, one listener.
 *
 *   connect request --> whose token is it? --> that connection's        verbs_cm.c says what it does then
 *                        nobody's           --> refused, counted
 *   other events    --> their connection's; one that was given up hears nothing
 *
 * Every event is looked at and acknowledged at once, so nothing that is destroyed by the port's thread (verbs_reaper.c)
 * waits for us; whatever can block, destroying, is that thread's. Calls are made under the drive lock. */
#include "transport/lane/verbs_state.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#ifdef RAIL_HAVE_VERBS
bool verbs_port_wants_manager(const struct verbs_port *p) { return p->settings.cm || p->is_iwarp; }

void verbs_port_by_hand(struct verbs_port *p, const char *why)
{
    const char *instead = p->is_iwarp ? "no connections, which are librdmacm's on iWARP" : "connections by hand";
    if (p->settings.cm && !p->by_hand_told)
        RAIL_WARN("%s: %s, though RAILCCL_IB_CM=1: %s", p->name, instead, why);
    else
        RAIL_INFO(RAIL_NET, "%s: %s: %s", p->name, instead, why);
    p->by_hand_told = true;
}
#endif

#ifdef RAIL_HAVE_RDMACM

enum { BACKLOG = 64, EVENTS_MAX = 64 /* of one visit */ };

struct verbs_manager {
    const struct rdmacm *f;
    struct rdma_event_channel *channel;
    struct rdma_cm_id *listener;      /* NULL: nobody was to come so far */
    uint16_t listens_at;
    struct verbs_connection *first;   /* that are under way, or were */
    uint64_t n_refused;
};

const struct rdmacm *verbs_manager_of(const struct verbs_port *p) { return p->manager->f; }

/* ---- made ---- */

static bool make(struct verbs_port *p)
{
    const char *missing;
    const struct rdmacm *f = rdmacm_functions(&missing);
    if (!f) {
        snprintf(p->manager_why, sizeof p->manager_why, "%s", missing);
        return false;
    }
    struct verbs_manager *m = calloc(1, sizeof *m);
    if (m) m->channel = f->create_event_channel();
    int error = errno;
    if (!m || !m->channel) {
        snprintf(p->manager_why, sizeof p->manager_why, "rdma_create_event_channel: %s; is the module rdma_ucm loaded, "
                 "and may this user open /dev/infiniband/rdma_cm?", m ? strerror(error) : "out of memory");
        free(m);
        return false;
    }
    m->f = f;
    int flags = fcntl(m->channel->fd, F_GETFL);
    if (flags < 0 || fcntl(m->channel->fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        snprintf(p->manager_why, sizeof p->manager_why, "fcntl(O_NONBLOCK) for the events of librdmacm: %s",
                 strerror(errno));
        f->destroy_event_channel(m->channel);
        free(m);
        return false;
    }
    p->manager = m;
    p->manager_fd = m->channel->fd;
    return true;
}

bool verbs_port_has_manager(struct verbs_port *p)
{
    return p->manager || (!p->manager_why[0] && make(p));
}

int verbs_manager_id(struct verbs_connection *c, struct rdma_cm_id **out)
{
    struct verbs_manager *m = c->port->manager;
    return m->f->create_id(m->channel, out, c, RDMA_PS_TCP);
}

/* To be destroyed, by the port's thread. */
static void give_away(struct verbs_port *p, struct rdma_cm_id *id)
{
    struct verbs_leaving *item = calloc(1, sizeof *item);
    if (!item) return; /* it is left to the end of the process */
    item->id = id;
    verbs_reaper_give(p, item);
}

static bool listen_at(struct verbs_port *p, struct rdma_cm_id *id, const struct sockaddr *here, char *why)
{
    const struct rdmacm *f = p->manager->f;
    struct sockaddr_storage address;
    memset(&address, 0, sizeof address);
    memcpy(&address, here, here->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
    if (here->sa_family == AF_INET) ((struct sockaddr_in *)(void *)&address)->sin_port = 0;
    else ((struct sockaddr_in6 *)(void *)&address)->sin6_port = 0;
    if (f->bind_addr(id, (struct sockaddr *)&address) != 0) {
        snprintf(why, VERBS_WHY_BYTES, "rdma_bind_addr to the rail's address for %s: %s", p->name, strerror(errno));
        return false;
    }
    if (f->listen(id, BACKLOG) != 0) {
        snprintf(why, VERBS_WHY_BYTES, "rdma_listen for %s: %s", p->name, strerror(errno));
        return false;
    }
    p->manager->listens_at = ntohs(f->get_src_port(id));
    return true;
}

uint16_t verbs_manager_listen(struct verbs_port *p, const struct sockaddr *here, char *why)
{
    struct verbs_manager *m = p->manager;
    struct rdma_cm_id *id;
    if (m->listener) return m->listens_at;
    if (m->f->create_id(m->channel, &id, NULL, RDMA_PS_TCP) != 0) {
        snprintf(why, VERBS_WHY_BYTES, "rdma_create_id for %s: %s", p->name, strerror(errno));
        return 0;
    }
    if (!listen_at(p, id, here, why)) {
        give_away(p, id);
        return 0;
    }
    m->listener = id;
    return m->listens_at;
}

/* ---- whose ---- */

void verbs_manager_begin(struct verbs_connection *c)
{
    struct verbs_manager *m = c->port->manager;
    c->managed.next = m->first;
    m->first = c;
}

void verbs_manager_end(struct verbs_connection *c)
{
    struct verbs_manager *m = c->port->manager;
    c->managed.given_up = true;
    if (!m || c->managed.state == VERBS_BY_HAND) return;
    for (struct verbs_connection **at = &m->first; *at; at = &(*at)->managed.next)
        if (*at == c) {
            *at = c->managed.next;
            return;
        }
}

/* Takes as long whichever byte is wrong: a stranger learns nothing from it. */
static bool is_token(const uint8_t *shown, const uint8_t *token)
{
    uint8_t differs = 0;
    for (int i = 0; i < VERBS_TOKEN_BYTES; i++) differs |= shown[i] ^ token[i];
    return differs == 0;
}

static struct verbs_connection *wanted(const struct verbs_manager *m, const struct rdma_conn_param *shown)
{
    if (shown->private_data_len < VERBS_TOKEN_BYTES) return NULL;
    for (struct verbs_connection *c = m->first; c; c = c->managed.next)
        if (c->managed.state == VERBS_AWAITED && is_token(shown->private_data, c->managed.token)) return c;
    return NULL;
}

static bool is_ours(const struct verbs_port *p, const struct rdma_cm_id *id)
{
    return id->verbs && strcmp(p->f->get_device_name(id->verbs->device), p->name) == 0 && id->port_num == p->port;
}

/* Who shows no token of a connection that waits is a stranger, or late: true, it is to be destroyed. */
static bool take_request(struct verbs_port *p, const struct rdma_cm_event *event)
{
    struct verbs_manager *m = p->manager;
    struct verbs_connection *c = is_ours(p, event->id) ? wanted(m, &event->param.conn) : NULL;
    if (c) {
        event->id->context = c;
        c->managed.id = event->id;
        verbs_managed_event(c, event);
        return false;
    }
    m->n_refused++;
    RAIL_INFO(RAIL_NET, "%s: refused a connection that shows no token of ours (%llu so far)", p->name,
              (unsigned long long)m->n_refused);
    (void)m->f->reject(event->id, NULL, 0);
    event->id->context = NULL;
    return true;
}

enum verbs_news verbs_port_manage(struct verbs_port *p, char *why)
{
    struct verbs_manager *m = p->manager;
    enum verbs_news news = VERBS_NOTHING;
    struct rdma_cm_event *event;
    for (int i = 0; m && i < EVENTS_MAX && m->f->get_cm_event(m->channel, &event) == 0; i++) {
        struct rdma_cm_id *refused = NULL;
        struct verbs_connection *c = event->id->context;
        if (event->event == RDMA_CM_EVENT_DEVICE_REMOVAL) {
            news = VERBS_FATAL;
            p->fatal = true;
            snprintf(why, VERBS_WHY_BYTES, "device %s is gone (librdmacm's event of its removal)", p->name);
        }
        /* Before it is acknowledged: until then it keeps what it belongs to. */
        if (event->event == RDMA_CM_EVENT_CONNECT_REQUEST) {
            if (take_request(p, event)) refused = event->id;
        } else if (c && !c->managed.given_up) {
            verbs_managed_event(c, event);
        }
        (void)m->f->ack_cm_event(event);
        if (refused) give_away(p, refused);
    }
    return news;
}

/* ---- given back ---- */

void verbs_manager_let_go(const struct verbs_port *p, struct rdma_cm_id **id)
{
    if (p->manager->f->destroy_id(*id) == 0) *id = NULL;
    else RAIL_WARN("rdma_destroy_id on %s: %s; it is left to the end of the process", p->name, strerror(errno));
}

void verbs_manager_close(struct verbs_port *p)
{
    if (!p->manager || !p->manager->listener) return;
    give_away(p, p->manager->listener);
    p->manager->listener = NULL;
}

void verbs_manager_closed(struct verbs_port *p)
{
    if (!p->manager) return;
    p->manager->f->destroy_event_channel(p->manager->channel);
    free(p->manager);
    p->manager = NULL;
}

void verbs_manager_abandon(struct verbs_port *p)
{
    if (p->manager) close(p->manager_fd);
}

#elif defined(RAIL_HAVE_VERBS)

bool verbs_port_has_manager(struct verbs_port *p)
{
    const char *missing;
    if (!rdmacm_functions(&missing)) snprintf(p->manager_why, sizeof p->manager_why, "%s", missing);
    return false;
}

void verbs_manager_end(struct verbs_connection *c) { (void)c; }
void verbs_manager_let_go(const struct verbs_port *p, struct rdma_cm_id **id) { (void)p, (void)id; }
void verbs_manager_close(struct verbs_port *p) { (void)p; }
void verbs_manager_closed(struct verbs_port *p) { (void)p; }
void verbs_manager_abandon(struct verbs_port *p) { (void)p; }

#endif

#ifndef RAIL_HAVE_RDMACM

#ifndef RAIL_HAVE_VERBS
bool verbs_port_wants_manager(const struct verbs_port *p) { return (void)p, false; }
bool verbs_port_has_manager(struct verbs_port *p) { return (void)p, false; }
void verbs_port_by_hand(struct verbs_port *p, const char *why) { (void)p, (void)why; }
#endif

enum verbs_news verbs_port_manage(struct verbs_port *p, char *why)
{
    (void)p, (void)why;
    return VERBS_NOTHING;
}

#endif
