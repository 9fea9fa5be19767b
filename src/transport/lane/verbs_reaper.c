/* verbs_reaper.c - what a device has to let go of, queue pairs and registrations, is asked back by a thread of the
 * port's own: a device that is failing may take a minute over each call (its firmware's time limit), or never come back
 * from it.
 *
 *   verbs_connection_free, lane_memory_forget --> leaving --thread--> gone --verbs_port_collect--> owners are told
 *
 * The thread is there while there is something to do. One lock for the lists of all ports; nothing of a device is
 * called under it. */
#include "transport/lane/verbs_state.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"

#ifdef RAIL_HAVE_VERBS

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct verbs_port *all_kept; /* closed, and not given back: its device is still at it */

/* One user less. */
static void unmap(struct verbs_mapping *mapping)
{
    if (!mapping || atomic_fetch_sub(&mapping->users, 1) > 1) return;
    munmap(mapping->base, mapping->bytes);
    free(mapping);
}

static void let_go(struct verbs_port *p, struct verbs_leaving *item)
{
    if (item->connection) {
        verbs_connection_let_go(item->connection);
        return;
    }
    if (item->id) {
        verbs_manager_let_go(p, &item->id); /* where it is refused, it is left */
        return;
    }
    if (p->f->dereg_mr(item->mr) != 0) /* the device may still reach the memory: it stays mapped */
        RAIL_WARN("ibv_dereg_mr(%s) of %zu bytes: %s", p->name, item->bytes, strerror(errno));
    else
        unmap(item->mapping);
}

/* Lock held. What nobody waits for is over with that. */
static void finished(struct verbs_port *p, struct verbs_leaving *item)
{
    if (item->connection && (item->connection->n_lent > 0 || item->connection->watcher)) {
        item->next = p->gone;
        p->gone = item;
    } else if (item->connection) {
        verbs_connection_forget(item->connection);
    } else {
        free(item);
    }
}

static void *reap(void *argument)
{
    struct verbs_port *p = argument;
    pthread_mutex_lock(&lock);
    for (struct verbs_leaving *item; (item = p->leaving) != NULL;) {
        p->leaving = item->next;
        if (!p->leaving) p->leaving_last = NULL;
        atomic_store(&p->at_it_since_ns, rail_now_ns());
        pthread_mutex_unlock(&lock);
        let_go(p, item);
        pthread_mutex_lock(&lock);
        atomic_store(&p->at_it_since_ns, 0);
        finished(p, item);
    }
    p->reaping = false; /* from here on the port may be closed */
    (void)eventfd_write(p->gone_fd, 1);
    pthread_mutex_unlock(&lock);
    return NULL;
}

void verbs_reaper_give(struct verbs_port *p, struct verbs_leaving *item)
{
    item->next = NULL;
    pthread_mutex_lock(&lock);
    if (p->leaving_last) p->leaving_last->next = item;
    else p->leaving = item;
    p->leaving_last = item;
    bool start = !p->reaping;
    p->reaping = true;
    pthread_mutex_unlock(&lock);
    /* Without a thread it is done here, for as long as it takes. */
    if (start && rail_thread_start("closing a lane by RDMA", reap, p, NULL) != RAIL_OK) (void)reap(p);
}

static void forget(struct lane_memory *memory, struct verbs_mapping *mapping)
{
    for (uint32_t i = 0; i < VERBS_PLACES; i++) {
        struct verbs_port *p = memory->port[i];
        if (!memory->at[i]) continue;
        struct verbs_leaving *item = calloc(1, sizeof *item);
        struct verbs_leaving here = {.mr = memory->at[i], .bytes = memory->bytes, .mapping = mapping};
        memory->at[i] = NULL;
        if (mapping) atomic_fetch_add(&mapping->users, 1);
        if (item) *item = here, verbs_reaper_give(p, item);
        else let_go(p, &here);
    }
}

void lane_memory_forget(struct lane_memory *memory) { forget(memory, NULL); }

void lane_memory_unmap(struct lane_memory *memory)
{
    struct verbs_mapping *mapping = memory->base ? calloc(1, sizeof *mapping) : NULL;
    if (mapping) *mapping = (struct verbs_mapping){.users = 1, .base = memory->base, .bytes = memory->bytes};
    forget(memory, mapping);
    unmap(mapping);
    memory->base = NULL;
}

uint64_t verbs_port_at_it_ns(struct verbs_port *p)
{
    uint64_t since_ns = atomic_load(&p->at_it_since_ns), now_ns = rail_now_ns();
    return since_ns && now_ns > since_ns ? now_ns - since_ns : 0;
}

void verbs_port_collect(struct verbs_port *p)
{
    eventfd_t some;
    (void)eventfd_read(p->gone_fd, &some); /* before the list is taken: what comes later is told anew */
    pthread_mutex_lock(&lock);
    struct verbs_leaving *item = p->gone;
    p->gone = NULL;
    pthread_mutex_unlock(&lock);
    while (item) {
        struct verbs_connection *c = item->connection;
        item = item->next;
        for (uint32_t i = 0; i < c->n_lent; i++) c->sink->sent(NULL, c->lent[i].owner, c->lent[i].lent);
        if (c->watcher && !c->held) c->sink->gone(c->watcher);
        verbs_connection_forget(c);
    }
}

bool verbs_port_wait(struct verbs_port *p, struct rail_deadline deadline)
{
    const struct timespec ms = {.tv_nsec = (long)RAIL_NS_PER_MS};
    for (;;) {
        pthread_mutex_lock(&lock);
        bool busy = p->reaping;
        pthread_mutex_unlock(&lock);
        if (!busy || rail_deadline_passed(deadline)) return !busy;
        nanosleep(&ms, NULL);
    }
}

void verbs_reaper_keep(struct verbs_port *p)
{
    pthread_mutex_lock(&lock);
    p->next_kept = all_kept;
    all_kept = p;
    pthread_mutex_unlock(&lock);
}

void verbs_reaper_fork_prepare(void) { pthread_mutex_lock(&lock); }
void verbs_reaper_fork_parent(void) { pthread_mutex_unlock(&lock); }
void verbs_reaper_fork_child(void) { pthread_mutex_init(&lock, NULL); }

/* What the thread is at this moment is closed by nobody here: its descriptor's number may be another's already. */
void verbs_reaper_abandon(struct verbs_port *p)
{
    for (const struct verbs_leaving *item = p->leaving; item; item = item->next)
        if (item->connection && item->connection->channel) close(item->connection->channel->fd);
    close(p->gone_fd);
}

#else

void lane_memory_forget(struct lane_memory *memory) { (void)memory; }

void lane_memory_unmap(struct lane_memory *memory)
{
    if (memory->base) munmap(memory->base, memory->bytes);
    memory->base = NULL;
}

bool lane_memory_offer(struct lane_memory *memory, struct verbs_port *port, uint32_t *key)
{
    (void)memory, (void)port, (void)key;
    return false;
}

bool lane_memory_lend(struct lane_memory *memory, struct verbs_port *port)
{
    (void)memory, (void)port;
    return false;
}

uint64_t verbs_port_at_it_ns(struct verbs_port *port)
{
    (void)port;
    return 0;
}

void verbs_port_collect(struct verbs_port *port) { (void)port; }

bool verbs_port_wait(struct verbs_port *port, struct rail_deadline deadline)
{
    (void)port, (void)deadline;
    return true;
}

void verbs_reaper_fork_prepare(void) {}
void verbs_reaper_fork_parent(void) {}
void verbs_reaper_fork_child(void) {}

#endif
