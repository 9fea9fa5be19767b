/* interpreter.cu - the kernel: runs plans and messages of one rank on a GPU.
 *
 *     begin     all threads: the call, the node, the plan, its links into shared memory
 *     work      leader: decides; all: obey; until nothing is left           kernel_plan.h, kernel_messages.h, kernel_express.h
 *     end       the last block of the launch advances the communicator's counters, once per launch
 *
 * A launch of a communicator never overlaps another of it, so what one block reads at its beginning no block changes before
 * all have begun. Every wait looks whether to give up (kernel_block.h); a launch ends in any case, and says so.
 *
 * Plain C subset of CUDA: compiled by nvcc and by clang without CUDA's headers, and for the host by way of
 * tests/emulated_cuda/kernels/interpreter.c. Any number of threads per block, one included. */
#include "engine/kernel.h"
#include "engine/kernel_block.h"
#include "engine/kernel_express.h"
#include "engine/kernel_messages.h"
#include "engine/kernel_plan.h"

/* ---- begin ----------------------------------------------------------------------------------------------------------- */

/* The channel of this block; n_channels: it has none. */
KERNEL_FN uint32_t channel_of(const struct worker *w)
{
    const struct kernel_call *call = &w->b->call;
    uint32_t c = 0;
    KERNEL_NO_UNROLL while (c < call->n_channels && w->t.block - call->channels[c].first_block >= call->channels[c].n_strands) c++;
    return c;
}

/* What all blocks need of the launch. */
KERNEL_FN void block_begin(const struct worker *w)
{
    struct block *b = w->b;
    /* Not the words at which blocks meet: one that began early may be at them already. */
    copy_words(w, &b->node, at_address(w, b->call.node), offsetof(struct kernel_node, moved));
    kernel_sync(&w->t);
    if (w->t.thread != 0) return;
    if (w->t.block == 0) {
        flag_set(REPORT_WORD(w, begun), b->node.launches + 1);
        if (b->call.counts) call_number(w);
    }
    if (b->call.how.scaled && b->call.how.scale_at) scalar_load(w);
    b->job.type = b->call.how.type;
    b->job.op = b->call.how.op;
    b->job.scale = b->call.how.scale;
    b->job.balanced = 0;
    b->moved = b->copied = 0;
    b->trouble.what = KERNEL_FINE;
    b->trouble.who = b->trouble.from = b->trouble.to = 0;
    b->trouble.count = 0;
    b->goes = !given_up(w);
}

/* The plan and the links of this block's channel, and its strand. */
KERNEL_FN void plan_begin(const struct worker *w)
{
    struct block *b = w->b;
    uint32_t c = channel_of(w);
    if (c < b->call.n_channels) {
        copy_words(w, &b->plan, at_address(w, b->call.channels[c].plan), sizeof b->plan);
        kernel_sync(&w->t);
        const unsigned char *links = at_address(w, b->call.channels[c].links);
        for (uint32_t l = w->t.thread; l < b->plan.n_links && l < PLAN_MAX_LINKS; l += w->t.n_threads)
            link_load(w, word_at(links + 8 * l), &b->links[l]);
    }
    kernel_sync(&w->t);
    if (w->t.thread != 0 || !b->goes) return;
    b->goes = c < b->call.n_channels && strand_begin(w, &b->strand, w->t.block - b->call.channels[c].first_block);
}

/* ---- work ------------------------------------------------------------------------------------------------------------- */

/* This block's part of the inputs into output: one input of a communicator of one rank, several where the kernel's
 * arithmetic alone is measured. */
KERNEL_FN enum leader copy_run(const struct worker *w)
{
    struct block *b = w->b;
    struct combine_job *job = &b->job;
    const struct plan_split *split = &b->call.split;
    if (b->copied) return LEADER_STOPS;
    b->copied = 1;
    struct plan_range whole;
    whole.first = 0;
    whole.count = split->count;
    struct plan_range mine = plan_part(whole, b->call.n_blocks, w->t.block, split->grain);
    uint64_t element = number_bytes(b->call.how.type), at = b->call.input + mine.first * element;
    uint32_t n = b->call.n_inputs ? b->call.n_inputs : 1;
    if (n > RAIL_COMBINE_MAX) return plan_trouble(w, n);
    KERNEL_NO_UNROLL for (uint32_t s = 0; s < n; s++) job->src[s] = at_address(w, at + s * b->call.inputs_apart);
    job->dst[0] = at_address(w, b->call.output + mine.first * element);
    job->n_src = n;
    job->n_dst = 1;
    job->scale_mask = b->call.how.scaled ? ~0ull : 0;
    job->divide = b->call.how.divide > 1 && !number_is_float(b->call.how.type) ? b->call.how.divide : 0;
    job->bytes = mine.count * element;
    if (!mine.count || (combine_copies(job) && job->src[0] == job->dst[0])) return LEADER_STOPS;
    b->command = BLOCK_COMBINE;
    return LEADER_COMMANDS;
}

KERNEL_FN void leader_run(const struct worker *w)
{
    struct block *b = w->b;
    enum leader to = LEADER_STOPS;
    if (b->goes) switch (b->call.work) {
    case KERNEL_COLLECTIVE: to = strand_run(w, &b->strand); break;
    case KERNEL_MESSAGES: to = rotation_run(w, &b->rotation); break;
    case KERNEL_COPY: to = copy_run(w); break;
    case KERNEL_EXPRESS: to = express_run(w); break;
    default: to = plan_trouble(w, b->call.work);
    }
    if (to != LEADER_COMMANDS) b->command = BLOCK_END;
}

KERNEL_FN void work(const struct worker *w)
{
    for (;;) {
        if (w->t.thread == 0) leader_run(w);
        kernel_sync(&w->t);
        if (w->b->command == BLOCK_END) return;
        if (w->b->command == BLOCK_EXPRESS) express_move(w);
        else block_obey(w);
        kernel_sync(&w->t);
    }
}

/* ---- end -------------------------------------------------------------------------------------------------------------- */

/* Every channel whose plan uses windows has run its rounds. By the threads of the last block, a channel each. */
KERNEL_FN void windows_advance(const struct worker *w)
{
    const struct kernel_call *call = &w->b->call;
    if (call->work != KERNEL_COLLECTIVE) return;
    for (uint32_t c = w->t.thread; c < call->n_channels; c += w->t.n_threads) {
        const struct plan *plan = (const struct plan *)(const void *)at_address(w, call->channels[c].plan);
        uint32_t channel = plan->channel;
        if (!(plan->flags & PLAN_WINDOWS) || channel >= KERNEL_MAX_CHANNELS) continue;
        word_put(NODE_WORD(w, window_round) + 8 * channel,
                 w->b->node.window_round[channel] + plan_round_count(&call->split, channel));
    }
}

KERNEL_FN void block_end(const struct worker *w)
{
    struct block *b = w->b;
    if (w->t.thread == 0) {
        trouble_report(w);
        uint32_t rest = b->moved % MOVES_PER_STOP;
        if (rest) flag_set(REPORT_WORD(w, moved), shared_add(NODE_WORD(w, moved), rest) + rest);
        fence_system();
        b->last = shared_add_32(NODE_WORD(w, blocks_done), 1) == b->call.n_blocks - 1;
    }
    kernel_sync(&w->t);
    if (!b->last) return;
    windows_advance(w);
    kernel_sync(&w->t);
    if (w->t.thread != 0) return;
    if (b->call.counts) word_put(NODE_WORD(w, call_number), b->node.call_number + 1);
    word_put(NODE_WORD(w, launches), b->node.launches + 1);
    store_u32(NODE_WORD(w, blocks_done), 0);
    fence_system();
    flag_set(REPORT_WORD(w, finished), b->node.launches + 1);
    if (!b->call.number) return;
    fence_system();
    flag_set(REPORT_WORD(w, ended), b->call.number);
}

/* block->call is written by the block's first thread. */
KERNEL_FN void interpret(struct block *block, struct kernel_thread here)
{
    struct worker w;
    w.t = here;
    w.b = block;
    kernel_sync(&w.t);
    const int small = block->call.work == KERNEL_EXPRESS;
    if (small) express_begin(&w);
    else block_begin(&w);
    kernel_sync(&w.t);
    if (block->call.work == KERNEL_COLLECTIVE) plan_begin(&w);
    else if (block->call.work == KERNEL_MESSAGES && here.thread == 0 && block->goes)
        block->goes = (uint32_t)rotation_begin(&w, &block->rotation);
    work(&w);
    if (!small) block_end(&w);
    else if (here.thread == 0) express_end(&w);
}

#if KERNEL_CUDA
extern __attribute__((shared)) unsigned long long rail_shared[]; /* KERNEL_SHARED_BYTES */

extern "C" __attribute__((global)) __attribute__((launch_bounds(KERNEL_THREADS, 1))) void rail_interpret(const struct kernel_call call)
{
    struct block *block = (struct block *)rail_shared;
    /* By constant addresses, from where arguments are to shared memory. By a loop, or as a whole, it would be a copy of a
     * kilobyte into the local memory of each thread first. Channels, half of it, only where there are some. */
    enum { WORDS = sizeof call / 8, FEWER = offsetof(struct kernel_call, channels) / 8 };
    if (kernel_thread_here().thread == 0) {
        KERNEL_UNROLL for (int k = 0; k < (int)FEWER; k++)
            ((uint64_t *)&block->call)[k] = ((const uint64_t *)&call)[k];
        if (call.n_channels)
            KERNEL_UNROLL for (int k = (int)FEWER; k < (int)WORDS; k++)
                ((uint64_t *)&block->call)[k] = ((const uint64_t *)&call)[k];
    }
    interpret(block, kernel_thread_here());
}
#endif
