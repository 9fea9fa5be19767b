/* alltoall.h - AlltoAll where there is no plan for it: messages to and from everybody, in the steps of
 * algos/pairwise.h, on links of its own. */
#ifndef RAIL_CORE_ALLTOALL_H
#define RAIL_CORE_ALLTOALL_H

#include <stdbool.h>

#include "core/wires.h"
#include "engine/messages.h"

/* One at a time, as all collectives of a communicator. Zeroed to begin with. */
struct alltoall {
    struct messages messages;
    struct message *blocks; /* [2 * n_ranks]: sent, received */
    bool running;
};

struct alltoall_call {
    const unsigned char *input; /* n_ranks blocks */
    unsigned char *output;      /* n_ranks blocks */
    uint64_t block_bytes;
    uint64_t signature;
    enum messages_offers offers; /* the same in every call */
    uint64_t offer_least;        /* bytes of a block */
    uint64_t lend_least;         /* likewise (engine/messages.h) */
};

/* Opens what is not open yet, copies the block to oneself, begins the steps. */
enum rail_result alltoall_start(struct alltoall *a, struct wires *wires, const struct alltoall_call *call);
/* RAIL_OK: the output is final, the input is in slots or was read. */
enum rail_result alltoall_progress(struct alltoall *a);
/* After a failure, before the buffers are the caller's again. */
void alltoall_drop(struct alltoall *a);
void alltoall_close(struct alltoall *a);

#endif
