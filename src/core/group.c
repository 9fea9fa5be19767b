/* group.c - collects a thread's calls until its outermost end. */
#include "core/group.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/gpu_rank.h"
#include "core/posted.h"
#include "core/queue.h"

/* The streams that a group's calls name. */
struct named {
    struct stream **streams;
    int n, capacity;
    bool waits; /* some calls name none: done when the group's end returns */
};

static _Thread_local struct {
    int depth;
    struct queue *queues;
    struct named named;
    struct making *makings, *last_making;
    struct window_call *windows, *ended_windows;
    enum rail_result refused; /* the first failure inside */
    bool watched;             /* the end of the thread finds it */
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
    window_calls_free(group.windows);
    window_calls_free(group.ended_windows);
    queues_free(group.queues);
    free(group.named.streams);
}

static void make_key(void) { pthread_key_create(&end_of_thread, forget); }

static void watch_thread(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_key);
    group.watched = pthread_setspecific(end_of_thread, &group) == 0;
}

void group_start(void)
{
    if (__builtin_expect(!group.watched, 0)) watch_thread();
    group.depth++;
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

/* ---- streams ---- */

enum rail_result group_on_stream(struct stream *stream)
{
    struct named *named = &group.named;
    if (!stream) named->waits = true;
    if (!stream) return RAIL_OK;
    for (int k = 0; k < named->n; k++)
        if (named->streams[k] == stream) return RAIL_OK;
    if (named->n == named->capacity) {
        int capacity = named->capacity ? 2 * named->capacity : 4;
        struct stream **more = realloc(named->streams, (size_t)capacity * sizeof(struct stream *));
        if (!more) return rail_fail(RAIL_E_SYSTEM, "out of memory for one more stream of the group");
        named->streams = more;
        named->capacity = capacity;
    }
    named->streams[named->n++] = stream;
    return RAIL_OK;
}

enum rail_result group_on_gpu_stream(struct comm *comm, cu_stream stream)
{
    return queue_on_gpu_stream(&group.queues, comm, stream);
}

/* Calls with and without a stream in one group: it is one piece of work, and the latter want to see its end. */
static enum rail_result see_through(struct queue *queues, const struct named *named)
{
    enum rail_result result = RAIL_OK;
    struct comm **comms = NULL;
    size_t n = 0;
    for (struct queue *q = queues; q; q = q->next) n++;
    comms = malloc(n * sizeof(struct comm *));
    if (!comms) return rail_fail(RAIL_E_SYSTEM, "ncclGroupEnd: out of memory");
    n = 0;
    for (struct queue *q = queues; q; q = q->next) comms[n++] = q->comm;
    result = queues_post(queues, named->streams, named->n);
    bool posted = result == RAIL_OK;
    for (size_t k = 0; posted && k < n; k++) {
        comm_settle(comms[k]);
        if (result == RAIL_OK) result = fault_result(&comms[k]->fault);
    }
    free(comms);
    if (!posted) queues_free(queues);
    return result;
}

/* Takes the queues. */
static enum rail_result operations_run(struct queue *queues, const struct named *named)
{
    enum rail_result result = queues_check(queues);
    if (result == RAIL_OK) result = gpu_rank_enqueue(&queues); /* first: host ranks may wait for them in this very thread */
    if (result == RAIL_OK && queues && named->n && named->waits) return see_through(queues, named);
    if (result == RAIL_OK && queues && named->n) {
        result = queues_post(queues, named->streams, named->n);
        if (result == RAIL_OK) return RAIL_OK;
    } else if (result == RAIL_OK && queues) {
        for (struct queue *q = queues; q; q = q->next) comm_settle(q->comm);
        for (struct queue *q = queues; q && result == RAIL_OK; q = q->next) result = comm_alone(q->comm, "ncclGroupEnd");
        if (result == RAIL_OK) result = queues_run(queues);
    }
    queues_free(queues);
    return result;
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

enum rail_result group_add_onesided(struct onesided_op *op) { return queue_add_onesided(&group.queues, op); }

/* Windows are there before the group's operations, and go after them. */
enum rail_result group_add_window(const struct window_call *call)
{
    return window_calls_add(call->ends ? &group.ended_windows : &group.windows, call);
}

/* What the outermost end takes over: the thread's group is empty afterwards. */
struct taken {
    struct making *makings;
    struct window_call *windows, *ended_windows;
    struct queue *queues;
    struct named named;
    enum rail_result refused;
};

static struct taken take(void)
{
    struct taken t = {group.makings, group.windows, group.ended_windows, group.queues, group.named, group.refused};
    group.makings = group.last_making = NULL;
    group.windows = group.ended_windows = NULL;
    group.queues = NULL;
    group.named = (struct named){0};
    group.refused = RAIL_OK;
    return t;
}

static void taken_free(struct taken *t)
{
    makings_free(t->makings);
    window_calls_free(t->windows);
    window_calls_free(t->ended_windows);
    queues_free(t->queues);
    free(t->named.streams);
}

enum rail_result group_end(void)
{
    if (group.depth == 0)
        return rail_fail(RAIL_E_USAGE, "ncclGroupEnd: this thread has no open group; call ncclGroupStart first");
    if (--group.depth > 0) return RAIL_OK;
    struct taken t = take();
    if (t.refused != RAIL_OK) {
        taken_free(&t);
        return rail_fail_quietly(t.refused, "%s; none of the group's calls was started", group.why);
    }
    enum rail_result made = t.makings ? makings_run(t.makings) : RAIL_OK;
    enum rail_result windowed = window_calls_run(t.windows);
    enum rail_result ran = operations_run(t.queues, &t.named);
    if (windowed != RAIL_OK) ran = windowed;
    windowed = window_calls_run(t.ended_windows);
    if (ran == RAIL_OK) ran = windowed;
    free(t.named.streams);
    return ran != RAIL_OK && (made == RAIL_OK || made == RAIL_IN_PROGRESS) ? ran : made;
}

enum rail_result group_simulate_end(double *ns)
{
    if (group.depth == 0)
        return rail_fail(RAIL_E_USAGE, "ncclGroupSimulateEnd: this thread has no open group; call ncclGroupStart "
                         "first");
    if (--group.depth > 0) return RAIL_OK;
    struct taken t = take();
    enum rail_result result = t.refused;
    if (result != RAIL_OK)
        (void)rail_fail_quietly(result, "%s; nothing was predicted", group.why);
    else if (t.makings || t.windows || t.ended_windows)
        result = rail_fail(RAIL_E_USAGE, "ncclGroupSimulateEnd: making communicators and registering windows is not "
                           "predicted, and was not done; put operations alone into the group");
    else
        result = queues_predict(t.queues, ns);
    taken_free(&t);
    return result;
}
