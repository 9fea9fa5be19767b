/* verbs_port.c - a device's port opened, and its news. */

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/params.h"
#include "transport/lane/verbs_state.h"

#ifdef RAIL_HAVE_VERBS

static struct ibv_context *open_named(const struct ibverbs *f, const char *name, char *why)
{
    int n = 0;
    struct ibv_device **list = f->get_device_list(&n);
    struct ibv_context *context = NULL;
    if (!list) {
        snprintf(why, VERBS_WHY_BYTES, "ibv_get_device_list: %s; is the module ib_uverbs loaded?", strerror(errno));
        return NULL;
    }
    snprintf(why, VERBS_WHY_BYTES, "libibverbs does not offer %s among its %d devices: its provider is missing (Debian: "
             "ibverbs-providers), or ib_uverbs is not loaded", name, n);
    for (int i = 0; i < n && !context; i++) {
        if (strcmp(f->get_device_name(list[i]), name) != 0) continue;
        context = f->open_device(list[i]);
        if (context) break;
        int error = errno;
        snprintf(why, VERBS_WHY_BYTES, "ibv_open_device(%s): %s%s", name, strerror(error),
                 error == EACCES || error == EPERM ? "; this user needs access to /dev/infiniband" : "");
    }
    f->free_device_list(list);
    return context;
}

static bool ask_port(struct verbs_port *p, char *why)
{
    struct ibv_port_attr attr;
    memset(&attr, 0, sizeof attr); /* foreign/ibverbs.c says why */
    int error = p->f->query_port(p->context, p->port, &attr);
    if (error != 0) {
        snprintf(why, VERBS_WHY_BYTES, "ibv_query_port(%s, %u): %s", p->name, p->port, strerror(error));
        return false;
    }
    const struct ibv_device *device = p->context->device;
    p->is_iwarp = device->transport_type == IBV_TRANSPORT_IWARP || device->node_type == IBV_NODE_RNIC;
    p->is_ethernet = attr.link_layer == IBV_LINK_LAYER_ETHERNET;
    p->down = attr.state != IBV_PORT_ACTIVE;
    return true;
}

static void choose_options(struct verbs_port *p)
{
    bool adaptive = p->settings.adaptive_routing < 0 ? !p->is_ethernet : p->settings.adaptive_routing > 0;
    p->split_bytes = adaptive ? p->settings.adaptive_bytes : UINT32_MAX;
    p->ece = p->settings.ece && p->f->query_ece && p->f->set_ece;
    if (p->settings.ece && !p->ece)
        RAIL_INFO(RAIL_NET, "%s: connections are not enhanced (NCCL_IB_ECE_ENABLE): this libibverbs has no ibv_query_ece",
                  p->name);
    p->relaxed = p->settings.relaxed_ordering != 0 && p->f->reg_mr_iova2;
    if (p->settings.relaxed_ordering == 1 && !p->relaxed)
        RAIL_WARN("%s: no relaxed ordering (NCCL_IB_PCI_RELAXED_ORDERING=1): this libibverbs has no ibv_reg_mr_iova2; "
                  "take one of rdma-core 28 or later", p->name);
}

/* False: without librdmacm it is of no use. */
static bool choose_manager(struct verbs_port *p, char *why)
{
    if (!verbs_port_wants_manager(p) || verbs_port_has_manager(p)) return true;
    snprintf(why, VERBS_WHY_BYTES, "%.60s connects by librdmacm alone (iWARP): %.90s", p->name, p->manager_why);
    if (!p->is_iwarp) verbs_port_by_hand(p, p->manager_why);
    return !p->is_iwarp;
}

/* Writes of a device into memory registered for relaxed ordering may overtake one another on PCI Express, which some
 * roots need to be fast. Nothing here looks at a ring before a completion has said what is in it; completions are not
 * relaxed, and what is not overtakes nothing. */
struct ibv_mr *verbs_port_register(struct verbs_port *p, void *base, size_t bytes, int access)
{
    if (!p->relaxed) return p->f->reg_mr(p->pd, base, bytes, access);
    unsigned relaxed = (unsigned)access | IBV_ACCESS_RELAXED_ORDERING;
    struct ibv_mr *mr = p->f->reg_mr_iova2(p->pd, base, bytes, (uintptr_t)base, relaxed);
    if (mr || (errno != EINVAL && errno != EOPNOTSUPP)) return mr;
    int error = errno;
    mr = p->f->reg_mr(p->pd, base, bytes, access);
    if (!mr) return NULL;
    p->relaxed = false;
    if (p->settings.relaxed_ordering == 1)
        RAIL_WARN("%s: no relaxed ordering (NCCL_IB_PCI_RELAXED_ORDERING=1): ibv_reg_mr_iova2: %s", p->name,
                  strerror(error));
    else
        RAIL_INFO(RAIL_NET, "%s: no relaxed ordering: ibv_reg_mr_iova2: %s", p->name, strerror(error));
    return mr;
}

bool lane_memory_offer(struct lane_memory *m, struct verbs_port *p, uint32_t *key)
{
    if (!m->at[p->place]) {
        m->at[p->place] = verbs_port_register(p, m->base, m->bytes, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
        m->port[p->place] = p;
        p->n_registrations++;
    }
    if (m->at[p->place]) *key = m->at[p->place]->rkey;
    return m->at[p->place] != NULL;
}

bool lane_memory_lend(struct lane_memory *m, struct verbs_port *p)
{
    if (m->at[p->place]) return true;
    m->at[p->place] = verbs_port_register(p, m->base, m->bytes, 0);
    m->port[p->place] = p;
    p->n_registrations++;
    return m->at[p->place] != NULL;
}

/* Before Linux 5.12 libibverbs keeps registered pages from children (MADV_DONTFORK): ours nobody misses there, the program's
 * buffers its children would. */
static bool forks_keep_memory(const struct ibverbs *f)
{
    enum { UNNEEDED = 2 }; /* IBV_FORK_UNNEEDED of rdma-core 35 */
    return f->is_fork_initialized && f->is_fork_initialized() == UNNEEDED;
}

enum rail_result verbs_port_open(const char *name, int port, const struct verbs_settings *settings, const uint8_t rail[16],
                                 uint32_t place, struct verbs_port **out, char *why)
{
    static _Atomic bool fork_told;
    const char *missing;
    const struct ibverbs *f = ibverbs_functions(rail_param_str(RAIL_PARAM_NCCL_IBVERBS_LIB), &missing);
    if (!f) {
        snprintf(why, VERBS_WHY_BYTES, "%s", missing);
        return RAIL_E_SYSTEM;
    }
    struct verbs_port *p = calloc(1, sizeof *p);
    if (!p) {
        snprintf(why, VERBS_WHY_BYTES, "out of memory");
        return RAIL_E_SYSTEM;
    }
    /* Registered memory of a parent must not change under the device when a child is forked. Fails where something was
     * registered before, by others of this process: they have their reasons. */
    if (!atomic_exchange(&fork_told, true)) (void)f->fork_init();
    *p = (struct verbs_port){.f = f, .port = (uint8_t)port, .place = place, .settings = *settings, .event_fd = -1,
                             .manager_fd = -1, .gone_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    snprintf(p->name, sizeof p->name, "%s", name);
    memcpy(p->rail, rail, sizeof p->rail);
    p->context = open_named(f, name, why);
    if (!p->context || !ask_port(p, why)) goto failed;
    if (p->gone_fd < 0) {
        snprintf(why, VERBS_WHY_BYTES, "eventfd for %s: %s; look at ulimit -n", name, strerror(errno));
        goto failed;
    }
    p->pd = f->alloc_pd(p->context);
    if (!p->pd) {
        snprintf(why, VERBS_WHY_BYTES, "ibv_alloc_pd(%s): %s", name, strerror(errno));
        goto failed;
    }
    int flags = fcntl(p->context->async_fd, F_GETFL);
    if (flags < 0 || fcntl(p->context->async_fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        snprintf(why, VERBS_WHY_BYTES, "fcntl(O_NONBLOCK) for events of %s: %s", name, strerror(errno));
        goto failed;
    }
    p->event_fd = p->context->async_fd;
    choose_options(p);
    p->lends = forks_keep_memory(f);
    if (!choose_manager(p, why)) goto failed;
    *out = p;
    return RAIL_OK;
failed:
    verbs_port_close(p);
    return RAIL_E_SYSTEM;
}

/* A device that works needs milliseconds; one that is busy for longer will not be waited for again. */
#define CLOSE_NS (5 * RAIL_NS_PER_S)

void verbs_port_close(struct verbs_port *p)
{
    if (!p) return;
    verbs_manager_close(p);
    uint64_t at_it_ns = verbs_port_at_it_ns(p);
    if (!verbs_port_wait(p, rail_deadline_in_ns(at_it_ns < CLOSE_NS ? CLOSE_NS - at_it_ns : 0))) {
        RAIL_WARN("device %s has not let go of its lanes for %d s: what they used is kept until the process ends",
                  p->name, (int)(verbs_port_at_it_ns(p) / RAIL_NS_PER_S));
        verbs_reaper_keep(p);
        return;
    }
    verbs_manager_closed(p);
    if (p->pd && p->f->dealloc_pd(p->pd) != 0)
        RAIL_INFO(RAIL_NET, "ibv_dealloc_pd(%s): %s", p->name, strerror(errno));
    if (p->context && p->f->close_device(p->context) != 0)
        RAIL_INFO(RAIL_NET, "ibv_close_device(%s): %s", p->name, strerror(errno));
    if (p->gone_fd >= 0) close(p->gone_fd);
    free(p);
}

void verbs_port_abandon(struct verbs_port *p)
{
    close(p->context->cmd_fd);
    close(p->context->async_fd);
    verbs_manager_abandon(p);
    verbs_reaper_abandon(p);
}

/* Before the event is acknowledged: afterwards the connection may be gone. */
static struct lane *lane_of(const void *connection) { return ((const struct verbs_connection *)connection)->lane; }

enum verbs_news verbs_port_event(struct verbs_port *p, struct lane **lane, char *why)
{
    struct ibv_async_event event = {0};
    *lane = NULL;
    if (p->f->get_async_event(p->context, &event) != 0) return VERBS_NO_NEWS;
    enum verbs_news news = VERBS_NOTHING;
    bool ours = event.element.port_num == p->port; /* where the event is a port's */
    switch (event.event_type) {
    case IBV_EVENT_PORT_ERR:
        if (ours) news = VERBS_PORT_DOWN, p->down = true;
        snprintf(why, VERBS_WHY_BYTES, "port %s:%u is down (port event)", p->name, p->port);
        break;
    case IBV_EVENT_PORT_ACTIVE:
        if (ours) news = VERBS_PORT_UP, p->down = false;
        break;
    case IBV_EVENT_DEVICE_FATAL:
        news = VERBS_FATAL;
        p->fatal = true;
        snprintf(why, VERBS_WHY_BYTES, "device %s has failed (device event): reset it, or start the program anew", p->name);
        break;
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_PATH_MIG_ERR:
        news = VERBS_LANE_DEAD;
        *lane = lane_of(event.element.qp->qp_context);
        snprintf(why, VERBS_WHY_BYTES, "its queue pair has failed (event %d of %s)", (int)event.event_type, p->name);
        break;
    case IBV_EVENT_CQ_ERR:
        news = VERBS_LANE_DEAD;
        *lane = lane_of(event.element.cq->cq_context);
        snprintf(why, VERBS_WHY_BYTES, "its completion queue has failed (event of %s)", p->name);
        break;
    default: /* GID_CHANGE among them: GIDs are read anew for each connection */
        break;
    }
    p->f->ack_async_event(&event);
    return news;
}

#else

enum rail_result verbs_port_open(const char *name, int port, const struct verbs_settings *settings, const uint8_t rail[16],
                                 uint32_t place, struct verbs_port **out, char *why)
{
    const char *missing;
    (void)name, (void)port, (void)settings, (void)rail, (void)place, (void)out;
    (void)ibverbs_functions(NULL, &missing);
    snprintf(why, VERBS_WHY_BYTES, "%s", missing);
    return RAIL_E_SYSTEM;
}

void verbs_port_close(struct verbs_port *port) { (void)port; }
void verbs_port_abandon(struct verbs_port *port) { (void)port; }

enum verbs_news verbs_port_event(struct verbs_port *port, struct lane **lane, char *why)
{
    (void)port, (void)why;
    *lane = NULL;
    return VERBS_NO_NEWS;
}

#endif
