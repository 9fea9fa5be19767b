/* drive.c - who works when.
 *
 *   a caller is inside   it calls net_progress() in its loop: try the drive lock, read the lanes, send. publish() and an
 *                        urgent release() send at once. Nobody else is needed.
 *   nobody is inside     the service thread: our epoll (all lanes and listeners) nests one-shot in the service's.
 *   in between           a tick every few milliseconds, running only while something goes on. It sees whether callers
 *                        have driven since the last tick; if not, it hands the lanes to the service thread. It also sends
 *                        the credits that found nothing to ride on, and watches the connections being made.
 *
 * So a running caller makes no system call for the hand-over, and an idle process is silent: epoll armed, no timer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/log.h"
#include "transport/link/net_state.h"

#define TICK_NS (5 * RAIL_NS_PER_MS)
#define TICK_SLOW_NS SILENCE_TICK_NS /* nothing goes on, but last bytes are not acknowledged, or a lane rests */
#define TICK_BUSY_NS (1 * RAIL_NS_PER_MS) /* nobody is inside and a lane waits for room: 1 ms keeps 2 Gbit/s busy */

enum {
    EVENTS_PER_POLL = 32,
    HOT_QUIET_MAX = 256,     /* reads in vain (about 0.1 ms of spinning) after which a lane is left to epoll */
    DRIVES_PER_POLL = 8,     /* with hot lanes, epoll is asked every so many drives: a cold lane waits some 2 us more */
    DRIVES_PER_POLL_ALL = 64,/* when all lanes are hot epoll is for the listeners only */
    ARMS_MAX = 8,            /* times that a lane is read before it has nothing more */
    SERVICE_ROUNDS = 64,     /* of the service thread before it lets other sources have their turn */
};

/* ---- watching ---- */

enum rail_result net_lane_watch(struct net *net, struct net_lane *lane, int fd, bool up)
{
    struct epoll_event event = {.events = up ? EPOLLIN : EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = &lane->watch};
    if (epoll_ctl(net->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0) return RAIL_OK;
    if (errno == EEXIST && epoll_ctl(net->epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0) return RAIL_OK;
    return rail_fail(RAIL_E_SYSTEM, "epoll_ctl for a lane: %s", strerror(errno));
}

void net_lane_unwatch(struct net *net, struct net_lane *lane)
{
    for (uint32_t i = 0; i < net->n_hot; i++)
        if (net->hot[i] == lane) {
            net->hot[i] = net->hot[--net->n_hot];
            break;
        }
    epoll_ctl(net->epoll_fd, EPOLL_CTL_DEL, lane->lane.fd, NULL);
    if (lane->lane.event_fd >= 0) epoll_ctl(net->epoll_fd, EPOLL_CTL_DEL, lane->lane.event_fd, NULL);
}

void net_lane_hot(struct net *net, struct net_lane *lane)
{
    lane->quiet = 0;
    for (uint32_t i = 0; i < net->n_hot; i++)
        if (net->hot[i] == lane) return;
    if (net->n_hot < NET_HOT_LANES_MAX) net->hot[net->n_hot++] = lane;
}

static bool event_handle(struct net *net, struct net_watch *watch)
{
    switch (watch->kind) {
    case NET_WATCH_LISTENER:
        net_listener_ready(net, (struct net_rail *)(void *)watch);
        return true;
    case NET_WATCH_KNOCK:
        net_knock_ready(net, (struct net_knock *)(void *)watch);
        return true;
    case NET_WATCH_LANE: {
        struct net_lane *lane = (struct net_lane *)(void *)watch;
        if (lane->state != NET_LANE_UP) {
            net_connect_step(lane);
            return true;
        }
        if (!peer_read(lane)) return false;
        if (lane->state == NET_LANE_UP) net_lane_hot(net, lane);
        return true;
    }
    case NET_WATCH_CARRIER:
        net_carrier_ready(net);
        return true;
    case NET_WATCH_DEVICE:
        net_device_ready(((struct net_device *)(void *)watch)->rail);
        return true;
    }
    return false;
}

/* Lanes that tell of what comes only when they were asked to: all, or those that nobody reads without being told. Asked is
 * before read, so nothing is missed. */
static bool arm_lanes(struct net *net, bool all)
{
    bool moved = false;
    for (uint32_t i = 0; i < net->n_up; i++) {
        struct net_lane *lane = net->up[i];
        bool hot = false;
        for (uint32_t k = 0; k < net->n_hot && !all; k++) hot |= net->hot[k] == lane;
        /* What is read may end lanes: those that moved up in the table are armed next time. */
        for (int n = 0; n < ARMS_MAX && !hot && lane->state == NET_LANE_UP && lane->lane.ops->arm(&lane->lane); n++) {
            if (!peer_read(lane)) break;
            moved = true;
        }
    }
    return moved;
}

static bool poll_all(struct net *net)
{
    if (atomic_load_explicit(&net->n_armed, memory_order_relaxed) > 0) (void)arm_lanes(net, false);
    struct epoll_event events[EVENTS_PER_POLL];
    int n = epoll_wait(net->epoll_fd, events, EVENTS_PER_POLL, 0);
    bool moved = false;
    for (int i = 0; i < n; i++) moved |= event_handle(net, events[i].data.ptr);
    return moved;
}

static bool read_hot(struct net *net)
{
    bool moved = false;
    for (uint32_t i = 0; i < net->n_hot;) {
        struct net_lane *lane = net->hot[i];
        if (peer_read(lane)) {
            moved = true;
            lane->quiet = 0;
            if (i < net->n_hot && net->hot[i] == lane) i++;
        } else if (++lane->quiet > HOT_QUIET_MAX && net->n_up > NET_HOT_LANES_MAX) {
            net->hot[i] = net->hot[--net->n_hot];
        } else {
            i++;
        }
    }
    return moved;
}

/* ---- one round ---- */

static void inbox_take(struct net *net)
{
    struct net_link *l = atomic_exchange_explicit(&net->inbox, NULL, memory_order_acquire), *in_order = NULL;
    while (l) { /* the last came first */
        struct net_link *next = l->inbox_next;
        l->inbox_next = in_order;
        in_order = l;
        l = next;
    }
    while (in_order) {
        l = in_order;
        in_order = l->inbox_next;
        /* Cleared before the counters are read: who changes them afterwards lists the link again. */
        atomic_exchange_explicit(&l->listed, false, memory_order_acq_rel);
        link_look(l);
    }
}

void net_drive_inbox(struct net *net) { inbox_take(net); }

static bool send_all(struct net *net)
{
    if (atomic_load_explicit(&net->inbox, memory_order_relaxed)) inbox_take(net);
    struct net_peer *peer = net->active;
    if (!peer) return false;
    net->active = NULL;
    bool moved = false;
    while (peer) {
        struct net_peer *next = peer->next_active;
        bool more = false;
        peer->active = false;
        moved |= peer_send(peer, &more);
        if (more) peer_activate(peer);
        peer = next;
    }
    return moved;
}

static bool drive(struct net *net)
{
    bool moved = net->n_hot > 0 && read_hot(net);
    if (net->drives_to_epoll == 0 || net->n_connecting + net->n_knocks > 0) {
        moved |= poll_all(net);
        net->drives_to_epoll = net->n_hot == 0            ? 0
                               : net->n_hot == net->n_up  ? DRIVES_PER_POLL_ALL
                                                          : DRIVES_PER_POLL;
    } else {
        net->drives_to_epoll--;
    }
    moved |= send_all(net);
    return moved;
}

static bool unlock_once(struct net *net)
{
    pthread_mutex_unlock(&net->lock);
    return atomic_load_explicit(&net->kicked, memory_order_acquire) && pthread_mutex_trylock(&net->lock) == 0;
}

void net_unlock(struct net *net)
{
    while (unlock_once(net)) {
        atomic_store_explicit(&net->kicked, false, memory_order_relaxed);
        if (atomic_exchange(&net->arms_due, false)) (void)arm_lanes(net, true);
        if (atomic_exchange_explicit(&net->looks_due, false, memory_order_relaxed)) suspect_tick(net, rail_now_ns());
        send_all(net);
    }
}

/* ---- callers ---- */

void net_submit(struct net_link *link, bool now)
{
    struct net *net = link->net;
    if (!atomic_exchange_explicit(&link->listed, true, memory_order_acq_rel)) {
        struct net_link *first = atomic_load_explicit(&net->inbox, memory_order_relaxed);
        do {
            link->inbox_next = first;
        } while (!atomic_compare_exchange_weak_explicit(&net->inbox, &first, link, memory_order_release,
                                                        memory_order_relaxed));
    }
    net_touch(net);
    if (!now) return;
    if (pthread_mutex_trylock(&net->lock) == 0) {
        send_all(net);
        net_unlock(net);
        return;
    }
    /* Somebody is at it. Said before trying once more, so that one of the two sees the other. */
    atomic_store_explicit(&net->kicked, true, memory_order_seq_cst);
    if (pthread_mutex_trylock(&net->lock) == 0) net_unlock(net);
}

bool net_progress_on(struct net *net)
{
    if (pthread_mutex_trylock(&net->lock) != 0) return false;
    atomic_store_explicit(&net->caller_drives,
                          atomic_load_explicit(&net->caller_drives, memory_order_relaxed) + 1, memory_order_relaxed);
    bool moved = drive(net);
    if (moved) net_touch(net);
    net_unlock(net);
    return moved;
}

/* ---- the service thread ---- */

void net_touch(struct net *net)
{
    if (atomic_load_explicit(&net->ticking, memory_order_relaxed) == NET_PACE_FAST) return;
    if (atomic_exchange(&net->ticking, NET_PACE_FAST) != NET_PACE_FAST)
        service_timer_set(&net->timer, rail_now_ns() + TICK_NS);
}

/* Whoever has the lock does it on the way out. */
static void arm_all(struct net *net)
{
    if (pthread_mutex_trylock(&net->lock) != 0) {
        atomic_store(&net->arms_due, true);
        atomic_store_explicit(&net->kicked, true, memory_order_seq_cst);
        if (pthread_mutex_trylock(&net->lock) == 0) net_unlock(net);
        return;
    }
    if (arm_lanes(net, true)) {
        send_all(net);
        net_touch(net);
    }
    net_unlock(net);
}

static void arm(struct net *net)
{
    if (atomic_load_explicit(&net->n_armed, memory_order_relaxed) > 0) arm_all(net);
    if (net->service_added) (void)service_modify(&net->source, EPOLLIN | EPOLLONESHOT);
}

/* Whether somebody has driven since the last tick: then the service thread keeps away. */
static bool callers_drive(struct net *net)
{
    return atomic_load_explicit(&net->caller_drives, memory_order_relaxed) !=
           atomic_load_explicit(&net->seen_drives, memory_order_relaxed);
}

static void forget_drives(struct net *net)
{
    atomic_store_explicit(&net->seen_drives, atomic_load_explicit(&net->caller_drives, memory_order_relaxed),
                          memory_order_relaxed);
}

void net_hand_over(struct net *net)
{
    forget_drives(net);
    arm(net);
}

static void source_ready(struct service_source *source, uint32_t events)
{
    (void)events;
    struct net *net = (struct net *)(void *)((char *)source - offsetof(struct net, source));
    /* One-shot: silent from here on until armed again, by us or by the tick. */
    if (callers_drive(net) || pthread_mutex_trylock(&net->lock) != 0) {
        net_touch(net);
        return;
    }
    net->drives_to_epoll = 0;
    bool moved = true;
    for (int i = 0; i < SERVICE_ROUNDS && moved; i++) {
        moved = poll_all(net);
        if (atomic_load_explicit(&net->n_armed, memory_order_relaxed) > 0) moved |= read_hot(net);
        moved |= send_all(net);
    }
    net_unlock(net);
    net_touch(net);
    arm(net);
}

/* Credits that waited a whole tick for something to ride on. */
static bool late_credits(struct net *net)
{
    bool waiting = false;
    for (struct net_peer *p = net->peers; p; p = p->next) {
        for (struct net_link *l = p->owing_first, *next; l; l = next) {
            next = l->owing_next;
            if (l->urgent) continue;
            if (l->owing_tick != net->tick_number)
                peer_owe(l, true);
            else
                waiting = true;
        }
    }
    return waiting;
}

/* The last frames on a lane over RDMA may have asked for no completion, and their reader may not have said that it has
 * consumed them: both are seen to a little later (verbs_wire.c). True: not yet. */
static bool look_at_tails(struct net *net)
{
    bool out = false;
    if (atomic_load_explicit(&net->n_armed, memory_order_relaxed) == 0) return false;
    for (uint32_t i = 0; i < net->n_up; i++) {
        struct lane *lane = &net->up[i]->lane;
        if (lane->ops != &lane_verbs_ops) continue;
        if (lane->unacked_bytes == 0 && lane->lent == 0 && !lane->owes) continue;
        lane->ops->look(lane);
        out |= lane->unacked_bytes > 0 || lane->lent > 0 || lane->owes;
    }
    return out;
}

/* Which tick is needed next although nobody drives. */
static enum net_pace tick_locked(struct net *net, bool driven)
{
    inbox_take(net);
    bool waiting = late_credits(net);
    net->tick_number++;
    uint64_t now_ns = rail_now_ns();
    net_connect_tick(net, now_ns);
    waiting |= move_tick(net, now_ns);
    waiting |= look_at_tails(net);
    waiting |= net_devices_tick(net, now_ns);
    waiting |= direct_tick(net, now_ns);
    enum net_pace mend = mend_tick(net, now_ns);
    if (!driven)
        for (int i = 0; i < SERVICE_ROUNDS && poll_all(net); i++) continue;
    /* After what has come was read: it may tell that the far process runs. */
    bool working = suspect_tick(net, now_ns);
    send_all(net);
    bool deaf = false;
    for (uint32_t i = 0; i < net->config.n_rails; i++) deaf |= net->rails[i].deaf;
    bool soon = waiting || net->n_connecting > 0 || net->n_knocks > 0 || deaf;
    enum net_pace slow = working ? NET_PACE_SLOW : NET_PACE_NONE;
    return soon ? NET_PACE_FAST : mend > slow ? mend : slow;
}

static void timer_fired(struct service_timer *timer)
{
    struct net *net = (struct net *)(void *)((char *)timer - offsetof(struct net, timer));
    bool driven = callers_drive(net) && atomic_load_explicit(&net->callers, memory_order_relaxed) > 0;
    bool again = driven, blocked = false;
    int pace = NET_PACE_NONE, none = NET_PACE_NONE;
    forget_drives(net);
    /* From here on whoever has news sets the timer. */
    atomic_store(&net->ticking, NET_PACE_NONE);
    if (pthread_mutex_trylock(&net->lock) == 0) {
        pace = tick_locked(net, driven);
        blocked = net->active != NULL && !driven;
        for (struct net_peer *p = net->active; p; p = p->next_active) again |= p->n_up > 0;
        net_unlock(net);
    } else {
        again = true;
        /* A caller that spins has the lock nearly always. */
        atomic_store_explicit(&net->looks_due, true, memory_order_relaxed);
        atomic_store_explicit(&net->kicked, true, memory_order_release);
    }
    if (!driven) arm(net);
    if (again) pace = NET_PACE_FAST;
    if (pace == NET_PACE_NONE || !atomic_compare_exchange_strong(&net->ticking, &none, pace)) return;
    uint64_t in_ns = pace == NET_PACE_SLOW ? TICK_SLOW_NS : blocked ? TICK_BUSY_NS : TICK_NS;
    service_timer_set(&net->timer, rail_now_ns() + in_ns);
}

enum rail_result net_service_start(struct net *net)
{
    if (net->service_added) return RAIL_OK;
    if (net->epoll_fd < 0) {
        net->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (net->epoll_fd < 0) return rail_fail(RAIL_E_SYSTEM, "epoll_create1: %s", strerror(errno));
    }
    net->source = (struct service_source){.fd = net->epoll_fd, .ready = source_ready};
    net->timer.fire = timer_fired;
    net->service_added = true; /* before the service thread can see it */
    enum rail_result r = service_add(&net->source, EPOLLIN | EPOLLONESHOT);
    if (r != RAIL_OK) {
        net->service_added = false;
        return r;
    }
    net_fork_handlers_add();
    return RAIL_OK;
}

void net_service_stop(struct net *net)
{
    if (!net->service_added) return;
    service_remove(&net->source);
    service_timer_cancel(&net->timer);
    net->service_added = false;
}
