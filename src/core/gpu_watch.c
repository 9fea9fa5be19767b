/* gpu_watch.c - see gpu_watch.h. */
#include "core/gpu_watch.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>

#include "base/futex.h"
#include "base/thread.h"
#include "core/collective.h"
#include "core/comm.h"
#include "core/reach.h"
#include "engine/gpu.h"

#define LONG_NS (100 * RAIL_NS_PER_MS)           /* a launch that has not moved for so long is looked into */
#define LOOK_EVERY_NS (50 * RAIL_NS_PER_MS)
#define NEWS_PATIENCE_NS RAIL_NS_PER_S           /* as in collective.c: who failed is told by others, and better */
#define VERDICT_PATIENCE_NS (3 * RAIL_NS_PER_S)
#define NAP_NS RAIL_NS_PER_MS                     /* while kernels run within a node: nothing waits for us */
#define GRAPH_NAP_NS (200 * RAIL_NS_PER_US)      /* what a replay may wait for its first slot */
#define IDLE_GRAPH_NAP_NS (50 * RAIL_NS_PER_MS)  /* within a node nothing waits for us, but what a replay finds wrong is told */
#define BUSY_TURNS 2000                          /* looks at relays, some 0.5 us each, before the first nap */

static struct {
    pthread_mutex_t lock;   /* protects the list; held while communicators are looked at */
    struct comm *first;
    bool running;
    _Atomic uint32_t wakes; /* counts; what the thread sleeps on */
    _Atomic bool asleep;
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER};

void gpu_watch_wake(void)
{
    atomic_fetch_add(&watch.wakes, 1);
    if (atomic_load(&watch.asleep)) rail_futex_wake(&watch.wakes, 1);
}

/* ---- one communicator ---- */

static void fail(struct comm *comm, uint32_t culprit, enum rail_result result, const char *text)
{
    if (fault_raise(&comm->fault, result, text)) bootstrap_tell(comm->bootstrap, culprit, result, text);
}

/* As comm_failed, without waiting: there are others to look after. */
static void note_failure(struct comm *comm, enum rail_result result, uint64_t now_ns)
{
    struct gpu_watched *w = &comm->gpu_watched;
    int blamed = rail_blamed();
    if (w->failed != RAIL_OK) return;
    snprintf(w->why, sizeof w->why, "%s", rail_own_error());
    bool weighed = result == RAIL_E_REMOTE && blamed >= 0 && (uint32_t)blamed < comm->n_ranks;
    if (weighed) bootstrap_accuse(comm->bootstrap, (uint32_t)blamed, BOOTSTRAP_LINK_FAILED, w->why);
    w->failed = result;
    w->failed_ns = now_ns + (result != RAIL_E_REMOTE ? 0 : weighed ? VERDICT_PATIENCE_NS : NEWS_PATIENCE_NS);
}

/* Whom a launch waits for, as far as the node's lines tell: those who have not begun the call that I am in. */
static void waits_of(const struct comm *comm, struct waits *out)
{
    const struct host_node *node = &comm->node;
    uint32_t n = node->segment.geometry.n_peers;
    struct calls_history mine, theirs;
    *out = (struct waits){0};
    calls_history_of(node, node->self, &mine);
    for (uint32_t k = 1; k < n && out->n < WAITS_MOST; k++) {
        uint32_t peer = (node->self + k) % n;
        calls_history_of(node, peer, &theirs);
        if (theirs.number < mine.number) out->on[out->n++] = (struct waits_on){node->ranks[peer], WAITS_FOR_DATA};
    }
    if (out->n == 0 && n > 1) out->on[out->n++] = (struct waits_on){node->ranks[(node->self + 1) % n], WAITS_FOR_DATA};
}

/* It is in a call and does not get on. */
static void look_into(struct comm *comm, uint64_t now_ns)
{
    struct waits waits;
    enum rail_result result = calls_compare_node(&comm->node);
    if (result != RAIL_OK) {
        note_failure(comm, result, now_ns);
        return;
    }
    if (watch_due(comm)) {
        waits_of(comm, &waits);
        watch_look(comm, &waits);
    }
    reach_look(comm);
}

static void settle_calls(struct comm *comm)
{
    calls_end(&comm->node);
    watch_end(&comm->watch, comm);
}

/* True while it wants to be looked at again soon. */
static bool look_at(struct comm *comm, uint64_t now_ns, bool *moved)
{
    struct gpu_watched *w = &comm->gpu_watched;
    struct gpu_state state;
    enum rail_result failed = RAIL_OK;
    gpu_look(comm->gpu, &state);
    if (atomic_load_explicit(&comm->fault.stop, memory_order_acquire)) {
        gpu_release_waits(comm->gpu);
        return state.waiting;
    }
    *moved |= gpu_progress(comm->gpu, &failed);
    if (failed != RAIL_OK) note_failure(comm, failed, now_ns);
    else if ((failed = gpu_trouble(comm->gpu)) != RAIL_OK) note_failure(comm, failed, now_ns);
    if (failed == RAIL_OK && (failed = onesided_look_on(comm)) != RAIL_OK) note_failure(comm, failed, now_ns);
    if (w->failed != RAIL_OK && now_ns >= w->failed_ns) fail(comm, comm->rank, w->failed, w->why);
    bool busy = state.inside || state.waiting;
    if (state.moved != w->moved || !state.inside) w->moved_ns = now_ns;
    w->moved = state.moved;
    if (w->busy && !busy) settle_calls(comm);
    w->busy = busy;
    if (state.inside && now_ns - w->moved_ns >= LONG_NS && now_ns - w->looked_ns >= LOOK_EVERY_NS) {
        w->looked_ns = now_ns;
        look_into(comm, now_ns);
    }
    return busy || w->failed != RAIL_OK || !gpu_drained(comm->gpu) || (state.graphs && comm->networked);
}

/* ---- the thread ---- */

struct look { bool any, busy, graphs, network, moved; };

static struct look look_at_all(void)
{
    struct look look = {0};
    uint64_t now_ns = rail_now_ns();
    pthread_mutex_lock(&watch.lock);
    for (struct comm *c = watch.first; c; c = c->gpu_watched.next) {
        look.any = true;
        bool busy = look_at(c, now_ns, &look.moved);
        look.busy |= busy;
        look.graphs |= gpu_has_graphs(c->gpu);
        look.network |= busy && c->networked;
    }
    if (!look.any) watch.running = false;
    pthread_mutex_unlock(&watch.lock);
    return look;
}

/* Until something is launched. */
static void sleep_on(uint32_t seen, uint64_t ns)
{
    atomic_store(&watch.asleep, true);
    if (atomic_load(&watch.wakes) == seen) rail_futex_wait(&watch.wakes, seen, ns);
    atomic_store(&watch.asleep, false);
}

static void nap(void)
{
    struct timespec t = {0, NAP_NS};
    nanosleep(&t, NULL);
}

static void *watch_main(void *unused)
{
    uint32_t quiet = 0;
    bool driving = false;
    (void)unused;
    for (;;) {
        uint32_t seen = atomic_load(&watch.wakes);
        struct look look = look_at_all();
        if (look.network && !driving) net_enter();
        if (!look.network && driving) net_leave();
        driving = look.network;
        if (!look.any) return NULL;
        if (driving) look.moved |= net_progress();
        quiet = look.moved ? 0 : quiet + 1;
        if (!look.busy) sleep_on(seen, look.graphs ? IDLE_GRAPH_NAP_NS : UINT64_MAX);
        else if (!driving) nap();
        else if (quiet > BUSY_TURNS) sleep_on(seen, GRAPH_NAP_NS);
        else if (quiet > 16) sched_yield();
    }
}

enum rail_result gpu_watch_add(struct comm *comm)
{
    enum rail_result result = RAIL_OK;
    pthread_mutex_lock(&watch.lock);
    if (!watch.running) result = rail_thread_start("ncclCommInitRank", watch_main, NULL, NULL);
    if (result == RAIL_OK) {
        watch.running = true;
        comm->gpu_watched = (struct gpu_watched){.next = watch.first};
        watch.first = comm;
        comm->gpu_watched.moved_ns = rail_now_ns();
    }
    pthread_mutex_unlock(&watch.lock);
    return result;
}

void gpu_watch_drop(struct comm *comm)
{
    pthread_mutex_lock(&watch.lock);
    for (struct comm **at = &watch.first; *at; at = &(*at)->gpu_watched.next)
        if (*at == comm) {
            *at = comm->gpu_watched.next;
            break;
        }
    pthread_mutex_unlock(&watch.lock);
    gpu_watch_wake(); /* the last one: the thread ends */
}
