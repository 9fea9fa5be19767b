/* making.h - one communicator that a program asked for, from the call until it is there: by unique id, split from
 * another, shrunk, or grown; while the caller waits, or on a thread of the library's (config.blocking 0). */
#ifndef RAIL_CORE_MAKING_H
#define RAIL_CORE_MAKING_H

#include "core/comm.h"

enum making_kind { MAKING_BY_ID, MAKING_SPLIT, MAKING_SHRINK, MAKING_GROW };

struct making {
    struct making *next; /* in a list */
    const char *call;    /* "ncclCommSplit": for messages */
    enum making_kind kind;
    struct comm_config config; /* of the new communicator */
    int device;
    struct cuda_device *gpu; /* MAKING_BY_ID: held by the making; NULL: a host rank */
    struct comm *parent; /* what it is made of; NULL: MAKING_BY_ID */
    struct comm **out;   /* the caller's; written on success, or at once when the caller does not wait */

    /* MAKING_BY_ID: all. MAKING_GROW: n_ranks; the id where has_id. */
    uint32_t rank, n_ranks;
    bool has_id;
    uint8_t id[BOOTSTRAP_ID_BYTES];
    /* MAKING_SPLIT; color < 0: takes part and gets none */
    int color, key;
    /* MAKING_SHRINK: the old ranks that stay, in order; n_ranks of them, this one at `rank`; the making's to free */
    uint32_t *members;

    struct comm *comm; /* the new one, while it is being made */
    enum rail_result result;
    char text[512];    /* of a failure */
};

/* A copy of `like` on the heap, for a list; `members` goes over to it. NULL with an error text when out of memory. */
struct making *making_copy(const struct making *like);
void makings_free(struct making *list);

/* Makes the communicators of a list, side by side; those of one parent one after another, in list order. Takes the list.
 * RAIL_OK; RAIL_IN_PROGRESS when some go on by themselves; else the first failure, and then all those that were waited
 * for have been aborted. */
enum rail_result makings_run(struct making *list);

#endif
