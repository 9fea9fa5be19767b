/* thread.c - see thread.h. */
#include "base/thread.h"

#include <signal.h>
#include <string.h>

enum rail_result rail_thread_start(const char *call, void *(*work)(void *), void *argument, pthread_t *out)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    int error = pthread_attr_init(&attributes);
    if (!error) {
        if (!out) pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited by the new thread from its first instruction */
        error = pthread_create(&thread, &attributes, work, argument);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        pthread_attr_destroy(&attributes);
    }
    if (error) return rail_fail(RAIL_E_SYSTEM, "%s: pthread_create: %s; look at ulimit -u", call, strerror(error));
    (void)pthread_setname_np(thread, "railccl");
    if (out) *out = thread;
    return RAIL_OK;
}
