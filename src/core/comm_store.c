/* comm_store.c - the oldest destroyed communicator is the next one's memory, once REST of them lie about: a stale
 * handle stays recognisable for as long as that takes, and memory stays bounded by the most that ever lived at once.
 *
 * fork: what the child inherits of a communicator is a copy of its memory, and the same shared segment as the parent's.
 * A call of the child would be a second rank of the same number, so all of them are marked as the parent's. */
#include "core/comm_store.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { REST = 32 };

static pthread_mutex_t store_lock = PTHREAD_MUTEX_INITIALIZER; /* protects the queue and the list */
static struct comm *ever;                                      /* linked by next_ever */
static struct comm *oldest, *newest;                           /* linked by next_retired */
static int n_resting;

static struct comm *take_oldest(void)
{
    pthread_mutex_lock(&store_lock);
    struct comm *comm = n_resting > REST ? oldest : NULL;
    if (comm) {
        oldest = comm->next_retired;
        if (!oldest) newest = NULL;
        n_resting--;
    }
    pthread_mutex_unlock(&store_lock);
    return comm;
}

/* ---- fork: the lock is a leaf, so the order among other handlers does not matter ---- */

static void fork_prepare(void) { pthread_mutex_lock(&store_lock); }
static void fork_parent(void) { pthread_mutex_unlock(&store_lock); }

static void fork_child(void)
{
    pthread_mutex_init(&store_lock, NULL);
    for (struct comm *comm = ever; comm; comm = comm->next_ever)
        if (atomic_load(&comm->magic)) atomic_store(&comm->magic, COMM_OF_PARENT);
}

static void add_fork_handlers(void) { (void)pthread_atfork(fork_prepare, fork_parent, fork_child); }

static struct comm *make(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, add_fork_handlers);
    struct comm *comm = calloc(1, sizeof *comm);
    if (!comm) return NULL;
    pthread_mutex_lock(&store_lock);
    comm->next_ever = ever;
    ever = comm;
    pthread_mutex_unlock(&store_lock);
    return comm;
}

struct comm *comm_store_take(void)
{
    struct comm *comm = take_oldest();
    if (!comm) return make();
    pthread_mutex_lock(&store_lock); /* it is still in the list that comm_store_each walks */
    struct comm *next = comm->next_ever;
    memset(comm, 0, sizeof *comm);
    comm->next_ever = next;
    pthread_mutex_unlock(&store_lock);
    return comm;
}

/* Lock held. */
static void rest(struct comm *comm)
{
    comm->next_retired = NULL;
    if (newest)
        newest->next_retired = comm;
    else
        oldest = comm;
    newest = comm;
    n_resting++;
}

struct comm *comm_store_ever(void)
{
    pthread_mutex_lock(&store_lock);
    struct comm *first = ever;
    pthread_mutex_unlock(&store_lock);
    return first;
}

void comm_store_each(bool (*visit)(const struct comm *comm, void *owner), void *owner)
{
    pthread_mutex_lock(&store_lock);
    for (const struct comm *comm = ever; comm && visit(comm, owner); comm = comm->next_ever) continue;
    pthread_mutex_unlock(&store_lock);
}

void comm_store_give(struct comm *comm)
{
    pthread_mutex_lock(&store_lock);
    comm->retired = true;
    if (comm->n_keepers == 0) rest(comm);
    pthread_mutex_unlock(&store_lock);
}

void comm_store_keep(struct comm *comm)
{
    pthread_mutex_lock(&store_lock);
    comm->n_keepers++;
    pthread_mutex_unlock(&store_lock);
}

void comm_store_drop(struct comm *comm)
{
    pthread_mutex_lock(&store_lock);
    if (--comm->n_keepers == 0 && comm->retired) rest(comm);
    pthread_mutex_unlock(&store_lock);
}
