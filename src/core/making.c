/* making.c - see making.h.
 *
 *   list of makings --> errands: those of one parent in order, since they share its tree; every other one by itself
 *                         |
 *                         +-- the caller waits: the only one on its own thread, several on a thread each, joined
 *                         +-- it does not: handles are given out at once, a detached thread goes on */
#include "core/making.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/thread.h"
#include "core/derive.h"
#include "device/cuda/cuda.h"

struct errand {
    struct errand *next;
    struct making *first, *last;
    struct comm *parent;
    bool waits;   /* for its end: the caller */
    bool holds;   /* the parent is held: only where it waits */
    bool started; /* on `thread` */
    pthread_t thread;
};

struct making *making_copy(const struct making *like)
{
    struct making *m = malloc(sizeof *m);
    if (m) {
        *m = *like;
        return m;
    }
    free(like->members);
    cuda_device_drop(like->gpu);
    rail_fail(RAIL_E_SYSTEM, "%s: out of memory", like->call);
    return NULL;
}

void makings_free(struct making *list)
{
    while (list) {
        struct making *next = list->next;
        free(list->members);
        cuda_device_drop(list->gpu);
        free(list);
        list = next;
    }
}

/* ---- the work ---- */

static enum rail_result make(struct making *m)
{
    const struct comm_request by_id = {.rank = m->rank, .n_ranks = m->n_ranks, .id = m->id};
    switch (m->kind) {
    case MAKING_BY_ID: return comm_join(m->comm, &by_id);
    case MAKING_SPLIT: return derive_split(m);
    case MAKING_SHRINK: return derive_shrink(m);
    case MAKING_GROW: return derive_grow(m);
    }
    return RAIL_E_INTERNAL;
}

static void run(struct errand *e)
{
    for (struct making *m = e->first; m; m = m->next) {
        m->result = make(m);
        if (m->result != RAIL_OK) snprintf(m->text, sizeof m->text, "%s", rail_own_error());
        if (m->comm && m->result == RAIL_OK) comm_made(m->comm, COMM_JOINING);
        else if (m->comm && !e->waits) comm_not_made(m->comm, m->result);
        else if (m->comm) {
            comm_free(m->comm);
            m->comm = NULL;
        }
    }
    if (!e->parent) return;
    if (e->waits) comm_let_go(e->parent);
    else comm_made(e->parent, COMM_DERIVING);
}

static void *run_waited(void *argument)
{
    run(argument);
    return NULL;
}

static void errand_free(struct errand *e)
{
    if (e) makings_free(e->first);
    free(e);
}

static void *run_alone(void *argument)
{
    struct errand *e = argument;
    if (e->parent) comm_settle(e->parent);
    run(e);
    errand_free(e);
    return NULL;
}

/* ---- sorting out ---- */

static struct errand *errand_of(struct errand **errands, const struct making *m)
{
    struct errand **at = errands;
    for (; *at; at = &(*at)->next)
        if (m->parent && (*at)->parent == m->parent) return *at;
    struct errand *e = *at = calloc(1, sizeof *e);
    if (!e) {
        rail_fail(RAIL_E_SYSTEM, "%s: out of memory", m->call);
        return NULL;
    }
    e->parent = m->parent;
    e->waits = m->parent ? m->parent->config.blocking : m->config.blocking;
    return e;
}

/* Deals the list out. What could not be dealt stays on it. */
static enum rail_result sort_out(struct making **list, struct errand **errands)
{
    while (*list) {
        struct making *m = *list;
        struct errand *e = errand_of(errands, m);
        if (!e) return RAIL_E_SYSTEM;
        *list = m->next;
        m->next = NULL;
        if (e->last) e->last->next = m;
        else e->first = m;
        e->last = m;
    }
    return RAIL_OK;
}

/* Takes the parent, and memory for the new ones. */
static enum rail_result prepare(struct errand *e)
{
    if (e->parent) {
        RAIL_TRY(comm_check(e->parent, e->first->call));
        if (e->waits) RAIL_TRY(comm_hold(e->parent, e->first->call));
        e->holds = e->waits;
    }
    for (struct making *m = e->first; m; m = m->next) {
        if (m->kind == MAKING_SPLIT && m->color < 0) continue;
        m->comm = comm_new(m->call, &m->config, m->device, m->parent ? m->parent->gpu_device : m->gpu);
        if (!m->comm) return RAIL_E_SYSTEM;
    }
    return RAIL_OK;
}

static void unprepare(struct errand *e)
{
    for (struct making *m = e->first; m; m = m->next)
        if (m->comm) comm_free(m->comm);
    if (e->holds) comm_let_go(e->parent);
}

/* No more calls: the parent is the library's thread's, which waits for those that were posted to streams. */
static enum rail_result mark_parent(struct errand *e)
{
    uint64_t from = COMM_MAGIC;
    if (!e->parent || atomic_compare_exchange_strong(&e->parent->magic, &from, COMM_DERIVING)) return RAIL_OK;
    return rail_fail(RAIL_E_USAGE, "%s: another thread is ending this communicator", e->first->call);
}

static void give_out(struct errand *e)
{
    for (struct making *m = e->first; m; m = m->next) *m->out = m->comm;
}

/* The handles are the caller's from here on, and the errand its thread's. */
static enum rail_result send_off(struct errand *e)
{
    RAIL_TRY(mark_parent(e));
    give_out(e);
    enum rail_result result = rail_thread_start(e->first->call, run_alone, e, NULL);
    if (result == RAIL_OK) return RAIL_OK;
    for (struct making *m = e->first; m; m = m->next) *m->out = NULL;
    if (e->parent) comm_made(e->parent, COMM_DERIVING);
    return result;
}

/* ---- running ---- */

/* No thread for it: nothing of it was begun. */
static void not_run(struct errand *e)
{
    for (struct making *m = e->first; m; m = m->next) {
        m->result = RAIL_E_SYSTEM;
        snprintf(m->text, sizeof m->text, "%s", rail_own_error());
        if (m->comm) comm_free(m->comm);
        m->comm = NULL;
    }
    if (e->parent) comm_let_go(e->parent);
}

/* All but the last on threads: ranks of one communicator wait for one another. */
static void run_here(struct errand *errands)
{
    for (struct errand *e = errands; e && e->next; e = e->next) {
        e->started = rail_thread_start(e->first->call, run_waited, e, &e->thread) == RAIL_OK;
        if (!e->started) not_run(e);
    }
    for (struct errand *e = errands; e; e = e->next)
        if (!e->next) run(e);
    for (struct errand *e = errands; e; e = e->next)
        if (e->started) pthread_join(e->thread, NULL);
}

/* Hands out what was made, or, if one failed, ends all. */
static enum rail_result collect(struct errand *errands)
{
    const struct making *failed = NULL;
    for (struct errand *e = errands; e; e = e->next)
        for (struct making *m = e->first; m && !failed; m = m->next)
            if (m->result != RAIL_OK) failed = m;
    for (struct errand *e = errands; e; e = e->next)
        for (struct making *m = e->first; m; m = m->next) {
            if (!failed) *m->out = m->comm;
            else if (m->comm) comm_abort(m->comm);
        }
    return failed ? rail_fail_quietly(failed->result, "%s", failed->text) : RAIL_OK;
}

/* Those that are waited for stay on the list. */
static enum rail_result start_all(struct errand **errands, bool *goes_on)
{
    for (struct errand *e = *errands; e; e = e->next) RAIL_TRY(prepare(e));
    for (struct errand **at = errands; *at;) {
        struct errand *e = *at;
        if (e->waits) {
            at = &e->next;
            continue;
        }
        *at = e->next;
        enum rail_result result = send_off(e);
        *goes_on = *goes_on || result == RAIL_OK;
        if (result == RAIL_OK) continue;
        e->next = *at;
        *at = e; /* to be undone with the rest */
        return result;
    }
    return RAIL_OK;
}

enum rail_result makings_run(struct making *list)
{
    struct errand *errands = NULL;
    bool goes_on = false;
    enum rail_result result = sort_out(&list, &errands);
    if (result == RAIL_OK) result = start_all(&errands, &goes_on);
    if (result == RAIL_OK) {
        run_here(errands);
        result = collect(errands);
    } else {
        for (struct errand *e = errands; e; e = e->next) unprepare(e);
    }
    makings_free(list);
    while (errands) {
        struct errand *next = errands->next;
        errand_free(errands);
        errands = next;
    }
    return result == RAIL_OK && goes_on ? RAIL_IN_PROGRESS : result;
}
