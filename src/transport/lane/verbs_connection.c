/* verbs_connection.c - a queue pair's life by hand:
 *
 *   begin    memory, registrations, queues, RESET --> INIT, receives posted     (before INIT Soft-RoCE takes none)
 *   finish   their record: GIDs chosen --> RTR (they may write) --> RTS (we may)
 *   free     --> given to the port's thread (verbs_reaper.c)
 *   let go   --> ERR: nothing lands and nothing is read any more --> what was out is flushed --> destroyed */
#include "transport/lane/verbs_state.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "transport/lane/flow_label.h"

void verbs_record_decline(struct verbs_record *out, const char *why)
{
    memset(out, 0, sizeof *out);
    out->version = 1;
    out->declines = 1;
    snprintf(out->why, sizeof out->why, "%s", why);
}

void verbs_record_declined(const struct verbs_record *r, char *why)
{
    snprintf(why, VERBS_WHY_BYTES, "the other process declines: %.*s", (int)strnlen(r->why, sizeof r->why), r->why);
    for (char *at = why; *at; at++)
        if (*at < ' ' || *at > '~') *at = '?';
}

void verbs_record_swap(struct verbs_record *r)
{
    r->version = htole32(r->version);
    r->declines = htole32(r->declines);
    r->queue_pair = htole32(r->queue_pair);
    r->packet = htole32(r->packet);
    r->ring_address = htole64(r->ring_address);
    r->ring_key = htole32(r->ring_key);
    r->ring_bytes = htole32(r->ring_bytes);
    r->n_receives = htole32(r->n_receives);
    r->lid = htole16(r->lid);
    r->n_gids = htole32(r->n_gids);
    r->ece_vendor = htole32(r->ece_vendor);
    r->ece_options = htole32(r->ece_options);
    r->ece_mask = htole32(r->ece_mask);
    r->cm_port = htole16(r->cm_port);
    r->reserved = 0;
    for (int i = 0; i < GID_OFFER_MAX; i++) r->gids[i].index = htole16(r->gids[i].index);
}

#ifdef RAIL_HAVE_VERBS

enum { GIDS_MAX = 256, HOP_LIMIT = 64 };

static bool no(char *why, const char *call, const struct verbs_port *p, int error)
{
    snprintf(why, VERBS_WHY_BYTES, "%s on %s: %s", call, p->name, strerror(error));
    return false;
}

/* ---- begin ---- */

static bool register_memory(struct verbs_connection *c, char *why)
{
    struct verbs_port *p = c->port;
    c->memory_bytes = VERBS_RING_BYTES + VERBS_SENDS * VERBS_HEAD_BYTES;
    void *memory = mmap(NULL, c->memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return no(why, "mmap for a ring", p, errno);
    c->memory = memory;
    c->heads = c->memory + VERBS_RING_BYTES;
    c->ring_mr = verbs_port_register(p, c->memory, VERBS_RING_BYTES, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    size_t heads_bytes = VERBS_SENDS * VERBS_HEAD_BYTES;
    if (c->ring_mr) c->heads_mr = verbs_port_register(p, c->heads, heads_bytes, IBV_ACCESS_LOCAL_WRITE);
    if (c->ring_mr && c->heads_mr) return true;
    int error = errno;
    snprintf(why, VERBS_WHY_BYTES, "ibv_reg_mr of %zu bytes on %s: %s%s", c->memory_bytes, p->name, strerror(error),
             error == ENOMEM || error == EAGAIN ? "; raise the limit of locked memory (ulimit -l unlimited)" : "");
    return false;
}

static bool make_queues(struct verbs_connection *c, char *why)
{
    struct verbs_port *p = c->port;
    c->channel = p->f->create_comp_channel(p->context);
    if (!c->channel) return no(why, "ibv_create_comp_channel", p, errno);
    int flags = fcntl(c->channel->fd, F_GETFL);
    if (flags < 0 || fcntl(c->channel->fd, F_SETFL, flags | O_NONBLOCK) < 0) return no(why, "fcntl(O_NONBLOCK)", p, errno);
    c->sends = p->f->create_cq(p->context, VERBS_SENDS, c, c->channel, 0);
    if (c->sends) c->receives = p->f->create_cq(p->context, VERBS_RECEIVES, c, c->channel, 0);
    if (!c->sends || !c->receives) return no(why, "ibv_create_cq", p, errno);
    struct ibv_qp_init_attr init = {
        .qp_context = c, .send_cq = c->sends, .recv_cq = c->receives, .qp_type = IBV_QPT_RC, .sq_sig_all = 0,
        .cap = {.max_send_wr = VERBS_SENDS, .max_recv_wr = VERBS_RECEIVES, .max_send_sge = 2, .max_recv_sge = 1,
                .max_inline_data = VERBS_INLINE_BYTES},
    };
    c->qp = p->f->create_qp(p->pd, &init);
    if (!c->qp) { /* a device without inline data */
        init.cap.max_inline_data = 0;
        c->qp = p->f->create_qp(p->pd, &init);
    }
    if (!c->qp) return no(why, "ibv_create_qp", p, errno);
    c->inline_bytes = init.cap.max_inline_data < VERBS_INLINE_BYTES ? init.cap.max_inline_data : VERBS_INLINE_BYTES;
    return true;
}

int verbs_post_receives(struct verbs_connection *c, uint32_t n)
{
    struct ibv_recv_wr wr[VERBS_RECEIVES], *bad;
    for (uint32_t i = 0; i < n; i++) wr[i] = (struct ibv_recv_wr){.next = i + 1 < n ? &wr[i + 1] : NULL};
    return n == 0 ? 0 : c->port->f->post_recv(c->qp, wr, &bad);
}

static bool to_init(struct verbs_connection *c, char *why)
{
    struct verbs_port *p = c->port;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .pkey_index = p->settings.pkey_index, .port_num = p->port,
                               .qp_access_flags = IBV_ACCESS_REMOTE_WRITE};
    int partition = p->is_iwarp ? 0 : IBV_QP_PKEY_INDEX;
    int error = p->f->modify_qp(c->qp, &attr, IBV_QP_STATE | partition | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    if (error != 0) return no(why, "ibv_modify_qp to INIT", p, error);
    error = verbs_post_receives(c, VERBS_RECEIVES);
    return error == 0 || no(why, "ibv_post_recv", p, error);
}

/* What the device could do beyond the specification; vendor 0: nothing. */
static struct ibv_ece offer_ece(struct verbs_connection *c)
{
    struct verbs_port *p = c->port;
    struct ibv_ece ece = {0};
    int error = p->ece ? p->f->query_ece(c->qp, &ece) : 0;
    if (error == 0) return ece;
    p->ece = false;
    RAIL_INFO(RAIL_NET, "%s: connections are not enhanced (NCCL_IB_ECE_ENABLE): ibv_query_ece: %s", p->name,
              strerror(error));
    return (struct ibv_ece){0};
}

static bool describe(struct verbs_connection *c, struct verbs_record *out, char *why)
{
    struct verbs_port *p = c->port;
    struct ibv_port_attr attr;
    struct ibverbs_gid table[GIDS_MAX];
    memset(&attr, 0, sizeof attr);
    int error = p->f->query_port(p->context, p->port, &attr);
    if (error != 0) return no(why, "ibv_query_port", p, error);
    p->down = attr.state != IBV_PORT_ACTIVE;
    if (p->down) {
        snprintf(why, VERBS_WHY_BYTES, "port %s:%u is down", p->name, p->port);
        return false;
    }
    int n = p->is_iwarp ? 0 : p->f->gids(p->name, p->port, table, GIDS_MAX);
    if (!p->is_iwarp) c->n_offers = gid_offer(table, n, &p->settings.gid, p->rail, c->offers, why, VERBS_WHY_BYTES);
    if (!p->is_iwarp && c->n_offers == 0) return false;
    uint32_t packet;
    rail_random(&packet, sizeof packet);
    *out = (struct verbs_record){
        .version = 1, .queue_pair = c->qp->qp_num, .packet = packet & 0xffffff,
        .ring_address = (uintptr_t)c->memory, .ring_key = c->ring_mr->rkey, .ring_bytes = VERBS_RING_BYTES,
        .n_receives = VERBS_RECEIVES, .lid = attr.lid, .mtu = (uint8_t)attr.active_mtu, .is_ethernet = p->is_ethernet,
        .n_gids = (uint32_t)c->n_offers, .is_iwarp = p->is_iwarp,
    };
    struct ibv_ece ece = offer_ece(c);
    out->ece_vendor = ece.vendor_id, out->ece_options = ece.options, out->ece_mask = ece.comp_mask;
    for (int i = 0; i < c->n_offers; i++) {
        memcpy(out->gids[i].raw, c->offers[i].gid.raw, 16);
        out->gids[i].index = c->offers[i].gid.index;
        out->gids[i].kind = c->offers[i].gid.kind;
        out->gids[i].is_rails = c->offers[i].is_rails;
    }
    c->mtu = (uint8_t)attr.active_mtu;
    c->lid = attr.lid;
    c->told_units = packet & 0xffffff; /* until finish: our first packet number */
    return true;
}

struct verbs_connection *verbs_connection_begin(struct verbs_port *port, struct verbs_record *ours, char *why)
{
    struct verbs_connection *c = calloc(1, sizeof *c);
    if (!c) {
        snprintf(why, VERBS_WHY_BYTES, "out of memory");
        return NULL;
    }
    c->port = port;
    if (register_memory(c, why) && make_queues(c, why) && to_init(c, why) && describe(c, ours, why)) {
        port->n_connections++;
        return c;
    }
    verbs_connection_free(c);
    return NULL;
}

/* ---- finish ---- */

bool verbs_record_fits(const struct verbs_record *r, const struct verbs_port *p, char *why)
{
    if (r->declines) {
        verbs_record_declined(r, why);
        return false;
    }
    if (r->version != 1 || (r->n_gids == 0 && !r->is_iwarp) || r->n_gids > GID_OFFER_MAX || r->queue_pair > 0xffffff ||
        r->packet > 0xffffff || r->mtu < IBV_MTU_256 || r->mtu > IBV_MTU_4096 || r->n_receives <= VERBS_RESERVE ||
        r->n_receives > 8192 || r->ring_bytes % VERBS_UNIT_BYTES != 0 || r->ring_bytes < 4 * 65536 ||
        r->ring_bytes / VERBS_UNIT_BYTES > 32768) {
        snprintf(why, VERBS_WHY_BYTES, "the other process sent a record that makes no sense");
        return false;
    }
    if (!r->is_iwarp != !p->is_iwarp) {
        snprintf(why, VERBS_WHY_BYTES, "one device is iWARP, the other is not");
        return false;
    }
    if (r->is_ethernet == p->is_ethernet) return true;
    snprintf(why, VERBS_WHY_BYTES, "one port is Ethernet, the other InfiniBand");
    return false;
}

static bool choose_gids(struct verbs_connection *c, const struct verbs_record *r, bool first, struct ibv_ah_attr *out,
                        char *why)
{
    struct gid_candidate theirs[GID_OFFER_MAX];
    struct gid_pair pair;
    char text[2][GID_TEXT_BYTES];
    for (uint32_t i = 0; i < r->n_gids; i++) {
        theirs[i] = (struct gid_candidate){{{0}, r->gids[i].index, r->gids[i].kind}, r->gids[i].is_rails != 0};
        memcpy(theirs[i].gid.raw, r->gids[i].raw, 16);
        if (r->gids[i].kind >= IBVERBS_GID_IB && r->gids[i].kind <= IBVERBS_GID_ROCE_V2) continue;
        snprintf(why, VERBS_WHY_BYTES, "the other process sent a GID of no known kind");
        return false;
    }
    if (!gid_choose(c->offers, c->n_offers, theirs, (int)r->n_gids, first, &pair, why, VERBS_WHY_BYTES)) return false;
    const struct ibverbs_gid *a = &c->offers[pair.here].gid, *b = &theirs[pair.there].gid;
    gid_text(a, text[0]);
    gid_text(b, text[1]);
    snprintf(c->text, sizeof c->text, "%s - %s", text[0], text[1]);
    /* InfiniBand inside one subnet needs no global header. */
    bool global = c->port->is_ethernet || memcmp(a->raw, b->raw, 8) != 0;
    *out = (struct ibv_ah_attr){.dlid = r->lid, .sl = c->port->settings.service_level, .port_num = c->port->port,
                                .is_global = global};
    memcpy(out->grh.dgid.raw, b->raw, 16);
    out->grh.sgid_index = (uint8_t)a->index;
    out->grh.hop_limit = HOP_LIMIT;
    out->grh.traffic_class = c->port->settings.traffic_class;
    return true;
}

void verbs_connection_route(struct verbs_connection *c, uint32_t flow_label, struct ibv_ah_attr *out)
{
    size_t at = strlen(c->text);
    out->grh.flow_label = flow_label;
    snprintf(c->text + at, sizeof c->text - at, ", flow label %#x (UDP source port %u)", flow_label,
             flow_label_port(flow_label));
}

/* Enhanced connection establishment: the accepter offers (its record is the first), the connecter's device takes what
 * it knows of it, and the accepter's is told that. Where the connecter cannot, nothing was agreed on, and nothing is
 * lost; the accepter has no choice any more. */
static bool set_ece(struct verbs_connection *c, const struct verbs_record *r, bool first, char *why)
{
    struct verbs_port *p = c->port;
    struct ibv_ece ece = {.vendor_id = r->ece_vendor, .options = r->ece_options, .comp_mask = r->ece_mask};
    if (!p->ece || ece.vendor_id == 0) return true;
    int error = p->f->set_ece(c->qp, &ece);
    if (error == 0) {
        c->ece = ece;
        return true;
    }
    if (first) {
        RAIL_INFO(RAIL_NET, "%s: a connection is not enhanced: ibv_set_ece(vendor %#x, options %#x): %s", p->name,
                  ece.vendor_id, ece.options, strerror(error));
        return true;
    }
    p->ece = false; /* the next one does without */
    return no(why, "ibv_set_ece", p, error);
}

/* In RTR: what the device has made of it. */
static void take_ece(struct verbs_connection *c, bool first)
{
    if (first && c->ece.vendor_id != 0 && c->port->f->query_ece(c->qp, &c->ece) != 0) c->ece.vendor_id = 0;
    size_t at = strlen(c->text);
    if (c->ece.vendor_id != 0)
        snprintf(c->text + at, sizeof c->text - at, ", enhanced (vendor %#x, options %#x)", c->ece.vendor_id,
                 c->ece.options);
}

void verbs_connection_answer(const struct verbs_connection *c, struct verbs_record *ours)
{
    ours->ece_vendor = c->ece.vendor_id;
    ours->ece_options = c->ece.options;
    ours->ece_mask = c->ece.comp_mask;
}

static bool to_ready(struct verbs_connection *c, const struct verbs_record *r, const struct ibv_ah_attr *way,
                     bool first, char *why)
{
    const struct verbs_port *p = c->port;
    struct ibv_qp_attr rtr = {
        .qp_state = IBV_QPS_RTR, .path_mtu = r->mtu < c->mtu ? r->mtu : c->mtu, .dest_qp_num = r->queue_pair,
        .rq_psn = r->packet, .max_dest_rd_atomic = 1, .min_rnr_timer = VERBS_RNR_TIMER_10_MS, .ah_attr = *way,
    };
    int error = p->f->modify_qp(c->qp, &rtr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                                             IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
    if (error != 0) return no(why, "ibv_modify_qp to RTR", p, error);
    take_ece(c, first);
    struct ibv_qp_attr rts = {
        .qp_state = IBV_QPS_RTS, .timeout = p->settings.timeout, .retry_cnt = p->settings.retries,
        .rnr_retry = VERBS_RNR_FOR_EVER, .sq_psn = (uint32_t)c->told_units, .max_rd_atomic = 1,
    };
    error = p->f->modify_qp(c->qp, &rts, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                                         IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
    return error == 0 || no(why, "ibv_modify_qp to RTS", p, error);
}

void verbs_connection_meets(struct verbs_connection *c, const struct verbs_record *theirs)
{
    c->told_units = 0;
    c->their_ring = theirs->ring_address;
    c->their_key = theirs->ring_key;
    c->their_units = theirs->ring_bytes / VERBS_UNIT_BYTES;
    c->their_receives = theirs->n_receives;
}

bool verbs_connection_finish(struct verbs_connection *c, const struct verbs_record *theirs, bool first,
                             uint32_t flow_label, char *why)
{
    struct ibv_ah_attr way;
    if (!verbs_record_fits(theirs, c->port, why)) return false;
    if (c->port->is_iwarp) {
        snprintf(why, VERBS_WHY_BYTES, "iWARP connects by librdmacm alone, which one end cannot use: %.100s",
                 c->port->manager_why[0] ? c->port->manager_why : "see the other process's log");
        return false;
    }
    if (c->managed.state != VERBS_BY_HAND) verbs_manager_end(c); /* offered, and not taken */
    if (!choose_gids(c, theirs, first, &way, why)) return false;
    if (way.is_global) verbs_connection_route(c, flow_label, &way);
    if (!set_ece(c, theirs, first, why) || !to_ready(c, theirs, &way, first, why)) return false;
    verbs_connection_meets(c, theirs);
    return true;
}

/* ---- end ---- */

/* What a device did not let go of. Never given back: it may still write there. */
static _Atomic(struct verbs_connection *) all_held;

/* Flushes come within a millisecond or never: a device that failed tells nothing. */
#define DRAIN_NS (100 * RAIL_NS_PER_MS)

/* What was out comes back as flushed: then the device has let go of it. */
static void drain(struct verbs_connection *c)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    const struct ibverbs *f = c->port->f;
    if (f->modify_qp(c->qp, &attr, IBV_QP_STATE) != 0) return; /* destroying it does the same */
    struct ibv_wc wc[16];
    struct rail_deadline deadline = rail_deadline_in_ns(DRAIN_NS);
    while (c->completed < c->requests && !rail_deadline_passed(deadline)) {
        int n = f->poll_cq(c->sends, 16, wc);
        if (n < 0) break;
        for (int i = 0; i < n; i++)
            if (wc[i].wr_id >= c->completed) c->completed = wc[i].wr_id + 1;
    }
}

void verbs_connection_let_go(struct verbs_connection *c)
{
    const struct ibverbs *f = c->port->f;
    bool held = false;
    if (c->qp) {
        drain(c);
        held |= f->destroy_qp(c->qp) != 0;
    }
    /* After its queue pair, as librdmacm wants it; the far end hears of it. */
    if (c->managed.id) verbs_manager_let_go(c->port, &c->managed.id);
    held |= c->managed.id != NULL;
    if (c->sends) held |= f->destroy_cq(c->sends) != 0;
    if (c->receives) held |= f->destroy_cq(c->receives) != 0;
    if (c->channel) held |= f->destroy_comp_channel(c->channel) != 0;
    if (c->ring_mr) held |= f->dereg_mr(c->ring_mr) != 0;
    if (c->heads_mr) held |= f->dereg_mr(c->heads_mr) != 0;
    if (held) {
        RAIL_WARN("device %s does not give back what a lane used: its %zu bytes are kept out of use until the process ends",
                  c->port->name, c->memory_bytes);
        c->held = true;
        c->next_held = atomic_exchange(&all_held, c);
        return;
    }
    if (c->memory) munmap(c->memory, c->memory_bytes);
}

void verbs_connection_forget(struct verbs_connection *c)
{
    if (!c->held) free(c);
}

/* Writes with immediate data came late to iWARP (RFC 7306): who does not take the first one takes none. */
static void look_for_reason(const struct verbs_connection *c)
{
    static const char refused[] = "ibv_post_send "; /* as verbs_wire.c says it */
    struct verbs_port *p = c->port;
    if (!p->is_iwarp || p->useless || c->completed > 0 || strncmp(c->broken, refused, sizeof refused - 1) != 0) return;
    p->useless = true;
    RAIL_WARN("%s: its lanes use TCP from now on, as not every iWARP device has writes with immediate data: %s", p->name,
              c->broken);
}

void verbs_connection_free(struct verbs_connection *c)
{
    if (!c) return;
    c->lane = NULL; /* what the device still tells of it is nobody's */
    look_for_reason(c);
    verbs_manager_end(c);
    c->leaving = (struct verbs_leaving){.connection = c};
    verbs_reaper_give(c->port, &c->leaving);
}

void verbs_connection_watch(struct verbs_connection *c, const struct lane_sink *sink, void *watcher)
{
    c->sink = sink;
    c->watcher = watcher;
}

const char *verbs_connection_text(const struct verbs_connection *c) { return c->text; }
int verbs_connection_event_fd(const struct verbs_connection *c) { return c->channel->fd; }
void verbs_connection_abandon(struct verbs_connection *c) { close(c->channel->fd); }

#else

void verbs_connection_answer(const struct verbs_connection *connection, struct verbs_record *ours)
{
    (void)connection, (void)ours;
}

struct verbs_connection *verbs_connection_begin(struct verbs_port *port, struct verbs_record *ours, char *why)
{
    (void)port, (void)ours, (void)why;
    return NULL;
}

bool verbs_connection_finish(struct verbs_connection *connection, const struct verbs_record *theirs, bool first,
                             uint32_t flow_label, char *why)
{
    (void)connection, (void)theirs, (void)first, (void)flow_label, (void)why;
    return false;
}

void verbs_connection_free(struct verbs_connection *connection) { (void)connection; }

void verbs_connection_watch(struct verbs_connection *connection, const struct lane_sink *sink, void *watcher)
{
    (void)connection, (void)sink, (void)watcher;
}

const char *verbs_connection_text(const struct verbs_connection *connection)
{
    (void)connection;
    return "";
}

int verbs_connection_event_fd(const struct verbs_connection *connection)
{
    (void)connection;
    return -1;
}

void verbs_connection_abandon(struct verbs_connection *connection) { (void)connection; }

#endif
