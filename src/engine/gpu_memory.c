/* gpu_memory.c - when what a closed communicator held may go.
 *
 * Freeing, unpinning and unloading can wait for everything that runs in the context. While a kernel waits for a peer whose
 * launch this very thread has yet to make, that would be for ever: so closed ones are buried, and the grave is opened
 * whenever no launch of the process is under way. */
#include <stdlib.h>
#include <time.h>

#include "engine/gpu_state.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* protects what follows */
static struct gpu *living, *graves; /* linked by `next` */

void gpu_count_in(struct gpu *gpu)
{
    pthread_mutex_lock(&lock);
    gpu->next = living;
    living = gpu;
    pthread_mutex_unlock(&lock);
}

static bool is_quiet(struct gpu *gpu)
{
    struct gpu_state state;
    if (!gpu->node && gpu->shared) gpu_release_waits(gpu);
    gpu_look(gpu, &state);
    return !state.busy && (gpu->node || gpu_all_read(gpu, true)) /* closed: it is to go */;
}

static bool all_quiet_locked(void)
{
    for (struct gpu *g = living; g; g = g->next)
        if (!is_quiet(g)) return false;
    for (struct gpu *g = graves; g; g = g->next)
        if (!is_quiet(g)) return false;
    return true;
}

/* Everything, in any state of having been made. */
static void give_back(struct gpu *g)
{
    cuda_event_give(g->device, g->done);
    cuda_stream_free(g->device, g->side);
    cuda_stream_free(g->device, g->apart);
    gpu_leave_near(g);
    gpu_unmap_all(g);
    gpu_beside_clear(g);
    free(g->peers);
    cuda_free(g->device, g->scratch);
    cuda_free(g->device, g->life);
    cuda_pinned_free(g->device, g->shared);
    if (g->pinned) cuda_unregister(g->device, g->segment.header);
    shm_segment_close(&g->segment);
    cuda_device_drop(g->device);
    free(g->links);
    free(g->relays);
    free(g);
}

static void reap_locked(void)
{
    if (!all_quiet_locked()) return;
    while (graves) {
        struct gpu *g = graves;
        graves = g->next;
        give_back(g);
    }
}

bool gpu_nothing_runs(void)
{
    bool none = true;
    pthread_mutex_lock(&lock);
    for (int dead = 0; dead < 2; dead++)
        for (const struct gpu *g = dead ? graves : living; g; g = g->next) {
            struct gpu_state state;
            gpu_look(g, &state);
            none &= !state.inside && !state.waiting;
        }
    pthread_mutex_unlock(&lock);
    return none;
}

void gpu_reap(void)
{
    pthread_mutex_lock(&lock);
    reap_locked();
    pthread_mutex_unlock(&lock);
}

/* With the last one gone nobody comes to look again, and nothing of ours can be waited for by a call that synchronises: then
 * what the driver is about to say (that a graph is gone, on a thread of its own) is waited for, a moment. */
#define FAREWELL_NS (50 * RAIL_NS_PER_MS)
#define NAP_NS (200 * RAIL_NS_PER_US)

static void say_farewell_locked(void)
{
    struct rail_deadline until = rail_deadline_in_ns(FAREWELL_NS);
    struct timespec nap = {0, NAP_NS};
    while (graves && !living && !rail_deadline_passed(until)) {
        pthread_mutex_unlock(&lock);
        nanosleep(&nap, NULL);
        pthread_mutex_lock(&lock);
        reap_locked();
    }
}

void gpu_bury(struct gpu *gpu)
{
    pthread_mutex_lock(&lock);
    struct gpu **at = &living;
    while (*at && *at != gpu) at = &(*at)->next;
    if (*at) *at = gpu->next; /* else it was never counted in: half made */
    gpu->node = NULL;
    gpu->next = graves;
    graves = gpu;
    reap_locked();
    say_farewell_locked();
    pthread_mutex_unlock(&lock);
}
