/* known.c - memory of the program's that it has made known: registered (ncclCommRegister, a window), or handed out by
 * ncclMemAlloc. It stays mapped until it is ended, so what lies there may be sent from there (lent.c).
 *
 * Ranges may overlap, and be the same: each has a number of its own, which is never given out twice. So memory that was ended,
 * unmapped, and is mapped anew at the same address is other memory to devices, too. */
#include <stdlib.h>
#include <string.h>

#include "transport/link/net_state.h"

struct known {
    struct known *next;
    uintptr_t base;
    size_t bytes;
    uint64_t number;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* protects what follows; nothing else is locked under it */
static struct known *first;                              /* what was asked for last stands in front */
static uint64_t last;

uint64_t net_memory_add(const void *base, size_t bytes)
{
    struct known *k = bytes ? malloc(sizeof *k) : NULL;
    if (!k) return 0;
    pthread_mutex_lock(&lock);
    uint64_t number = ++last;
    *k = (struct known){first, (uintptr_t)base, bytes, number};
    first = k;
    pthread_mutex_unlock(&lock);
    return number;
}

static struct known **holding(const void *at, size_t bytes)
{
    for (struct known **k = &first; *k; k = &(*k)->next) {
        uintptr_t offset = (uintptr_t)at - (*k)->base;
        if (offset <= (*k)->bytes && bytes <= (*k)->bytes - offset) return k;
    }
    return NULL;
}

bool net_memory_known(const void *at, size_t bytes)
{
    pthread_mutex_lock(&lock);
    bool found = holding(at, bytes) != NULL;
    pthread_mutex_unlock(&lock);
    return found;
}

bool known_lock(const void *at, size_t bytes, struct net_lent *out)
{
    pthread_mutex_lock(&lock);
    struct known **found = holding(at, bytes);
    if (!found) {
        pthread_mutex_unlock(&lock);
        return false;
    }
    struct known *k = *found;
    *found = k->next;
    k->next = first;
    first = k;
    *out = (struct net_lent){.at = at, .number = k->number, .base = k->base, .bytes = k->bytes};
    return true;
}

void known_unlock(void) { pthread_mutex_unlock(&lock); }

/* Off the list first: afterwards nothing more is lent of it, and what was stands in slots that are published. */
void net_memory_end(uint64_t number)
{
    struct known **at = &first, *found;
    if (number == 0) return;
    pthread_mutex_lock(&lock);
    while (*at && (*at)->number != number) at = &(*at)->next;
    if ((found = *at)) *at = found->next;
    pthread_mutex_unlock(&lock);
    if (!found) return; /* in a forked child: its parent's */
    free(found);
    net_each(lent_end, number);
}

void known_fork_prepare(void) { pthread_mutex_lock(&lock); }
void known_fork_parent(void) { pthread_mutex_unlock(&lock); }

/* The child does not go on with its parent's communicators, and may unmap what it likes without a word. */
void known_fork_child(void)
{
    pthread_mutex_init(&lock, NULL);
    while (first) {
        struct known *next = first->next;
        free(first);
        first = next;
    }
}
