/* service.h - the one service thread of the process: asleep in epoll until a descriptor is ready or a timer is due.
 *
 * Started by the first service_add/service_timer_set and never ended; all signals blocked in it; name "railccl".
 * Callbacks run on the service thread, one at a time, and must not block. After fork() the child has no service thread
 * and starts with an empty one of its own (pthread_atfork); the parent's sources are not inherited, and removing them in
 * the child does nothing.
 *
 * service_remove and service_timer_cancel wait for a callback that runs: never call them with a lock held that the
 * callback takes. A caller that a callback needs to get through would wait for ever. */
#ifndef RAIL_BASE_SERVICE_H
#define RAIL_BASE_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/result.h"

/* Embedded in its owner, who keeps it alive until service_remove() has returned. */
struct service_source {
    int fd;
    void (*ready)(struct service_source *source, uint32_t epoll_events);
    bool added; /* the service's own */
    uint64_t id; /* the service's own: tells a late event from one for a reused address */
};

/* Events are epoll's bits (EPOLLIN, EPOLLOUT, EPOLLONESHOT ...). Any thread. */
enum rail_result service_add(struct service_source *source, uint32_t epoll_events);
enum rail_result service_modify(struct service_source *source, uint32_t epoll_events);
/* When it returns, ready() is not running and will not run again (called from inside ready() itself: will not run
 * again). Does nothing for a source that was never added. Does not close the descriptor. */
void service_remove(struct service_source *source);

/* One-shot timer; fire() may set it again. */
struct service_timer {
    void (*fire)(struct service_timer *timer);
    uint64_t at_ns;        /* the service's own */
    uint32_t heap_index;   /* the service's own; 0 = not set */
    bool cancelling;       /* the service's own: setting it does nothing */
};

/* Setting a timer that is set moves it. Any thread. Should the thread not start or memory run out, that is logged and
 * kept as the last error, and the timer does not fire. */
void service_timer_set(struct service_timer *timer, uint64_t at_ns);
/* When it returns, fire() is not running and will not run (from inside fire(): will not run again). */
void service_timer_cancel(struct service_timer *timer);

/* True on the service thread. */
bool service_is_self(void);

#endif
