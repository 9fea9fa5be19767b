/* Every single fault in a plan of the collectives beside AllReduce is refused: each step removed, each pair of
 * neighbouring steps swapped, each loop a turn short, each flag toggled, each operand shifted by a piece or a peer, in
 * one rank's plan. A fault may be harmless in one mode (staged, direct, in place) and must show in another; the few that
 * are harmless in all of them are listed, with the reason. */
#include "plan/plans.h"

#include <stdio.h>

#include "plan/collective.h"

enum { N = 5, ROOT = 1, ROUNDS = 4 };

enum fault { STEP_REMOVED, STEPS_SWAPPED, LOOP_SHORT, FLAG_FINAL, FLAG_MODE, PIECE_SHIFTED, WHICH_SHIFTED, SPAN_SHORT,
             COUNTER_OTHER, FAULTS };
static const char *const fault_names[FAULTS] = {"removed", "swapped with the next", "a turn short", "FINAL toggled",
                                                "direct and staged exchanged", "piece shifted", "which shifted",
                                                "span short", "another counter"};

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

/* Shifts the one operand, in its own ring of numbers; constants become another constant of the same range. */
static bool operand_shift(const struct plan *p, struct plan_operand *o, enum fault fault)
{
    struct plan_index *x = fault == PIECE_SHIFTED ? &o->piece : &o->which;
    bool peers = o->place == PLAN_PEER_INPUT || o->place == PLAN_PEER_OUTPUT;
    if (fault == SPAN_SHORT) {
        if (o->span < 2) return false;
        o->span--;
        return true;
    }
    if (fault == WHICH_SHIFTED && (!peers || o->span > 1)) return false; /* spans wrap: another order, not another set */
    uint32_t limit = fault == PIECE_SHIFTED ? p->n_pieces : p->n_peers;
    if (limit < 2) return false;
    *x = (struct plan_index){x->a, (x->b + 1) % limit, limit};
    return true;
}

/* A move of peers' memory and the signal after it, or the wait before it: their order is what counts. (The loop of an
 * AllGather holds such a pair, too.) */
static bool orders(const struct plan *p, const struct plan_step *s)
{
    const struct plan_step *move = s[0].verb == PLAN_MOVE ? &s[0] : &s[1], *other = s[0].verb == PLAN_MOVE ? &s[1] : &s[0];
    if (move->verb != PLAN_MOVE || other->verb != (move == s ? PLAN_SIGNAL : PLAN_WAIT)) return false;
    for (uint32_t k = move->first; k < (uint32_t)move->first + move->n_src + move->n_dst; k++)
        if (p->operands[k].place == PLAN_PEER_INPUT || p->operands[k].place == PLAN_PEER_OUTPUT) return true;
    return false;
}

/* The piece of a WAIT says nothing. */
static bool of_a_wait(const struct plan *p, uint32_t operand)
{
    for (uint32_t k = 0; k < p->n_steps; k++)
        if (p->steps[k].verb == PLAN_WAIT && p->steps[k].first == operand) return true;
    return false;
}

/* False: this plan has no such fault at this place. `k` counts steps, or operands. */
static bool damage(struct plan *p, enum fault fault, uint32_t k)
{
    if (fault >= PIECE_SHIFTED && fault <= SPAN_SHORT)
        return k < p->n_operands && !(fault == PIECE_SHIFTED && of_a_wait(p, k)) && operand_shift(p, &p->operands[k], fault);
    if (k >= p->n_steps) return false;
    struct plan_step *s = &p->steps[k];
    switch (fault) {
    case STEP_REMOVED:
        step_remove(p, k);
        return true;
    case STEPS_SWAPPED:
        if (k + 1 >= p->n_steps || !orders(p, s)) return false;
        struct plan_step kept = s[0];
        s[0] = s[1];
        s[1] = kept;
        return true;
    case LOOP_SHORT:
        if (s->verb != PLAN_LOOP || s->times == 0) return false;
        s->times--;
        return true;
    case FLAG_FINAL:
        if (s->verb != PLAN_MOVE) return false;
        s->flags ^= PLAN_FINAL;
        return true;
    case FLAG_MODE:
        if (!(s->flags & (PLAN_IF_DIRECT | PLAN_IF_STAGED))) return false;
        s->flags ^= PLAN_IF_DIRECT | PLAN_IF_STAGED;
        return true;
    default:
        if (s->verb != PLAN_SIGNAL && s->verb != PLAN_WAIT) return false;
        s->counter = (uint8_t)((s->counter + 1) % PLAN_REDUCED); /* of those that plans of one node have */
        return true;
    }
}

/* Right in every mode, under two schedules? */
static bool survives(const struct plan *plans, struct plan_check_report *report)
{
    for (int mode = 0; mode < 8; mode++) {
        bool direct[N], in_place[N];
        for (uint32_t r = 0; r < N; r++) {
            direct[r] = mode / 2 == 1 || (mode / 2 == 2 && r % 2 == 0) || (mode / 2 == 3 && r % 2 == 1);
            in_place[r] = mode % 2 && (plans[0].flags & PLAN_DIRECT_IN_PLACE);
        }
        struct plan_check_call call[2] = {{plans, ROUNDS, direct, in_place}, {plans, 1, direct, in_place}};
        for (int schedule = PLAN_CHECK_FORWARD; schedule <= PLAN_CHECK_REVERSE; schedule++) {
            struct plan_check check = {.calls = call, .n_calls = 2, .schedule = (enum plan_check_schedule)schedule};
            if (plan_check_run(&check, report, NULL) != PLAN_RIGHT) return false;
        }
    }
    return true;
}

struct subject {
    enum plan_collective collective;
    enum plan_algorithm algorithm;
    uint32_t rank;
};

/* Whose windows, and whose word STAGED, somebody depends on by nothing but a wait for them: who gives where not all
 * wait for all. (Where everybody waits for everybody's STAGED of each round, that alone keeps two windows apart.) */
static bool gives_alone(const struct subject *s)
{
    struct collective_kind kind = collective_kind(s->collective);
    if (!kind.rooted || s->algorithm == PLAN_TWO_SHOT) return false;
    return kind.root_gives == (s->rank == ROOT);
}

static bool gives_nothing(const struct subject *s)
{
    struct collective_kind kind = collective_kind(s->collective);
    return kind.rooted && s->algorithm != PLAN_TWO_SHOT && kind.root_gives != (s->rank == ROOT);
}

/* Right all the same, in every mode. */
static bool is_harmless(const struct subject *s, const struct plan *p, enum fault fault, uint32_t k)
{
    struct collective_kind kind = collective_kind(s->collective);
    bool windows = p->flags & PLAN_WINDOWS;
    if (fault == STEP_REMOVED && p->steps[k].verb == PLAN_LOOP && p->steps[k].times == 1) return true;
    /* the lagging wait, and the last of those it waits for */
    if (windows && k == 0 && (fault == STEP_REMOVED || fault == COUNTER_OTHER || fault == STEPS_SWAPPED))
        return !gives_alone(s);
    /* waiting for more than is needed: others deliver before I do, and are done without me */
    if (s->algorithm == PLAN_TWO_SHOT && fault == COUNTER_OTHER) return p->steps[k].verb == PLAN_WAIT;
    if (windows && k == 0 && fault == SPAN_SHORT)
        return !gives_alone(s) || (kind.root_gets && (s->rank + N - 1) % N != ROOT);
    /* a STAGED that is only there to be compared */
    return windows && k == 1 && (fault == STEP_REMOVED || fault == COUNTER_OTHER) && gives_nothing(s);
}

static uint32_t damage_all(const struct subject *s, const struct shape *shape, uint32_t *survivors)
{
    uint32_t tried = 0;
    struct plan *whole = collective_plans(s->collective, shape, s->algorithm, 0, ROOT);
    assert_non_null(whole);
    for (enum fault fault = 0; fault < FAULTS; fault++)
        for (uint32_t k = 0; k < PLAN_MAX_OPERANDS; k++) {
            struct plan plans[N];
            struct plan_check_report report;
            memcpy(plans, whole, sizeof plans);
            if (!damage(&plans[s->rank], fault, k)) continue;
            tried++;
            bool harmless = is_harmless(s, &whole[s->rank], fault, k);
            if (survives(plans, &report) == harmless) continue;
            print_error("%s, %s, rank %u: %s %u %s: %s\n", collective_name(s->collective),
                        plan_algorithm_names[s->algorithm], s->rank,
                        fault >= PIECE_SHIFTED && fault <= SPAN_SHORT ? "operand" : "step", k, fault_names[fault],
                        harmless ? report.why : "accepted");
            ++*survivors;
        }
    free(whole);
    return tried;
}

static void every_single_fault_is_refused(void **state)
{
    (void)state;
    struct shape shape = shape_of_one_node(N);
    uint32_t tried = 0, wrong = 0;
    for (int c = PLAN_ALLREDUCE + 1; c < PLAN_COLLECTIVES; c++)
        for (int a = 0; a < PLAN_ALGORITHMS; a++)
            for (uint32_t rank = 0; rank < N; rank++) {
                struct subject s = {(enum plan_collective)c, (enum plan_algorithm)a, rank};
                if (a != PLAN_RAILS && plan_exists(s.collective, s.algorithm)) tried += damage_all(&s, &shape, &wrong);
            }
    print_message("%u faults tried\n", tried);
    assert_true(tried > 1000);
    assert_int_equal(wrong, 0);
    shape_clear(&shape);
}

static void every_single_fault_of_an_allreduce_over_links_is_refused(void **state)
{
    (void)state;
    struct shape shape = shape_of_nodes((const uint32_t[]){3, 2, 0}, false);
    uint32_t tried = 0, wrong = 0;
    for (int a = PLAN_RANK_TREE; a <= PLAN_HIERARCHY; a++)
        for (uint32_t rank = 0; rank < N; rank++) {
            struct subject s = {PLAN_ALLREDUCE, (enum plan_algorithm)a, rank};
            tried += damage_all(&s, &shape, &wrong);
        }
    assert_true(tried > 30);
    assert_int_equal(wrong, 0);
    shape_clear(&shape);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_single_fault_of_an_allreduce_over_links_is_refused),
        cmocka_unit_test(every_single_fault_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
