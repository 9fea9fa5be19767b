/* kernel_messages.h - messages between pairs of ranks, moved by the leader of a block: engine/messages.c for a kernel.
 *
 * Flow f is block f modulo n_blocks's, and a block goes round its flows without waiting in any. The rule by which a message
 * is cut into pieces is messages.c's, since the other end may be a host; offers by address are not taken. A copy to
 * oneself goes round with the others, in pieces, too. */
#ifndef RAIL_ENGINE_KERNEL_MESSAGES_H
#define RAIL_ENGINE_KERNEL_MESSAGES_H

#include "engine/kernel_block.h"

/* messages.c's PIECES_WANTED, PIECE_BYTES_LEAST, TURN; and how much of a copy to oneself holds up the others. */
enum { PIECES_WANTED = 4, PIECE_BYTES_LEAST = 16 << 10, PIECES_PER_TURN = 8, SELF_PIECE_BYTES = 1 << 20 };

#define FLOW_WORD(w, f, member) (flow_at(w, f) + offsetof(struct kernel_flow, member))
#define MESSAGE_WORD(w, m, member) (message_at(w, m) + offsetof(struct kernel_message, member))

KERNEL_FN unsigned char *flow_at(const struct worker *w, uint32_t j)
{
    uint64_t f = w->t.block + (uint64_t)j * w->b->call.n_blocks;
    return at_address(w, w->b->call.flows + f * sizeof(struct kernel_flow));
}
KERNEL_FN unsigned char *message_at(const struct worker *w, uint32_t m)
{
    return at_address(w, w->b->call.messages + (uint64_t)m * sizeof(struct kernel_message));
}

KERNEL_FN uint64_t piece_bytes(const struct rotation *r, uint64_t whole, uint64_t done)
{
    uint64_t piece = (whole / PIECES_WANTED + KERNEL_LINE) / KERNEL_LINE * KERNEL_LINE;
    if (piece < PIECE_BYTES_LEAST) piece = PIECE_BYTES_LEAST;
    if (piece > r->link.slot_bytes) piece = r->link.slot_bytes;
    return piece < whole - done ? piece : whole - done;
}

/* How a look at a flow ended. */
enum flow_look { FLOW_NOT_YET, FLOW_COPIES, FLOW_SEARCHES, FLOW_STOPS };

KERNEL_FN enum flow_look copies(const struct worker *w, struct rotation *r, unsigned char *dst, const unsigned char *src, uint64_t bytes)
{
    r->bytes = bytes;
    r->pending = 1;
    w->b->command = BLOCK_END; /* no copy: what has no bytes, or stands there already */
    command_copy(w, dst, src, bytes);
    return FLOW_COPIES;
}

KERNEL_FN enum flow_look message_trouble(const struct worker *w, const struct rotation *r, uint64_t theirs, uint64_t mine)
{
    w->b->trouble.count = word_at(FLOW_WORD(w, r->j, finished)) + w->b->flows[r->j].at;
    trouble_on(w, &r->link, KERNEL_SIGNATURE_MESSAGE, theirs, mine);
    return FLOW_STOPS;
}

KERNEL_FN enum flow_look receive_look(const struct worker *w, struct rotation *r, uint32_t m, uint64_t done)
{
    if (!link_is_ready(w, &r->link, 1)) return FLOW_NOT_YET;
    uint64_t bytes = word_at(link_meta(w, &r->link)), theirs = word_at(link_meta(w, &r->link) + 8);
    uint64_t mine = word_at(MESSAGE_WORD(w, m, signature));
    if (theirs != mine) return message_trouble(w, r, theirs, mine);
    uint64_t expected = piece_bytes(r, word_at(MESSAGE_WORD(w, m, bytes)), done);
    if (bytes != expected) {
        trouble_on(w, &r->link, KERNEL_BYTES, bytes, expected);
        return FLOW_STOPS;
    }
    return copies(w, r, at_address(w, word_at(MESSAGE_WORD(w, m, buffer)) + done), at_address(w, link_slot(&r->link)), bytes);
}

KERNEL_FN enum flow_look send_look(const struct worker *w, struct rotation *r, uint32_t m, uint64_t done)
{
    if (!r->link.place) {
        r->searched = 1;
        link_search(w, &r->link);
        return FLOW_SEARCHES;
    }
    if (!link_is_ready(w, &r->link, 0)) return FLOW_NOT_YET;
    uint64_t bytes = piece_bytes(r, word_at(MESSAGE_WORD(w, m, bytes)), done);
    return copies(w, r, at_address(w, link_slot(&r->link)), at_address(w, word_at(MESSAGE_WORD(w, m, buffer)) + done), bytes);
}

/* Messages m and m + 1 are what is copied and where. */
KERNEL_FN enum flow_look self_look(const struct worker *w, struct rotation *r, uint32_t m, uint64_t done)
{
    uint64_t bytes = word_at(MESSAGE_WORD(w, m, bytes)), left = bytes - done;
    uint64_t src = word_at(MESSAGE_WORD(w, m, buffer)), dst = word_at(MESSAGE_WORD(w, m + 1, buffer));
    if (word_at(MESSAGE_WORD(w, m + 1, bytes)) != bytes) {
        struct trouble *t = &w->b->trouble;
        t->who = t->from = t->to = w->b->node.rank;
        t->count = w->b->flows[r->j].at / 2;
        trouble_found(w, KERNEL_SIGNATURE_MESSAGE, word_at(MESSAGE_WORD(w, m, signature)),
                      word_at(MESSAGE_WORD(w, m + 1, signature)));
        return FLOW_STOPS;
    }
    return copies(w, r, at_address(w, dst + done), at_address(w, src + done), left < SELF_PIECE_BYTES ? left : SELF_PIECE_BYTES);
}

KERNEL_FN enum flow_look flow_look(const struct worker *w, struct rotation *r)
{
    const struct flow_here *f = &w->b->flows[r->j];
    uint32_t m = load_u32(FLOW_WORD(w, r->j, first)) + f->at;
    uint64_t link = word_at(FLOW_WORD(w, r->j, link));
    if (!link) return self_look(w, r, m, f->done_bytes);
    link_load(w, link, &r->link);
    return load_u32(FLOW_WORD(w, r->j, receives)) ? receive_look(w, r, m, f->done_bytes) : send_look(w, r, m, f->done_bytes);
}

/* The piece is where it belongs. False: give up. */
KERNEL_FN int piece_finish(const struct worker *w, struct rotation *r)
{
    struct flow_here *f = &w->b->flows[r->j];
    uint64_t link = word_at(FLOW_WORD(w, r->j, link));
    uint32_t m = load_u32(FLOW_WORD(w, r->j, first)) + f->at;
    uint64_t whole = word_at(MESSAGE_WORD(w, m, bytes));
    r->pending = 0;
    if (link && load_u32(FLOW_WORD(w, r->j, receives))) {
        fence_system();
        link_release(w, &r->link);
    } else if (link) {
        link_describe(w, &r->link, r->bytes, word_at(MESSAGE_WORD(w, m, signature)));
        fence_system();
        link_publish(w, &r->link);
    }
    r->moved = 1;
    r->turn++;
    f->done_bytes += r->bytes;
    if (f->done_bytes >= whole) {
        f->done_bytes = 0;
        f->at += link ? 1 : 2;
        f->through = f->at >= load_u32(FLOW_WORD(w, r->j, n));
        r->left -= f->through;
    }
    return moved_on(w);
}

/* The next flow has its turn. False: give up. */
KERNEL_FN int rotation_next(const struct worker *w, struct rotation *r)
{
    r->turn = 0;
    if (++r->j < r->n) return 1;
    r->j = 0;
    if (r->moved) r->looks = 0;
    else if (!keep_waiting(w, &r->looks)) return 0;
    r->moved = 0;
    return 1;
}

/* False: trouble. The flows' state in shared memory is zeroed by all threads. */
KERNEL_FN int rotation_begin(const struct worker *w, struct rotation *r)
{
    const struct kernel_call *call = &w->b->call;
    uint32_t block = w->t.block;
    r->n = block < call->n_flows ? (call->n_flows - block - 1) / call->n_blocks + 1 : 0;
    r->j = r->turn = r->moved = r->looks = r->pending = r->searched = 0;
    if (r->n > KERNEL_BLOCK_FLOWS) {
        trouble_found(w, KERNEL_PLAN, call->n_flows, KERNEL_BLOCK_FLOWS);
        return 0;
    }
    r->left = r->n;
    KERNEL_NO_UNROLL for (uint32_t j = 0; j < r->n; j++) {
        w->b->flows[j].done_bytes = 0;
        w->b->flows[j].at = 0;
        w->b->flows[j].through = load_u32(FLOW_WORD(w, j, n)) == 0;
        r->left -= w->b->flows[j].through;
    }
    return r->left != 0;
}

/* Runs until all threads are needed, or to the end. */
KERNEL_FN enum leader rotation_run(const struct worker *w, struct rotation *r)
{
    if (r->searched && !link_found(w, &r->link)) r->turn = PIECES_PER_TURN; /* its receiver is yet to come: the next one */
    r->searched = 0;
    for (;;) {
        if (r->pending && !piece_finish(w, r)) return LEADER_STOPS;
        if (r->left == 0) return LEADER_STOPS;
        enum flow_look look = FLOW_NOT_YET;
        if (!w->b->flows[r->j].through && r->turn < PIECES_PER_TURN) look = flow_look(w, r);
        if (look == FLOW_STOPS) return LEADER_STOPS;
        if (look == FLOW_SEARCHES || (look == FLOW_COPIES && w->b->command != BLOCK_END)) return LEADER_COMMANDS;
        if (look == FLOW_NOT_YET && !rotation_next(w, r)) return LEADER_STOPS;
    }
}

#endif
