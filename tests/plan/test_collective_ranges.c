/* Blocks: over all channels, rounds and pieces every element of every block is named exactly once, in a buffer where the
 * shape's order says, in a window inside it; and the table of collectives agrees with the calls' definitions. */
#include "plan/plans.h"

#include "plan/collective.h"
#include "plan/ranges.h"

static const uint32_t order[] = {2, 0, 3, 1, 4};

static void every_element_of_every_block_is_named_once(void **state)
{
    (void)state;
    static const uint64_t counts[] = {1, 7, 16, 17, 100, 1000, 4099};
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++)
        for (uint32_t n = 1; n <= 5; n++)
            for (uint32_t parts = 1; parts <= 3; parts++)
                for (uint32_t channels = 1; channels <= 3; channels++) {
                    struct plan_split s = {counts[k], 16, 64, channels, parts};
                    uint32_t five[] = {0, 1, 2, 3, 4};
                    struct plan_blocks blocks = {n == 5 ? order : five, 1, 0};
                    uint8_t *seen = calloc(counts[k] * n, 1);
                    for (uint32_t c = 0; c < channels; c++)
                        for (uint64_t round = 0; round < plan_round_count(&s, c); round++)
                            for (uint32_t piece = 0; piece < n * parts; piece++) {
                                struct plan_range r = plan_piece_range(&s, c, round, piece);
                                uint64_t at = plan_in_buffer(&s, &blocks, 1, piece, r.first);
                                assert_int_equal(plan_in_buffer(&s, &blocks, 0, piece, r.first), r.first);
                                if (r.count > 0) assert_int_equal(at / counts[k], blocks.order[piece / parts]);
                                for (uint64_t e = 0; e < r.count; e++) assert_int_equal(seen[at + e]++, 0);
                            }
                    for (uint64_t e = 0; e < counts[k] * n; e++) assert_int_equal(seen[e], 1);
                    free(seen);
                }
}

static void blocks_of_a_round_stand_apart_in_a_window_that_holds_them(void **state)
{
    (void)state;
    for (uint64_t count = 1; count < 700; count += 13)
        for (uint32_t n = 1; n <= 8; n++) {
            struct plan_split s = {count, 16, 64, 1, 1}; /* a window of n pieces */
            for (uint64_t round = 0; round < plan_round_count(&s, 0); round++) {
                struct plan_range whole = plan_round_range(&s, 0, round);
                uint64_t end = 0;
                for (uint32_t piece = 0; piece < n; piece++) {
                    struct plan_range r = plan_piece_range(&s, 0, round, piece);
                    uint64_t at = plan_in_window(&s, whole, 1, piece, r.first);
                    assert_true(at >= end && at % s.grain == 0);
                    end = at + r.count;
                    assert_int_equal(plan_in_window(&s, whole, 0, piece, r.first), 0);
                }
                assert_true(end <= n * s.piece_max);
            }
        }
}

/* Spelled out a second time, by hand. */
static const struct {
    const char *name;
    struct collective_kind kind; /* reduces, rooted, input blocks, output blocks, root gives, root gets */
} definitions[] = {
    {"AllReduce", {1, 0, 0, 0, 0, 0}},     {"Broadcast", {0, 1, 0, 0, 1, 0}}, {"Reduce", {1, 1, 0, 0, 0, 1}},
    {"AllGather", {0, 0, 0, 1, 0, 0}},     {"ReduceScatter", {1, 0, 1, 0, 0, 0}}, {"Gather", {0, 1, 0, 1, 0, 1}},
    {"Scatter", {0, 1, 1, 0, 1, 0}},       {"AlltoAll", {0, 0, 1, 1, 0, 0}},
};

static void the_table_of_collectives_says_what_they_are(void **state)
{
    (void)state;
    assert_int_equal(sizeof definitions / sizeof definitions[0], PLAN_COLLECTIVES);
    for (uint32_t c = 0; c < PLAN_COLLECTIVES; c++) {
        struct collective_kind kind = collective_kind(c);
        assert_string_equal(collective_name(c), definitions[c].name);
        assert_memory_equal(&kind, &definitions[c].kind, sizeof kind);
    }
    assert_null(collective_name(PLAN_COLLECTIVES));
}

static void pieces_are_given_and_got_by_whom_they_should(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < PLAN_COLLECTIVES; c++)
        for (uint32_t rank = 0; rank < 4; rank++)
            for (uint32_t piece = 0; piece < 8; piece++) { /* two of each block */
                struct plan p = {.collective = (uint16_t)c, .rank = rank, .n_ranks = 4, .position = 3 - rank, .root = 2, .n_pieces = 8};
                bool mine = piece / 2 == 3 - rank, root = rank == 2;
                bool gives = c == PLAN_BROADCAST || c == PLAN_SCATTER ? root : c == PLAN_ALLGATHER || c == PLAN_GATHER ? mine : true;
                bool gets = c == PLAN_REDUCE || c == PLAN_GATHER ? root : c == PLAN_REDUCESCATTER || c == PLAN_SCATTER ? mine : true;
                assert_int_equal(!!plan_gives(&p, piece), gives);
                assert_int_equal(!!plan_gets(&p, piece), gets);
                /* only an AlltoAll's block stands elsewhere at its giver's: where the receiver's position says */
                assert_int_equal(plan_piece_given(&p, piece), c == PLAN_ALLTOALL ? 2 * (3 - rank) + piece % 2 : piece);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_element_of_every_block_is_named_once),
        cmocka_unit_test(blocks_of_a_round_stand_apart_in_a_window_that_holds_them),
        cmocka_unit_test(the_table_of_collectives_says_what_they_are),
        cmocka_unit_test(pieces_are_given_and_got_by_whom_they_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
