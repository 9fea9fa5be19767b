/* fault.c - the first failure of a communicator is the one that everybody hears of. */
#include "core/fault.h"

#include <stdio.h>

void fault_init(struct fault *fault)
{
    atomic_init(&fault->stop, 0);
    pthread_mutex_init(&fault->lock, NULL);
    fault->result = RAIL_OK;
    fault->text[0] = 0;
    fault->heir = NULL;
    fault->beside = NULL;
}

int fault_raise(struct fault *fault, enum rail_result result, const char *text)
{
    pthread_mutex_lock(&fault->lock);
    int first = fault->result == RAIL_OK;
    if (first) {
        fault->result = result;
        snprintf(fault->text, sizeof fault->text, "%s", text);
        atomic_store_explicit(&fault->stop, 1, memory_order_release);
        if (fault->beside) atomic_store_explicit(fault->beside, 1, memory_order_release);
        if (fault->heir && fault->heir_hears_all) fault_raise(fault->heir, result, text);
    }
    pthread_mutex_unlock(&fault->lock);
    return first;
}

void fault_beside(struct fault *fault, _Atomic uint32_t *word)
{
    pthread_mutex_lock(&fault->lock);
    fault->beside = word;
    if (word && fault->result != RAIL_OK) atomic_store_explicit(word, 1, memory_order_release);
    pthread_mutex_unlock(&fault->lock);
}

void fault_lend(struct fault *fault, struct fault *heir, int hears_all)
{
    pthread_mutex_lock(&fault->lock);
    fault->heir = heir;
    fault->heir_hears_all = hears_all;
    if (hears_all && fault->result != RAIL_OK) fault_raise(heir, fault->result, fault->text);
    pthread_mutex_unlock(&fault->lock);
}

void fault_disown(struct fault *fault)
{
    pthread_mutex_lock(&fault->lock);
    fault->heir = NULL;
    pthread_mutex_unlock(&fault->lock);
}

int fault_outlived(struct fault *fault)
{
    pthread_mutex_lock(&fault->lock);
    int outlived = fault->heir && !fault->heir_hears_all;
    pthread_mutex_unlock(&fault->lock);
    return outlived;
}

void fault_raise_heir(struct fault *fault, enum rail_result result, const char *text)
{
    pthread_mutex_lock(&fault->lock);
    if (fault->heir) fault_raise(fault->heir, result, text);
    pthread_mutex_unlock(&fault->lock);
}

int fault_is(struct fault *fault, enum rail_result result)
{
    if (!atomic_load_explicit(&fault->stop, memory_order_acquire)) return result == RAIL_OK;
    pthread_mutex_lock(&fault->lock);
    int is = fault->result == result;
    pthread_mutex_unlock(&fault->lock);
    return is;
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
