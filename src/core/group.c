/* group.c - collects a thread's calls until its outermost end. */
#include "core/group.h"

#include <pthread.h>
#include <stdio.h>

#include "core/queue.h"

static _Thread_local struct {
    int depth;
    struct queue *queues;
    struct making *makings, *last_making;
    enum rail_result refused; /* the first failure inside */
    char why[512];
} group;

bool group_open(void) { return group.depth > 0; }

enum rail_result group_noted(enum rail_result result)
{
    if (result == RAIL_OK || result == RAIL_IN_PROGRESS || group.depth == 0 || group.refused != RAIL_OK) return result;
    group.refused = result;
    snprintf(group.why, sizeof group.why, "%s", rail_own_error());
    return result;
}

/* ---- a thread that ends inside a group ---- */

static pthread_key_t end_of_thread;

static void forget(void *unused)
{
    (void)unused;
    makings_free(group.makings);
    queues_free(group.queues);
}

static void make_key(void) { pthread_key_create(&end_of_thread, forget); }

void group_start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_key);
    if (group.depth++ == 0) pthread_setspecific(end_of_thread, &group);
}

/* ---- new communicators ---- */

enum rail_result group_add_making(const struct making *like)
{
    struct making *m = making_copy(like);
    if (!m) return RAIL_E_SYSTEM;
    if (group.last_making) group.last_making->next = m;
    else group.makings = m;
    group.last_making = m;
    return RAIL_OK;
}

/* ---- operations ---- */

enum rail_result group_add_collective(struct comm *comm, const struct collective *args)
{
    return queue_add_collective(&group.queues, comm, args);
}

enum rail_result group_add_p2p(struct comm *comm, const struct p2p_call *args)
{
    return queue_add_p2p(&group.queues, comm, args);
}

enum rail_result group_end(void)
{
    if (group.depth == 0)
        return rail_fail(RAIL_E_USAGE, "ncclGroupEnd: this thread has no open group; call ncclGroupStart first");
    if (--group.depth > 0) return RAIL_OK;
    struct making *makings = group.makings;
    struct queue *queues = group.queues;
    enum rail_result refused = group.refused;
    group.makings = group.last_making = NULL;
    group.queues = NULL;
    group.refused = RAIL_OK;
    pthread_setspecific(end_of_thread, NULL);
    if (refused != RAIL_OK) {
        makings_free(makings);
        queues_free(queues);
        return rail_fail_quietly(refused, "%s; none of the group's calls was started", group.why);
    }
    enum rail_result made = makings ? makings_run(makings) : RAIL_OK;
    enum rail_result ran = queues_check(queues);
    if (ran == RAIL_OK && queues) ran = queues_run(queues);
    queues_free(queues);
    return ran != RAIL_OK && (made == RAIL_OK || made == RAIL_IN_PROGRESS) ? ran : made;
}
