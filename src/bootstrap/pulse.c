/* pulse.c - whether neighbours on other hosts can still be reached.
 *
 *   heard --no acknowledgement for 700 ms--> suspected: dialed at all its addresses (redial.c) --answer--> heard
 *                                               |
 *                                               +--none for BOOTSTRAP_LOST_MS in all, nor anything of its host by
 *                                                  other ways (bootstrap_hear)--> lost: verdict.c
 *
 * Every 300 ms a BEAT of 24 bytes goes to each of them. What counts is that the far KERNEL acknowledges it: a process
 * that is stopped, swapped out or starved is never missed. To one that says nothing itself for QUIET_NS no more beats
 * go, since they would fill its socket in some hours, and a full socket times out: the kernels' keep-alives, once a
 * second, serve then.
 *
 * Cost: a rank has at most 9 neighbours, so at most 30 packets of 90 bytes and as many acknowledgements a second; at
 * 512 ranks on as many hosts 2 x 511 / 0.3 s = 3400 a second in the whole job. Seven wake-ups of the service thread a
 * second, each with two system calls per neighbour. Neighbours on one host have none of this: the end of file comes
 * without it. */
#include <linux/sockios.h>
#include <linux/tcp.h> /* libc's knows less of struct tcp_info */
#include <sys/ioctl.h>
#include <string.h>

#include "base/log.h"
#include "bootstrap/state.h"

#define LOOK_NS (150 * RAIL_NS_PER_MS)
/* Between the moments at which two neighbours of one host find it silent lies a beat and a look at most: 450 ms. */
enum { LOOKS_PER_BEAT = 2 };
/* TCP sends a lost packet again after 200 ms at the earliest, then after 400 ms more: two losses in a row are not yet
 * one. */
#define SUSPECT_NS (700 * RAIL_NS_PER_MS)
/* We are late ourselves: stopped, or without a core. What was not heard meanwhile says nothing. */
#define LATE_NS (300 * RAIL_NS_PER_MS)

#define QUIET_NS (5 * RAIL_NS_PER_S)

static _Atomic uint64_t suspected;

uint64_t bootstrap_suspected(void) { return atomic_load_explicit(&suspected, memory_order_relaxed); }

void pulse_heard(struct tree_peer *peer) { peer->heard_ns = rail_now_ns(); }

static bool ask_kernel(int fd, struct tcp_info *out)
{
    socklen_t bytes = sizeof *out;
    memset(out, 0, sizeof *out);
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, out, &bytes) == 0;
}

uint64_t pulse_last_answer(int fd, uint64_t now)
{
    struct tcp_info info;
    uint64_t ago_ns = ask_kernel(fd, &info) ? info.tcpi_last_ack_recv * RAIL_NS_PER_MS : UINT64_MAX;
    return ago_ns < now ? now - ago_ns : 0;
}

/* The far kernel has acknowledged something since the last look, or there was nothing to acknowledge. */
static bool acknowledged(struct tree_peer *peer)
{
    struct tcp_info info;
    if (peer->quiet && conn_is_open(&peer->conn))
        return rail_now_ns() - pulse_last_answer(peer->conn.source.fd, rail_now_ns()) < PULSE_IDLE_NS;
    if (!conn_is_open(&peer->conn) || ioctl(peer->conn.source.fd, SIOCOUTQ, &peer->unacked_bytes) != 0) return false;
    if (!ask_kernel(peer->conn.source.fd, &info)) return false;
    bool moved = info.tcpi_bytes_acked != peer->acked_bytes;
    peer->acked_bytes = info.tcpi_bytes_acked;
    if (peer->unacked_bytes == 0 || moved) return true;
    /* Nothing is on its way because it does not read: the kernels exchange window probes. Two without an answer tell.
     * */
    return info.tcpi_unacked == 0 && info.tcpi_probes < 2;
}

static void suspect(struct bootstrap *b, struct tree_peer *peer)
{
    peer->suspected = true;
    atomic_fetch_add_explicit(&suspected, 1, memory_order_relaxed);
    RAIL_INFO(RAIL_BOOTSTRAP,
              "bootstrap: rank %u: nothing is acknowledged by rank %u (host %s, pid %u): trying its other addresses",
              b->rank, peer->person.rank, peer->person.host, peer->person.pid);
    redial_start(b, peer);
}

static void unsuspect(struct tree_peer *peer)
{
    peer->suspected = false;
    if (!peer->switching) redial_end(peer); /* CHILD is on its way over another connection: that one it will be */
}

/* It neither beats nor sends: stopped, most likely. */
static void note_quiet(struct tree_peer *peer, uint64_t now)
{
    bool quiet = now - peer->spoke_ns >= QUIET_NS;
    if (quiet == peer->quiet || !peer->remote || !conn_is_open(&peer->conn)) return;
    peer->quiet = quiet;
    if (quiet) socket_ask_often(peer->conn.source.fd);
    else socket_keep(peer->conn.source.fd);
    peer->heard_ns = now; /* the first keep-alive is due in a second */
}

static void look_after(struct bootstrap *b, struct tree_peer *peer, uint64_t now, bool late)
{
    if (!peer->present || peer->left || peer->lost) return;
    if (late) peer->heard_ns = now;
    note_quiet(peer, now);
    if (acknowledged(peer)) {
        peer->heard_ns = now;
        if (peer->suspected) unsuspect(peer);
    }
    uint64_t silent_ns = now - peer->heard_ns;
    if (peer->remote && !peer->redial && silent_ns >= SUSPECT_NS) suspect(b, peer);
    if (peer->redial && !redial_look(b, peer, now)) {
        peer_died(b, peer);
    } else if (peer->redial && now - peer->heard_ns >= BOOTSTRAP_LOST_MS * RAIL_NS_PER_MS) {
        peer_unreachable(b, peer);
    } else if (peer->remote && !peer->quiet && peer->unacked_bytes == 0 && b->pulses % LOOKS_PER_BEAT == 0) {
        session_beat(peer);
    }
}

/* Of those that do not answer: whether other ways are open. b's lock is not held meanwhile, for what is asked has locks of its
 * own. */
static void ask_elsewhere(struct bootstrap *b)
{
    uint32_t ranks[PEERS_MAX];
    uint64_t at_ns[PEERS_MAX] = {0};
    bool any = false;
    uint64_t (*heard)(void *, uint32_t) = b->heard;
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        ranks[i] = heard && b->peers[i].redial ? b->peers[i].person.rank : UINT32_MAX;
        any |= ranks[i] != UINT32_MAX;
    }
    if (!any) return;
    pthread_mutex_unlock(&b->lock);
    for (uint32_t i = 0; i < PEERS_MAX; i++)
        if (ranks[i] != UINT32_MAX) at_ns[i] = heard(b->heard_owner, ranks[i]);
    pthread_mutex_lock(&b->lock);
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        struct tree_peer *peer = &b->peers[i];
        if (!peer->redial || peer->person.rank != ranks[i] || at_ns[i] <= peer->heard_ns) continue;
        peer->heard_ns = peer->elsewhere_ns = at_ns[i];
    }
}

static void look(struct service_timer *timer)
{
    struct bootstrap *b = (struct bootstrap *)(void *)((char *)timer - offsetof(struct bootstrap, pulse));
    pthread_mutex_lock(&b->lock);
    ask_elsewhere(b);
    uint64_t now = rail_now_ns();
    bool late = now > b->pulse_due_ns + LATE_NS;
    b->pulses++;
    for (uint32_t i = 0; i < PEERS_MAX && !b->failed && !b->closing; i++) look_after(b, &b->peers[i], now, late);
    b->pulse_due_ns = now + LOOK_NS;
    if (!b->failed && !b->closing) service_timer_set(&b->pulse, b->pulse_due_ns);
    bootstrap_leave(b);
}

void pulse_start(struct bootstrap *b)
{
    bool any = false;
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        b->peers[i].heard_ns = b->peers[i].spoke_ns = rail_now_ns();
        any |= b->peers[i].present && b->peers[i].remote;
    }
    if (any) pulse_arm(b);
}

void pulse_arm(struct bootstrap *b)
{
    if (b->pulse_due_ns) return;
    b->pulse.fire = look;
    b->pulse_due_ns = rail_now_ns() + LOOK_NS;
    service_timer_set(&b->pulse, b->pulse_due_ns);
}
