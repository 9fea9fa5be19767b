/* stream.c - a queue and a thread per stream; a joint where streams meet. */
#include "core/stream.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/futex.h"
#include "base/thread.h"

/* Where streams meet for one piece of work. */
struct joint {
    struct stream_work *work;
    uint32_t n_missing; /* streams that have not come to it yet */
    uint32_t n_users;   /* streams that have not left it yet */
    _Atomic uint32_t done;
};

struct entry {
    struct entry *next;
    struct joint *joint;
};

struct stream {
    struct stream *next; /* of the process's streams */
    pid_t pid;
    struct entry *first, *last;
    _Atomic uint32_t posted, finished; /* entries; futexes: changed, then woken */
    bool ending;
    pthread_t thread;
};

static pthread_mutex_t streams_lock = PTHREAD_MUTEX_INITIALIZER; /* protects the list, the queues, the joints' numbers */
static struct stream *streams;

/* ---- the thread ---- */

static struct entry *take(struct stream *s)
{
    pthread_mutex_lock(&streams_lock);
    struct entry *e = s->first;
    if (e && !(s->first = e->next)) s->last = NULL;
    pthread_mutex_unlock(&streams_lock);
    return e;
}

static bool last_to_come(struct joint *joint)
{
    pthread_mutex_lock(&streams_lock);
    bool last = --joint->n_missing == 0;
    pthread_mutex_unlock(&streams_lock);
    return last;
}

static void leave(struct joint *joint)
{
    pthread_mutex_lock(&streams_lock);
    bool last = --joint->n_users == 0;
    pthread_mutex_unlock(&streams_lock);
    if (last) free(joint);
}

static void pass(struct joint *joint)
{
    if (last_to_come(joint)) {
        joint->work->run(joint->work);
        atomic_store_explicit(&joint->done, 1, memory_order_release);
        rail_futex_wake(&joint->done, INT_MAX);
    } else {
        /* as long as the work takes, which has its own deadlines and aborts */
        while (!atomic_load_explicit(&joint->done, memory_order_acquire)) rail_futex_wait(&joint->done, 0, UINT64_MAX);
    }
    leave(joint);
}

static void *stream_main(void *argument)
{
    struct stream *s = argument;
    for (;;) {
        uint32_t seen = atomic_load_explicit(&s->posted, memory_order_acquire);
        struct entry *e = take(s);
        if (e) {
            pass(e->joint);
            free(e);
            atomic_fetch_add_explicit(&s->finished, 1, memory_order_release);
            rail_futex_wake(&s->finished, INT_MAX);
            continue;
        }
        pthread_mutex_lock(&streams_lock);
        bool ending = s->ending;
        pthread_mutex_unlock(&streams_lock);
        if (ending) return NULL;
        rail_futex_wait(&s->posted, seen, UINT64_MAX);
    }
}

/* ---- life ---- */

enum rail_result stream_create(struct stream **out)
{
    struct stream *s = calloc(1, sizeof *s);
    if (!s) return rail_fail(RAIL_E_SYSTEM, "railStreamCreate: out of memory");
    s->pid = getpid();
    enum rail_result result = rail_thread_start("railStreamCreate", stream_main, s, &s->thread);
    if (result != RAIL_OK) {
        free(s);
        return result;
    }
    pthread_mutex_lock(&streams_lock);
    s->next = streams;
    streams = s;
    pthread_mutex_unlock(&streams_lock);
    *out = s;
    return RAIL_OK;
}

bool stream_lives(const void *stream)
{
    pthread_mutex_lock(&streams_lock);
    const struct stream *s = streams;
    while (s && s != stream) s = s->next;
    bool lives = s && s->pid == getpid(); /* after a fork the child has the list, and not the threads */
    pthread_mutex_unlock(&streams_lock);
    return lives;
}

static enum rail_result check(const char *call, const struct stream *stream)
{
    if (stream_lives(stream)) return RAIL_OK;
    return rail_fail(RAIL_E_ARGUMENT, "%s: %p is no living stream of this process: pass what railStreamCreate gave, before "
                     "railStreamDestroy", call, (const void *)stream);
}

static void await_posted(struct stream *s)
{
    uint32_t goal = atomic_load_explicit(&s->posted, memory_order_acquire), seen;
    while ((int32_t)((seen = atomic_load_explicit(&s->finished, memory_order_acquire)) - goal) < 0)
        rail_futex_wait(&s->finished, seen, UINT64_MAX); /* work has its own deadlines and aborts */
}

enum rail_result stream_synchronize(struct stream *s)
{
    RAIL_TRY(check("railStreamSynchronize", s));
    await_posted(s);
    return RAIL_OK;
}

enum rail_result stream_query(struct stream *s)
{
    RAIL_TRY(check("railStreamQuery", s));
    uint32_t finished = atomic_load_explicit(&s->finished, memory_order_acquire);
    return finished == atomic_load_explicit(&s->posted, memory_order_acquire) ? RAIL_OK : RAIL_IN_PROGRESS;
}

static bool unlist(struct stream *s)
{
    struct stream **at = &streams;
    while (*at && *at != s) at = &(*at)->next;
    if (!*at) return false;
    *at = s->next;
    return true;
}

enum rail_result stream_destroy(struct stream *s)
{
    RAIL_TRY(check("railStreamDestroy", s));
    pthread_mutex_lock(&streams_lock);
    bool mine = unlist(s); /* two threads may destroy it at once */
    if (mine) {
        s->ending = true;
        atomic_fetch_add_explicit(&s->posted, 1, memory_order_release); /* wakes the thread */
    }
    pthread_mutex_unlock(&streams_lock);
    if (!mine) return check("railStreamDestroy", s);
    rail_futex_wake(&s->posted, 1);
    pthread_join(s->thread, NULL);
    free(s);
    return RAIL_OK;
}

/* ---- posting ---- */

static void append(struct stream *s, struct entry *e)
{
    if (s->last)
        s->last->next = e;
    else
        s->first = e;
    s->last = e;
    atomic_fetch_add_explicit(&s->posted, 1, memory_order_release);
}

static void entries_free(struct entry *entries)
{
    while (entries) {
        struct entry *next = entries->next;
        free(entries);
        entries = next;
    }
}

enum rail_result streams_post(struct stream *const *to, int n, struct stream_work *work)
{
    struct joint *joint = malloc(sizeof *joint);
    struct entry *entries = NULL;
    int made = 0;
    for (; joint && made < n; made++) {
        struct entry *e = malloc(sizeof *e);
        if (!e) break;
        *e = (struct entry){.next = entries, .joint = joint};
        entries = e;
    }
    if (!joint || made < n) {
        entries_free(entries);
        free(joint);
        return rail_fail(RAIL_E_SYSTEM, "one more call on %d streams: out of memory", n);
    }
    *joint = (struct joint){.work = work, .n_missing = (uint32_t)n, .n_users = (uint32_t)n};
    pthread_mutex_lock(&streams_lock);
    for (int k = 0; k < n; k++) {
        struct entry *e = entries;
        entries = e->next;
        e->next = NULL;
        append(to[k], e);
    }
    pthread_mutex_unlock(&streams_lock);
    for (int k = 0; k < n; k++) rail_futex_wake(&to[k]->posted, 1);
    return RAIL_OK;
}
