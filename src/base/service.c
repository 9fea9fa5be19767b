/* service.c - the one service thread: epoll, a timerfd, and a heap of timers.
 *
 *   any thread --add, modify--> epoll set --+
 *   any thread --set--> heap --> timerfd ---+--> epoll_wait (no timeout) --> one callback at a time, lock not held
 *
 * epoll_ctl and timerfd_settime reach a sleeping epoll_wait by themselves, so nothing else wakes the thread, and it
 * never wakes without work. A timerfd rather than epoll's timeout: nanoseconds instead of milliseconds.
 *
 * One mutex protects everything below. A callback is announced in `running` before the lock is dropped and withdrawn
 * after it is taken back; remove and cancel wait for that. An event carries the source's id (a number never given
 * twice, also not across fork), so one that was fetched before its source went away finds nobody. */
#include "base/service.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"

enum { EVENTS_AT_ONCE = 64, TIMER_ID = 0 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t finished; /* a callback returned */
    bool started, fork_handled;
    int epoll_fd, timer_fd;
    uint32_t epoch; /* counts forks: a thread of an earlier one ends itself */

    struct service_source **sources; /* by the low half of the id; NULL: free */
    uint32_t n_places;
    uint32_t generation; /* the next id's high half, starts at 1 */

    struct service_timer **heap; /* [1 .. n_timers], earliest first; [0] unused, so that index 0 says "not set" */
    uint32_t n_timers, heap_places;
    uint64_t armed_ns; /* what the timerfd is set to; 0: off */

    const void *inherited[2]; /* a child's copies of its parent's tables: what they lead to is in use, not leaked */

    const void *running;  /* the source or timer whose callback runs; NULL: none */
    uint64_t n_callbacks; /* tells this run of a callback from its next */
} service = {.lock = PTHREAD_MUTEX_INITIALIZER, .finished = PTHREAD_COND_INITIALIZER, .epoll_fd = -1, .timer_fd = -1};

static _Thread_local bool on_service_thread;

/* ---- the heap ---- */

static void heap_put(uint32_t i, struct service_timer *timer)
{
    service.heap[i] = timer;
    timer->heap_index = i;
}

/* Moves the timer at i to where it belongs. */
static void heap_sift(uint32_t i)
{
    struct service_timer *timer = service.heap[i];
    for (; i > 1 && service.heap[i / 2]->at_ns > timer->at_ns; i /= 2) heap_put(i, service.heap[i / 2]);
    for (uint32_t child; (child = 2 * i) <= service.n_timers; i = child) {
        if (child < service.n_timers && service.heap[child + 1]->at_ns < service.heap[child]->at_ns) child++;
        if (service.heap[child]->at_ns >= timer->at_ns) break;
        heap_put(i, service.heap[child]);
    }
    heap_put(i, timer);
}

/* An index left over from before a fork points at nothing or at another timer. */
static bool heap_has(const struct service_timer *timer)
{
    uint32_t i = timer->heap_index;
    return i > 0 && i <= service.n_timers && service.heap[i] == timer;
}

static void heap_remove(struct service_timer *timer)
{
    uint32_t i = timer->heap_index;
    struct service_timer *last = service.heap[service.n_timers--];
    timer->heap_index = 0;
    if (last == timer) return;
    heap_put(i, last);
    heap_sift(i);
}

static bool heap_grow(void)
{
    if (service.n_timers + 1 < service.heap_places) return true;
    uint32_t places = service.heap_places ? service.heap_places * 2 : 64;
    struct service_timer **heap = realloc(service.heap, places * sizeof(struct service_timer *));
    if (!heap) return false;
    service.heap = heap;
    service.heap_places = places;
    return true;
}

/* Sets the timerfd to the earliest timer; costs a system call only when that changed. */
static void arm(void)
{
    uint64_t at_ns = service.n_timers ? service.heap[1]->at_ns : 0;
    if (at_ns == service.armed_ns) return;
    service.armed_ns = at_ns;
    uint64_t capped_ns = at_ns > INT64_MAX ? INT64_MAX : at_ns;
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(capped_ns / RAIL_NS_PER_S),
                                           .tv_nsec = (long)(capped_ns % RAIL_NS_PER_S)}};
    timerfd_settime(service.timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

/* ---- the thread ---- */

static struct service_source *find(uint64_t id)
{
    uint32_t place = (uint32_t)id;
    struct service_source *s = place < service.n_places ? service.sources[place] : NULL;
    return s && s->id == id ? s : NULL;
}

/* Around a callback, lock held before and after. False after a fork inside of it: this is the child, whose service is a
 * new one. */
static bool run(const void *what, struct service_source *source, uint32_t events, struct service_timer *timer)
{
    uint32_t epoch = service.epoch;
    void (*ready)(struct service_source *, uint32_t) = source ? source->ready : NULL;
    void (*fire)(struct service_timer *) = timer ? timer->fire : NULL;
    service.running = what;
    service.n_callbacks++;
    pthread_mutex_unlock(&service.lock);
    if (ready) ready(source, events);
    if (fire) fire(timer);
    pthread_mutex_lock(&service.lock);
    if (service.epoch != epoch) return false;
    service.running = NULL; /* its memory may be gone by now */
    pthread_cond_broadcast(&service.finished);
    return true;
}

/* Timers due at one moment run in order of their time; those set meanwhile for the past wait for the next round, so that
 * a timer which always sets itself to "now" cannot starve the descriptors. */
static bool run_timers(void)
{
    uint64_t due_ns = rail_now_ns();
    uint32_t left = service.n_timers;
    while (left-- > 0 && service.n_timers > 0 && service.heap[1]->at_ns <= due_ns) {
        struct service_timer *timer = service.heap[1];
        heap_remove(timer);
        if (!run(timer, NULL, 0, timer)) return false;
    }
    uint64_t expirations;
    if (read(service.timer_fd, &expirations, sizeof expirations) > 0) service.armed_ns = 0; /* it went off */
    arm();
    return true;
}

static void *main_loop(void *unused)
{
    (void)unused;
    struct epoll_event events[EVENTS_AT_ONCE];
    on_service_thread = true;
    pthread_mutex_lock(&service.lock);
    int epoll_fd = service.epoll_fd;
    for (;;) {
        pthread_mutex_unlock(&service.lock);
        int n = epoll_wait(epoll_fd, events, EVENTS_AT_ONCE, -1);
        pthread_mutex_lock(&service.lock);
        for (int i = 0; i < n; i++) {
            struct service_source *s = events[i].data.u64 == TIMER_ID ? NULL : find(events[i].data.u64);
            if (s && !run(s, s, events[i].events, NULL)) goto forked;
            if (events[i].data.u64 == TIMER_ID && !run_timers()) goto forked;
        }
    }
forked:
    /* A child made inside a callback came back from it: its program's main is not in this process, so there is nothing
     * to go on with, and exit handlers are the parent's. */
    _exit(0);
}

/* ---- start and fork ---- */

static void fork_prepare(void)
{
    pthread_mutex_lock(&service.lock);
}

static void fork_parent(void)
{
    pthread_mutex_unlock(&service.lock);
}

/* The child has one thread and none of the parent's sources. Closing its copy of the epoll descriptor leaves the
 * parent's as it is. */
static void fork_child(void)
{
    int saved = errno;
    pthread_mutex_init(&service.lock, NULL);
    pthread_cond_init(&service.finished, NULL);
    if (service.epoll_fd >= 0) close(service.epoll_fd);
    if (service.timer_fd >= 0) close(service.timer_fd);
    service.epoll_fd = service.timer_fd = -1;
    service.started = false;
    service.epoch++;
    service.inherited[0] = service.sources;
    service.inherited[1] = service.heap;
    service.sources = NULL;
    service.heap = NULL;
    service.n_places = service.n_timers = service.heap_places = 0;
    service.armed_ns = 0;
    service.running = NULL;
    on_service_thread = false;
    errno = saved;
}

static int start_thread(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    int error = pthread_attr_init(&attributes);
    if (error) return error;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited by the new thread from its first instruction */
    error = pthread_create(&thread, &attributes, main_loop, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error) pthread_setname_np(thread, "railccl");
    pthread_attr_destroy(&attributes);
    return error;
}

/* Lock held. The thread is never ended: without sources it sleeps. */
static enum rail_result start(void)
{
    if (service.started) return RAIL_OK;
    if (!service.fork_handled) {
        int error = pthread_atfork(fork_prepare, fork_parent, fork_child);
        if (error) return rail_fail(RAIL_E_SYSTEM, "pthread_atfork: %s", strerror(error));
        service.fork_handled = true;
    }
    struct epoll_event timer_event = {.events = EPOLLIN, .data.u64 = TIMER_ID};
    service.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    service.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    enum rail_result result = RAIL_OK;
    int error;
    if (service.epoll_fd < 0 || service.timer_fd < 0 ||
        epoll_ctl(service.epoll_fd, EPOLL_CTL_ADD, service.timer_fd, &timer_event) != 0)
        result = rail_fail(RAIL_E_SYSTEM, "epoll_create1, timerfd_create: %s; look at ulimit -n", strerror(errno));
    else if ((error = start_thread()) != 0)
        result = rail_fail(RAIL_E_SYSTEM, "pthread_create(service thread): %s; look at ulimit -u", strerror(error));
    if (result == RAIL_OK) {
        service.started = true;
        return RAIL_OK;
    }
    if (service.epoll_fd >= 0) close(service.epoll_fd);
    if (service.timer_fd >= 0) close(service.timer_fd);
    service.epoll_fd = service.timer_fd = -1;
    return result;
}

/* Lock held. Waits until the callback of `what`, if it runs right now, has returned. */
static void wait_while_running(const void *what)
{
    if (on_service_thread) return;
    uint64_t run_now = service.n_callbacks;
    while (service.running == what && service.n_callbacks == run_now)
        pthread_cond_wait(&service.finished, &service.lock);
}

/* ---- sources ---- */

static enum rail_result place_find(uint32_t *out)
{
    uint32_t i = 0;
    while (i < service.n_places && service.sources[i]) i++;
    if (i == service.n_places) {
        uint32_t places = service.n_places ? service.n_places * 2 : 64;
        struct service_source **sources = realloc(service.sources, places * sizeof(struct service_source *));
        if (!sources) return rail_fail(RAIL_E_SYSTEM, "realloc(%u event sources): out of memory", places);
        memset(sources + i, 0, (places - i) * sizeof(struct service_source *));
        service.sources = sources;
        service.n_places = places;
    }
    *out = i;
    return RAIL_OK;
}

static enum rail_result add(struct service_source *source, uint32_t epoll_events)
{
    uint32_t place = 0;
    RAIL_TRY(start());
    if (source->added && find(source->id) == source)
        return rail_fail(RAIL_E_INTERNAL, "service_add(descriptor %d): added already", source->fd);
    RAIL_TRY(place_find(&place));
    uint64_t id = (uint64_t)++service.generation << 32 | place;
    struct epoll_event event = {.events = epoll_events, .data.u64 = id};
    if (epoll_ctl(service.epoll_fd, EPOLL_CTL_ADD, source->fd, &event) != 0)
        return rail_fail(RAIL_E_SYSTEM, "epoll_ctl(ADD, descriptor %d): %s", source->fd, strerror(errno));
    source->id = id;
    source->added = true;
    service.sources[place] = source;
    return RAIL_OK;
}

enum rail_result service_add(struct service_source *source, uint32_t epoll_events)
{
    pthread_mutex_lock(&service.lock);
    enum rail_result result = add(source, epoll_events);
    pthread_mutex_unlock(&service.lock);
    return result;
}

enum rail_result service_modify(struct service_source *source, uint32_t epoll_events)
{
    enum rail_result result = RAIL_OK;
    pthread_mutex_lock(&service.lock);
    struct epoll_event event = {.events = epoll_events, .data.u64 = source->id};
    if (!source->added || find(source->id) != source)
        result = rail_fail(RAIL_E_INTERNAL, "service_modify(descriptor %d): not added", source->fd);
    else if (epoll_ctl(service.epoll_fd, EPOLL_CTL_MOD, source->fd, &event) != 0)
        result = rail_fail(RAIL_E_SYSTEM, "epoll_ctl(MOD, descriptor %d): %s", source->fd, strerror(errno));
    pthread_mutex_unlock(&service.lock);
    return result;
}

void service_remove(struct service_source *source)
{
    int saved = errno;
    pthread_mutex_lock(&service.lock);
    if (source->added && find(source->id) == source) {
        epoll_ctl(service.epoll_fd, EPOLL_CTL_DEL, source->fd, NULL); /* fails when already closed: gone either way */
        service.sources[(uint32_t)source->id] = NULL;
    }
    source->added = false;
    wait_while_running(source);
    pthread_mutex_unlock(&service.lock);
    errno = saved;
}

/* ---- timers ---- */

void service_timer_set(struct service_timer *timer, uint64_t at_ns)
{
    int saved = errno;
    pthread_mutex_lock(&service.lock);
    if (timer->cancelling) { /* by another thread, which waits for this callback */
        pthread_mutex_unlock(&service.lock);
        return;
    }
    timer->at_ns = at_ns ? at_ns : 1; /* 0 would switch the timerfd off */
    if (start() != RAIL_OK) {
        timer->heap_index = 0;
    } else if (heap_has(timer)) {
        heap_sift(timer->heap_index);
    } else if (heap_grow()) {
        heap_put(++service.n_timers, timer);
        heap_sift(service.n_timers);
    } else {
        timer->heap_index = 0;
        (void)rail_fail(RAIL_E_SYSTEM, "service_timer_set: out of memory with %u timers; this one never fires",
                        service.n_timers);
    }
    /* On the service thread run_timers() arms once at its end, after all that is due. */
    if (service.started) arm();
    pthread_mutex_unlock(&service.lock);
    errno = saved;
}

void service_timer_cancel(struct service_timer *timer)
{
    int saved = errno;
    pthread_mutex_lock(&service.lock);
    if (heap_has(timer)) {
        heap_remove(timer);
        arm();
    }
    timer->heap_index = 0;
    if (!on_service_thread) {
        timer->cancelling = true; /* its callback may be about to set it again */
        wait_while_running(timer);
        timer->cancelling = false;
    }
    pthread_mutex_unlock(&service.lock);
    errno = saved;
}

bool service_is_self(void)
{
    return on_service_thread;
}
