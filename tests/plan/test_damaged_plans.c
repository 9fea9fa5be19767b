/* The check refuses damaged plans, each for its reason, whatever the schedule. A check that accepts everything would
 * pass every other test here; this one shows that it cannot. */
#include "plan/plans.h"

#include <stdio.h>

enum { N_MAX = 8 };

/* Editing a plan. */

static void step_remove(struct plan *p, uint32_t at)
{
    memmove(&p->steps[at], &p->steps[at + 1], (p->n_steps - at - 1u) * sizeof p->steps[0]);
    p->n_steps--;
    for (uint32_t k = 0; k < p->n_strands; k++) {
        struct plan_strand *s = &p->strands[k];
        if (s->first > at) s->first--;
        else if (at < (uint32_t)s->first + s->n_steps) s->n_steps--;
    }
    for (uint32_t k = 0; k < at; k++)
        if (p->steps[k].verb == PLAN_LOOP && k + p->steps[k].body >= at) p->steps[k].body--;
}

static void step_insert(struct plan *p, uint32_t at, struct plan_step step) /* plans of one strand */
{
    memmove(&p->steps[at + 1], &p->steps[at], (p->n_steps - at) * sizeof p->steps[0]);
    p->steps[at] = step;
    p->n_steps++;
    p->strands[0].n_steps++;
}

static void steps_swap(struct plan *p, uint32_t a, uint32_t b)
{
    struct plan_step kept = p->steps[a];
    p->steps[a] = p->steps[b];
    p->steps[b] = kept;
}

static struct plan_operand *operand(struct plan *p, uint32_t step, uint32_t k) { return &p->operands[p->steps[step].first + k]; }

/* A step with its own operands, copied from others. */
static struct plan_step move_of(struct plan *p, uint8_t n_src, uint8_t n_dst, const struct plan_operand *operands)
{
    struct plan_step s = {.verb = PLAN_MOVE, .n_src = n_src, .n_dst = n_dst, .first = p->n_operands};
    memcpy(&p->operands[p->n_operands], operands, (uint32_t)(n_src + n_dst) * sizeof *operands);
    p->n_operands = (uint16_t)(p->n_operands + n_src + n_dst);
    return s;
}

static struct plan_operand own(enum plan_place place, struct plan_index piece)
{
    return (struct plan_operand){.place = (uint8_t)place, .span = 1, .which = {0, 0, 1}, .piece = piece};
}

/* The damages. Steps of one-shot: 0 wait DONE, 1 stage, 2 signal STAGED, 3 wait STAGED, 4 combine, 5 signal DONE,
 * 6 wait DONE (direct). Two-shot: 0 wait DONE, 1 loop 2 stage, 3 signal STAGED, 4 wait STAGED, 5 combine,
 * 6 signal DELIVERED, 7 loop 8 wait DELIVERED 9 fetch, 10 signal DONE. Ring: 0 send, 1 loop 2 combine on, 3 complete,
 * 4 loop 5 pass on, 6 last. Tree on 7 ranks: rank 0 is the root, ranks 1 and 2 are inside. */

static void drop_0(struct plan *p) { step_remove(&p[1], 0); }
static void drop_2(struct plan *p) { step_remove(&p[1], 2); }
static void drop_3(struct plan *p) { step_remove(&p[1], 3); }
static void drop_4(struct plan *p) { step_remove(&p[1], 4); }
static void drop_6(struct plan *p) { step_remove(&p[1], 6); }
static void drop_8(struct plan *p) { step_remove(&p[1], 8); }
static void drop_10(struct plan *p) { step_remove(&p[1], 10); }
static void swap_1_2(struct plan *p) { steps_swap(&p[1], 1, 2); }
static void swap_5_6(struct plan *p) { steps_swap(&p[1], 5, 6); }
static void swap_4_3(struct plan *p) { steps_swap(&p[1], 4, 3); }
static void start_elsewhere(struct plan *p) { operand(&p[1], 4, 0)->which.b = 1; }
static void span_short(struct plan *p) { operand(&p[1], 4, 0)->span--; }
static void span_short_not_final(struct plan *p)
{
    span_short(p);
    p[1].steps[4].flags = 0;
}
static void span_long(struct plan *p) { operand(&p[1], 4, 0)->span++; }
static void final_lost(struct plan *p)
{
    for (uint32_t k = 0; k < p[1].n_steps; k++) p[1].steps[k].flags &= (uint8_t)~PLAN_FINAL;
}
static void root_final_lost(struct plan *p) { p[0].steps[0].flags = 0; }
static void counter_wrong_everywhere(struct plan *p)
{
    for (uint32_t r = 0; r < p[0].n_ranks; r++) p[r].steps[3].counter = PLAN_DONE;
}
static void lag_2(struct plan *p) { p[1].steps[3].lag = PLAN_WINDOW_DEPTH; }
static void lag_1(struct plan *p) { p[1].steps[0].lag = 1; }
static void lag_0(struct plan *p) { p[1].steps[0].lag = 0; }
static void stage_if_direct(struct plan *p) { p[1].steps[1].flags = PLAN_IF_DIRECT; }
static void never_runs(struct plan *p) { p[1].steps[1].flags = PLAN_IF_DIRECT | PLAN_IF_STAGED; }
static void fetch_wrong_peer(struct plan *p) { operand(&p[1], 9, 0)->which.b = (operand(&p[1], 9, 0)->which.b + 1) % 4; }
static void fetch_wrong_piece(struct plan *p) { operand(&p[1], 9, 0)->piece.b = (operand(&p[1], 9, 0)->piece.b + 1) % 4; }
static void wait_wrong_peer(struct plan *p) { operand(&p[1], 8, 0)->which.b = 1; }
static void deliver_to_fewer(struct plan *p) { operand(&p[1], 5, 1)->span--; }
static void stage_one_less(struct plan *p) { p[1].steps[1].times--; }
static void fetch_one_less(struct plan *p) { p[1].steps[7].times--; }
static void stage_for_another(struct plan *p) { operand(&p[1], 1, 1)->which.b = 2; }
static void loop_short(struct plan *p) { p[1].steps[1].times--; }
static void loop_long(struct plan *p) { p[1].steps[1].times++; }
static void pass_short(struct plan *p) { p[1].steps[4].times--; }
static void loops_short_everywhere(struct plan *p)
{
    for (uint32_t r = 0; r < p[0].n_ranks; r++) p[r].steps[1].times--;
}
static void final_twice(struct plan *p) { p[1].steps[5].flags = PLAN_FINAL; }
static void input_of_wrong_piece(struct plan *p) { operand(&p[1], 2, 1)->piece.b = (operand(&p[1], 2, 1)->piece.b + 1) % 4; }
static void sends_wrong_piece(struct plan *p)
{
    operand(&p[1], 0, 0)->piece.b = operand(&p[1], 0, 1)->piece.b = (operand(&p[1], 0, 0)->piece.b + 1) % 4;
}
static void index_backwards(struct plan *p)
{
    for (uint32_t k = 0; k < 3; k++) operand(&p[1], 2, k)->piece.a = 1;
}
static void link_to_self(struct plan *p) { p[1].links[1].peer = 1; }
static void link_elsewhere(struct plan *p) { p[1].links[1].peer = 3; }
static void link_twice(struct plan *p) { p[1].links[1] = p[1].links[0]; }
static void link_reversed(struct plan *p) { p[1].links[0].direction = PLAN_LINK_OUT; }
static void link_out_of_world(struct plan *p) { p[1].links[1].peer = 4; }
static void link_unused(struct plan *p) { p[1].links[p[1].n_links++] = (struct plan_link){3, PLAN_LINK_OUT, 0}; }
static void input_forgotten(struct plan *p)
{
    struct plan_operand *o = operand(&p[1], 2, 0);
    p[1].steps[2].n_src = 1;
    o[1] = o[2];
}
static void input_twice(struct plan *p)
{
    struct plan_operand *o = operand(&p[1], 2, 0);
    struct plan_step s = move_of(&p[1], 3, 1, (struct plan_operand[]){o[0], o[1], o[1], o[2]});
    p[1].steps[2] = s;
}
static void sends_once_more(struct plan *p)
{
    struct plan_step s = p[1].steps[0];
    step_insert(&p[1], 7, s);
}
static void sends_first_twice(struct plan *p)
{
    struct plan_step s = p[1].steps[0];
    step_insert(&p[1], 0, s);
}
static void step_outside(struct plan *p) { p[1].strands[0].n_steps++; }
static void step_nobodys(struct plan *p) { p[1].strands[0].n_steps--; }
static void operands_outside(struct plan *p) { p[1].steps[6].first = PLAN_MAX_OPERANDS - 1; }
static void piece_outside(struct plan *p) { operand(&p[1], 2, 0)->piece.m = 5; }
static void index_not_reduced(struct plan *p) { operand(&p[1], 2, 0)->piece.b = 4; }
static void modulus_zero(struct plan *p) { operand(&p[1], 2, 0)->piece.m = 0; }
static void loop_in_loop(struct plan *p) { p[1].steps[1].body = 4; }
static void loop_past_end(struct plan *p) { p[1].steps[4].body = 3; }
static void verb_unknown(struct plan *p) { p[1].steps[2].verb = 9; }
static void writes_to_input(struct plan *p) { operand(&p[1], 6, 1)->place = PLAN_INPUT; }
static void peers_without_windows(struct plan *p) { operand(&p[1], 6, 1)->place = PLAN_PEER_OUTPUT; }
static void too_many_slots(struct plan *p) { p[1].slots_min = PLAN_SLOTS_GUARANTEED + 1; }
static void pieces_disagree(struct plan *p) { p[1].n_pieces++; }
static void rank_wrong(struct plan *p) { p[1].rank = 2; }
static void final_on_signal(struct plan *p) { p[1].steps[2].flags = PLAN_FINAL; }
static void counter_unknown(struct plan *p) { p[1].steps[2].counter = PLAN_COUNTERS; }
static void output_too_early(struct plan *p)
{
    struct plan_index piece = operand(&p[1], 3, 0)->piece;
    struct plan_step s = move_of(&p[1], 1, 1, (struct plan_operand[]){own(PLAN_INPUT, piece), own(PLAN_OUTPUT, piece)});
    step_insert(&p[1], 0, s);
}
static void output_for_input(struct plan *p) { operand(&p[1], 0, 0)->place = PLAN_OUTPUT; }
static void tree_input_forgotten(struct plan *p)
{
    struct plan_operand *o = operand(&p[1], 0, 0); /* left + input + right -> parent */
    o[1] = o[2];
    o[2] = o[3];
    p[1].steps[0].n_src = 2;
}
static void tree_down_before_up(struct plan *p)
{
    steps_swap(&p[3], 0, 1);
    p[3].strands[0].n_steps = 2;
    p[3].n_strands = 1;
}
static void tree_two_strands_one_link(struct plan *p)
{
    p[3].operands[p[3].steps[1].first + 1] = p[3].operands[p[3].steps[0].first + 1];
}
static void tree_child_not_told(struct plan *p) { p[1].steps[1].n_dst--; }
static void tree_strands_share_scratch(struct plan *p)
{
    for (uint32_t k = 0; k < 2; k++) {
        struct plan_operand *o = operand(&p[3], k, 0);
        struct plan_step s = move_of(&p[3], 1, 2, (struct plan_operand[]){o[0], o[1], own(PLAN_SCRATCH, (struct plan_index){0, 0, 1})});
        p[3].steps[k] = s;
    }
    p[3].n_scratch = 1;
}
/* Fetching in a strand of its own: then only the lagging wait keeps a window until everybody has read it. */
static void fetch_apart(struct plan *p)
{
    for (uint32_t r = 0; r < p[0].n_ranks; r++) {
        p[r].strands[0].n_steps = 7;
        p[r].strands[1] = (struct plan_strand){7, 4};
        p[r].n_strands = 2;
    }
}
static void fetch_apart_without_wait(struct plan *p)
{
    fetch_apart(p);
    for (uint32_t r = 0; r < p[0].n_ranks; r++) step_remove(&p[r], 0); /* one rank's would come by way of the others */
}

enum { S = 0, D = 1, I = 2 }; /* staged, direct, in place */

#define IS(verdict) (1u << (verdict))
static const struct damage {
    const char *name;
    void (*apply)(struct plan *plans);
    enum plan_algorithm algorithm;
    uint32_t rounds;
    int mode;
    uint32_t verdicts; /* allowed ones */
    const char *why;   /* contained in every reason */
} damages[] = {
    {"one-shot: does not wait for STAGED", drop_3, PLAN_ONE_SHOT, 1, S, IS(PLAN_RACE), "in-window[0]"},
    {"one-shot direct: does not wait for STAGED", drop_3, PLAN_ONE_SHOT, 1, D, IS(PLAN_RACE), "may not be in the call yet"},
    {"one-shot: does not signal STAGED", drop_2, PLAN_ONE_SHOT, 2, S, IS(PLAN_DEADLOCK), "STAGED of rank 1"},
    {"one-shot: signals before staging", swap_1_2, PLAN_ONE_SHOT, 1, S, IS(PLAN_RACE), "in-window[0]"},
    {"one-shot: combines before waiting", swap_4_3, PLAN_ONE_SHOT, 1, S, IS(PLAN_RACE), "in-window[0]"},
    {"one-shot direct: leaves before all have read", drop_6, PLAN_ONE_SHOT, 1, D, IS(PLAN_RACE), "rank 1"},
    {"one-shot direct in place: writes what peers read", NULL, PLAN_ONE_SHOT, 1, D | I, IS(PLAN_RACE) | IS(PLAN_WRONG_VALUE), "put"},
    {"one-shot: another order on one rank", start_elsewhere, PLAN_ONE_SHOT, 1, S, IS(PLAN_WRONG_RANKS), "rank 1: output[0]"},
    {"one-shot: spans a peer too few", span_short, PLAN_ONE_SHOT, 1, S, IS(PLAN_WRONG_FINAL), "rank 1 strand 0 step 4 round 0: FINAL on an incomplete"},
    {"one-shot: spans a peer too few, not final", span_short_not_final, PLAN_ONE_SHOT, 1, S, IS(PLAN_WRONG_VALUE), "lacks inputs"},
    {"one-shot: spans a peer too many", span_long, PLAN_ONE_SHOT, 1, S, IS(PLAN_WRONG_STRUCTURE), "spans 5 peers of 4"},
    {"one-shot: not final", final_lost, PLAN_ONE_SHOT, 1, S, IS(PLAN_WRONG_FINAL), "without FINAL"},
    {"one-shot: waits for DONE where STAGED was meant", counter_wrong_everywhere, PLAN_ONE_SHOT, 1, S, IS(PLAN_DEADLOCK), "DONE of rank"},
    {"one-shot: waits for STAGED of two rounds ago", lag_2, PLAN_ONE_SHOT, 3, S, IS(PLAN_RACE), "in-window[0]"},
    {"one-shot: lag that is none", lag_1, PLAN_ONE_SHOT, 1, S, IS(PLAN_WRONG_STRUCTURE), "lag 1"},
    {"one-shot: waits for this round's DONE first", lag_0, PLAN_ONE_SHOT, 1, S, IS(PLAN_DEADLOCK), "rank"},
    {"one-shot: stages when direct", stage_if_direct, PLAN_ONE_SHOT, 1, S, IS(PLAN_RACE), "before anything was put there"},
    {"one-shot: a step that never runs", never_runs, PLAN_ONE_SHOT, 1, S, IS(PLAN_WRONG_STRUCTURE), "never runs"},
    {"one-shot: writes another's input", stage_for_another, PLAN_ONE_SHOT, 1, S, IS(PLAN_WRONG_STRUCTURE), "input of another"},
    {"one-shot: FINAL on a signal", final_on_signal, PLAN_ONE_SHOT, 1, S, IS(PLAN_WRONG_STRUCTURE), "FINAL on a step"},
    {"one-shot: unknown counter", counter_unknown, PLAN_ONE_SHOT, 1, S, IS(PLAN_WRONG_STRUCTURE), "counter 4"},
    {"two-shot: does not wait for STAGED", drop_4, PLAN_TWO_SHOT, 1, S, IS(PLAN_RACE), "in-window[1]"},
    {"two-shot direct: does not wait for STAGED", drop_4, PLAN_TWO_SHOT, 1, D, IS(PLAN_RACE), "may not be in the call yet"},
    {"two-shot: does not wait for DELIVERED", drop_8, PLAN_TWO_SHOT, 1, S, IS(PLAN_RACE), "out-window"},
    {"two-shot direct: does not wait for DELIVERED", drop_8, PLAN_TWO_SHOT, 1, D, IS(PLAN_RACE), "rank 1"},
    {"two-shot: does not signal DELIVERED", drop_6, PLAN_TWO_SHOT, 2, S, IS(PLAN_DEADLOCK), "DELIVERED of rank 1"},
    {"two-shot: does not signal DONE", drop_10, PLAN_TWO_SHOT, 3, S, IS(PLAN_DEADLOCK), "DONE of rank 1"},
    {"two-shot: signals before delivering", swap_5_6, PLAN_TWO_SHOT, 1, S, IS(PLAN_RACE), "out-window[1] of rank 1"},
    {"two-shot direct: signals before delivering", swap_5_6, PLAN_TWO_SHOT, 1, D, IS(PLAN_RACE), "rank"},
    {"two-shot: fetches from the wrong peer", fetch_wrong_peer, PLAN_TWO_SHOT, 1, S, IS(PLAN_RACE) | IS(PLAN_WRONG_VALUE), "rank 1 strand 0 step 9"},
    {"two-shot: fetches the wrong piece", fetch_wrong_piece, PLAN_TWO_SHOT, 1, S, IS(PLAN_WRONG_PIECE), "which has another length"},
    {"two-shot: waits for the wrong peer", wait_wrong_peer, PLAN_TWO_SHOT, 1, S, IS(PLAN_RACE), "out-window"},
    {"two-shot: delivers to one too few", deliver_to_fewer, PLAN_TWO_SHOT, 1, D, IS(PLAN_WRONG_VALUE), "rank 3: output[1] of round 0 was never written"},
    {"two-shot: stages a piece too few", stage_one_less, PLAN_TWO_SHOT, 1, S, IS(PLAN_WRONG_VALUE), "never written"},
    {"two-shot: fetches a piece too few", fetch_one_less, PLAN_TWO_SHOT, 1, S, IS(PLAN_WRONG_VALUE), "rank 1: output[0] of round 0 was never written"},
    {"two-shot, fetching apart, without the lagging wait", fetch_apart_without_wait, PLAN_TWO_SHOT, 3, S, IS(PLAN_RACE), "out-window"},
    {"ring: one combination too few", loop_short, PLAN_RING, 1, S, IS(PLAN_WRONG_PIECE), "the slot carries"},
    {"ring: one combination too many", loop_long, PLAN_RING, 1, S, IS(PLAN_WRONG_PIECE) | IS(PLAN_WRONG_VALUE) | IS(PLAN_WRONG_FINAL), "rank"},
    {"ring: one combination too few, everywhere", loops_short_everywhere, PLAN_RING, 1, S, IS(PLAN_WRONG_PIECE), "the slot carries"},
    {"ring: passes one piece too few on", pass_short, PLAN_RING, 1, S, IS(PLAN_WRONG_PIECE), "the slot carries"},
    {"ring: the last slot is never taken", drop_6, PLAN_RING, 1, S, IS(PLAN_LEFT_OVER), "rank 0 sent rank 1 1 slots that nobody took"},
    {"ring: a slot too many is sent", sends_once_more, PLAN_RING, 1, S, IS(PLAN_LEFT_OVER), "rank 1 sent rank 2"},
    {"ring: the first piece is sent twice", sends_first_twice, PLAN_RING, 1, S, IS(PLAN_WRONG_PIECE) | IS(PLAN_DEADLOCK), "rank"},
    {"ring: not final", final_lost, PLAN_RING, 1, S, IS(PLAN_WRONG_FINAL), "completes the reduction of piece 2 without FINAL"},
    {"ring: final twice", final_twice, PLAN_RING, 1, S, IS(PLAN_WRONG_FINAL), "already final"},
    {"ring: combines with another piece", input_of_wrong_piece, PLAN_RING, 1, S, IS(PLAN_WRONG_PIECE), "which has another length"},
    {"ring: sends another piece", sends_wrong_piece, PLAN_RING, 1, S, IS(PLAN_WRONG_PIECE), "rank 2 strand 0 step 2 round 0: expects piece 1"},
    {"ring: walks the other way", index_backwards, PLAN_RING, 1, S, IS(PLAN_WRONG_PIECE), "the slot carries"},
    {"ring: forgets its input", input_forgotten, PLAN_RING, 1, S, IS(PLAN_WRONG_FINAL), "incomplete"},
    {"ring: counts its input twice", input_twice, PLAN_RING, 1, S, IS(PLAN_WRONG_VALUE), "rank 1 strand 0 step 2 round 0: counts an input twice"},
    {"ring: link to itself", link_to_self, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "the rank itself"},
    {"ring: link to the wrong rank", link_elsewhere, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "which has none"},
    {"ring: one link twice", link_twice, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "the same"},
    {"ring: link the wrong way round", link_reversed, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "the other way"},
    {"ring: link to a rank that is not there", link_out_of_world, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "rank 4 of 4"},
    {"ring: link without use", link_unused, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "never used"},
    {"ring: strand past the steps", step_outside, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "step 8 of 7"},
    {"ring: step in no strand", step_nobodys, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "no strand"},
    {"ring: operands out of range", operands_outside, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "operands end"},
    {"ring: piece out of range", piece_outside, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "piece 4 is out of range"},
    {"ring: index not reduced", index_not_reduced, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "b = 4, m = 4"},
    {"ring: modulus zero", modulus_zero, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "m = 0"},
    {"ring: loop inside a loop", loop_in_loop, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "loop inside"},
    {"ring: loop past the strand", loop_past_end, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "runs past"},
    {"ring: unknown verb", verb_unknown, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "verb 9"},
    {"ring: writes to its input", writes_to_input, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "writes to a source"},
    {"ring: peers in a plan without windows", peers_without_windows, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "without windows"},
    {"ring: more slots than there are", too_many_slots, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "needs 5 slots"},
    {"ring: plans disagree on pieces", pieces_disagree, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "disagrees"},
    {"ring: plan of another rank", rank_wrong, PLAN_RING, 1, S, IS(PLAN_WRONG_STRUCTURE), "rank"},
    {"ring in place: overwrites an input it still needs", output_too_early, PLAN_RING, 1, I, IS(PLAN_WRONG_VALUE), "overwritten in place"},
    {"ring in place: takes the input as if it were output", output_for_input, PLAN_RING, 1, I, IS(PLAN_WRONG_VALUE), "not scaled"},
    {"ring: takes output for input", output_for_input, PLAN_RING, 1, S, IS(PLAN_WRONG_VALUE), "never written"},
    {"tree: forgets an input inside", tree_input_forgotten, PLAN_TREE, 1, S, IS(PLAN_WRONG_FINAL), "rank 0 strand 0 step 0 round 0: FINAL on an incomplete"},
    {"tree: waits for the result before it gives", tree_down_before_up, PLAN_TREE, 1, S, IS(PLAN_DEADLOCK), "rank"},
    {"tree: two strands on one link", tree_two_strands_one_link, PLAN_TREE, 1, S, IS(PLAN_WRONG_STRUCTURE), "two strands"},
    {"tree: a child is not told", tree_child_not_told, PLAN_TREE, 1, S, IS(PLAN_WRONG_STRUCTURE), "never used"},
    {"tree: the root does not finish", root_final_lost, PLAN_TREE, 1, S, IS(PLAN_WRONG_FINAL), "rank 0"},
    {"tree: strands share memory across rounds", tree_strands_share_scratch, PLAN_TREE, 2, S, IS(PLAN_RACE), "scratch[0] of rank 3"},
};
enum { N_DAMAGES = sizeof damages / sizeof damages[0] };

static enum plan_verdict judge(const struct damage *d, int schedule, uint64_t seed, struct plan_check_report *report)
{
    struct shape shape = shape_of_one_node(d->algorithm == PLAN_TREE ? 7 : 4);
    struct plan *plans = plans_write(&shape, d->algorithm, 0);
    bool direct[N_MAX], in_place[N_MAX];
    memset(direct, (d->mode & D) != 0, sizeof direct);
    memset(in_place, (d->mode & I) != 0, sizeof in_place);
    if (d->apply) d->apply(plans);
    struct plan_check_call call = {plans, d->rounds, direct, in_place};
    struct plan_check check = {.calls = &call, .n_calls = 1, .schedule = (enum plan_check_schedule)schedule, .seed = seed};
    enum plan_verdict verdict = plan_check_run(&check, report, NULL);
    free(plans);
    shape_clear(&shape);
    return verdict;
}

static void every_damaged_plan_is_refused_for_its_reason_under_every_schedule(void **state)
{
    (void)state;
    bool failed = false;
    for (int k = 0; k < N_DAMAGES; k++)
        for (uint64_t run = 0; run < 12; run++) {
            struct plan_check_report report;
            int schedule = run < 3 ? (int)run : PLAN_CHECK_RANDOM;
            enum plan_verdict v = judge(&damages[k], schedule, run, &report);
            if (v != report.verdict || !(damages[k].verdicts & IS(v)) || !strstr(report.why, damages[k].why)) {
                print_error("%s, schedule %d: verdict %d, \"%s\"\n", damages[k].name, schedule, v, report.why);
                failed = true;
            }
        }
    assert_true(N_DAMAGES >= 25);
    assert_false(failed);
}

/* Whether a peer reads before or after the owner is gone, by chance of schedule: it is wrong both times. */
static void leaving_early_is_refused_however_late_the_peer_reads(void **state)
{
    (void)state;
    bool direct[2] = {true, true}, after = false;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct shape shape = shape_of_one_node(2);
        struct plan *plans = plans_write(&shape, PLAN_ONE_SHOT, 0);
        drop_6(plans);
        struct plan_check_call call = {plans, 1, direct, NULL};
        struct plan_check check = {.calls = &call, .n_calls = 1, .schedule = PLAN_CHECK_RANDOM, .seed = seed};
        struct plan_check_report report;
        assert_int_equal(plan_check_run(&check, &report, NULL), PLAN_RACE);
        after = after || strstr(report.why, "whose call has returned");
        free(plans);
        shape_clear(&shape);
    }
    assert_true(after);
}

static void the_same_plans_undamaged_are_right(void **state)
{
    (void)state;
    for (int k = 0; k < N_DAMAGES; k++) {
        struct damage whole = damages[k];
        if (whole.apply == NULL) continue;
        whole.apply = NULL;
        struct plan_check_report report;
        assert_int_equal(judge(&whole, PLAN_CHECK_FORWARD, 0, &report), PLAN_RIGHT);
        assert_string_equal(report.why, "");
    }
}

/* Not damages: what the check must not refuse. */
static void harmless_changes_are_accepted(void **state)
{
    (void)state;
    static const struct damage harmless[] = {
        /* Everybody's STAGED of a round says that all left the round before, and there are two windows. */
        {"one-shot: the lagging wait", drop_0, PLAN_ONE_SHOT, 4, S, 0, ""},
        {"two-shot: the lagging wait", drop_0, PLAN_TWO_SHOT, 4, S, 0, ""},
        {"two-shot: fetching in a strand of its own", fetch_apart, PLAN_TWO_SHOT, 4, S, 0, ""},
        {"two-shot direct: fetching in a strand of its own", fetch_apart, PLAN_TWO_SHOT, 4, D | I, 0, ""},
        {"ring out of place: a copy too early", output_too_early, PLAN_RING, 3, S, 0, ""},
        {"tree: strands share memory in one round", tree_strands_share_scratch, PLAN_TREE, 1, S, 0, ""},
    };
    for (size_t k = 0; k < sizeof harmless / sizeof harmless[0]; k++)
        for (uint64_t run = 0; run < 12; run++) {
            struct plan_check_report report;
            if (judge(&harmless[k], run < 3 ? (int)run : PLAN_CHECK_RANDOM, run, &report) != PLAN_RIGHT)
                fail_msg("%s: %s", harmless[k].name, report.why);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_damaged_plan_is_refused_for_its_reason_under_every_schedule),
        cmocka_unit_test(leaving_early_is_refused_however_late_the_peer_reads),
        cmocka_unit_test(the_same_plans_undamaged_are_right),
        cmocka_unit_test(harmless_changes_are_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
