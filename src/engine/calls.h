/* calls.h - which call each rank is in: numbered for the life of the communicator, with its signature, on a line of the
 * shared segment that its rank writes at the start of each call and nobody reads while all is well.
 *
 * Ranks that call different things mostly find out where their data meet. Where the two calls take different paths the
 * data never meet and both would wait for ever; so whoever has waited for long compares histories: with its node's
 * peers directly, with other nodes by sending its own to rank 0. */
#ifndef RAIL_ENGINE_CALLS_H
#define RAIL_ENGINE_CALLS_H

#include "engine/host.h"

/* A rank's last calls. Plain bytes: it travels. */
struct calls_history {
    uint32_t rank, reserved;
    uint64_t number;               /* of the last call begun; 0: none, or it could not be read */
    uint64_t closed;               /* 0, or calls made + 1: no more will come */
    uint64_t signature[SHM_CALLS]; /* of call n at n modulo SHM_CALLS */
    uint32_t waited_ms;            /* in the last call, when it waits there for long */
    uint32_t left_ms;              /* 0: it is inside; else 1 + since when it has left the last call */
};

/* One number for all calls so far: two ranks that have it in common have called the same. */
static inline uint64_t calls_fold(uint64_t before, uint64_t signature)
{
    return ((before << 23 | before >> 41) ^ signature) * 0x9e3779b97f4a7c15ull; /* odd: no difference is lost by it */
}

/* The next call of this rank begins. Three stores into lines of its own. */
static inline void calls_begin(struct host_node *node, uint64_t signature)
{
    struct shm_calls *mine = &node->segment.controls[node->self].calls;
    uint64_t number = ++node->calls;
    node->history = calls_fold(node->history, signature);
    atomic_store_explicit(&mine->signature[number % SHM_CALLS], signature, memory_order_relaxed);
    atomic_store_explicit(&mine->left_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&mine->number, number, memory_order_release);
}

/* The call is over, or another one, that is not counted. */
static inline void calls_end(struct host_node *node)
{
    struct shm_calls *mine = &node->segment.controls[node->self].calls;
    if (atomic_load_explicit(&mine->left_ns, memory_order_relaxed) == 0)
        atomic_store_explicit(&mine->left_ns, rail_now_coarse_ns(), memory_order_relaxed);
}

/* No more calls come from this rank. */
void calls_close(struct host_node *node);

/* Any thread. */
void calls_history_of(const struct host_node *node, uint32_t peer, struct calls_history *out);

/* RAIL_OK when the two did the same as far as both go, one may be behind; else RAIL_E_USAGE with both in words. */
enum rail_result calls_compare(const struct calls_history *a, const struct calls_history *b);

/* Mine with those of my node's peers. */
enum rail_result calls_compare_node(const struct host_node *node);

/* For data of another call than mine: the error, in the best words there are. */
enum rail_result calls_differ(const struct host_node *node, uint32_t rank, uint64_t theirs, uint64_t mine);

/* For a peer whose node->history at the same message is not mine: as calls_differ, but it is unknown which call that
 * was. */
enum rail_result calls_diverged(const struct host_node *node, uint32_t rank);

#endif
