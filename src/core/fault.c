/* fault.c - the first failure of a communicator is the one that everybody hears of. */
#include "core/fault.h"

#include <stdio.h>

void fault_init(struct fault *fault)
{
    atomic_init(&fault->stop, 0);
    pthread_mutex_init(&fault->lock, NULL);
    fault->result = RAIL_OK;
    fault->text[0] = 0;
}

void fault_clear(struct fault *fault) { pthread_mutex_destroy(&fault->lock); }

int fault_raise(struct fault *fault, enum rail_result result, const char *text)
{
    pthread_mutex_lock(&fault->lock);
    int first = fault->result == RAIL_OK;
    if (first) {
        fault->result = result;
        snprintf(fault->text, sizeof fault->text, "%s", text);
        atomic_store_explicit(&fault->stop, 1, memory_order_release);
    }
    pthread_mutex_unlock(&fault->lock);
    return first;
}

enum rail_result fault_result(struct fault *fault)
{
    if (!atomic_load_explicit(&fault->stop, memory_order_acquire)) return RAIL_OK;
    pthread_mutex_lock(&fault->lock);
    enum rail_result result = fault->result;
    char text[sizeof fault->text];
    snprintf(text, sizeof text, "%s", fault->text);
    pthread_mutex_unlock(&fault->lock);
    return rail_fail_quietly(result, "%s", text);
}
