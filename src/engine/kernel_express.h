/* kernel_express.h - small collectives of a node's GPUs in one hop: engine/express.h for a kernel.
 *
 *     each word of a line   | flag: number of the call | 4 bytes of data |   one store of 8 bytes
 *
 *     all threads: read what I give, store it to every peer's line for me;  look at my lines until all words are there,
 *     each to where it belongs: the output, or, where values are combined, a place of my device's memory;  barrier; combine
 *
 * Data and flag arrive together, so there is no fence between them, no second message, no word that a peer must be asked
 * for. What makes them arrive together: a relaxed 64-bit access of system scope to an aligned address is single-copy atomic in
 * PTX's memory model, whatever lies between (a vector of two 32-bit words would be two accesses, and so would one of
 * 16 bytes); and PCIe and NVLink keep aligned 8 bytes in one packet. Nothing else is ordered: each word vouches for itself,
 * the signature (the first two) like the data.
 *
 * Lines lie at who reads them: who waits looks into its own memory. They alternate between two: a rank cannot be two calls
 * ahead, because it needs everybody's words of the call before, and whoever stored these had ended the one before that.
 * Every rank stores the signature to every other, also where it gives nothing, so a call is a meeting of all; and every word
 * that is stored is waited for, so none is under way to a rank that has ended its last call.
 *
 * The flag is the number of the call, counted in memory of the device (a graph repeats its arguments): 31 bits and one
 * that memory of zeros lacks. The end of a long line may be older than a number's life, so in the first calls after each
 * 2^30 lines are written from end to end. Plain C subset of CUDA. */
#ifndef RAIL_ENGINE_KERNEL_EXPRESS_H
#define RAIL_ENGINE_KERNEL_EXPRESS_H

#include "engine/kernel_block.h"

#define EXPRESS_FLAG(number) (0x80000000u | (uint32_t)((number) & 0x7fffffff))
#define EXPRESS_IS_RENEWED(number) (((number) & 0x3fffffff) < KERNEL_DEPTH)

/* One word of one peer's, from or to. */
struct express_at {
    uint32_t peer, word;
};

/* ---- who gives what to whom ------------------------------------------------------------------------------------------------ */

KERNEL_FN uint32_t express_rank(const struct worker *w, uint32_t peer) { return w->b->node.ranks[peer]; }

KERNEL_FN uint32_t express_words(const struct worker *w, int moves_data)
{
    const struct express_here *e = &w->b->express;
    if (e->whole) return w->b->node.line_words;
    return KERNEL_EXPRESS_HEAD + (moves_data ? e->data_words : 0);
}

/* Words that I store to a peer, and that I wait for from it. */
KERNEL_FN uint32_t express_words_to(const struct worker *w, uint32_t peer)
{
    const struct express_here *e = &w->b->express;
    if (peer == w->b->node.self) return 0;
    return express_words(w, e->gives && (!e->kind.root_gets || express_rank(w, peer) == w->b->call.root));
}
KERNEL_FN uint32_t express_words_from(const struct worker *w, uint32_t peer)
{
    const struct express_here *e = &w->b->express;
    if (peer == w->b->node.self) return 0;
    return express_words(w, e->gets && (!e->kind.root_gives || express_rank(w, peer) == w->b->call.root));
}

/* Of a line of writer's in reader's memory. */
KERNEL_FN unsigned char *express_line(const struct worker *w, uint32_t reader, uint32_t writer)
{
    const struct kernel_node *node = &w->b->node;
    uint64_t line = (uint64_t)writer * KERNEL_DEPTH + w->b->express.turn;
    return at_address(w, node->lines[reader] + line * node->line_words * KERNEL_EXPRESS_WORD);
}

KERNEL_FN uint64_t express_staged(const struct worker *w, uint32_t mine, uint32_t peer)
{
    const struct kernel_node *node = &w->b->node;
    return node->staging + ((uint64_t)mine * node->n_peers + peer) * node->staging_bytes;
}

/* Bytes of a block that are in data word k; 0: that word is behind it. */
KERNEL_FN uint32_t express_bytes(const struct worker *w, uint32_t k)
{
    uint64_t at = (uint64_t)k * KERNEL_EXPRESS_DATA, bytes = w->b->express.bytes;
    if (at >= bytes) return 0;
    return bytes - at < KERNEL_EXPRESS_DATA ? (uint32_t)(bytes - at) : KERNEL_EXPRESS_DATA;
}

/* ---- storing --------------------------------------------------------------------------------------------------------------- */

KERNEL_FN uint32_t express_signature(const struct worker *w, uint32_t word)
{
    return (uint32_t)(w->b->call.signature >> 32 * word);
}

/* My block for a peer, or for all. */
KERNEL_FN uint64_t express_given(const struct worker *w, uint32_t peer)
{
    const struct express_here *e = &w->b->express;
    return e->from + (e->kind.input_blocks ? express_rank(w, peer) * e->bytes : 0);
}

KERNEL_FN uint32_t express_read(const struct worker *w, uint32_t peer, uint32_t k)
{
    uint32_t bytes = express_bytes(w, k);
    if (!bytes) return 0;
    return word_load(at_address(w, express_given(w, peer) + (uint64_t)k * KERNEL_EXPRESS_DATA), 1, bytes).w[0];
}

KERNEL_FN void express_post(const struct worker *w)
{
    const struct express_here *e = &w->b->express;
    const uint64_t flag = (uint64_t)e->flag << 32;
    uint32_t k = w->t.thread;
    KERNEL_NO_UNROLL for (uint32_t p = 0; p < w->b->node.n_peers; p++) {
        uint32_t n = express_words_to(w, p);
        unsigned char *line = express_line(w, p, w->b->node.self);
        KERNEL_NO_UNROLL for (; k < n; k += w->t.n_threads) {
            uint32_t word = k < KERNEL_EXPRESS_HEAD ? express_signature(w, k)
                            : e->gives              ? express_read(w, p, k - KERNEL_EXPRESS_HEAD) : 0;
            flag_set(line + (uint64_t)k * KERNEL_EXPRESS_WORD, flag | word);
        }
        k -= n;
    }
}

/* ---- waiting --------------------------------------------------------------------------------------------------------------- */

/* One half of a peer's signature is here, and is not that of my call. */
KERNEL_FN int express_differs(const struct worker *w, const unsigned char *line)
{
    KERNEL_NO_UNROLL for (uint32_t k = 0; k < KERNEL_EXPRESS_HEAD; k++) {
        uint64_t word = flag_look(line + (uint64_t)k * KERNEL_EXPRESS_WORD);
        if ((uint32_t)(word >> 32) == w->b->express.flag && (uint32_t)word != express_signature(w, k)) return 1;
    }
    return 0;
}

/* Who waits for a line's first word asks often whether to give up; the others, which are many, seldom. */
enum { EXPRESS_LOOKS_OF_OTHERS = 32 * LOOKS_PER_STOP };

KERNEL_FN int express_keep_waiting(const struct worker *w, const unsigned char *line, uint32_t k, uint32_t *looks)
{
    uint32_t every = k ? EXPRESS_LOOKS_OF_OTHERS : LOOKS_PER_STOP;
    unsigned char *spoiled = (unsigned char *)&w->b->express.spoiled;
    if (++*looks % LOOKS_PER_STOP == 0 &&
        (flag_look_32(spoiled) || (*looks % every == 0 && given_up(w)) || express_differs(w, line))) {
        flag_set_32(spoiled, 1);
        return 0;
    }
    kernel_relax(&w->t, *looks);
    return 1;
}

/* Where a peer's data go; 0: nowhere. */
KERNEL_FN uint64_t express_place(const struct worker *w, uint32_t peer)
{
    const struct express_here *e = &w->b->express;
    if (e->kind.reduces) return express_staged(w, 0, peer);
    return w->b->call.output + (e->kind.output_blocks ? express_rank(w, peer) * e->bytes : 0);
}

/* A line's word that has come. Padding is for nobody. */
KERNEL_FN void express_take(const struct worker *w, uint32_t peer, uint32_t k, uint32_t value)
{
    const struct express_here *e = &w->b->express;
    struct quad q = {{0, 0, 0, 0}};
    uint32_t bytes = k < KERNEL_EXPRESS_HEAD ? 0 : express_bytes(w, k - KERNEL_EXPRESS_HEAD);
    int wanted = e->gets && (!e->kind.root_gives || express_rank(w, peer) == w->b->call.root);
    if (!bytes || !wanted) return;
    q.w[0] = value;
    word_store(at_address(w, express_place(w, peer) + (uint64_t)(k - KERNEL_EXPRESS_HEAD) * KERNEL_EXPRESS_DATA), q, 1, bytes);
}

KERNEL_FN void express_meet(const struct worker *w)
{
    const uint32_t flag = w->b->express.flag, self = w->b->node.self;
    uint32_t k = w->t.thread;
    KERNEL_NO_UNROLL for (uint32_t p = 0; p < w->b->node.n_peers; p++) {
        uint32_t n = express_words_from(w, p);
        const unsigned char *line = express_line(w, self, p);
        KERNEL_NO_UNROLL for (; k < n; k += w->t.n_threads) {
            uint32_t looks = 0;
            uint64_t word;
            while ((uint32_t)((word = flag_look(line + (uint64_t)k * KERNEL_EXPRESS_WORD)) >> 32) != flag)
                if (!express_keep_waiting(w, line, k, &looks)) return;
            if (k < KERNEL_EXPRESS_HEAD && (uint32_t)word != express_signature(w, k))
                flag_set_32((unsigned char *)&w->b->express.spoiled, 1);
            express_take(w, p, k, (uint32_t)word);
        }
        k -= n;
    }
}

/* ---- the leader ------------------------------------------------------------------------------------------------------------ */

enum { EXPRESS_SCALES, EXPRESS_MOVES, EXPRESS_GETS, EXPRESS_ENDS };

KERNEL_FN void express_resolve(const struct worker *w)
{
    struct block *b = w->b;
    struct express_here *e = &b->express;
    const struct kernel_call *call = &b->call;
    const uint64_t number = b->node.express + 1;
    e->kind = collective_kind(call->collective);
    e->bytes = call->split.count * number_bytes(call->how.type);
    e->data_words = (uint32_t)((e->bytes + KERNEL_EXPRESS_DATA - 1) / KERNEL_EXPRESS_DATA);
    e->flag = EXPRESS_FLAG(number);
    e->turn = (uint32_t)(number % KERNEL_DEPTH);
    e->whole = EXPRESS_IS_RENEWED(number);
    e->gives = !e->kind.root_gives || b->node.rank == call->root;
    e->gets = !e->kind.root_gets || b->node.rank == call->root;
    e->from = call->input;
    e->spoiled = 0;
    e->stage = call->how.scaled && e->gives ? EXPRESS_SCALES : EXPRESS_MOVES;
    if (b->node.n_peers <= KERNEL_EXPRESS_RANKS && e->data_words + KERNEL_EXPRESS_HEAD <= b->node.line_words) return;
    trouble_found(w, KERNEL_PLAN, e->data_words, 0);
    b->goes = 0;
}

/* By all threads: the launch is one block, so the node can be read as a whole, and the stop word, a microsecond away, meanwhile. */
KERNEL_FN void express_begin(const struct worker *w)
{
    struct block *b = w->b;
    const int leads = w->t.thread == 0;
    const uint32_t stop = leads ? flag_look_32(at_address(w, b->call.stop)) : 0;
    copy_words(w, &b->node, at_address(w, b->call.node), sizeof b->node);
    kernel_sync(&w->t);
    if (!leads) return;
    flag_set(REPORT_WORD(w, begun), b->node.launches + 1);
    if (b->call.how.scaled && b->call.how.scale_at) scalar_load(w);
    b->job.type = b->call.how.type;
    b->job.op = b->call.how.op;
    b->job.scale = b->call.how.scale;
    b->job.balanced = b->job.scale_mask = b->job.divide = 0;
    b->trouble.what = KERNEL_FINE;
    b->trouble.who = b->trouble.from = b->trouble.to = 0;
    b->trouble.count = 0;
    b->goes = !stop && !b->node.failed;
    express_resolve(w);
}

/* Float averages are scaled before they are given, once, as a plan does when it stages them. */
KERNEL_FN void express_scale(const struct worker *w)
{
    struct block *b = w->b;
    struct combine_job *job = &b->job;
    job->src[0] = at_address(w, b->call.input);
    job->dst[0] = at_address(w, express_staged(w, 1, 0));
    job->n_src = job->n_dst = 1;
    job->scale_mask = 1;
    job->bytes = b->express.bytes * (b->express.kind.input_blocks ? b->node.n_peers : 1);
    b->express.from = express_staged(w, 1, 0);
}

/* All are here: what I get of them, in the order of the node's peers, as the one-shot plans have it. False: nothing. */
KERNEL_FN int express_get(const struct worker *w)
{
    struct block *b = w->b;
    const struct express_here *e = &b->express;
    struct combine_job *job = &b->job;
    const uint32_t self = b->node.self;
    if (!e->gets) return 0;
    job->scale_mask = 0;
    job->bytes = e->bytes;
    job->n_dst = 1;
    if (e->kind.reduces) {
        job->n_src = b->node.n_peers;
        job->balanced = b->call.balanced;
        job->divide = b->call.how.divide > 1 && !number_is_float(b->call.how.type) ? b->call.how.divide : 0;
        KERNEL_NO_UNROLL for (uint32_t p = 0; p < job->n_src; p++)
            job->src[p] = at_address(w, p == self ? express_given(w, self) : express_staged(w, 0, p));
        job->dst[0] = at_address(w, b->call.output);
        return 1;
    }
    if (!e->gives) return 0;
    job->n_src = 1;
    job->src[0] = at_address(w, express_given(w, self));
    job->dst[0] = at_address(w, express_place(w, self));
    return job->src[0] != job->dst[0];
}

/* Both halves of a signature are here. False: give up. */
KERNEL_FN int express_head_is_here(const struct worker *w, const unsigned char *line)
{
    uint32_t looks = 0;
    KERNEL_NO_UNROLL for (uint32_t k = 0; k < KERNEL_EXPRESS_HEAD; k++)
        while ((uint32_t)(flag_look(line + (uint64_t)k * KERNEL_EXPRESS_WORD) >> 32) != w->b->express.flag)
            if (!keep_waiting(w, &looks)) return 0;
    return 1;
}

/* Some thread gave up, or saw another signature: whose it was. */
KERNEL_FN enum leader express_blame(const struct worker *w)
{
    struct block *b = w->b;
    KERNEL_NO_UNROLL for (uint32_t p = 0; p < b->node.n_peers; p++) {
        const unsigned char *line = express_line(w, b->node.self, p);
        if (p == b->node.self || !express_differs(w, line) || !express_head_is_here(w, line)) continue;
        uint64_t low = flag_look(line) & 0xffffffff, high = flag_look(line + KERNEL_EXPRESS_WORD) << 32;
        b->trouble.who = p;
        return trouble_found(w, KERNEL_SIGNATURE_PEER, high | low, b->call.signature);
    }
    return LEADER_STOPS;
}

/* No fences but in trouble: the end of a launch is one, for whoever follows in the stream, and the host takes the counts for
 * no more than counts. */
KERNEL_FN void express_end(const struct worker *w)
{
    struct block *b = w->b;
    const int troubled = b->trouble.what != KERNEL_FINE;
    trouble_report(w);
    if (troubled) fence_system();
    word_put(NODE_WORD(w, moved), b->node.moved + 1);
    word_put(NODE_WORD(w, express), b->node.express + 1);
    word_put(NODE_WORD(w, call_number), b->node.call_number + 1);
    word_put(NODE_WORD(w, launches), b->node.launches + 1);
    flag_set(REPORT_WORD(w, moved), b->node.moved + 1);
    flag_set(REPORT_WORD(w, finished), b->node.launches + 1);
    if (b->call.number) flag_set(REPORT_WORD(w, ended), b->call.number);
}

/* What is to be done next, by all. */
KERNEL_FN enum leader express_run(const struct worker *w)
{
    struct express_here *e = &w->b->express;
    w->b->command = BLOCK_COMBINE;
    switch (e->stage++) {
    case EXPRESS_SCALES: express_scale(w); return LEADER_COMMANDS;
    case EXPRESS_MOVES: w->b->command = BLOCK_EXPRESS; return LEADER_COMMANDS;
    case EXPRESS_GETS:
        if (e->spoiled) return express_blame(w);
        return express_get(w) ? LEADER_COMMANDS : LEADER_STOPS;
    default: return LEADER_STOPS;
    }
}

/* ---- what all threads do --------------------------------------------------------------------------------------------------- */

/* The call's number in the segment is the work of the last thread, whose warp then waits for its fence while the first ones
 * wait for their words. */
KERNEL_FN void express_move(const struct worker *w)
{
    express_post(w);
    if (w->t.thread == w->t.n_threads - 1) call_number(w);
    express_meet(w);
}

#endif
