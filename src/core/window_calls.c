/* window_calls.c - see window_calls.h: a thread per communicator, the last one on the caller's. */
#include "core/window_calls.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/thread.h"
#include "core/comm.h"

/* One communicator's. */
struct errand {
    struct errand *next;
    struct window_call *first, *last;
    pthread_t thread;
    bool started;
    enum rail_result result;
    char text[512]; /* of a failure */
};

enum rail_result window_calls_add(struct window_call **list, const struct window_call *call)
{
    struct window_call *c = malloc(sizeof *c);
    if (!c) return rail_fail(RAIL_E_SYSTEM, "ncclCommWindowRegister: out of memory for one more call of the group");
    *c = *call;
    c->next = NULL;
    while (*list) list = &(*list)->next;
    *list = c;
    return RAIL_OK;
}

void window_calls_free(struct window_call *list)
{
    while (list) {
        struct window_call *next = list->next;
        free(list);
        list = next;
    }
}

static enum rail_result run_one(const struct window_call *c)
{
    RAIL_TRY(comm_check(c->comm, c->ends ? "ncclCommWindowDeregister" : "ncclCommWindowRegister"));
    return c->ends ? window_deregister(c->comm, c->handle)
                   : window_register(c->comm, c->address, c->bytes, c->flags, c->out);
}

static void *run(void *argument)
{
    struct errand *e = argument;
    for (struct window_call *c = e->first; c && e->result == RAIL_OK; c = c->next) e->result = run_one(c);
    if (e->result != RAIL_OK) snprintf(e->text, sizeof e->text, "%s", rail_own_error());
    return NULL;
}

/* False: out of memory; the list is freed all the same. */
static bool deal(struct window_call *list, struct errand **errands)
{
    for (struct window_call *next; list; list = next) {
        struct errand **at = errands;
        while (*at && (*at)->first->comm != list->comm) at = &(*at)->next;
        if (!*at && !(*at = calloc(1, sizeof **at))) {
            window_calls_free(list);
            return false;
        }
        next = list->next;
        list->next = NULL;
        if ((*at)->last) (*at)->last->next = list;
        else (*at)->first = list;
        (*at)->last = list;
    }
    return true;
}

static enum rail_result end(struct errand *errands)
{
    enum rail_result result = RAIL_OK;
    while (errands) {
        struct errand *e = errands;
        if (e->started) pthread_join(e->thread, NULL);
        if (e->result != RAIL_OK && result == RAIL_OK) result = rail_fail_quietly(e->result, "%s", e->text);
        errands = e->next;
        window_calls_free(e->first);
        free(e);
    }
    return result;
}

static void not_started(struct errand *e)
{
    e->result = RAIL_E_SYSTEM;
    snprintf(e->text, sizeof e->text, "%s", rail_own_error());
}

enum rail_result window_calls_run(struct window_call *list)
{
    struct errand *errands = NULL;
    if (!list) return RAIL_OK;
    if (!deal(list, &errands)) {
        for (struct errand *e = errands; e; e = e->next) e->result = RAIL_E_SYSTEM;
        (void)end(errands);
        return rail_fail(RAIL_E_SYSTEM, "ncclGroupEnd: out of memory for windows");
    }
    for (struct errand *e = errands; e; e = e->next) {
        if (!e->next) {
            (void)run(e);
            break;
        }
        e->started = rail_thread_start("ncclGroupEnd", run, e, &e->thread) == RAIL_OK;
        if (!e->started) not_started(e);
    }
    return end(errands);
}
