/* comm_store.c - the oldest destroyed communicator is the next one's memory, once REST of them lie about: a stale
 * handle stays recognisable for as long as that takes, and memory stays bounded by the most that ever lived at once. */
#include "core/comm_store.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { REST = 32 };

static pthread_mutex_t store_lock = PTHREAD_MUTEX_INITIALIZER; /* protects the queue */
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

struct comm *comm_store_take(void)
{
    struct comm *comm = take_oldest();
    if (!comm) return calloc(1, sizeof *comm);
    memset(comm, 0, sizeof *comm);
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
