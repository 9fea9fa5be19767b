/* test_traffic.c - what is read off a plan without walking its loops is what a walk over every round, iteration and
 * piece counts, for every collective by every algorithm. */
#include "simulate/simulate.h"

#include "plan/collective.h"
#include "plan/plans.h"

struct walk {
    const struct plan *plan;
    const struct plan_split *split;
    uint32_t channel;
    bool direct;
    struct traffic found;
};

static uint64_t piece_bytes(const struct walk *w, uint32_t piece)
{
    uint64_t sum = 0;
    for (uint64_t round = 0; round < plan_round_count(w->split, w->channel); round++)
        sum += 4 * plan_piece_range(w->split, w->channel, round, piece).count;
    return sum;
}

static void walk_move(struct walk *w, const struct plan_step *step, uint32_t i)
{
    const struct plan_operand *o = &w->plan->operands[step->first];
    if (step->flags & (w->direct ? PLAN_IF_STAGED : PLAN_IF_DIRECT)) return;
    for (uint32_t k = 0; k < (uint32_t)step->n_src + step->n_dst; k++) {
        uint64_t bytes = piece_bytes(w, plan_index_at(o[k].piece, i));
        uint32_t which = plan_index_at(o[k].which, i);
        bool source = k < step->n_src;
        if (o[k].place == PLAN_SLOT_OUT) w->found.sent[which] += bytes;
        if (o[k].place == PLAN_SLOT_IN) w->found.received[which] += bytes;
        if (!(o[k].place == PLAN_PEER_INPUT && source) && !(o[k].place == PLAN_PEER_OUTPUT && !source)) continue;
        for (uint32_t p = 0; p < o[k].span; p++)
            if ((which + p) % o[k].which.m != w->plan->peer) w->found.peers += bytes;
    }
}

static void walk_strand(struct walk *w, const struct plan_strand *strand)
{
    for (uint32_t at = strand->first; at < (uint32_t)strand->first + strand->n_steps; at++) {
        const struct plan_step *step = &w->plan->steps[at];
        if (step->verb == PLAN_MOVE) walk_move(w, step, 0);
        if (step->verb != PLAN_LOOP) continue;
        for (uint32_t i = plan_loop_from(step, 0); i < step->times; i = plan_loop_from(step, i + 1))
            for (uint32_t k = 1; k <= step->body; k++)
                if (step[k].verb == PLAN_MOVE) walk_move(w, &step[k], i);
        at += step->body;
    }
}

static void check_plan(const struct plan *plan, uint64_t count, uint64_t piece_max, const char *what)
{
    uint32_t blocks = collective_blocks(plan->collective, plan->n_ranks);
    for (uint32_t channel = 0; channel < 2; channel++) {
        struct plan_split split = {.count = count, .grain = 16, .piece_max = piece_max, .n_channels = 2,
                                   .n_pieces = plan->n_pieces / blocks};
        struct walk w = {.plan = plan, .split = &split, .channel = channel, .direct = true};
        struct pieces pieces;
        struct traffic t;
        assert_int_equal(pieces_make(&pieces, &split, channel, blocks, 4), RAIL_OK);
        for (uint32_t s = 0; s < plan->n_strands; s++) walk_strand(&w, &plan->strands[s]);
        traffic_of_plan(plan, &pieces, true, &t);
        for (uint32_t k = 0; k < plan->n_links; k++)
            if (t.sent[k] != w.found.sent[k] || t.received[k] != w.found.received[k])
                fail_msg("%s, rank %u, link %u: %llu sent and %llu received, a walk counts %llu and %llu", what,
                         plan->rank, k, (unsigned long long)t.sent[k], (unsigned long long)t.received[k],
                         (unsigned long long)w.found.sent[k], (unsigned long long)w.found.received[k]);
        if (t.peers != w.found.peers)
            fail_msg("%s, rank %u: %llu through peers' buffers, a walk counts %llu", what, plan->rank,
                     (unsigned long long)t.peers, (unsigned long long)w.found.peers);
        pieces_clear(&pieces);
    }
}

/* Shapes with one node, even and uneven nodes; messages of one piece's part, of many rounds, with an odd end. */
static void sums_are_what_a_walk_counts(void **state)
{
    (void)state;
    static const uint32_t shapes[][8] = {{2}, {5}, {1, 1, 1}, {2, 2}, {3, 3, 3}, {4, 2, 3}, {2, 2, 2, 2, 2}};
    static const uint64_t counts[] = {1, 100, 4096, 70001};
    int seen = 0;
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        struct shape shape = shape_of_nodes(shapes[k], false);
        for (int c = 0; c < PLAN_COLLECTIVES; c++)
            for (int a = 0; a < PLAN_ALGORITHMS; a++) {
                struct plan *plans = collective_plans((enum plan_collective)c, &shape, (enum plan_algorithm)a, 1, 0);
                char what[100];
                if (!plans) continue;
                snprintf(what, sizeof what, "%s by %s on shape %zu", collective_name((uint32_t)c),
                         plan_algorithm_names[a], k);
                for (uint32_t r = 0; r < shape.n_ranks; r++)
                    for (size_t s = 0; s < sizeof counts / sizeof counts[0]; s++)
                        check_plan(&plans[r], counts[s], 512, what);
                free(plans);
                seen++;
            }
        shape_clear(&shape);
    }
    assert_true(seen > 80);
}

/* (a i + b) mod m for strides that divide m, that do not, that go down, and loops that leave iterations out. */
static void any_progression_is_summed(void **state)
{
    (void)state;
    struct plan_split split = {.count = 12345, .grain = 16, .piece_max = 160, .n_channels = 1, .n_pieces = 24};
    struct pieces pieces;
    assert_int_equal(pieces_make(&pieces, &split, 0, 1, 4), RAIL_OK);
    for (int32_t a = -24; a <= 24; a++)
        for (uint32_t b = 0; b < 24; b++)
            for (uint32_t times = 0; times <= 60; times += 7)
                for (uint8_t period = 0; period <= 4; period++) {
                    struct plan_step loop = {.verb = PLAN_LOOP,
                                             .times = times,
                                             .body = 1,
                                             .period = period == 1 ? 0 : period,
                                             .skip = period > 1 ? (uint8_t)(b % period) : 0};
                    struct plan_index x = {a, b, 24};
                    uint64_t sum = 0;
                    for (uint32_t i = plan_loop_from(&loop, 0); i < times; i = plan_loop_from(&loop, i + 1))
                        sum += pieces.bytes[plan_index_at(x, i)];
                    if (pieces_sum(&pieces, x, &loop) != sum)
                        fail_msg("(%d i + %u) mod 24, %u times, without i mod %u = %u: %llu, a walk counts %llu", a, b,
                                 times, loop.period, loop.skip, (unsigned long long)pieces_sum(&pieces, x, &loop),
                                 (unsigned long long)sum);
                }
    assert_int_equal(pieces.total, 4 * 12345);
    pieces_clear(&pieces);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_what_a_walk_counts),
        cmocka_unit_test(any_progression_is_summed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
