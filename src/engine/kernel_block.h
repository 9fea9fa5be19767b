/* kernel_block.h - what the threads of one block share, and how the leader, thread 0, has them work.
 *
 *     leader: reads the plan, waits for peers, --command--> all: one MOVE, or one search --> leader: publishes, releases
 *
 * Everything that is decided is decided by the leader, and told in shared memory: threads that each looked for themselves
 * could see different things, and part at a barrier. Plain C subset of CUDA. */
#ifndef RAIL_ENGINE_KERNEL_BLOCK_H
#define RAIL_ENGINE_KERNEL_BLOCK_H

#include "device/cuda/combine.h"
#include "engine/kernel.h"
#include "engine/kernel_memory.h"
#include "plan/collective.h"

/* A link while a launch uses it. */
struct link_here {
    uint64_t address;  /* of its struct kernel_link */
    uint64_t place;    /* 0: to be found */
    uint64_t slots;
    uint64_t sequence;
    uint64_t seen;     /* last value read of the other side's counter; never too large */
    uint32_t n_slots, slot_bytes;
    uint32_t turn;     /* sequence modulo n_slots */
};

/* How far a flow of messages has come. */
struct flow_here {
    uint64_t done_bytes; /* of message `at` */
    uint32_t at;
    uint32_t through;
};

struct trouble {
    uint32_t what; /* enum kernel_trouble */
    uint32_t who, from, to;
    uint64_t theirs, mine, count;
};

enum block_command { BLOCK_END, BLOCK_COMBINE, BLOCK_FIND, BLOCK_EXPRESS };

/* A small collective (kernel_express.h). */
struct express_here {
    struct collective_kind kind;
    uint64_t bytes;          /* of a block */
    uint64_t from;           /* address of what I give, scaled where it is to be */
    uint32_t flag, turn;     /* of this call: in its words; which of its lines */
    uint32_t data_words;     /* of a block */
    uint32_t whole;          /* lines are written from end to end */
    uint32_t gives, gets;    /* this rank does */
    uint32_t spoiled;        /* some thread waits for nothing any more */
    uint32_t stage;          /* what the leader does next */
};

/* One strand, somewhere in one of its rounds (kernel_plan.h). */
struct strand {
    uint32_t index;          /* of the plan's strands */
    uint32_t at, end, loop, i;
    uint64_t round, n_rounds, window;
    struct plan_range whole; /* the elements of this round */
    uint64_t count;          /* of the MOVE that is being resolved, or done */
    uint32_t in, out;        /* its links, a bit each */
    uint32_t searched;       /* link whose place is looked for, or NO_LINK */
    uint32_t moving;         /* the command that all obey is this step's MOVE */
    uint32_t searches;       /* in vain so far */
};

/* Where the leader is on its way round its flows (kernel_messages.h). */
struct rotation {
    uint32_t n, left;      /* flows of this block; those not through */
    uint32_t j, turn;      /* the flow that has its turn: number j of mine; pieces of this turn so far */
    uint32_t moved;        /* some flow has moved since the last time round */
    uint32_t looks;        /* rounds without */
    uint32_t pending;      /* a piece of flow j is being copied */
    uint32_t searched;     /* the link of flow j is looked for */
    uint64_t bytes;        /* of that piece */
    struct link_here link; /* of flow j */
};

struct block {
    struct kernel_call call;
    struct kernel_node node;  /* as it was when the launch began */
    union {
        struct plan plan;
        struct flow_here flows[KERNEL_BLOCK_FLOWS];
        struct express_here express;
    };
    struct link_here links[PLAN_MAX_LINKS];
    struct strand strand;     /* the leader's, as the next two: in registers it would be in everybody's */
    struct rotation rotation;
    struct trouble trouble;
    uint32_t moved;           /* steps and pieces */
    uint32_t copied;          /* KERNEL_COPY has been commanded */
    struct combine_job job;   /* BLOCK_COMBINE */
    uint64_t find_places, find_key; /* BLOCK_FIND */
    uint32_t find_n, found;
    uint32_t command;         /* enum block_command */
    uint32_t goes;            /* the launch has work for this block */
    uint32_t last;            /* this block is the last of its launch to end */
};

PLAN_ASSERT(sizeof(struct block) <= KERNEL_SHARED_BYTES, "what a block shares fits the launch's shared memory");

/* One thread and its block. */
struct worker {
    struct kernel_thread t;
    struct block *b;
};

#define NOT_FOUND 0xffffffffu

/* What the leader has come to. */
enum leader {
    LEADER_GOES_ON,
    LEADER_COMMANDS, /* block->command is to be obeyed by all threads */
    LEADER_STOPS,    /* nothing is left, somebody gives up, or there is trouble */
};

KERNEL_FN unsigned char *at_address(const struct worker *w, uint64_t address) { return kernel_at(&w->t, address); }

/* A word of struct kernel_node in memory, where blocks meet. */
#define NODE_WORD(w, member) (at_address(w, (w)->b->call.node) + offsetof(struct kernel_node, member))
#define REPORT_WORD(w, member) (at_address(w, (w)->b->node.report) + offsetof(struct kernel_report, member))

/* ---- giving up ------------------------------------------------------------------------------------------------------- */

KERNEL_FN int given_up(const struct worker *w)
{
    return flag_look_32(at_address(w, w->b->node.stop)) != 0 || flag_look_32(NODE_WORD(w, failed)) != 0;
}

/* Between two looks whether to give up, each a microsecond over the bus: a wait looks a hundred times at least in the time
 * that an abort has. */
enum { LOOKS_PER_STOP = 32, MOVES_PER_STOP = 16 };

/* After look number *looks that found nothing. False: give up. */
KERNEL_FN int keep_waiting(const struct worker *w, uint32_t *looks)
{
    if (++*looks % LOOKS_PER_STOP == 0 && given_up(w)) return 0;
    kernel_relax(&w->t, *looks);
    return 1;
}

/* Something has moved. False: give up. */
KERNEL_FN int moved_on(const struct worker *w)
{
    if (++w->b->moved % MOVES_PER_STOP) return 1;
    flag_set(REPORT_WORD(w, moved), shared_add(NODE_WORD(w, moved), MOVES_PER_STOP) + MOVES_PER_STOP);
    return !given_up(w);
}

/* What is wrong: kept for the end of the block, which reports it. */
KERNEL_FN enum leader trouble_found(const struct worker *w, uint32_t what, uint64_t theirs, uint64_t mine)
{
    struct trouble *t = &w->b->trouble;
    t->what = what;
    t->theirs = theirs;
    t->mine = mine;
    return LEADER_STOPS;
}

/* At the end of a block. The first of all to find some writes it down; the others see `failed` and stop. */
KERNEL_FN void trouble_report(const struct worker *w)
{
    const struct trouble *t = &w->b->trouble;
    if (t->what == KERNEL_FINE || shared_swap_32(NODE_WORD(w, failed), 0, 1) != 0) return;
    unsigned char *report = at_address(w, w->b->node.report);
    flag_set_32(report + offsetof(struct kernel_report, who), t->who);
    flag_set_32(report + offsetof(struct kernel_report, link_from), t->from);
    flag_set_32(report + offsetof(struct kernel_report, link_to), t->to);
    flag_set(report + offsetof(struct kernel_report, theirs), t->theirs);
    flag_set(report + offsetof(struct kernel_report, mine), t->mine);
    flag_set(report + offsetof(struct kernel_report, count), t->count);
    fence_system();
    flag_set_32(report + offsetof(struct kernel_report, trouble), t->what);
}

/* ---- beginning ----------------------------------------------------------------------------------------------------------- */

KERNEL_FN void copy_words(const struct worker *w, void *to, const void *from, uint32_t bytes)
{
    uint32_t *dst = (uint32_t *)to;
    const uint32_t *src = (const uint32_t *)from;
    KERNEL_NO_UNROLL for (uint32_t k = w->t.thread; k < bytes / 4; k += w->t.n_threads) dst[k] = src[k];
}

KERNEL_FN void scalar_load(const struct worker *w)
{
    struct kernel_combine *how = &w->b->call.how;
    const unsigned char *at = at_address(w, how->scale_at);
    uint64_t scale = 0;
    KERNEL_NO_UNROLL for (uint32_t k = 0; k < number_bytes(how->type); k++) scale |= (uint64_t)load_u8(at + k) << 8 * k;
    how->scale = scale;
}

/* The call is numbered as engine/calls.h says. */
KERNEL_FN void call_number(const struct worker *w)
{
    const struct block *b = w->b;
    unsigned char *calls = at_address(w, b->node.calls);
    uint64_t number = b->node.call_number + 1;
    flag_set(calls + KERNEL_CALLS_SIGNATURE + 8 * (number % KERNEL_CALLS), b->call.signature);
    flag_set(calls + KERNEL_CALLS_LEFT_NS, 0);
    fence_system();
    flag_set(calls + KERNEL_CALLS_NUMBER, number);
}

/* ---- links ------------------------------------------------------------------------------------------------------------ */

#define LINK_WORD(w, address, member) (at_address(w, address) + offsetof(struct kernel_link, member))

/* Of all links of a plan: those of other strands their blocks may change meanwhile; what is read of them is not used. */
KERNEL_FN void link_load(const struct worker *w, uint64_t address, struct link_here *link)
{
    link->address = address;
    link->place = flag_look(LINK_WORD(w, address, place));
    link->slots = flag_look(LINK_WORD(w, address, slots));
    link->sequence = flag_look(LINK_WORD(w, address, sequence));
    link->seen = 0;
    link->n_slots = load_u32(LINK_WORD(w, address, n_slots));
    link->slot_bytes = load_u32(LINK_WORD(w, address, slot_bytes));
    link->turn = (uint32_t)(link->sequence - plan_quotient(link->sequence, link->n_slots) * link->n_slots);
}

/* The slot whose turn it is, and what is said of it. */
KERNEL_FN uint64_t link_slot(const struct link_here *link) { return link->slots + (uint64_t)link->turn * link->slot_bytes; }
KERNEL_FN unsigned char *link_meta(const struct worker *w, const struct link_here *link)
{
    return at_address(w, link->place) + KERNEL_PLACE_META + 16 * link->turn;
}

/* The receiver has a slot to read, or the sender one to write. */
KERNEL_FN int link_is_ready(const struct worker *w, struct link_here *link, uint32_t receives)
{
    const uint64_t ahead = receives ? 0 : link->n_slots; /* of what the other side has counted */
    if (link->sequence < link->seen + ahead) return 1;
    link->seen = flag_look(at_address(w, link->place) + (receives ? KERNEL_PLACE_PUBLISHED : KERNEL_PLACE_RELEASED));
    if (link->sequence >= link->seen + ahead) return 0;
    fence_system();
    return 1;
}

KERNEL_FN void link_step(const struct worker *w, struct link_here *link)
{
    link->sequence++;
    if (++link->turn == link->n_slots) link->turn = 0;
    flag_set(LINK_WORD(w, link->address, sequence), link->sequence);
}

/* In two: what is written before the fence, which serves all links of a MOVE, and the flag after it. */
KERNEL_FN void link_describe(const struct worker *w, const struct link_here *link, uint64_t bytes, uint64_t signature)
{
    word_put(link_meta(w, link), bytes);
    word_put(link_meta(w, link) + 8, signature);
}
KERNEL_FN void link_publish(const struct worker *w, struct link_here *link)
{
    flag_set(at_address(w, link->place) + KERNEL_PLACE_PUBLISHED, link->sequence + 1);
    link_step(w, link);
}
KERNEL_FN void link_release(const struct worker *w, struct link_here *link)
{
    flag_set(at_address(w, link->place) + KERNEL_PLACE_RELEASED, link->sequence + 1);
    link_step(w, link);
}

/* A sender's place is where its receiver has written the key; all threads look for it. */
KERNEL_FN enum leader link_search(const struct worker *w, const struct link_here *link)
{
    struct block *b = w->b;
    b->find_places = word_at(LINK_WORD(w, link->address, places));
    b->find_n = load_u32(LINK_WORD(w, link->address, n_places));
    b->find_key = word_at(LINK_WORD(w, link->address, key));
    b->found = NOT_FOUND;
    b->command = BLOCK_FIND;
    return LEADER_COMMANDS;
}

/* After it: true when it was there. */
KERNEL_FN int link_found(const struct worker *w, struct link_here *link)
{
    const struct block *b = w->b;
    if (b->found == NOT_FOUND) return 0;
    fence_system();
    link->place = b->find_places + (uint64_t)b->found * KERNEL_PLACE_BYTES;
    uint64_t set = word_at(at_address(w, link->place) + KERNEL_PLACE_SET);
    link->slots = word_at(LINK_WORD(w, link->address, slots_base)) + set * link->n_slots * link->slot_bytes;
    flag_set(LINK_WORD(w, link->address, place), link->place);
    flag_set(LINK_WORD(w, link->address, slots), link->slots);
    return 1;
}

KERNEL_FN enum leader trouble_on(const struct worker *w, const struct link_here *link, uint32_t what, uint64_t theirs,
                                 uint64_t mine)
{
    struct trouble *t = &w->b->trouble;
    t->who = t->from = load_u32(LINK_WORD(w, link->address, from));
    t->to = load_u32(LINK_WORD(w, link->address, to));
    return trouble_found(w, what, theirs, mine);
}

/* ---- what all threads do ---------------------------------------------------------------------------------------------- */

KERNEL_FN void block_find(const struct worker *w)
{
    struct block *b = w->b;
    KERNEL_NO_UNROLL for (uint32_t i = w->t.thread; i < b->find_n; i += w->t.n_threads) {
        uint64_t place = b->find_places + (uint64_t)i * KERNEL_PLACE_BYTES;
        if (flag_look(at_address(w, place) + KERNEL_PLACE_KEY) == b->find_key) b->found = i;
    }
}

KERNEL_FN void block_obey(const struct worker *w)
{
    if (w->b->command == BLOCK_FIND) block_find(w);
    else combine(&w->b->job, w->t.thread, w->t.n_threads);
}

/* A copy, commanded. Nothing is to be done where source and destination are one. */
KERNEL_FN enum leader command_copy(const struct worker *w, unsigned char *dst, const unsigned char *src, uint64_t bytes)
{
    struct combine_job *job = &w->b->job;
    if (bytes == 0 || dst == src) return LEADER_GOES_ON;
    job->src[0] = src;
    job->dst[0] = dst;
    job->n_src = job->n_dst = 1;
    job->scale_mask = job->divide = 0;
    job->bytes = bytes;
    w->b->command = BLOCK_COMBINE;
    return LEADER_COMMANDS;
}

#endif
