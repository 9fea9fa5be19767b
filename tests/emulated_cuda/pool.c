/* pool.c - threads for whatever must run at the same time: made when a task finds none idle, kept for two seconds.
 *
 * Tasks may block for as long as they like (kernels that wait for one another do), so there is no limit to their number
 * but the machine's. */
#include "emulated_cuda/state.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

/* Kernels of tests are shallow; instrumented ones need more. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { STACK_BYTES = 1 << 20 };
#else
enum { STACK_BYTES = 256 << 10 };
#endif
enum { IDLE_S = 2 };

struct task {
    void (*run)(void *);
    void *argument;
    struct task *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct task *first, **last = &first;
static unsigned waiting, queued; /* idle threads; tasks that none has taken */

static void begin(void)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

/* The next task; NULL: none came for a while. */
static struct task *take(void)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += IDLE_S;
    pthread_mutex_lock(&lock);
    waiting++;
    while (first == NULL && pthread_cond_timedwait(&wake, &lock, &until) != ETIMEDOUT)
        ;
    waiting--;
    struct task *task = first;
    if (task != NULL) {
        queued--;
        first = task->next;
        if (first == NULL)
            last = &first;
    }
    pthread_mutex_unlock(&lock);
    return task;
}

static void *thread(void *nothing)
{
    (void)nothing;
    for (struct task *task; (task = take()) != NULL;) {
        task->run(task->argument);
        free(task);
    }
    return NULL;
}

static bool thread_new(void)
{
    pthread_attr_t attributes;
    pthread_t made;
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV); /* blocked, it would kill without a word (fault.c) */
    sigdelset(&all, SIGBUS);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&made, &attributes, thread, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error != 0)
        say("no thread more: %d", error);
    return error == 0;
}

bool pool_run(void (*run)(void *), void *argument)
{
    struct task *task = malloc(sizeof *task);
    if (task == NULL)
        return false;
    pthread_once(&once, begin);
    *task = (struct task){.run = run, .argument = argument};
    pthread_mutex_lock(&lock);
    *last = task;
    last = &task->next;
    bool more = ++queued > waiting;
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
    /* Without a thread of its own the task waits for one that becomes idle: kernels that wait for one another may
     * hang. */
    return !more || thread_new();
}
