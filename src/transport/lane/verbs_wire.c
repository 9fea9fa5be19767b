/* verbs_wire.c - frames over a queue pair (verbs.h).
 *
 * Out: a frame is one RDMA write with immediate to the next free place of their ring: { header, small payload } from a
 *      registered header, or inline, and a large payload straight from the memory that it lies in. A frame that would go
 *      over the ring's end begins at its start again, and the immediate says so. Where a payload goes apart, behind its
 *      header's place or straight to where it belongs at the far end, it goes first: what is written later is complete
 *      later, whichever way its packets took.
 * In:  the receive completion says that a frame is in the ring; its payload is copied to where it belongs, if it is not
 *      there already.
 *
 * The immediate of every write tells what this end has consumed of its own ring and receives: that is the sender's room,
 * and the proof that it arrived. It goes alone when 128 KiB, or a quarter of the receives, were consumed and nothing went
 * the other way, and 20 ms after the last frame in any case. */
#include "transport/lane/verbs_state.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#ifdef RAIL_HAVE_VERBS

enum {
    UNITS_MASK = 0xffff,          /* of the immediate: units consumed */
    MESSAGES_SHIFT = 16, MESSAGES_MASK = 0x3fff,
    IS_FRAME = 1 << 30,           /* else only the counts */
    CREDIT_SENDS = 8,             /* work requests that frames leave free for credits and flushes */
    BATCH = 16,
    TELL_BYTES = VERBS_RING_BYTES / 8, /* a full chunk is told of at once: what is not acknowledged counts as work */
    REPOST = 16,                  /* receives posted anew at a time */
    LOOK_AT_SOCKET = 1024,        /* reads in vain (some 50 us) between two questions whether the far end has closed; */
    LOOK_ARMED = 8,               /* and when it may have been that what woke us */
};
#define FROM_START (1u << 31)     /* the frame is at the ring's start; what was left at its end is skipped */
#define STALE_NS (20 * RAIL_NS_PER_MS)    /* a last write that asked for no completion is asked after */
#define REPEAT_NS (100 * RAIL_NS_PER_MS)  /* time without progress that counts as one vain repeat (silence.h) */
#define LOST_NS (2 * RAIL_NS_PER_S)       /* everything has arrived, and no completion says so */
#define SETTLE_NS (100 * RAIL_NS_PER_MS)
#define MEASURE_NS (5 * RAIL_NS_PER_MS)

static inline struct verbs_connection *of(const struct lane *lane) { return lane->wire; }

static uint32_t units_of(size_t bytes) { return (uint32_t)((bytes + VERBS_UNIT_BYTES - 1) / VERBS_UNIT_BYTES); }

static const char *status_text(int status)
{
    switch (status) {
    case IBV_WC_RETRY_EXC_ERR: return "no answer from the far port after all retries";
    case IBV_WC_RNR_RETRY_EXC_ERR: return "the far end has no receive posted";
    case IBV_WC_WR_FLUSH_ERR: return "the queue pair was put into error";
    case IBV_WC_REM_ACCESS_ERR: return "the far end refused access to its ring";
    case IBV_WC_REM_OP_ERR: return "the far end could not do it";
    case IBV_WC_LOC_PROT_ERR: return "local memory is not registered";
    case IBV_WC_LOC_QP_OP_ERR: return "the local queue pair could not do it";
    default: return "error";
    }
}

static void broke(struct verbs_connection *c, const char *what, int status)
{
    if (!c->broken[0])
        snprintf(c->broken, sizeof c->broken, "%s failed: %s (status %d)", what, status_text(status), status);
}

static enum rail_result failed(const struct lane *lane)
{
    return rail_fail_privately(RAIL_E_REMOTE, "%s: %s", lane->text, of(lane)->broken);
}

/* ---- what is done ---- */

static void arrived_up_to(struct verbs_connection *c, uint64_t request, uint64_t now_ns)
{
    uint64_t before = c->acked_bytes;
    while (c->acked_request < request) {
        c->acked_bytes = c->sent[c->acked_request % VERBS_SENDS].bytes;
        c->acked_request++;
        c->acked_frames++;
    }
    if (c->acked_bytes == before) return;
    c->repeats += (now_ns - c->progress_ns) / REPEAT_NS;
    c->progress_ns = now_ns;
    if (c->lane->sent_bytes == c->acked_bytes && c->busy_since_ns) {
        c->busy_ns += now_ns - c->busy_since_ns;
        c->busy_since_ns = 0;
    }
    c->lane->unacked_bytes = c->lane->sent_bytes - c->acked_bytes;
}

/* A completion says the same of all requests before it. */
static void completed_up_to(struct verbs_connection *c, uint64_t request)
{
    arrived_up_to(c, request, rail_now_ns());
    while (c->completed < request) {
        struct verbs_sent *s = &c->sent[c->completed++ % VERBS_SENDS];
        void *owner = s->owner;
        s->owner = NULL;
        if (!owner) continue;
        c->lane->lent--;
        c->lane->sink->sent(c->lane, owner, s->lent);
    }
}

static void poll_sends(struct verbs_connection *c)
{
    struct ibv_wc wc[BATCH];
    int n;
    if (c->completed == c->requests) return;
    while ((n = c->port->f->poll_cq(c->sends, BATCH, wc)) != 0) {
        if (n < 0) {
            broke(c, "ibv_poll_cq", n);
            return;
        }
        for (int i = 0; i < n; i++) {
            if (wc[i].status != IBV_WC_SUCCESS) {
                broke(c, "an RDMA write", wc[i].status);
                continue;
            }
            uint64_t ns = rail_now_ns() - c->sent[wc[i].wr_id % VERBS_SENDS].posted_ns;
            c->round_trip_ns = c->round_trip_ns ? (7 * c->round_trip_ns + ns) / 8 : ns;
            completed_up_to(c, wc[i].wr_id + 1);
        }
    }
}

/* ---- room ---- */

/* Their counts are of 16 and 14 bits; less than half of either is ever out. */
static bool take_counts(struct verbs_connection *c, uint32_t immediate)
{
    uint64_t units = (uint16_t)((immediate & UNITS_MASK) - c->consumed_units);
    uint64_t messages = ((immediate >> MESSAGES_SHIFT & MESSAGES_MASK) - c->consumed_messages) & MESSAGES_MASK;
    if (units > c->units - c->consumed_units || messages > c->messages - c->consumed_messages) return false;
    if (units == 0 && messages == 0) return true;
    c->consumed_units += units;
    c->consumed_messages += messages;
    uint64_t now_ns = rail_now_ns(), request = c->acked_request;
    if (c->full_since_ns && units > 0) {
        c->reader_ns += now_ns - c->full_since_ns;
        c->full_since_ns = 0;
    }
    while (request < c->requests && c->sent[request % VERBS_SENDS].units <= c->consumed_units) request++;
    arrived_up_to(c, request, now_ns);
    return true;
}

/* A receive counts when it is posted anew. */
static uint32_t counts(struct verbs_connection *c)
{
    c->told_units = c->in_units;
    c->untold_bytes = 0;
    c->told_messages = c->in_messages - c->n_repost;
    return (uint32_t)(c->told_units & UNITS_MASK) | (uint32_t)(c->told_messages & MESSAGES_MASK) << MESSAGES_SHIFT;
}

static uint32_t sends_free(const struct verbs_connection *c) { return VERBS_SENDS - (uint32_t)(c->requests - c->completed); }

static uint32_t receives_free(const struct verbs_connection *c)
{
    return c->their_receives - (uint32_t)(c->messages - c->consumed_messages);
}

/* ---- out ---- */

/* A batch on its way to one post. */
struct batch {
    struct ibv_send_wr wr[BATCH + 1]; /* the last frame may have two */
    struct ibv_sge sge[BATCH + 1][2];
    uint32_t n;
};

static struct ibv_send_wr *add(struct verbs_connection *c, struct batch *b, enum ibv_wr_opcode opcode, bool signal)
{
    uint64_t request = c->requests++;
    struct ibv_send_wr *wr = &b->wr[b->n];
    signal |= request - c->signalled >= VERBS_SIGNAL_EVERY - 1;
    *wr = (struct ibv_send_wr){.wr_id = request, .sg_list = b->sge[b->n], .opcode = opcode,
                               .send_flags = signal ? IBV_SEND_SIGNALED : 0};
    wr->wr.rdma.remote_addr = c->their_ring;
    wr->wr.rdma.rkey = c->their_key;
    if (b->n > 0) b->wr[b->n - 1].next = wr;
    b->n++;
    if (signal) c->signalled = request + 1;
    c->port->n_requests++;
    c->port->n_signalled += signal;
    c->messages += opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
    c->sent[request % VERBS_SENDS] = (struct verbs_sent){
        .units = c->units, .bytes = c->lane->sent_bytes, .posted_ns = c->posted_ns = rail_now_ns()};
    return wr;
}

static bool post(struct verbs_connection *c, struct batch *b)
{
    struct ibv_send_wr *bad;
    if (b->n == 0) return true;
    int error = c->port->f->post_send(c->qp, b->wr, &bad);
    b->n = 0;
    if (error != 0 && !c->broken[0])
        snprintf(c->broken, sizeof c->broken, "ibv_post_send on %s: %s", c->port->name, strerror(error));
    return error == 0;
}

/* A write of nothing: the counts alone, which takes one of their receives; or a question whether all before it is done. */
static bool post_empty(struct verbs_connection *c, enum ibv_wr_opcode opcode)
{
    struct batch b = {.n = 0};
    if (sends_free(c) == 0 || c->broken[0]) return false;
    bool counting = opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
    if (counting && receives_free(c) == 0) return false;
    struct ibv_send_wr *wr = add(c, &b, opcode, !counting);
    if (counting) wr->imm_data = htonl(counts(c));
    return post(c, &b);
}

/* Of the receives that frames leave free there are enough for what the ring and the messages demand (docs/WIRE.md); for
 * payloads that did not go through the ring counts take what is free beyond these. */
static void tell_if_due(struct verbs_connection *c)
{
    if (c->in_units - c->told_units >= TELL_BYTES / VERBS_UNIT_BYTES ||
        (c->untold_bytes >= TELL_BYTES && receives_free(c) > VERBS_RESERVE) ||
        c->in_messages - c->n_repost - c->told_messages >= VERBS_RECEIVES / 4)
        (void)post_empty(c, IBV_WR_RDMA_WRITE_WITH_IMM);
}

/* Asks after a tail that nothing else will bring to an end; also when it has arrived, and its completion is missing. */
static void ask_after_tail(struct verbs_connection *c)
{
    bool unasked = c->requests > c->signalled && c->completed == c->signalled;
    if (unasked || (c->acked_bytes == c->lane->sent_bytes && c->completed < c->requests))
        (void)post_empty(c, IBV_WR_RDMA_WRITE);
}

/* The memory's key with our port; registered on first use. NULL with c->broken. */
static const struct ibv_mr *key_of(struct verbs_connection *c, struct lane_memory *m)
{
    struct verbs_port *p = c->port;
    if (m->at[p->place]) return m->at[p->place];
    m->at[p->place] = verbs_port_register(p, m->base, m->bytes, IBV_ACCESS_LOCAL_WRITE);
    m->port[p->place] = p;
    p->n_registrations++;
    if (m->at[p->place]) return m->at[p->place];
    snprintf(c->broken, sizeof c->broken, "ibv_reg_mr of %zu bytes on %s: %s; raise the limit of locked memory (ulimit -l "
             "unlimited), or lower NCCL_BUFFSIZE", m->bytes, p->name, strerror(errno));
    p->useless = true; /* the lane comes back over TCP */
    return NULL;
}

/* Where in their ring; false: it is too full. */
static bool place(struct verbs_connection *c, uint32_t units, uint64_t *at, bool *from_start)
{
    uint32_t offset = (uint32_t)(c->units % c->their_units), skip = 0;
    *from_start = offset + units > c->their_units;
    if (*from_start) skip = c->their_units - offset;
    if (c->units - c->consumed_units + skip + units > c->their_units) return false;
    *at = *from_start ? 0 : offset;
    c->units += skip + units;
    return true;
}

/* What the far end has consumed is done, whether completions say so or not; but without them there is no room for more. */
static void look_for_lost(struct verbs_connection *c)
{
    uint64_t now_ns = rail_now_ns();
    bool waits = c->acked_bytes == c->lane->sent_bytes && c->completed < c->requests;
    if (!waits || c->starved_since_ns == 0 || c->starved_at != c->completed) {
        c->starved_since_ns = waits ? now_ns : 0;
        c->starved_at = c->completed;
    } else if (now_ns - c->starved_since_ns > LOST_NS && !c->broken[0]) {
        snprintf(c->broken, sizeof c->broken, "%s tells of no completion any more, though everything has arrived",
                 c->port->name);
    }
}

/* Ahead of its header, whose completion is this one's as well; into the ring, or straight to where it belongs. */
static void put_payload(struct verbs_connection *c, struct batch *b, const struct lane_out *out,
                        const struct ibv_mr *key, uint64_t in_ring)
{
    struct ibv_send_wr *wr = add(c, b, IBV_WR_RDMA_WRITE, false);
    wr->sg_list[0] = (struct ibv_sge){(uintptr_t)out->payload, out->payload_bytes, key->lkey};
    wr->num_sge = 1;
    wr->wr.rdma.remote_addr = out->to ? out->to : in_ring;
    if (out->to) wr->wr.rdma.rkey = out->to_key;
}

static struct lane_memory *memory_of(struct lane *lane, const struct lane_out *out)
{
    return out->lent ? out->lent : lane->sink->memory(lane, out->owner);
}

static bool put_frame(struct lane *lane, struct batch *b, struct lane_out *out)
{
    struct verbs_connection *c = of(lane);
    size_t bytes = out->head_bytes + out->payload_bytes;
    const struct ibv_mr *key = NULL;
    uint64_t at;
    bool from_start, split = out->to || out->payload_bytes > c->port->split_bytes;
    uint32_t units = units_of(out->to ? out->head_bytes : bytes);
    if (units > c->their_units / 2) { /* more might never find room at the ring's end */
        snprintf(c->broken, sizeof c->broken, "a frame of %zu bytes is too long for a ring of %u", bytes,
                 c->their_units * VERBS_UNIT_BYTES);
        return false;
    }
    if (sends_free(c) <= CREDIT_SENDS + (uint32_t)split) {
        look_for_lost(c);
        return false;
    }
    if (receives_free(c) <= VERBS_RESERVE) return false;
    if (out->payload_bytes > 0 && !out->owner) {
        snprintf(c->broken, sizeof c->broken, "a payload in memory that is nobody's");
        return false;
    }
    if (out->payload_bytes > 0 && !(key = key_of(c, memory_of(lane, out)))) return false;
    if (!place(c, units, &at, &from_start)) {
        if (!c->full_since_ns) c->full_since_ns = rail_now_ns();
        return false;
    }
    if (!c->busy_since_ns) c->busy_since_ns = c->progress_ns = rail_now_ns();
    uint64_t to = c->their_ring + at * VERBS_UNIT_BYTES;
    if (split) put_payload(c, b, out, key, to + out->head_bytes);
    lane->sent_bytes += bytes;
    lane->unacked_bytes += bytes;
    lane->queued_bytes -= bytes;
    struct ibv_send_wr *wr = add(c, b, IBV_WR_RDMA_WRITE_WITH_IMM, false);
    uint8_t *head = c->heads + wr->wr_id % VERBS_SENDS * VERBS_HEAD_BYTES;
    memcpy(head, out->head, out->head_bytes);
    wr->sg_list[0] = (struct ibv_sge){(uintptr_t)head, out->head_bytes, c->heads_mr->lkey};
    wr->num_sge = 1;
    if (key && !split)
        wr->sg_list[wr->num_sge++] = (struct ibv_sge){(uintptr_t)out->payload, out->payload_bytes, key->lkey};
    if (wr->num_sge == 1 && out->head_bytes <= c->inline_bytes) wr->send_flags |= IBV_SEND_INLINE;
    wr->wr.rdma.remote_addr = to;
    wr->imm_data = htonl(counts(c) | IS_FRAME | (from_start ? FROM_START : 0));
    c->sent[wr->wr_id % VERBS_SENDS].owner = out->owner;
    c->sent[wr->wr_id % VERBS_SENDS].lent = out->lent;
    lane->lent += out->owner != NULL;
    return true;
}

static enum rail_result verbs_write(struct lane *lane)
{
    struct verbs_connection *c = of(lane);
    struct batch b = {.n = 0};
    bool moved = false;
    poll_sends(c);
    while (lane->out_count > 0 && !c->broken[0]) {
        if (!put_frame(lane, &b, &lane->out[lane->out_first])) break;
        lane_pop(lane); /* its owner hears of it when it is done */
        moved = true;
        if (b.n >= BATCH && !post(c, &b)) break;
    }
    (void)post(c, &b);
    if (c->broken[0]) return failed(lane);
    lane->blocked = lane->out_count > 0;
    return moved ? RAIL_OK : RAIL_NOT_YET;
}

/* ---- in ---- */

static enum rail_result bad(struct lane *lane, const char *what)
{
    lane->broke_rule = true;
    return rail_fail(RAIL_E_REMOTE, "%s: protocol error: %s; the connection is closed", lane->text, what);
}

static enum rail_result take_frame(struct lane *lane, uint32_t written_bytes, bool from_start)
{
    struct verbs_connection *c = of(lane);
    const uint32_t ring_units = VERBS_RING_BYTES / VERBS_UNIT_BYTES;
    uint32_t offset = (uint32_t)(c->in_units % ring_units), skip = from_start ? ring_units - offset : 0;
    if (from_start) offset = 0;
    const uint8_t *at = c->memory + (size_t)offset * VERBS_UNIT_BYTES;
    frame_decode(&lane->in, at);
    /* A copy: what is in the ring may change under us if the far end is not what it should be. */
    uint32_t bytes = lane->in.payload_bytes;
    bool direct = (lane->in.flags & FRAME_DIRECT) != 0; /* the payload is where it belongs, and not in the ring */
    size_t here_bytes = FRAME_BYTES + (direct ? 0 : (size_t)bytes);
    /* Of one whose payload went apart the header was written last, alone. */
    if ((written_bytes != here_bytes && written_bytes != FRAME_BYTES) || units_of(here_bytes) > ring_units - offset)
        return bad(lane, "a frame that is not as long as what was written");
    if (lane->in.number != lane->in_number) return bad(lane, "a frame with another number than was due");
    lane->in_number++;
    void *to = NULL;
    lane->in_owner = NULL;
    RAIL_TRY(lane->sink->begin(lane, &lane->in, &to));
    if (to && !direct) memcpy(to, at + FRAME_BYTES, bytes);
    lane->received_frames++;
    lane->received_bytes += FRAME_BYTES + (size_t)bytes;
    c->untold_bytes += FRAME_BYTES + (size_t)bytes;
    c->in_units += skip + units_of(here_bytes);
    lane->owes = true;
    enum rail_result r = lane->sink->end(lane, &lane->in);
    lane->in_owner = NULL;
    return r;
}

static enum rail_result take(struct lane *lane, const struct ibv_wc *wc)
{
    struct verbs_connection *c = of(lane);
    if (wc->status != IBV_WC_SUCCESS) {
        broke(c, "receiving", wc->status);
        return RAIL_OK;
    }
    if (wc->opcode != IBV_WC_RECV_RDMA_WITH_IMM || !(wc->wc_flags & IBV_WC_WITH_IMM))
        return bad(lane, "something that is no write with immediate");
    uint32_t immediate = ntohl(wc->imm_data);
    c->in_messages++;
    c->n_repost++;
    if (!take_counts(c, immediate)) return bad(lane, "more was consumed than was written");
    return immediate & IS_FRAME ? take_frame(lane, wc->byte_len, (immediate & FROM_START) != 0) : RAIL_OK;
}

static void repost(struct verbs_connection *c)
{
    uint32_t n = c->n_repost;
    c->n_repost = 0;
    int error = verbs_post_receives(c, n);
    if (error != 0 && !c->broken[0])
        snprintf(c->broken, sizeof c->broken, "ibv_post_recv on %s: %s", c->port->name, strerror(error));
}

/* The channel's news are taken, whatever they say: what matters is in the queues. */
static void disarm(struct verbs_connection *c)
{
    struct ibv_cq *cq;
    void *user;
    while (c->port->f->get_cq_event(c->channel, &cq, &user) == 0) {
        c->port->f->ack_cq_events(cq, 1);
        c->armed = false;
    }
}

static enum rail_result read_queue(struct lane *lane, size_t budget_bytes)
{
    struct verbs_connection *c = of(lane);
    uint64_t until = lane->received_bytes + budget_bytes;
    bool moved = false;
    while (lane->received_bytes < until) {
        struct ibv_wc wc[BATCH];
        int n = c->port->f->poll_cq(c->receives, BATCH, wc);
        if (n < 0) broke(c, "ibv_poll_cq", n);
        if (n <= 0) break;
        moved = true;
        c->came_ns = rail_now_ns();
        for (int i = 0; i < n; i++) {
            RAIL_TRY(take(lane, &wc[i]));
            if (lane->fd < 0) return RAIL_OK; /* closed meanwhile */
        }
        if (c->n_repost >= REPOST) repost(c); /* before the counts are told */
        tell_if_due(c);
    }
    return moved ? RAIL_OK : RAIL_NOT_YET;
}

/* Whether the far end has closed the socket: the process has ended, or has closed the lane. */
static bool is_closed(const struct lane *lane)
{
    char byte;
    ssize_t n = recv(lane->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

static enum rail_result verbs_read(struct lane *lane, size_t budget_bytes)
{
    struct verbs_connection *c = of(lane);
    poll_sends(c);
    enum rail_result r = read_queue(lane, budget_bytes);
    if (lane->fd < 0) return r;
    c->quiet = r == RAIL_NOT_YET ? c->quiet + 1 : 0;
    bool look = c->quiet % (c->armed ? LOOK_ARMED : LOOK_AT_SOCKET) == 0;
    if (c->armed && look) disarm(c);
    if (r != RAIL_NOT_YET) return r;
    if (c->broken[0]) return failed(lane);
    if (!look || !is_closed(lane)) return RAIL_NOT_YET;
    /* What they wrote before is here: our device acknowledged it before they closed. */
    r = read_queue(lane, budget_bytes);
    if (r != RAIL_NOT_YET) return r;
    return rail_fail_privately(RAIL_E_REMOTE, "%s: the other process closed the connection (end of file)", lane->text);
}

/* Who arms reads once more: what came before is not told. */
static bool verbs_arm(struct lane *lane)
{
    struct verbs_connection *c = of(lane);
    if (c->n_repost > 0) repost(c);
    if (c->armed) return false;
    if (c->port->f->req_notify_cq(c->receives, 0) != 0 || c->port->f->req_notify_cq(c->sends, 0) != 0) {
        if (!c->broken[0]) snprintf(c->broken, sizeof c->broken, "ibv_req_notify_cq on %s failed", c->port->name);
        return false;
    }
    c->armed = true;
    return true;
}

/* ---- figures ---- */

static void verbs_look(struct lane *lane)
{
    struct verbs_connection *c = of(lane);
    poll_sends(c);
    look_for_lost(c);
    lane->owes = c->in_units != c->told_units;
    if (rail_now_ns() - (c->posted_ns > c->came_ns ? c->posted_ns : c->came_ns) < STALE_NS) return;
    /* What was consumed is told in the end, or a far end without completions would never know. */
    if (lane->owes) (void)post_empty(c, IBV_WR_RDMA_WRITE_WITH_IMM);
    if (lane->unacked_bytes > 0 || lane->lent > 0) ask_after_tail(c);
}

static void verbs_measure(struct lane *lane)
{
    struct verbs_connection *c = of(lane);
    uint64_t now_ns = rail_now_ns(), ns = now_ns - c->measured_ns;
    if (ns < MEASURE_NS) return;
    uint64_t rate = c->measured_ns ? (c->acked_bytes - c->measured_bytes) * RAIL_NS_PER_S / ns : 0;
    uint64_t bytes = lane_room_bytes(lane->chunk_bytes, rate, (uint32_t)(c->round_trip_ns / 1000));
    lane->room_bytes = bytes > lane->room_bytes ? bytes : (7 * lane->room_bytes + bytes) / 8;
    if (lane->room_bytes < VERBS_RING_BYTES / 2) lane->room_bytes = VERBS_RING_BYTES / 2;
    c->measured_bytes = c->acked_bytes;
    c->measured_ns = now_ns;
}

static bool verbs_figures(const struct lane *lane, struct lane_figures *out)
{
    const struct verbs_connection *c = of(lane);
    uint64_t now_ns = rail_now_ns(), busy_ns = c->busy_ns, reader_ns = c->reader_ns, repeats = c->repeats;
    if (c->busy_since_ns) {
        busy_ns += now_ns - c->busy_since_ns;
        repeats += (now_ns - c->progress_ns) / REPEAT_NS;
    }
    if (c->full_since_ns) reader_ns += now_ns - c->full_since_ns;
    if (reader_ns > busy_ns) reader_ns = busy_ns;
    *out = (struct lane_figures){
        .acked_bytes = c->acked_bytes, .busy_us = (busy_ns - reader_ns) / 1000, .reader_us = reader_ns / 1000,
        .delivered_segments = c->acked_frames, .repeated_segments = (uint32_t)repeats,
        .in_flight_segments = (uint32_t)(c->requests - c->acked_request), .unsent_bytes = 0,
        .round_trip_us = (uint32_t)(c->round_trip_ns / 1000),
        /* Everything has arrived, only its ring is full: it is not read. */
        .closed = c->full_since_ns != 0 && c->completed == c->requests,
        .answered_ns = UINT64_MAX,
    };
    return true;
}

/* ---- end ---- */

static void verbs_settle(struct lane *lane)
{
    struct verbs_connection *c = of(lane);
    struct rail_deadline deadline = rail_deadline_in_ns(SETTLE_NS);
    if (c->requests > c->signalled) (void)post_empty(c, IBV_WR_RDMA_WRITE);
    while (c->completed < c->requests && !c->broken[0] && !rail_deadline_passed(deadline)) poll_sends(c);
}

static void verbs_close(struct lane *lane)
{
    struct verbs_connection *c = of(lane);
    lane->wire = NULL;
    lane->event_fd = -1;
    /* Their memory is out of the device's hands when the queue pair is gone: they are told then. */
    for (uint64_t i = c->completed; i < c->requests; i++) {
        void *owner = c->sent[i % VERBS_SENDS].owner;
        if (!owner) continue;
        c->lent[c->n_lent++] = (struct verbs_lent){owner, c->sent[i % VERBS_SENDS].lent};
        lane->sink->left(lane, owner);
    }
    c->sink = lane->sink;
    c->watcher = lane->watcher;
    shutdown(lane->fd, SHUT_RDWR);
    verbs_connection_free(c);
}

const struct lane_ops lane_verbs_ops = {
    .name = "verbs",
    .read = verbs_read,
    .write = verbs_write,
    .arm = verbs_arm,
    .look = verbs_look,
    .measure = verbs_measure,
    .figures = verbs_figures,
    .settle = verbs_settle,
    .close = verbs_close,
};

void lane_start_verbs(struct lane *lane, struct verbs_connection *c)
{
    lane->ops = &lane_verbs_ops;
    lane->wire = c;
    lane->event_fd = c->channel->fd;
    lane->room_bytes = VERBS_RING_BYTES / 2;
    c->lane = lane;
    c->acked_bytes = c->measured_bytes = lane->sent_bytes;
    c->progress_ns = rail_now_ns();
}

#else

const struct lane_ops lane_verbs_ops = {.name = "verbs (built without)"};

void lane_start_verbs(struct lane *lane, struct verbs_connection *connection) { (void)lane, (void)connection; }

#endif
