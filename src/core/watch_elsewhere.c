/* watch_elsewhere.c - threads of this process that wait for long, so that one that is missing in one communicator
 * can be found waiting in another. A handful at most; touched only by who has waited for long, or is asked why it
 * has not come. */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "core/comm_store.h"

enum { WAITING_MOST = 64 }; /* threads of one process that wait at once; more are not found */

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER; /* protects the table */
static struct {
    const struct comm *comm; /* NULL: free. Never looked into */
    uint64_t thread;
    struct watch_elsewhere waits;
} table[WAITING_MOST];

uint64_t watch_process_of(const struct member *member)
{
    return rail_hash64(member->process, sizeof member->process, 1) | 1;
}

uint64_t watch_rank_hash(const struct comm *comm, uint32_t rank)
{
    return rail_hash64(&comm->wires.comm_key, sizeof comm->wires.comm_key, rank) | 1;
}

void watch_elsewhere_set(const struct comm *comm, uint64_t thread, const struct watch_elsewhere *waits)
{
    int at = -1;
    pthread_mutex_lock(&table_lock);
    for (int i = 0; i < WAITING_MOST && (at < 0 || table[at].comm != comm); i++)
        if (table[i].comm == comm || (!table[i].comm && at < 0)) at = i;
    if (at >= 0) {
        table[at].comm = comm;
        table[at].thread = thread;
        table[at].waits = *waits;
    }
    pthread_mutex_unlock(&table_lock);
}

void watch_elsewhere_drop(const struct comm *comm)
{
    pthread_mutex_lock(&table_lock);
    for (int i = 0; i < WAITING_MOST; i++)
        if (table[i].comm == comm) table[i].comm = NULL;
    pthread_mutex_unlock(&table_lock);
}

struct watch_elsewhere watch_elsewhere_of(const struct comm *comm, uint64_t thread)
{
    struct watch_elsewhere found = {0};
    pthread_mutex_lock(&table_lock);
    for (int i = 0; i < WAITING_MOST && thread; i++)
        if (table[i].comm && table[i].comm != comm && table[i].thread == thread) found = table[i].waits;
    pthread_mutex_unlock(&table_lock);
    return found;
}

/* Of "PID (name) STATE ...": the name may hold anything, so from the end. */
bool watch_is_stopped(int pid)
{
    char path[40], text[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "re");
    if (!f) return false;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    const char *name_end = strrchr(text, ')');
    return name_end && (strncmp(name_end, ") T", 3) == 0 || strncmp(name_end, ") t", 3) == 0);
}
