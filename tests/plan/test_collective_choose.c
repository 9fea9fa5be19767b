/* The chooser of the collectives beside AllReduce: natural answers by size and shape, forced ones that exist and fit,
 * rounds that fit windows and slots, and always a plan that its planner writes. */
#include "plan/plans.h"

#include "plan/collective.h"

static const uint32_t KIB = 1024, MIB = 1 << 20;

static struct choice choose(enum plan_collective c, const uint32_t *nodes, int32_t forced, uint64_t bytes)
{
    struct shape shape = shape_of_nodes(nodes, false);
    struct choice_table table;
    choice_table_default(&table, &shape);
    table.forced_algorithm = forced;
    struct choice choice = choose_plan(c, &table, &shape, bytes);
    shape_clear(&shape);
    return choice;
}
#define NODES(...) ((const uint32_t[]){__VA_ARGS__, 0})

static void one_node_takes_one_exchange_and_a_large_reduce_two(void **state)
{
    (void)state;
    for (int c = PLAN_BROADCAST; c < PLAN_COLLECTIVES; c++) {
        assert_int_equal(choose((enum plan_collective)c, NODES(4), -1, 8).algorithm, PLAN_ONE_SHOT);
        assert_int_equal(choose((enum plan_collective)c, NODES(4), -1, MIB).algorithm,
                         c == PLAN_REDUCE ? PLAN_TWO_SHOT : PLAN_ONE_SHOT);
        assert_int_equal(choose((enum plan_collective)c, NODES(4), -1, MIB).n_channels, 1);
    }
}

static void several_nodes_take_few_hops_for_small_messages_and_rings_else(void **state)
{
    (void)state;
    for (int c = PLAN_BROADCAST; c < PLAN_COLLECTIVES; c++) {
        bool tree = c == PLAN_BROADCAST || c == PLAN_REDUCE;
        if (c == PLAN_ALLTOALL) continue; /* the next test */
        bool everybody = c == PLAN_ALLGATHER || c == PLAN_REDUCESCATTER;
        enum plan_algorithm few_hops = tree ? PLAN_TREE : everybody ? PLAN_DOUBLING : PLAN_RING;
        assert_int_equal(choose((enum plan_collective)c, NODES(4, 3), -1, 8).algorithm, few_hops);
        assert_int_equal(choose((enum plan_collective)c, NODES(4, 3), -1, 64 * MIB).algorithm, PLAN_RING);
        assert_int_equal(choose((enum plan_collective)c, NODES(4, 3), -1, 64 * MIB).n_channels, 4);
        assert_int_equal(choose((enum plan_collective)c, NODES(65), -1, 8).algorithm, tree ? PLAN_TREE : PLAN_RING);
        if (everybody) assert_int_equal(choose((enum plan_collective)c, NODES(1, 1, 1), -1, 8).algorithm, PLAN_RING); /* as many hops */
    }
    /* channels follow what is moved: blocks of all ranks */
    assert_int_equal(choose(PLAN_ALLGATHER, NODES(4, 3), PLAN_RING, 64 * KIB).n_channels, 4);
    assert_int_equal(choose(PLAN_BROADCAST, NODES(4, 4), PLAN_RING, 64 * KIB).n_channels, 1);
    assert_int_equal(choose(PLAN_BROADCAST, NODES(4, 4), PLAN_TREE, 64 * MIB).n_channels, 2); /* the trees are two */
}

/* Blocks of nodes of the same size: m - 1 hops and an exchange, whatever the size, unless doubling has fewer. */
static void even_nodes_take_the_rails(void **state)
{
    (void)state;
    static const enum plan_collective both[] = {PLAN_ALLGATHER, PLAN_REDUCESCATTER};
    uint32_t many[17] = {0};
    for (int v = 0; v < 16; v++) many[v] = 2;
    for (int k = 0; k < 2; k++) {
        for (uint64_t bytes = 1; bytes < 64 * (uint64_t)MIB; bytes *= 4)
            assert_int_equal(choose(both[k], NODES(4, 4), -1, bytes).algorithm, PLAN_RAILS);
        assert_int_equal(choose(both[k], NODES(4, 4), -1, 64 * KIB).n_channels, 4); /* 8 blocks, of 16 KiB in each */
        assert_int_equal(choose(both[k], NODES(4, 4), -1, 8).n_channels, 1);
        assert_int_equal(choose(both[k], many, -1, 8).algorithm, PLAN_DOUBLING);    /* 5 hops, not 15 */
        assert_int_equal(choose(both[k], many, -1, 64 * KIB).algorithm, PLAN_RAILS);
    }
}

static void alltoall_goes_pairwise_where_there_are_no_windows(void **state)
{
    (void)state;
    assert_int_equal(choose(PLAN_ALLTOALL, NODES(4), -1, 64 * MIB).algorithm, PLAN_ONE_SHOT);
    assert_int_equal(choose(PLAN_ALLTOALL, NODES(4, 4), -1, 8).algorithm, PLAN_PAIRWISE);
    assert_int_equal(choose(PLAN_ALLTOALL, NODES(4, 1), PLAN_RING, 64 * MIB).algorithm, PLAN_PAIRWISE); /* there is none */
    assert_int_equal(choose(PLAN_ALLTOALL, NODES(65), -1, 8).algorithm, PLAN_PAIRWISE);
}

static void what_is_forced_is_taken_where_it_exists_and_fits(void **state)
{
    (void)state;
    assert_int_equal(choose(PLAN_BROADCAST, NODES(4), PLAN_TREE, 8).algorithm, PLAN_TREE);
    assert_int_equal(choose(PLAN_REDUCE, NODES(4), PLAN_ONE_SHOT, MIB).algorithm, PLAN_ONE_SHOT);
    assert_int_equal(choose(PLAN_ALLGATHER, NODES(4), PLAN_RING, 8).algorithm, PLAN_RING);
    assert_int_equal(choose(PLAN_ALLGATHER, NODES(4), PLAN_TREE, 8).algorithm, PLAN_ONE_SHOT); /* there is none */
    assert_int_equal(choose(PLAN_ALLGATHER, NODES(2, 2), PLAN_ONE_SHOT, 8).algorithm, PLAN_RAILS);
    assert_int_equal(choose(PLAN_ALLGATHER, NODES(300), PLAN_DOUBLING, 8).algorithm, PLAN_RING);
}

static void every_choice_can_be_written_and_fits_windows_and_slots(void **state)
{
    (void)state;
    static const uint32_t shapes[][4] = {{2}, {3}, {7}, {64}, {65}, {1, 1}, {2, 1}, {8, 8, 8}, {40, 40}, {3, 2, 4}};
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        struct shape shape = shape_of_nodes(shapes[k], true);
        struct choice_table table;
        choice_table_default(&table, &shape);
        uint64_t slot = shape.n_nodes > 1 ? table.net_slot_bytes : table.shm_slot_bytes;
        for (int c = PLAN_ALLREDUCE; c < PLAN_COLLECTIVES; c++)
            for (int forced = -1; forced < PLAN_ALGORITHMS; forced++)
                for (uint64_t bytes = 1; bytes < (uint64_t)1 << 40; bytes = bytes * 5 + 3) {
                    table.forced_algorithm = forced;
                    struct choice choice = choose_plan((enum plan_collective)c, &table, &shape, bytes);
                    struct plan plan;
                    if (choice.algorithm == PLAN_PAIRWISE) continue; /* test_pairwise.c */
                    assert_true(plan_write((enum plan_collective)c, choice.algorithm, &shape, shape.n_ranks - 1,
                                           choice.n_channels - 1, shape.n_ranks / 2, &plan));
                    assert_true(choice.n_channels >= 1 && choice.piece_bytes >= 64 && choice.piece_bytes % 64 == 0);
                    bool several = collective_kind((uint32_t)c).input_blocks || choice.algorithm == PLAN_TWO_SHOT || choice.algorithm == PLAN_RAILS;
                    if (plan.flags & PLAN_WINDOWS) assert_true(choice.piece_bytes * (several ? plan.n_pieces : 1) <= table.window_bytes);
                    else assert_true(choice.piece_bytes <= slot);
                    if (plan.flags & PLAN_WINDOWS) assert_in_range(choice.n_channels, 1, shape.n_nodes > 1 ? RAILS_CHANNELS_MAX : 1);
                    if (choice.algorithm == PLAN_RAILS) assert_true(choice.piece_bytes <= slot); /* its pieces travel in slots, too */
                }
        shape_clear(&shape);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_node_takes_one_exchange_and_a_large_reduce_two),
        cmocka_unit_test(several_nodes_take_few_hops_for_small_messages_and_rings_else),
        cmocka_unit_test(even_nodes_take_the_rails),
        cmocka_unit_test(alltoall_goes_pairwise_where_there_are_no_windows),
        cmocka_unit_test(what_is_forced_is_taken_where_it_exists_and_fits),
        cmocka_unit_test(every_choice_can_be_written_and_fits_windows_and_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
