/* ranges.h: parts tile the whole exactly, whatever the counts; index functions stay in range. */
#include "plan/plans.h"

#include "plan/ranges.h"

static uint64_t state_of_random = 88172645463325252u;
static uint64_t random_next(void)
{
    state_of_random ^= state_of_random << 13;
    state_of_random ^= state_of_random >> 7;
    state_of_random ^= state_of_random << 17;
    return state_of_random;
}

/* Parts are in order, touch, cover `whole`, start on grains, and differ by at most a grain. */
static void tiles(struct plan_range whole, uint64_t parts, uint64_t grain, struct plan_range (*part)(const void *, uint64_t),
                  const void *of, uint64_t look_at)
{
    uint64_t units = plan_units(whole.count, grain), least = units / parts * grain;
    uint64_t stride = parts > look_at ? parts / look_at : 1;
    for (uint64_t k = 0; k < parts; k += stride) {
        struct plan_range r = part(of, k);
        uint64_t next = k + 1 < parts ? part(of, k + 1).first : whole.first + whole.count;
        assert_int_equal(r.first + r.count, next);
        if (r.count > 0) assert_int_equal((r.first - whole.first) % grain, 0);
        assert_true(r.count <= least + grain);
        assert_true(r.count + grain > least || r.count == least);
    }
    assert_int_equal(part(of, 0).first, whole.first);
}

struct place {
    struct plan_split split;
    uint32_t channel;
    uint64_t round;
};
static struct plan_range channel_part(const void *p, uint64_t k)
{
    return plan_channel_range(&((const struct place *)p)->split, (uint32_t)k);
}
static struct plan_range round_part(const void *p, uint64_t k)
{
    const struct place *at = p;
    return plan_round_range(&at->split, at->channel, k);
}
static struct plan_range piece_part(const void *p, uint64_t k)
{
    const struct place *at = p;
    return plan_piece_range(&at->split, at->channel, at->round, (uint32_t)k);
}

static void check_split(struct plan_split split)
{
    struct place at = {.split = split};
    tiles((struct plan_range){0, split.count}, split.n_channels, split.grain, channel_part, &at, 64);
    for (at.channel = 0; at.channel < split.n_channels; at.channel++) {
        struct plan_range channel = plan_channel_range(&split, at.channel);
        uint64_t rounds = plan_round_count(&split, at.channel);
        assert_int_equal(rounds == 0, channel.count == 0);
        if (rounds == 0) continue;
        /* no round to spare */
        assert_true((rounds - 1) * (split.piece_max * split.n_pieces) < channel.count);
        tiles(channel, rounds, split.grain, round_part, &at, 40);
        for (int k = 0; k < 4; k++) {
            at.round = k == 0 ? 0 : k == 1 ? rounds - 1 : random_next() % rounds;
            tiles(plan_round_range(&split, at.channel, at.round), split.n_pieces, split.grain, piece_part, &at, 64);
            for (uint32_t p = 0; p < split.n_pieces; p++)
                assert_true(piece_part(&at, p).count <= split.piece_max);
        }
    }
}

static void parts_tile_exactly_for_any_count(void **state)
{
    (void)state;
    static const uint64_t counts[] = {0, 1, 2, 7, 8, 15, 16, 17, 63, 64, 65, 1000, 4095, 4096, 4097, 1000003,
                                      ((uint64_t)1 << 31) + 5, ((uint64_t)1 << 32) - 1, ((uint64_t)1 << 40) + 12345,
                                      ((uint64_t)1 << 50) + 1};
    static const uint32_t pieces[] = {1, 2, 3, 4, 7, 8, 63, 64, 1000};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++)
        for (size_t p = 0; p < sizeof pieces / sizeof pieces[0]; p++)
            for (uint64_t grain = 8; grain <= 64; grain *= 2)
                for (uint32_t channels = 1; channels <= 5; channels += 2)
                    check_split((struct plan_split){counts[c], grain, grain * (1 + c * p), channels, pieces[p]});
    for (int k = 0; k < 3000; k++) {
        uint64_t grain = (uint64_t)8 << random_next() % 4, count = random_next() >> (12 + random_next() % 52);
        check_split((struct plan_split){count, grain, grain * (1 + random_next() % 4096), 1 + (uint32_t)(random_next() % 8),
                                        1 + (uint32_t)(random_next() % 70)});
    }
}

static void rounds_agree_with_the_longest_piece(void **state)
{
    (void)state;
    /* count, grain, piece_max, channels, pieces -> rounds of channel 0 */
    static const struct {
        struct plan_split split;
        uint64_t rounds;
    } cases[] = {
        {{0, 16, 64, 1, 4}, 0},   {{1, 16, 64, 1, 4}, 1},   {{256, 16, 64, 1, 4}, 1}, {{257, 16, 64, 1, 4}, 2},
        {{512, 16, 64, 1, 4}, 2}, {{512, 16, 64, 2, 4}, 1}, {{16, 16, 64, 8, 4}, 1},  {{1 << 20, 64, 64, 1, 1}, 16384},
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++)
        assert_int_equal(plan_round_count(&cases[k].split, 0), cases[k].rounds);
    struct plan_split small = {16, 16, 64, 8, 4}; /* one grain, eight channels: seven have nothing to do */
    for (uint32_t channel = 1; channel < 8; channel++) assert_int_equal(plan_round_count(&small, channel), 0);
}

static void indices_are_reduced_for_negative_steps_and_large_iterations(void **state)
{
    (void)state;
    static const int32_t steps[] = {0, 1, -1, 2, -2, 1000, INT32_MAX, INT32_MIN};
    static const uint32_t moduli[] = {1, 2, 3, 64, 1000000, UINT32_MAX};
    for (size_t s = 0; s < sizeof steps / sizeof steps[0]; s++)
        for (size_t m = 0; m < sizeof moduli / sizeof moduli[0]; m++)
            for (int k = 0; k < 200; k++) {
                struct plan_index x = {steps[s], (uint32_t)(random_next() % moduli[m]), moduli[m]};
                uint32_t i = k < 3 ? (uint32_t)-k : (uint32_t)random_next();
                uint32_t at = plan_index_at(x, i);
                assert_true(at < x.m);
                /* one iteration more is `a` further */
                if (i < UINT32_MAX) {
                    int64_t step = ((int64_t)plan_index_at(x, i + 1) - (int64_t)at - x.a) % (int64_t)x.m;
                    assert_int_equal(step, 0);
                }
            }
    assert_int_equal(plan_index_at((struct plan_index){-1, 0, 4}, 1), 3);
    assert_int_equal(plan_index_at((struct plan_index){-1, 3, 4}, 3), 0);
    assert_int_equal(plan_index_at((struct plan_index){3, 1, 7}, 5), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_tile_exactly_for_any_count),
        cmocka_unit_test(rounds_agree_with_the_longest_piece),
        cmocka_unit_test(indices_are_reduced_for_negative_steps_and_large_iterations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
