/* thread.c - see thread.h. */
#include "base/thread.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* A thread names itself: the handle of a detached one is nothing any more once it has ended, which a short one has before its
 * starter gets to naming it, or to pthread_detach, which looks at it in glibc 2.36 after it may be gone. */
struct beginning { void *(*work)(void *); void *argument; };

static void *begin(void *given)
{
    struct beginning b = *(struct beginning *)given;
    free(given);
    (void)pthread_setname_np(pthread_self(), "railccl");
    return b.work(b.argument);
}

enum rail_result rail_thread_start(const char *call, void *(*work)(void *), void *argument, pthread_t *out)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    struct beginning *b = malloc(sizeof *b);
    if (!b) return rail_fail(RAIL_E_SYSTEM, "%s: out of memory for a thread", call);
    *b = (struct beginning){work, argument};
    int error = pthread_attr_init(&attributes);
    if (!error) {
        if (!out) pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited by the new thread from its first instruction */
        error = pthread_create(&thread, &attributes, begin, b);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        pthread_attr_destroy(&attributes);
    }
    if (error) {
        free(b);
        return rail_fail(RAIL_E_SYSTEM, "%s: pthread_create: %s; look at ulimit -u", call, strerror(error));
    }
    if (out) *out = thread;
    return RAIL_OK;
}
