/* window_calls.h - the window calls of a group: those of one communicator one after another, in call order,
 * communicators side by side, since ranks of one communicator that share a thread wait for one another. */
#ifndef RAIL_CORE_WINDOW_CALLS_H
#define RAIL_CORE_WINDOW_CALLS_H

#include "core/window.h"

struct window_call {
    struct window_call *next; /* in a list */
    struct comm *comm;
    bool ends;                /* window_deregister of `handle`; else window_register: */
    uintptr_t handle;
    void *address;
    size_t bytes;
    int flags;
    uintptr_t *out;           /* written on success */
};

/* Appends a copy. */
enum rail_result window_calls_add(struct window_call **list, const struct window_call *call);
/* Runs and frees all. The first failure. */
enum rail_result window_calls_run(struct window_call *list);
void window_calls_free(struct window_call *list);

#endif
