/* A plan as text, to the letter: what `railccl explain` will show, and the shortest description of each algorithm. */
#include "plan/plans.h"

#include <stdio.h>

#include "plan/print.h"

static const struct {
    enum plan_algorithm algorithm;
    uint32_t rank, channel;
    const char *text;
} cases[] = {
    {PLAN_ONE_SHOT, 1, 0,
     "one-shot, rank 1 of 4, node peer 1 of 4, channel 0: 1 piece a round, not for direct in place\n"
     "strand 0\n"
     "   0  WAIT    DONE of peers(2..0 mod 4), 2 rounds ago\n"
     "   1  MOVE    input[0] -> peer-input(1)[0]   if staged\n"
     "   2  SIGNAL  STAGED\n"
     "   3  WAIT    STAGED of peers(2..0 mod 4)\n"
     "   4  MOVE    peer-input(0..3)[0] -> output[0]   FINAL\n"
     "   5  SIGNAL  DONE\n"
     "   6  WAIT    DONE of peers(2..0 mod 4)   if direct\n"},
    {PLAN_TWO_SHOT, 0, 0,
     "two-shot, rank 0 of 4, node peer 0 of 4, channel 0: 4 pieces a round\n"
     "strand 0\n"
     "   0  WAIT    DONE of peers(1..3), 2 rounds ago\n"
     "   1  LOOP    3 times, i = 0 .. 2\n"
     "   2    MOVE    input[(1+i) mod 4] -> peer-input(0)[(1+i) mod 4]   if staged\n"
     "   3  SIGNAL  STAGED\n"
     "   4  WAIT    STAGED of peers(1..3)\n"
     "   5  MOVE    peer-input(0..3)[0] -> peer-output(0..3)[0]   FINAL\n"
     "   6  SIGNAL  DELIVERED\n"
     "   7  LOOP    3 times, i = 0 .. 2\n"
     "   8    WAIT    DELIVERED of peers((1+i) mod 4)\n"
     "   9    MOVE    peer-output((1+i) mod 4)[(1+i) mod 4] -> output[(1+i) mod 4]   if staged\n"
     "  10  SIGNAL  DONE\n"},
    {PLAN_RING, 1, 2,
     "ring, rank 1 of 4, node peer 1 of 4, channel 2: 4 pieces a round, 2 slots a link\n"
     "strand 0\n"
     "   0  MOVE    input[1] -> slot-out(1 -> rank 2)[1]\n"
     "   1  LOOP    2 times, i = 0 .. 1\n"
     "   2    MOVE    slot-in(0 <- rank 0)[(0-i) mod 4] + input[(0-i) mod 4] -> slot-out(1 -> rank 2)[(0-i) mod 4]\n"
     "   3  MOVE    slot-in(0 <- rank 0)[2] + input[2] -> output[2], slot-out(1 -> rank 2)[2]   FINAL\n"
     "   4  LOOP    2 times, i = 0 .. 1\n"
     "   5    MOVE    slot-in(0 <- rank 0)[(1-i) mod 4] -> output[(1-i) mod 4], slot-out(1 -> rank 2)[(1-i) mod 4]\n"
     "   6  MOVE    slot-in(0 <- rank 0)[3] -> output[3]\n"},
    {PLAN_TREE, 1, 0,
     "tree, rank 1 of 4, node peer 1 of 4, channel 0: 1 piece a round, 1 slot a link\n"
     "strand 0\n"
     "   0  MOVE    slot-in(2 <- rank 3)[0] + input[0] -> slot-out(1 -> rank 0)[0]\n"
     "strand 1\n"
     "   1  MOVE    slot-in(0 <- rank 0)[0] -> output[0], slot-out(3 -> rank 3)[0]\n"},
    {PLAN_TREE, 3, 1, /* the reversed tree: rank 3 is its root */
     "tree, rank 3 of 4, node peer 3 of 4, channel 1: 1 piece a round, 1 slot a link\n"
     "strand 0\n"
     "   0  MOVE    slot-in(0 <- rank 2)[0] + input[0] + slot-in(2 <- rank 1)[0] -> output[0], "
     "slot-out(1 -> rank 2)[0], slot-out(3 -> rank 1)[0]   FINAL\n"},
};

static void plans_print_as_written_here(void **state)
{
    (void)state;
    struct shape shape = shape_of_one_node(4);
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        struct plan plan;
        char *text = NULL;
        size_t bytes = 0;
        FILE *out = open_memstream(&text, &bytes);
        assert_non_null(out);
        assert_true(plan_writers_allreduce[cases[k].algorithm](&shape, cases[k].rank, cases[k].channel, &plan));
        plan_print(&plan, out);
        fclose(out);
        assert_string_equal(text, cases[k].text);
        free(text);
    }
    shape_clear(&shape);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(plans_print_as_written_here)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
