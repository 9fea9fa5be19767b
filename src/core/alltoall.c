/* alltoall.c - steps to messages. */
#include "core/alltoall.h"

#include <stdlib.h>

#include "algos/pairwise.h"

static enum rail_result open_at_first(struct alltoall *a, struct wires *wires, const struct alltoall_call *call)
{
    uint32_t n = wires->shape->n_ranks;
    if (a->blocks) return RAIL_OK;
    RAIL_TRY(messages_open(&a->messages, wires->node, wires->rank, n, PAIRWISE_AHEAD, call->offers));
    a->blocks = calloc((size_t)2 * n, sizeof *a->blocks);
    return a->blocks ? RAIL_OK : rail_fail(RAIL_E_SYSTEM, "AlltoAll among %u ranks: out of memory", n);
}

static enum rail_result begin(struct alltoall *a, struct wires *wires, enum message_direction direction, uint32_t peer,
                              struct message block)
{
    struct message_flow *f = messages_flow(&a->messages, direction, peer);
    struct message *kept = &a->blocks[direction * wires->shape->n_ranks + peer];
    if (!f->link)
        RAIL_TRY(wires_pair(wires, peer, direction == MESSAGE_SEND ? PLAN_LINK_OUT : PLAN_LINK_IN,
                            LINK_CHANNEL_ALLTOALL, &f->link));
    *kept = block;
    messages_append(&a->messages, direction, peer, kept);
    messages_begin(&a->messages, direction, peer);
    return RAIL_OK;
}

enum rail_result alltoall_start(struct alltoall *a, struct wires *wires, const struct alltoall_call *call)
{
    uint64_t bytes = call->block_bytes, mine = bytes * wires->rank;
    RAIL_TRY(open_at_first(a, wires, call));
    a->messages.offer_least = call->offer_least;
    a->messages.lend_least = call->lend_least;
    for (uint32_t d = 1; d < wires->shape->n_ranks; d++) {
        struct pairwise_step step = pairwise_step(wires->shape, wires->rank, d);
        struct message block = {.bytes = bytes, .signature = call->signature};
        block.buffer = (unsigned char *)(uintptr_t)call->input + bytes * step.to; /* only read */
        RAIL_TRY(begin(a, wires, MESSAGE_SEND, step.to, block));
        block.buffer = call->output + bytes * step.from;
        RAIL_TRY(begin(a, wires, MESSAGE_RECEIVE, step.from, block));
    }
    rail_copy(call->output + mine, call->input + mine, bytes);
    a->running = true;
    return RAIL_OK;
}

enum rail_result alltoall_progress(struct alltoall *a)
{
    enum rail_result result = messages_progress(&a->messages);
    if (result == RAIL_OK) a->running = false;
    return result;
}

void alltoall_drop(struct alltoall *a)
{
    if (a->running) messages_drop(&a->messages);
    a->running = false;
}

void alltoall_close(struct alltoall *a)
{
    messages_close(&a->messages);
    free(a->blocks);
    *a = (struct alltoall){0};
}
