/* redial.c - a neighbour whose connection is silent or broken is called at all addresses of its process at once.
 *
 *   parent lost:  the first call that is answered and proven carries CHILD; ADOPTED makes it the connection
 *   child lost:   the first answer shows that its host is there; the call ends, and the child calls us when it runs
 *
 * From this host's NICs in the same subnet one by one, since the kernel might send by the one that died, and by the
 * kernel's choice. The old connection stays and may recover. A host that refuses a call has no such process any more;
 * as an address may mean another host here (one behind a bridge), that is believed when no other call is answered
 * soon. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "bootstrap/state.h"

enum { CALLS_MAX = 32 };
/* A call without an answer begins anew: a lost SYN is sent again after a second only. Three calls before the end. */
#define AGAIN_NS (350 * RAIL_NS_PER_MS)
/* Where its host is heard of by other ways: an answer may stand in a queue for long (1 MiB at 5 Mbit/s: 1.6 s each way, and the
 * handshake needs three). */
#define AGAIN_PATIENT_NS (12 * RAIL_NS_PER_S)
#define REFUSED_NS (300 * RAIL_NS_PER_MS)

struct call {
    struct dialer dialer; /* first: its source's address is the call's */
    struct redial *redial;
    struct endpoint endpoint;
    struct machine_interface nic;
    bool bound, over;
    uint64_t began_ns;
};

struct redial {
    struct bootstrap *b;
    struct tree_peer *peer;
    struct call *calls;
    uint32_t n_calls;
    uint64_t refused_ns; /* the first refusal; 0: none */
    uint32_t scopes[DIALER_SCOPES_MAX];
    int n_scopes;
    struct conn next; /* the new connection: CHILD has gone over it, ADOPTED is expected */
};

static _Atomic uint64_t resumed;

uint64_t bootstrap_resumed(void) { return atomic_load_explicit(&resumed, memory_order_relaxed); }

static void hang_up_all(struct redial *r)
{
    for (uint32_t i = 0; i < r->n_calls; i++) dialer_close(&r->calls[i].dialer);
}

static void call_begin(struct call *call);

/* ---- the new connection ---- */

static struct redial *redial_of_conn(struct conn *conn)
{
    return (struct redial *)(void *)((char *)conn - offsetof(struct redial, next));
}

static bool admit_adopted(struct conn *conn, const struct frame_head *head)
{
    (void)conn;
    return head->type == FRAME_ADOPTED && head->bytes == sizeof(struct wire_adopted);
}

static void adopted_again(struct redial *r, const struct frame *frame)
{
    struct bootstrap *b = r->b;
    struct tree_peer *peer = r->peer;
    struct wire_adopted adopted;
    memcpy(&adopted, frame->payload->data, sizeof adopted);
    int fd = conn_release(&r->next);
    conn_close(&peer->conn);
    redial_end(peer);
    if (peer->appeal) {
        verdict_adopted(b, fd);
        return;
    }
    peer->switching = peer->suspected = false;
    if (peer_open(b, peer, fd) != RAIL_OK) {
        socket_close(fd);
        peer_cut_off(b, peer, "out of descriptors or memory");
        return;
    }
    session_beat(peer);
    if (!session_resume(peer, adopted.received)) {
        peer_cut_off(b, peer, "their counts of messages differ, or out of memory");
        return;
    }
    atomic_fetch_add_explicit(&resumed, 1, memory_order_relaxed);
    RAIL_INFO(RAIL_BOOTSTRAP, "bootstrap: rank %u has a new connection to its parent, rank %u (host %s, pid %u)",
              b->rank, peer->person.rank, peer->person.host, peer->person.pid);
}

static void next_ready(struct service_source *source, uint32_t events)
{
    struct redial *r = redial_of_conn((struct conn *)(void *)source);
    struct bootstrap *b = r->b;
    struct frame frame;
    (void)events;
    pthread_mutex_lock(&b->lock);
    conn_flush(&r->next);
    enum rail_result result = conn_receive(&r->next, &frame);
    if (result == RAIL_OK) {
        adopted_again(r, &frame);
        blob_drop(frame.payload);
    } else if (result != RAIL_NOT_YET) {
        conn_close(&r->next); /* redial_look calls again */
    }
    bootstrap_leave(b);
}

/* ---- calls ---- */

static void answered(void *owner, int fd)
{
    struct call *call = owner;
    struct redial *r = call->redial;
    struct bootstrap *b = r->b;
    struct tree_peer *peer = r->peer;
    struct wire_child child;
    call->over = true;
    pulse_heard(peer);
    r->refused_ns = 0;
    if ((peer != &b->peers[PARENT] && !peer->appeal) || b->failed || b->closing || conn_is_open(&r->next)) {
        socket_close(fd);
        return;
    }
    if (conn_open(&r->next, fd, next_ready, admit_adopted) != RAIL_OK) {
        socket_close(fd);
        return;
    }
    socket_watch(fd);
    peer->switching = true;
    peer->number++;
    join_introduce(b, &child);
    child.parent = peer->person.rank;
    child.number = peer->number;
    child.appeal = peer->appeal;
    (void)conn_queue_copy(&r->next, FRAME_CHILD, 0, &child, sizeof child);
    conn_flush(&r->next);
}

static void call_failed(void *owner, enum rail_result result, const char *text)
{
    struct call *call = owner;
    struct redial *r = call->redial;
    call->over = true;
    if (result != RAIL_E_REMOTE || r->refused_ns) return; /* refused, or somebody who does not know the tree's key */
    r->refused_ns = rail_now_ns();
    RAIL_INFO(RAIL_BOOTSTRAP, "bootstrap: rank %u calls rank %u: %s", r->b->rank, r->peer->person.rank, text);
}

static void call_begin(struct call *call)
{
    struct redial *r = call->redial;
    struct bootstrap *b = r->b;
    if (call->dialer.timer.fire) dialer_close(&call->dialer);
    call->over = false;
    call->began_ns = rail_now_ns();
    enum rail_result result = dialer_start(&call->dialer, &(struct dialer_config){
        .purpose = "tree", .key = b->tree_key, .endpoints = &call->endpoint, .n_endpoints = 1, .scopes = r->scopes,
        .n_scopes = r->n_scopes, .nic = call->bound ? &call->nic : NULL, .connected = answered, .failed = call_failed,
        .owner = call, .lock = &b->lock,
    });
    if (result != RAIL_OK) call_failed(call, result, dialer_note(&call->dialer));
}

static bool same_subnet(const struct machine_interface *nic, const struct endpoint *e)
{
    struct endpoint mine;
    endpoint_from(&mine, &nic->address);
    if (mine.family != e->family || nic->prefix_bits == 0) return false;
    for (uint32_t bit = 0; bit < nic->prefix_bits; bit++)
        if ((mine.address[bit / 8] ^ e->address[bit / 8]) & (0x80 >> bit % 8)) return false;
    return true;
}

static void add_call(struct redial *r, const struct endpoint *e, const struct machine_interface *nic)
{
    if (r->n_calls == CALLS_MAX) return;
    struct call *call = &r->calls[r->n_calls++];
    call->redial = r;
    call->endpoint = *e;
    call->bound = nic != NULL;
    if (nic) call->nic = *nic;
}

static void list_calls(struct redial *r)
{
    const struct bootstrap *b = r->b;
    const struct wire_place *place = &r->peer->place;
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < place->n_endpoints && i < WIRE_PLACE_MAX; i++) {
            const struct endpoint *e = &place->endpoints[i];
            if (!endpoint_valid(e)) continue;
            if (pass == 0) add_call(r, e, NULL);
            for (int n = 0; pass == 1 && n < b->n_interfaces; n++)
                if (same_subnet(&b->interfaces[n], e)) add_call(r, e, &b->interfaces[n]);
        }
}

void redial_start(struct bootstrap *b, struct tree_peer *peer)
{
    if (peer->redial || peer->lost || b->failed || b->closing) return;
    struct redial *r = calloc(1, sizeof *r);
    if (r) r->calls = calloc(CALLS_MAX, sizeof *r->calls);
    if (!r || !r->calls) { /* the next look tries again */
        free(r);
        return;
    }
    r->b = b;
    r->peer = peer;
    if (!peer->remote) peer->heard_ns = rail_now_ns(); /* nobody listened for it before */
    r->n_scopes = join_scopes(b, r->scopes);
    peer->redial = r;
    list_calls(r);
    for (uint32_t i = 0; i < r->n_calls && peer->redial == r; i++) call_begin(&r->calls[i]);
    pulse_arm(b);
}

/* Connected, but not through with the handshake: its host is there, whatever its process does. */
static bool is_waiting(const struct call *call)
{
    return !call->over && call->dialer.source.fd >= 0 && !call->dialer.connecting;
}

/* When the far kernel answered last: an idle connection asks it once a second. */
static uint64_t last_answer(int fd, uint64_t now)
{
    socket_watch(fd);
    return pulse_last_answer(fd, now);
}

bool redial_look(struct bootstrap *b, struct tree_peer *peer, uint64_t now)
{
    struct redial *r = peer->redial;
    uint64_t heard_ns = conn_is_open(&r->next) ? pulse_last_answer(r->next.source.fd, now) : 0;
    (void)b;
    if (heard_ns && now - heard_ns >= PULSE_IDLE_NS) conn_close(&r->next); /* silent as well */
    for (uint32_t i = 0; i < r->n_calls; i++) {
        uint64_t at_ns = is_waiting(&r->calls[i]) ? last_answer(r->calls[i].dialer.source.fd, now) : 0;
        if (at_ns > heard_ns) heard_ns = at_ns;
    }
    if (heard_ns > peer->heard_ns) peer->heard_ns = heard_ns;
    if (heard_ns && now - heard_ns < PULSE_IDLE_NS) {
        r->refused_ns = 0;
        return true;
    }
    bool all_over = true;
    for (uint32_t i = 0; i < r->n_calls; i++) all_over &= r->calls[i].over;
    if (r->refused_ns && (all_over || now - r->refused_ns >= REFUSED_NS)) return false;
    uint64_t again_ns = now - peer->elsewhere_ns < PULSE_IDLE_NS ? AGAIN_PATIENT_NS : AGAIN_NS;
    for (uint32_t i = 0; i < r->n_calls; i++)
        if (now - r->calls[i].began_ns >= again_ns) call_begin(&r->calls[i]);
    return true;
}

void redial_end(struct tree_peer *peer)
{
    struct redial *r = peer->redial;
    if (!r) return;
    peer->redial = NULL;
    hang_up_all(r);
    conn_close(&r->next);
    free(r->calls);
    free(r);
}
